"""`reelgraph record`: live cameras into segments, which a run can follow."""

from __future__ import annotations

import argparse
import signal
import threading
from pathlib import Path

from pipeline.commands import Command, positive_number, print_result
from pipeline.errors import UsageError
from pipeline.store.nodes import located
from pipeline.text import plural


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources", nargs="+", metavar="SOURCE",
        help="rtsp://, http(s):// (MJPEG, MPEG-TS, HLS), /dev/video0, a file, which is played in real time, or "
        "@list.txt with NAME ADDRESS in each line",
    )  # fmt: skip
    parser.add_argument("--to", required=True, metavar="FOLDER", help="folder of the segments; one recorder at a time")
    parser.add_argument(
        "--segments", type=positive_number, default=60.0, metavar="SECONDS",
        help="wanted length; a segment ends at the nearest key frame (default: 60)",
    )  # fmt: skip
    parser.add_argument(
        "--name", action="append", default=[], metavar="NAME",
        help="name of a camera, once for each source, in their order (default: host and path, or the file's name)",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", type=positive_number, default=10.0, metavar="SECONDS",
        help="silence after which a camera is connected again (default: 10)",
    )  # fmt: skip
    parser.add_argument(
        "--keep-hours", type=positive_number, metavar="H", help="delete finished segments that began earlier than this"
    )
    parser.add_argument(
        "--keep-gb", type=positive_number, metavar="GB", help="delete the oldest finished segments beyond this size"
    )
    parser.add_argument(
        "--analysed", metavar="STORE", help="delete only segments that this store has analysed, whatever the limits"
    )


def _record(options: argparse.Namespace) -> int:
    from pipeline.media.recording.camera import cameras
    from pipeline.media.recording.recorder import record
    from pipeline.views.progress import say

    if options.analysed and not (options.keep_hours or options.keep_gb):
        raise UsageError("--analysed needs a limit beyond which segments are deleted; add --keep-hours or --keep-gb")
    chosen, stop = cameras(options.sources, options.name), threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stop.set()) for number in numbers]
    try:
        found = record(
            chosen,
            Path(options.to).expanduser().absolute(),
            stop,
            say,
            seconds=options.segments,
            timeout_seconds=options.timeout,
            keep_hours=options.keep_hours,
            keep_gb=options.keep_gb,
            analysed_in=located(options.analysed) if options.analysed else None,
        )
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    lines = [
        f"{one['name']}: {plural(one['frames'], 'frame')} in {plural(one['segments'], 'segment')}"
        + (f", {plural(one['gaps'], 'gap')} of {one['gap_seconds']:.1f} s in all" if one["gaps"] else "")
        for one in found
    ]
    print_result(options, {"to": options.to, "cameras": found}, lines)
    return 1 if any(one["error"] for one in found) else 0


COMMAND = Command("record", "record live cameras into segments, for run --follow", _arguments, _record)

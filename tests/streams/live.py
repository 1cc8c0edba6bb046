"""Live cameras over RTSP and HTTP, recorded and followed for minutes, with two breaks of the connection.

    python -m tests.streams.live --minutes 5

The cameras show numbered frames. Each frame that a camera sent within a connection is then recorded and analysed, once.
RTSP needs Debian's gir1.2-gst-rtsp-server-1.0, gstreamer1.0-plugins-good and -bad; without them, add --no-rtsp.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import signal
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

from tests.processes import kill_group, start
from tests.streams.cameras import HttpCamera, numbers_of, rtsp_camera, write_film
from tests.streams.numbered import analysed, write_workflow

LOOP = 250
"""Frames of the film: 10 s at 25 frames per second."""
BREAK_SECONDS = 8.0
RTSP_PORT = 8654


def campaign(folder: Path, seconds: float, rtsp: bool, segment_seconds: float) -> list[str]:
    """Record and follow for a time; return lines on what was sent, recorded and analysed. Raises AssertionError."""
    film = write_film(folder / "loop.mp4", LOOP, gop=25)
    camera, to, out = HttpCamera(film), folder / "cameras", folder / "out.zarr"
    to.mkdir()
    sources = [camera.url("ts"), camera.url("mjpeg"), *([f"rtsp://127.0.0.1:{RTSP_PORT}/camera"] if rtsp else [])]
    names = ["ts", "mjpeg", "rtsp"][: len(sources)]
    named = [word for name in names for word in ("--name", name)]
    with (folder / "record.txt").open("w") as said, (folder / "follow.txt").open("w") as followed:
        recorder = start(
            "record", *sources, "--to", to, "--segments", str(segment_seconds), "--timeout", "5", *named, stderr=said
        )
        words = ("run", write_workflow(folder), "--follow", to, "--out", out, "--executor", "inline")
        follower = start(*words, stderr=followed)
        try:
            for _ in range(3):
                with rtsp_camera(film, RTSP_PORT) if rtsp else contextlib.nullcontext():
                    camera.is_broken.clear()
                    time.sleep(seconds / 3 - BREAK_SECONDS)
                    camera.is_broken.set()
                    time.sleep(0.5)
                time.sleep(BREAK_SECONDS - 0.5)
            recorder.send_signal(signal.SIGTERM)
            print(recorder.communicate(timeout=60)[0])
            time.sleep(5)
            follower.send_signal(signal.SIGTERM)
            print(follower.communicate(timeout=120)[0])
        finally:
            camera.close()
            for process in (recorder, follower):
                if process.poll() is None:
                    kill_group(process)
    assert (recorder.returncode, follower.returncode) == (0, 0)
    store = analysed(out)
    lines = []
    for name in names:
        films = sorted(to.glob(f"{name}_*.mkv"))
        recorded = {film.stem: numbers_of(film) for film in films}
        found = {film: numbers for film, numbers in store.items() if film.startswith(f"{name}_")}
        assert found == recorded, f"{name}: what was analysed is not what was recorded"
        joined = [number for numbers in recorded.values() for number in numbers]
        steps = [(after - before) % LOOP for before, after in pairwise(joined)]
        jumps = sum(step != 1 for step in steps)
        count = len((folder / "record.txt").read_text().split(f"{name}: gap of")) - 1
        assert jumps <= count, f"{name}: frames are missing within a connection"
        lags = [(out / film.stem / "zarr.json").stat().st_mtime - film.stat().st_mtime for film in films]
        lines.append(
            f"{name}: {len(joined)} frames recorded and analysed, each once; {len(films)} segments, {count} gaps; "
            f"from the end of a segment to its results {max(lags):.1f} s at most, {median(lags):.1f} s in median"
        )
    sent: dict[str, list[int]] = {"ts": [], "mjpeg": []}
    for kind, numbers in camera.sent_by_kind:
        sent[kind].append(len(numbers))
    lines.append(f"sent over HTTP, by connection: {sent}")
    waited = [float(found) for found in re.findall(r"finished ([\d.]+) s ago", (folder / "follow.txt").read_text())]
    lines.append(f"{len(waited)} rounds began within 60 s of the end of what they took; the longest {max(waited)} s")
    return lines


def main() -> None:
    """Run the campaign and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--segments", type=float, default=20.0)
    parser.add_argument("--no-rtsp", action="store_true")
    parser.add_argument("--keep", type=Path, help="an empty folder for the files; they stay there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(exist_ok=True)
        print("\n".join(campaign(folder, options.minutes * 60, not options.no_rtsp, options.segments)))


if __name__ == "__main__":
    main()

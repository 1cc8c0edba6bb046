"""Faces in `reelgraph annotate`: films and pictures with boxes and names, or with faces blurred."""

from __future__ import annotations

import argparse

from pipeline.commands import print_result
from pipeline.commands.annotate import Drawer


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--blur", nargs="+", default=[], metavar="WHO",
        help="blur the faces of all, of unknown (all people without a name), or of a person by id or name",
    )  # fmt: skip
    parser.add_argument(
        "--boxes", action=argparse.BooleanOptionalAction, default=None,
        help="draw boxes and names (default: but over faces that are blurred)",
    )  # fmt: skip
    parser.add_argument(
        "--levels", action="store_true", help="write behind a name of a gallery how sure it is: sure or likely"
    )
    parser.add_argument("--start", metavar="T", help="from this time on: seconds or H:MM:SS")
    parser.add_argument("--stop", metavar="T", help="up to this time, exclusive: seconds or H:MM:SS")


def _annotate(options: argparse.Namespace) -> int:
    from pipeline.faces.views.annotate import Wanted, annotate
    from pipeline.views.progress import for_stderr

    start, stop = time_of(options.start, "--start"), time_of(options.stop, "--stop")
    wanted = Wanted(tuple(options.blur), options.boxes, start, stop, options.levels)
    with for_stderr() as progress:
        made = annotate(options.outs, options.input, options.out, wanted, force=options.force, progress=progress)
    print_result(options, {"films": [one.as_dict() for one in made]}, list(dict.fromkeys(one.file for one in made)))
    return 0


def time_of(text: str | None, flag: str) -> float | None:
    """Return the seconds of a time that a user gave. Raises UsageError if the text is not a time."""
    from pipeline.errors import UsageError
    from pipeline.text import parse_seconds

    try:
        return None if text is None else parse_seconds(text)
    except ValueError as err:
        raise UsageError(f"{flag}: {err}") from err


DRAWER = Drawer("faces", "face", _arguments, _annotate)

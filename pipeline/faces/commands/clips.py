"""`reelgraph clips`: the appearances of one person, cut out."""

from __future__ import annotations

import argparse

from pipeline.commands import Command, number, print_result

_DEFAULT_MARGIN, _DEFAULT_GAP = 1.0, 2.0
"""Seconds, as in faces.views.clips and faces.people.appearances, which are too heavy to be imported for --help."""
_SECONDS = number("a number of seconds of at least 0", lambda value: 0 <= value < float("inf"))


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("outs", metavar="OUT", nargs="+", help="run stores, complete or half done")
    parser.add_argument(
        "--person", required=True, metavar="WHO", help="id or name of `reelgraph people`, or name of a gallery"
    )
    parser.add_argument("--out", metavar="DIR", help="folder for the clips (default: clips, beside OUT)")
    parser.add_argument(
        "--margin", type=_SECONDS, default=_DEFAULT_MARGIN, metavar="S",
        help="seconds shown before and after each appearance (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--longest-gap", type=_SECONDS, default=_DEFAULT_GAP, metavar="S",
        help="a person who is away for more seconds appears again (default: 2)",
    )  # fmt: skip
    parser.add_argument("--join", action="store_true", help="one film of all appearances in all inputs")
    parser.add_argument(
        "--copy", action="store_true", help="copy packets from the key frame before: quick, but longer than asked for"
    )
    parser.add_argument("--force", action="store_true", help="replace files that exist")


def _clips(options: argparse.Namespace) -> int:
    from pipeline.faces.views.clips import ClipOptions, cut_clips
    from pipeline.views.progress import for_stderr

    how = ClipOptions(options.margin, options.longest_gap, options.join, options.copy)
    with for_stderr() as progress:
        made = cut_clips(options.outs, options.person, options.out, how, force=options.force, progress=progress)
    print_result(options, made.as_dict(), list(dict.fromkeys(clip.file for clip in made.clips)))
    return 0


COMMAND = Command("clips", "cut the appearances of one person out of the videos", _arguments, _clips)

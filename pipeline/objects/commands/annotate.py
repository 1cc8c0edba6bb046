"""Objects in `reelgraph annotate`: films and pictures with boxes, classes and tracks, and counts of lines and zones."""

from __future__ import annotations

import argparse

from pipeline.commands import number
from pipeline.commands.annotate import Drawer, print_films, span_of

_SECONDS = number("a number of seconds from 0 to 3600", lambda value: 0 <= value <= 3600)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scores", action="store_true", help="objects: write the score behind each class")
    parser.add_argument(
        "--trail", type=_SECONDS, default=1.0, metavar="S",
        help="objects: draw the way of each track in the last S seconds (default: %(default)s; 0: no trail)",
    )  # fmt: skip


def _annotate(options: argparse.Namespace) -> int:
    from pipeline.media.film.targets import chosen_inputs
    from pipeline.objects.views.annotate import ObjectPainter
    from pipeline.views.annotate import Part, annotate_inputs
    from pipeline.views.progress import Work, for_stderr

    with for_stderr() as progress:
        made = annotate_inputs(
            chosen_inputs(options.outs, options.input), options.out,
            lambda _, item: ObjectPainter(item, scores=options.scores, trail_seconds=options.trail),
            Work(progress), part=Part(*span_of(options)), force=options.force,
        )  # fmt: skip
    return print_films(options, made)


DRAWER = Drawer("objects", "object", _arguments, _annotate, of_films=True)

"""Pairs in `reelgraph annotate`: the matches of two pictures, as lines between them."""

from __future__ import annotations

import argparse

from pipeline.commands import positive, print_result
from pipeline.commands.annotate import Drawer
from pipeline.errors import UsageError


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pair", nargs=2, action="append", default=[], metavar=("A", "B"),
        help="pairs: only this pair of pictures, by their names in the store; may be repeated",
    )  # fmt: skip
    parser.add_argument("--most", type=positive, metavar="N", help="pairs: draw the N best (default: 20)")


def _annotate(options: argparse.Namespace) -> int:
    from pipeline.pairs.views.annotate import draw_matches
    from pipeline.text import plural
    from pipeline.views.progress import for_stderr

    if options.pair and options.most:
        raise UsageError("--most chooses the best pairs, and --pair names some; leave one of them out")
    with for_stderr() as progress:
        drawn = draw_matches(
            options.outs, options.input, options.out, most=options.most, pairs=[(a, b) for a, b in options.pair],
            force=options.force, progress=progress,
        )  # fmt: skip
    print_result(options, drawn.as_dict(), [f"{drawn.folder}: {plural(len(drawn.pictures), 'pair')} drawn"])
    return 0


DRAWER = Drawer("pairs", "match", _arguments, _annotate)

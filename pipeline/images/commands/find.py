"""`reelgraph find` for pictures: those of some stores that are most like one."""

from __future__ import annotations

import argparse
import sys

from pipeline.commands import print_result
from pipeline.commands.find import Search
from pipeline.errors import UsageError
from pipeline.text import plain

WHICH = "which picture? name one of --image FILE and --like NAME"


def _arguments(parser: argparse.ArgumentParser) -> None:
    asked = parser.add_argument_group("like which picture (one of the two)")
    asked.add_argument("--image", metavar="FILE", help="a picture file; its feature is made as those of the stores")
    asked.add_argument("--like", metavar="NAME", help="a picture of the stores, as `name` or `input/name`")
    asked.add_argument("--array", metavar="NAME", help="the array of features (default: the only one of the stores)")


def _find(options: argparse.Namespace) -> int:
    if (options.image is None) == (options.like is None):
        raise UsageError(WHICH)
    if not options.outs:
        raise UsageError("name at least one store: reelgraph find OUT...")
    from pipeline.images.search import TOP, lines, search
    from pipeline.views.progress import NowAndThen

    found = search(
        options.outs, image=options.image, like=options.like, array=options.array, top=options.top or TOP,
        looked=NowAndThen("pictures looked at"), note=lambda text: print(plain(text), file=sys.stderr, flush=True),
    )  # fmt: skip
    print_result(options, found.as_dict(), lines(found))
    return found.exit_code


SEARCH = Search("images", WHICH, ("image", "like"), _arguments, _find)

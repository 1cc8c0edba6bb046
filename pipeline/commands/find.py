"""`reelgraph find`: people by their faces, pictures by their features; each domain brings its own search."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.commands import Command, given, positive
from pipeline.errors import UsageError
from pipeline.installed import load_group

GROUP = "reelgraph.searches"


@dataclass(frozen=True)
class Search:
    """A kind of search through stores, found in the entry point group `reelgraph.searches`."""

    name: str
    question: str
    """One line that names the flags in `begins`, for a user who gave none of them."""
    begins: tuple[str, ...]
    """Flags that choose this search: "face" for `--face`."""
    arguments: Callable[[argparse.ArgumentParser], None]
    """Adds its flags; `outs` and `--top` are there."""
    run: Callable[[argparse.Namespace], int]
    """Does the search on the parsed flags; returns the exit code."""


def _searches() -> list[Search]:
    return load_group(GROUP)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("outs", metavar="OUT", nargs="*", help="run stores, complete or not")
    parser.add_argument(
        "--top", type=positive, metavar="N", help="best shots of --face to list, or pictures (default: 10)"
    )
    for search in _searches():
        search.arguments(parser)


def _find(options: argparse.Namespace) -> int:
    searches = _searches()
    chosen = [one for one in searches if any(getattr(options, flag) is not None for flag in one.begins)]
    if len(chosen) != 1:
        raise UsageError("; ".join(one.question for one in searches))
    for other in searches:
        for flag in given(other.arguments, options) if other is not chosen[0] else ():
            begin = next(flag for flag in chosen[0].begins if getattr(options, flag) is not None)
            raise UsageError(f"{flag} does not go with --{begin}")
    return chosen[0].run(options)


HELP = "find known people and write their names to the stores, one person by a picture, or pictures like another"
COMMAND = Command("find", HELP, _arguments, _find)

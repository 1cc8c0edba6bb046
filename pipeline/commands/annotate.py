"""`reelgraph annotate`: what was found, drawn on what it was found in; each domain brings its own drawer."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.commands import Command, given, print_result
from pipeline.errors import UsageError
from pipeline.installed import load_group
from pipeline.text import parse_seconds, plural_of

if TYPE_CHECKING:
    from pipeline.views.annotate import Annotated

GROUP = "reelgraph.drawers"


@dataclass(frozen=True)
class Drawer:
    """A kind of drawing, found in the entry point group `reelgraph.drawers`."""

    name: str
    """Value of `--draw`: "faces"."""
    axis: str
    """Axis whose rows it draws."""
    arguments: Callable[[argparse.ArgumentParser], None]
    """Adds its flags; `outs`, `--input`, `--out`, `--draw`, `--start`, `--stop` and `--force` are there."""
    run: Callable[[argparse.Namespace], int]
    """Draws by the parsed flags; returns the exit code."""
    of_films: bool = False
    """True if it draws on films, of which `--start` and `--stop` take a part: see `span_of`."""


def _drawers() -> list[Drawer]:
    return load_group(GROUP)


def _arguments(parser: argparse.ArgumentParser) -> None:
    drawers = _drawers()
    parser.add_argument("outs", metavar="OUT", nargs="+", help="run stores, complete or half done")
    parser.add_argument(
        "--input", action="append", default=[], metavar="NAME", help="only this input; may be repeated (default: all)"
    )
    parser.add_argument(
        "--out", "--to", metavar="FILE|DIR",
        help="a film's name (.mp4, .mov, .mkv, .webm), or a folder, as for pictures (default: beside OUT)",
    )  # fmt: skip
    parser.add_argument(
        "--draw", choices=[one.name for one in drawers], help="what to draw, if the stores hold more than one of these"
    )
    for drawer in drawers:
        drawer.arguments(parser)
    _span_arguments(parser)
    parser.add_argument("--force", action="store_true", help="replace a file that exists")


def _annotate(options: argparse.Namespace) -> int:
    drawers = _drawers()
    flags = {one.name: given(one.arguments, options) for one in drawers}
    fitting = [one for one in drawers if options.draw == one.name] or _fitting(options.outs, drawers)
    named = [one for one in fitting if flags[one.name]]
    if len(fitting) > 1 and len(named) != 1:
        raise UsageError(f"the stores hold {' and '.join(one.name for one in fitting)}; choose one with --draw")
    chosen = (named or fitting)[0]
    for other in drawers:
        if other is not chosen and flags[other.name]:
            raise UsageError(f"{flags[other.name][0]} does not go with drawing {chosen.name}; leave it out")
    if not chosen.of_films and (span := given(_span_arguments, options)):
        raise UsageError(f"{span[0]} does not go with drawing {chosen.name}; leave it out")
    return chosen.run(options)


def _span_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--start", metavar="T", help="films: from this time on: seconds or H:MM:SS")
    parser.add_argument("--stop", metavar="T", help="films: up to this time, exclusive: seconds or H:MM:SS")


def span_of(options: argparse.Namespace) -> tuple[float | None, float | None]:
    """Return the seconds of `--start` and `--stop`; None if not given. Raises UsageError for what is not a time."""

    def seconds(flag: str, text: str | None) -> float | None:
        try:
            return None if text is None else parse_seconds(text)
        except ValueError as err:
            raise UsageError(f"{flag}: {err}") from err

    return seconds("--start", options.start), seconds("--stop", options.stop)


def print_films(options: argparse.Namespace, made: Sequence[Annotated]) -> int:
    """Print the films and folders that were made; return the exit code."""
    print_result(options, {"films": [one.as_dict() for one in made]}, list(dict.fromkeys(one.file for one in made)))
    return 0


def _fitting(outs: list[str], drawers: list[Drawer]) -> list[Drawer]:
    """Return the drawers of what the stores hold. Raises UsageError if there are none."""
    from pipeline.store.read import open as open_store
    from pipeline.store.run import each_once
    from pipeline.views.axes import axes_of

    axes = axes_of(open_store(out) for out in each_once(outs))
    fitting = [one for one in drawers if one.axis in axes]
    if not fitting:
        *some, last = (plural_of(one.axis) for one in drawers)
        drawn = f"{', '.join(some)} and {last}"
        raise UsageError(f"annotate draws {drawn}, and {', '.join(outs)} holds none of them; run such a workflow first")
    return fitting


HELP = (
    "draw what was found: faces with names, or made unrecognisable, and objects on films and pictures; matches of two "
    "pictures"
)
COMMAND = Command("annotate", HELP, _arguments, _annotate)

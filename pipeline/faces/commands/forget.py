"""`reelgraph forget`: remove a person from stores, and prove it."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.commands import Command, print_result
from pipeline.errors import UsageError
from pipeline.faces.commands import say
from pipeline.text import plain

NOT_PROVEN = 1
SECONDS_BETWEEN_LINES = 5.0


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("outs", metavar="OUT", nargs="+", type=Path, help="run stores")
    parser.add_argument(
        "--person", required=True, metavar="ID|NAME", help="an id or a name of the registry, or a name of the gallery"
    )
    parser.add_argument(
        "--registry", type=Path, metavar="FILE", help="people.json (default: the one that the stores name)"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would go, and remove nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def _forget(options: argparse.Namespace) -> int:
    from pipeline.faces.people import receipt
    from pipeline.faces.people.forget import forget, require_stores, search

    require_stores(options.outs)
    asked = (options.outs, options.person, options.registry)
    if options.dry_run or not options.yes:
        with _progress() as note:
            searched = search(*asked, note=note)
        if options.dry_run:
            print_result(options, receipt.as_dict(searched, None, None), receipt.lines(searched, None, None))
            return 0
        would = receipt.lines(searched, None, None)
        if not sys.stdin.isatty():
            raise UsageError(f"{would[0]}; nothing was removed: say --yes to do it, --dry-run for details")
        for line in would:
            say(line)
        print("This cannot be undone. Type yes to remove them: ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() != "yes":
            raise UsageError("nothing was removed")
    with _progress() as note:
        searched, done = forget(*asked, note=note)
        note("reading every array again")
        proof = receipt.prove(options.outs, searched)
    print_result(options, receipt.as_dict(searched, done, proof), receipt.lines(searched, done, proof))
    return 0 if proof.holds else NOT_PROVEN


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Show progress on standard error: one line that changes on a terminal, a line now and then elsewhere."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.text import Text

        with Console(stderr=True).status("") as status:
            yield lambda text: status.update(Text(plain(text)))
        return
    last = -SECONDS_BETWEEN_LINES

    def note(text: str) -> None:
        nonlocal last
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            say(text)

    yield note


COMMAND = Command("forget", "remove a person's faces from stores for good, and prove it", _arguments, _forget)

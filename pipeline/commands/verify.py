"""`reelgraph verify`: read everything in a store, and name what is damaged."""

from __future__ import annotations

import argparse

from pipeline.commands import Command, print_result


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", metavar="OUT", help="the run store, done or half done")
    parser.add_argument(
        "--repair", action="store_true", help="write again what can be restored from a checked copy within the store"
    )


def _verify(options: argparse.Namespace) -> int:
    from pipeline.store.nodes import located
    from pipeline.store.verify import repair, verify
    from pipeline.views.verify import flaws_of_lists, lines

    place = located(options.out)
    found = repair(place) if options.repair else verify(place)
    found.flaws += flaws_of_lists(place) if not found.flaws else []
    print_result(options, found.as_dict(), lines(found))
    return int(bool(found.flaws))


COMMAND = Command("verify", "read everything in a store and name what is damaged", _arguments, _verify)

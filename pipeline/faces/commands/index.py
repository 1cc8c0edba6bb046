"""`reelgraph index`: an approximate index over many stores."""

from __future__ import annotations

import argparse

from pipeline.commands import Command, positive, print_result
from pipeline.faces.commands import say
from pipeline.text import plural


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("outs", metavar="OUT", nargs="+", help="run stores; what is not complete is left out")
    parser.add_argument("--out", required=True, metavar="INDEX", help="the index (a folder)")
    parser.add_argument("--lists", type=positive, metavar="N", help="lists to sort faces into (default: by number)")


def _index(options: argparse.Namespace) -> int:
    from pipeline.faces.people.index import build
    from pipeline.views.progress import NowAndThen

    facts = build(options.outs, options.out, lists=options.lists, progress=NowAndThen("faces sorted"), note=say)
    seconds = sum(facts.seconds.values())
    stores = len({entry.out for entry in facts.entries})
    faces, inputs = plural(facts.faces, "face"), plural(len(facts.entries), "input")
    said = f"{options.out}: {faces} of {inputs} of {plural(stores, 'store')}"
    said += f", {plural(facts.lists, 'list')}, {seconds:.1f} s"
    print_result(options, {"index": options.out, **facts.as_dict()}, [said])
    return 0


COMMAND = Command("index", "index the faces of stores, for `find --face --index`", _arguments, _index)

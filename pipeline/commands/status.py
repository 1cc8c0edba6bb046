"""`reelgraph status`: what a store holds."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.commands import Command, print_result


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", metavar="OUT", help="the run store")


def _status(options: argparse.Namespace) -> int:
    from pipeline.views.status import describe, lines

    status = describe(Path(options.out))
    print_result(options, status, lines(status))
    return 0


COMMAND = Command("status", "say what a store holds: inputs, chunks done and failed", _arguments, _status)

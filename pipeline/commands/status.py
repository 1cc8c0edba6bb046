"""`reelgraph status`: what a store holds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pipeline.commands import add_command, print_result


def add(commands: Any) -> None:
    status = add_command(commands, "status", "say what a store holds: inputs, chunks done and failed", _status)
    status.add_argument("out", metavar="OUT", help="the run store")


def _status(options: argparse.Namespace) -> int:
    from pipeline.views.status import describe, lines

    status = describe(Path(options.out))
    print_result(options, status, lines(status))
    return 0

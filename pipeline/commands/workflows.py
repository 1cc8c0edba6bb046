"""`reelgraph workflows`: a workflow and its options explained."""

from __future__ import annotations

import argparse
from typing import Any

from pipeline.commands import add_command, print_result


def add(commands: Any) -> None:
    workflows = add_command(commands, "workflows", "check a workflow file and explain its options", _workflows)
    workflows.add_argument(
        "workflow", metavar="WORKFLOW", nargs="?", help="a YAML file; without it, list the stages there are"
    )


def _workflows(options: argparse.Namespace) -> int:
    from pipeline.views.workflows import describe, describe_stages, lines

    described = describe(options.workflow) if options.workflow else describe_stages()
    print_result(options, described, lines(described))
    return 0

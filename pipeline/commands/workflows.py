"""`reelgraph workflows`: the shipped workflows, or one workflow and its options explained."""

from __future__ import annotations

import argparse

from pipeline.commands import Command, print_result


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "workflow", metavar="WORKFLOW", nargs="?",
        help="a shipped workflow by name, or a YAML file; without it, list the shipped ones and all stages",
    )  # fmt: skip


def _workflows(options: argparse.Namespace) -> int:
    from pipeline.views.workflows import describe, describe_all, lines

    described = describe(options.workflow) if options.workflow else describe_all()
    print_result(options, described, lines(described))
    return 0


COMMAND = Command(
    "workflows", "list the shipped workflows, or check one and explain its options", _arguments, _workflows
)

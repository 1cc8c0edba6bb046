"""`reelgraph doctor`: what this machine offers."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.commands import Command, print_result


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", default="runs", metavar="DIR", help="where output would be written (default: runs)")


def _doctor(options: argparse.Namespace) -> int:
    from pipeline.views.doctor import examine, lines

    findings = examine(Path(options.out))
    print_result(options, {"findings": [vars(finding) for finding in findings]}, lines(findings))
    return 0 if all(finding.ok or not finding.needed for finding in findings) else 1


COMMAND = Command("doctor", "say what this machine offers, and what to do about what is missing", _arguments, _doctor)

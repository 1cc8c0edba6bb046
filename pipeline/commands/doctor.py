"""`reelgraph doctor`: what this machine offers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pipeline.commands import add_command, print_result


def add(commands: Any) -> None:
    doctor = add_command(
        commands, "doctor", "say what this machine offers, and what to do about what is missing", _doctor
    )
    doctor.add_argument("--out", default="runs", metavar="DIR", help="where output would be written (default: runs)")


def _doctor(options: argparse.Namespace) -> int:
    from pipeline.views.doctor import examine, lines

    findings = examine(Path(options.out))
    print_result(options, {"findings": [vars(finding) for finding in findings]}, lines(findings))
    return 0 if all(finding.ok or not finding.needed for finding in findings) else 1

"""Removing faces, killed at every file operation: the old state or the new, and nothing of the removed faces left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from faults import REMOVALS
from test_kill import ENVIRONMENT, HERE


def kill(case: str, folder: Path, step: int) -> None:
    command = [sys.executable, str(HERE / "faults.py"), case, str(folder), str(step)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout) > 50, "too few operations were counted: the patch no longer reaches them"


def test_some_operations(tmp_path: Path) -> None:
    kill("remove faces while a stage is added", tmp_path, 11)


@pytest.mark.slow
@pytest.mark.parametrize(("case", "step"), list(zip(REMOVALS, (8, 1), strict=True)), ids=list(REMOVALS))
def test_every_operation(case: str, step: int, tmp_path: Path) -> None:
    """While a stage is added there are the operations of a removal alone and more: of the latter some will do."""
    kill(case, tmp_path, step)

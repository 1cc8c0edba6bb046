"""A test skipped for want of a program fails in CI, and only there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = {
    "test_program": 'import pytest\ndef test_it():\n    pytest.skip("not installed: sbatch")\n',
    "test_marked": 'import pytest\n@pytest.mark.skipif(True, reason="not installed: chromium")\ndef test_it(): pass\n',
    "test_module": 'import pytest\npytest.importorskip("a_package_that_is_missing")\ndef test_it(): pass\n',
    "test_gpu": 'import pytest\ndef test_it():\n    pytest.skip("no GPU is visible")\n',
    "test_expected": "import pytest\n@pytest.mark.xfail\ndef test_it(): raise ValueError\n",
}


@pytest.mark.parametrize(
    ("ci", "failed"),
    [("true", {"test_program", "test_marked", "test_module"}), ("", set())],
    ids=["in CI", "elsewhere"],
)
def test_a_missing_program_fails_in_ci(ci: str, failed: set[str], repository: Path, tmp_path: Path) -> None:
    for name, text in TESTS.items():
        (tmp_path / f"{name}.py").write_text(text)
    environment = {**os.environ, "CI": ci, "PYTHONPATH": os.pathsep.join([str(repository), *sys.path])}
    options = ["-q", "-rfE", "-p", "tests.skips", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
    command = [sys.executable, "-m", "pytest", *options, str(tmp_path)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR "))]
    assert {name for name in TESTS if any(name in line for line in lines)} == failed, done.stdout
    assert (done.returncode == 0) == (not failed), done.stdout

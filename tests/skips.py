"""Skipped tests in CI: with CI=true a test that is skipped for want of a program or a package fails.

A green run then means that the tests were run. Reasons that no installation can remove stay reasons.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest

REASONS = (
    *("no GPU is visible", "one worker on a CPU is no news", "PyNvVideoCodec is not installed"),
    *("this ONNX Runtime has CUDA", "PyNvVideoCodec is installed", "NVDEC can be used here"),
    *("no test data at", "neither pairs.csv nor pairs_dev.csv in"),
    *("runs as root", "root may write anywhere", "this user cannot mount a small disk"),
    *("no tmpfs here", "no /dev/full here", "torch, torchvision or albumentations is not installed"),
)
"""Beginnings of the reasons that may skip a test in CI: a GPU that is missing or present, no data, the user's rights.
The package for NVDEC is installed beside a GPU only. torch takes gigabytes; who changes the loader installs it."""


def _judge(report: Any) -> None:
    """Turn a skip into a failure if its reason is not among REASONS."""
    if os.environ.get("CI") != "true" or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if not reason.startswith(REASONS):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {reason}; install it in .ci/run or pyproject.toml, or see tests/skips.py"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    report = yield
    _judge(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    report = yield
    _judge(report)
    return report

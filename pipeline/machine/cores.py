"""The CPU, and the number of its cores that this process may use."""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path

from pipeline.machine.limits import quota_cores


def cpu_name() -> str:
    """Return the name of the CPU as the system has it; "" if it does not say."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def available_cores() -> int:
    """Return the number of cores that this process may use, by its affinity and the quota of a container or job."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = quota_cores()
    return min(cores, max(1, round(quota))) if quota < cores else cores

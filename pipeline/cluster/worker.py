"""Preloaded by every worker that a run starts itself."""

from __future__ import annotations

import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C to the run: a terminal sends it to the whole process group, and the run ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

"""Modules that every worker of a run imports first, as Dask's preload."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

_OUR_PACKAGE = """\
import importlib.util, sys
if "pipeline" not in sys.modules:
    spec = importlib.util.spec_from_file_location("pipeline", {file!r})
    sys.modules["pipeline"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["pipeline"])
"""
"""Program that a worker runs before it unpickles a task. A worker inherits the search path of the process that starts
it, where the user's own folder is first: a `pipeline.py` there would be imported in place of our package."""


def preloads() -> list[str]:
    """Return the preloads in their order: the text of a program, then this module."""
    return [_OUR_PACKAGE.format(file=str(Path(__file__).resolve().parents[1] / "__init__.py")), __name__]


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C to the run: a terminal sends it to the whole process group, and the run ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

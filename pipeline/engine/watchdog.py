"""Ends this worker process when a step takes too long.

Python cannot stop a thread, and a codec or driver that hangs may hold the interpreter's lock, so that no Python
watchdog would run either. `faulthandler` keeps its timer in a thread of C: it needs no lock and ends the process;
the nanny starts a new one.
"""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

EVENT_TOPIC = "reelgraph-steps"
"""Dask event topic on which steps announce themselves: the client learns from it what a dead worker was doing."""

_deadlines: dict[int, float] = {}
_lock = threading.Lock()
_tokens = itertools.count()
_sink = None


@contextlib.contextmanager
def watched(step: str, input_name: str, chunk: int, timeout_seconds: float | None) -> Iterator[None]:
    """Announce a step; with a timeout, end this process when the step is not done in time."""
    worker = this_worker()
    if worker is not None:
        # The last part of the task's key names the run: a scheduler may serve several.
        run = worker.active_threads.get(threading.get_ident(), ("",))[-1]
        message = {"step": step, "input": input_name, "chunk": chunk, "time": time.time(), "run": run}
        worker.log_event(EVENT_TOPIC, message)
    if timeout_seconds is None:
        yield
        return
    token = next(_tokens)
    with _lock:
        _deadlines[token] = time.monotonic() + timeout_seconds
        _rearm()
    try:
        yield
    finally:
        with _lock:
            del _deadlines[token]
            _rearm()


def _rearm() -> None:
    """One timer per process: set it to the earliest deadline of the steps under way."""
    global _sink
    if not _deadlines:
        faulthandler.cancel_dump_traceback_later()
        return
    if _sink is None:
        _sink = open(os.devnull, "w")  # noqa: SIM115  (stays open for the life of the process)
    left = max(min(_deadlines.values()) - time.monotonic(), 0.001)
    faulthandler.dump_traceback_later(left, exit=True, file=_sink)


def this_worker() -> Any | None:
    """The Dask worker that runs this thread's task; None for in-process runs."""
    distributed = sys.modules.get("distributed")  # in-process runs never import it
    if distributed is None:
        return None
    try:
        return distributed.get_worker()
    except ValueError:
        return None

"""Runs of the command line in processes of their own, so that tests can signal and kill them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO

COMMAND = [sys.executable, "-m", "pipeline"]


def reelgraph(*words: str | Path, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run([*COMMAND, *map(str, words)], capture_output=True, text=True, timeout=timeout)


def start(*words: str | Path, stderr: int | IO[str] = subprocess.PIPE) -> subprocess.Popen[str]:
    """Start a command as the leader of a process group of its own, with Ctrl-C as on a terminal.

    What a shell starts in the background, which a test run may be, ignores SIGINT, and so would its children.
    """
    return subprocess.Popen(
        [*COMMAND, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def kill_group(process: subprocess.Popen[str]) -> None:
    """kill -9 of the command and all its workers at once."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def wait_until(condition: Callable[[], bool], timeout: float = 60) -> None:
    """Poll until a condition holds. Raises AssertionError when it does not in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)

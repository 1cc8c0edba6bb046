"""Run a command and watch the memory of its whole process tree."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


def watched(command: list[str], environment: dict[str, str], folder: Path, mapped: bool = True) -> tuple[str, float]:
    """Run to the end; returns standard output and the peak memory, with or without the pages of files that are mapped
    (the system takes them back when it needs them). Ends the benchmark where the command fails."""
    log = folder / "stderr.log"
    with log.open("w") as errors:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
        with _memory_of(process.pid, mapped) as peak:
            output = process.communicate()[0]
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{log.read_text()[-2000:]}")
    return output, peak[0] / 1e6


@contextmanager
def _memory_of(pid: int, mapped: bool) -> Iterator[list[int]]:
    """Watch a process and its descendants four times a second; the list's one number is the peak, in bytes."""
    peak, over = [0], threading.Event()

    def resident(process: psutil.Process) -> int:
        try:
            info = process.memory_info()
            return int(info.rss if mapped else info.rss - info.shared)
        except psutil.Error:
            return 0

    def watch() -> None:
        while not over.wait(0.25):
            try:
                root = psutil.Process(pid)
                peak[0] = max(peak[0], sum(map(resident, [root, *root.children(recursive=True)])))
            except psutil.Error:
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        over.set()
        watcher.join()

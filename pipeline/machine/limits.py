"""The part of the machine that a container, or the job of a batch system, may use: control groups, version 1 and 2."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psutil

_GROUPS, _OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_LIMITS = ("memory.max", "memory.limit_in_bytes")
"""File of a group's memory limit: version 2, version 1."""
_HELD = (("anon", "shmem"), ("total_rss", "total_shmem"))
"""Bytes in `memory.stat` that the system cannot take back."""


def groups(controller: str) -> Iterator[Path]:
    """Yield the folders of this process' control groups for a controller (cpu, memory), from the inmost outwards.

    Each of them may have a limit. A job of a batch system is some levels down. A container sees its own group as the
    outmost one. The path that it is given may be its host's; a folder that is not there is left out.
    """
    try:
        lines = _OWN.read_text().splitlines()
    except OSError:
        lines = ["0::/"]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        names = [name for name in path.split("/") if name not in ("", "..")]
        root = _GROUPS / controller if controllers else _GROUPS
        yield from filter(Path.is_dir, (root.joinpath(*names[:depth]) for depth in range(len(names), -1, -1)))


def quota_cores() -> float:
    """Return the cores' worth of time that this process may use; infinity without a limit."""
    least = float("inf")
    for folder in groups("cpu"):
        with contextlib.suppress(OSError, ValueError):
            if (folder / "cpu.max").exists():
                quota, period = (folder / "cpu.max").read_text().split()
            else:
                quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            if int(quota) > 0:  # "max" is no number; -1 is version 1's word for it
                least = min(least, int(quota) / int(period))
    return least


def memory_bytes() -> int:
    """Return the memory that this process and its like may use in all."""
    total: int = psutil.virtual_memory().total
    return min([total, *(limit for limit, _ in _memory_limits())])


def free_bytes() -> int:
    """Return the memory that may still be allocated."""
    free: int = psutil.virtual_memory().available
    for limit, folder in _memory_limits():
        with contextlib.suppress(OSError, ValueError):
            held = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            free = min(free, *(max(0, limit - sum(int(held[n]) for n in names)) for names in _HELD if names[0] in held))
    return free


def _memory_limits() -> Iterator[tuple[int, Path]]:
    for folder in groups("memory"):
        for name in _LIMITS:
            with contextlib.suppress(OSError, ValueError):
                yield int((folder / name).read_text()), folder

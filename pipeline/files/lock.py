"""One writer per store: a lock file that says who writes and whose age says when that process was last alive.

No flock (network file systems lose or fake it). The holder touches the file every 10 s. A lock is stale at once when
its process is dead on this host, and after 60 s without a touch otherwise. Every change of the lock file is made under
a guard: a second file, made with O_EXCL, that lives for milliseconds. Of two processes that would take over, one wins.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.errors import StoreLockedError
from pipeline.files.regular import open_file
from pipeline.files.whole import PARTIAL, atomic_write, to_json

LOCK_FILE = ".lock"
HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 60.0
GUARD_STALE_SECONDS = 5.0
"""A guard is held for milliseconds: one this old belongs to a process that died on another host."""
GUARD_WAIT_SECONDS = 20.0


def _file_text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


@cache
def _machine() -> dict[str, str]:
    """Names the space in which a pid means something: host name, boot, pid namespace (containers share host names)."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return {
        "host": socket.gethostname(),
        "boot": _file_text("/proc/sys/kernel/random/boot_id"),
        "namespace": namespace,
    }


def _started(pid: int) -> float | None:
    """Start time of a process in seconds since the epoch; None if it is dead (or dead but not yet reaped)."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.NoSuchProcess:
        return None


def _is_dead_here(owner: dict[str, Any]) -> bool:
    """Return whether the owner ran on this machine and its process is gone, or another one has its pid by now."""
    if any(owner.get(key) != value for key, value in _machine().items()):
        return False
    started = _started(owner["pid"])
    # 2 s: the kernel's boot time, from which start times are counted, follows corrections of the clock.
    return started is None or abs(started - owner["started"]) > 2.0


def _read(path: str | Path) -> tuple[dict[str, Any], float] | None:
    """Owner and time of last touch; owner is {} where the file is empty or damaged. None if there is no file."""
    try:
        with open_file(path) as file:
            touched = os.fstat(file.fileno()).st_mtime
            owner = json.loads(file.read() or b"{}")
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        return {}, touched
    return (owner if isinstance(owner, dict) and _is_owner(owner) else {}), touched


def _is_owner(owner: dict[str, Any]) -> bool:
    """Return whether the content of a lock file has what is read of it, in the right types."""
    pid, started = owner.get("pid"), owner.get("started")
    return type(pid) is int and 0 < pid < 2**31 and isinstance(started, int | float) and abs(started) < 2**53


def _is_stale(owner: dict[str, Any], age_seconds: float, limit_seconds: float) -> bool:
    return age_seconds > limit_seconds or (bool(owner) and _is_dead_here(owner))


def _now(folder: str | Path) -> float:
    """The file system's own time: clocks of two hosts differ, times of two files on one server do not."""
    probe = f"{folder}/.{uuid.uuid4().hex}{PARTIAL}"
    with open(probe, "wb") as file:
        now = os.fstat(file.fileno()).st_mtime
    os.unlink(probe)
    return now


class StoreLock:
    """A held lock on the store at `folder`. Make one with `acquire`; give it back with `release`.

    `name` is that of the lock file: what else is shared in a folder, a file for example, has a lock of its own.
    """

    def __init__(
        self, folder: str | Path, heartbeat_seconds: float = HEARTBEAT_SECONDS, *, name: str = LOCK_FILE
    ) -> None:
        self.folder = Path(folder)
        self.path = self.folder / name
        self.heartbeat_seconds = heartbeat_seconds
        self.owner: dict[str, Any] = {
            **_machine(), "pid": os.getpid(), "started": _started(os.getpid()), "token": uuid.uuid4().hex,
        }  # fmt: skip
        self._lost = threading.Event()
        self._stop = threading.Event()

    @classmethod
    def acquire(
        cls,
        folder: str | Path,
        *,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        stale_seconds: float = STALE_SECONDS,
        name: str = LOCK_FILE,
    ) -> StoreLock:
        """Take the lock. Raises StoreLockedError if a live process has it, OSError if the disk refuses."""
        lock = cls(folder, heartbeat_seconds, name=name)
        with lock._guard():
            held = _read(lock.path)
            if held is not None:
                age_seconds = max(0.0, _now(folder) - held[1])
                if not _is_stale(held[0], age_seconds, stale_seconds):
                    raise StoreLockedError(_locked_message(lock.folder, held[0], age_seconds, stale_seconds))
            if not lock._holds_guard():
                raise StoreLockedError(f"another process opened {lock.folder} at the same moment; try again")
            atomic_write(lock.path, to_json(lock.owner))
        threading.Thread(target=lock._beat, name="reelgraph-lock", daemon=True).start()
        return lock

    @property
    def lost(self) -> bool:
        """True if another process took over, or the lock file was removed. Read from disk each time."""
        if not self._lost.is_set():
            with contextlib.suppress(OSError):  # a disk that does not answer says nothing about who holds the lock
                held = _read(self.path)
                if held is None or held[0].get("token") != self.owner["token"]:
                    self._lost.set()
        return self._lost.is_set()

    def check(self) -> None:
        """Raise StoreLockedError if the lock is lost."""
        if self.lost:
            held = _read(self.path) or ({}, 0.0)
            owner = held[0]
            if not self.folder.exists():
                raise StoreLockedError(
                    f"{self.folder} was deleted or renamed while it was being written; "
                    "put it back and run again to continue, or run again to start over"
                )
            who = f"pid {owner.get('pid')} on host {owner.get('host')} took it" if owner else "its file is gone"
            raise StoreLockedError(f"the lock on {self.folder} was lost: {who}; run again to continue")

    def release(self) -> None:
        """Stop the heartbeat and remove the lock file where it is still ours."""
        self._stop.set()
        if self.lost:
            return
        try:
            with self._guard():
                self._remove()
        except OSError:
            # No room for the guard on a full disk; a lock that was touched seconds ago is not taken over.
            self._remove()

    def _remove(self) -> None:
        held = _read(self.path)
        if held is not None and held[0].get("token") == self.owner["token"]:
            with contextlib.suppress(OSError):
                os.unlink(self.path)

    def _beat(self) -> None:
        while not self._stop.wait(self.heartbeat_seconds) and not self.lost:
            # A touch that lands on a successor's file at worst makes a live lock look live.
            with contextlib.suppress(OSError):
                os.utime(self.path)

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        deadline = time.monotonic() + GUARD_WAIT_SECONDS
        while not self._make_guard():
            if time.monotonic() > deadline:
                raise StoreLockedError(f"other processes keep opening {self.folder}; try again later")
            self._break_guard()
            time.sleep(0.01)
        try:
            yield
        finally:
            if self._holds_guard():
                os.unlink(self._guard_path)

    @property
    def _guard_path(self) -> str:
        return f"{self.path}.guard"

    def _make_guard(self) -> bool:
        try:
            descriptor = os.open(self._guard_path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False
        try:
            with open(descriptor, "wb") as file:
                file.write(to_json(self.owner))
        except OSError:
            os.unlink(self._guard_path)  # the disk is full; an empty guard would hold up the next run
            raise
        return True

    def _break_guard(self) -> None:
        """Remove the guard of a process that died within it. Renamed first: of several that try, one gets the file."""
        held = _read(self._guard_path)
        if held is None or not _is_stale(held[0], _now(self.folder) - held[1], GUARD_STALE_SECONDS):
            return
        aside = f"{self._guard_path}.{uuid.uuid4().hex}{PARTIAL}"
        with contextlib.suppress(FileNotFoundError):
            os.rename(self._guard_path, aside)
            taken = _read(aside)
            if taken is not None and taken[0].get("token") != held[0].get("token"):
                with contextlib.suppress(FileExistsError):  # a live one, made in between: give it back
                    os.link(aside, self._guard_path)
            os.unlink(aside)

    def _holds_guard(self) -> bool:
        held = _read(self._guard_path)
        return held is not None and held[0].get("token") == self.owner["token"]


def _locked_message(folder: Path, owner: dict[str, Any], age_seconds: float, stale_seconds: float) -> str:
    who = f"pid {owner.get('pid', 'unknown')} on host {owner.get('host', 'unknown')}"
    return (
        f"{folder} is being written by {who} (heartbeat {age_seconds:.0f} s ago); "
        f"wait for it, or stop it: a lock without heartbeat is free after {stale_seconds:.0f} s"
    )

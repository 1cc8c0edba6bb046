from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.errors import StoreLockedError
from pipeline.files.lock import StoreLock

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
CONTEND = """
import sys, time
from pathlib import Path
from pipeline.errors import StoreLockedError
from pipeline.store.lock import StoreLock

print("ready", flush=True)
sys.stdin.readline()
try:
    StoreLock.acquire(sys.argv[1])
except StoreLockedError as error:
    print(error, flush=True)
else:
    print("won", flush=True)
sys.stdin.readline()
"""


def contend(folder: Path, n: int) -> tuple[list[str], list[subprocess.Popen[str]]]:
    """What n processes say that ask for the lock at once; they live on and keep it."""
    command = [sys.executable, "-c", CONTEND, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": ENVIRONMENT}
    processes = [subprocess.Popen(command, **pipes) for _ in range(n)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    return [process.stdout.readline().strip() for process in processes], processes


def end(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        process.kill()
        process.communicate()


def change(folder: Path, **changes: object) -> None:
    path = folder / ".lock"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def abandoned(folder: Path, **changes: object) -> None:
    """A lock whose holder is gone without a word."""
    lock = StoreLock.acquire(folder)
    lock._stop.set()
    change(folder, token="other", **changes)


def test_one_of_many_wins(tmp_path: Path) -> None:
    answers, processes = contend(tmp_path, 6)
    end(processes)
    assert answers.count("won") == 1
    loser = next(answer for answer in answers if answer != "won")
    assert str(processes[answers.index("won")].pid) in loser
    assert "heartbeat 0 s ago" in loser


def test_one_of_many_takes_over(tmp_path: Path) -> None:
    abandoned(tmp_path, host="elsewhere")
    age(tmp_path / ".lock", 61)
    answers, processes = contend(tmp_path, 6)
    end(processes)
    assert answers.count("won") == 1


def test_killed_holder_frees_at_once(tmp_path: Path) -> None:
    (answer,), processes = contend(tmp_path, 1)
    assert answer == "won"
    with pytest.raises(StoreLockedError, match=f"pid {processes[0].pid} "):
        StoreLock.acquire(tmp_path)
    processes[0].kill()  # not waited for: a zombie is dead too
    time.sleep(0.2)
    StoreLock.acquire(tmp_path).release()
    end(processes)


STALE = {
    "alive here": ({}, 1, False),
    "silent here": ({}, 61, True),
    "dead here": ({"pid": 2**22 + 1}, 1, True),
    "pid used again": ({"started": 12345.0}, 1, True),
    "alive elsewhere": ({"host": "elsewhere", "pid": 2**22 + 1}, 50, False),
    "dead elsewhere": ({"host": "elsewhere"}, 61, True),
    "other container": ({"namespace": "pid:[1]", "pid": 2**22 + 1}, 1, False),
}


@pytest.mark.parametrize(("owner", "age_seconds", "stale"), STALE.values(), ids=STALE)
def test_stale(tmp_path: Path, owner: dict[str, object], age_seconds: float, stale: bool) -> None:
    abandoned(tmp_path, **owner)
    age(tmp_path / ".lock", age_seconds)
    if stale:
        StoreLock.acquire(tmp_path).release()
        assert list(tmp_path.iterdir()) == []
    else:
        with pytest.raises(StoreLockedError, match=f"heartbeat {age_seconds} s ago"):
            StoreLock.acquire(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{not json", b"[]"], ids=["empty", "torn", "list"])
def test_damaged_lock_counts_by_age(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".lock").write_bytes(content)
    with pytest.raises(StoreLockedError, match="pid unknown"):
        StoreLock.acquire(tmp_path)
    age(tmp_path / ".lock", 61)
    StoreLock.acquire(tmp_path).release()


def test_heartbeat(tmp_path: Path) -> None:
    lock = StoreLock.acquire(tmp_path, heartbeat_seconds=0.05)
    age(lock.path, 50)
    deadline = time.monotonic() + 10
    while time.time() - lock.path.stat().st_mtime > 5:
        assert time.monotonic() < deadline, "no heartbeat"
        time.sleep(0.02)
    lock.release()


def test_lost_lock_is_noticed_and_left_alone(tmp_path: Path) -> None:
    first = StoreLock.acquire(tmp_path)
    assert not first.lost
    age(first.path, 61)
    second = StoreLock.acquire(tmp_path)
    assert first.lost
    with pytest.raises(StoreLockedError, match=r"was lost: pid .* took it"):
        first.check()
    first.release()
    second.check()
    second.release()


def test_removed_lock_is_lost(tmp_path: Path) -> None:
    lock = StoreLock.acquire(tmp_path)
    lock.path.unlink()
    assert lock.lost
    lock.release()


@pytest.mark.parametrize("content", [b"", b'{"pid": 4194305, "started": 1.0, "token": "x"}'], ids=["empty", "dead"])
def test_guard_of_a_dead_process(tmp_path: Path, content: bytes) -> None:
    guard = tmp_path / ".lock.guard"
    guard.write_bytes(content)
    age(guard, 6)
    StoreLock.acquire(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content", [b"", b'{"pid": 1, "host": "another", "token": "x"}'], ids=["empty", "another host"]
)
def test_young_guard_is_left_alone(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.files.lock.GUARD_WAIT_SECONDS", 0.3)
    guard = tmp_path / ".lock.guard"
    guard.write_bytes(content)
    with pytest.raises(StoreLockedError, match="other processes keep opening"):
        StoreLock.acquire(tmp_path)
    assert guard.read_bytes() == content

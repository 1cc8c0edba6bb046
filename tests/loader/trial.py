"""A training's pictures under everything that may happen to them, at the size of a real epoch.

    python -m tests.loader.trial --pictures 10000 --broken 30 --kills 10

Hashes of all batches are compared with those of an epoch without workers. A table says what was tried and what came of
it; the exit code is 1 if something was not as it must be.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest

import pipeline
from tests.images.kills import break_some
from tests.loader.made_pictures import digest, everything, smooth
from tests.processes import wait_until

SIDE = 48
BATCH = 64
STILL = 64 << 20
"""Bytes by which memory may grow after the first tenth of the epochs: allocators keep some of what they were given."""


def loader_of(folder: Path, workers: int, **options: Any) -> pipeline.Loader:
    return pipeline.Loader(folder, BATCH, everything(), seed=6, workers=workers, image_size=(SIDE, SIDE), **options)


def make(folder: Path, pictures: int, broken: int) -> set[str]:
    """Write pictures in 4 classes, and broken ones of ten kinds among them; return the names of these."""
    some = smooth(50, 60, 80)
    for number in range(pictures - broken):
        path = folder / f"class{number % 4}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.roll(some[number % 50], number // 50, 1))
    return set(break_some(folder, broken, random.Random(3)))


def consume(folder: Path, state: str, workers: int, step: float) -> None:
    """Print the hash of each batch of the rest of an epoch, the state after it, and the workers' processes."""
    with loader_of(folder, workers) as loader:
        if state != "new":
            loader.load_state(json.loads(state))
        for batch in loader:
            pids = [one.process.pid for one in loader._pool.workers] if loader._pool else []
            print(json.dumps([digest(batch), loader.state(), pids]), flush=True)
            time.sleep(step)


class Consumer:
    """A training in a process of its own."""

    def __init__(self, folder: Path, state: str = "new", workers: int = 2, step: float = 0.0, before: str = "") -> None:
        words = [sys.executable, "-m", "tests.loader.trial", "--consume", str(folder), state, str(workers), str(step)]
        if before:
            words = ["unshare", "--mount", "sh", "-c", f'{before}; exec "$@"', "sh", *words]
        self.process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        self.hashes: list[str] = []
        self.state, self.pids = state, list[int]()

    def take(self, batches: int) -> None:
        """Read that many batches of it, or all that are left."""
        assert self.process.stdout is not None
        for _ in range(batches):
            line = self.process.stdout.readline()
            if not line:
                return
            found, state, self.pids = json.loads(line)
            self.hashes.append(found)
            self.state = json.dumps(state)

    def end(self, how: int) -> None:
        """Send a signal, to the group if it is Ctrl-C, and wait until no process is left."""
        if how == signal.SIGINT:
            os.killpg(self.process.pid, how)
        else:
            self.process.send_signal(how)
        self.finish()
        wait_until(lambda: not any(psutil.pid_exists(pid) for pid in self.pids))

    def finish(self) -> str:
        """Wait for its end; return what it said on the standard error."""
        errors = self.process.communicate(timeout=120)[1]
        return errors


def broken_pictures(folder: Path, wanted: list[str], names: set[str], workers: int) -> str:
    with loader_of(folder, workers) as loader:
        assert [digest(batch) for batch in loader] == wanted
        found = {loader.recipe.items.name(index) for index in loader.broken}
    assert found == names, found ^ names
    return f"{len(wanted)} batches equal; {len(found)} broken pictures told, each with its reason"


def workers_killed(folder: Path, wanted: list[str], kills: int) -> str:
    """Kill workers in the middle of batches, spread over the epoch."""
    chance, found = random.Random(4), list[str]()
    at = set(np.linspace(1, len(wanted) - 2, kills).astype(int).tolist())
    with loader_of(folder, 2) as loader:
        for batch in loader:
            found.append(digest(batch))
            if len(found) in at:
                chance.choice(loader._pool.workers).process.kill()  # type: ignore[union-attr]
        deaths = loader._pool.deaths  # type: ignore[union-attr]
    assert found == wanted
    assert len(at) - 1 <= deaths <= len(at)  # the last one may die with nothing left to do
    return f"{deaths} workers killed; {len(wanted)} batches equal"


def consumer_killed(folder: Path, wanted: list[str], kills: int) -> str:
    """Kill -9 the training again and again, with 0, 1 and 2 workers in turn; each goes on from the state."""
    chance, state, found, left = random.Random(5), "new", list[str](), set[int]()
    for number in range(kills):
        consumer = Consumer(folder, state, (2, 0, 1)[number % 3])
        consumer.take(chance.randint(1, max(1, (len(wanted) - len(found)) // (kills - number + 1))))
        consumer.end(signal.SIGKILL)
        found, state = found + consumer.hashes, consumer.state
        left |= {pid for pid in consumer.pids if psutil.pid_exists(pid)}
    consumer = Consumer(folder, state)
    consumer.take(len(wanted))
    errors = consumer.finish()
    assert found + consumer.hashes == wanted, errors
    assert not left
    return f"{kills} kills; {len(wanted)} batches equal; no process left"


def ctrl_c(folder: Path, wanted: list[str], tries: int) -> str:
    """Press Ctrl-C before the first batch, and at random moments."""
    chance = random.Random(6)
    for number in range(tries):
        consumer = Consumer(folder, step=0.01)
        consumer.take(number)
        processes = [psutil.Process(consumer.process.pid), *map(psutil.Process, consumer.pids)]
        named = [part.path for one in processes for part in one.memory_maps() if part.path.startswith("/dev/shm")]
        assert not named, named
        time.sleep(chance.uniform(0, 0.2))
        consumer.end(signal.SIGINT)
        assert consumer.process.returncode in (-signal.SIGINT, 130, 1), consumer.process.returncode
        assert consumer.hashes == wanted[:number], (number, consumer.hashes)
    return f"{tries} times; no process left, and no name in /dev/shm"


def full_shm(folder: Path, wanted: list[str]) -> str:
    """Train where /dev/shm has 64 kB, all of them taken."""
    if shutil.which("unshare") is None:
        return "not tried: no unshare"
    fill = "mount -t tmpfs -o size=64k tmpfs /dev/shm && { head -c 1M /dev/zero > /dev/shm/full 2>/dev/null || true; }"
    consumer = Consumer(folder, before=fill)
    consumer.take(len(wanted))
    errors = consumer.finish()
    if "unshare" in errors or "mount" in errors:
        return f"not tried: {errors.splitlines()[0]}"
    assert consumer.hashes == wanted, errors
    return f"{len(wanted)} batches equal: it is not used"


def short_memory(folder: Path) -> str:
    """Ask for more memory than the machine has, and than a process may have."""
    free = psutil.virtual_memory().available
    prefetch = free // (BATCH * SIDE * SIDE * 12) + 10
    with loader_of(folder, 2, prefetch=prefetch) as loader, pytest.raises(pipeline.ReelgraphError) as err:
        loader.next()
    assert "\n" not in str(err.value)
    return str(err.value)


def memory(folder: Path, epochs: int) -> str:
    """Watch the memory of the training and its workers, shared pages counted once, for some epochs."""
    held: list[int] = []
    with loader_of(folder, 2) as loader:
        for number in range(epochs * len(loader)):
            loader.next()
            if number % 16 == 15:
                pids = [psutil.Process(), *psutil.Process().children()]
                held.append(sum(one.memory_full_info().pss for one in pids))
        ring = loader._pool.ring.slots * loader._pool.ring._stride  # type: ignore[union-attr]
    first = max(held[: max(2, len(held) // 10)])
    assert max(held) - first < STILL, held
    most = f"{max(held) / 1e6:.0f} MB at most, with {ring / 1e6:.0f} MB of shared memory"
    return f"{epochs} epochs: {most}; {(max(held) - first) / 1e6:+.0f} MB after the first tenth"


def campaign(
    folder: Path, pictures: int, broken: int, kills: int, epochs: int
) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield the name of each case, and the function that tries it."""
    names = make(folder, pictures, broken)
    with loader_of(folder, 0) as loader:
        wanted = [digest(batch) for batch in loader]
    for workers in (1, 2, 4):
        yield f"broken pictures, {workers} workers", lambda n=workers: broken_pictures(folder, wanted, names, n)  # type: ignore[misc]
    yield "workers killed in mid-epoch", lambda: workers_killed(folder, wanted, kills)
    yield "training killed by kill -9, resumed", lambda: consumer_killed(folder, wanted, kills)
    yield "Ctrl-C", lambda: ctrl_c(folder, wanted, kills)
    yield "/dev/shm full", lambda: full_shm(folder, wanted)
    yield "memory is short", lambda: short_memory(folder)
    yield "memory", lambda: memory(folder, epochs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--broken", type=int, default=30)
    parser.add_argument("--kills", type=int, default=10, help="kills of workers, of the training, and Ctrl-C, each")
    parser.add_argument("--epochs", type=int, default=3, help="epochs for which memory is watched")
    parser.add_argument("--consume", nargs=4, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.consume:
        folder, state, workers, step = chosen.consume
        consume(Path(folder), state, int(workers), float(step))
        return
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, attempt in campaign(Path(folder), chosen.pictures, chosen.broken, chosen.kills, chosen.epochs):
            began = time.monotonic()
            try:
                told = attempt()
            except Exception as err:
                failed, told = failed + 1, f"FAILED: {type(err).__name__}: {str(err)[:500]}"
            print(f"{name:36}  {time.monotonic() - began:6.1f} s  {told}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

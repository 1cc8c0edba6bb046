"""kill -9 of workers, nannies and both at random moments of runs, on a busy machine: no run hangs, no value is lost.

    python -m tests.faults.kills --kills 300 --busy 4

A run hangs if it computes and says nothing for `--stall` seconds. The stacks of all its processes are then printed, by
py-spy if there is one on the PATH, and the campaign ends with exit code 1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

import pipeline
from tests.clips import write_clip
from tests.faults import one_stage
from tests.processes import kill_group, start, wait_until

FRAMES = 3200
CHUNK_SECONDS = 0.4
WORKERS = 2
EARLY = 5
"""Kills before the first chunk is computed: fewer than the starts after which a run gives up."""
KINDS = ("local", "nannies", "no nannies")
"""Workers of a local cluster, of `dask worker`, and of `dask worker --no-nanny`."""


@dataclass
class Site:
    """The workers of a run, of one kind, and the ways to kill them."""

    kind: str
    folder: Path
    chance: random.Random
    scheduler: subprocess.Popen[bytes] | None = None
    servers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    """Processes of `dask worker`."""

    def begin(self) -> list[str]:
        """Start what the kind needs; return the words that a run gets for it."""
        if self.kind == "local":
            return ["--workers", str(WORKERS), "--dashboard-port", "0"]
        file = self.folder / "scheduler.json"
        words = ["scheduler", "--scheduler-file", str(file), "--host", "127.0.0.1", "--port", "0"]
        self.scheduler = self._dask(*words, "--dashboard-address", "127.0.0.1:0")
        wait_until(lambda: file.exists() and "address" in json.loads(file.read_text() or "{}"), 60)
        for _ in range(WORKERS):
            self._add()
        return ["--scheduler", str(file)]

    def _add(self) -> None:
        more = ["--no-nanny"] if self.kind == "no nannies" else []
        words = ["worker", "--scheduler-file", str(self.folder / "scheduler.json"), "--no-dashboard", *more]
        self.servers.append(self._dask(*words, "--resources", "GPU=1", "--nthreads", "1"))

    def _dask(self, *words: str) -> subprocess.Popen[bytes]:
        with (self.folder / "cluster.log").open("ab") as log:
            return subprocess.Popen([sys.executable, "-m", "dask", *words], stdout=log, stderr=log, cwd=self.folder)

    def kill(self, run: subprocess.Popen[str]) -> str | None:
        """Kill a worker, a nanny, or both; return what was killed, None if there is nothing."""
        if self.kind == "local":
            return "worker" if self._kill_one(spawned(run.pid)) else None
        server = self.chance.choice(self.servers)
        what = self.chance.choice(["worker", "nanny", "both"]) if self.kind == "nannies" else "nanny"
        workers = spawned(server.pid)
        if what == "worker":
            return what if self._kill_one(workers) else None
        server.kill()
        if what == "both":
            self._kill_one(workers)
        server.wait()
        self.servers.remove(server)
        time.sleep(self.chance.uniform(0.0, 2.0))
        self._add()  # as a batch system does
        return "worker" if self.kind == "no nannies" else what

    def replace_ended(self) -> None:
        """Start a server again that has ended: `dask worker` gives up if its worker dies while it starts."""
        for server in [one for one in self.servers if one.poll() is not None]:
            self.servers.remove(server)
            self._add()

    def _kill_one(self, processes: list[psutil.Process]) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            if processes:
                self.chance.choice(processes).kill()
                return True
        return False

    def end(self) -> None:
        for process in [*self.servers, *([self.scheduler] if self.scheduler else [])]:
            process.kill()
            process.wait()


def spawned(pid: int) -> list[psutil.Process]:
    """Return the worker processes that a process has started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [child for child in psutil.Process(pid).children() if "spawn_main" in " ".join(child.cmdline())]
    return []


@dataclass
class Tally:
    """Counts of a campaign."""

    runs: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    longest_silence: float = 0.0

    def __str__(self) -> str:
        counts = f"{self.kills.total()} kills {dict(self.kills)} in {self.runs.total()} runs {dict(self.runs)}"
        return f"{counts}: {dict(self.outcomes)}; longest silence {self.longest_silence:.0f} s"


def campaign(folder: Path, kills: int, *, kinds: tuple[str, ...] = KINDS, seed: int = 0, stall: float = 200.0) -> Tally:
    """Kill in run after run until `kills` were done. Raises AssertionError for a hang and for a wrong value."""
    chance, tally = random.Random(seed), Tally()
    clip = write_clip(folder / "clip.mp4", n_frames=FRAMES, size=(96, 64), gop=16)
    log = folder / "log"
    workflow = one_stage(folder, "Counted", log=str(log), seconds=CHUNK_SECONDS)
    pipeline.run(workflow, clip, folder / "whole.zarr", executor="inline", set={"grey.seconds": 0})
    whole = pipeline.open(folder / "whole.zarr").array("clip", "grey")
    while tally.kills.total() < kills:
        kind = kinds[tally.runs.total() % len(kinds)]
        here = folder / f"run{tally.runs.total()}"
        here.mkdir()
        log.unlink(missing_ok=True)
        site = Site(kind, here, chance)
        out = here / "out.zarr"
        try:
            run = start("run", workflow, clip, "--out", out, *site.begin())
            _disturb(run, site, tally, min(chance.randint(3, 14), kills - tally.kills.total()), log, stall)
            _, errors = run.communicate()
        finally:
            site.end()
        tally.runs[kind] += 1
        assert "Traceback" not in errors, errors
        assert run.returncode in (0, 1), errors
        tally.outcomes["clean" if run.returncode == 0 else "a chunk given up"] += 1
        assert run.returncode == 0 or "the worker process died" in errors, errors
        stored = pipeline.open(out)
        if run.returncode == 0:
            np.testing.assert_array_equal(stored.array("clip", "grey"), whole)
        shutil.rmtree(here)
        print(f"{time.strftime('%X')} {tally}", flush=True)
    return tally


def _disturb(run: subprocess.Popen[str], site: Site, tally: Tally, kills: int, log: Path, stall: float) -> None:
    """Kill at random moments, then wait for the run's end. Raises AssertionError if it is silent for too long."""
    next_kill, last, size, early = time.monotonic() + site.chance.uniform(0.0, 6.0), time.monotonic(), -1, 0
    while run.poll() is None:
        now = time.monotonic()
        site.replace_ended()
        if kills and now >= next_kill and (size > 0 or early < EARLY) and (what := site.kill(run)):
            tally.kills[what] += 1
            kills -= 1
            early += size <= 0
            next_kill = time.monotonic() + site.chance.uniform(0.0, 5.0)
        grown = log.stat().st_size if log.exists() else 0
        if grown != size:
            size, last = grown, now
        tally.longest_silence = max(tally.longest_silence, now - last)
        if now - last > stall:
            print(f"HANG: {site.kind}, {tally}\n{_stacks(run, site)}", flush=True)
            kill_group(run)
            raise AssertionError(f"a run hung ({site.kind}): nothing for {stall:g} s")
        time.sleep(0.05)


def _stacks(run: subprocess.Popen[str], site: Site) -> str:
    """Return the stacks of every process of a run, and the end of its cluster's log."""
    tool = shutil.which("py-spy")
    shown = []
    for pid in [run.pid, *(p.pid for p in [*site.servers, *([site.scheduler] if site.scheduler else [])])]:
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
                shown.append(f"--- {process.pid} {process.status()} {' '.join(process.cmdline())[:120]}")
                if tool:
                    words = [tool, "dump", "--pid", str(process.pid)]
                    shown.append(subprocess.run(words, capture_output=True, text=True, timeout=60, check=False).stdout)
    log = site.folder / "cluster.log"
    return "\n".join([*shown, *(log.read_text().splitlines()[-60:] if log.exists() else [])])


@contextlib.contextmanager
def busy(loops: int) -> Iterator[None]:
    """Keep the machine busy with endless loops."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--busy", type=int, default=4, help="endless loops beside the runs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stall", type=float, default=200.0, help="seconds of silence that are a hang")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, busy(options.busy):
        print(campaign(Path(folder), options.kills, seed=options.seed, stall=options.stall))
    return 0


if __name__ == "__main__":
    sys.exit(main())

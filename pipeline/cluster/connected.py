"""A cluster that a run is connected to, and how Dask is configured for it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.engine.steps import WorkerSettings

SILENT = logging.CRITICAL + 1
"""Dask's log level here. While a cluster closes Dask logs messages to a client that has gone, as critical and with
tracebacks; real errors reach us as exceptions."""

WORN_SHARE = 0.75
"""Share of its memory limit at which a worker is restarted between chunks. It is below Dask's pause, after which a
worker takes no more work, and far above what models and two chunks need."""

ANSWER_SECONDS = 300
"""Seconds that the scheduler may take to answer: far more than on any busy machine."""

RESTART_SECONDS = 60
"""Seconds that a worker may take to come back."""

DASK_CONFIG = {
    # A worker that dies fails the tasks it was running at once; the runner tries suspects again one at a time.
    "distributed.scheduler.allowed-failures": 0,
    # Frames stay where they were decoded.
    "distributed.scheduler.work-stealing": False,
    # Frames on disk would be slower than decoding them again; the chunk plan bounds memory instead.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": 0.9,
    "distributed.worker.memory.terminate": 0.97,
    "distributed.comm.timeouts.connect": "30s",
    # Dask drops the nanny of a worker that has not come back within 15 s, as on a busy machine, and starts no other.
    "distributed.deploy.lost-worker-timeout": "1 week",
    # Numbers for glibc, read when a worker starts: Dask's own make it give every large block back at once, and pages
    # that are asked for again cost more than what is computed in them (a tenth of a run, measured).
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 1 << 30,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 32 << 20,
    "distributed.nanny.pre-spawn-environ.MALLOC_ARENA_MAX": 1,
    # Dask watches itself closely: on two cores that was a twelfth of all time. Ten profile samples a second are enough
    # for the dashboard. The delays of the event loop are not shown to anyone here.
    "distributed.worker.profile.interval": "100ms",
    "distributed.admin.system-monitor.interval": "2s",
    "distributed.admin.tick.interval": "1s",
    # A step in C may hold the interpreter's lock for long; that is the watchdog's business.
    "distributed.scheduler.worker-ttl": "20 minutes",
    "distributed.admin.tick.limit": "1h",
}

Workers = Mapping[str, Mapping[str, Any]]
"""Facts of the scheduler about workers, by address."""


def _all(workers: Workers, note: Callable[[str], None]) -> Workers:
    return workers


@dataclass(frozen=True)
class Cluster:
    """A connected cluster."""

    client: Any
    settings: WorkerSettings
    description: str
    dashboard: str
    fitting: Callable[[Workers, Callable[[str], None]], Workers] = _all
    """Returns the workers that may be given work, and reports the others to its second argument."""

    def at(self, precision: str) -> Cluster:
        """Return the same cluster, with models that compute in this precision."""
        return replace(self, settings=self.settings.at(precision))

    def slots(self) -> dict[str, int]:
        """Threads of every worker, by address."""
        return {address: facts["nthreads"] for address, facts in self.workers().items()}

    def workers(self) -> Workers:
        """Return all workers that have started. Raises TimeoutError if the scheduler does not answer.

        One that dies while the scheduler registers it stays in state "init" for as long as silent workers are kept.
        """
        ask = self.client.scheduler.identity
        known = self.client.sync(ask, n_workers=-1, callback_timeout=ANSWER_SECONDS)["workers"]
        return {address: facts for address, facts in known.items() if facts["status"] != "init"}

    def chunks_at_once(self, workers: Workers) -> int:
        """Chunks that may be under way: one per slot, and on a GPU one more per worker, decoded ahead.

        This bounds the decoded frames in memory. On a CPU decoding takes the models' own cores, so that
        a chunk more in memory would gain nothing.
        """
        spare = 0 if self.settings.device.kind == "cpu" else 1
        return max(1, sum(int(facts["nthreads"]) + spare for facts in workers.values()))

    def worn_workers(self, workers: Workers) -> dict[str, WornWorker]:
        """Workers that have come to hold too much memory, by address."""
        found = {}
        for address, facts in workers.items():
            used, limit = facts.get("metrics", {}).get("memory") or 0, facts.get("memory_limit") or 0
            paused = facts.get("status") == "paused"
            if limit and (used > WORN_SHARE * limit or paused):
                found[address] = WornWorker(used, limit, paused)
        return found

    def used_by_others(self, addresses: Sequence[str], ours: Callable[[Any], bool]) -> set[str]:
        """Return those of these workers that compute or keep something of another client.

        A restart would take it away. `ours` says whether a key is ours.
        """
        if not addresses:
            return set()
        keys = [self.client.processing(), self.client.has_what()]  # of all: Dask fails for one that has just gone
        return {a for found in keys for a, held in found.items() if a in addresses and not all(map(ours, held))}

    def restart(self, addresses: Sequence[str]) -> None:
        """Restart workers. Raises ValueError if they have no nanny."""
        with contextlib.suppress(KeyError):  # of a worker that has just gone
            self.client.restart_workers(list(addresses), timeout=RESTART_SECONDS, raise_for_error=False)


@dataclass(frozen=True)
class WornWorker:
    """A worker that holds too much memory."""

    used_bytes: int
    limit_bytes: int
    paused: bool
    """Dask gives it no more work."""

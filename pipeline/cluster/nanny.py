"""The nanny of a local worker, which starts it again if it is killed while it starts. Imported late: so is Dask."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import distributed
from distributed.core import Status

STARTS = 10
"""Times that a worker is started: a machine that kills it as often has no memory left for it."""


class KilledError(RuntimeError):
    """A worker did not live until it was started."""


class Nanny(distributed.Nanny):  # type: ignore[misc]  # it ships no types
    """Dask's nanny, for workers that are killed while they start."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._one_start = asyncio.Lock()
        self._was_killed = False

    async def instantiate(self) -> Status:
        # Dask starts a worker again while it still waits for the one that was killed: two such waits share one queue,
        # and the first takes away the message that the second needs.
        async with self._one_start:
            for _ in range(STARTS):
                await self._unregister_dead()
                self._was_killed = False
                status = await super().instantiate()
                if status == Status.running or not self._was_killed:
                    return status
        raise KilledError(f"a worker was killed {STARTS} times while it started")

    async def start_unsafe(self) -> Any:
        started = await super().start_unsafe()
        if self.process.status == Status.stopped:  # a moment ago; Dask does not look before this nanny is running
            await self.instantiate()
        return started

    async def _unregister_dead(self) -> None:
        """Remove workers of this nanny from the scheduler, if none is alive.

        A worker that dies before the scheduler has answered its registration stays registered, and its name taken. The
        next one would be refused, and this nanny would give up.
        """
        if self.process is not None and self.process.status == Status.running:
            return
        with contextlib.suppress(OSError):
            for address, facts in (await self.scheduler.identity(n_workers=-1))["workers"].items():
                if facts["nanny"] == self.address:
                    await self.scheduler.unregister(address=address, stimulus_id=f"nanny-unregister-{time.time()}")

    def _on_worker_exit_sync(self, exitcode: int) -> None:
        self._was_killed = exitcode < 0 or exitcode == 255  # what Dask reports if it does not know the signal
        super()._on_worker_exit_sync(exitcode)

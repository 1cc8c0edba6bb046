"""Worker processes that make batches ahead, in order. A worker that dies is started again, and its batches made again.

Processes are started from scratch and get what they need by cloudpickle. So a script needs no `if __name__ ==
"__main__"`, and functions of a notebook work. No state of a training library is copied.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy.typing as npt

from pipeline.errors import InputError, ReelgraphError, StoppedError, UsageError
from pipeline.loader.batches import Made, Recipe
from pipeline.loader.ring import Field, Lease, Ring
from pipeline.loader.worker import Answer, Order, pair
from pipeline.text import plural

_LOG = logging.getLogger("pipeline.loader")
TRIES = 3
"""Workers that one batch may end before the loader gives up."""
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from pipeline.loader.worker import main; main()"
_WAIT_SECONDS = 5.0
"""Time that a worker has to end by itself."""


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Any
    orders: dict[int, Order] = field(default_factory=dict)
    """Orders that were sent and not answered."""


class Pool:
    """Workers and the ring that they write to."""

    def __init__(self, recipe: Recipe, fields: tuple[Field, ...], batch: int, workers: int, prefetch: int) -> None:
        """Start the workers. Raises UsageError if shared memory is short, or if they cannot get the recipe."""
        self.prefetch = prefetch
        # Two more than are made ahead: one that the consumer works on, one that it is about to drop.
        self.ring = Ring(fields, batch, prefetch + 2)
        self._files = (self.ring.memory, *recipe.items.descriptors())
        self._greeting = _sent((recipe, fields, batch, self.ring.slots, self.ring.memory))
        self._free = deque(range(self.ring.slots))
        self._waiting: deque[Order] = deque()
        self._done: dict[int, Answer] = {}
        self._orders: dict[int, Order] = {}
        self._deaths: dict[int, int] = {}
        self._next = self._number = 0
        self._closed = False
        self.deaths = 0
        """Workers that died."""
        self.owner = os.getpid()
        self.workers: list[_Worker] = []
        self._poll = select.poll()
        try:
            for _ in range(workers):
                self.workers.append(self._start())
        except BaseException:
            self.close()
            raise

    def _start(self) -> _Worker:
        ours, theirs = pair()
        path = json.dumps([place for place in sys.path if isinstance(place, str)])  # as import takes them
        # A new process has this thread's mask: Ctrl-C waits until it can ignore it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with theirs:
                process = subprocess.Popen(
                    [sys.executable, "-c", _START, path, str(theirs.fileno())], stdin=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), *self._files), env={**os.environ, **_ONE_THREAD},
                )  # fmt: skip
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        with contextlib.suppress(OSError):  # one that is dead already is found later
            ours.send_bytes(self._greeting)
        self._poll.register(ours.fileno(), select.POLLIN)
        return _Worker(process, ours)

    @property
    def ahead(self) -> int:
        """Batches that were ordered and not taken."""
        return self._number - self._next

    def order(self, epoch: int, indices: tuple[int, ...]) -> None:
        """Order a batch; batches come in the order of their orders."""
        order = Order(self._number, -1, epoch, indices)
        self._number += 1
        self._waiting.append(order)
        self._send()

    def _send(self) -> None:
        while self._waiting and self._free:
            waiting = self._waiting.popleft()
            order = Order(waiting.number, self._free.popleft(), waiting.epoch, waiting.indices)
            self._orders[order.number] = order
            self._give(order)

    def _give(self, order: Order) -> None:
        worker = min(self.workers, key=lambda one: len(one.orders))
        worker.orders[order.number] = order
        with contextlib.suppress(OSError):  # its death is found by `_receive`
            worker.connection.send(order)

    def take(self) -> tuple[Made, list[npt.NDArray[Any]]]:
        """Wait for the next batch. Its arrays may be kept as long as one likes.

        Raises the error that it met, or InputError if it ends its workers.
        """
        self._receive(0)
        while self._next not in self._done:
            self._receive(None)
        answer, order = self._done.pop(self._next), self._orders.pop(self._next)
        self._next += 1
        if answer.error is not None:
            self._free.append(order.slot)
            raise answer.error
        arrays = self.ring.arrays(order.slot, len(answer.made.indices))
        if len(self._free) + len(self._orders) < self.prefetch:  # the consumer keeps batches: it gets a copy
            arrays = [array.copy() for array in arrays]
            self._free.append(order.slot)
        else:
            lease = Lease(partial(self._free.append, order.slot))
            arrays = [lease.held(array) for array in arrays]
        self._send()
        return answer.made, arrays

    def _receive(self, timeout: float | None) -> None:
        """Take what workers have sent; start those again that died."""
        self._send()
        ready = {descriptor for descriptor, _ in self._poll.poll(timeout)}
        for number, worker in enumerate(self.workers):
            if worker.connection.fileno() not in ready:
                continue
            try:
                answer: Answer = worker.connection.recv()
            except (EOFError, OSError):
                self._replace(number)
                continue
            worker.orders.pop(answer.number, None)
            self._done[answer.number] = answer

    def _replace(self, number: int) -> None:
        """Start a worker in the place of one that died, and give its batches to the workers again."""
        dead = self.workers[number]
        self._poll.unregister(dead.connection.fileno())
        dead.connection.close()
        code = dead.process.wait()
        self.deaths += 1
        lost = sorted(dead.orders.values(), key=lambda order: order.number)
        how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        if lost:
            first = lost[0].number  # orders are done in order: this one was under way
            self._deaths[first] = self._deaths.get(first, 0) + 1
            if self._deaths[first] >= TRIES:
                self.close()
                raise InputError(
                    f"{plural(TRIES, 'worker')} ended {how} in the same batch, of items {lost[0].indices[:8]}...; "
                    "run it with workers=0 to see why"
                )
        if self.deaths > TRIES * len(self.workers) and not self._next:
            raise StoppedError(f"workers of the loader end {how} before their first batch; use workers=0 to see why")
        again = f"{plural(len(lost), 'batch')} will be made again" if lost else "no batch was lost"
        _LOG.warning("a worker of the loader ended %s; it was started again, and %s", how, again)
        self.workers[number] = self._start()
        for order in lost:
            self._give(order)

    def close(self) -> None:
        """End the workers and free the memory, but for batches that are still in use."""
        if self._closed or self.owner != os.getpid():
            return
        self._closed = True
        for worker in self.workers:
            worker.connection.close()
        for worker in self.workers:
            try:
                worker.process.wait(_WAIT_SECONDS)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        self.ring.close()


def _sent(greeting: tuple[Any, ...]) -> bytes:
    import cloudpickle

    try:
        found: bytes = cloudpickle.dumps(greeting)
    except ReelgraphError:
        raise
    except Exception as err:
        told = " ".join(str(err).split())
        raise UsageError(
            f"source or augment cannot be sent to workers ({type(err).__name__}: {told}); use workers=0, or make what "
            "it holds in the function"
        ) from err
    return found

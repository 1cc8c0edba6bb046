"""The executor on a Dask cluster: chunks through a small window, suspects again one at a time."""

from __future__ import annotations

import contextlib
import queue
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.cluster.connected import Cluster, WornWorker
from pipeline.engine.executor import ATTEMPTS, Orders, Outcome, step_started
from pipeline.engine.graph import to_delayed
from pipeline.engine.plan import ChunkTask
from pipeline.engine.steps import Committed, Failure
from pipeline.engine.watchdog import EVENT_TOPIC
from pipeline.errors import ReelgraphError


@dataclass
class _Flight:
    """A chunk under way."""

    task: ChunkTask
    attempt: int
    future: Any
    alone: bool
    steps: tuple[str, ...]
    """Names of its steps, in order."""


@dataclass
class DaskExecutor:
    """Submits chunks to a Dask cluster through a small window, which bounds memory and what a crash can touch.

    Every chunk that was under way on a worker when it died is a suspect. Suspects are tried again one at a
    time, after all others: the one that kills its worker again, alone, is at fault.
    """

    cluster: Cluster
    _done: queue.SimpleQueue[_Flight] = field(default_factory=queue.SimpleQueue)
    _last_step: dict[tuple[str, int], tuple[str, float]] = field(default_factory=dict)
    _steps: queue.SimpleQueue[tuple[str, int, str]] = field(default_factory=queue.SimpleQueue)
    """Steps that workers announced and the run has not seen: input, chunk, step."""
    _window_size: int = 2
    _window_until: float = 0.0
    _order: int = 0
    _worn: dict[str, WornWorker] = field(default_factory=dict)
    _beyond_help: set[str] = field(default_factory=set)
    _submitted: set[tuple[str, int]] = field(default_factory=set)
    """Input and chunk of every task of this run: what its keys hold after the step."""

    def run(self, tasks: Iterator[ChunkTask], orders: Orders) -> Iterator[Outcome]:
        client = self.cluster.client
        client.subscribe_topic(EVENT_TOPIC, self._note_step)
        in_flight: dict[tuple[str, int], _Flight] = {}
        again: deque[tuple[ChunkTask, int]] = deque()
        suspects: deque[tuple[ChunkTask, int]] = deque()
        waiting: ChunkTask | None = next(tasks, None)
        while waiting or again or suspects or in_flight:
            window = self._window()
            self._restart_worn(in_flight, orders.note)
            while len(in_flight) < window and (waiting or again) and not self._worn and not orders.stop():
                task, attempt = again.popleft() if again else (waiting, 1)
                assert task is not None
                if attempt == 1:
                    waiting = next(tasks, None)
                in_flight[task.input_name, task.index] = self._submit(task, attempt, orders, alone=False)
            if not in_flight and suspects and not self._worn and not orders.stop():
                task, attempt = suspects.popleft()
                in_flight[task.input_name, task.index] = self._submit(task, attempt, orders, alone=True)
            if not in_flight and self._worn:
                continue
            if not in_flight:
                return  # stopped: nothing is under way and nothing more is wanted
            flight = self._next_done()
            self._tell_steps(in_flight, orders)
            if flight is None:
                continue
            del in_flight[flight.task.input_name, flight.task.index]
            result, worker_died = self._result(flight)
            flight.future.release()
            attempts = flight.task.earlier_attempts + flight.attempt
            if isinstance(result, Committed):
                yield Outcome(flight.task, result, attempts)
            elif worker_died and not flight.alone:
                suspects.append((flight.task, flight.attempt + 1))
            elif not worker_died and flight.attempt < ATTEMPTS:
                again.append((flight.task, flight.attempt + 1))
            else:
                yield Outcome(flight.task, result, attempts)

    def _submit(self, task: ChunkTask, attempt: int, orders: Orders, *, alone: bool) -> _Flight:
        current = replace(task, earlier_attempts=task.earlier_attempts + attempt - 1)
        nodes = orders.nodes_of(current, self.cluster.settings)
        delayed = to_delayed(nodes, current, attempt)
        self._order += 1
        self._submitted.add((task.input_name, task.index))
        # Its graph as it is: `Client.compute` looks for something to optimize first, for twice the time of all the
        # rest. In order, so that a partial store is a usable prefix.
        with _answered():
            future = self.cluster.client.get(delayed.dask, delayed.key, sync=False, priority=-self._order)
        flight = _Flight(task, attempt, future, alone, tuple(node.name for node in nodes))
        future.add_done_callback(lambda _: self._done.put(flight))
        return flight

    def _window(self) -> int:
        """Chunks under way at once, asked again every second: workers come and go, and their memory grows."""
        if time.monotonic() > self._window_until:
            with _answered():
                self._window_size = self.cluster.chunks_at_once()
                worn = self.cluster.worn_workers()
            self._worn = {address: state for address, state in worn.items() if address not in self._beyond_help}
            self._window_until = time.monotonic() + 1.0
        return self._window_size

    def _restart_worn(self, in_flight: Mapping[Any, _Flight], note: Callable[[str], None]) -> None:
        """Restart workers whose memory has grown too far, once nothing is under way.

        Workers that Dask has paused are restarted at once: what is under way on them would never end.
        """
        now = [address for address, state in self._worn.items() if state.paused or not in_flight]
        now = self._without_shared(now, note)
        if not now:
            return
        for address in now:
            state = self._worn.pop(address)
            note(
                f"worker {address} holds {state.used_bytes / 1e9:.1f} GB of its {state.limit_bytes / 1e9:.1f} GB; "
                "it is restarted before the next chunk"
            )
        try:
            with _answered():
                self.cluster.restart(now)
        except ValueError:
            self._beyond_help |= set(now)
            note(f"{', '.join(now)} cannot be restarted from here: start workers with a nanny")

    def _without_shared(self, addresses: list[str], note: Callable[[str], None]) -> list[str]:
        """Those on which no other client of the scheduler has anything to lose; the others are left as they are."""
        with _answered():
            shared = self.cluster.used_by_others(addresses, self._is_ours)
        for address in shared:
            del self._worn[address]
            self._beyond_help.add(address)
            note(f"worker {address} is short of memory and holds work of others; it is not restarted")
        return [address for address in addresses if address not in shared]

    def _is_ours(self, key: Any) -> bool:
        return isinstance(key, tuple) and key[1:3] in self._submitted

    def _next_done(self) -> _Flight | None:
        try:
            return self._done.get(timeout=0.5)
        except queue.Empty:
            if self.cluster.client.status not in ("running", "connecting"):
                raise SchedulerLostError("the connection to the scheduler") from None
            return None

    def _result(self, flight: _Flight) -> tuple[Committed | Failure, bool]:
        """Return the result of a finished future, and whether its worker died on it."""
        from distributed.scheduler import KilledWorker

        if flight.future.status == "finished":
            with _answered():
                return flight.future.result(), False
        if flight.future.status == "cancelled":
            raise SchedulerLostError("the scheduler, or its memory of this run,")
        with _answered():
            err = flight.future.exception()
        if isinstance(err, KilledWorker):
            return self._post_mortem(flight.task, err.task), True
        return Failure("run", f"{type(err).__name__}: {err}"), False

    def _post_mortem(self, task: ChunkTask, key: Any) -> Failure:
        """Return the step that a dead worker was doing: the scheduler names the task, its announcement the time."""
        step = str(key[0]) if isinstance(key, tuple) else "run"
        limit = self.cluster.settings.chunk_timeout_seconds
        announced, began = self._last_step.get((task.input_name, task.index), (step, time.time()))
        if limit is not None and announced == step and time.time() - began >= limit:
            return Failure(step, f"no result within {limit:g} s (--chunk-timeout); its worker was ended")
        return Failure(step, "the worker process died (a crash in native code, or out of memory)")

    def _note_step(self, event: tuple[float, dict[str, Any]]) -> None:
        _, message = event
        self._last_step[message["input"], message["chunk"]] = (message["step"], message["time"])
        self._steps.put((message["input"], message["chunk"], message["step"]))

    def _tell_steps(self, in_flight: Mapping[tuple[str, int], _Flight], orders: Orders) -> None:
        """Pass on what workers announced, in the run's thread; announcements come in the client's."""
        while not self._steps.empty():
            name, chunk, step = self._steps.get()
            flight = in_flight.get((name, chunk))
            if flight is not None and step in flight.steps:
                orders.emit(step_started(flight.task, step, flight.steps.index(step)))


@contextlib.contextmanager
def _answered() -> Iterator[None]:
    """A question to the scheduler, which may go away at any moment. Raises SchedulerLostError."""
    from distributed.comm import CommClosedError

    try:
        yield
    except (CommClosedError, TimeoutError, CancelledError) as err:
        raise SchedulerLostError("the scheduler") from err


class SchedulerLostError(ReelgraphError):
    """The scheduler went away in the middle of a run; the store keeps what was committed."""

    exit_code = 1

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} was lost; what is committed is kept: start a scheduler and run again to continue")

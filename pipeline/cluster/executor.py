"""The executor on a Dask cluster: chunks through a small window, suspects again one at a time."""

from __future__ import annotations

import contextlib
import queue
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.cluster.connected import Cluster, Workers, WornWorker
from pipeline.engine.executor import Orders, Outcome, step_started
from pipeline.engine.graph import to_delayed
from pipeline.engine.plan import ChunkTask
from pipeline.engine.steps import Committed, Failure
from pipeline.engine.watchdog import EVENT_TOPIC
from pipeline.errors import StoppedError
from pipeline.text import duration, plural

STALL_SECONDS = 300
"""Seconds without progress and without a running task, after which the run reports what its workers do."""

HEARD_SECONDS = 60
"""Seconds after which a silent worker counts as one that runs nothing: it reports several times in that time."""

UNREAD = 5
"""Times to read the report of a chunk before it counts as an error."""

RESULT_SECONDS = 5
"""Seconds to wait for the report of a finished chunk. If its worker died meanwhile, Dask makes the chunk again."""

SHOWN_WORKERS = 20
"""Workers that a report of a stall describes."""


@dataclass
class _Flight:
    """A chunk under way."""

    task: ChunkTask
    attempt: int
    future: Any
    alone: bool
    steps: tuple[str, ...]
    """Names of its steps, in order."""
    only: frozenset[str] | None = None
    """Workers that may do it; None if all may."""
    unread: int = 0
    """Times that its report was there and could not be read."""


@dataclass
class DaskExecutor:
    """Submits chunks to a Dask cluster through a small window, which bounds memory and what a crash can touch.

    Every chunk that was under way on a worker when it died is a suspect. Suspects are tried again one at a
    time, after all others: the one that kills its worker again, alone, is at fault. Others of them die from outside,
    so that it is tried again before it is given up.
    """

    cluster: Cluster
    wait_for_workers_seconds: float = 300.0
    _done: queue.SimpleQueue[_Flight] = field(default_factory=queue.SimpleQueue)
    _last_step: dict[tuple[str, int], tuple[str, float]] = field(default_factory=dict)
    _steps: queue.SimpleQueue[tuple[str, int, str]] = field(default_factory=queue.SimpleQueue)
    """Steps that workers announced and the run has not seen: input, chunk, step."""
    _window_size: int = 2
    _window_until: float = 0.0
    _workers: frozenset[str] = frozenset()
    """Addresses of the workers that may be given work."""
    _only: frozenset[str] | None = None
    """Addresses to restrict tasks to: those of `_workers` if there are other workers as well, else None."""
    _gone_since: float | None = None
    """Since when there is no worker; None if there is one."""
    _progress_at: float = field(default_factory=time.monotonic)
    """Time of the last step that began or chunk that ended, or of the last report of a stall."""
    _order: int = 0
    _worn: dict[str, WornWorker] = field(default_factory=dict)
    _beyond_help: set[str] = field(default_factory=set)
    _run: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Last part of the keys of this run's tasks. Other runs on the same scheduler may have inputs of the same name."""

    def run(self, tasks: Iterator[ChunkTask], orders: Orders) -> Iterator[Outcome]:
        client = self.cluster.client
        client.subscribe_topic(EVENT_TOPIC, self._note_step)
        in_flight: dict[tuple[str, int], _Flight] = {}
        again: deque[tuple[ChunkTask, int]] = deque()
        suspects: deque[tuple[ChunkTask, int]] = deque()
        tries: Counter[tuple[str, int]] = Counter()
        """Tries of a chunk that count against it, by input and chunk."""
        waiting: ChunkTask | None = next(tasks, None)
        while waiting or again or suspects or in_flight:
            window = self._window(in_flight, orders.note)
            if self._gone_since is not None and orders.stop():
                return
            for flight in [flight for flight in in_flight.values() if self._is_stranded(flight)]:
                again.append((flight.task, flight.attempt + 1))
                del in_flight[flight.task.input_name, flight.task.index]
            self._restart_worn(in_flight, orders.note)
            ready = bool(self._workers) and not self._worn
            while len(in_flight) < window and (waiting or again) and ready and not orders.stop():
                task, attempt = again.popleft() if again else (waiting, 1)
                assert task is not None
                if attempt == 1:
                    waiting = next(tasks, None)
                in_flight[task.input_name, task.index] = self._submit(task, attempt, orders, alone=False)
            if not in_flight and suspects and ready and not orders.stop():
                task, attempt = suspects.popleft()
                in_flight[task.input_name, task.index] = self._submit(task, attempt, orders, alone=True)
            if not in_flight and self._worn:
                continue
            if not in_flight and self._workers:
                return  # stopped: nothing is under way and nothing more is wanted
            done = self._next_done()
            self._tell_steps(in_flight, orders)
            if done is None:
                continue
            flight, (name, index) = done, (done.task.input_name, done.task.index)
            if in_flight.get((name, index)) is not flight:
                continue  # it was stranded
            if (result := self._result(flight)) is None:
                flight.future.add_done_callback(lambda _, flight=flight: self._done.put(flight))
                continue
            del in_flight[name, index]
            flight.future.release()
            self._progress_at = time.monotonic()
            attempts = flight.task.earlier_attempts + flight.attempt
            if isinstance(result, Committed):
                yield Outcome(flight.task, result, attempts)
                continue
            tries[name, index] += not result.misfit and (flight.alone or not result.worker_died)
            if not result.misfit and orders.gives_up(result, tries[name, index]):
                yield Outcome(flight.task, result, attempts)
            else:
                (suspects if result.ends_worker else again).append((flight.task, flight.attempt + 1))

    def _submit(self, task: ChunkTask, attempt: int, orders: Orders, *, alone: bool) -> _Flight:
        current = replace(task, earlier_attempts=task.earlier_attempts + attempt - 1)
        nodes = orders.nodes_of(current, self.cluster.settings)
        delayed = to_delayed(nodes, current, attempt, self._run)
        self._order += 1
        # Its graph as it is: `Client.compute` looks for something to optimize first, for twice the time of all the
        # rest. In order, so that a partial store is a usable prefix.
        with _answered():
            # Without restrictions if possible: Dask holds back only tasks that any worker may do.
            only = sorted(self._only) if self._only else None
            future = self.cluster.client.get(delayed.dask, delayed.key, sync=False, priority=-self._order, workers=only)
        flight = _Flight(task, attempt, future, alone, tuple(node.name for node in nodes), self._only)
        future.add_done_callback(lambda _: self._done.put(flight))
        return flight

    def _window(self, in_flight: Mapping[Any, _Flight], note: Callable[[str], None]) -> int:
        """Chunks under way at once, asked again every second: workers come and go, and their memory grows."""
        if time.monotonic() > self._window_until:
            with _answered():
                present = self.cluster.workers()
            workers = self.cluster.fitting(present, note)
            self._workers = frozenset(workers)
            self._only = self._workers if len(workers) < len(present) else None
            self._await_workers(len(workers), note)
            if in_flight:
                self._report_stall(workers, note)
            self._window_size = self.cluster.chunks_at_once(workers)
            worn = self.cluster.worn_workers(workers)
            self._worn = {address: state for address, state in worn.items() if address not in self._beyond_help}
            self._window_until = time.monotonic() + 1.0
        return self._window_size

    def _is_stranded(self, flight: _Flight) -> bool:
        """True if all workers that might do a chunk are gone, so that Dask would wait for them forever."""
        return flight.only is not None and bool(self._workers) and not flight.only & self._workers

    def _await_workers(self, count: int, note: Callable[[str], None]) -> None:
        """Report that all workers are gone, and that one is back. Raises NoWorkersError if none comes in time."""
        limit = self.wait_for_workers_seconds
        if count:
            if self._gone_since is not None:
                note(f"{plural(count, 'worker')} back: the run continues")
                self._progress_at = time.monotonic()
            self._gone_since = None
        elif self._gone_since is None:
            self._gone_since = time.monotonic()
            note(f"no worker is left: the run waits {duration(limit)} for one (--wait-for-workers)")
        elif time.monotonic() - self._gone_since >= limit:
            raise NoWorkersError(limit)

    def _report_stall(self, workers: Workers, note: Callable[[str], None]) -> None:
        """Report what each worker does if nothing has happened for long and no task is running."""
        silent = time.monotonic() - self._progress_at
        doing = {address: _Doing.of(facts) for address, facts in workers.items()}
        if not workers or silent < STALL_SECONDS or any(one.runs for one in doing.values()):
            return
        self._progress_at = time.monotonic()
        shown = [f"{address} {one}" for address, one in list(doing.items())[:SHOWN_WORKERS]]
        more = f"; and {len(doing) - SHOWN_WORKERS} more" if len(doing) > SHOWN_WORKERS else ""
        note(
            f"no progress for {duration(silent)}, and no task is running. Workers: {'; '.join(shown)}{more}. "
            "If this repeats, press Ctrl-C and run again to continue"
        )

    def _restart_worn(self, in_flight: Mapping[Any, _Flight], note: Callable[[str], None]) -> None:
        """Restart workers whose memory has grown too far, once nothing is under way.

        Workers that Dask has paused are restarted at once: what is under way on them would never end.
        """
        now = [address for address, state in self._worn.items() if state.paused or not in_flight]
        # Workers on which another client of the scheduler has something to lose are left as they are.
        with _answered():
            shared = self.cluster.used_by_others(now, self._is_ours)
        for address in shared:
            del self._worn[address]
            self._beyond_help.add(address)
            note(f"worker {address} is short of memory and holds work of others; it is not restarted")
        now = [address for address in now if address not in shared]
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

    def _is_ours(self, key: Any) -> bool:
        return isinstance(key, tuple) and key[-1] == self._run

    def _next_done(self) -> _Flight | None:
        if self.cluster.client.status not in ("running", "connecting"):
            raise SchedulerLostError("the connection to the scheduler")
        try:
            return self._done.get(timeout=0.5)
        except queue.Empty:
            return None

    def _result(self, flight: _Flight) -> Committed | Failure | None:
        """Return the result of a finished future; None if the worker that held it died, and Dask makes it again."""
        from distributed.scheduler import KilledWorker

        future = flight.future
        if future.status == "cancelled":
            raise SchedulerLostError("the scheduler, or its memory of this run,")
        try:
            if future.status != "error":
                result: Committed | Failure = future.result(timeout=RESULT_SECONDS)
                return result
            err = future.exception(timeout=RESULT_SECONDS)
        except Exception as unread:  # it is lost, or failed a moment ago; its status will say so
            flight.unread += future.status in ("finished", "error")
            return None if flight.unread < UNREAD else Failure("run", f"{type(unread).__name__}: {unread}")
        if isinstance(err, KilledWorker):
            # The scheduler names the task; its announcement, the time.
            step = str(err.task[0]) if isinstance(err.task, tuple) else "run"
            limit = self.cluster.settings.chunk_timeout_seconds
            announced, began = self._last_step.get((flight.task.input_name, flight.task.index), (step, time.time()))
            if limit is not None and announced == step and time.time() - began >= limit:
                error = f"no result within {limit:g} s (--chunk-timeout); its worker was ended"
                return Failure(step, error, ends_worker=True)
            error = "the worker process died (a crash in native code, or out of memory)"
            return Failure(step, error, ends_worker=True, worker_died=True)
        return Failure("run", f"{type(err).__name__}: {err}")

    def _note_step(self, event: tuple[float, dict[str, Any]]) -> None:
        _, message = event
        if message["run"] != self._run:
            return
        self._last_step[message["input"], message["chunk"]] = (message["step"], message["time"])
        self._steps.put((message["input"], message["chunk"], message["step"]))

    def _tell_steps(self, in_flight: Mapping[tuple[str, int], _Flight], orders: Orders) -> None:
        """Pass on what workers announced, in the run's thread; announcements come in the client's."""
        while not self._steps.empty():
            name, chunk, step = self._steps.get()
            flight = in_flight.get((name, chunk))
            if flight is not None and step in flight.steps:
                self._progress_at = time.monotonic()
                orders.emit(step_started(flight.task, step, flight.steps.index(step)))


@dataclass(frozen=True)
class _Doing:
    """State and tasks of a worker, as it reported last."""

    status: str
    tasks: Mapping[str, int]
    """Numbers of tasks by Dask's name of their state."""
    silent_seconds: float

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> _Doing:
        tasks = facts.get("metrics", {}).get("task_counts") or {}
        return cls(str(facts.get("status")), tasks, max(0.0, time.time() - facts.get("last_seen", 0.0)))

    @property
    def runs(self) -> bool:
        """True if the worker runs a task."""
        running = sum(self.tasks.get(state, 0) for state in ("executing", "long-running"))
        return running > 0 and self.silent_seconds < HEARD_SECONDS

    def __str__(self) -> str:
        tasks = ", ".join(f"{count} {state}" for state, count in self.tasks.items()) or "no task"
        return f"({self.status}, {tasks}, heard of {duration(self.silent_seconds)} ago)"


@contextlib.contextmanager
def _answered() -> Iterator[None]:
    """A question to the scheduler, which may go away at any moment. Raises SchedulerLostError."""
    try:
        yield
    except (OSError, CancelledError) as err:  # refused, closed, or not answered in time
        raise SchedulerLostError("the scheduler") from err


class SchedulerLostError(StoppedError):
    """The scheduler went away in the middle of a run; the store keeps what was committed."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} was lost; what is committed is kept: start a scheduler and run again to continue")


class NoWorkersError(StoppedError):
    """Every worker went away in the middle of a run, and none came back."""

    def __init__(self, waited_seconds: float) -> None:
        super().__init__(
            f"no worker is left, and none came within {duration(waited_seconds)} (--wait-for-workers); what is "
            "committed is kept: start workers and run again to continue"
        )

"""Two executors of one plan: on a Dask cluster, or in this process. Each takes chunk tasks and yields outcomes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from pipeline.engine.graph import Node, run_in_process
from pipeline.engine.plan import ChunkTask
from pipeline.engine.steps import Committed, Failure, WorkerSettings

ATTEMPTS = 2
"""Times a chunk is tried in one run before it is recorded as failed."""

NodesOf = Callable[[ChunkTask, WorkerSettings], list[Node]]


@dataclass(frozen=True)
class Orders:
    """What an executor asks of the run that it works for."""

    nodes_of: NodesOf
    stop: Callable[[], bool]
    """Asked between chunks; ends the run once those under way are done."""
    note: Callable[[str], None]
    """Told what the user should know meanwhile."""


@dataclass(frozen=True)
class Outcome:
    """How one chunk ended: committed, or failed for good in this run."""

    task: ChunkTask
    result: Committed | Failure
    attempts: int


class Executor(Protocol):
    """Runs chunk tasks."""

    def run(self, tasks: Iterator[ChunkTask], orders: Orders) -> Iterator[Outcome]: ...


class InProcessExecutor:
    """One chunk after the other, in this process: for tests and for a debugger."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings

    def run(self, tasks: Iterator[ChunkTask], orders: Orders) -> Iterator[Outcome]:
        for task in tasks:
            for attempt in range(1, ATTEMPTS + 1):
                current = replace(task, earlier_attempts=task.earlier_attempts + attempt - 1)
                result = run_in_process(orders.nodes_of(current, self.settings))
                if isinstance(result, Committed) or attempt == ATTEMPTS:
                    yield Outcome(task, result, task.earlier_attempts + attempt)
                    break
            if orders.stop():
                return



"""Executors run chunk tasks. Here: their interface, and the one in this process; cluster/executor.py has Dask's."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from pipeline.engine.events import Event, Note, StepStarted
from pipeline.engine.graph import Node, run_in_process
from pipeline.engine.plan import ChunkTask
from pipeline.engine.steps import Committed, Failure, WorkerSettings

ATTEMPTS = 2
"""Tries of a chunk that raises an error, or exceeds the time limit, before it is recorded as failed."""

DEATHS = 3
"""Tries of a chunk whose worker dies. A worker can be killed from outside, so that one more is worth its time."""

NodesOf = Callable[[ChunkTask, WorkerSettings], list[Node]]


@dataclass(frozen=True)
class Orders:
    """Functions that an executor gets from the run that it works for."""

    nodes_of: NodesOf
    stop: Callable[[], bool]
    """Asked between chunks; ends the run once those under way are done."""
    emit: Callable[[Event], None]
    """Receives events meanwhile; called in the run's thread."""
    attempts: int | None = None
    """Tries of a chunk before it is recorded as failed; None for ATTEMPTS and DEATHS."""

    def note(self, text: str) -> None:
        self.emit(Note(text))

    def gives_up(self, failure: Failure, tries: int) -> bool:
        """Return whether a chunk that failed in this many tries is recorded as failed."""
        return tries >= (self.attempts or (DEATHS if failure.worker_died else ATTEMPTS))


@dataclass(frozen=True)
class Outcome:
    """End of one chunk: committed, or failed for good in this run."""

    task: ChunkTask
    result: Committed | Failure
    attempts: int


class Executor(Protocol):
    """Runs chunk tasks."""

    def run(self, tasks: Iterator[ChunkTask], orders: Orders) -> Iterator[Outcome]: ...


def step_started(task: ChunkTask, step: str, number: int) -> StepStarted:
    """Return the event of a step that begins; `number` counts the chunk's steps from 0."""
    return StepStarted(task.input_name, task.index, step, number, task.recipe.n_steps, task.n_items)


class InProcessExecutor:
    """One chunk after the other, in this process: for tests and for a debugger."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings

    def run(self, tasks: Iterator[ChunkTask], orders: Orders) -> Iterator[Outcome]:
        for task in tasks:
            for attempt in itertools.count(1):
                current = replace(task, earlier_attempts=task.earlier_attempts + attempt - 1)

                def starting(number: int, node: Node, task: ChunkTask = task) -> None:
                    orders.emit(step_started(task, node.name, number))

                result = run_in_process(orders.nodes_of(current, self.settings), starting)
                if isinstance(result, Committed) or orders.gives_up(result, attempt):
                    yield Outcome(task, result, task.earlier_attempts + attempt)
                    break
            if orders.stop():
                return

"""Events of a run, as plain values, and listeners. Progress, the summary, telemetry and tests hear the same.

A listener is any object with `on(event)`. It is called in the thread of the run, in the order in which things happen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Event:
    """Something that happened."""


@dataclass(frozen=True)
class RunStarted(Event):
    """The inputs are named; none is opened yet."""

    out: str
    inputs: int
    """Inputs of this run."""
    item: str = "frame"
    """Noun of one item."""
    axes: tuple[str, ...] = ()
    """Nouns of the rows that the workflow makes, one per ragged axis."""
    together: int = 1
    """Inputs that advance at the same time."""


@dataclass(frozen=True)
class PassStarted(Event):
    """A further pass begins, over what the store now holds: what follows is of its inputs."""

    inputs: int
    item: str
    """Noun of one item."""
    axes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClusterReady(Event):
    """The executor is there; work begins now. Rates are counted from here."""

    description: str
    dashboard: str
    """Address; "" if there is none."""
    gpu_slots: int = 1
    device: str = "cpu"
    start_seconds: float = 0.0
    """Seconds that the start took."""


@dataclass(frozen=True)
class InputStarted(Event):
    """An input was opened and planned."""

    name: str
    items: int
    items_done: int = 0
    """Items that need nothing any more: done by an earlier run, or given up."""


@dataclass(frozen=True)
class InputUnusable(Event):
    """An input cannot be opened: the run goes on without it."""

    path: str


@dataclass(frozen=True)
class StepStarted(Event):
    """A worker began a step of a chunk; the steps before it are done."""

    name: str
    """Input."""
    chunk: int
    step: str
    steps_done: int = 0
    steps: int = 1
    """Steps of this chunk."""
    items: int = 0
    """Items of this chunk."""


@dataclass(frozen=True)
class ChunkDone(Event):
    """A chunk is committed, or failed for good in this run."""

    name: str
    """Input."""
    chunk: int
    items: int
    """Items that were committed; 0 for a failure."""
    rows: Mapping[str, int] = field(default_factory=dict)
    """Rows by axis, of the axes whose counts are known."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Seconds by step."""
    elapsed_seconds: float = 0.0
    """Since ClusterReady."""
    failed: bool = False
    broken: int = 0
    """Items among them that never can be read."""
    covers_seconds: float | None = None
    """Time of the input that its items stand for; None if they have no times."""


@dataclass(frozen=True)
class InputDone(Event):
    """Nothing is under way for an input any more."""

    name: str
    failed_chunks: int = 0


@dataclass(frozen=True)
class Note(Event):
    """A line that the user should read."""

    text: str


@dataclass(frozen=True)
class RunDone(Event):
    """The run ended; nothing follows."""

    exit_code: int


class Listener(Protocol):
    """Anything that receives events."""

    def on(self, event: Event) -> None: ...


class Silent:
    """A listener that keeps the notes and shows nothing."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_: object) -> None: ...

    def on(self, event: Event) -> None:
        if isinstance(event, Note):
            self.notes.append(event.text)


class Listeners:
    """Several listeners as one."""

    def __init__(self, listeners: Iterable[Listener]) -> None:
        self.listeners = tuple(listeners)

    def on(self, event: Event) -> None:
        for listener in self.listeners:
            listener.on(event)

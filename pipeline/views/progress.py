"""Progress of a run on standard error: a total and one bar per input on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from pipeline.engine.events import (
    ChunkDone,
    ClusterReady,
    Event,
    InputDone,
    InputStarted,
    InputUnusable,
    Listener,
    Note,
    PassStarted,
    RunDone,
    RunStarted,
    StepStarted,
)
from pipeline.text import duration, plain, plural, plural_of


@dataclass
class Count:
    """Progress of one input."""

    items: int
    done_before: int
    done: int
    rows: dict[str, int] = field(default_factory=dict)
    """Rows of this run by axis, of the axes that were counted."""
    under_way: dict[int, float] = field(default_factory=dict)
    """Items' worth of steps that are done, by chunk under way."""
    finished: bool = False
    failed_chunks: int = 0
    began_seconds: float = 0.0
    """Time of its opening, since the start of the work."""
    covered_seconds: float | None = None
    """Time of the input that this run has done; None if its items have no times."""
    elapsed_seconds: float = 0.0
    """From then to its last chunk."""

    @property
    def reached(self) -> float:
        """Items done, those of chunks under way by the share of their steps."""
        return min(self.done + sum(self.under_way.values()), self.items)

    @property
    def rate(self) -> float:
        """Items per second since it was opened."""
        return (self.done - self.done_before) / self.elapsed_seconds if self.elapsed_seconds > 0 else 0.0

    @property
    def lag_seconds(self) -> float | None:
        """Seconds that it fell behind real time since it was opened; None if its items have no times."""
        return None if self.covered_seconds is None else max(0.0, self.elapsed_seconds - self.covered_seconds)


class Tally:
    """Counts a run from its events: the one place where items, rows, rate and time left are computed."""

    def __init__(self) -> None:
        self.item = "frame"
        self.inputs_total = self.unusable = 0
        self.counts: dict[str, Count] = {}
        self.together = 1
        self.elapsed_seconds = 0.0
        """From the start of the work to the last chunk that was done."""

    def on(self, event: Event) -> None:
        if isinstance(event, RunStarted | PassStarted):
            if isinstance(event, RunStarted):
                self.together = event.together
            self.item, self.inputs_total, self.unusable = event.item, event.inputs, 0
            self.counts, self.elapsed_seconds = {}, 0.0
        elif isinstance(event, InputStarted):
            counts = (event.items, event.items_done, event.items_done)
            self.counts[event.name] = Count(*counts, began_seconds=self.elapsed_seconds)
        elif isinstance(event, InputUnusable):
            self.unusable += 1
        elif isinstance(event, StepStarted):
            self.counts[event.name].under_way[event.chunk] = event.items * event.steps_done / event.steps
        elif isinstance(event, ChunkDone):
            count = self.counts[event.name]
            count.under_way.pop(event.chunk, None)
            count.done += event.items
            for axis, number in event.rows.items():
                count.rows[axis] = count.rows.get(axis, 0) + number
            self.elapsed_seconds = event.elapsed_seconds
            count.elapsed_seconds = event.elapsed_seconds - count.began_seconds
            if event.covers_seconds is not None:
                count.covered_seconds = (count.covered_seconds or 0.0) + event.covers_seconds
        elif isinstance(event, InputDone):
            count = self.counts[event.name]
            count.finished, count.failed_chunks = True, event.failed_chunks
            count.under_way.clear()

    @property
    def rate(self) -> float:
        """Items per second of this run, as the summary has it at the end."""
        done = sum(count.done - count.done_before for count in self.counts.values())
        return done / self.elapsed_seconds if self.elapsed_seconds > 0 else 0.0

    @property
    def waiting(self) -> int:
        """Inputs that were not opened yet."""
        return max(0, self.inputs_total - self.unusable - len(self.counts))

    @property
    def waiting_items(self) -> float:
        """Items of inputs that were not opened yet, each taken for as long as the mean of those that were."""
        known = self.counts.values()
        return self.waiting * sum(count.items for count in known) / max(1, len(known))

    @property
    def left_seconds(self) -> float | None:
        """Time that is left; None if it is not known."""
        if not self.rate:
            return None
        left = sum(count.items - count.done for count in self.counts.values() if not count.finished)
        return (left + self.waiting_items) / self.rate

    def speed(self) -> str:
        """Return rate and time left: "8.1 frames/s, 42 s left"; "" before the first chunk is done."""
        if not self.rate:
            return ""
        left = self.left_seconds
        more = f", {duration(left)} left" if left else ""
        return f"{self.rate:.1f} {plural_of(self.item)}/s{more}"

    def line(self, name: str) -> str:
        """Return how far an input is: "120/400 frames, 340 objects"."""
        count = self.counts[name]
        rows = [plural(number, axis) for axis, number in count.rows.items()]
        failed = [f"{plural(count.failed_chunks, 'chunk')} failed"] if count.failed_chunks else []
        pace = [self.pace(count)] if self.together > 1 and count.rate else []
        return ", ".join([f"{count.done}/{count.items} {plural_of(self.item)}", *rows, *failed, *pace])

    def pace(self, count: Count) -> str:
        """Return rate and lag of one input: "5.1 frames/s, 12 s behind real time"."""
        rate = f"{count.rate:.1f} {plural_of(self.item)}/s"
        lag = count.lag_seconds
        if lag is None:
            return rate
        return f"{rate}, {f'{duration(lag)} behind' if lag >= 1 else 'as fast as'} real time"

    def total(self) -> str:
        """Return how far the run is: "3 of 12 inputs, 2 under way, 7 waiting; 520 frames, 40 objects; 8.1 frames/s"."""
        known = self.counts.values()
        done, opened = sum(count.finished for count in known), len(self.counts)
        states = [f"{done} of {plural(self.inputs_total, 'input')}"]
        states += [f"{opened - done} under way"] if opened > done else []
        states += [f"{self.waiting} waiting"] if self.waiting else []
        states += [f"{self.unusable} not usable"] if self.unusable else []
        rows: dict[str, int] = {}
        for count in known:
            for axis, number in count.rows.items():
                rows[axis] = rows.get(axis, 0) + number
        items = sum(count.done - count.done_before for count in known)
        made = ", ".join([plural(items, self.item), *(plural(number, axis) for axis, number in rows.items())])
        return "; ".join(part for part in (", ".join(states), made, self.speed()) if part)


def say(text: str) -> None:
    """Print a line on standard error. A closed pipe, or a log on a full disk, must not end a run."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(plain(text), file=sys.stderr, flush=True)


def _cluster(event: ClusterReady) -> str:
    return event.description + (f", dashboard {event.dashboard}" if event.dashboard else "")


class PlainLines:
    """A line when something happens and at most one every `interval_seconds` while it goes on; on stderr."""

    def __init__(self, interval_seconds: float = 10.0) -> None:
        self.interval = interval_seconds
        self.tally = Tally()
        self.last = 0.0

    def __enter__(self) -> PlainLines:
        return self

    def __exit__(self, *_: object) -> None: ...

    def on(self, event: Event) -> None:
        self.tally.on(event)
        if isinstance(event, Note):
            self._line(event.text)
        elif isinstance(event, ClusterReady):
            self._line(_cluster(event))
        elif isinstance(event, InputStarted):
            before = f", {event.items_done} done before" if event.items_done else ""
            self._line(f"{event.name}: {plural(event.items, self.tally.item)}{before}")
        elif isinstance(event, ChunkDone):
            if not self._is_done(event.name) and time.monotonic() - self.last >= self.interval:
                self._line(self._state(event.name))
        elif isinstance(event, InputDone):
            count = self.tally.counts[event.name]
            if count.done > count.done_before or event.failed_chunks:
                self._line(self._state(event.name))

    def _is_done(self, name: str) -> bool:
        count = self.tally.counts[name]
        return count.done >= count.items

    def _state(self, name: str) -> str:
        one = f"{name}: {self.tally.line(name)}"
        if self.tally.inputs_total > 1:
            return f"{one}; {self.tally.total()}"
        return ", ".join(part for part in (one, self.tally.speed()) if part)

    def _line(self, text: str) -> None:
        self.last = time.monotonic()
        say(text)


class Bars:
    """A total, and one bar for each input under way; finished bars of many inputs scroll up."""

    SHOWN_AT_ONCE = 12

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self.console = Console(stderr=True)
        self.tally = Tally()
        self.rows: dict[str, Any] = {}
        self.total: Any = None
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[line]}", markup=False),
            console=self.console,
        )

    def __enter__(self) -> Bars:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def on(self, event: Event) -> None:
        if isinstance(event, RunStarted | PassStarted):
            # The bars of a pass that is over scroll up as lines.
            for name in list(self.rows):
                self._print(f"{name}: {self._line(name)}")
                self.bars.remove_task(self.rows.pop(name))
            if self.total is not None:
                self.bars.remove_task(self.total)
                self.total = None
        self.tally.on(event)
        if isinstance(event, Note):
            self._print(event.text)
        elif isinstance(event, ClusterReady):
            self._print(_cluster(event))
        elif isinstance(event, RunStarted | PassStarted):
            if event.inputs > 1:
                self.total = self.bars.add_task("total", total=event.inputs, line="")
        elif isinstance(event, InputStarted):
            self._add(event)
        elif isinstance(event, StepStarted | ChunkDone | InputDone):
            self._show(event.name)
        elif isinstance(event, RunDone):
            self._show_total()

    def _add(self, event: InputStarted) -> None:
        if len(self.rows) >= self.SHOWN_AT_ONCE:
            finished = next((name for name in self.rows if self.tally.counts[name].finished), None)
            if finished is not None:
                self._print(f"{finished}: {self._line(finished)}")
                self.bars.remove_task(self.rows.pop(finished))
        shown = event.name if len(event.name) <= 28 else event.name[:27] + "…"
        self.rows[event.name] = self.bars.add_task(
            plain(shown), total=max(event.items, 1), completed=event.items_done, line=""
        )
        self._show_total()

    def _show(self, name: str) -> None:
        if name in self.rows:
            count = self.tally.counts[name]
            completed = count.reached if count.items else 1.0
            self.bars.update(self.rows[name], completed=completed, line=self._line(name))
        self._show_total()

    def _line(self, name: str) -> str:
        count = self.tally.counts[name]
        if count.finished and count.done == count.done_before and not count.failed_chunks:
            return "complete before"
        speed = "" if self.total is not None else self.tally.speed()
        return ", ".join(part for part in (self.tally.line(name), speed) if part)

    def _show_total(self) -> None:
        if self.total is not None:
            counts = self.tally.counts.values()
            items = sum(count.items for count in counts) + self.tally.waiting_items
            reached = sum(count.items if count.finished else count.reached for count in counts)
            self.bars.update(self.total, total=max(items, 1), completed=reached, line=self.tally.total())

    def _print(self, text: str) -> None:
        self.console.print(plain(text), highlight=False, markup=False)


class Work:
    """Reports the progress of other work than a run to a listener: an export, a film."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._began = time.perf_counter()

    def counts(self, inputs: int, noun: str) -> None:
        """Say how many inputs follow, and the noun of one item."""
        self._listener.on(PassStarted(inputs, noun))

    def started(self, name: str, items: int) -> None:
        self._listener.on(InputStarted(name, items))

    def done(self, name: str, items: int, rows: Mapping[str, int] | None = None) -> None:
        elapsed = time.perf_counter() - self._began
        self._listener.on(ChunkDone(name, 0, items, rows or {}, elapsed_seconds=elapsed))

    def finished(self, name: str) -> None:
        self._listener.on(InputDone(name))

    def note(self, text: str) -> None:
        self._listener.on(Note(text))


class NowAndThen:
    """For work without inputs and items of its own: a line on stderr every few seconds, of what is done so far."""

    def __init__(self, what: str, interval_seconds: float = 5.0) -> None:
        """`what` is counted: "faces looked at"."""
        self.what, self.interval = what, interval_seconds
        self.last = time.monotonic()

    def __call__(self, done: int, total: int | None = None) -> None:
        if time.monotonic() - self.last >= self.interval:
            self.last = time.monotonic()
            say(f"{done}{f' of {total}' if total is not None else ''} {self.what}")


def for_stderr() -> Bars | PlainLines:
    """Return bars on a terminal, lines elsewhere."""
    return Bars() if sys.stderr is not None and sys.stderr.isatty() else PlainLines()

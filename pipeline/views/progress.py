"""What a person sees of a run: one bar per input on a terminal, plain lines elsewhere, nothing when asked."""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from pipeline.text import duration


class Silent:
    """No progress at all; notes are kept for whoever wants them."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_: object) -> None: ...
    def cluster(self, description: str, dashboard: str) -> None: ...
    def input_started(self, name: str, n_frames: int, n_frames_done: int) -> None: ...
    def chunk_done(self, name: str, n_frames: int, n_faces: int | None) -> None: ...
    def input_finished(self, name: str, failed_chunks: int) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)


@dataclass
class _Count:
    """How far one input is."""

    n_frames: int
    done_before: int
    done: int
    faces: int | None
    """None where nobody counts them."""
    began: float

    def rate(self) -> float:
        """Sampled frames per second since this run took the input up."""
        elapsed = time.monotonic() - self.began
        return (self.done - self.done_before) / elapsed if elapsed > 0 else 0.0

    def left_seconds(self) -> float | None:
        rate = self.rate()
        return (self.n_frames - self.done) / rate if rate > 0 else None


def _say(text: str) -> None:
    """A line on standard error. Whoever no longer listens (a closed pipe, a log on a full disk) must not end a run."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(text, file=sys.stderr, flush=True)


class PlainLines:
    """A line when something happens and at most one every `interval_seconds` while it goes on; on stderr."""

    def __init__(self, interval_seconds: float = 10.0) -> None:
        self.interval = interval_seconds
        self.counts: dict[str, _Count] = {}
        self.last = 0.0

    def __enter__(self) -> PlainLines:
        return self

    def __exit__(self, *_: object) -> None: ...

    def cluster(self, description: str, dashboard: str) -> None:
        self.note(description + (f", dashboard {dashboard}" if dashboard else ""))

    def input_started(self, name: str, n_frames: int, n_frames_done: int) -> None:
        self.counts[name] = _Count(n_frames, n_frames_done, n_frames_done, 0, time.monotonic())
        resumed = f", {n_frames_done} done before" if n_frames_done else ""
        self.note(f"{name}: {n_frames} frames{resumed}")

    def chunk_done(self, name: str, n_frames: int, n_faces: int | None) -> None:
        count = self.counts[name]
        count.done += n_frames
        count.faces = None if n_faces is None else (count.faces or 0) + n_faces
        if count.done < count.n_frames and time.monotonic() - self.last >= self.interval:
            self.note(f"{name}: {describe(count)}")

    def input_finished(self, name: str, failed_chunks: int) -> None:
        count = self.counts[name]
        if count.done == count.done_before and not failed_chunks:
            return
        self.note(f"{name}: {describe(count)}" + (f", {failed_chunks} chunks failed" if failed_chunks else ""))

    def note(self, text: str) -> None:
        self.last = time.monotonic()
        _say(text)


def describe(count: _Count) -> str:
    left = count.left_seconds()
    parts = [f"{count.done}/{count.n_frames} frames", f"{count.rate():.1f} frames/s"]
    if count.faces is not None:
        parts.insert(1, f"{count.faces} faces")
    if left is not None and count.done < count.n_frames:
        parts.append(f"{duration(left)} left")
    return ", ".join(parts)


class Bars:
    """One bar per input: frames, faces, frames per second, time left. Finished bars of many inputs scroll up."""

    SHOWN_AT_ONCE = 12

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self.console = Console(stderr=True)
        self.counts: dict[str, _Count] = {}
        self.rows: dict[str, Any] = {}
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[line]}"),
            console=self.console,
        )

    def __enter__(self) -> Bars:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def cluster(self, description: str, dashboard: str) -> None:
        self.note(description + (f", dashboard {dashboard}" if dashboard else ""))

    def input_started(self, name: str, n_frames: int, n_frames_done: int) -> None:
        self.counts[name] = _Count(n_frames, n_frames_done, n_frames_done, 0, time.monotonic())
        if len(self.rows) >= self.SHOWN_AT_ONCE:
            finished = next((n for n, row in self.rows.items() if self.bars.tasks[self._position(row)].finished), None)
            if finished is not None:
                self.bars.remove_task(self.rows.pop(finished))
        shown = name if len(name) <= 28 else name[:27] + "…"
        self.rows[name] = self.bars.add_task(shown, total=max(n_frames, 1), completed=n_frames_done, line="")

    def _position(self, row: Any) -> int:
        return next(i for i, task in enumerate(self.bars.tasks) if task.id == row)

    def chunk_done(self, name: str, n_frames: int, n_faces: int | None) -> None:
        count = self.counts[name]
        count.done += n_frames
        count.faces = None if n_faces is None else (count.faces or 0) + n_faces
        self.bars.update(self.rows[name], completed=count.done, line=describe(count))

    def input_finished(self, name: str, failed_chunks: int) -> None:
        count = self.counts[name]
        if count.done == count.done_before and not failed_chunks:
            line = "complete before"
        else:
            line = describe(count) + (f", [red]{failed_chunks} chunks failed[/red]" if failed_chunks else "")
        self.bars.update(self.rows[name], line=line)

    def note(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)


class NowAndThen:
    """For work without inputs and frames of its own: a line on stderr every few seconds, of what is done so far."""

    def __init__(self, what: str, interval_seconds: float = 5.0) -> None:
        """`what` is counted: "faces looked at"."""
        self.what, self.interval = what, interval_seconds
        self.last = time.monotonic()

    def __call__(self, done: int, total: int | None = None) -> None:
        if time.monotonic() - self.last >= self.interval:
            self.last = time.monotonic()
            _say(f"{done}{f' of {total}' if total is not None else ''} {self.what}")


def for_stderr() -> Bars | PlainLines:
    """Bars on a terminal, lines elsewhere."""
    return Bars() if sys.stderr is not None and sys.stderr.isatty() else PlainLines()

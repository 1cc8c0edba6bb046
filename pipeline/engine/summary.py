"""Summary of a run. It listens to the run's events, as progress does, so that both say the same."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from pipeline.engine.events import ChunkDone, ClusterReady, Event, PassStarted, RunStarted
from pipeline.text import plural_of

EXIT_DONE, EXIT_FAILED, EXIT_MISTAKE, EXIT_DRAINED = 0, 1, 2, 75


@dataclass
class PassCounts:
    """Counts of a further pass."""

    item: str
    """Noun of one item."""
    axes: tuple[str, ...] = ()
    """Nouns of the rows that it makes."""
    items: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    broken: int = 0
    """Items that never can be made: what they are made of could not be read."""
    seconds: float = 0.0
    """From the first task submitted to the last one done."""

    @property
    def counts(self) -> dict[str, int]:
        """Items and rows by noun."""
        return {self.item: self.items, **dict.fromkeys(self.axes, 0), **self.rows}


@dataclass
class Summary:
    """Counts, failures and times of a run. Seconds are wall time, except `step_seconds`: summed over all workers."""

    out: str
    item: str = "frame"
    """Noun of one item."""
    items: int = 0
    """Items committed by this run."""
    axes: tuple[str, ...] = ()
    """Nouns of the rows that the workflow makes."""
    rows: dict[str, int] = field(default_factory=dict)
    """Rows committed by this run, by noun, of the axes that were counted: {"object": 340}."""
    further: list[PassCounts] = field(default_factory=list)
    """Passes over what was stored: their items are made of the others."""
    chunks: int = 0
    chunks_skipped: int = 0
    """Committed by an earlier run."""
    chunks_accepted: int = 0
    """Failed chunks that inputs were closed without, as asked."""
    failures: list[dict[str, Any]] = field(default_factory=list)
    """Failed chunks: input, chunk, time_range, step, error."""
    unreadable_items: int = 0
    unreadable: list[dict[str, Any]] = field(default_factory=list)
    """Chunks stored with items missing: input, chunk, time_range, frames (numbers of items), error."""
    broken: int = 0
    """Items committed by this run that never can be read: a result, with its reason in the store, and no failure."""
    unusable: list[dict[str, Any]] = field(default_factory=list)
    """Inputs that could not be used at all: path, error."""
    derived: dict[str, float] = field(default_factory=dict)
    """Stages of whole inputs that were run (tracks, identities), with their seconds over all inputs."""
    underived: list[dict[str, Any]] = field(default_factory=list)
    """Inputs for which such a stage failed: input, step, error."""
    inputs_complete: int = 0
    inputs_total: int = 0
    drained: bool = False
    follows: bool = False
    """True if the run took inputs as they came: a signal is then its end, and no interruption."""
    seconds: dict[str, float] = field(default_factory=dict)
    """total; start: the cluster's start; run: from the first task submitted to the last one done."""
    step_seconds: dict[str, float] = field(default_factory=dict)
    device: str | None = None
    """Device that models ran on: cpu, cuda or tensorrt, "cuda fp16"; None if nothing was left to run."""
    gpu_slots: int = 1
    model_steps: tuple[str, ...] = ()
    traceback_log: str | None = None
    """File with the tracebacks of failed chunks; None if there is none."""
    _pass: PassCounts | None = None
    """The further pass under way; None in the first."""
    _seconds_before: float = 0.0
    """Seconds that earlier rounds of this pass took."""

    def on(self, event: Event) -> None:
        """Count what happens."""
        if isinstance(event, RunStarted):
            self.inputs_total += event.inputs
            self.item, self.axes = event.item, event.axes
            self._pass, self._seconds_before = None, self.seconds.get("run", 0.0)
        elif isinstance(event, PassStarted):
            self.inputs_total += event.inputs
            self._pass = next((one for one in self.further if one.item == event.item), None)
            if self._pass is None:
                self._pass = PassCounts(event.item, event.axes)
                self.further.append(self._pass)
            self._seconds_before = self._pass.seconds
        elif isinstance(event, ClusterReady):
            self.gpu_slots, self.device = event.gpu_slots, event.device
            self.seconds["start"] = event.start_seconds
        elif isinstance(event, ChunkDone):
            seconds = self._seconds_before + event.elapsed_seconds
            if self._pass is not None:
                self._pass.seconds = seconds
            else:
                self.seconds["run"] = seconds
            if event.failed:
                return
            counted: Any = self._pass or self
            counted.items += event.items
            self._add(counted.rows, event.rows)
            counted.broken += event.broken
            self.chunks += 1
            self._add(self.step_seconds, event.seconds)

    def forget(self, paths: Set[str], names: Set[str | None], total: int, complete: int) -> None:
        """Leave out what was counted of inputs that are taken again: `total` inputs, of which some were complete."""
        self.inputs_total -= total
        self.inputs_complete -= complete
        self.unusable = [one for one in self.unusable if one["path"] not in paths]
        for entries in (self.failures, self.unreadable, self.underived):
            entries[:] = [one for one in entries if one["input"] not in names]
        self.unreadable_items = sum(len(one["frames"]) for one in self.unreadable)

    @staticmethod
    def _add(to: dict[str, Any], more: Mapping[str, Any]) -> None:
        for name, value in more.items():
            to[name] = to.get(name, 0) + value

    def __getattr__(self, name: str) -> int:
        """Return a count by its plural noun: `summary.frames`, `summary.objects`."""
        for noun, count in self.counts.items() if "rows" in self.__dict__ else ():
            if plural_of(noun) == name:
                return count
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def counts(self) -> dict[str, int]:
        """Items and rows of this run, by noun: {"frame": 120, "object": 340}."""
        first = {self.item: self.items, **dict.fromkeys(self.axes, 0), **self.rows}
        return {**first, **{noun: count for one in self.further for noun, count in one.counts.items()}}

    @property
    def items_per_second(self) -> float | None:
        """Items committed per second of `seconds["run"]`; None if nothing was run."""
        run = self.seconds.get("run")
        return self.items / run if run else None

    @property
    def model_share(self) -> float:
        """Share of the run in which the model slots were busy: 1 is the models' own speed."""
        busy = sum(self.step_seconds.get(step, 0.0) for step in self.model_steps)
        wall = (self.seconds.get("run", 0.0) + sum(one.seconds for one in self.further)) * self.gpu_slots
        return min(1.0, busy / wall) if wall else 0.0

    @property
    def bottleneck(self) -> str | None:
        """The step that the run waited for: the longest model step if the model slots were mostly busy."""
        if not self.step_seconds:
            return None
        steps = self.model_steps if self.model_share >= 0.5 else tuple(self.step_seconds)
        return max(steps, key=lambda step: self.step_seconds.get(step, 0.0))

    @property
    def exit_code(self) -> int:
        if self.drained:
            return EXIT_DRAINED
        if self.unusable and self.inputs_total == len(self.unusable) and not self.follows:
            return EXIT_MISTAKE
        failed = self.failures or self.unreadable or self.unusable or self.underived
        return EXIT_FAILED if failed else EXIT_DONE

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values, for `--json`."""
        left_out = ("model_steps", "gpu_slots", "item", "items", "axes", "rows", "unreadable_items", "further")
        own = ("follows", "_pass", "_seconds_before")
        values = {key: value for key, value in vars(self).items() if key not in (*left_out, *own)}
        noun = plural_of(self.item)
        return {
            "out": self.out,
            **{plural_of(name): count for name, count in self.counts.items()},
            **values,
            f"unreadable_{noun}": self.unreadable_items,
            "bottleneck": self.bottleneck,
            "model_share": round(self.model_share, 4),
            f"{noun}_per_second": self.items_per_second,
            **{f"{plural_of(p.item)}_per_second": p.items / p.seconds if p.seconds else None for p in self.further},
            "failed_chunks": len(self.failures),
            "exit_code": self.exit_code,
        }

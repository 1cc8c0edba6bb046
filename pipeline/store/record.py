"""The commit record: what became of one chunk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pipeline.store.facts import LARGEST_COUNT
from pipeline.store.nodes import DATA_TYPES


@dataclass(frozen=True)
class Record:
    """Outcome of one chunk, as its file (or the folder of an older store) says."""

    state: Literal["ok", "failed"]
    """ok: committed, perhaps without some items; failed: nothing came of it."""
    stages: Mapping[str, str] = field(default_factory=dict)
    """Resume key of each stage whose arrays are committed."""
    arrays: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """`dims`, `shape` and `dtype` of each committed array."""
    attempts: int = 1
    """Times that the chunk was tried, in all runs."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Seconds by step."""
    worker: str | None = None
    missing: tuple[int, ...] = ()
    """Numbers of the items that could not be read."""
    error: str | None = None
    step: str | None = None
    """The step that failed."""
    items: tuple[int, int] | None = None
    """First and last item (exclusive) of a failed chunk."""
    time_seconds: tuple[float, float] | None = None
    """First and last time of a failed chunk, if the source has times."""
    tried: Mapping[str, str] = field(default_factory=dict)
    """Resume keys of the stages that were to be made, of a failed chunk."""

    @property
    def name(self) -> str:
        """The state as a file's name has it: "ok", "part" (ok, with items missing) or "failed"."""
        return "part" if self.state == "ok" and self.missing else self.state

    def as_json(self) -> dict[str, Any]:
        values: dict[str, Any] = {
            "state": self.state, "attempts": self.attempts, "seconds": dict(self.seconds), "worker": self.worker,
            "error": self.error, "missing": list(self.missing), "stages": dict(self.stages),
            "arrays": dict(self.arrays),
        }  # fmt: skip
        if self.state == "failed":
            values |= {"step": self.step, "frames": self.items, "time_seconds": self.time_seconds}
            values |= {"tried": dict(self.tried)}
        return values

    @classmethod
    def from_json(cls, values: Any) -> Record:
        """Read a record; unknown keys are ignored. Raises ValueError if it is malformed."""
        try:
            items, times = values.get("frames"), values.get("time_seconds")
            record = cls(
                state=values["state"],
                stages={str(stage): _text(key) for stage, key in values.get("stages", {}).items()},
                arrays={str(name): _described(one) for name, one in values.get("arrays", {}).items()},
                attempts=_count(values.get("attempts") or 0),
                seconds={str(step): _number(spent) for step, spent in (values.get("seconds") or {}).items()},
                worker=_text(values.get("worker")),
                missing=tuple(_count(number) for number in values.get("missing") or ()),
                error=_text(values.get("error")),
                step=_text(values.get("step")),
                items=(_count(items[0]), _count(items[1])) if items else None,
                time_seconds=(_number(times[0]), _number(times[1])) if times else None,
                tried={str(stage): _text(key) for stage, key in (values.get("tried") or {}).items()},
            )
        except (AttributeError, KeyError, TypeError, ValueError, IndexError) as err:
            raise ValueError(f"its record is malformed: {err!r:.200}") from err
        if record.state not in ("ok", "failed"):
            raise ValueError(f"its record has the state {record.state!r}")
        return record

    def merged(self, later: Record) -> Record:
        """Return this record with that of a later pass over the same chunk: its arrays and stages are added."""
        if not self.stages:
            return replace(later, attempts=max(self.attempts, later.attempts))
        return replace(
            later,
            stages={**self.stages, **later.stages},
            arrays={**self.arrays, **later.arrays},
            attempts=max(self.attempts, later.attempts),
            # The earlier pass's `decoded` stays, so what it missed stays missing, and why.
            missing=tuple(sorted({*self.missing, *later.missing})),
            error=later.error or (self.error if self.state == "ok" else None),
            seconds={**self.seconds, **later.seconds},
        )


def _described(values: Mapping[str, Any]) -> dict[str, Any]:
    shape, dims = [_count(size) for size in values["shape"]], [str(dim) for dim in values["dims"]]
    dtype = values["dtype"]
    if not shape or len(shape) != len(dims):
        raise ValueError(f"shape {shape} along {dims}")
    if not isinstance(dtype, str) or not DATA_TYPES.fullmatch(dtype):
        raise ValueError(f"data type {dtype!r:.80}")
    return {"dims": dims, "shape": shape, "dtype": dtype}


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= LARGEST_COUNT:
        raise ValueError(f"{value!r:.80} is not a count")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < LARGEST_COUNT:
        raise ValueError(f"{value!r:.80} is not a number")
    return float(value)


def _text(value: Any) -> Any:
    if not isinstance(value, str | None):
        raise ValueError(f"{value!r:.80} is not a text")
    return value

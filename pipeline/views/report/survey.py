"""Facts of one input in a report, whatever was found in it: rows over time, what is missing, what failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.media.spans import is_timed, item_numbers, item_seconds, length_of, seconds_of, start_of
from pipeline.store.read import Run, RunInput
from pipeline.text import parse_seconds
from pipeline.views.axes import axis_in, source_arrays, source_options
from pipeline.views.progress import Work
from pipeline.views.report.series import Bins, per_item
from pipeline.views.tables.rows import blocks

if TYPE_CHECKING:
    from pipeline.views.report.panel import Panel

MOST_BINS, FEWEST_BINS, ALL_BINS = 600, 40, 24_000
"""Bins of an input for rows per item: at most, at least, and of all inputs of a page together."""
MOST_GAPS = 2000
"""Gaps drawn of one input: about 50 kB."""

Floats = npt.NDArray[np.float64]


@dataclass
class Surveyed:
    """Findings of one input."""

    run: Run
    item: RunInput
    facts: dict[str, Any]
    n_inputs: int
    """Inputs of the report."""
    noun: str = "frame"
    """Name of one of its items for people."""
    is_timed: bool = True
    """False if its items have no times: `time` and what is called seconds are numbers of items then."""
    time: Floats = field(default_factory=lambda: np.empty(0))
    """Time of each item that can be read."""
    start_seconds: float = 0.0
    stop_seconds: float = 0.0
    rows: dict[str, int] = field(default_factory=dict)
    """Rows by axis."""
    counts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Mean and most rows per item, per bin, by axis."""
    gaps: list[tuple[float, float, str]] = field(default_factory=list)
    """Seconds from, to, and why nothing is known: todo, failed, unread."""
    failures: list[dict[str, Any]] = field(default_factory=list)

    @property
    def n_items(self) -> int:
        """Items that can be read."""
        return len(self.time)

    def bins(self, most: int = MOST_BINS, fewest: int = FEWEST_BINS, together: int = ALL_BINS, each: int = 1) -> Bins:
        """Return bins of its time: at most `most`, of all inputs `together`, with `each` items or more in one."""
        share = self.n_items / max(1, self.item.frames_total)
        n = max(fewest, min(most, together // max(1, self.n_inputs)))
        n = max(1, min(n, round(self.n_items / max(share, 1e-3)) // each))
        return Bins(self.start_seconds, self.stop_seconds, n)

    def over_time(self, counts: npt.NDArray[Any]) -> dict[str, Any]:
        """Return mean and most of a count per item, per bin."""
        return per_item(self.bins(), self.time, self.stands(), counts)

    def stands(self) -> Floats:
        """Return float64 (items,): how long each item stands for, in seconds; of pictures their number."""
        return seconds_of(self.facts, self.time, self.rank) if self.is_timed else item_seconds(self.time)

    @cached_property
    def rank(self) -> npt.NDArray[np.int64] | None:
        """Number of each item in its file, if all are there."""
        return item_numbers(self.item) if self.item.complete else None

    def drawn_gaps(self) -> list[list[Any]]:
        return [[round(start, 1), round(stop, 1), kind] for start, stop, kind in self.gaps[:MOST_GAPS]]


def survey(
    run: Run, item: RunInput, shown: str, work: Work, axes: Sequence[str], panels: Sequence[Panel], n_inputs: int,
    noun: str,
) -> Surveyed:  # fmt: skip
    """Read one input of a report, in blocks for its panels. Raises StoreError if an array is damaged."""
    work.started(shown, item.frames_done)
    found = Surveyed(run, item, item.attributes, n_inputs, noun)
    arrays = item.arrays
    declared = any(array.name == "time_seconds" for array in source_arrays(run, item.item))
    found.is_timed = declared and is_timed(item)
    if arrays:
        found.time = item.array("time_seconds") if found.is_timed else _positions(item).astype(np.float64)
        found.start_seconds, found.stop_seconds = _bounds(found)
    else:
        found.start_seconds, found.stop_seconds = _planned(found)
    told = 0
    for axis in (axis for axis in axes if axis_in(item, axis) is not None):
        counts = item.array(axis_in(item, axis).count)  # type: ignore[union-attr]  # not None, see above
        found.rows[axis] = int(counts.sum())
        found.counts[axis] = found.over_time(counts)
        told = _read(found, axis, [panel for panel in panels if panel.axis == axis], work, shown, told)
    work.done(shown, found.n_items - told)
    _find_gaps(found)
    work.finished(shown)
    return found


def _read(found: Surveyed, axis: str, panels: Sequence[Panel], work: Work, shown: str, told: int) -> int:
    """Hand the rows of an axis to its panels; return the number of items that `work` knows of so far."""
    wanted = dict.fromkeys(name for panel in panels for name in panel.start(found) if name in found.item.arrays)
    items = 0
    for block in blocks(found.item, axis, wanted) if panels else ():
        for panel in panels:
            panel.add(found, block)
        items += block.n_items
        work.done(shown, max(0, items - told), {axis: block.n_rows})
        told = max(told, items)
    for panel in panels:
        panel.finish(found)
    return told


def _bounds(found: Surveyed) -> tuple[float, float]:
    if len(found.time) == 0:
        return _planned(found)
    start, stop = float(found.time[0]), float(found.time[-1] + found.stands()[-1])
    if found.item.complete:
        return start, stop
    planned = _planned(found)
    return min(start, planned[0]), max(stop, planned[1])


def _planned(found: Surveyed) -> tuple[float, float]:
    """Return seconds from and to of what is to be sampled of an input, as far as its facts say."""
    if not found.is_timed:
        return 0.0, float(found.item.frames_total)
    facts, source = found.facts, source_options(found.run)
    start = start_of(facts)
    stop = start + length_of(facts)
    wanted = [_seconds(source.get(name)) for name in ("start", "stop")]
    start = max(start, wanted[0]) if wanted[0] is not None else start
    stop = min(stop, wanted[1]) if wanted[1] is not None else stop
    return start, max(start, stop)


def _seconds(value: Any) -> float | None:
    return parse_seconds(value) if isinstance(value, str) else value


def _positions(item: RunInput) -> npt.NDArray[np.int64]:
    """Return the number of each item that can be read."""
    spans = list(item.spans(1 << 40))
    return np.concatenate([np.arange(a, b) for a, b in spans]) if spans else np.empty(0, np.int64)


def _find_gaps(found: Surveyed) -> None:
    """Find stretches without results: items that no chunk holds, failed chunks, items that could not be read."""
    item, time = found.item, found.time
    frame, decoded = _item_facts(item, len(time))
    total = item.frames_total

    known_at = np.concatenate([[0.0], _positions(item), [float(max(total, 1))]])
    known = np.concatenate([[found.start_seconds], time, [found.stop_seconds]])

    def at(position: float) -> float:
        """Return the time of a position along the item axis: as stored, else in proportion."""
        return float(np.interp(position, known_at, known))

    failed = [(entry, entry.get("frames")) for entry in item.failures]
    for hole in _holes(list(item.spans(1 << 40)), total):
        if not any(items and items[0] <= hole[0] and hole[1] <= items[1] for _, items in failed):
            found.gaps.append((at(hole[0]), at(hole[1]), "todo"))
    for entry, items in failed:
        stored = entry.get("time_seconds") or (None, None)
        start, stop = (at(items[0]), at(items[1])) if items else stored
        found.failures.append(_failure("failed", (start, stop), entry, items[1] - items[0] if items else None))
        if start is not None and stop is not None:
            found.gaps.append((float(start), float(stop), "failed"))
    for entry in item.unreadable:
        ranks = np.asarray(entry["frames"])
        rows = np.flatnonzero(np.isin(frame, ranks))
        ends = (float(time[rows[0]]), float(time[rows[-1]])) if len(rows) else (None, None)
        found.failures.append(_failure("unread", ends, entry, len(ranks)))
    if not found.is_timed:
        _name_broken(found, decoded)
    if len(time):
        spans_of = found.stands()
        for first, last in _runs(~decoded):
            found.gaps.append((float(time[first]), float(time[last] + spans_of[last]), "unread"))


def _name_broken(found: Surveyed, decoded: npt.NDArray[np.bool_]) -> None:
    """Note each item that could not be read by its name and why, if its source stored these."""
    if not {"name", "error"} <= found.item.arrays.keys() or decoded.all():
        return
    names, errors = (found.item.array(name) for name in ("name", "error"))
    for row in np.flatnonzero(~decoded).tolist():
        if errors[row]:
            entry = {"error": errors[row], "where": str(names[row])}
            found.failures.append(_failure("unread", (None, None), entry, 1))


def _failure(kind: str, seconds: Sequence[Any], entry: dict[str, Any], items: int | None) -> dict[str, Any]:
    return {
        "kind": kind,
        "chunk": entry.get("chunk"),
        "where": entry.get("where"),
        "start": seconds[0],
        "stop": seconds[1],
        "items": items,
        "error": str(entry.get("error") or "no reason was given"),
    }


def _item_facts(item: RunInput, n: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return the number by which messages call each item, and whether it could be read."""
    arrays = item.arrays
    if not arrays:
        return np.empty(0, np.int64), np.empty(0, bool)
    numbers = item.array("frame") if "frame" in arrays and arrays["frame"].dims == (item.item,) else _positions(item)
    return numbers, item.array("decoded") if "decoded" in arrays else np.ones(n, bool)


def _holes(spans: Sequence[tuple[int, int]], total: int) -> list[tuple[int, int]]:
    """Return (start, stop) of the positions between and after the spans."""
    edges = [0, *(edge for span in spans for edge in span), total]
    return [(edges[k], edges[k + 1]) for k in range(0, len(edges), 2) if edges[k + 1] > edges[k]]


def _runs(flags: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return (first, last) inclusive of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(a), int(b) - 1) for a, b in edges.reshape(-1, 2)]

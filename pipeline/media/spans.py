"""Times that sampled items stand for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from pipeline.store.read import RunInput

_EVERYTHING = 1 << 40
_GAPS = 3.0
"""Most usual distances between items that an item of a half-done input stands for: beyond lies what is not done."""


def item_seconds(
    time_seconds: npt.NDArray[np.float64], stop_seconds: float | None = None, whole: bool = False
) -> npt.NDArray[np.float64]:
    """Return float64 (n,): how long each item stands for, up to the next one; the last as long as is usual.

    `stop_seconds` is the end of the input, beyond which the last one does not stand. `whole`: all sampled items are
    there, so that a long distance is one of the film's own (key frames, a variable rate).
    """
    if len(time_seconds) == 0:
        return np.empty(0)
    gaps = np.diff(time_seconds)
    usual = float(np.median(gaps)) if len(gaps) else 0.0
    last = usual if stop_seconds is None else min(usual, max(0.0, stop_seconds - float(time_seconds[-1])))
    return np.append(gaps if whole else np.minimum(gaps, _GAPS * usual), last)


def is_timed(item: RunInput) -> bool:
    """Return whether the items of an input have times, as frames of a film have; pictures have none."""
    return "time_seconds" in item.arrays or not item.arrays


def item_numbers(item: RunInput) -> npt.NDArray[np.int64]:
    """Return the number of each item, int64 (items,): rank of a frame in its file, place of a picture in its input."""
    if is_timed(item):
        return np.asarray(item.array("frame"), np.int64)
    spans = [np.arange(start, stop) for start, stop in item.spans(_EVERYTHING)]
    return np.concatenate([np.empty(0, np.int64), *spans])


def start_of(facts: Mapping[str, Any]) -> float:
    """Return the time at which an input starts, by its stored facts: a later part of a file starts later than it."""
    return float(facts.get("part_start_seconds") or facts.get("start_seconds") or 0.0)


def length_of(facts: Mapping[str, Any]) -> float:
    """Return the length of an input in seconds, by its stored facts; 0 if they do not say."""
    before = start_of(facts) - float(facts.get("start_seconds") or 0.0)
    return max(0.0, float(facts.get("duration_seconds") or 0.0) - before)


def stop_of(facts: Mapping[str, Any]) -> float | None:
    """Return the time at which an input ends, by its stored facts; None if they do not say."""
    start, duration = facts.get("start_seconds"), facts.get("duration_seconds")
    return float(start) + float(duration) if start is not None and duration else None

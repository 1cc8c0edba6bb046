"""Times that sampled items stand for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.store.read import RunInput

_EVERYTHING = 1 << 40
_GAPS = 3.0
"""An item stands for at most this many usual distances between items: beyond lies what was not recorded, or is not
done."""


def item_seconds(
    time_seconds: npt.NDArray[np.float64], stop_seconds: float | None = None,
    rank: npt.NDArray[np.integer] | None = None, sampled_seconds: float | None = None,
) -> npt.NDArray[np.float64]:  # fmt: skip
    """Return float64 (n,): how long each item stands for, up to the next one; the last as long as is usual.

    `stop_seconds` is the end of the input, beyond which the last one does not stand. `rank` (n,), ascending: number of
    each item in its file, if all sampled items are there. Key frames lie some file frames apart, now more, now fewer:
    the usual distance is then that of as many file frames. `sampled_seconds`: the distance by the options of sampling,
    for an item that is the only one. If it is not known, the item stands until the end of the input; if that is not
    known either, for 0 seconds.
    """
    if len(time_seconds) == 0:
        return np.empty(0)
    gaps = np.diff(time_seconds)
    usual = float(np.median(gaps)) if len(gaps) else sampled_seconds
    ends = [] if stop_seconds is None else [max(0.0, stop_seconds - float(time_seconds[-1]))]
    last = min([*ends, *([] if usual is None else [usual])], default=0.0)
    steps = np.ones(len(gaps)) if rank is None else np.maximum(1, np.diff(rank))
    limits = _GAPS * float(np.median(gaps / steps)) * steps if len(gaps) else gaps
    return np.append(np.minimum(gaps, limits), last)


def is_timed(item: RunInput) -> bool:
    """Return whether the items of an input have times, as frames of a film have; pictures have none."""
    return "time_seconds" in item.arrays or not item.arrays


def item_numbers(item: RunInput) -> npt.NDArray[np.int64]:
    """Return the number of each item, int64 (items,): rank of a frame in its file, place of a picture in its input."""
    if is_timed(item):
        return np.asarray(item.array("frame"), np.int64)
    spans = [np.arange(start, stop) for start, stop in item.spans(_EVERYTHING)]
    return np.concatenate([np.empty(0, np.int64), *spans])


def seconds_of(
    facts: Mapping[str, Any], time_seconds: npt.NDArray[np.float64], rank: npt.NDArray[np.integer] | None = None
) -> npt.NDArray[np.float64]:
    """Return float64 (n,): how long each item of an input stands for, by its stored facts; see `item_seconds`."""
    return item_seconds(time_seconds, stop_of(facts), rank, sampled_seconds(facts))


def sampled_seconds(facts: Mapping[str, Any]) -> float | None:
    """Return the distance between sampled items by the options of sampling; None if the facts do not say."""
    frames_per_second, every = facts.get("fps"), facts.get("every")
    if facts.get("sample_fps"):
        return 1 / float(facts["sample_fps"])
    if every and frames_per_second:
        return float(every) / float(frames_per_second)
    if facts.get("keyframes") and facts.get("key_frames"):
        return length_of(facts) / float(facts["key_frames"])
    return None


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

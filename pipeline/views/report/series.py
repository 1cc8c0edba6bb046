"""The numbers of a report's charts: means, extremes and shares per bin of time, so that hours of video stay small."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_DEVIATIONS = 1.2816
"""Standard deviations from the mean that hold the middle four fifths of a normal distribution."""


class Bins:
    """Equal stretches of an input's time."""

    def __init__(self, start_seconds: float, stop_seconds: float, n: int) -> None:
        self.start, self.stop, self.n = start_seconds, max(stop_seconds, start_seconds + 1e-6), n

    def of(self, time_seconds: Floats) -> npt.NDArray[np.int64]:
        """Return int64: the bin of each time; times outside belong to the first or the last."""
        at = (time_seconds - self.start) * (self.n / (self.stop - self.start))
        return np.clip(at.astype(np.int64), 0, self.n - 1)


def per_item(bins: Bins, time_seconds: Floats, stands_seconds: Floats, counts: npt.NDArray[Any]) -> dict[str, Any]:
    """Return mean and maximum, per bin, of a count per item.

    `time_seconds` and `stands_seconds`, float64 (n,): time of each item, and how long it stands for. Returns lists
    with one value per bin: of the items in it, else of the item that still stands there, else None.
    """
    at = bins.of(time_seconds)
    n = np.bincount(at, minlength=bins.n)
    mean = _ratio(np.bincount(at, counts, bins.n).astype(np.float64), n.astype(np.float64))
    most = np.full(bins.n, -np.inf)
    np.maximum.at(most, at, counts)
    empty = np.flatnonzero(n == 0)
    middle = bins.start + (empty + 0.5) * (bins.stop - bins.start) / bins.n
    before = np.searchsorted(time_seconds, middle, side="right") - 1
    standing = before >= 0
    standing[standing] = (time_seconds + stands_seconds)[before[standing]] >= middle[standing]
    for values in (mean, most):
        values[empty] = np.nan
        values[empty[standing]] = counts[before[standing]]
    return {"mean": rounded(mean, 2), "most": rounded(most, 0)}


class Numbers:
    """A number per row (age): mean and spread of each bin."""

    def __init__(self, n: int) -> None:
        self.sums = np.zeros((3, n))
        """Count, sum and sum of squares."""

    def add(self, at: npt.NDArray[np.int64], values: Floats) -> None:
        known = np.isfinite(values)
        for power, row in enumerate(self.sums):
            row += np.bincount(at[known], weights=values[known] ** power, minlength=len(row))

    def drawn(self) -> dict[str, Any]:
        mean = _ratio(self.sums[1], self.sums[0])
        deviation = np.sqrt(np.maximum(_ratio(self.sums[2], self.sums[0]) - mean**2, 0))
        return {
            "mean": rounded(mean, 1),
            "low": rounded(mean - _DEVIATIONS * deviation, 1),
            "high": rounded(mean + _DEVIATIONS * deviation, 1),
        }


class Shares:
    """Probabilities of classes per row (emotion): their mean in each bin."""

    def __init__(self, n: int, classes: int) -> None:
        self.sums, self.counts = np.zeros((n, classes)), np.zeros(n)

    def add(self, at: npt.NDArray[np.int64], values: Floats) -> None:
        known = np.isfinite(values).all(axis=1)
        self.counts += np.bincount(at[known], minlength=len(self.counts))
        for k in range(self.sums.shape[1]):
            self.sums[:, k] += np.bincount(at[known], weights=values[known, k], minlength=len(self.counts))

    def drawn(self) -> dict[str, Any]:
        """Return percent of each class in each bin: one list per class."""
        shares = 100 * _ratio(self.sums, self.counts[:, None])
        return {"shares": [rounded(column, 0) for column in shares.T]}


class Histogram:
    """Counts between edges; values outside belong to the first or the last bin.

    With `grows`, edges that start at 0 are spread twice as far whenever a value lies beyond them. Some detectors'
    scores end at 1, others have no end.
    """

    def __init__(self, edges: npt.NDArray[np.float64], *, grows: bool = False) -> None:
        self.edges = np.asarray(edges, np.float64)
        self.counts = np.zeros(len(edges) - 1, np.int64)
        self.grows = grows

    def add(self, values: Floats) -> None:
        known = values[np.isfinite(values)]
        while self.grows and len(known) and known.max() > self.edges[-1]:
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([pairs, np.zeros_like(pairs)])
            self.edges = 2 * self.edges
        at = np.searchsorted(self.edges, known, side="right") - 1
        self.counts += np.bincount(np.clip(at, 0, len(self.counts) - 1), minlength=len(self.counts))

    def drawn(self) -> dict[str, Any]:
        """Return edges and counts without the empty ends."""
        filled = np.flatnonzero(self.counts)
        if len(filled) == 0:
            return {"edges": [], "counts": []}
        first, last = int(filled[0]), int(filled[-1]) + 1
        return {"edges": rounded(self.edges[first : last + 1], 3), "counts": self.counts[first:last].tolist()}


def rounded(values: npt.NDArray[Any], digits: int) -> list[float | None]:
    """Return JSON values: None for NaN, whole numbers without a point."""
    found: list[float | None] = []
    for value in np.round(np.asarray(values, np.float64), digits).tolist():
        found.append(None if value != value else int(value) if value == int(value) else value)
    return found


def _ratio(over: Floats, under: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio: Floats = np.where(under > 0, over / under, np.nan)
    return ratio

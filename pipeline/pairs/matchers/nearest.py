"""The matcher `nearest`: keypoints whose descriptors are nearest to each other."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from pipeline.pairs.matchers.matcher import NO_MATCHES, Matcher, Matches, Pairs

Reals = npt.NDArray[np.floating[Any]]

BLOCK_BYTES = 4 << 20
"""Distances that are held at once, per thread: the second-level cache of a core, 2 MB, and as much again."""
KEPT_BYTES = 128 << 20
"""Prepared descriptors that are kept for the next pairs of a chunk, per thread: 120 pictures of 2,048 keypoints."""
COLUMNS = 2048
"""Keypoints that one matrix product compares a picture with: small pictures are put together up to this number."""
UNIT = {"u": 512.0}
"""Length of a descriptor, by kind of dtype: SIFT in 8 bits, as COLMAP keeps it, has the length 512; others have 1."""
STEP = 2.0**-24
"""Step that components of float descriptors are rounded to: the smallest step of float16."""
MOST_NORM = 16.0
"""Largest squared length of descriptors that are rounded: sums of their products then fit into 53 bits."""


class Nearest(Matcher):
    """Nearest neighbours by Euclidean distance, with Lowe's ratio test and a mutual check.

    As in hloc and COLMAP, `mutual` applies the ratio test and the limit of distance to both directions. Of equal
    distances the lowest index is best. If a picture has one keypoint, there is no second best, and the ratio test
    passes. The score is 1 - best / second best, the lower of both directions if `mutual`; 1 without a second best.

    Squared distances are exact, so results do not depend on blocks, threads or the processor. Those of uint8
    descriptors are whole numbers that float32 holds (float64, beyond 128 components). Components of float descriptors
    are rounded to steps of 2^-24, and float64 holds their sums. If a picture has a descriptor longer than 4, its
    descriptors are not rounded. A descriptor with NaN has no match.
    """

    needs = ("descriptor",)
    uses: ClassVar[frozenset[str]] = frozenset({"ratio", "mutual", "distance"})

    def match(self, pairs: Pairs) -> Sequence[Matches]:
        found = [NO_MATCHES] * len(pairs)
        prepared = _Prepared(pairs.pictures)
        for a, together in _groups(pairs):
            partners = tuple(pairs.b[together].tolist())
            best = _Best(prepared.left(a), prepared.right(partners), prepared.bounds(partners))
            for at, row in enumerate(together):
                found[row] = self._chosen(best, at, prepared.unit)
        return found

    def _chosen(self, best: _Best, at: int, unit: float) -> Matches:
        """Return the matches of one pair that pass the tests."""
        options = self.options
        first, column = best.row_first[at], best.row_best[at]
        second = best.row_second[at]
        keep = np.isfinite(first)
        if options.mutual:
            back_first, back_second = (of_columns[best.bounds[at] : best.bounds[at + 1]] for of_columns in best.columns)
            keep &= first == back_first[column]
            tied = keep & (back_first[column] == back_second[column])
            if tied.any():
                keep[tied] = best.lowest_rows(at, column[tied]) == np.flatnonzero(tied)
            second = np.minimum(second, back_second[column])
        row = np.flatnonzero(keep)
        near, far = (np.sqrt(np.maximum(squared[row], 0, dtype=np.float64)) for squared in (first, second))
        passes = np.ones(len(row), bool)
        if options.ratio is not None:
            passes &= near < options.ratio * far
        if options.distance is not None:
            passes &= near <= options.distance * unit
        row, near, far = row[passes], near[passes], far[passes]
        share = np.divide(near, far, out=np.ones_like(near), where=far > 0)
        return Matches(np.stack([row, column[row]], axis=1), 1 - share)


def _groups(pairs: Pairs) -> Iterator[tuple[int, list[int]]]:
    """Yield each first picture with rows of pairs whose second pictures are compared with it at once."""
    size = [len(picture["descriptor"]) for picture in pairs.pictures]
    together: list[int] = []
    columns = 0
    for row in np.lexsort((pairs.b, pairs.a)).tolist():
        another = together and pairs.a[together[0]] != pairs.a[row]
        if together and (another or columns + size[pairs.b[row]] > COLUMNS):
            yield int(pairs.a[together[0]]), together
            together, columns = [], 0
        together.append(row)
        columns += size[pairs.b[row]]
    if together:
        yield int(pairs.a[together[0]]), together


class _Prepared:
    """Descriptors as factors of the matrix of squared distances: [-2a, |a|², 1] times [b, 1, |b|²]."""

    def __init__(self, pictures: Sequence[Mapping[str, np.ndarray]]) -> None:
        self.pictures = pictures
        self._kept: OrderedDict[int | tuple[int, ...], np.ndarray] = OrderedDict()
        self._bytes = 0
        dtype = pictures[0]["descriptor"].dtype
        self.unit = UNIT.get(dtype.kind, 1.0)

    def bounds(self, partners: tuple[int, ...]) -> np.ndarray:
        """Return int64 (n + 1,): the columns at which each partner's keypoints begin, and the end of the last."""
        return np.cumsum([0, *(len(self.pictures[partner]["descriptor"]) for partner in partners)])

    def left(self, picture: int) -> np.ndarray:
        """Return (keypoints, components + 2)."""
        if picture not in self._kept:
            values, squared = _exact(self.pictures[picture]["descriptor"])
            self._keep(picture, np.column_stack([-2 * values, squared, np.ones_like(squared)]))
        return self._kept[picture]

    def right(self, partners: tuple[int, ...]) -> np.ndarray:
        """Return (components + 2, keypoints of all partners)."""
        if partners not in self._kept:
            parts = [_exact(self.pictures[partner]["descriptor"]) for partner in partners]
            values, squared = (np.concatenate(each) for each in zip(*parts, strict=True))
            self._keep(partners, np.vstack([values.T, np.ones_like(squared), squared]))
        return self._kept[partners]

    def _keep(self, key: int | tuple[int, ...], made: np.ndarray) -> None:
        self._kept[key] = made
        self._bytes += made.nbytes
        while self._bytes > KEPT_BYTES and len(self._kept) > 2:  # the two that are in use stay
            self._bytes -= self._kept.popitem(last=False)[1].nbytes


def _exact(descriptor: np.ndarray) -> tuple[Reals, Reals]:
    """Return components and squared lengths whose products have exact sums. NaN makes a length infinite."""
    if descriptor.dtype.kind == "u":
        whole: Reals = descriptor.astype(np.float32 if descriptor.shape[1] <= 128 else np.float64)
        return whole, np.einsum("ij,ij->i", whole, whole)
    values: Reals = descriptor.astype(np.float64)
    bad = ~np.isfinite(values).all(axis=1)
    values[bad] = 0
    if np.einsum("ij,ij->i", values, values).max(initial=0) <= MOST_NORM:
        values = np.rint(values / STEP) * STEP
    squared = np.einsum("ij,ij->i", values, values)
    squared[bad] = np.inf
    return values, squared


class _Best:
    """The best two squared distances of each keypoint of a picture to those of each partner, and back."""

    def __init__(self, left: np.ndarray, right: np.ndarray, bounds: np.ndarray) -> None:
        self._left, self._right, self.bounds = left, right, bounds
        n, m = len(left), right.shape[1]
        partners = len(bounds) - 1
        self.row_best = np.empty((partners, n), np.int64)
        self.row_first, self.row_second = (np.empty((partners, n), left.dtype) for _ in range(2))
        self.columns = (np.full(m, np.inf, left.dtype), np.full(m, np.inf, left.dtype))
        """Best and second best of each keypoint of all partners."""
        step = min(n, max(1, BLOCK_BYTES // (m * left.itemsize)))
        block = np.empty((step, m), left.dtype)
        for start in range(0, n, step):
            stop = min(start + step, n)
            squared = np.matmul(left[start:stop], right, out=block[: stop - start])
            self._add_columns(squared)
            for at in range(partners):
                self._add_rows(at, start, squared[:, bounds[at] : bounds[at + 1]])

    def _add_rows(self, at: int, start: int, squared: np.ndarray) -> None:
        """Set the best two of some rows; the best ones in `squared` are overwritten."""
        rows = np.arange(len(squared))
        part = slice(start, start + len(squared))
        best = squared.argmin(axis=1)
        self.row_best[at, part] = best
        self.row_first[at, part] = squared[rows, best]
        squared[rows, best] = np.inf
        self.row_second[at, part] = squared.min(axis=1)

    def _add_columns(self, squared: np.ndarray) -> None:
        """Take some rows into the best two of each column, by halves that are compared element by element."""
        half = len(squared) // 2
        one, other, odd = squared[:half], squared[half : 2 * half], squared[2 * half :]
        low, high = np.minimum(one, other), np.maximum(one, other)
        first, second = self.columns
        while len(low) > 1:
            half = len(low) // 2
            odd = np.concatenate([odd, low[2 * half :], high[2 * half :]])
            low, high = _both(low[:half], high[:half], low[half : 2 * half], high[half : 2 * half])
        for row in odd:
            first[:], second[:] = _both(first, second, row, np.inf)
        for one, other in zip(low, high, strict=True):
            first[:], second[:] = _both(first, second, one, other)

    def lowest_rows(self, at: int, columns: np.ndarray) -> np.ndarray:
        """Return the lowest row that is best for each of these columns of a partner, which have equal best ones."""
        squared: Reals = np.matmul(self._left, self._right[:, self.bounds[at] + columns])
        lowest: np.ndarray = squared.argmin(axis=0)
        return lowest


def _both(
    first: np.ndarray, second: np.ndarray, other_first: np.ndarray, other_second: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the best two of two pairs of best two."""
    larger = np.maximum(first, other_first)
    return np.minimum(first, other_first), np.minimum(larger, np.minimum(second, other_second))

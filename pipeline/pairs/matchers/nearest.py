"""The matcher `nearest`: keypoints whose descriptors are nearest to each other."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

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
            compared = self._compare(
                prepared.left(a), prepared.right(partners), prepared.bounds(partners), prepared.unit
            )
            for row, matches in zip(together, compared, strict=True):
                found[row] = matches
        return found

    def _compare(self, left: Reals, right: Reals, bounds: np.ndarray, unit: float) -> Iterator[Matches]:
        """Yield the matches of a picture with each of its partners."""
        there = _nearest(left, right, bounds)
        keep = self._passes(there.first, there.second, unit)
        if self.options.mutual:
            keep &= there.first == there.least[there.best + bounds[:-1, None]]
        partner, row = np.nonzero(keep)
        first, second = there.first[partner, row], there.second[partner, row]
        if self.options.mutual:
            column = there.best[partner, row] + bounds[partner]
            back = _nearest(right[:, column].T, left.T, np.array([0, len(left)]))
            keep = (back.best[0] == row) & self._passes(first, back.second[0], unit)
            second = np.minimum(second, back.second[0])
            partner, row, first, second = partner[keep], row[keep], first[keep], second[keep]
        near, far = _length(first), _length(second)
        score = 1 - np.divide(near, far, out=np.ones_like(near), where=far > 0)
        match = np.stack([row, there.best[partner, row]], axis=1)
        ends = np.searchsorted(partner, np.arange(1, len(bounds) - 1))
        yield from map(Matches, np.split(match, ends), np.split(score, ends))

    def _passes(self, first: Reals, second: Reals, unit: float) -> npt.NDArray[np.bool_]:
        """Return which of the best distances pass the tests; squared distances are given."""
        near = _length(first)
        passes = np.isfinite(near)
        if self.options.ratio is not None:
            passes &= near < self.options.ratio * _length(second)
        if self.options.distance is not None:
            passes &= near <= self.options.distance * unit
        return passes


def _length(squared: Reals) -> npt.NDArray[np.float64]:
    return np.sqrt(np.maximum(squared, 0, dtype=np.float64))


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


class _Nearest(NamedTuple):
    """The best two squared distances of each row to the columns of each partner."""

    best: npt.NDArray[np.int64]
    """(partners, rows): column of the best, counted within the partner; of equal ones the lowest."""
    first: Reals
    """(partners, rows): the best."""
    second: Reals
    """(partners, rows): the second best; infinite if there is none."""
    least: Reals
    """(columns,): the best of each column."""


def _nearest(left: Reals, right: Reals, bounds: np.ndarray) -> _Nearest:
    """Return the best two of the matrix `left` times `right`, of which a block is held at once."""
    (n, _), (_, m), partners = left.shape, right.shape, len(bounds) - 1
    best = np.empty((partners, n), np.int64)
    first, second = np.empty((partners, n), left.dtype), np.empty((partners, n), left.dtype)
    least = np.full(m, np.inf, left.dtype)
    step = max(1, min(n, BLOCK_BYTES // (m * left.itemsize)))
    block = np.empty((step, m), left.dtype)
    for start in range(0, n, step):
        part = slice(start, min(start + step, n))
        squared = np.matmul(left[part], right, out=block[: part.stop - start])
        np.minimum(least, squared.min(axis=0), out=least)
        rows = np.arange(len(squared))
        for at in range(partners):
            of_partner = squared[:, bounds[at] : bounds[at + 1]]
            column = best[at, part] = of_partner.argmin(axis=1)
            first[at, part] = of_partner[rows, column]
            of_partner[rows, column] = np.inf
            second[at, part] = of_partner.min(axis=1)
    return _Nearest(best, first, second, least)

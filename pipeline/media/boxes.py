"""Overlap of boxes, and boxes near one another without the matrix of all pairs: a frame may show tens of thousands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Pairs = tuple[Ints, Ints]

PAIRS_AT_ONCE = 1 << 18
"""Pairs of boxes that are compared together: 2 MB for each float64 array, which stays in a core's cache."""
GROUP = 256
"""Neighbouring boxes that are compared with the same others."""


def corners_of(box: npt.NDArray[Any], margin: Floats | float = 0.0) -> Floats:
    """Return float64 (n, 4), x1, y1, x2, y2, of boxes x, y, w, h, each grown by a margin in pixels on all sides."""
    box = box.astype(np.float64)
    by = np.broadcast_to(margin, len(box))[:, None]
    return np.concatenate([box[:, :2] - by, box[:, :2] + box[:, 2:] + by], axis=1)


def overlap(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> Floats:
    """Return float64 (n, m): intersection over union of boxes x, y, w, h, (n, 4) and (m, 4); 0 for empty boxes."""
    a, b = left.astype(np.float64)[:, None], right.astype(np.float64)[None]
    low = np.maximum(a[..., :2], b[..., :2])
    high = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    shared: Floats = np.clip(high - low, 0, None).prod(axis=-1)
    union = a[..., 2:].prod(axis=-1) + b[..., 2:].prod(axis=-1) - shared
    return np.where(union > 0, shared / np.where(union > 0, union, 1), 0.0)


def meeting(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> Iterator[Pairs]:
    """Yield rows of `left`, and all rows of `right` (ascending) that may meet one of them.

    Both are boxes (n, 4), x1, y1, x2, y2. Each row of `left` comes once. At most PAIRS_AT_ONCE pairs come together, or
    one row.
    """
    if len(left) * len(right) <= PAIRS_AT_ONCE:
        if len(left):
            yield np.arange(len(left)), np.arange(len(right))
        return
    # Bands as high as the tallest box: whatever meets a box lies in its own bands or in the one above.
    tall = max(float((right[:, 3] - right[:, 1]).max()), 1e-9)
    order = np.lexsort((left[:, 0], np.floor(left[:, 1] / tall)))
    by_band = np.argsort(right[:, 1], kind="stable")
    tops = right[by_band, 1]
    for start in range(0, len(left), GROUP):
        group = order[start : start + GROUP]
        low, high = left[group, :2].min(axis=0), left[group, 2:].max(axis=0)
        near = by_band[np.searchsorted(tops, low[1] - 2 * tall) : np.searchsorted(tops, high[1])]
        near = np.sort(near[(right[near, :2] < high).all(axis=1) & (right[near, 2:] > low).all(axis=1)])
        step = max(1, PAIRS_AT_ONCE // max(1, len(near)))
        yield from ((group[first : first + step], near) for first in range(0, len(group), step))


def overlapping(left: npt.NDArray[Any], right: npt.NDArray[Any], least: float) -> tuple[Ints, Ints, Floats]:
    """Return rows of `left`, rows of `right`, and the overlap of each pair of boxes x, y, w, h that is `least` or more.

    Pairs are sorted by their rows. `least` is above 0.
    """
    parts = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    for rows, near in meeting(corners_of(left), corners_of(right)):
        shared = overlap(left[rows], right[near])
        row, column = np.nonzero(shared >= least)
        parts.append((rows[row], near[column], shared[row, column]))
    row, column, shared = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((column, row))
    return row[order], column[order], shared[order]


def assigned(
    left: npt.NDArray[Any], right: npt.NDArray[Any], cost: Callable[[Ints, Ints], Floats], rejected: float
) -> Pairs:
    """Return pairs of rows, each row in one pair at most, so that the sum of costs is least.

    `left` and `right` as in `meeting`; `cost` gets rows of both and returns their costs, (rows, columns). A pair that
    costs `rejected` is not a pair; the others cost less. Boxes that do not meet are not a pair.
    """
    from scipy.optimize import linear_sum_assignment

    parts: list[tuple[Ints, Ints, Floats]] = []
    for rows, near in meeting(left, right):
        costs = cost(rows, near)
        if costs.shape == (len(left), len(right)):
            row, column = linear_sum_assignment(costs)
            kept = costs[row, column] < rejected
            return row[kept], column[kept]
        row, column = np.nonzero(costs < rejected)
        parts.append((rows[row], near[column], costs[row, column]))
    if not parts:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    row, column, value = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    # Each row may also take a column of its own, for the cost of being left alone. Stored values must not be 0.
    own = np.arange(len(left))
    row, column = np.concatenate([row, own]), np.concatenate([column, len(right) + own])
    value = np.concatenate([value - rejected - 1, np.full(len(left), -1.0)])
    graph = coo_array((value, (row, column)), shape=(len(left), len(right) + len(left))).tocsr()
    row, column = min_weight_full_bipartite_matching(graph)
    kept = column < len(right)
    return row[kept].astype(np.int64), column[kept].astype(np.int64)

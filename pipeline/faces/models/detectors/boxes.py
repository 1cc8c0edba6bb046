"""Arithmetic on boxes (float64 corners x1, y1, x2, y2), as in the `mtcnn` package (1.0.0, utils/bboxes.py)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Corners = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

ROWS_AT_ONCE = 256
"""Rows of the overlap matrix that are in memory together."""


def squared(corners: Corners) -> Corners:
    """Grow the shorter side of each box, about its centre, to the length of the longer one."""
    size = corners[:, 2:] - corners[:, :2]
    longest = size.max(axis=1, keepdims=True)
    start = corners[:, :2] + size * 0.5 - longest * 0.5
    return np.concatenate([start, start + longest], axis=1)


def shifted(corners: Corners, offsets: npt.NDArray[np.float32]) -> Corners:
    """Move each corner by its offset, a share of the box's size (counted in whole pixels, both ends included)."""
    size = corners[:, 2:] - corners[:, :2] + 1
    return corners + offsets * np.tile(size, 2)


def suppress(
    frame: Index, corners: Corners, score: npt.NDArray[np.float32], threshold: float, of_smaller: bool = False
) -> Index:
    """Return the indices of the boxes that stay, by frame, then by score (descending).

    A box is dropped if any box of higher score in its frame overlaps it by more than `threshold`, even a dropped box.
    This is the package's rule, not the usual greedy one. Overlap is intersection over union, or over
    the smaller box.
    """
    parts = [np.empty(0, np.int64)]
    for index in np.unique(frame):
        mine = np.flatnonzero(frame == index)
        # Scores saturate at 1, so ties are common. The package sorts upwards, in doubles, by numpy's default, which is
        # not stable, and reverses. The same call gives the same order.
        order = mine[np.argsort(score[mine].astype(np.float64))[::-1]]
        parts.append(order[~_overlapped(corners[order], threshold, of_smaller)])
    return np.concatenate(parts)


def _overlapped(corners: Corners, threshold: float, of_smaller: bool) -> npt.NDArray[np.bool_]:
    """Return for each box whether it overlaps one before it."""
    gone = np.zeros(len(corners), bool)
    x1, y1, x2, y2 = np.ascontiguousarray(corners.T)
    area = (x2 - x1) * (y2 - y1)
    for start in range(0, len(corners), ROWS_AT_ONCE):
        stop = min(start + ROWS_AT_ONCE, len(corners))
        these, before = np.s_[start:stop, None], np.s_[None, :stop]
        width = np.minimum(x2[these], x2[before]) - np.maximum(x1[these], x1[before])
        height = np.minimum(y2[these], y2[before]) - np.maximum(y1[these], y1[before])
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        if of_smaller:
            whole = np.minimum(area[these], area[before])
        else:
            whole = area[these] + area[before] - shared
        earlier = np.arange(stop)[None] < np.arange(start, stop)[:, None]
        gone[start:stop] = ((shared > threshold * whole) & earlier).any(axis=1)
    return gone

"""Arithmetic on boxes, and their suppression.

`squared`, `shifted` and `suppress` are those of the `mtcnn` package (1.0.0, utils/bboxes.py), on float64 corners x1,
y1, x2, y2. `by_score` suppresses greedily: keep the best box, drop those that overlap it too much, and go on with the
rest.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.media.boxes import meeting

Corners = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Index = npt.NDArray[np.int64]


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
    """Return for each box whether it overlaps one before it; of a crowd's boxes compare neighbours only."""
    gone = np.zeros(len(corners), bool)
    x1, y1, x2, y2 = np.ascontiguousarray(corners.T)
    area = (x2 - x1) * (y2 - y1)
    # A box with a negative area overlaps others that it does not meet.
    around = corners
    if (area < 0).any():
        around = np.tile(np.repeat([corners.min() - 1, corners.max() + 1], 2), (len(corners), 1))
    for rows, near in meeting(around, around):
        these, before = rows[:, None], near[near < rows.max()][None]
        width = np.minimum(x2[these], x2[before]) - np.maximum(x1[these], x1[before])
        height = np.minimum(y2[these], y2[before]) - np.maximum(y1[these], y1[before])
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        if of_smaller:
            whole = np.minimum(area[these], area[before])
        else:
            whole = area[these] + area[before] - shared
        gone[rows] = ((shared > threshold * whole) & (before < these)).any(axis=1)
    return gone


def by_score(corners: Float32, score: Float32, threshold: float) -> Index:
    """Return the indices of the boxes that stay, by score (descending), as retina-face and CenterFace choose them.

    corners: float32 (n, 4), x1, y1, x2, y2, in whole pixels, both ends included. A box is dropped if it overlaps one
    that stays by `threshold` or more, as intersection over union. Arithmetic is float32, as in both packages.
    """
    left = np.argsort(score)[::-1]  # not stable, as in both packages: equal scores must come in the same order
    x1, y1, x2, y2 = np.ascontiguousarray(corners.T)
    area = (x2 - x1 + 1) * (y2 - y1 + 1)
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        width = np.minimum(x2[best], x2[left]) - np.maximum(x1[best], x1[left]) + 1
        height = np.minimum(y2[best], y2[left]) - np.maximum(y1[best], y1[left]) + 1
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        with np.errstate(divide="ignore", invalid="ignore"):  # boxes without area
            left = left[~(shared / (area[best] + area[left] - shared) >= np.float32(threshold))]
    return np.array(kept, np.int64)

"""Objects of one picture: boxes on the input of a network, and the ones that are kept, in pixels of the picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

FIRST_CANDIDATES, MOST_CANDIDATES = 1000, 30_000
"""Most boxes of a picture that are compared with each other, the best. The first number is tried first: it gives enough
unless there are many boxes of few objects. The second is that of Ultralytics' code."""


FARTHEST = 1e7
"""Pixels from the corner of a picture to which coordinates are cut before boxes are compared. OpenCV sets classes apart
by the largest coordinate: one of 1e30 would leave no digits for the others."""


class Candidates(NamedTuple):
    """Boxes of one picture, in any order; n may be 0."""

    corners: npt.NDArray[np.floating]
    """(n, 4): left, top, right, bottom. They may reach beyond the picture."""
    label: npt.NDArray[np.integer]
    """(n,): number of the class, from 0."""
    score: npt.NDArray[np.floating]
    """(n,): higher is better."""


class Objects(NamedTuple):
    """Objects of one picture by score, in descending order, then by x and y; n may be 0."""

    box: npt.NDArray[np.float32]
    """float32 (n, 4): x, y, width and height in pixels, inside the picture."""
    label: npt.NDArray[np.int32]
    """int32 (n,): number of the class, from 0."""
    score: npt.NDArray[np.float32]
    """float32 (n,)"""


NONE = Objects(np.empty((0, 4), np.float32), np.empty(0, np.int32), np.empty(0, np.float32))


class Choice(NamedTuple):
    """Limits for the candidates to keep."""

    score: float
    """Least score."""
    overlap: float
    """A box is dropped if it overlaps a better one of its class by more (intersection over union)."""
    most: int
    labels: Sequence[int] | None = None
    """Numbers of the classes to keep; None for all."""


def chosen(found: Candidates, choice: Choice, size: tuple[int, ...]) -> Objects:
    """Return the objects of a picture of this height and width, of candidates in its pixels."""
    good = (found.score >= choice.score) & np.isfinite(found.corners).all(axis=1)
    if choice.labels is not None:
        good &= np.isin(found.label, choice.labels)
    corners, label, score = (values[good] for values in found)
    inside = np.clip(corners.astype(np.float64), 0, [size[1], size[0]] * 2)
    box = np.concatenate([inside[:, :2], inside[:, 2:] - inside[:, :2]], axis=1).astype(np.float32)
    order = np.lexsort((box[:, 1], box[:, 0], -score))
    order = order[(box[order, 2:] > 0).all(axis=1)]
    if choice.overlap < 1:
        for most in (FIRST_CANDIDATES, MOST_CANDIDATES):
            best = order[:most]
            kept = best[_apart(corners[best].astype(np.float64), label[best], score[best], choice.overlap)]
            if len(kept) >= choice.most:
                break
        order = kept
    order = order[: choice.most]
    return Objects(box[order], label[order].astype(np.int32), score[order].astype(np.float32))


def best(objects: Objects, score: float, most: int) -> Objects:
    """Return the best objects of a picture: `most` of them, of this score or more."""
    n = min(most, int((objects.score >= score).sum()))
    return Objects(objects.box[:n], objects.label[:n], objects.score[:n])


def _apart(
    corners: npt.NDArray[np.float64], label: npt.NDArray[np.integer], score: npt.NDArray[np.floating], overlap: float
) -> npt.NDArray[np.int64]:
    """Return the indices of boxes that overlap no better one of their class by more, in descending order of score."""
    if not len(corners):
        return np.empty(0, np.int64)
    corners = np.clip(corners, -FARTHEST, FARTHEST)
    first = corners[:, :2] - corners[:, :2].min(axis=0)  # OpenCV sets classes apart by their largest coordinate
    boxes = np.concatenate([first, corners[:, 2:] - corners[:, :2]], axis=1)
    lowest = float(np.nextafter(np.float32(score.min()), np.float32(-np.inf)))
    kept = cv2.dnn.NMSBoxesBatched(boxes.tolist(), score.tolist(), label.tolist(), lowest, overlap)
    return np.asarray(kept, np.int64).reshape(-1)

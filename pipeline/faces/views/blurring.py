"""Making faces unrecognisable: on every frame, wherever a face may be between the samples that show it."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.media.film.whereabouts import Boxes, Found, Legs, Reach, between

REACH = Reach(hold_share=1.0, hold_frames=2, longest_gap_seconds=2.0)
"""A face is covered from the sample before the first one that shows it to the one after the last, and a little more.
So if a scene is cut between two samples, the faces of both sides are covered on both."""
_HEAD = np.array([0.35, 0.5, 0.35, 0.35], np.float32)
"""Left, top, right and bottom margin around a box, in box sizes: forehead, hair, ears and chin."""
_DRIFT_PER_SECOND = 0.5
_DRIFT_AT_MOST = 0.5
"""Growth of a margin per second to the nearest sample, and at most, in box sizes."""
_FAST = 0.2
"""A box that moves by more of its size between two samples may be anywhere between them."""
_FAR = 2.0
"""A box that moves by more of its sizes may be another person after a cut: both places are covered all the time."""
_CELLS = 5
"""Mean colours that are left across the shorter side of a head. Its face proper has about three."""
_ROUND = 3.0
"""Exponent of the superellipse that is covered: 2 is an ellipse, much more a rectangle."""


def covers(faces: Found, legs: Legs, which: npt.NDArray[np.int64], rank: int, times: npt.NDArray[np.float64]) -> Boxes:
    """Return float32 (m, 4): x, y, w, h of the heads to blur on a frame; m is at least len(which)."""
    if not len(which):
        return np.empty((0, 4), np.float32)
    begin, end = legs.begin[which], legs.end[which]
    a, b, now = faces.box[begin], faces.box[end], between(faces, legs, which, rank)
    away = np.minimum(np.abs(times[faces.rank[begin]] - times[rank]), np.abs(times[faces.rank[end]] - times[rank]))
    margin = _HEAD + np.minimum(_DRIFT_PER_SECOND * away, _DRIFT_AT_MOST)[:, None].astype(np.float32)
    size = np.maximum(a[:, 2:], b[:, 2:]).max(1)
    moved = np.linalg.norm((a[:, :2] + a[:, 2:] / 2) - (b[:, :2] + b[:, 2:] / 2), axis=1) / size
    fast, far = moved > _FAST, moved > _FAR
    low = np.minimum(a[:, :2], b[:, :2])
    hull = np.concatenate([low, np.maximum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:]) - low], axis=1)
    box = np.concatenate([np.where((fast & ~far)[:, None], hull, now), a[far], b[far]])
    margin = np.concatenate([margin, margin[far], margin[far]])
    low = box[:, :2] - margin[:, :2] * box[:, 2:]
    high = box[:, :2] + box[:, 2:] * (1 + margin[:, 2:])
    return np.asarray(np.concatenate([low, high - low], axis=1), np.float32)


def blur(frame_rgb: npt.NDArray[np.uint8], boxes: Boxes) -> None:
    """Blur these boxes of a frame, uint8 (height, width, 3), in place."""
    height, width = frame_rgb.shape[:2]
    for box in boxes:
        low = np.floor(box[:2]).astype(int)
        high = np.ceil(box[:2] + box[2:]).astype(int)
        left, top = np.maximum(low, 0)
        right, bottom = np.minimum(high, (width, height))
        if right <= left or bottom <= top:
            continue
        part, size = frame_rgb[top:bottom, left:right], high - low
        whole = _superellipse(int(size[0]), int(size[1]))
        inside = whole[top - low[1] : bottom - low[1], left - low[0] : right - low[0]]
        means = coarse(part, max(2.0, float(min(size)) / _CELLS))
        part[:] = cv2.copyTo(means, np.ascontiguousarray(inside), part.copy())


def coarse(picture: npt.NDArray[np.uint8], cell: float) -> npt.NDArray[np.uint8]:
    """Return the picture by mean colours of cells of about `cell` pixels, smoothed; nothing finer is left in it."""
    height, width = picture.shape[:2]
    cells = (max(1, round(width / cell)), max(1, round(height / cell)))
    means = cv2.resize(picture, cells, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(means, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


@lru_cache(64)
def _superellipse(width: int, height: int) -> npt.NDArray[np.uint8]:
    """Return uint8 (height, width): 255 inside, 0 outside."""
    x, y = (np.abs(np.linspace(-1, 1, max(n, 2), dtype=np.float32))[:n] ** _ROUND for n in (width, height))
    return np.where(y[:, None] + x[None, :] <= 1.0, np.uint8(255), np.uint8(0))

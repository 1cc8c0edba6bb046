"""Tracklets: the faces of one chunk that are one face, frame after frame, linked by position and surroundings.

No network looks at them; that is what they save.

Faces of neighbouring sampled frames are linked if their boxes overlap and the picture around them stays. Measured on
clips of the data folder (pairs of overlapping faces k frames apart, detector `mtcnn`):

| k  | likeness, one person: 5% / median | across a cut: most | frames' difference: most | at a cut: least |
|----|-----------------------------------|--------------------|--------------------------|-----------------|
| 1  | 0.84 to 0.97 / 0.98 to 1.00       | 0.64               | 2                        | 18              |
| 5  | 0.65 to 0.90 / 0.91 to 0.99       | 0.72               | 5                        | 22              |
| 15 | 0.37 to 0.83 / 0.74 to 0.99       | 0.71               | 9                        | 21              |
| 30 | 0.34 to 0.82 / 0.58 to 0.97       | 0.81               | 14                       | 21              |

Both tests must pass. A missed link costs a few more faces; a wrong link gives a face another person's result.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.faces.models.base import Frames
from pipeline.faces.people.geometry import frontality
from pipeline.media.boxes import assigned, corners_of, overlap

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

LEAST_OVERLAP = 0.3
"""Intersection over union of two boxes: the usual choice of trackers (SORT, Bewley et al. 2016, iou_min)."""
LEAST_LIKENESS = 0.75
"""Correlation of the surroundings of two faces; see the table above."""
CUT_DIFFERENCE = 15.0
"""Mean difference of two frames, in grey levels of 255, beyond which they are two shots; see the table above."""
LONGEST_STEP_SECONDS = 2.0
"""Seconds between frames beyond which they say nothing about one another."""

_SURROUNDINGS = 2.0
"""Side of the square for likeness, in sides of the box: it shows hair, shoulders, and background."""
_LOOK_SIDE = 16
_SHARP_SIDE = 48
_THUMBNAIL_SIDE = 32


def link(frame: Int64, box: Float32, look: Float32, time_seconds: Float64, cut: npt.NDArray[np.bool_]) -> Int64:
    """Return int64 (n,): number of each face's tracklet, from 0 in order of first appearance.

    `frame` int64 (n,), ascending: index of each face's frame among neighbouring sampled ones. `box` float32 (n, 4);
    `look` float32 (n, k) of `looks`. `time_seconds` float64 (frames,); `cut` bool (frames,) of `cuts`. Faces of two
    neighbouring frames are assigned to each other so that the sum of overlap and likeness is largest.
    """
    tracklet = np.full(len(frame), -1, np.int64)
    starts = np.searchsorted(frame, np.arange(len(time_seconds) + 1))
    count = 0
    for number in range(len(time_seconds)):
        here = slice(starts[number], starts[number + 1])
        if number and not cut[number] and time_seconds[number] - time_seconds[number - 1] <= LONGEST_STEP_SECONDS:
            before = slice(starts[number - 1], starts[number])

            def cost(old: Int64, new: Int64, before: slice = before, here: slice = here) -> Float64:
                shared = overlap(box[before][old], box[here][new])
                alike = look[before][old] @ look[here][new].T
                return np.where((shared >= LEAST_OVERLAP) & (alike >= LEAST_LIKENESS), -shared - alike, 0)

            old, new = assigned(corners_of(box[before]), corners_of(box[here]), cost, rejected=0)
            tracklet[here][new] = tracklet[before][old]
        fresh = np.flatnonzero(tracklet[here] < 0) + starts[number]
        tracklet[fresh] = count + np.arange(len(fresh))
        count += len(fresh)
    return tracklet


def looks(frames_rgb: Frames, frame: Int64, box: Float32) -> Float32:
    """Return float32 (n, 256): each face and its surroundings, small and grey, of mean 0 and length 1.

    The product of two is their correlation. If no part of a face is in its frame its row is 0, and so like no other.
    """
    found = np.zeros((len(frame), _LOOK_SIDE**2), np.float32)
    for row, (number, one) in enumerate(zip(frame, box, strict=True)):
        crop = _grey_crop(np.asarray(frames_rgb[int(number)]), one, _SURROUNDINGS, _LOOK_SIDE)
        if crop is not None:
            found[row] = crop.ravel()
    found -= found.mean(axis=1, keepdims=True)
    length = np.linalg.norm(found, axis=1, keepdims=True)
    return np.asarray(np.divide(found, length, out=np.zeros_like(found), where=length > 0))


def cuts(frames_rgb: Frames) -> npt.NDArray[np.bool_]:
    """Return bool (frames,): true if a new shot starts with a frame; false for the first.

    Samples of pixels are enough: within a shot even a walk through the picture changes most of them little.
    """
    found = np.zeros(len(frames_rgb), bool)
    before = None
    for number in range(len(frames_rgb)):
        frame_rgb = np.asarray(frames_rgb[number])
        rows, columns = (max(1, size // _THUMBNAIL_SIDE) for size in frame_rgb.shape[:2])
        small = frame_rgb[::rows, ::columns].astype(np.float32)  # 32 to 63 samples a side, in colour
        if before is not None:
            found[number] = small.shape != before.shape or bool(np.abs(small - before).mean() > CUT_DIFFERENCE)
        before = small
    return found


def quality(frames_rgb: Frames, frame: Int64, box: Float32, landmarks: Float32, confidence: Float32) -> Float64:
    """Return float64 (n,), above 0: how well a network will see each face, comparable within a tracklet.

    It is the product of the detector's confidence, the side of the box, and how frontal and how sharp the face is.
    """
    import cv2

    side = np.sqrt(np.clip(box[:, 2:].astype(np.float64), 0, None).prod(axis=1))
    sharp = np.ones(len(box))  # 1 plus the deviation of the Laplacian at one size for all faces, in grey levels
    for row, (number, one) in enumerate(zip(frame, box, strict=True)):
        crop = _grey_crop(np.asarray(frames_rgb[int(number)]), one, 1.0, _SHARP_SIDE)
        if crop is not None:
            sharp[row] += float(cv2.Laplacian(crop, cv2.CV_32F).std())
    value = np.clip(confidence, 0.01, None) * side * frontality(landmarks) * sharp
    return np.asarray(np.maximum(value, 1e-9), np.float64)


def choose(rows: Int64, quality: Float64, best: int) -> Int64:
    """Return the `best` rows of a tracklet, or all if it has no more.

    The tracklet is cut into `best` parts of equal length, and each gives its row of highest quality. So they are spread
    over its time. `quality` float64: of all faces, by row.
    """
    parts: Sequence[Int64] = np.array_split(rows, min(best, len(rows)))
    return np.array([part[quality[part].argmax()] for part in parts], np.int64)


def _grey_crop(frame_rgb: npt.NDArray[np.uint8], box: Float32, factor: float, side: int) -> Float32 | None:
    """Return float32 (side, side): the square around the middle of a box, `factor` times its longer side.

    It is cut at the frame's edge; None if less than two pixels are left.
    """
    import cv2

    half = float(max(box[2], box[3])) * factor / 2
    middle = (float(box[0] + box[2] / 2), float(box[1] + box[3] / 2))
    left, top = (max(0, round(at - half)) for at in middle)
    right = min(frame_rgb.shape[1], round(middle[0] + half))
    bottom = min(frame_rgb.shape[0], round(middle[1] + half))
    if right - left < 2 or bottom - top < 2:
        return None
    small = cv2.resize(frame_rgb[top:bottom, left:right], (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.float32)

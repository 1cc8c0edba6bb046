"""`align: deepface` around any detector: the boxes and eyes by which DeepFace cuts its crops.

The code follows DeepFace 0.0.103 (modules/detection.py: detect_faces, extract_face, extract_faces) step by step. Boxes
are those of the cut, not the ones that extract_faces reports after a last clip to the frame.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pipeline.faces.models.base import Faces, Frames
from pipeline.faces.models.crops import LEFT_EYE, RIGHT_EYE, cut, in_eight_bits
from pipeline.faces.models.detectors import DetectorOptions
from pipeline.faces.models.detectors.base import Frame, PadsItself, ZooDetector, border, checked, joined, ordered, taken
from pipeline.faces.models.detectors.cascades import EyeFinder

GROUP_BYTES = 96 << 20
"""Most bytes of padded pictures that are in memory together: three of 1080p."""
SURELY_LEFT = 3
"""Side of a box in pixels. From this size on no rounding of the turned box makes an empty crop."""

Boxes = npt.NDArray[np.int64]


class DeepFaceAreas:
    """Finds the faces that DeepFace finds with one detector, each with its rank in DeepFace's list. Thread-safe.

    Boxes are in whole pixels of the frame and may reach beyond it. `landmarks` hold the eyes by which DeepFace turns
    the face; NaN: it is not turned. They hold nose and mouth corners if its client gives them.
    """

    def __init__(self, detector: ZooDetector | None, options: DetectorOptions, search_eyes: bool) -> None:
        """Wrap a detector; None: DeepFace's `skip`. `search_eyes`: search for eyes that the detector does not give."""
        self._detector = detector
        self._options = options
        self._search_eyes = search_eyes
        self._eye_finder: EyeFinder | None = None
        self._lock = threading.Lock()

    def detect(self, frames_rgb: Frames) -> Faces:
        """Return the faces of all frames. Raises ValueError for anything but (height, width, 3) frames.

        Detectors see 8 bits of frames of another type than uint8. OpenCV's cascade, which refuses any other type, then
        finds nothing, because DeepFace's client takes that for a picture without faces.
        """
        parts, start = [], 0
        for group in self._groups(frames_rgb):
            areas = self._areas(group)
            for index, frame in enumerate(group):
                part = self._of_frame(frame, taken(areas, areas.frame == index))
                parts.append(replace(part, frame=np.full(len(part.box), start + index, np.int64)))
            start += len(group)
        ranks = [part.rank for part in parts if part.rank is not None]
        rank = np.concatenate([np.empty(0, np.int32), *ranks]).astype(np.int32)
        return ordered(replace(joined(parts), rank=rank))

    def _groups(self, frames_rgb: Frames) -> Iterator[list[Frame]]:
        """Yield runs of frames whose pictures are in memory together."""
        group: list[Frame] = []
        taken_bytes = 0
        # A detector that pads by itself makes no picture, only one copy of each frame.
        growth = 4 if self._options.rotate and not isinstance(self._detector, PadsItself) else 1
        for given in frames_rgb:
            frame = checked(in_eight_bits(np.asarray(given)))
            if not self._search_eyes and np.asarray(given).dtype != np.uint8:  # the cascade
                frame = np.zeros_like(frame)
            if group and taken_bytes + growth * frame.nbytes > GROUP_BYTES:
                yield group
                group, taken_bytes = [], 0
            group.append(frame)
            taken_bytes += growth * frame.nbytes
        if group:
            yield group

    def _areas(self, frames: Sequence[Frame]) -> Faces:
        """Return the areas of these frames by DeepFace's client, padded or not, as DeepFace passes them to it."""
        if self._detector is None:
            return joined([])
        if not self._options.rotate:
            return self._detector.areas(frames)
        if isinstance(self._detector, PadsItself):
            return self._detector.padded_areas(frames)
        import cv2

        borders = [border(frame) for frame in frames]
        return self._detector.areas([
            np.asarray(cv2.copyMakeBorder(frame, above, above, aside, aside, cv2.BORDER_CONSTANT))
            for frame, (above, aside) in zip(frames, borders, strict=True)
        ])  # fmt: skip

    def _of_frame(self, frame: Frame, areas: Faces) -> Faces:
        """Return DeepFace's list for one frame, from its client's areas."""
        if not len(areas.box):
            if self._options.whole_frame or self._detector is None:  # the whole frame as one face of confidence 0
                box = np.array([[0, 0, frame.shape[1], frame.shape[0]]], np.float32)
                nowhere = np.full((1, 5, 2), np.nan, np.float32)
                areas = Faces(np.zeros(1, np.int64), box, nowhere, np.zeros(1, np.float32))
            return _listed(areas)
        most = self._options.max_faces
        if most is not None and most < len(areas.box):  # the largest first, as heapq.nlargest
            sides = areas.box[:, 2:].astype(np.int64)
            areas = taken(areas, np.argsort(-sides[:, 0] * sides[:, 1], kind="stable")[:most])
        above, aside = border(frame) if self._options.rotate else (0, 0)
        size = frame.shape[0] + 2 * above, frame.shape[1] + 2 * aside
        boxes = clipped(expanded(areas.box.astype(np.int64), self._options.expand_percentage, size), size)
        boxes[:, :2] -= aside, above
        landmarks = areas.landmarks - np.array([aside, above], np.float32)
        if self._search_eyes:
            for box, points in zip(boxes, landmarks, strict=True):
                self._fill_eyes(frame, box, points)
        found = Faces(areas.frame, boxes.astype(np.float32), landmarks, areas.confidence)
        # DeepFace drops boxes whose crop holds no pixel.
        kept = [
            min(box[2:]) >= SURELY_LEFT or (min(box[2:]) > 0 and cut(frame, box, points, self._options.rotate).size > 0)
            for box, points in zip(found.box, found.landmarks, strict=True)
        ]
        return _listed(taken(found, np.flatnonzero(kept)))

    def _fill_eyes(self, frame: Frame, box: npt.NDArray[np.int64], landmarks: npt.NDArray[np.float32]) -> None:
        """Replace eyes that are NaN by those that OpenCV's cascade finds in a box."""
        missing = [eye for eye in (RIGHT_EYE, LEFT_EYE) if np.isnan(landmarks[eye]).any()]
        if not missing:
            return
        with self._lock:
            if self._eye_finder is None:
                self._eye_finder = EyeFinder()
        unturned = np.full_like(landmarks, np.nan)
        eyes = self._eye_finder.find(cut(frame, box.astype(np.float32), unturned, self._options.rotate))
        if eyes is not None:
            for eye in missing:
                landmarks[eye] = box[:2] + eyes[eye]


def expanded(boxes: Boxes, percentage: int, size: tuple[int, int]) -> Boxes:
    """Return boxes, int64 (n, 4) x, y, w, h, grown about their middle, in whole pixels.

    They stay within a picture of `size` (height, width).
    """
    if percentage <= 0:
        return boxes
    x, y, w, h = boxes.T
    # DeepFace's int() cuts towards zero, as trunc does; its quotients are doubles, as these are.
    wide, high = w + np.trunc(w * percentage / 100), h + np.trunc(h * percentage / 100)
    x, y = np.maximum(0, x - np.trunc((wide - w) / 2)), np.maximum(0, y - np.trunc((high - h) / 2))
    grown = np.stack([x, y, np.minimum(size[1] - x, wide), np.minimum(size[0] - y, high)], axis=1)
    return np.asarray(grown, np.int64)


def clipped(boxes: Boxes, size: tuple[int, int]) -> Boxes:
    """Return boxes, int64 (n, 4) x, y, w, h, cut to a picture of `size` (height, width); sides are 0 or more."""
    x, y, w, h = boxes.T
    left, top = np.maximum(0, x), np.maximum(0, y)
    right, bottom = np.minimum(size[1], x + w), np.minimum(size[0], y + h)
    return np.stack([left, top, np.maximum(0, right - left), np.maximum(0, bottom - top)], axis=1)


def _listed(faces: Faces) -> Faces:
    return replace(faces, rank=np.arange(len(faces.box), dtype=np.int32))

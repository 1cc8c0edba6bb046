"""The detector `retinaface`: the network of the `retina-face` package, for many frames at once, by ONNX Runtime.

Sizes, anchors, decoding and suppression are those of that package (0.0.19: RetinaFace.py, commons/), which a test
compares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.faces.models.base import Faces, Frames
from pipeline.faces.models.detectors.base import ordered
from pipeline.faces.models.detectors.boxes import by_score
from pipeline.faces.models.detectors.published_graph import PICTURE, rewritten
from pipeline.faces.models.detectors.whole_frame import (
    Float32,
    Frame,
    View,
    WholeFrameDetector,
    chosen_by_frame,
    join_faces,
    view_of,
)  # fmt: skip
from pipeline.machine.device import Device

Float64 = npt.NDArray[np.float64]

NAME = "retinaface"
THRESHOLD = 0.9
"""Least score: the default of the package and of DeepFace's client."""
OVERLAP = 0.4
STRIDES = (32, 16, 8)
"""Pixels from one cell to the next, in the order of the network's outputs. For each stride they are scores (n, rows,
columns, 4), boxes (..., 8) and points (..., 20) of the two anchors. The last two scores are those of a face."""
ANCHORS = (
    ((-248, -248, 263, 263), (-120, -120, 135, 135)),
    ((-56, -56, 71, 71), (-24, -24, 39, 39)),
    ((-8, -8, 23, 23), (0, 0, 15, 15)),
)
"""Corners x1, y1, x2, y2 of the two anchors of the cell at 0, 0, for each stride."""
CLIENT_SIDES = (1024, 1980)
"""Pixels. The package scales the shorter side of a picture to the first, unless the longer would exceed the second."""
SMALLEST = 16
"""Smallest face to look for, in pixels: the smallest anchor. Chosen, not measured: the weights were not available."""
MULTIPLE = 32
"""Pixels: `detect` pads frames to multiples of the largest stride, so that the levels of the network's pyramid fit."""
BYTES_PER_PIXEL = 256
"""Memory per pixel of a picture in bytes, for the picture as floats and ResNet-50's widest layers. Those are 256
float32 for each 16 pixels, or 64 for each four. Three live at once: a block's input, its output, the shortcut."""


class RetinaFaceDetector(WholeFrameDetector):
    """RetinaFace; see WholeFrameDetector."""

    name, smallest, bytes_per_pixel = NAME, SMALLEST, BYTES_PER_PIXEL

    def __init__(self, device: Device, min_face: float = 20, threshold: float | None = None) -> None:
        super().__init__(device, min_face, threshold)
        self._outputs = [output.name for output in self._session.get_outputs()]

    def _graph(self, files: Sequence[Path]) -> bytes:
        """Return the graph; it is not cached, because it is as large as the weights, and quickly made."""
        return rewritten(files[0], 3 * len(STRIDES), transpose=False)

    def detect(self, frames_rgb: Frames) -> Faces:
        """Return the faces of all frames, in pixels of the frame; boxes are cut at its edge, landmarks are not.

        Raises ValueError for anything but uint8 (height, width, 3) frames.
        """
        view = partial(view_of, scale=self._scale, multiple=MULTIPLE)
        return ordered(_sized(self._find(frames_rgb, view, self._look)))

    def _client(self, frames_rgb: Frames, padded: bool) -> Faces:
        """Return the faces of DeepFace's client, whose view depends on neither `min_face` nor the frame's size."""
        found = self._find(frames_rgb, client_view, self._look, padded)
        return _sized(Faces(found.frame, np.trunc(found.box), np.trunc(found.landmarks), found.confidence))

    def _look(self, batch: Frame, view: View) -> Faces:
        """Return faces whose boxes are corners x1, y1, x2, y2."""
        return decoded(self._session.run(self._outputs, {PICTURE: batch}), view, self._threshold or THRESHOLD)


def client_view(shape: tuple[int, ...]) -> View:
    """Return the view that the package shows its network of frames (height, width, 3)."""
    shorter, longer = sorted(shape[:2])
    factor = CLIENT_SIDES[0] / float(shorter)
    if round(factor * longer) > CLIENT_SIDES[1]:
        factor = CLIENT_SIDES[1] / float(longer)
    return replace(view_of(shape, factor, 1), scale=(factor, factor), factor=factor)


def decoded(outputs: Sequence[Float32], view: View, limit: float) -> Faces:
    """Return the faces of a batch in pixels of the frame, by frame, then by score; boxes are corners x1, y1, x2, y2.

    `outputs` are the network's. Rounding between float32 and float64 follows the package.
    """
    found = join_faces([_candidates(outputs, level, view, limit) for level in range(len(STRIDES))])

    def choose(some: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        # Sorted twice, as in the package: that decides which of equal scores comes first.
        some = some[np.argsort(found.confidence[some])[::-1]]
        return some[by_score(found.box[some], found.confidence[some], OVERLAP)]

    return chosen_by_frame(found, choose)


def _candidates(outputs: Sequence[Float32], level: int, view: View, limit: float) -> Faces:
    """Return the anchors of one stride whose score reaches `limit`, moved to the network's face."""
    scores, boxes, points = outputs[3 * level : 3 * level + 3]
    frame, row, column, anchor = np.nonzero(scores[..., 2:] >= np.float32(limit))
    by_anchor = (*boxes.shape[:3], 2, -1)
    shift = boxes.reshape(by_anchor)[frame, row, column, anchor]
    points = points.reshape(by_anchor)[frame, row, column, anchor].reshape(-1, 5, 2)

    at = np.stack([column, row], axis=1) * STRIDES[level]
    corners = np.tile(at, 2) + np.array(ANCHORS[level], np.float64)[anchor]
    size = corners[:, 2:] - corners[:, :2] + 1
    centre = corners[:, :2] + 0.5 * (size - 1)
    landmarks = (points * size[:, None] + centre[:, None]).astype(np.float32)
    landmarks = np.divide(landmarks, np.array(view.scale, np.float32))
    # Move the boxes off their anchors and cut them at the frame's edge, in its pixels.
    middle = shift[:, :2] * size + centre
    with np.errstate(over="ignore"):
        half = 0.5 * (np.exp(shift[:, 2:]) * size - 1)
    corners = np.concatenate([middle - half, middle + half], axis=1)
    last = np.array([view.width, view.height] * 2) - 1
    moved: Float64 = np.clip(corners, 0, last) / np.array(view.scale * 2)
    return Faces(frame, moved.astype(np.float32), landmarks, scores[frame, row, column, 2 + anchor])


def _sized(faces: Faces) -> Faces:
    """Turn corners into x, y, w, h."""
    box = np.concatenate([faces.box[:, :2], faces.box[:, 2:] - faces.box[:, :2]], axis=1)
    return Faces(faces.frame, box, faces.landmarks, faces.confidence)

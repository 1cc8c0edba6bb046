"""The detector `retinaface`: the network of the `retina-face` package, of many frames at once, by ONNX Runtime.

Sizes, anchors, decoding and suppression are those of that package (0.0.19: RetinaFace.py, commons/), which a test
compares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.faces.models.base import Faces, Frames
from pipeline.faces.models.detectors.base import ordered
from pipeline.faces.models.detectors.published_graph import PICTURE, read_graph, take_uint8
from pipeline.faces.models.detectors.suppression import by_score
from pipeline.faces.models.detectors.whole_frame import (
    Float32,
    Frame,
    View,
    WholeFrameDetector,
    chosen_by_frame,
    join_faces,
    view_of,
)
from pipeline.machine.device import Device

Float64 = npt.NDArray[np.float64]

NAME = "retinaface"
THRESHOLD = 0.9
"""Least score: the package's default, and what DeepFace's client asks for."""
OVERLAP = 0.4
STRIDES = (32, 16, 8)
"""Pixels from one cell to the next, in the order of the network's outputs: for each stride scores (n, rows, columns,
4), the last two being those of a face, boxes (..., 8) and points (..., 20) of the two anchors."""
ANCHORS = (
    ((-248, -248, 263, 263), (-120, -120, 135, 135)),
    ((-56, -56, 71, 71), (-24, -24, 39, 39)),
    ((-8, -8, 23, 23), (0, 0, 15, 15)),
)
"""Corners x1, y1, x2, y2 of the two anchors of the cell at 0, 0, for each stride."""
CLIENT_SIDES = (1024, 1980)
"""The package makes the shorter side of a picture the first, unless the longer one would exceed the second."""
SMALLEST = 16
"""Pixels of the smallest face looked for: the smallest anchor. Chosen, not measured: the weights were not at hand."""
MULTIPLE = 32
"""`detect` pads frames to multiples of the largest stride, so that the levels of the network's pyramid fit."""
BYTES_PER_PIXEL = 256
"""Memory per pixel of a picture: ResNet-50's widest layers are 256 float32 for each 16 pixels, of which three live at
once (a block's input, its output, the shortcut), or 64 for each four; and the picture as floats."""


class RetinaFaceDetector(WholeFrameDetector):
    """RetinaFace; see WholeFrameDetector."""

    name, smallest, bytes_per_pixel = NAME, SMALLEST, BYTES_PER_PIXEL

    def __init__(self, device: Device, min_face: float = 20, threshold: float | None = None) -> None:
        super().__init__(device, min_face, threshold)
        self._outputs = [output.name for output in self._session.get_outputs()]

    def _graph(self, files: Sequence[Path]) -> bytes:
        """Not kept in the cache: the graph is as large as the weights, and quickly made."""
        return build_graph(files[0])

    def detect(self, frames_rgb: Frames) -> Faces:
        """Faces of all frames, in pixels of the frame; boxes are cut at its edge, landmarks are not.

        Raises ValueError for anything but uint8 (height, width, 3) frames.
        """

        def view(shape: tuple[int, ...]) -> View:
            return view_of(shape, self._scale, MULTIPLE)

        return ordered(_sized(self._find(frames_rgb, view, self._look)))

    def _client(self, frames_rgb: Frames, padded: bool) -> Faces:
        """Neither `min_face` nor the frame's size changes what the network is shown here."""
        found = self._find(frames_rgb, client_view, self._look, padded)
        return _sized(Faces(found.frame, np.trunc(found.box), np.trunc(found.landmarks), found.confidence))

    def _look(self, batch: Frame, view: View) -> Faces:
        """Faces whose boxes are corners x1, y1, x2, y2."""
        return decoded(self._session.run(self._outputs, {PICTURE: batch}), view, self._threshold or THRESHOLD)


def build_graph(path: Path) -> bytes:
    """The published network, from uint8 RGB pictures of any size to nine outputs (STRIDES), as they were.

    Raises ModelError where the file is no such graph.
    """
    model = read_graph(path, 3 * len(STRIDES))
    take_uint8(model, transpose=False)
    content: bytes = model.SerializeToString()
    return content


def client_view(shape: tuple[int, ...]) -> View:
    """What the package shows the network of frames (height, width, 3)."""
    shorter, longer = sorted(shape[:2])
    factor = CLIENT_SIDES[0] / float(shorter)
    if round(factor * longer) > CLIENT_SIDES[1]:
        factor = CLIENT_SIDES[1] / float(longer)
    return replace(view_of(shape, factor, 1), scale=(factor, factor), factor=factor)


def decoded(outputs: Sequence[Float32], view: View, limit: float) -> Faces:
    """Faces of a batch in pixels of the frame, by frame, then by score; boxes are corners x1, y1, x2, y2.

    Takes what the network gives. Rounded between float32 and float64 where the package does.
    """
    found = join_faces([_candidates(outputs, level, view, limit) for level in range(len(STRIDES))])

    def choose(some: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        # Sorted twice, as in the package: that settles which of equal scores comes first.
        some = some[np.argsort(found.confidence[some])[::-1]]
        return some[by_score(found.box[some], found.confidence[some], OVERLAP)]

    return chosen_by_frame(found, choose)


def _candidates(outputs: Sequence[Float32], level: int, view: View, limit: float) -> Faces:
    """Anchors of one stride whose score reaches `limit`, moved to where the network sees a face."""
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
    return Faces(
        frame,
        _moved(centre, size, shift, view),
        np.divide(landmarks, np.array(view.scale, np.float32)),
        scores[frame, row, column, 2 + anchor],
    )


def _moved(centre: Float64, size: Float64, shift: Float32, view: View) -> Float32:
    """float32 (n, 4): corners of the boxes moved off their anchors, cut at the frame's edge, in its pixels."""
    middle = shift[:, :2] * size + centre
    with np.errstate(over="ignore"):
        half = 0.5 * (np.exp(shift[:, 2:]) * size - 1)
    corners = np.concatenate([middle - half, middle + half], axis=1)
    last = np.array([view.width, view.height] * 2) - 1
    moved: Float64 = np.clip(corners, 0, last) / np.array(view.scale * 2)
    return moved.astype(np.float32)


def _sized(faces: Faces) -> Faces:
    """Corners to x, y, w, h."""
    box = np.concatenate([faces.box[:, :2], faces.box[:, 2:] - faces.box[:, :2]], axis=1)
    return Faces(faces.frame, box, faces.landmarks, faces.confidence)

"""The detector `centerface`: CenterFace, of many frames at once, by ONNX Runtime.

Decoding and suppression are those of DeepFace's client (models/face_detection/CenterFace.py), which a test compares.
DeepFace's client reads the network again for every picture, because OpenCV's answers go wrong from the second one on.
ONNX Runtime's do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

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
    client_threshold,
    sized_view,
    view_of,
)  # fmt: skip
from pipeline.models.weights import cached_graph

NAME = "centerface"
GRAPH_VERSION = 1
OUTPUTS = ("537", "538", "539", "540")
"""Outputs of the published graph: heat map (n, 1, rows, columns), scale (n, 2, ...) and offset (n, 2, ...), both as y,
x. The last is the points (n, 10, ...), as y, x of each."""
MULTIPLE = 32
"""Largest stride of the network; the sides of its input are multiples of it."""
STRIDE = 4
"""Pixels from one cell of the output to the next."""
OVERLAP = 0.3
CLIENT_THRESHOLD = ("CENTERFACE_THRESHOLD", 0.35)
"""Environment variable that DeepFace's client reads, and its default; `detect` has the same default."""
SMALLEST = 16
"""Smallest face to look for, in pixels: four cells a side. Chosen, not measured: the weights were not available."""
BYTES_PER_PIXEL = 256
"""Memory per pixel of a picture in bytes. MobileNetV2's widest layers are 96 float32 for each four pixels, before and
after their activation."""


class CenterFaceDetector(WholeFrameDetector):
    """CenterFace; see WholeFrameDetector."""

    name, smallest, bytes_per_pixel = NAME, SMALLEST, BYTES_PER_PIXEL

    def _graph(self, files: Sequence[Path]) -> bytes:
        # The published graph states ten pictures of 32 × 32. Its outputs do not change.
        build = partial(rewritten, files[0], set(OUTPUTS), transpose=True)
        return cached_graph(NAME, GRAPH_VERSION, files, build)

    def detect(self, frames_rgb: Frames) -> Faces:
        """Return the faces of all frames, in pixels of the frame; boxes are cut at the edge of the network's view.

        Raises ValueError for anything but uint8 (height, width, 3) frames.
        """
        limit = CLIENT_THRESHOLD[1] if self._threshold is None else self._threshold
        view = partial(view_of, scale=self._scale, multiple=MULTIPLE)
        return ordered(self._find(frames_rgb, view, partial(self._look, limit=limit)))

    def _client(self, frames_rgb: Frames, padded: bool) -> Faces:
        limit = client_threshold(*CLIENT_THRESHOLD) if self._threshold is None else self._threshold

        def view(shape: tuple[int, ...]) -> View:  # each side stretched to the next multiple
            height, width = (-(-side // MULTIPLE) * MULTIPLE for side in shape[:2])
            return sized_view(shape, (width, height), MULTIPLE)

        found = self._find(frames_rgb, view, partial(self._look, limit=limit), padded)
        landmarks = np.full(found.landmarks.shape, np.nan, np.float32)
        landmarks[:, :2] = np.trunc(found.landmarks[:, :2])
        return Faces(found.frame, np.trunc(found.box), landmarks, np.clip(found.confidence, 0, 1))

    def _look(self, batch: Frame, view: View, limit: float) -> Faces:
        heatmap, scale, offset, points = self._session.run(OUTPUTS, {PICTURE: batch})
        return decoded(heatmap, scale, offset, points, view, limit)


def decoded(heatmap: Float32, scale: Float32, offset: Float32, points: Float32, view: View, limit: float) -> Faces:
    """Return the faces of a batch in pixels of the frame, by frame, then by score, from the network's outputs.

    Rounding between float32 and float64 follows the client.
    """
    frame, row, column = np.nonzero(heatmap[:, 0] > np.float32(limit))
    score = heatmap[frame, 0, row, column]
    with np.errstate(over="ignore"):
        size = np.exp(scale[frame, ::-1, row, column]) * STRIDE  # float32 (n, 2): width, height
    centre = (np.stack([column, row], axis=1) + offset[frame, ::-1, row, column] + 0.5) * STRIDE
    edge = np.array([view.picture_width, view.picture_height])
    start = np.clip(centre - size / 2, 0, edge)
    corners = np.concatenate([start, np.minimum(start + size, edge)], axis=1).astype(np.float32)
    shares = points[frame, :, row, column].reshape(-1, 5, 2)[:, :, ::-1]
    landmarks = (shares * size[:, None] + start[:, None]).astype(np.float32)
    found = Faces(frame, corners, landmarks, score)
    kept = chosen_by_frame(found, lambda some: some[by_score(corners[some], score[some], OVERLAP)])
    ratio: Float32 = np.array(view.scale, np.float32)
    corners = np.divide(kept.box, np.tile(ratio, 2))
    box = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    return Faces(kept.frame, box, np.divide(kept.landmarks, ratio), kept.confidence)

"""The detector `yunet`: OpenCV's YuNet of 2023, for many frames at once, by ONNX Runtime.

Decoding and suppression are those of OpenCV 4 (modules/objdetect/src/face_detect.cpp), which a test compares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.faces.models.base import Faces, Frames
from pipeline.faces.models.detectors.base import ordered, taken
from pipeline.faces.models.detectors.published_graph import PICTURE
from pipeline.faces.models.detectors.whole_frame import (
    Float32,
    Frame,
    View,
    WholeFrameDetector,
    chosen_by_frame,
    client_threshold,
    find_by_size,
    join_faces,
    pictures,
    sized_view,
    view_of,
)  # fmt: skip
from pipeline.faces.models.detectors.yunet_graph import GRAPH_VERSION, STRIDES, build_graph
from pipeline.models.weights import cached_graph

NAME = "yunet"
MULTIPLE = 32
"""Largest stride of the network; the sides of its input are multiples of it."""
OVERLAP = 0.3
"""Default of cv2.FaceDetectorYN's nms_threshold."""
MOST_CANDIDATES = 5000
"""Default of cv2.FaceDetectorYN's top_k."""
THRESHOLD = 0.75
"""Default of the least score for `detect`. In 108 frames of clips with one face each and 45 with none, it missed no
face and found nothing else. 0.7 finds a printed skull, and a shoe in a photograph. DeepFace's 0.9 would lose one of
eight faces of 32 pixels, and most from 512 on. It was chosen on those very frames and photographs: none were held
back."""
SMALLEST = 20
"""Pixels of the smallest face that the network finds reliably. Measured on 187 faces of photographs that YuNet finds
itself (score 0.8 at two of three sizes of the picture). So the shares are of what it can find, not of all faces. Each
was shown at several sizes (side: root of the box's area). Share that reaches THRESHOLD at 12 pixels: 0.22, 14: 0.39,
16: 0.67, 20: 0.96, 24: 0.98, 32: 0.99, 64: 1."""
COARSE = 4
"""Factor of a second, smaller view, for frames whose larger side is seen at more than LARGEST pixels: a sixteenth of
the work."""
LARGEST = 512
"""Pixels of the largest face that the network finds reliably. Share of the same faces that scores 0.8 at 192 to 512
pixels: 1, at 560: 0.96, 640: 0.41, 720: 0.02."""
LARGEST_BOX = 2**24
"""Largest side of a box in pixels; float32 counts whole pixels up to here."""
CLIENT_SIDE = 640
"""Longest side in pixels of the picture that DeepFace's client shows the network."""
CLIENT_THRESHOLD = ("yunet_score_threshold", 0.9)
"""Environment variable that DeepFace's client reads, and its default."""
BYTES_PER_PIXEL = 64
"""Memory per pixel of a picture in bytes: the picture as bytes, as floats, and the first convolutions (16 float32 for
each four pixels). Measured on a CPU: 40."""


class YunetDetector(WholeFrameDetector):
    """YuNet; see WholeFrameDetector."""

    name, smallest, bytes_per_pixel = NAME, SMALLEST, BYTES_PER_PIXEL

    def _graph(self, files: Sequence[Path]) -> bytes:
        return cached_graph(NAME, GRAPH_VERSION, files, partial(build_graph, files[0]))

    def detect(self, frames_rgb: Frames) -> Faces:
        """Return the faces of all frames, in pixels of the frame; boxes and landmarks may reach beyond it.

        Raises ValueError for anything but uint8 (height, width, 3) frames.
        """

        def most(shape: tuple[int, ...]) -> int:
            return self._at_once(view_of(shape, self._scale, MULTIPLE))

        return ordered(find_by_size(self._device, NAME, frames_rgb, most, self._look))

    def _look(self, frames: Sequence[Frame]) -> Faces:
        limit = THRESHOLD if self._threshold is None else self._threshold
        found = []
        for scale in _scales(frames[0].shape, self._scale):
            view = view_of(frames[0].shape, scale, MULTIPLE)
            seen = self._candidates(pictures(frames, view), limit)
            scale_xy = np.array(view.scale, np.float32)  # pixels of the view to pixels of the frame
            box, landmarks = np.divide(seen.box, np.tile(scale_xy, 2)), np.divide(seen.landmarks, scale_xy)
            found.append(Faces(seen.frame, box, landmarks, seen.confidence))
        # Boxes are compared in pixels of the finest view: OpenCV's rounding to whole pixels is too coarse for less.
        return suppressed(join_faces(found), limit, max(1.0, self._scale))

    def _candidates(self, batch: Frame, limit: float) -> Faces:
        """Return the cells whose score reaches `limit`, in pixels of the picture, not yet suppressed."""
        score, box, points = self._session.run(None, {PICTURE: batch})
        return decoded(score, box, points, batch.shape[1:3], limit)

    def _client(self, frames_rgb: Frames, padded: bool) -> Faces:
        limit = client_threshold(*CLIENT_THRESHOLD) if self._threshold is None else self._threshold
        factors: dict[View, float] = {}

        def view_for(shape: tuple[int, ...]) -> View:
            height, width = shape[:2]
            view, factor = view_of(shape, 1, MULTIPLE), 1.0
            if max(height, width) > CLIENT_SIDE:  # else the client does not resize the frame
                factor = float(CLIENT_SIDE) / max(height, width)
                view = sized_view(shape, (int(width * factor), int(height * factor)), MULTIPLE)
                view = replace(view, averaged=False)
            factors[view] = factor
            return view

        def look(batch: Frame, view: View) -> Faces:
            # As the client rounds: to whole pixels of the network's view, cut at 0, then to whole pixels of the frame.
            found = suppressed(self._candidates(batch, limit), limit)
            factor = factors[view]
            box: npt.NDArray[np.float64] = np.trunc(found.box.astype(np.float64))
            box[:, :2] = np.maximum(box[:, :2], 0)
            landmarks = np.full(found.landmarks.shape, np.nan)
            landmarks[:, :2] = np.trunc(found.landmarks[:, :2])
            if factor != 1:
                box, landmarks = np.trunc(box / factor), np.trunc(landmarks / factor)
            return Faces(found.frame, box.astype(np.float32), landmarks.astype(np.float32), found.confidence)

        return self._find(frames_rgb, view_for, look, padded)


def _scales(shape: tuple[int, ...], finest: float) -> list[float]:
    """Return the scales at which to look at frames of one size, finest first."""
    scales = [finest]
    while max(shape[:2]) * scales[-1] > LARGEST:
        scales.append(scales[-1] / COARSE)
    return scales


def decoded(score: Float32, box: Float32, points: Float32, size: tuple[int, int], limit: float) -> Faces:
    """Return the candidates of a batch of pictures (height, width), by frame, then in OpenCV's order of scanning.

    That order is stride, row, column. The arrays are the graph's outputs (yunet_graph.py). Arithmetic is float32, as
    OpenCV's.
    """
    frame, cell = np.nonzero(score >= np.float32(limit))
    column, row, stride = (values[cell] for values in _cells(size))
    x, y, width, height = box[frame, cell].T
    with np.errstate(over="ignore"):
        width, height = np.exp(width) * stride, np.exp(height) * stride
    left, top = (column + x) * stride - width / 2, (row + y) * stride - height / 2
    landmarks = points[frame, cell].reshape(-1, 5, 2) + np.stack([column, row], axis=1)[:, None]
    landmarks *= stride[:, None, None]
    found = Faces(frame, np.stack([left, top, width, height], axis=1), landmarks, score[frame, cell])
    # The network may give huge boxes on noise; OpenCV's whole pixels cannot hold them either.
    return taken(found, np.flatnonzero(np.maximum(width, height) < LARGEST_BOX))


def _cells(size: tuple[int, int]) -> tuple[Float32, Float32, Float32]:
    """Return column, row and stride of every cell, float32 (cells,)."""
    parts = []
    for stride in STRIDES:
        row, column = np.indices((size[0] // stride, size[1] // stride), np.float32).reshape(2, -1)
        parts.append((column, row, np.full(len(row), stride, np.float32)))
    column, row, strides = (np.concatenate(values) for values in zip(*parts, strict=True))
    return column, row, strides


def suppressed(found: Faces, limit: float, scale: float = 1.0) -> Faces:
    """Return the faces of each frame that stay, by score (descending; the first of equals).

    Boxes are cut to whole pixels (of the frame times `scale`). A box is dropped if it overlaps one that stays by more
    than OVERLAP. A frame's only candidate stays untested, as in cv2.FaceDetectorYN.
    """

    import cv2

    whole = np.trunc(found.box * np.float32(scale))

    def choose(candidates: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        if len(candidates) == 1:
            return candidates
        boxes, scores = whole[candidates].tolist(), found.confidence[candidates].tolist()
        kept = cv2.dnn.NMSBoxes(boxes, scores, limit, OVERLAP, top_k=MOST_CANDIDATES)
        return candidates[np.asarray(kept, np.int64).reshape(-1)]

    return chosen_by_frame(found, choose)

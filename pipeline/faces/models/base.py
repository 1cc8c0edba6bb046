"""The interface of a model to a stage: plain arrays in, plain arrays out, many items per call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Frames = npt.NDArray[np.uint8] | Sequence[npt.NDArray[np.uint8]]
"""uint8 (n, height, width, 3) RGB, or a list of (height, width, 3) if sizes differ (folders of images)."""

Chips = npt.NDArray[np.uint8] | npt.NDArray[np.float32]
"""Faces cut out and turned for one network: uint8 (n, height, width, 3) RGB. With `align: deepface` they are float32
(n, height, width, 3) BGR from 0 to 1."""


@dataclass(frozen=True)
class Faces:
    """Faces of n_frames frames, in frame order; within a frame by confidence (descending), then x, then y."""

    frame: npt.NDArray[np.int64]
    """int64 (n,): index into the given frames, ascending."""
    box: npt.NDArray[np.float32]
    """float32 (n, 4): x, y, w, h in pixels of the frame, x right, y down; may reach beyond the frame."""
    landmarks: npt.NDArray[np.float32]
    """float32 (n, 5, 2): right eye, left eye, nose, right and left mouth corner, x, y in pixels. Right and left are
    the person's own, so the right eye is the leftmost in the picture. NaN if the detector gives none."""
    confidence: npt.NDArray[np.float32]
    """float32 (n,): score of the detector, 0 to 1."""
    rank: npt.NDArray[np.int32] | None = None
    """int32 (n,), with align deepface: the face's place in DeepFace's own list of its frame, from 0."""


class Detector(Protocol):
    """Finds faces in frames. Thread-safe."""

    def detect(self, frames_rgb: Frames) -> Faces: ...


class Embedder(Protocol):
    """Turns aligned chips into vectors. Thread-safe."""

    dimension: int

    def chips(self, frames_rgb: Frames, faces: Faces) -> Chips:
        """Return one chip per face, as `embed` takes them."""
        ...

    def embed(self, chips: Chips) -> npt.NDArray[np.float32]:
        """Return float32 (n, dimension), as the network gives it, without normalisation."""
        ...


class Attribute(Protocol):
    """Reads one attribute off chips of faces. Thread-safe."""

    def chips(self, frames_rgb: Frames, faces: Faces) -> Chips:
        """Return one chip per face, as `predict` takes them."""
        ...

    def predict(self, chips: Chips) -> npt.NDArray[np.float32]:
        """Return float32 (n,) for a number, (n, classes) for probabilities."""
        ...

"""The interface of a model to a stage: plain arrays in, plain arrays out, many items per call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Frames = npt.NDArray[np.uint8] | Sequence[npt.NDArray[np.uint8]]
"""uint8 (n, height, width, 3) RGB, or a list of (height, width, 3) if sizes differ (folders of images)."""

Chips = npt.NDArray[np.uint8] | npt.NDArray[np.float32]
"""Faces cut out and turned for one network: uint8 (n, height, width, 3) RGB. With `align: deepface` they are float32
(n, height, width, 3) BGR from 0 to 1."""


PRECISIONS = ("fp32", "fp16")


@dataclass(frozen=True)
class Device:
    """The device that a model runs on, and the share of the machine that it may take."""

    kind: str = "cpu"
    """"cpu", "cuda" or "tensorrt"."""
    index: int = 0
    """Ordinal among the visible CUDA devices."""
    threads: int = 1
    """Intra-op threads of one inference session on a CPU."""
    memory_bytes: int | None = None
    """Most memory that all sessions of this process may take together; None for no limit. On a GPU each session gets a
    part of it (session.py, MEMORY_SHARES); the CUDA context and the libraries' own workspaces come on top."""
    precision: str = "fp32"
    """"fp32", or "fp16": networks compute in half precision (session.half); arrays stay float32."""
    batch_memory_bytes: int = 512 << 20
    """Most memory that the activations of one batch should take; bounds sub-batches within a chunk."""

    @property
    def name(self) -> str:
        """Name that a store records: "cpu", "cuda", "cuda fp16"."""
        return self.kind if self.precision == "fp32" else f"{self.kind} {self.precision}"


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


@dataclass(frozen=True)
class ModelInfo:
    """Facts of a model that a run store records. Creating it reads no weights."""

    name: str
    licence: str
    runtime: str
    """For example "onnxruntime 1.23.0"."""
    hash_weights: Callable[[], str]
    """Reads the weights, once per process, and returns their sha256 (hex)."""
    licence_source: str = ""
    """Publisher who states `licence`, and what else the publisher says about use."""

    @property
    def weights_sha256(self) -> str:
        """Hash of the weights (hex). Raises ModelError if they are missing."""
        return self.hash_weights()

    def as_dict(self) -> dict[str, str]:
        return {
            "name": self.name,
            "weights_sha256": self.weights_sha256,
            "licence": self.licence,
            "licence_source": self.licence_source,
            "runtime": self.runtime,
        }


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

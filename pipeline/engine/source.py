"""The source interface: the number and the times of an input's items, and the decoding of a chunk of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict

MAX_CHUNK_FRAMES = 64
MAX_CHUNK_BYTES = 256 << 20
"""Most decoded frames in one chunk, in number and in bytes: the unit of memory, of retry and of commit."""


def most_chunk_frames(frame_bytes: int) -> int:
    """Return the number of frames of this size that a chunk may hold, 1 at least."""
    return max(1, min(MAX_CHUNK_FRAMES, MAX_CHUNK_BYTES // max(frame_bytes, 1)))


class SourceOptions(BaseModel):
    """The `source:` section of a workflow; each kind of source has its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Decoded:
    """Pixels of one chunk."""

    frames_rgb: np.ndarray
    """uint8 (n, height, width, 3): upright, RGB; zero if not decoded."""
    decoded: np.ndarray
    """bool (n,): false if the frame could not be read."""
    source_frames_decoded: int = 0
    """Frames that the decoder had to decode to get these."""
    error: str | None = None
    """Reason why frames are missing, in one line; None if none is missing."""


class DecodeJob(ABC):
    """The facts that a worker needs to decode one chunk: small, picklable, found by probing."""

    @abstractmethod
    def decode(self, threads: int = 1) -> Decoded:
        """Decode the chunk. Unreadable frames are reported, not raised."""


class Source(ABC):
    """One probed input. Probing reads packets, not pixels (except for one compared chunk)."""

    kind: ClassVar[str]
    Options: ClassVar[type[SourceOptions]]

    path: Path
    facts: dict[str, Any]
    """Attributes that the run store keeps of the input: JSON values only (path, bytes, fingerprint, width, ...)."""
    frame: np.ndarray
    """int64 (n,): ranks of the sampled items among all items of the input."""
    time_seconds: np.ndarray
    """float64 (n,): time of each sampled item."""
    frame_bytes: int
    """Bytes of one decoded item (width × height × 3)."""
    origin: tuple[int, int] = (0, 0)
    """x, y in the upright frame of the first pixel that is decoded; not 0, 0 if only a part is analysed."""
    note: str | None = None
    """One line for the user on the way the input is read; None if nothing is unusual."""

    @abstractmethod
    def decode_cost(self, chunk_frames: int) -> int:
        """Return the number of source frames that are decoded with chunks of this many sampled frames.

        Each chunk is decoded alone, from the key frame before it.
        """

    @abstractmethod
    def job(self, start: int, stop: int) -> DecodeJob:
        """Return the decode job of sampled items start (inclusive) to stop (exclusive)."""

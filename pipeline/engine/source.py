"""The source interface: how many items an input has, when they are, and how a chunk of them is decoded."""

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
    """Frames of this size that a chunk may hold, 1 at least."""
    return max(1, min(MAX_CHUNK_FRAMES, MAX_CHUNK_BYTES // max(frame_bytes, 1)))


class SourceOptions(BaseModel):
    """The `source:` section of a workflow; each kind of source has its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Decoded:
    """Pixels of one chunk."""

    frames_rgb: np.ndarray
    """uint8 (n, height, width, 3): upright, RGB; zero where not decoded."""
    decoded: np.ndarray
    """bool (n,)."""
    source_frames_decoded: int = 0
    """Frames that the decoder had to decode to get these."""
    error: str | None = None
    """Why frames are missing, in one line; None where none is."""


class DecodeJob(ABC):
    """All that a worker needs to decode one chunk: small, picklable, made from facts found by probing."""

    @abstractmethod
    def decode(self, threads: int = 1) -> Decoded:
        """Decode the chunk. Unreadable frames are reported, not raised."""


class Source(ABC):
    """One probed input. Probing reads packets, never pixels (but for one compared chunk)."""

    kind: ClassVar[str]
    Options: ClassVar[type[SourceOptions]]

    path: Path
    facts: dict[str, Any]
    """What the run store keeps of the input: JSON values only (path, bytes, fingerprint, width, ...)."""
    frame: np.ndarray
    """int64 (n,): ranks of the sampled items among all items of the input."""
    time_seconds: np.ndarray
    """float64 (n,)."""
    frame_bytes: int
    """Bytes of one decoded item (width × height × 3)."""
    origin: tuple[int, int] = (0, 0)
    """x, y in the upright frame of the first pixel that is decoded: not 0, 0 where only a part is looked at."""
    note: str | None = None
    """One line for the user on how the input is read, None where nothing is unusual."""

    @abstractmethod
    def decode_cost(self, chunk_frames: int) -> int:
        """Source frames that are decoded if the sampled frames are cut into chunks of this length and
        each chunk is decoded alone from the key frame before it."""

    @abstractmethod
    def job(self, start: int, stop: int) -> DecodeJob:
        """The decode job of sampled items start (inclusive) to stop (exclusive)."""

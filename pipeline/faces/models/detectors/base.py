"""The interface of every detector of the zoo: its own faces of a frame, and those that DeepFace's client would give."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError
from pipeline.faces.models.base import Faces, Frames
from pipeline.models.card import ModelCard

Frame = npt.NDArray[np.uint8]


class ZooDetector(Protocol):
    """Finds faces in frames, in both ways. Thread-safe. A frame's result does not depend on the others of its batch."""

    def detect(self, frames_rgb: Frames) -> Faces:
        """Return the faces of the frames themselves (`align: native`), boxes and landmarks not rounded.

        Faces of a frame are sorted by confidence (descending), x, y. Raises ValueError for anything but uint8 (height,
        width, 3) frames.
        """
        ...

    def areas(self, frames_rgb: Frames) -> Faces:
        """Return what DeepFace's client of this name returns for exactly these pictures (nothing is padded here).

        Frames ascend; within a frame faces are in the client's own order, and `rank` is None. `box`: whole pixels.
        `landmarks`: right and left eye in rows 0 and 1 (the person's own, whole pixels), nose and mouth if the client
        gives them, else NaN. `confidence`: the client's, not rounded.
        """
        ...


@runtime_checkable
class PadsItself(Protocol):
    """A detector that finds the areas of a frame in a black border without looking at all of that border."""

    def padded_areas(self, frames_rgb: Frames) -> Faces:
        """Return `areas` of each frame with a black border of half its size (border()) on each side.

        Coordinates are in pixels of the padded picture.
        """
        ...


def need(card: ModelCard) -> None:
    """Raise ModelError, with the command that helps, if a model's engine is not installed. Imports nothing."""
    if card.requires and importlib.util.find_spec(card.engine) is None:
        raise ModelError(
            f"detector {card.name!r} needs the package {card.engine!r}, which is not installed; run: "
            f"pip install {' '.join(card.requires)}"
        )


def border(frame: Frame) -> tuple[int, int]:
    """Return the rows above (and below) and the columns left (and right) by which DeepFace pads a frame."""
    return frame.shape[0] // 2, frame.shape[1] // 2


def checked(frame: Any) -> Frame:
    """Return a frame as a contiguous array. Raises ValueError for anything but uint8 (height, width, 3) with pixels."""
    array = np.asarray(frame)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise ValueError(f"a frame must be uint8 (height, width, 3) with pixels, not {array.dtype} {array.shape}")
    return np.ascontiguousarray(array)


def ordered(faces: Faces) -> Faces:
    """Sort by frame, then confidence (descending), then x, then y; `rank` moves along."""
    return taken(faces, np.lexsort((faces.box[:, 1], faces.box[:, 0], -faces.confidence, faces.frame)))


def taken(faces: Faces, index: npt.NDArray[Any]) -> Faces:
    """Return some faces, chosen by index or mask."""
    rank = None if faces.rank is None else faces.rank[index]
    return Faces(faces.frame[index], faces.box[index], faces.landmarks[index], faces.confidence[index], rank)


def joined(parts: Sequence[Faces]) -> Faces:
    """Return the faces of several parts, one part after the other. Without parts there is no face.

    There is a `rank` if all parts have one.
    """
    points = np.empty((0, 5, 2), np.float32)
    nothing = Faces(np.empty(0, np.int64), np.empty((0, 4), np.float32), points, np.empty(0, np.float32))
    fields = ("frame", "box", "landmarks", "confidence")
    rank = None
    if parts and all(part.rank is not None for part in parts):
        rank = np.concatenate([part.rank for part in parts if part.rank is not None])
    whole = Faces(*(np.concatenate([getattr(part, name) for part in (nothing, *parts)]) for name in fields))
    return replace(whole, rank=rank)


def largest(faces: Faces, most: int) -> Faces:
    """Return the `most` largest faces of each frame, by width times height, in their present order."""
    order = np.lexsort((-faces.box[:, 2] * faces.box[:, 3], faces.frame))
    place = np.arange(len(order)) - np.searchsorted(faces.frame[order], faces.frame[order])
    return taken(faces, np.sort(order[place < most]))

"""The face of a query: from a photo, or from a moment of a video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from pipeline.faces.people.gallery import as_text
from pipeline.faces.people.geometry import overlap
from pipeline.faces.people.pictures import (
    OTHER_SUFFIXES,
    SUFFIXES,
    PictureCache,
    PictureFaces,
    Pixels,
    Recipe,
    UnreadableError,
)
from pipeline.text import clock

if TYPE_CHECKING:
    from pipeline.media.video.source import VideoSource

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Question:
    """The source of the face."""

    path: str
    time_seconds: float | None = None
    """Moment of a video."""
    box: Box | None = None
    """x, y, w, h in pixels: search for the face that overlaps it most; None: for the largest face."""


@dataclass(frozen=True)
class Asked:
    """The face that was chosen."""

    question: Question
    box: Box
    embedding: npt.NDArray[np.float32]
    """float32 (d,)."""
    notes: tuple[str, ...]


def ask(question: Question, recipe: Recipe) -> Asked:
    """Find and embed the face of a question. Raises InputError if there is none, or the file cannot be used."""
    faces, where = _faces(question, recipe)
    if not len(faces):
        raise InputError(f"{where}: no face found; choose a clearer picture of the face")
    row = faces.largest if question.box is None else _overlapping(faces.box, question.box, where)
    box = tuple(float(side) for side in faces.box[row])
    notes = []
    if len(faces) > 1 and question.box is None:
        others = " ".join(as_text(other) for k, other in enumerate(faces.box) if k != row)
        taken = as_text(faces.box[row])
        notes.append(f"{where}: {len(faces)} faces, the largest is used: {taken}; choose another with --box: {others}")
    return Asked(question, (box[0], box[1], box[2], box[3]), faces.embedding[row], tuple(notes))


def _faces(question: Question, recipe: Recipe) -> tuple[PictureFaces, str]:
    """Return all faces, and the picture's name in messages."""
    path = Path(question.path).expanduser()
    if not path.exists():
        raise InputError(f"there is no picture or video at {path}; check the path")
    if path.suffix.lower() in (*SUFFIXES, *OTHER_SUFFIXES) and path.suffix.lower() != ".gif":
        if question.time_seconds is not None:
            raise InputError(f"{path} is a picture: --time is for videos")
        (found,) = PictureCache(recipe).faces([path])
        if isinstance(found, UnreadableError):
            raise InputError(str(found)) from found
        return found, str(path)
    if question.time_seconds is None:
        raise InputError(f"{path} is a video: say which moment of it, for example --time 0:00:12.5")
    (found,) = recipe.faces([frame_at(path, question.time_seconds)])
    return found, f"{path} at {clock(question.time_seconds)}"


def frame_at(path: Path, time_seconds: float) -> Pixels:
    """Return the frame on screen at a time, uint8 (height, width, 3) RGB. Raises InputError beyond the video's end."""
    from pipeline.media.video.source import VideoOptions, VideoSource

    source = VideoSource(path, VideoOptions.model_validate({"every": 1}), "pyav")
    times = source.index.time_seconds
    first, stop = float(times[0]), float(times[0]) + source.index.duration_seconds
    if not first <= time_seconds < max(stop, first + 1e-9):
        raise InputError(
            f"{path}: no frame at {clock(time_seconds)}; its frames lie from {clock(first)} to {clock(stop)}"
        )
    rank = int(np.searchsorted(times, time_seconds, side="right")) - 1
    (frame,) = frames_at(source, [rank])
    if frame is None:
        raise InputError(f"{path}: the frame at {clock(time_seconds)} cannot be decoded; choose another moment")
    return frame


def frames_at(source: VideoSource, ranks: Sequence[int]) -> list[Pixels | None]:
    """Return frames of a video by their ranks, ascending; None for a frame that cannot be decoded."""
    found: list[Pixels | None] = []
    for rank in ranks:
        decoded = source.job_of_ranks(np.array([rank], np.int64), "pyav").decode()
        found.append(decoded.frames_rgb[0].copy() if decoded.decoded[0] else None)
    return found


def _overlapping(boxes: npt.NDArray[np.float32], wanted: Box, where: str) -> int:
    """Return the row of the box with the best overlap. Raises InputError if none overlaps."""
    shared = overlap(np.array([wanted]), boxes)[0]
    if not (shared > 0).any():
        found = " ".join(as_text(box) for box in boxes)
        raise InputError(f"{where}: no face in the box {as_text(wanted)}; there are: {found}")
    return int(shared.argmax())


def parse_box(text: str) -> Box:
    """Return the numbers of x,y,w,h. Raises ValueError."""
    try:
        x, y, w, h = (float(part) for part in text.split(","))
    except ValueError as err:
        raise ValueError(f"{text!r} is not a box; write x,y,width,height in pixels: 120,40,80,100") from err
    if not (np.isfinite([x, y, w, h]).all() and w > 0 and h > 0):
        raise ValueError(f"{text!r} is not a box: width and height must be more than 0")
    return x, y, w, h

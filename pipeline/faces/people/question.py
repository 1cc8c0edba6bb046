"""The face of a query: from a photo, or from a moment of a video."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from pipeline.faces.people.gallery import as_text
from pipeline.faces.people.pictures import (
    OTHER_SUFFIXES,
    SUFFIXES,
    PictureCache,
    Pixels,
    Recipe,
)
from pipeline.media.boxes import overlap
from pipeline.media.inputs import refuse_url
from pipeline.media.picture import UnreadableError
from pipeline.media.video.source import VideoSource
from pipeline.text import clock

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
    film_size: tuple[int, int] | None = None
    """Width and height of the frames of the film that it is a moment of; None for a picture."""


def ask(question: Question, recipe: Recipe) -> Asked:
    """Find and embed the face of a question. Raises InputError if there is none, or the file cannot be used."""
    path = Path(question.path).expanduser()
    if not path.exists():
        refuse_url(question.path)
        raise InputError(f"there is no picture or video at {path}; check the path")
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a picture of the person, or look for all by --gallery {path}")
    where, scale, film_size = str(path), np.ones(2), None
    if path.suffix.lower() in (*SUFFIXES, *OTHER_SUFFIXES) and path.suffix.lower() != ".gif":
        if question.time_seconds is not None:
            raise InputError(f"{path} is a picture: --time is for videos")
        (faces,) = PictureCache(recipe).faces([path])
        if isinstance(faces, UnreadableError):
            raise InputError(str(faces)) from faces
    elif question.time_seconds is None:
        raise InputError(f"{path} is a video: say which moment of it, for example --time 0:00:12.5")
    else:
        where = f"{path} at {clock(question.time_seconds)}"
        frame, scale = frame_at(path, question.time_seconds)
        film_size = round(frame.shape[1] / scale[0]), round(frame.shape[0] / scale[1])
        (faces,) = recipe.faces([frame])
    if not len(faces):
        raise InputError(f"{where}: no face found; choose a clearer picture of the face")
    notes = []
    boxes = faces.box / np.tile(scale, 2)  # in pixels of the file, as stores have them
    row = faces.largest
    if question.box is not None:
        shared = overlap(np.array([question.box]), boxes)[0]
        row = int(shared.argmax())
        if not shared[row] > 0:
            found = " ".join(as_text(box) for box in boxes)
            raise InputError(f"{where}: no face in the box {as_text(question.box)}; there are: {found}")
    elif len(faces) > 1:
        others = " ".join(as_text(other) for k, other in enumerate(boxes) if k != row)
        taken = as_text(boxes[row])
        notes.append(f"{where}: {len(faces)} faces, the largest is used: {taken}; choose another with --box: {others}")
    x, y, w, h = boxes[row].tolist()
    return Asked(question, (x, y, w, h), faces.embedding[row], tuple(notes), film_size)


def frame_at(path: Path, time_seconds: float) -> tuple[Pixels, npt.NDArray[np.float64]]:
    """Return the frame on screen at a time, uint8 (height, width, 3) RGB, and its pixels per pixel of the file (x, y).

    Raises InputError beyond the video's end.
    """
    from pipeline.media.video.source import VideoOptions, VideoSource

    source = VideoSource(path, VideoOptions.model_validate({"every": 1}), "pyav")
    times = source.index.time_seconds
    first, stop = float(times[0]), float(times[0]) + source.index.duration_seconds
    if not first <= time_seconds < max(stop, first + 1e-9):
        raise InputError(
            f"{path}: no frame at {clock(time_seconds)}; its frames lie from {clock(first)} to {clock(stop)}"
        )
    frame = frame_of(source, int(np.searchsorted(times, time_seconds, side="right")) - 1)
    if frame is None:
        raise InputError(f"{path}: the frame at {clock(time_seconds)} cannot be decoded; choose another moment")
    return frame, np.array(source.scale)


def frame_of(source: VideoSource, rank: int) -> Pixels | None:
    """Return the frame of a video by its rank; None if it cannot be decoded."""
    decoded = source.job_of_ranks(np.array([rank], np.int64), "pyav").decode()
    return decoded.frames_rgb[0].copy() if decoded.decoded[0] else None


def parse_box(text: str) -> Box:
    """Return the numbers of x,y,w,h. Raises ValueError."""
    try:
        x, y, w, h = (float(part) for part in text.split(","))
    except ValueError as err:
        raise ValueError(f"{text!r} is not a box; write x,y,width,height in pixels: 120,40,80,100") from err
    if not (np.isfinite([x, y, w, h]).all() and w > 0 and h > 0):
        raise ValueError(f"{text!r} is not a box: width and height must be more than 0")
    return x, y, w, h

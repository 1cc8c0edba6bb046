"""The video behind an input of a store: every frame of it, upright, as the run that looked at it saw it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
from av.video.stream import VideoStream

from pipeline.errors import InputError
from pipeline.media.video.decode import decode_ahead
from pipeline.media.video.index import open_container
from pipeline.media.video.source import (
    VideoOptions,
    VideoSource,
    begins_with,
    frames_before_growth,
    is_of_video,
    sample,
)
from pipeline.store.read import RunInput

_BLOCK_BYTES = 64 << 20
_BLOCK_FRAMES = 16
_THREADS = 4
"""Decoding is a small part of the work: encoding has the other cores."""


@dataclass(frozen=True)
class Colour:
    """How the numbers of a video are to be read, as FFmpeg numbers it (AVCOL_SPC, AVCOL_TRC, AVCOL_PRI)."""

    matrix: int
    transfer: int
    primaries: int


class Film:
    """One video file: its frames in order of presentation."""

    def __init__(self, path: Path, frames: int | None = None, after: int = 0) -> None:
        """`frames`: number to take of a file that has grown; None for all. `after`: frames of earlier inputs.

        Raises InputError if it cannot be read.
        """
        self.path = path
        every = VideoOptions.model_validate({"every": 1})
        self.source = VideoSource(path, every, decoder="pyav", square=False, frames=frames, after=after)
        self.index = self.source.index
        self.first = self.source.first
        """Rank of the first frame of the input: frames before it, of a file that has grown, belong to earlier ones."""
        self.width: int = self.source.facts["width"]
        """Pixels of the upright frame."""
        self.height: int = self.source.facts["height"]
        with open_container(path) as container:
            stream = container.streams[self.index.stream]
            assert isinstance(stream, VideoStream)
            context = stream.codec_context
            self.rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
            self.colour = Colour(context.colorspace, context.color_trc, context.color_primaries)
        self.sample_aspect_ratio = self.source.sample_aspect_ratio
        self.losses: list[str] = []
        """One line for each stretch of frames that could not be decoded, after `frames` has passed it."""

    def __len__(self) -> int:
        return len(self.index)

    @property
    def times(self) -> npt.NDArray[np.float64]:
        """float64 (n,): presentation time of each frame in seconds, as in the file."""
        return np.asarray(self.index.time_seconds)

    @property
    def stop_seconds(self) -> float:
        """Where the last frame ends."""
        return float(self.times[0]) + self.index.duration_seconds

    def ranks(self, start_seconds: float, stop_seconds: float) -> tuple[int, int]:
        """First (inclusive) and last (exclusive) rank of the frames shown from start to before stop."""
        # Times are rounded to the time base in files and to milliseconds by people.
        first, last = np.searchsorted(self.times, [start_seconds - 1e-6, stop_seconds - 1e-6])
        return int(first), int(last)

    def end_of(self, rank: int) -> float:
        """Seconds at which the frame of this rank gives way to the next one."""
        return float(self.times[rank + 1]) if rank + 1 < len(self) else self.stop_seconds

    def span(self, first: int, last: int) -> Fraction:
        """Seconds from the start of frame `first` to the start of frame `last`, which may be one beyond the end."""
        pts, base = self.index.pts, self.index.time_base
        if last < len(self):
            return int(pts[last] - pts[first]) * base
        return int(pts[-1] - pts[first]) * base + max(1, round(1 / (self.rate * base))) * base

    def frames(self, first: int, last: int) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
        """Yield frames first to last (exclusive), as `frames_at` does."""
        return self.frames_at(np.arange(first, last))

    def frames_at(self, ranks: npt.NDArray[np.int64]) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
        """Yield rank and pixels of the frames of these ranks (ascending): uint8 (height, width, 3) RGB, writable.

        Frames are upright. Those that cannot be decoded are left out, with a line in `losses`. Few are in memory at
        once: decoding is a block ahead.
        """
        length = max(1, min(_BLOCK_FRAMES, _BLOCK_BYTES // self.source.item_bytes))
        parts = [ranks[at : at + length] for at in range(0, len(ranks), length)]
        jobs = (self.source.job_of_ranks(part, "pyav") for part in parts)
        for part, block in zip(parts, decode_ahead(jobs, min(_THREADS, os.cpu_count() or 1)), strict=True):
            if block.error is not None:
                self.losses.append(block.error)
            for k in np.flatnonzero(block.decoded).tolist():
                yield int(part[k]), block.frames_rgb[k]


def film_of(item: RunInput) -> Film:
    """The video that an input was made from.

    Raises InputError if it is gone, cannot be read, is another one than the run looked at, or if it is not a video.
    """
    try:
        return _film_of(item)
    except InputError as err:
        if is_of_video(item.attributes):
            raise
        raise InputError(
            f"{item.name!r} is not a video: {item.attributes.get('path')} was read by another source, and its pixels "
            "cannot be read again; export its rows, without pictures"
        ) from err


def _film_of(item: RunInput) -> Film:
    facts = item.attributes
    path = Path(facts["path"])
    if not path.exists():
        raise InputError(f"the video of {item.name!r} is gone: {path}; put it back there")
    if not begins_with(path, facts):
        raise InputError(f"{path} has changed since {item.name!r} was made from it; put it back, or run with --fresh")
    film = Film(path, frames_before_growth(facts), int(facts.get("after_frames", 0)))
    film.source.refuse_other_frames(facts)
    return film


def grid(film: Film, item: RunInput) -> npt.NDArray[np.int64]:
    """int64: ranks of the frames that the input's sampling takes from the whole video, whether or not they were looked
    at (a run may be limited by start and stop, or not be done)."""
    facts = item.attributes
    taken = {"every": facts.get("every"), "fps": facts.get("sample_fps"), "keyframes": bool(facts.get("keyframes"))}
    return np.asarray(sample(film.index, VideoOptions.model_validate(taken)))

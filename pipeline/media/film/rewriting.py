"""A film like another one, with something done to each frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.media.film.film import Film
from pipeline.media.film.movie import Look, Movie
from pipeline.media.film.sound import Sound, audio_streams, voices


@dataclass(frozen=True)
class Written:
    """What became of it."""

    frames: int
    audio_streams: int
    codec: str
    notes: tuple[str, ...]


def write_film(
    film: Film,
    target: Path,
    first: int,
    last: int,
    origin: int | None,
    edit: Callable[[int, npt.NDArray[np.uint8]], int],
    done: Callable[[int, int], None],
    exact_sound: bool = False,
) -> Written:
    """Write frames first to last (exclusive) with their sound.

    `origin` is the rank of the frame that becomes time 0, None to leave times as they are. `edit` changes the pixels of
    a frame in place and returns how many places it changed; `done` is told frames and places. `exact_sound` cuts sound
    between samples, not packets.
    """
    shift = 0 if origin is None else int(film.index.pts[origin])
    start = 0.0 if origin is None else float(film.times[origin])
    stop = film.end_of(last - 1) if last < len(film) else np.inf
    with Movie(target, Look.of(film)) as movie:
        heard = audio_streams(film.path)
        movie.sound = Sound(film, heard, start, stop, voices(movie.container, start, stop, exact_sound))
        for rank, frame_rgb in film.frames(first, last):
            places = edit(rank, frame_rgb)
            movie.put(frame_rgb, int(film.index.pts[rank]) - shift)
            done(1, places)
    return Written(movie.n_frames, len(heard), movie.codec, () if movie.note is None else (movie.note,))

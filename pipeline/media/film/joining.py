"""One film of parts of several: pictures brought to one size, sound kept in step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.media.film.film import Film
from pipeline.media.film.movie import Look, Movie
from pipeline.media.film.sound import SoundLine, audio_streams, sound_between

_COMMON_BASE = Fraction(1, 90000)
"""Holds the times of the usual frame rates, and milliseconds, without rounding."""
_COUNTED_AT_ONCE = 8


class Joined:
    """A film that parts of other films are appended to; to be used in a `with` block, as Movie is."""

    def __init__(self, target: Path, films: Sequence[Film]) -> None:
        """`films`: those that parts will be taken of. The first gives size and colour; sound is that of each one's
        first audio stream, at the rate and with the channels of the first that has any, else silence."""
        bases = {film.index.time_base for film in films}
        self._look = Look.of(films[0], films[0].index.time_base if len(bases) == 1 else _COMMON_BASE)
        if len({shape(film) for film in films}) > 1:
            self._look = replace(self._look, sample_aspect_ratio=Fraction(1), width=_square_width(films[0]))
        self._movie = Movie(target, self._look)
        self._voices = {film.path: next(iter(audio_streams(film.path)), None) for film in films}
        self._at = Fraction(0)
        self._sound: SoundLine | None = None

    def __enter__(self) -> Joined:
        self._movie.__enter__()
        voice = next(((path, index) for path, index in self._voices.items() if index is not None), None)
        if voice is not None:
            self._sound = SoundLine.of_file(self._movie.container, *voice)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self._sound is not None:
            self._sound.finish()
        self._movie.__exit__(kind, error, trace)

    def append(self, film: Film, first: int, last: int, done: Callable[[int], None]) -> tuple[float, int]:
        """Append frames first to last (exclusive); where they begin in seconds, and how many could be decoded."""
        begins = float(self._at)
        start_pts, base = int(film.index.pts[first]), film.index.time_base
        start = float(film.times[first])
        stop = start + float(film.span(first, last))
        pending = written = 0
        for rank, frame_rgb in film.frames(first, last):
            at = self._at + (int(film.index.pts[rank]) - start_pts) * base
            self._movie.put(self._fitted(frame_rgb, film), round(at / self._look.time_base))
            pending, written = pending + 1, written + 1
            if pending == _COUNTED_AT_ONCE:
                done(pending)
                pending = 0
        done(pending)
        self._hear(film, start, stop, begins)
        self._at += film.span(first, last)
        return begins, written

    def _hear(self, film: Film, start: float, stop: float, at: float) -> None:
        if self._sound is None:
            return
        index = self._voices[film.path]
        if index is not None:
            for frame in sound_between(film.path, index, start, stop):
                self._sound.put(frame, start, stop, at - start)
        self._sound.silence_until(at + stop - start)

    def _fitted(self, frame_rgb: npt.NDArray[np.uint8], film: Film) -> npt.NDArray[np.uint8]:
        """The frame at the film's size: scaled to fit, with black beside or above it where shapes differ."""
        width, height = self._look.width, self._look.height
        shown = frame_rgb.shape[1] * film.sample_aspect_ratio / self._look.sample_aspect_ratio
        scale = min(width / shown, Fraction(height, frame_rgb.shape[0]))
        size = max(1, round(shown * scale)), max(1, round(frame_rgb.shape[0] * scale))
        if size == (width, height) == (frame_rgb.shape[1], frame_rgb.shape[0]):
            return frame_rgb
        shrinks = size[0] < frame_rgb.shape[1]
        fitted = cv2.resize(frame_rgb, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
        picture = np.zeros((height, width, 3), np.uint8)
        top, left = (height - size[1]) // 2, (width - size[0]) // 2
        picture[top : top + size[1], left : left + size[0]] = fitted
        return picture


def shape(film: Film) -> tuple[int, int, Fraction]:
    """What frames must share to follow each other as they are."""
    return film.width, film.height, film.sample_aspect_ratio


def _square_width(film: Film) -> int:
    """How wide a film is in square pixels."""
    return max(2, round(film.width * film.sample_aspect_ratio))

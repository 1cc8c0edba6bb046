"""One film of parts of several: pictures brought to one size, sound kept in step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
from av.audio.stream import AudioStream

from pipeline.media.film.film import Film
from pipeline.media.film.movie import Look, Movie
from pipeline.media.film.sound import Encoded, Sound, audio_streams
from pipeline.media.video.index import open_container
from pipeline.store.nodes import disk_errors


class Joined(Movie):
    """A film that parts of other films are appended to."""

    def __init__(self, target: Path, films: Sequence[Film]) -> None:
        """`films`: those that parts will be taken of. The first gives size and colour; sound is that of each one's
        first audio stream, at the rate and with the channels of the first that has any, else silence."""
        bases = {film.index.time_base for film in films}
        # 1/90000 s holds the times of the usual frame rates, and milliseconds, without rounding.
        look = Look.of(films[0], films[0].index.time_base if len(bases) == 1 else Fraction(1, 90000))
        if len({shape(film) for film in films}) > 1:
            width_of_squares = max(2, round(films[0].width * films[0].sample_aspect_ratio))
            look = replace(look, sample_aspect_ratio=Fraction(1), width=width_of_squares)
        super().__init__(target, look)
        self._heard = {film.path: audio_streams(film.path)[:1] for film in films}
        self._at = Fraction(0)
        self._line: Encoded | None = None

    def __enter__(self) -> Joined:
        super().__enter__()
        first = next((path for path, streams in self._heard.items() if streams), None)
        if first is not None:
            with open_container(first) as source:
                self._line = Encoded(self.container, cast(AudioStream, source.streams[self._heard[first][0]]))
        return self

    def append(self, film: Film, first: int, last: int, done: Callable[[int], None]) -> tuple[float, int]:
        """Append frames first to last (exclusive); where they begin in seconds, and how many could be decoded."""
        begins, before = float(self._at), self.n_frames
        start_pts, base = int(film.index.pts[first]), film.index.time_base
        for rank, frame_rgb in film.frames(first, last):
            at = self._at + (int(film.index.pts[rank]) - start_pts) * base
            self.put(self._fitted(frame_rgb, film), round(at / self.look.time_base))
            done(1)
        line = self._line
        if line is not None:
            start = float(film.times[first])
            stop = start + float(film.span(first, last))
            with disk_errors(f"write {self.target}"):
                line.begin(start, stop, begins)
                with closing(Sound(film, self._heard[film.path], start, stop, lambda _: line)) as sound:
                    sound.until(float("inf"))
        self._at += film.span(first, last)
        return begins, self.n_frames - before

    def _finish(self) -> None:
        super()._finish()
        if self._line is not None:
            self._line.finish()

    def _fitted(self, frame_rgb: npt.NDArray[np.uint8], film: Film) -> npt.NDArray[np.uint8]:
        """The frame at the film's size: scaled to fit, with black beside or above it where shapes differ."""
        width, height = self.look.width, self.look.height
        shown = frame_rgb.shape[1] * film.sample_aspect_ratio / self.look.sample_aspect_ratio
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

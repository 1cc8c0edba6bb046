"""Sightings of a person: in which input, when, how long, and how surely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.faces.people.appearances import Appearance, appearances
from pipeline.store.pieces import rows_of, whole

if TYPE_CHECKING:
    from pipeline.store.read import RunInput


@dataclass(frozen=True)
class Shot:
    """One face of an input."""

    distance: float
    time_seconds: float
    """Presentation time, as in the file."""
    frame: int
    """Rank among the input's frames."""
    box: tuple[float, float, float, float]
    """x, y, w, h in pixels of the upright frame."""
    face: int
    """Row of the face in the input."""


@dataclass(frozen=True)
class Sighting:
    """One person in one input."""

    out: str
    """Path of the store, as the user gave it."""
    input: str
    video: str
    """Path of the file, as the store knows it."""
    name: str | None
    """Name of the person; None for a search by a picture."""
    faces: int
    screen_seconds: float
    appearances: tuple[Appearance, ...]
    """Stretches of time on screen, in order."""
    shots: tuple[Shot, ...]
    """The nearest face of each appearance, in order of time."""

    @property
    def first_seconds(self) -> float:
        return self.appearances[0].start_seconds

    @property
    def last_seconds(self) -> float:
        return self.appearances[-1].stop_seconds

    @property
    def best(self) -> Shot:
        return min(self.shots, key=lambda shot: shot.distance)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "out": self.out,
            "input": self.input,
            "video": self.video,
            "faces": self.faces,
            "screen_seconds": round(self.screen_seconds, 3),
            "first_seconds": self.first_seconds,
            "last_seconds": self.last_seconds,
            "best": shot_dict(self.best),
            "appearances": [
                {
                    "start_seconds": one.start_seconds,
                    "stop_seconds": one.stop_seconds,
                    "frames": one.frames,
                    "screen_seconds": round(one.screen_seconds, 3),
                    "best": shot_dict(shot),
                }
                for one, shot in zip(self.appearances, self.shots, strict=True)
            ],
        }


def shot_dict(shot: Shot) -> dict[str, Any]:
    """Return JSON values."""
    return {
        "distance": round(shot.distance, 6),
        "time_seconds": shot.time_seconds,
        "frame": shot.frame,
        "box": [round(side, 1) for side in shot.box],
        "face": shot.face,
    }


class FrameTimes:
    """Ranks and times of the frames of an input, read on first use and once for any number of people."""

    def __init__(self, item: RunInput, out: str) -> None:
        self.item, self.out = item, out
        self.video = str(item.attributes.get("path", ""))

    @cached_property
    def _read(self) -> dict[str, npt.NDArray[Any]]:
        if not self.item.complete:
            return self.item.read(["frame", "time_seconds"])
        return {name: whole(self.item.pieces(name)) for name in ("frame", "time_seconds")}

    @property
    def frame(self) -> npt.NDArray[np.int64]:
        """Rank of each sampled frame in the file, int64 (frames,)."""
        return self._read["frame"]

    @property
    def time_seconds(self) -> npt.NDArray[np.float64]:
        """Presentation time of each sampled frame, float64 (frames,)."""
        return self._read["time_seconds"]

    def sightings(
        self, people: Sequence[tuple[str | None, npt.NDArray[np.int64], npt.NDArray[np.float64]]]
    ) -> list[Sighting]:
        """Return one sighting for each (name, rows of faces ascending, their distances), none of them empty."""
        everyone = np.unique(np.concatenate([rows for _, rows, _ in people]))
        at = self._frames_of(everyone)
        drafts = [
            (name, rows, *self._appearances(rows, distance, at[np.searchsorted(everyone, rows)]))
            for name, rows, distance in people
        ]
        shown = np.unique(np.concatenate([best for _, _, _, best in drafts]))
        boxes = self._rows("box", shown)
        by_row = {
            int(row): (int(k), tuple(float(side) for side in box))
            for row, k, box in zip(shown, at[np.searchsorted(everyone, shown)], boxes, strict=True)
        }
        found = []
        for (name, rows, distance), (_, _, times, best) in zip(people, drafts, strict=True):
            near = distance[np.searchsorted(rows, best)]
            shots = tuple(self._shot(by_row, int(row), float(d)) for row, d in zip(best, near, strict=True))
            screen = sum(one.screen_seconds for one in times)
            found.append(Sighting(self.out, self.item.name, self.video, name, len(rows), screen, tuple(times), shots))
        return found

    def shots(self, rows: npt.NDArray[np.int64], distance: npt.NDArray[np.float64]) -> list[Shot]:
        """Return the shots of rows in any order."""
        if not len(rows):
            return []
        ascending = np.unique(rows)
        at, boxes = self._frames_of(ascending), self._rows("box", ascending)
        by_row = {
            int(row): (int(k), tuple(float(side) for side in box))
            for row, k, box in zip(ascending, at, boxes, strict=True)
        }
        return [self._shot(by_row, int(row), float(d)) for row, d in zip(rows, distance, strict=True)]

    def _shot(self, by_row: dict[int, tuple[int, tuple[float, ...]]], row: int, distance: float) -> Shot:
        k, (x, y, w, h) = by_row[row]
        return Shot(distance, float(self.time_seconds[k]), int(self.frame[k]), (x, y, w, h), row)

    def _appearances(
        self, rows: npt.NDArray[np.int64], distance: npt.NDArray[np.float64], frames: npt.NDArray[np.int64]
    ) -> tuple[list[Appearance], npt.NDArray[np.int64]]:
        """Return stretches of time, and the row of the nearest face of each."""
        present = np.zeros(len(self.time_seconds), bool)
        present[frames] = True
        found = appearances(present, self.time_seconds)
        which = np.searchsorted([one.first_frame for one in found], frames, side="right") - 1
        order = np.lexsort((distance, which))
        firsts = order[np.flatnonzero(np.diff(which[order], prepend=-1))]
        return found, rows[firsts]

    def _frames_of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the index along the frame axis of each face."""
        if self.item.complete:
            return self._rows("face_frame", rows)
        found: npt.NDArray[np.int64] = self.item.array("face_frame")[rows]
        return found

    def _rows(self, name: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        found = rows_of(self.item.pieces(name), rows, threads=1)
        assert found is not None, "rows are never empty here"
        return found

"""Sightings of a person: in which input, when, how long, and how surely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.faces.people.appearances import Appearance
from pipeline.faces.people.moments import Moments, known
from pipeline.store.pieces import rows_of
from pipeline.store.read import RunInput

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Shot:
    """One face of an input."""

    distance: float
    time_seconds: float
    """Presentation time, as in the file; NaN for a picture."""
    frame: int
    """Rank among the input's frames, or number of the picture in its input."""
    box: tuple[float, float, float, float]
    """x, y, w, h in pixels of the upright frame."""
    face: int
    """Row of the face in the input."""
    name: str | None = None
    """Name of the picture; None for a frame of a film."""


@dataclass(frozen=True)
class Sighting:
    """One person in one input."""

    out: str
    """Path of the store, as the user gave it."""
    input: str
    video: str
    """Path of the film, or of the folder of pictures, as the store knows it."""
    name: str | None
    """Name of the person; None for a search by a picture."""
    faces: int
    screen_seconds: float
    appearances: tuple[Appearance, ...]
    """Stretches of time on screen, in order; or one for each picture."""
    shots: tuple[Shot, ...]
    """The nearest face of each appearance, in order of time."""

    @property
    def pictures(self) -> int:
        """Number of pictures that show the person; 0 in a film."""
        return 0 if self.appearances[0].is_timed else len(self.appearances)

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
            **shown_dict(self.screen_seconds, self.pictures),
            "first_seconds": known(self.first_seconds),
            "last_seconds": known(self.last_seconds),
            "best": shot_dict(self.best),
            "appearances": [
                {
                    "start_seconds": known(one.start_seconds),
                    "stop_seconds": known(one.stop_seconds),
                    "frames": one.frames,
                    "screen_seconds": round(one.screen_seconds, 3) if one.is_timed else None,
                    "best": shot_dict(shot),
                }
                for one, shot in zip(self.appearances, self.shots, strict=True)
            ],
        }


def shown_dict(screen_seconds: float, pictures: int) -> dict[str, Any]:
    """Return how long and in how many pictures a person is seen, as JSON values: pictures have no seconds."""
    if not pictures:
        return {"screen_seconds": round(screen_seconds, 3)}
    return {"screen_seconds": round(screen_seconds, 3) if screen_seconds else None, "pictures": pictures}


def shot_dict(shot: Shot) -> dict[str, Any]:
    """Return JSON values."""
    return {
        "distance": round(shot.distance, 6),
        "time_seconds": known(shot.time_seconds),
        **({"name": shot.name} if shot.name is not None else {}),
        "frame": shot.frame,
        "box": [round(side, 1) for side in shot.box],
        "face": shot.face,
    }


class InputSightings(Moments):
    """The sightings of any number of people in one input."""

    def __init__(self, item: RunInput, out: str) -> None:
        super().__init__(item)
        self.out = out
        self.video = str(item.attributes.get("path", ""))

    def sightings(
        self, people: Sequence[tuple[str | None, Ints, Floats]], track_of: npt.NDArray[np.int32] | None = None
    ) -> list[Sighting]:
        """Return one sighting for each (name, rows of faces ascending, their distances), none of them empty.

        `track_of` (n_faces,): the tracks of these faces, if the store does not have them.
        """
        everyone = np.unique(np.concatenate([rows for _, rows, _ in people]))
        at = self._frames_of(everyone)
        track = None if track_of is None else track_of[everyone]
        if track is None and "track" in self.item.arrays:
            track = self._rows("track", everyone)
        times, best, near = [], [], []
        for _, rows, distance in people:
            mine = np.searchsorted(everyone, rows)
            frames, tracks = at[mine], None if track is None else track[mine]
            times.append(self.appearances(frames, tracks))
            # The nearest face of each appearance: the first of it, once all are ordered by appearance and distance.
            which = np.searchsorted([one.first_frame for one in times[-1]], frames, side="right") - 1
            order = np.lexsort((distance, which))
            firsts = order[np.flatnonzero(np.diff(which[order], prepend=-1))]
            best.append(rows[firsts])
            near.append(distance[firsts])
        shown = np.concatenate(best)
        shots = iter(self.shots(shown, np.concatenate(near), at[np.searchsorted(everyone, shown)]))
        return [
            Sighting(
                self.out, self.item.name, self.video, name, len(rows), sum(each.screen_seconds for each in mine),
                tuple(mine), tuple(islice(shots, len(mine))),
            )
            for (name, rows, _), mine in zip(people, times, strict=True)
        ]  # fmt: skip

    def shots(self, rows: Ints, distance: Floats, frames: Ints | None = None) -> list[Shot]:
        """Return the shots of rows in any order; `frames`: their indices along the frame axis, if they are known."""
        ascending, back = np.unique(rows, return_inverse=True)
        at = self._frames_of(ascending)[back] if frames is None else frames
        return [
            Shot(d, float(self.time_seconds[k]), int(self.number[k]), (x, y, w, h), row, name)
            for row, d, k, name, (x, y, w, h) in zip(
                rows.tolist(), distance.tolist(), at.tolist(), self.names(at),
                self._rows("box", ascending)[back].tolist(), strict=True,
            )
        ]

    def _frames_of(self, rows: Ints) -> Ints:
        """Return the index along the frame axis of each face."""
        if self.item.complete:
            return self._rows("face_frame", rows)
        found: Ints = self.item.array("face_frame")[rows]
        return found

    def _rows(self, name: str, rows: Ints) -> npt.NDArray[Any]:
        found = rows_of(self.item.pieces(name), rows, threads=1)
        assert found is not None, "rows are never empty here"
        return found

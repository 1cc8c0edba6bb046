"""Places of an input's items: of a film their ranks and times, of pictures their numbers and names."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.faces.people.appearances import LONGEST_GAP_SECONDS, Appearance, appearances
from pipeline.media.spans import is_timed, item_numbers, sampled_seconds, stop_of
from pipeline.store.pieces import rows_of, whole
from pipeline.store.read import RunInput
from pipeline.text import clock

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def known(seconds: float) -> float | None:
    """Return seconds as a JSON value: None for NaN, which stands for the time of a picture."""
    return None if np.isnan(seconds) else seconds


class Moments:
    """Places of the items of an input, read on first use and once."""

    def __init__(self, item: RunInput) -> None:
        self.item = item
        self.is_timed = is_timed(item)

    @cached_property
    def _read(self) -> dict[str, npt.NDArray[Any]]:
        if not self.item.complete:
            return self.item.read(["frame", "time_seconds"])
        return {name: whole(self.item.pieces(name)) for name in ("frame", "time_seconds")}

    @cached_property
    def number(self) -> Ints:
        """Number of each item, int64 (items,): rank of a frame in its file, place of a picture in its input."""
        return self._read["frame"] if self.is_timed else item_numbers(self.item)

    @cached_property
    def lasting(self) -> Ints:
        """Number of each item that it keeps if others are removed, int64 (items,): of pictures a hash of the name."""
        if self.is_timed or "name" not in self.item.arrays:
            return self.number
        names = (str(name).encode("utf-8", "surrogatepass") for name in self.item.array("name"))
        return np.array([int.from_bytes(hashlib.blake2b(name, digest_size=6).digest()) for name in names], np.int64)

    @cached_property
    def time_seconds(self) -> Floats:
        """Presentation time of each item, float64 (items,); NaN for pictures."""
        return self._read["time_seconds"] if self.is_timed else np.full(len(self.number), np.nan)

    def appearances(
        self, frame: Ints, track: npt.NDArray[Any] | None, longest_gap_seconds: float = LONGEST_GAP_SECONDS
    ) -> list[Appearance]:
        """Return the stretches of time in which a person is seen, as `appearances` does; of pictures one for each.

        `frame`, ascending, and `track` have a value for each face of the person.
        """
        if self.is_timed:
            facts, rank = self.item.attributes, self.number if self.item.complete else None
            stop, sampled = stop_of(facts), sampled_seconds(facts)
            return appearances(frame, self.time_seconds, track, stop, longest_gap_seconds, rank, sampled)
        return [Appearance(np.nan, np.nan, at, at, 1, 0.0) for at in np.unique(frame).tolist()]

    def names(self, at: Ints) -> list[str | None]:
        """Return the names of pictures by their indices along the item axis; None for frames of a film."""
        if self.is_timed or not len(at):
            return [None] * len(at)
        if "name" not in self.item.arrays:
            return [str(number) for number in self.number[at].tolist()]
        some, back = np.unique(at, return_inverse=True)
        found = rows_of(self.item.pieces("name"), some, threads=1)
        assert found is not None, "some is not empty"
        return [str(name) for name in found[back].tolist()]

    def place(self, at: int) -> str:
        """Return the place of an item in words: a time, or a picture's name."""
        (name,) = self.names(np.array([at]))
        return clock(float(self.time_seconds[at])) if name is None else name

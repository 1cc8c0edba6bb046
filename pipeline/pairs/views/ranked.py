"""Pairs of stores by the number of their inliers, each with its pictures and matches at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.errors import StoreError, UsageError
from pipeline.store.mapped import StoredItems
from pipeline.store.read import RunInput
from pipeline.text import unknown

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Links:
    """The matches of one pair."""

    a: Floats
    """float32 (n, 2): x, y in the first picture, in pixels; 0.5 is the centre of the upper left one."""
    b: Floats
    """float32 (n, 2): the same in the second picture."""
    inlier: Bools | None
    """bool (n,): the match agrees with the geometry of the pair; None if that was not verified."""


class RankedPairs:
    """Pairs of some inputs. A pair or a picture is named by its place among all of them, from 0."""

    def __init__(self, items: Sequence[RunInput]) -> None:
        """`items`: inputs of pairs, done or half done. Raises StoreError if one has no matches, or is damaged."""
        self.items = list(items)
        self.albums: list[RunInput] = []
        """Inputs that the pictures are from."""
        self._starts = [0]
        known: dict[tuple[Path, str], int] = {}
        for item in self.items:
            for name in item.attributes["of"]:
                if (item.store_path, name) not in known:
                    known[item.store_path, name] = len(self.albums)
                    self.albums.append(RunInput(item.store_path, name))
                    self._starts.append(self._starts[-1] + self.albums[-1].frames_total)
        self.is_verified = bool(self.items) and all("n_inliers" in item.arrays for item in self.items if item.arrays)
        read = [self._read(item, [known[item.store_path, name] for name in item.attributes["of"]]) for item in items]
        self.a, self.b, self.n_matches, self.n_inliers, self.decoded, self._local = (
            np.concatenate(parts) for parts in zip(*read, strict=True)
        )
        self.ends = np.cumsum([0, *(len(one[0]) for one in read)])
        """Places at which the pairs of each input begin, and the end of the last one."""

    def __len__(self) -> int:
        return len(self.a)

    @property
    def n_pictures(self) -> int:
        return self._starts[-1]

    @property
    def strength(self) -> Ints:
        """Inliers of each pair; matches if they were not verified."""
        return self.n_inliers if self.is_verified else self.n_matches

    @cached_property
    def names(self) -> list[str]:
        """Name of each picture ("frame 120" of a video), with its input's name if two names are alike without."""
        names = [self._names(album) for album in self.albums]
        if len({name for some in names for name in some}) < self.n_pictures:
            names = [[f"{album.name}/{name}" for name in some] for album, some in zip(self.albums, names, strict=True)]
        return [name for some in names for name in some]

    def picture(self, name: str) -> int:
        """Return the place of a picture by its name; of a frame the number is enough.

        Raises UsageError, with the nearest name, if there is none.
        """
        album, slash, number = name.rpartition("/")
        known = next((one for one in (name, f"{album}{slash}frame {number}") if one in self.names), None)
        if known is None:
            raise UsageError(unknown("picture", name, self.names))
        return self.names.index(known)

    def pair(self, one: str, other: str) -> int:
        """Return the place of the pair of two pictures, in any order. Raises UsageError if they are not a pair."""
        a, b = self.picture(one), self.picture(other)
        found = np.flatnonzero(((self.a == a) & (self.b == b)) | ((self.a == b) & (self.b == a)))
        if not len(found):
            raise UsageError(f"{one!r} and {other!r} were not compared; name a pair of the section pairs: of the store")
        return int(found[0])

    def best(self, most: int) -> list[int]:
        """Return the pairs with the most inliers, or matches, the best first; those without a match are left out."""
        order = np.lexsort((np.arange(len(self)), -self.n_matches, -self.strength))[:most]
        return [int(k) for k in order if self.n_matches[k]]

    def album(self, picture: int) -> tuple[int, int]:
        """Return the number of the input of a picture, and the picture's place in it."""
        k = int(np.searchsorted(self._starts, picture, side="right")) - 1
        return k, picture - self._starts[k]

    def item(self, pair: int) -> RunInput:
        """Return the input that a pair belongs to."""
        return self.items[int(np.searchsorted(self.ends, pair, side="right")) - 1]

    def caption(self, pair: int) -> str:
        """Return a line on a pair: "a.jpg - b.jpg: 312 matches, 250 inliers"."""
        counts = f"{self.n_matches[pair]} {'match' if self.n_matches[pair] == 1 else 'matches'}"
        if self.is_verified:
            counts += f", {self.n_inliers[pair]} {'inlier' if self.n_inliers[pair] == 1 else 'inliers'}"
        return f"{self.names[self.a[pair]]} - {self.names[self.b[pair]]}: {counts}"

    def links(self, pair: int) -> Links:
        """Return the matches of a pair. Raises StoreError if they are damaged."""
        item, local = self.item(pair), int(self._local[pair])
        wanted = ["match", *(["inlier"] if self.is_verified else [])]
        rows = item.retried(lambda: item.read_frames(wanted, local, local + 1))
        points = []
        for side, picture in enumerate((self.a[pair], self.b[pair])):
            album, place = self.album(int(picture))
            keypoints, numbers = self._stored(album).rows("keypoint", place), rows["match"][:, side]
            if len(numbers) and not 0 <= numbers.min() <= numbers.max() < len(keypoints):
                raise StoreError(f"{item.name!r} in {item.store_path}: match names keypoints that are not there")
            points.append(keypoints[numbers].astype(np.float32))
        return Links(points[0], points[1], rows.get("inlier"))

    def _read(self, item: RunInput, albums: Sequence[int]) -> tuple[Ints, ...]:
        """Return for each pair that is done: a, b, matches, inliers, 1 if both could be read, place in its input."""
        if not item.arrays:
            return (np.empty(0, np.int64),) * 6
        if "match" not in item.arrays:
            raise StoreError(f"{item.name!r} in {item.store_path} has no matches; add a stage `use: match`")
        wanted = ["a", "b", "n_matches", "decoded", *(["n_inliers"] if self.is_verified else [])]
        found: Mapping[str, np.ndarray] = item.read(wanted)
        ends = np.cumsum([0, *(self.albums[k].frames_total for k in albums)])
        move = np.array([self._starts[k] for k in albums]) - ends[:-1]

        def placed(side: np.ndarray) -> Ints:
            if len(side) and not 0 <= side.min() <= side.max() < ends[-1]:
                raise StoreError(f"{item.name!r} in {item.store_path} has pairs of pictures that are not there")
            return np.asarray(side + move[np.searchsorted(ends, side, side="right") - 1], np.int64)

        places = [np.arange(start, stop) for start, stop in item.spans(1 << 40)]
        counts = found["n_matches"].astype(np.int64)
        return (
            placed(found["a"]), placed(found["b"]), counts,
            found["n_inliers"].astype(np.int64) if self.is_verified else counts,
            found["decoded"].astype(np.int64), np.concatenate(places) if places else np.empty(0, np.int64),
        )  # fmt: skip

    def _stored(self, album: int) -> StoredItems:
        if album not in self._opened:
            one = self.albums[album]
            self._opened[album] = StoredItems(str(one.store_path), (one.name,))
        return self._opened[album]

    @cached_property
    def _opened(self) -> dict[int, StoredItems]:
        return {}

    @staticmethod
    def _names(album: RunInput) -> list[str]:
        if "name" in album.arrays:
            return [str(name) for name in album.array("name").tolist()]
        return [f"frame {number}" for number in album.array("frame").tolist()]

"""Pictures and their matches, read in bounded memory: the common part of the exports to other programs."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import numpy as np

from pipeline.engine.source import OF
from pipeline.errors import UsageError
from pipeline.pairs.source import NAME, A, B
from pipeline.store.mapped import StoredItems
from pipeline.store.schema import DECODED, SCALE
from pipeline.text import plural
from pipeline.views.export import Export, InputRows, StoredRows

_OF_KEYPOINTS = "keypoint", "keypoint_score", "keypoint_scale", "keypoint_angle", "descriptor"


@dataclass(frozen=True)
class Keypoints:
    """Keypoints of one picture, in pixels of the whole upright picture; the upper left corner is 0, 0."""

    points: np.ndarray
    """float32 (n, 2): x, y."""
    scores: np.ndarray
    """float32 (n,), descending."""
    scales: np.ndarray | None
    """float32 (n,): diameters; None if the model knows none."""
    angles: np.ndarray | None
    """float32 (n,): degrees, from x towards y; None if the model knows none."""
    descriptors: np.ndarray
    """(n, d), as stored."""


@dataclass(frozen=True)
class Pair:
    """Two pictures and their matches."""

    a: int
    """Number of the first picture, from 0."""
    b: int
    match: np.ndarray
    """int32 (n, 2): keypoints of a and of b."""
    scores: np.ndarray
    inlier: np.ndarray | None
    """bool (n,); None if the matches were not verified."""
    model: np.ndarray | None
    """float64 (3, 3)."""
    kind: str | None
    """Kind of that model: "fundamental"; None if the matches were not verified."""


class Pictures:
    """The pictures that the pairs of some inputs are made of, numbered from 0: of all inputs, one after the other."""

    def __init__(self, inputs: Sequence[InputRows]) -> None:
        made_of = {(one.run.path, name): one.run.input(name) for one in inputs for name in one.item.attributes[OF]}
        places = {key: item.attributes.get("folder") or item.attributes["path"] for key, item in made_of.items()}
        in_folders = all("folder" in item.attributes for item in made_of.values())
        self.folder = os.path.commonpath(places.values()) if in_folders else None
        """Folder that the names are relative to; None if pictures lie in a file (tar, table)."""
        self._starts: dict[tuple[Path, str], int] = {}
        self._stored: list[StoredItems] = []
        self.names: list[str] = []
        """Paths relative to `folder`; without a folder, the names that the file has."""
        sizes, decoded = [], []
        first = {place: name for (_, name), place in reversed(places.items())}
        for (path, name), place in places.items():
            stored = StoredItems(str(path), [name])
            if NAME not in stored:
                raise UsageError(
                    f"{name!r} holds frames of a film; COLMAP and hloc read files. Write its frames to a folder "
                    "(ffmpeg -i FILM folder/%06d.jpg) and run over that"
                )
            lacking = [one for one in ("width", "height", "n_keypoints", *_OF_KEYPOINTS) if one not in stored]
            if lacking:
                raise UsageError(f"{name!r} has no array {lacking[0]!r}; the stage keypoints makes what is needed")
            before = os.path.relpath(place, self.folder) if self.folder else first[place] if len(first) > 1 else ""
            self._starts[path, name] = len(self.names)
            self._stored.append(stored)
            self.names += [os.path.normpath(os.path.join(before, picture)) for picture in stored.values(NAME)]
            sizes.append(np.stack([stored.values("width"), stored.values("height")], axis=1))
            decoded.append(stored.values(DECODED.name).astype(bool))
        twice = [name for name, count in Counter(self.names).items() if count > 1]
        if twice:
            raise UsageError(f"two pictures have the name {twice[0]!r}; export the stores one by one")
        self.sizes, self.decoded = np.concatenate(sizes), np.concatenate(decoded)
        """int32 (n, 2): width and height of each upright picture; and bool (n,): whether it could be read."""

    def __len__(self) -> int:
        return len(self.names)

    def numbers(self, one: InputRows) -> np.ndarray:
        """Return int64: number of each picture that the pairs of an input count."""
        found = []
        for name in one.item.attributes[OF]:
            start, count = self._starts[one.run.path, name], one.run.input(name).frames_total
            found.append(np.arange(start, start + count))
        return np.concatenate(found)

    def _place(self, number: int) -> tuple[StoredItems, int]:
        """Return the input of a picture, and its place there."""
        starts = list(self._starts.values())
        part = bisect_right(starts, number) - 1
        return self._stored[part], number - starts[part]

    def store(self, number: int) -> Path:
        """Return the path of the store that has a picture."""
        return list(self._starts)[bisect_right(list(self._starts.values()), number) - 1][0]

    def count(self, number: int) -> int:
        """Return the number of keypoints of a picture."""
        stored, item = self._place(number)
        return int(stored.values("n_keypoints")[item])

    def keypoints(self, number: int) -> Keypoints:
        """Return the keypoints of a picture."""
        stored, item = self._place(number)
        points, scores, scales, angles, descriptors = (stored.rows(name, item) for name in _OF_KEYPOINTS)
        shrunk = np.sqrt(np.prod(stored.values(SCALE.name)[item])) if SCALE.name in stored else np.float32(1)
        return Keypoints(
            points, scores, scales / shrunk if np.isfinite(scales).all() else None,
            angles if np.isfinite(angles).all() else None, descriptors,
        )  # fmt: skip


class MatchExport(Export):
    """A format of pictures with their keypoints, and of matches."""

    axes: ClassVar[tuple[str, ...]] = ("match",)
    to_standard_output: ClassVar[bool] = False

    def pictures(self, stored: StoredRows) -> Pictures:
        """Return the pictures of all inputs of the file; say which cannot be in it."""
        if not stored.inputs:
            raise UsageError("there are no pairs yet; export again once the run works on them")
        other = next((one.name for one in stored.inputs if OF not in one.item.attributes), None)
        if other is not None:
            raise UsageError(f"{other!r} does not hold pairs of pictures; a workflow makes some by its section pairs")
        found = Pictures(stored.inputs)
        lost = int((~found.decoded).sum())
        if lost:
            stored.notes.append(f"{plural(lost, 'picture')} left out: could not be read")
        return found

    def pairs(self, stored: StoredRows, pictures: Pictures) -> Iterator[Pair]:
        """Yield the pairs of all inputs, but for those of which a picture could not be read: their number is said."""
        lost = 0
        for one in stored.inputs:
            known = one.item.arrays
            wanted = [A.name, B.name, DECODED.name, "match", "match_score", *({"inlier", "model"} & known.keys())]
            numbers = pictures.numbers(one) if known else np.empty(0, np.int64)
            kind = kind_of(one)
            for block in one.blocks(wanted) if known else ():
                assert block.counts is not None
                a, b, decoded, match, scores = (block.arrays[name] for name in wanted[:5])
                inlier, model = (block.arrays.get(name) for name in ("inlier", "model"))
                a, b = numbers[a].tolist(), numbers[b].tolist()
                edges = pairwise(np.cumsum([0, *block.counts]).tolist())
                lost += int((~decoded).sum())
                for k, (start, stop) in enumerate(edges):
                    if decoded[k]:
                        yield Pair(
                            a[k], b[k], match[start:stop], scores[start:stop],
                            None if inlier is None else inlier[start:stop], None if model is None else model[k], kind,
                        )  # fmt: skip
        if lost:
            stored.notes.append(f"{plural(lost, 'pair')} of them left out: a picture of each could not be read")


def kind_of(one: InputRows) -> str | None:
    """Return the kind of model that pairs were verified by; None if they were not."""
    array = one.item.arrays.get("model") if "inlier" in one.item.arrays else None
    return None if array is None else str(array.attributes.get("model"))

"""Files of hloc (Hierarchical-Localization): features and matches in HDF5, and the list of pairs.

`--to matches.h5` writes `features.h5` and `pairs.txt` beside it. hloc reads all three in place of its own.
"""

from __future__ import annotations

from collections import Counter
from typing import IO, Any, ClassVar

import numpy as np

from pipeline.errors import UsageError
from pipeline.files.hdf5 import written_hdf5
from pipeline.pairs.views.matched import MatchExport, Pictures
from pipeline.text import plural
from pipeline.views.export import StoredRows

CENTRE = 0.5
"""Centre of the first pixel, which is 0, 0 in hloc, as in OpenCV."""


class Hloc(MatchExport):
    """Features and matches as hloc's `extract_features` and `match_features` write them."""

    suffixes: ClassVar[tuple[str, ...]] = ("matches.h5",)
    beside: ClassVar[tuple[str, ...]] = ("features.h5", "pairs.txt")

    def write(self, file: IO[bytes], stored: StoredRows) -> None:
        pictures = self.pictures(stored)
        groups = _groups(pictures)
        features, listed = stored.beside
        with written_hdf5(features.name, libver="latest") as (made, disk):
            for number in np.flatnonzero(pictures.decoded).tolist():
                _write_features(made.create_group(pictures.names[number]), pictures, number)
                disk.require_whole()
        with written_hdf5(file.name, libver="latest") as (made, disk):
            for pair in self.pairs(stored, pictures):
                count = pictures.count(pair.a)
                index = np.full(count, -1, np.int16 if pictures.count(pair.b) < 1 << 15 else np.int32)
                scores = np.zeros(count, np.float16)
                index[pair.match[:, 0]], scores[pair.match[:, 0]] = pair.match[:, 1], pair.scores
                group = made.create_group(f"{groups[pair.a]}/{groups[pair.b]}")
                group["matches0"], group["matching_scores0"] = index, scores
                listed.write(f"{pictures.names[pair.a]} {pictures.names[pair.b]}\n".encode())
                disk.require_whole()
        spaced = sum(len(name.split()) != 1 for name in pictures.names)
        if spaced:
            stored.notes.append(f"{plural(spaced, 'name')} with spaces: hloc reads no such name in pairs.txt")


def _groups(pictures: Pictures) -> list[str]:
    """Return what hloc calls each picture in the file of matches. Raises UsageError if two have one name there."""
    groups = [name.replace("/", "-") for name in pictures.names]
    twice = [name for name, count in Counter(groups).items() if count > 1]
    if twice:
        both = [name for name, group in zip(pictures.names, groups, strict=True) if group == twice[0]]
        raise UsageError(f"hloc has one name, {twice[0]!r}, for {both[0]!r} and {both[1]!r}; rename one of the two")
    return groups


def _write_features(group: Any, pictures: Pictures, number: int) -> None:
    found = pictures.keypoints(number)
    group["keypoints"] = found.points - np.float32(CENTRE)
    group["keypoints"].attrs["uncertainty"] = 1.0  # pixels, as hloc has for models that do not say
    group["descriptors"], group["scores"] = _descriptors(found.descriptors), found.scores
    group["image_size"] = pictures.sizes[number].astype(np.int64)
    if found.scales is not None and found.angles is not None:
        group["scales"], group["oris"] = found.scales / 2, found.angles


def _descriptors(stored: np.ndarray) -> np.ndarray:
    """Return float (d, n); bytes of SIFT as float16 of length 1, as hloc's matchers take them."""
    if stored.dtype != np.uint8:
        return np.ascontiguousarray(stored.T)
    wide = stored.astype(np.float32)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.ascontiguousarray((wide / np.maximum(lengths, 1)).T.astype(np.float16))

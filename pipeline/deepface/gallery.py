"""The folder of known faces that `find` searches, embedded once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.deepface import frames
from pipeline.deepface.analysis import Analysis
from pipeline.deepface.results import facial_area
from pipeline.models.weights import cache_folder

if TYPE_CHECKING:
    import pandas as pd

PICTURES_AT_ONCE = 64


@dataclass(frozen=True)
class Entry:
    """The faces of one picture; one row of NaN where none was found, as DeepFace keeps an entry without embedding."""

    areas: list[dict[str, int]]
    """x, y, w, h in pixels of the picture."""
    embeddings: np.ndarray
    """float32 (n, d)."""


@dataclass(frozen=True)
class Gallery:
    """Pictures and the faces in them, in the order of their paths."""

    paths: tuple[str, ...]
    """Of each face's picture."""
    areas: tuple[dict[str, int], ...]
    embeddings: np.ndarray
    """float32 (n, d); a row of NaN stands for a picture without a face."""

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def table(self) -> pd.DataFrame:
        """DeepFace's columns of each face: identity, hash, target_x, target_y, target_w, target_h."""
        import pandas as pd
        from deepface.commons.image_utils import find_image_hash

        hashes = {path: find_image_hash(path) for path in set(self.paths)}
        columns: dict[str, Any] = {"identity": list(self.paths), "hash": [hashes[path] for path in self.paths]}
        columns |= {f"target_{side}": [area[side] for area in self.areas] for side in "xywh"}
        return pd.DataFrame(columns)

    def distances(self, embeddings: np.ndarray, metric: str | Callable[..., Any], *, pairwise: bool) -> np.ndarray:
        """float64 (faces, gallery); infinite for pictures without a face. Metrics, and roundings, are DeepFace's.

        A metric of the user's own gets two vectors at a time (`pairwise`), or two matrices.
        """
        from deepface.modules.verification import find_distance

        known = np.isfinite(self.embeddings).all(axis=1)
        ours, theirs = self.embeddings[known].astype(np.float64), embeddings.astype(np.float64)
        found = np.full((len(embeddings), len(self.embeddings)), np.inf)
        if not len(ours):
            return found
        if isinstance(metric, str) or not pairwise:
            found[:, known] = find_distance(ours, theirs, metric)
        else:
            found[:, known] = [[float(find_distance(one, other, metric)) for one in ours] for other in theirs]
        return found

    @staticmethod
    def of_folder(folder: str | Path, analysis: Analysis, refresh: bool, silent: bool) -> Gallery:
        """Embed the pictures of a folder that the cache does not hold. With `refresh` false, as DeepFace has it, only
        what the cache knows of this folder counts.

        Raises DeepFace's EmptyDatasource (a ValueError) where there is no picture.
        """
        from deepface.commons.image_utils import list_images
        from deepface.modules.exceptions import EmptyDatasource

        if not Path(folder).is_dir():
            raise EmptyDatasource(f"{folder} is not a folder of pictures")
        cache = _Cache(analysis)
        pictures = sorted(list_images(str(folder)))
        if not refresh:
            pictures = [path for path in pictures if cache.has(path)]
        if not pictures:
            raise EmptyDatasource(f"No item found in {folder}")
        missing = [path for path in pictures if not cache.has(path)]
        if missing and not silent:
            print(f"{folder}: embedding {len(missing)} of {len(pictures)} pictures")
        for start in range(0, len(missing), PICTURES_AT_ONCE):
            _embed(missing[start : start + PICTURES_AT_ONCE], analysis, cache)
        entries = [(path, cache.get(path)) for path in pictures]
        rows = [(path, area) for path, entry in entries for area in entry.areas]
        return Gallery(
            tuple(path for path, _ in rows),
            tuple(area for _, area in rows),
            np.concatenate([entry.embeddings for _, entry in entries]),
        )


def _embed(paths: Sequence[str], analysis: Analysis, cache: _Cache) -> None:
    for path, faces in zip(paths, analysis.here(analysis.workflow, frames.of_pictures(paths, 1)), strict=True):
        boxes, landmarks = faces.arrays["box"], faces.arrays["landmarks"]
        areas = [
            {side: area[side] for side in "xywh"}
            for area in (facial_area(b, p, faces.width, faces.height) for b, p in zip(boxes, landmarks, strict=True))
        ]
        embeddings = faces.arrays["embedding"]
        if not areas:
            areas = [dict.fromkeys("xywh", 0)]
            embeddings = np.full((1, embeddings.shape[1]), np.nan, np.float32)
        cache.put(path, Entry(areas, embeddings))


class _Cache:
    """Entries by the content of the picture and all that shapes its embedding; files of plain arrays."""

    def __init__(self, analysis: Analysis) -> None:
        keys = analysis.workflow.keys()
        shape = json.dumps({name: keys[name] for name in ("detect", "embed")}, sort_keys=True)
        self._folder = cache_folder() / "gallery" / hashlib.sha256(shape.encode()).hexdigest()[:16]
        self._known: dict[str, Entry] = {}
        self._files: dict[str, Path] = {}

    def has(self, path: str) -> bool:
        return path in self._known or self._file(path).is_file()

    def get(self, path: str) -> Entry:
        if path not in self._known:
            with np.load(self._file(path), allow_pickle=False) as stored:
                areas = [dict(zip("xywh", map(int, row), strict=True)) for row in stored["areas"]]
                self._known[path] = Entry(areas, stored["embeddings"])
        return self._known[path]

    def put(self, path: str, entry: Entry) -> None:
        self._known[path] = entry
        rows = np.array([[area[side] for side in "xywh"] for area in entry.areas], np.int64)
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time, no more
            self._folder.mkdir(parents=True, exist_ok=True)
            handle, partial = tempfile.mkstemp(dir=self._folder, suffix=".partial")
            with os.fdopen(handle, "wb") as file:
                np.savez(file, areas=rows, embeddings=entry.embeddings)
            os.replace(partial, self._file(path))

    def _file(self, path: str) -> Path:
        """Where the entry of a picture lies; its content is read once."""
        if path not in self._files:
            with open(path, "rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            self._files[path] = self._folder / f"{content}.npz"
        return self._files[path]

"""The folder of known faces that `find` searches, embedded once."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.faces.deepface.analysis import Analysis
from pipeline.faces.deepface.results import facial_area
from pipeline.faces.people.matching import Matcher, checked_metric
from pipeline.faces.people.pictures import PictureCache, PictureFaces, Recipe
from pipeline.files.regular import open_file
from pipeline.media.picture import UnreadableError
from pipeline.text import plain

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Gallery:
    """Pictures and the faces in them, in the order of their paths."""

    paths: tuple[str, ...]
    """Path of each face's picture."""
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
        """Return float64 (faces, gallery), infinite for pictures without a face. Metrics and roundings are DeepFace's.

        A metric of the user's own gets two vectors at a time (`pairwise`), or two matrices.
        """
        if isinstance(metric, str):
            return Matcher(self.embeddings, checked_metric(metric)).distances(embeddings)
        known = np.isfinite(self.embeddings).all(axis=1)
        ours, theirs = self.embeddings[known].astype(np.float64), embeddings.astype(np.float64)
        found = np.full((len(embeddings), len(self.embeddings)), np.inf)
        if not len(ours):
            return found
        if pairwise:
            found[:, known] = [[float(metric(one, other)) for one in ours] for other in theirs]
        else:
            found[:, known] = metric(ours, theirs)
        return found

    @staticmethod
    def of_folder(folder: str | Path, analysis: Analysis, refresh: bool, silent: bool) -> Gallery:
        """Embed the pictures of a folder that the cache does not hold.

        With `refresh` false, as in DeepFace, use only pictures that are in the cache already.

        Raises DeepFace's PathNotFound if there is no folder, and EmptyDatasource if it holds no picture; both are
        ValueErrors.
        """
        from deepface.modules.exceptions import EmptyDatasource, PathNotFound

        if not Path(folder).is_dir():
            raise PathNotFound(f"{folder} is not a folder of pictures")
        cache = PictureCache(Recipe.of_store({"workflow": analysis.workflow.resolved()}, str(folder)))
        pictures = sorted(_list_images(folder))
        if not refresh:
            pictures = [path for path in pictures if cache.has(path)]
        if not pictures:
            raise EmptyDatasource(f"No item found in {folder}")
        missing = sum(not cache.has(path) for path in pictures)
        if missing and not silent:
            print(plain(f"{folder}: embedding {missing} of {len(pictures)} pictures"))
        rows = [
            (path, area, vector)
            for path, faces in zip(pictures, cache.faces(pictures), strict=True)
            for area, vector in _entries(path, faces, cache.recipe.dimension)
        ]
        return Gallery(
            tuple(path for path, _, _ in rows),
            tuple(area for _, area, _ in rows),
            np.stack([vector for _, _, vector in rows]),
        )


def _list_images(folder: str | Path) -> Iterator[str]:
    """Yield the pictures that DeepFace's `list_images` gives; files that cannot be read, and pipes, among them."""
    from deepface.commons.image_utils import IMAGE_EXTS, detect_image_format

    for top, _, names in os.walk(str(folder)):
        for path in (os.path.join(top, name) for name in names if os.path.splitext(name)[1].lower() in IMAGE_EXTS):
            try:
                with open_file(path) as file:
                    is_picture = detect_image_format(file.read(8)) is not None
            except OSError:
                is_picture = True
            if is_picture:
                yield path


def _entries(
    path: str, faces: PictureFaces | UnreadableError, dimension: int
) -> list[tuple[dict[str, int], np.ndarray]]:
    """Return area and embedding of each face of a picture.

    As in DeepFace, a picture without a face, or that cannot be read, gives one entry whose embedding is NaN.
    """
    if isinstance(faces, UnreadableError):
        warnings.warn(plain(f"{faces}; no face can match it"), stacklevel=2)
    if isinstance(faces, UnreadableError) or not len(faces):
        return [(dict.fromkeys("xywh", 0), np.full(dimension, np.nan, np.float32))]
    width, height = map(int, faces.size)
    found = []
    for k in np.argsort(faces.rank, kind="stable"):
        area = facial_area(faces.box[k], faces.landmarks[k], width, height)
        found.append(({side: area[side] for side in "xywh"}, faces.embedding[k]))
    return found

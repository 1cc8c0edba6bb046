"""Stored faces as a table: `pipeline.open(OUT).faces()`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import StoreError
from pipeline.faces.views.columns import LANDMARK_COLUMNS
from pipeline.store.nodes import located
from pipeline.store.read import RunInput
from pipeline.store.run import require_store
from pipeline.views.tables.rows import TabledRun

if TYPE_CHECKING:
    import pandas as pd


def open(path: str | os.PathLike[str]) -> FacesRun:
    """Open a run store for reading, finished or not. Raises StoreError if there is none at the path."""
    place = located(path)
    require_store(place)
    return FacesRun(place)


class FacesRun(TabledRun):
    """A run store opened for reading, with its faces as a table."""

    def faces(self, input: str | None = None, *, landmarks: bool = True) -> pd.DataFrame:
        """Return one row per face: input, frame and time_seconds (of a picture: name), x, y, w, h, confidence.

        Then follow all other arrays with one value per face, names (`person_name`, `identity_name`), and the landmarks
        as `nose_x` and so on.

        `person` has the numbers that the registry gives today: after two people were merged, that of the one who is
        left. The rows of `embeddings` are these rows.
        """
        return self.table(input, lambda item: self._faces_of(item, landmarks))

    def embeddings(self, input: str | None = None, name: str = "embedding") -> np.ndarray:
        """Return float32 (faces, d): row k belongs to row k of `faces` of the same input (or of all).

        Raises StoreError if there is no input.
        """
        found = [item.array(name) for item in self.chosen(input)]
        if not found:
            raise StoreError(f"{self.path} has no inputs yet")
        return np.concatenate(found)

    def _faces_of(self, item: RunInput, landmarks: bool) -> dict[str, np.ndarray]:
        single = [name for name, array in item.arrays.items() if array.dims == ("face",)]
        names = ("person_name", "identity_name", *(LANDMARK_COLUMNS if landmarks else ()))
        wanted = ("frame", "time_seconds", "name", *"xywh", "confidence", *single, *names)
        return self.columns(item, "face", order=lambda made: [name for name in dict.fromkeys(wanted) if name in made])

"""Stored faces as a table: `pipeline.open(OUT).faces()`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import StoreError
from pipeline.faces.people.labels import labels
from pipeline.store.read import Run, RunInput
from pipeline.store.run import require_store

if TYPE_CHECKING:
    import pandas as pd

LANDMARKS = ("right_eye", "left_eye", "nose", "mouth_right", "mouth_left")


def open(path: str | os.PathLike[str]) -> FacesRun:
    """Open a run store for reading, finished or not. Raises StoreError if there is none at the path."""
    place = Path(path).expanduser().resolve()
    require_store(place)
    return FacesRun(place)


class FacesRun(Run):
    """A run store opened for reading, with its faces as a table."""

    def faces(self, input: str | None = None, *, landmarks: bool = True) -> pd.DataFrame:
        """Return one row per face: input, frame, time_seconds, x, y, w, h, confidence, the landmarks as `nose_x` and so
        on, every other array with one value per face, and names (`person_name`, `identity_name`). The rows of
        `embeddings` are these rows."""
        return self.table(input, lambda item: _faces_of(item, landmarks))

    def embeddings(self, input: str | None = None, name: str = "embedding") -> np.ndarray:
        """float32 (faces, d): row k belongs to row k of `faces` of the same input (or of all). Raises StoreError if
        there is no input."""
        found = [item.array(name) for item in self.chosen(input)]
        if not found:
            raise StoreError(f"{self.path} has no inputs yet")
        return np.concatenate(found)


def _faces_of(item: RunInput, landmarks: bool) -> dict[str, np.ndarray]:
    arrays = item.arrays
    if "face_frame" not in arrays:
        return {"frame": np.empty(0, np.int64), "time_seconds": np.empty(0)}
    wanted = [name for name, array in arrays.items() if array.dims == ("face",) and name != "face_frame"]
    wanted += [name for name in ("box", "landmarks") if name in arrays and (landmarks or name == "box")]
    found = item.read(["frame", "time_seconds", "face_frame", *wanted])
    rows = found.pop("face_frame")
    columns = {"frame": found.pop("frame")[rows], "time_seconds": found.pop("time_seconds")[rows]}
    if "box" in found:
        box = found.pop("box")
        columns.update({side: box[:, k] for k, side in enumerate("xywh")})
    points = found.pop("landmarks", None)
    first = {"confidence": found.pop("confidence")} if "confidence" in found else {}
    columns.update({**first, **found})
    columns.update(_names_of(item, found))
    if points is not None:
        columns.update(
            {f"{part}_{axis}": points[:, k, j] for k, part in enumerate(LANDMARKS) for j, axis in enumerate("xy")}
        )
    return columns


def _names_of(item: RunInput, found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`person_name`: as the registry has it now; `identity_name`: of the gallery. None where a face has none."""
    columns = {}
    for name in (name for name in ("person", "identity") if name in found):
        who = labels(item, name)
        codes, rows = np.unique(who.code, return_inverse=True)
        names = [who.names[code] if code in who.named else None for code in codes.tolist()]
        columns[f"{name}_name"] = np.array(names, object)[rows] if names else np.empty(0, object)
    return columns

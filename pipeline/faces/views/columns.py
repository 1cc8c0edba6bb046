"""Columns that only faces have: landmarks by their names, people by the names that a registry or a gallery gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from pipeline.faces.people.evidence import LEVELS
from pipeline.faces.people.labels import UNKNOWN, labels, names_in_gallery
from pipeline.store.read import RunInput
from pipeline.store.schema import Array
from pipeline.views.tables.rows import AxisColumns, Column, numbered, part

LANDMARKS = ("right_eye", "left_eye", "nose", "mouth_right", "mouth_left")
"""Names of the five landmarks in tables: the person's own right and left."""
LANDMARK_COLUMNS = tuple(f"{point}_{axis}" for point in LANDMARKS for axis in "xy")


class FaceColumns(AxisColumns):
    """Boxes, scores, landmarks and people first."""

    first: ClassVar[tuple[str, ...]] = ("box", "confidence", "landmarks", "track", "person", "identity")
    score: ClassVar[str] = "confidence"
    points: ClassVar[tuple[str, ...]] = LANDMARKS
    identities: ClassVar[tuple[str, ...]] = ("person", "person_name", "identity", "identity_name")

    def categories(self, axis: str, classes: Sequence[str]) -> list[dict[str, Any]]:
        """Return the one category of COCO, with its keypoints."""
        return [{"id": 1, "name": axis, "supercategory": "person", "keypoints": list(LANDMARKS), "skeleton": []}]

    def columns(self, item: RunInput, array: Array) -> dict[str, Column] | None:
        """Return the columns of one array. Raises StoreError if it is damaged."""
        if array.name == "box" and array.shape == (4,):
            return {side: part(array, k) for k, side in enumerate("xywh")}
        if array.name == "landmarks" and array.shape == (len(LANDMARKS), 2):
            return {name: part(array, k) for k, name in enumerate(LANDMARK_COLUMNS)}
        if array.name == "person":
            who = labels(item, "person")  # as the registry has it now
            number = Column(pa.int32(), lambda block: who.code[block.rows], none=UNKNOWN)
            given = {code: who.names[code] for code in who.named}
            return {"person": number, "person_name": numbered("person", given, lambda block: who.code[block.rows])}
        if array.name == "identity":
            number = Column(
                pa.int32(), lambda block: block.arrays["identity"].astype(np.int32), ("identity",), none=UNKNOWN
            )
            given = dict(enumerate(names_in_gallery(array.attributes)))
            return {"identity": number, "identity_name": numbered("identity", given)}
        if array.name == "identity_level":
            return {"identity_level": numbered("identity_level", dict(enumerate(LEVELS)))}
        return None

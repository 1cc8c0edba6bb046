"""Columns of objects, and of frames on which objects were counted, by the names of lines, zones and classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from pipeline.objects.classes import COCO_NAMES, OLDER_NAMES
from pipeline.store.read import RunInput
from pipeline.store.schema import Array
from pipeline.views.tables.rows import AxisColumns, Column, part

_KINDS = {"crossings": (("line", "direction"), ("in", "out")), "counts": (("zone",), ("inside",))}
"""Arrays of the stage `count`: their dimensions after the frame, and the ends of the names of their columns."""
_GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
"""Ids up to 90 that COCO gives to no class."""
COCO_IDS = [number for number in range(1, 91) if number not in _GAPS]


class ObjectColumns(AxisColumns):
    """Boxes, classes, scores and tracks first."""

    first: ClassVar[tuple[str, ...]] = ("box", "class", "score", "track")

    def categories(self, axis: str, classes: Sequence[str]) -> list[dict[str, Any]]:
        """Return COCO's categories; its own 80 classes in their order have its own ids, which go up to 90."""
        made = super().categories(axis, classes)
        if tuple(OLDER_NAMES.get(name, name) for name in classes) == COCO_NAMES:
            return [{**one, "id": number} for one, number in zip(made, COCO_IDS, strict=True)]
        return made


class FrameColumns(AxisColumns):
    """Counts of a frame: objects that crossed each line, and those inside each zone."""

    def columns(self, item: RunInput, array: Array) -> dict[str, Column] | None:
        """Return the columns of one array: LINE_in, LINE_out, ZONE_inside; None for other arrays."""
        names = counted_names(array)
        return {name: part(array, k) for k, name in enumerate(names)} if names else None


def counters_of(item: RunInput) -> list[Array]:
    """Return the arrays of the stage `count` that an input has: crossings of lines, and objects inside zones."""
    return [item.arrays[name] for name in _KINDS if name in item.arrays and counted_names(item.arrays[name])]


def counted_names(array: Array) -> list[str]:
    """Return names of the numbers of an array of counts, in order; of another array none."""
    dims, ends = _KINDS.get(array.name, ((), ()))
    names = [str(name) for name in array.attributes.get(f"{dims[0]}_names", ())] if dims else []
    fits = array.dims[1:] == dims and array.shape[:1] == (len(names),)
    return [f"{name}_{end}" for name in names for end in ends] if fits else []

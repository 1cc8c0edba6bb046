"""Which axes stores have, and which arrays say what an item is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pipeline.engine.finding import DEFAULT_SOURCE, find_source
from pipeline.errors import ReelgraphError, UsageError
from pipeline.store.schema import Array, Schema
from pipeline.text import unknown

if TYPE_CHECKING:
    from pipeline.store.read import Run, RunInput
    from pipeline.store.schema import Axis

_USUAL = (Array("frame", ("frame",), "int64"), Array("time_seconds", ("frame",), "float64"))
_ALSO = Array("name", ("frame",), "string")
"""Item arrays of the sources that a store without a workflow may come from."""


def axes_of(runs: Iterable[Run]) -> list[str]:
    """Return the ragged axes of stores in order; of what is not begun, those that its workflow will make."""
    found: dict[str, None] = {}
    for run in runs:
        begun = [item for item in run.inputs.values() if item.arrays]
        found |= dict.fromkeys(axis.name for item in begun for axis in item.axes)
        if not begun:
            found |= dict.fromkeys(axis.name for axis in _planned(run).axes)
    return list(found)


def item_of(runs: Iterable[Run]) -> str:
    """Return the item axis of stores: "frame", "pair"."""
    for run in runs:
        for item in run.inputs.values():
            if item.arrays:
                return item.item
    return "frame"


def chosen_axis(runs: Sequence[Run], name: str | None) -> str:
    """Return `name`, by default the first ragged axis, else the item axis. Raises UsageError if there is none."""
    axes, item = axes_of(runs), item_of(runs)
    if name is not None and name not in (*axes, item):
        raise UsageError(unknown("axis", name, [*axes, item]))
    return name or next(iter(axes), item)


def _planned(run: Run) -> Schema:
    """Return what the store's workflow makes; nothing if it cannot be told here (a stage of another machine)."""
    from pipeline.engine.workflow import build_workflow

    try:
        return build_workflow(run.path.name, run.attributes["workflow"], run.path.parent).schema
    except (KeyError, ReelgraphError):
        return Schema("frame", _USUAL)


def source_arrays(run: Run) -> list[Array]:
    """Return the item arrays that say which item a row belongs to: those of the store's source."""
    source = run.attributes.get("workflow", {}).get("source", {})
    try:
        if source:
            return list(find_source(source.get("kind", DEFAULT_SOURCE)).arrays)
    except ReelgraphError:
        pass  # a source that is not installed here
    there = {name for item in run.inputs.values() for name in item.arrays}
    return [array for array in (*_USUAL, _ALSO) if array.name in there] or list(_USUAL)


def axis_in(item: RunInput, name: str) -> Axis | None:
    """Return the ragged axis of this name, as the input has it; None if it has none, or if the name is an item's."""
    return next((axis for axis in item.axes if axis.name == name and axis.of == item.item), None)


def has_rows(item: RunInput, axis: str) -> bool:
    """Tell whether the input has arrays along the axis."""
    return bool(item.arrays) and (axis == item.item or axis_in(item, axis) is not None)

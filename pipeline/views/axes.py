"""Which axes stores have, and which arrays say what an item is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.engine.finding import DEFAULT_SOURCE, SOURCES, find_source, find_stage, is_known, names
from pipeline.errors import ReelgraphError, UsageError
from pipeline.store.facts import stage_sections
from pipeline.store.schema import Array, implied_axes
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
            found |= dict.fromkeys(_planned(run))
    return list(found)


def item_of(runs: Iterable[Run]) -> str:
    """Return the item axis of stores: "frame", "pair"."""
    for run in runs:
        for item in run.inputs.values():
            if item.arrays:
                return item.item
    return "frame"


def noun_of(runs: Iterable[Run]) -> str:
    """Return the name of one item for people: "picture" if the source of a store says so, else its item axis."""
    runs = list(runs)
    for run in runs:
        kind = source_options(run).get("kind")
        if kind in names(SOURCES) and find_source(str(kind)).noun:
            return find_source(str(kind)).noun
    return item_of(runs)


def chosen_axis(runs: Sequence[Run], name: str | None) -> str:
    """Return `name`, by default the first ragged axis, else the item axis. Raises UsageError if there is none."""
    axes, item = axes_of(runs), item_of(runs)
    if name is not None and name not in (*axes, item):
        raise UsageError(unknown("axis", name, [*axes, item]))
    return name or next(iter(axes), item)


def _planned(run: Run) -> list[str]:
    """Return the ragged axes that the stages of the store's workflow make, as far as they are installed here."""
    found: dict[str, None] = {}
    for section in stage_sections(run.attributes.get("workflow")).values():
        use = str(section.get("use", ""))
        try:
            stage = find_stage(use) if is_known(use) else None  # a store's word must not import a module
        except ReelgraphError:
            continue
        outputs = getattr(stage, "outputs", ())
        if stage is not None and isinstance(outputs, tuple):
            item = next((array.dims[0] for array in outputs), "frame")
            found |= dict.fromkeys(axis.name for axis in implied_axes(outputs, item, getattr(stage, "axes", ())))
    return list(found)


def _section(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def source_options(run: Run) -> dict[str, Any]:
    """Return the section `source` of the workflow that made a store; empty if there is none."""
    return _section(_section(run.attributes.get("workflow")).get("source"))


def source_arrays(run: Run) -> list[Array]:
    """Return the item arrays that say which item a row belongs to: those of the store's source."""
    source = source_options(run)
    kind = source.get("kind", DEFAULT_SOURCE)
    if source and kind in names(SOURCES):
        return list(find_source(kind).arrays)
    there = {name for item in run.inputs.values() for name in item.arrays}
    return [array for array in (*_USUAL, _ALSO) if array.name in there] or list(_USUAL)


def axis_in(item: RunInput, name: str) -> Axis | None:
    """Return the ragged axis of this name, as the input has it; None if it has none, or if the name is an item's."""
    return next((axis for axis in item.axes if axis.name == name and axis.of == item.item), None)


def has_rows(item: RunInput, axis: str) -> bool:
    """Tell whether the input has arrays along the axis."""
    return bool(item.arrays) and (axis == item.item or axis_in(item, axis) is not None)

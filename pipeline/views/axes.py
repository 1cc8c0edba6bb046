"""Which axes stores have, and which arrays say what an item is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.engine.finding import DEFAULT_SOURCE, PASSES, SOURCES, find_pass, find_source, find_stage, is_known, names
from pipeline.errors import ReelgraphError, UsageError
from pipeline.store.facts import stage_sections
from pipeline.store.read import Run, RunInput
from pipeline.store.schema import DECODED, Array, Axis, implied_axes
from pipeline.text import unknown

_USUAL = (Array("frame", ("frame",), "int64"), Array("time_seconds", ("frame",), "float64"))
_ALSO = Array("name", ("frame",), "string")
"""Item arrays of the sources that a store without a workflow may come from."""


def axes_of(runs: Iterable[Run]) -> list[str]:
    """Return the ragged axes of stores in order; of what is not begun, those that its workflow will make."""
    return list(_items_by_axis(runs))


def items_of(runs: Iterable[Run]) -> list[str]:
    """Return the item axes of stores in order: "frame", and "pair" if pairs were made of the frames."""
    begun = (item.item for run in runs for item in run.inputs.values() if item.arrays)
    return list(dict.fromkeys(begun)) or [DECODED.dims[0]]


def item_of(runs: Iterable[Run], axis: str | None = None) -> str:
    """Return the item axis that rows of an axis belong to: "frame" for "face"; by default that of the source."""
    runs = list(runs)
    items = items_of(runs)
    return axis if axis in items else _items_by_axis(runs).get(axis or "", items[0])


def noun_of(runs: Iterable[Run], item: str | None = None) -> str:
    """Return the name of one item for people: "picture" if the source of a store says so, else its item axis."""
    runs = list(runs)
    of_source = item_of(runs)
    if item not in (None, of_source):
        return item
    for run in runs:
        kind = source_options(run).get("kind")
        if kind in names(SOURCES) and find_source(str(kind)).noun:
            return find_source(str(kind)).noun
    return of_source


def chosen_axis(runs: Sequence[Run], name: str | None) -> str:
    """Return `name`, by default the first ragged axis, else the item axis. Raises UsageError if there is none."""
    axes, items = axes_of(runs), items_of(runs)
    if name is not None and name not in (*axes, *items):
        raise UsageError(unknown("axis", name, [*axes, *items]))
    return name or next(iter(axes), items[0])


def _items_by_axis(runs: Iterable[Run]) -> dict[str, str]:
    """Return the item axis of each ragged axis, in order."""
    found: dict[str, str] = {}
    for run in runs:
        begun = [item for item in run.inputs.values() if item.arrays]
        there = {axis.name: axis.of for item in begun for axis in item.axes} if begun else _planned(run)
        found = found | {name: of for name, of in there.items() if name not in found}
    return found


def _planned(run: Run) -> dict[str, str]:
    """Return the ragged axes that the stages of the store's workflow make, as far as they are installed here."""
    found: dict[str, str] = {}
    for section in stage_sections(run.attributes.get("workflow")).values():
        use = str(section.get("use", ""))
        try:
            stage = find_stage(use) if is_known(use) else None  # a store's word must not import a module
        except ReelgraphError:
            continue
        outputs = getattr(stage, "outputs", ())
        if stage is not None and isinstance(outputs, tuple):
            item = str(getattr(stage, "item", DECODED.dims[0]))
            found |= {axis.name: axis.of for axis in implied_axes(outputs, item, getattr(stage, "axes", ()))}
    return found


def _section(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def source_options(run: Run) -> dict[str, Any]:
    """Return the section `source` of the workflow that made a store; empty if there is none."""
    return _section(_section(run.attributes.get("workflow")).get("source"))


def source_arrays(run: Run, item: str | None = None) -> list[Array]:
    """Return the item arrays that say which item a row belongs to.

    They are those of the store's source, or of a second pass, if `item` names the axis of its items.
    """
    if item not in (None, item_of([run])):
        sections = _section(run.attributes.get("workflow")).keys() & names(PASSES).keys()
        made = (one for one in map(find_pass, sorted(sections)) if one.item == item)
        return [array for one in made for array in one.arrays]
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

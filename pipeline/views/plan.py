"""`reelgraph plan`: what a run would do, before anything is spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.engine.ahead import check_further, items_of, with_their_parts
from pipeline.engine.bound import BoundWorkflow
from pipeline.engine.parts import find_moved, over, with_parts
from pipeline.engine.plan import check_keys, find_inputs, open_source, plan_input
from pipeline.engine.source import InputRef, StoredSource
from pipeline.engine.workflow import Workflow
from pipeline.errors import InputError
from pipeline.store.run import RunStore, is_unused
from pipeline.text import duration, plural, plural_of, size

SECONDS_PER_LOADED_MEGAPIXEL = 0.0012
"""Seconds to decode a megapixel on all cores of a 2-core machine (`make bench`); assumed until the store has times."""

FACTS = ("source_frames", "decoder", "width", "height")
"""Facts of a source that `--json` shows, as far as it has them."""


@dataclass
class InputView:
    """One line of the plan."""

    name: str
    path: str
    frames: int
    """Items to work on."""
    chunk_frames: int
    chunks: int
    chunks_done: int
    chunks_failed: int
    frames_to_do: int
    source_frames_to_decode: int
    facts: dict[str, Any]
    """Facts of how the source is read: source_frames, width, height, decoder, as far as it has them."""
    description: str
    """The source in words."""
    item_bytes: int

    def as_dict(self) -> dict[str, Any]:
        values = asdict(self)
        left_out = ("facts", "description", "item_bytes")
        return {**{key: value for key, value in values.items() if key not in left_out}, **self.facts}


@dataclass
class PlanView:
    """Plan of a run."""

    workflow: str
    out: str
    item: str = "frame"
    """Noun of one item."""
    inputs: list[InputView] = field(default_factory=list)
    unusable: list[dict[str, str]] = field(default_factory=list)
    estimated_seconds: float = 0.0
    estimated_disk_bytes: float = 0.0
    chunk_bytes: int = 0
    """Loaded items of the largest chunk."""
    estimate_source: str = ""
    notes: list[str] = field(default_factory=list)
    """Lines for the user on how inputs are found and read."""
    further: list[PlanView] = field(default_factory=list)
    """Passes over what the store then holds."""
    expected: int | None = 0
    """Items, at most, that a further pass will have beside those of `inputs`: known once the pass before it is done.
    None if not even their number is known."""

    def as_dict(self) -> dict[str, Any]:
        left_out = ("item", "further", "expected")
        values = {key: value for key, value in vars(self).items() if key not in left_out}
        further = {
            plural_of(one.item): {
                "inputs": [line.as_dict() for line in one.inputs],
                "expected": one.expected,
                "estimated_seconds": one.estimated_seconds,
                "estimated_disk_bytes": one.estimated_disk_bytes,
            }
            for one in self.further
        }
        return {**values, "inputs": [line.as_dict() for line in self.inputs], **further}


def survey(workflow: Workflow, inputs: Sequence[str], out: Path) -> PlanView:
    """Probe every input and ask the store what is missing. Writes nothing.

    Raises StoreError if the store does not fit the workflow, and InputError if a further pass does not fit an input.
    Unusable inputs are listed.
    """
    refs = find_inputs(workflow, inputs)
    store = RunStore.open(out, mode="r") if out.exists() and not is_unused(out) else None
    stages: dict[str, Any] = {}
    for name in store.input_names() if store is not None else ():
        assert store is not None
        stages = {**store.input(name).attributes.get("stages", {}), **stages}
    bound = BoundWorkflow(workflow, stages)
    view = PlanView(workflow.name, str(out), workflow.noun)
    if store is not None:
        find_moved(workflow, refs, store, view.notes.append)
    found = list(with_parts(workflow, refs, store, view.notes.append)) if store is not None else refs
    check_further(workflow, refs, found, store)
    for ref in found:
        view.notes += [ref.note] if ref.note else []
        try:
            _add(view, bound, ref, store)
        except InputError as err:
            view.unusable.append({"path": ref.path, "error": str(err)})
    _estimate(view, bound, store)
    for one in workflow.further:
        view.further.append(_further(view, BoundWorkflow(one, stages), with_their_parts(refs, found), store))
    return view


def _further(
    first: PlanView, bound: BoundWorkflow, groups: Sequence[Sequence[InputRef]], store: RunStore | None
) -> PlanView:
    """Plan a further pass: exactly over inputs that are complete, and by an estimate over the others.

    `groups`: each input with its later parts.
    """
    workflow = bound.workflow
    view = PlanView(first.workflow, first.out, workflow.noun)
    source, options, base = workflow.source, workflow.source_options, workflow.base
    assert issubclass(source, StoredSource)
    assert base is not None
    ready = [] if store is None else list(over(workflow, [group[0] for group in groups], store, lambda _: None))
    planned = {ref.inputs[-1].name for ref in ready}
    lines = {line.path: line for line in first.inputs}
    usable = [[lines[part.path] for part in group if part.path in lines] for group in groups]
    growing = {line.name for some in usable if any(line.name not in planned for line in some) for line in some}
    for ref in ready:
        name = ref.inputs[-1].name
        try:
            _add(view, bound, ref, store)
        except InputError as err:
            if name in growing:  # it may need what is not there yet: items of a later part
                planned.discard(name)
            else:
                view.unusable.append({"path": ref.path, "error": str(err)})
    counts: list[int | None] = []
    for group, some in zip(groups, usable, strict=True):
        earlier, values = 0, partial(items_of, base, group, store)
        for line in some:
            if line.name not in planned:
                counts.append(source.expected(options, line.frames, earlier, values))
            earlier += line.frames
    view.expected = None if None in counts else sum(count or 0 for count in counts)
    _estimate(view, bound, store)
    return view


def _add(view: PlanView, bound: BoundWorkflow, ref: InputRef, store: RunStore | None) -> None:
    name = store.find_input(ref.path) if store is not None else None
    known = store.input(name) if store is not None and name is not None else None
    stored = known.attributes if known is not None else None
    if stored is not None and store is not None:
        check_keys(bound, store.attributes.get("workflow", {}), stored.get("stages", {}), str(name))
    source = open_source(bound.workflow, ref, stored, known.inventory() if known is not None else None)
    view.notes += [source.note] if source.note else []
    plan = plan_input(bound, name or ref.name, source, stored, known.chunks() if known is not None else None)
    to_do = plan.items_of(plan.todo)
    cost = source.cost(plan.chunk_items)
    view.inputs.append(
        InputView(
            name=plan.name,
            path=ref.path,
            frames=plan.n_items,
            chunk_frames=plan.chunk_items,
            chunks=plan.total,
            chunks_done=len(plan.done),
            chunks_failed=len(plan.failed),
            frames_to_do=to_do,
            source_frames_to_decode=round(cost * to_do / max(plan.n_items, 1)),
            facts={key: source.facts[key] for key in FACTS if key in source.facts},
            description=source.description,
            item_bytes=source.item_bytes,
        )
    )
    view.chunk_bytes = max(view.chunk_bytes, source.item_bytes * min(plan.chunk_items, max(plan.n_items, 1)))


def _estimate(view: PlanView, bound: BoundWorkflow, store: RunStore | None) -> None:
    known = store.attributes if store is not None else {}
    if bound.workflow.base is None:
        speed = known.get("speed") or {}
        per_item, rows_known = speed.get("seconds_per_frame"), speed.get("rows_per_frame")
    else:
        speed = (known.get("further_speed") or {}).get(bound.schema.item) or {}
        per_item, rows_known = speed.get("seconds_per_item"), speed.get("rows_per_item")
    stages = [node.stage for node in bound.chunk_stages]
    usual = {axis.name: stage.usual_rows for stage in stages for axis in stage.axes}
    rows = {axis.name: float((rows_known or {}).get(axis.name, usual.get(axis.name, 2))) for axis in bound.schema.axes}
    for line in view.inputs:
        megapixels = line.item_bytes / 3e6
        if per_item is None:
            per_frame = sum(stage.seconds_per_megapixel * megapixels for stage in stages)
            per_frame += sum(stage.seconds_per_row * max(rows.values(), default=1.0) for stage in stages)
            seconds = line.frames_to_do * per_frame
            seconds += line.source_frames_to_decode * megapixels * SECONDS_PER_LOADED_MEGAPIXEL
        else:
            seconds = line.frames_to_do * float(per_item)
        view.estimated_seconds += seconds
        view.estimated_disk_bytes += line.frames_to_do * _bytes_per_item(bound, rows)
    if view.expected:
        by_rows = sum(stage.seconds_per_row * max(rows.values(), default=1.0) for stage in stages)
        view.estimated_seconds += view.expected * (by_rows if per_item is None else float(per_item))
        view.estimated_disk_bytes += view.expected * _bytes_per_item(bound, rows)
    view.estimate_source = "figures of a 2-core machine" if per_item is None else "times of the chunks done so far"


def _bytes_per_item(bound: BoundWorkflow, rows: dict[str, float]) -> float:
    """Return the uncompressed size; vectors hardly compress, the rest is small beside them."""
    schema = bound.schema
    index = float(np.dtype(np.int64).itemsize)
    each = {schema.item: 1.0, **rows}
    arrays = (*schema.item_arrays, *schema.arrays)
    size_of_rows = sum(array.row_bytes * each.get(array.dims[0], 1.0) for array in arrays)
    return size_of_rows + index * sum(rows.values())


def lines(view: PlanView) -> list[str]:
    """Return the plan for a person."""
    nouns = plural_of(view.item)
    shown = []
    for line in view.inputs:
        of = f" of {line.facts['source_frames']}" if "source_frames" in line.facts else ""
        how = f" ({line.description})" if line.description else ""
        shown.append(
            f"{line.name}: {line.frames}{of} {nouns}{how}, "
            f"{plural(line.chunks, 'chunk')} of {line.chunk_frames}: "
            f"{line.chunks_done} done, {line.chunks_failed} failed, "
            f"{line.chunks - line.chunks_done - line.chunks_failed} to do"
        )
    shown += view.notes
    shown += [f"not usable: {entry['error']}" for entry in view.unusable]
    to_do = sum(line.frames_to_do for line in view.inputs)
    decode = sum(line.source_frames_to_decode for line in view.inputs)
    decoding = f" (decoding {decode})" if decode != to_do else ""
    shown.append(
        f"to do: {plural(to_do, view.item)}{decoding}, about {duration(view.estimated_seconds)} here "
        f"(from {view.estimate_source}), {size(view.estimated_disk_bytes)} on disk, "
        f"{size(view.chunk_bytes)} of {nouns} per chunk"
    )
    for one in view.further:
        shown += _further_lines(one)
    return shown


def _further_lines(view: PlanView) -> list[str]:
    nouns = plural_of(view.item)
    shown = [
        f"{line.name}: {line.frames} {nouns}, {plural(line.chunks, 'chunk')} of {line.chunk_frames}: "
        f"{line.chunks_done} done, {line.chunks_failed} failed, {line.frames_to_do} {nouns} to do"
        for line in view.inputs
    ]
    shown += [f"not usable: {entry['error']}" for entry in view.unusable]
    if view.expected is None:
        return [*shown, f"then {nouns}: their number is known once these are done"]
    to_do = sum(line.frames_to_do for line in view.inputs) + view.expected
    most = "at most " if view.expected else ""
    return [
        *shown,
        f"then {most}{plural(to_do, view.item)}, about {duration(view.estimated_seconds)} here "
        f"(from {view.estimate_source}), {size(view.estimated_disk_bytes)} on disk",
    ]

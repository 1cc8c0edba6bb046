"""Removing rows from a compacted input, so that nothing of them is left on disk.

The steps, in order:

1. Write every array that changes into a folder aside.
2. Commit them with one atomic write of the input's `zarr.json`, which names them.
3. Delete each old array, and put the new one in its place. Then drop the names.

A kill before the commit leaves the input as it was. After it the next opening for writing takes the remaining steps
(`run.finish_removal`), and readers find each array in either place.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import StoreError
from pipeline.store.compact import SHARD_CHUNKS, write_array
from pipeline.store.nodes import ASIDE, CHUNKS, Group, below, disk_errors, read_array_node, remove_tree
from pipeline.store.run import REMOVING, VOID_CHUNKS, InputStore, RunStore, finish_removal, remove_void_chunks
from pipeline.store.schema import DECODED, STRING, Array, axes_of

BLOCK_BYTES = 32 << 20

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Rows:
    """An axis that can lose rows, and what follows from it. The caller, who knows the arrays, declares it."""

    axis: str
    count: str
    """Array along the frames: how many rows of the axis each frame has; "" if the axis is that of the items."""
    frame: str
    """Array along the axis: index of the frame of each row; "" if the axis is that of the items."""
    pointers: Mapping[str, str] = field(default_factory=dict)
    """Other axes whose rows belong to a row of this one, and go with it. Each names its array that gives the row it
    belongs to, -1 for none. Rows of an axis without that array go as soon as any row goes."""


@dataclass(frozen=True)
class Removal:
    """Summary of what was rewritten of one input."""

    rows: Mapping[str, tuple[int, int]]
    """Rows before and after, by axis: the one that was named, and those that follow it."""
    frames: int
    """Sampled frames that lost a row."""
    arrays: tuple[str, ...]
    """Rewritten, by name."""
    files: int
    """Files of these arrays that were deleted."""
    chunks_dropped: bool
    """True if a stage that was being added has to be done again from its first chunk."""


def remove_rows(
    store: RunStore,
    name: str,
    rows: Rows,
    gone: Bools,
    attributes: Mapping[str, Mapping[str, Any]] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Removal:
    """Remove rows of one axis from every array of an input, and what belongs to them.

    `gone`: bool, one value per row of the axis. `attributes` replaces those of the arrays that it names; `facts` are
    set as attributes of the input. Chunks of a stage that is being added are dropped: they hold rows that are removed.
    Raises StoreError if the input is not compacted, is damaged, or the disk refuses.
    """
    source, attributes = store.input(name), attributes or {}
    with disk_errors(f"remove rows of {name!r} in {store.path}"):
        group = source.group()
        if not group.attributes.get("complete") or (rows.frame or DECODED.name) not in group.arrays:
            raise StoreError(f"input {name!r} of {store.path} is not complete; run it to its end first")
        frame = source.read_rows(rows.frame, 0, None) if rows.frame else np.arange(int(group.attributes["frames"]))
        if gone.shape != frame.shape:
            raise ValueError(f"{name!r} has {len(frame)} rows along {rows.axis!r}; gone has shape {gone.shape}")
        kept = _kept(source, group, rows, ~gone)
        changed = [one for one, node in group.arrays.items() if _changes(one, node, rows, kept) or one in attributes]
        remove_tree(below(source.folder, ASIDE))
        with store.changing():  # from here on the root's consolidated metadata would be out of date
            pass
        written = {}
        for one in changed:
            store.check_lock()
            node = group.arrays[one]
            is_count = one == rows.count and gone.any()
            counts = np.bincount(frame[~gone], minlength=node["shape"][0]).astype(np.int32) if is_count else None
            pieces = _pieces(source, one, node, rows, kept) if counts is None else iter([counts])
            n_rows = int(kept[along].sum()) if (along := _along(node)) in kept else int(node["shape"][0])
            spec = _declared(one, node, attributes.get(one, node["attributes"]))
            write_array(below(source.folder, ASIDE), spec, n_rows, pieces, _chunk_rows(node))
            written[one] = read_array_node(below(source.folder, ASIDE), one)
        removal = Removal(
            rows={axis: (len(stay), int(stay.sum())) for axis, stay in kept.items()},
            frames=len(np.unique(frame[gone])),
            arrays=tuple(changed),
            files=sum(len(files) for one in changed for _, _, files in os.walk(below(source.folder, one))),
            chunks_dropped=os.path.isdir(below(source.folder, CHUNKS)),
        )
        void = {VOID_CHUNKS: True} if removal.chunks_dropped else {}
        with store.changing():
            marked = {**group.attributes, **(facts or {}), **void, REMOVING: changed}
            source.write_group(Group(marked, {**group.arrays, **written}, consolidated=True))
            finish_removal(source)
            if void:
                remove_void_chunks(source)
        return removal


def remove_items(store: RunStore, name: str, gone: Bools, inventory: bytes | None = None) -> Removal:
    """Remove items from an input, with all rows that belong to them. Stages of the whole input are to be done again.

    `gone`: bool, one value per item; `inventory`: what the source keeps of the list of items that stay.

    Raises StoreError as `remove_rows` does.
    """
    source = store.input(name)
    group = source.group()
    if not group.attributes.get("complete"):
        raise StoreError(f"input {name!r} of {store.path} is not complete; run it to its end first")
    item = _along(group.arrays[DECODED.name])
    index = {axis.name: axis.index for axis in axes_of(group.arrays)}
    others = {_along(node): index.get(_along(node), "") for node in group.arrays.values()}
    del others[item]
    facts: dict[str, Any] = {"frames": int((~gone).sum())}
    if inventory is not None:
        facts |= source.write_inventory(inventory)
    return remove_rows(store, name, Rows(item, "", "", others), gone, facts=facts)


def blocks(source: InputStore, name: str) -> Iterator[tuple[slice, np.ndarray]]:
    """Rows of a compacted array, a bounded number of bytes at a time, and which they are. Raises StoreError if
    damaged."""
    content = source.group().arrays[name]
    item = 64 if content["data_type"] == STRING else np.dtype(content["data_type"]).itemsize
    step = max(1, BLOCK_BYTES // max(1, item * math.prod(content["shape"][1:])))
    for start in range(0, int(content["shape"][0]), step):
        block = source.read_rows(name, start, start + step)
        yield slice(start, start + len(block)), block


def _kept(source: InputStore, group: Group, rows: Rows, stay: Bools) -> dict[str, Bools]:
    """Return which rows stay, by axis."""
    kept = {rows.axis: stay}
    length = {_along(node): int(node["shape"][0]) for node in group.arrays.values()}
    for axis, pointer in rows.pointers.items():
        if axis in length and pointer in group.arrays:
            owner = source.read_rows(pointer, 0, None)
            if owner.max(initial=-1) >= len(stay):
                raise StoreError(f"array {pointer!r} of {source.folder} points beyond the last {rows.axis}; restore it")
            kept[axis] = np.asarray((owner < 0) | stay[np.maximum(owner, 0)] if len(stay) else owner < 0)
        elif axis in length:  # nothing says whose they are
            kept[axis] = np.full(length[axis], stay.all())
    return kept


def _changes(name: str, node: Mapping[str, Any], rows: Rows, kept: Mapping[str, Bools]) -> bool:
    """Return whether an array changes if the rows go."""
    if kept[rows.axis].all():
        return False
    loses = not kept.get(_along(node), np.ones(1, bool)).all()
    return loses or name == rows.count or name in rows.pointers.values()


def _pieces(
    source: InputStore, name: str, node: Mapping[str, Any], rows: Rows, kept: Mapping[str, Bools]
) -> Iterator[np.ndarray]:
    """The rows of an array that stay, a shard at a time; pointers lead to the new rows."""
    total, step = int(node["shape"][0]), _chunk_rows(node) * SHARD_CHUNKS
    stay, new_row = kept.get(_along(node)), np.cumsum(kept[rows.axis]) - 1
    for start in range(0, total, step):
        block = source.read_rows(name, start, min(start + step, total))
        block = block if stay is None else block[stay[start : start + step]]
        yield np.where(block >= 0, new_row[block], block) if name in rows.pointers.values() else block


def _along(node: Mapping[str, Any]) -> str:
    return str(node["dimension_names"][0])


def _chunk_rows(node: Mapping[str, Any]) -> int:
    return int(node["codecs"][0]["configuration"]["chunk_shape"][0])


def _declared(name: str, node: Mapping[str, Any], attributes: Mapping[str, Any]) -> Array:
    dtype = "str" if node["data_type"] == STRING else node["data_type"]
    return Array(name, tuple(node["dimension_names"]), dtype, tuple(node["shape"][1:]), dict(attributes))

"""Removing faces from a compacted input, so that nothing of them is left on disk.

The steps, in order: write every array that changes anew, into a folder aside; commit them with one atomic write of the
input's `zarr.json`, which names them; put each in the place of the old one, which is deleted first; drop the names. A
kill before the commit leaves the input as it was; after it the next opening for writing takes the remaining steps
(`run.finish_removal`), and readers find each array wherever it then lies.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import StoreError
from pipeline.store.chunks import COUNT_OF, STRING
from pipeline.store.compact import SHARD_CHUNKS, write_array
from pipeline.store.nodes import CHUNKS, NODE_FILE, Group, disk_errors, remove_tree
from pipeline.store.run import ASIDE, REMOVING, VOID_CHUNKS, InputStore, RunStore, finish_removal, remove_void_chunks
from pipeline.store.schema import Array

FACE_OF = {"shot": "thumbnail_face"}
"""Dimensions whose rows belong to a face each, and the array that says to which row of the faces."""
BLOCK_BYTES = 32 << 20

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Removal:
    """What was rewritten of one input."""

    shots_before: int
    """Rows of thumbnails."""
    shots_after: int
    frames: int
    """Sampled frames that lost a face."""
    arrays: tuple[str, ...]
    """Rewritten, by name."""
    files: int
    """Of these arrays, deleted."""
    chunks_dropped: bool
    """Whether a stage that was being added has to be done again from its first chunk."""


def remove_faces(
    store: RunStore,
    name: str,
    gone: Bools,
    attributes: Mapping[str, Mapping[str, Any]] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Removal:
    """Remove faces from every array of an input, and what belongs to them.

    `gone` bool (n_faces,). `attributes` replaces those of the arrays that it names; `facts` are set as attributes of
    the input. Chunks of a stage that is being added are dropped: they hold rows of the removed faces. Raises StoreError
    where the input is not compacted, is damaged, or the disk refuses.
    """
    source = store.input(name)
    with disk_errors(f"remove faces of {name!r} in {store.path}"):
        group = source.group()
        if not group.attributes.get("complete") or "face_frame" not in group.arrays:
            raise StoreError(f"input {name!r} of {store.path} is not complete; run it to its end first")
        job = _Job.prepare(source, group, gone, attributes or {})
        remove_tree(f"{source.folder}/{ASIDE}")
        with store.changing():  # from here on the root's consolidated metadata would be out of date
            pass
        for spec in job.specs:
            store.check_lock()
            write_array(f"{source.folder}/{ASIDE}", spec, job.rows(spec), job.pieces(spec), job.chunk_rows(spec))
        removal = job.removal()
        void = {VOID_CHUNKS: True} if removal.chunks_dropped else {}
        names = [spec.name for spec in job.specs]
        with store.changing():
            marked = {**group.attributes, **(facts or {}), **void, REMOVING: names}
            source.write_group(Group(marked, {**group.arrays, **_written(source, names)}, consolidated=True))
            finish_removal(source)
            if void:
                remove_void_chunks(source)
        return removal


@dataclass(frozen=True)
class _Job:
    """The new arrays of one input, as they are read off the old."""

    source: InputStore
    group: Group
    specs: tuple[Array, ...]
    """To be written anew."""
    keep: dict[str, Bools]
    """Which rows stay, by the first dimension of an array."""
    n_faces: npt.NDArray[np.int32]
    """Per frame, afterwards."""
    frames: int

    @classmethod
    def prepare(
        cls, source: InputStore, group: Group, gone: Bools, attributes: Mapping[str, Mapping[str, Any]]
    ) -> _Job:
        face_frame = source.read_rows("face_frame", 0, None)
        if gone.shape != face_frame.shape:
            raise ValueError(f"{source.name!r} has {len(face_frame)} faces; gone has shape {gone.shape}")
        keep = {"face": ~gone}
        for dim in {content["dimension_names"][0] for content in group.arrays.values()} & FACE_OF.keys():
            keep[dim] = _rows_of_kept(source, group, dim, ~gone)
        count = COUNT_OF["face"]
        n_frames = int(group.arrays[count]["shape"][0])
        specs = []
        for name, content in group.arrays.items():
            along = content["dimension_names"][0]
            changed = gone.any() and (
                name == count or not keep.get(along, np.ones(1, bool)).all() or name in FACE_OF.values()
            )
            if changed or name in attributes:
                specs.append(
                    replace(_declared(name, content), attributes=dict(attributes.get(name, content["attributes"])))
                )
        n_faces = np.bincount(face_frame[~gone], minlength=n_frames).astype(np.int32)
        return cls(source, group, tuple(specs), keep, n_faces, len(np.unique(face_frame[gone])))

    def rows(self, spec: Array) -> int:
        kept = self.keep.get(spec.dims[0])
        return int(self.group.arrays[spec.name]["shape"][0]) if kept is None else int(kept.sum())

    def chunk_rows(self, spec: Array) -> int:
        """As the old array has it."""
        return int(self.group.arrays[spec.name]["codecs"][0]["configuration"]["chunk_shape"][0])

    def pieces(self, spec: Array) -> Iterator[np.ndarray]:
        if spec.name == COUNT_OF["face"]:
            yield self.n_faces
            return
        total = int(self.group.arrays[spec.name]["shape"][0])
        step = self.chunk_rows(spec) * SHARD_CHUNKS
        kept = self.keep.get(spec.dims[0])
        new_row = np.cumsum(self.keep["face"]) - 1
        for start in range(0, total, step):
            block = self.source.read_rows(spec.name, start, min(start + step, total))
            block = block if kept is None else block[kept[start : start + step]]
            if spec.name in FACE_OF.values():
                block = np.where(block >= 0, new_row[block], block)
            yield block

    def removal(self) -> Removal:
        shots = self.keep.get("shot", np.empty(0, bool))
        names = tuple(spec.name for spec in self.specs)
        return Removal(
            shots_before=len(shots),
            shots_after=int(shots.sum()),
            frames=self.frames,
            arrays=names,
            files=sum(len(files) for name in names for _, _, files in os.walk(f"{self.source.folder}/{name}")),
            chunks_dropped=os.path.isdir(f"{self.source.folder}/{CHUNKS}"),
        )


def _rows_of_kept(source: InputStore, group: Group, dim: str, kept: Bools) -> Bools:
    """Rows along a dimension whose face stays; none where nothing says whose they are."""
    if FACE_OF[dim] not in group.arrays:
        length = next(c["shape"][0] for c in group.arrays.values() if c["dimension_names"][0] == dim)
        return np.full(length, kept.all())
    face = source.read_rows(FACE_OF[dim], 0, None)
    return np.asarray((face < 0) | kept[np.maximum(face, 0)] if len(kept) else face < 0)


def _declared(name: str, content: Mapping[str, Any]) -> Array:
    dtype = "str" if content["data_type"] == STRING else content["data_type"]
    return Array(name, tuple(content["dimension_names"]), dtype, tuple(content["shape"][1:]))


def _written(source: InputStore, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Metadata of the arrays that lie aside."""
    found = {}
    for name in names:
        with open(f"{source.folder}/{ASIDE}/{name}/{NODE_FILE}", "rb") as file:
            found[name] = json.loads(file.read())
    return found


def blocks(source: InputStore, name: str) -> Iterator[tuple[int, np.ndarray]]:
    """First row and rows of a compacted array, a bounded number of bytes at a time. Raises StoreError where damaged."""
    content = source.group().arrays[name]
    item = 64 if content["data_type"] == STRING else np.dtype(content["data_type"]).itemsize
    step = max(1, BLOCK_BYTES // max(1, item * math.prod(content["shape"][1:])))
    for start in range(0, int(content["shape"][0]), step):
        yield start, source.read_rows(name, start, start + step)

"""Compaction: the chunk groups of a finished input become a few contiguous, sharded arrays.

The steps, in order:

1. Write the arrays, and flush them to the disk.
2. Commit them, `complete` and their consolidated metadata, in one atomic write of the input's `zarr.json`.
3. Remove the chunk files, then the mark that they are void.

An array that the consolidated metadata does not name was left by a kill, and is written again. So `compact`, called
again, repairs a kill anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pipeline.errors import StoreError
from pipeline.files.whole import flush_tree
from pipeline.store.chunks import Chunks, unreadable_chunks
from pipeline.store.nodes import ASIDE, CHUNKS, Group, below, disk_errors, read_array_node, remove_tree
from pipeline.store.run import VOID_CHUNKS, InputStore, RunStore, remove_void_chunks
from pipeline.store.schema import DECODED, SAMPLE_DIMENSION, Array, Axis, Schema, axes_of
from pipeline.text import plural

CHUNK_ROWS = 16_384
"""Most rows of one Zarr chunk: 64 kB of a float32 per face, 8 MB of a 128-d embedding."""
CHUNK_BYTES = 8 << 20
SHARD_CHUNKS = 4
"""Chunks per shard: one file, written at once, so at most 32 MB of an array are held while streaming."""
WIDE_ROW_BYTES = 16 << 10
"""Arrays with rows beyond this (masks, crops) get chunks of their own length; the others of a dimension share one."""

DENSE_ROW_BYTES = 256
EVEN_ROWS = 16

Values = Callable[[int, int], Mapping[str, np.ndarray]]
"""Item arrays of items start (inclusive) to stop (exclusive), as the source has them."""


def compact(
    store: RunStore,
    name: str,
    schema: Schema,
    items: int,
    chunk_items: int,
    values: Values,
    accept_failed: bool = False,
) -> None:
    """Compact one input. Arrays that it has already stay untouched, so that stages can be added later.

    Chunks of `chunk_items` items tile 0 to `items`. `values` gives the item arrays of a range of items, as the source
    has them. With `accept_failed` failed chunks become items that are not decoded and have no rows. Raises StoreError
    if a chunk is not done, failed (and not accepted), damaged, or does not fit; nothing is lost.
    """
    source = store.input(name)
    with disk_errors(f"compact {name!r} in {store.path}"):
        if source.attributes.get(VOID_CHUNKS):
            remove_void_chunks(source)
        committed = source.group().arrays
        if source.is_complete and all(spec.name in committed for spec in schema.arrays):
            return
        job = _Job(source, schema, items, chunk_items, values, source.chunks())
        job.require_done(accept_failed)
        new = [spec for spec in _with_derived(schema) if spec.name not in committed]
        job.load_counts(new)
        _remove_debris(source, committed)
        with store.changing():  # from here on the root's consolidated metadata would be out of date
            pass
        for spec in new:
            store.check_lock()
            chunk_rows = _chunk_rows(spec, new, committed, schema.axes)
            write_array(source.folder, spec, job.rows(spec), job.pieces(spec), chunk_rows)
        with store.changing():
            source.write_group(_committed(source, new, job.attributes()))
        remove_void_chunks(source)


def add_arrays(
    store: RunStore,
    name: str,
    specs: Sequence[Array],
    arrays: Mapping[str, np.ndarray],
    stages: Mapping[str, str] | None = None,
    *,
    replace_existing: bool = False,
) -> None:
    """Add whole arrays (tracks, people: what a stage of scope `input` makes) to a compacted input, and commit them.

    An array whose first dim is neither the items nor an axis of the input (shots) may have any number of rows. `stages`
    (name -> resume key) are recorded as complete. Raises StoreError if the input is not compacted, an array exists
    already (unless `replace_existing`) or has a wrong number of rows.
    """
    source = store.input(name)
    with store.changing(), disk_errors(f"add arrays to {name!r} in {store.path}"):
        group = source.group()
        if not group.attributes.get("complete"):
            raise StoreError(f"input {name!r} of {store.path} is not complete; run it to its end first")
        existing = [spec.name for spec in specs if spec.name in group.arrays]
        if existing and not replace_existing:
            raise StoreError(f"input {name!r} of {store.path} has {', '.join(existing)} already")
        kept = {key: content for key, content in group.arrays.items() if key not in existing}
        axes = axes_of(group.arrays)
        rows = require_rows(store, name, specs, arrays)
        if existing:  # uncommit first: a reader must not see an array half replaced
            source.write_group(Group(group.attributes, kept, group.consolidated))
        _remove_debris(source, kept)
        for spec, expected in zip(specs, rows, strict=True):
            data = np.asarray(arrays[spec.name])
            write_array(source.folder, spec, expected, iter([data]), _chunk_rows(spec, specs, kept, axes))
        done = {stage: {"key": key, "state": "complete"} for stage, key in (stages or {}).items()}
        states = {**group.attributes.get("stages", {}), **done}
        source.write_group(_committed(source, specs, {**group.attributes, "stages": states}))


def require_rows(store: RunStore, name: str, specs: Sequence[Array], arrays: Mapping[str, np.ndarray]) -> list[int]:
    """Return the rows of each of these arrays. Raises StoreError if one has another number than a compacted input."""
    source = store.input(name)
    committed = source.group().arrays
    axes = axes_of(committed)
    rows = [_rows_of(source, spec, committed, axes, arrays) for spec in specs]
    for spec, expected in zip(specs, rows, strict=True):
        _require_rows(f"{name!r} in {store.path}", spec, len(arrays[spec.name]), expected)
    return rows


@dataclass
class _Job:
    """One input being compacted."""

    source: InputStore
    schema: Schema
    items: int
    chunk_items: int
    values: Values
    chunks: Chunks
    counts: dict[str, np.ndarray] = field(default_factory=dict)
    """Per ragged axis, rows of each item."""

    @property
    def total(self) -> int:
        """Number of chunks."""
        return -(-self.items // self.chunk_items)

    def boundaries(self) -> Iterator[tuple[int, int, int]]:
        """Yield index, first item and last item (exclusive) of every chunk."""
        for index in range(self.total):
            yield index, index * self.chunk_items, min((index + 1) * self.chunk_items, self.items)

    def require_done(self, accept_failed: bool) -> None:
        where = f"{self.source.name!r} in {self.source.path}"
        absent = np.setdiff1d(np.arange(self.total), self.chunks.indices)
        if len(absent):
            raise StoreError(f"chunk {absent[0]} of {where} is not done; run again to continue")
        for index, record in self.chunks.failed.items() if not accept_failed else ():
            raise StoreError(
                f"chunk {index} of {where} failed ({record.error}); "
                "take it again with --retry-failed or close the input with --accept-failed"
            )

    def load_counts(self, new: Sequence[Array]) -> None:
        committed = self.source.group().arrays
        names = {spec.name: spec for spec in new}
        for axis in self.schema.axes:
            if axis.count in committed:
                self.counts[axis.name] = self.source.read_rows(axis.count, 0, None)
            elif axis.count in names:
                pieces = list(self.pieces(names[axis.count]))
                self.counts[axis.name] = np.concatenate(pieces) if pieces else np.empty(0, np.int32)

    def rows(self, spec: Array) -> int:
        axis = self.schema.axis(spec.dims[0])
        if axis is None:
            return self.items
        if axis.name not in self.counts:
            raise StoreError(f"array {spec.name!r} has one row per {axis.name}, but no stage makes {axis.count!r}")
        return int(self.counts[axis.name].sum(dtype=np.int64))

    def pieces(self, spec: Array) -> Iterator[np.ndarray]:
        """Yield the array chunk by chunk, rows checked."""
        for index, start, stop in self.boundaries():
            piece = self._piece(spec, index, start, stop)
            where = f"chunk {index} of {self.source.name!r} in {self.source.path}"
            _require_rows(where, spec, len(piece), self._rows(spec, start, stop))
            yield piece

    def _rows(self, spec: Array, start: int, stop: int) -> int:
        axis = self.schema.axis(spec.dims[0])
        return stop - start if axis is None else int(self.counts[axis.name][start:stop].sum(dtype=np.int64))

    def _piece(self, spec: Array, index: int, start: int, stop: int) -> np.ndarray:
        axis = self.schema.axis_of_index(spec.name)
        if axis is not None:
            return np.repeat(np.arange(start, stop, dtype=np.int64), self.counts[axis.name][start:stop])
        if spec in self.schema.item_arrays and spec.name != DECODED.name:
            # The first array also tells if a chunk was made of other items.
            planned = self.values(start, stop)[spec.name]
            if spec == self.schema.item_arrays[0] and self.chunks.holds(index, spec.name):
                stored = self.chunks.arrays(index, [spec.name])[spec.name]
                if not np.array_equal(stored, planned):
                    raise StoreError(
                        f"chunk {index} of {self.source.name!r} in {self.source.path} holds other {self.schema.item}s "
                        "than are planned for it; start over with --fresh"
                    )
            return np.asarray(planned)
        if self.chunks.holds(index, spec.name):
            return self.chunks.arrays(index, [spec.name])[spec.name]
        if index not in self.chunks.failed:
            raise StoreError(
                f"array {spec.name!r} of chunk {index} of {self.source.name!r} in {self.source.path} is missing; "
                "run again to make it"
            )
        is_count = self.schema.is_count(spec.name)
        return spec.nothing(self._rows(spec, start, stop), is_count=is_count)

    def attributes(self) -> dict[str, Any]:
        """Attributes of the input at the commit."""
        attributes = self.source.attributes
        failed = self.chunks.failed
        return {
            **attributes,
            "complete": True,
            "stages": self._stages(attributes.get("stages", {})),
            "frames": self.items,
            "chunks": {"total": self.total, "done": self.total - len(failed), "failed": len(failed)},
            "unreadable": attributes.get("unreadable") or unreadable_chunks(self.chunks.incomplete),
            "failures": [*attributes.get("failures", []), *(self._failure(index) for index in failed)],
            VOID_CHUNKS: True,
        }

    def _stages(self, known: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """Return all stages; those that every chunk has are complete (every other chunk, if failures were accepted)."""
        keys = {name: set(found) for name, found in self.chunks.stage_keys.items()}
        for name, found in keys.items():
            if known.get(name, {}).get("key"):
                found.add(known[name]["key"])
            if len(found) > 1:
                raise StoreError(
                    f"chunks of {self.source.name!r} in {self.source.path} were made with different options of "
                    f"stage {name!r}; start over with --fresh"
                )
        names = sorted(keys)
        ok = np.ones(self.total, bool)
        ok[list(self.chunks.failed)] = False
        have = self.chunks.has(names, self.total)[ok]
        everywhere = [name for k, name in enumerate(names) if (have >> np.uint64(k) & np.uint64(1)).all()]
        complete = everywhere if ok.any() else sorted(known)
        return {
            **{name: dict(stage) for name, stage in known.items()},
            **{
                name: {**known.get(name, {}), "key": next(iter(keys.get(name, ())), known.get(name, {}).get("key")),
                       "state": "complete"}
                for name in complete
            },
        }  # fmt: skip

    def _failure(self, index: int) -> dict[str, Any]:
        record = self.chunks.failed[index]
        start, stop = index * self.chunk_items, min((index + 1) * self.chunk_items, self.items)
        times = self.values(start, stop).get("time_seconds")
        return {
            "chunk": index,
            "frames": [start, stop],
            "time_seconds": None if times is None else [float(times[0]), float(times[-1])],
            "error": record.error,
        }


def _with_derived(schema: Schema) -> list[Array]:
    """CF's contiguous ragged array: counts name their sample dimension, and the item of each row is spelled out."""
    found: list[Array] = []
    for spec in (*schema.item_arrays, *schema.arrays):
        axis = schema.axis_of_count(spec.name)
        if axis is None:
            found.append(spec)
            continue
        found.append(replace(spec, attributes={**spec.attributes, SAMPLE_DIMENSION: axis.name}))
        description = f"index into the {axis.of} axis"
        found.append(Array(axis.index, (axis.name,), "int64", attributes={"description": description}))
    return found


def _rows_of(
    source: InputStore, spec: Array, committed: Mapping[str, Any], axes: Sequence[Axis], arrays: Mapping[str, Any]
) -> int:
    """Rows of items or of an axis that there are; any number along a dimension of the stage's own (shots)."""
    axis = next((axis for axis in axes if axis.name == spec.dims[0]), None)
    if axis is not None:
        return int(committed[axis.index]["shape"][0])
    items = committed[DECODED.name]
    return int(items["shape"][0]) if spec.dims[0] == items["dimension_names"][0] else len(arrays[spec.name])


def _require_rows(where: str, spec: Array, rows: int, expected: int) -> None:
    if rows != expected:
        raise StoreError(f"array {spec.name!r} of {where} has {rows} rows; there are {plural(expected, spec.dims[0])}")


def _remove_debris(source: InputStore, committed: Mapping[str, Any]) -> None:
    """Remove arrays that a killed compaction did not commit. Raises OSError."""
    for entry in list(os.scandir(source.folder)):
        if entry.is_dir() and entry.name not in (CHUNKS, ASIDE) and entry.name not in committed:
            remove_tree(below(source.folder, entry.name))


def _chunk_rows(spec: Array, specs: Sequence[Array], committed: Mapping[str, Any], axes: Sequence[Axis]) -> int:
    """Rows of one Zarr chunk; the same for all arrays of a dimension (but very wide ones), as xarray likes it."""
    if spec.row_bytes > WIDE_ROW_BYTES:
        return _power_of_two(CHUNK_BYTES // spec.row_bytes)
    axis = next((axis for axis in axes if axis.name == spec.dims[0]), None)
    along = committed.get(DECODED.name if axis is None else axis.index)
    if along is not None:
        shared = int(along["codecs"][0]["configuration"]["chunk_shape"][0])
        if shared * spec.row_bytes <= 4 * CHUNK_BYTES:
            return shared
    widths = [other.row_bytes for other in (spec, *specs) if other.dims[0] == spec.dims[0]]
    widest = max(width for width in widths if width <= WIDE_ROW_BYTES)
    return min(CHUNK_ROWS, _power_of_two(CHUNK_BYTES // widest))


def _even(rows: int, most: int) -> int:
    """Return the rows of each chunk, at most `most`, so that all are about as long.

    The last chunk is stored in full, filled up with nothing; unpacked arrays would be larger for it.
    """
    if rows <= most:
        return max(1, rows)
    chunks = -(-rows // most)
    return min(most, -(-rows // (chunks * EVEN_ROWS)) * EVEN_ROWS)


def _power_of_two(number: int) -> int:
    """The largest power of two that is not above; at least 1."""
    return 1 << max(0, number.bit_length() - 1)


def is_dense(spec: Array) -> bool:
    """Return whether an array is stored as it is, with a checksum alone.

    Compression takes a tenth of the size of embeddings, and a search through millions would wait for unpacking them.
    """
    if spec.is_string:
        return False
    return spec.mapped or (np.dtype(spec.dtype).kind == "f" and spec.row_bytes >= DENSE_ROW_BYTES)


def write_array(folder: str, spec: Array, rows: int, pieces: Iterator[np.ndarray], chunk_rows: int) -> None:
    """Stream pieces into a new sharded array of a group's folder, whole shards at a time."""
    import zarr
    from zarr.codecs import Crc32cCodec, ZstdCodec
    from zarr.storage import LocalStore

    below(folder, spec.name)  # raises if a link lies there
    chunk_rows = _even(rows, chunk_rows)
    shard_rows = chunk_rows * max(1, min(SHARD_CHUNKS, -(-rows // chunk_rows)))
    trailing = tuple(max(1, size) for size in spec.shape)
    array = zarr.create_array(
        LocalStore(folder),
        name=spec.name,
        shape=(rows, *spec.shape),
        chunks=(chunk_rows, *trailing),
        shards=(shard_rows, *trailing),
        dtype=str if spec.is_string else spec.dtype,
        compressors=[Crc32cCodec() if is_dense(spec) else ZstdCodec(level=0, checksum=True)],
        dimension_names=list(spec.dims),
        attributes=dict(spec.attributes),
        config={"write_empty_chunks": True},
    )
    done = 0
    for block in _blocks(pieces, shard_rows):
        array[done : done + len(block)] = block
        done += len(block)
    flush_tree(f"{folder}/{spec.name}")  # what these arrays are made of is removed once they are committed


def _blocks(pieces: Iterator[np.ndarray], rows: int) -> Iterator[np.ndarray]:
    """Regroup pieces of any length into blocks of `rows` rows; the last may be shorter."""
    held: list[np.ndarray] = []
    n_held = 0
    for piece in pieces:
        held.append(piece)
        n_held += len(piece)
        if n_held >= rows:
            joined = held[0] if len(held) == 1 else np.concatenate(held)  # one whole array is not copied
            whole = n_held - n_held % rows
            yield from (joined[k : k + rows] for k in range(0, whole, rows))
            # A copy: a view would keep the whole block alive.
            held, n_held = [joined[whole:].copy()], n_held - whole
    if n_held:
        yield np.concatenate(held)


def _committed(source: InputStore, new: Sequence[Array], attributes: Mapping[str, Any]) -> Group:
    """The input's group with the new arrays' metadata taken from their own files."""
    arrays = dict(source.group().arrays)
    for spec in new:
        arrays[spec.name] = read_array_node(source.folder, spec.name)
    return Group(dict(attributes), arrays, consolidated=True)

"""Compaction: the chunk groups of a finished input become a few contiguous, sharded arrays.

The steps, in order: write the arrays; commit them, `complete` and their consolidated metadata in one atomic write of
the input's `zarr.json`; remove the chunk groups; drop the mark that they are void. An array that the consolidated
metadata does not name is debris of a kill and is written anew: a kill anywhere is repaired by calling `compact` again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import StoreError
from pipeline.store.chunks import COUNT_OF, FRAME_ARRAYS, STRING, read_chunk, unreadable_chunks
from pipeline.store.nodes import CHUNKS, NODE_FILE, Group, disk_errors, remove_tree
from pipeline.store.run import ASIDE, VOID_CHUNKS, InputStore, RunStore, remove_void_chunks
from pipeline.store.schema import Array

CHUNK_ROWS = 16_384
"""Most rows of one Zarr chunk: 64 kB of a float32 per face, 8 MB of a 128-d embedding."""
CHUNK_BYTES = 8 << 20
SHARD_CHUNKS = 4
"""Chunks per shard: one file, written at once, so at most 32 MB of an array are held while streaming."""
WIDE_ROW_BYTES = 16 << 10
"""Arrays with rows beyond this (masks, crops) get chunks of their own length; the others of a dimension share one."""

DENSE_ROW_BYTES = 256
EVEN_ROWS = 16

Boundaries = Sequence[tuple[int, int]]


def compact(
    store: RunStore,
    name: str,
    specs: Sequence[Array],
    boundaries: Boundaries,
    n_frames: int,
    accept_failed: bool = False,
    *,
    frame: npt.NDArray[np.int64] | None = None,
    time_seconds: npt.NDArray[np.float64] | None = None,
) -> None:
    """Compact one input. Arrays that it has already stay untouched, so that stages can be added later.

    `boundaries` are the sampled-frame positions (start inclusive, stop exclusive) of every chunk, tiling 0 to
    `n_frames`. With `accept_failed` failed chunks become frames that are not decoded and have no faces; `frame` and
    `time_seconds` (the plan's, one per sampled frame) are then needed. Raises StoreError where a chunk is not done,
    failed (and not accepted), damaged, or does not fit; nothing is lost.
    """
    source = store.input(name)
    with disk_errors(f"compact {name!r} in {store.path}"):
        if source.attributes.get(VOID_CHUNKS):
            remove_void_chunks(source)
        committed = source.group().arrays
        if source.is_complete and all(spec.name in committed for spec in specs):
            return
        job = _Job.prepare(source, boundaries, n_frames, accept_failed, {"frame": frame, "time_seconds": time_seconds})
        new = [spec for spec in _with_derived([*FRAME_ARRAYS, *specs]) if spec.name not in committed]
        job.load_counts(new)
        _remove_debris(source, committed)
        with store.changing():  # from here on the root's consolidated metadata would be out of date
            pass
        for spec in new:
            store.check_lock()
            write_array(source.folder, spec, job.rows(spec), job.pieces(spec), _chunk_rows(spec, new, committed))
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

    An array whose first dim is neither `frame` nor `face` (shots) may have any number of rows. `stages` (name -> resume
    key) are recorded as complete. Raises StoreError where the input is not compacted, an array exists already (unless
    `replace_existing`) or has a wrong number of rows.
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
        rows = [_rows_of(source, spec, kept, arrays) for spec in specs]
        for spec, expected in zip(specs, rows, strict=True):
            _require_rows(f"{name!r} in {store.path}", spec, len(arrays[spec.name]), expected)
        if existing:  # uncommit first: a reader must not see an array half replaced
            source.write_group(Group(group.attributes, kept, group.consolidated))
        _remove_debris(source, kept)
        for spec, expected in zip(specs, rows, strict=True):
            data = np.asarray(arrays[spec.name])
            write_array(source.folder, spec, expected, iter([data]), _chunk_rows(spec, specs, kept))
        done = {stage: {"key": key, "state": "complete"} for stage, key in (stages or {}).items()}
        states = {**group.attributes.get("stages", {}), **done}
        source.write_group(_committed(source, specs, {**group.attributes, "stages": states}))


@dataclass
class _Job:
    """One input being compacted: its chunks' records, and how many faces each of its frames has."""

    source: InputStore
    boundaries: Boundaries
    records: dict[int, dict[str, Any]]
    plan: dict[str, np.ndarray]
    counts: dict[str, np.ndarray]
    """Per ragged dimension, items per sampled frame."""

    @classmethod
    def prepare(
        cls, source: InputStore, boundaries: Boundaries, n_frames: int, accept_failed: bool,
        plan: Mapping[str, np.ndarray | None],
    ) -> _Job:  # fmt: skip
        edges = [0, *(stop for _, stop in boundaries)]
        if [start for start, _ in boundaries] != edges[:-1] or edges[-1] != n_frames:
            raise ValueError(f"boundaries of {source.name!r} do not tile 0 to {n_frames}")
        given = {name: np.asarray(array) for name, array in plan.items() if array is not None}
        if any(len(array) != n_frames for array in given.values()):
            raise ValueError(f"the plan's arrays of {source.name!r} must have {n_frames} rows")
        job = cls(source, boundaries, source.records(), given, {})
        job._require_done(accept_failed)
        return job

    def _require_done(self, accept_failed: bool) -> None:
        where = f"{self.source.name!r} in {self.source.path}"
        for index in range(len(self.boundaries)):
            if index not in self.records:
                raise StoreError(f"chunk {index} of {where} is not done; run again to continue")
            if self.records[index]["state"] != "ok" and not accept_failed:
                raise StoreError(
                    f"chunk {index} of {where} failed ({self.records[index].get('error')}); "
                    "take it again with --retry-failed or close the input with --accept-failed"
                )

    def load_counts(self, new: Sequence[Array]) -> None:
        committed = self.source.group().arrays
        names = {spec.name: spec for spec in new}
        for dim, count in COUNT_OF.items():
            if count in committed:
                self.counts[dim] = self.source.read_rows(count, 0, None)
            elif count in names:
                pieces = list(self.pieces(names[count]))
                self.counts[dim] = np.concatenate(pieces) if pieces else np.empty(0, np.int32)

    def rows(self, spec: Array) -> int:
        if spec.dims[0] not in COUNT_OF:
            return self.boundaries[-1][1] if self.boundaries else 0
        if spec.dims[0] not in self.counts:
            raise StoreError(
                f"array {spec.name!r} has one row per {spec.dims[0]}, but no stage makes {COUNT_OF[spec.dims[0]]!r}"
            )
        return int(self.counts[spec.dims[0]].sum(dtype=np.int64))

    def pieces(self, spec: Array) -> Iterator[np.ndarray]:
        """The array chunk by chunk, rows checked."""
        for index, (start, stop) in enumerate(self.boundaries):
            piece = self._piece(spec, index, start, stop)
            expected = stop - start
            if spec.dims[0] in COUNT_OF:
                expected = int(self.counts[spec.dims[0]][start:stop].sum(dtype=np.int64))
            _require_rows(f"chunk {index} of {self.source.name!r} in {self.source.path}", spec, len(piece), expected)
            yield piece

    def _piece(self, spec: Array, index: int, start: int, stop: int) -> np.ndarray:
        if spec.name.endswith("_frame") and COUNT_OF.get(spec.name.removesuffix("_frame")):
            return np.repeat(np.arange(start, stop, dtype=np.int64), self.counts[spec.dims[0]][start:stop])
        record = self.records[index]
        stored = spec.name in record.get("arrays", {})
        if spec.name in self.plan and not (stored and spec.name == "frame"):
            return self.plan[spec.name][start:stop]
        if stored:
            piece = read_chunk(self.source.path, self.source.name, index, [spec.name], record)[spec.name]
            self._require_planned(spec, index, piece, start, stop)
            return piece
        if spec.name in ("frame", "time_seconds") or record["state"] == "ok":
            raise StoreError(
                f"array {spec.name!r} of chunk {index} of {self.source.name!r} in {self.source.path} is missing; "
                "run again to make it"
            )
        rows = stop - start if spec.dims[0] not in COUNT_OF else int(self.counts[spec.dims[0]][start:stop].sum())
        return _nothing(spec, rows)

    def _require_planned(self, spec: Array, index: int, piece: np.ndarray, start: int, stop: int) -> None:
        if spec.name in self.plan and not np.array_equal(piece, self.plan[spec.name][start:stop]):
            raise StoreError(
                f"chunk {index} of {self.source.name!r} in {self.source.path} holds other frames than are planned "
                "for it; start over with --fresh"
            )

    def attributes(self) -> dict[str, Any]:
        """Attributes of the input at the commit."""
        attributes = self.source.attributes
        failed = [index for index, record in self.records.items() if record["state"] != "ok"]
        return {
            **attributes,
            "complete": True,
            "stages": self._stages(attributes.get("stages", {})),
            "frames": self.boundaries[-1][1] if self.boundaries else 0,
            "chunks": {
                "total": len(self.boundaries),
                "done": len(self.boundaries) - len(failed),
                "failed": len(failed),
            },
            "unreadable": attributes.get("unreadable") or unreadable_chunks(self.records),
            "failures": [*attributes.get("failures", []), *(self._failure(index) for index in failed)],
            VOID_CHUNKS: True,
        }

    def _stages(self, known: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """All stages that every chunk has are complete now; where failures were accepted, those of the other chunks."""
        done = [record.get("stages", {}) for record in self.records.values() if record["state"] == "ok"]
        common = set.intersection(*map(set, done)) if done else set(known)
        keys = {**(done[0] if done else {}), **{name: stage.get("key") for name, stage in known.items()}}
        for name in sorted(common):
            if any(stages[name] != keys[name] for stages in done):
                raise StoreError(
                    f"chunks of {self.source.name!r} in {self.source.path} were made with different options of "
                    f"stage {name!r}; start over with --fresh"
                )
        complete = {name: {**known.get(name, {}), "key": keys[name], "state": "complete"} for name in sorted(common)}
        return {**{name: dict(stage) for name, stage in known.items()}, **complete}

    def _failure(self, index: int) -> dict[str, Any]:
        start, stop = self.boundaries[index]
        times = self.plan.get("time_seconds")
        return {
            "chunk": index,
            "frames": [start, stop],
            "time_seconds": None if times is None else [float(times[start]), float(times[stop - 1])],
            "error": self.records[index].get("error"),
        }


def _with_derived(specs: Sequence[Array]) -> list[Array]:
    """CF's contiguous ragged array: counts name their sample dimension, and each item's frame is spelled out."""
    found: list[Array] = []
    dim_of = {count: dim for dim, count in COUNT_OF.items()}
    for spec in specs:
        dim = dim_of.get(spec.name)
        if dim is None:
            found.append(spec)
            continue
        found.append(replace(spec, attributes={**spec.attributes, "sample_dimension": dim}))
        found.append(Array(f"{dim}_frame", (dim,), "int64", attributes={"description": "index into the frame axis"}))
    return found


def _nothing(spec: Array, rows: int) -> np.ndarray:
    """Rows of a chunk of which nothing came: NaN, -1 (as `track` and `identity` have it), 0 faces, false, ""."""
    if spec.dtype in ("str", STRING):
        return np.full((rows, *spec.shape), "", object)
    dtype = np.dtype(spec.dtype)
    value: float = {"f": np.nan, "i": -1}.get(dtype.kind, 0)
    return np.full((rows, *spec.shape), 0 if spec.name in COUNT_OF.values() else value, dtype)


def _rows_of(source: InputStore, spec: Array, committed: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> int:
    """Rows of frames or faces that there are; any number along a dimension of the stage's own (shots)."""
    if spec.dims[0] != "frame" and spec.dims[0] not in COUNT_OF:
        return len(arrays[spec.name])
    along = "frame" if spec.dims[0] not in COUNT_OF else f"{spec.dims[0]}_frame"
    if along not in committed:
        raise StoreError(f"array {spec.name!r} has one row per {spec.dims[0]}, of which {source.name!r} has none")
    return int(committed[along]["shape"][0])


def _require_rows(where: str, spec: Array, rows: int, expected: int) -> None:
    if rows != expected:
        raise StoreError(f"array {spec.name!r} of {where} has {rows} rows; there are {expected} {spec.dims[0]}s")


def _remove_debris(source: InputStore, committed: Mapping[str, Any]) -> None:
    """Remove arrays that a killed compaction did not commit. Raises OSError."""
    for entry in list(os.scandir(source.folder)):
        if entry.is_dir() and entry.name not in (CHUNKS, ASIDE) and entry.name not in committed:
            remove_tree(entry.path)


def _row_bytes(spec: Array) -> int:
    # A string's length is not known before: 64 bytes are a usual file name.
    item = 64 if spec.dtype in ("str", STRING) else np.dtype(spec.dtype).itemsize
    return max(1, item * int(np.prod(spec.shape, dtype=np.int64)))


def _chunk_rows(spec: Array, specs: Sequence[Array], committed: Mapping[str, Any]) -> int:
    """Rows of one Zarr chunk; the same for all arrays of a dimension (but very wide ones), as xarray likes it."""
    if _row_bytes(spec) > WIDE_ROW_BYTES:
        return _power_of_two(CHUNK_BYTES // _row_bytes(spec))
    along = committed.get("frame" if spec.dims[0] not in COUNT_OF else f"{spec.dims[0]}_frame")
    if along is not None:
        shared = int(along["codecs"][0]["configuration"]["chunk_shape"][0])
        if shared * _row_bytes(spec) <= 4 * CHUNK_BYTES:
            return shared
    widths = [_row_bytes(other) for other in (spec, *specs) if other.dims[0] == spec.dims[0]]
    widest = max(width for width in widths if width <= WIDE_ROW_BYTES)
    return min(CHUNK_ROWS, _power_of_two(CHUNK_BYTES // widest))


def _even(rows: int, most: int) -> int:
    """Rows of each chunk, `most` at most, where all are about as long: the last one is stored in full, with what it
    lacks filled in, and what is not packed would take room for that."""
    if rows <= most:
        return max(1, rows)
    chunks = -(-rows // most)
    return min(most, -(-rows // (chunks * EVEN_ROWS)) * EVEN_ROWS)


def _power_of_two(number: int) -> int:
    """The largest power of two that is not above; at least 1."""
    return 1 << max(0, number.bit_length() - 1)


def is_dense(spec: Array) -> bool:
    """Whether an array is stored as it is, with a checksum alone: embeddings lose a tenth of their size by compression,
    and unpacking them is what a search through millions would wait for."""
    is_number = spec.dtype not in ("str", STRING)
    return is_number and np.dtype(spec.dtype).kind == "f" and _row_bytes(spec) >= DENSE_ROW_BYTES


def write_array(folder: str, spec: Array, rows: int, pieces: Iterator[np.ndarray], chunk_rows: int) -> None:
    """Stream pieces into a new sharded array of a group's folder, whole shards at a time."""
    import zarr
    from zarr.codecs import Crc32cCodec, ZstdCodec
    from zarr.storage import LocalStore

    chunk_rows = _even(rows, chunk_rows)
    shard_rows = chunk_rows * max(1, min(SHARD_CHUNKS, -(-rows // chunk_rows)))
    trailing = tuple(max(1, size) for size in spec.shape)
    array = zarr.create_array(
        LocalStore(folder),
        name=spec.name,
        shape=(rows, *spec.shape),
        chunks=(chunk_rows, *trailing),
        shards=(shard_rows, *trailing),
        dtype=str if spec.dtype in ("str", STRING) else spec.dtype,
        compressors=[Crc32cCodec() if is_dense(spec) else ZstdCodec(level=0, checksum=True)],
        dimension_names=list(spec.dims),
        attributes=dict(spec.attributes),
        config={"write_empty_chunks": True},
    )
    done = 0
    for block in _blocks(pieces, shard_rows):
        array[done : done + len(block)] = block
        done += len(block)


def _blocks(pieces: Iterator[np.ndarray], rows: int) -> Iterator[np.ndarray]:
    """Regroup pieces of any length into blocks of `rows` rows; the last may be shorter."""
    held: list[np.ndarray] = []
    n_held = 0
    for piece in pieces:
        held.append(piece)
        n_held += len(piece)
        if n_held >= rows:
            joined = np.concatenate(held)
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
        with open(f"{source.folder}/{spec.name}/{NODE_FILE}", "rb") as file:
            arrays[spec.name] = json.loads(file.read())
    return Group(dict(attributes), arrays, consolidated=True)

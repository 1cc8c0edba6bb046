"""Stored faces as a table, a block at a time: one row per face, with its times and with names in place of numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline.faces.people.labels import UNKNOWN, labels
from pipeline.faces.table import LANDMARKS

if TYPE_CHECKING:
    from pipeline.store.read import Run, RunInput
    from pipeline.store.schema import Array

BLOCK_BYTES = 32 << 20
"""Most bytes of arrays for one block of rows: the size of a shard of the store."""
WIDEST_ROW = 32
"""Values per face beyond which an array is a vector to compute with: exported only on request, as embeddings are."""
_BLOCK_FRAMES = 16_384
_NAMES = pa.dictionary(pa.int32(), pa.string())
_ALWAYS = ("frame", "time_seconds", "n_faces")
_APART = ("face_frame", "box", "confidence", "landmarks", "track", "person", "identity")
"""Arrays whose columns are made by code of their own."""


@dataclass(frozen=True)
class Block:
    """Some consecutive faces of an input."""

    arrays: Mapping[str, np.ndarray]
    """Arrays as stored, with a row per sampled frame (`frame`, `time_seconds`, `n_faces`, ...) or per face of these."""
    first_face: int
    """Row of the block's first face among the faces of the input that can be read."""

    @property
    def n_frames(self) -> int:
        return len(self.arrays["n_faces"])

    @property
    def n_faces(self) -> int:
        return int(self.arrays["n_faces"].sum())

    @property
    def rows(self) -> slice:
        """Rows of the block's faces in an array of the whole input."""
        return slice(self.first_face, self.first_face + self.n_faces)

    @property
    def frame_of_face(self) -> np.ndarray:
        """Index of each face's frame in the block, int64 (n_faces,)."""
        return np.repeat(np.arange(self.n_frames), self.arrays["n_faces"])


@dataclass(frozen=True)
class Column:
    """One column of the table."""

    type: pa.DataType
    make: Callable[[Block], pa.Array]


def blocks(item: RunInput, names: Sequence[str]) -> Iterator[Block]:
    """Yield the faces of an input in order, with these arrays (and `frame`, `time_seconds`, `n_faces`).

    The memory is bounded. An incomplete input gives the faces of its finished chunks. Frames without a face are in the
    blocks too. Raises StoreError if an array is damaged.
    """
    declared = item.arrays
    if "n_faces" not in declared:
        return
    wanted = list(dict.fromkeys([*_ALWAYS, *names]))
    per_face = [array for array in declared.values() if array.dims[0] == "face" and array.name in wanted]
    most_faces = max(1, BLOCK_BYTES // max(1, sum(map(_row_bytes, per_face))))
    first_face = 0
    for start, stop in item.spans(_BLOCK_FRAMES):
        counts = item.read_frames(["n_faces"], start, stop)["n_faces"]
        for first, last in _cut(counts, most_faces):
            block = Block(item.read_frames(wanted, start + first, start + last), first_face)
            yield block
            first_face += block.n_faces


def columns(run: Run, item: RunInput, *, wide: bool, flat: bool) -> dict[str, Column]:
    """Return the columns of an input's faces by name, in order.

    `wide` includes embeddings. `flat` splits an array of several values per face into a column for each value (for
    CSV), in place of one column of lists. Raises StoreError.
    """
    per_face = {name: array for name, array in item.arrays.items() if array.dims[0] == "face"}
    found = _where(run, item)
    if "box" in per_face:
        found |= {side: _float("box", k) for k, side in enumerate("xywh")}
    if "confidence" in per_face:
        found["confidence"] = _float("confidence")
    if "landmarks" in per_face:
        found |= {
            f"{part}_{axis}": _float("landmarks", k, j)
            for k, part in enumerate(LANDMARKS)
            for j, axis in enumerate("xy")
        }
    for name in ("track", "person", "identity"):
        if name in per_face:
            found |= _people(item, name)
    rest = [array for name, array in per_face.items() if name not in _APART]
    for array in sorted(rest, key=is_wide):
        if wide or not is_wide(array):
            found |= _other(array, flat)
    return found


def arrays_of(item: RunInput, *, wide: bool) -> list[str]:
    """Return the per-face arrays that `columns` reads."""
    per_face = (array for array in item.arrays.values() if array.dims[0] == "face" and array.name != "face_frame")
    return [array.name for array in per_face if wide or not is_wide(array)]


def is_wide(array: Array) -> bool:
    """Return whether the array holds vectors (embeddings), which are only exported on request."""
    return "class_names" not in array.attributes and ("component" in array.dims or math.prod(array.shape) > WIDEST_ROW)


def table(block: Block, made: Mapping[str, Column], schema: pa.Schema) -> pa.RecordBatch:
    """Return the block's rows in the columns of `schema`; null if the input has no such column."""
    filled = []
    for field in schema:
        column = made.get(field.name)
        if column is None:
            filled.append(pa.nulls(block.n_faces, field.type))
        else:
            values = column.make(block)
            filled.append(values if values.type == field.type else values.cast(field.type))
    return pa.record_batch(filled, schema=schema)


def schema_of(all_columns: Sequence[Mapping[str, Column]]) -> pa.Schema:
    """Return every column of every input; if inputs differ in a column's type, one that holds both."""
    types: dict[str, pa.DataType] = dict(_WHERE)
    for made in all_columns:
        for name, column in made.items():
            types[name] = _common(types.get(name, column.type), column.type)
    return pa.schema(list(types.items()))


def _common(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    if one == other:
        return one
    if all(pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) for kind in (one, other)):
        return pa.list_(_common(one.value_type, other.value_type))
    if all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in (one, other)):
        return pa.float64()
    return pa.string()


def _cut(counts: np.ndarray, most_faces: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of stretches of frames with about `most_faces` faces; a frame is never cut."""
    stretch = np.cumsum(counts, dtype=np.int64) // most_faces
    edges = [0, *(np.flatnonzero(np.diff(stretch)) + 1).tolist(), len(counts)]
    yield from ((start, stop) for start, stop in pairwise(edges) if stop > start)


def _row_bytes(array: Array) -> int:
    size = 32 if array.dtype in ("str", "string") else np.dtype(array.dtype).itemsize
    return int(size * math.prod(array.shape))


_WHERE: dict[str, pa.DataType] = {
    "store": _NAMES,
    "input": _NAMES,
    "path": _NAMES,
    "frame": pa.int64(),
    "time_seconds": pa.float64(),
    "face": pa.int64(),
    "face_in_frame": pa.int32(),
}
"""Columns that identify the face of a row, in every export."""


def _where(run: Run, item: RunInput) -> dict[str, Column]:
    """Return the columns that identify the face of a row."""
    path = str(item.attributes.get("path", ""))

    def constant(text: str) -> Callable[[Block], pa.Array]:
        return lambda block: _coded(np.zeros(block.n_faces, np.int32), [text])

    def of_frame(name: str) -> Callable[[Block], pa.Array]:
        return lambda block: pa.array(block.arrays[name][block.frame_of_face])

    def place(block: Block) -> pa.Array:
        counts = block.arrays["n_faces"].astype(np.int64)
        return pa.array((np.arange(block.n_faces) - np.repeat(np.cumsum(counts) - counts, counts)).astype(np.int32))

    make = {
        "store": constant(str(run.path)),
        "input": constant(item.name),
        "path": constant(path),
        "frame": of_frame("frame"),
        "time_seconds": of_frame("time_seconds"),
        "face": lambda block: pa.array(np.arange(block.rows.start, block.rows.stop)),
        "face_in_frame": place,
    }
    return {name: Column(kind, make[name]) for name, kind in _WHERE.items()}


def _coded(codes: np.ndarray, texts: Sequence[str]) -> pa.Array:
    """Return a dictionary column: `codes` int32 into `texts`, null if negative."""
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32(), mask=codes < 0), pa.array(texts, pa.string()))


def _float(name: str, *place: int) -> Column:
    """Return a column of one float of each row of an array; null if it is NaN."""
    at: tuple[Any, ...] = (slice(None), *place)
    return Column(pa.float32(), lambda block: _numbers(block.arrays[name][at].astype(np.float32)))


def _numbers(values: np.ndarray) -> pa.Array:
    """Return a column of numbers; NaN, which stands for a missing number, becomes null."""
    values = np.ascontiguousarray(values)
    return pa.array(values, mask=np.isnan(values) if values.dtype.kind == "f" else None)


def _people(item: RunInput, name: str) -> dict[str, Column]:
    """Return the numbers of a track, a person or a row of the gallery, null if missing, and names of the last two."""
    if name == "track":
        return {name: _numbered(lambda block: block.arrays[name])}
    if name == "person":
        who = labels(item, "person")
        texts = who.names
        code = who.code
        return {
            "person": _numbered(lambda block: code[block.rows]),
            "person_name": _named(lambda block: code[block.rows], {k: texts[k] for k in who.named}),
        }
    names = dict(enumerate(map(str, item.arrays[name].attributes["names"])))
    return {
        "identity": _numbered(lambda block: block.arrays[name]),
        "identity_name": _named(lambda block: block.arrays[name], names),
    }


def _numbered(rows: Callable[[Block], np.ndarray]) -> Column:
    def make(block: Block) -> pa.Array:
        values = rows(block).astype(np.int32)
        return pa.array(values, mask=values == UNKNOWN)

    return Column(pa.int32(), make)


def _named(rows: Callable[[Block], np.ndarray], names: Mapping[int, str]) -> Column:
    keys = np.array(sorted(names), np.int64)
    texts = [names[int(key)] for key in keys]

    def make(block: Block) -> pa.Array:
        values = rows(block)
        at = np.searchsorted(keys, values)
        known = at < len(keys)
        known[known] = keys[at[known]] == values[known]
        return _coded(np.where(known, at, UNKNOWN).astype(np.int32), texts)

    return Column(_NAMES, make)


def _other(array: Array, flat: bool) -> dict[str, Column]:
    """Return the columns of any other array: its values, by class with the likeliest one, or several values."""
    name, classes = array.name, array.attributes.get("class_names")
    if array.dtype in ("str", "string"):
        if array.shape:
            return {}
        return {name: Column(pa.string(), lambda block: pa.array(block.arrays[name].astype(object), pa.string()))}
    kind = pa.from_numpy_dtype(np.dtype(array.dtype))
    if not array.shape:
        return {name: Column(kind, lambda block: _numbers(block.arrays[name]))}
    if classes and array.shape == (len(classes),):
        texts = [str(text) for text in classes]
        named = {f"dominant_{name}": Column(_NAMES, lambda block: _dominant(block.arrays[name], texts))}
        return named | {f"{name}_{_word(text)}": _part(name, kind, k, len(texts)) for k, text in enumerate(texts)}
    size = math.prod(array.shape)
    if flat:
        return {f"{name}_{k}": _part(name, kind, k, size) for k in range(size)}
    return {name: Column(pa.list_(kind, size), lambda block: _lists(block.arrays[name], size))}


def _part(name: str, kind: pa.DataType, k: int, size: int) -> Column:
    """Return a column of the k-th of the `size` values of each row, whatever its shape."""
    return Column(kind, lambda block: _numbers(block.arrays[name].reshape(block.n_faces, size)[:, k]))


def _dominant(shares: np.ndarray, texts: Sequence[str]) -> pa.Array:
    """Return the class with the largest share; null if shares are missing (NaN)."""
    known = np.isfinite(shares).all(axis=1)
    codes = np.full(len(shares), UNKNOWN, np.int32)
    codes[known] = shares[known].argmax(axis=1)
    return _coded(codes, texts)


def _lists(values: np.ndarray, size: int) -> pa.Array:
    """Return float or int (n, ...) as lists of `size`; null if a row holds NaN alone."""
    rows = values.reshape(len(values), size)
    absent = np.isnan(rows).all(axis=1) if rows.dtype.kind == "f" and size else np.zeros(len(rows), bool)
    return pa.FixedSizeListArray.from_arrays(
        pa.array(np.ascontiguousarray(rows).reshape(-1)), size, mask=pa.array(absent)
    )


def _word(text: Any) -> str:
    """Return a class name as part of a column's name: `middle eastern` -> middle_eastern."""
    return re.sub(r"\W+", "_", str(text).strip().lower())

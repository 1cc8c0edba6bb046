"""Stored rows as columns, a block at a time: one row per row of an axis (face, object, ...), or one per item.

A row has the place where it comes from (store, input, its item's `frame` and `time_seconds` or `name`) and the values
of each array along the axis. What becomes of an array is said by its declaration:

| array                                  | columns                                              |
|----------------------------------------|------------------------------------------------------|
| one value                              | one of its own name                                  |
| last dimension `xywh` or `xy`          | `x`, `y`, `w`, `h`; a second such array: `NAME_x`    |
| one value per class (`class_names`)    | `NAME_CLASS` each, and `dominant_NAME`               |
| a class number with `class_names`      | the number, and `NAME_name`                          |
| another short one                      | one of lists; `NAME_0`, `NAME_1` ... if flat         |
| a long one (an embedding)              | the same, but only if it is asked for                |
| one of the items (luma of a frame)     | the same, with the item's value in each of its rows  |

A domain adds what only it knows by a subclass of `AxisColumns`, in the entry point group `reelgraph.columns`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from pipeline.engine.finding import COLUMNS, find, names
from pipeline.errors import StoreError
from pipeline.store.read import Run, RunInput
from pipeline.store.schema import DECODED, Array
from pipeline.text import unknown
from pipeline.views.axes import axis_in, chosen_axis, has_rows, item_of, source_arrays

if TYPE_CHECKING:
    import pandas as pd


BLOCK_BYTES = 32 << 20
"""Most bytes of arrays that one block of rows is read from: what a shard of the store holds."""
WIDEST_ROW = 32
"""Values per row beyond which an array is a vector to compute with: left out unless asked for, as embeddings are."""
NAMES = pa.dictionary(pa.int32(), pa.string())
"""Type of columns with few distinct texts."""
_BLOCK_ITEMS = 16_384
_PLACES = ("xywh", "xy")
_NONE = {"track": -1}
"""Values that stand for nothing, by array."""


# -- blocks --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """Some consecutive items of an input, and their rows."""

    arrays: Mapping[str, np.ndarray]
    """As stored: one row per item, or per row of the axis."""
    n_items: int
    counts: np.ndarray | None
    """Rows of each item; None if the rows are the items themselves."""
    first_row: int = 0
    """Number of the block's first row among the rows of the input that can be read."""

    @property
    def n_rows(self) -> int:
        return self.n_items if self.counts is None else int(self.counts.sum())

    @property
    def rows(self) -> slice:
        """Rows of the block in an array of the whole input."""
        return slice(self.first_row, self.first_row + self.n_rows)

    @property
    def item_of_row(self) -> np.ndarray:
        """int64 (n_rows,): index into the block's items."""
        return np.arange(self.n_items) if self.counts is None else np.repeat(np.arange(self.n_items), self.counts)

    def of_rows(self, item_array: str) -> np.ndarray:
        """Return an item array, taken at the item of each row."""
        values = self.arrays[item_array]
        return values if self.counts is None else values[self.item_of_row]


def blocks(item: RunInput, axis: str, wanted: Collection[str], items: tuple[int, int] | None = None) -> Iterator[Block]:
    """Yield an input's rows in order, with these arrays, in bounded memory.

    Of a half-done input these are the chunks that are there; items without a row are in the blocks too. `items` takes
    a part of them, first (inclusive) to last (exclusive); rows of a ragged axis are then counted from the part. Raises
    StoreError if an array is damaged, unknown, or lies along another axis.
    """
    if not has_rows(item, axis):
        return
    declared, ragged = item.arrays, axis_in(item, axis)
    for name in wanted:
        if name not in declared:
            raise StoreError(f"{item.name!r}: {unknown('array', name, declared)}")
        if declared[name].dims[0] not in (axis, item.item):
            raise StoreError(f"array {name!r} of {item.name!r} lies along {declared[name].dims[0]!r}, not {axis!r}")
    loaded = list(dict.fromkeys([*wanted, ragged.count if ragged else next(iter(item.arrays))]))
    row_bytes = sum(declared[name].row_bytes for name in loaded if declared[name].dims[0] == axis)
    most_rows = max(1, BLOCK_BYTES // max(1, row_bytes))
    first_row = 0 if items is None or ragged else items[0]
    spans = item.spans(_BLOCK_ITEMS)
    for start, stop in spans if items is None else _part(spans, *items):
        counts = item.read_frames([ragged.count], start, stop)[ragged.count] if ragged else np.ones(stop - start, int)
        for first, last in _cut(counts, most_rows):
            arrays = item.read_frames(loaded, start + first, start + last)
            block = Block(arrays, last - first, arrays[ragged.count] if ragged else None, first_row)
            yield block
            first_row += block.n_rows


def _part(spans: Iterable[tuple[int, int]], first: int, last: int) -> Iterator[tuple[int, int]]:
    """Yield what stretches of items have of the items first (inclusive) to last (exclusive), counted over all."""
    before = 0
    for start, stop in spans:
        begin, end = max(start, start + first - before), min(stop, start + last - before)
        if begin < end:
            yield begin, end
        before += stop - start


def whole(item: RunInput, axis: str, wanted: Iterable[str]) -> Block:
    """Return all rows of an input that can be read as one block. The input must have rows (`has_rows`)."""
    ragged = axis_in(item, axis)
    count = ragged.count if ragged else next(iter(item.arrays))
    arrays = item.read(list(dict.fromkeys([*wanted, count])))
    return Block(arrays, len(arrays[count]), arrays[count] if ragged else None)


def _cut(counts: np.ndarray, most_rows: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of stretches of items with about `most_rows` rows; an item is never cut."""
    stretch = np.cumsum(counts, dtype=np.int64) // most_rows
    edges = [0, *(np.flatnonzero(np.diff(stretch)) + 1).tolist(), len(counts)]
    yield from ((start, stop) for start, stop in pairwise(edges) if stop > start)


# -- columns -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """One column of the table."""

    type: pa.DataType
    values: Callable[[Block], np.ndarray]
    """Gives one value per row, as stored; for a column of names the number of each, -1 for none."""
    needs: tuple[str, ...] = ()
    """Arrays that `values` reads."""
    texts: tuple[str, ...] | None = None
    """Names that `values` numbers; None for a column of values."""
    none: int | None = None
    """Value that stands for nothing, beside NaN."""

    def numpy(self, block: Block) -> np.ndarray:
        """Return the values as stored; names as texts, with None for none."""
        values = self.values(block)
        if self.texts is None:
            return values
        texts = np.array([*self.texts, None], object)
        return np.asarray(texts[values])  # -1 takes the last

    def arrow(self, block: Block) -> pa.Array:
        """Return the values with null for nothing."""
        values = self.values(block)
        if self.texts is not None:
            return coded(values, self.texts)
        if pa.types.is_string(self.type):
            return pa.array(values.astype(object), pa.string())
        if pa.types.is_fixed_size_list(self.type):
            return _lists(values, self.type.list_size)
        values = np.ascontiguousarray(values)
        mask = np.isnan(values) if values.dtype.kind == "f" else values == self.none if self.none is not None else None
        return pa.array(values, mask=mask)


class AxisColumns:
    """What a domain knows of the rows of one axis beyond what its arrays declare. Name it by the axis in the entry
    point group `reelgraph.columns`."""

    first: ClassVar[tuple[str, ...]] = ()
    """Arrays whose columns come first, in this order."""
    score: ClassVar[str] = "score"
    """Column of the detector's score."""
    points: ClassVar[tuple[str, ...]] = ()
    """Names of points that each row has, each in columns NAME_x and NAME_y."""
    identities: ClassVar[tuple[str, ...]] = ()
    """Columns that say who or what a row is: in COCO's file they stand in an annotation itself."""

    def columns(self, item: RunInput, array: Array) -> dict[str, Column] | None:
        """Return the columns of one array; None for those that its declaration says."""
        return None

    def categories(self, axis: str, classes: Sequence[str]) -> list[dict[str, Any]]:
        """Return COCO's categories, with an `id` and the `name` of each class; without classes one of all rows."""
        named = enumerate(classes or [axis], start=1)
        return [{"id": number, "name": name, "supercategory": axis} for number, name in named]


def known_of(axis: str) -> AxisColumns:
    """Return what a domain knows of the rows of an axis, or of items."""
    return find("column", axis, COLUMNS, AxisColumns)() if axis in names(COLUMNS) else AxisColumns()


def columns(run: Run, item: RunInput, axis: str, *, wide: bool = False, flat: bool = True) -> dict[str, Column]:
    """Return the columns of an input's rows by name, in order.

    `wide` takes embeddings too; `flat` gives an array of several values a column for each value (for CSV) in place of
    one column of lists. Raises StoreError if an array that holds names is damaged.
    """
    found = _where(run, item, axis)
    if not has_rows(item, axis):
        return found
    known = known_of(axis)
    along = {name: array for name, array in item.arrays.items() if array.dims[0] == axis and name not in found}
    index = axis_in(item, axis)
    if index is not None:
        along.pop(index.index, None)
    if axis in item.arrays and axis != item.item:
        along[axis] = item.arrays[axis]  # an array of the axis's own name, beside the number of the row
    rest = [array for name, array in along.items() if name not in known.first]
    ordered = [*(along[name] for name in known.first if name in along), *sorted(rest, key=is_wide)]
    for array in ordered:
        if is_wide(array) and not wide:
            continue
        made = known.columns(item, array)
        _add(found, array, columns_of(array, flat) if made is None else made)
    for name, column in item_columns(run, item, axis, flat).items():
        found[name if name not in found else f"{item.item}_{name}"] = _at_item(column)
    return found


def item_columns(run: Run, item: RunInput, axis: str, flat: bool) -> dict[str, Column]:
    """Return columns of what stages found on whole items (luma of a frame, a cut), for the rows of a ragged axis."""
    if axis == item.item:
        return {}
    source, known = source_arrays(run, item.item), known_of(item.item)
    apart = {DECODED.name, *(one.count for one in item.axes), *(array.name for array in source)}
    found: dict[str, Column] = {}
    for name, array in item.arrays.items():
        if array.dims[0] == item.item and name not in apart and not is_wide(array):
            made = known.columns(item, array)
            _add(found, array, columns_of(array, flat) if made is None else made)
    return found


def _add(found: dict[str, Column], array: Array, made: Mapping[str, Column]) -> None:
    """Add the columns of an array to those of others; one whose name is taken has the array's name before its own."""
    for name, column in made.items():
        apart = f"{array.name}_values" if name == array.name else f"{array.name}_{name}"
        found[name if name not in found else apart] = column


def _at_item(column: Column) -> Column:
    """Return a column of items as one of rows: each row has the value of its item."""
    return replace(column, values=lambda block: column.values(block)[block.item_of_row])


def is_wide(array: Array) -> bool:
    """Tell whether the array holds vectors (embeddings), left out unless asked for."""
    return "class_names" not in array.attributes and ("component" in array.dims or math.prod(array.shape) > WIDEST_ROW)


def columns_of(array: Array, flat: bool) -> dict[str, Column]:
    """Return the columns of an array, as its declaration says."""
    name, classes = array.name, [str(text) for text in array.attributes.get("class_names") or ()]
    if array.is_string:
        return {} if array.shape else {name: Column(pa.string(), lambda block: block.arrays[name], (name,))}
    size, kind = math.prod(array.shape), _type(array)
    if not array.shape:
        found = {name: Column(kind, lambda block: _usual(block.arrays[name]), (name,), none=_NONE.get(name))}
        if classes and pa.types.is_integer(kind):
            found[f"{name}_name"] = numbered(name, dict(enumerate(classes)))
        return found
    place = array.place or array.dims[-1]
    if array.shape == (len(place),) and place in _PLACES:
        return {side: part(array, k) for k, side in enumerate(place)}
    if array.shape == (len(classes),):
        dominant = Column(NAMES, lambda block: _dominant(block.arrays[name]), (name,), tuple(classes))
        shares = {f"{name}_{_word(text)}": part(array, k) for k, text in enumerate(classes)}
        return {f"dominant_{name}": dominant, **shares}
    if flat:
        return {f"{name}_{k}": part(array, k) for k in range(size)}
    return {name: Column(pa.list_(kind, size), lambda block: _usual(block.arrays[name]), (name,))}


def part(array: Array, k: int) -> Column:
    """Return a column of the k-th of the values of each row, whatever its shape."""
    name, size = array.name, math.prod(array.shape)
    return Column(_type(array), lambda block: _usual(block.arrays[name]).reshape(-1, size)[:, k], (name,))


def numbered(array: str, texts: Mapping[int, str], rows: Callable[[Block], np.ndarray] | None = None) -> Column:
    """Return a column of the names that `texts` gives to the numbers of an array, or to what `rows` returns."""
    keys = np.array(sorted(texts), np.int64)

    def values(block: Block) -> np.ndarray:
        numbers = block.arrays[array] if rows is None else rows(block)
        at = np.searchsorted(keys, numbers)
        known = at < len(keys)
        known[known] = keys[at[known]] == numbers[known]
        return np.where(known, at, -1).astype(np.int32)

    return Column(NAMES, values, (array,) if rows is None else (), tuple(texts[int(key)] for key in keys))


def coded(codes: np.ndarray, texts: Sequence[str]) -> pa.Array:
    """Return a dictionary column: `codes` int32 into `texts`, null if negative."""
    shown = [text.encode(errors="backslashreplace").decode() for text in texts]  # names of files need not be UTF-8
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32(), mask=codes < 0), pa.array(shown, pa.string()))


def _where(run: Run, item: RunInput, axis: str) -> dict[str, Column]:
    """Return the columns that say which row of which input a row is."""

    def constant(text: str) -> Column:
        return Column(NAMES, lambda block: np.zeros(block.n_rows, np.int32), (), (text,))

    def of_item(array: Array) -> dict[str, Column]:
        made = known_of(item.item).columns(item, array)
        usual = {array.name: Column(_cell(array), lambda block: block.arrays[array.name], (array.name,))}
        return {name: _at_item(column) for name, column in (usual if made is None else made).items()}

    def in_item(block: Block) -> np.ndarray:
        counts = np.asarray(block.counts, np.int64)
        return (np.arange(block.n_rows) - np.repeat(np.cumsum(counts) - counts, counts)).astype(np.int32)

    path = str(item.attributes.get("path", ""))
    found = {"store": constant(str(run.path)), "input": constant(item.name), "path": constant(path)}
    if not has_rows(item, axis):
        return found
    for array in source_arrays(run, item.item):
        found |= of_item(array) if array.name in item.arrays else {}
    number = Column(pa.int64(), lambda block: np.arange(block.rows.start, block.rows.stop))
    if axis == item.item:
        return found if axis in found else {**found, axis: number}
    return {**found, axis: number, f"{axis}_in_{item.item}": Column(pa.int32(), in_item)}


def _cell(array: Array) -> pa.DataType:
    return pa.string() if array.is_string else _type(array)


def _type(array: Array) -> pa.DataType:
    dtype = np.dtype(array.dtype)
    return pa.float32() if dtype == np.float16 else pa.from_numpy_dtype(dtype)


def _usual(values: np.ndarray) -> np.ndarray:
    """Return half floats, which tables hardly know, as float32."""
    return values.astype(np.float32) if values.dtype == np.float16 else values


def _dominant(shares: np.ndarray) -> np.ndarray:
    """int32: the class with the largest share; -1 if there are none (NaN)."""
    codes = np.full(len(shares), -1, np.int32)
    known = np.isfinite(shares).all(axis=1)
    codes[known] = shares[known].argmax(axis=1)
    return codes


def _lists(values: np.ndarray, size: int) -> pa.Array:
    """Return float or int (n, ...) as lists of `size`; null for a row that holds NaN alone."""
    rows = values.reshape(len(values), size)
    absent = np.isnan(rows).all(axis=1) if rows.dtype.kind == "f" and size else np.zeros(len(rows), bool)
    return pa.FixedSizeListArray.from_arrays(
        pa.array(np.ascontiguousarray(rows).reshape(-1)), size, mask=pa.array(absent)
    )


def _word(text: Any) -> str:
    """Return a class name as part of a column's name: `middle eastern` -> middle_eastern."""
    return re.sub(r"\W+", "_", str(text).strip().lower())


# -- tables --------------------------------------------------------------------------------------------------------


def record_batch(block: Block, made: Mapping[str, Column], schema: pa.Schema) -> pa.RecordBatch:
    """Return the block's rows in the columns of `schema`; null if the input has no such column."""
    filled = []
    for field in schema:
        if field.name not in made:
            filled.append(pa.nulls(block.n_rows, field.type))
        else:
            values = made[field.name].arrow(block)
            filled.append(values if values.type == field.type else values.cast(field.type))
    return pa.record_batch(filled, schema=schema)


def schema_of(runs: Iterable[Run], axis: str, item: str, all_columns: Sequence[Mapping[str, Column]]) -> pa.Schema:
    """Return every column of every input; if inputs differ in a column's type, with one that holds both."""
    types: dict[str, pa.DataType] = dict.fromkeys(("store", "input", "path"), NAMES)
    types |= {array.name: _cell(array) for run in runs for array in source_arrays(run, item)}
    types |= {axis: pa.int64(), f"{axis}_in_{item}": pa.int32()} if axis != item else {}
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


class TabledRun(Run):
    """A run store opened for reading, with the rows of its axes as tables."""

    def rows(self, axis: str | None = None, input: str | None = None, *, embeddings: bool = False) -> pd.DataFrame:
        """Return one row per row of an axis, by default the first ragged one: `pipeline.open(OUT).rows("object")`.

        Columns are those of `reelgraph export`, with values as stored. Raises UsageError if there is no such axis.
        """
        chosen = chosen_axis([self], axis)
        item = item_of([self], chosen)
        return self.table(input, lambda one: self.columns(one, chosen, wide=embeddings), item)

    def columns(
        self, item: RunInput, axis: str, *, wide: bool = False,
        order: Callable[[dict[str, Column]], Sequence[str]] | None = None,
    ) -> dict[str, np.ndarray]:  # fmt: skip
        """Return the columns of one input's rows by name; `order` chooses some of them."""
        made = columns(self, item, axis, wide=wide)
        chosen = [name for name in (order(made) if order else made) if name not in ("store", "input", "path")]
        if not has_rows(item, axis):
            known = source_arrays(self, item.item)
            return {array.name: np.empty(0, _cell(array).to_pandas_dtype()) for array in known}
        block = whole(item, axis, [name for column in chosen for name in made[column].needs])
        return {name: made[name].numpy(block) for name in chosen}

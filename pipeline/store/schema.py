"""Declarations of what a store holds of an input: its items, the rows that belong to items, and one array of each.

Items are what a source has (`frame`: any picture; `pair`). Rows belong to items along a ragged *axis*: `face`,
`object`, `keypoint`. The count array of an axis says how many rows each item has. Rows lie in the order of their
items, as in a CF contiguous ragged array. This module is the only one that decides whether an array fits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from pipeline.errors import StoreError
from pipeline.text import plural_of

STRING = "string"
LARGEST_BYTES = 2**31 - 1
"""Most bytes of one array of one chunk: the most that one zstd buffer takes."""

_DTYPES = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"
)  # fmt: skip
"""Data types of numpy that each reader of Zarr v3 knows."""

SAMPLE_DIMENSION = "sample_dimension"
"""Attribute of a count array that names its axis (CF conventions, 9.3.3)."""

_LIKE = {"f": np.nan, "i": -1}
"""Value of an array of which nothing was made, by kind of dtype: NaN, -1 (as `track` has it), else 0, false or ""."""


@dataclass(frozen=True)
class Axis:
    """A ragged axis: rows that belong to the items of another axis."""

    name: str
    """Name of one row, in the singular: "object", "keypoint"."""
    of: str = "frame"
    """Item axis that the rows belong to."""
    count: str = ""
    """int32 array along `of`: rows of each item. By default "n_" and the plural: "n_objects"."""

    def __post_init__(self) -> None:
        if not self.count:
            object.__setattr__(self, "count", default_count(self.name))

    @property
    def index(self) -> str:
        """Name of the derived int64 array that gives the item of each row: "object_frame"."""
        return f"{self.name}_{self.of}"


def default_count(axis: str) -> str:
    """Return the usual name of an axis's count array: "n_" and the plural."""
    return f"n_{plural_of(axis)}"


@dataclass(frozen=True)
class Array:
    """An output array that a stage declares."""

    name: str
    dims: tuple[str, ...]
    """First the item axis ("frame") or the name of a ragged axis ("face"), then names for the trailing dimensions."""
    dtype: str
    shape: tuple[int, ...] = ()
    """Sizes of the trailing dimensions; len(shape) == len(dims) - 1."""
    attributes: dict[str, Any] = field(default_factory=dict)
    """Units, class names, description: stored as attributes of the array."""
    place: Literal["", "xywh", "xy"] = ""
    """Pixel coordinates in the last dimension: "xywh" (a box: x, y, width, height) or "xy" (a point). They are moved
    if only a part of each picture is looked at. "" if the array holds none."""
    mapped: bool = False
    """True if it is to be stored as it is, so that processes can share it through memory maps (mapped.py)."""

    def __post_init__(self) -> None:
        for name, given in {"dims": self.dims, "shape": self.shape}.items():
            if not isinstance(given, tuple | list):
                raise ValueError(f"array {self.name!r}: {name} is {given!r}; write a tuple: ({given!r},)")
            object.__setattr__(self, name, tuple(given))
        if not self.dims or len(self.shape) != len(self.dims) - 1:
            raise ValueError(f"array {self.name!r}: dims {self.dims} need {len(self.dims) - 1} sizes, not {self.shape}")
        if self.place and (not self.shape or self.shape[-1] != len(self.place)):
            raise ValueError(f"array {self.name!r}: place {self.place!r} needs a last dimension of {len(self.place)}")

    @property
    def is_string(self) -> bool:
        return self.dtype in ("str", STRING)

    @property
    def dtype_name(self) -> str:
        """Zarr v3's name of the data type."""
        return STRING if self.is_string else np.dtype(self.dtype).name

    @property
    def row_bytes(self) -> int:
        """Bytes of one row; 64 for each string, the length of a usual file name."""
        item = 64 if self.is_string else np.dtype(self.dtype).itemsize
        return max(1, item * int(np.prod(self.shape, dtype=np.int64)))

    def misfit(self) -> str | None:
        """Return why a store cannot hold this array, as the end of a message; None if it can."""
        try:
            kept = self.is_string or np.dtype(self.dtype).name in _DTYPES
        except TypeError:
            kept = False
        if not kept:
            return f"has dtype {self.dtype!r}; a store holds {', '.join(_DTYPES)} and {STRING}"
        if any(isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 0 for size in self.shape):
            return f"has shape {self.shape}; give the size of each dimension after the first as a whole number"
        return None

    def nothing(self, rows: int, *, is_count: bool = False) -> np.ndarray:
        """Return `rows` rows of the value that stands for nothing: NaN, -1, false, "" (0 for a count)."""
        if self.is_string:
            return np.full((rows, *self.shape), "", object)
        dtype = np.dtype(self.dtype)
        value: float = 0 if is_count else _LIKE.get(dtype.kind, 0)
        return np.full((rows, *self.shape), value, dtype)

    def fit(self, given: Any, where: str) -> np.ndarray:
        """Return an array in the declared dtype and trailing shape, copied only if it must be.

        `where` begins the message: "stage 'detect': array 'box'". Raises StoreError if the array does not fit.
        """
        array = np.asarray(given)
        if array.ndim != len(self.dims) or array.shape[1:] != self.shape:
            declared = ", ".join(["n", *map(str, self.shape)])
            raise StoreError(f"{where} has shape {array.shape}; declared is ({declared})")
        if isinstance(given, np.ma.MaskedArray) and np.ma.is_masked(given):
            raise StoreError(f"{where} has masked values, and a store has no mask; return filled(...) of it")
        if self.is_string:
            texts = array.astype(object)
            others = np.array([not isinstance(one, str) for one in texts.flat], bool).reshape(texts.shape)
            other = next((one for one in texts[others] if one is not None), None)
            if other is not None:
                raise StoreError(f"{where} holds a value of type {type(other).__name__}; declared is {self.dtype}")
            texts[others] = ""  # as None is read from a store
            return texts
        dtype = np.dtype(self.dtype)
        fitted = array
        if array.dtype != dtype:
            whole = array.dtype.kind in "biu" and dtype.kind in "biu"  # compared by value instead
            if array.size and not whole and not np.can_cast(array.dtype, dtype, "same_kind"):
                raise StoreError(f"{where} is {array.dtype}; declared is {self.dtype}")
            fitted = array.astype(dtype)
            if whole and not np.array_equal(fitted, array):
                raise StoreError(f"{where} has values that do not fit the declared {self.dtype}")
        if fitted.nbytes > LARGEST_BYTES:
            raise StoreError(
                f"{where} has {fitted.nbytes} bytes in one chunk, and {LARGEST_BYTES} is the most; "
                "return fewer or smaller rows"
            )
        return fitted


DECODED = Array("decoded", ("frame",), "bool", attributes={"description": "false where the frame could not be read"})
"""Made by the engine for every item, whatever the source and the stages are."""


def decoded_of(item: str) -> Array:
    """Return DECODED for another item axis."""
    if item == "frame":
        return DECODED
    return replace(DECODED, dims=(item,), attributes={"description": f"false if the {item} could not be read"})


ORIGIN = Array(
    "origin", ("frame", "xy"), "float32", (2,),
    {"units": "pixel", "description": "x, y in the whole picture of the first pixel that was looked at"},
)  # fmt: skip
SCALE = Array(
    "scale", ("frame", "xy"), "float32", (2,),
    {"units": "1", "description": "pixels that were looked at for each pixel of the whole picture, along x and y"},
)  # fmt: skip
"""Found by a source that looks at a part of each picture, or at a smaller copy, and each picture has its own."""


@dataclass(frozen=True)
class Schema:
    """Item axis, ragged axes and arrays of one input."""

    item: str
    """Item axis: "frame" or "pair"."""
    item_arrays: tuple[Array, ...]
    """Arrays of the source, and `decoded`: one row per item, in every chunk."""
    axes: tuple[Axis, ...] = ()
    arrays: tuple[Array, ...] = ()
    """Arrays of the stages, in order."""

    def axis(self, name: str) -> Axis | None:
        """Return the ragged axis of this name; None if it is the item axis or unknown."""
        return next((axis for axis in self.axes if axis.name == name), None)

    def axis_of_count(self, array: str) -> Axis | None:
        """Return the axis whose rows this array counts; None if it counts none."""
        return next((axis for axis in self.axes if axis.count == array), None)

    def axis_of_index(self, array: str) -> Axis | None:
        """Return the axis whose derived index array has this name; None if there is none."""
        return next((axis for axis in self.axes if axis.index == array), None)

    def is_count(self, array: str) -> bool:
        return self.axis_of_count(array) is not None

    def of(self, names: Iterable[str]) -> Schema:
        """Return the same schema with only the named stage arrays."""
        wanted = set(names)
        return replace(self, arrays=tuple(array for array in self.arrays if array.name in wanted))

    def fit(
        self,
        specs: Sequence[Array],
        arrays: Mapping[str, Any],
        items: int,
        where: str,
        counts: Mapping[str, np.ndarray] | None = None,
    ) -> dict[str, np.ndarray]:
        """Return the arrays that `specs` declare, each in its dtype and with the right number of rows.

        `items` is the number of items. `counts` holds count arrays that were made before, by axis name. If the count of
        an axis is neither given nor among `specs`, the first array along it sets the number of rows. `where` begins
        each message: "stage 'detect'". Raises StoreError that names the array.
        """
        known = dict(counts or {})
        fitted = {}
        for spec in specs:
            if spec.name not in arrays:
                raise StoreError(f"{where} returned no array {spec.name!r}, which it declares")
            fitted[spec.name] = spec.fit(arrays[spec.name], f"{where}: array {spec.name!r}")
            axis = self.axis_of_count(spec.name)
            if axis is not None:
                known[axis.name] = fitted[spec.name]
                if fitted[spec.name].size and fitted[spec.name].min() < 0:
                    raise StoreError(f"{where}: array {spec.name!r} counts rows and has a value below 0")
        rows = {self.item: items, **{name: int(count.sum(dtype=np.int64)) for name, count in known.items()}}
        for spec in specs:
            along = spec.dims[0]
            expected = rows.setdefault(along, len(fitted[spec.name]))
            if len(fitted[spec.name]) != expected:
                raise StoreError(
                    f"{where}: array {spec.name!r} has {len(fitted[spec.name])} rows along {along!r} and "
                    f"this chunk has {expected}; return one row per {along}"
                )
        return fitted


def axes_of(nodes: Mapping[str, Mapping[str, Any]]) -> tuple[Axis, ...]:
    """Return the axes of stored arrays; `nodes` holds the `zarr.json` of each array by name."""
    found = []
    for name, node in nodes.items():
        axis = node.get("attributes", {}).get(SAMPLE_DIMENSION)
        if isinstance(axis, str):
            found.append(Axis(axis, node["dimension_names"][0], name))
    return tuple(found)


def implied_axes(arrays: Iterable[Array], item: str, declared: Iterable[Axis] = ()) -> tuple[Axis, ...]:
    """Return the declared axes, and those that are not declared but whose count array has the usual name.

    "n_things" along the item axis beside an array along "thing" makes an axis "thing".
    """
    axes = {axis.name: axis for axis in declared}
    arrays = tuple(arrays)
    names = {array.name for array in arrays if array.dims == (item,)}
    for array in arrays:
        along = array.dims[0]
        if along != item and along not in axes and default_count(along) in names:
            axes[along] = Axis(along, item)
    return tuple(axes.values())

"""Items to load, each with a picture, a label, and perhaps a mask and boxes: files, tar files, arrays, stored rows."""

from __future__ import annotations

import copy
import logging
import mmap
import operator
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError, StoreError, UsageError
from pipeline.media.images.collections import CLASS, Collection, FilesOf, Tar
from pipeline.media.images.folders import is_folder
from pipeline.media.images.names import Names, text
from pipeline.media.images.reading import SUFFIXES, Geometry, fitted, read
from pipeline.media.inputs import SYSTEM_FOLDERS
from pipeline.media.picture import UnreadableError, resized, too_large
from pipeline.text import unknown

if TYPE_CHECKING:
    from pipeline.store.read import Run

Array = npt.NDArray[Any]
_LOG = logging.getLogger("pipeline.loader")
_PADDING = 0.25
"""Part of a box's longer side that a crop shows on each side of it."""


@dataclass
class Item:
    """An item that was read."""

    picture: Array
    """(height, width, channels)."""
    mask: Array | None = None
    """(height, width)."""
    boxes: Array | None = None
    """(n, 4 and more): x, y, width, height in pixels of `picture`."""


class Items(ABC):
    """A list of items. It travels to the workers, so that it holds names and places, not pixels."""

    labels: Array | None = None
    """One per item; None if there are none."""
    class_names: tuple[str, ...] = ()
    """Names of labels that are numbers from 0."""
    masks: Array | None = None
    boxes: Sequence[Array] | None = None
    weights: Array | None = None
    """Weight of each item in the loss."""
    size: tuple[int, int] | None = None
    """Height and width that pictures are brought to."""
    grey: bool = False
    """True if pictures of three channels become grey ones."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def picture(self, index: int) -> Array:
        """Return the picture of an item. Raises UnreadableError or OSError."""

    def name(self, index: int) -> str:
        return str(index)

    def prepare(self, indices: Sequence[int]) -> None:  # noqa: B027  (most have nothing to prepare)
        """Read ahead what the items of a batch need, if that is faster at once than one by one."""

    def scaled(self, index: int) -> tuple[Array, tuple[float, float]]:
        """Return a picture, and its pixels for each pixel of the source along x and y."""
        return self.picture(index), (1.0, 1.0)

    def item(self, index: int) -> Item:
        """Read an item. Raises UnreadableError or OSError."""
        picture, scale = self.scaled(index)
        mask = None if self.masks is None else self.masks[index]
        boxes = None if self.boxes is None else self.boxes[index]
        if boxes is not None and scale != (1, 1):
            boxes = boxes * np.array([*scale, *scale, *[1] * (boxes.shape[1] - 4)], np.float32)
        picture = numeric(picture)
        if self.grey and picture.shape[-1] == 3:
            held = picture if picture.dtype in (np.uint8, np.uint16) else picture.astype(np.float32)
            picture = cv2.cvtColor(held, cv2.COLOR_RGB2GRAY)[..., None]
        return Item(picture, mask, boxes)

    def shared(self) -> Self:
        """Return the same items, with large arrays in memory that processes share."""
        found = copy.copy(self)
        found.masks = None if self.masks is None else _shared(self.masks)
        return found

    def descriptors(self) -> tuple[int, ...]:
        """Return the open files that workers must get."""
        return tuple(array.memory for array in vars(self).values() if isinstance(array, SharedArray))


class _Scaled(Items):
    """Items of which `scaled` says all."""

    def picture(self, index: int) -> Array:
        return self.scaled(index)[0]


_NO_STORE = "axis and label are for a run store; {} is not one"
_WARPED = frozenset(np.dtype(name) for name in ("uint8", "uint16", "int16", "float32", "float64"))
"""Types of pixels that OpenCV warps."""
MOST_CHANNELS = 512
"""Channels that OpenCV's arrays may have."""


def numeric(picture: Any) -> Array:
    """Return a picture (height, width, channels) of a type that OpenCV warps; other numbers become float32.

    Raises UsageError if it is not a picture.
    """
    found: Array = np.asarray(picture)
    if found.dtype == np.uint8 and found.ndim == 3:
        return found
    found = found[..., None] if found.ndim == 2 else found
    if found.ndim != 3 or found.dtype.kind not in "biuf":
        raise UsageError(f"a picture is numbers (height, width, channels), not {found.dtype} {found.shape}")
    native = found.dtype.newbyteorder("=")
    return found.astype(native if native in _WARPED else np.float32, copy=False)


class ArrayItems(_Scaled):
    """Pictures in memory, (n, height, width, channels)."""

    def __init__(self, pictures: Array, size: tuple[int, int] | None = None) -> None:
        if pictures.ndim == 3:
            pictures = pictures[..., None]
        if pictures.ndim != 4 or pictures.dtype.kind not in "biuf" or 0 in pictures.shape[1:]:
            raise UsageError(
                f"pictures are numbers (n, height, width, channels), not an array of shape {pictures.shape} and type "
                f"{pictures.dtype}"
            )
        if pictures.shape[-1] > MOST_CHANNELS:
            raise UsageError(f"pictures have {pictures.shape[-1]} channels; at most {MOST_CHANNELS} are supported")
        self.pictures, self.size = pictures, size

    def __len__(self) -> int:
        return len(self.pictures)

    def scaled(self, index: int) -> tuple[Array, tuple[float, float]]:
        found = np.asarray(self.pictures[index])
        height, width, channels = found.shape
        if self.size in (None, (height, width)):
            return found, (1.0, 1.0)
        rows, columns = self.size
        found = numeric(found)
        made = resized(found, columns, rows).reshape(rows, columns, channels)
        # Bicubic interpolation goes beyond the values of a picture.
        return np.clip(made, found.min(), found.max()), (columns / width, rows / height)

    def shared(self) -> Self:
        found = super().shared()
        found.pictures = _shared(self.pictures)
        return found


class SharedArray(np.ndarray[Any, Any]):
    """An array in a file of memory without a name; workers get the file's descriptor instead of the pixels."""

    memory: int
    """Descriptor of the file."""
    start: int
    """Byte at which the array begins."""

    def __reduce__(self) -> Any:
        if not hasattr(self, "memory"):  # a part of it
            return np.asarray(self).__reduce__()
        return _opened, (self.memory, self.shape, self.dtype.str, self.start)

    def __del__(self) -> None:
        if hasattr(self, "memory"):
            os.close(self.memory)


def _opened(memory: int, shape: tuple[int, ...], dtype: str, start: int = 0) -> SharedArray:
    pages = mmap.mmap(memory, 0, access=mmap.ACCESS_READ)
    found = np.ndarray.__new__(SharedArray, shape, np.dtype(dtype), pages, start)
    found.memory, found.start = memory, start
    return found


_COMPARED = 16
"""Rows by which the file of a map is known again."""


def _shared(array: Array) -> Array:
    """Return a copy of an array in shared memory. A map of a file is shared as it is."""
    if isinstance(array, SharedArray):
        return array
    if isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap) and array.flags.c_contiguous:
        found = _of_file(array)
        if found is not None:
            return found
    from pipeline.loader.ring import memory_file

    array = np.asarray(array)
    memory = memory_file(array.nbytes, "the pictures in memory")
    with mmap.mmap(memory, 0) as pages:
        target: Array = np.ndarray(array.shape, array.dtype, pages)
        target[...] = array
        del target
    return _opened(memory, array.shape, array.dtype.str)


def _of_file(array: np.memmap[Any, Any]) -> SharedArray | None:
    """Return what the file of a map holds; None if it is gone, another one, or without the map's changes (mode "c")."""
    if array.filename is None:
        return None
    try:
        memory = os.open(array.filename, os.O_RDONLY)
    except OSError:
        return None
    try:
        found = _opened(memory, array.shape, array.dtype.str, array.offset)
    except (ValueError, TypeError):  # it is shorter
        os.close(memory)
        return None
    step = 1 if array.mode == "c" else max(1, len(array) // _COMPARED)
    rows = {*range(0, len(array), step), len(array) - 1} if len(array) else ()
    return found if all(found[row].tobytes() == array[row].tobytes() for row in rows) else None


class FileItems(_Scaled):
    """Pictures in files of their own, or in tar files, Parquet, HDF5 and Zarr: inputs of `kind: images`."""

    def __init__(self, collections: Sequence[Collection], size: tuple[int, int] | None) -> None:
        self.collections, self.size = list(collections), size
        self._ends = np.cumsum([0, *map(len, self.collections)])
        self._geometry = Geometry(size[::-1] if size else None)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _place(self, index: int) -> tuple[Collection, int]:
        if len(self.collections) == 1:
            return self.collections[0], index
        which = int(np.searchsorted(self._ends, index, side="right")) - 1
        return self.collections[which], index - int(self._ends[which])

    def path(self, index: int) -> str:
        """Return the name of a picture's file, as the system has it."""
        collection, row = self._place(index)
        return os.fsdecode(collection.names[row])

    def name(self, index: int) -> str:
        return text(os.fsencode(self.path(index)))

    def scaled(self, index: int) -> tuple[Array, tuple[float, float]]:
        collection, row = self._place(index)
        content = collection.shelf(row, row + 1).content(0)
        found = read(content, self._geometry) if isinstance(content, bytes) else fitted(content, self._geometry)
        return found.pixels, found.scale


class Chosen(_Scaled):
    """Some of the items of others, in an order of their own."""

    def __init__(self, items: Items, numbers: Sequence[int] | Array) -> None:
        self.items, self.numbers = items, np.asarray(numbers, np.int64)
        self.size, self.grey, self.class_names = items.size, items.grey, items.class_names
        self.labels = None if items.labels is None else items.labels[self.numbers]
        self.weights = None if items.weights is None else items.weights[self.numbers]

    def __len__(self) -> int:
        return len(self.numbers)

    def scaled(self, index: int) -> tuple[Array, tuple[float, float]]:
        return self.items.scaled(int(self.numbers[index]))

    def name(self, index: int) -> str:
        return self.items.name(int(self.numbers[index]))

    def prepare(self, indices: Sequence[int]) -> None:
        self.items.prepare(self.numbers[list(indices)].tolist())


class StoreItems(_Scaled):
    """Items of a run store, or the crops of their rows (faces, objects), read again from the inputs."""

    _ready: Mapping[int, tuple[Array, tuple[float, float]]] = {}
    """Pictures that `prepare` read, by item."""

    def __init__(self, run: Run, axis: str | None, label: str | None, size: tuple[int, int] | None) -> None:
        """Take the items of a store, or the rows of an axis that has a `box`, with an array of theirs as label.

        Rows of a negative label, which has no name, are left out. Raises StoreError.
        """
        self.path, self.size = run.path, size
        rows: list[tuple[str, int, Array | None]] = []
        labels: list[tuple[Array, Any]] = []
        for name, one in run.inputs.items():
            known = one.arrays
            if one.item != "frame":
                continue
            if axis is not None and axis not in {found.name for found in one.axes}:
                raise StoreError(f"{run.path}: {unknown('axis', axis, [found.name for found in one.axes])}")
            beside = [array for array, declared in known.items() if declared.dims == (axis or "frame",)]
            if label is not None and label not in beside:
                raise StoreError(f"{run.path}: {unknown(f'array of {axis or one.item}', label, beside)}")
            items = one.read([array for array in ("frame", "decoded") if array in known])
            # The number of a picture is its place; of a store that is half done, only some are there.
            spans = [np.arange(start, stop) for start, stop in one.spans(1 << 40)]
            place = items["frame"] if "frame" in items else np.concatenate(spans)
            values = one.array(label) if label else None
            known_label = True if values is None or values.dtype.kind != "i" else values >= 0
            if axis is None:
                kept = items["decoded"].astype(bool) & known_label
                found = [(name, int(number), None) for number in place[kept].tolist()]
            else:
                index = next(found.index for found in one.axes if found.name == axis)
                of, boxes = one.array(index), one.array("box")
                kept = np.ones(len(of), bool) & known_label
                found = [(name, int(place[of[k]]), boxes[k]) for k in np.flatnonzero(kept).tolist()]
            rows += found
            if values is not None:
                about = known[str(label)].attributes
                labels.append((values[kept], about.get("class_names", about.get("names"))))
        if not rows:
            raise StoreError(f"{run.path} has no {axis or 'picture'} to load")
        self.rows = rows
        if labels:
            self.labels, self.class_names = in_one_numbering(labels)

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, index: int) -> str:
        return f"{self.rows[index][0]}, item {self.rows[index][1]}"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_sources", "_ready")}

    @cached_property
    def _sources(self) -> dict[str, Any]:
        from pipeline.media.reread import reread
        from pipeline.store.read import open as open_store

        run = open_store(self.path)
        return {name: reread(run.input(name)) for name in {row[0] for row in self.rows}}

    def prepare(self, indices: Sequence[int]) -> None:
        """Decode the frames of these rows once each, forwards: alone, each would begin at the last key frame."""
        wanted: dict[str, dict[int, list[int]]] = {}
        for index in indices:
            name, number, _ = self.rows[index]
            wanted.setdefault(name, {}).setdefault(number, []).append(index)
        self._ready = {}
        for name, rows in wanted.items():
            for number, whole in self._sources[name].pixels(np.array(sorted(rows), np.int64)):
                self._ready |= {index: self._shown(index, whole) for index in rows[number]}

    def scaled(self, index: int) -> tuple[Array, tuple[float, float]]:
        if index in self._ready:
            return self._ready[index]
        name, number, _ = self.rows[index]
        whole = self._sources[name].one(number)
        if whole is None:
            raise UnreadableError("it cannot be read again, or has changed since")
        return self._shown(index, whole)

    def _shown(self, index: int, whole: Array) -> tuple[Array, tuple[float, float]]:
        name, _, box = self.rows[index]
        if box is not None:
            whole = _crop(whole, self._sources[name].on_pixels(box[None])[0])
        size = self.size or whole.shape[:2]
        found = fitted(np.ascontiguousarray(whole), Geometry(size[::-1]))
        return found.pixels, found.scale


def _crop(picture: Array, box: Array) -> Array:
    """Return the square around a box, with some padding; pixels outside the picture repeat its edge."""
    x, y, w, h = map(float, box)
    side = max(1, round(max(w, h) * (1 + 2 * _PADDING)))
    left, top = round(x + w / 2 - side / 2), round(y + h / 2 - side / 2)
    rows = np.clip(np.arange(top, top + side), 0, picture.shape[0] - 1)
    columns = np.clip(np.arange(left, left + side), 0, picture.shape[1] - 1)
    return picture[rows[:, None], columns[None]]


def in_one_numbering(parts: Sequence[tuple[Array, Any]]) -> tuple[Array, tuple[str, ...]]:
    """Return the labels of several inputs as numbers of the same classes, and the names of these.

    Each part is the labels of an input, and their names: a list by number, a mapping of some ids to names, or None.
    Lists that differ are put together by name. Ids (of people) become numbers from 0, in their order.
    """
    labels, tables = [part[0] for part in parts], [part[1] for part in parts]
    if all(isinstance(table, list | tuple) for table in tables):
        lists = [tuple(map(str, table)) for table in tables]
        if len(set(lists)) == 1:
            return np.concatenate(labels), lists[0]
        names = sorted(set().union(*lists))
        # The last place is that of -1, no class.
        places = [np.array([*map(names.index, one), -1], np.int32) for one in lists]
        return np.concatenate([place[values] for place, values in zip(places, labels, strict=True)]), tuple(names)
    found = np.concatenate(labels)
    if all(isinstance(table, Mapping) for table in tables):
        known = {key: name for table in tables for key, name in table.items()}
        ids, numbers = np.unique(found, return_inverse=True)
        return numbers.astype(np.int32), tuple(str(known.get(str(one), one)) for one in ids.tolist())
    return found, ()


def items_of(
    source: Any,
    size: tuple[int, int] | None = None,
    labels: Any = None,
    *,
    axis: str | None = None,
    label: str | None = None,
    masks: Any = None,
    boxes: Any = None,
    weights: Any = None,
    grey: bool = False,
) -> Items:
    """Return the items of a source: `Items`, an array, a folder, files, a list, tar files, or a run store.

    Raises InputError, StoreError or UsageError.
    """
    if size is not None:
        size = checked_size("image_size", size)
    found: Items
    if isinstance(source, Items | np.ndarray) and (axis or label):
        raise UsageError(_NO_STORE.format("the source"))
    if isinstance(source, Items):
        found = copy.copy(source)  # labels of one loader are not those of another
    elif isinstance(source, np.ndarray):
        found = ArrayItems(source, size)
    elif isinstance(source, list | tuple) and source and all(isinstance(one, np.ndarray) for one in source):
        if axis or label:
            raise UsageError(_NO_STORE.format("the source"))
        if len({one.shape for one in source}) > 1:
            raise UsageError("pictures in a list must have one shape; give files and image_size for others")
        found = ArrayItems(np.stack(source), size)
    else:
        found = _of_paths(source, size, axis, label)
    found.grey = found.grey or grey
    if labels is not None:
        found.labels, found.class_names = _array("labels", labels), ()
    if masks is not None:
        found.masks = _array("masks", masks)
    if boxes is not None:
        if not isinstance(boxes, Iterable):
            raise UsageError(f"boxes must be a list with an array for each picture, not {_short(boxes)}")
        found.boxes = [_boxes(one, index) for index, one in enumerate(boxes)]
    if weights is not None:
        found.weights = checked_weights(weights)
        if found.labels is None and found.masks is None:
            raise UsageError("weights are of labels or masks in a loss, and there are none; give labels as well")
    for what in ("labels", "masks", "boxes", "weights"):
        beside = getattr(found, what)
        if beside is not None and len(beside) != len(found):
            raise UsageError(f"{len(beside)} {what} for {len(found)} pictures; give one for each")
    if not len(found):
        raise InputError("the source has no picture")
    return found


def checked_size(name: str, size: Any) -> tuple[int, int]:
    """Return height and width. Raises UsageError."""
    try:
        rows, columns = map(operator.index, size)
    except (TypeError, ValueError):
        rows = columns = 0
    why = too_large(columns, rows)
    if min(rows, columns) < 1 or why is not None:
        raise UsageError(f"{name} is {size!r}; " + (why or "it must be height and width, whole numbers above 0"))
    return rows, columns


def _array(what: str, values: Any) -> Array:
    try:
        found: Array = np.asanyarray(values)
    except ValueError:
        found = np.array(None)
    if not found.ndim or (found.dtype.kind == "O" and what == "masks"):
        raise UsageError(f"{what} must be an array or a list with one entry for each picture, not {_short(values)}")
    return found


def checked_weights(values: Any) -> Array:
    """Return weights as float32. Raises UsageError if they are not finite numbers."""
    found = _array("weights", values)
    if found.dtype.kind not in "biuf" or not np.isfinite(found).all():
        raise UsageError(f"weights must be finite numbers, one for each picture, not {_short(values)}")
    return found.astype(np.float32)


def _boxes(values: Any, index: int) -> Array:
    try:
        exact = np.asarray(values, np.float64)
        exact = exact.reshape(-1, exact.shape[-1] if exact.size else 4)
    except (TypeError, ValueError, IndexError):
        exact = np.zeros((1, 0))
    if exact.shape[1] < 4 or not np.isfinite(exact[:, :4]).all():
        raise UsageError(f"boxes of picture {index} are {_short(values)}; a box is x, y, width, height, ...")
    found = exact.astype(np.float32)
    lost = exact[:, 4:][(exact[:, 4:] % 1 == 0) & (found[:, 4:] != exact[:, 4:])]
    if lost.size:  # an id
        raise UsageError(f"boxes of picture {index} hold {lost[0]:.0f}, which float32 cannot; number the ids from 0")
    return found


def _short(value: Any) -> str:
    shown = " ".join(repr(value).split())
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _of_paths(source: Any, size: tuple[int, int] | None, axis: str | None, label: str | None) -> Items:
    from pipeline.media.images.source import ImagesOptions, ImagesSource
    from pipeline.store.nodes import read_group

    try:
        given = [os.fspath(source)] if isinstance(source, str | os.PathLike) else [os.fspath(one) for one in source]
    except TypeError:
        raise UsageError(
            f"the source is {_short(source)}; give a folder, files, a list file, tar files, an array, or a run store"
        ) from None
    given = [os.fsdecode(one) for one in given]
    groups = [read_group(Path(one)) if Path(one).is_dir() else None for one in given]
    if any(group is not None and "workflow" in group.attributes for group in groups):
        from pipeline.store.read import open as open_store

        if len(given) > 1:
            raise UsageError(f"a run store is loaded alone, not with {len(given) - 1} more; make a loader of each")
        return StoreItems(open_store(given[0]), axis, label, size)
    if axis or label:
        raise UsageError(_NO_STORE.format(given[0] if given else "the source"))
    if given and all(name.lower().endswith(tuple(SUFFIXES)) and os.path.isfile(name) for name in given):
        found = files(given, size)
        _label_by_folder(found)
        return found
    options = ImagesOptions.model_validate({})
    opened = [ImagesSource.open(ref, options, None).collection for ref in ImagesSource.find(given, options)]
    found = FileItems(opened, size)
    if not _label_by_class(found):
        _label_by_folder(found)
    return found


def files(paths: Sequence[str], size: tuple[int, int] | None) -> FileItems:
    """Return the pictures of these files, in this order; a file may come several times, as labels may for it."""
    paths = [os.path.abspath(os.path.expanduser(path)) for path in paths]
    folder = os.path.commonpath([os.path.dirname(path) for path in paths])
    names = Names.of(os.fsencode(os.path.relpath(path, folder)) for path in paths)
    return FileItems([FilesOf(folder, "files", folder, names)], size)


def _label_by_folder(items: FileItems) -> None:
    """Label pictures by the first folder of their names, if all of them have one."""
    folders = _folders(items)
    if None not in folders:
        # A folder of validation, where a class has no picture, has the numbers of the one of training.
        empty = [name for one in items.collections if one.kind == "folder" for name in subfolders(one.path)]
        items.labels, items.class_names = _numbered(folders, empty)  # type: ignore[arg-type]


def _numbered(classes: Sequence[bytes], others: Iterable[bytes]) -> tuple[Array, tuple[str, ...]]:
    """Return the number of each class among the sorted names of all, and these."""
    names = sorted({*classes, *others})
    numbers = {name: number for number, name in enumerate(names)}
    return np.array([numbers[name] for name in classes], np.int32), tuple(map(text, names))


def _label_by_class(items: FileItems) -> bool:
    """Label pictures of tar files by their `.cls` files, numbers or names; return False unless all have one."""
    parts: list[tuple[Array, Any]] = []
    contents: list[bytes] = []
    for tar in items.collections:
        if not isinstance(tar, Tar):
            return False
        found, names = tar.classes()
        missing = found.count(None)
        if missing:
            if missing < len(found):
                _LOG.warning("%s: %d of %d pictures have no %s; none is used", tar.path, missing, len(found), CLASS)
            return False
        contents += found  # type: ignore[arg-type]
        try:
            numbers = np.array([int(one) for one in found], np.int32)  # type: ignore[arg-type]
        except (ValueError, OverflowError):
            numbers = np.zeros(0, np.int32)
        parts.append((numbers, names if names and numbers.max(initial=0) < len(names) else None))
    if len(contents) > sum(len(part) for part, _ in parts):
        items.labels, items.class_names = _numbered(contents, ())
        return True
    items.labels, items.class_names = in_one_numbering(parts)
    both = set(zip(items.labels.tolist(), _folders(items), strict=True))
    pairs = dict(both)
    is_own = len(pairs) == len(both) == len(set(pairs.values())) and None not in pairs.values()
    if not items.class_names and is_own and set(pairs) == set(range(len(pairs))):
        items.class_names = tuple(text(pairs[number]) for number in range(len(pairs)))
    return True


def _folders(items: FileItems) -> list[bytes | None]:
    return [folder_of(name) for collection in items.collections for name in collection.names]


def subfolders(folder: str) -> list[bytes]:
    """Return the names of the folders in a folder that are searched for pictures, also of those without any."""
    names = os.listdir(os.fsencode(folder))
    return [
        name for name in names
        if is_folder(os.path.join(folder, os.fsdecode(name))) and not name.startswith(b".")
        and not SYSTEM_FOLDERS.fullmatch(os.fsdecode(name))
    ]  # fmt: skip


def folder_of(name: bytes) -> bytes | None:
    """Return the first folder in a picture's name; None if there is none."""
    first, slash, _ = name.removeprefix(b"./").partition(b"/")
    return first if slash and first and not name.startswith(b"/") else None

"""Keras' ImageDataGenerator with workers: its arguments, with `flow` and its relatives that give loaders."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError, UsageError
from pipeline.loader.augment import Augment
from pipeline.loader.items import ArrayItems, Chosen, FileItems, Items, files, items_of, subfolders
from pipeline.loader.loader import Loader
from pipeline.media.images.names import text
from pipeline.text import unknown

_LOG = logging.getLogger("pipeline.loader")
_NO: tuple[Any, ...] = (None, False, "")
_ONLY: dict[str, tuple[Any, ...]] = {
    "zca_whitening": (False,), "zca_epsilon": (1e-6,), "interpolation_order": (1,),
    "data_format": ("channels_last", None), "dtype": ("float32", None), "sample_weight": _NO, "weight_col": _NO,
    "save_to_dir": _NO, "save_prefix": _NO, "save_format": ("png",), "follow_links": (True, False),
    "keep_aspect_ratio": (False,), "interpolation": (None,),
}  # fmt: skip
"""Arguments of Keras that have one value here, or have no effect."""
_ENDINGS = ("png", "jpg", "jpeg", "bmp", "ppm", "tif", "tiff")
"""Endings of files that Keras takes for pictures: it counts these alone when it splits a folder."""
ColorMode = Literal["rgb", "grayscale"]


class ImageDataGenerator:
    """Takes the place of `keras.preprocessing.image.ImageDataGenerator` in a script.

    `flow`, `flow_from_directory` and `flow_from_dataframe` return the data set for `model.fit`; as with Keras, `next`
    and a `for` loop go on from epoch to epoch. The seed is for shuffling and for augmentation, and None draws one.
    """

    def __init__(self, validation_split: float | None = 0.0, **values: Any) -> None:
        """Take Keras' arguments and those of `Augment`. Raises UsageError for one that is not supported."""
        _refuse(values, {name for name in values if name in _ONLY})
        if validation_split and not 0 < validation_split < 1:
            raise UsageError(f"validation_split is {validation_split}; it must lie between 0 and 1")
        self.validation_split = validation_split or 0.0
        self.augment = Augment(**values)

    def fit(self, x: npt.NDArray[Any], augment: bool = False, rounds: int = 1, seed: int | None = None) -> None:
        """Find the mean and standard deviation of a sample, for featurewise normalisation."""
        if augment:
            raise UsageError("fit(augment=True) is not supported; the mean of the pictures as they are is near to it")
        self.augment = self.augment.fit(x)

    def flow(
        self,
        x: npt.NDArray[Any],
        y: Any = None,
        batch_size: int = 32,
        shuffle: bool = True,
        sample_weight: None = None,
        seed: int | None = None,
        *,
        subset: str | None = None,
        ignore_class_split: bool = False,
        workers: int | None = None,
        **others: Any,
    ) -> Any:
        """Return the data set of pictures in memory; a `subset` is cut from the beginning, or is the rest."""
        _refuse({**others, "sample_weight": sample_weight})
        try:
            x, y = np.asanyarray(x), None if y is None else np.asarray(y)
        except ValueError as err:
            raise UsageError(f"x and y must be arrays, without further inputs beside x ({err})") from None
        part = self._part(subset, len(x))
        if subset and y is not None and not ignore_class_split:
            cut = int(len(x) * self.validation_split)
            if not np.array_equal(np.unique(y[:cut]), np.unique(y[cut:])):
                raise UsageError("training and validation have different classes; shuffle x and y before the split")
        items = items_of(ArrayItems(x[part] if subset else x), labels=None if y is None else y[part])
        return self._data(items, batch_size, shuffle, seed, workers)

    def flow_from_directory(
        self,
        directory: str | os.PathLike[str],
        target_size: tuple[int, int] = (256, 256),
        color_mode: ColorMode = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: Literal["categorical", "binary", "sparse"] | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        *,
        subset: str | None = None,
        workers: int | None = None,
        **others: Any,
    ) -> Any:
        """Return the data set of a folder with one sub-folder for each class.

        The order of the pictures, and a `subset` of each class, are those of Keras.
        """
        _refuse(others)
        _check(color_mode, class_mode, ("categorical", "binary", "sparse", None))
        items = items_of(directory, target_size, grey=color_mode == "grayscale")
        if not isinstance(items, FileItems) or not os.path.isdir(directory):
            raise InputError(f"{directory} is not a folder of pictures; pipeline.Loader reads other sources")
        known = sorted(map(os.fsdecode, subfolders(os.fspath(directory))))
        for name in classes or ():
            if name not in (*known, "."):
                raise UsageError(f"{directory}: {unknown('class', name, known)}")
        wanted = list(classes or known)
        rows: dict[str, list[tuple[str, str, int]]] = {name: [] for name in wanted}
        for number in range(len(items)):
            folder, _, name = items.path(number).rpartition("/")
            for own in {folder.partition("/")[0], "."} & rows.keys():
                if name.lower().endswith(_ENDINGS):
                    rows[own].append((folder, name, number))
        ordered = [sorted(rows[name]) for name in wanted]
        parts = [one[self._part(subset, len(one))] for one in ordered]
        numbers = [number for part in parts for _, _, number in part]
        if not numbers:
            told = f"in sub-folders {', '.join(wanted)[:200]}" if wanted else "in a sub-folder"
            raise InputError(f"{directory} has no picture {told}; for those of the folder itself use classes=['.']")
        items.labels = None
        found: Items = Chosen(items, numbers)
        if class_mode is not None:
            found.labels = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts])
            found.class_names = tuple(text(os.fsencode(name)) for name in wanted)
        return self._data(found, batch_size, shuffle, seed, workers, class_mode == "categorical")

    def flow_from_dataframe(
        self,
        dataframe: Any,
        directory: str | os.PathLike[str] | None = None,
        x_col: str = "filename",
        y_col: str | Sequence[str] = "class",
        weight_col: None = None,
        target_size: tuple[int, int] = (256, 256),
        color_mode: ColorMode = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: Literal["categorical", "binary", "sparse", "raw"] | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        *,
        subset: str | None = None,
        validate_filenames: bool = True,
        workers: int | None = None,
        **others: Any,
    ) -> Any:
        """Return the data set of the files that a table names: a DataFrame, or a mapping of its columns.

        Rows of files that are not there, and of classes that are not among `classes`, are left out, as with Keras.
        """
        _refuse({**others, "weight_col": weight_col})
        _check(color_mode, class_mode, ("categorical", "binary", "sparse", "raw", None))
        names, values = _column(dataframe, x_col), None
        if class_mode is not None:
            columns = [y_col] if isinstance(y_col, str) else list(y_col)
            found = [_column(dataframe, column) for column in columns]
            values = found[0] if isinstance(y_col, str) else [list(row) for row in zip(*found, strict=True)]
        if not all(isinstance(name, str) for name in names):
            raise UsageError(f"column {x_col!r} holds values that are not text; it must name files")
        paths = [os.path.join(os.fspath(directory or ""), name) for name in names]
        kept = list(range(len(paths)))
        if validate_filenames:
            kept = [row for row in kept if paths[row].lower().endswith(_ENDINGS) and os.path.isfile(paths[row])]
            if len(kept) < len(paths):
                gone = paths[min(set(range(len(paths))).difference(kept))]
                _LOG.warning("%d of %d files are left out, such as %s: there is no such picture file",
                             len(paths) - len(kept), len(paths), gone)  # fmt: skip
        if class_mode not in ("raw", None):
            assert values is not None
            values = [_classes(value, class_mode, y_col) for value in values]
            known = list(dict.fromkeys(classes or ())) or sorted({name for row in kept for name in values[row]})
            if class_mode == "binary" and len(known) != 2:
                raise UsageError(f"class_mode 'binary' needs 2 classes; there are {len(known)}")
            values = [[known.index(name) for name in value if name in known] for value in values]
            kept = [row for row in kept if values[row]]
        kept = kept[self._part(subset, len(kept))]
        if not kept:
            raise InputError("no row of the table is left; check directory, x_col and classes")
        items = files([paths[row] for row in kept], target_size)
        items.grey = color_mode == "grayscale"
        one_hot = False
        if class_mode == "raw":
            assert values is not None
            items.labels = np.array([values[row] for row in kept])
        elif class_mode is not None:
            assert values is not None
            items.class_names = tuple(known)
            one_hot = class_mode == "categorical" and all(len(values[row]) == 1 for row in kept)
            if one_hot or class_mode != "categorical":
                items.labels = np.array([values[row][0] for row in kept], np.int32)
            else:
                items.labels = np.zeros((len(kept), len(known)), np.float32)
                for at, row in enumerate(kept):
                    items.labels[at, values[row]] = 1
        return self._data(items, batch_size, shuffle, seed, workers, one_hot)

    def _part(self, subset: str | None, n: int) -> slice:
        """Return which of n pictures are in a subset: with Keras, validation is the first part."""
        cut = int(self.validation_split * n)
        parts = {None: slice(0, n), "validation": slice(0, cut), "training": slice(cut, n)}
        if subset not in parts:
            raise UsageError(f"subset is {subset!r}; choose training or validation")
        if subset == "validation" and not self.validation_split:
            raise UsageError("subset 'validation' is empty; give ImageDataGenerator a validation_split")
        return parts[subset]

    def _data(
        self, items: Items, batch_size: int, shuffle: bool, seed: int | None, workers: int | None, one_hot: bool = False
    ) -> Any:
        """Return a data set with the attributes of Keras' iterators that scripts read."""
        loader = Loader(
            items, batch_size, self.augment, shuffle=shuffle, seed=seed, workers=workers, one_hot=one_hot
        )
        data = loader.keras(endless=True)
        data.n = data.samples = loader.items
        data.batch_size, data.reset = batch_size, loader.restart
        data.labels = data.classes = loader.labels
        data.class_indices = {name: number for number, name in enumerate(loader.class_names)}
        data.num_classes = len(loader.class_names)
        data.filenames = [items.name(number) for number in range(loader.items)]
        return data


def _refuse(given: dict[str, Any], names: set[str] | None = None) -> None:
    """Take arguments of Keras that have no effect out of those given. Raises UsageError for others and other values."""
    for name in list(given) if names is None else names:
        value = given.pop(name)
        if name not in _ONLY:
            raise UsageError(unknown("argument", name, _ONLY))
        if not (value is None or isinstance(value, str | float | int)) or value not in _ONLY[name]:
            valid = _ONLY[name][0]
            raise UsageError(f"{name} is not supported" + (f" but for {valid!r}" if valid else "") + "; leave it out")


def _check(color_mode: str, class_mode: str | None, modes: tuple[str | None, ...]) -> None:
    if color_mode not in ("rgb", "grayscale"):
        raise UsageError(f"color_mode {color_mode!r} is not supported; use rgb or grayscale")
    if class_mode not in modes:
        raise UsageError(f"class_mode {class_mode!r} is not supported; use {', '.join(map(str, modes))}")


def _column(table: Any, name: str) -> list[Any]:
    """Return a column of a table. Raises UsageError if there is none."""
    try:
        return list(table[name])
    except KeyError:
        raise UsageError(unknown("column", str(name), map(str, table))) from None
    except TypeError:
        raise UsageError(f"the table is a {type(table).__name__}; give a DataFrame or a mapping of columns") from None


def _classes(value: Any, class_mode: str | None, column: Any) -> list[str]:
    """Return the classes of a row: one, or for "categorical" also a list. Raises UsageError."""
    if isinstance(value, str):
        return [value]
    if class_mode == "categorical" and isinstance(value, list | tuple):
        return list(map(str, value))
    raise UsageError(f"column {column!r} holds {value!r}; classes are texts, so use .astype(str), or class_mode='raw'")

"""Keras' ImageDataGenerator with workers: its arguments, with `flow` and its relatives that give loaders."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError, UsageError
from pipeline.loader.augment import Augment, Augmenter
from pipeline.loader.draws import UNIFORMS
from pipeline.loader.forms import FlowLoader, Form, Resized
from pipeline.loader.items import (
    ArrayItems,
    Chosen,
    FileItems,
    Items,
    checked_size,
    checked_weights,
    files,
    items_of,
    numeric,
    subfolders,
)
from pipeline.media.images.names import text
from pipeline.text import unknown

Array = npt.NDArray[Any]
_LOG = logging.getLogger("pipeline.loader")
_ONLY: dict[str, tuple[Any, ...]] = {
    "zca_whitening": (False,), "zca_epsilon": (1e-6,), "interpolation_order": (1,),
    "data_format": ("channels_last", None), "dtype": ("float32", None), "follow_links": (True, False),
}  # fmt: skip
"""Arguments of Keras that have one value here, or have no effect."""
_ENDINGS = ("png", "jpg", "jpeg", "bmp", "ppm", "tif", "tiff")
"""Endings of files that Keras takes for pictures: it counts these alone when it splits a folder."""
_METHODS = ("nearest", "bilinear", "bicubic", "hamming", "box", "lanczos")
"""Names that Keras gives to interpolations of Pillow."""
_FOR_RATIO = "bilinear"
"""Interpolation of pictures that keep their ratio of width to height, if none is given."""
_NUMBERS = ("binary", "sparse")
"""Class modes whose labels Keras gives as floats."""
ColorMode = Literal["rgb", "grayscale"]
ClassMode = Literal["categorical", "binary", "sparse", "input", "multi_output", "raw"] | None
_OF_TABLES = ("categorical", "binary", "sparse", "raw", "multi_output", "input", None)
_OF_FOLDERS = ("categorical", "binary", "sparse", "input", None)


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

    @property
    def mean(self) -> Array | None:
        """Mean of each channel, for featurewise normalisation; `fit` finds it."""
        return None if self.augment.mean is None else np.array(self.augment.mean, np.float32)

    @mean.setter
    def mean(self, value: Any) -> None:
        self.augment = self.augment.model_copy(update={"mean": _channels(value)})

    @property
    def std(self) -> Array | None:
        """Standard deviation of each channel, for featurewise normalisation; `fit` finds it."""
        return None if self.augment.std is None else np.array(self.augment.std, np.float32)

    @std.setter
    def std(self, value: Any) -> None:
        self.augment = self.augment.model_copy(update={"std": _channels(value)})

    def fit(self, x: Array, augment: bool = False, rounds: int = 1, seed: int | None = None) -> None:
        """Find the mean and standard deviation of a sample, or of its augmented pictures, for normalisation."""
        if augment:
            drawn = np.random.RandomState(seed)
            x = np.stack([self._changed(one, drawn) for _ in range(rounds) for one in np.asarray(x)])
        self.augment = self.augment.fit(x)

    def random_transform(self, x: Array, seed: int | None = None) -> Array:
        """Return a picture with random changes, without rescale and normalisation, as float32.

        Without a seed it draws from NumPy's global generator, as Keras does.
        """
        return self._changed(x, np.random if seed is None else np.random.RandomState(seed))

    def standardize(self, x: Array) -> Array:
        """Return a picture, or several, with `preprocessing_function`, rescale and normalisation, as float32."""
        return Augmenter(self.augment).standard(np.array(x, np.float32))

    def _changed(self, x: Array, drawn: Any) -> Array:
        off = {"rescale": None, "preprocessing_function": None}
        off |= {f"{of}wise_{what}": False for of in ("sample", "feature") for what in ("center", "std_normalization")}  # type: ignore[misc]
        augmenter, picture = Augmenter(self.augment.model_copy(update=off)), numeric(x)
        changes = augmenter.changes(drawn.random_sample(UNIFORMS).tolist(), *picture.shape[:2])
        made = augmenter.geometry(picture, changes)
        out = np.empty(made.shape, np.float32)
        augmenter.colours(made, changes, out)
        return out

    def flow(
        self,
        x: Any,
        y: Any = None,
        batch_size: int = 32,
        shuffle: bool = True,
        sample_weight: Any = None,
        seed: int | None = None,
        save_to_dir: str | os.PathLike[str] | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        ignore_class_split: bool = False,
        subset: str | None = None,
        *,
        workers: int | None = None,
        **others: Any,
    ) -> Any:
        """Return the data set of pictures in memory; a `subset` is cut from the beginning, or is the rest.

        x may be a pair: the pictures, and further inputs of the model, an array or a list of arrays.
        """
        _refuse(others)
        form = _form(save_to_dir, save_prefix, save_format)
        x, beside = _inputs(x)
        y = None if y is None else np.asarray(y)
        weights = None if sample_weight is None else checked_weights(sample_weight)
        if weights is not None and y is None:
            raise UsageError("sample_weight is for y; give y as well")
        named = [*(("a further input", one) for one in beside), ("y", y), ("sample_weight", weights)]
        for name, one in named:
            if one is not None and len(one) != len(x):
                raise UsageError(f"x has {len(x)} pictures and {name} {len(one)} rows; give one for each")
        if subset and y is not None and not ignore_class_split:
            cut = int(len(x) * self.validation_split)
            if not np.array_equal(np.unique(y[:cut]), np.unique(y[cut:])):
                raise UsageError("training and validation have different classes; shuffle x and y before the split")
        part = self._part(subset, len(x))
        items = items_of(ArrayItems(x[part] if subset else x), labels=None if y is None else y[part])
        items.weights = None if weights is None else weights[part]
        form = replace(form, beside=tuple(one[part] for one in beside))
        return self._data(items, form, batch_size, shuffle, seed, workers)

    def flow_from_directory(
        self,
        directory: str | os.PathLike[str],
        target_size: tuple[int, int] = (256, 256),
        color_mode: ColorMode = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: ClassMode = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        save_to_dir: str | os.PathLike[str] | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        follow_links: bool = False,
        subset: str | None = None,
        interpolation: str | None = None,
        keep_aspect_ratio: bool = False,
        *,
        workers: int | None = None,
        **others: Any,
    ) -> Any:
        """Return the data set of a folder with one sub-folder for each class.

        The order of the pictures, and a `subset` of each class, are those of Keras. Links are always followed.
        """
        _refuse({**others, "follow_links": follow_links})
        _check(color_mode, class_mode, _OF_FOLDERS)
        form = _form(save_to_dir, save_prefix, save_format)
        method, target_size = _method(interpolation, keep_aspect_ratio), checked_size("target_size", target_size)
        items = items_of(directory, target_size if method is None else None, grey=color_mode == "grayscale")
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
        found.labels = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts])
        found.class_names = tuple(text(os.fsencode(name)) for name in wanted)
        names = [items.path(number) for number in numbers]
        paths = [os.path.join(os.fspath(directory), name) for name in names]
        return self._files(
            found, form, names, paths, target_size, class_mode, method, keep_aspect_ratio, batch_size, shuffle, seed,
            workers,
        )  # fmt: skip

    def flow_from_dataframe(
        self,
        dataframe: Any,
        directory: str | os.PathLike[str] | None = None,
        x_col: str = "filename",
        y_col: str | Sequence[str] = "class",
        weight_col: str | None = None,
        target_size: tuple[int, int] = (256, 256),
        color_mode: ColorMode = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: ClassMode = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        save_to_dir: str | os.PathLike[str] | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        subset: str | None = None,
        interpolation: str | None = None,
        validate_filenames: bool = True,
        *,
        keep_aspect_ratio: bool = False,
        workers: int | None = None,
        **others: Any,
    ) -> Any:
        """Return the data set of the files that a table names: a DataFrame, or a mapping of its columns.

        Rows of files that are not there, and of classes that are not among `classes`, are left out, as with Keras.
        """
        _refuse(others)
        _check(color_mode, class_mode, _OF_TABLES)
        form = _form(save_to_dir, save_prefix, save_format)
        method, target_size = _method(interpolation, keep_aspect_ratio), checked_size("target_size", target_size)
        names = _column(dataframe, x_col)
        values: list[Any] = []
        weights = None if weight_col is None else _weights(dataframe, weight_col)
        if weights is not None and class_mode is None:
            raise UsageError("weight_col is for labels; give a class_mode as well")
        if class_mode == "multi_output" and (isinstance(y_col, str) or not y_col):
            raise UsageError(f"class_mode 'multi_output' needs y_col to be a list of columns, not {y_col!r}")
        if class_mode not in (None, "input"):
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
        is_named = class_mode in ("categorical", *_NUMBERS)
        if is_named:
            values = [_classes(value, class_mode, y_col) for value in values]
            known = list(dict.fromkeys(classes or ())) or sorted({name for row in kept for name in values[row]})
            if class_mode == "binary" and len(known) != 2:
                raise UsageError(f"class_mode 'binary' needs 2 classes; there are {len(known)}")
            values = [[known.index(name) for name in value if name in known] for value in values]
            kept = [row for row in kept if values[row]]
        kept = kept[self._part(subset, len(kept))]
        if not kept:
            raise InputError("no row of the table is left; check directory, x_col and classes")
        items = files([paths[row] for row in kept], target_size if method is None else None)
        items.grey = color_mode == "grayscale"
        if class_mode == "raw":
            items.labels = np.array([values[row] for row in kept])
        elif class_mode == "multi_output":
            outputs = zip(*(values[row] for row in kept), strict=True)
            form = replace(form, outputs=tuple(map(_output, outputs, y_col)))
        elif is_named:
            items.class_names = tuple(known)
            if class_mode != "categorical" or all(len(values[row]) == 1 for row in kept):
                items.labels = np.array([values[row][0] for row in kept], np.int32)
            else:
                items.labels = np.zeros((len(kept), len(known)), np.float32)
                for at, row in enumerate(kept):
                    items.labels[at, values[row]] = 1
        if weights is not None:
            items.weights = weights[kept]
        return self._files(
            items, form, [names[row] for row in kept], [paths[row] for row in kept], target_size, class_mode, method,
            keep_aspect_ratio, batch_size, shuffle, seed, workers,
        )  # fmt: skip

    def _part(self, subset: str | None, n: int) -> slice:
        """Return which of n pictures are in a subset: with Keras, validation is the first part."""
        cut = int(self.validation_split * n)
        parts = {None: slice(0, n), "validation": slice(0, cut), "training": slice(cut, n)}
        if subset not in parts:
            raise UsageError(f"subset is {subset!r}; choose training or validation")
        if subset == "validation" and not self.validation_split:
            raise UsageError("subset 'validation' is empty; give ImageDataGenerator a validation_split")
        return parts[subset]

    def _files(
        self, items: Items, form: Form, names: list[str], paths: list[str], target_size: tuple[int, int],
        class_mode: ClassMode, method: str | None, keeps_ratio: bool, batch_size: int, shuffle: bool,
        seed: int | None, workers: int | None,
    ) -> Any:  # fmt: skip
        """Return the data set of files, with what Keras' iterators over files have beside that of arrays."""
        form = replace(form, is_input=class_mode == "input", has_float_labels=class_mode in _NUMBERS)
        classes, class_names = items.labels, items.class_names
        if class_mode in (None, "input"):
            items.labels, items.class_names = None, ()
        if method is not None:
            items = Resized(items, target_size, method, keeps_ratio)
        one_hot = class_mode == "categorical" and classes is not None and classes.ndim == 1
        data = self._data(items, form, batch_size, shuffle, seed, workers, one_hot)
        data.filenames, data.filepaths, data.class_mode, data.target_size = names, paths, class_mode, target_size
        data.image_shape = (*data.target_size, 1 if items.grey else 3)
        data.classes, data.labels = classes, list(form.outputs) or classes
        data.class_indices, data.num_classes = _numbered(class_names), len(class_names)
        return data

    def _data(
        self, items: Items, form: Form, batch_size: int, shuffle: bool, seed: int | None, workers: int | None,
        one_hot: bool = False,
    ) -> Any:  # fmt: skip
        """Return a data set with the attributes of Keras' iterators that scripts read."""
        loader = FlowLoader(
            form, items, batch_size, self.augment, shuffle=shuffle, seed=seed, workers=workers, one_hot=one_hot
        )
        data = loader.keras(endless=True)
        data.n = data.samples = loader.items
        data.batch_size, data.reset, data.shuffle, data.seed = batch_size, loader.restart, shuffle, seed
        data.labels = data.classes = loader.labels
        data.class_indices, data.num_classes = _numbered(loader.class_names), len(loader.class_names)
        data.filenames = [items.name(number) for number in range(loader.items)]
        return data


def _numbered(names: Sequence[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(names)}


def _form(save_to: str | os.PathLike[str] | None, prefix: str, ending: str) -> Form:
    """Return the form of batches, with the folder that pictures are saved in. Raises UsageError if they cannot be."""
    if not save_to:
        return Form()
    from PIL import Image

    folder = Path(save_to).expanduser()
    if not folder.is_dir():
        raise UsageError(f"save_to_dir is {os.fspath(save_to)!r}, which is not a folder; make it first")
    if Image.registered_extensions().get(f".{ending}") not in Image.SAVE:
        raise UsageError(f"save_format is {ending!r}; use png or jpeg")
    return Form(save_to=folder, prefix=prefix, format=ending)


def _method(interpolation: str | None, keeps_ratio: bool) -> str | None:
    """Return the interpolation of Pillow that was asked for; None if pictures are read at the size at once."""
    if interpolation is not None and interpolation not in _METHODS:
        raise UsageError(unknown("interpolation", str(interpolation), _METHODS))
    return interpolation or (_FOR_RATIO if keeps_ratio else None)


def _inputs(x: Any) -> tuple[Array, list[Array]]:
    """Return the pictures of `flow`, and further inputs of the model. Raises UsageError."""
    beside: Any = []
    try:
        if isinstance(x, tuple | list) and len(x) == 2 and np.ndim(x[0]) == 4:
            x, beside = x[0], x[1] if isinstance(x[1], list) else [x[1]]
        return np.asanyarray(x), [np.asarray(one) for one in beside]
    except ValueError as err:
        raise UsageError(f"x must be pictures of one shape, or a pair of these and further inputs ({err})") from None


def _channels(value: Any) -> tuple[float, ...] | None:
    try:
        return None if value is None else tuple(np.ravel(value).astype(float).tolist())
    except (TypeError, ValueError):
        raise UsageError(f"mean and std are numbers, one for each channel, not {value!r}") from None


def _weights(table: Any, column: str) -> Array:
    """Return a column of weights. Raises UsageError if they are not finite numbers."""
    values = _column(table, column)
    try:
        return checked_weights(values)
    except UsageError as err:
        raise UsageError(f"column {column!r}: {err}") from None


def _output(values: Sequence[Any], column: str) -> Array:
    try:
        return np.array(list(values))
    except ValueError:
        raise UsageError(f"column {column!r} holds lists of several lengths; an output has one") from None


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

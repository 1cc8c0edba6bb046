"""Keras' ImageDataGenerator with workers: its arguments, with `flow` and `flow_from_directory` that give loaders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError, UsageError
from pipeline.loader.augment import Augment
from pipeline.loader.items import items_of
from pipeline.loader.loader import Loader

_ONLY: dict[str, tuple[Any, ...]] = {
    "zca_whitening": (False,), "zca_epsilon": (1e-6,), "validation_split": (0, None), "interpolation_order": (1,),
    "data_format": ("channels_last", None), "dtype": ("float32", None),
}  # fmt: skip
"""Arguments of Keras that have one value here."""
_SEED_BITS = 32


class ImageDataGenerator:
    """Takes the place of `keras.preprocessing.image.ImageDataGenerator` in a script.

    `flow` and `flow_from_directory` return the data set for `model.fit`; as with Keras, `next` and a `for` loop go
    on from epoch to epoch. The seed is for shuffling and for augmentation, and None draws one.
    """

    def __init__(self, **values: Any) -> None:
        """Take Keras' arguments and those of `Augment`. Raises UsageError for one that is not supported."""
        for name, valid in _ONLY.items():
            if name in values and values.pop(name) not in valid:
                raise UsageError(f"{name} is not supported but for {valid[0]!r}; leave it out")
        self.augment = Augment(**values)

    def fit(self, x: npt.NDArray[Any]) -> None:
        """Find the mean and standard deviation of a sample, for featurewise normalisation."""
        self.augment = self.augment.fit(x)

    def flow(
        self,
        x: npt.NDArray[Any],
        y: Any = None,
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        workers: int | None = None,
    ) -> Any:
        """Return the data set of pictures in memory."""
        made = Loader(
            np.asarray(x), batch_size, self.augment, labels=y, shuffle=shuffle, seed=_seed(seed), workers=workers
        )
        return made.keras(endless=True)

    def flow_from_directory(
        self,
        directory: str | os.PathLike[str],
        target_size: tuple[int, int] = (256, 256),
        color_mode: Literal["rgb", "grayscale"] = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: Literal["categorical", "binary", "sparse"] | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        workers: int | None = None,
    ) -> Any:
        """Return the data set of a folder with one sub-folder for each class."""
        if color_mode not in ("rgb", "grayscale"):
            raise UsageError(f"color_mode {color_mode!r} is not supported; use rgb or grayscale")
        if class_mode not in ("categorical", "binary", "sparse", None):
            raise UsageError(f"class_mode {class_mode!r} is not supported; use categorical, binary, sparse or None")
        items = items_of(directory, target_size, grey=color_mode == "grayscale")
        if class_mode is None:
            items.labels = None
        elif items.labels is None:
            raise InputError(f"pictures of {directory} do not all lie in sub-folders; use class_mode=None")
        elif classes is not None:
            if sorted(classes) != sorted(items.class_names):
                raise UsageError(f"classes are {list(items.class_names)} in {directory}, not {list(classes)}")
            places = np.array([list(classes).index(name) for name in items.class_names], np.int32)
            items.labels, items.class_names = places[items.labels], tuple(classes)
        made = Loader(
            items, batch_size, self.augment, shuffle=shuffle, seed=_seed(seed), workers=workers,
            one_hot=class_mode == "categorical",
        )  # fmt: skip
        return made.keras(endless=True)


def _seed(seed: int | None) -> int:
    return int.from_bytes(os.urandom(_SEED_BITS // 8), "little") if seed is None else seed

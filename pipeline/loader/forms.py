"""Batches in the form that Keras' iterators give them: inputs, labels, weights; and pictures at sizes by Pillow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.loader.batches import Made
from pipeline.loader.items import Items
from pipeline.loader.loader import Loader

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Form:
    """Differences of a batch of Keras' iterators from one of a `Loader`, and the folder that pictures are saved in."""

    beside: tuple[Array, ...] = ()
    """Further inputs of the model beside the pictures, a row for each."""
    outputs: tuple[Array, ...] = ()
    """Labels of several outputs, a row for each picture; they stand in place of labels."""
    is_input: bool = False
    """True if the pictures stand in place of labels."""
    has_float_labels: bool = False
    save_to: Path | None = None
    """Folder of files PREFIX_INDEX_EPOCH.FORMAT; Keras has a random number in the place of the epoch."""
    prefix: str = ""
    format: str = "png"


class FlowLoader(Loader):
    """A loader whose batches have the form of Keras' iterators."""

    def __init__(self, form: Form, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.form = form

    def _batch(self, made: Made, arrays: list[Array], epoch: int) -> Any:
        found = super()._batch(made, arrays, epoch)
        form, images, rows = self.form, arrays[0], made.indices
        if form.save_to is not None:
            import keras

            for image, row in zip(images, rows, strict=True):
                picture = keras.utils.array_to_img(image, "channels_last", scale=True)
                picture.save(form.save_to / f"{form.prefix}_{row}_{epoch}.{form.format}")
        labels: Any = None
        if form.is_input:
            labels = images.copy()
        elif form.outputs:
            labels = tuple(output[rows] for output in form.outputs)  # Keras gives a list, which its `fit` refuses
        elif self.labels is not None:
            labels = found[1].astype(np.float32) if form.has_float_labels else found[1]
        inputs: Any = (images, *(one[rows] for one in form.beside)) if form.beside else images
        if labels is None:
            return inputs
        weights = self.recipe.items.weights
        return (inputs, labels) if weights is None else (inputs, labels, weights[rows])


class Resized(Items):
    """Pictures of others, brought to a size by Pillow as Keras' `load_img` does it."""

    def __init__(self, items: Items, size: tuple[int, int], method: str, keeps_ratio: bool) -> None:
        self.items, self.size, self.method, self.keeps_ratio = items, size, method, keeps_ratio
        self.labels, self.weights, self.class_names, self.grey = (
            items.labels, items.weights, items.class_names, items.grey,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.items)

    def name(self, index: int) -> str:
        return self.items.name(index)

    def picture(self, index: int) -> Array:
        from PIL import Image

        assert self.size is not None
        picture = Image.fromarray(self.items.picture(index))
        picture = picture.convert("L") if self.grey else picture  # before it is resized, as Keras does
        (width, height), (rows, columns) = picture.size, self.size
        box = (0, 0, width, height)
        if self.keeps_ratio:  # the middle that has the ratio of the new size
            w, h = min(width, height * columns // rows), min(height, width * rows // columns)
            left, top = (width - w) // 2, (height - h) // 2
            box = (left, top, left + w, top + h)
        return np.asarray(picture.resize((columns, rows), Image.Resampling[self.method.upper()], box=box))

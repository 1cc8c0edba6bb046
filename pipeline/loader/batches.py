"""Make one batch: the same bytes in whatever process, by the items' numbers, the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError, ReelgraphError, UsageError
from pipeline.loader.augment import Augment, Augmenter
from pipeline.loader.draws import UNIFORMS, Draws
from pipeline.loader.items import MOST_CHANNELS, Item, Items
from pipeline.loader.ring import Field
from pipeline.loader.transforms import Transform
from pipeline.media.picture import UnreadableError
from pipeline.text import plural

Array = npt.NDArray[Any]
Rule = Literal["next", "skip", "zeros", "raise"]


@dataclass
class Made:
    """Facts of a batch that was made; its pixels lie in the arrays that were given."""

    indices: list[int]
    """Item of each row."""
    boxes: list[Array] | None = None
    broken: dict[int, str] = field(default_factory=dict)
    """Items that could not be read, with the reason."""


@dataclass(frozen=True)
class Recipe:
    """All that decides what is in a batch; it travels to the workers."""

    items: Items
    augment: Any
    seed: int
    broken: Rule
    dtype: str | None = None
    """Type of the pictures; None if the pictures themselves decide."""


class Maker:
    """Makes batches of a recipe."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.items = recipe, recipe.items
        self.draws = Draws(recipe.seed)
        augment = Augment() if recipe.augment is None else recipe.augment
        self.augmenter = Augmenter(augment) if isinstance(augment, Augment) else None
        self.transform = None if self.augmenter else Transform(augment)

    def fields(self) -> tuple[Field, ...]:
        """Return the arrays of a batch, from the first item that can be read. Raises InputError if there is none."""
        item, dtype = self._first(), self.recipe.dtype
        if self.augmenter is not None:
            height, width, channels = item.picture.shape
            shape: tuple[int, ...] = (*self.augmenter.size(height, width), channels)
            self.augmenter.changes([0.0] * UNIFORMS, height, width)  # raises if a crop does not fit
            self.augmenter.options.check(channels)
            is_whole = self.augmenter.options.keeps_integers and item.picture.dtype == np.uint8
        else:
            assert self.transform is not None
            item = self._transformed(item, 0, 0)
            shape, is_whole = item.picture.shape, item.picture.dtype == np.uint8
        if dtype == "uint8" and not is_whole:
            raise UsageError("dtype uint8 holds pictures of uint8 without rescale and normalisation only")
        if self.transform is not None:
            dtype = dtype or str(item.picture.dtype).replace("float64", "float32")
        fields = [Field(shape, dtype or "float32")]
        if item.mask is not None:
            if item.mask.ndim not in (2, 3) or item.mask.dtype.kind not in "biuf":
                told = ", ".join(map(str, ("n", *item.mask.shape)))
                raise UsageError(f"masks are numbers (n, height, width), not {item.mask.dtype} ({told})")
            channels = int(np.prod(item.mask.shape[2:]))
            if not 1 <= channels * max(1, item.mask.itemsize // 4) <= MOST_CHANNELS:
                told = f"masks of {item.mask.dtype} have {plural(channels, 'channel')}"
                raise UsageError(f"{told}; from 1 to {MOST_CHANNELS // max(1, item.mask.itemsize // 4)} are supported")
            fields.append(Field((*shape[:2], *item.mask.shape[2:]), str(item.mask.dtype)))
        return tuple(fields)

    def _first(self) -> Item:
        for index in range(len(self.items)):
            try:
                return self._item(index)
            except (UnreadableError, OSError) as err:
                last = f"{self.items.name(index)}: {err}"
        raise InputError(f"none of the {len(self.items)} pictures can be read (the last one: {last})")

    def _item(self, index: int) -> Item:
        try:
            return self.items.item(index)
        except (ReelgraphError, OSError):
            raise
        except Exception as err:  # a source of the user's own
            told = " ".join(str(err).split())
            raise UsageError(f"the source failed on {self.items.name(index)}: {type(err).__name__}: {told}") from err

    def make(self, epoch: int, indices: Sequence[int], arrays: Sequence[Array]) -> Made:
        """Write the pictures (and masks) of items into arrays, row by row.

        Raises UsageError if a user's function fails or pictures differ in size, InputError by the rule "raise".
        """
        self.items.prepare(indices)
        made = Made([], None if self.items.boxes is None else [])
        for index in indices:
            found, item = self._read(index, made.broken, self.recipe.broken)
            if item is None and self.recipe.broken == "skip":
                if index != indices[-1] or made.indices:
                    continue
                found, item = self._read(index, made.broken, "next")  # a loss over no picture would be NaN
            row = len(made.indices)
            made.indices.append(found)
            if item is None:
                for array in arrays:
                    array[row] = 0
                boxes: Array | None = np.zeros((0, 4), np.float32)
            else:
                boxes = self._write(item, epoch, index, found, [array[row] for array in arrays])
            if made.boxes is not None and boxes is not None:
                made.boxes.append(boxes)
        return made

    def _read(self, index: int, broken: dict[int, str], rule: Rule) -> tuple[int, Item | None]:
        """Return the item to show in a place, and its number: by the rule "next" the next one that can be read."""
        for step in range(len(self.items)):
            at = (index + step) % len(self.items)
            try:
                return at, self._item(at)
            except (UnreadableError, OSError) as err:
                broken[at] = str(err)
            if rule == "raise":
                raise InputError(f"{self.items.name(at)}: {broken[at]}")
            if rule != "next":
                return index, None
        raise InputError(f"none of the {len(self.items)} pictures can be read")

    def _write(self, item: Item, epoch: int, index: int, found: int, rows: Sequence[Array]) -> Array | None:
        """Write one item, changed by the draws of its place, into a row of each array; return its boxes."""
        height, width = item.picture.shape[:2]
        if item.mask is not None and item.mask.shape[:2] != (height, width):
            told = " × ".join(map(str, item.mask.shape))
            raise UsageError(
                f"the mask of {self.items.name(found)} has {told} pixels, its picture {height} × {width}; give masks "
                "of the pictures' size, which is image_size if it is set"
            )
        if self.augmenter is not None:
            changes = self.augmenter.changes(self.draws.uniforms(epoch, index), height, width)
            picture = self.augmenter.geometry(item.picture, changes)
            self._check(picture.shape, rows[0].shape, found)
            try:
                self.augmenter.colours(picture, changes, rows[0])
            except ReelgraphError:
                raise
            except Exception as err:  # preprocessing_function
                raise self._failed(found, err) from err
            if item.mask is not None:
                rows[1][...] = self.augmenter.geometry(item.mask, changes, nearest=True)
            return None if item.boxes is None else self.augmenter.boxes(item.boxes, changes, height, width)
        done = self._transformed(item, epoch, index, found)
        self._check(done.picture.shape, rows[0].shape, found)
        rows[0][...] = done.picture
        if done.mask is not None:
            if done.mask.shape != rows[1].shape:
                raise UsageError(
                    f"augment made of {self.items.name(found)} a picture of shape {rows[0].shape}; its mask has "
                    f"{done.mask.shape}. A function of the picture alone must keep its size if there are masks"
                )
            rows[1][...] = done.mask
        return done.boxes

    def _transformed(self, item: Item, epoch: int, index: int, found: int | None = None) -> Item:
        assert self.transform is not None
        try:
            made = self.transform(item, self.draws, epoch, index)
            if not made.picture.ndim or made.picture.dtype.kind not in "biufc":
                raise TypeError("it must return a picture, an array of numbers")
        except Exception as err:
            raise self._failed(index if found is None else found, err) from err
        return made

    def _failed(self, index: int, err: Exception) -> UsageError:
        return UsageError(
            f"augment failed on {self.items.name(index)}: {type(err).__name__}: {' '.join(str(err).split())}"
        )

    def _check(self, shape: tuple[int, ...], wanted: tuple[int, ...], index: int) -> None:
        if shape != wanted:
            raise UsageError(
                f"pictures differ in size: {self.items.name(index)} is {shape}, the first one {wanted}; "
                "set image_size=(height, width)"
            )

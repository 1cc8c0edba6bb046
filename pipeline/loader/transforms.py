"""Users' own transforms in place of `Augment`: a callable, albumentations, torchvision; seeded for each item.

A callable with two parameters gets the picture and a `numpy.random.Generator` of the item. Before any other transform
the global generators of `random`, NumPy and, once it is imported, torch are seeded for the item, and restored after it.
"""

from __future__ import annotations

import copy
import inspect
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from pipeline.errors import UsageError
from pipeline.loader.draws import Draws
from pipeline.loader.items import Item


class Transform:
    """A user's transform, called for one item at a time."""

    def __init__(self, transform: Any) -> None:
        if not callable(transform):
            raise UsageError(f"augment is {transform!r}; give an Augment, or a function of a picture")
        self.transform = transform
        module = type(transform).__module__.partition(".")[0]
        self.kind = "albumentations" if hasattr(transform, "set_random_seed") else module
        self.takes_generator = (
            self.kind not in ("albumentations", "torchvision", "torch") and _parameters(transform) > 1
        )

    def __call__(self, item: Item, draws: Draws, epoch: int, index: int) -> Item:
        """Return a changed item; the transform may write into what it gets."""
        item = copy.deepcopy(item)
        if self.takes_generator:
            return Item(np.asarray(self.transform(item.picture, draws.generator(epoch, index))), item.mask, item.boxes)
        seed = draws.seed_of(epoch, index)
        with _seeded(seed):
            if self.kind == "albumentations":
                return self._albumentations(item, seed)
            if self.kind in ("torchvision", "torch"):
                return self._torchvision(item)
            return Item(np.asarray(self.transform(item.picture)), item.mask, item.boxes)

    def _albumentations(self, item: Item, seed: int) -> Item:
        self.transform.set_random_seed(seed)
        given: dict[str, Any] = {"image": np.ascontiguousarray(item.picture)}
        if item.mask is not None:
            given["mask"] = np.ascontiguousarray(item.mask)
        if item.boxes is not None:
            processor = getattr(self.transform, "processors", {}).get("bboxes")
            if processor is None or processor.params.format != "coco":
                raise ValueError("boxes are x, y, width, height: give Compose bbox_params=BboxParams('coco')")
            given["bboxes"] = item.boxes
        made = self.transform(**given)
        boxes = None if item.boxes is None else np.asarray(made["bboxes"], np.float32).reshape(-1, item.boxes.shape[1])
        return Item(np.asarray(made["image"]), made.get("mask"), boxes)

    def _torchvision(self, item: Item) -> Item:
        import torch
        from torchvision import tv_tensors

        picture = np.ascontiguousarray(np.moveaxis(item.picture, -1, 0))
        given: list[Any] = [tv_tensors.Image(torch.from_numpy(picture))]
        if item.mask is not None:
            given.append(tv_tensors.Mask(torch.from_numpy(np.array(item.mask))))
        if item.boxes is not None:
            places = torch.from_numpy(np.array(item.boxes[:, :4], np.float32))
            size = item.picture.shape[:2]
            given.append(tv_tensors.BoundingBoxes(places, format="XYWH", canvas_size=size))
        made = self.transform(*given) if len(given) > 1 else (self.transform(given[0]),)
        arrays = [np.asarray(one) for one in made]
        mask = arrays[1] if item.mask is not None else None
        boxes = None if item.boxes is None else arrays[-1]
        if boxes is not None and item.boxes is not None and item.boxes.shape[1] > 4:
            if len(boxes) != len(item.boxes):
                raise ValueError("it left boxes out, and their further columns do not say which; keep all of them")
            boxes = np.column_stack([boxes, item.boxes[:, 4:]])
        return Item(np.moveaxis(arrays[0], 0, -1) if torch.is_tensor(made[0]) else arrays[0], mask, boxes)


def _parameters(function: Any) -> int:
    """Return how many parameters without a default a function has; 1 if that is not known."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 1
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    return sum(one.kind in kinds and one.default is inspect.Parameter.empty for one in found)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    torch = sys.modules.get("torch")
    before = random.getstate(), np.random.get_state(), torch.get_rng_state() if torch is not None else None
    random.seed(seed)
    np.random.seed(seed)
    if torch is not None:
        torch.random.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        if torch is not None:
            torch.set_rng_state(before[2])

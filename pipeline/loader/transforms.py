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
        self.kind = _kind(transform)
        self.takes_generator = self.kind == "function" and _parameters(transform) > 1

    def __call__(self, item: Item, draws: Draws, epoch: int, index: int) -> Item:
        """Return a changed item; the transform may write into what it gets."""
        had_torch = "torch" in sys.modules
        made = self._made(copy.deepcopy(item), draws, epoch, index)
        if "torch" in sys.modules and not had_torch:  # imported by the transform itself: drawn from without a seed
            made = self._made(copy.deepcopy(item), draws, epoch, index)
        return made

    def _made(self, item: Item, draws: Draws, epoch: int, index: int) -> Item:
        if self.takes_generator:
            made = self.transform(item.picture, draws.generator(epoch, index))
            return Item(_channels_last(made), item.mask, item.boxes)
        seed = draws.seed_of(epoch, index)
        with _seeded(seed):
            if self.kind == "albumentations":
                return self._albumentations(item, seed)
            if self.kind == "torchvision":
                return self._torchvision(item)
            if self.kind == "pillow":
                return self._pillow(item)
            return Item(_channels_last(self.transform(item.picture)), item.mask, item.boxes)

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
        mask = None if item.mask is None else np.asarray(made["mask"])
        return Item(_channels_last(made["image"]), mask, boxes)

    def _torchvision(self, item: Item) -> Item:
        import torch
        from torchvision import tv_tensors
        from torchvision.transforms import v2

        picture = np.ascontiguousarray(np.moveaxis(item.picture, -1, 0))
        given: dict[str, Any] = {"image": tv_tensors.Image(torch.from_numpy(picture))}
        if item.mask is not None:
            planes = item.mask if item.mask.ndim == 2 else np.moveaxis(item.mask, -1, 0)
            given["mask"] = tv_tensors.Mask(torch.from_numpy(np.array(planes)))
        if item.boxes is not None:
            places = torch.from_numpy(np.array(item.boxes[:, :4], np.float32))
            size = item.picture.shape[:2]
            given["boxes"] = tv_tensors.BoundingBoxes(places, format="XYWH", canvas_size=size)
        if len(given) == 1:
            return Item(_channels_last(self.transform(given["image"])), None, None)
        if isinstance(self.transform, v2.Transform | torch.nn.Sequential):
            # SanitizeBoundingBoxes leaves the labels of a box out with it: these say which are left.
            made = self.transform({**given, "labels": torch.arange(len(given.get("boxes", ())))})
        else:  # a module of the user's own
            made = dict(zip(given, self.transform(*given.values()), strict=True))
        mask = None if item.mask is None else _channels_last(made["mask"])
        boxes = None if item.boxes is None else np.asarray(made["boxes"])
        if boxes is not None and item.boxes is not None and item.boxes.shape[1] > 4:
            left = np.asarray(made.get("labels", np.arange(len(item.boxes))))
            if len(boxes) != len(left):
                raise ValueError(
                    "it left boxes out, and their further columns do not say which; do so by SanitizeBoundingBoxes()"
                )
            boxes = np.column_stack([boxes, item.boxes[left, 4:]])
        return Item(_channels_last(made["image"]), mask, boxes)

    def _pillow(self, item: Item) -> Item:
        """Apply a transform of torchvision's first version, which takes a picture of Pillow alone."""
        from PIL import Image

        if item.mask is not None or item.boxes is not None:
            raise ValueError("transforms of torchvision v1 do not take masks and boxes along; use torchvision v2")
        pixels = item.picture[..., 0] if item.picture.shape[-1] == 1 else item.picture
        made = _channels_last(self.transform(Image.fromarray(pixels)))
        return Item(made if made.ndim == 3 else made[..., None], None, None)


def _kind(transform: Any) -> str:
    """Return how a transform is called: albumentations, torchvision, pillow (torchvision's first version), function.

    A class of the user's own is called as the one that it is derived from.
    """
    if hasattr(transform, "set_random_seed"):
        return "albumentations"
    bases = [one.__module__ for one in type(transform).__mro__]
    if not any(base.partition(".")[0] in ("torchvision", "torch") for base in bases):
        return "function"
    of_torchvision = [base for base in bases if base.startswith("torchvision.transforms.")]
    is_second = not of_torchvision or any(base.startswith("torchvision.transforms.v2") for base in of_torchvision)
    return "torchvision" if is_second else "pillow"


def _channels_last(picture: Any) -> np.ndarray[Any, Any]:
    """Return a picture as an array; a tensor of torch has its channels first."""
    torch = sys.modules.get("torch")
    found = np.asarray(picture)
    return np.moveaxis(found, 0, -1) if torch is not None and torch.is_tensor(picture) and found.ndim == 3 else found


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

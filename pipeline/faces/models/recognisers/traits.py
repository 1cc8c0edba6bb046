"""The differences between recognisers: the position of a face on the chip, and the form in which it is fed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.faces.models import align
from pipeline.faces.models.base import Chips

Input = npt.NDArray[Any]
Feed = Callable[[Chips], Input]


@dataclass(frozen=True)
class Traits:
    """The form of one recogniser's input. Sizes and file names are on its card in zoo.py."""

    feed: Feed
    """Function from chips, uint8 RGB or float32 BGR, to the network's input."""
    activations: int
    """float32 values of the two largest neighbouring activations of one chip; this bounds batches."""
    template: align.Template | None = None
    """With `align: native`: position of the face; None for an eye-aligned crop of its box."""
    channels_first: bool = False
    l2: bool = False
    """True if DeepFace divides its vectors by their length."""


def bgr_unit(chips: Chips) -> Input:
    """Return float32 (n, height, width, 3) BGR from 0 to 1, as DeepFace feeds the networks that it converted itself."""
    if chips.dtype != np.uint8:
        return np.ascontiguousarray(chips, np.float32)
    return np.multiply(chips[..., ::-1], np.float32(1 / 255), dtype=np.float32)


def rgb_bytes(chips: Chips) -> Input:
    """Return uint8 (n, height, width, 3) RGB, cut to whole numbers as DeepFace's DlibClient does.

    If the largest value of a chip is at most 1, the chip is taken to go from 0 to 1. DeepFace decides that for a whole
    batch.
    """
    if chips.dtype == np.uint8:
        return np.ascontiguousarray(chips)
    largest = chips.max(axis=(1, 2, 3), keepdims=True, initial=0)
    return _truncated(chips * np.where(largest <= 1, np.float32(255), np.float32(1)))


def rgb_planes(chips: Chips) -> Input:
    """Return float32 (n, 3, height, width) RGB, whole numbers from 0 to 255, as SFaceClient.predict feeds them."""
    pixels = chips if chips.dtype == np.uint8 else _truncated(chips * np.float32(255))
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32)


def rgb_planes_centred(chips: Chips) -> Input:
    """Return float32 (n, 3, height, width) RGB from -1 to 1: ArcFaceONNX.get_feat of insightface, scale 127.5."""
    pixels = chips if chips.dtype == np.uint8 else chips[..., ::-1] * np.float32(255)
    planes = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32)
    planes -= np.float32(127.5)
    planes *= np.float32(1 / 127.5)
    return planes


def _truncated(chips_bgr: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    with np.errstate(invalid="ignore"):  # DeepFace casts negative values of normalised chips as well
        return np.ascontiguousarray(chips_bgr[..., ::-1].astype(np.uint8))


TRAITS = {
    "VGG-Face": Traits(bgr_unit, 2 * 224 * 224 * 64, l2=True),
    "Facenet": Traits(bgr_unit, 2 * 77 * 77 * 64),
    "Facenet512": Traits(bgr_unit, 2 * 77 * 77 * 64),
    "OpenFace": Traits(bgr_unit, 2 * 48 * 48 * 64),
    "DeepFace": Traits(bgr_unit, 2 * 142 * 142 * 32),
    "DeepID": Traits(bgr_unit, 2 * 52 * 44 * 20),
    "ArcFace": Traits(bgr_unit, 2 * 112 * 112 * 64, align.insightface()),
    "Dlib": Traits(rgb_bytes, 150 * 150 * 3 + 2 * 72 * 72 * 32, align.dlib()),
    "SFace": Traits(rgb_planes, 2 * 112 * 112 * 64, align.insightface(), channels_first=True),
    "GhostFaceNet": Traits(bgr_unit, 2 * 112 * 112 * 64, align.insightface()),
    "Buffalo_L": Traits(rgb_planes_centred, 2 * 112 * 112 * 64, align.insightface(), channels_first=True),
}
"""Traits by the names of zoo.RECOGNISERS. Native chips keep the channel order and scale that DeepFace gives each
network, because its thresholds were tuned on them."""

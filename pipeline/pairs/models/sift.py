"""SIFT, as OpenCV computes it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.machine.device import Device
from pipeline.models.card import ModelCard
from pipeline.pairs.models.extractor import Choices, Extractor, LocalFeatures, Picture, in_batches, info

CARD = ModelCard(
    "sift", "keypoint", "Apache-2.0", engine="opencv", dimension=128, licence_source="OpenCV's LICENSE; SIFT's patent "
    "ended in 2020",
)  # fmt: skip
THRESHOLD = 0.02
"""Default of the contrast below which a point is left out: COLMAP's. OpenCV's own, 0.04, misses many points of pictures
of low contrast."""
LONGEST = 3200
"""Default of the longest side in pixels: COLMAP's."""
BYTES_PER_PIXEL = 240
"""Memory for each pixel of a picture; measured."""
EDGE_THRESHOLD, SIGMA, LAYERS = 10, 1.6, 3
"""OpenCV's defaults, and COLMAP's."""


def describe(choices: Choices) -> Extractor:
    """Return the description of SIFT."""
    return Extractor(info(CARD), CARD.dimension, "uint8", lambda device: Sift(choices, device), LONGEST, slot="cpu")


class Sift:
    """SIFT on the CPU."""

    def __init__(self, choices: Choices, device: Device) -> None:
        self._device = device
        self._most, self._root = choices.most, choices.root
        self._threshold = THRESHOLD if choices.threshold is None else choices.threshold

    def extract(self, pictures: Sequence[Picture]) -> list[LocalFeatures]:
        return in_batches(
            self._device, CARD.name, pictures, BYTES_PER_PIXEL, lambda some: [self._one(one) for one in some]
        )

    def _one(self, picture: Picture) -> LocalFeatures:
        import cv2

        # Without the last argument, points lie a quarter of a pixel too far to the right and down.
        sift = cv2.SIFT.create(self._most, LAYERS, self._threshold, EDGE_THRESHOLD, SIGMA, True)
        found, descriptors = sift.detectAndCompute(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), None)
        values = np.array([(*one.pt, one.response, one.size, one.angle) for one in found], np.float32).reshape(-1, 5)
        if descriptors is None:
            descriptors = np.empty((0, CARD.dimension), np.float32)
        described = root(descriptors) if self._root else descriptors.astype(np.uint8)  # whole numbers already
        return LocalFeatures(values[:, :2] + np.float32(0.5), values[:, 2], values[:, 3], values[:, 4], described)


def root(descriptors: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return RootSIFT of SIFT's descriptors, as COLMAP stores it: 512 × the square root of each component's share."""
    shares = descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1)
    rooted: npt.NDArray[np.uint8] = np.minimum(np.round(512 * np.sqrt(shares)), 255).astype(np.uint8)
    return rooted

"""SIFT, as OpenCV computes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.models.card import ModelInfo
from pipeline.models.session import engine_version
from pipeline.pairs.models.extractor import Extractor, LocalFeatures, Picture

if TYPE_CHECKING:
    from pipeline.pairs.stages.keypoints import KeypointsOptions

NAME = "sift"
LENGTH = 128
"""Components of a descriptor."""
THRESHOLD = 0.04
"""Default of the contrast below which a point is left out: OpenCV's own."""
EDGE_THRESHOLD, SIGMA, LAYERS = 10, 1.6, 3
"""OpenCV's defaults; they are passed on only because the argument behind them differs from its default."""


def describe(choices: KeypointsOptions) -> Extractor:
    """Return the description of SIFT."""
    info = ModelInfo(NAME, "Apache-2.0", engine_version("opencv"), lambda: "")
    return Extractor(info, LENGTH, "uint8", lambda _device: Sift(choices), slot="cpu")


class Sift:
    """SIFT on the CPU."""

    def __init__(self, choices: KeypointsOptions) -> None:
        self._most, self._root = choices.most, choices.root
        self._threshold = THRESHOLD if choices.threshold is None else choices.threshold

    def extract(self, pictures: Sequence[Picture]) -> list[LocalFeatures]:
        return [self._extract(picture) for picture in pictures]

    def _extract(self, picture: Picture) -> LocalFeatures:
        # Without the last argument, points lie a quarter of a pixel too far to the right and down.
        sift = cv2.SIFT.create(self._most, LAYERS, self._threshold, EDGE_THRESHOLD, SIGMA, True)
        found, descriptors = sift.detectAndCompute(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), None)
        values = np.array([(*one.pt, one.response, one.size, one.angle) for one in found], np.float32).reshape(-1, 5)
        if descriptors is None:
            descriptors = np.empty((0, LENGTH), np.float32)
        described = root(descriptors) if self._root else descriptors.astype(np.uint8)  # whole numbers already
        return LocalFeatures(values[:, :2] + np.float32(0.5), values[:, 2], values[:, 3], values[:, 4], described)


def root(descriptors: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return RootSIFT of SIFT's descriptors, as COLMAP stores it: 512 × the square root of each component's share."""
    shares = descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1)
    rooted: npt.NDArray[np.uint8] = np.minimum(np.round(512 * np.sqrt(shares)), 255).astype(np.uint8)
    return rooted

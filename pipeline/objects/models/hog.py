"""OpenCV's detector of people: histograms of gradients and a linear classifier, both part of OpenCV."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.media.preparation import Picture
from pipeline.models.card import ModelInfo
from pipeline.models.session import engine_version
from pipeline.objects.models.found import Candidates, Choice, Objects, chosen

NAME = "hog"
NAMES = ("person",)
WINDOW = (128, 64)
"""Height and width in pixels of the smallest person with the margin around."""
STEP, MARGIN, LEVEL = (8, 8), (8, 8), 1.05
"""Step of the window, margin around the picture (pixels), and factor between two sizes, as in OpenCV's example."""
INNER = np.array([0.1, 0.07, -0.1, -0.07])
"""Part of the window's width and height that is margin at the left, top, right and bottom, as in OpenCV's example."""


def info() -> ModelInfo:
    return ModelInfo(NAME, "Apache-2.0", engine_version("opencv"), lambda: "")


class Hog:
    """The detector on the CPU. Thread-safe: each call makes its own."""

    def __init__(self, choice: Choice) -> None:
        self._choice = choice

    def objects(self, pictures: Sequence[Picture], rows: Sequence[int]) -> list[Objects]:
        """Return the people in some of the pictures, of which one is used at a time."""
        return [self._people(pictures[row]) for row in rows]

    def _people(self, picture: Picture) -> Objects:
        size = picture.shape[:2]
        missing = [max(0, least - own) for least, own in zip(WINDOW, size, strict=True)]  # OpenCV refuses smaller ones
        picture = cv2.copyMakeBorder(picture, 0, missing[0], 0, missing[1], cv2.BORDER_REPLICATE)
        windows, scores = self._windows(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        corners = np.concatenate([windows[:, :2], windows[:, :2] + windows[:, 2:]], axis=1)
        corners += INNER * np.tile(windows[:, 2:], 2)
        return chosen(Candidates(corners, np.zeros(len(scores), np.int32), scores), self._choice, size)

    def _windows(self, picture: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return x, y, width and height of windows, and their scores, of a BGR picture.

        They are those of `detectMultiScale`, not cut at the border. Its threads may give a box the score of another.
        """
        detector = cv2.HOGDescriptor()
        detector.setSVMDetector(cv2.HOGDescriptor.getDefaultPeopleDetector())
        windows, scores, factor = [np.empty((0, 4))], [np.empty(0)], 1.0
        height, width = picture.shape[:2]
        while round(height / factor) >= WINDOW[0] and round(width / factor) >= WINDOW[1]:
            small = (round(width / factor), round(height / factor))
            level = cv2.resize(picture, small, interpolation=cv2.INTER_LINEAR_EXACT) if factor > 1 else picture
            found, score = detector.detect(level, self._choice.score, STEP, MARGIN)
            place = np.round(np.asarray(found, np.float64).reshape(-1, 2) * factor)
            size = [round(WINDOW[1] * factor), round(WINDOW[0] * factor)]
            windows.append(np.concatenate([place, np.broadcast_to(np.array(size), place.shape)], axis=1))
            scores.append(np.ravel(score))
            factor *= LEVEL
        return np.concatenate(windows), np.concatenate(scores)

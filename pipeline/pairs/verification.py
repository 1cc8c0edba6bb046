"""Geometric verification: the model of two views that most matches agree with, and which matches do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

Model = Literal["fundamental", "homography", "essential"]
Method = Literal["magsac", "msac", "ransac"]

MINIMUM: dict[Model, int] = {"fundamental": 7, "homography": 4, "essential": 5}
"""Matches that define each model."""
METHODS: dict[Method, tuple[int, int]] = {
    "magsac": (cv2.SCORE_METHOD_MAGSAC, cv2.LOCAL_OPTIM_SIGMA),
    "msac": (cv2.SCORE_METHOD_MSAC, cv2.LOCAL_OPTIM_INNER_LO),
    "ransac": (cv2.SCORE_METHOD_RANSAC, cv2.LOCAL_OPTIM_NULL),
}
"""OpenCV's score of a model and the way it improves the best one so far."""
SPREAD_PIXELS = 0.01
"""Points whose distance from a line (root mean square) is smaller lie on that line, and define no model."""
SEED = 0
"""Seed of OpenCV's estimators (USAC), which do not share the generator that `cv2.setRNGSeed` sets."""
ESSENTIAL_TRIES = 16
"""Seeds that are tried until a matrix is essential. OpenCV's solver sometimes gives one that is not, and fits more
matches. For one pair of photographs it did so with 6 of 12 seeds; for 16 others, with at most 1."""
UNEQUAL = 1e-3
"""An essential matrix has two equal singular values, and 0: they may differ by this share of the largest."""


@dataclass(frozen=True)
class Verifier:
    """Estimate the model of one pair after another. Equal points give equal results, in any thread and order."""

    model: Model
    method: Method
    threshold: float
    """Largest distance of an inlier from the model, in pixels."""
    confidence: float
    most: int
    """Iterations, at most."""
    least: int
    """Inliers of a model, at least."""

    def verify(
        self, a: np.ndarray, b: np.ndarray, cameras: tuple[np.ndarray, np.ndarray] | None = None
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the model, float64 (3, 3), and bool (n,) of the inliers; None if there is no model.

        `a` and `b` are float (n, 2): the points of each match in the two pictures. An essential matrix needs `cameras`,
        the matrix of each picture's camera.
        """
        usable = np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1)
        least = max(self.least, MINIMUM[self.model])
        if usable.sum() < least:
            return None
        a, b = a[usable].astype(np.float64), b[usable].astype(np.float64)
        try:
            model, found = self._estimate(a, b, cameras)
        except cv2.error:  # of points that define no model
            return None
        if model is None or model.shape != (3, 3) or not np.isfinite(model).all():
            return None
        fits = found.ravel().astype(bool)
        if fits.sum() < least or not self._is_defined(a[fits], b[fits]):
            return None
        inlier = np.zeros(len(usable), bool)
        inlier[usable] = fits
        return model, inlier

    def _estimate(self, a: np.ndarray, b: np.ndarray, cameras: tuple[np.ndarray, np.ndarray] | None) -> Any:
        if self.model == "essential":
            assert cameras is not None
            for seed in range(SEED, SEED + ESSENTIAL_TRIES):
                model, found = cv2.findEssentialMat(a, b, *cameras, None, None, self._parameters(seed))
                if model is None or _is_essential(model):
                    return model, found
            return None, None
        estimate: Callable[..., Any] = cv2.findHomography if self.model == "homography" else cv2.findFundamentalMat
        return estimate(a, b, self._parameters())

    def _parameters(self, seed: int = SEED) -> Any:
        parameters = cv2.UsacParams()
        parameters.threshold, parameters.confidence, parameters.maxIterations = (
            self.threshold, self.confidence, self.most
        )  # fmt: skip
        parameters.score, parameters.loMethod = METHODS[self.method]
        parameters.sampler, parameters.isParallel, parameters.randomGeneratorState = cv2.SAMPLING_UNIFORM, False, seed
        if self.method == "magsac":  # as the preset cv2.USAC_MAGSAC
            of_homography = self.model == "homography"
            parameters.loSampleSize, parameters.loIterations = (75, 15) if of_homography else (50, 10)
        return parameters

    def _is_defined(self, a: np.ndarray, b: np.ndarray) -> bool:
        """Return whether inliers define a model: enough places that do not lie on one line, in both pictures."""
        places = len(np.unique(np.hstack([a, b]), axis=0))
        if places < min(len(a), MINIMUM[self.model] + 1):  # any such places have a model
            return False
        return all(
            np.linalg.svd(points - points.mean(axis=0), compute_uv=False)[1] > SPREAD_PIXELS * np.sqrt(len(points))
            for points in (a, b)
        )


def _is_essential(matrix: np.ndarray) -> bool:
    """Return whether two of the singular values are equal, and the third is 0."""
    if not np.isfinite(matrix).all():
        return False
    values = np.linalg.svd(matrix, compute_uv=False)
    return bool(values[0] - values[1] <= UNEQUAL * values[0] and values[2] <= UNEQUAL * values[0])

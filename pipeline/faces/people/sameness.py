"""The comparison of stored embeddings with given ones: the very same, or alike enough to be the same person."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

EQUAL_DISTANCE = 1e-6
"""Euclidean distance of embeddings as stored: nearer ones are one picture of one face."""
MOST_EXEMPLARS = 16


class Sameness:
    """Embeddings of one person, to compare with many others, block by block; vectors with NaN are like none."""

    def __init__(self, vectors: Float32, cosine_threshold: float | None) -> None:
        """Take float32 (m, d); beyond `cosine_threshold` two faces are two people's (None: none are alike)."""
        finite = vectors[np.isfinite(vectors).all(axis=1)]
        self._vectors = np.unique(finite, axis=0) if len(finite) else finite
        direction = np.random.default_rng(0).normal(size=vectors.shape[1])
        self._direction = direction / np.linalg.norm(direction)
        places = self._vectors.astype(np.float64) @ self._direction
        order = np.argsort(places)
        self._vectors, self._places = self._vectors[order], places[order]
        chosen = np.linspace(0, len(self._vectors) - 1, min(MOST_EXEMPLARS, len(self._vectors))).astype(int)
        self._exemplars = _unit(self._vectors[chosen])
        self._threshold = cosine_threshold

    def same(self, block: Float32) -> Bools:
        """Return bool (k,): true if a row is within EQUAL_DISTANCE of a vector; exactly, with few comparisons.

        Two vectors within that distance are also within it along any one direction. So each row is compared only with
        the vectors that are near it along a random direction.
        """
        found = np.zeros(len(block), bool)
        if not len(self._vectors):
            return found
        wide = block.astype(np.float64)
        places = wide @ self._direction
        # A product of d terms, each rounded, is off by this much at the most.
        slack = EQUAL_DISTANCE + 1e-12 * np.abs(wide).sum(axis=1)
        first = np.searchsorted(self._places, places - slack)
        last = np.searchsorted(self._places, places + slack, side="right")
        for row in np.flatnonzero((last > first) & np.isfinite(places)):
            candidates = self._vectors[first[row] : last[row]].astype(np.float64)
            found[row] = np.linalg.norm(candidates - wide[row], axis=1).min() <= EQUAL_DISTANCE
        return found

    def alike(self, block: Float32) -> Bools:
        """Return bool (k,): true if a row is within the threshold of one of the exemplars, a few of the vectors."""
        if self._threshold is None or not len(self._exemplars):
            return np.zeros(len(block), bool)
        with np.errstate(invalid="ignore"):
            nearest = (_unit(block) @ self._exemplars.T).max(axis=1)
        return np.asarray(1 - nearest <= self._threshold)


def _unit(vectors: Float32) -> npt.NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-10))

"""The space in which embeddings are compared: Euclidean, one per model, with its threshold for one person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

RAW_MODELS = ("Dlib",)
"""Models trained on plain Euclidean distance, so that their length matters; others are compared at length 1."""

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Space:
    """The comparison of embeddings of one model and alignment."""

    model: str
    align: str
    unit: bool
    """True if vectors are first scaled to length 1."""
    threshold: float
    """Distance below which two single faces count as one person (the model's own, of verification)."""

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> Space:
        """Return the space for the attributes of an `embedding` array."""
        model = str(attributes["model"])
        unit = model not in RAW_MODELS
        metric = "euclidean_l2" if unit else "euclidean"
        return cls(model, str(attributes["align"]), unit, float(attributes["thresholds"][metric]))

    def project(self, embedding: npt.NDArray[Any]) -> Vectors:
        """Return float32 (n, d): embeddings as they are compared, by Euclidean distance.

        A vector that is not finite (a face without a chip) becomes all NaN; do not compare it.
        """
        vectors = np.array(embedding, np.float32)
        if self.unit:
            with np.errstate(invalid="ignore", divide="ignore"):
                vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors[~np.isfinite(vectors).all(axis=1)] = np.nan
        return vectors

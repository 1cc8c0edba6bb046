"""Where embeddings are compared: one Euclidean space per model, and how near two faces of one person are there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

RAW_MODELS = ("Dlib",)
"""Trained on plain Euclidean distance, so their length says something; the others are compared at length 1."""

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Space:
    """How the embeddings of one model and alignment are compared."""

    model: str
    align: str
    unit: bool
    """Whether vectors are scaled to length 1 first."""
    threshold: float
    """Distance below which two single faces count as one person (the model's own, of verification)."""

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> Space:
        """From the attributes of an `embedding` array."""
        model = str(attributes["model"])
        unit = model not in RAW_MODELS
        metric = "euclidean_l2" if unit else "euclidean"
        return cls(model, str(attributes["align"]), unit, float(attributes["thresholds"][metric]))

    def project(self, embedding: npt.NDArray[Any]) -> Vectors:
        """float32 (n, d): embeddings as they are compared, by Euclidean distance. A vector that is not finite (a face
        without a chip) is all NaN; compare it with nothing."""
        vectors = np.asarray(embedding, np.float32)
        if self.unit:
            with np.errstate(invalid="ignore", divide="ignore"):
                vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        bad = ~np.isfinite(vectors).all(axis=1)
        if bad.any():
            vectors = vectors.copy()
            vectors[bad] = np.nan
        return vectors

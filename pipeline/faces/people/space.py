"""The space in which embeddings are compared: Euclidean, one per model, with its threshold for one person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import StoreError

RAW_MODELS = ("Dlib",)
"""Models trained on plain Euclidean distance, so that their length matters; others are compared at length 1."""

Vectors = npt.NDArray[np.float32]


def thresholds_of(attributes: Mapping[str, Any]) -> dict[str, float]:
    """Return the model's own thresholds by metric, of an `embedding` array's attributes. Raises StoreError."""
    found = attributes.get("thresholds") or {}
    if not isinstance(found, dict) or not all(isinstance(one, int | float) for one in found.values()):
        raise StoreError(f"the array 'embedding' has damaged attributes (thresholds: {found!r:.80}); restore the store")
    return {str(metric): float(one) for metric, one in found.items()}


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
        model = str(attributes.get("model"))
        unit = model not in RAW_MODELS
        metric = "euclidean_l2" if unit else "euclidean"
        known = thresholds_of(attributes)
        if metric not in known:
            raise StoreError(f"the array 'embedding' ({model}) has no threshold for {metric}; embed again with --fresh")
        return cls(model, str(attributes.get("align")), unit, known[metric])

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

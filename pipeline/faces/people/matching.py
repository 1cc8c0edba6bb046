"""The nearest known faces: DeepFace's distances (modules/verification.py, find_distance) for many faces at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.errors import UsageError
from pipeline.text import unknown

Metric = Literal["cosine", "euclidean", "euclidean_l2", "angular"]
Per = Literal["track", "face"]
"""Faces that are judged together: those of a track, or each face alone."""
METRICS: tuple[Metric, ...] = ("cosine", "euclidean", "euclidean_l2", "angular")
"""Names of DeepFace's metrics."""

DECIMALS = 6
"""Decimals to which DeepFace rounds every distance before it compares."""
_EPSILON = 1e-10
"""Number that DeepFace adds to the length of a vector before it divides by it (l2_normalize)."""
_BLOCK_BYTES = 16 << 20
"""Bytes of distances in memory at a time. Larger blocks wait for memory: 64 MB take twice the time, and so do 4."""

Floats = npt.NDArray[np.float64]


def checked_metric(name: str) -> Metric:
    """Return the metric of this name. Raises UsageError for an unknown one."""
    for metric in METRICS:
        if name == metric:
            return metric
    raise UsageError(unknown("metric", name, METRICS))


@dataclass(frozen=True)
class Nearest:
    """The nearest rows of the gallery for each face: one per person, nearest first. k columns."""

    row: npt.NDArray[np.int32]
    """int32 (n, k): row of the gallery; -1 if the face has no embedding."""
    distance: npt.NDArray[np.float32]
    """float32 (n, k); NaN if the face has no embedding."""


class Matcher:
    """Distances to fixed vectors.

    All arithmetic is float64. In float32 the angle of two nearly equal vectors is wrong in the fourth decimal. So is
    their Euclidean distance by way of a product. A product of matrices in float64 still takes only 0.1 ms for a
    thousand distances of 128 components.
    """

    def __init__(self, known: npt.NDArray[np.floating], metric: Metric) -> None:
        """Take the known vectors, (rows, d). A row with NaN (a picture without a face) is infinitely far from all."""
        self.metric = metric
        vectors = np.asarray(known, np.float64)
        self._absent: npt.NDArray[np.bool_] = np.any(~np.isfinite(vectors), axis=1)
        self._known = self._prepared(np.where(self._absent[:, None], 0.0, vectors))
        self._squares: Floats = np.einsum("ij,ij->i", self._known, self._known)

    def __len__(self) -> int:
        return len(self._known)

    def distances(self, faces: npt.NDArray[np.floating]) -> Floats:
        """Return float64 (n, rows), rounded as DeepFace does it. Rows of NaN give NaN."""
        vectors = self._prepared(np.asarray(faces, np.float64))
        with np.errstate(invalid="ignore"):  # faces without an embedding are NaN, and stay so
            products = vectors @ self._known.T
            if self.metric == "cosine":
                found = 1.0 - products
            elif self.metric == "angular":
                found = np.arccos(np.clip(products, -1.0, 1.0)) / np.pi
            else:
                squares = np.einsum("ij,ij->i", vectors, vectors)
                found = np.sqrt(np.maximum(squares[:, None] + self._squares - 2.0 * products, 0.0))
        found = np.round(found, DECIMALS)
        found[:, self._absent] = np.inf
        return found

    def _prepared(self, vectors: Floats) -> Floats:
        if self.metric == "euclidean":
            return vectors
        unit: Floats = vectors / (np.linalg.norm(vectors, axis=1, keepdims=True) + _EPSILON)
        return unit

    def nearest(self, faces: npt.NDArray[np.floating], people: npt.NDArray[np.integer], k: int = 1) -> Nearest:
        """Return the k nearest people of each face (or all, if there are fewer), each by their nearest row.

        Of equally near rows the first counts. `people`: (rows,), the person of each row. The memory is bounded.
        """
        order = np.argsort(people, kind="stable")
        starts = np.flatnonzero(np.diff(people[order], prepend=people[order[:1]] - 1))
        k = min(k, len(starts))
        row = np.full((len(faces), k), -1, np.int32)
        distance = np.full((len(faces), k), np.nan, np.float32)
        step = max(1, _BLOCK_BYTES // max(8 * len(self), 1))
        for part in (slice(start, min(start + step, len(faces))) for start in range(0, len(faces), step)):
            found = self.distances(faces[part])
            if k == 1:
                best = np.where(np.isnan(found), np.inf, found).argmin(axis=1)[:, None]
            else:
                by_person = np.where(np.isnan(found), np.inf, found)[:, order]
                least = np.minimum.reduceat(by_person, starts, axis=1)
                chosen = np.argsort(least, axis=1, kind="stable")[:, :k]
                # The first column of each person, in the order of the gallery, that has the person's least distance.
                is_least = by_person == np.repeat(least, np.diff(starts, append=len(order)), axis=1)
                column = np.where(is_least, np.arange(len(order)), len(order))
                best = order[np.take_along_axis(np.minimum.reduceat(column, starts, axis=1), chosen, axis=1)]
            near = np.take_along_axis(found, best, axis=1)
            row[part] = np.where(np.isfinite(near), best, -1)
            distance[part] = np.where(np.isinf(near), np.nan, near)
        return Nearest(row, distance)

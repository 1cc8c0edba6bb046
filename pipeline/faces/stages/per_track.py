"""The option `per: track` of stages that look at each face.

The network sees the best few faces of each tracklet of a chunk (pipeline/people/tracklets.py). The other faces get the
mean of these results, weighted by how well the chosen faces could be seen.

If the chosen faces do not agree, a tracklet is cut in half, and again, down to single faces. Then every face has the
network's own result. Tracklets end with their chunk, so that results depend on the input and the workflow alone.

Measured (`make bench-per-track`, Dlib, faces from mtcnn; verification on pairs of labelled faces of different shots):

| clips            | every | faces | seen | AUC: per face, per track | true accepts at 1% false ones |
|------------------|-------|-------|------|--------------------------|-------------------------------|
| labelled         | 1     | 1293  | 9%   | 0.963, 0.972             | 0.921, 0.968                  |
| labelled         | 5     | 268   | 29%  | 0.962, 0.970             | 0.918, 0.952                  |
| one man, 53 s    | 5     | 268   | 7%   |                          |                               |
| a film with cuts | 5     | 90    | 60%  |                          |                               |

Only the film's chosen faces ever disagreed. By halves the network sees 54 faces there; with all faces at once, 60.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationInfo, field_validator, model_validator

from pipeline.engine.stage import Chunk, StageOptions
from pipeline.faces.people import tracklets
from pipeline.store.schema import Array
from pipeline.text import unknown

BEST = 3

Int64 = npt.NDArray[np.int64]
Values = dict[str, np.ndarray]
Compute = Callable[[Int64], Values]
"""Function from rows of the chunk's faces to arrays with one row for each."""
Agree = Callable[[Values], bool]
"""Function that returns whether the rows of a tracklet's chosen faces can stand for all of it."""
Mean = Callable[[str, np.ndarray, npt.NDArray[np.float64]], np.ndarray]
"""Function from an array's name, its rows (k, ...), and their weights (k,), which add up to 1, to one row."""

WORDS = {"align": "alignment"}
"""Words for options in errors, if these are not their names."""


class TrackOptions(StageOptions):
    """The options `per` and `best`, for stages that have them."""

    per: Literal["face", "track"] = Field(
        "face",
        description="track: only the best faces of each track within a chunk; its others get their mean",
    )
    best: int = Field(BEST, ge=1, description="per track: number of faces that the network sees, spread over its time")

    @field_validator("*", mode="before")
    @classmethod
    def _known(cls, value: object, info: ValidationInfo) -> object:
        """Name the nearest choice if an option has no such choice."""
        name = str(info.field_name)
        valid = get_args(cls.model_fields[name].annotation)
        if get_origin(cls.model_fields[name].annotation) is Literal and value not in valid:
            raise ValueError(unknown(WORDS.get(name, name), str(value), valid))
        return value

    @model_validator(mode="after")
    def _best_is_heeded(self) -> TrackOptions:
        if self.per == "face" and self.best != BEST:
            raise ValueError("option best needs per: track; leave it out, or set per: track")
        return self

    def keyed(self) -> dict[str, Any]:
        """Leave out `per` and `best` with `per: face`, so that stores from before these options still resume."""
        values = super().keyed()
        if self.per == "face":
            del values["per"], values["best"]
        return values


NEEDS = ("confidence", "time_seconds")
"""Arrays that the choice of faces needs beside frames, boxes and landmarks."""


def get_ready(options: TrackOptions) -> None:
    """Import what the first chunk would else wait for; call it in a stage's `load`."""
    if options.per == "track":
        import scipy.optimize  # noqa: F401


def own_rows(name: str, what: str) -> Array:
    """Declare the array that marks the rows of the network's own."""
    return Array(name, ("face",), "bool", (), {"description": f"whether {what} is the network's own for this face"})


def per_track(chunk: Chunk, best: int, compute: Compute, agree: Agree, mean: Mean) -> tuple[Values, np.ndarray]:
    """Return every face's row of every array, and bool (n,): whether it is the network's own.

    The network runs in rounds, on the faces of all tracklets of the chunk at once, so that batches stay large.
    """
    frame, box = chunk.face_frame, chunk["box"]
    landmarks = chunk.arrays.get("landmarks")
    if landmarks is None:
        landmarks = np.full((len(frame), 5, 2), np.nan, np.float32)
    frames = chunk.frames_rgb
    look = tracklets.looks(frames, frame, box)
    assert chunk.time_seconds is not None, "NEEDS has them"
    tracklet = tracklets.link(frame, box, look, chunk.time_seconds, tracklets.cuts(frames))
    quality = tracklets.quality(frames, frame, box, landmarks, chunk["confidence"])
    own = np.zeros(len(frame), bool)
    values: Values = {}
    order = np.argsort(tracklet, kind="stable")
    # The rows of each tracklet, in order of time.
    waiting = np.split(order, np.flatnonzero(np.diff(tracklet[order])) + 1) if len(order) else []
    while waiting or not values:
        wanted = np.concatenate([np.empty(0, np.int64), *(tracklets.choose(rows, quality, best) for rows in waiting)])
        wanted = np.unique(wanted[~own[wanted]])
        for name, made in compute(wanted).items():
            values.setdefault(name, np.zeros((len(frame), *made.shape[1:]), made.dtype))[wanted] = made
        own[wanted] = True
        disagreeing = [rows for rows in waiting if not _settled(rows, own, values, quality, agree, mean)]
        waiting = [part for rows in disagreeing for part in halves(rows)]
    return values, own


def halves(rows: Int64) -> list[Int64]:
    """Return the two halves, in time, of a tracklet whose faces disagree; it has at least two."""
    return [rows[: len(rows) // 2], rows[len(rows) // 2 :]]


def _settled(
    rows: Int64, own: np.ndarray, values: Values, quality: npt.NDArray[np.float64], agree: Agree, mean: Mean
) -> bool:
    """Give the network's results to the other rows if they agree; return true if nothing is left to do."""
    known, others = rows[own[rows]], rows[~own[rows]]
    if len(others) == 0:
        return True
    said = {name: array[known] for name, array in values.items()}
    if not all(np.isfinite(array).all() for array in said.values()) or not agree(said):
        return False
    weights = quality[known] / quality[known].sum()
    for name, array in values.items():
        array[others] = mean(name, said[name], weights)
    return True


def mean_vector(_: str, vectors: np.ndarray, weights: npt.NDArray[np.float64]) -> np.ndarray:
    """Return the mean direction of embeddings at their mean length, so that vectors of length 1 keep it."""
    vectors = vectors.astype(np.float64)
    middle = weights @ vectors
    length = np.linalg.norm(middle)
    scale = weights @ np.linalg.norm(vectors, axis=1) / length if length > 0 else 0.0
    return np.asarray(middle * scale, np.float32)


def mean_value(_: str, values: np.ndarray, weights: npt.NDArray[np.float64]) -> np.ndarray:
    """Return the weighted mean of numbers, or of probabilities, which still add up to 1."""
    return np.asarray(np.tensordot(weights, values.astype(np.float64), 1), np.float32)


def vectors_agree(vectors: np.ndarray, cosine_threshold: float) -> bool:
    """Return whether no two vectors are further apart than faces of one person may be."""
    wide = vectors.astype(np.float64)
    unit = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-10)
    return bool((1 - unit @ unit.T).max() <= cosine_threshold)


def spread(values: np.ndarray) -> float:
    """Return the largest difference of two rows.

    For numbers (k,) that is their distance, for probabilities (k, classes) the total variation, 0 to 1.
    """
    if values.ndim == 1:
        return float(np.ptp(values))
    return float(np.abs(values[:, None] - values[None]).sum(axis=-1).max() / 2)

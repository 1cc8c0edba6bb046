"""The facts of a stored input's tracks that clustering needs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.faces.people.clustering import Tracks, best_rows, certainty, describe, quality, together
from pipeline.faces.people.space import Space
from pipeline.machine.cores import available_cores
from pipeline.store.facts import stage_sections
from pipeline.store.pieces import rows_of
from pipeline.store.read import RunInput

SURE_CONFIDENCE = {"mtcnn": 0.9, "fastmtcnn": 0.9, "retinaface": 0.9}
"""Score by detector. Below it most detections in videos are not faces (posters, prints on clothes, blurs). Scores of
other detectors have other scales; all their faces count as sure."""
THRESHOLD_SHARE = 0.975
"""Share of the model's own threshold (of two single faces) up to which two tracks without variation are one person, by
average distance. Chosen by cross-validation over people, for crowds of 15 and 30: `make strangers`."""
CROWD_SHARE, CROWD_PER_DECADE = 0.94, 0.1
"""Share for 100 groups, and its decrease for ten times as many: among more people more pairs of strangers are near.
Such rules win by cross-validation over people, for 100 to 420 of them (`make strangers`). This one is THRESHOLD_SHARE
up to 45 groups."""
STRICT_SHARE = 0.85
"""Share for two tracks that show their person's variation (`VARIED`). `make bench-people` measures other values."""
UNSURE_SHARE = 0.15
"""Share of the square of that: the uncertainty of a track without any face that shows its person (`describe`)."""
VERY_SURE_CONFIDENCE = 0.99
"""Score of the same detectors from which a single face is a real one."""


def share_in_crowd(people: int) -> float:
    """Return the share for a number of people."""
    share = CROWD_SHARE - CROWD_PER_DECADE * np.log10(max(1, people) / 100)
    return float(np.clip(share, STRICT_SHARE, THRESHOLD_SHARE))


def sure_confidence(workflow: Any) -> float:
    """Return the score from which a face counts as sure, for a stored workflow's detector; 0 for other detectors."""
    for stage in stage_sections(workflow).values():
        if stage.get("use") == "detect":
            given = stage.get("options")
            options = {**(given if isinstance(given, dict) else {}), **stage}
            return SURE_CONFIDENCE.get(str(options.get("model")), 0.0)
    return 0.0


def face_quality(
    item: RunInput, rows: npt.NDArray[np.int64] | None = None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return float64 (n_faces,) twice: how well each face can be recognised, 0 to 1, and the same whatever its size.

    `rows`, ascending and not empty: only these faces are read; both have a value for each of them.
    """
    names = [name for name in ("box", "landmarks", "confidence") if name in item.arrays]
    arrays: dict[str, Any]
    if rows is None:
        arrays = item.read(names)
    else:
        arrays = {name: rows_of(item.pieces(name), rows, available_cores()) for name in names}
    landmarks, confidence = arrays.get("landmarks"), arrays.get("confidence")
    return quality(arrays["box"], landmarks, confidence), certainty(landmarks, confidence, len(arrays["box"]))


def faces_of_tracks(
    item: RunInput, track: npt.NDArray[np.int32], score: npt.NDArray[np.float64],
    project: Callable[[npt.NDArray[Any]], npt.NDArray[Any]],
) -> Iterator[tuple[int, npt.NDArray[np.int64], npt.NDArray[Any]]]:  # fmt: skip
    """Yield number, rows and vectors (n, d) of the best faces of each track that has an embedding.

    `score` (n_faces,): quality by which the few are chosen that are read. `project` makes vectors that can be compared
    of embeddings; faces for which they are not finite are left out.
    """
    rows = best_rows(track, score)
    read = rows_of(item.pieces("embedding"), rows, available_cores())
    if read is None:
        return
    vectors = project(read)
    kept = np.isfinite(vectors).all(axis=1)
    rows, vectors = rows[kept], vectors[kept]
    order = np.argsort(track[rows], kind="stable")
    numbers, starts = np.unique(track[rows][order], return_index=True)
    for number, part in zip(numbers.tolist(), np.split(order, starts[1:]), strict=len(numbers) > 0):
        yield number, rows[part], vectors[part]


def describe_tracks(item: RunInput, space: Space, sure: float) -> Tracks:
    """Return the tracks of a complete input that has the array `track`. Raises StoreError if an array is damaged."""
    arrays = item.read(["track", "n_faces", *(["confidence"] if "confidence" in item.arrays else [])])
    track: npt.NDArray[np.int32] = arrays["track"]
    count = int(track.max(initial=-1)) + 1
    confidence = arrays.get("confidence")
    is_sure = np.ones(len(track), bool) if confidence is None else confidence >= sure
    score, certain = face_quality(item)
    unsure_spread = UNSURE_SHARE * (STRICT_SHARE * space.threshold) ** 2
    vector = np.full((count, item.arrays["embedding"].shape[0]), np.nan, np.float32)
    spread = np.zeros(count)
    for number, rows, vectors in faces_of_tracks(item, track, score, space.project):
        vector[number], spread[number] = describe(vectors, score[rows], certain[rows], unsure_spread)
    has = track >= 0
    sure_faces = np.bincount(track[has & is_sure], minlength=count).astype(np.int64)
    very_sure = np.zeros(count, bool)
    if confidence is not None and sure > 0:
        very_sure[track[has & (confidence >= VERY_SURE_CONFIDENCE)]] = True
    faces = np.bincount(track[has], minlength=count).astype(np.int64)
    founds = (sure_faces >= 2) | very_sure
    return Tracks(vector, spread, faces, sure_faces, founds, very_sure, together(track, arrays["n_faces"]))


def signature(item: RunInput) -> str:
    """Return a hash that changes with the tracks of an input, or the embeddings behind them."""
    digest = hashlib.blake2b(item.array("track").astype("<i4").tobytes(), digest_size=16)
    stages = item.attributes.get("stages", {})
    digest.update(repr(sorted((name, stage.get("key")) for name, stage in stages.items() if name == "embed")).encode())
    return digest.hexdigest()

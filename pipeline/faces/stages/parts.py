"""The faces of a chunk, some hundred at a time: a frame may show tens of thousands."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipeline.engine.stage import Chunk
from pipeline.faces.models.base import Faces


def in_parts(chunk: Chunk, rows: np.ndarray, most: int) -> Iterator[tuple[slice, Faces]]:
    """Yield some of the chunk's faces, at most `most` at a time, and their place among `rows`.

    Landmarks are NaN if the chunk has none.
    """
    landmarks = chunk.arrays.get("landmarks")
    for start in range(0, len(rows), most):
        part = rows[start : start + most]
        points = landmarks[part] if landmarks is not None else np.full((len(part), 5, 2), np.nan, np.float32)
        score = np.ones(len(part), np.float32)
        yield slice(start, start + len(part)), Faces(chunk.face_frame[part], chunk["box"][part], points, score)

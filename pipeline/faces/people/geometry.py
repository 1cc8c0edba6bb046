"""Direction of a face by its landmarks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def frontality(landmarks: npt.NDArray[Any]) -> Floats:
    """Return float64 (n,), 0.1 to 1, for landmarks (n, 5, 2): how frontal each face is.

    It is 1 if the nose is midway between the eyes, along the line through them. It is 0.1 if the nose is at an eye or
    beyond, as in a profile, and 0.5 if landmarks are not known.
    """
    points = landmarks.astype(np.float64)
    between = points[:, 1] - points[:, 0]
    length = (between**2).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        along = ((points[:, 2] - points[:, 0]) * between).sum(axis=1) / length
    return np.asarray(np.nan_to_num(np.clip(1 - 2 * np.abs(along - 0.5), 0.1, 1), nan=0.5))

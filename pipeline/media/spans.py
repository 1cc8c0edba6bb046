"""How long sampled items stand for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_GAPS = 3.0
"""An item stands for at most this many usual distances between items: beyond lies what is not done or not decoded."""


def item_seconds(time_seconds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return float64 (n,): how long each item stands for, up to the next one; the last as long as is usual."""
    if len(time_seconds) == 0:
        return np.empty(0)
    gaps = np.diff(time_seconds)
    usual = float(np.median(gaps)) if len(gaps) else 0.0
    return np.append(np.minimum(gaps, _GAPS * usual), usual)

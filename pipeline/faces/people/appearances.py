"""Times at which a person is on screen, from the sampled frames in which the person was found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.media.spans import item_seconds as frame_seconds

LONGEST_GAP_SECONDS = 2.0
"""Seconds after which a person who is not found has left. A turned head or a gap of the detector is shorter."""


@dataclass(frozen=True)
class Appearance:
    """One stretch of time on screen."""

    start_seconds: float
    """Presentation time of the first sampled frame with the person, as in the file."""
    stop_seconds: float
    """Exclusive: the last sampled frame with the person stands until here."""
    first_frame: int
    """Index along the input's frame axis, inclusive."""
    last_frame: int
    """Index along the input's frame axis, inclusive."""
    frames: int
    """Sampled frames in which the person was found; at most last_frame - first_frame + 1."""
    screen_seconds: float
    """Time that these frames stand for together; at most stop_seconds - start_seconds."""


def appearances(
    present: npt.NDArray[np.bool_],
    time_seconds: npt.NDArray[np.float64],
    longest_gap_seconds: float = LONGEST_GAP_SECONDS,
) -> list[Appearance]:
    """Return the stretches of time in order. `present`: bool (n,), true if a sampled frame shows the person."""
    found = np.flatnonzero(present)
    if len(found) == 0:
        return []
    spans = frame_seconds(time_seconds)
    stops = time_seconds[found] + spans[found]
    breaks = np.flatnonzero(time_seconds[found[1:]] - stops[:-1] > longest_gap_seconds) + 1
    return [
        Appearance(
            float(time_seconds[part[0]]),
            float(time_seconds[part[-1]] + spans[part[-1]]),
            int(part[0]),
            int(part[-1]),
            len(part),
            float(spans[part].sum()),
        )
        for part in np.split(found, breaks)
    ]

"""Times at which a person is on screen: the one definition behind screen times, reports, clips and searches.

A sampled frame with the person stands until the next sampled frame. Frames without the person end an appearance, unless
they are few (`LONGEST_GAP_SECONDS`) and the same track goes on after them. A cut, or another person in that place, ends
the track, and so the appearance. Without stored tracks short gaps are bridged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.media.spans import item_seconds

LONGEST_GAP_SECONDS = 2.0
"""Seconds after which a person who is not found has left. A turned head or a gap of the detector is shorter."""


@dataclass(frozen=True)
class Appearance:
    """One stretch of time on screen."""

    start_seconds: float
    """Presentation time of the first sampled frame with the person, as in the file; NaN for a picture."""
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

    @property
    def is_timed(self) -> bool:
        """False for a picture: its seconds are NaN, and it has no time on screen."""
        return not np.isnan(self.start_seconds)


def appearances(
    frame: npt.NDArray[np.integer],
    time_seconds: npt.NDArray[np.float64],
    track: npt.NDArray[np.integer] | None = None,
    stop_seconds: float | None = None,
    longest_gap_seconds: float = LONGEST_GAP_SECONDS,
    rank: npt.NDArray[np.integer] | None = None,
    sampled_seconds: float | None = None,
) -> list[Appearance]:
    """Return the stretches of time in order.

    `frame` (faces,), ascending: the frame of each face of the person, as an index of `time_seconds` (frames,), the
    times of all sampled frames. `track` (faces,): track of each face; None without tracks. `stop_seconds`: end of the
    input, if it is known. `rank` (frames,) and `sampled_seconds`: as `item_seconds` asks.
    """
    if len(frame) == 0:
        return []
    found, start = np.unique(frame, return_index=True)
    spans = item_seconds(time_seconds, stop_seconds, rank, sampled_seconds)
    ends = np.append(start[1:], len(frame))
    breaks = time_seconds[found[1:]] - (time_seconds[found] + spans[found])[:-1] > longest_gap_seconds
    if track is not None:
        for k in np.flatnonzero((np.diff(found) > 1) & ~breaks).tolist():
            before, after = track[start[k] : ends[k]], track[start[k + 1] : ends[k + 1]]
            breaks[k] = not np.intersect1d(before, after).size
    return [
        Appearance(
            float(time_seconds[part[0]]),
            float(time_seconds[part[-1]] + spans[part[-1]]),
            int(part[0]),
            int(part[-1]),
            len(part),
            float(spans[part].sum()),
        )
        for part in np.split(found, np.flatnonzero(breaks) + 1)
    ]

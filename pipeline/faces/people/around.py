"""Tracks of a few faces of a film: linked in the frames around these faces, not in the whole film."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.media.tracking import usual_gap
from pipeline.store.read import RunInput

Ints = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]

AROUND_SECONDS = 3.0
"""Seconds of film before and after a face in which its track is looked for first; doubled while the track goes on."""
LEAST_FRAMES = 8
"""Least number of sampled frames for that. It decides if the film is sampled sparsely."""


def tracks_around(item: RunInput, rows: Ints) -> Int32:
    """Return int32 (n_faces,): the tracks of some faces of a complete film, from 0; -1 for faces of other tracks.

    They are those of `track_input` for the whole film, but for what it knows of the time before the frames looked at.
    """
    from pipeline.faces.stages.track import TrackOptions, track_input

    options = TrackOptions.model_validate({})
    times, n_faces = item.array("time_seconds"), item.array("n_faces")
    starts = np.concatenate([[0], np.cumsum(n_faces, dtype=np.int64)])
    frame = np.searchsorted(starts, rows, side="right") - 1
    usual = usual_gap(times)
    gap = max(options.max_gap_seconds, 1.5 * usual)
    around = max(AROUND_SECONDS, LEAST_FRAMES * usual, 2 * gap)
    spans = [(times[at] - around, times[at] + around) for at in np.unique(frame).tolist()]
    done: dict[tuple[int, int], Int32] = {}
    while True:
        windows = _merged([(int(a), int(b)) for a, b in np.searchsorted(times, np.array(spans)).tolist()])
        done = {one: done[one] if one in done else track_input(item, options, one) for one in windows}
        wider = []
        for (first, last), track in done.items():
            mine = rows[(frame >= first) & (frame < last)] - starts[first]
            seen = np.repeat(times[first:last], n_faces[first:last])[np.isin(track, track[mine])]
            length = times[last - 1] - times[first]
            before = length if first > 0 and seen[0] - times[first] <= gap else 0.0
            after = length if last < len(times) and times[last - 1] - seen[-1] <= gap else 0.0
            if before or after:
                wider.append((times[first] - before, times[last - 1] + after))
        if not wider:
            break
        spans += wider
    found, count = np.full(int(starts[-1]), -1, np.int32), 0
    for (first, last), track in done.items():
        mine = rows[(frame >= first) & (frame < last)] - starts[first]
        numbers, number = np.unique(np.where(np.isin(track, track[mine]), track, -1), return_inverse=True)
        none = int(numbers[0] < 0)
        found[starts[first] : starts[last]] = np.where(number >= none, number - none + count, -1)
        count += len(numbers) - none
    return found


def _merged(windows: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return windows of frames, first and last (exclusive), in order; those that touch are one."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(windows):
        if merged and first <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(last, merged[-1][1])
        else:
            merged.append((first, last))
    return merged

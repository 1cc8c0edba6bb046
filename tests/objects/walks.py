"""Labels of two clips of the data folder: the boxes of people, by number of the person.

walks.csv was made by looking at the pictures. In intel_onebyone.mp4 the camera stands still and people come one by one:
boxes are those of what differs from the empty scene, at every fifth frame; each was looked at, and boxes that hold
nothing but a shadow or a foot were removed. In the other clip three people were framed by hand on six frames; between
these their boxes are interpolated.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

ONE_BY_ONE = "intel_onebyone.mp4"
PAUSE = "intel_face-demographics-walking-and-pause.gif"


def labels(clip: str) -> dict[int, dict[int, np.ndarray]]:
    """Return x, y, w, h by frame and person; of PAUSE on every frame, of ONE_BY_ONE on every fifth one."""
    lines = (Path(__file__).parent / "walks.csv").read_text().splitlines()[1:]
    rows = np.array([line.split(",")[1:] for line in lines if line.startswith(f"{clip},")], np.float64)
    found: dict[int, dict[int, np.ndarray]] = {}
    for who in np.unique(rows[:, 1]):
        mine = rows[rows[:, 1] == who]
        frames = np.arange(mine[0, 0], mine[-1, 0] + 1) if clip == PAUSE else mine[:, 0]
        boxes = np.stack([np.interp(frames, mine[:, 0], column) for column in mine[:, 2:].T], axis=1)
        for frame, box in zip(frames.astype(int).tolist(), boxes, strict=True):
            found.setdefault(frame, {})[int(who)] = box
    return found

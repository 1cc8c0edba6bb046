"""Two walks of the data folder: labelled boxes of people, and the boxes that FastestDet finds.

walks.csv was made by looking at the pictures. In intel_onebyone.mp4 the camera stands still and people come one by one:
boxes are those of what differs from the empty scene, at every fifth frame; each was looked at, and boxes that hold
nothing but a shadow or a foot were removed. In the other clip three people were framed by hand on six frames; between
these their boxes are interpolated. walks_found.csv holds what the stage `objects` finds with FastestDet (score 0.25).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

from pipeline.media.boxes import overlap

ONE_BY_ONE = "intel_onebyone.mp4"
PAUSE = "intel_face-demographics-walking-and-pause.gif"
FRAMES = {ONE_BY_ONE: (range(0, 1394, 5), 10.0), PAUSE: (range(41), 12.5)}
"""Sampled frames, and frames per second."""


def _rows(file: str, clip: str) -> np.ndarray:
    lines = (Path(__file__).parent / file).read_text().splitlines()[1:]
    return np.array([line.split(",")[1:] for line in lines if line.startswith(f"{clip},")], np.float64)


def labels(clip: str) -> dict[int, dict[int, np.ndarray]]:
    """Return x, y, w, h by frame and person."""
    rows = _rows("walks.csv", clip)
    found: dict[int, dict[int, np.ndarray]] = {}
    for who in np.unique(rows[:, 1]):
        mine = rows[rows[:, 1] == who]
        frames = [frame for frame in FRAMES[clip][0] if mine[0, 0] <= frame <= mine[-1, 0]]
        if clip == ONE_BY_ONE:
            frames = mine[:, 0].astype(int).tolist()
        boxes = np.stack([np.interp(frames, mine[:, 0], column) for column in mine[:, 2:].T], axis=1)
        for frame, box in zip(frames, boxes, strict=True):
            found.setdefault(frame, {})[int(who)] = box
    return found


def detections(clip: str) -> list[np.ndarray]:
    """Return x, y, w, h and score of what FastestDet finds in each sampled frame."""
    rows = _rows("walks_found.csv", clip)
    return [rows[rows[:, 0] == frame, 1:] for frame in FRAMES[clip][0]]


def identity(
    truth: Sequence[dict[int, np.ndarray]], box: Sequence[np.ndarray], track: Sequence[np.ndarray]
) -> tuple[float, int]:
    """Return IDF1 and the number of identity switches, at an overlap of 0.5, for each frame's labels and tracks.

    Both equal those of the package `trackers` 2.6.1 on these clips (see `benchmarks/tracks.py`).
    """
    shared: dict[tuple[int, int], int] = {}
    last: dict[int, int] = {}
    switches = labelled = found = 0
    for people, boxes, numbers in zip(truth, box, track, strict=True):
        boxes, numbers = boxes[numbers >= 0], numbers[numbers >= 0]
        labelled, found = labelled + len(people), found + len(numbers)
        who = list(people)
        likeness = overlap(np.array(list(people.values())).reshape(-1, 4), boxes)
        for row, column in np.argwhere(likeness >= 0.5):
            pair = who[row], int(numbers[column])
            shared[pair] = shared.get(pair, 0) + 1
        kept = np.array([[last.get(one) == number for number in numbers.tolist()] for one in who])
        value = np.where(likeness >= 0.5, 1000.0 * kept.reshape(likeness.shape) + likeness, 0)
        for row, column in zip(*linear_sum_assignment(-value), strict=True):
            if value[row, column] > 0:
                switches += last.get(who[row], numbers[column]) != numbers[column]
                last[who[row]] = int(numbers[column])
    pairs = np.zeros((max(a for a, _ in shared) + 1, max(b for _, b in shared) + 1))
    for pair, count in shared.items():
        pairs[pair] = count
    return 2 * pairs[linear_sum_assignment(-pairs)].sum() / (labelled + found), switches

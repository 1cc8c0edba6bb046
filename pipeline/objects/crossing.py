"""Points, lines and zones in a picture: the crossings of a line by paths, and the points inside a zone.

Coordinates are x to the right and y down. A line is walked from its first point to its last: `in` is to go from its
left to its right, `out` the other way.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

IN, OUT = 0, 1
_BORDER = 0.01
"""Pixels that lines reach beyond their ends and zones beyond their border: feet may stand on the picture's edge."""
_ASIDE = 1e-6
"""Pixels by which paths are moved aside, so that none stands on a line: more than rounding, less than a box shows."""


def distance(point: Floats, line: Floats) -> Floats:
    """Return float64 (n,): the distance of points (n, 2) from a line of k points (k, 2)."""
    nearest = np.full(len(point), np.inf)
    for first, last in pairwise(line):
        along = last - first
        share = np.clip((point - first) @ along / max(float(along @ along), 1e-12), 0, 1)
        nearest = np.minimum(nearest, np.hypot(*(point - first - share[:, None] * along).T))
    return nearest


def steps_across(point: Floats, line: Floats) -> Ints:
    """Return int64 (n - 1,): how often each step from one point to the next crosses a line, `in` less `out`.

    A point on the line counts as right of its way from the first point to the last. A step through a corner of the line
    crosses once. A path that goes along the line crosses it if it leaves it on the other side.
    """
    x, y = next(way for way in (line[-1] - line[0], line[1] - line[0]) if way.any())
    beside = np.array([0.3 * x - y, 0.3 * y + x])  # to the right and a little on: no corner of a path is on the line
    point = point + _ASIDE * beside / np.linalg.norm(beside)
    begin, end = point[:-1], point[1:]
    crossed = np.zeros(len(begin), np.int64)
    for first, last in pairwise(line):
        before, after = (_side(first, last, at) >= 0 for at in (begin, end))
        ends_apart = (_side(begin, end, first) >= 0) != (_side(begin, end, last) >= 0)
        crossed += (after.astype(np.int64) - before) * ends_apart
    return crossed


def _side(first: Any, last: Any, point: Any) -> Floats:
    """Return a number above 0 for points right of the way from first to last, as a viewer of the picture sees it."""
    way, there = np.asarray(last - first), np.asarray(point - first)
    result: Floats = way[..., 0] * there[..., 1] - way[..., 1] * there[..., 0]
    return result


def crossings(track: Ints, point: Floats, margin: Floats, line: Floats) -> tuple[Ints, Ints]:
    """Return the crossings of a line: the row at which each has happened, and IN or OUT.

    Rows are sorted by track, and by time within a track. A crossing leads from one point to another that both are
    `margin` (n,) pixels or more from the line. A path that trembles on the line between them crosses once, or not at
    all if it goes back.
    """
    ends = np.stack([line[0] - line[1], line[-1] - line[-2]])
    longer = line.copy()
    longer[[0, -1]] += _BORDER * ends / np.linalg.norm(ends, axis=1, keepdims=True)
    steps = steps_across(point, longer)
    steps[track[1:] != track[:-1]] = 0
    clear = np.flatnonzero(distance(point, line) >= margin)
    total = np.concatenate([[0], np.cumsum(steps)])
    net = total[clear[1:]] - total[clear[:-1]]
    net[track[clear[1:]] != track[clear[:-1]]] = 0
    rows, directions = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for k in np.flatnonzero(net).tolist():
        first, count = int(clear[k]), abs(int(net[k]))
        part = steps[first : clear[k + 1]] * np.sign(net[k])
        # Of a path that trembles, the last crossings are those after which it stays on the other side.
        rows.append(first + 1 + np.repeat(np.arange(len(part)), np.maximum(part, 0))[-count:])
        directions.append(np.full(count, IN if net[k] > 0 else OUT))
    return np.concatenate(rows), np.concatenate(directions)


def inside(point: Floats, zone: Floats) -> npt.NDArray[np.bool_]:
    """Return bool (n,): whether points (n, 2) lie inside a polygon (k, 2) or on its border.

    Of a polygon that crosses itself, the parts that its border goes around twice are outside.
    """
    odd = np.zeros(len(point), bool)
    x, y = point.T
    closed = np.concatenate([zone, zone[:1]])
    for (x1, y1), (x2, y2) in pairwise(closed):
        if y1 != y2:
            odd ^= ((y1 > y) != (y2 > y)) & (x < x1 + (y - y1) * (x2 - x1) / (y2 - y1))
    return odd | (distance(point, closed) <= _BORDER)

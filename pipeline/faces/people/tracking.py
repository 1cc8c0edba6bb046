"""Tracks: the faces of one input, linked along time by where they are and by who they look like.

Frames come in order and are associated one by one; only tracks seen within the last seconds are held. What comes out
depends on the faces alone: neither on how a run was cut into chunks nor on how many frames are handed over at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.faces.people.geometry import overlap

Floats = npt.NDArray[np.float64]
Vectors = npt.NDArray[np.float32]

NONE = -1
RECENT = 5
"""A face is compared with a track's last one and with the mean of the last few: one bad chip then does not end it."""
_LEAST_SHARE = 0.72
"""Of max_distance: within this embeddings must lie where the place says nothing. The less it says, the more must a
face: after a cut somebody who looks alike may stand there, but seldom to the pixel, and later anybody may."""
_SAME_PLACE = [0.2, 0.7]
"""Overlap of boxes from which a place says something, and from which it says all it can."""
_MOMENT_SECONDS = 1.0
"""Time in which that wears off, to a third."""
_REJECTED = 2.6
"""Cost of leaving a face and a track alone: just above the most that an accepted pair costs, so that a poor pair is
never forced to make room for another."""


@dataclass(frozen=True)
class TrackSettings:
    """When two faces are the same one a little later."""

    max_gap_seconds: float = 2.0
    """Longest time that a face may be away (hidden, turned) within a track; never less than one and a half of the usual
    distance between sampled frames."""
    min_iou: float = 0.2
    """Overlap of two boxes that counts as the same place without asking for more."""
    max_distance: float = np.inf
    """Embeddings farther apart than this are another person, wherever the face is (Euclidean; see `space`)."""
    reach: float = 1.0
    """Distance between centres, in face sizes, that a face may have moved between neighbouring frames."""
    reach_per_second: float = 2.0
    """The same per second that lies between, on top."""


@dataclass(frozen=True)
class Block:
    """Faces of some sampled frames, in frame order."""

    n_faces: npt.NDArray[np.int32]
    """int32 (frames,)."""
    time_seconds: Floats
    """float64 (frames,)."""
    box: npt.NDArray[np.float32]
    """float32 (faces, 4): x, y, w, h in pixels."""
    vectors: Vectors | None
    """float32 (faces, d), as they are compared; NaN where a face has none. None: by position alone."""


@dataclass
class _Active:
    """A track that may go on."""

    number: int
    seen_seconds: float
    box: Floats
    velocity: Floats
    """Of the centre, pixels per second."""
    recent: list[Vectors] = field(default_factory=list)


def track_faces(blocks: Iterable[Block], settings: TrackSettings, usual_gap_seconds: float = 0.0) -> Iterator[Any]:
    """int32 (faces,) for each block: the faces' tracks, from 0 in order of first appearance.

    `usual_gap_seconds` is the usual distance between sampled frames of the whole input.
    """
    tracker = _Tracker(settings, usual_gap_seconds)
    for block in blocks:
        yield tracker.follow(block)


def usual_gap(time_seconds: Floats) -> float:
    """Median distance between sampled frames in seconds; 0 where there are fewer than two."""
    return float(np.median(np.diff(time_seconds))) if len(time_seconds) > 1 else 0.0


class _Tracker:
    def __init__(self, settings: TrackSettings, usual_gap_seconds: float) -> None:
        self.settings = settings
        self.max_gap = max(settings.max_gap_seconds, 1.5 * usual_gap_seconds)
        self.active: list[_Active] = []
        self.made = 0

    def follow(self, block: Block) -> npt.NDArray[np.int32]:
        """Tracks of the faces of the next frames."""
        track = np.full(len(block.box), NONE, np.int32)
        edges = np.concatenate([[0], np.cumsum(block.n_faces)])
        for index in np.flatnonzero(block.n_faces):
            rows = slice(int(edges[index]), int(edges[index + 1]))
            vectors = None if block.vectors is None else block.vectors[rows]
            track[rows] = self._frame(float(block.time_seconds[index]), block.box[rows].astype(np.float64), vectors)
        return track

    def _frame(self, now: float, box: Floats, vectors: Vectors | None) -> npt.NDArray[np.int32]:
        self.active = [one for one in self.active if now - one.seen_seconds <= self.max_gap]
        chosen = self._associate(now, box, vectors)
        numbers = np.empty(len(box), np.int32)
        for face, track in enumerate(chosen):
            vector = None if vectors is None else vectors[face]
            one = self._begin(now, box[face]) if track is None else _go_on(track, now, box[face])
            _remember(one, vector)
            numbers[face] = one.number
        return numbers

    def _begin(self, now: float, box: Floats) -> _Active:
        self.active.append(_Active(self.made, now, box, np.zeros(2)))
        self.made += 1
        return self.active[-1]

    def _associate(self, now: float, box: Floats, vectors: Vectors | None) -> list[_Active | None]:
        """The track that each face goes on, None where it begins one; each track once."""
        chosen: list[_Active | None] = [None] * len(box)
        if not self.active:
            return chosen
        from scipy.optimize import linear_sum_assignment

        cost = self._costs(now, box, vectors)
        for face, track in zip(*linear_sum_assignment(cost), strict=True):
            if cost[face, track] < _REJECTED:
                chosen[face] = self.active[track]
        return chosen

    def _costs(self, now: float, box: Floats, vectors: Vectors | None) -> Floats:
        """float64 (faces, tracks): 0 is certain, 2.5 the most that is accepted, _REJECTED is out of the question."""
        gap = np.array([now - one.seen_seconds for one in self.active])
        last = np.array([one.box for one in self.active])
        # A steady movement goes on, but for no longer than half a second: it may as well have ended.
        moved = np.array([one.velocity for one in self.active]) * np.minimum(gap, 0.5)[:, None]
        guess = last.copy()
        guess[:, :2] += moved
        shared = np.maximum(overlap(box, last), overlap(box, guess))
        away = np.minimum(_centre_distance(box, last), _centre_distance(box, guess))
        size = np.sqrt(box[:, None, 2:].prod(-1) / np.maximum(last[None, :, 2:].prod(-1), 1e-9))
        reach = self.settings.reach + self.settings.reach_per_second * gap
        change = 1.6 + gap  # a face may come that much nearer or go that much farther
        is_near = (away <= reach) & (size <= change) & (size >= 1 / change)
        at_place = shared >= self.settings.min_iou
        place = np.where(at_place, 1 - shared, 1 + 0.5 * away / reach)
        if vectors is None:
            return np.where(at_place | (is_near & (away <= 0.5 * self.settings.reach)), place, _REJECTED)
        look = self._looks(vectors)
        said_by_place = np.interp(shared, _SAME_PLACE, [0.0, 1.0]) * np.exp(-gap / _MOMENT_SECONDS)
        limit = self.settings.max_distance * (_LEAST_SHARE + (1 - _LEAST_SHARE) * said_by_place)
        known = np.isfinite(look)
        agrees = np.where(known, look <= limit, at_place)
        share = np.where(known, look, limit) / limit if np.isfinite(self.settings.max_distance) else np.zeros_like(look)
        return np.where(agrees & (is_near | at_place), place + share, _REJECTED)

    def _looks(self, vectors: Vectors) -> Floats:
        """float64 (faces, tracks): distance to a track's last face or to the mean of the last few; NaN unknown."""
        look = np.full((len(vectors), len(self.active)), np.nan)
        for k, one in enumerate(self.active):
            if one.recent:
                known = np.array([one.recent[-1], np.mean(one.recent, axis=0)])
                look[:, k] = np.linalg.norm(vectors[:, None] - known[None], axis=2).min(axis=1)
        return look


def _go_on(one: _Active, now: float, box: Floats) -> _Active:
    seconds = now - one.seen_seconds
    if seconds > 0:
        step = (box[:2] + box[2:] / 2 - one.box[:2] - one.box[2:] / 2) / seconds
        one.velocity = 0.5 * one.velocity + 0.5 * step
    one.seen_seconds, one.box = now, box
    return one


def _remember(one: _Active, vector: Vectors | None) -> None:
    if vector is not None and np.isfinite(vector).all():
        one.recent = [*one.recent[-RECENT + 1 :], vector]


def _centre_distance(box: Floats, last: Floats) -> Floats:
    """float64 (n, m): distance of centres in mean sizes of the two boxes."""
    between = (box[:, None, :2] + box[:, None, 2:] / 2) - (last[None, :, :2] + last[None, :, 2:] / 2)
    size = (np.sqrt(box[:, None, 2:].prod(-1)) + np.sqrt(last[None, :, 2:].prod(-1))) / 2
    result: Floats = np.hypot(between[..., 0], between[..., 1]) / np.maximum(size, 1e-9)
    return result

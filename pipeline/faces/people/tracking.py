"""Tracks: the faces of one input, linked along time by their position and their embeddings.

Frames come in order and are associated one by one; only tracks seen within the last seconds are in memory. The result
depends on the faces alone, not on the cut into chunks nor on the number of frames per call.
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
"""A face is compared with a track's last one and with the mean of the last few, so one bad chip does not end it."""
_LEAST_SHARE = 0.72
"""Share of max_distance that embeddings must be within if the position says nothing (see _Tracker._costs)."""
_SAME_PLACE = [0.2, 0.7]
"""Overlap of boxes from which the position counts as evidence, and from which it counts fully."""
_MOMENT_SECONDS = 1.0
"""Seconds after which that evidence falls to 1/e."""
_REJECTED = 2.6
"""Cost of leaving a face and a track alone. It is just above the most that an accepted pair costs, so that a poor pair
is never forced for the sake of another."""


@dataclass(frozen=True)
class TrackSettings:
    """The limits within which two faces are the same one a little later."""

    max_gap_seconds: float = 2.0
    """Longest time that a face may be absent (hidden, turned) within a track. It is at least one and a half of the
    usual distance between sampled frames."""
    min_iou: float = 0.2
    """Overlap of two boxes that counts as the same place without further evidence."""
    max_distance: float = np.inf
    """Largest distance of one person's embeddings, at any position (Euclidean; see `space`)."""
    reach: float = 1.0
    """Distance between centres, in face sizes, that a face may move between neighbouring frames."""
    reach_per_second: float = 2.0
    """Distance that it may move on top for each second between the frames, in face sizes."""


@dataclass(frozen=True)
class Block:
    """Faces of some sampled frames, in frame order."""

    n_faces: npt.NDArray[np.int32]
    """int32 (frames,): number of faces in each frame."""
    time_seconds: Floats
    """float64 (frames,): presentation times."""
    box: npt.NDArray[np.float32]
    """float32 (faces, 4): x, y, w, h in pixels."""
    vectors: Vectors | None
    """float32 (faces, d), as they are compared; NaN if a face has none. None: by position alone."""


@dataclass
class _Active:
    """A track that may go on."""

    number: int
    seen_seconds: float
    box: Floats
    velocity: Floats
    """Velocity of the centre, pixels per second."""
    recent: list[Vectors] = field(default_factory=list)


def track_faces(blocks: Iterable[Block], settings: TrackSettings, usual_gap_seconds: float = 0.0) -> Iterator[Any]:
    """Yield int32 (faces,) for each block: the faces' tracks, from 0 in order of first appearance.

    `usual_gap_seconds` is the usual distance between sampled frames of the whole input.
    """
    tracker = _Tracker(settings, usual_gap_seconds)
    for block in blocks:
        track = np.full(len(block.box), NONE, np.int32)
        edges = np.concatenate([[0], np.cumsum(block.n_faces)])
        for index in np.flatnonzero(block.n_faces):
            rows = slice(int(edges[index]), int(edges[index + 1]))
            vectors = None if block.vectors is None else block.vectors[rows]
            track[rows] = tracker.frame(float(block.time_seconds[index]), block.box[rows].astype(np.float64), vectors)
        yield track


def usual_gap(time_seconds: Floats) -> float:
    """Return the median distance between sampled frames in seconds; 0 if there are fewer than two."""
    return float(np.median(np.diff(time_seconds))) if len(time_seconds) > 1 else 0.0


class _Tracker:
    def __init__(self, settings: TrackSettings, usual_gap_seconds: float) -> None:
        self.settings = settings
        self.max_gap = max(settings.max_gap_seconds, 1.5 * usual_gap_seconds)
        self.active: list[_Active] = []
        self.made = 0

    def frame(self, now: float, box: Floats, vectors: Vectors | None) -> npt.NDArray[np.int32]:
        """Return the tracks of the faces of the next frame."""
        from scipy.optimize import linear_sum_assignment

        self.active = [one for one in self.active if now - one.seen_seconds <= self.max_gap]
        chosen: list[_Active | None] = [None] * len(box)  # the track that each face continues, each track once
        if self.active:
            cost = self._costs(now, box, vectors)
            for face, track in zip(*linear_sum_assignment(cost), strict=True):
                if cost[face, track] < _REJECTED:
                    chosen[face] = self.active[track]
        numbers = np.empty(len(box), np.int32)
        for face, one in enumerate(chosen):
            if one is None:
                one = _Active(self.made, now, box[face], np.zeros(2))
                self.active.append(one)
                self.made += 1
            elif now > one.seen_seconds:
                step = (box[face, :2] + box[face, 2:] / 2 - one.box[:2] - one.box[2:] / 2) / (now - one.seen_seconds)
                one.velocity = 0.5 * one.velocity + 0.5 * step
            one.seen_seconds, one.box = now, box[face]
            if vectors is not None and np.isfinite(vectors[face]).all():
                one.recent = [*one.recent[-RECENT + 1 :], vectors[face]]
            numbers[face] = one.number
        return numbers

    def _costs(self, now: float, box: Floats, vectors: Vectors | None) -> Floats:
        """Return float64 (faces, tracks): 0 is certain, at most 2.5 is accepted, _REJECTED is impossible.

        A cost is the sum of two parts, and a pair must pass two tests.

        Position: boxes that overlap by `min_iou` are at the same place and cost 1 less the overlap. A face that is only
        near (within `reach`, and of similar size) costs 1 to 1.5 by its distance. Both are taken from the track's last
        box and from where its velocity would have carried it, whichever fits better.

        Embedding: it costs 0 to 1, as a share of its limit. The limit depends on the position. After a cut another
        person who looks alike may be near that place, but seldom exactly there, and after a while anyone may. So with
        full overlap and no gap the limit is `max_distance`. It falls to _LEAST_SHARE of that with less overlap
        (_SAME_PLACE) and with time (_MOMENT_SECONDS). A face without an embedding must be at the same place.

        The least total cost over all pairs then assigns faces to tracks (the Hungarian method). Without embeddings the
        position decides alone, and a face that is only near must be twice as near.
        """
        gap = np.array([now - one.seen_seconds for one in self.active])
        last = np.array([one.box for one in self.active])
        # A steady movement goes on, but for at most half a second: it may have ended since.
        moved = np.array([one.velocity for one in self.active]) * np.minimum(gap, 0.5)[:, None]
        guess = last.copy()
        guess[:, :2] += moved
        shared = np.maximum(overlap(box, last), overlap(box, guess))
        away = np.minimum(_centre_distance(box, last), _centre_distance(box, guess))
        size = np.sqrt(box[:, None, 2:].prod(-1) / np.maximum(last[None, :, 2:].prod(-1), 1e-9))
        reach = self.settings.reach + self.settings.reach_per_second * gap
        change = 1.6 + gap  # factor by which a face may come nearer or go farther
        is_near = (away <= reach) & (size <= change) & (size >= 1 / change)
        at_place = shared >= self.settings.min_iou
        place = np.where(at_place, 1 - shared, 1 + 0.5 * away / reach)
        if vectors is None:
            return np.where(at_place | (is_near & (away <= 0.5 * self.settings.reach)), place, _REJECTED)
        # Distance to a track's last face or to the mean of its last few, whichever is less; NaN if it has none.
        look = np.full((len(vectors), len(self.active)), np.nan)
        for k, one in enumerate(self.active):
            if one.recent:
                recent = np.array([one.recent[-1], np.mean(one.recent, axis=0)])
                look[:, k] = np.linalg.norm(vectors[:, None] - recent[None], axis=2).min(axis=1)
        said_by_place = np.interp(shared, _SAME_PLACE, [0.0, 1.0]) * np.exp(-gap / _MOMENT_SECONDS)
        limit = self.settings.max_distance * (_LEAST_SHARE + (1 - _LEAST_SHARE) * said_by_place)
        known = np.isfinite(look)
        agrees = np.where(known, look <= limit, at_place)
        share = np.where(known, look, limit) / limit if np.isfinite(self.settings.max_distance) else np.zeros_like(look)
        return np.where(agrees & (is_near | at_place), place + share, _REJECTED)


def _centre_distance(box: Floats, last: Floats) -> Floats:
    """Return float64 (n, m): distance of centres in mean sizes of the two boxes."""
    between = (box[:, None, :2] + box[:, None, 2:] / 2) - (last[None, :, :2] + last[None, :, 2:] / 2)
    size = (np.sqrt(box[:, None, 2:].prod(-1)) + np.sqrt(last[None, :, 2:].prod(-1))) / 2
    result: Floats = np.hypot(between[..., 0], between[..., 1]) / np.maximum(size, 1e-9)
    return result

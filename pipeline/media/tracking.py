"""Tracks: the boxes of one input, linked along time by their position and, if they have some, their embeddings.

Frames come in order and are associated one by one; only tracks seen within the last seconds are in memory. The result
depends on the boxes alone, not on the cut into chunks nor on the number of frames per call.

At a cut, a person who looks alike may stand at the very place of another. That shows only afterwards: the embedding
steps far at the cut, and little before and after it. Such a track is split there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipeline.media.boxes import assigned, corners_of, overlap

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

NONE = -1
RECENT = 5
"""A vector is compared with a track's last one and with the mean of its last few: one bad picture does not end it."""
_LEAST_SHARE = 0.72
"""Share of max_distance that embeddings must be within if the position says nothing (see _Tracker._costs)."""
_SAME_PLACE = [0.2, 0.7]
"""Overlap of boxes from which the position counts as evidence, and from which it counts fully."""
_STEPS_AROUND = 4
"""Steps of a track before a step, and as many after it, that show how much its embeddings vary."""
_MOST_TIMES = 3.0
"""Multiple of the median of these, beyond which a step farther than _LEAST_SHARE of max_distance is a cut. Chosen
in-sample, on clips and films of photographs; see docs/benchmarks.md, Films of photographs."""
_MOMENT_SECONDS = 1.0
"""Seconds after which that evidence falls to 1/e."""
_VECTORS_AT_ONCE = 1 << 14
"""Pairs whose vectors are compared together: 16 MB of 128 components."""
_REJECTED = 2.6
"""Cost of leaving a box and a track alone. It is just above the most that an accepted pair costs, so that a poor pair
is never forced for the sake of another."""
_CHANGE = 1.6
"""Factor by which the size of a box may change from one frame to the next."""
_ALONE = 1.26
"""For tracks by movement. Here too it is just above the most that a pair costs, 1.25. Of two boxes of one
thing, one is then left alone; it does not take the track of another."""
_LOST = 0.3
"""Cost of a track that was last seen `max_gap_seconds` ago, so that one seen in the frame before comes first. This and
the choice of the place were found in-sample; see docs/benchmarks.md, Tracks of objects."""


@dataclass(frozen=True)
class TrackSettings:
    """The limits within which two boxes show the same thing a little later."""

    max_gap_seconds: float = 2.0
    """Longest time that a thing may be absent (hidden, turned) within a track. It is at least one and a half of the
    usual distance between sampled frames."""
    min_iou: float = 0.2
    """Overlap of two boxes that counts as the same place without further evidence."""
    max_distance: float = np.inf
    """Largest distance of one person's embeddings, at any position (Euclidean; see `space`)."""
    reach: float = 1.0
    """Distance between centres, in sizes of the box, that a thing may move between neighbouring frames."""
    reach_per_second: float = 2.0
    """Distance that it may move on top for each second between the frames, in sizes of the box."""
    by_movement: bool = False
    """True: compare boxes with the place to which a track moves on, without embeddings (see _costs_of_movement)."""


@dataclass(frozen=True)
class Block:
    """Boxes of some sampled frames, in frame order."""

    n_rows: npt.NDArray[np.int32]
    """int32 (frames,): number of boxes in each frame."""
    time_seconds: Floats
    """float64 (frames,): presentation times."""
    box: npt.NDArray[np.float32]
    """float32 (rows, 4): x, y, w, h in pixels."""
    vectors: Vectors | None
    """float32 (rows, d), as they are compared; NaN if a box has none. None: by position alone."""
    label: npt.NDArray[np.int32] | None = None
    """int32 (rows,): classes; boxes of one track have one class. None: all are of one class."""
    begins: npt.NDArray[np.bool_] | None = None
    """bool (rows,): whether a box may begin a track; the others continue one or have none (-1). None: all may."""


@dataclass
class _Active:
    """A track that may go on."""

    number: int
    seen_seconds: float
    box: Floats
    velocity: Floats
    """Velocity of the centre, pixels per second."""
    label: int
    recent: list[Vectors] = field(default_factory=list)


def track_rows(
    blocks: Iterable[Block], settings: TrackSettings, usual_gap_seconds: float = 0.0
) -> npt.NDArray[np.int32]:
    """Return int32 (rows,), for all blocks: the tracks of the boxes, from 0 in order of first appearance; -1 for none.

    `usual_gap_seconds` is the usual distance between sampled frames of the whole input.
    """
    tracker = _Tracker(settings, usual_gap_seconds)
    tracks, steps = [np.empty(0, np.int32)], [np.empty(0, np.float32)]
    for block in blocks:
        track, step = np.full(len(block.box), NONE, np.int32), np.full(len(block.box), np.nan, np.float32)
        edges = np.concatenate([[0], np.cumsum(block.n_rows)])
        for index in np.flatnonzero(block.n_rows):
            rows = slice(int(edges[index]), int(edges[index + 1]))
            vectors = None if block.vectors is None else block.vectors[rows]
            label = np.zeros(rows.stop - rows.start, np.int32) if block.label is None else block.label[rows]
            begins = np.ones(len(label), bool) if block.begins is None else block.begins[rows]
            now, box = float(block.time_seconds[index]), block.box[rows].astype(np.float64)
            track[rows], step[rows] = tracker.frame(now, box, vectors, label, begins)
        tracks.append(track)
        steps.append(step)
    return _split(np.concatenate(tracks), np.concatenate(steps), _LEAST_SHARE * settings.max_distance)


def _split(track: npt.NDArray[np.int32], step: npt.NDArray[np.float32], limit: float) -> npt.NDArray[np.int32]:
    """Return the tracks, split before each step that is beyond `limit` and far beyond those around it (_MOST_TIMES).

    `step` (rows,): distance of each embedding from the one before it in the track; NaN if there is none.
    """
    suspects = np.unique(track[step > limit]).tolist()
    if not suspects:
        return track
    split, made = track.copy(), int(track.max()) + 1
    order = np.argsort(track, kind="stable")
    starts = np.searchsorted(track[order], np.arange(made + 1))
    for number in suspects:
        rows = order[starts[number] : starts[number + 1]]
        known = np.flatnonzero(np.isfinite(step[rows]))
        steps = step[rows[known]]
        for at in np.flatnonzero(steps > limit).tolist():
            around = np.delete(steps[max(0, at - _STEPS_AROUND) : at + _STEPS_AROUND + 1], min(at, _STEPS_AROUND))
            if len(around) == 0 or steps[at] > _MOST_TIMES * np.median(around):
                split[rows[known[at] :]] = made
                made += 1
    _, first, inverse = np.unique(split, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first)).astype(np.int32)[inverse]


def usual_gap(time_seconds: Floats) -> float:
    """Return the median distance between sampled frames in seconds; 0 if there are fewer than two."""
    return float(np.median(np.diff(time_seconds))) if len(time_seconds) > 1 else 0.0


@dataclass(frozen=True)
class _Places:
    """The places of n tracks at a moment."""

    gap: Floats
    """float64 (n,): seconds since each was seen."""
    last: Floats
    """float64 (n, 4): its last box."""
    guess: Floats
    """float64 (n, 4): the box that it has if it moves on."""
    looks: Vectors | None
    """float32 (n, 2, d): the last vector, and the mean of the last few; NaN if it has none."""

    @staticmethod
    def of(active: Sequence[_Active], now: float, vectors: Vectors | None) -> _Places:
        gap = np.array([now - one.seen_seconds for one in active])
        last = np.array([one.box for one in active])
        # A steady movement goes on, but for at most half a second: it may have ended since.
        moved = np.array([one.velocity for one in active]) * np.minimum(gap, 0.5)[:, None]
        guess = np.concatenate([last[:, :2] + moved, last[:, 2:]], axis=1)
        if vectors is None:
            return _Places(gap, last, guess, None)
        looks = np.full((len(active), 2, vectors.shape[1]), np.nan, np.float32)
        for look, one in zip(looks, active, strict=True):
            if one.recent:
                look[:] = one.recent[-1], np.mean(one.recent, axis=0)
        return _Places(gap, last, guess, looks)

    def take(self, index: Ints) -> _Places:
        looks = None if self.looks is None else self.looks[index]
        return _Places(self.gap[index], self.last[index], self.guess[index], looks)

    def around(self, margin: Floats) -> Floats:
        """Return float64 (n, 4): x1, y1, x2, y2 of both boxes, grown by a margin in pixels."""
        here, there = corners_of(self.last, margin), corners_of(self.guess, margin)
        return np.concatenate([np.minimum(here[:, :2], there[:, :2]), np.maximum(here[:, 2:], there[:, 2:])], axis=1)


class _Tracker:
    def __init__(self, settings: TrackSettings, usual_gap_seconds: float) -> None:
        self.settings = settings
        self.max_gap = max(settings.max_gap_seconds, 1.5 * usual_gap_seconds)
        self.active: list[_Active] = []
        self.made = 0

    def frame(
        self,
        now: float,
        box: Floats,
        vectors: Vectors | None,
        label: npt.NDArray[np.int32],
        begins: npt.NDArray[np.bool_],
    ) -> tuple[npt.NDArray[np.int32], Vectors]:
        """Return the tracks of the boxes of the next frame, and the steps of their embeddings (see `_split`)."""
        self.active = [one for one in self.active if now - one.seen_seconds <= self.max_gap]
        chosen: list[_Active | None] = [None] * len(box)  # the track that each box continues, each track once
        if self.active:
            places = _Places.of(self.active, now, vectors)
            reach, change = self._reach(places.gap)
            side = np.sqrt(np.maximum(places.last[:, 2:].prod(-1), 1e-9))
            around = places.around(reach * side * (1 + change) / 2 + 1)  # of the largest box that may be near
            labels = np.array([one.label for one in self.active])
            rejected = _ALONE if self.settings.by_movement else _REJECTED

            def cost(rows: Ints, tracks: Ints) -> Floats:
                found, there = box[rows], places.take(tracks)
                if self.settings.by_movement:
                    costs = self._costs_of_movement(found, there)
                else:
                    costs = self._costs(found, None if vectors is None else vectors[rows], there)
                return np.where(label[rows, None] == labels[tracks], costs, rejected)

            for row, track in zip(*assigned(corners_of(box), around, cost, rejected), strict=True):
                chosen[row] = self.active[track]
        numbers, steps = np.full(len(box), NONE, np.int32), np.full(len(box), np.nan, np.float32)
        for row, one in enumerate(chosen):
            if one is None and not begins[row]:
                continue
            if one is None:
                one = _Active(self.made, now, box[row], np.zeros(2), int(label[row]))
                self.active.append(one)
                self.made += 1
            elif now > one.seen_seconds:
                step = (box[row, :2] + box[row, 2:] / 2 - one.box[:2] - one.box[2:] / 2) / (now - one.seen_seconds)
                one.velocity = 0.5 * one.velocity + 0.5 * step
            one.seen_seconds, one.box = now, box[row]
            if vectors is not None and np.isfinite(vectors[row]).all():
                if one.recent:
                    steps[row] = np.linalg.norm(one.recent[-1] - vectors[row])
                one.recent = [*one.recent[-RECENT + 1 :], vectors[row]]
            numbers[row] = one.number
        return numbers, steps

    def _reach(self, gap: Floats) -> tuple[Floats, Floats]:
        """Return how far a box may move in some seconds, in its sizes, and the factor by which these may change."""
        return self.settings.reach + self.settings.reach_per_second * gap, _CHANGE + gap

    def _costs_of_movement(self, box: Floats, places: _Places) -> Floats:
        """Return float64 (rows, tracks): 0 is certain, _ALONE is impossible.

        A box that overlaps the place to which a track moves on by `min_iou` costs 1 less the overlap. A box that is
        only near (half as far as `reach`, and of similar size) costs 1 to 1.25 by its distance. A track that is lost
        costs up to _LOST more.
        """
        shared = overlap(box, places.guess)
        away, size = _apart(box, places)
        is_near = (away <= 0.5 * self.settings.reach) & (size <= _CHANGE) & (size >= 1 / _CHANGE)
        near = np.where(is_near, 1 + 0.5 * away / self._reach(places.gap)[0], _ALONE)
        place = np.where(shared >= self.settings.min_iou, 1 - shared, near)
        return np.minimum(place + _LOST * places.gap / self.max_gap, _ALONE)

    def _costs(self, box: Floats, vectors: Vectors | None, places: _Places) -> Floats:
        """Return float64 (rows, tracks): 0 is certain, at most 2.5 is accepted, _REJECTED is impossible.

        A cost is the sum of two parts, and a pair must pass two tests.

        Position: boxes that overlap by `min_iou` are at the same place and cost 1 less the overlap. A box that is only
        near (within `reach`, and of similar size) costs 1 to 1.5 by its distance. Both are taken from the track's last
        box and from where its velocity would have carried it, whichever fits better.

        Embedding: it costs 0 to 1, as a share of its limit. The limit depends on the position. After a cut another
        person who looks alike may be near that place, but seldom exactly there, and after a while anyone may. So with
        full overlap and no gap the limit is `max_distance`. It falls to _LEAST_SHARE of that with less overlap
        (_SAME_PLACE) and with time (_MOMENT_SECONDS). A box without an embedding must be at the same place.

        The least total cost over all pairs then assigns boxes to tracks (the Hungarian method). Without embeddings the
        position decides alone, and a box that is only near must be twice as near.
        """
        last, gap = places.last, places.gap
        shared = np.maximum(overlap(box, last), overlap(box, places.guess))
        away, size = _apart(box, places)
        reach, change = self._reach(gap)
        is_near = (away <= reach) & (size <= change) & (size >= 1 / change)
        at_place = shared >= self.settings.min_iou
        place = np.where(at_place, 1 - shared, 1 + 0.5 * away / reach)
        if vectors is None or places.looks is None:
            return np.where(at_place | (is_near & (away <= 0.5 * self.settings.reach)), place, _REJECTED)
        # Distance to a track's last vector or to the mean of its last few, whichever is less; NaN if it has none.
        look = np.full(shared.shape, np.nan)
        row, track = np.nonzero(is_near | at_place)
        for start in range(0, len(row), _VECTORS_AT_ONCE):
            f, t = row[start : start + _VECTORS_AT_ONCE], track[start : start + _VECTORS_AT_ONCE]
            look[f, t] = np.linalg.norm(vectors[f][:, None] - places.looks[t], axis=2).min(axis=1)
        said_by_place = np.interp(shared, _SAME_PLACE, [0.0, 1.0]) * np.exp(-gap / _MOMENT_SECONDS)
        limit = self.settings.max_distance * (_LEAST_SHARE + (1 - _LEAST_SHARE) * said_by_place)
        known = np.isfinite(look)
        agrees = np.where(known, look <= limit, at_place)
        share = np.where(known, look, limit) / limit if np.isfinite(self.settings.max_distance) else np.zeros_like(look)
        return np.where(agrees & (is_near | at_place), place + share, _REJECTED)


def _apart(box: Floats, places: _Places) -> tuple[Floats, Floats]:
    """Return float64 (n, m), twice: distances of boxes from tracks, in sizes, and how much larger the boxes are."""
    away = np.minimum(_centre_distance(box, places.last), _centre_distance(box, places.guess))
    return away, np.sqrt(box[:, None, 2:].prod(-1) / np.maximum(places.last[None, :, 2:].prod(-1), 1e-9))


def _centre_distance(box: Floats, last: Floats) -> Floats:
    """Return float64 (n, m): distance of centres in mean sizes of the two boxes."""
    between = (box[:, None, :2] + box[:, None, 2:] / 2) - (last[None, :, :2] + last[None, :, 2:] / 2)
    size = (np.sqrt(box[:, None, 2:].prod(-1)) + np.sqrt(last[None, :, 2:].prod(-1))) / 2
    result: Floats = np.hypot(between[..., 0], between[..., 1]) / np.maximum(size, 1e-9)
    return result

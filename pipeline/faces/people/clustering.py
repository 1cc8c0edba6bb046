"""People: tracks of any number of inputs, grouped by the person they show.

The method is agglomeration by average linkage of squared distances. For Euclidean vectors it needs no matrix: the value
of two groups is the squared distance of their means plus both variances. By a group's own variance, a person who looks
different each time would stay in pieces. Two who do not would be joined from farther. So it is that of as many
photographs of one person as the group has looks (PHOTOGRAPHS). A graph of near neighbours holds the merges of a round,
so 100,000 tracks fit in memory. What video knows comes first: two faces of one frame are never one person, a track is
always one.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.faces.people.geometry import frontality

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]

PAIRS = 200_000
"""Near neighbours in a round, over all groups together."""
LEAST_NEIGHBOURS, MOST_NEIGHBOURS = 8, 1000
"""Near neighbours of one group. If more are within the threshold, later rounds see the groups made of these."""
BLOCK_VALUES = 1 << 24
"""Values of the matrix of distances in memory at a time: 64 MB."""
WEAK_SHARE = 0.7
"""Share of the squared threshold, for tracks that may not begin a group. False detections are fairly close to many
people, a real face to one."""
VARIED = 0.27
"""Mean distance of a track's faces from their vector, as a share of the strict threshold. A track with more shows its
person's own variation; one photograph, shown for a second, has less in 3 of 4 tracks."""
PHOTOGRAPHS = 0.3
"""Mean squared distance of one person's photographs from their mean, as a share of the squared threshold. The
photographs are of different days; for Dlib it is 0.0984 of 0.342 (evidence.RAW)."""
SAME_LOOK = 0.2
"""Share of the squared threshold. Means that are so near show one photograph or one scene, and count as one look. The
results are the same from 0.15 to 0.25 (`make bench-people`)."""
STEPS = 10
"""Steps from the strict threshold to the other one, if it depends on the number of people."""
MOST_WEIGHT = 20.0
"""Largest weight of a track. More faces count no more, because they share one scene's light and one pose."""


@dataclass(frozen=True)
class Points:
    """The vectors to group: tracks, and the exemplars of a registry's people."""

    vector: Float32
    """float32 (n, d), finite; compared by Euclidean distance."""
    spread: Floats
    """float64 (n,): mean squared distance of the faces behind it from the vector."""
    varied: Floats
    """float64 (n,): the mean of `spread` over the tracks behind it, each by itself, and the variance of those of one
    look about their mean."""
    weight: Floats
    """float64 (n,): weight in a mean, above 0."""
    person: Ints
    """int64 (n,): the known person that it certainly belongs to, 0 if that is open."""
    founds: npt.NDArray[np.bool_]
    """bool (n,): true if it may begin a group. A false detection of a moment may only join one. Such detections are
    similar in being unlike any face, and would become a person of their own."""


@dataclass(frozen=True)
class Exemplar:
    """A typical look of a person: the mean of some of their tracks."""

    vector: Float32
    """float32 (d,): mean, in the space in which the model's embeddings are compared."""
    spread: float
    """Mean squared distance of the faces from the vector: `varied`, and that of as many photographs as it has looks."""
    weight: float
    """Number of faces it stands for; of each track only a few count."""
    varied: float
    """Mean of the spreads of its tracks, each by itself, and the variance of those of one look about their mean."""


@dataclass(frozen=True)
class Groups:
    """The groups that the points became."""

    group: Ints
    """int64 (n,): number of each point's group, from 0 in order of first member."""
    looks: list[list[Exemplar]]
    """One exemplar for each cluster of a group; several only if a user has merged them into one person."""
    threshold: float
    """The threshold that held."""


def group_points(
    points: Points,
    seen: Ints,
    threshold: float,
    twice: Collection[int] = (),
    strict: float | None = None,
    in_crowd: Callable[[int], float] | None = None,
) -> Groups:
    """Join points that are within `threshold` on average, and within `strict` if both show variation (`VARIED`).

    Two photographs of a person differ by light, camera and years, which neither photograph shows. `in_crowd` gives a
    lower threshold for a number of people. It rises from `strict` by steps, as long as the groups so far allow it.
    `seen`: int64 (m, 2), a moment's number and the row of a point seen in it. Two points of one moment are not one
    person. Known people are never joined with each other. Those of `twice` may have several points of one moment.
    """
    if not len(points.vector):
        return Groups(np.empty(0, np.int64), [], threshold)
    state = _State(points, seen, threshold, threshold if strict is None else strict, frozenset(twice))
    now = threshold if in_crowd is None else state.strict
    state.merge_within(now)
    while in_crowd is not None and now < (most := min(threshold, in_crowd(state.people()))):
        now = min(most, now + (threshold - state.strict) / STEPS)
        state.merge_within(now)
    owner = np.array([state.root(state.owner[k]) for k in range(len(points.vector))], np.int64)
    numbers, first, inverse = np.unique(owner, return_index=True, return_inverse=True)
    rank = np.empty(len(numbers), np.int64)
    rank[np.argsort(first)] = np.arange(len(numbers))
    number = dict(zip(numbers.tolist(), rank.tolist(), strict=True))
    looks: list[list[Exemplar]] = [[] for _ in numbers]
    for cluster in state.alive():
        mean = state.mean[cluster].astype(np.float32)
        looks[number[state.root(state.owner[cluster])]].append(
            Exemplar(mean, state.spread[cluster], state.weight[cluster], state.varied[cluster])
        )
    return Groups(rank[inverse], looks, now)


class _State:
    """Clusters (which have a mean) and their owners (people; a known one may own several clusters)."""

    def __init__(self, points: Points, seen: Ints, threshold: float, strict: float, twice: frozenset[int]) -> None:
        n = len(points.vector)
        self.strict = strict
        self.limit = threshold * threshold
        self.twice = twice
        self.photographs = PHOTOGRAPHS * self.limit
        """Mean squared distance of one person's photographs from their mean."""
        self.same_look = SAME_LOOK * self.limit
        """Squared distance of two means of one look."""
        self.mean = list(points.vector.astype(np.float64))
        self.spread = points.spread.astype(np.float64).tolist()
        self.varied = points.varied.astype(np.float64).tolist()
        self.weight = points.weight.astype(np.float64).tolist()
        self.into = list(range(n))
        """The cluster that each became; itself while it is alive."""
        self.owner = list(range(n))
        """Number of each cluster's owner; follow it by `root`."""
        self.parent = list(range(n))
        """Union-find over owners."""
        self.founds = points.founds.tolist()
        """True for each cluster that may begin a group."""
        self.known = points.person.tolist()
        """The known person of each owner, or 0."""
        self.moments: defaultdict[int, set[int]] = defaultdict(set)
        """Moments in which each owner was seen. Two owners with a moment in common are not the same person."""
        first: dict[int, int] = {}
        for row in np.flatnonzero(points.person).tolist():
            self.parent[row] = first.setdefault(int(points.person[row]), row)
        for moment, row in seen.tolist():
            self.moments[self.root(row)].add(moment)

    def alive(self) -> list[int]:
        """Return the clusters that were not merged into another one, ascending."""
        return [k for k, into in enumerate(self.into) if into == k]

    def people(self) -> int:
        """Return the number of groups that may be people."""
        return len({self.root(self.owner[cluster]) for cluster in self.alive() if self.founds[cluster]})

    def merge_within(self, threshold: float) -> None:
        """Join pairs until none is left within this threshold."""
        self.limit = threshold * threshold
        while self._merge_round():
            pass

    def _merge_round(self) -> bool:
        """Join pairs of a graph of near neighbours, nearest first, if allowed; return whether any were joined."""
        alive = self.alive()
        neighbours, heap = self._graph(alive)
        joined = False
        while heap:
            squared, a, b = heapq.heappop(heap)
            if self.into[a] != a or self.into[b] != b or not self._allowed(a, b, squared):
                continue
            joined = True
            c = self._merge(a, b)
            around = {k for k in neighbours.pop(a) | neighbours.pop(b) if self.into[k] == k}
            for k in around:
                neighbours[k] -= {a, b}
                neighbours[k].add(c)
            neighbours[c] = around
            others = sorted(around)
            if not others:
                continue
            between = np.array([self.mean[k] for k in others]) - self.mean[c]
            apart = np.einsum("ij,ij->i", between, between) + self.spread[c] + [self.spread[k] for k in others]
            for k, value in zip(others, apart.tolist(), strict=True):
                if value <= self.limit:
                    heapq.heappush(heap, (value, k, c))
        return joined

    def root(self, owner: int) -> int:
        while self.parent[owner] != owner:
            self.parent[owner] = self.parent[self.parent[owner]]
            owner = self.parent[owner]
        return owner

    def _allowed(self, a: int, b: int, squared: float) -> bool:
        founders = self.founds[a] + self.founds[b]
        if founders == 0 or (founders == 1 and squared > WEAK_SHARE * self.strict**2):
            return False
        if squared > self.strict**2 and min(self.varied[a], self.varied[b]) > (VARIED * self.strict) ** 2:
            return False
        first, second = self.root(self.owner[a]), self.root(self.owner[b])
        one, other = self.known[first], self.known[second]
        # A user may have merged two faces of one frame, which makes them one owner: that decision stands.
        together = first != second and not self.moments[first].isdisjoint(self.moments[second])
        if together and not {one, other} & self.twice:
            return False
        return not (one and other and one != other)

    def _merge(self, a: int, b: int) -> int:
        """Merge clusters a and b into a new one, and their owners into one."""
        first, second = self.root(self.owner[a]), self.root(self.owner[b])
        if first != second:
            self.parent[second] = first
            self.known[first] = self.known[first] or self.known[second]
            fewer, more = sorted((self.moments.pop(first, set()), self.moments.pop(second, set())), key=len)
            more |= fewer
            self.moments[first] = more
        total = self.weight[a] + self.weight[b]
        share = self.weight[b] / total
        between = self.mean[b] - self.mean[a]
        c = len(self.into)
        self.into[a] = self.into[b] = c
        self.into.append(c)
        self.mean.append(self.mean[a] + share * between)
        self.varied.append((1 - share) * self.varied[a] + share * self.varied[b])
        one, other = self._looks(a), self._looks(b)
        near = self.same_look * (1 / one + 1 / other) / 2  # means of several looks are nearer to each other
        apart = float(between @ between)
        if apart <= near:  # the variance of tracks of one look is measured, not taken from photographs
            self.varied[c] += share * (1 - share) * apart
        looks = max(one, other) if apart <= near else one + other
        self.spread.append(self.varied[c] + self.photographs * (1 - 1 / looks))
        self.weight.append(total)
        self.founds.append(self.founds[a] or self.founds[b])
        self.owner.append(first)
        return c

    def _looks(self, cluster: int) -> float:
        """Return the number of looks that a cluster stands for, at least 1, from its spread."""
        return 1 / (1 - float(np.clip((self.spread[cluster] - self.varied[cluster]) / self.photographs, 0, 0.999)))

    def _graph(self, alive: list[int]) -> tuple[dict[int, set[int]], list[tuple[float, int, int]]]:
        """Return the neighbours of each living cluster, and a heap of (squared distance, a, b) within the limit."""
        neighbours: dict[int, set[int]] = {k: set() for k in alive}
        mean = np.array([self.mean[k] for k in alive], np.float32)
        spread = np.array([self.spread[k] for k in alive])
        most = int(np.clip(PAIRS // len(alive), LEAST_NEIGHBOURS, MOST_NEIGHBOURS))
        heap = []
        for row, near, squared in near_pairs(mean, spread, self.limit, most):
            for k, j, value in zip(row.tolist(), near.tolist(), squared.tolist(), strict=True):
                a, b = alive[k], alive[j]
                if b not in neighbours[a]:
                    neighbours[a].add(b)
                    neighbours[b].add(a)
                    heap.append((value, min(a, b), max(a, b)))
        heapq.heapify(heap)
        return neighbours, heap


def near_pairs(mean: Float32, spread: Floats, limit: float, most: int) -> Iterator[tuple[Ints, Ints, Floats]]:
    """Yield rows, other rows and their average squared distances that are at most `limit`, as arrays of one length.

    Yields the `most` nearest of each row, one block of the matrix at a time.
    """
    length = np.einsum("ij,ij->i", mean, mean) + spread.astype(np.float32)
    block = max(1, BLOCK_VALUES // max(1, len(mean)))
    for start in range(0, len(mean), block):
        rows = slice(start, min(start + block, len(mean)))
        squared = mean[rows] @ mean.T
        squared *= -2
        squared += length[rows, None]
        squared += length[None]
        squared[np.arange(squared.shape[0]), np.arange(rows.start, rows.stop)] = np.inf
        near = squared <= limit
        if np.count_nonzero(near) > 2 * most * len(near):  # a crowd of one face: most are dropped below
            near &= squared <= np.partition(squared, most - 1, axis=1)[:, most - 1, None]
        at, column = np.nonzero(near)
        values = squared[at, column].astype(np.float64)
        order = np.lexsort((column, values, at))
        rank = np.arange(len(at)) - np.searchsorted(at, at)  # nonzero's rows ascend, and still do once ordered
        kept = order[rank < most]
        yield at[kept] + start, column[kept], values[kept]


@dataclass(frozen=True)
class Tracks:
    """Facts of the tracks of one input; n may be 0."""

    vector: Float32
    """float32 (n, d): robust mean of the better faces; NaN if no face of the track has an embedding."""
    spread: Floats
    """float64 (n,): mean squared distance of these faces from the vector, plus its uncertainty."""
    faces: Ints
    """int64 (n,): number of faces."""
    sure_faces: Ints
    """int64 (n,): faces of which the detector was sure."""
    founds: npt.NDArray[np.bool_]
    """bool (n,): true with two sure faces, or one of which the detector was very sure. Other tracks may be false
    detections of a moment."""
    certain: npt.NDArray[np.bool_]
    """bool (n,): true with a face of which the detector was very sure."""
    seen: Ints
    """int64 (m, 2): a moment's number and a track seen in it (see `together`)."""

    @property
    def weight(self) -> Floats:
        return np.clip(self.sure_faces + 0.1, 0.1, MOST_WEIGHT)


USED_FACES = 16
"""Most faces that a track's vector is made of: its best."""
BETTER_SHARE = 0.7
"""Share of the best face's quality below which a face does not count: a profile says little beside a frontal view."""
DROPPED_SHARE = 1.5
"""Multiple of the usual distance in a track. A face that is farther from the others (a hand, a blur) does not count."""


def certainty(landmarks: npt.NDArray[Any] | None, confidence: npt.NDArray[Any] | None, count: int) -> Floats:
    """Return float64 (count,), 0 to 1: how well each face shows its person, whatever its size: sure, and frontal."""
    score = np.ones(count)
    if confidence is not None:
        score = score * np.clip(confidence.astype(np.float64), 0.01, 1) ** 4
    return score if landmarks is None else score * frontality(landmarks)


def quality(box: npt.NDArray[Any], landmarks: npt.NDArray[Any] | None, confidence: npt.NDArray[Any] | None) -> Floats:
    """Return float64 (n,), 0 to 1: how well a face can be recognised: sure, large enough, frontal."""
    size = np.sqrt(np.clip(box[:, 2:].astype(np.float64).prod(-1), 0, None))
    score: Floats = np.clip(size / 100, 0.1, 1.0) * certainty(landmarks, confidence, len(box))
    return score


def best_rows(track: npt.NDArray[np.int32], score: Floats, most: int = USED_FACES) -> Ints:
    """Return the rows (int64, ascending) of the `most` best faces of each track, without rows that have no track."""
    order = np.lexsort((-score, track))
    order = order[track[order] >= 0]
    ordered = track[order]
    start = np.searchsorted(ordered, ordered, side="left")
    return np.sort(order[np.arange(len(order)) - start < most])


def together(track: npt.NDArray[np.int32], n_faces: npt.NDArray[np.int32]) -> Ints:
    """Return int64 (m, 2): the number of a moment, from 0, and a track with a face in it.

    A moment is a frame, or several with the same two or more tracks. Pairs of tracks would be the square of that.
    """
    found, count_before = [np.empty((0, 2), np.int64)], 0
    starts = np.concatenate([[0], np.cumsum(n_faces, dtype=np.int64)])
    for count in np.unique(n_faces[n_faces > 1]).tolist():
        frames = np.flatnonzero(n_faces == count)
        tracks = np.unique(np.sort(track[starts[frames][:, None] + np.arange(count)], axis=1), axis=0)
        tracks = tracks[(tracks >= 0).sum(axis=1) > 1]
        moment, column = np.nonzero(tracks >= 0)
        found.append(np.stack([count_before + moment, tracks[moment, column]], axis=1))
        count_before += len(tracks)
    return np.concatenate(found)


def better_faces(vectors: npt.NDArray[Any], score: Floats) -> Ints:
    """Return the rows (int64) of the faces that speak for a track: of good quality, and not far from the others."""
    rows = np.flatnonzero(score >= BETTER_SHARE * score.max())
    if len(rows) > 2:
        away = np.linalg.norm(vectors[rows] - np.median(vectors[rows], axis=0), axis=1)
        rows = rows[away <= DROPPED_SHARE * max(float(np.median(away)), 1e-9)]
    return rows


def describe(vectors: Float32, score: Floats, certain: Floats, unsure_spread: float) -> tuple[Float32, float]:
    """Return the robust mean of a track's better faces, float32 (d,), and its spread.

    The spread is their mean squared distance from the mean. It grows by up to `unsure_spread` if even these faces say
    little about their person: profiles and blurs look alike.

    `vectors`: float32 (n, d), finite, n at least 1; `score` and `certain` float64 (n,): quality above 0, `certainty`.
    """
    kept = better_faces(vectors, score)
    vectors, score, certain = vectors[kept], score[kept], certain[kept]
    mean = np.average(vectors, axis=0, weights=score)
    squared = ((vectors - mean) ** 2).sum(axis=1)
    unsure = unsure_spread * (1 - float(np.average(certain, weights=score)))
    return mean.astype(np.float32), float(np.average(squared, weights=score)) + unsure

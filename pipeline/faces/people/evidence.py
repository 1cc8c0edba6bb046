"""The person that a track shows: all its faces together, against all pictures of each known person.

The faces of a track are averaged, and so are the pictures of a person. A mean is nearer to strangers too, so a fixed
threshold cannot be right. The limit follows from how often a stranger comes as near:

    limit = base + per_residual * (residual of the track + residual of the person) - per_decade * log10(people)

`residual` is the share of one photograph's deviation that is left in a mean. It is 1 for a single face, and 1/n for n
photographs of different days. For a hundred frames of one pose it is near 1, because they all deviate alike. It is read
off the faces themselves: what varies among them is averaged out, what they share is not.

A stranger's track is named if any of the people is near enough, so the limit falls with their number. A tenth of the
strangers takes the same step as ten times the people, so one line gives the limits of all levels.

Distances here are half of a squared Euclidean distance; for vectors of length 1 that is the cosine distance. Such
distances grow with variances by plain addition, which is why the limit is linear.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.faces.models.recognisers.thresholds import thresholds
from pipeline.faces.people.clustering import better_faces
from pipeline.faces.people.described import face_quality, faces_of_tracks
from pipeline.faces.people.matching import Metric
from pipeline.store.read import RunInput

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Level(IntEnum):
    """Certainty of a name, by the share of strangers' tracks that would get one as well."""

    NONE = 0
    """All people of the gallery are too far."""
    WEAK = 1
    """Up to 10% of strangers, or two people are about as near: a question for the user, not an answer."""
    LIKELY = 2
    """Up to 1%."""
    SURE = 3
    """Up to 0.1%."""


LEVELS = tuple(level.name.lower() for level in Level)
"""Names of the levels, by their numbers."""
STRANGERS = {Level.SURE: 0.001, Level.LIKELY: 0.01, Level.WEAK: 0.1}
"""Share of strangers' tracks that get a name of this level or a higher one, by design."""
MARGIN = 0.1
"""Share of the limit by which the nearest person must be nearer than the next; else the name is weak."""
SAME_SCENE = 0.3
"""Share of the limit. A track that is so near to a person shows the very scene of the gallery's picture. Everyone of
that scene is then nearer to the picture than to pictures of other days, by its light, its lens and its noise."""
OTHERS_OF_SCENE = 0.5
"""Share of the limit that holds for the other tracks of such an input, and of inputs like it, for this person. With
pictures from one clip of each of three signers before one camera, they themselves are at 0.10 to 0.30 in other clips.
The others are at 0.60 to 0.97."""


@dataclass(frozen=True)
class Calibration:
    """The line of the limit, as measured by `make strangers` on faces of many people."""

    base: float
    """Limit for a gallery of one, without any deviation, at 1% of strangers."""
    per_residual: float
    per_decade: float
    """Decrease of the limit for ten times as many people."""
    spread: float
    """Mean squared distance of one person's photographs from their mean."""

    def limit(self, people: int, residual: Floats | float, level: Level = Level.LIKELY) -> Floats:
        """Return the largest distance of a level, for a gallery of `people`; `residual` is the sum of both sides'."""
        tenfold = np.log10(max(1, people) * STRANGERS[Level.LIKELY] / STRANGERS[level])
        return np.asarray(self.base + self.per_residual * np.asarray(residual) - self.per_decade * tenfold)

    def scaled(self, factor: float) -> Calibration:
        return Calibration(*(factor * value for value in (self.base, self.per_residual, self.per_decade, self.spread)))


UNIT = Calibration(0.0520, 0.0151, 0.0136, 0.0474)
RAW = Calibration(0.1060, 0.0320, 0.0310, 0.0984)
LINES = {
    "native": (UNIT, RAW),
    "two_views": (Calibration(0.0534, 0.0132, 0.0134, 0.0417), RAW.scaled((0.583 / 0.6) ** 2)),
}
"""Lines of mtcnn and Dlib by alignment, for vectors of length 1 and for vectors as they are (`make strangers`).

The bases are 0.0025 and 0.006 lower than the fitted ones: the share of strangers differs from gallery to gallery. For
two_views' vectors as they are, native's line in proportion names more known people than one of their own so lowered."""


def calibration(metric: Metric, threshold: float, align: str = "native") -> Calibration:
    """Return the calibration of a model by its own threshold for two single faces.

    It is measured for Dlib alone. Other models, and other alignments, get the line of native chips in proportion, as
    their thresholds are.
    """
    align = align if align in LINES else "native"
    known = LINES[align][metric == "euclidean"]
    return known.scaled(float(halved(metric, threshold) / halved(metric, thresholds("Dlib", align)[metric])))


def halved(metric: Metric, distance: Floats | float) -> Floats:
    """Return the half of the squared Euclidean distance, from a distance by a metric's own formula."""
    value = np.asarray(distance, np.float64)
    if metric == "cosine":
        return value
    return np.asarray(1 - np.cos(np.pi * value) if metric == "angular" else value**2 / 2)


def by_metric(metric: Metric, half: Floats | float) -> Floats:
    """Return a distance by a metric's own formula, from the half of a squared Euclidean distance."""
    value = np.maximum(np.asarray(half, np.float64), 0.0)
    if metric == "cosine":
        return value
    if metric == "angular":
        return np.asarray(np.arccos(np.clip(1 - value, -1.0, 1.0)) / np.pi)
    return np.asarray(np.sqrt(2 * value))


@dataclass(frozen=True)
class Means:
    """Means of several faces each: those of tracks, or of people."""

    vector: Floats
    """float64 (n, d); NaN if no face has an embedding. Of length 1, but for the metric `euclidean`."""
    residual: Floats
    """float64 (n,), 0 to 1."""


def projected(embedding: npt.NDArray[Any], metric: Metric) -> Floats:
    """Return float64 (n, d): embeddings as they are compared; NaN for one that has no direction."""
    vectors = np.asarray(embedding, np.float64)
    if metric == "euclidean":
        return vectors
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def averaged(vectors: Floats, weights: Floats, spread: float, metric: Metric) -> tuple[Floats, float]:
    """Return the mean of some faces of one person, (d,), and its residual.

    `vectors` (n, d) are those of `projected`, finite; `spread` as in `Calibration`.
    """
    mean = np.average(vectors, axis=0, weights=weights)
    varies = float(np.average(((vectors - mean) ** 2).sum(axis=1), weights=weights))
    return projected(mean[None], metric)[0], float(np.clip(1 - varies / spread, 1 / len(vectors), 1))


def people_means(embedding: npt.NDArray[Any], person: Ints, known: Calibration, metric: Metric) -> Means:
    """Return the means of a gallery's people. `person` int64 (rows,): the person of each row, from 0."""
    order = np.argsort(person, kind="stable")
    parts = np.split(projected(embedding, metric)[order], np.flatnonzero(np.diff(person[order])) + 1)
    found = [averaged(rows, np.ones(len(rows)), known.spread, metric) for rows in parts]
    return Means(np.array([vector for vector, _ in found]), np.array([residual for _, residual in found]))


def track_means(
    item: RunInput, track: npt.NDArray[np.int32], known: Calibration, metric: Metric, score: Floats | None = None
) -> Means:
    """Return the means of an input's tracks, each of its better faces, in bounded memory.

    `score` (n_faces,): quality of the faces, if it is known; faces of no track may have any.
    """
    score = face_quality(item)[0] if score is None else score
    count = int(track.max(initial=-1)) + 1
    vector, residual = np.full((count, item.arrays["embedding"].shape[0]), np.nan), np.ones(count)
    for number, rows, vectors in faces_of_tracks(item, track, score, lambda read: projected(read, metric)):
        some = better_faces(vectors, score[rows])
        vector[number], residual[number] = averaged(vectors[some], score[rows[some]], known.spread, metric)
    return Means(vector, residual)


def nearest_rows(
    tracks: Means, person: Ints, embedding: npt.NDArray[Any], of_person: Ints, metric: Metric
) -> Ints:
    """Return int64 (tracks,): of the rows of each track's person in a gallery, the nearest; -1 without a person."""
    vectors = projected(embedding, metric)
    found = np.full(len(person), -1, np.int64)
    for one in np.unique(person[person >= 0]):
        rows, mine = np.flatnonzero(of_person == one), np.flatnonzero(person == one)
        found[mine] = rows[_distances(tracks.vector[mine], vectors[rows]).argmin(axis=1)]
    return found


@dataclass(frozen=True)
class Verdicts:
    """The nearest person of each track."""

    person: Ints
    """int64 (tracks,); -1 if the track has no embedding."""
    distance: Floats
    """float64 (tracks,), half-squared; NaN if the track has no embedding."""
    limit: Floats
    """float64 (tracks,): the largest distance that would be likely."""
    level: npt.NDArray[np.int8]
    """int8 (tracks,): of `Level`."""


def judge(
    tracks: Means, people: Means, known: Calibration, threshold: float | None = None, scene: Ints | None = None,
    among: int | None = None,
) -> Verdicts:  # fmt: skip
    """Return the nearest person of each track, and how sure that is.

    Nearest is who is farthest within their own limit. `threshold` (half-squared) replaces the likely limit for all, and
    the weak one. `scene` int64 (tracks,): tracks of one scene have one number; None: all are of one. `among`: number of
    people that a stranger meets, if they are judged one after another. The memory is bounded.
    """
    count, n_people = len(tracks.vector), len(people.vector)
    n_met = among or n_people
    person = np.full(count, -1, np.int64)
    distance, limit, measured, second = (np.full(count, np.nan) for _ in range(4))
    for rows in _blocks(np.flatnonzero(np.isfinite(tracks.vector).all(axis=1)), n_people):
        apart = _distances(tracks.vector[rows], people.vector)
        own = known.limit(n_met, tracks.residual[rows, None] + people.residual)
        likely = own if threshold is None else np.full_like(own, threshold)
        beyond = apart - likely
        at, first = np.arange(len(rows)), beyond.argmin(axis=1)
        person[rows], distance[rows] = first, apart[at, first]
        limit[rows], measured[rows] = likely[at, first], own[at, first]
        beyond[at, first] = np.inf
        second[rows] = beyond.min(axis=1)
    has = person >= 0
    likeliest = known.limit(n_met, 0.0)
    limits = {one: measured + known.limit(n_met, 0.0, one) - likeliest for one in (Level.WEAK, Level.SURE)}
    if threshold is not None:  # the user's word: what is beyond it is no question either
        limits = {Level.WEAK: limit, Level.SURE: np.minimum(limit, limits[Level.SURE])}
    level = np.zeros(count, np.int8)
    for one, most in ((Level.WEAK, limits[Level.WEAK]), (Level.LIKELY, limit), (Level.SURE, limits[Level.SURE])):
        level[has & (distance <= most)] = one
    asked = has & (second <= 0) & (second - (distance - limit) < MARGIN * limit)
    if threshold is None:
        place = person[has] if scene is None else scene[has] * n_people + person[has]
        _, which = np.unique(place, return_inverse=True)
        nearest = np.full(which.max(initial=-1) + 1, np.inf)
        np.minimum.at(nearest, which, distance[has] / limit[has])
        asked[has] |= (nearest[which] <= SAME_SCENE) & (distance[has] > OTHERS_OF_SCENE * limit[has])
    level[asked] = np.minimum(level[asked], Level.WEAK)
    return Verdicts(person, distance, limit, level)


def _blocks(rows: Ints, n_people: int) -> list[Ints]:
    """Return rows in parts whose distances to all people fit in some 32 MB."""
    return np.array_split(rows, -(-len(rows) * n_people // (1 << 22))) if len(rows) and n_people else []


def _distances(left: Floats, right: Floats) -> Floats:
    """Return half of the squared distances, float64 (n, m)."""
    squares = np.einsum("ij,ij->i", left, left)[:, None] + np.einsum("ij,ij->i", right, right)
    return np.asarray(np.maximum(squares / 2 - left @ right.T, 0.0))

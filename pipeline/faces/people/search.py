"""`reelgraph find --face`: a person without a name, in any number of stores.

Every stored face is compared, or an index names those to compare. The tracks of near faces are then judged as
`find --gallery` judges them, for a gallery of one person.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from pipeline.errors import UsageError
from pipeline.faces.people import evidence
from pipeline.faces.people.described import face_quality
from pipeline.faces.people.evidence import Calibration, Level, Means
from pipeline.faces.people.find import Evidence, calibration_of, scenes_of, tracks_of
from pipeline.faces.people.matching import DECIMALS, Matcher, Metric, Per, checked_metric
from pipeline.faces.people.near import NearSearch, threshold_of
from pipeline.faces.people.pictures import Recipe
from pipeline.faces.people.question import Asked, Question, ask
from pipeline.faces.people.sightings import InputSightings, Shot, Sighting, shot_dict, shown_dict
from pipeline.machine.cores import available_cores
from pipeline.media.spans import is_timed
from pipeline.store.pieces import Piece, for_each, rows_of, whole

if TYPE_CHECKING:
    from pipeline.faces.people.index import FaceIndex
    from pipeline.store.read import Run, RunInput

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

TOP = 10
"""Best shots that are listed by default."""
_ROWS_AT_ONCE = 1 << 16
"""Faces whose vectors are compared together: 32 MB of 128 components."""
_MARGIN = 1e-5
"""Largest error of a product of unit vectors in float32, with a margin: faces that pass are computed in float64."""


@dataclass(frozen=True)
class BestShot:
    """One face that looks like the wanted one."""

    out: str
    input: str
    video: str
    shot: Shot
    level: Level
    """Certainty of its track; of the face itself with `per` face."""

    @property
    def accepted(self) -> bool:
        """True if it counts as that person."""
        return self.level >= Level.LIKELY

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        where = {"out": self.out, "input": self.input, "video": self.video}
        return {**where, **shot_dict(self.shot), "level": self.level.name.lower(), "accepted": self.accepted}


def search(
    outs: Sequence[str | Path],
    faces: Sequence[Question],
    *,
    metric: str = "cosine",
    threshold: float | None = None,
    per: Per = "track",
    top: int = TOP,
    model: str | None = None,
    index: FaceIndex | None = None,
    looked: Callable[[int], None] = lambda faces: None,
    note: Callable[[str], None] = lambda text: None,
) -> Answer:
    """Find one person, asked for by one or several faces, in stores.

    With `per` track, all faces of a track are judged together, against all faces that are asked for. These count each
    alone if they do not look like one person. With `per` face, each face is judged alone, by the nearest of those asked
    for. `threshold`: largest distance, of a track or of a face; None: the limits of `evidence`, or the model's own. An
    `index` nominates faces of the inputs that it holds unchanged; their distances are exact. Other inputs are
    searched exactly. `looked` gets the number of faces looked at so far, `note` gets lines for the user. Raises
    ReelgraphError if a face, or every store, is unusable.
    """
    if not faces:
        raise UsageError("no face is asked for; name a picture: --face FILE")
    if top < 1:
        raise UsageError(f"top must be at least 1, not {top}")
    job = Answer(
        metric=checked_metric(metric), threshold=threshold, model=model, looked=looked, note=note,
        questions=tuple(faces), top=top, index=index, per=per,
    )  # fmt: skip
    job.through(outs)
    job.finish()
    return job


@contextlib.contextmanager
def timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    """Add the seconds of the block to those of a step."""
    began = time.perf_counter()
    yield
    seconds[step] = seconds.get(step, 0.0) + time.perf_counter() - began


@dataclass
class Hits:
    """Faces of one input, by row ascending."""

    rows: npt.NDArray[np.int64]
    distance: npt.NDArray[np.float64]


@dataclass
class Query:
    """The vectors to be near to, and how near."""

    embedding: npt.NDArray[np.float32]
    """float32 (q, d); the nearest counts."""
    metric: Metric
    threshold: float
    top: int

    def __post_init__(self) -> None:
        self.exact = Matcher(self.embedding, self.metric)
        vectors = self.embedding.astype(np.float64)
        if self.metric != "euclidean":
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-10
        self.vectors = vectors.astype(np.float32)
        self.squares = (vectors**2).sum(axis=1)

    def block(self, start: int, faces: npt.NDArray[np.float32]) -> Hits:
        """Return all faces of a block that are near enough; if these are fewer than `top`, the `top` nearest.

        One product in float32 finds the faces that may be near enough; their distances are then DeepFace's. A rough
        value grows with the distance: 1 - cosine, or the squared distance. `slack` is its largest error.
        """
        slack: Any = _MARGIN
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            products = (faces @ self.vectors.T).astype(np.float64)
            squares = np.einsum("ij,ij->i", faces, faces).astype(np.float64)
            if self.metric == "euclidean":
                rough = (squares[:, None] + self.squares - 2 * products).min(axis=1)
                slack = _MARGIN * (squares + self.squares.max())
            else:
                rough = 1 - products.max(axis=1) / np.sqrt(squares)
        finite = np.isfinite(rough)
        rough[~finite] = np.inf
        near = rough <= self.limit() + slack
        if near.sum() < self.top:
            some = min(self.top, len(rough))
            near[np.argpartition(rough, some - 1)[:some]] = True
        rows = np.flatnonzero(near & finite)
        return Hits(start + rows, self.distances(faces[rows]))

    def distances(self, faces: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return float64 (n,): the distance of each face to the nearest of the vectors."""
        return self.exact.distances(faces).min(axis=1) if len(faces) else np.empty(0)

    def limit(self) -> float:
        """Return the threshold, plus a rounding, on the scale of the rough values of `block`."""
        threshold = self.threshold + 10.0**-DECIMALS
        if self.metric == "cosine":
            return threshold
        if self.metric == "angular":
            return 1 - float(np.cos(np.pi * min(threshold, 1.0)))
        return threshold**2 / 2 if self.metric == "euclidean_l2" else threshold**2


def nearest_in(
    pieces: Sequence[Piece], query: Query, n_threads: int, looked: Callable[[int], None] = lambda faces: None
) -> Hits:
    """Return all rows of an array of embeddings that are near enough, or at least the `top` nearest.

    It reads a piece at a time, and `looked` gets the number of rows of each.
    """
    rows, distances = [np.empty(0, np.int64)], [np.empty(0)]
    for piece, hits in for_each(pieces, lambda piece, faces: query.block(piece.start, faces), n_threads):
        rows.append(hits.rows)
        distances.append(hits.distance)
        looked(piece.stop - piece.start)
    row, distance = np.concatenate(rows), np.concatenate(distances)
    kept = np.flatnonzero(distance <= query.threshold)
    if len(kept) < query.top:
        kept = np.sort(np.argsort(distance, kind="stable")[: query.top])
    return Hits(row[kept], distance[kept])


@dataclass(frozen=True)
class Seen:
    """Sighting of the wanted person, or of a person to look at, with its evidence."""

    sighting: Sighting
    evidence: Evidence

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return self.sighting.as_dict() | self.evidence.as_dict()


@dataclass
class Judged:
    """The near faces of one input, and the faces of their tracks."""

    times: InputSightings
    near: Hits
    rows: Ints
    """int64 (n,), ascending: all faces of the tracks that were judged."""
    distance: Floats
    """float64 (n,): distance of each face alone."""
    level: npt.NDArray[np.int8]
    """int8 (n,): certainty of each face's track."""
    track_distance: Floats
    """float64 (n,): distance of each face's track."""
    limit: Floats
    """float64 (n,): largest distance that is likely for that track."""
    track_of: npt.NDArray[np.int32] | None
    """int32 (n_faces,): the tracks, if there are some."""

    def nearer(self, metric: Metric, share: float) -> npt.NDArray[np.bool_]:
        """Return whether the track of each face is nearer than a share of its limit."""
        distance, limit = evidence.halved(metric, self.track_distance), evidence.halved(metric, self.limit)
        return np.asarray(distance <= share * limit)


@dataclass(kw_only=True)
class Answer(NearSearch):
    """A search for one person by pictures, and its result."""

    unstarted: ClassVar[dict[str, Any]] = {"how": "exact"}
    questions: tuple[Question, ...]
    top: int
    index: FaceIndex | None
    per: Per = "track"
    sightings: list[Seen] = field(default_factory=list)
    """One per input in which the person was seen: sure ones first, then the longest on screen."""
    maybe: list[Seen] = field(default_factory=list)
    """One per input with tracks that may show the person: for the user to look at."""
    best: list[BestShot] = field(default_factory=list)
    """The nearest face of each appearance: of those seen, then of those to look at, nearest first. If there are none,
    the nearest faces there are."""
    asked: dict[str, tuple[Asked, ...]] = field(default_factory=dict)
    """Faces by the recipe that they were found and embedded by."""
    judged: list[Judged] = field(default_factory=list)
    widest: float = 0.0
    """Distance within which a face calls for a look at its track; 0 with `per` face."""
    seconds: dict[str, float] = field(default_factory=lambda: {"ask": 0.0, "search": 0.0})
    """`ask`: finding and embedding the face; `search`: everything after."""
    embedding_bytes: int = 0
    """Size of the embeddings that were read."""

    @contextlib.contextmanager
    def opened(self, out: str, run: Run, recipe: Recipe) -> Iterator[None]:
        if recipe.key not in self.asked:
            with timed(self.seconds, "ask"):
                self.asked[recipe.key] = tuple(ask(question, recipe) for question in self.questions)
            for text in (text for one in self.asked[recipe.key] for text in one.notes):
                self.tell(text)
        with timed(self.seconds, "search"):
            yield

    def search(self, out: str, item: RunInput, recipe: Recipe) -> tuple[int, dict[str, Any]]:
        vectors = np.stack([one.embedding for one in self.asked[recipe.key]])
        known = calibration_of(item, self.metric, self.threshold) if self.per == "track" else None
        threshold = threshold_of(item, self.metric, self.threshold) if known is None else self._widest(known)
        self.widest = max(self.widest, 0.0 if known is None else threshold)
        query = Query(vectors, self.metric, threshold, self.top)
        pieces = item.pieces("embedding")
        n_faces = pieces[-1].stop if pieces else 0
        hits = None
        if self.index is not None:
            hits, reason = self.index.lookup(item, query)
            if hits is None:
                self.tell(f"{out}, {item.name}: {reason}; searched exactly")
        how = "exact" if hits is None else "index"
        if hits is None:
            hits = nearest_in(pieces, query, available_cores(), self.look)
            self.embedding_bytes += n_faces * vectors.shape[1] * vectors.itemsize
        if len(hits.rows):
            times = InputSightings(item, out)
            near = hits.distance <= threshold
            if known is None:
                level = np.where(near, Level.LIKELY, Level.NONE).astype(np.int8)
                limit = np.full(len(near), threshold)
                judged = Judged(times, hits, hits.rows, hits.distance, level, hits.distance, limit, None)
            else:
                judged = self._judged(times, query, hits, hits.rows[near], known)
            self.judged.append(judged)
        return n_faces, {"threshold": self.threshold if known is not None else threshold, "how": how}

    def _widest(self, known: Calibration) -> float:
        """Return the distance within which a face calls for a look at its track."""
        widest = float(evidence.by_metric(self.metric, known.limit(1, 2.0, Level.WEAK)))
        return widest if self.threshold is None else max(widest, self.threshold)

    def _judged(
        self, times: InputSightings, query: Query, hits: Hits, near: Ints, known: Calibration
    ) -> Judged:
        """Return the verdicts on the tracks of the near faces."""
        item, metric = times.item, self.metric
        none = np.empty(0, np.int64)
        if not len(near):
            return Judged(times, hits, none, np.empty(0), none.astype(np.int8), np.empty(0), np.empty(0), None)
        stored = tracks_near(item, near)
        wanted = np.unique(stored[near])
        rows = np.flatnonzero(np.isin(stored, wanted[wanted >= 0]))
        track = np.full(len(stored), -1, np.int32)
        track[rows] = np.searchsorted(wanted[wanted >= 0], stored[rows])
        score = np.zeros(len(track))
        if len(rows):
            score[rows] = face_quality(item, rows)[0]
        means = evidence.track_means(item, track, known, metric, score)
        people = self._people(query.embedding, known)
        threshold = None if self.threshold is None else float(evidence.halved(metric, self.threshold))
        scene = scenes_of(item, track)
        found = [evidence.judge(means, one, known, threshold, scene, among=len(people)) for one in people]
        best = np.array([one.limit - one.distance for one in found]).argmax(axis=0)  # NaN, if any, in all of them
        at = track[rows], best[track[rows]]
        level, distance, limit = (
            np.stack([getattr(one, name) for one in found], axis=1)[at] for name in ("level", "distance", "limit")
        )
        distance, limit = (evidence.by_metric(metric, one) for one in (distance, limit))
        return Judged(times, hits, rows, _distances(item, rows, query), level, distance, limit, track)

    def _people(self, embedding: npt.NDArray[np.float32], known: Calibration) -> list[Means]:
        """Return the mean of all faces that are asked for; each alone if one is too far from the others."""
        def mean(some: npt.NDArray[Any]) -> Means:
            return evidence.people_means(some, np.zeros(len(some), np.int64), known, self.metric)

        for k in range(len(embedding) if len(embedding) > 1 else 0):
            one, others = mean(embedding[k : k + 1]), mean(np.delete(embedding, k, axis=0))
            if evidence.judge(one, others, known).level[0] < Level.WEAK:
                self.tell("the faces that are asked for do not look like one person; each is looked for alone")
                return [mean(embedding[k : k + 1]) for k in range(len(embedding))]
        return [mean(embedding)]

    def finish(self) -> None:
        """Rank the sightings of all inputs."""
        self.require_some()
        with timed(self.seconds, "search"):
            if self.per == "track" and self.threshold is None:
                self._ask_in_scenes()
            ranked: list[tuple[bool, float, BestShot]] = []
            for one in self.judged:
                for found, least in ((self.sightings, Level.LIKELY), (self.maybe, Level.WEAK)):
                    which = one.level >= least if least == Level.LIKELY else one.level == least
                    if not which.any():
                        continue
                    rows, distance, level = one.rows[which], one.distance[which], one.level[which]
                    (sighting,) = one.times.sightings([(None, rows, distance)], one.track_of)
                    found.append(Seen(sighting, _best_evidence(one, which)))
                    for shot in sighting.shots:
                        of_track = Level(int(level[np.searchsorted(rows, shot.face)]))
                        share = shot.distance / one.limit[which].max()
                        ranked.append((of_track < Level.LIKELY, share, _best(one.times, shot, of_track)))
            for found in (self.sightings, self.maybe):
                found.sort(key=lambda one: (-one.evidence.level, -one.sighting.screen_seconds, -one.sighting.pictures))
            self.best = [shot for _, _, shot in sorted(ranked, key=lambda entry: entry[:2])[: self.top]]
            if self.best:
                return
            # The nearest faces all the same: their distances show whether another threshold would help.
            nearest = sorted(
                (float(distance), k, int(row))
                for k, one in enumerate(self.judged)
                for row, distance in zip(one.near.rows, one.near.distance, strict=True)
            )
            for distance, k, row in nearest[: self.top]:
                times = self.judged[k].times
                (shot,) = times.shots(np.array([row]), np.array([distance]))
                self.best.append(_best(times, shot, Level.NONE))

    def _ask_in_scenes(self) -> None:
        """Make the names of all but the very near weak in inputs like one that a picture is of the scene of.

        Everyone of that scene is near to the picture. `evidence.judge` has done so within the input itself. A moment of
        a film is of that film's scene, though the film is in no store.
        """
        scene_of: dict[tuple[Any, ...], str] = {
            one.film_size: Path(one.question.path).stem
            for some in self.asked.values() for one in some if one.film_size is not None
        }  # fmt: skip
        films = [
            (one, tuple(one.times.item.attributes.get(side) for side in ("width", "height")))
            for one in self.judged if is_timed(one.times.item)
        ]  # fmt: skip
        for one, size in films:
            if one.nearer(self.metric, evidence.SAME_SCENE).any():
                scene_of.setdefault(size, one.times.item.name)
        told: dict[tuple[Any, ...], None] = {}
        for one, size in films:
            near = one.nearer(self.metric, evidence.OTHERS_OF_SCENE)
            if size in scene_of and not near.all():
                one.level = np.where(near, one.level, np.minimum(one.level, np.int8(Level.WEAK)))
                told[size] = None
        for size in told:
            self.tell(f"the picture is of the scene of {scene_of[size]}. Everyone in that light is near to it, so in "
                      "inputs of that frame size only very near faces count")  # fmt: skip

    @property
    def screen_seconds(self) -> float:
        return sum(one.sighting.screen_seconds for one in self.sightings)

    @property
    def pictures(self) -> int:
        return sum(one.sighting.pictures for one in self.sightings)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        asked = next(iter(self.asked.values()))  # by the settings of the first store
        return {
            "faces": [
                {"path": one.question.path, "time_seconds": one.question.time_seconds, "box": list(one.box)}
                for one in asked
            ],
            "per": self.per,
            **shown_dict(self.screen_seconds, self.pictures),
            "sightings": [one.as_dict() for one in self.sightings],
            "maybe": [one.as_dict() for one in self.maybe],
            "best": [one.as_dict() for one in self.best],
            "embedding_bytes": self.embedding_bytes,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            **super().as_dict(),
        }


def tracks_near(item: RunInput, rows: Ints) -> npt.NDArray[np.int32]:
    """Return int32 (n_faces,): the tracks of an input, at least those of some faces; -1 for other faces."""
    if "track" in item.arrays and item.complete:
        return np.asarray(whole(item.pieces("track")))
    if not item.complete or not is_timed(item):
        return tracks_of(item)
    from pipeline.faces.people.around import tracks_around

    return tracks_around(item, rows)


def _distances(item: RunInput, rows: Ints, query: Query) -> Floats:
    """Return float64 (rows,): the distance of each face to the nearest of the vectors, in bounded memory."""
    found = [np.empty(0)]
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        faces = rows_of(item.pieces("embedding"), rows[start : start + _ROWS_AT_ONCE], available_cores())
        assert faces is not None, "there are rows"
        found.append(query.distances(faces))
    return np.concatenate(found)


def _best_evidence(one: Judged, which: npt.NDArray[np.bool_]) -> Evidence:
    """Return the evidence of the best track among some faces: farthest within its limit, of the highest level."""
    rows = np.flatnonzero(which)
    best = rows[np.lexsort((one.track_distance[rows] - one.limit[rows], -one.level[rows]))[0]]
    return Evidence(Level(int(one.level[best])), float(one.track_distance[best]), float(one.limit[best]))


def _best(times: InputSightings, shot: Shot, level: Level) -> BestShot:
    return BestShot(times.out, times.item.name, times.video, shot, level)

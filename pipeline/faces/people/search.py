"""`reelgraph find --face`: a person without a name, in any number of stores; every stored face is compared."""

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
from pipeline.faces.people.matching import DECIMALS, Matcher, Metric, checked_metric
from pipeline.faces.people.near import NearSearch, threshold_of
from pipeline.faces.people.pictures import Recipe
from pipeline.faces.people.question import Asked, Question, ask
from pipeline.faces.people.sightings import InputSightings, Shot, Sighting, shot_dict, shown_dict
from pipeline.machine.cores import available_cores
from pipeline.store.pieces import Piece, for_each

if TYPE_CHECKING:
    from pipeline.faces.people.index import FaceIndex
    from pipeline.store.read import Run, RunInput

TOP = 10
"""Best shots that are listed by default."""
_MARGIN = 1e-5
"""Largest error of a product of unit vectors in float32, with a margin: faces that pass are computed in float64."""


@dataclass(frozen=True)
class BestShot:
    """One face that looks like the wanted one."""

    out: str
    input: str
    video: str
    shot: Shot
    accepted: bool
    """True if it is near enough to count as that person."""

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        where = {"out": self.out, "input": self.input, "video": self.video}
        return {**where, **shot_dict(self.shot), "accepted": self.accepted}


def search(
    outs: Sequence[str | Path],
    faces: Sequence[Question],
    *,
    metric: str = "cosine",
    threshold: float | None = None,
    top: int = TOP,
    model: str | None = None,
    index: FaceIndex | None = None,
    looked: Callable[[int], None] = lambda faces: None,
    note: Callable[[str], None] = lambda text: None,
) -> Answer:
    """Find one person, asked for by one or several faces (the nearest of them counts), in stores.

    An `index` nominates faces of the inputs that it holds unchanged; their distances are exact. Other inputs are
    searched exactly. `looked` gets the number of faces looked at so far, `note` gets lines for the user. Raises
    ReelgraphError if a face, or every store, is unusable.
    """
    if not faces:
        raise UsageError("no face is asked for; name a picture: --face FILE")
    if top < 1:
        raise UsageError(f"top must be at least 1, not {top}")
    job = Answer(
        metric=checked_metric(metric), threshold=threshold, model=model, looked=looked, note=note,
        questions=tuple(faces), top=top, index=index,
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


@dataclass(kw_only=True)
class Answer(NearSearch):
    """A search for one person by pictures, and its result."""

    unstarted: ClassVar[dict[str, Any]] = {"how": "exact"}
    questions: tuple[Question, ...]
    top: int
    index: FaceIndex | None
    sightings: list[Sighting] = field(default_factory=list)
    """One per input in which the person was seen, longest on screen first."""
    best: list[BestShot] = field(default_factory=list)
    """The nearest face of each appearance, nearest first; if no face is near enough, the nearest faces there are."""
    asked: dict[str, tuple[Asked, ...]] = field(default_factory=dict)
    """Faces by the recipe that they were found and embedded by."""
    hits: list[tuple[InputSightings, Query, Hits]] = field(default_factory=list)
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
        threshold = threshold_of(item, self.metric, self.threshold)
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
            self.hits.append((InputSightings(item, out), query, hits))
        return n_faces, {"threshold": threshold, "how": how}

    def finish(self) -> None:
        """Rank the hits of all inputs."""
        self.require_some()
        with timed(self.seconds, "search"):
            ranked: list[tuple[float, BestShot]] = []
            for times, query, hits in self.hits:
                accepted = hits.distance <= query.threshold
                if accepted.any():
                    (one,) = times.sightings([(None, hits.rows[accepted], hits.distance[accepted])])
                    self.sightings.append(one)
                    ranked += [(shot.distance / query.threshold, _best(times, shot, True)) for shot in one.shots]
            self.sightings.sort(key=lambda one: (-one.screen_seconds, -one.pictures))
            self.best = [shot for _, shot in sorted(ranked, key=lambda entry: entry[0])[: self.top]]
            if self.best:
                return
            # The nearest faces all the same: their distances show whether another threshold would help.
            nearest = sorted(
                (float(distance) / query.threshold, k, int(row), float(distance))
                for k, (_, query, hits) in enumerate(self.hits)
                for row, distance in zip(hits.rows, hits.distance, strict=True)
            )
            for _, k, row, distance in nearest[: self.top]:
                times = self.hits[k][0]
                (shot,) = times.shots(np.array([row]), np.array([distance]))
                self.best.append(_best(times, shot, False))

    @property
    def screen_seconds(self) -> float:
        return sum(one.screen_seconds for one in self.sightings)

    @property
    def pictures(self) -> int:
        return sum(one.pictures for one in self.sightings)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        asked = next(iter(self.asked.values()))  # by the settings of the first store
        return {
            "faces": [
                {"path": one.question.path, "time_seconds": one.question.time_seconds, "box": list(one.box)}
                for one in asked
            ],
            **shown_dict(self.screen_seconds, self.pictures),
            "sightings": [one.as_dict() for one in self.sightings],
            "best": [one.as_dict() for one in self.best],
            "embedding_bytes": self.embedding_bytes,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            **super().as_dict(),
        }


def _best(times: InputSightings, shot: Shot, accepted: bool) -> BestShot:
    return BestShot(times.out, times.item.name, times.video, shot, accepted)

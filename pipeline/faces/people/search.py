"""`reelgraph find --face`: somebody who was never named, in any number of stores; every stored face is looked at."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import UsageError
from pipeline.faces.people.matching import DECIMALS, Matcher, Metric, checked_metric
from pipeline.faces.people.near import NearSearch, Searched, done_share
from pipeline.faces.people.pictures import Recipe
from pipeline.faces.people.question import Asked, Question, ask
from pipeline.faces.people.sightings import FrameTimes, Shot, Sighting, shot_dict
from pipeline.machine.cores import available_cores
from pipeline.store.pieces import Piece, for_each

if TYPE_CHECKING:
    from pipeline.faces.people.index import FaceIndex
    from pipeline.store.read import Run, RunInput

TOP = 10
"""Best shots that are told by default."""
_MARGIN = 1e-5
"""What a product of unit vectors in float32 may be off by, with room: what passes is computed again in float64."""


@dataclass(frozen=True)
class Seen:
    """One face that looks like the one asked for."""

    out: str
    input: str
    video: str
    shot: Shot
    accepted: bool
    """Whether it is near enough to count as that person."""

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
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

    With an `index` what it holds unchanged is looked up there, and computed exactly for what that finds; the rest is
    searched exactly. `looked` is told of faces looked at so far, `note` gets lines for the user. Raises ReelgraphError
    where a face, or no store, can be used.
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


@dataclass
class Hits:
    """Faces of one input, by row ascending."""

    rows: npt.NDArray[np.int64]
    distance: npt.NDArray[np.float64]

    @classmethod
    def joined(cls, parts: Sequence[Hits]) -> Hits:
        return cls(
            np.concatenate([np.empty(0, np.int64), *(part.rows for part in parts)]),
            np.concatenate([np.empty(0), *(part.distance for part in parts)]),
        )

    def nearest(self, n: int) -> Hits:
        order = np.sort(np.argsort(self.distance, kind="stable")[:n])
        return Hits(self.rows[order], self.distance[order])


@dataclass
class Query:
    """Vectors to be near to, and how near."""

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
        """Of a block of faces all that are near enough and, where these are fewer, the `top` nearest.

        One product in float32 tells those that may be; their distances are then DeepFace's.
        """
        rough, slack = self._rough(faces)
        finite = np.isfinite(rough)
        rough[~finite] = np.inf
        near = rough <= self.limit() + slack
        if near.sum() < self.top:
            some = min(self.top, len(rough))
            near[np.argpartition(rough, some - 1)[:some]] = True
        rows = np.flatnonzero(near & finite)
        return Hits(start + rows, self.distances(faces[rows]))

    def distances(self, faces: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """float64 (n,): to the nearest of the vectors."""
        return self.exact.distances(faces).min(axis=1) if len(faces) else np.empty(0)

    def _rough(self, faces: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float64], Any]:
        """Something that grows with the distance, and what it may be off by: 1 - cosine, or the squared distance."""
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            products = (faces @ self.vectors.T).astype(np.float64)
            squares = np.einsum("ij,ij->i", faces, faces).astype(np.float64)
            if self.metric == "euclidean":
                rough = squares[:, None] + self.squares - 2 * products
                return rough.min(axis=1), _MARGIN * (squares + self.squares.max())
            return 1 - products.max(axis=1) / np.sqrt(squares), _MARGIN

    def limit(self) -> float:
        """The threshold, on the scale of `_rough`, and a rounding more."""
        threshold = self.threshold + 10.0**-DECIMALS
        if self.metric == "cosine":
            return threshold
        if self.metric == "angular":
            return 1 - float(np.cos(np.pi * min(threshold, 1.0)))
        return threshold**2 / 2 if self.metric == "euclidean_l2" else threshold**2


def nearest_in(
    pieces: Sequence[Piece], query: Query, n_threads: int, looked: Callable[[int], None] = lambda faces: None
) -> Hits:
    """Of an array of embeddings all rows that are near enough, or at least the `top` nearest; a piece at a time, and
    `looked` gets the rows of each."""
    found = []
    for piece, hits in for_each(pieces, lambda piece, faces: query.block(piece.start, faces), n_threads):
        found.append(hits)
        looked(piece.stop - piece.start)
    return _kept(Hits.joined(found), query)


def _kept(hits: Hits, query: Query) -> Hits:
    accepted = hits.distance <= query.threshold
    if accepted.sum() >= query.top:
        return Hits(hits.rows[accepted], hits.distance[accepted])
    return hits.nearest(max(query.top, int(accepted.sum())))


@dataclass(kw_only=True)
class Answer(NearSearch):
    """A search for one person by pictures, and what it found."""

    questions: tuple[Question, ...]
    top: int
    index: FaceIndex | None
    sightings: list[Sighting] = field(default_factory=list)
    """One per input where the person was seen, longest on screen first."""
    best: list[Seen] = field(default_factory=list)
    """The nearest face of each appearance, nearest first; if no face is near enough, the nearest faces there are."""
    asked: dict[str, tuple[Asked, ...]] = field(default_factory=dict)
    """Faces by the recipe that they were found and embedded by."""
    hits: list[tuple[FrameTimes, Query, Hits]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: {"ask": 0.0, "search": 0.0})
    """`ask`: finding and embedding the face; `search`: everything after."""
    embedding_bytes: int = 0
    """Size of the embeddings that were read."""

    @contextlib.contextmanager
    def opened(self, out: str, run: Run, recipe: Recipe) -> Iterator[None]:
        if recipe.key not in self.asked:
            with self._timed("ask"):
                self.asked[recipe.key] = tuple(ask(question, recipe) for question in self.questions)
            for text in (text for one in self.asked[recipe.key] for text in one.notes):
                self.tell(text)
        with self._timed("search"):
            yield

    @contextlib.contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[step] += time.perf_counter() - began

    def unstarted(self, out: str, item: RunInput) -> Searched:
        return Searched(out, item.name, 0, 0.0, 0.0, how="exact")

    def search(self, out: str, item: RunInput, recipe: Recipe, threshold: float) -> Searched:
        vectors = np.stack([one.embedding for one in self.asked[recipe.key]])
        query = Query(vectors, self.metric, threshold, self.top)
        hits, done = item.retried(lambda: self._near(out, item, query))
        if done.how == "exact":
            self.embedding_bytes += done.faces * vectors.shape[1] * vectors.itemsize
        if len(hits.rows):
            self.hits.append((FrameTimes(item, out), query, hits))
        return done

    def _near(self, out: str, item: RunInput, query: Query) -> tuple[Hits, Searched]:
        pieces = item.pieces("embedding")
        n_faces = pieces[-1].stop if pieces else 0
        share = done_share(item)
        if self.index is not None:
            hits, reason = self.index.lookup(item, query)
            if hits is not None:
                return hits, Searched(out, item.name, n_faces, share, query.threshold, how="index")
            self.tell(f"{out}, {item.name}: {reason}; searched exactly")
        hits = nearest_in(pieces, query, available_cores(), self.look)
        return hits, Searched(out, item.name, n_faces, share, query.threshold, how="exact")

    def finish(self) -> None:
        """Rank what was found in all inputs."""
        self.require_some()
        with self._timed("search"):
            self.best = self._seen() or self._nearest()

    def _seen(self) -> list[Seen]:
        """Fill `sightings`; the best shots of them."""
        ranked: list[tuple[float, Seen]] = []
        for times, query, hits in self.hits:
            accepted = hits.distance <= query.threshold
            if not accepted.any():
                continue
            (one,) = times.sightings([(None, hits.rows[accepted], hits.distance[accepted])])
            self.sightings.append(one)
            ranked += [(shot.distance / query.threshold, _seen(times, shot, True)) for shot in one.shots]
        self.sightings.sort(key=lambda one: -one.screen_seconds)
        return [seen for _, seen in sorted(ranked, key=lambda entry: entry[0])[: self.top]]

    def _nearest(self) -> list[Seen]:
        """The nearest faces there are: how far off they lie tells whether another threshold would help."""
        ranked = sorted(
            (float(distance) / query.threshold, k, int(row), float(distance))
            for k, (_, query, hits) in enumerate(self.hits)
            for row, distance in zip(hits.rows, hits.distance, strict=True)
        )[: self.top]
        found = []
        for _, k, row, distance in ranked:
            times = self.hits[k][0]
            found += [_seen(times, shot, False) for shot in times.shots(np.array([row]), np.array([distance]))]
        return found

    @property
    def screen_seconds(self) -> float:
        return sum(one.screen_seconds for one in self.sightings)

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        asked = next(iter(self.asked.values()))  # by the settings of the first store
        return {
            "faces": [
                {"path": one.question.path, "time_seconds": one.question.time_seconds, "box": list(one.box)}
                for one in asked
            ],
            "screen_seconds": round(self.screen_seconds, 3),
            "sightings": [one.as_dict() for one in self.sightings],
            "best": [one.as_dict() for one in self.best],
            "embedding_bytes": self.embedding_bytes,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            **super().as_dict(),
        }


def _seen(times: FrameTimes, shot: Shot, accepted: bool) -> Seen:
    return Seen(times.out, times.item.name, times.video, shot, accepted)

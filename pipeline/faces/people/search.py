"""`reelgraph find --face`: somebody who was never named, in any number of stores; every stored face is looked at."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError, StoreError, UsageError
from pipeline.faces.people.find import threshold_of
from pipeline.faces.people.matching import DECIMALS, Matcher, Metric, checked_metric
from pipeline.faces.people.pictures import Recipe, open_searchable
from pipeline.faces.people.question import Asked, Question, ask
from pipeline.faces.people.sightings import FrameTimes, Shot, Sighting, shot_dict
from pipeline.machine.cores import available_cores
from pipeline.store.pieces import Piece, for_each
from pipeline.store.run import each_once

if TYPE_CHECKING:
    from pipeline.faces.people.index import FaceIndex
    from pipeline.store.read import RunInput

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


@dataclass(frozen=True)
class Reach:
    """One input, as far as it was searched."""

    out: str
    input: str
    faces: int
    share: float
    """Of its sampled frames, 0 to 1."""
    threshold: float
    how: str
    """"exact", or "index"."""


@dataclass(frozen=True)
class Answer:
    """What `find --face` says."""

    faces: tuple[Asked, ...]
    """What was asked for, by the settings of the first store."""
    metric: Metric
    sightings: tuple[Sighting, ...]
    """One per input where the person was seen, longest on screen first."""
    best: tuple[Seen, ...]
    """The nearest face of each appearance, nearest first; where nobody is near enough the nearest faces there are."""
    inputs: tuple[Reach, ...]
    embedding_bytes: int
    """Of the embeddings that were read."""
    seconds: dict[str, float]
    """`ask`: finding and embedding the face; `search`: everything after."""
    notes: tuple[str, ...]
    unusable: tuple[str, ...]
    """Stores and inputs that could not be searched, with the reason."""

    @property
    def exit_code(self) -> int:
        return 1 if self.unusable else 0

    @property
    def screen_seconds(self) -> float:
        return sum(one.screen_seconds for one in self.sightings)

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        asked = [
            {"path": one.question.path, "time_seconds": one.question.time_seconds, "box": list(one.box)}
            for one in self.faces
        ]
        return {
            "faces": asked,
            "metric": self.metric,
            "screen_seconds": round(self.screen_seconds, 3),
            "sightings": [one.as_dict() for one in self.sightings],
            "best": [one.as_dict() for one in self.best],
            "inputs": [vars(one) for one in self.inputs],
            "embedding_bytes": self.embedding_bytes,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "notes": list(self.notes),
            "unusable": list(self.unusable),
        }


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
    job = _Job(tuple(faces), checked_metric(metric), threshold, top, model, index, looked, note)
    for out in each_once(outs):
        job.store(out)
    return job.answer()


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


@dataclass
class _Job:
    questions: tuple[Question, ...]
    metric: Metric
    threshold: float | None
    top: int
    model: str | None
    index: FaceIndex | None
    looked: Callable[[int], None]
    note: Callable[[str], None]
    faces: int = 0
    """Looked at so far."""
    asked: dict[str, tuple[Asked, ...]] = field(default_factory=dict)
    found: list[tuple[FrameTimes, Query, Hits]] = field(default_factory=list)
    inputs: list[Reach] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: {"ask": 0.0, "search": 0.0})
    read: int = 0

    def tell(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
            self.note(text)

    def store(self, out: str | Path) -> None:
        try:
            run, recipe = open_searchable(out, self.model)
        except StoreError as err:
            self.unusable.append(str(err))
            return
        vectors = self._vectors(recipe)
        began = time.perf_counter()
        for item in run.inputs.values():
            try:
                self._input(str(out), item, vectors)
            except StoreError as err:  # damage to one film is no reason to say nothing of the others
                self.unusable.append(str(err))
        self.seconds["search"] += time.perf_counter() - began

    def _vectors(self, recipe: Recipe) -> npt.NDArray[np.float32]:
        if recipe.key not in self.asked:
            began = time.perf_counter()
            self.asked[recipe.key] = tuple(ask(question, recipe) for question in self.questions)
            self.seconds["ask"] += time.perf_counter() - began
            for one in self.asked[recipe.key]:
                for text in one.notes:
                    self.tell(text)
        return np.stack([one.embedding for one in self.asked[recipe.key]])

    def _input(self, out: str, item: RunInput, vectors: npt.NDArray[np.float32]) -> None:
        if "embedding" not in item.arrays:
            self.inputs.append(Reach(out, item.name, 0, 0.0, 0.0, "exact"))
            self.tell(f"{out}, {item.name}: nothing is done yet, nothing was searched")
            return
        query = Query(vectors, self.metric, threshold_of(item, self.metric, self.threshold), self.top)
        hits, reach = item.retried(lambda: self._hits(out, item, query))
        if reach.how == "exact":
            self.read += reach.faces * vectors.shape[1] * vectors.itemsize
        if reach.share < 1:
            self.tell(f"{out}, {item.name}: {reach.share:.0%} is done and was searched")
        self.inputs.append(reach)
        if len(hits.rows):
            self.found.append((FrameTimes(item, out), query, hits))

    def _hits(self, out: str, item: RunInput, query: Query) -> tuple[Hits, Reach]:
        pieces = item.pieces("embedding")
        n_faces = pieces[-1].stop if pieces else 0
        share = 1.0 if item.complete else len(item.array("n_faces")) / max(1, item.frames_total)
        if self.index is not None:
            hits, reason = self.index.lookup(item, query)
            if hits is not None:
                return hits, Reach(out, item.name, n_faces, share, query.threshold, "index")
            self.tell(f"{out}, {item.name}: {reason}; searched exactly")
        hits = nearest_in(pieces, query, available_cores(), self._look)
        return hits, Reach(out, item.name, n_faces, share, query.threshold, "exact")

    def _look(self, faces: int) -> None:
        self.faces += faces
        self.looked(self.faces)

    def answer(self) -> Answer:
        if not self.inputs:
            raise InputError(self.unusable[0] if self.unusable else "no store is named")
        for text in self.unusable:
            self.note(text)
        began = time.perf_counter()
        sightings, best = self._sightings()
        if not best:
            best = self._nearest()
        self.seconds["search"] += time.perf_counter() - began
        return Answer(
            next(iter(self.asked.values())), self.metric, tuple(sightings), tuple(best), tuple(self.inputs), self.read,
            self.seconds, tuple(self.notes), tuple(self.unusable),
        )  # fmt: skip

    def _sightings(self) -> tuple[list[Sighting], list[Seen]]:
        sightings: list[Sighting] = []
        ranked: list[tuple[float, Seen]] = []
        for times, query, hits in self.found:
            accepted = hits.distance <= query.threshold
            if not accepted.any():
                continue
            (one,) = times.sightings([(None, hits.rows[accepted], hits.distance[accepted])])
            sightings.append(one)
            for shot in one.shots:
                ranked.append((shot.distance / query.threshold, Seen(one.out, one.input, one.video, shot, True)))
        sightings.sort(key=lambda one: -one.screen_seconds)
        ranked.sort(key=lambda entry: entry[0])
        return sightings, [seen for _, seen in ranked[: self.top]]

    def _nearest(self) -> list[Seen]:
        """The nearest faces there are: how far off they lie tells whether another threshold would help."""
        ranked = sorted(
            (float(distance) / query.threshold, k, int(row), float(distance))
            for k, (_, query, hits) in enumerate(self.found)
            for row, distance in zip(hits.rows, hits.distance, strict=True)
        )[: self.top]
        found = []
        for _, k, row, distance in ranked:
            times = self.found[k][0]
            (shot,) = times.shots(np.array([row]), np.array([distance]))
            found.append(Seen(times.out, times.item.name, times.video, shot, False))
        return found

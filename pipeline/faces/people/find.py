"""`reelgraph find --gallery`: every stored face against known ones, over any number of stores, without decoding."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import StoreLockedError, UsageError
from pipeline.faces.people.gallery import Gallery, gallery_sha256, open_gallery, save
from pipeline.faces.people.matching import Matcher, Metric, Nearest, checked_metric
from pipeline.faces.people.near import NearSearch, Searched, Written, done_share
from pipeline.faces.people.pictures import Progress, Recipe
from pipeline.faces.people.sightings import FrameTimes, Sighting
from pipeline.machine.cores import available_cores
from pipeline.store.pieces import for_each, rows_of
from pipeline.store.schema import Array

if TYPE_CHECKING:
    from pipeline.store.read import Run, RunInput
    from pipeline.store.run import RunStore
    from pipeline.views.tables import Table

UNKNOWN = -1
STAGE = "identify"
"""What the store records a matching under."""


@dataclass(frozen=True)
class SeenPerson:
    """Everywhere a person of the gallery was seen."""

    name: str
    sightings: tuple[Sighting, ...]

    @property
    def faces(self) -> int:
        return sum(one.faces for one in self.sightings)

    @property
    def screen_seconds(self) -> float:
        return sum(one.screen_seconds for one in self.sightings)

    @property
    def best_distance(self) -> float:
        return min(one.best.distance for one in self.sightings)

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "name": self.name,
            "inputs": len(self.sightings),
            "faces": self.faces,
            "screen_seconds": round(self.screen_seconds, 3),
            "best_distance": round(self.best_distance, 6),
            "sightings": [one.as_dict() for one in self.sightings],
        }


@dataclass(frozen=True)
class Wanted:
    """What to look for."""

    gallery: str
    metric: Metric = "cosine"
    all_faces: bool = False

    def attributes(self, gallery: Gallery, threshold: float, embedding_key: str) -> dict[str, Any]:
        """Those of the array `identity`."""
        return {
            **self.signature(gallery.sha256, threshold, embedding_key),
            "description": "row of the gallery, -1 where nobody of it is near enough",
            "names": list(gallery.names),
            "pictures": list(gallery.pictures),
            "model": gallery.model,
            "align": gallery.align,
            "gallery": self.gallery,
            "notes": list(gallery.notes),
        }

    def signature(self, sha256: str, threshold: float, embedding_key: str) -> dict[str, Any]:
        """Equal where the arrays would be."""
        return {
            "metric": self.metric,
            "threshold": threshold,
            "all_faces": self.all_faces,
            "gallery_sha256": sha256,
            "embedding_key": embedding_key,
        }


def outputs(attributes: Mapping[str, Any] | None = None) -> tuple[Array, ...]:
    """The arrays of a matching."""
    described = "distance to the nearest row of the gallery, accepted or not; NaN where the face has no embedding"
    shared = {key: value for key, value in (attributes or {}).items() if key in ("metric", "threshold")}
    return (
        Array("identity", ("face",), "int32", (), dict(attributes or {})),
        Array("distance", ("face",), "float32", (), {**shared, "description": described}),
    )


def embedding_key(item: RunInput, recipe: Recipe) -> str:
    """Key of the stage that made an input's embeddings."""
    stages = item.attributes.get("stages", {})
    makers = [node.name for node in recipe.workflow.stages if "embedding" in {one.name for one in node.stage.outputs}]
    return str(next((stages[name].get("key") for name in makers if name in stages), ""))


def match(item: RunInput, gallery: Gallery, metric: Metric, threads: int, k: int = 1) -> Iterator[tuple[int, Nearest]]:
    """First row and nearest people of each block of an input's faces, in order; bounded memory."""
    matcher, person = Matcher(gallery.embedding, metric), gallery.person
    found = for_each(item.pieces("embedding"), lambda _, faces: matcher.nearest(faces, person, k), threads)
    return ((piece.start, nearest) for piece, nearest in found)


def matched(
    item: RunInput, gallery: Gallery, metric: Metric, threshold: float, k: int = 1,
    seen: Callable[[int, Nearest], None] = lambda start, nearest: None,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:  # fmt: skip
    """`identity` and `distance` of all faces of an input that are done; `seen` gets each block of `match`."""
    identity, distance = [np.empty(0, np.int32)], [np.empty(0, np.float32)]
    for start, nearest in match(item, gallery, metric, available_cores(), k):
        # float32 holds a distance rounded to 6 decimals to half of one: compare what DeepFace compares.
        near = np.round(nearest.distance[:, 0].astype(np.float64), 6) <= threshold
        identity.append(np.where(near, nearest.row[:, 0], np.int32(UNKNOWN)))
        distance.append(nearest.distance[:, 0])
        seen(start, nearest)
    return np.concatenate(identity), np.concatenate(distance)


def find(
    outs: Sequence[str | Path],
    gallery: str | Path,
    *,
    metric: str = "cosine",
    threshold: float | None = None,
    top_k: int = 1,
    all_faces: bool = False,
    model: str | None = None,
    table: str | Path | None = None,
    save_gallery: str | Path | None = None,
    embedded: Progress | None = None,
    looked: Callable[[int], None] = lambda faces: None,
    note: Callable[[str], None] = lambda text: None,
) -> Found:
    """Find the people of a gallery in stores, and write the arrays `identity` and `distance` to their complete inputs.

    `table` gets a row for each face and each of its `top_k` nearest people. `model` is an assertion: stores of another
    are refused. `embedded` is told of pictures being embedded, done and in all, `looked` of faces matched so far,
    `note` gets lines for the user as they come. Raises ReelgraphError where the gallery, or no store, can be used.
    """
    if top_k < 1:
        raise UsageError(f"top_k must be at least 1, not {top_k}")
    wanted = Wanted(str(gallery), checked_metric(metric), all_faces)
    job = Found(
        metric=wanted.metric, threshold=threshold, model=model, looked=looked, note=note, wanted=wanted, top_k=top_k,
        embedded=embedded,
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        if table is not None:
            from pipeline.views.tables import open_table

            job.table = stack.enter_context(open_table(table))
        if outs:
            job.sha256 = gallery_sha256(gallery, all_faces=all_faces)
        job.through(outs)
    if save_gallery is not None and job.recipes:
        save(job.only_gallery(), save_gallery)
        job.tell(f"{save_gallery}: the gallery, {len(job.only_gallery())} faces")
    job.finish()
    return job


@dataclass(kw_only=True)
class Found(NearSearch):
    """A search for the people of a gallery, and what it found."""

    half_done = "; nothing is written before it is complete"
    wanted: Wanted
    top_k: int
    embedded: Progress | None
    people: list[SeenPerson] = field(default_factory=list)
    """Those who were seen, longest on screen first."""
    absent: list[str] = field(default_factory=list)
    """Gallery names that were not found."""
    sha256: str = ""
    table: Table | None = None
    recipes: dict[str, tuple[Recipe, str]] = field(default_factory=dict)
    galleries: dict[str, Gallery] = field(default_factory=dict)
    sightings: list[Sighting] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    stages: list[str] = field(default_factory=list)
    """What the workflow of the store at hand calls the stage that makes these arrays: a run must see that they are
    another's."""
    writable: RunStore | None = None
    """The store at hand, once something is to be written to it."""
    is_locked: bool = False

    @contextlib.contextmanager
    def opened(self, out: str, run: Run, recipe: Recipe) -> Iterator[None]:
        self.recipes[recipe.key] = (recipe, out)
        sections = run.attributes.get("workflow", {}).get("stages", {})
        uses = (STAGE, "pipeline.faces.stages.identify:Identify")
        self.stages = [name for name, section in sections.items() if section.get("use") in uses] or [STAGE]
        self.writable, self.is_locked = None, False
        try:
            yield
        finally:
            if self.writable is not None:
                self.writable.close()

    def unstarted(self, out: str, item: RunInput) -> Searched:
        return Searched(out, item.name, 0, 0.0, 0.0, unknown_faces=0, written="incomplete")

    def search(self, out: str, item: RunInput, recipe: Recipe, threshold: float) -> Searched:
        names, identity, distance, written = item.retried(lambda: self._identified(out, item, recipe, threshold))
        self.names.update(names)
        self.sightings += _sightings(FrameTimes(item, out), names, identity, distance)
        unknown, share = int((identity == UNKNOWN).sum()), done_share(item)
        return Searched(out, item.name, len(identity), share, threshold, unknown_faces=unknown, written=written)

    def _identified(
        self, out: str, item: RunInput, recipe: Recipe, threshold: float
    ) -> tuple[list[str], npt.NDArray[np.int32], npt.NDArray[np.float32], Written]:
        """Names of the gallery's rows, `identity` and `distance`: those that the store has of this matching already, or
        those that are matched, and written, now."""
        signature = self.wanted.signature(self.sha256, threshold, embedding_key(item, recipe))
        stored = item.arrays["identity"].attributes if "identity" in item.arrays else {}
        same = item.complete and {key: stored.get(key) for key in signature} == signature
        if same and self.table is None:
            for text in stored.get("notes", ()):
                self.tell(text)
            found = item.read(["identity", "distance"])
            return [str(name) for name in stored["names"]], found["identity"], found["distance"], "unchanged"
        gallery = self._gallery(recipe, out)
        rows = _TableRows(item, gallery, threshold, FrameTimes(item, out)) if self.table is not None else None

        def seen(start: int, nearest: Nearest) -> None:
            if rows is not None and self.table is not None:
                self.table.write(rows.block(start, nearest))
            self.look(len(nearest.row))

        identity, distance = matched(item, gallery, self.metric, threshold, self.top_k, seen)
        attributes = self.wanted.attributes(gallery, threshold, signature["embedding_key"])
        written: Written = "unchanged" if same else self._write(item, attributes, identity, distance)
        return list(gallery.names), identity, distance, written

    def _write(
        self, item: RunInput, attributes: dict[str, Any], identity: npt.NDArray[Any], distance: npt.NDArray[Any]
    ) -> Written:
        """Write to the store at hand, whose lock is taken when there is something to write."""
        from pipeline.store.compact import add_arrays
        from pipeline.store.run import RunStore

        if not item.complete:
            return "incomplete"
        if self.is_locked:
            return "locked"
        try:
            self.writable = self.writable or RunStore.open(item.store_path)
        except StoreLockedError as err:
            self.is_locked = True
            self.tell(f"nothing is written: {err}")
            return "locked"
        arrays = {"identity": identity, "distance": distance}
        stages = dict.fromkeys(self.stages, stage_key(attributes))
        add_arrays(self.writable, item.name, outputs(attributes), arrays, stages, replace_existing=True)
        item.refresh()
        return "written"

    def _gallery(self, recipe: Recipe, out: str) -> Gallery:
        if recipe.key not in self.galleries:
            gallery = open_gallery(
                self.wanted.gallery, recipe, out, all_faces=self.wanted.all_faces, progress=self.embedded
            )
            for text in gallery.notes:
                self.tell(text)
            self.galleries[recipe.key] = gallery
        return self.galleries[recipe.key]

    def only_gallery(self) -> Gallery:
        """To be saved. Raises UsageError where the stores are of several models."""
        if len(self.recipes) > 1:
            models = " and ".join(sorted({recipe.model for recipe, _ in self.recipes.values()}))
            raise UsageError(f"one file holds a gallery of one model; these stores were made with {models}")
        ((recipe, out),) = self.recipes.values()
        return self._gallery(recipe, out)

    def finish(self) -> None:
        """Put the sightings of all inputs together, by person."""
        self.require_some()
        by_name: dict[str, list[Sighting]] = {}
        for one in self.sightings:
            by_name.setdefault(str(one.name), []).append(one)
        self.people = [SeenPerson(name, tuple(some)) for name, some in by_name.items()]
        self.people.sort(key=lambda person: (-person.screen_seconds, -person.faces, person.name))
        self.absent = sorted(self.names - by_name.keys())

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        people = [person.as_dict() for person in self.people]
        return {"gallery": self.wanted.gallery, "people": people, "absent": self.absent, **super().as_dict()}


def _sightings(
    times: FrameTimes, names: Sequence[str], identity: npt.NDArray[np.int32], distance: npt.NDArray[np.float32]
) -> list[Sighting]:
    """Sightings of everybody in one input, by name; several rows of a gallery may be pictures of one person."""
    rows = np.flatnonzero(identity != UNKNOWN)
    if not len(rows):
        return []
    people = sorted(set(names))
    place = {name: k for k, name in enumerate(people)}
    person = np.array([place[name] for name in names], np.int64)[identity[rows]]
    order = np.argsort(person, kind="stable")
    starts = np.flatnonzero(np.diff(person[order], prepend=-1))
    parts = zip(person[order[starts]].tolist(), np.split(rows[order], starts[1:]), strict=True)
    return times.sightings([(people[who], part, distance[part].astype(np.float64)) for who, part in parts])


class _TableRows:
    """The rows of `--table`: one per face and rank."""

    def __init__(self, item: RunInput, gallery: Gallery, threshold: float, times: FrameTimes) -> None:
        self.item, self.gallery, self.threshold, self.times = item, gallery, threshold, times
        self.face_frame = item.array("face_frame")
        self.pieces = {name: item.pieces(name) for name in ("box", "confidence")}

    def block(self, start: int, nearest: Nearest) -> dict[str, Any]:
        """Columns of some faces, each face as often as it has near people."""
        n, k = nearest.row.shape
        rows = np.arange(start, start + n)
        at = np.repeat(self.face_frame[start : start + n], k)
        box = rows_of(self.pieces["box"], rows, 1)
        confidence = rows_of(self.pieces["confidence"], rows, 1)
        names = np.array([*self.gallery.names, ""], object)
        pictures = np.array([*self.gallery.pictures, ""], object)
        row, distance = nearest.row.ravel(), nearest.distance.ravel()
        known = (np.round(distance.astype(np.float64), 6) <= self.threshold) & (row >= 0)
        columns: dict[str, Any] = {
            "store": np.full(n * k, self.times.out, object),
            "input": np.full(n * k, self.item.name, object),
            "face": np.repeat(rows, k),
            "frame": self.times.frame[at],
            "time_seconds": self.times.time_seconds[at],
        }
        for side, values in zip("xywh", box.T if box is not None else np.empty((4, 0)), strict=True):
            columns[side] = np.repeat(values, k)
        columns["confidence"] = np.repeat(confidence if confidence is not None else np.empty(0, np.float32), k)
        columns["rank"] = np.tile(np.arange(1, k + 1), n)
        columns |= {"name": names[row], "picture": pictures[row], "distance": distance, "known": known}
        return columns


def stage_key(attributes: Mapping[str, Any]) -> str:
    """Resume key of a matching that no workflow made: a run of a workflow with this stage does it anew."""
    names = ("metric", "threshold", "all_faces", "gallery_sha256", "embedding_key")
    return hashlib.sha256(json.dumps({name: attributes[name] for name in names}, sort_keys=True).encode()).hexdigest()[
        :32
    ]

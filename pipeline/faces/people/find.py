"""`reelgraph find --gallery`: every stored face against known ones, over any number of stores, without decoding."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from pipeline.errors import StoreLockedError, UsageError
from pipeline.faces.people.gallery import Gallery, gallery_sha256, open_gallery, save
from pipeline.faces.people.labels import names_in_gallery
from pipeline.faces.people.matching import DECIMALS, Matcher, Metric, Nearest, checked_metric
from pipeline.faces.people.near import NearSearch, Written
from pipeline.faces.people.pictures import Progress, Recipe
from pipeline.faces.people.sightings import FrameTimes, Sighting
from pipeline.machine.cores import available_cores
from pipeline.store.facts import stage_sections
from pipeline.store.pieces import for_each, rows_of
from pipeline.store.schema import Array

if TYPE_CHECKING:
    from pipeline.store.read import Run, RunInput
    from pipeline.store.run import RunStore
    from pipeline.views.tables import Table

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]

UNKNOWN = -1
STAGE = "identify"
"""Name of the stage under which the store records a matching."""


@dataclass(frozen=True)
class SeenPerson:
    """All sightings of one person of the gallery."""

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
        """Return JSON values."""
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
    """The gallery to match with, and how."""

    gallery: str
    metric: Metric = "cosine"
    all_faces: bool = False

    def attributes(self, gallery: Gallery, threshold: float, embedding_key: str) -> dict[str, Any]:
        """Return the attributes of the array `identity`."""
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
        """Return values that are equal if the arrays would be."""
        return {
            "metric": self.metric,
            "threshold": threshold,
            "all_faces": self.all_faces,
            "gallery_sha256": sha256,
            "embedding_key": embedding_key,
        }


def outputs(attributes: Mapping[str, Any] | None = None) -> tuple[Array, ...]:
    """Return the arrays of a matching."""
    described = "distance to the nearest row of the gallery, accepted or not; NaN where the face has no embedding"
    shared = {key: value for key, value in (attributes or {}).items() if key in ("metric", "threshold")}
    return (
        Array("identity", ("face",), "int32", (), dict(attributes or {})),
        Array("distance", ("face",), "float32", (), {**shared, "description": described}),
    )


def embedding_key(item: RunInput, recipe: Recipe) -> str:
    """Return the key of the stage that made an input's embeddings."""
    stages = item.attributes.get("stages", {})
    makers = [node.name for node in recipe.workflow.stages if "embedding" in {one.name for one in node.stage.outputs}]
    return str(next((stages[name].get("key") for name in makers if name in stages), ""))


def is_near(distance: Float32, threshold: float) -> npt.NDArray[np.bool_]:
    """Return whether DeepFace would accept distances; float32 holds one only to half of its last decimal."""
    return np.asarray(np.round(distance.astype(np.float64), DECIMALS) <= threshold)


def matched(
    item: RunInput, gallery: Gallery, metric: Metric, threshold: float, k: int = 1,
    seen: Callable[[int, Nearest], None] = lambda start, nearest: None,
) -> tuple[Int32, Float32]:  # fmt: skip
    """Return `identity` and `distance` of all faces of an input that are done, in bounded memory.

    `seen` gets the first row and the `k` nearest people of each block of faces, in order.
    """
    matcher, person = Matcher(gallery.embedding, metric), gallery.person
    identity, distance = [np.empty(0, np.int32)], [np.empty(0, np.float32)]
    found = for_each(item.pieces("embedding"), lambda _, faces: matcher.nearest(faces, person, k), available_cores())
    for piece, nearest in found:
        row, first = nearest.row[:, 0], nearest.distance[:, 0]
        identity.append(np.where(is_near(first, threshold), row, np.int32(UNKNOWN)))
        distance.append(first)
        seen(piece.start, nearest)
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
    are refused. `embedded` gets the numbers of pictures embedded and in all, `looked` that of faces matched so far.
    `note` gets lines for the user as they come. Raises ReelgraphError if the gallery, or every store, is unusable.
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
        if len(job.recipes) > 1:
            models = " and ".join(sorted({recipe.model for recipe, _ in job.recipes.values()}))
            raise UsageError(f"one file holds a gallery of one model; these stores were made with {models}")
        (made,) = (job.gallery_for(recipe, out) for recipe, out in job.recipes.values())
        save(made, save_gallery)
        job.tell(f"{save_gallery}: the gallery, {len(made)} faces")
    job.finish()
    return job


@dataclass(kw_only=True)
class Found(NearSearch):
    """A search for the people of a gallery, and its result."""

    half_done = "; nothing is written before it is complete"
    unstarted: ClassVar[dict[str, Any]] = {"unknown_faces": 0, "written": "incomplete"}
    wanted: Wanted
    top_k: int
    embedded: Progress | None
    people: list[SeenPerson] = field(default_factory=list)
    """People who were seen, longest on screen first."""
    absent: list[str] = field(default_factory=list)
    """Gallery names that were not found."""
    sha256: str = ""
    table: Table | None = None
    recipes: dict[str, tuple[Recipe, str]] = field(default_factory=dict)
    """Recipe and first store of each recipe's key."""
    galleries: dict[str, Gallery] = field(default_factory=dict)
    sightings: list[Sighting] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    stages: list[str] = field(default_factory=list)
    """Names of the stage that makes these arrays in the workflow of the open store. A later run reads there that
    they are not its own."""
    writable: RunStore | None = None
    """The open store, once something is to be written to it."""
    is_locked: bool = False

    @contextlib.contextmanager
    def opened(self, out: str, run: Run, recipe: Recipe) -> Iterator[None]:
        self.recipes[recipe.key] = (recipe, out)
        sections = stage_sections(run.attributes.get("workflow"))
        uses = (STAGE, "pipeline.faces.stages.identify:Identify")
        self.stages = [name for name, section in sections.items() if section.get("use") in uses] or [STAGE]
        self.writable, self.is_locked = None, False
        try:
            yield
        finally:
            if self.writable is not None:
                self.writable.close()

    def search(self, out: str, item: RunInput, recipe: Recipe, threshold: float) -> tuple[int, dict[str, Any]]:
        """Take `identity` and `distance` from the store if it has them of this matching; else match, and write."""
        signature = self.wanted.signature(self.sha256, threshold, embedding_key(item, recipe))
        stored = item.arrays["identity"].attributes if "identity" in item.arrays else {}
        same = item.complete and {key: stored.get(key) for key in signature} == signature
        written: Written = "unchanged"
        if same and self.table is None:
            for text in stored.get("notes", ()):
                self.tell(text)
            names = names_in_gallery(stored)
            identity, distance = item.read(["identity", "distance"]).values()
        else:
            gallery = self.gallery_for(recipe, out)
            names = list(gallery.names)
            rows = _TableRows(item, gallery, threshold, FrameTimes(item, out)) if self.table is not None else None

            def seen(start: int, nearest: Nearest) -> None:
                if rows is not None and self.table is not None:
                    self.table.write(rows.block(start, nearest))
                self.look(len(nearest.row))

            identity, distance = matched(item, gallery, self.metric, threshold, self.top_k, seen)
            if not same:
                attributes = self.wanted.attributes(gallery, threshold, signature["embedding_key"])
                # The resume key of a matching by no workflow: a run of one with this stage matches again.
                key = hashlib.sha256(json.dumps(signature, sort_keys=True).encode()).hexdigest()[:32]
                written = self._write(item, key, attributes, {"identity": identity, "distance": distance})
        self.names.update(names)
        self.sightings += _sightings(FrameTimes(item, out), names, identity, distance)
        return len(identity), {"unknown_faces": int((identity == UNKNOWN).sum()), "written": written}

    def _write(self, item: RunInput, key: str, attributes: dict[str, Any], arrays: dict[str, np.ndarray]) -> Written:
        """Write to the open store, whose lock is taken when there is something to write."""
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
        stages = dict.fromkeys(self.stages, key)
        add_arrays(self.writable, item.name, outputs(attributes), arrays, stages, replace_existing=True)
        item.refresh()
        return "written"

    def gallery_for(self, recipe: Recipe, out: str) -> Gallery:
        """Return the gallery, embedded by the recipe of the store `out`; opened once for each recipe."""
        if recipe.key not in self.galleries:
            gallery = open_gallery(
                self.wanted.gallery, recipe, out, all_faces=self.wanted.all_faces, progress=self.embedded
            )
            for text in gallery.notes:
                self.tell(text)
            self.galleries[recipe.key] = gallery
        return self.galleries[recipe.key]

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
        """Return JSON values."""
        people = [person.as_dict() for person in self.people]
        return {"gallery": self.wanted.gallery, "people": people, "absent": self.absent, **super().as_dict()}


def _sightings(times: FrameTimes, names: Sequence[str], identity: Int32, distance: Float32) -> list[Sighting]:
    """Return the sightings of all people in one input, by name; a person may have several rows of the gallery."""
    rows = np.flatnonzero(identity != UNKNOWN)
    if not len(rows):
        return []
    people, person_of = np.unique(list(names), return_inverse=True)
    person = person_of[identity[rows]]
    order = np.argsort(person, kind="stable")
    starts = np.flatnonzero(np.diff(person[order], prepend=-1))
    parts = zip(person[order[starts]].tolist(), np.split(rows[order], starts[1:]), strict=True)
    return times.sightings([(str(people[who]), part, distance[part].astype(np.float64)) for who, part in parts])


class _TableRows:
    """The rows of `--table`: one per face and rank."""

    def __init__(self, item: RunInput, gallery: Gallery, threshold: float, times: FrameTimes) -> None:
        self.item, self.gallery, self.threshold, self.times = item, gallery, threshold, times
        self.face_frame = item.array("face_frame")
        self.pieces = {name: item.pieces(name) for name in ("box", "confidence")}

    def block(self, start: int, nearest: Nearest) -> dict[str, Any]:
        """Return columns for some faces, each face as often as it has near people."""
        n, k = nearest.row.shape
        rows = np.arange(start, start + n)
        at = np.repeat(self.face_frame[start : start + n], k)
        box = rows_of(self.pieces["box"], rows, 1)
        confidence = rows_of(self.pieces["confidence"], rows, 1)
        row, distance = nearest.row.ravel(), nearest.distance.ravel()
        columns: dict[str, Any] = {
            "store": np.full(n * k, self.times.out, object),
            "input": np.full(n * k, self.item.name, object),
            "face": np.repeat(rows, k),
            "frame": self.times.frame[at],
            "time_seconds": self.times.time_seconds[at],
        }
        for side, values in zip("xywh", box.T if box is not None else np.empty((4, 0)), strict=True):
            columns[side] = np.repeat(values, k)
        return columns | {
            "confidence": np.repeat(confidence if confidence is not None else np.empty(0, np.float32), k),
            "rank": np.tile(np.arange(1, k + 1), n),
            "name": np.array([*self.gallery.names, ""], object)[row],
            "picture": np.array([*self.gallery.pictures, ""], object)[row],
            "distance": distance,
            "known": is_near(distance, self.threshold) & (row >= 0),
        }

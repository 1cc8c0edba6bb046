"""`reelgraph find --gallery`: every stored face against known ones, over any number of stores, without decoding."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError, StoreError, StoreLockedError, UsageError
from pipeline.faces.people.gallery import Gallery, gallery_sha256, open_gallery, save
from pipeline.faces.people.matching import Matcher, Metric, Nearest, checked_metric
from pipeline.faces.people.pictures import Progress, Recipe, open_searchable
from pipeline.faces.people.sightings import FrameTimes, Sighting
from pipeline.machine.cores import available_cores
from pipeline.store.pieces import for_each, rows_of
from pipeline.store.run import each_once
from pipeline.store.schema import Array

if TYPE_CHECKING:
    from pipeline.store.read import Run, RunInput
    from pipeline.store.run import RunStore
    from pipeline.views.tables import Table

UNKNOWN = -1
STAGE = "identify"
"""What the store records a matching under."""

Written = Literal["written", "unchanged", "incomplete", "locked"]


@dataclass(frozen=True)
class Searched:
    """One input of a store, as far as it is done."""

    out: str
    input: str
    faces: int
    unknown_faces: int
    share: float
    """Of its sampled frames, 0 to 1: those that are done and could be searched."""
    threshold: float
    written: Written
    """What became of the arrays `identity` and `distance`: `incomplete` inputs and `locked` stores get none."""


@dataclass(frozen=True)
class Person:
    """Everywhere somebody of the gallery was seen."""

    name: str
    sightings: tuple[Sighting, ...]

    @property
    def faces(self) -> int:
        return sum(one.faces for one in self.sightings)

    @property
    def screen_seconds(self) -> float:
        return sum(one.screen_seconds for one in self.sightings)

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        best = min(self.sightings, key=lambda one: one.best.distance)
        return {
            "name": self.name,
            "inputs": len(self.sightings),
            "faces": self.faces,
            "screen_seconds": round(self.screen_seconds, 3),
            "best_distance": round(best.best.distance, 6),
            "sightings": [one.as_dict() for one in self.sightings],
        }


@dataclass(frozen=True)
class Found:
    """What `find --gallery` says."""

    gallery: str
    metric: Metric
    people: tuple[Person, ...]
    """Those who were seen, longest on screen first."""
    absent: tuple[str, ...]
    """Names of the gallery that nobody bears who was seen."""
    inputs: tuple[Searched, ...]
    notes: tuple[str, ...]
    unusable: tuple[str, ...]
    """Stores and inputs that could not be searched, or written, with the reason."""

    @property
    def exit_code(self) -> int:
        return 1 if self.unusable else 0

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "gallery": self.gallery,
            "metric": self.metric,
            "people": [person.as_dict() for person in self.people],
            "absent": list(self.absent),
            "inputs": [vars(one) for one in self.inputs],
            "notes": list(self.notes),
            "unusable": list(self.unusable),
        }


@dataclass(frozen=True)
class Wanted:
    """What to look for, and what counts as found."""

    gallery: str
    metric: Metric = "cosine"
    threshold: float | None = None
    """None: the model's own (`thresholds` of the array `embedding`)."""
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


def threshold_of(item: RunInput, metric: Metric, given: float | None) -> float:
    """Raises UsageError where the model has none of its own."""
    if given is not None:
        return given
    attributes = item.arrays["embedding"].attributes
    known = attributes.get("thresholds") or {}
    if metric not in known:
        raise UsageError(f"{attributes.get('model', 'the model')} has no threshold for {metric}; give one: --threshold")
    return float(known[metric])


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
        identity.append(accepted(nearest, threshold))
        distance.append(nearest.distance[:, 0])
        seen(start, nearest)
    return np.concatenate(identity), np.concatenate(distance)


def accepted(nearest: Nearest, threshold: float) -> npt.NDArray[np.int32]:
    """int32 (n,): row of the gallery where the nearest is near enough, else -1."""
    # float32 holds a distance rounded to 6 decimals to half of one: compare what DeepFace compares.
    near = np.round(nearest.distance[:, 0].astype(np.float64), 6) <= threshold
    identity: npt.NDArray[np.int32] = np.where(near, nearest.row[:, 0], np.int32(UNKNOWN))
    return identity


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
    job = _Job(Wanted(str(gallery), checked_metric(metric), threshold, all_faces), top_k, model, embedded, looked, note)
    with contextlib.ExitStack() as stack:
        if table is not None:
            from pipeline.views.tables import open_table

            job.table = stack.enter_context(open_table(table))
        for out in each_once(outs):
            job.search(out)
    if save_gallery is not None and job.recipes:
        save(job.only_gallery(), save_gallery)
        job.tell(f"{save_gallery}: the gallery, {len(job.only_gallery())} faces")
    return job.result()


@dataclass
class _Identified:
    """One input, matched."""

    names: list[str]
    """Of the gallery's rows."""
    identity: npt.NDArray[np.int32]
    distance: npt.NDArray[np.float32]
    written: Written


@dataclass
class _Job:
    wanted: Wanted
    top_k: int
    model: str | None
    embedded: Progress | None
    looked: Callable[[int], None]
    note: Callable[[str], None]
    faces: int = 0
    """Matched so far."""
    table: Table | None = None
    galleries: dict[str, Gallery] = field(default_factory=dict)
    sha256: str = ""
    sightings: list[Sighting] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    inputs: list[Searched] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)
    recipes: dict[str, tuple[Recipe, str]] = field(default_factory=dict)

    def tell(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
            self.note(text)

    def search(self, out: str | Path) -> None:
        """One store. What is wrong with one does not stop the others; a gallery that does not fit does."""
        if not self.sha256:
            self.sha256 = gallery_sha256(self.wanted.gallery, all_faces=self.wanted.all_faces)
        try:
            run, recipe = open_searchable(out, self.model)
        except StoreError as err:
            self.unusable.append(str(err))
            return
        self.recipes[recipe.key] = (recipe, str(out))
        with _Writer(run, out, self) as writer:
            for item in run.inputs.values():
                try:
                    self._input(str(out), item, recipe, writer)
                except StoreError as err:  # damage to one film is no reason to say nothing of the others
                    self.unusable.append(str(err))

    def _input(self, out: str, item: RunInput, recipe: Recipe, writer: _Writer) -> None:
        if "embedding" not in item.arrays:
            self.inputs.append(Searched(out, item.name, 0, 0, 0.0, 0.0, "incomplete"))
            self.tell(f"{out}, {item.name}: nothing is done yet, nothing was searched")
            return
        threshold = threshold_of(item, self.wanted.metric, self.wanted.threshold)
        made = item.retried(lambda: self._identified(out, item, recipe, threshold, writer))
        self.names.update(made.names)
        times = FrameTimes(item, out)
        self.sightings += _sightings(times, made.names, made.identity, made.distance)
        share = 1.0 if item.complete else len(times.frame) / max(1, item.frames_total)
        unknown_faces = int((made.identity == UNKNOWN).sum())
        searched = Searched(out, item.name, len(made.identity), unknown_faces, share, threshold, made.written)
        self.inputs.append(searched)
        if not item.complete:
            self.tell(
                f"{out}, {item.name}: {share:.0%} is done and was searched; nothing is written before it is complete"
            )

    def _identified(self, out: str, item: RunInput, recipe: Recipe, threshold: float, writer: _Writer) -> _Identified:
        """What the store holds of this matching already, or what is matched, and written, now."""
        signature = self.wanted.signature(self.sha256, threshold, embedding_key(item, recipe))
        stored = item.arrays["identity"].attributes if "identity" in item.arrays else {}
        same = item.complete and {key: stored.get(key) for key in signature} == signature
        if same and self.table is None:
            for text in stored.get("notes", ()):
                self.tell(text)
            found = item.read(["identity", "distance"])
            return _Identified([str(name) for name in stored["names"]], **found, written="unchanged")
        gallery = self._gallery(recipe, out)
        identity, distance = self._match(item, gallery, threshold, FrameTimes(item, out))
        attributes = self.wanted.attributes(gallery, threshold, signature["embedding_key"])
        written: Written = "unchanged" if same else writer.write(item, attributes, identity, distance)
        return _Identified(list(gallery.names), identity, distance, written)

    def _match(
        self, item: RunInput, gallery: Gallery, threshold: float, times: FrameTimes
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        rows = _TableRows(item, gallery, threshold, times) if self.table is not None else None

        def seen(start: int, nearest: Nearest) -> None:
            if rows is not None and self.table is not None:
                self.table.write(rows.block(start, nearest))
            self.faces += len(nearest.row)
            self.looked(self.faces)

        return matched(item, gallery, self.wanted.metric, threshold, self.top_k, seen)

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

    def result(self) -> Found:
        if not self.inputs:
            raise InputError(self.unusable[0] if self.unusable else "no store is named")
        for text in self.unusable:
            self.note(text)
        by_name: dict[str, list[Sighting]] = {}
        for one in self.sightings:
            by_name.setdefault(str(one.name), []).append(one)
        people = [Person(name, tuple(some)) for name, some in by_name.items()]
        people.sort(key=lambda person: (-person.screen_seconds, -person.faces, person.name))
        return Found(
            self.wanted.gallery, self.wanted.metric, tuple(people), tuple(sorted(self.names - by_name.keys())),
            tuple(self.inputs), tuple(self.notes), tuple(self.unusable),
        )  # fmt: skip


def _sightings(
    times: FrameTimes, names: Sequence[str], identity: npt.NDArray[np.int32], distance: npt.NDArray[np.float32]
) -> list[Sighting]:
    people = sorted(set(names))
    place = {name: k for k, name in enumerate(people)}
    code = np.array([place[name] for name in names], np.int64)
    rows = np.flatnonzero(identity != UNKNOWN)
    if not len(rows):
        return []
    person = code[identity[rows]]
    order = np.argsort(person, kind="stable")
    starts = np.flatnonzero(np.diff(person[order], prepend=-1))
    parts = [rows[part] for part in np.split(order, starts[1:])]
    seen: list[tuple[str | None, npt.NDArray[np.int64], npt.NDArray[np.float64]]] = [
        (people[int(person[order[start]])], part, distance[part].astype(np.float64))
        for start, part in zip(starts, parts, strict=True)
    ]
    return times.sightings(seen)


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


class _Writer:
    """Writes to one store, whose lock it takes when there is something to write."""

    def __init__(self, run: Run, out: str | Path, job: _Job) -> None:
        self.run, self.out, self.job = run, out, job
        self.store: RunStore | None = None
        self.locked = False

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        if self.store is not None:
            self.store.close()

    def write(
        self, item: RunInput, attributes: dict[str, Any], identity: npt.NDArray[Any], distance: npt.NDArray[Any]
    ) -> Written:
        from pipeline.store.compact import add_arrays
        from pipeline.store.run import RunStore

        if not item.complete:
            return "incomplete"
        if self.locked:
            return "locked"
        try:
            if self.store is None:
                self.store = RunStore.open(self.run.path)
        except StoreLockedError as err:
            self.locked = True
            self.job.tell(f"nothing is written: {err}")
            return "locked"
        arrays = {"identity": identity, "distance": distance}
        stages = dict.fromkeys(self._stages(), stage_key(attributes))
        add_arrays(self.store, item.name, outputs(attributes), arrays, stages, replace_existing=True)
        item.refresh()
        return "written"

    def _stages(self) -> list[str]:
        """What workflows call the stage that makes these arrays: a run of theirs must see that they are another's."""
        sections = self.run.attributes.get("workflow", {}).get("stages", {})
        uses = (STAGE, "pipeline.faces.stages.identify:Identify")
        return [name for name, section in sections.items() if section.get("use") in uses] or [STAGE]


def stage_key(attributes: Mapping[str, Any]) -> str:
    """Resume key of a matching that no workflow made: a run of a workflow with this stage does it anew."""
    names = ("metric", "threshold", "all_faces", "gallery_sha256", "embedding_key")
    return hashlib.sha256(json.dumps({name: attributes[name] for name in names}, sort_keys=True).encode()).hexdigest()[
        :32
    ]

"""`reelgraph find --gallery`: every stored track against known people, over any number of stores, without decoding."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from pipeline.errors import StoreError, StoreLockedError, UsageError
from pipeline.faces.people import evidence
from pipeline.faces.people.evidence import LEVELS, Level
from pipeline.faces.people.gallery import Gallery, gallery_sha256, open_gallery, save
from pipeline.faces.people.labels import names_in_gallery
from pipeline.faces.people.matching import DECIMALS, Matcher, Metric, Nearest, Per, checked_metric
from pipeline.faces.people.near import NearSearch, Written, threshold_of
from pipeline.faces.people.pictures import Progress, Recipe
from pipeline.faces.people.sightings import InputSightings, Sighting, shown_dict
from pipeline.faces.stages.track import Track, TrackOptions, track_input
from pipeline.machine.cores import available_cores
from pipeline.media.spans import is_timed
from pipeline.store.compact import add_arrays
from pipeline.store.facts import stage_sections
from pipeline.store.pieces import Piece, for_each, rows_of
from pipeline.store.read import Run, RunInput
from pipeline.store.read import open as open_store
from pipeline.store.run import RunStore
from pipeline.store.schema import Array
from pipeline.text import plural

if TYPE_CHECKING:
    from pipeline.views.tables import Table

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

UNKNOWN = -1
STAGE = "identify"
"""Name of the stage under which the store records a matching."""


@dataclass(frozen=True)
class Evidence:
    """The best track of a person in one input: the farthest within its limit, of the highest level."""

    level: Level
    distance: float
    limit: float
    """Largest distance that is likely for that track."""

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "level": self.level.name.lower(), "distance": round(self.distance, 6), "limit": round(self.limit, 6),
        }  # fmt: skip


@dataclass(frozen=True)
class SeenPerson:
    """All sightings of one person of the gallery."""

    name: str
    sightings: tuple[Sighting, ...]
    evidence: tuple[Evidence, ...]
    """One for each sighting."""

    @property
    def best(self) -> Evidence:
        return max(self.evidence, key=lambda one: (one.level, one.limit - one.distance))

    @property
    def faces(self) -> int:
        return sum(one.faces for one in self.sightings)

    @property
    def screen_seconds(self) -> float:
        return sum(one.screen_seconds for one in self.sightings)

    @property
    def pictures(self) -> int:
        return sum(one.pictures for one in self.sightings)

    @property
    def best_distance(self) -> float:
        return min(one.best.distance for one in self.sightings)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "name": self.name,
            "inputs": len(self.sightings),
            "faces": self.faces,
            **shown_dict(self.screen_seconds, self.pictures),
            "best_distance": round(self.best_distance, 6),
            **self.best.as_dict(),
            "sightings": [
                one.as_dict() | why.as_dict() for one, why in zip(self.sightings, self.evidence, strict=True)
            ],
        }


@dataclass(frozen=True)
class Wanted:
    """The gallery to match with, and how."""

    gallery: str
    metric: Metric = "cosine"
    all_faces: bool = False
    per: Per = "track"
    threshold: float | None = None
    """None: per track the limits of `evidence`, per face the model's own threshold."""

    def attributes(self, gallery: Gallery, item: RunInput, embedding_key: str) -> dict[str, Any]:
        """Return the attributes of the array `identity`."""
        known, people = self.calibration(item), len(gallery.people)
        limits = {
            level.name.lower(): round(float(evidence.by_metric(self.metric, known.limit(people, 2.0, level))), 6)
            for level in (Level.SURE, Level.LIKELY, Level.WEAK)
        }
        return {
            **self.signature(gallery.sha256, item, embedding_key),
            "description": "row of the gallery; -1 if unknown or weak",
            "names": list(gallery.names),
            "pictures": list(gallery.pictures),
            "model": gallery.model,
            "align": gallery.align,
            "gallery": self.gallery,
            "notes": list(gallery.notes),
            **({"people": people, "limits_of_one_face": limits} if self.per == "track" else {}),
        }

    def signature(self, sha256: str, item: RunInput, embedding_key: str) -> dict[str, Any]:
        """Return values that are equal if the arrays would be."""
        tracks = item.attributes.get("stages", {}).get("track", {}) if "track" in item.arrays else {}
        return {
            "metric": self.metric,
            "per": self.per,
            "threshold": self.threshold_for(item),
            "all_faces": self.all_faces,
            "gallery_sha256": sha256,
            "embedding_key": embedding_key,
            **({"track_key": tracks.get("key")} if self.per == "track" else {}),
        }

    def threshold_for(self, item: RunInput) -> float | None:
        """Return the largest distance of a match, None if it follows from the evidence. Raises UsageError."""
        return self.threshold if self.per == "track" else threshold_of(item, self.metric, self.threshold)

    def calibration(self, item: RunInput) -> evidence.Calibration:
        """Return the calibration for an input's model. Raises UsageError if the model has no threshold."""
        return calibration_of(item, self.metric, self.threshold)


def calibration_of(item: RunInput, metric: Metric, given: float | None) -> evidence.Calibration:
    """Return the calibration for an input's model, by its threshold, or by the given one if it has none.

    Raises UsageError if there is neither.
    """
    attributes = item.arrays["embedding"].attributes
    known = attributes.get("thresholds") or {}
    own = threshold_of(item, metric, None if metric in known else given)
    return evidence.calibration(metric, own, str(attributes.get("align")))


def outputs(attributes: Mapping[str, Any] | None = None) -> tuple[Array, ...]:
    """Return the arrays of a matching."""
    shared = {key: value for key, value in (attributes or {}).items() if key in ("metric", "threshold", "per")}

    def array(name: str, dtype: str, description: str, **more: Any) -> Array:
        return Array(name, ("face",), dtype, (), {**shared, "description": description, **more})

    return (
        Array("identity", ("face",), "int32", (), dict(attributes or {})),
        array("distance", "float32", "distance to the nearest person, named or not; NaN for a face without embedding"),
        array("candidate", "int32", "row of the gallery that is nearest, named or not; -1 without embedding"),
        array("identity_level", "int8", "how sure the nearest person is", levels=list(LEVELS)),
        array("identity_limit", "float32", "largest distance that is likely; NaN for a face without embedding"),
    )


def embedding_key(item: RunInput, recipe: Recipe) -> str:
    """Return the key of the stage that made an input's embeddings."""
    stages = item.attributes.get("stages", {})
    makers = [node.name for node in recipe.workflow.stages if "embedding" in {one.name for one in node.stage.outputs}]
    return str(next((stages[name].get("key") for name in makers if name in stages), ""))


def is_near(distance: Float32, threshold: float) -> npt.NDArray[np.bool_]:
    """Return whether DeepFace would accept distances; float32 holds one only to half of its last decimal."""
    return np.asarray(np.round(distance.astype(np.float64), DECIMALS) <= threshold)


def tracks_of(item: RunInput) -> Int32:
    """Return the stored tracks of an input's faces, or make them, int32 (n_faces,)."""
    if "track" in item.arrays:
        return np.asarray(item.array("track"))
    return track_input(item, TrackOptions.model_validate({}))


def named(item: RunInput, gallery: Gallery, wanted: Wanted, track: Int32 | None = None) -> dict[str, np.ndarray]:
    """Return the arrays of `outputs` for all faces of an input that are done, in bounded memory."""
    if wanted.per == "track":
        return _by_track(item, gallery, wanted, tracks_of(item) if track is None else track)
    threshold = threshold_of(item, wanted.metric, wanted.threshold)
    rows, distances = [np.empty(0, np.int32)], [np.empty(0, np.float32)]
    for _, nearest in _nearest(item, gallery, wanted.metric, 1):
        rows.append(nearest.row[:, 0])
        distances.append(nearest.distance[:, 0])
    candidate, distance = np.concatenate(rows), np.concatenate(distances)
    level = np.where(is_near(distance, threshold) & (candidate >= 0), Level.LIKELY, Level.NONE).astype(np.int8)
    limit = np.where(candidate >= 0, np.float32(threshold), np.float32(np.nan))
    return _arrays(candidate, distance, level, limit)


def _nearest(item: RunInput, gallery: Gallery, metric: Metric, k: int) -> Iterator[tuple[Piece, Nearest]]:
    matcher, person = Matcher(gallery.embedding, metric), gallery.person
    return for_each(item.pieces("embedding"), lambda _, faces: matcher.nearest(faces, person, k), available_cores())


def _by_track(item: RunInput, gallery: Gallery, wanted: Wanted, track: Int32) -> dict[str, np.ndarray]:
    metric, known = wanted.metric, wanted.calibration(item)
    tracks = evidence.track_means(item, track, known, metric)
    people = evidence.people_means(gallery.embedding, gallery.person, known, metric)
    threshold = None if wanted.threshold is None else float(evidence.halved(metric, wanted.threshold))
    found = evidence.judge(tracks, people, known, threshold, scenes_of(item, track))
    row = evidence.nearest_rows(tracks, found.person, gallery.embedding, gallery.person, metric)
    of_face = np.where(track >= 0, track, len(row))  # a face without a track takes the last
    distance, limit = (
        np.append(evidence.by_metric(metric, values), np.nan).astype(np.float32)[of_face]
        for values in (found.distance, found.limit)
    )
    candidate = np.append(row, UNKNOWN).astype(np.int32)[of_face]
    return _arrays(candidate, distance, np.append(found.level, Level.NONE).astype(np.int8)[of_face], limit)


def scenes_of(item: RunInput, track: Int32) -> Ints | None:
    """Return the scene of each track, int64 (tracks,): a picture is one of its own, and an input with times is one."""
    if is_timed(item):
        return None
    scene = np.zeros(int(track.max(initial=-1)) + 1, np.int64)
    has = track >= 0
    scene[track[has]] = item.array("face_frame")[has]
    return scene


def _arrays(candidate: Int32, distance: Float32, level: npt.NDArray[np.int8], limit: Float32) -> dict[str, np.ndarray]:
    identity = np.where(level >= Level.LIKELY, candidate, np.int32(UNKNOWN))
    return {
        "identity": identity, "distance": distance, "candidate": candidate, "identity_level": level,
        "identity_limit": limit,
    }  # fmt: skip


def _nearer(arrays: Mapping[str, np.ndarray], metric: Metric, share: float) -> npt.NDArray[np.bool_]:
    """Return whether each face is nearer than a share of its limit."""
    distance, limit = (evidence.halved(metric, arrays[name]) for name in ("distance", "identity_limit"))
    return np.asarray(distance <= share * limit)


def _people(names: Sequence[str], arrays: Mapping[str, np.ndarray], rows: npt.NDArray[np.bool_]) -> set[str]:
    """Return the names of the nearest people of some faces."""
    return {names[row] for row in np.unique(arrays["candidate"][rows & (arrays["candidate"] >= 0)]).tolist()}


def _asked(
    arrays: dict[str, np.ndarray], names: Sequence[str], people: Collection[str], metric: Metric
) -> dict[str, np.ndarray]:
    """Return the arrays if the names of these people are weak for all but the very near tracks."""
    of_them = np.append(np.isin(np.asarray(names, str), list(people)), False)[arrays["candidate"]]
    asked = of_them & ~_nearer(arrays, metric, evidence.OTHERS_OF_SCENE)
    level = np.where(asked, np.minimum(arrays["identity_level"], np.int8(Level.WEAK)), arrays["identity_level"])
    return _arrays(arrays["candidate"], arrays["distance"], level, arrays["identity_limit"])


def find(
    outs: Sequence[str | Path],
    gallery: str | Path,
    *,
    metric: str = "cosine",
    threshold: float | None = None,
    per: Per = "track",
    top_k: int = 1,
    all_faces: bool = False,
    model: str | None = None,
    table: str | Path | None = None,
    save_gallery: str | Path | None = None,
    write: bool = True,
    embedded: Progress | None = None,
    looked: Callable[[int], None] = lambda faces: None,
    note: Callable[[str], None] = lambda text: None,
) -> Found:
    """Find the people of a gallery in stores, and `write` the arrays of `outputs` to their complete inputs.

    `table` gets a row for each face and each of its `top_k` nearest people. `model` is an assertion: stores of another
    are refused. `embedded` gets the numbers of pictures embedded and in all, `looked` that of faces matched so far.
    `note` gets lines for the user as they come. Raises ReelgraphError if the gallery, or every store, is unusable.
    """
    if top_k < 1:
        raise UsageError(f"top_k must be at least 1, not {top_k}")
    wanted = Wanted(str(gallery), checked_metric(metric), all_faces, per, threshold)
    job = Found(
        metric=wanted.metric, threshold=threshold, model=model, looked=looked, note=note, wanted=wanted, top_k=top_k,
        embedded=embedded, write=write,
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        if table is not None:
            from pipeline.views.tables import open_table

            job.table = stack.enter_context(open_table(table))
            job.has_pictures = _any_pictures(outs)
        if outs:
            job.sha256 = gallery_sha256(gallery, all_faces=all_faces)
        job.through(outs)
    if save_gallery is not None and job.recipes:
        if len(job.recipes) > 1:
            models = " and ".join(sorted({recipe.model for recipe, _ in job.recipes.values()}))
            raise UsageError(f"one file holds a gallery of one model; these stores were made with {models}")
        (made,) = (job.gallery_for(recipe, out) for recipe, out in job.recipes.values())
        save(made, save_gallery)
        job.tell(f"{save_gallery}: the gallery, {plural(len(made), 'face')}")
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
    write: bool = True
    people: list[SeenPerson] = field(default_factory=list)
    """People who were seen, longest on screen first."""
    maybe: list[SeenPerson] = field(default_factory=list)
    """People whom some tracks may show: weak names, for the user to look at."""
    absent: list[str] = field(default_factory=list)
    """Gallery names that were not found."""
    sha256: str = ""
    table: Table | None = None
    recipes: dict[str, tuple[Recipe, str]] = field(default_factory=dict)
    """Recipe and first store of each recipe's key."""
    galleries: dict[str, Gallery] = field(default_factory=dict)
    sightings: list[tuple[Sighting, Evidence]] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    stages: list[str] = field(default_factory=list)
    """Names of the stage that makes these arrays in the workflow of the open store. A later run reads there that
    they are not its own."""
    has_pictures: bool = False
    """True if the table has the column `photo`: the name of the picture that each face is in."""
    scenes: dict[Any, dict[str, str]] = field(default_factory=dict)
    """By frame size: people with a track in the very scene of their picture, and the input of that track."""
    asked: dict[tuple[str, str], tuple[Any, set[str], set[str]]] = field(default_factory=dict)
    """By store and input: frame size, people named beyond OTHERS_OF_SCENE, and those whose names it has as weak."""
    is_last: bool = False
    """True once the scenes of all inputs are known."""
    written: set[tuple[str, str]] = field(default_factory=set)
    writable: RunStore | None = None
    """The open store, once something is to be written to it."""
    is_locked: bool = False

    def through(self, outs: Sequence[str | Path]) -> None:
        """Search all inputs, and once more if a picture is of the scene of other inputs than the one it was cut from.

        Everyone of that scene is near to it. A table has each face once, so it waits for that.
        """
        self.is_last = self.wanted.per == "face" or self.wanted.threshold is not None
        table, self.table = self.table, self.table if self.is_last else None
        super().through(outs)
        again = any(self._of_scene(key) != stored for key, (_, _, stored) in self.asked.items())
        if not self.is_last and (again or table is not None):
            self.is_last, self.table = True, table
            self.inputs, self.unusable, self.sightings = [], [], []
            super().through(outs)

    def _of_scene(self, key: tuple[str, str]) -> set[str]:
        """Return the people whose names are weak in an input because others of their picture's scene may be there."""
        size, beyond, stored = self.asked[key]
        return (beyond | stored) & self.scenes.get(size, {}).keys()

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

    def search(self, out: str, item: RunInput, recipe: Recipe) -> tuple[int, dict[str, Any]]:
        """Take `identity` and `distance` from the store if it has them of this matching; else match, and write."""
        made_by, key = embedding_key(item, recipe), (out, item.name)
        signature = self.wanted.signature(self.sha256, item, made_by)
        stored = item.arrays["identity"].attributes if "identity" in item.arrays else {}
        same = item.complete and {name: stored.get(name) for name in signature} == signature
        weak = set(stored.get("asked_in_scene") or ()) if same else set()
        scene = self._of_scene(key) if self.is_last and key in self.asked else weak
        same = same and weak <= scene
        gallery = None if same and self.table is None else self.gallery_for(recipe, out)
        track = None
        if same:
            for text in stored.get("notes", ()):
                self.tell(text)
            names, arrays = names_in_gallery(stored), item.read([array.name for array in outputs()])
        else:
            assert gallery is not None
            names, track = list(gallery.names), tracks_of(item) if self.wanted.per == "track" else None
            arrays = named(item, gallery, self.wanted, track)
            if key not in self.asked:
                self.look(len(arrays["identity"]))
        if not self.is_last and not is_timed(item):  # each picture is a scene of its own
            self.asked[key] = None, set(), weak
        elif not self.is_last:
            named_beyond = (arrays["identity"] >= 0) & ~_nearer(arrays, self.metric, evidence.OTHERS_OF_SCENE)
            size = item.attributes.get("width"), item.attributes.get("height")
            self.asked[key] = size, _people(names, arrays, named_beyond), weak
            near = _people(names, arrays, _nearer(arrays, self.metric, evidence.SAME_SCENE))
            self.scenes.setdefault(size, {}).update(dict.fromkeys(near, item.name))
        if scene != weak or (scene and not same):
            arrays = _asked(arrays, names, scene, self.metric)
            for name in sorted(scene):
                film = self.scenes[self.asked[key][0]][name]
                self.tell(f"{name}: the gallery's picture is of the scene of {film}. Everyone in that light is near to "
                          f"it, so in inputs of that frame size only very near faces get the name")  # fmt: skip
        if self.table is not None:
            assert gallery is not None
            rows = _TableRows(item, gallery, arrays, InputSightings(item, out), self.has_pictures)
            for piece, nearest in _nearest(item, gallery, self.metric, self.top_k):
                self.table.write(rows.block(piece.start, nearest))
        written: Written = "written" if key in self.written else "unchanged"
        if not same or scene != weak:
            attributes = self.wanted.attributes(gallery or self.gallery_for(recipe, out), item, made_by)
            attributes |= {"asked_in_scene": sorted(scene)} if scene else {}
            # The resume key of a matching by no workflow: a run of one with this stage matches again.
            digest = hashlib.sha256(json.dumps(signature, sort_keys=True).encode()).hexdigest()[:32]
            written = self._write(item, digest, attributes, arrays, track)
            self.written |= {key} if written == "written" else set()
        self.names.update(names)
        self.sightings += _sightings(InputSightings(item, out), names, arrays)
        unknown = int((arrays["identity"] == UNKNOWN).sum())
        return len(arrays["identity"]), {
            "threshold": signature["threshold"], "unknown_faces": unknown, "written": written,
        }  # fmt: skip

    def _write(
        self, item: RunInput, key: str, attributes: dict[str, Any], arrays: dict[str, np.ndarray], track: Int32 | None
    ) -> Written:
        """Write to the open store, whose lock is taken when there is something to write; tracks too, if it has none."""
        if not self.write:
            return "not asked"
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
        self._tell_replaced(item)
        if track is not None and "track" not in item.arrays:
            add_arrays(self.writable, item.name, Track.outputs, {"track": track}, replace_existing=True)
        stages = dict.fromkeys(self.stages, key)
        add_arrays(self.writable, item.name, outputs(attributes), arrays, stages, replace_existing=True)
        item.refresh()
        return "written"

    def _tell_replaced(self, item: RunInput) -> None:
        """Say that the names of another gallery go, or those of other options."""
        before = item.arrays["identity"].attributes if "identity" in item.arrays else {}
        if not before.get("gallery"):
            return
        wanted = self.wanted
        now = {"gallery": wanted.gallery, "metric": wanted.metric, "per": wanted.per, "threshold": wanted.threshold}
        if wanted.per == "face":
            now["threshold"] = wanted.threshold_for(item)
        old = {"per": "face", "threshold": None} | before
        changed = [f"--{name} {old.get(name) or 'by default'}" for name in now if old.get(name) != now[name]]
        if changed:
            self.tell(f"{item.store_path}: these names replace those of an earlier find, {' '.join(changed)}")

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
        by_name: dict[tuple[bool, str], list[tuple[Sighting, Evidence]]] = {}
        for one, why in self.sightings:
            by_name.setdefault((why.level >= Level.LIKELY, str(one.name)), []).append((one, why))
        people = [
            (sure, SeenPerson(name, *(tuple(each) for each in zip(*some, strict=True))))
            for (sure, name), some in by_name.items()
        ]
        people.sort(key=lambda found: (-found[1].screen_seconds, -found[1].pictures, -found[1].faces, found[1].name))
        self.people = [person for sure, person in people if sure]
        self.maybe = [person for sure, person in people if not sure]
        self.absent = sorted(self.names - {person.name for _, person in people})

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "gallery": self.wanted.gallery,
            "per": self.wanted.per,
            "people": [person.as_dict() for person in self.people],
            "maybe": [person.as_dict() for person in self.maybe],
            "absent": self.absent,
            **super().as_dict(),
        }


def _sightings(
    times: InputSightings, names: Sequence[str], arrays: Mapping[str, np.ndarray]
) -> list[tuple[Sighting, Evidence]]:
    """Return the sightings of all people in one input, by name, those with weak names apart.

    A person may have several rows of the gallery.
    """
    level, distance, limit = arrays["identity_level"], arrays["distance"].astype(np.float64), arrays["identity_limit"]
    people, person_of = np.unique(list(names), return_inverse=True)
    found = []
    for rows in (np.flatnonzero(level >= Level.LIKELY), np.flatnonzero(level == Level.WEAK)):
        if not len(rows):
            continue
        person = person_of[arrays["candidate"][rows]]
        order = np.argsort(person, kind="stable")
        starts = np.flatnonzero(np.diff(person[order], prepend=-1))
        parts = list(zip(person[order[starts]].tolist(), np.split(rows[order], starts[1:]), strict=True))
        best = [part[np.lexsort((distance[part] - limit[part], -level[part]))[0]] for _, part in parts]
        why = [Evidence(Level(int(level[row])), float(distance[row]), float(limit[row])) for row in best]
        some = times.sightings([(str(people[who]), part, distance[part]) for who, part in parts])
        found += list(zip(some, why, strict=True))
    return found


def _any_pictures(outs: Sequence[str | Path]) -> bool:
    """Return whether an input of these stores holds pictures; a store that cannot be opened has none here."""
    for out in outs:
        with contextlib.suppress(StoreError):
            if not all(is_timed(item) for item in open_store(out).inputs.values()):
                return True
    return False


class _TableRows:
    """The rows of `--table`: one per face and rank."""

    def __init__(
        self, item: RunInput, gallery: Gallery, arrays: Mapping[str, np.ndarray], times: InputSightings, photos: bool
    ) -> None:
        self.item, self.gallery, self.arrays, self.times, self.photos = item, gallery, arrays, times, photos
        self.level_names = np.array(LEVELS, object)
        self.face_frame = item.array("face_frame")
        self.pieces = {name: item.pieces(name) for name in ("box", "confidence")}

    def block(self, start: int, nearest: Nearest) -> dict[str, Any]:
        """Return columns for some faces, each face as often as it has near people."""
        import pyarrow as pa

        n, k = nearest.row.shape
        rows = np.arange(start, start + n)
        at = np.repeat(self.face_frame[start : start + n], k)
        box = rows_of(self.pieces["box"], rows, 1)
        confidence = rows_of(self.pieces["confidence"], rows, 1)
        row, distance = nearest.row.ravel(), nearest.distance.ravel()
        level, person = self.arrays["identity_level"][rows], np.append(self.gallery.person, UNKNOWN)
        is_same = (row >= 0) & (person[row] == np.repeat(person[self.arrays["candidate"][rows]], k))
        columns: dict[str, Any] = {
            "store": np.full(n * k, self.times.out, object),
            "input": np.full(n * k, self.item.name, object),
            "face": np.repeat(rows, k),
            "frame": self.times.number[at],
            "time_seconds": pa.array(self.times.time_seconds[at], from_pandas=True),  # null, not NaN, for a picture
            **({"photo": pa.array(self.times.names(at), pa.string())} if self.photos else {}),
        }
        for side, values in zip("xywh", box.T if box is not None else np.empty((4, 0)), strict=True):
            columns[side] = np.repeat(values, k)
        return columns | {
            "confidence": np.repeat(confidence if confidence is not None else np.empty(0, np.float32), k),
            "rank": np.tile(np.arange(1, k + 1), n),
            "name": np.array([*self.gallery.names, ""], object)[row],
            "picture": np.array([*self.gallery.pictures, ""], object)[row],
            "distance": distance,
            "known": is_same & (np.repeat(level, k) >= Level.LIKELY),
            "level": np.where(is_same, self.level_names[np.repeat(level, k)], ""),
        }

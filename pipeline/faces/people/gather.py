"""Gather the people of any number of stores: missing tracks, identities, and the registry that keeps them."""

from __future__ import annotations

import contextlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import StoreError, UsageError
from pipeline.faces.people.clustering import Groups, Ints, Points, Tracks, group_points, near_pairs
from pipeline.faces.people.described import (
    STRICT_SHARE,
    THRESHOLD_SHARE,
    describe_tracks,
    share_in_crowd,
    signature,
    sure_confidence,
)
from pipeline.faces.people.moments import Moments
from pipeline.faces.people.registry import FILE_NAME, Person, Pin, Registry, changeable, current, edit, known
from pipeline.faces.people.space import Space
from pipeline.media.boxes import overlap
from pipeline.store.compact import add_arrays
from pipeline.store.nodes import located
from pipeline.store.read import Run, RunInput
from pipeline.store.read import open as open_store
from pipeline.store.run import RunStore
from pipeline.store.schema import Array
from pipeline.text import plural

UNKNOWN = -1
SIMILAR_SHARE = 1.15
"""Multiple of the threshold: pairs of people nearer than this are listed for the user to compare."""
MOST_SIMILAR = 8
"""Most such pairs for each person."""
SURE_FACES, VERY_SURE_FACES = 3, 2
"""Sure faces that a new person needs, and those needed if the detector was very sure of one. A false detection of a
moment has fewer."""
PERSON = Array("person", ("face",), "int32")

Note = Callable[[str], None]
Int32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class GatherOptions:
    """The options of grouping tracks into people."""

    threshold: float | None = None
    """Average distance up to which tracks are one person; None for a share of the model's own threshold.

    The share falls from 0.975 to 0.85 with the number of people (`share_in_crowd`). It is 0.85 for two tracks that both
    show their person's variation."""
    min_faces: int | None = None
    """Number of sure faces that a new person needs; None: by evidence (`are_people`)."""
    again: bool = False
    """Assign all inputs again, also those that were assigned before; the user's decisions stay."""
    thumbnails: bool = True
    """True: decode best shots."""


@dataclass
class Gathered:
    """The result of a run over stores."""

    registry: Registry
    runs: list[Run]
    inputs: list[RunInput]
    """Complete inputs with usable faces, in order."""
    assigned: list[str] = field(default_factory=list)
    """Keys of inputs that were assigned now; the others had been before."""
    new_people: list[int] = field(default_factory=list)
    similar: list[tuple[int, int, float]] = field(default_factory=list)
    """Pairs of people that look alike: ids and distance."""
    notes: list[str] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)
    """Inputs that were left out: store, input, reason."""


@dataclass
class _Taken:
    """An input whose tracks are to be assigned."""

    key: str
    item: RunInput
    tracks: Tracks
    before: Int32 | None
    """int32 (n_faces,): the people it had by this registry; None if it had none."""
    point: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    """int64 (tracks,): row of each track among the points; -1 for tracks without an embedding."""
    person: Int32 = field(default_factory=lambda: np.empty(0, np.int32))
    """int32 (tracks,): the people that were found."""


def registry_path(runs: Sequence[Run], given: Path | None) -> tuple[Path, str | None]:
    """Return the registry of these stores, and a note if it is not the obvious one.

    It is the given one, else the one that they use already, else `people.json` beside the first. Raises UsageError if
    they use several and none is given.
    """
    if given is not None:
        return located(given), None
    found: dict[Path, None] = {}
    for run in runs:
        for item in run.inputs.values():
            attributes = item.arrays["person"].attributes if "person" in item.arrays else {}
            path = changeable(attributes, run.path)
            if path is not None and known(attributes, run.path) is not None:  # it exists, and is the same one
                found[located(path)] = None
    named = list(found)
    if len(named) > 1:
        raise UsageError(
            f"these stores use {len(named)} registries ({', '.join(map(str, named))}); choose one with --registry, "
            "or run them separately"
        )
    folders = list(dict.fromkeys(run.path.parent for run in runs))
    path = named[0] if named else folders[0] / FILE_NAME
    if named and path != folders[0] / FILE_NAME:
        return path, f"these stores use the registry {path}"
    return path, f"the stores lie in {len(folders)} folders; the registry is {path}" if len(folders) > 1 else None


def gather(
    outs: Sequence[Path], registry: Path | None = None, options: GatherOptions | None = None, note: Note | None = None
) -> Gathered:
    """Assign people to all complete inputs of these stores that have none yet, or whose tracks have changed.

    Raises StoreError if a store or the registry is damaged, is being written, or holds another model's embeddings.
    """
    options = options or GatherOptions()

    runs = [open_store(out) for out in dict.fromkeys(located(out) for out in outs)]
    path, remark = registry_path(runs, registry)
    with edit(path):
        work = _Work(runs, path, options, note or (lambda text: None))
        if remark:
            work.note(remark)
        return work.run()


class _Work:
    def __init__(self, runs: Sequence[Run], path: Path, options: GatherOptions, note: Note) -> None:
        self.options, self._note = options, note
        usable: list[RunInput] = []
        skipped: list[dict[str, Any]] = []
        for run in runs:
            for item in run.inputs.values():
                missing = [name for name in ("n_faces", "box", "embedding") if name not in item.arrays]
                if item.complete and not missing:
                    usable.append(item)
                    continue
                reason = f"it has no array {', '.join(missing)}"
                if not item.complete:
                    reason = f"{item.frames_done} of {item.frames_total} frames are done, run it to its end first"
                skipped.append({"store": str(run.path), "input": item.name, "reason": reason})
        if not usable:
            why = f": {skipped[0]['input']}: {skipped[0]['reason']}" if skipped else ""
            stores = ", ".join(str(run.path) for run in runs)
            raise UsageError(f"no complete input with faces and embeddings in {stores}{why}")
        self.space = Space.of(usable[0].arrays["embedding"].attributes)
        for item in usable[1:]:
            space = Space.of(item.arrays["embedding"].attributes)
            if (space.model, space.align) != (self.space.model, self.space.align):
                raise StoreError(
                    f"{item.name!r} of {item.store_path} has embeddings of {space.model} (align {space.align}), "
                    f"{usable[0].name!r} of {usable[0].store_path} of {self.space.model} (align {self.space.align}); "
                    "run them separately, each with its own registry"
                )
        self.threshold = options.threshold or THRESHOLD_SHARE * self.space.threshold
        self.strict = options.threshold or STRICT_SHARE * self.space.threshold
        self.registry = Registry.open(path, self.space.model, self.space.align)
        self.result = Gathered(self.registry, list(runs), usable, skipped=skipped)
        self.sure = {run.path: sure_confidence(run.attributes.get("workflow", {})) for run in runs}
        for one in skipped:
            self.note(f"{one['store']}, {one['input']}: {one['reason']}; left out")

    def note(self, text: str) -> None:
        self.result.notes.append(text)
        self._note(text)

    def run(self) -> Gathered:
        _add_tracks(self.result.inputs, self._note)
        taken = list(self._taken())
        if taken:
            before = set(self.registry.people)
            self._assign(taken)
            self.result.new_people = sorted(set(self.registry.people) - before)
            self.registry.save()
            settings = {name: value for name, value in self._wanted().items() if value is not None}
            for one in taken:
                track = one.item.array("track")
                faces = np.where(track >= 0, np.append(one.person, UNKNOWN)[track], UNKNOWN).astype(np.int32)
                write_people(one.item, faces, self.registry, settings)
        # People may have been named or merged meanwhile.
        for item in self.result.inputs:
            attributes = item.arrays["person"].attributes if "person" in item.arrays else {}
            if attributes.get("registry_id") != self.registry.id:
                continue
            stored = item.array("person")
            now = current(stored, self.registry.merged)
            now[np.isin(now, self.registry.forgotten)] = UNKNOWN
            if attributes.get("names") != _names(now, self.registry) or (now != stored).any():
                write_people(item, now, self.registry, settings_of(attributes))
        if self.options.thumbnails:
            from pipeline.faces.people.thumbnails import add_thumbnails

            add_thumbnails(self.result.inputs, self.note)
        return self.result

    def _wanted(self) -> dict[str, float | None]:
        return {"threshold": self.threshold, "min_faces": self.options.min_faces}

    def _taken(self) -> Iterator[_Taken]:
        for item in self.result.inputs:
            attributes = item.arrays["person"].attributes if "person" in item.arrays else {}
            ours = attributes.get("registry_id") == self.registry.id
            if ours and attributes.get("tracks") == signature(item) and not self.options.again:
                if any(attributes.get(name) != value for name, value in self._wanted().items()):
                    text = "keeps its people, found with other settings; use --again to find them again"
                    self.note(f"{item.name} {text}")
                continue
            if attributes.get("registry_id") and not ours:
                theirs = located(item.store_path / str(attributes.get("registry")))
                text = f"the people of {theirs} are replaced: reports and films show those of {self.registry.path} now"
                if theirs == self.registry.path:
                    text = f"its people are those of an earlier registry at {theirs}; the one there now replaces them"
                self.note(f"{item.store_path}, {item.name}: {text}")
            tracks = describe_tracks(item, self.space, self.sure[item.store_path])
            before = item.array("person") if ours else None
            yield _Taken(self.registry.key(item.store_path, item.name), item, tracks, before)

    def _seen(self, keys: set[str], inside: bool) -> set[int]:
        """Return the people with faces in these inputs, or else in the other ones, as last seen."""
        inputs = (counts for key, counts in self.registry.inputs.items() if (key in keys) == inside)
        return {number for counts in inputs for number, count in counts.items() if count}

    def _assign(self, taken: Sequence[_Taken]) -> None:
        """Find the person of each track of each input; give the registry new people, exemplars and counts."""
        people = self.registry.people
        keys = {one.key for one in taken}
        elsewhere = self._seen(keys, inside=False)
        # With --again some people are found again: those without a user's decision and in no other input.
        dissolved = {n for n, one in people.items() if self.options.again and not one.decided and n not in elsewhere}
        points, seen = self._points(taken, dissolved, self._seen(keys, inside=True) - elsewhere)
        twice = [n for n, one in people.items() if one.twice]
        in_crowd = None if self.options.threshold else lambda people: share_in_crowd(people) * self.space.threshold
        groups = group_points(points, seen, self.threshold, twice, self.strict, in_crowd)
        self.result.assigned = [one.key for one in taken]
        person_of = self._number(groups, points, taken, dissolved)
        for number in dissolved - set(person_of.values()):
            self.registry.retire(number)
        for group, number in person_of.items():
            people[number].exemplars = groups.looks[group]
        for one in taken:
            one.person = np.full(len(one.tracks.faces), UNKNOWN, np.int32)
            has = one.point >= 0
            one.person[has] = [person_of.get(group, UNKNOWN) for group in groups.group[one.point[has]].tolist()]
            counts = np.bincount(one.person[one.person > 0], weights=one.tracks.faces[one.person > 0])
            self.registry.inputs[one.key] = {int(n): int(counts[n]) for n in np.flatnonzero(counts)}
        self.result.similar = self._similar(taken, SIMILAR_SHARE * groups.threshold)

    def _similar(self, taken: Sequence[_Taken], most: float) -> list[tuple[int, int, float]]:
        """Return pairs of people at a distance of at most `most`, with that distance, nearest first.

        Leave out pairs that were seen together, and pairs that a user has declared to be two people.
        """
        looks = [(number, each) for number, one in self.registry.people.items() for each in one.exemplars]
        if not looks:
            return []
        moments: defaultdict[int, set[tuple[int, int]]] = defaultdict(set)
        for at, one in enumerate(taken):
            for moment, track in one.tracks.seen.tolist():
                moments[int(one.person[track])].add((at, moment))
        spread, vectors = np.array([each.spread for _, each in looks]), np.array([each.vector for _, each in looks])
        found: dict[tuple[int, int], float] = {}
        for rows, others, squared in near_pairs(vectors, spread, most * most, MOST_SIMILAR):
            for a, b, value in zip(rows.tolist(), others.tolist(), squared.tolist(), strict=True):
                low, high = sorted((looks[a][0], looks[b][0]))
                if low == high or (low, high) in self.registry.apart:
                    continue
                if moments[low].isdisjoint(moments[high]):
                    found[low, high] = min(found.get((low, high), np.inf), float(np.sqrt(max(value, 0.0))))
        return sorted(((a, b, d) for (a, b), d in found.items()), key=lambda one: (one[2], one[:2]))

    def _points(self, taken: Sequence[_Taken], dissolved: set[int], returning: set[int]) -> tuple[Points, Ints]:
        """Return the points (exemplars of known people, then all tracks), and the moments in which these were seen.

        `returning`: people all of whose tracks are among these. Since their tracks come with their own weight, their
        exemplars are only seeds.
        """
        known_people = [(n, one) for n, one in self.registry.people.items() if n not in dissolved]
        looks = [(number, each) for number, one in known_people for each in one.exemplars]
        width = taken[0].tracks.vector.shape[1]
        parts = [
            Points(
                np.array([each.vector for _, each in looks], np.float32).reshape(-1, width),
                np.array([each.spread for _, each in looks], np.float64),
                np.array([each.varied for _, each in looks], np.float64),
                np.array([min(each.weight, 1.0) if n in returning else each.weight for n, each in looks], np.float64),
                np.array([number for number, _ in looks], np.int64),
                np.ones(len(looks), bool),
            )
        ]
        seen, count, count_moments = [np.empty((0, 2), np.int64)], len(looks), 0
        for one in taken:
            usable = np.asarray(np.isfinite(one.tracks.vector).all(axis=1))
            one.point = np.where(usable, count + np.cumsum(usable) - 1, -1)
            count += int(usable.sum())
            moment, who = one.tracks.seen.T
            has = usable[who]
            seen.append(np.stack([count_moments + moment[has], one.point[who[has]]], axis=1))
            count_moments += int(moment.max(initial=-1)) + 1
            pinned = np.zeros(usable.shape, np.int64)
            fingerprint = str(one.item.attributes.get("fingerprint"))
            pins = [pin for pin in self.registry.pins if (pin.input, pin.fingerprint) == (one.key, fingerprint)]
            for pin, track in zip(pins, tracks_of_pins(one.item, pins) if pins else (), strict=True):
                if track >= 0:
                    pinned[track] = pin.person
            found = one.tracks
            columns: tuple[Any, ...] = (found.vector, found.spread, found.spread, found.weight, pinned, found.founds)
            parts.append(Points(*(column[usable] for column in columns)))
        names = ("vector", "spread", "varied", "weight", "person", "founds")
        points = Points(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
        founds = points.founds | (points.person > 0) | (self.options.min_faces == 1)
        return replace(points, founds=founds), np.concatenate(seen)

    def _number(self, groups: Groups, points: Points, taken: Sequence[_Taken], dissolved: set[int]) -> dict[int, int]:
        """Return the person of each group: known people, then people from before, then new ones, by appearance."""
        found: dict[int, int] = {}
        for row in np.flatnonzero(points.person).tolist():
            found[int(groups.group[row])] = int(points.person[row])
        founded, certain = np.zeros((2, len(groups.looks)), bool)
        founded[groups.group[points.founds]] = True
        sure = np.zeros(len(groups.looks), np.int64)
        for one in taken:
            has = one.point >= 0
            np.add.at(sure, groups.group[one.point[has]], one.tracks.sure_faces[has])
            certain[groups.group[one.point[has & one.tracks.certain]]] = True
        enough = founded & are_people(sure, certain, self.options.min_faces)
        wanted = [group for group in np.flatnonzero(enough).tolist() if group not in found]
        found |= _as_before(groups, taken, set(wanted), dissolved)
        return found | {group: self.registry.new_person() for group in wanted if group not in found}


def _add_tracks(items: Sequence[RunInput], note: Note) -> None:
    """Make tracks for inputs whose workflow made none."""
    from pipeline.faces.stages.track import Track, TrackOptions, track_input

    options = TrackOptions.model_validate({})
    without = [item for item in items if "track" not in item.arrays]
    for place in dict.fromkeys(item.store_path for item in without):
        with RunStore.open(place) as store:
            for item in (item for item in without if item.store_path == place):
                arrays = {"track": track_input(item, options)}
                add_arrays(store, item.name, Track.outputs, arrays, replace_existing=True)
                item.refresh()
                note(f"{item.name}: {plural(int(item.array('track').max(initial=-1)) + 1, 'track')}")


def are_people(sure: Ints, certain: npt.NDArray[np.bool_], min_faces: int | None = None) -> npt.NDArray[np.bool_]:
    """Return bool (n,): true for groups with enough sure faces (`sure`) to be a person.

    `certain` (n,): true if the detector was very sure of one of the group's faces.
    """
    return np.asarray(sure >= (np.where(certain, VERY_SURE_FACES, SURE_FACES) if min_faces is None else min_faces))


def _as_before(groups: Groups, taken: Sequence[_Taken], wanted: set[int], free: set[int]) -> dict[int, int]:
    """Return the groups that get back the id that most of their faces had; each id and each group once."""
    counts: Counter[tuple[int, int]] = Counter()
    for one in taken:
        if one.before is None:
            continue
        of_track = np.append(np.where(one.point >= 0, groups.group[one.point], UNKNOWN), UNKNOWN)
        group = of_track[one.item.array("track")]
        pairs, times = np.unique(np.stack([one.before, group]), axis=1, return_counts=True)
        for number, at, count in zip(*pairs.tolist(), times.tolist(), strict=True):
            if number in free and at in wanted:
                counts[number, at] += count
    found: dict[int, int] = {}
    used: set[int] = set()
    for (number, at), _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
        if at not in found and number not in used:
            found[at] = number
            used.add(number)
    return found


def tracks_of_pins(item: RunInput, pins: Sequence[Pin]) -> list[int]:
    """Return the track that now has each pin's face; -1 if none has."""
    number, arrays = Moments(item).lasting, item.read(["n_faces", "box", "track"])
    wanted = np.flatnonzero(np.isin(number, [pin.frame for pin in pins])).tolist()
    place = {int(number[at]): at for at in wanted}
    starts = np.concatenate([[0], np.cumsum(arrays["n_faces"], dtype=np.int64)])
    found = []
    for pin in pins:
        at = place.get(pin.frame)
        if at is None or starts[at] == starts[at + 1]:
            found.append(UNKNOWN)
            continue
        rows = slice(int(starts[at]), int(starts[at + 1]))
        shared = overlap(np.array([pin.box]), arrays["box"][rows])[0]
        found.append(int(arrays["track"][rows][shared.argmax()]) if shared.max() >= 0.3 else UNKNOWN)
    return found


def settings_of(attributes: Mapping[str, Any]) -> dict[str, object]:
    """Return the settings that the attributes of an array `person` record."""
    return {name: attributes[name] for name in ("threshold", "min_faces") if name in attributes}


def write_people(
    item: RunInput, person: Int32, registry: Registry, settings: Mapping[str, object], store: RunStore | None = None
) -> None:
    """Write the array `person` of a complete input: int32 (n_faces,), -1 unknown. `store`: the input's, if it is open
    for writing already.
    """
    attributes = {
        "registry": os.path.relpath(registry.path, item.store_path),
        "registry_id": registry.id,
        "names": _names(person, registry),
        "tracks": signature(item),
        **settings,
    }
    specs = [replace(PERSON, attributes=attributes)]
    with RunStore.open(item.store_path) if store is None else contextlib.nullcontext(store) as writer:
        add_arrays(writer, item.name, specs, {"person": person}, replace_existing=True)
    item.refresh()


def _names(person: npt.NDArray[np.int32], registry: Registry) -> dict[str, str]:
    """Return the given names of the people that occur."""
    given = ((n, registry.people.get(n, Person()).name) for n in np.unique(person).tolist())
    return {str(n): name for n, name in given if name}

"""Split a person: some of the tracks become a new person, permanently."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import StoreError, UsageError
from pipeline.faces.people.clustering import Exemplar, Points, Tracks, group_points
from pipeline.faces.people.described import describe_tracks, sure_confidence
from pipeline.faces.people.gather import settings_of, write_people
from pipeline.faces.people.moments import Moments
from pipeline.faces.people.registry import Pin, Registry, Stored
from pipeline.faces.people.space import Space
from pipeline.store.read import RunInput
from pipeline.text import plural


@dataclass(frozen=True)
class _Part:
    """The tracks of a person in one input."""

    key: str
    stored: Stored
    tracks: Tracks
    numbers: npt.NDArray[np.int64]
    """int64 (n,): the person's tracks, ascending."""

    @property
    def item(self) -> RunInput:
        return self.stored.item


def _values(found: Sequence[_Part], name: str) -> npt.NDArray[Any]:
    """Return one fact of all tracks of the person."""
    return np.concatenate([getattr(part.tracks, name)[part.numbers] for part in found])


def planned(registry: Registry, number: int, tracks: Sequence[str] = (), parts: int = 2) -> list[dict[str, Any]]:
    """Return the parts that `split` would make, as JSON values: faces and tracks; the first keeps the id."""
    person = registry.resolve(number)
    found = _parts_of(registry, person)
    part_of = _listed(found, person, tracks) if tracks else _apart(found, person, parts)
    faces = _values(found, "faces")
    names = np.array([f"{part.item.name}:{track}" for part in found for track in part.numbers])
    return [
        {"faces": int(faces[part_of == part].sum()), "tracks": names[part_of == part].tolist()}
        for part in range(int(part_of.max()) + 1)
    ]


def split(registry: Registry, number: int, tracks: Sequence[str] = (), parts: int = 2) -> list[int]:
    """Move tracks (INPUT:TRACK) of a person to a new one; return the new ids.

    Without tracks, split the person into `parts` groups of faces that look alike. This changes the registry and the
    stores; the caller then calls `registry.save`.

    Raises UsageError if the tracks are not the person's or none would be left, StoreError if no store of theirs exists.
    """
    person = registry.resolve(number)
    found = _parts_of(registry, person)
    part_of = _listed(found, person, tracks) if tracks else _apart(found, person, parts)
    people = [person, *(registry.split(person) for _ in range(int(part_of.max())))]
    registry.apart |= set(itertools.combinations(people[1:], 2))
    owner = np.array(people)[part_of]
    # Later runs must not undo the split: one face of every track records its person.
    registry.pins = [pin for pin in registry.pins if pin.person != person]
    at = 0
    for part in found:
        mine = owner[at : at + len(part.numbers)]
        at += len(part.numbers)
        registry.pins += _pins(part, mine)
        # Write the input's people again, and its counts.
        of_track = np.full(len(part.tracks.faces) + 1, -1, np.int32)
        of_track[part.numbers] = mine
        before, track = part.stored.person, part.item.array("track")
        after = np.where(before == person, of_track[track], before).astype(np.int32)
        write_people(part.item, after, registry, settings_of(part.item.arrays["person"].attributes))
        counts = np.bincount(after[after > 0])
        registry.inputs[part.key] = {int(n): int(counts[n]) for n in np.flatnonzero(counts)}
    for one in people:
        registry.people[one].exemplars = _exemplars(found, owner == one)
    return people[1:]


def seen_together(registry: Registry, numbers: Sequence[int]) -> dict[str, str]:
    """Return inputs (by key) with two of these people in one frame, and the place of the first: a time, or a picture.

    Ignore inputs whose stores are missing.
    """
    people, found = [registry.resolve(number) for number in numbers], {}
    several = [key for key, counts in registry.inputs.items() if sum(bool(counts.get(one)) for one in people) > 1]
    for key, one in registry.stored(several):
        if one is None:
            continue
        try:
            frame = one.item.array("face_frame")
        except StoreError:
            continue
        mine = np.isin(one.person, people)
        pairs = np.unique(np.stack([frame[mine], one.person[mine]]), axis=1)
        both = pairs[0, 1:][np.diff(pairs[0]) == 0]
        if len(both):
            found[key] = Moments(one.item).place(int(both[0]))
    return found


def described(one: Stored) -> Tracks:
    """Return the facts of the tracks of a stored input."""
    space = Space.of(one.item.arrays["embedding"].attributes)
    return describe_tracks(one.item, space, sure_confidence(one.run.attributes.get("workflow", {})))


def _parts_of(registry: Registry, person: int) -> list[_Part]:
    found, gone = [], []
    for key, one in registry.stored([key for key, counts in registry.inputs.items() if counts.get(person)]):
        if one is None:
            gone.append(key)
            continue
        numbers = np.unique(one.item.array("track")[one.person == person])
        found.append(_Part(key, one, described(one), numbers[numbers >= 0].astype(np.int64)))
    if not found:
        raise StoreError(
            f"person {person} cannot be split: none of their stores exists any more ({', '.join(gone) or 'none known'})"
        )
    return found


def _listed(found: Sequence[_Part], person: int, tracks: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return int64 over the tracks of all parts: 1 for the listed tracks, 0 for the others."""
    wanted = []
    for text in tracks:
        name, _, number = text.rpartition(":")
        if not name or not number.isdecimal():
            raise UsageError(f"{text!r} is not a track; write INPUT:TRACK, as in clip:3")
        wanted.append((name, int(number)))
    names = [(part.item.name, int(track)) for part in found for track in part.numbers]
    for name, track in wanted:
        if (name, track) not in names:
            mine = ", ".join(f"{a}:{b}" for a, b in names[:12]) + (", ..." if len(names) > 12 else "")
            raise UsageError(f"track {name}:{track} is not one of person {person}; theirs are {mine}")
    part_of = np.array([name in wanted for name in names], np.int64)
    if part_of.all():
        raise UsageError(f"these are all tracks of person {person}; leave at least one out")
    return part_of


def _apart(found: Sequence[_Part], person: int, parts: int) -> npt.NDArray[np.int64]:
    """Return int64: part of each track; part 0 has most faces."""
    from scipy.cluster.hierarchy import fcluster, linkage

    vectors, faces = _values(found, "vector"), _values(found, "faces")
    usable = np.isfinite(vectors).all(axis=1)
    if usable.sum() < parts:
        raise UsageError(
            f"person {person} has {plural(int(usable.sum()), 'track')}, too few for {parts} parts; "
            "one track is one person"
        )
    cut = fcluster(linkage(vectors[usable], "average"), parts, "maxclust")
    size = np.bincount(cut, weights=faces[usable])
    rank = np.argsort(np.argsort(-size, kind="stable"), kind="stable")
    part_of = np.zeros(len(vectors), np.int64)
    part_of[usable] = rank[cut]
    return part_of


def _pins(part: _Part, owner: npt.NDArray[np.int64]) -> list[Pin]:
    """Return one pin for every track: its face in the middle."""
    number, arrays = Moments(part.item).lasting, part.item.read(["track", "face_frame", "box"])
    fingerprint = str(part.item.attributes.get("fingerprint"))
    pins = []
    for track, person in zip(part.numbers.tolist(), owner.tolist(), strict=True):
        rows = np.flatnonzero(arrays["track"] == track)
        row = int(rows[len(rows) // 2])
        x, y, w, h = (round(float(side), 1) for side in arrays["box"][row])
        pins.append(Pin(part.key, fingerprint, int(number[arrays["face_frame"][row]]), (x, y, w, h), person))
    return pins


def _exemplars(found: Sequence[_Part], chosen: npt.NDArray[np.bool_]) -> list[Exemplar]:
    """Return the exemplars of the chosen tracks: one mean, or several if they differ by more than is usual."""
    kept = chosen & np.isfinite(_values(found, "vector")).all(axis=1)
    if not kept.any():
        return []
    vector, spread, weight = (_values(found, name)[kept] for name in ("vector", "spread", "weight"))
    points = Points(vector, spread, spread, weight, np.ones(len(vector), np.int64), np.ones(len(vector), bool))
    threshold = Space.of(found[0].item.arrays["embedding"].attributes).threshold
    return group_points(points, np.empty((0, 2), np.int64), threshold).looks[0]

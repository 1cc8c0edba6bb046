"""Undoing names, merges and splits: the registry keeps what was before each of the last ones.

A change is undone on what is there now, so new footage, new people and new looks stay. Its record lies in the registry
itself: one file, one atomic write. `forget` deletes all records, because they hold looks and names.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from pipeline.errors import StoreError, UsageError
from pipeline.faces.people.described import signature
from pipeline.faces.people.gather import settings_of, write_people
from pipeline.faces.people.registry import Registry, Stored, from_json, to_json
from pipeline.faces.people.split import described
from pipeline.store.run import RunStore

Kind = Literal["name", "merge", "split"]
MOST_CHANGES = 100
"""Number of changes that can be undone."""
MOST_BYTES = 4 << 20
"""Bytes of their records: every view reads the registry. The last change is kept whatever its size."""


@dataclass(frozen=True)
class Change:
    """A change as it was recorded."""

    kind: Kind
    text: str
    """One line for the user."""
    at: str
    """Time of the change, ISO 8601."""
    kept: int
    """Id of the person who was named, or whom the change left with the id."""
    made: list[int]
    """Ids of the people that a split made."""
    before: Registry
    """The people of the change, with all that the registry held of them and of no other."""
    tracks: dict[str, tuple[str, dict[int, list[int]]]]
    """Tracks of people that a merge gave to another, by input, and the signature of the input's tracks."""


@dataclass(frozen=True)
class Snapshot:
    """The state before a change that is about to be made."""

    before: dict[str, Any]
    tracks: dict[str, Any]

    @classmethod
    def of(cls, registry: Registry, numbers: Sequence[int], gone: Collection[int] = ()) -> Snapshot:
        """Copy what the registry holds of these people, and the tracks of those who are about to be merged away."""
        ids = set(numbers)
        part = replace(
            registry,
            people={number: registry.people[number] for number in ids},
            merged={old: new for old, new in registry.merged.items() if new in ids},
            forgotten=[],
            apart={pair for pair in registry.apart if ids & {*pair}},
            pins=[pin for pin in registry.pins if pin.person in ids],
            inputs={
                key: mine
                for key, counts in registry.inputs.items()
                if (mine := {number: count for number, count in counts.items() if number in ids})
            },
            history=[],
        )
        theirs = [key for key, counts in registry.inputs.items() if any(counts.get(number) for number in gone)]
        tracks = {
            key: [signature(one.item), {str(number): _tracks(one, number).tolist() for number in gone}]
            for key, one in registry.stored(theirs)
            if one is not None
        }
        return cls(to_json(part), tracks)

    @classmethod
    def of_name(cls, registry: Registry, number: int) -> Snapshot:
        """Copy a person's name, without looks and places."""
        person = replace(registry.people[number], exemplars=[])
        bare = Registry(registry.path, registry.id, registry.model, registry.align, {number: person})
        return cls(to_json(bare), {})

    def record(self, registry: Registry, kind: Kind, text: str, kept: int, made: Sequence[int] = ()) -> None:
        """Add the change that was made since to the registry's history; the caller saves it."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        entry = {"change": kind, "text": text, "at": at, "kept": kept, "made": list(made), **vars(self)}
        history = [*registry.history, entry][-MOST_CHANGES:]
        sizes = np.cumsum([len(json.dumps(one)) for one in reversed(history)])
        registry.history = history[-max(1, int(np.count_nonzero(sizes <= MOST_BYTES))) :]


def last_change(registry: Registry) -> Change:
    """Return the change that `undo` would undo. Raises UsageError if there is none, StoreError if it is damaged."""
    if not registry.history:
        raise UsageError(f"nothing to undo: {registry.path} holds no name, merge or split that could be undone")
    try:
        entry = registry.history[-1]
        kind = entry["change"]
        if kind not in get_args(Kind):
            raise ValueError(f"{kind!r:.80} is not a change")
        before = from_json(registry.path, entry["before"])
        kept, made = int(entry["kept"]), [int(number) for number in entry["made"]]
        if kept not in before.people or (before.model, before.align) != (registry.model, registry.align):
            raise ValueError("it does not fit its registry")
        tracks = {
            str(key): (str(mark), {int(number): [int(track) for track in some] for number, some in theirs.items()})
            for key, (mark, theirs) in entry["tracks"].items()
        }
        found = Change(kind, str(entry["text"]), str(entry["at"]), kept, made, before, tracks)
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as err:
        what = f"no {err}" if isinstance(err, KeyError) else str(err)
        raise StoreError(
            f"the last change in {registry.path} is damaged ({what:.200}) and cannot be undone; restore that file, or "
            "make the change with name, merge and split"
        ) from err
    there = {found.kept, *found.made, *(found.before.people if found.kind != "merge" else ())}
    away = sorted(there - registry.people.keys()) or sorted({*found.before.people} & {*registry.forgotten})
    if away:
        raise StoreError(
            f"{found.text} cannot be undone: {registry.path} has no person {away[0]} any more; restore that file, or "
            "make the change with name, merge and split"
        )
    return found


def undo(registry: Registry) -> tuple[Change, list[str]]:
    """Undo the last change in the registry and its stores; return it, and a note for each input that is away.

    The caller then calls `registry.save`: a kill before that leaves stores that fit the registry, and the same call
    again does the rest. Raises UsageError if there is nothing to undo, StoreLockedError if a run writes to a store.
    """
    change = last_change(registry)
    before = change.before
    if change.kind == "name":
        was, person = before.people[change.kept], registry.people[change.kept]
        person.name, person.decided = was.name, was.decided
        registry.history.pop()
        return change, []
    gone, touched = before.people.keys() - {change.kept}, {*before.people, *change.made}
    keys = [key for key, counts in registry.inputs.items() if touched & counts.keys()]
    stored = dict(registry.stored(keys))
    for number in change.made:
        del registry.people[number]
    registry.people |= before.people
    same = {old: change.kept if new in change.made else new for old, new in registry.merged.items() if old not in gone}
    registry.merged = same | before.merged | dict.fromkeys(change.made, change.kept)
    registry.pins = [pin for pin in registry.pins if pin.person not in touched] + before.pins
    registry.apart = {pair for pair in registry.apart if not touched & {*pair}} | before.apart
    notes, rewritten = [], []
    for key, one in stored.items():
        counts = registry.inputs[key]
        if one is None:
            notes.append(f"{key}: its store is away, damaged, or has other people by now; its faces stay as they are")
            faces = sum(counts.pop(number, 0) for number in touched)
            counts |= (mine := before.inputs.get(key, {}))
            counts[change.kept] = counts.get(change.kept, 0) + faces - sum(mine.values())
            continue
        owner = _owners(one, change, key)
        if (owner != one.item.array("person")).any():
            rewritten.append((one, owner))
        registry.inputs[key] = {number: count for number, count in counts.items() if number not in touched} | {
            number: count for number in before.people if (count := int(np.count_nonzero(owner == number)))
        }
    with contextlib.ExitStack() as locks:
        places = dict.fromkeys(one.item.store_path for one, _ in rewritten)
        writers = {place: locks.enter_context(RunStore.open(place)) for place in places}
        for one, owner in rewritten:
            settings = settings_of(one.item.arrays["person"].attributes)
            write_people(one.item, owner, registry, settings, writers[one.item.store_path])
    registry.history.pop()
    return change, notes


def _owners(one: Stored, change: Change, key: str) -> npt.NDArray[np.int32]:
    """Return the person of each face of an input, int32 (n_faces,), without the change."""
    owner = one.person.copy()
    if change.made:
        owner[np.isin(owner, change.made)] = change.kept
        return owner
    raw = one.item.array("person")
    gone = {*change.before.people} - {change.kept}
    ids = {number: number for number in gone} | {old: new for old, new in change.before.merged.items() if new in gone}
    if np.isin(raw, list(ids)).any():  # not written since the merge
        for old, number in ids.items():
            owner[raw == old] = number
        return owner
    mark, tracks = change.tracks.get(key, ("", {}))
    if mark != signature(one.item):
        known = change.before.inputs.get(key, {})
        if known and not gone & known.keys():
            return owner  # it had none of those who were merged away
        tracks = _nearest(one, change)
    track = one.item.array("track")
    for number, theirs in tracks.items():
        owner[np.isin(track, theirs) & (owner == change.kept)] = number
    return owner


def _nearest(one: Stored, change: Change) -> dict[int, list[int]]:
    """Return the tracks of each person of a merge in an input that came, or got other tracks, after it: by looks."""
    numbers = _tracks(one, change.kept)
    vectors = described(one).vector[numbers]
    numbers, vectors = numbers[np.isfinite(vectors).all(axis=1)], vectors[np.isfinite(vectors).all(axis=1)]
    people = [number for number, person in change.before.people.items() if person.exemplars]
    if not len(numbers) or not people:
        return {}
    distance = [
        np.min([((vectors - each.vector) ** 2).sum(axis=1) + each.spread for each in looks], axis=0)
        for looks in (change.before.people[number].exemplars for number in people)
    ]
    chosen = np.array(people)[np.argmin(distance, axis=0)]
    return {number: numbers[chosen == number].tolist() for number in people}


def _tracks(one: Stored, number: int) -> npt.NDArray[np.int64]:
    """Return the tracks of a person in an input, ascending."""
    found = np.unique(one.item.array("track")[one.person == number])
    return found[found >= 0].astype(np.int64)

"""The registry of people: a JSON file that keeps ids, names, merges and splits while stores come and go.

An id is given only once. The user's decisions (names, merges, splits) are kept apart from computed values, so that they
stay however often the rest is computed again.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shlex
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import StoreError, UsageError
from pipeline.faces.people.clustering import Exemplar as Exemplar
from pipeline.files.checksum import sealed, unseal
from pipeline.files.lock import StoreLock
from pipeline.files.regular import read_file
from pipeline.files.whole import atomic_write
from pipeline.store.nodes import disk_errors, located
from pipeline.store.read import Run, RunInput
from pipeline.store.read import open as open_store

FORMAT = 1
FILE_NAME = "people.json"
DEFAULT_REGISTRIES = (Path(FILE_NAME), Path("runs") / FILE_NAME)
"""Registries that `people name`, `merge`, `split`, `undo` and `list` try without --registry, in this order."""
LARGEST_ID = 2**31 - 2
"""Ids are stored as int32, and there must be one that follows."""


def found_here() -> Path | None:
    """Return the registry that `people name` and its like take without --registry; None if there is none."""
    return next((located(path) for path in DEFAULT_REGISTRIES if path.is_file()), None)


def flag_for(registry: Path) -> str:
    """Return the flag with which `people name` and its like take this registry; "" if they find it from here."""
    path = located(registry)
    return "" if path == found_here() else f" --registry {shlex.quote(str(path))}"


@dataclass(frozen=True)
class Known:
    """The part of a registry that views need."""

    names: dict[int, str]
    merged: dict[int, int]
    """Ids that were merged, each with the id that it has now."""


def known(attributes: Mapping[str, Any], store_path: Path) -> Known | None:
    """Return names and merges of the registry that an array `person` names in its attributes.

    None if its file is missing, or is another registry by now: the same ids are then other people. Raises StoreError if
    it is damaged.
    """
    path = store_path / str(attributes.get("registry", ""))
    if not os.path.isfile(path):
        return None
    with _damage(path):
        content = _read(path)
        if attributes.get("registry_id") not in (None, content.get("id")):
            return None
        names = {int(key): str(one["name"]) for key, one in content["people"].items() if one.get("name")}
        return Known(names, {int(old): int(new) for old, new in content.get("merged", {}).items()})


def changeable(attributes: Mapping[str, Any], store_path: Path) -> Path | None:
    """Return the file that the attributes of an array `person` name as their registry, if it is there and they give an
    id too. Without one a stranger's store could have `people` and `forget` change any registry whose place it guesses.
    """
    path = store_path / str(attributes.get("registry", ""))
    return path if attributes.get("registry_id") is not None and os.path.isfile(path) else None


_ID = re.compile(r"(?:person )?(\d+)", re.IGNORECASE)
"""An id as users may write it: "3", or "person 3" as reports, films and exports call a person without a name."""


def called(names: Mapping[int, str | None], text: str) -> list[int]:
    """Return the ids of the people that a text means: an id, known or not, or else all people of a name (`names`).

    Case does not count. A name like "person 3" comes before the id.
    """
    if text.isdecimal():
        return [int(text)]
    found = sorted(number for number, name in names.items() if name and name.casefold() == text.casefold())
    numbered = _ID.fullmatch(text)
    return found or ([int(numbered[1])] if numbered else [])


def require_one(found: Sequence[int], text: str) -> None:
    """Raise UsageError if several people are called by a text."""
    if len(found) > 1:
        ids = ", ".join(map(str, found))
        raise UsageError(f"{len(found)} people are called {text!r}: {ids}; give the id")


@dataclass
class Person:
    """One person."""

    name: str | None = None
    decided: bool = False
    """True if a user named, merged or split them: then even `--again` keeps them."""
    exemplars: list[Exemplar] = field(default_factory=list)
    twice: bool = False
    """True if two faces of one frame may be theirs: a user merged people seen side by side (a mirror)."""


@dataclass(frozen=True)
class Pin:
    """A face that a user has assigned to a person; it decides for the track that has this face later."""

    input: str
    """Key of the input (`Registry.key`)."""
    fingerprint: str
    """Fingerprint of the file, so that the pin does not apply to another file of the same name."""
    frame: int
    """Rank of the frame in the file."""
    box: tuple[float, float, float, float]
    """x, y, w, h in pixels."""
    person: int


@dataclass(frozen=True)
class Stored:
    """An input whose people are of this registry, in its store."""

    run: Run
    item: RunInput
    person: npt.NDArray[np.int32]
    """int32 (n_faces,): the ids that people have now, -1 unknown."""


@dataclass
class Registry:
    """All known people by one model's embeddings. Change and save it within `edit`, which locks others out."""

    path: Path
    id: str
    model: str
    align: str
    people: dict[int, Person] = field(default_factory=dict)
    merged: dict[int, int] = field(default_factory=dict)
    """Ids that are another person's now, never in two steps."""
    forgotten: list[int] = field(default_factory=list)
    """Ids of people to be forgotten; they are not given again."""
    apart: set[tuple[int, int]] = field(default_factory=set)
    """Pairs, lower id first, that a user has declared to be two people."""
    pins: list[Pin] = field(default_factory=list)
    inputs: dict[str, dict[int, int]] = field(default_factory=dict)
    """Number of faces per person of each input, as last seen, by key."""
    next_id: int = 1
    history: list[Any] = field(default_factory=list)
    """Changes that can be taken back, as JSON values, the last one last (`undo.py`)."""

    @classmethod
    def load(cls, path: Path) -> Registry:
        """Read a registry. Raises UsageError if there is no file, StoreError if it is damaged or of another format."""
        if not path.is_file():
            raise UsageError(f"there is no registry at {path}; run: reelgraph people OUT, or say --registry FILE")
        with _damage(path):
            return from_json(path, _read(path))

    @classmethod
    def open(cls, path: Path, model: str, align: str) -> Registry:
        """Return the registry of a file, or a new one if there is none; of this model. Raises StoreError."""
        if not path.is_file():
            return cls(path, uuid.uuid4().hex, model, align)
        registry = cls.load(path)
        if (model, align) != (registry.model, registry.align):
            same = f"embed.align={registry.align}" if model == registry.model else f"embed.model={registry.model}"
            raise StoreError(
                f"{path} is of {registry.model} (align {registry.align}), these embeddings of {model} "
                f"(align {align}); use another registry (--registry FILE), or run again with --set {same}"
            )
        return registry

    def save(self) -> None:
        """Write the file in one atomic step. Raises StoreError."""
        with disk_errors(f"write the registry {self.path}"):
            atomic_write(self.path, json.dumps(sealed(to_json(self)), indent=1).encode())

    def resolve(self, number: int) -> int:
        """Return the id that a person has now. Raises UsageError if the id is unknown or forgotten."""
        found = self.merged.get(number, number)
        if found in self.people:
            return found
        if number in self.forgotten:
            raise UsageError(f"person {number} was forgotten; the id is not given again")
        ids = sorted(self.people)
        shown = ", ".join(map(str, ids[:20])) + (", ..." if len(ids) > 20 else "")
        raise UsageError(f"{self.path} has no person {number}; it has {shown or 'no people yet'}")

    def name(self, number: int, name: str) -> int:
        """Give a name, or with an empty one remove it; return the person's id. Raises UsageError."""
        found = self.resolve(number)
        if _ID.fullmatch(name.strip()):
            raise UsageError(f"the name {name!r} would be read as an id; give another one, such as 'guard 3'")
        self.people[found].name = name.strip() or None
        self.people[found].decided = True
        return found

    def named(self, name: str) -> list[int]:
        """Return the ids of all people of this name."""
        return [number for number, one in sorted(self.people.items()) if one.name == name]

    def merge(self, numbers: Iterable[int]) -> int:
        """Merge people into the first of them and return its id. Raises UsageError.

        The first keeps its name; without one it takes the first name of the others.
        """
        ids = list(dict.fromkeys(self.resolve(number) for number in numbers))
        if len(ids) < 2:
            raise UsageError(f"merge needs the ids of two different people, not {', '.join(map(str, ids))}")
        first, others = ids[0], ids[1:]
        kept = self.people[first]
        for other in others:
            gone = self.people.pop(other)
            kept.name = kept.name or gone.name
            kept.exemplars = [*kept.exemplars, *gone.exemplars]
            kept.twice = kept.twice or gone.twice
            self._replace(other, first)
        kept.decided = True
        return first

    def _replace(self, old: int, new: int) -> None:
        self.merged = {key: new if value == old else value for key, value in self.merged.items()} | {old: new}
        self.pins = [replace(pin, person=new) if pin.person == old else pin for pin in self.pins]
        moved = {_pair(*(new if one == old else one for one in pair)) for pair in self.apart}
        self.apart = {pair for pair in moved if pair[0] != pair[1]}
        for counts in self.inputs.values():
            if old in counts:
                counts[new] = counts.get(new, 0) + counts.pop(old)

    def split(self, number: int) -> int:
        """Add a person who is not this one. The caller pins tracks and makes the exemplars again. Raises UsageError."""
        old = self.resolve(number)
        new = self.new_person()
        self.apart.add(_pair(old, new))
        self.people[old].decided = self.people[new].decided = True
        return new

    def forget(self, number: int) -> list[int]:
        """Remove a person with exemplars, name and pins; return their ids, also of people merged into them.

        These ids are not given again. Raises UsageError.
        """
        found = self.resolve(number)
        gone = [found, *sorted(old for old, new in self.merged.items() if new == found)]
        self.retire(found)
        self.merged = {old: new for old, new in self.merged.items() if new != found}
        self.forgotten = sorted({*self.forgotten, *gone})
        self.history = []  # it holds looks and names of before, perhaps theirs
        self.pins = [pin for pin in self.pins if pin.person != found]
        self.apart = {pair for pair in self.apart if found not in pair}
        return gone

    def new_person(self) -> int:
        """Add a person with an id that was never given."""
        number = self.next_id
        self.next_id += 1
        self.people[number] = Person()
        return number

    def retire(self, number: int) -> None:
        """Remove a person who was not found again, or is to be forgotten; the id is not given again."""
        del self.people[number]
        for counts in self.inputs.values():
            counts.pop(number, None)

    def key(self, store: Path, name: str) -> str:
        """Return the key of an input: its store's path from the registry's folder, and its name."""
        return f"{os.path.relpath(store, self.path.parent)}:{name}"

    def store_of(self, key: str) -> tuple[Path, str]:
        """Return store and name of an input by its key."""
        place, _, name = key.rpartition(":")
        return Path(os.path.normpath(self.path.parent / place)), name

    def faces(self, number: int) -> int:
        """Return the number of faces of a person in all inputs, as last seen."""
        return sum(counts.get(number, 0) for counts in self.inputs.values())

    def stored(self, keys: Iterable[str]) -> Iterator[tuple[str, Stored | None]]:
        """Yield each of these inputs by its key; None if its store is missing or damaged, or of another registry."""
        runs: dict[Path, Run] = {}
        for key in keys:
            place, name = self.store_of(key)
            found = None
            with contextlib.suppress(StoreError):
                run = runs[place] = runs[place] if place in runs else open_store(place)
                item = run.input(name)
                if item.arrays.get("person") and item.arrays["person"].attributes.get("registry_id") == self.id:
                    found = Stored(run, item, current(item.array("person"), self.merged))
            yield key, found


def current(person: npt.NDArray[np.int32], merged: Mapping[int, int]) -> npt.NDArray[np.int32]:
    """Return the ids that people have now: after a merge, an array holds the ids of before until the next run."""
    found = person.copy()
    for old, new in merged.items():
        found[person == old] = new
    return found


@contextlib.contextmanager
def edit(path: Path) -> Iterator[None]:
    """Hold the registry's lock: load, change and save within. Raises StoreLockedError if another process has it."""
    with disk_errors(f"write to {path.parent}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = StoreLock.acquire(path.parent, name=f".{path.name}.lock")
    try:
        yield
    finally:
        lock.release()


def _pair(a: int, b: int) -> tuple[int, int]:
    return (min(a, b), max(a, b))


@contextlib.contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Raise StoreError if the registry cannot be read, or does not have the form that is expected."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as err:
        what = f"no {err}" if isinstance(err, KeyError) else str(err)
        raise StoreError(
            f"the registry {path} cannot be read ({what}); restore it, or delete it and run people"
        ) from err


def _read(path: Path) -> dict[str, Any]:
    found = unseal(read_file(path))
    if isinstance(found.content, dict) and found.content.get("format", FORMAT) != FORMAT:
        written = found.content["format"]
        raise StoreError(f"{path} is a registry of format {written!r:.80}; this reelgraph reads format {FORMAT}")
    if found.flaw or not isinstance(found.content, dict):
        raise ValueError(found.flaw or "it is not a JSON object")
    return found.content


def from_json(path: Path, content: dict[str, Any]) -> Registry:
    """Return the registry of JSON values. Raises what `_damage` catches if they do not have the form of `to_json`."""

    def vector_of(text: str) -> npt.NDArray[np.float32]:
        vector = np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)
        if not len(vector) or not np.isfinite(vector).all():
            raise ValueError("an exemplar is not a vector of numbers")
        return vector

    people = {
        int(key): Person(
            one.get("name") or None,
            bool(one.get("decided")),
            [
                Exemplar(
                    vector_of(each["vector"]),
                    float(each["spread"]),
                    float(each["weight"]),
                    float(each.get("varied", each["spread"])),  # registries of earlier versions have none
                )
                for each in one.get("exemplars", [])
            ],
            bool(one.get("twice")),
        )
        for key, one in content["people"].items()
    }
    pins = []
    for one in content.get("pins", []):
        x, y, w, h = map(float, one["box"])
        place = str(one["input"]), str(one["fingerprint"]), int(one["frame"])
        pins.append(Pin(*place, (x, y, w, h), int(one["person"])))
    merged = {int(old): int(new) for old, new in content.get("merged", {}).items()}
    history = content.get("history", [])
    forgotten = [int(number) for number in content.get("forgotten", [])]
    taken = [0, *people, *merged, *forgotten]
    if not all(isinstance(one.name, str | None) for one in people.values()):
        raise ValueError("a name is not a text")
    if not isinstance(history, list):
        raise ValueError("history is not a list")
    lengths = {len(each.vector) for person in people.values() for each in person.exemplars}
    if min(taken) < 0 or max(taken) > LARGEST_ID or len(lengths) > 1:
        raise ValueError("an id is out of range, or exemplars differ in length")
    return Registry(
        path,
        str(content["id"]),
        str(content["model"]),
        str(content["align"]),
        people,
        merged,
        forgotten,
        {_pair(int(a), int(b)) for a, b in content.get("apart", [])},
        pins,
        {key: {int(k): int(n) for k, n in one.items()} for key, one in content.get("inputs", {}).items()},
        max(int(content.get("next_id", 1)), max(taken) + 1),
        history,
    )


def to_json(registry: Registry) -> dict[str, Any]:
    """Return the JSON values of a registry."""

    def text_of(vector: npt.NDArray[np.float32]) -> str:
        return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")

    return {
        "format": FORMAT,
        "id": registry.id,
        "model": registry.model,
        "align": registry.align,
        "next_id": registry.next_id,
        "people": {
            str(number): {
                "name": one.name,
                "decided": one.decided,
                **({"twice": True} if one.twice else {}),
                "exemplars": [
                    {
                        "vector": text_of(each.vector), "spread": round(each.spread, 6),
                        "weight": round(each.weight, 3), "varied": round(each.varied, 6),
                    }
                    for each in one.exemplars
                ],
            }
            for number, one in sorted(registry.people.items())
        },
        "merged": {str(old): new for old, new in sorted(registry.merged.items())},
        "forgotten": registry.forgotten,
        "apart": sorted(list(pair) for pair in registry.apart),
        "pins": [asdict(pin) for pin in registry.pins],
        "inputs": {key: {str(k): n for k, n in one.items()} for key, one in sorted(registry.inputs.items())},
        **({"history": registry.history} if registry.history else {}),
    }

"""Forgetting a person: every row, embedding and thumbnail goes from the stores, and the registry keeps a tombstone.

Who is forgotten is told by the array `person`; where that knows nobody, by `identity`, if the name is a gallery's. With
the rows go those of any other face that has the very same embedding (one picture stored twice). Faces that stay and are
alike are counted, never taken: who they are is for a person to say. `receipt.py` reads all stores again and proves it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import StoreError, UsageError
from pipeline.faces.people.registry import FILE_NAME, Registry, edit
from pipeline.faces.people.sameness import Sameness
from pipeline.store.chunks import read_chunk
from pipeline.store.nodes import NODE_FILE, chunk_folder
from pipeline.store.remove import Removal, blocks, remove_faces
from pipeline.store.run import InputStore, RunStore
from pipeline.text import unknown

FORGOTTEN = "forgotten"
"""Attribute of an input: what was removed of it, and when; without a name."""

Bools = npt.NDArray[np.bool_]
Note = Callable[[str], None]
Space = tuple[str, str, int]
"""Model, alignment, dimension: embeddings of two spaces cannot be compared."""


@dataclass(frozen=True)
class Who:
    """The person, as registry and stores know them."""

    id: int | None
    """In the registry; None for somebody whom only a gallery names."""
    ids: tuple[int, ...]
    """It, and those that were merged into it."""
    name: str | None
    registry: Path | None
    """None where there is no such file."""

    def __str__(self) -> str:
        if self.id is None:
            return str(self.name)
        return f"person {self.id}" + (f" ({self.name})" if self.name else "")


@dataclass(frozen=True)
class Found:
    """What one complete input holds of the person."""

    store: Path
    input: str
    path: str
    """Of the video."""
    faces: int
    rows: npt.NDArray[np.int64]
    """Of the person's faces."""
    same: int
    """Of these, those that only their embedding tells."""
    named: bool
    """Whether an attribute of an array holds the person's id and name."""


@dataclass(frozen=True)
class Alike:
    """Faces that stay, held against the person's by their embeddings."""

    store: Path
    input: str
    state: str
    """`people` where they were told apart, `not told apart`, `incomplete`, or `no embeddings`: nothing was compared."""
    faces: int
    alike: int
    """Within the model's threshold: perhaps the person."""
    people: dict[int, int] = field(default_factory=dict)
    """How many of these each person has, -1 being nobody."""


@dataclass(frozen=True)
class Search:
    """Everything that is to go, and what is near it."""

    who: Who
    found: tuple[Found, ...]
    alike: tuple[Alike, ...]
    galleries: tuple[str, ...]
    """Folders whose pictures name the person."""
    vectors: dict[Space, tuple[npt.NDArray[np.float32], float | None]]
    """The embeddings that go, and the threshold of their model."""

    @property
    def faces(self) -> int:
        return sum(len(one.rows) for one in self.found)


def search(outs: Sequence[Path], person: str, registry: Path | None = None, note: Note = lambda _: None) -> Search:
    """Find all that stores hold of a person (an id, or a name). Reads only.

    Raises UsageError where nobody is called so, or where their registry knows of faces in a store that is not named,
    StoreError where a store is damaged or of another registry.
    """
    sources = [source for out in _places(outs) for source in _inputs(out)]
    who = _who(outs, sources, person, registry)
    _require_every_store(who, _places(outs))
    complete = [source for source in sources if _is_compacted(source)]
    gone: dict[tuple[str, str], Bools] = {}
    for source in complete:
        note(f"searching {source.name} in {source.path}")
        gone[source.path, source.name] = rows_of(source, who)
    told = {key: rows.copy() for key, rows in gone.items()}
    vectors = _with_the_same(complete, gone)
    found = [_found(source, gone[source.path, source.name], told[source.path, source.name], who) for source in complete]
    matcher = sameness(vectors)
    alike = [_alike(source, matcher, gone.get((source.path, source.name))) for source in sources]
    return Search(
        who,
        tuple(one for one in found if len(one.rows) or one.named),
        tuple(one for one in alike if one is not None),
        tuple(dict.fromkeys(folder for source in complete for folder in _galleries(source, who))),
        vectors,
    )


def forget(
    outs: Sequence[Path], person: str, registry: Path | None = None, note: Note = lambda _: None
) -> tuple[Search, dict[tuple[Path, str], Removal]]:
    """Remove a person from stores and registry; what was found, and what was rewritten of each input.

    No other process can write to the stores meanwhile. A kill leaves each input as it was or without the person; the
    same call again does the rest. Raises as `search` does, and StoreLockedError where a run is under way.
    """
    with contextlib.ExitStack() as locks:
        stores = {out: locks.enter_context(_writable(out)) for out in _places(outs)}
        path = _registry_path(outs, [source for out in stores for source in _inputs(out)], registry)
        if path is not None:
            locks.enter_context(edit(path))
        findings = search(outs, person, registry, note)
        done = {}
        for one in findings.found:
            note(f"rewriting {one.input} in {one.store}: {len(one.rows)} of {one.faces} faces go")
            done[one.store, one.input] = _rewrite(stores[one.store], one, findings.who)
        if findings.who.registry is not None and findings.who.id is not None:
            _bury(findings.who.registry, findings.who.ids)  # last: until here its names find the person again
    return findings, done


def _writable(out: Path) -> RunStore:
    require_stores([out])
    return RunStore.open(out)


def require_stores(outs: Sequence[Path]) -> None:
    """Raise StoreError where one of the paths is no store: opening it for writing would make one."""
    for out in outs:
        RunStore.open(out, mode="r")


def _places(outs: Sequence[Path]) -> list[Path]:
    """Each store once, in order."""
    return list(dict.fromkeys(out.expanduser().resolve() for out in outs))


def _inputs(out: Path) -> Iterator[InputStore]:
    store = RunStore.open(out, mode="r")
    return (store.input(name) for name in store.input_names())


def _is_compacted(source: InputStore) -> bool:
    return bool(source.attributes.get("complete"))


# --- who ------------------------------------------------------------------------------------------------------------


def _who(outs: Sequence[Path], sources: Sequence[InputStore], person: str, registry: Path | None) -> Who:
    path = _registry_path(outs, sources, registry)
    known = Registry.load(path) if path is not None else None
    _require_one_registry(sources, known)
    people = {number: one.name for number, one in known.people.items()} if known is not None else {}
    for source in sources:
        for key, name in (_attributes_of(source, "person").get("names") or {}).items():
            people.setdefault(int(key), name)
    merged = known.merged if known is not None else {}
    if person.isdecimal():
        ids = {*people, *merged, *(known.forgotten if known is not None else ())}
        return _by_id(int(person), people, merged, ids, sources, path)
    called = sorted({merged.get(key, key) for key, name in people.items() if _alike_names(name, person)})
    if len(called) > 1:
        raise UsageError(f"{len(called)} people are called {person!r}: {', '.join(map(str, called))}; give the id")
    if called:
        return Who(called[0], _ids(called[0], merged), people.get(called[0]), path)
    in_galleries = {name for source in sources for name in _attributes_of(source, "identity").get("names") or ()}
    pictured = next((name for name in sorted(in_galleries) if _alike_names(name, person)), None)
    if pictured is not None:
        return Who(None, (), pictured, path)
    raise UsageError(unknown("person", person, sorted({*filter(None, people.values()), *in_galleries})))


def _require_every_store(who: Who, outs: Sequence[Path]) -> None:
    """Without its registry's entry, what other stores hold of a person would be found by no name any more."""
    if who.registry is None or who.id is None:
        return
    known = Registry.load(who.registry)
    left: dict[Path, int] = {}
    for key, counts in known.inputs.items():
        store, _ = known.store_of(key)
        faces = sum(counts.get(number, 0) for number in who.ids)
        if faces and store.resolve() not in outs and store.is_dir():
            left[store] = left.get(store, 0) + faces
    if left:
        named = ", ".join(f"{store} ({faces} faces)" for store, faces in sorted(left.items()))
        raise UsageError(f"{who} is in {named} too; name every store of theirs, so that all is removed together")


def _alike_names(one: str | None, other: str | None) -> bool:
    """Whether two names are one; case does not count."""
    return one is not None and other is not None and one.casefold() == other.casefold()


def _by_id(
    number: int, people: Mapping[int, str | None], merged: Mapping[int, int], known: set[int],
    sources: Sequence[InputStore], registry: Path | None,
) -> Who:  # fmt: skip
    last = merged.get(number, number)
    if number not in known and not any(_occurs(source, number) for source in sources):
        raise UsageError(f"there is no person {number} in {registry or 'these stores'}; `reelgraph people` lists them")
    return Who(last, _ids(last, merged), people.get(last), registry)


def _ids(number: int, merged: Mapping[int, int]) -> tuple[int, ...]:
    return (number, *sorted(old for old, new in merged.items() if new == number))


def _occurs(source: InputStore, number: int) -> bool:
    if "person" not in source.group().arrays:
        return False
    return any(bool((rows == number).any()) for _, rows in blocks(source, "person"))


def _attributes_of(source: InputStore, array: str) -> dict[str, Any]:
    attributes: dict[str, Any] = source.group().arrays.get(array, {}).get("attributes", {})
    return attributes


# --- the registry -----------------------------------------------------------------------------------------------------


def _registry_path(outs: Sequence[Path], sources: Sequence[InputStore], given: Path | None) -> Path | None:
    """The file that is named, else the one that the stores name, else the one beside the first store; None for none."""
    if given is not None:
        if not given.is_file():
            raise UsageError(f"there is no registry {given}; leave --registry out to take that of the stores")
        return given
    named = (
        Path(source.path) / str(_attributes_of(source, "person")["registry"])
        for source in sources
        if "registry" in _attributes_of(source, "person")
    )
    candidates = [*named, *(out.parent / FILE_NAME for out in _places(outs))]
    return next((path.resolve() for path in candidates if path.is_file()), None)


def _require_one_registry(sources: Sequence[InputStore], known: Registry | None) -> None:
    """Ids of two registries are two people's."""
    first = (known.id, f"the registry {known.path}") if known is not None else None
    for source in sources:
        found = _attributes_of(source, "person").get("registry_id")
        if found is None:
            continue
        first = first or (str(found), f"{source.name!r} in {source.path}")
        if str(found) != first[0]:
            raise StoreError(
                f"{source.name!r} in {source.path} has ids of the registry {found}, but {first[1]} of {first[0]}: they "
                "are not the same people; name that store alone, with its own --registry"
            )


def _bury(path: Path, ids: Sequence[int]) -> None:
    """Leave nothing of a person in a registry, whose lock is held, but that the ids are taken for ever."""
    registry = Registry.load(path)
    if ids[0] in registry.people:
        registry.forget(ids[0])
    registry.forgotten = sorted({*registry.forgotten, *ids})
    registry.save()


# --- rows -------------------------------------------------------------------------------------------------------------


def rows_of(source: InputStore, who: Who) -> Bools:
    """bool (n_faces,): faces of the person in a complete input, as its arrays say. Raises StoreError.

    Of somebody whom the registry knows, the gallery's word counts for faces that are nobody's; else for all.
    """
    arrays = source.group().arrays
    if "face_frame" not in arrays:
        return np.zeros(0, bool)
    rows = np.zeros(int(arrays["face_frame"]["shape"][0]), bool)
    untold = np.ones(len(rows), bool)
    if "person" in arrays:
        for start, person in blocks(source, "person"):
            part = slice(start, start + len(person))
            rows[part] = np.isin(person, who.ids)
            untold[part] = person < 0 if who.id is not None else True
    if "identity" in arrays and who.name is not None:
        names = _attributes_of(source, "identity").get("names") or []
        theirs = [row for row, name in enumerate(names) if _alike_names(name, who.name)]
        for start, identity in blocks(source, "identity"):
            part = slice(start, start + len(identity))
            rows[part] |= np.isin(identity, theirs) & untold[part]
    return rows


def space_of(source: InputStore) -> tuple[Space, float | None] | None:
    """Of an input's embeddings, with the cosine threshold of their model; None where it has none."""
    content = source.group().arrays.get("embedding")
    if content is None:
        return None
    attributes = content["attributes"]
    threshold = attributes.get("thresholds", {}).get("cosine")
    return (str(attributes.get("model")), str(attributes.get("align")), int(content["shape"][1])), threshold


def _with_the_same(
    complete: Sequence[InputStore], gone: dict[tuple[str, str], Bools]
) -> dict[Space, tuple[npt.NDArray[np.float32], float | None]]:
    """Add faces with the very same embedding to those that go, until there is none; all embeddings that go."""
    while True:
        vectors = _vectors(complete, gone)
        matcher = sameness(vectors)
        more = False
        for source in complete:
            spaced = space_of(source)
            if spaced is None or spaced[0] not in matcher:
                continue
            rows = gone[source.path, source.name]
            for start, block in blocks(source, "embedding"):
                part = slice(start, start + len(block))
                stays = np.flatnonzero(~rows[part])
                new = stays[matcher[spaced[0]].same(block[stays])]
                more = more or len(new) > 0
                rows[start + new] = True
        if not more:
            return vectors


def _vectors(
    complete: Sequence[InputStore], gone: Mapping[tuple[str, str], Bools]
) -> dict[Space, tuple[npt.NDArray[np.float32], float | None]]:
    """The embeddings of the faces that go: the only ones held together in memory."""
    pieces: dict[Space, list[np.ndarray]] = {}
    thresholds: dict[Space, float | None] = {}
    for source in complete:
        rows, spaced = gone[source.path, source.name], space_of(source)
        if spaced is None or not rows.any():
            continue
        thresholds[spaced[0]] = spaced[1]
        found = [block[rows[start : start + len(block)]] for start, block in blocks(source, "embedding")]
        pieces.setdefault(spaced[0], []).extend(found)
    return {space: (np.concatenate(found), thresholds[space]) for space, found in pieces.items()}


def sameness(vectors: Mapping[Space, tuple[npt.NDArray[np.float32], float | None]]) -> dict[Space, Sameness]:
    return {space: Sameness(*content) for space, content in vectors.items()}


def _found(source: InputStore, rows: Bools, told: Bools, who: Who) -> Found:
    path = str(source.attributes.get("path", ""))
    named = bool(_cleaned(source, who))
    same = int(rows.sum() - told.sum())
    return Found(Path(source.path), source.name, path, len(rows), np.flatnonzero(rows), same, named)


def _galleries(source: InputStore, who: Who) -> list[str]:
    attributes = _attributes_of(source, "identity")
    names = attributes.get("names") or ()
    return [str(attributes.get("gallery"))] if any(_alike_names(name, who.name) for name in names) else []


def _cleaned(source: InputStore, who: Who) -> dict[str, dict[str, Any]]:
    """Attributes without the person, of the arrays that have a copy of the registry's names."""
    found = {}
    gone = {str(number) for number in who.ids}
    for name, content in source.group().arrays.items():
        attributes = content.get("attributes", {})
        names = attributes.get("names")
        if isinstance(names, dict) and gone & names.keys():
            found[name] = {**attributes, "names": {key: one for key, one in names.items() if key not in gone}}
    return found


def _rewrite(store: RunStore, one: Found, who: Who) -> Removal:
    source = store.input(one.input)
    gone = np.zeros(one.faces, bool)
    gone[one.rows] = True
    at = datetime.now(UTC).isoformat(timespec="seconds")
    entry = {"person": who.id, "faces": len(one.rows), "at": at}
    facts = {FORGOTTEN: [*source.attributes.get(FORGOTTEN, []), entry]} if len(one.rows) else {}
    return remove_faces(store, one.input, gone, _cleaned(source, who), facts)


# --- what stays and is alike ------------------------------------------------------------------------------------------


def _alike(source: InputStore, matcher: Mapping[Space, Sameness], gone: Bools | None) -> Alike | None:
    place = Path(source.path)
    if gone is None:
        counts = [(len(block), int(one.alike(block).sum())) for one, block in chunk_embeddings(source, matcher)]
        faces, alike = (sum(count[k] for count in counts) for k in (0, 1))
        return Alike(place, source.name, "incomplete", faces, alike)
    spaced = space_of(source)
    if spaced is None or spaced[0] not in matcher:
        return Alike(place, source.name, "no embeddings", 0, 0) if len(gone) and not gone.all() and matcher else None
    told = "person" in source.group().arrays
    people: dict[int, int] = {}
    for start, block in blocks(source, "embedding"):
        rows = start + np.flatnonzero(~gone[start : start + len(block)])
        rows = rows[matcher[spaced[0]].alike(block[rows - start])]
        person = source.read_rows("person", start, start + len(block))[rows - start] if told else np.full(len(rows), -1)
        for number, count in zip(*np.unique(person, return_counts=True), strict=True):
            people[int(number)] = people.get(int(number), 0) + int(count)
    state = "people" if told else "not told apart"
    return Alike(place, source.name, state, int((~gone).sum()), sum(people.values()), people)


def chunk_embeddings(
    source: InputStore, matcher: Mapping[Space, Sameness]
) -> Iterator[tuple[Sameness, npt.NDArray[np.float32]]]:
    """Embeddings of an incomplete input, chunk by chunk, with what compares them; other models' are left out."""
    for index, record in source.records().items():
        if "embedding" not in record.get("arrays", {}):
            continue
        folder = chunk_folder(source.path, source.name, index)
        node = json.loads(Path(folder, "embedding", NODE_FILE).read_text(encoding="utf-8"))
        attributes = node.get("attributes", {})
        space = (str(attributes.get("model")), str(attributes.get("align")), int(node["shape"][1]))
        if space in matcher:
            yield matcher[space], read_chunk(source.path, source.name, index, ["embedding"], record)["embedding"]

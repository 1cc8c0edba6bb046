"""Forgetting a person: every row, embedding and thumbnail goes from the stores, and the registry keeps a tombstone.

The array `person` says which faces go; for faces without a name of the user's `identity` does, if the name is a
gallery's. With these rows go those of any other face that has the very same embedding (one picture stored twice). Faces
that stay and are alike are counted, never taken: a user must decide who they are. `receipt.py` reads all stores again
and proves it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import StoreError, UsageError
from pipeline.faces.people.labels import names_in_gallery, names_of_people
from pipeline.faces.people.registry import FILE_NAME, Registry, called, changeable, edit, require_one
from pipeline.faces.people.sameness import Sameness
from pipeline.faces.people.space import thresholds_of
from pipeline.store.nodes import located
from pipeline.store.remove import Removal, Rows, blocks, remove_rows
from pipeline.store.run import InputStore, RunStore
from pipeline.text import plural, unknown

FACES = Rows("face", "n_faces", "face_frame", {"shot": "thumbnail_face"})
"""Rows that go with a face: its thumbnail."""
FORGOTTEN = "forgotten"
"""Attribute of an input: person (an id, no name), number of faces and time of each removal."""

Bools = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Note = Callable[[str], None]
Embedded = tuple["EmbeddingKind", slice, Float32]


@dataclass(frozen=True)
class EmbeddingKind:
    """The model, alignment and size that embeddings must share to be compared."""

    model: str
    align: str
    dimension: int
    threshold: float | None = field(compare=False)
    """Cosine distance up to which two faces may be one person's; the model's own."""

    @classmethod
    def of(cls, node: Mapping[str, Any]) -> EmbeddingKind:
        """Return the kind of an array `embedding`, by its metadata."""
        attributes = node.get("attributes", {})
        threshold = thresholds_of(attributes).get("cosine")
        return cls(str(attributes.get("model")), str(attributes.get("align")), int(node["shape"][1]), threshold)


@dataclass(frozen=True)
class Who:
    """The person, as registry and stores know them."""

    id: int | None
    """Id in the registry; None for a person whom only a gallery names."""
    ids: tuple[int, ...]
    """The id, and those that were merged into it."""
    name: str | None
    registry: Path | None
    """None if there is no such file."""
    others: tuple[int, ...] = ()
    """Ids of the other people to whom the user gave a name, and those that were merged into them."""

    def __str__(self) -> str:
        if self.id is None:
            return str(self.name)
        return f"person {self.id}" + (f" ({self.name})" if self.name else "")


@dataclass(frozen=True)
class Holding:
    """The faces of the person in one complete input."""

    store: Path
    input: str
    path: str
    """Path of the video, or of the folder of pictures."""
    faces: int
    rows: npt.NDArray[np.int64]
    """Rows of the person's faces."""
    same: int
    """Number of these rows that only their embedding gives away."""
    named: bool
    """True if an attribute of an array holds the person's id and name."""
    is_film: bool


@dataclass(frozen=True)
class Alike:
    """Faces that stay, compared with the person's by their embeddings."""

    store: Path
    input: str
    state: str
    """`people` if its people are known, `not told apart`, `incomplete`, or `no embeddings`: nothing was compared."""
    faces: int
    alike: int
    """Number of faces within the model's threshold: perhaps the person."""
    people: dict[int, int] = field(default_factory=dict)
    """Number of these faces by person, -1 for unknown people."""


@dataclass(frozen=True)
class Search:
    """All data that is to go, and the faces near it."""

    who: Who
    found: tuple[Holding, ...]
    alike: tuple[Alike, ...]
    galleries: tuple[str, ...]
    """Folders whose pictures name the person."""
    other_names: tuple[tuple[str, str], ...]
    """Folder of a gallery, and another name that it gave to faces that go: its pictures may show the person."""
    vectors: dict[EmbeddingKind, Float32]
    """The embeddings that go."""

    @property
    def faces(self) -> int:
        return sum(len(one.rows) for one in self.found)


def search(outs: Sequence[Path], person: str, registry: Path | None = None, note: Note = lambda _: None) -> Search:
    """Find all that stores hold of a person (an id, or a name). Reads only.

    Raises UsageError if there is no such person, or if their registry knows of faces in a store that is not named.
    Raises StoreError if a store is damaged or of another registry.
    """
    places = _places(outs)
    sources = [source for out in places for source in _inputs(out)]
    who = _who(places, sources, person, registry)
    complete = [source for source in sources if source.attributes.get("complete")]
    gone: dict[str, Bools] = {}
    for source in complete:
        note(f"searching {source.name} in {source.path}")
        gone[source.folder] = rows_of(source, who)
    before = {folder: int(rows.sum()) for folder, rows in gone.items()}
    vectors = _with_the_same(complete, gone)
    found, galleries, others = [], [], set()
    for source in complete:
        rows, named = gone[source.folder], bool(_cleaned(source, who))
        path, same = str(source.attributes.get("path", "")), int(rows.sum()) - before[source.folder]
        if rows.any() or named:
            place = Path(source.path), source.name, path
            is_film = "time_seconds" in source.group().arrays
            found.append(Holding(*place, len(rows), np.flatnonzero(rows), same, named, is_film))
        identity = _attributes_of(source, "identity")
        if any(_same_name(name, who.name) for name in names_in_gallery(identity)):
            galleries.append(str(identity.get("gallery")))
        others |= {(str(identity.get("gallery")), name) for name in _given_names(source, rows)}
    others = {(folder, name) for folder, name in others if not _same_name(name, who.name)}
    matcher = sameness(vectors)
    alike = [one for source in sources if (one := _alike(source, matcher, gone.get(source.folder))) is not None]
    return Search(who, tuple(found), tuple(alike), tuple(dict.fromkeys(galleries)), tuple(sorted(others)), vectors)


def forget(
    outs: Sequence[Path], person: str, registry: Path | None = None, note: Note = lambda _: None
) -> tuple[Search, dict[tuple[Path, str], Removal]]:
    """Remove a person from stores and registry; return what was found, and what was rewritten of each input.

    No other process can write to the stores meanwhile. A kill leaves each input as it was or without the person; the
    same call again does the rest. Raises as `search` does, and StoreLockedError if a run is under way.
    """
    with contextlib.ExitStack() as locks:
        places = _places(outs)
        require_stores(places)
        stores = {out: locks.enter_context(RunStore.open(out)) for out in places}
        path = _registry_path(places, [source for out in stores for source in _inputs(out)], registry)
        if path is not None:
            locks.enter_context(edit(path))
        findings = search(outs, person, registry, note)
        if path is not None:
            _forget_history(path)
        done = {}
        for one in findings.found:
            note(f"rewriting {one.input} in {one.store}: {len(one.rows)} of {plural(one.faces, 'face')} go")
            store = stores[one.store]
            source = store.input(one.input)
            gone = np.zeros(one.faces, bool)
            gone[one.rows] = True
            at = datetime.now(UTC).isoformat(timespec="seconds")
            entry = {"person": findings.who.id, "faces": len(one.rows), "at": at}
            facts = {FORGOTTEN: [*source.attributes.get(FORGOTTEN, []), entry]} if len(one.rows) else {}
            cleaned = _cleaned(source, findings.who)
            done[one.store, one.input] = remove_rows(store, one.input, FACES, gone, cleaned, facts)
        if findings.who.registry is not None and findings.who.id is not None:
            _bury(findings.who.registry, findings.who.ids)  # last: until here its names find the person again
    return findings, done


def require_stores(outs: Sequence[Path]) -> None:
    """Raise StoreError if a path is not a store: opening it for writing would make one."""
    for out in outs:
        RunStore.open(out, mode="r")


def _places(outs: Sequence[Path]) -> list[Path]:
    """Return each store once, in order."""
    return list(dict.fromkeys(located(out) for out in outs))


def _inputs(out: Path) -> Iterator[InputStore]:
    store = RunStore.open(out, mode="r")
    return (store.input(name) for name in store.input_names())


def _who(outs: Sequence[Path], sources: Sequence[InputStore], person: str, registry: Path | None) -> Who:
    path = _registry_path(outs, sources, registry)
    known = Registry.load(path) if path is not None else None
    _require_one_registry(sources, known)
    people = {number: one.name for number, one in known.people.items()} if known is not None else {}
    for source in sources:
        for number, name in names_of_people(_attributes_of(source, "person")).items():
            people.setdefault(number, name)
    merged = known.merged if known is not None else {}
    in_galleries = sorted({name for one in sources for name in names_in_gallery(_attributes_of(one, "identity"))})
    found = called(people, person)
    require_one(sorted({merged.get(number, number) for number in found}), person)
    if found:
        number = found[0]
        known_ids = {*people, *merged, *(known.forgotten if known is not None else ())}
        with_people = (source for source in sources if "person" in source.group().arrays)
        parts = (part for source in with_people for _, part in blocks(source, "person"))
        if number not in known_ids and not any((part == number).any() for part in parts):
            where = path or "these stores"
            raise UsageError(f"there is no person {number} in {where}; `reelgraph people` lists them")
        number = merged.get(number, number)
        ids = (number, *sorted(old for old, new in merged.items() if new == number))
        named = {other for other, name in people.items() if name}
        named |= {old for old, new in merged.items() if new in named}  # stores may hold either
        others = tuple(sorted(named.difference(ids)))
        who = Who(number, ids, people.get(number), path, others)
        if known is not None:
            _require_every_store(who, known, outs)
        return who
    pictured = next((name for name in in_galleries if _same_name(name, person)), None)
    if pictured is not None:
        return Who(None, (), pictured, path)
    raise UsageError(unknown("person", person, sorted({*filter(None, people.values()), *in_galleries})))


def _require_every_store(who: Who, known: Registry, outs: Sequence[Path]) -> None:
    """Refuse to leave faces of the person in other stores: without the registry's entry no name would find them."""
    left: dict[Path, int] = {}
    for key, counts in known.inputs.items():
        store, _ = known.store_of(key)
        faces = sum(counts.get(number, 0) for number in who.ids)
        if faces and located(store) not in outs and store.is_dir():
            left[store] = left.get(store, 0) + faces
    if left:
        named = ", ".join(f"{store} ({plural(faces, 'face')})" for store, faces in sorted(left.items()))
        raise UsageError(f"{who} is in {named} too; name every store of theirs, so that all is removed together")


def _same_name(one: str | None, other: str | None) -> bool:
    """Return whether two names are equal; case does not count."""
    return one is not None and other is not None and one.casefold() == other.casefold()


def _attributes_of(source: InputStore, array: str) -> dict[str, Any]:
    attributes: dict[str, Any] = source.group().arrays.get(array, {}).get("attributes", {})
    return attributes


def _given_names(source: InputStore, rows: Bools) -> set[str]:
    """Return the names that a gallery gave to these faces."""
    if "identity" not in source.group().arrays or not rows.any():
        return set()
    names = names_in_gallery(_attributes_of(source, "identity"))
    given = {int(row) for part, block in blocks(source, "identity") for row in np.unique(block[rows[part]])}
    return {names[row] for row in given if 0 <= row < len(names)}


def _registry_path(outs: Sequence[Path], sources: Sequence[InputStore], given: Path | None) -> Path | None:
    """Return the given file, else the one that the stores name, else the one beside the first store, else None."""
    if given is not None:
        if not given.is_file():
            raise UsageError(f"there is no registry {given}; leave --registry out to take that of the stores")
        return given
    named = (changeable(_attributes_of(source, "person"), Path(source.path)) for source in sources)
    beside = (out.parent / FILE_NAME for out in outs)
    candidates = [*filter(None, named), *(path for path in beside if path.is_file())]
    return next(map(located, candidates), None)


def _require_one_registry(sources: Sequence[InputStore], known: Registry | None) -> None:
    """Raise StoreError if the stores have ids of two registries: these are not the same people."""
    first = (known.id, f"the registry {known.path}") if known is not None else None
    for source in sources:
        found = _attributes_of(source, "person").get("registry_id")
        if found is None:
            continue
        first = first or (str(found), f"{source.name!r} in {source.path}")
        if str(found) != first[0]:
            raise StoreError(
                f"{source.name!r} in {source.path} has ids of the registry {found}, but {first[1]} of {first[0]}; "
                "they are not the same people. Name that store alone, with its own --registry"
            )


def _forget_history(path: Path) -> None:
    """Delete what `people undo` could restore, before all else: after a kill it must not bring back the person."""
    registry = Registry.load(path)
    if registry.history:
        registry.history = []
        registry.save()


def _bury(path: Path, ids: Sequence[int]) -> None:
    """Remove a person from a registry, whose lock is held; it keeps only that the ids are taken for ever."""
    registry = Registry.load(path)
    if ids[0] in registry.people:
        registry.forget(ids[0])
    registry.forgotten = sorted({*registry.forgotten, *ids})
    registry.save()


def rows_of(source: InputStore, who: Who) -> Bools:
    """Return bool (n_faces,): faces of the person in a complete input, as its arrays say. Raises StoreError.

    The gallery's names count for faces to which the user gave no other name, as in reports. They count for all faces if
    the registry does not know the person.
    """
    arrays = source.group().arrays
    if "face_frame" not in arrays:
        return np.zeros(0, bool)
    rows = np.zeros(int(arrays["face_frame"]["shape"][0]), bool)
    untold = np.ones(len(rows), bool)
    if "person" in arrays:
        for part, person in blocks(source, "person"):
            rows[part] = np.isin(person, who.ids)
            untold[part] = ~np.isin(person, who.others)
    if "identity" in arrays and who.name is not None:
        names = names_in_gallery(_attributes_of(source, "identity"))
        theirs = [row for row, name in enumerate(names) if _same_name(name, who.name)]
        for part, identity in blocks(source, "identity"):
            rows[part] |= np.isin(identity, theirs) & untold[part]
    return rows


def embeddings(source: InputStore, among: Container[EmbeddingKind] | None = None) -> Iterator[Embedded]:
    """Yield all embeddings of an input in blocks, with their rows: of the input or, while it is incomplete, of a chunk.

    With `among` it reads only embeddings of these kinds.
    """
    if source.attributes.get("complete"):
        node = source.group().arrays.get("embedding")
        kind = EmbeddingKind.of(node) if node is not None else None
        if kind is not None and (among is None or kind in among):
            yield from ((kind, part, block) for part, block in blocks(source, "embedding"))
        return
    chunks = source.chunks()
    for index in (index for index in chunks.indices.tolist() if chunks.holds(index, "embedding")):
        kind = EmbeddingKind.of(chunks.nodes(index)["embedding"])
        if among is None or kind in among:
            block = chunks.arrays(index, ["embedding"])["embedding"]
            yield kind, slice(0, len(block)), block


def _with_the_same(complete: Sequence[InputStore], gone: Mapping[str, Bools]) -> dict[EmbeddingKind, Float32]:
    """Add faces with the very same embedding to those that go, until there are none.

    Return the embeddings that go: the only ones held together in memory.
    """
    while True:
        parts: dict[EmbeddingKind, list[Float32]] = {}
        for source in (source for source in complete if gone[source.folder].any()):
            for kind, part, block in embeddings(source):
                parts.setdefault(kind, []).append(block[gone[source.folder][part]])
        vectors = {kind: np.concatenate(found) for kind, found in parts.items()}
        matcher = sameness(vectors)
        more = False
        for source in complete:
            rows = gone[source.folder]
            for kind, part, block in embeddings(source, matcher):
                stays = np.flatnonzero(~rows[part])
                new = stays[matcher[kind].same(block[stays])]
                rows[part.start + new] = True
                more = more or len(new) > 0
        if not more:
            return vectors


def sameness(vectors: Mapping[EmbeddingKind, Float32]) -> dict[EmbeddingKind, Sameness]:
    return {kind: Sameness(found, kind.threshold) for kind, found in vectors.items()}


def _cleaned(source: InputStore, who: Who) -> dict[str, dict[str, Any]]:
    """Return attributes without the person, for the arrays that have a copy of the registry's names."""
    found = {}
    gone = {str(number) for number in who.ids}
    for name, content in source.group().arrays.items():
        attributes = content.get("attributes", {})
        names = attributes.get("names")
        if isinstance(names, dict) and gone & names.keys():
            found[name] = {**attributes, "names": {key: one for key, one in names.items() if key not in gone}}
    return found


def _alike(source: InputStore, matcher: Mapping[EmbeddingKind, Sameness], gone: Bools | None) -> Alike | None:
    """Compare what stays; `gone` is None for an incomplete input."""
    arrays = source.group().arrays
    told = gone is not None and "person" in arrays
    if gone is not None and ("embedding" not in arrays or EmbeddingKind.of(arrays["embedding"]) not in matcher):
        is_open = len(gone) and not gone.all() and matcher
        return Alike(Path(source.path), source.name, "no embeddings", 0, 0) if is_open else None
    faces = alike = 0
    people: dict[int, int] = {}
    for kind, part, block in embeddings(source, matcher):
        stays = np.flatnonzero(~gone[part]) if gone is not None else np.arange(len(block))
        near = stays[matcher[kind].alike(block[stays])]
        faces, alike = faces + len(stays), alike + len(near)
        person = source.read_rows("person", part.start, part.stop)[near] if told else np.full(len(near), -1)
        for number, count in zip(*np.unique(person, return_counts=True), strict=True):
            people[int(number)] = people.get(int(number), 0) + int(count)
    state = "incomplete" if gone is None else "people" if told else "not told apart"
    return Alike(Path(source.path), source.name, state, faces, alike, people if gone is not None else {})

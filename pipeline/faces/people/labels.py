"""Names of the stored faces, as the store and its registry know them: for reports, videos and exports."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.errors import StoreError, UsageError
from pipeline.faces.people import registry
from pipeline.faces.people.evidence import Level
from pipeline.store.read import RunInput

UNKNOWN = -1
Source = Literal["person", "identity", "none"]


@dataclass(frozen=True)
class Labels:
    """One code per face of an input, and the name of each code."""

    source: Source
    """Array of the labels: `person` (of `reelgraph people`), `identity` (of `reelgraph find --gallery`), or none."""
    code: npt.NDArray[np.int32]
    """int32 (n_faces,): the person's id in the registry, or a number for each name of the gallery; -1 if unknown. The
    names of a gallery have the numbers -2 and below if they stand beside ids."""
    names: dict[int, str]
    """Name to show for each code that occurs; `person 3` for a person without a name."""
    named: frozenset[int]
    """Codes that have a name of their own."""

    def is_of_gallery(self, code: int) -> bool:
        """Return whether the name of a code comes from a gallery."""
        return self.source == "identity" or code < UNKNOWN


def labels(item: RunInput, source: Source | None = None) -> Labels:
    """Return the labels of all faces of an input, in order.

    `source` None: the name that the user gave to the person, else the gallery's, else the number of the person. The
    names of people are the registry's. If its file is missing, or another registry is in its place, they are the copy
    in the store. Raises StoreError if an array is damaged.
    """
    there = item.arrays
    chosen = source or next((name for name in ("person", "identity") if name in there), "none")
    if chosen not in there:
        n_faces = len(item.array("face_frame")) if "face_frame" in there else 0
        return Labels("none", np.full(n_faces, UNKNOWN, np.int32), {}, frozenset())
    rows = item.array(chosen).astype(np.int32)
    attributes = there[chosen].attributes
    if chosen == "identity":
        return _of_gallery(item, rows)
    known = registry.known(attributes, item.store_path)
    code = registry.current(rows, known.merged if known else {})
    given = known.names if known else names_of_people(attributes)
    codes = [int(c) for c in np.unique(code) if c != UNKNOWN]
    named = frozenset(c for c in codes if given.get(c))
    found = Labels("person", code, {c: given.get(c) or f"person {c}" for c in codes}, named)
    return _beside(found, labels(item, "identity"), given) if source is None and "identity" in there else found


def _beside(people: Labels, gallery: Labels, given: Mapping[int, str]) -> Labels:
    """Return the labels of people, with those of a gallery for the faces to which the user gave no name.

    `given`: all names that the user gave. If the gallery's name is that of one of these people, it is this person.
    """
    codes, beside = np.full(max(gallery.names, default=0) + 1, UNKNOWN, np.int32), {}
    called: defaultdict[str, list[int]] = defaultdict(list)
    for number, name in given.items():
        called[name.casefold()].append(number)
    for one, name in gallery.names.items():
        same = called.get(name.casefold(), [])
        codes[one] = same[0] if len(same) == 1 else UNKNOWN - 1 - one
        beside[int(codes[one])] = given[same[0]] if len(same) == 1 else name
    code = np.where(_is_open(people, gallery), codes[gallery.code], people.code).astype(np.int32)
    there = set(np.unique(code).tolist())
    names = {c: name for c, name in (people.names | beside).items() if c in there}
    return Labels("person", code, names, frozenset(there & (people.named | beside.keys())))


def _is_open(people: Labels, gallery: Labels) -> npt.NDArray[np.bool_]:
    """Return bool (n_faces,): faces that a gallery names, and to which the user gave no name."""
    found: npt.NDArray[np.bool_] = (gallery.code != UNKNOWN) & ~np.isin(people.code, list(people.named))
    return found


def weak_labels(item: RunInput, given: Labels) -> Labels:
    """Return the names that a gallery's matching asks about, of faces without a name in `given`."""
    if not {"identity", "candidate", "identity_level"} <= item.arrays.keys():
        return Labels("none", np.full(len(given.code), UNKNOWN, np.int32), {}, frozenset())
    is_open = (item.array("identity_level") == Level.WEAK) & ~np.isin(given.code, list(given.named))
    return _of_gallery(item, np.where(is_open, item.array("candidate"), UNKNOWN))


def _of_gallery(item: RunInput, rows: npt.NDArray[np.int32]) -> Labels:
    """Return the labels for rows of a gallery, of which several may be one person's pictures. Raises StoreError."""
    names = names_in_gallery(item.arrays["identity"].attributes)
    if rows.max(initial=UNKNOWN) >= len(names):
        raise StoreError(f"the array 'identity' of {item.name!r} leads beyond its {len(names)} names; find again")
    distinct, code_of = np.unique(names, return_inverse=True) if names else (np.empty(0, str), np.empty(0, int))
    code = np.append(code_of, UNKNOWN).astype(np.int32)[rows]  # -1 takes the last
    shown = {int(c): str(distinct[c]) for c in np.unique(code) if c != UNKNOWN}
    return Labels("identity", code, shown, frozenset(shown))


def names_of_people(attributes: Mapping[str, Any]) -> dict[int, str]:
    """Return the names by id that an array `person` has in its attributes. Raises StoreError."""
    try:
        return {int(key): str(name) for key, name in (attributes.get("names") or {}).items()}
    except (ValueError, AttributeError) as err:
        raise StoreError(f"the array 'person' has damaged attributes (names: {err}); run people again") from err


def names_in_gallery(attributes: Mapping[str, Any]) -> list[str]:
    """Return the names, by row of the gallery, that an array `identity` has in its attributes. Raises StoreError."""
    names = attributes.get("names") or []
    if not isinstance(names, list):
        raise StoreError(f"the array 'identity' has damaged attributes (names: {names!r:.80}); find again")
    return list(map(str, names))


@dataclass(frozen=True)
class Chosen:
    """The faces of a person in one input."""

    name: str
    rows: npt.NDArray[np.bool_]
    """(n_faces,)."""


def choose(items: Sequence[RunInput], person: str, *, overruled: bool = False) -> list[Chosen]:
    """Return the faces of a person in each input; rows are all false if the person does not occur.

    `person` is an id (`3` or `person 3`, of the registry), or a name, in the registry and in the gallery. Case does not
    count. If the user gave another name to faces that the gallery calls so, they count if `overruled`, or if no other
    face bears the name. Raises UsageError, with the nearest names, if no input knows the person.
    """
    known = [(labels(item, "person"), labels(item, "identity")) for item in items]
    found = [_find(item, both, person, overruled) for item, both in zip(items, known, strict=True)]
    if not overruled and not any(one.rows.any() for one in found if one is not None):
        found = [_find(item, both, person, True) for item, both in zip(items, known, strict=True)]
    shown = next((one.name for one in found if one is not None), None)
    if shown is not None:
        return [one or Chosen(shown, np.zeros(len(both[0].code), bool)) for one, both in zip(found, known, strict=True)]
    names = {name for both in known for one in both for name in one.names.values()}
    if not names:
        raise UsageError(
            f"no person {person!r}: these stores have no people yet; run `reelgraph people` or `find` on them"
        )
    # Only the few nearest: archives know thousands of names.
    near = difflib.get_close_matches(person.casefold(), (name.casefold() for name in names), n=3, cutoff=0.4)
    similar = [name for match in near for name in sorted(names) if name.casefold() == match]
    hint = f"did you mean {' or '.join(map(repr, similar))}?" if similar else "`reelgraph people` lists all people"
    raise UsageError(f"unknown person {person!r}; {hint}")


def _find(item: RunInput, both: tuple[Labels, Labels], person: str, overruled: bool) -> Chosen | None:
    people, gallery = both
    array = item.arrays.get("person")
    known = registry.known(array.attributes, item.store_path) if array else None
    given = known.names if known else {code: people.names[code] for code in people.named}
    ids = registry.called(given, person)
    registry.require_one(ids, person)
    merged = known.merged if known else {}
    codes = [code for code in (merged.get(number, number) for number in ids) if code in people.names]
    by_id = [code for code in codes if given.get(code, "").casefold() != person.casefold()]
    pictured = [code for code, name in gallery.names.items() if not by_id and name.casefold() == person.casefold()]
    if not codes and not pictured:
        return None
    name = people.names[codes[0]] if codes else gallery.names[pictured[0]]
    is_pictured = np.isin(gallery.code, pictured) & (overruled | _is_open(people, gallery))
    return Chosen(name, np.isin(people.code, codes) | is_pictured)

"""Find the faces of a person by id or name, in any of several inputs."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.errors import UsageError
from pipeline.faces.people import registry
from pipeline.faces.people.labels import Labels, labels

if TYPE_CHECKING:
    from pipeline.store.read import RunInput


@dataclass(frozen=True)
class Chosen:
    """The faces of a person in one input."""

    name: str
    rows: npt.NDArray[np.bool_]
    """(n_faces,)."""


def choose(items: Sequence[RunInput], person: str) -> list[Chosen]:
    """Return the faces of a person in each input; rows are all false if the person does not occur.

    `person` is an id (`3`, of the registry), a name in the registry, or a name in the gallery, tried in this order.
    Case does not count. Raises UsageError, with the nearest names, if no input knows the person.
    """
    known = [(labels(item, "person"), labels(item, "identity")) for item in items]
    found = [_find(item, both, person) for item, both in zip(items, known, strict=True)]
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


def _find(item: RunInput, both: tuple[Labels, Labels], person: str) -> Chosen | None:
    array = item.arrays.get("person")
    known = registry.known(array.attributes, item.store_path) if array else None
    if known is not None and person.isdecimal():  # the id that the person has now, if it was merged into another
        person = str(known.merged.get(int(person), person))
    for found in both:
        code = next((code for code, name in found.names.items() if name.casefold() == person.casefold()), None)
        if found.source == "person" and person.isdecimal() and int(person) in found.names:
            code = int(person)
        if code is not None:
            return Chosen(found.names[code], found.code == code)
    return None

"""Names of the stored faces, as the store and its registry know them: for reports, videos and exports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from pipeline.faces.people import registry

if TYPE_CHECKING:
    from pipeline.store.read import RunInput

UNKNOWN = -1
Source = Literal["person", "identity", "none"]


@dataclass(frozen=True)
class Labels:
    """One code per face of an input, and the name of each code."""

    source: Source
    """Array of the labels: `person` (of `reelgraph people`), `identity` (of `reelgraph find --gallery`), or none."""
    code: npt.NDArray[np.int32]
    """int32 (n_faces,): the person's id in the registry, or a number for each name of the gallery; -1 if unknown."""
    names: dict[int, str]
    """Name to show for each code that occurs; `person 3` for a person without a name."""
    named: frozenset[int]
    """Codes that have a name of their own."""


def labels(item: RunInput, source: Source | None = None) -> Labels:
    """Return the labels of all faces of an input, in order. `source` None: `person` if it exists, else `identity`.

    The names of people are the registry's. If its file is missing, or another registry is in its place, they are the
    copy in the store. Raises StoreError if an array is damaged.
    """
    there = item.arrays
    chosen = source or next((name for name in ("person", "identity") if name in there), "none")
    if chosen not in there:
        n_faces = len(item.array("face_frame")) if "face_frame" in there else 0
        return Labels("none", np.full(n_faces, UNKNOWN, np.int32), {}, frozenset())
    rows = item.array(chosen).astype(np.int32)
    attributes = there[chosen].attributes
    if chosen == "identity":  # several rows of a gallery may be one person's pictures
        distinct, code_of = np.unique([str(name) for name in attributes["names"]], return_inverse=True)
        code = np.append(code_of, UNKNOWN).astype(np.int32)[rows]  # -1 takes the last
        shown = {int(c): str(distinct[c]) for c in np.unique(code) if c != UNKNOWN}
        return Labels("identity", code, shown, frozenset(shown))
    known = registry.known(attributes, item.store_path)
    code = rows.copy()
    if known is None:
        given = {int(key): str(name) for key, name in (attributes.get("names") or {}).items()}
    else:
        given = known.names
        for old, new in known.merged.items():
            code[rows == old] = new
    codes = [int(c) for c in np.unique(code) if c != UNKNOWN]
    named = frozenset(c for c in codes if given.get(c))
    return Labels("person", code, {c: given.get(c) or f"person {c}" for c in codes}, named)

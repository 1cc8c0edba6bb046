"""Names of the stored faces, as the store and its registry know them: for reports, videos and exports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
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

    Raises StoreError if an array is damaged.
    """
    there = item.arrays
    chosen = source or next((name for name in ("person", "identity") if name in there), "none")
    if chosen not in there:
        n_faces = len(item.array("face_frame")) if "face_frame" in there else 0
        return Labels("none", np.full(n_faces, UNKNOWN, np.int32), {}, frozenset())
    rows = item.array(chosen).astype(np.int32)
    attributes = there[chosen].attributes
    if chosen == "identity":
        return _of_gallery(rows, [str(name) for name in attributes["names"]])
    return _of_registry(rows, attributes, item.store_path)


def _of_gallery(rows: npt.NDArray[np.int32], names: list[str]) -> Labels:
    """Return the labels by names of a gallery, of which several rows may be one person's pictures."""
    distinct = sorted(set(names))
    code_of = {name: code for code, name in enumerate(distinct)}
    codes = np.array([code_of[name] for name in names] + [UNKNOWN], np.int32)
    code = codes[rows]  # -1 takes the last
    shown = {int(c): distinct[c] for c in np.unique(code) if c != UNKNOWN}
    return Labels("identity", code, shown, frozenset(shown))


def _of_registry(rows: npt.NDArray[np.int32], attributes: dict[str, object], store_path: Path) -> Labels:
    """Return the labels by the registry's names.

    If its file is missing, or another registry is in its place, use the copy of the names in the store.
    """
    known = registry.known(attributes, store_path)
    copied = attributes.get("names") or {}
    assert isinstance(copied, dict)
    given = known.names if known is not None else {int(key): str(name) for key, name in copied.items()}
    code = rows.copy()
    for old, new in (known.merged if known is not None else {}).items():
        code[rows == old] = new
    codes = [int(c) for c in np.unique(code) if c != UNKNOWN]
    return Labels(
        "person", code, {c: given.get(c) or f"person {c}" for c in codes}, frozenset(c for c in codes if given.get(c))
    )

"""`reelgraph find --image`: the pictures of stores that are most like one, by the cosine of their features.

Every stored feature is compared, a piece of the array at a time; only the nearest are kept.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.engine.here import array_of, leading_to, workflow_making
from pipeline.engine.workflow import stage_keys
from pipeline.errors import InputError, StoreError, UsageError
from pipeline.images.features import NAME, feature_array
from pipeline.machine.cores import available_cores
from pipeline.store.facts import stage_sections
from pipeline.store.pieces import Piece, for_each, rows_of
from pipeline.store.read import RunInput
from pipeline.store.read import open as open_store
from pipeline.store.run import each_once
from pipeline.text import plural

TOP = 10
"""Pictures that are listed by default."""


@dataclass(frozen=True)
class Near:
    """A picture of a store that is like the one asked for."""

    rank: int
    """1 for the most similar."""
    similarity: float
    """Cosine of the two features."""
    out: str
    input: str
    name: str


@dataclass
class Found:
    """Result of a search."""

    asked: str
    """The picture asked for: a path, or a name in a store."""
    array: str = ""
    pictures: int = 0
    """Number of stored pictures that were compared."""
    seconds: float = 0.0
    nearest: list[Near] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)
    """Stores and inputs that could not be searched, with the reason."""

    @property
    def exit_code(self) -> int:
        return 1 if self.unusable else 0

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def search(
    outs: Sequence[str | Path],
    *,
    image: str | Path | None = None,
    like: str | None = None,
    array: str | None = None,
    top: int = TOP,
    looked: Callable[[int], None] = lambda pictures: None,
    note: Callable[[str], None] = lambda text: None,
) -> Found:
    """Return the pictures of stores, done or half done, that are most like a picture file or a stored picture.

    The feature of `image` is made by the source and the stages that the first store names. A picture asked for by
    `like` is not in its own answer. `looked` gets the number of pictures looked at so far, `note` gets lines for the
    user. Raises UsageError if the stores hold features of different kinds; InputError if there is nothing to search or
    the picture cannot be used.
    """
    found = Found(str(like if image is None else image))
    stored = _opened(outs, found)
    found.array = feature_array([item for _, item in stored], array).name
    found.notes += [f"{out}, {item.name}: nothing is done yet" for out, item in stored if not item.arrays]
    stored = [(out, item) for out, item in stored if item.arrays]
    _require_one_kind(stored, found.array)
    itself: tuple[RunInput, int] | None = None
    if image is None:
        itself = _row_of(str(like), stored)
        some = rows_of(itself[0].pieces(found.array), np.array([itself[1]]), 1)
        vector = np.asarray(some)[0]
    else:
        vector = _feature_of(str(image), stored[0][1], found)
    wide = vector.astype(np.float64)
    norm = float(np.linalg.norm(wide))
    if not (np.isfinite(norm) and norm):
        raise InputError(f"{found.asked} has no feature: it could not be read, or the feature is not finite")
    unit = (wide / norm).astype(np.float32)
    began = time.perf_counter()
    searched = 0
    ranked: list[tuple[float, str, str, str]] = []
    for out, item in stored:
        own = itself[1] if itself is not None and itself[0] is item else None
        try:
            near = item.retried(partial(_nearest, item, found.array, unit, top, own, looked))
        except StoreError as err:  # damage to one input is no reason to say nothing of the others
            found.unusable.append(str(err))
            continue
        searched += 1
        found.pictures += near.pictures
        ranked += [(similarity, out, item.name, name) for similarity, name in near.found]
        if item.done_share < 1:
            found.notes.append(f"{out}, {item.name}: {item.done_share:.0%} is done and was searched")
    if not searched:
        raise InputError(found.unusable[0])
    ranked.sort(key=lambda one: -one[0])
    found.nearest = [Near(rank, *one) for rank, one in enumerate(ranked[:top], 1)]
    found.seconds = round(time.perf_counter() - began, 3)
    for text in (*found.notes, *found.unusable):
        note(text)
    return found


def lines(found: Found) -> list[str]:
    """Return a table of the nearest pictures, for people."""
    several = len({one.out for one in found.nearest}) > 1
    rows = [("rank", "similarity", "input", "name")]
    rows += [
        (str(one.rank), f"{one.similarity:.4f}", f"{one.out} {one.input}" if several else one.input, one.name)
        for one in found.nearest
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [*shown, f"{plural(found.pictures, 'picture')} compared in {found.seconds:.2f} s"]


def _opened(outs: Sequence[str | Path], found: Found) -> list[tuple[str, RunInput]]:
    """Return the inputs of all stores, each with its store as the user named it."""
    stored: list[tuple[str, RunInput]] = []
    for out in map(str, each_once(outs)):
        try:
            run = open_store(out)
            if not run.inputs:
                raise StoreError(f"{out} is empty: it has no input yet; run a workflow into it first")
            for item in run.inputs.values():
                item.arrays  # noqa: B018  (raises StoreError if the input is damaged)
                stored.append((out, item))
        except StoreError as err:
            found.unusable.append(str(err))
    if not stored:
        raise InputError(found.unusable[0] if found.unusable else "no store is named")
    return stored


def _require_one_kind(stored: Sequence[tuple[str, RunInput]], array: str) -> None:
    """Raise UsageError unless the same stages with the same options made the features of all inputs."""
    kinds: dict[str, str] = {}
    for out, item in stored:
        made = item.attributes.get("stages", {}).items()
        maker = next((name for name, facts in made if array in (facts.get("arrays") or ())), None)
        stages = stage_sections(open_store(out).attributes.get("workflow"))
        kinds.setdefault(json.dumps(leading_to(stages, maker) if maker in stages else None, sort_keys=True), out)
    if len(kinds) > 1:
        raise UsageError(
            f"the features of {' and '.join(list(kinds.values())[:2])} were made by other stages or options, so they "
            "cannot be compared; search the stores one by one"
        )


def _feature_of(image: str, item: RunInput, found: Found) -> np.ndarray:
    """Return the feature of a picture file, made by the source and the stages of a store."""
    out, array = item.store_path, found.array
    missing = f"{out} was made without a stage that makes {array!r}", "search with --like"
    workflow = workflow_making(array, open_store(out).attributes, missing)
    stages = item.attributes.get("stages", {})
    maker = workflow.stages[-1].name
    if stages.get(maker, {}).get("key") not in (None, stage_keys(workflow, stages)[maker]):
        found.notes.append(
            f"the weights, the version or the code of stage {maker!r} are not those that {out} was made with: "
            "similarities to the picture may be wrong"
        )
    found_one: np.ndarray = array_of(image, array, workflow)[0]
    return found_one


@dataclass(frozen=True)
class _Nearest:
    """The pictures of one input that are most like the one asked for."""

    pictures: int
    """Number of pictures with a feature."""
    found: list[tuple[float, str]]
    """Similarity and name, the most similar first."""


def _nearest(
    item: RunInput, array: str, unit: np.ndarray, top: int, own: int | None, looked: Callable[[int], None]
) -> _Nearest:
    """Compare all features of an input with a unit vector; `own` is the row of the picture itself."""

    def compare(piece: Piece, vectors: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
        values = vectors.astype(np.float32, copy=False)
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            # Not `values @ unit`: BLAS sums up rows in another order at the end of a thread's share.
            similarity = np.einsum("ij,j->i", values, unit) / np.sqrt(np.einsum("ij,ij->i", values, values))
        good = np.isfinite(similarity)
        n_good = int(good.sum())
        if own is not None and piece.start <= own < piece.stop:
            good[own - piece.start] = False
        rows = np.flatnonzero(good)
        best = rows[np.argsort(-similarity[rows], kind="stable")[:top]]
        return n_good, piece.start + best, similarity[best]

    pictures, rows, similarity = 0, np.empty(0, np.int64), np.empty(0, np.float32)
    for _, (n_good, more, near) in for_each(item.pieces(array), compare, available_cores()):
        rows, similarity = np.concatenate([rows, more]), np.concatenate([similarity, near])
        best = np.argsort(-similarity, kind="stable")[:top]
        rows, similarity, pictures = rows[best], similarity[best], pictures + n_good
        looked(pictures)
    ascending = np.argsort(rows)
    names = dict(zip(rows[ascending].tolist(), _names(item, rows[ascending]), strict=True))
    values = np.clip(similarity, -1, 1).tolist()
    return _Nearest(pictures, [(round(value, 6), names[row]) for value, row in zip(values, rows.tolist(), strict=True)])


def _named_by(item: RunInput) -> str | None:
    """Return the array that names the pictures; None if only their numbers do."""
    return next((name for name in (NAME, "frame") if name in item.arrays), None)


def _names(item: RunInput, rows: np.ndarray) -> list[str]:
    """Return the names of some rows, ascending."""
    by = _named_by(item)
    some = rows_of(item.pieces(by), rows, 1) if by is not None else rows
    return [str(name) for name in some] if some is not None else []


def _row_of(name: str, stored: Sequence[tuple[str, RunInput]]) -> tuple[RunInput, int]:
    """Return the input and the row of the picture `name` or `input/name`. Raises UsageError unless one input has it."""
    found: list[tuple[RunInput, int]] = []
    for _, item in stored:
        by = _named_by(item)
        for piece in item.pieces(by) if by is not None else ():
            loaded = piece.load()
            texts = loaded.astype(str) if loaded.dtype.kind in "iu" else loaded
            own = texts == name
            if name.startswith(f"{item.name}/"):
                own |= texts == name.removeprefix(f"{item.name}/")
            found += [(item, piece.start + row) for row in np.flatnonzero(own).tolist()]
    if len({item.store_path / item.name for item, _ in found}) > 1:
        where = ", ".join(dict.fromkeys(f"{item.name}/{name}" for item, _ in found))
        raise UsageError(f"{len(found)} pictures have the name {name!r} ({where}); give one of them with its input")
    if found:
        return found[0]  # a list may name a picture twice
    first = stored[0][1]
    example = "".join(f", such as {one!r}" for one in _names(first, np.array([0])))
    raise UsageError(f"these stores have no picture {name!r}; names are those of the store{example}")

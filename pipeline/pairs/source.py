"""The source of pairs: the section `pairs` of a workflow, over pictures or frames that the store holds."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from pipeline.engine.source import INVENTORY, OF, InputRef, Job, Loaded, SourceOptions, StoredRef, StoredSource
from pipeline.errors import InputError, WorkflowError
from pipeline.files.regular import read_file
from pipeline.pairs import listing
from pipeline.store.mapped import RowsOfItems, opened
from pipeline.store.read import RunInput
from pipeline.store.schema import DECODED, ORIGIN, SCALE, Array, Schema
from pipeline.text import plural, unknown

MOST_PAIRS, LEAST_PAIRS = 256, 16
"""Pairs of a chunk: a tile at most, and few enough for many workers."""
_SHARES = 64
"""Chunks that an input is cut into before they grow beyond LEAST_PAIRS."""

A = Array("a", ("pair",), "int32", (), {"description": "index of the first picture, along the inputs named by `of`"})
B = Array("b", ("pair",), "int32", (), {"description": "index of the second picture, along the inputs named by `of`"})
ERROR = Array("error", ("pair",), "string", (), {"description": "why a picture of the pair is missing; else empty"})
NAME = "name"
"""Item array of pictures: the path relative to the input."""


class PairsOptions(SourceOptions):
    """The choice of pairs."""

    of: Literal["all", "groups"] = Field("all", description="all: any two pictures; groups: two of the same folder")
    window: int | None = Field(
        None, ge=1, description="only pictures at most this number of places apart, in their order"
    )
    similar: int | None = Field(
        None, ge=1, description="only each picture with this number of others: the nearest by an array of features"
    )
    array: str = Field("feature", description="array of features for `similar`, one vector for each picture")
    list: str | None = Field(
        None, description="only the pairs in this file: two names on each line, as hloc writes them"
    )

    @field_validator("list")
    @classmethod
    def _where(cls, value: str | None) -> str | None:
        """Make the path absolute: workers may run in another folder."""
        return None if value is None else os.path.abspath(os.path.expanduser(value))

    @model_validator(mode="after")
    def _one_choice(self) -> PairsOptions:
        given = [name for name in ("window", "similar", "list") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{given[0]} and {given[1]} exclude each other; keep one")
        if self.similar is None and self.array != type(self).model_fields["array"].default:
            raise ValueError(f"option array: {self.array} has no effect without similar; leave it out")
        return self

    def keyed(self) -> dict[str, Any]:
        """Take the content of a list in place of its path, and no name of features that are not asked for."""
        values = super().keyed()
        if self.similar is None:
            del values["array"]
        if self.list is not None:
            values["list"] = hashlib.sha256("\n".join(self.lines()).encode()).hexdigest()
        return values

    def lines(self) -> Sequence[str]:
        """Return the lines of the list, with bytes that are not UTF-8 as the store writes them in names: \\xNN.

        Raises WorkflowError if it cannot be read.
        """
        assert self.list is not None
        try:
            return read_file(self.list).decode("utf-8-sig", "backslashreplace").splitlines()
        except OSError as err:
            raise WorkflowError(f"pairs.list: {self.list} cannot be read: {err.strerror or err}") from err


@dataclass(frozen=True)
class PairsJob(Job):
    """All that is needed to find the stored arrays of some pairs."""

    path: str
    """Store."""
    names: tuple[str, ...]
    """Inputs that the pairs are made of."""
    state: str
    a: np.ndarray
    b: np.ndarray
    loads: Mapping[str, tuple[str, str, bool]]
    """Stored array, side ("a" or "b"), and whether it lies along a ragged axis, for each name to load."""

    def load(self, threads: int = 1) -> Loaded:
        """Find the arrays. Those along an axis are given as sequences; nothing of them is read before it is used."""
        stored = opened(self.path, self.names, self.state)
        sides = {"a": self.a, "b": self.b}
        arrays: dict[str, Any] = {}
        for name, (array, side, ragged) in self.loads.items():
            items = sides[side]
            arrays[name] = (
                RowsOfItems(self.path, self.names, self.state, array, items) if ragged else stored.values(array)[items]
            )
        is_there = stored.values(DECODED.name).astype(bool)
        decoded = is_there[self.a] & is_there[self.b]
        error = np.full(len(self.a), "", object)
        for k in np.flatnonzero(~decoded).tolist():
            lost = int(self.a[k] if not is_there[self.a[k]] else self.b[k])
            error[k] = f"{stored.values(NAME)[lost] if NAME in stored else f'frame {lost}'} could not be read"
        return Loaded({**arrays, ERROR.name: error}, decoded, is_final=True)


@dataclass
class Pairs(StoredSource):
    """The pairs of one input, and of it with its later parts."""

    kind: ClassVar[str] = "pairs"
    item: ClassVar[str] = "pair"
    Options: ClassVar[type[SourceOptions]] = PairsOptions
    arrays: ClassVar[tuple[Array, ...]] = (A, B)
    inputs: tuple[RunInput, ...]
    options: PairsOptions
    pairs: np.ndarray
    """int32 (n, 2), in the order of the store."""
    state: str
    """Name of this opening. Processes that outlive a run must not read what an earlier run stored in the same place."""
    item_bytes: int = field(default=1 << 16, init=False)

    @classmethod
    def found(cls, options: SourceOptions) -> tuple[Array, ...]:
        return (ERROR,)

    @classmethod
    def loads_of(cls, stored: Schema) -> dict[str, tuple[str, ...]]:
        counted = [array for array in (*stored.item_arrays, *stored.arrays) if array.name != DECODED.name]
        return {array.name: (f"a_{array.name}", f"b_{array.name}") for array in counted}

    @classmethod
    def expected(
        cls, options: SourceOptions, items: int, earlier: int, values: Callable[[], Mapping[str, np.ndarray] | None]
    ) -> int | None:
        assert isinstance(options, PairsOptions)
        names = _named(values()) if options.list is not None or options.of == "groups" else None
        total = earlier + items
        if options.list is not None:
            if names is None:
                return len(options.lines())
            pairs = listing.named(options.lines(), names, options.list, earlier)
            return len(listing.in_tiles(_kept(pairs, names, total, options)))
        if names is None:
            return _most(options, items, earlier)
        folders = [Counter(map(os.path.dirname, some)) for some in (names[:earlier], names[earlier:total])]
        return sum(_most(options, count, folders[0][folder]) for folder, count in folders[1].items())

    @classmethod
    def check(
        cls, options: SourceOptions, arrays: Mapping[str, Array], items: Callable[[], Mapping[str, np.ndarray] | None]
    ) -> None:
        assert isinstance(options, PairsOptions)
        if options.similar is not None:
            _check_feature(options.array, arrays)
        if options.list is not None and (names := _named(items())) is not None:
            listing.named(options.lines(), names, options.list)

    @classmethod
    def open(cls, ref: InputRef, options: SourceOptions, stored: Mapping[str, Any] | None) -> Pairs:
        assert isinstance(options, PairsOptions)
        assert isinstance(ref, StoredRef)
        kept = (stored or {}).get(INVENTORY)
        if kept is not None:
            pairs = np.frombuffer(kept, "<i4").reshape(-1, 2)
        else:
            pairs = listing.in_tiles(_listed(ref, options))
        return cls(ref.inputs, options, pairs, uuid.uuid4().hex)

    def __post_init__(self) -> None:
        self.most_items = min(MOST_PAIRS, max(LEAST_PAIRS, len(self) // _SHARES))
        self.facts = {OF: [item.name for item in self.inputs]}

    def inventory(self) -> bytes | None:
        """Keep pairs that are computed from features: another machine may compute others."""
        return self.pairs.astype("<i4").tobytes() if self.options.similar is not None else None

    def __len__(self) -> int:
        return len(self.pairs)

    def values(self, start: int, stop: int) -> dict[str, np.ndarray]:
        return {A.name: self.pairs[start:stop, 0], B.name: self.pairs[start:stop, 1]}

    def job(self, start: int, stop: int) -> Job:
        return self.job_of(start, stop, ())

    def job_of(self, start: int, stop: int, loads: Sequence[str]) -> Job:
        known = self.inputs[-1].arrays
        wanted = {}
        for name in loads:
            side, _, array = name.partition("_")
            wanted[name] = (array, side, known[array].dims[0] != self.inputs[-1].item)
        names = tuple(item.name for item in self.inputs)
        pairs = self.pairs[start:stop]
        return PairsJob(str(self.inputs[0].store_path), names, self.state, pairs[:, 0], pairs[:, 1], wanted)

    def where(self, start: int, stop: int) -> str:
        return f"pairs {start} to {stop - 1}"

    @property
    def description(self) -> str:
        return f"of {plural(sum(item.frames_total for item in self.inputs), 'picture')}"


def _listed(ref: StoredRef, options: PairsOptions) -> np.ndarray:
    """Return the pairs that the options name, of which at least one picture is of the last input."""
    inputs = ref.inputs
    total = sum(item.frames_total for item in inputs)
    first_new = total - inputs[-1].frames_total
    if options.list is not None:
        names = _names(inputs)
        pairs = listing.named(options.lines(), [*names, *_names(ref.later)], options.list, first_new)
        return _kept(pairs, names, total, options)
    vectors = _features(inputs, options.array) if options.similar is not None else None
    places = _places(inputs) if options.window is not None else np.empty(0)

    def of_items(items: np.ndarray) -> np.ndarray:
        if options.window is not None:
            return listing.window(items[np.argsort(places[items])], options.window, first_new)
        if options.similar is not None and vectors is not None:
            return listing.similar(items, vectors[items], options.similar, first_new)
        return listing.all_pairs(items, first_new)

    if options.of == "groups":
        return listing.grouped([os.path.dirname(name) for name in _names(inputs)], of_items)
    return of_items(np.arange(total))


def _kept(pairs: np.ndarray, names: Sequence[str], total: int, options: PairsOptions) -> np.ndarray:
    """Return the listed pairs of the first `total` pictures; with `of: groups` those within a folder."""
    pairs = pairs[(pairs < total).all(axis=1)]
    if options.of == "groups":
        folders = np.array([os.path.dirname(name) for name in names], object)
        pairs = pairs[folders[pairs[:, 0]] == folders[pairs[:, 1]]]
    return pairs


def _most(options: PairsOptions, items: int, earlier: int) -> int:
    """Return the number of pairs, at most, of some pictures with each other and with earlier ones."""
    every = items * (items - 1) // 2 + items * earlier
    if options.window is not None:
        return min(every, options.window * items * (2 if earlier else 1))
    return every if options.similar is None else min(every, options.similar * (items + earlier))


def _named(values: Mapping[str, np.ndarray] | None) -> list[str] | None:
    """Return the name of each picture, of a video's frame its number, by what the source says; None if it does not."""
    found = next((values[name] for name in (NAME, "frame") if name in values), None) if values is not None else None
    return None if found is None else list(map(str, found.tolist()))


def _names(inputs: Sequence[RunInput]) -> list[str]:
    """Return the name of each picture; of a video's frame its number."""
    found: list[str] = []
    for item in inputs:
        found += map(str, item.array(NAME if NAME in item.arrays else "frame").tolist())
    return found


def _places(inputs: Sequence[RunInput]) -> np.ndarray:
    """Return the place of each picture: by name, if every input is in that order, else input by input."""
    parts = [[_path(name) for name in _names([item])] if NAME in item.arrays else [] for item in inputs]
    paths = [path for part in parts for path in part]
    if len(parts) == 1 or not all(parts) or any(part != sorted(part) for part in parts):
        return np.arange(sum(item.frames_total for item in inputs))
    places = np.empty(len(paths), np.int64)
    places[sorted(range(len(paths)), key=paths.__getitem__)] = np.arange(len(paths))
    return places


def _path(name: str) -> list[tuple[bool, str]]:
    """Return what orders names as the source of pictures does: those of a folder come before its folders."""
    *folders, last = name.split("/")
    return [*((True, folder) for folder in folders), (False, last)]


def _features(inputs: Sequence[RunInput], name: str) -> np.ndarray:
    for item in inputs:
        _check_feature(name, item.arrays)
    return np.concatenate([item.array(name) for item in inputs])


def _check_feature(name: str, arrays: Mapping[str, Array]) -> None:
    """Raise InputError if an array is not one vector for each picture."""
    vectors = [
        one.name for one in arrays.values()
        if one.dims[0] == "frame" and len(one.shape) == 1 and one.name not in (ORIGIN.name, SCALE.name)
    ]  # fmt: skip
    if name not in vectors:
        raise InputError(
            f"pairs.similar: {unknown('array of features', name, vectors)}; add a stage that makes it (features), "
            "or name another with pairs.array"
        )

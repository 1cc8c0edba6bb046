"""Rows of features in store order, and the pictures that have none: the common part of their exports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.errors import UsageError
from pipeline.images.features import NAME, feature_array
from pipeline.media.images.copies import Inventory
from pipeline.media.images.names import Names, text
from pipeline.store.read import RunInput
from pipeline.store.schema import DECODED, Array
from pipeline.text import plural
from pipeline.views.axes import noun_of
from pipeline.views.export import Export, StoredRows
from pipeline.views.tables.rows import Block

ERROR = "error"
"""Item array of pictures: why the picture could not be read; "" if it could."""
MODIFIED = "modified_seconds"
"""Item array of pictures: time of the file's last change when it was read."""
_AS_ORIGINAL = "as the picture with the same content"
_OUTDATED = "the picture with the same content changed before it was computed; run again to compute this one"
_UNREAD = "could not be read"
_NOT_FINITE = "its feature has values that are not finite"


@dataclass(frozen=True)
class Features:
    """Some consecutive pictures of an input."""

    vectors: np.ndarray
    """float (n, d): features as stored, all finite."""
    names: list[str]
    """Name of each of the n pictures; with the name of its input before it if the file holds several inputs."""
    failed: list[tuple[str, str]]
    """Name and reason of each picture without a feature."""


class FeatureExport(Export):
    """A format of one vector per picture."""

    axes: ClassVar[tuple[str, ...]] = ("frame",)
    flags: ClassVar[tuple[str, ...]] = ("array", "parts")
    noun: ClassVar[str] = "feature"
    to_standard_output: ClassVar[bool] = False
    has_copies: ClassVar[bool] = True
    failed_go_to: ClassVar[str]
    """Place of the pictures without a feature, in words."""

    def array(self, stored: StoredRows) -> Array:
        """Return the array to write. Raises UsageError if there is none, or several."""
        return feature_array([one.item for one in stored.all_inputs], stored.array)

    def features(self, stored: StoredRows) -> Iterator[Features]:
        """Yield the pictures of all inputs of the file, in store order, in bounded memory."""
        array = self.array(stored).name
        several = len(stored.inputs) > 1
        twice = [name for name, count in Counter(one.name for one in stored.inputs).items() if count > 1]
        if twice:
            raise UsageError(f"two inputs have the name {twice[0]!r}; export the stores one by one")
        for one in stored.inputs:
            prefix, copies = f"{one.name}/" if several else "", _Copies(one.item)
            known = [name for name in (NAME, "frame", ERROR, DECODED.name) if name in one.item.arrays]
            for block in one.blocks([array, *known]) if one.item.arrays else ():
                found = _features(block, array, prefix, _reason_of(one.item))
                stored.n_rows -= len(found.failed)
                yield found
                if (same := copies.of(block, array, prefix)) is not None:
                    stored.n_rows += len(same.names)
                    stored.n_items += len(same.names) + len(same.failed)
                    yield same
        failed, where = stored.n_items - stored.n_rows, f"no feature: see {self.failed_go_to}"
        stored.notes = [note for note in stored.notes if not note.endswith(where)]  # that of an earlier part
        if failed:
            stored.notes.append(f"{plural(failed, noun_of(stored.runs))} {'has' if failed == 1 else 'have'} {where}")


def _features(block: Block, array: str, prefix: str, reason: Callable[[int, int], str]) -> Features:
    vectors, positions = block.arrays[array], np.arange(block.rows.start, block.rows.stop)
    numbers = block.arrays.get("frame", positions).tolist()
    names = [f"{prefix}{name}" for name in (block.arrays[NAME].tolist() if NAME in block.arrays else numbers)]
    decoded = block.arrays.get(DECODED.name, np.ones(len(vectors), bool))
    good = decoded & np.isfinite(vectors).all(axis=1)
    failed = []
    for k in np.flatnonzero(~good).tolist():
        said = block.arrays[ERROR][k] if ERROR in block.arrays else ""
        failed.append((names[k], said or (_NOT_FINITE if decoded[k] else reason(numbers[k], int(positions[k])))))
    return Features(vectors[good], [names[k] for k in np.flatnonzero(good).tolist()], failed)


class _Copies:
    """Pictures with the content of others, which have the features of these."""

    def __init__(self, item: RunInput) -> None:
        # Of an input that is not complete, a block's rows are not the pictures' numbers.
        self._inventory = (Inventory.of_input(item) if item.complete else None) or Inventory(Names(b""))
        modified = item.array(MODIFIED) if len(self._inventory.copies) and MODIFIED in item.arrays else None
        self._outdated = None if modified is None else self._inventory.outdated(modified)
        self._order = np.argsort(self._inventory.originals, kind="stable")
        self._sorted = self._inventory.originals[self._order]

    def of(self, block: Block, array: str, prefix: str) -> Features | None:
        """Return the copies of a block's pictures; None if there are none."""
        start, stop = np.searchsorted(self._sorted, (block.rows.start, block.rows.stop))
        if start == stop:
            return None
        vectors, which = block.arrays[array][self._sorted[start:stop] - block.rows.start], self._order[start:stop]
        names = [prefix + text(self._inventory.copies[at]) for at in which.tolist()]
        outdated = np.zeros(len(which), bool) if self._outdated is None else self._outdated[which]
        good = np.isfinite(vectors).all(axis=1) & ~outdated
        return Features(
            vectors[good],
            [names[k] for k in np.flatnonzero(good).tolist()],
            [(names[k], _OUTDATED if outdated[k] else _AS_ORIGINAL) for k in np.flatnonzero(~good).tolist()],
        )


def _reason_of(item: RunInput) -> Callable[[int, int], str]:
    """Return a function of an item's number and position: why it could not be read, as the records of chunks say."""
    numbered = item.complete or "frame" in item.arrays  # else positions are those of the chunks that are there
    by_number = {number: one["error"] for one in item.unreadable for number in one["frames"]} if numbered else {}
    by_chunk = {one["chunk"]: one["error"] for one in item.failures} if item.complete else {}
    length = int(item.attributes.get("chunk_frames") or 1)
    return lambda number, position: by_number.get(number) or by_chunk.get(position // length) or _UNREAD

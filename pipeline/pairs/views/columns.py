"""Columns of pairs and of matches: the names of the two pictures, and the places of each match in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa

from pipeline.engine.source import OF
from pipeline.pairs.source import A, B
from pipeline.store.mapped import StoredItems
from pipeline.store.read import RunInput
from pipeline.store.read import open as open_store
from pipeline.store.schema import Array
from pipeline.views.axes import source_arrays
from pipeline.views.tables.rows import AxisColumns, Block, Column, columns_of


class PairColumns(AxisColumns):
    """Columns of a pair: what its pictures are called, beside their numbers."""

    def columns(self, item: RunInput, array: Array) -> dict[str, Column] | None:
        if array.name not in (A.name, B.name) or OF not in item.attributes:
            return None
        stored = pictures_of(item)
        known = source_arrays(open_store(item.store_path))
        found = {f"{one.name}_{array.name}": _of(stored, one, array.name) for one in known if one.name in stored}
        return {**found, **columns_of(array, flat=True)}


class MatchColumns(AxisColumns):
    """Columns of a match: the numbers of its two keypoints, and their places in the two pictures."""

    def columns(self, item: RunInput, array: Array) -> dict[str, Column] | None:
        if array.name != "match" or OF not in item.attributes or "keypoint" not in pictures_of(item):
            return None
        points, needs = _Points(pictures_of(item)), (array.name, A.name, B.name)

        def number(side: int) -> Callable[[Block], np.ndarray]:
            return lambda block: block.arrays[array.name][:, side]

        def place(k: int) -> Callable[[Block], np.ndarray]:
            return lambda block: points.of(block)[:, k]

        return {
            **{f"keypoint_{name}": Column(pa.int32(), number(k), needs) for k, name in enumerate("ab")},
            **{name: Column(pa.float32(), place(k), needs) for k, name in enumerate(("x_a", "y_a", "x_b", "y_b"))},
        }


def pictures_of(item: RunInput) -> StoredItems:
    """Return the pictures that the pairs of an input are made of."""
    return StoredItems(str(item.store_path), item.attributes[OF])


def _of(stored: StoredItems, array: Array, side: str) -> Column:
    """Return a column of the pictures' arrays as one of pairs."""
    column = columns_of(array, flat=True)[array.name]
    return replace(column, values=lambda block: stored.values(array.name)[block.arrays[side]], needs=(side,))


class _Points:
    """Places of the matches of a block; those of the last block are kept, for the columns that follow."""

    def __init__(self, stored: StoredItems) -> None:
        self._stored = stored
        self._last: tuple[Block | None, np.ndarray] = None, np.empty((0, 4), np.float32)

    def of(self, block: Block) -> np.ndarray:
        """Return float32 (n, 4): x and y in the first picture, x and y in the second one."""
        if self._last[0] is not block:
            assert block.counts is not None
            found = np.empty((block.n_rows, 4), np.float32)
            a, b, match = (block.arrays[name] for name in (A.name, B.name, "match"))
            for k, (start, stop) in enumerate(pairwise(np.cumsum([0, *block.counts]).tolist())):
                if start < stop:
                    for side, picture in enumerate((a[k], b[k])):
                        points = self._stored.rows("keypoint", int(picture))
                        found[start:stop, 2 * side : 2 * side + 2] = points[match[start:stop, side]]
            self._last = block, found
        return self._last[1]

"""Lists of pairs of pictures, in an order in which neighbours in the list share pictures.

Pairs are int32 (n, 2): the smaller index first, each pair once. `first_new` is the first item that is new: pairs of two
older ones are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from pipeline.errors import InputError
from pipeline.text import unknown

TILE = 16
"""Pictures along each side of a tile of pairs: 256 pairs of at most 32 pictures."""
MOST_PAIRS = 100_000_000
"""They are listed at once: 8 bytes each, and 16 more while they are put in order."""
BLOCK_PAIRS = 1 << 20
"""Pairs that are computed with at once."""
BLOCK_BYTES = 64 << 20
"""Similarities that are computed at once."""


def all_pairs(items: np.ndarray, first_new: int = 0) -> np.ndarray:
    """Return every pair of some items (ascending). Raises InputError if there are too many to list."""
    n = len(items)
    if n * (n - 1) // 2 > MOST_PAIRS:
        raise InputError(
            f"{n} pictures make {n * (n - 1) // 2} pairs, and {MOST_PAIRS} is the most; "
            "choose some of them: window: 10, similar: 20, of: groups, or a list"
        )
    later = range(int(np.searchsorted(items, first_new)), n)
    pairs, stop = np.empty((sum(later), 2), np.int32), 0
    for k in later:
        start, stop = stop, stop + k
        pairs[start:stop, 0], pairs[start:stop, 1] = items[:k], items[k]
    return pairs


def window(items: np.ndarray, width: int, first_new: int = 0) -> np.ndarray:
    """Return the pairs of items that are at most `width` places apart in their order."""
    pairs = [np.stack([items[:-k], items[k:]], axis=1) for k in range(1, min(width, len(items) - 1) + 1)]
    return _new(np.concatenate(pairs) if pairs else np.empty((0, 2)), first_new)


def similar(items: np.ndarray, vectors: np.ndarray, most: int, first_new: int = 0) -> np.ndarray:
    """Return the pairs of each item with the `most` others whose vectors (n, d) are nearest by cosine.

    Items with a vector that is not finite, or zero, have no pairs.
    """
    vectors = np.asarray(vectors, np.float32)
    lengths = np.linalg.norm(vectors, axis=1)
    usable = np.flatnonzero(np.isfinite(lengths) & (lengths > 0))
    vectors, items = vectors[usable] / lengths[usable, None], items[usable]
    n = len(items)
    most = min(most, n - 1)
    if most < 1:
        return np.empty((0, 2), np.int32)
    step = max(1, BLOCK_BYTES // (4 * n))
    found = []
    for start in range(0, n, step):
        near = vectors[start : start + step] @ vectors.T
        rows = np.arange(len(near))
        near[rows, start + rows] = -np.inf
        best = np.argpartition(near, n - most, axis=1)[:, n - most :]
        found.append(np.stack([np.repeat(items[start + rows], most), items[best].ravel()], axis=1))
    return _new(np.concatenate(found), first_new)


def named(lines: Iterable[str], names: Sequence[str], where: str, first_new: int = 0) -> np.ndarray:
    """Return the pairs of a list: two names on each line, apart by a space or a tab, as hloc writes them.

    Empty lines are passed over, and those that begin with # unless they name two pictures. `where` is the list's path,
    for messages. Raises InputError that names the line.
    """
    known = {name: index for index, name in enumerate(names)}
    twice = {name for name, count in Counter(names).items() if count > 1} if len(known) < len(names) else set()
    pairs = []
    for number, line in enumerate(lines, 1):
        text = line.strip("\r\n\t ")
        ways = _split(text, known)
        if not ways and (not text or text.startswith("#")):
            continue
        if len(ways) > 1:
            raise InputError(f"{where}, line {number}: {text!r} has spaces in names; write a tab between the two")
        if not ways:
            first, _, second = text.partition("\t" if "\t" in text else " ")
            lacking = next((name.strip() for name in (first, second) if name.strip() not in known), text)
            if not second:
                raise InputError(f"{where}, line {number}: {text!r} is not two names apart by a space or a tab")
            raise InputError(f"{where}, line {number}: {unknown('picture', lacking, names)}")
        pair = ways[0]
        same = next((names[index] for index in pair if names[index] in twice), None)
        if same is not None:
            raise InputError(f"{where}, line {number}: two pictures are called {same!r}; give them names of their own")
        pairs.append(pair)
    found = np.array(pairs, np.int64).reshape(-1, 2)
    return _new(found[found[:, 0] != found[:, 1]], first_new)


def _split(text: str, known: dict[str, int]) -> list[tuple[int, int]]:
    """Return the two items of a line, in each way to read it: names may have spaces, but no tab."""
    mark = "\t" if "\t" in text else " "
    halves = [(text[:k].strip(), text[k:].strip()) for k, character in enumerate(text) if character == mark]
    ways = {(known[first], known[second]) for first, second in halves if first in known and second in known}
    return sorted(ways)


def grouped(folders: Sequence[str], pairs_of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return the pairs within each folder; `pairs_of` gives those of some items."""
    groups: dict[str, list[int]] = {}
    for index, folder in enumerate(folders):
        groups.setdefault(folder, []).append(index)
    found = [pairs_of(np.array(items)) for items in groups.values()]
    return np.concatenate(found) if found else np.empty((0, 2), np.int32)


def in_tiles(pairs: np.ndarray) -> np.ndarray:
    """Return the pairs tile by tile, each once, so that any stretch of them touches few pictures."""
    if not len(pairs):
        return np.empty((0, 2), np.int32)
    tiles = int(pairs.max()) // TILE + 1
    keys = np.empty(len(pairs), np.int64)
    for start in range(0, len(pairs), BLOCK_PAIRS):
        block = pairs[start : start + BLOCK_PAIRS].astype(np.int64)
        a, b = block.min(axis=1), block.max(axis=1)
        keys[start : start + BLOCK_PAIRS] = ((a // TILE * tiles + b // TILE) * TILE + a % TILE) * TILE + b % TILE
    keys.sort()
    repeated = keys[1:] == keys[:-1]
    if repeated.any():
        keys = np.delete(keys, np.flatnonzero(repeated))
    found = np.empty((len(keys), 2), np.int32)
    for start in range(0, len(keys), BLOCK_PAIRS):
        tile, inside = np.divmod(keys[start : start + BLOCK_PAIRS], TILE**2)
        found[start : start + BLOCK_PAIRS, 0] = tile // tiles * TILE + inside // TILE
        found[start : start + BLOCK_PAIRS, 1] = tile % tiles * TILE + inside % TILE
    return found


def _new(pairs: np.ndarray, first_new: int) -> np.ndarray:
    return pairs[pairs.max(axis=1) >= first_new].astype(np.int32) if len(pairs) else np.empty((0, 2), np.int32)

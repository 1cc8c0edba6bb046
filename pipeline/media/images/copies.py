"""Pictures whose files have equal content: found by size and hash, kept beside the list of an input's pictures."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.files.regular import open_file
from pipeline.media.images.names import Names, path_of
from pipeline.media.images.shelves import state_of

LISTED = ("folder", "list", "files")
"""Kinds of inputs whose list of pictures the store keeps."""
AT_ONCE = 16
"""Files that are looked at once: a network's answer is waited for, not computed."""
_WAITING = 100_000
"""Files that are asked for before the first answer is taken."""
_PART = 1 << 20
"""Bytes of a file that are read at once."""
T = TypeVar("T")


@dataclass(frozen=True)
class Inventory:
    """The pictures of an input, and the copies of them that are not computed."""

    names: Names
    copies: Names = field(default_factory=lambda: Names(b""))
    originals: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """int64 (copies,): index of the picture that each is a copy of."""
    modified_seconds: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """float64 (copies,): time of each copy's last change, since 1970."""

    def packed(self) -> bytes:
        """Return it compressed: the names, and after them what copies there are."""
        if not len(self.copies):
            return self.names.packed()
        numbers = self.originals.astype("<i8"), self.modified_seconds.astype("<f8")
        packed = [zlib.compress(array.tobytes(), 1) for array in numbers]
        return b"".join([self.names.packed(), self.copies.packed(), *packed])

    @classmethod
    def unpacked(cls, content: bytes) -> Inventory:
        """Return what `packed` made. Raises zlib.error if it is damaged."""
        parts = list(_streams(content))
        if len(parts) == 1:
            return cls(Names(parts[0]))
        if len(parts) != 4:
            raise zlib.error(f"{len(parts)} parts")
        originals, modified = np.frombuffer(parts[2], "<i8"), np.frombuffer(parts[3], "<f8")
        return cls(Names(parts[0]), Names(parts[1]), originals.astype(np.int64), modified.astype(np.float64))

    @property
    def all_names(self) -> Names:
        """The names of pictures and of copies."""
        return Names(self.names.joined + self.copies.joined) if len(self.copies) else self.names

    def chosen(self, which: npt.NDArray[np.bool_], copies: npt.NDArray[np.bool_]) -> Inventory:
        """Return some of the pictures, by bool (names,), and those of their copies, by bool (copies,)."""
        copies = copies & which[self.originals]
        index = np.cumsum(which) - 1
        originals, modified = index[self.originals[copies]], self.modified_seconds[copies]
        return Inventory(self.names.chosen(which), self.copies.chosen(copies), originals, modified)


def _streams(content: bytes) -> Iterator[bytes]:
    while content:
        stream = zlib.decompressobj()
        part = stream.decompress(content) + stream.flush()
        if not stream.eof:
            raise zlib.error("incomplete")
        yield part
        content = stream.unused_data


def without_copies(folder: str, names: Names) -> Inventory:
    """Return the pictures of which none has the content of an earlier one, and the others as copies of them.

    Only files of equal sizes are read. A file that cannot be read stays a picture.
    """
    sizes, modified = states(folder, names)
    _, group, count = np.unique(sizes, return_inverse=True, return_counts=True)
    alike = (count[group] > 1) & (sizes > 0)
    first: dict[tuple[int, bytes], int] = {}
    original = np.arange(len(names))
    for at, digest in zip(np.flatnonzero(alike).tolist(), _of_each(folder, names.chosen(alike), _digest), strict=True):
        if digest is not None:
            original[at] = first.setdefault((int(sizes[at]), digest), at)
    is_kept = original == np.arange(len(names))
    index = np.cumsum(is_kept) - 1
    return Inventory(names.chosen(is_kept), names.chosen(~is_kept), index[original[~is_kept]], modified[~is_kept])


def states(folder: str, names: Names) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the size in bytes, int64 (names,), and the time of last change, float64 (names,), of files.

    They are -1 and NaN for a file that is not there.
    """
    sizes, modified = np.empty(len(names), np.int64), np.empty(len(names), np.float64)
    for at, (size, seconds) in enumerate(_of_each(folder, names, state_of)):
        sizes[at], modified[at] = size, seconds
    return sizes, modified


def _of_each(folder: str, names: Names, look: Callable[[bytes], T]) -> Iterator[T]:
    """Yield what a function returns for each path, in order."""
    root = os.fsencode(folder)
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="look") as pool:
        for start in range(0, len(names), _WAITING):
            yield from pool.map(look, [path_of(root, name) for name in names[start : start + _WAITING]])


def _digest(path: bytes) -> bytes | None:
    """Return a hash of a file's content; None if it cannot be read."""
    made = hashlib.blake2b(digest_size=16)
    try:
        with open_file(os.fsdecode(path)) as file:
            while part := file.read(_PART):
                made.update(part)
    except OSError:
        return None
    return made.digest()

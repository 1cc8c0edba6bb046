"""Pictures whose files have equal content: found by size and hash, kept beside the list of an input's pictures."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.errors import StoreError
from pipeline.files.regular import open_file
from pipeline.media.images.names import Names, path_of
from pipeline.media.images.shelves import state_of

if TYPE_CHECKING:
    from pipeline.store.read import RunInput

LISTED = ("folder", "list", "files")
"""Kinds of inputs whose list of pictures the store keeps."""
AT_ONCE = 16
"""Files that are looked at once: a network's answer is waited for, not computed."""
_DIGEST_BYTES = 16
_ADVICE = "restore it or start over with --fresh"
_WAITING = 100_000
"""Files that are asked for before the first answer is taken."""
_PART = 1 << 20
"""Bytes of a file that are read at once."""
T = TypeVar("T")


@dataclass(frozen=True)
class Digests:
    """Hashes of the content of some pictures of an input: of those that were compared with others."""

    index: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """int64 (digests,), ascending: which picture."""
    content: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, _DIGEST_BYTES), np.uint8))
    """uint8 (digests, 16)."""
    modified_seconds: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """float64 (digests,): time of the file's last change before it was read, since 1970."""

    def chosen(self, which: npt.NDArray[np.bool_]) -> Digests:
        """Return some of them, by bool (digests,)."""
        return Digests(self.index[which], self.content[which], self.modified_seconds[which])

    def merged(self, other: Digests) -> Digests:
        """Return these and those of other pictures of the same input."""
        index = np.concatenate([self.index, other.index])
        order = np.argsort(index)
        content = np.concatenate([self.content, other.content])
        modified = np.concatenate([self.modified_seconds, other.modified_seconds])
        return Digests(index[order], content[order], modified[order])


@dataclass(frozen=True)
class Inventory:
    """The pictures of an input, and the copies of them that are not computed."""

    names: Names
    copies: Names = field(default_factory=lambda: Names(b""))
    originals: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """int64 (copies,): index of the picture that each is a copy of."""
    modified_seconds: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """float64 (copies,): time of each copy's last change, since 1970."""
    digests: Digests = field(default_factory=Digests)

    def packed(self) -> bytes:
        """Return it compressed: the names, and after them what copies and digests there are."""
        if not len(self.copies) and not len(self.digests.index):
            return self.names.packed()
        known = self.digests
        numbers = [self.originals.astype("<i8"), self.modified_seconds.astype("<f8")]
        numbers += [known.index.astype("<i8"), known.content, known.modified_seconds.astype("<f8")]
        packed = [zlib.compress(array.tobytes(), 1) for array in numbers]
        return b"".join([self.names.packed(), self.copies.packed(), *packed])

    @classmethod
    def of_store(cls, path: str, content: bytes | None) -> Inventory:
        """Return what a store keeps of the input at `path`. Raises StoreError if it is damaged, or None."""
        if content is None:
            raise StoreError(f"{path}: the store's list of its pictures is gone; {_ADVICE}")
        try:
            return cls.unpacked(content)
        except zlib.error as err:
            raise StoreError(f"{path}: the store's list of its pictures is damaged ({err}); {_ADVICE}") from err

    @classmethod
    def of_input(cls, item: RunInput) -> Inventory | None:
        """Return what the store keeps of an input; None if that is not files. Raises StoreError if it is damaged."""
        content = item.inventory()
        is_listed = item.attributes.get("container") in LISTED
        return cls.of_store(item.name, content) if is_listed or content is not None else None

    @classmethod
    def unpacked(cls, content: bytes) -> Inventory:
        """Return what `packed` made. Raises zlib.error if it is damaged."""
        parts = list(_streams(content))
        if len(parts) == 1:
            return cls(Names(parts[0]))
        try:
            made = cls._of_parts(parts)
        except ValueError as err:
            raise zlib.error(str(err)) from err
        known = made.digests
        lengths = len(made.copies), len(made.originals), len(made.modified_seconds)
        lengths_known = len(known.index), len(known.content), len(known.modified_seconds)
        at = np.concatenate([made.originals, known.index])
        if len(set(lengths)) + len(set(lengths_known)) > 2 or ((at < 0) | (at >= len(made.names))).any():
            raise zlib.error("its parts do not belong together")
        return made

    @classmethod
    def _of_parts(cls, parts: list[bytes]) -> Inventory:
        if len(parts) not in (4, 7):  # 4: of a version that kept no digests
            raise ValueError(f"{len(parts)} parts")
        originals, modified = _numbers(parts[2], "<i8"), _numbers(parts[3], "<f8")
        digests = Digests()
        if len(parts) == 7:
            content = np.frombuffer(parts[5], np.uint8).reshape(-1, _DIGEST_BYTES)
            digests = Digests(_numbers(parts[4], "<i8"), content, _numbers(parts[6], "<f8"))
        return cls(Names(parts[0]), Names(parts[1]), originals, modified, digests)

    @property
    def all_names(self) -> Names:
        """The names of pictures and of copies."""
        return Names(self.names.joined + self.copies.joined) if len(self.copies) else self.names

    def as_computed(self, modified: npt.NDArray[np.float64]) -> Inventory:
        """Return it without copies of pictures that changed before they were computed; see `outdated`."""
        kept = ~self.outdated(modified)
        return self if kept.all() else self.chosen(np.ones(len(self.names), bool), kept)

    def outdated(self, modified: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Return bool (copies,): true for copies of pictures that changed after they were compared.

        `modified`: float64 (names,), the time of each picture's last change when it was computed.
        """
        changed = np.zeros(len(self.names), bool)
        changed[self.digests.index] = self.digests.modified_seconds != modified[self.digests.index]
        return changed[self.originals]

    def chosen(self, which: npt.NDArray[np.bool_], copies: npt.NDArray[np.bool_]) -> Inventory:
        """Return some of the pictures, by bool (names,), and those of their copies, by bool (copies,)."""
        copies = copies & which[self.originals]
        index = np.cumsum(which) - 1
        originals, modified = index[self.originals[copies]], self.modified_seconds[copies]
        digests = self.digests.chosen(which[self.digests.index])
        digests = replace(digests, index=index[digests.index])
        return Inventory(self.names.chosen(which), self.copies.chosen(copies), originals, modified, digests)


def _numbers(part: bytes, dtype: str) -> npt.NDArray[Any]:
    numbers = np.frombuffer(part, dtype)
    return numbers.astype(numbers.dtype.newbyteorder("="))


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
    known = _digests(folder, names, (count[group] > 1) & (sizes > 0), modified)
    original = np.arange(len(names))
    original[known.index] = known.index[_first_alike(known.content)]
    is_kept = original == np.arange(len(names))
    alone = Inventory(names, digests=known).chosen(is_kept, np.zeros(0, bool))
    index = np.cumsum(is_kept) - 1
    return replace(
        alone, copies=names.chosen(~is_kept), originals=index[original[~is_kept]], modified_seconds=modified[~is_kept]
    )


class Newcomers:
    """Pictures that came to a folder after others were stored, to be compared with those by content."""

    def __init__(self, folder: str, names: Names) -> None:
        self.folder, self.names = folder, names
        self.sizes, self.modified = states(folder, names)
        self._is_new = self.sizes > 0
        self._read = np.zeros(len(names), bool)
        self._digests = Digests()

    def joined_to(self, part: Inventory, sizes: npt.NDArray[np.int64], modified: npt.NDArray[np.float64]) -> Inventory:
        """Return a stored part with the newcomers that have the content of one of its pictures as copies of it.

        Each newcomer is given to one part. `sizes`, `modified`: int64 and float64 (names,), the state of the part's
        files when they were computed. What has changed since is compared with nothing.
        """
        wanted = self._is_new & np.isin(self.sizes, sizes)
        if not wanted.any():
            return part
        more = _digests(self.folder, self.names, wanted & ~self._read, self.modified)  # read once for all parts
        self._read |= wanted
        self._digests = self._digests.merged(more)
        new = self._digests.chosen(wanted[self._digests.index])
        alike = np.isin(sizes, self.sizes[wanted])
        known = part.digests
        valid = known.modified_seconds == modified[known.index]
        alike[known.index[valid]] = False
        size, time = states(self.folder, part.names.chosen(alike))
        alike[alike] = (size == sizes[alike]) & (time == modified[alike])
        read = _digests(self.folder, part.names, alike, modified)
        stored = known.chosen(valid).merged(read)
        first = _first_alike(np.concatenate([stored.content, new.content]))[len(stored.index) :]
        copies = first < len(stored.index)
        which = np.zeros(len(self.names), bool)
        which[new.index[copies]] = True
        self._is_new &= ~which
        return Inventory(
            part.names,
            Names(part.copies.joined + self.names.chosen(which).joined),
            np.concatenate([part.originals, stored.index[first[copies]]]),
            np.concatenate([part.modified_seconds, self.modified[which]]),
            stored,
        )


def _first_alike(content: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Return int64 (n,): index of the first of the rows (n, 16) that are equal to each."""
    halves = np.ascontiguousarray(content).view(np.uint64)
    order = np.lexsort((halves[:, 1], halves[:, 0]))  # stable: equal rows stay in order
    ordered = halves[order]
    begins = np.ones(len(order), bool)
    begins[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    first = np.empty(len(order), np.int64)
    first[order] = order[begins][np.cumsum(begins) - 1]
    return first


def _digests(
    folder: str, names: Names, which: npt.NDArray[np.bool_], modified: npt.NDArray[np.float64]
) -> Digests:
    """Return the digests of the files that can be read of those chosen by bool (names,)."""
    content = np.zeros((int(which.sum()), _DIGEST_BYTES), np.uint8)
    is_read = np.zeros(len(content), bool)
    for row, digest in enumerate(_of_each(folder, names.chosen(which), _digest)):
        if digest is not None:
            content[row], is_read[row] = np.frombuffer(digest, np.uint8), True
    index = np.flatnonzero(which)[is_read]
    return Digests(index, content[is_read], modified[index])


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
    made = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    try:
        with open_file(os.fsdecode(path)) as file:
            while part := file.read(_PART):
                made.update(part)
    except OSError:
        return None
    return made.digest()

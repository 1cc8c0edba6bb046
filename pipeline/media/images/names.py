"""Millions of names in little memory: the bytes of all in one piece, and the position at which each ends."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]

_LINE_END, _COMMENT = b"\n#"
_SPACES = np.frombuffer(b" \t\r\v\f", np.uint8)
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""Odd, with bits at random: 2**64 divided by the golden ratio."""
_HASHED = 100_000
"""Names that are hashed at once."""
_MARK = b"\xef\xbb\xbf"
"""Byte order mark, with which some editors begin a file."""


class Names(Sequence[bytes]):
    """Names as bytes, which file names are; `text` gives them as they are shown and stored."""

    def __init__(self, joined: bytes) -> None:
        """Take names with a byte of 0 after each, which no file name holds."""
        self.joined = joined
        self._ends: Int64 = np.flatnonzero(np.frombuffer(joined, np.uint8) == 0).astype(np.int64)

    @classmethod
    def of(cls, names: Iterable[bytes]) -> Names:
        """Join names; none holds a byte of 0."""
        return cls(join(names))

    def packed(self) -> bytes:
        """Return all names, compressed; those of a folder shrink to a quarter and less."""
        return zlib.compress(self.joined, 1)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if stop <= start:
                return []
            first = int(self._ends[start - 1]) + 1 if start else 0
            return self.joined[first : int(self._ends[stop - 1])].split(b"\0")[::step]
        return self[index : index + 1][0]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self[:])

    def absent_from(self, other: Names) -> npt.NDArray[np.bool_]:
        """Return bool (names,): true for those that the other does not have."""
        import pyarrow.compute as pc

        found = pc.is_in(self._arrow(), value_set=other._arrow())
        return ~np.asarray(found.to_numpy(zero_copy_only=False), bool)

    def chosen(self, which: npt.NDArray[np.bool_]) -> Names:
        """Return some of the names, by bool (names,)."""
        if not which.any():
            return Names(b"")
        lengths = np.diff(self._ends, prepend=-1)
        return Names(np.frombuffer(self.joined, np.uint8)[np.repeat(which, lengths)].tobytes())

    def within(self, folder: str) -> Names:
        """Return the paths of names that are relative to a folder."""
        root = os.fsencode(folder)
        return Names.of(path_of(root, name) for name in self)

    def each_once(self) -> Names:
        """Return the names without repetitions, in order of first sight.

        Names of a hash that is there once are not looked at: a table of all names would take a gigabyte for 8 million.
        """
        hashes = self._hashes()
        ordered = np.sort(hashes)
        repeated = ordered[1:][ordered[1:] == ordered[:-1]]
        which = np.ones(len(self), bool)
        seen: set[bytes] = set()
        for index in np.flatnonzero(np.isin(hashes, repeated)).tolist() if len(repeated) else ():
            name = self[index]
            which[index] = name not in seen
            seen.add(name)
        return self if which.all() else self.chosen(which)

    def _hashes(self) -> npt.NDArray[np.uint64]:
        """Return uint64 (names,): a polynomial of each name's bytes, modulo 2**64."""
        letters, lengths = np.frombuffer(self.joined, np.uint8), np.diff(self._ends, prepend=-1)
        starts = self._ends - lengths + 1
        powers = np.cumprod(np.full(int(lengths.max(initial=1)), _FACTOR, np.uint64))
        hashes = np.empty(len(self), np.uint64)
        for first in range(0, len(self), _HASHED):
            part = slice(first, first + _HASHED)
            begin, length = starts[part], lengths[part]
            inside = np.arange(begin[0], begin[-1] + length[-1]) - np.repeat(begin, length)
            terms = (letters[begin[0] : begin[-1] + length[-1]].astype(np.uint64) + np.uint64(1)) * powers[inside]
            hashes[part] = np.add.reduceat(terms, begin - begin[0])
        return hashes

    def not_in(self, other: Names) -> Names:
        """Return the names that the other does not have."""
        return self.chosen(self.absent_from(other))

    def _arrow(self) -> Any:
        """Return the names, each with its byte of 0, without a copy."""
        import pyarrow as pa

        offsets = np.concatenate([[0], self._ends + 1]).astype(np.int64)
        return pa.Array.from_buffers(
            pa.large_binary(), len(self), [None, pa.py_buffer(offsets), pa.py_buffer(self.joined)]
        )


def join(names: Iterable[bytes]) -> bytes:
    """Return names with a byte of 0 after each."""
    return b"".join([part for name in names for part in (name, b"\0")])


def of_lines(content: bytes, is_first: bool = True) -> bytes:
    """Return the lines of a text, joined: without spaces around them, empty lines, and comments (`#`).

    Raises ValueError if there is a byte of 0 among them.
    """
    if is_first:
        content = content.removeprefix(_MARK)
    letters = np.frombuffer(content if content.endswith(b"\n") else content + b"\n", np.uint8).copy()
    if (letters == 0).any():
        raise ValueError("it holds bytes of 0; save it as UTF-8, not as UTF-16")
    ends = np.flatnonzero(letters == _LINE_END)
    starts = np.concatenate([[0], ends[:-1] + 1])
    while (loose := (ends > starts) & np.isin(letters[ends - 1], _SPACES)).any():
        ends[loose] -= 1
    while (loose := (ends > starts) & np.isin(letters[starts], _SPACES)).any():
        starts[loose] += 1
    kept = (ends > starts) & (letters[starts] != _COMMENT)
    starts, ends = starts[kept], ends[kept]
    letters[ends] = 0
    edges = np.zeros(len(letters) + 1, np.int8)
    edges[starts] += 1
    edges[ends + 1] -= 1
    joined: bytes = letters[np.cumsum(edges, dtype=np.int8)[:-1].astype(bool)].tobytes()
    return joined


def text(name: bytes) -> str:
    """Return a name as it is shown and stored; bytes that are not UTF-8, or not printed, are written as \\xNN."""
    shown = name.decode("utf-8", "backslashreplace")
    return shown if shown.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in shown)


def path_of(folder: bytes, name: bytes) -> bytes:
    """Return the path of a name relative to a folder; a name that is an absolute path stays."""
    return os.path.join(folder, name)

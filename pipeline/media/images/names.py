"""Millions of names in little memory: their bytes in one piece, and where each begins and ends."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]

_END = 0
"""Between names: a file name holds any other byte."""
_LINE_END, _RETURN, _COMMENT = b"\n\r#"
_SPACES = b" \t\r"


class Names:
    """A sequence of names as bytes, which file names are; `text` gives them as they are shown and stored."""

    def __init__(self, content: bytes, starts: Int64, stops: Int64) -> None:
        self._content, self._starts, self._stops = content, starts, stops

    @classmethod
    def of(cls, names: Iterable[bytes]) -> Names:
        """Pack names; none holds a byte of 0."""
        return cls.unjoined(b"\0".join(names) + b"\0")

    @classmethod
    def unjoined(cls, content: bytes) -> Names:
        """Return the names of `joined`."""
        ends = np.flatnonzero(np.frombuffer(content, np.uint8) == _END) if content != b"\0" else np.empty(0, np.int64)
        return cls(content, np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)[: len(ends)], ends.astype(np.int64))

    @classmethod
    def of_lines(cls, content: bytes) -> Names:
        """Return the lines of a text without spaces around them, empty lines, and comments (`#`)."""
        if content[:3] == b"\xef\xbb\xbf":  # some editors begin a file with a byte order mark
            content = content[3:]
        letters = np.frombuffer(content + b"\n", np.uint8)
        ends = np.flatnonzero(letters == _LINE_END).astype(np.int64)
        starts = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)
        for _ in range(len(content)):
            loose = (ends > starts) & np.isin(letters[ends - 1], list(_SPACES))
            if not loose.any():
                break
            ends[loose] -= 1
        for _ in range(len(content)):
            loose = (ends > starts) & np.isin(letters[starts], list(_SPACES))
            if not loose.any():
                break
            starts[loose] += 1
        kept = (ends > starts) & (letters[np.minimum(starts, len(letters) - 1)] != _COMMENT)
        return cls(content, starts[kept], ends[kept])

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> bytes:
        return self._content[self._starts[index] : self._stops[index]]

    def __iter__(self) -> Iterator[bytes]:
        return (self[index] for index in range(len(self)))

    def part(self, start: int, stop: int) -> list[bytes]:
        """Return names start (inclusive) to stop (exclusive)."""
        edges = zip(self._starts[start:stop].tolist(), self._stops[start:stop].tolist(), strict=True)
        return [self._content[first:last] for first, last in edges]

    def not_in(self, other: Names) -> Names:
        """Return the names that another sequence does not have."""
        import pyarrow.compute as pc

        is_there = pc.is_in(self._arrow(), value_set=other._arrow()).to_numpy(zero_copy_only=False)
        return Names(self._content, self._starts[~is_there], self._stops[~is_there])

    def _arrow(self) -> Any:
        import pyarrow as pa

        content = self.joined()
        ends = Names.unjoined(content)._stops + 1
        offsets = np.concatenate([[0], ends]).astype(np.int64)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(content)]
        return pa.Array.from_buffers(pa.large_binary(), len(self), buffers)

    def joined(self) -> bytes:
        """Return all names, a byte of 0 after each: what `unjoined` takes."""
        return b"\0".join(self) + b"\0"

    def packed(self) -> bytes:
        """Return `joined`, compressed: what `unpacked` takes. Names of a folder shrink to a quarter and less."""
        return zlib.compress(self.joined(), 1)

    @classmethod
    def unpacked(cls, content: bytes) -> Names:
        """Return the names of `packed`. Raises zlib.error if it is damaged."""
        return cls.unjoined(zlib.decompress(content))


def text(name: bytes) -> str:
    """Return a name as it is shown and stored; bytes that are not UTF-8, or not printed, are written as \\xNN."""
    shown = name.decode("utf-8", "backslashreplace")
    return shown if shown.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in shown)


def path_of(folder: bytes, name: bytes) -> bytes:
    """Return the path of a name relative to a folder; a name that is an absolute path stays."""
    return os.path.join(folder, name)

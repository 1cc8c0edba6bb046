"""Long arrays a piece at a time, at the speed of the disk: for readers that need every row, but never all at once.

A piece is what lies in one file: a shard of a compacted array, or a chunk of an input that is not complete. Pieces are
independent of each other, so several threads can load them side by side. zarr-python, which has one event loop, reads
the same shards at about half the speed. It reads shards of any other make.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numcodecs.zstd import Zstd

from pipeline.errors import StoreError
from pipeline.files.regular import open_file

T = TypeVar("T")

_CODECS = (["bytes", "zstd"], ["bytes", "crc32c"])
"""Packed, or as it is (compact.is_dense)."""
_INDEX_CODECS = ["bytes", "crc32c"]
_CRC_BYTES = 4


@dataclass(frozen=True)
class Piece:
    """Some rows of an array."""

    start: int
    """First row, inclusive."""
    stop: int
    """Last row, exclusive."""
    load: Callable[[], np.ndarray]
    """Reads the rows. Raises StoreError if they are missing or damaged."""
    take: Callable[[np.ndarray], np.ndarray] | None = None
    """Reads some rows (int64, ascending, counted from `start`), where that is cheaper than to load them all."""


def shard_pieces(folder: str, node: Mapping[str, Any], read_rows: Callable[[int, int], np.ndarray]) -> list[Piece]:
    """One piece per shard of the compacted array in a folder; `node`: its `zarr.json`. `read_rows` reads those of
    another make."""
    rows = int(node["shape"][0])
    shard_rows = int(node["chunk_grid"]["configuration"]["chunk_shape"][0])
    ranges = [(start, min(start + shard_rows, rows)) for start in range(0, rows, shard_rows)]
    if not is_ours(node):
        return [Piece(start, stop, partial(read_rows, start, stop)) for start, stop in ranges]
    tail = "/0" * (len(node["shape"]) - 1)
    shards = [Shard(f"{folder}/c/{k}{tail}", node) for k in range(len(ranges))]
    return [
        Piece(start, stop, partial(shard.rows, stop - start), shard.take)
        for shard, (start, stop) in zip(shards, ranges, strict=True)
    ]


def for_each(
    pieces: Sequence[Piece], function: Callable[[Piece, np.ndarray], T], threads: int
) -> Iterator[tuple[Piece, T]]:
    """Load each piece and apply a function to it, on several threads; results in order. At most `threads` + 1 pieces
    are held."""
    with ThreadPoolExecutor(threads, thread_name_prefix="pieces") as pool:
        waiting: list[tuple[Piece, Future[T]]] = []
        for piece in pieces:
            waiting.append((piece, pool.submit(_loaded, piece, function)))
            if len(waiting) > threads:
                done, future = waiting.pop(0)
                yield done, future.result()
        for done, future in waiting:
            yield done, future.result()


def whole(pieces: Sequence[Piece]) -> np.ndarray:
    """All rows of a small array."""
    return np.concatenate([piece.load() for piece in pieces]) if pieces else np.empty(0)


def _loaded(piece: Piece, function: Callable[[Piece, np.ndarray], T]) -> T:
    return function(piece, piece.load())


def rows_of(pieces: Sequence[Piece], rows: np.ndarray, threads: int) -> np.ndarray | None:
    """The named rows (ascending) of an array: only what holds some of them is read. None if no row is named."""
    held = [(piece, rows[np.searchsorted(rows, piece.start) : np.searchsorted(rows, piece.stop)]) for piece in pieces]
    wanted = [
        Piece(piece.start, piece.stop, partial(_taken, piece, part - piece.start)) for piece, part in held if len(part)
    ]
    found = [some for _, some in for_each(wanted, lambda _, some: some, threads)]
    return np.concatenate(found) if found else None


def _taken(piece: Piece, rows: np.ndarray) -> np.ndarray:
    return piece.load()[rows] if piece.take is None else piece.take(rows)


def is_ours(node: Mapping[str, Any]) -> bool:
    """Return whether an array is laid out as compact.py writes it: shards of whole rows, with the index at the end."""
    (codec, *others) = node["codecs"]
    inside = codec.get("configuration", {})
    return (
        not others
        and codec["name"] == "sharding_indexed"
        and inside.get("index_location") == "end"
        and [one["name"] for one in inside["codecs"]] in _CODECS
        and inside["codecs"][0].get("configuration", {}).get("endian", "little") == "little"
        and [one["name"] for one in inside["index_codecs"]] == _INDEX_CODECS
        and inside["chunk_shape"][1:] == node["shape"][1:]
        and node.get("chunk_key_encoding") == {"name": "default", "configuration": {"separator": "/"}}
        and node["data_type"] != "string"
    )


class Shard:
    """One file of a compacted array: chunks of rows, packed or not, and where they lie. Each has a checksum."""

    def __init__(self, path: str, node: Mapping[str, Any]) -> None:
        self.path = path
        self.chunk_rows = int(node["codecs"][0]["configuration"]["chunk_shape"][0])
        self.chunks = int(node["chunk_grid"]["configuration"]["chunk_shape"][0]) // self.chunk_rows
        self.is_packed = node["codecs"][0]["configuration"]["codecs"][1]["name"] == "zstd"
        self.shape = tuple(node["shape"][1:])
        self.dtype = np.dtype(node["data_type"]).newbyteorder("<")

    def rows(self, rows: int) -> np.ndarray:
        """Return the first `rows` rows. Raises StoreError."""
        n_chunks = -(-rows // self.chunk_rows)
        with self._errors():
            with open_file(self.path) as file:
                content = np.fromfile(file, np.uint8)
            index = self._index(content[len(content) - self._index_bytes :])
            found = np.empty((n_chunks * self.chunk_rows, *self.shape), self.dtype)
            for k in range(n_chunks):
                offset, length = index[k]
                self._decode(content[offset : offset + length], length, found[k * self.chunk_rows :][: self.chunk_rows])
        return found[:rows]

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Some rows, ascending; only their chunks are read. Raises StoreError."""
        found = np.empty((len(rows), *self.shape), self.dtype)
        chunk = np.empty((self.chunk_rows, *self.shape), self.dtype)
        with self._errors(), open_file(self.path) as file:
            file.seek(-self._index_bytes, os.SEEK_END)
            index = self._index(np.frombuffer(file.read(), np.uint8))
            which = rows // self.chunk_rows
            for k in np.unique(which):
                offset, length = index[k]
                file.seek(offset)
                self._decode(np.frombuffer(file.read(length), np.uint8), length, chunk)
                found[which == k] = chunk[rows[which == k] - k * self.chunk_rows]
        return found

    def view(self, chunk: int, content: mmap.mmap) -> np.ndarray:
        """Return a chunk of a file that is mapped and not packed, where it lies. Raises StoreError."""
        with self._errors():
            size = len(content)
            index = self._index(np.frombuffer(content, np.uint8, offset=max(size - self._index_bytes, 0)))
            offset, length = index[chunk]
            shape = (self.chunk_rows, *self.shape)
            n_bytes = self.dtype.itemsize * math.prod(shape)
            if length != n_bytes + _CRC_BYTES or not 0 <= offset <= size - length:
                raise ValueError("a chunk of it is missing")
            stored = np.frombuffer(content, np.uint8, length, offset)
            _require_sum(stored[:-_CRC_BYTES], stored[-_CRC_BYTES:])
        return np.ndarray(shape, self.dtype, content, offset)

    @property
    def _index_bytes(self) -> int:
        return 16 * self.chunks + _CRC_BYTES

    def _index(self, content: np.ndarray) -> list[tuple[int, int]]:
        """Offset and length of each chunk. Raises ValueError."""
        if len(content) != self._index_bytes:
            raise ValueError("its end is missing")
        index = np.frombuffer(content[:-_CRC_BYTES].tobytes(), "<u8").reshape(-1, 2)
        return [(int(offset), int(length)) for offset, length in index]

    def _decode(self, content: np.ndarray, length: int, out: np.ndarray) -> None:
        if not 0 < length == len(content):  # never written, or cut off
            raise ValueError("a chunk of it is missing")
        if not self.is_packed:
            plain = content[:-_CRC_BYTES]
            if plain.nbytes != out.nbytes:
                raise ValueError("a chunk of it is short")
            _require_sum(plain, content[-_CRC_BYTES:])
            out.reshape(-1).view(np.uint8)[:] = plain
        elif Zstd().decode(content, out=out).nbytes != out.nbytes:  # which compares its checksum
            raise ValueError("a chunk of it is short")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, RuntimeError, OverflowError) as err:
            raise StoreError(f"{self.path} is damaged ({err}); restore it, or delete the store and run again") from err


def _require_sum(plain: np.ndarray, checksum: np.ndarray) -> None:
    import google_crc32c

    if google_crc32c.value(np.ascontiguousarray(plain)) != int.from_bytes(checksum.tobytes(), "little"):
        raise ValueError("a checksum of it does not fit")

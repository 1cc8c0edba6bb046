"""Long arrays a piece at a time, at the speed of the disk: for whoever must see every row, and never all at once.

A piece is what lies in one file: a shard of a compacted array, or a chunk of an input that is not complete. Pieces are
independent of each other, so several threads can load them side by side; zarr-python, which has one event loop, reads
the same shards at about half the speed (and is what shards of any other make are read with).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numcodecs.zstd import Zstd

from pipeline.errors import StoreError

T = TypeVar("T")

_ABSENT = 2**64 - 1
"""In a shard's index: a chunk that was never written (Zarr v3, codecs/sharding-indexed)."""
_CODECS = ["bytes", "zstd"]
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
    """Reads the rows. Raises StoreError where they are missing or damaged."""


def shard_pieces(
    folder: str, name: str, node: Mapping[str, Any], read_rows: Callable[[int, int], np.ndarray]
) -> list[Piece]:
    """One piece per shard of a compacted array; `node`: its `zarr.json`. `read_rows` reads those of another make."""
    rows = int(node["shape"][0])
    shard_rows = int(node["chunk_grid"]["configuration"]["chunk_shape"][0])
    ranges = [(start, min(start + shard_rows, rows)) for start in range(0, rows, shard_rows)]
    if not _is_ours(node):
        return [Piece(start, stop, partial(read_rows, start, stop)) for start, stop in ranges]
    tail = "/0" * (len(node["shape"]) - 1)
    return [
        Piece(start, stop, partial(_read_shard, f"{folder}/{name}/c/{k}{tail}", node, stop - start))
        for k, (start, stop) in enumerate(ranges)
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


def _loaded(piece: Piece, function: Callable[[Piece, np.ndarray], T]) -> T:
    return function(piece, piece.load())


def rows_of(pieces: Sequence[Piece], rows: np.ndarray, threads: int) -> np.ndarray | None:
    """The named rows (ascending) of an array: only the pieces that hold some are loaded. None where no row is named."""
    held = [(piece, rows[np.searchsorted(rows, piece.start) : np.searchsorted(rows, piece.stop)]) for piece in pieces]
    wanted = {piece: part - piece.start for piece, part in held if len(part)}
    found = [some for _, some in for_each(list(wanted), lambda piece, array: array[wanted[piece]], threads)]
    return np.concatenate(found) if found else None


def _is_ours(node: Mapping[str, Any]) -> bool:
    """Whether an array is laid out as compact.py writes it: shards of whole rows, zstd, the index at the end."""
    (codec, *others) = node["codecs"]
    inside = codec.get("configuration", {})
    return (
        not others
        and codec["name"] == "sharding_indexed"
        and inside["index_location"] == "end"
        and [one["name"] for one in inside["codecs"]] == _CODECS
        and inside["codecs"][0]["configuration"]["endian"] == "little"
        and [one["name"] for one in inside["index_codecs"]] == _INDEX_CODECS
        and inside["chunk_shape"][1:] == node["shape"][1:]
        and node["chunk_key_encoding"] == {"name": "default", "configuration": {"separator": "/"}}
        and isinstance(node["data_type"], str)
        and node["data_type"] != "string"
    )


def _read_shard(path: str, node: Mapping[str, Any], rows: int) -> np.ndarray:
    """The first `rows` rows of a shard. Chunks carry checksums, which zstd compares."""
    chunk_rows = int(node["codecs"][0]["configuration"]["chunk_shape"][0])
    shard_rows = int(node["chunk_grid"]["configuration"]["chunk_shape"][0])
    shape = tuple(node["shape"][1:])
    dtype = np.dtype(node["data_type"]).newbyteorder("<")
    chunk_bytes = chunk_rows * dtype.itemsize * math.prod(shape)
    found = np.empty((-(-rows // chunk_rows) * chunk_rows, *shape), dtype)
    codec = Zstd()
    try:
        content = np.fromfile(path, np.uint8)
        index_bytes = 16 * (shard_rows // chunk_rows)
        index = content[len(content) - index_bytes - _CRC_BYTES : len(content) - _CRC_BYTES].view("<u8").reshape(-1, 2)
        for k in range(len(found) // chunk_rows):
            offset, length = map(int, index[k])
            if offset == _ABSENT or offset + length > len(content):
                raise ValueError(f"chunk {k} of the shard is not there")
            out = found[k * chunk_rows : (k + 1) * chunk_rows]
            decoded = codec.decode(content[offset : offset + length], out=out)
            if decoded.nbytes != chunk_bytes:
                raise ValueError(f"chunk {k} of the shard has {decoded.nbytes} bytes, not {chunk_bytes}")
    except (OSError, ValueError, RuntimeError) as err:
        raise StoreError(f"{path} is damaged ({err}); restore it, or delete the store and run again") from err
    return found[:rows]

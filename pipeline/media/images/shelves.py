"""Shelves of pictures: files, members of a tar file, rows of an array or a table. Each gives a picture by its number.

A shelf travels to the workers. It holds the places of the pictures of one chunk, and opens nothing before it is read.
"""

from __future__ import annotations

import errno
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.errors import InputError
from pipeline.files.regular import open_file
from pipeline.media.images.reading import Pixels
from pipeline.media.picture import MAX_BYTES, UnreadableError

_PASSING = frozenset({
    errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.ECONNRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH,
    errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EREMOTEIO, errno.ENODEV, errno.ENXIO,
})  # fmt: skip
"""Errors of the system that another try may not meet: they fail the chunk, and the picture is not to blame."""

Content = bytes | Pixels
"""A picture as a file holds it, or decoded."""


class Shelf(ABC):
    """The pictures of one chunk."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def content(self, index: int) -> Content:
        """Return one picture. Raises UnreadableError if it never can be read, OSError if another time may differ."""

    def state(self, index: int) -> tuple[int, float]:
        """Return size in bytes and time of the last change (seconds since 1970) of a file; -1 and NaN if unknown."""
        return -1, math.nan

    def contents(self) -> Iterator[Content | UnreadableError]:
        """Yield each picture in order, or why it cannot be read."""
        for index in range(len(self)):
            try:
                yield self.content(index)
            except UnreadableError as err:
                yield err


@dataclass(frozen=True)
class Files(Shelf):
    """Files of their own."""

    paths: tuple[bytes, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def state(self, index: int) -> tuple[int, float]:
        return state_of(self.paths[index])

    def content(self, index: int) -> bytes:
        path = self.paths[index]
        try:
            with open_file(os.fsdecode(path)) as file:
                return file.read(MAX_BYTES + 1)
        except OSError as err:
            if err.errno in _PASSING:
                raise
            raise UnreadableError(_told(path, err)) from err
        except ValueError as err:  # a byte of 0 in a name of a list
            raise UnreadableError(f"a file cannot have this name ({err})") from err


def state_of(path: bytes) -> tuple[int, float]:
    """Return size in bytes and time of the last change (seconds since 1970); -1 and NaN if there is no such file."""
    try:
        facts = os.stat(path)
    except (OSError, ValueError):
        return -1, math.nan
    return facts.st_size, facts.st_mtime


def _told(path: bytes, err: OSError) -> str:
    if err.errno == errno.EISDIR:
        return "it is a folder, not a file"
    if err.errno == errno.ENOENT and os.path.islink(path):
        return f"it is a link to {os.fsdecode(os.readlink(path))}, which is not there"
    return (err.strerror or str(err))[0].lower() + (err.strerror or str(err))[1:]


@dataclass(frozen=True)
class TarMembers(Shelf):
    """Members of a tar file, by the place of their content."""

    path: str
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.offsets)

    def content(self, index: int) -> bytes:
        size = self.sizes[index]
        if size > MAX_BYTES:
            raise UnreadableError(f"the file has more than {MAX_BYTES / 1e6:.0f} MB, the limit of a picture")
        with open_file(self.path) as file:
            content = os.pread(file.fileno(), size, self.offsets[index])
        if len(content) < size:
            raise UnreadableError(f"the tar file is cut off ({len(content)} of {size} bytes)")
        return content


@dataclass(frozen=True)
class ArrayRows(Shelf):
    """Rows of an array in an HDF5 or a Zarr store: pixels (n, height, width, 3 or 1), or files as bytes."""

    path: str
    kind: str
    """"hdf5" or "zarr"."""
    array: str
    """Path of the array in its store."""
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def content(self, index: int) -> Content:
        with opened(self.path, self.kind) as store:
            return _content(store[self.array][self.start + index])

    def contents(self) -> Iterator[Content | UnreadableError]:
        with opened(self.path, self.kind) as store:
            array = store[self.array]
            row_bytes = int(np.prod(array.shape[1:])) * array.dtype.itemsize if array.ndim > 1 else 1 << 20
            some = max(1, _BLOCK_BYTES // max(1, row_bytes))
            for first in range(self.start, self.stop, some):
                for value in array[first : min(first + some, self.stop)]:
                    try:
                        yield _content(value)
                    except UnreadableError as err:
                        yield err


_BLOCK_BYTES = 32 << 20
"""Rows of an array that are read at once; row by row, each would unpack all of its chunk."""


class opened:  # noqa: N801  (used as a function, with `with`)
    """Open an HDF5 file or a Zarr store for reading. Raises InputError."""

    def __init__(self, path: str, kind: str) -> None:
        self.path, self.kind = path, kind

    def __enter__(self) -> Any:
        self._file = None
        try:
            if self.kind == "zarr":
                import zarr

                opened = zarr.open(self.path, mode="r")
                return {"": opened} if isinstance(opened, zarr.Array) else opened
            import h5py

            open_file(self.path).close()  # raises for a pipe, which would be waited for
            self._file = h5py.File(self.path, "r")
        except ImportError as err:
            raise InputError(f"{self.path}: HDF5 needs h5py; pip install 'reelgraph[hdf5]'") from err
        except (OSError, ValueError, KeyError, TypeError) as err:
            raise InputError(f"{self.path} cannot be opened as {self.kind}: {' '.join(str(err).split())}") from err
        return self._file

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def _content(value: Any) -> Content:
    """Return a row: pixels as RGB, or the bytes of a file."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    array = np.asarray(value)
    if array.dtype == np.uint8 and array.ndim == 1:
        return array.tobytes()
    if array.dtype.kind in "SOV" and array.ndim == 0:
        return bytes(array.item()) if isinstance(array.item(), bytes) else array.tobytes()
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 3):
        raise UnreadableError(f"a row of shape {array.shape} and type {array.dtype} is not a picture")
    if array.dtype.itemsize == 2 and array.dtype.kind == "u":
        array = array >> 8
    elif array.dtype != np.uint8:
        raise UnreadableError(f"pixels are uint8 or uint16, not {array.dtype}")
    return np.ascontiguousarray(np.broadcast_to(array.astype(np.uint8), (*array.shape[:2], 3)))


@dataclass(frozen=True)
class TableRows(Shelf):
    """Rows of a Parquet file, one column of which holds files as bytes (with Hugging Face: a field `bytes`)."""

    path: str
    column: str
    """Dotted path of the column: "image.bytes"."""
    groups: tuple[int, ...]
    """Row groups that hold the rows."""
    skipped: int
    """Rows of the first group that lie before the first row."""
    rows: int

    def __len__(self) -> int:
        return self.rows

    def content(self, index: int) -> Content:
        return _cell(next(self._values(index, 1)))

    def contents(self) -> Iterator[Content | UnreadableError]:
        for value in self._values(0, self.rows):
            try:
                yield _cell(value)
            except UnreadableError as err:
                yield err

    def _values(self, index: int, count: int) -> Iterator[bytes | None]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        skip = self.skipped + index
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(_TABLE_ROWS, list(self.groups), [self.column]):
                if skip >= len(batch):
                    skip -= len(batch)
                    continue
                column = batch.column(0)
                while isinstance(column, pa.StructArray):  # of the one field that is read
                    column = column.field(0)
                taken = column.slice(skip, count)
                skip, count = 0, count - len(taken)
                yield from (value.as_py() for value in taken)
                if count <= 0:
                    return


_TABLE_ROWS = 64
"""Rows that are read from a table at once."""


def _cell(value: bytes | None) -> bytes:
    if value is None:
        raise UnreadableError("the row has no picture")
    return value


@dataclass
class Passed:
    """Counts what was passed over in a search, by the reason."""

    counts: dict[str, int] = field(default_factory=dict)
    videos: int = 0
    """Files among it that are videos by their names."""

    def add(self, reason: str, count: int = 1) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + count

    def told(self) -> str | None:
        """Return all of it in one line; None if there is nothing."""
        if not self.counts:
            return None
        return "passed over: " + "; ".join(f"{reason}: {count}" for reason, count in sorted(self.counts.items()))

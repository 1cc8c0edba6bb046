"""HDF5 files that are written whole, by h5py, which is optional."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pipeline.errors import UsageError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


@contextlib.contextmanager
def written_hdf5(path: str, **options: Any) -> Iterator[tuple[Any, Disk]]:
    """Yield an open file of h5py, over a file that is there, and its disk. `options` are those of `h5py.File`.

    Raises OSError at the end if a write failed. Raises UsageError if h5py is not installed.
    """
    try:
        import h5py
    except ImportError as err:
        raise UsageError("HDF5 needs h5py: pip install 'reelgraph[hdf5]'") from err
    with Disk(path, "r+") as disk:
        with h5py.File(disk, "w", **options) as made:
            yield made, disk
        disk.require_whole()


class Disk(io.FileIO):
    """A file that keeps its first error, or a Ctrl-C, for `require_whole`: HDF5 crashes if a write fails."""

    error: BaseException | None = None

    def write(self, content: ReadableBuffer, /) -> int:
        rest = memoryview(content).cast("B")
        length = len(rest)
        while len(rest) and self.error is None:
            with self._kept():
                rest = rest[super().write(rest) :]
        return length

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read, with zeros for what could not be written."""
        view = memoryview(buffer).cast("B")
        there = super().readinto(view) or 0
        view[there:] = bytes(len(view) - there)
        return len(view)

    def truncate(self, size: int | None = None, /) -> int:
        with self._kept():
            return super().truncate(size)
        return size or 0

    def require_whole(self) -> None:
        """Raise the first error, if there is one."""
        if self.error is not None:
            raise self.error

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except (OSError, KeyboardInterrupt) as err:
            self.error = self.error or err

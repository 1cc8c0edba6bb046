"""Features as HDF5: `feats` (n, d) and `names`; `failed` and `failed_reason` for pictures without a feature."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, ClassVar

from pipeline.errors import UsageError
from pipeline.images.views.features import FeatureExport

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from pipeline.views.export import StoredRows

CHUNK_BYTES = 1 << 20
"""Bytes of a chunk of `feats`: what a reader of a few rows takes at least."""
CACHE_BYTES = 8 << 20
"""Cache for a chunk that one block of rows begins and the next one ends."""
CHUNK_TEXTS = 4096
"""Names in a chunk."""


class Hdf5(FeatureExport):
    """An HDF5 file of a matrix and the names of its rows."""

    suffixes: ClassVar[tuple[str, ...]] = (".h5", ".hdf5")
    failed_go_to: ClassVar[str] = "datasets failed and failed_reason"

    def write(self, file: IO[bytes], stored: StoredRows) -> None:
        h5py = _h5py()
        array = self.array(stored)
        with _Disk(file.name, "r+") as disk:
            cache = max(CACHE_BYTES, array.row_bytes)
            with h5py.File(disk, "w", rdcc_nbytes=cache) as made:
                rows = max(1, CHUNK_BYTES // array.row_bytes)
                feats = made.create_dataset(
                    "feats", (0, *array.shape), array.dtype, maxshape=(None, *array.shape), chunks=(rows, *array.shape)
                )
                text = h5py.string_dtype()
                names, failed, reasons = (
                    made.create_dataset(name, (0,), text, maxshape=(None,), chunks=(CHUNK_TEXTS,))
                    for name in ("names", "failed", "failed_reason")
                )
                for some in self.features(stored):
                    _extend(feats, some.vectors)
                    _extend(names, some.names)
                    _extend(failed, [name for name, _ in some.failed])
                    _extend(reasons, [reason for _, reason in some.failed])
                    disk.require_whole()
            disk.require_whole()


def _extend(dataset: Any, values: Any) -> None:
    if len(values):
        before = len(dataset)
        dataset.resize(before + len(values), axis=0)
        dataset[before:] = values


class _Disk(io.FileIO):
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


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as err:
        raise UsageError("HDF5 needs h5py: pip install 'reelgraph[hdf5]'") from err
    return h5py

"""Features as HDF5: `feats` (n, d) and `names`; `failed` and `failed_reason` for pictures without a feature."""

from __future__ import annotations

from typing import IO, Any, ClassVar

from pipeline.files.hdf5 import written_hdf5
from pipeline.images.views.features import FeatureExport
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
        array = self.array(stored)
        with written_hdf5(file.name, rdcc_nbytes=max(CACHE_BYTES, array.row_bytes)) as (made, disk):
            rows = max(1, CHUNK_BYTES // array.row_bytes)
            feats = made.create_dataset(
                "feats", (0, *array.shape), array.dtype, maxshape=(None, *array.shape), chunks=(rows, *array.shape)
            )
            from h5py import string_dtype  # it is there: the file is open

            text = string_dtype()
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


def _extend(dataset: Any, values: Any) -> None:
    if len(values):
        before = len(dataset)
        dataset.resize(before + len(values), axis=0)
        dataset[before:] = values

"""Features as a matrix alone, `.npy` or an index of faiss, with the names of its rows in a text file beside it."""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Iterator
from typing import IO, Any, ClassVar

import numpy as np
import pyarrow as pa

from pipeline.errors import UsageError
from pipeline.images.views.features import FeatureExport
from pipeline.views.export import StoredRows
from pipeline.views.tables import ROWS

_LINE_ENDS = re.compile("[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
"""Characters at which Python, and with it most readers, ends a line."""
_FAILED = pa.schema([("name", pa.string()), ("reason", pa.string())])


class MatrixExport(FeatureExport):
    """A matrix of features; row k belongs to line k of `.names.txt`, from 0."""

    beside: ClassVar[tuple[str, ...]] = (".names.txt", ".failed.csv")
    failed_go_to: ClassVar[str] = "the .failed.csv beside it"

    def vectors(self, stored: StoredRows) -> Iterator[np.ndarray]:
        """Yield the features; write the names, and the pictures without a feature, to the files beside."""
        names, failed = stored.beside
        escaped = 0
        with contextlib.closing(ROWS["csv"](failed)) as table:
            table.start(_FAILED)
            for some in self.features(stored):
                lines = [_LINE_ENDS.sub(_escape, name) for name in some.names]
                escaped += sum(line != name for line, name in zip(lines, some.names, strict=True))
                names.write("".join(f"{line}\n" for line in lines).encode(errors="backslashreplace"))
                if some.failed:
                    table.write(pa.table(list(zip(*some.failed, strict=True)), schema=_FAILED))
                yield some.vectors
        if escaped:
            stored.notes.append(f"names with line ends: {escaped}; these are written as \\n, \\r, ... in .names.txt")


class Npy(MatrixExport):
    """A matrix as NumPy's own file, for `np.load(..., mmap_mode="r")`."""

    suffixes: ClassVar[tuple[str, ...]] = (".npy",)

    def write(self, file: IO[bytes], stored: StoredRows) -> None:
        array = self.array(stored)
        dtype, rows = np.dtype(array.dtype), 0

        def head() -> None:
            """Write the header. NumPy leaves space in it for a first dimension that grows."""
            descr = np.lib.format.dtype_to_descr(dtype)
            about = {"descr": descr, "fortran_order": False, "shape": (rows, *array.shape)}
            np.lib.format.write_array_header_1_0(file, about)

        head()
        begin = file.tell()
        for vectors in self.vectors(stored):
            file.write(np.ascontiguousarray(vectors, dtype).data)
            rows += len(vectors)
        file.seek(0)
        head()
        if file.tell() != begin:
            raise RuntimeError(f"the header of a .npy file takes {file.tell()} bytes, not {begin}")


class Faiss(MatrixExport):
    """An exact index of faiss (IndexFlatIP) over unit vectors: an inner product is the cosine, an id is a row."""

    suffixes: ClassVar[tuple[str, ...]] = (".faiss",)
    beside: ClassVar[tuple[str, ...]] = (".faiss.names.txt", ".faiss.failed.csv")  # a .npy may lie there too

    def write(self, file: IO[bytes], stored: StoredRows) -> None:
        faiss = _faiss()
        size, rows = self.array(stored).shape[0], 0
        file.write(_head(faiss, size, 0))
        for vectors in self.vectors(stored):
            unit = vectors.astype(np.float32)
            norms = np.sqrt(np.einsum("ij,ij->i", unit, unit))
            unit /= np.where(norms > 0, norms, 1)[:, None]
            file.write(unit.data)
            rows += len(unit)
        file.seek(0)
        file.write(_head(faiss, size, rows))


def _head(faiss: Any, size: int, rows: int) -> bytes:
    """Return the beginning of faiss's file of a flat index, up to its vectors.

    faiss itself writes an index that is wholly in memory. Raises UsageError if its format is not the one known here.
    """
    head = bytearray(faiss.serialize_index(faiss.IndexFlatIP(size)).tobytes())

    def filled(rows: int) -> bytes:
        struct.pack_into("<q", head, 8, rows)  # after four letters and the dimension
        struct.pack_into("<Q", head, len(head) - 8, rows * size)  # length of the vectors that follow
        return bytes(head)

    sample = faiss.IndexFlatIP(size)
    vectors = np.arange(2 * size, dtype=np.float32).reshape(2, size)
    sample.add(vectors)
    if faiss.serialize_index(sample).tobytes() != filled(2) + vectors.tobytes():
        raise UsageError(f"faiss {faiss.__version__} has another file format; export to .npy and add that to an index")
    return filled(rows)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as err:
        raise UsageError("an index needs faiss: pip install 'reelgraph[index]'") from err
    return faiss


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()

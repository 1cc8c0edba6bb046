"""Files of rows, CSV, JSON Lines and Parquet, that grow block by block and appear whole or not at all."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from pipeline.errors import UsageError
from pipeline.files.whole import written_whole
from pipeline.text import plain, unknown
from pipeline.views.tables.json_text import joined, objects, texts

FORMATS = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
"""Format for each suffix of a file."""

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""Beginnings of a cell that spreadsheets compute; some also take the wide forms."""
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")


def suffixes_of(format: str) -> tuple[str, ...]:
    """Return the suffixes of a format."""
    return tuple(suffix for suffix, one in FORMATS.items() if one == format)


JSON_ROWS = 16_384
"""Rows whose text is in memory at a time."""


class Rows(Protocol):
    """A file of rows in some format."""

    def start(self, schema: pa.Schema) -> None: ...
    def write(self, table: pa.Table) -> None: ...
    def close(self) -> None: ...


class Table:
    """Accepts blocks of columns, all with the same names; the first block's types hold."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._schema: pa.Schema | None = None

    def write(self, columns: Mapping[str, Any]) -> None:
        if not len(next(iter(columns.values()))):
            return  # without a value there is no type
        table = pa.table({name: pa.array(values) for name, values in columns.items()}, schema=self._schema)
        if self._schema is None:
            self._schema = table.schema
            self._rows.start(table.schema)
        self._rows.write(table)

    def close(self) -> None:
        if self._schema is None:  # there was no row
            self._rows.start(pa.schema([]))
        self._rows.close()


@contextlib.contextmanager
def open_table(path: str | Path) -> Iterator[Table]:
    """Yield a table whose format follows from the suffix. Raises UsageError for others, or as `written_whole`."""
    suffix = Path(path).suffix
    if suffix.lower() not in FORMATS:
        raise UsageError(f"--table {path}: " + unknown("suffix", suffix, list(FORMATS)))
    rows = ROWS[FORMATS[suffix.lower()]]
    with written_whole(path, "the table ") as file, contextlib.closing(Table(rows(file))) as table:
        yield table


class _Parquet:
    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.writer: Any = None

    def start(self, schema: pa.Schema) -> None:
        self.writer = pyarrow.parquet.ParquetWriter(self.file, schema, compression="zstd")

    def write(self, table: pa.Table) -> None:
        self.writer.write_table(table)

    def close(self) -> None:
        if self.writer is not None:  # nothing was started if the store could not be read
            self.writer.close()


class _Csv(_Parquet):
    def start(self, schema: pa.Schema) -> None:
        fields = [pa.field(cell(one.name), pa.string() if _is_text(one.type) else one.type) for one in schema]
        self.writer = pyarrow.csv.CSVWriter(self.file, pa.schema(fields))

    def write(self, table: pa.Table) -> None:
        columns = [_cells(column) if _is_text(column.type) else column for column in table.columns]
        self.writer.write_table(pa.table(columns, [cell(name) for name in table.column_names]))


def cell(text: str) -> str:
    """Return a text as a cell of a CSV file: a spreadsheet takes it for text, and a terminal may show it.

    A spreadsheet computes a cell that begins with one of FORMULA, and such a cell can start programs: it gets an
    apostrophe before it. Numbers stay as they are.
    """
    is_formula = text.startswith(FORMULA) and not _NUMBER.fullmatch(text)
    return plain(f"'{text}" if is_formula else text)


def _is_text(type: pa.DataType) -> bool:
    values = type.value_type if pa.types.is_dictionary(type) else type
    return bool(pa.types.is_string(values) or pa.types.is_large_string(values))


def _cells(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column of texts, each as `cell` has it; each distinct text is looked at once."""
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    chunks = [
        pa.array([text and cell(text) for text in chunk.dictionary.to_pylist()], pa.string()).take(chunk.indices)
        for chunk in encoded.chunks
    ]
    return pa.chunked_array(chunks, pa.string())


class _JsonLines:
    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def start(self, schema: pa.Schema) -> None: ...

    def write(self, table: pa.Table) -> None:
        for batch in table.to_batches(max_chunksize=JSON_ROWS):
            fields = [(name, texts(batch[name])) for name in batch.schema.names]
            self.file.write(joined(objects(fields), "\n") + b"\n")

    def close(self) -> None: ...


ROWS: dict[str, Callable[[IO[bytes]], Rows]] = {"parquet": _Parquet, "csv": _Csv, "jsonl": _JsonLines}

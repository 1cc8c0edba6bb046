"""Files of rows, CSV, JSON Lines and Parquet, that grow block by block and appear whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from pipeline.errors import UsageError
from pipeline.files.whole import written_whole
from pipeline.text import unknown
from pipeline.views.tables.json_text import joined, objects, texts

FORMATS = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
"""Format for each suffix of a file."""


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


class _Csv:
    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.writer: Any = None

    def start(self, schema: pa.Schema) -> None:
        self.writer = pyarrow.csv.CSVWriter(self.file, schema)

    def write(self, table: pa.Table) -> None:
        self.writer.write(table)

    def close(self) -> None:
        if self.writer is not None:  # nothing was started if the store could not be read
            self.writer.close()


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

"""Exports to tables: Parquet, CSV and JSON Lines, one row per stored row."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import IO, ClassVar

import pyarrow as pa

from pipeline.views.export import Export, StoredRows
from pipeline.views.tables import ROWS, suffixes_of

ROW_GROUP = 65_536
ROW_GROUP_BYTES = 64 << 20
"""Rows of a Parquet row group, and their bytes in memory: what is held here, and what a reader takes, at once."""


class _TableExport(Export):
    kind: ClassVar[str]
    flags: ClassVar[tuple[str, ...]] = ("embeddings",)

    def write(self, file: IO[bytes], stored: StoredRows) -> None:
        with contextlib.closing(ROWS[self.kind](file)) as rows:
            rows.start(stored.schema)
            for table in _groups(stored):
                rows.write(table)


class Parquet(_TableExport):
    """Typed columns, compressed; null for nothing, dictionaries for names."""

    kind = "parquet"
    suffixes = suffixes_of("parquet")
    with_vectors = True
    to_standard_output = False


class Csv(_TableExport):
    """Text with commas; an array of several values has a column for each."""

    kind = "csv"
    suffixes = suffixes_of("csv")
    flat = True


class JsonLines(_TableExport):
    """One JSON object per line."""

    kind = "jsonl"
    suffixes = suffixes_of("jsonl")


def _groups(stored: StoredRows) -> Iterator[pa.Table]:
    """Yield all rows in tables of about a row group."""
    waiting: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in stored.batches():
        waiting += [batch] if len(batch) else []
        rows, size = rows + len(batch), size + batch.nbytes
        if rows >= ROW_GROUP or size >= ROW_GROUP_BYTES:
            yield pa.Table.from_batches(waiting, stored.schema).unify_dictionaries()
            waiting, rows, size = [], 0, 0
    if waiting:
        yield pa.Table.from_batches(waiting, stored.schema).unify_dictionaries()

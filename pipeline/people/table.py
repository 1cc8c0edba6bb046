"""Tables that grow block by block: CSV, JSON Lines, Parquet."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from pipeline.errors import UsageError
from pipeline.names import unknown
from pipeline.store.nodes import PARTIAL

SUFFIXES = (".csv", ".jsonl", ".parquet")


class TableWriter(Protocol):
    """Takes blocks of columns, all with the same names."""

    def write(self, columns: Mapping[str, Any]) -> None: ...
    def close(self) -> None: ...


@contextlib.contextmanager
def open_table(path: str | Path) -> Iterator[TableWriter]:
    """A table that is written aside and takes its name when it is whole; the suffix says which kind.

    Raises UsageError for another suffix, where pyarrow is missing, or where the file cannot be written.
    """
    place = Path(path).expanduser()
    if place.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--table {path}: " + unknown("suffix", place.suffix, SUFFIXES))
    aside = place.with_name(f"{place.name}.{os.getpid()}{PARTIAL}")
    writer: TableWriter = _KINDS[place.suffix.lower()](aside)
    try:
        try:
            aside.touch()  # what cannot be written is told before any work is done
            with contextlib.closing(writer):
                yield writer
            os.replace(aside, place)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as err:
        raise UsageError(f"cannot write the table {place}: {err.strerror or err}; choose another file") from err


class _Csv:
    def __init__(self, path: Path) -> None:
        self._path, self._header = path, True

    def write(self, columns: Mapping[str, Any]) -> None:
        import pandas as pd

        pd.DataFrame(columns).to_csv(self._path, mode="a", header=self._header, index=False)
        self._header = False

    def close(self) -> None:
        self._path.touch()


class _JsonLines:
    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, columns: Mapping[str, Any]) -> None:
        import pandas as pd

        table = pd.DataFrame(columns)
        if len(table):
            table.to_json(self._path, orient="records", lines=True, mode="a", double_precision=10)

    def close(self) -> None:
        self._path.touch()


class _Parquet:
    def __init__(self, path: Path) -> None:
        try:
            import pyarrow.parquet  # type: ignore[import-not-found,import-untyped,unused-ignore]
        except ImportError as err:
            raise UsageError("a .parquet table needs pyarrow: pip install pyarrow; or name a .csv or .jsonl") from err
        self._path, self._arrow = path, pyarrow
        self._writer: Any = None

    def write(self, columns: Mapping[str, Any]) -> None:
        table = self._arrow.table({name: self._arrow.array(values) for name, values in columns.items()})
        if self._writer is None:
            self._writer = self._arrow.parquet.ParquetWriter(self._path, table.schema)
        self._writer.write_table(table)

    def close(self) -> None:
        if self._writer is None:  # nobody has a face
            self._arrow.parquet.write_table(self._arrow.table({}), self._path)
        else:
            self._writer.close()


_KINDS: dict[str, type[Any]] = {".csv": _Csv, ".jsonl": _JsonLines, ".parquet": _Parquet}

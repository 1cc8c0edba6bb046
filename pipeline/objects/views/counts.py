"""Counts of lines and zones over time, and the table of them: one row per second."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import IO, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import UsageError
from pipeline.objects.views.columns import counted_names, counters_of
from pipeline.store.read import RunInput
from pipeline.store.schema import DECODED
from pipeline.views.export import Export, InputRows, StoredRows
from pipeline.views.tables import ROWS
from pipeline.views.tables.rows import coded


@dataclass(frozen=True)
class Stretches:
    """Counts of an input in equal stretches of time that have a frame; n of them."""

    number: npt.NDArray[np.int64]
    """(n,): number of the stretch; 0 begins at 0 s."""
    frames: npt.NDArray[np.int64]
    """(n,): frames that could be decoded."""
    crossed: dict[str, npt.NDArray[np.int64]]
    """(n,) each: crossings, by LINE_in and LINE_out."""
    inside: dict[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]]
    """(n,) each: mean and most of the objects inside, by ZONE_inside."""


def stretches(item: RunInput, seconds: float = 1.0) -> Stretches:
    """Return the counts of an input by stretches of this length."""
    there = counters_of(item)
    read = item.read(["time_seconds", DECODED.name, *(array.name for array in there)])
    decoded = read[DECODED.name].astype(bool)
    number, at = np.unique(np.floor(read["time_seconds"][decoded] / seconds).astype(np.int64), return_inverse=True)
    frames = np.bincount(at, minlength=len(number))
    crossed, inside = {}, {}
    for array in there:
        each = read[array.name][decoded].reshape(len(at), -1).T
        for name, values in zip(counted_names(array), each, strict=True):
            sums = np.bincount(at, values, len(number))
            if array.name == "crossings":
                crossed[name] = np.rint(sums).astype(np.int64)
            else:
                most = np.zeros(len(number), np.int64)
                np.maximum.at(most, at, values)
                inside[name] = sums / frames, most
    return Stretches(number, frames, crossed, inside)


class Counts(Export):
    """Text with commas, one row per second that has a frame: crossings of lines, mean and most inside zones."""

    suffixes: ClassVar[tuple[str, ...]] = (".counts.csv",)
    noun: ClassVar[str] = "second"
    of_films: ClassVar[bool] = True

    def write(self, file: IO[bytes], stored: StoredRows) -> None:
        if not any(counters_of(one.item) for one in stored.inputs):
            raise UsageError("the stores hold no counts of lines or zones; add a stage `count` to the workflow")
        tables = [_table(one) for one in stored.inputs]
        table = pa.concat_tables(tables, promote_options="default")
        for one, part in zip(stored.inputs, tables, strict=True):
            stored.n_rows += len(part)
            stored.n_items += one.item.frames_done
        with contextlib.closing(ROWS["csv"](file)) as rows:
            rows.start(table.schema)
            rows.write(table)


def _table(one: InputRows) -> pa.Table:
    found = stretches(one.item)
    n = len(found.number)
    columns = {
        "store": coded(np.zeros(n, np.int32), [str(one.run.path)]).cast(pa.string()),
        "input": coded(np.zeros(n, np.int32), [one.item.name]).cast(pa.string()),
        "second": found.number, "frames": found.frames, **found.crossed,
    }  # fmt: skip
    for name, (mean, most) in found.inside.items():
        columns |= {f"{name}_mean": np.round(mean, 3), f"{name}_most": most}
    return pa.table(columns)

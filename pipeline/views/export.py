"""`reelgraph export`: every stored face as a row of a table, or as an annotation in COCO's form."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, Protocol

import pyarrow as pa

from pipeline.errors import UsageError
from pipeline.faces.views import face_rows
from pipeline.faces.views.coco import CocoWriter
from pipeline.files.whole import written_whole
from pipeline.store.read import open as open_store
from pipeline.store.run import each_once
from pipeline.text import unknown
from pipeline.views.progress import Silent
from pipeline.views.tables import FORMATS as TABLE_FORMATS
from pipeline.views.tables import ROWS, Rows

if TYPE_CHECKING:
    from pipeline.engine.run import Progress
    from pipeline.faces.views.face_rows import Block, Column
    from pipeline.store.read import Run, RunInput

Format = Literal["parquet", "csv", "jsonl", "coco"]
FORMATS = {**TABLE_FORMATS, ".json": "coco"}
"""What a file's suffix stands for where no format is named."""
STANDARD_OUTPUT = "-"
ROW_GROUP = 65_536
ROW_GROUP_BYTES = 64 << 20
"""Rows of a Parquet row group, and their bytes in memory: what is held here, and what a reader takes, at once."""


@dataclass
class Exported:
    """What an export wrote."""

    file: str
    format: str
    faces: int = 0
    frames: int = 0
    """Sampled frames gone through, with and without faces."""
    inputs: int = 0
    columns: list[str] = field(default_factory=list)
    """Names, in order; empty for COCO."""
    done_share: float = 1.0
    """Share of the stores' sampled frames that is done: below 1, the rest is not in the file."""

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))


class Writer(Protocol):
    """Takes the faces of one input after the other."""

    columns: list[str]

    def start_input(self, run: Run, item: RunInput) -> list[str]:
        """The arrays that it needs of this input."""
        ...

    def write(self, block: Block) -> None: ...

    def finish(self) -> None: ...

    def close(self) -> None:
        """Let go of what is open, finished or not."""
        ...


def export(
    outs: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    format: Format | None = None,
    embeddings: bool = False,
    all_frames: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> Exported:
    """Write the faces of one or several stores, done or half done, to a file, in bounded memory.

    `format` None goes by the file's suffix; `to` "-" is standard output (csv and jsonl). `all_frames`: COCO lists
    frames without faces too. The file appears whole or not at all. Raises UsageError where it exists (unless `force`),
    cannot be written or its format is not clear, StoreError where a store cannot be read.
    """
    paths = [outs] if isinstance(outs, str | os.PathLike) else list(outs)
    chosen = _format(str(to), format)
    _check(str(to), chosen, embeddings, all_frames, force)
    runs = [open_store(path) for path in each_once(paths)]
    exported = Exported(str(to), chosen)
    with (
        _sink(str(to)) as file,
        contextlib.closing(_writer(chosen, file, runs, embeddings, all_frames)) as writer,
    ):
        exported.columns = writer.columns
        for run in runs:
            for item in run.inputs.values():
                shown = item.name if len(runs) == 1 else f"{run.path.name}/{item.name}"
                _export_input(run, item, shown, writer, exported, progress or Silent())
        writer.finish()
    total = sum(item.frames_total for run in runs for item in run.inputs.values())
    done = sum(item.frames_done for run in runs for item in run.inputs.values())
    exported.done_share = done / total if total else 1.0
    return exported


def lines(exported: Exported) -> list[str]:
    """What to say of an export, for people."""
    shown = [f"{exported.file}: {exported.faces} faces of {exported.frames} frames, {exported.inputs} inputs"]
    if exported.done_share < 1:
        shown.append(f"{exported.done_share:.1%} of the frames are done; the rest is not in the file")
    return shown


def _export_input(run: Run, item: RunInput, shown: str, writer: Writer, exported: Exported, progress: Progress) -> None:
    progress.input_started(shown, item.frames_done, 0)
    exported.inputs += 1
    for block in face_rows.blocks(item, writer.start_input(run, item)):
        writer.write(block)
        exported.faces += block.n_faces
        exported.frames += block.n_frames
        progress.chunk_done(shown, block.n_frames, block.n_faces)
    progress.input_finished(shown, 0)


def _format(to: str, named: str | None) -> str:
    known = sorted(set(FORMATS.values()))
    if named is not None:
        if named not in known:
            raise UsageError(unknown("format", named, known))
        return named
    suffix = Path(to).suffix.lower()
    if suffix not in FORMATS:
        where = "standard output" if to == STANDARD_OUTPUT else f"{to!r}"
        raise UsageError(f"which format {where} should have is not clear; add --format {' | '.join(known)}")
    return FORMATS[suffix]


def _check(to: str, format: str, embeddings: bool, all_frames: bool, force: bool) -> None:
    if all_frames and format != "coco":
        raise UsageError(f"--all-frames is for COCO; {format} has one row per face")
    if embeddings and format == "coco":
        raise UsageError("COCO has no place for embeddings; choose parquet, csv or jsonl")
    if to == STANDARD_OUTPUT:
        if format not in ("csv", "jsonl"):
            raise UsageError(f"{format} cannot go to standard output; name a file, or choose csv or jsonl")
        return
    path = Path(to)
    if path.is_dir():
        raise UsageError(f"{to} is a folder; name a file")
    if path.exists() and not force:
        raise UsageError(f"{to} exists already; choose another file, or replace it with --force")


@contextlib.contextmanager
def _sink(to: str) -> Iterator[IO[bytes]]:
    """Standard output, or a file that appears whole or not at all."""
    if to == STANDARD_OUTPUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with written_whole(to) as file:
        yield file


def _writer(format: str, file: IO[bytes], runs: Sequence[Run], embeddings: bool, all_frames: bool) -> Writer:
    if format == "coco":
        return CocoWriter(file, runs, all_frames)
    return _TableWriter(ROWS[format](file), runs, embeddings, flat=format == "csv")


class _TableWriter:
    """One row per face, in a schema that holds the columns of all inputs."""

    def __init__(self, rows: Rows, runs: Sequence[Run], wide: bool, flat: bool) -> None:
        self.rows, self.wide, self.flat = rows, wide, flat
        self.schema = face_rows.schema_of(
            [face_rows.columns(run, item, wide=wide, flat=flat) for run in runs for item in run.inputs.values()]
        )
        self.columns: list[str] = self.schema.names
        self.current: dict[str, Column] = {}
        self.waiting: list[pa.RecordBatch] = []
        rows.start(self.schema)

    def start_input(self, run: Run, item: RunInput) -> list[str]:
        self.current = face_rows.columns(run, item, wide=self.wide, flat=self.flat)
        return face_rows.arrays_of(item, wide=self.wide)

    def write(self, block: Block) -> None:
        if block.n_faces == 0:
            return
        self.waiting.append(face_rows.table(block, self.current, self.schema))
        if sum(map(len, self.waiting)) >= ROW_GROUP or sum(b.nbytes for b in self.waiting) >= ROW_GROUP_BYTES:
            self._flush()

    def finish(self) -> None:
        self._flush()

    def close(self) -> None:
        self.rows.close()

    def _flush(self) -> None:
        if self.waiting:
            self.rows.write(pa.Table.from_batches(self.waiting, self.schema).unify_dictionaries())
        self.waiting = []

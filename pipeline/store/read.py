"""Reading a run, `pipeline.open(OUT)`, complete or running, both alike. Nothing is executed or unpickled."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from pipeline.errors import StoreError
from pipeline.store.chunks import Chunks, unreadable_chunks
from pipeline.store.nodes import located, read_group
from pipeline.store.pieces import Piece, shard_pieces
from pipeline.store.record import Record
from pipeline.store.run import InputStore, list_inputs, require_store
from pipeline.store.schema import DECODED, Array, Axis
from pipeline.text import plural, unknown

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")


def open(path: str | os.PathLike[str]) -> Run:
    """Open a run store for reading, finished or not. Raises StoreError if there is none at the path."""
    place = located(path)
    require_store(place)
    return Run(place)


class RunInput:
    """One input of a run, as it was when first asked; `refresh` looks again."""

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self._store = InputStore(str(path), name)

    def __repr__(self) -> str:
        chunks = self.chunks
        failed = f", {chunks['failed']} chunks failed" if chunks["failed"] else ""
        arrays = ", ".join(f"{array.name} {array.dtype} ({', '.join(array.dims)})" for array in self.arrays.values())
        return (
            f"<input {self.name!r}: {self.frames_done} of {self.frames_total} frames ({self.done_share:.0%}){failed}; "
            f"{arrays or 'no arrays yet'}>"
        )

    @property
    def store_path(self) -> Path:
        """Path of the store that this is an input of."""
        return Path(self._store.path)

    def refresh(self) -> None:
        """Forget what was read, so that the next question looks at the disk again."""
        for name in ("_group", "_chunks", "_axes", "_arrays"):
            self.__dict__.pop(name, None)

    @cached_property
    def _group(self) -> Any:
        return self._store.group()

    @cached_property
    def _chunks(self) -> Chunks:
        chunks = self._store.chunks()
        if chunks.damage:
            raise chunks.damage[0]
        return chunks

    @property
    def attributes(self) -> dict[str, Any]:
        """Facts of the input: path, width, height, fps, stages, complete, and so on."""
        return dict(self._group.attributes)

    @property
    def complete(self) -> bool:
        """True if the arrays are compacted. A stage added since may be incomplete: see `done_share`."""
        return bool(self.attributes.get("complete"))

    @property
    def _pending(self) -> set[str]:
        """Stages that are not complete."""
        stages = self.attributes.get("stages", {})
        return {name for name, stage in stages.items() if stage.get("state") != "complete"}

    @property
    def _is_finished(self) -> bool:
        return self.complete and not self._pending

    @property
    def _length(self) -> int:
        """Items of a chunk; 0 if it is not known."""
        return int(self.attributes.get("chunk_frames") or 0)

    @property
    def _done(self) -> np.ndarray:
        """int64: chunks that are done with every stage, ascending."""
        pending = sorted(self._pending)
        total = int(self._chunks.indices[-1]) + 1 if len(self._chunks) else 0
        done = self._chunks.has(pending, total) == np.uint64((1 << len(pending)) - 1)
        done &= np.isin(np.arange(total), self._chunks.indices)
        done[list(self._chunks.failed)] = False
        return np.flatnonzero(done)

    @property
    def _readable(self) -> list[int]:
        """Chunks that have arrays, in order: while a stage is being added, those of the stages before it too."""
        chunks = self._chunks
        return [index for index in chunks.indices.tolist() if index not in chunks.failed or chunks.failed[index].arrays]

    @property
    def chunks(self) -> dict[str, int]:
        """Chunks `total`, `done`, `failed`; of the stages that are not complete where some are."""
        if self._is_finished:
            stored: dict[str, int] = self.attributes["chunks"]
            return dict(stored)
        known = len(self._chunks)
        total = -(-self.frames_total // self._length) if self._length else known
        return {"total": max(total, known), "done": len(self._done), "failed": len(self._chunks.failed)}

    @property
    def frames_total(self) -> int:
        """Sampled frames of the input."""
        attributes = self.attributes
        if "frames" in attributes:
            return int(attributes["frames"])
        return -(-int(attributes.get("source_frames") or 0) // int(attributes.get("every") or 1))

    @property
    def frames_done(self) -> int:
        """Sampled frames whose chunks are done with every stage."""
        if self._is_finished:
            return self.frames_total
        return sum(self._chunk_items(index) for index in self._done.tolist())

    def _chunk_items(self, index: int) -> int:
        if not self._length:
            return int(self._chunks.record(index).arrays["decoded"]["shape"][0])
        return max(0, min(self._length, self.frames_total - index * self._length))

    @property
    def done_share(self) -> float:
        """Share of the sampled frames that is done, 0 to 1."""
        if self._is_finished:
            return 1.0
        return self.frames_done / self.frames_total if self.frames_total else 0.0

    @property
    def failures(self) -> list[dict[str, Any]]:
        """Failed chunks: `chunk`, `frames` and `time_seconds` (first and last, or None if not known), `error`."""
        failed = self._chunks.failed.items() if not self._is_finished else ()
        return [*self.attributes.get("failures", []), *(self._failure(index, record) for index, record in failed)]

    @property
    def unreadable(self) -> list[dict[str, Any]]:
        """Chunks that are done but for some frames: `chunk`, `frames` (ranks), `error`."""
        stored: list[dict[str, Any]] = self.attributes.get("unreadable", [])
        return stored if stored or self._is_finished else unreadable_chunks(self._chunks.incomplete)

    @property
    def step_seconds(self) -> dict[str, float]:
        """Seconds spent on each step, over the chunks whose records are still there: those of an incomplete input."""
        spent: dict[str, float] = {}
        for _, record in self._chunks.records():
            for step, seconds in record.seconds.items():
                spent[step] = spent.get(step, 0.0) + seconds
        return spent

    def _failure(self, index: int, record: Record) -> dict[str, Any]:
        length = self._length
        frames = [index * length, min((index + 1) * length, self.frames_total)] if length else None
        return {
            "chunk": index,
            "frames": list(record.items) if record.items else frames,
            "time_seconds": list(record.time_seconds) if record.time_seconds else None,
            "error": record.error,
        }

    def inventory(self) -> bytes | None:
        """Return the list of its items that the store keeps (`Source.inventory`); None if it keeps none."""
        return self._store.inventory()

    def inventory_digest(self) -> bytes:
        """Return a SHA-256 that changes with the items that the inventory lists."""
        return self._store.inventory_digest()

    @cached_property
    def _axes(self) -> dict[str, Axis]:
        return self._store.axes(None if self.complete else self._chunks)

    @property
    def item(self) -> str:
        """Name of the item axis: "frame", "pair"."""
        decoded = self.arrays.get(DECODED.name)
        return decoded.dims[0] if decoded else str(self.attributes.get("item", DECODED.dims[0]))

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Ragged axes of which rows are stored, in order of their count arrays."""
        by_count = {axis.count: axis for axis in self._axes.values()}
        return tuple(by_count[name] for name in self.arrays if name in by_count)

    @property
    def rows(self) -> dict[str, int]:
        """Rows along each ragged axis, as the metadata of a complete input says; empty if the input is incomplete."""
        if not self.complete:
            return {}
        return {axis.name: int(self._group.arrays[axis.index]["shape"][0]) for axis in self.axes}

    @property
    def arrays(self) -> dict[str, Array]:
        """Arrays that can be read, by name: dims, dtype, trailing sizes, attributes (units, class names)."""
        return dict(self._arrays)

    @cached_property
    def _arrays(self) -> dict[str, Array]:
        if self.complete:
            return {name: _declared(name, content) for name, content in self._group.arrays.items()}
        readable = self._readable
        if not readable:
            return {}
        # Only what every readable chunk has: so rows of all arrays belong together at any moment.
        common = self._chunks.common_arrays(readable)
        found = {}
        for name, node in self._chunks.nodes(readable[0]).items():
            if name not in common:
                continue
            found[name] = _declared(name, node)
            axis = next((axis for axis in self._axes.values() if axis.count == name), None)
            if axis is not None:
                found[axis.index] = Array(axis.index, (axis.name,), "int64")
        return found

    def array(self, name: str) -> np.ndarray:
        """Return an array whole, one row for each item or row of its axis, in order. Of an incomplete input it holds
        the chunks that are done. Raises StoreError if there is no such array or it is damaged."""
        return self.read([name])[name]

    def read_frames(self, names: Sequence[str], start: int, stop: int) -> dict[str, np.ndarray]:
        """Rows of several arrays that belong to sampled frames start to stop (exclusive), all of them done.

        Raises StoreError if one is not done, or damaged.
        """
        return self._store.read_arrays(names, start, stop, None if self.complete else self._chunks)

    def spans(self, most_frames: int) -> Iterator[tuple[int, int]]:
        """Yield start and stop (exclusive) of stretches of items whose arrays are there, in order.

        `read_frames` of each goes through an input of any size, done or half done, a part at a time.
        """
        if self.complete:
            whole = [(0, self.frames_total)]
        else:
            whole = [(k * self._length, k * self._length + self._chunk_items(k)) for k in self._readable]
        for first, last in whole:
            yield from ((start, min(start + most_frames, last)) for start in range(first, last, most_frames))

    def pieces(self, name: str) -> list[Piece]:
        """An array in parts, in order, that can be loaded side by side (`pipeline.store.pieces.for_each`); where
        the input is incomplete, of the chunks that are done. Raises StoreError if there is no such array."""
        if name not in self.arrays:
            raise StoreError(f"{self.name!r} in {self._store.path} has no array {name!r}")
        if self.complete:
            return shard_pieces(
                self._store.array_folder(name),
                self._group.arrays[name],
                lambda a, b: self._store.read_rows(name, a, b),
            )
        pieces, start = [], 0
        for index in self._readable:
            stop = start + int(self._chunks.record(index).arrays[name]["shape"][0])
            pieces.append(Piece(start, stop, partial(self._read_piece, name, index)))
            start = stop
        return pieces

    def _read_piece(self, name: str, index: int) -> np.ndarray:
        return self._chunks.arrays(index, [name])[name]

    def read(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Several arrays of one state of the input: a compaction that ends meanwhile is noticed and read instead."""
        return self.retried(lambda: self._read(names))

    def retried(self, work: Callable[[], T]) -> T:
        """Do it again if the input was compacted meanwhile: its chunks are gone, and all is in its arrays."""
        was_complete = self.complete
        try:
            return work()
        except StoreError:
            self.refresh()
            if self.complete == was_complete:
                raise
            return work()

    def _read(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        known = self.arrays
        for name in names:
            if name not in known:
                has = f"it has {', '.join(known)}" if known else "no chunk of it is done"
                raise StoreError(f"{self.name!r} in {self._store.path} has no array {name!r}; {has}")
        if self.complete:
            return {name: self._store.read_rows(name, 0, None) for name in names}
        return {name: self._concatenated(name) for name in names}

    def _concatenated(self, name: str) -> np.ndarray:
        axis = next((axis for axis in self._axes.values() if axis.index == name), None)
        if axis is not None:
            counts = self._concatenated(axis.count)
            return np.repeat(np.arange(len(counts), dtype=np.int64), counts)
        return np.concatenate([self._read_piece(name, index) for index in self._readable])


class Run:
    """A run store opened for reading."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.summary: Any = None
        """Summary of the run that made it (`pipeline.engine.run.Summary`); None for a store that was only opened."""

    def __repr__(self) -> str:
        lines = [f"<run {str(self.path)!r}: {plural(len(self.inputs), 'input')}, {self.done_share:.0%} done>"]
        return "\n  ".join([*lines, *(repr(item) for item in list(self.inputs.values())[:10])])

    @property
    def attributes(self) -> dict[str, Any]:
        """Root attributes: reelgraph (version), workflow, models, created."""
        root = read_group(self.path)
        if root is None:
            raise StoreError(f"{self.path} is not a reelgraph store any more; check the path")
        return root.attributes

    @cached_property
    def inputs(self) -> dict[str, RunInput]:
        """Inputs by name, in order of first sight."""
        return {name: RunInput(self.path, name) for name, _ in list_inputs(self.path)}

    @property
    def done_share(self) -> float:
        """Share of all sampled frames that is done, 0 to 1."""
        total = sum(item.frames_total for item in self.inputs.values())
        if total == 0:
            return float(bool(self.inputs) and all(item.done_share == 1 for item in self.inputs.values()))
        return sum(item.done_share * item.frames_total for item in self.inputs.values()) / total

    def input(self, name: str) -> RunInput:
        """One input. Raises StoreError if there is none of this name."""
        if name not in self.inputs:
            raise StoreError(f"{self.path} has no input {name!r}; it has {', '.join(self.inputs) or 'none yet'}")
        return self.inputs[name]

    def array(self, input: str, name: str) -> np.ndarray:
        """One array of one input; see `RunInput.array`."""
        return self.input(input).array(name)

    def frames(self, input: str | None = None) -> pd.DataFrame:
        """Return one row per item: input, the source's arrays, decoded, counts and other arrays of one value.

        Pairs of frames have a table of their own: `items("pair")`.
        """
        return self.table(input, _items_of)

    def items(self, axis: str, input: str | None = None) -> pd.DataFrame:
        """Return the same of another item axis: a row per pair. Raises StoreError if no input has such items."""
        known = [one.item for one in ([self.input(input)] if input else self.inputs.values())]
        if axis not in known:
            raise StoreError(f"{self.path}: {unknown('item axis', axis, dict.fromkeys(known))}")
        return self.table(input, _items_of, axis)

    def chosen(self, name: str | None, item: str | None = None) -> list[RunInput]:
        """Return one input, or all that have the item axis `item`, by default that of the first input."""
        inputs = list(self.inputs.values()) if name is None else [self.input(name)]
        return [one for one in inputs if one.item == (item or inputs[0].item)]

    def table(
        self, name: str | None, columns: Callable[[RunInput], dict[str, np.ndarray]], item: str | None = None
    ) -> pd.DataFrame:
        """Return a table of `chosen` inputs, with the column `input`; `columns` gives the others of each input."""
        import pandas as pd

        chosen = self.chosen(name, item)
        names = [one.name for one in chosen]
        tables = []
        for code, one in enumerate(chosen):
            found = columns(one)
            codes = np.full(len(next(iter(found.values()))), code)
            label = pd.Categorical.from_codes(codes, categories=pd.Index(names, dtype=object))
            tables.append(pd.DataFrame({"input": label, **found}))
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"input": []})


def _declared(name: str, node: dict[str, Any]) -> Array:
    dims = tuple(node["dimension_names"])
    return Array(name, dims, node["data_type"], tuple(node["shape"][1:]), node.get("attributes", {}))


def _items_of(item: RunInput) -> dict[str, np.ndarray]:
    arrays = item.arrays
    if not arrays:
        return {DECODED.name: np.empty(0, bool)}
    return item.read([name for name, array in arrays.items() if array.dims == (item.item,)])

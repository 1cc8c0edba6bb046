"""Reading a run, `pipeline.open(OUT)`, complete or running, both alike. Nothing is executed or unpickled."""

from __future__ import annotations

import builtins
import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from pipeline.errors import StoreError
from pipeline.store.chunks import COUNT_OF, FRAME_ARRAYS, read_chunk, unreadable_chunks
from pipeline.store.nodes import NODE_FILE, chunk_folder
from pipeline.store.pieces import Piece, shard_pieces
from pipeline.store.run import InputStore, list_inputs, require_store
from pipeline.store.schema import Array

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
LANDMARKS = ("right_eye", "left_eye", "nose", "mouth_right", "mouth_left")


def open(path: str | os.PathLike[str]) -> Run:
    """Open a run store for reading, finished or not. Raises StoreError where there is none at the path."""
    place = Path(path).expanduser().resolve()
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
        """Where the store lies that this is an input of."""
        return Path(self._store.path)

    def refresh(self) -> None:
        """Forget what was read, so that the next question looks at the disk again."""
        for name in ("_group", "_records"):
            self.__dict__.pop(name, None)

    @cached_property
    def _group(self) -> Any:
        return self._store.group()

    @cached_property
    def _records(self) -> dict[int, dict[str, Any]]:
        return self._store.records()

    @property
    def attributes(self) -> dict[str, Any]:
        """Facts of the input: path, width, height, fps, stages, complete, and so on."""
        return dict(self._group.attributes)

    @property
    def complete(self) -> bool:
        """Whether the arrays are compacted. A stage added since may be incomplete: see `done_share`."""
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
    def _done(self) -> list[tuple[int, dict[str, Any]]]:
        """Chunks that are done with every stage, in order."""
        pending = self._pending
        records = self._records.items()
        return [(k, rec) for k, rec in records if rec.get("state") == "ok" and pending <= rec.get("stages", {}).keys()]

    @property
    def _readable(self) -> list[tuple[int, dict[str, Any]]]:
        """Chunks that have arrays, in order: while a stage is being added, those of the stages before it too."""
        return [(index, record) for index, record in self._records.items() if record.get("arrays")]

    @property
    def chunks(self) -> dict[str, int]:
        """Chunks `total`, `done`, `failed`; of the stages that are not complete where some are."""
        if self._is_finished:
            stored: dict[str, int] = self.attributes["chunks"]
            return dict(stored)
        states = [record.get("state") for record in self._records.values()]
        length = int(self.attributes.get("chunk_frames") or 0)
        total = -(-self.frames_total // length) if length else len(states)
        return {"total": max(total, len(states)), "done": len(self._done), "failed": states.count("failed")}

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
        return sum(self._chunk_frames(index, record) for index, record in self._done)

    def _chunk_frames(self, index: int, record: dict[str, Any]) -> int:
        described = record.get("arrays", {}).get("frame")
        if described is not None:
            return int(described["shape"][0])
        length = int(self.attributes.get("chunk_frames") or 0)
        return max(0, min(length, self.frames_total - index * length))

    @property
    def done_share(self) -> float:
        """Share of the sampled frames that is done, 0 to 1."""
        if self._is_finished:
            return 1.0
        return self.frames_done / self.frames_total if self.frames_total else 0.0

    @property
    def failures(self) -> list[dict[str, Any]]:
        """Failed chunks: `chunk`, `frames` and `time_seconds` (first and last, or None where not known), `error`."""
        failed = [(index, record) for index, record in self._records.items() if record.get("state") == "failed"]
        return [*self.attributes.get("failures", []), *(self._failure(index, record) for index, record in failed)]

    @property
    def unreadable(self) -> list[dict[str, Any]]:
        """Chunks that are done but for some frames: `chunk`, `frames` (ranks), `error`."""
        stored: list[dict[str, Any]] = self.attributes.get("unreadable", [])
        return stored or unreadable_chunks(self._records)

    @property
    def step_seconds(self) -> dict[str, float]:
        """Seconds spent on each step, over the chunks whose records are still there: those of an incomplete input."""
        spent: dict[str, float] = {}
        for record in self._records.values():
            for step, seconds in (record.get("seconds") or {}).items():
                spent[step] = spent.get(step, 0.0) + float(seconds)
        return spent

    def _failure(self, index: int, record: dict[str, Any]) -> dict[str, Any]:
        length = int(self.attributes.get("chunk_frames") or 0)
        frames = [index * length, min((index + 1) * length, self.frames_total)] if length else None
        return {
            "chunk": index,
            "frames": record.get("frames", frames),
            "time_seconds": record.get("time_seconds"),
            "error": record.get("error"),
        }

    @property
    def arrays(self) -> dict[str, Array]:
        """What can be read, by name: dims, dtype, sizes of trailing dimensions, attributes (units, class names)."""
        if self.complete:
            return {name: _declared(name, content) for name, content in self._group.arrays.items()}
        if not self._readable:
            return {}
        # Only what every readable chunk has: so rows of all arrays belong together at any moment.
        common = set.intersection(*(set(record["arrays"]) for _, record in self._readable))
        index, record = self._readable[0]
        folder = chunk_folder(self._store.path, self.name, index)
        found = {}
        for name in (name for name in record["arrays"] if name in common):
            found[name] = _declared(name, _node(f"{folder}/{name}"))
            dim = next((dim for dim, count in COUNT_OF.items() if count == name), None)
            if dim is not None:
                found[f"{dim}_frame"] = Array(f"{dim}_frame", (dim,), "int64")
        return found

    def array(self, name: str) -> np.ndarray:
        """One array whole, one row per frame or face; where the input is incomplete, of the chunks that are done, in
        order. Raises StoreError where there is no such array or it is damaged."""
        return self.read([name])[name]

    def read_frames(self, names: Sequence[str], start: int, stop: int) -> dict[str, np.ndarray]:
        """Rows of several arrays that belong to sampled frames start to stop (exclusive), all of them done.

        Raises StoreError where one is not done, or damaged.
        """
        return self._store.read_arrays(names, start, stop)

    def spans(self, most_frames: int) -> Iterator[tuple[int, int]]:
        """Stretches of sampled frames, start and stop (exclusive), whose arrays are there, in order: what
        `read_frames` may be asked for to go through an input of any size, done or half done, a part at a time."""
        if self.complete:
            whole = [(0, self.frames_total)]
        else:
            length = int(self.attributes.get("chunk_frames") or 0)
            whole = [(k * length, k * length + self._chunk_frames(k, record)) for k, record in self._readable]
        for first, last in whole:
            yield from ((start, min(start + most_frames, last)) for start in range(first, last, most_frames))

    def pieces(self, name: str) -> list[Piece]:
        """An array in parts, in order, that can be loaded side by side (`pipeline.store.pieces.for_each`); where
        the input is incomplete, of the chunks that are done. Raises StoreError where there is no such array."""
        if name not in self.arrays:
            raise StoreError(f"{self.name!r} in {self._store.path} has no array {name!r}")
        if self.complete:
            return shard_pieces(
                self._store.folder, name, self._group.arrays[name], lambda a, b: self._store.read_rows(name, a, b)
            )
        pieces, start = [], 0
        for index, record in self._readable:
            stop = start + int(record["arrays"][name]["shape"][0])
            pieces.append(Piece(start, stop, partial(self._read_piece, name, index, record)))
            start = stop
        return pieces

    def _read_piece(self, name: str, index: int, record: dict[str, Any]) -> np.ndarray:
        return read_chunk(self._store.path, self.name, index, [name], record)[name]

    def read(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Several arrays of one state of the input: a compaction that ends meanwhile is noticed and read instead."""
        return self.retried(lambda: self._read(names))

    def retried(self, work: Callable[[], T]) -> T:
        """Do it again where the input was compacted meanwhile: its chunks are gone, and all is in its arrays."""
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
                raise StoreError(
                    f"{self.name!r} in {self._store.path} has no array {name!r}; it has {', '.join(known)}"
                )
        if self.complete:
            return {name: self._store.read_rows(name, 0, None) for name in names}
        return {name: self._concatenated(name) for name in names}

    def _concatenated(self, name: str) -> np.ndarray:
        for dim, count in COUNT_OF.items():
            if name == f"{dim}_frame":
                counts = self._concatenated(count)
                return np.repeat(np.arange(len(counts), dtype=np.int64), counts)
        return np.concatenate([self._read_piece(name, index, record) for index, record in self._readable])


class Run:
    """A run store opened for reading."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.summary: Any = None
        """What the run did that made it (`pipeline.engine.run.Summary`); None for a store that was only opened."""

    def __repr__(self) -> str:
        lines = [f"<run {str(self.path)!r}: {len(self.inputs)} inputs, {self.done_share:.0%} done>"]
        return "\n  ".join([*lines, *(repr(item) for item in list(self.inputs.values())[:10])])

    @property
    def attributes(self) -> dict[str, Any]:
        """Root attributes: reelgraph (version), workflow, models, created."""
        node = _node(str(self.path))
        return dict(node.get("attributes", {}))

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
        """One input. Raises StoreError where there is none of this name."""
        if name not in self.inputs:
            raise StoreError(f"{self.path} has no input {name!r}; it has {', '.join(self.inputs) or 'none yet'}")
        return self.inputs[name]

    def array(self, input: str, name: str) -> np.ndarray:
        """One array of one input; see `RunInput.array`."""
        return self.input(input).array(name)

    def faces(self, input: str | None = None, *, landmarks: bool = True) -> pd.DataFrame:
        """One row per face: input, frame, time_seconds, x, y, w, h, confidence, the landmarks as `nose_x` and so on,
        every other array with one value per face, and names (`person_name`, `identity_name`). Embeddings: `embeddings`,
        whose rows are these rows."""
        return self._table(input, lambda item: _faces_of(item, landmarks))

    def frames(self, input: str | None = None) -> pd.DataFrame:
        """One row per sampled frame: input, frame, time_seconds, decoded, n_faces and other one-value arrays."""
        return self._table(input, _frames_of)

    def embeddings(self, input: str | None = None, name: str = "embedding") -> np.ndarray:
        """float32 (faces, d): row k belongs to row k of `faces` of the same input (or of all). Raises StoreError where
        there is no input."""
        found = [item.array(name) for item in self._chosen(input)]
        if not found:
            raise StoreError(f"{self.path} has no inputs yet")
        return np.concatenate(found)

    def _chosen(self, name: str | None) -> list[RunInput]:
        return list(self.inputs.values()) if name is None else [self.input(name)]

    def _table(self, name: str | None, columns: Callable[[RunInput], dict[str, np.ndarray]]) -> pd.DataFrame:
        import pandas as pd

        chosen = self._chosen(name)
        names = [item.name for item in chosen]
        tables = []
        for code, item in enumerate(chosen):
            found = columns(item)
            codes = np.full(len(found["frame"]), code)
            label = pd.Categorical.from_codes(codes, categories=pd.Index(names, dtype=object))
            tables.append(pd.DataFrame({"input": label, **found}))
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"input": []})


def _node(folder: str) -> dict[str, Any]:
    try:
        with builtins.open(f"{folder}/{NODE_FILE}", "rb") as file:
            node: dict[str, Any] = json.loads(file.read())
    except (OSError, ValueError) as err:
        raise StoreError(f"{folder}/{NODE_FILE} cannot be read: {err}") from err
    return node


def _declared(name: str, node: dict[str, Any]) -> Array:
    dims = tuple(node["dimension_names"])
    return Array(name, dims, node["data_type"], tuple(node["shape"][1:]), node.get("attributes", {}))


def _frames_of(item: RunInput) -> dict[str, np.ndarray]:
    arrays = item.arrays
    if not arrays:
        return {spec.name: np.empty(0, spec.dtype) for spec in FRAME_ARRAYS}
    return item.read([name for name, array in arrays.items() if array.dims == ("frame",)])


def _faces_of(item: RunInput, landmarks: bool) -> dict[str, np.ndarray]:
    arrays = item.arrays
    if "face_frame" not in arrays:
        return {"frame": np.empty(0, np.int64), "time_seconds": np.empty(0)}
    wanted = [name for name, array in arrays.items() if array.dims == ("face",) and name != "face_frame"]
    wanted += [name for name in ("box", "landmarks") if name in arrays and (landmarks or name == "box")]
    found = item.read(["frame", "time_seconds", "face_frame", *wanted])
    rows = found.pop("face_frame")
    columns = {"frame": found.pop("frame")[rows], "time_seconds": found.pop("time_seconds")[rows]}
    if "box" in found:
        box = found.pop("box")
        columns.update({side: box[:, k] for k, side in enumerate("xywh")})
    points = found.pop("landmarks", None)
    first = {"confidence": found.pop("confidence")} if "confidence" in found else {}
    columns.update({**first, **found})
    columns.update(_names_of(item, found))
    if points is not None:
        columns.update(
            {f"{part}_{axis}": points[:, k, j] for k, part in enumerate(LANDMARKS) for j, axis in enumerate("xy")}
        )
    return columns


def _names_of(item: RunInput, found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`person_name`: as the registry has it now; `identity_name`: of the gallery. None where a face has none."""
    from pipeline.faces.people.labels import labels  # reads what this module gives it

    columns = {}
    for name in (name for name in ("person", "identity") if name in found):
        who = labels(item, name)
        codes, rows = np.unique(who.code, return_inverse=True)
        names = [who.names[code] if code in who.named else None for code in codes.tolist()]
        columns[f"{name}_name"] = np.array(names, object)[rows] if names else np.empty(0, object)
    return columns

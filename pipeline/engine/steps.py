"""Steps of one chunk on a worker (decode, read, stage, write), and the stages that the worker keeps loaded.

Each step takes and returns small objects, except `Items`, which never leave the worker that loaded them.
An exception is caught once, here, and travels on as a `Failure`, so that one bad chunk never ends a run.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.engine.bound import StageRef
from pipeline.engine.finding import find_stage, own_place
from pipeline.engine.plan import ChunkTask
from pipeline.engine.source import Loaded
from pipeline.engine.stage import Chunk, Stage
from pipeline.engine.watchdog import this_worker, watched
from pipeline.engine.workflow import make_importable
from pipeline.errors import ReelgraphError, StoreError
from pipeline.machine.device import Device
from pipeline.machine.memory import MEMORY
from pipeline.store.chunks import DamagedChunkError, write_chunk
from pipeline.store.record import Record
from pipeline.store.run import InputStore
from pipeline.store.schema import DECODED, ORIGIN, SCALE, Schema
from pipeline.text import plural
from pipeline.version import difference, versions


@dataclass(frozen=True)
class WorkerSettings:
    """Use of a worker by this run. Only the device and its precision change results, slightly."""

    device: Device = field(default_factory=Device)
    decode_threads: int = 1
    chunk_timeout_seconds: float | None = None
    """A step that takes longer ends its worker process; None for in-process runs, which nothing can end."""
    flush: bool = True
    """True if committed chunks are flushed to the disk, so that they survive a power cut."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions that a worker must have to do anything; empty if it was started by this process."""
    debug: bool = False
    """True if an exception of a step is raised instead of recorded."""

    def at(self, precision: str) -> WorkerSettings:
        """Return the same settings, with models that compute in this precision."""
        return replace(self, device=replace(self.device, precision=precision))


@dataclass
class Items:
    """The loaded items of one chunk."""

    arrays: dict[str, Any]
    decoded: np.ndarray
    error: str | None
    is_final: bool
    seconds: dict[str, float]

    def __sizeof__(self) -> int:
        # Dask moves work to large data, not large data to work.
        return sum(int(getattr(array, "nbytes", 0)) for array in self.arrays.values())


@dataclass
class Made:
    """Arrays made by one stage (or read from the store), with what the write step must know of the items."""

    arrays: dict[str, np.ndarray]
    decoded: np.ndarray | None
    """bool (n,); None if it is not known."""
    error: str | None
    seconds: dict[str, float]
    stored: bool = False
    """True if these come from the store."""
    found: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Item arrays that the source found while it loaded the items."""
    is_final: bool = False
    """True if items that could not be read never will be."""


@dataclass(frozen=True)
class Failure:
    """A step that raised."""

    step: str
    error: str
    ends_run: bool = False
    """The disk refused: no fault of the chunk's, and the next chunks would fare no better."""
    trace: str = ""
    """The traceback; "" if there is none."""
    damage: DamagedChunkError | None = None
    """A file of the chunk that cannot be read."""
    misfit: bool = False
    """True if the worker did nothing, because its versions are not those of the run."""
    ends_worker: bool = False
    """True if the worker process ended."""
    worker_died: bool = False
    """True if it ended for no known reason, which can lie outside."""


@dataclass(frozen=True)
class Committed:
    """Report of a written chunk to the client."""

    n_items: int
    rows: dict[str, int]
    """Rows by axis, of the axes whose counts are known."""
    missing: tuple[int, ...]
    """Numbers of the items that could not be read, and may be read another time."""
    error: str | None
    seconds: dict[str, float]
    broken: int = 0
    """Items that never can be read."""


_loaded: dict[tuple[StageRef, Device], Stage] = {}
_loading = threading.Lock()


def loaded_stage(ref: StageRef, device: Device) -> Stage:
    """The stage, with its models ready: loaded once per process, shared by its threads."""
    found = _loaded.get((ref, device))
    if found is None:
        with _loading:
            found = _loaded.get((ref, device))
            if found is None:
                make_importable(Path(ref.folder))
                # OpenCV takes every core by default; a worker has its share, and its other slot decodes meanwhile.
                import cv2

                cv2.setNumThreads(device.threads)
                stage_type = find_stage(ref.use)
                found = stage_type(stage_type.Options.model_validate(json.loads(ref.options)))
                found.load(device)
                _loaded[ref, device] = found
    return found


def unload_stages() -> None:
    """Drop every loaded stage with its models, and the memory that is kept for frames."""
    with _loading:
        _loaded.clear()
    MEMORY.clear()


def _failing_softly(step: Callable[..., Any]) -> Callable[..., Any]:
    """The task edge: failures of earlier steps pass through, an exception becomes a Failure.

    Every step takes the task first, then its own name, then the settings.
    """

    @wraps(step)
    def guarded(task: ChunkTask, name: str, settings: WorkerSettings, *inputs: Any) -> Any:
        failed = next((value for value in inputs if isinstance(value, Failure)), None)
        if failed is not None:
            return failed
        wrong = difference(versions(), settings.versions)
        if wrong is not None:
            return Failure(name, f"worker {worker_name()} {wrong}", misfit=True)
        try:
            with watched(name, task.input_name, task.index, settings.chunk_timeout_seconds):
                return step(task, name, settings, *inputs)
        except (Exception, SystemExit) as err:  # the one broad catch: of a codec, a model, a disk
            if settings.debug and isinstance(err, Exception):
                raise
            disk_refused = isinstance(err, StoreError) and isinstance(err.__cause__, OSError)
            trace = "".join(traceback.format_exception(err))
            damage = err if isinstance(err, DamagedChunkError) else None
            return Failure(name, one_line(err), ends_run=disk_refused and damage is None, trace=trace, damage=damage)

    return guarded


def one_line(err: BaseException) -> str:
    """Return an exception in one line, with the file and line of the user's own code that raised it."""
    try:
        text = " ".join(str(err).split())
    except Exception:  # an exception of the user's own, whose text cannot be made
        text = "<exception str() failed>"
    place = own_place(err)
    if isinstance(err, ReelgraphError):
        return text + place
    return f"{type(err).__name__}: {text}"[:500].removesuffix(": ") + place


@_failing_softly
def decode(task: ChunkTask, name: str, settings: WorkerSettings) -> Items:
    """Load the items of a chunk. Raises DecodeError if none of them can be read."""
    began = time.perf_counter()
    assert task.job is not None
    MEMORY.lock_pages(settings.device.kind != "cpu")
    loaded = task.job.load(settings.decode_threads)
    if not isinstance(loaded, Loaded):
        raise DecodeError(f"the source's job returned {type(loaded).__name__}; return Loaded(...)")
    loaded = replace(loaded, decoded=DECODED.fit(loaded.decoded, "the source's array 'decoded'"))
    for array, rows in {DECODED.name: loaded.decoded, **loaded.arrays}.items():
        if len(rows) != task.n_items:
            raise DecodeError(
                f"the source loaded {plural(len(rows), 'row')} of {array!r} for {plural(task.n_items, 'item')}; "
                "return one row per item"
            )
    lacking = [array.name for array in task.recipe.found if array.name not in loaded.arrays]
    if lacking:
        raise DecodeError(f"the source loaded no array {lacking[0]!r}, which it declares")
    if not loaded.decoded.any() and not loaded.is_final:
        raise DecodeError(loaded.error or "no item of this chunk could be read")
    return Items(loaded.arrays, loaded.decoded, loaded.error, loaded.is_final, {name: time.perf_counter() - began})


class DecodeError(ReelgraphError):
    """Nothing of a chunk could be read."""


@_failing_softly
def read(task: ChunkTask, name: str, settings: WorkerSettings, store_path: str) -> Made:
    """Read the arrays that finished stages stored for this chunk."""
    began = time.perf_counter()
    stored = InputStore(store_path, task.input_name)
    names = [*task.recipe.stored, DECODED.name]
    arrays = stored.read_chunk(names, task.index, task.start, task.stop, task.files)
    decoded = arrays.pop(DECODED.name).astype(bool)
    arrays = _placed(arrays, arrays, task, seen=True)
    return Made(arrays, decoded, None, {name: time.perf_counter() - began}, stored=True)


@_failing_softly
def stage(task: ChunkTask, name: str, settings: WorkerSettings, items: Items | None, *made: Made) -> Made:
    """Run one stage on what was loaded, stored and made so far."""
    step = next(step for step in task.recipe.stages if step.ref.name == name)
    arrays: dict[str, Any] = {key: value for one in made for key, value in one.arrays.items()}
    decoded = next((m.decoded for m in made if m.decoded is not None), None)
    error = next((m.error for m in made if m.error), None)
    found = next((m.found for m in made if m.found), {})
    is_final = any(m.is_final for m in made)
    if items is not None:
        arrays |= items.arrays
        decoded, error, is_final = items.decoded, items.error, items.is_final
        found = _nothing_made(items, task).found
    worker_stage = loaded_stage(step.ref, settings.device)
    began = time.perf_counter()
    seen = np.ones(task.n_items, bool) if decoded is None else decoded
    axes = {axis.name: axis for axis in task.recipe.schema.axes}
    chunk = Chunk(
        task.input_name,
        task.index,
        read_only(task.values.get("frame", np.arange(task.start, task.stop))),
        read_only(task.values.get("time_seconds")),
        read_only(seen),
        {key: read_only(value) for key, value in {**task.values, **arrays}.items()},
        axes,
    )
    result = _checked(name, worker_stage, worker_stage.run(chunk), chunk, task.recipe.schema)
    seconds = {key: value for one in made for key, value in one.seconds.items()}
    seconds |= items.seconds if items is not None else {}
    seconds[name] = time.perf_counter() - began
    return Made(result, decoded, error, seconds, found=found, is_final=is_final)


def read_only(array: Any) -> Any:
    """Return a view that cannot be written to: other stages, and the store, use the same array."""
    if not isinstance(array, np.ndarray):
        return array
    view = array.view()
    view.flags.writeable = False
    return view


def _checked(name: str, worker_stage: Stage, result: Any, chunk: Chunk, schema: Schema) -> dict[str, np.ndarray]:
    """Return the declared arrays, in their declared dtype, each with the right number of rows."""
    specs = worker_stage.outputs
    declared = {spec.name for spec in specs}
    if not isinstance(result, Mapping) or set(result) != declared:
        returned = sorted(result) if isinstance(result, Mapping) else type(result).__name__
        raise StageError(f"stage {name!r} declares {sorted(declared)} but returned {returned}")
    counts = {axis.name: chunk.arrays[axis.count] for axis in schema.axes if axis.count in chunk.arrays}
    try:
        return schema.fit(specs, result, len(chunk), f"stage {name!r}", counts)
    except StoreError as err:  # which a disk's refusal is too
        raise StageError(str(err)) from None


class StageError(ReelgraphError):
    """A stage returned something other than it declares."""


@_failing_softly
def write(task: ChunkTask, name: str, settings: WorkerSettings, store_path: str, *given: Made | Items) -> Committed:
    """Write the arrays that the missing stages made, and with them the commit record; without a stage, the items."""
    began = time.perf_counter()
    recipe, schema = task.recipe, task.recipe.schema
    made = [_nothing_made(one, task) if isinstance(one, Items) else one for one in given]
    arrays = {key: value for one in made if not one.stored for key, value in one.arrays.items()}
    before = {key: value for one in made if one.stored for key, value in one.arrays.items()}
    decoded = next((m.decoded for m in made if m.decoded is not None), np.ones(task.n_items, bool))
    error = next((m.error for m in made if m.error), None)
    seconds = {key: value for one in made for key, value in one.seconds.items()}
    numbers = task.values.get("frame", np.arange(task.start, task.stop))
    is_final = any(m.is_final for m in made)
    missing = () if is_final else tuple(int(number) for number in numbers[~decoded])
    record = Record(
        "ok",
        stages=recipe.keys,
        attempts=task.earlier_attempts + 1,
        seconds={key: round(value, 4) for key, value in seconds.items()},
        worker=worker_name(),
        error=error,
        missing=missing,
    )
    items = () if task.files else (*schema.item_arrays, *recipe.found)  # the first file of a chunk has them
    nothing = {array.name: array.nothing(task.n_items) for array in recipe.found}
    found = next((m.found for m in made if m.found), nothing)
    of_items = {**task.values, DECODED.name: decoded, **found}
    counts = {axis.name: before[axis.count] for axis in schema.axes if axis.count in before}
    write_chunk(
        store_path,
        task.input_name,
        task.index,
        {**of_items, **_placed(arrays, {**found, **before, **arrays}, task, seen=False)},
        (*items, *schema.arrays),
        record,
        schema,
        items=task.n_items,
        counts=counts,
        replaces=task.replaces,
        flush=settings.flush,
    )
    seconds[name] = time.perf_counter() - began
    known = {**before, **arrays}
    rows = {axis.name: int(known[axis.count].sum()) for axis in schema.axes if axis.count in known}
    return Committed(task.n_items, rows, missing, error, seconds, int((~decoded).sum()) if is_final else 0)


def _nothing_made(items: Items, task: ChunkTask) -> Made:
    """Return what the write step must know of loaded items."""
    found = {array.name: items.arrays[array.name] for array in task.recipe.found}
    return Made({}, items.decoded, items.error, items.seconds, found=found, is_final=items.is_final)


def _placed(
    arrays: dict[str, np.ndarray], known: Mapping[str, np.ndarray], task: ChunkTask, seen: bool
) -> dict[str, np.ndarray]:
    """Return arrays with pixel coordinates of what stages see (`seen`), or else of the whole picture, as a store.

    `known` has the count arrays, and where each item was looked at if the source says so for each of them.
    """
    recipe = task.recipe
    by_item = recipe.placed_by_item and ORIGIN.name in known
    if not by_item and task.origin == (0, 0) and task.scale == (1, 1):
        return arrays
    of_items = [known[array.name] if by_item else getattr(task, array.name) for array in (ORIGIN, SCALE)]

    def placed(name: str, array: np.ndarray) -> np.ndarray:
        spec = recipe.places[name]
        origin, scale = (np.asarray(one, np.float32) for one in of_items)
        if by_item:
            axis = recipe.schema.axis(spec.dims[0])
            rows = slice(None) if axis is None else np.repeat(np.arange(task.n_items), known[axis.count])
            shape = (len(array), *[1] * (array.ndim - 2), 2)
            origin, scale = origin[rows].reshape(shape), scale[rows].reshape(shape)
        if spec.place == "xywh":
            origin = np.concatenate([origin, np.zeros_like(origin)], axis=-1)
            scale = np.concatenate([scale, scale], axis=-1)
        moved: np.ndarray = (array - origin) * scale if seen else array / scale + origin
        return moved.astype(array.dtype, copy=False)

    return {name: placed(name, array) if name in recipe.places else array for name, array in arrays.items()}


def worker_name() -> str:
    """Return the address of this Dask worker, or host and process for in-process runs."""
    worker = this_worker()
    return str(worker.address) if worker is not None else f"{socket.gethostname()}:{os.getpid()}"

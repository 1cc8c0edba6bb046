"""What runs on a worker: decode, read, stage and write steps of one chunk, and the stages it keeps loaded.

Each step takes and returns small objects, except `Frames`, which never leaves the worker that decoded it.
An exception is caught once, here, and travels on as a `Failure`, so that one bad chunk never ends a run.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.engine.finding import find_stage
from pipeline.engine.plan import ChunkTask
from pipeline.engine.stage import Chunk, Stage
from pipeline.engine.watchdog import this_worker, watched
from pipeline.engine.workflow import make_importable
from pipeline.errors import ReelgraphError, StoreError
from pipeline.machine.device import Device
from pipeline.store.schema import Array


@dataclass(frozen=True)
class StageRef:
    """Names a configured stage; equal on every worker, so that it keys the cache of loaded stages."""

    name: str
    use: str
    options: str
    """JSON."""
    folder: str
    """Modules beside the workflow file may be named in `use`."""
    key: str
    """Resume key."""


@dataclass(frozen=True)
class WorkerSettings:
    """How this run uses a worker. None of it changes results, but for the device and its precision, slightly."""

    device: Device = field(default_factory=Device)
    decode_threads: int = 1
    chunk_timeout_seconds: float | None = None
    """A step that takes longer ends its worker process; None for in-process runs, which nothing can end."""

    def at(self, precision: str) -> WorkerSettings:
        """The same, with models that compute in this precision."""
        return replace(self, device=replace(self.device, precision=precision))


@dataclass
class Frames:
    """Decoded pixels of one chunk."""

    frames_rgb: np.ndarray
    decoded: np.ndarray
    error: str | None
    seconds: dict[str, float]

    def __sizeof__(self) -> int:
        return int(self.frames_rgb.nbytes)  # Dask moves work to large data, not large data to work


@dataclass
class Made:
    """Arrays made by one stage (or read from the store), with what the write step must know of the frames."""

    arrays: dict[str, np.ndarray]
    decoded: np.ndarray | None
    """bool (n,); None where nothing that these were made of tells."""
    error: str | None
    seconds: dict[str, float]


@dataclass(frozen=True)
class Failure:
    """A step that raised."""

    step: str
    error: str
    ends_run: bool = False
    """The disk refused: no fault of the chunk's, and the next chunks would fare no better."""


@dataclass(frozen=True)
class Committed:
    """What a written chunk tells the client."""

    n_frames: int
    n_faces: int
    missing: tuple[int, ...]
    """Ranks of the frames that could not be read."""
    error: str | None
    seconds: dict[str, float]


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
                _share_cores(device)
                stage_type = find_stage(ref.use)
                found = stage_type(stage_type.Options.model_validate(json.loads(ref.options)))
                found.load(device)
                _loaded[ref, device] = found
    return found


def _share_cores(device: Device) -> None:
    """OpenCV takes every core by default; a worker has its share, and its other slot decodes meanwhile."""
    import cv2

    cv2.setNumThreads(device.threads)


def unload_stages() -> None:
    """Drop every loaded stage with its models, and the memory that is kept for frames."""
    from pipeline.media.video.memory import MEMORY

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
        try:
            with watched(name, task.input_name, task.index, settings.chunk_timeout_seconds):
                return step(task, name, settings, *inputs)
        except Exception as err:  # the one broad catch: whatever a codec, a model or a disk raises is recorded
            disk_refused = isinstance(err, StoreError) and isinstance(err.__cause__, OSError)
            return Failure(name, one_line(err), ends_run=disk_refused)

    return guarded


def one_line(err: BaseException) -> str:
    text = " ".join(str(err).split())
    return text if isinstance(err, ReelgraphError) else f"{type(err).__name__}: {text}"[:500]


@_failing_softly
def decode(task: ChunkTask, name: str, settings: WorkerSettings) -> Frames:
    from pipeline.media.video.memory import MEMORY

    began = time.perf_counter()
    assert task.job is not None
    MEMORY.lock_pages(settings.device.kind != "cpu")
    result = task.job.decode(settings.decode_threads)
    if not result.decoded.any():
        raise DecodeError(result.error or "no frame of this chunk could be decoded")
    return Frames(result.frames_rgb, result.decoded, result.error, {name: time.perf_counter() - began})


class DecodeError(ReelgraphError):
    """Nothing of a chunk could be decoded."""


@_failing_softly
def read(task: ChunkTask, name: str, settings: WorkerSettings, store_path: str) -> Made:
    """Arrays that finished stages stored for this chunk."""
    from pipeline.store.run import RunStore

    began = time.perf_counter()
    stored = RunStore.open(store_path, mode="r").input(task.input_name)
    arrays = stored.read_arrays([*task.stored, "decoded"], task.start, task.stop)
    decoded = arrays.pop("decoded").astype(bool)
    x, y = task.origin
    return Made(_moved(arrays, -x, -y), decoded, None, {name: time.perf_counter() - began})


@_failing_softly
def stage(
    task: ChunkTask, name: str, settings: WorkerSettings, ref: StageRef, frames: Frames | None, *made: Made
) -> Made:
    """Run one stage on what was decoded, stored and made so far."""
    arrays = {key: value for one in made for key, value in one.arrays.items()}
    decoded = next((m.decoded for m in made if m.decoded is not None), None)
    error = next((m.error for m in made if m.error), None)
    if frames is not None:
        arrays["frames_rgb"], decoded, error = frames.frames_rgb, frames.decoded, frames.error
    worker_stage = loaded_stage(ref, settings.device)
    began = time.perf_counter()
    seen = np.ones(len(task.frame), bool) if decoded is None else decoded
    chunk = Chunk(task.input_name, task.index, task.frame, task.time_seconds, seen, arrays)
    result = _checked(name, worker_stage.outputs, worker_stage.run(chunk), chunk)
    seconds = {key: value for one in made for key, value in one.seconds.items()}
    seconds |= frames.seconds if frames is not None else {}
    return Made(result, decoded, error, {**seconds, name: time.perf_counter() - began})


def _checked(name: str, specs: Sequence[Array], result: dict[str, np.ndarray], chunk: Chunk) -> dict[str, np.ndarray]:
    """The declared arrays, in their declared dtype, each with the right number of rows."""
    missing = [spec.name for spec in specs if spec.name not in result]
    surplus = [key for key in result if key not in {spec.name for spec in specs}]
    if missing or surplus:
        raise ReelgraphError(f"stage {name!r} declares {[s.name for s in specs]} but returned {sorted(result)}")
    n_faces = result["n_faces"] if "n_faces" in result else chunk.arrays.get("n_faces")
    checked = {}
    for spec in specs:
        rows = len(chunk.frame) if spec.dims[0] == "frame" else int(np.sum(n_faces)) if n_faces is not None else 0
        array = np.asarray(result[spec.name])
        if array.shape != (rows, *spec.shape):
            raise ReelgraphError(
                f"stage {name!r}: {spec.name} has shape {array.shape}, but this chunk has {rows} {spec.dims[0]}s: "
                f"expected {(rows, *spec.shape)}"
            )
        checked[spec.name] = array.astype(spec.dtype, copy=False)
    return checked


@_failing_softly
def write(
    task: ChunkTask,
    name: str,
    settings: WorkerSettings,
    store_path: str,
    specs: tuple[Array, ...],
    keys: dict[str, str],
    *made: Made,
) -> Committed:
    """Write the arrays that the missing stages made, then the commit record."""
    from pipeline.store.chunks import write_chunk

    began = time.perf_counter()
    arrays = {key: value for one in made for key, value in one.arrays.items()}
    decoded = next((m.decoded for m in made if m.decoded is not None), np.ones(len(task.frame), bool))
    error = next((m.error for m in made if m.error), None)
    seconds = {key: value for one in made for key, value in one.seconds.items()}
    missing = tuple(int(rank) for rank in task.frame[~decoded])
    record = {
        "state": "ok",
        "attempts": task.earlier_attempts + 1,
        "seconds": {key: round(value, 4) for key, value in seconds.items()},
        "worker": worker_name(),
        "error": error,
        "missing": list(missing),
        "stages": keys,
    }
    own = {"frame": task.frame, "time_seconds": task.time_seconds, "decoded": decoded}
    write_chunk(store_path, task.input_name, task.index, {**own, **_moved(arrays, *task.origin)}, specs, record)
    seconds[name] = time.perf_counter() - began
    n_faces = int(arrays["n_faces"].sum()) if "n_faces" in arrays else 0
    return Committed(len(task.frame), n_faces, missing, error, seconds)


def _moved(arrays: dict[str, np.ndarray], x: int, y: int) -> dict[str, np.ndarray]:
    """Places of faces, moved: stages count pixels from the corner of what they see, a store from that of the frame."""
    if (x, y) == (0, 0):
        return arrays
    steps = {"box": np.array([x, y, 0, 0], np.float32), "landmarks": np.array([x, y], np.float32)}
    return {name: array + steps[name] if name in steps else array for name, array in arrays.items()}


def worker_name() -> str:
    """Address of this Dask worker, or host and process for in-process runs."""
    worker = this_worker()
    return str(worker.address) if worker is not None else f"{socket.gethostname()}:{os.getpid()}"

"""Cost of a run for its client: of one chunk, of a million chunks, of a resume, of a store with many inputs.

    python benchmarks/client.py [--chunks 1000] [--pictures 1000] [--parts chunk tls plan resume open commit]

`chunk` drives the real plan, keys, graph, Dask submission and outcomes on a local cluster whose workers do nothing, and
takes the CPU time of the client's thread. The scheduler shares the process, so the CPU time of the whole process stands
beside it. `tls` does the same without and with TLS in turns, and gives medians. `plan` and
`resume` are one process each, with their peak memory and the files that they opened.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from harness import REPOSITORY, parser, watched
from PIL import Image

from pipeline.engine.bound import BoundWorkflow
from pipeline.engine.events import ChunkDone, InputStarted, Listeners, RunStarted
from pipeline.engine.executor import Orders
from pipeline.engine.graph import Node, chunk_nodes
from pipeline.engine.plan import ChunkTask, InputPlan
from pipeline.engine.source import InputRef, Source, SourceOptions
from pipeline.engine.steps import Committed, WorkerSettings
from pipeline.engine.summary import Summary
from pipeline.engine.workflow import load_workflow
from pipeline.media.video.decode import VideoDecodeJob
from pipeline.media.video.readers import Segment
from pipeline.media.video.source import VideoSource
from pipeline.store.chunks import Chunks, chunk_file, write_chunk
from pipeline.store.compact import compact
from pipeline.store.read import open as open_store
from pipeline.store.record import Record
from pipeline.store.run import RunStore
from pipeline.store.schema import DECODED, Array, Axis, Schema
from pipeline.views.progress import Tally

WORKFLOWS = REPOSITORY / "workflows"
CHUNK_ITEMS = 64
ROUNDS = 5


class MadeUp(Source):
    """A video that exists only as numbers: 64 frames a chunk, jobs as large as real ones."""

    kind = "video"
    Options = SourceOptions
    arrays: ClassVar[tuple[Array, ...]] = VideoSource.arrays
    item_bytes = 1920 * 1080 * 3

    def __init__(self, chunks: int) -> None:
        self.items = chunks * CHUNK_ITEMS
        self.facts = {"path": "made-up", "fingerprint": "made-up"}

    @classmethod
    def find(cls, inputs: Sequence[str], options: SourceOptions) -> Iterator[InputRef]:
        return iter(())

    @classmethod
    def open(cls, ref: InputRef, options: SourceOptions, stored: Mapping[str, Any] | None) -> Source:
        return cls(1)

    @classmethod
    def fingerprint(cls, ref: InputRef) -> str:
        return "made-up"

    def __len__(self) -> int:
        return self.items

    def values(self, start: int, stop: int) -> dict[str, np.ndarray]:
        frame = np.arange(start, stop, dtype=np.int64)
        return {"frame": frame, "time_seconds": frame / 25.0}

    def job(self, start: int, stop: int) -> VideoDecodeJob:
        frame = np.arange(start, stop, dtype=np.int64)
        return VideoDecodeJob(
            path="made-up.mp4", bytes=1, mtime_ns=1, survey=(), stream=0, decoder="pyav", width=1920, height=1080,
            rotation=0, mirrored=False, roi=None, size=(1920, 1080), square=False, breaks=(), rank=frame, pts=frame,
            time_seconds=frame / 25.0, readable=np.ones(len(frame), bool),
            unreadable_reason=None, ordinal=False, segments=(Segment(0, len(frame), 0, ((0, 0),)),),
        )  # fmt: skip


def nothing(task: ChunkTask, name: str, settings: WorkerSettings, *inputs: Any) -> Any:
    """Stand in for a step on the worker; the last one says what was committed."""
    return Committed(task.n_items, {"face": 2}, (), None, {"decode": 0.1, "detect": 0.2}) if name == "write" else name


def workflow_of(name: str, pictures: int, folder: Path) -> Any:
    """Load a shipped workflow. find.yaml gets a gallery of `pictures` small pictures."""
    if name != "find":
        return load_workflow(WORKFLOWS / f"{name}.yaml")
    gallery = folder / "people"
    gallery.mkdir(exist_ok=True)
    for number in range(pictures):
        Image.fromarray(np.full((32, 32, 3), number % 251, np.uint8)).save(gallery / f"person{number}.png")
    return load_workflow(WORKFLOWS / "find.yaml", [f"identify.gallery={gallery}"])


def per_chunk(name: str, chunks: int, pictures: int, *, insecure: bool = False) -> dict[str, Any]:
    """Return milliseconds per chunk of the client's thread, of the process, and of the wall clock; seconds to start."""
    from pipeline.cluster.executor import DaskExecutor
    from pipeline.cluster.options import ClusterOptions
    from pipeline.cluster.starting import connect

    with tempfile.TemporaryDirectory() as folder:
        loaded = workflow_of(name, pictures, Path(folder))
        options = ClusterOptions(workers=1, threads=2, device="cpu", dashboard_port=0, insecure=insecure)
        began = time.perf_counter()
        with connect(options) as cluster:
            started = time.perf_counter() - began
            executor = DaskExecutor(cluster)

            def light(task: ChunkTask, settings: WorkerSettings) -> list[Node]:
                return [replace(node, function=nothing) for node in chunk_nodes(task, "made-up.zarr", settings)]

            def drive(chunks: int) -> tuple[float, float, float]:
                began = time.thread_time(), time.process_time(), time.perf_counter()
                bound = BoundWorkflow(loaded)
                plan = InputPlan(bound, "clip", MadeUp(chunks), CHUNK_ITEMS, None)
                summary = Summary("made-up.zarr")
                listeners = Listeners([summary, Tally()])
                listeners.on(RunStarted("made-up.zarr", 1, "frame", ("face",)))
                listeners.on(InputStarted("clip", plan.n_items))
                for outcome in executor.run(plan.tasks(), Orders(light, lambda: False, listeners.on)):
                    result = outcome.result
                    assert isinstance(result, Committed), result
                    done = result.n_items, result.rows, result.seconds
                    listeners.on(ChunkDone("clip", outcome.task.index, *done, elapsed_seconds=1.0))
                assert summary.chunks == chunks
                return (
                    time.thread_time() - began[0], time.process_time() - began[1], time.perf_counter() - began[2]
                )  # fmt: skip

            drive(50)  # imports, connections
            thread, process, wall = drive(chunks)
    return {
        "workflow": name, "chunks": chunks, "client_thread_ms": 1e3 * thread / chunks,
        "client_and_scheduler_ms": 1e3 * process / chunks, "wall_ms": 1e3 * wall / chunks, "start_seconds": started,
    }  # fmt: skip


def with_and_without_tls(chunks: int) -> Iterator[dict[str, Any]]:
    """Yield what `per_chunk` gives without TLS and with it: medians of ROUNDS rounds, in turns."""
    rounds = [[per_chunk("faces", chunks, 0, insecure=insecure) for insecure in (True, False)] for _ in range(ROUNDS)]
    for tls, measured in enumerate(zip(*rounds, strict=True)):
        names = ("client_thread_ms", "client_and_scheduler_ms", "wall_ms", "start_seconds")
        yield {"tls": bool(tls), **{name: float(np.median([one[name] for one in measured])) for name in names}}


def measured(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the values of some work, its seconds, the files that it opened, and the peak memory of this process."""
    opened: list[str] = []
    # The mode is None for the call within `open` by which an opener of ours looks at the file first.
    sys.addaudithook(lambda event, found: opened.append(event) if event == "open" and found[1] is not None else None)
    began = time.perf_counter()
    values, seconds = work(), time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {**values, "seconds": seconds, "files_opened": len(opened), "peak_memory_mb": peak / 1e6}


def plan_many(chunks: int, folder: Path) -> dict[str, Any]:
    """Plan an input of `chunks` chunks, and make a task of every thousandth."""
    bound = BoundWorkflow(load_workflow(WORKFLOWS / "faces.yaml"))

    def work() -> dict[str, Any]:
        plan = InputPlan(bound, "clip", MadeUp(chunks), CHUNK_ITEMS, None)
        todo = plan.todo
        return {"chunks": len(todo), "tasks": len([plan.task(index) for index in todo[::1000].tolist()])}

    return measured(work)


def resume_many(committed: int, folder: Path) -> dict[str, Any]:
    """Plan an input with `committed` committed chunks, and one more to do for every thousand of them."""
    bound = BoundWorkflow(load_workflow(WORKFLOWS / "faces.yaml"))
    total = committed + committed // 1000
    # One real chunk file and links to it for all others: only the names are planned from.
    out = folder / "many.zarr"
    chunks = out / "clip" / "chunks"
    chunks.mkdir(parents=True)
    record = Record("ok", stages={stage: bound.keys[stage] for stage in bound.wanted})
    schema = replace(bound.schema, arrays=())
    values = {**MadeUp(1).values(0, CHUNK_ITEMS), DECODED.name: np.ones(CHUNK_ITEMS, bool)}
    first = write_chunk(str(out), "clip", 0, values, schema.item_arrays, record, schema, items=CHUNK_ITEMS)
    indices = np.setdiff1d(np.arange(total), np.arange(1000, total, 1001))[:committed]
    source = chunks / first
    for position, index in enumerate(indices[1:].tolist()):
        place = chunks / chunk_file(index, record)
        if position % 50_000 == 49_999:  # file systems bound the links to one file
            shutil.copyfile(source, place)
            source = place
        else:
            os.link(source, place)

    def work() -> dict[str, Any]:
        plan = InputPlan(bound, "clip", MadeUp(total), CHUNK_ITEMS, Chunks(out, "clip"))
        return {"to_do": len(list(plan.tasks())), "committed": len(plan.done)}

    return measured(work)


def open_many(inputs: int, folder: Path) -> dict[str, Any]:
    """Open a finished store with `inputs` inputs and count its rows."""
    out = folder / "inputs.zarr"
    count = Array("n_faces", ("frame",), "int32")
    schema = Schema("frame", (*VideoSource.arrays, DECODED), (Axis("face"),), (count,))
    record = Record("ok", stages={"detect": "k"})
    source = MadeUp(1)
    with RunStore.open(out) as store:
        for number in range(inputs):
            facts = {"path": f"/films/{number}.mp4", "fingerprint": "f", "chunk_frames": 64, "frames": 8, "every": 1}
            name = store.add_input(f"film{number}", facts)
            store.input(name).update(stages={"detect": {"key": "k", "state": "partial"}})
            values = {**source.values(0, 8), DECODED.name: np.ones(8, bool), "n_faces": np.ones(8, np.int32)}
            specs = (*schema.item_arrays, count)
            write_chunk(str(out), name, 0, values, specs, record, schema, items=8, flush=False)
            compact(store, name, schema, 8, 64, source.values)

    def work() -> dict[str, Any]:
        inputs = open_store(out).inputs
        return {"inputs": len(inputs), "frames": sum(item.frames_done for item in inputs.values())}

    return measured(work)


def commit_many(chunks: int, folder: Path) -> dict[str, Any]:
    """Commit chunks of 64 frames with two faces each, flushed to the disk and not, in turns."""
    bound = BoundWorkflow(load_workflow(WORKFLOWS / "faces.yaml"))
    rng = np.random.default_rng(0)
    arrays = {spec.name: rng.random((2 * CHUNK_ITEMS, *spec.shape)).astype(spec.dtype) for spec in bound.schema.arrays}
    arrays["n_faces"] = np.full(CHUNK_ITEMS, 2, np.int32)
    arrays |= {**MadeUp(1).values(0, CHUNK_ITEMS), DECODED.name: np.ones(CHUNK_ITEMS, bool)}
    record = Record("ok", stages={stage: bound.keys[stage] for stage in bound.wanted})
    specs = (*bound.schema.item_arrays, *bound.schema.arrays)
    spent = {True: 0.0, False: 0.0}
    for index in range(2 * chunks):
        flush = index % 2 == 0
        began = time.perf_counter()
        options = {"items": CHUNK_ITEMS, "flush": flush}
        name = write_chunk(str(folder), "clip", index, arrays, specs, record, bound.schema, **options)
        spent[flush] += time.perf_counter() - began
    size = (folder / "clip" / "chunks" / name).stat().st_size
    return {
        "chunks": chunks, "chunk_kb": size / 1e3, "flushed_ms": 1e3 * spent[True] / chunks,
        "not_flushed_ms": 1e3 * spent[False] / chunks,
    }  # fmt: skip


PARTS = {"plan": plan_many, "resume": resume_many, "open": open_many, "commit": commit_many}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--chunks", type=int, default=1000)
    options.add_argument("--pictures", type=int, default=1000)
    options.add_argument("--parts", nargs="+", default=["chunk", "tls", *PARTS])
    options.add_argument("--plan", type=int, default=1_000_000, help="chunks to plan")
    options.add_argument("--committed", type=int, default=125_000, help="committed chunks to resume from")
    options.add_argument("--inputs", type=int, default=1000, help="inputs of the store to open")
    options.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if chosen.only:
            part, size = chosen.only
            print(json.dumps(PARTS[part](int(size), Path(folder))))
            return
        sizes = {"plan": chosen.plan, "resume": chosen.committed, "open": chosen.inputs, "commit": 200}
        for part in chosen.parts:
            if part == "chunk":
                for name in ("faces", "find"):
                    print(json.dumps({"part": part, **per_chunk(name, chosen.chunks, chosen.pictures)}))
                continue
            if part == "tls":
                for values in with_and_without_tls(chosen.chunks):
                    print(json.dumps({"part": part, "chunks": chosen.chunks, **values}))
                continue
            command = [sys.executable, __file__, "--only", part, str(sizes[part])]
            print(json.dumps({"part": part, **json.loads(watched(command, dict(os.environ), Path(folder)).output)}))


if __name__ == "__main__":
    main()

"""Features of many pictures: the script that people write, a loader of decoding processes, and this package.

    make bench-features
    make bench-features ARGS="--parts plan resume simulation"

The pictures are those of the data folder ($REELGRAPH_DATA), under as many names as `--pictures` says; without it, those
of installed packages. All contestants use the same network (EfficientNet-Lite0), the same preparation and the same
pictures, and their features are compared.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from client import measured
from harness import (
    Rows,
    alone,
    contestant,
    cut_evenly,
    environment,
    explain,
    parser,
    pictures_at_hand,
    reelgraph_run,
    say,
    show,
    write_json,
)  # fmt: skip

PARTS = ("race", "plan", "resume", "simulation")
BATCH = 32
SMALL_BATCH = 2
RACE: tuple[tuple[str, str, dict[str, int]], ...] = (
    ("decoding alone", "decoding alone", {}),
    (f"network alone, batches of {BATCH}", "network alone", {"size": BATCH}),
    (f"network alone, batches of {SMALL_BATCH}", "network alone", {"size": SMALL_BATCH}),
    ("the script", "the script", {"size": BATCH}),
    (f"the script, batches of {SMALL_BATCH}", "the script", {"size": SMALL_BATCH}),
    ("loader", "loader", {}),
)
"""Rows of the race: name, contestant, settings."""
COLUMNS = (
    "=name", "pictures:,", "pictures/s=per_second:.1f", "of the limit=of_limit:.0%",
    "times the script=times_script:.2f", "all of it, s=all_seconds:.1f", "peak MB=peak_mb:,.0f",
)  # fmt: skip
HOW = {
    "the script": "the list cut in as many parts as there are cores, a process with one thread each: read, prepare, "
    "batches of 32 (or as it says), all features in memory, one file at the end",
    "loader": "as many processes as cores read and prepare batches (what a DataLoader does); the network runs in this "
    "one, with all cores",
    "reelgraph": "reelgraph run features, with 1 or 2 workers; chunks are committed and flushed as they are done",
    "limit": "pictures decoded alone, then the network alone on prepared pictures, each on all cores at once: "
    "1 / (1 / decoding + 1 / network), with the faster batch. It leaves out preparation, stores and start",
    "pictures/s": "from the first picture to the last; `all of it` has the start too: imports, models, processes",
    "simulation": "a stage that sleeps as long as the network took for its pictures, on 8 workers of this machine; "
    "efficiency: the seconds it would take if nothing else took time, through the seconds it took",
}


def main() -> None:
    options = parser(__doc__, "bench-features.json", "bench-features")
    options.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="parts to run")
    options.add_argument("--pictures", type=int, default=4000, help="names in the race")
    options.add_argument("--names", type=int, default=8_000_000, help="names to plan")
    options.add_argument("--workers", type=int, default=8, help="workers of the simulation")
    chosen = contestant(options, CONTESTANTS)
    chosen.folder.mkdir(parents=True, exist_ok=True)
    os.environ |= environment(chosen.folder)
    result: dict[str, Any] = {"how": HOW}
    if "race" in chosen.parts:
        pictures = folder_of_names(chosen.folder / "pictures", chosen.pictures)
        result["race"] = race(chosen.folder, pictures)
        show(f"Features of {chosen.pictures:,} pictures", COLUMNS, result["race"])
    if "plan" in chosen.parts or "resume" in chosen.parts:
        result["plan"] = [
            {"name": name, **alone(chosen.folder, name, names=chosen.names)[0]}
            for part, name in (("plan", "a list"), ("plan", "a folder"), ("resume", "half done"))
            if part in chosen.parts
        ]
        columns = ("=name", "names:,", "seconds:.1f", "peak MB=peak_memory_mb:,.0f", "files opened=files_opened:,")
        show("Planning; the scan of the folder is simulated, no name has a file", columns, result["plan"])
    if "simulation" in chosen.parts:
        result["simulation"] = [simulation(chosen.folder, chosen.workers)]
        columns = ("workers", "chunks", "ideal, s=ideal_seconds:.1f", "seconds:.1f", "efficiency:.2f")
        show("A simulation of workers whose network takes no core", columns, result["simulation"])
    explain(HOW)
    write_json(chosen.json, result)


def folder_of_names(folder: Path, names: int) -> Path:
    """Make a folder with that many links to the pictures at hand."""
    found = pictures_at_hand("faces", "pairs")
    shutil.rmtree(folder, ignore_errors=True)
    for number in range(names):
        place = folder / f"{number // 1000:04d}" / f"{number:07d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(found[number % len(found)].resolve())
    return folder


def race(folder: Path, pictures: Path) -> Rows:
    """Run all contestants and compare their features."""
    from pipeline.machine.cores import available_cores

    cores, names = available_cores(), [str(path) for path in sorted(pictures.rglob("*.jpg"))]
    rows: Rows = []
    made: dict[str, np.ndarray] = {}
    for name, title, settings in RACE:
        say(name)
        values, done = alone(folder, title, pictures=str(pictures), processes=cores, **settings)
        rows.append({"name": name, **values, "all_seconds": done.seconds, "peak_mb": done.peak_mb})
        if "out" in values:
            made[name] = np.load(rows[-1].pop("out"))
    for workers in sorted({1, cores}):
        say(f"reelgraph, {workers} workers")
        out = folder / "features.zarr"
        same = ["source.resize=null"]  # the others read whole pictures
        summary, peak = reelgraph_run(Path("features"), [str(pictures)], out, dict(os.environ), same, workers=workers)
        seconds = summary["seconds"]
        name = f"reelgraph, {workers} worker{'s' * (workers > 1)}"
        row = {"name": name, "pictures": summary["pictures"], "per_second": summary["pictures"] / seconds["run"]}
        rows.append({**row, "all_seconds": seconds["total"], "peak_mb": peak})
        made[name] = features_of(out, names, pictures)
    first = next(iter(made.values()))
    for name, features in made.items():
        worst = float(np.abs(features - first).max())
        say(f"{name}: features differ by {worst:.1e} from the script's")
        assert worst <= 1e-5, (name, worst)
    by_name = {row["name"]: row["per_second"] for row in rows}
    network = max(rate for name, rate in by_name.items() if name.startswith("network alone"))
    limit = 1 / (1 / by_name["decoding alone"] + 1 / network)
    rows.append({"name": "limit", "pictures": len(names), "per_second": limit})
    for row in rows:
        row["of_limit"], row["times_script"] = row["per_second"] / limit, row["per_second"] / by_name["the script"]
    return rows


def features_of(out: Path, names: list[str], pictures: Path) -> np.ndarray:
    """Return the features of a store in the order of the given paths."""
    import pipeline

    (item,) = pipeline.open(out).inputs.values()
    place = {name: row for row, name in enumerate(item.array("name").tolist())}
    features: np.ndarray = item.array("feature")
    return features[[place[os.path.relpath(name, pictures)] for name in names]]


# -- contestants, each in a process of its own -----------------------------------------------------------------


def read_picture(path: str) -> np.ndarray:
    from PIL import Image, ImageOps

    with Image.open(path) as picture:
        return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))


def network_of(threads: int) -> tuple[Any, Any]:
    """Return what prepares a batch, and a session of the network as a script would open it."""
    import onnxruntime

    from pipeline.images.models import efficientnet_lite
    from pipeline.images.models.network import describe
    from pipeline.images.stages.features import FeaturesOptions

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(efficientnet_lite.graph(), options, providers=["CPUExecutionProvider"])
    network = describe(FeaturesOptions())

    def run(batch: np.ndarray) -> np.ndarray:
        result: np.ndarray = session.run([network.output], {network.input: batch})[0]
        return result

    return network.preparation, run


def batches(paths: list[str], size: int = BATCH) -> Iterator[list[str]]:
    found = iter(paths)
    while some := list(islice(found, size)):
        yield some


def part_of_script(paths: list[str], size: int) -> tuple[np.ndarray, float, float]:
    """Do what one process of the script does; return features, and when it began and ended."""
    preparation, run = network_of(threads=1)
    began, found = time.time(), []
    for some in batches(paths, size):
        found.append(run(preparation.batch([read_picture(path) for path in some], len(some))))
    return np.concatenate(found), began, time.time()


def parts(pictures: str, processes: int) -> list[list[str]]:
    return cut_evenly([str(path) for path in sorted(Path(pictures).rglob("*.jpg"))], processes)


def together(work: Callable[[list[str]], Any], cut: list[list[str]]) -> list[Any]:
    with ProcessPoolExecutor(len(cut), multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(work, cut))


def rate_of(spans: list[tuple[float, float]], pictures: int) -> dict[str, Any]:
    seconds = max(stop for _, stop in spans) - min(start for start, _ in spans)
    return {"pictures": pictures, "per_second": pictures / seconds}


def script(pictures: str, processes: int, size: int) -> dict[str, Any]:
    cut = parts(pictures, processes)
    done = together(partial(part_of_script, size=size), cut)
    out = Path(pictures).parent / "script.npy"
    np.save(out, np.concatenate([features for features, _, _ in done]))
    return {**rate_of([(start, stop) for _, start, stop in done], sum(map(len, cut))), "out": str(out)}


def prepared(some: list[str], preparation: Any) -> np.ndarray:
    batch: np.ndarray = preparation.batch([read_picture(path) for path in some], len(some))
    return batch


def loader(pictures: str, processes: int) -> dict[str, Any]:
    (paths,) = parts(pictures, 1)
    preparation, run = network_of(threads=processes)
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        pool.map(prepared_nothing, range(processes))
        began, found = time.time(), []
        for batch in pool.imap(partial(prepared, preparation=preparation), batches(paths)):
            found.append(run(batch))
        stop = time.time()
    out = Path(pictures).parent / "loader.npy"
    np.save(out, np.concatenate(found))
    return {**rate_of([(began, stop)], len(paths)), "out": str(out)}


def prepared_nothing(_: int) -> None:
    """Have a process import what it needs."""
    network_of(threads=1)


def part_decoded(paths: list[str]) -> tuple[float, float]:
    from pipeline.media.images.shelves import Files
    from pipeline.media.images.source import ImagesJob, ImagesOptions

    began = time.time()
    for some in batches(paths):
        ImagesJob(Files(tuple(os.fsencode(path) for path in some)), ImagesOptions().geometry).load()
    return began, time.time()


def decoding(pictures: str, processes: int) -> dict[str, Any]:
    cut = parts(pictures, processes)
    return rate_of(together(part_decoded, cut), sum(map(len, cut)))


def part_computed(paths: list[str], size: int) -> tuple[float, float]:
    preparation, run = network_of(threads=1)
    batch = preparation.batch([read_picture(path) for path in paths[:size]], size)
    run(batch)
    began = time.time()
    for some in batches(paths, size):
        run(batch[: len(some)])
    return began, time.time()


def computing(pictures: str, processes: int, size: int) -> dict[str, Any]:
    cut = parts(pictures, processes)
    return rate_of(together(partial(part_computed, size=size), cut), sum(map(len, cut)))


def plan_of(names: int, path: Path) -> dict[str, Any]:
    """Plan an input, with the tasks of every hundredth chunk."""
    from pipeline.engine.bound import BoundWorkflow
    from pipeline.engine.plan import open_source, plan_input
    from pipeline.engine.workflow import load_workflow

    bound = BoundWorkflow(load_workflow("features"))
    (ref,) = bound.workflow.source.find([str(path)], bound.workflow.source_options)
    source = open_source(bound.workflow, ref, None)
    source.inventory()
    plan = plan_input(bound, "pictures", source, None, None)
    tasks = [plan.task(index) for index in plan.todo[::100].tolist()]
    assert plan.n_items == names
    return {"names": names, "chunks": plan.total, "tasks": len(tasks)}


def list_of(names: int) -> Path:
    path = Path.cwd() / f".names-{names}.lst"
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"n{k % 1000:08d}/n{k % 1000:08d}_{k}.JPEG\n" for k in range(names))
    return path


def plan_list(names: int) -> dict[str, Any]:
    path = list_of(names)
    try:
        return measured(lambda: plan_of(names, path))
    finally:
        path.unlink()


class Entry:
    """An entry of a folder's scan: a name without a file behind it."""

    __slots__ = ("folder", "name")

    def __init__(self, name: bytes, folder: bool = False) -> None:
        self.name, self.folder = name, folder

    def is_dir(self) -> bool:
        return self.folder

    def is_symlink(self) -> bool:
        return False


def plan_folder(names: int) -> dict[str, Any]:
    """Plan a folder of a thousand folders, whose scan is simulated."""
    from contextlib import nullcontext
    from types import SimpleNamespace
    from unittest.mock import patch

    from pipeline.media.images import folders

    root = Path.cwd() / ".simulated"

    def scan(path: bytes) -> Any:
        inner = os.path.basename(os.fsdecode(path).rstrip("/"))
        if not inner.startswith("n"):
            return nullcontext(Entry(b"n%08d" % k, True) for k in range(1000))
        return nullcontext(Entry(b"n%08d_%d.JPEG" % (int(inner[1:]), k)) for k in range(int(inner[1:]), names, 1000))

    system = SimpleNamespace(**{**vars(os), "scandir": scan})
    root.mkdir(exist_ok=True)
    try:
        with patch.object(folders, "os", system), patch.object(folders, "_identity", lambda path: (0, hash(path))):
            return measured(lambda: plan_of(names, root))
    finally:
        root.rmdir()


def resume_list(names: int) -> dict[str, Any]:
    """Plan a list of which the store has every second chunk."""
    import tempfile
    from dataclasses import replace

    from pipeline.engine.bound import BoundWorkflow
    from pipeline.engine.plan import open_source, plan_input
    from pipeline.engine.source import INVENTORY
    from pipeline.engine.workflow import load_workflow
    from pipeline.store.chunks import Chunks, chunk_file, write_chunk
    from pipeline.store.record import Record
    from pipeline.store.schema import DECODED

    bound = BoundWorkflow(load_workflow("features"))
    path = list_of(names)
    with tempfile.TemporaryDirectory() as folder:
        try:
            (ref,) = bound.workflow.source.find([str(path)], bound.workflow.source_options)
            source = open_source(bound.workflow, ref, None)
            length = plan_input(bound, "pictures", source, None, None).chunk_items
            inventory = source.inventory()
        finally:
            path.unlink()
        (Path(folder) / "pictures" / "chunks").mkdir(parents=True)
        record = Record("ok", stages={stage: bound.keys[stage] for stage in bound.wanted})
        schema = replace(bound.schema, arrays=())
        values = {**source.values(0, length), DECODED.name: np.ones(length, bool)}
        first = write_chunk(folder, "pictures", 0, values, schema.item_arrays, record, schema, items=length)
        for index in range(2, -(-names // length), 2):
            os.link(f"{folder}/pictures/chunks/{first}", f"{folder}/pictures/chunks/{chunk_file(index, record)}")
        stored = {**source.facts, "chunk_frames": length, INVENTORY: inventory}

        def work() -> dict[str, Any]:
            again = open_source(bound.workflow, ref, stored)
            plan = plan_input(bound, "pictures", again, stored, Chunks(folder, "pictures"))
            tasks = [plan.task(index) for index in plan.todo[::100].tolist()]
            return {"names": len(again), "to_do": len(plan.todo), "tasks": len(tasks)}

        return measured(work)


SLEEPING = '''
"""A stage that takes the time of a network, and no core."""

import time

import numpy as np
from pydantic import Field

from pipeline import Array, Stage, StageOptions


class Options(StageOptions):
    seconds: float = Field(0.001, description="for each picture")


class Sleep(Stage):
    needs = ("frames_rgb",)
    slot = "gpu"
    Options = Options
    outputs = (Array("mean", ("frame",), "float32"),)

    def run(self, chunk):
        time.sleep(self.options.seconds * len(chunk))
        return {"mean": np.array([frame.mean() for frame in chunk.frames_rgb], np.float32)}
'''


def simulation(folder: Path, workers: int) -> dict[str, Any]:
    """Run a stage that sleeps on many workers, over small pictures in an array."""
    import zarr

    say(f"simulation of {workers} workers")
    place = folder / "simulation"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    pictures, seconds = 512 * workers * 24, 0.01
    pixels = np.random.default_rng(0).integers(0, 255, (pictures, 8, 8, 3)).astype(np.uint8)
    zarr.create_array(place / "pictures.zarr", data=pixels, chunks=(512, 8, 8, 3))
    (place / "sleeping.py").write_text(SLEEPING)
    workflow = place / "sleep.yaml"
    workflow.write_text(
        "source: {kind: images, resize: [8, 8]}\n"
        f"stages:\n  sleep: {{use: 'sleeping:Sleep', seconds: {seconds}}}\n"
    )
    out = place / "out.zarr"
    inputs, environment = [str(place / "pictures.zarr")], dict(os.environ)
    slots = 3  # of a GPU's worker
    summary, _ = reelgraph_run(workflow, inputs, out, environment, workers=workers, threads=slots)
    ideal, took = pictures * seconds / workers, summary["seconds"]["run"]
    return {
        "workers": workers, "chunks": summary["chunks"], "ideal_seconds": ideal, "seconds": took,
        "efficiency": ideal / took,
    }  # fmt: skip


CONTESTANTS: dict[str, Callable[..., dict[str, Any]]] = {
    "the script": script,
    "loader": loader,
    "decoding alone": decoding,
    "network alone": computing,
    "a list": plan_list,
    "a folder": plan_folder,
    "half done": resume_list,
}


if __name__ == "__main__":
    main()

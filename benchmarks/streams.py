"""Streams that share a machine: mosaics against single frames, and several streams at once against one after another.

    make bench-streams
    make bench-streams ARGS="--parts streams --streams 1 2 --frames 100"

The part `mosaics` looks at real clips of the data folder with the stages `objects` (FastestDet) and `detect` (its
default). The part `streams` runs `reelgraph run` over copies of one clip, with shares of the CPU: threads of each
worker, or the cores that each of several programs may use. The part `gpus` does the same with shares of a GPU's memory,
and needs a GPU.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from gpu import cards
from harness import (
    Rows,
    checked,
    chunks_of,
    data_folder,
    decoded_chunk,
    environment,
    explain,
    parser,
    reelgraph_run,
    repeatedly,
    say,
    show,
    timed,
    write_json,
)

PARTS = ("mosaics", "streams", "gpus")
OBJECTS = ("videos/intel_onebyone.mp4", "videos/intel_bottle.mp4", "videos/fr_short_hamilton.mp4", "videos/lp_s18.mp4")
FACES = ("videos/lp_s18.mp4", "videos/lp_d9.mp4", "videos/clm_cap12.mp4", "videos/fr_short_hamilton.mp4")
STREAM = "videos/intel_onebyone.mp4"
"""Clip of the parts `streams` and `gpus`: 139 s of 768x432 from a camera that does not move."""
NETWORK, NAMES = "weights/FastestDet_coco.onnx", "weights/coco.names"
SHARES = (1, 2, 3, 4)
"""Workers on a GPU: each has this part of its memory."""
NVML_SECONDS = 0.2
MOSAICS = (
    "=clip", "what", "frames", "alone", "found in mosaics=recall:.0%", "only there=more", "median px=median:.1f",
    "90% px=ninety:.1f", "same size: found=same:.0%", "within a pixel=within:.0%", "median pixel=same_median:.2f",
    "other neighbours: found=others:.0%", "frames/s alone=rate:.1f", "in mosaics=rate_mosaics:.1f", "gain:.2f",
    "second look: frames=again_frames:.0%", "found again=again:.0%", "most px=again_most:.1f",
    "gain again=again_gain:.2f",
)  # fmt: skip
TOGETHER = (
    "=how", "streams", "workers", "share=share:.0%", "seconds:.1f", "run seconds=run:.1f", "s a frame=per_frame:.4f",
    "each=each:.1%", "gain:.2f", "each, steady=each_steady:.1%", "gain, steady=gain_steady:.2f",
)  # fmt: skip
ON_GPUS = (*TOGETHER, "NVML MB a process=process_mb", "card MB=card_mb:.0f")
HOW = {
    "alone": "objects found with each frame alone; **found in mosaics**: those found with 4 frames in a mosaic too "
    "(boxes of one class that overlap by a half); px: pixels of the frame, the largest difference of the box's numbers",
    "same size": "each frame alone in its tile, the others black, against 4 frames in the mosaic: what is left is the "
    "geometry and what neighbours do; a pixel is one of the mosaic",
    "other neighbours": "the frames are put into mosaics two places later, so that each has other neighbours",
    "second look": "look_again: share of the frames that have objects after it, objects found, the largest difference "
    "of a box to that of the frame alone, gain over each frame alone",
    "frames/s": "the stage alone, one thread, on decoded frames",
    "one run": "one `reelgraph run` over all streams, --together; each worker has its share of the cores as threads",
    "programs": "a `reelgraph run` with one worker for each stream, all at once, each on its own share of the cores",
    "each": "seconds per frame of one stream alone, in one program with one worker on all cores, over those of each "
    "stream here; **gain**: over one stream after the other (streams × each). Steady: without the start of programs "
    "and workers",
    "NVML": "memory that NVML shows for each process on the card, the most seen",
}


def main() -> None:
    options = parser(__doc__, "bench-streams.json", "bench-streams")
    options.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="parts to run")
    options.add_argument("--frames", type=int, default=600, help="sampled frames of each stream, and of a clip at most")
    options.add_argument("--streams", type=int, nargs="+", default=(1, 2, 3, 4), help="streams at once")
    options.add_argument("--workers", type=int, nargs="+", default=(1, 2, 4), help="workers of one run")
    chosen = options.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    os.environ |= environment(chosen.folder)
    from pipeline.machine.gpus import visible_gpus

    result: dict[str, Any] = {"how": HOW}
    if "mosaics" in chosen.parts:
        result["mosaics"] = mosaics(chosen.folder, chosen.frames)
        show("Mosaics of 2 x 2 against single frames", MOSAICS, result["mosaics"])
    if "streams" in chosen.parts:
        result["streams"] = streams(chosen)
        show("Streams at once, on shares of the CPU", TOGETHER, result["streams"])
    if "gpus" in chosen.parts and visible_gpus():
        result["gpus"] = on_gpus(chosen, visible_gpus())
        show("Streams at once, on shares of a GPU's memory", ON_GPUS, result["gpus"])
    elif "gpus" in chosen.parts:
        say("no GPU is visible: the part gpus is left out")
    explain(HOW)
    write_json(chosen.json, result)


def workflow_file(folder: Path) -> Path:
    """Write a workflow of FastestDet alone."""
    path = folder / "fastestdet.yaml"
    network, names = (data_folder() / name for name in (NETWORK, NAMES))
    options = f"use: objects, model: {network}, family: fastestdet, classes: {names}"
    path.write_text(f"source: {{kind: video, fps: 5}}\nstages: {{objects: {{{options}}}}}\n")
    return path


# -- mosaics -----------------------------------------------------------------------------------------------------


def mosaics(folder: Path, most: int) -> Rows:
    """Look at each clip with each frame alone and with mosaics."""
    from pipeline.engine.workflow import load_workflow

    rows: Rows = []
    network = workflow_file(folder)
    parts = (
        ("objects", "objects", OBJECTS, network),
        ("people", "objects", OBJECTS, network),
        ("faces", "detect", FACES, "faces"),
    )
    for what, stage, clips, path in parts:
        for clip in clips:
            say(f"{what}, {clip}")
            sampling = ["source.every=null", "source.fps=5", *(["objects.keep=person"] if what == "people" else [])]
            looks = (["tiles=null"], ["tiles=2x2"], ["tiles=2x2", "look_again=true"])
            ways = [load_workflow(path, [*sampling, *(f"{stage}.{one}" for one in look)]) for look in looks]
            source, chunks = chunks_of(data_folder() / clip, ways[0], most)
            read = [decoded_chunk(source, *chunk) for chunk in chunks]
            found = against(*(one.node(stage).stage for one in ways), read)
            rows.append({"clip": Path(clip).stem, "what": what, **found})
    return rows


def against(alone: Any, tiled: Any, twice: Any, chunks: Sequence[Any]) -> dict[str, Any]:
    """Compare a stage that sees each frame alone with ones that see mosaics of four, once, and with a second look."""
    from pipeline.machine.device import Device
    from pipeline.views.cameras import compared

    for stage in (alone, tiled, twice):
        stage.load(Device())
        stage.run(chunks[0])
    names = [alone.outputs[0].name, "box", *(["class"] if "class" in {array.name for array in alone.outputs} else [])]

    def found(look: Callable[[Any], dict[str, Any]]) -> tuple[dict[str, Any], float]:
        parts, seconds = timed(lambda: [look(chunk) for chunk in chunks])
        return {name: np.concatenate([part[name] for part in parts]) for name in names}, seconds

    single, seconds = found(alone.run)
    packed, packed_seconds = found(tiled.run)
    frames = len(single[names[0]])
    lost = compared(single, packed)
    again, again_seconds = found(twice.run)
    second = compared(single, again)
    same = compared(found(lambda chunk: one_by_one(tiled, chunk))[0], packed)
    others = compared(found(lambda chunk: later(tiled, chunk))[0], packed)
    # Size of a mosaic's pixel in pixels of the frame, the larger of both directions.
    sides = chunks[0].arrays["frames_rgb"].shape[1:3]
    network = getattr(tiled, "network", None)
    size = network.preparation.size if network else sides
    pixel = max(2 * side / whole for side, whole in zip(sides, size, strict=True))
    middle, ninety = np.quantile(lost.apart, [0.5, 0.9]) if lost.apart else (None, None)
    apart = np.array(same.apart) / pixel
    return {
        "frames": frames, "alone": lost.alone, "recall": lost.recall, "more": lost.more, "median": middle,
        "ninety": ninety, "same": same.recall, "within": float((apart <= 1).mean()) if len(apart) else None,
        "same_median": float(np.median(apart)) if len(apart) else None, "others": others.recall,
        "again_frames": float((again[names[0]] > 0).mean()), "again": second.recall,
        "again_most": max(second.apart, default=None), "again_gain": seconds / again_seconds,
        "rate": frames / seconds, "rate_mosaics": frames / packed_seconds, "gain": seconds / packed_seconds,
    }  # fmt: skip


def one_by_one(stage: Any, chunk: Any) -> dict[str, Any]:
    """Return what a stage finds in each frame alone in its tile, all other tiles black."""
    index = np.arange(len(chunk.decoded))
    parts = [stage.run(replace(chunk, decoded=chunk.decoded & (index % 4 == tile))) for tile in range(4)]
    return merged(parts, stage.outputs[0].name)


def later(stage: Any, chunk: Any) -> dict[str, Any]:
    """Return what a stage finds if each frame lies in the tile two places later."""
    frames = chunk.arrays["frames_rgb"]
    blank = np.zeros_like(frames[:2])
    moved = replace(
        chunk, frame=np.append([-2, -1], chunk.frame), decoded=np.append([False] * 2, chunk.decoded),
        arrays={"frames_rgb": np.concatenate([blank, frames])},
    )  # fmt: skip
    found = stage.run(moved)
    count = stage.outputs[0].name
    return {**found, count: found[count][2:]}


def merged(parts: Sequence[dict[str, Any]], count: str) -> dict[str, Any]:
    """Return the rows of several results over the same frames, in the order of the frames."""
    frame = np.concatenate([np.repeat(np.arange(len(part[count])), part[count]) for part in parts])
    order = np.argsort(frame, kind="stable")
    rows = {name: np.concatenate([part[name] for part in parts])[order] for name in parts[0] if name != count}
    return {count: np.sum([part[count] for part in parts], axis=0), **rows}


# -- streams -----------------------------------------------------------------------------------------------------


def linked(folder: Path, streams: int) -> list[str]:
    """Return links to the clip, one for each stream."""
    links = [folder / f"cam-{number}.mp4" for number in range(streams)]
    for link in links:
        link.unlink(missing_ok=True)
        link.symlink_to((data_folder() / STREAM).resolve())
    return list(map(str, links))


def streams(chosen: argparse.Namespace) -> Rows:
    """Run streams at once, in one run and in programs of their own."""
    from pipeline.machine.cores import available_cores

    cores, workflow = available_cores(), workflow_file(chosen.folder)
    rows = [timed_run(chosen, workflow, 1, workers=1) | {"how": "one stream alone", "workers": 1, "share": 1.0}]
    for number in chosen.streams:
        for workers in chosen.workers:
            if (number, workers) == (1, 1):
                continue
            say(f"streams: {number}, workers: {workers}")
            row = timed_run(chosen, workflow, number, workers=workers)
            rows.append({"how": "one run", "workers": workers, "share": max(1, cores // workers) / cores, **row})
        if number > 1:
            say(f"programs: {number}")
            share = max(1, cores // number) / cores
            rows.append({"how": "programs", "workers": number, "share": share, **programs(chosen, workflow, number)})
    return [with_gain(row, rows[0]) for row in rows]


def timed_run(chosen: argparse.Namespace, workflow: Path, streams: int, **flags: Any) -> dict[str, Any]:
    """Return seconds of one `reelgraph run` over the streams, with its start and without."""
    settings = [f"source.stop={chosen.frames / 5:g}"]
    began = time.perf_counter()
    summary, _ = reelgraph_run(
        workflow, linked(chosen.folder, streams), chosen.folder / "streams.zarr", dict(os.environ), settings,
        together=streams, **flags,
    )  # fmt: skip
    seconds, frames = time.perf_counter() - began, summary["frames"] // streams
    return {"streams": streams, "frames": frames, "seconds": seconds, "run": summary["seconds"]["run"]}


def programs(chosen: argparse.Namespace, workflow: Path, streams: int) -> dict[str, Any]:
    """Return seconds of one `reelgraph run` for each stream, all at once, each on its part of the cores."""
    import json

    cores = sorted(os.sched_getaffinity(0))
    each = max(1, len(cores) // streams)
    began, running = time.perf_counter(), []
    for number, link in enumerate(linked(chosen.folder, streams)):
        own = {cores[(number * each + step) % len(cores)] for step in range(each)}
        out = str(chosen.folder / f"program-{number}.zarr")
        words = ["run", str(workflow), link, "--out", out, "--fresh", "--json", "--workers", "1"]
        words += ["--set", f"source.stop={chosen.frames / 5:g}", "--dashboard-port", "0"]
        command = ["taskset", "--cpu-list", ",".join(map(str, own)), sys.executable, "-m", "pipeline", *words]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True))
    summaries = [checked(json.loads(program.communicate()[0])) for program in running]
    seconds = time.perf_counter() - began
    slowest = max(summary["seconds"]["run"] for summary in summaries)
    return {"streams": streams, "frames": summaries[0]["frames"], "seconds": seconds, "run": slowest}


def with_gain(row: dict[str, Any], alone: dict[str, Any]) -> dict[str, Any]:
    """Return a row with the speed of each of its streams against one alone, and the gain of all together."""
    values = {"per_frame": row["run"] / row["frames"]}
    for name, seconds in (("", "seconds"), ("_steady", "run")):
        each = (alone[seconds] / alone["frames"]) / (row[seconds] / row["frames"])
        values |= {f"each{name}": each, f"gain{name}": each * row["streams"]}
    return {**row, **values}


# -- GPUs --------------------------------------------------------------------------------------------------------


@dataclass
class CardMemory:
    """Most memory that NVML showed on a card, bytes."""

    card: int = 0
    processes: dict[int, int] = field(default_factory=dict)
    """By process."""


@contextmanager
def card_memory(gpu: str) -> Iterator[CardMemory]:
    """Ask NVML for the memory of a card and of its processes for as long as the block runs."""
    nvml, (handle,) = cards([gpu])
    seen = CardMemory()

    def sample() -> None:
        seen.card = max(seen.card, int(nvml.nvmlDeviceGetMemoryInfo(handle).used))
        try:
            running = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        except nvml.NVMLError:  # a container may hide them
            return
        for process in running:
            used = int(process.usedGpuMemory or 0)  # None if the driver does not say
            seen.processes[process.pid] = max(seen.processes.get(process.pid, 0), used)

    with repeatedly(NVML_SECONDS, sample):
        yield seen


def on_gpus(chosen: argparse.Namespace, gpus: Sequence[str]) -> Rows:
    """Run streams at once with shares of the first GPU's memory."""
    workflow, rows = workflow_file(chosen.folder), []
    settings = {"gpus": gpus[0], "device": "cuda"}
    for number in chosen.streams:
        for workers in SHARES:
            if rows and number < workers:
                continue
            say(f"streams: {number}, workers on a GPU: {workers}")
            with card_memory(gpus[0]) as memory:
                row = timed_run(chosen, workflow, number, workers_per_gpu=workers, **settings)
            each = sorted((used / 1e6 for used in memory.processes.values()), reverse=True)
            shown = {"process_mb": " ".join(f"{one:.0f}" for one in each), "card_mb": memory.card / 1e6}
            rows.append({"how": "one run", "workers": workers, "share": 1 / workers, **row, **shown})
    return [with_gain(row, rows[0]) for row in rows]


if __name__ == "__main__":
    main()

"""The whole pipeline on this machine's GPUs: how fast, what holds it up, and how much of the cards it uses.

    make gpu                              the tests marked `gpu`, then this
    make gpu GPU_ARGS=--quick             a first impression

Runs workflows/faces.yaml on the clip of main_job.py with 1, 2 and 4 workers per GPU, samples NVML meanwhile, measures
decoding alone and the models alone on as many processes, and writes the section "On GPUs" of docs/benchmarks.md; the
rest of that page stays as it is. Without a GPU it says so and ends with 0, or with 1 if REELGRAPH_REQUIRE_GPU=1.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import harness
from harness import REPOSITORY, WORKFLOW, Race, Rows

HEADING = "## On GPUs"
INTERVAL_SECONDS = 0.2
"""Time between two samples; NVML's own utilisation is a mean over up to a second."""
COLUMNS = (
    "workers per GPU=per_gpu", "frames", "frames/s=rate:.1f", "models alone=models:.1f",
    "of the limit=share_of_limit:.0%", "GPU busy=gpu_busy:.0%", "decoder busy=decoder_busy:.0%",
    "GPU memory MB=gpu_memory_mb:.0f", "bottleneck", "models busy=model_share:.0%", "peak MB=peak_mb:.0f",
)  # fmt: skip
VERSIONS = ("onnxruntime-gpu", "onnxruntime", "PyNvVideoCodec", "av", "dask", "dask-cuda", "numpy")


@dataclass
class Samples:
    """Samples that NVML gave of all GPUs together."""

    gpu: list[float] = field(default_factory=list)
    """Share of the time in which a kernel ran, 0 to 1, mean of the cards."""
    decoder: list[float] = field(default_factory=list)
    """The same of NVDEC; empty if the card cannot say."""
    memory_bytes: int = 0
    """Most memory in use at once, on all cards, by any process."""


@dataclass
class Limits:
    """Other rates that were measured, in frames per second."""

    decode: float
    """Decoding on all cores."""
    beforehand: float
    """mtcnn alone, in one process, levels and patches made by numpy and OpenCV."""
    in_graphs: float
    """The same, made in the networks' graphs."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    from pipeline.machine.gpus import visible_gpus

    gpus = visible_gpus()
    if not gpus:
        required = os.environ.get("REELGRAPH_REQUIRE_GPU") == "1"
        print("no GPU is visible: nothing to measure" + (", and REELGRAPH_REQUIRE_GPU=1" if required else ""))
        return int(required)
    if options.tests:
        environment = {**os.environ, "REELGRAPH_REQUIRE_GPU": "1"}
        words = [sys.executable, "-m", "pytest", "-m", "gpu"]
        if failed := subprocess.run(words, cwd=REPOSITORY, env=environment, check=False).returncode:
            return failed
    rows, limits, clip = measure(options, gpus)
    text = section(rows, limits, clip, machine(gpus), options)
    print(text)
    options.page.write_text(replaced(options.page.read_text() if options.page.exists() else "", text))
    print(f"written to {options.page}", file=sys.stderr)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = harness.parser(__doc__, folder="bench")
    parser.add_argument("--frames", type=int, help="sampled frames of a run (9840; quick: 984)")
    parser.add_argument("--every", type=int, default=5, help="sample every Nth frame")
    parser.add_argument("--min-face", type=int, default=40, help="smallest face that the detector finds, pixels")
    parser.add_argument("--per-gpu", type=int, nargs="+", default=[1, 2, 4], help="workers per GPU")
    parser.add_argument("--decoder", default="auto", help="source.decoder of the runs")
    parser.add_argument("--quick", action="store_true", help="few frames")
    parser.add_argument("--tests", action="store_true", help="first run the tests marked `gpu`; end if they fail")
    parser.add_argument("--page", type=Path, default=REPOSITORY / "docs" / "benchmarks.md", help="page to write to")
    options = parser.parse_args(arguments)
    options.frames = options.frames or (984 if options.quick else 9840)
    return options


def measure(options: argparse.Namespace, gpus: list[str]) -> tuple[Rows, Limits, harness.Clip]:
    """Measure the runs and what each part does alone; return them and the clip."""
    folder, environment = options.folder, harness.environment(options.folder)
    race = Race(harness.clip_for(None, folder, options.frames * options.every), options.every, folder, environment)
    overrides = [f"source.decoder={options.decoder}", f"detect.min_face={options.min_face}"]
    decoders = 4 * len(gpus) if options.decoder == "nvdec" else race.cores
    part = {"workflow": str(WORKFLOW), "overrides": overrides}
    decode = race.contest("decode_alone", options.frames, decoders, **part)
    rows = []
    for per_gpu in options.per_gpu:
        models = race.contest("models_alone", options.frames, per_gpu * len(gpus), **part)
        harness.say(f"reelgraph run, {per_gpu} workers per GPU")
        out, flags = folder / f"gpu_{per_gpu}.zarr", {"every": options.every, "workers_per_gpu": per_gpu}
        with sampled(gpus) as samples:
            summary, peak_mb = harness.reelgraph_run(WORKFLOW, [race.clip.path], out, environment, overrides, **flags)
        rows.append(row_of(summary, per_gpu, samples, peak_mb, models.rate))
    alone = {"workflow": str(WORKFLOW), "min_face": options.min_face}
    ways = [race.contest(name, options.frames // 4, **alone).rate for name in ("mtcnn_beforehand", "mtcnn_in_graphs")]
    return rows, Limits(decode.rate, *ways), race.clip


def row_of(summary: dict[str, Any], per_gpu: int, samples: Samples, peak_mb: float, models: float) -> dict[str, Any]:
    """Return the row of a run that did all it should; stop the benchmark otherwise."""
    harness.checked(summary)
    busy, decoder = (sum(values) / len(values) if values else None for values in (samples.gpu, samples.decoder))
    return {
        "per_gpu": per_gpu, "frames": summary["frames"], "rate": summary["frames_per_second"], "models": models,
        "gpu_busy": busy, "decoder_busy": decoder, "gpu_memory_mb": samples.memory_bytes / 1e6,
        "bottleneck": summary["bottleneck"], "model_share": summary["model_share"], "peak_mb": peak_mb,
    }  # fmt: skip


@contextmanager
def sampled(gpus: list[str]) -> Iterator[Samples]:
    """Ask NVML for as long as the block runs. The start of the cluster is part of it."""
    nvml, handles = cards(gpus)
    samples = Samples()

    def mean(values: list[float], ask: Callable[[Any], float]) -> None:
        try:
            values.append(sum(ask(handle) for handle in handles) / len(handles) / 100)
        except nvml.NVMLError:  # a part of a card (MIG) cannot say
            return

    def sample() -> None:
        mean(samples.gpu, lambda handle: nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        mean(samples.decoder, lambda handle: nvml.nvmlDeviceGetDecoderUtilization(handle)[0])
        used = sum(int(nvml.nvmlDeviceGetMemoryInfo(handle).used) for handle in handles)
        samples.memory_bytes = max(samples.memory_bytes, used)

    with harness.repeatedly(INTERVAL_SECONDS, sample):
        yield samples


def cards(gpus: list[str]) -> tuple[Any, list[Any]]:
    """Return NVML, and its handle of each GPU."""
    nvml: Any = import_module("pynvml")
    nvml.nvmlInit()
    by_index, by_uuid = nvml.nvmlDeviceGetHandleByIndex, nvml.nvmlDeviceGetHandleByUUID
    return nvml, [by_index(int(gpu)) if gpu.isdigit() else by_uuid(gpu) for gpu in gpus]


def machine(gpus: list[str]) -> str:
    """Return one line on the cards, the driver and the packages."""
    nvml, handles = cards(gpus)
    names = [str(nvml.nvmlDeviceGetName(handle)) for handle in handles]
    listed = ", ".join(f"{names.count(name)} × {name}" for name in dict.fromkeys(names))
    cuda, facts = nvml.nvmlSystemGetCudaDriverVersion(), harness.machine()
    packages = ", ".join(f"{name} {number}" for name, number in harness.versions_of(VERSIONS).items())
    return (
        f"{listed}, driver {nvml.nvmlSystemGetDriverVersion()} (CUDA {cuda // 1000}.{cuda % 1000 // 10}), "
        f"{facts['cores']} cores ({facts['cpu']}), Python {platform.python_version()}; {packages}"
    )


def section(rows: Rows, limits: Limits, clip: Any, words: str, options: argparse.Namespace) -> str:
    """Return the section of the page, from its heading to its last line."""
    shares = [row | {"share_of_limit": row["rate"] / min(limits.decode, row["models"])} for row in rows]
    per_gpu = " ".join(map(str, options.per_gpu))
    command = f"--frames {options.frames} --every {options.every} --min-face {options.min_face}"
    lines = [
        HEADING,
        "",
        f'    make gpu GPU_ARGS="{command} --per-gpu {per_gpu} --decoder {options.decoder}"',
        "",
        f"On {words}.",
        f"One {clip.width}x{clip.height} H.264 clip of {clip.frames} frames (made from {clip.made_from}), every "
        f"{options.every}th frame, workflows/faces.yaml with min_face {options.min_face}, decoder {options.decoder}.",
        "",
        *harness.table(COLUMNS, shares),
        "",
        f"- **limit**: decoding alone, on all cores (with nvdec in four processes per GPU), gave {limits.decode:.1f} "
        "frames/s; the models alone, on frames in memory, are in the table, in as many processes as the run had "
        "workers; the lower of the two is the limit.",
        "- **GPU busy**, **decoder busy**: NVML's utilisation, mean over the whole command, its start included; of "
        "the memory the most in use at once, on all cards. **models busy**: share of the run in which the model slots "
        "were.",
        f"- **mtcnn alone**, in one process: {limits.in_graphs:.1f} frames/s with levels and patches made in the "
        f"networks' graphs, as the runs do, {limits.beforehand:.1f} with both made by numpy and OpenCV beforehand.",
        "",
    ]
    return "\n".join(lines)


def replaced(page: str, text: str) -> str:
    """Return the page with its section of this name replaced, or with a new one at its end."""
    lines = page.splitlines(keepends=True)
    start = next((i for i, line in enumerate(lines) if line.rstrip() == HEADING), None)
    if start is None:
        return (page.rstrip("\n") + "\n\n" if page.strip() else "") + text.rstrip("\n") + "\n"
    stop = next((i for i in range(start + 1, len(lines)) if lines[i].startswith("## ")), len(lines))
    rest = "".join(lines[stop:])
    return "".join(lines[:start]) + text.rstrip("\n") + "\n" + ("\n" + rest if rest else "")


if __name__ == "__main__":
    sys.exit(main())

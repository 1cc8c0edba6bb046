"""The whole pipeline on this machine's GPUs: how fast, what holds it up, and how much of the cards it uses.

    make gpu                              the tests marked `gpu`, then this
    make gpu GPU_ARGS=--quick             a first impression

Runs workflows/faces.yaml on the clip of main_job.py with 1, 2 and 4 workers per GPU, samples NVML meanwhile, measures
decoding alone and the models alone on as many processes, and writes the section "On GPUs" of docs/benchmarks.md; the
rest of that page stays as it is. Without a GPU it says so and ends with 0, or with 1 where REELGRAPH_REQUIRE_GPU=1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent
PAGE = REPOSITORY / "docs" / "benchmarks.md"
WORKFLOW = REPOSITORY / "workflows" / "faces.yaml"
HEADING = "## On GPUs"
INTERVAL_SECONDS = 0.2
"""Between two samples; NVML's own utilisation is a mean over up to a second."""
COLUMNS = (
    "workers per GPU",
    "frames",
    "frames/s",
    "models alone",
    "of the limit",
    "GPU busy",
    "decoder busy",
    "GPU memory MB",
    "bottleneck",
    "models busy",
    "peak MB",
)


@dataclass
class Samples:
    """What NVML said of all GPUs together, sample by sample."""

    gpu: list[float] = field(default_factory=list)
    """Share of the time in which a kernel ran, 0 to 1, mean of the cards."""
    decoder: list[float] = field(default_factory=list)
    """The same of NVDEC; empty where the card cannot say."""
    memory_bytes: int = 0
    """Most memory in use at once, on all cards, by anybody."""

    @staticmethod
    def mean(values: list[float]) -> float | None:
        return sum(values) / len(values) if values else None


@dataclass
class Row:
    """One run."""

    per_gpu: int
    frames: int
    rate: float
    """Sampled frames per second, from the first task to the last."""
    bottleneck: str
    """By the run's own summary."""
    model_share: float
    samples: Samples
    peak_mb: float
    models: float
    """Frames per second of the models alone, in as many processes."""

    def limit(self, decode: float) -> float:
        return min(decode, self.models)


@dataclass
class Limits:
    """What else was measured: frames per second."""

    decode: float
    """On all cores."""
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
        failed = subprocess.run(words, cwd=REPOSITORY, env=environment, check=False).returncode
        if failed:
            return failed
    options.folder.mkdir(parents=True, exist_ok=True)
    rows, limits, clip = measure(options, gpus)
    text = section(rows, limits, clip, machine(gpus), options)
    print(text)
    options.page.write_text(replaced(options.page.read_text() if options.page.exists() else "", text))
    print(f"written to {options.page}", file=sys.stderr)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, help="sampled frames of a run (default: 9840; 984 with --quick)")
    parser.add_argument("--every", type=int, default=5, help="sample every Nth frame (default: 5)")
    parser.add_argument("--min-face", type=int, default=40, help="smallest face looked for, pixels (default: 40)")
    parser.add_argument("--per-gpu", type=int, nargs="+", default=[1, 2, 4], help="workers per GPU (default: 1 2 4)")
    parser.add_argument("--decoder", default="auto", help="source.decoder of the runs (default: auto)")
    parser.add_argument("--quick", action="store_true", help="few frames")
    parser.add_argument("--tests", action="store_true", help="first run the tests marked `gpu`; end where they fail")
    parser.add_argument("--page", type=Path, default=PAGE, help="page to write to (default: docs/benchmarks.md)")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "runs" / "bench", help="for clips and stores")
    options = parser.parse_args(arguments)
    options.frames = options.frames or (984 if options.quick else 9840)
    options.folder = options.folder.resolve()
    return options


# --- measuring --------------------------------------------------------------------------------------------------------


def measure(options: argparse.Namespace, gpus: list[str]) -> tuple[list[Row], Limits, Any]:
    """The runs; what each part does alone; the clip."""
    import race as races

    environment = races.benchmark_environment(options.folder)
    clip = races.long_clip(options.folder, options.frames * options.every)
    race = races.Race(clip, options.every, options.folder, environment)
    overrides = [f"source.decoder={options.decoder}", f"detect.min_face={options.min_face}"]
    settings = {"workflow": str(WORKFLOW), "overrides": overrides}
    decoders = 4 * len(gpus) if options.decoder == "nvdec" else race.cores
    decode = race.contest("decode_alone", options.frames, decoders, **settings)
    rows = []
    for per_gpu in options.per_gpu:
        processes = per_gpu * len(gpus)
        models = race.contest("models_alone", options.frames, processes, **settings)
        rows.append(run(options, clip, environment, gpus, per_gpu, models.rate))
    alone = {"workflow": str(WORKFLOW), "min_face": options.min_face}
    ways = [race.contest(name, options.frames // 4, **alone).rate for name in ("mtcnn_beforehand", "mtcnn_in_graphs")]
    return rows, Limits(decode.rate, *ways), clip


def run(
    options: argparse.Namespace, clip: Any, environment: dict[str, str], gpus: list[str], per_gpu: int, models: float
) -> Row:
    """The command itself, watched."""
    from race import say
    from watch import watched

    say(f"reelgraph run, {per_gpu} workers per GPU")
    out = options.folder / f"gpu_{per_gpu}.zarr"
    command = [sys.executable, "-m", "pipeline", "run", str(WORKFLOW), clip.path, "--out", str(out)]
    command += ["--fresh", "--json", "--every", str(options.every), "--workers-per-gpu", str(per_gpu)]
    command += ["--set", f"detect.min_face={options.min_face}", "--set", f"source.decoder={options.decoder}"]
    with sampled(gpus) as samples:
        done, peak = watched(command, environment, options.folder)
    return row_of(json.loads(done), per_gpu, samples, peak, models)


def row_of(summary: dict[str, Any], per_gpu: int, samples: Samples, peak_mb: float, models: float) -> Row:
    """Ends the benchmark where the run did not do all it should."""
    if summary["exit_code"] != 0:
        raise SystemExit(f"reelgraph run ended with {summary['exit_code']}: {summary['failures']}")
    return Row(
        per_gpu,
        summary["frames"],
        summary["frames_per_second"],
        summary["bottleneck"] or "",
        summary["model_share"],
        samples,
        peak_mb,
        models,
    )


@contextmanager
def sampled(gpus: list[str]) -> Iterator[Samples]:
    """Ask NVML for as long as the block runs. The start of the cluster is part of it."""
    nvml: Any = import_module("pynvml")
    nvml.nvmlInit()
    handles = [
        nvml.nvmlDeviceGetHandleByIndex(int(gpu)) if gpu.isdigit() else nvml.nvmlDeviceGetHandleByUUID(gpu)
        for gpu in gpus
    ]
    samples, over = Samples(), threading.Event()

    def watch() -> None:
        while not over.wait(INTERVAL_SECONDS):
            _sample(nvml, handles, samples)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield samples
    finally:
        over.set()
        watcher.join()


def _sample(nvml: Any, handles: list[Any], samples: Samples) -> None:
    def mean(ask: Callable[[Any], float]) -> float | None:
        try:
            return sum(ask(handle) for handle in handles) / len(handles) / 100
        except nvml.NVMLError:  # a part of a card (MIG) cannot say
            return None

    gpu = mean(lambda handle: nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    decoder = mean(lambda handle: nvml.nvmlDeviceGetDecoderUtilization(handle)[0])
    if gpu is not None:
        samples.gpu.append(gpu)
    if decoder is not None:
        samples.decoder.append(decoder)
    used = sum(int(nvml.nvmlDeviceGetMemoryInfo(handle).used) for handle in handles)
    samples.memory_bytes = max(samples.memory_bytes, used)


def machine(gpus: list[str]) -> str:
    """One line on the cards, the driver and what runs on them."""
    import race as races

    nvml: Any = import_module("pynvml")
    nvml.nvmlInit()
    names = [
        _text(
            nvml.nvmlDeviceGetName(
                nvml.nvmlDeviceGetHandleByIndex(int(gpu)) if gpu.isdigit() else nvml.nvmlDeviceGetHandleByUUID(gpu)
            )
        )
        for gpu in gpus
    ]
    cards = ", ".join(f"{names.count(name)} × {name}" for name in dict.fromkeys(names))
    cuda = nvml.nvmlSystemGetCudaDriverVersion()
    listed = [f"{name} {number}" for name in VERSIONS if (number := _version(name))]
    facts = races.machine()
    return (
        f"{cards}, driver {_text(nvml.nvmlSystemGetDriverVersion())} (CUDA {cuda // 1000}.{cuda % 1000 // 10}), "
        f"{facts['cores']} cores ({facts['cpu']}), Python {platform.python_version()}; {', '.join(listed)}"
    )


VERSIONS = ("onnxruntime-gpu", "onnxruntime", "PyNvVideoCodec", "av", "dask", "dask-cuda", "numpy")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


# --- writing ----------------------------------------------------------------------------------------------------------


def section(rows: list[Row], limits: Limits, clip: Any, words: str, options: argparse.Namespace) -> str:
    """The section of the page, from its heading to its last line."""
    lines = [
        HEADING,
        "",
        f"    {command(options)}",
        "",
        f"On {words}.",
        f"One {clip.width}x{clip.height} H.264 clip of {clip.frames} frames (made from {clip.made_from}), every "
        f"{options.every}th frame, workflows/faces.yaml with min_face {options.min_face}, decoder {options.decoder}.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---:|" * len(COLUMNS),
        *("| " + " | ".join(_cells(row, limits.decode)) + " |" for row in rows),
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


def command(options: argparse.Namespace) -> str:
    words = f"--frames {options.frames} --every {options.every} --min-face {options.min_face}"
    per_gpu = " ".join(map(str, options.per_gpu))
    return f'make gpu GPU_ARGS="{words} --per-gpu {per_gpu} --decoder {options.decoder}"'


def _cells(row: Row, decode: float) -> list[str]:
    busy, decoder = (Samples.mean(values) for values in (row.samples.gpu, row.samples.decoder))
    return [
        str(row.per_gpu),
        str(row.frames),
        f"{row.rate:.1f}",
        f"{row.models:.1f}",
        f"{row.rate / row.limit(decode):.0%}",
        "" if busy is None else f"{busy:.0%}",
        "" if decoder is None else f"{decoder:.0%}",
        f"{row.samples.memory_bytes / 1e6:.0f}",
        row.bottleneck,
        f"{row.model_share:.0%}",
        f"{row.peak_mb:.0f}",
    ]


def replaced(page: str, text: str) -> str:
    """The page with its section of this name replaced, or with a new one at its end."""
    lines = page.splitlines(keepends=True)
    start = next((i for i, line in enumerate(lines) if line.rstrip() == HEADING), None)
    if start is None:
        return (page.rstrip("\n") + "\n\n" if page.strip() else "") + text.rstrip("\n") + "\n"
    stop = next((i for i in range(start + 1, len(lines)) if lines[i].startswith("## ")), len(lines))
    rest = "".join(lines[stop:])
    return "".join(lines[:start]) + text.rstrip("\n") + "\n" + ("\n" + rest if rest else "")


if __name__ == "__main__":
    sys.exit(main())

"""The main job, raced: DeepFace's own loop against `reelgraph run`, on one clip, with the same weights, in one go.

    make bench                            about a quarter of an hour on two cores
    make bench ARGS=--quick               a first impression
    make bench ARGS="--clip my.mp4"       on a clip of your own, as it is

DeepFace needs no internet for this: its `Dlib` weights come with the package face_recognition_models and are put where
DeepFace looks for them (DEEPFACE_HOME, in runs/bench); `mtcnn` brings its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import clip as clips
from watch import watched

REPOSITORY = Path(__file__).parent.parent
WORKFLOW = REPOSITORY / "workflows" / "faces.yaml"
FRAMES = 984
"""Sampled frames for reelgraph: 24 full chunks at 1080p, so that two, three or four workers end together."""
DLIB_WEIGHTS = "dlib_face_recognition_resnet_model_v1.dat"
HOW = {
    "DeepFace loop": "DeepFace.represent(frame, model_name='Dlib', detector_backend='mtcnn', enforce_detection=False)",
    "DeepFace, 2 threads": "the same in a ThreadPoolExecutor(2)",
    "DeepFace, 2 processes": "the same in a multiprocessing pool of 2, frames sent by pickle",
    "reelgraph run": "the command itself, its cluster already started, its models not yet loaded",
    "limit": (
        "the run's own decoding alone, then its own model stages alone on frames in memory, each on all of the run's "
        "processes at once; on a CPU the same cores do both, so the limit is 1 / (1 / decode + 1 / models); "
        "with a GPU it is the slower of the two. It leaves out the store, Dask, and loading the models"
    ),
}


@dataclass
class Row:
    """One line of the table."""

    name: str
    min_face: int | None
    """None: DeepFace gives no way to set it; the detector's default is 20."""
    frames: int
    seconds: float
    faces: int | None
    peak_mb: float | None
    """Most memory resident at once, summed over the contestant's processes, in 10**6 bytes."""

    @property
    def rate(self) -> float:
        return self.frames / self.seconds


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    environment = benchmark_environment(folder)
    clip = long_clip(folder, options.frames * options.every) if not options.clip else clips.clip_as_it_is(options.clip)
    bench = Bench(clip, options, folder, environment)
    rows, limits = bench.deepface(), {}
    for min_face in options.min_face:
        row = bench.reelgraph(min_face)
        limits[min_face] = bench.limit(min_face)
        rows += [row, *limits[min_face]]
    _print(rows, limits, clip)
    _write(options.json, rows, limits, clip)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, help="sampled frames for reelgraph (default: 984; 164 with --quick)")
    parser.add_argument("--deepface-frames", type=int, help="sampled frames for DeepFace (default: 60; 8 with --quick)")
    parser.add_argument("--every", type=int, default=5, help="sample every Nth frame (default: 5)")
    parser.add_argument("--min-face", type=int, nargs="+", default=[20, 40], help="for reelgraph (default: 20 40)")
    parser.add_argument("--quick", action="store_true", help="few frames")
    parser.add_argument("--clip", type=Path, help="a clip of your own, used as it is")
    parser.add_argument("--json", type=Path, default=REPOSITORY / "bench.json", help="result (default: bench.json)")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "runs" / "bench", help="for clips and stores")
    options = parser.parse_args(arguments)
    options.frames = options.frames or (164 if options.quick else FRAMES)
    options.deepface_frames = options.deepface_frames or (8 if options.quick else 60)
    return options


def benchmark_environment(folder: Path) -> dict[str, str]:
    """For every contestant: this checkout, and DeepFace's weights where DeepFace looks for them."""
    import face_recognition_models

    weights = folder / ".deepface" / "weights"
    weights.mkdir(parents=True, exist_ok=True)
    if not (weights / DLIB_WEIGHTS).exists():
        shutil.copyfile(face_recognition_models.face_recognition_model_location(), weights / DLIB_WEIGHTS)
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "DEEPFACE_HOME": str(folder), "PYTHONPATH": os.pathsep.join(paths)}


def long_clip(folder: Path, n_frames: int) -> clips.ClipFacts:
    """1080p, of the data folder's clip where there is one, of the demo clip elsewhere."""
    source, made_from = clips.real_clip(), clips.REAL_CLIP
    if source is None:
        from pipeline.demo import make_demo_clip

        made_from = "the demo clip"
        source = make_demo_clip(folder / "demo.mp4", size=clips.SIZE).path
    return clips.make_clip(source, made_from, folder, n_frames)


class Bench:
    """Runs contestants one after the other; never two at a time."""

    def __init__(
        self, clip: clips.ClipFacts, options: argparse.Namespace, folder: Path, environment: dict[str, str]
    ) -> None:
        from pipeline.cluster import available_cores, visible_gpus

        self.clip, self.options, self.folder, self.environment = clip, options, folder, environment
        self.cores, self.gpus = available_cores(), len(visible_gpus())
        self.workers = self.gpus or self.cores
        # A worker on a GPU has two slots that decode (see pipeline/cluster.py); one on a CPU has its core.
        self.decoders = 2 * self.gpus or self.cores

    def deepface(self) -> list[Row]:
        names = {
            "DeepFace loop": "deepface_loop",
            "DeepFace, 2 threads": "deepface_threads",
            "DeepFace, 2 processes": "deepface_processes",
        }
        frames = self.options.deepface_frames
        return [self.contest(label, name, frames, None) for label, name in names.items()]

    def reelgraph(self, min_face: int) -> Row:
        say(f"reelgraph run, min_face {min_face}")
        out = self.folder / f"min_face_{min_face}.zarr"
        command = [sys.executable, "-m", "pipeline", "run", str(WORKFLOW), self.clip.path, "--out", str(out)]
        command += [] if self.gpus else ["--workers", str(self.workers)]
        command += ["--fresh", "--json", "--every", str(self.options.every), "--set", f"detect.min_face={min_face}"]
        done, peak = watched(command, self.environment, self.folder)
        summary = json.loads(done)
        if summary["exit_code"] != 0:
            raise SystemExit(f"reelgraph run ended with {summary['exit_code']}: {summary['failures']}")
        seconds = summary["seconds"].get("run") or summary["seconds"]["total"]
        return Row("reelgraph run", min_face, summary["frames"], seconds, summary["faces"], peak)

    def limit(self, min_face: int) -> list[Row]:
        frames = self.options.frames
        decode = self.contest("  decoding alone", "decode_alone", frames, min_face, self.decoders)
        models = self.contest("  models alone", "models_alone", frames, min_face, self.workers)
        both = (decode.seconds / decode.frames, models.seconds / models.frames)
        seconds = frames * (max(both) if self.gpus else sum(both))
        return [Row("  limit", min_face, frames, seconds, None, None), decode, models]

    def contest(self, label: str, name: str, frames: int, min_face: int | None, processes: int = 1) -> Row:
        """One function of contestants.py, in processes of its own."""
        say(label.strip() + ("" if min_face is None else f", min_face {min_face}"))
        overrides = [f"source.every={self.options.every}"]
        overrides += [f"source.decoder={self.options.decoder}"] if "decoder" in self.options else []
        overrides += [f"detect.min_face={min_face}"] if min_face is not None else []
        settings = {
            "clip": self.clip.path,
            "every": self.options.every,
            "frames": frames,
            "processes": processes,
            "threads": max(1, self.cores // processes),
            "workflow": str(WORKFLOW),
            "overrides": overrides,
        }
        settings_file, result_file = self.folder / "settings.json", self.folder / "result.json"
        settings_file.write_text(json.dumps(settings))
        result_file.unlink(missing_ok=True)
        script = str(Path(__file__).with_name("contestants.py"))
        command = [sys.executable, script, name, str(settings_file), str(result_file)]
        _, peak = watched(command, self.environment, self.folder)
        measured = json.loads(result_file.read_text())
        return Row(label, min_face, measured["frames"], measured["seconds"], measured["faces"], peak)


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _print(rows: list[Row], limits: dict[int, list[Row]], clip: clips.ClipFacts) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{clip.width}x{clip.height}, {clip.frames} frames, made from {clip.made_from}")
    for column in ("", "min_face", "frames", "frames/s", "faces/frame", "to DeepFace", "of the limit", "peak MB"):
        table.add_column(column, justify="left" if not column else "right")
    for row in rows:
        if row.name == "reelgraph run":
            table.add_section()
        table.add_row(*_cells(row, rows[0], limits))
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    for name, how in HOW.items():
        console.print(f"[bold]{name}[/bold]: {how}.", highlight=False)
    console.print("DeepFace offers no smallest face: its rows hold for each min_face (mtcnn's default is 20).")
    console.print(_machine()["words"], highlight=False)


def _cells(row: Row, first: Row, limits: dict[int, list[Row]]) -> list[str]:
    share = row.rate / limits[row.min_face][0].rate if row.name == "reelgraph run" and row.min_face in limits else None
    return [
        row.name,
        "" if row.min_face is None else str(row.min_face),
        str(row.frames),
        f"{row.rate:.2f}",
        "" if row.faces is None else f"{row.faces / row.frames:.2f}",
        f"{row.rate / first.rate:.1f}",
        "" if share is None else f"{share:.0%}",
        "" if row.peak_mb is None else f"{row.peak_mb:.0f}",
    ]


def _machine() -> dict[str, Any]:
    from pipeline.cluster import available_cores, visible_gpus

    packages = ("deepface", "mtcnn", "tensorflow-cpu", "dlib-bin", "onnxruntime", "dask", "numpy")
    versions = {name: _version(name) for name in packages}
    model = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    cores, gpus = available_cores(), visible_gpus()
    listed = ", ".join(f"{name} {number}" for name, number in versions.items() if number)
    words = f"{cores} cores ({model}), {len(gpus)} GPUs, Python {platform.python_version()}; {listed}"
    return {"cores": cores, "cpu": model, "gpus": len(gpus), "versions": versions, "words": words}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ImportError:
        return None


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _write(path: Path, rows: list[Row], limits: dict[int, list[Row]], clip: clips.ClipFacts) -> None:
    described = []
    for row in rows:
        values = asdict(row) | {"name": row.name.strip(), "frames_per_second": row.rate}
        values["times_deepface_loop"] = row.rate / rows[0].rate
        if row.name == "reelgraph run" and row.min_face is not None:
            values["share_of_limit"] = row.rate / limits[row.min_face][0].rate
        described.append(values)
    content = {"clip": clip.as_dict(), "machine": _machine(), "how": HOW, "rows": described}
    path.write_text(json.dumps(content, indent=2) + "\n")
    print(f"written to {path}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

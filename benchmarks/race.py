"""What the races share: one contestant after the other, each in processes of its own, on one clip."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import clip as clips
from watch import watched
from weights_at_hand import REPOSITORY, data_folder, link_weights

LIMIT = (
    "the run's own decoding alone, then its own model stages alone on frames in memory, each on all of the run's "
    "processes at once; on a CPU the same cores do both, so the limit is 1 / (1 / decode + 1 / models); "
    "with a GPU it is the slower of the two. It leaves out the store, Dask, and loading the models"
)


@dataclass(frozen=True)
class Timing:
    """One contestant's result."""

    frames: int
    seconds: float
    faces: int | None
    """Those of confidence 0 left out: DeepFace's word for none."""
    peak_mb: float | None
    """Most memory resident at once, summed over the contestant's processes, in 10**6 bytes."""
    cpu_seconds: float | None = None
    """Of the contestant's own process, where it measures them."""

    @property
    def rate(self) -> float:
        return self.frames / self.seconds


@dataclass(frozen=True)
class Limit:
    """How fast a run could be (LIMIT)."""

    both: Timing
    decoding: Timing
    models: Timing


def benchmark_environment(folder: Path) -> dict[str, str]:
    """For every contestant: this checkout, and the weights at hand where DeepFace looks for them."""
    link_weights(folder, data_folder() / "weights" / "deepface")
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "DEEPFACE_HOME": str(folder), "PYTHONPATH": os.pathsep.join(paths)}


def long_clip(folder: Path, n_frames: int) -> clips.ClipFacts:
    """1080p, of the data folder's clip where there is one, of the demo clip elsewhere."""
    source, made_from = clips.real_clip(), clips.REAL_CLIP
    if source is None:
        from pipeline.faces.demo import make_demo_clip

        made_from = "the demo clip"
        source = make_demo_clip(folder / "demo.mp4", size=clips.SIZE).path
    return clips.make_clip(source, made_from, folder, n_frames)


class Race:
    """Runs contestants one after the other; never two at a time."""

    def __init__(self, clip: clips.ClipFacts, every: int, folder: Path, environment: dict[str, str]) -> None:
        from pipeline.machine.cores import available_cores
        from pipeline.machine.gpus import visible_gpus

        self.clip, self.every, self.folder, self.environment = clip, every, folder, environment
        self.cores, self.gpus = available_cores(), len(visible_gpus())
        self.workers = self.gpus or self.cores
        # A worker on a GPU has two slots that decode (see pipeline/cluster.py); one on a CPU has its core.
        self.decoders = 2 * self.gpus or self.cores

    def run(
        self, workflow: Path, inputs: Sequence[str], out: Path, overrides: Sequence[str] = (), workers: int = 0
    ) -> Timing:
        """`reelgraph run`, on all cores or GPUs unless `workers` is given; the start of its cluster is not counted."""
        command = [sys.executable, "-m", "pipeline", "run", str(workflow), *inputs, "--out", str(out)]
        command += [] if self.gpus else ["--workers", str(workers or self.workers)]
        command += ["--fresh", "--json", "--every", str(self.every)]
        command += [word for override in overrides for word in ("--set", override)]
        done, peak = watched(command, self.environment, self.folder)
        summary = json.loads(done)
        if summary["exit_code"] != 0:
            raise SystemExit(f"reelgraph run ended with {summary['exit_code']}: {summary['failures']}")
        seconds = summary["seconds"].get("run") or summary["seconds"]["total"]
        return Timing(summary["frames"], seconds, faces_of(out), peak)

    def limit(self, workflow: Path, frames: int, overrides: Sequence[str] = (), copies: int = 1) -> Limit:
        """Of a run over so many copies of the clip, `frames` sampled frames each."""
        settings = {"workflow": str(workflow), "overrides": list(overrides), "copies": copies}
        decoding = self.contest("decode_alone", frames, self.decoders, **settings)
        models = self.contest("models_alone", frames, self.workers, **settings)
        both = (decoding.seconds / decoding.frames, models.seconds / models.frames)
        seconds = models.frames * (max(both) if self.gpus else sum(both))
        return Limit(Timing(models.frames, seconds, None, None), decoding, models)

    def contest(self, name: str, frames: int, processes: int = 1, **more: Any) -> Timing:
        """One function of contestants.py, with `more` of its Settings."""
        settings = {
            "clip": self.clip.path,
            "every": self.every,
            "frames": frames,
            "processes": processes,
            "threads": max(1, self.cores // processes),
            "workflow": "",
            **more,
        }
        settings["overrides"] = [f"source.every={self.every}", *settings.get("overrides", [])]
        settings_file, result_file = self.folder / "settings.json", self.folder / "result.json"
        settings_file.write_text(json.dumps(settings))
        result_file.unlink(missing_ok=True)
        script = str(Path(__file__).with_name("contestants.py"))
        command = [sys.executable, script, name, str(settings_file), str(result_file)]
        _, peak = watched(command, self.environment, self.folder)
        measured = json.loads(result_file.read_text())
        return Timing(measured["frames"], measured["seconds"], measured["faces"], peak, measured.get("cpu_seconds"))


def faces_of(store: Path, first: int | None = None) -> int:
    """Faces in a run's store whose confidence is not 0; `first`: in so many sampled frames of its first input."""
    from pipeline.store import read

    found = read.open(store)
    frames, faces = found.frames(), found.faces(landmarks=False)
    if first is not None:
        name = next(iter(found.inputs))
        last = frames.loc[frames["input"] == name, "frame"].iloc[:first].iloc[-1]
        faces = faces[(faces["input"] == name) & (faces["frame"] <= last)]
    return int((faces["confidence"] > 0).sum())


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """What a table says of where it was measured."""
    from pipeline.machine.cores import available_cores
    from pipeline.machine.gpus import visible_gpus

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

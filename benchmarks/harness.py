"""Parts that all benchmarks share: options, weights, clips, watched processes, races, tables and JSON.

A process that only runs DeepFace imports this module too, so `pipeline` is imported inside functions.
"""

from __future__ import annotations

import argparse
import csv
import gc
import hashlib
import json
import os
import platform
import resource
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent
WORKFLOW = REPOSITORY / "workflows" / "faces.yaml"
SIZE = (1920, 1080)
CROWD, CELL = (7680, 4320), 38
"""Pixels of a crowd's frame, and of the square in it that shows one face."""
REAL_CLIP = "videos/lp_s18.mp4"
"""Clip of the data folder: one woman, half-body, 1280x720, 282 frames."""
PACKAGES = ("deepface", "mtcnn", "tensorflow-cpu", "dlib-bin", "onnxruntime", "dask", "numpy")
LIMIT = (
    "the run's own decoding alone, then its own model stages alone on frames in memory, each on all of the run's "
    "processes at once; on a CPU the same cores do both, so the limit is 1 / (1 / decode + 1 / models); "
    "with a GPU it is the slower of the two. It leaves out the store, Dask, and loading the models"
)

Rows = list[dict[str, Any]]


def parser(doc: str | None, json: str = "", folder: str = "", race: bool = False) -> argparse.ArgumentParser:
    """Return a parser with `--json` (default: that file in the repository) and `--folder` (in runs/), if named, and
    with the options of races."""
    made = argparse.ArgumentParser(description=doc, formatter_class=_Help)
    if json:
        made.add_argument("--json", type=Path, default=REPOSITORY / json, help="write all figures there")
    if folder:
        place = REPOSITORY / "runs" / folder
        made.add_argument("--folder", type=lambda path: Path(path).resolve(), default=place, help="for what is kept")
    if race:
        made.add_argument("--frames", type=int, help="sampled frames of a run (default: by the benchmark)")
        made.add_argument("--deepface-frames", type=int, help="sampled frames for DeepFace (default: by the benchmark)")
        made.add_argument("--every", type=int, default=5, help="sample every Nth frame")
        made.add_argument("--quick", action="store_true", help="few frames")
        made.add_argument("--clip", type=Path, help="a clip of your own, used as it is")
    return made


class _Help(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def data_folder() -> Path:
    """Return $REELGRAPH_DATA, by default beside this repository; the folder need not exist."""
    return Path(os.environ.get("REELGRAPH_DATA", REPOSITORY.parent / "shared" / "data"))


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return the environment of every contestant: this checkout, and all available weights where DeepFace looks."""
    link_weights(folder, data_folder() / "weights" / "deepface")
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "DEEPFACE_HOME": str(folder), "PYTHONPATH": path, **more}


def link_weights(home: Path, extra: Path) -> None:
    """Fill `home`, to be DEEPFACE_HOME, with links to DeepFace's usual weights, those in `extra`, and Dlib's (which a
    package contains)."""
    from pipeline.faces.models import zoo
    from pipeline.models.weights import weights_files, weights_folder

    sources = {path.name: path for folder in (extra, weights_folder()) if folder.is_dir() for path in folder.iterdir()}
    sources |= {path.name: path for name in ("Dlib", "dlib") for path in weights_files(zoo.card(name))}
    folder = home / ".deepface" / "weights"
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in sources.items():
        link = folder / name
        if not link.exists():
            link.unlink(missing_ok=True)
            link.symlink_to(path.resolve())


def labels_in(candidates: Sequence[Path], columns: set[str]) -> list[dict[str, str]]:
    """Return the rows of the first CSV file that exists; stop the benchmark without one, or without its columns."""
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise SystemExit(f"there is no file {' or '.join(map(str, candidates))}; name one (see --help)")
    with found.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or not columns <= set(rows[0]):
        raise SystemExit(f"{found} must have rows and the columns {', '.join(sorted(columns))}")
    return rows


@dataclass(frozen=True)
class Clip:
    """Facts that a table gives about its input."""

    path: str
    made_from: str
    width: int
    height: int
    frames: int

    @property
    def words(self) -> str:
        return f"{self.width}x{self.height}, {self.frames} frames, made from {self.made_from}"


def clip_for(own: Path | None, folder: Path, n_frames: int) -> Clip:
    """Return the user's own clip as it is, or a 1080p one of `n_frames`, made once from the data folder's clip or, if
    that is missing, from the demo clip."""
    import av

    if own:
        with av.open(str(own)) as container:
            stream = container.streams.video[0]
            frames = sum(1 for packet in container.demux(stream) if packet.size)
            return Clip(str(own), str(own), stream.width, stream.height, frames)
    source, made_from = data_folder() / REAL_CLIP, REAL_CLIP
    if not source.is_file():
        from pipeline.faces.demo import make_demo_clip

        source, made_from = make_demo_clip(folder / "demo.mp4", size=SIZE).path, "the demo clip"
    content = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    path = folder / f"{source.stem}-{content}-{SIZE[0]}x{SIZE[1]}-{n_frames}.mp4"
    if not path.exists():
        with av.open(str(source)) as reader:
            encode(path, reader.decode(video=0), SIZE, n_frames, g="50", bf="2")
    return Clip(str(path), made_from, *SIZE, n_frames)


def encode(
    path: Path, frames: Iterable[Any], size: tuple[int, int], n_frames: int = 0, fps: int = 30, **options: str
) -> None:
    """Write frames of PyAV as H.264, scaled; with `n_frames`, that number of frames: the packets again and again.

    Repeating packets costs no time, and nothing that is measured remembers a frame. Each round starts with a key frame.
    """
    import av

    aside = path.with_suffix(".partial")
    options = {"crf": "21", "preset": "veryfast", **options}
    with av.open(str(aside), "w", format="mp4") as writer:
        stream = writer.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = Fraction(1, fps)
        packets: list[Any] = []
        for index, frame in enumerate(frames):
            if index == n_frames > 0:
                break
            scaled = frame.reformat(width=size[0], height=size[1], format="yuv420p", interpolation="BICUBIC")
            scaled.pts, scaled.time_base, scaled.pict_type = index, Fraction(1, fps), 0
            packets += stream.encode(scaled)
        packets += stream.encode(None)
        for number in range(n_frames or len(packets)):
            first, shift = packets[number % len(packets)], number // len(packets) * len(packets)
            packet = av.Packet(bytes(first))
            packet.pts, packet.dts, packet.time_base = first.pts + shift, first.dts + shift, Fraction(1, fps)
            packet.is_keyframe, packet.stream = first.is_keyframe, stream
            writer.mux(packet)
    os.replace(aside, path)


def crowd(folder: Path, faces: int) -> Path:
    """Return a clip of three 8K frames, each with `faces` copies of one face at random places."""
    import av
    import cv2
    import numpy as np
    import skimage.data

    path = folder / f"crowd-{faces}.mp4"
    if not path.exists():
        face = cv2.resize(skimage.data.astronaut()[50:200, 150:300], (CELL, CELL), interpolation=cv2.INTER_AREA)
        picture = np.full((CROWD[1], CROWD[0], 3), 90, np.uint8)
        columns, lines = (side // CELL for side in CROWD)
        for place in np.random.default_rng(0).permutation(columns * lines)[:faces]:
            y, x = divmod(int(place), columns)
            picture[y * CELL : (y + 1) * CELL, x * CELL : (x + 1) * CELL] = face
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        encode(path, [frame] * 3, CROWD, crf="10")
    return path


def chunks_of(path: Path | str, workflow: Any, most: int | None = None) -> tuple[Any, list[tuple[int, int]]]:
    """Return the source of a clip, and the chunks that a run cuts it (or its first `most` frames) into."""
    from pipeline.engine.plan import choose_chunk_items, cut
    from pipeline.media.video.source import VideoSource

    source = VideoSource(Path(path), workflow.source_options)
    n_frames = len(source.frame) if most is None else min(len(source.frame), most)
    return source, cut(n_frames, choose_chunk_items(source))


def decoded_chunk(source: Any, start: int, stop: int, threads: int = 1) -> Any:
    """Return a chunk with its frames decoded, as the first stage of a run gets it."""
    from pipeline.engine.stage import Chunk

    decoded = source.job(start, stop).decode(threads)
    arrays = {"frames_rgb": decoded.frames_rgb}
    return Chunk("clip", 0, source.frame[start:stop], source.time_seconds[start:stop], decoded.decoded, arrays)


def after(chunk: Any, *stages: Any) -> Any:
    """Return the chunk with the outputs of stages that run one after the other."""
    for stage in stages:
        chunk = replace(chunk, arrays=chunk.arrays | stage.run(chunk))
    return chunk


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    output: str
    peak_mb: float
    """Most memory resident at once, summed over the process and its descendants, in 10**6 bytes."""
    seconds: float
    cpu_seconds: float


def watched(
    command: Sequence[str], environment: dict[str, str], folder: Path, mapped: bool = True, once: bool = False
) -> Done:
    """Run a command to its end, and stop the benchmark if it fails.

    Without `mapped`, pages of mapped files are not counted: the system takes them back when it needs them. With `once`,
    memory that processes share is counted once (PSS), which takes longer to read.
    """
    import psutil

    log, peak = folder / "stderr.log", 0

    def sample() -> None:
        nonlocal peak
        total = 0
        with suppress(psutil.Error):
            root = psutil.Process(process.pid)
            for one in (root, *root.children(recursive=True)):
                with suppress(psutil.Error):
                    info = one.memory_full_info() if once else one.memory_info()
                    total += info.pss if once else info.rss if mapped else info.rss - info.shared
        peak = max(peak, total)

    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with log.open("w") as errors:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
        with repeatedly(0.5 if once else 0.25, sample):
            output = process.communicate()[0]
    seconds, usage = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode != 0:
        raise SystemExit(f"{shlex.join(command)} ended with {process.returncode}:\n{log.read_text()[-2000:]}")
    cpu_seconds = usage.ru_utime + usage.ru_stime - before.ru_utime - before.ru_stime
    return Done(output, peak / 1e6, seconds, cpu_seconds)


def contestant(options: argparse.ArgumentParser, contestants: Mapping[str, Callable[..., Any]]) -> argparse.Namespace:
    """Parse the options. If this process is one of `alone`, run the contestant, print its values and end."""
    options.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.only:
        name, settings = chosen.only
        print(json.dumps(contestants[name](**json.loads(settings))))
        raise SystemExit
    return chosen


def alone(
    folder: Path, name: str, /, python: str = sys.executable, once: bool = False, **settings: Any
) -> tuple[dict[str, Any], Done]:
    """Run one contestant of this benchmark in a process of its own; return its values and how it ran."""
    done = watched([python, sys.argv[0], "--only", name, json.dumps(settings)], dict(os.environ), folder, once=once)
    return json.loads(done.output.splitlines()[-1]), done


def pictures_at_hand(*parts: str) -> list[Path]:
    """Return the JPEGs of parts of the data folder; if there are none, those of an installed package."""
    found = sorted(path for part in parts for path in (data_folder() / part).rglob("*.jpg"))
    if not found:
        import skimage.data

        found = sorted(Path(skimage.data.__file__).parent.rglob("*.jpg"))
    return found


def cut_evenly(items: Sequence[Any], parts: int) -> list[list[Any]]:
    edges = [len(items) * part // parts for part in range(parts + 1)]
    return [list(items[start:stop]) for start, stop in pairwise(edges)]


@contextmanager
def repeatedly(seconds: float, work: Callable[[], None]) -> Iterator[None]:
    """Call `work` in a thread every few seconds for as long as the block runs."""
    over = threading.Event()

    def loop() -> None:
        while not over.wait(seconds):
            work()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def reelgraph_run(
    workflow: Path, inputs: Sequence[str], out: Path, environment: dict[str, str], overrides: Sequence[str] = (),
    **flags: object,
) -> tuple[dict[str, Any], float]:  # fmt: skip
    """Run `reelgraph run` in a new store `out`; return its summary and its peak memory in MB."""
    command = [sys.executable, "-m", "pipeline", "run", str(workflow), *inputs, "--out", str(out), "--fresh", "--json"]
    command += [word for override in overrides for word in ("--set", override)]
    command += [word for name, value in flags.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    done = watched(command, environment, out.parent)
    return checked(json.loads(done.output)), done.peak_mb


def checked(summary: dict[str, Any]) -> dict[str, Any]:
    """Return the summary of a run that did all it should; stop the benchmark otherwise."""
    if summary["exit_code"] != 0:
        raise SystemExit(f"reelgraph run ended with {summary['exit_code']}: {summary['failures']}")
    return summary


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result of `work` and its seconds."""
    gc.collect()
    began = time.perf_counter()
    return work(), time.perf_counter() - began


@dataclass(frozen=True)
class Measured:
    """One contestant's result."""

    frames: int
    seconds: float
    faces: int | None = None
    """Faces found. Those of confidence 0 are left out: with them DeepFace says that it found none."""
    cpu_seconds: float | None = None
    """CPU seconds of the contestant's own process, if it measures them."""
    peak_mb: float | None = None

    @property
    def rate(self) -> float:
        return self.frames / self.seconds


RACE_COLUMNS = (
    "frames", "frames/s=frames_per_second:.2f", "faces/frame=faces_per_frame:.2f",
    "in DeepFace's frames=same_faces:.2f", "times the loop=times_loop:.1f", "of the limit=share_of_limit:.0%",
    "peak MB=peak_mb:.0f",
)  # fmt: skip


class Race:
    """Contestants that run one after the other, each in processes of its own, on one clip; and their rows.

    The first row is the loop that all others are compared with.
    """

    def __init__(self, clip: Clip, every: int, folder: Path, environment: dict[str, str]) -> None:
        from pipeline.machine.cores import available_cores
        from pipeline.machine.gpus import visible_gpus

        self.clip, self.every, self.folder, self.environment = clip, every, folder, environment
        self.cores, self.gpus = available_cores(), len(visible_gpus())
        self.workers = self.gpus or self.cores
        # A worker on a GPU has two slots that decode (see pipeline/cluster.py); one on a CPU has its core.
        self.decoders = 2 * self.gpus or self.cores
        self.rows: Rows = []

    def contest(self, name: str, frames: int, processes: int = 1, **settings: Any) -> Measured:
        """Run one function of contestants.py."""
        overrides = [f"source.every={self.every}", *settings.pop("overrides", ())]
        threads = max(1, self.cores // processes)
        settings |= {"clip": self.clip.path, "every": self.every, "frames": frames, "processes": processes}
        words = json.dumps({**settings, "threads": threads, "overrides": overrides})
        script = str(Path(__file__).with_name("contestants.py"))
        done = watched([sys.executable, script, name, words], self.environment, self.folder)
        return replace(Measured(**json.loads(done.output.splitlines()[-1])), peak_mb=done.peak_mb)

    def enter(self, name: str, measured: Measured, **more: Any) -> None:
        """Add a row to the table and to the JSON."""
        per_frame = None if measured.faces is None else measured.faces / measured.frames
        rates = {"frames_per_second": measured.rate, "faces_per_frame": per_frame}
        row = {"name": name, **asdict(measured), **rates, **more}
        row["times_loop"] = measured.rate / (self.rows or [row])[0]["frames_per_second"]
        self.rows.append(row)

    def deepface(self, label: str, name: str, frames: int, **settings: Any) -> None:
        """Run one of DeepFace's contestants."""
        say(label)
        measured = self.contest(name, frames, **settings)
        self.enter(label, measured, same_faces=(measured.faces or 0) / measured.frames)

    def reelgraph(
        self, name: str, workflow: Path, inputs: list[str], overrides: Sequence[str] = (), workers: int = 0, **more: Any
    ) -> None:
        """Run `reelgraph run` on all cores or GPUs, or on `workers`. The start of its cluster is not counted."""
        say(f"{name} {more}")
        out = self.folder / "race.zarr"
        flags = {"every": self.every} if self.gpus else {"every": self.every, "workers": workers or self.workers}
        summary, peak = reelgraph_run(workflow, inputs, out, self.environment, overrides, **flags)
        seconds = summary["seconds"].get("run") or summary["seconds"]["total"]
        first = self.rows[0]["frames"]
        same = faces_of(out, first) / first
        self.enter(name, Measured(summary["frames"], seconds, faces_of(out), peak_mb=peak), same_faces=same, **more)

    def limit(self, workflow: Path, frames: int, overrides: Sequence[str] = (), copies: int = 1, **more: Any) -> None:
        """Measure the LIMIT of the last run, over that many copies of the clip, `frames` sampled frames each."""
        say(f"limit {more}")
        settings = {"workflow": str(workflow), "overrides": overrides, "copies": copies}
        decoding = self.contest("decode_alone", frames, self.decoders, **settings)
        models = self.contest("models_alone", frames, self.workers, **settings)
        both = (1 / decoding.rate, 1 / models.rate)
        limit = Measured(models.frames, models.frames * (max(both) if self.gpus else sum(both)))
        self.rows[-1]["share_of_limit"] = self.rows[-1]["frames_per_second"] / limit.rate
        for name, measured in {"limit": limit, "decoding alone": decoding, "models alone": models}.items():
            self.enter(name, measured, **more)


def faces_of(store: Path, first: int | None = None) -> int:
    """Count the faces in a store whose confidence is not 0; with `first`, in that many frames of its first input."""
    import pipeline

    items = list(pipeline.open(store).inputs.values())
    if first is None:
        return sum(int((item.array("confidence") > 0).sum()) for item in items)
    return int((items[0].array("confidence")[items[0].array("face_frame") < first] > 0).sum())


def table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], padded: bool = False) -> list[str]:
    """Return the lines of a Markdown table.

    A column is "heading=key:format", such as "peak MB=peak_mb:.0f": what a row has under the key, in that format. The
    heading may be left out if it is the key.
    """
    headings, keys, formats = [], [], []
    for column in columns:
        heading, _, rest = column.rpartition("=")
        key, _, form = rest.partition(":")
        headings.append(heading if "=" in column else key)
        keys.append(key)
        formats.append(form)
    both = list(zip(keys, formats, strict=True))
    cells = [["" if row.get(key) is None else format(row[key], form) for key, form in both] for row in rows]
    right = [all(cell[:1] in "0123456789-" for cell in column) for column in zip(*cells, strict=True)]
    widths = [max(4, *map(len, column)) if padded else 4 for column in zip(headings, *cells, strict=True)]
    rule = ["-" * (width - 1) + (":" if number else "-") for width, number in zip(widths, right, strict=True)]
    lines = [headings, rule, *cells]
    if padded:
        put = [str.rjust if number else str.ljust for number in right]
        lines = [[one(cell, width) for one, cell, width in zip(put, line, widths, strict=True)] for line in lines]
    return ["| " + " | ".join(line) + " |" for line in lines]


def show(title: str, columns: Sequence[str], rows: Rows, how: Mapping[str, str] | None = None) -> None:
    """Print a table, and what its names mean."""
    print(f"\n{title}\n", *table(columns, rows, padded=True), sep="\n", flush=True)
    explain(how or {})


def explain(how: Mapping[str, str]) -> None:
    for name, words in how.items():
        print(f"- {name}: {words}.")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write all figures, with the command and the machine."""
    command = shlex.join(["python", *sys.argv])
    facts = machine()
    values = {"command": command, "machine": facts, **content}
    path.write_text(json.dumps(values, indent=2, default=str) + "\n", encoding="utf-8")
    say(f"{facts['words']}; written to {path}")


def say(text: str) -> None:
    """Print a line on what is under way, with the time."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """Return what a table tells about the machine it was measured on."""
    from pipeline.machine.cores import available_cores, cpu_name
    from pipeline.machine.gpus import visible_gpus

    cpu = cpu_name()
    cores, gpus, versions = available_cores(), len(visible_gpus()), versions_of(PACKAGES)
    listed = ", ".join(f"{name} {number}" for name, number in versions.items())
    words = f"{cores} cores ({cpu}), {gpus} GPUs, Python {platform.python_version()}; {listed}"
    return {"cores": cores, "cpu": cpu, "gpus": gpus, "versions": versions, "words": words}


def versions_of(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    found = {}
    for name in packages:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found

"""Who races: each function runs in a process of its own, loads and warms up, then measures one thing.

Run by race.py as `python contestants.py NAME SETTINGS.json RESULT.json`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Settings:
    """What race.py tells a contestant."""

    clip: str
    every: int
    frames: int
    """Sampled frames to do."""
    processes: int
    """Processes that share the work, for the limit; the pool of DeepFace always has two."""
    threads: int
    """Of one model session and of one decoder, for the limit; as the run itself sets them."""
    workflow: str
    overrides: tuple[str, ...] = ()
    copies: int = 1
    """Of the clip, for the limit: each has so many sampled frames."""
    detector: str = "mtcnn"
    network: str = "Dlib"
    """Of DeepFace's loop."""
    warm_up_clip: str = ""
    """For a run in this process."""
    min_face: int = 20
    """Pixels, for the detector alone."""


@dataclass(frozen=True)
class Measured:
    """What a contestant reports."""

    frames: int
    seconds: float
    faces: int | None = None
    cpu_seconds: float | None = None
    """Of the contestant's own process, where it is measured."""


# --- DeepFace, as its users write it ----------------------------------------------------------------------------------


def sampled_frames(settings: Settings) -> Iterator[np.ndarray]:
    """Every Nth frame, BGR. `grab` leaves out the colour conversion of frames that nobody wants."""
    import cv2

    capture = cv2.VideoCapture(settings.clip)
    for index in range(settings.frames * settings.every):
        if not capture.grab():
            break
        if index % settings.every == 0:
            yield capture.retrieve()[1]
    capture.release()


def represent(settings: Settings, frame: np.ndarray) -> int:
    """Faces that DeepFace found; what it calls a face of confidence 0 is its word for none."""
    from deepface import DeepFace

    found = DeepFace.represent(
        frame, model_name=settings.network, detector_backend=settings.detector, enforce_detection=False
    )
    return sum(face["face_confidence"] > 0 for face in found)


def analyze_loop(settings: Settings) -> Measured:
    """All four attributes of every face, as DeepFace.analyze has it."""
    from deepface import DeepFace

    def analyze(frame: np.ndarray) -> int:
        found = DeepFace.analyze(frame, detector_backend=settings.detector, enforce_detection=False, silent=True)
        return sum(face["face_confidence"] > 0 for face in found)

    analyze(next(sampled_frames(settings)))
    began, cpu_began = time.perf_counter(), time.process_time()
    faces = [analyze(frame) for frame in sampled_frames(settings)]
    return Measured(len(faces), time.perf_counter() - began, sum(faces), time.process_time() - cpu_began)


def warm_up(settings: Settings) -> None:
    represent(settings, next(sampled_frames(settings)))


def deepface_loop(settings: Settings) -> Measured:
    warm_up(settings)
    began = time.perf_counter()
    faces = [represent(settings, frame) for frame in sampled_frames(settings)]
    return Measured(len(faces), time.perf_counter() - began, sum(faces))


def deepface_threads(settings: Settings) -> Measured:
    """Two threads, and never more than four frames waiting: submitting all at once would only cost memory."""
    warm_up(settings)
    began = time.perf_counter()
    waiting: list[Future[int]] = []
    faces = []
    with ThreadPoolExecutor(2) as pool:
        for frame in sampled_frames(settings):
            waiting.append(pool.submit(represent, settings, frame))
            if len(waiting) >= 4:
                faces.append(waiting.pop(0).result())
        faces += [future.result() for future in waiting]
    return Measured(len(faces), time.perf_counter() - began, sum(faces))


def deepface_processes(settings: Settings) -> Measured:
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(3)
    with context.Pool(2, initializer=_start_pool_worker, initargs=(settings, ready)) as pool:
        ready.wait()
        began = time.perf_counter()
        faces = list(pool.imap(partial(represent, settings), sampled_frames(settings)))
        seconds = time.perf_counter() - began
    return Measured(len(faces), seconds, sum(faces))


def _start_pool_worker(settings: Settings, ready: Any) -> None:
    warm_up(settings)
    ready.wait()


# --- The limit: the same decoding and the same models, each alone, on as many processes as the run has ----------------


def decode_alone(settings: Settings) -> Measured:
    return _in_processes(_decode_share, settings)


def models_alone(settings: Settings) -> Measured:
    return _in_processes(_model_share, settings)


def _in_processes(work: Callable[..., None], settings: Settings) -> Measured:
    """All processes start at once, when the last is ready; the slowest one's time counts."""
    context = multiprocessing.get_context("spawn")
    ready, results = context.Barrier(settings.processes), context.Queue()
    children = [
        context.Process(target=work, args=(settings, part, ready, results)) for part in range(settings.processes)
    ]
    for child in children:
        child.start()
    shares: list[Measured] = [results.get(timeout=1800) for _ in children]
    for child in children:
        child.join()
    faces = [share.faces for share in shares if share.faces is not None]
    frames = sum(share.frames for share in shares)
    return Measured(frames, max(share.seconds for share in shares), sum(faces) if faces else None)


def _chunks(settings: Settings) -> tuple[Any, Any, list[tuple[int, int]]]:
    """The workflow, the source, and the chunks that a run would cut it into, for each copy."""
    from pipeline.engine.plan import choose_chunk_items, cut
    from pipeline.engine.workflow import load_workflow
    from pipeline.media.video.source import VideoSource

    workflow = load_workflow(settings.workflow, settings.overrides)
    source = VideoSource(Path(settings.clip), workflow.source_options)
    chunks = cut(min(len(source.frame), settings.frames), choose_chunk_items(source))
    return workflow, source, chunks * settings.copies


def _decode_share(settings: Settings, part: int, ready: Any, results: Any) -> None:
    _, source, chunks = _chunks(settings)
    mine = chunks[part :: settings.processes]
    ready.wait()
    began = time.perf_counter()
    frames = 0
    for start, stop in mine:
        frames += len(source.job(start, stop).decode(settings.threads).decoded)
    results.put(Measured(frames, time.perf_counter() - began))


def _model_share(settings: Settings, part: int, ready: Any, results: Any) -> None:
    """The workflow's own stages on chunks that lie decoded in memory: as many as fit into 1 GB, again and again."""
    from pipeline.machine.memory import MEMORY

    device = _device(settings, part)
    MEMORY.lock_pages(device.kind != "cpu")  # as the run does
    workflow, source, chunks = _chunks(settings)
    mine = chunks[part :: settings.processes]
    at_hand = max(1, int((1 << 30) // (source.item_bytes * max(stop - start for start, stop in chunks))))
    decoded = [_decoded_chunk(source, *bounds) for bounds in mine[:at_hand]]
    _load(workflow, device)
    if decoded:
        _run_stages(workflow, decoded[0])
    ready.wait()
    began = time.perf_counter()
    frames = faces = 0
    for index, (start, stop) in enumerate(mine):
        found = _run_stages(workflow, decoded[index % len(decoded)])
        frames += stop - start
        faces += found
    results.put(Measured(frames, time.perf_counter() - began, faces))


def mtcnn_beforehand(settings: Settings) -> Measured:
    return _mtcnn(settings, in_graphs=False)


def mtcnn_in_graphs(settings: Settings) -> Measured:
    return _mtcnn(settings, in_graphs=True)


def _mtcnn(settings: Settings, in_graphs: bool) -> Measured:
    """The detector alone on one chunk again and again, with what its networks see made in one way or the other."""
    from pipeline.faces.models.detectors.mtcnn import MtcnnDetector
    from pipeline.machine.memory import MEMORY

    device = _device(settings, 0)
    MEMORY.lock_pages(device.kind != "cpu")
    _, source, chunks = _chunks(settings)
    frames = _decoded_chunk(source, *chunks[0]).arrays["frames_rgb"]
    detector = MtcnnDetector(device, settings.min_face, in_graphs=in_graphs)
    faces = len(detector.detect(frames).frame)
    began, done = time.perf_counter(), 0
    while done < settings.frames:
        detector.detect(frames)
        done += len(frames)
    return Measured(done, time.perf_counter() - began, faces)


def _decoded_chunk(source: Any, start: int, stop: int) -> Any:
    from pipeline.engine.stage import Chunk

    decoded = source.job(start, stop).decode(1)
    arrays = {"frames_rgb": decoded.frames_rgb}
    return Chunk("clip", 0, source.frame[start:stop], source.time_seconds[start:stop], decoded.decoded, arrays)


def _device(settings: Settings, part: int) -> Any:
    """A share of the GPU that is this process's turn, as a worker of the run has it; else the CPU."""
    from dataclasses import replace

    from pipeline.cluster.starting import gpu_device
    from pipeline.machine.device import Device
    from pipeline.machine.gpus import card_bytes, share_bytes, visible_gpus

    gpus = visible_gpus()
    if not gpus:
        return Device("cpu", threads=settings.threads)
    per_gpu = -(-settings.processes // len(gpus))
    share = share_bytes(min(map(card_bytes, gpus)), per_gpu)
    return replace(gpu_device("cuda", share), index=part % len(gpus))


def _load(workflow: Any, device: Any) -> None:
    for node in workflow.stages:
        node.stage.load(device)


def _run_stages(workflow: Any, chunk: Any) -> int:
    """All stages in order; returns the number of faces, those of confidence 0 left out."""
    from dataclasses import replace

    for node in workflow.stages:
        chunk = replace(chunk, arrays=chunk.arrays | node.stage.run(chunk))
    return int((chunk.arrays["confidence"] > 0).sum())


# --- A run in this process, warmed up as DeepFace's loop is -----------------------------------------------------------


def run_here(settings: Settings) -> Measured:
    """`pipeline.run` over the whole clip, after one over another with the same workflow has loaded the models; these
    stay loaded in between, as DeepFace keeps its own."""
    import tempfile
    from unittest.mock import patch

    import pipeline

    with tempfile.TemporaryDirectory() as folder, patch("pipeline.engine.steps.unload_stages", lambda: None):
        for number, clip in enumerate((settings.warm_up_clip, settings.clip)):
            out, cpu_began = Path(folder) / f"{number}.zarr", time.process_time()
            run = pipeline.run(settings.workflow, clip, out, set=list(settings.overrides), executor="inline")
        cpu_seconds = time.process_time() - cpu_began
        return Measured(run.summary.frames, run.summary.seconds["run"], _faces_analyzed(run), cpu_seconds)


def _faces_analyzed(run: Any) -> int:
    """Those that the networks saw."""
    (item,) = run.inputs.values()
    if "analyzed" in item.arrays:
        return int(item.array("analyzed").sum())
    return len(item.array("face_frame"))


CONTESTANTS: dict[str, Callable[[Settings], Measured]] = {
    "deepface_loop": deepface_loop,
    "deepface_analyze": analyze_loop,
    "deepface_threads": deepface_threads,
    "deepface_processes": deepface_processes,
    "run_here": run_here,
    "decode_alone": decode_alone,
    "models_alone": models_alone,
    "mtcnn_beforehand": mtcnn_beforehand,
    "mtcnn_in_graphs": mtcnn_in_graphs,
}


def main() -> None:
    name, settings_file, result_file = sys.argv[1:]
    values = json.loads(Path(settings_file).read_text())
    settings = Settings(**{**values, "overrides": tuple(values["overrides"])})
    if name.startswith("deepface"):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    Path(result_file).write_text(json.dumps(vars(CONTESTANTS[name](settings))))


if __name__ == "__main__":
    main()

"""The contestants of a race: each runs in a process of its own, loads and warms up, then measures one thing.

harness.py runs this as `python contestants.py NAME SETTINGS`; the last line printed is the result. Both are JSON.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from harness import Measured, after, chunks_of, decoded_chunk


@dataclass(frozen=True)
class Settings:
    """The options of one contestant."""

    clip: str
    every: int
    frames: int
    """Sampled frames to do."""
    processes: int
    """Processes that share the work, for the limit; the pool of DeepFace always has two."""
    threads: int
    """Threads of one model session and of one decoder, for the limit; as the run itself sets them."""
    overrides: list[str]
    workflow: str = ""
    copies: int = 1
    """Copies of the clip, for the limit; each has that many sampled frames."""
    detector: str = "mtcnn"
    network: str = "Dlib"
    """DeepFace's model_name."""
    warm_up_clip: str = ""
    """Clip that `run_here` analyses first."""
    min_face: int = 20
    """Pixels, for the detector alone."""


Work = Callable[[Settings, Any], int]


def sampled_frames(settings: Settings) -> Iterator[Any]:
    """Yield every Nth frame, BGR, as users of DeepFace do; `grab` leaves out the colour conversion of the others."""
    import cv2

    capture = cv2.VideoCapture(settings.clip)
    for index in range(settings.frames * settings.every):
        if not capture.grab():
            break
        if index % settings.every == 0:
            yield capture.retrieve()[1]
    capture.release()


def ask(function: str, settings: Settings, frame: Any) -> int:
    """Call DeepFace's `represent`, or `analyze` for all four attributes; return the number of faces that it found.

    A face of confidence 0 means that it found none.
    """
    from deepface import DeepFace

    more: dict[str, Any] = {"silent": True} if function == "analyze" else {"model_name": settings.network}
    found = getattr(DeepFace, function)(frame, detector_backend=settings.detector, enforce_detection=False, **more)
    return sum(face["face_confidence"] > 0 for face in found)


def in_loop(work: Work, settings: Settings) -> Measured:
    work(settings, next(sampled_frames(settings)))
    began, cpu_began = time.perf_counter(), time.process_time()
    faces = [work(settings, frame) for frame in sampled_frames(settings)]
    return Measured(len(faces), time.perf_counter() - began, sum(faces), time.process_time() - cpu_began)


def in_threads(work: Work, settings: Settings) -> Measured:
    """Use two threads, and keep at most four frames waiting: submitting all at once would only cost memory."""
    work(settings, next(sampled_frames(settings)))
    began = time.perf_counter()
    waiting: list[Future[int]] = []
    faces = []
    with ThreadPoolExecutor(2) as pool:
        for frame in sampled_frames(settings):
            waiting.append(pool.submit(work, settings, frame))
            if len(waiting) >= 4:
                faces.append(waiting.pop(0).result())
        faces += [future.result() for future in waiting]
    return Measured(len(faces), time.perf_counter() - began, sum(faces))


def in_pool(work: Work, settings: Settings) -> Measured:
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(3)
    with context.Pool(2, initializer=_start_pool_worker, initargs=(work, settings, ready)) as pool:
        ready.wait()
        began = time.perf_counter()
        faces = list(pool.imap(partial(work, settings), sampled_frames(settings)))
        return Measured(len(faces), time.perf_counter() - began, sum(faces))


def _start_pool_worker(work: Work, settings: Settings, ready: Any) -> None:
    work(settings, next(sampled_frames(settings)))
    ready.wait()


def in_processes(work: Callable[..., None], settings: Settings) -> Measured:
    """Measure the limit: the same decoding or the same models alone, on as many processes as the run has.

    All processes start at once, when the last is ready; the slowest one's time counts.
    """
    context = multiprocessing.get_context("spawn")
    ready, results = context.Barrier(settings.processes), context.Queue()
    parts = range(settings.processes)
    children = [context.Process(target=work, args=(settings, part, ready, results)) for part in parts]
    for child in children:
        child.start()
    shares: list[Measured] = [results.get(timeout=1800) for _ in children]
    for child in children:
        child.join()
    faces = [share.faces for share in shares if share.faces is not None]
    slowest = max(share.seconds for share in shares)
    return Measured(sum(share.frames for share in shares), slowest, sum(faces) if faces else None)


def _share(settings: Settings, part: int) -> tuple[Any, Any, list[tuple[int, int]]]:
    """Return the workflow, the source, and this process's part of the chunks of all copies."""
    from pipeline.engine.workflow import load_workflow

    workflow = load_workflow(settings.workflow, settings.overrides)
    source, chunks = chunks_of(settings.clip, workflow, settings.frames)
    return workflow, source, (chunks * settings.copies)[part :: settings.processes]


def share_alone(part_of_run: str, settings: Settings, part: int, ready: Any, results: Any) -> None:
    """Decode this process's share, or run the workflow's own stages on its chunks decoded in memory.

    The memory holds as many chunks as fit into 1 GB; the stages see these again and again.
    """
    workflow, source, mine = _share(settings, part)
    frames, faces = sum(stop - start for start, stop in mine), None
    if part_of_run == "decode":
        ready.wait()
        began = time.perf_counter()
        for start, stop in mine:
            source.job(start, stop).decode(settings.threads)
    else:
        device = _device(settings, part)
        fit = max(1, int((1 << 30) // (source.item_bytes * max((stop - start for start, stop in mine), default=1))))
        decoded = [decoded_chunk(source, *bounds) for bounds in mine[:fit]]
        stages = [node.stage for node in workflow.stages]
        for stage in stages:
            stage.load(device)
        if decoded:
            after(decoded[0], *stages)
        ready.wait()
        began, faces = time.perf_counter(), 0
        for index in range(len(mine)):
            faces += int((after(decoded[index % len(decoded)], *stages)["confidence"] > 0).sum())
    results.put(Measured(frames, time.perf_counter() - began, faces))


def mtcnn_alone(in_graphs: bool, settings: Settings) -> Measured:
    """Run the detector alone on one chunk again and again, with its networks' inputs made in one of two ways."""
    from pipeline.faces.models.detectors.mtcnn import MtcnnDetector

    device = _device(settings, 0)
    _, source, chunks = _share(settings, 0)
    frames = decoded_chunk(source, *chunks[0]).frames_rgb
    detector = MtcnnDetector(device, settings.min_face, in_graphs=in_graphs)
    faces = len(detector.detect(frames).frame)
    began, done = time.perf_counter(), 0
    while done < settings.frames:
        detector.detect(frames)
        done += len(frames)
    return Measured(done, time.perf_counter() - began, faces)


def _device(settings: Settings, part: int) -> Any:
    """Return a share of the GPU that is this process's turn, as a worker of the run has it; the CPU if there is none.

    Pages of frames are locked as the run locks them.
    """
    from pipeline.cluster.starting import gpu_device
    from pipeline.machine.device import Device
    from pipeline.machine.gpus import card_bytes, share_bytes, visible_gpus
    from pipeline.machine.memory import MEMORY

    gpus = visible_gpus()
    MEMORY.lock_pages(bool(gpus))
    if not gpus:
        return Device("cpu", threads=settings.threads)
    per_gpu = -(-settings.processes // len(gpus))
    share = share_bytes(min(map(card_bytes, gpus)), per_gpu)
    return replace(gpu_device("cuda", share), index=part % len(gpus))


def run_here(settings: Settings) -> Measured:
    """Run `pipeline.run` over the whole clip, after one over another clip with the same workflow has loaded the models.

    The models stay loaded in between, as DeepFace keeps its own.
    """
    import pipeline

    with tempfile.TemporaryDirectory() as folder, patch("pipeline.cluster.execute.unload_stages", lambda: None):
        for number, clip in enumerate((settings.warm_up_clip, settings.clip)):
            out, cpu_began = Path(folder) / f"{number}.zarr", time.process_time()
            run = pipeline.run(settings.workflow, clip, out, set=settings.overrides, executor="inline")
        cpu_seconds = time.process_time() - cpu_began
        (item,) = run.inputs.values()
        # The faces that the networks saw.
        faces = item.array("analyzed").sum() if "analyzed" in item.arrays else len(item.array("face_frame"))
        return Measured(run.summary.frames, run.summary.seconds["run"], int(faces), cpu_seconds)


CONTESTANTS: dict[str, Callable[[Settings], Measured]] = {
    "deepface_loop": partial(in_loop, partial(ask, "represent")),
    "deepface_analyze": partial(in_loop, partial(ask, "analyze")),
    "deepface_threads": partial(in_threads, partial(ask, "represent")),
    "deepface_processes": partial(in_pool, partial(ask, "represent")),
    "run_here": run_here,
    "decode_alone": partial(in_processes, partial(share_alone, "decode")),
    "models_alone": partial(in_processes, partial(share_alone, "models")),
    "mtcnn_beforehand": partial(mtcnn_alone, False),
    "mtcnn_in_graphs": partial(mtcnn_alone, True),
}


if __name__ == "__main__":
    name, words = sys.argv[1:]
    if name.startswith("deepface"):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    print("\n" + json.dumps(asdict(CONTESTANTS[name](Settings(**json.loads(words))))))

"""Stores of faces that are made up: complete, without a video or a model behind them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.models.recognisers.thresholds import DEEPFACE_THRESHOLDS, thresholds
from pipeline.stages.base import Array
from pipeline.store.chunks import write_chunk
from pipeline.store.compact import compact
from pipeline.store.run import RunStore

FPS, EVERY = 25.0, 5
CHUNK_FRAMES = 64


def specs(dimension: int = 128) -> list[Array]:
    """What the stages detect and embed declare."""
    attributes = {
        "model": "Dlib", "align": "native", "thresholds": thresholds("Dlib", "native"),
        "deepface_thresholds": DEEPFACE_THRESHOLDS["Dlib"],
    }  # fmt: skip
    return [
        Array("n_faces", ("frame",), "int32"),
        Array("box", ("face", "side"), "float32", (4,), {"units": "pixel"}),
        Array("landmarks", ("face", "point", "axis"), "float32", (5, 2)),
        Array("confidence", ("face",), "float32"),
        Array("embedding", ("face", "component"), "float32", (dimension,), attributes),
    ]


def faces_of(
    n_faces: np.ndarray, embedding: np.ndarray, box: np.ndarray | None = None, **more: np.ndarray
) -> dict[str, np.ndarray]:
    """Arrays of an input: `n_faces` int (frames,), `embedding` float32 (faces, d), `box` float32 (faces, 4)."""
    n = int(n_faces.sum())
    if box is None:
        box = np.tile(np.array([100, 80, 60, 80], np.float32), (n, 1))
        box[:, 0] += 200 * (np.arange(n) - np.repeat(np.cumsum(n_faces) - n_faces, n_faces))
    at = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]], np.float32)
    landmarks = box[:, None, :2] + at * box[:, None, 2:]
    return {
        "n_faces": n_faces.astype(np.int32), "box": box.astype(np.float32), "landmarks": landmarks.astype(np.float32),
        "confidence": np.full(n, 0.99, np.float32), "embedding": embedding.astype(np.float32), **more,
    }  # fmt: skip


def people(n: int, faces_each: int, spread: float = 0.02, dimension: int = 128, seed: int = 0) -> np.ndarray:
    """float32 (n, faces_each, dimension): embeddings about as far apart as Dlib's (same 0.3, others 0.8)."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(0, 0.05, (n, 1, dimension)) + 0.06
    return (centre + rng.normal(0, spread, (n, faces_each, dimension))).astype(np.float32)


def make_store(
    out: Path,
    inputs: Mapping[str, Mapping[str, np.ndarray]],
    *,
    facts: Mapping[str, Any] | None = None,
    extra: tuple[Array, ...] = (),
    start_seconds: float = 0.0,
    done_chunks: int | None = None,
    chunk_frames: int = CHUNK_FRAMES,
    workflow: Mapping[str, Any] | None = None,
    paths: Mapping[str, Path] | None = None,
) -> Path:
    """A store whose inputs hold the given arrays (`faces_of`). With `done_chunks` only so many are written, and the
    inputs stay incomplete. `extra` declares arrays beyond those of detect and embed. `workflow`: what the store says
    that it was made by. `paths`: of the videos, where there are some."""
    with RunStore.open(out) as store:
        if workflow is not None:
            store.set_workflow(dict(workflow), [])
        for stem, arrays in inputs.items():
            declared = [*specs(arrays["embedding"].shape[1]), *extra]
            n = len(arrays["n_faces"])
            frame = np.arange(n, dtype=np.int64) * EVERY
            times = start_seconds + frame / FPS
            name = store.add_input(
                stem,
                {
                    "path": str((paths or {}).get(stem, f"/films/{stem}.mp4")), "fingerprint": stem, "width": 1280, "height": 720, "fps": FPS,
                    "every": EVERY, "duration_seconds": n * EVERY / FPS, "source_frames": n * EVERY, "frames": n,
                    "chunk_frames": chunk_frames, "decoder": "pyav", **(facts or {}),
                },
            )  # fmt: skip
            keys = {"detect": "key-d", "embed": "key-e"}
            store.input(name).update(stages={stage: {"key": key, "state": "partial"} for stage, key in keys.items()})
            boundaries = [(k, min(k + chunk_frames, n)) for k in range(0, n, chunk_frames)]
            starts = np.concatenate([[0], np.cumsum(arrays["n_faces"])])
            for index, (first, last) in enumerate(boundaries[:done_chunks]):
                part = slice(starts[first], starts[last])
                piece = {
                    spec.name: arrays[spec.name][first:last] if spec.dims[0] == "frame" else arrays[spec.name][part]
                    for spec in declared
                }
                piece |= {"frame": frame[first:last], "time_seconds": times[first:last]}
                piece["decoded"] = np.ones(last - first, bool)
                record = {
                    "state": "ok", "attempts": 1, "seconds": {}, "worker": "w", "error": None, "missing": [],
                    "stages": keys,
                }  # fmt: skip
                write_chunk(str(out), name, index, piece, declared, record)
            if done_chunks is None:
                compact(store, name, declared, boundaries, n)
    return out

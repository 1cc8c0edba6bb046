"""Stores of faces that are made up: complete, without a video or a model behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.faces.models.recognisers.thresholds import DEEPFACE_THRESHOLDS, thresholds
from pipeline.media.video.source import VideoSource
from pipeline.store.chunks import fail_chunk, write_chunk
from pipeline.store.compact import add_arrays, compact
from pipeline.store.record import Record
from pipeline.store.run import RunStore
from pipeline.store.schema import DECODED, Array, Axis, Schema

FPS, EVERY = 25.0, 5
ITEM_ARRAYS = (*VideoSource.arrays, DECODED)
KEYS = {"detect": "key-d", "embed": "key-e"}
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
    seconds: Mapping[str, float] | None = None,
    moments: Mapping[str, np.ndarray] | None = None,
    ranks: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """A store whose inputs hold the given arrays (`faces_of`). With `done_chunks` only so many are written, and the
    inputs stay incomplete. `extra` declares arrays beyond those of detect and embed. `workflow`: what the store says
    that it was made by. `paths`: of the videos, where there are some. `seconds`: what each chunk took, by step.
    `moments`: times of the frames of inputs, in place of 25 frames a second. `ranks`: int64, their numbers in the file,
    in place of every 5th."""
    with RunStore.open(out) as store:
        if workflow is not None:
            store.set_workflow(dict(workflow), [])
        for stem, arrays in inputs.items():
            declared = [*specs(arrays["embedding"].shape[1]), *extra]
            n = len(arrays["n_faces"])
            frame = (ranks or {}).get(stem, np.arange(n, dtype=np.int64) * EVERY)
            times = (moments or {}).get(stem, start_seconds + frame / FPS)
            name = store.add_input(
                stem,
                {
                    "path": str((paths or {}).get(stem, f"/films/{stem}.mp4")),
                    "fingerprint": stem, "width": 1280, "height": 720, "fps": FPS,
                    "every": EVERY, "duration_seconds": n * EVERY / FPS, "source_frames": n * EVERY, "frames": n,
                    "chunk_frames": chunk_frames, "decoder": "pyav", **(facts or {}),
                },
            )  # fmt: skip
            store.input(name).update(stages={stage: {"key": key, "state": "partial"} for stage, key in KEYS.items()})
            schema = _schema(declared)
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
                write_chunk(
                    str(out), name, index, piece, (*ITEM_ARRAYS, *declared),
                    Record("ok", KEYS, worker="w", seconds=seconds or {}), schema,
                    items=last - first, flush=False,
                )  # fmt: skip
            if done_chunks is None:
                close(store, name, n, declared, chunk_frames=chunk_frames, times=times, frame=frame)
    return out


def close(
    store: RunStore,
    name: str,
    n_frames: int,
    declared: Sequence[Array] = (),
    *,
    chunk_frames: int = CHUNK_FRAMES,
    times: np.ndarray | None = None,
    frame: np.ndarray | None = None,
) -> None:
    """Compact an input whose chunks are all written; `declared`: arrays of its stages (`specs()`)."""

    def values(start: int, stop: int) -> dict[str, np.ndarray]:
        ranks = np.arange(start, stop, dtype=np.int64) * EVERY if frame is None else frame[start:stop]
        return {"frame": ranks, "time_seconds": ranks / FPS if times is None else times[start:stop]}

    compact(store, name, _schema(declared or specs()), n_frames, chunk_frames, values)


def _schema(declared: Sequence[Array]) -> Schema:
    return Schema("frame", ITEM_ARRAYS, (Axis("face"),), tuple(declared))


@dataclass(frozen=True)
class Film:
    """A made-up film: who is in which frame, and what they look like."""

    arrays: dict[str, np.ndarray]
    """As `make_store` takes them."""
    extra: tuple[Array, ...]
    person: np.ndarray
    """int32 (faces,): from 1; -1 for passers-by."""


CLASSES = {
    "gender": ("Woman", "Man"),
    "emotion": ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"),
    "race": ("asian", "indian", "black", "white", "middle eastern", "latino hispanic"),
    "real": ("2D spoof", "real", "3D spoof"),
}


def film(
    n_frames: int, n_people: int, *, seed: int = 0, names: Mapping[int, str] | None = None,
    attributes: tuple[str, ...] = ("age", *CLASSES), people: bool = True,
) -> Film:  # fmt: skip
    """Scenes of up to five people and of passers-by, some in far more of them than others. No people: no face."""
    rng = np.random.default_rng(seed)
    frames, person = _scenes(rng, n_frames, n_people)
    n = len(frames)
    n_faces = np.bincount(frames, minlength=n_frames)
    size = rng.lognormal(4.4, 0.5, n)
    box = np.stack([rng.uniform(0, 1000, n), rng.uniform(0, 500, n), size, 1.25 * size], axis=1)
    more: dict[str, np.ndarray] = {"confidence": 1 - rng.beta(1, 12, n)}
    extra: list[Array] = []
    if people:
        about = {
            "registry": "../people.json",
            "registry_id": "made-up",
            "names": {str(k): v for k, v in (names or {}).items()},
        }
        more |= {"track": _tracks(frames, person), "person": person}
        extra += [Array("track", ("face",), "int32"), Array("person", ("face",), "int32", (), about)]
    if "age" in attributes:
        more["age"] = rng.uniform(15, 75, n_people + 1)[person] + rng.normal(0, 4, n)
        extra.append(Array("age", ("face",), "float32", (), {"units": "year", "model": "Age"}))
    for name in (name for name in CLASSES if name in attributes):
        more[name] = _shares(rng, name, frames, person, n_people)
        k = len(CLASSES[name])
        about = {"class_names": list(CLASSES[name]), "model": name.title(), "units": "1"}
        extra.append(Array(name, ("face", f"{name}_class"), "float32", (k,), about))
    return Film(faces_of(n_faces, np.zeros((n, 8), np.float32), box, **more), tuple(extra), person)


def _scenes(rng: np.random.Generator, n_frames: int, n_people: int) -> tuple[np.ndarray, np.ndarray]:
    """int64 (faces,) ascending: the frame of each face; int32 (faces,): the person, -1 unknown."""
    if n_people == 0:
        return np.empty(0, np.int64), np.empty(0, np.int32)
    weight = 1 / np.arange(1, n_people + 1)
    found: list[tuple[np.ndarray, np.ndarray]] = []
    start = 0
    while start < n_frames:
        stop = min(n_frames, start + int(rng.integers(60, 450)))
        cast = rng.choice(n_people, min(n_people, int(rng.integers(0, 6))), replace=False, p=weight / weight.sum()) + 1
        for who in [*cast.tolist(), *([-1] if rng.random() < 0.3 else [])]:
            first, last = sorted(rng.integers(start, stop + 1, 2).tolist())
            seen = np.arange(first, last)[rng.random(last - first) < 0.93]
            found.append((seen, np.full(len(seen), who, np.int32)))
        start = stop
    frames, person = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.argsort(frames, kind="stable")
    return frames[order], person[order]


def _tracks(frames: np.ndarray, person: np.ndarray) -> np.ndarray:
    """int32 (faces,): one track per person and minute or so; -1 for passers-by."""
    _, track = np.unique(frames // 300 * 1000 + person, return_inverse=True)
    return np.where(person < 0, -1, track).astype(np.int32)


def _shares(rng: np.random.Generator, name: str, frames: np.ndarray, person: np.ndarray, n_people: int) -> np.ndarray:
    """float32 (faces, classes): of each person's own, emotions changing over time too; NaN for one face in fifty."""
    k = len(CLASSES[name])
    likely = rng.dirichlet(np.full(k, 0.35), n_people + 1)
    if name == "real":
        likely[:, 1] += 8
    if name == "emotion":
        waves = 1 + np.sin(frames[:, None] / 2500 + 2 * np.pi * np.arange(k) / k)
    shares = likely[person] * (waves if name == "emotion" else 1) + rng.exponential(0.04, (len(frames), k))
    shares /= shares.sum(axis=1, keepdims=True)
    shares[rng.random(len(frames)) < 0.02] = np.nan
    return shares.astype(np.float32)


def add_shots(out: Path, name: str, pictures: Mapping[int, np.ndarray]) -> None:
    """Best shots of people: uint8 (n, 96, 96, 3) by person, of the first faces they have in the store."""
    with RunStore.open(out) as store:
        person = store.input(name).read_rows("person", 0, None)
        faces = np.concatenate([np.flatnonzero(person == who)[: len(shots)] for who, shots in pictures.items()])
        add_arrays(
            store, name,
            [
                Array("thumbnail", ("shot", "y", "x", "colour"), "uint8", (96, 96, 3)),
                Array("thumbnail_face", ("shot",), "int64"),
            ],
            {"thumbnail": np.concatenate(list(pictures.values())), "thumbnail_face": faces},
        )  # fmt: skip


def fail(out: Path, name: str, index: int, error: str, chunk_frames: int = CHUNK_FRAMES) -> None:
    """Record a chunk of a half-done input as failed."""
    start = index * chunk_frames
    record = Record(
        "failed", attempts=3, step="decode", error=error, items=(start, start + chunk_frames), tried=KEYS,
        time_seconds=(start * EVERY / FPS, (start + chunk_frames - 1) * EVERY / FPS),
    )  # fmt: skip
    fail_chunk(str(out), name, index, record, flush=False)

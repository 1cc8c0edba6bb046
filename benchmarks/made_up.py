"""An archive of made-up faces: stores with embeddings like Dlib's, and pictures of the people in them.

A picture is one grey level per person; two stages find and embed it, so that `reelgraph find --face` runs as it does on
photographs, but for the time of the models.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from pipeline import Array, Chunk, Stage, StageOptions
from pipeline.faces.models.recognisers.thresholds import DEEPFACE_THRESHOLDS, thresholds
from pipeline.faces.stages.detect import Detect
from pipeline.media.video.source import VideoSource
from pipeline.store.chunks import write_chunk
from pipeline.store.compact import compact
from pipeline.store.record import Record
from pipeline.store.run import RunStore
from pipeline.store.schema import DECODED, Axis, Schema

DIMENSION = 128
FPS, EVERY = 25.0, 5
FACES_PER_FRAME = 2
CAST = 40
"""Number of people in one input."""
STRETCH = 100
"""Sampled frames for which a face stays on screen: 20 s."""
SPREAD, DRIFT = 0.014, 0.014
"""Deviation of the faces of one stretch, and of the stretches of one person: about 0.3 apart in all, as Dlib's."""
SIDE = 64


def centre(person: int) -> np.ndarray:
    """Return float32 (128,): two people's lie about 0.8 apart, as Dlib's."""
    return (np.random.default_rng(person).normal(0, 0.05, DIMENSION) + 0.06).astype(np.float32)


def picture(person: int) -> np.ndarray:
    """Return uint8 (64, 64, 3), with the person in two of its channels."""
    shown = np.full((SIDE, SIDE, 3), 255, np.uint8)
    shown[..., 0], shown[..., 1] = person % 256, person // 256
    return shown


class FindWhole(Stage):
    """Find one face: the whole picture."""

    needs = ("frames_rgb",)
    outputs = Detect.outputs

    def run(self, chunk: Chunk) -> dict[str, np.ndarray]:
        n = len(chunk.frame)
        box = np.array([[0, 0, frame.shape[1], frame.shape[0]] for frame in chunk.frames_rgb], np.float32)
        landmarks = np.full((n, 5, 2), np.nan, np.float32)
        confidence = np.ones(n, np.float32)
        return {"n_faces": np.ones(n, np.int32), "box": box, "landmarks": landmarks, "confidence": confidence}


class EmbedOptions(StageOptions):
    model: str = Field("Dlib")


class EmbedPerson(Stage):
    """Embed a new photograph of the person in the picture."""

    needs = ("frames_rgb", "n_faces", "box")
    Options = EmbedOptions
    outputs = (
        Array(
            "embedding", ("face", "component"), "float32", (DIMENSION,),
            {"model": "Dlib", "align": "native", "thresholds": thresholds("Dlib", "native"),
             "deepface_thresholds": DEEPFACE_THRESHOLDS["Dlib"]},
        ),
    )  # fmt: skip

    def run(self, chunk: Chunk) -> dict[str, np.ndarray]:
        people = [int(frame[0, 0, 0]) + 256 * int(frame[0, 0, 1]) for frame in chunk.frames_rgb]
        return {"embedding": np.array([photographed(person) for person in people], np.float32)}


def photographed(person: int) -> np.ndarray:
    """Return the embedding of a photograph that is in no film."""
    return centre(person) + np.random.default_rng(10**6 + person).normal(0, 0.02, DIMENSION)


WORKFLOW: dict[str, Any] = {
    "source": {"kind": "video", "every": EVERY},
    "stages": {
        "detect": {"use": "made_up:FindWhole", "after": []},
        "embed": {"use": "made_up:EmbedPerson", "after": ["detect"], "model": "Dlib"},
    },
}


def cast_of(number: int, people: int) -> np.ndarray:
    """Return int64 (40,): the people of a film."""
    return np.random.default_rng(10**7 + number).choice(people, min(CAST, people), replace=False)


def faces_of(number: int, n_faces: int, people: int) -> dict[str, np.ndarray]:
    """Return the arrays of one input: two faces in each frame, each of one person of its cast for a stretch of time."""
    rng = np.random.default_rng(2 * 10**7 + number)
    frames = -(-n_faces // FACES_PER_FRAME)
    centres = np.stack([centre(person) for person in cast_of(number, people).tolist()])
    stretches = -(-frames // STRETCH)
    who = rng.integers(0, len(centres), (stretches, FACES_PER_FRAME))
    drift = rng.normal(0, DRIFT, (stretches, FACES_PER_FRAME, DIMENSION)).astype(np.float32)
    at = np.arange(frames) // STRETCH
    embedding = rng.standard_normal((frames, FACES_PER_FRAME, DIMENSION), dtype=np.float32) * np.float32(SPREAD)
    embedding += centres[who[at]] + drift[at]
    n = frames * FACES_PER_FRAME
    return {
        "frame": np.arange(frames, dtype=np.int64) * EVERY,
        "time_seconds": np.arange(frames) * EVERY / FPS,
        "decoded": np.ones(frames, bool),
        "n_faces": np.full(frames, FACES_PER_FRAME, np.int32),
        "box": np.tile(np.array([[100, 80, 60, 80], [400, 80, 60, 80]], np.float32), (frames, 1)),
        "landmarks": np.zeros((n, 5, 2), np.float32),
        "confidence": np.ones(n, np.float32),
        "embedding": embedding.reshape(n, DIMENSION),
    }


def make_archive(out: Path, n_faces: int, faces_per_input: int, people: int) -> None:
    """Write a store of `n_faces` (about), in inputs of `faces_per_input`; those that it has are kept."""
    specs = (*Detect.outputs, *EmbedPerson.outputs)
    schema = Schema("frame", (*VideoSource.arrays, DECODED), (Axis("face"),), specs)
    keys = {"detect": "made-up", "embed": "made-up"}
    with RunStore.open(out) as store:
        store.set_workflow(WORKFLOW, [])
        for number in range(len(store.input_names()), -(-n_faces // faces_per_input)):
            arrays = faces_of(number, min(faces_per_input, n_faces - number * faces_per_input), people)
            n = len(arrays["frame"])
            name = store.add_input(
                f"film{number:05d}",
                {"path": f"/films/{number}.mp4", "fingerprint": f"made up {number}", "width": 1280, "height": 720,
                 "fps": FPS, "every": EVERY, "duration_seconds": n * EVERY / FPS, "source_frames": n * EVERY,
                 "frames": n, "chunk_frames": n, "decoder": "pyav"},
            )  # fmt: skip
            store.input(name).update(stages={stage: {"key": key, "state": "partial"} for stage, key in keys.items()})
            written = (*schema.item_arrays, *specs)
            write_chunk(str(out), name, 0, arrays, written, Record("ok", keys), schema, items=n, flush=False)
            compact(store, name, schema, n, n, partial(_frames_of, arrays))


def _frames_of(arrays: dict[str, np.ndarray], start: int, stop: int) -> dict[str, np.ndarray]:
    return {array.name: arrays[array.name][start:stop] for array in VideoSource.arrays}

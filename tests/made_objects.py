"""Stores without a face that are made up: objects in videos and in images, and features of images alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.store.chunks import write_chunk
from pipeline.store.compact import compact
from pipeline.store.record import Record
from pipeline.store.run import RunStore
from pipeline.store.schema import DECODED, Array, Axis, Schema

LENGTH = 16
CLASSES = ["car", "dog", "traffic light"]
VIDEO = (Array("frame", ("frame",), "int64"), Array("time_seconds", ("frame",), "float64"))
IMAGES = (Array("name", ("frame",), "string"),)
OBJECTS = (
    Array("n_objects", ("frame",), "int32"),
    Array("box", ("object", "xywh"), "float32", (4,), place="xywh"),
    Array("class", ("object",), "int32", (), {"class_names": CLASSES}),
    Array("score", ("object",), "float32"),
    Array("track", ("object",), "int32"),
    Array("embedding", ("object", "component"), "float32", (40,)),
)
FEATURES = (
    Array("brightness", ("frame",), "float32"),
    Array("colour", ("frame", "channel"), "float32", (3,)),
    Array("feature", ("frame", "component"), "float16", (64,)),
)


def truth(n: int, *, timed: bool = True, seed: int = 0) -> dict[str, np.ndarray]:
    """Every array of an input of `n` items."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 4, n).astype(np.int32)
    rows = int(counts.sum())
    where: dict[str, Any] = {"name": np.array([f"köln/{k:05d}.jpg" for k in range(n)], object)}
    if timed:
        where = {"frame": np.arange(n) * 5, "time_seconds": np.arange(n) / 3}
    return {
        **where, "decoded": np.ones(n, bool), "n_objects": counts,
        "box": rng.uniform(0, 500, (rows, 4)).astype(np.float32), "class": rng.integers(0, 3, rows).astype(np.int32),
        "score": np.where(rng.random(rows) < 0.1, np.nan, rng.random(rows)).astype(np.float32),
        "track": rng.integers(-1, 9, rows).astype(np.int32),
        "embedding": rng.normal(size=(rows, 40)).astype(np.float32),
        "brightness": rng.random(n).astype(np.float32), "colour": rng.random((n, 3)).astype(np.float32),
        "feature": rng.normal(size=(n, 64)).astype(np.float16),
    }  # fmt: skip


def make_objects(
    out: Path, n: int = 40, *, inputs: tuple[str, ...] = ("street",), timed: bool = True,
    done_chunks: int | None = None, arrays: tuple[Array, ...] = OBJECTS, made: dict[str, np.ndarray] | None = None,
    of_film: Mapping[str, Any] | None = None,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Write a store of the given arrays; return what is in it. With `done_chunks` the inputs stay incomplete.

    `made`: values in place of random ones; `of_film`: facts of a film that there is.
    """
    made, where = made or truth(n, timed=timed), VIDEO if timed else IMAGES
    axes = (Axis("object"),) if arrays[0].name == "n_objects" else ()
    schema = Schema("frame", (*where, DECODED), axes, arrays)
    starts = np.concatenate([[0], np.cumsum(made["n_objects"])])
    facts = {"duration_seconds": n / 3, "fps": 15.0, "width": 640, "height": 480, "source_frames": 5 * n, "every": 5}
    with RunStore.open(out) as store:
        for stem in inputs:
            known = {"path": f"/films/{stem}", "fingerprint": stem, "frames": n, "chunk_frames": LENGTH}
            name = store.add_input(stem, {**known, **(facts if timed else {}), **(of_film or {})})
            store.input(name).update(stages={"objects": {"key": "key", "state": "partial"}})
            for index, first in enumerate(range(0, n, LENGTH)[:done_chunks]):
                last = min(first + LENGTH, n)
                rows = slice(starts[first], starts[last])
                specs = (*schema.item_arrays, *arrays)
                part = {s.name: made[s.name][first:last] if s.dims[0] == "frame" else made[s.name][rows] for s in specs}
                record = Record("ok", {"objects": "key"})
                write_chunk(str(out), name, index, part, specs, record, schema, items=last - first, flush=False)
            if done_chunks is None:
                compact(
                    store, name, schema, n, LENGTH,
                    values=lambda a, b: {array.name: made[array.name][a:b] for array in where},
                )  # fmt: skip
    return made

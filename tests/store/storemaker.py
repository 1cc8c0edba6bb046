"""Stores with known contents, for the tests and for the processes that they start and kill."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.store.chunks import FRAME_ARRAYS, write_chunk
from pipeline.store.run import RunStore
from pipeline.store.schema import Array

LENGTH = 8
N_FRAMES = 29
BOUNDARIES = [(k, min(k + LENGTH, N_FRAMES)) for k in range(0, N_FRAMES, LENGTH)]
DETECT = (
    Array("n_faces", ("frame",), "int32"),
    Array("box", ("face", "side"), "float32", (4,), {"units": "pixel"}),
    Array("landmarks", ("face", "point", "axis"), "float32", (5, 2)),
    Array("confidence", ("face",), "float32"),
)
EMBED = (Array("embedding", ("face", "feature"), "float32", (6,)),)
SHARP = (Array("sharpness", ("face",), "float32"), Array("scene", ("frame",), "int32"))
OLD = (*DETECT, *EMBED)
FRAME = np.arange(N_FRAMES, dtype=np.int64) * 5
TIME = FRAME / 25.0
FACTS = {"path": "/films/clip.mp4", "chunk_frames": LENGTH, "source_frames": N_FRAMES * 5, "every": 5, "fps": 25.0}


def truth() -> dict[str, np.ndarray]:
    """Every array of the whole input. Chunk 1 has no face, chunk 2's faces are all zero (equal to Zarr's fill)."""
    rng = np.random.default_rng(7)
    n_faces = rng.integers(0, 4, N_FRAMES).astype(np.int32)
    n_faces[LENGTH : 2 * LENGTH] = 0
    n = int(n_faces.sum())
    face_frame = np.repeat(np.arange(N_FRAMES), n_faces)
    zero = (face_frame >= 2 * LENGTH) & (face_frame < 3 * LENGTH)
    faces = {spec.name: rng.random((n, *spec.shape), np.float32) for spec in (*DETECT[1:], *EMBED, SHARP[0])}
    for array in faces.values():
        array[zero] = 0
    faces["landmarks"][::3] = np.nan
    scene = rng.integers(0, 9, N_FRAMES).astype(np.int32)
    decoded = np.ones(N_FRAMES, bool)
    decoded[3] = False
    return {
        "frame": FRAME, "time_seconds": TIME, "decoded": decoded, "n_faces": n_faces,
        "face_frame": face_frame, "scene": scene, **faces,
    }  # fmt: skip


TRUTH = truth()


def arrays_of(index: int, specs: tuple[Array, ...] = OLD) -> dict[str, np.ndarray]:
    """The arrays of one chunk: what workers would write."""
    start, stop = BOUNDARIES[index]
    faces = (TRUTH["face_frame"] >= start) & (TRUTH["face_frame"] < stop)
    found = {name: TRUTH[name][start:stop] for name in ("frame", "time_seconds", "decoded")}
    for spec in specs:
        found[spec.name] = TRUTH[spec.name][start:stop] if spec.dims[0] == "frame" else TRUTH[spec.name][faces]
    return found


def record(**changes: Any) -> dict[str, Any]:
    return {
        "state": "ok", "attempts": 1, "seconds": {"decode": 0.5}, "worker": "w0", "error": None, "missing": [],
        "stages": {"detect": "key-d", "embed": "key-e"}, **changes,
    }  # fmt: skip


def write(out: Path | str, name: str, index: int, specs: tuple[Array, ...] = OLD, **changes: Any) -> None:
    write_chunk(str(out), name, index, arrays_of(index, specs), specs, record(**changes))


def write_all(
    out: Path | str, name: str, specs: tuple[Array, ...] = OLD, n_chunks: int = len(BOUNDARIES), **changes: Any
) -> None:
    for index in range(n_chunks):
        write(out, name, index, specs, **changes)


def set_up(store: RunStore, stem: str = "clip") -> str:
    """Add the input as a run would."""
    name = store.add_input(stem, FACTS | {"path": f"/films/{stem}.mp4"})
    stages = {"detect": {"key": "key-d", "state": "running"}, "embed": {"key": "key-e", "state": "running"}}
    store.input(name).update(stages=stages)
    return name


def compacted(out: Path | str, name: str) -> dict[str, np.ndarray]:
    """All arrays of a complete input as zarr itself reads them."""
    import zarr

    group = zarr.open_group(str(out), path=name, mode="r", use_consolidated=False)
    return {key: array[...] for key, array in group.arrays()}


def assert_equal(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert sorted(found) == sorted(wanted)
    for key, array in wanted.items():
        assert found[key].dtype == array.dtype, key
        np.testing.assert_array_equal(found[key], array, err_msg=key)


def expected(*specs: Array, n_frames: int = N_FRAMES) -> dict[str, np.ndarray]:
    """What a compacted input of the first frames must hold."""
    n_items = {"frame": n_frames, "face": int(TRUTH["n_faces"][:n_frames].sum())}
    wanted = (*FRAME_ARRAYS, Array("face_frame", ("face",), "int64"), *specs)
    return {spec.name: TRUTH[spec.name][: n_items[spec.dims[0]]] for spec in wanted}


def files_of(folder: Path) -> dict[str, str]:
    """Digest of every file below a folder, by relative path."""
    paths = [Path(root) / name for root, _, names in os.walk(folder) for name in names]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}

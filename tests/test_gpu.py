"""Whole runs on GPUs beside the same run on the CPU. The comparison itself also runs without a GPU, CPU against CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import pipeline
from pipeline.faces.models import create_embedder
from pipeline.faces.models.base import Faces
from pipeline.machine.device import Device
from tests.devices import GPU_PIXELS, GPU_TOLERANCE, matched

FRAMES = 100
PER_PIXEL = 0.05
"""How much a number of a vector may change for a chip that lies a pixel aside, on the CPU alone: landmarks moved at
random by 0.001, 0.01, 0.2 and 1 pixel gave differences of up to 0.0008, 0.0013, 0.008 and 0.028."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photographed face that drifts and leaves; more than one chunk of 64 frames."""
    photograph = pytest.importorskip("skimage.data").astronaut()
    path = tmp_path_factory.mktemp("clips") / "drift.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for number in range(FRAMES):
            left, top = (min(192, 40 + number), number // 3) if number < 80 else (192, 272)
            picture = np.ascontiguousarray(photograph[top : top + 240, left : left + 320])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def on_the_cpu(clip: Path, workflows: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Every frame, in this process."""
    out = tmp_path_factory.mktemp("runs") / "cpu.zarr"
    done = pipeline.run(workflows / "faces.yaml", clip, out, executor="inline", set={"source.every": 1})
    assert done.summary.exit_code == 0
    counts = done.array("drift", "n_faces")
    assert counts[:80].min() >= 1
    assert counts[-10:].max() == 0
    return done


def assert_agrees(found: Any, expected: Any, exact: bool) -> None:
    """Frames, times and numbers of faces are equal; faces are matched by overlap."""
    for name in ("frame", "time_seconds", "decoded", "n_faces"):
        np.testing.assert_array_equal(found.array("drift", name), expected.array("drift", name), err_msg=name)
    ours, theirs = (
        {name: run.array("drift", name) for name in ("face_frame", "box", "landmarks", "confidence", "embedding")}
        for run in (found, expected)
    )
    if exact:
        for name, values in theirs.items():
            np.testing.assert_array_equal(ours[name], values, err_msg=name)
        return
    for frame in np.unique(theirs["face_frame"]):
        mine, other = ours["face_frame"] == frame, np.flatnonzero(theirs["face_frame"] == frame)
        rows = other[matched(ours["box"][mine], theirs["box"][other])]
        for name, allowed in (("box", GPU_PIXELS), ("landmarks", GPU_PIXELS), ("confidence", GPU_TOLERANCE)):
            np.testing.assert_allclose(ours[name][mine], theirs[name][rows], atol=allowed, err_msg=f"{name}, {frame}")
        moved = np.abs(ours["landmarks"][mine] - theirs["landmarks"][rows]).max(axis=(1, 2))
        difference = np.abs(ours["embedding"][mine] - theirs["embedding"][rows]).max(axis=1)
        assert (difference <= GPU_TOLERANCE + PER_PIXEL * moved).all(), frame


@pytest.mark.slow
@pytest.mark.parametrize("per_gpu", [1, 2])
def test_a_run_of_workers_agrees_with_one_in_this_process(
    device: Device, per_gpu: int, on_the_cpu: Any, clip: Path, workflows: Path, tmp_path: Path
) -> None:
    if (device.kind, per_gpu) == ("cpu", 1):
        pytest.skip("one worker on a CPU is no news: see tests/test_run.py")
    workers = {"workers": per_gpu} if device.kind == "cpu" else {"workers_per_gpu": per_gpu}
    done = pipeline.run(
        workflows / "faces.yaml",
        clip,
        tmp_path / "out.zarr",
        set={"source.every": 1},
        device=device.kind,
        **workers,
    )
    assert done.summary.exit_code == 0, done.summary.failures
    assert done.summary.device == device.kind
    assert_agrees(done, on_the_cpu, exact=device.kind == "cpu")


@pytest.mark.gpu
def test_chips_of_one_kind_give_the_same_vectors(gpu: Device, on_the_cpu: Any) -> None:
    """Where chips are equal, vectors agree to a thousandth, number by number."""
    photograph = pytest.importorskip("skimage.data").astronaut()[None]
    place = on_the_cpu.array("drift", "box")[:1], on_the_cpu.array("drift", "landmarks")[:1]
    face = Faces(np.zeros(1, np.int64), *place, np.ones(1, np.float32))
    vectors = []
    for device in (Device(), gpu):
        embedder = create_embedder("Dlib", device)
        vectors.append(embedder.embed(embedder.chips(photograph, face)))
    np.testing.assert_allclose(vectors[1], vectors[0], rtol=0, atol=GPU_TOLERANCE)

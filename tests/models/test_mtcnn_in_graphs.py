"""mtcnn whose graphs make what they see, as on a GPU: the same as what numpy and OpenCV make beforehand."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ModelError
from pipeline.faces.models.base import Faces
from pipeline.faces.models.detectors.base import border
from pipeline.faces.models.detectors.mtcnn import MtcnnDetector
from pipeline.faces.models.detectors.mtcnn_sight import Buffers, MadeBeforehand, MadeInGraphs, Part, Picture, in_one
from pipeline.faces.models.detectors.pyramid import averaging, level_sizes
from pipeline.machine.device import Device
from pipeline.models.session import run_bound, uploaded
from tests.devices import GPU_PIXELS, GPU_TOLERANCE, matched, tolerance

from .conftest import read_rgb

GROUPS = ("oar_test_image", "ul_02", "ul_05", "ul_21", "no-faces")
PIXELS = 1e-2
"""Of boxes and landmarks: one order of summation or another."""


@pytest.fixture(scope="module")
def beforehand() -> MtcnnDetector:
    return MtcnnDetector(Device(), in_graphs=False)


@pytest.fixture(scope="module")
def in_graphs(device: Device) -> MtcnnDetector:
    return MtcnnDetector(device, in_graphs=True)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape) + shape[-2]).integers(0, 256, shape, np.uint8)


def assert_same(ours: Faces, theirs: Faces, device: Device) -> None:
    np.testing.assert_array_equal(ours.frame, theirs.frame)
    for frame in np.unique(theirs.frame):
        mine = ours.frame == frame
        rows = np.flatnonzero(theirs.frame == frame)
        if device.kind != "cpu":  # scores a hair apart may change places
            rows = rows[matched(ours.box[mine], theirs.box[rows])]
        for name, allowed in (("box", PIXELS), ("landmarks", PIXELS), ("confidence", 1e-4)):
            scale = 1 if name == "confidence" else GPU_PIXELS / GPU_TOLERANCE
            found, expected = getattr(ours, name)[mine], getattr(theirs, name)[rows]
            np.testing.assert_allclose(found, expected, atol=tolerance(device, allowed, scale), err_msg=name)


def overlap_of(cells: int, pixels: int) -> np.ndarray:
    """float64 (cells, pixels): how much of each cell is of each pixel."""
    edge = np.arange(cells + 1) * (pixels / cells)
    covered = np.minimum(edge[1:, None], np.arange(pixels) + 1) - np.maximum(edge[:-1, None], np.arange(pixels))
    return np.maximum(covered, 0) * (cells / pixels)


@pytest.mark.parametrize(
    ("cells", "pixels", "first", "count"), [(648, 1080, 0, 648), (37, 500, 5, 20), (12, 12, 0, 12)]
)
def test_averaging_is_by_area(cells: int, pixels: int, first: int, count: int) -> None:
    made = averaging(cells, pixels, None, first, count)
    lines = np.random.default_rng(1).uniform(0, 255, (pixels, 7))
    found = np.einsum("bcp,bpk->bck", made.share, lines[made.index]).reshape(-1, 7)
    expected = overlap_of(cells, pixels)[first : first + count] @ lines
    assert len(found) == made.cells
    np.testing.assert_allclose(found[:count], expected, rtol=1e-4)
    assert not found[count:].any()


@pytest.mark.parametrize("size", [(200, 300), (41, 13), (64, 64), (150, 77)])
@pytest.mark.parametrize("black", [False, True])
def test_a_level_in_the_graph(
    in_graphs: MtcnnDetector, beforehand: MtcnnDetector, device: Device, size: tuple[int, int], black: bool
) -> None:
    """Every cell's logit and offsets, with the limit so low that none is left out."""
    pictures = [Picture(frame, border(frame) if black else None) for frame in noise(2, *size, 3)]
    before = MadeBeforehand(beforehand._sessions, pictures, Buffers())
    inside = MadeInGraphs(in_graphs._sessions, pictures, device)
    height, width = pictures[0].size
    for _, rows, columns in level_sizes(width, height, 20, 0.709):
        part = Part.around(pictures[0].cells(rows, columns), rows, columns)
        expected, found = (seen.level(range(2), part, -1e9)(0, part.height) for seen in (before, inside))
        for name in ("frame", "row", "column"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        np.testing.assert_allclose(found.values, expected.values, atol=tolerance(device, 2e-3, 20))


@pytest.mark.parametrize("network", ["rnet", "onet"])
@pytest.mark.parametrize("black", [False, True])
def test_patches_in_the_graph(
    in_graphs: MtcnnDetector, beforehand: MtcnnDetector, device: Device, network: str, black: bool
) -> None:
    """Of boxes inside, across every edge, and outside."""
    pictures = [Picture(frame, border(frame) if black else None) for frame in noise(3, 61, 90, 3)]
    random = np.random.default_rng(2)
    start, side = random.uniform(-60, 160, (400, 2)), random.uniform(1, 90, (400, 1))
    corners = np.concatenate([start, start + side], axis=1)
    frame = np.sort(random.integers(0, 3, 400))
    before = MadeBeforehand(beforehand._sessions, pictures, Buffers()).refined(network, frame, corners)
    inside = MadeInGraphs(in_graphs._sessions, pictures, device).refined(network, frame, corners)
    assert len(before) == len(inside) == (2 if network == "rnet" else 3)
    for ours, theirs in zip(inside, before, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=tolerance(device, 1e-3, 20))


def test_the_same_faces(
    in_graphs: MtcnnDetector, beforehand: MtcnnDetector, device: Device, astronaut: np.ndarray, grace_hopper: np.ndarray
) -> None:
    """Of frames of several sizes, too small ones among them."""
    frames = [astronaut, astronaut[::-1], astronaut[:9, :200], grace_hopper, grace_hopper[:, ::-1], astronaut]
    expected = beforehand.detect(frames)
    assert sorted(set(expected.frame.tolist())) == [0, 3, 4, 5]
    assert_same(in_graphs.detect(frames), expected, device)
    assert_same(in_graphs.padded_areas(frames), beforehand.padded_areas(frames), device)
    assert_same(in_graphs.areas(frames[:1]), beforehand.areas(frames[:1]), device)


def test_the_same_faces_in_groups(
    in_graphs: MtcnnDetector, beforehand: MtcnnDetector, device: Device, data_dir: Path
) -> None:
    frames = [read_rgb(data_dir / "faces" / "groups" / f"{name}.jpg") for name in GROUPS]
    expected = beforehand.detect(frames)
    assert len(expected.frame) >= 15
    assert_same(in_graphs.detect(frames), expected, device)


@pytest.mark.parametrize("memory", [1 << 20, 8 << 20])
def test_results_do_not_depend_on_memory(
    in_graphs: MtcnnDetector, device: Device, astronaut: np.ndarray, memory: int
) -> None:
    """Little memory takes frames one by one, in strips, and few candidates at a time."""
    lean = MtcnnDetector(dataclasses.replace(device, batch_memory_bytes=memory), in_graphs=True)
    frames = np.stack([astronaut, astronaut[:, ::-1], astronaut])
    assert_same(lean.detect(frames), in_graphs.detect(frames), device)


def test_out_of_memory_halves_the_frames(
    in_graphs: MtcnnDetector, device: Device, astronaut: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.faces.models.detectors import mtcnn
    from pipeline.models import session

    monkeypatch.setattr(session, "_fits", {})
    sizes: list[int] = []
    made = MadeInGraphs.__init__

    def only_two_frames(self: MadeInGraphs, sessions: Any, pictures: list[Picture], device: Device) -> None:
        sizes.append(len(pictures))
        if len(pictures) > 2:
            raise RuntimeError("CUDA failure 2: out of memory")
        made(self, sessions, pictures, device)

    frames = np.stack([astronaut, astronaut[:, ::-1], astronaut, astronaut, astronaut[:, ::-1]])
    expected = in_graphs.detect(frames)
    monkeypatch.setattr(mtcnn.MadeInGraphs, "__init__", only_two_frames)
    assert_same(in_graphs.detect(frames), expected, device)
    assert sizes == [5, 2, 2, 1]
    in_graphs.detect(frames)
    assert sizes[4:] == [2, 2, 1], "the size that fits was not remembered"


def test_not_even_one_frame_fits(
    in_graphs: MtcnnDetector, astronaut: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.faces.models.detectors import mtcnn
    from pipeline.models import session

    def never(*_: Any) -> None:
        raise RuntimeError("Failed to allocate memory for requested buffer of size 7798784")

    monkeypatch.setattr(session, "_fits", {})
    monkeypatch.setattr(mtcnn, "MadeInGraphs", never)
    with pytest.raises(ModelError, match=r"'mtcnn': not even one item of shape \(512, 512\) fits"):
        in_graphs.detect(astronaut[None])


def test_half_precision_finds_the_same_faces(astronaut: np.ndarray, in_graphs: MtcnnDetector) -> None:
    half = MtcnnDetector(Device(precision="fp16"), in_graphs=True).detect(astronaut[None])
    full = in_graphs.detect(astronaut[None])
    assert len(half.frame) == len(full.frame) > 0
    np.testing.assert_allclose(half.box, full.box, atol=2)


def test_frames_of_a_chunk_are_not_copied() -> None:
    chunk = noise(5, 20, 30, 3)
    together = in_one(list(chunk[1:4]))
    assert np.shares_memory(together, chunk)
    np.testing.assert_array_equal(together, chunk[1:4])
    for frames in (
        [chunk[0], chunk[2]],
        [chunk[1], chunk[0]],
        [frame.copy() for frame in chunk],
        [chunk[0].copy()],
    ):
        np.testing.assert_array_equal(in_one(frames), np.stack(frames))


def test_what_is_uploaded_serves_many_runs(in_graphs: MtcnnDetector, device: Device) -> None:
    frames = uploaded(noise(1, 30, 40, 3), device)
    inputs = {
        "frames": frames,
        **{name: np.zeros((1, 24), np.int64) for name in ("upper", "lower", "left", "right")},
        **{name: np.zeros((1, 24), np.float32) for name in ("down", "across")},
        **{name: np.zeros((1, 24), np.bool_) for name in ("row_inside", "column_inside")},
    }
    first, second = (run_bound(in_graphs._sessions["rnet"], inputs) for _ in range(2))
    for ours, theirs in zip(first, second, strict=True):
        np.testing.assert_array_equal(ours, theirs)

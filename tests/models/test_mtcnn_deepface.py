"""mtcnn amid black, as DeepFace pads frames: exact, and as stock DeepFace, live."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.faces.models import create_detector
from pipeline.faces.models.detectors.base import border
from pipeline.faces.models.detectors.mtcnn import MtcnnDetector, Picture
from pipeline.faces.models.detectors.pyramid import Pyramid, level_sizes, patches, rimmed
from pipeline.machine.device import Device
from tests.devices import matched, tolerance

from .conftest import read_rgb
from .deepface_faces import our_faces, stock_faces

Stock = Callable[[np.ndarray], list[dict[str, Any]]]
SIZES = [(13, 41), (64, 64), (91, 150), (150, 77)]


def padded(frame: np.ndarray) -> np.ndarray:
    above, aside = border(frame)
    return np.pad(frame, ((above, above), (aside, aside), (0, 0)))


@pytest.fixture(scope="module")
def mtcnn() -> MtcnnDetector:
    return MtcnnDetector(Device())


@pytest.mark.parametrize("size", SIZES)
def test_levels_amid_black(size: tuple[int, int]) -> None:
    frame = np.random.default_rng(2).integers(0, 256, (*size, 3), np.uint8)
    picture, whole, part = Picture(frame, border(frame)), Pyramid(), Pyramid()
    whole.load(padded(frame), (0, 0))
    part.load(frame, picture.border)
    height, width = picture.size
    for _, rows, columns in level_sizes(width, height, 20, 0.709):
        level = np.empty((3, rows, columns), np.float32)
        whole.level(rows, columns, level)
        area = cv2.resize(padded(frame).astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
        np.testing.assert_allclose(level, area.transpose(2, 0, 1), atol=0.05)
        top, left = rows // 5, columns // 7
        shown = np.empty((3, rows // 2, columns // 3), np.float32)
        part.level(rows, columns, shown, (top, left))
        np.testing.assert_array_equal(shown, level[:, top : top + rows // 2, left : left + columns // 3])


@pytest.mark.parametrize("size", SIZES)
def test_cells_that_are_left_out_see_black_only(size: tuple[int, int]) -> None:
    frame = np.full((*size, 3), 255, np.uint8)
    picture, pyramid = Picture(frame, border(frame)), Pyramid()
    pyramid.load(frame, picture.border)
    height, width = picture.size
    for _, rows, columns in level_sizes(width, height, 20, 0.709):
        level = np.empty((3, rows, columns), np.float32)
        pyramid.level(rows, columns, level)
        down, across = picture.cells(rows, columns)
        for axis, cells in ((1, down), (2, across)):
            every = range((level.shape[axis] - 1) // 2 - 4)
            sees = [level.take(range(2 * cell, 2 * cell + 12), axis=axis, mode="clip").any() for cell in every]
            assert all(cell in cells for cell in every if sees[cell])
            assert len(cells) <= sum(sees) + 1


def test_black_is_no_face(mtcnn: MtcnnDetector) -> None:
    """Were it one, cells that see nothing else could not be left out."""
    (cells,) = mtcnn._sessions["pnet"].run(None, {"image": np.zeros((1, 3, 12, 12), np.float32)})
    assert cells[0, 0] < -4


@pytest.mark.parametrize("side", [24, 48])
def test_patches_amid_black(side: int) -> None:
    frame = np.random.default_rng(4).integers(0, 256, (61, 90, 3), np.uint8)
    start = np.random.default_rng(5).uniform(-30, 150, (40, 2))
    corners = np.concatenate([start, start + np.random.default_rng(6).uniform(3, 120, (40, 2))], axis=1)
    ours = patches(rimmed(frame), corners, side, border(frame))
    np.testing.assert_array_equal(ours, patches(padded(frame), corners, side))


def test_areas_amid_black_are_those_of_the_padded_picture(mtcnn: MtcnnDetector, astronaut: np.ndarray) -> None:
    frames = [astronaut[:201, 120:383], astronaut[60:190, 150:260], astronaut[300:360, :90], astronaut[:201, 120:383]]
    ours, expected = mtcnn.padded_areas(frames), mtcnn.areas([padded(frame) for frame in frames])
    assert ours.frame.tolist() == expected.frame.tolist() == [0, 1, 3]
    for field in ("box", "landmarks", "confidence"):
        np.testing.assert_array_equal(getattr(ours, field), getattr(expected, field), err_msg=field)


def test_a_frame_in_the_buffers_of_another_mode(mtcnn: MtcnnDetector, astronaut: np.ndarray) -> None:
    frame = astronaut[:201, 120:383]
    native, areas = mtcnn.detect([frame]), mtcnn.padded_areas([frame])
    for _ in range(2):
        np.testing.assert_array_equal(mtcnn.detect([frame]).box, native.box)
        np.testing.assert_array_equal(mtcnn.padded_areas([frame]).box, areas.box)


@pytest.fixture(scope="module")
def frames(data_dir: Path, astronaut: np.ndarray, grace_hopper: np.ndarray) -> list[np.ndarray]:
    """Photographs of one to nine faces, made small: DeepFace sees four times their pixels."""
    groups = [read_rgb(data_dir / "faces" / "groups" / f"{name}.jpg") for name in ("oar_test_image", "ul_02", "ul_16")]
    groups = [cv2.resize(group, None, fx=640 / max(group.shape), fy=640 / max(group.shape)) for group in groups]
    return [astronaut[:300], grace_hopper[:450], *groups]


@pytest.mark.parametrize("options", [{}, {"max_faces": 2, "expand_percentage": 12}], ids=["all", "two, expanded"])
def test_as_deepface(
    device: Device, deepface_home: Path, stock_mtcnn: Stock, frames: list[np.ndarray], options: dict[str, int]
) -> None:
    ours = create_detector("mtcnn", device, align="deepface", **options)
    differences = []
    for frame in frames if not options else frames[2:3]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TensorFlow's and joblib's, on DeepFace's own account
            expected, confidence = stock_faces("mtcnn", frame, **options)
        found, score = our_faces(ours, frame)
        assert len(found) == len(expected)
        if device.kind != "cpu":  # scores a hair apart may change places
            rows = matched(found[:, :4], expected[:, :4])
            expected, confidence = expected[rows], confidence[rows]
        np.testing.assert_allclose(score, confidence, atol=tolerance(device, 1e-4))
        differences.append(np.abs(found - expected))
    difference = np.concatenate(differences)
    assert len(difference) >= (2 if options else 15)
    assert difference.max() <= 1
    assert (difference == 0).mean() >= (0.995 if device.kind == "cpu" else 0.9)

"""Detectors by name: the options that they support, and the native faces of those that are not networks of ours."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.engine.stage import Chunk
from pipeline.errors import ModelError
from pipeline.faces.models import create_detector, zoo
from pipeline.faces.models.base import Detector, Faces
from pipeline.faces.models.detectors import DetectorOptions, check
from pipeline.faces.models.detectors.base import largest
from pipeline.faces.stages.detect import Detect, DetectOptions
from pipeline.machine.device import Device
from tests.devices import GPU_PIXELS


@pytest.fixture(scope="module")
def frame(astronaut: np.ndarray, grace_hopper: np.ndarray) -> np.ndarray:
    """Two faces: about 95 pixels wide on the right, 130 on the left."""
    hopper = cv2.resize(grace_hopper[:420, 80:430], (267, 320), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(np.concatenate([hopper, astronaut[:320, 90:370]], axis=1))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("opencvv", {}, "unknown detector 'opencvv'; did you mean 'opencv'"),
        ("mtcnn", {"rotate": False}, "option rotate needs align: deepface; leave it out"),
        ("yunet", {"expand_percentage": 3}, "option expand_percentage needs align: deepface"),
        ("dlib", {"whole_frame": True}, "option whole_frame needs align: deepface"),
        ("dlib", {"min_face": 60}, "'dlib' does not support min_face with align: native; leave it out, or use .*mtcnn"),
        ("yunet", {"min_face": 60, "align": "deepface"}, "'yunet' does not support min_face with align: deepface"),
        ("opencv", {"threshold": 0.4, "align": "deepface"}, "'opencv' does not support threshold with align: deepface"),
        ("ssd", {"threshold": 0.4}, "'ssd' does not support threshold with align: native"),
        ("skip", {}, "detector 'skip' finds no eyes to turn faces by; set align: deepface"),
        ("yunet-mtcnn", {"align": "deepface"}, "'yunet-mtcnn' does not support align: deepface; DeepFace has no such"),
        ("mtcnn", {"turned": True, "align": "deepface"}, "option turned needs align: native; leave it out"),
        ("mtcnn", {"threshold": 1.5}, "threshold is 1.5, but must be between 0 and 1"),
        ("mtcnn", {"max_faces": 0}, "max_faces is 0, but must be 1 or more"),
        ("mtcnn", {"align": "deepface", "expand_percentage": -1}, "expand_percentage is -1, but must be 0 or more"),
    ],
)
def test_options_that_are_not_supported(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        check(name, DetectorOptions(**options))


@pytest.mark.parametrize("align", ["native", "deepface"])
@pytest.mark.parametrize("name", [name for name in zoo.names("detector") if name not in zoo.OWN])
def test_defaults_suit_every_detector(name: str, align: str) -> None:
    check(name, DetectorOptions(align=align, max_faces=3))


def faces_of(detector: Detector, frame: np.ndarray) -> Faces:
    faces = detector.detect([frame, frame[:40, :40], frame])
    assert faces.rank is None
    assert set(faces.frame.tolist()) == {0, 2}
    first, last = (faces.box[faces.frame == index] for index in (0, 2))
    np.testing.assert_array_equal(first, last)
    return faces


@pytest.mark.parametrize("name", ["opencv", "dlib", "fastmtcnn"])
def test_native_faces_where_mtcnn_has_them(
    deepface_home: Path, detector: Detector, frame: np.ndarray, name: str
) -> None:
    expected = detector.detect([frame])
    found = faces_of(create_detector(name, Device()), frame)
    first = found.frame == 0
    assert first.sum() == len(expected.frame) == 2
    assert found.confidence.min() > 0
    assert found.confidence.max() <= 1
    distances = []
    for box, eyes in zip(expected.box, expected.landmarks[:, :2], strict=True):
        near = np.abs(found.box[first, :2] + found.box[first, 2:] / 2 - box[:2] - box[2:] / 2).sum(axis=1).argmin()
        distances.append(np.abs(found.landmarks[first][near, :2] - eyes).max() / box[2])
    # The cascade misses the eyes of one of the two.
    assert np.isnan(distances).sum() == (name == "opencv")
    assert np.nanmax(distances) < 0.12


def test_fastmtcnn_is_mtcnn_with_another_threshold(frame: np.ndarray) -> None:
    fast = create_detector("fastmtcnn", Device())
    everything = create_detector("mtcnn", Device(), threshold=0.7).detect([frame])
    np.testing.assert_array_equal(fast.detect([frame]).box, everything.box)
    areas = fast.areas([frame])  # type: ignore[attr-defined]
    sizes = areas.box[:, 2] * areas.box[:, 3]
    assert (np.diff(sizes) <= 0).all(), "facenet-pytorch lists the largest first"
    np.testing.assert_array_equal(areas.box, np.trunc(areas.box))


def test_smallest_face_of_opencv(frame: np.ndarray) -> None:
    assert len(create_detector("opencv", Device(), min_face=60).detect([frame]).frame) == 2
    assert len(create_detector("opencv", Device(), min_face=300).detect([frame]).frame) == 0


@pytest.mark.parametrize(("name", "threshold"), [("opencv", 0.999), ("dlib", 0.6), ("mtcnn", 0.9999999)])
def test_threshold(deepface_home: Path, frame: np.ndarray, name: str, threshold: float) -> None:
    # Leaning, as its faces are here, dlib is less sure of them.
    lean = cv2.getRotationMatrix2D((frame.shape[1] * 0.75, 130), 15, 1)
    turned = cv2.warpAffine(frame, lean, frame.shape[1::-1])
    plenty = create_detector(name, Device(), threshold=0.01).detect([turned])
    few = create_detector(name, Device(), threshold=threshold).detect([turned])
    assert len(few.frame) < len(plenty.frame)
    assert (few.confidence >= np.float32(threshold)).all()


def test_native_keeps_the_largest(device: Device, detector: Detector, frame: np.ndarray) -> None:
    every = detector.detect([frame, frame[:, ::-1].copy()])
    one = create_detector("mtcnn", device, max_faces=1).detect([frame, frame[:, ::-1].copy()])
    assert one.frame.tolist() == [0, 1]
    for index in (0, 1):
        mine = every.box[every.frame == index]
        largest = mine[(mine[:, 2] * mine[:, 3]).argmax()]
        np.testing.assert_allclose(one.box[index], largest, rtol=0, atol=0 if device.kind == "cpu" else GPU_PIXELS)


def test_largest_leaves_order_and_frames() -> None:
    side = np.array([3, 9, 9, 1, 5, 2], np.float32)
    box = np.stack([side * 0, side * 0, side, side], axis=1)
    points = np.zeros((6, 5, 2), np.float32)
    faces = Faces(np.array([0, 0, 0, 2, 2, 2]), box, points, np.linspace(1, 0, 6).astype(np.float32))
    assert largest(faces, 2).box[:, 2].tolist() == [9, 9, 5, 2]
    assert largest(faces, 9).box[:, 2].tolist() == side.tolist()


@pytest.mark.parametrize("align", ["native", "deepface"])
def test_the_stage_gives_every_array_it_declares(frame: np.ndarray, align: str) -> None:
    stage = Detect(DetectOptions(align=align, max_faces=1))
    stage.load(Device())
    frames = np.stack([frame, np.zeros_like(frame), frame])
    decoded = np.array([True, False, True])
    chunk = Chunk("clip", 0, np.arange(3), np.arange(3) / 25, decoded, {"frames_rgb": frames})
    arrays = stage.run(chunk)
    assert list(arrays) == [array.name for array in stage.outputs]
    assert arrays["n_faces"].tolist() == [1, 0, 1]
    for array in stage.outputs:
        assert arrays[array.name].dtype == array.dtype
        assert arrays[array.name].shape[1:] == array.shape
    assert ("rank" in arrays) is (align == "deepface")


def test_stage_skip_has_no_model() -> None:
    assert Detect(DetectOptions(model="skip", align="deepface")).models() == ()


def test_missing_package_of_dlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"detector 'dlib' needs the package 'dlib', .*; run: pip install dlib-bin"):
        create_detector("dlib", Device())

"""The detector against the package whose weights it runs, both live."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.faces.models.base import Detector
from pipeline.machine.device import Device
from tests.devices import matched, tolerance

from .conftest import read_rgb

KEYPOINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")  # left as the observer sees it
Stock = Callable[[np.ndarray], list[dict[str, Any]]]
GROUPS = ("oar_test_image", "ul_02", "ul_05", "ul_21", "no-faces")


def differences(device: Device, detector: Detector, stock: Stock, frame: np.ndarray) -> np.ndarray:
    """Absolute differences of all box coordinates and landmarks, (faces, 14); fails unless the faces are as many."""
    theirs = sorted(stock(frame), key=lambda face: (-face["confidence"], *face["box"][:2]))
    ours = detector.detect(frame[None])
    assert len(ours.frame) == len(theirs)
    if not theirs:
        return np.empty((0, 14))
    boxes = np.array([face["box"] for face in theirs])
    points = np.array([[face["keypoints"][name] for name in KEYPOINTS] for face in theirs]).reshape(-1, 10)
    scores = np.array([face["confidence"] for face in theirs])
    if device.kind != "cpu":  # scores a hair apart may change places
        rows = matched(ours.box, boxes)
        boxes, points, scores = boxes[rows], points[rows], scores[rows]
    np.testing.assert_allclose(ours.confidence, scores, atol=tolerance(device, 1e-4))
    mine = np.concatenate([ours.box, ours.landmarks.reshape(-1, 10)], axis=1).round()
    return np.abs(mine - np.concatenate([boxes, points], axis=1))


@pytest.mark.parametrize("picture", ["astronaut", "grace_hopper"])
@pytest.mark.parametrize("scale", [1, 0.37, 1.9])
def test_photograph_as_the_package(
    device: Device, detector: Detector, stock_mtcnn: Stock, request: pytest.FixtureRequest, picture: str, scale: float
) -> None:
    frame = cv2.resize(request.getfixturevalue(picture), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    difference = differences(device, detector, stock_mtcnn, frame)
    assert len(difference) >= 1
    assert difference.max() <= 1


def test_groups_as_the_package(device: Device, detector: Detector, stock_mtcnn: Stock, data_dir: Path) -> None:
    frames = [read_rgb(data_dir / "faces" / "groups" / f"{name}.jpg") for name in GROUPS]
    difference = np.concatenate([differences(device, detector, stock_mtcnn, frame) for frame in frames])
    assert len(difference) >= 15
    assert (difference[:, :4] <= 1).mean() >= 0.995
    assert (difference == 0).mean() >= (0.95 if device.kind == "cpu" else 0.8)


def test_the_right_eye_is_leftmost(detector: Detector, astronaut: np.ndarray) -> None:
    faces = detector.detect(astronaut[None])
    right_eye, left_eye, nose, right_mouth, left_mouth = faces.landmarks[0]
    assert right_eye[0] < nose[0] < left_eye[0]
    assert right_mouth[0] < left_mouth[0]
    assert right_eye[1] < nose[1] < right_mouth[1]

"""YuNet's own: OpenCV's answers, and which faces are found at which size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.faces.models.detectors import yunet
from pipeline.faces.models.detectors.yunet import YunetDetector
from pipeline.machine.device import Device
from tests.devices import GPU_PIXELS, matched

from .conftest import read_rgb

WEIGHTS = "face_detection_yunet_2023mar.onnx"


@pytest.fixture(scope="module", autouse=True)
def weights(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("home")
    folder = home / ".deepface" / "weights"
    folder.mkdir(parents=True)
    (folder / WEIGHTS).symlink_to(data_dir / "weights" / "deepface" / WEIGHTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPFACE_HOME", str(home))
        yield folder / WEIGHTS


@pytest.mark.parametrize("group", ["oar_test_image", "ul_02", "ul_09"])
@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_detect_as_opencv_on_the_same_picture(
    device: Device, weights: Path, data_dir: Path, group: str, threshold: float
) -> None:
    picture = read_rgb(data_dir / "faces" / "groups" / f"{group}.jpg")
    scale = min(1, 500 / max(picture.shape))  # seen once: no second look for large faces
    picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    opencv = cv2.FaceDetectorYN.create(str(weights), "", picture.shape[1::-1], threshold)
    _, theirs = opencv.detect(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    ours = YunetDetector(device, min_face=yunet.SMALLEST, threshold=threshold).detect([picture])
    mine = np.concatenate([ours.box, ours.landmarks.reshape(-1, 10), ours.confidence[:, None]], axis=1)
    theirs = theirs[np.argsort(-theirs[:, 14], kind="stable")]
    assert len(mine) >= 3
    if device.kind != "cpu":  # scores a hair apart may change places
        theirs = theirs[matched(mine[:, :4], theirs[:, :4])]
    np.testing.assert_allclose(mine[:, :14], theirs[:, :14], atol=2e-3 if device.kind == "cpu" else GPU_PIXELS)
    np.testing.assert_allclose(mine[:, 14], theirs[:, 14], atol=2e-3)


GROUPS = {
    "oar_test_image": 6,
    "ul_02": 4,
    "ul_05": 1,
    "ul_09": 8,
    "ul_13": 2,
    "ul_16": 9,
    "ul_20": 10,
    "ul_21": 5,
    "ul_23": 3,
    "no-faces": 0,
}


@pytest.mark.parametrize("group", GROUPS)
def test_groups_are_found_whole(device: Device, data_dir: Path, group: str) -> None:
    picture = read_rgb(data_dir / "faces" / "groups" / f"{group}.jpg")
    assert len(YunetDetector(device).detect([picture]).frame) == GROUPS[group]


@pytest.mark.parametrize("side", [60, 250, 1000])
def test_one_face_of_any_size(device: Device, astronaut: np.ndarray, side: int) -> None:
    face = astronaut[0:240, 110:330]
    scale = side / 120  # the face's box is about 120 pixels wide there
    picture = cv2.resize(face, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    found = YunetDetector(device).detect([picture])
    assert len(found.frame) == 1
    assert found.box[0, 2] == pytest.approx(side, rel=0.35)
    right_eye, left_eye, nose, right_mouth, left_mouth = found.landmarks[0]
    assert right_eye[0] < nose[0] < left_eye[0]
    assert right_eye[1] < nose[1] < right_mouth[1]
    assert right_mouth[0] < left_mouth[0]


def test_small_faces_need_a_small_min_face(astronaut: np.ndarray) -> None:
    picture = cv2.resize(astronaut, None, fx=0.1, fy=0.1, interpolation=cv2.INTER_AREA)  # a face of 12 pixels
    assert len(YunetDetector(Device(), min_face=60).detect([picture]).frame) == 0
    assert len(YunetDetector(Device(), min_face=10).detect([picture]).frame) == 1


@pytest.mark.parametrize(
    ("min_face", "scales"), [(20, [1, 1 / 4]), (40, [0.5, 1 / 8]), (80, [0.25]), (5, [2, 0.5, 1 / 8])]
)
def test_larger_min_face_means_fewer_pixels(min_face: float, scales: list[float]) -> None:
    finest = YunetDetector(Device(), min_face=min_face)._scale
    assert yunet._scales((1080, 1920, 3), finest) == scales

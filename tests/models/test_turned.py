"""Heads that are not upright, faces that the frame's edge cuts, and the detector `yunet-mtcnn`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.faces.models import create_detector
from pipeline.faces.models.base import Faces
from pipeline.faces.models.detectors.mtcnn import MtcnnDetector
from pipeline.faces.models.detectors.turned import SURE, turned_back
from pipeline.faces.models.detectors.yunet import THRESHOLD
from pipeline.faces.stages.detect import DetectOptions
from pipeline.machine.device import Device

from .conftest import read_rgb

DETECTORS = ("mtcnn", "yunet-mtcnn")
pytestmark = pytest.mark.usefixtures("deepface_home")


@pytest.fixture(scope="module")
def group(data_dir: Path) -> np.ndarray:
    """Ten faces of 40 to 67 pixels."""
    return read_rgb(data_dir / "faces" / "groups" / "ul_20.jpg")


@pytest.fixture(scope="module")
def crowd(data_dir: Path) -> list[np.ndarray]:
    names = ("ul_02", "ul_20", "ul_21", "no-faces")
    return [read_rgb(data_dir / "faces" / "groups" / f"{name}.jpg") for name in names]


def centres(faces: Faces) -> np.ndarray:
    return faces.box[:, :2] + faces.box[:, 2:] / 2


def of_frame(faces: Faces, frame: int) -> Faces:
    mine = faces.frame == frame
    return Faces(faces.frame[mine], faces.box[mine], faces.landmarks[mine], faces.confidence[mine])


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_points_go_back_to_where_they_were(turns: int) -> None:
    frame = np.zeros((7, 11), np.uint8)
    frame[2, 9] = 1
    y, x = np.argwhere(np.rot90(frame, turns))[0]
    points = np.tile(np.array([x, y], np.float32), (1, 5, 1))
    found = Faces(np.array([0]), np.array([[x, y, 0, 0]], np.float32), points, np.ones(1, np.float32))
    back = turned_back(found, np.array([[11, 7]]), turns)
    assert back.box.tolist() == [[9, 2, 0, 0]]
    assert (back.landmarks == [9, 2]).all()


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_turned_heads_are_found_once_with_the_eyes_in_place(group: np.ndarray, name: str, turns: int) -> None:
    expected = create_detector(name, Device()).detect([group])
    assert len(expected.frame) == 10
    frame = np.ascontiguousarray(np.rot90(group, -turns))
    missed = 10 - (create_detector(name, Device()).detect([frame]).confidence >= SURE[name]).sum()
    assert missed == 10
    found = create_detector(name, Device(), turned=True).detect([frame])
    upright = turned_back(found, np.array([group.shape[1::-1]]), 4 - turns)
    far = np.linalg.norm(centres(upright)[:, None] - centres(expected), axis=2)
    assert ((far < 20).sum(axis=0) == 1).all(), "each once"
    assert (far.min(axis=1) >= 20).sum() <= 1, "upside down, the hands of one look like a face"
    for face, box in zip(expected.landmarks, expected.box, strict=True):
        assert np.abs(upright.landmarks - face).max(axis=(1, 2)).min() < 0.1 * box[2]


@pytest.mark.parametrize("name", DETECTORS)
def test_a_frame_of_surely_upright_faces_stays_as_it_is(astronaut: np.ndarray, name: str) -> None:
    plain, turned = (create_detector(name, Device(), turned=turned).detect([astronaut]) for turned in (False, True))
    assert len(plain.frame) == 1
    for field in ("box", "landmarks", "confidence"):
        np.testing.assert_array_equal(getattr(plain, field), getattr(turned, field))


@pytest.mark.parametrize("name", DETECTORS)
def test_a_frame_does_not_depend_on_the_others_of_its_batch(crowd: list[np.ndarray], name: str) -> None:
    detector = create_detector(name, Device(), turned=True)
    frames = [*crowd, np.ascontiguousarray(np.rot90(crowd[0]))]
    together = detector.detect(frames)
    assert {0, 1, 2, 4} <= set(together.frame.tolist())
    for index, frame in enumerate(frames):
        alone, mine = detector.detect([frame]), of_frame(together, index)
        for field in ("box", "landmarks", "confidence"):
            np.testing.assert_array_equal(getattr(alone, field), getattr(mine, field))


def test_max_faces_counts_turned_ones(group: np.ndarray) -> None:
    frame = np.ascontiguousarray(np.rot90(group))
    assert len(create_detector("yunet-mtcnn", Device(), turned=True, max_faces=3).detect([frame]).frame) == 3


def test_stores_from_before_the_option_resume() -> None:
    assert "turned" not in DetectOptions().keyed()
    assert DetectOptions(turned=True).keyed()["turned"] is True


def test_all_faces_of_groups_with_landmarks_near_to_mtcnn(crowd: list[np.ndarray]) -> None:
    mtcnn, found = (create_detector(name, Device()).detect(crowd) for name in ("mtcnn", "yunet-mtcnn"))
    assert np.bincount(found.frame, minlength=4).tolist() == [4, 10, 5, 0]
    errors = {}
    for name, faces in (("yunet", create_detector("yunet", Device()).detect(crowd)), ("yunet-mtcnn", found)):
        shares = []
        for frame, box, points in zip(mtcnn.frame, mtcnn.box, mtcnn.landmarks, strict=True):
            mine = of_frame(faces, frame)
            nearest = np.abs(centres(mine) - box[:2] - box[2:] / 2).sum(axis=1).argmin()
            shares.append(np.linalg.norm(mine.landmarks[nearest] - points, axis=1).mean() / box[2])
        errors[name] = np.mean(shares)
    assert errors["yunet-mtcnn"] < 0.02 < errors["yunet"]


def test_faces_that_the_edge_cuts(data_dir: Path) -> None:
    folder = data_dir / "faces"
    selfie = read_rgb(folder / "deepface_other" / "selfie-many-people.jpg")  # four whole faces, and three cut ones
    assert len(create_detector("mtcnn", Device()).detect([selfie]).frame) == 4
    found = create_detector("yunet-mtcnn", Device()).detect([selfie])
    assert len(found.frame) >= 6
    for name, left in (("obama_partial_face", True), ("obama_partial_face2", False)):
        picture = read_rgb(folder / "face_recognition_multi" / f"{name}.jpg")
        (box,) = create_detector("yunet-mtcnn", Device()).detect([picture]).box
        assert box[0] < 10 if left else box[0] + box[2] > picture.shape[1] - 10


def test_threshold_is_the_least_score_of_yunet(crowd: list[np.ndarray]) -> None:
    sure = create_detector("yunet-mtcnn", Device(), threshold=0.93).detect(crowd)
    every = create_detector("yunet-mtcnn", Device(), threshold=0.3).detect(crowd)
    assert 0 < len(sure.frame) < len(every.frame)
    assert sure.confidence.min() >= np.float32(0.93) > every.confidence.min()


def test_a_face_of_which_mtcnn_is_not_sure_keeps_the_box_of_yunet(data_dir: Path) -> None:
    picture = read_rgb(data_dir / "faces" / "groups" / "ul_20.jpg")[::-1]  # upside down, for which MTCNN is not made
    frames = [np.ascontiguousarray(picture)]
    yunet = create_detector("yunet", Device()).detect(frames)
    seen = MtcnnDetector(Device(), networks=("rnet", "onet")).refined(frames, yunet)
    unsure = yunet.box[(seen.confidence == 0) & (yunet.confidence >= THRESHOLD)]
    assert len(unsure)
    found = create_detector("yunet-mtcnn", Device()).detect(frames).box.tolist()
    assert sum(box in found for box in unsure.tolist()) >= len(unsure) - 1


def test_refined_is_the_same_by_graphs(crowd: list[np.ndarray]) -> None:
    frames = [crowd[1], crowd[1], crowd[0]]
    boxes = create_detector("yunet", Device()).detect(frames)
    one, two = (MtcnnDetector(Device(), in_graphs=way).refined(frames, boxes) for way in (False, True))
    np.testing.assert_array_equal(one.frame, boxes.frame)
    np.testing.assert_array_equal(two.frame, boxes.frame)
    assert one.confidence.max() > 0.99
    np.testing.assert_allclose(one.box, two.box, atol=0.05)
    np.testing.assert_allclose(one.confidence, two.confidence, atol=1e-3)
    np.testing.assert_allclose(one.landmarks, two.landmarks, atol=0.05)

"""Native chips: templates, what is done where landmarks are not known, and eye-aligned crops."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pipeline.faces.models.align import (
    Template,
    dlib,
    insightface,
    onto_template,
    similarity,
    upright_box_transforms,
    warp_faces,
)
from pipeline.faces.models.base import Faces

TEMPLATES = {"dlib": dlib(), "insightface": insightface()}
UNKNOWN = np.full((5, 2), np.nan, np.float32)


@pytest.fixture(scope="module")
def frame() -> np.ndarray:
    """uint8 (300, 400, 3): smooth noise, different everywhere."""
    noise = np.random.default_rng(4).integers(0, 256, (300, 400, 3), np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 1, 255, cv2.NORM_MINMAX)


def face(box: tuple[float, ...] = (0, 0, 0, 0), landmarks: np.ndarray = UNKNOWN) -> Faces:
    return Faces(
        np.zeros(1, np.int64),
        np.array([box], np.float32),
        np.asarray(landmarks, np.float32)[None],
        np.ones(1, np.float32),
    )


def at_template(template: Template) -> np.ndarray:
    points = UNKNOWN.copy()
    points[list(template.landmarks)] = template.points
    return points


def chip_of(frame: np.ndarray, faces: Faces, transform: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return warp_faces(frame[None], faces, transform, size)[0]


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_face_at_the_template_s_points_is_its_own_chip(frame: np.ndarray, name: str) -> None:
    template = TEMPLATES[name]
    faces = face(landmarks=at_template(template))
    chip = chip_of(frame, faces, onto_template(faces, template), template.size)
    width, height = template.size
    # landmarks are float32, so the transform is off by a millionth
    assert np.abs(chip.astype(int) - frame[:height, :width]).max() <= 1


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_show_a_face(name: str) -> None:
    """Right eye left of the left, nose between, mouth below; all of it on the chip, upright."""
    points = TEMPLATES[name].points
    right, left, *rest = points
    mouth = points[-2:]
    assert right[0] < left[0]
    assert abs(right[1] - left[1]) < 1
    assert all(right[0] < point[0] < left[0] and point[1] > left[1] for point in rest)
    assert abs(mouth[:, 0].mean() - (right[0] + left[0]) / 2) < 1.5
    assert ((points > 0) & (points < TEMPLATES[name].size)).all()


@pytest.mark.parametrize("name", TEMPLATES)
def test_only_the_eyes_known(name: str) -> None:
    template = TEMPLATES[name]
    eyes = UNKNOWN.copy()
    eyes[:2] = [[120, 90], [180, 130]]
    expected = similarity(eyes[None, :2].astype(np.float64), template.points[:2])
    np.testing.assert_allclose(onto_template(face((100, 60, 90, 120), eyes), template), expected)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("known", [[], [0], [2, 3, 4]], ids=["none", "one eye", "no eyes"])
def test_without_the_eyes_the_box_is_placed_upright(name: str, known: list[int]) -> None:
    template = TEMPLATES[name]
    landmarks = UNKNOWN.copy()
    landmarks[known] = 100
    (transform,) = onto_template(face((101, 41, 80, 125), landmarks), template)
    x, y, side = template.box
    np.testing.assert_allclose(transform[:, :2], np.eye(2) * side / 100, atol=1e-12)
    np.testing.assert_allclose(transform @ [140.5, 103, 1], [x, y], atol=1e-9)


def test_faces_that_know_more_and_less_share_a_batch() -> None:
    """Each face is placed by what is known of it, whatever its neighbours have."""
    template = insightface()
    eyes = at_template(template).copy()
    eyes[2:] = np.nan
    all_three = [face((10, 10, 50, 60), points) for points in (at_template(template), eyes, UNKNOWN)]
    together = Faces(
        *(
            np.concatenate([getattr(one, name) for one in all_three])
            for name in ("frame", "box", "landmarks", "confidence")
        )
    )
    alone = np.concatenate([onto_template(one, template) for one in all_three])
    np.testing.assert_array_equal(onto_template(together, template), alone)
    assert np.isfinite(alone).all()


@pytest.mark.parametrize("size", [(47, 55), (224, 224), (96, 96)])
@pytest.mark.parametrize("eyes", [None, ((70, 80), (90, 80))], ids=["unknown", "level"])
def test_a_box_of_the_chip_s_size_is_cut_as_it_is(
    frame: np.ndarray, size: tuple[int, int], eyes: tuple[tuple[int, int], ...] | None
) -> None:
    landmarks = UNKNOWN.copy()
    if eyes:
        landmarks[:2] = eyes
    faces = face((31, 22, *size), landmarks)
    chip = chip_of(frame, faces, upright_box_transforms(faces, size), size)
    np.testing.assert_array_equal(chip, frame[22 : 22 + size[1], 31 : 31 + size[0]])


def test_beside_a_narrow_box_is_the_frame() -> None:
    faces = face((100, 50, 40, 80))
    (transform,) = upright_box_transforms(faces, (160, 160))
    np.testing.assert_allclose(transform[:, :2], 2 * np.eye(2))
    np.testing.assert_allclose(transform @ [119.5, 89.5, 1], [79.5, 79.5])
    white = np.full((300, 400, 3), 255, np.uint8)
    assert chip_of(white, faces, transform[None], (160, 160)).min() == 255


@pytest.mark.parametrize("angle", [0.3, -1.2, 2.9])
def test_leaning_eyes_become_level(angle: float) -> None:
    middle, along = np.array([150.0, 120.0]), np.array([np.cos(angle), np.sin(angle)])
    landmarks = UNKNOWN.copy()
    landmarks[:2] = middle - 20 * along, middle + 20 * along
    (transform,) = upright_box_transforms(face((110, 80, 80, 80), landmarks), (80, 80))
    right, left = (transform @ [*eye, 1] for eye in landmarks[:2])
    assert right[1] == pytest.approx(left[1], abs=1e-4)
    assert left[0] - right[0] == pytest.approx(40, abs=1e-4)


def test_a_box_without_size_is_black(frame: np.ndarray) -> None:
    faces = face((10, 10, 0, 0))
    assert not chip_of(frame, faces, upright_box_transforms(faces, (20, 20)), (20, 20)).any()

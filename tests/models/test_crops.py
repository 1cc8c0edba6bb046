"""Crops of `align: deepface` against DeepFace's own, on boxes inside, across and beyond the frame's edge."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from deepface.models.Detector import FacialAreaRegion
from deepface.modules import detection, preprocessing

from pipeline.faces.models.base import Faces
from pipeline.faces.models.crops import NORMALISATIONS, cut, deepface_chips, fit, normalise

HEIGHT, WIDTH = 180, 240


@pytest.fixture(scope="module")
def frame() -> np.ndarray:
    noise = np.random.default_rng(1).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3).astype(np.float32)
    return np.clip((smooth - smooth.min()) * 4, 0, 255).astype(np.uint8)


def deepface_crop(
    frame: np.ndarray, box: tuple[int, ...], eyes: np.ndarray | None, rotate: bool
) -> tuple[np.ndarray, np.ndarray]:
    """DeepFace's crop, RGB, and the box that it reports, in pixels of the frame."""
    border_x, border_y = (WIDTH // 2, HEIGHT // 2) if rotate else (0, 0)
    image = cv2.copyMakeBorder(frame[:, :, ::-1], border_y, border_y, border_x, border_x, cv2.BORDER_CONSTANT)
    area = FacialAreaRegion(box[0] + border_x, box[1] + border_y, box[2], box[3], confidence=1)
    if eyes is not None:
        area.right_eye, area.left_eye = (
            tuple(int(at + by) for at, by in zip(eye, (border_x, border_y), strict=True)) for eye in eyes
        )
    found = detection.extract_face(area, image, rotate, 0, border_x, border_y, "opencv")
    region = found.facial_area
    return found.img[:, :, ::-1], np.array([region.x, region.y, region.w, region.h], np.float32)


@pytest.mark.parametrize("rotate", [True, False])
@pytest.mark.parametrize("seed", range(60))
def test_crops_equal_deepface(frame: np.ndarray, seed: int, rotate: bool) -> None:
    chance = np.random.default_rng(seed)
    box = (*chance.integers(-40, (WIDTH, HEIGHT)), *chance.integers(8, 150, 2))
    eyes = None if seed % 5 == 0 else chance.integers(0, 100, (2, 2))
    theirs, reported = deepface_crop(frame, tuple(int(value) for value in box), eyes, rotate)
    landmarks = np.full((5, 2), np.nan, np.float32)
    if eyes is not None:
        landmarks[:2] = eyes
    ours = cut(frame, reported, landmarks, rotate)
    assert ours.shape == theirs.shape
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("size", [(224, 224), (47, 55), (112, 112)])
@pytest.mark.parametrize("shape", [(90, 60), (31, 77), (300, 300), (8, 200)])
def test_chips_equal_deepface(frame: np.ndarray, size: tuple[int, int], shape: tuple[int, int]) -> None:
    crop = cv2.resize(frame, shape[::-1])
    chip = np.empty((size[1], size[0], 3), np.float32)
    fit(crop, size, chip)
    theirs = preprocessing.resize_image((crop / 255)[:, :, ::-1], (size[1], size[0]))[0]
    np.testing.assert_allclose(chip, theirs, atol=1e-6)


@pytest.mark.parametrize("name", NORMALISATIONS)
def test_normalisations_equal_deepface(name: str) -> None:
    chips = np.random.default_rng(3).uniform(0, 1, (4, 16, 12, 3)).astype(np.float32)
    theirs = [preprocessing.normalize_input(chip[None].copy(), name)[0] for chip in chips]
    np.testing.assert_allclose(normalise(chips, name), theirs, rtol=1e-5, atol=1e-4)


def test_unknown_normalisation() -> None:
    with pytest.raises(ValueError, match=r"unknown normalization 'facenet'.*Facenet2018"):
        normalise(np.zeros((1, 2, 2, 3), np.float32), "facenet")


def test_a_face_of_which_nothing_is_left_is_black(frame: np.ndarray) -> None:
    box = np.array([[10, 10, 40, 40], [500, 500, 20, 20]], np.float32)
    faces = Faces(np.zeros(2, np.int64), box, np.full((2, 5, 2), np.nan, np.float32), np.ones(2, np.float32))
    chips = deepface_chips([frame], faces, (32, 24), rotate=False)
    assert chips.shape == (2, 24, 32, 3)
    assert chips[0].max() > 0.1
    assert not chips[1].any()

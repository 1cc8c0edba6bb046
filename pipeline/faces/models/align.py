"""Chips: one small warp per face, from the frame itself onto the chip that a network was trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.faces.models.base import Faces, Frames

Float64 = npt.NDArray[np.float64]
Complex128 = npt.NDArray[np.complex128]

DLIB_SIDE = 150
DLIB_PADDING = 0.25
DLIB_MEAN_SHAPE: Float64 = np.array(
    [
        [0.8595674595992, 0.2134981538014],  # left eye, outer corner
        [0.6460604764104, 0.2289674387677],  # left eye, inner corner
        [0.1205750620789, 0.2137274526848],  # right eye, outer corner
        [0.3340850613712, 0.2290642403242],  # right eye, inner corner
        [0.4901123135679, 0.6277975316475],  # base of the nose
    ]
)
"""Mean shape of dlib's 5-point model on the unit square: dlib, image_transforms/interpolation.h,
get_face_chip_details (Boost Software License)."""

DLIB_MOUTH: Float64 = np.array([[50.0, 102.8], [98.0, 102.8]])
"""Right and left mouth corner on the 150 px chip, x, y in pixels. dlib's 5-point model has no mouth corners. These are
the medians of MTCNN's corners over 129 photographs, aligned by the eyes alone and made symmetric about the middle of
the eyes. The figures in dlib_resnet.py come from the same photographs, so they are in-sample."""


def dlib_points() -> Float64:
    """Return float64 (5, 2): the points of dlib's model on its 150 px chip, x, y in pixels."""
    return (DLIB_MEAN_SHAPE + DLIB_PADDING) / (1 + 2 * DLIB_PADDING) * DLIB_SIDE


def dlib_template() -> Float64:
    """Return float64 (4, 2): right eye, left eye, right and left mouth corner on dlib's 150 px chip, x, y in pixels.

    The centre of an eye is the mean of its corners.
    """
    placed = dlib_points()
    return np.stack([placed[2:4].mean(axis=0), placed[0:2].mean(axis=0), *DLIB_MOUTH])


INSIGHTFACE_POINTS: Float64 = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Right eye, left eye, nose, right and left mouth corner on a chip of 112 px, x, y in pixels.

These are arcface_dst of InsightFace (python-package/insightface/utils/face_align.py, MIT), the same as in OpenCV's
FaceRecognizerSF::alignCrop."""


@dataclass(frozen=True)
class Template:
    """The position that a network expects of a face on its chip."""

    size: tuple[int, int]
    """Width and height of the chip in pixels."""
    landmarks: tuple[int, ...]
    """Indices of the landmarks of models/base.py that are used; the eyes, 0 and 1, come first."""
    points: Float64
    """float64 (len(landmarks), 2): their positions on the chip, x, y in pixels."""
    box: tuple[float, float, float]
    """Middle (x, y) of the detector's box and the square root of its area, in pixels of the chip. Used for faces
    without landmarks. The values are those of MTCNN's boxes: medians over 129 photographs that were aligned by their
    landmarks."""


def dlib() -> Template:
    return Template((DLIB_SIDE, DLIB_SIDE), (0, 1, 3, 4), dlib_template(), (74.5, 63.6, 133.0))


def insightface() -> Template:
    return Template((112, 112), (0, 1, 2, 3, 4), INSIGHTFACE_POINTS, (56.0, 63.6, 91.3))


def onto_template(faces: Faces, template: Template) -> Float64:
    """Return float64 (n, 2, 3), frame to chip, by the template's landmarks.

    If some of those are not known, use the eyes alone; if the eyes are not known, use the box, upright.

    True accepts at 1% false accepts by cosine (Dlib without `flip`, 509 labelled pairs) are 0.992 with all landmarks.
    They are 0.984 with the eyes and 0.968 with the box.
    """
    points = faces.landmarks.astype(np.float64)
    transforms = similarity(points[:, template.landmarks], template.points)
    by_eyes = similarity(points[:, :2], template.points[:2])
    x, y, side = template.box
    by_box = _by_box(faces, np.sqrt(faces.box[:, 2:].astype(np.float64).prod(axis=1)), side, (x, y))
    for fallback in (by_eyes, by_box):
        transforms = np.where(np.isnan(transforms), fallback, transforms)
    return transforms


def upright_box_transforms(faces: Faces, size: tuple[int, int]) -> Float64:
    """Return float64 (n, 2, 3), frame to chip of `size` (width, height): eyes level, the box in the middle.

    The box is turned about its middle, keeps its aspect ratio, and is as large as fits the chip. If the eyes are not
    known it stays upright. The chip also shows what is beside a narrow box in the frame.
    """
    eyes = (faces.landmarks[:, 1] - faces.landmarks[:, 0]).astype(np.float64)
    angle = np.nan_to_num(np.arctan2(eyes[:, 1], eyes[:, 0]))
    longest = (faces.box[:, 2:].astype(np.float64) / size).max(axis=1)
    return _by_box(faces, longest, 1.0, ((size[0] - 1) / 2, (size[1] - 1) / 2), angle)


def _by_box(
    faces: Faces, length: Float64, target: float, middle: tuple[float, float], angle: Float64 | float = 0.0
) -> Float64:
    """Return transforms that turn by -angle, move each box's middle to `middle`, and scale `length` to `target`.

    A transform is NaN if its length is 0. Coordinates are of pixel centres: a box from x on, w wide, has its middle at
    x + (w - 1) / 2.
    """
    box = faces.box.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.where(length > 0, target / length, np.nan) * np.exp(-1j * np.asarray(angle))
    centre = box[:, 0] + (box[:, 2] - 1) / 2 + 1j * (box[:, 1] + (box[:, 3] - 1) / 2)
    return _matrices(factor, complex(*middle) - factor * centre)


def similarity(points: Float64, target: Float64) -> Float64:
    """Return the similarity transform (scale, rotation, shift) that best takes points onto target.

    `points` float64 (n, k, 2), `target` float64 (k, 2), k >= 2. This is the least-squares solution of Umeyama (1991)
    without reflection, which has a closed form in complex numbers. Returns float64 (n, 2, 3), NaN if a point is NaN.
    """
    source = points[..., 0] + 1j * points[..., 1]
    goal = target[:, 0] + 1j * target[:, 1]
    source_mean = source.mean(axis=1, keepdims=True)
    centred = source - source_mean
    spread = (np.abs(centred) ** 2).sum(axis=1)
    with np.errstate(invalid="ignore"):
        factor = (np.conj(centred) * (goal - goal.mean())).sum(axis=1) / np.maximum(spread, 1e-12)
    return _matrices(factor, goal.mean() - factor * source_mean[:, 0])


def _matrices(factor: Complex128, shift: Complex128) -> Float64:
    """Return float64 (n, 2, 3): z -> factor * z + shift in the plane of complex numbers."""
    rows = [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]]
    return np.moveaxis(np.array(rows), 2, 0)


def warp_faces(
    frames_rgb: Frames, faces: Faces, transforms: Float64, size: int | tuple[int, int]
) -> npt.NDArray[np.uint8]:
    """Return uint8 (n, height, width, 3): each face under its transform (float64 (n, 2, 3), frame to chip).

    `size` is the side of a square, or width and height.
    """
    width, height = (size, size) if isinstance(size, int) else size
    chips = np.zeros((len(faces.frame), height, width, 3), np.uint8)
    for chip, frame, transform in zip(chips, faces.frame, transforms, strict=True):
        warp(np.asarray(frames_rgb[int(frame)]), transform, chip)
    return chips


def warp(frame_rgb: npt.NDArray[np.uint8], transform: Float64, chip: npt.NDArray[np.uint8]) -> None:
    """Fill one chip. Pixels outside the frame are black, as in dlib.

    A face larger than the chip is first reduced by area averaging, so that no detail aliases. Bilinear sampling reads
    only four pixels, however many of the frame fall on one of the chip.
    """
    import cv2

    if not np.isfinite(transform).all() or np.linalg.det(transform[:, :2]) <= 0:
        return  # landmarks unknown, or all at one point
    size = (chip.shape[1], chip.shape[0])
    scale = math.hypot(transform[0, 0], transform[1, 0])
    left, top, right, bottom = _source_window(transform, size, frame_rgb.shape)
    if right <= left or bottom <= top:
        return
    crop = frame_rgb[top:bottom, left:right]
    shifted = transform.copy()
    shifted[:, 2] += transform[:, :2] @ np.array([left, top])
    if scale < 1:
        height, width = (max(1, round(size * scale)) for size in crop.shape[:2])
        ratio = np.array([crop.shape[1] / width, crop.shape[0] / height])
        crop = cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA)
        # pixel centres: x_crop = (x_small + 1/2) * ratio - 1/2
        shifted[:, 2] += shifted[:, :2] @ (0.5 * ratio - 0.5)
        shifted[:, :2] *= ratio
    cv2.warpAffine(crop, shifted, size, dst=chip, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def _source_window(transform: Float64, size: tuple[int, int], shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of the part of the frame that a chip shows, with a margin for interpolation."""
    inverse = np.linalg.inv(transform[:, :2])
    width, height = size
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float64)
    source = (corners - transform[:, 2]) @ inverse.T
    margin = 2 + math.ceil(2 * np.abs(inverse).max())
    low = np.floor(source.min(axis=0)).astype(int) - margin
    high = np.ceil(source.max(axis=0)).astype(int) + margin
    return max(0, low[0]), max(0, low[1]), min(shape[1], high[0]), min(shape[0], high[1])

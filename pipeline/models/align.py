"""Chips: one small warp per face, from the frame itself onto the chip that a network was trained on."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from pipeline.models.base import Faces, Frames

Float64 = npt.NDArray[np.float64]

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
"""Right and left mouth corner on the 150 px chip. dlib's 5-point model has none: this is where MTCNN's corners lie, in
the median over 129 photographs that were aligned by the eyes alone, made symmetric about the middle of the eyes. The
figures in dlib_resnet.py are of these same photographs, so in-sample."""


def dlib_template() -> Float64:
    """float64 (4, 2): right eye, left eye, right and left mouth corner on dlib's 150 px chip, x, y in pixels.

    The centre of an eye is the mean of its corners.
    """
    placed = (DLIB_MEAN_SHAPE + DLIB_PADDING) / (1 + 2 * DLIB_PADDING) * DLIB_SIDE
    return np.stack([placed[2:4].mean(axis=0), placed[0:2].mean(axis=0), *DLIB_MOUTH])


def similarity(points: Float64, target: Float64) -> Float64:
    """The similarity transform (scale, rotation, shift) that best takes points onto target.

    `points` float64 (n, k, 2), `target` float64 (k, 2), k >= 2; least squares, as Umeyama (1991) without
    reflection, which in two dimensions has a closed form in complex numbers. Returns float64 (n, 2, 3), NaN
    where a point is.
    """
    source = points[..., 0] + 1j * points[..., 1]
    goal = target[:, 0] + 1j * target[:, 1]
    source_mean = source.mean(axis=1, keepdims=True)
    centred = source - source_mean
    spread = (np.abs(centred) ** 2).sum(axis=1)
    with np.errstate(invalid="ignore"):
        factor = (np.conj(centred) * (goal - goal.mean())).sum(axis=1) / np.maximum(spread, 1e-12)
    shift = goal.mean() - factor * source_mean[:, 0]
    rows = [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]]
    return np.moveaxis(np.array(rows), 2, 0)


def upright_box_transforms(faces: Faces, size: tuple[int, int]) -> Float64:
    """Onto a chip of `size` (width, height): the box in its middle, as large as fits, at its own aspect ratio, and
    turned until the eyes are level (not turned where they are not known). For networks without a template.

    float64 (n, 2, 3), frame to chip; not finite where a box has no area. What lies beside the box in the frame shows on
    the chip, up to its edge.
    """
    box = faces.box.astype(np.float64)
    right, left = faces.landmarks[:, 0].astype(np.float64), faces.landmarks[:, 1].astype(np.float64)
    lean = np.nan_to_num(np.arctan2(left[:, 1] - right[:, 1], left[:, 0] - right[:, 0]), nan=0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.minimum(size[0] / box[:, 2], size[1] / box[:, 3])
        factor = scale * np.exp(-1j * lean)
        # A box reaches from edge to edge, and points lie on the centres of pixels.
        middle = (box[:, 0] + box[:, 2] / 2 - 0.5) + 1j * (box[:, 1] + box[:, 3] / 2 - 0.5)
        shift = ((size[0] - 1) / 2 + 1j * (size[1] - 1) / 2) - factor * middle
    rows = [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]]
    return np.moveaxis(np.array(rows), 2, 0)


def warp_faces(frames_rgb: Frames, faces: Faces, transforms: Float64, side: int) -> npt.NDArray[np.uint8]:
    """uint8 (n, side, side, 3): each face under its transform (float64 (n, 2, 3), frame to chip)."""
    chips = np.zeros((len(faces.frame), side, side, 3), np.uint8)
    for chip, frame, transform in zip(chips, faces.frame, transforms, strict=True):
        warp(np.asarray(frames_rgb[int(frame)]), transform, chip)
    return chips


def warp(frame_rgb: npt.NDArray[np.uint8], transform: Float64, chip: npt.NDArray[np.uint8]) -> None:
    """Fill one chip. Pixels outside the frame are black, as dlib makes them.

    A face larger than the chip is first reduced by area averaging, so that no detail aliases: bilinear
    sampling alone reads four pixels, however many there are under one of the chip's.
    """
    import cv2

    if not np.isfinite(transform).all() or np.linalg.det(transform[:, :2]) <= 0:
        return  # landmarks unknown, or all in one place
    side = chip.shape[0]
    scale = math.hypot(transform[0, 0], transform[1, 0])
    left, top, right, bottom = _source_window(transform, side, frame_rgb.shape)
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
    cv2.warpAffine(crop, shifted, (side, side), dst=chip, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def _source_window(transform: Float64, side: int, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """left, top, right, bottom of the part of the frame that a chip shows, with a margin for interpolation."""
    inverse = np.linalg.inv(transform[:, :2])
    corners = np.array([[0, 0], [side, 0], [0, side], [side, side]], np.float64)
    source = (corners - transform[:, 2]) @ inverse.T
    margin = 2 + math.ceil(2 * np.abs(inverse).max())
    low = np.floor(source.min(axis=0)).astype(int) - margin
    high = np.ceil(source.max(axis=0)).astype(int) + margin
    return max(0, low[0]), max(0, low[1]), min(shape[1], high[0]), min(shape[0], high[1])

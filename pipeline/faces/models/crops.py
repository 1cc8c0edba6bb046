"""Crops as DeepFace cuts them, for `align: deepface`: a box, turned about its middle until the eyes are level.

The code follows DeepFace 0.0.103 (modules/detection.py, modules/preprocessing.py) step by step, with its roundings.
DeepFace reads from a padded copy of four times the frame's pixels; this reads from the frame itself, black beyond its
edge. Arithmetic is float32; DeepFace's is float64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.faces.models.base import Faces, Frames

Frame = npt.NDArray[Any]
"""uint8; with `pipeline.deepface` also the other types that OpenCV resizes, from 0 to 1 or to 255."""
Float32 = npt.NDArray[np.float32]
Box = tuple[int, int, int, int]

RIGHT_EYE, LEFT_EYE = 0, 1
"""Rows of the five landmarks of models/base.py."""

NORMALISATIONS = ("base", "raw", "Facenet", "Facenet2018", "VGGFace", "VGGFace2", "ArcFace")
"""Names of DeepFace's normalisations (preprocessing.normalize_input)."""

MEANS_BGR = {"VGGFace": (93.5940, 104.7624, 129.1863), "VGGFace2": (91.4953, 103.8827, 131.0912)}


def cut(frame_rgb: Frame, box: npt.NDArray[np.float32], landmarks: npt.NDArray[np.float32], rotate: bool) -> Frame:
    """Return one face, (height, width, 3) RGB of the frame's type; empty if DeepFace's own crop is empty.

    `box` float32 (4,): x, y, w, h in whole pixels, which may reach beyond the frame. `landmarks` float32 (5, 2): the
    eyes give the angle; if they are NaN the face is not turned. `rotate` is DeepFace's parameter `align`.
    """
    x, y, w, h = (int(value) for value in box)
    if not rotate:
        return frame_rgb[max(y, 0) : y + h, max(x, 0) : x + w]
    import cv2

    aside, above = int(0.5 * w), int(0.5 * h)
    around = _window(frame_rgb, x - aside, y - above, w + 2 * aside, h + 2 * above)
    right, left = landmarks[[RIGHT_EYE, LEFT_EYE]].astype(np.float64)
    known = not np.isnan([right, left]).any()
    angle = math.degrees(math.atan2(left[1] - right[1], left[0] - right[0])) if known else None
    if angle is not None and around.size:
        height, width = around.shape[:2]
        turn = cv2.getRotationMatrix2D((width // 2, height // 2), angle, 1.0)
        around = cv2.warpAffine(around, turn, (width, height), flags=cv2.INTER_CUBIC).reshape(around.shape)
    x1, y1, x2, y2 = _turned((aside, above, aside + w, above + h), angle or 0.0, around.shape[:2])
    return around[y1:y2, x1:x2]


def _window(frame: Frame, x: int, y: int, w: int, h: int) -> Frame:
    """Return a part of a frame, black beyond the frame's edge."""
    height, width = frame.shape[:2]
    if x >= 0 and y >= 0 and x + w <= width and y + h <= height:
        return frame[y : y + h, x : x + w]
    window = np.zeros((h, w, 3), frame.dtype)
    top, left, bottom, right = max(y, 0), max(x, 0), min(y + h, height), min(x + w, width)
    if top < bottom and left < right:
        window[top - y : bottom - y, left - x : right - x] = frame[top:bottom, left:right]
    return window


def _turned(area: Box, angle: float, size: tuple[int, int]) -> Box:
    """Return the area's new box once its picture, of `size` (height, width), is turned by `angle` degrees."""
    if angle == 0:
        return area
    direction = 1 if angle >= 0 else -1
    turn = abs(angle) % 360 * np.pi / 180
    height, width = size
    w, h = area[2] - area[0], area[3] - area[1]
    x, y = (area[0] + area[2]) / 2 - width / 2, (area[1] + area[3]) / 2 - height / 2
    x, y = x * np.cos(turn) + y * direction * np.sin(turn), -x * direction * np.sin(turn) + y * np.cos(turn)
    x, y = x + width / 2, y + height / 2
    return max(int(x - w / 2), 0), max(int(y - h / 2), 0), min(int(x + w / 2), width), min(int(y + h / 2), height)


def fit(crop_rgb: Frame, size: tuple[int, int], chip_bgr: Float32, eight_bit: bool = False) -> None:
    """Fill one chip, float32 (height, width, 3) BGR from 0 to 1: the crop at its own aspect ratio, black beside it.

    `size` is the chip's width and height. With `eight_bit` the crop is scaled in its own type, before it becomes
    float32. As in DeepFace, a crop of another type than uint8 goes up to 255 if it exceeds 1. That is decided before
    and after the crop is resized.
    """
    import cv2

    width, height = size
    factor = min(height / crop_rgb.shape[0], width / crop_rgb.shape[1])
    w, h = max(1, int(crop_rgb.shape[1] * factor)), max(1, int(crop_rgb.shape[0] * factor))
    if crop_rgb.dtype != np.uint8:
        scaled = crop_rgb / 255 if not eight_bit and crop_rgb.max() > 1 else crop_rgb
        small = cv2.resize(scaled, (w, h)).astype(np.float32)
        small = small / np.float32(255) if small.max() > 1 else small
    elif eight_bit:
        small = cv2.resize(crop_rgb, (w, h)).astype(np.float32) / np.float32(255)
    else:
        small = cv2.resize(crop_rgb.astype(np.float32) / np.float32(255), (w, h))
    top, left = (height - h) // 2, (width - w) // 2
    chip_bgr[:] = 0
    chip_bgr[top : top + h, left : left + w] = small[:, :, ::-1]


def in_eight_bits(frame: Frame) -> npt.NDArray[np.uint8]:
    """Return a frame as uint8, rounded and cut to 0 to 255, not scaled."""
    if frame.dtype == np.uint8:
        return frame
    return np.nan_to_num(np.rint(frame)).clip(0, 255).astype(np.uint8)


def deepface_chips(
    frames_rgb: Frames, faces: Faces, size: tuple[int, int], rotate: bool = True, eight_bit: bool = False
) -> Float32:
    """Return float32 (n, height, width, 3) BGR from 0 to 1: the input of DeepFace's networks, one chip per face.

    `size` is width and height in pixels; `rotate` is DeepFace's parameter `align`; `eight_bit` as in `fit`:
    DeepFace.represent scales so if it skips detection (detector skip). If no part of a face is in the frame, its chip
    is black.
    """
    chips = np.zeros((len(faces.frame), size[1], size[0], 3), np.float32)
    for chip, frame, box, landmarks in zip(chips, faces.frame, faces.box, faces.landmarks, strict=True):
        crop = cut(np.asarray(frames_rgb[int(frame)]), box, landmarks, rotate)
        if crop.size:
            fit(crop, size, chip, eight_bit)
    return chips


def normalise(chips: Float32, normalization: str) -> Float32:
    """Return chips from 0 to 1, float32 (n, height, width, 3), after DeepFace's normalize_input; `base` keeps them.

    Raises ValueError for an unknown name.
    """
    if normalization == "base":
        return chips
    chips = chips * np.float32(255)
    if normalization == "raw":
        return chips
    if normalization == "Facenet":
        mean = chips.mean(axis=(1, 2, 3), keepdims=True)
        least = 1 / math.sqrt(math.prod(chips.shape[1:]))
        spread = np.maximum(chips.std(axis=(1, 2, 3), keepdims=True), np.float32(least))
        return np.asarray((chips - mean) / spread, np.float32)
    if normalization == "Facenet2018":
        return chips / np.float32(127.5) - np.float32(1)
    if normalization in MEANS_BGR:
        return chips - np.array(MEANS_BGR[normalization], np.float32)
    if normalization == "ArcFace":
        return (chips - np.float32(127.5)) / np.float32(128)
    raise ValueError(f"unknown normalization {normalization!r}; valid: {', '.join(NORMALISATIONS)}")

"""Faces of stock DeepFace and of ours, side by side."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from pipeline.faces.models.base import Detector


def stock_faces(name: str, frame_rgb: np.ndarray, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """DeepFace's list for one frame: float64 (n, 8), box and eyes as it crops by them, NaN where it has no eye; and its
    confidences. `options`: DeepFace's."""
    from deepface.modules import detection

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # with more, cascades find in an order of chance
    try:
        found = detection.detect_faces(name, np.ascontiguousarray(frame_rgb[:, :, ::-1]), **options)
    finally:
        cv2.setNumThreads(threads)
    areas = [face.facial_area for face in found if face.img.size]
    rows = [[area.x, area.y, area.w, area.h, *_eye(area.right_eye), *_eye(area.left_eye)] for area in areas]
    confidence = [float(area.confidence or 0) for area in areas]
    return np.array(rows, np.float64).reshape(-1, 8), np.array(confidence)


def our_faces(detector: Detector, frame_rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same of ours, in the order of `rank`."""
    faces = detector.detect([frame_rgb])
    assert faces.rank is not None
    order = np.argsort(faces.rank)
    np.testing.assert_array_equal(faces.rank[order], np.arange(len(order)))
    assert np.isnan(faces.landmarks[:, 2:]).all(), "no client at test gives a nose or a mouth"
    rows = np.concatenate([faces.box, faces.landmarks[:, :2].reshape(-1, 4)], axis=1)
    return rows[order], faces.confidence[order]


def _eye(eye: tuple[int, int] | None) -> tuple[float, float]:
    return (np.nan, np.nan) if eye is None else (float(eye[0]), float(eye[1]))

"""Distances below which two faces count as one person."""

from __future__ import annotations

DEEPFACE_THRESHOLDS = {
    "VGG-Face": {"cosine": 0.68, "euclidean": 1.17, "euclidean_l2": 1.17, "angular": 0.39},
    "Facenet": {"cosine": 0.40, "euclidean": 10, "euclidean_l2": 0.80, "angular": 0.33},
    "Facenet512": {"cosine": 0.30, "euclidean": 23.56, "euclidean_l2": 1.04, "angular": 0.35},
    "OpenFace": {"cosine": 0.10, "euclidean": 0.55, "euclidean_l2": 0.55, "angular": 0.11},
    "DeepFace": {"cosine": 0.23, "euclidean": 64, "euclidean_l2": 0.64, "angular": 0.12},
    "DeepID": {"cosine": 0.015, "euclidean": 45, "euclidean_l2": 0.17, "angular": 0.04},
    "ArcFace": {"cosine": 0.68, "euclidean": 4.15, "euclidean_l2": 1.13, "angular": 0.39},
    "Dlib": {"cosine": 0.07, "euclidean": 0.6, "euclidean_l2": 0.4, "angular": 0.12},
    "SFace": {"cosine": 0.593, "euclidean": 10.734, "euclidean_l2": 1.055, "angular": 0.36},
    "GhostFaceNet": {"cosine": 0.65, "euclidean": 35.71, "euclidean_l2": 1.10, "angular": 0.38},
    "Buffalo_L": {"cosine": 0.55, "euclidean": 0.6, "euclidean_l2": 1.1, "angular": 0.45},
}
"""DeepFace 0.0.103, deepface/config/threshold.py: by recogniser and distance metric (verification.find_distance)."""

NATIVE_THRESHOLDS = {"Dlib": {"cosine": 0.09, "euclidean": 0.6, "euclidean_l2": 0.42, "angular": 0.136}}
"""For `align: native`, where they have been measured: `make accuracy` on 509 labelled pairs (259 of two people), faces
from mtcnn, in-sample. True and false accepts there, without and with `flip`:

| distance     | DeepFace's | without        | with           | here | without        | with           |
|--------------|------------|----------------|----------------|------|----------------|----------------|
| cosine       | 0.07       | 0.928 / 0      | 0.964 / 0      | 0.09 | 0.976 / 0.004  | 0.992 / 0.004  |
| euclidean    | 0.6        | 0.984 / 0      | 0.996 / 0      | 0.6  | 0.984 / 0      | 0.996 / 0      |
| euclidean_l2 | 0.4        | 0.972 / 0      | 0.972 / 0      | 0.42 | 0.976 / 0.004  | 0.992 / 0      |

`angular` follows from `cosine`. DeepFace's are not wrong for native chips, only stricter than they need to be."""


def thresholds(model: str, align: str) -> dict[str, float]:
    """Distances by metric below which two faces count as one person: those measured for such chips, else DeepFace's."""
    measured = NATIVE_THRESHOLDS.get(model) if align == "native" else None
    return dict(measured or DEEPFACE_THRESHOLDS[model])

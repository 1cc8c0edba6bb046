"""DeepFace's return values, built from arrays: the same keys, types and roundings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.faces.deepface.analysis import Analysis, FrameFaces
from pipeline.faces.models import zoo
from pipeline.faces.models.base import Faces

if TYPE_CHECKING:
    from pipeline.faces.deepface.gallery import Gallery

RIGHT_EYE, LEFT_EYE, NOSE, MOUTH_RIGHT, MOUTH_LEFT = range(5)
REAL = 1
"""Column of the class `real`."""


def facial_area(box: np.ndarray, landmarks: np.ndarray, width: int, height: int) -> dict[str, Any]:
    """Return DeepFace's dict of one face: whole pixels, cut at the frame's edge as extract_faces does it."""
    x, y = max(0, int(box[0])), max(0, int(box[1]))
    points = [_point(point, width, height) for point in landmarks]
    area: dict[str, Any] = {
        "x": x,
        "y": y,
        "w": min(width - x - 1, int(box[2])),
        "h": min(height - y - 1, int(box[3])),
        "left_eye": points[LEFT_EYE],
        "right_eye": points[RIGHT_EYE],
    }
    for name, k in (("nose", NOSE), ("mouth_left", MOUTH_LEFT), ("mouth_right", MOUTH_RIGHT)):
        if not np.isnan(landmarks[k]).any():
            area[name] = points[k]
    return area


def _point(point: np.ndarray, width: int, height: int) -> tuple[int, int] | None:
    """Return x, y; None if the point is not known or lies outside the frame."""
    if np.isnan(point).any():
        return None
    x, y = int(point[0]), int(point[1])
    return (x, y) if 0 <= x < width and 0 <= y < height else None


def checked_areas(faces: FrameFaces, analysis: Analysis) -> list[dict[str, Any]]:
    """Return the facial area of each face. Raises DeepFace's exceptions as DeepFace would: no face, or a spoof."""
    from deepface.modules.exceptions import FaceNotDetected, SpoofDetected

    if len(faces.arrays["box"]) == 0:
        dtype = np.uint8 if faces.frame_rgb is None else faces.frame_rgb.dtype
        raise FaceNotDetected(
            f"Face could not be detected in {faces.name}."
            "Please confirm that the picture is a face photo or consider to set enforce_detection param to False."
            + ("" if dtype == np.uint8 else f" It is {dtype}; detectors expect uint8, from 0 to 255.")
        )
    if analysis.anti_spoofing and (faces.arrays["real"].argmax(axis=1) != REAL).any():
        raise SpoofDetected("Spoof detected in the given image.")
    boxes, landmarks = faces.arrays["box"], faces.arrays["landmarks"]
    if faces.scale != (1, 1):
        boxes, landmarks = boxes / np.tile(faces.scale, 2), landmarks / np.array(faces.scale)
    rows = zip(boxes, landmarks, strict=True)
    return [facial_area(box, landmarks, faces.width, faces.height) for box, landmarks in rows]


def _confidence(value: np.float32) -> float:
    return round(float(value), 2)


@dataclass(frozen=True)
class Represented:
    """Builds the return value of `DeepFace.represent`."""

    analysis: Analysis
    l2_normalize: bool
    minmax_normalize: bool
    return_face: bool

    def __call__(self, faces: FrameFaces) -> list[dict[str, Any]]:
        from deepface.modules.normalization import normalize_embedding_l2, normalize_embedding_minmax

        areas: list[dict[str, Any]] = checked_areas(faces, self.analysis)
        confidences: list[float] = [_confidence(value) for value in faces.arrays["confidence"]]
        if self.analysis.detector == "skip":  # DeepFace uses the picture's rows as its width, and an int 0
            areas, confidences = [{"x": 0, "y": 0, "w": faces.height, "h": faces.width}], [0]
        embeddings = faces.arrays["embedding"].tolist()
        if self.minmax_normalize:
            embeddings = normalize_embedding_minmax(str(self.analysis.recogniser), embeddings)
        if self.l2_normalize:
            embeddings = normalize_embedding_l2(embeddings)
        found = [
            {"embedding": embedding, "facial_area": area, "face_confidence": confidence}
            for embedding, area, confidence in zip(embeddings, areas, confidences, strict=True)
        ]
        if self.return_face:
            for one, chip in zip(found, self._chips(faces), strict=True):
                one["face"] = chip
        return found

    def _chips(self, faces: FrameFaces) -> np.ndarray:
        """Return float32 (n, height, width, 3): the network's input, BGR."""
        from pipeline.faces.models.crops import deepface_chips, normalise

        if faces.frame_rgb is None:
            raise ValueError("return_face needs the pixels, which a store does not keep: call without out=")
        size = zoo.card(str(self.analysis.recogniser), "recogniser").input_size
        assert size is not None
        arrays = faces.arrays
        frame = np.zeros(len(arrays["box"]), np.int64)
        whole = Faces(frame, arrays["box"], arrays["landmarks"], arrays["confidence"])
        chips = deepface_chips([faces.frame_rgb], whole, size, self.analysis.rotate, self.analysis.eight_bit)
        return normalise(chips, self.analysis.normalization)


@dataclass(frozen=True)
class Analyzed:
    """Builds the return value of `DeepFace.analyze`."""

    analysis: Analysis

    def __call__(self, faces: FrameFaces) -> list[dict[str, Any]]:
        results = []
        for k, area in enumerate(checked_areas(faces, self.analysis)):
            found: dict[str, Any] = {}
            for action in self.analysis.attributes:
                values = faces.arrays[action][k]
                if action == "age":
                    found["age"] = int(values)
                else:
                    classes = zoo.card(action.capitalize(), "attribute").classes
                    found[action] = {name: 100 * value for name, value in zip(classes, values, strict=True)}
                    found[f"dominant_{action}"] = classes[int(np.argmax(values))]
                found["region"] = area  # after the first action, as DeepFace has it
                found["face_confidence"] = _confidence(faces.arrays["confidence"][k])
            results.append(found)
        return results


@dataclass(frozen=True)
class Found:
    """Builds the return value of `DeepFace.find`: for each face, the pictures of the gallery that are near enough."""

    analysis: Analysis
    gallery: Gallery
    distance_metric: str | Callable[..., Any]
    threshold: float | None
    similarity_search: bool
    k: int | None
    as_dicts: bool

    def __call__(self, faces: FrameFaces) -> list[Any]:
        from deepface.modules.verification import find_threshold

        if not len(self.gallery):
            return []
        areas = checked_areas(faces, self.analysis)
        limit = self.threshold
        if limit is None:
            limit = find_threshold(str(self.analysis.recogniser), self.distance_metric)
        distances = self.gallery.distances(faces.arrays["embedding"], self.distance_metric, pairwise=not self.as_dicts)
        tables = [self._table(area, row, limit) for area, row in zip(areas, distances, strict=True)]
        return [table.to_dict("records") for table in tables] if self.as_dicts else tables

    def _table(self, area: dict[str, Any], distances: np.ndarray, limit: float) -> Any:
        from deepface.modules.verification import find_confidence

        reach = np.inf if self.similarity_search else limit
        near = np.flatnonzero(distances <= reach)
        near = near[np.argsort(distances[near], kind="stable")][: self.k]
        table = self.gallery.table.iloc[near].reset_index(drop=True)
        # With return_type dict and similarity_search DeepFace reports an infinite threshold.
        table["threshold"] = reach if self.as_dicts else limit
        for side in "xywh":
            table[f"source_{side}"] = area[side]
        table["distance"] = distances[near].astype(np.float64)
        confidences = [
            find_confidence(
                distance=float(distance),
                model_name=str(self.analysis.recogniser),
                distance_metric=self.distance_metric,
                verified=bool(distance <= (reach if self.as_dicts else limit)),
            )
            if np.isfinite(distance)
            else 0.0
            for distance in distances[near]
        ]
        table["confidence"] = np.array(confidences, np.float64)
        return table

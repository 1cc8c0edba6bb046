"""Every other detector of DeepFace, run by DeepFace's own client: one picture at a time, one thread at a time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.errors import ModelError
from pipeline.faces.models.base import Faces, Frames
from pipeline.faces.models.detectors.base import Frame, checked, joined, need, ordered
from pipeline.models.card import ModelCard
from pipeline.models.weights import weights_files

LANDMARKS = ("right_eye", "left_eye", "nose", "mouth_right", "mouth_left")
"""Fields of DeepFace's FacialAreaRegion, in the order of models/base.py."""


class ClientDetector:
    """A detector that DeepFace's client of that name runs. Thread-safe, by a lock.

    Boxes and eyes are in whole pixels. Thresholds are the client's; some read environment variables, see DeepFace's
    documentation. `confidence` is the client's, from 0 to 1 for all detectors that run this way.
    """

    def __init__(self, card: ModelCard) -> None:
        """Create the client.

        Raises ModelError if its package or its weights are missing (DeepFace would download them), or if it does not
        start.
        """
        need(card)
        weights_files(card)
        from deepface.modules import modeling

        try:
            self._client: Any = modeling.get_model_class("face_detector", card.name)()
        except Exception as error:  # any error of the package; the user needs one line with its reason
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ModelError(f"detector {card.name!r} cannot start: {reason}") from error
        self._lock = threading.Lock()

    def detect(self, frames_rgb: Frames) -> Faces:
        """Return the faces of all frames. Raises ValueError for anything but uint8 (height, width, 3) frames."""
        return ordered(self.areas(frames_rgb))

    def areas(self, frames_rgb: Frames) -> Faces:
        """Return the faces of DeepFace's client (detectors/base.py)."""
        return joined([self._of_frame(index, checked(frame)) for index, frame in enumerate(frames_rgb)])

    def _of_frame(self, index: int, frame: Frame) -> Faces:
        with self._lock:
            regions: Sequence[Any] = self._client.detect_faces(np.ascontiguousarray(frame[:, :, ::-1]))
        box = np.array([[r.x, r.y, r.w, r.h] for r in regions], np.float32).reshape(-1, 4)
        landmarks = np.full((len(regions), 5, 2), np.nan, np.float32)
        for region, points in zip(regions, landmarks, strict=True):
            for k, name in enumerate(LANDMARKS):
                if getattr(region, name) is not None:
                    points[k] = getattr(region, name)
        confidence = np.array([region.confidence or 0 for region in regions], np.float32)
        return Faces(np.full(len(box), index, np.int64), box, landmarks, confidence)

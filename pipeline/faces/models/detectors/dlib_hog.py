"""The detector `dlib`: dlib's HOG detector of frontal faces and its shape predictor of five landmarks."""

from __future__ import annotations

import threading
from importlib import import_module

import numpy as np

from pipeline.faces.models import zoo
from pipeline.faces.models.base import Faces, Frames
from pipeline.faces.models.detectors.base import Frame, checked, joined, need, ordered
from pipeline.machine.device import Device
from pipeline.models.weights import weights_files

NAME = "dlib"
DOUBLINGS = 1
"""Times that a frame is doubled in size first, as in DeepFace's client: it then finds faces from 40 pixels on."""

EYE_CORNERS = ((2, 3), (0, 1))
"""Parts of dlib's five point shape: corners of the right and of the left eye; part 4 is the base of the nose."""


class DlibDetector:
    """Finds frontal faces of 40 pixels or more, and their eyes. Thread-safe.

    `confidence` is dlib's score cut to 0 to 1 (it may be above 3). The nose stays NaN: dlib gives its base, other
    detectors its tip.
    """

    def __init__(self, device: Device, min_face: float = 20, threshold: float | None = None) -> None:
        """Load the detector. It runs on the CPU, whatever the device, and ignores min_face.

        Raises ModelError: the package dlib, or the file of its shape predictor, is missing.
        """
        need(zoo.card(NAME))
        dlib = import_module(NAME)
        (file,) = weights_files(zoo.card(NAME))
        self._detector = dlib.get_frontal_face_detector()
        self._predictor = dlib.shape_predictor(str(file))
        self._threshold = threshold or 0.0
        self._lock = threading.Lock()

    def detect(self, frames_rgb: Frames) -> Faces:
        """Return the faces of all frames; boxes may reach beyond the frame.

        Raises ValueError for anything but uint8 (height, width, 3) frames.
        """
        return ordered(self._all(frames_rgb, native=True))

    def areas(self, frames_rgb: Frames) -> Faces:
        """Return the faces of DeepFace's client (detectors/base.py)."""
        return self._all(frames_rgb, native=False)

    def _all(self, frames_rgb: Frames, native: bool) -> Faces:
        return joined([self._of_frame(index, checked(frame), native) for index, frame in enumerate(frames_rgb)])

    def _of_frame(self, index: int, frame: Frame, native: bool) -> Faces:
        # DeepFace passes BGR. dlib takes the channel of steepest gradient, the first of equals.
        picture = frame if native else np.ascontiguousarray(frame[:, :, ::-1])
        with self._lock:  # the detector keeps its pyramid of features
            found, scores, _ = self._detector.run(picture, DOUBLINGS, self._threshold)
            shapes = [self._predictor(picture, rectangle) for rectangle in found]
        corners = np.array([[r.left(), r.top(), r.right(), r.bottom()] for r in found], np.float64).reshape(-1, 4)
        points = np.array([[(p.x, p.y) for p in shape.parts()] for shape in shapes], np.float64).reshape(-1, 5, 2)
        landmarks = np.full((len(found), 5, 2), np.nan, np.float32)
        for eye, (one, other) in enumerate(EYE_CORNERS):
            middle = (points[:, one] + points[:, other]) / 2
            landmarks[:, eye] = middle if native else np.floor(middle)
        if not native:  # cut boxes to the picture
            corners[:, :2] = np.maximum(corners[:, :2], 0)
            corners[:, 2:] = np.minimum(corners[:, 2:], frame.shape[1::-1])
        box = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).astype(np.float32)
        confidence = np.clip(np.array(scores, np.float32).reshape(-1), 0, 1)
        return Faces(np.full(len(found), index, np.int64), box, landmarks, confidence)

"""The detector `opencv`: OpenCV's Haar cascades of faces, and of the eyes in them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError
from pipeline.faces.models import zoo
from pipeline.faces.models.base import Faces, Frames
from pipeline.faces.models.detectors.base import Frame, checked, joined, ordered, taken
from pipeline.machine.device import Device
from pipeline.models.weights import weights_files

NAME = "opencv"
SCALE_STEP, NEIGHBOURS = 1.1, 10
"""Arguments of detectMultiScale in DeepFace's client (OpenCv.py)."""

Float32 = npt.NDArray[np.float32]


class CascadeDetector:
    """Finds frontal faces, and both eyes in some of them. Thread-safe.

    The cascade's weight s has no upper bound. The native `confidence` is s / (1 + s), so that `threshold` (default 0)
    is a share. With DeepFace it is its client's (100 - s) / 100, which is lower the surer the cascade is.
    """

    def __init__(self, device: Device, min_face: float = 20, threshold: float | None = None) -> None:
        """Load the cascades. They run on the CPU, whatever the device. Raises ModelError if they are missing."""
        faces, _ = weights_files(zoo.card(NAME))
        self._cascade = _Cascade(faces)
        self._eyes = EyeFinder()
        self._min_face = round(min_face)
        self._threshold = threshold or 0.0

    def detect(self, frames_rgb: Frames) -> Faces:
        """Return the faces of all frames, with eyes if both are found.

        Raises ValueError for anything but uint8 (height, width, 3) frames.
        """
        faces = self._all(frames_rgb, self._min_face)
        share = faces.confidence / (1 + faces.confidence)
        faces = Faces(faces.frame, faces.box, faces.landmarks, share.astype(np.float32))
        return ordered(taken(faces, share >= self._threshold))

    def areas(self, frames_rgb: Frames) -> Faces:
        """Return the faces of DeepFace's client (detectors/base.py)."""
        faces = self._all(frames_rgb, 0)
        return Faces(faces.frame, faces.box, faces.landmarks, (100 - faces.confidence) / np.float32(100))

    def _all(self, frames_rgb: Frames, min_face: int) -> Faces:
        """Return all faces in the cascade's order, with its weights as confidence."""
        found = []
        for index, frame in enumerate(map(checked, frames_rgb)):
            boxes, weights = self._cascade.find(frame, min_face)
            landmarks = np.full((len(boxes), 5, 2), np.nan, np.float32)
            for (x, y, w, h), points in zip(boxes, landmarks, strict=True):
                eyes = self._eyes.find(frame[y : y + h, x : x + w])
                if eyes is not None:
                    points[:2] = eyes + np.array([x, y])
            found.append(Faces(np.full(len(boxes), index, np.int64), boxes.astype(np.float32), landmarks, weights))
        return joined(found)


class EyeFinder:
    """Finds the eyes in the crop of a face, as DeepFace's OpenCvClient.find_eyes does. Thread-safe."""

    def __init__(self) -> None:
        """Load the cascade. Raises ModelError if OpenCV or its files lack it."""
        _, eyes = weights_files(zoo.card(NAME))
        self._cascade = _Cascade(eyes)

    def find(self, crop_rgb: Frame) -> npt.NDArray[np.int64] | None:
        """Return the middle of the right and the left eye (the person's own); None if no two are found.

        int64 (2, 2): x, y in pixels of the crop.
        """
        if not crop_rgb.size:
            return None
        boxes = self._cascade.find_plain(crop_rgb).tolist()
        largest = sorted(boxes, key=lambda box: box[2] * box[3], reverse=True)[:2]
        if len(largest) < 2:
            return None
        first, second = largest if largest[0][0] < largest[1][0] else largest[::-1]
        return np.array([(int(x + w / 2), int(y + h / 2)) for x, y, w, h in (first, second)], np.int64)


_alone = threading.Lock()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run one cascade at a time in this process, on one thread.

    A cascade keeps its working memory. Several threads would also give its boxes in an order of chance. DeepFace lists
    faces, and chooses among eyes of equal size, in that order.
    """
    with _alone:
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            yield
        finally:
            cv2.setNumThreads(threads)


class _Cascade:
    """One of OpenCV's cascades. Thread-safe."""

    def __init__(self, file: Path) -> None:
        if not hasattr(cv2, "CascadeClassifier"):
            raise ModelError(
                f"detector 'opencv' needs cv2.CascadeClassifier, which OpenCV {cv2.__version__} lacks; run: "
                'pip install "opencv-contrib-python-headless<5"'
            )
        self._cascade = cv2.CascadeClassifier(str(file))
        if self._cascade.empty():
            raise ModelError(f"{file} is not a cascade of OpenCV 4; run: reelgraph models fetch {NAME}")

    def find(self, picture_rgb: Frame, min_size: int) -> tuple[npt.NDArray[np.int64], Float32]:
        """Return boxes x, y, w, h, int64 (n, 4), and their weights, float32 (n,)."""
        with _one_thread():
            boxes, _, weights = self._cascade.detectMultiScale3(
                _grey(picture_rgb), SCALE_STEP, NEIGHBOURS, minSize=(min_size, min_size), outputRejectLevels=True
            )
        # If OpenCV finds nothing it returns empty tuples.
        return np.array(boxes, np.int64).reshape(-1, 4), np.array(weights, np.float32).reshape(-1)

    def find_plain(self, picture_rgb: Frame) -> npt.NDArray[np.int64]:
        """Return boxes x, y, w, h, int64 (n, 4)."""
        with _one_thread():
            boxes = self._cascade.detectMultiScale(_grey(picture_rgb), SCALE_STEP, NEIGHBOURS)
        return np.array(boxes, np.int64).reshape(-1, 4)


def _grey(picture_rgb: Frame) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(picture_rgb, cv2.COLOR_RGB2GRAY))

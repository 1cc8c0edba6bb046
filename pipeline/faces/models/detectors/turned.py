"""Option `turned`: a second look at frames turned by 90, 180 and 270 degrees, for heads that are not upright."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pipeline.faces.models.base import Detector, Faces, Frames
from pipeline.faces.models.detectors.base import ordered
from pipeline.faces.models.detectors.boxes import by_score
from pipeline.faces.models.detectors.whole_frame import chosen_by_frame, join_faces

SURE = {"mtcnn": 0.995, "fastmtcnn": 0.995, "yunet": 0.9, "yunet-mtcnn": 0.9}
"""Score from which a face is surely upright, by detector. Measured on 157 faces (docs/benchmarks.md): nine of ten
upright faces reach it. Of the heads turned by 90 or 180 degrees that a detector takes for upright, one in 50 does."""
OVERLAP = 0.3
"""Intersection over union from which two boxes of different turns are one face."""


class Turned:
    """Looks again at each frame that has no face, or a face that is not surely upright. Thread-safe.

    Of boxes that show one face it keeps the best score. Without a score in SURE it looks at every frame again. A
    frame's faces depend on that frame alone.
    """

    def __init__(self, detector: Detector, name: str) -> None:
        self._detector = detector
        self._sure = SURE.get(name, np.inf)

    def detect(self, frames_rgb: Frames) -> Faces:
        """Return the faces of all frames, in pixels of the unturned frame. Raises as the detector does."""
        upright = self._detector.detect(frames_rgb)
        sure = np.bincount(upright.frame, minlength=len(frames_rgb)) > 0
        sure[upright.frame[upright.confidence < self._sure]] = False
        again = np.flatnonzero(~sure)
        lying = [frames_rgb[index] for index in again.tolist()]
        sizes = np.array([frame.shape[1::-1] for frame in lying]).reshape(-1, 2)
        parts = [upright]
        for turns in (1, 2, 3):
            frames = [np.ascontiguousarray(np.rot90(frame, turns)) for frame in lying]
            found = turned_back(self._detector.detect(frames), sizes, turns)
            parts.append(replace(found, frame=again[found.frame]))
        every = join_faces(parts)
        corners = np.concatenate([every.box[:, :2], every.box[:, :2] + every.box[:, 2:]], axis=1)

        def choose(faces: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
            if sure[every.frame[faces[0]]]:
                return faces
            return faces[by_score(corners[faces], every.confidence[faces], OVERLAP)]

        return ordered(chosen_by_frame(every, choose))


def turned_back(found: Faces, sizes: npt.NDArray[np.int64], turns: int) -> Faces:
    """Return faces of frames that were turned to the left by `turns` right angles, in pixels of the unturned frames.

    sizes: int64 (frames, 2), width and height of each unturned frame. Landmarks keep the person's own right and left.
    """
    start, stop = found.box[:, None, :2], found.box[:, None, :2] + found.box[:, None, 2:]
    points = np.concatenate([found.landmarks, start, stop], axis=1)
    for turn in reversed(range(turns)):
        width = sizes[found.frame, turn % 2, None].astype(np.float32)
        points = np.stack([width - 1 - points[..., 1], points[..., 0]], axis=-1)
    low, high = points[:, 5:].min(axis=1), points[:, 5:].max(axis=1)
    return replace(found, box=np.concatenate([low, high - low], axis=1), landmarks=points[:, :5])

"""The detector `yunet-mtcnn`: YuNet proposes faces, and R-Net and O-Net of MTCNN refine them.

YuNet takes a fifth of mtcnn's time or less for a frame. It finds more faces at the frame's edge, but its landmarks are
coarse. O-Net's landmarks at YuNet's boxes are near to those of the detector `mtcnn`
(docs/benchmarks.md). Of the faces that YuNet is not sure of, those stay of which both networks of MTCNN are sure.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.faces.models.base import Faces, Frames
from pipeline.faces.models.detectors.base import ordered, taken
from pipeline.faces.models.detectors.boxes import suppress
from pipeline.faces.models.detectors.mtcnn import MtcnnDetector, Thresholds
from pipeline.faces.models.detectors.yunet import THRESHOLD, YunetDetector
from pipeline.machine.device import Device

PROPOSED = 0.4
"""Default of YuNet's least score for a proposal. Of 68 faces of groups, 0.5 misses one more, and 0.3 finds no other."""


class YunetMtcnnDetector:
    """Finds faces and five landmarks. Thread-safe.

    `min_face` is the smallest face to look for, in pixels; time goes with its inverse square. `threshold` is the least
    score of YuNet, 0 to 1; None: PROPOSED. The confidence of a face is that score.
    """

    def __init__(self, device: Device, min_face: float = 20, threshold: float | None = None) -> None:
        self._yunet = _Yunet(device, min_face, PROPOSED if threshold is None else threshold)
        self._mtcnn = MtcnnDetector(device, networks=("rnet", "onet"))

    def detect(self, frames_rgb: Frames) -> Faces:
        """Return the faces of all frames, in pixels of the frame.

        Box and landmarks are those of MTCNN's networks if both are sure of the face, else YuNet's own, which may reach
        beyond the frame. Raises ValueError for anything but uint8 (height, width, 3) frames.
        """
        found = self._yunet.detect(frames_rgb)
        seen = self._mtcnn.refined(frames_rgb, found)
        sure = seen.confidence > 0
        found = replace(
            found,
            box=np.where(sure[:, None], seen.box, found.box),
            landmarks=np.where(sure[:, None, None], seen.landmarks, found.landmarks),
        )
        found = taken(found, sure | (found.confidence >= THRESHOLD))
        corners = np.concatenate([found.box[:, :2], found.box[:, :2] + found.box[:, 2:]], axis=1).astype(np.float64)
        kept = suppress(found.frame, corners, found.confidence, Thresholds.nms_onet, of_smaller=True)
        return ordered(taken(found, kept))


class _Yunet(YunetDetector):
    """YuNet in the memory of P-Net, which is not loaded."""

    share = "mtcnn pnet"

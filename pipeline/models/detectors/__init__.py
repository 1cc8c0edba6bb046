"""Detectors: frames in, boxes, landmarks and scores out."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import ModelError
from pipeline.models.base import Detector, Device
from pipeline.models.zoo import ModelCard


@dataclass(frozen=True)
class DetectorOptions:
    """What may be asked of a detector. Not every detector heeds all of it."""

    align: str = "native"
    """"native": boxes and landmarks on the frame itself. "deepface": those of DeepFace on the same frame."""
    min_face: float = 20
    """Smallest face looked for, side in pixels of the frame."""
    threshold: float | None = None
    """Least score of a face, 0 to 1; None: the detector's own default."""
    rotate: bool = True
    """align deepface: DeepFace's parameter `align`."""
    expand_percentage: int = 0
    """align deepface: DeepFace's parameter, percent of a box's width and height."""
    max_faces: int | None = None
    """Keep the largest so many faces of a frame; None: all."""
    whole_frame: bool = False
    """align deepface: a frame without faces counts as one face of confidence 0, as with DeepFace's
    `enforce_detection=False`."""


def create(card: ModelCard, device: Device, options: DetectorOptions) -> Detector:
    """A detector, ready to run. Raises ModelError: weights are missing, or the device cannot be used."""
    from pipeline.models.detectors.mtcnn import MtcnnDetector, Thresholds

    if card.name != "mtcnn":
        raise ModelError(f"detector {card.name!r} cannot run yet; choose mtcnn")
    thresholds = Thresholds() if options.threshold is None else Thresholds(onet=options.threshold)
    return MtcnnDetector(device, options.min_face, thresholds=thresholds)

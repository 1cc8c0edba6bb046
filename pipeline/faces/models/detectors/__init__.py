"""Detectors: frames in, boxes, landmarks and scores out."""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib import import_module

from pipeline.errors import ModelError
from pipeline.faces.models import zoo
from pipeline.faces.models.base import Detector, Faces, Frames
from pipeline.faces.models.detectors.base import ZooDetector, largest
from pipeline.machine.device import Device
from pipeline.models.card import ModelCard
from pipeline.text import unknown

SKIP = ModelCard("skip", "detector", "none", engine="none")
"""DeepFace's detector_backend="skip": no detection, the whole frame is the face."""


@dataclass(frozen=True)
class DetectorOptions:
    """The options of a detector. A detector refuses options that it does not support (check)."""

    align: str = "native"
    """"native": boxes and landmarks on the frame itself. "deepface": those of DeepFace on the same frame."""
    min_face: float = 20
    """Side of the smallest face to look for, in pixels of the frame."""
    threshold: float | None = None
    """Least score of a face, 0 to 1; None: the detector's own default."""
    rotate: bool = True
    """With `align: deepface`: DeepFace's parameter `align`."""
    expand_percentage: int = 0
    """With `align: deepface`: DeepFace's parameter, percent of a box's width and height."""
    max_faces: int | None = None
    """Number of the largest faces to keep per frame; None: all."""
    whole_frame: bool = False
    """With `align: deepface`: a frame without faces counts as one face of confidence 0, as with DeepFace's
    `enforce_detection=False`."""
    turned: bool = False
    """With `align: native`: look again, turned by 90, 180 and 270 degrees, at frames without a surely upright face."""


MODULES = {
    "mtcnn": ("mtcnn", "MtcnnDetector"),
    "fastmtcnn": ("mtcnn", "FastMtcnnDetector"),
    "retinaface": ("retinaface", "RetinaFaceDetector"),
    "yunet": ("yunet", "YunetDetector"),
    "yunet-mtcnn": ("yunet_mtcnn", "YunetMtcnnDetector"),
    "centerface": ("centerface", "CenterFaceDetector"),
    "opencv": ("cascades", "CascadeDetector"),
    "dlib": ("dlib_hog", "DlibDetector"),
}
"""Module and class of each detector of our own, created with (device, min_face, threshold). DeepFace's clients run all
other detectors."""

HEED: dict[str, dict[str, tuple[str, ...]]] = {
    "min_face": {
        "native": ("mtcnn", "fastmtcnn", "retinaface", "yunet", "yunet-mtcnn", "centerface", "opencv"),
        "deepface": ("mtcnn", "fastmtcnn"),
    },
    "threshold": {
        "native": tuple(MODULES),
        "deepface": tuple(name for name in MODULES if name not in ("opencv", *zoo.OWN)),
    },
}
"""Detectors that support an option, by alignment. Of those that DeepFace's clients run without such a parameter, only
the packages `mtcnn` and facenet-pytorch have a minimum face size."""


def card(name: str) -> ModelCard:
    """Return the card of a detector or of `skip`. Raises ModelError, with the nearest valid name, if there is none."""
    if name == SKIP.name:
        return SKIP
    valid = (*zoo.names("detector"), SKIP.name)
    if name not in valid:
        raise ModelError(unknown("detector", name, valid))
    return zoo.card(name, "detector")


def check(name: str, options: DetectorOptions) -> None:
    """Raise ModelError if the name is unknown, a value is out of range, or the detector does not support a set option.

    Loads nothing.
    """
    card(name)
    if options.min_face <= 0:
        raise ModelError(f"min_face is {options.min_face}, but must be above 0")
    if options.threshold is not None and not 0 < options.threshold < 1:
        raise ModelError(f"threshold is {options.threshold}, but must be between 0 and 1")
    if options.expand_percentage < 0:
        raise ModelError(f"expand_percentage is {options.expand_percentage}, but must be 0 or more")
    if options.max_faces is not None and options.max_faces < 1:
        raise ModelError(f"max_faces is {options.max_faces}, but must be 1 or more")
    default = {field.name: field.default for field in fields(DetectorOptions)}
    chosen = {key for key, value in vars(options).items() if value != default[key]}
    if options.align != "deepface":
        for option in sorted(chosen.intersection(("rotate", "expand_percentage", "whole_frame"))):
            raise ModelError(f"option {option} needs align: deepface; leave it out, or set align: deepface")
        if name == SKIP.name:
            raise ModelError("detector 'skip' finds no eyes to turn faces by; set align: deepface")
    elif options.turned:
        raise ModelError("option turned needs align: native; leave it out, or set align: native")
    elif name in zoo.OWN:
        raise ModelError(f"detector {name!r} does not support align: deepface; DeepFace has no such detector")
    for option in sorted(chosen.intersection(HEED)):
        heeding = HEED[option].get(options.align, ())
        if name not in heeding:
            raise ModelError(
                f"detector {name!r} does not support {option} with align: {options.align}; leave it out, or use one of "
                f"{', '.join(heeding)}"
            )


def create(card: ModelCard, device: Device, options: DetectorOptions) -> Detector:
    """Return a detector that is ready to run.

    Raises ModelError: an option is wrong (check), weights or a package are missing, or the device cannot be used.
    """
    check(card.name, options)
    if options.align == "deepface":
        from pipeline.faces.models.detectors.deepface_areas import DeepFaceAreas

        finder = None if card.name == SKIP.name else _create(card, device, options)
        return DeepFaceAreas(finder, options, search_eyes=card.name != "opencv")
    detector: Detector = _create(card, device, options)
    if options.turned:
        from pipeline.faces.models.detectors.turned import Turned

        detector = Turned(detector, card.name)
    return detector if options.max_faces is None else _Largest(detector, options.max_faces)


def _create(card: ModelCard, device: Device, options: DetectorOptions) -> ZooDetector:
    if card.name not in MODULES:
        from pipeline.faces.models.detectors.clients import ClientDetector

        return ClientDetector(card)
    module, name = MODULES[card.name]
    kind = getattr(import_module(f"{__name__}.{module}"), name)
    made: ZooDetector = kind(device, options.min_face, options.threshold)
    return made


class _Largest:
    """Keeps the largest faces that a detector finds in each frame."""

    def __init__(self, detector: Detector, most: int) -> None:
        self._detector = detector
        self._most = most

    def detect(self, frames_rgb: Frames) -> Faces:
        return largest(self._detector.detect(frames_rgb), self._most)

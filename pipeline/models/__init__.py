"""Models by name: detectors find faces in frames, embedders turn chips of faces into vectors.

Nothing heavy is imported, and no weights are read, before a model is created.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import ModelError
from pipeline.models.base import Detector, Device, Embedder, Faces, Frames, ModelInfo
from pipeline.names import unknown

__all__ = [
    "Detector",
    "Device",
    "Embedder",
    "Faces",
    "Frames",
    "ModelInfo",
    "create_detector",
    "create_embedder",
    "describe",
    "detector_names",
    "embedder_names",
    "embedding_dimension",
]

ALIGNMENTS = ("native", "deepface")


def detector_names() -> tuple[str, ...]:
    return ("mtcnn",)


def embedder_names() -> tuple[str, ...]:
    return ("Dlib",)


def create_detector(
    name: str,
    device: Device,
    *,
    min_face: float = 20,
    scale_factor: float = 0.709,
    threshold_pnet: float = 0.6,
    threshold_rnet: float = 0.7,
    threshold_onet: float = 0.8,
) -> Detector:
    """A detector, ready to run. The thresholds are those of MTCNN's three networks, 0 to 1.

    Raises ModelError: the name is unknown, weights are missing, or the device cannot be used.
    """
    _check_name("detector", name, detector_names())
    from pipeline.models.mtcnn import MtcnnDetector, Thresholds

    thresholds = Thresholds(pnet=threshold_pnet, rnet=threshold_rnet, onet=threshold_onet)
    return MtcnnDetector(device, min_face, scale_factor, thresholds)


def create_embedder(name: str, device: Device, align: str = "native") -> Embedder:
    """An embedder, ready to run. `align` says how its chips are cut: see DESIGN.md, Models.

    Raises ModelError: the name or the alignment is unknown, weights are missing, or the device cannot be used.
    """
    _check_name("embedder", name, embedder_names())
    _check_name("alignment", align, ALIGNMENTS)
    if align != "native":
        raise ModelError(f"embedder {name!r} has no alignment {align!r} yet; choose align: native")
    from pipeline.models.dlib_resnet import DlibEmbedder

    return DlibEmbedder(device)


def embedding_dimension(name: str) -> int:
    """Components of an embedder's vectors; makes no session. Raises ModelError for an unknown name."""
    _check_name("embedder", name, embedder_names())
    from pipeline.models import dlib_resnet

    return dlib_resnet.DIMENSION


def describe(name: str) -> ModelInfo:
    """Facts of a detector or embedder: reads its weights once for their hash, makes no session.

    Raises ModelError: the name is unknown, or the weights are missing.
    """
    _check_name("model", name, (*detector_names(), *embedder_names()))
    if name == "mtcnn":
        from pipeline.models import mtcnn

        return mtcnn.describe()
    from pipeline.models import dlib_resnet

    return dlib_resnet.describe()


def _check_name(kind: str, name: str, valid: Sequence[str]) -> None:
    if name not in valid:
        raise ModelError(unknown(kind, name, valid))

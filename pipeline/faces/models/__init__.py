"""Models by their DeepFace names.

Detectors find faces in frames, embedders turn chips of faces into vectors, attributes describe the face on a chip.
Creating a model imports its runtime and reads its weights; importing this package does neither.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from pipeline.errors import ModelError
from pipeline.faces.models import zoo
from pipeline.faces.models.base import Attribute, Detector, Embedder, Faces, Frames
from pipeline.machine.device import Device
from pipeline.models.card import ModelInfo
from pipeline.text import unknown

__all__ = [
    "Attribute",
    "Detector",
    "Device",
    "Embedder",
    "Faces",
    "Frames",
    "ModelInfo",
    "create_attribute",
    "create_detector",
    "create_embedder",
    "create_spoofing",
    "describe",
    "embedding_dimension",
]

ALIGNMENTS = ("native", "deepface")


def create_detector(name: str, device: Device, **options: Any) -> Detector:
    """Return a detector that is ready to run. `options`: the fields of detectors.DetectorOptions.

    Raises ModelError: the name or the alignment is unknown, the detector does not support an option. Also if weights
    or a package are missing, or the device cannot be used.
    """
    from pipeline.faces.models import detectors

    chosen = detectors.DetectorOptions(**options)
    _check_alignment(chosen.align)
    return detectors.create(detectors.card(name), device, chosen)


def create_embedder(name: str, device: Device, **options: Any) -> Embedder:
    """Return an embedder that is ready to run. `options`: the fields of recognisers.RecogniserOptions.

    Raises ModelError: the name or the alignment is unknown, weights are missing, or the device cannot be used.
    """
    from pipeline.faces.models import recognisers

    chosen = recognisers.RecogniserOptions(**options)
    _check_alignment(chosen.align)
    return recognisers.create(zoo.card(name, "recogniser"), device, chosen)


def create_attribute(name: str, device: Device, **options: Any) -> Attribute:
    """Return an attribute that is ready to run. `options`: the fields of attributes.AttributeOptions.

    Raises ModelError: the name or the alignment is unknown, weights are missing, or the device cannot be used.
    """
    from pipeline.faces.models import attributes

    chosen = attributes.AttributeOptions(**options)
    _check_alignment(chosen.align)
    return attributes.create(zoo.card(name, "attribute"), device, chosen)


def create_spoofing(name: str, device: Device) -> Attribute:
    """Return a model that is ready to run and separates live faces from pictures of faces.

    Raises ModelError: the name is unknown, weights are missing, or the device cannot be used.
    """
    from pipeline.faces.models import attributes

    return attributes.create_spoofing(zoo.card(name, "spoofing"), device)


def embedding_dimension(name: str) -> int:
    """Return the number of components of an embedder's vectors. Raises ModelError for an unknown name."""
    return zoo.card(name, "recogniser").dimension


def describe(name: str, engine: str = "onnx") -> ModelInfo:
    """Return facts of a model. Its weights are read once their hash is used. `engine`: one of clients.ENGINES.

    Raises ModelError: the name is unknown, or the model has no such engine.
    """
    from pipeline.faces.models import clients
    from pipeline.models.session import engine_version
    from pipeline.models.weights import sha256, weights_files

    card = zoo.card(name)
    if engine != "onnx":
        clients.check(card, engine)
        runtime = engine_version(engine)
        files = partial(clients.weights_files, card, engine)
    else:
        runtime, files = engine_version(card.engine), partial(weights_files, card)
    return ModelInfo(name, card.licence, runtime, lambda: sha256(files()), card.licence_source)


def _check_alignment(align: str) -> None:
    if align not in ALIGNMENTS:
        raise ModelError(unknown("alignment", align, ALIGNMENTS))

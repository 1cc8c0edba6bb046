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
    "Attribute", "Detector", "Device", "Embedder", "Faces", "Frames", "ModelInfo", "create_attribute",
    "create_detector", "create_embedder", "create_spoofing", "describe",
]  # fmt: skip

ALIGNMENTS = ("native", "deepface")
EMBEDDER_ALIGNMENTS = ("native", "two_views", "deepface")


def create_detector(name: str, device: Device, **options: Any) -> Detector:
    """Return a detector that is ready to run. `options`: the fields of detectors.DetectorOptions.

    Raises ModelError: the name or the alignment is unknown, the detector does not support an option. Also if weights
    or a package are missing, or the device cannot be used.
    """
    from pipeline.faces.models import detectors

    chosen = detectors.DetectorOptions(**options)
    _check_choice("alignment", chosen.align, ALIGNMENTS)
    return detectors.create(detectors.card(name), device, chosen)


def create_embedder(name: str, device: Device, **options: Any) -> Embedder:
    """Return an embedder that is ready to run. `options`: the fields of recognisers.recogniser.RecogniserOptions.

    Raises ModelError: the name or an option is unknown, weights or the engine are missing, or the device cannot be
    used.
    """
    from pipeline.faces.models import clients
    from pipeline.faces.models.crops import NORMALISATIONS
    from pipeline.faces.models.recognisers.recogniser import Recogniser, RecogniserOptions

    chosen = RecogniserOptions(**options)
    _check_choice("alignment", chosen.align, EMBEDDER_ALIGNMENTS)
    card = zoo.card(name, "recogniser")
    _check_choice("normalization", chosen.normalization, NORMALISATIONS)
    clients.check(card, chosen.engine)
    return Recogniser(card, device, chosen)


def create_attribute(name: str, device: Device, **options: Any) -> Attribute:
    """Return an attribute that is ready to run. `options`: the fields of attributes.demography.AttributeOptions.

    Raises ModelError: the name or an option is unknown, weights or the engine are missing, or the device cannot be
    used.
    """
    from pipeline.faces.models import clients
    from pipeline.faces.models.attributes.demography import AttributeOptions, Demography

    chosen = AttributeOptions(**options)
    _check_choice("alignment", chosen.align, ALIGNMENTS)
    card = zoo.card(name, "attribute")
    clients.check(card, chosen.engine)
    return Demography(card, device, chosen)


def create_spoofing(name: str, device: Device) -> Attribute:
    """Return a model that is ready to run and separates live faces from pictures of faces.

    Raises ModelError: the name is unknown, weights are missing, or the device cannot be used.
    """
    from pipeline.faces.models.attributes.fasnet import Fasnet

    zoo.card(name, "spoofing")
    return Fasnet(device)


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


def _check_choice(what: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise ModelError(unknown(what, value, valid))

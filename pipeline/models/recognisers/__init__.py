"""Recognisers: chips of faces in, vectors out."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import ModelError
from pipeline.models.base import Device, Embedder
from pipeline.models.zoo import ModelCard


@dataclass(frozen=True)
class RecogniserOptions:
    """What may be asked of a recogniser."""

    align: str = "native"
    """"native": chips as the network was trained on. "deepface": as DeepFace cuts them."""
    flip: bool = False
    """Average each vector with that of the mirrored chip, for twice the time."""
    rotate: bool = True
    """align deepface: DeepFace's parameter `align`."""
    normalization: str = "base"
    """align deepface: DeepFace's parameter."""


def create(card: ModelCard, device: Device, options: RecogniserOptions) -> Embedder:
    """A recogniser, ready to run. Raises ModelError: weights are missing, or the device cannot be used."""
    from pipeline.models.recognisers.dlib_resnet import DlibEmbedder

    if card.name != "Dlib" or options.align != "native":
        raise ModelError(f"embedder {card.name!r} cannot run yet with align: {options.align}; choose Dlib, native")
    return DlibEmbedder(device, options.flip)

"""Attributes of a face (age, gender, emotion, race) and whether it is a live one."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.faces.models.base import Attribute
from pipeline.machine.device import Device
from pipeline.models.card import ModelCard


@dataclass(frozen=True)
class AttributeOptions:
    """The options of an attribute."""

    align: str = "native"
    """"native": the box, upright, with the frame around it. "deepface": as DeepFace cuts faces."""
    rotate: bool = True
    """With `align: deepface`: DeepFace's parameter `align`."""
    engine: str = "onnx"
    """"onnx", or "tensorflow" or "torch": DeepFace's own client on that library."""


def create(card: ModelCard, device: Device, options: AttributeOptions) -> Attribute:
    """Return an attribute that is ready to run.

    Raises ModelError: weights or the engine are missing, or the device cannot be used.
    """
    from pipeline.faces.models import clients
    from pipeline.faces.models.attributes.demography import Demography

    clients.check(card, options.engine)
    return Demography(card, device, options)


def create_spoofing(card: ModelCard, device: Device) -> Attribute:
    """Return a network that separates live faces from pictures, ready to run. Raises ModelError as `create` does."""
    from pipeline.faces.models.attributes.fasnet import Fasnet

    return Fasnet(device)

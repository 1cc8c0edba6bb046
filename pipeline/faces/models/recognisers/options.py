"""The options of a recogniser."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RecogniserOptions:
    """The options of a recogniser."""

    align: str = "native"
    """"native": chips as the network was trained on. "deepface": as DeepFace cuts them."""
    flip: bool = False
    """Average each vector with that of the mirrored chip, for twice the time."""
    rotate: bool = True
    """With `align: deepface`: DeepFace's parameter `align`."""
    normalization: str = "base"
    """With `align: deepface`: DeepFace's parameter; one of crops.NORMALISATIONS."""
    eight_bit: bool = False
    """With `align: deepface`: chips are scaled in 8 bits (crops.deepface_chips)."""
    engine: str = "onnx"
    """"onnx", or "tensorflow" or "torch": DeepFace's own client on that library."""

"""`Age`, `Gender`, `Emotion`, `Race`: DeepFace's networks on ONNX Runtime, many faces at a time.

All four look at the same chips of 224 pixels. With `align: deepface` these are DeepFace's own: black in the corners
that a turn leaves empty, and black beside a narrow face. With `align: native` those parts show the frame.

With stand-ins for the weights, probabilities agree with DeepFace.analyze to 2e-7 and ages are equal on 70 faces with
DeepFace's own boxes. Which alignment gives the truer answers has not been measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError
from pipeline.faces.models import clients
from pipeline.faces.models.align import upright_box_transforms, warp_faces
from pipeline.faces.models.base import Chips, Faces, Frames
from pipeline.faces.models.crops import deepface_chips
from pipeline.machine.device import Device
from pipeline.models.card import ModelCard
from pipeline.models.session import MEMORY_SHARES, open_weights, rows_in_batches
from pipeline.models.weights import weights_files

Float32 = npt.NDArray[np.float32]

SIDE = 224
"""Side of the chips in pixels; `Emotion` makes its own, smaller ones of them."""
AGES = 101
"""Outputs of `Age`: the years from 0 to 100."""
BYTES_PER_CHIP = 4 * (SIDE**2 * 3 + 2 * SIDE**2 * 64)
"""The input and the two largest activations of one chip in VGG-16, which three of the four are."""
MOST_CHIPS = {"cpu": 16, "cuda": 128, "tensorrt": 128}


@dataclass(frozen=True)
class AttributeOptions:
    """The options of an attribute."""

    align: str = "native"
    """"native": the box, upright, with the frame around it. "deepface": as DeepFace cuts faces."""
    rotate: bool = True
    """With `align: deepface`: DeepFace's parameter `align`."""
    engine: str = "onnx"
    """"onnx", or "tensorflow" or "torch": DeepFace's own client on that library."""


class Demography:
    """One attribute. Thread-safe."""

    def __init__(self, card: ModelCard, device: Device, options: AttributeOptions) -> None:
        self._card = card
        self._device = device
        self._native = options.align == "native"
        self._rotate = options.rotate
        self._most = max(1, min(MOST_CHIPS[device.kind], device.batch_memory_bytes // BYTES_PER_CHIP))
        self._own = options.engine == "onnx"
        self._run: Callable[[Float32], Float32]
        if self._own:
            self._outputs = len(card.classes) or AGES
            (path,) = weights_files(card)
            session = open_weights(card, path, device, MEMORY_SHARES.get(card.name, MEMORY_SHARES["attribute"]))
            found = session.get_outputs()[0].shape[-1]
            if isinstance(found, int) and found != self._outputs:
                raise ModelError(f"{path} gives {found} values for a face, but {card.name} has {self._outputs}")
            given = session.get_inputs()[0]
            if isinstance(given.shape[0], int):
                self._most = given.shape[0]
            self._run = lambda inputs: np.asarray(session.run(None, {given.name: inputs})[0], np.float32)
        else:
            self._outputs = len(card.classes) or 1
            self._run = clients.Client("facial_attribute", card, options.engine, device).predict

    def chips(self, frames_rgb: Frames, faces: Faces) -> Chips:
        """Return the input of all four attributes: uint8 (n, 224, 224, 3) RGB.

        With `align: deepface` it is float32 (n, 224, 224, 3) BGR from 0 to 1. If no part of a face is in the frame, its
        chip is black. With `align: deepface` it is NaN, because DeepFace makes black chips of black frames.
        """
        if self._native:
            return warp_faces(frames_rgb, faces, upright_box_transforms(faces, (SIDE, SIDE)), SIDE)
        chips = deepface_chips(frames_rgb, faces, (SIDE, SIDE), self._rotate)
        chips[_outside(frames_rgb, faces)] = np.nan
        return chips

    def predict(self, chips: Chips) -> Float32:
        """Return years for Age, float32 (n,); for the others probabilities, float32 (n, classes).

        Probabilities add up to 1 and are in the order of the card's classes. Chips without a face give NaN: uint8 chips
        that are black all over, and chips of NaN.
        """
        if chips.shape[1:] != (SIDE, SIDE, 3) or chips.dtype not in (np.uint8, np.float32):
            raise ValueError(f"chips must be uint8 or float32 (n, 224, 224, 3), not {chips.dtype} {chips.shape}")
        name = self._card.name

        def run(some: Chips) -> Float32:
            # DeepFace's own clients prepare Emotion's input themselves.
            return self._run(_network_input(some, name if self._own else ""))

        values = rows_in_batches(self._device, name, chips, self._outputs, self._most, run)
        empty = ~chips.any(axis=(1, 2, 3)) if chips.dtype == np.uint8 else np.isnan(chips[:, 0, 0, 0])
        values[empty] = np.nan
        if self._card.name == "Age" and not self._own:
            return values[:, 0]
        # As DeepFace.analyze reports it, without its percents and its cut to whole years.
        if self._card.name == "Age":
            years: Float32 = (values.astype(np.float64) @ np.arange(AGES)).astype(np.float32)
            return years
        if self._card.name == "Gender":
            return values  # the network's softmax, unchanged
        return np.asarray(values / values.sum(axis=1, keepdims=True), np.float32)


def _outside(frames_rgb: Frames, faces: Faces) -> npt.NDArray[np.bool_]:
    """Return bool (n,): True if no part of a face's box lies in its frame."""
    sizes = [frames_rgb[int(index)].shape[1::-1] for index in faces.frame]
    size = np.array(sizes, np.float32).reshape(-1, 2)
    corner, far = faces.box[:, :2], faces.box[:, :2] + faces.box[:, 2:]
    return np.asarray(((corner >= size) | (far <= 0)).any(axis=1), np.bool_)


def _network_input(chips: Chips, name: str) -> Float32:
    """Return float32 BGR from 0 to 1, (n, 224, 224, 3), or (n, 48, 48, 1) grey for Emotion."""
    if chips.dtype == np.uint8:
        chips = chips[..., ::-1].astype(np.float32) / np.float32(255)
    chips = np.ascontiguousarray(chips, np.float32)
    if name != "Emotion":
        return chips
    import cv2

    # As DeepFace's EmotionClient makes them.
    small = [cv2.resize(cv2.cvtColor(chip, cv2.COLOR_BGR2GRAY), (48, 48)) for chip in chips]
    return np.asarray(small, np.float32)[..., None]

"""Every recogniser: chips cut for its network, fed in batches, one vector each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError
from pipeline.faces.models import clients
from pipeline.faces.models.align import onto_template, upright_box_transforms, warp_faces
from pipeline.faces.models.base import Chips, Faces, Frames
from pipeline.faces.models.crops import deepface_chips, normalise
from pipeline.faces.models.recognisers import dlib_resnet, five_points
from pipeline.faces.models.recognisers.network import Network, open_network
from pipeline.faces.models.recognisers.traits import TRAITS, bgr_unit
from pipeline.machine.device import Device
from pipeline.models.card import ModelCard
from pipeline.models.session import rows_in_batches

MOST_CHIPS = {"cpu": 32, "cuda": 512, "tensorrt": 512}


@dataclass(frozen=True)
class RecogniserOptions:
    """The options of a recogniser."""

    align: str = "native"
    """"native": chips as the network was trained on. "two_views": that chip, and one that dlib's five points cut, in
    the mirror. "deepface": as DeepFace cuts them."""
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


class Recogniser:
    """The embedder of one network. Thread-safe.

    Chips of `align: native` are uint8 (n, height, width, 3) RGB. Those of `align: two_views` are uint8 (n, 2, height,
    width, 3), and a face's vector is the mean of both. Those of `align: deepface` are float32 BGR, with the
    normalisation of the options. With `flip` a vector is the mean of the chip's and its mirror image's.
    """

    def __init__(self, card: ModelCard, device: Device, options: RecogniserOptions) -> None:
        assert card.input_size is not None
        self.dimension = card.dimension
        self._name = card.name
        self._device = device
        self._options = options
        self._size = card.input_size
        if options.align == "two_views":
            if card.name != dlib_resnet.NAME:
                raise ModelError(f"align: two_views needs the embedder {dlib_resnet.NAME}, not {card.name}")
            self._points = five_points.load()
        traits = TRAITS[card.name]
        self._template = traits.template
        self._l2 = traits.l2
        self._network: Network
        if options.engine == "onnx":
            self._feed = traits.feed
            self._network = open_network(card, device, traits)
        else:
            self._feed = bgr_unit  # the input of every client of DeepFace
            self._network = Network(clients.Client("facial_recognition", card, options.engine, device).forward)
        most = min(MOST_CHIPS[device.kind], device.batch_memory_bytes // (4 * traits.activations))
        self._most = max(1, most) if self._network.batched else 1

    def chips(self, frames_rgb: Frames, faces: Faces) -> Chips:
        """Return one chip per face, or two. It is black outside the frame, and for a face without box and landmarks."""
        if self._options.align == "deepface":
            cut = deepface_chips(frames_rgb, faces, self._size, self._options.rotate, self._options.eight_bit)
            return normalise(cut, self._options.normalization)
        if self._template is None:
            return warp_faces(frames_rgb, faces, upright_box_transforms(faces, self._size), self._size)
        transforms = onto_template(faces, self._template)
        chips = warp_faces(frames_rgb, faces, transforms, self._size)
        if self._options.align == "native":
            return chips
        by_points = self._points.transforms(frames_rgb, faces, transforms)
        return np.stack([chips, warp_faces(frames_rgb, faces, by_points, self._size)[:, :, ::-1]], axis=1)

    def embed(self, chips: Chips) -> npt.NDArray[np.float32]:
        """Return float32 (n, dimension), as DeepFace's client of this network gives it.

        Vectors of VGG-Face have length 1; others are not normalised. Raises ValueError for chips of another size or
        type.
        """
        chip = (self._size[1], self._size[0], 3)
        expected = (2, *chip) if self._options.align == "two_views" else chip
        if chips.shape[1:] != expected or chips.dtype not in (np.uint8, np.float32):
            sizes = ", ".join(map(str, expected))
            raise ValueError(f"chips must be uint8 or float32 (n, {sizes}), not {chips.dtype} {chips.shape}")
        if expected == chip:
            return self._of_chips(chips)
        vectors = self._of_chips(chips.reshape(-1, *chip))
        return (vectors[::2] + vectors[1::2]) * np.float32(0.5)

    def _of_chips(self, chips: Chips) -> npt.NDArray[np.float32]:
        """Return the vector of each chip."""
        vectors = self._vectors(chips)
        if self._options.flip:
            vectors = (vectors + self._vectors(chips[:, :, ::-1])) * np.float32(0.5)
        if self._l2:
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + np.float32(1e-10)
        return vectors

    def _vectors(self, chips: Chips) -> npt.NDArray[np.float32]:
        def run(some: Chips) -> npt.NDArray[np.float32]:
            return self._network.run(self._feed(some))

        return rows_in_batches(self._device, self._name, chips, self.dimension, self._most, run)

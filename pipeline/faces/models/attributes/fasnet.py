"""`Fasnet`: is a face live, or a picture of one? The two MiniFASNet networks of Silent-Face-Anti-Spoofing (Apache-2.0).

Each network sees the face and its surroundings, at a scale of its own; DeepFace and this take the mean of the two.
Weights come from Minivision's own files. Batch norms are folded into the convolutions, the softmax is in the graph.
The meaning of the classes: github.com/minivision-ai/Silent-Face-Anti-Spoofing, issues 46 and 55.

Results agree with DeepFace's TensorFlow networks to 1e-6 on the same boxes. Do not rely on the two kinds of spoof:
Minivision's own sample of a flat poster is classified as 3D.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError
from pipeline.faces.models import zoo
from pipeline.faces.models.base import Chips, Faces, Frames
from pipeline.faces.models.crops import in_eight_bits
from pipeline.machine.device import Device
from pipeline.models.onnx_graph import GraphWriter, Weights
from pipeline.models.session import MEMORY_SHARES, create_session, rows_in_batches
from pipeline.models.torch_file import Tensors, batch_norm, read_tensors
from pipeline.models.weights import cached_graph, weights_files

NAME = "Fasnet"
GRAPH_VERSION = 1
SIDE = 80
SCALES = (2.7, 4.0)
"""Size of each network's view as a multiple of the box, in the order of the card's weights: the numbers before `_80x80`
in their names."""
CLASSES = 3
COLOURS = 3
CHANNEL_BLOCK = 16
"""Channels of a block. ONNX Runtime has fast convolutions for whole blocks of channels (16 with AVX-512, 8 with AVX2).
Pruning left these networks with widths such as 13, 26, 103 and 231. Filling up saves a fifth of the time."""
BLOCKS = {"conv_3": 4, "conv_4": 6, "conv_5": 2}
"""Residual blocks of each group: MiniFASNet.__init__ in Minivision's src/model_lib/MiniFASNet.py."""
BATCH_NORM_EPSILON = 1e-5
"""Default of torch.nn.BatchNorm2d."""
BYTES_PER_CHIP = 4 * (SIDE**2 * 3 + 2 * 103 * 40 * 40)
"""The input and the two largest activations of one chip."""
MOST_CHIPS = {"cpu": 8, "cuda": 512, "tensorrt": 512}


class Fasnet:
    """The probabilities of spoof and live. Thread-safe."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._sessions = []
        for path in weights_files(zoo.card(NAME)):
            graph = cached_graph(f"fasnet_{path.stem}", GRAPH_VERSION, [path], partial(build_graph, path))
            self._sessions.append(create_session(graph, device, MEMORY_SHARES["spoofing"]))
        self._most = max(1, min(MOST_CHIPS[device.kind], device.batch_memory_bytes // BYTES_PER_CHIP))

    def chips(self, frames_rgb: Frames, faces: Faces) -> npt.NDArray[np.uint8]:
        """Return uint8 (n, 2, 80, 80, 3) RGB: each face at both scales; black if no part of it is in the frame."""
        import cv2

        chips = np.zeros((len(faces.frame), len(SCALES), SIDE, SIDE, 3), np.uint8)
        for pair, index, box in zip(chips, faces.frame, faces.box, strict=True):
            frame = in_eight_bits(np.asarray(frames_rgb[int(index)]))
            x, y, w, h = clipped(box, frame.shape[1], frame.shape[0])
            if w <= 0 or h <= 0:
                continue
            for chip, scale in zip(pair, SCALES, strict=True):
                left, top, right, bottom = surroundings((x, y, w, h), scale, frame.shape[1], frame.shape[0])
                cv2.resize(frame[top : bottom + 1, left : right + 1], (SIDE, SIDE), dst=chip)
        return chips

    def predict(self, chips: Chips) -> npt.NDArray[np.float32]:
        """Return float32 (n, 3): probabilities of the card's classes, which add up to 1.

        The face is live if the second is the largest. A chip that is black all over shows no face and gives NaN.
        """
        expected = (len(SCALES), SIDE, SIDE, 3)
        if chips.shape[1:] != expected or chips.dtype != np.uint8:
            raise ValueError(f"chips must be uint8 (n, 2, 80, 80, 3), not {chips.dtype} {chips.shape}")
        mean = np.mean([self._scale(index, chips[:, index]) for index in range(len(SCALES))], axis=0)
        mean[~chips.any(axis=(1, 2, 3, 4))] = np.nan
        return np.asarray(mean, np.float32)

    def _scale(self, index: int, chips: Chips) -> npt.NDArray[np.float32]:
        """Return float32 (n, 3): the answer of one scale's network to its chips."""

        def run(some: Chips) -> npt.NDArray[np.float32]:
            return np.asarray(self._sessions[index].run(None, {"chips": np.ascontiguousarray(some)})[0])

        return rows_in_batches(self._device, f"{NAME} {index}", chips, CLASSES, self._most, run)


def clipped(box: npt.NDArray[np.float32], width: int, height: int) -> tuple[int, int, int, int]:
    """Return x, y, w, h as DeepFace passes them on (detection.extract_faces); w or h is below 1 if nothing is left."""
    x, y = max(0, int(box[0])), max(0, int(box[1]))
    return x, y, min(width - x - 1, int(box[2])), min(height - y - 1, int(box[3]))


def surroundings(box: tuple[int, int, int, int], scale: float, width: int, height: int) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom, all inclusive: the box, `scale` times as large about its middle.

    If it does not fit the frame, it is shrunk to the frame and shifted into it. This is Minivision's
    CropImage._get_new_box, with its roundings.
    """
    x, y, w, h = box
    scale = min((height - 1) / h, (width - 1) / w, scale)
    left, right = _shifted(x, w, scale, width)
    top, bottom = _shifted(y, h, scale, height)
    return left, top, right, bottom


def _shifted(start: int, length: int, scale: float, limit: int) -> tuple[int, int]:
    """Return the first and last pixel along one axis."""
    middle, wide = length / 2 + start, length * scale
    first, last = middle - wide / 2, middle + wide / 2
    if first < 0:
        first, last = 0, last - first
    if last > limit - 1:
        first, last = first - (last - limit + 1), limit - 1
    return int(first), int(last)


def build_graph(path: Path) -> bytes:
    """Return one network as ONNX: input `chips` uint8 (n, 80, 80, 3) RGB, output `probability` float32 (n, 3).

    Raises ModelError if the file is not that of a MiniFASNet.
    """
    tensors = read_tensors(path)
    try:
        return _Builder(tensors).build()
    except (KeyError, ValueError) as error:
        raise ModelError(f"{path} is not a MiniFASNet ({error}); delete it and fetch it again") from error


class _Builder:
    """Writes a network by the names of its tensors, from which it also reads widths and which blocks are gated."""

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
        self._graph = GraphWriter("MiniFASNet")

    def build(self) -> bytes:
        graph = self._graph
        # The network was trained on BGR; its first convolution takes the channels in the other order here.
        first = self._tensors["conv1.conv.weight"]
        self._tensors["conv1.conv.weight"] = first[:, ::-1]
        value = graph.add("Transpose", graph.add("Cast", "chips", to=1), perm=[0, 3, 1, 2])
        value = self._convolution(value, "conv1", stride=2)
        value = self._convolution(value, "conv2_dw")
        for halves, group in (("conv_23", "conv_3"), ("conv_34", "conv_4"), ("conv_45", "conv_5")):
            value = self._depthwise(value, halves, stride=2)
            for block in range(BLOCKS[group]):
                value = self._residual(value, f"{group}.model.{block}")
        value = self._convolution(value, "conv_6_sep")
        value = graph.add("Flatten", self._convolution(value, "conv_6_dw", padding=0))
        # The embedding, its batch norm and the last matrix as one matrix: all three are linear.
        scale, shift = batch_norm(self._tensors, "bn", BATCH_NORM_EPSILON)
        last = self._tensors["prob.weight"]
        matrix = (last * scale) @ self._tensors["linear.weight"]
        value = graph.add("Add", graph.add("MatMul", value, _float32(matrix.T)), _float32(last @ shift))
        value = graph.add("Softmax", value, axis=-1)
        return graph.serialise("chips", ("n", SIDE, SIDE, 3), {"probability": (value, ("n", CLASSES))}, np.uint8)

    def _convolution(self, value: str, name: str, stride: int = 1, padding: int | None = None) -> str:
        """Add convolution, batch norm and, if there is one, PReLU. It is depthwise if each filter sees one channel."""
        weights, bias = self._folded(f"{name}.conv", f"{name}.bn")
        alone = weights.shape[1] == 1
        weights = _filled_up(weights, 0) if alone or weights.shape[1] == COLOURS else _filled_up(weights, 0, 1)
        pads = [weights.shape[2] // 2 if padding is None else padding] * 4
        group = len(weights) if alone else 1
        value = self._graph.conv(value, weights, _filled_up(bias, 0), strides=[stride] * 2, pads=pads, group=group)
        slope = self._tensors.get(f"{name}.prelu.weight")
        if slope is None:
            return value
        slope = _filled_up(slope, 0)[:, None, None]
        if slope.max() > 1:
            return self._graph.add("PRelu", value, slope)
        # max(x, slope x) equals PReLU if no slope is above 1, in half the time of ONNX Runtime's PRelu.
        return self._graph.add("Max", value, self._graph.add("Mul", value, slope))

    def _depthwise(self, value: str, name: str, stride: int = 1) -> str:
        value = self._convolution(value, f"{name}.conv")
        value = self._convolution(value, f"{name}.conv_dw", stride)
        return self._convolution(value, f"{name}.project")

    def _residual(self, value: str, name: str) -> str:
        graph, branch = self._graph, self._depthwise(value, name)
        block = f"{name}.se_module"
        if f"{block}.fc1.weight" in self._tensors:  # squeeze and excitation
            gate = graph.add("GlobalAveragePool", branch)
            gate = graph.add("Relu", graph.conv(gate, *self._folded(f"{block}.fc1", f"{block}.bn1")))
            gate = graph.add("Sigmoid", graph.conv(gate, *self._folded(f"{block}.fc2", f"{block}.bn2")))
            branch = graph.add("Mul", branch, gate)
        return graph.add("Add", branch, value)

    def _folded(self, convolution: str, normalisation: str) -> tuple[Weights, Weights]:
        """Return a convolution's weights and bias, with the batch norm that follows folded in."""
        scale, shift = batch_norm(self._tensors, normalisation, BATCH_NORM_EPSILON)
        return _float32(self._tensors[f"{convolution}.weight"] * scale[:, None, None, None]), _float32(shift)


def _filled_up(array: npt.NDArray[np.floating], *axes: int) -> Weights:
    """Return float32, with zeros appended up to whole blocks of channels.

    These change nothing: their outputs are zero, and are multiplied by zero.
    """
    widths = [(0, -size % CHANNEL_BLOCK if axis in axes else 0) for axis, size in enumerate(array.shape)]
    return _float32(np.pad(array, widths))


def _float32(array: npt.NDArray[np.floating]) -> Weights:
    return np.asarray(array, np.float32)

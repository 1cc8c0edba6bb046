"""The three networks of the `mtcnn` package (MIT licence, Keras layout) as ONNX graphs.

The graphs keep the arithmetic of the package in the forms that ONNX Runtime runs fast on a CPU:

- Its blocked convolutions need channels in multiples of eight: missing ones are filled with zero weights.
- PRelu has no blocked form and breaks the chain. With slope a, prelu(x) = a x + (1 - a) relu(x): a Relu and two 1 × 1
  depthwise convolutions, which have one. If no slope exceeds one it is also x + relu((a - 1) x).
- P-Net's first PRelu comes before a pooling and has negative slopes, so the two cannot be exchanged. But the largest
  prelu(x) of a cell is max(M, a m), with M and m the largest and smallest x. So the first convolution also gives -x for
  channels of negative slope, and pooling makes M and -m of them. PRelu then runs on a quarter of the pixels.
- The normalisation (x - 127.5) / 128 goes into the first convolution, which does not pad. The softmax of two classes
  becomes the difference of their logits.

On one core P-Net takes 0.6 of the time of the plain graph. Inputs are RGB from 0 to 255.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError
from pipeline.models.onnx_graph import GraphWriter, Outputs, Weights

GRAPH_VERSION = 2
NETWORKS = ("pnet", "rnet", "onet")
INPUT_MEAN, INPUT_SCALE = 127.5, 1 / 128
BLOCK = 8
"""Channels that ONNX Runtime's blocked layout keeps together with AVX2."""
NOT_ITS_WEIGHTS = (ValueError, LookupError, TypeError, AttributeError, RuntimeError, EOFError, pickle.UnpicklingError)
"""Errors of reading another file, or a damaged one: from lz4, joblib and the arrays' own checks."""


def build_graph(name: str, path: Path, portable: bool, sampled: bool = False) -> bytes:
    """Return one of NETWORKS as ONNX.

    `portable` keeps to poolings that CUDA supports too (none with a partial last cell). With `sampled` the graph makes
    the network's view itself, from whole frames.

    - pnet: `image` float32 (n, 3, rows, columns) to `cells` float32 (n, 8, y, x), one cell per 2 × 2 pixels. A cell
      holds the logit of face against not face, the four offsets, and three unused values.
    - rnet, onet: `patches` float32 (n, 24 or 48, 24 or 48, 3) to `logit` (n, 1), `offsets` (n, 4), `landmarks` (n, 10).

    Sampled, all take `frames` uint8 (n, height, width, 3), and the inputs that _level_of and _patches_of list.

    - pnet: also takes `logit_above` float32 (). For the k cells above it, by frame, row and column, it gives `place`
      int64 (k, 3) and `values` float32 (k, 8).
    - rnet, onet: outputs as above.
    """
    import joblib
    from lz4.frame import decompress

    try:
        # joblib would open such a file itself and leave it open: from Python 3.13 on that ends in a traceback.
        content = io.BytesIO(decompress(path.read_bytes()))
        weights = [np.asarray(array, np.float32) for array in joblib.load(content)]
        graph = GraphWriter(f"mtcnn_{name}")
        if name == "pnet":
            return _pnet(graph, weights, portable, sampled)
        return _patch_network(graph, *{"rnet": (24, 2), "onet": (48, 3)}[name], weights, portable, sampled)
    except NOT_ITS_WEIGHTS as error:
        raise ModelError(
            f"{path} does not hold the weights of mtcnn 1.x ({error}); run: pip install --force-reinstall 'mtcnn>=1,<2'"
        ) from error


def _pnet(graph: GraphWriter, weights: list[Weights], portable: bool, sampled: bool) -> bytes:
    w1, b1, a1, w2, b2, a2, w3, b3, a3, w_offsets, b_offsets, w_class, b_class = weights
    image = _level_of(graph) if sampled else graph.input("image", np.float32, ("n", 3, "rows", "columns"))
    value, w2 = _pooled_prelu(graph, image, *_normalised(_oihw(w1), b1), a1.ravel(), _oihw(w2), portable)
    value = _prelu(graph, graph.conv(value, w2, b2), a2.ravel())
    value = graph.conv(value, _oihw(w3), b3)
    w_out = np.concatenate([_face_logit(_oihw(w_class), 0), _oihw(w_offsets)])
    b_out = np.concatenate([_face_logit(b_class, 0), b_offsets])
    # The last PRelu goes into the convolution behind it: W prelu(x) = (W a) x + (W (1 - a)) relu(x)
    slope = a3.reshape(1, -1, 1, 1)
    positive = graph.conv(graph.add("Relu", value), _fill(w_out * (1 - slope), BLOCK))
    linear = graph.conv(value, _fill(w_out * slope, BLOCK), _fill(b_out, BLOCK))
    value = graph.add("Add", linear, positive)
    if sampled:
        return graph.serialise_all(_above(graph, value), {"place": np.int64})
    return graph.serialise_all({"cells": (value, ("n", BLOCK, "y", "x"))})


def _patch_network(
    graph: GraphWriter, side: int, heads: int, weights: list[Weights], portable: bool, sampled: bool
) -> bytes:
    """Write R-Net or O-Net, which differ in the side of their patches, and by a convolution and the head of landmarks.

    Weights are a kernel, a bias and slopes for each layer, then a matrix and a bias for each head.
    """
    *weights, w_class, b_class = weights
    convolutions = heads + 1
    if len(weights) != 3 * (convolutions + 1) + 2 * (heads - 1):
        raise ValueError(f"{len(weights) + 2} arrays")
    layers = [weights[at : at + 3] for at in range(0, 3 * convolutions, 3)]
    w_dense, b_dense, a_dense, *others = weights[3 * convolutions :]
    patches = _patches_of(graph, side) if sampled else graph.input("patches", np.float32, ("n", side, side, 3))
    value = graph.add("Transpose", patches, perm=[0, 3, 1, 2])
    for place, (kernel, bias, slope) in enumerate(layers):
        first = place == 0
        folded = _normalised(_oihw(kernel), bias) if first else (_oihw(kernel), bias)
        value = _prelu(graph, graph.conv(value, *folded), slope.ravel())
        if place < len(layers) - 1:
            value = _max_pool(graph, value, 3 if place < 2 else 2, 2, portable, partial=first)
    value = _dense_prelu(graph, value, w_dense, b_dense, a_dense, (3, 3))
    outputs: dict[str, tuple[str, tuple[int | str, ...]]] = {
        "logit": (graph.add("Gemm", value, _face_logit(w_class, 1), _face_logit(b_class, 0)), ("n", 1))
    }
    for (name, size), matrix, bias in zip((("offsets", 4), ("landmarks", 10)), others[::2], others[1::2], strict=False):
        outputs[name] = graph.add("Gemm", value, matrix, bias), ("n", size)
    return graph.serialise_all(outputs)


# -- the networks' views, made of frames -------------------------------------------------------------------------------


def _level_of(graph: GraphWriter) -> str:
    """Add float32 (n, 3, rows, columns): a level of the pyramid, or a part of one, averaged down, then across.

    Each direction has its table (pyramid.py, Averaging): `down_index` int64 (blocks, pixels) and `down_share` float32
    (blocks, cells, pixels). `down_shape` int64 (4,) is the shape of the result, including the cells that fill the last
    block. `size` int64 (2,): rows and columns.
    """
    value = graph.input("frames", np.uint8, ("n", "height", "width", 3))
    size = graph.input("size", np.int64, (2,))
    for axis, name in enumerate(("down", "across")):
        index = graph.input(f"{name}_index", np.int64, (f"{name}_blocks", f"{name}_pixels"))
        share = graph.input(f"{name}_share", np.float32, (f"{name}_blocks", f"{name}_cells", f"{name}_pixels"))
        shape = graph.input(f"{name}_shape", np.int64, (4,))
        lines = graph.add("Gather", graph.add("Reshape", value, np.array([0, 0, -1])), index, axis=1)
        if axis == 0:
            lines = graph.add("Cast", lines, to=graph.dtype(np.float32))
        value = graph.add("Reshape", graph.add("MatMul", share, lines), shape)
        wanted = graph.add("Gather", size, np.array([axis]))
        value = graph.add("Slice", value, np.array([0]), wanted, np.array([1]))
        # (n, rows, columns, 3) to (n, columns, rows, 3), and from there to (n, 3, rows, columns)
        value = graph.add("Transpose", value, perm=[0, 2, 1, 3] if axis == 0 else [0, 3, 2, 1])
    return value


def _above(graph: GraphWriter, cells: str) -> Outputs:
    """Add the cells whose logit is above `logit_above`: few of a level; the rest stays on the GPU."""
    limit = graph.input("logit_above", np.float32, ())
    value = graph.add("Transpose", cells, perm=[0, 2, 3, 1])
    logit = graph.add("Gather", value, np.array(0), axis=3)
    place = graph.add("Transpose", graph.add("NonZero", graph.add("Greater", logit, limit)), perm=[1, 0])
    return {"place": (place, ("k", 3)), "values": (graph.add("GatherND", value, place), ("k", BLOCK))}


def _patches_of(graph: GraphWriter, side: int) -> str:
    """Add float32 (k, side, side, 3): boxes of the frames, sampled between the four pixels around each point.

    The inputs come from pyramid.py, Sampling. For each row of points, `upper` and `lower` int64 (k, side) say
    where, among all frames' pixels, the rows before and after it begin. `down` float32 (k, side) is its
    position between them, and `row_inside` bool (k, side). For each column, `left` and `right` are indices within a
    row, with `across` and `column_inside`.
    """
    pixels = graph.add("Reshape", graph.input("frames", np.uint8, ("n", "height", "width", 3)), np.array([-1, 3]))
    behind, between = np.array([2]), np.array([1])

    def taken(kind: str, dtype: type[np.generic], axis: npt.NDArray[np.int64]) -> str:
        return graph.add("Unsqueeze", graph.input(kind, dtype, ("k", side)), axis)

    upper, lower = (taken(name, np.int64, behind) for name in ("upper", "lower"))
    left, right = (taken(name, np.int64, between) for name in ("left", "right"))
    down = graph.add("Unsqueeze", taken("down", np.float32, behind), np.array([3]))
    across = graph.add("Unsqueeze", taken("across", np.float32, between), np.array([3]))
    inside = graph.add("And", taken("row_inside", np.bool_, behind), taken("column_inside", np.bool_, between))

    def at(row: str, column: str) -> str:
        found = graph.add("Gather", pixels, graph.add("Add", row, column), axis=0)
        return graph.add("Cast", found, to=graph.dtype(np.float32))

    def moved(first: str, second: str, part: str) -> str:
        return graph.add("Add", first, graph.add("Mul", graph.add("Sub", second, first), part))

    row, following = (moved(at(line, left), at(line, right), across) for line in (upper, lower))
    outside = np.array(INPUT_MEAN, np.float32)
    return graph.add("Where", graph.add("Unsqueeze", inside, np.array([3])), moved(row, following, down), outside)


def _oihw(kernel: Weights) -> Weights:
    """Turn Keras' (rows, columns, in, out) into ONNX's (out, in, rows, columns)."""
    return kernel.transpose(3, 2, 0, 1)


def _face_logit(weights: Weights, axis: int) -> Weights:
    """Turn both classes' weights into those of their difference, whose sigmoid is the softmax of the two."""
    not_face, face = np.split(weights, 2, axis)
    return face - not_face


def _normalised(kernel: Weights, bias: Weights) -> tuple[Weights, Weights]:
    """Take the normalisation of the input into the first convolution."""
    scaled = kernel.astype(np.float64) * INPUT_SCALE
    shifted = bias - scaled.sum(axis=(1, 2, 3)) * INPUT_MEAN
    return scaled.astype(np.float32), shifted.astype(np.float32)


def _fill(array: Weights, size: int, axis: int = 0) -> Weights:
    """Append zeros to an axis, up to `size`."""
    widths = [(0, size - array.shape[axis] if i == axis else 0) for i in range(array.ndim)]
    return np.pad(array, widths)


def _prelu(graph: GraphWriter, value: str, slope: Weights) -> str:
    """Add prelu of a blocked value; slope float32 (channels,)."""
    channels = len(slope)
    column = slope.reshape(-1, 1, 1, 1)
    if slope.max() <= 1:
        rest = graph.add("Relu", graph.conv(value, column - 1, group=channels))
        return graph.add("Add", value, rest)
    positive = graph.conv(graph.add("Relu", value), 1 - column, group=channels)
    return graph.add("Add", graph.conv(value, column, group=channels), positive)


def _pooled_prelu(
    graph: GraphWriter, value: str, kernel: Weights, bias: Weights, slope: Weights, following: Weights, portable: bool
) -> tuple[str, Weights]:
    """Add convolution, PRelu and 2 × 2 pooling; return the value and the next kernel, fitted to its channels.

    Per channel, with M the largest and m the smallest value of a cell:

    - slope 0 to 1: M + relu((a - 1) M);
    - slope below 0: max(M, a m) = M + relu(-a (-m) - M);
    - slope above 1: M - relu((1 - a) M). The second term takes the channel of one of the -m, which the next layer does
      not need, and the next kernel subtracts it.
    """
    channels = len(slope)
    negative, steep = np.flatnonzero(slope < 0), np.flatnonzero(slope > 1)
    if len(steep) > len(negative):
        raise ValueError(f"{len(steep)} slopes above one and only {len(negative)} below zero")
    width = -(-(channels + len(negative)) // BLOCK) * BLOCK
    kernel = _fill(np.concatenate([kernel, -kernel[negative]]), width)
    bias = _fill(np.concatenate([bias, -bias[negative]]), width)
    keep = np.zeros((width, width, 1, 1), np.float32)
    rest = np.zeros_like(keep)
    following = _fill(following, width, axis=1)
    keep[range(channels), range(channels)] = 1
    for c in np.flatnonzero((slope >= 0) & (slope <= 1)):
        rest[c, c] = slope[c] - 1
    for place, c in enumerate(negative, channels):
        rest[c, place], rest[c, c] = -slope[c], -1
    for place, c in enumerate(steep, channels):
        rest[place, c] = 1 - slope[c]
        following[:, place] = -following[:, c]
    pooled = _max_pool(graph, graph.conv(value, kernel, bias), 2, 2, portable, partial=True)
    return graph.add("Add", graph.conv(pooled, keep), graph.add("Relu", graph.conv(pooled, rest))), following


def _max_pool(graph: GraphWriter, value: str, size: int, stride: int, portable: bool, partial: bool = False) -> str:
    """Add max pooling; `partial` keeps a last cell that reaches beyond the edge, as Keras' "same" does here."""
    shape: dict[str, Any] = {"kernel_shape": [size, size], "strides": [stride, stride]}
    if partial and portable:
        # One row and column beyond the edge that are never the largest; unused if the size comes out even.
        lowest = np.array(np.finfo(np.float32).min)
        value = graph.add("Pad", value, np.array([0, 0, 0, 0, 0, 0, 1, 1], np.int64), lowest)
        partial = False
    return graph.add("MaxPool", value, ceil_mode=int(partial), **shape)


def _dense_prelu(
    graph: GraphWriter, value: str, weights: Weights, bias: Weights, slope: Weights, size: tuple[int, int]
) -> str:
    """Add flatten and a fully connected layer. The package flattens (column, row, channel), ONNX channels first."""
    rows, columns = size
    order: npt.NDArray[np.int64] = np.arange(len(weights)).reshape(columns, rows, -1).transpose(2, 1, 0).ravel()
    value = graph.add("Gemm", graph.add("Flatten", value), weights[order], bias)
    return graph.add("PRelu", value, slope)

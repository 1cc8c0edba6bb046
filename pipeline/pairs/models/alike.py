"""ALIKE (Zhao and others, 2022): a small network for keypoints and descriptors, written as one ONNX graph.

The authors' code makes a descriptor for each pixel. This graph makes those of the keypoints alone, from the same
numbers: a descriptor is a linear map of four feature maps. Keypoints are local maxima of the score map (5 × 5). They
are moved to the centre of the scores around them, as the authors' `sub_pixel` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError
from pipeline.machine.device import Device
from pipeline.models.card import ModelCard, ModelInfo, WeightsFile
from pipeline.models.onnx_graph import GraphWriter, Weights
from pipeline.models.session import MEMORY_SHARES, create_session, runtime_name
from pipeline.models.torch_file import Tensors, read_tensors
from pipeline.models.weights import cached_graph, sha256, weights_files
from pipeline.pairs.models.extractor import Extractor, LocalFeatures, Picture, in_batches

if TYPE_CHECKING:
    from pipeline.pairs.stages.keypoints import KeypointsOptions

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
RADIUS = 2
"""Pixels from a keypoint to the border of the window in which it is the maximum."""
BEFORE, AFTER = RADIUS + 1, RADIUS
"""Rows and columns at the upper and left, and at the lower and right border, in which no keypoint is found."""
TEMPERATURE = 0.1
EPSILON = 1e-5
"""Added to the variance of a batch normalisation."""
BYTES_PER_PIXEL = 400
"""Memory that alike-n takes for each pixel of its input on a CPU (measured: 370; alike-t: 270)."""


def describe(name: str, choices: KeypointsOptions) -> Extractor:
    """Return the description of one of CARDS."""
    card = CARDS[name]
    info = ModelInfo(name, card.licence, runtime_name(), lambda: sha256(weights_files(card)), card.licence_source)
    return Extractor(info, card.dimension, "float16", lambda device: Alike(card, choices, device))


EXTRACTORS = {name: partial(describe, name) for name in CARDS}


class Alike:
    """ALIKE on a device. It computes in single precision: half of it would move keypoints by a pixel."""

    bytes_per_pixel = BYTES_PER_PIXEL
    version = GRAPH_VERSION
    threshold = THRESHOLD
    smallest = BEFORE + AFTER + 1
    """Shortest side of a picture that can have keypoints, in pixels."""

    def __init__(
        self, card: ModelCard, choices: KeypointsOptions, device: Device, files: list[Path] | None = None
    ) -> None:
        self._card, self._device = card, device
        self._most = choices.most
        self._threshold = _float(self.threshold if choices.threshold is None else choices.threshold)
        paths = files or weights_files(card)
        content = cached_graph(card.name, self.version, paths, lambda: self.build(paths[0]))
        self._session = create_session(content, replace(device, precision="fp32"), MEMORY_SHARES["keypoint"])

    def extract(self, pictures: Sequence[Picture]) -> list[LocalFeatures]:
        return in_batches(self._device, self._card.name, pictures, self.bytes_per_pixel, self._run)

    @staticmethod
    def build(path: Path) -> bytes:
        return build_graph(path)

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
    tensors = read_tensors(path)
    try:
        return Builder(tensors).build()
    except (KeyError, ValueError, IndexError) as error:
        raise ModelError(f"{path} is not an ALIKE network with one head ({error})") from error


class Builder:
    """Builds the graph of ALIKE; its search for keypoints is that of ALIKED too."""

    radius, before, after = RADIUS, BEFORE, AFTER

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors
        self._graph = GraphWriter(type(self).__module__)

    def build(self) -> bytes:
        head = self._tensors["convhead2.weight"]
        parts = np.split(head, 4, axis=1)  # those of the last layer that belong to the feature maps
        graph = self._graph
        pixels = graph.input("pixels", np.uint8, ("n", "height", "width", 3))
        size = graph.input("size", np.int64, (2,))
        most = graph.input("most", np.int64, (1,))
        threshold = graph.input("threshold", np.float32, ())
        value = graph.add("Cast", pixels, to=graph.dtype(np.float32))
        maps = self._feature_maps(graph.add("Div", graph.add("Transpose", value, perm=[0, 3, 1, 2]), _float(255)))
        narrow = [self._narrow(value, number) for number, value in enumerate(maps, 1)]
        whole = self._score_map(narrow, parts)
        scores = graph.add("Slice", whole, _ints(0, 0), size, _ints(2, 3))
        maxima, places = self._maxima(scores, size, most, threshold)
        points = self._refined(scores, places)
        corners, shares = self._corners(points)
        outputs = {
            "maxima": (maxima, ("n", "most")),
            "points": (points, ("n", "most", 2)),
            "scores": (graph.add("Squeeze", self._mean(self._at(scores, corners), shares), _ints(1)), ("n", "most")),
            "descriptors": (
                self._descriptors(maps[0], narrow[1:], parts, corners, shares),
                ("n", "most", len(head) - 1),
            ),
        }
        return graph.serialise_all(outputs)

    def _feature_maps(self, value: str) -> list[str]:
        """Add the encoder; return its maps of 1, 1/2, 1/8 and 1/32 of the sides."""
        value = self._relu(self._conv(value, "block1.conv1", "block1.bn1"))
        value = self._relu(self._conv(value, "block1.conv2", "block1.bn2"))
        maps = [value]
        for number, side in ((2, 2), (3, 4), (4, 4)):
            block = f"block{number}"
            value = self._graph.add("MaxPool", value, kernel_shape=[side, side], strides=[side, side])
            inner = self._relu(self._conv(value, f"{block}.conv1", f"{block}.bn1"))
            inner = self._conv(inner, f"{block}.conv2", f"{block}.bn2")
            value = self._relu(self._graph.add("Add", inner, self._conv(value, f"{block}.downsample")))
            maps.append(value)
        return maps

    def _narrow(self, value: str, number: int) -> str:
        """Narrow one of the feature maps, or a part of it, as the last layer takes it."""
        return self._relu(self._conv(value, f"conv{number}"))

    def _score_map(self, maps: list[str], parts: list[Weights]) -> str:
        """Return a score for each pixel, (n, 1, height, width), from the last row of the last layer."""
        total = ""
        for value, part, factor in zip(maps, parts, (1, 2, 8, 32), strict=True):
            value = self._graph.conv(value, part[-1:])
            # ONNX Runtime would compute all that follows in blocks of 8 or 16 channels, of which one is used.
            value = self._graph.add("Unsqueeze", self._graph.add("Squeeze", value, _ints(1)), _ints(1))
            if factor > 1:  # enlarging and the layer are both linear, so that one channel is enough
                scales = np.array([1, 1, factor, factor], np.float32)
                value = self._graph.add(
                    "Resize", value, "", scales, mode="linear", coordinate_transformation_mode="align_corners"
                )
            total = self._graph.add("Add", total, value) if total else value
        return self._graph.add("Sigmoid", total)

    def _maxima(self, scores: str, size: str, most: str, threshold: str) -> tuple[str, str]:
        """Return the highest local maxima, (n, most), descending, and x, y of each, int64 (n, most, 2)."""
        graph, zero = self._graph, _float(0)
        maxima = graph.add("Equal", scores, self._highest(scores))
        for _ in range(2):  # a maximum among what lies away from the maxima so far
            near = graph.add("Greater", self._highest(graph.add("Cast", maxima, to=graph.dtype(np.float32))), zero)
            others = graph.add("Where", near, zero, scores)
            fresh = graph.add("Equal", others, self._highest(others))
            maxima = graph.add("Or", maxima, graph.add("And", fresh, graph.add("Not", near)))
        found = graph.add("Where", maxima, scores, zero)
        ends = graph.add("Sub", size, _ints(self.after, self.after))
        inner = graph.add("Slice", found, _ints(self.before, self.before), ends, _ints(2, 3))
        inner = graph.add("Flatten", inner)
        above = graph.add("Cast", graph.add("Greater", inner, threshold), to=graph.dtype(np.int64))
        counts = graph.add("ReduceMax", graph.add("ReduceSum", above, _ints(1), keepdims=0), axes=[0], keepdims=1)
        columns = graph.add("Max", graph.add("Min", most, counts), _ints(1))
        highest, places = graph.add_all("TopK", 2, inner, columns, axis=1)
        width = graph.add("Sub", graph.add("Gather", size, _ints(1)), _ints(self.before + self.after))
        last = _ints(2)
        x = graph.add("Unsqueeze", graph.add("Mod", places, width), last)
        y = graph.add("Unsqueeze", graph.add("Div", places, width), last)
        return highest, graph.add("Add", graph.add("Concat", x, y, axis=2), _ints(self.before))

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
        around = graph.add("Add", graph.add("Unsqueeze", places, _ints(2)), window)
        values = graph.add("Squeeze", self._at(scores, around), _ints(1))
        weights = graph.add("Softmax", graph.add("Div", values, _float(TEMPERATURE)), axis=2)
        moved = graph.add("MatMul", weights, window.astype(np.float32))
        return graph.add("Add", graph.add("Cast", places, to=graph.dtype(np.float32)), moved)

    def _at(self, value: str, places: str) -> str:
        """Return the values of a map, (n, channels, height, width), at x, y, int64 (n, most, k, 2).

        The result is (n, channels, most, k).
        """
        graph = self._graph
        shape = graph.add("Shape", value)
        x, y = (graph.add("Gather", places, np.array(axis), axis=3) for axis in (0, 1))
        flat = graph.add("Add", graph.add("Mul", y, graph.add("Gather", shape, _ints(3))), x)
        every = graph.add("Concat", graph.add("Gather", shape, _ints(0, 1)), _ints(1), axis=0)
        index = graph.add("Expand", graph.add("Reshape", flat, _ints(0, 1, -1)), every)
        found = graph.add("GatherElements", graph.add("Reshape", value, _ints(0, 0, -1)), index, axis=2)
        rows = graph.add("Gather", graph.add("Shape", flat), _ints(1, 2))
        return graph.add("Reshape", found, graph.add("Concat", _ints(0, 0), rows, axis=0))

    def _corners(self, points: str) -> tuple[str, str]:
        """Return the four pixels around each point, int64 (n, most, 4, 2), and their shares, (n, 1, most, 4)."""
        graph = self._graph
        offsets = np.array([(0, 0), (1, 0), (0, 1), (1, 1)])
        floor = graph.add("Unsqueeze", graph.add("Floor", points), _ints(2))
        rest = graph.add("Sub", graph.add("Unsqueeze", points, _ints(2)), floor)
        away = graph.add("Abs", graph.add("Sub", offsets.astype(np.float32), rest))
        shares = graph.add("ReduceProd", graph.add("Sub", _float(1), away), axes=[3], keepdims=0)
        places = graph.add("Add", graph.add("Cast", floor, to=graph.dtype(np.int64)), offsets)
        return places, graph.add("Unsqueeze", shares, _ints(1))

    def _mean(self, values: str, shares: str) -> str:
        """Return the mean of the four values of each point, by their shares: (n, channels, most)."""
        return self._graph.add("ReduceSum", self._graph.add("Mul", values, shares), _ints(3), keepdims=0)

    def _descriptors(self, largest: str, others: list[str], parts: list[Weights], corners: str, shares: str) -> str:
        """Return the descriptors of points, (n, most, dimension), of length 1: means of those of four pixels.

        The largest map is not narrow yet: fewer channels of it are kept in memory until they are read here.
        """
        graph = self._graph
        sides = graph.add("Gather", graph.add("Shape", largest), _ints(3, 2))
        last = graph.add("Cast", graph.add("Sub", sides, _ints(1)), to=graph.dtype(np.float32))
        shifted = graph.add("Mul", graph.add("Cast", corners, to=graph.dtype(np.float32)), _float(2))
        grid = graph.add("Sub", graph.add("Div", shifted, last), _float(1))
        enlarged = [
            graph.add("GridSample", value, grid, align_corners=1, mode="bilinear", padding_mode="border")
            for value in others
        ]
        values = graph.add("Concat", self._narrow(self._at(largest, corners), 1), *enlarged, axis=1)
        described = self._unit(graph.conv(values, np.concatenate(parts, axis=1)[:-1]))
        return graph.add("Transpose", self._unit(self._mean(described, shares)), perm=[0, 2, 1])

    def _unit(self, value: str) -> str:
        length = self._graph.add("ReduceL2", value, axes=[1], keepdims=1)
        return self._graph.add("Div", value, self._graph.add("Max", length, _float(1e-12)))

    def _conv(self, value: str, name: str, normalisation: str = "") -> str:
        """Add a convolution, with the normalisation that follows it folded in."""
        weights, bias = self._folded(name, normalisation)
        return self._graph.conv(value, weights, bias, pads=[weights.shape[2] // 2] * 4)

    def _folded(self, name: str, normalisation: str) -> tuple[Weights, Weights | None]:
        """Return the weights and the bias of a convolution and the normalisation that follows it."""
        weights = self._tensors[f"{name}.weight"]
        bias = self._tensors.get(f"{name}.bias")
        if normalisation:
            gamma, beta, mean, variance = (
                self._tensors[f"{normalisation}.{part}"].astype(np.float64)
                for part in ("weight", "bias", "running_mean", "running_var")
            )
            scale = gamma / np.sqrt(variance + EPSILON)
            weights, bias = weights * scale[:, None, None, None], beta - mean * scale
        return weights, bias

    def _floats(self, value: str) -> str:
        return self._graph.add("Cast", value, to=self._graph.dtype(np.float32))

    def _relu(self, value: str) -> str:
        return self._graph.add("Relu", value)


def _float(value: float) -> Weights:
    return np.array(value, np.float32)


def _ints(*values: int) -> npt.NDArray[np.int64]:
    return np.array(values, np.int64)

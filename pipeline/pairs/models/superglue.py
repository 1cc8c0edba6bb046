"""SuperGlue (Sarlin and others, CVPR 2020): a network that matches keypoints of SuperPoint, as one ONNX graph.

The weights' licence allows non-commercial research only, so the user gives their path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.models.card import ModelCard
from pipeline.models.onnx_graph import integers, number
from pipeline.models.torch_file import built, read_tensors
from pipeline.models.weights import cached_graph
from pipeline.pairs.models import lightglue
from pipeline.pairs.models.superpoint import CARD as SUPERPOINT
from pipeline.pairs.models.superpoint import given

CARD = ModelCard(
    "SuperGlue", "matcher", SUPERPOINT.licence,
    licence_source="LICENSE of magicleap/SuperGluePretrainedNetwork, which publishes code and weights together",
    by_path=True,
)  # fmt: skip
FILES = "superglue_outdoor.pth or superglue_indoor.pth"
GRAPH_VERSION = 1
THRESHOLD = 0.2
"""Probability that a match must exceed; the authors' value."""
ITERATIONS = 100
"""Iterations of Sinkhorn's algorithm; the authors' value."""
REACH = 0.7
"""Keypoints are given to the network from the middle of the picture, in this share of its longer side."""
TINY = 1e-30
"""Least sum that is divided by: padding has sums of 0."""


@dataclass(frozen=True)
class Network(lightglue.Network):
    """Description of SuperGlue with a user's weights."""

    path: Path = Path()
    iterations: int = ITERATIONS

    def graph(self) -> bytes:
        name = f"{self.card.name}-{self.iterations}"
        return cached_graph(name, GRAPH_VERSION, [self.path], lambda: build_graph(self, self.path))

    def files(self) -> Sequence[Path]:
        return [self.path]


def describe(weights: Path | None, iterations: int) -> Network:
    """Return the description of SuperGlue. Raises ModelError without the path of its weights."""
    path = given(weights, f"matcher: {CARD.name.lower()}", FILES, CARD.licence)
    return Network(
        CARD, extractor="superpoint", length=256, layers=18, width=256, heads=4,
        bytes_per_product=80, bytes_per_keypoint=20_000, path=path, iterations=iterations,
    )  # fmt: skip


def build_graph(network: Network, path: Path) -> bytes:
    """Return the network as ONNX.

    Inputs and outputs are those of LightGlue's graph, with `score_a` and `score_b` besides, float32 (n, keypoints): the
    keypoints' scores. `keypoint_a` is counted from the middle of the picture, in REACH of its longer side.

    Raises ModelError if the file holds another network.
    """
    return built(_Builder(network, read_tensors(path)).build, path, f"the network {network.card.name}")


class _Builder(lightglue.Builder):
    _network: Network

    def _layers(self, values: list[str], sides: Sequence[lightglue.Side]) -> list[str]:
        for layer in range(self._network.layers):
            # The layers look at the same picture and at the other one in turns.
            sources = values if layer % 2 == 0 else values[::-1]
            seen = sides if layer % 2 == 0 else sides[::-1]
            values = [
                self._layer(layer, value, source, side, other)
                for value, source, side, other in zip(values, sources, sides, seen, strict=True)
            ]
        return values

    def _side(self, letter: str) -> lightglue.Side:
        """Declare the inputs of a side; return its descriptors with the places in them, and what masks padding."""
        graph = self._graph
        keypoint = graph.input(f"keypoint_{letter}", np.float32, ("n", letter, 2))
        score = graph.input(f"score_{letter}", np.float32, ("n", letter))
        descriptor = graph.input(f"descriptor_{letter}", np.float32, ("n", letter, self._network.length))
        count = graph.input(f"count_{letter}", np.int64, ("n",))
        place = graph.add("Concat", keypoint, graph.add("Unsqueeze", score, integers(2)), axis=2)
        known = graph.add("Add", descriptor, self._perceptron(place, "kenc.encoder"))
        return {"descriptor": known, "count": count, **self._masks(keypoint, count)}

    def _convolution(self, name: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return weights (outputs, inputs) and bias of a convolution of size 1."""
        weights = self._weights(f"{name}.weight")
        return weights.reshape(weights.shape[:2]), self._weights(f"{name}.bias")

    def _normalised(
        self, weights: npt.NDArray[np.float64], bias: npt.NDArray[np.float64], name: str
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return weights and bias of a convolution and the batch normalisation behind it."""
        gain = self._weights(f"{name}.weight") / np.sqrt(self._weights(f"{name}.running_var") + lightglue.EPSILON)
        bias = (bias - self._weights(f"{name}.running_mean")) * gain + self._weights(f"{name}.bias")
        return weights * gain[:, None], bias

    def _perceptron(self, value: str, name: str) -> str:
        """Return what convolutions of size 1 make of a value, all but the last normalised and rectified."""
        numbers = sorted({int(key.split(".")[2]) for key in self._tensors if key.startswith(f"{name}.")})
        convolutions = [each for each in numbers if self._tensors[f"{name}.{each}.weight"].ndim > 1]
        for each in convolutions[:-1]:
            inner = self._normalised(*self._convolution(f"{name}.{each}"), f"{name}.{each + 1}")
            value = self._graph.add("Relu", self._affine(value, *inner))
        return self._affine(value, *self._convolution(f"{name}.{convolutions[-1]}"))

    def _layer(self, layer: int, value: str, source: str, side: lightglue.Side, other: lightglue.Side) -> str:
        """Let the keypoints of a picture look at those of a source."""
        graph, name = self._graph, f"gnn.layers.{layer}"
        heads, width = self._network.heads, self._network.width
        # Channels of the authors' code are component 0 of each head, then component 1.
        order = np.arange(width).reshape(self._part, heads).T.ravel()
        factor = self._part**-0.25
        parts = []
        for number_of, scale, of in ((0, factor, value), (1, factor, source), (2, 1.0, source)):
            weights, bias = self._convolution(f"{name}.attn.proj.{number_of}")
            parts.append(self._in_heads(self._affine(of, weights[order] * scale, bias[order] * scale)))
        query = graph.add("Concat", parts[0], side["ones"], axis=3)
        key = graph.add("Concat", parts[1], other["offs"], axis=3)
        context = self._attended(query, key, parts[2])
        outer, outer_bias = self._convolution(f"{name}.attn.merge")
        weights, bias = self._convolution(f"{name}.mlp.0")
        own, rest = np.split(weights, 2, axis=1)
        joined = np.concatenate([own, rest @ outer[:, order]], axis=1)  # the projection is part of the first layer
        inner = self._normalised(joined, bias + rest @ outer_bias, f"{name}.mlp.1")
        inside = graph.add("Relu", self._affine(graph.add("Concat", value, context, axis=2), *inner))
        return graph.add("Add", value, self._affine(inside, *self._convolution(f"{name}.mlp.3")))

    def _assignment(self, values: Sequence[str], sides: Sequence[lightglue.Side]) -> tuple[str, str]:
        """Return the partner of each keypoint of a, and the probability of the match; 0 if it is not mutual.

        Likenesses, with a row and a column for keypoints that have no partner, are scaled by Sinkhorn's algorithm until
        rows and columns have their sums. The authors' code does it with logarithms. Here the largest of each row is
        taken out before the exponential, and all that follows are products of matrices.
        """
        graph = self._graph
        weights, bias = self._convolution("final_proj")
        scale = self._network.width**-0.25
        described = [self._affine(value, weights * scale, bias * scale) for value in values]
        first = graph.add("Concat", described[0], sides[0]["one"], sides[0]["off"], axis=2)
        second = graph.add("Concat", described[1], sides[1]["off"], sides[1]["one"], axis=2)
        inner = graph.add("MatMul", first, graph.add("Transpose", second, perm=[0, 2, 1]))
        alone = number(float(self._tensors["bin_score"]))
        column = graph.add("Add", sides[0]["off"], alone)
        row = graph.add("Add", graph.add("Transpose", sides[1]["off"], perm=[0, 2, 1]), alone)
        counts = [graph.add("Unsqueeze", graph.floats(side["count"]), integers(1, 2)) for side in sides]
        corner = graph.add("Add", graph.add("Mul", counts[0], number(0)), alone)
        rows = [graph.add("Concat", inner, column, axis=2), graph.add("Concat", row, corner, axis=2)]
        likeness = graph.add("Concat", *rows, axis=1)
        below = graph.add("Sub", likeness, graph.add("ReduceMax", likeness, axes=[2]))
        kernel = graph.add("Exp", below)
        # Each keypoint has the mass 1, that without a partner as many as the other picture has keypoints.
        masses = [
            graph.add("Concat", graph.add("Exp", side["off"]), count, axis=1)
            for side, count in zip(sides, counts[::-1], strict=True)
        ]
        mass, target = masses[0], graph.add("Transpose", masses[1], perm=[0, 2, 1])
        across = graph.add("Add", graph.add("Mul", target, number(0)), number(1))
        down = across
        for _ in range(self._network.iterations):
            sums = graph.add("MatMul", kernel, graph.add("Transpose", across, perm=[0, 2, 1]))
            down = graph.add("Div", mass, graph.add("Max", sums, number(TINY)))
            sums = graph.add("MatMul", graph.add("Transpose", down, perm=[0, 2, 1]), kernel)
            across = graph.add("Div", target, graph.add("Max", sums, number(TINY)))
        shares = graph.add("Mul", graph.add("Mul", kernel, down), across)
        inner = graph.add("Slice", shares, integers(0, 0), integers(-1, -1), integers(1, 2))
        partner = graph.add("ArgMax", inner, axis=2, keepdims=0)
        back = graph.add("ArgMax", inner, axis=1, keepdims=0)
        best = graph.add("ReduceMax", inner, axes=[2], keepdims=0)
        mutual = graph.add("Equal", graph.add("GatherElements", back, partner, axis=1), sides[0]["indices"])
        return partner, graph.add("Where", mutual, best, number(0))

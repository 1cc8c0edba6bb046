"""XFeat and LighterGlue with weights made at random, in the shapes of the authors' files: they need no download."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipeline.models.torch_file import Tensors

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


def lighterglue(seed: int = 0) -> Tensors:
    """Return tensors for `pipeline.pairs.models.lighterglue`; equal descriptors match."""
    rng = np.random.default_rng(seed)
    sizes = dict(_sizes())
    tensors = {f"matcher.{name}.weight": rng.normal(0, size[1] ** -0.5, size) for name, size in sizes.items()}
    tensors |= {f"matcher.{name}.bias": rng.normal(0, 0.1, size[0]) for name, size in sizes.items()}
    for layer in range(6):
        for kind in ("self_attn", "cross_attn"):
            name = f"matcher.transformers.{layer}.{kind}.ffn"
            tensors[f"{name}.1.weight"], tensors[f"{name}.1.bias"] = rng.uniform(0.5, 1.5, 192), rng.normal(0, 0.1, 192)
            tensors[f"{name}.3.weight"] *= 0.1
    tensors["matcher.log_assignment.5.final_proj.weight"] *= 5
    tensors["matcher.log_assignment.5.matchability.bias"] += 3
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def _sizes() -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield the names of the layers, with components after and before."""
    yield "input_proj", (96, 64)
    yield "posenc.Wr", (48, 2)
    yield "log_assignment.5.matchability", (1, 96)
    yield "log_assignment.5.final_proj", (96, 96)
    for layer in range(6):
        for kind, inner in (("self_attn", {"Wqkv": 288, "out_proj": 96}),
                            ("cross_attn", {"to_qk": 96, "to_v": 96, "to_out": 96})):  # fmt: skip
            name = f"transformers.{layer}.{kind}"
            yield from ((f"{name}.{part}", (after, 96)) for part, after in inner.items())
            yield f"{name}.ffn.0", (192, 192)
            yield f"{name}.ffn.3", (96, 192)

"""Stand-in networks: graphs with the inputs, outputs and strides of published ones whose weights are not at hand, and
random weights. What they take for faces depends on the pixels, and there is something of it in any photograph."""

from __future__ import annotations

import numpy as np

from pipeline.models.onnx_graph import GraphWriter


def _layer(random: np.random.Generator, out: int, into: int, side: int, spread: float) -> np.ndarray:
    return (random.normal(0, spread / np.sqrt(into * side * side), (out, into, side, side))).astype(np.float32)


def stand_in_retinaface() -> bytes:
    """From float32 (n, height, width, 3), 0 to 255, to nine outputs as retina-face 0.0.19 reads them."""
    random = np.random.default_rng(7)
    graph = GraphWriter("stand_in_retinaface")
    planes = graph.add("Transpose", "data", perm=[0, 3, 1, 2])
    planes = graph.add("Div", graph.add("Sub", planes, np.float32(127)), np.float32(64))
    outputs: dict[str, tuple[str, tuple[int | str, ...]]] = {}

    def publish(name: str, value: str, channels: int) -> None:
        size = ("n", f"rows_{name}", f"columns_{name}", channels)
        outputs[name] = graph.add("Transpose", value, perm=[0, 2, 3, 1]), size

    # The bias leaves some hundred candidates in a photograph: retina-face compares each with each in Python.
    for stride, bias in ((32, -7.0), (16, -5.5), (8, -6.2)):
        cells = graph.conv(planes, _layer(random, 16, 3, stride, 4), strides=[stride] * 2, auto_pad="SAME_UPPER")
        cells = graph.add("Tanh", cells)
        logits = graph.conv(cells, _layer(random, 4, 16, 1, 4.5), np.full(4, bias, np.float32))
        publish(f"scores_{stride}", graph.add("Sigmoid", logits), 4)
        publish(f"boxes_{stride}", graph.conv(cells, _layer(random, 8, 16, 1, 0.5)), 8)
        publish(f"points_{stride}", graph.conv(cells, _layer(random, 20, 16, 1, 0.5)), 20)
    return graph.serialise("data", ("n", "height", "width", 3), outputs)


def stand_in_centerface() -> bytes:
    """From float32 (10, 3, 32, 32), 0 to 255, as the published file states it; the sizes mean nothing there either."""
    random = np.random.default_rng(8)
    graph = GraphWriter("stand_in_centerface")
    cells = graph.conv("input.1", _layer(random, 8, 3, 3, 3) / 128, strides=[2, 2], pads=[1, 1, 1, 1])
    cells = graph.add("Relu", cells)
    cells = graph.add("Tanh", graph.conv(cells, _layer(random, 16, 8, 3, 2), strides=[2, 2], pads=[1, 1, 1, 1]))
    bias = np.full(1, -6, np.float32)
    heads = {
        "537": (graph.add("Sigmoid", graph.conv(cells, _layer(random, 1, 16, 1, 4), bias)), 1),
        "538": (graph.conv(cells, _layer(random, 2, 16, 1, 1), np.full(2, 2, np.float32)), 2),
        "539": (graph.conv(cells, _layer(random, 2, 16, 1, 1)), 2),
        "540": (graph.conv(cells, _layer(random, 10, 16, 1, 1)), 10),
    }
    outputs = {name: (value, (10, channels, 8, 8)) for name, (value, channels) in heads.items()}
    return graph.serialise("input.1", (10, 3, 32, 32), outputs)

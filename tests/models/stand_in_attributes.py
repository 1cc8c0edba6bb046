"""Stand-ins for the weights of DeepFace's attributes: the right shapes and names, small random weights inside."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.faces.models import zoo
from pipeline.models.onnx_graph import GraphWriter

CELLS = 12
"""Along each side: a stand-in sees means over so many cells, so that it minds where things are."""


def write_stand_ins(home: Path) -> Path:
    """One for each attribute, below `home` as $DEEPFACE_HOME; returns `home`."""
    folder = home / ".deepface" / "weights"
    folder.mkdir(parents=True)
    for seed, card in enumerate(zoo.ATTRIBUTES):
        content = stand_in_attribute(card, seed)
        (folder / card.weights[0].name).write_bytes(content)
    return home


def stand_in_attribute(card: zoo.ModelCard, seed: int, batch: int | str = "n", outputs: int | None = None) -> bytes:
    """float32 (batch, side, side, channels) to softmax (batch, outputs), as the real graphs have it."""
    side, channels = (48, 1) if card.name == "Emotion" else (224, 3)
    outputs = outputs or len(card.classes) or 101
    weights = np.random.default_rng(seed).normal(0, 0.1, (CELLS * CELLS * channels, outputs)).astype(np.float32)
    graph = GraphWriter(f"stand_in_{card.name}")
    cell = -(-side // CELLS)
    value = graph.add("Transpose", "pixels", perm=[0, 3, 1, 2])
    value = graph.add("AveragePool", value, kernel_shape=[cell] * 2, strides=[cell] * 2, ceil_mode=1)
    value = graph.add("MatMul", graph.add("Flatten", value), weights)
    value = graph.add("Softmax", value, axis=-1)
    return graph.serialise("pixels", (batch, side, side, channels), {"probability": (value, (batch, outputs))})

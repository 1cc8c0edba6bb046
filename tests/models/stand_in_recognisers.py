"""Stand-ins for weights that are not at hand: small networks of random weights with the shapes of the real ones.

They show that chips, channel order, scale and batches reach a network as DeepFace hands them over; nothing of how well
it knows faces.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from pipeline.faces.models import zoo
from pipeline.faces.models.recognisers.traits import TRAITS
from pipeline.models.onnx_graph import GraphWriter

CELLS = 7


def stand_in_recogniser(name: str, folder: Path) -> Path:
    """The file of a recogniser in a folder of weights. SFace's is as old exporters wrote it: a batch of one, its
    weights listed as inputs."""
    card = zoo.card(name)
    path = folder / card.weights[0].name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_graph(name))
    if name == "SFace":
        _list_weights_as_inputs(path)
    return path


def stand_in_whose_rows_mix(folder: Path) -> Path:
    """SFace's file with a network that is wrong for more than one chip: each vector is the mean over the batch."""
    path = folder / zoo.card("SFace").weights[0].name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_graph("SFace", mixed=True))
    return path


def _graph(name: str, mixed: bool = False) -> bytes:
    card, first = zoo.card(name), TRAITS[name].channels_first
    assert card.input_size is not None
    width, height = card.input_size
    chance = np.random.default_rng(len(name))
    batch: int | str = 1 if name == "SFace" else "n"
    graph = GraphWriter(f"stand_in_{name}")
    scale = {"SFace": 1 / 255}.get(name, 1.0)
    value = graph.add("Mul", "input", np.array(scale, np.float32))
    if not first:
        value = graph.add("Transpose", value, perm=[0, 3, 1, 2])
    kernel = (height // CELLS, width // CELLS)
    value = graph.conv(value, chance.normal(size=(6, 3, *kernel)).astype(np.float32), strides=list(kernel))
    value = graph.add("Relu", value)
    cells = 6 * (height // kernel[0]) * (width // kernel[1])
    value = graph.add("Reshape", value, np.array([1 if batch == 1 else -1, cells], np.int64))
    value = graph.add("MatMul", value, chance.normal(size=(cells, card.dimension)).astype(np.float32))
    if mixed:
        value = graph.add("Add", graph.add("ReduceMean", value, axes=[0]), np.zeros((1, card.dimension), np.float32))
    shape = (batch, 3, height, width) if first else (batch, height, width, 3)
    return graph.serialise("input", shape, {"embedding": (value, (batch, card.dimension))})


def _list_weights_as_inputs(path: Path) -> None:
    model = onnx.load(path)
    model.graph.input.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in model.graph.initializer
    )
    onnx.save(model, path)

"""The ONNX graphs of recognisers: opened, checked, and rewritten for batches of any size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError
from pipeline.faces.models.recognisers import dlib_resnet
from pipeline.faces.models.recognisers.traits import Traits
from pipeline.machine.device import Device
from pipeline.models.card import ModelCard
from pipeline.models.session import MEMORY_SHARES, create_session, open_weights
from pipeline.models.weights import cached_graph, weights_files

Run = Callable[[npt.NDArray[Any]], npt.NDArray[np.float32]]

FREED_VERSION = 1
"""Version of free_batch's result."""
FREED_TOLERANCE = 1e-3
"""Largest difference between a row of a batch and the same chip alone, as a share of the largest component. ONNX
Runtime may optimise a rewritten graph in another way, but results may differ by rounding only."""


@dataclass(frozen=True)
class Network:
    """A recogniser's network, ready to run."""

    run: Run
    """Function from a batch, as Traits.feed makes it, to its vectors, float32 (n, dimension)."""
    batched: bool = True
    """False if it takes one chip at a time."""


def open_network(card: ModelCard, device: Device, traits: Traits) -> Network:
    """Open a recogniser's graph on ONNX Runtime.

    Raises ModelError: weights are missing or of another network, or the device cannot be used.
    """
    (path,) = weights_files(card)
    if card.name == dlib_resnet.NAME:
        graph = cached_graph("dlib_resnet", dlib_resnet.GRAPH_VERSION, [path], lambda: dlib_resnet.build_graph(path))
        return Network(_runner(create_session(graph, device, MEMORY_SHARES["recogniser"]), "chips"))
    session = open_weights(card, path, device, MEMORY_SHARES["recogniser"])
    # The graph must take and give what its card says, as far as the graph states it.
    width, height = card.input_size or (0, 0)
    expected = (3, height, width) if traits.channels_first else (height, width, 3)
    for what, found, wanted in (
        ("takes", session.get_inputs()[0].shape[1:], expected),
        ("gives", session.get_outputs()[0].shape[1:2], (card.dimension,)),
    ):
        known = [isinstance(size, int) for size in found]
        if len(found) != len(wanted) or any(
            given != size for given, size, sure in zip(found, wanted, known, strict=True) if sure
        ):
            raise ModelError(
                f"{path} is not the network {card.name}: it {what} {tuple(found)}, not {wanted}; "
                f"delete it and run: reelgraph models fetch {card.name}"
            )
    name = session.get_inputs()[0].name
    single = _runner(session, name)
    if session.get_inputs()[0].shape[0] != 1:
        return Network(single)
    free = _freed(card, device, traits, path, single, name)
    return Network(single, batched=False) if free is None else Network(free)


def _runner(session: Any, name: str) -> Run:

    def run(batch: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        result: npt.NDArray[np.float32] = session.run(None, {name: batch})[0]
        return result.reshape(len(batch), -1)

    return run


def _freed(card: ModelCard, device: Device, traits: Traits, path: Path, single: Run, name: str) -> Run | None:
    """Return the same graph for batches of any size; None if a batch of two differs from two runs of `single`."""
    width, height = card.input_size or (0, 0)
    batch = traits.feed(np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8))
    expected = np.concatenate([single(batch[index : index + 1]) for index in range(2)])
    try:
        graph = cached_graph(f"{path.stem}_batch", FREED_VERSION, [path], lambda: free_batch(path))
        run = _runner(create_session(graph, device, MEMORY_SHARES["recogniser"]), name)
        found = run(batch)
    except ModelError:
        raise
    except Exception:  # a graph that cannot be rewritten this way still runs one chip at a time
        return None
    fits = found.shape == expected.shape and np.abs(found - expected).max() <= FREED_TOLERANCE * np.abs(expected).max()
    return run if fits else None


def free_batch(path: Path) -> bytes:
    """Return an ONNX graph that was exported for a batch of one, with the size of its batch left free.

    It replaces the ones that the exporter wrote: the first dimension of inputs and outputs, and of the shapes given to
    activations. Weights that are listed as inputs, as old exporters did, become constants.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    inputs = [value for value in graph.input if value.name not in constants]
    del graph.input[:], graph.value_info[:]
    graph.input.extend(inputs)
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    for index, node in enumerate(graph.node):
        if node.op_type != "Reshape" or node.input[0] in constants or node.input[1] not in constants:
            continue
        shape = constants[node.input[1]]
        if shape.size and shape[0] == 1:
            name = f"free_shape_{index}"
            # 0: the same size as the input's
            graph.initializer.append(numpy_helper.from_array(np.array([0, *shape[1:]], np.int64), name))
            node.input[1] = name
    model.ir_version = max(model.ir_version, 4)  # before 4 every weight had to be an input
    content: bytes = model.SerializeToString()
    return content

"""Networks that turn pictures into vectors: EfficientNet-Lite0, or an ONNX file of the user's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError
from pipeline.images.models import efficientnet_lite
from pipeline.machine.device import Device
from pipeline.media.network import input_layout, input_size, normalisation
from pipeline.media.preparation import Layout, Picture, Preparation
from pipeline.models.card import ModelInfo
from pipeline.models.onnx_file import FLOATS, Graph, Value, is_path, open_session, probe, read_graph
from pipeline.models.session import is_out_of_memory, run_in_batches, runtime_name
from pipeline.models.weights import sha256
from pipeline.text import unknown

if TYPE_CHECKING:
    from pipeline.images.stages.features import FeaturesOptions

Pooling = Literal["none", "mean", "max"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Normalisation of torchvision's and most of timm's networks, for pixels from 0 to 1."""
USUAL_CROP = 0.875
"""Share of the shortest side that both Google's and torchvision's evaluation on ImageNet look at: 224 of 256."""

BYTES_PER_PIXEL = 256
"""Memory that a network takes for each pixel of its input; measured with EfficientNet-Lite0: 206."""


@dataclass(frozen=True)
class Network:
    """A network and what is done with its input and output.

    Making one opens a session only if the file does not say how long a vector is.
    """

    info: ModelInfo
    content: Callable[[], bytes | Path]
    """Gives the ONNX graph, serialised or as a file."""
    preparation: Preparation
    input: str
    batch: int | None
    """Size of a batch if the graph fixes it; None if it takes any."""
    output: str
    pooling: Pooling
    length: int
    """Components of a vector."""


def describe(choices: FeaturesOptions) -> Network:
    """Return the network that the options name.

    Raises ModelError: there is no such model, file or output, or an option does not fit the network.
    """
    if choices.model == efficientnet_lite.NAME:
        return _network(choices, _efficientnet(), efficientnet_lite.graph, efficientnet_lite.info())
    if not is_path(choices.model, efficientnet_lite.CARDS):
        raise ModelError(unknown("model", choices.model, efficientnet_lite.CARDS) + ", or the path of an ONNX file")
    path = Path(choices.model)
    graph = read_graph(path)
    if graph.others:
        inputs = (graph.input, *graph.others)
        raise ModelError(
            f"model {path} takes {len(inputs)} inputs ({'; '.join(map(str, inputs))}); "
            "features needs a network with one, the pictures"
        )
    own = ModelInfo(choices.model, "not known: a file of your own", runtime_name(), lambda: sha256(graph.files))
    network = _network(choices, graph, lambda: path, own)
    return replace(network, info=replace(own, hash_weights=lambda: _checked(choices, graph, network)))


def _efficientnet() -> Graph:
    net, side = efficientnet_lite, efficientnet_lite.SIDE
    outputs = {net.FEATURE: net.DIMENSION, net.LOGITS: net.CLASSES}
    return Graph(
        Value(net.INPUT, "uint8", (None, side, side, 3)),
        {name: Value(name, "float32", (None, length)) for name, length in outputs.items()},
        (),
    )


def _network(choices: FeaturesOptions, graph: Graph, content: Callable[[], bytes | Path], info: ModelInfo) -> Network:
    layout = input_layout(choices, graph.input, "features")
    preparation = _preparation(choices, graph.input, layout)
    output = _output(choices, graph)
    sizes = graph.input.sizes
    batch = sizes[0] if sizes else None
    length = None if output.sizes is None else _length(choices, output, output.sizes, layout)
    if length is None:
        made = _probe(graph, info.weights_sha256, (batch or 1, *preparation.shape), output.name)
        length = _length(choices, output, made, layout)
    assert length is not None  # every size of a result is known
    return Network(info, content, preparation, graph.input.name, batch, output.name, choices.pooling, length)


def _preparation(choices: FeaturesOptions, value: Value, layout: Layout) -> Preparation:
    usual_mean, usual_std = (
        values if choices.colour == "RGB" else values[::-1] for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    crop = choices.crop
    if crop is None:
        crop = USUAL_CROP if choices.resize == "shortest" else 1.0
    return Preparation(
        input_size(choices, value, layout), layout, value.dtype, choices.resize, crop, choices.filter, choices.colour,
        *normalisation(choices, value, 1 / 255, usual_mean, usual_std),
    )  # fmt: skip


def _output(choices: FeaturesOptions, graph: Graph) -> Value:
    """Return the chosen output, the first by default. Raises ModelError if there is none, or it gives no vectors."""
    names, wanted = list(graph.outputs), choices.output
    listed = "; ".join(f"{index}: {value}" for index, value in enumerate(graph.outputs.values()))
    if wanted is None:
        wanted = 0
    if str(wanted) not in names:  # exporters give outputs names such as 495
        if not isinstance(wanted, int) or not 0 <= wanted < len(names):
            raise ModelError(f"model {choices.model} has no output {wanted!r}; it has {listed}")
        wanted = names[wanted]
    output = graph.outputs[str(wanted)]
    if output.dtype not in FLOATS:
        raise ModelError(
            f"output {output} of model {choices.model} is not of {', '.join(FLOATS)}; "
            f"choose another with output (it has {listed})"
        )
    return output


def _length(choices: FeaturesOptions, output: Value, sizes: Sequence[int | None], layout: Layout) -> int | None:
    """Return the components of a vector, for the sizes of an output with its batch; None if a size is not known."""
    row = sizes[1:]
    if choices.pooling != "none":
        if len(row) not in (2, 3):
            raise ModelError(
                f"pooling {choices.pooling} needs an output of 3 or 4 dimensions, not {output} of model "
                f"{choices.model}; set pooling: none"
            )
        row = row[:1] if len(row) == 3 and layout == "NCHW" else row[-1:]
    return None if None in row else math.prod(size or 0 for size in row)


def _checked(choices: FeaturesOptions, graph: Graph, network: Network) -> str:
    """Return the hash of a file's weights, after a first run on black pictures.

    Raises ModelError if the graph cannot run, so that a run ends before its first chunk. What only the CPU cannot do
    is left to the workers.
    """
    digest = sha256(graph.files)
    try:
        made = _first_run(choices, graph, digest, network)
    except ModelError as error:
        if "NOT_IMPLEMENTED" in str(error) or is_out_of_memory(error):
            return digest
        raise
    length = _length(choices, graph.outputs[network.output], made, network.preparation.layout)
    if length != network.length:
        raise ModelError(_other_length(network, length))
    return digest


def _first_run(choices: FeaturesOptions, graph: Graph, digest: str, network: Network) -> Sequence[int | None]:
    """Return the shape of the output for two pictures, if a batch may have two."""
    pictures, shape = network.batch or min(2, choices.batch or 2), network.preparation.shape
    try:
        return _probe(graph, digest, (pictures, *shape), network.output)
    except ModelError as error:
        if network.batch or pictures == 1 or is_out_of_memory(error):
            raise
        _probe(graph, digest, (1, *shape), network.output)  # says what is wrong apart from the size of a batch
        raise ModelError(f"model {choices.model} takes one picture at a time; set batch: 1 ({error})") from error


def _other_length(network: Network, length: int | None) -> str:
    return (
        f"model {network.info.name} gives vectors of {length} components, and its file says {network.length}; "
        "export it again"
    )


def _probe(graph: Graph, sha256: str, shape: tuple[int, ...], output: str) -> Sequence[int | None]:
    """Return the shape of an output for a batch of this shape; raise ModelError as `probe` and `_check_rows` do."""
    made = probe(graph, sha256, {graph.input.name: shape}, output)[output]
    _check_rows(made, shape[0], output, str(graph.files[0]))
    return made


def _run(session: Any, value: str, batch: npt.NDArray[Any], output: str, name: str) -> npt.NDArray[Any]:
    result: npt.NDArray[Any] = session.run([output], {value: batch})[0]
    _check_rows(result.shape, len(batch), output, name)
    return result


def _check_rows(shape: Sequence[int | None], pictures: int, output: str, name: str) -> None:
    if not shape or shape[0] != pictures:
        raise ModelError(
            f"model {name} gives {output!r} of shape {tuple(shape)} for {pictures} pictures, not a row for each; "
            "choose another with output"
        )


class Runner:
    """A network on a device. Thread-safe."""

    def __init__(self, network: Network, device: Device, most: int) -> None:
        """Open the session. `most`: pictures in a batch, if the memory allows and the network does not fix it.

        Raises ModelError: the weights are missing or damaged, or the device cannot be used.
        """
        self._network, self._device = network, device
        fits = device.batch_memory_bytes // (BYTES_PER_PIXEL * math.prod(network.preparation.size))
        self._most = network.batch or max(1, min(most, fits))
        self._session = open_session(network.content(), device, network.info.name, "feature")

    def features(self, pictures: Sequence[Picture], rows: Sequence[int]) -> npt.NDArray[np.float32]:
        """Return float32 (rows, length): the vectors of some of the pictures, of which one is used at a time."""
        network = self._network

        def run(start: int, stop: int) -> npt.NDArray[np.float32]:
            used = (pictures[row] for row in rows[start:stop])
            batch = network.preparation.batch(used, network.batch or stop - start)
            result = _run(self._session, network.input, batch, network.output, network.info.name)
            return self._pooled(result[: stop - start])

        shape = network.preparation.shape
        parts = run_in_batches(self._device, network.info.name, shape, len(rows), self._most, run)
        return np.concatenate([np.empty((0, network.length), np.float32), *(part for _, _, part in parts)])

    def _pooled(self, result: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        network = self._network
        if network.pooling != "none":
            places = (1,) if result.ndim == 3 else (2, 3) if network.preparation.layout == "NCHW" else (1, 2)
            result = (np.mean if network.pooling == "mean" else np.max)(result.astype(np.float32), axis=places)
        vectors = result.reshape(len(result), -1).astype(np.float32)
        if vectors.shape[1] != network.length:
            raise ModelError(_other_length(network, vectors.shape[1]))
        return vectors

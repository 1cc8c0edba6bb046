"""Detectors of objects as ONNX files of the user's own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError
from pipeline.machine.device import Device
from pipeline.media.network import input_layout, input_size, normalisation
from pipeline.media.preparation import Picture, Preparation, Size
from pipeline.models.card import ModelInfo
from pipeline.models.onnx_file import Graph, Sizes, Value, magnitudes, open_session, probe, read_graph
from pipeline.models.session import is_out_of_memory, run_in_batches, runtime_name
from pipeline.models.weights import sha256
from pipeline.objects.classes import given_names, noted_names
from pipeline.objects.models.decoding import Decoding
from pipeline.objects.models.families import BARS, PRESETS, Activation, Corners, Family, Outputs, Preset, recognise
from pipeline.objects.models.found import Candidates, Choice, Objects, chosen
from pipeline.text import plural

if TYPE_CHECKING:
    from pipeline.objects.stages.objects import ObjectsOptions

BYTES_PER_PIXEL = 512
"""Memory that a network takes for each pixel of its input, roughly; batches are halved if a network takes more."""
OVERLAP = 0.45
"""Default of the option `overlap` for networks that do not choose among their own boxes."""
LARGEST_PART = 3.0
"""Median of the numbers of boxes above which they cannot be parts of a picture, all but a few of which are below 1."""


@dataclass(frozen=True)
class Network:
    """A network and what is done with its input and outputs."""

    info: ModelInfo
    path: Path
    preparation: Preparation
    inputs: tuple[Value, ...]
    batch: int | None
    """Size of a batch if the graph fixes it; None if it takes any."""
    family: Family
    decoding: Decoding
    overlap: float
    names: list[str]
    """Names of the classes."""

    def given(self, batch: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """Return the inputs of a session: pictures and what some networks want beside."""
        return {self.inputs[0].name: batch} | {
            value.name: _beside(value, len(batch), self.preparation.size) for value in self.inputs[1:]
        }


def describe(choices: ObjectsOptions) -> Network:
    """Return the network that the options name.

    It opens a session only if the file does not say what its outputs look like. Raises ModelError: the file cannot be
    read, or an option does not fit it.
    """
    path = Path(choices.model)
    graph = read_graph(path)
    layout = input_layout(choices, graph.input, "objects")
    size = input_size(choices, graph.input, layout, _noted_size(graph.metadata))
    for value in graph.others:
        _beside(value, 1, size)
    batch = graph.input.sizes[0] if graph.input.sizes else None
    shape = (3, *size) if layout == "NCHW" else (*size, 3)
    shapes = {name: value.sizes for name, value in graph.outputs.items()}
    stated = {name: (batch or 1, *sizes[1:]) for name, sizes in shapes.items() if sizes}
    if len(stated) < len(shapes) or any(None in sizes for sizes in stated.values()):
        stated = _probed(graph, batch or 1, shape, size)
    outputs = recognise(choices.model, graph, stated, size, choices.outputs or ())
    family = choices.family or outputs.families[0]
    if family not in outputs.families:
        named = ", ".join(str(graph.outputs[name]) for name in outputs.names)
        raise ModelError(
            f"family {family} does not fit model {choices.model}, which gives {named}: {outputs.shown}; "
            f"set family: {outputs.families[0]}"
        )
    preset = _of_outputs(PRESETS[family], outputs, bool(graph.others))
    decoding, names = _decoding(choices, graph, stated, preset, outputs, family, size)
    preparation = Preparation(
        size, layout, graph.input.dtype, "longest" if (choices.resize or preset.resize) == "letterbox" else "stretch",
        1.0, "area", choices.colour or preset.colour,
        *normalisation(choices, graph.input, preset.scale, preset.mean, preset.std), BARS, preset.bars_after,
    )  # fmt: skip
    chooses = family == "detr" or outputs.form in ("finished", "numbered", "labels")
    overlap = (1.0 if chooses else OVERLAP) if choices.overlap is None else choices.overlap
    info = ModelInfo(choices.model, "not known: a file of your own", runtime_name(), lambda: sha256(graph.files))
    inputs = (graph.input, *graph.others)
    network = Network(info, path, preparation, inputs, batch, family, decoding, overlap, names)
    checked = replace(info, hash_weights=lambda: _checked(choices, graph, network))
    return replace(network, info=checked)


def _noted_size(metadata: Mapping[str, str]) -> Size | None:
    """Return height and width in the notes of a file, as Ultralytics writes them: "[640, 640]"."""
    numbers = [int(one) for one in metadata.get("imgsz", "").strip("[]() ").split(",") if one.strip().isdigit()]
    return (numbers[0], numbers[-1]) if 1 <= len(numbers) <= 2 else None


def _beside(value: Value, pictures: int, size: Size) -> npt.NDArray[Any]:
    """Return what an input after the first takes: the size that boxes are to have, or a mask of all pixels.

    Raises ModelError if it is neither.
    """
    sizes = value.sizes or ()
    if len(sizes) == 2 and sizes[1] in (2, None):
        return np.tile(np.array([size[1], size[0]], value.dtype), (pictures, 1))
    if len(sizes) == 3:
        return np.ones((pictures, *size), value.dtype)
    raise ModelError(f"the network also takes {value}, which is neither a size nor a mask; export it without")


def _probed(graph: Graph, pictures: int, shape: tuple[int, ...], size: Size) -> dict[str, Sizes]:
    """Return the shapes of all outputs for some black pictures."""
    return probe(graph, sha256(graph.files), _inputs(graph, pictures, shape, size))


def _inputs(graph: Graph, pictures: int, shape: tuple[int, ...], size: Size) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all inputs for some pictures."""
    beside = {value.name: _beside(value, pictures, size).shape for value in graph.others}
    return {graph.input.name: (pictures, *shape), **beside}


def _of_outputs(preset: Preset, outputs: Outputs, sized: bool) -> Preset:
    """Return a family's preset for what the outputs look like."""
    if outputs.form == "finished":
        return preset if "detr" in outputs.families[:1] else replace(preset, box="xyxy", objectness=False)
    if outputs.form == "numbered":
        return replace(preset, box="xyxy", objectness=False, background="ssd" in outputs.families)
    if outputs.form == "labels":
        box: Corners = "yxyx" if "detection_boxes" in outputs.names[0] else "xyxy"
        return replace(preset, box=box, normalised=preset.normalised and not sized)
    if outputs.form == "scores":
        return preset
    # Ultralytics' RT-DETR holds scores, not logits. With one class there may be no score beside that of an object.
    activation: Activation = "none" if "detr" in outputs.families[:1] else preset.activation
    return replace(
        preset, activation=activation, objectness=preset.objectness and outputs.classes > 1,
        cells=preset.cells and bool(outputs.strides),
    )  # fmt: skip


def _decoding(
    choices: ObjectsOptions, graph: Graph, shapes: Mapping[str, Sizes], preset: Preset, outputs: Outputs,
    family: Family, size: Size,
) -> tuple[Decoding, list[str]]:  # fmt: skip
    """Return the decoding and the names of the classes. Raises ModelError if they do not fit the outputs."""
    names = given_names(choices.classes)
    names = noted_names(graph.metadata) if names is None else names
    objectness = preset.objectness if choices.objectness is None else choices.objectness
    if graph.metadata.get("task") == "obb":
        raise ModelError(f"model {choices.model} gives turned boxes (task: obb); choose one that gives upright boxes")
    first = int(preset.background)
    if names and names[0].strip("_").lower() == "background":
        names, first = names[1:], 1
    activation = choices.activation or preset.activation
    numbers = outputs.classes - (objectness and outputs.form != "scores")
    if outputs.classes == 0:  # each box has the number of its class
        if names is None:
            raise ModelError(f"model {choices.model} does not name its classes; set classes: a list or a file of names")
        first = first if choices.first is None else choices.first
    elif outputs.form == "scores":
        if family == "detr" and choices.activation is None and names and numbers == len(names) + 1:
            activation = "softmax"  # DETR: the last class is none
        if family == "ssd" and names and numbers == len(names):
            first = 0
        first = first if choices.first is None else choices.first
        names = names or [str(number) for number in range(first, numbers - (activation == "softmax" and not first))]
        if numbers not in (first + len(names), first + len(names) + (activation == "softmax")):
            raise ModelError(_other_count(choices, outputs, numbers, names))
    else:
        masks = [sizes[1] or 0 for sizes in shapes.values() if len(sizes or ()) == 4 and outputs.form != "map"]
        if names is None:
            names = [str(number) for number in range(numbers - sum(masks[:1]))]
        more = graph.metadata.get("task") in ("segment", "pose") or bool(masks)
        first = choices.first or 0
        if numbers != first + len(names) and not (more and numbers > len(names)):
            raise ModelError(_other_count(choices, outputs, numbers, names))
    decoding = Decoding(
        outputs, size, len(names), choices.box or preset.box,
        preset.normalised if choices.normalised is None else choices.normalised, objectness,
        preset.cells if choices.cells is None else choices.cells, activation, first,
    )  # fmt: skip
    if decoding.cells and not outputs.strides:
        raise ModelError(f"cells does not fit model {choices.model}, which gives {outputs.shown}; leave it out")
    return decoding, names


def _other_count(choices: ObjectsOptions, outputs: Outputs, numbers: int, names: Sequence[str]) -> str:
    return (
        f"model {choices.model} gives {outputs.shown}, of which {numbers} are scores of classes, and its classes have "
        f"{plural(len(names), 'name')}; correct classes, or set family or objectness"
    )


def _checked(choices: ObjectsOptions, graph: Graph, network: Network) -> str:
    """Return the hash of a file's weights, after a first run on black pictures.

    Raises ModelError if the graph cannot run, so that a run ends before its first chunk. What only the CPU cannot do
    is left to the workers.
    """
    pictures = network.batch or min(2, choices.batch or 2)
    try:
        shapes = _probed(graph, pictures, network.preparation.shape, network.preparation.size)
    except ModelError as error:
        if "NOT_IMPLEMENTED" in str(error) or is_out_of_memory(error):
            return sha256(graph.files)
        raise
    outputs = network.decoding.outputs
    _check_rows(choices.model, outputs, [shapes[name] for name in outputs.names], pictures)
    _check_parts(choices, graph, network, pictures)
    return sha256(graph.files)


def _check_parts(choices: ObjectsOptions, graph: Graph, network: Network, pictures: int) -> None:
    """Raise ModelError if boxes in pixels would be read as parts of the picture, as no corner of it lies beyond 1."""
    if network.decoding.outputs.form != "scores" or not network.decoding.normalised or choices.normalised is not None:
        return
    boxes = network.decoding.outputs.names[0]
    inputs = _inputs(graph, pictures, network.preparation.shape, network.preparation.size)
    if (size := magnitudes(graph, sha256(graph.files), inputs)[boxes]) > LARGEST_PART:
        raise ModelError(
            f"model {choices.model} gives {boxes!r} of about {size:.0f}, which look like pixels; family "
            f"{network.family} has parts of the picture. Set normalised: false, and first: 0 if its first class is not "
            "the background"
        )


def _check_rows(model: str, outputs: Outputs, shapes: Sequence[Sizes], pictures: int) -> None:
    """Raise ModelError unless each output has one entry for each picture."""
    if outputs.form == "numbered":
        return
    for name, shape in zip(outputs.names, shapes, strict=True):
        if shape[:1] != (pictures,) if outputs.batched else pictures != 1:
            shown = tuple(shape)
            raise ModelError(f"model {model} gives {name!r} of shape {shown} for {pictures} pictures; set batch: 1")


class Runner:
    """A network on a device. Thread-safe."""

    def __init__(self, network: Network, device: Device, choice: Choice, most: int) -> None:
        """Open the session. `most`: pictures in a batch, if the memory allows and the network does not fix it.

        Raises ModelError: the file is missing or damaged, or the device cannot be used.
        """
        self._network, self._device, self._choice = network, device, choice
        fits = device.batch_memory_bytes // (BYTES_PER_PIXEL * math.prod(network.preparation.size))
        self._most = network.batch or max(1, min(most, fits))
        self._session = open_session(network.path, device, network.info.name, "object")

    def objects(self, pictures: Sequence[Picture], rows: Sequence[int]) -> list[Objects]:
        """Return the objects of some of the pictures, of which one is used at a time."""
        network, shape = self._network, self._network.preparation.shape

        def run(start: int, stop: int) -> list[Objects]:
            sizes: list[tuple[int, ...]] = []

            def used() -> Iterator[Picture]:
                for row in rows[start:stop]:
                    picture = pictures[row]
                    sizes.append(picture.shape[:2])
                    yield picture

            batch = network.preparation.batch(used(), network.batch or stop - start)
            outputs = network.decoding.outputs
            arrays = self._session.run(list(outputs.names), network.given(batch))
            _check_rows(network.info.name, outputs, [array.shape for array in arrays], len(batch))
            found = network.decoding.candidates(arrays, len(batch), self._choice.score)
            return [self._placed(one, size) for one, size in zip(found, sizes, strict=False)]

        parts = run_in_batches(self._device, network.info.name, shape, len(rows), self._most, run)
        return [one for _, _, part in parts for one in part]

    def _placed(self, found: Candidates, size: tuple[int, ...]) -> Objects:
        """Return the objects of a picture of this height and width, of boxes on the network's input."""
        top, left, height, width = self._network.preparation.placed(size)
        corners = (found.corners - [left, top, left, top]) * ([size[1] / width, size[0] / height] * 2)
        objects = chosen(found._replace(corners=corners), self._choice, size)
        largest = objects.label.max(initial=0)
        if largest >= len(self._network.names):
            raise ModelError(
                f"model {self._network.info.name} gives class {largest}, counted from 0, and its classes have "
                f"{plural(len(self._network.names), 'name')}; correct classes or first"
            )
        return objects

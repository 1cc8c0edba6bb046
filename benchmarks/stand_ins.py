"""Stand-ins for weights that are not at hand: networks of the true architecture with random weights.

They take the time of the real ones and find nothing real; tables name them "stand-in". `ArcFace` and `retinaface` are
DeepFace's and retina-face's own TensorFlow architectures, converted by tf2onnx to the inputs and outputs of the graphs
that DeepFace publishes; `VGG-Face` and the attributes are written layer by layer; `SFace`, of which only the graph is
published, is a MobileNet of that graph's size. RetinaFace's stand-in has one face planted amid each picture
(plant_face).

As a program, `python stand_ins.py NAME FILE` builds one: TensorFlow keeps its memory until its process ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

PLANTED_OUTPUT = 3
"""Scores at stride 16, of whose cells the first anchor has PLANTED_SIDE pixels."""
PLANTED_ANCHOR, PLANTED_SIDE, PLANTED_SCORE = 0, 128, 0.99
LANDMARKS = ((-0.2, -0.15), (0.2, -0.15), (0.0, 0.05), (-0.15, 0.25), (0.15, 0.25))
"""Of the planted face, x and y from the middle of its box as parts of its side: eyes, nose, mouth corners."""
REMNANT = np.array(1e-3, np.float32)
"""What is left of the network's own outputs: little enough to change nothing, but it must be computed."""
VGG_LEVELS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Filters and layers between two poolings: DeepFace's VGGFace.base_model."""
SFACE_BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
"""Filters and stride of MobileNet's separable convolutions; with the layer behind them 9.6 million weights, as the
38.7 MB of face_recognition_sface_2021dec.onnx."""


def provide(names: set[str], weights: Path, store: Path) -> set[str]:
    """Link a stand-in into the folder `weights` for each model (by DeepFace's name) that has no file there; returns
    the names of those. Stand-ins are built once, in `store`."""
    from pipeline.faces.models import zoo

    standing = set()
    for name in sorted(names & set(BUILDERS)):
        file = zoo.card(name).weights[0].name
        link, built = weights / file, store / file
        if link.exists() and link.resolve() != built.resolve():
            continue
        standing.add(name)
        if not built.exists():
            _build(name, built)
        if not link.exists():
            link.symlink_to(built.resolve())
    return standing


def forget(weights: Path, store: Path) -> None:
    """Remove the links into `store` from the folder `weights`, so that real files can take their place."""
    for link in weights.glob("*"):
        if link.is_symlink() and store.resolve() in link.resolve().parents:
            link.unlink()


def _build(name: str, path: Path) -> None:
    """In a process of its own, aside and renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".partial")
    tensorflow = {"TF_USE_LEGACY_KERAS": "1", "DEEPFACE_BACKEND_ENGINE": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
    environment = {**os.environ, **tensorflow, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(Path(__file__)), name, str(aside)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"the stand-in of {name} could not be built:\n{done.stderr[-2000:]}")
    os.replace(aside, path)


# --- TensorFlow's architectures ---------------------------------------------------------------------------------------


def arcface() -> bytes:
    from deepface.models.facial_recognition.tf import ArcFace

    return _converted(_untrained(ArcFace), (112, 112))


def retinaface() -> bytes:
    from unittest.mock import patch

    import onnx
    from retinaface.model import retinaface_model

    with patch.object(retinaface_model, "load_weights", lambda model: model):
        network = onnx.load_from_string(_converted(retinaface_model.build_model, (None, None)))
    plant_face(network)
    content: bytes = network.SerializeToString()
    return content


def _untrained(module: Any) -> Callable[[], Any]:
    """A module's load_model, without its weights."""
    from unittest.mock import patch

    def build() -> Any:
        with (
            patch.object(module.weight_utils, "download_weights_if_necessary", lambda **_: ""),
            patch.object(module.weight_utils, "load_model_weights", lambda model, weight_file: model),
        ):
            return module.load_model()

    return build


def _converted(build: Callable[[], Any], size: tuple[int | None, int | None]) -> bytes:
    """A network of Keras as ONNX, from float32 (n, *size, 3)."""
    import tensorflow as tf
    import tf2onnx

    from pipeline.models.onnx_graph import IR_VERSION, OPSET

    tf.keras.utils.set_random_seed(0)
    signature = [tf.TensorSpec((None, *size, 3), tf.float32, name="input")]
    network, _ = tf2onnx.convert.from_keras(build(), input_signature=signature, opset=OPSET)
    network.ir_version = IR_VERSION
    content: bytes = network.SerializeToString()
    return content


def plant_face(network: Any) -> None:
    """Let RetinaFace see one face, amid each picture, and no other: in place, an onnx model with its nine outputs.

    DeepFace's black border of half a frame leaves the middle where it is, so that one is found with it and without.
    """
    graph = network.graph
    names = [value.name for value in graph.output]
    for node in graph.node:
        for tensors in (node.input, node.output):
            for at, name in enumerate(tensors):
                if name in names:
                    tensors[at] = _of_network(name)
    planted = np.zeros((1, 1, 1, 4), np.float32)
    planted[..., 2 + PLANTED_ANCHOR] = PLANTED_SCORE
    for at, name in enumerate(names):
        writer = _Appender(graph, name)
        value = _of_network(name)
        value = writer.add("Mul", value if at % 3 == 0 else writer.add("Tanh", value), REMNANT)
        if at == PLANTED_OUTPUT:
            middle = [_middle(writer, value, axis) for axis in (1, 2)]
            value = writer.add("Add", value, writer.add("Mul", writer.add("Mul", *middle), planted))
        elif at % 3 == 2:
            value = writer.add("Add", value, np.tile(np.array(LANDMARKS, np.float32).ravel(), 2))
        writer.add("Identity", value, output=name)


def _of_network(output: str) -> str:
    return f"{output}_of_network"


def _middle(writer: _Appender, value: str, axis: int) -> str:
    """float32, 1 at the middle row (axis 1) or column (2) of value (n, rows, columns, channels), 0 elsewhere."""
    from onnx import TensorProto

    count = writer.add("Gather", writer.add("Shape", value), np.array(axis, np.int64))
    half = writer.add("Div", count, np.array(2, np.int64))
    places = writer.add("Range", np.array(0, np.int64), count, np.array(1, np.int64))
    here = writer.add("Cast", writer.add("Equal", places, half), to=TensorProto.FLOAT)
    return writer.add("Unsqueeze", here, np.array([other for other in range(4) if other != axis], np.int64))


class _Appender:
    """Adds nodes to the end of a graph that is there already."""

    def __init__(self, graph: Any, prefix: str) -> None:
        self._graph, self._prefix = graph, prefix

    def add(self, op: str, *inputs: str | np.ndarray, output: str = "", **attributes: Any) -> str:
        from onnx import helper, numpy_helper

        names = []
        for value in inputs:
            if not isinstance(value, str):
                tensor = numpy_helper.from_array(value, f"{self._prefix}_w{len(self._graph.initializer)}")
                self._graph.initializer.append(tensor)
                value = tensor.name
            names.append(value)
        output = output or f"{self._prefix}_{op}{len(self._graph.node)}"
        self._graph.node.append(helper.make_node(op, names, [output], **attributes))
        return output


# --- Plain chains of layers, written straight -------------------------------------------------------------------------


class _Random:
    """Weights, float32, of a variance that what passes through the layers keeps (He)."""

    def __init__(self) -> None:
        self._chance = np.random.default_rng(0)

    def __call__(self, *shape: int) -> np.ndarray:
        spread = np.float32(np.sqrt(2 / np.prod(shape[1:])))
        return self._chance.standard_normal(shape, np.float32) * spread


def vgg_face() -> bytes:
    """From float32 (n, 224, 224, 3) to 4096 components, as DeepFace's VGGFace.load_model, which leaves out the
    classifier. Written here: tf2onnx's conversion of its 134 million weights died on a machine of 24 GB."""
    return _vgg("stand_in_VGG_Face", 0, "n")


def age() -> bytes:
    return _vgg("stand_in_Age", 101, "n")


def gender() -> bytes:
    return _vgg("stand_in_Gender", 2, "n")


def race() -> bytes:
    """As the published file's name says, `race_model_single_batch.onnx`: for one face at a time."""
    return _vgg("stand_in_Race", 6, 1)


def _vgg(name: str, classes: int, batch: int | str) -> bytes:
    """VGG-Face without its classifier, or with one of `classes` probabilities in its place, as DeepFace's
    demography/tf has it."""
    from pipeline.models.onnx_graph import GraphWriter

    random, graph = _Random(), GraphWriter(name)
    value, channels = graph.add("Transpose", "input", perm=[0, 3, 1, 2]), 3
    for filters, layers in VGG_LEVELS:
        for _ in range(layers):
            weights, bias = random(filters, channels, 3, 3), np.zeros(filters, np.float32)
            value, channels = graph.add("Relu", graph.conv(value, weights, bias, pads=[1] * 4)), filters
        value = graph.add("MaxPool", value, kernel_shape=[2, 2], strides=[2, 2])
    for side in (7, 1):
        weights, bias = random(4096, channels, side, side), np.zeros(4096, np.float32)
        value, channels = graph.add("Relu", graph.conv(value, weights, bias)), 4096
    if classes:
        value = graph.conv(value, random(classes, channels, 1, 1), np.zeros(classes, np.float32))
    value = graph.add("Flatten", value)
    value = graph.add("Softmax", value, axis=-1) if classes else value
    return graph.serialise("input", (batch, 224, 224, 3), {"output": (value, (batch, classes or 4096))})


def emotion() -> bytes:
    """From float32 (n, 48, 48, 1) to 7 probabilities, as DeepFace's demography/tf/Emotion.py."""
    from pipeline.models.onnx_graph import GraphWriter

    random, graph = _Random(), GraphWriter("stand_in_Emotion")
    value, channels = graph.add("Transpose", "input", perm=[0, 3, 1, 2]), 1
    for filters, sides, pool in ((64, (5,), "MaxPool"), (64, (3, 3), "AveragePool"), (128, (3, 3), "AveragePool")):
        for side in sides:
            weights, bias = random(filters, channels, side, side), np.zeros(filters, np.float32)
            value, channels = graph.add("Relu", graph.conv(value, weights, bias)), filters
        reach = 5 if pool == "MaxPool" else 3
        value = graph.add(pool, value, kernel_shape=[reach, reach], strides=[2, 2])
    value = graph.add("Flatten", value)
    for width, size in ((128, 1024), (1024, 1024)):
        value = graph.add("Relu", graph.add("Gemm", value, random(size, width), transB=1))
    value = graph.add("Softmax", graph.add("Gemm", value, random(7, 1024), transB=1), axis=-1)
    return graph.serialise("input", ("n", 48, 48, 1), {"output": (value, ("n", 7))})


def sface() -> bytes:
    """From float32 (1, 3, 112, 112) to 128 components: MobileNet whose first layer does not halve, and one full layer
    on its 7 × 7 cells."""
    from pipeline.models.onnx_graph import GraphWriter

    random, graph = _Random(), GraphWriter("stand_in_SFace")

    def layer(value: str, channels: int, filters: int, side: int, stride: int = 1, group: int = 1) -> str:
        weights, bias = random(filters, channels // group, side, side), np.zeros(filters, np.float32)
        value = graph.conv(value, weights, bias, strides=[stride] * 2, pads=[side // 2] * 4, group=group)
        return graph.add("PRelu", value, np.full((filters, 1, 1), 0.25, np.float32))

    scaled = graph.add("Sub", "data", np.array(127.5, np.float32))
    value, channels = layer(graph.add("Mul", scaled, np.array(1 / 128, np.float32)), 3, 32, 3), 32
    for filters, stride in SFACE_BLOCKS:
        value = layer(layer(value, channels, channels, 3, stride, group=channels), channels, filters, 1)
        channels = filters
    value = graph.add("Gemm", graph.add("Flatten", value), random(128, channels * 7 * 7), transB=1)
    return graph.serialise("data", (1, 3, 112, 112), {"fc1": (value, (1, 128))})


BUILDERS: dict[str, Callable[[], bytes]] = {
    "ArcFace": arcface,
    "VGG-Face": vgg_face,
    "retinaface": retinaface,
    "SFace": sface,
    "Age": age,
    "Gender": gender,
    "Race": race,
    "Emotion": emotion,
}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    Path(sys.argv[2]).write_bytes(BUILDERS[sys.argv[1]]())

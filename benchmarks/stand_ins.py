"""Stand-ins for missing weights: networks of the true architecture with random weights.

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
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import harness
import numpy as np

PLANTED_OUTPUT = 3
"""Scores at stride 16, of whose cells the first anchor has a side of 128 pixels."""
PLANTED_ANCHOR, PLANTED_SCORE = 0, 0.99
LANDMARKS = ((-0.2, -0.15), (0.2, -0.15), (0.0, 0.05), (-0.15, 0.25), (0.15, 0.25))
"""Eyes, nose, mouth corners of the planted face: x and y from the middle of its box as parts of its side."""
REMNANT = np.array(1e-3, np.float32)
"""Factor of the network's own outputs: they change nothing, but must be computed."""
VGG_LEVELS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Filters and layers between two poolings: DeepFace's VGGFace.base_model."""
SFACE_BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
"""Filters and stride of MobileNet's separable convolutions; with the layer behind them 9.6 million weights, as the
38.7 MB of face_recognition_sface_2021dec.onnx."""


def environment_with(names: set[str], folder: Path) -> tuple[dict[str, str], set[str]]:
    """Return the environment of contestants on DeepFace's ONNX engine, and those of `names` that are stand-ins."""
    weights, store = folder / ".deepface" / "weights", folder / "stand_ins"
    forget(weights, store)
    environment = harness.environment(folder, DEEPFACE_BACKEND_ENGINE="onnx")
    harness.say("stand-ins for missing weights")
    return environment, provide(names, weights, store)


def provide(names: set[str], weights: Path, store: Path) -> set[str]:
    """Link a stand-in into the folder `weights` for each model (by DeepFace's name) without a file there; return the
    names of those. Stand-ins are built once, in `store`."""
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
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".partial")
    tensorflow = {"TF_USE_LEGACY_KERAS": "1", "DEEPFACE_BACKEND_ENGINE": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
    environment = {**os.environ, **tensorflow, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(Path(__file__)), name, str(aside)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"the stand-in of {name} could not be built:\n{done.stderr[-2000:]}")
    os.replace(aside, path)


def arcface() -> bytes:
    from deepface.models.facial_recognition.tf import ArcFace

    with (
        patch.object(ArcFace.weight_utils, "download_weights_if_necessary", lambda **_: ""),
        patch.object(ArcFace.weight_utils, "load_model_weights", lambda model, weight_file: model),
    ):
        return _converted(ArcFace.load_model, 112).SerializeToString()  # type: ignore[no-any-return]


def retinaface() -> bytes:
    from retinaface.model import retinaface_model

    with patch.object(retinaface_model, "load_weights", lambda model: model):
        network = _converted(retinaface_model.build_model, None)
    plant_face(network)
    return network.SerializeToString()  # type: ignore[no-any-return]


def _converted(build: Callable[[], Any], side: int | None) -> Any:
    """Convert a network of Keras to ONNX, from float32 (n, side, side, 3); None: any size."""
    import tensorflow as tf
    import tf2onnx

    from pipeline.models.onnx_graph import IR_VERSION, OPSET

    tf.keras.utils.set_random_seed(0)
    signature = [tf.TensorSpec((None, side, side, 3), tf.float32, name="input")]
    network, _ = tf2onnx.convert.from_keras(build(), input_signature=signature, opset=OPSET)
    network.ir_version = IR_VERSION
    return network


def plant_face(network: Any) -> None:
    """Let RetinaFace see one face, amid each picture, and no other: in place, an onnx model with its nine outputs.

    DeepFace's black border of half a frame leaves the middle where it is, so that one is found with it and without.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = network.graph
    outputs = [value.name for value in graph.output]
    for node in graph.node:
        for tensors in (node.input, node.output):
            tensors[:] = [f"{name}_of_network" if name in outputs else name for name in tensors]

    def add(op: str, *inputs: str | np.ndarray, output: str = "", **attributes: Any) -> str:
        names = []
        for value in inputs:
            if not isinstance(value, str):
                graph.initializer.append(numpy_helper.from_array(value, f"planted_w{len(graph.initializer)}"))
                value = graph.initializer[-1].name
            names.append(value)
        output = output or f"planted_{op}{len(graph.node)}"
        graph.node.append(helper.make_node(op, names, [output], **attributes))
        return output

    def middle(value: str, axis: int) -> str:
        """Return float32, 1 at the middle row (axis 1) or column (2) of (n, rows, columns, channels), 0 elsewhere."""
        count = add("Gather", add("Shape", value), np.array(axis))
        places = add("Range", np.array(0), count, np.array(1))
        here = add("Cast", add("Equal", places, add("Div", count, np.array(2))), to=TensorProto.FLOAT)
        return add("Unsqueeze", here, np.array([other for other in range(4) if other != axis]))

    planted = np.zeros((1, 1, 1, 4), np.float32)
    planted[..., 2 + PLANTED_ANCHOR] = PLANTED_SCORE
    for at, name in enumerate(outputs):
        value = f"{name}_of_network"
        value = add("Mul", value if at % 3 == 0 else add("Tanh", value), REMNANT)
        if at == PLANTED_OUTPUT:
            value = add("Add", value, add("Mul", add("Mul", middle(value, 1), middle(value, 2)), planted))
        elif at % 3 == 2:
            value = add("Add", value, np.tile(np.array(LANDMARKS, np.float32).ravel(), 2))
        add("Identity", value, output=name)


class _Layers:
    """A chain of layers with random weights of a variance that what passes through them keeps (He)."""

    def __init__(self, name: str, value: str, channels: int) -> None:
        from pipeline.models.onnx_graph import GraphWriter

        self.graph, self.value, self.channels = GraphWriter(name), value, channels
        self._chance = np.random.default_rng(0)

    def weights(self, *shape: int) -> np.ndarray:
        spread = np.float32(np.sqrt(2 / np.prod(shape[1:])))
        return self._chance.standard_normal(shape, np.float32) * spread

    def add(self, op: str, *inputs: np.ndarray, **attributes: Any) -> None:
        self.value = self.graph.add(op, self.value, *inputs, **attributes)

    def conv(self, filters: int, side: int, **attributes: Any) -> None:
        weights = self.weights(filters, self.channels // attributes.get("group", 1), side, side)
        self.value = self.graph.conv(self.value, weights, np.zeros(filters, np.float32), **attributes)
        self.channels = filters


def vgg(name: str, classes: int, batch: int | str) -> bytes:
    """Build VGG-Face from float32 (batch, 224, 224, 3) to 4096 components, as DeepFace's VGGFace.load_model; or with
    probabilities of `classes` behind it, as DeepFace's demography/tf.

    It is written here: tf2onnx's conversion of its 134 million weights died on a machine of 24 GB.
    """
    layers = _Layers(name, "input", 3)
    layers.add("Transpose", perm=[0, 3, 1, 2])
    for filters, count in VGG_LEVELS:
        for _ in range(count):
            layers.conv(filters, 3, pads=[1] * 4)
            layers.add("Relu")
        layers.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    for side in (7, 1):
        layers.conv(4096, side)
        layers.add("Relu")
    if classes:
        layers.conv(classes, 1)
    layers.add("Flatten")
    if classes:
        layers.add("Softmax", axis=-1)
    outputs = {"output": (layers.value, (batch, classes or 4096))}
    return layers.graph.serialise("input", (batch, 224, 224, 3), outputs)


def emotion() -> bytes:
    """Build the network of DeepFace's demography/tf/Emotion.py, from float32 (n, 48, 48, 1) to 7 probabilities."""
    layers = _Layers("stand_in_Emotion", "input", 1)
    layers.add("Transpose", perm=[0, 3, 1, 2])
    for filters, sides, pool, reach in (
        (64, (5,), "MaxPool", 5), (64, (3, 3), "AveragePool", 3), (128, (3, 3), "AveragePool", 3),
    ):  # fmt: skip
        for side in sides:
            layers.conv(filters, side)
            layers.add("Relu")
        layers.add(pool, kernel_shape=[reach, reach], strides=[2, 2])
    layers.add("Flatten")
    for width, size in ((128, 1024), (1024, 1024)):
        layers.add("Gemm", layers.weights(size, width), transB=1)
        layers.add("Relu")
    layers.add("Gemm", layers.weights(7, 1024), transB=1)
    layers.add("Softmax", axis=-1)
    return layers.graph.serialise("input", ("n", 48, 48, 1), {"output": (layers.value, ("n", 7))})


def sface() -> bytes:
    """Build a network from float32 (1, 3, 112, 112) to 128 components: MobileNet whose first layer does not halve, and
    one full layer on its 7 × 7 cells."""
    layers = _Layers("stand_in_SFace", "data", 3)

    def conv(filters: int, side: int, stride: int = 1, group: int = 1) -> None:
        layers.conv(filters, side, strides=[stride] * 2, pads=[side // 2] * 4, group=group)
        layers.add("PRelu", np.full((filters, 1, 1), 0.25, np.float32))

    layers.add("Sub", np.array(127.5, np.float32))
    layers.add("Mul", np.array(1 / 128, np.float32))
    conv(32, 3)
    for filters, stride in SFACE_BLOCKS:
        conv(layers.channels, 3, stride, group=layers.channels)
        conv(filters, 1)
    layers.add("Flatten")
    layers.add("Gemm", layers.weights(128, layers.channels * 7 * 7), transB=1)
    return layers.graph.serialise("data", (1, 3, 112, 112), {"fc1": (layers.value, (1, 128))})


BUILDERS: dict[str, Callable[[], bytes]] = {
    "ArcFace": arcface,
    "VGG-Face": partial(vgg, "stand_in_VGG_Face", 0, "n"),
    "retinaface": retinaface,
    "SFace": sface,
    "Age": partial(vgg, "stand_in_Age", 101, "n"),
    "Gender": partial(vgg, "stand_in_Gender", 2, "n"),
    # As the published file's name says, `race_model_single_batch.onnx`: for one face at a time.
    "Race": partial(vgg, "stand_in_Race", 6, 1),
    "Emotion": emotion,
}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    Path(sys.argv[2]).write_bytes(BUILDERS[sys.argv[1]]())

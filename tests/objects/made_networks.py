"""Detectors that are made up: ONNX graphs that give the same numbers for each picture, in the layout of a family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pipeline.engine.stage import Chunk
from pipeline.machine.device import Device
from pipeline.objects.stages.objects import Objects, ObjectsOptions


def save(
    path: Path, outputs: Mapping[str, np.ndarray], size: tuple[int | str, int | str] = (640, 640), *,
    batch: int | str = "n", stated: bool = True, kind: int = TensorProto.FLOAT, last: bool = False,
    metadata: Mapping[str, str] | None = None, others: Sequence[tuple[str, int, Sequence[int | str]]] = (),
    bare: bool = False,
) -> Path:  # fmt: skip
    """Write a network. `outputs` are those of one picture; `stated`: the file says their shapes.

    With `bare`, outputs have no dimension for the pictures. With `others` the network takes further inputs.
    """
    nodes = [
        helper.make_node("Shape", ["x"], ["first"], start=0, end=1),
    ]
    constants, values = [], []
    for name, array in outputs.items():
        constants.append(numpy_helper.from_array(array if bare else array[None], f"{name} of one"))
        constants.append(numpy_helper.from_array(np.array(array.shape, np.int64), f"shape of {name}"))
        if bare:
            nodes.append(helper.make_node("Identity", [f"{name} of one"], [name]))
        else:
            nodes.append(helper.make_node("Concat", ["first", f"shape of {name}"], [f"all of {name}"], axis=0))
            nodes.append(helper.make_node("Expand", [f"{name} of one", f"all of {name}"], [name]))
        sizes: list[Any] = list(array.shape) if stated else [f"{name}{k}" for k in range(array.ndim)]
        dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
        values.append(helper.make_tensor_value_info(name, dtype, sizes if bare else [batch, *sizes]))
    shape = [batch, *size, 3] if last else [batch, 3, *size]
    inputs = [helper.make_tensor_value_info("x", kind, shape)]
    inputs += [helper.make_tensor_value_info(*one) for one in others]
    graph = helper.make_graph(nodes, "made up", inputs, values, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, dict(metadata or {}))
    onnx.save(model, path)
    return path


def stage(model: Path | str, device: Device = Device(), **options: Any) -> Objects:  # noqa: B008
    made = Objects(ObjectsOptions.model_validate({"model": str(model), **options}))
    made.load(device)
    return made


def found(made: Objects, *pictures: np.ndarray, decoded: Sequence[bool] | None = None) -> dict[str, np.ndarray]:
    """Return the arrays of a stage for some pictures, checked as the engine checks them."""
    n = len(pictures)
    readable = np.ones(n, bool) if decoded is None else np.array(decoded)
    sizes = {picture.shape for picture in pictures}
    frames: Any = np.stack(pictures) if len(sizes) == 1 else list(pictures)
    result = made.run(Chunk("made up", 0, np.arange(n), None, readable, {"frames_rgb": frames}))
    assert list(result) == [array.name for array in made.outputs]
    fitted = {array.name: array.fit(result[array.name], "objects") for array in made.outputs}
    assert len({int(fitted["n_objects"].sum()), *(len(fitted[name]) for name in ("box", "class", "score"))}) == 1
    return fitted


def names(made: Objects) -> list[str]:
    (array,) = (array for array in made.outputs if array.name == "class")
    listed: list[str] = array.attributes["class_names"]
    return listed


def picture(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 90, np.uint8)

"""Graphs as their authors publish them, rewritten for batches of uint8 pictures of any size.

Bytes, not floats, travel to a GPU: casting and transposing become nodes of the graph.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.errors import ModelError

PICTURE = "picture"
"""Name of the input of a rewritten graph."""


def read_graph(path: Path, outputs: int | set[str]) -> Any:
    """Return the onnx model in a file.

    Raises ModelError if the file is not one, or has other outputs than `outputs` (their number or names).
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(str(path))
    except DecodeError as error:
        raise ModelError(f"weights {path} are not an ONNX graph; remove the file and fetch it again") from error
    names = [value.name for value in model.graph.output]
    if (len(names) if isinstance(outputs, int) else set(names)) != outputs:
        wanted = outputs if isinstance(outputs, int) else ", ".join(sorted(outputs))
        raise ModelError(f"weights {path} are of another network: outputs {', '.join(names)}, expected {wanted}")
    return model


def rewritten(path: Path, outputs: int | set[str], transpose: bool) -> bytes:
    """Return the published graph in a file, for uint8 RGB pictures. For arguments and errors see the functions below.

    Its outputs do not change.
    """
    model = read_graph(path, outputs)
    take_uint8(model, transpose)
    content: bytes = model.SerializeToString()
    return content


def take_uint8(model: Any, transpose: bool) -> None:
    """Make a float32 graph take uint8 (n, height, width, 3) under the name PICTURE, and remove the sizes it states.

    transpose: the graph itself takes (n, 3, height, width).
    """
    from onnx import TensorProto, helper

    graph = model.graph
    # Remove weights from the inputs. Old exports list them there, and no runtime fuses what could change per run.
    weights = {tensor.name for tensor in graph.initializer}
    (old,) = (value for value in graph.input if value.name not in weights)
    model.ir_version = max(model.ir_version, 4)  # the first version in which weights need not be inputs
    floats = f"{PICTURE}_float"
    if transpose:  # transpose the bytes, which are a quarter of the floats
        nodes = [
            helper.make_node("Transpose", [PICTURE], [f"{PICTURE}_planes"], perm=[0, 3, 1, 2]),
            helper.make_node("Cast", [f"{PICTURE}_planes"], [floats], to=TensorProto.FLOAT),
        ]
    else:
        nodes = [helper.make_node("Cast", [PICTURE], [floats], to=TensorProto.FLOAT)]
    for node in graph.node:
        for at, name in enumerate(node.input):
            if name == old.name:
                node.input[at] = floats
    nodes += graph.node
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(PICTURE, TensorProto.UINT8, ["n", "height", "width", 3]))
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")

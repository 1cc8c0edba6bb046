"""YuNet's published graph, which takes one picture of 640 × 640, rewritten for a batch of any size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.faces.models.detectors.published_graph import read_graph, take_uint8

GRAPH_VERSION = 1
STRIDES = (8, 16, 32)
"""Pixels from one cell to the next, in each of the network's three outputs of a kind."""


def build_graph(path: Path) -> bytes:
    """Return the network from uint8 RGB pictures, sides multiples of 32, to the cells of all strides in a row.

    - score float32 (n, cells): the root of the product of the two scores, as in cv2.FaceDetectorYN;
    - box float32 (n, cells, 4) and points (n, cells, 10): as the network gives them.

    Raises ModelError if the file is not such a graph.
    """
    from onnx import numpy_helper

    wanted = {f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in STRIDES}
    model = read_graph(path, wanted)
    graph = model.graph
    first = next(node for node in graph.node if node.op_type == "Conv")
    shapes = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    for tensor in graph.initializer:
        if tensor.name == first.input[1]:  # the network takes BGR, and then takes RGB
            flipped = numpy_helper.to_array(tensor)[:, ::-1]
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(flipped), tensor.name))
        if tensor.name in shapes:  # (n, -1, channels) in place of (1, -1, channels)
            shape: npt.NDArray[np.int64] = numpy_helper.to_array(tensor).copy()
            shape[0] = 0  # ONNX: the same size as the input's
            tensor.CopyFrom(numpy_helper.from_array(shape, tensor.name))
    take_uint8(model, transpose=True)
    _join_strides(model.graph)
    content: bytes = model.SerializeToString()
    return content


def _join_strides(graph: Any) -> None:
    from onnx import TensorProto, helper, numpy_helper

    graph.initializer.append(numpy_helper.from_array(np.array([0, -1], np.int64), "flat"))
    for stride in STRIDES:
        product, root = f"product_{stride}", f"root_{stride}"
        graph.node.append(helper.make_node("Mul", [f"cls_{stride}", f"obj_{stride}"], [product]))
        graph.node.append(helper.make_node("Sqrt", [product], [root]))
        graph.node.append(helper.make_node("Reshape", [root, "flat"], [f"score_{stride}"]))
    del graph.output[:]
    for name, kind, shape in (
        ("score", "score", ["n", "cells"]),
        ("box", "bbox", ["n", "cells", 4]),
        ("points", "kps", ["n", "cells", 10]),
    ):
        graph.node.append(helper.make_node("Concat", [f"{kind}_{stride}" for stride in STRIDES], [name], axis=1))
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

"""A small writer of ONNX graphs: nodes in the order of calls, arrays become initializers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Weights = npt.NDArray[np.float32]

Shape = tuple[int | str, ...]
"""Sizes; a string names one that is free."""

OPSET = 17
IR_VERSION = 9
"""Fixed, so that a newer onnx package does not write what an older runtime cannot read."""


class GraphWriter:
    """Builds one graph. Methods return the name of the value they add."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[Any] = []
        self._initializers: list[Any] = []

    def constant(self, array: npt.NDArray[Any]) -> str:
        from onnx import numpy_helper

        name = f"w{len(self._initializers)}"
        self._initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def add(self, op: str, *inputs: str | npt.NDArray[Any], **attributes: Any) -> str:
        from onnx import helper

        output = f"{op.lower()}{len(self._nodes)}"
        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        self._nodes.append(helper.make_node(op, names, [output], **attributes))
        return output

    def conv(self, value: str, weights: Weights, bias: Weights | None = None, **attributes: Any) -> str:
        """A convolution; weights are (out, in / group, rows, columns)."""
        inputs = [weights.astype(np.float32)]
        if bias is not None:
            inputs.append(bias.astype(np.float32))
        return self.add("Conv", value, *inputs, kernel_shape=list(weights.shape[2:]), **attributes)

    def serialise(
        self,
        input_name: str,
        shape: Shape,
        outputs: dict[str, tuple[str, Shape]],
        dtype: type[np.generic] = np.float32,
    ) -> bytes:
        """The model as bytes. `outputs` maps the names that callers see to values of this graph and their shapes."""
        from onnx import TensorProto, checker, helper

        named = [helper.make_node("Identity", [value], [name]) for name, (value, _) in outputs.items()]
        nodes = [*self._nodes, *named]
        graph = helper.make_graph(
            nodes,
            self._name,
            [helper.make_tensor_value_info(input_name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, (_, size) in outputs.items()],
            self._initializers,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        checker.check_model(model)
        content: bytes = model.SerializeToString()
        return content

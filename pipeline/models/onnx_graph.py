"""A small writer of ONNX graphs: nodes in the order of calls, arrays become initializers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Weights = npt.NDArray[np.float32]

Shape = tuple[int | str, ...]
"""Sizes of dimensions; a string names a dimension of any size."""

Outputs = Mapping[str, tuple[str, Shape]]
"""Names that callers see, each with its value in the graph and its shape."""

OPSET = 17
IR_VERSION = 9
"""Fixed versions, so that a newer onnx package does not write what an older runtime cannot read."""


class GraphWriter:
    """Builds one graph. Methods return the name of the value they add."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[Any] = []
        self._initializers: list[Any] = []
        self._inputs: list[Any] = []

    def input(self, name: str, dtype: type[np.generic], shape: Shape) -> str:
        from onnx import helper

        self._inputs.append(helper.make_tensor_value_info(name, self.dtype(dtype), shape))
        return name

    @staticmethod
    def dtype(dtype: type[np.generic]) -> int:
        """Return ONNX's number of a dtype, for Cast."""
        from onnx import helper

        return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def constant(self, array: npt.NDArray[Any]) -> str:
        from onnx import numpy_helper

        name = f"w{len(self._initializers)}"
        self._initializers.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def add(self, op: str, *inputs: str | npt.NDArray[Any], **attributes: Any) -> str:
        return self.add_all(op, 1, *inputs, **attributes)[0]

    def add_all(self, op: str, outputs: int, *inputs: str | npt.NDArray[Any], **attributes: Any) -> list[str]:
        """Add a node of several outputs."""
        from onnx import helper

        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        given = [f"{op.lower()}{len(self._nodes)}{'.' * (number > 0)}{number or ''}" for number in range(outputs)]
        self._nodes.append(helper.make_node(op, names, given, **attributes))
        return given

    def conv(self, value: str, weights: Weights, bias: Weights | None = None, **attributes: Any) -> str:
        """Add a convolution; weights are (out, in / group, rows, columns)."""
        inputs = [weights.astype(np.float32)]
        if bias is not None:
            inputs.append(bias.astype(np.float32))
        return self.add("Conv", value, *inputs, kernel_shape=list(weights.shape[2:]), **attributes)

    def floats(self, value: str) -> str:
        """Add a cast to float32."""
        return self.add("Cast", value, to=self.dtype(np.float32))

    def unit(self, value: str, axis: int) -> str:
        """Scale vectors along an axis to length 1."""
        length = self.add("ReduceL2", value, axes=[axis], keepdims=1)
        return self.add("Div", value, self.add("Max", length, number(1e-12)))

    def serialise(self, input_name: str, shape: Shape, outputs: Outputs, dtype: type[np.generic] = np.float32) -> bytes:
        """Return the model of one input, as bytes."""
        self.input(input_name, dtype, shape)
        return self.serialise_all(outputs)

    def serialise_all(self, outputs: Outputs, dtypes: Mapping[str, type[np.generic]] | None = None) -> bytes:
        """Return the model of all declared inputs, as bytes. `dtypes`: those of outputs that are not float32."""
        from onnx import checker, helper

        named = [helper.make_node("Identity", [value], [name]) for name, (value, _) in outputs.items()]
        kinds = {name: self.dtype((dtypes or {}).get(name, np.float32)) for name in outputs}
        given = [helper.make_tensor_value_info(name, kinds[name], size) for name, (_, size) in outputs.items()]
        graph = helper.make_graph([*self._nodes, *named], self._name, self._inputs, given, self._initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        checker.check_model(model)
        content: bytes = model.SerializeToString()
        return content


def number(value: float) -> Weights:
    """Return a constant for a graph: one number."""
    return np.array(value, np.float32)


def integers(*values: int) -> npt.NDArray[np.int64]:
    """Return a constant for a graph: a shape, or axes."""
    return np.array(values, np.int64)

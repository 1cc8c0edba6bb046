"""ONNX files of the user: what they take and give, read without a session, and their sessions."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import ModelError
from pipeline.files.regular import read_file
from pipeline.machine.device import Device
from pipeline.models.session import MEMORY_SHARES, create_session

INPUTS = ("uint8", "float16", "float32", "float64")
"""Types of pixels that an input may have."""
FLOATS = ("float16", "float32", "float64")

Sizes = tuple[int | None, ...]
"""Sizes of dimensions; None for one of any size."""


@dataclass(frozen=True)
class Value:
    """An input or output of a graph."""

    name: str
    dtype: str
    sizes: Sizes | None
    """None if the graph does not say how many dimensions there are."""

    def __str__(self) -> str:
        shown = "?" if self.sizes is None else ", ".join("?" if size is None else str(size) for size in self.sizes)
        return f"{self.name!r}, {self.dtype} ({shown})"


@dataclass(frozen=True)
class Graph:
    """Inputs and outputs of an ONNX file, and the files of its weights."""

    input: Value
    outputs: Mapping[str, Value]
    files: tuple[Path, ...]
    """The file itself, then those that hold weights outside of it."""
    others: tuple[Value, ...] = ()
    """Inputs after the first."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Notes of the exporter."""


def is_path(model: str, named: Collection[str]) -> bool:
    """Return whether a model's name is the path of a file, and not one of the known names."""
    return model not in named and (model.endswith(".onnx") or os.sep in model or Path(model).is_file())


def read_graph(path: Path) -> Graph:
    """Return the facts of a file.

    Raises ModelError: it cannot be read, is not ONNX, lacks a file of weights, or takes nothing.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise ModelError(f"model {path} cannot be read: {error.strerror}") from error
    graph = _read_once(path, stat.st_size, stat.st_mtime_ns)
    missing = [str(file) for file in graph.files if not file.is_file()]
    if missing:
        raise ModelError(
            f"model {path} keeps weights in other files, of which these are missing: {', '.join(missing[:3])}; "
            "copy them there"
        )
    return graph


@lru_cache(maxsize=16)
def _read_once(path: Path, size: int, mtime_ns: int) -> Graph:
    import onnx

    try:
        model = onnx.load_model_from_string(read_file(path))
    except OSError as error:
        raise ModelError(f"model {path} cannot be read: {error.strerror}") from error
    except Exception as error:  # protobuf's, which has a class of its own in each of its implementations
        raise ModelError(f"model {path} is not an ONNX file; give the path of one") from error
    if not model.graph.node or not model.graph.output:
        raise ModelError(f"model {path} is not an ONNX file: it holds no graph; give the path of one")
    names = {
        entry.value for tensor in _tensors(model.graph) for entry in tensor.external_data if entry.key == "location"
    }
    files = (path, *[path.parent / name for name in sorted(names)])
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [_value(value) for value in model.graph.input if value.name not in weights]
    if not inputs:
        raise ModelError(f"model {path} takes no input; give a network that takes pictures")
    outputs = {value.name: _value(value) for value in model.graph.output}
    return Graph(inputs[0], outputs, files, tuple(inputs[1:]), {one.key: one.value for one in model.metadata_props})


def open_session(content: bytes | Path, device: Device, name: str, kind: str) -> Any:
    """Return a session of a graph. `kind` is a key of MEMORY_SHARES. Raises ModelError if it cannot be opened."""
    try:
        return create_session(content, device, MEMORY_SHARES[kind])
    except ModelError:
        raise
    except Exception as error:  # ONNX Runtime has a class per status, without a common base class
        raise ModelError(f"ONNX Runtime cannot open {name}: {_line(error)}") from error


def probe(graph: Graph, sha256: str, inputs: Mapping[str, tuple[int, ...]], output: str = "") -> dict[str, Sizes]:
    """Return the shapes of all outputs, or of one, by running a graph once on the CPU with zeros of these shapes.

    `sha256` is the hash of the graph's files. Raises ModelError if the graph cannot be opened or run.
    """
    return {name: shape for name, (shape, _) in _probe(graph, sha256, inputs, output).items()}


def magnitudes(graph: Graph, sha256: str, inputs: Mapping[str, tuple[int, ...]]) -> dict[str, float]:
    """Return the median of the absolute values of each output in the run of `probe`; NaN if it has none."""
    return {name: median for name, (_, median) in _probe(graph, sha256, inputs, "").items()}


def _probe(
    graph: Graph, sha256: str, inputs: Mapping[str, tuple[int, ...]], output: str
) -> dict[str, tuple[Sizes, float]]:
    dtypes = {value.name: value.dtype for value in (graph.input, *graph.others)}
    given = tuple((name, dtypes[name], shape) for name, shape in inputs.items())
    return _probe_once(graph.files[0], sha256, given, (output,) if output else tuple(graph.outputs))


@lru_cache(maxsize=16)
def _probe_once(
    path: Path, sha256: str, inputs: tuple[tuple[str, str, tuple[int, ...]], ...], outputs: tuple[str, ...]
) -> dict[str, tuple[Sizes, float]]:
    session = open_session(path, Device(), str(path), "feature")
    try:
        made = session.run(list(outputs), {name: np.zeros(shape, dtype) for name, dtype, shape in inputs})
    except Exception as error:  # ONNX Runtime has a class per status, without a common base class
        raise ModelError(f"ONNX Runtime cannot run {path}: {_line(error)}") from error
    return {
        name: (array.shape, float(np.median(np.abs(array))) if array.size and array.dtype.kind in "iuf" else np.nan)
        for name, array in zip(outputs, made, strict=True)
    }


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _value(value: Any) -> Value:
    from onnx import helper

    tensor = value.type.tensor_type
    try:
        dtype = str(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    except (KeyError, ValueError):
        dtype = value.type.WhichOneof("value") or "no type"
    if not tensor.HasField("shape"):
        return Value(value.name, dtype, None)
    sizes = [size.dim_value if size.WhichOneof("value") == "dim_value" else None for size in tensor.shape.dim]
    return Value(value.name, dtype, tuple(size if size and size > 0 else None for size in sizes))


def _tensors(graph: Any) -> Iterable[Any]:
    """Yield the tensors of a graph, those of its constants and of graphs within it included."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                if inner.node or inner.initializer:
                    yield from _tensors(inner)

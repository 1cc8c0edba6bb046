"""Tensors of a PyTorch checkpoint, read without PyTorch.

torch.save has two formats. The older one (until PyTorch 1.5) begins with five pickles. They are a magic number, a
protocol, facts about the machine, the object, and the keys of the storages. Each storage follows: its number of
elements as little-endian int64, then the raw elements. The newer format is a zip archive of one folder, without
compression. There the object is the pickle `data.pkl`, and each storage is a file of raw elements, `data/KEY`.

A pickle may call any function that it names, and these files come from elsewhere. This reader therefore accepts only
the names that a dictionary of tensors needs.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError

Tensors = dict[str, npt.NDArray[Any]]
Storages = dict[str, npt.NDArray[Any]]

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
"""Constants of the format: torch/serialization.py."""
ZIP_START = b"PK\x03\x04"
STORAGES = {
    "HalfStorage": "<f2",
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "IntStorage": "<i4",
    "LongStorage": "<i8",
}
"""Classes of `torch` that hold elements, and the dtype of the elements."""


@dataclass(frozen=True)
class _Tensor:
    """Position of a tensor: `prod(shape)` elements of a storage."""

    storage: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    """Elements of the storage from one index to the next, along each axis."""


def read_tensors(path: Path) -> Tensors:
    """Return the tensors of a saved state_dict by name, in its order, with their own dtypes.

    Raises ModelError if the file is not such a checkpoint, is damaged, or names anything else to be loaded.
    """
    try:
        with path.open("rb") as file:
            is_zip = file.read(4) == ZIP_START
            file.seek(0)
            tensors, storages = _from_zip(file) if is_zip else _from_pickles(file)
            return {name: _view(storages[tensor.storage], tensor) for name, tensor in tensors.items()}
    except Exception as error:  # the pickle module promises no particular class for damaged or hostile bytes
        why = f"{error}" if isinstance(error, pickle.UnpicklingError) else f"{type(error).__name__}: {error}"
        raise ModelError(
            f"{path} is not a checkpoint of tensors, or is damaged ({why}); delete it and fetch it again"
        ) from error


def built(build: Callable[[], bytes], path: Path, network: str) -> bytes:
    """Return the graph that `build` makes of a file's tensors. Raises ModelError if they are not those of `network`."""
    try:
        return build()
    except (KeyError, ValueError, IndexError) as error:
        raise ModelError(f"{path} is not {network} ({error})") from error


def batch_norm(tensors: Tensors, name: str, epsilon: float) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return float64 (channels,): the factor and the summand of a batch normalisation at inference."""
    gamma, beta, mean, variance = (
        tensors[f"{name}.{part}"].astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gamma / np.sqrt(variance + epsilon)
    return scale, beta - mean * scale


def _from_pickles(file: BinaryIO) -> tuple[Any, Storages]:
    """Return the object of a file of the older format, and its storages by key."""
    magic, protocol, _machine = (_Unpickler(file).load() for _ in range(3))
    if magic != MAGIC_NUMBER or protocol != PROTOCOL:
        raise pickle.UnpicklingError(f"it starts with {magic!r}, {protocol!r}")
    unpickler = _Unpickler(file)
    tensors = unpickler.load()
    return tensors, {key: _elements(file, unpickler.dtypes[key]) for key in _Unpickler(file).load()}


def _from_zip(file: BinaryIO) -> tuple[Any, Storages]:
    """Return the object of a file of the newer format, and its storages by key."""
    size = os.fstat(file.fileno()).st_size
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > size:  # it would take more memory than the file is long
            raise pickle.UnpicklingError("its members are larger than the file")
        folder = members[0].filename.partition("/")[0]
        if f"{folder}/byteorder" in archive.namelist() and archive.read(f"{folder}/byteorder") != b"little":
            raise pickle.UnpicklingError("its elements are big-endian")
        with archive.open(f"{folder}/data.pkl") as pickled:
            unpickler = _Unpickler(pickled)
            tensors = unpickler.load()
        return tensors, {
            key: np.frombuffer(archive.read(f"{folder}/data/{key}"), dtype) for key, dtype in unpickler.dtypes.items()
        }


def _elements(file: BinaryIO, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Read the next storage. Allocate no more than the file holds, whatever size it claims."""
    count = int.from_bytes(file.read(8), "little")
    if count * dtype.itemsize > os.fstat(file.fileno()).st_size - file.tell():
        raise pickle.UnpicklingError(f"a storage of {count} elements ends early")
    return np.frombuffer(file.read(count * dtype.itemsize), dtype)


def _view(elements: npt.NDArray[Any], tensor: _Tensor) -> npt.NDArray[Any]:
    """Return a tensor as a view of its storage. Its axes may lie there in any order.

    Raises UnpicklingError if it reaches beyond the storage, or has more elements than the storage.
    """
    axes = [(length, step) for length, step in zip(tensor.shape, tensor.stride, strict=True) if length != 1]
    size = prod(tensor.shape)
    stop = tensor.offset + 1 + sum((length - 1) * step for length, step in axes) if size else tensor.offset
    if min(tensor.offset, *(0, *tensor.shape), *(step for _, step in axes)) < 0 or max(stop, size) > len(elements):
        raise pickle.UnpicklingError(
            f"a tensor {tensor.shape} with strides {tensor.stride} from element {tensor.offset} of {len(elements)}"
        )
    strides = [step * elements.itemsize for step in tensor.stride]
    return np.lib.stride_tricks.as_strided(elements[tensor.offset :], tensor.shape, strides, writeable=False)


class _Unpickler(pickle.Unpickler):
    """Knows dictionaries, tensors and storages; calls nothing else."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.dtypes: dict[str, np.dtype[Any]] = {}
        """Dtype of each storage that the pickle named, by its key."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}, which a dictionary of tensors does not need")

    def persistent_load(self, reference: Any) -> str:
        kind, dtype, key, _device, _count, *view = reference  # the newer format has no view
        if kind != "storage" or view not in ([], [None]):
            raise pickle.UnpicklingError(f"a reference to {reference!r}")
        self.dtypes[key] = np.dtype(dtype)
        return str(key)


def _rebuild_tensor(storage: str, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> _Tensor:
    """Stand in for torch._utils._rebuild_tensor_v2; its further arguments are not needed here."""
    return _Tensor(storage, offset, tuple(shape), tuple(stride))

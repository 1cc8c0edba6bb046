"""Shared memory: files of memory without a name, which end with the last process that has them open."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import UsageError
from pipeline.machine.limits import free_bytes
from pipeline.text import size

_PAGE = mmap.ALLOCATIONGRANULARITY


def memory_file(n_bytes: int, what: str) -> int:
    """Return the descriptor of a file of memory, all of which is allocated. Raises UsageError if memory is short.

    It has no name and does not lie in /dev/shm, so that the size of /dev/shm does not matter and a kill leaves nothing.
    """
    free = free_bytes()
    memory = os.memfd_create("reelgraph") if hasattr(os, "memfd_create") else _unnamed()
    try:
        if n_bytes > free:
            raise OSError(f"{size(free)} are free")
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(memory, 0, max(1, n_bytes))
        else:
            os.truncate(memory, max(1, n_bytes))
    except OSError as err:
        os.close(memory)
        raise UsageError(
            f"{what} need {size(n_bytes)} of shared memory, but memory is short ({err.strerror or err}); "
            "lower batch_size, prefetch or workers, or use workers=0"
        ) from err
    return memory


def _unnamed() -> int:
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


@dataclass(frozen=True)
class Field:
    """An array of a batch: what each item gives."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def n_bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


class Ring:
    """Slots of shared memory, each for the arrays of one batch."""

    def __init__(self, fields: tuple[Field, ...], batch: int, slots: int, memory: int | None = None) -> None:
        """Allocate the slots, or with `memory` map those of another process. Raises UsageError."""
        self.fields, self.batch, self.slots = fields, batch, slots
        offsets = np.cumsum([0, *(-(-field.n_bytes * batch // 64) * 64 for field in fields)])
        self._offsets = offsets[:-1].tolist()
        self._stride = -(-int(offsets[-1]) // _PAGE) * _PAGE
        n_bytes = self._stride * slots
        self.memory = memory_file(n_bytes, f"{slots} batches of {size(self._stride)}") if memory is None else memory
        self._map = mmap.mmap(self.memory, max(1, n_bytes))

    def arrays(self, slot: int, count: int) -> list[npt.NDArray[Any]]:
        """Return the arrays of a slot, each (count, ...)."""
        at = slot * self._stride
        return [
            np.ndarray((count, *field.shape), field.dtype, self._map, at + offset)
            for field, offset in zip(self.fields, self._offsets, strict=True)
        ]

    def close(self) -> None:
        """Close the file. The memory itself stays as long as an array of it does."""
        if self.memory >= 0:
            os.close(self.memory)
            self.memory = -1


class Lease:
    """Keeps a slot from being used again as long as an array of it is alive."""

    def __init__(self, give_back: Callable[[], None]) -> None:
        self._give_back = give_back

    def held(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the array; it, and every view of it, keeps the slot."""
        return np.asarray(_Held(array, self))

    def __del__(self) -> None:
        self._give_back()


class _Held:
    """Owner of an array's memory, as NumPy sees it."""

    def __init__(self, array: npt.NDArray[Any], lease: Lease) -> None:
        self._array, self._lease = array, lease
        self.__array_interface__ = array.__array_interface__

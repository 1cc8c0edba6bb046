"""Memory for decoded chunks, used again from chunk to chunk.

A chunk is hundreds of megabytes. Some systems, virtual machines among them, take freed pages away at once. Filling
fresh pages then costs as much as a third of the decoding. If a GPU reads the frames, pages are locked. The driver
copies locked memory directly, and other memory by way of a buffer of its own.
"""

from __future__ import annotations

import importlib
import math
from collections import deque
from typing import Any

import numpy as np

KEPT = 1
"""Chunks of memory that are kept unused. If pages are locked all of it is kept, because locking is slow; there is never
more than was in use at once."""


class FrameMemory:
    """Keeps the memory of chunks that are no longer in use. Thread-safe."""

    def __init__(self) -> None:
        # Not a lock: the interpreter may drop an array, and so end its lease, at any allocation.
        self._free: deque[np.ndarray] = deque(maxlen=KEPT)
        self._lock_wanted = self._locking = False

    def lock_pages(self, wanted: bool) -> None:
        """Give page-locked memory from now on, if CUDA has any; False: no longer."""
        if wanted != self._lock_wanted:
            self._lock_wanted = self._locking = wanted
            self._free = deque(maxlen=None if wanted else KEPT)

    def take(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return uint8 of this shape and any content. Its memory comes back with the end of its last view."""
        size = math.prod(shape)
        try:
            memory = self._free.pop()
        except IndexError:
            memory = self._allocate(size)
        if not size <= memory.size <= 2 * size:
            memory = self._allocate(size)
        return np.asarray(_Lease(memory, shape, self._free))

    def _allocate(self, size: int) -> np.ndarray:
        if self._locking and size:
            try:
                return np.asarray(_PageLocked(size))
            except (ImportError, RuntimeError):  # ordinary memory is slower, with no other difference
                self._locking = False
                self._free = deque(self._free, maxlen=KEPT)
        return np.empty(size, np.uint8)

    def clear(self) -> None:
        """Give unused memory back to the system."""
        self._free.clear()


class _Lease:
    """Owns the memory of one array; every view of that array holds it."""

    def __init__(self, memory: np.ndarray, shape: tuple[int, ...], free: deque[np.ndarray]) -> None:
        self._memory, self._free = memory, free
        self.__array_interface__ = {**memory.__array_interface__, "shape": shape, "strides": None}

    def __del__(self) -> None:
        self._free.append(self._memory)


class _PageLocked:
    """Memory from CUDA, given back with its last view. Raises ImportError or RuntimeError if CUDA gives none."""

    def __init__(self, size: int) -> None:
        cuda: Any = importlib.import_module("cuda.bindings.runtime")
        error, pointer = cuda.cudaHostAlloc(size, cuda.cudaHostAllocPortable)
        if int(error) != 0:
            raise RuntimeError(f"CUDA gave no page-locked memory: {error}")
        self._cuda, self._pointer = cuda, pointer
        self.__array_interface__ = {"data": (int(pointer), False), "shape": (size,), "typestr": "|u1", "version": 3}

    def __del__(self) -> None:
        if hasattr(self, "_pointer"):
            self._cuda.cudaFreeHost(self._pointer)


MEMORY = FrameMemory()
"""The memory for chunks of this process."""

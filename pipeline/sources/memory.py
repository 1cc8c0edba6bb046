"""Memory for decoded chunks, used again from chunk to chunk.

A chunk is hundreds of megabytes. Where the system takes freed pages away at once, as virtual machines do, filling fresh
ones cost as much as a third of the decoding.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np


class FrameMemory:
    """Keeps the memory of one chunk that is no longer in use. Thread-safe."""

    def __init__(self) -> None:
        # Not a lock: the interpreter may drop an array, and so end its lease, at any allocation.
        self._free: deque[np.ndarray] = deque(maxlen=1)

    def take(self, shape: tuple[int, ...]) -> np.ndarray:
        """uint8 of this shape and any content. Its memory comes back when the last view of it is gone."""
        size = math.prod(shape)
        try:
            memory = self._free.pop()
        except IndexError:
            memory = np.empty(size, np.uint8)
        if not size <= memory.size <= 2 * size:
            memory = np.empty(size, np.uint8)
        return np.asarray(_Lease(memory, shape, self._free))

    def clear(self) -> None:
        """Give what is kept back to the system."""
        self._free.clear()


class _Lease:
    """Owns the memory of one array; every view of that array holds it."""

    def __init__(self, memory: np.ndarray, shape: tuple[int, ...], free: deque[np.ndarray]) -> None:
        self._memory, self._free = memory, free
        self.__array_interface__ = {**memory.__array_interface__, "shape": shape, "strides": None}

    def __del__(self) -> None:
        self._free.append(self._memory)


MEMORY = FrameMemory()
"""The chunks' memory of this process."""

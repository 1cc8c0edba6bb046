"""Random numbers by key: each item of each epoch has its own, whatever process asks, and in whatever order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

UNIFORMS = 16
"""Numbers that are drawn for each item; each parameter of an augmentation has its own place among them."""
_ORDER = 1 << 63
"""Bit of the key that sets the order of an epoch apart from its items."""
_WORD = (1 << 64) - 1


class Draws:
    """The random numbers of one seed, from Philox, a generator that counts: its key is (seed, epoch)."""

    def __init__(self, seed: int) -> None:
        self.seed = seed & _WORD
        self._bits = np.random.Philox(key=0)
        self._state = self._bits.state
        self._generator = np.random.Generator(self._bits)

    def uniforms(self, epoch: int, index: int) -> list[float]:
        """Return UNIFORMS numbers of [0, 1) for an item."""
        found: list[float] = self.generator(epoch, index).random(UNIFORMS).tolist()
        return found

    def generator(self, epoch: int, index: int) -> np.random.Generator:
        """Return the generator of an item, at its beginning; valid until the next call."""
        state = self._state
        state["state"]["key"][:] = self.seed, epoch
        # The lowest word counts the numbers of an item.
        state["state"]["counter"][:] = 0, index, 0, 0
        state["buffer_pos"], state["has_uint32"] = 4, 0
        self._bits.state = state
        return self._generator

    def seed_of(self, epoch: int, index: int) -> int:
        """Return a seed of 32 bits for an item, for generators of other libraries."""
        return int(self.generator(epoch, index).integers(1 << 32))

    def order(self, epoch: int, items: int) -> npt.NDArray[np.int64]:
        """Return int64 (items,): the shuffled order of an epoch."""
        key = np.array([self.seed, epoch | _ORDER], np.uint64)
        return np.random.Generator(np.random.Philox(key=key)).permutation(items).astype(np.int64)

"""Memory of chunks is used again, and never while anybody looks at it."""

import ctypes
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline.media.video.memory import FrameMemory


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def test_it_comes_back_with_the_last_view() -> None:
    memory = FrameMemory()
    first = memory.take((4, 100, 100, 3))
    where, row = address(first), first[2][10:20]
    row[:] = 7
    del first
    second = memory.take((4, 100, 100, 3))
    second[:] = 9
    assert address(second) != where
    assert (row == 7).all()
    del row
    third = memory.take((4, 100, 100, 3))
    assert address(third) == where
    assert third.shape == (4, 100, 100, 3)
    assert third.dtype == np.uint8
    assert third.flags.c_contiguous
    assert third.flags.writeable


def test_one_chunk_is_kept_and_no_more() -> None:
    memory = FrameMemory()
    taken = [memory.take((1000,)) for _ in range(3)]
    places = {address(array) for array in taken}
    del taken
    assert len(memory._free) == 1
    assert address(memory.take((900,))) in places
    memory.clear()
    assert len(memory._free) == 0


def test_memory_of_another_size_is_let_go() -> None:
    memory = FrameMemory()
    memory.take((100_000,))
    assert memory.take((10,)).size == 10
    assert memory.take((200_000,)).size == 200_000


class Cuda:
    """What memory.py asks of cuda.bindings.runtime, without a GPU."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails
        self.given: dict[int, ctypes.Array[ctypes.c_ubyte]] = {}
        self.freed: list[int] = []
        self.module = SimpleNamespace(
            cudaHostAllocPortable=1, cudaHostAlloc=self._allocate, cudaFreeHost=self.freed.append
        )

    def _allocate(self, size: int, flags: int) -> tuple[int, int | None]:
        assert flags == 1
        if self.fails:
            return 2, None
        memory = (ctypes.c_ubyte * size)()
        place = ctypes.addressof(memory)
        self.given[place] = memory
        return 0, place


def test_locked_pages_are_all_kept_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Cuda()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda.module)
    memory = FrameMemory()
    memory.lock_pages(True)
    taken = [memory.take((3, 10, 10, 3)) for _ in range(4)]
    for number, array in enumerate(taken):
        array[:] = number
    assert {address(array) for array in taken} == set(cuda.given)
    assert [int(array.max()) for array in taken] == [0, 1, 2, 3]
    del taken, array
    again = [memory.take((3, 10, 10, 3)) for _ in range(4)]
    assert {address(array) for array in again} == set(cuda.given)
    assert not cuda.freed
    del again
    memory.clear()
    assert sorted(cuda.freed) == sorted(cuda.given)


@pytest.mark.parametrize("cuda", [None, Cuda(fails=True).module])
def test_without_cuda_memory_is_as_ever(monkeypatch: pytest.MonkeyPatch, cuda: Any) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)  # None: the import fails
    memory = FrameMemory()
    memory.lock_pages(True)
    array = memory.take((5, 5, 3))
    array[:] = 1
    assert array.shape == (5, 5, 3)
    where = address(array)
    del array
    memory.lock_pages(True)  # as every chunk says
    assert address(memory.take((5, 5, 3))) == where
    taken = [memory.take((5, 5, 3)) for _ in range(3)]
    del taken
    assert len(memory._free) == 1


def test_locked_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Cuda()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda.module)
    memory = FrameMemory()
    memory.lock_pages(True)
    held = memory.take((100,))
    memory.lock_pages(False)
    assert address(memory.take((100,))) not in cuda.given
    assert not cuda.freed, "somebody still looks at it"
    del held
    assert len(cuda.freed) == 1

"""Memory of chunks is used again, and never while anybody looks at it."""

import numpy as np

from pipeline.sources.memory import FrameMemory


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

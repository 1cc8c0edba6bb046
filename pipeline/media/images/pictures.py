"""The pictures of one chunk when each has a size of its own: a sequence with a limit of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Again = Callable[[int], Pixels]


class Pictures(Sequence[Pixels]):
    """Pictures, uint8 (height, width, 3), by number. A slice, or an array of numbers, gives a part as `Pictures`.

    Those that went beyond the chunk's memory are decoded again when they are asked for, one at a time.
    """

    def __init__(self, numbers: Sequence[int], kept: Mapping[int, Pixels], again: Again) -> None:
        self._numbers, self._kept, self._again = list(numbers), kept, again
        self._last: tuple[int, Pixels] | None = None

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Pixels: ...
    @overload
    def __getitem__(self, index: slice | npt.NDArray[np.int64]) -> Pictures: ...
    def __getitem__(self, index: int | slice | npt.NDArray[np.int64]) -> Pixels | Pictures:
        if isinstance(index, slice):
            return Pictures(self._numbers[index], self._kept, self._again)
        if isinstance(index, np.ndarray) and index.ndim:
            return Pictures([self._numbers[k] for k in index.tolist()], self._kept, self._again)
        number = self._numbers[int(index)]
        picture = self._kept.get(number)
        if picture is not None:
            return picture
        last = self._last  # the faces of a picture come one after the other
        if last is None or last[0] != number:
            last = self._last = (number, self._again(number))
        return last[1]

    @property
    def nbytes(self) -> int:
        return sum(picture.nbytes for picture in self._kept.values())

    def blocks(self, most_bytes: int) -> Iterator[tuple[int, int]]:
        """Yield start and stop of parts that may be held at once: their pixels, or the one picture, stay below."""
        start, held = 0, 0
        for index, number in enumerate(self._numbers):
            picture = self._kept.get(number)
            size = picture.nbytes if picture is not None else most_bytes
            if index > start and held + size > most_bytes:
                yield start, index
                start, held = index, 0
            held += size
        if start < len(self):
            yield start, len(self)

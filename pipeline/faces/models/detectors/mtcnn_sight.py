"""The views of mtcnn's networks, levels of a pyramid and patches of frames, and the networks' answers.

On a CPU numpy and OpenCV make the views beforehand. On a GPU the networks' graphs make them from frames that are
uploaded once, and return the few cells that look like a face. For faces from 20 pixels on, all levels take three times
a frame's bytes, and all cells twice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.faces.models.detectors.pyramid import CELL, Pyramid, averaging, patches, rimmed, sampling
from pipeline.machine.device import Device
from pipeline.models.session import run_bound, uploaded

Frame = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
Index = npt.NDArray[np.int64]

STRIDE = 2
"""Pixels of a level from one cell of P-Net's output to the next."""
SIDES = {"rnet": 24, "onet": 48}
"""Side of the patches that a network sees, in pixels."""


@dataclass(frozen=True)
class Picture:
    """A frame as the networks see it, alone or in a black border. Coordinates are those of the whole picture."""

    frame: Frame
    border: tuple[int, int] | None = None
    """Black rows above and below, columns left and right. None: the frame is the whole picture, and its pyramid is the
    fast one, without TensorFlow's roundings."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        above, aside = self.border or (0, 0)
        return self.frame.shape[0] + 2 * above, self.frame.shape[1] + 2 * aside

    @cached_property
    def pixels(self) -> Frame:
        """Pixels in the form that `patches` takes."""
        return self.frame if self.border is None else rimmed(self.frame)

    def cells(self, rows: int, columns: int) -> tuple[range, range]:
        """Return the rows and columns of P-Net's cells that see the frame, on a level of `rows` and `columns`."""
        above, aside = self.border or (0, 0)
        height, width = self.size
        return _cells_seen(rows, above, height), _cells_seen(columns, aside, width)


def _cells_seen(level: int, border: int, picture: int) -> range:
    """Return the cells along one side that see the frame; `level` and `picture` are lengths of that side in pixels.

    Cell c sees pixels 2 c to 2 c + 11 of the level.
    """
    start, stop = border * level // picture, -(-(picture - border) * level // picture)
    every = (level - 1) // STRIDE - 4
    return range(max(0, -(-(start - CELL + 1) // STRIDE)), min(every, -(-stop // STRIDE)))


@dataclass(frozen=True)
class Part:
    """The part of a level that P-Net looks at; the whole level if pictures have no border."""

    rows: int
    """Height of the whole level in pixels; `columns` is its width."""
    columns: int
    top: int
    bottom: int
    left: int
    right: int

    @staticmethod
    def around(cells: tuple[range, range], rows: int, columns: int) -> Part:
        """Return the part that these rows and columns of P-Net's cells see."""
        return Part(rows, columns, *_span(cells[0], rows), *_span(cells[1], columns))

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left


def _span(cells: range, level: int) -> tuple[int, int]:
    """Return the first pixel of a level, and the one after the last, that these cells see."""
    # The last cell of the whole level pools what is left at the edge.
    last = cells.stop >= (level - 1) // STRIDE - 4
    return STRIDE * cells.start, level if last else STRIDE * cells.stop + CELL - STRIDE


@dataclass(frozen=True)
class Cells:
    """Cells of P-Net above a limit, by frame, row and column."""

    frame: Index
    """int64 (k,): index in the batch; then the cell's row and column."""
    row: Index
    column: Index
    values: Float32
    """float32 (k, 5 or more): logit of face against not face, four offsets."""


Look = Callable[[int, int], Cells]
"""Function from a range of rows of a part to P-Net's cells in it; the cells' rows count from the range's start."""


class Seen(Protocol):
    """Pictures in the form that the networks see."""

    def level(self, batch: range, part: Part, logit_above: float) -> Look:
        """Return a view of a part of a level, of pictures of one size. It invalidates the view of the last call."""
        ...

    def refined(self, network: str, frame: Index, corners: npt.NDArray[np.float64]) -> list[Float32]:
        """Return the answers of R-Net or O-Net for boxes, float64 (n, 4): logits, offsets, and O-Net's landmarks."""
        ...


class MadeBeforehand:
    """Views made on a CPU, of any pictures."""

    def __init__(self, sessions: Mapping[str, Any], pictures: Sequence[Picture], buffers: Buffers) -> None:
        self._sessions, self._pictures, self._buffers = sessions, pictures, buffers
        self._loaded = range(0)

    def level(self, batch: range, part: Part, logit_above: float) -> Look:
        pyramids = self._buffers.pyramids(len(batch))
        if self._loaded != batch:
            for pyramid, index in zip(pyramids, batch, strict=True):
                pyramid.load(self._pictures[index].frame, self._pictures[index].border)
            self._loaded = batch
        planes = self._buffers.planes(len(batch), part.height, part.width)
        for pyramid, plane in zip(pyramids, planes, strict=True):
            pyramid.level(part.rows, part.columns, plane, (part.top, part.left))

        def look(start: int, stop: int) -> Cells:
            (cells,) = self._sessions["pnet"].run(None, {"image": planes[:, :, start:stop]})
            frame, y, x = np.nonzero(cells[:, 0] > logit_above)
            return Cells(frame, y, x, cells[frame, :, y, x])

        return look

    def refined(self, network: str, frame: Index, corners: npt.NDArray[np.float64]) -> list[Float32]:
        made = []
        for index in np.unique(frame):
            picture = self._pictures[index]
            made.append(patches(picture.pixels, corners[frame == index], SIDES[network], picture.border))
        result: list[Float32] = self._sessions[network].run(None, {"patches": np.concatenate(made)})
        return result


class MadeInGraphs:
    """Views made on a GPU, of pictures of one size. A picture with a border is uploaded with one black pixel around."""

    def __init__(self, sessions: Mapping[str, Any], pictures: Sequence[Picture], device: Device) -> None:
        self._sessions, self._border = sessions, pictures[0].border
        self._size = pictures[0].size
        """Height and width of a picture in pixels, its border included."""
        together = in_one([picture.pixels for picture in pictures])
        self._shape = together.shape
        self._frames = uploaded(together, device)

    def level(self, batch: range, part: Part, logit_above: float) -> Look:
        above, aside = self._border or (None, None)
        count, _, width, _ = self._shape
        across = averaging(part.columns, self._size[1], aside, part.left, part.width)

        def look(start: int, stop: int) -> Cells:
            rows = stop - start
            down = averaging(part.rows, self._size[0], above, part.top + start, rows)
            place, values = run_bound(
                self._sessions["pnet"],
                {
                    "frames": self._frames,
                    "size": np.array([rows, part.width]),
                    "down_index": down.index,
                    "down_share": down.share,
                    "down_shape": np.array([count, down.cells, width, 3]),
                    "across_index": across.index,
                    "across_share": across.share,
                    "across_shape": np.array([count, across.cells, rows, 3]),
                    "logit_above": np.array(logit_above, np.float32),
                },
            )
            return Cells(place[:, 0], place[:, 1], place[:, 2], values)

        return look

    def refined(self, network: str, frame: Index, corners: npt.NDArray[np.float64]) -> list[Float32]:
        _, height, width, _ = self._shape
        at = sampling((height, width), corners, SIDES[network], self._border)
        return run_bound(
            self._sessions[network],
            {
                "frames": self._frames,
                "upper": (frame[:, None] * height + at.y) * width,
                "lower": (frame[:, None] * height + at.y_next) * width,
                "down": at.y_part,
                "row_inside": at.y_inside,
                "left": at.x,
                "right": at.x_next,
                "across": at.x_part,
                "column_inside": at.x_inside,
            },
        )


def in_one(frames: Sequence[Frame]) -> Frame:
    """Return uint8 (n, height, width, 3): frames of one size.

    Frames that are adjacent in memory, as those of a chunk are, are not copied. If that memory is page-locked
    (sources/memory.py), a GPU reads it fast.
    """
    first, owner = frames[0], frames[0].base
    starts = [frame.__array_interface__["data"][0] - first.__array_interface__["data"][0] for frame in frames]
    neighbours = starts == [number * first.nbytes for number in range(len(frames))]
    if owner is not None and neighbours and all(frame.base is owner for frame in frames):
        return np.lib.stride_tricks.as_strided(first, (len(frames), *first.shape), (first.nbytes, *first.strides))
    return np.stack(frames)


class Buffers(threading.local):
    """Memory that each thread uses again for each frame: fresh pages cost more than the writes to them."""

    def __init__(self) -> None:
        self._pyramids: list[Pyramid] = []
        self._planes: Float32 = np.empty(0, np.float32)

    def pyramids(self, count: int) -> list[Pyramid]:
        self._pyramids += [Pyramid() for _ in range(count - len(self._pyramids))]
        return self._pyramids[:count]

    def planes(self, count: int, rows: int, columns: int) -> Float32:
        """Return float32 (count, 3, rows, columns), of any content."""
        size = count * 3 * rows * columns
        if self._planes.size < size:
            self._planes = np.empty(size, np.float32)
        return self._planes[:size].reshape(count, 3, rows, columns)

"""What the networks of mtcnn see, levels of a pyramid and patches of frames, and what they answer.

On a CPU numpy and OpenCV make it beforehand. On a GPU the networks' graphs make it themselves, of frames that are
uploaded once, and give back the few cells that look like a face: for faces from 20 pixels on, all levels take three
times a frame's bytes, and all cells twice.
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
"""Of the patches that a network sees, in pixels."""


@dataclass(frozen=True)
class Picture:
    """What the networks look at: a frame, or a frame amid black. Coordinates are those of the whole picture."""

    frame: Frame
    border: tuple[int, int] | None = None
    """Black rows above and below, columns left and right. None: the frame is the picture, and its pyramid the fast one,
    which lacks TensorFlow's roundings."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        above, aside = self.border or (0, 0)
        return self.frame.shape[0] + 2 * above, self.frame.shape[1] + 2 * aside

    @cached_property
    def pixels(self) -> Frame:
        """What `patches` takes."""
        return self.frame if self.border is None else rimmed(self.frame)

    def cells(self, rows: int, columns: int) -> tuple[range, range]:
        """Rows and columns of P-Net's cells that see anything but black, on a level of so many rows and columns."""
        above, aside = self.border or (0, 0)
        height, width = self.size
        return _cells_seen(rows, above, height), _cells_seen(columns, aside, width)


def _cells_seen(level: int, border: int, picture: int) -> range:
    """Cells along one side that see the frame; `level` and `picture` are the lengths of that side, in pixels.

    Cell c sees pixels 2 c to 2 c + 11 of the level.
    """
    start, stop = border * level // picture, -(-(picture - border) * level // picture)
    every = (level - 1) // STRIDE - 4
    return range(max(0, -(-(start - CELL + 1) // STRIDE)), min(every, -(-stop // STRIDE)))


@dataclass(frozen=True)
class Part:
    """The part of a level that P-Net looks at; all of it where pictures have no border."""

    rows: int
    """Of the whole level, in pixels, as `columns`."""
    columns: int
    top: int
    bottom: int
    left: int
    right: int

    @staticmethod
    def around(cells: tuple[range, range], rows: int, columns: int) -> Part:
        """What these rows and columns of P-Net's cells see."""
        return Part(rows, columns, *_span(cells[0], rows), *_span(cells[1], columns))

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left


def _span(cells: range, level: int) -> tuple[int, int]:
    """First pixel of a level, and the one after the last, that these cells see."""
    # The last cell of the whole level pools what is left at the edge.
    last = cells.stop >= (level - 1) // STRIDE - 4
    return STRIDE * cells.start, level if last else STRIDE * cells.stop + CELL - STRIDE


@dataclass(frozen=True)
class Cells:
    """Cells of P-Net above a limit, by frame, row and column."""

    frame: Index
    """int64 (k,): place in the batch, and the cell's row and column."""
    row: Index
    column: Index
    values: Float32
    """float32 (k, 5 or more): logit of face against not face, four offsets."""


Look = Callable[[int, int], Cells]
"""P-Net's cells of the rows of a part from one to before another; rows of cells count from there."""


class Seen(Protocol):
    """Pictures, as the networks see them."""

    def level(self, batch: range, part: Part, logit_above: float) -> Look:
        """A part of a level of some pictures, all of one size. What it gave before is no longer valid."""
        ...

    def refined(self, network: str, frame: Index, corners: npt.NDArray[np.float64]) -> list[Float32]:
        """What R-Net or O-Net gives for boxes, float64 (n, 4): logits, offsets, and of O-Net landmarks."""
        ...


class MadeBeforehand:
    """For a CPU: any pictures."""

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
    """For a GPU: pictures of one size, uploaded as they are, amid one black pixel where they have a border."""

    def __init__(self, sessions: Mapping[str, Any], pictures: Sequence[Picture], device: Device) -> None:
        self._sessions, self._border = sessions, pictures[0].border
        self._size = pictures[0].size
        """Of a picture, its border included."""
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
    """uint8 (n, height, width, 3): frames of one size. Where they lie one behind the other, as those of a chunk do,
    it is that memory itself, which a GPU reads fast where it is page-locked (sources/memory.py)."""
    first, owner = frames[0], frames[0].base
    starts = [frame.__array_interface__["data"][0] - first.__array_interface__["data"][0] for frame in frames]
    neighbours = starts == [number * first.nbytes for number in range(len(frames))]
    if owner is not None and neighbours and all(frame.base is owner for frame in frames):
        return np.lib.stride_tricks.as_strided(first, (len(frames), *first.shape), (first.nbytes, *first.strides))
    return np.stack(frames)


class Buffers(threading.local):
    """Memory that each thread uses again from frame to frame: fresh pages cost more than what is written to them."""

    def __init__(self) -> None:
        self._pyramids: list[Pyramid] = []
        self._planes: Float32 = np.empty(0, np.float32)

    def pyramids(self, count: int) -> list[Pyramid]:
        self._pyramids += [Pyramid() for _ in range(count - len(self._pyramids))]
        return self._pyramids[:count]

    def planes(self, count: int, rows: int, columns: int) -> Float32:
        """float32 (count, 3, rows, columns), of any content."""
        size = count * 3 * rows * columns
        if self._planes.size < size:
            self._planes = np.empty(size, np.float32)
        return self._planes[:size].reshape(count, 3, rows, columns)

"""Smaller versions of one frame, by area averaging, and square patches out of it, by bilinear sampling.

Both give what TensorFlow gives the `mtcnn` package (tf.image.resize with method "area", tf.image.crop_and_resize), from
8-bit frames and in the range 0 to 255. Either can place the frame in the middle of a black border, as in DeepFace's
padded picture, without making that picture.

A cell of a level is the mean of the pixels that it covers, and pixels at its edges count by the share covered. There
are three ways to compute it, because none is fastest for all sizes:

- Large levels: cv2.resize with INTER_AREA, from the frame as float32 (Pyramid._whole).
- Levels of at most half the frame's rows: first average rows down, then let OpenCV average across. OpenCV alone goes
  across first, through every row of the frame.
- The smallest levels (INTEGRAL_BELOW), and all levels with a border: by the integral image. Its entry at (y, x) is
  the sum of all pixels above and left of it. The sum over a cell is the difference of four entries. The cost goes with
  the number of cells, not with that of pixels. Edges between two pixels are interpolated. A border costs
  nothing: its pixels are zero, so edges inside it are moved to the frame's edge.

On a GPU a level is two products of matrices, one per axis (Averaging), in the networks' own graphs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

CELL = 12
"""Side of the square that P-Net looks at, in pixels."""
OUTSIDE = 127.5
"""Value of a patch outside its frame: zero after normalisation."""
INTEGRAL_BELOW = 0.02
"""Share of the frame's pixels below which a level is faster by the integral image than by averaging (measured at
1080p). The cost of the one goes with the size of the level, that of the other with the size of the frame."""
BAND_ROWS = 32
"""Rows of a level that are made together with a border: few enough to stay in a core's cache."""
BLOCK_CELLS = 16
"""Cells of a level that one product of matrices makes on a GPU. More cells multiply more zeros."""
BANDS_BELOW = 0.5
"""Share of the frame's rows below which averaging down before across is faster than OpenCV alone (measured at 1080p).
OpenCV goes across first, one pixel at a time, through every row of the frame."""


def level_sizes(width: int, height: int, min_face: float, factor: float) -> list[tuple[float, int, int]]:
    """Return (scale, rows, columns) of each level, largest first; empty for frames that are too small for any."""
    shortest = min(width, height)
    if shortest < CELL:
        return []
    count = round(-(math.log(shortest / CELL) / math.log(factor) + 1))
    scales = [CELL / min_face * factor**level for level in range(count)]
    sizes = [(scale, int(height * scale), int(width * scale)) for scale in scales]
    return [size for size in sizes if min(size[1:]) >= CELL]


class Pyramid:
    """Makes the levels of one frame after another.

    It holds one frame as float32, its only full copy, or its integral image, or both. That memory is used again for
    each frame, because fresh pages can cost more than the writes to them.
    """

    def __init__(self) -> None:
        self._float: Float32 = np.empty((0, 0, 3), np.float32)
        self._border: tuple[int, int] | None = None
        self._bands: Float32 = np.empty((0, 0, 3), np.float32)
        self._level: Float32 = np.empty(0, np.float32)
        self._rgba: Frame = np.empty((0, 0, 4), np.uint8)
        self._sums: npt.NDArray[Any] = np.empty((1, 1, 4), np.int32)
        self._summed = False

    def load(self, frame: Frame, border: tuple[int, int] | None = None) -> None:
        """Copy a frame in, uint8 (height, width, 3). It keeps no reference, as a frame may be a view of a whole chunk.

        `border`: black rows above and below, columns left and right, that levels show beside it. With a border, even
        one of (0, 0), levels are TensorFlow's to the last bit but one, which takes longer.
        """
        self._border = border
        if border is not None:
            # Sums of 32 bits take half the memory, but overflow for larger frames.
            depth = cv2.CV_32S if frame.shape[0] * frame.shape[1] < 2**31 // 255 else cv2.CV_64F
            self._sums = np.asarray(cv2.integral(frame, sum=self._sums, sdepth=depth))
            return
        if self._float.shape != frame.shape or self._sums.shape[2] != 4:
            height, width = frame.shape[:2]
            self._float = np.empty((height, width, 3), np.float32)
            self._bands = np.empty((int(height * BANDS_BELOW) + 1, width, 3), np.float32)
            self._rgba = np.empty((height, width, 4), np.uint8)
            self._sums = np.empty((height + 1, width + 1, 4), np.int32)
        np.copyto(self._float, frame)
        # Four channels, so that a pixel's sums are 16 bytes, which numpy gathers as one item.
        cv2.cvtColor(frame, cv2.COLOR_RGB2RGBA, dst=self._rgba)
        self._summed = False

    def level(self, rows: int, columns: int, planes: Float32, first: tuple[int, int] = (0, 0)) -> None:
        """Write a level of `rows` and `columns` into planes, float32 (3, rows, columns).

        With a border `planes` may be smaller: a part of the level, whose first row and column are `first`.
        """
        if self._border is not None:
            self._amid_black(rows, columns, planes, first)
            return
        height, width = self._float.shape[:2]
        # The sums of the integral image have 32 bits.
        if rows * columns < INTEGRAL_BELOW * height * width and height * width < 2**31 // 255:
            np.copyto(planes, self._by_integral(rows, columns).transpose(2, 0, 1))
        else:
            self._whole(rows, columns, planes)

    def _whole(self, rows: int, columns: int, planes: Float32) -> None:
        source = self._averaged_down(rows) if rows <= BANDS_BELOW * len(self._float) else self._float
        size = rows * columns * 3
        if self._level.size < size:
            self._level = np.empty(size, np.float32)
        level = self._level[:size].reshape(rows, columns, 3)
        cv2.resize(source, (columns, rows), dst=level, interpolation=cv2.INTER_AREA)
        cv2.split(level, [planes[0], planes[1], planes[2]])

    def _amid_black(self, rows: int, columns: int, planes: Float32, first: tuple[int, int]) -> None:
        """Write a part of a level of the frame and its border, by the integral image: down, then across."""
        above, aside = self._border or (0, 0)
        height, width = self._sums.shape[0] - 1 + 2 * above, self._sums.shape[1] - 1 + 2 * aside
        y, y_part = _tensorflow_edges(rows, height, above, first[0], planes.shape[1])
        x, x_part = _tensorflow_edges(columns, width, aside, first[1], planes.shape[2])
        share = rows * columns / (height * width)
        for start in range(0, planes.shape[1], BAND_ROWS):
            some = np.s_[start : start + BAND_ROWS + 1]
            line = self._sums.take(y[some], axis=0)
            band = np.diff(line + (self._sums.take(y[some] + 1, axis=0) - line) * y_part[some, None, None], axis=0)
            corner = band.take(x, axis=1)
            corner += (band.take(x + 1, axis=1) - corner) * x_part[:, None]
            level = np.diff(corner, axis=1)
            level *= share
            planes[:, start : start + len(band)] = level.transpose(2, 0, 1)

    def _averaged_down(self, rows: int) -> Float32:
        """Return float32 (rows, width, 3): the level's rows at the frame's full width."""
        height = len(self._float)
        pixels = self._float.reshape(height, -1)
        bands = self._bands[:rows]
        for (start, share), band in zip(_shares(rows, height), bands.reshape(rows, -1), strict=True):
            # Not a matrix product: that would wake the threads of BLAS, however many the machine has.
            np.einsum("y,yx->x", share, pixels[start : start + len(share)], out=band)
        return bands

    def _by_integral(self, rows: int, columns: int) -> npt.NDArray[np.float64]:
        """Return float64 (rows, columns, 3), by the integral image, interpolated between pixels at a cell's corners."""
        if not self._summed:
            cv2.integral(self._rgba, sum=self._sums, sdepth=cv2.CV_32S)
            self._summed = True
        height, width = self._float.shape[:2]
        sums = self._sums.view("V16").ravel()
        y, y_part = _edges(rows, height)
        x, x_part = _edges(columns, width)
        at = y[:, None] * (width + 1) + x
        corner, right, below, diagonal = (
            sums.take(at + step).view(np.int32).reshape(*at.shape, 4)[..., :3] for step in (0, 1, width + 1, width + 2)
        )
        upper = corner + (right - corner) * x_part[:, None]
        upper += (below + (diagonal - below) * x_part[:, None] - upper) * y_part[:, None, None]
        level: npt.NDArray[np.float64] = np.diff(np.diff(upper, axis=0), axis=1)
        level *= rows * columns / (height * width)
        return level


@lru_cache(maxsize=256)
def _shares(cells: int, pixels: int) -> tuple[tuple[int, Float32], ...]:
    """Return for each of `cells` equal cells its first pixel and the share of the cell that each pixel covers.

    There are no more cells than pixels.
    """
    whole, part = _edges(cells, pixels)
    shares = []
    for (start, stop), (before, after) in zip(pairwise(whole.tolist()), pairwise(part.tolist()), strict=True):
        covered = np.ones(stop - start + 1)
        covered[0] -= before
        covered[-1] -= 1 - after
        # Rounding can leave a share near zero of the last pixel.
        shares.append((start, (covered[: len(covered) - (after < 1e-9)] * (cells / pixels)).astype(np.float32)))
    return tuple(shares)


@dataclass(frozen=True)
class Averaging:
    """Area averaging along one axis, as one product of matrices per block of cells.

    A cell of a block is the sum of the pixels that the block covers, each times its share. Extra cells fill the last
    block.
    """

    index: npt.NDArray[np.int64]
    """int64 (blocks, pixels): the pixels that a block covers."""
    share: Float32
    """float32 (blocks, cells, pixels): the share of each pixel in each cell."""

    @property
    def cells(self) -> int:
        """Number of cells of all blocks."""
        return len(self.share) * BLOCK_CELLS


@lru_cache(maxsize=256)
def averaging(cells: int, pixels: int, border: int | None, first: int, count: int) -> Averaging:
    """Return the averaging of `count` cells of a level, from `first` on, over an axis of `pixels` pixels.

    `border`: black pixels at either end of the axis; the pixels between are numbered as in the result of `rimmed`.
    None: no border.
    """
    if border is None:
        whole, part = (values[first : first + count + 1] for values in _edges(cells, pixels))
        held = pixels
    else:
        whole, part = _tensorflow_edges(cells, pixels, border, first, count)
        whole, held = whole + 1, pixels - 2 * border + 2
    edge = whole + part
    blocks = -(-count // BLOCK_CELLS)
    edge = np.pad(edge, (0, blocks * BLOCK_CELLS - count), mode="edge")  # a cell without width has no pixels
    starts = np.floor(edge[:-1:BLOCK_CELLS]).astype(np.int64)
    width = int((np.ceil(edge[BLOCK_CELLS::BLOCK_CELLS]) - starts).max(initial=1))
    pixel = starts[:, None] + np.arange(width)
    from_, to = (values.reshape(blocks, BLOCK_CELLS, 1) for values in (edge[:-1], edge[1:]))
    covered = np.minimum(to, pixel[:, None] + 1) - np.maximum(from_, pixel[:, None])
    share = np.maximum(covered, 0) * (cells / pixels)
    return Averaging(np.minimum(pixel, held - 1), share.astype(np.float32))


def _edges(cells: int, pixels: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the whole and fractional part of the edges of equal cells, in pixels."""
    edge: npt.NDArray[np.float64] = np.arange(cells + 1) * np.float64(pixels / cells)
    whole = np.minimum(edge.astype(np.int64), pixels - 1)
    return whole, edge - whole


def _tensorflow_edges(
    cells: int, pixels: int, border: int, first: int, count: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return `_edges` of `count` cells from `first` on, counted from the border's end; edges inside it are moved there.

    The arithmetic is float32, as TensorFlow's (resize_area_op.cc). Far from the corner its edges are off by 1e-4 of a
    pixel, enough to decide between two boxes of nearly one score.
    """
    step = np.float32(pixels) / np.float32(cells)
    edge = (np.arange(first, first + count + 1, dtype=np.float32) * step).astype(np.float64)
    edge = np.clip(edge - border, 0, pixels - 2 * border)
    whole = np.minimum(edge.astype(np.int64), pixels - 2 * border - 1)
    return whole, edge - whole


def rimmed(frame: Frame) -> Frame:
    """Return a frame with one black pixel around it, which `patches` reads for all black pixels."""
    return np.asarray(cv2.copyMakeBorder(frame, 1, 1, 1, 1, cv2.BORDER_CONSTANT))


def patches(
    frame: Frame, corners: npt.NDArray[np.float64], side: int, border: tuple[int, int] | None = None
) -> Float32:
    """Return float32 (n, side, side, 3): each box of a frame, sampled at side × side points from corner to corner.

    `border`: black rows above and below, columns left and right. Boxes are then those of the padded picture, and
    `frame` is the result of `rimmed` for the frame within it.
    """
    at = sampling(frame.shape[:2], corners, side, border)
    pixels = frame.reshape(-1, 3).view("V3").ravel()  # so that numpy gathers a pixel as one item
    width = frame.shape[1]
    y, y_next = at.y[:, :, None] * width, at.y_next[:, :, None] * width
    x, x_next = at.x[:, None, :], at.x_next[:, None, :]
    x_part, y_part = at.x_part[:, None, :, None], at.y_part[:, :, None, None]
    upper = _between(pixels, y + x, y + x_next, x_part)
    lower = _between(pixels, y_next + x, y_next + x_next, x_part)
    lower -= upper
    lower *= y_part
    upper += lower
    upper[~(at.y_inside[:, :, None] & at.x_inside[:, None, :])] = OUTSIDE
    return upper


@dataclass(frozen=True)
class Sampling:
    """The sampling points of boxes, along each axis.

    Indices of the pixels before and after each point are int64 (n, side). `part` is the point's position between them,
    float32; `inside` is True if the point is in the picture.
    """

    y: npt.NDArray[np.int64]
    y_next: npt.NDArray[np.int64]
    y_part: Float32
    y_inside: npt.NDArray[np.bool_]
    x: npt.NDArray[np.int64]
    x_next: npt.NDArray[np.int64]
    x_part: Float32
    x_inside: npt.NDArray[np.bool_]


def sampling(
    size: tuple[int, int], corners: npt.NDArray[np.float64], side: int, border: tuple[int, int] | None = None
) -> Sampling:
    """Return the sampling of boxes, float64 (n, 4), in a frame of `size` (height, width); `border` as in `patches`."""
    height, width = size
    tall, wide = (height, width) if border is None else (height - 2 + 2 * border[0], width - 2 + 2 * border[1])
    y, y_next, y_part, y_inside = _samples(corners[:, 1], corners[:, 3], tall, side)
    x, x_next, x_part, x_inside = _samples(corners[:, 0], corners[:, 2], wide, side)
    if border is not None:
        y, y_next = (np.clip(at - border[0] + 1, 0, height - 1) for at in (y, y_next))
        x, x_next = (np.clip(at - border[1] + 1, 0, width - 1) for at in (x, x_next))
    return Sampling(y, y_next, y_part, y_inside, x, x_next, x_part, x_inside)


def _between(
    pixels: npt.NDArray[np.void], left: npt.NDArray[np.int64], right: npt.NDArray[np.int64], part: Float32
) -> Float32:
    """Return float32 (n, side, side, 3): pixels at left, moved by `part` towards those at right."""
    a = pixels.take(left).view(np.uint8).reshape(*left.shape, 3).astype(np.float32)
    b = pixels.take(right).view(np.uint8).reshape(*right.shape, 3).astype(np.float32)
    b -= a
    b *= part
    a += b
    return a


def _samples(
    start: npt.NDArray[np.float64], stop: npt.NDArray[np.float64], pixels: int, side: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Float32, npt.NDArray[np.bool_]]:
    """Return, for points of boxes along one axis: pixel before, pixel after, position between, whether inside.

    The package divides by the size of the frame, and TensorFlow multiplies by the size less one; both in float32.
    """
    first = (start / pixels).astype(np.float32)
    last = (stop / pixels).astype(np.float32)
    step = (last - first) * np.float32(pixels - 1) / np.float32(side - 1)
    at = first[:, None] * np.float32(pixels - 1) + np.arange(side, dtype=np.float32) * step[:, None]
    inside = (at >= 0) & (at <= pixels - 1)
    at = np.clip(at, 0, pixels - 1)
    before = np.floor(at)
    return before.astype(np.int64), np.ceil(at).astype(np.int64), at - before, inside

"""Smaller versions of one frame, by area averaging, and square patches out of it, by bilinear sampling.

Both give what TensorFlow gives the `mtcnn` package (tf.image.resize with method "area", tf.image.crop_and_resize), from
8-bit frames and in the range 0 to 255.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

CELL = 12
"""Side of the square that P-Net looks at, in pixels."""
OUTSIDE = 127.5
"""What a patch shows outside its frame: zero after normalisation."""
INTEGRAL_BELOW = 0.02
"""Share of the frame's pixels below which a level is faster by way of the integral image, whose cost goes with
the size of the level, than by averaging, whose cost goes with that of the frame (measured at 1080p)."""
BANDS_BELOW = 0.5
"""Share of the frame's rows below which averaging down before across is faster than OpenCV, which goes across first,
one pixel at a time, through every row of the frame (measured at 1080p)."""


def level_sizes(width: int, height: int, min_face: float, factor: float) -> list[tuple[float, int, int]]:
    """(scale, rows, columns) of each level of the pyramid, largest first; empty for frames too small for any."""
    shortest = min(width, height)
    if shortest < CELL:
        return []
    count = round(-(math.log(shortest / CELL) / math.log(factor) + 1))
    scales = [CELL / min_face * factor**level for level in range(count)]
    sizes = [(scale, int(height * scale), int(width * scale)) for scale in scales]
    return [size for size in sizes if min(size[1:]) >= CELL]


class Pyramid:
    """The levels of one frame after another. Holds one frame as float32, its only full copy, and its integral image,
    in memory that is used again from frame to frame: fresh pages can cost more than what is written to them."""

    def __init__(self) -> None:
        self._float: Float32 = np.empty((0, 0, 3), np.float32)
        self._bands: Float32 = np.empty((0, 0, 3), np.float32)
        self._level: Float32 = np.empty(0, np.float32)
        self._rgba: Frame = np.empty((0, 0, 4), np.uint8)
        self._sums: npt.NDArray[np.int32] = np.empty((1, 1, 4), np.int32)
        self._summed = False

    def load(self, frame: Frame) -> None:
        """Copy a frame in, uint8 (height, width, 3). Keeps no hold of it: it may be a view of a whole chunk."""
        import cv2

        if self._float.shape != frame.shape:
            self._make_room(*frame.shape[:2])
        np.copyto(self._float, frame)
        # Four channels, so that a pixel's sums are 16 bytes, which numpy gathers as one item.
        cv2.cvtColor(frame, cv2.COLOR_RGB2RGBA, dst=self._rgba)
        self._summed = False

    def _make_room(self, height: int, width: int) -> None:
        self._float = np.empty((height, width, 3), np.float32)
        self._bands = np.empty((int(height * BANDS_BELOW) + 1, width, 3), np.float32)
        self._rgba = np.empty((height, width, 4), np.uint8)
        self._sums = np.empty((height + 1, width + 1, 4), np.int32)

    def level(self, rows: int, columns: int, planes: Float32) -> None:
        """Write one level into planes, float32 (3, rows, columns)."""
        import cv2

        height, width = self._float.shape[:2]
        # The sums of the integral image are 32 bit.
        if rows * columns < INTEGRAL_BELOW * height * width and height * width < 2**31 // 255:
            np.copyto(planes, self._by_integral(rows, columns).transpose(2, 0, 1))
            return
        source = self._averaged_down(rows) if rows <= BANDS_BELOW * height else self._float
        size = rows * columns * 3
        if self._level.size < size:
            self._level = np.empty(size, np.float32)
        level = self._level[:size].reshape(rows, columns, 3)
        cv2.resize(source, (columns, rows), dst=level, interpolation=cv2.INTER_AREA)
        cv2.split(level, [planes[0], planes[1], planes[2]])

    def _averaged_down(self, rows: int) -> Float32:
        """float32 (rows, width, 3): the level's rows at the frame's full width."""
        height = len(self._float)
        pixels = self._float.reshape(height, -1)
        bands = self._bands[:rows]
        for (start, share), band in zip(_shares(rows, height), bands.reshape(rows, -1), strict=True):
            # Not a matrix product: that would wake the threads of BLAS, however many the machine has.
            np.einsum("y,yx->x", share, pixels[start : start + len(share)], out=band)
        return bands

    def _by_integral(self, rows: int, columns: int) -> npt.NDArray[np.float64]:
        """float64 (rows, columns, 3): the mean over a cell is the difference of the integral image at its corners,
        interpolated between pixels."""
        import cv2

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
    """The first pixel that each of so many equal cells covers, and the share of the cell that is of it and of the
    following ones; there are no more cells than pixels."""
    whole, part = _edges(cells, pixels)
    shares = []
    for (start, stop), (before, after) in zip(pairwise(whole.tolist()), pairwise(part.tolist()), strict=True):
        covered = np.ones(stop - start + 1)
        covered[0] -= before
        covered[-1] -= 1 - after
        # Rounding can leave next to nothing of a last pixel.
        shares.append((start, (covered[: len(covered) - (after < 1e-9)] * (cells / pixels)).astype(np.float32)))
    return tuple(shares)


def _edges(cells: int, pixels: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Whole and fractional part of the edges of equal cells, in pixels."""
    edge: npt.NDArray[np.float64] = np.arange(cells + 1) * np.float64(pixels / cells)
    whole = np.minimum(edge.astype(np.int64), pixels - 1)
    return whole, edge - whole


def patches(frame: Frame, corners: npt.NDArray[np.float64], side: int) -> Float32:
    """float32 (n, side, side, 3): each box of a frame, sampled at side × side points from corner to corner."""
    height, width = frame.shape[:2]
    pixels = frame.reshape(-1, 3).view("V3").ravel()  # so that a pixel is gathered as one item
    y, y_next, y_part, y_inside = _samples(corners[:, 1], corners[:, 3], height, side)
    x, x_next, x_part, x_inside = _samples(corners[:, 0], corners[:, 2], width, side)
    y, y_next = y[:, :, None] * width, y_next[:, :, None] * width
    x, x_next = x[:, None, :], x_next[:, None, :]
    x_part, y_part = x_part[:, None, :, None], y_part[:, :, None, None]
    upper = _between(pixels, y + x, y + x_next, x_part)
    lower = _between(pixels, y_next + x, y_next + x_next, x_part)
    lower -= upper
    lower *= y_part
    upper += lower
    upper[~(y_inside[:, :, None] & x_inside[:, None, :])] = OUTSIDE
    return upper


def _between(
    pixels: npt.NDArray[np.void], left: npt.NDArray[np.int64], right: npt.NDArray[np.int64], part: Float32
) -> Float32:
    """float32 (n, side, side, 3): pixels at left, moved towards those at right."""
    a = pixels.take(left).view(np.uint8).reshape(*left.shape, 3).astype(np.float32)
    b = pixels.take(right).view(np.uint8).reshape(*right.shape, 3).astype(np.float32)
    b -= a
    b *= part
    a += b
    return a


def _samples(
    start: npt.NDArray[np.float64], stop: npt.NDArray[np.float64], pixels: int, side: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Float32, npt.NDArray[np.bool_]]:
    """Pixel before and after each sampling point of each box along one axis, the part between, and whether inside.

    The package divides by the size of the frame, TensorFlow multiplies by the size less one; in float32, as it does.
    """
    first = (start / pixels).astype(np.float32)
    last = (stop / pixels).astype(np.float32)
    step = (last - first) * np.float32(pixels - 1) / np.float32(side - 1)
    at = first[:, None] * np.float32(pixels - 1) + np.arange(side, dtype=np.float32) * step[:, None]
    inside = (at >= 0) & (at <= pixels - 1)
    at = np.clip(at, 0, pixels - 1)
    before = np.floor(at)
    return before.astype(np.int64), np.ceil(at).astype(np.int64), at - before, inside

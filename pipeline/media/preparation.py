"""Pictures as a network takes them: the part that it sees, resized, normalised."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import AfterValidator, BeforeValidator

from pipeline.media.picture import resized

Resize = Literal["shortest", "stretch", "longest"]
Filter = Literal["area", "bilinear", "bicubic"]
Layout = Literal["NCHW", "NHWC"]
Colour = Literal["RGB", "BGR"]
Picture = npt.NDArray[np.uint8]
Size = tuple[int, int]
"""Height and width in pixels."""


def _sides(value: Any) -> Any:
    """Return height and width of one side, or of "1280x720", width first."""
    if isinstance(value, str) and (found := re.fullmatch(r"(\d+)\s*[x×]\s*(\d+)", value.strip())):
        return int(found[2]), int(found[1])
    return (value, value) if isinstance(value, int) else value


def _some_pixels(value: Size) -> Size:
    if not 1 <= min(value) <= max(value) <= 8192:
        raise ValueError("size must be from 1 to 8192")
    return value


Pixels = Annotated[Size, BeforeValidator(_sides), AfterValidator(_some_pixels)]
"""Option of a stage: one side, [height, width], or width x height as text."""

_PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Preparation:
    """The way from pictures to the input of a network."""

    size: Size
    layout: Layout
    dtype: str
    """Type of the input: uint8, float16, float32 or float64."""
    resize: Resize = "shortest"
    crop: float = 1.0
    """Share of each side that the network sees, in the middle."""
    filter: Filter = "area"
    colour: Colour = "RGB"
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    """The input is (pixel * scale - mean) / std, with one number for all colours, or one for each in the order of
    `colour`. Not for uint8."""
    bars: int = 0
    """Value of the pixels that `longest` adds."""
    bars_after: bool = False
    """True if `longest` adds bars below or to the right only, False if on both sides."""

    def batch(self, pictures: Iterable[Picture], size: int) -> npt.NDArray[np.generic]:
        """Return an input of `size` pictures, of which the last may be empty. The pictures may differ in size."""
        batch = np.zeros((size, *self.shape), self.dtype)
        rows = batch.view(np.uint16) if self.dtype == "float16" else batch  # OpenCV knows 16 bits as whole numbers
        table = self._table()
        for row, picture in zip(rows, pictures, strict=False):
            self._write(row, self.resized(picture), table)
        return batch

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of one picture of the input."""
        return (3, *self.size) if self.layout == "NCHW" else (*self.size, 3)

    def resized(self, picture: Picture) -> Picture:
        """Return the part of a picture that the network sees, at its size."""
        part = self._part(picture)
        top, left, height, width = self.placed(part.shape[:2])
        small = _resample(part, (height, width), self.filter)
        if (height, width) == self.size:
            return small
        canvas = np.full((*self.size, 3), self.bars, np.uint8)
        canvas[top : top + height, left : left + width] = small
        return canvas

    def placed(self, sides: tuple[int, ...]) -> tuple[int, int, int, int]:
        """Return top, left, height and width of a part of this height and width, in pixels of the input."""
        if self.resize != "longest":
            return (0, 0, *self.size)
        factor = min(side / own for side, own in zip(self.size, sides, strict=True))
        height, width = (max(1, round(own * factor)) for own in sides)
        if self.bars_after:
            return 0, 0, height, width
        return (self.size[0] - height) // 2, (self.size[1] - width) // 2, height, width

    def _part(self, picture: Picture) -> Picture:
        sides = picture.shape[:2]
        if self.resize == "shortest":
            factor = min(own / side for own, side in zip(sides, self.size, strict=True))
            height, width = (max(1, int(self.crop * factor * side)) for side in self.size)
        else:
            height, width = (max(1, int(self.crop * own)) for own in sides)
        top, left = (sides[0] - height + 1) // 2, (sides[1] - width + 1) // 2
        return picture[top : top + height, left : left + width]

    def _table(self) -> npt.NDArray[np.generic] | None:
        """Return the number for each value of a pixel, (3, 256), in the order of the network's colours."""
        if self.dtype == "uint8":
            return None
        mean, std = (np.broadcast_to(np.array(given, np.float64), 3)[:, None] for given in (self.mean, self.std))
        table = ((np.arange(256) * self.scale - mean) / std).astype(self.dtype)
        return table.view(np.uint16) if self.dtype == "float16" else table

    def _write(self, row: npt.NDArray[np.generic], picture: Picture, table: npt.NDArray[np.generic] | None) -> None:
        """Write one picture into its row of the input."""
        step = 1 if self.colour == "RGB" else -1
        if table is None:
            row[:] = picture[:, :, ::step] if self.layout == "NHWC" else picture[:, :, ::step].transpose(2, 0, 1)
        elif self.layout == "NHWC":
            cv2.LUT(np.ascontiguousarray(picture[:, :, ::step]), np.ascontiguousarray(table.T)[None], row)
        else:
            for channel, plane in enumerate(cv2.split(picture)[::step]):
                cv2.LUT(plane, table[channel], row[channel])


def _resample(picture: Picture, size: Size, chosen: Filter) -> Picture:
    """Resize a picture; `bilinear` and `bicubic` are Pillow's, which smooth what they reduce as torchvision's do."""
    height, width = size
    if picture.shape[:2] == size:
        return picture
    if chosen != "area":
        return np.asarray(Image.fromarray(picture).resize((width, height), _PILLOW[chosen]))
    return resized(picture, width, height)

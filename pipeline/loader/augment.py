"""Augmentation with the names and meanings of Keras' ImageDataGenerator: one warp and one table for each picture.

All geometric parameters make one affine warp (OpenCV, bilinear). Channel shift, brightness, contrast, rescaling and
normalisation by known means make one table of 256 values, if pixels are uint8.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline.errors import UsageError
from pipeline.text import plural

Array = npt.NDArray[Any]
_BORDERS = {
    "nearest": cv2.BORDER_REPLICATE,
    "constant": cv2.BORDER_CONSTANT,
    "reflect": cv2.BORDER_REFLECT,
    "wrap": cv2.BORDER_WRAP,
}
_SAME_SIZE = {1: np.uint8, 2: np.uint16}
_GREY = np.array([0.299, 0.587, 0.114])
_LEAST_STD = 1e-6
"""Added to a standard deviation before division, as Keras does."""
_RANGES = (1.0, 255.0, 65535.0, math.inf)
"""Largest values of pixels that are not uint8; the least that holds a picture is taken."""
_VALUES = np.arange(256, dtype=np.float32)


class Augment(BaseModel):
    """Random changes of a picture; by default none. Parameters have Keras' names and meanings, and two are added."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, allow_inf_nan=False)
    where: ClassVar[str] = "augment"

    rotation_range: float = Field(0, ge=0, description="most degrees, to either side")
    width_shift_range: float | int | tuple[float, ...] = Field(
        0.0, description="most shift along x: a part of the width below 1, else pixels; N: a whole number below N; a "
        "list: one of these",
    )  # fmt: skip
    height_shift_range: float | int | tuple[float, ...] = Field(0.0, description="the same along y")
    shear_range: float = Field(0, ge=0, description="most degrees, to either side")
    zoom_range: float | tuple[float, float] = Field(
        0.0,
        description="z: factors from 1 - z to 1 + z, drawn for x and y apart; or two factors",
        validate_default=True,
    )
    horizontal_flip: bool = Field(False, description="mirror every other picture, by chance")
    vertical_flip: bool = Field(False, description="turn every other picture upside down, by chance")
    crop: tuple[int, int] | None = Field(None, description="height and width of a part, at a random place")
    channel_shift_range: float = Field(0, ge=0, description="most that is added to all values")
    brightness_range: tuple[float, float] | None = Field(None, description="least and most factor")
    contrast_range: tuple[float, float] | None = Field(
        None, description="least and most factor of the distance from the mean grey"
    )
    fill_mode: Literal["nearest", "constant", "reflect", "wrap"] = Field("nearest", description="pixels from outside")
    cval: float = Field(0.0, description="value of pixels from outside, with constant")
    rescale: float | None = Field(None, description="factor of all values")
    samplewise_center: bool = Field(False, description="subtract the mean of each picture")
    samplewise_std_normalization: bool = Field(False, description="divide by the standard deviation of each picture")
    featurewise_center: bool = Field(False, description="subtract `mean`")
    featurewise_std_normalization: bool = Field(False, description="divide by `std`")
    mean: tuple[float, ...] | None = Field(None, description="mean of each channel, after rescale; `fit` finds it")
    std: tuple[float, ...] | None = Field(None, description="standard deviation of each channel, after rescale")
    preprocessing_function: Callable[[Array], Array] | None = Field(
        None, description="applied to each picture, float32, after the random changes and before rescale"
    )

    def __init__(self, **values: Any) -> None:
        """Check the parameters. Raises UsageError."""
        try:
            super().__init__(**values)
        except ValidationError as err:
            from pipeline.engine.workflow import explain

            raise UsageError(explain(err, type(self), self.where)) from err

    @field_validator("width_shift_range", "height_shift_range", mode="before")
    @classmethod
    def _whole(cls, value: Any) -> Any:
        """Keep a whole number one, also NumPy's: it has another meaning than a number with a fraction."""
        found = int(value) if isinstance(value, np.integer) else value
        if isinstance(found, int) and found < 0:
            raise ValueError("a whole number of pixels must be 0 or more")
        return found

    @field_validator("zoom_range")
    @classmethod
    def _zoom(cls, value: float | tuple[float, float]) -> tuple[float, float]:
        low, high = (1 - value, 1 + value) if isinstance(value, int | float) else value
        if low <= 0:
            raise ValueError(f"a zoom of {low:g} leaves nothing; zoom_range must keep factors above 0")
        return low, high

    @field_validator("brightness_range")
    @classmethod
    def _brightness(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and min(value) < 0:
            raise ValueError("a factor of brightness must be 0 or more")
        return value

    @field_validator("crop")
    @classmethod
    def _crop(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and min(value) < 1:
            raise ValueError("crop needs at least 1 pixel each way")
        return value

    @model_validator(mode="after")
    def _implied(self) -> Augment:
        """Set what Keras sets: a division by a standard deviation implies its mean."""
        for name in ("samplewise", "featurewise"):
            if getattr(self, f"{name}_std_normalization"):
                self.__dict__[f"{name}_center"] = True
        return self

    def fit(self, sample: Array) -> Augment:
        """Return the same augmentation with mean and standard deviation of a sample, (n, height, width, channels)."""
        values = np.asarray(sample, np.float64)
        if values.ndim != 4 or not values.size:
            raise UsageError(f"fit needs pictures (n, height, width, channels), not an array of shape {values.shape}")
        values = values * (self.rescale or 1)
        found = {"mean": values.mean((0, 1, 2)), "std": values.std((0, 1, 2))}
        return self.model_copy(update={name: tuple(value.tolist()) for name, value in found.items()})

    def check(self, channels: int | None = None) -> None:
        """Raise UsageError if a normalisation lacks its values, or those of some of the channels."""
        for on, name in ((self.featurewise_center, "mean"), (self.featurewise_std_normalization, "std")):
            value = getattr(self, name)
            if on and value is None:
                raise UsageError(f"featurewise normalisation needs {name}; call augment = augment.fit(sample)")
            if on and channels is not None and len(value) not in (1, channels):
                raise UsageError(f"{name} has {len(value)} values for pictures of {plural(channels, 'channel')}")

    @property
    def keeps_integers(self) -> bool:
        """True if values stay whole numbers from 0 to 255."""
        scaled = self.rescale is not None or self.samplewise_center or self.featurewise_center
        return not scaled and self.preprocessing_function is None


@dataclass(frozen=True)
class Changes:
    """The changes of one picture, drawn. Angles in degrees, shifts in pixels."""

    theta: float = 0
    shift_x: float = 0
    shift_y: float = 0
    shear: float = 0
    zoom_x: float = 1
    zoom_y: float = 1
    flip_x: bool = False
    flip_y: bool = False
    top: int = 0
    """First row that a crop keeps."""
    left: int = 0
    channel_shift: float = 0
    brightness: float = 1
    contrast: float = 1


class Augmenter:
    """Applies an `Augment` to pictures; made once in each process."""

    def __init__(self, options: Augment) -> None:
        options.check()
        self.options = options
        self._border = _BORDERS[options.fill_mode]
        self._cval = (options.cval,) * 4
        mean = options.mean if options.featurewise_center else None
        std = options.std if options.featurewise_std_normalization else None
        self._mean = None if mean is None else np.array(mean, np.float32)
        self._std = None if std is None else np.array(std, np.float32) + np.float32(_LEAST_STD)
        self._by_table = options.preprocessing_function is None and not options.samplewise_center
        self._fixed = self._table(_VALUES) if self._by_table else None

    def changes(self, u: Sequence[float], height: int, width: int) -> Changes:
        """Return the changes of a picture of this size; `u`: UNIFORMS numbers of [0, 1)."""
        o = self.options
        zoom = o.zoom_range
        assert isinstance(zoom, tuple)
        low, span = zoom[0], zoom[1] - zoom[0]
        crop = o.crop or (height, width)
        if crop[0] > height or crop[1] > width:
            raise UsageError(f"crop {crop} is larger than the picture, {height} × {width} pixels")
        return Changes(
            (2 * u[0] - 1) * o.rotation_range,
            _shift(o.width_shift_range, u[1], u[2], width),
            _shift(o.height_shift_range, u[3], u[4], height),
            (2 * u[5] - 1) * o.shear_range,
            low + span * u[6],
            low + span * u[7],
            o.horizontal_flip and u[8] < 0.5,
            o.vertical_flip and u[9] < 0.5,
            int(u[10] * (height - crop[0] + 1)),
            int(u[11] * (width - crop[1] + 1)),
            (2 * u[12] - 1) * o.channel_shift_range,
            1 if o.brightness_range is None else _between(o.brightness_range, u[13]),
            1 if o.contrast_range is None else _between(o.contrast_range, u[14]),
        )

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of what is made of a picture."""
        return self.options.crop or (height, width)

    def geometry(self, picture: Array, changes: Changes, *, nearest: bool = False) -> Array:
        """Return a picture, or with `nearest` a mask, warped: shift, rotation, shear, zoom, flips and crop at once."""
        height, width = picture.shape[:2]
        rows, columns = self.size(height, width)
        c = changes
        if not (c.theta or c.shift_x or c.shift_y or c.shear) and c.zoom_x == c.zoom_y == 1:
            whole = picture[:: -1 if c.flip_y else 1, :: -1 if c.flip_x else 1]  # a crop is of the flipped one
            return whole[c.top : c.top + rows, c.left : c.left + columns]
        if nearest:  # OpenCV moves values of these types, whatever they mean; one of 8 bytes as two of 4
            held = np.ascontiguousarray(picture).reshape(height, width, -1)
            moved = held.view(_SAME_SIZE.get(picture.dtype.itemsize, np.int32))
            found = self._warped(moved, c, cv2.INTER_NEAREST, (0,) * 4)
            return found.reshape(rows, columns, -1).view(picture.dtype).reshape(rows, columns, *picture.shape[2:])
        found = self._warped(picture, c, cv2.INTER_LINEAR, self._cval)
        return found if found.ndim == picture.ndim else found[..., None]

    def _warped(self, picture: Array, c: Changes, method: int, outside: tuple[float, ...]) -> Array:
        height, width = picture.shape[:2]
        rows, columns = self.size(height, width)
        return np.asarray(cv2.warpAffine(
            picture, matrix(c, height, width), (columns, rows), flags=method | cv2.WARP_INVERSE_MAP,
            borderMode=self._border, borderValue=outside,
        ))  # fmt: skip

    def boxes(self, boxes: Array, changes: Changes, height: int, width: int) -> Array:
        """Return boxes (n, 4 and more: x, y, width, height, ...) of a changed picture, those that are left of them.

        A box of the result holds the four corners of the old one, as far as they lie inside. Further columns stay.
        """
        rows, columns = self.size(height, width)
        forward = cv2.invertAffineTransform(matrix(changes, height, width))
        x, y, w, h = np.asarray(boxes[:, :4], np.float64).T
        corners = np.stack([np.stack([x, x + w, x, x + w]), np.stack([y, y, y + h, y + h]), np.ones((4, len(x)))])
        # Boxes are measured from pixels' corners, warps from their centres.
        corners[:2] -= 0.5
        moved = np.tensordot(forward, corners, 1) + 0.5
        left, right = (np.clip(edge, 0, columns) for edge in (moved[0].min(0), moved[0].max(0)))
        top, bottom = (np.clip(edge, 0, rows) for edge in (moved[1].min(0), moved[1].max(0)))
        kept = (right > left) & (bottom > top)
        found = np.array(boxes, np.float32)
        found[:, :4] = np.stack([left, top, right - left, bottom - top], 1)
        return np.asarray(found[kept])

    def colours(self, picture: Array, changes: Changes, out: Array) -> None:
        """Write a picture with its changes of colour, rescaled and normalised, into `out`, of the same shape."""
        c = changes
        if picture.dtype != np.uint8:
            self._floats(picture, c, out)
            return
        plain = not c.channel_shift and c.brightness == c.contrast == 1
        values = _VALUES if plain else self._shades(picture, c)
        table = self._fixed if plain else self._table(values)
        picture = np.ascontiguousarray(picture)
        if table is None:
            out[...] = self.standard(values[picture])
        elif out.dtype == np.float32 and out.flags.c_contiguous and table.shape[-1] in (1, picture.shape[-1]):
            cv2.LUT(picture, table, out)
        else:
            found = cv2.LUT(picture, table).reshape(out.shape)
            out[...] = np.clip(np.rint(found), 0, 255) if out.dtype.kind in "ui" else found

    def _shades(self, picture: Array, c: Changes) -> npt.NDArray[np.float32]:
        """Return what becomes of each value from 0 to 255 by shift, brightness and contrast."""
        values = _VALUES
        if c.channel_shift:
            low, high, _, _ = cv2.minMaxLoc(picture.reshape(len(picture), -1))
            values = np.minimum(np.maximum(values + np.float32(c.channel_shift), np.float32(low)), np.float32(high))
        if c.brightness != 1:  # as Pillow does it, in whole numbers
            values = np.minimum(np.trunc(np.trunc(values) * np.float32(c.brightness)), np.float32(255))
        if c.contrast != 1:
            means = np.array([values[picture[..., k]].mean(dtype=np.float64) for k in range(picture.shape[-1])])
            grey = np.rint(means @ _GREY if len(means) == 3 else means.mean())
            values = np.clip(np.trunc(grey + np.float32(c.contrast) * (np.trunc(values) - grey)), 0, 255)
        return np.asarray(values, np.float32)

    def _table(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32] | None:
        """Return the table of OpenCV for these values; None if a picture's own values are needed."""
        if not self._by_table:
            return None
        channels = 1 if self._mean is None else len(self._mean)
        return np.ascontiguousarray(self.standard(np.repeat(values[None, :, None], channels, 2)))

    def _floats(self, picture: Array, c: Changes, out: Array) -> None:
        """Do the same to pixels that are not uint8: values keep their range, such as 0 to 1, and stay fractions."""
        values = np.array(picture, np.float32)
        if c.channel_shift:
            values = np.clip(values + np.float32(c.channel_shift), values.min(), values.max())
        most = np.float32(next(one for one in _RANGES if not values.max(initial=0) > one))
        if c.brightness != 1:
            values = np.clip(values * np.float32(c.brightness), min(0, values.min()), most)
        if c.contrast != 1:
            means = values.mean((0, 1), dtype=np.float64)
            grey = np.float32(means @ _GREY if len(means) == 3 else means.mean())
            values = np.clip(grey + np.float32(c.contrast) * (values - grey), min(0, values.min()), most)
        out[...] = self.standard(values)

    def standard(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Do what Keras' `standardize` does: the user's function, rescale, normalisation of the sample, of features."""
        o = self.options
        if o.preprocessing_function is not None:
            shape = values.shape
            values = np.asarray(o.preprocessing_function(values), np.float32)
            if values.shape != shape:
                raise ValueError(f"preprocessing_function returned shape {values.shape} for a picture of {shape}")
        if o.rescale:
            values = values * np.float32(o.rescale)
        if o.samplewise_center:
            values = values - np.float32(values.mean(dtype=np.float64))
        if o.samplewise_std_normalization:
            values = values / np.float32(values.std(dtype=np.float64) + _LEAST_STD)
        if self._mean is not None:
            values = values - self._mean
        if self._std is not None:
            values = values / self._std
        return values


def matrix(c: Changes, height: int, width: int) -> npt.NDArray[np.float64]:
    """Return float64 (2, 3): the place in the picture of each pixel of the result, x and y.

    The order is Keras': rotation, shift, shear, zoom about the picture's centre, then flips; a crop comes last.
    """
    theta, shear = math.radians(c.theta), math.radians(c.shear)
    cos, sin = math.cos(theta), math.sin(theta)
    lean, rise = -math.sin(shear), math.cos(shear)
    zoom_x, zoom_y = c.zoom_x * (-1 if c.flip_x else 1), c.zoom_y * (-1 if c.flip_y else 1)
    xx, xy = cos * zoom_x, (cos * lean - sin * rise) * zoom_y
    yx, yy = sin * zoom_x, (sin * lean + cos * rise) * zoom_y
    middle_x, middle_y = width / 2 - 0.5, height / 2 - 0.5
    from_x, from_y = c.left - middle_x, c.top - middle_y
    return np.array([
        [xx, xy, xx * from_x + xy * from_y + cos * c.shift_x - sin * c.shift_y + middle_x],
        [yx, yy, yx * from_x + yy * from_y + sin * c.shift_x + cos * c.shift_y + middle_y],
    ])  # fmt: skip


def _between(limits: tuple[float, float], u: float) -> float:
    return limits[0] + (limits[1] - limits[0]) * u


def _shift(most: float | tuple[float, ...], u: float, sign: float, pixels: int) -> float:
    """Return a shift in pixels: Keras takes a whole number, or a list, as values to choose from."""
    if not most:
        return 0
    if isinstance(most, tuple):
        chosen, largest = most[int(u * len(most))] * (1 if sign < 0.5 else -1), max(most)
    elif isinstance(most, int):
        chosen, largest = int(u * most) * (1 if sign < 0.5 else -1), most
    else:
        chosen, largest = (2 * u - 1) * most, most
    return chosen * pixels if largest < 1 else chosen

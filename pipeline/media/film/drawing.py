"""Boxes, lines and labels on frames: readable at 144 lines and at 2160, on light and on dark."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.media.film.lettering import mask

Colour = tuple[int, int, int]
UNKNOWN_COLOUR: Colour = (200, 200, 200)
_GOLDEN = 0.618033988749895
_BLACK = (0, 0, 0)
_TINT = 0.15
"""Share of its colour in an area."""


@dataclass(frozen=True)
class Mark:
    """A box to draw."""

    box: tuple[float, float, float, float]
    """x, y, w, h in pixels."""
    colour: Colour
    text: str
    """May be empty."""
    more: str = ""
    """Said after the text where there is room."""


@dataclass(frozen=True)
class Shape:
    """A line through points, or an area within them."""

    points: npt.NDArray[np.float64]
    """(n, 2): x, y in pixels."""
    colour: Colour
    text: str = ""
    is_closed: bool = False
    """True for an area, which is tinted."""


def colour_of(code: int) -> Colour:
    """RGB of a person: of full strength, far from that of the next one, and always the same."""
    hue = (0.02 + _GOLDEN * code) % 1.0
    # Blue and violet are dark to the eye at the same value: less saturation there.
    saturation = 0.55 if 0.58 < hue < 0.85 else 0.8
    r, g, b = colorsys.hsv_to_rgb(hue, saturation, 1.0)
    return round(255 * r), round(255 * g), round(255 * b)


def draw(frame_rgb: npt.NDArray[np.uint8], marks: list[Mark], shapes: Sequence[Shape] = ()) -> None:
    """Draw shapes, boxes over them, then labels, in place; uint8 (height, width, 3)."""
    # Pixels of lines, and of letters, go by the shorter side of the frame.
    side = min(frame_rgb.shape[:2])
    stroke, letters = max(1, round(side / 360)), max(11, round(side / 40))
    for shape in shapes:
        _outline(frame_rgb, shape, stroke)
    for mark in marks:  # a coloured line between two dark ones
        left, top, right, bottom = _corners(mark)
        cv2.rectangle(frame_rgb, (left, top), (right, bottom), _BLACK, stroke + 2 * max(1, stroke // 2))
        cv2.rectangle(frame_rgb, (left, top), (right, bottom), mark.colour, stroke)
    taken: list[tuple[int, int, int, int]] = []
    named = [_place_of(shape) for shape in shapes if shape.text]
    for mark in [*named, *sorted(marks, key=lambda mark: mark.box[1])]:
        if mark.text or mark.more:
            taken.append(_label(frame_rgb, mark, letters, stroke, taken))


def _outline(frame_rgb: npt.NDArray[np.uint8], shape: Shape, stroke: int) -> None:
    points = [np.round(shape.points).astype(np.int32)]
    if len(shape.points) < 2:
        return
    if shape.is_closed:
        tinted = cv2.fillPoly(frame_rgb.copy(), points, shape.colour)
        cv2.addWeighted(tinted, _TINT, frame_rgb, 1 - _TINT, 0, dst=frame_rgb)
    cv2.polylines(frame_rgb, points, shape.is_closed, _BLACK, stroke + 2 * max(1, stroke // 2), cv2.LINE_AA)
    cv2.polylines(frame_rgb, points, shape.is_closed, shape.colour, stroke, cv2.LINE_AA)


def _place_of(shape: Shape) -> Mark:
    """Return the place of a shape's label: the upper end of a line, the middle of the top of an area."""
    x, y = shape.points[shape.points[:, 1].argmin()].tolist()
    return Mark((float(shape.points[:, 0].mean()) if shape.is_closed else x, y, 0.0, 0.0), shape.colour, shape.text)


def _corners(mark: Mark) -> tuple[int, int, int, int]:
    x, y, w, h = mark.box
    return round(x), round(y), round(x + w), round(y + h)


def _label(
    frame_rgb: npt.NDArray[np.uint8], mark: Mark, letters: int, stroke: int, taken: list[tuple[int, int, int, int]]
) -> tuple[int, int, int, int]:
    ink = _ink(mark, letters, frame_rgb.shape[1] - 4 * stroke)
    pad = max(1, letters // 5)
    height, width = ink.shape[0] + pad, ink.shape[1] + 2 * pad
    place = _place(mark, width, height, stroke, frame_rgb.shape[1], frame_rgb.shape[0], taken)
    left, top = place[:2]
    cv2.rectangle(frame_rgb, (left - 1, top - 1), (left + width, top + height), _BLACK, 1)
    plate = frame_rgb[top : top + height, left : left + width]
    plate[:] = mark.colour
    part = plate[pad // 2 : pad // 2 + ink.shape[0], pad : pad + ink.shape[1]]
    share = ink[: part.shape[0], : part.shape[1], None].astype(np.float32) / 255
    red, green, blue = mark.colour
    dark = 0.299 * red + 0.587 * green + 0.114 * blue > 110  # luma of BT.601: which is the easier to read on the plate
    letter = np.array(_BLACK if dark else (255, 255, 255), np.float32)
    part[:] = (part * (1 - share) + letter * share + 0.5).astype(np.uint8)
    return place


def _ink(mark: Mark, letters: int, room: int) -> npt.NDArray[np.uint8]:
    """The label's letters: all of it, or the text alone, or as much as there is room for."""
    both = "  ".join(part for part in (mark.text, mark.more) if part)
    whole = mask(both, letters)
    if whole.shape[1] <= room or not mark.text:
        return whole[:, : max(1, room)]
    text = mark.text
    while len(text) > 1 and mask(text, letters).shape[1] > room:
        text = text[:-2].rstrip() + "." if text.endswith(".") else text[:-1].rstrip() + "."
    return mask(text, letters)[:, : max(1, room)]


def _place(
    mark: Mark, width: int, height: int, stroke: int, frame_width: int, frame_height: int,
    taken: list[tuple[int, int, int, int]],
) -> tuple[int, int, int, int]:  # fmt: skip
    """Left, top, right, bottom of a label: above its box, else below, else inside, where nothing else is written."""
    x0, y0, x1, y1 = _corners(mark)
    left = int(np.clip(x0 - stroke, 1, max(1, frame_width - width - 1)))
    right = int(np.clip(x1 + stroke - width, 1, max(1, frame_width - width - 1)))
    above, below, inside = y0 - 2 * stroke - height, y1 + 2 * stroke + 1, y0 + 2 * stroke
    places = [(at, top) for top in (above, below, inside) for at in (left, right)]
    fitting = [p for p in places if p[1] >= 1 and p[1] + height < frame_height]
    free = [
        (x, y) for x, y in fitting
        if not any(x < other[2] and other[0] < x + width and y < other[3] and other[1] < y + height for other in taken)
    ]  # fmt: skip
    at, top = next(iter(free or fitting), (left, int(np.clip(above, 1, max(1, frame_height - height - 1)))))
    return at, top, at + width, top + height

"""Two pictures side by side, with lines between the points that match."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.media.film.lettering import drawable, mask
from pipeline.media.picture import resized

Pixels = npt.NDArray[np.uint8]

INLIER = (0, 235, 255)
"""Colour of matches that agree with the geometry of the pair. It differs from OTHER in brightness too."""
OTHER = (255, 110, 30)
"""Colour of matches that do not."""
UNVERIFIED = (255, 225, 0)
"""Colour of all matches if the geometry was not verified."""
GROUND = (20, 22, 26)
_INK = np.array((235, 235, 235), np.float32)
_MOST_WIDTH = 8192
"""Most pixels of a drawing's width: two panoramas side by side get lower."""
_OPAQUE = 0.1
"""Matches for each pixel of height up to which lines are opaque. More shine through, so that the pictures stay visible;
their ends do not."""
_BITS = 4
"""Binary digits of fractions of pixels in OpenCV's coordinates."""


@dataclass(frozen=True)
class Side:
    """One picture of a pair, and its end of each match."""

    pixels: Pixels
    """uint8 (height, width, 3) RGB."""
    points: npt.NDArray[np.floating]
    """(n, 2): x, y in pixels; 0.5 is the centre of the upper left one."""


def side_by_side(
    a: Side, b: Side, inlier: npt.NDArray[np.bool_] | None, caption: str, height: int, *, letters: int | None = None
) -> Pixels:
    """Return both pictures at a common height in pixels, their matches, and a line of text below.

    `inlier`, bool (n,): which of the matches agree; None if that is not known. `letters`: height of the text in
    pixels; by default it goes by `height`, and 0 leaves the text out.
    """
    shares = [side.pixels.shape[1] / side.pixels.shape[0] for side in (a, b)]
    height = max(1, min(height, round(_MOST_WIDTH / sum(shares))))
    widths = [min(_MOST_WIDTH, max(1, round(height * share))) for share in shares]
    gap = max(2, height // 120)
    canvas = np.full((height, widths[0] + gap + widths[1], 3), GROUND, np.uint8)
    canvas[:, : widths[0]] = resized(a.pixels, widths[0], height)
    canvas[:, widths[0] + gap :] = resized(b.pixels, widths[1], height)
    ends = [  # places in the scaled picture; 0 is the centre of the first pixel
        np.asarray(side.points, np.float64) * np.divide((width, height), side.pixels.shape[1::-1]) - 0.5
        for side, width in zip((a, b), widths, strict=True)
    ]
    ends[1][:, 0] += widths[0] + gap
    drawn = canvas.copy()
    if inlier is None:
        parts = [(ends, UNVERIFIED)]
    else:  # inliers last, above the others
        parts = [([end[~inlier] for end in ends], OTHER), ([end[inlier] for end in ends], INLIER)]
    stroke = max(1, round(height / 1000))
    for (start, stop), colour in parts:
        for one, other in zip(_fixed(start), _fixed(stop), strict=True):
            cv2.line(drawn, one, other, colour, stroke, cv2.LINE_AA, _BITS)
    opacity = min(1.0, float(np.sqrt(height * _OPAQUE / max(1, len(a.points)))))
    canvas = cv2.addWeighted(drawn, opacity, canvas, 1 - opacity, 0)
    for both, colour in parts:
        for place in _fixed(np.concatenate(both)):
            cv2.circle(canvas, place, (1 + stroke) << _BITS, colour, -1, cv2.LINE_AA, _BITS)
    letters = max(13, height // 40) if letters is None else letters
    return np.concatenate([canvas, _text(caption, letters, canvas.shape[1])]) if letters else canvas


def _fixed(places: npt.NDArray[np.float64]) -> list[list[int]]:
    """Return places in OpenCV's fixed-point numbers; those far outside, in damaged stores, come nearer."""
    found = np.clip(np.nan_to_num(places) * (1 << _BITS), -(1 << 20), 1 << 20).round().astype(np.int64)
    return found.tolist()  # type: ignore[no-any-return]


def _text(text: str, letters: int, width: int) -> Pixels:
    """Return a strip with the text, in smaller letters if that makes it fit, else cut off."""
    pad = letters // 2
    shown = drawable(text, text)
    ink = mask(shown, letters)
    if ink.shape[1] > width - 2 * pad:
        ink = mask(shown, max(9, letters * (width - 2 * pad) // ink.shape[1]))
    strip = np.full((ink.shape[0] + pad, width, 3), GROUND, np.uint8)
    part = ink[:, : max(0, width - 2 * pad)]
    place = strip[pad // 2 : pad // 2 + len(part), pad : pad + part.shape[1]]
    share = part[:, : place.shape[1], None].astype(np.float32) / 255
    place[:] = (place * (1 - share) + _INK * share + 0.5).astype(np.uint8)
    return strip

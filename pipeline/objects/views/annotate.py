"""Films and pictures with boxes of objects: classes, tracks with their trails, and what lines and zones counted."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt

from pipeline.media.film.drawing import Colour, Mark, Shape, colour_of, draw
from pipeline.media.film.lettering import drawable
from pipeline.media.film.whereabouts import DRAWN, Boxes, Ints, Reach, between, read_found
from pipeline.media.spans import is_timed, item_numbers
from pipeline.objects.views.columns import counters_of
from pipeline.store.read import RunInput
from pipeline.store.schema import Array
from pipeline.views.annotate import Painter, Pixels

_LINE: Colour = (255, 200, 0)
_ZONE: Colour = (90, 220, 255)
_ARROW = 0.08
"""Most length of an arrow, in shorter sides of the picture."""


class ObjectPainter(Painter):
    """Draws boxes with class and track, a colour for each track or else class, trails, lines and zones."""

    axis: ClassVar[str] = "object"
    reaches: ClassVar[tuple[Reach, ...]] = (DRAWN,)

    def __init__(self, item: RunInput, *, scores: bool = False, trail_seconds: float = 1.0) -> None:
        arrays = item.arrays
        read = item.read([name for name in ("class", "track", "score") if name in arrays])
        n = len(next(iter(read.values()), ()))
        code = read.get("class", np.full(n, -1)).astype(np.int32)
        super().__init__(item, read_found(item, self.axis, code))
        n = len(self.found)
        self._class = code
        self._track = read["track"] if "track" in read and is_timed(item) else np.full(n, -1)
        self._score = read["score"] if scores and "score" in read else None
        classes = arrays["class"].attributes.get("class_names", ()) if "class" in arrays else ()
        self._names = [drawable(str(name), f"class {number}") for number, name in enumerate(classes)]
        self._trail_seconds = trail_seconds
        self._counters = _counters(item)
        # Rows of each track in order of time, one track after the other.
        self._by_track = np.lexsort((self.found.rank, self._track))
        self._ranks = self.found.rank[self._by_track]
        self._ends = np.searchsorted(self._track[self._by_track], np.arange(int(self._track.max(initial=-1)) + 2))

    def change(self, rank: int, frame_rgb: Pixels, *on: Ints) -> None:
        (which,) = on
        rows = self.legs[0].nearest(self.found, which, rank)
        boxes = between(self.found, self.legs[0], which, rank)
        shapes = [shape for counter in self._counters for shape in counter.shapes(rank)]
        shapes += [self._trail(row, box, rank) for row, box in zip(rows.tolist(), boxes, strict=True)]
        draw(frame_rgb, [self._mark(row, box) for row, box in zip(rows.tolist(), boxes, strict=True)], shapes)

    def _mark(self, row: int, box: Boxes) -> Mark:
        number, track = int(self._class[row]), int(self._track[row])
        name = self._names[number] if 0 <= number < len(self._names) else self.axis
        text = name if track < 0 else f"{name} #{track}"
        more = "" if self._score is None or np.isnan(self._score[row]) else f"{self._score[row]:.2f}"
        return Mark(tuple(box.tolist()), self._colour(row), text, more)

    def _colour(self, row: int) -> Colour:
        track = int(self._track[row])
        return colour_of(track if track >= 0 else max(0, int(self._class[row])))

    def _trail(self, row: int, box: Boxes, rank: int) -> Shape:
        """Return the way of a track up to its box on this frame, by the middles of the lower sides of its boxes."""
        track = int(self._track[row])
        if track < 0 or not self._trail_seconds:
            return Shape(np.empty((0, 2)), self._colour(row))
        begin, end = self._ends[track : track + 2].tolist()
        oldest = np.searchsorted(self.times, self.times[rank] - self._trail_seconds)
        first, last = begin + np.searchsorted(self._ranks[begin:end], [oldest, rank])
        boxes = np.vstack([self.found.box[self._by_track[first:last]], box])
        return Shape(boxes[:, :2] + boxes[:, 2:] * (0.5, 1.0), self._colour(row))


class _Counter:
    """The lines or the zones of an input, and their counts up to each frame."""

    def __init__(self, item: RunInput, array: Array, ranks: Ints) -> None:
        self._ranks, self._is_lines = ranks, array.name == "crossings"
        kind = "line" if self._is_lines else "zone"
        facts = item.attributes
        self._side = min(facts.get("width") or np.inf, facts.get("height") or np.inf)
        names = array.attributes[f"{kind}_names"]
        self._names = [drawable(str(name), f"{kind} {number}") for number, name in enumerate(names, start=1)]
        self._points = [np.array(points, np.float64) for points in array.attributes.get(f"{kind}s", ())]
        values: npt.NDArray[np.int64] = item.array(array.name).astype(np.int64)
        self._values = values.cumsum(axis=0) if self._is_lines else values

    def shapes(self, rank: int) -> list[Shape]:
        """Return the lines with all crossings so far, or the zones with what was inside last."""
        at = int(np.searchsorted(self._ranks, rank, side="right")) - 1
        values = self._values[at] if at >= 0 else np.zeros_like(self._values[0])
        made = []
        for name, points, count in zip(self._names, self._points, values.tolist(), strict=False):
            text = f"{name}: in {count[0]}, out {count[1]}" if self._is_lines else f"{name}: {count} inside"
            made.append(Shape(points, _LINE if self._is_lines else _ZONE, text, is_closed=not self._is_lines))
            made += [Shape(_arrow(points, self._side), _LINE)] if self._is_lines else []
        return made


def _arrow(line: npt.NDArray[np.float64], side: float) -> npt.NDArray[np.float64]:
    """Return the points of an arrow from the longest piece of a line to the side that is `in`: right of its way.

    `side`: the shorter side of the picture.
    """
    ways = np.diff(line, axis=0)
    longest = int(np.hypot(*ways.T).argmax())
    length = float(np.hypot(*ways[longest]))
    along = ways[longest] / max(length, 1e-9)
    across = np.array([-along[1], along[0]])
    middle, reach = line[longest] + ways[longest] / 2, min(length / 4, _ARROW * side)
    tip = middle + reach * across
    return np.stack([middle, tip, tip - reach / 3 * (across + along), tip, tip - reach / 3 * (across - along)])


def _counters(item: RunInput) -> list[_Counter]:
    there = counters_of(item)
    ranks = item_numbers(item) if there else np.empty(0, np.int64)
    return [_Counter(item, array, ranks) for array in there if len(ranks)]

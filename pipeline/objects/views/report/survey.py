"""The objects of one input in a report: each class over time, its tracks, and good pictures of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipeline.media.spans import item_numbers
from pipeline.views.report.crops import Candidate
from pipeline.views.report.survey import Surveyed
from pipeline.views.tables.rows import Block

WANTED = ("class", "box", "score", "track")
CURVE = 150
"""Most steps of the curve of a class."""
PICTURES = 6
"""Pictures of each class."""
_CANDIDATES = 500
"""Objects of a class and an input that are kept to choose from."""
_GOOD_SIZE = 160.0
"""Pixels beyond which a larger object makes no better picture."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass
class OfClass:
    """The objects of one class in one input."""

    objects: int = 0
    most: int = 0
    """Most in one frame or picture."""
    first: float = np.inf
    last: float = -np.inf
    """Time of the first and the last one, or number of the picture."""
    tracks: set[int] = field(default_factory=set)
    candidates: list[tuple[int, Candidate]] = field(default_factory=list)
    """Track, -1 for none, and the object: the best of each track."""
    mean: list[float] = field(default_factory=list)
    """Objects per frame over time, in up to CURVE steps."""
    spans: list[tuple[float, float]] = field(default_factory=list)
    """Stretches of time with such an object."""
    seconds: float = 0.0
    """Length of these, frame by frame; of pictures their number."""


class Look:
    """Goes through the objects of one input."""

    def __init__(self, one: Surveyed) -> None:
        array = one.item.arrays.get("class")
        names = array.attributes.get("class_names", ()) if array is not None else ()
        self.one, self.names = one, [str(name) for name in names] or ["object"]
        self.found = [OfClass() for _ in self.names]
        self.bins = one.bins()
        self._at = self.bins.of(one.time)
        self._numbers = item_numbers(one.item)
        self._stands = one.stands()
        self._sums = np.zeros((len(self.names), self.bins.n), np.int64)
        self._item = 0

    def add(self, block: Block) -> None:
        """Take the next objects."""
        number = np.clip(block.arrays.get("class", np.zeros(block.n_rows, np.int64)), 0, len(self.names) - 1)
        item = block.item_of_row
        items = slice(self._item, self._item + block.n_items)
        track = block.arrays.get("track", np.full(block.n_rows, -1))
        for label in np.unique(number).tolist():
            rows = np.flatnonzero(number == label)
            each = np.bincount(item[rows], minlength=block.n_items)
            found, seen = self.found[label], np.flatnonzero(each)
            times = self.one.time[items][seen]
            found.objects += len(rows)
            found.most = max(found.most, int(each.max()))
            found.first, found.last = min(found.first, float(times[0])), max(found.last, float(times[-1]))
            found.seconds += float(self._stands[items][seen].sum())
            found.tracks.update(np.unique(track[rows][track[rows] >= 0]).tolist())
            np.add.at(self._sums[label], self._at[items], each)
            self._keep_best(found, block, rows, item, track)
        self._item += block.n_items

    def _keep_best(self, found: OfClass, block: Block, rows: Ints, item: Ints, track: npt.NDArray[np.int32]) -> None:
        """Keep the best object of each track; of objects without one the best, in different frames."""
        if "box" not in block.arrays:
            return
        box = block.arrays["box"][rows].astype(np.float64)
        score = np.minimum(np.sqrt(np.maximum(box[:, 2] * box[:, 3], 0)), _GOOD_SIZE)
        if "score" in block.arrays:
            score *= np.nan_to_num(block.arrays["score"][rows], nan=0.01)
        # Without a track an object stands for those of a tenth of the block's frames.
        part = -1 - item[rows] * 10 // max(1, block.n_items)
        group = np.where(track[rows] >= 0, track[rows], part)
        order = np.lexsort((-score, group))
        for k in order[np.flatnonzero(np.diff(group[order], prepend=group.min(initial=0) - 1))].tolist():
            rank = int(self._numbers[self._item + item[rows[k]]])
            x, y, w, h = box[k].tolist()
            found.candidates.append((int(track[rows[k]]), Candidate(float(score[k]), rank, (x, y, w, h))))
        if len(found.candidates) > 2 * _CANDIDATES:
            found.candidates = sorted(found.candidates, key=lambda entry: -entry[1].score)[:_CANDIDATES]

    def finish(self) -> Look:
        """Put what was counted together."""
        steps = np.arange(0, self.bins.n, -(-self.bins.n // CURVE))
        items = np.maximum(np.add.reduceat(np.bincount(self._at, minlength=self.bins.n), steps), 1)
        width = (self.bins.stop - self.bins.start) / self.bins.n
        for found, sums in zip(self.found, self._sums, strict=True):
            if not found.objects:
                continue
            found.mean = np.round(np.add.reduceat(sums, steps) / items, 2).tolist()
            edges = np.flatnonzero(np.diff(np.concatenate([[0], sums > 0, [0]])))
            edges_seconds = self.bins.start + edges.reshape(-1, 2) * width
            found.spans = [(float(begin), float(end)) for begin, end in edges_seconds]
        return self


def best(found: list[tuple[int, int, Candidate]], most: int = PICTURES) -> list[tuple[int, Candidate]]:
    """Return input and object of the best pictures, given as input, track and object: one of each track."""
    chosen: dict[tuple[int, int, int], tuple[int, Candidate]] = {}
    for place, track, one in sorted(found, key=lambda entry: -entry[2].score):
        chosen.setdefault((place, track, one.rank if track < 0 else 0), (place, one))
    return list(chosen.values())[:most]

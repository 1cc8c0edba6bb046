"""The panel of an axis that no domain has a panel for: rows per item, and how many rows there are of each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.text import plural_of
from pipeline.views.report.panel import About, Content, InputContent, Panel, Section, fill
from pipeline.views.report.series import Histogram
from pipeline.views.tables.rows import Block

if TYPE_CHECKING:
    from pipeline.views.report.survey import Surveyed

SPREAD_EDGES = np.arange(0.0, 33.0)
"""Edges of the histogram of rows per item: 0, 1, 2, ...; they grow with what is found."""
SHOWN_CLASSES = 12
"""Most classes of one array with a bar of their own, the most frequent ones; the others share one."""


class PlainPanel(Panel):
    """How many rows an item has, and how many rows have each class of arrays with `class_names`."""

    def __init__(self, about: About, axis: str, item: str) -> None:
        super().__init__(about)
        self.axis, self.item = axis, item
        self.spread = Histogram(SPREAD_EDGES, grows=True)
        self.classes: dict[str, dict[str, int]] = {}
        """Rows by class, by array."""

    def start(self, one: Surveyed) -> Sequence[str]:
        return list(self._names(one))

    def add(self, one: Surveyed, block: Block) -> None:
        if block.counts is not None:
            self.spread.add(block.counts.astype(np.float64))
        for array, names in self._names(one).items():
            numbers = block.arrays[array]
            known = numbers[(numbers >= 0) & (numbers < len(names))]
            found = self.classes.setdefault(array, {})
            for name, count in zip(names, np.bincount(known, minlength=len(names)).tolist(), strict=True):
                found[name] = found.get(name, 0) + count

    def content(self, inputs: Sequence[Surveyed]) -> Content:
        noun, drawn = plural_of(self.axis), self.spread.drawn()
        shown = fill(
            __package__, "plain.html", noun=noun, item=self.item, items=plural_of(self.item),
            is_found=bool(drawn["counts"]), classes={array: _shares(found) for array, found in self.classes.items()},
        )  # fmt: skip
        return Content(
            [InputContent() for _ in inputs],
            sections=[Section(noun, noun.capitalize(), shown)],
            histograms={noun: {**drawn, "noun": plural_of(self.item)}},
        )

    def _names(self, one: Surveyed) -> dict[str, list[str]]:
        """Return the class names of each array of class numbers along the axis."""
        return {
            name: [str(text) for text in array.attributes["class_names"]]
            for name, array in one.item.arrays.items()
            if array.dims == (self.axis,) and "class_names" in array.attributes and "int" in array.dtype
        }


def _shares(found: dict[str, int]) -> list[dict[str, Any]]:
    """Return name, count and percent of each class that occurs, the most frequent first."""
    ordered = sorted((entry for entry in found.items() if entry[1]), key=lambda entry: -entry[1])
    rest = sum(count for _, count in ordered[SHOWN_CLASSES:])
    shown = [*ordered[:SHOWN_CLASSES], *([("others", rest)] if rest else [])]
    total = sum(count for _, count in ordered) or 1
    return [{"name": name, "count": count, "percent": 100 * count / total} for name, count in shown]

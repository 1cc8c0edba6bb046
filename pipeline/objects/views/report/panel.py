"""The objects' part of a report: which classes there are, when and how many, and what lines and zones counted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.media.picture import resized
from pipeline.media.reread import Pixels
from pipeline.objects.views.columns import counters_of
from pipeline.objects.views.counts import Stretches, stretches
from pipeline.objects.views.report.survey import WANTED, Look, OfClass, best
from pipeline.text import clock
from pipeline.views.report.content import lasting
from pipeline.views.report.crops import Candidate, cut
from pipeline.views.report.panel import (
    About,
    Content,
    InputContent,
    Lanes,
    Section,
    Tile,
    coded,
    counted,
    fill,
    grouped,
    text_of,
)
from pipeline.views.report.plain import SHOWN_CLASSES, PlainPanel
from pipeline.views.report.survey import Surveyed
from pipeline.views.tables.rows import Block

SHOWN_INPUTS = 24
"""Most inputs with tables and charts of their own."""
_HEIGHT, _MARGIN = 96, 0.06
"""Height of pictures in pixels, and the margin around an object, in parts of its box."""
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 86400)
"""Seconds that one bar of a chart of counts may stand for."""
_BARS = 120
"""Most bars of such a chart."""
_WIDE, _TALL = 600, 60
"""Size of a chart in units of its own."""


class ObjectsPanel(PlainPanel):
    """Classes with pictures and lanes of time, counts of lines and zones."""

    axis = "object"

    def __init__(self, about: About) -> None:
        super().__init__(about, "object", "frame")
        self._look: Look | None = None
        self._seen: dict[int, Look] = {}

    def start(self, one: Surveyed) -> Sequence[str]:
        self._look, self.item = Look(one), one.noun
        return [*WANTED, *super().start(one)]

    def add(self, one: Surveyed, block: Block) -> None:
        super().add(one, block)
        assert self._look is not None
        self._look.add(block)

    def finish(self, one: Surveyed) -> None:
        assert self._look is not None
        self._seen[id(one)] = self._look.finish()

    def content(self, inputs: Sequence[Surveyed]) -> Content:
        plain = super().content(inputs)
        seen = [self._seen.get(id(one)) for one in inputs]
        totals = _totals(seen)
        names = list(totals)
        if not names:
            return plain
        tracks = sum(len(one.tracks) for parts in totals.values() for _, one in parts)
        tables = [(one, self._table(one, look, names)) for one, look in zip(inputs, seen, strict=True) if look]
        cards = fill(
            __package__, "classes.html", classes=self._cards(totals, inputs), rest=[
                {"name": name, "objects": _objects(totals[name])} for name in names[SHOWN_CLASSES:]
            ],
        )  # fmt: skip
        of_inputs = fill(
            __package__, "objects.html", noun=self.item, wide=_WIDE, tall=_TALL, beyond=len(tables[SHOWN_INPUTS:]),
            inputs=[
                {"name": self.about.name_of(one), "classes": rows, "timed": one.is_timed,
                 "tracked": one.is_timed and "track" in one.item.arrays}
                for one, rows in tables[:SHOWN_INPUTS]
            ],
        )  # fmt: skip
        charts = [chart for one in inputs[:SHOWN_INPUTS] for chart in self._charts(one)]
        sections = [
            Section("classes", "Classes", cards, is_first=True),
            *(Section(one.id, one.title, one.html + of_inputs) for one in plain.sections),
        ]
        if charts:
            html = fill(__package__, "counts.html", charts=charts, wide=_WIDE, tall=_TALL)
            sections.append(Section("counts", "Lines and zones", html, is_first=True))
        return Content(
            inputs=[self._input(one, look, names) for one, look in zip(inputs, seen, strict=True)],
            subtitle="what is where and when",
            tiles=[Tile("classes", grouped(len(names))), *([Tile("tracks", grouped(tracks))] if tracks else [])],
            columns=["classes"],
            sections=sections,
            lanes=Lanes(
                names, "class", "classes", "all classes", "", "class-", overview="Which class is in which video",
                overview_help="the longer, the fuller the colour; choose one to open its timeline",
                help="When objects of each class were found. Move over it to see which;",
            ),
            histograms=plain.histograms,
            counts={("class", "classes"): len(names)},
            style=text_of(__package__, "objects.css"),
        )

    def _input(self, one: Surveyed, look: Look | None, names: Sequence[str]) -> InputContent:
        found = _found(look)
        rows = [
            {"of": names.index(name), "seconds": round(of.seconds, 1), "at": coded(of.spans, one.start_seconds)}
            for name, of in found
            if names.index(name) < SHOWN_CLASSES
        ]
        lanes = {"rows": rows, "others": len(found) - len(rows), "rest": []}
        if not one.is_timed:
            lanes = {"rows": [], "others": 0, "rest": []}
        return InputContent(facts=[counted(len(found), "class", "classes")], cells=[grouped(len(found))], lanes=lanes)

    def _cards(self, totals: dict[str, list[tuple[int, OfClass]]], inputs: Sequence[Surveyed]) -> list[dict[str, Any]]:
        shown = list(totals.items())[:SHOWN_CLASSES]
        most = _objects(shown[0][1])
        wanted: list[tuple[int, Candidate]] = []
        starts = []
        for _, parts in shown:
            starts.append(len(wanted))
            every = [(place, track, one) for place, found in parts for track, one in found.candidates]
            wanted += best(every) if self.about.pictures else []
        pictures = cut([(inputs[place].item, one) for place, one in wanted], _crop)
        return [
            {
                "name": name, "number": number, "objects": _objects(parts), "share": _objects(parts) / most,
                "tracks": sum(len(one.tracks) for _, one in parts), "most": max(one.most for _, one in parts),
                "inputs": len(parts), "item": self.item,
                "pictures": [*filter(None, pictures[start:stop])],
            }
            for number, ((name, parts), start, stop) in enumerate(
                zip(shown, starts, [*starts[1:], len(wanted)], strict=True)
            )
        ]  # fmt: skip

    def _table(self, one: Surveyed, look: Look, names: Sequence[str]) -> list[dict[str, Any]]:
        found = _found(look)
        most = max((value for _, of in found for value in of.mean), default=1.0) or 1.0

        def when(at: float) -> str:
            return clock(at)[:-4] if one.is_timed else grouped(int(at) + 1)

        return [
            {
                "name": name, "number": names.index(name), "objects": of.objects, "tracks": len(of.tracks),
                "most": of.most,
                "first": when(of.first), "last": when(of.last),
                "shown": f"{lasting(of.seconds)}" if one.is_timed else "",
                "path": _steps(np.array(of.mean) / most),
                "alt": f"{name}: up to {max(of.mean):g} per {self.item}",
            }
            for name, of in found[:SHOWN_CLASSES]
        ]  # fmt: skip

    def _charts(self, one: Surveyed) -> list[dict[str, Any]]:
        """Return the charts of an input: one for each line, and one for each zone."""
        if not one.is_timed or not counters_of(one.item):
            return []
        # A bar usually holds a frame: one without would look like nothing inside.
        apart = float(np.median(np.diff(one.time))) if len(one.time) > 1 else 0.0
        least = max((one.stop_seconds - one.start_seconds) / _BARS, apart)
        seconds = next((step for step in _STEPS if step >= least), _STEPS[-1])
        found = stretches(one.item, seconds)
        first = int(one.start_seconds // seconds)
        n = max(1, int(np.ceil(one.stop_seconds / seconds)) - first)
        usual = {
            "input": self.about.name_of(one) if self.about.n_inputs > 1 else "",
            "per": lasting(seconds) if seconds >= 60 else f"{seconds} s",
            "from": clock(one.start_seconds)[:-4], "to": clock(one.stop_seconds)[:-4],
        }  # fmt: skip
        names = [name.removesuffix("_in") for name in found.crossed if name.endswith("_in")]
        lines = [usual | _line_chart(name, found, first, n) for name in names]
        return lines + [usual | _zone_chart(name, found, first, n) for name in found.inside]


def _totals(seen: Sequence[Look | None]) -> dict[str, list[tuple[int, OfClass]]]:
    """Return the place of each input that has a class, and what was found of it; the most frequent class first."""
    totals: dict[str, list[tuple[int, OfClass]]] = defaultdict(list)
    for place, look in enumerate(seen):
        for name, found in _found(look):
            totals[name].append((place, found))
    return dict(sorted(totals.items(), key=lambda entry: -_objects(entry[1])))


def _found(look: Look | None) -> list[tuple[str, OfClass]]:
    """Return the classes of an input that occur, the most frequent first."""
    pairs = zip(look.names, look.found, strict=True) if look is not None else ()
    return sorted(((name, found) for name, found in pairs if found.objects), key=lambda entry: -entry[1].objects)


def _objects(parts: Sequence[tuple[int, OfClass]]) -> int:
    return sum(found.objects for _, found in parts)


def _crop(frame: Pixels, box: npt.NDArray[Any]) -> Pixels:
    """Return an object with a small margin, at one height."""
    low = np.floor(box[:2] - _MARGIN * box[2:]).astype(int).clip(0, None)
    high = np.ceil(box[:2] + (1 + _MARGIN) * box[2:]).astype(int)
    part = frame[low[1] : max(high[1], low[1] + 1), low[0] : max(high[0], low[0] + 1)]
    if not part.size:
        part = frame[-1:, -1:]
    width = round(_HEIGHT * part.shape[1] / part.shape[0])
    return resized(part, max(_HEIGHT // 3, min(3 * _HEIGHT, width)), _HEIGHT)


def _steps(share: npt.NDArray[np.float64], tall: float = _TALL) -> str:
    """Return the path of an area of steps: `share` (n,) from 0 to 1 of the height, from left to right."""
    edges = np.round(np.linspace(0, _WIDE, len(share) + 1), 1).tolist()
    heights = np.round(tall * (1 - share), 1).tolist()
    inner = "".join(f"V{y:g}H{x:g}" for y, x in zip(heights, edges[1:], strict=True))
    return f"M0 {tall:g}{inner}V{tall:g}z"


def _spread(found: Stretches, values: npt.NDArray[Any], first: int, n: int) -> npt.NDArray[np.float64]:
    """Return float64 (n,): the values at their stretches from `first` on, 0 elsewhere."""
    spread = np.zeros(n)
    spread[np.clip(found.number - first, 0, n - 1)] = values
    return spread


def _line_chart(name: str, found: Stretches, first: int, n: int) -> dict[str, Any]:
    ways = [_spread(found, found.crossed[f"{name}_{way}"], first, n) for way in ("in", "out")]
    most = max(1.0, float(np.max(ways)))
    up, down = (_steps(way / most, _TALL / 2) for way in ways)
    enters, leaves = (int(way.sum()) for way in ways)
    return {
        "name": name, "kind": "line", "most": int(most), "up": up, "down": down,
        "facts": [("in", enters), ("out", leaves)],
        "alt": f"line {name}: {enters} in, {leaves} out, up to {int(most)} in one bar",
    }  # fmt: skip


def _zone_chart(name: str, found: Stretches, first: int, n: int) -> dict[str, Any]:
    mean, most = (_spread(found, values, first, n) for values in found.inside[name])
    top = max(1.0, float(most.max()))
    average = float(np.average(found.inside[name][0], weights=found.frames)) if len(found.frames) else 0.0
    zone = name.removesuffix("_inside")
    return {
        "name": zone, "kind": "zone", "most": int(top), "up": _steps(mean / top), "down": _steps(most / top),
        "facts": [("mean inside", f"{average:.2g}"), ("most", int(most.max(initial=0)))],
        "alt": f"zone {zone}: {average:.2g} inside on average, {int(most.max(initial=0))} at most",
    }  # fmt: skip

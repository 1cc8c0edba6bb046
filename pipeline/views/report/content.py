"""The content of the page, as plain values: texts for the template, numbers for the charts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pipeline.media.spans import length_of
from pipeline.models.card import NO_WEIGHTS
from pipeline.models.catalogue import cards
from pipeline.store.read import Run
from pipeline.text import clock, duration, plural, plural_of
from pipeline.version import __version__
from pipeline.views.report.panel import About, Content, InputContent, Tile, counted, grouped
from pipeline.views.report.survey import Surveyed

if TYPE_CHECKING:
    from pipeline.views.report.panel import Panel

SHOWN_FAILURES = 50
"""Most failures listed of one input."""
_RESTRICTED = re.compile(r"non.?commercial|research|\bNC\b|academic", re.IGNORECASE)
_COPYLEFT = re.compile(r"\bA?GPL", re.IGNORECASE)
_EMPTY_LICENCE = ("", "unknown", "none")


def content(
    about: About, inputs: Sequence[Surveyed], axes: Sequence[str], item: str, panels: Sequence[Panel]
) -> dict[str, Any]:
    """Return the template's values; `charts` is what the page's script draws."""
    runs = about.runs
    made = [panel.content(inputs) for panel in panels]
    sections = [section for one in made for section in one.sections]
    words = Words(inputs, item)
    totals = _totals(about, inputs, axes, item)
    return {
        "title": runs[0].path.name if len(runs) == 1 else plural(len(runs), "store"),
        "subtitle": next((one.subtitle for one in made if one.subtitle), "report"),
        "stores": [str(run.path) for run in runs],
        "created": sorted({str(run.attributes.get("created") or "") for run in runs}),
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "version": __version__,
        "store_versions": sorted({str(run.attributes.get("reelgraph", "?")) for run in runs}),
        "words": words,
        "totals": totals,
        "tiles": _tiles(totals, axes, made, words),
        "first_sections": [section for section in sections if section.is_first],
        "sections": [section for section in sections if not section.is_first],
        "timeline_help": _timeline_help(axes, item, made, words),
        "overview": next((one.lanes for one in made if one.lanes and one.lanes.overview and one.lanes.names), None),
        "axes": [{"name": axis, "plural": plural_of(axis)} for axis in axes],
        "columns": [column for one in made for column in one.columns],
        "is_drawn": not inputs or any(one.is_timed for one in inputs),  # the others have no timeline
        "inputs": [_input(about, one, axes, [of.inputs[k] for of in made], k, totals) for k, one in enumerate(inputs)],
        "failures": _failures(about, inputs, words),
        "retry": any(failure["kind"] == "failed" for one in inputs for failure in one.failures),
        "unusable": [entry for run in runs for entry in run.attributes.get("unusable", [])],
        "speeds": [speed for run in runs if (speed := _speed(run, len(runs) > 1))],
        "models": _models(runs, panels),
        "style": "\n".join(one.style for one in made),
        "script": "\n".join(one.script for one in made),
        "charts": {
            "names": [about.name_of(one) for one in inputs],
            "item": item,
            "items": plural_of(item),
            "plurals": {axis: plural_of(axis) for axis in axes},
            "lanes": [one.lanes.as_dict() for one in made if one.lanes],
            "inputs": [_charts(one, [of.inputs[k] for of in made]) for k, one in enumerate(inputs)],
            "histograms": {name: drawn for one in made for name, drawn in one.histograms.items()},
        },
        "counts": {name: count for one in made for name, count in one.counts.items()},
    }


def _timeline_help(axes: Sequence[str], item: str, made: Sequence[Content], words: Words) -> str:
    """Return what the timelines show, up to a semicolon."""
    if not axes:
        return f"The {words.items} that are done;"
    shown = next((one.lanes.help for one in made if one.lanes), "")
    return shown or f"Rows per {item}{' over time' if words.is_timed else ''}. Move over it to see how many;"


class Words:
    """Nouns of the page's items."""

    def __init__(self, inputs: Sequence[Surveyed], item: str) -> None:
        self.is_timed = all(one.is_timed for one in inputs if one.noun == item)
        self.noun_one, self.noun = item, plural_of(item)
        self.item = f"sampled {item}" if self.is_timed else item
        self.items = plural_of(self.item)
        further = dict.fromkeys(one.noun for one in inputs if one.noun != item)
        self.all = " and ".join([self.items, *map(plural_of, further)])
        """Items of all passes: "pictures and pairs"."""

    def of(self, one: Surveyed) -> tuple[str, str]:
        """Return the words for one item and for several items of an input."""
        return (self.item, self.items) if one.noun == self.noun_one else (one.noun, plural_of(one.noun))


def _totals(about: About, inputs: Sequence[Surveyed], axes: Sequence[str], item: str) -> dict[str, Any]:
    nouns = list(dict.fromkeys([item, *(one.noun for one in inputs)]))
    totals, dones = (
        [sum(getattr(one.item, name) for one in inputs if one.noun == noun) for noun in nouns]
        for name in ("frames_total", "frames_done")
    )
    total, done = sum(totals), sum(dones)
    seconds = sum(length_of(one.facts) for one in inputs)
    share = done / total if total else float(bool(inputs) and all(one.item.complete for one in inputs))
    return {
        "stores": len(about.runs),
        "inputs": len(inputs),
        "video": lasting(seconds) if seconds else "",
        "items": dones[0],
        "items_total": totals[0],
        "further": [
            {"noun": noun, "plural": plural_of(noun), "items": count, "items_total": most}
            for noun, count, most in zip(nouns[1:], dones[1:], totals[1:], strict=True)
        ],
        "items_of": {axis: _items_of(axis, inputs) for axis in axes},
        "rows": {axis: sum(one.rows.get(axis, 0) for one in inputs) for axis in axes},
        "share": share,
        # Rounded down: 100% means all of it.
        "percent": int(share * 1000) / 10,
    }


def _items_of(axis: str, inputs: Sequence[Surveyed]) -> tuple[str, int]:
    """Return what the rows of an axis belong to: the name of one item, and how many of them are done."""
    noun = next((one.noun for one in inputs if axis in one.rows), inputs[0].noun if inputs else "")
    return noun, sum(one.item.frames_done for one in inputs if one.noun == noun)


def _tiles(totals: dict[str, Any], axes: Sequence[str], made: Sequence[Content], words: Words) -> list[Tile]:
    notes = {axis: note for one in made for axis, note in one.notes.items()}
    tiles = [tile for one in made for tile in one.tiles]
    for axis in axes:
        rows = totals["rows"][axis]
        noun, items = totals["items_of"][axis]
        each = f"{_few(rows / items)} per {noun}" if items else ""
        tiles.append(Tile(plural_of(axis), grouped(rows), notes.get(axis) or each))
    tiles.append(Tile(words.items, grouped(totals["items"]), f"of {grouped(totals['items_total'])}"))
    more = [(one["plural"], grouped(one["items"]), f"of {grouped(one['items_total'])}") for one in totals["further"]]
    return [*tiles, *(Tile(*one) for one in more)]


def _few(number: float) -> str:
    """Return a number in two digits, or whole: "0.25", "73", "2 048"."""
    return f"{number:.2g}" if number < 100 else grouped(round(number))


def _input(
    about: About, one: Surveyed, axes: Sequence[str], made: Sequence[InputContent], number: int, totals: dict[str, Any]
) -> dict[str, Any]:
    facts, item = one.facts, one.item
    share = item.done_share
    size = f"{facts['width']}×{facts['height']}" if facts.get("width") else ""
    seconds = length_of(facts)
    shown = [lasting(seconds)] if seconds else []
    shown += [text for of in made for text in of.facts]
    shown += [counted(one.rows.get(axis, 0), axis, plural_of(axis)) for axis in axes]
    return {
        "name": about.name_of(one),
        "number": number,
        "timed": one.is_timed,
        "path": facts.get("path", ""),
        "duration": lasting(seconds) if seconds else "",
        "picture": ", ".join(
            filter(None, [size, f"{facts['fps']:.4g} fps" if facts.get("fps") else "", _text(facts.get("codec"))])
        ),
        "facts": shown,
        "noun": one.noun,
        "items": item.frames_done,
        "rows": [grouped(one.rows.get(axis, 0)) if totals["items_of"][axis][0] == one.noun else "" for axis in axes],
        "cells": [cell for of in made for cell in of.cells],
        "percent": int(share * 1000) / 10,
        "failed": sum(1 for failure in one.failures if failure["kind"] == "failed"),
        "unread": sum(failure["items"] or 0 for failure in one.failures if failure["kind"] == "unread"),
        "complete": share == 1,
    }


def lasting(seconds: float) -> str:
    """Return a duration in short words, without zeros: 30 min, 3 h."""
    return duration(seconds).replace(" 00 s", "").replace(" 00 min", "")


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _failures(about: About, inputs: Sequence[Surveyed], words: Words) -> list[dict[str, Any]]:
    """Return the first failures of each input that has some, and how many more there are."""
    found = []
    for one in inputs:
        if not one.failures:
            continue
        entries = [
            {
                "kind": "not analysed" if failure["kind"] == "failed" else f"{plural_of(one.noun)} not read",
                "range": failure["where"] or _range(failure["start"], failure["stop"], one),
                "items": counted(failure["items"], *words.of(one)) if failure["items"] else "",
                "error": failure["error"],
            }
            for failure in one.failures[:SHOWN_FAILURES]
        ]
        found.append({"name": about.name_of(one), "entries": entries, "more": len(one.failures) - len(entries)})
    return found


def _range(start: float | None, stop: float | None, one: Surveyed) -> str:
    if start is None or stop is None:
        return "time not known" if one.is_timed else "place not known"
    if not one.is_timed:
        return f"{plural_of(one.noun)} {start:.0f} to {stop:.0f}"
    return f"{clock(start)[:-4]} to {clock(stop)[:-4]}"


def _speed(run: Run, several: bool) -> dict[str, Any] | None:
    """Return the speed of the last run and its bottleneck; if the run was broken off, by its chunks."""
    attributes = run.attributes
    stored = attributes.get("speed") or {}
    steps = dict(stored.get("step_seconds") or {})
    if not steps:
        for item in run.inputs.values():
            for step, seconds in item.step_seconds.items():
                steps[step] = steps.get(step, 0.0) + seconds
    if not steps and not stored:
        return None
    total = sum(steps.values()) or 1.0
    per_item = stored.get("seconds_per_frame")
    return {
        "store": run.path.name if several else "",
        "devices": [str(device) for device in attributes.get("devices", [])],
        "items_per_second": 1 / per_item if per_item else None,
        "faster": _faster_than_life(run, per_item),
        "bottleneck": stored.get("bottleneck") or (max(steps, key=steps.__getitem__) if steps else None),
        "model_share": stored.get("model_share"),
        "steps": [
            {"name": step, "seconds": seconds, "percent": 100 * seconds / total, "shown": duration(seconds)}
            for step, seconds in sorted(steps.items(), key=lambda entry: -entry[1])
        ],
        "items": stored.get("frames"),
        "further": [
            {"rate": 1 / speed["seconds_per_item"], "plural": plural_of(noun)}
            for noun, speed in (attributes.get("further_speed") or {}).items()
            if speed.get("seconds_per_item")
        ],
    }


def _faster_than_life(run: Run, seconds_per_item: float | None) -> float | None:
    """Return the seconds of video that a second of work covers; None if the inputs have no duration."""
    if not seconds_per_item:
        return None
    items = list(run.inputs.values())
    frames = sum(item.frames_total for item in items)
    seconds = sum(length_of(item.attributes) for item in items)
    return seconds / frames / seconds_per_item if frames and seconds else None


def _models(runs: Sequence[Run], panels: Sequence[Panel]) -> list[dict[str, Any]]:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    kinds = {kind: words for panel in panels for kind, words in panel.kinds.items()}
    for run in runs:
        for model in run.attributes.get("models", []):
            name, licence = str(model.get("name", "?")), str(model.get("licence") or "")
            card = cards().get(name)
            weights = model.get("weights_sha256")
            source = _text(model.get("licence_source")) or (card.licence_source if card else "")
            found[name, str(weights)] = {
                "name": name,
                "kind": kinds.get(card.kind, card.kind) if card else "",
                "runtime": _text(model.get("runtime")),
                "sha256": "" if weights == NO_WEIGHTS else _text(weights),
                "licence": licence or "not stated",
                "source": source,
                "flag": licence_flag(licence),
                "caution": licence_flag(source) == "restricted",
            }
    return list(found.values())


def licence_flag(licence: str) -> str:
    """Return a class of licence.

    restricted: not for commercial use, or for research only; copyleft: GPL and similar; unknown; free.
    """
    if _RESTRICTED.search(licence):
        return "restricted"
    if _COPYLEFT.search(licence):
        return "copyleft"
    return "unknown" if licence.strip().lower() in _EMPTY_LICENCE else "free"


def _charts(one: Surveyed, made: Sequence[InputContent]) -> dict[str, Any]:
    """Return the numbers of one input's timeline; each series says which lanes its parts are of (`lanes`)."""
    of_lanes = [content for content in made if content.lanes is not None]
    return {
        "start": round(one.start_seconds, 3),
        "stop": round(one.stop_seconds, 3),
        "timed": one.is_timed,
        "counts": one.counts,
        "lanes": [content.lanes for content in of_lanes],
        "series": {
            title: {"followed": [], **series, "lanes": of_lanes.index(content) if content in of_lanes else None}
            for content in made
            for title, series in content.series.items()
        },
        "gaps": one.drawn_gaps(),
    }

"""What stands on the page, as plain values: texts for the template, numbers for the charts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pipeline.text import clock, duration, plural, plural_of
from pipeline.version import __version__
from pipeline.views.report.panel import About, Content, InputContent, Section, Tile, counted, grouped
from pipeline.views.report.series import Histogram
from pipeline.views.report.survey import Surveyed

if TYPE_CHECKING:
    from pipeline.store.read import Run
    from pipeline.views.report.panel import Panel

SHOWN_FAILURES = 50
"""Failures listed of one input."""
_RESTRICTED = re.compile(r"non.?commercial|research|\bNC\b|academic", re.IGNORECASE)
_COPYLEFT = re.compile(r"\bA?GPL", re.IGNORECASE)
_EMPTY_LICENCE = ("", "unknown", "none")


def content(
    about: About, inputs: Sequence[Surveyed], axes: Sequence[str], item: str, panels: Sequence[Panel],
    spread: Mapping[str, Histogram],
) -> dict[str, Any]:  # fmt: skip
    """Return what the template is filled with; `charts` is what the page's script draws."""
    runs = about.runs
    made = [panel.content(inputs) for panel in panels]
    plain = _plain(axes, item, spread)
    sections = [section for one in [*made, plain] for section in one.sections]
    words = Words(inputs, item)
    totals = _totals(about, inputs, axes, made)
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
        "timeline_help": next((one.lanes.help for one in made if one.lanes), "")
        or f"Rows per {item}{' over time' if words.is_timed else ''}. Move over it to see how many;",
        "overview": next((one.lanes for one in made if one.lanes and one.lanes.overview and one.lanes.names), None),
        "axes": [{"name": axis, "plural": plural_of(axis)} for axis in axes],
        "columns": [column for one in made for column in one.columns],
        "inputs": [_input(about, one, axes, [of.inputs[k] for of in made]) for k, one in enumerate(inputs)],
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
            "histograms": {name: drawn for one in [*made, plain] for name, drawn in one.histograms.items()},
        },
        "counts": {name: count for one in made for name, count in one.counts.items()},
    }


class Words:
    """Nouns of the page's items."""

    def __init__(self, inputs: Sequence[Surveyed], item: str) -> None:
        self.is_timed = all(one.is_timed for one in inputs)
        self.item = f"sampled {item}" if self.is_timed else item
        self.items = plural_of(self.item)


def _plain(axes: Sequence[str], item: str, spread: Mapping[str, Histogram]) -> Content:
    """Return a section for each axis that no panel is about: how many rows an item has."""
    sections, histograms = [], {}
    for axis in (axis for axis in axes if axis in spread):
        noun, drawn = plural_of(axis), spread[axis].drawn()
        drawing = f'<div class="histogram" data-of="{noun}"></div>' if drawn["counts"] else ""
        caption = f"<figcaption>{noun.capitalize()} per {item} <span>{plural_of(item)} with so many</span></figcaption>"
        body = f"<figure>{caption}{drawing}</figure>" if drawing else '<p class="small">None yet.</p>'
        sections.append(Section(noun, noun.capitalize(), body))
        histograms[noun] = {**drawn, "noun": plural_of(item)}
    return Content([], sections=sections, histograms=histograms)


def _totals(
    about: About, inputs: Sequence[Surveyed], axes: Sequence[str], made: Sequence[Content]
) -> dict[str, Any]:
    total = sum(one.item.frames_total for one in inputs)
    done = sum(one.item.frames_done for one in inputs)
    seconds = sum(float(one.facts.get("duration_seconds") or 0) for one in inputs)
    share = done / total if total else float(bool(inputs) and all(one.item.complete for one in inputs))
    return {
        "stores": len(about.runs),
        "inputs": len(inputs),
        "video": lasting(seconds) if seconds else "",
        "items": done,
        "items_total": total,
        "rows": {axis: sum(one.rows.get(axis, 0) for one in inputs) for axis in axes},
        "share": share,
        # Rounded down: 100% means all of it.
        "percent": int(share * 1000) / 10,
    }


def _tiles(totals: dict[str, Any], axes: Sequence[str], made: Sequence[Content], words: Words) -> list[Tile]:
    notes = {axis: note for one in made for axis, note in one.notes.items()}
    tiles = [tile for one in made for tile in one.tiles]
    for axis in axes:
        rows = totals["rows"][axis]
        each = f"{rows / totals['items']:.2g} per {words.item.split()[-1]}" if totals["items"] else ""
        tiles.append(Tile(plural_of(axis), grouped(rows), notes.get(axis) or each))
    return [*tiles, Tile(words.items, grouped(totals["items"]), f"of {grouped(totals['items_total'])}")]


def _input(about: About, one: Surveyed, axes: Sequence[str], made: Sequence[InputContent]) -> dict[str, Any]:
    facts, item = one.facts, one.item
    share = item.done_share
    size = f"{facts['width']}×{facts['height']}" if facts.get("width") else ""
    seconds = float(facts.get("duration_seconds") or 0)
    shown = [lasting(seconds)] if seconds else []
    shown += [text for of in made for text in of.facts]
    shown += [counted(one.rows.get(axis, 0), axis, plural_of(axis)) for axis in axes]
    return {
        "name": about.name_of(one),
        "path": facts.get("path", ""),
        "duration": lasting(seconds) if seconds else "",
        "picture": ", ".join(
            filter(None, [size, f"{facts['fps']:.4g} fps" if facts.get("fps") else "", _text(facts.get("codec"))])
        ),
        "facts": shown,
        "items": item.frames_done,
        "rows": [one.rows.get(axis, 0) for axis in axes],
        "cells": [cell for of in made for cell in of.cells],
        "percent": int(share * 1000) / 10,
        "failed": sum(1 for failure in one.failures if failure["kind"] == "failed"),
        "unread": sum(failure["items"] or 0 for failure in one.failures if failure["kind"] == "unread"),
        "complete": share == 1,
    }


def lasting(seconds: float) -> str:
    """Return a duration as a person says it, without the zeros: 30 min, 3 h."""
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
                "kind": "not analysed" if failure["kind"] == "failed" else f"{plural_of(one.item.item)} not read",
                "range": _range(failure["start"], failure["stop"], one),
                "items": counted(failure["items"], words.item, words.items) if failure["items"] else "",
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
        return f"{plural_of(one.item.item)} {start:.0f} to {stop:.0f}"
    return f"{clock(start)[:-4]} to {clock(stop)[:-4]}"


def _speed(run: Run, several: bool) -> dict[str, Any] | None:
    """Return how fast the last run went and what held it up; of a run that was broken off, what its chunks say."""
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
    }


def _faster_than_life(run: Run, seconds_per_item: float | None) -> float | None:
    """Return seconds of video done in a second of work; None if the inputs have no duration."""
    if not seconds_per_item:
        return None
    items = list(run.inputs.values())
    frames = sum(item.frames_total for item in items)
    seconds = sum(float(item.attributes.get("duration_seconds") or 0) for item in items)
    return seconds / frames / seconds_per_item if frames and seconds else None


def _models(runs: Sequence[Run], panels: Sequence[Panel]) -> list[dict[str, Any]]:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for run in runs:
        for model in run.attributes.get("models", []):
            name, licence = str(model.get("name", "?")), str(model.get("licence") or "")
            kind, said = next(filter(None, (panel.model(name) for panel in panels)), ("", ""))
            source = _text(model.get("licence_source")) or said
            found[name, str(model.get("weights_sha256"))] = {
                "name": name,
                "kind": kind,
                "runtime": _text(model.get("runtime")),
                "sha256": _text(model.get("weights_sha256")),
                "licence": licence or "not stated",
                "source": source,
                "flag": licence_flag(licence),
                "caution": licence_flag(source) == "restricted",
            }
    return list(found.values())


def licence_flag(licence: str) -> str:
    """Return restricted (not for commercial use, or for research only), copyleft (GPL and its kin), unknown or free."""
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

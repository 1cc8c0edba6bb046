"""The content of the page, as plain values: texts for the template, numbers for the charts."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.faces.people.appearances import Appearance
from pipeline.faces.views.report.people import Person, attributes_of
from pipeline.faces.views.report.series import Histogram
from pipeline.faces.views.report.survey import Surveyed
from pipeline.text import clock, duration
from pipeline.version import __version__

if TYPE_CHECKING:
    from pipeline.store.read import Run

ROWS = 60
"""Most people with a row of their own in the timeline of one input; the others share one."""
MOST_STRETCHES = 60_000
"""Most stretches of all timelines of a page together: about half a megabyte."""
SHOWN_FAILURES = 50
"""Most failures listed of one input."""
_TENTHS = 10
"""Units per second of the times in a timeline."""
_RESTRICTED = re.compile(r"non.?commercial|research|\bNC\b|academic", re.IGNORECASE)
_COPYLEFT = re.compile(r"\bA?GPL", re.IGNORECASE)
_EMPTY_LICENCE = ("", "unknown", "none")


def content(
    runs: Sequence[Run], inputs: Sequence[Surveyed], people: Sequence[Person], nobody: Sequence[str],
    confidence: Histogram, size: Histogram,
) -> dict[str, Any]:  # fmt: skip
    """Return the template's values; `charts` is what the page's script draws."""
    several = len(runs) > 1
    place = {person.key: k for k, person in enumerate(people)}
    stretches_each = max(200, MOST_STRETCHES // max(1, len(inputs)))
    return {
        "title": runs[0].path.name if not several else f"{len(runs)} stores",
        "stores": [str(run.path) for run in runs],
        "created": sorted({str(run.attributes.get("created") or "") for run in runs}),
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "version": __version__,
        "store_versions": sorted({str(run.attributes.get("reelgraph", "?")) for run in runs}),
        "totals": _totals(runs, inputs, people),
        "advice": _advice(runs, inputs, people),
        "people": [_person(person, inputs, several, people) for person in people],
        "people_beyond": sum(one.people_beyond for one in inputs),
        "nobody": list(nobody),
        "inputs": [_input(one, several) for one in inputs],
        "failures": _failures(inputs, several),
        "retry": any(failure["kind"] == "failed" for one in inputs for failure in one.failures),
        "unusable": [entry for run in runs for entry in run.attributes.get("unusable", [])],
        "speeds": [speed for run in runs if (speed := _speed(run, several))],
        "models": _models(runs),
        "charts": {
            "people": [person.name for person in people],
            "names": [input_name(one, several) for one in inputs],
            "inputs": [_charts(one, place, stretches_each) for one in inputs],
            "confidence": confidence.drawn(),
            "size": size.drawn(),
        },
    }


def input_name(surveyed: Surveyed, several: bool) -> str:
    """Return the name of an input, with its store's name if there are several stores."""
    return f"{surveyed.run.path.name} / {surveyed.item.name}" if several else surveyed.item.name


def _totals(runs: Sequence[Run], inputs: Sequence[Surveyed], people: Sequence[Person]) -> dict[str, Any]:
    frames_total = sum(one.item.frames_total for one in inputs)
    done = sum(one.item.frames_done for one in inputs)
    video = sum(float(one.facts.get("duration_seconds") or 0) for one in inputs)
    share = done / frames_total if frames_total else float(bool(inputs) and all(i.item.complete for i in inputs))
    return {
        "stores": len(runs),
        "inputs": len(inputs),
        "video": _lasting(video),
        "video_seconds": video,
        "frames": done,
        "frames_total": frames_total,
        "faces": sum(one.faces for one in inputs),
        "unknown_faces": sum(one.unknown_faces for one in inputs),
        "people": len(people) + sum(one.people_beyond for one in inputs),
        "named": sum(person.named for person in people),
        "share": share,
        # Rounded down: 100% means all of it.
        "percent": int(share * 1000) / 10,
    }


def _advice(runs: Sequence[Run], inputs: Sequence[Surveyed], people: Sequence[Person]) -> list[dict[str, str]]:
    """Return what to run next if something is missing: a sentence and a command each."""
    outs = " ".join(_quoted(run.path) for run in runs)
    found = []
    arrays = {name for one in inputs for name in one.item.arrays}
    if any(one.faces for one in inputs) and not {"person", "identity"} & arrays:
        found.append(
            {
                "text": "No face has a name yet. This groups the faces into people,",
                "command": f"reelgraph people {outs}",
                "more": f"reelgraph find {outs} --gallery FOLDER",
                "more_text": "and this names those who are in a folder of photographs:",
            }
        )
    elif "person" in arrays and people and not any(person.named for person in people):
        one = next(one for one in inputs if "person" in one.item.arrays)
        registry = one.run.path / str(one.item.arrays["person"].attributes.get("registry", ""))
        found.append(
            {
                "text": "People have numbers so far; this gives one a name:",
                "command": f"reelgraph people name {_number(people[0])} NAME --registry {_quoted(registry.resolve())}",
            }
        )
    return found


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _number(person: Person) -> str:
    """Return the id in the registry; empty for people whose names come from a gallery."""
    return str(person.key[-1]) if isinstance(person.key, tuple) and person.key[0] == "person" else ""


def _person(person: Person, inputs: Sequence[Surveyed], several: bool, people: Sequence[Person]) -> dict[str, Any]:
    longest = people[0].screen_seconds or 1.0
    return {
        "name": person.name,
        "named": person.named,
        "number": _number(person),
        "screen": _lasting(person.screen_seconds),
        "share": person.screen_seconds / longest,
        "appearances": person.appearances,
        "faces": person.faces,
        "inputs": len(person.inputs),
        "when": _when(person, inputs, several),
        "pictures": person.pictures,
        "initials": "".join(word[0] for word in person.name.split()[:2]).upper() if person.named else "?",
        "attributes": _person_attributes(person, inputs),
    }


def _when(person: Person, inputs: Sequence[Surveyed], several: bool) -> str:
    """Return the first and the last time on screen, with the input's name if there are several."""
    (first, start), (last, stop) = person.first, person.last
    places = [f" in {input_name(inputs[place], several)}" if len(inputs) > 1 else "" for place in (first, last)]
    return f"{clock(start)[:-4]}{places[0] if first != last else ''} – {clock(stop)[:-4]}{places[1]}"


def _person_attributes(person: Person, inputs: Sequence[Surveyed]) -> dict[str, Any]:
    """Return age, the likeliest class of each other attribute, and the shares of all emotions."""
    found: dict[str, Any] = {}
    for name, values in attributes_of(person).items():
        classes: list[str] = next((one.attributes[name]["classes"] for one in inputs if name in one.attributes), [])
        known = [value or 0 for value in values]
        if len(known) == 1:
            found[name] = {"text": f"about {known[0]:.0f}", "full": f"{known[0]:.0f} on average"}
        elif len(classes) == len(known):
            best = max(range(len(known)), key=known.__getitem__)
            found[name] = {
                "text": f"{classes[best]} {known[best]:.0f}%",
                "full": ", ".join(f"{text} {share:.0f}%" for text, share in zip(classes, known, strict=True)),
                "shares": [{"name": c, "percent": v} for c, v in zip(classes, known, strict=True)],
            }
    return found


def _input(one: Surveyed, several: bool) -> dict[str, Any]:
    facts, item = one.facts, one.item
    share = item.done_share
    size = f"{facts['width']}×{facts['height']}" if facts.get("width") else ""
    return {
        "name": input_name(one, several),
        "path": facts.get("path", ""),
        "duration": _lasting(float(facts.get("duration_seconds") or 0)),
        "picture": ", ".join(
            filter(None, [size, f"{facts['fps']:.4g} fps" if facts.get("fps") else "", _text(facts.get("codec"))])
        ),
        "frames": item.frames_done,
        "frames_total": item.frames_total,
        "faces": one.faces,
        "people": len(one.people) + one.people_beyond,
        "percent": int(share * 1000) / 10,
        "failed": sum(1 for failure in one.failures if failure["kind"] == "failed"),
        "unread": sum(failure["frames"] or 0 for failure in one.failures if failure["kind"] == "unread"),
        "complete": share == 1,
    }


def _lasting(seconds: float) -> str:
    """Return a duration in short words, without zeros: 30 min, 3 h."""
    return duration(seconds).replace(" 00 s", "").replace(" 00 min", "")


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _failures(inputs: Sequence[Surveyed], several: bool) -> list[dict[str, Any]]:
    """Return the first failures of each input, and the number of the others."""
    found = []
    for one in inputs:
        if not one.failures:
            continue
        entries = [
            {
                "kind": "not analysed" if failure["kind"] == "failed" else "frames not read",
                "range": _range(failure["start"], failure["stop"]),
                "frames": failure["frames"],
                "error": failure["error"],
            }
            for failure in one.failures[:SHOWN_FAILURES]
        ]
        found.append({"name": input_name(one, several), "entries": entries, "more": len(one.failures) - len(entries)})
    return found


def _range(start: float | None, stop: float | None) -> str:
    return "time not known" if start is None or stop is None else f"{clock(start)[:-4]} to {clock(stop)[:-4]}"


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
    per_frame = stored.get("seconds_per_frame")
    return {
        "store": run.path.name if several else "",
        "devices": [str(device) for device in attributes.get("devices", [])],
        "frames_per_second": 1 / per_frame if per_frame else None,
        "faster": _faster_than_life(run, per_frame),
        "bottleneck": stored.get("bottleneck") or (max(steps, key=steps.__getitem__) if steps else None),
        "model_share": stored.get("model_share"),
        "steps": [
            {"name": step, "seconds": seconds, "percent": 100 * seconds / total, "shown": duration(seconds)}
            for step, seconds in sorted(steps.items(), key=lambda entry: -entry[1])
        ],
        "frames": stored.get("frames"),
    }


def _faster_than_life(run: Run, seconds_per_frame: float | None) -> float | None:
    """Return the seconds of video that a second of work covers."""
    if not seconds_per_frame:
        return None
    items = list(run.inputs.values())
    frames = sum(item.frames_total for item in items)
    seconds = sum(float(item.attributes.get("duration_seconds") or 0) for item in items)
    return seconds / frames / seconds_per_frame if frames else None


def _models(runs: Sequence[Run]) -> list[dict[str, Any]]:
    from pipeline.faces.models.zoo import CARDS, KIND_NAMES

    found: dict[tuple[str, str], dict[str, Any]] = {}
    for run in runs:
        for model in run.attributes.get("models", []):
            name, licence = str(model.get("name", "?")), str(model.get("licence") or "")
            card = CARDS.get(name)
            source = _text(model.get("licence_source")) or (card.licence_source if card else "")
            found[name, str(model.get("weights_sha256"))] = {
                "name": name,
                "kind": KIND_NAMES[card.kind] if card else "",
                "runtime": _text(model.get("runtime")),
                "sha256": _text(model.get("weights_sha256")),
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


# -- numbers for the charts --------------------------------------------------------------------------------------


def _charts(one: Surveyed, place: dict[Any, int], most_stretches: int) -> dict[str, Any]:
    rows, others = one.people[:ROWS], one.people[ROWS:]
    joined = join_to([presence.stretches for presence in rows], most_stretches)
    return {
        "start": round(one.start_seconds, 3),
        "stop": round(one.stop_seconds, 3),
        "rows": [
            {"person": place[presence.key], "screen": round(presence.screen_seconds, 1), "at": _coded(spans, one)}
            for presence, spans in zip(rows, joined, strict=True)
        ],
        "others": len(others) + one.people_beyond,
        "unknown": one.unknown,
        "counts": one.counts,
        "attributes": _with_places(one, place),
        "gaps": [[round(start, 1), round(stop, 1), kind] for start, stop, kind in one.gaps[:2000]],
    }


def _with_places(one: Surveyed, place: dict[Any, int]) -> dict[str, Any]:
    return {
        name: {
            **series,
            "followed": [{**part, "person": place[one.people[part["person"]].key]} for part in series["followed"]],
        }
        for name, series in one.attributes.items()
    }


def join_to(rows: Sequence[Sequence[Appearance]], most: int) -> list[list[tuple[float, float]]]:
    """Return (start, stop) of each row's stretches; if there are more than `most` in all, join close ones."""
    apart = 0.0
    while True:
        joined = [_joined(row, apart) for row in rows]
        if sum(map(len, joined)) <= max(most, len(rows)):
            return joined
        apart = max(1.0, 2 * apart)


def _joined(stretches: Sequence[Appearance], apart_seconds: float) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    for one in stretches:
        if found and one.start_seconds - found[-1][1] < apart_seconds:
            found[-1] = (found[-1][0], one.stop_seconds)
        else:
            found.append((one.start_seconds, one.stop_seconds))
    return found


def _coded(spans: Sequence[tuple[float, float]], one: Surveyed) -> list[int]:
    """Return tenths of a second: from the last stop (first the input's start) to the start, the length, and so on."""
    coded: list[int] = []
    last = 0
    for start, stop in spans:
        begin = max(last, round((start - one.start_seconds) * _TENTHS))
        end = max(begin + 1, round((stop - one.start_seconds) * _TENTHS))
        coded += [begin - last, end - begin]
        last = end
    return coded

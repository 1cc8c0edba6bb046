"""The people of stores: what `reelgraph people` shows and gives as JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.faces.people.appearances import appearances
from pipeline.faces.people.labels import labels
from pipeline.faces.views.sheet import Pixels, encoded
from pipeline.media.spans import stop_of
from pipeline.text import clock, plain, plural
from pipeline.views.terminal import PICTURE_COLUMNS, PLACE, Protocol, with_pictures

if TYPE_CHECKING:
    from pipeline.faces.people.gather import Gathered
    from pipeline.faces.people.registry import Registry
    from pipeline.store.read import RunInput


@dataclass
class PersonView:
    """One person over all inputs of the command."""

    id: int
    name: str | None
    faces: int = 0
    tracks: int = 0
    screen_seconds: float = 0.0
    inputs: list[str] = field(default_factory=list)
    appearances: list[dict[str, Any]] = field(default_factory=list)
    """Appearances in order of inputs and time: store, input, start_seconds, stop_seconds, screen_seconds, frames."""
    best: dict[str, Any] | None = None
    """The clearest face: store, input, frame (rank in the file), time_seconds, clock, box (x, y, w, h in pixels).
    `thumbnail` is the row of its picture in the array of this name, or None."""
    best_score: float = 0.0


def people_of(items: Sequence[RunInput], registry: Registry) -> list[PersonView]:
    """Return all people in these inputs, longest on screen first. Raises StoreError if an array is damaged."""
    from pipeline.faces.people.described import face_quality

    found: dict[int, PersonView] = {}
    for item in items:
        arrays = item.read(["frame", "time_seconds", "face_frame", "track", "box"])
        pictured = item.array("thumbnail_face").tolist() if "thumbnail_face" in item.arrays else []
        known = labels(item, "person")
        score, _ = face_quality(item)
        for code in known.names:
            one = found.setdefault(
                code, PersonView(code, registry.people[code].name if code in registry.people else None)
            )
            rows, times = np.flatnonzero(known.code == code), arrays["time_seconds"]
            frames = arrays["face_frame"][rows]
            one.faces += len(rows)
            one.tracks += len(np.unique(arrays["track"][rows]))
            one.inputs.append(item.name)
            where = {"store": str(item.store_path), "input": item.name}
            for each in appearances(frames, times, arrays["track"][rows], stop_of(item.attributes)):
                one.screen_seconds += each.screen_seconds
                facts = ("start_seconds", "stop_seconds", "screen_seconds", "frames")
                one.appearances.append(where | {name: getattr(each, name) for name in facts})
            best = int(score[rows].argmax())
            if one.best is None or score[rows[best]] > one.best_score:
                one.best_score = float(score[rows[best]])
                row, seconds = int(rows[best]), float(times[frames[best]])
                one.best = where | {
                    "frame": int(arrays["frame"][frames[best]]),
                    "time_seconds": seconds,
                    "clock": clock(seconds),
                    "box": [round(float(side), 1) for side in arrays["box"][row]],
                    "thumbnail": pictured.index(row) if row in pictured else None,
                }
    return sorted(found.values(), key=lambda one: (-one.screen_seconds, one.id))


def as_json(gathered: Gathered, people: Sequence[PersonView]) -> dict[str, Any]:
    """Return JSON values for `--json`."""
    return {
        "registry": str(gathered.registry.path),
        "registry_id": gathered.registry.id,
        "model": gathered.registry.model,
        "people": [
            {key: value for key, value in vars(one).items() if key != "best_score"} | {"inputs": list(one.inputs)}
            for one in people
        ],
        "inputs": [{"store": str(item.store_path), "input": item.name} for item in gathered.inputs],
        "assigned": gathered.assigned,
        "new_people": gathered.new_people,
        "similar": [{"ids": [a, b], "distance": round(d, 4)} for a, b, d in gathered.similar],
        "skipped": gathered.skipped,
        "notes": gathered.notes,
    }


MOST_PICTURED = 200
"""People with a picture in a terminal; each takes some 25 kB there."""
MOST_SIMILAR = 5
WIDE_COLUMNS = 120
"""Columns of a terminal from which on first and last appearance are shown even with the names of their inputs."""
NAME_CHARACTERS = 20
_NUMBERS = ("id", "faces", "tracks", "on screen", "inputs")


def print_table(
    gathered: Gathered, people: Sequence[PersonView], pictures: Sequence[Pixels | None], by: Protocol | None, sheet: str
) -> None:
    """Print one row per person on standard output, and what to do next.

    `pictures`: of the first people, shown by this protocol of the terminal. `sheet`: the line about the contact sheet.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # Nothing is cut off in a file or a pipe.
    console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=200)
    shown = [None if one is None else encoded(one) for one in pictures[:MOST_PICTURED]] if by else []
    pngs = [*shown, *[None] * (len(people) - len(shown))]
    many = len(gathered.inputs) > 1
    headings = ["id", "name", "faces", "tracks", "on screen", "inputs", "first", "last", "best shot"]
    if many and console.width < WIDE_COLUMNS:
        headings = [heading for heading in headings if heading not in ("first", "last")]
    table = Table(box=None, pad_edge=False, header_style="bold")
    if any(shown):
        table.add_column("", min_width=PICTURE_COLUMNS)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in _NUMBERS else "left", overflow="fold")
    for one, png in zip(people, pngs, strict=True):
        first, last = one.appearances[0], one.appearances[-1]
        cells = {
            "id": str(one.id),
            "name": one.name or "-",
            "faces": str(one.faces),
            "tracks": str(one.tracks),
            "on screen": f"{one.screen_seconds:.1f} s" if one.screen_seconds < 60 else _clock(one.screen_seconds),
            "inputs": str(len(one.inputs)),
            "first": _where(first["input"], first["start_seconds"], many),
            "last": _where(last["input"], last["stop_seconds"], many),
            "best shot": f"{one.best['input'] if many else ''} {_clock(one.best['time_seconds'])}" if one.best else "",
        }
        row = [Text(plain(cells[heading].strip())) for heading in headings]
        table.add_row(*([Text(PLACE if png else PLACE[0]), *row] if any(shown) else row))
    if by and any(shown):
        with console.capture() as text:
            console.print(table)
        sys.stdout.writelines(with_pictures(text.get(), pngs, by))
    else:
        console.print(table)
    unknown = sum(int((labels(item, "person").code < 0).sum()) for item in gathered.inputs)
    lines = [
        f"{plural(len(people), 'person', 'people')} in {plural(len(gathered.inputs), 'input')}, "
        f"{plural(unknown, 'face')} of unknown people; registry {gathered.registry.path}"
    ]
    if not gathered.assigned:
        lines.append("nothing to do: all inputs had their people already")
    for a, b, distance in gathered.similar[:MOST_SIMILAR]:
        lines.append(
            f"{a} and {b} look alike (distance {distance:.2f}); if they are one: reelgraph people merge {a} {b}"
        )
    if sheet:
        lines.append(sheet)
    elif not by and sys.stdout.isatty() and any(one.best and one.best["thumbnail"] is not None for one in people):
        lines.append("pictures of them: reelgraph people OUT --sheet people.png")
    if people and not any(one.name for one in people):
        lines.append(f'give a name: reelgraph people name {people[0].id} "NAME"')
    for line in lines:
        console.print(plain(line), markup=False, soft_wrap=True)


def _where(name: str, seconds: float, many: bool) -> str:
    short = name if len(name) <= NAME_CHARACTERS else name[: NAME_CHARACTERS - 1] + "…"
    return f"{short} {_clock(seconds)}" if many else _clock(seconds)


def _clock(seconds: float) -> str:
    """Return H:MM:SS.s: a tenth of a second is enough to find a place in a film."""
    return clock(round(seconds, 1))[:-2]


def registry_rows(registry: Registry) -> list[dict[str, Any]]:
    """Return the registry's own facts as JSON values: all people, with faces and inputs as last seen."""
    return [
        {
            "id": number,
            "name": one.name,
            "faces": registry.faces(number),
            "inputs": [key for key, counts in registry.inputs.items() if counts.get(number)],
            "merged": sorted(old for old, new in registry.merged.items() if new == number),
        }
        for number, one in sorted(registry.people.items())
    ]


def registry_lines(registry: Registry) -> list[str]:
    """Return the lines of registry_rows for a terminal."""
    rows = registry_rows(registry)
    width = max([4, *(len(row["name"] or "-") for row in rows)])
    shown = [f"{'id':>5}  {'name':{width}}  {'faces':>8}  {'inputs':>6}"] if rows else ["no people yet"]
    for row in rows:
        also = f"  (was {', '.join(map(str, row['merged']))})" if row["merged"] else ""
        shown.append(f"{row['id']:>5}  {row['name'] or '-':{width}}  {row['faces']:>8}  {len(row['inputs']):>6}{also}")
    return [f"{registry.path}: {plural(len(rows), 'person', 'people')} by {registry.model}", *shown]

"""The people of stores: what `reelgraph people` shows and gives as JSON."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.faces.people.described import face_quality
from pipeline.faces.people.gather import Gathered
from pipeline.faces.people.labels import UNKNOWN, labels
from pipeline.faces.people.moments import Moments
from pipeline.faces.people.moments import known as known_seconds
from pipeline.faces.people.registry import Registry, flag_for
from pipeline.faces.views.sheet import Pixels, encoded
from pipeline.media.spans import is_timed
from pipeline.store.read import RunInput
from pipeline.text import clock, plain, plural
from pipeline.views.sixel import Sixel
from pipeline.views.terminal import PICTURE_COLUMNS, PLACE, Protocol, with_pictures


@dataclass
class PersonView:
    """One person over all inputs of the command."""

    id: int
    name: str | None
    faces: int = 0
    tracks: int = 0
    screen_seconds: float = 0.0
    pictures: int = 0
    """Pictures that show the person; 0 if all inputs are films."""
    inputs: list[str] = field(default_factory=list)
    appearances: list[dict[str, Any]] = field(default_factory=list)
    """Appearances in order of inputs and time: store, input, start_seconds, stop_seconds, screen_seconds, frames. Of a
    picture the seconds are None, and there is its name."""
    best: dict[str, Any] | None = None
    """The clearest face: store, input, frame (rank in the file), time_seconds, clock, box (x, y, w, h in pixels). Of a
    picture times are None, and there is its name. `thumbnail` is the row of its picture in the array of this name, or
    None."""
    best_score: float = 0.0


def people_of(items: Sequence[RunInput], registry: Registry) -> list[PersonView]:
    """Return all people in these inputs, longest on screen first. Raises StoreError if an array is damaged."""
    found: dict[int, PersonView] = {}
    for item in items:
        moments, arrays = Moments(item), item.read(["face_frame", "track", "box"])
        pictured = item.array("thumbnail_face").tolist() if "thumbnail_face" in item.arrays else []
        known = labels(item, "person")
        score, _ = face_quality(item)
        pictures = np.unique(arrays["face_frame"][known.code != UNKNOWN][: 0 if moments.is_timed else None])
        name_of = dict(zip(pictures.tolist(), moments.names(pictures), strict=True))
        for code in known.names:
            one = found.setdefault(
                code, PersonView(code, registry.people[code].name if code in registry.people else None)
            )
            rows = np.flatnonzero(known.code == code)
            frames = arrays["face_frame"][rows]
            one.faces += len(rows)
            one.tracks += len(np.unique(arrays["track"][rows]))
            one.inputs.append(item.name)
            where = {"store": str(item.store_path), "input": item.name}
            for each in moments.appearances(frames, arrays["track"][rows]):
                one.screen_seconds += each.screen_seconds
                one.pictures += not each.is_timed
                facts = ("start_seconds", "stop_seconds", "screen_seconds", "frames")
                values = {name: getattr(each, name) for name in facts}
                if not each.is_timed:
                    values |= dict.fromkeys(facts[:3]) | {"name": name_of[each.first_frame]}
                one.appearances.append(where | values)
            best = int(score[rows].argmax())
            if one.best is None or score[rows[best]] > one.best_score:
                one.best_score = float(score[rows[best]])
                row, at = int(rows[best]), int(frames[best])
                seconds = known_seconds(float(moments.time_seconds[at]))
                one.best = where | {
                    "frame": int(moments.number[at]),
                    "time_seconds": seconds,
                    "clock": None if seconds is None else clock(seconds),
                    **({"name": name_of[at]} if seconds is None else {}),
                    "box": [round(float(side), 1) for side in arrays["box"][row]],
                    "thumbnail": pictured.index(row) if row in pictured else None,
                }
    return sorted(found.values(), key=lambda one: (-one.screen_seconds, -one.pictures, one.id))


def as_json(gathered: Gathered, people: Sequence[PersonView]) -> dict[str, Any]:
    """Return JSON values for `--json`."""
    return {
        "registry": str(gathered.registry.path),
        "registry_id": gathered.registry.id,
        "model": gathered.registry.model,
        "people": [
            {key: value for key, value in vars(one).items() if key not in ("best_score", "pictures")}
            | {"inputs": list(one.inputs)}
            | ({"pictures": one.pictures, "screen_seconds": one.screen_seconds or None} if one.pictures else {})
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
    gathered: Gathered, people: Sequence[PersonView], pictures: Sequence[Pixels | None], by: Protocol | Sixel | None,
    sheet: str,
) -> None:
    """Print one row per person on standard output, and what to do next.

    `pictures`: of the first people, shown by this means of the terminal. `sheet`: the line about the contact sheet.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # Nothing is cut off in a file or a pipe.
    console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=200)
    shown = [None if one is None else encoded(one) for one in pictures[:MOST_PICTURED]] if by else []
    pngs = [*shown, *[None] * (len(people) - len(shown))]
    many = len(gathered.inputs) > 1
    headings = ["id", "name", "faces", "tracks", "on screen", "pictures", "inputs", "first", "last", "best shot"]
    films = sum(is_timed(item) for item in gathered.inputs)
    if films == len(gathered.inputs):
        headings.remove("pictures")
    if not films:
        headings = [heading for heading in headings if heading not in ("tracks", "on screen", "first", "last")]
    if many and console.width < WIDE_COLUMNS:
        headings = [heading for heading in headings if heading not in ("first", "last")]
    table = Table(box=None, pad_edge=False, header_style="bold")
    if any(shown):
        table.add_column("", min_width=PICTURE_COLUMNS)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in _NUMBERS else "left", overflow="fold")
    for one, png in zip(people, pngs, strict=True):
        timed = [each for each in one.appearances if each["start_seconds"] is not None]
        first, last = (timed[0], timed[-1]) if timed else (None, None)
        cells = {
            "id": str(one.id),
            "name": one.name or "-",
            "faces": str(one.faces),
            "tracks": str(one.tracks),
            "on screen": _screen(one.screen_seconds) if one.screen_seconds or not one.pictures else "",
            "pictures": str(one.pictures or ""),
            "inputs": str(len(one.inputs)),
            "first": _where(first, "start_seconds", many) if first else "",
            "last": _where(last, "stop_seconds", many) if last else "",
            "best shot": f"{one.best['input'] if many else ''} {_moment(one.best)}" if one.best else "",
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
    flag = flag_for(gathered.registry.path)
    for a, b, distance in gathered.similar[:MOST_SIMILAR]:
        lines.append(
            f"{a} and {b} look alike (distance {distance:.2f}); if they are one: reelgraph people merge {a} {b}{flag}"
        )
    if sheet:
        lines.append(sheet)
    elif not by and sys.stdout.isatty() and any(one.best and one.best["thumbnail"] is not None for one in people):
        lines.append("pictures of them: reelgraph people OUT --sheet people.png")
    if people and not any(one.name for one in people):
        lines.append(f'give a name: reelgraph people name {people[0].id} "NAME"{flag}')
    for line in lines:
        console.print(plain(line), markup=False, soft_wrap=True)


def _screen(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else _clock(seconds)


def _where(entry: Mapping[str, Any], seconds: str, many: bool) -> str:
    name, at = entry["input"], _clock(entry[seconds])
    short = name if len(name) <= NAME_CHARACTERS else name[: NAME_CHARACTERS - 1] + "…"
    return f"{short} {at}" if many else at


def _moment(best: Mapping[str, Any]) -> str:
    """Return the time of a best shot, or the name of its picture."""
    return str(best["name"]) if best["time_seconds"] is None else _clock(best["time_seconds"])


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

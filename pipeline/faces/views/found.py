"""The people that were found, as lines to print."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.text import clock, duration

if TYPE_CHECKING:
    from pipeline.faces.people.find import Found, Person
    from pipeline.faces.people.sightings import Sighting

SHOWN_INPUTS = 5
SHOWN_TIMES = 4
SHOWN_NAMES = 10


def lines(found: Found) -> list[str]:
    """Return a block per person, longest on screen first, then searched inputs. Notes were printed before."""
    shown = [line for person in found.people for line in _person(person)]
    if found.absent:
        names = ", ".join(found.absent[:SHOWN_NAMES])
        more = f" and {len(found.absent) - SHOWN_NAMES} more" if len(found.absent) > SHOWN_NAMES else ""
        shown.append(f"not seen: {names}{more}")
    return [*shown, *_searched(found)]


def _person(person: Person) -> list[str]:
    best = min((one.best.distance for one in person.sightings), default=0.0)
    where = f" in {len(person.sightings)} videos" if len(person.sightings) > 1 else ""
    head = f"{person.name}: {duration(person.screen_seconds)} on screen{where}, {person.faces} faces, best {best:.3f}"
    return [head, *sightings(person.sightings)]


def sightings(found: tuple[Sighting, ...]) -> list[str]:
    """Return a line per input, longest on screen first."""
    ordered = sorted(found, key=lambda one: -one.screen_seconds)
    shown = [f"  {_where(one)}: {duration(one.screen_seconds)}: {times(one)}" for one in ordered[:SHOWN_INPUTS]]
    if len(ordered) > SHOWN_INPUTS:
        shown.append(f"  ... and {len(ordered) - SHOWN_INPUTS} more videos; --json shows all")
    return shown


def _where(one: Sighting) -> str:
    return f"{one.out} {one.input}"


def times(one: Sighting) -> str:
    spans = [f"{clock(span.start_seconds)}-{clock(span.stop_seconds)}" for span in one.appearances[:SHOWN_TIMES]]
    more = len(one.appearances) - SHOWN_TIMES
    return ", ".join(spans) + (f" and {more} more times until {clock(one.last_seconds)}" if more > 0 else "")


def _searched(found: Found) -> list[str]:
    faces = sum(one.faces for one in found.inputs)
    unknown = sum(one.unknown_faces for one in found.inputs)
    done = [one for one in found.inputs if one.share < 1]
    share = f" ({len(done)} of them not complete)" if done else ""
    said = f"{faces} faces of {len(found.inputs)} inputs{share}, {unknown} unknown"
    counts = {state: sum(one.written == state for one in found.inputs) for state in ("written", "unchanged")}
    if counts["written"]:
        said += f"; identity and distance written to {counts['written']} inputs"
    elif counts["unchanged"] == len(found.inputs):
        said += "; nothing to do: the stores hold this matching already"
    return [said]

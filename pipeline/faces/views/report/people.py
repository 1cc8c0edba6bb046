"""The people of a report: one person over all inputs and stores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.faces.people.evidence import Level
from pipeline.faces.views.report.survey import Key, Presence, Seen
from pipeline.views.report.crops import Candidate
from pipeline.views.report.series import rounded


@dataclass
class Person:
    """One person, over all inputs."""

    key: Key
    name: str
    named: bool
    screen_seconds: float = 0.0
    appearances: int = 0
    """Stretches of time in films."""
    pictures_with: int = 0
    """Pictures that show the person, beside films."""
    names: list[str] = field(default_factory=list)
    """Names of the first of these."""
    faces: int = 0
    first: tuple[int, float] | None = None
    """Index of the first film in the report, and seconds; None if there is none."""
    last: tuple[int, float] | None = None
    inputs: list[int] = field(default_factory=list)
    attributes: dict[str, dict[str, Any]] = field(default_factory=dict)
    candidates: list[tuple[int, Candidate]] = field(default_factory=list)
    """Index of the input and face, for pictures."""
    pictures: list[str] = field(default_factory=list)
    """Pictures as `data:` addresses."""
    level: Level = Level.NONE
    """Certainty of a gallery's name, in the input with the surest."""


@dataclass
class Question:
    """A weak name in one input, for the user to look at."""

    place: int
    """Index of the input in the report."""
    presence: Presence
    pictures: list[str] = field(default_factory=list)
    """A picture as a `data:` address, if there is one."""


def gather(inputs: Sequence[Seen]) -> list[Person]:
    """Return all people, by screen time, longest first; then by the number of their pictures."""
    found: dict[Key, Person] = {}
    for place, seen in enumerate(inputs):
        for presence in seen.people:
            person = found.setdefault(presence.key, Person(presence.key, presence.name, presence.named))
            _add(person, place, presence)
    return sorted(found.values(), key=lambda one: (-one.screen_seconds, -one.pictures_with, one.name))


def questions(inputs: Sequence[Seen]) -> list[Question]:
    """Return all weak names, the likeliest first."""
    found = [Question(place, presence) for place, seen in enumerate(inputs) for presence in seen.maybe]
    return sorted(found, key=lambda one: one.presence.distance - one.presence.limit)


def _add(person: Person, place: int, presence: Presence) -> None:
    if presence.named and not person.named:
        person.name, person.named = presence.name, True
    if presence.pictures:
        person.pictures_with += presence.pictures
        person.names += presence.names
    else:
        person.first = person.first or (place, presence.stretches[0].start_seconds)
        person.last = (place, presence.stretches[-1].stop_seconds)
        person.appearances += len(presence.stretches)
    person.inputs.append(place)
    person.screen_seconds += presence.screen_seconds
    person.faces += presence.faces
    person.level = max(person.level, presence.level)
    person.candidates += [(place, candidate) for candidate in presence.candidates]
    for name, one in presence.attributes.items():
        known = person.attributes.setdefault(name, {"count": 0.0, "sum": [0.0] * len(one["sum"])})
        if len(known["sum"]) == len(one["sum"]):
            known["count"] += one["count"]
            known["sum"] = [a + b for a, b in zip(known["sum"], one["sum"], strict=True)]


def attributes_of(person: Person) -> dict[str, list[float | None]]:
    """Return the mean age, or percent of each class, over all faces of the person; only attributes that are known."""
    found = {}
    for name, one in person.attributes.items():
        if one["count"]:
            mean = np.asarray(one["sum"]) / one["count"]
            found[name] = rounded(mean * (100 if len(mean) > 1 else 1), 0)
    return found

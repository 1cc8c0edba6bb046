"""Pictures of people for a report: those that the store keeps, else cut from what they were found in, if it exists."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.faces.people.labels import labels
from pipeline.faces.people.thumbnails import crop
from pipeline.faces.views.report.people import Person, Question
from pipeline.faces.views.report.survey import SHOWN_FACES, Seen
from pipeline.views.report.crops import Candidate, cut, encoded

MOST_PICTURED = 150
"""Most people with a picture, so that a page of hundreds of people has a few megabytes."""
MOST_PICTURES = 4
"""Pictures of each of the first `RICHLY_PICTURED` people; others have one."""
RICHLY_PICTURED = 60
MOST_FRAMES_CUT = 60
"""Most frames decoded for pictures that no store keeps; each costs up to a group of pictures."""


def add_pictures(people: Sequence[Person], inputs: Sequence[Seen]) -> None:
    """Give people their pictures, in place."""
    person_of = {person.key: (k, person) for k, person in enumerate(people[:MOST_PICTURED])}
    for seen in inputs:
        arrays = seen.one.item.arrays
        if not {"thumbnail", "thumbnail_face"} <= arrays.keys():
            continue
        read = seen.one.item.read(["thumbnail", "thumbnail_face"])
        code = labels(seen.one.item).code
        key_of = {presence.code: presence.key for presence in seen.people}
        for pixels, face in zip(read["thumbnail"], read["thumbnail_face"], strict=True):
            key = key_of.get(int(code[face])) if 0 <= face < len(code) else None
            place, person = person_of.get(key, (0, None))
            if person is not None and len(person.pictures) < (MOST_PICTURES if place < RICHLY_PICTURED else 1):
                person.pictures.append(encoded(pixels))
    missing = [person for person in people[:MOST_PICTURED] if not person.pictures and person.candidates]
    best = [max(person.candidates, key=lambda one: one[1].score) for person in missing[:MOST_FRAMES_CUT]]
    for person, picture in zip(missing, _cut_all(inputs, best), strict=False):
        person.pictures += [picture] if picture else []


def add_to_questions(asked: Sequence[Question], inputs: Sequence[Seen]) -> None:
    """Give weak names a picture, in place."""
    pictured = [one for one in asked if one.presence.candidates]
    best = [(one.place, max(one.presence.candidates, key=lambda face: face.score)) for one in pictured]
    for one, picture in zip(pictured, _cut_all(inputs, best), strict=True):
        one.pictures += [picture] if picture else []


def pictures_of_unknown(inputs: Sequence[Seen]) -> list[str]:
    """Return pictures of some unknown faces, from the inputs that have any."""
    candidates = [(place, candidate) for place, one in enumerate(inputs) for candidate in one.shown_faces]
    step = max(1, len(candidates) // SHOWN_FACES)
    return [picture for picture in _cut_all(inputs, candidates[::step][:SHOWN_FACES]) if picture]


def _cut_all(inputs: Sequence[Seen], wanted: Sequence[tuple[int, Candidate]]) -> list[str | None]:
    """Return the picture of each face, given with the index of its input; None if there is none."""
    return cut([(inputs[place].one.item, one) for place, one in wanted], crop)

"""The people that were found, as lines: those of a gallery, or one person by a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.faces.people.find import Evidence, Found, SeenPerson
from pipeline.faces.people.gallery import as_text
from pipeline.faces.people.matching import Per
from pipeline.faces.people.near import NearSearch
from pipeline.faces.people.search import Answer
from pipeline.faces.people.sightings import Shot, Sighting
from pipeline.text import clock, duration, plural

SHOWN_INPUTS = 5
SHOWN_TIMES = 4
SHOWN_NAMES = 10


def people_lines(found: Found) -> list[str]:
    """Return a block per person, longest on screen first, then those to look at; then the searched faces and inputs."""
    shown = []
    for one in found.people:
        shown += [f"{one.name}: {_seen(one, found)}", *_sightings(one.sightings)]
    for one in found.maybe:
        shown += [f"maybe {one.name}, please look: {_seen(one, found)}", *_sightings(one.sightings)]
    if found.absent:
        more = f" and {len(found.absent) - SHOWN_NAMES} more" if len(found.absent) > SHOWN_NAMES else ""
        shown.append(f"not seen: {', '.join(found.absent[:SHOWN_NAMES])}{more}")
    written, unchanged = (sum(one.written == state for one in found.inputs) for state in ("written", "unchanged"))
    said = f"{_searched(found)}, {sum(one.unknown_faces or 0 for one in found.inputs)} unknown"
    if written:
        said += f"; names and distances written to {plural(written, 'input')}"
    elif unchanged == len(found.inputs):
        said += "; nothing to do: the stores hold this matching already"
    return [*shown, said]


def _seen(one: SeenPerson, found: Found) -> str:
    """Return how long and how often a person was seen, and how sure that is."""
    where = f" in {_inputs(one.sightings)}" if len(one.sightings) > 1 else ""
    near = _near(one.best, found.metric, found.wanted.per)
    return f"{_amount(one, ' on screen')}{where}, {plural(one.faces, 'face')}; {near}"


def _near(why: Evidence, metric: str, per: Per) -> str:
    """Return how near a person is, and how sure that makes it."""
    sure = f"{why.level.name.lower()}, " if per == "track" else ""
    return f"{sure}{metric} {why.distance:.3f} (limit {why.limit:.3f})"


def _amount(one: Sighting | SeenPerson, on_screen: str = "") -> str:
    """Return the time on screen, or the number of pictures, or both."""
    return _amount_of(one.screen_seconds, one.pictures, on_screen)


def _amount_of(seconds: float, pictures: int, on_screen: str = "") -> str:
    parts = [f"{duration(seconds)}{on_screen}"] if seconds > 0 or not pictures else []
    return " and ".join([*parts, *([plural(pictures, "picture")] if pictures else [])])


def _inputs(found: Sequence[Sighting]) -> str:
    """Return the number of inputs by what they are: "2 videos"."""
    return plural(len(found), "input" if any(one.pictures for one in found) else "video")


def answer_lines(answer: Answer) -> list[str]:
    """Return sightings with their evidence, sure ones first; the best shots; the numbers of what was searched."""
    moment = "picture" if any(one.shot.name is not None for one in answer.best) else "time"
    shown = []
    for what, some in (("seen", answer.sightings), ("maybe, please look: seen", answer.maybe)):
        if some:
            found = [one.sighting for one in some]
            seconds, pictures = sum(one.screen_seconds for one in found), sum(one.pictures for one in found)
            faces, how = sum(one.faces for one in found), "in" if pictures else "for"
            shown.append(f"{what} {how} {_amount_of(seconds, pictures)} in {_inputs(found)}, {plural(faces, 'face')}")
            why = {id(one.sighting): _near(one.evidence, answer.metric, answer.per) for one in some}
            shown += _sightings(found, why)
    if shown:
        shown.append(f"best shots (distance, {moment}, box):")
    else:
        limits = sorted({one.threshold for one in answer.inputs if one.faces and one.threshold is not None})
        near = f"{answer.per} within {answer.metric} {' or '.join(f'{limit:g}' for limit in limits)}"
        if answer.per == "track" and not limits:
            near = f"track within its limit ({answer.metric} {answer.widest:.3f} at most)"
        said = f"not seen: no {near}"
        shown = [said + (f"; the nearest (distance, {moment}, box):" if answer.best else "")]
    for seen in answer.best:
        shot = seen.shot
        place = f"{as_text(shot.box)}  {seen.out} {seen.input}"
        maybe = "" if seen.accepted or not answer.maybe else "  weak"
        shown.append(f"  {shot.distance:.3f}  {_moment(shot)}  {place}{maybe}")
    by_index = sum(one.faces for one in answer.inputs if one.how == "index")
    said = _searched(answer) + (f", {by_index} of them by the index" if by_index else "")
    said += f"; searched in {answer.seconds['search']:.2f} s"
    if answer.embedding_bytes > 1e8:
        said += f", {answer.embedding_bytes / 1e6 / max(answer.seconds['search'], 1e-9):.0f} MB/s"
    return [*shown, said]


def _sightings(found: Sequence[Sighting], why: Mapping[int, str] | None = None) -> list[str]:
    """Return a line per input, longest on screen first.

    `why`: the evidence of each sighting, by its `id`; they are in order already.
    """
    ordered = list(found) if why else sorted(found, key=lambda one: (-one.screen_seconds, -one.pictures))
    shown = []
    for one in ordered[:SHOWN_INPUTS]:
        more = len(one.appearances) - SHOWN_TIMES
        if one.pictures:
            spans = [_moment(shot) for shot in one.shots[:SHOWN_TIMES]]
            rest = f" and {more} more" if more > 0 else ""
        else:
            seen = one.appearances[:SHOWN_TIMES]
            spans = [f"{clock(span.start_seconds)}-{clock(span.stop_seconds)}" for span in seen]
            rest = f" and {more} more times until {clock(one.last_seconds)}" if more > 0 else ""
        near = f"{why[id(one)]}: " if why else ""
        shown.append(f"  {near}{one.out} {one.input}: {_amount(one)}: {', '.join(spans)}{rest}")
    if len(ordered) > SHOWN_INPUTS:
        shown.append(f"  ... and {_inputs(ordered[SHOWN_INPUTS:]).replace(' ', ' more ', 1)}; --json shows all")
    return shown


def _moment(shot: Shot) -> str:
    """Return the time of a shot, or the name of its picture."""
    return clock(shot.time_seconds) if shot.name is None else shot.name


def _searched(search: NearSearch) -> str:
    """Return the numbers of faces and inputs that were looked at."""
    partial = sum(one.share < 1 for one in search.inputs)
    share = f" ({partial} of them not complete)" if partial else ""
    faces = plural(sum(one.faces for one in search.inputs), "face")
    return f"{faces} of {plural(len(search.inputs), 'input')}{share}"

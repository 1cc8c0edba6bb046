"""The answer to a search by a picture, as lines to print."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.faces.people.gallery import as_text
from pipeline.faces.views.found import sightings
from pipeline.text import clock, duration, plural

if TYPE_CHECKING:
    from pipeline.faces.people.search import Answer, Seen


def lines(answer: Answer) -> list[str]:
    """Return the lines: screen time and times by video, best shots, searched inputs. Notes were printed before."""
    shown = _seen(answer) if answer.sightings else _not_seen(answer)
    shown += [f"  {_shot(one)}" for one in answer.best]
    return [*shown, _searched(answer)]


def _seen(answer: Answer) -> list[str]:
    faces = sum(one.faces for one in answer.sightings)
    videos = plural(len(answer.sightings), "video")
    head = f"seen for {duration(answer.screen_seconds)} in {videos}, {plural(faces, 'face')}"
    return [head, *sightings(answer.sightings), "best shots (distance, time, box):"]


def _not_seen(answer: Answer) -> list[str]:
    limits = sorted({one.threshold for one in answer.inputs if one.faces})
    said = f"not seen: no face within {answer.metric} {' or '.join(f'{limit:g}' for limit in limits)}"
    return [said + ("; the nearest (distance, time, box):" if answer.best else "")]


def _shot(one: Seen) -> str:
    return f"{one.shot.distance:.3f}  {clock(one.shot.time_seconds)}  {as_text(one.shot.box)}  {one.out} {one.input}"


def _searched(answer: Answer) -> str:
    faces = sum(one.faces for one in answer.inputs)
    partial = sum(one.share < 1 for one in answer.inputs)
    said = f"{plural(faces, 'face')} of {plural(len(answer.inputs), 'input')}"
    said += f" ({partial} of them not complete)" if partial else ""
    by_index = sum(one.faces for one in answer.inputs if one.how == "index")
    said += f", {by_index} of them by the index" if by_index else ""
    speed = ""
    if answer.embedding_bytes > 1e8:
        speed = f", {answer.embedding_bytes / 1e6 / max(answer.seconds['search'], 1e-9):.0f} MB/s"
    return f"{said}; searched in {answer.seconds['search']:.2f} s{speed}"

"""The faces' part of a report: who is on screen when, what they look like, how large and how sure faces are."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pipeline.faces.people.appearances import Appearance
from pipeline.faces.views.report.people import Person, Question, attributes_of, gather, questions
from pipeline.faces.views.report.pictures import add_pictures, add_to_questions, pictures_of_unknown
from pipeline.faces.views.report.survey import CONFIDENCE_EDGES, SHOWN_NAMES, SIZE_EDGES, Look, Seen
from pipeline.store.nodes import located
from pipeline.text import clock
from pipeline.views.report.content import lasting
from pipeline.views.report.panel import (
    About,
    Content,
    InputContent,
    Lanes,
    Panel,
    Section,
    Tile,
    coded,
    counted,
    fill,
    grouped,
    text_of,
)
from pipeline.views.report.series import Histogram
from pipeline.views.report.survey import Surveyed
from pipeline.views.tables.rows import Block

ROWS = 60
"""Most people with a row of their own in the timeline of one input; the others share one."""
MOST_STRETCHES = 60_000
"""Most stretches of all timelines of a page together: about half a megabyte."""
QUESTIONS = 24
"""Most weak names that are shown, each with a picture."""


class FacesPanel(Panel):
    """People, presence lanes, attributes and pictures."""

    axis = "face"
    kinds: ClassVar[dict[str, str]] = {"recogniser": "embedder", "spoofing": "anti-spoofing model"}

    def __init__(self, about: About) -> None:
        super().__init__(about)
        self.confidence, self.size = Histogram(CONFIDENCE_EDGES, grows=True), Histogram(SIZE_EDGES)
        self._look: Look | None = None
        self._seen: dict[int, Seen] = {}

    def start(self, one: Surveyed) -> Sequence[str]:
        self._look = Look(one, self.confidence, self.size)
        return self._look.wanted

    def add(self, one: Surveyed, block: Block) -> None:
        assert self._look is not None
        self._look.add(block)

    def finish(self, one: Surveyed) -> None:
        assert self._look is not None
        self._seen[id(one)] = self._look.finish()
        self._look = None

    def content(self, inputs: Sequence[Surveyed]) -> Content:
        seen = [self._seen.get(id(one)) or Seen(one) for one in inputs]
        people = gather(seen)
        asked = questions(seen)
        unknown_pictures: list[str] = []
        if self.about.pictures:
            add_to_questions(asked[:QUESTIONS], seen)
            add_pictures(people, seen)
            unknown_pictures = [] if people else pictures_of_unknown(seen)
        beyond = sum(one.people_beyond for one in seen)
        n_people, n_faces = len(people) + beyond, sum(one.one.rows.get("face", 0) for one in seen)
        named = f"{grouped(sum(person.named for person in people))} named" if n_people else "not searched for"
        unknown = grouped(sum(one.unknown_faces for one in seen))
        place = {person.key: k for k, person in enumerate(people)}
        shown = fill(
            __package__, "people.html", people=[self._person(person, seen, people) for person in people],
            people_beyond=beyond, questions=[self._question(one, seen, place) for one in asked[:QUESTIONS]],
            questions_beyond=len(asked[QUESTIONS:]), unknown_pictures=unknown_pictures,
            advice=self._advice(seen, people), faces=n_faces, is_done=all(one.item.done_share == 1 for one in inputs),
        )  # fmt: skip
        sizes = {"size": self.size.drawn(), "confidence": self.confidence.drawn()}
        histograms = fill(__package__, "faces.html", **sizes)
        return Content(
            inputs=[self._input(one, place, len(seen)) for one in seen],
            subtitle="who is on screen" if any(one.one.is_timed for one in seen) else "who is in the pictures",
            tiles=[Tile("people", grouped(n_people), named)],
            notes={"face": f"{unknown} of unknown people"} if n_people else {},
            columns=["people"],
            sections=[Section("people", "People", shown, is_first=True), Section("faces", "Faces", histograms)],
            lanes=Lanes(
                [person.name for person in people], "person", "people", "everybody", "Attributes of", "person-",
                "unknown", "faces of unknown people", overview="Who is in which video",
                overview_help="the longer on screen, the fuller the colour; choose one to open its timeline",
                help="When each person was on screen, longest first, gaps up to 2 s filled. Move over it to see who;",
            ),
            histograms={name: {**drawn, "noun": "faces"} for name, drawn in sizes.items()},
            counts={("person", "people"): n_people},
            style=text_of(__package__, "faces.css"),
            script=text_of(__package__, "faces.js"),
        )  # fmt: skip

    def _input(self, one: Seen, place: dict[Any, int], n_inputs: int) -> InputContent:
        n_people = len(one.people) + one.people_beyond
        is_drawn = one.one.is_timed  # pictures have no timeline
        rows, others = (one.people[:ROWS], one.people[ROWS:]) if is_drawn else ([], [])
        most = max(200, MOST_STRETCHES // max(1, n_inputs))
        joined = join_to([presence.stretches for presence in rows], most)
        lanes = [
            {
                "of": place[presence.key],
                "seconds": round(presence.screen_seconds, 1),
                "at": coded(spans, one.one.start_seconds),
            }
            for presence, spans in zip(rows, joined, strict=True)
        ]
        series = {
            name: {
                **drawn,
                "followed": [{**part, "of": place[one.people[part["of"]].key]} for part in drawn["followed"]],
            }
            for name, drawn in one.attributes.items()
        }
        return InputContent(
            facts=[counted(n_people, "person", "people")] if n_people else [],
            cells=[grouped(n_people) if n_people else "–"],
            lanes={"rows": lanes, "others": len(others) + one.people_beyond, "rest": one.unknown if is_drawn else []},
            series=series if is_drawn else {},
        )

    # -- people --------------------------------------------------------------------------------------------------

    def _person(self, person: Person, seen: Sequence[Seen], people: Sequence[Person]) -> dict[str, Any]:
        screen, pictures = person.screen_seconds, person.pictures_with
        longest, most = people[0].screen_seconds or 1.0, max(1, *(one.pictures_with for one in people), 1)
        amounts = [lasting(screen)] if screen or not pictures else []
        amounts += [counted(pictures, "picture", "pictures")] if pictures else []
        return {
            "name": person.name,
            "named": person.named,
            "number": _number(person),
            "screen": " and ".join(amounts),
            "word": "" if pictures else "on screen",
            "share": screen / longest if screen else pictures / most,
            "appearances": person.appearances,
            "faces": person.faces,
            "inputs": len(person.inputs),
            "when": self._when(person, seen),
            "where": _named(person.names, pictures),
            "level": person.level.name.lower() if person.level else "",
            "pictures": person.pictures,
            "initials": "".join(word[0] for word in person.name.split()[:2]).upper() if person.named else "?",
            "attributes": _attributes(person, seen),
        }

    def _question(self, one: Question, seen: Sequence[Seen], place: dict[Any, int]) -> dict[str, Any]:
        presence, surveyed = one.presence, seen[one.place].one
        first, *others = presence.stretches
        when = f"{clock(first.start_seconds)[:-4]} – {clock(first.stop_seconds)[:-4]}" if first.is_timed else ""
        return {
            "name": presence.name,
            "card": place.get(presence.key),
            "pictures": one.pictures,
            "faces": presence.faces,
            "when": when + (f" and {counted(len(others), 'time', 'times')} more" if when and others else ""),
            "pictured": _named(presence.names, presence.pictures),
            "where": self.about.name_of(surveyed) if len(seen) > 1 else "",
            "metric": str(surveyed.item.arrays["identity"].attributes.get("metric", "distance")),
            "distance": presence.distance,
            "limit": presence.limit,
        }

    def _when(self, person: Person, seen: Sequence[Seen]) -> str:
        """Return the first to the last time on screen, and the inputs, if there is more than one; "" without a film."""
        if person.first is None or person.last is None:
            return ""
        (first, start), (last, stop) = person.first, person.last
        places = [f" in {self.about.name_of(seen[k].one)}" if len(seen) > 1 else "" for k in (first, last)]
        return f"{clock(start)[:-4]}{places[0] if first != last else ''} – {clock(stop)[:-4]}{places[1]}"

    def _advice(self, seen: Sequence[Seen], people: Sequence[Person]) -> list[dict[str, str]]:
        """Return what to run next if something is missing: a sentence and a command each."""
        outs = " ".join(_quoted(run.path) for run in self.about.runs)
        arrays = {name for one in seen for name in one.one.item.arrays}
        if any(one.one.rows.get("face") for one in seen) and not {"person", "identity"} & arrays:
            return [
                {
                    "text": "No face has a name yet. This groups the faces into people,",
                    "command": f"reelgraph people {outs}",
                    "more": f"reelgraph find {outs} --gallery FOLDER",
                    "more_text": "and this names those who are in a folder of photographs:",
                }
            ]
        if "person" in arrays and people and not any(person.named for person in people):
            one = next(one.one for one in seen if "person" in one.one.item.arrays)
            registry = one.run.path / str(one.item.arrays["person"].attributes.get("registry", ""))
            return [
                {
                    "text": "People have numbers so far; this gives one a name:",
                    "command": f"reelgraph people name {_number(people[0])} NAME "
                    f"--registry {_quoted(located(registry))}",
                }
            ]
        return []


def _named(names: Sequence[str], pictures: int) -> str:
    """Return the names of the first pictures in one line, and how many more there are."""
    shown = [os.path.basename(name) for name in names[:SHOWN_NAMES]]
    more = pictures - len(shown)
    return ", ".join(shown) + (f" and {grouped(more)} more" if more > 0 else "")


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _number(person: Person) -> str:
    """Return the id in the registry; empty for people whose names come from a gallery."""
    return str(person.key[-1]) if isinstance(person.key, tuple) and person.key[0] == "person" else ""


def _attributes(person: Person, seen: Sequence[Seen]) -> dict[str, Any]:
    """Return age, the likeliest class of each other attribute, and the shares of all emotions."""
    found: dict[str, Any] = {}
    for name, values in attributes_of(person).items():
        classes: list[str] = next((one.attributes[name]["classes"] for one in seen if name in one.attributes), [])
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

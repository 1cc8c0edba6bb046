"""The faces of one input in a report: who is on screen when, attributes over time, good pictures."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.faces.people.appearances import Appearance
from pipeline.faces.people.evidence import Level
from pipeline.faces.people.labels import UNKNOWN, Labels, labels, weak_labels
from pipeline.faces.people.moments import Moments
from pipeline.views.report.crops import Candidate
from pipeline.views.report.series import Histogram, Numbers, Shares
from pipeline.views.report.survey import Surveyed
from pipeline.views.tables.rows import Block

MOST_PEOPLE = 1000
"""Most people of one input that are followed one by one; of more, the least seen are only counted."""
FOLLOWED = 12
"""Number of people of one input whose attributes are drawn over time."""
MOST_FOLLOWING_INPUTS = 20
"""With more inputs than this, attributes over time are drawn of all people together only."""
ATTRIBUTE_BINS, FEWEST_ATTRIBUTE_BINS, ALL_ATTRIBUTE_BINS = 96, 16, 4_800
"""Bins of an input for attributes: most, fewest, and most for all inputs of a page together."""
SHOWN_FACES = 12
"""Number of pictures of unknown faces, if there are no people to show."""
CONFIDENCE_EDGES = np.linspace(0, 1, 41)
SIZE_EDGES = np.geomspace(8, 2048, 33)
"""Edges of the histogram of sizes: four bins per doubling, for faces of 8 to 2048 pixels."""
SHOWN_NAMES = 4
"""Most pictures that are named of a person in an input."""
_GOOD_SIZE = 160.0
"""Pixels beyond which a larger face makes no better picture."""

Floats = npt.NDArray[np.float64]
Key = Hashable


@dataclass
class Presence:
    """One person in one input."""

    key: Key
    """Key of the person, equal in all inputs and stores."""
    name: str
    named: bool
    code: int
    faces: int
    stretches: list[Appearance]
    names: list[str] = field(default_factory=list)
    """Names of the first pictures that show the person; none in a film."""
    attributes: dict[str, Any] = field(default_factory=dict)
    """By array: a mean, or percent per class."""
    candidates: list[Candidate] = field(default_factory=list)
    level: Level = Level.NONE
    """Certainty of a gallery's name; NONE for other names, and for those that were given face by face."""
    distance: float = np.nan
    limit: float = np.nan
    """The surest track of such a name has this distance, and `limit` is the largest that would be likely."""

    @property
    def screen_seconds(self) -> float:
        return sum(one.screen_seconds for one in self.stretches)

    @property
    def pictures(self) -> int:
        """Number of pictures that show the person; 0 in a film."""
        return 0 if self.stretches[0].is_timed else len(self.stretches)


@dataclass
class Seen:
    """The faces of one input."""

    one: Surveyed
    people: list[Presence] = field(default_factory=list)
    """People by screen time, longest first, or by the number of their pictures."""
    people_beyond: int = 0
    """Number of people beyond those."""
    maybe: list[Presence] = field(default_factory=list)
    """Weak names: people of a gallery who may be on screen then. Their faces count as unknown."""
    unknown_faces: int = 0
    unknown: list[float | None] = field(default_factory=list)
    """Unknown faces per sampled frame, one value per bin."""
    attributes: dict[str, Any] = field(default_factory=dict)
    shown_faces: list[Candidate] = field(default_factory=list)
    """Good pictures of unknown faces."""


class Look:
    """Goes through the faces of one input."""

    def __init__(self, one: Surveyed, confidence: Histogram, size: Histogram) -> None:
        """Scores and sizes of faces are added to the two histograms."""
        self.found, self.one, self.item, self.n_inputs = Seen(one), one, one.item, one.n_inputs
        self.confidence, self.size = confidence, size
        self.arrays, self.time, self.moments = one.item.arrays, one.time, Moments(one.item)
        self.who = labels(self.item)
        self.face_frame = self.item.array("face_frame")
        unknown = np.bincount(self.face_frame[self.who.code == UNKNOWN], minlength=len(self.time))
        self.found.unknown_faces = int(unknown.sum())
        self.found.unknown = self.one.over_time(unknown)["mean"] if unknown.any() else []
        maybe = weak_labels(self.item, self.who)
        self.found.people, self.found.people_beyond = self._presences(self.who)
        self.found.maybe, _ = self._presences(maybe)
        self.places = _places(self.who.code, self.found.people)
        self.maybe_places = _places(maybe.code, self.found.maybe)
        self.bins = self.one.bins(ATTRIBUTE_BINS, FEWEST_ATTRIBUTE_BINS, ALL_ATTRIBUTE_BINS, 3)
        self.followed = min(FOLLOWED, len(self.found.people)) if self.n_inputs <= MOST_FOLLOWING_INPUTS else 0
        self.names = [name for name, array in self.arrays.items() if array.dims[0] == "face" and _is_drawn(array)]
        self.over_time = {name: self._empty(name, self.bins.n) for name in self.names}
        self.of_people = {name: self._empty(name, len(self.found.people) + 1) for name in self.names}
        self.of_followed = {name: self._empty(name, self.bins.n * self.followed) for name in self.names}

    @property
    def wanted(self) -> list[str]:
        """Arrays that `add` reads."""
        return ["box", "landmarks", "confidence", *self.names]

    # -- people ------------------------------------------------------------------------------------------

    def _presences(self, who: Labels) -> tuple[list[Presence], int]:
        """Return the people of some labels, longest on screen first, and the number of people beyond those."""
        order = np.argsort(who.code, kind="stable")
        track = self.item.array("track") if "track" in self.arrays else None
        codes, starts, sizes = np.unique(who.code[order], return_index=True, return_counts=True)
        known = [k for k in range(len(codes)) if codes[k] != UNKNOWN]
        known.sort(key=lambda k: -int(sizes[k]))
        people = []
        for k in known[:MOST_PEOPLE]:
            code = int(codes[k])
            rows = order[starts[k] : starts[k] + sizes[k]]
            tracks = None if track is None else track[rows]
            stretches = self.moments.appearances(self.face_frame[rows], tracks)
            one = Presence(
                self._key(who, code), who.names[code], code in who.named, code, int(sizes[k]), stretches,
                **(self._evidence(rows) if who.is_of_gallery(code) else {}),
            )  # fmt: skip
            people.append(one)
        if not self.moments.is_timed:
            shown = [[each.first_frame for each in one.stretches[:SHOWN_NAMES]] for one in people]
            names = iter(self.moments.names(np.array([at for some in shown for at in some], np.int64)))
            for one, some in zip(people, shown, strict=True):
                one.names = [str(next(names)) for _ in some]
        return sorted(people, key=lambda one: (-one.screen_seconds, -one.pictures)), max(0, len(known) - MOST_PEOPLE)

    def _evidence(self, rows: npt.NDArray[np.int64]) -> dict[str, Any]:
        """Return level, distance and limit of the surest of some faces."""
        if self._judged is None:
            return {}
        level, distance, limit = (values[rows] for values in self._judged)
        best = np.lexsort((distance - limit, -level))[0]
        return {"level": Level(int(level[best])), "distance": float(distance[best]), "limit": float(limit[best])}

    @cached_property
    def _judged(self) -> tuple[npt.NDArray[Any], ...] | None:
        """Level, distance and limit of all faces; None if names were given face by face."""
        names = ("identity_level", "distance", "identity_limit")
        if not {*names} <= self.arrays.keys() or self.arrays["identity"].attributes.get("per") != "track":
            return None
        return tuple(self.item.array(name) for name in names)

    def _key(self, who: Labels, code: int) -> Key:
        """Return the key of a person. Ids count within their registry, names of a gallery everywhere."""
        if who.is_of_gallery(code):
            return "identity", who.names[code]
        attributes = self.arrays["person"].attributes
        registry = attributes.get("registry_id") or str(self.one.run.path / str(attributes.get("registry", "")))
        return "person", registry, code

    # -- faces -------------------------------------------------------------------------------------------

    def _empty(self, name: str, n: int) -> Numbers | Shares:
        shape = self.arrays[name].shape
        return Shares(n, shape[0]) if shape else Numbers(n)

    def add(self, block: Block) -> None:
        """Take the next faces."""
        place = self.places[block.rows]
        at = self.bins.of(self.time[self.face_frame[block.rows]])
        follow = place < self.followed
        for name in self.names:
            values = block.arrays[name].astype(np.float64)
            self.over_time[name].add(at, values)
            self.of_people[name].add(place, values)
            self.of_followed[name].add(place[follow] * self.bins.n + at[follow], values[follow])
        if "confidence" in block.arrays:
            self.confidence.add(block.arrays["confidence"].astype(np.float64))
        if "box" in block.arrays:
            box = block.arrays["box"].astype(np.float64)
            self.size.add(np.sqrt(np.maximum(box[:, 2] * box[:, 3], 0)))
            self._keep_best(block, box)

    def _keep_best(self, block: Block, box: Floats) -> None:
        """Keep the best face of each person in this block, and some unknown faces, spread over its time."""
        score = _picture_score(self.one.facts, box, block.arrays.get("confidence"), block.arrays.get("landmarks"))
        ranks = self.moments.number[self.face_frame[block.rows]]

        def candidate(row: int) -> Candidate:
            x, y, w, h = box[row].tolist()
            return Candidate(float(score[row]), int(ranks[row]), (x, y, w, h))

        for people, places in ((self.found.people, self.places), (self.found.maybe, self.maybe_places)):
            place = places[block.rows]
            order = np.lexsort((-score, place))
            for row in order[np.flatnonzero(np.diff(place[order], prepend=-1))].tolist():
                if place[row] < len(people) and score[row] > 0:
                    people[place[row]].candidates.append(candidate(row))
        others = np.flatnonzero(self.places[block.rows] == len(self.found.people))
        for part in np.array_split(others, SHOWN_FACES):
            if len(part) and score[part].max() > 0:
                self.found.shown_faces.append(candidate(int(part[score[part].argmax()])))

    def finish(self) -> Seen:
        """Return what was found."""
        for name in self.names:
            array = self.arrays[name]
            classes = [str(text) for text in array.attributes.get("class_names", ())]
            drawn = self.over_time[name].drawn()
            followed = [
                {"of": k, **_part(self.of_followed[name].drawn(), k * self.bins.n, self.bins.n)}
                for k in range(self.followed)
            ]
            self.found.attributes[name] = {
                "bins": self.bins.n, "classes": classes, "units": array.attributes.get("units"),
                "model": array.attributes.get("model"), "followed": followed, **drawn,
            }  # fmt: skip
            for k, presence in enumerate(self.found.people):
                presence.attributes[name] = _one(self.of_people[name], k)
        return self.found


def _places(code: npt.NDArray[np.int32], people: list[Presence]) -> npt.NDArray[np.int64]:
    """Return the index of each face's person, int64; the number of people for other faces."""
    order = np.argsort([one.code for one in people])
    codes = np.array([one.code for one in people], np.int64)[order]
    if not len(codes):
        return np.zeros(len(code), np.int64)
    at = np.minimum(np.searchsorted(codes, code), len(codes) - 1)
    return np.where(codes[at] == code, order[at], len(people))


def _one(of_people: Numbers | Shares, k: int) -> dict[str, Any]:
    """Return the sums of one person, which add up over inputs."""
    if isinstance(of_people, Numbers):
        return {"count": float(of_people.sums[0, k]), "sum": of_people.sums[1, k : k + 1].tolist()}
    return {"count": float(of_people.counts[k]), "sum": of_people.sums[k].tolist()}


def _part(drawn: dict[str, Any], start: int, n: int) -> dict[str, Any]:
    return {
        key: [one[start : start + n] for one in values] if key == "shares" else values[start : start + n]
        for key, values in drawn.items()
    }


def _is_drawn(array: Any) -> bool:
    """Return whether an array has a meaning over time: ages, or classes with probabilities."""
    if array.name == "age":
        return not array.shape
    classes = array.attributes.get("class_names")
    return bool(classes) and array.shape == (len(classes),)


def _picture_score(
    facts: dict[str, Any], box: Floats, confidence: npt.NDArray[Any] | None, landmarks: npt.NDArray[Any] | None
) -> Floats:
    """Return float64 (n,): the score as a picture; large, sure, inside the frame and frontal is best."""
    x, y, w, h = box.T
    score = np.minimum(np.sqrt(np.maximum(w * h, 0)), _GOOD_SIZE)
    if confidence is not None:
        score = score * np.clip(confidence, 0.01, 1) ** 2
    width, height = facts.get("width") or np.inf, facts.get("height") or np.inf
    inside = (x >= 0) & (y >= 0) & (x + w <= width) & (y + h <= height)
    score = np.where(inside, score, score / 3)
    if landmarks is not None and len(landmarks):
        eyes, nose = landmarks[:, :2].astype(np.float64), landmarks[:, 2, 0]
        apart = np.maximum(np.abs(eyes[:, 1, 0] - eyes[:, 0, 0]), 1e-3)
        turned = np.abs(nose - eyes[:, :, 0].mean(axis=1)) / apart
        score = score * np.clip(1.1 - np.nan_to_num(turned, nan=0.5), 0.1, 1)
    return np.asarray(np.nan_to_num(score, nan=0.0), np.float64)

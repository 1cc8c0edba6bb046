"""The facts of one input for a report: who is on screen when, faces per frame, attributes over time, gaps."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.faces.people.appearances import Appearance, appearances, frame_seconds
from pipeline.faces.people.labels import UNKNOWN, Labels, labels
from pipeline.faces.views.face_rows import Block, blocks
from pipeline.faces.views.report.series import Bins, Histogram, Numbers, Shares, per_frame
from pipeline.text import parse_seconds

if TYPE_CHECKING:
    from pipeline.store.read import Run, RunInput
    from pipeline.views.progress import Work

MOST_PEOPLE = 1000
"""Most people of one input that are followed one by one; of more, the least seen are only counted."""
FOLLOWED = 12
"""Number of people of one input whose attributes are drawn over time."""
MOST_FOLLOWING_INPUTS = 20
"""With more inputs than this, attributes over time are drawn of all people together only."""
MOST_BINS, FEWEST_BINS, ALL_BINS = 600, 40, 24_000
"""Bins of an input for faces per frame: most, fewest, and most for all inputs of a page together."""
ATTRIBUTE_BINS, FEWEST_ATTRIBUTE_BINS, ALL_ATTRIBUTE_BINS = 96, 16, 4_800
"""Bins of an input for attributes: most, fewest, and most for all inputs of a page together."""
SHOWN_FACES = 12
"""Number of pictures of unknown faces, if there are no people to show."""
CONFIDENCE_EDGES = np.linspace(0, 1, 41)
SIZE_EDGES = np.geomspace(8, 2048, 33)
"""Edges of the histogram of sizes: four bins per doubling, for faces of 8 to 2048 pixels."""
_GOOD_SIZE = 160.0
"""Pixels beyond which a larger face makes no better picture."""

Floats = npt.NDArray[np.float64]
Key = Hashable


@dataclass(frozen=True)
class Candidate:
    """A face that would make a good picture of a person."""

    score: float
    rank: int
    """Rank of the frame in the file."""
    box: tuple[float, float, float, float]


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
    attributes: dict[str, Any] = field(default_factory=dict)
    """By array: a mean, or percent per class."""
    candidates: list[Candidate] = field(default_factory=list)

    @property
    def screen_seconds(self) -> float:
        return sum(one.screen_seconds for one in self.stretches)


@dataclass
class Surveyed:
    """The facts of one input."""

    run: Run
    item: RunInput
    facts: dict[str, Any]
    people: list[Presence] = field(default_factory=list)
    """People by screen time, longest first."""
    people_beyond: int = 0
    """Number of people beyond those."""
    start_seconds: float = 0.0
    stop_seconds: float = 0.0
    frames: int = 0
    """Number of sampled frames that were read."""
    faces: int = 0
    unknown_faces: int = 0
    unknown: list[float | None] = field(default_factory=list)
    """Unknown faces per sampled frame, one value per bin."""
    counts: dict[str, Any] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    gaps: list[tuple[float, float, str]] = field(default_factory=list)
    """Seconds from, to, and the reason why results are missing: todo, failed, unread."""
    failures: list[dict[str, Any]] = field(default_factory=list)
    shown_faces: list[Candidate] = field(default_factory=list)
    """Good pictures of unknown faces."""


def survey(
    run: Run, item: RunInput, shown: str, work: Work, *, n_inputs: int, confidence: Histogram, size: Histogram
) -> Surveyed:
    """Read one input of a report with `n_inputs`, in blocks; add faces' scores and sizes to the two histograms.

    Raises StoreError if an array is damaged.
    """
    work.started(shown, item.frames_done)
    found = Surveyed(run, item, item.attributes)
    if "time_seconds" in item.arrays:
        _Survey(found, n_inputs, confidence, size).read(work, shown)
    else:
        found.start_seconds, found.stop_seconds = _planned(run, found.facts)
    _find_gaps(found)
    work.finished(shown)
    return found


class _Survey:
    """The state while one input is read."""

    def __init__(self, found: Surveyed, n_inputs: int, confidence: Histogram, size: Histogram) -> None:
        self.found, self.item, self.n_inputs = found, found.item, n_inputs
        self.confidence, self.size = confidence, size
        self.arrays = self.item.arrays
        self.time: Floats = self.item.array("time_seconds")
        found.frames = len(self.time)
        found.start_seconds, found.stop_seconds = self._bounds()

    def _bounds(self) -> tuple[float, float]:
        if len(self.time) == 0:
            return _planned(self.found.run, self.found.facts)
        start, stop = float(self.time[0]), float(self.time[-1] + frame_seconds(self.time)[-1])
        if self.item.complete:
            return start, stop
        planned = _planned(self.found.run, self.found.facts)
        return min(start, planned[0]), max(stop, planned[1])

    def _bins(self, most: int, fewest: int, together: int, frames_each: int) -> Bins:
        share = self.found.frames / max(1, self.item.frames_total)
        n = max(fewest, min(most, together // max(1, self.n_inputs)))
        n = max(1, min(n, round(self.found.frames / max(share, 1e-3)) // frames_each))
        return Bins(self.found.start_seconds, self.found.stop_seconds, n)

    def read(self, work: Work, shown: str) -> None:
        if "n_faces" not in self.arrays:
            return
        who = labels(self.item)
        self._count(who)
        self._find_people(who)
        self._start_attributes()
        for block in blocks(
            self.item, [n for n in ("box", "landmarks", "confidence") if n in self.arrays] + self.names
        ):
            self._add_faces(block, who.code[block.rows], block.arrays["time_seconds"][block.frame_of_face])
            work.done(shown, block.n_frames, {"face": block.n_faces})
        self._finish_attributes()

    def _count(self, who: Labels) -> None:
        bins = self._bins(MOST_BINS, FEWEST_BINS, ALL_BINS, 1)
        stands = frame_seconds(self.time)
        self.face_frame = self.item.array("face_frame")
        nobody = np.bincount(self.face_frame[who.code == UNKNOWN], minlength=len(self.time))
        self.found.faces = len(who.code)
        self.found.unknown_faces = int(nobody.sum())
        self.found.counts = per_frame(bins, self.time, stands, self.item.array("n_faces"))
        self.found.unknown = per_frame(bins, self.time, stands, nobody)["mean"] if nobody.any() else []

    # -- people ------------------------------------------------------------------------------------------

    def _find_people(self, who: Labels) -> None:
        order = np.argsort(who.code, kind="stable")
        codes, starts, sizes = np.unique(who.code[order], return_index=True, return_counts=True)
        known = [k for k in range(len(codes)) if codes[k] != UNKNOWN]
        known.sort(key=lambda k: -int(sizes[k]))
        self.found.people_beyond = max(0, len(known) - MOST_PEOPLE)
        people = []
        for k in known[:MOST_PEOPLE]:
            code = int(codes[k])
            present = np.zeros(len(self.time), bool)
            present[self.face_frame[order[starts[k] : starts[k] + sizes[k]]]] = True
            people.append(
                Presence(
                    self._key(who, code), who.names[code], code in who.named, code, int(sizes[k]),
                    appearances(present, self.time),
                )
            )  # fmt: skip
        self.found.people = sorted(people, key=lambda one: -one.screen_seconds)
        self.codes = np.array(sorted(one.code for one in people), np.int64)
        place = {one.code: k for k, one in enumerate(self.found.people)}
        self.place = np.array([place[int(code)] for code in self.codes], np.int64)

    def _key(self, who: Labels, code: int) -> Key:
        """Return the key of a person. Ids count within their registry, names of a gallery everywhere."""
        if who.source == "identity":
            return "identity", who.names[code]
        attributes = self.arrays["person"].attributes
        registry = attributes.get("registry_id") or str(self.found.run.path / str(attributes.get("registry", "")))
        return "person", registry, code

    def _places(self, code: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
        """Return the index in `found.people` of each face's person, int64; the number of people for other faces."""
        at = np.minimum(np.searchsorted(self.codes, code), max(0, len(self.codes) - 1))
        nobody = len(self.codes)
        if nobody == 0:
            return np.zeros(len(code), np.int64)
        return np.where(self.codes[at] == code, self.place[at], nobody)

    # -- faces -------------------------------------------------------------------------------------------

    def _start_attributes(self) -> None:
        self.bins = self._bins(ATTRIBUTE_BINS, FEWEST_ATTRIBUTE_BINS, ALL_ATTRIBUTE_BINS, 3)
        self.followed = min(FOLLOWED, len(self.found.people)) if self.n_inputs <= MOST_FOLLOWING_INPUTS else 0
        self.names = [name for name, array in self.arrays.items() if array.dims[0] == "face" and _is_drawn(array)]
        self.over_time = {name: self._empty(name, self.bins.n) for name in self.names}
        self.of_people = {name: self._empty(name, len(self.found.people) + 1) for name in self.names}
        self.of_followed = {name: self._empty(name, self.bins.n * self.followed) for name in self.names}

    def _empty(self, name: str, n: int) -> Numbers | Shares:
        shape = self.arrays[name].shape
        return Shares(n, shape[0]) if shape else Numbers(n)

    def _add_faces(self, block: Block, code: npt.NDArray[np.int32], at_seconds: Floats) -> None:
        place, at = self._places(code), self.bins.of(at_seconds)
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
            self._keep_best(block, place, box)

    def _keep_best(self, block: Block, place: npt.NDArray[np.int64], box: Floats) -> None:
        """Keep the best face of each person in this block, and some unknown faces, spread over its time."""
        score = _picture_score(self.found.facts, box, block.arrays.get("confidence"), block.arrays.get("landmarks"))
        order = np.lexsort((-score, place))
        first = order[np.flatnonzero(np.diff(place[order], prepend=-1))]
        ranks = block.arrays["frame"][block.frame_of_face]

        def candidate(row: int) -> Candidate:
            x, y, w, h = box[row].tolist()
            return Candidate(float(score[row]), int(ranks[row]), (x, y, w, h))

        for row in first.tolist():
            if place[row] < len(self.found.people) and score[row] > 0:
                self.found.people[place[row]].candidates.append(candidate(row))
        nobody = np.flatnonzero(place == len(self.found.people))
        for part in np.array_split(nobody, SHOWN_FACES):
            if len(part) and score[part].max() > 0:
                self.found.shown_faces.append(candidate(int(part[score[part].argmax()])))

    def _finish_attributes(self) -> None:
        for name in self.names:
            array = self.arrays[name]
            classes = [str(text) for text in array.attributes.get("class_names", ())]
            drawn = self.over_time[name].drawn()
            followed = [
                {"person": k, **_part(self.of_followed[name].drawn(), k * self.bins.n, self.bins.n)}
                for k in range(self.followed)
            ]
            self.found.attributes[name] = {
                "bins": self.bins.n, "classes": classes, "units": array.attributes.get("units"),
                "model": array.attributes.get("model"), "followed": followed, **drawn,
            }  # fmt: skip
            for k, presence in enumerate(self.found.people):
                presence.attributes[name] = _one(self.of_people[name], k)


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


# -- what is missing ---------------------------------------------------------------------------------------------


def _planned(run: Run, facts: dict[str, Any]) -> tuple[float, float]:
    """Return the seconds from and to of the planned samples of an input, as far as its facts say."""
    source = run.attributes.get("workflow", {}).get("source", {})
    start = float(facts.get("start_seconds") or 0.0)
    stop = start + float(facts.get("duration_seconds") or 0.0)
    wanted = [_seconds(source.get(name)) for name in ("start", "stop")]
    start = max(start, wanted[0]) if wanted[0] is not None else start
    stop = min(stop, wanted[1]) if wanted[1] is not None else stop
    return start, max(start, stop)


def _seconds(value: Any) -> float | None:
    return parse_seconds(value) if isinstance(value, str) else value


def _find_gaps(found: Surveyed) -> None:
    """Find time ranges without results: frames that no chunk holds, failed chunks, frames that could not be read."""
    item = found.item
    spans = list(item.spans(1 << 40))
    time, frame, decoded = _frame_facts(item)
    total = item.frames_total
    positions = np.concatenate([np.arange(a, b) for a, b in spans]) if spans else np.empty(0, np.int64)

    known_at = np.concatenate([[0.0], positions, [float(max(total, 1))]])
    known = np.concatenate([[found.start_seconds], time, [found.stop_seconds]])

    def at(position: float) -> float:
        """Return the seconds of a position along the frame axis: as stored, else in proportion."""
        return float(np.interp(position, known_at, known))

    failed = [(entry, entry.get("frames")) for entry in item.failures]
    holes = _holes(spans, total)
    for hole in holes:
        if not any(frames and frames[0] <= hole[0] and hole[1] <= frames[1] for _, frames in failed):
            found.gaps.append((at(hole[0]), at(hole[1]), "todo"))
    for entry, frames in failed:
        stored = entry.get("time_seconds") or (None, None)
        start, stop = (at(frames[0]), at(frames[1])) if frames else stored
        found.failures.append(_failure("failed", (start, stop), entry, frames[1] - frames[0] if frames else None))
        if start is not None and stop is not None:
            found.gaps.append((float(start), float(stop), "failed"))
    for entry in item.unreadable:
        ranks = np.asarray(entry["frames"])
        rows = np.flatnonzero(np.isin(frame, ranks))
        ends = (float(time[rows[0]]), float(time[rows[-1]])) if len(rows) else (None, None)
        found.failures.append(_failure("unread", ends, entry, len(ranks)))
    if len(time):
        spans_of = frame_seconds(time)
        for first, last in _runs(~decoded):
            found.gaps.append((float(time[first]), float(time[last] + spans_of[last]), "unread"))


def _failure(kind: str, seconds: Sequence[Any], entry: dict[str, Any], frames: int | None) -> dict[str, Any]:
    return {
        "kind": kind,
        "chunk": entry.get("chunk"),
        "start": seconds[0],
        "stop": seconds[1],
        "frames": frames,
        "error": str(entry.get("error") or "no reason was given"),
    }


def _frame_facts(item: RunInput) -> tuple[Floats, npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    if "time_seconds" not in item.arrays:
        return np.empty(0), np.empty(0, np.int64), np.empty(0, bool)
    read = item.read(["time_seconds", "frame", "decoded"])
    return read["time_seconds"], read["frame"], read["decoded"]


def _holes(spans: Sequence[tuple[int, int]], total: int) -> list[tuple[int, int]]:
    """Return (start, stop) of the positions between and after the spans."""
    edges = [0, *(edge for span in spans for edge in span), total]
    return [(edges[k], edges[k + 1]) for k in range(0, len(edges), 2) if edges[k + 1] > edges[k]]


def _runs(flags: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return (first, last), inclusive, of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(a), int(b) - 1) for a, b in edges.reshape(-1, 2)]

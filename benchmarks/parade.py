"""Clips of people with known truth: the data folder's clips of signers, and clips drawn from labelled photographs.

A parade has short shots with pans and zooms, hard cuts, one to three people side by side, a face hidden for a moment,
the same person again with another photograph. A film of photographs shows one after the other at one place, each for
half a second.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from harness import encode, labels_in

from pipeline.media.boxes import overlap

WIDTH, HEIGHT, FPS = 960, 540, 25
SEED = 4
ASL_SHOTS = ((0, "A"), (58, "B"), (109, "D"), (177, "A"))
"""First frame of each shot of asl_parade_dev.mp4, and who is in it (MANIFEST.md of the data folder)."""
ASL_COLUMNS, ASL_COLUMN_PIXELS = ("A", "B", "D"), 320
"""Signers of asl_grid_dev.mp4, column by column."""


@dataclass(frozen=True)
class Photograph:
    """One labelled face."""

    path: Path
    identity: str
    face: tuple[float, float, float, float]
    """x, y, w, h of the labelled (largest) face in pixels of the photograph."""


@dataclass(frozen=True)
class Shown:
    """One photograph within a shot, with its face's place at the shot's start and end."""

    photograph: Photograph
    cell: tuple[int, int, int, int]
    """left, top, width, height of the part of the frame that it fills, in pixels."""
    first: tuple[float, float, float]
    """Centre of the face as shares of the cell, and height of its box as a share of the cell's height, at the start."""
    last: tuple[float, float, float]
    """The same at the end."""
    hidden: tuple[float, float] | None
    """Shares of the shot's length between which something covers the face."""


@dataclass(frozen=True)
class Shot:
    """Frames between two cuts."""

    start: int
    """First frame, inclusive."""
    stop: int
    """Exclusive."""
    shown: tuple[Shown, ...]


@dataclass(frozen=True)
class Truth:
    """The visible faces of one clip."""

    frame: np.ndarray
    """int64 (n,): frame of each visible face, ascending."""
    box: np.ndarray
    """float32 (n, 4): x, y, w, h in pixels."""
    identity: list[str]
    """(n,)."""

    def save(self, path: Path) -> None:
        content = {"frame": self.frame.tolist(), "box": self.box.round(1).tolist(), "identity": self.identity}
        path.write_text(json.dumps(content), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Truth:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        box = np.asarray(content["box"], np.float32).reshape(-1, 4)
        return cls(np.asarray(content["frame"], np.int64), box, content["identity"])


def signer(stem: str, frame: int, centre: float) -> tuple[str, str] | None:
    """Return the shot and the person of a face in one of the data folder's clips of signers; None for other clips.

    `centre`: x of the middle of the face, in pixels.
    """
    if "asl_parade" in stem:
        shot = max(k for k, (first, _) in enumerate(ASL_SHOTS) if first <= frame)
        return f"parade {shot}", ASL_SHOTS[shot][1]
    if "asl_grid" in stem:
        column = int(centre // ASL_COLUMN_PIXELS)
        return f"grid {column}", ASL_COLUMNS[column]
    match = re.match(r"asl_([A-Z])_", stem)
    return (stem, match[1]) if match else None


def labelled_photographs(folder: Path, rows: Sequence[Mapping[str, str]], middle: bool = False) -> list[Photograph]:
    """Return the photographs of some rows (identity, path) in which the bundled detector finds a face.

    The labelled face is the largest, or the nearest to the middle of the picture.
    """
    from pipeline.faces.models import create_detector
    from pipeline.machine.device import Device

    detector = create_detector("mtcnn", Device("cpu", 0))
    found = []
    for row in rows:
        picture = cv2.imread(str(folder / row["path"]))
        if picture is None:
            continue
        scale = min(1.0, 800 / max(picture.shape[:2]))
        small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        boxes = detector.detect(np.ascontiguousarray(small[None, :, :, ::-1])).box
        if len(boxes):
            away = np.linalg.norm(boxes[:, :2] + boxes[:, 2:] / 2 - np.array(small.shape[1::-1]) / 2, axis=1)
            which = away.argmin() if middle else np.argmax(boxes[:, 2] * boxes[:, 3])
            x, y, w, h = (boxes[which] / scale).tolist()
            found.append(Photograph(folder / row["path"], row["identity"], (x, y, w, h)))
    return found


def plan_shots(photographs: Sequence[Photograph], n_shots: int, seed: int = SEED) -> list[Shot]:
    """Return shots of 1 to 4 s without anyone twice in one; the same shots for the same photographs and seed."""
    rng = np.random.default_rng(seed)

    def waypoint() -> tuple[float, float, float]:
        # A face box of at most 0.5 of the height is 0.4 of it wide: it stays inside a cell a third of the frame wide.
        height = float(rng.uniform(0.16, 0.42))
        return float(rng.uniform(0.38, 0.62)), float(rng.uniform(0.35, 0.65)), height

    identities = sorted({one.identity for one in photographs})
    of = {identity: [one for one in photographs if one.identity == identity] for identity in identities}
    shots, start = [], 0
    for _ in range(n_shots):
        length = int(rng.integers(FPS, 4 * FPS))
        count = min(int(rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15])), len(identities))
        shown = []
        for k, chosen in enumerate(rng.choice(len(identities), size=count, replace=False).tolist()):
            mine = of[identities[chosen]]
            cell = (k * WIDTH // count, 0, WIDTH // count, HEIGHT)
            photograph = mine[int(rng.integers(len(mine)))]
            begins = float(rng.uniform(0.2, 0.5)) if rng.random() < 0.25 else None
            hidden = None if begins is None else (begins, begins + 0.25)
            shown.append(Shown(photograph, cell, waypoint(), waypoint(), hidden))
        shots.append(Shot(start, start + length, tuple(shown)))
        start += length
    return shots


def films(folder: Path, count: int, n_people: int = 15, n_shots: int = 70, seed: int = 7) -> Iterator[list[Shot]]:
    """Yield the shots of films of photographs, each with other people of `labels.csv`; the same for the same seed."""
    rng = np.random.default_rng(seed)
    of: dict[str, list[dict[str, str]]] = {}
    for row in labels_in([folder / "labels.csv"], {"identity", "path"}):
        of.setdefault(row["identity"], []).append(row)
    order = rng.permutation([identity for identity in sorted(of) if len(of[identity]) >= 4])
    for k in range(count):
        rows = [row for identity in order[k * n_people : (k + 1) * n_people] for row in of[identity][:6]]
        photographs = labelled_photographs(folder, rows, middle=True)
        shots: list[Shot] = []
        for at in rng.permutation(len(photographs))[:n_shots].tolist():
            start, length, last = shots[-1].stop if shots else 0, int(rng.integers(12, 18)), rng.uniform(-0.03, 0.03)
            shown = Shown(photographs[at], (320, 0, 320, HEIGHT), (0.5, 0.5, 0.4), (0.5 + last, 0.5, 0.4), None)
            shots.append(Shot(start, start + length, (shown,)))
        yield shots


def make_clip(path: Path, shots: Sequence[Shot], fps: int = FPS) -> Truth:
    """Draw the shots into an H.264 mp4; return the truth, and write it beside the clip."""
    import av

    faces: list[tuple[int, list[float], str]] = []

    def frames() -> Iterator[Any]:
        for shot in shots:
            pictures = [prepared(one) for one in shot.shown]
            for index in range(shot.start, shot.stop):
                share = (index - shot.start) / max(1, shot.stop - shot.start - 1)
                frame = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
                for one, (picture, shrunk) in zip(shot.shown, pictures, strict=True):
                    box = _draw(frame, one, picture, shrunk, share)
                    if one.hidden is not None and one.hidden[0] <= share < one.hidden[1]:
                        x, y, w, h = (round(value) for value in box)
                        low, high = (x - w // 4, y - h // 4), (x + w + w // 4, y + h + h // 4)
                        cv2.rectangle(frame, low, high, (96, 84, 70), -1)
                    else:
                        faces.append((index, box, one.photograph.identity))
                yield av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p")

    def prepared(one: Shown) -> tuple[np.ndarray, float]:
        """Return the photograph, uint8 RGB, shrunk to twice the largest size at which it is shown, and the factor."""
        picture = np.ascontiguousarray(cv2.imread(str(one.photograph.path))[:, :, ::-1])
        largest = max(one.first[2], one.last[2]) * one.cell[3] / one.photograph.face[3]
        shrunk = min(1.0, 2 * largest)  # a linear warp alone would alias
        if shrunk < 1:
            picture = cv2.resize(picture, None, fx=shrunk, fy=shrunk, interpolation=cv2.INTER_AREA)
        return picture, shrunk

    path.parent.mkdir(parents=True, exist_ok=True)
    # A cut need not be a key frame: encoders put them where they like.
    encode(path, frames(), (WIDTH, HEIGHT), fps=fps, crf="23", g="250", threads="1", sc_threshold="0")
    box = np.array([box for _, box, _ in faces], np.float32).reshape(-1, 4)
    made = Truth(np.array([frame for frame, _, _ in faces], np.int64), box, [identity for _, _, identity in faces])
    made.save(truth_path(path))
    return made


def truth_path(clip: Path) -> Path:
    return clip.with_suffix(".truth.json")


def _draw(frame: np.ndarray, one: Shown, picture: np.ndarray, shrunk: float, share: float) -> list[float]:
    """Draw a photograph into its cell; return the face's box in the frame: x, y, w, h."""
    left, top, width, height = one.cell
    x, y, w, h = one.photograph.face
    at = np.asarray(one.first) + (np.asarray(one.last) - np.asarray(one.first)) * share
    scale = float(at[2] * height / h)
    centre = np.array([at[0] * width, at[1] * height])
    shift = centre - scale * np.array([x + w / 2, y + h / 2])
    place = np.array([[scale / shrunk, 0, shift[0]], [0, scale / shrunk, shift[1]]])
    frame[top : top + height, left : left + width] = cv2.warpAffine(
        picture, place, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    size = scale * np.array([w, h])
    return [*(np.array([left, top]) + centre - size / 2).tolist(), *size.tolist()]


def identities_of(truth: Truth, frame: np.ndarray, face_frame: np.ndarray, box: np.ndarray) -> list[str | None]:
    """Return (n_faces,) the identity whose true box each stored face overlaps most, by at least 0.3; else None."""
    rows: dict[int, list[int]] = {}
    for row, at in enumerate(truth.frame.tolist()):
        rows.setdefault(at, []).append(row)
    found: list[str | None] = []
    for rank, one in zip(frame[face_frame].tolist(), box, strict=True):
        mine = rows.get(rank, [])
        shares = overlap(one[None], truth.box[mine])[0] if mine else np.empty(0)
        found.append(truth.identity[mine[int(shares.argmax())]] if len(shares) and shares.max() >= 0.3 else None)
    return found

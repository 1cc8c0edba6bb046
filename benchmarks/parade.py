"""Clips of people with known truth, drawn from labelled photographs: short shots with pans and zooms, hard cuts, one to
three people side by side, somebody hidden for a moment, the same person again with another photograph."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.faces.people.geometry import overlap

WIDTH, HEIGHT, FPS = 960, 540, 25
KEY_FRAME_INTERVAL = 250
"""A cut need not be a key frame: encoders put them where they like."""
SEED = 4


@dataclass(frozen=True)
class Photograph:
    """One labelled face."""

    path: Path
    identity: str
    face: tuple[float, float, float, float]
    """x, y, w, h of the labelled (largest) face in pixels of the photograph."""


@dataclass(frozen=True)
class Shown:
    """One photograph within a shot: what its face's box is at the shot's start and end."""

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
    """Who is where in one clip."""

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


def labelled_photographs(folder: Path) -> list[Photograph]:
    """Photographs of `labels.csv` (columns identity, path) in which the bundled detector finds a face."""
    import cv2

    from pipeline.faces.models import create_detector
    from pipeline.machine.device import Device

    detector = create_detector("mtcnn", Device("cpu", 0))
    found = []
    with (folder / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        picture = cv2.imread(str(folder / row["path"]))
        if picture is None:
            continue
        scale = min(1.0, 800 / max(picture.shape[:2]))
        small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        boxes = detector.detect(np.ascontiguousarray(small[None, :, :, ::-1])).box
        if len(boxes):
            box = boxes[np.argmax(boxes[:, 2] * boxes[:, 3])] / scale
            x, y, w, h = (float(value) for value in box)
            found.append(Photograph(folder / row["path"], row["identity"], (x, y, w, h)))
    return found


def plan_shots(photographs: Sequence[Photograph], n_shots: int, seed: int = SEED) -> list[Shot]:
    """Shots of 1 to 4 s; nobody twice in one shot. The same shots for the same photographs and seed."""
    rng = np.random.default_rng(seed)
    identities = sorted({one.identity for one in photographs})
    of = {identity: [one for one in photographs if one.identity == identity] for identity in identities}
    shots, start = [], 0
    for _ in range(n_shots):
        length = int(rng.integers(FPS, 4 * FPS))
        count = int(rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15]))
        chosen = rng.choice(len(identities), size=min(count, len(identities)), replace=False)
        cells = [(k * WIDTH // len(chosen), 0, WIDTH // len(chosen), HEIGHT) for k in range(len(chosen))]
        shown = []
        for k, cell in zip(chosen, cells, strict=True):
            mine = of[identities[int(k)]]
            shown.append(_shown(mine[int(rng.integers(len(mine)))], cell, rng))
        shots.append(Shot(start, start + length, tuple(shown)))
        start += length
    return shots


def _shown(photograph: Photograph, cell: tuple[int, int, int, int], rng: np.random.Generator) -> Shown:
    def waypoint() -> tuple[float, float, float]:
        # A face box of at most 0.5 of the height is 0.4 of it wide: it stays inside a cell a third of the frame wide.
        height = float(rng.uniform(0.16, 0.42))
        return float(rng.uniform(0.38, 0.62)), float(rng.uniform(0.35, 0.65)), height

    hidden = None
    if rng.random() < 0.25:
        begins = float(rng.uniform(0.2, 0.5))
        hidden = (begins, begins + 0.25)
    return Shown(photograph, cell, waypoint(), waypoint(), hidden)


def make_clip(path: Path, shots: Sequence[Shot], fps: int = FPS) -> Truth:
    """Draw the shots into an H.264 mp4 and return (and write beside it) who is where."""
    import av

    truth: list[tuple[int, list[float], str]] = []
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as container:
        options = {"crf": "23", "preset": "veryfast", "threads": "1", "sc_threshold": "0"}
        stream = container.add_stream("libx264", rate=Fraction(fps), options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.gop_size = KEY_FRAME_INTERVAL
        for shot in shots:
            for pixels, faces in _frames(shot):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
                truth += faces
        container.mux(stream.encode(None))
    made = Truth(
        np.array([frame for frame, _, _ in truth], np.int64),
        np.array([box for _, box, _ in truth], np.float32).reshape(-1, 4),
        [identity for _, _, identity in truth],
    )
    made.save(truth_path(path))
    return made


def truth_path(clip: Path) -> Path:
    return clip.with_suffix(".truth.json")


def _frames(shot: Shot) -> Iterator[tuple[np.ndarray, list[tuple[int, list[float], str]]]]:
    import cv2

    pictures = [_prepared(one) for one in shot.shown]
    for index in range(shot.start, shot.stop):
        share = (index - shot.start) / max(1, shot.stop - shot.start - 1)
        frame = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
        faces = []
        for one, (picture, shrunk) in zip(shot.shown, pictures, strict=True):
            box = _draw(frame, one, picture, shrunk, share)
            if one.hidden is not None and one.hidden[0] <= share < one.hidden[1]:
                x, y, w, h = (round(value) for value in box)
                cv2.rectangle(frame, (x - w // 4, y - h // 4), (x + w + w // 4, y + h + h // 4), (96, 84, 70), -1)
            else:
                faces.append((index, [float(value) for value in box], one.photograph.identity))
        yield frame, faces


def _prepared(one: Shown) -> tuple[np.ndarray, float]:
    """The photograph, uint8 RGB, shrunk to twice the largest size at which it is shown (a linear warp alone would
    alias), and by how much."""
    import cv2

    picture = np.ascontiguousarray(cv2.imread(str(one.photograph.path))[:, :, ::-1])
    largest = max(one.first[2], one.last[2]) * one.cell[3] / one.photograph.face[3]
    shrunk = min(1.0, 2 * largest)
    if shrunk < 1:
        picture = cv2.resize(picture, None, fx=shrunk, fy=shrunk, interpolation=cv2.INTER_AREA)
    return picture, shrunk


def _draw(frame: np.ndarray, one: Shown, picture: np.ndarray, shrunk: float, share: float) -> np.ndarray:
    """Draw a photograph into its cell; float64 (4,): the face's box in the frame."""
    import cv2

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
    corner = np.array([left, top]) + centre - size / 2
    return np.concatenate([corner, size])


def identities_of(truth: Truth, frame: np.ndarray, face_frame: np.ndarray, box: np.ndarray) -> list[str | None]:
    """(n_faces,): whose face each stored face is: that whose true box it overlaps most, by at least 0.3; else None."""
    rows: dict[int, list[int]] = {}
    for row, at in enumerate(truth.frame.tolist()):
        rows.setdefault(at, []).append(row)
    found: list[str | None] = []
    for rank, one in zip(frame[face_frame].tolist(), box, strict=True):
        mine = rows.get(rank, [])
        shares = overlap(one[None], truth.box[mine])[0] if mine else np.empty(0)
        found.append(truth.identity[mine[int(shares.argmax())]] if len(shares) and shares.max() >= 0.3 else None)
    return found

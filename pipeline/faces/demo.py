"""A demo clip with known truth: two photographed faces that move on known paths, for a first run without any video."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from pipeline.files.whole import made_folder

Pixels = npt.NDArray[np.uint8]

KEY_FRAME_INTERVAL = 50
COUNTER_BITS = 16
"""Bits of the printed frame counter; the highest comes first."""
COUNTER_BLOCK_PIXELS = 12
"""Side of one block of the counter; the row starts this far from the left and lower border."""


@dataclass(frozen=True)
class Waypoint:
    """Position of the centre of a face at one moment. All four are shares, so that a path fits every clip."""

    time: float
    """Share of the clip's length, 0 to 1."""
    x: float
    """Share of the frame's width; below 0 or above 1 is outside the picture."""
    y: float
    """Share of the frame's height."""
    height: float
    """Height of the face box as a share of the frame's height."""


@dataclass(frozen=True)
class Actor:
    """One photograph, its face, and the path that the face takes through the clip."""

    name: str
    face: tuple[float, float, float, float]
    """x, y, w, h of the face in the photograph in pixels, by the `mtcnn` package's detector."""
    radius: float
    """Radius of the round cut-out about the centre of the face, in face heights."""
    path: tuple[Waypoint, ...]


# Both are works of NASA and of the US Navy, in the public domain; each comes inside a pip package.
PEOPLE = (
    Actor("Eileen Collins", (182.0, 64.0, 83.0, 107.0), 1.05, (
        Waypoint(0.03, -0.20, 0.45, 0.22), Waypoint(0.22, 0.30, 0.40, 0.30),
        Waypoint(0.40, 0.24, 0.58, 0.24), Waypoint(0.58, -0.20, 0.50, 0.22),
        Waypoint(0.76, -0.12, 0.68, 0.13), Waypoint(0.89, 0.33, 0.62, 0.15),
        Waypoint(1.00, 0.38, 0.40, 0.12),
    )),
    Actor("Grace Hopper", (178.0, 110.0, 173.0, 220.0), 0.9, (
        Waypoint(0.20, 1.20, 0.42, 0.22), Waypoint(0.38, 0.72, 0.46, 0.30),
        Waypoint(0.54, 0.62, 0.50, 0.42), Waypoint(0.60, 0.58, 0.46, 0.34),
        Waypoint(0.74, 0.60, -0.35, 0.28), Waypoint(0.75, 1.30, -0.40, 0.13),
        Waypoint(0.76, 1.12, 0.30, 0.13), Waypoint(0.90, 0.70, 0.36, 0.14),
        Waypoint(1.00, 0.66, 0.55, 0.16),
    )),
)  # fmt: skip


@dataclass(frozen=True)
class DemoTruth:
    """The truth of a demo clip, frame by frame."""

    path: Path
    """The clip."""
    fps: int
    size: tuple[int, int]
    """Width, height in pixels."""
    people: tuple[str, ...]
    box: npt.NDArray[np.float32]
    """float32 (n_frames, n_people, 4): x, y, w, h of each face in pixels; may lie outside the frame."""
    visibility: npt.NDArray[np.float32]
    """float32 (n_frames, n_people): the share of the face box that lies within the frame; 1 is a whole face."""

    @property
    def n_frames(self) -> int:
        return len(self.box)

    def save(self, path: Path) -> None:
        """Write the truth as JSON; numbers keep a hundredth of a pixel."""
        content = {
            **{"clip": self.path.name, "fps": self.fps, "size": list(self.size), "people": list(self.people)},
            "box": self.box.astype(float).round(2).tolist(),
            "visibility": self.visibility.astype(float).round(4).tolist(),
        }
        path.write_text(json.dumps(content), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> DemoTruth:
        """Read what `save` wrote; the clip is expected beside it."""
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            path=path.parent / content["clip"],
            fps=int(content["fps"]),
            size=(int(content["size"][0]), int(content["size"][1])),
            people=tuple(content["people"]),
            box=np.asarray(content["box"], dtype=np.float32),
            visibility=np.asarray(content["visibility"], dtype=np.float32),
        )


def truth_path(clip: Path) -> Path:
    """Return the path of a demo clip's truth: `clip.mp4` has `clip.truth.json` beside it."""
    return clip.with_suffix(".truth.json")


def make_demo_clip(path: Path, seconds: float = 12, size: tuple[int, int] = (1280, 720), fps: int = 25) -> DemoTruth:
    """Make an H.264 mp4 of two people who come and go, and its truth beside it; the same clip every time.

    Raises InputError if the photographs' packages are missing or the clip would be too small to show a face.
    """
    width, height = size
    n_frames = round(seconds * fps)
    if n_frames < 1 or width < 160 or height < 120 or width % 2 or height % 2:
        raise InputError(
            f"demo clip of {width}x{height}, {n_frames} frames: needs an even size of at least 160x120 and one frame"
        )
    photographs = _photographs()
    times = np.arange(n_frames) / max(n_frames - 1, 1)
    box = np.stack([_boxes(person, times, size) for person in PEOPLE], axis=1)
    inside = np.minimum(box[..., :2] + box[..., 2:], size) - np.maximum(box[..., :2], 0)
    # Rounded, so that a whole face is 1 and not a rounding error less.
    share = (np.clip(inside, 0, None).prod(-1) / box[..., 2:].prod(-1)).round(6)
    names = tuple(person.name for person in PEOPLE)
    truth = DemoTruth(path, fps, size, names, box.astype(np.float32), share.astype(np.float32))
    made_folder(path.parent, path)
    # Written aside, so that an interrupted call leaves no half of a clip under the clip's name.
    aside = path.with_name(path.name + ".partial")
    try:
        _encode(aside, _frames(truth, photographs), size, fps)
        truth.save(truth_path(path))
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    return truth


def _photographs() -> tuple[Pixels, ...]:
    """Return uint8 (height, width, 3) RGB, one per person of PEOPLE."""
    try:
        import skimage.data
        from matplotlib import cbook
    except ImportError as err:
        raise InputError(
            f'the demo clip needs {err.name}, which is not installed; run: pip install "reelgraph[demo]"'
        ) from err
    file = str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    hopper = cv2.imread(file, cv2.IMREAD_COLOR)
    if hopper is None:
        raise InputError(f"{file}: matplotlib's sample photograph cannot be read; reinstall matplotlib")
    collins: Pixels = skimage.data.astronaut()
    return collins, cv2.cvtColor(hopper, cv2.COLOR_BGR2RGB).astype(np.uint8)


def _boxes(person: Actor, times: npt.NDArray[np.float64], size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Return float64 (n, 4): the face box at each time, eased from waypoint to waypoint (a smooth step has no jerk)."""
    at = np.array([w.time for w in person.path])
    leg = np.clip(np.searchsorted(at, times, side="right") - 1, 0, len(at) - 2)
    part = np.clip((times - at[leg]) / (at[leg + 1] - at[leg]), 0, 1)
    part = part * part * (3 - 2 * part)
    points = np.array([(w.x, w.y, w.height) for w in person.path])
    x, y, face_height = (points[leg] + (points[leg + 1] - points[leg]) * part[:, None]).T
    h = face_height * size[1]
    w = h * person.face[2] / person.face[3]
    return np.stack([x * size[0] - w / 2, y * size[1] - h / 2, w, h], axis=1)


def _frames(truth: DemoTruth, photographs: tuple[Pixels, ...]) -> Iterator[Pixels]:
    """Yield uint8 (height, width, 3) RGB frames."""
    background = _background(truth.size)
    pyramids = []  # full, half and quarter size: a linear warp alone would alias when it shrinks much
    for photograph, person in zip(photographs, PEOPLE, strict=True):
        levels = [_medallion(photograph, person)]
        for _ in range(2):
            levels.append(cv2.resize(levels[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
        pyramids.append(levels)
    block = COUNTER_BLOCK_PIXELS
    top = truth.size[1] - 2 * block
    for index in range(truth.n_frames):
        frame = background.copy()
        for pyramid, box, person in zip(pyramids, truth.box[index], PEOPLE, strict=True):
            _draw_medallion(frame, pyramid, box, person)
        # The frame's number twice: as a row of black and white blocks for programs, and in digits for people.
        for bit in range(COUNTER_BITS):
            left = block + bit * block
            frame[top : top + block, left : left + block] = 235 if index >> (COUNTER_BITS - 1 - bit) & 1 else 16
        where = (block, top - block // 2)
        cv2.putText(frame, f"{index:05d}", where, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (210, 214, 220), 1, cv2.LINE_AA)
        yield frame


def _background(size: tuple[int, int]) -> Pixels:
    """Return a slate gradient with soft, fixed grain: flat areas would make detection and encoding look too easy."""
    width, height = size
    corners = np.array([[[52, 66, 84], [86, 98, 112]], [[28, 36, 48], [58, 58, 70]]], dtype=np.float32)
    gradient = cv2.resize(corners, size, interpolation=cv2.INTER_LINEAR)
    noise = np.random.default_rng(20_001).normal(0, 1, (height, width)).astype(np.float32)
    clouds = cv2.GaussianBlur(noise, (0, 0), sigmaX=height / 18)
    clouds *= 7 / clouds.std()
    grain = cv2.GaussianBlur(noise, (0, 0), sigmaX=1.2)
    grain *= 2 / grain.std()
    pixels: Pixels = np.clip(gradient + (clouds + grain)[..., None], 0, 255).astype(np.uint8)
    return pixels


def _medallion(photograph: Pixels, person: Actor) -> npt.NDArray[np.float32]:
    """Return float32 (side, side, 4): the round cut-out about the face, premultiplied RGB 0 to 255, alpha 0 to 1."""
    x, y, w, h = person.face
    radius = person.radius * h
    side = 2 * round(radius)
    corner = (x + w / 2 - side / 2, y + h / 2 - side / 2)
    shift = np.array([[1, 0, -corner[0]], [0, 1, -corner[1]]])
    cut = cv2.warpAffine(photograph, shift, (side, side), borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    rows, columns = np.mgrid[:side, :side]
    distance = np.hypot(rows - side / 2 + 0.5, columns - side / 2 + 0.5)
    alpha = np.clip(radius - 2 - distance, 0, 1).astype(np.float32)
    rim = np.clip(distance - 0.95 * radius, 0, 1).astype(np.float32)[..., None]
    colour = cut * (1 - rim) + 236 * rim
    return np.concatenate([colour * alpha[..., None], alpha[..., None]], axis=2).astype(np.float32)


def _draw_medallion(
    frame: Pixels, pyramid: list[npt.NDArray[np.float32]], box: npt.NDArray[np.float32], person: Actor
) -> None:
    scale = float(box[3]) / person.face[3]
    level = 0 if scale > 0.75 else 1 if scale > 0.375 else 2
    image = pyramid[level]
    factor = scale * pyramid[0].shape[0] / image.shape[0]
    centre = box[:2] + box[2:] / 2
    reach = scale * pyramid[0].shape[0] / 2 + 2
    height, width = frame.shape[:2]
    left, top = (max(0, int(c - reach)) for c in centre)
    right, bottom = min(width, int(centre[0] + reach) + 1), min(height, int(centre[1] + reach) + 1)
    if right <= left or bottom <= top:
        return
    # Pixel centres: half of the medallion's side, less half a pixel, lands on the centre of the face.
    middle = factor * (image.shape[0] - 1) / 2
    place = np.array([[factor, 0, centre[0] - 0.5 - middle - left], [0, factor, centre[1] - 0.5 - middle - top]])
    warped = cv2.warpAffine(image, place, (right - left, bottom - top), flags=cv2.INTER_LINEAR)
    below = frame[top:bottom, left:right]
    below[:] = np.clip(below * (1 - warped[..., 3:]) + warped[..., :3], 0, 255).astype(np.uint8)


def _encode(path: Path, frames: Iterator[Pixels], size: tuple[int, int], fps: int) -> None:
    import av
    from av.video.reformatter import Colorspace

    bt709 = 1  # H.273's number for primaries, transfer and matrix; players guess if it is not written
    with av.open(str(path), "w", format="mp4") as container:
        # One thread: libx264's bits depend on how many there are. And no macroblock tree: on a busy machine one clip in
        # a hundred came out some bytes longer or shorter with it, from the same frames.
        options = {"crf": "20", "preset": "veryfast", "sc_threshold": "0", "threads": "1", "mbtree": "0"}
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.gop_size = KEY_FRAME_INTERVAL
        context.colorspace = context.color_primaries = context.color_trc = bt709
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)))
        container.mux(stream.encode(None))

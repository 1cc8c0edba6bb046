"""What detectors share whose network sees whole frames at once: the sizes it sees them at, and batches of one size."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError
from pipeline.faces.models import zoo
from pipeline.faces.models.base import Faces, Frames
from pipeline.faces.models.detectors.base import checked, joined, taken
from pipeline.machine.device import Device
from pipeline.models.session import MEMORY_SHARES, create_session, run_in_batches
from pipeline.models.weights import weights_files

Frame = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
Index = npt.NDArray[np.int64]

CPU_BATCH_PIXELS = 2**16
"""On a CPU frames go together up to so many pixels. Measured with YuNet: four of 96 × 96 take half the time of four
alone; from 320 × 256 on a batch is no faster and takes more memory."""
MOST_SCALE = 2.0
"""Frames are not made larger than this for the sake of small faces. Of YuNet's faces at 10 pixels, made twice as large,
0.92 score 0.7; at 6 pixels, made 3.3 times as large, 0.71."""
AREA_BELOW = 0.5
"""Frames made smaller than this are averaged over areas; cv2.INTER_LINEAR would skip pixels."""


@dataclass(frozen=True)
class View:
    """How a network sees frames of one size: scaled, then at the upper left of a picture that is black elsewhere."""

    width: int
    height: int
    """Of the scaled frame, in pixels."""
    picture_width: int
    picture_height: int
    """Of what the network takes."""
    scale: tuple[float, float]
    """Pixels of the view per pixel of the frame, x and y."""
    averaged: bool = True
    """Frames made smaller than AREA_BELOW are averaged over areas; False: bilinear, as DeepFace's clients."""
    factor: float | None = None
    """Where set, what cv2.resize takes as fx and fy; it samples elsewhere where they give no whole pixels."""

    @property
    def pixels(self) -> int:
        return self.picture_width * self.picture_height


class WholeFrameDetector(ABC):
    """Finds faces and five landmarks. Thread-safe.

    `min_face` is the smallest face to look for, in pixels; time goes with its inverse square. `threshold` is the least
    score, 0 to 1; None: the detector's own in `detect`, in `areas` what DeepFace takes.
    Raises ModelError: the weights are missing or another network's, an option is out of range, or the device cannot be
    used.
    """

    name: ClassVar[str]
    smallest: ClassVar[int]
    """Pixels of the smallest face that the network finds."""
    bytes_per_pixel: ClassVar[int]
    """Memory per pixel of a picture, at the network's widest."""

    def __init__(self, device: Device, min_face: float = 20, threshold: float | None = None) -> None:
        self._scale = scale_for(self.name, min_face, self.smallest, MOST_SCALE)
        self._threshold = checked_threshold(self.name, threshold)
        self._device = device
        self._black = Black()
        graph = self._graph(weights_files(zoo.card(self.name)))
        self._session = create_session(graph, device, MEMORY_SHARES["detector"])

    def areas(self, frames_rgb: Frames) -> Faces:
        """What DeepFace's client of this name gives for each frame, in its order: boxes, and the landmarks that it
        fills, in whole pixels. Raises as `detect`."""
        return self._client(frames_rgb, padded=False)

    def padded_areas(self, frames_rgb: Frames) -> Faces:
        """`areas` of each frame amid black, as DeepFace pads it (Black), in pixels of the padded frame."""
        return self._client(frames_rgb, padded=True)

    @abstractmethod
    def detect(self, frames_rgb: Frames) -> Faces:
        """Faces of all frames, in pixels of the frame. Raises ValueError for anything but uint8 (height, width, 3)."""

    @abstractmethod
    def _graph(self, files: Sequence[Path]) -> bytes:
        """The network that takes uint8 pictures, of the published weights."""

    @abstractmethod
    def _client(self, frames_rgb: Frames, padded: bool) -> Faces: ...

    def _find(
        self,
        frames_rgb: Frames,
        view_for: Callable[[tuple[int, ...]], View],
        look: Callable[[Frame, View], Faces],
        padded: bool = False,
    ) -> Faces:
        """What `look` finds in batches of pictures of one view, made of the frames, or of the frames amid black."""

        def view_of_one(shape: tuple[int, ...]) -> View:
            return view_for(padded_shape(shape) if padded else shape)

        def find(frames: Sequence[Frame]) -> Faces:
            view = view_of_one(frames[0].shape)
            return look(pictures(frames, view, self._black.around if padded else None), view)

        return find_by_size(self._device, self.name, frames_rgb, lambda shape: self._at_once(view_of_one(shape)), find)

    def _at_once(self, view: View) -> int:
        return frames_at_once(self._device, view.pixels, self.bytes_per_pixel)


def view_of(shape: tuple[int, ...], scale: float, multiple: int) -> View:
    """The view of frames (height, width, 3) at about `scale`, padded to a multiple of so many pixels."""
    return sized_view(shape, (round(shape[1] * scale), round(shape[0] * scale)), multiple)


def sized_view(shape: tuple[int, ...], size: tuple[int, int], multiple: int) -> View:
    """The view of frames (height, width, 3) made (width, height) pixels, padded likewise."""
    width, height = (max(1, side) for side in size)
    padded_width, padded_height = (-(-side // multiple) * multiple for side in (width, height))
    return View(width, height, padded_width, padded_height, (width / shape[1], height / shape[0]))


def stretched_view(shape: tuple[int, ...], multiple: int) -> View:
    """The view of frames (height, width, 3) stretched, each side by itself, to the next multiple of so many pixels."""
    height, width = (-(-side // multiple) * multiple for side in shape[:2])
    return sized_view(shape, (width, height), multiple)


def scale_for(name: str, min_face: float, smallest: float, most: float) -> float:
    """The scale at which faces of min_face pixels are of the smallest size that a network finds, `most` at most.

    Raises ModelError where min_face is not positive.
    """
    if not min_face > 0:
        raise ModelError(f"{name}: min_face is {min_face}, but must be a number of pixels above 0")
    return min(smallest / min_face, most)


def checked_threshold(name: str, threshold: float | None) -> float | None:
    """`threshold`. Raises ModelError unless it is None or between 0 and 1."""
    if threshold is not None and not 0 < threshold < 1:
        raise ModelError(f"{name}: threshold is {threshold}, but must be between 0 and 1")
    return threshold


def client_threshold(variable: str, default: float) -> float:
    """The threshold that a client of DeepFace reads from the environment. Raises ModelError where it is no number."""
    text = os.environ.get(variable, str(default))
    try:
        return float(text)
    except ValueError:
        raise ModelError(f"environment variable {variable} is {text!r}, but must be a number from 0 to 1") from None


def frames_at_once(device: Device, pixels: int, bytes_per_pixel: int) -> int:
    """Frames, each seen at so many pixels, that a network takes together; 1 at least."""
    limit = device.batch_memory_bytes // (bytes_per_pixel * pixels)
    if device.kind == "cpu":
        limit = min(limit, CPU_BATCH_PIXELS // pixels)
    return max(1, limit)


def padded_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of a frame (height, width, 3) with a black border of half its size on each side, as DeepFace pads it."""
    height, width, *rest = shape
    return (height + 2 * (height // 2), width + 2 * (width // 2), *rest)


class Black(threading.local):
    """A black picture in memory that each thread uses again: making one of four times a frame's pixels would cost more
    than a small network's look at it."""

    def __init__(self) -> None:
        self._canvas: Frame = np.empty((0, 0, 3), np.uint8)

    def around(self, frame: Frame) -> Frame:
        """The frame with its border (padded_shape), until the next call."""
        shape = padded_shape(frame.shape)
        if self._canvas.shape != shape:
            self._canvas = np.zeros(shape, np.uint8)
        height, width = frame.shape[:2]
        # What the last frame left lies just where this one comes.
        self._canvas[height // 2 : height // 2 + height, width // 2 : width // 2 + width] = frame
        return self._canvas


def pictures(frames: Sequence[Frame], view: View, before: Callable[[Frame], Frame] | None = None) -> Frame:
    """uint8 (n, picture_height, picture_width, 3): frames of one size as the network sees them, after `before`."""
    import cv2

    shape = (len(frames), view.picture_height, view.picture_width, 3)
    padded = (view.height, view.width) != shape[1:3]
    batch = np.zeros(shape, np.uint8) if padded else np.empty(shape, np.uint8)
    for frame, picture in zip(frames, batch, strict=True):
        inside = picture[: view.height, : view.width]
        frame = frame if before is None else before(frame)
        if inside.shape == frame.shape:
            np.copyto(inside, frame)
        elif view.factor is not None:
            cv2.resize(frame, None, dst=inside, fx=view.factor, fy=view.factor, interpolation=cv2.INTER_LINEAR)
        else:
            how = cv2.INTER_AREA if view.averaged and min(view.scale) < AREA_BELOW else cv2.INTER_LINEAR
            cv2.resize(frame, (view.width, view.height), dst=inside, interpolation=how)
    return batch


def find_by_size(
    device: Device,
    name: str,
    frames_rgb: Frames,
    most: Callable[[tuple[int, ...]], int],
    find: Callable[[Sequence[Frame]], Faces],
) -> Faces:
    """Faces of all frames, by `find` on batches of frames of one size, `most(shape)` at a time.

    `find` numbers frames from 0; the order of faces within a frame is its own. Raises ValueError for anything but
    uint8 (height, width, 3) frames.
    """
    frames = [checked(frame) for frame in frames_rgb]
    sizes: dict[tuple[int, ...], list[int]] = {}
    for index, frame in enumerate(frames):
        sizes.setdefault(frame.shape, []).append(index)
    parts: list[Faces] = []
    for shape, indices in sizes.items():
        rows = np.array(indices, np.int64)

        def run(start: int, stop: int, rows: Index = rows) -> Faces:
            part = find([frames[index] for index in rows[start:stop]])
            return Faces(rows[start:stop][part.frame], part.box, part.landmarks, part.confidence)

        batches = run_in_batches(device, name, shape, len(indices), max(1, most(shape)), run)
        parts += [part for _, _, part in batches]
    return join_faces(parts)


def join_faces(parts: Sequence[Faces]) -> Faces:
    """All faces in frame order; those of one frame in the order of the parts."""
    found = joined(parts)
    return taken(found, np.argsort(found.frame, kind="stable"))


def chosen_by_frame(faces: Faces, choose: Callable[[Index], Index]) -> Faces:
    """The faces that `choose` takes, in its order, of those of each frame in turn; it is given their indices, and gives
    some of them. `faces` are in frame order."""
    starts = np.flatnonzero(np.diff(faces.frame, prepend=-1))
    groups = np.split(np.arange(len(faces.frame)), starts[1:])
    return taken(faces, np.concatenate([np.empty(0, np.int64), *(choose(group) for group in groups if len(group))]))

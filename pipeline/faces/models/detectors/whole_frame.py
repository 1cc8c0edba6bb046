"""Shared code of detectors whose network sees whole frames at once: the sizes of its view, and batches of one size."""

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
"""Pixels up to which frames go together on a CPU. Measured with YuNet: four of 96 × 96 take half the time of four
alone. From 320 × 256 on a batch gains no time and takes more memory."""
MOST_SCALE = 2.0
"""Largest factor by which frames are enlarged for the sake of small faces. Of YuNet's faces at 10 pixels, enlarged
twice, 0.92 score 0.7; at 6 pixels, enlarged 3.3 times, 0.71."""
AREA_BELOW = 0.5
"""Factor below which frames are reduced by area averaging; cv2.INTER_LINEAR would skip pixels."""


@dataclass(frozen=True)
class View:
    """The network's view of frames of one size: scaled, at the upper left of a picture that is black elsewhere."""

    width: int
    height: int
    """Height of the scaled frame in pixels; `width` is its width."""
    picture_width: int
    picture_height: int
    """Height of the network's input in pixels; `picture_width` is its width."""
    scale: tuple[float, float]
    """Pixels of the view per pixel of the frame, x and y."""
    averaged: bool = True
    """True: frames reduced below AREA_BELOW are averaged over areas. False: bilinear, as in DeepFace's clients."""
    factor: float | None = None
    """Factor for fx and fy of cv2.resize, if set; sampling points change if it does not give whole pixels."""


class WholeFrameDetector(ABC):
    """Finds faces and five landmarks. Thread-safe.

    `min_face` is the smallest face to look for, in pixels; time goes with its inverse square. `threshold` is the least
    score, 0 to 1; None: the detector's own in `detect`, DeepFace's in `areas`.
    Raises ModelError: the weights are missing or another network's, an option is out of range, or the device cannot be
    used.
    """

    name: ClassVar[str]
    smallest: ClassVar[int]
    """Pixels of the smallest face that the network finds."""
    bytes_per_pixel: ClassVar[int]
    """Memory per pixel of a picture in bytes, at the network's widest layer."""
    share: ClassVar[str] = "detector"
    """Name of its part of the device's memory (MEMORY_SHARES)."""

    def __init__(self, device: Device, min_face: float = 20, threshold: float | None = None) -> None:
        if not min_face > 0:
            raise ModelError(f"{self.name}: min_face is {min_face}, but must be a number of pixels above 0")
        if threshold is not None and not 0 < threshold < 1:
            raise ModelError(f"{self.name}: threshold is {threshold}, but must be between 0 and 1")
        self._scale = min(self.smallest / min_face, MOST_SCALE)
        """Scale at which faces of min_face pixels have the network's smallest size."""
        self._threshold = threshold
        self._device = device
        self._black = Black()
        graph = self._graph(weights_files(zoo.card(self.name)))
        self._session = create_session(graph, device, MEMORY_SHARES[self.share])

    def areas(self, frames_rgb: Frames) -> Faces:
        """Return the answer of DeepFace's client of this name for each frame, in its order. Raises as `detect` does.

        Boxes, and the landmarks that it gives, are in whole pixels.
        """
        return self._client(frames_rgb, padded=False)

    def padded_areas(self, frames_rgb: Frames) -> Faces:
        """Return `areas` of each frame in black, as DeepFace pads it (Black), in pixels of the padded frame."""
        return self._client(frames_rgb, padded=True)

    @abstractmethod
    def detect(self, frames_rgb: Frames) -> Faces:
        """Return the faces of all frames, in pixels of the frame.

        Raises ValueError for anything but uint8 (height, width, 3).
        """

    @abstractmethod
    def _graph(self, files: Sequence[Path]) -> bytes:
        """Return the network for uint8 pictures, made of the published weights."""

    @abstractmethod
    def _client(self, frames_rgb: Frames, padded: bool) -> Faces: ...

    def _find(
        self,
        frames_rgb: Frames,
        view_for: Callable[[tuple[int, ...]], View],
        look: Callable[[Frame, View], Faces],
        padded: bool = False,
    ) -> Faces:
        """Return what `look` finds in batches of pictures of one view, made of the frames, in black if `padded`."""

        def view_of_one(shape: tuple[int, ...]) -> View:
            return view_for(padded_shape(shape) if padded else shape)

        def find(frames: Sequence[Frame]) -> Faces:
            view = view_of_one(frames[0].shape)
            return look(pictures(frames, view, self._black.around if padded else None), view)

        return find_by_size(self._device, self.name, frames_rgb, lambda shape: self._at_once(view_of_one(shape)), find)

    def _at_once(self, view: View) -> int:
        """Return how many frames of one view the network takes together; 1 at least."""
        pixels = view.picture_width * view.picture_height
        limit = self._device.batch_memory_bytes // (self.bytes_per_pixel * pixels)
        if self._device.kind == "cpu":
            limit = min(limit, CPU_BATCH_PIXELS // pixels)
        return max(1, limit)


def view_of(shape: tuple[int, ...], scale: float, multiple: int) -> View:
    """Return the view of frames (height, width, 3) at about `scale`, padded to a multiple of `multiple` pixels."""
    return sized_view(shape, (round(shape[1] * scale), round(shape[0] * scale)), multiple)


def sized_view(shape: tuple[int, ...], size: tuple[int, int], multiple: int) -> View:
    """Return the view of frames (height, width, 3) scaled to (width, height), padded to a multiple of `multiple`."""
    width, height = (max(1, side) for side in size)
    padded_width, padded_height = (-(-side // multiple) * multiple for side in (width, height))
    return View(width, height, padded_width, padded_height, (width / shape[1], height / shape[0]))


def client_threshold(variable: str, default: float) -> float:
    """Return the threshold that DeepFace's client reads from the environment. Raises ModelError for another text."""
    text = os.environ.get(variable, str(default))
    try:
        return float(text)
    except ValueError:
        raise ModelError(f"environment variable {variable} is {text!r}, but must be a number from 0 to 1") from None


def padded_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a frame (height, width, 3) with DeepFace's black border of half its size on each side."""
    height, width, *rest = shape
    return (height + 2 * (height // 2), width + 2 * (width // 2), *rest)


class Black(threading.local):
    """A black picture that each thread uses again.

    Making one of four times a frame's pixels would cost more than a small network's run on it.
    """

    def __init__(self) -> None:
        self._canvas: Frame = np.empty((0, 0, 3), np.uint8)

    def around(self, frame: Frame) -> Frame:
        """Return the frame with its border (padded_shape); valid until the next call."""
        shape = padded_shape(frame.shape)
        if self._canvas.shape != shape:
            self._canvas = np.zeros(shape, np.uint8)
        height, width = frame.shape[:2]
        # The last frame had the same place, so this one covers it completely.
        self._canvas[height // 2 : height // 2 + height, width // 2 : width // 2 + width] = frame
        return self._canvas


def pictures(frames: Sequence[Frame], view: View, before: Callable[[Frame], Frame] | None = None) -> Frame:
    """Return uint8 (n, picture_height, picture_width, 3): frames of one size as the network sees them.

    `before` changes each frame first.
    """
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
    """Return the faces of all frames, by `find` on batches of frames of one size, `most(shape)` at a time.

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
    """Return all faces in frame order; those of one frame in the order of the parts."""
    found = joined(parts)
    return taken(found, np.argsort(found.frame, kind="stable"))


def chosen_by_frame(faces: Faces, choose: Callable[[Index], Index]) -> Faces:
    """Return the faces that `choose` takes from each frame in turn, in its order.

    `choose` gets the indices of a frame's faces and returns some of them. `faces` are in frame order.
    """
    starts = np.flatnonzero(np.diff(faces.frame, prepend=-1))
    groups = np.split(np.arange(len(faces.frame)), starts[1:])
    return taken(faces, np.concatenate([np.empty(0, np.int64), *(choose(group) for group in groups if len(group))]))

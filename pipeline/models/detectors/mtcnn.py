"""The detector `mtcnn`: the faces that the `mtcnn` package finds, of many frames at once, by ONNX Runtime.

Every step and constant is that package's (mtcnn 1.0.0: stages/, utils/images.py, utils/bboxes.py), with two exceptions:
levels of the pyramid too small for P-Net are left out (the package raises, or finds nothing, as min_face grows), and
results are not rounded to whole pixels.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError
from pipeline.models import zoo
from pipeline.models.base import Device, Faces, Frames
from pipeline.models.detectors.boxes import shifted, squared, suppress
from pipeline.models.detectors.mtcnn_graph import GRAPH_VERSION, NETWORKS, build_graph
from pipeline.models.detectors.pyramid import CELL, Pyramid, level_sizes, patches
from pipeline.models.session import MEMORY_SHARES, create_session, run_in_batches
from pipeline.models.weights import cached_graph, weights_files

Frame = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

NAME = "mtcnn"
STRIDE = 2
"""Pixels of a level from one cell of P-Net's output to the next."""
PNET_BYTES_PER_PIXEL = 112
"""Memory per pixel of a level: the input, the first convolution (16 float32) and what is alive beside it."""
PATCH_BYTES = {24: 4 * (24 * 24 * 3 + 3 * 22 * 22 * 28), 48: 4 * (48 * 48 * 3 + 3 * 46 * 46 * 32)}
"""Memory per candidate of R-Net and O-Net: the patch and the largest activations."""
MOST_PATCHES = {"cpu": 64, "cuda": 4096, "tensorrt": 4096}
"""A CPU is fastest while a batch stays in its caches."""


@dataclass(frozen=True)
class Thresholds:
    """What the package's detect_faces takes as threshold_pnet, nms_pnet1 and so on, with its defaults."""

    pnet: float = 0.6
    rnet: float = 0.7
    onet: float = 0.8
    nms_pnet1: float = 0.5
    nms_pnet2: float = 0.7
    nms_rnet: float = 0.7
    nms_onet: float = 0.7


@dataclass(frozen=True)
class Candidates:
    """Boxes of several frames on their way through the three networks, in frame order."""

    frame: npt.NDArray[np.int64]
    """int64 (n,): index into the frames given."""
    corners: npt.NDArray[np.float64]
    """float64 (n, 4): x1, y1, x2, y2 in pixels of the frame."""
    score: Float32
    """float32 (n,)."""
    landmarks: npt.NDArray[np.float64]
    """float64 (n, 5, 2): x, y; zero before O-Net."""

    def take(self, index: npt.NDArray[Any]) -> Candidates:
        return Candidates(self.frame[index], self.corners[index], self.score[index], self.landmarks[index])

    def squared(self) -> Candidates:
        return Candidates(self.frame, squared(self.corners), self.score, self.landmarks)

    def suppressed(self, threshold: float, of_smaller: bool = False) -> Candidates:
        return self.take(suppress(self.frame, self.corners, self.score, threshold, of_smaller))

    @staticmethod
    def join(parts: Sequence[Candidates]) -> Candidates:
        nothing = Candidates(np.empty(0, np.int64), np.empty((0, 4)), np.empty(0, np.float32), np.empty((0, 5, 2)))
        fields = ("frame", "corners", "score", "landmarks")
        return Candidates(*(np.concatenate([getattr(p, name) for p in (nothing, *parts)]) for name in fields))


class MtcnnDetector:
    """Finds faces and five landmarks. Thread-safe.

    `min_face` is the smallest face to look for, in pixels, 12 at least; time goes with its inverse square. `threshold` is
    the least score of O-Net, in the place of that of `thresholds`.
    """

    def __init__(
        self,
        device: Device,
        min_face: float = 20,
        threshold: float | None = None,
        *,
        scale_factor: float = 0.709,
        thresholds: Thresholds | None = None,
    ) -> None:
        if min_face < CELL:
            raise ModelError(f"mtcnn: min_face is {min_face}, but {CELL} pixels is the smallest face it can find")
        if not 0.1 <= scale_factor < 1:
            raise ModelError(f"mtcnn: scale_factor is {scale_factor}, but must be from 0.1 to below 1")
        thresholds = thresholds or Thresholds()
        if threshold is not None:
            thresholds = replace(thresholds, onet=threshold)
        for name, value in vars(thresholds).items():
            if not 0 < value < 1:
                raise ModelError(f"mtcnn: threshold_{name} is {value}, but must be between 0 and 1")
        self._device = device
        self._min_face = min_face
        self._scale_factor = scale_factor
        self._thresholds = thresholds
        self._sessions = _create_sessions(device)
        self._buffers = _Buffers()

    def detect(self, frames_rgb: Frames) -> Faces:
        """Faces of all frames; boxes are cut at the frame's edge, landmarks are not.

        Raises ValueError for anything but uint8 (height, width, 3) frames.
        """
        frames = [_checked(frame) for frame in frames_rgb]
        limits = self._thresholds
        found = self._propose(frames).suppressed(limits.nms_pnet2).squared()
        found = self._refine("rnet", 24, frames, found, limits.rnet).suppressed(limits.nms_rnet).squared()
        found = self._refine("onet", 48, frames, found, limits.onet).suppressed(limits.nms_onet, of_smaller=True)
        return _faces(found, frames)

    # -- the first network: every place of every frame, at every size -------------------------------------------------

    def _propose(self, frames: Sequence[Frame]) -> Candidates:
        found: list[Candidates] = []
        for indices in _runs_of_one_size(frames):
            height, width = frames[indices[0]].shape[:2]
            levels = level_sizes(width, height, self._min_face, self._scale_factor)
            if not levels:
                continue
            run = partial(self._propose_slice, frames, indices, levels)
            most = frames_at_once(self._device, levels[0][1] * levels[0][2])
            for _, _, part in run_in_batches(self._device, "mtcnn pnet", (height, width), len(indices), most, run):
                found.append(part)
        return Candidates.join(found)

    def _propose_slice(
        self, frames: Sequence[Frame], indices: range, levels: list[tuple[float, int, int]], start: int, stop: int
    ) -> Candidates:
        """Candidates of some frames of one size, after the suppression within each level."""
        batch = indices[start:stop]
        pyramids = self._buffers.pyramids(len(batch))
        for pyramid, index in zip(pyramids, batch, strict=True):
            pyramid.load(frames[index])
        found = []
        for scale, rows, columns in levels:
            planes = self._buffers.planes(len(batch), rows, columns)
            for pyramid, plane in zip(pyramids, planes, strict=True):
                pyramid.level(rows, columns, plane)
            level = self._propose_level(planes, scale)
            found.append(level.suppressed(self._thresholds.nms_pnet1))
        joined = Candidates.join(found)
        return Candidates(joined.frame + batch[0], joined.corners, joined.score, joined.landmarks)

    def _propose_level(self, planes: Float32, scale: float) -> Candidates:
        """Cells of one level that look like a face, as boxes of the frame."""
        parts = []
        logit_above = math.log(self._thresholds.pnet / (1 - self._thresholds.pnet))
        for first, cells in self._strips(planes):
            frame, y, x = np.nonzero(cells[:, 0] > logit_above)
            logit, offsets = cells[frame, 0, y, x], cells[frame, 1:5, y, x]
            # The package counts a cell's pixels from 1 to 12, so that a cell is 11 wide.
            corner = np.stack([x, y + first, x, y + first], axis=1) * STRIDE + np.array([1, 1, CELL, CELL])
            corners = (corner + offsets.astype(np.float64) * (CELL - 1)) / scale
            parts.append(Candidates(frame, corners, _probability(logit), np.zeros((len(frame), 5, 2))))
        return Candidates.join(parts)

    def _strips(self, planes: Float32) -> Iterator[tuple[int, Float32]]:
        """P-Net's output, (first row, cells), in strips whose activations stay within batch_memory_bytes.

        A strip of cells y1 to y2 needs rows 2 y1 to 2 y2 + 10 of the level: its results are those of the whole.
        """
        rows, columns = planes.shape[2:]
        cell_rows = (rows - 1) // 2 - 4
        strip = self._device.batch_memory_bytes // (PNET_BYTES_PER_PIXEL * columns * len(planes))
        step = max(16, strip // STRIDE - 5)
        for first in range(0, cell_rows, step):
            last = min(first + step, cell_rows)
            stop = rows if last == cell_rows else STRIDE * last + 10
            yield first, self._sessions["pnet"].run(None, {"image": planes[:, :, STRIDE * first : stop]})[0]

    # -- the second and third network: the candidates of all frames together ------------------------------------------

    def _refine(
        self, network: str, side: int, frames: Sequence[Frame], found: Candidates, threshold: float
    ) -> Candidates:
        run = partial(self._refine_slice, network, side, frames, found, threshold)
        most = min(MOST_PATCHES[self._device.kind], self._device.batch_memory_bytes // PATCH_BYTES[side])
        count = len(found.frame)
        batches = run_in_batches(self._device, f"mtcnn {network}", (side, side), count, max(1, most), run)
        return Candidates.join([part for _, _, part in batches])

    def _refine_slice(
        self,
        network: str,
        side: int,
        frames: Sequence[Frame],
        found: Candidates,
        threshold: float,
        start: int,
        stop: int,
    ) -> Candidates:
        part = found.take(np.arange(start, stop))
        inputs = np.concatenate(
            [patches(frames[index], part.corners[part.frame == index], side) for index in np.unique(part.frame)]
        )
        logit, offsets, *landmarks = self._sessions[network].run(None, {"patches": inputs})
        refined = Candidates(
            part.frame,
            shifted(part.corners, offsets),
            _probability(logit[:, 0]),
            _placed(part.corners, landmarks[0]) if landmarks else part.landmarks,
        )
        return refined.take(np.flatnonzero(refined.score > threshold))


def frames_at_once(device: Device, pixels: int) -> int:
    """Frames whose largest level, of so many pixels, P-Net takes together."""
    if device.kind == "cpu":
        return 1  # no faster there than one frame after the other, and it takes more memory
    return max(1, device.batch_memory_bytes // (PNET_BYTES_PER_PIXEL * pixels))


class _Buffers(threading.local):
    """Memory that each thread uses again from frame to frame: fresh pages cost more than what is written to them."""

    def __init__(self) -> None:
        self._pyramids: list[Pyramid] = []
        self._planes: Float32 = np.empty(0, np.float32)

    def pyramids(self, count: int) -> list[Pyramid]:
        self._pyramids += [Pyramid() for _ in range(count - len(self._pyramids))]
        return self._pyramids[:count]

    def planes(self, count: int, rows: int, columns: int) -> Float32:
        """float32 (count, 3, rows, columns), of any content."""
        size = count * 3 * rows * columns
        if self._planes.size < size:
            self._planes = np.empty(size, np.float32)
        return self._planes[:size].reshape(count, 3, rows, columns)


def _create_sessions(device: Device) -> dict[str, Any]:
    files = weights_files(zoo.card(NAME))
    portable = device.kind != "cpu"
    sessions = {}
    for name, path in zip(NETWORKS, files, strict=True):
        stem = f"mtcnn_{name}_{'portable' if portable else 'cpu'}"
        graph = cached_graph(stem, GRAPH_VERSION, [path], partial(build_graph, name, path, portable))
        sessions[name] = create_session(graph, device, MEMORY_SHARES[f"{NAME} {name}"])
    return sessions


def _checked(frame: Any) -> Frame:
    array = np.asarray(frame)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"a frame must be uint8 (height, width, 3), not {array.dtype} {array.shape}")
    return np.ascontiguousarray(array)


def _runs_of_one_size(frames: Sequence[Frame]) -> Iterator[range]:
    """Ranges of neighbouring frames of equal size."""
    start = 0
    for stop in range(1, len(frames) + 1):
        if stop == len(frames) or frames[stop].shape != frames[start].shape:
            yield range(start, stop)
            start = stop


def _probability(logit: Float32) -> Float32:
    return (1 / (1 + np.exp(-logit.astype(np.float64)))).astype(np.float32)


def _placed(corners: npt.NDArray[np.float64], landmarks: Float32) -> npt.NDArray[np.float64]:
    """O-Net's landmarks, five x then five y as shares of the box, as float64 (n, 5, 2) in pixels of the frame."""
    size = corners[:, None, 2:] - corners[:, None, :2] + 1
    shares = landmarks.reshape(-1, 2, 5).transpose(0, 2, 1)
    return size * shares + corners[:, None, :2] - 1


def _faces(found: Candidates, frames: Sequence[Frame]) -> Faces:
    edges = np.array([[frame.shape[1], frame.shape[0]] for frame in frames], np.float64).reshape(-1, 2)
    corners = np.clip(found.corners.reshape(-1, 2, 2), 0, edges[found.frame][:, None] - 1)
    start, stop = corners[:, 0], corners[:, 1]
    box = np.concatenate([start, stop - start], axis=1).astype(np.float32)
    order = np.lexsort((box[:, 1], box[:, 0], -found.score, found.frame))
    return Faces(found.frame[order], box[order], found.landmarks[order].astype(np.float32), found.score[order])

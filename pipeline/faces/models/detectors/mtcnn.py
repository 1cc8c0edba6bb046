"""The detector `mtcnn`: the faces that the `mtcnn` package finds, in many frames at once, by ONNX Runtime.

Every step and constant is that package's (mtcnn 1.0.0: stages/, utils/images.py, utils/bboxes.py), with two exceptions.
Levels of the pyramid that are too small for P-Net are left out (the package raises, or finds nothing, as min_face
grows). Results are not rounded to whole pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError
from pipeline.faces.models import zoo
from pipeline.faces.models.base import Faces, Frames
from pipeline.faces.models.detectors.base import border, checked, ordered, taken
from pipeline.faces.models.detectors.boxes import shifted, squared, suppress
from pipeline.faces.models.detectors.mtcnn_graph import GRAPH_VERSION, NETWORKS, build_graph
from pipeline.faces.models.detectors.mtcnn_sight import (
    SIDES,
    STRIDE,
    Buffers,
    MadeBeforehand,
    MadeInGraphs,
    Part,
    Picture,
    Seen,
)  # fmt: skip
from pipeline.faces.models.detectors.pyramid import CELL, level_sizes
from pipeline.machine.device import Device
from pipeline.models.session import MEMORY_SHARES, create_session, run_in_batches
from pipeline.models.weights import cached_graph, weights_files

Frame = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

NAME = "mtcnn"
PNET_BYTES_PER_PIXEL = 112
"""Memory per pixel of a level in bytes: the input, the first convolution (16 float32) and what lives beside it."""
FRAME_BYTES_PER_PIXEL = 24
"""Memory in bytes per pixel of a frame whose levels the graph makes: the frame, and its rows by blocks as uint8 and
float32."""
PATCH_BYTES = {"rnet": 4 * (24 * 24 * 3 + 3 * 22 * 22 * 28), "onet": 4 * (48 * 48 * 3 + 3 * 46 * 46 * 32)}
"""Memory per candidate of R-Net and O-Net in bytes: the patch and the largest activations."""
SAMPLED_BYTES = {network: 8 * 4 * 3 * side * side for network, side in SIDES.items()}
"""Bytes on top if the graph makes the patches: indices, four pixels around each point, and the values between them."""
MOST_PATCHES = {"cpu": 64, "cuda": 4096, "tensorrt": 4096}
"""Most patches of a batch. A CPU is fastest while a batch stays in its caches."""

ANY_SCORE = -1.0
"""Threshold below every score."""


@dataclass(frozen=True)
class Thresholds:
    """The package's thresholds and their defaults, named as in its detect_faces (threshold_pnet, nms_pnet1, ...)."""

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
    """int64 (n,): index into the given frames."""
    corners: npt.NDArray[np.float64]
    """float64 (n, 4): x1, y1, x2, y2 in pixels of the frame."""
    score: Float32
    """float32 (n,)."""
    landmarks: npt.NDArray[np.float64]
    """float64 (n, 5, 2): x, y; zero before O-Net."""

    def take(self, index: npt.NDArray[Any]) -> Candidates:
        return Candidates(self.frame[index], self.corners[index], self.score[index], self.landmarks[index])

    def behind(self, frames: int) -> Candidates:
        """Return the same candidates with `frames` added to each frame index."""
        return Candidates(self.frame + frames, self.corners, self.score, self.landmarks)

    def squared(self) -> Candidates:
        return Candidates(self.frame, squared(self.corners), self.score, self.landmarks)

    def suppressed(self, threshold: float, of_smaller: bool = False) -> Candidates:
        return self.take(suppress(self.frame, self.corners, self.score, threshold, of_smaller))

    @staticmethod
    def join(parts: Sequence[Candidates]) -> Candidates:
        nothing = Candidates(np.empty(0, np.int64), np.empty((0, 4)), np.empty(0, np.float32), np.empty((0, 5, 2)))
        fields = ("frame", "corners", "score", "landmarks")
        return Candidates(*(np.concatenate([getattr(p, name) for p in (nothing, *parts)]) for name in fields))


Find = Callable[[range, Seen], Candidates]
"""Function from a run of pictures, by index, to candidates in them; their frames count from the run's start."""


class MtcnnDetector:
    """Finds faces and five landmarks. Thread-safe.

    `min_face` is the smallest face to look for, in pixels, 12 at least; time goes with its inverse square. `threshold`
    is the least score of O-Net and replaces that of `thresholds`. `in_graphs`: the networks' graphs make their own
    input (mtcnn_sight.py); None: on a GPU only. `networks`: the networks to load; `refined` needs no P-Net.
    """

    def __init__(
        self,
        device: Device,
        min_face: float = 20,
        threshold: float | None = None,
        *,
        scale_factor: float = 0.709,
        thresholds: Thresholds | None = None,
        in_graphs: bool | None = None,
        networks: Sequence[str] = NETWORKS,
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
        portable = device.kind != "cpu"
        self._in_graphs = portable if in_graphs is None else in_graphs
        kind = ("portable" if portable else "cpu") + ("_sampled" if self._in_graphs else "")
        self._sessions: dict[str, Any] = {}
        files = dict(zip(NETWORKS, weights_files(zoo.card(NAME)), strict=True))
        for name in networks:
            path = files[name]
            build = partial(build_graph, name, path, portable, self._in_graphs)
            graph = cached_graph(f"mtcnn_{name}_{kind}", GRAPH_VERSION, [path], build)
            self._sessions[name] = create_session(graph, device, MEMORY_SHARES[f"{NAME} {name}"])
        self._buffers = Buffers()

    def detect(self, frames_rgb: Frames) -> Faces:
        """Return the faces of all frames; boxes are cut at the frame's edge, landmarks are not.

        Raises ValueError for anything but uint8 (height, width, 3) frames.
        """
        pictures = [Picture(checked(frame)) for frame in frames_rgb]
        return ordered(_faces(self._find(pictures, partial(self._cascade, pictures)), pictures))

    def refined(self, frames_rgb: Frames, found: Faces) -> Faces:
        """Return the face that R-Net and O-Net see at each box of another detector, in the order of `found`.

        `confidence` is O-Net's score. It is 0 if either score is not above its threshold.
        """
        pictures = [Picture(checked(frame)) for frame in frames_rgb]
        corners = np.concatenate([found.box[:, :2], found.box[:, :2] + found.box[:, 2:]], axis=1).astype(np.float64)
        given = Candidates(found.frame, corners, found.confidence, np.zeros((len(corners), 5, 2)))

        def refine(batch: range, seen: Seen) -> Candidates:
            part = given.take((given.frame >= batch.start) & (given.frame < batch.stop)).behind(-batch.start)
            coarse = self._refine("rnet", seen, part.squared(), ANY_SCORE)
            fine = self._refine("onet", seen, coarse.squared(), ANY_SCORE)
            sure = (coarse.score > self._thresholds.rnet) & (fine.score > self._thresholds.onet)
            return replace(fine, score=np.where(sure, fine.score, 0).astype(np.float32))

        return _faces(self._find(pictures, refine), pictures)

    def areas(self, frames_rgb: Frames) -> Faces:
        """Return the faces of DeepFace's client (detectors/base.py): boxes and eyes rounded, by confidence."""
        return self._areas([Picture(checked(frame), (0, 0)) for frame in frames_rgb])

    def padded_areas(self, frames_rgb: Frames) -> Faces:
        """Return `areas` of frames in a black border (detectors/base.py); look only at what shows the frame."""
        frames = [checked(frame) for frame in frames_rgb]
        return self._areas([Picture(frame, border(frame)) for frame in frames])

    def _areas(self, pictures: Sequence[Picture]) -> Faces:
        return _eyes_only(_faces(self._find(pictures, partial(self._cascade, pictures)), pictures, np.rint))

    def _find(self, pictures: Sequence[Picture], find: Find) -> Candidates:
        """Return what `find` finds; it gets a run of neighbouring pictures, and these as the networks see them."""
        if not self._in_graphs:
            return find(range(len(pictures)), MadeBeforehand(self._sessions, pictures, self._buffers))
        return self._by_size(pictures, "mtcnn", partial(self._find_in_graphs, pictures, find))

    def _by_size(
        self, pictures: Sequence[Picture], model: str, find: Callable[[range, int, int], Candidates]
    ) -> Candidates:
        """Join what `find` gives for runs of neighbouring pictures of one size; it gets a run and a part of it."""
        found: list[Candidates] = []
        for size, group in groupby(range(len(pictures)), key=lambda index: pictures[index].size):
            members = list(group)
            run = partial(find, range(members[0], members[-1] + 1))
            largest = max((rows * columns for _, rows, columns in self._levels(size)), default=0)
            most = frames_at_once(self._device, largest, size[0] * size[1] if self._in_graphs else 0)
            found += [part for *_, part in run_in_batches(self._device, model, size, len(members), most, run)]
        return Candidates.join(found)

    def _find_in_graphs(
        self, pictures: Sequence[Picture], find: Find, indices: range, start: int, stop: int
    ) -> Candidates:
        batch = indices[start:stop]
        seen = MadeInGraphs(self._sessions, [pictures[index] for index in batch], self._device)
        return find(batch, seen).behind(batch.start)

    def _cascade(self, every: Sequence[Picture], batch: range, seen: Seen) -> Candidates:
        pictures, limits = every[batch.start : batch.stop], self._thresholds
        found = self._propose(pictures, seen).suppressed(limits.nms_pnet2).squared()
        found = self._refine("rnet", seen, found, limits.rnet).suppressed(limits.nms_rnet).squared()
        found = self._refine("onet", seen, found, limits.onet)
        return found.suppressed(limits.nms_onet, of_smaller=True)

    # -- the first network: every position of every frame, at every size ----------------------------------------------

    def _propose(self, pictures: Sequence[Picture], seen: Seen) -> Candidates:
        if self._in_graphs:  # the pictures are already one batch
            return self._propose_slice(pictures, seen, range(len(pictures)), 0, len(pictures))
        return self._by_size(pictures, "mtcnn pnet", partial(self._propose_slice, pictures, seen))

    def _levels(self, size: tuple[int, int]) -> list[tuple[float, int, int]]:
        return level_sizes(size[1], size[0], self._min_face, self._scale_factor)

    def _propose_slice(
        self, pictures: Sequence[Picture], seen: Seen, indices: range, start: int, stop: int
    ) -> Candidates:
        """Return candidates of some pictures of one size, after the suppression within each level."""
        batch = indices[start:stop]
        picture = pictures[batch[0]]
        found = []
        for scale, rows, columns in self._levels(picture.size):
            cells = picture.cells(rows, columns)
            part = Part.around(cells, rows, columns)
            level = self._propose_level(seen, batch, part, scale, (cells[0].start, cells[1].start))
            found.append(level.suppressed(self._thresholds.nms_pnet1))
        return Candidates.join(found).behind(batch[0])

    def _propose_level(self, seen: Seen, batch: range, part: Part, scale: float, origin: tuple[int, int]) -> Candidates:
        """Return the cells of (a part of) a level that look like a face, as boxes; `origin` is the first cell."""
        parts = []
        look = seen.level(batch, part, math.log(self._thresholds.pnet / (1 - self._thresholds.pnet)))
        for first, stop in self._strips(len(batch), part):
            cells = look(STRIDE * first, stop)
            x, y = cells.column + origin[1], cells.row + first + origin[0]
            # The package counts a cell's pixels from 1 to 12, so that a cell is 11 wide.
            corner = np.stack([x, y, x, y], axis=1) * STRIDE + np.array([1, 1, CELL, CELL])
            corners = (corner + cells.values[:, 1:5].astype(np.float64) * (CELL - 1)) / scale
            score = _probability(cells.values[:, 0])
            parts.append(Candidates(cells.frame, corners, score, np.zeros((len(score), 5, 2))))
        return Candidates.join(parts)

    def _strips(self, frames: int, part: Part) -> Iterator[tuple[int, int]]:
        """Yield strips whose activations stay within batch_memory_bytes, as first row of cells and end row of pixels.

        A strip of cells y1 to y2 needs rows 2 y1 to 2 y2 + 10 of the level. Its results equal the whole level's.
        """
        cell_rows = (part.height - 1) // 2 - 4
        strip = self._device.batch_memory_bytes // (PNET_BYTES_PER_PIXEL * part.width * frames)
        step = max(16, strip // STRIDE - 5)
        for first in range(0, cell_rows, step):
            last = min(first + step, cell_rows)
            yield first, part.height if last == cell_rows else STRIDE * last + 10

    # -- the second and third network: the candidates of all frames together ------------------------------------------

    def _refine(self, network: str, seen: Seen, found: Candidates, threshold: float) -> Candidates:
        run = partial(self._refine_slice, network, seen, found, threshold)
        side = SIDES[network]
        bytes_each = PATCH_BYTES[network] + (SAMPLED_BYTES[network] if self._in_graphs else 0)
        most = max(1, min(MOST_PATCHES[self._device.kind], self._device.batch_memory_bytes // bytes_each))
        count = len(found.frame)
        batches = run_in_batches(self._device, f"mtcnn {network}", (side, side), count, most, run)
        return Candidates.join([part for _, _, part in batches])

    def _refine_slice(
        self, network: str, seen: Seen, found: Candidates, threshold: float, start: int, stop: int
    ) -> Candidates:
        part = found.take(np.arange(start, stop))
        logit, offsets, *shares = seen.refined(network, part.frame, part.corners)
        landmarks = part.landmarks
        if shares:  # O-Net's: five x then five y as shares of the box
            size = part.corners[:, None, 2:] - part.corners[:, None, :2] + 1
            landmarks = size * shares[0].reshape(-1, 2, 5).transpose(0, 2, 1) + part.corners[:, None, :2] - 1
        refined = Candidates(part.frame, shifted(part.corners, offsets), _probability(logit[:, 0]), landmarks)
        return refined.take(np.flatnonzero(refined.score > threshold))


def frames_at_once(device: Device, level_pixels: int, uploaded_pixels: int) -> int:
    """Return how many frames, with a largest level of `level_pixels`, P-Net takes together.

    `uploaded_pixels`: pixels of a frame whose levels the graph makes; 0 if they are made beforehand.
    """
    if device.kind == "cpu" and not uploaded_pixels:
        return 1  # a batch is no faster there than one frame after the other, and takes more memory
    bytes_each = PNET_BYTES_PER_PIXEL * level_pixels + FRAME_BYTES_PER_PIXEL * uploaded_pixels
    return max(1, device.batch_memory_bytes // max(1, bytes_each))


def _probability(logit: Float32) -> Float32:
    """Return the probability for the difference of two logits, with the roundings of TensorFlow's softmax.

    Near 1 those roundings make scores equal, which decides what is suppressed.
    """
    other = np.exp(-np.abs(logit))
    larger = 1 / (1 + other)
    return np.asarray(np.where(logit >= 0, larger, other * larger), np.float32)


def _faces(
    found: Candidates,
    pictures: Sequence[Picture],
    rounding: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]] = np.asarray,
) -> Faces:
    """Return faces in the package's order: by frame and score; the last of equal scores first."""
    edges = np.array([picture.size[::-1] for picture in pictures], np.float64).reshape(-1, 2)
    corners = np.clip(found.corners.reshape(-1, 2, 2), 0, edges[found.frame][:, None] - 1)
    start, stop = corners[:, 0], corners[:, 1]
    box = rounding(np.concatenate([start, stop - start], axis=1)).astype(np.float32)
    return Faces(found.frame, box, rounding(found.landmarks).astype(np.float32), found.score)


def _eyes_only(faces: Faces) -> Faces:
    """Drop nose and mouth, which DeepFace's client does not pass on."""
    landmarks = faces.landmarks.copy()
    landmarks[:, 2:] = np.nan
    return Faces(faces.frame, faces.box, landmarks, faces.confidence)


class FastMtcnnDetector(MtcnnDetector):
    """DeepFace's `fastmtcnn`: facenet-pytorch's MTCNN(), here on the networks of the `mtcnn` package.

    Its defaults are those of facenet-pytorch 2.x (models/mtcnn.py: min_face_size 20, thresholds 0.6, 0.7, 0.7, factor
    0.709). Both packages hold conversions of one original, so faces agree, but not to the pixel: facenet-pytorch
    resizes by adaptive average pooling and crops whole pixels.
    """

    def __init__(self, device: Device, min_face: float = 20, threshold: float | None = None) -> None:
        super().__init__(device, min_face, threshold, thresholds=Thresholds(onet=0.7))

    def _areas(self, pictures: Sequence[Picture]) -> Faces:
        """Return boxes as DeepFace's client: whole pixels, the largest first (facenet-pytorch's select_largest)."""
        faces = _faces(self._find(pictures, partial(self._cascade, pictures)), pictures)
        # The client rounds corners to whole pixels after it takes w = x2 - x1, as is done here.
        order = np.lexsort((-faces.box[:, 2] * faces.box[:, 3], faces.frame))
        cut = Faces(faces.frame, np.trunc(faces.box), np.trunc(faces.landmarks), faces.confidence)
        return _eyes_only(taken(cut, order))

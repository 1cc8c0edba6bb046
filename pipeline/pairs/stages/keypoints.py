"""Find keypoints in each picture and describe the place around each of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
from pydantic import Field

from pipeline.engine.stage import Chunk, Stage, StageOptions
from pipeline.errors import ModelError
from pipeline.machine.device import Device
from pipeline.media.picture import resized
from pipeline.models.card import ModelInfo
from pipeline.pairs.models import EXTRACTORS, sift, superpoint
from pipeline.pairs.models.extractor import LocalFeatures, Picture, strongest
from pipeline.pairs.options import WeightsOptions
from pipeline.store.schema import Array, Axis
from pipeline.text import unknown


class KeypointsOptions(WeightsOptions):
    """Options of `keypoints`."""

    model: str = Field(sift.CARD.name, description=f"one of {', '.join(EXTRACTORS)}")
    most: int = Field(2048, ge=1, le=1_000_000, description="keypoints of a picture, at most: the strongest")
    threshold: float | None = Field(
        None, ge=0, description="score or contrast that a keypoint must exceed; default: the model's own"
    )
    longest: int | None = Field(
        None, ge=16, description="longest side, in pixels, that the model sees; it sees a smaller copy of larger "
        "pictures, and keypoints are moved into the picture itself. Default: 3200 for sift, 1600 for networks",
    )  # fmt: skip
    weights: Path | None = Field(None, description="superpoint: path of its weights, superpoint_v1.pth")
    root: bool = Field(True, description="sift: RootSIFT, as COLMAP stores it; false: SIFT's own descriptors")


class Keypoints(Stage):
    """Local features of each picture."""

    needs = ("frames_rgb",)
    axes = (Axis("keypoint"),)
    version = 1
    most_items = 16
    Options = KeypointsOptions

    def __init__(self, options: StageOptions) -> None:
        super().__init__(options)
        choices: KeypointsOptions = self.options
        if choices.model not in EXTRACTORS:
            raise ModelError(unknown("model", choices.model, EXTRACTORS))
        if choices.model != sift.CARD.name and not choices.root:
            raise ModelError(f"root: false is for model: {sift.CARD.name}, not {choices.model}; leave it out")
        if choices.model != superpoint.NAME and choices.weights:
            raise ModelError(f"weights is for model: {superpoint.NAME}, not {choices.model}; leave it out")
        self.extractor = EXTRACTORS[choices.model](choices)
        self.usual_rows = float(choices.most)
        # Declared for classes, and read from instances.
        self.slot = self.extractor.slot  # type: ignore[misc]
        self.seconds_per_megapixel = self.extractor.seconds_per_megapixel  # type: ignore[misc]
        place = {"units": "pixel", "description": "x, y; the centre of the upper left pixel is 0.5, 0.5"}
        score = {"description": "descending within a picture"}
        scale = {"units": "pixel", "description": "diameter in the picture that was looked at; NaN if not known"}
        angle = {"units": "degree", "description": "from x towards y; NaN if not known"}
        described = {"model": choices.model}
        length, dtype = self.extractor.length, self.extractor.dtype
        self.outputs = (
            Array("n_keypoints", ("frame",), "int32"),
            Array("keypoint", ("keypoint", "xy"), "float32", (2,), place, place="xy", mapped=True),
            Array("keypoint_score", ("keypoint",), "float32", (), score, mapped=True),
            Array("keypoint_scale", ("keypoint",), "float32", (), scale, mapped=True),
            Array("keypoint_angle", ("keypoint",), "float32", (), angle, mapped=True),
            Array("descriptor", ("keypoint", "component"), dtype, (length,), described, mapped=True),
        )

    def models(self) -> tuple[ModelInfo, ...]:
        return (self.extractor.info,)

    def load(self, device: Device) -> None:
        self.opened = self.extractor.open(device)

    def run(self, chunk: Chunk) -> dict[str, np.ndarray]:
        pictures = cast(Sequence[Picture], chunk.frames_rgb)
        rows = np.flatnonzero(chunk.decoded).tolist()
        longest = self.options.longest or self.extractor.longest
        seen = [_shrunk(pictures[row], longest) for row in rows]
        found = [strongest(features, self.options.most) for features in self.opened.extract(seen)]
        counts = np.zeros(len(chunk), np.int32)
        counts[rows] = [len(features.scores) for features in found]
        for row, small, features in zip(rows, seen, found, strict=True):
            _enlarge(features, small, pictures[row])
        none = LocalFeatures.none(self.extractor.length, self.extractor.dtype)
        points, scores, scales, angles, descriptors = (
            np.concatenate(parts) for parts in zip(none, *found, strict=True)
        )
        return {
            "n_keypoints": counts,
            "keypoint": points,
            "keypoint_score": scores,
            "keypoint_scale": scales,
            "keypoint_angle": angles,
            "descriptor": descriptors,
        }


def _shrunk(picture: Picture, longest: int) -> Picture:
    """Return a picture, or a smaller copy of which no side is longer than `longest`."""
    height, width = picture.shape[:2]
    factor = longest / max(height, width)
    return picture if factor >= 1 else resized(picture, max(1, round(width * factor)), max(1, round(height * factor)))


def _enlarge(features: LocalFeatures, seen: Picture, picture: Picture) -> None:
    """Move keypoints from the copy that the model saw into the picture, in place."""
    if seen is not picture:
        factors = np.divide(picture.shape[1::-1], seen.shape[1::-1])
        features.points[:] *= factors
        features.scales[:] *= np.sqrt(factors.prod())

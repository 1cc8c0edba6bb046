"""Find faces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from pipeline.models.base import Device, ModelInfo
from pipeline.stages.base import Array, Chunk, Stage, StageOptions

if TYPE_CHECKING:
    from pipeline.models.base import Detector


class DetectOptions(StageOptions):
    """Options of `detect`."""

    model: str = Field("mtcnn", description="detector; `reelgraph models` lists them")
    min_face: int = Field(20, ge=10, description="smallest face looked for, side in pixels of the frame")
    align: Literal["native"] = Field("native", description="native: detect on the frame itself")


class Detect(Stage):
    """Faces of every frame: boxes, five landmarks, confidence."""

    needs = ("frames_rgb",)
    slot = "gpu"
    version = 1
    Options = DetectOptions
    outputs: tuple[Array, ...] = (
        Array("n_faces", ("frame",), "int32", (), {"description": "faces found, 0 where the frame was not decoded"}),
        Array(
            "box",
            ("face", "xywh"),
            "float32",
            (4,),
            {"units": "pixel", "description": "x, y, width, height in the upright frame, x right, y down"},
        ),
        Array(
            "landmarks",
            ("face", "landmark", "xy"),
            "float32",
            (5, 2),
            {
                "units": "pixel",
                "landmark_names": ["right_eye", "left_eye", "nose", "right_mouth", "left_mouth"],
                "description": "the person's own right and left; NaN where the detector gives none",
            },
        ),
        Array("confidence", ("face",), "float32", (), {"units": "1", "description": "score of the detector, 0 to 1"}),
    )

    def models(self) -> tuple[ModelInfo, ...]:
        from pipeline.models import describe

        return (describe(self.options.model),)

    def load(self, device: Device) -> None:
        from pipeline.models import create_detector

        self.detector: Detector = create_detector(self.options.model, device, min_face=self.options.min_face)

    def run(self, chunk: Chunk) -> dict[str, np.ndarray]:
        readable = np.flatnonzero(chunk.decoded)
        # Unreadable frames are black; they are left out, so that nothing is ever found in them.
        frames = chunk.frames_rgb if len(readable) == len(chunk.decoded) else chunk.frames_rgb[readable]
        faces = self.detector.detect(frames)
        n_faces = np.zeros(len(chunk.frame), np.int32)
        n_faces[readable] = np.bincount(faces.frame, minlength=len(readable)).astype(np.int32)
        return {"n_faces": n_faces, "box": faces.box, "landmarks": faces.landmarks, "confidence": faces.confidence}

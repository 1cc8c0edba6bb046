"""Tell live faces from pictures of faces."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from pipeline.models import zoo
from pipeline.models.base import Device, Faces, ModelInfo
from pipeline.stages.base import Array, Chunk, Stage, StageOptions

if TYPE_CHECKING:
    from pipeline.models.base import Attribute


class AntispoofOptions(StageOptions):
    """Options of `antispoof`."""

    model: str = Field("Fasnet", description="anti-spoofing model; `reelgraph models` lists them")


class Antispoof(Stage):
    """Whether each face is a live one."""

    needs = ("frames_rgb", "n_faces", "box")
    slot = "gpu"
    version = 1
    Options = AntispoofOptions

    def __init__(self, options: StageOptions) -> None:
        super().__init__(options)
        classes = zoo.card(self.options.model, "spoofing").classes
        self.outputs = (
            Array(
                "real",
                ("face", "real_class"),
                "float32",
                (len(classes),),
                {
                    "model": self.options.model,
                    "units": "1",
                    "class_names": list(classes),
                    "description": (
                        "probability of each class, adding up to 1: the face is live where 'real' is the largest; "
                        "which kind of spoof is said counts for little; NaN where nothing of a face is in the frame"
                    ),
                },
            ),
        )

    def models(self) -> tuple[ModelInfo, ...]:
        from pipeline.models import describe

        return (describe(self.options.model),)

    def load(self, device: Device) -> None:
        from pipeline.models import create_spoofing

        self.spoofing: Attribute = create_spoofing(self.options.model, device)

    def run(self, chunk: Chunk) -> dict[str, np.ndarray]:
        n_faces = len(chunk.face_frame)
        faces = Faces(
            frame=chunk.face_frame,
            box=chunk["box"],
            landmarks=np.full((n_faces, 5, 2), np.nan, np.float32),  # it looks at boxes alone
            confidence=np.ones(n_faces, np.float32),
        )
        return {"real": self.spoofing.predict(self.spoofing.chips(chunk.frames_rgb, faces))}

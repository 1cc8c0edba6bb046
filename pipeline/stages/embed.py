"""Turn faces into vectors that are near for one person and far for two."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from pipeline.models.base import Device, Faces, ModelInfo
from pipeline.stages.base import Array, Chunk, Stage, StageOptions

if TYPE_CHECKING:
    from pipeline.models.base import Embedder


class EmbedOptions(StageOptions):
    """Options of `embed`."""

    model: str = Field("Dlib", description="recognition network; `reelgraph models` lists them")
    align: Literal["native"] = Field("native", description="native: warp onto the chip the network was trained on")


class Embed(Stage):
    """One embedding per face."""

    needs = ("frames_rgb", "n_faces", "box", "landmarks")
    slot = "gpu"
    version = 1
    Options = EmbedOptions

    def __init__(self, options: StageOptions) -> None:
        super().__init__(options)
        from pipeline.models import embedding_dimension

        dimension = embedding_dimension(self.options.model)
        self.outputs = (
            Array(
                "embedding",
                ("face", "component"),
                "float32",
                (dimension,),
                {"model": self.options.model, "description": "as the model gives it, not normalised"},
            ),
        )

    def models(self) -> tuple[ModelInfo, ...]:
        from pipeline.models import describe

        return (describe(self.options.model),)

    def load(self, device: Device) -> None:
        from pipeline.models import create_embedder

        self.embedder: Embedder = create_embedder(self.options.model, device, align=self.options.align)

    def run(self, chunk: Chunk) -> dict[str, np.ndarray]:
        faces = Faces(
            frame=chunk.face_frame,
            box=chunk["box"],
            landmarks=chunk["landmarks"],
            confidence=np.ones(len(chunk.face_frame), np.float32),
        )
        chips = self.embedder.chips(chunk.frames_rgb, faces)
        return {"embedding": self.embedder.embed(chips)}

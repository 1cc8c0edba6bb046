"""Separate live faces from pictures of faces."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from pipeline.engine.stage import Chunk, Stage, StageOptions
from pipeline.faces.models import create_spoofing, describe, zoo
from pipeline.faces.models.base import Attribute
from pipeline.faces.stages.parts import in_parts
from pipeline.faces.stages.per_track import NEEDS, TrackOptions, get_ready, mean_value, own_rows, per_track, spread
from pipeline.machine.device import Device
from pipeline.models.card import ModelInfo
from pipeline.store.schema import Array

FACES_AT_ONCE = 256
"""Faces whose chips are in memory together: 10 MB."""
CHECKED = "real_checked"
"""Array that marks, with `per: track`, the faces whose result is the model's own."""
MOST_SPREAD = 0.5
"""Total variation of two faces' probabilities beyond which they are not one face, with `per: track`."""


class AntispoofOptions(TrackOptions):
    """Options of `antispoof`."""

    model: str = Field("Fasnet", description="anti-spoofing model; `reelgraph models` lists them")


class Antispoof(Stage):
    """Probabilities that each face is live, or a picture."""

    needs: tuple[str, ...] = ("frames_rgb", "n_faces", "box")
    slot = "gpu"
    version = 1
    Options = AntispoofOptions

    def __init__(self, options: StageOptions) -> None:
        super().__init__(options)
        classes = zoo.card(self.options.model, "spoofing").classes
        about = {
            "model": self.options.model,
            "units": "1",
            "class_names": list(classes),
            "description": "probability of each class, adding up to 1; the face is live if 'real' is the largest. "
            "Do not rely on the kind of spoof. NaN if no part of the face is in the frame",
        }
        self.outputs = (Array("real", ("face", "real_class"), "float32", (len(classes),), about),)
        if self.options.per == "track":
            self.needs = (*self.needs, "landmarks", *NEEDS)
            self.outputs = (*self.outputs, own_rows(CHECKED, "what is said"))

    def models(self) -> tuple[ModelInfo, ...]:
        return (describe(self.options.model),)

    def load(self, device: Device) -> None:
        get_ready(self.options)
        self.spoofing: Attribute = create_spoofing(self.options.model, device)

    def run(self, chunk: Chunk) -> dict[str, np.ndarray]:
        if self.options.per == "face":
            return self._own(chunk, np.arange(len(chunk.face_frame)))

        def agree(said: dict[str, np.ndarray]) -> bool:
            return spread(said["real"]) <= MOST_SPREAD

        values, own = per_track(chunk, self.options.best, lambda rows: self._own(chunk, rows), agree, mean_value)
        return {**values, CHECKED: own}

    def _own(self, chunk: Chunk, rows: np.ndarray) -> dict[str, np.ndarray]:
        real = np.empty((len(rows), *self.outputs[0].shape), np.float32)
        for at, faces in in_parts(chunk, rows, FACES_AT_ONCE):
            real[at] = self.spoofing.predict(self.spoofing.chips(chunk.frames_rgb, faces))
        return {"real": real}

"""Turn faces into vectors that are near for one person and far apart for two."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from pipeline.engine.stage import Chunk, Stage, StageOptions
from pipeline.errors import ModelError
from pipeline.faces.models import clients, create_embedder, describe, zoo
from pipeline.faces.models.base import Embedder
from pipeline.faces.models.recognisers import dlib_resnet, five_points
from pipeline.faces.models.recognisers.thresholds import DEEPFACE_THRESHOLDS, thresholds
from pipeline.faces.stages.parts import in_parts
from pipeline.faces.stages.per_track import (
    NEEDS,
    TrackOptions,
    get_ready,
    mean_vector,
    own_rows,
    per_track,
    vectors_agree,
)  # fmt: skip
from pipeline.machine.device import Device
from pipeline.models.card import ModelInfo
from pipeline.store.schema import Array

Normalization = Literal["base", "raw", "Facenet", "Facenet2018", "VGGFace", "VGGFace2", "ArcFace"]

FACES_AT_ONCE = 256
"""Chips that are in memory together: 154 MB of the largest, VGG-Face's with align deepface."""

EMBEDDED = "embedded"
"""Array that marks, with `per: track`, the faces whose embedding is the network's own."""


class EmbedOptions(TrackOptions):
    """Options of `embed`."""

    model: str = Field("Dlib", description="recognition network; `reelgraph models` lists them")
    align: Literal["auto", "native", "two_views", "deepface"] = Field(
        "auto",
        description="native: warp onto the chip the network was trained on; two_views: average with a mirrored chip by "
        "dlib's 5 points (Dlib only; more accurate, twice the time); deepface: DeepFace's crops; auto: two_views for "
        "Dlib, native for the others",
    )
    flip: bool = Field(False, description="average with the mirrored face: a little more accurate, twice the time")
    normalization: Normalization = Field("base", description="DeepFace's parameter; align deepface only")
    rotate: bool = Field(True, description="DeepFace's parameter `align`, level eyes; align deepface only")
    eight_bit: bool = Field(
        False, description="align deepface: scale faces in 8 bits, as DeepFace.represent does with the detector skip"
    )
    engine: Literal["onnx", "tensorflow", "torch"] = Field(
        "onnx", description="tensorflow, torch: DeepFace's own client on that library"
    )

    @model_validator(mode="before")
    @classmethod
    def _chosen(cls, values: Any) -> Any:
        """Put an alignment in the place of auto: the resume key and the store say what was done."""
        if not isinstance(values, dict) or values.get("align", "auto") != "auto":
            return values
        is_dlib = values.get("model", dlib_resnet.NAME) == dlib_resnet.NAME
        return {**values, "align": "two_views" if is_dlib else "native"}

    @model_validator(mode="after")
    def _fits(self) -> EmbedOptions:
        deepface_only = {"normalization": self.normalization != "base", "rotate": not self.rotate}
        deepface_only["eight_bit"] = self.eight_bit
        for name in (name for name, given in deepface_only.items() if given and self.align != "deepface"):
            raise ValueError(f"option {name} needs align: deepface; leave it out, or set align: deepface")
        card = zoo.card(self.model, "recogniser")
        if self.align == "two_views" and self.model != dlib_resnet.NAME:
            raise ValueError(
                f"align: two_views needs model: {dlib_resnet.NAME}, whose chips dlib's 5 points cut, not {self.model}; "
                f"set align: native, or model: {dlib_resnet.NAME}"
            )
        try:
            clients.check(card, self.engine)
        except ModelError as error:
            raise ValueError(str(error)) from error
        return self

    def keyed(self) -> dict[str, Any]:
        """Leave out `eight_bit` if it is false, so that stores from before this option still resume."""
        values = super().keyed()
        if not self.eight_bit:
            del values["eight_bit"]
        return values


class Embed(Stage):
    """One embedding per face, made from the face itself or, per track, from the best faces of its track."""

    needs: tuple[str, ...] = ("frames_rgb", "n_faces", "box", "landmarks")
    slot = "gpu"
    version = 1
    seconds_per_row = 0.006  # one chip of Dlib (`make bench`)
    Options = EmbedOptions

    def __init__(self, options: StageOptions) -> None:
        super().__init__(options)
        model, align = self.options.model, self.options.align
        chips = (2 if align == "two_views" else 1) * (2 if self.options.flip else 1)
        self.seconds_per_row = chips * type(self).seconds_per_row  # type: ignore[misc]
        attributes = {
            "model": model,
            "align": align,
            "thresholds": thresholds(model, align),
            "deepface_thresholds": DEEPFACE_THRESHOLDS[model],
            "description": "as DeepFace's client of the model gives it: VGG-Face of length 1, others not normalised",
        }
        shape = (zoo.card(model, "recogniser").dimension,)
        self.outputs = (Array("embedding", ("face", "component"), "float32", shape, attributes),)
        if self.options.per == "track":
            self.needs = (*self.needs, *NEEDS)
            self.outputs = (*self.outputs, own_rows(EMBEDDED, "the embedding"))

    def models(self) -> tuple[ModelInfo, ...]:
        network = describe(self.options.model, self.options.engine)
        return (network, five_points.info()) if self.options.align == "two_views" else (network,)

    def load(self, device: Device) -> None:
        get_ready(self.options)
        options = self.options.model_dump(exclude={"model", "per", "best"})
        self.embedder: Embedder = create_embedder(self.options.model, device, **options)

    def run(self, chunk: Chunk) -> dict[str, np.ndarray]:
        if self.options.per == "face":
            return self._embedded(chunk, np.arange(len(chunk.face_frame)))
        threshold = thresholds(self.options.model, self.options.align)["cosine"]

        def agree(said: dict[str, np.ndarray]) -> bool:
            return vectors_agree(said["embedding"], threshold)

        values, own = per_track(chunk, self.options.best, lambda rows: self._embedded(chunk, rows), agree, mean_vector)
        return {**values, EMBEDDED: own}

    def _embedded(self, chunk: Chunk, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return the network's own embeddings of some of the chunk's faces."""
        embedding = np.empty((len(rows), self.embedder.dimension), np.float32)
        for at, faces in in_parts(chunk, rows, FACES_AT_ONCE):
            embedding[at] = self.embedder.embed(self.embedder.chips(chunk.frames_rgb, faces))
        return {"embedding": embedding}

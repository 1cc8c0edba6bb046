"""Estimate age, gender, emotion and race of faces."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from pipeline.engine.stage import Chunk, Stage, StageOptions
from pipeline.faces.models import create_attribute, describe, zoo
from pipeline.faces.models.base import Attribute
from pipeline.faces.stages.parts import in_parts
from pipeline.faces.stages.per_track import NEEDS, TrackOptions, get_ready, mean_value, own_rows, per_track, spread
from pipeline.machine.device import Device
from pipeline.models.card import ModelInfo
from pipeline.store.schema import Array

Name = Literal["age", "gender", "emotion", "race"]

MOST_FACES = 128
"""Faces whose chips are in memory together: 77 MB of float32, however crowded a chunk is."""

SPREADS = {"age": 15.0, "gender": 0.5, "race": 0.5}
"""Differences beyond which two faces of a track cannot be one person, with `per: track`: years, or total variation of
probabilities. Emotion is left out, because it changes with time; to follow it, give it a stage of its own, per face."""


class AnalyzeOptions(TrackOptions):
    """Options of `analyze`."""

    attributes: tuple[Name, ...] = Field(
        ("age", "gender", "emotion", "race"), min_length=1, description="attributes; each has weights of its own"
    )
    align: Literal["native", "deepface"] = Field(
        "native", description="native: the upright box with its surroundings; deepface: as DeepFace cuts faces"
    )
    rotate: bool = Field(True, description="align deepface: turn faces until the eyes are level")
    engine: Literal["onnx", "tensorflow", "torch"] = Field(
        "onnx", description="tensorflow, torch: DeepFace's own clients on that library"
    )

    @field_validator("attributes")
    @classmethod
    def _each_once(cls, names: tuple[Name, ...]) -> tuple[Name, ...]:
        """Sort the attributes, so that the order in the workflow changes nothing."""
        return tuple(name for name in ("age", "gender", "emotion", "race") if name in names)


class Analyze(Stage):
    """One number or one set of probabilities per face and attribute; per track, from the best faces of its track."""

    needs: tuple[str, ...] = ("frames_rgb", "n_faces", "box", "landmarks")
    slot = "gpu"
    version = 1
    Options = AnalyzeOptions

    def __init__(self, options: StageOptions) -> None:
        super().__init__(options)
        self.outputs = self._read_off = tuple(_array(name) for name in self.options.attributes)
        if self.options.per == "track":
            self.needs = (*self.needs, *NEEDS)
            self.outputs = (*self.outputs, own_rows(analyzed(self.options.attributes), "what was read off"))

    def models(self) -> tuple[ModelInfo, ...]:
        return tuple(describe(name.title(), self.options.engine) for name in self.options.attributes)

    def load(self, device: Device) -> None:
        get_ready(self.options)
        options = self.options.model_dump(exclude={"attributes", "per", "best"})
        self.attributes: dict[str, Attribute] = {
            name: create_attribute(name.title(), device, **options) for name in self.options.attributes
        }

    def run(self, chunk: Chunk) -> dict[str, np.ndarray]:
        if self.options.per == "face":
            return self._own(chunk, np.arange(len(chunk.face_frame)))
        values, own = per_track(chunk, self.options.best, lambda rows: self._own(chunk, rows), _agree, mean_value)
        return {**values, analyzed(self.options.attributes): own}

    def _own(self, chunk: Chunk, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return the networks' own results for some of the chunk's faces, all from one set of chips."""
        results = {array.name: np.empty((len(rows), *array.shape), np.float32) for array in self._read_off}
        for at, faces in in_parts(chunk, rows, MOST_FACES):
            chips = next(iter(self.attributes.values())).chips(chunk.frames_rgb, faces)
            for name, attribute in self.attributes.items():
                results[name][at] = attribute.predict(chips)
        return results


def _agree(said: dict[str, np.ndarray]) -> bool:
    return all(spread(said[name]) <= most for name, most in SPREADS.items() if name in said)


def analyzed(attributes: tuple[Name, ...]) -> str:
    """Return the name of the array that marks the networks' own rows, with `per: track`.

    Each choice of attributes has a name of its own, because several stages share a store.
    """
    every = Name.__args__  # type: ignore[attr-defined]
    return "analyzed" if attributes == every else "_".join(["analyzed", *attributes])


def _array(name: str) -> Array:
    model = name.title()
    if name == "age":
        about: dict[str, Any] = {"model": model, "units": "year"}
        about["description"] = "apparent age; NaN if no part of the face is in the frame"
        return Array(name, ("face",), "float32", (), about)
    classes = zoo.card(model).classes
    about = {
        "model": model,
        "units": "1",
        "class_names": list(classes),
        "description": "probability of each class, adding up to 1; NaN if no part of the face is in the frame",
    }
    # Dimensions of one name have one size in a store, so each attribute has a name of its own for its classes.
    return Array(name, ("face", f"{name}_class"), "float32", (len(classes),), about)

"""Augmented pictures in a store, with the bytes that a `Loader` of the same seed gives; and their labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field, field_validator

from pipeline.engine.stage import Chunk, Described, Stage, StageOptions
from pipeline.errors import InputError
from pipeline.loader.augment import Augment, Augmenter
from pipeline.loader.draws import UNIFORMS, Draws
from pipeline.loader.items import folder_of
from pipeline.store.read import RunInput
from pipeline.store.schema import Array


class AugmentOptions(Augment, StageOptions):
    """Parameters of the augmentation, and which of its draws are stored."""

    size: tuple[int, int] = Field(description="height and width of the pictures, as the source's resize makes them")
    seed: int = Field(0, description="seed of the loader")
    epoch: int = Field(0, ge=0, description="epoch of the loader: another one gives other pictures")
    preprocessing_function: None = Field(None, description="for `Loader` alone")

    @field_validator("preprocessing_function", mode="before")
    @classmethod
    def _none(cls, value: Any) -> None:
        if value is not None:
            raise ValueError("a function is for Loader alone; leave it out")


class AugmentStage(Stage):
    """One changed picture for each picture."""

    needs = ("frames_rgb",)
    version = 1
    seconds_per_megapixel = 0.05
    Options = AugmentOptions

    def __init__(self, options: StageOptions) -> None:
        super().__init__(options)
        chosen: AugmentOptions = self.options
        augmenter = Augmenter(chosen)
        augmenter.changes([0.0] * UNIFORMS, *chosen.size)  # raises if a crop does not fit
        dtype = "uint8" if chosen.keeps_integers else "float32"
        shape = (*augmenter.size(*chosen.size), 3)
        self.outputs = (Array("image", ("frame", "row", "column", "channel"), dtype, shape),)

    def run(self, chunk: Chunk) -> dict[str, np.ndarray]:
        options: AugmentOptions = self.options
        augmenter, draws = Augmenter(options), Draws(options.seed)
        (declared,) = self.outputs
        images = np.zeros((len(chunk), *declared.shape), declared.dtype)
        for row in np.flatnonzero(chunk.decoded).tolist():
            picture = chunk.frames_rgb[row]
            if picture.shape[:2] != options.size:
                height, width = options.size
                raise InputError(
                    f"picture {chunk.frame[row]} is {picture.shape[0]} pixels high and {picture.shape[1]} wide, not "
                    f"{height} and {width} (augment.size); set source.resize: [{width}, {height}]"
                )
            changes = augmenter.changes(draws.uniforms(options.epoch, int(chunk.frame[row])), *options.size)
            augmenter.colours(augmenter.geometry(picture, changes), changes, images[row])
        return {"image": images}


class Labels(Stage):
    """Number of each picture's first folder among those of the input; -1 if it lies in none."""

    needs = ("name",)
    scope = "input"
    version = 1
    outputs = (Array("label", ("frame",), "int32"),)

    def run_input(self, item: RunInput) -> dict[str, np.ndarray | Described]:
        found = [folder_of(str(name).encode()) for name in item.array("name").tolist()]
        names = sorted({name for name in found if name is not None})
        numbers = {name: number for number, name in enumerate(names)}
        label = np.array([-1 if name is None else numbers[name] for name in found], np.int32)
        return {"label": Described(label, {"class_names": [name.decode() for name in names]})}

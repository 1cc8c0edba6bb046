"""Options of a network that takes pictures, and how its ONNX graph wants them."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, field_validator

from pipeline.engine.stage import StageOptions
from pipeline.errors import ModelError
from pipeline.machine.device import Device
from pipeline.media.preparation import Layout, Pixels, Size
from pipeline.models.onnx_file import INPUTS, Value, is_path

CPU_BATCH = 2
"""Pictures in a batch, for each thread. What a network makes of them stays in a core's cache: EfficientNet-Lite0
computes a fifth more pictures a second than in batches of 32. Networks of few large layers compute as many."""
GPU_BATCH = 32
BATCH = (
    "pictures in a batch, at most; changes no results; "
    f"default: {CPU_BATCH} for each thread of a CPU, {GPU_BATCH} on a GPU"
)


class NetworkOptions(StageOptions):
    """Options of a stage whose model is a known one, or an ONNX file of the user."""

    NAMED: ClassVar[Collection[str]] = ()
    """Names of the known models."""

    model: str
    size: Pixels | None = Field(
        None, description="pixels of the network's input: one side, [height, width], or 640x480 (width first); "
        "default: as the file says"
    )  # fmt: skip
    scale: float | None = Field(None, gt=0, allow_inf_nan=False)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    layout: Layout | None = Field(None, description="order of the input's dimensions; default: by the file's shape")
    batch: int | None = Field(None, ge=1, le=4096, description=BATCH)

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _one_or_three(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int | float) else value

    @field_validator("mean", "std")
    @classmethod
    def _colours(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is not None and (len(value) not in (1, 3) or not np.isfinite(value).all()):
            raise ValueError("give one number or three")
        return value

    @field_validator("std")
    @classmethod
    def _not_zero(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is not None and min(value) <= 0:
            raise ValueError("std must be greater than 0")
        return value

    @field_validator("model")
    @classmethod
    def _where(cls, value: str) -> str:
        """Make a path absolute: workers may run in another folder."""
        return os.path.abspath(os.path.expanduser(value)) if is_path(value, cls.NAMED) else value

    def most_at_once(self, device: Device) -> int:
        """Return how many pictures a batch may have on this device."""
        return self.batch or (CPU_BATCH * device.threads if device.kind == "cpu" else GPU_BATCH)

    def keyed(self) -> dict[str, Any]:
        """Leave out the size of a batch, and the path of a file, whose content is part of the key."""
        values = super().keyed()
        del values["batch"]
        return {**values, "model": "an ONNX file"} if is_path(self.model, self.NAMED) else values


def input_layout(choices: NetworkOptions, value: Value, stage: str) -> Layout:
    """Return the order of the input's dimensions. Raises ModelError if it is not clear, or not that of pictures."""
    sizes = value.sizes or (None,) * 4
    if value.dtype not in INPUTS or len(sizes) != 4:
        raise ModelError(
            f"model {choices.model} takes {value}; {stage} needs pictures, 4 dimensions of {', '.join(INPUTS)}"
        )
    possible: list[Layout] = []
    possible += ["NCHW"] if sizes[1] in (3, None) else []
    possible += ["NHWC"] if sizes[3] in (3, None) else []
    if choices.layout:
        if choices.layout not in possible:
            raise ModelError(f"layout {choices.layout} does not fit model {choices.model}, which takes {value}")
        return choices.layout
    if not possible:
        raise ModelError(f"model {choices.model} takes {value}, not pictures of 3 colours")
    if len(possible) == 2:
        stated: list[Layout] = ["NCHW"] if sizes[1] == 3 else []
        stated += ["NHWC"] if sizes[3] == 3 else []
        possible = stated
    if len(possible) != 1:
        raise ModelError(
            f"model {choices.model} takes {value}, which does not say where the colours are; "
            "set layout: NCHW (as of PyTorch) or NHWC (as of TensorFlow)"
        )
    return possible[0]


def input_size(choices: NetworkOptions, value: Value, layout: Layout, usual: Size | None = None) -> Size:
    """Return height and width of the input; `usual` if neither options nor graph say them. Raises ModelError."""
    sizes = value.sizes or (None,) * 4
    stated = sizes[2:] if layout == "NCHW" else sizes[1:3]
    given = choices.size or (usual if usual is not None and None in stated else stated)
    if None in given:
        raise ModelError(f"model {choices.model} takes {value}, pictures of any size; set size, for example size: 224")
    if any(own not in (None, wanted) for own, wanted in zip(stated, given, strict=True)):
        raise ModelError(f"size {list(given)} does not fit model {choices.model}, which takes {value}")
    return int(given[0] or 0), int(given[1] or 0)


def normalisation(
    choices: NetworkOptions, value: Value, scale: float, mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[float, tuple[float, ...], tuple[float, ...]]:
    """Return scale, mean and std: as chosen, or these. Raises ModelError if they are chosen for whole numbers."""
    if value.dtype == "uint8" and (choices.mean, choices.std, choices.scale) != (None, None, None):
        raise ModelError(f"model {choices.model} takes pixels as they are ({value}); leave out mean, std and scale")
    return (
        scale if choices.scale is None else choices.scale,
        mean if choices.mean is None else choices.mean,
        std if choices.std is None else choices.std,
    )

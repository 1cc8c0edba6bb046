"""Turn each picture into a vector that is near for two pictures of similar content."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import numpy as np
from pydantic import Field

from pipeline.engine.stage import Chunk, Stage, StageOptions
from pipeline.errors import ModelError
from pipeline.images.models import efficientnet_lite
from pipeline.images.models.network import Pooling, Runner, describe
from pipeline.machine.device import Device
from pipeline.media.network import NetworkOptions
from pipeline.media.preparation import Colour, Filter, Picture, Resize
from pipeline.models.card import ModelInfo
from pipeline.store.schema import Array


class FeaturesOptions(NetworkOptions):
    """Options of `features`."""

    NAMED = efficientnet_lite.CARDS

    model: str = Field(
        efficientnet_lite.NAME,
        description=f"{efficientnet_lite.NAME}, or the path of an ONNX file (relative to the working directory)",
    )
    resize: Resize = Field(
        "shortest",
        description="shortest: cut the picture to the input's shape; stretch: distort it; longest: add black bars",
    )
    crop: float | None = Field(
        None, gt=0, le=1, description="share of each side that the network sees, in the middle; default 0.875 (224 of "
        "256, as torchvision) with resize: shortest, else 1",
    )  # fmt: skip
    filter: Filter = Field(
        "area", description="area: fast, smooths what it reduces; bilinear, bicubic: Pillow's, as torchvision and timm"
    )
    colour: Colour = Field("RGB", description="order of the network's colours")
    scale: float | None = Field(
        None, gt=0, description="the input is (pixel × scale - mean) / std; default 1/255: 0.00392156862745098"
    )
    mean: tuple[float, ...] | None = Field(
        None,
        description="one number, or one for each colour in the order of `colour`; default, as RGB: 0.485, 0.456, 0.406",
    )
    std: tuple[float, ...] | None = Field(
        None,
        description="one number, or one for each colour in the order of `colour`; default, as RGB: 0.229, 0.224, 0.225",
    )
    output: int | str | None = Field(None, description="output of the network, by name or number; default: the first")
    pooling: Pooling = Field(
        "none", description="mean, max: over the places of a picture or the tokens; none: all values in a row"
    )
    normalise: bool = Field(False, description="divide each feature by its length (L2)")
    dtype: Literal["float32", "float16"] = Field("float32", description="type of the stored feature")


class Features(Stage):
    """One vector per picture, from a network that sees the whole of it."""

    needs = ("frames_rgb",)
    slot = "gpu"
    version = 1
    seconds_per_row = 0.007  # EfficientNet-Lite0, however large the pictures are
    Options = FeaturesOptions

    def __init__(self, options: StageOptions) -> None:
        super().__init__(options)
        self.network = describe(self.options)
        attributes = {
            "model": self.network.info.name,
            "output": self.network.output,
            "description": "NaN for a picture that could not be read"
            + ("; of length 1" if self.options.normalise else "; as the network gives it"),
        }
        shape = (self.network.length,)
        self.outputs = (Array("feature", ("frame", "component"), self.options.dtype, shape, attributes),)

    def models(self) -> tuple[ModelInfo, ...]:
        return (self.network.info,)

    def load(self, device: Device) -> None:
        self.runner = Runner(self.network, device, self.options.most_at_once(device))

    def run(self, chunk: Chunk) -> dict[str, np.ndarray]:
        rows = np.flatnonzero(chunk.decoded).tolist()
        vectors = self.runner.features(cast(Sequence[Picture], chunk.frames_rgb), rows)
        if self.options.normalise:
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
        feature = np.full((len(chunk), self.network.length), np.nan, self.options.dtype)
        largest = np.abs(vectors).max(initial=0)
        if self.options.dtype == "float16" and np.isfinite(largest) and largest > np.finfo(np.float16).max:
            raise ModelError(f"a feature has the component {largest:.6g}, too large for float16; set dtype: float32")
        feature[rows] = vectors
        return {"feature": feature}

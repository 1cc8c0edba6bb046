"""Find objects of known classes in each picture."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np
from pydantic import Field, field_validator, model_validator

from pipeline.engine.stage import Chunk, Stage, StageOptions
from pipeline.errors import ModelError
from pipeline.machine.device import Device
from pipeline.media.mosaic import LOOK_AGAIN, PLAIN, TILES, Mosaics, Tiles, check_look_again, check_size
from pipeline.media.network import NetworkOptions
from pipeline.media.preparation import Colour, Picture, Pixels
from pipeline.models.card import ModelInfo
from pipeline.models.onnx_file import is_path
from pipeline.objects.classes import COCO, given_names
from pipeline.objects.models import hog
from pipeline.objects.models.families import Activation, Corners, Family
from pipeline.objects.models.found import NONE, Choice, best
from pipeline.objects.models.network import OVERLAP, Runner, describe
from pipeline.store.schema import Array, Axis
from pipeline.text import unknown

OF_ALL = frozenset({"model", "keep", "score", "overlap", "most", "batch", "tiles", "look_again"})
"""Options that the detector of people has too."""
FIRST_LOOK = 0.5
"""Part of the least score that an object of a mosaic needs, for a network to look again at its frame. On three clips it
shows 1 to 5 more of a hundred people; lower parts show few more."""


class ObjectsOptions(NetworkOptions):
    """Options of `objects`."""

    NAMED = (hog.NAME,)

    model: str = Field(
        hog.NAME,
        description=f"{hog.NAME}: OpenCV's detector of people; or the path of an ONNX file (relative to the working "
        "directory)",
    )
    family: Family | None = Field(None, description="what the network is; default: by the shape of its outputs")
    tiles: Tiles | None = Field(None, description=TILES)
    look_again: bool = Field(False, description=LOOK_AGAIN)
    size: Pixels | None = Field(
        None, description="pixels of the network's input, which a mosaic fills: one side, [height, width], or 640x480 "
        f"(width first). Default: as the file says. With model {hog.NAME}: pixels of a mosaic; default: as the frames"
    )  # fmt: skip
    resize: Literal["letterbox", "stretch"] | None = Field(
        None, description="letterbox: add grey bars; stretch: distort the picture; default: as the family does"
    )
    colour: Colour | None = Field(None, description="order of the network's colours; default: as the family has it")
    scale: float | None = Field(
        None, gt=0, allow_inf_nan=False,
        description="the input is (pixel × scale - mean) / std; default: as the family has it",
    )  # fmt: skip
    mean: tuple[float, ...] | None = Field(None, description="one number, or one for each colour in their order")
    std: tuple[float, ...] | None = Field(None, description="one number, or one for each colour in their order")
    outputs: tuple[str, ...] | None = Field(
        None, description="names of the outputs: of one that holds all, or of boxes, scores and classes in this order; "
        "default: by their shapes",
    )  # fmt: skip
    box: Corners | None = Field(None, description="order of a box's numbers; cx, cy: its centre; default: the family's")
    normalised: bool | None = Field(
        None, description="true: boxes are in parts of the input's size, false: in its pixels; default: the family's"
    )
    objectness: bool | None = Field(
        None, description="true if a box has a score for being an object before those of the classes; default: the "
        "family's",
    )  # fmt: skip
    cells: bool | None = Field(
        None, description="true if boxes are in cells of the levels (YOLOX as it is exported); default: the family's"
    )
    activation: Activation | None = Field(None, description="makes scores of the outputs; default: the family's")
    first: int | None = Field(
        None, ge=0, description="number of the first class: 1 if 0 is the background; default: the family's"
    )
    classes: tuple[str, ...] | str | None = Field(
        None, description=f"names of the classes; path of a file with one on each line; or {COCO}: its 80. Default: as "
        "the ONNX file says, else numbers",
    )  # fmt: skip
    keep: tuple[str, ...] | None = Field(None, description="names of the classes to keep; default: all")
    score: float = Field(0.25, allow_inf_nan=False, description="least score")
    overlap: float | None = Field(
        None, ge=0, le=1, description="most overlap (intersection over union) of a box with a better one of its class. "
        f"Default: {OVERLAP}; 1, which drops none, for networks that choose themselves",
    )  # fmt: skip
    most: int = Field(300, ge=1, le=100_000, description="objects of a picture, at most: the best")

    @model_validator(mode="after")
    def _large_enough(self) -> ObjectsOptions:
        check_size(self.tiles, self.size)
        check_look_again(self.tiles, self.look_again)
        return self

    @field_validator("classes")
    @classmethod
    def _absolute(cls, value: Any) -> Any:
        """Make a path absolute: workers may run in another folder."""
        return os.path.abspath(os.path.expanduser(value)) if isinstance(value, str) and value != COCO else value

    @field_validator("outputs", "keep", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    def keyed(self) -> dict[str, Any]:
        """Give the names of the classes in place of the path of their file; leave out what is not set."""
        values = {**super().keyed(), "classes": given_names(self.classes), "look_again": self.look_again or None}
        return {name: value for name, value in values.items() if value is not None}


class Objects(Stage):
    """Boxes, classes and scores of the objects in each picture."""

    needs = ("frames_rgb",)
    axes = (Axis("object"),)
    version = 1
    seconds_per_megapixel = 0.8  # hog
    Options = ObjectsOptions

    def __init__(self, options: StageOptions) -> None:
        super().__init__(options)
        choices: ObjectsOptions = self.options
        if choices.model == hog.NAME:
            fields, accepted = ObjectsOptions.model_fields, OF_ALL | ({"size"} if choices.tiles else set())
            odd = [name for name in fields if name not in accepted and getattr(choices, name) != fields[name].default]
            if odd:
                mosaics = "set tiles: 2x2 for mosaics of this size, or " if odd[0] == "size" else ""
                remedy = f"{mosaics}set model to the path of an ONNX file"
                raise ModelError(f"model {hog.NAME} has no option {odd[0]}; {remedy}")
            self.network, names, overlap = None, list(hog.NAMES), OVERLAP
        elif not is_path(choices.model, (hog.NAME,)):
            raise ModelError(unknown("model", choices.model, (hog.NAME,)) + ", or the path of an ONNX file")
        else:
            self.network = describe(choices)
            names, overlap = self.network.names, self.network.overlap
            self.seconds_per_megapixel = 0.1  # type: ignore[misc]  # a small network: a rough estimate for `plan`
        self.slot = "gpu" if self.network else "cpu"  # type: ignore[misc]  # declared for classes, read from instances
        wrong = next((name for name in choices.keep or () if name not in names), None)
        if wrong is not None:
            raise ModelError(f"keep: {unknown('class', wrong, names)}")
        labels = None if choices.keep is None else [index for index, name in enumerate(names) if name in choices.keep]
        overlap = overlap if choices.overlap is None else choices.overlap
        tiles = math.prod(choices.tiles or (1,))
        self.seconds_per_megapixel *= 1 / tiles + choices.look_again  # type: ignore[misc]  # looked at again: at most
        least = choices.score * FIRST_LOOK if self.network and choices.look_again else choices.score
        self.choice = Choice(least, overlap, choices.most * tiles, labels)
        model = {"model": choices.model}
        self.outputs = (
            Array("n_objects", ("frame",), "int32"),
            Array("box", ("object", "xywh"), "float32", (4,), {
                "units": "pixel", "description": "x, y, width, height; inside the picture",
            }, place="xywh"),
            Array("class", ("object",), "int32", (), {"class_names": names}),
            Array("score", ("object",), "float32", (), {"description": "descending within a picture", **model}),
        )  # fmt: skip

    def models(self) -> tuple[ModelInfo, ...]:
        return (self.network.info if self.network else hog.info(),)

    def load(self, device: Device) -> None:
        self.detector: hog.Hog | Runner
        if self.network is None:
            self.detector = hog.Hog(self.choice)
        else:
            self.detector = Runner(self.network, device, self.choice, self.options.most_at_once(device))

    def run(self, chunk: Chunk) -> dict[str, np.ndarray]:
        looked_at = chunk.decoded
        if self.options.tiles:
            arrays = self._in_mosaics(chunk)
            if not self.options.look_again:
                return arrays
            looked_at = arrays["n_objects"] > 0
        rows = np.flatnonzero(looked_at).tolist()
        found = self.detector.objects(cast(Sequence[Picture], chunk.frames_rgb), rows)
        # The detector's own limits may be those of mosaics.
        found = [best(objects, self.options.score, self.options.most) for objects in found]
        counts = np.zeros(len(chunk), np.int32)
        counts[rows] = [len(objects.score) for objects in found]
        box, label, score = (np.concatenate(parts) for parts in zip(NONE, *found, strict=True))
        return {"n_objects": counts, "box": box, "class": label, "score": score}

    def _in_mosaics(self, chunk: Chunk) -> dict[str, np.ndarray]:
        """Return the objects of each frame by the mosaic that it is in, the best of each frame."""
        size, network = self.options.size, self.network
        size, preparation = (size, PLAIN) if network is None else (network.preparation.size, network.preparation)
        mosaics = Mosaics(chunk.frames_rgb, chunk.decoded, self.options.tiles, size, preparation)
        found = self.detector.objects(mosaics, range(len(mosaics)))
        box, label, score = (np.concatenate(parts) for parts in zip(NONE, *found, strict=True))
        mosaic = np.repeat(np.arange(len(found)), [len(one.score) for one in found])
        index, frame, box, _ = mosaics.apart(mosaic, box, score)
        kept = np.arange(len(frame)) - np.searchsorted(frame, frame) < self.options.most
        counts = np.bincount(frame[kept], minlength=len(chunk)).astype(np.int32)
        index = index[kept]
        return {"n_objects": counts, "box": box[kept], "class": label[index], "score": score[index]}

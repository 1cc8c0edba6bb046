"""Find faces."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from pipeline.engine.source import MAX_CHUNK_BYTES
from pipeline.engine.stage import Chunk, Stage, StageOptions
from pipeline.errors import ModelError
from pipeline.faces.models import create_detector, describe
from pipeline.faces.models.base import Detector, Faces
from pipeline.machine.device import Device
from pipeline.media.mosaic import LOOK_AGAIN, TILES, Mosaics, Tiles, check_look_again, check_size
from pipeline.media.preparation import Pixels
from pipeline.models.card import ModelInfo
from pipeline.store.schema import Array

MOSAIC = ("tiles", "size", "look_again")
"""Options of this stage that a detector does not know."""


class DetectOptions(StageOptions):
    """Options of `detect`. An option that the model does not support is refused."""

    model: str = Field("mtcnn", description="detector; `reelgraph models` lists them")
    min_face: int = Field(
        20, ge=10, description="smallest face to look for (side in pixels of the frame; with tiles, of the mosaic)"
    )
    align: Literal["native", "deepface"] = Field(
        "native",
        description="native: detect on the frame itself; deepface: the boxes and eyes that DeepFace finds on it",
    )
    threshold: float | None = Field(
        None, gt=0, lt=1, description="least score of a face; the detector's own if not set"
    )
    max_faces: int | None = Field(None, ge=1, description="keep this many faces per frame, the largest; all if not set")
    rotate: bool = Field(True, description="align deepface: DeepFace's parameter `align`")
    expand_percentage: int = Field(
        0, ge=0, description="align deepface: DeepFace's parameter, percent of a box's width and height"
    )
    whole_frame: bool = Field(
        False,
        description="align deepface: a frame without faces is one face of confidence 0, as with DeepFace's "
        "enforce_detection=False",
    )
    turned: bool = Field(
        False,
        description="align native: look again at turned frames (90, 180, 270 degrees), for heads that are not upright",
    )

    tiles: Tiles | None = Field(None, description=f"align native: {TILES}")
    size: Pixels | None = Field(
        None, description="pixels of a mosaic: one side, [height, width], or 1280x720 (width first); default: as "
        "the frame",
    )  # fmt: skip
    look_again: bool = Field(False, description=LOOK_AGAIN)

    @model_validator(mode="after")
    def _heeded(self) -> DetectOptions:
        from pipeline.faces.models import detectors

        try:
            detectors.check(self.model, detectors.DetectorOptions(**self.model_dump(exclude={"model", *MOSAIC})))
        except ModelError as error:
            raise ValueError(str(error)) from error
        if self.size and not self.tiles:
            raise ValueError("option size needs tiles; leave it out, or set tiles: 2x2")
        check_size(self.tiles, self.size)
        check_look_again(self.tiles, self.look_again)
        if self.tiles and (self.turned or self.align != "native"):
            raise ValueError("option tiles needs align: native, and turned: false; leave it out")
        return self

    def keyed(self) -> dict[str, Any]:
        """Leave out newer options that are not set, so that stores from before them still resume."""
        values = super().keyed()
        return {name: value for name, value in values.items() if value or name not in ("turned", *MOSAIC)}


def detect_in(detector: Detector, frames: Any) -> Faces:
    """Return the faces of frames, or of pictures of which not all may be held at once."""
    from pipeline.faces.models.detectors.base import joined

    blocks = getattr(frames, "blocks", None)
    if blocks is None:
        return detector.detect(frames)
    found = []
    for start, stop in list(blocks(MAX_CHUNK_BYTES)) or [(0, 0)]:
        faces = detector.detect(frames[start:stop])
        found.append(replace(faces, frame=faces.frame + start))
    return joined(found)


RANK = Array(
    "rank", ("face",), "int32",
    attributes={"units": "1", "description": "place in DeepFace's own list of the frame's faces, from 0"},
)  # fmt: skip


class Detect(Stage):
    """The faces of every frame: boxes, five landmarks, confidence; with align deepface also their rank."""

    needs = ("frames_rgb",)
    slot = "gpu"
    version = 1
    seconds_per_megapixel = 0.055  # mtcnn, min_face 20 (`make bench`)
    Options = DetectOptions
    outputs: tuple[Array, ...] = (
        Array("n_faces", ("frame",), "int32", (), {"description": "faces found, 0 if the frame was not decoded"}),
        Array(
            "box", ("face", "xywh"), "float32", (4,),
            {"units": "pixel", "description": "x, y, width, height in the upright frame, x right, y down"},
            place="xywh",
        ),
        Array(
            "landmarks", ("face", "landmark", "xy"), "float32", (5, 2),
            {
                "units": "pixel",
                "landmark_names": ["right_eye", "left_eye", "nose", "right_mouth", "left_mouth"],
                "description": "the person's own right and left; NaN if the detector gives none",
            },
            place="xy",
        ),
        Array("confidence", ("face",), "float32", (), {"units": "1", "description": "score of the detector, 0 to 1"}),
    )  # fmt: skip

    def __init__(self, options: StageOptions) -> None:
        super().__init__(options)
        if self.options.align == "deepface":
            self.outputs = (*self.outputs, RANK)
        tiles = math.prod(self.options.tiles or (1,))
        self.seconds_per_megapixel *= 1 / tiles + self.options.look_again  # type: ignore[misc]  # looked at again: at most

    def models(self) -> tuple[ModelInfo, ...]:
        from pipeline.faces.models.detectors import SKIP

        return () if self.options.model == SKIP.name else (describe(self.options.model),)

    def load(self, device: Device) -> None:
        options = self.options.model_dump(exclude={"model", *MOSAIC})
        if self.options.tiles:
            del options["max_faces"]  # of each frame, not of the mosaic
        self.detector: Detector = create_detector(self.options.model, device, **options)

    def run(self, chunk: Chunk) -> dict[str, np.ndarray]:
        from pipeline.faces.models.detectors.base import largest

        looked_at = chunk.decoded
        if self.options.tiles:
            arrays = self._in_mosaics(chunk)
            if not self.options.look_again:
                return arrays
            looked_at = arrays["n_faces"] > 0
        readable = np.flatnonzero(looked_at)
        # Unreadable frames are black; they are left out, so that no face is ever found in them.
        frames = chunk.frames_rgb if len(readable) == len(looked_at) else chunk.frames_rgb[readable]
        faces = detect_in(self.detector, frames)
        if self.options.tiles and self.options.max_faces:
            faces = largest(faces, self.options.max_faces)
        n_faces = np.zeros(len(chunk.frame), np.int32)
        n_faces[readable] = np.bincount(faces.frame, minlength=len(readable)).astype(np.int32)
        arrays = {"n_faces": n_faces, "box": faces.box, "landmarks": faces.landmarks, "confidence": faces.confidence}
        return arrays if faces.rank is None else {**arrays, RANK.name: faces.rank}

    def _in_mosaics(self, chunk: Chunk) -> dict[str, np.ndarray]:
        """Return the faces of each frame by the mosaic that it is in."""
        from pipeline.faces.models.detectors.base import largest

        mosaics = Mosaics(chunk.frames_rgb, chunk.decoded, self.options.tiles, self.options.size)
        found = detect_in(self.detector, mosaics)
        index, frame, box, points = mosaics.apart(found.frame, found.box, found.confidence, found.landmarks)
        faces = Faces(frame, box, points, found.confidence[index])
        if self.options.max_faces:
            faces = largest(faces, self.options.max_faces)
        n_faces = np.bincount(faces.frame, minlength=len(chunk)).astype(np.int32)
        return {"n_faces": n_faces, "box": faces.box, "landmarks": faces.landmarks, "confidence": faces.confidence}

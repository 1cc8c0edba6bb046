"""Verify the matches of each pair by the geometry of two views."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from pydantic import Field, FiniteFloat

from pipeline.engine.stage import Chunk, Stage, StageOptions
from pipeline.pairs.options import ChoiceOptions
from pipeline.pairs.verification import Method, Model, Verifier
from pipeline.store.schema import Array

OF_ESSENTIAL = {"focal", "focal_factor", "centre"}
"""Options of cameras, which no other model needs."""

_EQUATIONS: dict[Model, str] = {
    "fundamental": "fundamental matrix F: (x_b, y_b, 1) F (x_a, y_a, 1)' = 0",
    "homography": "homography H: (x_b, y_b, 1)' is parallel to H (x_a, y_a, 1)'",
    "essential": "essential matrix E: (x_b, y_b, 1) K_b^-T E K_a^-1 (x_a, y_a, 1)' = 0; K is a picture's camera",
}


class VerifyOptions(ChoiceOptions):
    """Options of `verify`."""

    model: Model = Field(
        "fundamental",
        description="fundamental: two views of any scene; homography: of a plane, or from one place; essential: two "
        "views by cameras whose focal length is known",
    )
    threshold: float = Field(
        4.0, gt=0, allow_inf_nan=False, description="pixels: largest distance of an inlier from the model (Sampson's; "
        "homography: in b), as in COLMAP",
    )  # fmt: skip
    confidence: float = Field(0.9999, gt=0, lt=1, description="probability that the best model is found")
    most: int = Field(10_000, ge=1, le=10_000_000, description="iterations, at most")
    least: int = Field(15, ge=1, description="a model with fewer inliers does not count, as in COLMAP")
    method: Method = Field(
        "magsac", description="OpenCV's estimator: magsac (MAGSAC++), msac (by distances), ransac (by inliers alone)"
    )
    focal: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="essential: focal length of every picture, in pixels; null: by "
        "focal_factor",
    )  # fmt: skip
    focal_factor: float = Field(
        1.2, gt=0, allow_inf_nan=False, description="essential: focal length for each pixel of the longest side, if it "
        "is not known (1.2: as COLMAP guesses)",
    )  # fmt: skip
    centre: tuple[FiniteFloat, FiniteFloat] | None = Field(
        None, description="essential: [x, y] of every picture's principal point, in pixels; null: the middle"
    )

    def choice(self) -> str:
        return f"model: {self.model}"

    def unused(self) -> set[str]:
        """Return the options of cameras, unless the model needs cameras."""
        return set() if self.model == "essential" else OF_ESSENTIAL


class Verify(Stage):
    """Model of each pair, and the matches that agree with it."""

    item = "pair"
    advice: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("a_width", "a_height", "b_width", "b_height"),
        "pictures of this source have no sizes of their own: set focal and centre, in pixels",
    )
    version = 1
    seconds_per_row = 0.0001  # 20 ms for 200 matches
    Options = VerifyOptions

    def __init__(self, options: StageOptions) -> None:
        super().__init__(options)
        self.needs = ("a_keypoint", "b_keypoint", "n_matches", "match")
        if self.options.model == "essential" and not (self.options.focal and self.options.centre):
            self.needs += ("a_width", "a_height", "b_width", "b_height")
        point = "x, y in pixels, 0.5 at the centre of the first pixel"
        self.outputs = (
            Array("n_inliers", ("pair",), "int32"),
            Array(
                "model", ("pair", "row", "column"), "float64", (3, 3),
                {"model": self.options.model, "description": f"{_EQUATIONS[self.options.model]}; {point}; up to scale"},
            ),
            Array("inlier", ("match",), "bool", attributes={"description": "true if the match agrees with the model"}),
        )  # fmt: skip
        names = ("model", "method", "threshold", "confidence", "most", "least")
        self.verifier = Verifier(*(getattr(self.options, name) for name in names))

    def run(self, chunk: Chunk) -> dict[str, np.ndarray]:
        model = np.full((len(chunk), 3, 3), np.nan)
        count = chunk["n_matches"].tolist()
        inlier = np.zeros(len(chunk["match"]), bool)
        stop = 0
        for row, n in enumerate(count):
            start, stop = stop, stop + n
            if n < self.options.least:
                continue
            match = chunk["match"][start:stop]
            a, b = (chunk[f"{side}_keypoint"][row][match[:, at]] for at, side in enumerate("ab"))
            is_essential = self.options.model == "essential"  # other models need no cameras
            cameras = (self._camera(chunk, "a", row), self._camera(chunk, "b", row)) if is_essential else None
            found = self.verifier.verify(a, b, cameras)
            if found is not None:
                model[row], inlier[start:stop] = found
        ends = np.cumsum([0, *count])
        total = np.concatenate([[0], np.cumsum(inlier)])
        return {"n_inliers": np.diff(total[ends]).astype(np.int32), "model": model, "inlier": inlier}

    def _camera(self, chunk: Chunk, side: str, row: int) -> np.ndarray:
        """Return the matrix of the camera of a picture."""
        focal, centre = self.options.focal, self.options.centre
        if not (focal and centre):
            width, height = (float(chunk[f"{side}_{name}"][row]) for name in ("width", "height"))
            focal = focal or self.options.focal_factor * max(width, height)
            centre = centre or (width / 2, height / 2)
        return np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]], np.float64)

"""Match the keypoints of pairs of pictures by their descriptors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, field_validator

from pipeline.engine.stage import Chunk, Stage, StageOptions
from pipeline.machine.device import Device
from pipeline.models.card import ModelInfo
from pipeline.pairs.matchers.lightglue import LighterGlue, LightGlue, SuperGlue
from pipeline.pairs.matchers.matcher import NO_MATCHES, Matcher, Matches, Pairs
from pipeline.pairs.matchers.nearest import Nearest
from pipeline.pairs.models import superglue
from pipeline.pairs.models.lightglue import NETWORKS
from pipeline.pairs.options import ChoiceOptions, WeightsOptions
from pipeline.store.schema import Array, Axis
from pipeline.text import unknown

MATCHERS: dict[str, type[Matcher]] = {
    "nearest": Nearest,
    "lighterglue": LighterGlue,
    "lightglue": LightGlue,
    "superglue": SuperGlue,
}


class MatchOptions(ChoiceOptions, WeightsOptions):
    """Options of `match`."""

    matcher: str = Field(
        "nearest", description="nearest: the keypoints whose descriptors are nearest to each other. The networks "
        "lightglue, lighterglue and superglue see all keypoints of both pictures; lighterglue is for xfeat, superglue "
        "for superpoint",
    )  # fmt: skip
    ratio: float | None = Field(
        0.8, gt=0, le=1, description="nearest: the best distance must be below this share of the second best (Lowe's "
        "ratio test); null: no such test",
    )  # fmt: skip
    mutual: bool = Field(
        True, description="nearest: each of the two must be the other's best, and pass the ratio test there too"
    )
    distance: float | None = Field(
        None, gt=0, description="nearest: largest distance of two descriptors, as if of length 1: from 0 to 2; null: "
        "no limit",
    )  # fmt: skip
    threshold: float | None = Field(
        None, ge=0, le=1, description="networks: score that a match must exceed; default: 0.1, superglue: "
        f"{superglue.THRESHOLD}",
    )  # fmt: skip
    features: str = Field("aliked", description=f"lightglue: kind of features, one of {', '.join(NETWORKS)}")
    size: tuple[int, int] | None = Field(
        None, description="networks: width and height of the pictures, in pixels; needed for videos, "
        "whose frames have no sizes of their own",
    )  # fmt: skip
    weights: Path | None = Field(None, description=f"superglue: path of its weights, {superglue.FILES}")
    iterations: int = Field(
        superglue.ITERATIONS, ge=1, le=1000, description="superglue: iterations of Sinkhorn's algorithm"
    )
    most: int | None = Field(None, ge=1, description="matches of a pair, at most, the best ones; null: all")

    @field_validator("size")
    @classmethod
    def _some_pixels(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and min(value) < 1:
            raise ValueError("size must be positive")
        return value

    @field_validator("matcher")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value not in MATCHERS:
            raise ValueError(unknown("matcher", value, MATCHERS))
        return value

    @field_validator("features")
    @classmethod
    def _have_a_network(cls, value: str) -> str:
        if value not in NETWORKS:
            raise ValueError(unknown("features", value, NETWORKS))
        return value

    def keyed(self) -> dict[str, Any]:
        """Give the matcher's own threshold in place of none."""
        values = super().keyed()
        return {**values, "threshold": self.least_score} if "threshold" in values else values

    @property
    def least_score(self) -> float:
        """Score that a match must exceed."""
        return MATCHERS[self.matcher].threshold if self.threshold is None else self.threshold

    def choice(self) -> str:
        return f"matcher: {self.matcher}"

    def unused(self) -> set[str]:
        """Return the options that other matchers use."""
        return set(type(self).model_fields) - {"matcher", "most"} - MATCHERS[self.matcher].uses


class Match(Stage):
    """Matches of each pair of pictures."""

    item = "pair"
    axes = (Axis("match", of="pair"),)
    version = 1
    usual_rows = 200.0
    advice: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("a_width", "a_height", "b_width", "b_height"),
        "pictures of this source have no sizes of their own: set size, in pixels",
    )
    Options = MatchOptions

    def __init__(self, options: StageOptions) -> None:
        super().__init__(options)
        self.matcher = MATCHERS[self.options.matcher](self.options)
        # They depend on the options.
        self.slot = self.matcher.slot  # type: ignore[misc]
        self.seconds_per_row = self.matcher.seconds_per_match  # type: ignore[misc]
        arrays = ("n_keypoints", *self.matcher.needs)
        self.needs = ("a", "b", *(f"{side}_{name}" for side in "ab" for name in arrays))
        self.outputs = (
            Array("n_matches", ("pair",), "int32"),
            Array(
                "match", ("match", "side"), "int32", (2,),
                {"description": "index into the keypoints of a and of b, counted within each picture; by that of a"},
            ),
            Array("match_score", ("match",), "float32", attributes={"description": "higher is better"}),
        )  # fmt: skip

    def models(self) -> tuple[ModelInfo, ...]:
        return self.matcher.models()

    def check(self, arrays: Mapping[str, Array]) -> None:
        if "a_descriptor" in arrays:
            self.matcher.check(arrays["a_descriptor"])

    def load(self, device: Device) -> None:
        self.matcher.load(device)

    def run(self, chunk: Chunk) -> dict[str, np.ndarray]:
        pairs = Pairs.of(chunk, self.matcher.needs)
        found = [NO_MATCHES] * len(chunk)
        if len(pairs):
            for row, matches in zip(pairs.row.tolist(), self.matcher.match(pairs), strict=True):
                found[row] = _best(matches, self.options.most)
        return {
            "n_matches": np.array([len(matches.match) for matches in found], np.int32),
            "match": np.concatenate([NO_MATCHES.match, *(matches.match for matches in found)]).astype(np.int32),
            "match_score": np.concatenate([NO_MATCHES.score, *(matches.score for matches in found)]).astype(np.float32),
        }


def _best(matches: Matches, most: int | None) -> Matches:
    """Return the best `most` matches, in the same order; of equal scores the first."""
    if most is None or len(matches.match) <= most:
        return matches
    kept = np.sort(np.argsort(-matches.score, kind="stable")[:most])
    return Matches(matches.match[kept], matches.score[kept])

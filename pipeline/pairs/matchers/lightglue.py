"""The matchers `lightglue`, `lighterglue` and `superglue`: networks that see all keypoints of both pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError, WorkflowError
from pipeline.machine.device import Device
from pipeline.models.card import ModelInfo
from pipeline.models.onnx_graph import Weights
from pipeline.models.session import MEMORY_SHARES, create_session, run_in_batches
from pipeline.pairs.matchers.matcher import Matcher, Matches, Pairs
from pipeline.pairs.models import superglue
from pipeline.pairs.models.lightglue import LIGHTERGLUE, NETWORKS, Network
from pipeline.store.schema import Array

if TYPE_CHECKING:
    from pipeline.pairs.stages.match import MatchOptions

MOST_PAIRS = 32
"""Pairs in a batch, at most."""
SMALLEST = 64
"""Fewest keypoints that a picture is padded to."""


class LightGlue(Matcher):
    """LightGlue, for descriptors of ALIKED or SuperPoint.

    The score is the network's probability that the match is right.
    Pictures are padded to a few numbers of keypoints, so that pairs share a batch. Padding takes part in nothing.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"threshold", "size", "features"})
    threshold = 0.1
    arrays: ClassVar[tuple[str, ...]] = ("keypoint", "descriptor")
    """Arrays of the keypoints that it takes."""
    reach: ClassVar[float] = 0.5
    """Share of a picture's longer side that lies between the middle of the network's places and 1."""
    seconds_per_match = 0.02
    slot = "gpu"

    def __init__(self, options: MatchOptions) -> None:
        super().__init__(options)
        self.needs = self.arrays if options.size else (*self.arrays, "width", "height")

    @property
    def network(self) -> Network:
        return NETWORKS[self.options.features]

    def models(self) -> tuple[ModelInfo, ...]:
        return (self.network.info(),)

    def check(self, descriptor: Array) -> None:
        model = descriptor.attributes.get("model", self.network.extractor)  # a stage of the user's own may not say
        if model != self.network.extractor:
            raise WorkflowError(
                f"matcher {self.options.matcher} was trained for descriptors of {self.network.extractor}, not of "
                f"{model}; {self._remedy}"
            )

    @property
    def _remedy(self) -> str:
        return f"set model: {self.network.extractor} in the stage of keypoints, or matcher: nearest"

    def load(self, device: Device) -> None:
        self._device = device
        single = replace(device, precision="fp32")
        self._session = create_session(self.network.graph(), single, MEMORY_SHARES["matcher"])

    def match(self, pairs: Pairs) -> Sequence[Matches]:
        prepared = [self._prepared(picture) for picture in pairs.pictures]
        found: dict[int, Matches] = {}
        groups: dict[tuple[int, int], list[int]] = {}
        """Rows of pairs that share a batch, by the padded lengths of their pictures."""
        for row, (a, b) in enumerate(zip(pairs.a.tolist(), pairs.b.tolist(), strict=True)):
            groups.setdefault((prepared[a].length, prepared[b].length), []).append(row)
        for shape, rows in groups.items():
            memory = self.network.bytes_per_product * prod(shape) + self.network.bytes_per_keypoint * sum(shape)
            most = max(1, min(self._device.batch_memory_bytes // memory, MOST_PAIRS))

            def run(start: int, stop: int, rows: Sequence[int] = rows) -> list[Matches]:
                sides = [[prepared[side[row]] for row in rows[start:stop]] for side in (pairs.a, pairs.b)]
                return self._run(sides)

            batches = run_in_batches(self._device, self.network.card.name, shape, len(rows), most, run)
            for start, stop, matches in batches:
                found.update(zip(rows[start:stop], matches, strict=True))
        return [found[row] for row in range(len(pairs))]

    def _prepared(self, picture: Mapping[str, np.ndarray]) -> _Prepared:
        descriptor, length = picture["descriptor"], self.network.length
        if descriptor.shape[1] != length or descriptor.dtype.kind != "f":
            raise ModelError(
                f"matcher {self.options.matcher} needs descriptors of {length} floats, not of {descriptor.shape[1]} "
                f"components in {descriptor.dtype}; {self._remedy}"
            )
        size = np.array(self.options.size or (picture["width"], picture["height"]), np.float32)
        # The authors' code counts from the centre of the first pixel, but takes size / 2 for the middle all the same.
        place = (picture["keypoint"] - np.float32(0.5) - size / 2) / (size.max() * np.float32(self.reach))
        return _Prepared({**{name: picture[name] for name in self.arrays}, "keypoint": place})

    def _run(self, sides: Sequence[Sequence[_Prepared]]) -> list[Matches]:
        inputs = {}
        for letter, pictures in zip("ab", sides, strict=True):
            for name in self.arrays:
                given = np.stack([picture.arrays[name] for picture in pictures])
                inputs[f"{name.removeprefix('keypoint_')}_{letter}"] = given
            inputs[f"count_{letter}"] = np.array([picture.count for picture in pictures])
        partners, scores = self._session.run(None, inputs)
        return [self._kept(*each) for each in zip(partners, scores, sides[0], strict=True)]

    def _kept(self, partner: npt.NDArray[np.int64], score: Weights, picture: _Prepared) -> Matches:
        kept = np.flatnonzero(score[: picture.count] > self.options.least_score)
        return Matches(np.stack([kept, partner[kept]], axis=1), score[kept])


class LighterGlue(LightGlue):
    """LighterGlue, for descriptors of XFeat."""

    uses: ClassVar[frozenset[str]] = frozenset({"threshold", "size"})
    seconds_per_match = 0.004

    @property
    def network(self) -> Network:
        return LIGHTERGLUE


class SuperGlue(LightGlue):
    """SuperGlue, for keypoints of SuperPoint, with weights of the user's own."""

    uses: ClassVar[frozenset[str]] = frozenset({"threshold", "size", "weights", "iterations"})
    threshold = superglue.THRESHOLD
    arrays = ("keypoint", "keypoint_score", "descriptor")
    reach = superglue.REACH
    seconds_per_match = 0.04

    def __init__(self, options: MatchOptions) -> None:
        super().__init__(options)
        self._network = superglue.describe(options.weights, options.iterations)

    @property
    def network(self) -> Network:
        return self._network


class _Prepared:
    """Keypoints of a picture as the network takes them, padded with zeros."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.count = len(arrays["keypoint"])
        self.length = _padded_length(self.count)
        self.arrays = {name: self._padded(array) for name, array in arrays.items()}

    def _padded(self, array: np.ndarray) -> Weights:
        padded = np.zeros((self.length, *array.shape[1:]), np.float32)
        padded[: self.count] = array
        return padded


def _padded_length(count: int) -> int:
    """Return the number of keypoints that a picture is padded to: 4, 5, 6 or 7 times a power of 2."""
    step = max(SMALLEST, 1 << max(0, (count - 1).bit_length() - 1)) // 4
    return max(SMALLEST, -(-count // step) * step)

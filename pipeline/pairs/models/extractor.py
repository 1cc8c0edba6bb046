"""The interface of extractors: each finds points in a picture and describes the place around each point."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.machine.device import Device
from pipeline.models.card import ModelCard, ModelInfo
from pipeline.models.session import MEMORY_SHARES, create_session, engine_version, run_in_batches
from pipeline.models.weights import cached_graph, sha256, weights_files

Picture = npt.NDArray[np.uint8]
"""Shape (height, width, 3), RGB."""


class LocalFeatures(NamedTuple):
    """Keypoints of one picture, in any order; n may be 0."""

    points: npt.NDArray[np.float32]
    """float32 (n, 2): x, y in pixels. The centre of the upper left pixel is 0.5, 0.5."""
    scores: npt.NDArray[np.float32]
    """float32 (n,): higher is better."""
    scales: npt.NDArray[np.float32]
    """float32 (n,): diameter in pixels; NaN if the extractor knows none."""
    angles: npt.NDArray[np.float32]
    """float32 (n,): degrees from x towards y, from 0 to 360; NaN if the extractor knows none."""
    descriptors: npt.NDArray[np.generic]
    """(n, length), in the extractor's dtype."""

    @classmethod
    def none(cls, length: int, dtype: str) -> LocalFeatures:
        """Return the features of a picture without any."""
        one = np.empty(0, np.float32)
        return cls(np.empty((0, 2), np.float32), one, one, one, np.empty((0, length), dtype))


class Choices(Protocol):
    """The options of the stage `keypoints` that an extractor reads."""

    most: int
    threshold: float | None
    weights: Path | None
    root: bool


class Opened(Protocol):
    """An extractor on a device. Thread-safe."""

    def extract(self, pictures: Sequence[Picture]) -> list[LocalFeatures]:
        """Return the keypoints of each picture; sizes may differ, down to 1 × 1.

        It may return more than the option `most`, and in any order: the stage keeps the strongest and sorts them.
        """
        ...


@dataclass(frozen=True)
class Extractor:
    """Description of an extractor. Making one reads no weights."""

    info: ModelInfo
    length: int
    """Components of a descriptor."""
    dtype: str
    """Type of a component."""
    open: Callable[[Device], Opened]
    """Load it. Raises ModelError if weights are missing or damaged, or the device cannot be used."""
    longest: int = 1600
    """Default of the longest side that it sees, in pixels; it bounds the memory that one picture takes."""
    slot: Literal["cpu", "gpu"] = "gpu"
    """Slot of the step: "cpu" if it never uses a GPU; several chunks may then run at once."""
    seconds_per_megapixel: float = 0.3
    """Estimate for `plan`, on 2 cores."""


def info(card: ModelCard, files: Sequence[Path] | None = None) -> ModelInfo:
    """Return what resume keys and the store's record say of an extractor. `files`: its weights, if the user gives them.

    Reads nothing yet.
    """
    facts = card.name, card.licence, engine_version(card.engine)
    return ModelInfo(*facts, lambda: sha256(files or weights_files(card)), card.licence_source)


class GraphExtractor(ABC):
    """A graph on a device. It computes in single precision: half of it would move keypoints or let neighbours tie."""

    threshold: ClassVar[float]
    """Default of the score that a local maximum must exceed."""
    version: ClassVar[int]
    """Version of the code that builds the graph."""
    bytes_per_pixel: ClassVar[int]
    """Memory that the graph takes for each pixel of its input."""

    def __init__(
        self,
        card: ModelCard,
        choices: Choices,
        device: Device,
        build: Callable[[Path], bytes],
        files: Sequence[Path] | None = None,
    ) -> None:
        self._card, self._device, self._most = card, device, choices.most
        self._threshold = np.array(self.threshold if choices.threshold is None else choices.threshold, np.float32)
        paths = files or weights_files(card)
        content = cached_graph(card.name.lower(), self.version, paths, lambda: build(paths[0]))
        self._session = create_session(content, replace(device, precision="fp32"), MEMORY_SHARES["keypoint"])

    def extract(self, pictures: Sequence[Picture]) -> list[LocalFeatures]:
        return in_batches(self._device, self._card.name, pictures, self.bytes_per_pixel, self._run)

    @abstractmethod
    def _run(self, pictures: list[Picture]) -> list[LocalFeatures]:
        """Return the keypoints of pictures of one size."""


def strongest(keypoints: LocalFeatures, most: int) -> LocalFeatures:
    """Return the `most` keypoints of the highest scores, in descending order; equal ones by y, x, scale, angle."""
    points, scores, scales, angles, _ = keypoints
    order = np.lexsort((angles, scales, points[:, 0], points[:, 1], -scores))[:most]
    return LocalFeatures._make(array[order] for array in keypoints)


def in_batches(
    device: Device,
    model: str,
    pictures: Sequence[Picture],
    bytes_per_pixel: int,
    run: Callable[[list[Picture]], list[LocalFeatures]],
) -> list[LocalFeatures]:
    """Return the keypoints of each picture. `run` gets pictures of one size, as many as the memory allows.

    `bytes_per_pixel`: memory that the model takes at most for each pixel of its input. Batches are halved if memory
    runs out; see `run_in_batches`.
    """
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for index, picture in enumerate(pictures):
        by_shape.setdefault(picture.shape, []).append(index)
    found: dict[int, LocalFeatures] = {}
    for shape, indices in by_shape.items():
        most = max(1, device.batch_memory_bytes // (bytes_per_pixel * math.prod(shape[:2])))

        def part(start: int, stop: int, indices: list[int] = indices) -> list[LocalFeatures]:
            return run([pictures[index] for index in indices[start:stop]])

        for start, stop, results in run_in_batches(device, model, shape, len(indices), most, part):
            found.update(zip(indices[start:stop], results, strict=True))
    return [found[index] for index in range(len(pictures))]

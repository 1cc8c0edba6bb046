"""The interface of matchers, and the pairs of a chunk with their pictures once each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import numpy as np

from pipeline.engine.stage import Chunk
from pipeline.machine.device import Device
from pipeline.models.card import ModelInfo
from pipeline.store.schema import Array

if TYPE_CHECKING:
    from pipeline.pairs.stages.match import MatchOptions


class Matches(NamedTuple):
    """Matches of one pair."""

    match: np.ndarray
    """int (n, 2): index into the keypoints of a and of b, in ascending order of the first. Each keypoint of a stands in
    one match at most."""
    score: np.ndarray
    """float (n,): higher is better."""


NO_MATCHES = Matches(np.empty((0, 2), np.int32), np.empty(0, np.float32))


@dataclass(frozen=True)
class Pairs:
    """The pairs of a chunk that can have matches: both pictures were read and have keypoints."""

    row: np.ndarray
    """int64 (n,): index of each pair within its chunk."""
    a: np.ndarray
    """int64 (n,): index of each pair's first picture in `pictures`."""
    b: np.ndarray
    """int64 (n,): index of each pair's second picture."""
    pictures: Sequence[Mapping[str, np.ndarray]]
    """Arrays of each picture, by name: those that the matcher needs. Each picture stands here once and has keypoints.
    An array along `keypoint` is (k, ...), read-only and mapped from the store; of others, `width`, it is one row."""

    def __len__(self) -> int:
        return len(self.row)

    @classmethod
    def of(cls, chunk: Chunk, names: Iterable[str]) -> Pairs:
        """Return the pairs of a chunk with the arrays that are named as in the first pass: `descriptor`."""
        names = tuple(names)
        counts = [np.asarray(chunk[f"{side}_n_keypoints"]) for side in "ab"]
        row = np.flatnonzero(np.asarray(chunk.decoded) & (counts[0] > 0) & (counts[1] > 0))
        known: dict[int, int] = {}
        pictures: list[Mapping[str, np.ndarray]] = []
        sides: dict[str, np.ndarray] = {}
        for side in "ab":
            number = np.asarray(chunk[side])[row].tolist()
            for at, picture in zip(row.tolist(), number, strict=True):
                if picture not in known:
                    known[picture] = len(pictures)
                    pictures.append({name: chunk[f"{side}_{name}"][at] for name in names})
            sides[side] = np.array([known[picture] for picture in number], np.int64)
        return cls(row, sides["a"], sides["b"], pictures)


class Matcher:
    """A way to find the matches of pairs of pictures. Once loaded it is thread-safe: threads of a worker share it."""

    needs: tuple[str, ...]
    """Arrays of each picture, by their names in the first pass: `descriptor`, `keypoint`, `width`."""
    uses: ClassVar[frozenset[str]] = frozenset()
    """Options of the stage `match` that change this matcher's results, beside `matcher` and `most`. Others are refused
    if they are given, and do not enter the resume key."""
    threshold: ClassVar[float] = 0.0
    """Default of the option `threshold`, if it uses that."""
    seconds_per_match: ClassVar[float] = 0.0001
    """Estimate for `plan`, on 2 cores: of two pictures of 2,048 keypoints, per match."""
    slot: ClassVar[Literal["cpu", "gpu"]] = "cpu"
    """With gpu, for networks, a worker matches one chunk at a time; with cpu, as many as it has threads."""

    def __init__(self, options: MatchOptions) -> None:
        """Read no weights: this runs on the client too. Raises ModelError if they cannot be found."""
        self.options = options

    def models(self) -> tuple[ModelInfo, ...]:
        """Return the networks it uses; none by default."""
        return ()

    def check(self, descriptor: Array) -> None:
        """Check the descriptors that the stage of keypoints makes. Raises WorkflowError before a run starts."""

    def load(self, device: Device) -> None:
        """Load the networks; called once per worker, before the first `match`."""

    def match(self, pairs: Pairs) -> Sequence[Matches]:
        """Return the matches of each pair, in order. The result of a pair must not depend on the others."""
        raise NotImplementedError

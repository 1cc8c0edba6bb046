"""Exact figures, from every pair, on how well distances tell one person from two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Distances = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

METRICS = ("cosine", "euclidean", "euclidean_l2")
"""Distances by DeepFace's names (deepface/modules/verification.py)."""
SPLITS = 200


@dataclass(frozen=True)
class Verification:
    """Figures of one kind of vector and one distance."""

    auc: float
    """Area under the receiver operating characteristic: how often a pair of one person is nearer than one of two."""
    true_accepts_1_percent: float
    """Share of the pairs of one person that is accepted if at most 1% of those of two are."""
    default_threshold: float
    default_accuracy: float
    """Share of all pairs that the default threshold judges rightly."""


@dataclass(frozen=True)
class Threshold:
    """One choice of a threshold: on all pairs (in-sample), and on one half with its figures from the other."""

    rule: str
    threshold: float
    true_accepts: float
    false_accepts: float
    accuracy: float
    other_half_true_accepts: float
    other_half_false_accepts: float
    other_half_accuracy: float
    other_half_accuracy_worst: float
    """5th percentile over the splits; the others are means."""


def distances(left: Distances, right: Distances, metric: str) -> Distances:
    """Return float64 (n,) between the rows of two (n, dimension)."""
    left, right = left.astype(np.float64), right.astype(np.float64)
    if metric == "cosine":
        return 1 - (_unit(left) * _unit(right)).sum(axis=1)
    if metric == "euclidean_l2":
        left, right = _unit(left), _unit(right)
    return np.linalg.norm(left - right, axis=1)


def _unit(vectors: Distances) -> Distances:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-10)


def verify(distance: Distances, same: Flags, default: float) -> Verification:
    from scipy.stats import mannwhitneyu

    one, two = distance[same], distance[~same]
    return Verification(
        auc=float(mannwhitneyu(two, one).statistic / (len(one) * len(two))),
        true_accepts_1_percent=float((one <= at_false_accepts(two, 0.01)).mean()),
        default_threshold=default,
        default_accuracy=accuracy(distance, same, default),
    )


def at_false_accepts(two: Distances, rate: float) -> float:
    """Return the largest threshold that accepts (distance <= threshold) at most this share of pairs of two people."""
    ordered = np.sort(two)
    return float(np.nextafter(ordered[int(rate * len(ordered))], -np.inf))


def most_accurate(distance: Distances, same: Flags) -> float:
    """Return the threshold that judges most pairs rightly: the middle of the widest such gap between two distances."""
    order = np.argsort(distance)
    ordered, is_same = distance[order], same[order]
    right = np.concatenate([[0], np.cumsum(np.where(is_same, 1, -1))])[1:-1]
    gaps = np.diff(ordered)
    best = np.flatnonzero((right == right[gaps > 0].max()) & (gaps > 0))
    widest = best[gaps[best].argmax()]
    return float((ordered[widest] + ordered[widest + 1]) / 2)


def accuracy(distance: Distances, same: Flags, threshold: float) -> float:
    return float(((distance <= threshold) == same).mean())


RULES = {
    "1% false accepts": lambda distance, same: at_false_accepts(distance[~same], 0.01),
    "0.1% false accepts": lambda distance, same: at_false_accepts(distance[~same], 0.001),
    "most accurate": most_accurate,
}


def thresholds(distance: Distances, same: Flags) -> list[Threshold]:
    """Choose a threshold by each rule. People appear in both halves of a split, so the halves are not independent."""

    def other_half(choose: Any, chance: np.random.Generator) -> tuple[float, ...]:
        """Return the rates on half of either kind of pair, at the threshold that is chosen on the other half."""
        chosen = np.zeros(len(same), bool)
        for kind in (same, ~same):
            members = chance.permutation(np.flatnonzero(kind))
            chosen[members[: len(members) // 2]] = True
        return _rates(distance[~chosen], same[~chosen], choose(distance[chosen], same[chosen]))

    found = []
    for rule, choose in RULES.items():
        threshold = choose(distance, same)
        chance = np.random.default_rng(0)
        others = np.array([other_half(choose, chance) for _ in range(SPLITS)])
        values = [threshold, *_rates(distance, same, threshold), *others.mean(axis=0), np.quantile(others[:, 2], 0.05)]
        found.append(Threshold(rule, *(float(value) for value in values)))
    return found


def _rates(distance: Distances, same: Flags, threshold: float) -> tuple[float, float, float]:
    """Return true accepts, false accepts, accuracy."""
    accepted = distance <= threshold
    return float(accepted[same].mean()), float(accepted[~same].mean()), float((accepted == same).mean())

"""The protocol of LFW (Labeled Faces in the Wild): 6,000 pairs of photographs in ten folds, by its own pairs.txt.

A line is `NAME 1 2` (two pictures of one person) or `NAME 1 OTHER 3` (of two). The first line says how many folds
follow, and how many pairs of each kind a fold has: `10 300`. A file of one fold, as LFW's for development, or without
that line, is dealt out over ten folds.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import verification

FOLDS = 10
COLUMNS = (
    "detector", "network", "=how", "pictures", "no face=without_face", "pairs", "distance",
    "accuracy, %=accuracy:.2f", "± standard error=standard_error:.2f", "threshold:.4f",
    "TAR at 0.1% FAR=true_accepts:.4f", "ROC AUC=auc:.5f", "s=seconds:.0f",
)  # fmt: skip
HOW = {
    "accuracy": "mean over the folds; each fold is judged with the threshold that is most accurate on the other folds",
    "threshold": "mean of these thresholds",
    "TAR": "on all pairs: share of the pairs of one person accepted if 0.1% of those of two are (in-sample)",
    "no face": "pictures in which no face is found. DeepFace, and align: deepface, then embed the whole picture; pairs "
    "with such a picture count as two people for the others",
    "stock": "DeepFace.represent(picture, enforce_detection=False)",
    "face": "of several faces in a picture, the one nearest to its middle counts",
}


@dataclass(frozen=True)
class Pairs:
    """The pairs of a pairs.txt."""

    left: list[str]
    """Paths of pictures below the folder."""
    right: list[str]
    same: np.ndarray
    """bool (pairs,)."""
    fold: np.ndarray
    """int64 (pairs,): fold of each pair, from 0."""


def refuse(text: str) -> NoReturn:
    """End with one line on a mistake of the user, and exit code 2."""
    print(f"accuracy: {text}", file=sys.stderr)
    raise SystemExit(2)


def read_pairs(folder: Path, file: Path | None) -> Pairs:
    """Read a pairs.txt, by default that of the folder. Refuse a malformed one, and one that names missing pictures."""
    if not folder.is_dir():
        refuse(f"there is no folder {folder}; name LFW's, which has a folder of pictures for each person: --lfw FOLDER")
    path = file or folder / "pairs.txt"
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        refuse(f"cannot read {path} ({getattr(error, 'strerror', None) or error}); name LFW's list: --pairs pairs.txt")
    numbered = [(number, words) for number, words in enumerate(lines, 1) if words]
    header = [int(word) for word in numbered[0][1] if _is_count(word)] if numbered else []
    if not numbered or len(header) != len(numbered[0][1]) or len(header) > 2:
        header = []  # the first line is a pair, or wrong
    pairs = [_pair(path, number, words) for number, words in numbered[bool(header) :]]
    same = np.array([one for _, _, one in pairs], bool)
    folds, each = (header if len(header) == 2 else [1, *header]) if header else (1, None)
    wanted = 2 * folds * each if each else len(pairs)
    if len(pairs) != wanted:
        refuse(f"{path}: its first line stands for {wanted} pairs, but it has {len(pairs)}; take the whole file of LFW")
    fold = np.arange(len(pairs)) * folds // max(len(pairs), 1)
    if folds == 1:
        dealt = min(FOLDS, int(same.sum()), int((~same).sum()))
        for kind in (same, ~same):
            fold[kind] = np.arange(kind.sum()) * dealt // max(kind.sum(), 1)
    kinds = [same[fold == one] for one in np.unique(fold)]
    if len(kinds) < 2 or any(kind.mean() != 0.5 if each else kind.all() or not kind.any() for kind in kinds):
        refuse(f"{path} must have two folds or more, each with pairs of one person and as many pairs of two people")
    left, right = ([pair[side] for pair in pairs] for side in (0, 1))
    missing = [name for name in dict.fromkeys([*left, *right]) if not (folder / name).is_file()]
    if missing:
        count = len({*left, *right})
        refuse(f"{folder} lacks {len(missing)} of the {count} pictures that {path} names; the first: {missing[0]}")
    return Pairs(left, right, same, fold)


def _is_count(word: str) -> bool:
    return word.isascii() and word.isdigit() and int(word) > 0


def _pair(path: Path, number: int, words: Sequence[str]) -> tuple[str, str, bool]:
    """Return both pictures of a line, and whether they show one person."""
    if len(words) == 3 and all(map(_is_count, words[1:])):
        return _picture(words[0], words[1]), _picture(words[0], words[2]), True
    if len(words) == 4 and _is_count(words[1]) and _is_count(words[3]):
        return _picture(words[0], words[1]), _picture(words[2], words[3]), False
    refuse(f"{path}, line {number}: {' '.join(words)[:80]!r} is not NAME 1 2 or NAME 1 OTHER 3")


def _picture(name: str, number: str) -> str:
    return f"{name}/{name}_{int(number):04}.jpg"


def middle(box: np.ndarray, width: int, height: int) -> int:
    """Return the row of the box, x, y, w, h, that is nearest to the middle of a picture."""
    centre = box[:, :2] + box[:, 2:] / 2
    return int(np.linalg.norm(centre - (width / 2, height / 2), axis=1).argmin())


def judged(vectors: dict[str, np.ndarray], pairs: Pairs) -> dict[str, dict[str, Any]]:
    """Return the figures by distance. A pair with a picture that has no vector is farther apart than all others."""
    seen = np.array([a in vectors and b in vectors for a, b in zip(pairs.left, pairs.right, strict=True)])
    if not seen.any():
        return {}
    sides = (np.array(names)[seen] for names in (pairs.left, pairs.right))
    left, right = (np.stack([vectors[name] for name in names]) for names in sides)
    found = {}
    for metric in verification.METRICS:
        known = verification.distances(left, right, metric)
        distance = np.full(len(seen), known.max() + 1)
        distance[seen] = known
        one, two = distance[pairs.same], distance[~pairs.same]
        found[metric] = {
            **ten_fold(distance, pairs.same, pairs.fold),
            "true_accepts": float((one <= verification.at_false_accepts(two, 0.001)).mean()),
            "auc": verification.verify(distance, pairs.same, 0.0).auc,
        }
    return found


def ten_fold(distance: np.ndarray, same: np.ndarray, fold: np.ndarray) -> dict[str, float]:
    """Return accuracy and its standard error in percent, and the mean threshold: chosen on all folds but one, tried on
    that one."""
    accuracies, thresholds = [], []
    for one in np.unique(fold):
        rest = fold != one
        thresholds.append(verification.most_accurate(distance[rest], same[rest]))
        accuracies.append(100 * verification.accuracy(distance[~rest], same[~rest], thresholds[-1]))
    error = np.std(accuracies, ddof=1) / len(accuracies) ** 0.5
    return {
        "accuracy": float(np.mean(accuracies)), "standard_error": float(error), "threshold": float(np.mean(thresholds)),
    }  # fmt: skip

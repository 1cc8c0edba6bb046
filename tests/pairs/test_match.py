"""The stage `match` with the matcher `nearest`: against OpenCV's brute force, and against whole numbers."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.engine.finding import find_stage
from pipeline.errors import WorkflowError
from pipeline.pairs.matchers import nearest
from pipeline.pairs.matchers.matcher import Matcher, Matches, Pairs
from pipeline.pairs.stages import match
from pipeline.pairs.stages.match import Match, MatchOptions
from tests.pairs.made_pairs import Picture, all_pairs, chunk, of_pairs, photographs, sift

TESTS = [
    pytest.param({}, id="ratio and mutual"),
    pytest.param({"mutual": False}, id="ratio"),
    pytest.param({"ratio": None}, id="mutual"),
    pytest.param({"ratio": None, "mutual": False}, id="no test"),
    pytest.param({"ratio": 0.95, "distance": 0.4}, id="distance"),
]


def matched(
    pictures: Sequence[Picture], pairs: Sequence[tuple[int, int]], unread: Sequence[int] = (), **options: Any
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the matches and scores of each pair."""
    stage = Match(MatchOptions(**options))
    given = chunk(pictures, pairs, unread)
    assert set(stage.needs) <= set(given.arrays)
    found = stage.run(given)
    assert found["n_matches"].dtype == np.int32
    assert (found["match"].dtype, found["match"].shape[1:]) == (np.int32, (2,))
    assert found["match_score"].dtype == np.float32
    return list(zip(*(of_pairs(found, "n_matches", name) for name in ("match", "match_score")), strict=True))


def same(one: Sequence[tuple[np.ndarray, np.ndarray]], other: Sequence[tuple[np.ndarray, np.ndarray]]) -> bool:
    """Return whether matches and scores are equal, bit by bit."""
    return [(a.tolist(), b.tobytes()) for a, b in one] == [(a.tolist(), b.tobytes()) for a, b in other]


def by_opencv(
    a: np.ndarray, b: np.ndarray, ratio: float | None, mutual: bool, distance: float | None
) -> list[list[int]]:
    """Return the matches of OpenCV's brute force, best two of each, in both directions if `mutual`."""

    def one_way(queries: np.ndarray, others: np.ndarray) -> dict[int, int]:
        found = {}
        for best, *rest in cv2.BFMatcher(cv2.NORM_L2).knnMatch(queries, others, k=2):
            is_clear = ratio is None or not rest or best.distance < ratio * rest[0].distance
            if is_clear and (distance is None or best.distance <= 512 * distance):
                found[best.queryIdx] = best.trainIdx
        return found

    there, back = one_way(a, b), one_way(b, a)
    return [[row, column] for row, column in sorted(there.items()) if not mutual or back.get(column) == row]


def by_whole_numbers(a: np.ndarray, b: np.ndarray, ratio: float | None, mutual: bool) -> list[list[int]]:
    """Return the matches by sorting all distances; of equal ones the lowest index is best."""
    squared = ((a.astype(np.int64)[:, None] - b.astype(np.int64)) ** 2).sum(axis=2)

    def one_way(squared: np.ndarray) -> dict[int, int]:
        found = {}
        for row, of_row in enumerate(squared):
            first, *rest = np.argsort(of_row, kind="stable")[:2].tolist()
            if ratio is None or not rest or np.sqrt(of_row[first]) < ratio * np.sqrt(of_row[rest[0]]):
                found[row] = first
        return found

    there, back = one_way(squared), one_way(squared.T)
    return [[row, column] for row, column in there.items() if not mutual or back.get(column) == row]


@pytest.mark.parametrize("options", TESTS)
def test_photographs_as_opencv_matches_them(data_dir: Path, options: dict[str, Any]) -> None:
    pictures = [sift(path, 400) for path in photographs(data_dir, "sacre_coeur")[:6]]
    pairs = [*all_pairs(6), (3, 0), (2, 2)]
    tests = {"ratio": 0.8, "mutual": True, "distance": None, **options}
    found = matched(pictures, pairs, **options)
    for (a, b), (matches, score) in zip(pairs, found, strict=True):
        assert matches.tolist() == by_opencv(pictures[a]["descriptor"], pictures[b]["descriptor"], **tests)
        assert ((score >= 0) & (score <= 1)).all()
    assert sum(len(matches) for matches, _ in found) > 500


def test_the_cross_check_of_opencv(data_dir: Path) -> None:
    a, b = (sift(path, 400) for path in photographs(data_dir, "lightglue_dsc"))
    expected = cv2.BFMatcher(cv2.NORM_L2, crossCheck=True).match(a["descriptor"], b["descriptor"])
    [(matches, _)] = matched([a, b], [(0, 1)], ratio=None)
    assert matches.tolist() == sorted([one.queryIdx, one.trainIdx] for one in expected)


@pytest.mark.parametrize("ratio", [0.8, 1.0, None])
@pytest.mark.parametrize("mutual", [True, False])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_equal_distances(ratio: float | None, mutual: bool, dtype: str) -> None:
    """Many descriptors are equal. Of these the lowest index is best, with blocks of any size."""
    rng = np.random.default_rng(5)
    sizes = (1, 2, 3, 17, 40, 64, 101, 0, 33)
    whole = [rng.integers(0, 3, (n, 3)).astype(np.uint8) for n in sizes]
    pictures = [{"descriptor": one if dtype == "uint8" else (one / 4).astype(dtype)} for one in whole]
    pairs = list(itertools.product(range(len(sizes)), repeat=2))
    found = matched(pictures, pairs, ratio=ratio, mutual=mutual)
    for (a, b), (matches, score) in zip(pairs, found, strict=True):
        expected = by_whole_numbers(whole[a], whole[b], ratio, mutual) if sizes[a] and sizes[b] else []
        assert matches.tolist() == expected
        assert np.isfinite(score).all()


def made(dtype: str, seed: int = 0, components: int = 64) -> list[Picture]:
    """Return pictures with descriptors that resemble those of the picture before."""
    rng = np.random.default_rng(seed)
    pictures, last = [], rng.normal(size=(300, components))
    for n in (120, 300, 1, 77, 0, 256, 90):
        last = last[rng.permutation(len(last))] + rng.normal(0, 0.3, last.shape)
        unit = last[:n] / np.linalg.norm(last[:n], axis=1, keepdims=True)
        values = np.clip(np.rint(np.abs(unit) * 512), 0, 255) if dtype == "uint8" else unit
        pictures.append({"descriptor": values.astype(dtype)})
    return pictures


@pytest.mark.parametrize("options", TESTS)
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_blocks_chunks_and_threads_change_nothing(
    dtype: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = made(dtype)
    pairs = list(itertools.product(range(7), repeat=2))
    expected = matched(pictures, pairs, **options)
    assert sum(len(matches) for matches, _ in expected) > 100
    order = np.random.default_rng(1).permutation(len(pairs))
    with ThreadPoolExecutor(4) as pool:
        alone = list(pool.map(lambda at: matched(pictures, [pairs[at]], **options)[0], order.tolist()))
    assert same(alone, [expected[at] for at in order])
    monkeypatch.setattr(nearest, "KEPT_BYTES", 1)
    for block_bytes, columns in ((1, 1), (5000, 100), (70_000, 10_000)):
        monkeypatch.setattr(nearest, "BLOCK_BYTES", block_bytes)
        monkeypatch.setattr(nearest, "COLUMNS", columns)
        shuffled = matched(pictures, [pairs[at] for at in order], **options)
        assert same(shuffled, [expected[at] for at in order])


DIGEST = """
import hashlib
from tests.pairs.test_match import made, matched
from tests.pairs.made_pairs import all_pairs
found = [matched(made(dtype, components=128), all_pairs(7)) for dtype in ("uint8", "float16", "float32")]
print(hashlib.sha256(repr([(a.tolist(), b.tobytes()) for of in found for a, b in of]).encode()).hexdigest())
"""


def test_threads_of_the_linear_algebra_change_nothing() -> None:
    """OpenBLAS takes other kernels for other processors, and cuts a product among its threads."""
    digests = set()
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    for settings in ({"OPENBLAS_NUM_THREADS": "1"}, {"OPENBLAS_NUM_THREADS": "2"}, {"OPENBLAS_CORETYPE": "Nehalem"}):
        done = subprocess.run(
            [sys.executable, "-c", DIGEST], env={**os.environ, **path, **settings}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout)
    assert len(digests) == 1


@pytest.mark.parametrize("ratio", [0.99, None])
@pytest.mark.parametrize("components", [128, 129, 300])
def test_distances_are_exact(components: int, ratio: float | None) -> None:
    """Squared distances of about 60 are left of products of 8 million and more."""
    a, b = (np.random.default_rng(seed).integers(254, 256, (80, components)).astype(np.uint8) for seed in (0, 1))
    a[:3], b[:3] = 0, 255
    [(matches, _)] = matched([{"descriptor": a}, {"descriptor": b}], [(0, 1)], ratio=ratio)
    assert matches.tolist() == by_whole_numbers(a, b, ratio, mutual=True)
    assert len(matches) > 0


def test_pictures_that_cannot_match() -> None:
    """A picture that was not read, or has no key points, loses its pairs alone."""
    one, two, three, none = made("uint8")[0], made("uint8")[1], made("uint8")[3], made("uint8")[4]
    pictures = [one, two, none, three]
    pairs = [(0, 1), (0, 2), (2, 1), (2, 2), (0, 3), (1, 3), (0, 1)]
    found = matched(pictures, pairs, unread=[3], ratio=None)
    n = [len(matches) for matches, _ in found]
    assert n[1:6] == [0] * 5
    assert n[0] > 0
    assert same(found[:1], found[-1:])
    assert same(found[:1], matched(pictures, [(0, 1)], ratio=None))
    assert matched(pictures, [(2, 2)])[0][0].shape == (0, 2)
    assert Match(MatchOptions()).run(chunk(pictures, []))["match"].shape == (0, 2)


def test_one_keypoint_has_no_second_best() -> None:
    many = {"descriptor": np.array([[0, 9], [4, 4], [200, 0]], np.uint8)}
    one = {"descriptor": np.array([[5, 4]], np.uint8)}
    (there, score), (back, _), (itself, _) = matched([many, one], [(0, 1), (1, 0), (1, 1)])
    assert there.tolist() == [[1, 0]]  # 1 pixel; from b to a the second best has the distance 7.07
    assert score.tolist() == pytest.approx([1 - 1 / np.sqrt(50)])
    assert back.tolist() == [[0, 1]]
    assert itself.tolist() == [[0, 0]]
    [(all_of_them, scores)] = matched([many, one], [(0, 1)], mutual=False)
    assert all_of_them.tolist() == [[0, 0], [1, 0], [2, 0]]
    assert scores.tolist() == [1, 1, 1]


def test_the_score_and_the_best() -> None:
    a = np.array([[0, 0], [100, 0], [0, 100]], np.uint8)
    b = np.array([[3, 4], [100, 1], [0, 102]], np.uint8)
    pictures = [{"descriptor": a}, {"descriptor": b}]
    [(matches, score)] = matched(pictures, [(0, 1)])
    assert matches.tolist() == [[0, 0], [1, 1], [2, 2]]
    # Second best: of row 0 the distance to column 1 (100.005), against 96.13 of column 0 to row 2; and so on.
    seconds = [min(np.hypot(100, 1), np.hypot(3, 96)), min(np.hypot(97, 4), np.hypot(100, 1)), np.hypot(3, 96)]
    assert score.tolist() == pytest.approx([1 - near / far for near, far in zip((5, 1, 2), seconds, strict=True)])
    assert [matched(pictures, [(0, 1)], most=n)[0][0].tolist() for n in (1, 2, 5)] == [
        [[1, 1]],
        [[1, 1], [2, 2]],
        [[0, 0], [1, 1], [2, 2]],
    ]
    assert matched(pictures, [(0, 1)], distance=2 / 512)[0][0].tolist() == [[1, 1], [2, 2]]
    assert matched(pictures, [(0, 1)], distance=1.99 / 512)[0][0].tolist() == [[1, 1]]


def test_descriptors_that_are_not_numbers() -> None:
    pictures = made("float32")
    expected = matched(pictures, [(0, 1)], ratio=None)[0][0]
    spoiled = pictures[0]["descriptor"].copy()
    spoiled[expected[3, 0], 5] = np.nan
    spoiled[expected[4, 0]] = np.inf
    [(matches, score)] = matched([{"descriptor": spoiled}, pictures[1]], [(0, 1)], ratio=None)
    left = {tuple(pair) for pair in matches.tolist()}
    assert not left & {tuple(pair) for pair in expected[3:5].tolist()}
    assert {tuple(pair) for pair in np.delete(expected, [3, 4], axis=0).tolist()} <= left
    assert np.isfinite(score).all()
    nothing = {"descriptor": np.full((4, 64), np.nan, np.float32)}
    assert len(matched([nothing, pictures[1]], [(0, 1)], ratio=None, mutual=False)[0][0]) == 0


def test_long_descriptors_are_compared_too() -> None:
    """Float descriptors of any length: those of length 1 multiplied by 1,000 have the same matches."""
    pictures = made("float32")
    longer = [{"descriptor": one["descriptor"] * np.float32(1024)} for one in pictures]
    found, of_longer = matched(pictures, all_pairs(7)), matched(longer, all_pairs(7))
    assert [one.tolist() for one, _ in found] == [one.tolist() for one, _ in of_longer]


def test_memory_is_bounded() -> None:
    """All distances of these two pictures at once would take 400 MB."""
    rng = np.random.default_rng(0)
    pictures = [{"descriptor": rng.integers(0, 255, (10_000, 32)).astype(np.uint8)} for _ in range(2)]
    tracemalloc.start()
    try:
        matched(pictures, [(0, 1)])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40e6


def test_a_picture_is_prepared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a tile of 6 × 6 pairs each picture stands 6 times."""
    seen: list[int] = []
    exact = nearest._exact
    monkeypatch.setattr(nearest, "_exact", lambda descriptor: seen.append(id(descriptor)) or exact(descriptor))
    rng = np.random.default_rng(0)
    pictures = [{"descriptor": rng.integers(0, 255, (700, 16)).astype(np.uint8)} for _ in range(12)]
    matched(pictures, [(a, b) for a in range(6) for b in range(6, 12)])
    assert len(seen) == len(set(seen)) == 12


class OwnMatcher(Matcher):
    """Match the first key points of two pictures."""

    needs = ("keypoint", "width")
    uses = frozenset({"distance"})
    slot = "gpu"

    def match(self, pairs: Pairs) -> Sequence[Matches]:
        self.seen = pairs
        return [Matches(np.array([[0, 0]]), np.array([pairs.pictures[a]["width"] / 10])) for a in pairs.a]


def test_another_matcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets each picture once, and only the pairs that can have matches."""
    monkeypatch.setitem(match.MATCHERS, "own", OwnMatcher)
    pictures = [{"keypoint": np.zeros((n, 2), np.float32), "width": at} for at, n in enumerate((3, 0, 5, 4))]
    stage = Match(MatchOptions(matcher="own"))
    assert stage.slot == "gpu"
    assert set(stage.needs) == {
        f"{side}{name}" for side in "ab" for name in ("", "_n_keypoints", "_keypoint", "_width")
    }
    found = stage.run(chunk(pictures, [(2, 0), (0, 1), (3, 2), (2, 3), (0, 2)], unread=[0]))
    assert found["n_matches"].tolist() == [0, 0, 1, 1, 0]
    assert found["match_score"].tolist() == pytest.approx([0.3, 0.2])
    seen = stage.matcher.seen
    assert [one["width"] for one in seen.pictures] == [3, 2]
    assert (seen.a.tolist(), seen.b.tolist(), seen.row.tolist()) == ([0, 1], [1, 0], [2, 3])
    assert set(MatchOptions(matcher="own").keyed()) == {"matcher", "most", "distance"}
    with pytest.raises(ValueError, match=r"option ratio: 0\.5 has no effect with matcher: own; leave it out"):
        MatchOptions(matcher="own", ratio=0.5)
    assert MatchOptions.model_validate(MatchOptions(matcher="own").model_dump(mode="json")).matcher == "own"


def test_options() -> None:
    assert find_stage("match") is Match
    with pytest.raises(ValueError, match="unknown matcher 'neerest'; did you mean 'nearest'"):
        MatchOptions(matcher="neerest")
    for wrong in ({"ratio": 0}, {"ratio": 1.1}, {"distance": 0}, {"most": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            MatchOptions(**wrong)
    assert set(MatchOptions().keyed()) == {"matcher", "ratio", "mutual", "distance", "most"}
    assert Match(MatchOptions()).slot == "cpu"
    with pytest.raises(WorkflowError):
        find_stage("matsch")

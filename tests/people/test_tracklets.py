"""Linking the faces of a chunk by where they are and what is around them; choosing those that a network is to see."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.faces.people import geometry, tracklets
from pipeline.media import boxes

SIZE = (120, 160)


def scene(seed: int, n_frames: int = 6) -> np.ndarray:
    """uint8 (n, 120, 160, 3): one picture of smooth blobs, still, with a little noise."""
    import cv2

    chance = np.random.default_rng(seed)
    picture = cv2.resize(
        chance.integers(0, 256, (6, 8, 3)).astype(np.float32), SIZE[::-1], interpolation=cv2.INTER_CUBIC
    )
    noise = chance.normal(0, 2, (n_frames, *SIZE, 3))
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def linked(frames: np.ndarray, frame: list[int], box: list[list[float]], seconds: float = 0.2) -> list[int]:
    rows, boxes = np.array(frame, np.int64), np.array(box, np.float32).reshape(-1, 4)
    look = tracklets.looks(frames, rows, boxes)
    times = np.arange(len(frames)) * seconds
    return tracklets.link(rows, boxes, look, times, tracklets.cuts(frames)).tolist()


LEFT, RIGHT = [20, 40, 30, 30], [100, 40, 30, 30]


def test_two_faces_side_by_side_are_two_tracklets_whatever_their_order() -> None:
    boxes = [LEFT, RIGHT, RIGHT, LEFT, LEFT, RIGHT]  # sorted by confidence, which changes
    assert linked(scene(0, 3), [0, 0, 1, 1, 2, 2], boxes) == [0, 1, 1, 0, 0, 1]


def test_a_face_that_moves_is_followed() -> None:
    frames, boxes = scene(1), [[20 + 6 * k, 40, 30, 30] for k in range(6)]
    assert linked(frames, list(range(6)), boxes) == [0] * 6


@pytest.mark.parametrize(
    ("frame", "box", "seconds", "expected"),
    [
        pytest.param([0, 1], [LEFT, RIGHT], 0.2, [0, 1], id="elsewhere"),
        pytest.param([0, 2], [LEFT, LEFT], 0.2, [0, 1], id="not found in the frame between"),
        pytest.param([0, 1], [LEFT, LEFT], 3.0, [0, 1], id="too long ago"),
        pytest.param([0, 1], [LEFT, LEFT], 2.0, [0, 0], id="not too long ago"),
        pytest.param([0, 1, 1], [LEFT, LEFT, [24, 42, 30, 30]], 0.2, [0, 0, 1], id="one face goes to one"),
        pytest.param([0, 1], [[-90, 40, 30, 30], [-90, 40, 30, 30]], 0.2, [0, 1], id="beyond the frame"),
        pytest.param([], [], 0.2, [], id="no face"),
    ],
)
def test_links(frame: list[int], box: list[list[float]], seconds: float, expected: list[int]) -> None:
    assert linked(scene(2), frame, box, seconds) == expected


def test_the_assignment_is_the_best_of_all_not_the_first() -> None:
    """The first face overlaps most with the one that the second needs."""
    before, after = [[40, 40, 30, 30], [52, 40, 30, 30]], [[46, 40, 30, 30], [34, 40, 30, 30]]
    look = np.zeros((4, 256), np.float32)
    look[:, 0] = 1
    boxes = np.array(before + after, np.float32)
    found = tracklets.link(np.array([0, 0, 1, 1]), boxes, look, np.array([0, 0.2]), np.zeros(2, bool))
    assert found.tolist() == [0, 1, 1, 0]


def test_a_cut_ends_every_tracklet() -> None:
    """Two talking heads at one place."""
    frames = np.concatenate([scene(3, 3), scene(4, 3)])
    assert tracklets.cuts(frames).tolist() == [False, False, False, True, False, False]
    assert linked(frames, list(range(6)), [LEFT] * 6) == [0, 0, 0, 1, 1, 1]


def test_another_face_amid_the_same_picture_is_another_tracklet() -> None:
    """The frame hardly changes, but what is in and around the box does."""
    frames = scene(5, 2)
    frames[1, 20:90, 0:80] = scene(6, 1)[0, 20:90, 0:80]
    frames[1] = np.clip(frames[1], 0, 255)
    look = tracklets.looks(frames, np.array([0, 1]), np.array([LEFT, LEFT], np.float32))
    found = tracklets.link(
        np.array([0, 1]), np.array([LEFT] * 2, np.float32), look, np.array([0, 0.2]), np.zeros(2, bool)
    )
    assert found.tolist() == [0, 1]


def test_looks_are_correlations() -> None:
    frames = scene(7, 2)
    look = tracklets.looks(frames, np.array([0, 0, 1, 1]), np.array([LEFT, RIGHT, LEFT, [500, 0, 20, 20]], np.float32))
    assert np.allclose(np.linalg.norm(look[:3], axis=1), 1, atol=1e-5)
    assert look[0] @ look[2] > 0.95 > look[0] @ look[1]
    assert not look[3].any(), "outside the frame"


def test_overlap_is_intersection_over_union() -> None:
    left = np.array([[0, 0, 10, 10], [0, 0, 0, 0]], np.float32)
    right = np.array([[0, 0, 10, 10], [5, 0, 10, 10], [20, 20, 5, 5], [0, 0, 0, 0]], np.float32)
    np.testing.assert_allclose(boxes.overlap(left, right), [[1, 1 / 3, 0, 0], [0, 0, 0, 0]])


def landmarks(nose: float) -> np.ndarray:
    """float32 (5, 2): eyes at 0 and 10, the nose so far from the one to the other."""
    return np.array([[0, 0], [10, 0], [10 * nose, 6], [2, 10], [8, 10]], np.float32)


@pytest.mark.parametrize(("nose", "expected"), [(0.5, 1.0), (0.25, 0.5), (0.75, 0.5), (0.0, 0.1), (1.4, 0.1)])
def test_frontality(nose: float, expected: float) -> None:
    turned = np.array([[0.6, 0.8], [-0.8, 0.6]], np.float32)
    points = np.stack([landmarks(nose), landmarks(nose) @ turned + 100])
    np.testing.assert_allclose(geometry.frontality(points), expected, atol=1e-6)


def test_frontality_without_landmarks() -> None:
    assert geometry.frontality(np.full((1, 5, 2), np.nan, np.float32)).tolist() == [0.5]
    assert geometry.frontality(np.zeros((1, 5, 2), np.float32)).tolist() == [0.5]


@pytest.mark.parametrize("better", ["size", "confidence", "frontal", "sharp"])
def test_quality_rises_with_each_of_its_parts(better: str) -> None:
    import cv2

    frames = np.random.default_rng(8).integers(0, 256, (2, *SIZE, 3), np.uint8)
    frames[0] = frames[1] = cv2.GaussianBlur(frames[0], (0, 0), 2)
    box, points, confidence = np.array([LEFT, LEFT], np.float32), np.stack([landmarks(0.4)] * 2), np.full(2, 0.9)
    if better == "size":
        frames[:] = 128
        box[1] = [20, 40, 40, 40]
    if better == "confidence":
        confidence[1] = 0.99
    if better == "frontal":
        points[1] = landmarks(0.5)
    if better == "sharp":
        frames[0] = cv2.GaussianBlur(frames[0], (0, 0), 4)
    worse, finer = tracklets.quality(frames, np.array([0, 1]), box, points, confidence.astype(np.float32))
    assert 0 < worse < finer


@pytest.mark.parametrize(
    ("rows", "best", "expected"),
    [
        ([0, 1, 2, 3, 4, 5], 3, [1, 2, 5]),
        ([0, 1, 2, 3, 4, 5], 1, [5]),
        ([3, 4], 3, [3, 4]),
        ([4], 3, [4]),
    ],
)
def test_the_chosen_are_the_finest_of_each_part_of_the_time(rows: list[int], best: int, expected: list[int]) -> None:
    quality = np.array([1.0, 2.0, 4.0, 3.0, 5.0, 6.0])
    assert tracklets.choose(np.array(rows), quality, best).tolist() == expected

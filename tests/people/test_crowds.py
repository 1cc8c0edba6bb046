"""A crowd in one frame: the largest piece of work in memory does not grow with the number of faces."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline.engine.stage import Chunk
from pipeline.faces.models.base import Faces
from pipeline.faces.models.detectors import boxes as suppression
from pipeline.faces.people import clustering, tracklets
from pipeline.faces.stages import analyze, antispoof, embed
from pipeline.media import boxes, tracking
from pipeline.media.film import whereabouts
from pipeline.store import compact

SIDE = 40
"""Pixels from one face of a crowd to the next."""


def crowd(count: int, seed: int = 0) -> np.ndarray:
    """float32 (count, 4): boxes of faces side by side, in rows of 50."""
    at = np.stack([np.arange(count) % 50, np.arange(count) // 50], axis=1) * SIDE
    shifted = at + np.random.default_rng(seed).uniform(-3, 3, (count, 2))
    return np.concatenate([shifted, np.full((count, 2), 30.0)], axis=1).astype(np.float32)


def vectors(count: int) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(count, 16)).astype(np.float32)


def peak_bytes(work: Callable[[], Any]) -> int:
    """Most bytes of arrays and objects that were alive together, beyond those of before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def tracked(count: int) -> np.ndarray:
    """The tracks of a crowd of three frames, whose faces do not keep their order; the last frame has some fewer."""
    order = np.random.default_rng(1).permutation(count)
    people = vectors(count)
    rows = [np.arange(count), order, order[: -count // 10]]
    return tracking.track_rows(
        [
            tracking.Block(np.array([len(r)], np.int32), np.array([0.2 * k]), crowd(count, k)[r], people[r])
            for k, r in enumerate(rows)
        ],
        tracking.TrackSettings(max_distance=2.0),
    )


def moved(count: int) -> np.ndarray:
    """The tracks of a crowd of objects of two classes, by position and movement."""
    order = np.random.default_rng(1).permutation(count)
    rows = [np.arange(count), order, order[: -count // 10]]
    blocks = [
        tracking.Block(
            np.array([len(r)], np.int32), np.array([0.2 * k]), crowd(count, k)[r], None, (r % 2).astype(np.int32)
        )
        for k, r in enumerate(rows)
    ]
    return tracking.track_rows(blocks, tracking.TrackSettings(by_movement=True))


def linked(count: int) -> np.ndarray:
    order = np.random.default_rng(2).permutation(count)
    look = vectors(count) / np.linalg.norm(vectors(count), axis=1, keepdims=True)
    box = np.concatenate([crowd(count, 1), crowd(count, 2)[order]])
    frame = np.repeat([0, 1], count)
    return tracklets.link(frame, box, np.concatenate([look, look[order]]), np.array([0.0, 0.1]), np.zeros(2, bool))


def shown(count: int) -> np.ndarray:
    """The tracks that a film of a store without tracks gets."""
    order = np.random.default_rng(3).permutation(count)
    box = np.concatenate([crowd(count, 1), crowd(count, 2)[order]])
    unknown = np.full(2 * count, -1, np.int32)
    return whereabouts._linked(np.repeat([0, 1], count), box, unknown, unknown)


def kept(count: int) -> np.ndarray:
    """The boxes that stay of twelve around each face, as P-Net gives them."""
    box = np.repeat(crowd(count), 12, axis=0).astype(np.float64)
    box[:, :2] += np.random.default_rng(4).uniform(-4, 4, (len(box), 2))
    corners = np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], axis=1)
    score = np.random.default_rng(6).random(len(box)).astype(np.float32)
    return suppression.suppress(np.zeros(len(box), np.int64), corners, score, 0.5)


WORK = {"suppression": kept, "tracks": tracked, "tracklets": linked, "films": shown}


@pytest.mark.parametrize("work", [*WORK.values(), moved], ids=[*WORK, "objects"])
def test_neighbours_alone_are_compared_and_say_the_same(
    work: Callable[[int], np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = work(150)  # all pairs at once: what is too many for a crowd
    sizes: list[int] = []
    meeting = boxes.meeting

    def counted(left: np.ndarray, right: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for rows, near in meeting(left, right):
            sizes.append(len(rows) * len(near))
            yield rows, near

    monkeypatch.setattr(boxes, "PAIRS_AT_ONCE", 2000)
    monkeypatch.setattr(boxes, "GROUP", 16)
    monkeypatch.setattr(boxes, "meeting", counted)
    monkeypatch.setattr(suppression, "meeting", counted)
    np.testing.assert_array_equal(work(150), whole)
    assert len(np.unique(whole)) >= 150
    assert len(sizes) > 5
    assert max(sizes) <= 2000


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_memory_goes_with_the_number_of_faces_not_its_square(work: Callable[[int], np.ndarray]) -> None:
    work(50)  # what is imported and kept at the first call
    few, many = (peak_bytes(lambda count=count: work(count)) for count in (1500, 6000))
    assert many < 5 * few
    assert many < 64 << 20, f"{many >> 20} MB; float64 for each pair of faces takes {6000**2 >> 17}"


def test_assignment_is_the_best_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.optimize import linear_sum_assignment

    monkeypatch.setattr(boxes, "PAIRS_AT_ONCE", 40)
    chance = np.random.default_rng(0)
    for n, m in ((30, 30), (12, 40), (40, 12), (30, 2), (0, 5), (5, 0)):
        left, right = (boxes.corners_of(chance.random((k, 4)) * (200, 200, 60, 60)) for k in (n, m))
        meets = (left[:, None, :2] < right[None, :, 2:]).all(2) & (left[:, None, 2:] > right[None, :, :2]).all(2)
        costs = np.where(meets, chance.random((n, m)) * 2.6, 2.6)
        row, column = boxes.assigned(left, right, lambda a, b, costs=costs: costs[np.ix_(a, b)], 2.6)
        best = [(i, j) for i, j in zip(*linear_sum_assignment(costs), strict=True) if costs[i, j] < 2.6]
        assert sorted(zip(row.tolist(), column.tolist(), strict=True)) == best


def test_a_box_with_a_negative_area_counts_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's rule divides by a union that may be negative."""
    chance = np.random.default_rng(3)
    corners = np.repeat(chance.random((60, 2)) * 300, 2, axis=0).reshape(60, 4) + chance.uniform(-5, 30, (60, 4))
    assert ((corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1]) < 0).any()
    given = np.zeros(60, np.int64), corners, chance.random(60).astype(np.float32), 0.5
    whole = suppression.suppress(*given)
    monkeypatch.setattr(boxes, "PAIRS_AT_ONCE", 50)
    np.testing.assert_array_equal(suppression.suppress(*given), whole)


def test_a_crowd_of_one_face_gives_few_near_pairs() -> None:
    """All are within the limit of each other; the nearest are kept, in the order of all pairs."""
    mean = np.random.default_rng(0).normal(0, 0.01, (400, 8)).astype(np.float32)
    found = [np.concatenate(part) for part in zip(*clustering.near_pairs(mean, np.zeros(400), 1.0, 6), strict=True)]
    squared = ((mean[:, None] - mean[None]) ** 2).sum(-1)
    np.fill_diagonal(squared, np.inf)
    np.testing.assert_array_equal(found[0], np.repeat(np.arange(400), 6))
    np.testing.assert_allclose(found[2].reshape(400, 6), np.sort(squared, axis=1)[:, :6], rtol=1e-2, atol=1e-7)


def test_a_moment_takes_one_row_for_each_track() -> None:
    track = np.tile(np.arange(500, dtype=np.int32), 3)
    assert len(clustering.together(track, np.full(3, 500, np.int32))) == 500, "three frames with the same tracks"


def test_a_crowd_of_strangers_is_grouped_without_its_pairs() -> None:
    vector = np.random.default_rng(1).normal(size=(1500, 16)).astype(np.float32)
    ones, seen = np.ones(1500), np.stack([np.zeros(1500, np.int64), np.arange(1500)], axis=1)
    points = clustering.Points(vector, 0 * ones, 0 * ones, ones, np.zeros(1500, np.int64), ones > 0)
    assert peak_bytes(lambda: clustering.group_points(points, seen, 0.1)) < 48 << 20  # 2.2 million pairs in two sets
    assert len(clustering.group_points(points, seen, 100.0).looks) == 1500, "faces of one frame are different people"


def test_a_whole_array_is_written_without_a_copy() -> None:
    """Thumbnails of 20,000 people take 1.7 GB; they lie in a file that is mapped."""
    data = np.arange(24).reshape(12, 2)
    blocks = list(compact._blocks(iter([data]), 5))
    np.testing.assert_array_equal(np.concatenate(blocks), data)
    assert [len(block) for block in blocks] == [5, 5, 2]
    assert np.shares_memory(blocks[0], data)


class Model:
    """Counts the chips that are in memory together."""

    dimension = 128

    def __init__(self) -> None:
        self.batches: list[int] = []

    def chips(self, frames_rgb: Any, faces: Faces) -> np.ndarray:
        self.batches.append(len(faces.frame))
        return faces.box

    def embed(self, chips: np.ndarray) -> np.ndarray:
        return np.tile(chips[:, :1], (1, 128))

    def predict(self, chips: np.ndarray) -> np.ndarray:
        return np.tile(chips[:, :1], (1, 3))


@pytest.mark.parametrize(
    ("stage", "most", "run"),
    [
        pytest.param(embed.Embed(embed.EmbedOptions()), embed.FACES_AT_ONCE, "embedder", id="embed"),
        pytest.param(
            antispoof.Antispoof(antispoof.AntispoofOptions()), antispoof.FACES_AT_ONCE, "spoofing", id="antispoof"
        ),
        pytest.param(
            analyze.Analyze(analyze.AnalyzeOptions(attributes=("race",))),
            analyze.MOST_FACES,
            "attributes",
            id="analyze",
        ),
    ],
)
def test_stages_cut_some_hundred_faces_at_a_time(stage: Any, most: int, run: str) -> None:
    model, count = Model(), 1001
    setattr(stage, run, {"race": SimpleNamespace(chips=model.chips, predict=_six)} if run == "attributes" else model)
    arrays = {"n_faces": np.array([count], np.int32), "box": crowd(count)}
    arrays["landmarks"] = np.full((count, 5, 2), np.nan, np.float32)
    frames = {"frames_rgb": np.zeros((1, 8, 8, 3), np.uint8)}
    chunk = Chunk("crowd", 0, np.zeros(1, np.int64), np.zeros(1), np.ones(1, bool), {**frames, **arrays})
    (values,) = stage.run(chunk).values()
    assert (sum(model.batches), max(model.batches)) == (count, most)
    np.testing.assert_array_equal(values[:, 0], arrays["box"][:, 0])


def _six(chips: np.ndarray) -> np.ndarray:
    return np.tile(chips[:, :1], (1, 6))

"""People of tracks: average linkage with what video knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from pipeline.faces.people import clustering
from pipeline.faces.people.clustering import Points, best_rows, describe, group_points, quality, together
from pipeline.faces.people.described import share_in_crowd
from tests.made_stores import people

NOBODY = np.empty((0, 2), np.int64)


def points(vector: np.ndarray, person: Sequence[int] = (), founds: Sequence[bool] = (), weight: float = 5) -> Points:
    n = len(vector)
    known = np.zeros(n, np.int64)
    known[: len(person)] = person
    begins = np.ones(n, bool)
    begins[: len(founds)] = founds
    return Points(vector.astype(np.float32), np.zeros(n), np.zeros(n), np.full(n, float(weight)), known, begins)


def line(*places: float) -> np.ndarray:
    """Vectors along a line: distances that can be read."""
    vector = np.zeros((len(places), 4), np.float32)
    vector[:, 0] = places
    return vector


def test_people_are_told_apart() -> None:
    vector = people(20, 30).reshape(-1, 128)
    group = group_points(points(vector), NOBODY, 0.51).group
    assert (group == np.repeat(np.arange(20), 30)).all()


def test_the_sparse_graph_gives_what_scipy_gives_from_all_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a round sees few neighbours: later rounds see the groups."""
    vector = people(12, 15, spread=0.033, seed=2).reshape(-1, 128)
    difference = vector[:, None].astype(float) - vector[None]
    matrix = (difference**2).sum(-1)
    np.fill_diagonal(matrix, 0)
    cut = fcluster(linkage(squareform(matrix, checks=False), "average"), 0.62**2, "distance")
    expected = {frozenset(np.flatnonzero(cut == k).tolist()) for k in np.unique(cut)}
    assert 8 < len(expected) < 60
    alone = Points(vector, np.zeros(180), np.zeros(180), np.ones(180), np.zeros(180, np.int64), np.ones(180, bool))
    monkeypatch.setattr(clustering, "BLOCK_VALUES", 180 * 50)
    group = group_points(alone, NOBODY, 0.62).group
    assert {frozenset(np.flatnonzero(group == k).tolist()) for k in np.unique(group)} == expected
    monkeypatch.setattr(clustering, "PAIRS", 0)
    monkeypatch.setattr(clustering, "LEAST_NEIGHBOURS", 3)
    few = group_points(points(people(12, 15).reshape(-1, 128)), NOBODY, 0.51).group
    assert (few == np.repeat(np.arange(12), 15)).all()


@pytest.mark.parametrize(
    ("places", "apart", "expected"),
    [
        pytest.param((0, 0.3, 2), [], [0, 0, 1], id="near and far"),
        pytest.param((0, 0.1), [(0, 1)], [0, 1], id="two faces of one frame"),
        pytest.param((0, 0.3, 0.1), [(0, 2)], [0, 1, 1], id="the nearest is taken where the facts allow"),
        pytest.param((0, 0.1, 0.2, 0.3), [(0, 3)], [0, 0, 1, 1], id="a fact about one member binds all"),
        pytest.param((0, 0.9, 1.8), [], [0, 0, 1], id="no chain: the average counts, not the nearest"),
    ],
)
def test_facts_and_averages(places: tuple[float, ...], apart: list[tuple[int, int]], expected: list[int]) -> None:
    seen = np.array([(moment, row) for moment, pair in enumerate(apart) for row in pair], np.int64).reshape(-1, 2)
    assert group_points(points(line(*places)), seen, 1.0).group.tolist() == expected


def test_the_threshold_falls_with_the_number_of_people() -> None:
    places = points(line(0, 0.3, 5, 5.9, 9, 9.7, 20), founds=[True] * 6 + [False])
    crowds = {5: 0.72, 4: 0.8}
    assert group_points(places, NOBODY, 1.0, strict=0.5).group.tolist() == [0, 0, 1, 1, 2, 2, 3]
    found = group_points(places, NOBODY, 1.0, (), 0.5, lambda people: crowds[people])
    assert found.group.tolist() == [0, 0, 1, 2, 3, 3, 4], "9 and 9.7 are one person, which leaves room up to 0.8"
    assert found.threshold == pytest.approx(0.8)
    shares = [share_in_crowd(people) for people in (0, 30, 100, 1000, 10**6)]
    assert shares == pytest.approx([0.975, 0.975, 0.94, 0.85, 0.85])


def test_two_people_before_one_camera_stay_two() -> None:
    """Tracks of one look vary about their mean: 0.53 from one person's to the other's, 0.48 between the means alone."""
    tracks = np.zeros((12, 13), np.float32)
    tracks[:, :12] = 0.17 * np.eye(12)
    tracks[6:, 12] = 0.43
    spread = np.full(12, 0.0192)
    varied = replace(points(tracks), spread=spread, varied=spread)
    assert group_points(varied, NOBODY, 0.57, strict=0.51).group.tolist() == [0] * 6 + [1] * 6


def test_known_people_take_tracks_and_stay_two() -> None:
    found = group_points(points(line(0, 0.4, 0.1, 0.35), person=[7, 9]), NOBODY, 1.0)
    assert found.group.tolist() == [0, 1, 0, 1]
    assert [len(looks) for looks in found.looks] == [1, 1]
    assert found.looks[0][0].vector[0] == pytest.approx(0.05)
    assert found.looks[0][0].weight == 10


def test_a_person_may_have_several_looks() -> None:
    """Merged by hand: far apart, both take tracks, and what is in a frame with one look is not the other."""
    found = group_points(points(line(0, 5, 0.1, 5.3, 4.9), person=[7, 7]), np.array([[0, 2], [0, 3]]), 1.0)
    assert found.group.tolist()[:3] == [0, 0, 0]
    assert found.group[4] == 0
    assert found.group[3] != 0
    assert sorted(round(float(look.vector[0]), 2) for look in found.looks[0]) == [0.05, 4.95]


def test_what_may_not_found_a_group_only_joins_one() -> None:
    flaws = points(line(0, 0.1, 3, 3.1, 3.9), founds=[False, False, True, False, False])
    group = group_points(flaws, NOBODY, 1.0).group.tolist()
    assert group == [0, 1, 2, 2, 3], "flaws do not join each other, and a person only where they are quite near"


def test_spread_counts_against_joining() -> None:
    sure = points(line(0, 0.9))
    assert len(group_points(sure, NOBODY, 1.0).looks) == 1
    unsure = Points(sure.vector, np.full(2, 0.2), sure.varied, sure.weight, sure.person, sure.founds)
    assert len(group_points(unsure, NOBODY, 1.0).looks) == 2


def test_nothing_to_group() -> None:
    assert group_points(points(line()), NOBODY, 1.0).looks == []


def test_many_tracks_take_little_time() -> None:
    """A graph of near ones, never the matrix of all distances."""
    vector = people(200, 25, seed=5).reshape(-1, 128)
    found = group_points(points(vector), NOBODY, 0.51)
    assert len(found.looks) == 200


# -- what a track is described by ----------------------------------------------------------------------------


def test_tracks_together_in_a_frame() -> None:
    track = np.array([0, 1, 0, 2, 1, -1, 2, 0], np.int32)
    seen = together(track, np.array([2, 0, 3, 1, 2], np.int32))
    assert seen.tolist() == [[0, 0], [0, 1], [1, 0], [1, 2], [2, 0], [2, 1], [2, 2]]
    assert len(together(np.array([0, 0], np.int32), np.array([1, 1], np.int32))) == 0


def test_best_rows_of_each_track() -> None:
    track = np.array([1, 0, 1, 1, -1, 0], np.int32)
    score = np.array([0.1, 0.5, 0.9, 0.4, 1.0, 0.2])
    assert best_rows(track, score, 2).tolist() == [1, 2, 3, 5]
    assert best_rows(track, score, 1).tolist() == [1, 2]


def test_the_better_faces_describe_a_track() -> None:
    vectors = line(0, 0.1, 0.2, 9.0, 50.0)
    score, certain = np.array([1.0, 1.0, 1.0, 0.9, 0.1]), np.ones(5)
    mean, spread = describe(vectors, score, certain, 0.0)
    assert mean[0] == pytest.approx(0.1)
    assert spread == pytest.approx(0.02 / 3)
    _, doubtful = describe(vectors, score, np.zeros(5), 0.3)
    assert doubtful == pytest.approx(spread + 0.3)


def test_quality_of_faces() -> None:
    front = np.array([[30, 40], [70, 40], [50, 60], [35, 80], [65, 80]], float)
    side = front.copy()
    side[2, 0] = 72
    landmarks = np.stack([front, side, np.full((5, 2), np.nan)])
    box = np.array([[0, 0, 100, 100], [0, 0, 100, 100], [0, 0, 20, 20]])
    score = quality(box, landmarks, np.array([1.0, 1.0, 1.0]))
    assert score[0] > score[1] > 0
    assert quality(box[:1], landmarks[:1], np.array([0.8]))[0] < 0.5 * score[0]
    assert (quality(box, None, None) == [1, 1, 0.2]).all()


def looks(person: int, count: int, varies: float, apart: float) -> np.ndarray:
    """Photographs of a person, each `varies` from the person's mean in a direction of its own; people are `apart`."""
    vector = np.zeros((count, 64), np.float32)
    vector[:, 0] = person * apart
    vector[np.arange(count), 1 + person * count + np.arange(count)] = varies
    return vector


def test_a_group_varies_as_photographs_do() -> None:
    """By their own variances two who look the same are 0.53 apart; an odd photograph is 0.58 from the others."""
    two = np.concatenate([looks(person, 5, 0.22, 0.45) for person in (0, 1)])
    assert group_points(points(two), NOBODY, 0.57).group.tolist() == [0] * 5 + [1] * 5
    one = np.concatenate([looks(0, 5, 0.36, 0), [np.eye(64, dtype=np.float32)[63] * 0.45]])
    one[:, 62] = np.where(np.arange(6) < 5, 0.0, 0.1)
    assert group_points(points(one), NOBODY, 0.57).group.tolist() == [0] * 6


def test_many_tracks_of_one_look_are_one_look() -> None:
    """A person on two days, five tracks each: those of one day say no more of how the person varies than one does."""
    days = np.concatenate([looks(0, 5, 0.1, 0), looks(1, 5, 0.1, 0.47)])
    assert group_points(points(days), NOBODY, 0.57).group.tolist() == [0] * 10


def test_a_stored_exemplar_goes_on_as_its_tracks_would() -> None:
    vector = looks(0, 4, 0.25, 0)
    first = group_points(points(vector[:3]), NOBODY, 0.57)
    (exemplar,) = first.looks[0]
    again = np.stack([exemplar.vector, vector[3]])
    state = Points(
        again, np.array([exemplar.spread, 0]), np.array([exemplar.varied, 0]), np.array([exemplar.weight, 5]),
        np.array([1, 0]), np.ones(2, bool),
    )  # fmt: skip
    (whole,) = group_points(points(vector), NOBODY, 0.57).looks[0]
    (added,) = group_points(state, NOBODY, 0.57).looks[0]
    assert added.spread == pytest.approx(whole.spread)
    assert added.vector == pytest.approx(whole.vector, abs=1e-6)


def test_tracks_that_both_show_variation_must_be_nearer() -> None:
    """Two filmed people who look alike stay two; two photographs of one person, as far apart, become one."""
    vector = np.array([[0.0, 0.0], [0.55, 0.0]], np.float32)
    for varied, count in ((0.0, 1), (0.04, 2)):
        founds = np.ones(2, bool)
        made = Points(vector, np.zeros(2), np.full(2, varied), np.ones(2), np.zeros(2, np.int64), founds)
        assert len(group_points(made, np.empty((0, 2), np.int64), 0.57, strict=0.51).looks) == count
    one_varies = replace(made, varied=np.array([0.0, 0.04]))
    assert len(group_points(one_varies, np.empty((0, 2), np.int64), 0.57, strict=0.51).looks) == 1

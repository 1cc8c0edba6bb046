"""The person that a track shows: limits by the gallery and by the evidence, and weak names."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from pipeline.engine.workflow import load_workflow
from pipeline.faces.models.recognisers.thresholds import thresholds
from pipeline.faces.people.evidence import (
    UNIT,
    Level,
    Means,
    averaged,
    by_metric,
    calibration,
    halved,
    judge,
    nearest_rows,
    people_means,
    projected,
)
from pipeline.faces.people.matching import METRICS, Metric
from pipeline.faces.people.pictures import PictureCache, PictureFaces, Recipe

D = 128


def at(*distances: float) -> np.ndarray:
    """Vectors of length 1 at cosine distances from the first axis, each in a direction of its own."""
    found = np.zeros((len(distances), D))
    for k, distance in enumerate(distances):
        found[k, 0] = 1 - distance
        found[k, k + 1] = np.sqrt(1 - (1 - distance) ** 2)
    return found


def one_each(vectors: np.ndarray) -> Means:
    return Means(vectors, np.ones(len(vectors)))


PERSON = one_each(np.eye(D)[:1])


def levels(*distances: float, people: int = 1) -> list[int]:
    """Levels of tracks of one face each, of which one person is near and the others of the gallery are far."""
    gallery = one_each(np.concatenate([np.eye(D)[:1], np.repeat(-np.eye(D)[:1], people - 1, axis=0)]))
    return [int(judge(one_each(at(distance)), gallery, UNIT).level[0]) for distance in distances]


def test_limits_fall_with_the_people_and_with_the_evidence() -> None:
    limits = [float(UNIT.limit(people, 2.0)) for people in (1, 10, 100, 1000)]
    assert limits == sorted(limits, reverse=True)
    assert UNIT.limit(100, 1.0) < UNIT.limit(100, 2.0)
    assert UNIT.limit(100, 2.0, Level.SURE) == pytest.approx(UNIT.limit(1000, 2.0))
    assert UNIT.limit(100, 2.0, Level.WEAK) == pytest.approx(UNIT.limit(10, 2.0))


def test_a_distance_means_less_in_a_larger_gallery() -> None:
    assert levels(0.060, people=2) == [Level.SURE]
    assert levels(0.060, people=20) == [Level.LIKELY]
    assert levels(0.060, people=100) == [Level.WEAK]
    assert levels(0.060, people=2000) == [Level.NONE]


def test_a_mean_leaves_what_its_faces_share() -> None:
    rng = np.random.default_rng(0)
    axis = np.eye(D)[0]
    deviation = rng.normal(0, np.sqrt(UNIT.spread / D), (100, D))
    _, different_days = averaged(axis + deviation, np.ones(100), UNIT.spread, metric="euclidean")
    same = np.repeat(axis[None] + deviation[:1], 100, axis=0)
    _, one_pose = averaged(same, np.ones(100), UNIT.spread, metric="euclidean")
    assert different_days < 0.15
    assert one_pose == pytest.approx(1.0)
    assert averaged(axis[None], np.ones(1), UNIT.spread, metric="cosine")[1] == 1.0


def test_two_names_that_are_about_as_near_are_a_question() -> None:
    twins = one_each(at(0.030, 0.032))
    found = judge(PERSON, twins, UNIT)
    assert (found.person.tolist(), found.level.tolist()) == ([0], [Level.WEAK])
    assert judge(PERSON, one_each(at(0.030, 0.050)), UNIT).level.tolist() == [Level.SURE]


def test_others_of_the_scene_of_a_gallery_picture_are_a_question() -> None:
    """A picture cut from this film: whoever is seen in its light is near to it, so only the very near are named."""
    assert judge(one_each(at(0.048)), PERSON, UNIT).level.tolist() == [Level.SURE]
    assert judge(one_each(at(0.005, 0.007, 0.048)), PERSON, UNIT).level.tolist() == [Level.SURE, Level.SURE, Level.WEAK]


def test_a_threshold_of_ones_own_is_the_limit() -> None:
    found = judge(one_each(at(0.02, 0.11, 0.13)), PERSON, UNIT, threshold=0.12)
    assert found.limit.tolist() == [0.12] * 3
    assert found.level.tolist() == [Level.SURE, Level.LIKELY, Level.NONE]
    found = judge(one_each(at(0.02, 0.03)), PERSON, UNIT, threshold=0.025)
    assert found.level.tolist() == [Level.SURE, Level.NONE]


def test_tracks_without_an_embedding_are_nobody() -> None:
    found = judge(one_each(np.full((2, D), np.nan)), PERSON, UNIT)
    assert found.person.tolist() == [-1, -1]
    assert np.isnan(found.distance).all()
    assert found.level.tolist() == [0, 0]
    rows = nearest_rows(one_each(np.full((2, D), np.nan)), found.person, np.eye(D), np.zeros(D, int), metric="cosine")
    assert rows.tolist() == [-1, -1]


def test_an_embedding_without_direction_says_nothing() -> None:
    assert np.isnan(projected(np.zeros((1, D)), "cosine")).all()
    found = judge(one_each(projected(np.zeros((1, D)), "cosine")), PERSON, UNIT)
    assert (found.person.tolist(), found.level.tolist()) == ([-1], [Level.NONE])


def test_the_gallery_row_is_the_nearest_of_that_person() -> None:
    rows = at(0.02, 0.01, 0.001)
    person = np.array([0, 0, 1])
    found = nearest_rows(PERSON, np.array([0]), rows, person, metric="cosine")
    assert found.tolist() == [1]


@pytest.mark.parametrize("metric", METRICS)
def test_metrics_are_the_same_limits_by_their_own_formulas(metric: str) -> None:
    assert float(by_metric(metric, halved(metric, 0.1))) == pytest.approx(0.1)  # type: ignore[arg-type]


def test_models_without_a_measurement_scale_by_their_threshold() -> None:
    assert calibration("cosine", 0.68).limit(100, 2.0) == pytest.approx(8.5 * UNIT.limit(100, 2.0))
    assert calibration("cosine", 0.08) == calibration("cosine", 0.08, "native") == UNIT
    assert calibration("cosine", 0.07, "deepface").limit(100, 2.0) == pytest.approx(0.875 * UNIT.limit(100, 2.0))


@pytest.mark.parametrize("metric", METRICS)
def test_two_views_have_a_line_of_their_own(metric: Metric) -> None:
    """One photograph may be as far as by native's line in proportion, a mean of several faces farther."""
    own = thresholds("Dlib", "two_views")[metric]
    two, native = calibration(metric, own, "two_views"), calibration(metric, own)
    assert two.limit(300, 2.0) == pytest.approx(native.limit(300, 2.0), rel=0.02)
    assert two.limit(300, 0.4) >= (1.0 if metric == "euclidean" else 1.08) * native.limit(300, 0.4) - 1e-9


def test_the_result_is_the_same_however_many_tracks_are_judged_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.faces.people import evidence

    rng = np.random.default_rng(0)
    tracks, people = one_each(rng.normal(size=(50, D))), one_each(rng.normal(size=(7, D)))
    whole = judge(tracks, people, UNIT)
    monkeypatch.setattr(evidence, "_blocks", lambda rows, _: np.array_split(rows, 50))
    parts = judge(tracks, people, UNIT)
    for name in ("person", "distance", "limit", "level"):
        np.testing.assert_allclose(getattr(whole, name), getattr(parts, name), rtol=1e-12)


def test_strangers_stay_without_a_name(
    data_dir: Path, workflows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People of LFW: one picture each in the gallery, one face each to name; `make strangers` is the whole of it."""
    folder = data_dir / "faces" / "lfw_many"
    if not folder.is_dir():
        pytest.skip(f"no photographs of many people in {folder}")
    monkeypatch.setenv("REELGRAPH_CACHE", str(tmp_path))
    with (folder / "labels.csv").open() as file:
        pictures: dict[str, list[Path]] = {}
        for row in csv.DictReader(file):
            pictures.setdefault(row["identity"], []).append(folder / row["path"])
    known = [paths[:2] for paths in pictures.values() if len(paths) > 1][:50]
    strangers = [paths[0] for paths in pictures.values() if len(paths) == 1][:200]
    recipe = Recipe.of_store({"workflow": load_workflow(workflows / "faces.yaml").resolved()}, "faces.yaml")
    wanted = [*(path for paths in known for path in paths), *strangers]

    def middle(faces: PictureFaces) -> np.ndarray:
        away = np.linalg.norm(faces.box[:, :2] + faces.box[:, 2:] / 2 - faces.size / 2, axis=1)
        return faces.embedding[away.argmin()].astype(np.float64)

    vectors = np.array([middle(one) for one in PictureCache(recipe).faces(wanted, None)])  # type: ignore[arg-type]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    gallery = people_means(vectors[: 2 * len(known) : 2], np.arange(len(known)), UNIT, metric="cosine")
    found = judge(one_each(vectors[2 * len(known) :]), gallery, UNIT)
    assert (found.level >= Level.LIKELY).sum() <= 6, "the threshold of two single faces would name some twenty"
    found = judge(one_each(vectors[1 : 2 * len(known) : 2]), gallery, UNIT)
    right = (found.level >= Level.LIKELY) & (found.person == np.arange(len(known)))
    assert right.mean() >= 0.75
    assert ((found.level >= Level.LIKELY) & ~right).sum() == 0

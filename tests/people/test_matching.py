"""Distances and nearest people, beside DeepFace's own function."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.faces.people import matching
from pipeline.faces.people.matching import METRICS, Matcher, Metric, checked_metric
from tests.made_stores import people


def vectors(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """float32 (rows, d) and (faces, d), some of the faces equal to rows."""
    rng = np.random.default_rng(1)
    known = people(9, 5).reshape(-1, 128) if kind == "Dlib" else rng.normal(0, 3, (45, 512)).astype(np.float32)
    faces = np.concatenate([known[::3], known[:20] + rng.normal(0, 1e-4, (20, known.shape[1])).astype(np.float32)])
    return known, faces


@pytest.mark.parametrize("kind", ["Dlib", "long"])
@pytest.mark.parametrize("metric", METRICS)
def test_distances_are_deepfaces(metric: Metric, kind: str) -> None:
    from deepface.modules.verification import find_distance

    known, faces = vectors(kind)
    theirs = find_distance(known.astype(np.float64), faces.astype(np.float64), metric)
    ours = Matcher(known, metric).distances(faces)
    np.testing.assert_allclose(ours, theirs, atol=2e-6)
    one = find_distance(known[3].astype(np.float64), faces[7].astype(np.float64), metric)
    assert ours[7, 3] == pytest.approx(float(one), abs=2e-6)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("k", [1, 2, 4, 99])
def test_nearest_people_are_those_of_a_loop(metric: Metric, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "_BLOCK_BYTES", 5000)  # several blocks
    known, faces = vectors("Dlib")
    person = np.random.default_rng(2).integers(0, 7, len(known))
    matcher = Matcher(known, metric)
    found = matcher.nearest(faces, person, k)
    distances = matcher.distances(faces)
    assert found.row.shape == (len(faces), min(k, len(set(person.tolist()))))
    for face, row in enumerate(distances):
        best = sorted((row[person == one].min(), one) for one in set(person.tolist()))[:k]
        np.testing.assert_allclose(found.distance[face], [distance for distance, _ in best], atol=1e-7)
        assert person[found.row[face]].tolist() == [one for _, one in best]
        assert found.row[face, 0] == int(row.argmin())


def test_what_is_not_there_is_never_near() -> None:
    known, faces = vectors("Dlib")
    known[4], faces[2] = np.nan, np.nan
    person = np.arange(len(known))
    matcher = Matcher(known, "euclidean_l2")
    assert np.isinf(matcher.distances(faces)[:2, 4]).all()
    for k in (1, 3):
        found = matcher.nearest(faces, person, k)
        assert found.row[2].tolist() == [-1] * k
        assert np.isnan(found.distance[2]).all()
        assert (found.row[[0, 1, 3]] >= 0).all()
        assert 4 not in found.row
    nothing = Matcher(np.full((2, 128), np.nan), "cosine").nearest(faces, np.array([0, 1]), 2)
    assert (nothing.row == -1).all()
    assert np.isnan(nothing.distance).all()


def test_no_faces_and_wrong_words() -> None:
    known, _ = vectors("Dlib")
    found = Matcher(known, "cosine").nearest(np.empty((0, 128), np.float32), np.arange(len(known)), 2)
    assert found.row.shape == found.distance.shape == (0, 2)
    with pytest.raises(UsageError, match="unknown metric 'cosin'; did you mean 'cosine'"):
        checked_metric("cosin")

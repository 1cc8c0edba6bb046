"""The figures of the accuracy receipt against counting by hand."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture
def verification(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    import verification

    return verification


@pytest.fixture
def pairs() -> tuple[np.ndarray, np.ndarray]:
    """Distances of 300 pairs, with ties, and which are of one person."""
    chance = np.random.default_rng(6)
    same = chance.random(300) < 0.5
    return (chance.normal(np.where(same, 4, 7), 2).round(1)), same


def test_area_under_the_curve_counts_every_pair_of_pairs(verification: ModuleType, pairs: tuple) -> None:
    distance, same = pairs
    one, two = distance[same][:, None], distance[~same][None]
    expected = (one < two).mean() + (one == two).mean() / 2
    assert verification.verify(distance, same, 5.0).auc == pytest.approx(expected)


@pytest.mark.parametrize("rate", [0.1, 0.01, 0.001])
def test_false_accepts_never_exceed_the_rate(verification: ModuleType, pairs: tuple, rate: float) -> None:
    distance, same = pairs
    two = distance[~same]
    threshold = verification.at_false_accepts(two, rate)
    assert (two <= threshold).mean() <= rate
    higher = np.unique(two[two > threshold])[0]
    assert (two <= higher).mean() > rate


def test_the_most_accurate_threshold(verification: ModuleType, pairs: tuple) -> None:
    distance, same = pairs
    best = max(verification.accuracy(distance, same, value) for value in np.unique(distance))
    assert verification.accuracy(distance, same, verification.most_accurate(distance, same)) == best


def test_distances_are_deepface_s(verification: ModuleType) -> None:
    from deepface.modules.verification import find_distance

    left, right = np.random.default_rng(7).normal(size=(2, 5, 16))
    for metric in verification.METRICS:
        expected = [find_distance(a.tolist(), b.tolist(), metric) for a, b in zip(left, right, strict=True)]
        np.testing.assert_allclose(verification.distances(left, right, metric), expected, atol=1e-6)  # they round


def test_separable_pairs_give_perfect_figures(verification: ModuleType) -> None:
    distance = np.concatenate([np.linspace(0, 1, 150), np.linspace(2, 3, 150)])
    same = np.arange(300) < 150
    found = verification.verify(distance, same, 1.5)
    assert (found.auc, found.true_accepts_1_percent, found.default_accuracy) == (1, 1, 1)
    for choice in verification.thresholds(distance, same):
        assert choice.true_accepts == 1
        assert choice.other_half_true_accepts == 1
        assert choice.false_accepts <= 0.01


@pytest.mark.slow
def test_the_receipt_itself(
    repository: Path,
    data_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Six photographs of three people, all of which are told apart, and one in which there is no face."""
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path / "none"))
    import accuracy

    people = ("Tony_Blair", "Colin_Powell", "Vladimir_Putin")
    photographs = [f"lfw/{who}/{who}_000{number}.jpg" for who in people for number in (1, 2)] + ["groups/no-faces.jpg"]
    pairs = [(a, b) for index, a in enumerate(photographs) for b in photographs[index + 1 :]]
    lines = [f"{a},{b},{int(Path(a).parent == Path(b).parent)}" for a, b in pairs]
    (tmp_path / "pairs.csv").write_text("\n".join(["path_a,path_b,same", *lines]) + "\n")
    labels = [f"{Path(name).parent.name},{name}" for name in photographs[:6]]
    (tmp_path / "labels.csv").write_text("\n".join(["identity,path", *labels]) + "\n")
    monkeypatch.setattr(accuracy, "REPOSITORY", tmp_path)
    command = ["--faces", str(data_dir / "faces"), "--pairs", str(tmp_path / "pairs.csv"), "--no-stock"]
    command += ["--labels", str(tmp_path / "labels.csv")]
    command += ["--detectors", "mtcnn", "--networks", "Dlib,ArcFace", "--json", str(tmp_path / "accuracy.json")]
    monkeypatch.setattr("sys.argv", ["accuracy.py", *command])
    accuracy.main()
    printed = capsys.readouterr()
    assert "ArcFace, native, left out: weights of ArcFace are missing" in printed.err
    assert "ROC AUC" in printed.out
    rows = json.loads((tmp_path / "accuracy.json").read_text())["rows"]
    assert [row["how"] for row in rows][:2] == ["native", "native, flip"]
    for row in rows[:2]:
        assert (row["photographs"], row["with_face"], row["pairs"], row["pairs_with_faces"]) == (7, 6, 21, 15)
        assert row["by_metric"]["cosine"]["auc"] == 1

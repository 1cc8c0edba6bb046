"""The benchmark of people: clips drawn with the truth that is written beside them, and how faces are counted."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from pipeline.faces.people.evidence import Calibration, Means
from pipeline.media.video.source import VideoOptions, VideoSource


@pytest.fixture
def parade(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    import parade

    return parade


def test_faces_are_drawn_where_the_truth_says(parade: ModuleType, tmp_path: Path) -> None:
    photographs = []
    for k, size in enumerate((200, 900, 300)):  # one of them is shrunk before it is drawn
        picture = np.full((size, size, 3), 60, np.uint8)
        face = (size * 0.4, size * 0.3, size * 0.2, size * 0.25)
        x, y, w, h = (round(value) for value in face)
        picture[y : y + h, x : x + w] = (0, 0, 250)
        cv2.imwrite(str(tmp_path / f"{k}.png"), picture)
        photographs.append(parade.Photograph(tmp_path / f"{k}.png", f"person {k}", face))
    shots = parade.plan_shots(photographs, 3, seed=1)
    assert shots == parade.plan_shots(photographs, 3, seed=1)
    truth = parade.make_clip(tmp_path / "clip.mp4", shots)
    again = parade.Truth.load(parade.truth_path(tmp_path / "clip.mp4"))
    assert (again.frame == truth.frame).all()
    assert again.identity == truth.identity
    source = VideoSource(tmp_path / "clip.mp4", VideoOptions.model_validate({"every": 30}), "pyav")
    assert len(source.index) == shots[-1].stop
    frames = source.job(0, len(source.frame)).decode().frames_rgb
    seen = 0
    for rank, frame in zip(source.frame.tolist(), frames, strict=True):
        for row in np.flatnonzero(truth.frame == rank):
            x, y, w, h = (round(float(value)) for value in truth.box[row])
            inner, whole = frame[y + 4 : y + h - 4, x + 4 : x + w - 4], frame[y - 6 : y + h + 6, x - 6 : x + w + 6]
            assert inner[..., 0].mean() > 200 > 120 > inner[..., 1].mean()
            assert whole[:2, :, 0].mean() < 120 > whole[-2:, :, 0].mean()
            seen += 1
    assert seen > 3


def test_a_detection_is_whom_it_overlaps_most(parade: ModuleType) -> None:
    box = np.array([[0, 0, 100, 100], [200, 0, 100, 100]], np.float32)
    truth = parade.Truth(np.array([5, 5]), box, ["Ann", "Bob"])
    found = np.array([[210, 5, 90, 95], [0, 0, 20, 20], [10, 0, 100, 100]], np.float32)
    frame = np.array([0, 5])
    assert parade.identities_of(truth, frame, np.array([1, 1, 1]), found) == ["Bob", None, "Ann"]
    assert parade.identities_of(truth, frame, np.array([0, 0, 0]), found) == [None] * 3


@pytest.mark.parametrize(
    ("label", "precision", "recall", "people"),
    [
        ([0, 0, 1, 1, 7], 1, 1, 2),
        ([0, 0, 0, 0, 7], 2 / 6, 1, 1),
        ([0, 1, 2, 2, 7], 1, 1 / 2, 3),
        ([-1, -1, 2, 2, -1], 1, 1 / 2, 1),
    ],
    ids=["right", "all one", "one is split", "nobody twice is no pair"],
)
def test_pairs_are_counted(parade: ModuleType, label: list[int], precision: float, recall: float, people: int) -> None:
    import people as bench

    score = bench._score(np.array(label), ["Ann", "Ann", "Bob", "Bob", None], 5, 0, 0.0)
    assert (score.precision, score.recall, score.people) == pytest.approx((precision, recall, people))
    assert score.truth == 2


def test_a_fixed_threshold_names_the_nearest_and_ours_asks_where_two_are_near(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    import strangers

    line = Calibration(base=0.06, per_residual=0.0, per_decade=0.0, spread=0.05)
    angles = np.radians([0.0, 20.0, 10.5])  # two people, and a track between them, somewhat nearer to the second
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    trial = strangers.Trial(Means(vectors[:2], np.ones(2)), Means(vectors[2:], np.ones(1)), np.array([1]))
    fixed = strangers.figures([trial], 2, 1, 1, "fixed", line, 0.06)
    shipped = strangers.figures([trial], 2, 1, 1, "shipped", line)
    assert (fixed["rightly"], shipped["rightly"]) == (100, 0)

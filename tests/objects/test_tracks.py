"""Tracks of objects: on labelled clips, by class, and as the stage stores them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import pipeline
from pipeline.media.tracking import Block, TrackSettings, track_rows, usual_gap
from pipeline.objects.stages.track import TrackObjects, TrackObjectsOptions
from tests.made_objects import make_objects
from tests.objects import walks

MOVING = TrackSettings(min_iou=TrackObjectsOptions().min_iou, by_movement=True)
START = TrackObjectsOptions().start_score


def follow(boxes: list[list[tuple[float, ...]]], step: float = 0.2, label: list[int] | None = None) -> list[int]:
    counts = np.array([len(one) for one in boxes], np.int32)
    rows = np.array([box for one in boxes for box in one], np.float32).reshape(-1, 4)
    labels = None if label is None else np.array(label, np.int32)
    times = np.arange(len(boxes)) * step
    return track_rows([Block(counts, times, rows, None, labels)], MOVING, usual_gap(times)).tolist()


def moving(first: float, by: float, frames: int, width: float = 40) -> list[list[tuple[float, ...]]]:
    return [[(first + by * k, 50, width, 100)] for k in range(frames)]


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        pytest.param(moving(0, 12, 6), [0] * 6, id="slow"),
        pytest.param(moving(0, 30, 6), [0] * 6, id="so fast that boxes hardly overlap"),
        pytest.param(moving(0, 90, 3), [0, 1, 2], id="too fast"),
        pytest.param(moving(0, 12, 3) + [[]] * 3 + moving(72, 12, 2), [0] * 5, id="hidden while it moves on"),
        pytest.param(moving(0, 12, 3) + [[]] * 12 + moving(24, 12, 2), [0] * 3 + [1] * 2, id="away for too long"),
        pytest.param([[(0, 50, 40, 100)], [(0, 50, 40, 100), (12, 50, 40, 100)], [(0, 50, 40, 100), (12, 50, 40, 100)]],
                     [0, 0, 1, 0, 1], id="a second box of one thing does not take its track"),
        pytest.param([[(20.0 * k, 50, 40, 100), (100 - 20.0 * k, 60, 40, 100)] for k in range(6)], [0, 1] * 6,
                     id="two meet and pass"),
        pytest.param([], [], id="no frame"),
    ],
)  # fmt: skip
def test_boxes_are_linked_by_movement(boxes: list[list[tuple[float, ...]]], expected: list[int]) -> None:
    assert follow(boxes) == expected


def test_only_sure_objects_begin_tracks() -> None:
    """Others continue a track or have none."""
    rows = np.array([box for one in moving(0, 5, 5) for box in one], np.float32)
    begins = np.array([False, True, False, False, True])
    block = Block(np.ones(5, np.int32), np.arange(5) * 0.2, rows, None, begins=begins)
    assert track_rows([block], MOVING, 0.2).tolist() == [-1, 0, 0, 0, 0]


def test_a_track_has_one_class() -> None:
    assert follow(moving(0, 2, 4), label=[0, 0, 1, 1]) == [0, 0, 1, 1]
    assert follow([[(0, 0, 40, 90), (2, 0, 40, 90)]] * 3, label=[0, 1, 1, 0, 0, 1]) == [0, 1, 1, 0, 0, 1]


@pytest.mark.parametrize(
    ("clip", "idf1", "switches", "tracks"), [(walks.ONE_BY_ONE, 0.959, 5, 11), (walks.PAUSE, 0.991, 0, 3)]
)
def test_identities_on_labelled_walks(clip: str, idf1: float, switches: int, tracks: int) -> None:
    """A person who turns at the table, or whose legs alone are found, gets a second track now and then."""
    frames, fps = walks.FRAMES[clip]
    boxes, times = walks.detections(clip), np.array(frames) / fps
    counts = np.array([len(one) for one in boxes], np.int32)
    rows = np.concatenate(boxes)
    block = Block(counts, times, rows[:, :4].astype(np.float32), None, begins=rows[:, 4] >= START)
    made = track_rows([block], MOVING, usual_gap(times))
    known, cuts = walks.labels(clip), np.cumsum(counts)[:-1]
    found = walks.identity([known.get(k, {}) for k in frames], np.split(rows[:, :4], cuts), np.split(made, cuts))
    assert found[0] >= idf1
    assert (found[1], int(made.max()) + 1) <= (switches, tracks)


def test_the_stage_reads_a_stored_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_objects(tmp_path / "street.zarr", 40)
    item = pipeline.open(tmp_path / "street.zarr").input("street")
    stage = TrackObjects(TrackObjectsOptions(max_gap_seconds=5.0, start_score=None))
    assert "score" not in stage.needs
    track = np.asarray(stage.run_input(item)["track"])
    assert track.dtype == np.int32
    assert len(track) == len(made["box"])
    first = [track.tolist().index(number) for number in range(track.max() + 1)]
    assert first == sorted(first)
    assert len(np.unique(track)) < len(track), "boxes at random places, some of them near"
    for number in range(int(track.max()) + 1):
        assert len(np.unique(made["class"][track == number])) == 1
    sure = np.asarray(TrackObjects(TrackObjectsOptions(max_gap_seconds=5.0)).run_input(item)["track"])
    lone = [number for number in range(int(track.max()) + 1) if (track == number).sum() == 1]
    weak = np.isin(track, lone) & ~(made["score"] >= 0.4)
    assert weak.any()
    assert (sure[weak] == -1).all()
    assert (sure[made["score"] >= 0.4] >= 0).all()
    monkeypatch.setattr("pipeline.objects.stages.track.FRAMES_AT_ONCE", 7)
    np.testing.assert_array_equal(np.asarray(stage.run_input(item)["track"]), track)
    pictures = make_objects(tmp_path / "photos.zarr", 20, timed=False)
    item = pipeline.open(tmp_path / "photos.zarr").input("street")
    assert np.asarray(stage.run_input(item)["track"]).tolist() == list(range(len(pictures["box"])))

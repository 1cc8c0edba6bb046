"""Appearances along time, and who a face is called."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pipeline
from pipeline.errors import StoreError
from pipeline.faces.people.appearances import appearances
from pipeline.faces.people.labels import Labels, choose, labels
from pipeline.faces.people.moments import Moments
from pipeline.media.spans import item_seconds, sampled_seconds, seconds_of, stop_of
from pipeline.store.schema import Array
from tests.made_stores import faces_of, make_store, people

TIMES = np.arange(20) * 0.2


def test_frames_stand_until_the_next_one() -> None:
    assert item_seconds(np.array([1.0, 1.2, 1.4, 9.0, 9.2])) == pytest.approx([0.2, 0.2, 0.6, 0.2, 0.2])
    assert item_seconds(np.array([3.0])).tolist() == [0.0]
    assert len(item_seconds(np.empty(0))) == 0


def test_key_frames_of_a_complete_input_stand_until_the_next_one(tmp_path: Path) -> None:
    """A half-done input may lack the frames between two that lie far apart."""
    times, rank = np.array([0.0, 0.4, 0.8, 1.2, 11.2, 11.6]), np.array([0, 10, 20, 30, 280, 290])
    assert item_seconds(times, rank=rank) == pytest.approx([0.4, 0.4, 0.4, 10.0, 0.4, 0.4])
    paused = np.array([0, 10, 20, 30, 40, 50])  # nothing was recorded for 10 seconds: no face is on screen in them
    assert item_seconds(times, rank=paused) == pytest.approx([0.4, 0.4, 0.4, 1.2, 0.4, 0.4])
    found = {}
    for name, done in (("whole", None), ("half", 1)):
        moments, arrays = {"clip": times}, faces_of(np.ones(6, int), people(1, 6).reshape(-1, 128))
        out = make_store(
            tmp_path / name, {"clip": arrays}, moments=moments, ranks={"clip": rank}, chunk_frames=5, done_chunks=done
        )  # fmt: skip
        item = pipeline.open(out).input("clip")
        found[name] = Moments(item).appearances(np.arange(len(item.array("face_frame"))), None)
    assert [one.screen_seconds for one in found["whole"]] == pytest.approx([12.0])
    assert [one.screen_seconds for one in found["half"]] == pytest.approx([2.4, 0.4])


def test_the_last_frame_stands_until_the_end_at_most() -> None:
    times = np.array([1.0, 1.2, 1.4])
    assert item_seconds(times, 1.45) == pytest.approx([0.2, 0.2, 0.05])
    assert item_seconds(times, 9.0) == pytest.approx([0.2, 0.2, 0.2])
    assert item_seconds(times, 1.0)[-1] == 0.0
    assert stop_of({"start_seconds": 0.5, "duration_seconds": 4.2}) == pytest.approx(4.7)
    assert stop_of({}) is None


@pytest.mark.parametrize(
    ("facts", "sampled", "stands"),
    [
        ({"fps": 25.0, "every": 5}, 0.2, 0.2),
        ({"fps": 25.0, "every": 5, "start_seconds": 0.0, "duration_seconds": 3.1}, 0.2, 0.1),
        ({"fps": 25.0, "every": 9000, "start_seconds": 0.0, "duration_seconds": 8.0}, 360.0, 5.0),
        ({"fps": 25.0, "every": None, "sample_fps": 2.0, "start_seconds": 0.0, "duration_seconds": 8.0}, 0.5, 0.5),
        ({"keyframes": True, "key_frames": 4, "start_seconds": 0.0, "duration_seconds": 8.0}, 2.0, 2.0),
        ({"start_seconds": 0.0, "duration_seconds": 8.0}, None, 5.0),
        ({}, None, 0.0),
    ],
    ids=["every", "until the end", "rarely", "fps", "keyframes", "end alone", "nothing known"],
)
def test_a_single_frame_stands_as_long_as_it_is_sampled(
    facts: dict[str, float], sampled: float | None, stands: float
) -> None:
    assert sampled_seconds(facts) == pytest.approx(sampled)
    assert seconds_of(facts, np.array([3.0])) == pytest.approx([stands])


def test_short_gaps_do_not_end_an_appearance() -> None:
    frame = np.array([2, 3, 6, 19])
    first, second = appearances(frame, TIMES, longest_gap_seconds=1.0)
    assert (first.first_frame, first.last_frame, first.frames) == (2, 6, 3)
    assert (first.start_seconds, first.stop_seconds) == pytest.approx((0.4, 1.4))
    assert first.screen_seconds == pytest.approx(0.6)
    assert (second.first_frame, second.frames) == (19, 1)
    assert appearances(np.empty(0, np.int64), TIMES) == []


def test_a_gap_ends_an_appearance_if_the_track_does() -> None:
    """A cut to another person for a moment: the appearance ends there."""
    frame = np.array([0, 1, 2, 5, 6])
    (one,) = appearances(frame, TIMES, np.array([4, 4, 4, 4, 4]))
    assert (one.first_frame, one.last_frame) == (0, 6)
    first, second = appearances(frame, TIMES, np.array([4, 4, 4, 7, 7]))
    assert (first.last_frame, second.first_frame) == (2, 5)
    assert first.stop_seconds == pytest.approx(0.6)
    neighbours = appearances(np.array([0, 1, 2, 3]), TIMES, np.array([4, 4, 7, 7]))
    assert len(neighbours) == 1, "no frame without the person lies between"
    mirrored = appearances(np.array([0, 1, 1, 4]), TIMES, np.array([4, 4, 8, 8]))
    assert len(mirrored) == 1, "one of two faces of a frame goes on"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    embedding = people(3, 4).reshape(-1, 128)
    extra = (
        Array("person", ("face",), "int32", attributes={"registry": "../people.json", "names": {"1": "Old"}}),
        Array("identity", ("face",), "int32", attributes={"names": ["Ann", "Bob", "Ann"]}),
    )
    arrays = faces_of(
        np.full(6, 2), embedding,
        person=np.array([1, 2, 1, 2, 1, 5, 1, -1, 1, 5, 1, 5], np.int32),
        identity=np.array([0, 1, 2, -1] * 3, np.int32),
    )  # fmt: skip
    return make_store(tmp_path / "a.zarr", {"clip": arrays}, extra=extra)


def test_the_registry_has_the_last_word(store: Path) -> None:
    item = pipeline.open(store).input("clip")
    assert labels(item, "person").names == {1: "Old", 2: "person 2", 5: "person 5"}
    (store.parent / "people.json").write_text(json.dumps({"people": {"2": {"name": "Cy"}}, "merged": {"5": 2}}))
    found = labels(item, "person")
    assert (found.names, found.named) == ({1: "person 1", 2: "Cy"}, {2})
    assert found.code.tolist() == [1, 2, 1, 2, 1, 2, 1, -1, 1, 2, 1, 2]


def test_a_gallery_names_the_people_without_a_name(store: Path) -> None:
    """`find --gallery` after `people`: reports, films and exports show its names, but the user's own come first."""
    (store.parent / "people.json").write_text(json.dumps({"people": {"1": {"name": "Cy"}, "5": {}}}))
    found = labels(pipeline.open(store).input("clip"))
    assert found.code.tolist() == [1, -3, 1, 2, 1, -3, 1, -1, 1, -3, 1, 5]
    assert found.names == {1: "Cy", 2: "person 2", 5: "person 5", -3: "Bob"}
    assert found.named == {1, -3}
    assert [found.is_of_gallery(code) for code in (1, -1, -3)] == [False, False, True]


def test_a_gallery_and_the_user_mean_one_person_by_one_name(store: Path) -> None:
    """Reports, exports and clips take the same faces: all that bear the name, and none that has another."""
    (store.parent / "people.json").write_text(json.dumps({"people": {"1": {"name": "Cy"}, "2": {"name": "BOB"}}}))
    item = pipeline.open(store).input("clip")
    found = labels(item)
    assert (found.names, found.named) == ({1: "Cy", 2: "BOB", 5: "person 5"}, {1, 2})
    assert found.code.tolist() == [1, 2, 1, 2, 1, 2, 1, -1, 1, 2, 1, 5]
    (chosen,) = choose([item], "Bob")
    assert chosen.rows.tolist() == (found.code == 2).tolist()
    (store.parent / "people.json").write_text(json.dumps({"people": {"1": {"name": "Cy"}, "2": {"name": "Ann"}}}))
    assert choose([item], "Ann")[0].rows.tolist() == (labels(item).code == 2).tolist(), "the others are Cy"
    assert choose([item], "Ann", overruled=True)[0].rows.sum() == 8, "to blur too many is safe"
    both = {"1": {"name": "Cy"}, "2": {"name": "Bob"}, "5": {"name": "Bob"}}
    (store.parent / "people.json").write_text(json.dumps({"people": both}))
    assert labels(item).code.tolist() == [1, 2, 1, 2, 1, 5, 1, -1, 1, 5, 1, 5]


def test_the_registry_of_other_people_says_nothing(tmp_path: Path) -> None:
    extra = (Array("person", ("face",), "int32", attributes={
        "registry": "../people.json", "registry_id": "ours", "names": {"1": "Ann"},
    }),)  # fmt: skip
    arrays = faces_of(np.full(3, 1), people(1, 3)[0], person=np.ones(3, np.int32))
    out = make_store(tmp_path / "a.zarr", {"clip": arrays}, extra=extra)
    theirs = {"id": "theirs", "people": {"1": {"name": "Bob"}}}
    (tmp_path / "people.json").write_text(json.dumps(theirs))
    assert labels(pipeline.open(out).input("clip")).names == {1: "Ann"}
    (tmp_path / "people.json").write_text(json.dumps({**theirs, "id": "ours"}))
    assert labels(pipeline.open(out).input("clip")).names == {1: "Bob"}


def test_rows_of_a_gallery_are_one_person_by_name(store: Path) -> None:
    found = labels(pipeline.open(store).input("clip"), "identity")
    assert found.code.tolist() == [0, 1, 0, -1] * 3
    assert found.names == {0: "Ann", 1: "Bob"}


def test_damaged_registry(store: Path) -> None:
    (store.parent / "people.json").write_text("{")
    with pytest.raises(StoreError, match=r"registry .*people\.json cannot be read"):
        labels(pipeline.open(store).input("clip"))


def test_faces_without_labels_are_unknown(tmp_path: Path) -> None:
    out = make_store(tmp_path / "b.zarr", {"clip": faces_of(np.full(3, 1), people(1, 3)[0])})
    found = labels(pipeline.open(out).input("clip"))
    assert (found.source, found.code.tolist(), found.names) == ("none", [-1, -1, -1], {})


def test_films_write_the_name_and_on_request_how_sure_it_is(tmp_path: Path) -> None:
    from pipeline.faces.views.annotate import _descriptions

    extra = (
        Array("identity", ("face",), "int32", attributes={"names": ["Ann"]}),
        Array("identity_level", ("face",), "int8", attributes={"levels": ["none", "weak", "likely", "sure"]}),
    )
    arrays = faces_of(
        np.full(4, 1), people(1, 4)[0],
        identity=np.array([0, 0, -1, -1], np.int32), identity_level=np.array([3, 2, 1, 0], np.int8),
    )  # fmt: skip
    item = pipeline.open(make_store(tmp_path / "a.zarr", {"clip": arrays}, extra=extra)).input("clip")
    assert "confidence" in item.arrays
    who = labels(item)
    describe = _descriptions(item, who, levels=True)
    assert [describe(row) for row in range(4)] == ["sure", "likely", "", ""]
    describe = _descriptions(item, who, levels=False)
    assert [describe(row) for row in range(4)] == [""] * 4, "the detector's confidence would be read as the name's"
    assert _descriptions(item, replace(who, source="none"), levels=False)(0) != ""


def test_people_whom_a_gallery_calls_unknown_are_blurred_as_such() -> None:
    from pipeline.faces.views.annotate import _hidden

    class Faces(list[int]):
        track = np.arange(3)

    who = Labels("identity", np.array([0, 1, -1], np.int32), {0: "Ann", 1: "Unknown"}, frozenset({0, 1}))
    hidden = _hidden(Faces(range(3)), who, np.zeros(3, bool), ["unknown"])  # type: ignore[arg-type]
    assert hidden.tolist() == [False, True, True]

"""Tracks: linked by place and look, the same however the frames are handed over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pipeline
from pipeline.faces.stages.track import Track, TrackOptions, track_input
from pipeline.media.tracking import Block, TrackSettings, track_rows, usual_gap
from tests.made_stores import faces_of, make_store, people

LIMIT = 0.54
PERSON = people(6, 200)


def block(
    frames: list[list[tuple[float, float, int]]], step: float = 0.2, vectors: bool = True, size: float = 60
) -> Block:
    """Frames of faces (x, y, person); a person's faces differ a little from one another. Person -1 has no embedding."""
    faces = [(k, face) for k, frame in enumerate(frames) for face in frame]
    box = np.array([[x, y, size, size] for _, (x, y, _) in faces], np.float32).reshape(-1, 4)
    look = np.array(
        [PERSON[who, k % 200] if who >= 0 else np.full(128, np.nan) for k, (_, _, who) in faces], np.float32
    )
    return Block(
        np.array([len(frame) for frame in frames], np.int32),
        np.arange(len(frames)) * step,
        box,
        look.reshape(-1, 128) if vectors else None,
    )


def follow(one: Block, **settings: float) -> list[int]:
    limit = LIMIT if one.vectors is not None else np.inf
    made = TrackSettings(**{"max_distance": limit, **settings})
    return track_rows([one], made, usual_gap(one.time_seconds)).tolist()


STAYS = [[(100.0 + 5 * k, 80.0, 0)] for k in range(6)]


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        pytest.param(STAYS, [0] * 6, id="one who moves slowly"),
        pytest.param([[(100, 80, 0)]] * 3 + [[(100, 80, 1)]] * 3, [0] * 3 + [1] * 3, id="a cut: another there"),
        pytest.param([[(100, 80, 0)]] * 2 + [[]] * 5 + [[(110, 84, 0)]] * 2, [0] * 4, id="hidden for 1.2 s"),
        pytest.param([[(100, 80, 0)]] * 2 + [[]] * 14 + [[(100, 80, 0)]], [0, 0, 1], id="away for 3 s"),
        pytest.param([[(100, 80, 0)]] * 2 + [[(800, 500, 0)]] * 2, [0, 0, 1, 1], id="the other end of the picture"),
        pytest.param([[(100, 80, 0)], [(208, 80, 0)]], [0, 1], id="farther than anybody moves in 0.2 s"),
        pytest.param([[(100, 80, 0)]] + [[]] * 5 + [[(208, 80, 0)]], [0, 0], id="as far, but in 1.2 s"),
        pytest.param([[(100, 80, 0), (300, 80, 1)]] * 3, [0, 1] * 3, id="two side by side"),
        pytest.param([[(100, 80, 0), (130, 80, 1)], [(132, 80, 0), (98, 80, 1)]], [0, 1, 0, 1], id="two change places"),
        pytest.param([[(100, 80, 0), (104, 82, 0)]] * 2, [0, 1] * 2, id="never two faces of a frame in one track"),
        pytest.param([[(100, 80, 0)], [(102, 80, -1)], [(104, 80, 0)]], [0] * 3, id="a face without embedding"),
        pytest.param([[], [(1, 1, 0)], []], [0], id="frames without faces"),
        pytest.param([[]] * 3, [], id="no face at all"),
    ],
)  # fmt: skip
def test_tracks(frames: list[list[tuple[float, float, int]]], expected: list[int]) -> None:
    assert follow(block(frames)) == expected


def test_without_embeddings_the_place_decides() -> None:
    assert follow(block([[(100, 80, 0)]] * 3 + [[(100, 80, 1)]] * 3, vectors=False)) == [0] * 6
    assert follow(block([[(100, 80, 0)], [(400, 80, 0)]], vectors=False)) == [0, 1]


def test_sparse_frames_are_still_linked() -> None:
    assert follow(block(STAYS, step=4.0)) == [0] * 6
    assert follow(block([STAYS[0], [], STAYS[1]], step=4.0)) == [0, 1]


def test_a_poor_pair_is_not_forced_to_make_room_for_another() -> None:
    """Face 0 stays where track 0 is; face 1 is new and beside track 0, while track 1 is gone."""
    one = block([[(100, 80, 0), (160, 80, 0)], [(100, 80, 0), (20, 80, 0)]])
    assert follow(one)[2] == 0


def shots(*lengths: int, apart: float = 0.45, varies: float = 0.03) -> Block:
    """Faces at one place, in shots of some frames: `apart` from one shot to the next, `varies` within one."""
    look = np.zeros((sum(lengths), 128), np.float32)
    look[:, 0] = np.repeat(np.arange(len(lengths)) % 2 * apart, lengths)
    look[np.arange(len(look)), 1 + np.arange(len(look)) % 9] += varies / np.sqrt(2)
    return replace(block([[(100, 80, -1)]] * len(look), step=0.1), vectors=look)


@pytest.mark.parametrize(
    ("faces", "expected"),
    [
        pytest.param(shots(3, 4), [3, 4], id="a cut to a person who looks alike"),
        pytest.param(shots(4, 3, 4), [4, 3, 4], id="there and back"),
        pytest.param(shots(3, 3, 3, 3, 3), [3] * 5, id="many cuts"),
        pytest.param(shots(1, 3), [1, 3], id="only the second person stays"),
        pytest.param(shots(1, 1), [1, 1], id="nothing else to compare with"),
        pytest.param(shots(4, 4, apart=0.45, varies=0.25), [8], id="a face that varies about as much all the time"),
        pytest.param(shots(4, 4, apart=0.37), [8], id="a step that one face may make"),
    ],
)
def test_a_track_is_split_where_its_embedding_jumps(faces: Block, expected: list[int]) -> None:
    assert np.bincount(follow(faces)).tolist() == expected


def test_any_cut_into_blocks_gives_the_same_tracks() -> None:
    rng = np.random.default_rng(3)
    frames = []
    for _ in range(150):
        who = rng.permutation(6)[: rng.integers(0, 5)].tolist()
        frames.append([(float(rng.integers(0, 900)), float(rng.integers(0, 300)), k) for k in who])
    whole = block(frames, size=200)
    expected = follow(whole)
    assert 5 < len(set(expected)) < len(expected)
    edges = np.concatenate([[0], np.cumsum(whole.n_rows)])
    for length in (1, 7, 64):
        assert whole.vectors is not None
        blocks = [
            Block(
                whole.n_rows[k : k + length],
                whole.time_seconds[k : k + length],
                whole.box[edges[k] : edges[min(k + length, 150)]],
                whole.vectors[edges[k] : edges[min(k + length, 150)]],
            )
            for k in range(0, 150, length)
        ]
        made = track_rows(blocks, TrackSettings(max_distance=LIMIT), usual_gap(whole.time_seconds))
        assert made.tolist() == expected
    first = [expected.index(track) for track in range(max(expected) + 1)]
    assert first == sorted(first), "numbered in order of first appearance"


def test_the_stage_reads_a_stored_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n_faces = np.full(130, 2)
    embedding = PERSON[:2, :130].transpose(1, 0, 2).reshape(-1, 128)
    item = pipeline.open(make_store(tmp_path / "a.zarr", {"clip": faces_of(n_faces, embedding)})).input("clip")
    made = Track(TrackOptions()).run_input(item)["track"]
    assert made.dtype == np.int32
    assert made.tolist() == [0, 1] * 130
    monkeypatch.setattr("pipeline.faces.stages.track.FRAMES_AT_ONCE", 7)
    assert track_input(item, TrackOptions()).tolist() == [0, 1] * 130
    by_place = Track(TrackOptions(use_embedding=False))
    assert "embedding" not in by_place.needs
    assert by_place.run_input(item)["track"].tolist() == [0, 1] * 130
    nothing = make_store(tmp_path / "b.zarr", {"clip": faces_of(np.zeros(4, int), np.empty((0, 128)))})
    assert len(track_input(pipeline.open(nothing).input("clip"), TrackOptions())) == 0


@pytest.mark.slow
def test_the_same_tracks_whatever_the_chunks(
    tmp_path: Path, data_dir: Path, workflows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hard cuts between people, a real clip: chunks of 10 frames beside one that holds all."""
    clip = data_dir / "videos" / "derived" / "asl_parade_dev.mp4"
    found = []
    for length, chunks in ((10, 5), (1000, 1)):
        monkeypatch.setattr("pipeline.engine.source.MAX_CHUNK_FRAMES", length)
        monkeypatch.setattr(
            "pipeline.engine.plan.choose_chunk_items",
            lambda source, asked=None, most=length: min(most, len(source.frame)),
        )
        run = pipeline.run(
            workflows / "people.yaml",
            [clip],
            out=tmp_path / f"{length}.zarr",
            executor="inline",
            set={"detect.min_face": 60},
        )
        item = run.input("asl_parade_dev")
        assert item.chunks["total"] == chunks
        found.append(item.read(["track", "box", "frame", "face_frame"]))
    assert (found[0]["box"] == found[1]["box"]).all()
    assert found[0]["track"].tolist() == found[1]["track"].tolist()
    ranks = found[0]["frame"][found[0]["face_frame"]]
    shots = np.digitize(ranks, [58, 109, 177])
    assert found[0]["track"].tolist() == shots.tolist(), "a track for each shot: another at each cut, none in between"

"""Best shots: which faces, and what is cut from the video."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import pipeline
from pipeline.faces.people.gather import GatherOptions, gather
from pipeline.faces.people.thumbnails import SIDE, best_shots, crop
from pipeline.media.video.decode import Decoded, VideoDecodeJob
from pipeline.media.video.source import VideoOptions, VideoSource
from tests.clips import write_clip
from tests.made_stores import faces_of, make_store, people

EVERY = 5


def test_the_best_that_are_apart_in_time() -> None:
    person = np.array([2, 2, 2, 2, 2, 1, -1, 2], np.int32)
    score = np.array([0.5, 0.9, 0.8, 0.2, 0.1, 0.3, 1.0, 0.4])
    times = np.array([0.0, 3.0, 3.5, 6.0, 9.0, 1.0, 1.0, 12.0])
    assert best_shots(person, score, times).tolist() == [5, 1, 0, 7]
    assert len(best_shots(np.full(2, -1, np.int32), score[:2], times[:2])) == 0


@pytest.mark.parametrize("side", [40, 200], ids=["enlarged", "shrunk"])
def test_a_square_around_the_box(side: int) -> None:
    """The face's middle is the crop's middle, also at the border, where the picture's edge goes on."""
    frame = np.zeros((400, 600, 3), np.uint8)
    frame[:, 300:] = 200
    cut = crop(frame, np.array([300 - side / 2, 200 - side / 2, side, side]))
    assert cut.shape == (SIDE, SIDE, 3)
    assert cut[:, : SIDE // 2 - 2].max() == 0
    assert cut[:, SIDE // 2 + 2 :].min() == 200
    corner = crop(frame, np.array([600 - side / 2, 400 - side / 2, side, side]))
    assert (corner == 200).all()


@pytest.mark.parametrize("box", [[-50, -50, 10, 10], [700, 500, 20, 30], [-4000, -4000, 9000, 9000], [5, 5, 0, 0]])
def test_a_crop_of_a_box_beyond_the_frame(box: list[float]) -> None:
    frame = np.full((400, 600, 3), 90, np.uint8)
    cut = crop(frame, np.array(box, np.float32))
    assert cut.shape == (SIDE, SIDE, 3)
    assert (cut == 90).all()


def store_of(clip: Path, out: Path) -> Path:
    """One person, at a place that moves, in every 5th frame of a clip; somebody else in the last ones too."""
    source = VideoSource(clip, VideoOptions.model_validate({"every": EVERY}), "pyav")
    n = len(source.frame)
    n_faces = np.where(np.arange(n) < n - 5, 1, 2)
    look = people(2, int(n_faces.sum()))
    second = np.concatenate([[0] * (n - 5), [0, 1] * 5]).astype(int)
    box = np.tile(np.array([40, 55, 50, 50], np.float32), (len(second), 1))
    box[second == 1] = [150, 60, 40, 40]
    embedding = look[second, np.arange(len(second))]
    facts = {**source.facts, "path": str(clip)}
    return make_store(out, {"clip": faces_of(n_faces, embedding, box)}, facts=facts)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """120 frames whose grey, below the upper quarter, says which one it is."""
    return write_clip(tmp_path / "clip.mp4", 120, (240, 120))


def test_shots_are_decoded_from_the_video(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.media.reread.BATCH_BYTES", 1)
    out = store_of(clip, tmp_path / "one.zarr")
    found = gather([out])
    assert found.notes == []
    item = pipeline.open(out).input("clip")
    arrays = item.read(["thumbnail", "thumbnail_face", "person", "face_frame", "frame"])
    assert arrays["thumbnail"].shape == (len(arrays["thumbnail_face"]), SIDE, SIDE, 3)
    assert arrays["person"][arrays["thumbnail_face"]].tolist() == [1, 1, 1, 2]
    ranks = arrays["frame"][arrays["face_frame"][arrays["thumbnail_face"]]]
    assert arrays["thumbnail"].mean((1, 2, 3)) == pytest.approx(20 + 200 * ranks // 120, abs=3)
    before = (out / "clip" / "thumbnail" / "zarr.json").stat().st_mtime_ns
    gather([out])
    assert (out / "clip" / "thumbnail" / "zarr.json").stat().st_mtime_ns == before


def test_without_the_video_there_is_a_note(clip: Path, tmp_path: Path) -> None:
    out = store_of(clip, tmp_path / "one.zarr")
    moved = shutil.move(clip, tmp_path / "elsewhere.mp4")
    found = gather([out])
    assert found.notes == [f"clip: no thumbnails ({clip}: the video is missing)"]
    assert "thumbnail" not in pipeline.open(out).input("clip").arrays
    assert gather([out], options=GatherOptions(thumbnails=False)).notes == []
    clip.write_bytes(Path(moved).read_bytes()[:-10])
    assert "the video has changed since it was analysed" in gather([out]).notes[0]
    shutil.copy(moved, clip)
    assert gather([out]).notes == []
    assert len(pipeline.open(out).input("clip").array("thumbnail")) == 4


def test_people_who_change_get_other_shots(clip: Path, tmp_path: Path) -> None:
    out = store_of(clip, tmp_path / "one.zarr")
    gather([out])
    gather([out], options=GatherOptions(again=True, min_faces=6))
    assert len(pipeline.open(out).input("clip").array("thumbnail_face")) == 3
    clip.unlink()
    gather([out], options=GatherOptions(again=True))
    item = pipeline.open(out).input("clip")
    assert len(item.array("thumbnail")) == 0, "no shots of people as they were before"
    assert json.loads((tmp_path / "people.json").read_text())["next_id"] == 4


def test_a_frame_that_cannot_be_read_again_has_no_picture(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    sound = VideoDecodeJob.decode

    def without_the_first(self: VideoDecodeJob, threads: int = 1) -> Decoded:
        found = sound(self, threads)
        return replace(found, decoded=found.decoded & (np.arange(len(found.decoded)) > 0))

    monkeypatch.setattr(VideoDecodeJob, "decode", without_the_first)
    out = store_of(clip, tmp_path / "one.zarr")
    gather([out])
    arrays = pipeline.open(out).input("clip").read(["thumbnail", "thumbnail_face"])
    assert len(arrays["thumbnail"]) == len(arrays["thumbnail_face"]) == 3
    assert arrays["thumbnail"].mean((1, 2, 3)).min() > 15  # none is black

"""The demo clip: its frames, its truth, and that the faces are where the truth says."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.faces.demo import COUNTER_BITS, COUNTER_BLOCK_PIXELS, PEOPLE, DemoTruth, make_demo_clip, truth_path

av = pytest.importorskip("av")
pytest.importorskip("skimage")
pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoTruth:
    return make_demo_clip(tmp_path_factory.mktemp("demo") / "clip.mp4", seconds=6, size=(640, 360))


@pytest.fixture(scope="module")
def frames(demo: DemoTruth) -> np.ndarray:
    with av.open(str(demo.path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def read_counter(frame_rgb: np.ndarray) -> int:
    block = COUNTER_BLOCK_PIXELS
    row = frame_rgb[-2 * block + block // 2, :, 1]
    bits = [int(row[block + bit * block + block // 2] > 128) for bit in range(COUNTER_BITS)]
    return int("".join(map(str, bits)), 2)


def test_every_frame_carries_its_number(demo: DemoTruth, frames: np.ndarray) -> None:
    assert frames.shape == (demo.n_frames, 360, 640, 3) == (150, 360, 640, 3)
    assert [read_counter(frame) for frame in frames] == list(range(150))


def test_stream_has_key_frames_where_chunks_need_them(demo: DemoTruth) -> None:
    with av.open(str(demo.path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.average_rate) == ("h264", 25)
        keys = sorted(
            round(float(p.pts * p.time_base) * 25)
            for p in container.demux(stream)
            if p.is_keyframe and p.dts is not None
        )
    assert [key - keys[0] for key in keys] == [0, 50, 100]


def test_truth_is_saved_beside_the_clip(demo: DemoTruth) -> None:
    assert truth_path(demo.path).name == "clip.truth.json"
    loaded = DemoTruth.load(truth_path(demo.path))
    assert (loaded.path, loaded.fps, loaded.size, loaded.people) == (demo.path, demo.fps, demo.size, demo.people)
    np.testing.assert_allclose(loaded.box, demo.box, atol=0.006)
    np.testing.assert_allclose(loaded.visibility, demo.visibility, atol=6e-5)


def test_the_clip_has_something_to_tell(demo: DemoTruth) -> None:
    whole = (demo.visibility == 1).sum(1)
    gone = (demo.visibility == 0).all(1)
    for share, what in ((gone, "none"), (whole == 1, "one"), (whole == 2, "both")):
        assert share.mean() > 0.1, what


def test_paths_are_smooth(demo: DemoTruth) -> None:
    centre = demo.box[..., :2] + demo.box[..., 2:] / 2
    seen = (demo.visibility[1:] > 0) & (demo.visibility[:-1] > 0)
    step = np.linalg.norm(np.diff(centre, axis=0), axis=-1)[seen]
    assert step.max() < 0.05 * demo.size[0], "a face jumps"
    overlap = (demo.box[:, 0, 0] + demo.box[:, 0, 2] > demo.box[:, 1, 0]) & (demo.visibility > 0).all(1)
    assert not overlap.any(), "a face hides the other"


def test_faces_are_where_the_truth_says(demo: DemoTruth, frames: np.ndarray) -> None:
    """The photograph's own face, scaled to the box, matches the picture there better than 4 pixels aside."""
    import cv2

    from pipeline.faces.demo import _photographs

    photographs = _photographs()
    checked = 0
    for index in range(0, len(frames), 7):
        for person, photograph, box, seen in zip(
            PEOPLE, photographs, demo.box[index], demo.visibility[index], strict=True
        ):
            if seen < 1 or box[:2].min() < 5 or (box[:2] + box[2:] > np.array(demo.size) - 5).any():
                continue
            x, y, w, h = (round(v) for v in person.face)
            face = cv2.resize(
                photograph[y : y + h, x : x + w], None, fx=box[3] / h, fy=box[3] / h, interpolation=cv2.INTER_AREA
            )
            left, top = (round(float(v)) for v in box[:2])
            errors = {
                shift: np.abs(
                    frames[index, top : top + face.shape[0], left + shift : left + shift + face.shape[1]].astype(float)
                    - face
                ).mean()
                for shift in (-4, 0, 4)
            }
            assert errors[0] == min(errors.values()), (index, person.name, errors)
            assert errors[0] < 14, (index, person.name, errors)
            checked += 1
    assert checked >= 10


def test_the_same_clip_every_time(tmp_path: Path) -> None:
    clips = [make_demo_clip(tmp_path / name / "clip.mp4", seconds=1, size=(320, 240)).path for name in "ab"]
    assert clips[0].read_bytes() == clips[1].read_bytes()
    assert sorted(p.name for p in clips[0].parent.iterdir()) == ["clip.mp4", "clip.truth.json"]


@pytest.mark.parametrize("missing", ["skimage.data", "matplotlib"])
def test_missing_photographs_name_the_extra(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InputError, match=r'pip install "reelgraph\[demo\]"'):
        make_demo_clip(tmp_path / "clip.mp4")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("size", "seconds"), [((321, 240), 1), ((64, 64), 1), ((320, 240), 0)], ids=["odd", "small", "empty"]
)
def test_impossible_clips_are_refused(size: tuple[int, int], seconds: float, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="demo clip of"):
        make_demo_clip(tmp_path / "clip.mp4", seconds=seconds, size=size)

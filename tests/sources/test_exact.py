"""Ranks, times and pixels equal those of a plain walk through the file, however it is cut and ordered."""

import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pipeline.media.video.choice import why_not_decord
from pipeline.media.video.source import VideoOptions, VideoSource

from .conftest import RECIPES, Truth, checksum, read_number, trim_by_edit_list, walk

LIMIT = 280
"""Frames of each clip that are compared; more than the default distance between key frames (250)."""
LARGE = 60_000_000
"""Pixels of the compared frames above which a clip is decoded by one plan only, to save time."""
_FOLDER = Path(os.environ.get("REELGRAPH_DATA", Path(__file__).parents[3] / "shared" / "data")) / "videos"
_CLIPS = sorted(
    str(path.relative_to(_FOLDER))
    for path in _FOLDER.rglob("*")
    if path.suffix in {".mp4", ".mkv", ".webm", ".mov", ".gif"}
)
DAMAGED = "dec_corrupted.mp4"


def chunks(source: VideoSource, length: int) -> list[tuple[int, int]]:
    n = int(np.searchsorted(source.frame, LIMIT))
    return [(a, min(n, a + length)) for a in range(0, n, length)]


def compare(source: VideoSource, truth: Truth, length: int, order: str) -> None:
    """Decode all chunks "in order", "shuffled" or from 4 "threads", and compare every pixel."""
    cut = chunks(source, length)
    if order == "shuffled":
        random.Random(7).shuffle(cut)
    workers = 4 if order == "threads" else 1
    with ThreadPoolExecutor(workers) as pool:
        results = list(pool.map(lambda c: source.job(*c).decode(threads=1), cut))
    for (start, stop), result in zip(cut, results, strict=True):
        assert result.decoded.all(), result.error
        assert result.error is None
        got = [checksum(image) for image in result.frames_rgb]
        assert got == [truth.digest[rank] for rank in source.frame[start:stop]], (start, stop)


PLANS = [(1, 41, "threads"), (5, 16, "shuffled"), (30, 64, "in order")]


def check_all(path: Path) -> None:
    source = VideoSource(path, VideoOptions(every=1, decoder="pyav"), square=False)
    truth = walk(path, source.index.stream, LIMIT)
    known = min(len(truth.pts), LIMIT)
    assert known == min(len(source.frame), LIMIT)
    if not source.index.ordinal:
        assert source.index.pts[:known].tolist() == truth.pts[:known]
        expected = [pts * source.index.time_base for pts in truth.pts[:known]]
        np.testing.assert_allclose(source.time_seconds[:known], [float(t) for t in expected], rtol=0, atol=1e-9)
    large = known * source.item_bytes // 3 > LARGE
    for every, length, order in PLANS[1:2] if large else PLANS:
        compare(VideoSource(path, VideoOptions(every=every, decoder="pyav"), square=False), truth, length, order)
    if why_not_decord(source) is None:
        sampled = VideoSource(path, VideoOptions(every=5, decoder="decord"), square=False)
        compare(sampled, truth, 64, "in order" if large else "shuffled")


@pytest.mark.parametrize("name", [name for name in _CLIPS if name != DAMAGED])
def test_clip_is_exact(name: str, data_dir: Path) -> None:
    check_all(data_dir / "videos" / name)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_made_clip_is_exact(name: str, made: Callable[[str], Path]) -> None:
    check_all(made(name))


@pytest.mark.parametrize("name", ["open_gop.mp4", "h264.ts", "h264_b.avi", "raw.h264", "short_gop.mp4", "vfr.mkv"])
def test_rank_is_the_number_drawn(name: str, made: Callable[[str], Path]) -> None:
    source = VideoSource(made(name), VideoOptions(every=7))
    for start in range(len(source.frame) - 1, -1, -3):
        begin = max(0, start - 2)
        result = source.job(begin, start + 1).decode()
        assert [read_number(image) for image in result.frames_rgb] == source.frame[begin : start + 1].tolist()


def test_hidden_frames_of_an_edit_list_are_no_frames(made: Callable[[str], Path], tmp_path: Path) -> None:
    path = trim_by_edit_list(made("short_gop.mp4"), tmp_path / "trimmed.mp4", 30)
    source = VideoSource(path, VideoOptions(every=1))
    assert (source.decoder, source.index.discarded > 0) == ("pyav", True)
    result = source.job(0, 5).decode()
    assert [read_number(image) for image in result.frames_rgb] == [30, 31, 32, 33, 34]
    check_all(path)


@pytest.mark.parametrize("name", ["dec_rot0.mov", "dec_rot90.mov", "dec_rot180.mov", "dec_rot270.mov"])
def test_rotated_clips_are_upright_in_both_decoders(name: str, data_dir: Path) -> None:
    import cv2

    path = data_dir / "videos" / name
    frames = {}
    for decoder in ("pyav", "decord"):
        source = VideoSource(path, VideoOptions(every=1, decoder=decoder))
        frames[decoder] = source.job(0, 3).decode().frames_rgb
        assert frames[decoder].shape[1:3] == (source.facts["height"], source.facts["width"])
    assert np.array_equal(frames["pyav"], frames["decord"])
    ok, image = cv2.VideoCapture(str(path)).read()
    assert ok
    assert image.shape == frames["pyav"].shape[1:]
    assert np.abs(image[..., ::-1].astype(int) - frames["pyav"][0]).max() <= 2


def test_roi_is_cut_from_the_upright_frame(data_dir: Path) -> None:
    path = data_dir / "videos" / "dec_rot90.mov"
    whole = VideoSource(path, VideoOptions(every=1)).job(0, 3).decode().frames_rgb
    part = VideoSource(path, VideoOptions(every=1, roi=(10, 200, 50, 30)))
    assert part.item_bytes == 50 * 30 * 3
    assert np.array_equal(part.job(0, 3).decode().frames_rgb, whole[:, 200:230, 10:60])


def test_several_codec_threads_change_nothing(made: Callable[[str], Path]) -> None:
    source = VideoSource(made("long_gop.mp4"), VideoOptions(every=3, decoder="pyav"))
    one = source.job(0, 60).decode(threads=1).frames_rgb
    assert np.array_equal(source.job(0, 60).decode(threads=3).frames_rgb, one)

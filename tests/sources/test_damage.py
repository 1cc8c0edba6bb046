"""Damaged and cut off files: what is right is given, what is not is named."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.media.video.source import VideoOptions, VideoSource
from tests.clips import remuxed

from .conftest import read_number

DECODERS = ["auto", "pyav"]


def spoil(path: Path, target: Path, numbers: range) -> Path:
    """Copy a file with the slice data of some packets (in file order) overwritten by zeros."""
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    for number in numbers:
        position, size = packets[number]
        data[position + 4 : position + size] = bytes(size - 4)
    target.write_bytes(data)
    return target


def decode_all(source: VideoSource, length: int, threads: int = 1) -> tuple[np.ndarray, list[int], list[str]]:
    """Decoded flags, the numbers drawn into decoded frames, and the errors."""
    decoded, numbers, errors = [], [], []
    for start in range(0, len(source.frame), length):
        result = source.job(start, min(len(source.frame), start + length)).decode(threads)
        assert not result.frames_rgb[~result.decoded].any()
        decoded.append(result.decoded)
        numbers += [read_number(image) for image in result.frames_rgb[result.decoded]]
        errors += [result.error] if result.error else []
    return np.concatenate(decoded), numbers, errors


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("length", [7, 50, 200])
@pytest.mark.parametrize("threads", [1, 2])
def test_damage_costs_the_rest_of_its_group_and_no_more(
    decoder: str, length: int, threads: int, made: Callable[[str], Path], tmp_path: Path
) -> None:
    whole = VideoSource(made("short_gop.mp4"), VideoOptions(every=1, decoder="pyav"))
    path = spoil(made("short_gop.mp4"), tmp_path / "damaged.mp4", range(64, 66))
    source = VideoSource(path, VideoOptions(every=1, decoder=decoder))
    decoded, numbers, errors = decode_all(source, length, threads)
    lost = np.flatnonzero(~decoded)
    # Packets 64 and 65 lie in the group of frames 60 to 79; what is shown later than them in it is built on them.
    assert lost.min() >= 61
    assert lost.max() == 79
    assert numbers == np.flatnonzero(decoded).tolist()
    assert all("could not be decoded: " in error and "\n" not in error for error in errors)
    same = whole.job(40, 100).decode().frames_rgb
    again = source.job(40, 100).decode()
    assert np.array_equal(again.frames_rgb[again.decoded], same[again.decoded])


def test_an_error_names_ranks_and_times(made: Callable[[str], Path], tmp_path: Path) -> None:
    path = spoil(made("short_gop.mp4"), tmp_path / "damaged.mp4", range(60, 80))
    source = VideoSource(path, VideoOptions(every=1))
    expected = "frames 60-79 (2.40-3.16 s) could not be decoded: Invalid data found when processing input"
    assert source.job(50, 100).decode().error == expected


@pytest.mark.parametrize("threads", [1, 2])
def test_the_corrupted_clip_gives_its_good_frames(threads: int, data_dir: Path) -> None:
    source = VideoSource(data_dir / "videos" / "dec_corrupted.mp4", VideoOptions(every=1))
    result = source.job(0, 50).decode(threads)
    assert result.decoded[:28].all()
    assert not result.decoded[32:].any()
    assert result.error is not None


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_frames_cut_off_are_known_and_named(suffix: str, made: Callable[[str], Path], tmp_path: Path) -> None:
    path = remuxed(made("short_gop.mp4"), tmp_path / f"cut{suffix}")
    whole = VideoSource(path, VideoOptions(every=1))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.6)])
    source = VideoSource(path, VideoOptions(every=1))
    assert len(source.frame) == len(whole.frame) == 200
    np.testing.assert_allclose(source.time_seconds, whole.time_seconds, atol=0.002)
    assert source.facts["unreadable_frames"] > 20
    assert source.decoder == "pyav"
    decoded, numbers, errors = decode_all(source, 64)
    assert 60 < decoded.sum() < 180
    assert numbers == np.flatnonzero(decoded).tolist()
    assert errors[-1].startswith("frames ")
    assert errors[-1].endswith("could not be decoded: the file is cut off")
    gone = source.job(190, 200)
    assert gone.segments == ()
    assert gone.decode().source_frames_decoded == 0

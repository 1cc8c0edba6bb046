"""Damaged and cut off files: what is right is given, what is not is named."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.media.video.source import VideoOptions, VideoSource
from tests.clips import remuxed

from .conftest import Recipe, read_number, write_clip

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


THIRDS = tuple(n for n in range(66) if n % 3 != 2)


@pytest.mark.parametrize("codec", ["mpeg4", "mjpeg"])
def test_null_frames_of_an_avi_are_the_last_frame_shown_on(codec: str, tmp_path: Path) -> None:
    pixel_format = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    recipe = Recipe(codec, frames=len(THIRDS), times=THIRDS, b_frames=0, pixel_format=pixel_format)
    path = write_clip(tmp_path / "clip.avi", recipe)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames > len(THIRDS)  # as many as there are times to show one
    source = VideoSource(path, VideoOptions(every=1))
    assert source.index.truncated is None
    np.testing.assert_allclose(source.time_seconds - source.time_seconds[0], np.array(THIRDS) / 25)
    decoded, numbers, errors = decode_all(source, 64)
    assert decoded.all()
    assert numbers == list(range(len(THIRDS)))
    assert errors == []


def not_coded(time: int) -> av.Packet:
    """A predicted MPEG-4 picture (vop_coding_type 1) at a time in 1/25 s, with vop_coded 0, and stuffing."""
    return av.Packet(b"\0\0\1\xb6" + int(f"0101{time % 25:05b}1001111", 2).to_bytes(2, "big"))


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_pictures_without_content_are_the_last_frame_shown_on(suffix: str, tmp_path: Path) -> None:
    path, empty = tmp_path / f"clip{suffix}", (5, 6, 20, 33)
    with (
        av.open(str(write_clip(tmp_path / "plain.avi", Recipe("mpeg4", frames=30)))) as reading,
        av.open(str(path), "w") as writing,
    ):
        stream = reading.streams.video[0]
        copy = writing.add_stream_from_template(stream)
        packets = (packet for packet in reading.demux(stream) if packet.size)
        for number in range(34):
            packet = not_coded(number) if number in empty else next(packets)
            packet.pts = packet.dts = number
            packet.time_base, packet.stream = Fraction(1, 25), copy
            writing.mux(packet)
    source = VideoSource(path, VideoOptions(every=1))
    np.testing.assert_allclose(source.time_seconds, np.array([n for n in range(34) if n not in empty]) / 25)
    decoded, numbers, errors = decode_all(source, 16)
    assert decoded.all()
    assert (numbers, errors) == (list(range(30)), [])


@pytest.mark.parametrize("times", [(), tuple(2 * n for n in range(90))], ids=["every frame", "null frames"])
def test_an_avi_that_was_cut_off_is_found(times: tuple[int, ...], tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.avi", Recipe("mpeg4", times=times))
    data = path.read_bytes()
    whole = VideoSource(path, VideoOptions(every=1))
    path.write_bytes(data[: int(len(data) * 0.6)])
    source = VideoSource(path, VideoOptions(every=1))
    assert source.index.truncated == "the file is cut off"
    assert source.facts["unreadable_frames"] > 20
    assert source.time_seconds[-1] == pytest.approx(whole.time_seconds[-1], abs=0.041)
    decoded, numbers, errors = decode_all(source, 64)
    assert numbers == np.flatnonzero(decoded).tolist()
    assert errors[-1].endswith("could not be decoded: the file is cut off")
    path.write_bytes(data[: data.rindex(b"idx1") + 40])  # the index alone is cut: no picture is lost
    assert VideoSource(path, VideoOptions(every=1)).index.truncated is None


def test_a_recording_that_was_never_closed_promises_nothing(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.avi", Recipe("mpeg4"))
    data = bytearray(path.read_bytes())
    movi = data.index(b"movi")
    data[4:8] = data[movi - 4 : movi] = bytes(4)
    path.write_bytes(data[: data.rindex(b"idx1")])
    source = VideoSource(path, VideoOptions(every=1))
    assert (len(source), source.index.truncated) == (90, None)


@pytest.mark.parametrize("emptied", [(10,), (7, 8, 30)], ids=str)
def test_samples_of_no_bytes_in_an_mp4_are_no_frames(emptied: tuple[int, ...], tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mov", Recipe("mjpeg", frames=40, pixel_format="yuvj420p"))
    data = bytearray(path.read_bytes())
    sizes = data.index(b"stsz") + 16
    for number in emptied:  # its bytes go to the sample before it, which ends where it did

        def at(one: int) -> slice:
            return slice(sizes + 4 * one, sizes + 4 * one + 4)

        before = next(one for one in range(number - 1, 0, -1) if any(data[at(one)]))
        both = int.from_bytes(data[at(before)], "big") + int.from_bytes(data[at(number)], "big")
        data[at(before)], data[at(number)] = both.to_bytes(4, "big"), bytes(4)
    path.write_bytes(data)
    source = VideoSource(path, VideoOptions(every=1))
    left = [number for number in range(40) if number not in emptied]
    assert source.index.truncated is None
    np.testing.assert_allclose(source.time_seconds, np.array(left) / 25)
    decoded, numbers, _ = decode_all(source, 64)
    assert decoded.all()
    assert numbers == left

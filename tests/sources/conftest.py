"""Clips that the data folder lacks, drawn by code, and the plain walk through a file that is the truth."""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.media.video.readers import close_readers

BLOCK = 16
"""Side in pixels of the blocks that spell a frame's number in binary."""


def draw(number: int, width: int, height: int) -> np.ndarray:
    """uint8 (height, width, 3): a moving gradient, and `number` as a row of 12 black or white blocks."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([(x * 2 + number * 5) % 256, (y * 3 + number) % 256, (x + y) % 256], -1).astype(np.uint8)
    for bit in range(12):
        image[:BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 255 * (number >> bit & 1)
    return image


def read_number(image: np.ndarray) -> int:
    """The number drawn into a frame."""
    middle = BLOCK // 2
    return sum(int(image[middle, bit * BLOCK + middle].mean() > 127) << bit for bit in range(12))


@dataclass(frozen=True)
class Recipe:
    """How a clip is written."""

    codec: str = "libx264"
    frames: int = 90
    gop: int = 24
    b_frames: int | None = None
    options: tuple[tuple[str, str], ...] = ()
    size: tuple[int, int] = (208, 64)
    pixel_format: str = "yuv420p"
    times: tuple[int, ...] = ()
    container_options: tuple[tuple[str, str], ...] = ()


def write_clip(path: Path, recipe: Recipe) -> Path:
    """Encode a recipe at 25 frames per second; skips where this build of FFmpeg lacks the encoder."""
    if recipe.codec not in av.codecs_available:
        pytest.skip(f"no encoder {recipe.codec}")
    with av.open(str(path), "w", container_options=dict(recipe.container_options)) as container:
        stream = container.add_stream(recipe.codec, rate=25, options=dict(recipe.options))
        stream.width, stream.height = recipe.size
        stream.pix_fmt = recipe.pixel_format
        stream.codec_context.gop_size = recipe.gop
        stream.codec_context.time_base = Fraction(1, 25)
        if recipe.b_frames is not None:
            stream.codec_context.max_b_frames = recipe.b_frames
        for number in range(recipe.frames):
            frame = av.VideoFrame.from_ndarray(draw(number, *recipe.size), "rgb24")
            frame.pts = recipe.times[number] if recipe.times else number
            frame.time_base = Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def trim_by_edit_list(source: Path, target: Path, frames: int) -> Path:
    """Copy an MP4 so that players skip its first frames, which stay in the file for decoding."""
    with av.open(str(source)) as reading, av.open(str(target), "w") as writing:
        stream = reading.streams.video[0]
        copy = writing.add_stream_from_template(stream)
        step = int(1 / (stream.average_rate * stream.time_base))
        for packet in reading.demux(stream):
            if packet.size:
                packet.pts, packet.dts = packet.pts - frames * step, packet.dts - frames * step
                packet.stream = copy
                writing.mux(packet)
    return target


X264 = (("preset", "ultrafast"),)
SLOW = (("preset", "medium"),)
RECIPES: dict[str, Recipe] = {
    "mpeg4.avi": Recipe(codec="mpeg4"),
    "mpeg4_b.avi": Recipe(codec="mpeg4", b_frames=2),
    "h264_b.avi": Recipe(b_frames=3, options=SLOW),
    "h264.ts": Recipe(options=SLOW),
    "mpeg2_b.mpg": Recipe(codec="mpeg2video", b_frames=2),
    "open_gop.mp4": Recipe(options=(("x264-params", "open-gop=1:bframes=3:b-adapt=0"),)),
    "open_gop_x265.mp4": Recipe(codec="libx265", options=(("x265-params", "open-gop=1:log-level=none"),)),
    "hevc.mp4": Recipe(codec="libx265", gop=20, options=(("x265-params", "open-gop=0:log-level=none"),)),
    "full_range.mp4": Recipe(pixel_format="yuvj420p", options=SLOW),
    "odd.mkv": Recipe(size=(209, 67), pixel_format="yuv444p", options=X264),
    "one_frame.mp4": Recipe(frames=1, options=X264),
    "vp9.webm": Recipe(codec="libvpx-vp9", frames=60, options=(("deadline", "realtime"), ("cpu-used", "8"))),
    "vp8_altref.webm": Recipe(codec="libvpx", frames=60, options=(("auto-alt-ref", "1"), ("lag-in-frames", "16"))),
    "vfr.mkv": Recipe(times=tuple(int(n * n / 40 + n) for n in range(90)), options=SLOW),
    "ten_bit.mp4": Recipe(pixel_format="yuv420p10le", options=SLOW),
    "raw.h264": Recipe(options=SLOW),
    "long_gop.mp4": Recipe(frames=200, gop=200, options=SLOW),
    "short_gop.mp4": Recipe(frames=200, gop=20, options=(("x264-params", "keyint=20:min-keyint=20:scenecut=0"),)),
    "refresh.mp4": Recipe(options=(("x264-params", "intra-refresh=1:keyint=24:bframes=0"),)),
    "refresh.ts": Recipe(options=(("x264-params", "intra-refresh=1:keyint=24:bframes=0"),)),
    "fragments.mp4": Recipe(options=SLOW, container_options=(("movflags", "frag_keyframe+empty_moov"),)),
}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Path of a clip by its name in RECIPES; written on first use."""
    folder = tmp_path_factory.mktemp("clips")

    def get(name: str) -> Path:
        path = folder / name
        return path if path.exists() else write_clip(path, RECIPES[name])

    return get


@dataclass(frozen=True)
class Truth:
    """What a walk through a file from its first packet, without a seek, gives in output order."""

    pts: list[int | None]
    digest: list[int]


def checksum(image: np.ndarray) -> int:
    """A number that tells frames apart by all their pixels."""
    return zlib.crc32(np.ascontiguousarray(image))


def walk(path: Path, stream: int, limit: int = 10**9) -> Truth:
    """Decode the first `limit` frames of a stream one after another."""
    truth = Truth([], [])
    with av.open(str(path)) as container:
        for packet in container.demux(container.streams[stream]):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                continue
            for frame in frames:
                image = np.rot90(frame.to_ndarray(format="rgb24", threads=1), round(frame.rotation / 90) % 4)
                truth.pts.append(frame.pts)
                truth.digest.append(checksum(image))
            if len(truth.pts) >= limit:
                break
    return truth


@pytest.fixture(autouse=True)
def _no_reader_left() -> Iterator[None]:
    """Each test starts with no open reader."""
    yield
    close_readers()

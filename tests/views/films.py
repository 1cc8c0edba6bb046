"""Films that tests draw, with sound, and made-up stores that point at them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from pipeline.media.video.source import VideoOptions, VideoSource
from pipeline.store.schema import Array
from tests.made_stores import EVERY, faces_of, make_store, people

RATE = 48000
SIZE = (320, 240)
_REGISTRY = {"registry": "../people.json", "names": {"1": "Ann", "2": "Bo"}}
PERSON = Array("person", ("face",), "int32", attributes=_REGISTRY)
TRACK = Array("track", ("face",), "int32")


def texture(size: tuple[int, int] = SIZE) -> np.ndarray:
    """uint8 (height, width, 3): grey noise in blocks of 4 pixels, the same every time."""
    width, height = size
    noise = np.random.default_rng(0).integers(60, 196, (-(-height // 4), -(-width // 4), 1), np.uint8)
    return noise.repeat(4, 0).repeat(4, 1).repeat(3, 2)[:height, :width]


def write_film(
    path: Path,
    n_frames: int = 50,
    size: tuple[int, int] = SIZE,
    *,
    pts: Sequence[int] | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    sounds: Sequence[str] = ("aac",),
    layout: str = "mono",
    rate: int = RATE,
    first_seconds: float = 0.0,
    aspect: Fraction | None = None,
    colour: tuple[int, int, int] | None = None,
    gop: int = 12,
) -> Path:
    """A film of a fixed texture with a white bar that wanders, 25 frames a second unless `pts` (1/1000 s) says when
    each is shown; a beep at the start of every second on each sound track, which has this layout and rate. `colour`:
    matrix, transfer, primaries."""
    fine = 1 if path.suffix in (".avi", ".mpg") else 1024  # AVI holds a frame for each tick; MPEG-2 has few rates
    base = Fraction(1, 1000) if pts is not None else Fraction(1, 25 * fine)
    times = list(pts) if pts is not None else [round((k / 25 + first_seconds) / base) for k in range(n_frames)]
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream(codec, rate=Fraction(25), options=_options(codec, gop))
        video.width, video.height, video.pix_fmt = *size, pix_fmt
        context = video.codec_context
        context.time_base = video.time_base = base
        if aspect is not None:
            context.sample_aspect_ratio = aspect
        if colour is not None:
            context.color_range, (context.colorspace, context.color_trc, context.color_primaries) = 1, colour
        voices = [container.add_stream(sound, rate=rate, layout=layout) for sound in sounds]
        ground = texture(size)
        for number, at in enumerate(times):
            picture = ground.copy()
            picture[: size[1] // 8, size[0] * number // n_frames :][:, :8] = 255
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame = frame.reformat(format=pix_fmt, dst_colorspace=colour[0] if colour else None, dst_color_range=1)
            frame.pts, frame.time_base = at, base
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for voice in voices:
            _beeps(container, voice, n_frames / 25, first_seconds)
    return path


def _options(codec: str, gop: int) -> dict[str, str]:
    return {"preset": "ultrafast", "crf": "12", "g": str(gop), "bf": "2"} if codec == "libx264" else {"b": "2M"}


def _beeps(container: Any, stream: Any, seconds: float, first_seconds: float) -> None:
    rate, layout = stream.rate, stream.layout.name
    at = np.arange(round(seconds * rate)) / rate
    wave = (0.5 * np.sin(2 * np.pi * 1000 * at) * (at % 1.0 < 0.1)).astype(np.float32)[None]
    frame = av.AudioFrame.from_ndarray(wave.repeat(stream.layout.nb_channels, 0), "fltp", layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, round(first_seconds * rate), Fraction(1, rate)
    resampler = av.AudioResampler(stream.codec_context.format.name, layout, rate, 960)
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
        container.mux(stream.encode(part))
    container.mux(stream.encode(None))


def store_of(
    out: Path,
    films: Sequence[Path],
    boxes: Sequence[np.ndarray],
    *,
    done_chunks: int | None = None,
    roi: tuple[int, int, int, int] | None = None,
    **more: Sequence[np.ndarray],
) -> Path:
    """A store of films sampled every fifth frame. `boxes`: for each film float32 (samples, faces, 4), NaN where a face
    is not there; `more`: arrays `person` or `track` for each film, int (samples, faces)."""
    specs = tuple(spec for spec in (PERSON, TRACK) if spec.name in more)
    for number, (film, box) in enumerate(zip(films, boxes, strict=True)):
        there = ~np.isnan(box[..., 0])
        arrays = faces_of(
            there.sum(1), people(1, int(there.sum()))[0], box[there],
            **{name: values[number][there].astype(np.int32) for name, values in more.items()},
        )  # fmt: skip
        options = VideoOptions.model_validate({"every": EVERY, "roi": roi})
        source = VideoSource(film, options, decoder="pyav")
        start = source.facts["start_seconds"]
        make_store(
            out, {film.stem: arrays}, facts=source.facts, extra=specs, start_seconds=start, done_chunks=done_chunks,
            chunk_frames=4 if done_chunks is not None else 64, moments={film.stem: source.time_seconds},
        )  # fmt: skip
    return out


def still(n_samples: int, *boxes: tuple[float, float, float, float]) -> np.ndarray:
    """float32 (n_samples, len(boxes), 4): faces that do not move."""
    return np.tile(np.array(boxes, np.float32), (n_samples, 1, 1))


def read_film(path: Path) -> tuple[list[float], np.ndarray]:
    """Times in seconds, and pixels, uint8 (n, height, width, 3), as stored."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [float(f.pts * f.time_base) for f in frames], np.stack([f.to_ndarray(format="rgb24") for f in frames])


def sound_packets(path: Path, track: int = 0) -> list[tuple[float, bytes]]:
    """Seconds and bytes of the packets of a sound track."""
    with av.open(str(path)) as container:
        packets = container.demux(container.streams.audio[track])
        return [(float(p.pts * p.time_base), bytes(p)) for p in packets if p.size]


def beeps(path: Path, track: int = 0) -> list[float]:
    """Seconds at which a sound track goes from silent to loud."""
    wave: list[np.ndarray] = []
    start = None
    with av.open(str(path)) as container:
        for frame in container.decode(container.streams.audio[track]):
            start = float(frame.pts * frame.time_base) if start is None else start
            wave.append(frame.to_ndarray().reshape(frame.layout.nb_channels, -1)[0].astype(np.float32))
            rate = frame.sample_rate
    loud = np.abs(np.concatenate(wave))
    loud = loud > 0.5 * loud.max()
    window = round(0.05 * rate)
    at = np.flatnonzero(loud)
    first = at[np.diff(at, prepend=-(10 * window)) > window]
    assert start is not None
    return [start + float(k) / rate for k in first]

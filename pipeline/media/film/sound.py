"""Sound for a film that is written: packets copied as they are, or decoded, cut to the sample and encoded again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.packet import Packet

from pipeline.media.video.index import open_container

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer

_COPIED = {
    "mp4": frozenset({"aac", "mp3", "ac3", "eac3", "alac", "flac", "opus"}),
    "mov": frozenset({"aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s16be", "pcm_s24le"}),
    "webm": frozenset({"opus", "vorbis"}),
}
"""Codecs that players expect in a container; Matroska takes all."""
_ENCODER = {"webm": "libopus"}
_OPUS_RATE = 48000
_AAC_HIGHEST_RATE = 96000
_BEFORE_SECONDS = 1.0
"""Sound lies a little before or after its picture in a file."""
_AAC_FRAME = 1024
"""Samples; encoders say theirs once they are open."""
_JITTER_SECONDS = 0.02
"""Time stamps may be off by as much before samples are left out or silence is put in: Matroska rounds to 1 ms."""
_KEPT = ("language", "title", "handler_name")


def audio_streams(path: Path) -> list[int]:
    """Indices of the audio streams that can be decoded."""
    with open_container(path) as container:
        return [s.index for s in container.streams.audio if s.codec_context is not None and s.codec_context.sample_rate]


class CopiedSound:
    """Audio packets of a file as they are, or, where the container does not take them, decoded and encoded."""

    def __init__(
        self, path: Path, streams: list[int], target: OutputContainer, start: float, stop: float, exact: bool = False
    ) -> None:
        """Adds a stream to `target` for each; `start` to `stop` in seconds of the source, start becoming 0. Packets are
        some 20 ms long; `exact` encodes all, and cuts between samples."""
        self._source = open_container(path)
        self._target, self._start, self._stop = target, start, stop
        self._copies: dict[int, AudioStream] = {}
        self._lines: dict[int, SoundLine] = {}
        self._last_dts: dict[int, int] = {}
        allowed = frozenset[str]() if exact else _COPIED.get(target.format.name)
        for index in streams:
            stream = self._source.streams[index]
            assert isinstance(stream, AudioStream)
            if allowed is None or stream.codec_context.codec.canonical_name in allowed:
                self._copies[index] = target.add_stream_from_template(stream)
                _tag(self._copies[index], stream)
            else:
                self._lines[index] = SoundLine(target, stream)
        self._packets = self._wanted()
        self._next: Packet[Any] | None = next(self._packets, None)

    @property
    def n_streams(self) -> int:
        """Streams that are written, copied or not."""
        return len(self._copies) + len(self._lines)

    def _wanted(self) -> Iterator[Packet[Any]]:
        chosen = [*self._copies, *self._lines]
        if not chosen:
            return
        _seek_before(self._source, self._start)
        try:
            for packet in self._source.demux(chosen):
                if packet.size and packet.pts is not None and float(packet.pts * packet.time_base) < self._stop:
                    yield packet
        except av.FFmpegError:
            return  # a file that is cut off: what came before stands

    def until(self, seconds: float) -> None:
        """Write what is heard before this time, in seconds of the film that is written."""
        while self._next is not None and _starts(self._next) - self._start < seconds:
            self._take(self._next)
            self._next = next(self._packets, None)

    def _take(self, packet: Packet[Any]) -> None:
        line = self._lines.get(packet.stream_index)
        if line is not None:
            for frame in _decoded(packet):
                line.put(frame, self._start, self._stop, -self._start)
            return
        if self._start and _starts(packet) < self._start:
            return
        shift = round(self._start / packet.time_base)
        packet.pts = (packet.pts or 0) - shift
        packet.dts = packet.pts if packet.dts is None else packet.dts - shift
        last = self._last_dts.get(packet.stream_index)
        if last is not None and packet.dts <= last:  # time stands still or goes back in damaged files: no container may
            packet.dts = last + 1
            packet.pts = max(packet.pts, packet.dts)
        self._last_dts[packet.stream_index] = packet.dts
        packet.stream = self._copies[packet.stream_index]
        self._target.mux_one(packet)

    def finish(self) -> None:
        """Write what is left."""
        self.until(float("inf"))
        for line in self._lines.values():
            line.finish()

    def close(self) -> None:
        self._source.close()


class SoundLine:
    """One audio stream that is encoded: samples are put at times, what is missing between them is silence."""

    def __init__(self, target: OutputContainer, like: AudioStream | None = None) -> None:
        """`like` gives rate, channels and language; stereo at 48 kHz without."""
        codec = _ENCODER.get(target.format.name, "aac")
        source = like.codec_context if like is not None else None
        rate = source.sample_rate if source is not None and codec == "aac" else _OPUS_RATE
        self.rate = min(rate, _AAC_HIGHEST_RATE)
        channels = source.layout.nb_channels if source is not None else 2
        layout = source.layout.name if source is not None and channels in (1, 2, 6) else "stereo"
        self.layout = "mono" if channels == 1 else layout
        self._target = target
        stream = target.add_stream(codec, rate=self.rate, layout=self.layout)
        assert isinstance(stream, AudioStream)
        self._stream = stream
        self._stream.time_base = Fraction(1, self.rate)
        if like is not None:
            _tag(self._stream, like)
        self._resampler = AudioResampler("fltp", self.layout, self.rate)
        context = stream.codec_context
        self._shape = AudioResampler(context.format.name, self.layout, self.rate, context.frame_size or _AAC_FRAME)
        self._written: int | None = None
        """Samples from time 0 to the end of what was put; None before the first."""

    @classmethod
    def of_file(cls, target: OutputContainer, path: Path, stream_index: int) -> SoundLine:
        """A line like a stream of a file."""
        with open_container(path) as source:
            stream = source.streams[stream_index]
            assert isinstance(stream, AudioStream)
            return cls(target, stream)

    def put(self, frame: AudioFrame, start: float, stop: float, shift: float) -> None:
        """The part of a decoded frame between start and stop (seconds of its source), heard at its time plus shift."""
        at = _frame_starts(frame)
        if np.isnan(at):
            return
        for part in self._resampled(frame):
            samples = np.asarray(part.to_ndarray(), np.float32)
            first = max(0, round((start - at) * self.rate))
            last = round(min(samples.shape[1], (stop - at) * self.rate))
            if last > first:
                self._place(samples[:, first:last], round((at + shift) * self.rate) + first)
            at += part.samples / self.rate

    def _resampled(self, frame: AudioFrame) -> list[AudioFrame]:
        try:
            return self._resampler.resample(frame)
        except ValueError:  # broadcasts change the number of channels on their way
            self._resampler = AudioResampler("fltp", self.layout, self.rate)
            return self._resampler.resample(frame)

    def silence_until(self, seconds: float) -> None:
        """Fill up to this time, so that what follows is in step with the picture."""
        end = round(seconds * self.rate)
        self._written = self._written or 0
        if end > self._written:
            self._encode(np.zeros((self._channels, end - self._written), np.float32))

    @property
    def _channels(self) -> int:
        return self._stream.codec_context.layout.nb_channels

    def _place(self, samples: npt.NDArray[np.float32], at: int) -> None:
        if self._written is None:
            self._written = max(at, 0)
        off = at - self._written
        if off > _JITTER_SECONDS * self.rate:
            self._encode(np.zeros((self._channels, off), np.float32))
        elif off < -_JITTER_SECONDS * self.rate:
            samples = samples[:, -off:]
        if samples.shape[1]:
            self._encode(samples)

    def _encode(self, samples: npt.NDArray[np.float32]) -> None:
        assert self._written is not None
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples, np.float32), "fltp", self.layout)
        frame.sample_rate, frame.pts, frame.time_base = self.rate, self._written, Fraction(1, self.rate)
        self._written += samples.shape[1]
        self._send(self._shape.resample(frame))

    def _send(self, frames: list[AudioFrame]) -> None:
        for frame in frames:
            self._target.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Write what is left in the encoder."""
        if self._written is not None:
            self._send(self._shape.resample(None))
        self._target.mux(self._stream.encode(None))


def sound_between(path: Path, stream_index: int, start: float, stop: float) -> Iterator[AudioFrame]:
    """Decoded frames of an audio stream that have samples between start and stop (seconds)."""
    with open_container(path) as container:
        _seek_before(container, start)
        try:
            for packet in container.demux(container.streams[stream_index]):
                for frame in _decoded(packet):
                    if _frame_starts(frame) >= stop:
                        return
                    yield frame
        except av.FFmpegError:
            return  # a file that is cut off: what came before stands


def _frame_starts(frame: AudioFrame) -> float:
    """Seconds; NaN where nothing is known of it."""
    if frame.pts is None or frame.time_base is None:
        return float("nan")
    return float(frame.pts * frame.time_base)


def _seek_before(container: InputContainer, seconds: float) -> None:
    """Go to a little before this time; where a file cannot be searched, it is read from its start."""
    if seconds > _BEFORE_SECONDS:
        with suppress(av.FFmpegError):
            container.seek(int((seconds - _BEFORE_SECONDS) * av.time_base))


def _decoded(packet: Packet[Any]) -> list[AudioFrame]:
    try:
        frames: list[Any] = packet.decode()
        return [frame for frame in frames if isinstance(frame, AudioFrame)]
    except av.FFmpegError:
        return []  # a damaged packet is silence


def _starts(packet: Packet[Any]) -> float:
    return float((packet.pts or 0) * packet.time_base)


def _tag(stream: AudioStream, like: AudioStream) -> None:
    stream.metadata.update({key: like.metadata[key] for key in _KEPT if key in like.metadata})

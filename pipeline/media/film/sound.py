"""Sound for a film that is written: packets copied as they are, or decoded, cut to the sample and encoded again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from math import isinf
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.filter import Graph
from av.packet import Packet

from pipeline.media.video.index import Break, demuxed, open_container

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer

    from pipeline.media.film.film import Film

_COPIED = {
    "mp4": frozenset({"aac", "mp3", "ac3", "eac3", "alac", "flac", "opus"}),
    "mov": frozenset({"aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s16be", "pcm_s24le"}),
    "webm": frozenset({"opus", "vorbis"}),
}
"""Codecs that players expect in a container; Matroska takes all."""
_BEFORE_ZERO = ("mp4", "mov")
"""Containers that hold packets from before time 0, as AAC begins. Matroska holds them only if the source says how many
samples they are, as Matroska does; else it would move the whole film later instead."""
_LAYOUTS = {1: "mono", 6: "5.1"}
"""Layout to encode for a number of channels; stereo for any other."""
_BEFORE_SECONDS = 1.0
"""Sound lies a little before or after its picture in a file."""
_IN_STEP = "aresample=async=1:min_hard_comp=0.02"
"""FFmpeg's filter that leaves samples out, or puts silence in, if time stamps are off by more than 0.02 s: Matroska
rounds them to 1 ms."""
_KEPT = ("language", "title", "handler_name")


def audio_streams(path: Path) -> list[int]:
    """Return the indices of the audio streams that can be decoded."""
    with open_container(path) as container:
        return [s.index for s in container.streams.audio if s.codec_context is not None and s.codec_context.sample_rate]


def packets_before(
    container: InputContainer, streams: list[Any], stop: float, breaks: Sequence[Break]
) -> Iterator[Packet[Any]]:
    """Yield the packets of some streams that are decoded before `stop` (seconds)."""
    done: set[int] = set()
    if not streams:  # FFmpeg would read all of them
        return
    with suppress(av.FFmpegError):  # a file that is cut off: what came before stands
        for packet in demuxed(container, streams, breaks):
            if packet.size and packet.pts is not None:
                if float((packet.pts if packet.dts is None else packet.dts) * packet.time_base) < stop:
                    yield packet
                elif len(done := done | {packet.stream_index}) == len(streams):
                    return


class Sound:
    """The sound of a file between two times, written piece by piece along with the picture."""

    def __init__(self, film: Film, streams: list[int], start: float, stop: float, voice: Voicing) -> None:
        """`start` and `stop` are in seconds of the film; `voice` makes what the packets of a stream are given to."""
        self._source = open_container(film.path)
        breaks = film.index.breaks
        self._start = start
        chosen = [self._source.streams[index] for index in streams]
        self._voices = {stream.index: voice(cast(AudioStream, stream)) for stream in chosen}
        if start > _BEFORE_SECONDS and not breaks:
            with suppress(av.FFmpegError):  # a file that cannot be searched is read from its start
                self._source.seek(int((start - _BEFORE_SECONDS) * av.time_base))
        self._packets = packets_before(self._source, chosen, stop, breaks)
        self._next = next(self._packets, None)

    def until(self, seconds: float) -> None:
        """Write the sound of the first `seconds` after the start."""
        while self._next is not None and _starts(self._next) - self._start < seconds:
            self._voices[self._next.stream_index].take(self._next)
            self._next = next(self._packets, None)

    def finish(self) -> None:
        """Write what is left."""
        self.until(float("inf"))
        for voice in self._voices.values():
            voice.finish()

    def close(self) -> None:
        self._source.close()


class Copied:
    """A stream whose packets are written as they are."""

    def __init__(self, target: OutputContainer, like: Any, begin: float) -> None:
        """`begin` (seconds of the source) becomes time 0."""
        self._target, self._begin = target, begin
        self._stream = target.add_stream_from_template(like)
        _tag(self._stream, like)
        holds = target.format.name in _BEFORE_ZERO or like.container.format.name.startswith("matroska")
        self._drops = bool(begin) or not holds
        self._last_dts: int | None = None

    def take(self, packet: Packet[Any]) -> None:
        """Write a packet, unless it begins before time 0."""
        if self._drops and _starts(packet) < self._begin:
            return
        shift = round(self._begin / packet.time_base)
        packet.pts = (packet.pts or 0) - shift
        if packet.dts is not None:
            packet.dts -= shift
            if self._last_dts is not None and packet.dts <= self._last_dts:
                # Time stands still or goes back in damaged files: no container may.
                packet.dts = self._last_dts + 1
                packet.pts = max(packet.pts, packet.dts)
            self._last_dts = packet.dts
        packet.stream = self._stream
        self._target.mux_one(packet)

    def finish(self) -> None: ...


class Encoded:
    """A stream that is encoded: parts of other streams, one after the other, cut between samples.

    FFmpeg's filters do the work, in two graphs. The first brings what is decoded to the rate and the channels of this
    stream; it is made again when a source changes its own, as broadcasts do. The second is made for each part: it keeps
    samples in step with their time stamps, and leaves out what lies outside the part.
    """

    def __init__(self, target: OutputContainer, like: AudioStream) -> None:
        """`like` gives rate, channels and language."""
        codec = "libopus" if target.format.name == "webm" else "aac"
        # Opus has one rate, and AAC goes up to 96 kHz.
        self._rate = min(like.codec_context.sample_rate, 96000) if codec == "aac" else 48000
        self._layout = _LAYOUTS.get(like.codec_context.layout.nb_channels, "stereo")
        self._target = target
        self._stream = cast(AudioStream, target.add_stream(codec, rate=self._rate, layout=self._layout))
        self._stream.time_base = Fraction(1, self._rate)
        _tag(self._stream, like)
        self._kind: tuple[Any, ...] = ()
        self._shape: Graph | None = None
        self._cut: Graph | None = None

    def begin(self, start: float, stop: float, at: float | None = None) -> None:
        """Begin a part: what is heard from `start` to `stop`, in seconds of its source.

        `start` becomes time 0, and nothing is written before the first sample nor after the last one. With `at`, it
        becomes that time, and the part has its whole length: it is silent if its source is.
        """
        self.end()
        first, last = round(start * self._rate), "" if isinf(stop) else f":end_pts={round(stop * self._rate)}"
        filters = [_IN_STEP, f"atrim=start_pts={first}{last}", f"asetpts=PTS-{first}"]
        if at is not None:
            begin = round(at * self._rate)
            length = round((at + stop - start) * self._rate) - begin
            filters = [f"{_IN_STEP}:first_pts={first}", f"atrim=end_pts={first + length}"]
            filters += [f"apad=whole_len={length}", f"asetpts=N+{begin}"]
        self._cut = _graph(("fltp", self._layout, self._rate, Fraction(1, self._rate)), *filters)

    def take(self, packet: Packet[Any]) -> None:
        """Write the sound of a packet, as far as it belongs to the part. A damaged packet is silence."""
        try:
            frames = cast("list[AudioFrame]", packet.decode())
        except av.FFmpegError:
            return
        for frame in frames:
            if frame.pts is not None:
                kind = frame.format.name, frame.layout.name, frame.sample_rate, frame.time_base
                if kind != self._kind:
                    self._put(None)
                    form = f"sample_fmts=fltp:sample_rates={self._rate}:channel_layouts={self._layout}"
                    self._kind, self._shape = kind, _graph(kind, f"aresample={self._rate}", f"aformat={form}")
                self._put(frame)

    def _put(self, frame: AudioFrame | None) -> None:
        for shaped in _through(self._shape, frame):
            self._write(shaped)

    def _write(self, frame: AudioFrame | None) -> None:
        for cut in _through(self._cut, frame):
            self._target.mux(self._stream.encode(cut))

    def end(self) -> None:
        """End the part: write what the filters still hold."""
        self._put(None)
        self._write(None)
        self._kind, self._shape, self._cut = (), None, None

    def finish(self) -> None:
        """End the part, and write what the encoder still holds."""
        self.end()
        self._target.mux(self._stream.encode(None))


def voices(target: OutputContainer, start: float, stop: float, exact: bool) -> Voicing:
    """Return what makes a stream of `target` for each stream of a source: packets as they are if the container takes
    them, else encoded. Packets are some 20 ms long; `exact` encodes all, and cuts between samples."""
    allowed = frozenset[str]() if exact else _COPIED.get(target.format.name)

    def voice(like: AudioStream) -> Copied | Encoded:
        if allowed is None or like.codec_context.codec.canonical_name in allowed:
            return Copied(target, like, start)
        encoded = Encoded(target, like)
        encoded.begin(start, stop)
        return encoded

    return voice


Voicing = Callable[[AudioStream], Copied | Encoded]


def _graph(source: tuple[Any, ...], *filters: str) -> Graph:
    """Link filters, each written as `name=options`; `source` is sample format, layout, rate and time base."""
    graph = Graph()
    sample_format, layout, rate, base = source
    begin = graph.add_abuffer(format=sample_format, layout=layout, sample_rate=rate, time_base=base)
    steps = [graph.add(*written.split("=", 1)) for written in filters]
    graph.link_nodes(begin, *steps, graph.add("abuffersink")).configure()
    return graph


def _through(graph: Graph | None, frame: AudioFrame | None) -> Iterator[AudioFrame]:
    """Yield what comes out of a graph when a frame goes in; None ends it."""
    if graph is not None:
        with suppress(BlockingIOError, EOFError):  # it waits for more, or has all that it wants
            graph.push(frame)
            while True:
                yield cast(AudioFrame, graph.pull())


def _starts(packet: Packet[Any]) -> float:
    return float((packet.pts or 0) * packet.time_base)


def _tag(stream: Any, like: Any) -> None:
    stream.metadata.update({key: like.metadata[key] for key in _KEPT if key in like.metadata})

"""Cameras: their addresses, their names, and their packets with times that only rise."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from pipeline.errors import UsageError
from pipeline.files.regular import read_file
from pipeline.media.video.h264 import is_idr, nal_length_bytes
from pipeline.media.video.index import AHEAD_SECONDS, BACK_SECONDS, TITLES
from pipeline.text import plural, unknown, without_secrets

_SCHEMES = ("http", "https", "rtmp", "rtmps", "rtsp", "rtsps", "srt", "tcp", "udp")
_PROTOCOLS = "http,https,httpproxy,tls,tcp,udp,rtp,rtmp,rtmps,rtsp,rtsps,srt,crypto,data"
"""Protocols that a stream may lead to. Files are not among them: a playlist could name one of this machine."""
_UNTIMED = frozenset({"mpjpeg", "mjpeg", "h264", "hevc", "mpegvideo", "m4v", "image2pipe"})
"""Containers without timestamps: FFmpeg invents an even rate. Frames get the time of their arrival."""
_RAW = frozenset({"rawvideo", "v210", "wrapped_avframe"})
"""Codecs without compression: recorded as H.264."""
_STANDS_STILL = 10
"""Packets in a row without a later time than the last, from which a clock counts as broken."""


@dataclass(frozen=True)
class Camera:
    """One source of a recording."""

    url: str
    """The address as the user gave it, secrets included; never shown."""
    name: str
    is_file: bool
    """True for a file, which is played in real time, once."""

    @property
    def is_device(self) -> bool:
        return self.url.startswith("/dev/")

    def open(self, timeout_seconds: float) -> InputContainer:
        """Connect. Raises av.FFmpegError, OSError."""
        options = {"protocol_whitelist": "file"} if self.is_file else {"protocol_whitelist": _PROTOCOLS}
        if self.url.lower().startswith("rtsp"):
            options["rtsp_transport"] = "tcp"  # UDP loses packets
        kind = "v4l2" if self.is_device else None
        # To recognise a stream takes a few seconds of it.
        limits = None if self.is_file else (timeout_seconds + 10, timeout_seconds)
        container: InputContainer = av.open(
            self.url, format=kind, options={} if self.is_device else options, timeout=limits, **TITLES
        )
        return container


def cameras(sources: Sequence[str], names: Sequence[str]) -> list[Camera]:
    """Return the cameras of the user's words. Raises UsageError, in which no secret of a URL is shown."""
    if len(names) not in (0, len(sources)):
        told = f"--name is given {plural(len(names), 'time')} for {plural(len(sources), 'source')}"
        raise UsageError(f"{told}; give it once for each, or never")
    named = next((source for source, _ in zip(sources, names, strict=False) if source[:1] == "@"), None)
    if named is not None:
        raise UsageError(f"--name does not name the cameras of {named}; write NAME ADDRESS in each of its lines")
    given = [(source, names[number] if names else "") for number, source in enumerate(sources)]
    found: dict[str, Camera] = {}
    for source, wanted in [pair for one in given for pair in (_listed(one[0][1:]) if one[0][:1] == "@" else [one])]:
        scheme = re.match(r"([a-z][a-z0-9+.-]*)://", source, re.IGNORECASE)
        if scheme is not None and scheme[1].lower() not in _SCHEMES:
            raise UsageError(unknown("kind of address", scheme[1].lower(), _SCHEMES))
        is_file = scheme is None and not source.startswith("/dev/")
        if is_file and not Path(source).is_file():
            raise UsageError(f"no such file: {source}; name a file, a URL (rtsp://...) or a device (/dev/video0)")
        own = name = _safe(wanted) if wanted else _own_name(source)
        if wanted and name in found:
            kept = "" if wanted == name else f" ({wanted!r} without all but a to z, digits, dots and hyphens)"
            raise UsageError(f"two sources are named {name!r}{kept}; give each a name of its own")
        count = 1
        while name in found:
            count += 1
            name = f"{own}-{count}"
        found[name] = Camera(source, name, is_file)
    return list(found.values())


def _listed(path: str) -> list[tuple[str, str]]:
    """Return the sources of a list and their names: one in a line, with its name before it or without one."""
    try:
        lines = read_file(path).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise UsageError(f"list {path} cannot be read: {getattr(err, 'strerror', None) or 'it is not UTF-8'}") from err
    words = [line.split() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not words or any(len(one) > 2 for one in words):
        raise UsageError(f"list {path}: write one source in each line, NAME ADDRESS or ADDRESS")
    return [(one[-1], one[0] if len(one) > 1 else "") for one in words]


def _own_name(source: str) -> str:
    """Return a name for a source: the host and the path of a URL, without its secrets; the stem of a file."""
    shown = without_secrets(source)
    return _safe(shown.partition("://")[2] if "://" in shown else Path(source).stem)


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.")[:60] or "camera"


@dataclass(frozen=True)
class Timed:
    """A packet with its place on a time line that only rises."""

    packet: Packet[Any]
    pts: int
    dts: int
    """Times in the unit of the time line, from 0 at the first packet of the connection."""
    may_begin: bool
    """True if a segment can begin here."""
    is_closed: bool
    """True if no frame after it needs one before it."""
    note: str
    """A line on the stream's own clock if it is broken here; else empty."""


class Timeline:
    """The packets of one connection in order, with times that only rise."""

    def __init__(self, camera: Camera, container: InputContainer) -> None:
        """Raises IndexError if the stream has no video."""
        self.camera, self.container = camera, container
        self.stream: VideoStream = container.streams.video[0]
        codec = self.stream.codec_context
        self.encodes = codec is not None and codec.name in _RAW
        self._codec = "" if codec is None else codec.name
        self._length_bytes = nal_length_bytes(codec.extradata) if codec is not None else 0
        self._is_untimed = container.format.name in _UNTIMED and not camera.is_file
        known = None if self._is_untimed else self.stream.time_base
        self.base = known or Fraction(1, 90000)
        """Unit of times, in seconds."""
        self.ended = ""
        """Reason why the packets end before the stream does; empty if they do not."""

    @property
    def is_finite(self) -> bool:
        """True if the stream says how long it is, as a film on a server does: then its end is not a lost connection."""
        if self.container.format.name == "hls":
            return bool(self.container.duration)
        return self.camera.is_file or (not self.camera.is_device and self.container.size > 0)

    def packets(self) -> Iterator[Timed]:
        """Yield the packets as they arrive, until the codec changes.

        Raises av.FFmpegError if the connection breaks or hangs.
        """
        step = max(1, round(1 / (self.stream.guessed_rate or 25) / self.base))
        shift, last, stood_still = None, -step, 0
        began = arrived = time.monotonic()
        written = None if self.encodes or self._is_untimed else _codec_written(self.stream)
        for packet in self.container.demux(self.stream):
            if not packet.size:
                continue
            if written is not None and packet.is_keyframe and _codec_written(self.stream) != written:
                self.ended = "its codec changed"
                return
            before, arrived = arrived, time.monotonic()
            own, note = packet.dts if packet.dts is not None else packet.pts, ""
            if self._is_untimed:
                placed = pts = max(last + 1, int((arrived - began) / self.base))
            elif own is None:
                placed = pts = last + step
            else:
                if shift is None:
                    shift = last + step - own
                ahead = float((own + shift - last) * self.base)
                if last >= 0 and not -BACK_SECONDS <= ahead <= AHEAD_SECONDS + arrived - before:
                    note, shift = f"its clock jumped by {ahead:+.1f} s", last + step - own
                stood_still = stood_still + 1 if own + shift <= last else 0
                if stood_still == _STANDS_STILL:
                    self._is_untimed = True
                    note = "its clock stands still, so frames get the time of their arrival"
                placed = max(last + 1, own + shift)
                pts = placed if packet.pts is None else max(placed, packet.pts + shift)
                if not stood_still and not note and last >= 0:
                    step = placed - last
            last = placed
            if self.camera.is_file:
                time.sleep(max(0.0, began + float(placed * self.base) - time.monotonic()))
            packet.time_base = self.base
            may_begin = packet.is_keyframe or self.encodes
            yield Timed(packet, pts, placed, may_begin, may_begin and self._is_closed(packet), note)

    def _is_closed(self, packet: Any) -> bool:
        return self._codec != "h264" or is_idr(memoryview(packet), self._length_bytes)


def _codec_written(stream: VideoStream) -> bytes:
    """Return Matroska's name of a stream's codec. The stream's own context keeps the codec that it began with."""
    header = io.BytesIO()
    with av.open(header, "w", format="matroska") as container:
        container.add_stream_from_template(stream)
        container.start_encoding()
    found = re.search(rb"V_[A-Z0-9/]+", header.getvalue())
    return found[0] if found is not None else b""

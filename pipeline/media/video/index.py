"""The packet index of a video: its frames, the times at which they are shown, the places where decoding can start.

It is made by reading packets, not pixels; one frame is decoded for its size and rotation. The index is the truth for
`frame` and `time_seconds`, whichever decoder reads the pixels.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.filter import Graph
from av.packet import Packet
from av.sidedata.sidedata import Type
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from pipeline.errors import InputError
from pipeline.media.picture import MAX_PIXELS, too_large
from pipeline.media.video.h264 import is_clean_start, nal_length_bytes

# These codecs reorder pictures with a delay of one picture, so FFmpeg's timestamps hold in any container.
_SIMPLE_ORDER = frozenset({"mpeg1video", "mpeg2video", "mpeg4", "h263", "msmpeg4v3", "wmv1", "wmv2", "mjpeg"})
_CUT_OFF = "the file is cut off"
_UNTIMED_CONTAINERS = frozenset({"avi", "h264", "hevc", "m4v", "mpegvideo", "vvc", "obu"})
# Packets that are fed before giving up on the first picture (for its size and rotation).
_FIRST_FRAME_PACKETS = 600
# Seconds by which decoding times go back, or jump ahead, at a break; the values are those of FFmpeg's remux.
BACK_SECONDS = Fraction(1, 10)
AHEAD_SECONDS = 10
_PACKED = re.compile(rb"DivX\d+(?:Build|b)\d+p")
"""User data of MPEG-4 video with two pictures in some packets."""
_HEADER_BITS = 800
"""Bits of the headers before an MPEG-4 picture, at most."""
_UNKNOWN_SIDE_DATA = 16
"""Kinds of frames' side data after the last one that PyAV names; FFmpeg adds one or two a year."""
CLOCKED_CONTAINERS = frozenset({"mpegts", "mpeg", "hls"})
"""Containers whose clock may jump ahead (FFmpeg's flag AVFMT_TS_DISCONT)."""
_LIMIT = {"max_pixels": str(MAX_PIXELS)}
"""Option by which FFmpeg's decoders refuse frames that are larger than the file says."""
TITLES: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
"""Options that read files whose title is not UTF-8; from PyAV 19 on they are not needed."""


class Break(NamedTuple):
    """A place in a file where timestamps start again, as in recordings that were joined."""

    after: int
    """Position in bytes of the last video packet before the break."""
    first: int
    """Position in bytes of the first video packet after it."""
    at: Fraction
    """Time of the break in seconds, on the clock of the first part."""
    shift: Fraction
    """Seconds that are added to the timestamps behind the break."""


@dataclass(frozen=True)
class PacketIndex:
    """Frames of one video stream in presentation order; n of them."""

    stream: int
    """Index of the stream in its container."""
    video_streams: int
    """Number of video streams in the container, cover pictures not counted."""
    container: str
    """FFmpeg's name of the container, for example "mov,mp4,m4a,3gp,3g2,mj2"."""
    codec: str
    pixel_format: str
    width: int
    """Pixels of the stored frame, before rotation."""
    height: int
    rotation: int
    """Degrees anticlockwise (0, 90, 180, 270) that make the stored frame upright."""
    mirrored: bool
    """True if the frame is mirrored left to right after it was turned."""
    sample_aspect_ratio: Fraction
    """Width of a pixel of the stored frame in heights of it."""
    time_base: Fraction
    pts: np.ndarray
    """int64 (n,) in units of time_base, ascending."""
    time_seconds: np.ndarray
    """float64 (n,): pts times time base."""
    breaks: tuple[Break, ...]
    """Places where the file's own timestamps start again; `pts` goes on there."""
    key: np.ndarray
    """bool (n,): key frames."""
    size: np.ndarray
    """int64 (n,): bytes of each frame's packet; 0 if the file does not hold it."""
    place: np.ndarray
    """int64 (n,): place of each frame in the order of the file, from 0."""
    readable: np.ndarray
    """bool (n,): false if the file promises a frame but does not hold its packet (cut off)."""
    seek_pts: np.ndarray
    """int64 (k,): timestamps of the packets from which decoding can start, ascending; also those not shown."""
    seek_dts: np.ndarray
    """int64 (k,): decoding timestamps of the same packets."""
    seek_position: np.ndarray
    """int64 (k,): positions of the same packets in bytes; -1 if not known."""
    ordinal: bool
    """True if the container has no usable timestamps: a frame's rank is then its rank in the decoder's output."""
    open_gop: bool
    """True if some frames are shown before the key frame that they follow in the file."""
    unclean_keys: int
    """Packets flagged as key frames from which decoding starts with wrong pictures (periodic intra refresh)."""
    discarded: int
    """Packets that are decoded but not shown (edit lists)."""
    fps: float
    """Average rate that the container gives, frames per second."""
    truncated: str | None
    """Reason why frames are not readable, for messages; None if all are."""

    def __len__(self) -> int:
        return len(self.pts)

    def beginning(self, frames: int, missing: int = 0) -> PacketIndex:
        """Return the index of the file as it was when it had this many frames, before more were appended.

        `missing`: how many of them, the last ones, the file did not hold then.
        """
        kept = self.place < frames
        last = int(self.pts[kept].max(initial=0))
        seeks = self.seek_pts <= last
        return replace(
            self,
            **{name: getattr(self, name)[kept] for name in ("pts", "time_seconds", "key", "size", "place")},
            readable=(self.readable & (self.place < frames - missing))[kept],
            truncated=_CUT_OFF if missing else self.truncated,
            **{name: getattr(self, name)[seeks] for name in ("seek_pts", "seek_dts", "seek_position")},
            breaks=tuple(one for one in self.breaks if one.at <= last * self.time_base),
        )

    def digest(self, frames: int) -> str:
        """Return a digest of the times and sizes of the first frames of the file: a copy in new boxes has the same."""
        first = np.argsort(self.place)[:frames]
        return hashlib.blake2b(np.stack([self.pts[first], self.size[first]]).tobytes(), digest_size=16).hexdigest()

    @property
    def seek_rank(self) -> np.ndarray:
        """Rank of the first frame that decoding from each seek point gives, int64 (k,)."""
        return np.searchsorted(self.pts, self.seek_pts).astype(np.int64)

    @property
    def duration_seconds(self) -> float:
        """Time from the start of the first frame to the end of the last."""
        if not len(self):
            return 0.0
        return float(self.time_seconds[-1] - self.time_seconds[0] + 1.0 / self.fps)


@dataclass
class _Packets:
    """Packets as demuxing gives them, in file order."""

    pts: list[int | None]
    dts: list[int | None]
    key: list[bool]
    shown: list[bool]
    position: list[int]
    """Bytes from the start of the file; -1 if not known."""
    size: list[int]
    unclean_keys: int = 0
    """Number of key flags that proved wrong."""


def open_container(path: Path) -> InputContainer:
    """Open a video file. If FFmpeg cannot, raise InputError with the likely cause."""
    check_readable(path)
    try:
        # Keep FFmpeg off the network, even for a playlist among the inputs.
        # A name like img%03d.jpg is that of one picture.
        options = {"protocol_whitelist": "file,crypto,data", "pattern_type": "none", **_LIMIT}
        container: InputContainer = av.open(str(path.absolute()), options=options, **TITLES)
    except av.FFmpegError as err:
        boxes = _top_level_boxes(path)
        if "ftyp" in boxes and "moov" not in boxes:
            raise InputError(
                f"{path} is cut off: its index (moov box), which comes last, is missing; copy it again, "
                "or repair it with untrunc and a whole file of the same camera"
            ) from err
        raise InputError(
            f"{path} is not a video that FFmpeg can read ({err.strerror}); check what it is, or convert it to MP4"
        ) from err
    for stream in container.streams.video:
        context = stream.codec_context
        if context is None or stream.disposition & Disposition.attached_pic:
            continue
        why = too_large(context.width, context.height)
        if why is not None:
            container.close()
            raise InputError(f"{path} {why}; scale it down")
        context.options = dict(_LIMIT)
    return container


def check_readable(path: Path) -> None:
    """Raise InputError unless `path` is a readable file that is not empty."""
    try:
        str(path).encode()  # as tables and reports encode it
    except UnicodeEncodeError as err:
        raise InputError(f"{os.fsencode(path)!r}: its name is not UTF-8; rename it") from err
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder; name a video file")
        if not path.exists():
            raise InputError(f"no such file: {path}")
        if not path.is_file():
            raise InputError(f"{path} is a pipe, a socket or a device; name a video file")
        if not os.access(path, os.R_OK):
            raise InputError(f"{path} cannot be read: permission denied; change its permissions")
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty (0 bytes); copy it again")
    except PermissionError as err:
        raise InputError(f"{path} cannot be read: permission denied; change its permissions") from err
    except OSError as err:  # a loop of links, or a name too long: not a path, say a picture in base64
        raise InputError(f"{str(path)[:100]} cannot be reached: {err.strerror}; name a file") from err


def _top_level_boxes(path: Path) -> list[str]:
    """Return the names of the boxes of an MP4 or QuickTime file (ISO/IEC 14496-12, 4.2); nonsense for other files."""
    names: list[str] = []
    size_of_file = path.stat().st_size
    with path.open("rb") as file:
        while file.tell() + 8 <= size_of_file and len(names) < 1000:
            start = file.tell()
            header = file.read(16)
            size = int.from_bytes(header[:4], "big")
            names.append(header[4:8].decode("latin-1"))
            if size == 1:
                size = int.from_bytes(header[8:16], "big")
            if size < 8:
                break
            file.seek(start + size)
    return names


def build_index(path: Path) -> PacketIndex:
    """Read all packets of the default video stream of `path`, and one frame.

    Raises InputError if the file cannot be opened, has no video, or gives no picture.
    """
    with open_container(path) as container:
        form = container.format.name
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams or form == "tty":
            raise InputError(f"{path} has no video stream; name a file with pictures")
        # Players show the first with the default flag, or else the first.
        stream = next((s for s in streams if s.disposition & Disposition.default), streams[0])
        if stream.codec_context is None:
            raise InputError(f"{path}: FFmpeg has no decoder for its video; re-encode it, for example to H.264")
        packets = _read_packets(container, stream)
        if not packets.pts:
            raise InputError(f"{path} has a video stream but not one frame in it")
        promised, why_missing = _promised_packets(container, stream, packets, path)
        codec = stream.codec_context.codec.canonical_name
        reorders = bool(stream.codec_context.has_b_frames)
        rate = Fraction(stream.average_rate or stream.guessed_rate or stream.base_rate or 25)
        base = stream.time_base or Fraction(1, 90000)
        number = stream.index
        aspect = stream.sample_aspect_ratio
    first = _first_frame(path, number)
    step = round(1 / (rate * base)) or 1
    breaks, is_exact = _join_parts(packets, step, base, form in CLOCKED_CONTAINERS)
    pts, missing = _presentation_times(packets, step, reorders)
    dts = np.array([p if d is None else d for p, d in zip(pts.tolist(), packets.dts, strict=True)], np.int64)
    shown, key = np.array(packets.shown), np.array(packets.key)
    n_shown = int(shown.sum())
    odd_container = form in _UNTIMED_CONTAINERS and codec not in _SIMPLE_ORDER
    lost = promised[~np.isin(promised, pts)]
    all_pts = np.concatenate([pts[shown], lost])
    order = np.argsort(all_pts, kind="stable")
    starts = np.flatnonzero(key)
    rotation, mirrored = _orientation(first)
    seeks = starts[np.argsort(pts[starts], kind="stable")]
    ranked = all_pts[order]
    # The largest pts of a key frame up to each packet, in the order of the file.
    key_pts = np.maximum.accumulate(np.where(key, pts, np.iinfo(np.int64).min))
    return PacketIndex(
        stream=number,
        video_streams=len(streams),
        container=form,
        codec=codec,
        pixel_format=first.format.name,
        width=first.width,
        height=first.height,
        rotation=rotation,
        mirrored=mirrored,
        sample_aspect_ratio=aspect if aspect and aspect > 0 else Fraction(1),
        time_base=base,
        pts=ranked,
        time_seconds=ranked * base.numerator / base.denominator,
        breaks=breaks,
        key=np.concatenate([key[shown], np.zeros(len(lost), bool)])[order],
        size=np.concatenate([np.array(packets.size, np.int64)[shown], np.zeros(len(lost), np.int64)])[order],
        place=order.astype(np.int64),
        readable=np.concatenate([np.ones(n_shown, bool), np.zeros(len(lost), bool)])[order],
        seek_pts=pts[seeks],
        seek_dts=dts[seeks],
        seek_position=np.array(packets.position, np.int64)[seeks],
        ordinal=bool(missing or not is_exact or (odd_container and reorders) or len(np.unique(pts[shown])) < n_shown),
        open_gop=bool((pts < key_pts).any()),
        unclean_keys=packets.unclean_keys,
        discarded=len(shown) - n_shown,
        fps=float(rate),
        truncated=why_missing if len(lost) else None,
    )


def _read_packets(container: InputContainer, stream: VideoStream) -> _Packets:
    found = _Packets([], [], [], [], [], [])
    codec = stream.codec_context.codec.canonical_name
    hidden_vp8, h264 = codec == "vp8", codec == "h264"
    extradata = stream.codec_context.extradata or b""
    length_bytes = nal_length_bytes(extradata)
    pts, dts, key, shown = found.pts.append, found.dts.append, found.key.append, found.shown.append
    position, size = found.position.append, found.size.append
    macroblocks = -(-stream.width // 16) * -(-stream.height // 16) if codec == "mpeg4" else 0
    is_cut = False
    try:
        for packet in container.demux(stream):
            if not packet.size:
                continue
            is_cut = packet.is_corrupt
            # RFC 6386, 9.1: bit 4 of a VP8 frame says whether it is shown; alternate references are not.
            visible = not (hidden_vp8 and not bytes(memoryview(packet)[:1])[0] & 0x10)
            if macroblocks and not found.key and _PACKED.search(extradata + bytes(packet)):
                macroblocks = 0  # pictures without content stand for those that lie in the packet before
            if macroblocks and packet.size * 8 < macroblocks + _HEADER_BITS:
                visible = not _is_not_coded(bytes(packet), macroblocks)
            pts(packet.pts)
            dts(packet.dts)
            position(-1 if packet.pos is None else packet.pos)
            size(packet.size)
            clean = packet.is_keyframe and not (h264 and not is_clean_start(memoryview(packet), length_bytes))
            found.unclean_keys += packet.is_keyframe and not clean
            key(clean)
            shown(visible and not packet.is_discard)
    except av.FFmpegError:
        # Damage between packets: keep what was found so far. The frames that the header promises beyond it are added
        # as unreadable.
        pass
    # The file ends within its last packet. (Of streams the flag says that something is missing anywhere in it.)
    if is_cut and len(found.pts) > 1 and container.format.name not in CLOCKED_CONTAINERS:
        for column in (found.pts, found.dts, found.key, found.shown, found.position, found.size):
            del column[-1]
    return found


def _is_not_coded(picture: bytes, macroblocks: int) -> bool:
    """Return whether a picture of MPEG-4 Part 2 has no content: the last one is shown on (ISO/IEC 14496-2, 6.2.5).

    A predicted picture (type 1) with content has at least one bit for each macroblock.
    """
    at = picture.find(b"\0\0\1\xb6") + 4
    return len(picture) == 1 or (at >= 4 and picture[at] >> 6 == 1 and 8 * (len(picture) - at) < macroblocks)


def _first_frame(path: Path, stream_index: int) -> VideoFrame:
    """Return the first picture that the decoder gives: its size, format and rotation hold for all."""
    reason = "no picture came out of its first packets"
    with open_container(path) as container:
        stream = container.streams[stream_index]
        try:
            for count, packet in enumerate(container.demux(stream)):
                try:
                    for frame in packet.decode():
                        assert isinstance(frame, VideoFrame)
                        return frame
                except av.FFmpegError as err:
                    reason = str(err.strerror)
                if count > _FIRST_FRAME_PACKETS:
                    break
        except av.FFmpegError as err:
            reason = str(err.strerror)
    raise InputError(
        _refused_size(path, stream_index)
        or f"{path}: its video cannot be decoded (encrypted, damaged or an unknown codec): {reason}"
    )


def _refused_size(path: Path, stream_index: int) -> str | None:
    """Return the message for frames beyond MAX_PIXELS; None if FFmpeg refused none. Only its log has their size."""
    level, skips = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture() as logged, contextlib.suppress(av.FFmpegError), open_container(path) as container:
            for packet in container.demux(container.streams[stream_index]):
                packet.decode()
    finally:
        av.logging.set_level(level)
        av.logging.set_skip_repeated(skips)
    for found in (re.search(r"Picture size (\d+)x(\d+) exceeds", text) for _, _, text in logged):
        if found is not None:
            return f"{path} {too_large(int(found[1]), int(found[2]))}; scale it down"
    return None


def _orientation(frame: VideoFrame) -> tuple[int, bool]:
    """Return the degrees anticlockwise that make a frame upright, and whether it is to be mirrored after that.

    A negative determinant of the display matrix mirrors, as in FFmpeg's autorotate.
    """
    try:
        side_data: Any = frame.side_data
    except ValueError:
        side_data = _without_unknown_side_data(frame).side_data
    if Type.DISPLAYMATRIX not in side_data:
        return 0, False
    a, b, c, d = np.frombuffer(side_data[Type.DISPLAYMATRIX], np.int32).astype(float)[[0, 1, 3, 4]]
    mirrored = bool(a * d - b * c < 0)
    degrees = -np.degrees(np.arctan2(b, -a)) if mirrored else frame.rotation
    return round(degrees / 90) * 90 % 360, mirrored


def _without_unknown_side_data(frame: VideoFrame) -> VideoFrame:
    """Return a frame without the kinds of side data that are newer than PyAV, EXIF for one, which it fails on."""
    graph = Graph()
    base = frame.time_base or Fraction(1, 25)
    begin = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=base)
    kinds: Any = Type
    unknown = range(len(kinds), len(kinds) + _UNKNOWN_SIDE_DATA)
    filters = [graph.add("sidedata", f"mode=delete:type={number}") for number in unknown]
    graph.link_nodes(begin, *filters, graph.add("buffersink")).configure()
    graph.vpush(frame)
    return graph.vpull()


def _join_parts(packets: _Packets, step: int, base: Fraction, clocked: bool) -> tuple[tuple[Break, ...], bool]:
    """Put parts of a file whose timestamps start again one after the other, in place.

    Return the breaks, and whether the position of a packet says to which part it belongs.
    """
    times = np.array([np.nan if d is None else d for d in packets.dts], float)
    known = np.flatnonzero(~np.isnan(times))
    gaps = np.diff(times[known])
    is_break = gaps < -float(BACK_SECONDS / base)
    if clocked and len(gaps):
        # The frames of a time-lapse film may be far apart: only a gap that is long among the others counts.
        is_break |= gaps - step > max(float(AHEAD_SECONDS / base), 10 * float(np.median(gaps)))
    edges = known[1:][is_break].tolist()
    if not edges:
        return (), True
    position = np.maximum.accumulate(packets.position).tolist()  # a packet without one lies behind the last that has
    breaks: list[Break] = []
    last = max((p for p in packets.pts[: edges[0]] if p is not None), default=0)
    for start, stop in zip(edges, [*edges[1:], len(times)], strict=True):
        inside = [p for p in packets.pts[start:stop] if p is not None] or [int(times[start])]
        shift = last + step - min(inside)
        breaks.append(Break(position[start - 1], position[start], (last + step) * base, shift * base))
        for stamps in (packets.pts, packets.dts):
            stamps[start:stop] = [None if one is None else one + shift for one in stamps[start:stop]]
        last = max(inside) + shift
    firsts = [one.first for one in breaks]
    part = np.searchsorted(edges, np.arange(len(times)), side="right")
    return tuple(breaks), bool((np.searchsorted(firsts, position, side="right") == part).all())


def demuxed(
    container: InputContainer, streams: Stream | Sequence[Stream], breaks: Sequence[Break], position: int = 0
) -> Iterator[Packet[Any]]:
    """Return packets of some streams. If the file's own timestamps start again, theirs go on.

    `position` is the place from which the container is read, in bytes.
    """
    return _shifted(container, streams, breaks, position) if breaks else container.demux(streams)


def _shifted(
    container: InputContainer, streams: Stream | Sequence[Stream], breaks: Sequence[Break], position: int
) -> Iterator[Packet[Any]]:
    firsts = [one.first for one in breaks]
    part = bisect_right(firsts, position)
    for packet in container.demux(streams):
        if packet.size:
            if packet.pos is not None:
                part = bisect_right(firsts, packet.pos)
            shift = _shift_of(packet, part, breaks)
            if packet.pts is not None:
                packet.pts += shift
            if packet.dts is not None:
                packet.dts += shift
        yield packet


def _shift_of(packet: Packet[Any], part: int, breaks: Sequence[Break]) -> int:
    """Return what is added to the timestamps of a packet from a part, 0 for the first."""
    shift = breaks[part - 1].shift if part else Fraction(0)
    if part < len(breaks) and packet.pos is not None and packet.pts is not None and packet.pos > breaks[part].after:
        # Sound lies between the pictures of two parts: it belongs to the one that it is nearer to.
        to_break = breaks[part].at - packet.pts * packet.time_base
        shift = min(shift, breaks[part].shift, key=lambda one: abs(to_break - one))
    return round(shift / packet.time_base)


def _promised_packets(
    container: InputContainer, stream: VideoStream, found: _Packets, path: Path
) -> tuple[np.ndarray, str | None]:
    """Return times (int64, time base) of frames that the file promises but does not hold, and why they are missing."""
    name, size = container.format.name, path.stat().st_size
    # Samples of no bytes say that the last frame is shown on: they are no frames.
    has_more = "mp4" in name and len(stream.index_entries) > len(found.pts)
    samples = [entry for entry in stream.index_entries if entry.size] if has_more else []
    if len(samples) > len(found.pts) and max(entry.pos + entry.size for entry in samples) > size:
        return _missing_samples(np.array([entry.timestamp for entry in samples], np.int64), found), _CUT_OFF
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    step = max(1, round(1 / (rate * (stream.time_base or Fraction(1, 90000)))))
    times = [pts for pts in found.pts if pts is not None]
    if name == "avi" and times and _avi_cut_off(path):
        return np.arange(max(times) + step, min(times) + stream.frames * step, step, dtype=np.int64), _CUT_OFF
    if name == "matroska,webm" and times and _matroska_cut_off(path):
        # The end of the video by the stream's own tag if there is one, or else by the container's.
        seconds = (container.duration or 0) / av.time_base
        parts = stream.metadata.get("DURATION", "").split(":")
        if len(parts) == 3:
            seconds = int(parts[0]) * 3600 + int(parts[1]) * 60 + float(parts[2])
        end = int(seconds / (stream.time_base or Fraction(1, 1000)))
        return np.arange(max(times) + step, end - step // 2, step, dtype=np.int64), _CUT_OFF
    return np.empty(0, np.int64), None


def _missing_samples(dts: np.ndarray, found: _Packets) -> np.ndarray:
    """Return the pts (int64) of samples that a sample table (their dts) names but demuxing did not give.

    At an even rate the pts of all frames are their dts in order, shifted. At an uneven rate this is an approximation.
    """
    first_dts = next((d for d in found.dts if d is not None), 0)
    seen = np.array([p for p in found.pts if p is not None], np.int64)
    shift = int(seen.min()) - first_dts if len(seen) else 0
    grid = np.sort(dts) + shift
    return grid[~np.isin(grid, seen)][len(found.pts) - len(dts) :]


def _avi_cut_off(path: Path) -> bool:
    """Return whether a list of frames ("movi") of an AVI file claims to reach beyond the end of the file.

    The number of frames in the header proves nothing: it counts the times at which the last frame is shown again.
    """
    size_of_file = path.stat().st_size
    with path.open("rb") as file:
        at = 0
        while at + 12 <= size_of_file:
            file.seek(at)
            kind, size, form = file.read(4), int.from_bytes(file.read(4), "little"), file.read(4)
            if kind == b"LIST" and form == b"movi" and size in (0, 0xFFFFFFFF):  # a recording that was never closed
                return False
            if kind == b"LIST" and form == b"movi" and at + 8 + size > size_of_file:
                return True
            if not kind.strip().isalnum():
                return False
            # A RIFF chunk holds the lists, and further ones follow it in files of more than 1 GB.
            at += 12 if kind == b"RIFF" else 8 + size + size % 2
    return False


def _matroska_cut_off(path: Path) -> bool:
    """Return whether the segment of a Matroska file (RFC 8794, 9559) claims to be longer than the file."""
    with path.open("rb") as file:
        head = file.read(4096)
    at = head.find(b"\x18\x53\x80\x67")
    if at < 0:
        return False
    first = head[at + 4]
    length = 9 - first.bit_length()
    field = head[at + 4 : at + 4 + length]
    size = int.from_bytes(field, "big") & ((1 << 7 * length) - 1)
    unknown = size == (1 << 7 * length) - 1
    return not unknown and at + 4 + length + size > path.stat().st_size


def _presentation_times(packets: _Packets, step: int, reorders: bool) -> tuple[np.ndarray, bool]:
    """Return the pts of all packets in file order (int64), and whether they leave the order of frames open."""
    pts = packets.pts
    if None not in pts:
        return np.array(pts, np.int64), False
    if not reorders and not any(p is None and d is None for p, d in zip(pts, packets.dts, strict=True)):
        return np.array([d if p is None else p for p, d in zip(pts, packets.dts, strict=True)], np.int64), False
    start = next((d for d in packets.dts if d is not None), 0)
    return start + step * np.arange(len(pts), dtype=np.int64), True

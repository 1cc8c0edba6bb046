"""Open decoders, kept between chunks so that a process decodes each group of pictures once.

A reader has a position in its file. A chunk goes on from a reader whose position is between the chunk's key frame and
its first frame. If a reader will soon be there, the chunk waits for it; else a reader seeks to the key frame. One
thread at a time uses a reader.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from pipeline.media.video.h264 import is_unreferenced, nal_length_bytes
from pipeline.media.video.index import Break, demuxed, open_container

PARKED_READERS = 4
"""Parked readers that a process keeps open; each holds its codec's reference frames."""


@dataclass(frozen=True)
class FileKey:
    """Identity of a reader's file; another size or time of change is another file."""

    decoder: str
    path: str
    bytes: int
    mtime_ns: int
    stream: int
    breaks: tuple[Break, ...] = ()
    """Places where the file's own timestamps start again."""


@dataclass(frozen=True)
class Segment:
    """Frames of a chunk that are read without a seek between them; values only."""

    first: int
    """Index in the chunk of the first frame (inclusive)."""
    last: int
    """Index in the chunk of the last frame (exclusive)."""
    key_rank: int
    """Rank of the first frame that decoding from the key frame gives."""
    keys: tuple[tuple[int, int, int], ...]
    """(pts, dts, position in bytes) of key frames to start from: the nearest, then others further back."""


class Reader:
    """One open decoder. A plain Reader has none: it holds the place of a reader that is being opened."""

    position: int = -1
    """Rank of the last frame that it gave; -1 at the start of the file."""

    def park(self) -> None:
        """Prepare for a pause."""

    def close(self) -> None:
        """Free the decoder and its file."""


@dataclass(frozen=True)
class Sent:
    """A packet that was sent to the decoder; its frame carries this."""

    number: int
    """Number of packets since the reader's last seek, in file order."""
    pts: int | None
    key: bool


def sent_of(frame: VideoFrame) -> Sent:
    """Return the packet that a frame came from."""
    assert isinstance(frame.opaque, Sent)
    return frame.opaque


class PacketReader(Reader):
    """PyAV: packets in, frames out, each frame with the packet that it came from."""

    def __init__(self, path: str, stream: int, threads: int, breaks: tuple[Break, ...] = ()) -> None:
        self.sent = 0
        """Number of packets ever sent to the decoder."""
        self.last_sent: Sent
        """Packet that was sent last: with one thread, the one that an error is about."""
        self._path, self._stream_index, self._threads, self._breaks = path, stream, threads, breaks
        self._reformatter = VideoReformatter()
        self._open()

    def _open(self) -> None:
        self._container = open_container(Path(self._path))
        stream = self._container.streams[self._stream_index]
        assert isinstance(stream, VideoStream)
        self._stream = stream
        self._context: VideoCodecContext = stream.codec_context
        self._context.thread_type = "AUTO" if self._threads > 1 else "NONE"
        self._context.thread_count = max(1, self._threads)
        self._context.copy_opaque = True
        self._primed = False
        # Size of NAL lengths; 0 also for MPEG-TS, which may store a picture's two fields as two packets.
        prefixed = self._container.format.name.startswith(("mov", "matroska"))
        h264 = self._context.codec.canonical_name == "h264"
        self._nal_length_bytes = nal_length_bytes(self._context.extradata) if h264 and prefixed else 0
        self._restart(None)

    def _restart(self, packet: Packet[Any] | None) -> None:
        position = 0 if packet is None or packet.pos is None else packet.pos
        self._packets = demuxed(self._container, self._stream, self._breaks, position)
        self._next = packet
        self._number = 0
        self._shown = 0
        self._recent: deque[int] = deque(maxlen=64)
        self.keys: deque[Sent] = deque(maxlen=4096)
        self._pending: deque[VideoFrame] = deque()
        self.ended = False

    def rewind(self) -> None:
        """Go to the very first packet of the file."""
        self._container.close()
        self._open()
        self.position = -1

    def seek(self, pts: int, dts: int, position: int, earlier: int) -> bool:
        """Go to the key frame with these timestamps; return False if no seek finds its packet.

        Containers without an index (MPEG-TS) seek inexactly, so the packet that is read afterwards decides. If the
        file's own timestamps start again, they do not say where to go: its position in bytes does.
        """
        self._prime()
        second = round(1 / (self._stream.time_base or 1))
        by_byte = bool(self._breaks)
        targets = (position,) if by_byte else (pts, dts, dts - second, earlier - second, dts - 10 * second)
        for target in targets:
            try:
                self._container.seek(target, stream=self._stream, backward=True, unsupported_byte_offset=by_byte)
                found = self._find(pts, dts, position)
            except av.FFmpegError:
                continue
            if found is not None:
                self._restart(found)
                return True
        return False

    def _prime(self) -> None:
        """Show the decoder the first packet of the file once, before the reader seeks.

        x264 writes its version there, and nowhere else. FFmpeg needs it to correct the errors of old versions (4:4:4
        comes out wrong without it).
        """
        if self._primed:
            return
        self._primed = True
        if self._number == 0 and self._context.codec.canonical_name == "h264":
            try:
                self._context.decode(next(packet for packet in self._packets if packet.size))
            except (StopIteration, av.FFmpegError):
                return

    def _find(self, pts: int, dts: int, position: int) -> Packet[Any] | None:
        """Return the key packet with this pts among those that follow, None if it is already past."""
        for packet in demuxed(self._container, self._stream, self._breaks, position):
            if packet.pts == pts and packet.is_keyframe and packet.size:
                return packet
            if packet.dts is not None and packet.dts > dts:
                return None
        return None

    def frames(self, wanted: frozenset[int] | None, last_pts: int) -> Iterator[VideoFrame]:
        """Yield frames in the order in which they are shown, from the reader's position.

        Frames up to `last_pts` that are not in `wanted` may be left out; None wants all. Raises av.FFmpegError for a
        packet that cannot be decoded; call again to go on after it.
        """
        while True:
            while self._pending:
                yield self._pending.popleft()
            if self.ended:
                return
            packet = self._take()
            if packet is None or not self._is_needless(packet, wanted, last_pts):
                self._pending.extend(self._send(packet))

    def rank_of(self, frame: VideoFrame) -> int:
        """Return the rank of a frame by its position in the output since the start of the file. Call once per frame.

        The count is corrected at each key frame, for packets that gave no frame. The frames shown before a key frame
        are those of the packets before it in the file, and those after it that were shown already.
        """
        sent = sent_of(frame)
        if sent.key:
            self._shown = sent.number + sum(number > sent.number for number in self._recent)
        rank = self._shown
        self._shown += 1
        self._recent.append(sent.number)
        return rank

    def _take(self) -> Packet[Any] | None:
        packet, self._next = self._next, None
        try:
            while packet is None or not packet.size:
                packet = next(self._packets)
        except (StopIteration, av.FFmpegError):
            # Truncated files end in an error; the decoder still holds good frames.
            self.ended = True
            return None
        return packet

    def _is_needless(self, packet: Packet[Any], wanted: frozenset[int] | None, last_pts: int) -> bool:
        """Return whether a packet is neither wanted nor referred to by others, so that it can be left out.

        The decoder's own skip_frame would do the same, but it hides errors in packets that are needed.
        """
        if not self._nal_length_bytes or wanted is None or packet.pts is None:
            return False
        if packet.pts >= last_pts or packet.pts in wanted:
            return False
        return is_unreferenced(memoryview(packet), self._nal_length_bytes)

    def _send(self, packet: Packet[Any] | None) -> Sequence[VideoFrame]:
        if packet is not None:
            packet.opaque = self._note_sent(packet)
        return self._context.decode(packet)

    def _note_sent(self, packet: Packet[Any]) -> Sent:
        self.last_sent = Sent(self._number, packet.pts, packet.is_keyframe)
        if packet.is_keyframe:
            self.keys.append(self.last_sent)
        self._number += 1
        self.sent += 1
        return self.last_sent

    @property
    def has_frames(self) -> bool:
        """True if decoded frames wait to be given out."""
        return bool(self._pending)

    def to_rgb(self, frame: VideoFrame, width: int, height: int) -> np.ndarray:
        """Return a uint8 (height, width, 3) view of `frame` in RGB, not yet rotated; valid until the view is dropped.

        This is the swscale conversion of `frame.to_ndarray(format="rgb24")` without its copy (3 of 4 ms at 1080p). It
        uses one thread: swscale's own threads gain nothing on one frame, and stalled under several of ours.
        """
        rgb = self._reformatter.reformat(frame, width=width, height=height, format="rgb24", threads=1)
        plane = rgb.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)  # type: ignore[call-overload]
        view: np.ndarray = rows[:height, : width * 3].reshape(height, width, 3)
        return view

    def close(self) -> None:
        self._container.close()


def load_decord() -> Any:
    """Import decord, after OpenCV: decord has a zlib of its own, with which OpenCV could not read PNG pictures."""
    import cv2  # noqa: F401
    import decord

    return decord


class DecordReader(Reader):
    """Frames from decord, by rank, upright. It decodes ahead without bound unless it is parked at the start."""

    def __init__(self, path: str, threads: int) -> None:
        decord = load_decord()
        decord.logging.set_level(decord.logging.QUIET)
        self._reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=max(1, threads))
        self._next = 0
        """Rank of the frame that decord gives next; the pool uses `position`."""

    def __len__(self) -> int:
        return len(self._reader)

    def read(self, rank: int) -> np.ndarray:
        """Return the frame of this rank, uint8 (height, width, 3); it must come after the last one read."""
        if rank > self._next:
            self._reader.skip_frames(rank - self._next)
        frame: np.ndarray = self._reader.next().asnumpy()
        self._next, self.position = rank + 1, rank
        return frame

    def seek(self, key_rank: int) -> None:
        """Go to the key frame of this rank."""
        if self._next != key_rank:
            self._reader.seek(key_rank)
            self._next = key_rank

    def park(self) -> None:
        self._reader.seek(0)
        self._next, self.position = 0, -1

    def close(self) -> None:
        del self._reader


@dataclass
class _Entry:
    """A reader in the pool."""

    key: FileKey
    reader: Reader
    busy: bool = True
    goal: int = 0
    """Rank of a busy reader's position when its borrower gives it back."""

    @property
    def reach(self) -> int:
        return self.goal if self.busy else self.reader.position


@dataclass
class _Request:
    """A thread that waits for frames first to last of a file, decodable from key_rank on."""

    key: FileKey
    key_rank: int
    first: int
    last: int


@dataclass
class ReaderPool:
    """The readers of this process. Thread-safe.

    Several threads decode neighbouring chunks at once, and several chunks may share one group of pictures. If each
    chunk started at its key frame, the group would be decoded once per chunk. So the pool chooses for each request,
    under one lock (`_changed`):

    1. A free reader of the same file between the request's key frame and its first frame. The thread goes on from
       there.
    2. A busy reader that will be there once its borrower is done (`goal`). The thread waits, because decoding the
       same frames again would take as long. If several threads wait for one reader, the earliest frames come first.
    3. Otherwise any free reader of the file, which seeks, or a new one. A new reader takes its place in `_entries`
       before it is open, so that the next chunk of its group already waits for it.

    When a reader comes back, it is parked unless a waiting thread needs it; decord would decode ahead meanwhile. Of
    all free readers the `limit` last used stay open. A reader whose borrower raised is closed, because its position
    is unknown.
    """

    limit: int = PARKED_READERS
    _entries: list[_Entry] = field(default_factory=list)
    """Least recently used first."""
    _waiting: list[_Request] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    @contextmanager
    def borrow(self, key: FileKey, key_rank: int, first: int, last: int, threads: int) -> Iterator[tuple[Reader, bool]]:
        """Yield a reader for frames first to last (ranks, inclusive), and whether it can go on from its position.

        If not, the borrower has to seek. A reader is closed if its borrower raises.
        """
        request = _Request(key, key_rank, first, last)
        entry, goes_on = self._acquire(request, threads)
        try:
            yield entry.reader, goes_on
        except BaseException:
            self._drop(entry)
            raise
        with self._changed:
            entry.busy = False
            if not any(self._nearest(w) is entry for w in self._waiting):
                entry.reader.park()
            surplus = [e for e in self._entries if not e.busy][: -self.limit or None]
            for old in surplus:
                self._entries.remove(old)
            self._changed.notify_all()
        for old in surplus:
            old.reader.close()

    def _acquire(self, request: _Request, threads: int) -> tuple[_Entry, bool]:
        with self._changed:
            self._waiting.append(request)
            try:
                while True:
                    near = self._nearest(request)
                    if near is None:
                        free = (e for e in self._entries if e.key == request.key and not e.busy)
                        entry, goes_on = next(free, None), False
                        break
                    if not near.busy and not self._someone_before(request, near):
                        entry, goes_on = near, True
                        break
                    self._changed.wait()
            finally:
                self._waiting.remove(request)
            if entry is not None:
                entry.busy, entry.goal = True, request.last
                if not goes_on:
                    entry.reader.position = request.key_rank - 1
                self._entries.remove(entry)
                self._entries.append(entry)
                self._changed.notify_all()
                return entry, goes_on
            # Take a place at once, so that the next chunk of this group of pictures waits for this reader.
            entry = _Entry(request.key, Reader(), goal=request.last)
            entry.reader.position = request.key_rank - 1
            self._entries.append(entry)
        key = request.key
        reader: Reader
        try:
            if key.decoder == "decord":
                reader = DecordReader(key.path, threads)
            elif key.decoder == "nvdec":
                from pipeline.media.video.nvdec import NvdecReader

                reader = NvdecReader(key.path, key.stream, key.breaks)
            else:
                reader = PacketReader(key.path, key.stream, threads, key.breaks)
        except BaseException:
            self._drop(entry)
            raise
        reader.position, entry.reader = request.key_rank - 1, reader
        return entry, False

    def _nearest(self, request: _Request) -> _Entry | None:
        """Return the reader whose position is, or will be, nearest before the first frame; None if there is none.

        A reader whose position is still before the key frame does not count: waiting for it would gain nothing.
        """
        near = [
            e
            for e in self._entries
            if e.key == request.key and request.key_rank - 1 <= e.reader.position and e.reach < request.first
        ]
        return max(near, key=lambda e: e.reach, default=None)

    def _someone_before(self, request: _Request, entry: _Entry) -> bool:
        """Return whether another waiting thread wants this reader for frames before ours."""
        return any(
            w is not request
            and w.key == request.key
            and entry.reach < w.first
            and w.last < request.first
            and w.key_rank - 1 <= entry.reader.position
            for w in self._waiting
        )

    def _drop(self, entry: _Entry) -> None:
        with self._changed:
            if entry in self._entries:
                self._entries.remove(entry)
            self._changed.notify_all()
        entry.reader.close()

    def close(self) -> None:
        """Close all readers that are not in use."""
        with self._changed:
            idle = [e for e in self._entries if not e.busy]
            self._entries = [e for e in self._entries if e.busy]
        for entry in idle:
            entry.reader.close()

    def __len__(self) -> int:
        return len(self._entries)


POOL = ReaderPool()
"""The readers of this process."""


def close_readers() -> None:
    """Close the parked readers of this process."""
    POOL.close()

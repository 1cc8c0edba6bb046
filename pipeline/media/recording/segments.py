"""The folder of a recorder: segments that appear whole, what a kill left behind, and how long segments are kept."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import av
from av.packet import Packet
from av.video.stream import VideoStream

from pipeline.errors import InputError, ReelgraphError, StoreError, StoreLockedError, UsageError
from pipeline.files.journal import JOURNAL, Journal
from pipeline.files.lock import StoreLock
from pipeline.files.whole import PARTIAL, made_folder, put_in_place
from pipeline.media.video.index import open_container
from pipeline.store.nodes import disk_errors
from pipeline.store.read import RunInput
from pipeline.text import plural

LOCK = f"{JOURNAL}.lock"
_NAME = re.compile(r"(.+)_(\d{8}T\d{6}_\d{3}Z)\.mkv")
_WRITER_OPTIONS = {"cluster_time_limit": "250", "flush_packets": "1"}
"""Options of Matroska's writer: it holds back a quarter of a second of video, which is what a kill takes."""
_ENCODER = "libx264"
_ENCODER_OPTIONS = {"preset": "veryfast", "crf": "20", "tune": "zerolatency"}


class Segments:
    """A folder that this process alone records into."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        """Take the folder, and put in order what an earlier recorder left.

        Raises UsageError if it cannot be written, or another recorder has it.
        """
        self.folder, self.say = folder, say
        self.finished_count = self.removed_count = self.kept_count = 0
        self._changing = threading.Lock()
        try:
            made_folder(folder)
            self._lock = StoreLock.acquire(folder, name=LOCK)
            self.journal = Journal(folder)
        except StoreLockedError as err:
            raise UsageError(f"{err}; or record into another folder") from err
        except OSError as err:
            advice = "free some space, or choose another --to"
            raise UsageError(f"{folder} cannot be written: {err.strerror or err}; {advice}") from err
        for left in sorted(folder.glob(f".*{PARTIAL}")):
            found = _NAME.fullmatch(left.name[1:].removesuffix(PARTIAL))
            if found is not None:
                self._salvage(left, found[1], _time_of(found[2]))

    def close(self) -> None:
        """Give the folder back."""
        self._lock.release()

    def begin(self, camera: str, at: float, stream: VideoStream, encode: bool) -> Segment:
        """Begin a segment of a camera that starts at a time (seconds since 1970). Raises OSError."""
        with self._changing:
            name = _name(camera, at)
            while any(path.exists() for path in (self.folder / name, self._aside(name))):
                at += 0.001  # the clock was set back
                name = _name(camera, at)
            return Segment(self._aside(name), self.folder / name, at, stream, encode)

    def finish(self, segment: Segment) -> bool:
        """Close a segment and give it its name; return False if it held no frame. Raises OSError, StoreError."""
        if not segment.close():
            return False
        with self._changing, disk_errors(f"finish {segment.place.name}"):
            put_in_place(segment.aside, segment.place)
            self.journal.finished(segment.place.name)
            self.finished_count += 1
        return True

    def dropped_if_empty(self, segment: Segment) -> bool:
        """Remove the hidden file of a segment that could not be closed if nothing of it is on the disk."""
        with suppress(OSError):
            if segment.aside.stat().st_size == 0:
                segment.aside.unlink()
                return True
        return False

    def retain(self, most_bytes: float, most_seconds: float, analysed_in: Path | None = None) -> None:
        """Delete the oldest finished segments beyond these limits: those of the journal alone, and never the last.

        With `analysed_in`, a store, those that it has not analysed to the end stay too, and `kept_count` counts them.
        """
        with self._changing:
            sizes = self.journal.bytes_of
            total, oldest, self.kept_count = sum(sizes.values()), time.time() - most_seconds, 0
            for name in sorted(sizes, key=_start_of)[:-1]:
                if total <= most_bytes and _start_of(name) >= oldest:
                    break
                if analysed_in is not None and not is_analysed(self.folder / name, analysed_in):
                    self.kept_count += 1
                    continue
                total -= sizes[name]
                try:
                    self.journal.remove(name)
                except OSError as err:
                    self.say(f"{name} cannot be deleted: {err.strerror}; check the permissions of {self.folder}")
                    break
                self.removed_count += 1

    def _aside(self, name: str) -> Path:
        return self.folder / f".{name}{PARTIAL}"

    def _salvage(self, left: Path, camera: str, at: float) -> None:
        """Write the frames of a segment that was never closed into one that is; remove it if it holds none."""
        segment: Segment | None = None
        try:
            with suppress(av.FFmpegError, InputError), open_container(left) as media:
                stream = media.streams.video[0]
                for packet in media.demux(stream):
                    if packet.size:
                        segment = segment or self.begin(camera, at, stream, False)
                        segment.take(packet, int(packet.pts or 0), int(packet.dts or packet.pts or 0))
            if segment is not None and self.finish(segment):
                frames = plural(segment.frames, "frame")
                self.say(f"{segment.place.name}: saved {frames} of a segment that an earlier recorder did not close")
            else:
                self.say(f"{left.name}: removed; an earlier recorder did not close it, and it holds no whole frame")
            left.unlink()
        except (OSError, ReelgraphError, IndexError) as err:
            self.say(f"{left.name}: left as it is; it cannot be saved: {getattr(err, 'strerror', None) or err}")


class Segment:
    """A segment under way: a hidden file that a thread of its camera fills, and that another may close."""

    def __init__(self, aside: Path, place: Path, at: float, stream: VideoStream, encode: bool) -> None:
        """`at`: seconds since 1970. `encode`: the packets hold raw pictures. Raises OSError."""
        self.aside, self.place, self.at = aside, place, at
        self.frames = 0
        self.origin: int | None = None
        """Time of the first frame, in the time base of the stream; it becomes time 0."""
        self._changing = threading.Lock()
        self._source, self._encode, self._is_closed = stream, encode, False
        with _writing():
            self._container = av.open(str(aside), "w", format="matroska", options=_WRITER_OPTIONS)
            self._container.metadata["creation_time"] = datetime.fromtimestamp(at, UTC).isoformat()
            self._stream: Any = self._add_encoded() if encode else self._container.add_stream_from_template(stream)

    def _add_encoded(self) -> Any:
        source = self._source
        stream: Any = self._container.add_stream(_ENCODER, rate=source.guessed_rate or 25, options=_ENCODER_OPTIONS)
        stream.width, stream.height, stream.pix_fmt = source.width // 2 * 2, source.height // 2 * 2, "yuv420p"
        assert source.time_base is not None
        stream.codec_context.time_base = source.time_base
        return stream

    def take(self, packet: Packet[Any], pts: int, dts: int) -> bool:
        """Write a packet with these times (time base of the stream); False if the segment is closed. Raises OSError."""
        with self._changing, _writing():
            if self._is_closed:
                return False
            if self.origin is None:
                self.origin = dts
            packet.pts, packet.dts = pts - self.origin, dts - self.origin
            if self._encode:
                for frame in packet.decode():
                    fitted = frame.reformat(self._stream.width, self._stream.height, "yuv420p")
                    self._container.mux(self._stream.encode(fitted))
            else:
                packet.stream = self._stream
                self._container.mux_one(packet)
            self.frames += 1
            return True

    def close(self) -> bool:
        """Write the end of the file; return False if it is closed already, or holds no frame. Raises OSError."""
        with self._changing, _writing():
            if self._is_closed:
                return False
            self._is_closed = True
            if not self.frames:
                self._container.close()
                self.aside.unlink(missing_ok=True)
                return False
            if self._encode:
                self._container.mux(self._stream.encode())
            self._container.close()
            return True


@contextmanager
def _writing() -> Iterator[None]:
    """Raise what FFmpeg says of a file that is written as a plain OSError: the camera has no part in it."""
    try:
        yield
    except av.FFmpegError as err:
        raise OSError(err.errno, err.strerror) from err


def is_analysed(segment: Path, store: Path) -> bool:
    """Return whether a store has all results of a segment: of each chunk, by each stage."""
    try:
        found = RunInput(store, segment.stem)
        return found.complete and found.done_share == 1.0 and os.path.samefile(found.attributes["path"], segment)
    except (StoreError, OSError, KeyError):  # no such store or input, or one that is being written
        return False


def _name(camera: str, at: float) -> str:
    moment = datetime.fromtimestamp(at, UTC)
    return f"{camera}_{moment:%Y%m%dT%H%M%S}_{moment.microsecond // 1000:03d}Z.mkv"


def _time_of(stamp: str) -> float:
    return datetime.strptime(stamp, "%Y%m%dT%H%M%S_%fZ").replace(tzinfo=UTC).timestamp()


def _start_of(name: str) -> float:
    """Return when a segment of the journal starts (seconds since 1970), by its name."""
    found = _NAME.fullmatch(name)
    return _time_of(found[2]) if found is not None else 0.0


@contextmanager
def recording_into(folder: Path, say: Callable[[str], None]) -> Iterator[Segments]:
    """Hold a folder while it is recorded into. Raises UsageError."""
    segments = Segments(folder, say)
    try:
        yield segments
    finally:
        segments.close()

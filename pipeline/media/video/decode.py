"""Decode one chunk of a video on a worker, from values only, without an index."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from socket import gethostname

import av
import numpy as np
from av.video.frame import VideoFrame

from pipeline.engine.source import Job, Loaded
from pipeline.errors import InputError
from pipeline.machine.memory import MEMORY
from pipeline.media.video.index import Break
from pipeline.media.video.readers import POOL, DecordReader, FileKey, PacketReader, Segment, Sent, load_decord, sent_of

# After damage, frames are watched this far beyond the last wanted one: the longest reordering of H.264 and H.265 is 16.
_WATCHED_BEYOND = 32
_LISTED_RUNS = 4
# Encoders round sizes: a film of 853x480 says 1280:1281. The ratios of broadcasts begin at 1.067 (16:15).
_NEARLY_SQUARE = Fraction(102, 100)
_LONGEST_PIXEL = 8


class _TroubleError(Exception):
    """A frame is missing or damaged: read again, packet by packet."""


@dataclass(frozen=True)
class Decoded:
    """Pixels of one chunk."""

    frames_rgb: np.ndarray
    """uint8 (n, height, width, 3): upright, RGB; zero for a frame that is not decoded."""
    decoded: np.ndarray
    """bool (n,)."""
    source_frames_decoded: int = 0
    """Frames that the decoder had to decode to get these."""
    error: str | None = None
    """Why frames are missing, in one line; None if none is."""


@dataclass(frozen=True, eq=False)
class VideoDecodeJob(Job):
    """Sampled frames of one chunk; n of them."""

    path: str
    bytes: int
    mtime_ns: int
    survey: tuple[tuple[str, int | str], ...]
    """Facts by which the file is known when it has grown since the run was set up."""
    stream: int
    decoder: str
    """"pyav", "decord" or "nvdec"."""
    width: int
    """Pixels of the stored frame, before rotation."""
    height: int
    rotation: int
    """Degrees anticlockwise that make it upright."""
    mirrored: bool
    """True if it is mirrored left to right after that."""
    roi: tuple[int, int, int, int] | None
    """x, y, w, h in pixels of the upright frame."""
    size: tuple[int, int]
    """Width and height of the frames that the job gives: those of the upright frame, or of its roi, unless `square`."""
    square: bool
    """True if frames are resized to `size`, because their pixels are not square in the file."""
    rank: np.ndarray
    """int64 (n,): ranks in presentation order, ascending."""
    pts: np.ndarray
    """int64 (n,): presentation times in the stream's time base."""
    time_seconds: np.ndarray
    """float64 (n,): presentation times in seconds."""
    readable: np.ndarray
    """bool (n,): false if the file holds no packet for the frame."""
    unreadable_reason: str | None
    ordinal: bool
    """True if frames are identified by their rank in the output, not by pts."""
    segments: tuple[Segment, ...]
    breaks: tuple[Break, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a decoded frame."""
        return self.size[1], self.size[0], 3

    def load(self, threads: int = 1) -> Loaded:
        """Decode the chunk; `frames_rgb` is uint8 (n, height, width, 3)."""
        result = self.decode(threads)
        return Loaded({"frames_rgb": result.frames_rgb}, result.decoded, result.error)

    def decode(self, threads: int = 1) -> Decoded:
        """Decode the chunk on `threads` codec threads.

        Frames that were appended since the run was set up change nothing. Raises InputError if the file is gone, or has
        changed otherwise.
        """
        try:
            now = Path(self.path).stat()
        except OSError as err:
            raise InputError(
                f"{self.path} is gone since the run was set up, or {gethostname()} does not see it: {err.strerror}; "
                "put it back, or mount it there"
            ) from err
        state = (now.st_size, now.st_mtime_ns)
        is_same = state == (self.bytes, self.mtime_ns)
        if not is_same and not _has_only_grown(self.path, self.survey, state):
            raise InputError(f"{self.path} has changed since the run was set up; start over with --fresh")
        output = _Output(self)
        for segment in self.segments:
            # Decord counts frames, and of frames that were appended some may be shown before those that were there.
            if self.decoder == "decord" and is_same and self._read_decord(segment, output, threads):
                continue
            if self.decoder == "nvdec" and self._read_nvdec(segment, output):
                continue
            if not self._read_packets(segment, output, threads):
                self._read_carefully(segment, output)
        output.frames[~output.decoded] = 0
        return Decoded(output.frames, output.decoded, output.sent, output.explain())

    def _key(self, decoder: str) -> FileKey:
        return FileKey(decoder, self.path, self.bytes, self.mtime_ns, self.stream, self.breaks)

    def _wanted(self, segment: Segment) -> list[int]:
        """Return the indices of the segment's frames that can be read."""
        return [i for i in range(segment.first, segment.last) if self.readable[i]]

    def _read_decord(self, segment: Segment, output: _Output, threads: int) -> bool:
        """Read a segment with decord. If it fails return False, so that PyAV can say which frames are damaged."""
        error = load_decord().DECORDError
        wanted = self._wanted(segment)
        first, last = int(self.rank[wanted[0]]), int(self.rank[wanted[-1]])
        try:
            with POOL.borrow(self._key("decord"), segment.key_rank, first, last, threads) as (reader, goes_on):
                assert isinstance(reader, DecordReader)
                start = reader.position + 1
                if not goes_on:
                    reader.seek(segment.key_rank)
                for i in wanted:
                    output.put(i, reader.read(int(self.rank[i])))
                output.sent += last + 1 - start
        except (error, StopIteration, ValueError):
            return False
        return True

    def decode_with_nvdec(self) -> np.ndarray | None:
        """Return all frames as NVDEC gives them; None if it does not give all. Raises NvdecError."""
        output = _Output(self)
        if all(self._read_packets(segment, output, 1, "nvdec") for segment in self.segments):
            return output.frames
        return None

    def _read_nvdec(self, segment: Segment, output: _Output) -> bool:
        """Read a segment with NVDEC. If that fails return False, so that PyAV reads it.

        It fails on a worker without a GPU, or if frames are missing.
        """
        from pipeline.media.video.nvdec import NvdecError, why_not_here

        if why_not_here() is not None:
            return False
        try:
            return self._read_packets(segment, output, 1, "nvdec")
        except NvdecError:
            return False

    def _read_packets(self, segment: Segment, output: _Output, threads: int, decoder: str = "pyav") -> bool:
        """Read a segment with PyAV, which passes packets to the decoder. Return False at the first sign of damage."""
        wanted = self._wanted(segment)
        first, last = int(self.rank[wanted[0]]), int(self.rank[wanted[-1]])
        index = self._by_name(wanted)
        try:
            with POOL.borrow(self._key(decoder), segment.key_rank, first, last, threads) as (reader, goes_on):
                assert isinstance(reader, PacketReader)
                before = reader.sent
                if not goes_on:
                    self._stand(reader, segment.keys[0] if segment.keys else None, segment)
                try:
                    self._take_frames(reader, index, output)
                finally:
                    output.sent += reader.sent - before
        except (_TroubleError, av.FFmpegError):
            return False
        return True

    def _by_name(self, wanted: list[int]) -> dict[int, int]:
        """Return the index in the chunk by what identifies a decoded frame: its pts, or its rank."""
        names = self.rank if self.ordinal else self.pts
        return {int(names[i]): i for i in wanted}

    def _stand(self, reader: PacketReader, key: tuple[int, int, int] | None, segment: Segment) -> None:
        """Put the reader before a key frame, or at the start of the file if it cannot seek to that key frame."""
        earlier = segment.keys[-1][1] if segment.keys else 0
        if key is None or not reader.seek(*key, earlier):
            reader.rewind()

    def _take_frames(self, reader: PacketReader, index: dict[int, int], output: _Output) -> None:
        last = max(index)
        left = len(index)
        for frame in reader.frames(None if self.ordinal else frozenset(index), last):
            name = reader.rank_of(frame) if self.ordinal else frame.pts
            if frame.is_corrupt or name is None or name > last:
                raise _TroubleError
            i = index.get(name)
            if i is None:
                continue
            output.put_frame(i, frame, reader)
            reader.position = int(self.rank[i])
            left -= 1
            if name == last:
                break
        if left:
            raise _TroubleError

    def _read_carefully(self, segment: Segment, output: _Output) -> None:
        """Read a segment of a damaged file on one thread, so that an error belongs to the packet just sent.

        A frame counts as decoded if no packet from its key frame up to its own was bad. Frames that are missing without
        an error are tried again from key frames further back.
        """
        wanted = self._wanted(segment)
        missing = wanted
        reader = PacketReader(self.path, self.stream, 1, self.breaks)
        try:
            for key in segment.keys or (None,):
                self._stand(reader, key, segment)
                clean = _walk(self, reader, self._by_name(missing), output)
                missing = [i for i in wanted if not output.decoded[i]]
                if not missing or not clean:
                    break
        finally:
            output.sent += reader.sent
            reader.close()


def _walk(job: VideoDecodeJob, reader: PacketReader, index: dict[int, int], output: _Output) -> bool:
    """Pass carefully over the packets of a segment and put out the good frames; return False if packets were bad."""
    last, beyond = max(index), 0
    wanted = None if job.ordinal else frozenset(index)
    bad: list[int] = []
    put: dict[int, Sent] = {}

    def note(number: int, reason: str) -> None:
        bad.append(number)
        output.reason = output.reason or reason

    while not reader.ended or reader.has_frames:
        try:
            for frame in reader.frames(wanted, last):
                sent = sent_of(frame)
                if frame.is_corrupt:
                    note(sent.number, "the decoder flags it as corrupt")
                name = reader.rank_of(frame) if job.ordinal else frame.pts
                if name in index:
                    output.put_frame(index[name], frame, reader)
                    put[index[name]] = sent
                beyond += name is not None and name >= last
                if beyond and (sent.key or beyond > _WATCHED_BEYOND):
                    break
            break
        except av.FFmpegError as err:
            note(reader.last_sent.number, str(err.strerror))
    for i, sent in put.items():
        # A frame is built on a bad one if a bad packet lies between its key frame and itself.
        before = [key for key in reader.keys if key.number <= sent.number]
        shown = [key for key in before if key.pts is None or sent.pts is None or key.pts <= sent.pts]
        start = max((key.number for key in shown), default=0)
        if any(start <= number <= sent.number for number in bad):
            output.decoded[i] = False
    return not bad


@lru_cache(maxsize=64)
def _has_only_grown(path: str, survey: tuple[tuple[str, int | str], ...], state: tuple[int, int]) -> bool:
    """Return whether a file, now of this size and time of change, begins with the one of the survey."""
    from pipeline.media.video.source import begins_with

    return begins_with(Path(path), dict(survey))


class _Output:
    """The arrays of a chunk while it is decoded. A row that is not decoded may hold anything."""

    def __init__(self, job: VideoDecodeJob) -> None:
        self._job = job
        self.frames = MEMORY.take((len(job.rank), *job.shape))
        self.decoded = np.zeros(len(job.rank), bool)
        self.sent = 0
        self.reason: str | None = None

    def put_frame(self, i: int, frame: VideoFrame, reader: PacketReader) -> None:
        """Convert a frame of PyAV into row i."""
        rgb = reader.to_rgb(frame, self._job.width, self._job.height)
        upright = np.rot90(rgb, self._job.rotation // 90)
        self.put(i, upright[:, ::-1] if self._job.mirrored else upright)

    def put(self, i: int, upright: np.ndarray) -> None:
        """Copy an upright frame into row i. Raises ValueError if its size differs from the probed one."""
        if self._job.roi is not None:
            x, y, w, h = self._job.roi
            upright = upright[y : y + h, x : x + w]
        if self._job.square:
            import cv2

            upright = cv2.resize(np.ascontiguousarray(upright), self._job.size, interpolation=cv2.INTER_CUBIC)
        self.frames[i] = upright
        self.decoded[i] = True

    def explain(self) -> str | None:
        """Return one line on the frames that are missing, None if none is."""
        missing = np.flatnonzero(~self.decoded)
        if not len(missing):
            return None
        rank, time = self._job.rank, self._job.time_seconds
        runs = np.split(missing, np.flatnonzero(np.diff(missing) > 1) + 1)
        listed = [
            f"frame {rank[i]} ({time[i]:.2f} s)"
            if i == j
            else f"frames {rank[i]}-{rank[j]} ({time[i]:.2f}-{time[j]:.2f} s)"
            for i, j in ((run[0], run[-1]) for run in runs[:_LISTED_RUNS])
        ]
        more = f" and {len(runs) - _LISTED_RUNS} more ranges" if len(runs) > _LISTED_RUNS else ""
        why = self.reason
        if why is None and self._job.readable[missing].any():
            why = "the decoder gave no picture for them"
        why = why or self._job.unreadable_reason or "the file holds no packet for them"
        return f"{', '.join(listed)}{more} could not be decoded: {why}"


def decode_ahead(jobs: Iterable[VideoDecodeJob], threads: int) -> Iterator[Decoded]:
    """Yield the chunks of some jobs in order; the next one is decoded while the caller works on one."""
    with ThreadPoolExecutor(1, thread_name_prefix="decode-ahead") as decoder:
        ahead: Future[Decoded] | None = None
        for job in jobs:
            following = decoder.submit(job.decode, threads)
            if ahead is not None:
                yield ahead.result()
            ahead = following
        if ahead is not None:
            yield ahead.result()


def square_size(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """Return the width and height in square pixels of a picture whose pixels have this sample aspect ratio.

    The shorter side of a pixel grows, up to twice, so that memory stays bounded; beyond that the longer one shrinks.
    The size stays as it is if pixels are nearly square, or so long that the ratio must be wrong.
    """
    longer = max(aspect, 1 / aspect)
    if not _NEARLY_SQUARE < longer < _LONGEST_PIXEL:
        return width, height
    grow = min(longer, Fraction(2))
    x, y = (grow, grow / longer) if aspect > 1 else (grow / longer, grow)
    return max(1, round(width * x)), max(1, round(height * y))

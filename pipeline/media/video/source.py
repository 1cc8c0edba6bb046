"""Videos: options, sampling, and the source that a plan cuts into chunks."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from pipeline.engine.source import InputRef, Source, SourceOptions
from pipeline.errors import InputError
from pipeline.files.fingerprint import fingerprint
from pipeline.media.inputs import expand
from pipeline.store.schema import Array
from pipeline.text import clock, parse_seconds, plural, span

if TYPE_CHECKING:
    from pipeline.media.video.decode import VideoDecodeJob
    from pipeline.media.video.index import PacketIndex
    from pipeline.media.video.readers import Segment
    from pipeline.store.read import RunInput

DEFAULT_EVERY = 5
_LARGEST_EVERY = 2**31 - 1
"""Largest value of `every`: a year of 60 frames per second; ranks of frames have 64 bits."""
Decoder = Literal["auto", "pyav", "decord", "nvdec"]

# Reading on is cheaper than a seek below about this many frames: a seek costs the frames in the codec's delay.
_SEEK_GAIN_FRAMES = 16
# Key frames before a chunk that it may try, counted back; and the rank up to which it may try the file's start.
_KEYS_BACK = (0, 1, 4)
_START_IS_NEAR = 2000
_FRAMES = ("source_frames", "mirrored", "joined_parts")
"""Facts that say which frames an input has, and which side of them is up."""


class VideoOptions(SourceOptions):
    """The sampling and the decoding of a video."""

    UNKEYED: ClassVar[tuple[str, ...]] = ("decoder",)

    every: int | None = Field(
        None,
        ge=1,
        le=_LARGEST_EVERY,
        description=f"sample every N-th frame (frames; default {DEFAULT_EVERY} unless fps or keyframes is set)",
    )
    fps: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="sample this many frames per second of video (frames / second)"
    )
    keyframes: bool = Field(False, description="sample key frames only")
    start: float | None = Field(None, description="first time to sample (inclusive; seconds, or HH:MM:SS.mmm)")
    stop: float | None = Field(None, description="time to stop at (exclusive; seconds, or HH:MM:SS.mmm)")
    roi: tuple[int, int, int, int] | None = Field(
        None, description="x, y, width, height of the part to analyse (pixels of the upright frame)"
    )
    decoder: Decoder = Field(
        "auto",
        description="auto: decord if every frame is wanted and decord is exact, else PyAV. pyav, decord: only that "
        "one. nvdec: the GPU if it gives PyAV's pixels, else as auto (needs PyNvVideoCodec, which does not report "
        "damage)",
    )

    def keyed(self) -> dict[str, Any]:
        """Return what enters the resume keys. "pixels" keeps stores apart that counted pixels from a roi's corner."""
        return {**super().keyed(), **({"pixels": "of the upright frame"} if self.roi else {})}

    @field_validator("start", "stop", mode="before")
    @classmethod
    def _parse_time(cls, value: object) -> object:
        return parse_seconds(value) if isinstance(value, str) else value

    @field_validator("roi")
    @classmethod
    def _check_roi(cls, roi: tuple[int, int, int, int] | None) -> tuple[int, int, int, int] | None:
        if roi is not None and (min(roi[:2]) < 0 or min(roi[2:]) < 1):
            raise ValueError(f"roi {list(roi)} must be x, y, width, height with x, y >= 0 and width, height >= 1")
        return roi

    @model_validator(mode="after")
    def _check_sampling(self) -> VideoOptions:
        given = [n for n, v in (("every", self.every), ("fps", self.fps), ("keyframes", self.keyframes or None)) if v]
        if len(given) > 1:
            raise ValueError(
                f"{' and '.join(given)} exclude each other; keep one, and set the rest to null, "
                f"as --set source.{given[0]}=null does"
            )
        if not given:
            object.__setattr__(self, "every", DEFAULT_EVERY)
        for name in ("start", "stop"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise ValueError(f"{name} {value} must be a finite number of seconds")
        if self.start is not None and self.stop is not None and self.start >= self.stop:
            raise ValueError(f"start ({self.start} s) must lie before stop ({self.stop} s)")
        return self


@dataclass(frozen=True)
class LaterRef(InputRef):
    """Frames that were appended to a video that the store has."""

    file: str = ""
    """Path of the video."""
    after: int = 0
    """Frames of the file, in its own order, that the store has."""


class VideoSource(Source):
    """One video file: its packet index, the sampled frames, and jobs that decode them."""

    kind: ClassVar[str] = "video"
    Options: ClassVar[type[SourceOptions]] = VideoOptions
    arrays: ClassVar[tuple[Array, ...]] = (
        Array("frame", ("frame",), "int64", attributes={"description": "rank among the input's frames, from 0"}),
        Array("time_seconds", ("frame",), "float64", attributes={"units": "s", "description": "presentation time"}),
    )
    options: VideoOptions
    frame: np.ndarray
    """int64 (n,): ranks of the sampled frames in presentation order among all frames of the file."""
    time_seconds: np.ndarray
    """float64 (n,): presentation times of the sampled frames."""

    @classmethod
    def find(cls, inputs: Sequence[str], options: SourceOptions) -> Iterator[InputRef]:
        """Yield the video files that files, folders, globs and list files name; see `media.inputs.expand`."""
        notes: list[str] = []
        for path in expand(inputs, notes.append):
            yield InputRef(str(path), path.stem, notes.pop() if notes else None)

    @classmethod
    def open(cls, ref: InputRef, options: SourceOptions, stored: Mapping[str, Any] | None) -> VideoSource:
        """Probe one file with the decoder that was stored at set-up.

        Raises InputError if it cannot be used, or an earlier version saw other frames in it.
        """
        assert isinstance(options, VideoOptions)
        if stored:
            path, after = stored["path"], int(stored.get("after_frames", 0))
            # What the file did not hold then is done with the next part.
            frames, missing = frames_before_growth(stored), int(stored.get("unreadable_frames") or 0)
            source = cls(path, options, stored["decoder"], frames=frames, missing=missing, after=after)
            source.refuse_other_frames(stored, (*_FRAMES, "sample_aspect_ratio"))
            return source
        if isinstance(ref, LaterRef):
            source = cls(ref.file, options, after=ref.after)
            begins = float(source.index.time_seconds[source.first])
            part = int(ref.path.rpartition("#")[2])
            source.facts |= {"part": part, "after_frames": ref.after, "part_start_seconds": begins}
            return source
        return cls(ref.path, options)

    @classmethod
    def fingerprint(cls, ref: InputRef) -> str:
        from pipeline.media.video.index import check_readable

        path = Path(ref.file if isinstance(ref, LaterRef) else ref.path)
        check_readable(path)
        return fingerprint(path)

    @classmethod
    def is_stored(cls, ref: InputRef, stored: Mapping[str, Any]) -> bool:
        return begins_with(Path(stored["path"]), stored)

    @classmethod
    def moved(
        cls, ref: InputRef, options: SourceOptions, lost: Mapping[str, RunInput]
    ) -> tuple[str, Mapping[str, Any]] | None:
        """Return the stored film with the content of this file. Of several, one with the file's name goes first."""
        path, now = Path(ref.path), cls.fingerprint(ref)
        facts = {name: one.attributes for name, one in lost.items()}
        alike = [name for name, known in facts.items() if Path(known["path"]).name == path.name]
        same = [name for name in [*alike, *lost] if facts[name]["fingerprint"] == now]
        return next(((name, {}) for name in same or alike if begins_with(path, facts[name])), None)

    @classmethod
    def grown(cls, ref: InputRef, options: SourceOptions, stored: Mapping[str, Any]) -> InputRef | None:
        """Return the frames that were appended to a file, if it still begins with those that the store has."""
        assert isinstance(options, VideoOptions)
        try:
            if not is_larger(Path(ref.path), stored) or not begins_with(Path(ref.path), stored):
                return None
            # Frames of a file that was cut off, which it did not hold yet, are done with those that were appended.
            frames, missing = int(stored["source_frames"]), int(stored.get("unreadable_frames") or 0)
            source = cls(ref.path, options, "pyav", after=frames - missing)
            before, now = stored.get("packets"), source.index.digest(frames)
            if not missing and stored.get("unreadable") and before not in (None, now):
                missing = 1  # the last packet is larger now, and what was there of it could not be decoded
            after = frames - missing
        except (OSError, InputError):  # opening it says why; or none of the new frames is sampled
            return None
        return LaterRef(ref.path, ref.name, file=ref.path, after=after)

    def __init__(
        self, path: Path | str, options: VideoOptions, decoder: str | None = None, square: bool = True,
        *, frames: int | None = None, missing: int = 0, after: int = 0,
    ) -> None:
        """Probe `path`. `decoder` is the one that was stored when the run was set up, None to choose now.

        `square`: give frames in square pixels, for models and for people; else as they are stored. `frames`: number of
        frames to take of the file, in its own order, None for all. `missing`: how many of these, the last, are taken as
        not readable. `after`: number to leave out at its beginning.

        Raises InputError if the file cannot be used or no frame of it is sampled.
        """
        from pipeline.media.video.choice import choose_decoder, kept_decoder
        from pipeline.media.video.decode import square_size
        from pipeline.media.video.index import build_index, check_readable

        self.path = Path(path).absolute()
        self.options = options
        check_readable(self.path)
        stat = self.path.stat()
        self._bytes, self._mtime_ns = stat.st_size, stat.st_mtime_ns
        index = build_index(self.path)
        self.index = index = index if frames is None else index.beginning(frames, missing)
        self._survey: dict[str, int | str] = {
            "bytes": self._bytes,
            "fingerprint": fingerprint(self.path, self._bytes),
            "source_frames": len(index),
            "packets": index.digest(len(index)),
            "unreadable_frames": int((~index.readable).sum()),
        }
        roi = options.roi
        sideways = index.rotation % 180 != 0
        width, height = (index.height, index.width) if sideways else (index.width, index.height)
        self.upright_size = width, height
        self.sample_aspect_ratio = 1 / index.sample_aspect_ratio if sideways else index.sample_aspect_ratio
        """Width of a pixel of the upright frame in heights of it."""
        if roi is not None and (roi[0] + roi[2] > width or roi[1] + roi[3] > height):
            raise InputError(f"{self.path}: roi {list(roi)} reaches beyond the {width}x{height} frame; shrink it")
        self.origin = roi[:2] if roi is not None else (0, 0)
        self.frame = sample(index, options)
        self.frame = self.frame[index.place[self.frame] >= after]
        self.first = int(np.argmax(index.place >= after))
        """Rank of the first frame that was not left out."""
        if not len(self.frame):
            times = "all its packets are hidden"
            if len(index):
                first = float(index.time_seconds[0])
                times = f"its frames lie from {first:.3f} to {first + index.duration_seconds:.3f} s"
            raise InputError(f"{self.path}: no frame between start and stop; {times}")
        self.time_seconds = index.time_seconds[self.frame]
        stored_size = roi[2:] if roi is not None else (width, height)
        self._size = square_size(*stored_size, self.sample_aspect_ratio) if square else stored_size
        self.scale = (self._size[0] / stored_size[0], self._size[1] / stored_size[1])
        self.item_bytes = math.prod(self._size) * 3
        self._start_rank = self._nearest_start(self.frame)
        if decoder is None:
            self.decoder, self.note = choose_decoder(self, options.decoder)
        else:
            # Decord counts frames, and some that were appended may be shown before those that the store has.
            self.decoder = "pyav" if decoder == "decord" and frames is not None else decoder
            self.note = kept_decoder(decoder)
        if index.breaks:
            joined = (
                f"{self.path}: its timestamps start again {plural(len(index.breaks), 'time')}, first at "
                f"{clock(float(index.breaks[0].at))}; each part is placed after the one before it"
            )
            self.note = f"{joined}. {self.note}" if self.note else joined
        self.facts: dict[str, Any] = {
            "path": str(self.path),
            **self._survey,
            "width": width,
            "height": height,
            "fps": index.fps,
            "duration_seconds": index.duration_seconds,
            "start_seconds": float(index.time_seconds[0]),
            "key_frames": len(index.seek_pts),
            "every": options.every,
            **({"sample_fps": options.fps} if options.fps is not None else {}),
            **({"keyframes": True} if options.keyframes else {}),
            "decoder": self.decoder,
            "codec": index.codec,
            "container": index.container,
            "pixel_format": index.pixel_format,
            "rotation_degrees": index.rotation,
            **({"mirrored": True} if index.mirrored else {}),
            **({"sample_aspect_ratio": str(self.sample_aspect_ratio)} if self.scale != (1, 1) else {}),
            **({"joined_parts": len(index.breaks) + 1} if index.breaks else {}),
            "stream": index.stream,
            "roi": list(roi) if roi else None,
        }

    def _nearest_start(self, ranks: np.ndarray) -> np.ndarray:
        """Return int64: for each rank, the first frame that decoding from the last key frame before it gives."""
        seeks = self.index.seek_rank
        if self.index.ordinal or not len(seeks):
            return np.zeros(len(ranks), np.int64)
        at = np.searchsorted(self.index.seek_pts, self.index.pts[ranks], side="right") - 1
        starts: np.ndarray = np.where(at >= 0, seeks[at], 0)
        return starts

    def cost(self, chunk_frames: int) -> int:
        """Return the number of source frames that are decoded with chunks of this many sampled frames.

        Each chunk is decoded alone, from the key frame before it.
        """
        first = np.arange(0, len(self.frame), chunk_frames)
        last = np.minimum(first + chunk_frames, len(self.frame)) - 1
        saved = np.concatenate([[0], np.cumsum(_saved_by_seeking(self.frame, self._start_rank))])
        read = self.frame[last] - self._start_rank[first] + 1
        return int(read.sum() - (saved[last + 1] - saved[first + 1]).sum())

    def __len__(self) -> int:
        return len(self.frame)

    def values(self, start: int, stop: int) -> dict[str, np.ndarray]:
        return {"frame": self.frame[start:stop], "time_seconds": self.time_seconds[start:stop]}

    def where(self, start: int, stop: int) -> str:
        """Return the times of sampled frames start to stop: "0:00:01.000-0:00:03.500"."""
        return span(self.time_seconds[start:stop].tolist())

    @property
    def description(self) -> str:
        return f"{self.facts['width']}×{self.facts['height']}, {self.decoder}"

    def refuse_other_frames(self, stored: Mapping[str, Any], names: Sequence[str] = _FRAMES) -> None:
        """Raise InputError if an earlier version, which made the store, read other frames from the file."""
        changed = [name for name in names if stored.get(name) != self.facts.get(name)]
        if changed:
            raise InputError(
                f"{self.path}: this version reads other frames from it than the one that made the store "
                f"({', '.join(changed)}); run it again with --fresh or another --out"
            )

    def on_frames(self, boxes: np.ndarray) -> np.ndarray:
        """Return boxes (..., 4) of the whole picture, x, y, w, h, in pixels of the frames that jobs give."""
        moved: np.ndarray = (boxes - np.array([*self.origin, 0, 0])) * np.array(self.scale * 2)
        return moved

    def job(self, start: int, stop: int) -> VideoDecodeJob:
        """Return the decode job of sampled frames start (inclusive) to stop (exclusive)."""
        return self.job_of_ranks(self.frame[start:stop], self.decoder)

    def job_of_ranks(self, ranks: np.ndarray, decoder: str) -> VideoDecodeJob:
        """Return the job that decodes the frames of these ranks (int64, ascending) with the given decoder."""
        from pipeline.media.video.decode import VideoDecodeJob

        index = self.index
        return VideoDecodeJob(
            path=str(self.path),
            bytes=self._bytes,
            mtime_ns=self._mtime_ns,
            survey=tuple(self._survey.items()),
            stream=index.stream,
            decoder=decoder,
            width=index.width,
            height=index.height,
            rotation=index.rotation,
            mirrored=index.mirrored,
            roi=self.options.roi,
            size=self._size,
            square=self.scale != (1, 1),
            rank=ranks.copy(),
            pts=index.pts[ranks],
            time_seconds=index.time_seconds[ranks],
            readable=index.readable[ranks],
            unreadable_reason=index.truncated,
            ordinal=index.ordinal,
            segments=self._segments(ranks),
            breaks=index.breaks,
        )

    def _segments(self, ranks: np.ndarray) -> tuple[Segment, ...]:
        """Cut a chunk at each seek that saves decoding; leave out the parts that cannot be read."""
        from pipeline.media.video.readers import Segment

        starts = self._nearest_start(ranks)
        readable = self.index.readable[ranks]
        edges = np.unique([0, *np.flatnonzero(_saved_by_seeking(ranks, starts)), len(ranks)])
        found = []
        for first, last in zip(edges.tolist(), edges[1:].tolist(), strict=False):
            wanted = np.flatnonzero(readable[first:last]) + first
            if len(wanted):
                rank, start = int(ranks[wanted[0]]), int(starts[wanted[0]])
                found.append(Segment(first, last, start, self._keys(rank, start)))
        return tuple(found)

    def _keys(self, rank: int, start: int) -> tuple[tuple[int, int, int], ...]:
        """Return (pts, dts, position) of the key frames that a frame can be decoded from, nearest first."""
        index = self.index
        if index.ordinal:
            return ()
        nearest = int(np.searchsorted(index.seek_pts, index.pts[rank], side="right")) - 1
        back = [nearest - step for step in _KEYS_BACK if nearest >= step]
        if start < _START_IS_NEAR and nearest >= 0:
            back.append(0)
        known = (index.seek_pts, index.seek_dts, index.seek_position)
        return tuple((int(known[0][k]), int(known[1][k]), int(known[2][k])) for k in dict.fromkeys(back))


def _saved_by_seeking(ranks: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return int64 (n,): frames before a sampled frame that a seek avoids decoding; 0 if a seek gains nothing."""
    saved = np.zeros(len(ranks), np.int64)
    saved[1:] = starts[1:] - ranks[:-1] - 1
    return np.where(saved >= _SEEK_GAIN_FRAMES, saved, 0)


def sample(index: PacketIndex, options: VideoOptions) -> np.ndarray:
    """Return the ranks (int64) of the sampled frames, on a grid from the file's first frame, whatever start is."""
    time = index.time_seconds
    if options.keyframes:
        ranks = np.flatnonzero(index.key)
    elif options.fps is not None:
        # The first frame at or after each tick time[0] + k / fps, each once. A frame's tick is the last one that is not
        # after it. The tolerance allows for rounding to the time base.
        tick = np.floor((time - time[0]) * options.fps + 1e-6)
        ranks = np.flatnonzero(np.diff(tick, prepend=-1.0) > 0)
    else:
        ranks = np.arange(0, len(index), options.every)
    start = -np.inf if options.start is None else options.start
    stop = np.inf if options.stop is None else options.stop
    inside = (time[ranks] >= start) & (time[ranks] < stop)
    return ranks[inside].astype(np.int64)


def is_of_video(stored: Mapping[str, Any]) -> bool:
    """Return whether an input (`stored`: its attributes) was read by the source of videos."""
    return "source_frames" in stored


def is_larger(path: Path, stored: Mapping[str, Any]) -> bool:
    """Return whether a file is larger than it was; False for stores that do not know its size. Raises OSError."""
    return path.stat().st_size > int(stored.get("bytes") or sys.maxsize)


def begins_with(path: Path, stored: Mapping[str, Any]) -> bool:
    """Return whether a file is the one that the store has an input of, or begins with it: frames were appended.

    That is so if its first bytes are those of then. An MP4 whose index was written again has other bytes; then the
    times and sizes of its packets decide. Raises InputError, OSError.
    """
    from pipeline.media.video.index import build_index, check_readable

    check_readable(path)
    if fingerprint(path) == stored["fingerprint"]:
        return True
    if not is_larger(path, stored):
        return False
    if fingerprint(path, stored["bytes"]) == stored["fingerprint"]:
        return True
    if stored.get("unreadable_frames"):
        return False
    frames = int(stored["source_frames"])
    try:
        index = build_index(path)
    except InputError:
        return False
    return len(index) >= frames and index.digest(frames) == stored.get("packets")


def frames_before_growth(stored: Mapping[str, Any]) -> int | None:
    """Return how many frames of a file a stored input knows, if the file has grown since; else None."""
    return int(stored["source_frames"]) if is_larger(Path(stored["path"]), stored) else None


def open_as_stored(facts: Mapping[str, Any]) -> VideoSource:
    """Open the video that a store's input was made from (`facts`: its attributes), with every frame.

    Frames have square pixels: `on_frames` takes stored boxes to them.

    Raises InputError if it is gone, cannot be read, or has changed.
    """
    path = Path(str(facts.get("path", "")))
    try:
        if not path.is_file():
            raise InputError(f"{path}: the video is missing")
        if not begins_with(path, facts):
            raise InputError(f"{path}: the video has changed since it was analysed")
        frames = frames_before_growth(facts)
    except OSError as err:
        raise InputError(f"{path} cannot be read: {err.strerror or err}") from err
    source = VideoSource(path, VideoOptions.model_validate({"every": 1}), "pyav", frames=frames)
    source.refuse_other_frames(facts)
    return source

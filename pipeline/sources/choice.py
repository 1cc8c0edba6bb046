"""Which decoder reads a video. Depends on the file and the workflow alone, never on the clock or the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import InputError

if TYPE_CHECKING:
    from pipeline.sources.video import VideoSource

# decord 0.6 was found exact on these, and wrong without a word on others (H.265, MPEG-TS, AVI, edit lists).
_DECORD_CODECS = frozenset({"h264", "vp8", "vp9"})
_DECORD_CONTAINERS = ("mov,", "matroska,")
_EIGHT_BIT = frozenset({"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "gray", "nv12"})
# The frames of the compared chunk, counted from the key frame nearest to the middle.
_COMPARED = (0, 1, 5)
_COMPARED_REACH = 60
# A chunk holds at most this many frames, and this many bytes of them: where a group of pictures is several chunks
# long, decord would decode it once for each, for it cannot be left standing where it is.
_CHUNK_FRAMES = 64
_CHUNK_BYTES = 256 << 20
_CHUNKS_PER_GROUP = 2


def choose_decoder(source: VideoSource, wanted: str) -> str:
    """ "decord" or "pyav". Raises InputError where `wanted` is decord and it is not exact on this file."""
    if wanted == "pyav":
        return "pyav"
    if wanted == "auto" and (_leaves_frames_out(source) or _groups_outgrow_chunks(source)):
        return "pyav"
    reason = why_not_decord(source)
    if reason is None:
        return "decord"
    if wanted == "decord":
        raise InputError(f"{source.path}: decoder decord is not exact here ({reason}); use decoder: auto or pyav")
    return "pyav"


def _leaves_frames_out(source: VideoSource) -> bool:
    """PyAV passes over packets that no wanted frame is built on; decord decodes and converts every frame (measured
    on 1080p H.264, every fifth frame: 1.6 times the time)."""
    return bool((np.diff(source.frame) > 1).any())


def _groups_outgrow_chunks(source: VideoSource) -> bool:
    chunk = max(1, min(_CHUNK_FRAMES, _CHUNK_BYTES // source.frame_bytes))
    per_sample = len(source.index) / len(source.frame)
    edges = np.append(source.index.seek_rank, len(source.index))
    longest = int(np.diff(edges).max(initial=0))
    return longest >= _CHUNKS_PER_GROUP * chunk * per_sample


def why_not_decord(source: VideoSource) -> str | None:
    """Why decord cannot be trusted with this file, None where it can."""
    return _why_not_by_index(source) or _why_not_by_pixels(source)


def _why_not_by_index(source: VideoSource) -> str | None:
    index = source.index
    reasons = {
        f"its codec is {index.codec}": index.codec not in _DECORD_CODECS,
        f"its container is {index.container}": not index.container.startswith(_DECORD_CONTAINERS),
        f"its pixel format is {index.pixel_format}": index.pixel_format not in _EIGHT_BIT,
        "its groups of pictures are open": index.open_gop,
        "it has key frames that are no clean start": index.unclean_keys > 0,
        "it is trimmed by an edit list": index.discarded > 0,
        f"it has {index.video_streams} video streams": index.video_streams > 1,
        "frames have no timestamps of their own": index.ordinal,
        "it is cut off": not bool(index.readable.all()),
        "it does not start with a key frame": not bool(index.key[:1].all()),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _why_not_by_pixels(source: VideoSource) -> str | None:
    """Open decord and compare one chunk in the middle of the file with PyAV."""
    try:
        from decord import DECORDError
    except ImportError:
        return "decord is not installed"
    from pipeline.sources.readers import DecordReader

    try:
        reader = DecordReader(str(source.path), 1)
    except (DECORDError, RuntimeError):
        return "decord cannot open it"
    try:
        if len(reader) != len(source.index):
            return f"decord counts {len(reader)} frames where there are {len(source.index)}"
        return _compare(source, reader)
    except (DECORDError, StopIteration):
        return "decord fails in the middle of it"
    finally:
        reader.close()


def _compare(source: VideoSource, reader: object) -> str | None:
    from pipeline.sources.readers import DecordReader

    assert isinstance(reader, DecordReader)
    keys = source.index.seek_rank
    middle = len(source.index) // 2
    key = int(keys[np.argmin(np.abs(keys - middle))])
    compared = {key + step for step in _COMPARED} | {min(max(middle, key), key + _COMPARED_REACH)}
    ranks = np.array(sorted(rank for rank in compared if rank < len(source.index)), np.int64)
    truth = source.job_of_ranks(ranks, "pyav").decode()
    reader.seek(key)
    for rank, frame, decoded in zip(ranks, truth.frames_rgb, truth.decoded, strict=True):
        if not decoded:
            return f"frame {rank} is damaged"
        if not np.array_equal(reader.read(int(rank)), frame):
            return f"decord gives other pixels for frame {rank}"
    return None

"""The choice of a video's decoder. It depends on the file and the workflow alone, never on the clock or the machine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.engine.source import most_chunk_items
from pipeline.errors import InputError
from pipeline.media.video.source import VideoSource

# decord 0.6 was found exact on these, and silently wrong on others (H.265, MPEG-TS, AVI, edit lists).
_DECORD_CODECS = frozenset({"h264", "vp8", "vp9"})
_DECORD_CONTAINERS = ("mov,", "matroska,")
_EIGHT_BIT = frozenset({"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "gray", "nv12"})
# The frames of the compared chunk, counted from the key frame nearest to the middle.
_COMPARED = (0, 1, 5)
_COMPARED_REACH = 60
# If a group of pictures is this many chunks long, PyAV reads it: decord cannot pause in the middle of a file, so it
# would decode the group once per chunk.
_CHUNKS_PER_GROUP = 2


def choose_decoder(source: VideoSource, wanted: str) -> tuple[str, str | None]:
    """Return "decord", "pyav" or "nvdec", and one line for the user if it is not the wanted one.

    Raises InputError if `wanted` is decord and decord is not exact on this file.
    """
    if wanted != "nvdec":
        return _choose(source, wanted), None
    from pipeline.media.video.nvdec import why_not_here

    reason = why_not_here()
    if reason is not None:
        return _choose(source, "auto"), f"decoder nvdec cannot be used here ({reason}); decoder: auto takes its place"
    reason = _why_not_nvdec(source)
    if reason is not None:
        note = f"{source.path}: not for decoder nvdec ({reason}); decoder: auto takes its place"
        return _choose(source, "auto"), note
    return "nvdec", None


def kept_decoder(decoder: str) -> str | None:
    """Return one line for the user if this process cannot use the decoder that was stored at set-up, else None."""
    if decoder != "nvdec":
        return None
    from pipeline.media.video.nvdec import why_not_here

    reason = why_not_here()
    if reason is None:
        return None
    return (
        f"decoder nvdec, which the store was set up with, cannot be used here ({reason}). Workers without it decode "
        "with PyAV, which gave the same pixels at set-up"
    )


def _choose(source: VideoSource, wanted: str) -> str:
    if wanted == "pyav":
        return "pyav"
    if wanted == "auto":
        # If the sampling skips frames, PyAV passes over packets that no wanted frame is built on. Decord decodes and
        # converts every frame: 1.6 times the time (measured on 1080p H.264, every fifth frame).
        skips = bool((np.diff(source.frame) > 1).any())
        edges = np.append(source.index.seek_rank, len(source.index))
        longest_group = int(np.diff(edges).max(initial=0))
        per_sample = len(source.index) / len(source.frame)
        if skips or longest_group >= _CHUNKS_PER_GROUP * most_chunk_items(source.item_bytes) * per_sample:
            return "pyav"
    reason = why_not_decord(source)
    if reason is None:
        return "decord"
    if wanted == "decord":
        raise InputError(f"{source.path}: decoder decord is not exact here ({reason}); use decoder: auto or pyav")
    return "pyav"


def why_not_decord(source: VideoSource) -> str | None:
    """Return why decord is not reliable for this file, None if it is: by the index, then by a chunk in the middle."""
    index = source.index
    reason = _first_that_holds({
        f"its codec is {index.codec}": index.codec not in _DECORD_CODECS,
        f"its container is {index.container}": not index.container.startswith(_DECORD_CONTAINERS),
        f"its pixel format is {index.pixel_format}": index.pixel_format not in _EIGHT_BIT,
        f"it has {index.video_streams} video streams": index.video_streams > 1,
        "its frames are mirrored": index.mirrored,
        **_not_plain(source),
    })  # fmt: skip
    if reason is not None:
        return reason
    from pipeline.media.video.readers import DecordReader, load_decord

    try:
        error = load_decord().DECORDError
    except ImportError:
        return "decord is not installed"
    try:
        reader = DecordReader(str(source.path), 1)
    except (error, RuntimeError):
        return "decord cannot open it"
    try:
        if len(reader) != len(index):
            return f"decord counts {len(reader)} frames, but the file has {len(index)}"
        ranks = _compared_ranks(source)
        job = source.job_of_ranks(ranks, "pyav")
        truth = replace(job, roi=None, size=source.upright_size, square=False).decode()
        reader.seek(int(ranks[0]))
        for rank, frame, decoded in zip(ranks, truth.frames_rgb, truth.decoded, strict=True):
            if not decoded:
                return f"frame {rank} is damaged"
            if not np.array_equal(reader.read(int(rank)), frame):
                return f"decord gives other pixels for frame {rank}"
        return None
    except (error, StopIteration):
        return "decord fails in the middle of it"
    finally:
        reader.close()


def _first_that_holds(reasons: dict[str, bool]) -> str | None:
    return next((reason for reason, holds in reasons.items() if holds), None)


def _not_plain(source: VideoSource) -> dict[str, bool]:
    """Return what makes frames hard to identify or to start from, for every decoder, and whether each holds."""
    index = source.index
    return {
        "its groups of pictures are open": index.open_gop,
        "some of its key frames are not a clean start": index.unclean_keys > 0,
        "it is trimmed by an edit list": index.discarded > 0,
        "its timestamps start again": bool(index.breaks),
        "frames have no timestamps of their own": index.ordinal,
        "it is cut off": not bool(index.readable.all()),
        "it does not start with a key frame": not bool(index.key[:1].all()),
    }


def _why_not_nvdec(source: VideoSource) -> str | None:
    """Check the index, then some frames in the middle and, after a seek back, some at the start of the file."""
    from pipeline.media.video.nvdec import CODECS, PIXEL_FORMATS, NvdecError
    from pipeline.media.video.readers import close_readers

    index = source.index
    reason = _first_that_holds({
        f"its codec is {index.codec}": index.codec not in CODECS,
        f"its pixel format is {index.pixel_format}": index.pixel_format not in PIXEL_FORMATS,
        f"its size is odd, {index.width}x{index.height}": bool(index.width % 2 or index.height % 2),
        **_not_plain(source),
    })  # fmt: skip
    if reason is not None:
        return reason
    first = np.array([rank for rank in _COMPARED if rank < len(index)], np.int64)
    try:
        for ranks in (_compared_ranks(source), first):
            truth = source.job_of_ranks(ranks, "pyav").decode()
            if not truth.decoded.all():
                return f"it is damaged: {truth.error}"
            frames = source.job_of_ranks(ranks, "nvdec").decode_with_nvdec()
            if frames is None:
                return f"NVDEC does not give all of its frames {ranks.tolist()}"
            if not np.array_equal(frames, truth.frames_rgb):
                return f"NVDEC gives other pixels for its frames {ranks.tolist()}"
        return None
    except NvdecError as error:
        return str(error)
    finally:
        close_readers()  # the process that sets up a run does not decode: it must not hold a part of the GPU


def _compared_ranks(source: VideoSource) -> np.ndarray:
    """Return the rank of the key frame nearest to the middle of the file, and of some frames after it, as int64."""
    keys = source.index.seek_rank
    middle = len(source.index) // 2
    key = int(keys[np.argmin(np.abs(keys - middle))])
    compared = {key + step for step in _COMPARED} | {min(max(middle, key), key + _COMPARED_REACH)}
    return np.array(sorted(rank for rank in compared if rank < len(source.index)), np.int64)

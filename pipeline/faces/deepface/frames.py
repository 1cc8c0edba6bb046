"""The user's frames in batches of bounded size: chunks of a video, or pictures of any kind."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from pipeline.engine.plan import choose_chunk_items, cut
from pipeline.engine.source import MAX_CHUNK_BYTES, MAX_CHUNK_FRAMES, InputRef
from pipeline.engine.workflow import Workflow
from pipeline.media.inputs import VIDEO_SUFFIXES
from pipeline.media.video.decode import decode_ahead
from pipeline.media.video.source import VideoSource

Picture = str | Path | IO[bytes] | np.ndarray
Source = Picture | Iterable[Picture]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
DTYPES = ("uint8", "uint16", "int16", "float32", "float64")
"""Types of pixels with which DeepFace can crop and resize a picture; OpenCV refuses all others."""


@dataclass(frozen=True)
class Batch:
    """Some frames, in order."""

    index: np.ndarray
    """int64 (n,): rank of each frame in the video, or its index among the pictures."""
    time_seconds: np.ndarray
    """float64 (n,): times, or the index for pictures."""
    frames_rgb: Sequence[np.ndarray] | np.ndarray
    """(height, width, 3) each: uint8, or a picture's own type (DTYPES)."""
    decoded: np.ndarray
    """bool (n,): false if a frame could not be read."""
    names: tuple[str, ...]
    """Name of each frame in messages."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Pixels of a frame in a pixel of the file, along x and y."""


def is_video(frames: Source) -> bool:
    """Return whether this is the path of a file other than a picture.

    If the suffix does not say, the first bytes do. A picture without a suffix, as uploads often are, would pass for a
    video of one frame, with other pixels than DeepFace reads.
    """
    if not isinstance(frames, str | Path):
        return False
    text = str(frames)
    if text.startswith("data:image/") or text.lower().startswith(("http://", "https://")):
        return False
    suffix = Path(text).suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return False
    import cv2

    return suffix in VIDEO_SUFFIXES or not cv2.haveImageReader(text)


def of_video(path: Path, workflow: Workflow, decode_threads: int) -> Iterator[Batch]:
    """Yield chunks of a video, cut as a run would; the next chunk is decoded while the caller works on one."""
    source = workflow.source.open(InputRef(str(path), path.stem), workflow.source_options, None)
    assert isinstance(source, VideoSource)
    pieces = cut(len(source), choose_chunk_items(source))
    chunks = decode_ahead((source.job(*piece) for piece in pieces), decode_threads)
    for (start, stop), chunk in zip(pieces, chunks, strict=True):
        index = source.frame[start:stop]
        names = tuple(f"frame {rank} of {path}" for rank in index)
        yield Batch(index, source.time_seconds[start:stop], chunk.frames_rgb, chunk.decoded, names, source.scale)


def of_pictures(frames: Source, every: int) -> Iterator[Batch | Exception]:
    """Yield batches of pictures, at most as many, and as large, as a chunk of video may have.

    For a picture that cannot be loaded, yield DeepFace's exception in its place.
    """
    chosen = itertools.islice(enumerate(_each(frames)), 0, None, every)
    held: list[tuple[int, str, np.ndarray]] = []
    for index, picture in chosen:
        try:
            pixels, name = _load(picture)
        except Exception as error:  # of files, OpenCV, base64 or the network: any error concerns one picture
            if held:
                yield _batch(held)
                held = []
            yield error
            continue
        held.append((index, name, pixels))
        if len(held) == MAX_CHUNK_FRAMES or sum(one[2].nbytes for one in held) >= MAX_CHUNK_BYTES:
            yield _batch(held)
            held = []
    if held:
        yield _batch(held)


def _batch(held: list[tuple[int, str, np.ndarray]]) -> Batch:
    index = np.array([one[0] for one in held], np.int64)
    names = tuple(one[1] for one in held)
    return Batch(index, index.astype(np.float64), [one[2] for one in held], np.ones(len(held), bool), names)


def _each(frames: Source) -> Iterator[Any]:
    """Return the single pictures, in order. Any other value counts as one picture, which DeepFace will refuse."""
    if isinstance(frames, np.ndarray):
        return iter(frames if frames.ndim == 4 else [frames])
    if isinstance(frames, Iterable) and not isinstance(frames, str | bytes | Mapping) and not hasattr(frames, "read"):
        return iter(frames)
    return iter([frames])


def _load(picture: Picture) -> tuple[np.ndarray, str]:
    """Return (height, width, 3) RGB, of the picture's own type (DTYPES), and a name.

    Raises ValueError if it is not such a picture, and DeepFace's own errors if it cannot be loaded.
    """
    from deepface.commons.image_utils import load_image

    pixels, name = load_image(picture)
    if pixels is None:
        raise ValueError(f"Exception while loading {name}")
    if pixels.size == 0:
        raise ValueError(f"a frame must have pixels, not shape {pixels.shape}")
    if pixels.dtype.name not in DTYPES or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(
            f"a frame must be (height, width, 3) in BGR, of {', '.join(DTYPES)}, not {pixels.dtype} {pixels.shape}: "
            "convert it first"
        )
    return np.ascontiguousarray(pixels[:, :, ::-1]), name

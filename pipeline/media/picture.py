"""Picture files: the size that a header declares is checked before a pixel is decoded."""

from __future__ import annotations

import io
import os
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import ReelgraphError
from pipeline.files.regular import open_file

MAX_PIXELS = 1 << 27
"""Most pixels of a picture or a frame: 134 million, above 16K video and cameras of 100 megapixels. A file of 875 kB can
declare 900 million, and a model takes about 30 bytes for each."""
MAX_BYTES = 1 << 30
"""Largest picture file, bytes: MAX_PIXELS in 16-bit RGB, uncompressed, are less."""

_PNG = b"\x89PNG\r\n\x1a\n"
_FORMATS = ("JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
"""Formats whose header Pillow reads here, of those that OpenCV decodes; PNG's is read without it."""


class UnreadableError(ReelgraphError):
    """A file that is not a picture, or not a whole one, or too large."""


def too_large(width: int, height: int) -> str | None:
    """Return what to say of a picture with too many pixels; None if it has not."""
    if width * height <= MAX_PIXELS:
        return None
    count, most = width * height / 1e6, MAX_PIXELS / 1e6
    return f"has {width}x{height} pixels, {count:.0f} million; the limit is {most:.0f} million"


def read_content(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a picture file. Raises UnreadableError, also for a picture that is too large."""
    try:
        with open_file(path) as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as err:
        raise UnreadableError(f"{path} cannot be read: {err.strerror or err}") from err
    check_content(content, str(path))
    return content


def check_content(content: bytes, name: str) -> None:
    """Raise UnreadableError unless this is a picture that declares a size within the limits. Decodes nothing."""
    if len(content) > MAX_BYTES:
        raise UnreadableError(f"{name} has more than {MAX_BYTES / 1e6:.0f} MB, the limit of a picture; shrink it")
    from PIL import Image

    try:
        size = _declared_size(content)
    except Image.DecompressionBombError as err:  # Pillow's own limit, for WebP; it is above this one
        raise UnreadableError(f"{name} is too large: {err} The limit here is {MAX_PIXELS / 1e6:.0f} million") from err
    if size is None:
        raise UnreadableError(f"{name} is not a picture that OpenCV can read")
    why = too_large(*size)
    if why is not None:
        raise UnreadableError(f"{name} {why}; shrink it")


def decode(content: bytes, name: str) -> npt.NDArray[np.uint8]:
    """Return uint8 (height, width, 3) BGR, upright, of checked content. Raises UnreadableError."""
    import cv2

    try:
        bgr = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        bgr = None
    if bgr is None:
        raise UnreadableError(f"{name} is not a picture that OpenCV can read")
    return np.asarray(bgr, np.uint8)


def resized(picture: npt.NDArray[Any], width: int, height: int) -> npt.NDArray[Any]:
    """Return a picture (height, width, channels) at another size, with the type of its pixels.

    Each pixel of a smaller picture is the mean of the area that it covers; a larger one is interpolated (bicubic).
    """
    import cv2

    while picture.shape[0] >= 4 * height and picture.shape[1] >= 4 * width:  # several times as fast as in one step
        picture = picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]
        picture = _by_opencv(picture, picture.shape[1] // 2, picture.shape[0] // 2, cv2.INTER_AREA)
    picture = _by_opencv(picture, min(width, picture.shape[1]), min(height, picture.shape[0]), cv2.INTER_AREA)
    return _by_opencv(picture, width, height, cv2.INTER_CUBIC)


def _by_opencv(picture: npt.NDArray[Any], width: int, height: int, method: int) -> npt.NDArray[Any]:
    import cv2

    if picture.shape[:2] == (height, width):
        return picture
    return np.asarray(cv2.resize(picture, (width, height), interpolation=method))


def _declared_size(content: bytes) -> tuple[int, int] | None:
    """Return width and height as the header declares them; None if it is not a header that OpenCV reads."""
    if content.startswith(_PNG):
        return struct.unpack_from(">II", content, 16) if len(content) >= 24 else None
    from PIL import Image

    Image.init()
    for name in _FORMATS:
        factory, accepts = Image.OPEN.get(name, (None, None))
        if factory is None or accepts is None or accepts(content[:16]) is not True:
            continue
        try:
            with factory(io.BytesIO(content), "") as picture:
                return picture.size
        except (OSError, ValueError, LookupError, TypeError, SyntaxError, struct.error):
            return None
    return None

"""One picture: from the bytes of a file to upright RGB, at the size that was asked for.

Pillow reads all formats: it reports damage that OpenCV fills with grey. If a smaller picture is wanted, a JPEG is
decoded at a reduced scale, which is several times as fast.
"""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.media.picture import MAX_BYTES, MAX_PIXELS, UnreadableError, resized, too_large

Pixels = npt.NDArray[np.uint8]

SUFFIXES = frozenset({
    ".apng", ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg",
    ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp",
})  # fmt: skip
"""Endings of files that are taken for pictures."""

_PROGRAMS = ("EPS", "WMF")
"""Formats that Pillow hands to a program of the system (Ghostscript), which runs what the file says."""
_WHITE = (255, 255, 255)
_ERRORS = (OSError, ValueError, LookupError, TypeError, SyntaxError, ArithmeticError, AttributeError, struct.error)
"""Errors of Pillow's readers for damaged content."""


@dataclass(frozen=True)
class Geometry:
    """Size that pictures are brought to."""

    resize: int | tuple[int, int] | None = None
    """Shortest side, or width and height; pixels."""
    longest: int | None = None
    """Largest longest side, pixels: larger pictures shrink to it, smaller ones stay."""
    crop: tuple[int, int] | None = None
    """Width and height of the middle that is kept; smaller pictures are enlarged to hold it."""

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height, if they are the same for all pictures."""
        return self.crop or (self.resize if isinstance(self.resize, tuple) else None)

    @property
    def is_whole(self) -> bool:
        """True if pictures stay as they are."""
        return self == Geometry()

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Return the width and height that a picture of this size is resized to, before it is cropped."""
        if isinstance(self.resize, tuple):
            return self.resize
        factor = 1.0
        if self.resize is not None:
            factor = self.resize / min(width, height)
        if self.longest is not None:
            factor = min(factor, self.longest / max(width, height))
        if self.crop is not None:
            factor = max(factor, self.crop[0] / width, self.crop[1] / height)
        return max(1, round(width * factor)), max(1, round(height * factor))


@dataclass(frozen=True)
class Picture:
    """A picture that could be read."""

    pixels: Pixels
    """uint8 (height, width, 3), RGB, upright."""
    size: tuple[int, int]
    """Width and height of the whole upright picture, pixels."""
    origin: tuple[float, float] = (0.0, 0.0)
    """x, y in the whole picture of the first pixel."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Pixels here for each pixel of the whole picture, along x and y."""


def read(content: bytes, geometry: Geometry) -> Picture:
    """Decode a picture. Raises UnreadableError with the reason, in a few words and without the file's name."""
    from PIL import ImageOps

    if not content:
        raise UnreadableError("the file is empty")
    if len(content) > MAX_BYTES:
        raise UnreadableError(f"the file has more than {MAX_BYTES / 1e6:.0f} MB, the limit of a picture")
    image = _opened(content)
    why = too_large(*image.size)
    if why is not None:
        raise UnreadableError(f"it {why}")
    try:
        if image.format == "JPEG" and not geometry.is_whole:
            turned = _is_turned(image)
            whole = image.size[::-1] if turned else image.size
            wanted = _wanted(geometry, whole)
            image.draft(None, wanted[::-1] if turned else wanted)
            upright = ImageOps.exif_transpose(image)
        else:  # some readers turn the picture themselves
            image.load()
            upright = ImageOps.exif_transpose(image)
            whole = upright.size
            wanted = _wanted(geometry, whole)
        rgb = _rgb(upright)
        pixels = resized(np.asarray(rgb), *wanted)
    except _ERRORS as err:
        raise UnreadableError(_reason(err)) from err
    scale = wanted[0] / whole[0], wanted[1] / whole[1]
    if geometry.crop is None:
        return Picture(pixels, whole, scale=scale)
    width, height = geometry.crop
    left, top = (wanted[0] - width) // 2, (wanted[1] - height) // 2
    return Picture(pixels[top : top + height, left : left + width], whole, (left / scale[0], top / scale[1]), scale)


def _wanted(geometry: Geometry, whole: tuple[int, int]) -> tuple[int, int]:
    """Return the size to resize a picture to. Raises UnreadableError if that is too large."""
    wanted = geometry.resized(*whole)
    why = None if wanted == whole else too_large(*wanted)
    if why is not None:
        raise UnreadableError(f"its size is {whole[0]}×{whole[1]}; at the size that was asked for it {why}")
    return wanted


def fitted(pixels: Pixels, geometry: Geometry) -> Picture:
    """Return decoded pixels, uint8 (height, width, 3), at the size that was asked for."""
    from PIL import Image

    if geometry.is_whole:
        return Picture(pixels, (pixels.shape[1], pixels.shape[0]))
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PPM")
    return read(content.getvalue(), geometry)


def declared_size(content: bytes) -> tuple[int, int] | None:
    """Return width and height as the header has them; None if it cannot be read. Decodes nothing."""
    try:
        width, height = _opened(content).size
        return width, height
    except UnreadableError:
        return None


def _opened(content: bytes) -> Any:
    from PIL import Image, UnidentifiedImageError

    _be_quiet()
    _with_heif(content)
    try:
        image = Image.open(io.BytesIO(content))
        if image.format in _PROGRAMS:
            raise UnreadableError(f"not a picture that can be read (it is {image.format})")
        return image
    except UnidentifiedImageError as err:
        raise UnreadableError(f"not a picture that can be read{_told(content)}") from err
    except Image.DecompressionBombError as err:
        raise UnreadableError(f"it has more than {MAX_PIXELS / 1e6:.0f} million pixels, the limit") from err
    except _ERRORS as err:
        raise UnreadableError(_reason(err)) from err


def _told(content: bytes) -> str:
    if _is_heif(content):
        return " (HEIC: pip install 'reelgraph[heic]')"
    if not content.strip(b"\0"):
        return " (all its bytes are 0)"
    if content.lstrip()[:1] in (b"<", b"{"):
        return " (it is text)"
    return ""


def _is_heif(content: bytes) -> bool:
    return content[4:8] == b"ftyp" and content[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"heim", b"heis")


def _with_heif(content: bytes) -> None:
    """Have Pillow read HEIC, if its plugin is installed."""
    if _is_heif(content):
        with contextlib.suppress(ImportError):
            import pillow_heif

            pillow_heif.register_heif_opener()


def _be_quiet() -> None:
    """Keep Pillow's warnings (a large picture, a damaged tag) away: what matters is raised, or read.

    Not by `catch_warnings`, which threads would take from each other.
    """
    if not any(one[0] == "ignore" and one[3] is not None and one[3].pattern == _PILLOW for one in warnings.filters):
        warnings.filterwarnings("ignore", module=_PILLOW)


_PILLOW = r"PIL\."
_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)


def _is_turned(image: Any) -> bool:
    """Return whether the upright picture is as wide as the stored one is high (EXIF, tag Orientation)."""
    try:
        return image.getexif().get(_ORIENTATION) in _SIDEWAYS
    except _ERRORS:
        return False


def _rgb(image: Any) -> Any:
    """Return a Pillow image as RGB: 16 bit as its high byte, and what is transparent on white."""
    from PIL import Image

    if image.mode in ("I;16", "I;16B", "I;16L", "I;16N", "I", "F"):
        values = np.asarray(image)
        eight = _eight_bits(values)
        if "transparency" in image.info:  # a grey value; Pillow has no picture of 16 bits with transparency
            eight[values == image.info["transparency"]] = 255
        return Image.fromarray(eight).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        transparent = image.convert("RGBA")
        white = Image.new("RGBA", transparent.size, _WHITE)
        return Image.alpha_composite(white, transparent).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(values: npt.NDArray[Any]) -> Pixels:
    """Return grey values in 8 bits: the high byte of 16 bits, and of 32 bits if a value is above 255.

    Floats are taken as 0 to 1, or as 0 to 255 if one is above 1.
    """
    finite = np.nan_to_num(values.astype(np.float64))
    largest = finite.max(initial=0)
    if values.dtype.kind == "f":
        finite = finite * 255 if largest <= 1 else finite
    elif values.dtype.itemsize == 2 or largest > 255:
        finite = finite // 256 if largest < 65536 else finite * 255 / largest
    return np.clip(np.round(finite), 0, 255).astype(np.uint8)


def _reason(err: BaseException) -> str:
    told = " ".join(str(err).split()) or type(err).__name__
    if "truncated" in told.lower() or "unexpected end" in told.lower():
        return f"the file is cut off ({told})"
    return f"the picture is damaged ({told})"[:300]

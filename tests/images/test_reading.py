"""One picture: every format and colour, turned upright, at the size that was asked for; and what is wrong with it."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.media.images.reading import Geometry, declared_size, fitted, read
from pipeline.media.picture import UnreadableError

WHOLE = Geometry()
RED, GREEN, BLUE = (220, 30, 20), (20, 200, 40), (30, 40, 210)


def picture(width: int = 64, height: int = 48) -> Image.Image:
    """Left half red, right half green, with a blue strip at the top."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2], pixels[:, width // 2 :] = RED, GREEN
    pixels[: height // 4] = BLUE
    return Image.fromarray(pixels)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def near(pixel: np.ndarray, colour: tuple[int, int, int], tolerance: int = 12) -> bool:
    return bool((np.abs(pixel.astype(int) - colour) <= tolerance).all())


FORMATS: list[tuple[str, dict[str, Any]]] = [
    ("JPEG", {"quality": 95}),
    ("JPEG", {"quality": 95, "progressive": True}),
    ("WEBP", {"quality": 95}),
    ("WEBP", {"lossless": True}),
    ("TIFF", {"compression": "tiff_lzw"}),
    *((kind, {}) for kind in ("PNG", "TIFF", "BMP", "AVIF", "PPM", "TGA", "JPEG2000")),
]


@pytest.mark.parametrize(("kind", "options"), FORMATS, ids=str)
def test_formats(kind: str, options: dict[str, Any]) -> None:
    found = read(saved(picture(), kind, **options), WHOLE)
    assert (found.pixels.shape, found.pixels.dtype, found.size) == ((48, 64, 3), np.uint8, (64, 48))
    assert near(found.pixels[30, 10], RED)
    assert near(found.pixels[30, 54], GREEN)
    assert near(found.pixels[4, 30], BLUE)


def test_heic() -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    assert near(read(saved(picture(), "HEIF", quality=95), WHOLE).pixels[30, 10], RED)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("geometry", [WHOLE, Geometry(resize=(32, 24))], ids=["whole", "resized"])
def test_exif_turns_upright(orientation: int, geometry: Geometry) -> None:
    turned_back = {
        1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]  # fmt: skip
    stored = picture() if turned_back is None else picture().transpose(turned_back)
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = read(saved(stored, "JPEG", quality=95, exif=exif), geometry)
    height, width = found.pixels.shape[:2]
    assert found.size == (64, 48)
    assert (width, height) == (geometry.size or (64, 48))
    assert near(found.pixels[height * 5 // 8, width // 6], RED, 25)
    assert near(found.pixels[height * 5 // 8, width * 5 // 6], GREEN, 25)
    assert near(found.pixels[height // 12, width // 2], BLUE, 25)


def test_colours() -> None:
    grey = read(saved(picture().convert("L"), "PNG"), WHOLE).pixels
    assert (grey[..., 0] == grey[..., 2]).all()
    palette = read(saved(picture().quantize(8), "PNG"), WHOLE).pixels
    assert near(palette[30, 10], RED)
    one_bit = read(saved(picture().convert("1"), "PNG"), WHOLE).pixels
    assert set(np.unique(one_bit)) <= {0, 255}
    cmyk = read(saved(picture().convert("CMYK"), "JPEG", quality=95), WHOLE).pixels
    assert near(cmyk[30, 10], RED)


def test_what_is_transparent_is_white() -> None:
    image = picture().convert("RGBA")
    image.putalpha(Image.fromarray(np.where(np.arange(64) < 32, 255, 0).astype(np.uint8)[None].repeat(48, 0)))
    found = read(saved(image, "PNG"), WHOLE).pixels
    assert near(found[30, 10], RED)
    assert (found[30, 54] == 255).all()
    half = picture().convert("RGBA")
    half.putalpha(128)
    assert near(read(saved(half, "WEBP", lossless=True), WHOLE).pixels[30, 10], (237, 142, 137))
    palette = picture().quantize(8)
    index = palette.getpixel((10, 30))
    assert (read(saved(palette, "PNG", transparency=index), WHOLE).pixels[30, 10] == 255).all()


@pytest.mark.parametrize("bits", [1, 8, 16])
def test_a_transparent_grey_is_white(bits: int) -> None:
    values = np.tile(np.arange(2, dtype=np.uint8), (4, 8)) if bits == 1 else np.arange(64, dtype=f">u{bits // 8}")
    rows = np.packbits(values, 1) if bits == 1 else values.reshape(4, 16)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    content = _png(16, 4, bits, 0, lines, _part(b"tRNS", b"\0\0"))
    found = read(content, WHOLE).pixels
    assert (found[0, 0] == 255).all()
    assert (found[0, 1] == {1: 255, 8: 1, 16: 0}[bits]).all()


def test_sixteen_bits_keep_their_high_byte() -> None:
    values = np.linspace(0, 65535, 64 * 48).astype(np.uint16).reshape(48, 64)
    found = read(saved(Image.fromarray(values), "PNG"), WHOLE).pixels
    assert np.array_equal(found[..., 0], values >> 8)
    assert np.array_equal(read(saved(Image.fromarray(values), "TIFF"), WHOLE).pixels[..., 1], values >> 8)
    colour = np.stack([values, values[::-1], values // 2], -1)
    found = read(_png16(colour), WHOLE).pixels
    assert np.array_equal(found, colour >> 8)
    floats = Image.fromarray((values / 65535).astype(np.float32))
    assert np.abs(read(saved(floats, "TIFF"), WHOLE).pixels[..., 0].astype(int) - (values >> 8)).max() <= 1


def _png16(rgb: np.ndarray) -> bytes:
    height, width = rgb.shape[:2]
    return _png(width, height, 16, 2, b"".join(b"\0" + line.astype(">u2").tobytes() for line in rgb))


def _png(width: int, height: int, bits: int, kind: int, lines: bytes, more: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    end = more + _part(b"IDAT", zlib.compress(lines)) + _part(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + _part(b"IHDR", header) + end


def _part(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize(
    ("geometry", "size"),
    [
        (Geometry(resize=32), (43, 32)), (Geometry(resize=96), (128, 96)), (Geometry(resize=(20, 30)), (20, 30)),
        (Geometry(longest=32), (32, 24)), (Geometry(longest=100), (64, 48)),
        (Geometry(resize=32, crop=(24, 24)), (24, 24)), (Geometry(crop=(40, 40)), (40, 40)),
        (Geometry(crop=(96, 96)), (96, 96)), (Geometry(longest=32, crop=(30, 30)), (30, 30)),
    ],
    ids=str,
)  # fmt: skip
def test_geometry(geometry: Geometry, size: tuple[int, int]) -> None:
    found = read(saved(picture(), "PNG"), geometry)
    assert found.pixels.shape[1::-1] == size
    assert found.size == (64, 48)
    # The border of red and green lies at x = 32 of the whole picture, that of blue at y = 12.
    x = (32 - found.origin[0]) * found.scale[0]
    y = (12 - found.origin[1]) * found.scale[1]
    middle = found.pixels[size[1] * 3 // 4]
    assert np.abs(np.argmax(np.diff(middle[:, 1].astype(int))) + 1 - x) <= 1
    if y > 1:
        assert np.abs(np.argmin(np.diff(found.pixels[:, size[0] // 8, 2].astype(int))) + 1 - y) <= 1
    same = fitted(np.asarray(picture()), geometry)
    assert np.array_equal(same.pixels, found.pixels)
    assert (same.origin, same.scale) == (found.origin, found.scale)


def test_a_jpeg_at_a_reduced_scale_is_the_same_picture() -> None:
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 255, (30, 40, 3)).astype(np.uint8)).resize(
        (1600, 1200), Image.Resampling.BICUBIC
    )
    reduced = read(saved(smooth, "JPEG", quality=95), Geometry(resize=(160, 120))).pixels.astype(int)
    full = read(saved(smooth, "PNG"), Geometry(resize=(160, 120))).pixels.astype(int)
    assert np.abs(reduced - full).mean() < 1.5


BOMB = _png16(np.zeros((1, 1, 3), np.uint16))
BOMB = BOMB[:16] + struct.pack(">II", 60000, 60000) + BOMB[24:29] + struct.pack(
    ">I", zlib.crc32(BOMB[12:16] + struct.pack(">II", 60000, 60000) + BOMB[24:29])
) + BOMB[33:]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"root:x:0:0", "not a picture that can be read"),
        (b"<!DOCTYPE html><html>", r"not a picture that can be read \(it is text\)"),
        (bytes(1000), r"not a picture that can be read \(all its bytes are 0\)"),
        (saved(picture(), "JPEG")[:400], "the file is cut off"),
        (saved(picture(400, 300), "PNG")[:300], "the file is cut off|the picture is damaged"),
        (saved(picture(400, 300), "WEBP")[:200], "the file is cut off|the picture is damaged|not a picture"),
        (saved(picture(400, 300), "AVIF")[:200], "the file is cut off|the picture is damaged|not a picture"),
        (BOMB, "it has more than 134 million pixels, the limit"),
        (b"\0\0\0\x18ftypheic" + bytes(30), "not a picture|the picture is damaged|the file is cut off"),
    ],
    ids=["empty", "text", "html", "zeros", "jpeg", "png", "webp", "avif", "bomb", "heic"],
)  # fmt: skip
def test_what_cannot_be_read_says_why(content: bytes, reason: str) -> None:
    with pytest.raises(UnreadableError, match=rf"^({reason})"):
        read(content, WHOLE)


def test_damage_of_any_kind_is_said() -> None:
    """Bytes flipped and cut at random: a picture, or a reason, and nothing else."""
    rng = np.random.default_rng(1)
    formats = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "JPEG2000", "PPM", "TGA")
    for kind in formats:
        whole = saved(picture(), kind)
        for _ in range(40):
            content = bytearray(whole[: rng.integers(1, len(whole) + 1)])
            for at in rng.integers(0, len(content), rng.integers(0, 6)):
                content[at] = rng.integers(0, 256)
            with contextlib.suppress(UnreadableError):
                found = read(bytes(content), Geometry(longest=50))
                assert found.pixels.ndim == 3


def test_declared_size() -> None:
    assert declared_size(saved(picture(), "JPEG")) == (64, 48)
    assert declared_size(b"no") is None


def test_a_narrow_picture_is_not_enlarged_beyond_memory() -> None:
    content = saved(Image.new("RGB", (1, 30000)), "PNG")
    with pytest.raises(UnreadableError, match="its size is 1×30000; at the size that was asked for it has 256x7680000"):
        read(content, Geometry(resize=256, crop=(224, 224)))


def test_a_turned_tiff_keeps_its_shape() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("TIFF", "PNG", "JPEG"):
        found = read(saved(Image.new("RGB", (64, 48)), kind, exif=exif), Geometry())
        assert (found.size, found.pixels.shape) == ((48, 64), (64, 48, 3)), kind


def test_no_program_of_the_system_reads_a_picture() -> None:
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    with pytest.raises(UnreadableError, match="it is EPS"):
        read(content, Geometry())

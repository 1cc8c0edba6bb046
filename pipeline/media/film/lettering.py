"""Words on a picture: any script for which there is a font, sharp at any size."""

from __future__ import annotations

import importlib.util
import os
import sys
import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.text import plain

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

_NO_CHARACTER = "\U0010ffff"
"""Never assigned: what is drawn for it is what a font draws for characters that it lacks."""
_PREFERRED = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial.ttf", "arial.ttf", "LiberationSans-Regular.ttf")
_LIKELY = ("cjk", "unicode", "droidsansfallback", "msyh", "meiryo", "malgun", "pingfang", "hiragino", "notosans", "wqy")
"""Parts of the names of fonts that cover scripts of which most have nothing, in lower case."""


@lru_cache(256)
def mask(text: str, size: int) -> npt.NDArray[np.uint8]:
    """uint8 (height, width): how much of each pixel is ink, 0 to 255; the same height for all texts of a size."""
    from PIL import Image, ImageDraw

    font = _load(_file_for(text) or _fonts()[0], size)
    ascent, descent = font.getmetrics()
    width = max(1, round(font.getlength(text)) + 1)
    picture = Image.new("L", (width, ascent + descent))
    ImageDraw.Draw(picture).text((0, 0), text, fill=255, font=font)
    found = np.asarray(picture)
    found.setflags(write=False)
    return found


def drawable(text: str, otherwise: str) -> str:
    """The text where a font has all of its characters, else without its accents, else `otherwise`."""
    text = plain(text)
    bare = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return next((shown for shown in (unicodedata.normalize("NFC", text), bare) if _file_for(shown)), otherwise)


@lru_cache(256)
def _file_for(text: str) -> str | None:
    """Path of a font that has all characters; "default" for Pillow's own, which has those of English."""
    wanted = frozenset(c for c in text if not c.isspace() and not unicodedata.category(c).startswith("C"))
    return next((file for file in _fonts() if _has(file, wanted)), None)


@lru_cache(1)
def _fonts() -> tuple[str, ...]:
    """Font files, the likely ones first: of this system, and the one that matplotlib brings along."""
    files = [Path(folder) / name for place in _places() for folder, _, names in os.walk(place) for name in names]
    files = [file for file in files if file.suffix.lower() in (".ttf", ".otf", ".ttc")]
    # Fonts of last resort draw a frame with the name of the script in it.
    fonts = sorted((file for file in files if "lastresort" not in file.name.lower()), key=_liking)
    preferred = [str(file) for file in fonts if file.name in _PREFERRED]
    return (*preferred, "default", *(str(file) for file in fonts if file.name not in _PREFERRED))


def _liking(file: Path) -> tuple[int, int, str]:
    preferred = _PREFERRED.index(file.name) if file.name in _PREFERRED else len(_PREFERRED)
    likely = any(part in file.name.lower().replace("-", "") for part in _LIKELY)
    slanted = any(part in file.name for part in ("Italic", "Oblique", "Mono", "Serif"))
    return preferred, 0 if likely and not slanted else 1 + slanted, str(file)


def _places() -> list[Path]:
    home = Path.home()
    places = {
        "darwin": [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library/Fonts"],
        "win32": [Path(os.environ.get("WINDIR", r"C:\Windows")) / "Fonts"],
    }.get(sys.platform, [Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), home / ".fonts"])
    if sys.platform not in ("darwin", "win32"):
        places.append(home / ".local/share/fonts")
    matplotlib = importlib.util.find_spec("matplotlib")  # found, not imported: that would take a second
    if matplotlib is not None and matplotlib.origin:
        places.append(Path(matplotlib.origin).parent / "mpl-data/fonts/ttf")
    return places


@lru_cache(64)
def _load(file: str, size: int) -> FreeTypeFont:
    from PIL import ImageFont

    if file == "default":
        font = ImageFont.load_default(size)
        assert isinstance(font, ImageFont.FreeTypeFont)
        return font
    return ImageFont.truetype(file, size)


def _has(file: str, wanted: frozenset[str]) -> bool:
    try:
        font = _load(file, 16)
        lacking = _ink(font, _NO_CHARACTER)
        return all(_ink(font, c) != lacking for c in wanted)
    except OSError:
        return False  # not a font that FreeType reads


def _ink(font: FreeTypeFont, character: str) -> tuple[tuple[int, int], bytes]:
    found = font.getmask(character)
    return found.size, bytes(found)

"""Pictures of people at their clearest: as the store keeps them, and all on one contact sheet."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.errors import UsageError
from pipeline.faces.people.thumbnails import SIDE
from pipeline.files.whole import written_whole
from pipeline.machine.cores import available_cores
from pipeline.media.film.lettering import drawable, mask
from pipeline.store.pieces import rows_of
from pipeline.text import clock, plural

if TYPE_CHECKING:
    from pipeline.faces.views.people import PersonView
    from pipeline.store.read import RunInput

Pixels = npt.NDArray[np.uint8]
MOST_ON_SHEET = 1000
"""People on a sheet, so that any viewer opens it: at most 1,768 by 22,408 pixels."""
MOST_COLUMNS = 10
_SIDE = 160
"""Side of a picture in pixels; the store's have 96."""
_GAP = 16
_LETTERS = 15
"""Height of the letters in pixels."""
_LINE = 20
_GREY = 224


def pictures_of(people: Sequence[PersonView], items: Sequence[RunInput]) -> list[Pixels | None]:
    """Return the stored picture of each person's clearest face, uint8 (96, 96, 3) RGB; None if there is none.

    Only these rows are read. Raises StoreError if they are damaged.
    """
    item_of = {(str(item.store_path), item.name): item for item in items}
    wanted: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for k, one in enumerate(people):
        if one.best is not None and one.best["thumbnail"] is not None:
            wanted[one.best["store"], one.best["input"]].append((one.best["thumbnail"], k))
    found: list[Pixels | None] = [None] * len(people)
    for place, some in wanted.items():
        rows, owners = zip(*sorted(some), strict=True)
        pixels = rows_of(item_of[place].pieces("thumbnail"), np.array(rows, np.int64), available_cores())
        if pixels is not None and pixels.shape == (len(rows), SIDE, SIDE, 3):  # the store may be a stranger's
            for k, picture in zip(owners, pixels, strict=True):
                found[k] = picture
    return found


def encoded(picture: Pixels, suffix: str = ".png") -> bytes:
    """Return a picture, uint8 (height, width, 3) RGB, as a file of this kind."""
    import cv2

    ok, content = cv2.imencode(suffix, np.ascontiguousarray(picture[:, :, ::-1]))
    assert ok, "OpenCV writes every uint8 picture as PNG or JPEG"
    return content.tobytes()


def write_sheet(people: Sequence[PersonView], pictures: Sequence[Pixels | None], path: Path) -> str:
    """Write the contact sheet and return a line about it. Raises UsageError without people, or if it cannot."""
    if not people:
        raise UsageError(f"no people were found, so {path} is not written; leave --sheet out")
    content = encoded(draw(people[:MOST_ON_SHEET], pictures), path.suffix.lower())
    with written_whole(path, "the sheet ") as file:
        file.write(content)
    more = f", the longest on screen of {len(people)}" if len(people) > MOST_ON_SHEET else ""
    return f"{path}: {plural(min(len(people), MOST_ON_SHEET), 'person', 'people')}{more}"


def draw(people: Sequence[PersonView], pictures: Sequence[Pixels | None]) -> Pixels:
    """Return uint8 (height, width, 3): a tile per person, with number, name, and place of the clearest face."""
    import cv2

    columns = min(MOST_COLUMNS, math.ceil(math.sqrt(len(people))))
    width, height = _SIDE + _GAP, _SIDE + 3 * _LINE + _GAP
    lines_of_tiles = math.ceil(len(people) / columns)
    sheet = np.full((lines_of_tiles * height + _GAP // 2, columns * width + _GAP // 2, 3), 255, np.uint8)
    for k, (one, picture) in enumerate(zip(people, pictures, strict=False)):
        top, left = k // columns * height + _GAP // 2, k % columns * width + _GAP // 2
        tile = sheet[top : top + _SIDE, left : left + _SIDE]
        tile[:] = _GREY if picture is None else cv2.resize(picture, (_SIDE, _SIDE), interpolation=cv2.INTER_CUBIC)
        if picture is None:
            _write(sheet, "no picture", top + _SIDE // 2 - _LINE // 2, left)
        best = one.best or {}
        name = drawable(one.name, "(no font)") if one.name else ""
        place = drawable(best["name"], "?") if "name" in best else clock(best.get("time_seconds", 0))
        lines = f"{one.id}  {name}".rstrip(), drawable(best.get("input", ""), "?"), place
        for number, line in enumerate(lines):
            _write(sheet, line, top + _SIDE + number * _LINE, left)
    return sheet


def _write(sheet: Pixels, text: str, top: int, left: int) -> None:
    """Write a line in black, shortened in the middle if it is wider than a tile."""
    ink = mask(text, _LETTERS)
    kept = len(text)
    while ink.shape[1] > _SIDE and kept > 2:
        kept -= 1
        ink = mask(f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}", _LETTERS)
    part = sheet[top : top + ink.shape[0], left : left + ink.shape[1]]
    shade = 1 - ink[: part.shape[0], : part.shape[1], None] / 255
    part[:] = (part * shade).astype(np.uint8)

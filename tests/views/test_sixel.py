"""Sixel: which terminals have it, and that what is written is the picture. The decoder here is the test's own."""

from __future__ import annotations

import io
import os
import pty
import re
import termios
import threading

import numpy as np
import pytest
from PIL import Image

from pipeline.views.sixel import BAND, Sixel, ask, drawn
from pipeline.views.terminal import PICTURE_COLUMNS, PICTURE_LINES, PLACE, with_pictures


def decoded(text: str) -> np.ndarray:
    """uint8 (height, width, 3): a picture in sixels, as a VT340 reads it."""
    body = re.fullmatch(r"\x1bP[\d;]*q(.*)\x1b\\", text, re.DOTALL)
    assert body, "one device control string"
    width, height, at, line, colour = 0, 0, 0, 0, -1
    palette: dict[int, tuple[float, ...]] = {}
    shown = np.zeros((0, 0), np.int64)
    for command, numbers, count, letter in re.findall(r'(["#])([\d;]+)|(?:!(\d+))?([?-~$-])', body[1]):
        values = [int(one) for one in numbers.split(";")] if numbers else []
        if command == '"':
            assert values[:2] == [1, 1], "square pixels"
            width, height = values[2:]
            shown = np.full((height, width), -1, np.int64)
        elif command == "#":
            colour = values[0]
            assert 0 <= colour < 256
            if len(values) > 1:
                assert values[1] == 2
                assert max(values[2:]) <= 100
                palette[colour] = tuple(one / 100 * 255 for one in values[2:])
        elif letter == "$":
            at = 0
        elif letter == "-":
            at, line = 0, line + BAND
        else:
            n = int(count or 1)
            assert at + n <= width, "beyond the right edge"
            for bit in range(BAND):
                if (ord(letter) - 63) >> bit & 1:
                    assert line + bit < height, "beyond the lower edge"
                    shown[line + bit, at : at + n] = colour
            at += n
    assert (shown >= 0).all(), "every pixel has a colour"
    table = np.zeros((256, 3))
    for one, rgb in palette.items():
        table[one] = rgb
    return np.rint(table[shown]).astype(np.uint8)


def png_of(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def scene(height: int = 96, width: int = 96) -> np.ndarray:
    """Slopes of three colours, an edge, and a little noise."""
    y, x = np.mgrid[0:height, 0:width]
    picture = np.stack([x * 255 / width, y * 255 / height, 128 + 100 * np.sin(x / 9)], axis=2)
    picture[20:40, 10:70] = (250, 10, 30)
    return np.clip(picture + np.random.default_rng(0).normal(0, 2, picture.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("space", "size"),
    [((80, 80), (78, 78)), ((68, 64), (64, 64)), ((200, 90), (90, 90)), ((7, 90), (6, 6))],
    ids=["10 by 20 cells", "8 by 17", "narrow", "tiny"],
)
def test_the_picture_that_comes_back_is_the_one_that_was_drawn(space: tuple[int, int], size: tuple[int, int]) -> None:
    picture = scene()
    shown = decoded(drawn(png_of(picture), *space))
    assert shown.shape[:2] == size
    expected = np.asarray(Image.fromarray(picture).resize(size[::-1], Image.Resampling.LANCZOS), np.float64)
    assert np.abs(shown - expected).mean() < 8, "256 colours, in percent"


@pytest.mark.parametrize("colours", [2, 16, 256])
def test_colours_are_as_many_as_the_terminal_has(colours: int) -> None:
    text = drawn(png_of(scene()), 96, 96, colours)
    used = {int(one) for one in re.findall(r"#(\d+)", text)}
    assert max(used) < colours
    assert len(np.unique(decoded(text).reshape(-1, 3), axis=0)) <= colours


def test_few_colours_and_shapes_are_exact() -> None:
    """Grey, transparent, and a picture that is not square."""
    picture = np.full((12, 24, 3), 255, np.uint8)
    picture[:5, :7] = (255, 0, 0)
    picture[11, 23] = 0
    assert (decoded(drawn(png_of(picture), 12, 24)) == picture).all()
    assert (decoded(drawn(png_of(picture[:, :, 0]), 12, 24))[:5, :7] == 255).all()


TERMINALS = {
    "foot": ({"c": "\x1b[?62;4;22c", "16t": "\x1b[6;33;14t", "S": "\x1b[?1;0;1024S"}, Sixel(33, 14, 256)),
    "xterm -ti vt340": ({"c": "\x1b[?63;1;2;4;6;9;15;22c", "S": "\x1b[?1;0;16S"}, Sixel(20, 10, 16)),
    "no sizes": ({"c": "\x1b[?62;4c", "16t": "\x1b[6;0;0t", "S": "\x1b[?1;3;0S"}, Sixel(20, 10, 256)),
    "xterm": ({"c": "\x1b[?64;1;2;6;9;15;18;21;22c", "16t": "\x1b[6;20;10t"}, None),
    "VT100": ({"c": "\x1b[?1;2c"}, None),
    "level 4 without it": ({"c": "\x1b[?4;6c"}, None),
    "silent": ({}, None),
}


@pytest.mark.parametrize(("says", "found"), TERMINALS.values(), ids=TERMINALS)
def test_terminals_are_asked(says: dict[str, str], found: Sixel | None) -> None:
    ours, theirs = pty.openpty()
    asked = answering(ours, says)
    try:
        before = termios.tcgetattr(theirs)
        assert ask(theirs, 30 if says else 3) == found
        assert termios.tcgetattr(theirs) == before
        assert asked[:1] == ["c"]
        assert (len(asked) > 1) == (found is not None), "only a terminal with sixel gets the other questions"
    finally:
        os.close(theirs)
        os.close(ours)


def answering(terminal: int, says: dict[str, str]) -> list[str]:
    """Answer questions as a terminal does, in order; return the list of what is asked, which grows."""
    asked: list[str] = []

    def answer() -> None:
        try:
            while text := os.read(terminal, 1024).decode():
                for kind in re.findall(r"\x1b\[\??[\d;]*?((?:16t)|c|S)", text):
                    asked.append(kind)
                    if kind in says:
                        os.write(terminal, says[kind].encode())
        except OSError:
            pass  # the terminal is closed

    threading.Thread(target=answer, daemon=True).start()
    return asked


def test_a_table_with_sixels_keeps_its_lines() -> None:
    """The cursor is put back after each picture, which is no higher than its cell."""
    by = Sixel(20, 10)
    blank = " " * PICTURE_COLUMNS
    table = f"{blank} id\n" + "".join(f"{PLACE[0]}{blank} {k}\n" + f"{blank}\n" * 3 for k in range(2))
    shown = "".join(with_pictures(table, [png_of(scene()), None], by))
    (picture,) = re.findall(r"\x1b7(\x1bP.*?\x1b\\)\x1b8", shown, re.DOTALL)
    height, width, _ = decoded(picture).shape
    assert (height, width) == (78, 78)
    assert height <= PICTURE_LINES * by.cell_height
    assert width <= PICTURE_COLUMNS * by.cell_width

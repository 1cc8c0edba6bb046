"""Pictures in a terminal: which one can show them, and that text and pictures stand where they should."""

from __future__ import annotations

import base64
import re
from typing import get_args

import pytest

from pipeline.views.terminal import PICTURE_COLUMNS, PICTURE_LINES, PLACE, Protocol, protocol, with_pictures


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ("TERM=xterm-kitty KITTY_WINDOW_ID=1", "kitty"),
        ("TERM=xterm-kitty", "kitty"),
        ("TERM=xterm-256color KITTY_WINDOW_ID=3", "kitty"),
        ("TERM=xterm-ghostty TERM_PROGRAM=ghostty", "kitty"),
        ("TERM=xterm-256color TERM_PROGRAM=ghostty", "kitty"),
        ("TERM=xterm-256color TERM_PROGRAM=iTerm.app", "iterm"),
        ("TERM=xterm-256color LC_TERMINAL=iTerm2", "iterm"),
        ("TERM=xterm-256color TERM_PROGRAM=WezTerm", "iterm"),
        ("TERM=xterm-256color TERM_PROGRAM=vscode KITTY_WINDOW_ID=3", None),
        ("TERM=xterm-256color TERM_PROGRAM=Apple_Terminal", None),
        ("TERM=tmux-256color TERM_PROGRAM=tmux KITTY_WINDOW_ID=3", None),
        ("TERM=xterm-kitty TMUX=/tmp/tmux-0/default,1,0", None),
        ("TERM=screen-256color LC_TERMINAL=iTerm2", None),
        ("TERM=xterm-256color STY=1.a LC_TERMINAL=iTerm2", None),
        ("TERM=dumb KITTY_WINDOW_ID=3", None),
        ("TERM=xterm-256color", None),
        ("", None),
    ],
)
def test_terminals_by_their_variables(variables: str, found: Protocol | None) -> None:
    assert protocol(dict(one.split("=", 1) for one in variables.split())) == found


class Screen:
    """A terminal of some lines that scrolls: what is left of text and pictures, from the first line ever written.

    A picture must lie on the screen, and text that is written over it erases it, as in iTerm2.
    """

    def __init__(self, height: int) -> None:
        self.height, self.top, self.line, self.column = height, 0, 0, 0
        self.cells: dict[tuple[int, int], str] = {}
        self.pictures: dict[tuple[int, int], bytes] = {}
        self.saved = (0, 0)
        self.kitty = ""

    def write(self, text: str) -> None:
        for found in re.finditer(
            r"\x1b(?:\[(\d+)([AC])|([78])|_G([^;]*);([^\x1b]*)\x1b\\|\]1337;File=([^:]*):([^\x07]*)\x07)|([^\x1b])",
            text,
        ):
            count, move, mark, keys, data, options, content, letter = found.groups()
            if move == "A":
                self.line -= int(count)
                assert self.line >= self.top, "the cursor cannot leave the screen"
            elif move == "C":
                self.column += int(count)
            elif mark == "7":
                self.saved = (self.line, self.column)
            elif mark == "8":
                self.line, self.column = self.saved
            elif keys is not None:
                self.kitty += data
                assert len(data) <= 4096
                if "m=0" in keys.split(","):
                    self._show(base64.b64decode(self.kitty))
                    self.kitty = ""
            elif options is not None:
                assert f"size={len(base64.b64decode(content))};" in options
                self._show(base64.b64decode(content))
                self.line, self.column = self.line + PICTURE_LINES - 1, self.column + PICTURE_COLUMNS
            elif letter == "\n":
                self.line, self.column = self.line + 1, 0
                self.top = max(self.top, self.line - self.height + 1)
            else:
                for line, column in self.pictures:
                    inside = 0 <= self.line - line < PICTURE_LINES and 0 <= self.column - column < PICTURE_COLUMNS
                    assert not inside, f"{letter!r} is written over a picture"
                self.cells[self.line, self.column] = letter
                self.column += 1

    def _show(self, picture: bytes) -> None:
        assert self.top <= self.line
        assert self.line + PICTURE_LINES <= self.top + self.height, "the picture is cut off"
        self.pictures[self.line, self.column] = picture

    def text(self) -> list[str]:
        last = max(line for line, _ in self.cells)
        width = max(column for _, column in self.cells) + 1
        return ["".join(self.cells.get((line, at), " ") for at in range(width)).rstrip() for line in range(last + 1)]


@pytest.mark.parametrize("height", [PICTURE_LINES + 3, 60], ids=["it scrolls", "a high screen"])
@pytest.mark.parametrize("by", get_args(Protocol))
def test_a_table_with_pictures(by: Protocol, height: int) -> None:
    blank = " " * PICTURE_COLUMNS
    pngs = [b"\x89PNG" + bytes([k]) * size for k, size in enumerate((10, 3072, 3073, 20_000))]
    shown: list[bytes | None] = [*pngs, None]
    table, plain = f"{blank} id name\n", [f"{blank} id name".rstrip()]
    for k in range(len(shown)):
        lines = [f"{k} Ann {k}", "Lee", "", *(["of Oslo", "Norway"] if k == 1 else [""])]
        table += "\n".join(f"{PLACE[0] if not at else ''}{blank} {line}   " for at, line in enumerate(lines)) + "\n"
        plain += [f"{blank} {line}".rstrip() for line in lines]
    screen = Screen(height)
    screen.write("".join(with_pictures(table, shown, by)) + "3 people\n")
    assert screen.text() == [*plain, "3 people"]
    starts = [(1, 0), (5, 0), (10, 0), (14, 0)]
    assert screen.pictures == dict(zip(starts, pngs, strict=True))


def test_the_cell_of_a_picture_is_as_high_as_it() -> None:
    assert len(PLACE.split("\n")) == PICTURE_LINES

"""Pictures in a terminal, by the protocol of kitty or of iTerm2, or by sixel, if the terminal has one of them."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Mapping
from typing import Literal

from pipeline.views.sixel import Sixel, ask_terminal, drawn

Protocol = Literal["kitty", "iterm"]
PICTURE_LINES, PICTURE_COLUMNS = 4, 8
"""Size of a picture in characters: a square, since these are about twice as high as wide."""
PLACE = "\x1f" + "\n" * (PICTURE_LINES - 1)
"""The cell that a table has in place of a picture, in its first column; its first character alone if there is none.
Plain text has no such character."""
_CHUNK = 4096
"""Characters of base64 that kitty takes at a time."""
_BY_PROGRAM: dict[str, Protocol] = {
    "iTerm.app": "iterm", "WezTerm": "iterm", "mintty": "iterm", "rio": "iterm",
    "kitty": "kitty", "ghostty": "kitty",
}  # fmt: skip
_BY_TERM: dict[str, Protocol] = {"xterm-kitty": "kitty", "xterm-ghostty": "kitty"}


def protocol(environment: Mapping[str, str] = os.environ) -> Protocol | None:
    """Return the protocol for pictures of the terminal that these variables describe; None if it has none we know.

    The variables of a terminal are inherited by others that are started from it, so the more particular one decides.
    """
    term = environment.get("TERM", "")
    if _has_none(environment):
        return None
    if term in _BY_TERM:
        return _BY_TERM[term]
    if environment.get("TERM_PROGRAM"):
        return _BY_PROGRAM.get(environment["TERM_PROGRAM"])
    if "KITTY_WINDOW_ID" in environment:
        return "kitty"
    return "iterm" if environment.get("LC_TERMINAL") == "iTerm2" else None


def means_of_terminal(environment: Mapping[str, str] = os.environ) -> Protocol | Sixel | None:
    """Return how the terminal of this process shows pictures: by its variables, else by what it answers."""
    by = protocol(environment)
    return by if by or not environment.get("TERM") or _has_none(environment) else ask_terminal()


def _has_none(environment: Mapping[str, str]) -> bool:
    """Return whether a terminal shows no pictures, whatever it says: tmux and screen do not pass them on."""
    term = environment.get("TERM", "")
    return term == "dumb" or term.startswith(("tmux", "screen")) or bool({"TMUX", "STY"} & environment.keys())


def with_pictures(text: str, pngs: list[bytes | None], by: Protocol | Sixel) -> Iterator[str]:
    """Yield a table's text with the pictures of its rows, in order, in the places of `PLACE`; None: the row has none.

    Each row's lines are made first: a picture at the screen's lower edge would be cut off. The text then skips the
    picture's columns, because a space would erase them in iTerm2.
    """
    before, *rows = text.split(PLACE[0])
    yield before
    for row, png in zip(rows, pngs, strict=True):
        lines = row.splitlines()
        picture = "" if png is None else f"\x1b7{_escape(png, by)}\x1b8"
        yield "\n" * len(lines) + f"\x1b[{len(lines)}A{picture}"
        for line in lines:
            yield f"\x1b[{PICTURE_COLUMNS}C{line.removeprefix(' ' * PICTURE_COLUMNS)}\n"


def _escape(png: bytes, by: Protocol | Sixel) -> str:
    if isinstance(by, Sixel):
        return drawn(png, PICTURE_LINES * by.cell_height, PICTURE_COLUMNS * by.cell_width, by.colours)
    text = base64.b64encode(png).decode("ascii")
    if by == "iterm":
        options = f"inline=1;size={len(png)};width={PICTURE_COLUMNS};height={PICTURE_LINES};preserveAspectRatio=1"
        return f"\x1b]1337;File={options}:{text}\x07"
    parts = [text[start : start + _CHUNK] for start in range(0, len(text), _CHUNK)]
    # a=T: send and show; f=100: PNG; c, r: columns and lines; C=1: the cursor stays; q=2: no answer.
    keys = [f"a=T,f=100,c={PICTURE_COLUMNS},r={PICTURE_LINES},C=1,q=2,m=", *["m="] * (len(parts) - 1)]
    more = [1] * (len(parts) - 1) + [0]
    return "".join(f"\x1b_G{key}{m};{part}\x1b\\" for key, m, part in zip(keys, more, parts, strict=True))

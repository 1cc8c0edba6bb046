"""Pictures by sixel: how a terminal says that it has it, and the text that draws a picture.

A terminal is asked for its "primary device attributes" (DA1). Attribute 4 is sixel: foot, xterm as VT340, mlterm,
Konsole, Windows Terminal and others have it. Then it is asked for the size of a cell and its number of colours.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import select
import termios
import time
import tty
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PATIENCE_SECONDS = 1.0
"""Longest wait for an answer. Every terminal since the VT100 gives one, over a slow network too."""
MOST_COLOURS = 256
BAND = 6
"""Rows of pixels in a line of sixels: a character holds one column of them."""
_ATTRIBUTES = "\x1b[c"
_CELL, _COLOURS = "\x1b[16t", "\x1b[?1;1;0S"
_USUAL_CELL = 20, 10
"""Height and width of a cell in pixels if the terminal does not say: those of the VT340 and of Windows Terminal."""


@dataclass(frozen=True)
class Sixel:
    """A terminal that draws sixels."""

    cell_height: int = _USUAL_CELL[0]
    """Height of a character in pixels."""
    cell_width: int = _USUAL_CELL[1]
    """Width of a character in pixels."""
    colours: int = MOST_COLOURS
    """Number of colours that a picture may have."""


def ask_terminal() -> Sixel | None:
    """Ask the terminal of this process for sixel; None if there is no terminal, or if it has no sixel.

    A process in the background must not ask: the kernel would stop it.
    """
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return None
    try:
        return ask(terminal) if os.tcgetpgrp(terminal) == os.getpgrp() else None
    except (OSError, termios.error):
        return None
    finally:
        os.close(terminal)


def ask(terminal: int, patience_seconds: float = PATIENCE_SECONDS) -> Sixel | None:
    """Ask the terminal behind a file descriptor; None if it has no sixel, or does not answer."""
    before = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal, termios.TCSANOW)  # answers come without a line's end, and are not shown
        said = _answer(terminal, _ATTRIBUTES, patience_seconds)
        attributes = re.search(r"\x1b\[\?([\d;]*)c", said)
        if attributes is None or "4" not in attributes[1].split(";")[1:]:
            return None
        # The first attributes again, as the last question: what a terminal does not know it does not answer.
        said = _answer(terminal, _CELL + _COLOURS + _ATTRIBUTES, patience_seconds)
    finally:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)
    cell, colours = re.search(r"\x1b\[6;(\d+);(\d+)t", said), re.search(r"\x1b\[\?1;0;(\d+)S", said)
    height, width = (int(cell[1]), int(cell[2])) if cell else (0, 0)
    height, width = (height, width) if height and width else _USUAL_CELL
    return Sixel(height, width, min(MOST_COLOURS, max(2, int(colours[1]))) if colours else MOST_COLOURS)


def _answer(terminal: int, question: str, patience_seconds: float) -> str:
    """Return what a terminal says up to its attributes, as far as it comes in time."""
    os.write(terminal, question.encode())
    said, until = "", time.monotonic() + patience_seconds
    while not re.search(r"\x1b\[\?[\d;]*c", said):
        ready, _, _ = select.select([terminal], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            break
        said += os.read(terminal, 1024).decode("latin-1")
    return said


def drawn(picture: bytes, height: int, width: int, colours: int = MOST_COLOURS) -> str:
    """Return a PNG or JPEG as sixels, as large as fits into these pixels, in whole lines of sixels."""
    from PIL import Image

    with Image.open(io.BytesIO(picture)) as image:
        rgb = image.convert("RGB")
    scale = min(height // BAND * BAND / rgb.height, width / rgb.width)
    size = max(1, round(rgb.width * scale)), max(1, round(rgb.height * scale))
    few = rgb.resize(size, Image.Resampling.LANCZOS).quantize(colours, Image.Quantize.MEDIANCUT)
    palette = np.array(few.getpalette(), np.float64).reshape(-1, 3)
    number = np.asarray(few)
    used = np.unique(number).tolist()
    percent = np.rint(palette / 255 * 100).astype(int).tolist()
    registers = "".join(f"#{one};2;{';'.join(map(str, percent[one]))}" for one in used)
    lines = (_line(number[top : top + BAND]) for top in range(0, len(number), BAND))
    # 1;1: pixels are squares; then width and height. P2 = 1: pixels without a colour stay as they are.
    return f'\x1bP0;1;0q"1;1;{size[0]};{size[1]}{registers}{"-".join(lines)}\x1b\\'


def _line(number: npt.NDArray[np.uint8]) -> str:
    """Return up to six rows of pixels: one run over the columns for each of their colours."""
    bit = 1 << np.arange(len(number), dtype=np.int64)[:, None]
    runs = []
    for one in np.unique(number).tolist():
        sixels = ((number == one) * bit).sum(axis=0)
        starts = np.flatnonzero(np.diff(sixels, prepend=-1))
        lengths = np.diff(starts, append=len(sixels)).tolist()
        parts = list(zip(sixels[starts].tolist(), lengths, strict=True))
        if parts[-1][0] == 0:
            parts.pop()
        runs.append(f"#{one}" + "".join(_run(chr(63 + sixel), n) for sixel, n in parts))
    return "$".join(runs)


def _run(character: str, n: int) -> str:
    return f"!{n}{character}" if n > 3 else character * n

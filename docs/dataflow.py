"""Draws docs/dataflow.svg, the picture of the data flow in the README: `python docs/dataflow.py`.

The drawing is plain SVG, so that it needs no package, and a change of it can be read in a diff.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

PICTURE = Path(__file__).with_name("dataflow.svg")
WIDTH, HEIGHT = 1000, 304
TOP, BOX_WIDTH, BOX_HEIGHT = 70, 164, 176
GAP = 36
LEFT = (WIDTH - 5 * BOX_WIDTH - 4 * GAP) / 2

BOXES = (
    (
        ("workflow, inputs", "#eef2f5"),
        ("faces.yaml", "clip.mp4, folders,", "globs, lists"),
        ("source and stages,", "validated"),
    ),
    (
        ("plan", "#e4eef7"),
        ("inputs in chunks of", "at most 64 frames;", "which are missing?"),
        ("no Dask, no model",),
    ),
    (
        ("workers", "#dcebdc"),
        ("load frames", "↓", "stages, in batches", "↓", "write one file"),
        ("one per GPU or core;", "models loaded once"),
    ),
    (
        ("store", "#f7ead8"),
        ("chunk files, then", "Zarr arrays: frame,", "box, embedding, ..."),
        ("one commit per chunk;", "compacted at the end"),
    ),
    (
        ("views", "#eee6f3"),
        ("export, report,", "people, find,", "annotate, clips,", "pipeline.open"),
        ("read finished and", "half-done stores"),
    ),
)
"""Each box: title and colour, lines within, lines below."""


def text(x: float, y: float, words: str, size: int = 14, colour: str = "#222", style: str = "") -> str:
    """Return a line of text, centred at x."""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}" {style}>{escape(words)}</text>'


def box(number: int) -> list[str]:
    """Return the drawing of a box."""
    (title, colour), lines, below = BOXES[number]
    x = LEFT + number * (BOX_WIDTH + GAP)
    middle = x + BOX_WIDTH / 2
    drawn = [
        f'<rect x="{x:g}" y="{TOP}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="8" fill="{colour}" stroke="#778"/>',
        text(middle, TOP + 28, title, 17, style='font-weight="bold"'),
    ]
    first = TOP + 44 + (BOX_HEIGHT - 44 - 22 * len(lines)) / 2 + 14
    drawn += [text(middle, first + 22 * k, line) for k, line in enumerate(lines)]
    drawn += [text(middle, TOP + BOX_HEIGHT + 24 + 18 * k, line, 13, "#556") for k, line in enumerate(below)]
    return drawn


def drawing() -> str:
    """Return the whole picture."""
    y = TOP + BOX_HEIGHT / 2
    arrows = []
    for number in range(4):
        start = LEFT + (number + 1) * BOX_WIDTH + number * GAP
        arrows.append(f'<path d="M{start + 3:g} {y:g} H{start + GAP - 4:g}" marker-end="url(#tip)"/>')
    plan, store = (LEFT + k * (BOX_WIDTH + GAP) + BOX_WIDTH / 2 for k in (1, 3))
    back = f"M{store:g} {TOP - 3} V34 H{plan:g} V{TOP - 4}"
    arrows.append(f'<path d="{back}" marker-end="url(#tip)" stroke-dasharray="6 4"/>')
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="Helvetica, Arial, sans-serif" text-anchor="middle">',
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0 L10 5 L0 10 z" fill="#445"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        '<g fill="none" stroke="#445" stroke-width="1.6">',
        *arrows,
        "</g>",
        text((plan + store) / 2, 26, "resume: chunks that have a file are done", 13, "#556"),
        *(line for number in range(len(BOXES)) for line in box(number)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(drawing(), encoding="utf-8")

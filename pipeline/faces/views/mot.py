"""Boxes as text of the MOT challenge: frame, id, x, y, w, h, score, and three times -1."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, ClassVar

import numpy as np

from pipeline.views.export import Export

if TYPE_CHECKING:
    from pipeline.views.export import StoredRows

_LINE = "%d,%d,%.2f,%.2f,%.2f,%.2f,%.4f,-1,-1,-1"


class Mot(Export):
    """One line per face or object.

    Frames are those of the video and count from 1, as ids of tracks do; the id is -1 without a track. Boxes are in
    pixels of the upright frame, from 0.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".mot.txt", ".mot")
    axes: ClassVar[tuple[str, ...]] = ("face", "object")
    one_input: ClassVar[bool] = True
    of_films: ClassVar[bool] = True

    def write(self, file: IO[bytes], stored: StoredRows) -> None:
        for one in stored.inputs:
            there = one.item.arrays
            wanted = [name for name in ("frame", "box", "track", "confidence", "score") if name in there]
            for block in one.blocks(wanted):
                track = np.asarray(block.arrays.get("track", np.full(block.n_rows, -1)), np.int64)
                score = block.arrays.get("confidence", block.arrays.get("score", np.ones(block.n_rows)))
                number = np.where(track >= 0, track + 1, -1)
                lines = np.column_stack([block.of_rows("frame") + 1, number, block.arrays["box"], score])
                np.savetxt(file, lines, fmt=_LINE)

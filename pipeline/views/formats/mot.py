"""Boxes as text of the MOT challenge: frame, id, x, y, w, h, score, then class and visibility, or three times -1."""

from __future__ import annotations

from typing import IO, ClassVar

import numpy as np

from pipeline.views.export import Export, StoredRows
from pipeline.views.formats.coco import CLASS, Categories
from pipeline.views.tables.rows import known_of

_LINE = "%d,%d,%.2f,%.2f,%.2f,%.2f,%.4f"


class Mot(Export):
    """One line per face or object.

    Frames are those of the video and count from 1, as ids of tracks do; the id is -1 without a track. Boxes are in
    pixels of the upright frame, from 0. A class is the category's id in COCO's file; visibility is not known: -1.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".mot.txt", ".mot")
    needs: ClassVar[tuple[str, ...]] = ("box",)
    one_input: ClassVar[bool] = True
    of_films: ClassVar[bool] = True

    def write(self, file: IO[bytes], stored: StoredRows) -> None:
        scores, categories = known_of(stored.axis).score, Categories(stored)
        for one in stored.inputs:
            wanted = ["frame", "box", "track", scores, *([CLASS] if categories.names(one.item) else [])]
            for block in one.blocks([name for name in wanted if name in one.item.arrays]):
                track = np.asarray(block.arrays.get("track", np.full(block.n_rows, -1)), np.int64)
                score = block.arrays.get(scores, np.ones(block.n_rows))
                number = np.where(track >= 0, track + 1, -1)
                lines = [block.of_rows("frame") + 1, number, block.arrays["box"], score]
                ends = ",-1,-1,-1"
                if categories.names(one.item):
                    ids = categories.ids(one.item, block.n_rows, block.arrays[CLASS])
                    lines, ends = [*lines, ids], ",%d,-1"
                np.savetxt(file, np.column_stack(lines), fmt=_LINE + ends)

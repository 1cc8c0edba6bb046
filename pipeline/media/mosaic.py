"""Mosaics: frames of one input side by side in one picture, and objects of that picture back in their frames.

A detector then looks once at columns × rows frames. All frames of a mosaic are of one camera, and follow each other
among the sampled ones. So no camera waits for another. Each keeps its own times, failures and resume.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator

from pipeline.media.preparation import Picture, Preparation, Size

MOST_TILES = 16
"""Most columns, and most rows, of a mosaic."""
SHARE = 0.5
"""An object is kept if more than this part of its box lies in the picture that its centre lies in."""
PLAIN = Preparation((1, 1), "NHWC", "uint8", "longest")
"""Preparation of a frame for its tile if no network has its own: whole, with black bars."""


def _grid(value: Any) -> Any:
    """Return columns and rows of "3x2", or of one number for both."""
    found = re.fullmatch(r"(\d+)\s*[x×]\s*(\d+)", value.strip()) if isinstance(value, str) else None
    grid = (int(found[1]), int(found[2])) if found else (value, value) if isinstance(value, int) else value
    numbers = isinstance(grid, tuple | list) and len(grid) == 2 and all(isinstance(one, int) for one in grid)
    if not numbers or not 1 <= min(grid) <= max(grid) <= MOST_TILES:
        raise ValueError(f"{value!r} are not columns and rows from 1 to {MOST_TILES}, such as 2x2")
    return grid


Tiles = Annotated[tuple[int, int], BeforeValidator(_grid)]
"""Option of a stage: columns and rows of its mosaics."""
TILES = (
    "columns x rows of a mosaic, such as 2x2: successive frames are put into one picture. The detector looks once at "
    "all of them. Default: each frame alone"
)
"""Description of the option."""
LOOK_AGAIN = (
    "with tiles: look again, at each frame alone of which a mosaic shows something. What is stored comes from that "
    "second look"
)
"""Description of the option."""


def check_look_again(tiles: tuple[int, int] | None, look_again: bool) -> None:
    """Raise ValueError if there is no first look."""
    if look_again and not tiles:
        raise ValueError("option look_again needs tiles; leave it out, or set tiles: 2x2")


def check_size(tiles: tuple[int, int] | None, size: Size | None) -> None:
    """Raise ValueError if a mosaic of this height and width has no pixel for some tile."""
    if tiles and size and (size[0] < tiles[1] or size[1] < tiles[0]):
        shown = " for tiles ".join("x".join(map(str, sides)) for sides in (size[::-1], tiles))
        raise ValueError(f"size {shown.replace(' for', ' is too small for')}; choose a larger one")


class Apart(NamedTuple):
    """Objects of mosaics in the frames that they belong to, by frame; within a frame by score (descending), x, y."""

    which: npt.NDArray[np.int64]
    """int64 (n,): place of each kept object among the given ones."""
    frame: npt.NDArray[np.int64]
    """int64 (n,): index of its frame, ascending."""
    box: npt.NDArray[np.float32]
    """float32 (n, 4): x, y, width and height in pixels of the frame, inside it."""
    points: npt.NDArray[np.float32]
    """float32 (n, k, 2): x and y in pixels of the frame; they may lie outside. k is 0 if no points were given."""


class Mosaics(Sequence[Picture]):
    """Mosaics of a chunk's frames, each made when it is used. Mosaics without any picture are left out.

    Frame i of the chunk lies in tile i % n of its mosaic, n = columns × rows, row by row. So a frame that was not
    decoded leaves its tile black and moves no other frame, and so do the tiles after the last frame.
    """

    def __init__(
        self, frames: Sequence[Picture] | npt.NDArray[np.uint8], decoded: npt.NDArray[np.bool_], tiles: tuple[int, int],
        size: Size | None = None, preparation: Preparation = PLAIN,
    ) -> None:  # fmt: skip
        """Plan the mosaics. `size`: their height and width, by default those of the largest of their frames.

        `preparation`: how each frame is put into its tile (resize, filter, bars).
        """
        self._frames, self._decoded, self._size, self._preparation = frames, decoded, size, preparation
        self._columns, self._rows = tiles
        self._n = self._columns * self._rows
        self._numbers = np.unique(np.flatnonzero(decoded) // self._n).tolist()
        self._known: dict[int, tuple[Size, npt.NDArray[np.float64]]] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Picture: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Picture]: ...
    def __getitem__(self, index: int | slice) -> Picture | Sequence[Picture]:
        if isinstance(index, slice):
            made = [self[place] for place in range(*index.indices(len(self)))]
            return np.stack(made) if len({picture.shape for picture in made}) == 1 else made
        number = self._numbers[index]
        size, _ = self._plan(number)
        mosaic = np.zeros((*size, 3), np.uint8)
        for frame, tile in self._tiles(number):
            left, top, right, bottom = self._edges(size, tile)
            prepared = replace(self._preparation, size=(bottom - top, right - left))
            mosaic[top:bottom, left:right] = prepared.resized(self._frames[frame])
        return mosaic

    def blocks(self, most_bytes: int) -> Iterator[tuple[int, int]]:
        """Yield start and stop of parts that may be held at once: their pixels, or the one mosaic, stay below."""
        start, held = 0, 0
        for index, number in enumerate(self._numbers):
            height, width = self._plan(number)[0]
            if index > start and held + 3 * height * width > most_bytes:
                yield start, index
                start, held = index, 0
            held += 3 * height * width
        if start < len(self):
            yield start, len(self)

    def apart(
        self, mosaic: npt.NDArray[np.integer], box: npt.NDArray[np.floating], score: npt.NDArray[np.floating],
        points: npt.NDArray[np.floating] | None = None,
    ) -> Apart:  # fmt: skip
        """Return the objects of mosaics in their frames.

        `mosaic` (n,) is the index of each one's mosaic. `box` (n, 4: x, y, width, height) and `points` (n, k, 2) are in
        pixels of the mosaic. `score` is (n,).

        An object belongs to the picture in which the centre of its box lies, and is cut at that picture's border. If
        half of the box or more lies elsewhere, the object belongs to no frame: it covers several tiles, a bar or a
        black tile.
        """
        n = len(box)
        points = np.zeros((n, 0, 2)) if points is None else points
        first, size = box[:, :2].astype(np.float64), box[:, 2:].astype(np.float64)
        placed, frame = np.zeros((n, 6)), np.full(n, -1, np.int64)
        for index in np.unique(mosaic).tolist():
            rows, number = np.flatnonzero(mosaic == index), self._numbers[index]
            (height, width), places = self._plan(number)
            edges = [self._edges((height, width), tile) for tile in range(self._n)]
            lefts, tops = [edge[0] for edge in edges[: self._columns]], [edge[1] for edge in edges[:: self._columns]]
            centre = first[rows] + size[rows] / 2
            column = np.searchsorted(lefts[1:], centre[:, 0], side="right")
            tile = np.searchsorted(tops[1:], centre[:, 1], side="right") * self._columns + column
            placed[rows], frame[rows] = places[tile], number * self._n + tile
        corner, shown, own = placed[:, :2], placed[:, 2:4], placed[:, 4:]
        begin, end = np.maximum(first, corner), np.minimum(first + size, corner + shown)
        inside = np.clip(end - begin, 0, None).prod(axis=1)
        kept = np.flatnonzero((inside > SHARE * size.prod(axis=1)) & (own > 0).all(axis=1))
        scale = own[kept] / shown[kept]
        begin, end = ((edge[kept] - corner[kept]) * scale for edge in (begin, end))
        moved = (points[kept] - corner[kept, None]) * scale[:, None]
        boxes = np.concatenate([begin, end - begin], axis=1).astype(np.float32)
        order = np.lexsort((boxes[:, 1], boxes[:, 0], -score[kept], frame[kept]))
        kept = kept[order]
        return Apart(kept, frame[kept], boxes[order], moved[order].astype(np.float32))

    def _tiles(self, number: int) -> Iterator[tuple[int, int]]:
        """Yield the index of each frame of a mosaic that was decoded, and of its tile."""
        start = number * self._n
        for tile, is_decoded in enumerate(self._decoded[start : start + self._n].tolist()):
            if is_decoded:
                yield start + tile, tile

    def _plan(self, number: int) -> tuple[Size, npt.NDArray[np.float64]]:
        """Return a mosaic's height and width, and float64 (n, 6) with a row for each tile.

        A row has x, y, width and height of the picture in the mosaic, and the frame's own width and height. It is 0 for
        a black tile.
        """
        if number not in self._known:
            sides = {tile: self._frames[frame].shape[:2] for frame, tile in self._tiles(number)}
            size = self._size or (
                max(self._rows, *(one[0] for one in sides.values())),
                max(self._columns, *(one[1] for one in sides.values())),
            )
            places = np.zeros((self._n, 6))
            for tile, own in sides.items():
                left, top, right, bottom = self._edges(size, tile)
                y, x, height, width = replace(self._preparation, size=(bottom - top, right - left)).placed(own)
                places[tile] = (left + x, top + y, width, height, own[1], own[0])
            self._known[number] = size, places
        return self._known[number]

    def _edges(self, size: Size, tile: int) -> tuple[int, int, int, int]:
        """Return left, top, right and bottom of a tile in a mosaic of this height and width."""
        row, column = divmod(tile, self._columns)
        across = [size[1] * number // self._columns for number in (column, column + 1)]
        down = [size[0] * number // self._rows for number in (row, row + 1)]
        return across[0], down[0], across[1], down[1]

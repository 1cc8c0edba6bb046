"""The pictures of pairs, read again to draw their matches."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np

from pipeline.errors import ReelgraphError
from pipeline.media.reread import Pixels, Reread, RereadPictures, reread
from pipeline.pairs.views.drawing import Side, side_by_side
from pipeline.pairs.views.ranked import RankedPairs

_HELD = 8
"""Pictures in memory at a time."""


class Rereading:
    """Draws pairs. A picture that is missing or has changed is noted once; its pairs are not drawn."""

    def __init__(self, matched: RankedPairs, note: Callable[[str], None]) -> None:
        self.matched, self._note = matched, note
        self._opened: dict[int, Reread | None] = {}
        self._held: OrderedDict[int, Pixels | None] = OrderedDict()

    def draw(self, pair: int, height: int | None = None, letters: int | None = None) -> Pixels | None:
        """Return the drawing of a pair (`side_by_side`); None if one of its pictures cannot be read again."""
        links = self.matched.links(pair)
        ends = [(int(self.matched.a[pair]), links.a), (int(self.matched.b[pair]), links.b)]
        sides = [self._side(picture, points) for picture, points in ends]
        if None in sides:
            return None
        a, b = (side for side in sides if side is not None)
        if height is None:
            height = int(np.clip(max(len(a.pixels), len(b.pixels)), 480, 1080))
        return side_by_side(a, b, links.inlier, self.matched.caption(pair), height, letters=letters)

    def picture(self, picture: int) -> Pixels | None:
        """Return the pixels of a picture; None if it cannot be read again."""
        if picture not in self._held:
            self._held[picture] = self._read(picture)
            if len(self._held) > _HELD:
                self._held.popitem(last=False)
        self._held.move_to_end(picture)
        return self._held[picture]

    def sources(self) -> Sequence[RereadPictures]:
        """Return what pictures were opened from so far, films left out."""
        return [one for one in self._opened.values() if isinstance(one, RereadPictures)]

    def _side(self, picture: int, points: np.ndarray) -> Side | None:
        pixels = self.picture(picture)
        again = self.opened(self.matched.album(picture)[0])
        if pixels is None or again is None:
            return None
        return Side(pixels, again.on_pixels(np.hstack([points, np.zeros_like(points)]))[:, :2])

    def _read(self, picture: int) -> Pixels | None:
        album, place = self.matched.album(picture)
        again = self.opened(album)
        if again is None:
            return None
        item = self.matched.albums[album]
        number = place if isinstance(again, RereadPictures) else int(item.array("frame")[place])
        try:
            found = again.one(number)
        except (ReelgraphError, OSError, IndexError):
            found = None
        if found is None:
            self._note(f"{self.matched.names[picture]}: missing or changed; its pairs are left out")
        return found

    def opened(self, album: int) -> Reread | None:
        """Return the pictures of an input; None if they are missing or have changed as a whole."""
        if album not in self._opened:
            try:
                self._opened[album] = reread(self.matched.albums[album])
            except ReelgraphError as err:
                self._note(f"{err}; its pairs are left out")
                self._opened[album] = None
        return self._opened[album]

"""The places of faces or objects on every frame of a film, from the sampled frames in which they were found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.errors import UsageError
from pipeline.media.boxes import overlapping
from pipeline.media.spans import is_timed, item_numbers
from pipeline.store.read import RunInput
from pipeline.text import plural_of

Boxes = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
_OVERLAP = 0.3
"""Intersection over union from which boxes of neighbouring samples are one face, if no tracks were stored."""
_SAMPLES_BACK = 3
"""Number of sampled frames for which a box may have been missed."""
UNKNOWN = -1
"""Code of a face or an object that may be any."""


@dataclass(frozen=True)
class Found:
    """All faces or objects of an input; n of them, in order of time."""

    rank: Ints
    """(n,): rank of the frame that each was found in."""
    box: Boxes
    """(n, 4): x, y, w, h in pixels of the whole upright frame."""
    track: Int32
    """(n,): the stored track, or one found here by overlap; never -1."""
    looked_at: Ints
    """(m,): ranks of the sampled frames that were decoded and are done, ascending."""

    def __len__(self) -> int:
        return len(self.rank)


def read_found(item: RunInput, axis: str, code: Int32) -> Found:
    """Read the boxes of an input. `code`: (n,) who or what each is, -1 unknown: two known ones are never one track.

    Raises StoreError if an array is damaged, and UsageError if the boxes are of something else.
    """
    arrays = item.arrays
    numbers = item_numbers(item) if arrays else np.empty(0, np.int64)
    looked_at = numbers[item.array("decoded")] if "decoded" in arrays else np.empty(0, np.int64)
    if "box" not in arrays:
        return Found(np.empty(0, np.int64), np.empty((0, 4), np.float32), np.empty(0, np.int32), looked_at)
    index = next((one.index for one in item.axes if one.name == axis), None)
    if index is None:
        held = " and ".join(plural_of(one.name) for one in item.axes)
        raise UsageError(f"{item.name!r} holds {held}, no {plural_of(axis)}; choose others by --input or --draw")
    found = item.read([index, "box", *(["track"] if "track" in arrays else [])])
    box, rows = found["box"].astype(np.float32), found[index]
    track = found["track"].astype(np.int32) if "track" in found else np.full(len(rows), -1, np.int32)
    track = _linked(rows, box, code, track) if is_timed(item) else np.arange(len(rows), dtype=np.int32)
    return Found(numbers[rows], box, track, looked_at)


def _linked(rows: Ints, box: Boxes, code: Int32, track: Int32) -> Int32:
    """Return tracks, also for boxes without one (-1): each takes that of the box a few samples ago that it overlaps.

    The best overlap comes first.
    """
    track = track.copy()
    free = int(track.max(initial=-1)) + 1
    lacking = np.flatnonzero(track < 0)
    recent: list[Ints] = []
    for now in np.split(lacking, np.flatnonzero(np.diff(rows[lacking])) + 1) if len(lacking) else []:
        recent = [old for old in recent if rows[now[0]] - rows[old[0]] <= _SAMPLES_BACK]
        taken: set[int] = set()
        for old in reversed(recent):
            row, column, shared = overlapping(box[old], box[now], _OVERLAP)
            was, is_now = code[old][row], code[now][column]
            shared[(was != UNKNOWN) & (is_now != UNKNOWN) & (was != is_now)] = 0
            for k in np.argsort(-shared, kind="stable")[: np.count_nonzero(shared)]:
                i, j = row[k], column[k]
                if int(track[old[i]]) not in taken and track[now[j]] < 0:
                    track[now[j]] = track[old[i]]
                    taken.add(int(track[old[i]]))
        for row in now[track[now] < 0]:
            track[row], free = free, free + 1
        recent.append(now)
    return track


@dataclass(frozen=True)
class Legs:
    """Stretches of frames on which a face or an object is somewhere between two boxes; n of them, by first frame."""

    first: Ints
    """(n,): rank, inclusive."""
    last: Ints
    """(n,): rank, inclusive."""
    begin: Ints
    """(n,): row of the box that it sets out from."""
    end: Ints
    """(n,): row of the box that it comes to; `begin` if a box is held."""

    def __len__(self) -> int:
        return len(self.first)

    def nearest(self, found: Found, which: Ints, rank: int) -> Ints:
        """Return the row of the sample that is nearest to a frame, for each of these legs."""
        begin, end = self.begin[which], self.end[which]
        return np.where(found.rank[end] - rank < rank - found.rank[begin], end, begin)


@dataclass(frozen=True)
class Reach:
    """The time around the samples that show a face or an object in which it is taken to be there."""

    hold_share: float
    """Before the first and after the last sample of a track, as a share of the distance to the sample beyond."""
    hold_frames: int
    """Frames on top of that."""
    longest_gap_seconds: float
    """Within a track, samples no further apart are joined; neighbouring samples always are."""


DRAWN = Reach(hold_share=0.5, hold_frames=0, longest_gap_seconds=0.5)
"""A box is shown half way to the sampled frames that do not have it."""


def legs(found: Found, reach: Reach, grid: Ints, times: npt.NDArray[np.float64]) -> Legs:
    """Return the legs of all tracks.

    `grid`: ranks of all frames that the sampling takes (`film.grid`). `times`: float64 (frames,), seconds.
    """
    order = np.lexsort((np.arange(len(found)), found.rank, found.track))
    track, rank = found.track[order], found.rank[order]
    same = track[1:] == track[:-1]
    near = np.searchsorted(grid, rank[1:]) - np.searchsorted(grid, rank[:-1]) <= 1
    near |= times[rank[1:]] - times[rank[:-1]] <= reach.longest_gap_seconds
    joined = same & near
    between = (rank[:-1][joined], rank[1:][joined] - 1, order[:-1][joined], order[1:][joined])
    opens, ends = np.append(True, ~joined)[: len(order)], np.append(~joined, True)[: len(order)]
    # The sampled frames before and after each; beyond the first and the last, the ends of the film.
    edges = np.array([0, len(times) - 1])
    if len(grid):
        edges = np.concatenate([[min(0, int(grid[0]))], grid, edges[1:]])
    before = edges[np.maximum(np.searchsorted(edges, rank) - 1, 0)]
    after = edges[np.minimum(np.searchsorted(edges, rank, side="right"), len(edges) - 1)]
    start = rank - np.ceil(reach.hold_share * (rank - before)).astype(np.int64) - reach.hold_frames
    stop = rank + np.ceil(reach.hold_share * (after - rank)).astype(np.int64) + reach.hold_frames
    held_before = (start[opens], rank[opens] - 1, order[opens], order[opens])
    held_after = (rank[ends], stop[ends], order[ends], order[ends])
    parts = [np.concatenate(column) for column in zip(between, held_before, held_after, strict=True)]
    parts[0], parts[1] = np.maximum(parts[0], 0), np.minimum(parts[1], len(times) - 1)
    kept = np.flatnonzero(parts[0] <= parts[1])
    kept = kept[np.argsort(parts[0][kept], kind="stable")]
    return Legs(*(part[kept].astype(np.int64) for part in parts))


def along(found: Legs, first: int, last: int) -> Iterator[Ints]:
    """Yield for each frame from first to last (exclusive) the numbers of the legs that it lies on."""
    active: Ints = np.flatnonzero((found.first < first) & (found.last >= first))
    at = int(np.searchsorted(found.first, first))
    for rank in range(first, last):
        upto = int(np.searchsorted(found.first, rank, side="right"))
        if upto > at:
            active, at = np.concatenate([active, np.arange(at, upto)]), upto
        active = active[found.last[active] >= rank]
        yield active


def between(found: Found, on: Legs, which: Ints, rank: int) -> Boxes:
    """Return float32 (len(which), 4): boxes at a frame, on the straight way from begin to end."""
    begin, end = on.begin[which], on.end[which]
    way = found.rank[end] - found.rank[begin]
    share = np.clip((rank - found.rank[begin]) / np.maximum(way, 1), 0, 1)[:, None]
    return np.asarray(found.box[begin] + share * (found.box[end] - found.box[begin]), np.float32)


def unseen(found: Found, grid: Ints, n_frames: int) -> npt.NDArray[np.bool_]:
    """Return bool (n_frames,): frames that do not lie between two sampled frames that were looked at.

    Frames after the last one of the sampling count if that one was not looked at.
    """
    done = np.isin(grid, found.looked_at)
    seen_after = done & np.append(done[1:], True)
    lengths = np.diff(np.append(grid, n_frames))
    seen = np.repeat(seen_after, lengths)
    head = np.full(n_frames - len(seen), bool(done[0]) if len(done) else False)
    return ~np.concatenate([head, seen])

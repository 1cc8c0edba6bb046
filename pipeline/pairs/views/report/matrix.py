"""Matching pictures: groups of them, and a matrix that stays readable for thousands."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.pairs.views.ranked import Bools, Ints, RankedPairs

LEAST_INLIERS = 15
"""Inliers from which on a pair counts as matched: COLMAP's own limit."""
LEAST_MATCHES = 30
"""Matches from which on it does if they were not verified: two pictures of different things often have 20."""
MOST_CELLS = 200
"""Most rows of the matrix. With more pictures a row stands for several of them."""
_TONE = (60, 130, 220)
"""Colour of the matrix, seen on a light page and on a dark one."""
_FAINTEST = 26
"""Opacity, of 255, of pictures that were compared and do not match."""
_LEAST = 0.25
"""Share of full colour of a pair that just matches."""


@dataclass(frozen=True)
class Groups:
    """Pictures that belong together, by pairs that match."""

    matched: Bools
    """bool (pairs,): the pair counts as matched."""
    partners: Ints
    """Pictures that each picture matches."""
    members: list[Ints]
    """Pictures of each group of at least two, ascending; the largest group first."""
    group: Ints
    """Number of each picture's group, from 0; -1 for a picture that matches no other."""
    order: Ints
    """All pictures, group by group, those without a group last."""


def grouped_pictures(matched: RankedPairs) -> Groups:
    """Return the groups of the pictures."""
    n = matched.n_pictures
    good = matched.strength >= (LEAST_INLIERS if matched.is_verified else LEAST_MATCHES)
    a, b = matched.a[good], matched.b[good]
    partners = np.bincount(np.concatenate([a, b]), minlength=n)
    _, label = connected_components(coo_array((np.ones(len(a), np.int8), (a, b)), (n, n)), directed=False)
    sizes = np.bincount(label)
    place = np.argsort(np.lexsort((np.arange(len(sizes)), -sizes)))  # by size, of equal ones the first
    group = np.where(sizes[label] > 1, place[label], -1) if n else np.empty(0, np.int64)
    order = np.lexsort((np.arange(n), np.where(group < 0, n, group)))
    members = [np.flatnonzero(group == k) for k in range(int(group.max(initial=-1)) + 1)]
    return Groups(good, partners, members, group, order)


@dataclass(frozen=True)
class Matrix:
    """Most inliers, or matches, of the pairs between the pictures of each row and column."""

    edges: Ints
    """Places in `Groups.order` at which the rows begin, and the end of the last one."""
    most: Ints
    """(rows, rows), symmetric; -1: not compared."""

    @property
    def is_exact(self) -> bool:
        """True if a row is a picture."""
        return len(self.edges) == int(self.edges[-1]) + 1

    def pixels(self, limit: int) -> npt.NDArray[np.uint8]:
        """Return the matrix as RGBA pixels; from the limit on, the more inliers, the fuller."""
        full = max(1, int(self.most.max(initial=0)) - limit)
        share = np.where(self.most < limit, 0, _LEAST + (1 - _LEAST) * np.sqrt(np.maximum(self.most - limit, 0) / full))
        pixels = np.empty((*self.most.shape, 4), np.uint8)
        pixels[..., :3] = _TONE
        pixels[..., 3] = np.where(self.most < 0, 0, _FAINTEST + (255 - _FAINTEST) * share)
        return pixels

    def png(self, limit: int) -> str:
        """Return those pixels as a `data:` address."""
        _, encoded = cv2.imencode(".png", self.pixels(limit)[..., [2, 1, 0, 3]])
        return "data:image/png;base64," + base64.b64encode(encoded.tobytes()).decode()

    def drawn(self, names: list[str]) -> dict[str, Any]:
        """Return what the page's script says of a cell: names by row, and the values."""
        ends = [(int(a), int(b) - 1) for a, b in zip(self.edges[:-1], self.edges[1:], strict=True)]
        rows = [names[a] if a == b else f"{names[a]} … {names[b]}" for a, b in ends]
        return {"rows": rows, "most": self.most.ravel().tolist()}


def matrix_of(matched: RankedPairs, order: Ints) -> Matrix:
    """Return the matrix of pictures in this order."""
    n = matched.n_pictures
    rows = min(n, MOST_CELLS)
    edges = np.arange(rows + 1) * n // max(1, rows)
    row_of = np.empty(n, np.int64)
    row_of[order] = np.repeat(np.arange(rows), np.diff(edges))
    most = np.full(rows * rows, -1, np.int64)
    known = matched.decoded.astype(bool)
    a, b = row_of[matched.a[known]], row_of[matched.b[known]]
    np.maximum.at(most, a * rows + b, matched.strength[known])
    both = np.maximum(most.reshape(rows, rows), most.reshape(rows, rows).T)
    return Matrix(edges, both)

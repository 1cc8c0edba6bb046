"""The pairs' part of a report: how many pairs match, which pictures belong together, the best and the weakest pairs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.media.picture import resized
from pipeline.pairs.views.ranked import RankedPairs
from pipeline.pairs.views.report.matrix import LEAST_INLIERS, LEAST_MATCHES, Groups, grouped_pictures, matrix_of
from pipeline.pairs.views.rereading import Rereading
from pipeline.text import plural_of
from pipeline.views.report.crops import encoded
from pipeline.views.report.panel import (
    About,
    Content,
    InputContent,
    Panel,
    Section,
    Tile,
    counted,
    fill,
    grouped,
    shown,
    text_of,
)
from pipeline.views.report.series import Histogram
from pipeline.views.report.survey import Surveyed

SHOWN_PAIRS = 6
"""Pairs drawn of the best, and of the weakest."""
SHOWN_GROUPS, SHOWN_NAMES, SHOWN_THUMBNAILS = 8, 12, 5
"""Groups with a place of their own; names and thumbnails of each."""
SHOWN_ALONE = 24
"""Names of pictures that match no other."""
SHOWN_NOTES = 5
"""Lines on pictures that cannot be drawn."""
NAMED_ROWS = 32
"""Most rows of the matrix with a name beside each."""
_LEAST_DRAWN = 0.02
"""Share of the pictures from which on a group has a line after it in the matrix."""
_DRAWING, _THUMBNAIL = 330, 108
"""Heights in pixels."""
_QUALITY = 80


class PairsPanel(Panel):
    """Pairs that match, groups of pictures, and drawings of matches."""

    axis = "match"

    def content(self, inputs: Sequence[Surveyed]) -> Content:
        begun = [one.item for one in inputs if one.item.item == "pair" and "match" in one.item.arrays]
        if not begun:
            html = '<p class="small">None yet.</p>'
            return Content([InputContent() for _ in inputs], sections=[Section("pairs", "Pairs", html)])
        matched = RankedPairs(begun)
        noun = next((one.noun for one in inputs if one.item.item != "pair"), "picture")
        return _Made(self.about, matched, grouped_pictures(matched), noun).content(inputs)


class _Made:
    def __init__(self, about: About, matched: RankedPairs, groups: Groups, picture: str) -> None:
        self.about, self.matched, self.groups, self.picture = about, matched, groups, picture
        self.noun = "inlier" if matched.is_verified else "match"
        self.nouns = plural_of(self.noun)
        self.limit = LEAST_INLIERS if matched.is_verified else LEAST_MATCHES
        self.notes: list[str] = []
        self._again = Rereading(matched, self.notes.append)
        self._paired = np.bincount(np.concatenate([matched.a, matched.b]), minlength=matched.n_pictures) > 0

    def content(self, inputs: Sequence[Surveyed]) -> Content:
        matched, groups = self.matched, self.groups
        n_good, n_in = int(groups.matched.sum()), int((groups.group >= 0).sum())
        spread = Histogram(np.arange(0.0, 33.0), grows=True)
        spread.add(matched.strength[matched.strength > 0].astype(np.float64))
        best = matched.best(SHOWN_PAIRS)
        good = np.setdiff1d(np.flatnonzero(groups.matched), best)  # those that count as matched, beside the best
        weakest = good[np.argsort(matched.strength[good], kind="stable")][:SHOWN_PAIRS].tolist()
        alone = np.flatnonzero((groups.group < 0) & self._paired)  # pictures that match no other, though compared
        values = {
            "good": n_good, "pairs": len(matched), "lost": int((matched.decoded == 0).sum()), "limit": self.limit,
            "nouns": self.nouns, "verified": matched.is_verified, "pictures": matched.n_pictures, "in_groups": n_in,
            "one": self.picture, "many": plural_of(self.picture),
            "matrix": self._matrix(), "groups": self._groups(), "groups_beyond": self.groups.members[SHOWN_GROUPS:],
            "alone": {"number": len(alone), "names": [matched.names[one] for one in alone[:SHOWN_ALONE]]},
            "best": [self._one(pair) for pair in best], "weakest": [self._one(pair) for pair in weakest],
            "notes": self.notes[:SHOWN_NOTES], "notes_beyond": len(self.notes[SHOWN_NOTES:]),
        }  # fmt: skip
        by_item = np.split(groups.matched, matched.ends[1:-1])
        each = {id(item): int(good.sum()) for item, good in zip(matched.items, by_item, strict=True)}
        cells = [grouped(each[id(one.item)]) if id(one.item) in each else "" for one in inputs]
        return Content(
            inputs=[InputContent(cells=[cell]) for cell in cells],
            subtitle="which pictures match",
            tiles=[Tile("matched pairs", grouped(n_good), f"of {grouped(len(matched))}")],
            columns=["matched pairs"],
            sections=[Section("pairs", "Pairs", fill(__package__, "pairs.html", **values), is_first=True)],
            histograms={"pairs": {**spread.drawn(), "noun": "pairs"}},
            counts={("matched", "matched"): n_good},
            style=text_of(__package__, "pairs.css"),
            script=text_of(__package__, "pairs.js"),
        )

    def _one(self, pair: int) -> dict[str, Any]:
        matched = self.matched
        pixels = self._again.draw(pair, _DRAWING, letters=0) if self.about.pictures else None
        counts = counted(int(matched.n_matches[pair]), "match", "matches")
        if matched.is_verified:
            counts += f", {counted(int(matched.n_inliers[pair]), 'inlier', 'inliers')}"
        sides = (int(matched.a[pair]), int(matched.b[pair]))
        return {
            "picture": encoded(pixels, _QUALITY) if pixels is not None else "",
            "names": [{"name": matched.names[side], "group": self._number(side)} for side in sides],
            "counts": counts,
        }

    def _number(self, picture: int) -> int:
        """Return the number of a picture's group on the page, from 1; 0 if it is not shown."""
        group = int(self.groups.group[picture])
        return group + 1 if group < SHOWN_GROUPS else 0

    def _groups(self) -> list[dict[str, Any]]:
        found = []
        for number, members in enumerate(self.groups.members[:SHOWN_GROUPS], 1):
            central = members[np.argsort(-self.groups.partners[members], kind="stable")]
            found.append(
                {
                    "number": number,
                    "pictures": len(members),
                    "names": [self.matched.names[one] for one in central[:SHOWN_NAMES]],
                    "thumbnails": [*filter(None, map(self._thumbnail, central[:SHOWN_THUMBNAILS].tolist()))],
                }
            )
        return found

    def _thumbnail(self, picture: int) -> str:
        pixels = self._again.picture(picture) if self.about.pictures else None
        if pixels is None:
            return ""
        width = max(1, min(4 * _THUMBNAIL, round(_THUMBNAIL * pixels.shape[1] / pixels.shape[0])))
        return encoded(resized(pixels, width, _THUMBNAIL), _QUALITY)

    def _matrix(self) -> dict[str, Any]:
        order = self.groups.order
        matrix = matrix_of(self.matched, order)
        names = [self.matched.names[picture] for picture in order.tolist()]
        rows = len(matrix.most)
        sizes = np.array([len(members) for members in self.groups.members], np.int64)
        ends = np.cumsum(sizes)[sizes > _LEAST_DRAWN * len(order)]
        return {
            "rows": rows,
            "png": matrix.png(self.limit),
            "names": names if matrix.is_exact and rows <= NAMED_ROWS else [],
            "most": int(matrix.most.max(initial=0)),
            "each": -(-self.matched.n_pictures // max(1, rows)),
            "ends": [round(float(end) * rows / len(order), 2) for end in ends],
            "told": json.dumps({**shown(matrix.drawn(names)), "noun": self.noun, "nouns": self.nouns}),
        }

"""Draws docs/match.jpg and docs/match-matrix.png, the pictures of docs/match.md.

python docs/match.py        needs: pip install -e ".[demo]"

Four photographs in the public domain that scikit-image carries (an astronaut by NASA; a cat, a cup and a rocket under
CC0), each seen in three ways: as it is, and twice warped as if from another place. No second photograph is involved.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import cv2
import numpy as np
import skimage.data
from PIL import Image

import pipeline
from pipeline.pairs.views.annotate import draw_matches
from pipeline.pairs.views.ranked import RankedPairs
from pipeline.pairs.views.report.matrix import LEAST_INLIERS, grouped_pictures, matrix_of

PHOTOGRAPHS = {
    "astronaut": skimage.data.astronaut, "cat": skimage.data.cat, "coffee": skimage.data.coffee,
    "rocket": skimage.data.rocket,
}  # fmt: skip
HERE = Path(__file__).parent
VIEWS = 3
CELL, GAP = 44, 3
"""Pixels of a cell of the matrix, and between cells."""


def warped(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a photograph with its corners moved by up to a sixth of its sides, a little darker and noisy."""
    height, width = picture.shape[:2]
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    moved = corners + rng.uniform(-1 / 6, 1 / 6, (4, 2)).astype(np.float32) * (width, height)
    matrix = cv2.getPerspectiveTransform(corners, moved.astype(np.float32))
    seen = cv2.warpPerspective(picture, matrix, (width, height), flags=cv2.INTER_AREA, borderValue=(40, 40, 40))
    return np.clip(0.8 * seen + rng.normal(0, 6, seen.shape), 0, 255).astype(np.uint8)


def drawn_matrix(matched: RankedPairs, folder: Path) -> Image.Image:
    """Return the matrix of the report, with the pictures at its upper and left edges."""
    order = grouped_pictures(matched).order
    cells = matrix_of(matched, order).pixels(LEAST_INLIERS).astype(np.float64)
    colour = 255 - (255 - cells[..., :3]) * cells[..., 3:] / 255
    side = CELL + GAP
    sheet = Image.new("RGB", ((len(order) + 1) * side + GAP,) * 2, "white")
    for row, picture in enumerate(order.tolist()):
        small = Image.open(folder / matched.names[picture]).resize((CELL, CELL))
        at = (row + 1) * side + GAP
        sheet.paste(small, (GAP, at))
        sheet.paste(small, (at, GAP))
        for column in range(len(order)):
            place = (column + 1) * side + GAP, at
            sheet.paste(tuple(colour[row, column].round().astype(int).tolist()), (*place, place[0] + CELL, at + CELL))
    return sheet


def main() -> None:
    rng = np.random.default_rng(3)
    with tempfile.TemporaryDirectory() as place:
        folder, out = Path(place) / "photos", Path(place) / "out.zarr"
        folder.mkdir()
        for name, photograph in PHOTOGRAPHS.items():
            picture = photograph()
            for view in range(VIEWS):
                Image.fromarray(picture if view == 0 else warped(picture, rng)).save(folder / f"{name}_{view}.png")
        run = pipeline.run("match", folder, out, executor="inline")
        matched = RankedPairs([run.inputs["photos-pairs"]])
        pair = ("coffee_1.png", "coffee_2.png")
        made = draw_matches([out], target=Path(place) / "drawn", pairs=[pair])
        Image.open(made.pictures[0].file).save(HERE / "match.jpg", quality=80)
        drawn_matrix(matched, folder).save(HERE / "match-matrix.png", optimize=True)
        photograph = np.array([name.split("_")[0] for name in matched.names])
        same = photograph[matched.a] == photograph[matched.b]
        found = matched.strength >= LEAST_INLIERS
    print(f"of {same.sum()} pairs of one photograph {(found & same).sum()} match,", end=" ")
    print(f"of the other {(~same).sum()} pairs {(found & ~same).sum()}")


if __name__ == "__main__":
    main()

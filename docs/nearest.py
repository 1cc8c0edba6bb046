"""Draws docs/nearest.jpg, the picture of nearest neighbours in docs/features.md.

python docs/nearest.py        needs: pip install -e ".[demo,images]"

Five photographs in the public domain that scikit-image carries (an astronaut by NASA; a rocket, a cat, a cup and a
camera man under CC0), each cut into five parts. Each row shows one part and the four that are most like it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image, ImageDraw

import pipeline

PICTURES = {
    "astronaut": skimage.data.astronaut, "cat": skimage.data.cat, "coffee": skimage.data.coffee,
    "rocket": skimage.data.rocket, "camera": skimage.data.camera,
}  # fmt: skip
PICTURE = Path(__file__).with_name("nearest.jpg")
SIDE, MARGIN, LINE = 150, 8, 16
NEAREST = 4


def parts_of(picture: np.ndarray) -> list[np.ndarray]:
    """Return the four corners and the middle, each three fifths of the sides; the last one mirrored."""
    height, width = picture.shape[0] * 3 // 5, picture.shape[1] * 3 // 5
    bottom, right = picture.shape[0] - height, picture.shape[1] - width
    places = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    found = [picture[y : y + height, x : x + width] for y, x in places]
    return [*found[:-1], found[-1][:, ::-1]]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "parts"
        place.mkdir()
        for name, picture in PICTURES.items():
            for number, part in enumerate(parts_of(picture())):
                Image.fromarray(np.ascontiguousarray(part)).convert("RGB").save(place / f"{name}_{number}.png")
        run = pipeline.run("features", place, Path(folder) / "out.zarr", executor="inline")
        feature, names = run.array("parts", "feature"), run.array("parts", "name").tolist()
        feature /= np.linalg.norm(feature, axis=1, keepdims=True)
        near = feature @ feature.T
        rows = [names.index(f"{name}_4.png") for name in PICTURES]
        size = (SIDE + MARGIN) * (NEAREST + 1) + MARGIN, (SIDE + LINE + MARGIN) * len(rows)
        sheet = Image.new("RGB", size, "white")
        draw, right = ImageDraw.Draw(sheet), 0
        for line, row in enumerate(rows):
            order = [int(one) for one in np.argsort(-near[row], kind="stable")[: NEAREST + 1]]
            for column, one in enumerate(order):
                x, y = MARGIN + column * (SIDE + MARGIN), line * (SIDE + LINE + MARGIN)
                shown = Image.open(place / names[one])
                shown.thumbnail((SIDE, SIDE))
                sheet.paste(shown, (x, y + LINE + (SIDE - shown.height) // 2))
                draw.text((x, y + 2), "asked for" if column == 0 else f"{near[row, one]:.2f}", fill="black")
                right += column > 0 and names[one].split("_")[0] == names[row].split("_")[0]
    sheet.save(PICTURE, quality=85)
    print(f"{right} of {NEAREST * len(rows)} are parts of the same photograph; written to {PICTURE}")


if __name__ == "__main__":
    main()

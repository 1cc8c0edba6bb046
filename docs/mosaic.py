"""Draws docs/mosaic.jpg, the picture of docs/streams.md.

python docs/mosaic.py        needs: pip install -e ".[demo]"

A window moves over a photograph in the public domain (an astronaut, by NASA; scikit-image carries it). Of its six
frames one is taken as not decoded. The faces are found by the stage `detect` in a mosaic of 3 x 2.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import skimage.data

from pipeline.engine.stage import Chunk
from pipeline.faces.stages.detect import Detect, DetectOptions, detect_in
from pipeline.machine.device import Device
from pipeline.media.mosaic import Mosaics

HERE = Path(__file__).parent
TILES, LOST = (3, 2), 4
SIZE = (240, 320)
"""Height and width of a frame."""
GAP, HEAD = 8, 22
"""Pixels between frames, and above each of the two pictures."""
YELLOW, GREY = (255, 220, 0), (90, 90, 90)


def frames() -> np.ndarray:
    """Return six frames of a window that moves over the photograph."""
    photograph = skimage.data.astronaut()
    corners = [(10, 90), (30, 60), (5, 40), (40, 75), (20, 20), (60, 110)]
    return np.stack([photograph[y : y + SIZE[0], x : x + SIZE[1]] for y, x in corners])


def boxed(picture: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    drawn = np.ascontiguousarray(picture)
    for x, y, width, height in boxes.round().astype(int).tolist():
        cv2.rectangle(drawn, (x, y), (x + width, y + height), YELLOW, 2)
    return drawn


def titled(picture: np.ndarray, words: str) -> np.ndarray:
    head = np.full((HEAD, picture.shape[1], 3), 255, np.uint8)
    cv2.putText(head, words, (2, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.45, GREY, 1, cv2.LINE_AA)
    return np.concatenate([head, picture])


def main() -> None:
    pictures = frames()
    decoded = np.arange(len(pictures)) != LOST
    stage = Detect(DetectOptions.model_validate({"tiles": TILES, "size": "720x360"}))
    stage.load(Device())
    mosaics = Mosaics(pictures, decoded, TILES, stage.options.size)
    seen = detect_in(stage.detector, mosaics)
    found = stage.run(Chunk("window", 0, np.arange(6), None, decoded, {"frames_rgb": pictures}))
    ends = np.append(0, np.cumsum(found["n_faces"]))
    sheet = np.full((2 * SIZE[0] + GAP, 3 * SIZE[1] + 2 * GAP, 3), 255, np.uint8)
    for number, picture in enumerate(pictures):
        y, x = (SIZE[0] + GAP) * (number // 3), (SIZE[1] + GAP) * (number % 3)
        shown = boxed(picture, found["box"][ends[number] : ends[number + 1]]) if decoded[number] else 0
        sheet[y : y + SIZE[0], x : x + SIZE[1]] = shown
    mosaic = titled(boxed(mosaics[0], seen.box), "the mosaic, 720x360: the detector looks at it once")
    mosaic = np.pad(mosaic, ((0, 2 * SIZE[0] + GAP + HEAD - len(mosaic)), (0, 2 * GAP), (0, 0)), constant_values=255)
    sheet = titled(sheet, "the six frames, 320x240 each, with their boxes; one was not decoded")
    whole = np.concatenate([mosaic, sheet], axis=1)
    small = cv2.resize(whole, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(HERE / "mosaic.jpg"), cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])
    print(f"{len(seen.box)} faces in the mosaic, {found['n_faces'].tolist()} in the frames")


if __name__ == "__main__":
    main()

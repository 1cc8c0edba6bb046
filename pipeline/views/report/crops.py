"""Pictures on a report's page, cut from what was analysed, if it still exists."""

from __future__ import annotations

import base64
import contextlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import ReelgraphError
from pipeline.media.reread import Pixels, reread
from pipeline.store.read import RunInput


@dataclass(frozen=True)
class Candidate:
    """A face or an object that would make a good picture."""

    score: float
    rank: int
    """Rank of the frame in the file, or number of the picture in its input."""
    box: tuple[float, float, float, float]


def cut(
    wanted: Sequence[tuple[RunInput, Candidate]], crop: Callable[[Pixels, npt.NDArray[Any]], Pixels]
) -> list[str | None]:
    """Return a picture of each candidate, given with its input; None if its film or picture is missing, has changed, or
    is not readable.

    `crop` cuts a box (x, y, w, h) out of a frame.
    """
    found: dict[tuple[RunInput, Candidate], str] = {}
    by_item: dict[RunInput, dict[int, list[Candidate]]] = defaultdict(lambda: defaultdict(list))
    for item, candidate in wanted:
        by_item[item][candidate.rank].append(candidate)
    for item, by_rank in by_item.items():
        with contextlib.suppress(ReelgraphError):
            again = reread(item)
            for rank, some in sorted(by_rank.items()):  # one frame at a time, as 4K frames are large
                with contextlib.suppress(ReelgraphError, OSError, IndexError):
                    frame = again.one(rank)
                    if frame is not None:
                        boxes = [again.on_pixels(np.array(one.box)) for one in some]
                        found |= {(item, one): encoded(crop(frame, box)) for one, box in zip(some, boxes, strict=True)}
    return [found.get(one) for one in wanted]


def encoded(pixels_rgb: Pixels, quality: int = 82) -> str:
    """Return a JPEG, as a `data:` address."""
    import cv2

    _, content = cv2.imencode(".jpg", pixels_rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return "data:image/jpeg;base64," + base64.b64encode(content.tobytes()).decode()

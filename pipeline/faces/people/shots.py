"""Cut faces out of their videos, as JPEGs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import InputError, StoreError, UsageError
from pipeline.faces.people.question import frame_of
from pipeline.faces.people.sightings import Shot

if TYPE_CHECKING:
    from pipeline.faces.people.search import BestShot

MARGIN = 0.4
"""Share of a box's size that is shown around it on each side."""
QUALITY = 92


def cut_shots(seen: Sequence[BestShot], folder: str | Path) -> tuple[list[Path], list[str]]:
    """Write each face as a JPEG, named by its rank, input and time.

    Return the files, and a line for each video that is missing or has changed. Raises UsageError if the folder cannot
    be written.
    """
    import cv2

    from pipeline.media.video.source import open_as_stored
    from pipeline.store.read import open as open_store

    place = Path(folder).expanduser()
    made: list[tuple[int, Path]] = []
    notes: list[str] = []
    by_input: dict[tuple[str, str], list[tuple[int, BestShot]]] = {}
    for rank, one in enumerate(seen, 1):
        by_input.setdefault((one.out, one.input), []).append((rank, one))
    try:
        place.mkdir(parents=True, exist_ok=True)
        for (out, name), some in by_input.items():
            try:
                source = open_as_stored(open_store(out).input(name).attributes)
            except (InputError, StoreError) as err:
                notes.append(f"{err}; its faces are not cut out")
                continue
            for rank, one in some:
                frame = frame_of(source, one.shot.frame)
                if frame is None:
                    notes.append(f"{one.video}: frame {one.shot.frame} cannot be decoded; it is not cut out")
                    continue
                stem = re.sub(r"[^\w.-]", "_", one.input)
                path = place / f"{rank:02d}_{stem}_{one.shot.time_seconds:.3f}s.jpg"
                made.append((rank, path))
                bgr = _cut(frame, one.shot)[:, :, ::-1]
                ok, content = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
                assert ok, "JPEG takes every uint8 picture"
                path.write_bytes(content.tobytes())
    except OSError as err:
        raise UsageError(f"cannot write to {place}: {err.strerror or err}; choose another folder") from err
    return [path for _, path in sorted(made)], notes


def _cut(frame: np.ndarray, shot: Shot) -> np.ndarray:
    """Return uint8 (height, width, 3): the box and its surroundings, inside the frame, at least one pixel."""
    x, y, w, h = shot.box
    height, width = frame.shape[:2]
    left, right = (int(np.clip(value, 0, width)) for value in (x - MARGIN * w, x + (1 + MARGIN) * w))
    top, bottom = (int(np.clip(value, 0, height)) for value in (y - MARGIN * h, y + (1 + MARGIN) * h))
    left, top = min(left, width - 1), min(top, height - 1)
    return frame[top : max(bottom, top + 1), left : max(right, left + 1)]

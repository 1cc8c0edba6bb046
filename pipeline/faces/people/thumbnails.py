"""Faces cut out of their videos and pictures while these exist: thumbnails in the store, and JPEGs for a user."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError, StoreError, UsageError
from pipeline.faces.people.described import face_quality
from pipeline.faces.people.moments import Moments
from pipeline.faces.people.search import BestShot
from pipeline.files.whole import made_folder
from pipeline.media.reread import reread
from pipeline.store.read import RunInput
from pipeline.store.read import open as open_store
from pipeline.store.run import RunStore
from pipeline.store.schema import Array

Pixels = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

SIDE = 96
SHOTS_EACH = 3
APART_SECONDS = 2.0
"""Seconds between two shots; nearer ones show the same."""
MARGIN = 1.5
"""Side of the cut, in longer sides of the face's box."""
SHOT_MARGIN = 0.4
"""Share of a box's size that a JPEG shows around it on each side."""
SHOT_QUALITY = 92
_LONGEST_STEM = 60
"""Letters of a picture's name in the name of a JPEG, so that no file system refuses it."""
FACE = Array("thumbnail_face", ("shot",), "int64", attributes={"description": "row of the face along the face axis"})
THUMBNAIL = Array("thumbnail", ("shot", "row", "column", "channel"), "uint8", (SIDE, SIDE, 3), {"channels": "RGB"})


def best_shots(person: npt.NDArray[np.int32], score: Floats, time_seconds: Floats) -> Ints:
    """Return the rows (int64) of up to three faces of each person, apart in time; by person, the best first.

    `person`, `score` and `time_seconds` have one value per face.
    """
    chosen: list[int] = []
    order = np.lexsort((-score, person))
    order = order[person[order] >= 0]
    numbers, starts = np.unique(person[order], return_index=True)
    for rows in np.split(order, starts[1:]) if len(numbers) else []:
        mine: list[int] = []
        for row in rows.tolist():
            if all(abs(time_seconds[row] - time_seconds[other]) >= APART_SECONDS for other in mine):
                mine.append(row)
                if len(mine) == SHOTS_EACH:
                    break
        chosen += mine
    return np.array(chosen, np.int64)


def add_thumbnails(items: Sequence[RunInput], note: Callable[[str], None]) -> None:
    """Write `thumbnail` and `thumbnail_face` of the inputs whose people have changed since the last thumbnails.

    If a video or the pictures are missing, have changed or cannot be read, note it; the input then has no thumbnails.
    """
    from pipeline.store.compact import add_arrays

    for item in items:
        person = item.array("person")
        state = hashlib.blake2b(person.astype("<i4").tobytes(), digest_size=16).hexdigest()
        declared = item.arrays.get("thumbnail")
        if declared is not None and declared.attributes.get("people") == state:
            continue
        moments, frame = Moments(item), item.array("face_frame")
        # Any two pictures are apart.
        times = moments.time_seconds if moments.is_timed else APART_SECONDS * moments.number
        rows = best_shots(person, face_quality(item)[0], times[frame])
        try:
            rows, pictures = _cut(item, rows, moments.number[frame[rows]])
        except InputError as error:
            note(f"{item.name}: no thumbnails ({error})")
            if declared is None:
                continue
            rows, pictures = np.empty(0, np.int64), np.empty((0, SIDE, SIDE, 3), np.uint8)
        specs = [replace(THUMBNAIL, attributes={**THUMBNAIL.attributes, "people": state}), FACE]
        with RunStore.open(item.store_path) as store:
            arrays: dict[str, np.ndarray] = {"thumbnail": pictures, "thumbnail_face": rows}
            add_arrays(store, item.name, specs, arrays, replace_existing=True)
        item.refresh()


def _cut(item: RunInput, rows: Ints, numbers: Ints) -> tuple[Ints, Pixels]:
    """Return the rows whose frames (`numbers`) can be read again, and their pictures, uint8 (n, 96, 96, 3) RGB.

    The pictures lie in a temporary file: those of 20,000 people take 1.7 GB. Raises InputError if the video, or
    the pictures, cannot be used.
    """
    if not len(rows):
        return rows, np.zeros((0, SIDE, SIDE, 3), np.uint8)
    with tempfile.TemporaryFile() as file:
        pictures: Pixels = np.memmap(file, np.uint8, "w+", shape=(len(rows), SIDE, SIDE, 3))
    is_made = np.zeros(len(rows), bool)
    again = reread(item)
    boxes = again.on_pixels(item.array("box")[rows])
    order = np.argsort(numbers, kind="stable")
    for number, frame in again.pixels(np.unique(numbers)):
        first, last = np.searchsorted(numbers, [number, number + 1], sorter=order)
        for k in order[first:last].tolist():
            pictures[k], is_made[k] = crop(frame, boxes[k]), True
    for place, made in enumerate(np.flatnonzero(is_made).tolist()):
        pictures[place] = pictures[made]
    return rows[is_made], pictures[: np.count_nonzero(is_made)]


def crop(frame: Pixels, box: npt.NDArray[Any]) -> Pixels:
    """Return uint8 (96, 96, 3): a square around a face's box (x, y, w, h in pixels of the frame), edges continued."""
    import cv2

    x, y, w, h = (float(value) for value in box)
    height, width = frame.shape[:2]
    side = max(2, round(min(MARGIN * max(w, h, 2.0), 2.0 * max(height, width))))
    left, top = round(x + w / 2 - side / 2), round(y + h / 2 - side / 2)
    rows = np.clip(np.arange(top, top + side), 0, height - 1)
    columns = np.clip(np.arange(left, left + side), 0, width - 1)
    square = frame[rows[:, None], columns]
    is_larger = square.shape[0] > SIDE
    resized: Pixels = cv2.resize(square, (SIDE, SIDE), interpolation=cv2.INTER_AREA if is_larger else cv2.INTER_CUBIC)
    return resized


def cut_shots(seen: Sequence[BestShot], folder: str | Path) -> tuple[list[Path], list[str]]:
    """Write each face as a JPEG, named by its rank, input, and time or picture.

    Return the files, and a line for each video that is missing or has changed. Raises UsageError if the folder cannot
    be written.
    """
    import cv2

    place = Path(folder).expanduser()
    made: list[tuple[int, Path]] = []
    notes: list[str] = []
    by_input: dict[tuple[str, str], list[tuple[int, BestShot]]] = {}
    for rank, one in enumerate(seen, 1):
        by_input.setdefault((one.out, one.input), []).append((rank, one))
    try:
        made_folder(place)
        for (out, name), some in by_input.items():
            try:
                again = reread(open_store(out).input(name))
            except (InputError, StoreError) as err:
                notes.append(f"{err}; its faces are not cut out")
                continue
            for rank, one in some:
                shot = one.shot
                frame = again.one(shot.frame)
                if frame is None:
                    what = f"frame {shot.frame} cannot" if shot.name is None else f"{shot.name} has changed or cannot"
                    notes.append(f"{one.video}: {what} be decoded; it is not cut out")
                    continue
                at = f"{shot.time_seconds:.3f}s" if shot.name is None else Path(shot.name).stem[-_LONGEST_STEM:]
                stem = re.sub(r"[^\w.-]", "_", f"{one.input}_{at}")
                path = place / f"{rank:02d}_{stem}.jpg"
                made.append((rank, path))
                bgr = _around(frame, again.on_pixels(np.array(shot.box)))[:, :, ::-1]
                ok, content = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, SHOT_QUALITY])
                assert ok, "JPEG takes every uint8 picture"
                path.write_bytes(content.tobytes())
    except OSError as err:
        raise UsageError(f"cannot write to {place}: {err.strerror or err}; choose another folder") from err
    return [path for _, path in sorted(made)], notes


def _around(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return uint8 (height, width, 3): the box and its surroundings, inside the frame, at least one pixel."""
    x, y, w, h = box.tolist()
    height, width = frame.shape[:2]
    left, right = (int(np.clip(value, 0, width)) for value in (x - SHOT_MARGIN * w, x + (1 + SHOT_MARGIN) * w))
    top, bottom = (int(np.clip(value, 0, height)) for value in (y - SHOT_MARGIN * h, y + (1 + SHOT_MARGIN) * h))
    left, top = min(left, width - 1), min(top, height - 1)
    return frame[top : max(bottom, top + 1), left : max(right, left + 1)]

"""Picture files: one; or frames of videos in a folder, one by one, so that a run that was stopped goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError, UsageError
from pipeline.files.whole import atomic_write, made_folder, to_json

if TYPE_CHECKING:
    from pipeline.media.film.film import Film
    from pipeline.store.read import RunInput

MARK = "reelgraph-images.json"
"""File in the folder that says which videos its pictures are from."""
_QUALITY = 95
"""Quality of JPEG: a detector finds the same faces as in the video."""

JPEG = frozenset({".jpg", ".jpeg", ".jpe", ".jfif"})
"""Endings of JPEG files."""


def save_picture(path: Path, pixels_rgb: npt.NDArray[np.uint8], *, is_drawn: bool = False) -> None:
    """Write a picture, as JPEG or else as PNG by the ending of its name. Raises UsageError if that fails.

    `is_drawn`: the colours of thin lines matter, so JPEG keeps them at full size.
    """
    is_jpeg = path.suffix.lower() in JPEG
    how = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY] if is_jpeg else []
    if is_jpeg and is_drawn:
        how += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    ok, content = cv2.imencode(".jpg" if is_jpeg else ".png", np.ascontiguousarray(pixels_rgb[:, :, ::-1]), how)
    assert ok, "OpenCV writes every uint8 picture as PNG or JPEG"
    try:
        made_folder(path.parent, path)
        atomic_write(path, content.tobytes())
    except OSError as err:
        raise UsageError(f"cannot write {path}: {err.strerror or err}; choose another --out") from err


class Stills:
    """A folder of pictures: `NAME/00000120.jpg` is frame 120 of the input NAME."""

    def __init__(self, folder: Path, videos: Mapping[str, RunInput]) -> None:
        """Take a new folder, or one with pictures of the same videos. Raises UsageError for others."""
        self.folder = folder
        mark = to_json({name: item.attributes.get("fingerprint") for name, item in videos.items()})
        with _writing(folder):
            made_folder(folder)
            known = (folder / MARK).read_bytes() if (folder / MARK).is_file() else None
            if known != mark and any(folder.iterdir()):
                raise UsageError(f"--images {folder} holds other files already; name a new folder")
            atomic_write(folder / MARK, mark)

    @staticmethod
    def file_name(name: str, rank: int) -> str:
        """Return the path of a picture in the folder."""
        return f"{name}/{rank:08d}.jpg"

    def write(self, name: str, film: Film, ranks: npt.NDArray[np.int64]) -> None:
        """Write the frames of these ranks (ascending), except those there. Raises InputError if one is lost."""
        with _writing(self.folder):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
            paths = {rank: self.folder / self.file_name(name, rank) for rank in ranks.tolist()}
            missing = [rank for rank, path in paths.items() if not path.exists()]
            for rank, frame_rgb in film.frames_at(np.array(missing, np.int64)):
                _, encoded = cv2.imencode(".jpg", frame_rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
                atomic_write(paths[rank], encoded.data)
        if film.losses:
            raise InputError(f"{film.path}: {film.losses[0]}; frames with rows have no picture; leave --images out")


def refuse_pictures(item: RunInput) -> None:
    """Raise UsageError if the items of an input are pictures."""
    if "name" in item.arrays:
        raise UsageError(f"{item.name!r} has pictures already, in {item.attributes.get('path')}; leave --images out")


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        raise UsageError(f"--images {folder} cannot be written: {err.strerror or err}; choose another folder") from err

"""A database of COLMAP: cameras, pictures, keypoints, descriptors, matches, and the geometry of verified pairs.

The tables are those of COLMAP 3.9. Later versions, and pycolmap, add to them what they need when they open the file.
"""

from __future__ import annotations

import errno
import math
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import ValidationError

from pipeline.errors import UsageError
from pipeline.pairs.views.matched import MatchExport, kind_of
from pipeline.store.facts import stage_sections
from pipeline.text import plural

if TYPE_CHECKING:
    from pipeline.pairs.stages.verify import VerifyOptions
    from pipeline.pairs.views.matched import Keypoints, Pair, Pictures
    from pipeline.store.read import Run
    from pipeline.views.export import StoredRows

MOST_IMAGES = 2**31 - 1
"""Number by which COLMAP makes one number of a pair of pictures."""
SIMPLE_RADIAL = 2
"""COLMAP's number of its usual camera model: focal length, principal point, one factor of distortion."""
FILM_DIAGONAL = 43.27
"""Millimetres: diagonal of the film that EXIF's FocalLengthIn35mmFilm speaks of."""
DESCRIPTOR = np.dtype(np.uint8), 128
"""The only descriptors that every version of COLMAP reads: those of SIFT."""
GEOMETRIES = {"essential": (2, "E"), "fundamental": (3, "F"), "homography": (6, "H")}
"""COLMAP's configuration of a verified pair, and the column of its matrix, by the model that it was verified by."""
_TURNED = 0x0112
_FOCAL_35 = 0xA405
_EXIF = 0x8769

_TABLES = Path(__file__).with_suffix(".sql")
_NO_POSE = np.array([1, 0, 0, 0], "<f8").tobytes(), np.zeros(3, "<f8").tobytes()
"""Rotation and translation of a pair whose pose is not known, in COLMAP 3.9."""


class Colmap(MatchExport):
    """A database for `colmap mapper` and pycolmap."""

    suffixes: ClassVar[tuple[str, ...]] = (".db",)
    flags: ClassVar[tuple[str, ...]] = ("camera",)
    in_use: ClassVar[tuple[str, ...]] = ("-wal", "-journal")

    def write(self, file: IO[bytes], stored: StoredRows) -> None:
        pictures = self.pictures(stored)
        kinds = _kinds(stored)
        with _disk_errors(), closing(sqlite3.connect(file.name, isolation_level=None)) as made:
            # The file has its name only when it is whole: SQLite need not keep a copy of what it changes.
            made.execute("PRAGMA journal_mode = OFF")
            made.execute("PRAGMA synchronous = OFF")
            made.executescript(_TABLES.read_text(encoding="utf-8"))
            made.execute("BEGIN")
            _write_pictures(made, pictures, stored)
            verified = 0
            for pair in self.pairs(stored, pictures):
                verified += _write_pair(made, pair)
            made.execute("COMMIT")
        if pictures.folder is not None:
            stored.notes.append(f"names of pictures are relative to {pictures.folder}: COLMAP's image folder")
        if None in kinds:
            which = "the" if kinds == {None} else "some"
            stored.notes.append(
                f"{which} matches are not verified: add the stage verify, or run `colmap geometric_verifier "
                "--database_path FILE` (pycolmap.geometric_verification) before the mapper"
            )
        if kinds != {None}:
            stored.notes.append(f"{plural(verified, 'pair')} verified")


@dataclass
class _Camera:
    """A camera, which several pictures may share."""

    width: int
    height: int
    focal: float
    """Focal length in pixels, if none of its pictures says another."""
    centre: tuple[float, float]
    """x, y of the principal point."""
    known: set[float] = field(default_factory=set)
    """Focal lengths of its pictures that are known."""
    first: float = 0.0
    """The first one of them; 0 if there is none."""

    def found(self, focal: float) -> None:
        """Take the focal length of one more picture; 0 if it is not known."""
        self.first = self.first or focal
        self.known |= {focal} - {0.0}

    def row(self, number: int) -> tuple[object, ...]:
        """Return its row of the table."""
        params = np.array([self.first or self.focal, *self.centre, 0], "<f8").tobytes()
        return number, SIMPLE_RADIAL, self.width, self.height, params, int(self.first > 0)


def _write_pictures(made: sqlite3.Connection, pictures: Pictures, stored: StoredRows) -> None:
    cameras: dict[tuple[object, ...], _Camera] = {}
    verified = {run.path: _options(run) for run in stored.runs}
    used: list[tuple[object, ...]] = []
    turned = missing = descriptors = 0
    there = np.flatnonzero(pictures.decoded).tolist()
    for number in there:
        name, (width, height) = pictures.names[number], pictures.sizes[number].tolist()
        focal, is_turned = 0.0, False
        if pictures.folder is not None:
            path = os.path.join(pictures.folder, name)
            missing += not os.path.exists(path)
            focal, is_turned = _exif(path, width, height)
        turned += is_turned
        shared = {"single": "", "per-folder": os.path.dirname(name)}.get(stored.camera or "", number)
        used.append((shared, width, height))
        options = verified[pictures.store(number)]
        guess, centre = options.focal_factor * max(width, height), options.centre or (width / 2, height / 2)
        cameras.setdefault(used[-1], _Camera(width, height, guess, centre)).found(options.focal or focal)
    numbers = {key: number for number, key in enumerate(cameras, 1)}
    rows = (camera.row(numbers[key]) for key, camera in cameras.items())
    made.executemany("INSERT INTO cameras VALUES (?, ?, ?, ?, ?, ?)", rows)
    for number, key in zip(there, used, strict=True):
        image = number + 1, pictures.names[number], numbers[key]
        made.execute("INSERT INTO images (image_id, name, camera_id) VALUES (?, ?, ?)", image)
        found = pictures.keypoints(number)
        for table, values in (("keypoints", _keypoints(found)), ("descriptors", found.descriptors)):
            if table == "keypoints" or (values.dtype, values.shape[1]) == DESCRIPTOR:
                made.execute(f"INSERT INTO {table} VALUES (?, ?, ?, ?)", (number + 1, *values.shape, values.tobytes()))
                descriptors += table == "descriptors"
    if not descriptors and pictures.decoded.any():
        stored.notes.append("without descriptors: COLMAP has those of SIFT alone, and needs none for what is matched")
    if missing:
        stored.notes.append(
            f"{plural(missing, 'picture')} not found in {pictures.folder}; the mapper needs none, colours and dense "
            "reconstruction do"
        )
    if turned:
        stored.notes.append(
            f"{plural(turned, 'picture')} turned by EXIF, which COLMAP does not do. Points are those of the upright "
            "picture; give it upright copies (exiftran -ai) for colours and dense reconstruction"
        )
    mixed = next((camera for camera in cameras.values() if len(camera.known) > 1), None)
    if mixed is not None:
        stored.notes.append(
            f"a camera of {mixed.width} × {mixed.height} has pictures of focal lengths from {min(mixed.known):.0f} to "
            f"{max(mixed.known):.0f} pixels (EXIF); the first, {mixed.first:.0f}, is taken. Without --camera each "
            "picture has its own"
        )


def _options(run: Run) -> VerifyOptions:
    """Return the options of cameras by which a store's essential matrices were found; the defaults if it has none."""
    from pipeline.pairs.stages.verify import OF_ESSENTIAL, VerifyOptions

    for section in stage_sections(run.attributes.get("workflow")).values():
        if section.get("use") == "verify" and section.get("model") == "essential":
            given = {name: section[name] for name in ("model", *OF_ESSENTIAL) if name in section}
            with suppress(ValidationError):  # of a damaged store
                return VerifyOptions.model_validate(given)
    return VerifyOptions.model_validate({})


def _keypoints(found: Keypoints) -> np.ndarray:
    """Return float32 (n, 4): x, y, scale and orientation in radians; (n, 2) if the model knows none."""
    if found.scales is None or found.angles is None:
        return found.points.astype("<f4")
    return np.column_stack([found.points, found.scales / 2, np.radians(found.angles)]).astype("<f4")


def _write_pair(made: sqlite3.Connection, pair: Pair) -> bool:
    """Write the matches of a pair; return whether it is verified."""
    pair_id = (pair.a + 1) * MOST_IMAGES + pair.b + 1  # a < b, as the source of pairs lists them
    matches = pair.match.astype("<u4")
    made.execute("INSERT INTO matches VALUES (?, ?, 2, ?)", (pair_id, len(matches), matches.tobytes()))
    if pair.kind is None or pair.inlier is None or not pair.inlier.any():
        return False
    config, column = GEOMETRIES[pair.kind]
    inliers = matches[pair.inlier]
    made.execute(
        f"INSERT INTO two_view_geometries (pair_id, rows, cols, data, config, {column}, qvec, tvec) "
        "VALUES (?, ?, 2, ?, ?, ?, ?, ?)",
        (pair_id, len(inliers), inliers.tobytes(), config, np.asarray(pair.model, "<f8").tobytes(), *_NO_POSE),
    )
    return True


def _kinds(stored: StoredRows) -> set[str | None]:
    """Return the kinds of model that pairs were verified by. Raises UsageError for one that COLMAP does not have."""
    kinds = {one.name: kind_of(one) for one in stored.inputs if one.item.arrays}
    for name, kind in kinds.items():
        if kind is not None and kind not in GEOMETRIES:
            raise UsageError(f"{name!r} is verified by {kind!r}, and COLMAP has {', '.join(GEOMETRIES)} only")
    return set(kinds.values())


def _exif(path: str, width: int, height: int) -> tuple[float, bool]:
    """Return the focal length in pixels, 0 if EXIF does not say, and whether EXIF turns the picture."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            exif = image.getexif()
            film = float(exif.get_ifd(_EXIF).get(_FOCAL_35) or 0)
            focal = film / FILM_DIAGONAL * math.hypot(width, height)
            return focal if 0 < focal < math.inf else 0.0, exif.get(_TURNED, 1) not in (0, 1)
    except Exception:  # whatever a missing or damaged file brings: what is needed is in the store
        return 0.0, False


@contextmanager
def _disk_errors() -> Iterator[None]:
    """Raise an error of the disk as what it is: SQLite has its own."""
    try:
        yield
    except sqlite3.OperationalError as err:
        raise OSError(errno.EIO, str(err)) from err

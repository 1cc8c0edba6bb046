"""Faces of pictures, found and embedded in this process by the stages of a workflow, and cached by the content.

Galleries, queries (`find --face`) and `pipeline.deepface.find` share this cache. A picture is analysed once for each
choice of detector, network and options, whatever its folder and its name.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.engine.here import stages_here, workflow_making
from pipeline.engine.source import MAX_CHUNK_BYTES, MAX_CHUNK_FRAMES
from pipeline.engine.stage import Chunk
from pipeline.engine.workflow import Workflow
from pipeline.files.regular import open_file
from pipeline.files.whole import atomic_write
from pipeline.media.inputs import SYSTEM_FOLDERS
from pipeline.media.picture import UnreadableError, decode, read_content
from pipeline.models.weights import cache_folder, sha256

SUFFIXES = (".jpg", ".jpeg", ".png")
"""Suffixes that DeepFace reads (commons/image_utils.py, IMAGE_EXTS)."""
OTHER_SUFFIXES = (".bmp", ".gif", ".heic", ".tif", ".tiff", ".webp")
"""Suffixes of other pictures, which DeepFace ignores silently."""

OF_TRACKS = ("per", "best")
"""Options by which a face of a film may get the vector of its track: pictures are not frames of one film."""

Pixels = npt.NDArray[np.uint8]
Progress = Callable[[int, int], None]
"""Function of the number of pictures done and in all."""


@dataclass(frozen=True)
class PictureFaces:
    """The faces of one picture, in the order of the detector; n may be 0."""

    box: npt.NDArray[np.float32]
    """float32 (n, 4): x, y, w, h in pixels of the upright picture."""
    landmarks: npt.NDArray[np.float32]
    """float32 (n, 5, 2)."""
    confidence: npt.NDArray[np.float32]
    """float32 (n,)."""
    rank: npt.NDArray[np.int32]
    """int32 (n,): rank in DeepFace's own list with align deepface, else in this one."""
    embedding: npt.NDArray[np.float32]
    """float32 (n, d)."""
    size: npt.NDArray[np.int64]
    """int64 (2,): width and height of the picture."""

    def __len__(self) -> int:
        return len(self.box)

    @property
    def largest(self) -> int:
        """Row of the face with the largest box. Undefined without a face."""
        return int(self.box[:, 2:].prod(axis=1).argmax())


@dataclass(frozen=True)
class Recipe:
    """The detection and embedding of faces: only the stages of a workflow that lead to `embedding`."""

    workflow: Workflow

    @cached_property
    def embedding(self) -> Mapping[str, Any]:
        """Attributes of the array: model, align, thresholds, deepface_thresholds."""
        return self.workflow.specs()["embedding"].attributes

    @property
    def model(self) -> str:
        return str(self.embedding["model"])

    @property
    def align(self) -> str:
        return str(self.embedding["align"])

    @cached_property
    def dimension(self) -> int:
        return self.workflow.specs()["embedding"].shape[0]

    @cached_property
    def keys(self) -> dict[str, str]:
        """Resume keys of the stages without sampling; equal whenever the same faces get the same vectors."""
        return self.workflow.keys()

    @cached_property
    def key(self) -> str:
        return hashlib.sha256(json.dumps(sorted(self.keys.values())).encode()).hexdigest()[:16]

    @classmethod
    def of_store(cls, attributes: Mapping[str, Any], where: str) -> Recipe:
        """Return the recipe of a store, from its root attributes. Raises StoreError if no stage embeds faces."""
        missing = f"{where} was made without a stage that embeds faces", "run the workflow faces into it first"
        return cls(workflow_making("embedding", attributes, missing, without=OF_TRACKS, with_source=False))

    def faces(self, pictures: Sequence[Pixels]) -> Iterator[PictureFaces]:
        """Yield the faces of each picture, uint8 (height, width, 3) RGB. Raises ModelError if weights are missing."""
        run = stages_here(self.workflow)
        batch: list[Pixels] = []
        for number, picture in enumerate(pictures, 1):
            batch.append(picture)
            full = len(batch) == MAX_CHUNK_FRAMES or sum(one.nbytes for one in batch) >= MAX_CHUNK_BYTES
            if not full and number < len(pictures):
                continue
            index = np.arange(len(batch), dtype=np.int64)
            given: dict[str, Any] = {"frames_rgb": batch}
            arrays = run(Chunk("pictures", 0, index, index.astype(float), np.ones(len(batch), bool), given))
            stops = np.cumsum(arrays["n_faces"])
            for stop, count, one in zip(stops.tolist(), arrays["n_faces"].tolist(), batch, strict=True):
                names = ("box", "landmarks", "confidence", "embedding")
                cut = {name: arrays[name][stop - count : stop] for name in names}
                rank = arrays["rank"][stop - count : stop] if "rank" in arrays else np.arange(count, dtype=np.int32)
                yield PictureFaces(rank=rank, size=np.array([one.shape[1], one.shape[0]], np.int64), **cut)
            batch = []


def read_picture(path: str | Path) -> Pixels:
    """Return uint8 (height, width, 3) RGB, upright. Raises UnreadableError if OpenCV cannot read it."""
    return np.ascontiguousarray(decode(read_content(path), str(path))[:, :, ::-1])


def list_pictures(folder: str | Path) -> tuple[list[Path], list[Path]]:
    """Return the pictures below a folder by DeepFace's suffixes, sorted, and those by other suffixes.

    Hidden files and folders, and folders of the system, are left out, as in a folder of photographs. Links to folders
    are followed, each folder once.
    """
    found = []
    seen: set[Path] = set()
    waiting, linked = [Path(folder)], list[Path]()  # links last: a folder that is found twice has the path without one
    while waiting or linked:
        start = waiting.pop() if waiting else linked.pop(0)
        for top, folders, names in os.walk(start):
            real = Path(top).resolve()
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(one for one in folders if not one.startswith(".") and not SYSTEM_FOLDERS.fullmatch(one))
            linked += [path for one in folders if (path := Path(top) / one).is_symlink()]
            found += [Path(top) / name for name in names if not name.startswith(".")]
    found.sort()
    ours = [path for path in found if path.suffix.lower() in SUFFIXES]
    return ours, [path for path in found if path.suffix.lower() in OTHER_SUFFIXES]


def content_sha256(path: str | Path) -> str:
    """Return the hash of a file, read once for each size and time of change. Raises UnreadableError."""
    try:
        return sha256([Path(path)])
    except OSError as err:
        raise UnreadableError(f"{path} cannot be read: {err.strerror or err}") from err


class PictureCache:
    """A cache on disk of the faces of pictures: a file of plain arrays per content, a folder per recipe."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._folder = cache_folder() / "pictures" / recipe.key

    def has(self, path: str | Path) -> bool:
        """Return whether the cache holds a picture. Raises UnreadableError."""
        return self._file(content_sha256(path)).is_file()

    def faces(
        self, paths: Sequence[str | Path], progress: Progress | None = None
    ) -> Iterator[PictureFaces | UnreadableError]:
        """Yield the faces of each file, in order; embed those that the cache lacks. Unreadable files give an error."""
        for start in range(0, len(paths), MAX_CHUNK_FRAMES):
            some = paths[start : start + MAX_CHUNK_FRAMES]
            contents = [_or_error(content_sha256, path) for path in some]
            known: dict[str, PictureFaces | UnreadableError] = {}
            missing: dict[str, str | Path] = {}
            for path, content in zip(some, contents, strict=True):
                if not isinstance(content, UnreadableError) and content not in known:
                    stored = self._read(content)
                    if stored is not None:
                        known[content] = stored
                    else:
                        missing[content] = path
            known.update(self._embed(missing))
            for content in contents:
                yield content if isinstance(content, UnreadableError) else known[content]
            if progress is not None and missing:
                progress(start + len(some), len(paths))

    def _embed(self, paths: Mapping[str, str | Path]) -> dict[str, PictureFaces | UnreadableError]:
        """Embed files, fewer than 64, by their content, with the pixels of one batch in memory at a time."""
        found: dict[str, PictureFaces | UnreadableError] = {}
        waiting: dict[str, Pixels] = {}
        for number, (content, path) in enumerate(paths.items(), 1):
            pixels = _or_error(read_picture, path)
            if isinstance(pixels, UnreadableError):
                found[content] = pixels
            else:
                waiting[content] = pixels
            full = sum(one.nbytes for one in waiting.values()) >= MAX_CHUNK_BYTES
            if waiting and (full or number == len(paths)):
                for key, faces in zip(waiting, self.recipe.faces(list(waiting.values())), strict=True):
                    found[key] = faces
                    self._write(key, faces)
                waiting = {}
        return found

    def _file(self, content: str) -> Path:
        return self._folder / f"{content}.npz"

    def _read(self, content: str) -> PictureFaces | None:
        try:
            with open_file(self._file(content)) as file, np.load(file, allow_pickle=False) as stored:
                return PictureFaces(**{field.name: stored[field.name] for field in fields(PictureFaces)})
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return None  # missing or damaged: embed again

    def _write(self, content: str, faces: PictureFaces) -> None:
        with contextlib.suppress(OSError):  # without a writable cache it only takes longer
            self._folder.mkdir(parents=True, exist_ok=True)
            file = io.BytesIO()
            np.savez(file, **{field.name: getattr(faces, field.name) for field in fields(PictureFaces)})
            atomic_write(self._file(content), file.getvalue())


def _or_error(read: Callable[[str | Path], Any], path: str | Path) -> Any:
    try:
        return read(path)
    except UnreadableError as err:
        return err

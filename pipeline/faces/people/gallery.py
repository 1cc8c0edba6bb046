"""Galleries: pictures of known people, as rows to match faces with; from a folder, or from a file of its embeddings."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from pipeline.faces.people.pictures import (
    OTHER_SUFFIXES,
    SUFFIXES,
    PictureCache,
    Progress,
    Recipe,
    content_sha256,
    list_pictures,
)
from pipeline.files.regular import open_file
from pipeline.files.whole import written_whole
from pipeline.media.picture import UnreadableError
from pipeline.text import size

FORMAT = 1
"""Version of the format of gallery files."""
SHOWN_FILES = 5
_DAMAGE = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, MemoryError),
    *(zipfile.BadZipFile, zlib.error),
)
MAX_UNPACKED_BYTES = 4 << 30
"""Largest gallery file, unpacked: two million faces of 512 numbers. A packed file may be a thousandth of that."""


@dataclass(frozen=True)
class Gallery:
    """Known faces, in the order of their pictures."""

    path: str
    """Path of the folder or the file."""
    names: tuple[str, ...]
    """Name of the person of each row. Several rows may be one person's."""
    pictures: tuple[str, ...]
    """Path of each row's picture below the gallery's folder, with /."""
    box: npt.NDArray[np.float32]
    """float32 (n, 4): the face of each row in its picture: x, y, w, h in pixels."""
    embedding: npt.NDArray[np.float32]
    """float32 (n, d)."""
    model: str
    align: str
    keys: dict[str, str]
    """Resume keys of the stages that found and embedded these faces, without sampling."""
    sha256: str
    """Hash (hex) of the gallery's content: pictures, their paths, and which of their faces it uses."""
    all_faces: bool
    notes: tuple[str, ...] = ()
    """One line each on pictures that were left out, and on the face chosen among several."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def people(self) -> list[str]:
        """Distinct names, sorted."""
        return sorted(set(self.names))

    @property
    def person(self) -> npt.NDArray[np.int64]:
        """Index of each row's person in `people`, int64 (n,)."""
        return np.searchsorted(self.people, self.names)


def open_gallery(
    path: str | Path, recipe: Recipe, where: str, *, all_faces: bool = False, progress: Progress | None = None
) -> Gallery:
    """Return the gallery of a folder, embedded by the recipe of a store (`where`), or of a file that `save` wrote.

    It uses the largest face of a picture with several (a bystander must not become the person), or with `all_faces`
    every face, as DeepFace does; the notes say so. Raises InputError if no picture can be used, or if a file was made
    with another model than the store.
    """
    place = Path(path).expanduser()
    if not place.is_file():
        return _of_folder(place, recipe, all_faces, progress)
    gallery = load(place)
    if (gallery.model, gallery.align) != (recipe.model, recipe.align):
        raise InputError(
            f"the gallery {gallery.path} was embedded with {gallery.model} (align {gallery.align}), the faces of "
            f"{where} with {recipe.model} (align {recipe.align}); embed its pictures again: --gallery FOLDER"
        )
    if sorted(gallery.keys.values()) != sorted(recipe.keys.values()):  # stages may have other names
        raise InputError(
            f"the gallery {gallery.path} was embedded with {gallery.model}, as the faces of {where} were, but with "
            "other settings of detection or embedding; embed its pictures again: --gallery FOLDER"
        )
    if all_faces and not gallery.all_faces:
        raise InputError(
            f"the gallery {place} holds one face of each picture; save it again with --all-faces from the pictures"
        )
    return gallery


def gallery_sha256(path: str | Path, *, all_faces: bool = False) -> str:
    """Return the hash of a gallery's content, without a model. Raises InputError if there is none."""
    place = Path(path).expanduser()
    return load(place).sha256 if place.is_file() else _content_of(place, _pictures(place)[0], all_faces)


def _pictures(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return `list_pictures` of a gallery. Raises InputError if there is no such folder."""
    if not folder.is_dir():
        raise InputError(f"there is no gallery at {folder}; name a folder of pictures, one folder for each person")
    return list_pictures(folder)


def save(gallery: Gallery, path: str | Path) -> None:
    """Write a gallery to a file of plain arrays and JSON, for machines without its pictures. Raises UsageError."""
    kept = ("path", "names", "pictures", "model", "align", "keys", "sha256", "all_faces")
    facts = {"format": FORMAT, **{name: getattr(gallery, name) for name in kept}}
    text = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    with written_whole(path, "the gallery ") as file:
        np.savez_compressed(file, facts=text, box=gallery.box, embedding=gallery.embedding)


def load(path: str | Path) -> Gallery:
    """Return a gallery that `save` wrote. Raises InputError if the file is not one, or is damaged."""
    if Path(path).suffix.lower() in (*SUFFIXES, *OTHER_SUFFIXES):
        raise InputError(
            f"{path} is a picture; name a folder of pictures, one folder for each person, or look for it by --face"
        )
    try:
        with open_file(path) as file:
            if not zipfile.is_zipfile(file):  # NumPy would suggest to unpickle it
                raise ValueError("it is not an .npz file")
        with open_file(path) as file, np.load(file, allow_pickle=False) as stored:
            unpacked = sum(one.file_size for one in stored.zip.infolist())
            if unpacked > MAX_UNPACKED_BYTES:
                raise ValueError(f"it unpacks to {size(unpacked)}, the limit is {size(MAX_UNPACKED_BYTES)}")
            facts: dict[str, Any] = json.loads(stored["facts"].tobytes())
            box, embedding = (stored[name].astype(np.float32) for name in ("box", "embedding"))
        if facts["format"] != FORMAT:
            raise ValueError(f"its format is {facts['format']}, this reelgraph reads {FORMAT}")
        names, pictures = tuple(map(str, facts["names"])), tuple(map(str, facts["pictures"]))
        if not len(names) == len(pictures) == len(box) == len(embedding) > 0 or embedding.ndim != 2:
            raise ValueError("its arrays do not belong together")
        model, align, sha256 = (str(facts[name]) for name in ("model", "align", "sha256"))
        keys = {str(key): str(value) for key, value in facts["keys"].items()}
        return Gallery(
            str(path), names, pictures, box, embedding, model, align, keys, sha256, bool(facts["all_faces"]),
        )  # fmt: skip
    except _DAMAGE as err:
        raise InputError(
            f"{path} is not a gallery that --save-gallery wrote, or is damaged ({err}); "
            "write it again from the pictures, or name their folder"
        ) from err


def _of_folder(folder: Path, recipe: Recipe, all_faces: bool, progress: Progress | None) -> Gallery:
    pictures, others = _pictures(folder)
    if not pictures:
        other = f"; its {len(others)} pictures of other kinds must be converted" if others else ""
        raise InputError(f"the gallery {folder} holds no .jpg, .jpeg or .png{other}")
    notes = []
    if others:
        shown = ", ".join(path.name for path in others[:SHOWN_FILES]) + (", ..." if len(others) > SHOWN_FILES else "")
        notes.append(f"{folder}: {len(others)} pictures that are not JPEG or PNG are left out: {shown}")
    rows: list[tuple[str, str, npt.NDArray[np.float32], npt.NDArray[np.float32]]] = []
    for path, faces in zip(pictures, PictureCache(recipe).faces(pictures, progress), strict=True):
        if isinstance(faces, UnreadableError):
            notes.append(f"{faces}; left out")
            continue
        if not len(faces):
            notes.append(f"{path}: no face found; left out")
            continue
        taken: Sequence[int] = range(len(faces))
        if len(faces) > 1 and not all_faces:
            taken = [faces.largest]
            notes.append(
                f"{path}: {len(faces)} faces, the largest is used: {as_text(faces.box[taken[0]])}; "
                "use --all-faces for every face"
            )
        below = path.relative_to(folder)
        rows += [(name_of(below), below.as_posix(), faces.box[k], faces.embedding[k]) for k in taken]
    if not rows:
        raise InputError(
            f"no face was found in any of the {len(pictures)} pictures of the gallery {folder}; the first: {notes[0]}"
        )
    names, below_folder, box, embedding = zip(*rows, strict=True)
    return Gallery(
        str(folder), names, below_folder, np.stack(box), np.stack(embedding), recipe.model, recipe.align, recipe.keys,
        _content_of(folder, pictures, all_faces), all_faces, tuple(notes),
    )  # fmt: skip


def name_of(below: Path) -> str:
    """Return the person's name for a picture, by its path below the gallery.

    It is the folder's whole path below the gallery: a `Smith` of one department is not that of another. A picture that
    lies in the gallery itself gives its own name without the suffix.
    """
    return below.parent.as_posix() if len(below.parts) > 1 else below.stem


def as_text(box: Iterable[float]) -> str:
    """Return a box as users write it for --box: x,y,w,h."""
    return ",".join(str(round(float(side))) for side in box)


def _content_of(folder: Path, pictures: Sequence[Path], all_faces: bool) -> str:
    """Hash the content. Unreadable files count by their name: once they can be read the gallery is another."""
    listed: list[tuple[str, str]] = []
    for path in pictures:
        try:
            content = content_sha256(path)
        except UnreadableError:
            content = ""
        listed.append((path.relative_to(folder).as_posix(), content))
    return hashlib.sha256(json.dumps([listed, all_faces]).encode()).hexdigest()

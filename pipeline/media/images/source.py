"""Pictures: options, and the source that a plan cuts into chunks. Planning opens no picture but a few."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator, model_validator

from pipeline.engine.source import INVENTORY, MAX_CHUNK_BYTES, InputRef, Job, Loaded, Source, SourceOptions
from pipeline.errors import InputError
from pipeline.files.fingerprint import fingerprint, fingerprint_of_folder
from pipeline.machine.memory import MEMORY
from pipeline.media.images import collections, copies
from pipeline.media.images.collections import COMPRESSED_TARS, HDF5, TABLE, TAR, ZARR, Collection, FilesOf
from pipeline.media.images.copies import LISTED, Inventory
from pipeline.media.images.folders import UNREAD_FOLDERS, is_folder
from pipeline.media.images.names import Names, text
from pipeline.media.images.pictures import Pictures
from pipeline.media.images.reading import SUFFIXES, Geometry, Picture, declared_size, fitted, read
from pipeline.media.images.shelves import Content, Shelf
from pipeline.media.inputs import VIDEO_SUFFIXES, refuse_url
from pipeline.media.picture import UnreadableError, too_large
from pipeline.store.read import RunInput
from pipeline.store.schema import DECODED, ORIGIN, SCALE, Array
from pipeline.text import plural

LEAST_PICTURES, MOST_PICTURES = 64, 512
"""Pictures of a chunk: 8 million make 15,625 commits, and a few thousand enough chunks for many workers."""
_SHARES = 64
"""Chunks that an input is cut into before they grow beyond LEAST_PICTURES."""
_LOOKED_AT = 16
"""Pictures, spread over the input, whose headers say how large pictures are there."""
_USUAL_SIZE = 2400, 1600
"""Width and height of a picture, if none of them says how large it is."""
_COMPARED = 1000
"""Pictures, spread over an input, whose sizes and times say whether a folder is one that the store has."""
MOVABLE = ("folder", "list")
_ZARR_FILES = "zarr.json", ".zgroup", ".zarray"

NAME = Array("name", ("frame",), "string", (), {"description": "name of the picture within its input"})
WIDTH = Array(
    "width", ("frame",), "int32", (), {"units": "pixel", "description": "of the upright picture; -1 if not decoded"}
)
HEIGHT = Array(
    "height", ("frame",), "int32", (), {"units": "pixel", "description": "of the upright picture; -1 if not decoded"}
)
FILE_BYTES = Array("file_bytes", ("frame",), "int64", (), {"units": "byte", "description": "-1 if not a file"})
MODIFIED = Array(
    "modified_seconds", ("frame",), "float64", (),
    {"units": "s", "description": "time of the file's last change when it was read, since 1970; NaN if not a file"},
)  # fmt: skip
ERROR = Array("error", ("frame",), "string", (), {"description": "why the picture could not be read; else empty"})


class ImagesOptions(SourceOptions):
    """The size of pictures, and what is read in files that hold many."""

    resize: int | tuple[int, int] | None = Field(
        None, description="bring every picture to this shortest side, or to this width and height (pixels)"
    )
    longest: int | None = Field(None, ge=1, description="shrink pictures whose longest side is longer (pixels)")
    crop: int | tuple[int, int] | None = Field(
        None, description="keep the middle: a square of this side, or width and height (pixels)"
    )
    array: str | None = Field(
        None, description="HDF5, Zarr: the array of pictures; Parquet: the column (default: the only one there is)"
    )
    names: str | None = Field(
        None, description="HDF5, Zarr, Parquet: the array or column of their names (default: numbers)"
    )

    duplicates: Literal["compute", "once"] = Field(
        "compute", description="once: of files with equal content, also those of earlier runs, the first is computed; "
        "exports of features have all",
    )  # fmt: skip

    @field_validator("resize", "crop")
    @classmethod
    def _check_sides(cls, sides: int | tuple[int, int] | None) -> int | tuple[int, int] | None:
        if sides is not None and min(np.atleast_1d(sides)) < 1:
            raise ValueError(f"{sides} must be 1 pixel or more")
        return sides

    @model_validator(mode="after")
    def _check_size(self) -> ImagesOptions:
        if self.resize is not None and self.longest is not None:
            raise ValueError("resize and longest exclude each other; keep one")
        size, crop = self.resize, self.geometry.crop
        for sides in (size, crop):
            why = too_large(*(sides if isinstance(sides, tuple) else (sides, sides))) if sides is not None else None
            if why is not None:
                raise ValueError(f"a picture of {sides} {why}")
        if isinstance(size, tuple) and crop is not None and (crop[0] > size[0] or crop[1] > size[1]):
            raise ValueError(f"crop {crop} is larger than resize {size}")
        return self

    def keyed(self) -> dict[str, Any]:
        """Leave out the choice of pictures unless it is made."""
        kept = super().keyed()
        return {name: value for name, value in kept.items() if (name, value) != ("duplicates", "compute")}

    @property
    def geometry(self) -> Geometry:
        crop = (self.crop, self.crop) if isinstance(self.crop, int) else self.crop
        return Geometry(self.resize, self.longest, crop)


@dataclass(frozen=True)
class ImagesRef(InputRef):
    """One input of pictures, before it is opened."""

    files: tuple[str, ...] = ()
    """Paths of the pictures, if they were named one by one."""
    later: FilesOf | None = None
    """Pictures that came later to an input that is stored."""
    folders: tuple[str, ...] = ()
    """Folders that the names of its stored parts are relative to: what a glob matches may have another one now."""


@dataclass(frozen=True)
class ImagesJob(Job):
    """All that is needed to load the pictures of one chunk."""

    shelf: Shelf
    geometry: Geometry
    most_bytes: int = MAX_CHUNK_BYTES
    """Decoded pictures that are held at once; what goes beyond is decoded again when it is asked for."""

    def load(self, threads: int = 1) -> Loaded:
        """Load the pictures: one array if all have one size, else a sequence."""
        n, size = len(self.shelf), self.geometry.size
        at_once = MEMORY.take((n, size[1], size[0], 3)) if size else None
        kept: dict[int, np.ndarray] = {}
        decoded = np.zeros(n, bool)
        width, height = np.full(n, -1, np.int32), np.full(n, -1, np.int32)
        origin, scale = np.zeros((n, 2), np.float32), np.ones((n, 2), np.float32)
        error = np.full(n, "", object)
        state = [self.shelf.state(row) for row in range(n)]
        held = 0
        for row, picture in enumerate(self._pictures(threads)):
            if isinstance(picture, UnreadableError):
                error[row] = str(picture)
                if at_once is not None:
                    at_once[row] = 0
                else:
                    kept[row] = np.zeros((1, 1, 3), np.uint8)
                continue
            decoded[row] = True
            width[row], height[row] = picture.size
            origin[row], scale[row] = picture.origin, picture.scale
            if at_once is not None:
                at_once[row] = picture.pixels
            elif held + picture.pixels.nbytes <= self.most_bytes:
                held += picture.pixels.nbytes
                kept[row] = picture.pixels
        found = {WIDTH.name: width, HEIGHT.name: height, ERROR.name: error, ORIGIN.name: origin, SCALE.name: scale}
        found |= {FILE_BYTES.name: np.array([size for size, _ in state], np.int64)}
        found |= {MODIFIED.name: np.array([seconds for _, seconds in state], np.float64)}
        pictures = Pictures(range(n), kept, self._again) if at_once is None else at_once
        return Loaded({"frames_rgb": pictures, **found}, decoded, is_final=True)

    def _pictures(self, threads: int) -> Iterator[Picture | UnreadableError]:
        """Yield each picture in order; as many are decoded at once as there are threads."""
        contents = self.shelf.contents()
        if threads <= 1:
            yield from map(self._decoded, contents)
            return
        with ThreadPoolExecutor(threads, thread_name_prefix="pictures") as pool:
            waiting = [pool.submit(self._decoded, content) for content in islice(contents, 2 * threads)]
            while waiting:
                yield waiting.pop(0).result()
                waiting += [pool.submit(self._decoded, content) for content in islice(contents, 1)]

    def _decoded(self, content: Content | UnreadableError) -> Picture | UnreadableError:
        if isinstance(content, UnreadableError):
            return content
        try:
            return fitted(content, self.geometry) if isinstance(content, np.ndarray) else read(content, self.geometry)
        except UnreadableError as err:
            return err

    def _again(self, row: int) -> np.ndarray:
        picture = self._decoded(self.shelf.content(row))
        if isinstance(picture, UnreadableError):
            raise picture
        return picture.pixels


@dataclass
class ImagesSource(Source):
    """The pictures of one input: a folder, a list, a tar file, an array or a table of them."""

    kind: ClassVar[str] = "images"
    noun: ClassVar[str] = "picture"
    Options: ClassVar[type[SourceOptions]] = ImagesOptions
    arrays: ClassVar[tuple[Array, ...]] = (NAME,)
    collection: Collection
    options: ImagesOptions
    chunk_items: int | None = None
    """Pictures of a chunk in the store; None for a new input."""

    @classmethod
    def found(cls, options: SourceOptions) -> tuple[Array, ...]:
        assert isinstance(options, ImagesOptions)
        return (WIDTH, HEIGHT, FILE_BYTES, MODIFIED, ERROR, *(() if options.geometry.is_whole else (ORIGIN, SCALE)))

    @classmethod
    def find(cls, inputs: Sequence[str], options: SourceOptions) -> Iterator[InputRef]:
        """Yield the inputs: each folder, list, tar file, array or table; pictures named one by one are one input."""
        if not inputs:
            raise InputError("no input: name a folder of pictures, pictures, a glob, a list, a tar file or a table")
        loose: list[str] = []
        found: dict[str, InputRef] = {}
        for given in inputs:
            for path in _matching(given):
                if path.startswith("@") or Path(path).suffix.lower() in (".txt", ".lst"):
                    name = _absolute(path.removeprefix("@"))
                    found[name] = InputRef(name, Path(name).stem)
                elif is_folder(path) or _is_container(path):
                    found[path] = InputRef(path, Path(path).stem if _is_container(path) else Path(path).name)
                else:
                    loose.append(path)
        if loose and not found and all(Path(path).suffix.lower() in VIDEO_SUFFIXES - SUFFIXES for path in loose):
            raise InputError(f"{loose[0]} is a video, not a picture: {collections.FOR_VIDEOS}")
        yield from found.values()
        if loose:
            yield _of_loose(list(dict.fromkeys(loose)), inputs)

    @classmethod
    def open(cls, ref: InputRef, options: SourceOptions, stored: Mapping[str, Any] | None) -> ImagesSource:
        assert isinstance(options, ImagesOptions)
        stored = stored or {}
        _check_list(ref, stored)
        collection = _collection(ref, options, stored)
        if options.duplicates == "once" and INVENTORY not in stored and isinstance(collection, FilesOf):
            collection = collection.without_copies()
        return cls(collection, options, stored.get("chunk_frames"))

    @classmethod
    def is_stored(cls, ref: InputRef, stored: Mapping[str, Any]) -> bool:
        known = stored.get("fingerprint")
        return known == cls.fingerprint(ref) or (_is_zarr(ref.path) and known == _of_metadata(ref.path))

    @classmethod
    def moved(
        cls, ref: InputRef, options: SourceOptions, lost: Mapping[str, RunInput]
    ) -> tuple[str, Mapping[str, Any]] | None:
        """Return the stored file with the content of this one; or the folder or list whose pictures are there.

        At least half of them must be there. Their sizes and times are compared: cameras give other pictures the same
        names. Those of an input that is not complete are not known.
        """
        assert isinstance(options, ImagesOptions)
        if _is_container(ref.path):
            now = cls.fingerprint(ref)
            return next(((name, {}) for name, one in lost.items() if one.attributes["fingerprint"] == now), None)
        listed = {name: one for name, one in lost.items() if one.complete and one.attributes["container"] in MOVABLE}
        files = _collection(ref, options, {}) if listed else None
        if not isinstance(files, FilesOf) or files.kind not in MOVABLE:
            return None
        return next(((name, {"folder": files.folder}) for name, one in listed.items() if _are_of(one, files)), None)

    @classmethod
    def as_stored(cls, ref: InputRef, parts: Sequence[Mapping[str, Any]]) -> InputRef:
        folders = tuple(str(part.get("folder", "")) for part in parts)
        files = ref.files if isinstance(ref, ImagesRef) else ()
        return ImagesRef(ref.path, ref.name, files=files, folders=folders)

    @classmethod
    def grown(cls, ref: InputRef, options: SourceOptions, stored: Mapping[str, Any]) -> InputRef | None:
        """Return None: only files grow, and these have a list. Raises StoreError if the store has lost it."""
        _check_list(ref, stored)
        return None

    @classmethod
    def recognised(
        cls, ref: InputRef, options: SourceOptions, stored: Sequence[bytes],
        reads: Sequence[Callable[[str], np.ndarray] | None],
    ) -> tuple[list[bytes], int]:  # fmt: skip
        """Add new pictures with the content of stored ones to those as copies, if they are to be computed once.

        Copies of pictures that changed before they were computed are new again.
        """
        assert isinstance(options, ImagesOptions)
        stored = list(stored)
        if options.duplicates == "compute" or not isinstance(now := _collection(ref, options, {}), FilesOf):
            return stored, 0
        parts = [Inventory.of_store(ref.path, content) for content in stored]
        for at, rows_of in enumerate(reads):
            if rows_of is not None and len(parts[at].copies):
                valid = parts[at].as_computed(rows_of(MODIFIED.name))
                if valid is not parts[at]:
                    parts[at], stored[at] = valid, valid.packed()
        if any(folder != now.folder for folder in _folders(ref, now, len(parts))):  # a glob that matches elsewhere now
            return stored, 0
        names = now.names.not_in(Names(b"".join(part.all_names.joined for part in parts)))
        new, count = copies.Newcomers(now.folder, names), 0
        for at, (part, rows_of) in enumerate(zip(parts, reads, strict=True)):
            if rows_of is not None and len(names):
                joined = new.joined_to(part, rows_of(FILE_BYTES.name), rows_of(MODIFIED.name))
                count += len(joined.copies) - len(part.copies)
                stored[at] = stored[at] if joined is part else joined.packed()
        return stored, count

    @classmethod
    def later(
        cls, ref: InputRef, options: SourceOptions, stored: Sequence[bytes]
    ) -> tuple[InputRef | None, str | None]:
        """Return the pictures that are new in a folder or a list, and how many of the stored ones are gone."""
        assert isinstance(options, ImagesOptions)
        now = _collection(ref, options, {})
        if not isinstance(now, FilesOf):
            return None, None
        parts = [Inventory.of_store(ref.path, content).all_names for content in stored]
        folders = _folders(ref, now, len(parts))
        names = now.names
        if any(folder != now.folder for folder in folders):
            names = names.within(now.folder)
            parts = [part.within(folder) for part, folder in zip(parts, folders, strict=True)]
        if len(parts) == 1 and parts[0].joined == names.joined:
            return None, None
        known = Names(b"".join(part.joined for part in parts))
        new, gone = now.names.chosen(names.absent_from(known)), int(known.absent_from(names).sum())
        told = f"{ref.path}: {plural(gone, 'picture')} of the store {'is' if gone == 1 else 'are'} no longer there"
        later = FilesOf(now.path, now.kind, now.folder, new)
        return (
            ImagesRef(ref.path, ref.name, later=later) if len(new) else None,
            f"{told}; what was found in them stays" if gone else None,
        )

    @classmethod
    def gone(
        cls, ref: InputRef, options: SourceOptions, stored: bytes, read: Callable[[str], np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, bytes] | None:
        """Return the pictures that are no longer in a folder or a list, and those to read again.

        These are files with another size or time, and those that could not be read and now can. Then a reader was not
        installed, or permissions were wrong.
        """
        assert isinstance(options, ImagesOptions)
        now = _collection(ref, options, {})
        if not isinstance(now, FilesOf):
            return None
        known, (folder,) = Inventory.of_store(ref.path, stored), _folders(ref, now, 1)
        sizes, times = read(FILE_BYTES.name), read(MODIFIED.name)
        inventory = known.as_computed(times)
        names, originals = inventory.names, inventory.originals
        absent, absent_copies = (_absent(of, folder, now) for of in (names, inventory.copies))
        if (absent.any() or absent_copies.any()) and UNREAD_FOLDERS in now.passed.counts:
            raise InputError(f"{ref.path} has folders that cannot be read; nothing is removed from the store")
        size, modified = copies.states(folder, names)
        changed = (size != sizes) | (np.nan_to_num(modified) != np.nan_to_num(times))
        lost = ~read(DECODED.name) & ~absent & ~changed
        files = FilesOf(now.path, now.kind, folder, names.chosen(lost))
        job = ImagesJob(files.shelf(0, len(files)), options.geometry)
        changed[lost] = [isinstance(picture, Picture) for picture in job._pictures(1)]
        size, modified = copies.states(folder, inventory.copies)
        same = (size == sizes[originals]) & (modified == inventory.modified_seconds) & ~absent_copies
        stays = ~(absent | changed)
        absent[originals[~absent_copies]] = False  # not gone, but to be read again by the name of its copy
        as_stored = inventory is known and stays.all() and same.all()
        return absent, ~(stays | absent), stored if as_stored else inventory.chosen(stays, same).packed()

    @classmethod
    def fingerprint(cls, ref: InputRef) -> str:
        """Return a digest of a file's content. Folders and lists may change: the store has the names of theirs."""
        if not _is_container(ref.path):
            return "a list of names"
        return fingerprint_of_folder(ref.path) if _is_zarr(ref.path) else fingerprint(Path(ref.path))

    def __post_init__(self) -> None:
        geometry = self.options.geometry
        size = geometry.size
        self.most_items = min(MOST_PICTURES, max(LEAST_PICTURES, len(self) // _SHARES))
        self.item_bytes = size[0] * size[1] * 3 if size else self._usual_bytes(geometry)
        told = [self.collection.passed.told(), self._told_of_copies(), self._told_of_choices()]
        self.note = "; ".join(filter(None, told)) or None
        folder = self.collection.folder if isinstance(self.collection, FilesOf) else None
        self.facts = {
            "path": self.collection.path,
            "container": self.collection.kind,
            **({"folder": folder} if folder else {}),
            **({"passed_over": dict(self.collection.passed.counts)} if self.collection.passed.counts else {}),
        }

    def _told_of_copies(self) -> str | None:
        """Return a line on pictures that are not computed, None if there are none."""
        if self.options.duplicates == "compute":
            return None
        if not isinstance(self.collection, FilesOf):
            return f"duplicates: once compares files; the pictures in {self.collection.path} are all computed"
        count = len(self.collection.inventory.copies)
        return f"{plural(count, 'picture')} with the content of another: computed once" if count else None

    def _told_of_choices(self) -> str | None:
        """Return a line on options that this input has no use for, None if there are none."""
        given = [name for name in ("array", "names") if getattr(self.options, name) is not None]
        if isinstance(self.collection, collections.Arrays | collections.Table) or not given:
            return None
        do = f"{' and '.join(given)} {'does' if len(given) == 1 else 'do'} nothing"
        return f"{do} for {self.collection.path}: HDF5, Zarr and Parquet files have arrays"

    def _usual_bytes(self, geometry: Geometry) -> int:
        """Return the bytes of the largest of a few pictures; those of chunks that are stored are not asked again."""
        if self.chunk_items is not None:
            return MAX_CHUNK_BYTES // self.chunk_items
        largest = 0
        for at in np.unique(np.linspace(0, len(self) - 1, _LOOKED_AT).astype(np.int64)).tolist():
            try:
                content = self.collection.shelf(at, at + 1).content(0)
            except (OSError, UnreadableError):
                continue
            size = declared_size(content) if isinstance(content, bytes) else content.shape[1::-1]
            if size is not None:
                width, height = geometry.resized(*size)
                largest = max(largest, width * height * 3)
        width, height = geometry.resized(*_USUAL_SIZE)
        return min(largest or width * height * 3, MAX_CHUNK_BYTES)

    def inventory(self) -> bytes | None:
        return self.collection.inventory.packed() if isinstance(self.collection, FilesOf) else None

    def __len__(self) -> int:
        return len(self.collection)

    def values(self, start: int, stop: int) -> dict[str, np.ndarray]:
        names = np.empty(stop - start, object)
        names[:] = [text(name) for name in self.collection.names[start:stop]]
        return {NAME.name: names}

    def job(self, start: int, stop: int) -> ImagesJob:
        return ImagesJob(self.collection.shelf(start, stop), self.options.geometry)

    def where(self, start: int, stop: int) -> str:
        """Return the names of the first and the last picture."""
        first, last = (text(self.collection.names[at]) for at in (start, stop - 1))
        return first if start == stop - 1 else f"{first} to {last}"

    @property
    def description(self) -> str:
        return f"{self.collection.kind} of pictures"


def _matching(given: str) -> list[str]:
    """Return what one word names: a path, or what a glob matches. Raises InputError."""
    if given in ("", "@"):  # a shell variable that is not set; as a path it would be the whole working directory
        raise InputError("an input is empty; name a folder of pictures, or . for the folder you are in")
    if given.startswith("@"):
        return [given]
    path = _absolute(given)
    if os.path.lexists(path):
        return [path]
    refuse_url(given)
    if glob.has_magic(given):
        found = sorted(glob.glob(path, recursive=True))
        if not found:
            raise InputError(f"no file matches {given!r} in {os.getcwd()}; check the pattern (** searches subfolders)")
        return found
    raise InputError(f"no such file or folder: {path}; check the spelling")


def _absolute(given: str) -> str:
    """Return an absolute path in one spelling, since a store knows its inputs by their paths."""
    path = Path(given).expanduser()
    if path.name == "..":
        return str(path.resolve())
    return str(path.parent.resolve() / path.name if ".." in path.parts else path.absolute())


def _is_container(path: str) -> bool:
    """Return whether a path is one file, or one Zarr store, of many pictures. A folder may have any name."""
    lower = path.lower()
    if is_folder(path):
        return _is_zarr(path)
    return lower.endswith((TAR, TABLE, ZARR, *HDF5, *COMPRESSED_TARS)) and os.path.exists(path)


def _is_zarr(path: str) -> bool:
    return path.lower().endswith(ZARR) and any(os.path.lexists(f"{path}/{name}") for name in _ZARR_FILES)


def _of_metadata(path: str) -> str | None:
    """Return the fingerprint that earlier versions stored of a Zarr store; None if they could not."""
    metadata = Path(path, "zarr.json")
    return fingerprint(metadata) if metadata.exists() else None


def _are_of(stored: RunInput, files: FilesOf) -> bool:
    """Return whether files are those of a stored input, by their names, sizes and times."""
    names = Inventory.of_store(stored.name, stored.inventory() or b"").names
    there = ~names.absent_from(files.names)
    if not len(there) or 2 * np.count_nonzero(there) < len(there):
        return False
    looked_at = np.zeros(len(there), bool)
    looked_at[np.linspace(0, len(there) - 1, _COMPARED).astype(np.int64)] = True
    looked_at &= there
    size, modified = copies.states(files.folder, names.chosen(looked_at))
    is_same = size == stored.array(FILE_BYTES.name)[looked_at]
    return bool(is_same.all() and (modified == stored.array(MODIFIED.name)[looked_at]).all() and is_same.any())


def _folders(ref: InputRef, now: FilesOf, parts: int) -> tuple[str, ...]:
    """Return the folder that the names of each stored part are relative to."""
    known = ref.folders if isinstance(ref, ImagesRef) else ()
    return tuple(folder or now.folder for folder in known or ("",) * parts)


def _check_list(ref: InputRef, stored: Mapping[str, Any]) -> None:
    """Raise StoreError if the store has lost the list of an input's pictures."""
    if stored.get("container") in LISTED and INVENTORY not in stored:
        Inventory.of_store(ref.path, None)


def _absent(names: Names, folder: str, now: FilesOf) -> npt.NDArray[np.bool_]:
    """Return bool (names,): true for names relative to a folder that are not among the pictures any more."""
    if folder == now.folder:
        return names.absent_from(now.names)
    return names.within(folder).absent_from(now.names.within(now.folder))


def _of_loose(paths: list[str], inputs: Sequence[str]) -> ImagesRef:
    """Return pictures that were named one by one as one input. A glob is the same input whatever it matches."""
    globs = [given for given in inputs if glob.has_magic(given)]
    matched = _absolute(globs[0]) if len(inputs) == 1 and globs else None
    if len(paths) == 1:
        return ImagesRef(matched or paths[0], Path(paths[0]).stem, files=tuple(paths))
    folder = os.path.commonpath([os.path.dirname(path) for path in paths])
    digest = hashlib.blake2b("\0".join(paths).encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()
    path = matched or f"{folder}/({len(paths)} files, {digest})"
    return ImagesRef(path, Path(folder).name or "pictures", files=tuple(paths))


def _collection(ref: InputRef, options: ImagesOptions, stored: Mapping[str, Any]) -> Collection:
    """Open an input, with the names that the store has of it if it is there."""
    path = ref.path
    if INVENTORY in stored:
        inventory = Inventory.of_store(path, stored[INVENTORY])
        return FilesOf(path, stored["container"], stored["folder"], inventory.names, inventory=inventory)
    if isinstance(ref, ImagesRef) and ref.later is not None:
        return FilesOf(path, ref.later.kind, ref.later.folder, ref.later.names)
    if isinstance(ref, ImagesRef) and ref.files:
        folder = os.path.commonpath([os.path.dirname(file) for file in ref.files])
        names = Names.of(os.fsencode(os.path.relpath(file, folder)) for file in ref.files)
        return FilesOf(path, "files", folder, names)
    if is_folder(path) and not _is_container(path):
        return collections.of_folder(path)
    lower = path.lower()
    if lower.endswith(COMPRESSED_TARS):
        raise InputError(f"{path}: a compressed tar file has no place to begin in the middle; unpack it to .tar first")
    if lower.endswith(TAR):
        return collections.Tar(path)
    if lower.endswith(TABLE):
        return collections.Table(path, options.array, options.names)
    if lower.endswith(HDF5):
        return collections.Arrays(path, "hdf5", options.array, options.names)
    if lower.endswith(ZARR):
        return collections.Arrays(path, "zarr", options.array, options.names)
    return collections.of_list(path)

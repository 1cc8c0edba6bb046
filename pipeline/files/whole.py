"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from pipeline.errors import UsageError

PARTIAL = ".partial"
"""Ending of files that are being written; the same as zarr's own, so that one sweep finds both."""


def atomic_write(path: str | Path, *pieces: bytes | memoryview, flush: bool = False) -> None:
    """Write a file aside, then replace: readers see the old content or the new, never a part. Raises OSError.

    With `flush` both survive a power cut: the content is on the disk before the file has its name, and the name is on
    the disk before this returns.
    """
    aside = f"{path}.{uuid.uuid4().hex}{PARTIAL}"
    try:
        with open(aside, "wb") as file:
            file.writelines(pieces)
            if flush:
                file.flush()
                os.fsync(file.fileno())
        os.replace(aside, path)
        if flush:
            _flush_folder(os.path.dirname(path))
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        raise


def put_in_place(aside: str | Path, place: str | Path) -> None:
    """Give a file that was written aside its name, and flush both to the disk. Raises OSError."""
    descriptor = os.open(aside, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(aside, place)
    _flush_folder(os.path.dirname(place))


def _flush_folder(folder: str) -> None:
    """Flush a folder's list of names. Some network file systems refuse to; their rename is as safe as they make it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder or ".", os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def flush_tree(folder: str | Path) -> None:
    """Flush all files below a folder to the disk, and the names that lead to them. Raises OSError."""
    for top, _, names in os.walk(folder, topdown=False):
        for name in names:
            descriptor = os.open(os.path.join(top, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        _flush_folder(top)
    _flush_folder(os.path.dirname(os.fspath(folder)))


def made_folder(folder: Path, file: str | Path = "") -> None:
    """Make a folder that a user asks for, or that of a file. Raises OSError, and UsageError if it is in a store."""
    refuse_in_store(folder, file)
    folder.mkdir(parents=True, exist_ok=True)


def refuse_in_store(path: str | Path, named: str | Path = "") -> None:
    """Raise UsageError if a path is a store, or lies in one: `run --fresh` deletes all that a store holds.

    `named`: what the message names in place of the path.
    """
    place = Path(os.path.realpath(path))
    for one in (place, *place.parents):
        with contextlib.suppress(OSError):
            if b'"reelgraph"' in (one / "zarr.json").read_bytes():
                raise UsageError(f"{named or path} is inside the store {one}; choose another place")


@contextlib.contextmanager
def written_whole(path: str | Path, what: str = "") -> Iterator[IO[bytes]]:
    """A file beside the one that is wanted, put in its place at the end, and removed on failure. Its folder is made.

    Raises UsageError if it cannot be written; `what` says in the message what it is to be, "the table ".
    """
    place = Path(path).expanduser()
    aside = place.with_name(f"{place.name}.{os.getpid()}{PARTIAL}")
    if place.exists() and not (place.is_file() or place.is_dir()):
        raise UsageError(f"{what}{place} is a pipe, a socket or a device; choose another file")
    try:
        with errors_of(place, what):
            refuse_in_store(place, f"{what}{place}")
            place.parent.mkdir(parents=True, exist_ok=True)
            _remove_left_over(place)
            with aside.open("wb") as file:
                with contextlib.suppress(OSError):  # a file system without locks
                    _lock(file)
                yield file
            os.replace(aside, place)
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def _remove_left_over(place: Path) -> None:
    """Remove what killed processes wrote aside: the lock of a process ends with it."""
    for path in place.parent.glob(f"{glob.escape(place.name)}.*{PARTIAL}"):
        if path.name.removeprefix(f"{place.name}.").removesuffix(PARTIAL).isdigit():
            with contextlib.suppress(OSError), path.open("r+b") as file:
                _lock(file)
                path.unlink()


def _lock(file: IO[bytes]) -> None:
    """Lock a file until it is closed. Raises OSError if another process has locked it."""
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def errors_of(place: str | Path, what: str = "") -> Iterator[None]:
    """Raise UsageError, which names the file, for an error of the disk that it is written to."""
    try:
        yield
    except BrokenPipeError:  # not of this file
        raise
    except OSError as err:
        raise UsageError(f"{what}{place} cannot be written: {err.strerror or err}; choose another file") from err


def _plain(value: Any) -> Any:
    """NumPy scalars and arrays, paths: what facts and records tend to carry without meaning to."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{value!r} ({type(value).__name__}) cannot be stored as JSON")


def to_json(content: Any) -> bytes:
    return json.dumps(content, default=_plain, separators=(",", ":")).encode()

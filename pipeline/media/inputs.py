"""Turn the user's inputs (files, folders, globs, list files) into the list of files to analyse."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.errors import InputError
from pipeline.files.regular import read_file

VIDEO_SUFFIXES = frozenset({
    ".3gp", ".asf", ".avi", ".flv", ".gif", ".h264", ".h265", ".hevc", ".ivf", ".m2ts", ".m4v", ".mjpeg", ".mjpg",
    ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv", ".y4m",
})  # fmt: skip


def expand(inputs: Sequence[str]) -> list[Path]:
    """Return the absolute paths of the files that `inputs` name, in the given order, each once.

    An input is a file, a folder (searched recursively for videos, sorted), a glob, or a list. A list is `@list`, or a
    `.txt` / `.lst` file, with one input per line, # for comments, relative to the list file.

    Raises InputError for a missing file, a folder or glob without files, an empty list, no inputs.
    """
    if not inputs:
        raise InputError("no input: name at least one video file, folder, glob or @list.txt")
    found = (path for given in inputs for path in _expand_one(given, Path.cwd(), ()))
    return list(dict.fromkeys(found))


def _expand_one(given: str, base: Path, lists: tuple[Path, ...]) -> Iterator[Path]:
    """Yield the files of one input. `lists` are the list files that contain it, outermost first."""
    if not given:  # a shell variable that is not set; as a path it would be the whole working directory
        raise InputError("an input is empty; name a video file, or . for the folder you are in")
    if given.startswith("@"):
        yield from _read_list(_resolve(given[1:], base), lists)
        return
    path = _resolve(given, base)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = 0
    except OSError as err:  # no permission, a loop of links, a name too long
        raise InputError(f"{path}{_within(lists)} cannot be reached: {err.strerror}") from err
    if stat.S_ISDIR(mode):
        yield from _search_folder(path)
    elif mode:
        if path.suffix.lower() in (".txt", ".lst"):
            yield from _read_list(path, lists)
        else:
            yield path
    elif glob.has_magic(given):
        matches = sorted(glob.glob(str(path), recursive=True))
        files = [Path(match) for match in matches if Path(match).is_file()]
        if not files:
            raise InputError(f"no file matches {given!r} in {base}; check the pattern (** searches subfolders)")
        yield from files
    else:
        link = f", a link to {path.readlink()}, which does not exist" if path.is_symlink() else ""
        raise InputError(f"no such file or folder: {path}{link}{_within(lists)}; check the spelling")


def _resolve(given: str, base: Path) -> Path:
    """Return an absolute path in one spelling, since a store knows its inputs by their paths."""
    path = base / Path(given).expanduser()
    return path.parent.resolve() / path.name if ".." in path.parts else Path(path.absolute())


def _within(lists: tuple[Path, ...]) -> str:
    return f" (named in {lists[-1]})" if lists else ""


def _search_folder(folder: Path) -> list[Path]:
    if not os.access(folder, os.R_OK | os.X_OK):
        raise InputError(f"folder {folder} cannot be read: permission denied; ask its owner, or name the files")
    videos = sorted(p for p in folder.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())
    if not videos:
        raise InputError(f"no videos in folder {folder}; a video ends in {' '.join(sorted(VIDEO_SUFFIXES))}")
    return videos


def _read_list(path: Path, lists: tuple[Path, ...]) -> Iterator[Path]:
    if path in lists:
        raise InputError(f"list {path} contains itself; remove that line")
    try:
        text = read_file(path).decode("utf-8-sig")  # some editors begin a file with a byte order mark
    except UnicodeDecodeError as err:
        raise InputError(f"list {path} is not UTF-8 text; a list holds one path per line") from err
    except OSError as err:
        raise InputError(f"list {path} cannot be read: {err.strerror}") from err
    lines = [line.strip() for line in text.splitlines()]
    named = [line for line in lines if line and not line.startswith("#")]
    if not named:
        raise InputError(f"list {path} is empty; write one path per line")
    for line in named:
        yield from _expand_one(line, path.parent, (*lists, path))

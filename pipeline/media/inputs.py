"""Turn the user's inputs (files, folders, globs, list files) into the list of files to analyse."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.errors import InputError
from pipeline.files.regular import read_file
from pipeline.text import plural, without_secrets

VIDEO_SUFFIXES = frozenset({
    ".264", ".265", ".266", ".360", ".3g2", ".3gp", ".3gp2", ".3gpp", ".amv", ".asf", ".av1", ".avc", ".avi", ".bik",
    ".cine", ".dav", ".divx", ".dv", ".dvr-ms", ".evo", ".f4v", ".flc", ".fli", ".flv", ".gif", ".gxf", ".h264",
    ".h265", ".h266", ".hevc", ".insv", ".ismv", ".ivf", ".lrv", ".m1v", ".m2p", ".m2t", ".m2ts", ".m2v", ".m4v",
    ".mj2", ".mjpeg", ".mjpg", ".mk3d", ".mkv", ".mod", ".mov", ".mp2v", ".mp4", ".mp4v", ".mpe", ".mpeg", ".mpeg1",
    ".mpeg2", ".mpeg4", ".mpg", ".mpg2", ".mpg4", ".mpv", ".mpv2", ".mts", ".mxf", ".nsv", ".nut", ".obu", ".ogm",
    ".ogv", ".ogx", ".pva", ".qt", ".rm", ".rmvb", ".tod", ".tp", ".trp", ".ts", ".vc1", ".vob", ".vro", ".vvc",
    ".webm", ".wm", ".wmv", ".wtv", ".xvid", ".y4m",
})  # fmt: skip
_UNREAD_SUFFIXES = frozenset({".ari", ".arx", ".braw", ".crm", ".r3d", ".swf", ".yuv"})
"""Endings of films that FFmpeg has no decoder for."""
_SOURCE_CODE_SUFFIXES = frozenset({".mod", ".ts"})
"""Endings that TypeScript and Go also use for text; no video of these endings is without a byte of 0."""
SYSTEM_FOLDERS = re.compile(
    r"\.Trash.*|\$RECYCLE\.BIN|RECYCLER|\.Spotlight-.*|\.fseventsd|\.TemporaryItems|\.DocumentRevisions-.*|"
    r"\.AppleDouble|__MACOSX|System Volume Information|@eaDir|@Recycle|#recycle|lost\+found",
    re.IGNORECASE,
)
"""Names of folders that systems and storage servers make for trash, indexes and thumbnails."""
_APPLE_DOUBLE = b"\x00\x05\x16\x07"
"""First bytes of a file that holds what macOS notes about another file (`._clip.mp4`; RFC 1740)."""
_IVF = b"DKIF"
"""First bytes of a video of the ending .ivf, which faiss also gives to the lists of an index of faces."""
_URL = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)


def expand(inputs: Sequence[str], note: Callable[[str], object] = str) -> list[Path]:
    """Return the absolute paths of the files that `inputs` name, in the given order, each once.

    An input is a file, a folder (searched recursively for videos, sorted), a glob, or a list. A list is `@list`, or a
    `.txt` / `.lst` file, with one input per line, # for comments, relative to the list file. `note` is called with one
    line on what was left out, if anything was.

    Raises InputError for a missing file, a URL, a folder or glob without files, an empty list, no inputs.
    """
    if not inputs:
        raise InputError("no input: name at least one video file, folder, glob or @list.txt")
    left_out: LeftOut = Counter()
    found = list(dict.fromkeys(path for given in inputs for path in _expand_one(given, Path.cwd(), (), left_out)))
    if not found:
        raise InputError(f"no video among the inputs; {_told(left_out)}")
    if left_out:
        note(_told(left_out))
    return found


LeftOut = Counter[str]
"""Number of files and folders left out, by the reason."""


def _told(left_out: LeftOut) -> str:
    return "left out: " + "; ".join(f"{reason}: {count}" for reason, count in sorted(left_out.items()))


def refuse_url(given: str) -> None:
    """Raise InputError for a URL, with the step that makes a file of it."""
    found = _URL.match(given)
    if found is None:
        return
    advice = {
        "file": f"name the file by its path: {unquote(urlsplit(given).path)}",
        "s3": "copy it here first, or mount the bucket, and name the file",
        "gs": "copy it here first, or mount the bucket, and name the file",
        "rtsp": "record it with `reelgraph record`, and follow that folder: --follow FOLDER",
    }.get(found[1].lower(), "download it first, and name the file")
    raise InputError(f"{without_secrets(given)}: URLs are not supported; {advice}")


def _expand_one(given: str, base: Path, lists: tuple[Path, ...], left_out: LeftOut) -> Iterator[Path]:
    """Yield the files of one input. `lists` are the list files that contain it, outermost first."""
    if not given:  # a shell variable that is not set; as a path it would be the whole working directory
        raise InputError("an input is empty; name a video file, or . for the folder you are in")
    if given.startswith("@"):
        yield from _read_list(_resolve(given[1:], base), lists, left_out)
        return
    path = _resolve(given, base)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = 0
    except OSError as err:  # no permission, a loop of links, a name too long
        raise InputError(f"{path}{_within(lists)} cannot be reached: {err.strerror}") from err
    if stat.S_ISDIR(mode):
        yield from _search_folder(path, left_out)
        return
    if mode:
        if path.suffix.lower() in (".txt", ".lst"):
            yield from _read_list(path, lists, left_out)
        elif path.name.startswith("._") and stat.S_ISREG(mode) and _first_bytes(path, 4) == _APPLE_DOUBLE:
            left_out[_NOTES_OF_MACOS] += 1
        else:
            yield path
        return
    refuse_url(given)
    if glob.has_magic(given):
        files = sorted(set(_match(Path(path.anchor), path.parts[1:], left_out)))
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


def _search_folder(folder: Path, left_out: LeftOut) -> list[Path]:
    if not os.access(folder, os.R_OK | os.X_OK):
        raise InputError(f"folder {folder} cannot be read: permission denied; ask its owner, or name the files")
    from pipeline.media.images.reading import SUFFIXES

    mine: LeftOut = Counter()
    files = [path for _, some in _folders(folder, mine) for path in some]
    videos = sorted(path for path in files if _is_video(path, mine))
    if not videos:
        pictures = sum(path.suffix.lower() in SUFFIXES for path in files)
        if pictures:
            raise InputError(f"no videos in folder {folder}, but {plural(pictures, 'picture')}: add --images")
        told = f" ({_told(mine)})" if mine else ""
        raise InputError(f"no videos in folder {folder}{told}; a video ends in {' '.join(sorted(VIDEO_SUFFIXES))}")
    left_out.update(mine)
    return videos


_NOTES_OF_MACOS = "AppleDouble files (._*)"


def _is_video(path: Path, left_out: LeftOut) -> bool:
    """Return whether a file of a folder is a video by its name, and count it if it only looks like one."""
    suffix = path.suffix.lower()
    reason = ""
    if suffix in _UNREAD_SUFFIXES:
        reason = f"{suffix} files, which FFmpeg cannot read"
    elif suffix not in VIDEO_SUFFIXES:
        return False
    elif path.name.startswith("._"):
        reason = _NOTES_OF_MACOS
    elif not os.path.isfile(path):
        reason = "broken links, pipes or devices"
    elif suffix in _SOURCE_CODE_SUFFIXES and (head := _first_bytes(path, 4096)) and b"\0" not in head:
        reason = f"{suffix} files that are text"
    elif suffix == ".ivf" and (head := _first_bytes(path, 4)) and head != _IVF:
        reason = ".ivf files that are not video"
    if reason:
        left_out[reason] += 1
    return not reason


def _first_bytes(path: Path, count: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError:
        return b""


def _folders(folder: Path, left_out: LeftOut) -> Iterator[tuple[Path, list[Path]]]:
    """Yield a folder and those below it, linked ones too, each once and with its files; leave out system folders."""
    root, seen = folder.resolve(), set[Path]()
    waiting, linked = [folder], list[Path]()  # links last: a folder that is found twice has the path without one
    while waiting or linked:
        current = waiting.pop() if waiting else linked.pop(0)
        if current.resolve() in seen:
            continue
        seen.add(current.resolve())
        files = []
        for path in _entries(current, left_out):
            if not os.path.isdir(path):
                files.append(path)
            elif SYSTEM_FOLDERS.fullmatch(path.name):
                left_out[f"folders {path.name}"] += 1
            elif not path.is_symlink():
                waiting.append(path)
            elif path.resolve() in root.parents:
                left_out["links to a folder above"] += 1
            else:
                linked.append(path)
        yield current, files


def _entries(folder: Path, left_out: LeftOut) -> list[Path]:
    """Return what a folder holds, sorted. A folder that cannot be read holds nothing, and is counted."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        left_out["folders that cannot be read"] += 1
        return []


def _match(folder: Path, pattern: Sequence[str], left_out: LeftOut) -> Iterator[Path]:
    """Yield the files below a folder that a glob matches; a name that a part of it spells is meant as it is."""
    part, rest = pattern[0], pattern[1:]
    if part == "**":
        for sub, _ in _folders(folder, left_out):
            yield from _match(sub, rest or ("*",), left_out)
    elif not glob.has_magic(part) or (folder / part).exists():
        path = folder / part
        if rest and path.is_dir():
            yield from _match(path, rest, left_out)
        elif not rest and path.is_file():
            yield path
    else:
        for path in _entries(folder, left_out):
            name = path.name
            hidden = name.startswith(".") and not part.startswith(".")
            if hidden or not (fnmatchcase(name, part) or fnmatchcase(name, part.replace("[", "[[]"))):
                continue
            if rest and path.is_dir():
                if SYSTEM_FOLDERS.fullmatch(name):
                    left_out[f"folders {name}"] += 1
                else:
                    yield from _match(path, rest, left_out)
            elif not rest and path.is_file():
                if name.startswith("._"):
                    left_out[_NOTES_OF_MACOS] += 1
                else:
                    yield path


def _read_list(path: Path, lists: tuple[Path, ...], left_out: LeftOut) -> Iterator[Path]:
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
        yield from _expand_one(line, path.parent, (*lists, path), left_out)

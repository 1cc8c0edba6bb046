"""The pictures of a folder and of those below it, in order, without a look at any file."""

from __future__ import annotations

import os
import stat

from pipeline.errors import InputError
from pipeline.media.images.names import Names, join
from pipeline.media.images.reading import SUFFIXES
from pipeline.media.images.shelves import Passed
from pipeline.media.inputs import SYSTEM_FOLDERS, VIDEO_SUFFIXES

_ENDINGS = tuple(suffix.encode() for suffix in SUFFIXES)
_SHOWN_ENDINGS = 5
UNREAD_FOLDERS = "folders that cannot be read"


def search(folder: str, passed: Passed) -> Names:
    """Return the pictures below a folder by their paths from it; count the files that are passed over.

    The pictures of a folder are sorted, and come before those of the folders in it. Links to folders are followed, each
    folder once. The ending of a name alone makes it a picture: a link that leads nowhere is found later, by reading it.
    Raises InputError if the folder cannot be read.
    """
    found: list[bytes] = []
    """The names of each folder, joined."""
    other: dict[str, int] = {}
    root = os.fsencode(folder)
    seen: set[tuple[int, int]] = set()
    waiting, linked = [b""], list[bytes]()  # links last: a folder that is found twice has the path without one
    while waiting or linked:
        below = waiting.pop() if waiting else linked.pop(0)
        identity = _identity(os.path.join(root, below))
        if identity in seen:
            passed.add("links to a folder that is searched anyway")
            continue
        seen.add(identity)
        inside: list[bytes] = []
        mine: list[bytes] = []
        try:
            with os.scandir(os.path.join(root, below)) as entries:
                for entry in entries:
                    name = os.path.join(below, entry.name)
                    if _is_folder(entry):
                        if entry.name.startswith(b".") or SYSTEM_FOLDERS.fullmatch(os.fsdecode(entry.name)):
                            passed.add("hidden folders and those of the system")
                        else:
                            (linked if entry.is_symlink() else inside).append(name)
                    elif entry.name.startswith(b"."):
                        passed.add("hidden files")
                    elif entry.name.lower().endswith(_ENDINGS):
                        mine.append(name)
                    else:
                        ending = os.path.splitext(entry.name)[1].decode("utf-8", "replace").lower()
                        other[ending] = other.get(ending, 0) + 1
        except OSError as err:
            if not below:
                raise InputError(f"folder {folder} cannot be read: {err.strerror}") from err
            passed.add(UNREAD_FOLDERS)
        mine.sort()
        found.append(join(mine))
        waiting += sorted(inside, reverse=True)
    passed.videos = sum(count for ending, count in other.items() if ending in VIDEO_SUFFIXES)
    for ending, count in sorted(other.items(), key=lambda one: -one[1])[:_SHOWN_ENDINGS]:
        passed.add(f"files that end in {ending}" if ending else "files without an ending", count)
    rest = sum(sorted(other.values(), reverse=True)[_SHOWN_ENDINGS:])
    if rest:
        passed.add("files with other endings", rest)
    return Names(b"".join(found))


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links that go round in a circle
        return False


def _identity(folder: bytes) -> tuple[int, int]:
    try:
        facts = os.stat(folder)
    except OSError:
        return (-1, hash(folder))
    return (facts.st_dev, facts.st_ino)


def is_folder(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False

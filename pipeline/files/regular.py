"""Open a path that a user, a list or a store names: files only.

A pipe, a socket or a device may never end, or wait for a writer that never comes.
"""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader


def open_file(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a file for reading. Raises OSError, also at once for a pipe, a socket or a device."""
    return open(path, "rb", opener=_opener)


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a file. Raises OSError as `open_file` does."""
    with open_file(path) as file:
        return file.read()


def _opener(path: str, flags: int) -> int:
    _refuse_others(path, os.stat(path).st_mode)  # opening a device may do something
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    try:
        _refuse_others(path, os.fstat(descriptor).st_mode)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _refuse_others(path: str, mode: int) -> None:
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is a pipe, a socket or a device, not a file", path)

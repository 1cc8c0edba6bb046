"""The journal of a folder that one process fills with files: which are finished, and which it has removed again.

It is a hidden file with one JSON object in each line. Who reads the folder knows by it, without waiting, that a file
is whole. Lines are only appended while the writer lives.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.files.whole import atomic_write, to_json

JOURNAL = ".reelgraph-journal"
_REMOVED_KEPT = 10_000
"""Lines on removed files that survive a restart of the writer: a reader that slept may still need them."""


class Journal:
    """The journal of a folder, for its writer. Raises OSError if it cannot be read or written."""

    def __init__(self, folder: Path) -> None:
        """Read the journal that is there, and write it again without what is out of date."""
        self.path = folder / JOURNAL
        self.bytes_of: dict[str, int] = {}
        """Size of each file that the writer finished and that is there, by name, oldest first."""
        reader = JournalReader(folder)
        reader.refresh()
        here = {name: size for name, size in reader.finished.items() if _size(folder / name) == size}
        gone = [name for name in (*reader.removed, *reader.finished) if name not in here][-_REMOVED_KEPT:]
        lines = [{"removed": name} for name in gone] + [{"finished": n, "bytes": size} for n, size in here.items()]
        atomic_write(self.path, *(to_json(line) + b"\n" for line in lines), flush=True)
        self.bytes_of = here

    def finished(self, name: str) -> None:
        """Note that a file is whole: it has its name, and does not change any more."""
        size = (self.path.parent / name).stat().st_size
        self._append({"finished": name, "bytes": size})
        self.bytes_of[name] = size

    def remove(self, name: str) -> None:
        """Delete a file that this journal has, unless it is another one by now."""
        path = self.path.parent / name
        if _size(path) == self.bytes_of[name]:
            path.unlink()
        del self.bytes_of[name]
        self._append({"removed": name})

    def _append(self, line: dict[str, str | int]) -> None:
        with self.path.open("ab") as file:
            file.write(to_json(line) + b"\n")
            file.flush()
            os.fsync(file.fileno())


class JournalReader:
    """The journal of a folder, for who takes its files. A folder without a journal has an empty one."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL
        self.finished: dict[str, int] = {}
        """Size of each finished file by name, oldest first."""
        self.removed: dict[str, None] = {}
        """Names of files that the writer has removed, oldest first."""
        self._file = (0, 0)
        self._at = 0

    def refresh(self) -> None:
        """Read the lines that are new."""
        try:
            with self.path.open("rb") as file:
                state = os.fstat(file.fileno())
                if (state.st_dev, state.st_ino) != self._file or state.st_size < self._at:
                    self._file, self._at = (state.st_dev, state.st_ino), 0
                    self.finished, self.removed = {}, {}
                file.seek(self._at)
                whole, _, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return
        self._at += len(whole) + bool(whole)
        for line in _objects(whole):
            name, size = line.get("finished", line.get("removed")), line.get("bytes")
            if not isinstance(name, str) or name in ("", ".", "..") or set(name) & {"/", "\0"}:
                continue  # only a name of the folder itself
            if "finished" in line and isinstance(size, int):
                self.finished[name] = size
            elif "removed" in line:
                self.finished.pop(name, None)
                self.removed[name] = None


def _objects(lines: bytes) -> Iterator[dict[str, object]]:
    """Yield the objects of some lines; one that a power cut tore is left out."""
    for line in lines.splitlines():
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            yield found


def _size(path: Path) -> int:
    """Return the size of a file in bytes; -1 if there is none, or a link."""
    try:
        return -1 if path.is_symlink() or not path.is_file() else path.stat().st_size
    except OSError:
        return -1

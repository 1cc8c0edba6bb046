"""The nodes that we write ourselves: `zarr.json` of groups.

A group's `zarr.json` holds its attributes and, where the arrays below it are committed, their consolidated metadata, so
one atomic write commits both. Written as plain JSON by the Zarr v3 specification: no import of zarr to read a status.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import StoreError
from pipeline.files.whole import PARTIAL, atomic_write, to_json

NODE_FILE = "zarr.json"
CHUNKS = "chunks"

_ADVICE = {
    errno.ENOSPC: "free some space and run again to continue",
    errno.EDQUOT: "raise the quota or free some space and run again to continue",
    errno.EROFS: "choose a writable output",
    errno.EACCES: "change its permissions or choose another output",
    errno.EPERM: "change its permissions or choose another output",
    errno.ENAMETOOLONG: "choose a shorter output path",
}


@dataclass(frozen=True)
class Group:
    """What a group's `zarr.json` says."""

    attributes: dict[str, Any]
    arrays: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Consolidated metadata of committed arrays: name -> content of the array's own `zarr.json`."""
    consolidated: bool = False


@contextlib.contextmanager
def disk_errors(action: str) -> Iterator[None]:
    """Turn an OSError into a StoreError of one line, for example `cannot write chunk 3 of 'clip': ...`."""
    try:
        yield
    except OSError as err:
        advice = _ADVICE.get(err.errno or 0, "check the disk")
        where = f" ({err.filename})" if err.filename else ""
        raise StoreError(f"cannot {action}: {err.strerror or err}{where}; {advice}") from err


def read_group(folder: str | Path, advice: str = "restore it or start over with --fresh") -> Group | None:
    """Read a group; None where the folder has no `zarr.json` of a group. Raises StoreError, with `advice`, where it is
    damaged."""
    path = f"{folder}/{NODE_FILE}"
    try:
        with open(path, "rb") as file:
            node = json.loads(file.read())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as err:
        raise StoreError(f"{path} is damaged ({err}); {advice}") from err
    if not isinstance(node, dict) or node.get("node_type") != "group":
        return None
    consolidated = node.get("consolidated_metadata")
    attributes, inline = node.get("attributes", {}), {} if consolidated is None else consolidated
    arrays = inline.get("metadata", {}) if isinstance(inline, dict) else inline
    if not (isinstance(attributes, dict) and isinstance(arrays, dict)):
        raise StoreError(f"{path} is damaged (not a Zarr v3 group); {advice}")
    return Group(attributes, arrays, consolidated is not None)


def write_group(folder: str | Path, group: Group) -> None:
    """Write a group's `zarr.json` in one atomic step, making its folder where absent. Raises OSError."""
    node: dict[str, Any] = {"zarr_format": 3, "node_type": "group", "attributes": group.attributes}
    if group.consolidated:
        node["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": group.arrays}
    os.makedirs(folder, exist_ok=True)
    atomic_write(f"{folder}/{NODE_FILE}", to_json(node))


def chunk_folder(store_path: str | Path, input_name: str, index: int) -> str:
    return f"{store_path}/{input_name}/{CHUNKS}/{index:06d}"


def chunk_indices(input_folder: str | Path) -> list[int]:
    """Indices of all chunk groups below an input, ascending, whether they have a record or not."""
    try:
        names = os.listdir(f"{input_folder}/{CHUNKS}")
    except FileNotFoundError:
        return []
    return sorted(int(name) for name in names if re.fullmatch(r"\d{6,}", name))


def remove_tree(folder: str | Path) -> None:
    """Remove a folder and all below it; no error where it is gone already. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def sweep_partial(folder: str | Path) -> None:
    """Remove files that a killed process was writing directly in this folder. Raises OSError."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(PARTIAL) and entry.is_file(follow_symlinks=False):
                os.unlink(entry.path)

"""The nodes that we write ourselves: `zarr.json` of groups.

A group's `zarr.json` holds its attributes and the consolidated metadata of the committed arrays below it, so one atomic
write commits both. Written as plain JSON by the Zarr v3 specification: no import of zarr to read a status.

A store may come from a stranger, and its JSON says what is read, written and removed below it. So a name out of it
becomes a path in one function only, `below`. zarr gets no metadata of an array that `check_array` has not seen.
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
from pipeline.files.regular import open_file
from pipeline.files.whole import PARTIAL, atomic_write, to_json

NODE_FILE = "zarr.json"
CHUNKS = "chunks"
ASIDE = "aside"
"""Folder below an input where a removal writes its arrays; without the mark REMOVING (run.py) it is debris."""

CODECS = ("bytes", "zstd", "crc32c", "vlen-utf8", "sharding_indexed")
"""The codecs that we write. zarr looks up any other name among installed codecs, and some of those unpickle."""
DATA_TYPES = re.compile(r"bool|string|u?int(8|16|32|64)|float(16|32|64)")
_NO_COMPONENT = re.compile(r"[/\\\x00-\x1f\x7f]")

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
    """Content of a group's `zarr.json`."""

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
    """Read a group; None if the folder has no `zarr.json` of a group. Raises StoreError, with `advice`, where it is
    damaged."""
    path = f"{folder}/{NODE_FILE}"
    try:
        with open_file(path) as file:
            node = json.loads(file.read())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError) as err:
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
    """Write a group's `zarr.json` in one atomic step that survives a power cut. Makes the folder. Raises OSError."""
    node: dict[str, Any] = {"zarr_format": 3, "node_type": "group", "attributes": group.attributes}
    if group.consolidated:
        node["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": group.arrays}
    os.makedirs(folder, exist_ok=True)
    atomic_write(f"{folder}/{NODE_FILE}", to_json(node), flush=True)


def below(folder: str | os.PathLike[str], *names: str) -> str:
    """Return the path of a node below a store's folder, one name per level; it need not exist.

    Raises StoreError if a name is more than the name of one file, or if a link takes a node's place. What is read,
    written or removed there would lie outside the store.
    """
    path = str(folder)
    for name in names:
        _check_name(path, name)
        path = f"{path}/{name}"
        refuse_link(path)
    return path


def refuse_link(path: str) -> None:
    """Raise StoreError if a symbolic link lies at a path."""
    if os.path.islink(path):
        raise StoreError(f"{path!r} is a link; a store's folders must lie in the store: put the folder itself there")


def _check_name(folder: str, name: Any) -> None:
    if not isinstance(name, str) or name in ("", ".", "..", NODE_FILE) or _NO_COMPONENT.search(name):
        raise StoreError(f"{folder} names a node {name!r}, which is not a plain name; do not use this store")


def read_array_node(folder: str | Path, name: str) -> dict[str, Any]:
    """Read and check the `zarr.json` of an array below a group's folder. Raises StoreError."""
    try:
        with open_file(f"{below(folder, name)}/{NODE_FILE}") as file:
            content: dict[str, Any] = json.loads(file.read())
    except (OSError, ValueError, RecursionError) as err:
        raise StoreError(f"array {name!r} in {folder} cannot be opened: {err}") from err
    check_array(folder, name, content)
    return content


def check_array(folder: str | Path, name: str, content: Any) -> None:
    """Check an array's `zarr.json` before anything is made of it. Raises StoreError unless reelgraph could have written
    it: a plain name, Zarr v3, our data types and our codecs."""
    _check_name(str(folder), name)
    where = f"array {name!r} in {folder}"
    if name in (CHUNKS, ASIDE):
        raise StoreError(f"{where} has the name of a folder that reelgraph keeps for itself; do not use this store")
    if not isinstance(content, dict) or content.get("zarr_format") != 3 or content.get("node_type") != "array":
        raise StoreError(f"{where} is not a Zarr v3 array; do not use this store")
    shape, dims, grid = (content.get(key) for key in ("shape", "dimension_names", "chunk_grid"))
    chunk = (grid.get("configuration") or {}).get("chunk_shape") if isinstance(grid, dict) else None
    is_whole = (
        isinstance(dims, list | tuple)
        and all(isinstance(dim, str) for dim in dims)
        and _are_sizes(shape, 0, len(dims))
        and _are_sizes(chunk, 1, len(dims))
        and isinstance(content.get("attributes", {}), dict)
    )
    if not is_whole or not dims:
        raise StoreError(f"{where} has damaged metadata; restore it or run again with --fresh")
    if not isinstance(content.get("data_type"), str) or not DATA_TYPES.fullmatch(content["data_type"]):
        raise StoreError(f"{where} has data type {content.get('data_type')!r:.80}, which reelgraph does not write")
    _check_codecs(where, content.get("codecs"))


def _are_sizes(values: Any, least: int, n: int | None = None) -> bool:
    is_list = isinstance(values, list | tuple) and n in (None, len(values))
    return is_list and all(type(value) is int and value >= least for value in values)


def _check_codecs(where: str, codecs: Any) -> None:
    if not isinstance(codecs, list | tuple) or not codecs:
        raise StoreError(f"{where} has damaged metadata (no codecs); restore it or run again with --fresh")
    for codec in codecs:
        name = codec.get("name") if isinstance(codec, dict) else codec
        if not isinstance(codec, dict) or name not in CODECS:
            raise StoreError(
                f"{where} has codec {name!r:.80}, which reelgraph does not write (it writes {', '.join(CODECS)}); "
                "do not use this store"
            )
        inside = codec.get("configuration", {})
        is_sharding = name == "sharding_indexed"
        if not isinstance(inside, dict) or (is_sharding and not _are_sizes(inside.get("chunk_shape"), 1)):
            raise StoreError(f"{where} has damaged metadata (codec {name}); restore it or run again with --fresh")
        if is_sharding:
            _check_codecs(where, inside.get("codecs"))
            _check_codecs(where, inside.get("index_codecs"))


def remove_tree(folder: str | Path) -> None:
    """Remove a folder and all below it; no error if it is gone already. Raises OSError, and StoreError for a link."""
    refuse_link(str(folder))
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def sweep_partial(folder: str | os.PathLike[str]) -> None:
    """Remove files that a killed process was writing directly in this folder. Raises OSError."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(PARTIAL) and entry.is_file(follow_symlinks=False):
                os.unlink(entry.path)

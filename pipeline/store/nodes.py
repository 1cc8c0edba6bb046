"""The nodes that we write ourselves: `zarr.json` of groups.

A group's `zarr.json` holds its attributes and the consolidated metadata of the committed arrays below it, so one atomic
write commits both. A checksum among the attributes covers the whole file. It is written as plain JSON by the Zarr v3
specification: no import of zarr to read a status.

A store may come from a stranger, and its JSON says what is read, written and removed below it. So a name out of it
becomes a path in one function only, `below`. zarr gets no metadata of an array that `check_array` has not seen.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import StoreError
from pipeline.files.checksum import sealed, unseal
from pipeline.files.whole import PARTIAL, atomic_write, no_waiting, to_json

NODE_FILE = "zarr.json"
CHUNKS = "chunks"
ASIDE = "aside"
"""Folder below an input where a removal writes its arrays; without the mark REMOVING (run.py) it is debris."""

CODECS = ("bytes", "zstd", "crc32c", "vlen-utf8", "sharding_indexed")
"""The codecs that we write. zarr looks up any other name among installed codecs, and some of those unpickle."""
DATA_TYPES = re.compile(r"bool|string|u?int(8|16|32|64)|float(16|32|64)")
MOST_SHARDS = 10**6
"""Most files of one array. Readers list them all before they open one."""
_NO_COMPONENT = re.compile(r"[/\\\x00-\x1f\x7f]")

_ADVICE = {
    errno.ENOENT: "put it back and run again to continue, or run again to start over",
    errno.ENOSPC: "free some space and run again to continue",
    errno.EDQUOT: "raise the quota or free some space and run again to continue",
    errno.EROFS: "choose a writable output",
    errno.EACCES: "change its permissions or choose another output",
    errno.EPERM: "change its permissions or choose another output",
    errno.ENAMETOOLONG: "choose a shorter output path",
    errno.EISDIR: "a folder lies in the place of a file: remove or restore it",
    errno.EEXIST: "a file lies in the place of a folder: remove or restore it",
    errno.ENOTDIR: "a file lies in the place of a folder: remove or restore it",
}
_GROUP_KEYS = {"zarr_format", "node_type", "attributes", "consolidated_metadata"}
_CHECKED: dict[str, bytes] = {}
"""Digest of each file that was checked, by path. A run reads the same content many times; then it is only parsed."""
_OURS = (b'"stages"', b'"store_format"', b'"chunk_frames"')
"""Attributes that only our groups have. They identify our files that have no checksum, whatever else is damaged."""


@dataclass(frozen=True)
class Group:
    """Content of a group's `zarr.json`."""

    attributes: dict[str, Any]
    arrays: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Consolidated metadata of committed arrays: name -> content of the array's own `zarr.json`."""
    consolidated: bool = False
    sealed: bool = True
    """False if an earlier version wrote it, without a checksum."""


class DamagedMetadataError(StoreError):
    """The metadata of a store is damaged, or a part of it is gone."""


@contextlib.contextmanager
def disk_errors(action: str) -> Iterator[None]:
    """Turn an OSError into a StoreError of one line, for example `cannot write chunk 3 of 'clip': ...`."""
    try:
        yield
    except OSError as err:
        advice = _ADVICE.get(err.errno or 0, "check the disk")
        where = f" ({err.filename})" if err.filename else ""
        raise StoreError(f"cannot {action}: {err.strerror or err}{where}; {advice}") from err


def located(path: str | os.PathLike[str]) -> Path:
    """Return the path that a user's path leads to, absolute and without links. A loop of links stays as it is."""
    return Path(os.path.realpath(os.path.expanduser(path)))


def folders_in(folder: str | Path) -> list[str]:
    """Return the names of the folders below a folder, sorted. Raises OSError."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def read_file(path: str) -> bytes:
    """Read a whole file of a store. Raises OSError."""
    with open(path, "rb", opener=no_waiting) as file:
        return file.read() or b""


def read_group(
    folder: str | Path,
    advice: str = "restore it or start over with --fresh",
    check: Callable[[Group], None] | None = None,
) -> Group | None:
    """Read a group; None if the folder has no `zarr.json`, or one that is not of a group.

    `check` looks at the content before the checksum does, so that its message comes first. Raises StoreError, with
    `advice`, if the file is damaged.
    """
    path = f"{folder}/{NODE_FILE}"
    try:
        with disk_errors("read the store"):
            text = read_file(path)
    except StoreError as err:
        if isinstance(err.__cause__, FileNotFoundError) or not os.path.isdir(folder):
            return None
        raise
    digest = hashlib.blake2b(text, digest_size=16).digest()
    is_known = check is not None and _CHECKED.get(path) == digest
    try:
        found = unseal(text, "attributes", is_known=is_known)
    except (ValueError, RecursionError) as err:
        raise DamagedMetadataError(f"{path} is damaged ({err}); {advice}") from err
    node = found.content
    is_group = isinstance(node, dict) and node.get("node_type") == "group"
    if not is_group and not found.sealed and not any(mark in text for mark in _OURS):
        return None
    group = _group_of(node, found.sealed) if is_group else None
    if group is not None and check is not None and not is_known:
        check(group)
    if group is None or found.flaw:
        raise DamagedMetadataError(f"{path} is damaged ({found.flaw or 'not a Zarr v3 group'}); {advice}")
    if check is not None and found.sealed:
        _CHECKED[path] = digest
    return group


def _group_of(node: dict[str, Any], is_sealed: bool) -> Group | None:
    """Return the content of a group; None if it is not of the Zarr v3 format."""
    consolidated = node.get("consolidated_metadata")
    attributes, inline = node.get("attributes", {}), {} if consolidated is None else consolidated
    arrays = inline.get("metadata", None if consolidated else {}) if isinstance(inline, dict) else inline
    if not isinstance(attributes, dict) or not isinstance(arrays, dict):
        return None
    if node.get("zarr_format") != 3 or not node.keys() <= _GROUP_KEYS:
        return None
    return Group(attributes, arrays, consolidated is not None, is_sealed)


def write_group(folder: str | Path, group: Group) -> None:
    """Write a group's `zarr.json` in one atomic step that survives a power cut. Makes the folder. Raises OSError."""
    node: dict[str, Any] = {"zarr_format": 3, "node_type": "group", "attributes": group.attributes}
    if group.consolidated:
        node["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": group.arrays}
    os.makedirs(folder, exist_ok=True)
    atomic_write(f"{folder}/{NODE_FILE}", to_json(sealed(node, "attributes")), flush=True)


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
        content: dict[str, Any] = json.loads(read_file(f"{below(folder, name)}/{NODE_FILE}"))
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
    configuration = grid.get("configuration") if isinstance(grid, dict) else None
    chunk = configuration.get("chunk_shape") if isinstance(configuration, dict) else None
    is_whole = (
        isinstance(dims, list | tuple)
        and all(isinstance(dim, str) and _is_utf8(dim) for dim in dims)
        and _are_sizes(shape, 0, len(dims))
        and _are_sizes(chunk, 1, len(dims))
        and isinstance(content.get("attributes", {}), dict)
        and _are_names(content.get("attributes", {}).get("class_names"))
    )
    if not is_whole or not dims or not shape or not chunk or shape[0] > MOST_SHARDS * chunk[0]:
        raise StoreError(f"{where} has damaged metadata; restore it or run again with --fresh")
    if not isinstance(content.get("data_type"), str) or not DATA_TYPES.fullmatch(content["data_type"]):
        raise StoreError(f"{where} has data type {content.get('data_type')!r:.80}, which reelgraph does not write")
    _check_codecs(where, content.get("codecs"))


def _are_sizes(values: Any, least: int, n: int | None = None) -> bool:
    is_list = isinstance(values, list | tuple) and n in (None, len(values))
    return is_list and all(type(value) is int and value >= least for value in values)


def _are_names(values: Any) -> bool:
    """Return whether class names, if given, can be the names of columns."""
    is_list = isinstance(values, list | tuple) and all(isinstance(value, str) for value in values)
    return values is None or (is_list and all(map(_is_utf8, values)))


def _is_utf8(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


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

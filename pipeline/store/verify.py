"""Verifying a store: everything in it is read, and what is found is compared with what the metadata says."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import StoreError
from pipeline.files.checksum import unseal
from pipeline.files.lock import LOCK_FILE, StoreLock
from pipeline.files.whole import atomic_write, to_json
from pipeline.store.chunks import DamagedChunkError, Part, chunks_folder
from pipeline.store.nodes import (
    CHUNKS,
    NODE_FILE,
    DamagedMetadataError,
    Group,
    below,
    disk_errors,
    folders_in,
    read_array_node,
    read_file,
    read_group,
    write_group,
)
from pipeline.store.remove import blocks
from pipeline.store.run import InputStore, consolidated_nodes, read_input, read_root, require_store
from pipeline.store.schema import DECODED, Axis, axes_of
from pipeline.text import plural


@dataclass(frozen=True)
class Flaw:
    """Something that is damaged."""

    place: str
    """Path of the file or folder."""
    what: str
    """The reason, in words."""
    mend: str
    """The command that puts it right."""


@dataclass
class Verified:
    """The result of a verification."""

    out: str
    inputs: int = 0
    arrays: int = 0
    """Compacted arrays that were read from the first row to the last."""
    chunks: int = 0
    """Chunk files that were read."""
    flaws: list[Flaw] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)
    """Paths of files that were written again."""

    def as_dict(self) -> dict[str, Any]:
        return {"ok": not self.flaws, **asdict(self)}


def verify(path: Path) -> Verified:
    """Read everything in a store and return what is damaged. Raises StoreError if there is no store at the path."""
    found = Verified(str(path))
    root = None
    try:
        require_store(path)
        root = read_root(path)
    except DamagedMetadataError as err:
        mend = f"rm -f {shlex.quote(f'{path}/{NODE_FILE}')}; {_run(path)}"
        found.flaws.append(Flaw(f"{path}/{NODE_FILE}", str(err), mend))
    groups: dict[str, Group] = {}
    with disk_errors(f"read {path}"):
        names = folders_in(path)
    for name in names:
        try:
            group = read_input(path, name)
        except StoreError as err:
            has_copy = root is not None and f"{name}/{DECODED.name}" in root.arrays
            mend = _repair(path) if has_copy else _remake(path, name)
            found.flaws.append(Flaw(f"{path}/{name}/{NODE_FILE}", str(err), mend))
            continue
        if group is not None:
            groups[name] = group
    for name, group in groups.items():
        checked = _Input(path, name, group)
        flaws = list(checked.flaws())
        if flaws and os.path.exists(path / LOCK_FILE):  # a run may have gone on meanwhile
            checked = _Input(path, name, read_input(path, name) or group)
            flaws = list(checked.flaws())
        found.inputs += 1
        found.arrays += checked.arrays
        found.chunks += checked.chunks
        found.flaws += flaws
    if root is not None and root.consolidated and not found.flaws and root.arrays != consolidated_nodes(groups):
        why = "the copy of the inputs' metadata is out of date"
        found.flaws.append(Flaw(f"{path}/{NODE_FILE}", why, _repair(path)))
    return found


def repair(path: Path) -> Verified:
    """Write again what can be restored from checked copies, then verify. Raises StoreError."""
    with disk_errors(f"write to {path}"):
        lock = StoreLock.acquire(path)
        try:
            repaired = list(_repaired(path))
        finally:
            lock.release()
    found = verify(path)
    found.repaired = repaired
    return found


def _repaired(path: Path) -> Iterator[str]:
    """Restore inputs from the root's copy, array metadata from the input's, and drop a copy that is out of date."""
    root = read_root(path)
    copies = {} if root is None else root.arrays
    groups: dict[str, Group] = {}
    for name in folders_in(path):
        folder = below(path, name)
        try:
            group = read_input(path, name)
        except StoreError:
            prefix = f"{name}/"
            arrays = {key.removeprefix(prefix): node for key, node in copies.items() if key.startswith(prefix)}
            if not arrays or name not in copies:
                continue
            group = Group(dict(copies[name].get("attributes", {})), arrays, consolidated=True)
            write_group(folder, group)
            yield f"{folder}/{NODE_FILE}"
        if group is None:
            continue
        groups[name] = group
        for array, node in group.arrays.items():
            place = InputStore(str(path), name).array_folder(array)
            if os.path.isdir(place) and not _is_as_committed(place, node):
                atomic_write(f"{place}/{NODE_FILE}", to_json(node), flush=True)
                yield f"{place}/{NODE_FILE}"
        chunks = chunks_folder(path, name)
        if os.path.isdir(chunks) and _flaw_of_chunks_node(chunks):
            write_group(chunks, Group({}))
            yield f"{chunks}/{NODE_FILE}"
    if root is not None and root.consolidated and root.arrays != consolidated_nodes(groups):
        write_group(path, Group(root.attributes))
        yield f"{path}/{NODE_FILE}"


def _is_as_committed(folder: str, node: Mapping[str, Any]) -> bool:
    try:
        return to_json(read_array_node(os.path.dirname(folder), os.path.basename(folder))) == to_json(node)
    except StoreError:
        return False


def _flaw_of_chunks_node(folder: str) -> str:
    try:
        return "" if read_group(folder) is not None else "it is gone"
    except StoreError as err:
        return str(err)


def _run(path: Path, source: str = "") -> str:
    return f"reelgraph run WORKFLOW {shlex.quote(source) if source else 'INPUT...'} --out {shlex.quote(str(path))}"


def _repair(path: Path) -> str:
    return f"reelgraph verify {shlex.quote(str(path))} --repair"


def _remake(path: Path, name: str, source: str = "") -> str:
    return f"rm -r {shlex.quote(f'{path}/{name}')}; {_run(path, source)}"


class _Input:
    """The check of one input."""

    def __init__(self, path: Path, name: str, group: Group) -> None:
        self.path, self.name, self.group = path, name, group
        self.store = InputStore(str(path), name)
        self.folder = f"{path}/{name}"
        self.source = str(group.attributes.get("path") or "")
        self.arrays = self.chunks = 0

    def flaws(self) -> Iterator[Flaw]:
        yield from self._flaws_of_arrays()
        yield from self._flaws_of_chunks()

    def _flaws_of_arrays(self) -> Iterator[Flaw]:
        numbers: dict[str, np.ndarray] = {}
        remake = _remake(self.path, self.name, self.source)
        for stage, facts in self.group.attributes.get("stages", {}).items():
            absent = [name for name in facts.get("arrays") or () if name not in self.group.arrays]
            if absent and self.group.arrays and facts.get("state") == "complete":
                yield Flaw(self.folder, f"stage {stage!r} is complete, without its array {absent[0]!r}", remake)
        for name, node in self.group.arrays.items():
            folder = f"{self.folder}/{name}"
            try:
                folder = self.store.array_folder(name)
                if os.path.isdir(folder) and not _is_as_committed(folder, node):
                    yield Flaw(f"{folder}/{NODE_FILE}", "it is not as committed", _repair(self.path))
                    continue
                is_number = len(node["shape"]) == 1 and "int" in node["data_type"]
                kept = [block for _, block in blocks(self.store, name) if is_number]
                self.arrays += 1
                if is_number:
                    numbers[name] = np.concatenate(kept) if kept else np.empty(0, np.int64)
            except StoreError as err:
                yield Flaw(folder, str(err), remake)
            registry = node.get("attributes", {}).get("registry")
            if isinstance(registry, str) and os.path.isfile(f"{self.path}/{registry}"):
                yield from _flaws_of_registry(os.path.normpath(f"{self.path}/{registry}"))
        rows = {axis.name: int(self.group.arrays[axis.index]["shape"][0]) for axis in axes_of(self.group.arrays)}
        if DECODED.name in self.group.arrays:
            decoded = self.group.arrays[DECODED.name]
            rows[decoded["dimension_names"][0]] = int(decoded["shape"][0])
        for name, values in numbers.items():
            why = _flaw_of_numbers(name, values, self.group.arrays, numbers, rows)
            if why:
                yield Flaw(f"{self.folder}/{name}", why, remake)
        if not self.group.sealed and self.group.arrays:  # without a checksum the metadata may have lost an array
            known = {*self.group.arrays, CHUNKS}
            for name in folders_in(self.folder):
                if name not in known and os.path.exists(f"{self.folder}/{name}/{NODE_FILE}"):
                    yield Flaw(f"{self.folder}/{name}", "the metadata does not name this array", remake)

    def _flaws_of_chunks(self) -> Iterator[Flaw]:
        run = _run(self.path, self.source)
        try:
            chunks = self.store.chunks()
            folder = chunks_folder(self.path, self.name)
        except StoreError as err:
            yield Flaw(f"{self.folder}/{CHUNKS}", str(err), run)
            return
        why = _flaw_of_chunks_node(folder) if os.path.isdir(folder) else ""
        if why:
            yield Flaw(f"{folder}/{NODE_FILE}", why, _repair(self.path))
        for damage in chunks.damage:
            yield Flaw(damage.path, damage.why, run)
        axes: dict[str, Axis] = {}
        with contextlib.suppress(StoreError):  # told below, of the file
            axes = self.store.axes(chunks)
        length, total = self.group.attributes.get("chunk_frames"), self.group.attributes.get("frames")
        for index in chunks.indices.tolist():
            items = None if length is None or total is None else min(length, total - index * length)
            for part in chunks.parts(index):
                self.chunks += 1
                try:
                    _check_part(part, axes, items)
                except StoreError as err:
                    why = err.why if isinstance(err, DamagedChunkError) else str(err)
                    yield Flaw(part.path, why, run)


def _check_part(part: Part, axes: Mapping[str, Axis], items: int | None) -> None:
    """Read all that a chunk's file holds. Raises StoreError."""
    part.nodes(part.record.arrays)
    arrays = part.arrays(list(part.record.arrays))
    for name, array in arrays.items():
        along = part.record.arrays[name]["dims"][0]
        if along in axes and axes[along].count in arrays:
            expected = int(arrays[axes[along].count].sum(dtype=np.int64))
        elif along == next((axis.of for axis in axes.values()), "frame") and items is not None:
            expected = items
        else:
            continue
        if len(array) != expected:
            raise part.damaged(f"array {name!r} has {len(array)} rows; there are {expected}")


def _flaw_of_numbers(
    name: str, values: np.ndarray, arrays: Mapping[str, Any], numbers: Mapping[str, np.ndarray], rows: Mapping[str, int]
) -> str:
    """Return the reason why counts, or indices into another axis, do not fit; "" if they do."""
    along = arrays[name]["dimension_names"][0]
    for axis in axes_of(arrays):
        if axis.count == name and (values.min(initial=0) < 0 or values.sum(dtype=np.int64) != rows[axis.name]):
            return f"it counts {values.sum(dtype=np.int64)} rows along {axis.name!r}; there are {rows[axis.name]}"
        if axis.index == name and axis.count in numbers:
            counts = np.maximum(numbers[axis.count], 0)
            is_whole = counts.sum(dtype=np.int64) == len(values)
            if is_whole and (np.repeat(np.arange(len(counts)), counts) != values).any():
                return f"it does not fit the counts in {axis.count!r}"
    for other, length in rows.items():
        wrong = values[(values < -1) | (values >= length)] if name == f"{along}_{other}" else values[:0]
        if len(wrong):
            return f"it leads to row {wrong[0]} along {other!r}, which has {plural(length, 'row')}"
    return ""


def _flaws_of_registry(path: str) -> Iterator[Flaw]:
    mend = f"restore {shlex.quote(path)}, or delete it and run: reelgraph people OUT"
    try:
        flaw = unseal(read_file(path)).flaw
    except (OSError, ValueError, RecursionError) as err:
        flaw = str(err)
    if flaw:
        yield Flaw(path, flaw, mend)

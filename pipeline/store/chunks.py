"""Chunk files: what one worker writes of one chunk, without a lock and without sharing any file with another.

`NAME/chunks/000123.ok.3f9a0c27b1d4.zip` is a small Zarr group, zipped without compression of its own, with the commit
record as the group's attributes. It is written aside, flushed to the disk and put in place by one rename: that rename
is the commit. What has no file is not done. The name says what the file holds: the index of the chunk, its state, and
a digest of the stages' resume keys. So one listing of the folder plans a resume, and no record is opened for it.

A stage that is added later writes a second file for the chunk; no file is ever changed. A retry writes the same file
again, so two workers that (after a lost lock) write the same chunk cannot tear each other's.

| state  | meaning                                           |
|--------|---------------------------------------------------|
| ok     | every item was read and every stage made its rows |
| part   | the same, but some items could not be read        |
| failed | nothing came of the chunk                         |

Stores of earlier versions hold a folder for each chunk (`NAME/chunks/000123`), with a file or two for each array and
the record in its `zarr.json`. They are read here too.

zarr-python takes 20 to 30 ms to write the 8 arrays of a chunk, and 13 ms to read them; its cost is per array. These
functions write and read the same format in a fraction of that; the tests read it back with zarr.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import itertools
import json
import math
import os
import re
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from socket import gethostname
from typing import Any

import numpy as np
from numcodecs.vlen import VLenUTF8
from numcodecs.zstd import Zstd

from pipeline.errors import StoreError
from pipeline.files.checksum import unseal
from pipeline.files.regular import open_file, read_file
from pipeline.files.whole import PARTIAL, atomic_write, to_json
from pipeline.store.facts import MOST_CHUNKS
from pipeline.store.nodes import (
    CHUNKS,
    NODE_FILE,
    Group,
    below,
    check_array,
    disk_errors,
    read_group,
    refuse_link,
    remove_tree,
    sweep_partial,
    write_group,
)
from pipeline.store.record import Record
from pipeline.store.schema import DECODED, SAMPLE_DIMENSION, STRING, Array, Axis, Schema, axes_of, default_count

_CODEC = Zstd(level=0, checksum=True)
_FILE = re.compile(r"([0-9]{6,})\.(ok|part|failed)\.([0-9a-f]{12})\.zip")
_FOLDER = re.compile(r"[0-9]{6,}")
DAMAGED = ".damaged"
"""Ending of the name of a chunk file that was set aside."""
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""Time of every entry of a zip: equal chunks are equal files."""


def chunks_folder(store_path: str | os.PathLike[str], input_name: str) -> str:
    """Return the folder of an input's chunks. Raises StoreError if a link lies there."""
    return below(store_path, input_name, CHUNKS)


def stage_digest(stages: Mapping[str, str]) -> str:
    """Return 12 hex digits that stand for stages and their resume keys, in the name of a chunk file."""
    text = "\n".join(f"{name}={key}" for name, key in sorted(stages.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def chunk_file(index: int, record: Record) -> str:
    """Return the name of the file that a chunk is committed to."""
    return f"{index:06d}.{record.name}.{stage_digest(record.tried if record.state == 'failed' else record.stages)}.zip"


# -- writing -------------------------------------------------------------------------------------------------------


def write_chunk(
    store_path: str,
    input_name: str,
    index: int,
    arrays: Mapping[str, np.ndarray],
    specs: Sequence[Array],
    record: Record,
    schema: Schema,
    *,
    items: int,
    counts: Mapping[str, np.ndarray] | None = None,
    replaces: Iterable[str] = (),
    flush: bool = True,
) -> str:
    """Write the arrays of a chunk and commit it; return the file's name.

    `arrays` holds every array of `specs`: one row for each of `items` items, or for each row of its axis. `counts`
    holds the counts of axes whose rows were made by an earlier pass. `replaces` names files of this chunk (earlier
    failures) to remove once it is committed. With `flush` the chunk survives a power cut. Raises StoreError if an array
    does not fit its declaration or the disk refuses; the chunk is then as it was before.
    """
    where = f"chunk {index} of {input_name!r}"
    folder = chunks_folder(store_path, input_name)
    fitted = schema.fit(specs, arrays, items, where, counts)
    described = {
        spec.name: {"dims": list(spec.dims), "shape": list(fitted[spec.name].shape), "dtype": spec.dtype_name}
        for spec in specs
    }
    record = replace(record, arrays=described)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as target:
        _put(target, NODE_FILE, _group_node(record))
        for spec in specs:
            array = fitted[spec.name]
            _put(target, f"{spec.name}/{NODE_FILE}", to_json(_metadata(array, spec, schema)))
            if array.size:
                _put(target, f"{spec.name}/{_chunk_key(array.ndim)}", _encode(array))
    return _commit(folder, where, store_path, chunk_file(index, record), content.getbuffer(), replaces, flush)


def fail_chunk(
    store_path: str,
    input_name: str,
    index: int,
    record: Record,
    *,
    replaces: Iterable[str] = (),
    flush: bool = True,
) -> str:
    """Record that nothing came of a chunk; return the file's name. What earlier passes committed stays.

    Raises StoreError if the disk refuses.
    """
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as target:
        _put(target, NODE_FILE, _group_node(record))
    folder, name = chunks_folder(store_path, input_name), chunk_file(index, record)
    action = f"the failure of chunk {index} of {input_name!r}"
    return _commit(folder, action, store_path, name, content.getbuffer(), replaces, flush)


def _commit(
    folder: str, what: str, store_path: str, name: str, content: memoryview, replaces: Iterable[str], flush: bool
) -> str:
    with disk_errors(f"write {what} in {store_path}"):
        if not os.path.exists(f"{folder}/{NODE_FILE}"):  # a group of its own; workers write the same bytes
            if not os.path.isdir(store_path):
                raise FileNotFoundError(
                    errno.ENOENT, f"the store was deleted or renamed, or {gethostname()} does not see it", store_path
                )
            write_group(folder, Group({}))
        atomic_write(f"{folder}/{name}", content, flush=flush)
        for other in replaces:
            if other != name:
                _discard(folder, other)
    return name


def _discard(folder: str, name: str) -> None:
    """Remove an earlier failure of a chunk: a file, or an older store's folder, whose committed arrays stay."""
    if not _FOLDER.fullmatch(name):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{folder}/{name}")
        return
    group = read_group(f"{folder}/{name}")
    if group is not None and group.attributes.get("stages"):
        write_group(f"{folder}/{name}", Group({**group.attributes, "state": "ok"}))
    else:
        remove_tree(f"{folder}/{name}")


def _put(target: zipfile.ZipFile, name: str, content: bytes) -> None:
    target.writestr(zipfile.ZipInfo(name, _EPOCH), content)


def _group_node(record: Record) -> bytes:
    return to_json({"zarr_format": 3, "node_type": "group", "attributes": record.as_json()})


def _metadata(array: np.ndarray, spec: Array, schema: Schema) -> dict[str, Any]:
    """`zarr.json` of an array of one chunk, as the Zarr v3 specification has it."""
    if spec.is_string:
        fill: Any = ""
        serializer: dict[str, Any] = {"name": "vlen-utf8", "configuration": {}}
    else:
        fill = np.zeros((), spec.dtype_name).item()
        serializer = {"name": "bytes", "configuration": {"endian": "little"}}
    axis = schema.axis_of_count(spec.name)
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": array.shape,
        "data_type": spec.dtype_name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [max(1, n) for n in array.shape]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": fill,
        "codecs": [serializer, {"name": "zstd", "configuration": {"level": 0, "checksum": True}}],
        "attributes": {**spec.attributes, **({SAMPLE_DIMENSION: axis.name} if axis else {})},
        "dimension_names": spec.dims,
        "storage_transformers": [],
    }


def _chunk_key(n_dims: int) -> str:
    return ".".join(["c", *["0"] * n_dims])


def _encode(array: np.ndarray) -> bytes:
    if array.dtype == object:
        return bytes(_CODEC.encode(VLenUTF8().encode(array)))
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return bytes(_CODEC.encode(np.ascontiguousarray(little)))


class DamagedChunkError(StoreError):
    """A chunk file cannot be read: the chunk counts as not done, once the file is set aside."""

    def __init__(self, where: str, why: str, path: str) -> None:
        super().__init__(f"{where} is damaged ({why}: {path}); run again: it is set aside and made again")
        self.where, self.why, self.path = where, why, path

    def __reduce__(self) -> tuple[Any, ...]:
        return DamagedChunkError, (self.where, self.why, self.path)

    def set_aside(self) -> str:
        """Rename the file so that it does not count any more; return what was done. Raises StoreError."""
        with disk_errors(f"set aside {self.path}"), contextlib.suppress(FileNotFoundError):
            os.replace(self.path, f"{self.path}{DAMAGED}")
        return f"{self.where} was damaged ({self.why}); it is set aside as {self.path}{DAMAGED}"


# -- reading -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """One file (or folder of an older store) that holds something of a chunk."""

    folder: str
    """Path of `NAME/chunks`."""
    name: str
    """File or folder below it."""
    where: str
    """The chunk in words, for messages: "chunk 3 of 'clip' in /runs/clip.zarr"."""
    kind: tuple[str, str] | None = None
    """State and digest in the name of a file; None for a folder."""

    @property
    def path(self) -> str:
        return f"{self.folder}/{self.name}"

    @property
    def is_failure(self) -> bool:
        """Whether it holds nothing but a failure. A file's name says so, of an older store's folder only the record."""
        if self.kind is not None:
            return self.kind[0] == "failed"
        return self.record.state == "failed" and not self.record.arrays

    @cached_property
    def record(self) -> Record:
        """The commit record. Raises StoreError if it is damaged or gone."""
        with self._opened() as read:
            return self._record(read(NODE_FILE))

    def _record(self, content: bytes | None) -> Record:
        if content is None:
            raise self.damaged("it has no record")
        try:
            found = unseal(content, "attributes")
            if found.flaw or not isinstance(found.content, dict):
                raise ValueError(found.flaw or "it has no record")
            return Record.from_json(found.content.get("attributes"))
        except (ValueError, RecursionError) as err:
            raise self.damaged(str(err)) from err

    def array(self, name: str) -> np.ndarray:
        """Read one array. Raises StoreError if it is not there, gone or damaged."""
        return self.arrays([name])[name]

    def arrays(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Read arrays. Raises StoreError if one is not there, gone or damaged."""
        with self._opened() as read:
            described = self.__dict__["record"] = self.__dict__.get("record") or self._record(read(NODE_FILE))
            found = {}
            for name in names:
                if name not in described.arrays:
                    raise StoreError(f"{self.where} has no array {name!r}")
                shape = described.arrays[name]["shape"]
                content = read(f"{name}/{_chunk_key(len(shape))}") if math.prod(shape) else None
                found[name] = self._decoded(name, described.arrays[name], content)
        return found

    def nodes(self, arrays: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return the `zarr.json` of arrays, by name. Raises StoreError if one is gone or damaged."""
        found = {}
        with self._opened() as read:
            contents = {array: read(f"{array}/{NODE_FILE}") for array in arrays}
        for array, content in contents.items():
            try:
                found[array] = json.loads(content or b"")
            except (ValueError, RecursionError) as err:
                raise self.damaged(f"the metadata of {array!r} cannot be read") from err
            check_array(self.path, array, found[array])
            described = self.record.arrays.get(array, {})
            if described.get("shape") != list(found[array]["shape"]):
                raise self.damaged(f"the metadata of {array!r} has another shape than the record")
        return found

    def _decoded(self, name: str, described: Mapping[str, Any], content: bytes | None) -> np.ndarray:
        shape, dtype = tuple(described["shape"]), described["dtype"]
        if math.prod(shape) == 0:
            return np.empty(shape, object if dtype == STRING else dtype)
        if content is None:
            raise self.damaged(f"array {name!r} is gone")
        try:
            raw = _CODEC.decode(content)
            if dtype == STRING:
                return np.asarray(VLenUTF8().decode(raw)).reshape(shape)
            return np.frombuffer(raw, np.dtype(dtype).newbyteorder("<")).astype(dtype, copy=False).reshape(shape)
        except (RuntimeError, ValueError, TypeError) as err:
            raise self.damaged(f"array {name!r}: {err}") from err

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Callable[[str], bytes | None]]:
        """Give a function that reads a file below the group; None for one that is not there. Raises StoreError."""
        try:
            if _FOLDER.fullmatch(self.name):
                yield self._file
                return
            with open_file(self.path) as file, zipfile.ZipFile(file) as source:
                held = source.NameToInfo
                yield lambda key: source.read(key) if key in held else None
        except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, RuntimeError) as err:
            raise self.damaged(str(err)) from err
        except OSError as err:
            raise StoreError(f"{self.where} cannot be read: {err.strerror or err} ({self.path})") from err

    def _file(self, key: str) -> bytes | None:
        try:
            return read_file(below(self.path, *key.split("/")[:-1]) + "/" + key.rpartition("/")[2])
        except FileNotFoundError:
            return None

    def damaged(self, why: str) -> DamagedChunkError:
        return DamagedChunkError(self.where, why, self.path)


class Chunks:
    """The committed chunks of one input, from one listing of its folder. `Chunks(...)` again looks again."""

    def __init__(self, store_path: str | os.PathLike[str], input_name: str, *, are_void: bool = False) -> None:
        """List the chunks; none if what the folder still holds is void (compacted)."""
        self.folder = f"{store_path}/{input_name}/{CHUNKS}" if are_void else chunks_folder(store_path, input_name)
        self._of = f"of {input_name!r} in {store_path}"
        found: dict[tuple[str, str], list[int]] = defaultdict(list)
        folders = []
        self.damage: list[DamagedChunkError] = []
        """Files that were found to be damaged while this was listed; they count as not there."""
        for name, is_file in () if are_void else _plain_entries(self.folder):
            match = _FILE.fullmatch(name)
            if match is None and not _FOLDER.fullmatch(name):
                continue
            index = int(match[1] if match else name)
            if index >= MOST_CHUNKS or (match and not is_file):
                why = "it is not a file" if index < MOST_CHUNKS else f"an input has fewer than {MOST_CHUNKS} chunks"
                self.damage.append(self._part(index, name).damaged(why))
            elif match:
                found[match[2], match[3]].append(index)
            else:
                folders.append(index)
        for digest in {digest for state, digest in found if state == "part"}:
            # After a lost lock two workers may have written a chunk: what one of them could read counts.
            found["part", digest] = sorted(set(found["part", digest]) - set(found.get(("ok", digest), ())))
        self.groups = {kind: np.sort(np.array(indices, np.int64)) for kind, indices in found.items() if indices}
        """Indices of chunks, ascending, by state and digest."""
        self._merged: dict[int, Record] = {}
        self._folders = self._with_record(sorted(folders))
        self._first: dict[tuple[str, str], Record] = {}
        """The record of one file of each kind: all of a kind hold the same stages and arrays."""
        for kind in list(self.groups):
            self._open_first(kind)

    def _open_first(self, kind: tuple[str, str]) -> None:
        while len(self.groups[kind]):
            try:
                self._first[kind] = self._file(int(self.groups[kind][0]), kind).record
                return
            except DamagedChunkError as err:
                self.damage.append(err)
                self.groups[kind] = self.groups[kind][1:]
        del self.groups[kind]

    def __len__(self) -> int:
        return len(self.indices)

    @cached_property
    def axes(self) -> dict[str, Axis]:
        """Ragged axes of the stored arrays, by name.

        Count arrays name their axis; of an older store's folders, whose do not, only the usual name "n_things" tells.
        """
        found: dict[str, Axis] = {}
        samples = [self._file(int(indices[0]), kind) for kind, indices in self.groups.items() if kind[0] != "failed"]
        for part in samples:
            counts = [name for name in part.record.arrays if len(part.record.arrays[name]["shape"]) == 1]
            found |= {axis.name: axis for axis in axes_of(part.nodes(counts))}
        for part in itertools.islice(self._folders.values(), 1):
            dims = dict.fromkeys(described["dims"][0] for described in part.record.arrays.values())
            found |= {dim: Axis(dim) for dim in dims if default_count(dim) in part.record.arrays}
        return found

    @cached_property
    def indices(self) -> np.ndarray:
        """int64: indices of all chunks with a record, ascending."""
        held = [*self.groups.values(), np.array(sorted(self._folders), np.int64)]
        return np.unique(np.concatenate(held)) if held else np.empty(0, np.int64)

    def _with_record(self, indices: Sequence[int]) -> dict[int, Part]:
        """Return the folders of an older store that have a record: the others were never committed."""
        found = {}
        for part in (self._part(index, f"{index:06d}") for index in indices):
            if os.path.exists(f"{part.path}/{NODE_FILE}"):
                try:
                    part.record  # noqa: B018  (kept by the part)
                    found[int(part.name)] = part
                except DamagedChunkError as err:
                    self.damage.append(err)
        return found

    def _part(self, index: int, name: str, kind: tuple[str, str] | None = None) -> Part:
        return Part(self.folder, name, f"chunk {index} {self._of}", kind)

    def _file(self, index: int, kind: tuple[str, str]) -> Part:
        return self._part(index, f"{index:06d}.{kind[0]}.{kind[1]}.zip", kind)

    def parts(self, index: int) -> list[Part]:
        """Return what there is of a chunk: first what was committed first; failures last."""
        found = [self._folders[index]] if index in self._folders else []
        for kind, indices in self._ordered:
            at = np.searchsorted(indices, index)
            if at < len(indices) and indices[at] == index:
                found.append(self._file(index, kind))
        return found

    @cached_property
    def _ordered(self) -> list[tuple[tuple[str, str], np.ndarray]]:
        """Kinds of file: those with the item arrays, which a later pass does not write again, first; failures last."""

        def place(one: tuple[tuple[str, str], np.ndarray]) -> tuple[bool, bool]:
            return one[0][0] == "failed", DECODED.name not in self._first[one[0]].arrays

        return sorted(self.groups.items(), key=place)

    def has(self, stages: Sequence[str], total: int) -> np.ndarray:
        """Return uint64 (total,): for each chunk a bit mask of those of `stages` that are committed."""
        have = np.zeros(total, np.uint64)

        def mark(indices: np.ndarray, made: Iterable[str]) -> None:
            bits = np.uint64(sum(1 << k for k, stage in enumerate(stages) if stage in made))
            have[indices[indices < total]] |= bits

        for kind, indices in self.groups.items():
            if kind[0] != "failed":
                mark(indices, self._first[kind].stages)
        for index, part in self._folders.items():
            mark(np.array([index]), part.record.stages)
        return have

    @cached_property
    def stage_keys(self) -> dict[str, set[str]]:
        """Resume keys that each stage has among the committed chunks, by stage: one, unless a store is broken."""
        found: dict[str, set[str]] = defaultdict(set)
        held = [record for kind, record in self._first.items() if kind[0] != "failed"]
        for record in [*held, *(part.record for part in self._folders.values())]:
            for stage, key in record.stages.items():
                found[stage].add(key)
        return found

    @cached_property
    def failed(self) -> dict[int, Record]:
        """Records of the chunks that failed, by index: those that no later success replaced."""
        suspects = {int(index) for (state, _), indices in self.groups.items() if state == "failed" for index in indices}
        suspects |= {index for index, part in self._folders.items() if part.record.state == "failed"}
        return {index: record for index in sorted(suspects) if (record := self.record(index)).state == "failed"}

    @cached_property
    def incomplete(self) -> dict[int, Record]:
        """Records of the chunks that are committed without some of their items, by index."""
        suspects = {int(index) for (state, _), indices in self.groups.items() if state == "part" for index in indices}
        suspects |= {index for index, part in self._folders.items() if part.record.missing}
        suspects -= set(self.failed)
        return {index: record for index in sorted(suspects) if (record := self.record(index)).missing}

    def failures(self, index: int) -> tuple[str, ...]:
        """Return the names of what holds the failure of a chunk; `write_chunk` removes them once it is done."""
        return tuple(
            part.name
            for part in self.parts(index)
            if part.is_failure or (part.kind is None and part.record.state == "failed")
        )

    def record(self, index: int) -> Record:
        """Return the record of a chunk, merged over its files. Raises StoreError if it is damaged, KeyError if none."""
        if index not in self._merged:
            parts = self.parts(index)
            if not parts:
                raise KeyError(index)
            made = [part.record for part in parts if not part.is_failure]
            merged = made[0] if made else None
            for later in made[1:]:
                assert merged is not None
                merged = merged.merged(later)
            for failure in (part.record for part in parts if part.is_failure):
                if merged is None or not failure.tried.keys() <= merged.stages.keys():
                    kept = merged or failure
                    merged = replace(failure, stages=merged.stages if merged else {}, arrays=kept.arrays)
            assert merged is not None
            self._merged[index] = merged
        return self._merged[index]

    def array_names(self, part: Part) -> Iterable[str]:
        """Return the names of the arrays that a file holds; opens one file of its kind."""
        return (part.record if part.kind is None else self._first[part.kind]).arrays

    def arrays(self, index: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Read arrays of a chunk. Raises StoreError if one is not committed, gone or damaged."""
        found: dict[str, np.ndarray] = {}
        for part in self.parts(index):
            here = [name for name in names if name not in found and name in self.array_names(part)]
            found.update(part.arrays(here) if here else {})
        absent = next((name for name in names if name not in found), None)
        if absent is not None:
            raise StoreError(f"chunk {index} {self._of} has no array {absent!r}")
        return {name: found[name] for name in names}

    def common_arrays(self, indices: Sequence[int]) -> set[str]:
        """Return the names of the arrays that each of these chunks holds."""
        kinds = {tuple(part.kind or part.name for part in self.parts(index)): index for index in indices}
        held = [{name for part in self.parts(index) for name in self.array_names(part)} for index in kinds.values()]
        return set.intersection(*held) if held else set()

    def holds(self, index: int, array: str) -> bool:
        """Return whether a chunk holds an array."""
        return any(array in self.array_names(part) for part in self.parts(index))

    def nodes(self, index: int) -> dict[str, dict[str, Any]]:
        """Return the `zarr.json` of every array of a chunk, by name."""
        return {name: node for part in self.parts(index) for name, node in part.nodes(part.record.arrays).items()}

    def records(self) -> Iterator[tuple[int, Record]]:
        """Yield index and record of every chunk, in order. Opens every file."""
        for index in self.indices.tolist():
            yield index, self.record(index)


def _plain_entries(folder: str) -> list[tuple[str, bool]]:
    """List the names in a folder, each with whether it is a file; none if there is no folder.

    Raises StoreError if a chunk is a link.
    """
    try:
        with os.scandir(folder) as entries:
            found = [(entry.name, entry.is_file(follow_symlinks=False), entry.is_symlink()) for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return []
    for name, _, is_link in found:
        if is_link and (_FILE.fullmatch(name) or _FOLDER.fullmatch(name)):
            refuse_link(f"{folder}/{name}")
    return [(name, is_file) for name, is_file, _ in found]


def are_chunks(folder: str | os.PathLike[str]) -> bool:
    """Return whether a folder holds nothing but what we write for chunks."""
    names = [name.removesuffix(DAMAGED) for name, _ in _plain_entries(str(folder))]
    return all(name == NODE_FILE or name.endswith(PARTIAL) or _FILE.fullmatch(name) or _FOLDER.fullmatch(name)
               for name in names)  # fmt: skip


def read_files(
    store_path: str | os.PathLike[str], input_name: str, index: int, files: Sequence[str], names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Read arrays of a chunk from the named files of it. Raises StoreError if one is in none of them, or damaged."""
    where = f"chunk {index} of {input_name!r} in {store_path}"
    found: dict[str, np.ndarray] = {}
    for file in files:
        part = Part(chunks_folder(store_path, input_name), file, where)
        here = [name for name in names if name not in found and name in part.record.arrays]
        found.update(part.arrays(here) if here else {})
    absent = next((name for name in names if name not in found), None)
    if absent is not None:
        raise StoreError(f"{where} has no array {absent!r}")
    return found


def unreadable_chunks(records: Mapping[int, Record]) -> list[dict[str, Any]]:
    """Describe chunks that were stored without some of their items: `chunk`, `frames` (numbers of items), `error`."""
    return [
        {"chunk": index, "frames": list(record.missing), "error": record.error}
        for index, record in records.items()
        if record.state == "ok" and record.missing
    ]


def sweep_chunks(folder: str | os.PathLike[str]) -> None:
    """Remove what a killed process was writing below `NAME/chunks`. Raises OSError."""
    names = _plain_entries(str(folder))  # refuses links before anything is removed
    sweep_partial(folder)
    for name, _ in names:
        if _FOLDER.fullmatch(name):
            sweep_partial(f"{folder}/{name}")

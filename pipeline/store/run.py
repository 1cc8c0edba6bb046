"""The run store as its one writer sees it: set up a run, add inputs, keep their attributes, read what is committed."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import threading
import unicodedata
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Literal, Self, TypeVar

import numpy as np

from pipeline.errors import StoreError
from pipeline.files.lock import LOCK_FILE, StoreLock
from pipeline.files.regular import read_file
from pipeline.files.whole import PARTIAL, atomic_write, refuse_in_store, to_json
from pipeline.store.chunks import Chunks, are_chunks, read_files, sweep_chunks
from pipeline.store.facts import flaw_of_input, flaw_of_root
from pipeline.store.nodes import (
    ASIDE,
    CHUNKS,
    NODE_FILE,
    DamagedMetadataError,
    Group,
    below,
    check_array,
    disk_errors,
    folders_in,
    located,
    read_array_node,
    read_group,
    refuse_link,
    remove_tree,
    sweep_partial,
    write_group,
)
from pipeline.store.schema import Axis, axes_of
from pipeline.version import __version__

Named = TypeVar("Named", bound="str | os.PathLike[str]")

STORE_FORMAT = 1
INVENTORY_FILE = ".inventory"
"""File of an input: what its source keeps of the list of items."""
INVENTORY_AT = "inventory_file"
"""Attribute of an input: the file's name, if it was written again."""
ITEMS_DIGEST = "items_digest"
"""Attribute of an input whose inventory was written again: which items it has, in a SHA-256 as hexadecimal digits."""
MOVING = "moving"
"""Root attribute while inputs get other paths: for each old one the new one, and facts that change."""
CLEARING = "clearing"
"""Root attribute while `fresh` removes an old store: all that is still there is void."""
VOID_CHUNKS = "void_chunks"
"""Input attribute from the commit of a compaction until its chunk groups are removed."""
REMOVING = "removing_rows"
"""Input attribute from the commit of a removal (remove.py) until its arrays have taken the places of the old ones:
their names."""
_REMOVING_ANY = "removing_"
_ADVICE = "restore it or start over with --fresh"
MOST_CONSOLIDATED_INPUTS = 200
"""With more inputs the root's consolidated metadata would outgrow what may be parsed on every opening (about 2 MB)."""


class InputStore:
    """One input of a store. Picklable: a copy on a worker reads, only the writer's own updates attributes."""

    def __init__(self, path: str, name: str, writer: RunStore | None = None) -> None:
        self.path = path
        self.name = name
        self._writer = writer
        self._starts: dict[str, np.ndarray] = {}
        self._moved: Mapping[str, Any] = MappingProxyType({})

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "name": self.name, "_writer": None, "_starts": {}, "_moved": {}}

    @property
    def folder(self) -> str:
        return f"{self.path}/{self.name}"

    @property
    def attributes(self) -> dict[str, Any]:
        """The input's facts, `stages` (name -> {key, state}) and `complete`, as they are on disk now."""
        return self.group().attributes

    @property
    def is_complete(self) -> bool:
        """True if the input is compacted, with every stage."""
        return _is_finished(self.attributes)

    def group(self) -> Group:
        """Return attributes and committed (compacted) arrays.

        Raises StoreError if there is no such input, or if its `zarr.json` is not one of ours: what it says leads to
        files that are read, written and removed.
        """
        group = read_input(self.path, self.name)
        if group is None:
            raise StoreError(
                f"{self.path} has no input {self.name!r}, or no longer: its {NODE_FILE} is gone; run again to make it"
            )
        group.attributes.update(self._moved)
        return group

    def inventory(self) -> bytes | None:
        """Return what the source asked to keep of its list of items; None if that is nothing. Raises StoreError."""
        name, before = self._inventory_file(), None
        while name != before:  # a writer may have put another in its place meanwhile, and removed this one
            path = below(self.folder, name)
            with disk_errors(f"read {path}"), contextlib.suppress(FileNotFoundError):
                return read_file(path)
            name, before = self._inventory_file(), name
        return None

    def _inventory_file(self) -> str:
        return str(self.attributes.get(INVENTORY_AT, INVENTORY_FILE))

    def inventory_digest(self) -> bytes:
        """Return a SHA-256 that changes with the items that the inventory lists. Raises StoreError."""
        known = self.attributes.get(ITEMS_DIGEST)
        return sha256(self.inventory() or b"").digest() if known is None else bytes.fromhex(known)

    def write_inventory(self, content: bytes, same_items: bool = False) -> dict[str, str]:
        """Write another inventory beside the present one; return the attributes that put it in its place.

        `same_items`: it only says more of the same items.
        """
        name = f"{INVENTORY_FILE}.{uuid.uuid4().hex[:12]}"
        digest = self.inventory_digest() if same_items else sha256(content).digest()
        with disk_errors(f"write to {self.folder}"):
            atomic_write(f"{self.folder}/{name}", content, flush=True)
        return {INVENTORY_AT: name, ITEMS_DIGEST: digest.hex()}

    def sweep_inventories(self) -> None:
        """Remove inventories that are no longer in place."""
        kept = self._inventory_file()
        with disk_errors(f"sweep {self.folder}"):
            for entry in list(os.scandir(self.folder)):
                if entry.name.startswith(INVENTORY_FILE) and entry.name != kept:
                    os.unlink(entry.path)

    def update(self, **attributes: Any) -> None:
        """Set attributes in one atomic write; others stay. Raises StoreError."""
        writer = self._require_writer()
        with writer.changing():
            group = self.group()
            self.write_group(Group({**group.attributes, **attributes}, group.arrays, group.consolidated))

    def write_group(self, group: Group) -> None:
        writer = self._require_writer()
        with writer.changing(), disk_errors(f"write the attributes of {self.name!r} in {self.path}"):
            write_group(self.folder, group)

    def chunks(self) -> Chunks:
        """List the committed chunks that are not compacted."""
        return Chunks(self.path, self.name, are_void=bool(self.attributes.get(VOID_CHUNKS)))

    def axes(self, chunks: Chunks | None = None) -> dict[str, Axis]:
        """Return the ragged axes of what is stored, by name: of the compacted arrays, or of a chunk."""
        axes = {axis.name: axis for axis in axes_of(self.group().arrays)}
        if chunks is not None and len(chunks):
            axes |= chunks.axes
        return axes

    def read_chunk(
        self, names: Sequence[str], index: int, start: int, stop: int, files: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Read arrays of one chunk: compacted ones, and those of the chunk's own `files`. Lists no folder.

        Raises StoreError if one is not there or is damaged.
        """
        committed = self.group().arrays
        found = self._read_compacted([name for name in names if name in committed], start, stop)
        rest = [name for name in names if name not in committed]
        return {**found, **(read_files(self.path, self.name, index, files, rest) if rest else {})}

    def read_arrays(
        self, names: Sequence[str], start: int, stop: int, chunks: Chunks | None = None
    ) -> dict[str, np.ndarray]:
        """Read arrays of items start (inclusive) to stop (exclusive), and of the rows that belong to them.

        Reads compacted arrays of a complete input, else chunk files: those of `chunks`, by default those that are
        there now. Raises StoreError if an array, or the chunk that would hold it, is not there or is damaged.
        """
        committed = self.group().arrays
        compacted = [name for name in names if name in committed]
        found = self._read_compacted(compacted, start, stop)
        rest = [name for name in names if name not in committed]
        return {**found, **(self._read_chunks(rest, start, stop, chunks) if rest else {})}

    def open_array(self, name: str) -> Any:
        """A compacted array as a read-only zarr array. Raises StoreError if its own `zarr.json` is not as committed."""
        from zarr import Array
        from zarr.storage import LocalStore, StorePath

        folder = self.array_folder(name)
        content = read_array_node(os.path.dirname(folder), name)
        if to_json(content) != to_json(self.group().arrays.get(name, content)):
            raise StoreError(
                f"the metadata of array {name!r} in {folder} is damaged (it is not as committed); "
                f"this puts it right: reelgraph verify {shlex.quote(self.path)} --repair"
            )
        try:
            array = Array.from_dict(StorePath(LocalStore(folder, read_only=True)), content)
        except (OSError, ValueError, TypeError, KeyError) as err:
            raise StoreError(f"array {name!r} of {self.name!r} in {self.path} cannot be opened: {err}") from err
        return array

    def array_folder(self, name: str) -> str:
        """Return the folder of an array: aside, while a removal that is committed has not yet put it into its place.
        Raises StoreError if a link lies there."""
        aside = below(self.folder, ASIDE, name)
        return aside if os.path.isdir(aside) and removing(self.attributes) else below(self.folder, name)

    def read_rows(self, name: str, start: int, stop: int | None) -> np.ndarray:
        """Rows of a compacted array. Raises StoreError if it is damaged."""
        array = self.open_array(name)
        self._require_shards(name, array, *slice(start, stop).indices(array.shape[0])[:2])
        try:
            return np.asarray(array[start:stop])
        except (RuntimeError, ValueError, OSError, MemoryError) as err:
            raise self._damaged(name, err) from err

    def _require_shards(self, name: str, array: Any, start: int, stop: int) -> None:
        """Compaction writes every shard, and zarr reads one that is gone as zeros, and waits for one that is a pipe."""
        if array.shards is None or not array.size:
            return
        rows, folder = array.shards[0], self.array_folder(name)
        for k in range(start // rows, -(-stop // rows)):
            path = f"{folder}/{array.metadata.encode_chunk_key((k, *[0] * (array.ndim - 1)))}"
            if not os.path.isfile(path):
                raise self._damaged(name, f"{path} is {'not a file' if os.path.exists(path) else 'gone'}")

    def _damaged(self, name: str, why: object) -> StoreError:
        return StoreError(
            f"array {name!r} of {self.name!r} in {self.path} is damaged ({why}); "
            f"restore {self.folder} or delete it and run again"
        )

    def _read_compacted(self, names: Sequence[str], start: int, stop: int) -> dict[str, np.ndarray]:
        committed = self.group().arrays
        axes = self.axes()
        found = {}
        for name in names:
            axis = axes.get(committed[name]["dimension_names"][0])
            first, last = (start, stop) if axis is None else self._row_range(axis, start, stop)
            found[name] = self.read_rows(name, first, last)
        return found

    def _row_range(self, axis: Axis, start: int, stop: int) -> tuple[int, int]:
        """Return the first row (inclusive) and the last (exclusive) of items start to stop."""
        if axis.name not in self._starts:
            counts = self.read_rows(axis.count, 0, None)
            self._starts[axis.name] = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
            rows = int(self.group().arrays[axis.index]["shape"][0])
            if counts.min(initial=0) < 0 or self._starts[axis.name][-1] != rows:
                raise self._damaged(axis.count, f"it counts {self._starts[axis.name][-1]} rows; there are {rows}")
        return int(self._starts[axis.name][start]), int(self._starts[axis.name][stop])

    def _read_chunks(self, names: Sequence[str], start: int, stop: int, chunks: Chunks | None) -> dict[str, np.ndarray]:
        length = int(self.attributes["chunk_frames"])
        chunks = self.chunks() if chunks is None else chunks
        pieces = [
            self._read_piece(chunks, names, index, length, start, stop)
            for index in range(start // length, -(-stop // length))
        ]
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in names}

    def _read_piece(
        self, chunks: Chunks, names: Sequence[str], index: int, length: int, start: int, stop: int
    ) -> dict[str, np.ndarray]:
        """Read the part of a chunk that lies within start to stop."""
        if not chunks.parts(index):
            raise StoreError(f"chunk {index} of {self.name!r} in {self.path} is not done")
        first, last = max(start - index * length, 0), min(stop - index * length, length)
        arrays = chunks.arrays(index, names)
        axes = self.axes(chunks)
        ranges: dict[str, slice] = {}
        dims = {name: chunks.record(index).arrays[name]["dims"][0] for name in names}
        for dim in set(dims.values()) & axes.keys():
            counts = chunks.arrays(index, [axes[dim].count])[axes[dim].count]
            ranges[dim] = slice(int(counts[:first].sum()), int(counts[:last].sum()))
        return {name: array[ranges.get(dims[name], slice(first, last))] for name, array in arrays.items()}

    def _require_writer(self) -> RunStore:
        if self._writer is None:
            raise StoreError(f"{self.path} is open for reading only; only the run that holds its lock writes to it")
        return self._writer


class RunStore:
    """A store opened by `open`; in mode "w" its one writer, which holds the lock until `close`."""

    def __init__(self, path: Path, lock: StoreLock | None) -> None:
        self.path = path
        self.lock = lock
        self._changes = threading.RLock()
        self._names: dict[str, str] = {}
        """Input name -> path, in order of first sight."""
        self._by_path: dict[str, str] = {}
        self._moved: dict[str, dict[str, Any]] = {}
        """Input name -> facts of inputs that lie at another path, if the store cannot be written."""
        self._consolidated = False

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, fresh: bool = False, mode: Literal["w", "r"] = "w") -> RunStore:
        """Open a store, in mode "w" making it where absent; `fresh` removes what an old one holds.

        Raises StoreError if the path is something else or cannot be written, StoreLockedError if another process
        writes to it.
        """
        if re.match(r"[a-z0-9]+:/", str(path)):
            raise StoreError(f"{path} is an address; a store is a folder on a local or network disk: name one")
        place = located(path)
        require_store(place, absent_is_fine=mode == "w", fresh=fresh)
        if mode == "r":
            return cls(place, None)._load()
        with disk_errors(f"write to {place}"):
            refuse_in_store(place.parent, place)
            place.mkdir(parents=True, exist_ok=True)
            lock = StoreLock.acquire(place)
        try:
            require_store(place, absent_is_fine=True, fresh=fresh)
            store = cls(place, lock)
            store._set_up(fresh)
            return store._load()
        except BaseException:
            lock.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Consolidate the root's metadata where every input is complete, and give the lock back."""
        if self.lock is None:
            return
        lock, self.lock = self.lock, None
        try:
            if not lock.lost:
                # It only spares outside tools a slower opening and a warning: no reason to fail.
                with contextlib.suppress(StoreError, OSError):
                    self._consolidate()
        finally:
            lock.release()

    @property
    def attributes(self) -> dict[str, Any]:
        """Root attributes: reelgraph (version), workflow, models, created."""
        return self._root().attributes

    def set_workflow(self, workflow: dict[str, Any], models: Sequence[dict[str, Any]]) -> None:
        """Store the resolved workflow and the models' facts. Raises StoreError."""
        self.update(workflow=workflow, models=list(models), reelgraph=__version__)

    def update(self, **attributes: Any) -> None:
        """Set root attributes, in one atomic write. Raises StoreError."""
        with self.changing(), disk_errors(f"write to {self.path}"):
            write_group(self.path, Group({**self.attributes, **attributes}))

    def input_names(self) -> list[str]:
        """Names of all inputs, in order of first sight."""
        return list(self._names)

    def input_paths(self) -> set[str]:
        """Return the paths of all inputs."""
        return set(self._names.values())

    def find_input(self, path: str) -> str | None:
        """Name of the input that was first seen at this path; None if there is none."""
        return self._by_path.get(path)

    def move_inputs(self, moves: Mapping[str, tuple[str, Mapping[str, Any]]]) -> None:
        """Note that inputs, each with all that is made of it, lie at other paths now. Raises StoreError.

        `moves`: for each old path the new one, and facts that are others there. A store that is open for reading says
        so too, and stays as it is. A kill between two inputs is made good by the next opening.
        """
        if self.lock is not None:
            self.update(**{MOVING: moves})
        self._move(moves)
        if self.lock is not None:
            self.update(**{MOVING: None})

    def _move(self, moves: Mapping[str, tuple[str, Mapping[str, Any]]]) -> None:
        for one, known in list(self._names.items()):
            before = known
            while before not in moves and "#" in before:
                before = before.rpartition("#")[0]
            if before not in moves:
                continue
            path, facts = moves[before]
            had = self.input(one).attributes
            now = {key: value for key, value in facts.items() if key in had}
            now["path"] = path + str(had["path"]).removeprefix(before)
            if self.lock is None:
                self._moved[one] = now
            else:
                self.input(one).update(**now)
            del self._by_path[known]
            self._name(one, path + known.removeprefix(before))

    def _name(self, name: str, path: str) -> None:
        self._names[name] = path
        self._by_path.setdefault(path, name)

    def add_input(
        self,
        stem: str,
        facts: dict[str, Any],
        inventory: bytes | None = None,
        stages: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    ) -> str:
        """Make the group of a new input and return its name: the stem, made safe and unique. Raises StoreError.

        `inventory` is kept in a file beside its arrays; `stages` are those that it will have, name -> facts.
        """
        with self.changing(), disk_errors(f"add input {stem!r} to {self.path}"):
            safe = safe_name(stem)
            taken = {_folded(name) for name in self._names}
            number, name = 1, safe
            while _folded(name) in taken or not _is_free(self.path / name):
                number += 1
                name = f"{safe}-{number}"
            attributes = {**facts, "stages": dict(stages), "complete": False, "order": len(self._names)}
            folder, chunks = below(self.path, name), below(self.path, name, CHUNKS)
            sweep_partial(folder)  # of a kill before the group was committed
            if _is_debris(self.path, name):  # of a store that was deleted: these may be chunks of another file
                remove_tree(chunks)
            write_group(chunks, Group({}))
            if inventory is not None:
                atomic_write(f"{folder}/{INVENTORY_FILE}", inventory, flush=True)
            write_group(folder, Group(attributes))
            self._name(name, _known_by(facts))
            return name

    def drop_input(self, name: str) -> None:
        """Remove an input and all that is stored of it. Raises StoreError."""
        with self.changing(), disk_errors(f"remove {name!r} from {self.path}"):
            folder = below(self.path, name)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{folder}/{NODE_FILE}")  # from here on it is not there, whatever is left
            self._by_path.pop(self._names.pop(name), None)
            remove_tree(folder)

    def input(self, name: str) -> InputStore:
        """One input. Raises StoreError if there is none of this name."""
        if name not in self._names:
            raise StoreError(f"{self.path} has no input {name!r}; it has {', '.join(self._names) or 'none yet'}")
        made = InputStore(str(self.path), name, self if self.lock is not None else None)
        made._moved = self._moved.get(name, {})
        return made

    def check_lock(self) -> None:
        """Raise StoreLockedError if another process took the lock over."""
        if self.lock is None:
            raise StoreError(f"{self.path} is not open for writing")
        self.lock.check()

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Guard every write by the writer: one at a time, and only while the lock is ours.

        The root's consolidated metadata is dropped first; it would go stale.
        """
        with self._changes:
            self.check_lock()
            if self._consolidated:
                with disk_errors(f"write to {self.path}"):
                    write_group(self.path, Group(self.attributes))
                self._consolidated = False
            yield

    def _root(self) -> Group:
        group = read_root(self.path)
        if group is None:
            raise StoreError(f"{self.path} is not a reelgraph store any more: its {NODE_FILE} is gone")
        return group

    def _set_up(self, fresh: bool) -> None:
        with disk_errors(f"set up the store {self.path}"):
            root = None if fresh and _is_damaged_root(self.path) else read_root(self.path)
            if fresh or (root is not None and root.attributes.get(CLEARING)):
                if os.path.exists(self.path / NODE_FILE):
                    # A kill in here leaves the mark: half-removed inputs never count.
                    facts = root.attributes if root is not None else {"reelgraph": __version__}
                    write_group(self.path, Group({**facts, CLEARING: True}))
                # All goes but the root's `zarr.json` and the lock.
                for entry in list(os.scandir(self.path)):
                    if entry.name == NODE_FILE or entry.name.startswith(LOCK_FILE):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        remove_tree(entry.path)
                    else:
                        os.unlink(entry.path)
                root = None
            if root is None:
                created = datetime.now(UTC).isoformat(timespec="seconds")
                attributes = {"reelgraph": __version__, "store_format": STORE_FORMAT, "created": created}
                write_group(self.path, Group({**attributes, "workflow": {}, "models": []}))
            sweep_partial(self.path)

    def _load(self) -> RunStore:
        root = self._root()
        workflow = root.attributes.get("workflow", {})
        if not isinstance(workflow, dict) or not isinstance(workflow.get("stages", {}), dict):
            raise StoreError(f"{self.path} has damaged attributes (workflow); {_ADVICE}")
        self._consolidated = root.consolidated
        for name, attributes in list_inputs(self.path):
            self._name(name, _known_by(attributes))
        if self.lock is not None:
            for name in self._names:
                self._repair(name)
            if root.attributes.get(MOVING):
                self._move(root.attributes[MOVING])
                self.update(**{MOVING: None})
        return self

    def _repair(self, name: str) -> None:
        """Remove what a killed run left below an input: files being written, chunk groups that compaction voided."""
        folder = self.path / name
        with disk_errors(f"clean up {name!r} in {self.path}"):
            store = self.input(name)
            nodes = {*store.group().arrays, CHUNKS, ASIDE}
            with os.scandir(folder) as entries:
                for entry in entries:  # before anything is touched
                    if entry.is_symlink() and entry.name in nodes:
                        refuse_link(entry.path)
            sweep_partial(folder)
            finish_removal(store)
            if store.attributes.get(VOID_CHUNKS):
                remove_void_chunks(store)
            sweep_chunks(folder / CHUNKS)

    def _consolidate(self) -> None:
        if self._consolidated or not 0 < len(self._names) <= MOST_CONSOLIDATED_INPUTS:
            return
        groups = {name: InputStore(str(self.path), name).group() for name in self._names}
        if all(_is_finished(group.attributes) and not group.attributes.get(VOID_CHUNKS) for group in groups.values()):
            write_group(self.path, Group(self.attributes, consolidated_nodes(groups), consolidated=True))


def _is_finished(attributes: Mapping[str, Any]) -> bool:
    states = [stage.get("state") for stage in attributes.get("stages", {}).values()]
    return bool(attributes.get("complete")) and all(state == "complete" for state in states)


def consolidated_nodes(groups: Mapping[str, Group]) -> dict[str, dict[str, Any]]:
    """Return the metadata of inputs and their arrays by path, as the root's `zarr.json` has it."""
    nodes: dict[str, dict[str, Any]] = {}
    for name, group in groups.items():
        nodes[name] = {"zarr_format": 3, "node_type": "group", "attributes": group.attributes}
        nodes.update({f"{name}/{array}": content for array, content in group.arrays.items()})
    return nodes


def remove_void_chunks(store: InputStore) -> None:
    """Last step of a compaction: remove the chunk groups, then the mark that says they are void. Raises OSError."""
    group = store.group()
    remove_tree(below(store.folder, CHUNKS))
    attributes = {key: value for key, value in group.attributes.items() if key != VOID_CHUNKS}
    store.write_group(Group(attributes, group.arrays, group.consolidated))


def removing(attributes: dict[str, Any]) -> list[str]:
    """Return the arrays that a committed removal has still to put in place; earlier versions named it otherwise."""
    return [name for key, names in attributes.items() if key.startswith(_REMOVING_ANY) for name in names]


def finish_removal(store: InputStore) -> None:
    """Bring a removal of rows to its end. Raises OSError.

    Once it is committed, its arrays take the places of the old ones; before that, they are removed.
    """
    group = store.group()
    for name in removing(group.attributes):
        made, place = below(store.folder, ASIDE, name), below(store.folder, name)
        if os.path.isdir(made):
            remove_tree(place)
            os.rename(made, place)
    remove_tree(below(store.folder, ASIDE))
    store.sweep_inventories()
    if any(key.startswith(_REMOVING_ANY) for key in group.attributes):
        attributes = {key: value for key, value in group.attributes.items() if not key.startswith(_REMOVING_ANY)}
        store.write_group(Group(attributes, group.arrays, group.consolidated))


def read_input(path: str | Path, name: str) -> Group | None:
    """Read the group of an input; None if the folder has no group of ours. Raises StoreError."""
    folder = f"{path}/{name}"
    advice = f"{_ADVICE}, or remove the folder {folder} and run again, which keeps the other inputs"
    group = read_group(folder, advice, partial(_check_input, folder))
    if group is None or not _is_input(group):
        return None
    below(path, name)  # raises unless the name is a plain one
    return group


def _is_input(group: Group) -> bool:
    """Return whether a group is one of ours. One without stages, but with the length of its chunks, is damaged."""
    return not {"stages", "chunk_frames"}.isdisjoint(group.attributes)


def _check_input(folder: str, group: Group) -> None:
    """Check what an input's `zarr.json` says: it leads to files that are read, written and removed.

    Raises StoreError.
    """
    if not _is_input(group):
        return
    refuse_link(folder)
    for name, content in group.arrays.items():
        check_array(folder, name, content)
        if not group.sealed and not any(os.path.isdir(f"{folder}/{place}") for place in (name, f"{ASIDE}/{name}")):
            raise StoreError(f"array {name!r} in {folder} is gone; restore it, or remove {folder} and run again")
    for key in (key for key in group.attributes if key.startswith(_REMOVING_ANY)):
        named = group.attributes[key]
        if not isinstance(named, list) or any(not isinstance(one, str) or one not in group.arrays for one in named):
            raise StoreError(
                f"{folder} lists {named!r:.200} under {key!r}, and not arrays of its own; do not use this store"
            )
    flaw = flaw_of_input(group.attributes, group.arrays, group.sealed)
    if flaw:
        raise StoreError(f"{folder} has damaged attributes ({flaw}); restore it, or remove this folder and run again")


def read_root(path: Path) -> Group | None:
    """Read the root group of a store; None if there is none. Raises StoreError."""
    node = f"{path}/{NODE_FILE}"
    advice = f"{_ADVICE}, or delete {node} alone and run again, which keeps the inputs"

    def check(group: Group) -> None:
        flaw = flaw_of_root(group.attributes) if "reelgraph" in group.attributes else ""
        if flaw:
            raise DamagedMetadataError(f"{path} has damaged attributes ({flaw}); {advice}")

    return read_group(path, advice, check)


def require_store(path: Path, *, absent_is_fine: bool = False, fresh: bool = False) -> None:
    """Raise StoreError unless a folder is a reelgraph store, or may become one: absent, or empty.

    With `fresh` its metadata may be damaged.
    """
    with disk_errors(f"read {path}"):
        exists, is_folder = path.exists(), path.is_dir()
    if exists and not is_folder:
        raise StoreError(f"{path} is a file, not a store; choose another {'output' if absent_is_fine else 'path'}")
    if not exists:
        if absent_is_fine:
            return
        raise StoreError(f"there is no store at {path}; check the path")
    if fresh and _is_damaged_root(path):
        return
    with disk_errors(f"read {path}"):
        group = read_root(path)
        left = [] if group is not None else [name for name in os.listdir(path) if not _is_transient(name)]
        is_ours = [_is_debris(path, name) or read_input(path, name) is not None for name in left]
    if group is None and all(is_ours):
        if absent_is_fine:
            return  # empty, or what is left of a store that was deleted in the middle of a run
        if is_ours:
            raise DamagedMetadataError(f"{path} has lost its {NODE_FILE}; run again to make it: its inputs are kept")
    if group is None or "reelgraph" not in group.attributes:
        advice = "choose another output; nothing in it was touched" if absent_is_fine else "check the path"
        raise StoreError(f"{path} exists and is not a reelgraph store; {advice}")
    found = group.attributes.get("store_format", STORE_FORMAT)
    if found != STORE_FORMAT:
        raise StoreError(
            f"{path} has store format {found}, made by reelgraph {group.attributes['reelgraph']}; "
            f"this reelgraph {__version__} reads format {STORE_FORMAT}"
        )


def is_unused(path: Path) -> bool:
    """Return whether a folder is empty, or has what is left of a run that was killed before it made a store."""
    with disk_errors(f"read {path}"):
        return path.is_dir() and all(map(_is_transient, os.listdir(path)))


def each_once(outs: Iterable[Named]) -> list[Named]:
    """Stores as they are named first: what is named twice (`runs/*.zarr runs/clip.zarr`) must not count twice."""
    first: dict[Path, Named] = {}
    for out in outs:
        first.setdefault(located(out), out)
    return list(first.values())


def list_inputs(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Name and attributes of every input, in order of first sight. Raises StoreError."""
    with disk_errors(f"read {path}"):
        root = read_group(path)
        if root is None or root.attributes.get(CLEARING):
            return []
        names = folders_in(path)
    found = [(name, group.attributes) for name in names if (group := read_input(path, name)) is not None]
    return sorted(found, key=lambda item: (item[1].get("order", 0), item[0]))


def safe_name(stem: str) -> str:
    """A name that file systems, Zarr, shells and URLs bear: letters, digits, `.`, `-`, `_`, at most 100 bytes."""
    name = re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", stem)).strip("._-")
    name = name.encode()[:100].decode(errors="ignore")
    return "input" if name.lower() in ("", NODE_FILE) else name


def _folded(name: str) -> str:
    """Equal for names that some file system takes for one (case, composition of accents)."""
    return unicodedata.normalize("NFKC", name).casefold()


def _is_free(folder: Path) -> bool:
    """Return whether a new input may take this folder: absent, or left by a kill before its group was committed."""
    if folder.is_symlink():
        return False
    try:
        return all(name in (CHUNKS, INVENTORY_FILE) or name.endswith(PARTIAL) for name in os.listdir(folder))
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        return False


def _is_damaged_root(path: Path) -> bool:
    """Return whether a folder is a store with a root that cannot be read, and holds nothing but Zarr groups."""
    try:
        read_root(path)
    except DamagedMetadataError:
        names = [name for name in os.listdir(path) if name != NODE_FILE and not _is_transient(name)]
        return all(_is_debris(path, name) or (path / name / NODE_FILE).is_file() for name in names)
    return False


def _is_debris(path: Path, name: str) -> bool:
    """Return whether a folder holds nothing but chunks, without an input that they could be of."""
    folder = path / name
    chunks = folder / CHUNKS
    return chunks.is_dir() and not chunks.is_symlink() and _is_free(folder) and are_chunks(chunks)


def _is_transient(name: str) -> bool:
    return name.startswith(LOCK_FILE) or name.endswith(PARTIAL)


def _known_by(facts: Mapping[str, Any]) -> str:
    """Return the path by which an input is found again: later parts of a video have the path of its file."""
    path = str(facts.get("path", ""))
    return f"{path}#{facts['part']}" if "part" in facts else path

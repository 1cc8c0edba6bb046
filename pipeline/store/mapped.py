"""Stored arrays in memory maps: the processes of a machine share one copy of what they read, in its page cache.

An array is mapped if it is stored as it is (`Array.mapped`, compact.is_dense). Chunks of others are unpacked, and held
in bounded memory.
"""

from __future__ import annotations

import mmap
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import count

import numpy as np

from pipeline.errors import StoreError
from pipeline.files.regular import open_file
from pipeline.store.pieces import Shard, is_ours
from pipeline.store.run import InputStore

HELD_BYTES = 128 << 20
"""Unpacked chunks that a process holds, of all arrays together."""
TOUCHED_BYTES = 64 << 20
"""Mapped rows that a process gives out before it lets their pages go.

They stay in the page cache, and cost little to touch again. But a worker's limit of memory counts those that it has
touched, though they are shared.
"""


class _Held:
    """Unpacked chunks, the least recently used ones let go."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.bytes = 0
        self._chunks: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, array: MappedArray, chunk: int) -> np.ndarray:
        key = (array.number, chunk)
        with self._lock:
            if key in self._chunks:
                self._chunks.move_to_end(key)
                return self._chunks[key]
        found = array.unpacked(chunk)
        with self._lock:
            if key not in self._chunks:
                self._chunks[key] = found
                self.bytes += found.nbytes
            while self.bytes > self.most_bytes and len(self._chunks) > 1:
                self.bytes -= self._chunks.popitem(last=False)[1].nbytes
        return found


_HELD = _Held(HELD_BYTES)
_NUMBERS = count()


class MappedArray:
    """Rows of one array of a complete input, read-only. Safe to use from several threads."""

    def __init__(self, store: InputStore, name: str) -> None:
        self._store, self.name, self.number = store, name, next(_NUMBERS)
        node = store.group().arrays[name]
        self.shape = tuple(node["shape"])
        self.dtype = np.dtype(object if node["data_type"] == "string" else node["data_type"])
        self.is_ours = is_ours(node)
        inner = node["codecs"][0].get("configuration", {})
        self.chunk_rows = int(inner["chunk_shape"][0]) if self.is_ours else 4096
        self.shard_rows = int(node["chunk_grid"]["configuration"]["chunk_shape"][0]) if self.is_ours else 0
        self._node, self._folder = node, store.array_folder(name)
        self._maps: dict[int, mmap.mmap | None] = {}
        self._views: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()
        self.touched = 0
        """Bytes of mapped rows given out since the last `release`."""

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return rows start (inclusive) to stop (exclusive): a view of the file, where they lie in one chunk of it.

        Raises StoreError if they are missing or damaged.
        """
        first, last = start // self.chunk_rows, (stop - 1) // self.chunk_rows
        parts = [] if start < stop else [np.empty((0, *self.shape[1:]), self.dtype)]
        for k in range(first, last + 1) if start < stop else ():
            base = k * self.chunk_rows
            parts.append(self._chunk(k)[max(start - base, 0) : min(stop - base, self.chunk_rows)])
        found = parts[0] if len(parts) == 1 else np.concatenate(parts)
        found.flags.writeable = False
        self.touched += found.nbytes
        return found

    def release(self) -> None:
        """Let go of the pages of all maps. What was given out stays valid: it is read again from the page cache."""
        with self._lock:
            self.touched = 0
            for mapped in self._maps.values():
                if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
                    mapped.madvise(mmap.MADV_DONTNEED)

    def unpacked(self, k: int) -> np.ndarray:
        """Return chunk k in memory of its own."""
        start = k * self.chunk_rows
        if not self.is_ours:
            return self._store.read_rows(self.name, start, min(start + self.chunk_rows, self.shape[0]))
        shard, inside = self._place(k)
        return shard.take(np.arange(inside * self.chunk_rows, (inside + 1) * self.chunk_rows))

    def _chunk(self, k: int) -> np.ndarray:
        view = self._views.get(k)
        if view is not None:
            return view
        mapped = self._map(k // (self.shard_rows // self.chunk_rows)) if self.is_ours else None
        if mapped is None:
            return _HELD.get(self, k)
        shard, inside = self._place(k)
        with self._lock:
            if k not in self._views:
                self._views[k] = shard.view(inside, mapped)  # compares its checksum, once in a process
            return self._views[k]

    def _map(self, k: int) -> mmap.mmap | None:
        """Return the map of shard k; None if it is packed, or if its disk allows none."""
        with self._lock:
            if k not in self._maps:
                shard = self._shard(k)
                self._maps[k] = None if shard.is_packed else _mapped(shard.path)
            return self._maps[k]

    def _place(self, chunk: int) -> tuple[Shard, int]:
        """Return the shard of a chunk, and its number within it."""
        shard, inside = divmod(chunk, self.shard_rows // self.chunk_rows)
        return self._shard(shard), inside

    def _shard(self, k: int) -> Shard:
        return Shard(f"{self._folder}/c/{k}{'/0' * (len(self.shape) - 1)}", self._node)


def _mapped(path: str) -> mmap.mmap | None:
    try:
        with open_file(path) as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError as err:
        raise StoreError(f"{path} is gone; restore it, or delete the store and run again") from err
    except (OSError, ValueError):
        return None  # some network disks; what is wrong with the file shows when it is read


class StoredItems:
    """Arrays of the items of several complete inputs of a store, counted one after the other."""

    def __init__(self, path: str, names: Sequence[str]) -> None:
        self._inputs = [InputStore(path, name) for name in names]
        self._axes = [store.axes() for store in self._inputs]
        lengths = [int(store.attributes["frames"]) for store in self._inputs]
        self._starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        self._arrays: dict[tuple[int, str], MappedArray] = {}
        self._rows: dict[tuple[int, str], np.ndarray] = {}
        self._values: dict[str, np.ndarray] = {}
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __contains__(self, name: str) -> bool:
        return all(name in store.group().arrays for store in self._inputs)

    def values(self, name: str) -> np.ndarray:
        """Return an array along the items, whole."""
        with self._lock:
            if name not in self._values:
                self._values[name] = np.concatenate([one.read_rows(name, 0, None) for one in self._inputs])
            return self._values[name]

    def rows(self, name: str, item: int) -> np.ndarray:
        """Return the rows of one item in an array along a ragged axis: read-only, mapped if possible.

        Raises StoreError if they are missing or damaged.
        """
        k = int(np.searchsorted(self._starts, item, side="right")) - 1
        array, starts = self._opened(k, name)
        local = item - int(self._starts[k])
        found = array.rows(int(starts[local]), int(starts[local + 1]))
        if array.touched > TOUCHED_BYTES:
            array.release()
        return found

    def _opened(self, k: int, name: str) -> tuple[MappedArray, np.ndarray]:
        with self._lock:
            if (k, name) not in self._arrays:
                self._arrays[k, name] = array = MappedArray(self._inputs[k], name)
                dim = self._inputs[k].group().arrays[name]["dimension_names"][0]
                counts = self._inputs[k].read_rows(self._axes[k][dim].count, 0, None)
                self._rows[k, name] = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
                if self._rows[k, name][-1] != array.shape[0]:
                    raise StoreError(
                        f"array {name!r} of {self._inputs[k].name!r} in {self._inputs[k].path} has {array.shape[0]} "
                        f"rows, and {self._rows[k, name][-1]} are counted; start over with --fresh"
                    )
            return self._arrays[k, name], self._rows[k, name]


class RowsOfItems:
    """The rows of some items in one array: a sequence of read-only arrays. Pickles as names and numbers."""

    def __init__(self, path: str, names: tuple[str, ...], state: str, array: str, items: np.ndarray) -> None:
        """`state`: name of an opening. A process that has opened the inputs under another name opens them again."""
        self._key = (path, names, state)
        self.array, self.items = array, items

    @cached_property
    def _stored(self) -> StoredItems:
        return opened(*self._key)

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in self.__dict__.items() if key != "_stored"}

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, k: int) -> np.ndarray:
        return self._stored.rows(self.array, int(self.items[k]))

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[k] for k in range(len(self)))


@lru_cache(maxsize=4)
def opened(path: str, names: tuple[str, ...], state: str) -> StoredItems:
    """Return the items of inputs, opened once in a process; see RowsOfItems for `state`."""
    return StoredItems(path, names)

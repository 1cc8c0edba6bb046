"""Pictures that belong together, as one input: their names, in order, and the shelves that give them."""

from __future__ import annotations

import json
import os
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.errors import InputError
from pipeline.files.regular import open_file
from pipeline.media.images.copies import Inventory, without_copies
from pipeline.media.images.folders import search
from pipeline.media.images.names import Names, of_lines, path_of
from pipeline.media.images.reading import SUFFIXES
from pipeline.media.images.shelves import ArrayRows, Files, Passed, Shelf, TableRows, TarMembers, opened
from pipeline.text import plural

TAR, TABLE, HDF5, ZARR = ".tar", ".parquet", (".h5", ".hdf5", ".hdf"), ".zarr"
CLASS, CLASS_NAMES = ".cls", "__class_names__"
"""Members of a tar file: the label of a picture, and a list of names by label. WebDataset passes over the latter."""
COMPRESSED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")


FOR_VIDEOS = "leave out --images, or write source: {kind: video} in a workflow of your own"


class Collection(ABC):
    """The pictures of one input."""

    kind: str
    def __init__(self, path: str) -> None:
        self.path = path
        self.names = Names.of([])
        self.passed = Passed()

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def shelf(self, start: int, stop: int) -> Shelf:
        """Return pictures start (inclusive) to stop (exclusive)."""


class FilesOf(Collection):
    """Files with names relative to a folder: all of it, those of a list, or those that were named.

    The list of its names is kept in the store, since what it holds may change.
    """

    def __init__(
        self, path: str, kind: str, folder: str, names: Names, passed: Passed | None = None,
        inventory: Inventory | None = None,
    ) -> None:  # fmt: skip
        super().__init__(path)
        self.kind, self.folder, self.names = kind, folder, names
        self.inventory = inventory or Inventory(names)
        self.passed = passed or Passed()
        self._root = os.fsencode(folder)

    def shelf(self, start: int, stop: int) -> Shelf:
        return Files(tuple(path_of(self._root, name) for name in self.names[start:stop]))

    def without_copies(self) -> FilesOf:
        """Return the same without pictures that have the content of an earlier one; the inventory has them."""
        inventory = without_copies(self.folder, self.names)
        return FilesOf(self.path, self.kind, self.folder, inventory.names, self.passed, inventory)


def of_folder(path: str) -> FilesOf:
    """Search a folder. Raises InputError if it holds no picture."""
    passed = Passed()
    names = search(path, passed)
    if not len(names):
        told = f" ({passed.told()})" if passed.counts else ""
        if passed.videos:
            raise InputError(f"no pictures in folder {path}, but {plural(passed.videos, 'video')}: {FOR_VIDEOS}")
        raise InputError(f"no pictures in folder {path}{told}; a picture ends in {' '.join(sorted(SUFFIXES))}")
    return FilesOf(path, "folder", path, names, passed)


_LIST_BYTES = 32 << 20
"""Part of a list that is read at once."""


def of_list(path: str) -> FilesOf:
    """Read a list file: one picture per line, relative to it. Raises InputError if it cannot be read or is empty."""
    pieces: list[bytes] = []
    try:
        with open_file(path) as file:
            while lines := file.readlines(_LIST_BYTES):
                pieces.append(of_lines(b"".join(lines), is_first=not pieces))
    except OSError as err:
        raise InputError(f"list {path} cannot be read: {err.strerror}") from err
    except ValueError as err:
        raise InputError(f"list {path} cannot be read as text: {err}") from err
    names = Names(b"".join(pieces)).each_once()
    if not len(names):
        raise InputError(f"list {path} is empty; write one path per line")
    return FilesOf(path, "list", os.path.dirname(path), names)


class Tar(Collection):
    """A tar file, as WebDataset's shards are."""

    kind = "tar"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        names, offsets, sizes = [], [], []
        try:
            with open_file(path) as file, tarfile.open(path, "r:", file) as tar:
                for member in self._members(tar):
                    ending = os.path.splitext(member.name)[1].lower()
                    if os.path.basename(member.name).startswith("."):
                        self.passed.add("hidden files")
                        continue
                    if member.name == CLASS_NAMES:
                        continue
                    if not member.isreg() or member.issparse():
                        if ending in SUFFIXES:
                            self.passed.add("links, sparse files and other members that are not files")
                        continue
                    if ending not in SUFFIXES:
                        self.passed.add(f"files that end in {ending}" if ending else "files without an ending")
                        continue
                    names.append(member.name.encode("utf-8", "surrogateescape"))
                    offsets.append(member.offset_data)
                    sizes.append(member.size)
        except tarfile.TarError as err:
            raise InputError(
                f"{path} cannot be read as a tar file ({err}); if it is compressed, unpack it first"
            ) from err
        except OSError as err:
            raise InputError(f"{path} cannot be read: {err.strerror or err}") from err
        if not names:
            raise InputError(f"no pictures in {path}" + (f" ({self.passed.told()})" if self.passed.counts else ""))
        self.names = Names.of(names)
        self._offsets, self._sizes = np.array(offsets, np.int64), np.array(sizes, np.int64)

    def classes(self) -> tuple[list[bytes | None], list[str] | None]:
        """Return the content of each picture's `.cls` file, None if it has none; and the names in CLASS_NAMES.

        A `.cls` belongs to the picture of its name without the ending, or as WebDataset has it, up to the first dot.
        """
        found: dict[str, bytes] = {}
        names = None
        with open_file(self.path) as file, tarfile.open(self.path, "r:", file) as tar:
            for member in self._members(tar):
                if member.isreg() and (member.name.endswith(CLASS) or member.name == CLASS_NAMES):
                    content = os.pread(file.fileno(), member.size, member.offset_data)
                    if member.name == CLASS_NAMES:
                        names = _list_of(content)
                    else:
                        found[member.name.removesuffix(CLASS)] = content.strip()
        paths = (os.path.splitext(name.decode("utf-8", "surrogateescape"))[0] for name in self.names)
        return [found.get(path, found.get(_up_to_dot(path))) for path in paths], names

    def _members(self, tar: tarfile.TarFile) -> Any:
        found = 0
        try:
            while (member := tar.next()) is not None:
                del tar.members[:-1]  # type: ignore[attr-defined]  # it would keep every header
                if member.size < 0:
                    raise tarfile.ReadError(f"{member.name} has size {member.size}")
                found += 1
                yield member
            tar.fileobj.seek(tar.offset)
            if tar.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise tarfile.ReadError("a header is damaged")
        except tarfile.ReadError:
            if not found:
                raise
            self.passed.add("the end of the tar file, which is cut off or damaged")

    def shelf(self, start: int, stop: int) -> Shelf:
        offsets, sizes = self._offsets[start:stop].tolist(), self._sizes[start:stop].tolist()
        return TarMembers(self.path, tuple(offsets), tuple(sizes))


def _list_of(content: bytes) -> list[str] | None:
    try:
        found = json.loads(content)
    except ValueError:
        return None
    return list(map(str, found)) if isinstance(found, list) else None


def _up_to_dot(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    return folder + slash + name.partition(".")[0]


class Arrays(Collection):
    """An array of an HDF5 file or a Zarr store: one picture per row."""

    def __init__(self, path: str, kind: str, array: str | None, names: str | None) -> None:
        super().__init__(path)
        self.kind = kind
        with opened(path, kind) as store:
            self.array = _chosen(path, array, *_candidates(store, kind))
            rows = int(store[self.array].shape[0])
            if not rows:
                raise InputError(f"{path}: array {self.array!r} is empty")
            self.names = _row_names(path, names, rows, store)

    def shelf(self, start: int, stop: int) -> Shelf:
        return ArrayRows(self.path, self.kind, self.array, start, stop)


def _candidates(store: Any, kind: str) -> tuple[list[str], list[str]]:
    """Return the arrays that can be pictures, one per row: (n, h, w), (n, h, w, 1 or 3), or files as bytes.

    The second list has what is something else more often: texts that may be files, and (height, width, 1 or 3): that
    is one picture.
    """
    found: list[str] = []
    others: list[str] = []

    def look(name: str, array: Any) -> None:
        shape = getattr(array, "shape", None)
        if shape is None:
            return
        is_pixels = array.dtype.kind == "u" and array.dtype.itemsize <= 2 and 0 not in shape[1:]
        is_pixels = is_pixels and (len(shape) == 3 or (len(shape) == 4 and shape[-1] in (1, 3)))
        if is_pixels:
            (others if len(shape) == 3 and shape[-1] in (1, 3) else found).append(name)
        elif len(shape) == 1 and array.dtype.kind in "OVST":
            # HDF5 says what its objects are: texts are names more often than files. So are those of Zarr.
            holds = (array.dtype.metadata or {}).get("vlen", str if array.dtype.kind in "ST" else bytes)
            is_text = kind == "hdf5" and holds in (str, bytes) and array.dtype.kind != "V"
            (others if is_text or array.dtype.kind == "T" else found).append(name)

    if kind == "hdf5":
        store.visititems(look)
    elif isinstance(store, Mapping):
        look("", store[""])
    else:
        for name, array in store.members(max_depth=None):
            look(name, array)
    return sorted(found), sorted(others)


def _chosen(path: str, given: str | None, candidates: Sequence[str], others: Sequence[str] = ()) -> str:
    """Return the array that was named, else the only candidate; `others` can be named too. Raises InputError."""
    if given is not None:
        if given.strip("/") in (*candidates, *others):
            return given.strip("/")
        raise InputError(f"{path} has no array {given!r} of pictures; it has {', '.join(candidates) or 'none'}")
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise InputError(f"{path} has no array of pictures: uint8 (n, height, width, 3), or files as bytes")
    raise InputError(f"{path} has several arrays of pictures ({', '.join(candidates)}); name one: source.array")


def _row_names(path: str, given: str | None, rows: int, store: Any) -> Names:
    """Return the names in an array of them, else the numbers of the rows."""
    if given is None:
        return _numbers(rows)
    try:
        values = np.asarray(store[given.strip("/")][:])
    except (KeyError, TypeError, ValueError) as err:
        raise InputError(f"{path} has no array {given!r}; name that of the names: source.names") from err
    return _checked(path, given, [_bytes(value) for value in values.ravel().tolist()], rows)


def _numbers(rows: int) -> Names:
    return Names.of(f"{row:0{len(str(rows - 1))}d}".encode() for row in range(rows))


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")


def _checked(path: str, given: str, names: list[bytes], rows: int) -> Names:
    if len(names) != rows:
        raise InputError(f"{path}: {given!r} has {len(names)} names for {rows} pictures")
    return Names.of(name.replace(b"\0", b"") for name in names)


class Table(Collection):
    """A Parquet file with a column of files as bytes."""

    kind = "parquet"

    def __init__(self, path: str, column: str | None, names: str | None) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        super().__init__(path)
        try:
            open_file(path).close()  # raises for a pipe, which would be waited for
            with pq.ParquetFile(path) as file:
                kinds = dict(_leaves(file.schema_arrow))
                binary = [name for name, kind in kinds.items() if _is_binary(kind)]
                if not binary:
                    shown = ", ".join(f"{name}: {kind}" for name, kind in kinds.items())
                    raise InputError(f"{path} has no column of files as bytes; it has {shown or 'no column'}")
                self.column = _chosen(path, column, binary)
                counts = [file.metadata.row_group(k).num_rows for k in range(file.metadata.num_row_groups)]
                self._ends = np.cumsum([0, *counts])
                rows = int(self._ends[-1])
                if not rows:
                    raise InputError(f"{path} has no row")
                self.names = _numbers(rows)
                parent, dot, _ = self.column.rpartition(".")
                # Hugging Face's data sets have a field `path` beside the bytes.
                wanted = names or (f"{parent}.path" if dot and f"{parent}.path" in kinds else None)
                if wanted is not None:
                    values = self._read_names(file, wanted)
                    if names is not None or None not in values:
                        pairs = zip(self.names, values, strict=True)
                        given = [number if value is None else _bytes(value) for number, value in pairs]
                        self.names = _checked(path, wanted, given, rows)
        except (pa.ArrowException, OSError, KeyError) as err:
            raise InputError(f"{path} cannot be read as Parquet: {' '.join(str(err).split())}") from err

    def _read_names(self, file: Any, wanted: str) -> list[Any]:
        if wanted not in dict(_leaves(file.schema_arrow)):
            raise InputError(f"{self.path} has no column {wanted!r}; name that of the names: source.names")
        import pyarrow as pa

        column = file.read(columns=[wanted]).column(0).combine_chunks()
        while isinstance(column, pa.StructArray):  # of the one field that was read
            column = column.field(0)
        values: list[Any] = column.to_pylist()
        return values

    def shelf(self, start: int, stop: int) -> Shelf:
        first = int(np.searchsorted(self._ends, start, side="right")) - 1
        last = int(np.searchsorted(self._ends, stop, side="left"))
        skipped = start - int(self._ends[first])
        return TableRows(self.path, self.column, tuple(range(first, last)), skipped, stop - start)


def _leaves(schema: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Return the dotted names and types of the columns, and of the fields within them."""
    import pyarrow as pa

    found = []
    for field in schema:
        name = prefix + field.name
        if pa.types.is_struct(field.type):
            inner = [field.type.field(k) for k in range(field.type.num_fields)]
            found += _leaves(inner, f"{name}.")
        else:
            found.append((name, field.type))
    return found


def _is_binary(kind: Any) -> bool:
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(test(kind) for test in tests)

"""The source interface: which inputs there are, how many items each has, and how a chunk of items is loaded.

A source is found by the `kind` of a workflow's `source:` section, in the entry point group `reelgraph.sources`. To
write one, subclass `Source`, `Job` and `SourceOptions`; see docs/writing-a-source.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pipeline.engine.values import Options, json_values
from pipeline.errors import WorkflowError
from pipeline.store.schema import Array, Schema

if TYPE_CHECKING:
    from pipeline.store.read import RunInput

MAX_CHUNK_FRAMES = 64
MAX_CHUNK_BYTES = 256 << 20
"""Most loaded items in one chunk, in number and in bytes: the unit of memory, of retry and of commit."""


def most_chunk_items(item_bytes: int, most: int | None = None) -> int:
    """Return how many items of this size a chunk may hold, at least 1. `most` replaces MAX_CHUNK_FRAMES."""
    return max(1, min(most or MAX_CHUNK_FRAMES, MAX_CHUNK_BYTES // max(item_bytes, 1)))


INVENTORY = "inventory"
"""Key, among the facts of a stored input that `Source.open` gets, of what `Source.inventory` returned."""

OF = "of"
"""Attribute of an input that is made of others of its store: their names."""


class SourceOptions(Options):
    """The `source:` section of a workflow; each kind of source has its own."""

    UNKEYED: ClassVar[tuple[str, ...]] = ()
    """Options that change nothing in the results (which decoder): they stay out of the resume keys."""

    def keyed(self) -> dict[str, Any]:
        """Return what enters the resume keys, as JSON values."""
        return json_values(self, self.UNKEYED)


@dataclass(frozen=True)
class InputRef:
    """One input as the user named it, before it is opened."""

    path: str
    """Identifies the input: an absolute path, or what the source can open again."""
    name: str
    """The name to give it in the store, before it is made safe and unique."""
    note: str | None = None
    """One line for the user on what the search for inputs left out; None if nothing."""


@dataclass(frozen=True)
class Loaded:
    """The items of one chunk, loaded."""

    arrays: dict[str, Any]
    """Arrays by the names of `Source.loads` and of `Source.found`, one row per item; pixels of an item that could not
    be read are zero. Pictures of different sizes are a sequence that takes a number, a slice or an array of numbers."""
    decoded: np.ndarray
    """bool (n,): false for an item that could not be read."""
    error: str | None = None
    """Reason why items are missing, in one line; None if none is."""
    is_final: bool = False
    """True if to read again would change nothing: items that cannot be read are then a result, not a failure."""


class Job(ABC):
    """All that a worker needs to load one chunk: small, picklable, made from facts found by probing."""

    @abstractmethod
    def load(self, threads: int = 1) -> Loaded:
        """Load the chunk. An item that cannot be read is reported, not raised."""


class Source(ABC):
    """One probed input. Probing reads what describes the items, not the items."""

    kind: ClassVar[str] = ""
    """Name in the workflow's `source.kind`, for a source that an entry point names."""
    Options: ClassVar[type[SourceOptions]] = SourceOptions
    item: ClassVar[str] = "frame"
    """Item axis: "frame" (any picture) or "pair"."""
    noun: ClassVar[str] = ""
    """Name of one item for people ("picture"); "" for that of the axis."""
    arrays: ClassVar[tuple[Array, ...]]
    """Item arrays that `values` gives: every store of this kind holds them."""
    loads: ClassVar[tuple[str, ...]] = ("frames_rgb",)
    """Arrays that a `Job` loads for stages that need them; never stored."""
    most_items: int | None = None
    """Most items in a chunk, the unit of retry and of commit; None: MAX_CHUNK_FRAMES, 64."""

    facts: Mapping[str, Any] = MappingProxyType({})
    """Attributes of the input in the store: JSON values. `path` and `fingerprint` are added."""
    item_bytes: int
    """Bytes of one loaded item, at most; a chunk holds at most MAX_CHUNK_BYTES."""
    origin: tuple[int, int] = (0, 0)
    """x, y in the whole picture of the first pixel that stages see; not 0, 0 if only a part is looked at."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Pixels that stages see in a pixel of the whole picture, along x and y; not 1, 1 if its pixels are not square."""
    note: str | None = None
    """One line for the user on how the input is read; None if nothing is unusual."""

    @classmethod
    def found(cls, options: SourceOptions) -> tuple[Array, ...]:
        """Return the item arrays that jobs find while they load (sizes): stored as well.

        ORIGIN and SCALE of `pipeline.store.schema` are among them if each picture has its own.
        """
        return ()

    @classmethod
    @abstractmethod
    def find(cls, inputs: Sequence[str], options: SourceOptions) -> Iterator[InputRef]:
        """Yield the inputs that the user's words name: files, folders, globs, list files, each once, in order.

        Raises InputError if a word names nothing.
        """

    @classmethod
    @abstractmethod
    def open(cls, ref: InputRef, options: SourceOptions, stored: Mapping[str, Any] | None) -> Source:
        """Probe one input. `stored` holds the attributes of the input in the store, None for a new one.

        Raises InputError if it cannot be used.
        """

    @classmethod
    @abstractmethod
    def fingerprint(cls, ref: InputRef) -> str:
        """Return a digest that changes with the input's content; cheap. Raises InputError or OSError."""

    @classmethod
    def is_stored(cls, ref: InputRef, stored: Mapping[str, Any]) -> bool:
        """Return whether an input is the one that the store has (its attributes), or has only grown since.

        Raises InputError or OSError.
        """
        return cls.fingerprint(ref) == str(stored["fingerprint"])

    @classmethod
    def moved(
        cls, ref: InputRef, options: SourceOptions, lost: Mapping[str, RunInput]
    ) -> tuple[str, Mapping[str, Any]] | None:
        """Return which of the stored inputs lies at `ref` now, and its facts that are others there; None if none does.

        `lost`: stored inputs, by name, whose path is no longer there. Raises InputError or OSError.
        """
        return None

    @classmethod
    def as_stored(cls, ref: InputRef, parts: Sequence[Mapping[str, Any]]) -> InputRef:
        """Return an input with what `later` and `gone` need to know of its stored parts (their attributes)."""
        return ref

    @classmethod
    def grown(cls, ref: InputRef, options: SourceOptions, stored: Mapping[str, Any]) -> InputRef | None:
        """Return what was appended to an input, as an input of its own; None if nothing was.

        `stored`: attributes of the last part of it that the store has. For sources without an inventory; others have
        `later`. Raises InputError if it cannot be searched.
        """
        return None

    @classmethod
    def recognised(
        cls, ref: InputRef, options: SourceOptions, stored: Sequence[bytes],
        reads: Sequence[Callable[[str], np.ndarray] | None],
    ) -> tuple[list[bytes], int]:  # fmt: skip
        """Return inventories with the new items that are equal to stored ones, and the number of these.

        They are not computed again: for `later` they are known. The items themselves, and their order, stay.

        `stored`: what `inventory` returned, of the input and of its later parts. Each of `reads` gives a stored item
        array of one of them; None if that is not complete. Raises InputError if the input cannot be searched.
        """
        return list(stored), 0

    @classmethod
    def later(
        cls, ref: InputRef, options: SourceOptions, stored: Sequence[bytes]
    ) -> tuple[InputRef | None, str | None]:
        """Return what came to an input since it was stored, as an input of its own, and a line on what is gone.

        `stored`: what `inventory` returned, of the input and of its later parts. Raises InputError if it cannot be
        searched.
        """
        return None, None

    @classmethod
    def gone(
        cls, ref: InputRef, options: SourceOptions, stored: bytes, read: Callable[[str], np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, bytes] | None:
        """Return bool (items,), true for stored items that are no longer there; the same for those that have changed;
        and the inventory of the others. None if the source does not know.

        `stored`: what `inventory` returned; `read` gives a stored item array by its name.
        """
        return None

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of items to work on."""

    @abstractmethod
    def values(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """Return the arrays that `arrays` declares, for items start (inclusive) to stop (exclusive)."""

    @abstractmethod
    def job(self, start: int, stop: int) -> Job:
        """Return the job that loads items start (inclusive) to stop (exclusive)."""

    def job_of(self, start: int, stop: int, loads: Sequence[str]) -> Job:
        """Return the job that loads items start to stop, with the arrays that the stages of a chunk need of it."""
        return self.job(start, stop)

    def inventory(self) -> bytes | None:
        """Return what the store is to keep of the list of items, None for nothing; `open` gets it back.

        For an input whose items may change from one run to the next: those that a store has stay as they were.
        """
        return None

    def cost(self, chunk_items: int) -> int:
        """Return what loading all chunks of this length costs, in items read. A video reads more than it samples."""
        return len(self)

    def where(self, start: int, stop: int) -> str:
        """Return the place of items start to stop in words, for messages: a range of times, of names, of numbers."""
        return f"{self.item}s {start} to {stop - 1}"

    @property
    def description(self) -> str:
        """Look of the input in a few words, for `plan`: "1920×1080, pyav"."""
        return ""


@dataclass(frozen=True)
class StoredRef(InputRef):
    """An input that is made of inputs of the same store."""

    inputs: tuple[RunInput, ...] = ()
    """A complete input, after those that it is a later part of: items are new if the last one has part in them."""
    later: tuple[RunInput, ...] = ()
    """Complete later parts, with items of their own: what names one of their items is not a mistake."""


class StoredSource(Source):
    """A source of items that are made of the items of the same store: pairs of pictures.

    A workflow has a section of its own for it, by the name of an entry point in the group `reelgraph.passes`. Its items
    are a second pass, once all that they are made of is stored, with inputs, chunks and commits of its own.
    """

    @classmethod
    @abstractmethod
    def loads_of(cls, stored: Schema) -> dict[str, tuple[str, ...]]:
        """Return the arrays that jobs load, by the stored array that they are taken from: `a_box`, `b_box` of `box`."""

    @classmethod
    def expected(
        cls, options: SourceOptions, items: int, earlier: int, values: Callable[[], Mapping[str, np.ndarray] | None]
    ) -> int | None:
        """Return the number of items that an input of `items` others makes, at most; None if that is not known.

        `earlier`: items of those inputs that it is a later part of. `values` returns what the source says of each item
        (`Source.values`), of the input with all its parts in order; None if it cannot be opened.
        """
        return None

    @classmethod
    def check(
        cls, options: SourceOptions, arrays: Mapping[str, Array], items: Callable[[], Mapping[str, np.ndarray] | None]
    ) -> None:
        """Check the options before an input is worked on that the items will be made of. Raises InputError.

        `arrays`: those that the input will have. `items` returns what its source says of each item (`Source.values`),
        also of later parts; None if it cannot be opened.
        """

    @classmethod
    def find(cls, inputs: Sequence[str], options: SourceOptions) -> Iterator[InputRef]:
        raise WorkflowError(f"{cls.kind} are made of what a source gives; give them a section {cls.kind}: beside it")

    @classmethod
    def fingerprint(cls, ref: InputRef) -> str:
        """Return a digest of which items the inputs have. Their values have resume keys."""
        assert isinstance(ref, StoredRef)
        digest = sha256()
        for item in ref.inputs:
            digest.update(f"{item.name}\0{item.attributes['fingerprint']}\0{item.frames_total}\0".encode())
            digest.update(item.inventory_digest())
        return digest.hexdigest()[:32]

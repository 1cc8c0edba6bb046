"""`reelgraph export`: the rows of an axis, over all inputs of one or several stores, in a file of some format.

A format is a subclass of `Export`, found by its name in the entry point group `reelgraph.exports`, or by
`package.module:Class`. This one writes a line per input:

    class Counts(pipeline.Export):
        def write(self, file, stored):
            for one in stored.inputs:
                n_rows = sum(len(batch) for batch in one.batches())
                file.write(f"{one.name}: {n_rows} rows\\n".encode())

    reelgraph export OUT --to counts.txt --format mymodule:Counts
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import IO, Any, ClassVar

import pyarrow as pa

from pipeline.engine.events import Listener, PassStarted, Silent
from pipeline.engine.finding import EXPORTS, find, find_each, names
from pipeline.engine.workflow import make_importable
from pipeline.errors import InputError, ReelgraphError, StoreError, UsageError
from pipeline.files.whole import errors_of, refuse_in_store, written_whole
from pipeline.media.images.copies import Inventory
from pipeline.media.spans import is_timed
from pipeline.store.facts import stage_sections
from pipeline.store.read import Run, RunInput
from pipeline.store.read import open as open_store
from pipeline.store.run import each_once
from pipeline.text import plural, plural_of, unknown
from pipeline.views.axes import axes_of, chosen_axis, item_of, items_of, noun_of
from pipeline.views.progress import Work
from pipeline.views.tables.rows import Block, Column, blocks, columns, record_batch, schema_of

STANDARD_OUTPUT = "-"
_EACH = "{input}"
"""Part of a file's name that stands for the name of an input."""
CAMERAS = ("per-image", "per-folder", "single")
"""Pictures that share a camera in the file: none, those of a folder, all."""
REGISTRY = "registry"
"""Attribute of an array: path of the file, from the store, that has the names of its numbers."""
_PART = "{part}"
"""Part of a file's name that stands for the number of a part, from 0."""


@dataclass
class Exported:
    """What an export wrote."""

    file: str
    format: str
    axis: str
    item: str
    noun: str
    """Name of one item for people."""
    rows: int = 0
    items: int = 0
    """Items that were gone through, with and without rows."""
    inputs: int = 0
    columns: list[str] = field(default_factory=list)
    """Names, in order; empty if the format has none."""
    done_share: float = 1.0
    """Share of the stores' items that is done: below 1, the rest is not in the file."""
    notes: list[str] = field(default_factory=list)
    """One line for each thing that the file cannot say."""
    left_out: list[str] = field(default_factory=list)
    """One line for each input that has no file of its own, with the reason; the others have theirs."""

    @property
    def exit_code(self) -> int:
        return 1 if self.left_out else 0

    def __getattr__(self, name: str) -> int:
        """Return a count by its plural noun: `exported.faces`, `exported.frames`."""
        known = self.__dict__
        for noun, count in ((known.get("axis"), known.get("rows")), (known.get("item"), known.get("items"))):
            if noun is not None and plural_of(noun) == name:
                return int(count or 0)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values; counts have the plural of their noun as key: "objects", "frames"."""
        return {
            "file": self.file, "format": self.format, "axis": self.axis, plural_of(self.axis): self.rows,
            plural_of(self.item): self.items, "inputs": self.inputs, "columns": self.columns,
            "done_share": self.done_share, "notes": self.notes, "left_out": self.left_out,
        }  # fmt: skip


class Export(ABC):
    """A format of a file that stored rows are written to."""

    suffixes: ClassVar[tuple[str, ...]] = ()
    """Ends of file names that choose this format if none is named: (".csv",)."""
    axes: ClassVar[tuple[str, ...]] = ()
    """Axes whose rows the format can hold; () for any."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Arrays that an axis must have for the format to hold its rows: ("box",)."""
    flags: ClassVar[tuple[str, ...]] = ()
    """Flags that the format supports: "embeddings", "array", "parts", "all_frames", "images", "start_timecode",
    "frame_rate", "camera"."""
    noun: ClassVar[str] = ""
    """Noun for what the file holds, if that is not the axis: "appearance"."""
    one_input: ClassVar[bool] = False
    """True if the file belongs to one video: several inputs then need a file each."""
    of_films: ClassVar[bool] = False
    """True if the format places rows in time: pictures have no place in it."""
    flat: ClassVar[bool] = False
    """True if a cell holds one value, so that an array of several values needs several columns."""
    with_vectors: ClassVar[bool] = False
    """True if the format has vectors of the items unasked, in a store that has no other rows."""
    to_standard_output: ClassVar[bool] = True
    """False if the format needs a file."""
    has_copies: ClassVar[bool] = False
    """True if pictures with the content of another (`duplicates: once`) are in the file too."""
    beside: ClassVar[tuple[str, ...]] = ()
    """Ends of the names of further files that belong to each file: ".names.txt". See `StoredRows.beside`."""

    in_use: ClassVar[tuple[str, ...]] = ()
    """Ends of the names of files that lie beside a file while another program has it open: it is not replaced then."""

    @abstractmethod
    def write(self, file: IO[bytes], stored: StoredRows) -> None:
        """Write all rows. The file appears only when this returns."""


class InputRows:
    """The rows of one input along the exported axis."""

    def __init__(self, run: Run, item: RunInput, stored: StoredRows, items: tuple[int, int] | None = None) -> None:
        self.run, self.item, self._stored, self._items = run, item, stored, items
        several = len(stored.runs) > 1
        self.name = f"{run.path.name}/{item.name}" if several else item.name
        """Name of the input, with the store's name if there are several stores."""

    @property
    def n_items(self) -> int:
        """Number of items that can be read."""
        return sum(stop - start for start, stop in self.item.spans(sys.maxsize))

    def part(self, first: int, last: int) -> InputRows:
        """Return the same input with only these of its items, first (inclusive) to last (exclusive)."""
        return InputRows(self.run, self.item, self._stored, (max(0, first), min(last, self.n_items)))

    @property
    def follows(self) -> bool:
        """True if an earlier file has the first items."""
        return self._items is not None and self._items[0] > 0

    @property
    def goes_on(self) -> bool:
        """True if a later file has the last items."""
        return self._items is not None and self._items[1] < self.n_items

    @cached_property
    def columns(self) -> dict[str, Column]:
        """Columns of this input by name."""
        stored = self._stored
        return columns(self.run, self.item, stored.axis, wide=stored.embeddings, flat=stored.flat)

    def blocks(self, arrays: Iterable[str] = ()) -> Iterator[Block]:
        """Yield the rows in order, a block at a time: arrays as stored, those of the columns and those named."""
        if self._items is not None and self._items[0] >= self._items[1]:
            return iter(())
        needs = [name for column in self.columns.values() for name in column.needs]
        return self._stored._counted(self, blocks(self.item, self._stored.axis, [*needs, *arrays], self._items))

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order as Arrow record batches with the columns of all inputs (`StoredRows.schema`)."""
        return (record_batch(block, self.columns, self._stored.schema) for block in self.blocks())


class StoredRows:
    """The rows of one axis, over all inputs of one or several stores: what an export is made of."""

    def __init__(
        self, runs: Sequence[Run], axis: str, *, embeddings: bool = False, all_frames: bool = False, flat: bool = False,
        images: Path | None = None, start_timecode: str | None = None, frame_rate: str | None = None,
        array: str | None = None, camera: str | None = None, progress: Listener | None = None,
    ) -> None:  # fmt: skip
        self.runs, self.axis, self.array = tuple(runs), axis, array
        self.item = item_of(runs, axis)
        """Item axis: "frame", "pair". Rows are items themselves if it equals `axis`."""
        self.embeddings, self.all_frames, self.flat = embeddings, all_frames, flat
        self.images, self.start_timecode, self.frame_rate = images, start_timecode, frame_rate
        self.camera = camera
        self.notes: list[str] = []
        """Lines to show with the result."""
        self.beside: list[IO[bytes]] = []
        """The files that `Export.beside` names, in that order; they appear just before the file itself."""
        self.inputs = [
            InputRows(run, item, self) for run in runs for item in run.inputs.values() if item.item == self.item
        ]
        self.all_inputs = tuple(self.inputs)
        """The inputs of all files, if each has a file of its own; `inputs` are those of one file."""
        self.n_rows = self.n_items = 0
        """Rows and items that were gone through so far."""
        listener = progress or Silent()
        noun = noun_of(self.runs, self.item)
        if noun != "frame":
            listener.on(PassStarted(len(self.inputs), noun))
        self._work = Work(listener)

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns of all inputs, as Arrow types."""
        return schema_of(self.runs, self.axis, self.item, [one.columns for one in self.inputs])

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield all rows of all inputs as Arrow record batches."""
        for one in self.inputs:
            yield from one.batches()

    def _counted(self, one: InputRows, found: Iterable[Block]) -> Iterator[Block]:
        if not one.follows:
            self._work.started(one.name, one.item.frames_done)
        for block in found:
            yield block
            self.n_rows += block.n_rows
            self.n_items += block.n_items
            rows = {} if self.axis == self.item else {self.axis: block.n_rows}
            self._work.done(one.name, block.n_items, rows)
        if not one.goes_on:
            self._work.finished(one.name)


def export(
    outs: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    axis: str | None = None,
    format: str | None = None,
    embeddings: bool = False,
    all_frames: bool = False,
    images: str | os.PathLike[str] | None = None,
    start_timecode: str | None = None,
    frame_rate: str | None = None,
    array: str | None = None,
    parts: int | None = None,
    camera: str | None = None,
    force: bool = False,
    progress: Listener | None = None,
) -> Exported:
    """Write the rows of one or several stores, done or half done, to a file, in bounded memory.

    `axis`: rows to write ("face", "object"), or the items ("frame"); None takes the first ragged axis that the format
    can hold, else the items. `format`: a name, or a class of your own as "package.module:Class"; None goes by the
    file's suffix. `to` "-" is standard output; with "{input}" in its name each input has a file of its own.
    `array`: the features to write, if the store holds several. `parts`: number of files to cut the items into, named
    by "{part}". `camera`: one of CAMERAS. `all_frames`: COCO lists frames without rows too. `images`: folder for the
    pictures that COCO names.
    `start_timecode`, `frame_rate`: timecode of the first frame, and timecodes per second, in place of the video's own.
    A file appears whole or not at all. With "{input}", an input that the format cannot hold is left out, and the result
    says why. Raises UsageError if the file exists (unless `force`) or cannot be written.
    Raises UsageError if there is no such format or axis; StoreError if a store cannot be read.
    """
    paths = [outs] if isinstance(outs, str | os.PathLike) else list(outs)
    to = os.path.expanduser(to)  # a shell leaves the ~ of --to=~/faces.csv and of '~/{input}.srt' as it is
    name, chosen = _format(to, format)
    flags = {
        "embeddings": embeddings, "all_frames": all_frames, "images": images, "start_timecode": start_timecode,
        "frame_rate": frame_rate, "array": array, "parts": parts, "camera": camera,
    }  # fmt: skip
    _check(to, name, chosen, flags, force)
    if camera is not None and camera not in CAMERAS:
        raise UsageError("--camera: " + unknown("choice", camera, CAMERAS))
    runs = [open_store(path) for path in each_once(paths)]
    axis = _axis(runs, axis, name, chosen)
    alone = all(item_of(runs, other) != item_of(runs, axis) for other in axes_of(runs))
    stored = StoredRows(
        runs, axis, embeddings=embeddings or (chosen.with_vectors and alone), all_frames=all_frames, flat=chosen.flat,
        images=Path(images).expanduser() if images else None, start_timecode=start_timecode, frame_rate=frame_rate,
        array=array, camera=camera, progress=progress,
    )  # fmt: skip
    schemas: dict[str, None] = {}
    left_out: dict[str, ReelgraphError] = {}
    files = _files(to, name, chosen, stored, force, parts, left_out)
    _refuse_sources([one for target, _ in files for one in (target, *_beside(target, chosen))], runs)
    for target, its_inputs in files:
        stored.inputs = its_inputs
        stored.__dict__.pop("schema", None)  # each file has the columns of its own inputs
        before = stored.n_rows, stored.n_items
        try:
            with _sink(target) as file, contextlib.ExitStack() as others:
                stored.beside = [others.enter_context(_sink(path)) for path in _beside(target, chosen)]
                with errors_of(target):
                    _write(name, chosen, file, stored)
                    if stored.beside:  # the file itself comes last: if it is there, those beside it are of its export
                        Path(target).expanduser().unlink(missing_ok=True)
        except (UsageError, InputError, StoreError) as err:
            if _EACH not in to:
                raise
            left_out.setdefault(its_inputs[0].name, err)
            stored.n_rows, stored.n_items = before
        schemas |= dict.fromkeys(stored.schema.names if "schema" in stored.__dict__ else ())
    if left_out and len(left_out) == len(stored.all_inputs):
        raise next(iter(left_out.values()))
    stored.all_inputs = tuple(one for one in stored.all_inputs if one.name not in left_out)
    total = sum(one.item.frames_total for one in stored.all_inputs)
    done = sum(one.item.frames_done for one in stored.all_inputs)
    noun = chosen.noun or stored.axis
    counts = stored.n_rows, stored.n_items, len(stored.all_inputs)
    item_noun = noun_of([one.run for one in stored.all_inputs] or runs, stored.item)
    exported = Exported(to, name, noun, stored.item, item_noun, *counts)
    if not chosen.has_copies and (copies := sum(_copies(one.item) for one in stored.all_inputs)):
        are = "is" if copies == 1 else "are"
        stored.notes.append(
            f"{plural(copies, 'picture')} with the content of another {are} not in the file; "
            "features as .h5, .npy or .faiss have all"
        )
    exported.columns, exported.notes = list(schemas), list(dict.fromkeys(stored.notes))
    exported.done_share = done / total if total else 1.0
    exported.left_out = [f"{one}: no file is written: {err}" for one, err in left_out.items()]
    return exported


def _copies(item: RunInput) -> int:
    """Return the number of pictures of an input that were not computed, since another one has their content."""
    inventory = Inventory.of_input(item)
    return 0 if inventory is None else len(inventory.copies)


def _files(
    to: str, name: str, chosen: type[Export], stored: StoredRows, force: bool, parts: int | None,
    left_out: dict[str, ReelgraphError],
) -> list[tuple[str, list[InputRows]]]:  # fmt: skip
    """Return the files to write, each with its inputs. `left_out` gets inputs that the format cannot hold.

    Raises UsageError if one file would hold such an input.
    """
    inputs = stored.inputs
    for one in [one for one in inputs if chosen.of_films and not is_timed(one.item)]:
        err = UsageError(f"{one.name!r} holds pictures, and format {name} needs a film; export it as csv or coco")
        if _EACH not in to:
            raise err
        left_out[one.name] = err
    inputs = [one for one in inputs if one.name not in left_out]
    files = [(to, inputs)]
    if _EACH in to:
        files = [(to.replace(_EACH, one.name), [one]) for one in inputs]
    elif chosen.one_input and len(inputs) > 1:
        raise UsageError(
            f"a file of format {name} belongs to one video, and there are {len(inputs)}; write a file each with "
            f"--to '{Path(to).with_name(_EACH + _suffix(name, chosen))}'"
        )
    if parts is not None:
        files = [
            (path.replace(_PART, str(number)), part)
            for path, whole in files
            for number, part in enumerate(_parts(whole, parts))
        ]
    named = [path for path, _ in files]
    twice = next((path for path in named if named.count(path) > 1), None)
    if twice is not None:
        raise UsageError(f"{twice} would be written twice; export the stores one by one")
    for path in named:
        _check_place(path, chosen, force)
    return files


def _suffix(name: str, chosen: type[Export]) -> str:
    return (*chosen.suffixes, f".{name}")[0]


def _parts(inputs: Sequence[InputRows], parts: int) -> Iterator[list[InputRows]]:
    """Yield equal contiguous parts of the items of all inputs; the first ones have one item more if that must be."""
    stops = list(accumulate(one.n_items for one in inputs))
    least, more = divmod(stops[-1] if stops else 0, parts)
    for number in range(parts):
        first = number * least + min(number, more)
        last = first + least + (number < more)
        yield [one.part(first - start, last - start) for one, start in zip(inputs, [0, *stops], strict=False)]


def _suffix_of(to: str, chosen: type[Export]) -> str:
    """Return the suffix of a format that the file's name ends with; "" if there is none."""
    return next((suffix for suffix in chosen.suffixes if Path(to).name.lower().endswith(suffix)), "")


def _beside(to: str, chosen: type[Export]) -> list[str]:
    """Return the paths of the files that belong to a file."""
    suffix = _suffix_of(to, chosen)
    return [f"{to[: len(to) - len(suffix)]}{end}" for end in chosen.beside]


def lines(exported: Exported) -> list[str]:
    """Return what an export wrote, for people."""
    items = plural(exported.items, exported.noun)
    rows = "" if exported.axis == exported.item else f"{plural(exported.rows, exported.axis)} of "
    shown = [f"{exported.file}: {rows}{items}, {plural(exported.inputs, 'input')}"]
    if exported.done_share < 1:
        shown.append(
            f"{exported.done_share:.1%} of the {plural_of(exported.noun)} are done; the rest is not in the file"
        )
    return [*shown, *exported.notes, *exported.left_out]


def _find(name: str) -> type[Export]:
    if ":" in name:
        make_importable(Path.cwd())
    return find("format", name, EXPORTS, Export)  # type: ignore[type-abstract]


def _known() -> dict[str, type[Export]]:
    """Return the formats that have a name."""
    return find_each("format", EXPORTS, Export)  # type: ignore[type-abstract]


def _format(to: str, named: str | None) -> tuple[str, type[Export]]:
    """Return a format's name and class: the one that is named, else the one that the file's suffix says."""
    if named is not None:
        return named, _find(named)
    ends = {name: _suffix_of(to, kind) for name, kind in _known().items()}
    longest = max(map(len, ends.values()))
    found = [name for name, end in ends.items() if end and len(end) == longest]
    if len(found) != 1:
        where = "standard output" if to == STANDARD_OUTPUT else f"{to!r}"
        choice = " | ".join(found or sorted(names(EXPORTS)))
        raise UsageError(f"which format {where} should have is not clear; add --format {choice}")
    return found[0], _find(found[0])


def _check(to: str, name: str, chosen: type[Export], flags: dict[str, Any], force: bool) -> None:
    known = dict(sorted(_known().items()))
    for flag, given in flags.items():
        if given and flag not in chosen.flags:
            choice = " | ".join(one for one, format in known.items() if flag in format.flags)
            raise UsageError(f"format {name} does not support --{flag.replace('_', '-')}; choose --format {choice}")
    if to == STANDARD_OUTPUT:
        if not chosen.to_standard_output:
            choice = " | ".join(one for one, format in known.items() if format.to_standard_output)
            raise UsageError(f"{name} cannot go to standard output; name a file, or choose --format {choice}")
        return
    if "parts" in chosen.flags and (flags["parts"] is None) == (_PART in to):
        shown = to if _PART in to else Path(to).with_suffix("") / f"{_PART}{_suffix(name, chosen)}"
        raise UsageError(f"--parts N goes with {_PART} in the name of the file: --to '{shown}' --parts 8")
    if not _suffix_of(to, chosen) and not all(end.startswith(".") for end in chosen.beside):
        shown = Path(to).with_name(chosen.suffixes[0])
        raise UsageError(f"the name of a file of format {name} ends with {chosen.suffixes[0]}: --to '{shown}'")
    _check_place(to, chosen, force)


def _check_place(to: str, chosen: type[Export], force: bool) -> None:
    for one in (to, *_beside(to, chosen)):
        path = Path(one)
        if path.is_dir():
            raise UsageError(f"{one} is a folder; name a file")
        if path.exists() and not force:
            raise UsageError(f"{one} exists already; choose another file, or replace it with --force")
    open_now = next((f"{to}{end}" for end in chosen.in_use if Path(f"{to}{end}").exists()), None)
    if open_now is not None:
        raise UsageError(f"{open_now} exists: a program has {to} open, or broke off; close it, or delete that file")


def _refuse_sources(files: Sequence[str], runs: Sequence[Run]) -> None:
    """Refuse to write into a store, and to replace a file that one names: its list of pairs, its registry of people."""
    for file in files:
        if file != STANDARD_OUTPUT:
            refuse_in_store(file)
    for run in runs:
        workflow = run.attributes.get("workflow")
        sections = (workflow if isinstance(workflow, dict) else {}) | stage_sections(workflow)
        known = {
            value: f"{section}.{option}"
            for section, options in sections.items() if isinstance(options, dict)
            for option, value in options.items() if isinstance(value, str) and os.path.isabs(value)
        }  # fmt: skip
        for array in (array for one in run.inputs.values() for array in one.arrays.values()):
            registry = array.attributes.get(REGISTRY)
            if isinstance(registry, str):
                known[os.path.join(run.path, registry)] = REGISTRY
        for file in files:
            named = next((what for path, what in known.items() if _is_file(file, path)), None)
            if named is not None:
                raise UsageError(f"{file} is the file that {named} of {run.path} names; choose another")


def _is_file(path: str, other: str) -> bool:
    """Return whether two paths, of which a stranger may have written one, lead to one file."""
    try:
        return os.path.samefile(path, other)
    except (OSError, ValueError):  # ValueError: a path holds a zero byte
        return False


def _axis(runs: Sequence[Run], named: str | None, name: str, chosen: type[Export]) -> str:
    """Return the axis to write. Raises UsageError if the stores do not have it, or the format cannot hold it."""
    if not chosen.axes and not chosen.needs:
        return chosen_axis(runs, named)
    ragged, begun = axes_of(runs), [one for run in runs for one in run.inputs.values() if one.arrays]
    held = chosen.axes or [axis for axis in ragged if not begun or _has(begun, axis, chosen.needs)]
    if named is None and not ragged and not begun:  # nothing is stored yet
        return (*chosen.axes, chosen_axis(runs, None))[0]
    there = [*ragged, *items_of(runs)]
    fits = next((axis for axis in held if axis in there), None)
    axis = chosen_axis(runs, named or fits)
    if axis not in held:
        rows, instead = (" or ".join(map(repr, some)) for some in (chosen.axes, [named] if named else there))
        rows = f"of {rows} only" if chosen.axes else f"with {' and '.join(map(repr, chosen.needs))} only"
        raise UsageError(f"format {name} holds rows {rows}, not of {instead}; choose another --format")
    return axis


def _has(begun: Iterable[RunInput], axis: str, arrays: Iterable[str]) -> bool:
    return any(all(name in one.arrays and one.arrays[name].dims[0] == axis for name in arrays) for one in begun)


def _write(name: str, chosen: type[Export], file: IO[bytes], stored: StoredRows) -> None:
    try:
        chosen().write(file, stored)
    except (ReelgraphError, OSError):
        raise
    except Exception as err:
        if chosen.__module__.split(".")[0] == "pipeline":
            raise
        where = traceback.extract_tb(err.__traceback__)[-1]
        raise UsageError(
            f"format {name!r} ends in {type(err).__name__}: {err} ({where.filename}, line {where.lineno}); fix it"
        ) from err


@contextlib.contextmanager
def _sink(to: str) -> Iterator[IO[bytes]]:
    """Open standard output, or a file that appears whole or not at all."""
    if to == STANDARD_OUTPUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with written_whole(to) as file:
        yield file

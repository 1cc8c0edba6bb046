"""Films and pictures with what was found drawn on them: a film of each film, a copy of each picture in another folder.

A domain says what is drawn, by a subclass of `Painter`.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, count
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from pipeline.errors import UsageError
from pipeline.machine.cores import available_cores
from pipeline.media.film.film import Film, film_of, grid
from pipeline.media.film.movie import CONTAINERS, container_of
from pipeline.media.film.rewriting import write_film
from pipeline.media.film.stills import JPEG, save_picture
from pipeline.media.film.targets import refuse_existing, refuse_folder
from pipeline.media.film.whereabouts import Found, Ints, Legs, Reach, along, legs, unseen
from pipeline.media.reread import RereadPictures, reread
from pipeline.media.spans import is_timed
from pipeline.store.read import RunInput
from pipeline.text import clock, plural_of
from pipeline.views.progress import Work

Bools = npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.uint8]
_BLOCK = 32
"""Pictures that are taken up at a time."""


@dataclass
class Annotated:
    """The film that was made of one input, or the folder of its pictures."""

    store: str
    input: str
    file: str
    frames: int
    lost_frames: int
    """Frames of the video, or pictures, that could not be decoded: left out."""
    done_share: float
    """Share of the sampled frames that was looked at when this was made."""
    unseen_frames: int
    """Frames written that lie between no two samples that were looked at."""
    counts: dict[str, int]
    """Counts of what is in the samples of the part that was written: {"faces": 12}."""
    audio_streams: int
    codec: str
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values; each count has its own key."""
        return {**{name: value for name, value in vars(self).items() if name != "counts"}, **self.counts}


@dataclass(frozen=True)
class Part:
    """The part of each film to write."""

    start: float | None = None
    """Seconds as in the video; if it is given, the film starts at 0."""
    stop: float | None = None
    """Seconds as in the video."""


class Painter(ABC):
    """The changes to each frame of one input, or to each of its pictures."""

    axis: ClassVar[str]
    """Axis whose rows are drawn."""
    reaches: ClassVar[tuple[Reach, ...]]
    """Reach of the boxes of a sample, for each of the arguments `on` of `change`; the last ones are counted."""

    def __init__(self, item: RunInput, found: Found) -> None:
        self.item, self.found = item, found
        self.notes: list[str] = []
        self.is_cropped = False
        """True if the run looked at the middle of each picture only."""
        self._walks: list[Iterator[Ints]] = []
        self._next = -1

    def begin(self, film: Film | None) -> None:
        """Take up the frames of a film, or the pictures of the input."""
        if film is None:
            n, each = self.item.frames_total, np.arange(len(self.found))
            self.times = np.zeros(n)
            self.unseen = ~np.isin(np.arange(n), self.found.looked_at)
            self.legs = (Legs(self.found.rank, self.found.rank, each, each),) * len(self.reaches)
        else:
            self.times, sampling = film.times, grid(film, self.item)
            self.unseen = unseen(self.found, sampling, len(film))
            self.legs = tuple(legs(self.found, reach, sampling, self.times) for reach in self.reaches)

    def edit(self, rank: int, frame_rgb: Pixels) -> int:
        """Change a frame of a film, in place; return the number of boxes on it. Ranks must ascend."""
        if self._next < 0:
            self._walks = [along(one, rank, len(self.times)) for one in self.legs]
            self._next = rank
        for _ in range(rank - self._next):  # frames that could not be decoded
            for walk in self._walks:
                next(walk)
        self._next = rank + 1
        on = [next(walk) for walk in self._walks]
        self.change(rank, frame_rgb, *on)
        return len(on[-1])

    @abstractmethod
    def change(self, rank: int, frame_rgb: Pixels, *on: Ints) -> None:
        """Change a frame or a picture, in place. `on`: numbers of the legs that it lies on, for each of `reaches`."""

    def counts(self, inside: Bools) -> dict[str, int]:
        """Return counts of the result. `inside`: (n,) the boxes that lie in the part that was written."""
        return {plural_of(self.axis): int(inside.sum())}

    def remarks(self, result: Annotated) -> list[str]:
        """Return further notes on a result."""
        return []


def annotate_inputs(
    items: Sequence[RunInput],
    target: Path | str | None,
    painter: Callable[[int, RunInput], Painter],
    work: Work,
    *,
    part: Part | None = None,
    word: str = "annotated",
    force: bool = False,
) -> list[Annotated]:
    """Write a film for each input to `target`, a file or a folder, or beside the store; of pictures a copy of each.

    `painter` gets the number of an input and the input. `word` ends the names of films and folders. Raises UsageError
    for a file that exists already (unless `force`), and InputError if a video is missing or has changed.
    """
    part = part or Part()
    films, pictured = ([item for item in items if is_timed(item) == timed] for timed in (True, False))
    targets = {item: _target(item, target, len(films), word) for item in films}
    refuse_existing(films, list(targets.values()), force)
    targets |= zip(pictured, _folders(pictured, target, word, part, force) if pictured else (), strict=True)
    copies = {targets[item]: _Copies(targets[item]) for item in pictured}
    for item in pictured:
        again = reread(item)
        assert isinstance(again, RereadPictures), "`_folders` refuses all else"
        copies[targets[item]].inputs[item] = again
    if pictured and not films:
        work.counts(len(pictured), "picture")
    made = []
    for number, item in enumerate(items):
        film = film_of(item) if is_timed(item) else None
        drawn = painter(number, item)
        if film is not None:
            result = _write_film(drawn, film, targets[item], part, work)
        else:
            result = _write_pictures(drawn, copies[targets[item]], work)
        if result.done_share < 1:
            result.notes.append(f"{result.done_share:.0%} of the sampled frames are done; the rest shows no boxes")
        result.notes += drawn.remarks(result)
        for note in result.notes:
            work.note(f"{item.name}: {note}")
        made.append(result)
    return made


def _target(item: RunInput, target: Path | str | None, n_inputs: int, word: str) -> Path:
    name = f"{item.name}_{word}.mp4"
    if target is None:
        return item.store_path.parent / name
    path = Path(target).expanduser()
    if path.suffix.lower() not in CONTAINERS:
        if path.suffix and not path.is_dir():
            container_of(path)  # says which endings there are
        return path / name
    if n_inputs > 1 and not path.is_dir():
        raise UsageError(f"{path} is one file for {n_inputs} inputs; name a folder, or one input with --input")
    return path / name if path.is_dir() else path


def _write_film(drawn: Painter, film: Film, target: Path, part: Part, work: Work) -> Annotated:
    item, times = drawn.item, film.times
    drawn.begin(film)
    begins = float(times[film.first])
    start = begins if part.start is None else max(begins, part.start)
    first, last = film.ranks(start, np.inf if part.stop is None else part.stop)
    if first >= last:
        raise UsageError(
            f"{film.path} has no frame between --start and --stop; it goes from {clock(begins)} to "
            f"{clock(film.stop_seconds)}"
        )
    # Times stay as in the file unless they would be a nuisance: no player waits hours for the first frame.
    is_far = begins < 0 or begins > 60
    origin = first if part.start is not None or is_far else None
    work.started(item.name, last - first)
    written = write_film(
        film, target, first, last, origin, drawn.edit,
        lambda frames, boxes: work.done(item.name, frames, {drawn.axis: boxes}),
    )  # fmt: skip
    work.finished(item.name)
    rank = drawn.found.rank
    return Annotated(
        store=str(item.store_path), input=item.name, file=str(target), frames=written.frames,
        lost_frames=last - first - written.frames, done_share=item.done_share,
        unseen_frames=int(drawn.unseen[first:last].sum()), counts=drawn.counts((rank >= first) & (rank < last)),
        audio_streams=written.audio_streams, codec=written.codec,
        notes=[*drawn.notes, *written.notes, *film.losses],
    )  # fmt: skip


def _folders(
    items: Sequence[RunInput], target: Path | str | None, word: str, part: Part, force: bool
) -> list[Path]:
    """Return the folder for the pictures of each input. Pictures that came later share the folder of the first ones.

    Raises UsageError for a name that cannot be the folder, and for a folder that holds something (unless `force`).
    """
    if part != Part():
        raise UsageError("--start and --stop are times of films, and pictures have none; leave them out")
    other = next((item.name for item in items if "container" not in item.attributes), None)
    if other is not None:
        raise UsageError(f"{other!r} holds neither a film nor pictures, so nothing of it can be written")
    origins = [str(item.attributes.get("folder", item.attributes["path"])) for item in items]
    searched = [origin for origin, item in zip(origins, items, strict=True) if item.attributes["container"] == "folder"]
    names = dict(reversed([(origin, item.name) for origin, item in zip(origins, items, strict=True)]))
    path = None if target is None else Path(target).expanduser()
    if path is not None and path.suffix.lower() in CONTAINERS:
        raise UsageError(f"{path} is a file, and pictures need a folder; name another --out")
    made = []
    for item, origin in zip(items, origins, strict=True):
        name = f"{names[origin]}_{word}"
        folder = item.store_path.parent / name if path is None else path if len(names) == 1 else path / name
        made.append(folder)
        refuse_folder(folder, searched, force)
    return made


def _write_pictures(drawn: Painter, copies: _Copies, work: Work) -> Annotated:
    """Write a copy of each picture of an input. Raises UsageError if one would replace a picture itself."""
    drawn.begin(None)
    item, n, each = drawn.item, drawn.item.frames_total, np.arange(len(drawn.found))
    again, folder = copies.inputs[item], copies.folder
    drawn.is_cropped = again.is_cropped
    first = np.searchsorted(drawn.found.rank, np.arange(n + 1))
    originals = again.files() if any(folder.glob("*")) else frozenset()
    work.started(item.name, n)
    written = unlooked = 0
    with ThreadPoolExecutor(available_cores(), thread_name_prefix="pictures") as pool:
        for start in range(0, n, _BLOCK):
            numbers = np.arange(start, min(start + _BLOCK, n))
            paths = [copies.path(item, number) for number in numbers.tolist()]

            def write(at: int, start: int = start, paths: Sequence[Path] = tuple(paths)) -> bool:
                pixels = again.one(at)
                if pixels is None:
                    return False
                edited = np.array(pixels)
                drawn.change(at, edited, *[each[first[at] : first[at + 1]]] * len(drawn.reaches))
                if os.fsencode(os.path.realpath(paths[at - start])) in originals:
                    raise UsageError(f"{paths[at - start]} is one of the pictures themselves; name another --out")
                save_picture(paths[at - start], edited)
                return True

            done = np.array(list(pool.map(write, numbers.tolist())))
            written += int(done.sum())
            unlooked += int((done & drawn.unseen[numbers]).sum())
            work.done(item.name, len(numbers), {drawn.axis: int(first[numbers[-1] + 1] - first[start])})
    work.finished(item.name)
    result = Annotated(
        store=str(item.store_path), input=item.name, file=str(folder), frames=written, lost_frames=n - written,
        done_share=item.done_share, unseen_frames=unlooked, counts=drawn.counts(np.ones(len(drawn.found), bool)),
        audio_streams=0, codec="jpeg, png", notes=[*drawn.notes],
    )  # fmt: skip
    if result.lost_frames:
        result.notes.append(f"{result.lost_frames} of {n} pictures cannot be read or have changed: left out")
    return result


class _Copies:
    """Files to write in one folder: the names of the pictures, with the ending of the format that each is written in.

    Pictures that would have one name get several: a.png and a.webp become a.png and a.webp.png.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inputs: dict[RunInput, RereadPictures] = {}
        """Inputs whose pictures are written here."""

    def path(self, item: RunInput, number: int) -> Path:
        """Return the file of a picture of an input."""
        usual, _ = _usual(self.inputs[item].name(number), number)
        return self.folder / self._others.get((item, number), usual)

    @cached_property
    def _others(self) -> dict[tuple[RunInput, int], str]:
        """The names of pictures whose usual name another one has. A picture that keeps its ending comes first."""
        taken: set[str] = set()
        others: dict[tuple[RunInput, int], str] = {}
        for is_kept in (True, False):
            for item, again in self.inputs.items():
                for number, own in enumerate(again.collection.names):
                    name, other_ending = _usual(own, number)
                    if (other_ending is None) == is_kept:
                        if name in taken:
                            others[item, number] = name = _free(name, other_ending, taken)
                        taken.add(name)
        return others


_WRITTEN = (*JPEG, ".png")
"""Endings of the files that are written."""


def _usual(own: bytes, number: int) -> tuple[str, str | None]:
    """Return the name of a picture's copy, if no other one has it; and the ending that it lost, None if it kept it."""
    name = "/".join(part for part in Path(os.fsdecode(own)).parts if part not in ("..", "/")) or str(number)
    root, ending = os.path.splitext(name)
    return (name, None) if ending.lower() in _WRITTEN else (f"{root}.png", ending)


def _free(usual: str, other_ending: str | None, taken: Collection[str]) -> str:
    """Return a name that is not taken: with the ending that the picture lost, else with a number."""
    root, ending = os.path.splitext(usual)
    with_ending = [f"{root}{other_ending}{ending}"] if other_ending else []
    return next(name for name in chain(with_ending, (f"{root}-{k}{ending}" for k in count(2))) if name not in taken)

"""The appearances of one person, cut out of the videos of any number of stores."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

from pipeline.engine.events import Listener, Silent
from pipeline.errors import UsageError
from pipeline.faces.people.appearances import LONGEST_GAP_SECONDS, Appearance
from pipeline.faces.people.labels import choose
from pipeline.faces.people.moments import Moments
from pipeline.files.whole import written_whole
from pipeline.media.film.film import Film, film_of
from pipeline.media.film.joining import Joined
from pipeline.media.film.packets import copy_packets, suffix_for_copy
from pipeline.media.film.rewriting import write_film
from pipeline.media.film.targets import chosen_inputs, refuse_existing, safe
from pipeline.media.spans import is_timed
from pipeline.store.read import RunInput
from pipeline.text import clock, plural
from pipeline.views.progress import Work
from pipeline.views.tables import cell

DEFAULT_MARGIN_SECONDS = 1.0


@dataclass(frozen=True)
class Clip:
    """One stretch of one video with the person in it."""

    file: str
    store: str
    input: str
    person: str
    start_seconds: float
    """Presentation time of the first frame, as in the source."""
    stop_seconds: float
    """End of the last frame."""
    screen_seconds: float
    """Time that the sampled frames with the person stand for; margins not counted."""
    at_seconds: float
    """Time at which it begins in `file`."""
    frames: int
    """Frames written; 0 if packets are copied."""


@dataclass(frozen=True)
class ClipOptions:
    """The way to cut."""

    margin_seconds: float = DEFAULT_MARGIN_SECONDS
    """Time shown before and after each appearance."""
    longest_gap_seconds: float = LONGEST_GAP_SECONDS
    """A person who is away for longer appears again."""
    join: bool = False
    """One film of all of them."""
    copy: bool = False
    """Copy packets from the key frame before each: quick, and longer."""


@dataclass(frozen=True)
class Stretch:
    """The frames to cut out of a film."""

    first: int
    """Rank of the first frame, inclusive."""
    last: int
    """Rank of the last frame, exclusive."""
    screen_seconds: float


@dataclass(frozen=True)
class ClipsMade:
    """All clips, and the notes on them."""

    person: str
    clips: list[Clip]
    list_file: str
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def cut_clips(
    outs: Sequence[Path | str],
    person: str,
    target: Path | str | None = None,
    options: ClipOptions | None = None,
    *,
    force: bool = False,
    progress: Listener | None = None,
) -> ClipsMade:
    """Cut the appearances of a person (id or name) out of all inputs, into the folder `target`.

    The folder is `clips` beside the first store by default. It gets a list of the clips too, as CSV and as JSON. Raises
    UsageError for an unknown person, and for a file that exists already (unless `force`). Raises InputError if a video
    is gone or has changed.
    """
    options = options or ClipOptions()
    shown = Work(progress or Silent())
    if options.join and options.copy:
        raise UsageError("--join encodes the frames, --copy copies packets: choose one")
    items = chosen_inputs(outs)
    if pictured := [item.name for item in items if not is_timed(item)]:
        raise UsageError(f"{pictured[0]!r} holds pictures, and clips need a film; reelgraph find lists the pictures")
    folder = Path(target).expanduser() if target is not None else items[0].store_path.parent / "clips"
    chosen = choose(items, person)
    name = chosen[0].name
    films: dict[RunInput, Film] = {}
    work: list[tuple[RunInput, Film, Stretch]] = []
    for item, rows in ((item, one.rows) for item, one in zip(items, chosen, strict=True) if one.rows.any()):
        arrays = item.read(["face_frame", *(["track"] if "track" in item.arrays else [])])
        track = arrays["track"][rows] if "track" in arrays else None
        found = Moments(item).appearances(arrays["face_frame"][rows], track, options.longest_gap_seconds)
        films[item] = film_of(item)
        work += [(item, films[item], cut) for cut in stretches(films[item], found, options)]
    if not work:
        raise UsageError(f"{name} was not found in {plural(len(items), 'input')}; try another person")
    who = safe(name, "person")
    targets = [folder / f"{who}.mp4"]
    if not options.join:
        targets = []
        shown_as = _distinct(list(dict.fromkeys(item.name for item in films)))
        suffixes = {item: suffix_for_copy(film) if options.copy else ".mp4" for item, film in films.items()}
        for item, film, cut in work:
            time = clock(float(film.times[cut.first])).replace(":", "-")
            targets.append(folder / f"{shown_as[item.name]}_{who}_{time}{suffixes[item]}")
    list_file = folder / f"{who}_clips.csv"
    refuse_existing(list(films), [*targets, list_file, list_file.with_suffix(".json")], force)
    if options.join:
        clips = _write_joined(targets[0], name, work, shown)
    else:
        clips = [_write(path, name, options.copy, *one, shown) for path, one in zip(targets, work, strict=True)]
    notes = [
        f"{item.name}: {item.done_share:.0%} of the sampled frames are done; the rest was not looked at"
        for item in items
        if item.done_share < 1
    ]
    if options.copy:
        notes.append("copied packets begin at the key frame before each appearance: clips are longer than asked for")
    notes += [f"{item.name}: {loss}" for item, film in films.items() for loss in film.losses]
    for note in notes:
        shown.note(note)
    _write_list(list_file, [asdict(clip) for clip in clips])
    return ClipsMade(name, clips, str(list_file), notes)


def _distinct(names: Sequence[str]) -> dict[str, str]:
    """Return each name as part of a file's name. Names that are alike up to the longest length get a number."""
    made: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        usual = safe(name, "input")
        made[name] = next(one for one in chain([usual], (f"{usual}-{k}" for k in count(2))) if one not in taken)
        taken.add(made[name])
    return made


def _write_list(path: Path, clips: list[dict[str, Any]]) -> None:
    """Write a list of clips as CSV, and as JSON beside it. Raises UsageError if it cannot be written."""
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, list(clips[0]))
    writer.writeheader()
    writer.writerows({key: cell(v) if isinstance(v, str) else v for key, v in row.items()} for row in clips)
    text = json.dumps(clips, indent=2, ensure_ascii=False) + "\n"
    for place, content in ((path, table.getvalue()), (path.with_suffix(".json"), text)):
        with written_whole(place, "the list ") as file:
            file.write(content.encode(errors="backslashreplace"))


def stretches(film: Film, found: list[Appearance], options: ClipOptions) -> list[Stretch]:
    """Return the frames of each appearance with its margins; stretches that meet are one."""
    merged: list[Stretch] = []
    for one in found:
        first, last = film.ranks(one.start_seconds - options.margin_seconds, one.stop_seconds + options.margin_seconds)
        last = max(last, first + 1)
        if merged and first <= merged[-1].last:
            before = merged.pop()
            merged.append(Stretch(before.first, max(last, before.last), before.screen_seconds + one.screen_seconds))
        else:
            merged.append(Stretch(first, last, one.screen_seconds))
    return merged


def _write(path: Path, name: str, copy: bool, item: RunInput, film: Film, cut: Stretch, progress: Work) -> Clip:
    start, stop = float(film.times[cut.first]), film.end_of(cut.last - 1)
    if copy:
        start, stop = copy_packets(film, path, start, stop)
        progress.note(f"{path.name}: {clock(stop - start)} copied")
        n_frames = 0
    else:
        progress.started(path.name, cut.last - cut.first)
        written = write_film(
            film, path, cut.first, cut.last, cut.first, lambda rank, frame_rgb: 0,
            lambda frames, _: progress.done(path.name, frames), exact_sound=True,
        )  # fmt: skip
        progress.finished(path.name)
        n_frames = written.frames
    return Clip(str(path), str(item.store_path), item.name, name, start, stop, cut.screen_seconds, 0.0, n_frames)


def _write_joined(path: Path, name: str, work: list[tuple[RunInput, Film, Stretch]], progress: Work) -> list[Clip]:
    clips = []
    progress.started(path.name, sum(cut.last - cut.first for _, _, cut in work))
    with Joined(path, [film for _, film, _ in work]) as joined:
        for item, film, cut in work:
            at, n_frames = joined.append(film, cut.first, cut.last, lambda frames: progress.done(path.name, frames))
            times = float(film.times[cut.first]), film.end_of(cut.last - 1), cut.screen_seconds, at
            clips.append(Clip(str(path), str(item.store_path), item.name, name, *times, n_frames))
    progress.finished(path.name)
    return clips

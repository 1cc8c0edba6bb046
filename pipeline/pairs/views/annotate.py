"""Pictures of pairs: both pictures side by side, with their matches as lines, into a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.engine.events import Listener, PassStarted, Silent
from pipeline.errors import InputError, UsageError
from pipeline.media.film.movie import CONTAINERS
from pipeline.media.film.stills import save_picture
from pipeline.media.film.targets import chosen_inputs, refuse_folder, safe
from pipeline.pairs.views.ranked import RankedPairs
from pipeline.pairs.views.rereading import Rereading
from pipeline.text import plural
from pipeline.views.progress import Work

MOST = 20
"""Pairs that are drawn unless the user says how many."""


@dataclass(frozen=True)
class DrawnPair:
    """The drawing of one pair."""

    file: str
    store: str
    input: str
    a: str
    b: str
    matches: int
    inliers: int | None
    """None if the pairs were not verified."""


@dataclass
class Drawn:
    """All drawings, and the notes on them."""

    folder: str
    pictures: list[DrawnPair] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def draw_matches(
    outs: Sequence[Path | str],
    inputs: Sequence[str] = (),
    target: Path | str | None = None,
    *,
    most: int | None = None,
    pairs: Sequence[tuple[str, str]] = (),
    force: bool = False,
    progress: Listener | None = None,
) -> Drawn:
    """Draw the best pairs of some stores, or those that are named, into the folder `target`, or one beside the store.

    A pair is the better the more inliers it has, or matches if it was not verified. Raises UsageError for a picture or
    a pair that is not there, and for a folder that holds something (unless `force`). Raises InputError if nothing can
    be drawn.
    """
    matched = RankedPairs(chosen_inputs(outs, inputs, "pair"))
    shown = progress or Silent()
    shown.on(PassStarted(1, "pair", ()))
    work = Work(shown)
    folder = _folder(matched, target, force)
    drawn = Drawn(str(folder))
    chosen = [matched.pair(*names) for names in pairs] or matched.best(most or MOST)
    if not chosen:
        raise InputError(f"{', '.join(map(str, outs))}: no pair has a match, so there is nothing to draw")
    again = Rereading(matched, drawn.notes.append)
    work.started(folder.name, len(chosen))
    taken: set[Path] = set()
    for pair in chosen:
        pixels = again.draw(pair)
        if pixels is not None:
            path = _path(folder, matched, pair, taken)
            if path.exists() and any(os.fsencode(os.path.realpath(path)) in one.files() for one in again.sources()):
                raise UsageError(f"{path} is one of the pictures themselves; name another --out")
            save_picture(path, pixels, is_drawn=True)
            item, inliers = matched.item(pair), int(matched.n_inliers[pair]) if matched.is_verified else None
            names = matched.names[matched.a[pair]], matched.names[matched.b[pair]]
            matches = int(matched.n_matches[pair])
            drawn.pictures.append(DrawnPair(str(path), str(item.store_path), item.name, *names, matches, inliers))
        work.done(folder.name, 1)
    work.finished(folder.name)
    if not pairs:
        drawn.notes += _left_out(matched, chosen)
    for note in drawn.notes:
        work.note(note)
    if not drawn.pictures:
        raise InputError(f"none of {plural(len(chosen), 'pair')} can be drawn: {drawn.notes[0]}")
    return drawn


def _folder(matched: RankedPairs, target: Path | str | None, force: bool) -> Path:
    """Return the folder to write to. Raises UsageError if it cannot be."""
    facts = [album.attributes for album in matched.albums]
    store = matched.items[0].store_path
    folder = store.parent / f"{matched.albums[0].name}_matches" if target is None else Path(target).expanduser()
    if folder.suffix.lower() in CONTAINERS:
        raise UsageError(f"{folder} is the name of a film, and matches are pictures in a folder; name another --out")
    searched = [str(one.get("folder", one["path"])) for one in facts if one.get("container") == "folder"]
    refuse_folder(folder, searched, force)
    return folder


def _path(folder: Path, matched: RankedPairs, pair: int, taken: set[Path]) -> Path:
    stems = [os.path.splitext(matched.names[one])[0] for one in (matched.a[pair], matched.b[pair])]
    name = "_".join(safe(stem, "picture") for stem in stems)
    path = folder / f"{name}.jpg"
    if path in taken:  # names that differ by what a file's name cannot have, or in their ends
        path = folder / f"{name}_{pair}.jpg"
    taken.add(path)
    return path


def _left_out(matched: RankedPairs, chosen: Sequence[int]) -> list[str]:
    """Return a note on the pairs that were not chosen, if there are any."""
    with_matches = int((matched.n_matches > 0).sum())
    without = len(matched) - with_matches
    noun = "inlier" if matched.is_verified else "match"
    notes = []
    if with_matches > len(chosen):
        rest, least = plural(with_matches - len(chosen), "pair"), plural(int(matched.strength[chosen[-1]]), noun)
        notes.append(f"{rest} with {least} or fewer left out; --most {with_matches} draws all")
    if without:
        notes.append(f"{plural(without, 'pair')} without a match left out")
    return notes

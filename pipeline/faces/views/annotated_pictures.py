"""Pictures with boxes and names, or with faces made unrecognisable: a copy of each, by its name, in another folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import UsageError
from pipeline.faces.people.labels import labels
from pipeline.faces.views.annotate import Annotated, Bools, Picture, Wanted
from pipeline.faces.views.whereabouts import Legs, read_faces
from pipeline.machine.cores import available_cores
from pipeline.media.film.movie import CONTAINERS
from pipeline.media.film.stills import JPEG, save_picture
from pipeline.media.film.targets import refuse_folder
from pipeline.media.reread import RereadPictures, reread

if TYPE_CHECKING:
    from pipeline.store.read import RunInput
    from pipeline.views.progress import Work

_BLOCK = 32
"""Pictures that are taken up at a time."""


def folders(items: Sequence[RunInput], target: Path | str | None, wanted: Wanted, force: bool) -> list[Path]:
    """Return the folder for the pictures of each input. Pictures that came later share the folder of the first ones.

    Raises UsageError for a name that cannot be the folder, and for a folder that holds something (unless `force`).
    """
    if wanted.start is not None or wanted.stop is not None:
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
        name = f"{names[origin]}_{'blurred' if wanted.blur else 'annotated'}"
        folder = item.store_path.parent / name if path is None else path if len(names) == 1 else path / name
        made.append(folder)
        refuse_folder(folder, searched, force)
    return made


def annotate_pictures(item: RunInput, folder: Path, chosen: Bools, wanted: Wanted, work: Work) -> Annotated:
    """Write a copy of each picture of an input. Raises UsageError if one would replace a picture itself."""
    again = reread(item)
    assert isinstance(again, RereadPictures), "`folders` refuses all else"
    faces = read_faces(item, labels(item).code)
    n, each = item.frames_total, np.arange(len(faces))
    unseen = ~np.isin(np.arange(n), faces.looked_at)
    at_once = Legs(faces.rank, faces.rank, each, each)
    picture = Picture(item, faces, at_once, at_once, unseen, np.zeros(n), chosen, wanted)
    first = np.searchsorted(faces.rank, np.arange(n + 1))
    targets = _Targets(again, folder)
    originals = again.files() if any(folder.glob("*")) else frozenset()
    work.started(item.name, n)
    written = unlooked = 0
    with ThreadPoolExecutor(available_cores(), thread_name_prefix="pictures") as pool:
        for start in range(0, n, _BLOCK):
            numbers = np.arange(start, min(start + _BLOCK, n))
            paths = [targets.path(number) for number in numbers.tolist()]

            def write(at: int, start: int = start, paths: Sequence[Path] = tuple(paths)) -> bool:
                pixels = again.one(at)
                if pixels is None:
                    return False
                which = each[first[at] : first[at + 1]]
                edited = np.array(pixels)
                picture.change(at, edited, which, which)
                if os.fsencode(os.path.realpath(paths[at - start])) in originals:
                    raise UsageError(f"{paths[at - start]} is one of the pictures themselves; name another --out")
                save_picture(paths[at - start], edited)
                return True

            done = np.array(list(pool.map(write, numbers.tolist())))
            written += int(done.sum())
            unlooked += int((done & unseen[numbers]).sum())
            work.done(item.name, len(numbers), {"face": int(first[numbers[-1] + 1] - first[start])})
    work.finished(item.name)
    result = Annotated(
        store=str(item.store_path), input=item.name, file=str(folder), frames=written, lost_frames=n - written,
        done_share=item.done_share, unseen_frames=unlooked, faces=len(faces),
        blurred_faces=int(picture.hidden.sum()), audio_streams=0, codec="jpeg, png", notes=list(picture.notes),
    )  # fmt: skip
    if result.lost_frames:
        result.notes.append(f"{result.lost_frames} of {n} pictures cannot be read or have changed: left out")
    if wanted.blur and again.is_cropped:
        result.notes.append("faces outside the middle (crop) were never looked for, and are not blurred")
    return result


class _Targets:
    """Files to write: the names of the pictures, with the ending of the format that each is written in."""

    def __init__(self, again: RereadPictures, folder: Path) -> None:
        self.again, self.folder = again, folder
        self._taken: set[str] = set()

    def path(self, number: int) -> Path:
        """Return the file of a picture. Numbers must ascend, so that two pictures of one name stay two files."""
        parts = Path(os.fsdecode(self.again.name(number))).parts
        name = os.path.join(*(part for part in parts if part not in ("..", "/")))
        root, ending = os.path.splitext(name)
        if ending.lower() not in (*JPEG, ".png"):
            name = f"{root}.png" if f"{root}.png" not in self._taken else f"{name}.png"
        self._taken.add(name)
        return self.folder / name

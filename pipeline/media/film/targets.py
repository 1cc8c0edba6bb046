"""Inputs that films and pictures are made of, and files that they become, checked before any work is done."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.errors import StoreError, UsageError
from pipeline.store.nodes import located
from pipeline.store.read import RunInput
from pipeline.store.read import open as open_run
from pipeline.store.run import each_once
from pipeline.text import plural_of, unknown

_LONGEST_NAME = 60
"""Most characters of a name in a file's name."""


def safe(name: str, otherwise: str) -> str:
    """Return a name as part of a file's name: letters and digits of any script stay, the rest becomes `-`.

    If nothing is left, return `otherwise`.
    """
    shown = re.sub(r"[^\w.-]+", "-", unicodedata.normalize("NFC", name)).strip("-._")
    return shown[:_LONGEST_NAME] or otherwise


def chosen_inputs(outs: Sequence[Path | str], names: Sequence[str] = (), item: str = "frame") -> list[RunInput]:
    """Return the inputs of some stores that have such items, or those of them that are named.

    Raises UsageError, with the nearest name, for others; StoreError if there are none.
    """
    all_items = [one for out in each_once(outs) for one in open_run(out).inputs.values() if one.item == item]
    if not all_items:
        missing = "input" if item == "frame" else plural_of(item)
        raise StoreError(f"{', '.join(str(out) for out in outs)} holds no {missing} yet; run a workflow into it first")
    for name in names:
        if name not in {one.name for one in all_items}:
            raise UsageError(unknown("input", name, {one.name for one in all_items}))
    return [one for one in all_items if not names or one.name in names]


def refuse_folder(folder: Path, sources: Iterable[str], force: bool) -> None:
    """Raise UsageError if a folder for new pictures lies in a folder of the pictures that they are made from.

    The same for a folder that holds something, unless `force`.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file, and pictures need a folder; name another --out")
    real = Path(os.path.realpath(folder))
    if any(real.is_relative_to(os.path.realpath(source)) for source in sources):
        raise UsageError(f"{folder} is in the folder of the pictures themselves; name another --out")
    if not force and folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{folder} holds files already; name another --out, or replace them with --force")


def refuse_existing(items: Sequence[RunInput], targets: Sequence[Path], force: bool) -> None:
    """UsageError where a film would take the place of something: of a video that an input was made from in any case."""
    videos = {located(item.attributes["path"]): item.name for item in items}
    for path in targets:
        if located(path) in videos:
            raise UsageError(f"{path} is the video of {videos[located(path)]!r} itself; name another --out")
        if path.exists() and not path.is_file():
            raise UsageError(f"{path} is not a file; name another --out")
        if path.exists() and not force:
            raise UsageError(f"{path} exists already; name another --out, or replace it with --force")
    twice = {path for path in targets if list(targets).count(path) > 1}
    if twice:
        raise UsageError(f"{min(twice)} would be written twice; take the stores one by one, each with its own --out")

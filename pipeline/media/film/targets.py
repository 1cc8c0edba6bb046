"""What a film is made of and where it goes, checked before any work is done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import StoreError, UsageError
from pipeline.store.nodes import located
from pipeline.text import unknown

if TYPE_CHECKING:
    from pipeline.store.read import RunInput


def chosen_inputs(outs: Sequence[Path | str], names: Sequence[str] = ()) -> list[RunInput]:
    """The inputs of some stores, or those of them that are named. Raises UsageError, with the nearest, for others."""
    from pipeline.store.read import open as open_run
    from pipeline.store.run import each_once

    all_items = [item for out in each_once(outs) for item in open_run(out).inputs.values()]
    if not all_items:
        raise StoreError(f"{', '.join(str(out) for out in outs)} holds no input yet; run a workflow into it first")
    for name in names:
        if name not in {item.name for item in all_items}:
            raise UsageError(unknown("input", name, {item.name for item in all_items}))
    return [item for item in all_items if not names or item.name in names]


def refuse_existing(items: Sequence[RunInput], targets: Sequence[Path], force: bool) -> None:
    """UsageError where a film would take the place of something: of a video that an input was made from in any case."""
    videos = {located(item.attributes["path"]): item.name for item in items}
    for path in targets:
        if located(path) in videos:
            raise UsageError(f"{path} is the video of {videos[located(path)]!r} itself; name another --out")
        if path.exists() and not force:
            raise UsageError(f"{path} exists already; name another --out, or replace it with --force")
    twice = {path for path in targets if list(targets).count(path) > 1}
    if twice:
        raise UsageError(f"{min(twice)} would be written twice; take the stores one by one, each with its own --out")

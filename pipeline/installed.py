"""Entry points: the names that installed packages give to their stages, sources, commands and other things for us."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, entry_points
from itertools import chain
from typing import Any

from pipeline.text import plain

OURS = "pipeline."
"""Beginning of what an entry point of this package names."""


def by_name(group: str) -> dict[str, list[EntryPoint]]:
    """Return the entry points of a group by their names.

    A name that this package has is this package's alone: what workflows mean by `detect` does not change when another
    package is installed. Several other packages may have one name.
    """
    found: dict[str, list[EntryPoint]] = {}
    for point in dict.fromkeys(entry_points(group=group)):  # a package may be installed twice
        found.setdefault(point.name, []).append(point)
    for name, points in found.items():
        ours = [point for point in points if point.value.startswith(OURS)]
        found[name] = ours or sorted(points, key=lambda point: point.value)
    return found


def load_group(group: str) -> list[Any]:
    """Return what the entry points of a group name.

    If one of another package cannot be loaded, it is reported on standard error and left out: the others must work.
    """
    found = []
    for point in chain.from_iterable(by_name(group).values()):
        try:
            found.append(point.load())
        except Exception as err:
            if point.value.startswith(OURS):
                raise
            text = f"reelgraph: {point.name!r} of {group} cannot be loaded ({point.value}): {err}"
            print(plain(text), file=sys.stderr)
    return found

"""The version of reelgraph, and those that all processes of a run must share."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import cache
from importlib import metadata

__version__ = "0.1.0"


@cache
def versions() -> dict[str, str]:
    """Return the versions on which results, the store and the messages between processes depend, by name."""
    python = ".".join(platform.python_version_tuple()[:2])
    packages = {name: metadata.version(name) for name in ("dask", "distributed", "zarr")}
    return {"reelgraph": __version__, "Python": python, **packages}


def difference(there: Mapping[str, str], here: Mapping[str, str]) -> str | None:
    """Return the first difference as "has dask 1, this is 2"; None if there is none."""
    for name, version in here.items():
        if there.get(name) != version:
            return f"has {name} {there.get(name, 'of an unknown version')}, this is {version}"
    return None

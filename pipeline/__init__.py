"""reelgraph: face analysis for whole archives of video, as Dask tasks over chunks, into a Zarr store that resumes.

run = pipeline.run("faces", ["clip.mp4"], out="runs/clip.zarr")
faces = pipeline.open("runs/clip.zarr").faces()

`import reelgraph` gives this same module, also beside a `pipeline.py` of the user's own.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public names and their rooms. They load on first use, so that `import pipeline` and the command line stay quick.
_PUBLIC = {
    "run": "pipeline.api",
    "plan": "pipeline.api",
    "open": "pipeline.store.read",
    "make_demo_clip": "pipeline.demo",
    "Stage": "pipeline.stages.base",
    "StageOptions": "pipeline.stages.base",
    "Array": "pipeline.stages.base",
    "Chunk": "pipeline.stages.base",
    "ReelgraphError": "pipeline.errors",
}

_ROOMS = ("deepface",)
"""Submodules that load on first use as well."""

if TYPE_CHECKING:
    from pipeline.api import plan as plan
    from pipeline.api import run as run
    from pipeline.demo import make_demo_clip as make_demo_clip
    from pipeline.errors import ReelgraphError as ReelgraphError
    from pipeline.stages.base import Array as Array
    from pipeline.stages.base import Chunk as Chunk
    from pipeline.stages.base import Stage as Stage
    from pipeline.stages.base import StageOptions as StageOptions
    from pipeline.store.read import open as open

__all__ = ["__version__", *_PUBLIC, *_ROOMS]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"pipeline.{name}")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

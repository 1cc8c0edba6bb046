"""reelgraph: face analysis for whole archives of video, as Dask tasks over chunks, into a Zarr store that resumes.

    run = pipeline.run("faces", ["clip.mp4"], out="runs/clip.zarr")
    faces = pipeline.open("runs/clip.zarr").faces()

`import reelgraph` gives this same module, also beside a `pipeline.py` of the user's own.
Modules for those who extend it:

- `pipeline.engine.stage`, `pipeline.store.schema`: a stage, and the arrays and axes that it declares
- `pipeline.engine.source`: a source of items
- `pipeline.views.export`, `pipeline.views.tables.rows`: a format of `reelgraph export`, and its rows
- `pipeline.views.report.panel`: a panel of the report
- `pipeline.commands`: a command of the command line
- `pipeline.engine.events`: the events of a run, for listeners
- `pipeline.store.read`, `pipeline.faces.table`: an opened store
- `pipeline.engine.summary`, `pipeline.engine.workflow`: the summary of a run, and its workflow
- `pipeline.cluster.options`, `pipeline.machine.device`, `pipeline.models.card`: workers, devices, facts of models
- `pipeline.loader.loader`, `pipeline.loader.augment`: batches of augmented pictures for training
- `pipeline.errors`: the expected errors
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pipeline.version import __version__

# Public names and their rooms. They load on first use, so that `import pipeline` and the command line stay quick.
_PUBLIC = {
    "run": "pipeline.api",
    "plan": "pipeline.api",
    "open": "pipeline.faces.table",
    "make_demo_clip": "pipeline.faces.demo",
    "Stage": "pipeline.engine.stage",
    "StageOptions": "pipeline.engine.stage",
    "Array": "pipeline.store.schema",
    "Axis": "pipeline.store.schema",
    "Chunk": "pipeline.engine.stage",
    "Described": "pipeline.engine.stage",
    "Source": "pipeline.engine.source",
    "SourceOptions": "pipeline.engine.source",
    "InputRef": "pipeline.engine.source",
    "Job": "pipeline.engine.source",
    "Loaded": "pipeline.engine.source",
    "Export": "pipeline.views.export",
    "Panel": "pipeline.views.report.panel",
    "Loader": "pipeline.loader.loader",
    "Augment": "pipeline.loader.augment",
    "ReelgraphError": "pipeline.errors",
}

_ROOMS = ("deepface",)
"""Submodules that load on first use as well."""

if TYPE_CHECKING:
    from pipeline.api import plan as plan
    from pipeline.api import run as run
    from pipeline.engine.source import InputRef as InputRef
    from pipeline.engine.source import Job as Job
    from pipeline.engine.source import Loaded as Loaded
    from pipeline.engine.source import Source as Source
    from pipeline.engine.source import SourceOptions as SourceOptions
    from pipeline.engine.stage import Chunk as Chunk
    from pipeline.engine.stage import Described as Described
    from pipeline.engine.stage import Stage as Stage
    from pipeline.engine.stage import StageOptions as StageOptions
    from pipeline.errors import ReelgraphError as ReelgraphError
    from pipeline.faces.demo import make_demo_clip as make_demo_clip
    from pipeline.faces.table import open as open
    from pipeline.loader.augment import Augment as Augment
    from pipeline.loader.loader import Loader as Loader
    from pipeline.store.schema import Array as Array
    from pipeline.store.schema import Axis as Axis
    from pipeline.views.export import Export as Export
    from pipeline.views.report.panel import Panel as Panel

__all__ = ["__version__", *_PUBLIC, *_ROOMS]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"pipeline.{name}")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

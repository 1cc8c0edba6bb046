"""Find stages: built-in stages and the user's own are found in the same two ways."""

from __future__ import annotations

import traceback
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from pipeline.engine.source import Source, SourceOptions
from pipeline.engine.stage import Stage
from pipeline.errors import WorkflowError
from pipeline.media.video.source import VideoSource
from pipeline.text import unknown

ENTRY_POINT_GROUP = "reelgraph.stages"


def stage_names() -> dict[str, str]:
    """Return the names that `use:` accepts, each with its `package.module:Class`."""
    return {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}


def find_stage(use: str) -> type[Stage]:
    """Return the stage class of `use`: an entry point's name, or `package.module:Class`.

    Raises WorkflowError if there is none, or if it is not a Stage.
    """
    target = use if ":" in use else stage_names().get(use)
    if target is None:
        raise WorkflowError(unknown("stage", use, stage_names()) + ", or your own as 'package.module:Class'")
    module_name, _, class_name = target.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), class_name]):
        raise WorkflowError(f"stage {use!r}: write a stage of your own as 'package.module:Class'")
    try:
        module = import_module(module_name)
    except ImportError as err:
        raise WorkflowError(
            f"stage {use!r}: cannot import {module_name!r} ({err}); install it, or put it beside the workflow file"
        ) from err
    except Exception as err:  # a mistake in the user's own module, or in its name
        where = traceback.extract_tb(err.__traceback__)[-1]
        raise WorkflowError(
            f"stage {use!r}: importing {module_name!r} ends in {type(err).__name__}: {err} "
            f"({where.filename}, line {where.lineno}); fix it"
        ) from err
    stage = getattr(module, class_name, None)
    if stage is None:
        classes = [name for name, value in vars(module).items() if _is_stage(value)]
        raise WorkflowError(f"stage {use!r}: {unknown('class', class_name, classes)}")
    if not _is_stage(stage):
        raise WorkflowError(f"stage {use!r}: {class_name} is not a subclass of pipeline.Stage")
    return stage  # type: ignore[no-any-return]  # checked above


def _is_stage(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Stage) and value is not Stage


SOURCES: dict[str, type[Any]] = {"video": VideoSource}
"""Source classes by the `kind` of a workflow's `source:` section; called with (path, options, decoder)."""


def open_source(kind: str, path: Path | str, options: SourceOptions, decoder: str | None = None) -> Source:
    """Probe one input. `decoder` is the one stored at set-up, None to choose.

    Raises WorkflowError for an unknown kind, InputError if the input cannot be used.
    """
    source: Source = source_class(kind)(path, options, decoder)
    return source


def source_class(kind: str) -> type[Any]:
    """Return the class of a workflow's `source.kind`. Raises WorkflowError for an unknown kind."""
    if kind not in SOURCES:
        raise WorkflowError(unknown("source", kind, SOURCES))
    return SOURCES[kind]

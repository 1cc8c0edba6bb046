"""Sources: the inputs that a run reads. Video decoders are imported only when an input is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.errors import WorkflowError
from pipeline.names import unknown
from pipeline.sources.base import Decoded, DecodeJob, Source, SourceOptions
from pipeline.sources.inputs import expand
from pipeline.sources.video import VideoOptions, VideoSource

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


__all__ = [
    "SOURCES",
    "DecodeJob",
    "Decoded",
    "Source",
    "SourceOptions",
    "VideoOptions",
    "VideoSource",
    "expand",
    "open_source",
    "source_class",
]

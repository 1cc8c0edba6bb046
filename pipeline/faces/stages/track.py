"""Link the faces of an input along time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from pydantic import Field

from pipeline.engine.stage import Described, Stage, StageOptions
from pipeline.faces.people.space import Space
from pipeline.media.spans import is_timed
from pipeline.media.tracking import Block, TrackSettings, track_rows, usual_gap
from pipeline.store.read import RunInput
from pipeline.store.schema import Array

FRAMES_AT_ONCE = 2048
TRACK_SHARE = 0.9
"""Share of the model's own threshold. Faces of one person a moment apart are much nearer than photographs years apart:
99% of them within 0.7 of it. People who look alike replace each other at a cut within 0.82 of it. If the share is too
strict, a track ends and another begins; the clustering joins the two."""


class TrackOptions(StageOptions):
    """Options of `track`."""

    max_gap_seconds: float = Field(
        2.0, ge=0, description="longest time that a face may be absent within a track (seconds)"
    )
    min_iou: float = Field(0.2, gt=0, le=1, description="overlap of boxes that counts as the same place (0 to 1)")
    max_distance: float | None = Field(
        None, gt=0, description="largest distance of one person's embeddings (default: 0.9 of the model's threshold)"
    )
    use_embedding: bool = Field(True, description="false: link by position alone")


class Track(Stage):
    """One track number per face. Faces of pictures, which have no times, are tracks of their own."""

    needs: tuple[str, ...] = ("n_faces", "box", "embedding")  # see __init__
    scope = "input"
    version = 2  # split at cuts
    Options = TrackOptions
    outputs = (
        Array("track", ("face",), "int32", attributes={
            "description": "the face's track within the input, from 0 in order of first appearance"}),
    )  # fmt: skip

    def __init__(self, options: StageOptions) -> None:
        super().__init__(options)
        if not self.options.use_embedding:
            self.needs = ("n_faces", "box")  # without embeddings it links by position alone

    def run_input(self, item: RunInput) -> dict[str, np.ndarray | Described]:
        return {"track": track_input(item, self.options)}


def track_input(item: RunInput, options: TrackOptions, span: tuple[int, int] | None = None) -> np.ndarray:
    """Return int32 (n_faces,): the tracks of an input as far as it is done, with a few thousand frames in memory.

    Pictures have no times: each of their faces is a track of its own. `span`: first and last (exclusive) of some frames
    of a complete film; only their faces have a value.
    """
    if not is_timed(item):
        return np.arange(int(item.array("n_faces").sum()), dtype=np.int32)
    time_seconds = item.array("time_seconds")
    arrays = item.arrays
    space = Space.of(arrays["embedding"].attributes) if options.use_embedding and "embedding" in arrays else None
    limit = options.max_distance or (TRACK_SHARE * space.threshold if space else np.inf)
    settings = TrackSettings(options.max_gap_seconds, options.min_iou, limit)
    return track_rows(_blocks(item, space, span), settings, usual_gap(time_seconds))


def _blocks(item: RunInput, space: Space | None, span: tuple[int, int] | None) -> Iterator[Block]:
    names = ["n_faces", "time_seconds", "box", *(["embedding"] if space else [])]
    some = None if span is None else ((k, min(k + FRAMES_AT_ONCE, span[1])) for k in range(*span, FRAMES_AT_ONCE))
    for start, stop in item.spans(FRAMES_AT_ONCE) if some is None else some:
        part: dict[str, Any] = item.read_frames(names, start, stop)
        vectors = space.project(part["embedding"]) if space else None
        yield Block(part["n_faces"], part["time_seconds"], part["box"], vectors)

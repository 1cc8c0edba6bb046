"""Link the objects of an input along time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pydantic import Field

from pipeline.engine.stage import Described, Stage, StageOptions
from pipeline.media.spans import is_timed
from pipeline.media.tracking import Block, TrackSettings, track_rows, usual_gap
from pipeline.store.read import RunInput
from pipeline.store.schema import Array

FRAMES_AT_ONCE = 2048


class TrackObjectsOptions(StageOptions):
    """Options of `track_objects`."""

    max_gap_seconds: float = Field(
        2.0, ge=0, description="longest time that an object may be absent within a track (seconds)"
    )
    min_iou: float = Field(0.3, gt=0, le=1, description="overlap of boxes that counts as the same place (0 to 1)")
    start_score: float | None = Field(
        0.4, allow_inf_nan=False,
        description="least score of an object that begins a track; others continue tracks or have none (-1)",
    )  # fmt: skip


class TrackObjects(Stage):
    """One track number per object. Objects of pictures, which have no times, are tracks of their own."""

    needs: tuple[str, ...] = ("n_objects", "box", "class", "score")  # see __init__
    scope = "input"
    version = 1
    Options = TrackObjectsOptions
    outputs = (
        Array("track", ("object",), "int32", attributes={
            "description": "the object's track within the input, from 0 in order of first appearance; -1 if none"}),
    )  # fmt: skip

    def __init__(self, options: StageOptions) -> None:
        super().__init__(options)
        if self.options.start_score is None:
            self.needs = ("n_objects", "box", "class")

    def run_input(self, item: RunInput) -> dict[str, np.ndarray | Described]:
        if not is_timed(item):
            return {"track": np.arange(int(item.array("n_objects").sum()), dtype=np.int32)}
        settings = TrackSettings(self.options.max_gap_seconds, self.options.min_iou, by_movement=True)
        gap = usual_gap(item.array("time_seconds"))
        return {"track": track_rows(_blocks(item, self.options.start_score), settings, gap)}


def _blocks(item: RunInput, start_score: float | None) -> Iterator[Block]:
    names = ["n_objects", "time_seconds", "box", "class", *(["score"] if start_score is not None else [])]
    for start, stop in item.spans(FRAMES_AT_ONCE):
        part = item.read_frames(names, start, stop)
        begins = None if start_score is None else part["score"] >= start_score
        yield Block(part["n_objects"], part["time_seconds"], part["box"], None, part["class"], begins)

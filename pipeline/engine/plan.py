"""The plan: how a source is cut into chunks, and which (chunk, stage) are still missing. Knows no Dask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic_core import to_jsonable_python

from pipeline.engine.source import DecodeJob, Source, most_chunk_frames
from pipeline.engine.stage import Stage
from pipeline.engine.workflow import IMPLICIT, Workflow, differences
from pipeline.errors import StoreError
from pipeline.text import span

CHUNK_OVERHEAD_FRAMES = 10
"""What one more chunk costs (tasks, a commit of ten small arrays: about 15 ms), in source frames decoded."""


def choose_chunk_frames(source: Source) -> int:
    """Sampled frames per chunk: within the limits, the length that wastes the least decoding.

    A chunk that starts between two key frames is decoded from the key frame before it, so lengths that
    divide the distance of the key frames win. Depends on input and workflow only, never on the machine.
    """
    limit = most_chunk_frames(source.frame_bytes)
    total = len(source.frame)
    if total <= limit:
        return max(total, 1)

    def cost(length: int) -> tuple[int, int]:
        return source.decode_cost(length) + CHUNK_OVERHEAD_FRAMES * -(-total // length), -length

    return min(range(max(1, limit // 4), limit + 1), key=cost)


@dataclass(frozen=True)
class ChunkTask:
    """All that is to be done for one chunk; small and picklable."""

    input_name: str
    index: int
    start: int
    """First sampled frame, inclusive, counted along the input's frame axis."""
    stop: int
    """Last sampled frame, exclusive."""
    frame: np.ndarray
    time_seconds: np.ndarray
    job: DecodeJob | None
    """None where no missing stage needs pixels."""
    stages: tuple[str, ...]
    """Missing stages, in workflow order."""
    stored: tuple[str, ...]
    """Arrays of finished stages that the missing ones need: read from the store."""
    earlier_attempts: int = 0
    origin: tuple[int, int] = (0, 0)
    """x, y in the upright frame of the first pixel that stages see."""

    @property
    def time_range(self) -> str:
        return span(self.time_seconds)


@dataclass
class InputPlan:
    """One input, cut into chunks, with what is missing of each."""

    name: str
    source: Source
    chunk_frames: int
    missing: dict[int, tuple[str, ...]]
    """Stages still missing, per chunk that has any and is to be tried."""
    failed: set[int]
    """Chunks recorded as failed by an earlier run and not taken again."""
    done: set[int]
    """Chunks of which nothing is missing."""
    attempts: dict[int, int] = field(default_factory=dict)
    complete: bool = False
    """Nothing is missing and the arrays are compacted."""

    @property
    def n_frames(self) -> int:
        return len(self.source.frame)

    @property
    def boundaries(self) -> list[tuple[int, int]]:
        return cut(self.n_frames, self.chunk_frames)

    def task(self, index: int, workflow: Workflow) -> ChunkTask:
        start, stop = self.boundaries_of(index)
        stages = self.missing[index]
        needs = {need for name in stages for need in workflow.node(name).stage.needs}
        made = {array.name for name in stages for array in workflow.node(name).stage.outputs}
        stored = [need for need in needs if need not in made and need not in IMPLICIT]
        if needs_faces(workflow, stages) and "n_faces" in workflow.specs() and "n_faces" not in made:
            stored.append("n_faces")
        return ChunkTask(
            input_name=self.name,
            index=index,
            start=start,
            stop=stop,
            frame=self.source.frame[start:stop],
            time_seconds=self.source.time_seconds[start:stop],
            job=self.source.job(start, stop) if "frames_rgb" in needs else None,
            stages=stages,
            stored=tuple(sorted(set(stored))),
            earlier_attempts=self.attempts.get(index, 0),
            origin=self.source.origin,
        )

    def boundaries_of(self, index: int) -> tuple[int, int]:
        start = index * self.chunk_frames
        return start, min(start + self.chunk_frames, self.n_frames)


def needs_faces(workflow: Workflow, stages: tuple[str, ...]) -> bool:
    """Whether one of the stages writes an array with one row per face."""
    return any(array.dims[0] == "face" for name in stages for array in workflow.node(name).stage.outputs)


def cut(n_frames: int, chunk_frames: int) -> list[tuple[int, int]]:
    """(start, stop) of every chunk; stop is exclusive."""
    return [(start, min(start + chunk_frames, n_frames)) for start in range(0, n_frames, chunk_frames)]


def plan_input(
    workflow: Workflow,
    name: str,
    source: Source,
    attributes: Mapping[str, Any] | None,
    records: Mapping[int, Mapping[str, Any]],
    retry_failed: bool = False,
) -> InputPlan:
    """Which chunks of an input miss which stages.

    `attributes` are the stored attributes of the input (None where it is new), `records` the commit records
    of its chunk groups. Raises StoreError where a stored chunk length does not fit.
    """
    stored = attributes or {}
    chunk_frames = int(stored.get("chunk_frames") or choose_chunk_frames(source))
    finished = {stage for stage, facts in stored.get("stages", {}).items() if facts.get("state") == "complete"}
    wanted = tuple(node.name for node in workflow.chunk_stages)
    plan = InputPlan(name, source, chunk_frames, {}, set(), set())
    for index, _ in enumerate(plan.boundaries):
        record = records.get(index, {})
        plan.attempts[index] = int(record.get("attempts", 0))
        have = finished | set(record.get("stages", {}))
        missing = tuple(stage for stage in wanted if stage not in have)
        if not missing and record.get("state", "ok") == "ok":
            plan.done.add(index)
        elif record.get("state") == "failed" and not retry_failed:
            plan.failed.add(index)
        else:
            plan.missing[index] = missing or wanted
    plan.complete = bool(stored.get("complete")) and not plan.missing and not plan.failed
    return plan


def check_keys(
    workflow: Workflow, stored_workflow: Mapping[str, Any], stored_stages: Mapping[str, Any], name: str
) -> None:
    """Refuse to go on where a stage of chunks was stored under other options, weights or upstream stages. (One of the
    whole input is simply done again.)

    Raises StoreError with the difference shown.
    """
    keys = workflow.keys()
    of_chunks = {node.name for node in workflow.chunk_stages}
    changed = [s for s, facts in stored_stages.items() if s in of_chunks and facts.get("key") != keys[s]]
    if not changed:
        return
    now = workflow.resolved()
    old = {
        "source": stored_workflow.get("source", {}),
        "stages": {
            s: {**_defaults(workflow.node(s).stage), **v}  # options that came after the store was written
            for s, v in stored_workflow.get("stages", {}).items()
            if s in now["stages"]
        },
    }
    now["stages"] = {s: v for s, v in now["stages"].items() if s in old["stages"]}
    changes = [line.removeprefix("stages.") for line in differences(old, now) if not line.startswith("source.decoder")]
    shown = "; ".join(changes) or "the weights or the version of the stage"
    raise StoreError(
        f"{name!r} was stored with other settings for {', '.join(changed)} ({shown}); "
        "choose another --out, or start over with --fresh"
    )


def _defaults(stage: Stage) -> dict[str, Any]:
    fields = type(stage.options).model_fields
    return {name: to_jsonable_python(field.default) for name, field in fields.items() if not field.is_required()}



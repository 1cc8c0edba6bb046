"""The plan: chunk lengths, what is missing, and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.engine.bound import BoundWorkflow, Recipe
from pipeline.engine.plan import ChunkTask, InputPlan, check_keys, choose_chunk_items, in_turns, plan_input
from pipeline.engine.source import MAX_CHUNK_BYTES, MAX_CHUNK_FRAMES, Job, Loaded
from pipeline.engine.workflow import Workflow, load_workflow
from pipeline.errors import StoreError
from pipeline.media.video.source import VideoOptions, VideoSource
from pipeline.store.chunks import Chunks, fail_chunk, write_chunk
from pipeline.store.record import Record
from pipeline.store.schema import Schema
from pipeline.text import clock, span


class RegularSource(VideoSource):
    """A video with a key frame every `gop` source frames, sampled every `every`; planned, never decoded."""

    kind = "regular"

    def __init__(self, n_source: int, gop: int, every: int, frame_bytes: int = 1000) -> None:
        self.path = Path("regular.mp4")
        self.options = VideoOptions(every=every)
        self.gop = gop
        self.frame = np.arange(0, n_source, every)
        self.time_seconds = self.frame / 25.0
        self.item_bytes = frame_bytes
        self.facts = {"decoder": "pyav"}

    def cost(self, chunk_frames: int) -> int:
        first = self.frame[::chunk_frames]
        last = np.append(self.frame[chunk_frames - 1 :: chunk_frames], self.frame[-1])[: len(first)]
        return int(np.sum(last - first // self.gop * self.gop + 1))

    def job(self, start: int, stop: int) -> Job:
        return PlannedJob()


class PlannedJob(Job):
    """Stands for what a worker would decode."""

    def load(self, threads: int = 1) -> Loaded:
        raise NotImplementedError("this source is planned, never decoded")


@pytest.fixture
def workflow(workflows: Path) -> Workflow:
    return load_workflow(workflows / "faces.yaml")


@pytest.mark.parametrize(
    ("gop", "every", "expected"),
    [(250, 5, 50), (30, 5, 60), (25, 5, 60), (1, 1, 64), (64, 1, 64), (48, 1, 48)],
)
def test_chunks_end_where_key_frames_are(gop: int, every: int, expected: int) -> None:
    assert choose_chunk_items(RegularSource(15_000, gop, every)) == expected


def test_a_chunk_never_exceeds_its_frames_or_bytes() -> None:
    full_hd = 1920 * 1080 * 3
    for gop in (1, 12, 48, 250, 1000):
        chosen = choose_chunk_items(RegularSource(15_000, gop, 1, full_hd))
        assert chosen * full_hd <= MAX_CHUNK_BYTES
        assert chosen <= MAX_CHUNK_FRAMES


def test_one_frame_beyond_the_budget_is_still_a_chunk() -> None:
    assert choose_chunk_items(RegularSource(100, 10, 1, MAX_CHUNK_BYTES * 2)) == 1


def test_a_short_input_is_one_chunk() -> None:
    assert choose_chunk_items(RegularSource(50, 250, 5)) == 10


BOTH = ("detect", "embed")
LENGTH = 50


def commit(folder: Path, workflow: Workflow, index: int, *stages: str, **facts: Any) -> None:
    """Commit empty arrays of some stages of a chunk: no frame has a face."""
    keys = {stage: workflow.keys()[stage] for stage in stages}
    schema = workflow.schema.of(array.name for stage in stages for array in workflow.node(stage).stage.outputs)
    arrays = {spec.name: spec.nothing(0) for spec in schema.arrays} | {"n_faces": np.zeros(LENGTH, np.int32)}
    items = {"frame": np.arange(LENGTH), "time_seconds": np.arange(LENGTH) / 25, "decoded": np.ones(LENGTH, bool)}
    specs = (*(schema.item_arrays if "detect" in stages else ()), *schema.arrays)
    counts = {} if "detect" in stages else {"face": arrays["n_faces"]}
    record = Record("ok", stages=keys, **facts)
    write_chunk(str(folder), "clip", index, {**items, **arrays}, specs, record, schema, items=LENGTH, counts=counts)


def fail(folder: Path, workflow: Workflow, index: int, *stages: str) -> None:
    tried = {stage: workflow.keys()[stage] for stage in stages or BOTH}
    fail_chunk(str(folder), "clip", index, Record("failed", attempts=2, error="poison", tried=tried))


def plan(workflow: Workflow, folder: Path, *, attributes: dict[str, Any] | None = None, **more: Any) -> InputPlan:
    """Four chunks, as the store in the folder has them."""
    stored = {"chunk_frames": LENGTH, **(attributes or {})}
    source = RegularSource(200, 10, 1)
    return plan_input(BoundWorkflow(workflow), "clip", source, stored, Chunks(folder, "clip"), **more)


def missing(planned: InputPlan) -> dict[int, tuple[str, ...]]:
    return {index: planned.missing(index) for index in planned.todo.tolist()}


def test_what_has_no_record_is_missing(workflow: Workflow, tmp_path: Path) -> None:
    commit(tmp_path, workflow, 0, *BOTH)
    fail(tmp_path, workflow, 2)
    planned = plan(workflow, tmp_path)
    assert planned.done.tolist() == [0]
    assert planned.failed.tolist() == [2]
    assert missing(planned) == {1: BOTH, 3: BOTH}
    assert [task.index for task in planned.tasks()] == [1, 3]


def test_failed_chunks_are_taken_again_when_asked(workflow: Workflow, tmp_path: Path) -> None:
    fail(tmp_path, workflow, 2)
    planned = plan(workflow, tmp_path, retry_failed=True)
    assert missing(planned)[2] == BOTH
    task = planned.task(2)
    assert task.earlier_attempts == 2
    assert [name.split(".")[:2] for name in task.replaces] == [["000002", "failed"]]


def test_a_failure_of_a_later_stage_is_taken_again_alone(workflow: Workflow, tmp_path: Path) -> None:
    commit(tmp_path, workflow, 2, "detect")
    fail(tmp_path, workflow, 2, "embed")
    assert plan(workflow, tmp_path).failed.tolist() == [2]
    task = plan(workflow, tmp_path, retry_failed=True).task(2)
    assert task.recipe.names == ("embed",)
    assert (len(task.files), len(task.replaces)) == (1, 1)


def test_an_added_stage_is_all_that_is_missing(workflow: Workflow, tmp_path: Path) -> None:
    commit(tmp_path, workflow, 0, "detect")
    planned = plan(workflow, tmp_path)
    assert planned.missing(0) == ("embed",)
    assert planned.task(0).recipe.stored == ("box", "landmarks", "n_faces")
    assert len(planned.task(0).files) == 1
    compacted = plan(
        workflow, tmp_path / "other", attributes={"stages": {"detect": {"state": "complete"}}, "complete": True}
    )
    assert set(missing(compacted).values()) == {("embed",)}
    assert not compacted.complete


def test_frames_are_counted_with_a_short_last_chunk(workflow: Workflow, tmp_path: Path) -> None:
    planned = plan(workflow, tmp_path, attributes={"chunk_frames": 60})
    assert (planned.total, planned.boundaries_of(3)) == (4, (180, 200))
    assert planned.items_of(planned.todo) == 200
    assert planned.items_of(planned.todo[:2]) == 120
    assert planned.items_of(planned.todo[2:]) == 80
    assert planned.where(1) == span(planned.source.time_seconds[60:120])  # type: ignore[attr-defined]


def test_the_steps_of_many_chunks_are_sent_once(workflow: Workflow, tmp_path: Path) -> None:
    """Chunks with the same missing stages share one recipe, also after a pickle; none is made per chunk."""
    import pickle

    tasks = list(plan(workflow, tmp_path).tasks())
    assert len({id(task.recipe) for task in tasks}) == 1
    sent = [pickle.loads(pickle.dumps(task)) for task in tasks]
    assert len({id(task.recipe) for task in sent}) == 1
    assert sent[0].recipe == tasks[0].recipe


def test_other_options_are_refused_with_the_difference(workflow: Workflow, workflows: Path) -> None:
    stored = {stage: {"key": key} for stage, key in workflow.keys().items()}
    check_keys(BoundWorkflow(workflow), workflow.resolved(), stored, "clip")
    other = load_workflow(workflows / "faces.yaml", ["detect.min_face=40"])
    with pytest.raises(StoreError, match=r"detect\.min_face: 20 -> 40.*--fresh"):
        check_keys(BoundWorkflow(other), workflow.resolved(), stored, "clip")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00.000"), (59.9996, "0:01:00.000"), (3725.5, "1:02:05.500"), (-1.5, "-0:00:01.500")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def lengthy(items: int) -> RegularSource:
    return RegularSource(items, 1, 1)


def test_a_slow_stage_gets_short_chunks() -> None:
    """But an input of millions has no more chunks for it."""
    short = lengthy(100)
    assert choose_chunk_items(short) == 64
    assert choose_chunk_items(short, 16) == 16
    assert choose_chunk_items(lengthy(10), 16) == 10
    assert choose_chunk_items(lengthy(50_000), 16) == 49
    assert choose_chunk_items(lengthy(1_000_000), 16) == 64


def _task(name: str, index: int, *times: float) -> ChunkTask:
    values = {"time_seconds": np.array(times)} if times else {}
    nothing = Recipe((), False, (), Schema("frame", ()), {})
    return ChunkTask(name, index, 10 * index, 10 * index + max(1, len(times)), values, None, nothing, "")


def _turns(together: int, **inputs: list[float]) -> str:
    """Return the order in which chunks are taken that begin at these seconds, by the inputs' letters."""
    tasks = (iter([_task(name, k, at) for k, at in enumerate(begins)]) for name, begins in inputs.items())
    return "".join(task.input_name for task in in_turns(tasks, together))


def test_inputs_together_are_equally_far() -> None:
    """The next chunk is of the input that is least far, in its own time, whatever the lengths of the chunks."""
    a, b, c = [0.0, 2.0, 4.0, 6.0], [0.0, 4.0], [0.0, 3.0, 6.0]
    assert _turns(1, a=a, b=b, c=c) == "aaaabbccc"
    assert _turns(2, a=a, b=b) == "abaaba"
    assert _turns(3, a=a, b=b, c=c) == "abcacabac"
    assert _turns(9, a=a, b=[], c=c) == "acacaac"


def test_an_input_that_joins_does_not_hold_up_the_others() -> None:
    """It starts from where they are, though its own time begins at 0."""
    assert _turns(2, a=[0.0], b=[0.0, 1.0, 2.0, 3.0], c=[0.0, 1.0, 2.0]) == "abcbcbcb"
    assert _turns(2, a=[50.0, 51.0], b=[0.0, 1.0]) == "bbaa"  # one that was left behind by an earlier run catches up


def test_inputs_without_times_advance_by_items() -> None:
    tasks = (iter([_task(name, k) for k in range(3)]) for name in "ab")
    assert "".join(task.input_name for task in in_turns(tasks, 2)) == "ababab"
    assert _task("a", 0).seconds is None
    assert _task("a", 0, 0.0, 0.5, 1.0).seconds == 1.5

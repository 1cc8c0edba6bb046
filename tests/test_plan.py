"""The plan: chunk lengths, what is missing, and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.engine.plan import check_keys, choose_chunk_frames, plan_input
from pipeline.engine.source import MAX_CHUNK_BYTES, MAX_CHUNK_FRAMES, DecodeJob, Source
from pipeline.engine.workflow import Workflow, load_workflow
from pipeline.errors import StoreError
from pipeline.text import clock


class RegularSource(Source):
    """A source with a key frame every `gop` source frames, sampled every `every`."""

    kind = "regular"

    def __init__(self, n_source: int, gop: int, every: int, frame_bytes: int = 1000) -> None:
        self.path = Path("regular.mp4")
        self.gop = gop
        self.frame = np.arange(0, n_source, every)
        self.time_seconds = self.frame / 25.0
        self.frame_bytes = frame_bytes
        self.facts = {"decoder": "pyav"}

    def decode_cost(self, chunk_frames: int) -> int:
        first = self.frame[::chunk_frames]
        last = np.append(self.frame[chunk_frames - 1 :: chunk_frames], self.frame[-1])[: len(first)]
        return int(np.sum(last - first // self.gop * self.gop + 1))

    def job(self, start: int, stop: int) -> DecodeJob:
        raise NotImplementedError("this source is planned, never decoded")


@pytest.fixture
def workflow(workflows: Path) -> Workflow:
    return load_workflow(workflows / "faces.yaml")


@pytest.mark.parametrize(
    ("gop", "every", "expected"),
    [(250, 5, 50), (30, 5, 60), (25, 5, 60), (1, 1, 64), (64, 1, 64), (48, 1, 48)],
)
def test_chunks_end_where_key_frames_are(gop: int, every: int, expected: int) -> None:
    assert choose_chunk_frames(RegularSource(15_000, gop, every)) == expected


def test_a_chunk_never_exceeds_its_frames_or_bytes() -> None:
    full_hd = 1920 * 1080 * 3
    for gop in (1, 12, 48, 250, 1000):
        chosen = choose_chunk_frames(RegularSource(15_000, gop, 1, full_hd))
        assert chosen * full_hd <= MAX_CHUNK_BYTES
        assert chosen <= MAX_CHUNK_FRAMES


def test_one_frame_beyond_the_budget_is_still_a_chunk() -> None:
    assert choose_chunk_frames(RegularSource(100, 10, 1, MAX_CHUNK_BYTES * 2)) == 1


def test_a_short_input_is_one_chunk() -> None:
    assert choose_chunk_frames(RegularSource(50, 250, 5)) == 10


def plan(workflow: Workflow, records: dict[int, dict[str, Any]], **more: Any) -> Any:
    source = RegularSource(200, 10, 1)
    return plan_input(workflow, "clip", source, {"chunk_frames": 50, **more.pop("attributes", {})}, records, **more)


def test_what_has_no_record_is_missing(workflow: Workflow) -> None:
    both = {"detect": "k", "embed": "k"}
    planned = plan(workflow, {0: {"state": "ok", "stages": both}, 2: {"state": "failed", "attempts": 2}})
    assert planned.done == {0}
    assert planned.failed == {2}
    assert planned.missing == {1: ("detect", "embed"), 3: ("detect", "embed")}


def test_failed_chunks_are_taken_again_when_asked(workflow: Workflow) -> None:
    planned = plan(workflow, {2: {"state": "failed", "attempts": 2}}, retry_failed=True)
    assert 2 in planned.missing
    assert planned.attempts[2] == 2


def test_an_added_stage_is_all_that_is_missing(workflow: Workflow) -> None:
    planned = plan(workflow, {0: {"state": "ok", "stages": {"detect": "k"}}})
    assert planned.missing[0] == ("embed",)
    compacted = plan(workflow, {}, attributes={"stages": {"detect": {"state": "complete"}}, "complete": True})
    assert set(compacted.missing.values()) == {("embed",)}


def test_other_options_are_refused_with_the_difference(workflow: Workflow, workflows: Path) -> None:
    stored = {stage: {"key": key} for stage, key in workflow.keys().items()}
    check_keys(workflow, workflow.resolved(), stored, "clip")
    other = load_workflow(workflows / "faces.yaml", ["detect.min_face=40"])
    with pytest.raises(StoreError, match=r"detect\.min_face: 20 -> 40.*--fresh"):
        check_keys(other, workflow.resolved(), stored, "clip")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00.000"), (59.9996, "0:01:00.000"), (3725.5, "1:02:05.500"), (-1.5, "-0:00:01.500")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text

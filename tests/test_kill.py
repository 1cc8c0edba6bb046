"""kill -9 of a whole run at random moments, again and again: the store ends up as if nothing had happened."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import pytest

import pipeline
from pipeline.store.run import RunStore
from tests.clips import write_clip
from tests.faults import one_stage
from tests.processes import kill_group, reelgraph, start, wait_until

KILLS = 20
CHUNKS_PER_SECOND = 6
"""Of two workers."""
WORKERS = ("--workers", "2", "--dashboard-port", "0")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_kills_change_nothing(tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "killed.zarr"
    # The shorter the chunks' work, the more moments of every kind (decode, write, compaction) are hit.
    workflow = one_stage(tmp_path, "Counted", log=str(log), seconds=2 / CHUNKS_PER_SECOND)
    clip = write_clip(tmp_path / "clip.mp4", n_frames=10_000, size=(96, 64), gop=16)
    words = ["run", workflow, clip, "--out", out]
    chance = random.Random(7)
    committed: set[int] = set()
    for kills in range(1, KILLS + 1):
        computed_before = len(_computed(log))
        # A cluster takes seconds to start. What it adds to a kill, several writers, a third of the kills hit.
        process = start(*words, *(WORKERS if kills % 3 == 0 else ("--executor", "inline")))
        if kills % 2:  # while chunks are decoded, computed and written; else at any moment since the start
            wait_until(lambda before=computed_before: len(_computed(log)) > before)  # type: ignore[misc]
            time.sleep(chance.uniform(0.0, 1.0))
        else:
            time.sleep(chance.uniform(0.5, 4.0))
        assert process.poll() is None, f"the run was over after {kills} kills; make the clip longer"
        kill_group(process)
        assert not committed & set(_computed(log)[computed_before:])
        committed |= _committed(out)
    computed_before = len(_computed(log))
    assert reelgraph(*words, *WORKERS, timeout=600).returncode == 0
    assert not committed & set(_computed(log)[computed_before:])
    assert committed  # some chunks were done before the last kill, and they were left alone
    whole = tmp_path / "whole.zarr"
    pipeline.run(workflow, clip, whole, executor="inline", set={"grey.seconds": 0, "grey.log": f"{tmp_path}/other"})
    killed, uninterrupted = pipeline.open(out), pipeline.open(whole)
    for name in ("frame", "time_seconds", "decoded", "grey"):
        np.testing.assert_array_equal(killed.array("clip", name), uninterrupted.array("clip", name))


def _computed(log: Path) -> list[int]:
    """Chunks that the stage has computed so far, in order."""
    return [int(line.split()[1]) for line in log.read_text().splitlines()] if log.exists() else []


def _committed(out: Path) -> set[int]:
    """Chunks that have a commit record."""
    if not out.exists():
        return set()
    store = RunStore.open(out, mode="r")
    return {index for name in store.input_names() for index in store.input(name).chunks().indices.tolist()}

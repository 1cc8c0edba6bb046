"""Too little memory for the models: batches are halved, and the run ends with the same arrays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pipeline

SCRIPT = """
import sys
from dataclasses import replace
import pipeline, pipeline.cluster.starting
from pipeline.models import session
workflow, clip, out, megabytes = sys.argv[1:]
settings = pipeline.cluster.starting.in_process_settings()
short = replace(settings, device=replace(settings.device, memory_bytes=int(megabytes) << 20))
pipeline.cluster.starting.in_process_settings = lambda *_: short
run = pipeline.run(workflow, clip, out, executor="inline", set={"source.every": 5})
assert not run.summary.failures, run.summary.failures
print("halved:", sorted({model for _, _, model, _ in session._fits}))
"""


@pytest.mark.slow
def test_a_run_short_of_memory_ends_with_the_same_arrays(repository: Path, tmp_path: Path) -> None:
    from pipeline.faces.demo import make_demo_clip

    clip = make_demo_clip(tmp_path / "demo.mp4", seconds=4).path
    workflow = repository / "workflows" / "faces.yaml"
    plenty = pipeline.run(workflow, clip, tmp_path / "plenty.zarr", executor="inline", set={"source.every": 5})
    words = [str(workflow), str(clip), str(tmp_path / "short.zarr"), "40"]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "mtcnn onet" in done.stdout, "the limit was never met, so that nothing was tried"
    assert "onnxruntime" not in done.stderr, "what is mended is no news"
    short = pipeline.open(tmp_path / "short.zarr")
    for name in plenty.input("demo").arrays:
        np.testing.assert_array_equal(plenty.array("demo", name), short.array("demo", name))

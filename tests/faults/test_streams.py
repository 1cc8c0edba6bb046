"""Several inputs at once: one whose worker is over its limit, again and again, changes no byte of the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import pipeline
from tests.clips import write_clip
from tests.faults import one_stage


def stored(out: Path, name: str) -> dict[str, bytes]:
    """Return the files of an input's arrays."""
    files = (path for path in sorted(out.glob(f"{name}/*/c/**/*")) if path.is_file())
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


@pytest.mark.slow
def test_the_other_streams_are_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """Dask ends a worker over its limit as a kill does; with fault="kill" this test passes too."""
    clips = [write_clip(tmp_path / f"{name}.mp4", n_frames=190 + 10 * place) for place, name in enumerate("abc")]
    workflow = one_stage(tmp_path, "Faulty", fault="none")
    undisturbed = pipeline.run(workflow, clips, tmp_path / "undisturbed.zarr", executor="inline")
    assert undisturbed.summary.exit_code == 0
    workflow = one_stage(tmp_path, "Faulty", fault="fill", input="b", chunk=1)
    limit = {"workers": 2, "worker_memory_bytes": 1_200_000_000}
    disturbed = pipeline.run(workflow, clips, tmp_path / "out.zarr", dashboard_port=0, attempts=1, **limit)
    (failure,) = disturbed.summary.failures
    assert (failure["input"], failure["chunk"]) == ("b", 1)
    assert "the worker process died" in failure["error"]
    for name in "ac":
        files = stored(tmp_path / "out.zarr", name)
        assert len(files) >= 4
        assert files == stored(tmp_path / "undisturbed.zarr", name)
    frames = disturbed.array("b", "frame")
    assert 0 < len(frames) < 200
    np.testing.assert_array_equal(disturbed.array("b", "grey"), undisturbed.array("b", "grey")[frames])

"""Whole runs: both executors, resume, faults of every kind. One bad chunk never ends a run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline
from pipeline.errors import ReelgraphError, StoreError, WorkflowError
from tests.clips import write_clip

FAULTS = Path(__file__).parent / "faults" / "faulty.py"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", n_frames=400)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the failing stages in it: modules beside the workflow file can be named in it."""
    shutil.copy(FAULTS, tmp_path)
    return tmp_path


def workflow(folder: Path, use: str, every: int = 1, **options: Any) -> Path:
    import yaml

    path = folder / "workflow.yaml"
    section = {"use": f"faulty:{use}", "options": options}
    path.write_text(yaml.safe_dump({"source": {"every": every}, "stages": {"grey": section}}))
    return path


def run(path: Path, clip: Path, out: Path, executor: str = "inline", **more: Any) -> Any:
    cluster = {"workers": 2} if executor == "dask" else {}
    return pipeline.run(path, clip, out, executor=executor, **cluster, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("executor", ["inline", pytest.param("dask", marks=pytest.mark.slow)])
def test_both_executors_store_the_same(folder: Path, clip: Path, executor: str) -> None:
    done = run(workflow(folder, "Faulty", fault="none"), clip, folder / "out.zarr", executor)
    assert done.summary.exit_code == 0
    assert done.done_share == 1.0
    grey = done.array("clip", "grey")
    assert grey.shape == (400,)
    assert (np.diff(grey[::40]) > 0).all()  # the clip gets brighter
    np.testing.assert_array_equal(done.array("clip", "frame"), np.arange(400))


@pytest.mark.parametrize("executor", ["inline", pytest.param("dask", marks=pytest.mark.slow)])
def test_a_chunk_that_raises_is_recorded_and_the_rest_runs(folder: Path, clip: Path, executor: str) -> None:
    path = workflow(folder, "Faulty", fault="raise", chunk=1)
    done = run(path, clip, folder / "out.zarr", executor)
    assert done.summary.exit_code == 1
    assert [f["chunk"] for f in done.summary.failures] == [1]
    assert "ValueError: made to fail" in done.summary.failures[0]["error"]
    chunks = done.inputs["clip"].chunks
    assert chunks["failed"] == 1
    assert chunks["done"] == chunks["total"] - 1


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["kill", "hang"])
def test_a_chunk_that_ends_its_worker_takes_no_other_with_it(folder: Path, clip: Path, fault: str) -> None:
    path = workflow(folder, "Faulty", fault=fault, chunk=2)
    done = run(path, clip, folder / "out.zarr", "dask", chunk_timeout_seconds=5.0)
    assert [f["chunk"] for f in done.summary.failures] == [2]
    assert done.summary.failures[0]["step"] == "grey"
    expected = "no result within 5 s" if fault == "hang" else "the worker process died"
    assert expected in done.summary.failures[0]["error"]
    assert done.summary.exit_code == 1


@pytest.mark.slow
def test_a_worker_killed_once_costs_nothing(folder: Path, clip: Path) -> None:
    path = workflow(folder, "Faulty", fault="kill", chunk=1, only_once=str(folder / "happened"))
    done = run(path, clip, folder / "out.zarr", "dask")
    assert done.summary.exit_code == 0
    assert done.done_share == 1.0


def test_a_failed_chunk_waits_for_a_word_of_the_user(folder: Path, clip: Path) -> None:
    once = str(folder / "happened")
    out = folder / "out.zarr"
    path = workflow(folder, "Faulty", fault="raise", chunk=1)
    assert run(path, clip, out).summary.exit_code == 1
    again = run(path, clip, out)
    assert again.summary.exit_code == 1
    assert again.summary.chunks == 0
    del once
    accepted = run(path, clip, out, accept_failed=True)
    assert accepted.summary.exit_code == 0
    decoded = accepted.array("clip", "decoded")
    assert 0 < (~decoded).sum() < len(decoded)


def test_failed_chunks_are_retried_when_asked(folder: Path, clip: Path) -> None:
    marker = folder / "mended"
    (folder / "mending.py").write_text(
        "from pathlib import Path\nfrom faulty import Faulty\n"
        "class Mending(Faulty):\n"
        f"    def _due(self): return not Path({str(marker)!r}).exists()\n"
    )
    path = folder / "workflow.yaml"
    path.write_text("source: {every: 1}\nstages: {grey: {use: 'mending:Mending'}}\n")
    assert run(path, clip, folder / "out.zarr").summary.exit_code == 1
    marker.touch()
    assert run(path, clip, folder / "out.zarr").summary.exit_code == 1
    mended = run(path, clip, folder / "out.zarr", retry_failed=True)
    assert mended.summary.exit_code == 0
    assert mended.summary.chunks == 1
    assert mended.done_share == 1.0


def test_wrong_shapes_are_named(folder: Path, clip: Path) -> None:
    done = run(workflow(folder, "WrongRows"), clip, folder / "out.zarr")
    assert "grey has shape" in done.summary.failures[0]["error"]


def test_a_rerun_does_nothing(folder: Path, clip: Path) -> None:
    log = folder / "log"
    path = workflow(folder, "Counted", log=str(log))
    run(path, clip, folder / "out.zarr")
    before = log.read_text()
    again = run(path, clip, folder / "out.zarr", executor="dask")  # no cluster is started for nothing
    assert again.summary.chunks == 0
    assert "start" not in again.summary.seconds
    assert log.read_text() == before


def test_fresh_starts_over(folder: Path, clip: Path) -> None:
    log = folder / "log"
    path = workflow(folder, "Counted", log=str(log))
    run(path, clip, folder / "out.zarr")
    first = len(log.read_text().splitlines())
    run(path, clip, folder / "out.zarr", fresh=True)
    assert len(log.read_text().splitlines()) == 2 * first


def test_other_options_are_refused(folder: Path, clip: Path) -> None:
    out = folder / "out.zarr"
    run(workflow(folder, "Faulty", fault="none"), clip, out)
    with pytest.raises(StoreError, match=r"source\.every: 1 -> 2"):
        run(workflow(folder, "Faulty", fault="none", every=2), clip, out)


def test_a_changed_file_is_refused(folder: Path, clip: Path) -> None:
    mine, out = folder / "mine.mp4", folder / "out.zarr"
    shutil.copy(clip, mine)
    path = workflow(folder, "Faulty", fault="none")
    run(path, mine, out)
    write_clip(mine, n_frames=30)
    done = run(path, mine, out)
    assert done.summary.exit_code == 2
    assert "is not the file that was stored as 'mine'" in done.summary.unusable[0]["error"]


def test_new_inputs_and_stages_are_added(folder: Path, clip: Path) -> None:
    out, log = folder / "out.zarr", folder / "log"
    run(workflow(folder, "Counted", log=str(log)), clip, out)
    computed = log.read_text()
    other = write_clip(folder / "other.mp4", n_frames=40)
    two = folder / "two.yaml"
    two.write_text(
        f"source: {{every: 1}}\nstages:\n  grey: {{use: 'faulty:Counted', options: {{log: '{log}'}}}}\n"
        "  level: {use: 'level:Level', after: grey}\n"
    )
    (folder / "level.py").write_text(
        "from pipeline import Array, Stage\n"
        "class Level(Stage):\n"
        "    needs = ('grey',)\n"
        "    outputs = (Array('level', ('frame',), 'int32'),)\n"
        "    def run(self, chunk): return {'level': (chunk['grey'] // 10).astype('int32')}\n"
    )
    done = pipeline.run(two, [clip, other], out, executor="inline")
    assert done.summary.exit_code == 0
    assert set(done.inputs) == {"clip", "other"}
    assert log.read_text().startswith(computed)
    assert {line.split()[0] for line in log.read_text()[len(computed) :].splitlines()} == {"other"}
    for name in ("clip", "other"):
        np.testing.assert_array_equal(done.array(name, "level"), (done.array(name, "grey") // 10).astype(int))


def test_one_bad_file_among_many(folder: Path, clip: Path) -> None:
    bad = folder / "bad.mp4"
    bad.write_bytes(b"")
    done = pipeline.run(workflow(folder, "Faulty", fault="none"), [bad, clip], folder / "out.zarr", executor="inline")
    assert done.summary.exit_code == 1
    assert [entry["path"] for entry in done.summary.unusable] == [str(bad)]
    assert done.inputs["clip"].attributes["complete"]


def test_nothing_usable_is_the_users_mistake(folder: Path) -> None:
    bad = folder / "bad.mp4"
    bad.write_bytes(b"")
    done = run(workflow(folder, "Faulty"), bad, folder / "out.zarr")
    assert done.summary.exit_code == 2


def test_a_missing_input_is_refused_before_anything_is_written(folder: Path) -> None:
    with pytest.raises(ReelgraphError, match=r"nowhere\.mp4"):
        run(workflow(folder, "Faulty"), folder / "nowhere.mp4", folder / "out.zarr")
    assert not (folder / "out.zarr").exists()


def test_a_wrong_workflow_is_refused_before_anything_is_written(folder: Path, clip: Path) -> None:
    with pytest.raises(WorkflowError):
        run(workflow(folder, "Faulty", chunk="many"), clip, folder / "out.zarr")
    assert not (folder / "out.zarr").exists()

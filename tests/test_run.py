"""Whole runs: both executors, resume, faults of every kind. One bad chunk never ends a run."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline
from pipeline.engine.source import Decoded
from pipeline.errors import ReelgraphError, StoreError, WorkflowError
from pipeline.media.video.decode import VideoDecodeJob
from pipeline.views.progress import Silent
from tests.clips import write_clip
from tests.faults import one_stage


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", n_frames=400)


def run(path: Path, clip: Path, out: Path, executor: str = "inline", **more: Any) -> Any:
    cluster = {"workers": 2} if executor == "dask" else {}
    return pipeline.run(path, clip, out, executor=executor, **cluster, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("executor", ["inline", pytest.param("dask", marks=pytest.mark.slow)])
def test_both_executors_store_the_same(tmp_path: Path, clip: Path, executor: str) -> None:
    done = run(one_stage(tmp_path, "Faulty", fault="none"), clip, tmp_path / "out.zarr", executor)
    assert done.summary.exit_code == 0
    assert done.done_share == 1.0
    grey = done.array("clip", "grey")
    assert grey.shape == (400,)
    assert (np.diff(grey[::40]) > 0).all()  # the clip gets brighter
    np.testing.assert_array_equal(done.array("clip", "frame"), np.arange(400))


@pytest.mark.parametrize("executor", ["inline", pytest.param("dask", marks=pytest.mark.slow)])
def test_a_chunk_that_raises_is_recorded_and_the_rest_runs(tmp_path: Path, clip: Path, executor: str) -> None:
    path = one_stage(tmp_path, "Faulty", fault="raise", chunk=1)
    done = run(path, clip, tmp_path / "out.zarr", executor)
    assert done.summary.exit_code == 1
    assert [f["chunk"] for f in done.summary.failures] == [1]
    assert "ValueError: made to fail" in done.summary.failures[0]["error"]
    chunks = done.inputs["clip"].chunks
    assert chunks["failed"] == 1
    assert chunks["done"] == chunks["total"] - 1


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["kill", "hang"])
def test_a_chunk_that_ends_its_worker_takes_no_other_with_it(tmp_path: Path, clip: Path, fault: str) -> None:
    path = one_stage(tmp_path, "Faulty", fault=fault, chunk=2)
    done = run(path, clip, tmp_path / "out.zarr", "dask", chunk_timeout_seconds=5.0)
    assert [f["chunk"] for f in done.summary.failures] == [2]
    assert done.summary.failures[0]["step"] == "grey"
    expected = "no result within 5 s" if fault == "hang" else "the worker process died"
    assert expected in done.summary.failures[0]["error"]
    assert done.summary.exit_code == 1


@pytest.mark.slow
def test_a_worker_killed_once_costs_nothing(tmp_path: Path, clip: Path) -> None:
    path = one_stage(tmp_path, "Faulty", fault="kill", chunk=1, only_once=str(tmp_path / "happened"))
    done = run(path, clip, tmp_path / "out.zarr", "dask")
    assert done.summary.exit_code == 0
    assert done.done_share == 1.0


@pytest.mark.slow
def test_a_worker_that_leaks_is_restarted_between_chunks(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "long.mp4", n_frames=768)
    progress = Silent()
    path = one_stage(tmp_path, "Leaking", megabytes_per_chunk=100)
    done = pipeline.run(
        path, clip, tmp_path / "out.zarr", workers=1, worker_memory_bytes=1_200_000_000, progress=progress
    )
    assert done.summary.exit_code == 0, done.summary.failures
    assert done.array("long", "grey").shape == (768,)
    assert any("it is restarted before the next chunk" in text for text in progress.notes)


def test_a_failed_chunk_waits_for_a_word_of_the_user(tmp_path: Path, clip: Path) -> None:
    out = tmp_path / "out.zarr"
    path = one_stage(tmp_path, "Faulty", fault="raise", chunk=1)
    assert run(path, clip, out).summary.exit_code == 1
    again = run(path, clip, out)
    assert again.summary.exit_code == 1
    assert again.summary.chunks == 0
    accepted = run(path, clip, out, accept_failed=True)
    assert accepted.summary.exit_code == 0
    decoded = accepted.array("clip", "decoded")
    assert 0 < (~decoded).sum() < len(decoded)


def test_failed_chunks_are_retried_when_asked(tmp_path: Path, clip: Path) -> None:
    marker = tmp_path / "mended"
    (tmp_path / "mending.py").write_text(
        "from pathlib import Path\nfrom faulty import Faulty\n"
        "class Mending(Faulty):\n"
        f"    def _due(self): return not Path({str(marker)!r}).exists()\n"
    )
    path = tmp_path / "workflow.yaml"
    path.write_text("source: {every: 1}\nstages: {grey: {use: 'mending:Mending'}}\n")
    assert run(path, clip, tmp_path / "out.zarr").summary.exit_code == 1
    marker.touch()
    assert run(path, clip, tmp_path / "out.zarr").summary.exit_code == 1
    mended = run(path, clip, tmp_path / "out.zarr", retry_failed=True)
    assert mended.summary.exit_code == 0
    assert mended.summary.chunks == 1
    assert mended.done_share == 1.0


def test_wrong_shapes_are_named(tmp_path: Path, clip: Path) -> None:
    done = run(one_stage(tmp_path, "WrongRows"), clip, tmp_path / "out.zarr")
    assert "grey has shape" in done.summary.failures[0]["error"]


def test_a_rerun_does_nothing(tmp_path: Path, clip: Path) -> None:
    log = tmp_path / "log"
    path = one_stage(tmp_path, "Counted", log=str(log))
    run(path, clip, tmp_path / "out.zarr")
    before = log.read_text()
    again = run(path, clip, tmp_path / "out.zarr", executor="dask")  # no cluster is started for nothing
    assert again.summary.chunks == 0
    assert "start" not in again.summary.seconds
    assert log.read_text() == before


def test_fresh_starts_over(tmp_path: Path, clip: Path) -> None:
    log = tmp_path / "log"
    path = one_stage(tmp_path, "Counted", log=str(log))
    run(path, clip, tmp_path / "out.zarr")
    first = len(log.read_text().splitlines())
    run(path, clip, tmp_path / "out.zarr", fresh=True)
    assert len(log.read_text().splitlines()) == 2 * first


def test_other_options_are_refused(tmp_path: Path, clip: Path) -> None:
    out = tmp_path / "out.zarr"
    run(one_stage(tmp_path, "Faulty", fault="none"), clip, out)
    with pytest.raises(StoreError, match=r"source\.every: 1 -> 2"):
        run(one_stage(tmp_path, "Faulty", fault="none", every=2), clip, out)


def test_a_changed_file_is_refused(tmp_path: Path, clip: Path) -> None:
    mine, out = tmp_path / "mine.mp4", tmp_path / "out.zarr"
    shutil.copy(clip, mine)
    path = one_stage(tmp_path, "Faulty", fault="none")
    run(path, mine, out)
    write_clip(mine, n_frames=30)
    done = run(path, mine, out)
    assert done.summary.exit_code == 2
    assert "is not the file that was stored as 'mine'" in done.summary.unusable[0]["error"]


def test_new_inputs_and_stages_are_added(tmp_path: Path, clip: Path) -> None:
    out, log = tmp_path / "out.zarr", tmp_path / "log"
    run(one_stage(tmp_path, "Counted", log=str(log)), clip, out)
    computed = log.read_text()
    other = write_clip(tmp_path / "other.mp4", n_frames=40)
    two = tmp_path / "two.yaml"
    two.write_text(
        f"source: {{every: 1}}\nstages:\n  grey: {{use: 'faulty:Counted', options: {{log: '{log}'}}}}\n"
        "  level: {use: 'level:Level', after: grey}\n"
    )
    (tmp_path / "level.py").write_text(
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


def test_one_bad_file_among_many(tmp_path: Path, clip: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"")
    done = pipeline.run(
        one_stage(tmp_path, "Faulty", fault="none"), [bad, clip], tmp_path / "out.zarr", executor="inline"
    )
    assert done.summary.exit_code == 1
    assert [entry["path"] for entry in done.summary.unusable] == [str(bad)]
    assert done.inputs["clip"].attributes["complete"]


def test_nothing_usable_is_the_users_mistake(tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"")
    done = run(one_stage(tmp_path, "Faulty"), bad, tmp_path / "out.zarr")
    assert done.summary.exit_code == 2


def test_a_missing_input_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ReelgraphError, match=r"nowhere\.mp4"):
        run(one_stage(tmp_path, "Faulty"), tmp_path / "nowhere.mp4", tmp_path / "out.zarr")
    assert not (tmp_path / "out.zarr").exists()


def test_a_wrong_workflow_is_refused_before_anything_is_written(tmp_path: Path, clip: Path) -> None:
    with pytest.raises(WorkflowError):
        run(one_stage(tmp_path, "Faulty", chunk="many"), clip, tmp_path / "out.zarr")
    assert not (tmp_path / "out.zarr").exists()


def test_a_stage_that_sees_no_frames_does_not_hide_those_that_could_not_be_read(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "minute.py").write_text(
        "from pipeline import Array, Stage\n"
        "class Minute(Stage):\n"
        "    outputs = (Array('minute', ('frame',), 'int32'),)\n"
        "    def run(self, chunk): return {'minute': (chunk.time_seconds // 60).astype('int32')}\n"
    )
    path = one_stage(tmp_path, "Faulty", fault="raise", chunk=1)
    stages = "stages:\n  minute: {use: 'minute:Minute'}\n  grey: {use: 'faulty:Faulty', options: {fault: raise}}\n"
    both = tmp_path / "both.yaml"
    both.write_text(f"source: {{every: 1}}\n{stages}")
    lose_a_frame(monkeypatch, 3)
    done = run(both, clip, tmp_path / "both.zarr", accept_failed=True)
    assert not done.array("clip", "decoded")[3]
    run(path, clip, tmp_path / "out.zarr")
    later = run(both, clip, tmp_path / "out.zarr")  # the chunks' first pass lost it, the second decodes nothing
    (lost,) = later.inputs["clip"].unreadable
    assert (lost["frames"], lost["error"]) == ([3], "frame 3 is lost")
    assert not run(both, clip, tmp_path / "out.zarr").array("clip", "decoded")[3]


def lose_a_frame(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    """Decoding goes on as it does, but for one frame."""
    whole = VideoDecodeJob.decode

    def decode(job: VideoDecodeJob, threads: int = 1) -> Decoded:
        found = whole(job, threads)
        found.decoded[job.rank == rank] = False
        return replace(found, error=f"frame {rank} is lost" if rank in job.rank else None)

    monkeypatch.setattr(VideoDecodeJob, "decode", decode)


def test_a_retried_chunk_of_a_later_stage_lacks_no_frame(tmp_path: Path, clip: Path) -> None:
    """Its failure said that nothing came of it; what the stages before it read was there all the time."""
    marker = tmp_path / "mended"
    (tmp_path / "level.py").write_text(
        "from pathlib import Path\nfrom pipeline import Array, Stage\n"
        "class Level(Stage):\n"
        "    needs = ('grey',)\n"
        "    outputs = (Array('level', ('frame',), 'int32'),)\n"
        "    def run(self, chunk):\n"
        f"        if not Path({str(marker)!r}).exists(): raise ValueError('made to fail')\n"
        "        return {'level': (chunk['grey'] // 10).astype('int32')}\n"
    )
    out = tmp_path / "out.zarr"
    run(one_stage(tmp_path, "Faulty", fault="raise", chunk=1), clip, out)
    two = tmp_path / "two.yaml"
    two.write_text("source: {every: 1}\nstages:\n  grey: {use: 'faulty:Faulty'}\n  level: {use: 'level:Level'}\n")
    assert run(two, clip, out).summary.exit_code == 1
    marker.touch()
    assert [entry["chunk"] for entry in run(two, clip, out, retry_failed=True).summary.failures] == [1]
    assert run(two, clip, out).inputs["clip"].unreadable == []

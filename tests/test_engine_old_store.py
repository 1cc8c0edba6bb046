"""A store that an earlier version left half done: read, gone on with, and finished to the same arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline
from pipeline.engine import workflow as workflows_module
from pipeline.engine.workflow import Workflow, load_workflow
from pipeline.store.chunks import Chunks
from pipeline.views import status as status_view
from tests.own import Own
from tests.store.old_chunks import write_folder, write_record
from tests.test_engine_events import Heard

FACES = '''
from pathlib import Path

import numpy as np

from pipeline import Array, Stage

MARK = Path(__file__).parent / "counted.txt"


class Faces(Stage):
    """As many faces as the number says."""
    needs = ("number",)
    outputs = (Array("n_faces", ("frame",), "int32"), Array("score", ("face",), "float32"))

    def run(self, chunk):
        with MARK.open("a") as file:
            file.write(f"{chunk.index} ")
        n = chunk["number"].astype("int32")
        return {"n_faces": n, "score": np.repeat(chunk["number"], n)}


class Twice(Stage):
    needs = ("n_faces", "score")
    outputs = (Array("twice", ("face",), "float32"),)

    def run(self, chunk):
        assert len(chunk.face_frame) == len(chunk["score"])
        return {"twice": chunk["score"] * 2}
'''
STAGES = {"faces": "old_faces:Faces", "twice": "old_faces:Twice"}


@pytest.fixture
def path(own: Own) -> Path:
    own.module("old_faces", FACES)
    own.numbers(*(k % 4 for k in range(18)))
    return own.workflow(STAGES)


def make_old(own: Own, path: Path, monkeypatch: pytest.MonkeyPatch, *, last: int) -> Workflow:
    """Run chunks 0 to `last` (exclusive), then turn them into folders, with keys that know nothing of source text."""
    with monkeypatch.context() as earlier:
        earlier.setattr(workflows_module, "source_text", lambda stage: "")
        with pytest.raises(KeyboardInterrupt):
            own.run(path, listener=Heard(last))
        workflow = load_workflow(path)
        assert workflow.keys().keys() == STAGES.keys()
    chunks = Chunks(own.out, "numbers")
    assert chunks.indices.tolist() == list(range(last))
    specs = {spec.name: spec for spec in (*workflow.schema.item_arrays, *workflow.schema.arrays)}
    for index in range(last):
        record = chunks.record(index)
        arrays = chunks.arrays(index, list(record.arrays))
        write_folder(
            own.out, "numbers", index, arrays, [specs[name] for name in arrays],
            {"state": "ok", "stages": dict(record.stages)},
        )  # fmt: skip
    for file in Path(chunks.folder).glob("*.zip"):
        file.unlink()
    return workflow


def counted(own: Own) -> list[int]:
    """Chunks that stage `faces` ran on since last asked."""
    mark = own.folder / "counted.txt"
    found = [int(word) for word in mark.read_text().split()] if mark.exists() else []
    mark.write_text("")
    return found


def check_finished(own: Own, path: Path) -> None:
    """The same arrays as those of a fresh run, and nothing of the folders left."""
    own.run(path, out=own.folder / "fresh.zarr")
    old, fresh = pipeline.open(own.out).input("numbers"), pipeline.open(own.folder / "fresh.zarr").input("numbers")
    assert old.complete
    assert sorted(old.arrays) == sorted(fresh.arrays)
    for name in fresh.arrays:
        np.testing.assert_array_equal(old.array(name), fresh.array(name), err_msg=name)
        assert old.array(name).dtype == fresh.array(name).dtype
    assert not (own.out / "numbers" / "chunks").exists()


def test_read_gone_on_with_and_finished(own: Own, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_old(own, path, monkeypatch, last=2)
    item = pipeline.open(own.out).input("numbers")
    assert (item.frames_done, item.chunks) == (10, {"total": 4, "done": 2, "failed": 0})
    assert item.array("twice").tolist() == (item.array("score") * 2).tolist()
    assert len(item.array("face_frame")) == item.array("n_faces").sum() > 0
    assert "2 of 4 chunks done" in "\n".join(status_view.lines(status_view.describe(own.out)))
    assert counted(own) == [0, 1]
    run = own.run(path)
    assert (run.summary.exit_code, run.summary.chunks, run.summary.chunks_skipped) == (0, 2, 2)
    assert counted(own) == [2, 3]
    check_finished(own, path)


def failed(error: str, index: int, **more: Any) -> dict[str, Any]:
    frames = [5 * index, min(5 * index + 5, 18)]
    return {"state": "failed", "attempts": 2, "step": error.split(":")[0], "error": error, "frames": frames, **more}


def test_a_failed_folder_waits_and_is_taken_again(own: Own, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_old(own, path, monkeypatch, last=2)
    write_record(own.out / "numbers/chunks/000002", failed("decode: boom", 2))
    counted(own)
    run = own.run(path)
    assert [entry["error"] for entry in run.summary.failures] == ["decode: boom"]
    assert counted(own) == [3]
    run = own.run(path, retry_failed=True)
    assert (run.summary.exit_code, run.summary.failures) == (0, [])
    assert counted(own) == [2]
    check_finished(own, path)


def test_a_later_stage_that_failed_is_taken_again_alone(
    own: Own, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workflow = make_old(own, path, monkeypatch, last=4 - 1)
    folder = own.out / "numbers/chunks/000001"
    chunks = Chunks(own.out, "numbers")
    kept = {name: described for name, described in chunks.record(1).arrays.items() if name != "twice"}
    key = chunks.record(1).stages["faces"]
    write_record(folder, failed("twice: boom", 1, stages={"faces": key}, arrays=kept))
    counted(own)
    assert [entry["error"] for entry in own.run(path).summary.failures] == ["twice: boom"]
    run = own.run(path, retry_failed=True)
    assert run.summary.exit_code == 0, run.summary.failures
    assert counted(own) == [3]  # in the first of these runs; chunk 1 lacked `twice` only
    assert workflow.keys().keys() == run.input("numbers").attributes["stages"].keys()
    check_finished(own, path)


def test_a_failed_folder_can_be_accepted(own: Own, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_old(own, path, monkeypatch, last=3)
    write_record(own.out / "numbers/chunks/000003", failed("decode: boom", 3))
    run = own.run(path, accept_failed=True)
    assert run.summary.exit_code == 0
    decoded = run.array("numbers", "decoded")
    assert decoded.tolist() == [True] * 15 + [False] * 3
    assert run.array("numbers", "n_faces")[15:].tolist() == [0, 0, 0]


def test_a_stage_is_added_to_folders(own: Own, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = own.workflow({"faces": STAGES["faces"]}, name="one")
    with monkeypatch.context() as both:
        both.setattr("tests.test_engine_old_store.STAGES", {"faces": STAGES["faces"]})
        make_old(own, one, monkeypatch, last=2)
    counted(own)
    run = own.run(path)
    assert run.summary.exit_code == 0, run.summary.failures
    assert counted(own) == [2, 3]
    check_finished(own, path)

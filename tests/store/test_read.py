from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import storemaker as made

from pipeline.errors import StoreError
from pipeline.faces.table import open as open_run
from pipeline.store.nodes import Group, write_group
from pipeline.store.run import RunStore


def do_compact(store: RunStore) -> None:
    made.compact(store)


def test_both_forms_read_alike(store: RunStore) -> None:
    made.write_all(store.path, "clip")
    running = open_run(store.path)
    before = running.faces(), running.frames(), running.embeddings(), running.input("clip").arrays
    assert running.done_share == 1.0
    do_compact(store)
    finished = open_run(store.path)
    pd.testing.assert_frame_equal(finished.faces(), before[0])
    pd.testing.assert_frame_equal(finished.frames(), before[1])
    np.testing.assert_array_equal(finished.embeddings(), before[2])
    assert finished.input("clip").arrays.keys() == before[3].keys()
    for name, wanted in made.expected(*made.OLD).items():
        made.assert_equal({name: finished.array("clip", name)}, {name: wanted})


def test_faces_and_frames(complete: RunStore) -> None:
    run = open_run(complete.path)
    faces = run.faces()
    columns = ["input", "frame", "time_seconds", "x", "y", "w", "h", "confidence"]
    assert list(faces.columns[:8]) == columns
    assert list(faces.columns[8:10]) == ["right_eye_x", "right_eye_y"]
    assert "right_eye_x" not in run.faces(landmarks=False)
    np.testing.assert_array_equal(faces["frame"], made.FRAME[made.TRUTH["face_frame"]])
    np.testing.assert_array_equal(faces[["x", "y", "w", "h"]], made.TRUTH["box"])
    np.testing.assert_array_equal(faces["nose_y"], made.TRUTH["landmarks"][:, 2, 1])
    assert set(faces["input"]) == {"clip"}
    assert list(run.frames().columns) == ["input", "frame", "time_seconds", "decoded", "n_faces"]
    assert len(run.frames()) == made.N_FRAMES


def test_while_it_runs(store: RunStore) -> None:
    for index in (0, 1, 3):
        made.write(store.path, "clip", index)
    made.fail(store.path, "clip", 2)
    run = open_run(store.path)
    item = run.input("clip")
    assert item.chunks == {"total": 4, "done": 3, "failed": 1}
    assert (item.frames_done, item.frames_total) == (21, 29)
    assert run.done_share == pytest.approx(21 / 29)
    (failure,) = item.failures
    assert (failure["chunk"], failure["frames"], failure["error"]) == (2, [16, 24], "poison")
    np.testing.assert_array_equal(item.array("frame"), np.delete(made.FRAME, slice(16, 24)))
    assert len(run.faces()) == len(run.embeddings()) == item.array("n_faces").sum()
    assert "21 of 29 frames (72%), 1 chunks failed" in repr(run)


def test_nothing_done_yet(store: RunStore) -> None:
    run = open_run(store.path)
    assert run.done_share == 0.0
    assert len(run.faces()) == len(run.frames()) == 0
    assert {"input", "frame", "time_seconds"} <= set(run.faces().columns)
    with pytest.raises(StoreError, match=r"'clip' in .* has no array 'box'"):
        run.array("clip", "box")


def test_no_input_yet(out: Path) -> None:
    with RunStore.open(out):
        run = open_run(out)
    assert run.inputs == {}
    assert run.done_share == 0.0
    assert len(run.faces()) == len(run.frames()) == 0
    with pytest.raises(StoreError, match="has no inputs yet"):
        run.embeddings()


def test_two_inputs(complete: RunStore) -> None:
    made.set_up(complete, "second")
    made.write(complete.path, "second", 0)
    run = open_run(complete.path)
    assert list(run.inputs) == ["clip", "second"]
    assert run.done_share == pytest.approx((29 + 8) / 58)
    counts = run.faces().groupby("input", observed=True).size()
    assert counts["clip"] == made.TRUTH["n_faces"].sum()
    assert counts["second"] == made.TRUTH["n_faces"][:8].sum()
    assert len(run.faces("second")) == counts["second"]


def test_stage_being_added(complete: RunStore) -> None:
    source = complete.input("clip")
    source.update(stages={**source.attributes["stages"], "sharp": {"key": "key-s", "state": "running"}})
    made.write(complete.path, "clip", 0, made.SHARP, stages={"sharp": "key-s"})
    item = open_run(complete.path).input("clip")
    assert item.complete
    assert item.done_share == pytest.approx(8 / 29)
    assert item.chunks == {"total": 4, "done": 1, "failed": 0}
    np.testing.assert_array_equal(item.array("box"), made.TRUTH["box"])
    assert "sharpness" not in item.arrays


def test_stage_being_added_to_an_unfinished_input(store: RunStore) -> None:
    """Rows of all arrays belong together: what only some chunks have is not offered."""
    made.write_all(store.path, "clip")
    made.write(store.path, "clip", 0, made.SHARP, stages={"sharp": "key-s"})
    item = open_run(store.path).input("clip")
    assert "sharpness" not in item.arrays
    assert len(item.array("box")) == made.TRUTH["n_faces"].sum()


def test_compacted_under_the_reader(store: RunStore) -> None:
    made.write_all(store.path, "clip")
    run = open_run(store.path)
    assert not run.input("clip").complete
    assert run.input("clip").chunks["done"] == 4
    do_compact(store)
    np.testing.assert_array_equal(run.array("clip", "embedding"), made.TRUTH["embedding"])


@pytest.mark.parametrize("where", [0, -30], ids=["data", "shard index"])
def test_damaged_shard(complete: RunStore, where: int) -> None:
    path = next(path for path in (complete.path / "clip/embedding/c").rglob("*") if path.is_file())
    content = bytearray(path.read_bytes())
    content[where if where else len(content) // 3] ^= 8
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"array 'embedding' of 'clip' in .*out.zarr is damaged"):
        open_run(complete.path).array("clip", "embedding")


@pytest.mark.parametrize("name", ["embedding", "n_faces"])
def test_a_shard_that_is_gone_is_no_zeros(complete: RunStore, name: str) -> None:
    shutil.rmtree(complete.path / f"clip/{name}/c")
    with pytest.raises(StoreError, match=rf"array '{name}' of 'clip' in .*out.zarr is damaged \(.* is gone\); restore"):
        open_run(complete.path).array("clip", name)
    with pytest.raises(StoreError, match="is gone"):
        open_run(complete.path).input("clip").read_frames([name], 3, 9)


def test_a_group_of_somebody_elses_is_no_input(complete: RunStore) -> None:
    write_group(complete.path / "mine", Group({"title": "ocean"}))
    assert list(open_run(complete.path).inputs) == ["clip"]
    assert RunStore.open(complete.path, mode="r").input_names() == ["clip"]


@pytest.mark.parametrize(
    ("place", "change"),
    [
        ("zarr.json", {"attributes": None}),
        ("clip/zarr.json", {"attributes": ["path"]}),
        ("clip/zarr.json", {"consolidated_metadata": {"metadata": None}}),
        ("clip/zarr.json", {"consolidated_metadata": [1]}),
    ],
)
def test_a_group_of_another_make_is_damaged(complete: RunStore, place: str, change: dict) -> None:
    path = complete.path / place
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(StoreError, match=rf"{place} is damaged \(.*\); restore it or start over with --fresh"):
        open_run(complete.path).faces()


def test_not_a_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not a reelgraph store; check the path"):
        open_run(tmp_path)
    with pytest.raises(StoreError, match="there is no store at"):
        open_run(tmp_path / "absent")


def test_read_only_copy(complete: RunStore, tmp_path: Path) -> None:
    """A moved store opens where it lies, and opening changes nothing."""
    copy = tmp_path / "moved.zarr"
    complete.close()
    shutil.copytree(complete.path, copy)
    before = made.files_of(copy)
    assert len(open_run(copy).faces()) == made.TRUTH["n_faces"].sum()
    assert made.files_of(copy) == before


def test_status_needs_no_zarr(complete: RunStore) -> None:
    script = (
        "import sys; from pipeline.store.read import open as o; r = o(sys.argv[1]);"
        "assert r.done_share == 1.0 and r.inputs['clip'].chunks['total'] == 4; repr(r);"
        "assert not {'zarr', 'pandas', 'dask'} & set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", script, str(complete.path)], check=True, env=environment)


def test_status_of_many_chunks_is_quick(store: RunStore) -> None:
    """4,000 chunks; the limit is many times what one idle core takes."""
    first = store.path / "clip/chunks" / made.write(store.path, "clip", 0)
    for index in range(1, 4000):
        os.link(first, first.with_name(f"{index:06d}{first.name[6:]}"))
    began = time.process_time()
    assert open_run(store.path).inputs["clip"].chunks["done"] == 4000
    assert time.process_time() - began < 4.0

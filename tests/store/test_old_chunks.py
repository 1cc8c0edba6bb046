"""Stores of earlier versions: a folder for each chunk. They are read, merged with files, and finished."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import storemaker as made
from old_chunks import write_folder, write_record

from pipeline.errors import StoreError
from pipeline.faces.table import open as open_run
from pipeline.store.run import RunStore

KEYS = {"detect": "key-d", "embed": "key-e"}
SPECS = (*made.ITEM_ARRAYS, *made.OLD)


def write_old(store: RunStore, *indices: int, **changes: object) -> None:
    for index in indices:
        record = {"state": "ok", "stages": KEYS, **changes}
        write_folder(store.path, "clip", index, made.arrays_of(index), SPECS, record)


def fail_old(store: RunStore, index: int) -> None:
    record = {"state": "failed", "attempts": 2, "step": "detect", "error": "detect: boom", "frames": [8 * index, 8]}
    write_record(store.path / f"clip/chunks/{index:06d}", record)


@pytest.mark.parametrize("index", range(len(made.BOUNDARIES)), ids=["faces", "no faces", "all zero", "short"])
def test_the_helper_keeps_to_the_format(store: RunStore, index: int) -> None:
    """Zarr reads what it wrote; else these tests would prove nothing."""
    import zarr

    write_old(store, index)
    group = zarr.open_group(str(store.path), path=f"clip/chunks/{index:06d}", mode="r")
    made.assert_equal({name: array[...] for name, array in group.arrays()}, made.arrays_of(index))


def test_read_as_before(store: RunStore) -> None:
    write_old(store, 0, 2, 3)
    fail_old(store, 1)
    (store.path / "clip/chunks/000009/box").mkdir(parents=True)  # killed before its record
    chunks = store.input("clip").chunks()
    assert chunks.indices.tolist() == [0, 1, 2, 3]
    assert (list(chunks.failed), chunks.failed[1].error) == ([1], "detect: boom")
    assert chunks.has(["embed", "detect", "sharp"], 4).tolist() == [0b011, 0, 0b011, 0b011]
    for index in (0, 2, 3):
        assert chunks.record(index).stages == KEYS
        made.assert_equal(chunks.arrays(index, list(made.arrays_of(index))), made.arrays_of(index))
    item = open_run(store.path).input("clip")
    assert item.chunks == {"total": 4, "done": 3, "failed": 1}
    assert item.failures[0]["error"] == "detect: boom"
    np.testing.assert_array_equal(item.array("frame"), np.delete(made.FRAME, slice(8, 16)))
    assert len(open_run(store.path).faces()) == len(item.array("face_frame")) == item.array("n_faces").sum()
    found = item.read_frames(["box", "frame"], 18, 27)
    kept = (made.TRUTH["face_frame"] >= 18) & (made.TRUTH["face_frame"] < 27)
    made.assert_equal(found, {"box": made.TRUTH["box"][kept], "frame": made.FRAME[18:27]})


def test_finished_with_files_beside_folders(store: RunStore) -> None:
    write_old(store, 0, 2, missing=[made.FRAME[3].item()], error="lost")
    for index in (1, 3):
        made.write(store.path, "clip", index)
    chunks = store.input("clip").chunks()
    assert list(chunks.incomplete) == [0, 2]
    assert len(open_run(store.path).faces()) == made.TRUTH["n_faces"].sum()
    made.compact(store)
    made.assert_equal(made.compacted(store.path, "clip"), made.expected(*made.OLD))
    assert [entry["chunk"] for entry in store.input("clip").attributes["unreadable"]] == [0, 2]
    assert not (store.path / "clip/chunks").exists()


def test_a_later_stage_writes_a_file_beside_the_folder(store: RunStore) -> None:
    write_old(store, *range(4))
    before = made.files_of(store.path / "clip/chunks")
    made.write_all(store.path, "clip", made.SHARP, stages={"sharp": "key-s"})
    after = made.files_of(store.path / "clip/chunks")
    assert {path: after[path] for path in before} == before
    assert store.input("clip").chunks().record(0).stages == {**KEYS, "sharp": "key-s"}
    made.compact(store, *made.OLD, *made.SHARP)
    made.assert_equal(made.compacted(store.path, "clip"), made.expected(*made.OLD, *made.SHARP))


def test_a_failed_folder_is_replaced_by_a_file(store: RunStore) -> None:
    fail_old(store, 0)
    chunks = store.input("clip").chunks()
    assert chunks.failures(0) == ("000000",)
    assert all(part.is_failure for part in chunks.parts(0))
    made.write(store.path, "clip", 0)
    assert not (store.path / "clip/chunks/000000").exists()
    assert store.input("clip").chunks().record(0).state == "ok"


def test_a_failed_later_stage_leaves_the_folder_with_what_was_made_before(store: RunStore) -> None:
    write_old(store, 0, state="failed", error="sharp: boom", attempts=2, step="sharp")
    chunks = store.input("clip").chunks()
    assert (chunks.record(0).state, chunks.record(0).stages) == ("failed", KEYS)
    assert not chunks.parts(0)[0].is_failure
    made.write(store.path, "clip", 0, made.SHARP, stages={"sharp": "key-s"})
    chunks = store.input("clip").chunks()
    assert (chunks.record(0).state, chunks.failed) == ("ok", {})
    wanted = made.arrays_of(0, (*made.OLD, *made.SHARP))
    made.assert_equal(chunks.arrays(0, list(wanted)), wanted)


@pytest.mark.parametrize("array", ["box", "frame"])
def test_flipped_bit(store: RunStore, array: str) -> None:
    write_old(store, 0)
    path = next((store.path / "clip/chunks/000000" / array).glob("c.*"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    message = rf"chunk 0 of 'clip' in .* is damaged \(array '{array}'.*/000000\); run again"
    with pytest.raises(StoreError, match=message):
        store.input("clip").chunks().arrays(0, [array])


def test_a_torn_record_costs_one_chunk(store: RunStore) -> None:
    write_old(store, 0, 1)
    folder = store.path / "clip/chunks/000001"
    (folder / "zarr.json").write_bytes(b"")  # as a power cut left it
    (damage,) = store.input("clip").chunks().damage
    assert re.match(r"chunk 1 of 'clip' .* is damaged .*000001.*run again", str(damage))
    damage.set_aside()
    assert (folder.with_name("000001.damaged") / "zarr.json").exists()
    assert store.input("clip").chunks().indices.tolist() == [0]


def test_lost_file(store: RunStore) -> None:
    """Zarr reads a chunk that is gone as zeros; here it is an error."""
    write_old(store, 2)
    os.unlink(store.path / "clip/chunks/000002/confidence/c.0")
    with pytest.raises(StoreError, match=r"chunk 2 of 'clip' .*'confidence' is gone"):
        store.input("clip").chunks().arrays(2, ["confidence"])


def test_a_store_that_is_moved_half_done_is_read_where_it_lies(store: RunStore, tmp_path: Path) -> None:
    write_old(store, 0)
    made.write(store.path, "clip", 1)
    shutil.copytree(store.path, tmp_path / "moved.zarr")
    assert open_run(tmp_path / "moved.zarr").input("clip").frames_done == 16

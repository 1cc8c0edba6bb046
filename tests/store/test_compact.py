from __future__ import annotations

import errno
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import storemaker as made
import xarray
import zarr

from pipeline.errors import StoreError
from pipeline.store import compact as compact_module
from pipeline.store.chunks import fail_chunk, write_chunk
from pipeline.store.compact import add_arrays, compact
from pipeline.store.run import RunStore
from pipeline.store.schema import Array


def do_compact(store: RunStore, *specs: Array, **options: object) -> None:
    compact(store, "clip", specs or made.OLD, made.BOUNDARIES, made.N_FRAMES, **options)


def test_arrays_and_attributes(store: RunStore) -> None:
    made.write_all(store.path, "clip")
    do_compact(store)
    made.assert_equal(made.compacted(store.path, "clip"), made.expected(*made.OLD))
    attributes = store.input("clip").attributes
    assert attributes["stages"] == {
        name: {"key": f"key-{name[0]}", "state": "complete"} for name in ("detect", "embed")
    }
    assert (attributes["complete"], attributes["frames"]) == (True, made.N_FRAMES)
    assert attributes["chunks"] == {"total": 4, "done": 4, "failed": 0}
    assert store.input("clip").is_complete
    assert not (store.path / "clip/chunks").exists()


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_many_shards(store: RunStore, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(compact_module, "CHUNK_ROWS", rows)
    monkeypatch.setattr(compact_module, "SHARD_CHUNKS", 3)
    made.write_all(store.path, "clip")
    do_compact(store)
    made.assert_equal(made.compacted(store.path, "clip"), made.expected(*made.OLD))
    array = zarr.open_array(str(store.path / "clip/embedding"), mode="r")
    assert (array.chunks, array.shards) == ((rows, 6), (3 * rows, 6))
    assert len(list((store.path / "clip/embedding/c").rglob("0"))) == -(-array.shape[0] // (3 * rows)) + 1


def test_xarray_opens_it_without_a_warning(out: Path) -> None:
    with RunStore.open(out) as store:
        made.set_up(store)
        made.write_all(out, "clip")
        do_compact(store)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = xarray.open_zarr(str(out), group="clip", chunks={}).load()
    for name, array in made.expected(*made.OLD).items():
        np.testing.assert_array_equal(data[name].values, array)
    assert data["box"].dims == ("face", "side")
    assert data["n_faces"].attrs["sample_dimension"] == "face"
    assert data["time_seconds"].dtype == np.float64
    assert data.attrs["path"] == "/films/clip.mp4"


def test_later_change_drops_the_root_metadata(out: Path) -> None:
    """Root metadata that is out of date would hide the new input from xarray."""
    with RunStore.open(out) as store:
        made.set_up(store)
        made.write_all(out, "clip")
        do_compact(store)
    assert zarr.open_group(str(out), mode="r").metadata.consolidated_metadata is not None
    with RunStore.open(out) as store:
        made.set_up(store, "second")
        assert zarr.open_group(str(out), mode="r").metadata.consolidated_metadata is None
    assert sorted(zarr.open_group(str(out), mode="r").group_keys()) == ["clip", "second"]


def test_later_stage_adds_its_arrays_only(complete: RunStore) -> None:
    source = complete.input("clip")
    before = made.files_of(complete.path / "clip")
    source.update(stages={**source.attributes["stages"], "sharp": {"key": "key-s", "state": "running"}})
    assert not source.is_complete
    made.write_all(complete.path, "clip", made.SHARP, stages={"sharp": "key-s"})
    do_compact(complete, *made.OLD, *made.SHARP)
    made.assert_equal(made.compacted(complete.path, "clip"), made.expected(*made.OLD, *made.SHARP))
    after = made.files_of(complete.path / "clip")
    assert {path for path in before if after.get(path) != before[path]} == {"zarr.json"}
    assert source.attributes["stages"]["sharp"] == {"key": "key-s", "state": "complete"}
    assert source.is_complete


def test_again_is_nothing(complete: RunStore) -> None:
    before = made.files_of(complete.path / "clip")
    do_compact(complete)
    assert made.files_of(complete.path / "clip") == before


def test_not_done(store: RunStore) -> None:
    made.write(store.path, "clip", 0)
    with pytest.raises(StoreError, match=r"chunk 1 of 'clip' in .* is not done"):
        do_compact(store)


def test_failed(store: RunStore) -> None:
    made.write_all(store.path, "clip")
    fail_chunk(str(store.path), "clip", 2, {"state": "failed", "error": "poison"})
    with pytest.raises(StoreError, match=r"chunk 2 of 'clip' in .* failed \(poison\).*--accept-failed"):
        do_compact(store)
    assert len(store.input("clip").records()) == 4


def test_accepted_failure(store: RunStore) -> None:
    for index in (0, 1, 3):
        made.write(store.path, "clip", index, (*made.OLD, *made.SHARP))
    fail_chunk(str(store.path), "clip", 2, {"state": "failed", "error": "poison"})
    specs = (*made.OLD, *made.SHARP)
    with pytest.raises(StoreError, match=r"'frame' of chunk 2 of 'clip' .* is missing"):
        do_compact(store, *specs, accept_failed=True)
    do_compact(store, *specs, accept_failed=True, frame=made.FRAME, time_seconds=made.TIME)
    lost = np.zeros(made.N_FRAMES, bool)
    lost[slice(*made.BOUNDARIES[2])] = True
    kept = ~lost[made.TRUTH["face_frame"]]
    wanted = {
        name: array if name in ("frame", "time_seconds") else array[kept] if len(array) == len(kept) else array.copy()
        for name, array in made.expected(*specs).items()
    }
    wanted["decoded"][lost], wanted["n_faces"][lost], wanted["scene"][lost] = False, 0, -1
    made.assert_equal(made.compacted(store.path, "clip"), wanted)
    (failure,) = store.input("clip").attributes["failures"]
    assert (failure["chunk"], failure["frames"], failure["error"]) == (2, [16, 24], "poison")
    assert failure["time_seconds"] == [made.TIME[16], made.TIME[23]]
    assert store.input("clip").is_complete


def test_accepted_failure_of_a_later_stage(complete: RunStore) -> None:
    source = complete.input("clip")
    source.update(stages={**source.attributes["stages"], "sharp": {"key": "key-s", "state": "running"}})
    for index in (1, 2, 3):
        made.write(complete.path, "clip", index, made.SHARP, stages={"sharp": "key-s"})
    fail_chunk(str(complete.path), "clip", 0, {"state": "failed", "error": "boom"})
    do_compact(complete, *made.OLD, *made.SHARP, accept_failed=True, frame=made.FRAME, time_seconds=made.TIME)
    found = made.compacted(complete.path, "clip")
    first = int(made.TRUTH["n_faces"][:8].sum())
    assert np.isnan(found["sharpness"][:first]).all()
    np.testing.assert_array_equal(found["sharpness"][first:], made.TRUTH["sharpness"][first:])
    np.testing.assert_array_equal(found["n_faces"], made.TRUTH["n_faces"])
    assert found["decoded"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages": {"detect": "other", "embed": "key-e"}}, "different options of stage 'detect'"),
        ({"specs": made.DETECT}, "array 'embedding' of chunk 1 of 'clip' in .* is missing"),
    ],
    ids=["other options", "other stages"],
)
def test_chunks_that_do_not_belong_together(store: RunStore, change: dict, message: str) -> None:
    made.write_all(store.path, "clip")
    (store.path / "clip/chunks/000001/zarr.json").unlink()
    made.write(store.path, "clip", 1, **change)
    with pytest.raises(StoreError, match=message):
        do_compact(store)
    assert not store.input("clip").attributes["complete"]


def test_other_frames_than_planned(store: RunStore) -> None:
    made.write_all(store.path, "clip")
    with pytest.raises(StoreError, match=r"chunk 0 of 'clip' in .* holds other frames than are planned"):
        do_compact(store, frame=made.FRAME + 1, time_seconds=made.TIME)


def test_without_faces_at_all(store: RunStore) -> None:
    """A workflow without detection: arrays along the frames only."""
    scene = made.SHARP[1]
    made.write_all(store.path, "clip", (scene,))
    do_compact(store, scene)
    wanted = made.expected(scene)
    del wanted["face_frame"]
    made.assert_equal(made.compacted(store.path, "clip"), wanted)


def test_face_array_without_counts(store: RunStore) -> None:
    made.write_all(store.path, "clip", (made.SHARP[0],))
    with pytest.raises(StoreError, match="'sharpness' has one row per face, but no stage makes 'n_faces'"):
        do_compact(store, made.SHARP[0])


@pytest.mark.parametrize("n_chunks", [0, 1], ids=["no frames", "no faces"])
def test_empty(out: Path, n_chunks: int) -> None:
    with RunStore.open(out) as store:
        made.set_up(store)
        boundaries = [(0, 8)][:n_chunks]
        if n_chunks:
            write_chunk(str(out), "clip", 0, made.arrays_of(1), made.OLD, made.record())
        compact(store, "clip", made.OLD, boundaries, 8 * n_chunks)
        assert store.input("clip").is_complete
    data = xarray.open_zarr(str(out), group="clip", chunks={}).load()
    assert data["embedding"].shape == (0, 6)
    assert data["decoded"].shape == (8 * n_chunks,)


def test_wide_rows_get_short_chunks(store: RunStore) -> None:
    mask = Array("mask", ("frame", "y", "x"), "uint8", (300, 400))
    values = np.arange(8, dtype=np.uint8)[:, None, None] * np.ones((300, 400), np.uint8)
    for index, (start, stop) in enumerate(made.BOUNDARIES):
        arrays = {**made.arrays_of(index, made.DETECT), "mask": values[: stop - start]}
        write_chunk(str(store.path), "clip", index, arrays, [*made.DETECT, mask], made.record())
    do_compact(store, *made.DETECT, mask)
    array = zarr.open_array(str(store.path / "clip/mask"), mode="r")
    assert array.chunks == (29, 300, 400)
    np.testing.assert_array_equal(array[8:16], values)


def test_disk_full_then_again(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    made.write_all(store.path, "clip")
    real = os.replace

    def refuse(source: object, target: object) -> None:
        if "clip/embedding/c" in str(target):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        real(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StoreError, match=r"cannot compact 'clip' in .*: No space left on device .*free some space"):
        do_compact(store)
    monkeypatch.undo()
    assert not store.input("clip").attributes["complete"]
    do_compact(store)
    made.assert_equal(made.compacted(store.path, "clip"), made.expected(*made.OLD))


def test_add_arrays(complete: RunStore) -> None:
    track = Array("track", ("face",), "int32")
    values = np.arange(len(made.TRUTH["face_frame"]), dtype=np.int32)
    add_arrays(complete, "clip", [track], {"track": values}, {"track": "key-t"})
    made.assert_equal(made.compacted(complete.path, "clip"), {**made.expected(*made.OLD), "track": values})
    assert complete.input("clip").attributes["stages"]["track"] == {"key": "key-t", "state": "complete"}
    with pytest.raises(StoreError, match="has track already"):
        add_arrays(complete, "clip", [track], {"track": values})
    add_arrays(complete, "clip", [track], {"track": values + 1}, replace_existing=True)
    np.testing.assert_array_equal(made.compacted(complete.path, "clip")["track"], values + 1)
    with pytest.raises(StoreError, match=r"'track' of 'clip' in .* has 3 rows; there are \d+ faces"):
        add_arrays(complete, "clip", [track], {"track": values[:3]}, replace_existing=True)
    np.testing.assert_array_equal(made.compacted(complete.path, "clip")["track"], values + 1)


def test_add_arrays_needs_a_complete_input(store: RunStore) -> None:
    with pytest.raises(StoreError, match=r"'clip' of .* is not complete"):
        add_arrays(store, "clip", [Array("track", ("face",), "int32")], {"track": np.zeros(0, np.int32)})


@pytest.mark.parametrize("rows", [0, 1, 16_384, 16_385, 20_000, 100_000])
def test_chunks_leave_little_to_fill_in(rows: int) -> None:
    length = compact_module._even(rows, compact_module.CHUNK_ROWS)
    chunks = -(-rows // length)
    assert 1 <= length <= compact_module.CHUNK_ROWS
    assert 0 <= chunks * length - rows <= chunks * compact_module.EVEN_ROWS
    assert compact_module._even(rows, length) == length  # arrays that are added later get the same

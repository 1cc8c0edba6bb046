from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import storemaker as made
import zarr

from pipeline.errors import StoreError
from pipeline.store.chunks import fail_chunk, read_chunk, read_record, write_chunk
from pipeline.store.nodes import chunk_folder
from pipeline.store.run import RunStore
from pipeline.store.schema import Array


def names(*specs: Array) -> list[str]:
    return ["frame", "time_seconds", "decoded", *(spec.name for spec in specs)]


@pytest.mark.parametrize("index", range(len(made.BOUNDARIES)), ids=["faces", "no faces", "all zero", "short"])
def test_zarr_reads_what_was_written(store: RunStore, index: int) -> None:
    """The files are written without zarr: it must read the same values, dims, attributes and record."""
    made.write(store.path, "clip", index)
    group = zarr.open_group(str(store.path), path=f"clip/chunks/{index:06d}", mode="r")
    made.assert_equal({name: array[...] for name, array in group.arrays()}, made.arrays_of(index))
    made.assert_equal(read_chunk(str(store.path), "clip", index, names(*made.OLD)), made.arrays_of(index))
    assert group["box"].metadata.dimension_names == ("face", "side")
    assert dict(group["box"].attrs) == {"units": "pixel"}
    assert group.attrs["stages"] == {"detect": "key-d", "embed": "key-e"}


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int32", "uint64", "float16", "float64", "string"])
def test_every_dtype(store: RunStore, dtype: str) -> None:
    values = np.array(["a", "éü", "", "x" * 500] if dtype == "string" else [0, 1, 0, 1])
    arrays = {"frame": np.arange(4), "time_seconds": np.arange(4.0), "decoded": np.ones(4, bool), "extra": values}
    write_chunk(str(store.path), "clip", 0, arrays, [Array("extra", ("frame",), dtype)], made.record())
    seen_by_zarr = zarr.open_array(chunk_folder(store.path, "clip", 0) + "/extra", mode="r")[...]
    ours = read_chunk(str(store.path), "clip", 0, ["extra"])["extra"]
    for found in (seen_by_zarr, ours):
        np.testing.assert_array_equal(found.astype(values.dtype), values)


MISFITS = {
    "missing": ({"box": None}, "'box' of chunk 0 of 'clip' is missing"),
    "rows of frames": ({"n_faces": np.zeros(3, np.int32)}, "'n_faces' of chunk 0 of 'clip' has 3 rows.*8 frames"),
    "rows of faces": ({"confidence": np.zeros(99, np.float32)}, "has 99 rows where the chunk has"),
    "shape": ({"box": np.zeros((5, 3), np.float32)}, r"has shape \(5, 3\); declared is \(n, \*\(4,\)\)"),
    "dtype": ({"confidence": np.array(["a"])}, "declared is float32"),
    "range": ({"n_faces": np.full(8, 2**40)}, "values that do not fit the declared int32"),
}


@pytest.mark.parametrize(("change", "message"), MISFITS.values(), ids=MISFITS)
def test_arrays_that_do_not_fit(store: RunStore, change: dict[str, np.ndarray | None], message: str) -> None:
    arrays = {name: array for name, array in {**made.arrays_of(0), **change}.items() if array is not None}
    with pytest.raises(StoreError, match=message):
        write_chunk(str(store.path), "clip", 0, arrays, made.OLD, made.record())
    assert store.input("clip").records() == {}


def test_float64_is_taken_for_float32(store: RunStore) -> None:
    arrays = {**made.arrays_of(0)}
    arrays["confidence"] = arrays["confidence"].astype(np.float64)
    write_chunk(str(store.path), "clip", 0, arrays, made.OLD, made.record())
    assert read_chunk(str(store.path), "clip", 0, ["confidence"])["confidence"].dtype == np.float32


def test_later_stage_merges(store: RunStore) -> None:
    made.write(store.path, "clip", 0, missing=[3], seconds={"decode": 1, "detect": 2})
    before = made.files_of(store.path / "clip/chunks/000000")
    made.write(store.path, "clip", 0, made.SHARP, stages={"sharp": "key-s"}, missing=[5], seconds={"sharp": 3})
    record = store.input("clip").records()[0]
    assert record["stages"] == {"detect": "key-d", "embed": "key-e", "sharp": "key-s"}
    assert record["missing"] == [3, 5]
    assert record["seconds"] == {"decode": 1, "detect": 2, "sharp": 3}
    after = made.files_of(store.path / "clip/chunks/000000")
    assert {path for path in before if before[path] != after[path]} == {"zarr.json"}
    found = read_chunk(str(store.path), "clip", 0, names(*made.OLD, *made.SHARP))
    made.assert_equal(found, made.arrays_of(0, (*made.OLD, *made.SHARP)))


def test_retry_replaces(store: RunStore) -> None:
    """The second attempt finds other faces: nothing of the first may be left."""
    made.write(store.path, "clip", 0)
    write_chunk(str(store.path), "clip", 0, made.arrays_of(3), made.OLD, made.record(attempts=2))
    made.assert_equal(read_chunk(str(store.path), "clip", 0, names(*made.OLD)), made.arrays_of(3))
    assert store.input("clip").records()[0]["attempts"] == 2


def test_retry_of_one_stage_keeps_the_others(store: RunStore) -> None:
    made.write(store.path, "clip", 0)
    made.write(store.path, "clip", 0, made.SHARP, stages={"sharp": "old"})
    made.write(store.path, "clip", 0, made.SHARP, stages={"sharp": "new"})
    assert store.input("clip").records()[0]["stages"] == {"detect": "key-d", "embed": "key-e", "sharp": "new"}
    found = read_chunk(str(store.path), "clip", 0, names(*made.OLD))
    made.assert_equal(found, made.arrays_of(0))


def test_failure(store: RunStore) -> None:
    fail_chunk(str(store.path), "clip", 0, {"state": "failed", "error": "decoder gave up", "attempts": 3})
    record = store.input("clip").records()[0]
    assert (record["state"], record["error"], record["arrays"], record["stages"]) == (
        "failed",
        "decoder gave up",
        {},
        {},
    )
    made.write(store.path, "clip", 0)
    assert store.input("clip").records()[0]["state"] == "ok"


def test_failure_of_a_later_stage_keeps_the_arrays(store: RunStore) -> None:
    made.write(store.path, "clip", 0)
    fail_chunk(str(store.path), "clip", 0, {"state": "failed", "error": "boom", "stages": {"sharp": "key-s"}})
    record = store.input("clip").records()[0]
    assert record["state"] == "failed"
    assert record["stages"] == {"detect": "key-d", "embed": "key-e"}
    made.assert_equal(read_chunk(str(store.path), "clip", 0, names(*made.OLD)), made.arrays_of(0))


def test_no_record_is_not_done(store: RunStore) -> None:
    made.write(store.path, "clip", 0)
    made.write(store.path, "clip", 1)
    os.unlink(store.path / "clip/chunks/000001/zarr.json")
    assert list(store.input("clip").records()) == [0]


@pytest.mark.parametrize("array", ["box", "frame"])
def test_flipped_bit(store: RunStore, array: str) -> None:
    made.write(store.path, "clip", 0)
    path = next((store.path / "clip/chunks/000000" / array).glob("c.*"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(StoreError, match=rf"array '{array}' of chunk 0 of 'clip' in .*out.zarr is damaged"):
        read_chunk(str(store.path), "clip", 0, [array])


def test_a_torn_record_costs_one_chunk(store: RunStore) -> None:
    made.write_all(store.path, "clip")
    folder = store.path / "clip/chunks/000001"
    (folder / "zarr.json").write_bytes(b"")  # as a power cut leaves it
    with pytest.raises(StoreError, match=r"000001/zarr.json is damaged .*; delete .*/000001 and run again"):
        store.input("clip").records()
    shutil.rmtree(folder)
    assert sorted(store.input("clip").records()) == [0, 2, 3]


def test_lost_file(store: RunStore) -> None:
    """Zarr reads a chunk that is gone as zeros; here it is an error."""
    made.write(store.path, "clip", 2)
    os.unlink(store.path / "clip/chunks/000002/confidence/c.0")
    with pytest.raises(StoreError, match=r"'confidence' of chunk 2 of 'clip' .* is gone"):
        read_chunk(str(store.path), "clip", 2, ["confidence"])


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_disk_refuses(store: RunStore, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    real = os.replace

    def refuse(source: str, target: str) -> None:
        if "/embedding/" in str(target):
            raise OSError(code, os.strerror(code), str(target))
        real(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StoreError, match=f"cannot write chunk 0 of 'clip' in .*: {os.strerror(code)}"):
        made.write(store.path, "clip", 0)
    monkeypatch.undo()
    assert read_record(chunk_folder(store.path, "clip", 0)) is None
    assert not list(store.path.rglob("*.partial"))


def test_worker_needs_no_lock(store: RunStore, tmp_path: Path) -> None:
    """A record read back is plain JSON, numpy values of a careless stage included."""
    made.write(store.path, "clip", 0, seconds={"decode": np.float32(0.5)}, missing=np.array([1, 2]), worker=tmp_path)
    record = store.input("clip").records()[0]
    assert (record["seconds"], record["missing"], record["worker"]) == ({"decode": 0.5}, [1, 2], str(tmp_path))

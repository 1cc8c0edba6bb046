"""What a chunk holds: fit to its declaration, merged over passes, whole or not there."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import storemaker as made

from pipeline.errors import StoreError
from pipeline.store.chunks import chunk_file, read_files
from pipeline.store.record import Record
from pipeline.store.run import RunStore
from pipeline.store.schema import Array


def names(*specs: Array) -> list[str]:
    return ["frame", "time_seconds", "decoded", *(spec.name for spec in specs)]


def read(store: RunStore, index: int, wanted: Sequence[str]) -> dict[str, np.ndarray]:
    return store.input("clip").chunks().arrays(index, wanted)


def record_of(store: RunStore, index: int) -> Record:
    return store.input("clip").chunks().record(index)


def done(store: RunStore) -> list[int]:
    return store.input("clip").chunks().indices.tolist()


def test_an_array_that_is_too_large_is_refused_with_what_can_be_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.store.schema.LARGEST_BYTES", 400)
    box = Array("box", ("face", "xywh"), "float32", (4,))
    assert len(box.fit(np.zeros((25, 4), np.float32), "stage 'detect'")) == 25
    with pytest.raises(StoreError, match="has 416 bytes in one chunk, and 400 is the most; return fewer or smaller"):
        box.fit(np.zeros((26, 4), np.float32), "stage 'detect'")


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int32", "uint64", "float16", "float64", "string"])
def test_every_dtype(store: RunStore, dtype: str) -> None:
    values = np.array(["a", "éü", "", "x" * 500] if dtype == "string" else [0, 1, 0, 1])
    arrays = {"frame": np.arange(4), "time_seconds": np.arange(4.0), "decoded": np.ones(4, bool), "extra": values}
    file = made.write_arrays(store.path, "clip", 0, arrays, [Array("extra", ("frame",), dtype)], made.record())
    seen_by_zarr = made.by_zarr(store.path / "clip/chunks" / file)["extra"][...]
    ours = read(store, 0, ["extra"])["extra"]
    for found in (seen_by_zarr, ours):
        np.testing.assert_array_equal(found.astype(values.dtype), values)


MISFITS = {
    "missing": ({"box": None}, "chunk 0 of 'clip' returned no array 'box'"),
    "rows of frames": ({"n_faces": np.zeros(3, np.int32)}, "chunk 0 of 'clip': array 'n_faces' has 3 rows.*frame"),
    "rows of faces": ({"confidence": np.zeros(99, np.float32)}, "'confidence' has 99 rows along 'face' and this chunk"),
    "shape": ({"box": np.zeros((5, 3), np.float32)}, r"has shape \(5, 3\); declared is \(n, 4\)"),
    "dtype": ({"confidence": np.array(["a"])}, "declared is float32"),
    "range": ({"n_faces": np.full(8, 2**40)}, "values that do not fit the declared int32"),
    "counts": ({"n_faces": np.full(8, -1)}, "'n_faces' counts rows and has a value below 0"),
}


@pytest.mark.parametrize(("change", "message"), MISFITS.values(), ids=MISFITS)
def test_arrays_that_do_not_fit(store: RunStore, change: dict[str, np.ndarray | None], message: str) -> None:
    arrays = {name: array for name, array in {**made.arrays_of(0), **change}.items() if array is not None}
    with pytest.raises(StoreError, match=message):
        made.write_arrays(store.path, "clip", 0, arrays, made.OLD, made.record())
    assert done(store) == []


def test_float64_is_taken_for_float32(store: RunStore) -> None:
    arrays = {**made.arrays_of(0)}
    arrays["confidence"] = arrays["confidence"].astype(np.float64)
    made.write_arrays(store.path, "clip", 0, arrays, made.OLD, made.record())
    assert read(store, 0, ["confidence"])["confidence"].dtype == np.float32


def test_later_stage_merges(store: RunStore) -> None:
    first = made.write(store.path, "clip", 0, missing=(3,), seconds={"decode": 1, "detect": 2})
    before = made.files_of(store.path / "clip/chunks")
    made.write(store.path, "clip", 0, made.SHARP, stages={"sharp": "key-s"}, missing=(5,), seconds={"sharp": 3})
    record = record_of(store, 0)
    assert record.stages == {"detect": "key-d", "embed": "key-e", "sharp": "key-s"}
    assert record.missing == (3, 5)
    assert record.seconds == {"decode": 1, "detect": 2, "sharp": 3}
    after = made.files_of(store.path / "clip/chunks")
    assert before.keys() == {first, "zarr.json"}
    assert {name: after[name] for name in before} == before  # nothing is read, changed and written again
    assert len(after) == len(before) + 1
    found = read(store, 0, names(*made.OLD, *made.SHARP))
    made.assert_equal(found, made.arrays_of(0, (*made.OLD, *made.SHARP)))


def test_retry_replaces(store: RunStore) -> None:
    """The second attempt finds other faces: nothing of the first may be left."""
    made.write(store.path, "clip", 0)
    made.write_arrays(store.path, "clip", 0, made.arrays_of(3), made.OLD, made.record(attempts=2))
    made.assert_equal(read(store, 0, names(*made.OLD)), made.arrays_of(3))
    assert record_of(store, 0).attempts == 2
    assert len(list((store.path / "clip/chunks").glob("*.zip"))) == 1


def test_retry_of_one_stage_keeps_the_others(store: RunStore) -> None:
    made.write(store.path, "clip", 0)
    made.write(store.path, "clip", 0, made.SHARP, stages={"sharp": "key-s"})
    made.write(store.path, "clip", 0, made.SHARP, stages={"sharp": "key-s"}, attempts=2)
    record = record_of(store, 0)
    assert record.stages == {"detect": "key-d", "embed": "key-e", "sharp": "key-s"}
    assert record.attempts == 2
    found = read(store, 0, names(*made.OLD))
    made.assert_equal(found, made.arrays_of(0))


def test_failure(store: RunStore) -> None:
    made.fail(store.path, "clip", 0, error="decoder gave up", attempts=3)
    record = record_of(store, 0)
    assert (record.state, record.error, record.arrays, record.stages) == ("failed", "decoder gave up", {}, {})
    made.write(store.path, "clip", 0)
    assert record_of(store, 0).state == "ok"
    assert not list((store.path / "clip/chunks").glob("*.failed.*"))


def test_failure_of_a_later_stage_keeps_the_arrays(store: RunStore) -> None:
    made.write(store.path, "clip", 0)
    made.fail(store.path, "clip", 0, error="boom", tried={"sharp": "key-s"})
    record = record_of(store, 0)
    assert (record.state, record.error) == ("failed", "boom")
    assert record.stages == {"detect": "key-d", "embed": "key-e"}
    made.assert_equal(read(store, 0, names(*made.OLD)), made.arrays_of(0))


def test_a_failure_that_a_success_overtook_counts_no_more(store: RunStore) -> None:
    """A kill between the commit of a retry and the removal of what it replaces leaves both."""
    made.write(store.path, "clip", 0)
    made.fail(store.path, "clip", 0)
    chunks = store.input("clip").chunks()
    assert (chunks.record(0).state, chunks.failed) == ("ok", {})


def test_one_pass_that_was_written_twice_counts_once(store: RunStore) -> None:
    """Two workers (after a lost lock): one could not read a frame, the other could."""
    for changes in ({"missing": (3,), "error": "lost"}, {}):
        file = chunk_file(0, made.record(**changes))
        made.write(store.path, "clip", 0, **changes)
        whole = {path.name for path in (store.path / "clip/chunks").glob("*.zip")}
        assert file in whole
    specs = (*made.ITEM_ARRAYS, *made.OLD)
    assert len(whole) == 2
    chunks = store.input("clip").chunks()
    assert (chunks.record(0).missing, chunks.incomplete) == ((), {})
    assert len(chunks.parts(0)) == 1
    made.assert_equal(chunks.arrays(0, [spec.name for spec in specs]), made.arrays_of(0))


def test_no_file_is_not_done(store: RunStore) -> None:
    made.write(store.path, "clip", 0)
    os.unlink(store.path / "clip/chunks" / made.write(store.path, "clip", 1))
    (store.path / "clip/chunks/000001.ok.zip.partial").write_bytes(b"half")
    assert done(store) == [0]


@pytest.mark.parametrize("array", ["box", "frame"])
def test_flipped_bit(store: RunStore, array: str) -> None:
    path = store.path / "clip/chunks" / made.write(store.path, "clip", 0)
    content = bytearray(path.read_bytes())
    at = content.index(b"\x28\xb5\x2f\xfd", content.index(f"{array}/c.0".encode()))  # zstd's magic number
    content[at + 12] ^= 4
    path.write_bytes(content)
    with pytest.raises(StoreError, match=rf"chunk 0 of 'clip' in .*out.zarr is damaged \(.*{array}.*zip\); run again"):
        read(store, 0, [array])


def test_a_torn_file_costs_one_chunk(store: RunStore) -> None:
    made.write_all(store.path, "clip")
    torn = next((store.path / "clip/chunks").glob("000001.*"))
    torn.write_bytes(torn.read_bytes()[:-40])  # as a power cut leaves it where nothing was flushed
    with pytest.raises(StoreError, match=r"chunk 1 of 'clip' .* is damaged .*000001.*zip.*run again"):
        record_of(store, 1)
    assert record_of(store, 2).state == "ok"
    torn.unlink()
    assert done(store) == [0, 2, 3]


RECORDS = {
    "no JSON": b"{",
    "no group": b"[]",
    "no attributes": b"{}",
    "no record": b'{"attributes": {}}',
    "another state": b'{"attributes": {"state": "late"}}',
    "shapes": b'{"attributes": {"state": "ok", "arrays": {"box": {"dims": [], "shape": [-1], "dtype": "int8"}}}}',
    "missing": b'{"attributes": {"state": "ok", "missing": ["x"]}}',
}


@pytest.mark.parametrize("content", RECORDS.values(), ids=RECORDS)
def test_a_record_of_another_make_is_one_clear_line(store: RunStore, content: bytes) -> None:
    import zipfile

    with zipfile.ZipFile(store.path / "clip/chunks/000000.ok.0123456789ab.zip", "w") as file:
        file.writestr("zarr.json", content)
    chunks = store.input("clip").chunks()
    assert chunks.indices.tolist() == []
    (damage,) = chunks.damage
    assert re.match(r"chunk 0 of 'clip' in .* is damaged \(.*000000\.ok\.0123456789ab\.zip\); run again", str(damage))
    assert "\n" not in str(damage)
    damage.set_aside()
    assert [path.name for path in (store.path / "clip/chunks").glob("0*")] == ["000000.ok.0123456789ab.zip.damaged"]
    assert store.input("clip").chunks().damage == []


def test_a_file_without_its_array(store: RunStore) -> None:
    """Zarr reads what is gone as zeros; here it is an error."""
    import zipfile

    path = store.path / "clip/chunks" / made.write(store.path, "clip", 2)
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(path.with_suffix(".new"), "w") as less:
        for name in set(whole.namelist()) - {"confidence/c.0"}:
            less.writestr(name, whole.read(name))
    path.with_suffix(".new").rename(path)
    with pytest.raises(StoreError, match=r"chunk 2 of 'clip' .* is damaged \(array 'confidence' is gone: "):
        read(store, 2, ["confidence"])


def test_a_file_that_goes_meanwhile(store: RunStore) -> None:
    chunks_before = made.write(store.path, "clip", 0)
    chunks = store.input("clip").chunks()
    (store.path / "clip/chunks" / chunks_before).unlink()
    with pytest.raises(StoreError, match=r"chunk 0 of 'clip' in .* cannot be read: No such file"):
        chunks.arrays(0, ["box"])


def test_files_by_name(store: RunStore) -> None:
    """What a worker reads: the files that the plan named, with no listing of its own."""
    files = [made.write(store.path, "clip", 0), made.write(store.path, "clip", 0, made.SHARP, stages={"sharp": "k"})]
    wanted = names(*made.OLD, *made.SHARP)
    made.assert_equal(
        read_files(store.path, "clip", 0, files, wanted), made.arrays_of(0, (*made.OLD, *made.SHARP))
    )
    with pytest.raises(StoreError, match=r"chunk 0 of 'clip' in .* has no array 'sharpness'"):
        read_files(store.path, "clip", 0, files[:1], wanted)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_disk_refuses(store: RunStore, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    real = os.replace

    def refuse(source: str, target: str) -> None:
        if str(target).endswith(".zip"):
            raise OSError(code, os.strerror(code), str(target))
        real(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StoreError, match=f"cannot write chunk 0 of 'clip' in .*: {os.strerror(code)}"):
        made.write(store.path, "clip", 0)
    monkeypatch.undo()
    assert done(store) == []
    assert not list(store.path.rglob("*.partial"))


def test_worker_needs_no_lock(store: RunStore, tmp_path: Path) -> None:
    """A record read back is plain JSON, numpy values of a careless stage included."""
    seconds, missing = {"decode": np.float32(0.5)}, tuple(np.array([1, 2]))
    made.write(store.path, "clip", 0, seconds=seconds, missing=missing, worker=tmp_path)
    record = record_of(store, 0)
    assert (record.seconds, record.missing, record.worker) == ({"decode": 0.5}, (1, 2), str(tmp_path))

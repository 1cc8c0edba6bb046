from __future__ import annotations

import os
import pickle
import subprocess
import time
from pathlib import Path

import pytest
import storemaker as made

from pipeline.errors import StoreError, StoreLockedError
from pipeline.store.nodes import Group, write_group
from pipeline.store.run import RunStore, safe_name

NAMES = {
    "plain": ("clip", "clip"),
    "spaces": ("my film (1)", "my_film_1"),
    "path": ("../../etc/passwd", "etc_passwd"),
    "hidden": (".hidden", "hidden"),
    "reserved prefix": ("__zarr", "zarr"),
    "reserved name": ("zarr.json", "input"),
    "nothing": ("///", "input"),
    "accents": ("cafe\u0301", "caf\u00e9"),
    "undecodable": ("a\udcffb", "a_b"),
    "long": ("x" * 300, "x" * 100),
}


@pytest.mark.parametrize(("stem", "name"), NAMES.values(), ids=NAMES)
def test_safe_name(stem: str, name: str) -> None:
    assert safe_name(stem) == name


def test_names_are_unique_and_in_order(out: Path) -> None:
    with RunStore.open(out) as store:
        names = [store.add_input(stem, {"path": f"/{k}"}) for k, stem in enumerate(["z", "clip", "clip", "Clip", "a"])]
    assert names == ["z", "clip", "clip-2", "Clip-3", "a"]
    with RunStore.open(out, mode="r") as store:
        assert store.input_names() == names
        assert [store.find_input(f"/{k}") for k in range(6)] == [*names, None]


def test_attributes(out: Path) -> None:
    with RunStore.open(out) as store:
        store.set_workflow({"stages": {"detect": {}}}, [{"name": "mtcnn"}])
        made.set_up(store)
        store.input("clip").update(decoder="pyav")
    with RunStore.open(out, mode="r") as store:
        assert store.attributes["workflow"] == {"stages": {"detect": {}}}
        assert store.attributes["models"] == [{"name": "mtcnn"}]
        assert {"reelgraph", "created"} <= store.attributes.keys()
        attributes = store.input("clip").attributes
        assert (attributes["decoder"], attributes["fps"], attributes["complete"]) == ("pyav", 25.0, False)
    assert not (out / ".lock").exists()


def test_unknown_input(store: RunStore) -> None:
    with pytest.raises(StoreError, match="has no input 'other'; it has clip"):
        store.input("other")


@pytest.mark.parametrize("fresh", [False, True])
def test_foreign_folder_is_left_alone(out: Path, fresh: bool) -> None:
    out.mkdir()
    (out / "thesis.txt").write_text("precious")
    with pytest.raises(StoreError, match="exists and is not a reelgraph store"):
        RunStore.open(out, fresh=fresh)
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]


def test_foreign_zarr_is_left_alone(out: Path) -> None:
    write_group(out, Group({"title": "ocean"}))
    with pytest.raises(StoreError, match="is not a reelgraph store"):
        RunStore.open(out, fresh=True)


def test_file(out: Path) -> None:
    out.write_text("")
    with pytest.raises(StoreError, match="is a file, not a store"):
        RunStore.open(out)


def test_parent_is_a_file(out: Path) -> None:
    out.write_text("")
    with pytest.raises(StoreError, match="Not a directory"):
        RunStore.open(out / "run.zarr")


def test_an_address_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match=r"s3:/bucket/run\.zarr is an address; a store is a folder"):
        RunStore.open(Path("s3://bucket/run.zarr"))
    assert not list(tmp_path.iterdir())


def test_absent(out: Path) -> None:
    with pytest.raises(StoreError, match="there is no store at"):
        RunStore.open(out, mode="r")
    assert not out.exists()


def test_empty_folder_is_taken(out: Path) -> None:
    out.mkdir()
    with RunStore.open(out) as store:
        assert store.input_names() == []


def test_newer_format(store: RunStore) -> None:
    write_group(store.path, Group({**store.attributes, "store_format": 99}))
    with pytest.raises(StoreError, match="has store format 99"):
        RunStore.open(store.path, mode="r")


def test_fresh(complete: RunStore) -> None:
    complete.close()
    with RunStore.open(complete.path, fresh=True) as store:
        assert store.input_names() == []
        assert sorted(path.name for path in store.path.iterdir()) == [".lock", "zarr.json"]


def test_locked(store: RunStore) -> None:
    with pytest.raises(StoreLockedError, match=f"pid {os.getpid()} on host"):
        RunStore.open(store.path)
    with RunStore.open(store.path, mode="r") as reader:
        assert reader.input_names() == ["clip"]


def test_reader_and_pickled_copy_do_not_write(store: RunStore) -> None:
    made.write(store.path, "clip", 0)
    copy = pickle.loads(pickle.dumps(store.input("clip")))
    made.assert_equal(copy.read_arrays(["box"], 0, 8), {"box": made.arrays_of(0)["box"]})
    for source in (copy, RunStore.open(store.path, mode="r").input("clip")):
        with pytest.raises(StoreError, match="open for reading only"):
            source.update(decoder="pyav")


def test_lost_lock_stops_the_writer(store: RunStore) -> None:
    os.utime(store.path / ".lock", (time.time() - 61,) * 2)
    with RunStore.open(store.path) as successor:
        with pytest.raises(StoreLockedError, match="was lost"):
            store.input("clip").update(decoder="pyav")
        store.close()
        successor.input("clip").update(decoder="decord")


def test_partial_files_are_swept(store: RunStore) -> None:
    made.write(store.path, "clip", 0)
    (store.path / "clip/chunks/000001").mkdir()  # of an earlier version
    store.close()
    places = ("", "clip", "clip/chunks", "clip/chunks/000001")
    left = [store.path / place / "zarr.json.0.partial" for place in places]
    for path in left:
        path.write_text("{")
    RunStore.open(store.path).close()
    assert not any(path.exists() for path in left)


@pytest.mark.parametrize(("start", "stop"), [(0, 8), (8, 16), (3, 21), (24, 29), (0, 29)])
@pytest.mark.parametrize("form", ["chunks", "compacted"])
def test_read_arrays(request: pytest.FixtureRequest, form: str, start: int, stop: int) -> None:
    store: RunStore = request.getfixturevalue("store" if form == "chunks" else "complete")
    if form == "chunks":
        made.write_all(store.path, "clip")
    faces = (made.TRUTH["face_frame"] >= start) & (made.TRUTH["face_frame"] < stop)
    found = store.input("clip").read_arrays(["frame", "n_faces", "box"], start, stop)
    wanted = {"frame": made.FRAME[start:stop], "n_faces": made.TRUTH["n_faces"][start:stop]}
    made.assert_equal(found, {**wanted, "box": made.TRUTH["box"][faces]})


def test_read_arrays_of_a_chunk_that_is_not_done(store: RunStore) -> None:
    with pytest.raises(StoreError, match=r"chunk 0 of 'clip' in .* is not done"):
        store.input("clip").read_arrays(["box"], 0, 8)


def fill(store: RunStore) -> None:
    for index in range(100):
        made.write_arrays(store.path, "clip", index, made.arrays_of(0), made.OLD, made.record())


@pytest.mark.parametrize("options", ["size=128k", "size=1m,ro"], ids=["full", "read-only"])
def test_real_disk(tmp_path: Path, options: str) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(tmp_path)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs here: {mounted.stderr.decode().strip()}")
    try:
        if "ro" in options:
            with pytest.raises(StoreError, match=r"Read-only file system.*choose a writable output"):
                RunStore.open(tmp_path / "out.zarr")
            return
        with RunStore.open(tmp_path / "out.zarr") as store:
            made.set_up(store)
            with pytest.raises(StoreError, match=r"No space left on device.*free some space"):
                fill(store)
            done = store.input("clip").chunks().indices.tolist()
            assert done == list(range(len(done)))
            assert len(done) > 0
            for k in done:
                made.assert_equal(
                    store.input("clip").read_arrays(["box"], 8 * k, 8 * k + 8), {"box": made.arrays_of(0)["box"]}
                )
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)

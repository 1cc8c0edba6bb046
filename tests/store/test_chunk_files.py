"""Chunk files: small Zarr groups that are put in place at once, with a name that says what they hold."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import storemaker as made

from pipeline.store.chunks import Part, stage_digest, write_chunk
from pipeline.store.read import open as open_run
from pipeline.store.run import RunStore
from pipeline.store.schema import Array, Axis, Schema


@pytest.mark.parametrize("index", range(len(made.BOUNDARIES)), ids=["faces", "no faces", "all zero", "short"])
def test_zarr_reads_what_was_written(store: RunStore, index: int) -> None:
    """The files are written without zarr: it must read the same values, dims, attributes and record."""
    file = made.write(store.path, "clip", index)
    group = made.by_zarr(store.path / "clip/chunks" / file)
    made.assert_equal({name: array[...] for name, array in group.arrays()}, made.arrays_of(index))
    chunks = store.input("clip").chunks()
    made.assert_equal(chunks.arrays(index, list(made.arrays_of(index))), made.arrays_of(index))
    assert group["box"].metadata.dimension_names == ("face", "side")
    assert dict(group["box"].attrs) == {"units": "pixel"}
    assert dict(group["n_faces"].attrs) == {"sample_dimension": "face"}
    assert group.attrs["stages"] == {"detect": "key-d", "embed": "key-e"}
    assert dict(group.attrs) == chunks.record(index).as_json()


@pytest.mark.parametrize(
    ("changes", "state"), [({}, "ok"), ({"missing": (3,)}, "part"), (None, "failed")], ids=["ok", "part", "failed"]
)
def test_the_name_says_what_is_in_it(store: RunStore, changes: dict[str, Any] | None, state: str) -> None:
    stages = {"embed": "key-e", "detect": "key-d"}
    file = made.fail(store.path, "clip", 7) if changes is None else made.write(store.path, "clip", 3, **changes)
    index = 7 if changes is None else 3
    assert file == f"{index:06d}.{state}.{stage_digest(stages)}.zip"
    assert sorted(os.listdir(store.path / "clip/chunks")) == [file, "zarr.json"]


def test_nothing_in_it_is_packed_and_equal_chunks_are_equal_files(store: RunStore) -> None:
    file = store.path / "clip/chunks" / made.write(store.path, "clip", 0)
    with zipfile.ZipFile(file) as content:
        assert {entry.compress_type for entry in content.infolist()} == {zipfile.ZIP_STORED}
    before = file.read_bytes()
    made.write(store.path, "clip", 0)
    assert file.read_bytes() == before


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is asked of the disk, in order."""
    told: list[str] = []
    real = {name: getattr(os, name) for name in ("fsync", "replace", "unlink")}

    def fsync(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        told.append("flush folder" if os.path.isdir(path) else f"flush {_kind(path)} of {os.path.getsize(path)}")
        real["fsync"](descriptor)

    def replace(source: str, target: str) -> None:
        told.append(f"rename {_kind(source)} to {_kind(target)}")
        real["replace"](source, target)

    def unlink(path: str) -> None:
        told.append(f"remove {_kind(path)}")
        real["unlink"](path)

    for function in (fsync, replace, unlink):
        monkeypatch.setattr(os, function.__name__, function)
    yield told
    monkeypatch.undo()


def _kind(path: str) -> str:
    return Path(path).suffix.removeprefix(".")


def write(store: RunStore, **options: Any) -> str:
    return write_chunk(
        str(store.path), "clip", 0, made.arrays_of(0), (*made.ITEM_ARRAYS, *made.OLD), made.record(),
        made.schema_of(made.OLD), items=made.LENGTH, **options,
    )  # fmt: skip


def test_flushed_then_named_then_the_name_flushed(store: RunStore, told: list[str]) -> None:
    file = write(store)
    size = (store.path / "clip/chunks" / file).stat().st_size
    assert told == [f"flush partial of {size}", "rename partial to zip", "flush folder"]


def test_without_flush_nothing_waits_for_the_disk(store: RunStore, told: list[str]) -> None:
    write(store, flush=False)
    assert told == ["rename partial to zip"]


def test_a_failure_goes_only_once_its_successor_is_safe(store: RunStore, told: list[str]) -> None:
    failure = made.fail(store.path, "clip", 0)
    told.clear()
    write(store, replaces=[failure])
    assert [what.split(" of ")[0] for what in told] == [
        "flush partial", "rename partial to zip", "flush folder", "remove zip",
    ]  # fmt: skip


def renamed(file: Path, index: int) -> tuple[Path, Path]:
    return file, file.with_name(f"{index:06d}{file.name[6:]}")


def test_one_listing_plans_a_resume(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are opened by kind (state and stages), however many chunks there are."""
    first = store.path / "clip/chunks" / made.write(store.path, "clip", 0)
    lost = store.path / "clip/chunks" / made.write(store.path, "clip", 1, missing=(3,))
    later = store.path / "clip/chunks" / made.write(store.path, "clip", 0, made.SHARP, stages={"sharp": "key-s"})
    for index in range(2, 3000):
        os.link(*renamed(lost if index % 100 == 0 else first, index))
    for index in range(10, 3000, 10):
        os.link(*renamed(later, index))
    opened = []
    real = Part._opened
    monkeypatch.setattr(Part, "_opened", lambda part: opened.append(part.name) or real(part))
    listed = []
    real_list = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or real_list(path))
    chunks = store.input("clip").chunks()
    have = chunks.has(["detect", "embed", "sharp"], 3000)
    assert (have[1], have[10]) == (0b011, 0b111)
    assert (np.count_nonzero(have), np.count_nonzero(have == 0b111)) == (3000, 300)
    assert chunks.failed == {}
    assert chunks.stage_keys == {"detect": {"key-d"}, "embed": {"key-e"}, "sharp": {"key-s"}}
    assert len(listed) == 1
    assert len(opened) == 3


def test_axes_are_told_by_the_counts(store: RunStore) -> None:
    """Objects, and parts of pictures under a count array of another name."""
    specs = (
        Array("n_objects", ("frame",), "int32"), Array("score", ("object",), "float32"),
        Array("how_many", ("frame",), "uint8"), Array("area", ("part",), "float32"),
    )  # fmt: skip
    schema = Schema("frame", made.ITEM_ARRAYS, (Axis("object"), Axis("part", count="how_many")), specs)
    arrays = {
        "frame": np.arange(3), "time_seconds": np.arange(3.0), "decoded": np.ones(3, bool),
        "n_objects": np.array([2, 0, 1]), "score": np.arange(3.0),
        "how_many": np.array([0, 0, 4]), "area": np.arange(4.0),
    }  # fmt: skip
    record = made.record(stages={"find": "k"})
    write_chunk(str(store.path), "clip", 0, arrays, (*made.ITEM_ARRAYS, *specs), record, schema, items=3)
    source = store.input("clip")
    assert {axis.name: axis.count for axis in source.axes(source.chunks()).values()} == {
        "object": "n_objects", "part": "how_many",
    }  # fmt: skip
    found = source.read_arrays(["score", "area"], 2, 3)
    assert (found["score"].tolist(), found["area"].tolist()) == ([2.0], [0.0, 1.0, 2.0, 3.0])


def test_axes_stay_in_the_order_of_their_arrays(store: RunStore) -> None:
    """Views take the first axis if none is named, so it must be the same before and after the input is complete."""
    names = ["patch", "edge", "spot", "corner", "line", "blob", "arc"]
    axes = tuple(Axis(name) for name in names)
    specs = [Array(axis.count, ("frame",), "int32") for axis in axes]
    schema = Schema("frame", made.ITEM_ARRAYS, axes, tuple(specs))
    arrays = {"frame": np.arange(3), "time_seconds": np.arange(3.0), "decoded": np.ones(3, bool)}
    arrays |= {spec.name: np.ones(3, np.int32) for spec in specs}
    record = made.record(stages={"find": "k"})
    write_chunk(str(store.path), "clip", 0, arrays, (*made.ITEM_ARRAYS, *specs), record, schema, items=3)
    assert list(store.input("clip").chunks().axes) == names
    assert [axis.name for axis in open_run(store.path).input("clip").axes] == names

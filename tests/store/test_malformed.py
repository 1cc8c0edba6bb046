"""Stores whose JSON, files or folders are not what they should be: one clear line, or read rightly; no traceback."""

from __future__ import annotations

import json
import os
import random
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from pipeline.errors import StoreError
from pipeline.faces.people.registry import Registry
from pipeline.files.checksum import CHECKSUM, sealed
from pipeline.store.run import RunStore
from tests import made_stores
from tests.clips import write_clip

VALUES = [
    None, "abc", -1, 10**12, 2**70, float("nan"), float("inf"), [], {}, True, 0.5, "\udcff", "a\nb", [None], {"a": 1},
]  # fmt: skip
"""Values that each key is given in turn; the key is also removed."""
WORKFLOW = {
    "source": {"kind": "video"},
    "stages": {"detect": {"use": "detect"}, "embed": {"use": "embed", "after": "detect"}},
}
FACTS = {
    "failures": [{"chunk": 0, "frames": [0, 3], "time_seconds": [0, 1], "error": "e"}],
    "unreadable": [{"chunk": 1, "frames": [1], "error": "z"}],
    "forgotten": [{"faces": 2, "person": 1, "at": "now"}],
}
ROOT = {
    "speed": {
        "seconds_per_frame": 0.1, "rows_per_frame": {"face": 1.0}, "frames": 120, "step_seconds": {"detect": 1.0},
        "model_share": 0.5, "bottleneck": "detect",
    },
    "devices": ["cpu"],
    "unusable": [{"path": "/films/b\udcff.mp4", "error": "its name is not UTF-8"}],
    "models": [{"name": "Dlib", "licence": "CC0", "runtime": "onnxruntime", "weights_sha256": "abc"}],
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished and a half-done store with all kinds of facts, their registry, and a film."""
    folder = tmp_path_factory.mktemp("made")
    film = made_stores.film(120, 3, seed=1, names={1: "Ann"})
    made_stores.make_store(folder / "a.zarr", {"x": film.arrays}, extra=film.extra, workflow=WORKFLOW)
    made_stores.make_store(folder / "h.zarr", {"x": film.arrays}, extra=film.extra, workflow=WORKFLOW, done_chunks=1)
    made_stores.fail(folder / "h.zarr", "x", 1, "poison")
    for name in ("a.zarr", "h.zarr"):
        with RunStore.open(folder / name) as store:
            store.update(**ROOT)
            store.input("x").update(**FACTS)
    registry = Registry(folder / "people.json", "made-up", "Dlib", "native")
    registry.name(registry.new_person(), "Ann")
    registry.save()
    write_clip(folder / "clip.mp4", n_frames=8, size=(96, 64))
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REELGRAPH_CACHE", str(tmp_path / "cache"))
    return shutil.copytree(made, tmp_path / "place")


def commands(out: Path, run: bool = False) -> Iterator[list[str]]:
    yield ["status", str(out)]
    yield ["export", str(out), "--to", str(out.parent / "t.csv"), "--force"]
    yield ["export", str(out), "--axis", "frame", "--to", str(out.parent / "t.parquet"), "--force"]
    yield ["report", str(out), "--out", str(out.parent / "r.html")]
    yield ["verify", str(out)]
    yield ["forget", str(out), "--person", "1", "--dry-run"]
    yield ["people", str(out), "--no-thumbnails"]
    if run:
        clip = str(out.parent / "clip.mp4")
        yield ["run", "faces", clip, "--out", str(out), "--executor", "inline"]


def checked(out: Path, capsys: pytest.CaptureFixture[str], run: bool = False) -> set[int]:
    """Run commands and return their exit codes: no exception, and one line of an error."""
    codes = set()
    for words in commands(out, run):
        capsys.readouterr()
        codes.add(code := main(words))
        said = capsys.readouterr().err
        assert "Traceback" not in said
        lines = [line for line in said.splitlines() if line.startswith("reelgraph: ")]
        assert code in (0, 1, 2)
        assert len(lines) == (code == 2), (words, said)
    return codes


def keys(node: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    entries = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in entries:
        if key != CHECKSUM:
            yield (*above, key)
            yield from keys(value, (*above, key))


def changed(node: Any, key: tuple[Any, ...], value: Any) -> Any:
    """Return JSON with another value at a key, with a checksum that fits; KeyError removes the key."""
    node = json.loads(json.dumps(node))
    holder = node
    for one in key[:-1]:
        holder = holder[one]
    if value is KeyError:
        del holder[key[-1]]
    else:
        holder[key[-1]] = value
    attributes = node.get("attributes")
    if isinstance(attributes, dict) and CHECKSUM in attributes:
        return sealed(node, "attributes")
    return sealed(node) if CHECKSUM in node else node


@pytest.mark.parametrize("seed", range(12))
def test_any_value_of_any_key(place: Path, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(seed)
    out = place / ("a.zarr", "h.zarr")[seed % 2]
    path = (out / "zarr.json", out / "x" / "zarr.json", place / "people.json")[seed % 3]
    node = json.loads(path.read_text())
    key, value = chance.choice([*keys(node)]), chance.choice([*VALUES, KeyError])
    path.write_text(json.dumps(changed(node, key, value)))
    checked(out, capsys)


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("a.zarr/zarr.json", ("attributes", "models", 0, "name"), None),
        ("a.zarr/zarr.json", ("attributes", "speed", "step_seconds", "detect"), "long"),
        ("a.zarr/zarr.json", ("attributes", "unusable"), {"path": 1}),
        ("a.zarr/zarr.json", ("attributes", "workflow", "stages", "detect"), True),
        ("a.zarr/zarr.json", ("attributes", "workflow"), ["odd"]),
        ("a.zarr/x/zarr.json", ("attributes", "frames"), 10**12),
        ("a.zarr/x/zarr.json", ("attributes", "fps"), float("nan")),
        ("a.zarr/x/zarr.json", ("attributes", "chunks"), KeyError),
        ("a.zarr/x/zarr.json", ("attributes", "failures", 0, "time_seconds"), [None, "b"]),
        ("a.zarr/x/zarr.json", ("attributes", "forgotten", 0, "faces"), "a\nb"),
        ("a.zarr/x/zarr.json", ("consolidated_metadata", "metadata", "box", "chunk_grid", "configuration"), "abc"),
        ("a.zarr/x/zarr.json", ("consolidated_metadata", "metadata", "box", "shape", 0), 10**12),
        (
            "a.zarr/x/zarr.json",
            ("consolidated_metadata", "metadata", "gender", "attributes", "class_names", 0), "\udcff",
        ),
        (
            "a.zarr/x/zarr.json",
            ("consolidated_metadata", "metadata", "embedding", "attributes", "thresholds"), {"cosine": "near"},
        ),
        ("a.zarr/x/zarr.json", ("consolidated_metadata", "metadata", "person", "attributes", "names"), {"one": 1}),
        ("h.zarr/x/zarr.json", ("attributes", "frames"), 10**12),
        ("h.zarr/x/zarr.json", ("attributes", "chunk_frames"), 0),
        ("people.json", ("people", "1", "name"), -1),
        ("people.json", ("next_id",), float("inf")),
        ("people.json", ("people",), {str(2**40): {"name": "Ann"}}),
    ],
    ids=ascii,
)  # fmt: skip
def test_a_value_that_matters(
    place: Path, file: str, key: tuple[Any, ...], value: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = place / file
    path.write_text(json.dumps(changed(json.loads(path.read_text()), key, value)))
    checked(place / ("h.zarr" if file.startswith("h") else "a.zarr"), capsys)


def test_rows_beyond_all_measure(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything agrees that there are 10**12 rows; only the files are not there."""
    path = place / "a.zarr/x/zarr.json"
    node = json.loads(path.read_text())
    node["attributes"]["frames"], node["attributes"]["chunk_frames"] = 10**12, 10**6
    for name, array in node["consolidated_metadata"]["metadata"].items():
        array["shape"][0] = 10**12
        array["chunk_grid"]["configuration"]["chunk_shape"][0] = 2**21
        (place / "a.zarr/x" / name / "zarr.json").write_text(json.dumps(array))
    path.write_text(json.dumps(sealed(node, "attributes")))
    assert 2 in checked(place / "a.zarr", capsys)


RECORD = {"state": "ok", "stages": {"detect": "key-d", "embed": "key-e"}, "arrays": {}}


@pytest.mark.parametrize(
    "change",
    [
        {"stages": ["detect"]}, {"arrays": {"box": {"dims": [], "shape": [], "dtype": "int8"}}}, {"missing": [-1]},
        {"missing": 7}, {"worker": 5, "state": "failed"}, {"error": {"a": 1}}, {"seconds": {"detect": float("nan")}},
        {"attempts": "many"}, {"attempts": True}, {"state": ["ok"]}, {"frames": [0]}, {"time_seconds": ["a", "b"]},
        {"arrays": {"box": {"dims": ["face", "side"], "shape": [10**12, 4], "dtype": "float32"}}},
    ],
    ids=str,
)  # fmt: skip
def test_a_malformed_record(place: Path, change: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    (chunk,) = (place / "h.zarr/x/chunks").glob("*.ok.*.zip")
    with zipfile.ZipFile(chunk, "w") as file:
        node = {"zarr_format": 3, "node_type": "group", "attributes": {**RECORD, **change}}
        file.writestr("zarr.json", json.dumps(node))
    assert checked(place / "h.zarr", capsys) >= {1, 2}


@pytest.mark.parametrize("name", ["999999999999.ok.0123456789ab.zip", "9" * 200 + ".ok.0123456789ab.zip", "9" * 30])
def test_a_chunk_with_a_number_beyond_all_measure(place: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "h.zarr/x/chunks" / name).write_bytes(b"")
    assert 1 in checked(place / "h.zarr", capsys)


@pytest.mark.parametrize(
    "owner",
    [
        {"pid": "abc"}, {"pid": None}, {"pid": -1}, {"pid": 2**70}, {"pid": True}, {"started": "abc"},
        {"started": float("nan")}, {"started": None}, {"started": [1]}, {"token": None}, [], 7, "abc", {"pid": 1.5},
    ],
    ids=str,
)  # fmt: skip
def test_a_lock_of_another_make(place: Path, owner: Any) -> None:
    with RunStore.open(place / "a.zarr") as store:
        assert store.lock is not None
        whole = store.lock.owner
    lock = place / "a.zarr" / ".lock"
    lock.write_text(json.dumps({**whole, **owner} if isinstance(owner, dict) else owner))
    if owner == {"token": None}:
        with pytest.raises(StoreError, match="is being written by pid"):
            RunStore.open(place / "a.zarr")
        return
    with pytest.raises(StoreError, match="is being written by"):  # whoever wrote that may be alive
        RunStore.open(place / "a.zarr")
    os.utime(lock, (1, 1))
    with RunStore.open(place / "a.zarr") as store:
        assert store.input_names() == ["x"]


PLACES = [
    "zarr.json", "x", "x/zarr.json", "x/box", "x/box/zarr.json", "x/box/c", "x/box/c/0/0", "x/embedding/c/0/0",
    "x/chunks", "x/chunks/zarr.json", "x/chunks/CHUNK", ".lock", "../people.json", "x/aside", "", "y\nz",
]  # fmt: skip


@pytest.mark.parametrize("kind", ["folder", "file", "pipe", "loop"])
@pytest.mark.parametrize("name", ["a.zarr", "h.zarr"])
def test_another_thing_in_its_place(place: Path, name: str, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(f"{name} {kind}")
    for where in chance.sample(PLACES, 4):
        again = shutil.copytree(place, place.parent / "again", symlinks=True)
        (chunk, *_) = [*(again / name / "x/chunks").glob("*.ok.*.zip"), Path("none")]
        path = Path(os.path.normpath(again / name / where.replace("CHUNK", chunk.name)))
        if path.parent.is_dir():
            if path.is_dir():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)
            if kind == "folder":
                path.mkdir()
            elif kind == "file":
                path.write_text("hello")
            elif kind == "pipe":
                os.mkfifo(path)
            else:
                path.symlink_to(path.name)
            checked(again / name, capsys, run=True)
        shutil.rmtree(again)


@pytest.mark.skipif(os.geteuid() == 0, reason="runs as root")
@pytest.mark.parametrize("where", ["zarr.json", "x/zarr.json", "x/box/zarr.json", "x/box/c/0/0", "x", "x/box"])
def test_what_may_not_be_read(place: Path, where: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = place / "a.zarr" / where
    path.chmod(0)
    try:
        assert 2 in checked(place / "a.zarr", capsys)
    finally:
        path.chmod(0o700)


@pytest.mark.parametrize("name", ["odd\udcff.zarr", "odd\n.zarr"], ids=ascii)
def test_a_store_with_an_odd_name(place: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = (place / "a.zarr").rename(place / name)
    assert checked(out, capsys) <= {0}
    assert main(["export", str(out), "--to", str(place / "coco.json")]) == 0
    assert json.loads((place / "coco.json").read_text(encoding="utf-8"))["videos"][0]["store"] == str(out)
    (place / "t.csv").read_text(encoding="utf-8")
    assert "films/b\\udcff.mp4" in (place / "r.html").read_text(encoding="utf-8")

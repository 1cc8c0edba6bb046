"""Features handed over: what other programs read in the files is what is in the store, and which picture is which."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import faiss
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.cli import main
from pipeline.errors import StoreError, UsageError
from pipeline.media.images.copies import Inventory
from pipeline.media.images.names import Names
from pipeline.store.schema import ORIGIN, SCALE, Array
from pipeline.views.export import export, lines
from tests.images.made_features import LENGTH, make_features
from tests.made_objects import FEATURES, OBJECTS, make_objects
from tests.made_stores import faces_of, make_store

N, BAD = 40, (2, 17, 39)
GOOD = [k for k in range(N) if k not in BAD]
SUFFIXES = [".h5", ".npy", ".faiss"]
Read = tuple[np.ndarray, list[str], list[tuple[str, str]]]
"""Features, names, and the names and reasons of the pictures that have none."""


def read(path: Path) -> Read:
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            assert file["feats"].chunks is not None
            assert h5py.check_string_dtype(file["names"].dtype).encoding == "utf-8"
            failed, reasons = (file[name].asstr()[:].tolist() for name in ("failed", "failed_reason"))
            return file["feats"][:], file["names"].asstr()[:].tolist(), list(zip(failed, reasons, strict=True))
    if path.suffix == ".npy":
        feats, stem = np.load(path, mmap_mode="r", allow_pickle=False), path.with_suffix("")
    else:
        index, stem = faiss.read_index(str(path)), path
        assert isinstance(index, faiss.IndexFlatIP)
        feats = index.reconstruct_n(0, index.ntotal) if index.ntotal else np.empty((0, index.d), np.float32)
    names = Path(f"{stem}.names.txt").read_text(encoding="utf-8").split("\n")
    assert names.pop() == ""
    failed = pd.read_csv(f"{stem}.failed.csv", keep_default_na=False)
    return feats, names, list(failed.itertuples(index=False, name=None))


def unit(feature: np.ndarray) -> np.ndarray:
    wide = feature.astype(np.float64)
    return (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32)


def assert_stored(found: np.ndarray, feature: np.ndarray, suffix: str) -> None:
    """Compare the features in a file of this kind with those of the store."""
    if suffix == ".faiss":
        np.testing.assert_allclose(found, unit(feature), atol=3e-7)
    else:
        np.testing.assert_array_equal(found, feature)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hand_over") / "one.zarr"


@pytest.fixture(scope="module")
def made(store: Path) -> dict[str, np.ndarray]:
    return make_features(store, {"one": N}, bad=BAD)["one"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_rows_and_names_are_those_of_the_store(tmp_path: Path, suffix: str, dtype: str) -> None:
    made = make_features(tmp_path / "s.zarr", {"one": N}, bad=BAD, dtype=dtype)["one"]
    exported = export(tmp_path / "s.zarr", tmp_path / f"f{suffix}")
    feats, names, failed = read(tmp_path / f"f{suffix}")
    assert feats.dtype == ("float32" if suffix == ".faiss" else dtype)
    assert_stored(feats, made["feature"][GOOD], suffix)
    assert names == made["name"][GOOD].tolist()
    assert failed == [(made["name"][k], "not a picture") for k in BAD]
    assert (exported.features, exported.frames) == (len(GOOD), N)
    first, second = lines(exported)
    assert first == f"{tmp_path / f'f{suffix}'}: {len(GOOD)} features of {N} frames, 1 input"
    assert second.startswith("3 frames have no feature: see ")
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("parts", [1, 3])
def test_copies_have_the_features_of_their_originals(tmp_path: Path, suffix: str, parts: int) -> None:
    originals = {"a.jpg": 30, "b.jpg": 0, "c.jpg": 30, "d.jpg": BAD[0]}
    inventory = Inventory(
        Names.of(f"köln/{k:07d}.jpg".encode() for k in range(N)), Names.of(name.encode() for name in originals),
        np.array(list(originals.values())), np.zeros(4),
    )  # fmt: skip
    made = make_features(tmp_path / "s.zarr", {"one": N}, bad=BAD, inventory=inventory.packed())["one"]
    exported = export(tmp_path / "s.zarr", tmp_path / f"{{part}}{suffix}", parts=parts)
    found = [read(tmp_path / f"{part}{suffix}") for part in range(parts)]
    rows = {name: vector for feats, names, _ in found for name, vector in zip(names, feats, strict=True)}
    assert sorted(rows) == sorted([*made["name"][GOOD], "a.jpg", "b.jpg", "c.jpg"])
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        np.testing.assert_array_equal(rows[name], rows[str(made["name"][originals[name]])])
    assert ("d.jpg", "as the picture with the same content") in [one for *_, failed in found for one in failed]
    assert (exported.features, exported.frames) == (len(GOOD) + 3, N + 4)
    assert not any("content of another" in note for note in exported.notes)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_names_of_several_inputs_and_stores_do_not_collide(tmp_path: Path, suffix: str) -> None:
    made = make_features(tmp_path / "s.zarr", {"one": 5, "two": 4}, bad=[3])
    export(tmp_path / "s.zarr", tmp_path / f"f{suffix}")
    feats, names, failed = read(tmp_path / f"f{suffix}")
    assert names == [f"{stem}/köln/{k:07d}.jpg" for stem, n in (("one", 5), ("two", 4)) for k in range(n) if k != 3]
    assert [name for name, _ in failed] == ["one/köln/0000003.jpg", "two/köln/0000003.jpg"]
    good = [one["feature"][np.flatnonzero(one["decoded"])] for one in made.values()]
    assert_stored(feats, np.concatenate(good), suffix)

    make_features(tmp_path / "t.zarr", {"one": 2})
    export([tmp_path / "s.zarr", tmp_path / "t.zarr"], tmp_path / f"g{suffix}")
    names = read(tmp_path / f"g{suffix}")[1]
    assert len(names) == len(set(names)) == 9
    assert names[-1] == "t.zarr/one/köln/0000001.jpg"

    make_features(tmp_path / "other" / "t.zarr", {"one": 2})
    with pytest.raises(UsageError, match=r"two inputs have the name 't.zarr/one'; export the stores one by one"):
        export([tmp_path / "t.zarr", tmp_path / "other" / "t.zarr"], tmp_path / f"h{suffix}")
    assert not list(tmp_path.glob("h*"))

    export(tmp_path / "s.zarr", tmp_path / f"{{input}}{suffix}")
    assert read(tmp_path / f"two{suffix}")[1][0] == "köln/0000000.jpg", "a file of its own needs no input in its names"


@pytest.mark.parametrize("parts", [1, 3, 8, 50])
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("done_chunks", [None, 1])
def test_parts_are_those_of_a_list_cut_in_n(tmp_path: Path, suffix: str, parts: int, done_chunks: int | None) -> None:
    """As `np.array_split` cuts: equal, contiguous, in order, over all inputs; unreadable pictures count."""
    made = make_features(tmp_path / "s.zarr", {"one": N, "two": 11}, bad=BAD, done_chunks=done_chunks)
    exported = export(tmp_path / "s.zarr", tmp_path / "feats" / f"{{part}}{suffix}", parts=parts)
    there = [(stem, k) for stem, one in made.items() for k in range(len(one["name"]))]
    if done_chunks:
        there = [(stem, k) for stem, k in there if k < LENGTH]
    for number, part in enumerate(np.array_split(np.arange(len(there)), parts)):
        rows = [there[k] for k in part]
        good = [(stem, k) for stem, k in rows if k not in BAD]
        feats, names, failed = read(tmp_path / "feats" / f"{number}{suffix}")
        assert names == [f"{stem}/{made[stem]['name'][k]}" for stem, k in good]
        assert [name for name, _ in failed] == [f"{stem}/{made[stem]['name'][k]}" for stem, k in rows if k in BAD]
        expected = np.array([made[stem]["feature"][k] for stem, k in good], np.float16).reshape(-1, 8)
        assert_stored(feats, expected, suffix)
    assert len(list((tmp_path / "feats").glob(f"*{suffix}"))) == parts
    assert exported.frames == len(there)
    assert sum("no feature" in note for note in exported.notes) == 1, "one line for all parts"


def test_each_input_may_have_its_parts(tmp_path: Path) -> None:
    make_features(tmp_path / "s.zarr", {"one": 5, "two": 3})
    export(tmp_path / "s.zarr", tmp_path / "{input}" / "{part}.h5", parts=2)
    found = {path.relative_to(tmp_path).as_posix(): read(path)[1] for path in tmp_path.glob("*/*.h5")}
    assert {name: len(names) for name, names in found.items()} == {
        "one/0.h5": 3, "one/1.h5": 2, "two/0.h5": 2, "two/1.h5": 1,
    }  # fmt: skip
    assert found["two/1.h5"] == ["köln/0000002.jpg"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "f.h5", "--parts", "4"], "--parts N goes with {part} in the name of the file: --to 'f/{part}.h5'"),
        (["--to", "feats/", "--format", "npy", "--parts", "4"], "--to 'feats/{part}.npy' --parts 8"),
        (["--to", "x/{part}.npy"], "--to 'x/{part}.npy' --parts 8"),
        (["--to", "f.parquet", "--parts", "4"], "does not support --parts; choose --format faiss | hdf5 | npy"),
        (["--to", "f.csv", "--array", "feature"], "does not support --array; choose --format faiss | hdf5 | npy"),
        (["--to", "f.h5", "--array", "featur"], "unknown array of features 'featur'; did you mean 'feature'?"),
        (["--to", "f.h5", "--embeddings"], "format hdf5 does not support --embeddings"),
        (["--to", "-", "--format", "npy"], "npy cannot go to standard output"),
        (["--to", "f.h5", "--parts", "0"], "'0' is not a whole number of at least 1"),
        (["--to", "old.h5"], "old.h5 exists already; choose another file, or replace it with --force"),
        (["--to", "old.npy"], "old.names.txt exists already"),
        (["--to", "{part}.h5", "--parts", "3"], "2.h5 exists already"),
    ],
    ids=str,
)
def test_mistakes_take_one_line(
    words: list[str], message: str, store: Path, made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for name in ("old.h5", "old.names.txt", "2.h5"):
        (tmp_path / name).write_text("old")
    with pytest.raises(SystemExit) if "0" in words else contextlib.nullcontext():
        assert main(["export", str(store), *words]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"old.h5", "old.names.txt", "2.h5"}


def test_which_array_is_said_if_there_are_several(tmp_path: Path) -> None:
    colour = Array("colour", ("frame", "channel"), "float32", (3,))
    make_features(tmp_path / "s.zarr", {"one": 4}, more=(colour, Array("label", ("frame", "k"), "int32", (3,))))
    with pytest.raises(UsageError, match="several arrays of features: feature, colour; choose one with --array"):
        export(tmp_path / "s.zarr", tmp_path / "f.h5")
    export(tmp_path / "s.zarr", tmp_path / "f.h5", array="colour")
    assert read(tmp_path / "f.h5")[0].tolist() == [[1, 1, 1]] * 4
    make_features(tmp_path / "placed.zarr", {"one": 4}, more=(ORIGIN, SCALE))
    assert export(tmp_path / "placed.zarr", tmp_path / "g.h5").features == 4, "a point is no feature"


def test_stores_without_features_are_refused(tmp_path: Path) -> None:
    faces = make_store(tmp_path / "faces.zarr", {"film": faces_of(np.array([1, 2]), np.zeros((3, 8)))})
    for words in ({}, {"axis": "frame"}):
        with pytest.raises(UsageError, match=r"no array of features \(floats, one vector per frame\)"):
            export(faces, tmp_path / "f.h5", **words)
    with pytest.raises(UsageError, match="format hdf5 holds rows of 'frame' only, not of 'face'"):
        export(faces, tmp_path / "f.h5", axis="face")
    make_features(tmp_path / "new.zarr", {"one": 4}, done_chunks=0)
    with pytest.raises(UsageError, match="nothing of these stores is done yet"):
        export(tmp_path / "new.zarr", tmp_path / "f.h5")
    make_features(tmp_path / "a.zarr", {"one": 4})
    make_features(tmp_path / "b.zarr", {"one": 4}, size=9)
    with pytest.raises(UsageError, match=r"not the same everywhere: float16 \(8\) in .*a.zarr, float16 \(9\) in"):
        export([tmp_path / "a.zarr", tmp_path / "b.zarr"], tmp_path / "f.h5")
    assert {path.suffix for path in tmp_path.iterdir()} == {".zarr"}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_half_done_stores_give_what_is_there(tmp_path: Path, suffix: str) -> None:
    made = make_features(tmp_path / "s.zarr", {"one": N}, bad=[2], done_chunks=2)["one"]
    exported = export(tmp_path / "s.zarr", tmp_path / f"f{suffix}")
    feats, names, _ = read(tmp_path / f"f{suffix}")
    rows = [k for k in range(2 * LENGTH) if k != 2]
    assert_stored(feats, made["feature"][rows], suffix)
    assert names == made["name"][rows].tolist()
    assert "80.0% of the frames are done; the rest is not in the file" in lines(exported)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_picture_that_could_be_read(tmp_path: Path, suffix: str) -> None:
    make_features(tmp_path / "s.zarr", {"one": 3}, bad=range(3))
    export(tmp_path / "s.zarr", tmp_path / f"f{suffix}")
    feats, names, failed = read(tmp_path / f"f{suffix}")
    assert (feats.shape, names, len(failed)) == ((0, 8), [], 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_listed(tmp_path: Path, value: float) -> None:
    """A single one would make every distance in an index NaN."""
    feature = np.ones((4, 8), np.float16)
    feature[1, 5] = value
    make_features(tmp_path / "s.zarr", {"one": 4}, changed={"feature": feature})
    export(tmp_path / "s.zarr", tmp_path / "f.h5")
    feats, _, failed = read(tmp_path / "f.h5")
    assert len(feats) == 3
    assert failed == [("köln/0000001.jpg", "its feature has values that are not finite")]


def test_a_feature_of_zeros_is_a_row(tmp_path: Path) -> None:
    make_features(tmp_path / "s.zarr", {"one": 2}, changed={"feature": np.zeros((2, 8), np.float16)})
    export(tmp_path / "s.zarr", tmp_path / "f.faiss")
    assert read(tmp_path / "f.faiss")[0].tolist() == np.zeros((2, 8)).tolist()


NAMES = ["a\nb.jpg", "=1+1.jpg", 'c"d,e.jpg', "\x85\u2028.jpg", "日本.jpg", "f\\n.jpg"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_one_name_is_one_line(tmp_path: Path, suffix: str) -> None:
    make_features(tmp_path / "s.zarr", {"one": len(NAMES)}, changed={"name": np.array(NAMES, object)})
    exported = export(tmp_path / "s.zarr", tmp_path / f"f{suffix}")
    names = read(tmp_path / f"f{suffix}")[1]
    if suffix == ".h5":
        assert names == NAMES
        assert not exported.notes
    else:
        assert names == ["a\\nb.jpg", *NAMES[1:3], "\\x85\\u2028.jpg", *NAMES[4:]]
        assert exported.notes == ["names with line ends: 2; these are written as \\n, \\r, ... in .names.txt"]


@pytest.mark.parametrize("done_chunks", [None, 3])
def test_names_and_reasons_without_the_arrays_of_pictures(tmp_path: Path, done_chunks: int | None) -> None:
    """Frames of a film have numbers; why one could not be read stands in the records of chunks."""
    film = (Array("frame", ("frame",), "int64"), Array("time_seconds", ("frame",), "float64"))
    times = {"frame": np.arange(N) * 5, "time_seconds": np.arange(N) / 5}
    made = make_features(tmp_path / "s.zarr", {"one": N}, bad=BAD, named=film, changed=times, done_chunks=done_chunks)[
        "one"
    ]
    export(tmp_path / "s.zarr", tmp_path / "f.h5")
    _, names, failed = read(tmp_path / "f.h5")
    assert names == [str(made["frame"][k]) for k in GOOD]
    assert failed == [(str(5 * k), "a damaged packet") for k in BAD]


def test_features_beside_rows_of_another_axis(tmp_path: Path) -> None:
    truth = make_objects(tmp_path / "s.zarr", N, timed=False, arrays=(*OBJECTS, FEATURES[2]))
    exported = export(tmp_path / "s.zarr", tmp_path / "f.h5")
    np.testing.assert_array_equal(read(tmp_path / "f.h5")[0], truth["feature"])
    assert (exported.features, exported.frames) == (N, N)
    assert "feature" not in export(tmp_path / "s.zarr", tmp_path / "f.parquet").columns, "its rows are objects"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_index_answers_with_rows_and_cosines(
    tmp_path: Path, store: Path, made: dict[str, np.ndarray], suffix: str
) -> None:
    export(store, tmp_path / f"f{suffix}")
    feats, names, _ = read(tmp_path / f"f{suffix}")
    index = faiss.read_index(str(tmp_path / "f.faiss")) if suffix == ".faiss" else None
    if index is None:
        index = faiss.IndexFlatIP(8)
        index.add(unit(np.asarray(feats)))
    query = unit(made["feature"][[20]])
    cosines, ids = index.search(query, 3)
    assert names[ids[0, 0]] == made["name"][20]
    assert cosines[0, 0] == pytest.approx(1, abs=1e-6)


def test_parquet_has_names_and_lists_of_one_length(tmp_path: Path, store: Path, made: dict[str, np.ndarray]) -> None:
    export(store, tmp_path / "f.parquet")
    table = pq.read_table(tmp_path / "f.parquet")
    assert table.schema.field("feature").type == pa.list_(pa.float32(), 8)
    assert table["name"].to_pylist() == made["name"].tolist()
    assert [k for k, one in enumerate(table["feature"].to_pylist()) if one is None] == list(BAD)
    np.testing.assert_array_equal(np.stack([table["feature"][k].as_py() for k in GOOD]), made["feature"][GOOD])
    assert [table["error"][k].as_py() for k in BAD] == ["not a picture"] * 3
    assert "feature_0" not in export(store, tmp_path / "f.csv").columns, "a text with 1280 columns is asked for"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_old_file_stays_until_the_new_one_is_whole(
    tmp_path: Path, store: Path, made: Any, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"f{suffix}"
    export(store, path)
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    monkeypatch.setattr("pipeline.store.read.RunInput.read_frames", _damaged)
    with pytest.raises(StoreError, match="half way"):
        export(store, path, force=True)
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == before
    monkeypatch.undo()
    export(store, path, force=True)
    assert {one.name for one in tmp_path.iterdir()} == set(before)


def _damaged(*_: Any) -> Any:
    raise StoreError("half way")


SCRIPT = """
import resource, signal, sys
from pipeline.cli import main
import faiss, h5py
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("limit", [2_000, 1_000_000, 2_500_000])
def test_a_full_disk_takes_one_line_and_leaves_nothing(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, suffix: str, limit: int
) -> None:
    out = tmp_path_factory.getbasetemp() / "large.zarr"
    if not out.exists():
        make_features(out, {"one": 2048}, size=1280, length=512)
    command = [sys.executable, "-c", SCRIPT, str(limit), "export", str(out), "--to", str(tmp_path / f"f{suffix}")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 2
    assert f"f{suffix} cannot be written: File too large; choose another file" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("suffix", "module"), [(".h5", "h5py"), (".faiss", "faiss")])
def test_a_missing_library_is_named(
    tmp_path: Path, store: Path, made: Any, suffix: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    extra = {"h5py": "hdf5", "faiss": "index"}[module]
    with pytest.raises(UsageError, match=rf"needs {module}: pip install 'reelgraph\[{extra}\]'"):
        export(store, tmp_path / f"f{suffix}")
    assert not list(tmp_path.iterdir())


def test_another_format_of_faiss_is_noticed(
    tmp_path: Path, store: Path, made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = faiss.serialize_index
    monkeypatch.setattr(faiss, "serialize_index", lambda index: np.append(whole(index), np.uint8(0)))
    with pytest.raises(UsageError, match=r"faiss .* has another file format; export to .npy"):
        export(store, tmp_path / "f.faiss")
    assert not list(tmp_path.iterdir())


def test_json_counts_features(store: Path, made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(store), "--to", str(tmp_path / "f.h5"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["format"], said["axis"], said["features"], said["frames"]) == ("hdf5", "feature", len(GOOD), N)

"""`reelgraph export`: what is in the file is what is in the store, whatever the format; and no file is half a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipeline
from pipeline.cli import main
from pipeline.errors import ReelgraphError, StoreError, UsageError
from pipeline.media.film.targets import chosen_inputs
from pipeline.store.run import RunStore
from pipeline.store.schema import Array
from pipeline.views.export import export
from pipeline.views.report import report
from pipeline.views.tables import rows
from tests.made_stores import CLASSES, Film, faces_of, film, make_store

N_FRAMES = 300
WORKFLOW = {"source": {"kind": "video"}, "stages": {"detect": {"use": "detect"}}}
NAMES = {1: "Ann, with a comma", 2: 'Bo "the" Li'}


@pytest.fixture(scope="module")
def made() -> Film:
    return film(N_FRAMES, 4, seed=5, names=NAMES)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, made: Film) -> Path:
    return make_store(tmp_path_factory.mktemp("export") / "one.zarr", {"film": made.arrays}, extra=made.extra)


def read(path: Path) -> pd.DataFrame:
    readers: dict[str, Callable[[Path], pd.DataFrame]] = {
        ".parquet": pd.read_parquet,
        ".csv": pd.read_csv,
        ".jsonl": lambda file: pd.DataFrame([json.loads(line) for line in file.read_text().splitlines()]),
    }
    return readers[path.suffix](path)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_every_face_is_a_row(tmp_path: Path, store: Path, made: Film, suffix: str) -> None:
    exported = export(store, tmp_path / f"faces.{suffix}")
    table, faces = read(tmp_path / f"faces.{suffix}"), pipeline.open(store).faces()
    assert len(table) == exported.faces == len(faces) > 100
    assert exported.columns == list(table.columns)
    for name in ("frame", "time_seconds", "x", "y", "w", "h", "confidence", "nose_x", "mouth_left_y", "age"):
        np.testing.assert_allclose(table[name], faces[name], rtol=1e-6)
    assert table["person"].fillna(-1).tolist() == made.person.tolist()
    named = [NAMES.get(int(who)) for who in made.person]
    assert table["person_name"].astype(object).where(table["person_name"].notna(), None).tolist() == named
    happy = made.arrays["emotion"][:, CLASSES["emotion"].index("happy")]
    np.testing.assert_allclose(table["emotion_happy"], happy, rtol=1e-6)
    assert {"race_middle_eastern", "real_2d_spoof", "gender_woman", "track"} <= set(table.columns)
    known = np.isfinite(made.arrays["race"]).all(axis=1)
    likeliest = np.array(CLASSES["race"])[np.nan_to_num(made.arrays["race"]).argmax(axis=1)]
    assert table["dominant_race"].astype(object)[known].tolist() == likeliest[known].tolist()
    assert table["dominant_race"][~known].isna().all()
    assert (~known).any()


def test_faces_are_numbered_within_input_and_frame(tmp_path: Path, store: Path) -> None:
    export(store, tmp_path / "faces.parquet")
    table = read(tmp_path / "faces.parquet")
    assert table["face"].tolist() == list(range(len(table)))
    assert table["face_in_frame"].tolist() == table.groupby("frame").cumcount().tolist()


def test_parquet_has_proper_types(tmp_path: Path, made: Film, store: Path) -> None:
    export(store, tmp_path / "faces.parquet", embeddings=True)
    table = pq.read_table(tmp_path / "faces.parquet")
    for name in ("store", "input", "path", "person_name", "dominant_emotion"):
        assert pa.types.is_dictionary(table.schema.field(name).type), name
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 8)
    assert table.schema.field("person").type == pa.int32()
    assert table["person"].null_count == int((made.person == -1).sum())
    stored = np.stack(table["embedding"].to_pylist())
    np.testing.assert_array_equal(stored, made.arrays["embedding"])


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_embeddings_only_where_asked_for(tmp_path: Path, suffix: str) -> None:
    embedding = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    embedding[1] = np.nan
    out = make_store(tmp_path / "s.zarr", {"a": faces_of(np.array([1, 2, 0]), embedding)})
    without = export(out, tmp_path / f"short.{suffix}")
    assert not any(name.startswith("embedding") for name in without.columns)
    export(out, tmp_path / f"long.{suffix}", embeddings=True)
    table = read(tmp_path / f"long.{suffix}")
    if suffix == "csv":
        np.testing.assert_allclose(table[[f"embedding_{k}" for k in range(8)]], embedding, rtol=1e-6)
    else:
        np.testing.assert_allclose(np.stack(table["embedding"][[0, 2]].tolist()), embedding[[0, 2]], rtol=1e-6)
        assert table["embedding"][1] is None


def test_json_has_no_nan(tmp_path: Path, store: Path) -> None:
    export(store, tmp_path / "faces.jsonl", embeddings=True)
    export(store, tmp_path / "faces.json")

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    rows = [json.loads(line, parse_constant=refuse) for line in (tmp_path / "faces.jsonl").read_text().splitlines()]
    assert any(row["dominant_race"] is None for row in rows)
    assert rows[0]["x"] == float(str(np.float32(rows[0]["x"])))  # as short as a float32 is
    json.loads((tmp_path / "faces.json").read_text(), parse_constant=refuse)


def test_other_arrays_of_faces_come_along(tmp_path: Path) -> None:
    more: dict[str, Any] = {
        "sharpness": np.array([0.5, np.nan], np.float32), "mask": np.arange(8, dtype=np.uint8).reshape(2, 2, 2),
        "note": np.array(["left", ""], object),
    }  # fmt: skip
    extra = (
        Array("sharpness", ("face",), "float32"), Array("mask", ("face", "y", "x"), "uint8", (2, 2)),
        Array("note", ("face",), "str"),
    )  # fmt: skip
    out = make_store(tmp_path / "s.zarr", {"a": faces_of(np.array([2]), np.zeros((2, 8)), **more)}, extra=extra)
    export(out, tmp_path / "t.csv")
    table = pd.read_csv(tmp_path / "t.csv", keep_default_na=False)
    assert table["sharpness"].tolist() == ["0.5", ""]
    assert table[[f"mask_{k}" for k in range(4)]].to_numpy().tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert table["note"].tolist() == ["left", ""]
    export(out, tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet")["mask"].map(list).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_identities_have_the_gallerys_names(tmp_path: Path) -> None:
    about = {"names": ["Ann", "Ann", "Bo"], "pictures": ["Ann/1.jpg", "Ann/2.jpg", "Bo/1.jpg"]}
    extra = (Array("identity", ("face",), "int32", (), about), Array("distance", ("face",), "float32"))
    arrays = faces_of(
        np.array([3]), np.zeros((3, 8)), identity=np.array([1, -1, 2]), distance=np.array([0.2, 0.9, np.nan])
    )
    export(make_store(tmp_path / "s.zarr", {"a": arrays}, extra=extra), tmp_path / "t.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert [(row["identity"], row["identity_name"], row["distance"]) for row in rows] == [
        (1, "Ann", 0.2), (None, None, 0.9), (2, "Bo", None),
    ]  # fmt: skip


def test_names_and_merges_of_the_registry_count(tmp_path: Path) -> None:
    about = {"registry": "../people.json", "registry_id": "r", "names": {"1": "old name"}}
    extra = (Array("person", ("face",), "int32", (), about),)
    out = make_store(
        tmp_path / "s.zarr", {"a": faces_of(np.array([3]), np.zeros((3, 8)), person=np.array([1, 5, 2]))}, extra=extra
    )
    people = {"1": {"name": "new name"}, "2": {"name": None}}
    (tmp_path / "people.json").write_text(json.dumps({"format": 1, "id": "r", "people": people, "merged": {"5": 1}}))
    export(out, tmp_path / "t.csv")
    table = pd.read_csv(tmp_path / "t.csv", keep_default_na=False)
    assert table["person"].tolist() == [1, 1, 2]
    assert table["person_name"].tolist() == ["new name", "new name", ""]


def test_several_stores_that_differ(tmp_path: Path, made: Film) -> None:
    plain = make_store(tmp_path / "a.zarr", {"film": faces_of(np.array([1, 0]), np.zeros((1, 16)))})
    rich = make_store(tmp_path / "b.zarr", {"film": made.arrays}, extra=made.extra)
    exported = export([plain, rich], tmp_path / "t.parquet", embeddings=True)
    table = read(tmp_path / "t.parquet")
    assert exported.inputs == 2
    assert table["store"].astype(str).unique().tolist() == [str(plain.resolve()), str(rich.resolve())]
    assert table["age"].isna().tolist()[0]
    assert [len(one) for one in table["embedding"][:2]] == [16, 8]


def test_a_store_named_twice_counts_once(tmp_path: Path, made: Film, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path / "a.zarr", {"film": made.arrays}, extra=made.extra)
    (tmp_path / "link.zarr").symlink_to(store)
    monkeypatch.chdir(tmp_path)
    twice = [store, "a.zarr", "./a.zarr/", "link.zarr"]
    assert export(twice, tmp_path / "t.csv").faces == export([store], tmp_path / "u.csv").faces > 0
    assert len(chosen_inputs(twice)) == 1
    assert report(twice, tmp_path / "r.html").inputs == 1


def test_half_done_store_gives_what_is_done(tmp_path: Path, made: Film) -> None:
    out = make_store(tmp_path / "s.zarr", {"film": made.arrays}, extra=made.extra, done_chunks=2)
    exported = export(out, tmp_path / "t.parquet")
    table, faces = read(tmp_path / "t.parquet"), pipeline.open(out).faces()
    assert exported.done_share == pytest.approx(128 / N_FRAMES)
    assert exported.frames == 128
    assert table["frame"].tolist() == faces["frame"].tolist()
    assert table["person"].fillna(-1).tolist() == faces["person"].tolist()


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl", "json"])
@pytest.mark.parametrize("kind", ["no input", "no chunk", "no face"])
def test_nothing_to_export_is_an_empty_table(tmp_path: Path, suffix: str, kind: str) -> None:
    nobody = film(100, 0, names=NAMES)  # every array there is, without a row
    out = make_store(
        tmp_path / "s.zarr", {} if kind == "no input" else {"a": nobody.arrays}, extra=nobody.extra,
        done_chunks=0 if kind == "no chunk" else None, workflow=WORKFLOW,
    )  # fmt: skip
    exported = export(out, tmp_path / f"t.{suffix}")
    assert exported.faces == exported.as_dict()["faces"] == 0
    if suffix == "json":
        assert json.loads((tmp_path / "t.json").read_text())["annotations"] == []
    elif suffix == "jsonl":
        assert (tmp_path / "t.jsonl").read_text() == ""
    else:
        table = read(tmp_path / f"t.{suffix}")
        assert len(table) == 0
        assert {"input", "frame", "time_seconds"} <= set(table.columns)


def test_small_blocks_give_the_same_file(
    tmp_path: Path, store: Path, made: Film, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(store, tmp_path / "whole.jsonl", embeddings=True)
    monkeypatch.setattr(rows, "BLOCK_BYTES", 4000)
    item = pipeline.open(store).input("film")
    sizes = [block.n_rows for block in rows.blocks(item, "face", ["box", "embedding"])]
    crowd = int(made.arrays["n_faces"].max())
    assert len(sizes) > 3
    assert max(sizes) <= 4000 // (4 * 4 + 8 * 4) + crowd
    assert sum(sizes) == len(made.person)
    export(store, tmp_path / "parts.jsonl", embeddings=True)
    assert (tmp_path / "parts.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


# -- COCO --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory, made: Film) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("coco")
    stores = [
        make_store(folder / "a.zarr", {"film": made.arrays, "again": made.arrays}, extra=made.extra),
        make_store(folder / "b.zarr", {"film": made.arrays}, extra=made.extra),
    ]
    export(stores, folder / "faces.json")
    found: dict[str, Any] = json.loads((folder / "faces.json").read_text())
    return found


def test_coco_has_its_structure(coco: dict[str, Any], made: Film) -> None:
    assert [category["id"] for category in coco["categories"]] == [1]
    assert len(coco["categories"][0]["keypoints"]) == 5
    assert [video["id"] for video in coco["videos"]] == [1, 2, 3]
    images = {image["id"]: image for image in coco["images"]}
    assert len(images) == len(coco["images"]) == 3 * int((made.arrays["n_faces"] > 0).sum())
    assert len({image["file_name"] + str(image["video_id"]) for image in coco["images"]}) == len(images)
    annotations = coco["annotations"]
    assert [one["id"] for one in annotations] == list(range(1, 3 * len(made.person) + 1))
    for one in annotations:
        assert one["image_id"] in images
        assert one["category_id"] == 1
        assert one["iscrowd"] == 0
        assert len(one["bbox"]) == 4
        assert one["area"] == pytest.approx(one["bbox"][2] * one["bbox"][3], abs=0.01)
        assert len(one["keypoints"]) == 15
        assert one["num_keypoints"] == 5


def test_coco_says_what_the_store_says(coco: dict[str, Any], made: Film) -> None:
    first = coco["annotations"][0]
    np.testing.assert_allclose(first["bbox"], made.arrays["box"][0], rtol=1e-6)
    np.testing.assert_allclose(np.reshape(first["keypoints"], (5, 3))[:, :2], made.arrays["landmarks"][0], rtol=1e-6)
    assert first["score"] == pytest.approx(float(made.arrays["confidence"][0]))
    known = [one for one in coco["annotations"] if one.get("person") == 1]
    assert known
    assert {one["person_name"] for one in known} == {NAMES[1]}
    assert "age" in first["attributes"]
    image = coco["images"][0]
    assert (image["width"], image["height"]) == (1280, 720)
    assert image["time_seconds"] == pytest.approx(image["frame"] / 25)


def test_coco_tracks_are_told_apart_over_inputs(coco: dict[str, Any], made: Film) -> None:
    video_of = {image["id"]: image["video_id"] for image in coco["images"]}
    tracks = {(video_of[one["image_id"]], one["track_id"]) for one in coco["annotations"] if "track_id" in one}
    n_tracks = len(set(made.arrays["track"].tolist()) - {-1})
    assert len(tracks) == len({track for _, track in tracks}) == 3 * n_tracks


def test_coco_of_all_frames_and_without_landmarks(tmp_path: Path) -> None:
    arrays = faces_of(np.array([0, 1, 0]), np.zeros((1, 8)))
    arrays["landmarks"][:] = np.nan
    export(make_store(tmp_path / "s.zarr", {"a": arrays}), tmp_path / "t.json", all_frames=True)
    found = json.loads((tmp_path / "t.json").read_text())
    assert [image["frame"] for image in found["images"]] == [0, 5, 10]
    assert found["annotations"][0]["image_id"] == 2
    assert found["annotations"][0]["keypoints"] == [0] * 15
    assert found["annotations"][0]["num_keypoints"] == 0


# -- mistakes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("there.csv", {}, "exists already"),
        ("folder", {"format": "csv"}, "is a folder"),
        ("there.csv/t.csv", {}, "cannot be written: .*; choose another file"),
        ("t.xlsx", {}, "--format"),
        ("t.csv", {"format": "cvs"}, "csv"),
        ("-", {}, "standard output"),
        ("-", {"format": "parquet"}, "standard output"),
        ("t.json", {"embeddings": True}, "format coco does not support --embeddings; choose --format csv"),
        ("t.csv", {"all_frames": True}, "format csv does not support --all-frames; choose --format coco"),
    ],
)
def test_mistakes_are_told_in_one_line(
    tmp_path: Path, store: Path, name: str, options: dict[str, Any], message: str
) -> None:
    (tmp_path / "there.csv").write_text("mine")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match=message) as caught:
        export(store, name if name == "-" else tmp_path / name, **options)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "there.csv").read_text() == "mine"


def test_a_store_and_its_registry_are_never_replaced(tmp_path: Path) -> None:
    """COCO ends with .json, as do the registry and the metadata of a store: a slip with --force cost both."""
    arrays = faces_of(np.array([1]), np.zeros((1, 8)), person=np.array([1], np.int32))
    about = {"registry": "../people.json", "registry_id": "r"}
    out = make_store(tmp_path / "s.zarr", {"a": arrays}, extra=(Array("person", ("face",), "int32", (), about),))
    (tmp_path / "people.json").write_text("{}")
    (tmp_path / "link").symlink_to(out)
    for name in ("s.zarr/zarr.json", "s.zarr/{input}/zarr.json", "link/new/f.csv"):
        with pytest.raises(UsageError, match=r"is inside the store .*s\.zarr; choose another place"):
            export(out, tmp_path / name, force=True)
    for name in ("people.json", "s.zarr/../people.json"):
        with pytest.raises(UsageError, match=r"people\.json is the file that registry of .*s\.zarr names"):
            export(out, tmp_path / name, force=True)
    assert (tmp_path / "people.json").read_text() == "{}"
    assert len(pipeline.open(out).faces()) == 1


def test_its_folder_is_made(tmp_path: Path, store: Path) -> None:
    export(store, tmp_path / "new" / "folder" / "t.csv")
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["t.csv"]


def test_a_home_is_found_before_what_lies_there(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell leaves the ~ of --to=~/t.csv as it is; the file was replaced without --force."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("t.csv", "film.srt", "t.html"):
        (tmp_path / name).write_text("mine")
    for name in ("~/t.csv", "~/{input}.srt"):
        with pytest.raises(UsageError, match="exists already"):
            export(store, name)
    with pytest.raises(UsageError, match="not a report of ours"):
        report(store, "~/t.html")
    assert {path.read_text() for path in tmp_path.iterdir()} == {"mine"}
    assert export(store, "~/u.csv").file == str(tmp_path / "u.csv")


@pytest.mark.parametrize(("command", "flag", "ending"), [("export", "--to", "csv"), ("report", "--out", "html")])
def test_a_name_that_is_too_long_is_one_line(
    tmp_path: Path, store: Path, command: str, flag: str, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, str(store), flag, f"{tmp_path / ('n' * 300)}.{ending}"]) == 2
    assert capsys.readouterr().err.endswith(f"n.{ending}: File name too long; choose another path\n")


def test_force_replaces(tmp_path: Path, store: Path) -> None:
    (tmp_path / "t.csv").write_text("old")
    export(store, tmp_path / "t.csv", force=True)
    assert (tmp_path / "t.csv").read_text().startswith('"store"')


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_a_damaged_store_leaves_no_file(tmp_path: Path, suffix: str) -> None:
    out = make_store(tmp_path / "s.zarr", {"a": faces_of(np.array([1, 1]), np.zeros((2, 8)))})
    shard = next(path for path in (out / "a" / "confidence").rglob("*") if path.is_file() and path.name != "zarr.json")
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(StoreError, match="damaged"):
        export(out, tmp_path / f"t.{suffix}")
    assert [path.name for path in tmp_path.iterdir()] == ["s.zarr"]


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(ReelgraphError, match="there is no store"):
        export(tmp_path / "nothing", tmp_path / "t.csv")


# -- the command -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_standard_output_holds_the_rows_alone(
    store: Path, made: Film, capfdbinary: pytest.CaptureFixture[bytes], format: str
) -> None:
    assert main(["export", str(store), "--to", "-", "--format", format]) == 0
    assert len(capfdbinary.readouterr().out.splitlines()) == len(made.person) + (format == "csv")


def test_the_command_says_what_it_wrote(tmp_path: Path, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(store), "--to", str(tmp_path / "t.parquet"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["faces"] == pq.read_metadata(tmp_path / "t.parquet").num_rows
    assert said["format"] == "parquet"
    assert main(["export", str(store), "--to", str(tmp_path / "t.parquet")]) == 2
    assert "--force" in capsys.readouterr().err
    assert main(["export", str(store), "--to", "-", "--format", "csv", "--json"]) == 2


def test_a_store_that_is_being_written_can_be_exported(tmp_path: Path, made: Film) -> None:
    out = make_store(tmp_path / "s.zarr", {"film": made.arrays}, extra=made.extra, done_chunks=3)
    with RunStore.open(out):
        assert export(out, tmp_path / "t.csv").faces > 0


def test_faces_in_python_have_names_too(store: Path, made: Film) -> None:
    faces = pipeline.open(store).faces()
    named = [NAMES.get(int(who)) for who in made.person]
    assert faces["person_name"].astype(object).where(faces["person_name"].notna(), None).tolist() == named

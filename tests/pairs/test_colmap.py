"""Matches as a database of COLMAP: what is in it is what is in the store, and COLMAP makes a model of it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pipeline
from pipeline.cli import main
from pipeline.errors import StoreError, UsageError
from pipeline.store.run import RunStore
from pipeline.views.export import export, lines
from tests.clips import write_clip
from tests.made_stores import faces_of, make_store
from tests.pairs.made_matches import NAMES, make_matches
from tests.pairs.stored_pairs import make_pairs


@contextmanager
def database(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as opened:
        assert opened.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        yield opened


def rows(opened: sqlite3.Connection, table: str, dtype: str) -> dict[int, np.ndarray]:
    """Return the matrix of each row, as COLMAP's `database.py` reads it."""
    found = {}
    for key, n, size, data in opened.execute(f"SELECT * FROM {table}" if table != "two_view_geometries" else
                                             "SELECT pair_id, rows, cols, data FROM two_view_geometries"):  # fmt: skip
        found[key] = np.frombuffer(data, dtype).reshape(n, size)
    return found


def ids(pair_id: int) -> tuple[int, int]:
    return pair_id // 2147483647, pair_id % 2147483647


def part(made: dict[str, np.ndarray], count: str, array: str, k: int) -> np.ndarray:
    """Return the rows of the k-th item."""
    stops = np.cumsum([0, *made[count]])
    return made[array][stops[k] : stops[k + 1]]


@pytest.mark.parametrize("shrunk", [1.0, 0.5])
def test_the_database_holds_what_the_store_holds(tmp_path: Path, shrunk: float) -> None:
    made = make_matches(tmp_path / "s.zarr", shrunk=shrunk)
    exported = export(tmp_path / "s.zarr", tmp_path / "colmap.db")
    photos, pairs = made["photos"], made["photos-pairs"]
    with database(tmp_path / "colmap.db") as opened:
        assert opened.execute("SELECT image_id, name FROM images ORDER BY 1").fetchall() == list(enumerate(NAMES, 1))
        keypoints, descriptors = rows(opened, "keypoints", "<f4"), rows(opened, "descriptors", "u1")
        for k in range(len(NAMES)):
            assert keypoints[k + 1].shape[1] == 4
            np.testing.assert_array_equal(keypoints[k + 1][:, :2], part(photos, "n_keypoints", "keypoint", k))
            scale = part(photos, "n_keypoints", "keypoint_scale", k) / 2 / shrunk
            np.testing.assert_allclose(keypoints[k + 1][:, 2], scale, rtol=1e-6)
            angle = part(photos, "n_keypoints", "keypoint_angle", k)
            np.testing.assert_allclose(keypoints[k + 1][:, 3], np.radians(angle), rtol=1e-6)
            np.testing.assert_array_equal(descriptors[k + 1], part(photos, "n_keypoints", "descriptor", k))
        matches, verified = rows(opened, "matches", "<u4"), rows(opened, "two_view_geometries", "<u4")
        assert [ids(key) for key in sorted(matches)] == sorted(zip(pairs["a"] + 1, pairs["b"] + 1, strict=True))
        matrices = dict(opened.execute("SELECT pair_id, F FROM two_view_geometries WHERE config = 3 AND E IS NULL"))
        for k in range(len(pairs["a"])):
            key = (int(pairs["a"][k]) + 1) * 2147483647 + int(pairs["b"][k]) + 1
            match, inlier = part(pairs, "n_matches", "match", k), part(pairs, "n_matches", "inlier", k)
            np.testing.assert_array_equal(matches[key], match)
            assert (key in verified) == (key in matrices) == bool(pairs["n_inliers"][k])
            if key in verified:
                np.testing.assert_array_equal(verified[key], match[inlier])
                np.testing.assert_array_equal(np.frombuffer(matrices[key]).reshape(3, 3), pairs["model"][k])
    n_verified = int((pairs["n_inliers"] > 0).sum())
    missing = "5 pictures not found in /pictures/photos; the mapper needs none, colours and dense reconstruction do"
    assert lines(exported) == [
        f"{tmp_path / 'colmap.db'}: {len(pairs['match'])} matches of 10 pairs, 1 input",
        missing,
        "names of pictures are relative to /pictures/photos: COLMAP's image folder",
        f"{n_verified} pairs verified",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["colmap.db", "s.zarr"]


@pytest.mark.parametrize("camera", [None, "per-image", "per-folder", "single"])
def test_a_camera_has_one_size(tmp_path: Path, camera: str | None) -> None:
    """The pictures here have five sizes."""
    make_matches(tmp_path / "s.zarr")
    export(tmp_path / "s.zarr", tmp_path / "colmap.db", camera=camera)
    with database(tmp_path / "colmap.db") as opened:
        found = opened.execute("SELECT model, width, height, params, prior_focal_length FROM cameras").fetchall()
    assert len(found) == 5
    for model, width, height, params, prior in found:
        assert (model, prior) == (2, 0)
        np.testing.assert_allclose(np.frombuffer(params), [1.2 * max(width, height), width / 2, height / 2, 0])


@pytest.mark.parametrize(
    ("camera", "expected"), [("per-image", [1, 2, 3, 4]), ("per-folder", [1, 1, 2, 2]), ("single", [1] * 4)]
)
def test_pictures_of_one_size_share_a_camera(tmp_path: Path, camera: str, expected: list[int]) -> None:
    for k, folder in enumerate("aabb"):
        (tmp_path / "photos" / folder).mkdir(parents=True, exist_ok=True)
        made = np.random.default_rng(k).integers(0, 255, (64, 96, 3), np.uint8)
        Image.fromarray(made).resize((384, 256)).save(tmp_path / "photos" / folder / f"{k}.png")
    pipeline.run("match", tmp_path / "photos", out=tmp_path / "s.zarr", executor="inline", set={"keypoints.most": 50})
    export(tmp_path / "s.zarr", tmp_path / "colmap.db", camera=camera)
    with database(tmp_path / "colmap.db") as opened:
        assert [one for (one,) in opened.execute("SELECT camera_id FROM images ORDER BY image_id")] == expected
        assert opened.execute("SELECT count(*) FROM cameras").fetchone() == (max(expected),)


def test_exif_says_the_focal_length_and_what_is_turned(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (256, 384, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769)[0xA405] = 28
    picture.save(tmp_path / "photos" / "1.jpg", exif=exif)
    picture.save(tmp_path / "photos" / "2.jpg")
    pipeline.run("match", tmp_path / "photos", out=tmp_path / "s.zarr", executor="inline", set={"keypoints.most": 50})
    exported = export(tmp_path / "s.zarr", tmp_path / "colmap.db")
    with database(tmp_path / "colmap.db") as opened:
        one, two = opened.execute("SELECT width, height, params, prior_focal_length FROM cameras").fetchall()
    assert (one[:2], one[3], two[3]) == ((256, 384), 1, 0)
    assert np.frombuffer(one[2])[0] == pytest.approx(28 / 43.27 * np.hypot(256, 384))
    assert any(note.startswith("1 picture turned by EXIF") for note in exported.notes)
    assert not any("not found" in note for note in exported.notes)


def _pictures_with(tmp_path: Path, focal_35: Sequence[int]) -> Path:
    """Save pictures of blobs, whose EXIF says these focal lengths; 0: it says none."""
    (tmp_path / "photos").mkdir()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)).resize((384, 256))
    for k, focal in enumerate(focal_35):
        exif = Image.Exif()
        if focal:
            exif.get_ifd(0x8769)[0xA405] = focal
        picture.save(tmp_path / "photos" / f"{k}.jpg", exif=exif)
    return tmp_path / "photos"


@pytest.mark.parametrize(("focal_35", "mixed"), [([0, 28, 28], False), ([28, 0, 50], True)])
def test_a_shared_camera_has_the_focal_length_that_is_known(tmp_path: Path, focal_35: list[int], mixed: bool) -> None:
    photos = _pictures_with(tmp_path, focal_35)
    pipeline.run("match", photos, out=tmp_path / "s.zarr", executor="inline", set={"keypoints.most": 50})
    exported = export(tmp_path / "s.zarr", tmp_path / "colmap.db", camera="single")
    with database(tmp_path / "colmap.db") as opened:
        ((params, prior),) = opened.execute("SELECT params, prior_focal_length FROM cameras").fetchall()
    pixels = np.hypot(384, 256) / 43.27
    assert (np.frombuffer(params)[0], prior) == (pytest.approx(28 * pixels), 1)
    told = f"focal lengths from {28 * pixels:.0f} to {50 * pixels:.0f} pixels"
    assert any(told in note for note in exported.notes) == mixed


def test_the_focal_length_of_verify_is_that_of_the_cameras(tmp_path: Path) -> None:
    """The matrix E that was found with it would not fit another one."""
    photos = _pictures_with(tmp_path, [28, 0])
    options = {"keypoints.most": 50, "verify.model": "essential", "verify.focal": 500, "verify.centre": [190, 130]}
    pipeline.run("match", photos, out=tmp_path / "s.zarr", executor="inline", set=options)
    export(tmp_path / "s.zarr", tmp_path / "colmap.db")
    with database(tmp_path / "colmap.db") as opened:
        found = opened.execute("SELECT params, prior_focal_length FROM cameras").fetchall()
    assert [(np.frombuffer(params).tolist(), prior) for params, prior in found] == [([500, 190, 130, 0], 1)] * 2


def test_a_folder_that_grew_is_one_set_of_pictures(tmp_path: Path) -> None:
    made = make_matches(tmp_path / "s.zarr", later=["d/4.jpg", "d/5.jpg"], bad=[1])
    exported = export(tmp_path / "s.zarr", tmp_path / "colmap.db")
    everything = [*NAMES, "d/4.jpg", "d/5.jpg"]
    there = {k + 1: name for k, name in enumerate(everything) if name not in ("a/2.jpg", "d/5.jpg")}
    with database(tmp_path / "colmap.db") as opened:
        assert dict(opened.execute("SELECT image_id, name FROM images")) == there
        keypoints, matches = rows(opened, "keypoints", "<f4"), rows(opened, "matches", "<u4")
    np.testing.assert_array_equal(keypoints[6][:, :2], part(made["photos-2"], "n_keypoints", "keypoint", 0))
    found = {ids(key) for key in matches}
    assert found == {(a, b) for a in there for b in there if a < b}
    later = made["photos-2-pairs"]
    k = next(k for k in range(len(later["a"])) if (later["a"][k], later["b"][k]) == (0, 5))
    np.testing.assert_array_equal(matches[1 * 2147483647 + 6], part(later, "n_matches", "match", k))
    assert "2 pictures left out: could not be read" in exported.notes
    assert "11 pairs of them left out: a picture of each could not be read" in exported.notes


def test_folders_have_one_folder_above_them(tmp_path: Path) -> None:
    make_matches(tmp_path / "s.zarr", folder="/pictures/one", stem="one")
    make_matches(tmp_path / "t.zarr", folder="/pictures/deep/two", stem="two")
    exported = export([tmp_path / "s.zarr", tmp_path / "t.zarr"], tmp_path / "colmap.db")
    with database(tmp_path / "colmap.db") as opened:
        names = [name for (name,) in opened.execute("SELECT name FROM images ORDER BY image_id")]
        assert len(rows(opened, "matches", "<u4")) == 20
    assert names == [f"{folder}/{name}" for folder in ("one", "deep/two") for name in NAMES]
    assert "names of pictures are relative to /pictures: COLMAP's image folder" in exported.notes
    make_matches(tmp_path / "u.zarr", folder="/pictures/one", stem="other")
    with pytest.raises(UsageError, match=r"two pictures have the name 'a/köln 1\.jpg'; export the stores one by one"):
        export([tmp_path / "s.zarr", tmp_path / "u.zarr"], tmp_path / "v.db")


def test_pictures_of_tar_files_have_no_folder(tmp_path: Path) -> None:
    make_matches(tmp_path / "s.zarr", folder=None, stem="one")
    exported = export(tmp_path / "s.zarr", tmp_path / "one.db")
    assert not any("folder" in note or "not found" in note for note in exported.notes)
    make_matches(tmp_path / "t.zarr", folder=None, stem="two")
    export([tmp_path / "s.zarr", tmp_path / "t.zarr"], tmp_path / "two.db")
    with database(tmp_path / "one.db") as one, database(tmp_path / "two.db") as two:
        assert [name for (name,) in one.execute("SELECT name FROM images ORDER BY image_id")] == list(NAMES)
        names = [name for (name,) in two.execute("SELECT name FROM images ORDER BY image_id")]
    assert names == [f"{stem}/{name}" for stem in ("one", "two") for name in NAMES]


@pytest.mark.parametrize(
    ("model", "config", "column"), [("essential", 2, "E"), ("fundamental", 3, "F"), ("homography", 6, "H")]
)
def test_each_model_has_its_place(tmp_path: Path, model: str, config: int, column: str) -> None:
    made = make_matches(tmp_path / "s.zarr", model=model)["photos-pairs"]
    export(tmp_path / "s.zarr", tmp_path / "colmap.db")
    others = [name for name in "EFH" if name != column]
    with database(tmp_path / "colmap.db") as opened:
        query = f"SELECT config, {column}, {others[0]}, {others[1]} FROM two_view_geometries ORDER BY pair_id"
        found = opened.execute(query).fetchall()
    assert {(one[0], *one[2:]) for one in found} == {(config, None, None)}
    kept = made["model"][made["n_inliers"] > 0]
    np.testing.assert_array_equal(np.stack([np.frombuffer(one[1]).reshape(3, 3) for one in found]), kept)


def test_stores_verified_by_different_models(tmp_path: Path) -> None:
    """Each pair has the matrix of its own store: as another kind it would be a wrong geometry."""
    made = {kind: make_matches(tmp_path / f"{kind}.zarr", model=kind, folder=f"/p/{kind}", stem=str(kind))
            for kind in ("homography", "fundamental", None)}  # fmt: skip
    exported = export([tmp_path / f"{kind}.zarr" for kind in made], tmp_path / "colmap.db")
    with database(tmp_path / "colmap.db") as opened:
        found = opened.execute("SELECT pair_id, F, H FROM two_view_geometries ORDER BY pair_id").fetchall()
    for first, kind in ((1, "homography"), (1 + len(NAMES), "fundamental")):
        pairs = made[kind][f"{kind}-pairs"]
        mine = [one for one in found if first <= ids(one[0])[0] < first + len(NAMES)]
        matrices = np.stack([np.frombuffer(one[2 if kind == "homography" else 1]).reshape(3, 3) for one in mine])
        np.testing.assert_array_equal(matrices, pairs["model"][pairs["n_inliers"] > 0])
    assert any(note.startswith("some matches are not verified") for note in exported.notes)


def test_matches_that_are_not_verified(tmp_path: Path) -> None:
    make_matches(tmp_path / "s.zarr", model=None)
    exported = export(tmp_path / "s.zarr", tmp_path / "colmap.db")
    with database(tmp_path / "colmap.db") as opened:
        assert opened.execute("SELECT count(*) FROM two_view_geometries").fetchone() == (0,)
        assert len(rows(opened, "matches", "<u4")) == 10
    assert any(note.startswith("the matches are not verified: add the stage verify") for note in exported.notes)


def test_descriptors_of_networks_are_left_out(tmp_path: Path) -> None:
    make_matches(tmp_path / "s.zarr", dtype="float16", length=64, has_scale=False)
    exported = export(tmp_path / "s.zarr", tmp_path / "colmap.db")
    with database(tmp_path / "colmap.db") as opened:
        assert opened.execute("SELECT count(*) FROM descriptors").fetchone() == (0,)
        assert {found.shape[1] for found in rows(opened, "keypoints", "<f4").values()} == {2}
    assert any(note.startswith("without descriptors") for note in exported.notes)


def test_half_done_pairs_give_what_is_there(tmp_path: Path) -> None:
    make_matches(tmp_path / "s.zarr", done_chunks=2)
    exported = export(tmp_path / "s.zarr", tmp_path / "colmap.db")
    with database(tmp_path / "colmap.db") as opened:
        assert opened.execute("SELECT count(*) FROM images").fetchone() == (5,)
        assert len(rows(opened, "matches", "<u4")) == 8
    assert "80.0% of the pairs are done; the rest is not in the file" in lines(exported)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "old.db"], "old.db exists already; choose another file, or replace it with --force"),
        (["--to", "old.db", "--force"], "old.db-wal exists: a program has old.db open, or broke off"),
        (["--to", "folder.db"], "folder.db is a folder; name a file"),
        (["--to", "-", "--format", "colmap"], "colmap cannot go to standard output"),
        (["--to", "c.db", "--camera", "shared"], "--camera: unknown choice 'shared'"),
        (["--to", "c.csv", "--camera", "single"], "does not support --camera; choose --format colmap"),
        (["--to", "c.db", "--axis", "keypoint"], "format colmap holds rows of 'match' only, not of 'keypoint'"),
    ],
    ids=str,
)
def test_mistakes_take_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_matches(tmp_path / "s.zarr")
    (tmp_path / "old.db").write_text("old")
    (tmp_path / "old.db-wal").write_text("pages of COLMAP")
    (tmp_path / "folder.db").mkdir()
    before = sorted(tmp_path.iterdir())
    assert main(["export", "s.zarr", *words]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "old.db").read_text() == "old"


def test_stores_without_matched_pictures_are_refused(tmp_path: Path) -> None:
    make_matches(tmp_path / "new.zarr", done_chunks=0)
    with pytest.raises(UsageError, match="format colmap holds rows of 'match' only, not of 'keypoint' or 'frame'"):
        export(tmp_path / "new.zarr", tmp_path / "c.db")
    with RunStore.open(tmp_path / "begun.zarr"):  # a run that has not looked for pictures yet
        pass
    for name in ("c.db", "matches.h5"):
        with pytest.raises(UsageError, match="there are no pairs yet"):
            export(tmp_path / "begun.zarr", tmp_path / name)
    faces = make_store(tmp_path / "faces.zarr", {"film": faces_of(np.array([1, 2]), np.zeros((3, 8)))})
    with pytest.raises(UsageError, match="holds rows of 'match' only, not of 'face' or 'frame'"):
        export(faces, tmp_path / "c.db")
    keypoints = make_pairs(tmp_path / "pairs.zarr", ["1.jpg", "2.jpg"], np.array([[0, 1]]), np.array([3]))
    with pytest.raises(UsageError, match="'photos' has no array 'keypoint_score'; the stage keypoints makes"):
        export(keypoints, tmp_path / "c.db")
    assert not (tmp_path / "c.db").exists()


def test_frames_of_a_film_are_refused(tmp_path: Path) -> None:
    """A film has no files that COLMAP or hloc could read. Its pairs have a table, with the numbers of the frames."""
    write_clip(tmp_path / "film.mp4", 6)
    workflow = tmp_path / "film.yaml"
    workflow.write_text("pairs: {window: 1}\nstages:\n  keypoints: {use: keypoints, most: 20}\n  match: {use: match}\n")
    made = pipeline.run(workflow, tmp_path / "film.mp4", out=tmp_path / "s.zarr", executor="inline")
    assert made.summary.exit_code == 0
    for name in ("c.db", "matches.h5"):
        with pytest.raises(UsageError, match="'film' holds frames of a film; COLMAP and hloc read files"):
            export(tmp_path / "s.zarr", tmp_path / name)
    export(tmp_path / "s.zarr", tmp_path / "p.csv", axis="pair")
    assert (tmp_path / "p.csv").read_text().splitlines()[0].split(",")[3:9] == [
        f'"{name}"' for name in ("a", "b", "frame_a", "time_seconds_a", "frame_b", "time_seconds_b")
    ]


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_matches(tmp_path / "s.zarr")
    export(tmp_path / "s.zarr", tmp_path / "c.db")
    before = (tmp_path / "c.db").read_bytes()
    monkeypatch.setattr("pipeline.store.read.RunInput.read_frames", _damaged)
    with pytest.raises(StoreError, match="half way"):
        export(tmp_path / "s.zarr", tmp_path / "c.db", force=True)
    assert (tmp_path / "c.db").read_bytes() == before
    monkeypatch.undo()
    export(tmp_path / "s.zarr", tmp_path / "c.db", force=True)
    assert (tmp_path / "c.db").read_bytes() == before, "the same store gives the same bytes"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.db", "s.zarr"]


def _damaged(*_: Any) -> Any:
    raise StoreError("half way")


SCRIPT = """
import resource, signal, sys
from pipeline.cli import main
import h5py
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("name", ["c.db", "matches.h5"])
@pytest.mark.parametrize("limit", [2_000, 20_000])
def test_a_full_disk_takes_one_line_and_leaves_nothing(tmp_path: Path, name: str, limit: int) -> None:
    make_matches(tmp_path / "s.zarr", [f"{k}.jpg" for k in range(24)])
    target = tmp_path / "to" / name
    command = [sys.executable, "-c", SCRIPT, str(limit), "export", str(tmp_path / "s.zarr"), "--to", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 2
    assert " cannot be written: " in done.stderr
    assert "; choose another file" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    assert not list(target.parent.iterdir())


SFM = {"keypoints.most": 5000, "source.longest": 1024}
"""Fewer than COLMAP takes, in smaller copies: half the time, and all ten photographs are still in the model."""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_colmap_reconstructs_the_church(tmp_path: Path, data_dir: Path) -> None:
    """Ten photographs by ten people: at least nine are in one model. COLMAP's own features place all ten."""
    pycolmap = pytest.importorskip("pycolmap", reason="pycolmap is not installed: pip install 'reelgraph[test]'")
    photos = data_dir / "pairs" / "sacre_coeur"
    if not photos.is_dir():
        pytest.skip(f"no test data at {photos}")
    pipeline.run("match", photos, out=tmp_path / "s.zarr", executor="inline", set=SFM)
    export(tmp_path / "s.zarr", tmp_path / "colmap.db")
    pycolmap.set_random_seed(0)
    options = pycolmap.IncrementalPipelineOptions(random_seed=0, num_threads=1)
    (tmp_path / "model").mkdir()
    models = pycolmap.incremental_mapping(tmp_path / "colmap.db", photos, tmp_path / "model", options)
    best = max(models.values(), key=lambda model: model.num_reg_images())
    assert best.num_reg_images() >= 9
    assert best.num_points3D() > 800
    assert best.compute_mean_reprojection_error() < 1
    assert {image.name for image in best.images.values()} <= set(os.listdir(photos))

"""Matches as files of hloc: read as hloc reads them, they are what is in the store."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.cli import main
from pipeline.errors import UsageError
from pipeline.store.run import RunStore
from pipeline.views.export import export
from tests.images.made_features import make_features
from tests.pairs.made_matches import NAMES, WORKFLOW, make_matches
from tests.pairs.test_colmap import part


def names_to_pair(name0: str, name1: str) -> str:
    """As hloc/utils/parsers.py."""
    return "/".join((name0.replace("/", "-"), name1.replace("/", "-")))


def get_keypoints(path: Path, name: str) -> np.ndarray:
    """As hloc/utils/io.py."""
    with h5py.File(str(path), "r", libver="latest") as file:
        return file[name]["keypoints"].__array__()


def get_matches(path: Path, name0: str, name1: str) -> tuple[np.ndarray, np.ndarray]:
    """As hloc/utils/io.py, for pairs of either order."""
    with h5py.File(str(path), "r", libver="latest") as file:
        pair, reverse = names_to_pair(name0, name1), False
        if pair not in file:
            pair, reverse = names_to_pair(name1, name0), True
        matches = file[pair]["matches0"].__array__()
        scores = file[pair]["matching_scores0"].__array__()
    index = np.where(matches != -1)[0]
    found = np.stack([index, matches[index]], -1)
    return np.flip(found, -1) if reverse else found, scores[index]


def list_h5_names(path: Path) -> list[str]:
    """As hloc/utils/io.py: the pictures that need not be computed again."""
    names: list[h5py.HLObject] = []
    with h5py.File(str(path), "r", libver="latest") as file:
        file.visititems(lambda _, one: names.append(one))
        return sorted({one.parent.name.strip("/") for one in names if isinstance(one, h5py.Dataset)})


@pytest.mark.parametrize(("dtype", "length"), [("uint8", 128), ("float16", 64)])
def test_the_files_hold_what_the_store_holds(tmp_path: Path, dtype: str, length: int) -> None:
    made = make_matches(tmp_path / "s.zarr", dtype=dtype, length=length)
    exported = export(tmp_path / "s.zarr", tmp_path / "sfm" / "matches.h5")
    photos, pairs = made["photos"], made["photos-pairs"]
    assert (exported.format, exported.matches, exported.pairs) == ("hloc", len(pairs["match"]), 10)
    features, matches = tmp_path / "sfm" / "features.h5", tmp_path / "sfm" / "matches.h5"
    assert list_h5_names(features) == sorted(NAMES)
    for k, name in enumerate(NAMES):
        points = get_keypoints(features, name)
        np.testing.assert_array_equal(points, part(photos, "n_keypoints", "keypoint", k) - np.float32(0.5))
        with h5py.File(features) as file:
            group = {key: value.__array__() for key, value in file[name].items()}
        stored = part(photos, "n_keypoints", "descriptor", k).astype(np.float32)
        if dtype == "uint8":
            stored /= np.linalg.norm(stored, axis=1, keepdims=True)
            np.testing.assert_allclose(group["descriptors"].T, stored, atol=1e-3)
        else:
            np.testing.assert_array_equal(group["descriptors"].T, stored)
        assert group["descriptors"].dtype == np.float16
        np.testing.assert_array_equal(group["scores"], part(photos, "n_keypoints", "keypoint_score", k))
        assert group["image_size"].tolist() == [640 + k, 480]
    listed = (tmp_path / "sfm" / "pairs.txt").read_text(encoding="utf-8").splitlines()
    assert listed == [f"{NAMES[a]} {NAMES[b]}" for a, b in zip(pairs["a"], pairs["b"], strict=True)]
    for k, (a, b) in enumerate(zip(pairs["a"], pairs["b"], strict=True)):
        expected, scores = part(pairs, "n_matches", "match", k), part(pairs, "n_matches", "match_score", k)
        found = get_matches(matches, NAMES[a], NAMES[b])
        np.testing.assert_array_equal(found[0], expected)
        np.testing.assert_array_equal(found[1], scores.astype(np.float16))
        np.testing.assert_array_equal(get_matches(matches, NAMES[b], NAMES[a])[0], expected[:, ::-1])
        with h5py.File(matches) as file:
            one = file[names_to_pair(NAMES[a], NAMES[b])]
            assert (one["matches0"].dtype, len(one["matches0"])) == (np.int16, photos["n_keypoints"][a])
    assert "1 name with spaces: hloc reads no such name in pairs.txt" in exported.notes


def test_the_end_of_the_name_chooses(tmp_path: Path) -> None:
    """`matches.h5` is longer than `.h5`, which has the features of whole pictures."""
    make_matches(tmp_path / "s.zarr")
    assert export(tmp_path / "s.zarr", tmp_path / "church-matches.h5").format == "hloc"
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {"s.zarr", "church-matches.h5", "church-features.h5", "church-pairs.txt"}
    make_features(tmp_path / "f.zarr", {"one": 3})
    assert export(tmp_path / "f.zarr", tmp_path / "feats.h5").format == "hdf5"


def test_a_picture_that_could_not_be_read_has_no_group(tmp_path: Path) -> None:
    made = make_matches(tmp_path / "s.zarr", later=["d.jpg"], bad=[1])
    exported = export(tmp_path / "s.zarr", tmp_path / "matches.h5")
    assert list_h5_names(tmp_path / "features.h5") == sorted({*NAMES, "d.jpg"} - {"a/2.jpg"})
    listed = (tmp_path / "pairs.txt").read_text(encoding="utf-8").splitlines()
    assert len(listed) == 10
    assert not any("a/2.jpg" in line for line in listed)
    assert "1 picture left out: could not be read" in exported.notes
    later = made["photos-2-pairs"]
    k = next(k for k in range(len(later["a"])) if (later["a"][k], later["b"][k]) == (3, 5))
    found = get_matches(tmp_path / "matches.h5", NAMES[3], "d.jpg")[0]
    np.testing.assert_array_equal(found, part(later, "n_matches", "match", k))


def test_the_list_that_made_a_store_is_not_replaced(tmp_path: Path) -> None:
    """hloc's list of pairs has the name that a user's own list may have, and holds less: without it no run goes on."""
    make_matches(tmp_path / "s.zarr")
    listed = tmp_path / "pairs.txt"
    listed.write_text("a/2.jpg b/1.jpg  \n# by hand\n")
    with RunStore.open(tmp_path / "s.zarr") as store:
        store.update(workflow={**WORKFLOW, "pairs": {"list": str(listed)}})
    with pytest.raises(UsageError, match=r"pairs.txt is the file that pairs.list of .*s.zarr names"):
        export(tmp_path / "s.zarr", tmp_path / "matches.h5", force=True)
    assert listed.read_text().endswith("# by hand\n")
    export(tmp_path / "s.zarr", tmp_path / "church-matches.h5")


def test_old_and_new_files_never_stand_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill while files are replaced leaves no matches beside features of another export."""
    make_matches(tmp_path / "s.zarr")
    names = ["features.h5", "pairs.txt", "matches.h5"]
    for name in names:
        (tmp_path / name).write_text("old")
    seen, replace = [], os.replace

    def watched(aside: Path, place: Path) -> None:
        replace(aside, place)
        seen.append([path.name for path in tmp_path.iterdir() if path.name in names])
        if "matches.h5" in seen[-1]:
            assert not [name for name in names if (tmp_path / name).read_bytes() == b"old"]

    monkeypatch.setattr(os, "replace", watched)
    export(tmp_path / "s.zarr", tmp_path / "matches.h5", force=True)
    assert [len(found) for found in seen] == [2, 2, 3]


def test_two_names_that_hloc_takes_for_one(tmp_path: Path) -> None:
    make_matches(tmp_path / "s.zarr", ["a/1.jpg", "a-1.jpg", "2.jpg"])
    with pytest.raises(UsageError, match=r"hloc has one name, 'a-1.jpg', for 'a/1.jpg' and 'a-1.jpg'; rename one"):
        export(tmp_path / "s.zarr", tmp_path / "matches.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["s.zarr"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "m.h5", "--format", "hloc"], "a file of format hloc ends with matches.h5: --to 'matches.h5'"),
        (["--to", "matches.h5"], "features.h5 exists already"),
        (["--to", "-", "--format", "hloc"], "hloc cannot go to standard output"),
    ],
    ids=str,
)
def test_mistakes_take_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_matches(tmp_path / "s.zarr")
    (tmp_path / "features.h5").write_text("old")
    assert main(["export", "s.zarr", *words]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"s.zarr", "features.h5"}


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_matches(tmp_path / "s.zarr")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UsageError, match=r"needs h5py: pip install 'reelgraph\[hdf5\]'"):
        export(tmp_path / "s.zarr", tmp_path / "matches.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["s.zarr"]

"""Tables of pairs and of matches, beside those of the pictures in the same store."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import pipeline
from pipeline.errors import StoreError, UsageError
from pipeline.views.export import export, lines
from tests.images.made_features import make_features
from tests.pairs.made_matches import NAMES, make_matches

Made = dict[str, dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables") / "s.zarr"


@pytest.fixture(scope="module")
def made(store: Path) -> Made:
    return make_matches(store, later=["d/4.jpg"], bad=[1])


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_a_row_for_each_pair(tmp_path: Path, store: Path, made: Made, suffix: str) -> None:
    exported = export(store, tmp_path / f"p{suffix}", axis="pair")
    path = tmp_path / f"p{suffix}"
    from_lines = partial(pd.read_json, lines=True)
    reading: dict[str, Any] = {".parquet": pd.read_parquet, ".csv": pd.read_csv, ".jsonl": from_lines}
    table = reading[suffix](path)
    first, later = made["photos-pairs"], made["photos-2-pairs"]
    both = {name: np.concatenate([first[name], later[name]]) for name in first}
    assert (exported.axis, exported.pairs, exported.inputs, exported.noun) == ("pair", 15, 2, "pair")
    assert lines(exported)[0] == f"{path}: 15 pairs, 2 inputs"
    assert table["input"].tolist() == ["photos-pairs"] * 10 + ["photos-2-pairs"] * 5
    assert list(table.columns[:8]) == ["store", "input", "path", "a", "b", "name_a", "name_b", "pair"]
    everything = np.array([*NAMES, "d/4.jpg"], object)
    for side in "ab":
        assert table[f"name_{side}"].tolist() == everything[both[side]].tolist()
        assert table[side].tolist() == both[side].tolist()
    for name in ("n_matches", "n_inliers", "decoded"):
        assert table[name].tolist() == both[name].tolist()
    assert table["error"].fillna("").tolist() == both["error"].tolist()
    assert {"name", "frame", "width", "n_keypoints"}.isdisjoint(table.columns), "a pair is no picture"


def test_a_row_for_each_match(tmp_path: Path, store: Path, made: Made) -> None:
    exported = export(store, tmp_path / "m.parquet", axis="match")
    table = pd.read_parquet(tmp_path / "m.parquet")
    assert lines(exported)[0].endswith(f"{len(table)} matches of 15 pairs, 2 inputs")
    keypoint = np.concatenate([made["photos"]["keypoint"], made["photos-2"]["keypoint"]])
    counts = np.concatenate([made["photos"]["n_keypoints"], made["photos-2"]["n_keypoints"]])
    starts = np.cumsum([0, *counts])
    row = 0
    for one in (made["photos-pairs"], made["photos-2-pairs"]):
        pair = np.repeat(np.arange(len(one["a"])), one["n_matches"])
        some = table.iloc[row : row + len(pair)]
        row += len(pair)
        assert some["match_in_pair"].tolist() == [k for n in one["n_matches"] for k in range(n)]
        for side, name in enumerate("ab"):
            number = one["match"][:, side]
            assert some[f"keypoint_{name}"].tolist() == number.tolist()
            np.testing.assert_array_equal(some[[f"x_{name}", f"y_{name}"]], keypoint[starts[one[name][pair]] + number])
        assert some["inlier"].tolist() == one["inlier"].tolist()
        assert some["n_inliers"].tolist() == one["n_inliers"][pair].tolist()
        np.testing.assert_array_equal(some["match_score"], one["match_score"])
    assert row == len(table) > 10


def test_pictures_and_keypoints_are_as_before(tmp_path: Path, store: Path, made: Made) -> None:
    """The same columns as in a store without pairs, and the same rows."""
    n_keypoints = sum(len(made[name]["keypoint"]) for name in ("photos", "photos-2"))
    for axis, count in (("frame", 6), ("keypoint", n_keypoints)):
        exported = export(store, tmp_path / f"{axis}.parquet", axis=axis)
        assert pq.read_metadata(tmp_path / f"{axis}.parquet").num_rows == count
        assert (exported.inputs, exported.noun) == (2, "picture")
        assert {"a", "b", "pair", "n_matches", "name_a", "match"}.isdisjoint(exported.columns)
    usual = export(store, tmp_path / "usual.parquet")
    assert usual.axis == "keypoint"
    made_of = pd.read_parquet(tmp_path / "frame.parquet")
    assert made_of["name"].tolist() == [*NAMES, "d/4.jpg"]
    assert made_of["frame"].tolist() == [*range(5), 0]


def test_an_unknown_axis_names_those_that_there_are(tmp_path: Path, store: Path, made: Made) -> None:
    with pytest.raises(UsageError, match=r"'pears'; did you mean 'pair'\? valid: frame, keypoint, match, pair"):
        export(store, tmp_path / "t.csv", axis="pears")
    make_features(tmp_path / "f.zarr", {"one": 3})
    with pytest.raises(UsageError, match="unknown axis 'pair'; valid: frame"):
        export(tmp_path / "f.zarr", tmp_path / "t.csv", axis="pair")


def test_stores_of_different_kinds_in_one_table(tmp_path: Path, store: Path, made: Made) -> None:
    """Rows of items are those of all stores; pairs those of the one that has some."""
    make_features(tmp_path / "f.zarr", {"one": 3})
    assert export([tmp_path / "f.zarr", store], tmp_path / "f.csv", axis="frame").frames == 9
    exported = export([tmp_path / "f.zarr", store], tmp_path / "p.csv", axis="pair")
    assert (exported.pairs, exported.inputs) == (15, 2)
    assert export(store, tmp_path / "{input}.csv", axis="pair").pairs == 15
    assert {path.name for path in tmp_path.glob("photos*")} == {"photos-pairs.csv", "photos-2-pairs.csv"}


def test_half_done_pairs(tmp_path: Path) -> None:
    made = make_matches(tmp_path / "s.zarr", done_chunks=1)
    exported = export(tmp_path / "s.zarr", tmp_path / "p.csv", axis="pair")
    assert exported.pairs == 4
    assert exported.done_share == pytest.approx(0.4)
    table = pd.read_csv(tmp_path / "p.csv")
    assert table["name_b"].tolist() == np.array(NAMES, object)[made["photos-pairs"]["b"][:4]].tolist()
    assert len(export(tmp_path / "s.zarr", tmp_path / "f.csv", axis="frame").columns) > 5
    make_matches(tmp_path / "new.zarr", done_chunks=0)
    assert export(tmp_path / "new.zarr", tmp_path / "k.csv").axis == "keypoint"


def test_in_python(store: Path, made: Made) -> None:
    run = pipeline.open(store)
    frames, pairs = run.frames(), run.items("pair")
    assert frames["name"].tolist() == [*NAMES, "d/4.jpg"]
    assert {"a", "b", "n_matches"}.isdisjoint(frames.columns)
    assert frames["n_keypoints"].dtype == np.int32, "no NaN of other inputs"
    assert list(pairs.columns) == ["input", "a", "b", "decoded", "error", "n_matches", "n_inliers"]
    assert pairs["n_matches"].dtype == np.int32
    assert run.items("frame").equals(frames)
    assert run.items("pair", "photos-2-pairs")["a"].tolist() == made["photos-2-pairs"]["a"].tolist()
    assert run.frames("photos-pairs")["b"].tolist() == made["photos-pairs"]["b"].tolist()
    with pytest.raises(StoreError, match="unknown item axis 'pairs'; did you mean 'pair'"):
        run.items("pairs")
    with pytest.raises(StoreError, match="unknown item axis 'pair'; valid: frame"):
        run.items("pair", "photos")
    rows = run.rows("pair")
    assert rows["name_a"].tolist() == np.array([*NAMES, "d/4.jpg"], object)[rows["a"]].tolist()
    assert len(run.rows("match")) == sum(len(made[name]["match"]) for name in made if name.endswith("pairs"))
    assert len(run.rows("keypoint")) == frames["n_keypoints"].sum()
    assert run.faces().empty

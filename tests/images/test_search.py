"""`find --image` and `--like`: the nearest are those of a plain computation; a feature is made as the stored ones."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

import pipeline
from pipeline.cli import main
from pipeline.errors import InputError, StoreError, UsageError
from pipeline.images.search import search
from pipeline.store.nodes import read_group, write_group
from tests.images.made_features import LENGTH, make_features
from tests.own import Own, own  # noqa: F401  (a fixture)

SOURCE = '''
"""Folders of PNG files, or one file; pictures are shrunk to a longest side."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pipeline import Array
from pipeline.engine.source import InputRef, Job, Loaded, Source, SourceOptions
from pipeline.errors import InputError


class PicturesOptions(SourceOptions):
    longest: int = 16


@dataclass(frozen=True)
class PicturesJob(Job):
    paths: tuple
    longest: int

    def load(self, threads=1):
        found = [cv2.imread(str(path)) for path in self.paths]
        decoded = np.array([one is not None for one in found])
        pixels = [self.shrunk(one) if one is not None else np.zeros((1, 1, 3), np.uint8) for one in found]
        return Loaded({"frames_rgb": pixels}, decoded, None if decoded.all() else "not a picture")

    def shrunk(self, bgr):
        scale = min(1, self.longest / max(bgr.shape[:2]))
        return cv2.resize(bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[:, :, ::-1]


class Pictures(Source):
    kind = "pictures"
    Options = PicturesOptions
    arrays = (Array("name", ("frame",), "string"),)
    most_items = 4
    item_bytes = 1 << 16

    def __init__(self, path, longest):
        self.path, self.longest = Path(path), longest
        self.paths = sorted(self.path.glob("*.png")) if self.path.is_dir() else [self.path]

    @classmethod
    def find(cls, inputs, options):
        for path in inputs:
            if not Path(path).exists():
                raise InputError(f"{path}: there is no such file")
            yield InputRef(str(Path(path).absolute()), Path(path).stem)

    @classmethod
    def open(cls, ref, options, stored):
        return cls(ref.path, options.longest)

    @classmethod
    def fingerprint(cls, ref):
        return ref.path

    def __len__(self):
        return len(self.paths)

    def values(self, start, stop):
        return {"name": np.array([path.name for path in self.paths[start:stop]], object)}

    def job(self, start, stop):
        return PicturesJob(tuple(self.paths[start:stop]), self.longest)
'''

STAGES = '''
import numpy as np

from pipeline import Array, Stage
from pipeline.engine.stage import StageOptions


class Bright(Stage):
    """Pixels from 0 to 1: what `Feature` is made of."""

    needs = ("frames_rgb",)
    outputs = (Array("mean", ("frame",), "float32"),)

    def run(self, chunk):
        return {"mean": np.array([one.mean() for one in chunk.frames_rgb], np.float32)}


class FeatureOptions(StageOptions):
    power: float = 1.0


class Feature(Stage):
    needs = ("frames_rgb", "mean")
    outputs = (Array("feature", ("frame", "component"), "float32", (12,)),)
    Options = FeatureOptions

    def run(self, chunk):
        found = np.full((len(chunk), 12), np.nan, np.float32)
        for k, picture in enumerate(chunk.frames_rgb):
            if chunk.decoded[k]:
                halves = np.array_split(picture, 2)
                parts = [part for half in halves for part in np.array_split(half, 2, axis=1)]
                values = np.concatenate([part.mean((0, 1)) for part in parts]) - chunk["mean"][k]
                found[k] = np.sign(values) * np.abs(values) ** self.options.power
        return {"feature": found}
'''

Command = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*words: object) -> tuple[int, dict[str, Any], str]:
        code = main(["find", *map(str, words), "--json"])
        said = capsys.readouterr()
        return code, json.loads(said.out) if said.out else {}, said.err

    return run


def paint(path: Path, seed: int) -> np.ndarray:
    """Write a picture of four colours and some noise; its size differs from seed to seed."""
    rng = np.random.default_rng(seed)
    colours = rng.integers(0, 255, (2, 2, 3)).astype(np.uint8)
    picture = cv2.resize(colours, (24 + 2 * (seed % 5), 20 + 2 * (seed % 3)), interpolation=cv2.INTER_NEAREST)
    noise = rng.integers(0, 20, picture.shape)
    picture = np.clip(picture.astype(int) + noise, 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture)
    return picture


@pytest.fixture
def pictures(own: Own) -> Own:  # noqa: F811
    """Two folders of pictures, one of them unreadable, and a workflow whose options are not the default ones."""
    own.module("own_pictures", SOURCE)
    own.module("own_features", STAGES)
    for k in range(10):
        paint(own.folder / "holiday" / f"{k:02d}.png", k)
    for k in range(3):
        paint(own.folder / "office" / f"{k:02d}.png", 50 + k)
    (own.folder / "holiday" / "03.png").write_bytes(b"no picture")
    workflow = {
        "source": {"kind": "own_pictures:Pictures", "longest": 12},
        "stages": {
            "bright": {"use": "own_features:Bright"},
            "features": {"use": "own_features:Feature", "power": 0.7},
        },
    }
    (own.folder / "features.yaml").write_text(yaml.safe_dump(workflow))
    return own


def ran(own: Own, *folders: str, **options: Any) -> Path:  # noqa: F811
    inputs = [own.folder / name for name in folders or ("holiday", "office")]
    own.run(own.folder / "features.yaml", *inputs, **options)
    return Path(options.get("out", own.out))


def test_a_stored_picture_finds_itself_by_its_file(pictures: Own, command: Command) -> None:
    """Only the very source, stages and options of the store give the very feature."""
    out = ran(pictures)
    code, found, err = command(out, "--image", pictures.folder / "holiday" / "07.png", "--top", 3)
    assert (code, err) == (0, "")
    first = found["nearest"][0]
    assert (first["rank"], first["input"], first["name"], first["similarity"]) == (1, "holiday", "07.png", 1.0)
    assert len(found["nearest"]) == 3
    assert found["pictures"] == 12, "the unreadable one is not compared"
    assert found["nearest"][1]["similarity"] < 0.999


def test_the_nearest_are_those_of_a_plain_computation(pictures: Own, command: Command) -> None:
    out = ran(pictures)
    run = pipeline.open(out)
    names, vectors = [], []
    for item in run.inputs.values():
        names += [(item.name, name) for name in item.array("name").tolist()]
        vectors.append(item.array("feature").astype(np.float64))
    matrix = np.concatenate(vectors)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    query = names.index(("office", "01.png"))
    cosines = matrix @ matrix[query]
    cosines[query] = np.nan
    order = [k for k in np.argsort(-cosines, kind="stable") if np.isfinite(cosines[k])]
    code, found, _ = command(out, "--like", "office/01.png", "--top", 20)
    assert code == 0
    assert [(one["input"], one["name"]) for one in found["nearest"]] == [names[k] for k in order]
    np.testing.assert_allclose([one["similarity"] for one in found["nearest"]], cosines[order], atol=1e-6)
    assert len(order) == 11, "neither the picture itself nor the unreadable one"
    _, five, _ = command(out, "--like", "office/01.png", "--top", 5)
    assert five["nearest"] == found["nearest"][:5]


def test_people_get_a_table(pictures: Own, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["find", str(ran(pictures)), "--image", str(pictures.folder / "office" / "02.png"), "--top", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["rank", "similarity", "input", "name"]
    assert lines[1].split() == ["1", "1.0000", "office", "02.png"]
    assert lines[3].startswith("12 pictures compared in ")
    assert len(lines) == 4


def test_a_store_that_is_not_complete_is_searched(pictures: Own, command: Command) -> None:
    """Its second chunk cannot be made: a picture of it is not found, and the share is said."""
    for k in (4, 5, 6, 7):
        (pictures.folder / "holiday" / f"{k:02d}.png").write_bytes(b"no picture")
    out = ran(pictures, "holiday")
    item = pipeline.open(out).input("holiday")
    assert (item.complete, item.chunks["failed"]) == (False, 1)
    code, found, err = command(out, "--image", pictures.folder / "holiday" / "09.png")
    assert code == 0
    assert found["nearest"][0]["name"] == "09.png", "names go with the chunks that are there"
    assert found["nearest"][0]["similarity"] == 1.0
    assert found["pictures"] == 5
    assert "holiday: 60% is done and was searched" in err
    code, found, _ = command(out, "--like", "09.png", "--top", 1)
    assert found["nearest"][0]["name"] in {"00.png", "01.png", "02.png", "08.png"}


def test_accepted_failures_are_handed_over_with_their_reason(pictures: Own) -> None:
    for k in (4, 5, 6, 7):
        (pictures.folder / "holiday" / f"{k:02d}.png").write_bytes(b"no picture")
    out = ran(pictures, "holiday", accept_failed=True)
    assert pipeline.open(out).input("holiday").complete
    assert main(["export", str(out), "--to", str(pictures.folder / "f.npy")]) == 0
    failed = (pictures.folder / "f.failed.csv").read_text().splitlines()[1:]
    assert failed == ['"03.png","not a picture"', *(f'"{k:02d}.png","decode: not a picture"' for k in (4, 5, 6, 7))]


def test_a_picture_that_is_listed_twice_is_one(tmp_path: Path) -> None:
    names = np.array(["a.jpg", "b.jpg", "a.jpg"], object)
    make_features(tmp_path / "s.zarr", {"one": 3}, changed={"name": names})
    assert [one.name for one in search([tmp_path / "s.zarr"], like="a.jpg").nearest] in (
        ["a.jpg", "b.jpg"],
        ["b.jpg", "a.jpg"],
    )


def test_several_stores_are_ranked_together(pictures: Own, command: Command) -> None:
    one = ran(pictures, "holiday")
    two = ran(pictures, "office", out=pictures.folder / "two.zarr")
    both = ran(pictures, out=pictures.folder / "both.zarr")
    image = pictures.folder / "office" / "00.png"
    _, apart, _ = command(one, two, "--image", image)
    _, together, _ = command(both, "--image", image)
    assert [{**near, "out": ""} for near in apart["nearest"]] == [{**near, "out": ""} for near in together["nearest"]]
    assert apart["nearest"][0]["out"] == str(two)
    _, twice, _ = command(one, one, "--image", image)
    assert twice["pictures"] == 9


def test_features_of_other_options_are_not_compared(pictures: Own, command: Command) -> None:
    one = ran(pictures, "holiday")
    two = pictures.folder / "two.zarr"
    pictures.run(pictures.folder / "features.yaml", pictures.folder / "office", out=two, set={"features.power": 2.0})
    for words in (["--image", pictures.folder / "office" / "00.png"], ["--like", "office/00.png"]):
        code, _, err = command(one, two, *words)
        assert code == 2
        assert "were made by other stages or options, so they cannot be compared; search the stores one by one" in err
        assert err.count("\n") == 1


def test_other_code_of_the_stage_is_noted(pictures: Own, command: Command) -> None:
    out = ran(pictures)
    pictures.module("own_features", STAGES.replace("np.sign(values)", "-np.sign(values)"))
    from pipeline.engine.steps import unload_stages

    unload_stages()
    __import__("own_features")
    _, _, err = command(out, "--image", pictures.folder / "office" / "00.png")
    assert "the weights, the version or the code of stage 'features' are not those that" in err
    _, _, err = command(out, "--like", "office/00.png")
    assert err == ""


def test_a_store_cannot_have_modules_imported(pictures: Own, command: Command) -> None:
    out = ran(pictures)
    for name, module in (("source", "own_pictures"), ("stage", "own_features")):
        sys.modules.pop(module)
        code, _, err = command(out, "--image", pictures.folder / "office" / "00.png")
        assert code == 1 or code == 2
        assert f"{name} '{module}:" in err
        assert f"a store's word alone cannot import '{module}'" in err
        assert module not in sys.modules
        assert command(out, "--like", "office/00.png")[0] == 0, "which needs neither"
        __import__(module)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--like", "a.png"], "these stores have no picture 'a.png'; names are those of the store, such as '00.png'"),
        (["--like", "01.png"], "2 pictures have the name '01.png' (holiday/01.png, office/01.png); give one"),
        (["--like", "holiday/03.png"], "holiday/03.png has no feature: it could not be read, or"),
        (["--image", "{folder}/holiday/03.png"], "03.png: not a picture"),
        (["--image", "{folder}/nowhere.png"], "there is no such file"),
        (["--image", "{folder}/office"], "office holds 3 frames; name a file with one"),
        (["--image", "{folder}/office/01.png", "--like", "01.png"], "which picture? name one of --image FILE and"),
        (["--image", "{folder}/office/01.png", "--face", "a.jpg"], "name one of --image FILE and --like NAME"),
        (["--image", "{folder}/office/01.png", "--threshold", "0.5"], "--threshold does not go with --image"),
        (["--like", "office/01.png", "--all-faces"], "--all-faces does not go with --like"),
        (["--face", "a.jpg", "--array", "feature"], "--array does not go with --face"),
        (["--gallery", "people", "--top", "4"], "--top does not go with --gallery"),
        (["--like", "office/01.png", "--array", "mean"], "unknown array of features 'mean'"),
        ([], "whom to find? name one of --gallery DIR and --face FILE; which picture? name one of --image FILE"),
    ],
    ids=str,
)  # fmt: skip
def test_mistakes_take_one_line(words: list[str], message: str, pictures: Own, command: Command) -> None:
    out = ran(pictures)
    code, found, err = command(out, *(word.format(folder=pictures.folder) for word in words))
    assert (code, found) == (2, {})
    assert message in err
    assert err.count("\n") == 1


def test_faces_are_not_looked_for_in_features(pictures: Own, command: Command) -> None:
    out = ran(pictures)
    code, _, err = command(out, "--face", pictures.folder / "office" / "00.png")
    assert code == 2
    assert "was made without a stage that embeds faces (its stages: bright, features)" in err


# -- stores that are made up ----------------------------------------------------------------------------------------


def test_a_picture_that_cannot_be_read_says_why(pictures: Own, tmp_path: Path) -> None:
    stages = {"bright": "own_features:Bright", "features": "own_features:Feature"}
    pictures.run(pictures.workflow(stages, kind="images"), pictures.folder / "office")
    (tmp_path / "text.jpg").write_text("<html>")
    with pytest.raises(InputError, match=r"text.jpg: not a picture that can be read \(it is text\)"):
        search([pictures.out], image=tmp_path / "text.jpg", array="feature")


def test_equal_pictures_keep_the_order_of_the_store(tmp_path: Path) -> None:
    """Over chunks and blocks too, whatever the number of threads."""
    feature = np.tile(np.float16([1, 2, 3, 4, 5, 6, 7, 8]), (5 * LENGTH, 1))
    make_features(tmp_path / "s.zarr", {"one": 5 * LENGTH}, changed={"feature": feature}, done_chunks=5)
    found = search([tmp_path / "s.zarr"], like="köln/0000020.jpg", top=30)
    assert [one.name for one in found.nearest] == [f"köln/{k:07d}.jpg" for k in range(31) if k != 20]
    assert {one.similarity for one in found.nearest} == {1.0}


def test_equal_pictures_are_equally_similar_wherever_they_lie(tmp_path: Path) -> None:
    n, size = 799, 37
    feature = np.tile(np.random.default_rng(2).normal(size=size).astype(np.float16), (n, 1))
    make_features(tmp_path / "s.zarr", {"one": n}, size=size, changed={"feature": feature}, length=n)
    found = search([tmp_path / "s.zarr"], like="köln/0000000.jpg", top=n)
    assert [one.name for one in found.nearest] == [f"köln/{k:07d}.jpg" for k in range(1, n)]


def test_pictures_without_a_feature_are_not_found(tmp_path: Path) -> None:
    feature = np.ones((6, 8), np.float16)
    feature[1, 2], feature[2, 2], feature[3] = np.nan, np.inf, 0
    make_features(tmp_path / "s.zarr", {"one": 6}, changed={"feature": feature})
    found = search([tmp_path / "s.zarr"], like="köln/0000000.jpg")
    assert [one.name for one in found.nearest] == ["köln/0000004.jpg", "köln/0000005.jpg"]
    for k in (1, 2, 3):
        with pytest.raises(InputError, match="has no feature"):
            search([tmp_path / "s.zarr"], like=f"köln/{k:07d}.jpg")


def test_a_damaged_input_is_named_and_the_others_searched(tmp_path: Path, command: Command) -> None:
    out = tmp_path / "s.zarr"
    make_features(out, {"one": 40, "two": 40})
    for path in (out / "two" / "feature" / "c").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-100])
    code, found, err = command(out, tmp_path / "nowhere.zarr", "--like", "one/köln/0000001.jpg")
    assert code == 1
    assert {one["input"] for one in found["nearest"]} == {"one"}
    assert len(found["unusable"]) == 2
    assert "is damaged" in err
    assert "nowhere.zarr" in err
    make_features(tmp_path / "new.zarr", {"three": 40}, done_chunks=0)
    _, found, err = command(out, tmp_path / "new.zarr", "--like", "one/köln/0000001.jpg")
    assert f"{tmp_path / 'new.zarr'}, three: nothing is done yet" in found["notes"]
    for path in (out / "one" / "feature" / "c").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-100])
    code, found, err = command(out, "--like", "two/köln/0000001.jpg")
    assert (code, found) == (2, {})
    assert "is damaged" in err


@pytest.mark.parametrize(("stores", "error"), [(["nowhere.zarr"], InputError), ([], InputError)])
def test_nothing_to_search(tmp_path: Path, stores: list[str], error: type[Exception]) -> None:
    with pytest.raises(error, match="no store"):
        search([tmp_path / name for name in stores], like="x")


def test_a_store_without_its_workflow_is_searched_by_like_alone(tmp_path: Path) -> None:
    make_features(tmp_path / "s.zarr", {"one": 4})
    root = read_group(tmp_path / "s.zarr")
    assert root is not None
    root.attributes["workflow"] = 7
    write_group(tmp_path / "s.zarr", root)
    assert len(search([tmp_path / "s.zarr"], like="köln/0000000.jpg").nearest) == 3
    with pytest.raises(StoreError, match=r"a stage that makes 'feature' \(its stages: none\); search with --like"):
        search([tmp_path / "s.zarr"], image="x.jpg")


def test_frames_of_films_go_by_their_numbers(tmp_path: Path) -> None:
    from pipeline.store.schema import Array

    times = {"frame": np.arange(8) * 5, "time_seconds": np.arange(8) / 5}
    film = (Array("frame", ("frame",), "int64"), Array("time_seconds", ("frame",), "float64"))
    make_features(tmp_path / "s.zarr", {"one": 8}, named=film, changed=times)
    found = search([tmp_path / "s.zarr"], like="15", top=1)
    assert int(found.nearest[0].name) % 5 == 0
    with pytest.raises(UsageError, match="no picture '16'; names are those of the store, such as '0'"):
        search([tmp_path / "s.zarr"], like="16")

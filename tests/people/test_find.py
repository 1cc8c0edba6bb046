"""`reelgraph find --gallery`: who is seen when, in complete and half-done stores, through the command."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline
from pipeline.cli import main
from pipeline.errors import WorkflowError
from pipeline.faces.people.find import find
from pipeline.faces.people.labels import labels
from pipeline.store.run import RunStore
from tests.made_stores import EVERY, FPS, close, faces_of, make_store
from tests.people import drawn

FACE = (100, 60, 60, 90)
STEP = EVERY / FPS
"""Seconds between sampled frames."""
PEOPLE = {"Ann": drawn.ANN, "Bob": drawn.BOB, "Eve": drawn.EVE}

Command = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REELGRAPH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    for name, colour in PEOPLE.items():
        drawn.write(tmp_path / "people" / name / "one.png", (colour, FACE))
    drawn.write(tmp_path / "people" / "Ann" / "two.png", (drawn.ANN, (5, 5, 50, 70)))
    return tmp_path / "people"


def film(present: dict[tuple[int, int, int], list[int]], n_frames: int = 200) -> dict[str, np.ndarray]:
    """Arrays of an input: each colour's face in the sampled frames named, a little off its gallery's picture."""
    rng = np.random.default_rng(len(present))
    n_faces = np.zeros(n_frames, np.int64)
    rows: list[tuple[int, np.ndarray]] = []
    for colour, frames in present.items():
        n_faces[frames] += 1
        rows += [(frame, drawn.vector(colour) + rng.normal(0, 0.004, drawn.DIMENSION)) for frame in frames]
    rows.sort(key=lambda row: row[0])
    vectors = np.array([row for _, row in rows]).reshape(-1, drawn.DIMENSION)
    return faces_of(n_faces, vectors)


LOBBY = {drawn.ANN: [*range(20), *range(100, 110)], drawn.BOB: list(range(10, 15)), drawn.CY: [50]}
YARD = {drawn.ANN: [3], drawn.CY: [4]}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, made once."""
    films = {"lobby": film(LOBBY), "yard": film(YARD)}
    return make_store(tmp_path_factory.mktemp("made") / "a.zarr", films, workflow=drawn.document())


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "a.zarr")


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*words: object) -> tuple[int, dict[str, Any], str]:
        code = main(["find", *map(str, words), "--json"])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else {}, err

    return run


def identities(store: Path, name: str = "lobby") -> np.ndarray:
    return pipeline.open(store).input(name).array("identity")


def test_people_are_found_with_their_times(store: Path, gallery: Path, command: Command) -> None:
    code, found, _ = command(store, "--gallery", gallery)
    assert code == 0
    assert [person["name"] for person in found["people"]] == ["Ann", "Bob"]
    assert found["absent"] == ["Eve"]
    ann, bob = found["people"]
    assert (ann["inputs"], ann["faces"]) == (2, 31)
    assert ann["screen_seconds"] == pytest.approx(31 * STEP)
    assert (ann["level"], ann["distance"] < ann["limit"]) == ("sure", True)
    assert "threshold" not in found["inputs"][0], "it differs from track to track"
    lobby, yard = ann["sightings"]
    assert (lobby["input"], yard["input"]) == ("lobby", "yard")
    spans = [(one["start_seconds"], one["stop_seconds"]) for one in lobby["appearances"]]
    np.testing.assert_allclose(spans, [(0, 20 * STEP), (100 * STEP, 110 * STEP)])
    assert (yard["first_seconds"], yard["last_seconds"]) == pytest.approx((3 * STEP, 4 * STEP))
    assert bob["sightings"][0]["best"]["frame"] in {EVERY * frame for frame in range(10, 15)}
    assert [(one["input"], one["faces"], one["unknown_faces"], one["share"]) for one in found["inputs"]] == [
        ("lobby", 36, 1, 1.0),
        ("yard", 2, 1, 1.0),
    ]


def test_arrays_are_written_as_the_store_promises(store: Path, gallery: Path, command: Command) -> None:
    command(store, "--gallery", gallery)
    item = pipeline.open(store).input("lobby")
    described = item.arrays["identity"]
    assert (described.dtype, described.dims, item.arrays["distance"].dtype) == ("int32", ("face",), "float32")
    facts = described.attributes
    assert facts["names"] == ["Ann", "Ann", "Bob", "Eve"]
    assert facts["pictures"] == ["Ann/one.png", "Ann/two.png", "Bob/one.png", "Eve/one.png"]
    assert (facts["metric"], facts["threshold"], facts["model"]) == ("cosine", None, "Dlib")
    assert (facts["per"], facts["people"]) == ("track", 3)
    limits = facts["limits_of_one_face"]
    assert limits["sure"] < limits["likely"] < limits["weak"]
    assert facts["gallery"] == str(gallery)
    assert len(facts["gallery_sha256"]) == 64
    found = item.read(["identity", "distance", "candidate", "identity_level", "identity_limit"])
    assert item.arrays["identity_level"].attributes["levels"] == ["none", "weak", "likely", "sure"]
    unknown = found["identity"] == -1
    assert unknown.sum() == 1
    assert (found["distance"] > found["identity_limit"]).tolist() == unknown.tolist()
    assert (found["identity_level"] >= 2).tolist() == (~unknown).tolist()
    assert (found["candidate"][~unknown] == found["identity"][~unknown]).all()
    known = labels(item, "identity")
    assert set(known.names.values()) == {"Ann", "Bob"}
    assert np.isfinite(found["distance"]).all()


def test_the_same_gallery_again_is_nothing_to_do(
    store: Path, gallery: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    _, first, _ = command(store, "--gallery", gallery)
    written = (store / "lobby" / "identity" / "zarr.json").stat().st_mtime_ns
    ran = drawn.EmbedDrawn.ran
    _, again, _ = command(store, "--gallery", gallery)
    assert {one["written"] for one in first["inputs"]} == {"written"}
    assert {one["written"] for one in again["inputs"]} == {"unchanged"}
    assert again["people"] == first["people"]
    assert (store / "lobby" / "identity" / "zarr.json").stat().st_mtime_ns == written
    assert drawn.EmbedDrawn.ran == ran
    assert main(["find", str(store), "--gallery", str(gallery)]) == 0
    assert "nothing to do: the stores hold this matching already" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change", [["--metric", "angular"], ["--threshold", "0.2"], ["--all-faces"], "picture"], ids=str
)
def test_a_change_matches_anew(change: Any, store: Path, gallery: Path, command: Command) -> None:
    command(store, "--gallery", gallery)
    if change == "picture":
        drawn.write(gallery / "Cy.png", (drawn.CY, FACE))
        change = []
    _, found, _ = command(store, "--gallery", gallery, *change)
    assert {one["written"] for one in found["inputs"]} == {"written"}
    if not change:
        assert [person["name"] for person in found["people"]] == ["Ann", "Bob", "Cy"]
        assert (identities(store) >= 0).all()


def test_names_that_go_are_told_and_an_answer_alone_changes_nothing(
    store: Path, gallery: Path, tmp_path: Path, command: Command
) -> None:
    other = tmp_path / "others"
    other.mkdir()
    drawn.write(other / "Cy.png", (drawn.CY, FACE))
    _, first, _ = command(store, "--gallery", gallery)
    assert not any("replace" in text for text in first["notes"])
    before = identities(store)
    _, asked, _ = command(store, "--gallery", other, "--no-write")
    assert {one["written"] for one in asked["inputs"]} == {"not asked"}
    assert [person["name"] for person in asked["people"]] == ["Cy"]
    np.testing.assert_array_equal(identities(store), before)
    _, second, _ = command(store, "--gallery", other)
    told = f"{store}: these names replace those of an earlier find, "
    assert f"{told}--gallery {gallery}" in second["notes"]
    _, third, _ = command(store, "--gallery", other, "--threshold", "0.2", "--per", "face")
    assert f"{told}--per track --threshold by default" in third["notes"]


def alike(colour: tuple[int, int, int], distance: float, n_frames: int = 20) -> dict[str, np.ndarray]:
    """Arrays of an input: one face in each sampled frame, at a cosine distance from a colour's."""
    known = drawn.vector(colour).astype(float)
    aside = np.eye(drawn.DIMENSION)[0] - known * known[0] / (known @ known)
    along = 1 - distance
    one = along * known / np.linalg.norm(known) + np.sqrt(1 - along**2) * aside / np.linalg.norm(aside)
    return faces_of(np.ones(n_frames, np.int64), np.tile(np.linalg.norm(known) * one, (n_frames, 1)))


def levels_of(found: dict[str, Any]) -> dict[str, str]:
    """Level of each input's name."""
    return {one["input"]: one["level"] for person in found["people"] + found["maybe"] for one in person["sightings"]}


def test_others_of_the_scene_of_a_picture_are_a_question_in_other_inputs_too(
    gallery: Path, tmp_path: Path, command: Command
) -> None:
    """Ann's picture was cut from `cut`; in `other`, of that frame size, another person is in that light."""
    films = {"other": alike(drawn.ANN, 0.05), "again": alike(drawn.ANN, 0.015), "cut": alike(drawn.ANN, 0.002)}
    out = make_store(tmp_path / "a.zarr", films, workflow=drawn.document())
    wide = {"wide": alike(drawn.ANN, 0.05)}
    more = make_store(tmp_path / "b.zarr", wide, facts={"width": 1920, "height": 1080}, workflow=drawn.document())
    table = tmp_path / "faces.csv"
    _, found, _ = command(out, more, "--gallery", gallery, "--table", table)
    assert levels_of(found) == {"other": "weak", "again": "sure", "cut": "sure", "wide": "sure"}
    assert any(text.startswith("Ann: the gallery's picture is of the scene of ") for text in found["notes"])
    assert {one["written"] for one in found["inputs"]} == {"written"}
    assert (identities(out, "other") == -1).all()
    with table.open() as file:
        levels = {(row["input"], row["level"]) for row in csv.DictReader(file)}
    assert levels == {("other", "weak"), ("again", "sure"), ("cut", "sure"), ("wide", "sure")}
    _, again, _ = command(out, more, "--gallery", gallery)
    assert (levels_of(again), {one["written"] for one in again["inputs"]}) == (levels_of(found), {"unchanged"})
    _, asked, _ = command(out, more, "--gallery", gallery, "--no-write")
    assert levels_of(asked) == levels_of(found)
    _, own, _ = command(out, more, "--gallery", gallery, "--threshold", "0.06")
    assert levels_of(own)["other"] != "weak", "the user's word"


def test_without_the_video_of_the_picture_the_usual_limit_holds(
    gallery: Path, tmp_path: Path, command: Command
) -> None:
    films = {"other": alike(drawn.ANN, 0.05), "again": alike(drawn.ANN, 0.05)}
    out = make_store(tmp_path / "a.zarr", films, workflow=drawn.document())
    _, alone, _ = command(out, "--gallery", gallery)
    assert set(levels_of(alone).values()) == {"sure"}
    cut = make_store(tmp_path / "b.zarr", {"cut": alike(drawn.ANN, 0.002)}, workflow=drawn.document())
    for stores, expected in (((out, cut), {"weak"}), ((out,), {"sure"}), ((cut, out), {"weak"})):
        _, found, _ = command(*stores, "--gallery", gallery)
        assert {level for name, level in levels_of(found).items() if name != "cut"} == expected
        assert bool((identities(out, "other") >= 0).all()) == (expected == {"sure"})


def test_a_threshold_of_ones_own(store: Path, gallery: Path, command: Command) -> None:
    _, found, _ = command(store, "--gallery", gallery, "--threshold", "0.000001")
    assert found["people"] == []
    assert (identities(store) == -1).all()
    assert np.isfinite(pipeline.open(store).input("lobby").array("distance")).all()


def test_half_done_is_searched_as_far_as_it_is(gallery: Path, tmp_path: Path, command: Command) -> None:
    half = make_store(
        tmp_path / "half.zarr", {"lobby": film(LOBBY)}, workflow=drawn.document(), done_chunks=1, chunk_frames=64
    )
    code, found, err = command(half, "--gallery", gallery, "--table", tmp_path / "t.csv")
    assert code == 0
    assert "lobby: 32% is done and was searched; nothing is written before it is complete" in err
    (searched,) = found["inputs"]
    assert (searched["faces"], searched["share"], searched["written"]) == (26, 0.32, "incomplete")
    assert [(person["name"], person["faces"]) for person in found["people"]] == [("Ann", 20), ("Bob", 5)]
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 27
    assert "identity" not in pipeline.open(half).input("lobby").arrays


def test_empty_stores_are_said(store: Path, gallery: Path, tmp_path: Path, command: Command) -> None:
    RunStore.open(tmp_path / "empty.zarr").close()
    code, _, err = command(tmp_path / "empty.zarr", "--gallery", gallery)
    assert code == 2
    assert err.count("\n") == 1
    assert "empty.zarr is empty: it has no input yet; run a workflow into it first" in err
    code, found, _ = command(tmp_path / "empty.zarr", store, "--gallery", gallery)
    assert code == 1
    assert len(found["people"]) == 2
    assert len(found["unusable"]) == 1
    nothing = make_store(tmp_path / "n.zarr", {"lobby": film(LOBBY)}, workflow=drawn.document(), done_chunks=0)
    code, found, err = command(nothing, "--gallery", gallery)
    assert (code, found["inputs"][0]["share"]) == (0, 0.0)
    assert "lobby: nothing is done yet" in err


def test_films_without_faces(gallery: Path, tmp_path: Path, command: Command) -> None:
    out = make_store(tmp_path / "n.zarr", {"void": film({}, 10)}, workflow=drawn.document())
    code, found, _ = command(out, "--gallery", gallery, "--table", tmp_path / "t.parquet")
    assert (code, found["people"], found["inputs"][0]["faces"]) == (0, [], 0)
    assert identities(out, "void").tolist() == []


def test_a_locked_store_is_searched_and_not_written(store: Path, gallery: Path, command: Command) -> None:
    with RunStore.open(store):
        code, found, err = command(store, "--gallery", gallery)
    assert code == 0
    assert {one["written"] for one in found["inputs"]} == {"locked"}
    assert len(found["people"]) == 2
    assert "nothing is written: " in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gallery", "{people}", "--metric", "cosin"], "unknown metric 'cosin'; did you mean 'cosine'"),
        (["--gallery", "{tmp}/nowhere"], "there is no gallery at"),
        (["--gallery", "{people}", "--table", "t.xls"], "--table t.xls: unknown suffix '.xls'"),
        (["--gallery", "{people}", "--table", "{tmp}/file/t.csv"], "t.csv cannot be written: "),
        (["--gallery", "{people}", "--model", "ArcFace"], "are embedded with Dlib, not with ArcFace"),
        (["--gallery", "{people}", "--top-k", "2"], "--top-k is for the table"),
        ([], "whom to find? name one of --gallery DIR and --face FILE"),
    ],
    ids=str,
)
def test_mistakes_take_one_line(
    words: list[str], message: str, store: Path, gallery: Path, tmp_path: Path, command: Command
) -> None:
    (tmp_path / "file").touch()
    filled = [word.format(people=gallery, tmp=tmp_path) for word in words]
    code, found, err = command(store, *filled)
    assert (code, found) == (2, {})
    assert message in err
    assert err.count("\n") == 1
    assert "identity" not in pipeline.open(store).input("lobby").arrays


def test_a_gallery_travels_without_its_pictures(store: Path, gallery: Path, tmp_path: Path, command: Command) -> None:
    code, first, err = command(store, "--gallery", gallery, "--save-gallery", tmp_path / "g.npz")
    assert code == 0
    assert "g.npz: the gallery, 4 faces" in err
    shutil.rmtree(gallery)
    shutil.rmtree(tmp_path / "cache")
    _, again, _ = command(store, "--gallery", tmp_path / "g.npz")
    assert again["people"] == first["people"]
    other = make_store(tmp_path / "b.zarr", {"x": film(YARD)}, workflow=drawn.document("Facenet"))
    code, _, err = command(other, "--gallery", tmp_path / "g.npz")
    assert code == 2
    assert "was embedded with Dlib (align native), the faces of" in err
    assert "with Facenet (align native)" in err


def test_stores_of_several_models_each_get_their_own_vectors(
    store: Path, gallery: Path, tmp_path: Path, command: Command
) -> None:
    other = make_store(tmp_path / "b.zarr", {"x": film(YARD)}, workflow=drawn.document("Dlib", "deepface"))
    code, found, _ = command(store, other, "--gallery", gallery)
    assert code == 0
    assert found["people"][0]["inputs"] == 3
    code, _, err = command(store, other, "--gallery", gallery, "--save-gallery", tmp_path / "g.npz")
    assert code == 2
    assert "one file holds a gallery of one model" in err


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_the_table_has_the_nearest_people_of_every_face(
    suffix: str, store: Path, gallery: Path, tmp_path: Path
) -> None:
    path = tmp_path / f"t{suffix}"
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    find([store], gallery, top_k=2, table=path)
    rows = read_table(path)
    assert len(rows) == 2 * 38
    first, second = rows[0], rows[1]
    assert (first["input"], int(first["face"]), int(first["rank"]), first["name"]) == ("lobby", 0, 1, "Ann")
    assert (int(second["face"]), int(second["rank"])) == (0, 2)
    assert second["name"] != "Ann"
    assert float(first["distance"]) < 0.08 < float(second["distance"])
    assert [str(row["known"]).lower() for row in (first, second)] == ["true", "false"]
    assert (float(first["x"]), float(first["w"])) == (100.0, 60.0)
    late = rows[2 * 36]
    assert (late["input"], int(late["frame"]), float(late["time_seconds"])) == (
        "yard",
        3 * EVERY,
        pytest.approx(3 * STEP),
    )
    assert len(list(tmp_path.glob("*.partial"))) == 0


def read_table(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        with path.open() as file:
            return list(csv.DictReader(file))
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path).to_pylist()


def test_faces_without_an_embedding_are_nobody(gallery: Path, tmp_path: Path, command: Command) -> None:
    arrays = film(LOBBY)
    arrays["embedding"][5] = np.nan
    out = make_store(tmp_path / "a.zarr", {"lobby": arrays}, workflow=drawn.document())
    command(out, "--gallery", gallery, "--per", "face")
    found = pipeline.open(out).input("lobby").read(["identity", "distance"])
    assert found["identity"][5] == -1
    assert np.flatnonzero(np.isnan(found["distance"])).tolist() == [5]


def test_lines_for_people(store: Path, gallery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["find", str(store), "--gallery", str(gallery)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("Ann: 6.2 s on screen in 2 videos, 31 faces; sure, cosine 0.00")
    assert "(limit 0.0" in shown[0]
    assert shown[1].endswith("lobby: 6.0 s: 0:00:00.000-0:00:04.000, 0:00:20.000-0:00:22.000")
    assert "not seen: Eve" in shown
    assert shown[-1] == "38 faces of 2 inputs, 2 unknown; names and distances written to 2 inputs"


# -- as a stage of a workflow -----------------------------------------------------------------------------------------


def clip(path: Path, colours: dict[tuple[int, int, int], range], n_frames: int = 60) -> Path:
    """A clip in which each colour's face is on screen in a range of frames."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.codec_context.options = {"preset": "ultrafast", "crf": "10"}
        for number in range(n_frames):
            shown = [colour for colour, frames in colours.items() if number in frames]
            places = [(20 + 100 * k, 60, 60, 90) for k in range(len(shown))]
            picture = drawn.draw(*zip(shown, places, strict=True))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_as_a_stage_only_matching_is_done_again(gallery: Path, tmp_path: Path, command: Command) -> None:
    video = clip(tmp_path / "clip.mp4", {drawn.ANN: range(60), drawn.CY: range(20, 40)})
    stages = drawn.document()["stages"]
    stages["identify"] = {"use": "pipeline.faces.stages.identify:Identify", "gallery": str(gallery), "after": "embed"}
    flow = tmp_path / "flow.yaml"
    flow.write_text(json.dumps({"source": {"every": 5}, "stages": stages}))
    out = tmp_path / "out.zarr"
    run = pipeline.run(flow, video, out, executor="inline")
    item = run.input("clip")
    names = item.arrays["identity"].attributes["names"]
    assert [names[k] if k >= 0 else None for k in item.array("identity")[4:7]] == ["Ann", None, "Ann"]
    assert "identify" in run.summary.derived
    assert pipeline.run(flow, video, out, executor="inline").summary.derived == {}
    _, found, _ = command(out, "--gallery", gallery)
    assert found["inputs"][0]["written"] == "unchanged"

    drawn.write(gallery / "Cy.png", (drawn.CY, FACE))
    again = pipeline.run(flow, video, out, executor="inline")
    assert again.summary.chunks == 0
    assert set(again.summary.derived) == {"identify"}
    assert (again.input("clip").array("identity") >= 0).all()

    _, found, _ = command(out, "--gallery", gallery, "--threshold", 0.2)
    assert found["inputs"][0]["written"] == "written"
    assert "identify" in pipeline.run(flow, video, out, executor="inline").summary.derived


def test_a_stage_without_its_gallery_ends_before_work(tmp_path: Path) -> None:
    stages = drawn.document()["stages"]
    stages["identify"] = {"use": "pipeline.faces.stages.identify:Identify", "gallery": str(tmp_path / "no")}
    flow = tmp_path / "flow.yaml"
    flow.write_text(json.dumps({"stages": stages}))
    with pytest.raises(WorkflowError, match=r"identify\.gallery: there is no gallery at"):
        pipeline.run(flow, clip(tmp_path / "clip.mp4", {}, 3), tmp_path / "out.zarr", executor="inline")


def test_a_store_that_is_closed_meanwhile_is_read_again(
    gallery: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compacted between the first look and the last chunk: its chunks are gone, its arrays are there."""
    from pipeline.faces.people import find as module
    n_chunks = 4
    out = make_store(
        tmp_path / "h.zarr", {"lobby": film(LOBBY)}, workflow=drawn.document(), done_chunks=n_chunks, chunk_frames=50
    )
    named, calls = module.named, []

    def closing(item: Any, *rest: Any) -> Any:
        calls.append(item.complete)
        if not item.complete:
            assert len(item.pieces("embedding")) == n_chunks
            with RunStore.open(out) as store:
                close(store, "lobby", 200, chunk_frames=50)
        return named(item, *rest)

    monkeypatch.setattr(module, "named", closing)
    code, found, _ = command(out, "--gallery", gallery)
    assert (code, calls) == (0, [False])  # the reader itself reads again
    assert found["inputs"][0]["written"] == "written"
    assert found["people"][0]["faces"] == 30


def test_nothing_to_save_a_gallery_for(gallery: Path, tmp_path: Path, command: Command) -> None:
    RunStore.open(tmp_path / "empty.zarr").close()
    code, _, err = command(tmp_path / "empty.zarr", "--gallery", gallery, "--save-gallery", tmp_path / "g.npz")
    assert code == 2
    assert "is empty" in err
    assert not (tmp_path / "g.npz").exists()


def test_a_damaged_film_is_told_and_the_others_matched(store: Path, gallery: Path, command: Command) -> None:
    shard = store / "lobby" / "embedding" / "c" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-9])
    code, found, err = command(store, "--gallery", gallery)
    assert code == 1
    assert "array 'embedding' of 'lobby'" in err
    assert "is damaged" in err
    assert [one["input"] for one in found["inputs"]] == ["yard"]
    assert identities(store, "yard").tolist() == [0, -1]
    assert "identity" not in pipeline.open(store).input("lobby").arrays

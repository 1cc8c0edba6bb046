"""`reelgraph find --face`: somebody who was never named, by a photo or a moment of a video, exactly and by an index."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.cli import main
from pipeline.errors import InputError, UsageError
from pipeline.faces.people import search as searching
from pipeline.faces.people.around import tracks_around
from pipeline.faces.people.find import tracks_of
from pipeline.faces.people.matching import METRICS, Matcher, Metric
from pipeline.faces.people.search import Query, nearest_in
from pipeline.store.pieces import Piece
from pipeline.store.run import RunStore
from tests.made_stores import EVERY, FPS, faces_of, make_store
from tests.people import drawn
from tests.people.test_find import LOBBY, YARD, alike, clip, film

STEP = EVERY / FPS
FACE, OTHER = (100, 60, 60, 90), (220, 20, 40, 50)

Command = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REELGRAPH_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of stores, made once."""
    folder, workflow = tmp_path_factory.mktemp("made"), drawn.document()
    make_store(folder / "a.zarr", {"lobby": film(LOBBY), "yard": film(YARD)}, workflow=workflow)
    make_store(folder / "b.zarr", {"gate": film({drawn.CY: [0, 1, 2]})}, workflow=workflow)
    return folder


@pytest.fixture
def stores(made: Path, tmp_path: Path) -> list[Path]:
    return [shutil.copytree(made / name, tmp_path / name) for name in ("a.zarr", "b.zarr")]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return drawn.write(tmp_path / "ann.png", (drawn.ANN, FACE))


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*words: object) -> tuple[int, dict[str, Any], str]:
        capsys.readouterr()
        code = main([*map(str, words), "--json"])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else {}, err

    return run


# -- the exact search -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("top", [1, 7])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.7])
def test_it_finds_what_a_full_comparison_finds(metric: Metric, top: int, share: float) -> None:
    """All that are near enough, or at least the nearest; distances as DeepFace rounds them."""
    rng = np.random.default_rng(3)
    scale = 8.0 if metric == "euclidean" else 1.0
    faces = (rng.normal(0, 0.05, (500, 128)) + 0.06).astype(np.float32) * np.float32(scale)
    faces[17] = np.nan
    wanted = faces[[3, 99]] + rng.normal(0, 0.01, (2, 128)).astype(np.float32)
    truth = Matcher(wanted, metric).distances(faces).min(axis=1)
    threshold = float(np.nanquantile(truth, share)) - (1e-3 if share == 0 else 0)
    pieces = [Piece(k, min(k + 96, 500), lambda k=k: faces[k : k + 96]) for k in range(0, 500, 96)]
    found = nearest_in(pieces, Query(wanted, metric, threshold, top), 2)
    accepted = np.flatnonzero(truth <= threshold)
    order = np.argsort(np.where(np.isnan(truth), np.inf, truth), kind="stable")
    expected = accepted if len(accepted) >= top else np.sort(order[:top])
    assert found.rows.tolist() == expected.tolist()
    np.testing.assert_allclose(found.distance, truth[expected], atol=1e-9)


def test_it_says_where_when_and_how_long(stores: list[Path], photo: Path, command: Command) -> None:
    code, found, _ = command("find", *stores, "--face", photo)
    assert code == 0
    assert [(one["input"], one["faces"]) for one in found["sightings"]] == [("lobby", 30), ("yard", 1)]
    spans = [(one["start_seconds"], one["stop_seconds"]) for one in found["sightings"][0]["appearances"]]
    np.testing.assert_allclose(spans, [(0, 20 * STEP), (100 * STEP, 110 * STEP)])
    assert found["screen_seconds"] == pytest.approx(31 * STEP)
    assert [one["accepted"] for one in found["best"]] == [True] * 3  # one of each appearance
    distances = [one["distance"] for one in found["best"]]
    assert distances == sorted(distances)
    assert found["best"][0]["box"] == [100.0, 80.0, 60.0, 80.0]
    assert [one["share"] for one in found["inputs"]] == [1.0] * 3
    assert found["embedding_bytes"] == (36 + 2 + 3) * 128 * 4


def test_a_store_named_twice_is_searched_once(stores: list[Path], photo: Path, command: Command) -> None:
    _, once, _ = command("find", *stores, "--face", photo)
    _, twice, _ = command("find", *stores, f"{stores[0]}/../{stores[0].name}", "--face", photo)
    assert twice["screen_seconds"] == once["screen_seconds"]
    assert len(twice["sightings"]) == len(once["sightings"]) == 2


def test_nobody_is_near_enough(stores: list[Path], tmp_path: Path, command: Command, capsys: Any) -> None:
    eve = drawn.write(tmp_path / "eve.png", (drawn.EVE, FACE))
    code, found, _ = command("find", *stores, "--face", eve, "--top", 3)
    assert (code, found["sightings"]) == (0, [])
    assert [one["accepted"] for one in found["best"]] == [False] * 3
    assert all(one["distance"] > 0.08 for one in found["best"])
    limits = "no track within its limit (cosine 0.096 at most)", "no face within cosine 0.08"
    for per, limit in zip(("track", "face"), limits, strict=True):
        assert main(["find", *map(str, stores), "--face", str(eve), "--per", per]) == 0
        assert f"not seen: {limit}; the nearest (distance, time, box):" in capsys.readouterr().out


def test_lines_for_people(stores: list[Path], photo: Path, capsys: Any) -> None:
    assert main(["find", *map(str, stores), "--face", str(photo)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "seen for 6.2 s in 2 videos, 31 faces"
    assert shown[1].startswith("  sure, cosine 0.00")
    assert shown[1].endswith("lobby: 6.0 s: 0:00:00.000-0:00:04.000, 0:00:20.000-0:00:22.000")
    assert shown[3] == "best shots (distance, time, box):"
    assert shown[-1].startswith("41 faces of 3 inputs; searched in ")


def test_several_photos_count_as_one_person(stores: list[Path], photo: Path, tmp_path: Path, command: Command) -> None:
    bob = drawn.write(tmp_path / "bob.png", (drawn.BOB, FACE))
    _, found, err = command("find", *stores, "--face", photo, "--face", bob)
    assert found["sightings"][0]["faces"] == 35
    assert len(found["faces"]) == 2
    assert "do not look like one person; each is looked for alone" in err
    again = drawn.write(tmp_path / "again.png", (drawn.ANN, OTHER))
    _, found, err = command("find", *stores, "--face", photo, "--face", again)
    assert (found["sightings"][0]["faces"], err) == (30, "")


# -- how sure it is ---------------------------------------------------------------------------------------------------


def test_the_answer_says_how_sure_it_is(photo: Path, tmp_path: Path, command: Command, capsys: Any) -> None:
    """By track, with the limits that a gallery of this one person has; a weak one is a question."""
    films = {"near": alike(drawn.ANN, 0.05), "far": alike(drawn.ANN, 0.09), "off": alike(drawn.ANN, 0.12)}
    out = make_store(tmp_path / "a.zarr", films, workflow=drawn.document())
    _, found, _ = command("find", out, "--face", photo)
    ((seen,), (maybe,)) = found["sightings"], found["maybe"]
    assert (seen["input"], seen["level"], maybe["input"], maybe["level"]) == ("near", "sure", "far", "weak")
    assert (seen["distance"], maybe["distance"]) == pytest.approx((0.05, 0.09), abs=1e-4)
    assert seen["limit"] == maybe["limit"] == pytest.approx(0.0822, abs=1e-4), "one face, one picture, one person"
    assert [(one["level"], one["accepted"]) for one in found["best"]] == [("sure", True), ("weak", False)]
    assert found["screen_seconds"] == pytest.approx(20 * STEP)
    assert main(["find", str(out), "--face", str(photo)]) == 0
    shown = capsys.readouterr().out
    assert f"  sure, cosine 0.050 (limit 0.082): {out} near: 4.0 s" in shown
    assert "maybe, please look: seen for 4.0 s in 1 video, 20 faces" in shown
    assert f"  weak, cosine 0.090 (limit 0.082): {out} far: 4.0 s" in shown
    long = make_store(tmp_path / "b.zarr", {"long": alike(drawn.ANN, 0.075, 60)}, workflow=drawn.document())
    _, both, _ = command("find", long, out, "--face", photo)
    order = [(one["input"], one["level"]) for one in both["sightings"]]
    assert order == [("near", "sure"), ("long", "likely")], "sure ones first"
    folder = tmp_path / "known" / "Ann"
    drawn.write(folder / "1.png", (drawn.ANN, FACE))
    _, gallery, _ = command("find", out, "--gallery", folder.parent, "--no-write")
    for one, other in ((seen, gallery["people"][0]), (maybe, gallery["maybe"][0])):
        assert {name: one[name] for name in ("level", "distance", "limit", "faces")} == {
            name: other[name] for name in ("level", "distance", "limit", "faces")
        }
    for words, inputs in (
        (("--threshold", "0.1"), {"near", "far"}), (("--threshold", "0.04"), set()), (("--per", "face"), {"near"}),
        (("--per", "face", "--threshold", "0.13"), {"near", "far", "off"}),
    ):  # fmt: skip
        _, found, _ = command("find", out, "--face", photo, *words)
        assert ({one["input"] for one in found["sightings"]}, found["maybe"]) == (inputs, [])
    assert main(["find", str(out), "--face", str(photo), "--threshold", "0.04"]) == 0
    assert "not seen: no track within cosine 0.04; the nearest " in capsys.readouterr().out


def test_others_of_the_scene_of_the_picture_are_a_question(photo: Path, tmp_path: Path, command: Command) -> None:
    films = {"other": alike(drawn.ANN, 0.05), "again": alike(drawn.ANN, 0.015), "cut": alike(drawn.ANN, 0.002)}
    out = make_store(tmp_path / "a.zarr", films, workflow=drawn.document())
    wide = {"wide": alike(drawn.ANN, 0.05)}
    more = make_store(tmp_path / "b.zarr", wide, facts={"width": 1920, "height": 1080}, workflow=drawn.document())
    _, found, err = command("find", out, more, "--face", photo)
    assert {one["input"] for one in found["sightings"]} == {"again", "cut", "wide"}
    assert [one["input"] for one in found["maybe"]] == ["other"]
    assert "the picture is of the scene of " in err
    _, found, _ = command("find", out, more, "--face", photo, "--threshold", "0.06")
    assert len(found["sightings"]) == 4, "the user's word"


def test_a_moment_of_a_film_is_of_its_scene_though_the_film_is_in_no_store(tmp_path: Path, command: Command) -> None:
    """As after the person was forgotten: others of that camera must not take their place."""
    video = clip(tmp_path / "v.mp4", {drawn.ANN: range(30)}, 30)
    films = {"other": alike(drawn.ANN, 0.05), "again": alike(drawn.ANN, 0.035)}
    size = {"width": 320, "height": 240}
    out = make_store(tmp_path / "a.zarr", films, facts=size, workflow=drawn.document())
    _, found, err = command("find", out, "--face", video, "--time", "0.5")
    assert [one["input"] for one in found["sightings"]] == ["again"]
    assert [one["input"] for one in found["maybe"]] == ["other"]
    assert "the picture is of the scene of v. Everyone in that light" in err
    more = make_store(tmp_path / "b.zarr", films, workflow=drawn.document())
    _, found, err = command("find", more, "--face", video, "--time", "0.5")
    assert (len(found["sightings"]), err) == (2, ""), "films of another size"


def test_the_tracks_of_near_faces_are_those_of_the_whole_film(tmp_path: Path) -> None:
    """One face of a long track is near at first, and the others must be found before and after it."""
    import pipeline

    rng = np.random.default_rng(5)
    n_faces = np.zeros(3000, np.int64)
    present = [range(100, 900), range(1500, 1510), range(1515, 1540), range(1600, 1640), range(2990, 3000)]
    for some in present:
        n_faces[list(some)] += 1
    n_faces[2000:2100] += 2
    vectors = drawn.vector(drawn.ANN) + rng.normal(0, 0.004, (int(n_faces.sum()), drawn.DIMENSION))
    vectors[np.repeat(np.arange(3000), n_faces) > 1600] = drawn.vector(drawn.BOB)
    out = make_store(tmp_path / "a.zarr", {"lobby": faces_of(n_faces, vectors)}, workflow=drawn.document())
    item = pipeline.open(out).input("lobby")
    whole = tracks_of(item)
    starts = np.cumsum(n_faces) - n_faces
    for frames in ([500], [1503], [1530, 2050], [100, 2999], [1505, 1605]):
        rows = starts[frames]
        track = tracks_around(item, rows)
        assert (np.isin(whole, whole[rows]) == (track >= 0)).all()
        assert len(np.unique(track[track >= 0])) == len(np.unique(whole[rows])) == len(np.unique(track[rows]))


def test_stored_tracks_change_no_answer(stores: list[Path], photo: Path, tmp_path: Path, command: Command) -> None:
    _, before, _ = command("find", *stores, "--face", photo)
    drawn.write(tmp_path / "known" / "Eve" / "1.png", (drawn.EVE, FACE))
    command("find", *stores, "--gallery", tmp_path / "known")
    _, after, _ = command("find", *stores, "--face", photo)
    for name in ("sightings", "maybe", "best"):
        assert after[name] == before[name]


@pytest.mark.slow
def test_other_people_before_the_same_camera_are_not_named(data_dir: Path, tmp_path: Path, command: Command) -> None:
    """Three signers, one camera: each face alone is near to those of the other two as well."""
    videos = [data_dir / "videos" / f"asl_{name}.mkv" for name in ("A_again", "A_yes", "B_please", "D_night")]
    out = tmp_path / "a.zarr"
    assert main(["run", "faces", *map(str, videos), "--out", str(out), "--every", "15", "--executor", "inline"]) == 0
    _, found, _ = command("find", out, "--face", videos[0], "--time", "0.5")
    assert {one["input"] for one in found["sightings"]} == {"asl_A_again", "asl_A_yes"}
    assert {one["level"] for one in found["sightings"]} == {"sure"}
    _, alone, _ = command("find", out, "--face", videos[0], "--time", "0.5", "--per", "face")
    assert {one["input"][4] for one in alone["sightings"]} >= {"A", "B"}


def test_half_done_is_searched_as_far_as_it_is(tmp_path: Path, photo: Path, command: Command) -> None:
    half = make_store(tmp_path / "h.zarr", {"lobby": film(LOBBY)}, workflow=drawn.document(), done_chunks=1)
    _, found, err = command("find", half, "--face", photo)
    assert "lobby: 32% is done and was searched" in err
    assert found["sightings"][0]["faces"] == 20
    assert found["inputs"][0]["share"] == 0.32


def damage(store: Path) -> None:
    shard = store / "lobby" / "embedding" / "c" / "0" / "0"
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 0xFF
    shard.write_bytes(bytes(content))


def test_a_damaged_film_is_told_and_the_others_searched(stores: list[Path], photo: Path, command: Command) -> None:
    damage(stores[0])
    code, found, err = command("find", *stores, "--face", photo)
    assert code == 1
    assert "lobby/embedding/c/0/0 is damaged" in err
    assert len(found["unusable"]) == 1
    assert [one["input"] for one in found["sightings"]] == ["yard"]
    (stores[0] / "yard" / "embedding" / "c" / "0" / "0").unlink()
    with pytest.raises(InputError, match="lobby/embedding/c/0/0 is damaged"):
        searching.search(stores[:1], [searching.Question(str(photo))])


# -- the question -----------------------------------------------------------------------------------------------------


def test_of_several_faces_the_largest_or_the_one_in_the_box(
    stores: list[Path], tmp_path: Path, command: Command
) -> None:
    both = drawn.write(tmp_path / "both.png", (drawn.ANN, FACE), (drawn.BOB, OTHER))
    _, found, err = command("find", *stores, "--face", both)
    assert f"{both}: 2 faces, the largest is used: 100,60,60,90; choose another with --box: 220,20,40,50" in err
    assert found["sightings"][0]["faces"] == 30
    _, found, err = command("find", *stores, "--face", both, "--box", "230,30,40,40")
    assert err == ""
    assert found["faces"][0]["box"] == [220.0, 20.0, 40.0, 50.0]
    assert found["sightings"][0]["faces"] == 5


def test_a_moment_of_a_video(stores: list[Path], tmp_path: Path, command: Command) -> None:
    video = clip(tmp_path / "v.mp4", {drawn.ANN: range(30), drawn.BOB: range(30, 60)})
    _, found, _ = command("find", *stores, "--face", video, "--time", "0:00:01")
    assert found["sightings"][0]["faces"] == 30
    _, found, _ = command("find", *stores, "--face", video, "--time", "1.2")  # frame 30, the first of Bob
    assert found["sightings"][0]["faces"] == 5
    assert found["faces"][0]["time_seconds"] == 1.2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--face", "{tmp}/no.jpg"], "there is no picture or video at"),
        (["--face", "{tmp}"], "is a folder; name a picture of the person, or look for all by --gallery"),
        (["--face", "{tmp}/nobody.png"], "nobody.png: no face found"),
        (["--face", "{tmp}/broken.jpg"], "broken.jpg is not a picture that OpenCV can read"),
        (["--face", "{photo}", "--time", "3"], "is a picture: --time is for videos"),
        (["--face", "{video}"], "is a video: say which moment of it"),
        (["--face", "{video}", "--time", "9"], "no frame at 0:00:09.000; its frames lie from 0:00:00.000 to 0:00:00.4"),
        (["--face", "{video}", "--time", "soon"], "'soon' is not a time"),
        (["--face", "{tmp}/broken.mp4", "--time", "1"], "broken.mp4"),
        (["--face", "{photo}", "--box", "0,0,20,20"], "no face in the box 0,0,20,20; there are: 100,60,60,90"),
        (["--face", "{photo}", "--box", "900,900,20,20"], "no face in the box 900,900,20,20"),
        (["--face", "{photo}", "--box", "1,2,3"], "'1,2,3' is not a box"),
        (["--face", "{photo}", "--box", "1,2,0,4"], "width and height must be more than 0"),
        (["--face", "{photo}", "--face", "{photo}", "--box", "1,2,3,4"], "--box goes with a single --face: here are 2"),
        (["--face", "{photo}", "--gallery", "{tmp}"], "name one of --gallery DIR and --face FILE"),
        (["--face", "{photo}", "--table", "t.csv"], "--table does not go with --face"),
        (["--face", "{photo}", "--metric", "l3"], "unknown metric 'l3'"),
        (["--face", "{photo}", "--threshold", "-1"], "--threshold -1 must be more than 0"),
        (["--face", "{photo}", "--probes", "2"], "--probes is for an index"),
        (["--face", "{photo}", "--index", "{tmp}/no.index"], "no.index is not an index of reelgraph; make one"),
        (["--face", "{photo}", "--model", "ArcFace"], "are embedded with Dlib, not with ArcFace"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_mistakes_take_one_line(
    words: list[str], message: str, stores: list[Path], photo: Path, tmp_path: Path, command: Command
) -> None:
    drawn.write(tmp_path / "nobody.png")
    for name in ("broken.jpg", "broken.mp4"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
    video = clip(tmp_path / "v.mp4", {drawn.ANN: range(10)}, 10) if "{video}" in words else ""
    code, found, err = command(
        "find", *stores, *(word.format(tmp=tmp_path, photo=photo, video=video) for word in words)
    )
    assert (code, found) == (2, {})
    assert message in err
    assert err.count("\n") == 1


def test_stores_that_cannot_be_searched(stores: list[Path], photo: Path, tmp_path: Path, command: Command) -> None:
    RunStore.open(tmp_path / "empty.zarr").close()
    code, _, err = command("find", tmp_path / "empty.zarr", "--face", photo)
    assert (code, err.count("\n")) == (2, 1)
    assert "is empty: it has no input yet" in err
    code, found, _ = command("find", tmp_path / "empty.zarr", tmp_path / "nowhere.zarr", *stores, "--face", photo)
    assert (code, len(found["unusable"]), len(found["sightings"])) == (1, 2, 2)


# -- best shots -------------------------------------------------------------------------------------------------------


def test_best_shots_are_cut_out_of_the_videos(tmp_path: Path, photo: Path, command: Command) -> None:
    from pipeline.files.fingerprint import fingerprint

    video = clip(tmp_path / "lobby.mp4", {drawn.ANN: range(0, 1000)}, 200)
    facts = {"fingerprint": fingerprint(video)}
    arrays = film({drawn.ANN: [0, 20]}, 40)
    arrays["box"][:] = (20, 60, 60, 90)
    out = make_store(
        tmp_path / "a.zarr", {"lobby": arrays}, workflow=drawn.document(), paths={"lobby": video}, facts=facts
    )
    _, found, _ = command("find", out, "--face", photo, "--shots", tmp_path / "shots")
    assert len(found["shots"]) == len(found["best"]) == 2
    names = [Path(path).name for path in found["shots"]]
    assert {name.split("_", 1)[1] for name in names} == {"lobby_0.000s.jpg", "lobby_4.000s.jpg"}
    picture = cv2.imread(found["shots"][0])
    assert picture.shape == (90 + 2 * 36, 20 + 60 + 24, 3)  # the box and 0.4 of it around, cut at the left edge
    assert picture[80, 50].tolist() == pytest.approx([0, 0, 192], abs=12)
    assert picture[2, 2].max() < 30

    video.write_bytes(video.read_bytes() + b"more")
    _, found, err = command("find", out, "--face", photo, "--shots", tmp_path / "shots")
    assert found["shots"] == []
    assert "lobby.mp4: the video has changed since it was analysed; its faces are not cut out" in err
    video.unlink()
    _, found, err = command("find", out, "--face", photo, "--shots", tmp_path / "shots")
    assert "lobby.mp4: the video is missing; its faces are not cut out" in err
    code, _, err = command("find", out, "--face", photo, "--shots", photo)
    assert code == 2
    assert "cannot write to" in err


# -- the index --------------------------------------------------------------------------------------------------------


@pytest.fixture
def index(stores: list[Path], tmp_path: Path, command: Command) -> Path:
    pytest.importorskip("faiss")
    code, made, _ = command("index", *stores, "--out", tmp_path / "faces.index")
    assert (code, made["faces"], len(made["entries"])) == (0, 41, 3)
    return tmp_path / "faces.index"


def test_the_index_gives_the_exact_answer(stores: list[Path], index: Path, photo: Path, command: Command) -> None:
    _, exact, _ = command("find", *stores, "--face", photo)
    for outs in (stores, []):
        code, found, err = command("find", *outs, "--face", photo, "--index", index)
        assert (code, err) == (0, "")
        assert {one["how"] for one in found["inputs"]} == {"index"}
        assert found["sightings"] == [{**one, "out": found["sightings"][0]["out"]} for one in exact["sightings"]]
        assert [one["distance"] for one in found["best"]] == [one["distance"] for one in exact["best"]]
        assert found["embedding_bytes"] == 0


def test_what_the_index_does_not_hold_is_searched_exactly(
    stores: list[Path], index: Path, photo: Path, tmp_path: Path, command: Command
) -> None:
    new = make_store(tmp_path / "new.zarr", {"roof": film({drawn.ANN: [7]})}, workflow=drawn.document())
    with RunStore.open(stores[0]) as store:
        store.input("yard").update(fingerprint="another")
    _, found, err = command("find", *stores, new, "--face", photo, "--index", index)
    assert "yard: it has changed since the index was made; run reelgraph index again; searched exactly" in err
    assert "roof: it is not in the index; run reelgraph index again; searched exactly" in err
    assert {one["input"]: one["how"] for one in found["inputs"]} == {
        "lobby": "index", "yard": "exact", "gate": "index", "roof": "exact",
    }  # fmt: skip
    assert {one["input"] for one in found["sightings"]} == {"lobby", "yard", "roof"}
    _, found, err = command("find", *stores, "--face", photo, "--index", index, "--metric", "euclidean")
    assert "the index holds directions" in err
    assert {one["how"] for one in found["inputs"]} == {"exact"}


def test_an_index_in_many_blocks_and_lists(tmp_path: Path) -> None:
    """Built a little at a time it nominates nearly all that an exact search finds; probing more lists all of them."""
    pytest.importorskip("faiss")
    import pipeline
    from pipeline.faces.people.index import FaceIndex, build
    from tests.made_stores import faces_of, people

    vectors = people(300, 20)
    films = {str(k): faces_of(np.full(1000, 2), vectors[k::3].reshape(-1, 128)) for k in range(3)}
    films["0"]["embedding"][5] = np.nan
    out = make_store(tmp_path / "a.zarr", films, workflow=drawn.document())
    facts = build([out], tmp_path / "i", lists=16, block_faces=700)
    assert (facts.faces, facts.lists) == (6000, 16)
    asked = [vectors[k, :1] + np.random.default_rng(k).normal(0, 0.01, (1, 128)) for k in range(0, 300, 25)]
    recall = []
    for probes in (1, 16):
        index, hit, wanted = FaceIndex(tmp_path / "i", probes), 0, 0
        for one in asked:
            query = Query(one.astype(np.float32), "cosine", 0.08, 5)
            for item in pipeline.open(out).inputs.values():
                exact = nearest_in(item.pieces("embedding"), query, 1)
                exact_rows = set(exact.rows[exact.distance <= 0.08].tolist())
                found, reason = index.lookup(item, query)
                assert found is not None, reason
                hit += len(exact_rows & set(found.rows.tolist()))
                wanted += len(exact_rows)
                for row, distance in zip(found.rows, found.distance, strict=True):
                    if int(row) in exact_rows:
                        assert distance == pytest.approx(
                            float(exact.distance[exact.rows.tolist().index(row)]), abs=1e-9
                        )
        recall.append(hit / wanted)
    assert recall[0] > 0.9
    assert recall[1] == 1.0


def test_an_index_is_replaced_whole_or_not_at_all(
    stores: list[Path], index: Path, photo: Path, tmp_path: Path, command: Command
) -> None:
    code, made, _ = command("index", stores[0], "--out", index)
    assert (code, made["faces"]) == (0, 38)
    assert [path.name for path in tmp_path.glob("*.partial")] == []
    code, _, err = command("index", *stores, "--out", tmp_path)
    assert code == 2
    assert "is not an index of reelgraph" in err
    assert photo.exists()
    assert [path.name for path in tmp_path.parent.glob("*.partial")] == []
    facts = index / "index.json"
    facts.write_text(facts.read_text()[:-5])
    code, _, err = command("find", *stores, "--face", photo, "--index", index)
    assert code == 2
    assert "is damaged" in err


def test_what_cannot_be_indexed(stores: list[Path], tmp_path: Path, command: Command) -> None:
    pytest.importorskip("faiss")
    half = make_store(tmp_path / "h.zarr", {"lobby": film(LOBBY)}, workflow=drawn.document(), done_chunks=1)
    code, _, err = command("index", half, "--out", tmp_path / "i")
    assert code == 2
    assert "lobby: not complete, left out" in err
    assert "there is no complete input to index" in err
    other = make_store(tmp_path / "o.zarr", {"x": film(YARD)}, workflow=drawn.document("Facenet"))
    code, _, err = command("index", *stores, other, "--out", tmp_path / "i")
    assert code == 2
    assert "Dlib (align native" in err
    assert "Facenet (align native" in err


def test_without_faiss_one_line_says_so(stores: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from pipeline.faces.people.index import build

    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UsageError, match=r"an index needs faiss: pip install 'faiss-cpu>=1\.8'"):
        build(stores, tmp_path / "i")


def test_long_searches_say_how_far_they_are(stores: list[Path], photo: Path, capsys: Any) -> None:
    from pipeline.views.progress import NowAndThen

    looked: list[int] = []
    searching.search(stores, [searching.Question(str(photo))], looked=looked.append)
    assert looked == [36, 38, 41]
    often, seldom = NowAndThen("faces", 0.0), NowAndThen("faces", 60.0)
    for progress in (often, seldom):
        progress(3)
        progress(4, 9)
    assert capsys.readouterr().err == "3 faces\n4 of 9 faces\n"

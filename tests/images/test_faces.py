"""Faces of photographs: people, names, reports and copies of them, as of films, with names of pictures for times."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import pipeline
import pipeline.deepface
from pipeline.cli import main
from pipeline.errors import UsageError, WorkflowError
from pipeline.faces.people import evidence
from pipeline.faces.people.moments import Moments
from pipeline.faces.views.annotate import Wanted, annotate
from pipeline.media.reread import reread
from pipeline.views.export import export
from pipeline.views.progress import Tally
from tests.docs import Reader

IMAGES = {"source.kind": "images"}
LFW = "lfw/{0}/{0}_000{1}.jpg"
PHOTOS = {
    **{f"bush/{k}.jpg": LFW.format("George_W_Bush", k) for k in (1, 2, 3)},
    **{f"powell/{k}.jpg": LFW.format("Colin_Powell", k) for k in (1, 2, 3)},
    "both.jpg": "face_recognition_multi/obama_and_biden.jpg",
    "biden.jpg": "face_recognition/biden/biden.jpg",
    "obama.jpg": "face_recognition/obama/obama.jpg",
    "no_face.jpg": "groups/no-faces.jpg",
}
"""Photographs by their names in the folder, and where they come from."""
NAMES = ["biden.jpg", "both.jpg", "broken.jpg", "no_face.jpg", "obama.jpg", *sorted(PHOTOS)[2:5], *sorted(PHOTOS)[7:]]
BUSHES, POWELLS = NAMES[5:8], NAMES[8:]

Told = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def faces_dir(data_dir: Path) -> Path:
    if not (data_dir / "faces").is_dir():
        pytest.skip(f"no test data at {data_dir / 'faces'}")
    return data_dir / "faces"


@pytest.fixture(scope="module")
def made(faces_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ten photographs, one of them without a face, and a file that is no picture; and their store."""
    place = tmp_path_factory.mktemp("photos")
    for name, source in PHOTOS.items():
        (place / "album" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(faces_dir / source, place / "album" / name)
    (place / "album" / "broken.jpg").write_bytes(b"no picture")
    pipeline.run("people", place / "album", place / "p.zarr", set=IMAGES, executor="inline")
    return place


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "p.zarr", tmp_path / "p.zarr"))


@pytest.fixture
def gallery(faces_dir: Path, tmp_path: Path) -> Path:
    for name, source in {"Bush": PHOTOS["bush/1.jpg"], "Obama": "face_recognition/obama/obama1.jpg"}.items():
        (tmp_path / "known" / name).mkdir(parents=True)
        shutil.copy(faces_dir / source, tmp_path / "known" / name)
    return tmp_path / "known"


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    """Run a command; return its JSON."""

    def run(*words: str | Path) -> dict[str, Any]:
        capsys.readouterr()
        assert main([*map(str, words), "--json"]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return run


def refused(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """Run a command that ends with 2; return what it says."""
    capsys.readouterr()
    assert main([*map(str, words)]) == 2
    return capsys.readouterr().err


def test_faces_are_those_of_deepface_on_the_same_file(made: Path, tmp_path: Path) -> None:
    options = {**IMAGES, "detect.align": "deepface", "embed.align": "deepface"}
    pipeline.run("faces", made / "album", tmp_path / "d.zarr", set=options, executor="inline")
    item = pipeline.open(tmp_path / "d.zarr").input("album")
    arrays = item.read(["name", "face_frame", "box", "embedding"])
    for picture in ("both.jpg", "bush/1.jpg"):
        path = str(made / "album" / picture)
        ((_, given),) = pipeline.deepface.represent(path, model_name="Dlib", detector_backend="mtcnn")
        rows = np.flatnonzero(arrays["name"][arrays["face_frame"]] == picture)
        boxes = {tuple(arrays["box"][row].astype(int).tolist()): arrays["embedding"][row] for row in rows}
        assert len(given) == len(rows) > 0
        for face in given:
            area = face["facial_area"]
            ours = boxes[area["x"], area["y"], area["w"], area["h"]]
            assert ours == pytest.approx(np.array(face["embedding"]), abs=1e-5)


def test_each_face_is_a_track_of_its_own(made: Path) -> None:
    item = pipeline.open(made / "p.zarr").input("album")
    arrays = item.read(["name", "decoded", "error", "n_faces", "track"])
    assert arrays["name"].tolist() == NAMES
    assert arrays["decoded"].tolist() == [name != "broken.jpg" for name in NAMES]
    assert arrays["track"].tolist() == list(range(arrays["n_faces"].sum()))
    faces = dict(zip(NAMES, arrays["n_faces"].tolist(), strict=True))
    assert [faces[name] for name in ("broken.jpg", "no_face.jpg", "bush/1.jpg", "obama.jpg")] == [0, 0, 1, 1]
    table = pipeline.open(made / "p.zarr").faces()
    assert "time_seconds" not in table
    assert table["name"].iloc[0] == "biden.jpg"


def test_people_have_pictures_for_times(store: Path, told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    found = told("people", store)
    pictures = {tuple(one["name"] for one in person["appearances"]) for person in found["people"]}
    assert {tuple(BUSHES), tuple(POWELLS), ("biden.jpg", "both.jpg"), ("both.jpg", "obama.jpg")} <= pictures
    for person in found["people"]:
        assert person["screen_seconds"] is None
        assert person["pictures"] == len(person["appearances"])
        for one in person["appearances"]:
            assert (one["start_seconds"], one["stop_seconds"], one["screen_seconds"], one["frames"]) == (*[None] * 3, 1)
        assert person["best"]["time_seconds"] is None
        assert person["best"]["name"] in NAMES
    assert main(["people", str(store)]) == 0
    shown = capsys.readouterr().out
    assert [text in shown for text in ("pictures", "powell/", "on screen", "0:00")] == [True, True, False, False]
    item = pipeline.open(store).input("album")
    assert len(item.array("thumbnail")) == sum(min(3, len(person["appearances"])) for person in found["people"])


def test_people_of_one_picture_are_two(store: Path, told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    people = told("people", store)["people"]
    both = [one["id"] for one in people if "both.jpg" in {each["name"] for each in one["appearances"]}]
    said = refused(capsys, "people", "merge", *map(str, both), "--registry", store.parent / "people.json")
    assert "album at both.jpg" in said


def test_a_split_holds_when_pictures_are_removed(made: Path, tmp_path: Path, told: Told) -> None:
    album, store = Path(shutil.copytree(made / "album", tmp_path / "album")), tmp_path / "s.zarr"
    pipeline.run("people", album, store, set=IMAGES, executor="inline")
    registry = tmp_path / "people.json"
    bush = next(one for one in told("people", store)["people"] if one["best"]["name"] in BUSHES)
    item = pipeline.open(store).input("album")
    track = int(item.array("track")[item.array("name")[item.array("face_frame")] == BUSHES[2]][0])
    new = told("people", "split", bush["id"], f"album:{track}", "--registry", registry)["new"]
    (album / "biden.jpg").unlink()
    assert main(["run", "people", str(album), "--images", "--out", str(store), "--executor", "inline", "--prune"]) == 0
    again = {one["id"]: [each["name"] for each in one["appearances"]] for one in told("people", store)["people"]}
    assert again[new[0]] == BUSHES[2:]
    assert again[bush["id"]] == BUSHES[:2]


def test_known_people_are_named_and_strangers_are_not(store: Path, gallery: Path, told: Told, tmp_path: Path) -> None:
    """The gallery has a photograph of the folder itself: the folder is not all of that photograph's scene."""
    found = told("find", store, "--gallery", gallery, "--table", tmp_path / "t.csv")
    seen = {
        one["name"]: [each["best"]["name"] for each in one["sightings"][0]["appearances"]] for one in found["people"]
    }
    assert seen == {"Bush": BUSHES, "Obama": ["both.jpg", "obama.jpg"]}
    assert [(one["pictures"], one["screen_seconds"]) for one in found["people"]] == [(3, None), (2, None)]
    assert found["maybe"] == []
    with (tmp_path / "t.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["photo"] for row in rows if row["known"] == "true"} == {*BUSHES, "both.jpg", "obama.jpg"}
    assert {row["time_seconds"] for row in rows} == {""}


def test_one_face_is_found_with_the_names_of_its_pictures(store: Path, made: Path, told: Told, tmp_path: Path) -> None:
    found = told("find", store, "--face", made / "album" / "biden.jpg", "--shots", tmp_path / "shots")
    assert [(one["name"], one["time_seconds"]) for one in found["best"]] == [("biden.jpg", None), ("both.jpg", None)]
    assert (found["pictures"], found["screen_seconds"]) == (2, None)
    assert sorted(path.name for path in (tmp_path / "shots").iterdir()) == ["01_album_biden.jpg", "02_album_both.jpg"]


def test_a_report_has_no_timeline(store: Path, told: Told, gallery: Path) -> None:
    told("people", store)
    told("report", store)
    page = (store.parent / "p.html").read_text()
    assert 'id="timeline"' not in page
    assert "on screen" not in page.split("<script")[0]
    for text in ("3 pictures", "broken.jpg", "not a picture", "1.jpg, 2.jpg, 3.jpg", "data:image/jpeg"):
        assert text in page, text


def test_coco_has_each_key_once(store: Path, tmp_path: Path) -> None:
    """Width and height of a picture are values of the store too."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs), pairs
        return dict(pairs)

    assert main(["export", str(store), "--to", str(tmp_path / "f.json"), "--all-frames"]) == 0
    images = json.loads((tmp_path / "f.json").read_text(), object_pairs_hook=once)["images"]
    sizes = {one["file_name"]: (one["width"], one["height"]) for one in images}
    assert (len(sizes), sizes["bush/1.jpg"]) == (len(NAMES), (250, 250))


@pytest.mark.parametrize("blurred", [False, True])
def test_copies_of_pictures_have_boxes_or_blurred_faces(store: Path, made: Path, tmp_path: Path, blurred: bool) -> None:
    (result,) = annotate([store], target=tmp_path / "out", wanted=Wanted(blur=("all",) if blurred else ()))
    assert (result.frames, result.lost_frames) == (10, 1)
    written = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")}
    assert written == set(PHOTOS)
    before, after = (cv2.imread(str(place / "bush/1.jpg")).astype(int) for place in (made / "album", tmp_path / "out"))
    assert before.shape == after.shape
    item = pipeline.open(store).input("album")
    row = int(np.flatnonzero(item.array("name")[item.array("face_frame")] == "bush/1.jpg")[0])
    x, y, w, h = item.array("box")[row].astype(int)
    changed = np.abs(before - after).mean(axis=2)
    inside = changed[y : y + h, x : x + w]
    assert (inside.mean() > 10) == blurred, "a box leaves the face as it is"
    assert changed[y : y + h, x - 1 : x + 2].max() > 50
    assert changed[-20:, -20:].mean() < 5, "far from the face only JPEG changes something"
    with pytest.raises(UsageError, match="holds files already"):
        annotate([store], target=tmp_path / "out")
    tally = Tally()
    annotate([store], target=tmp_path / "out", force=True, progress=tally)
    export(store, tmp_path / "faces.csv", progress=(exported := Tally()))
    assert (tally.item, exported.item) == ("picture", "picture")


def test_each_picture_has_a_copy_of_its_own(tmp_path: Path) -> None:
    """Two copies may want one name: `a.webp` becomes `a.png`. So may pictures of a later part, or above a list."""
    photos = tmp_path / "above" / "photos"
    photos.mkdir(parents=True)
    shades = dict(zip(["a.bmp", "a.png", "a.webp", "b.jpg", "b.webp", "../b.jpg"], range(0, 240, 40), strict=True))
    lists = photos / "list.txt"
    for name, shade in shades.items():
        Image.new("RGB", (32, 32), (shade,) * 3).save(photos / name)
    lists.write_text("a.bmp\na.webp\nb.jpg\nb.webp\n")
    workflow = tmp_path / "w.yaml"
    workflow.write_text("source: {kind: images}\nstages: {detect: {use: detect, min_face: 30}}\n")
    for _ in range(2):
        pipeline.run(workflow, lists, tmp_path / "n.zarr", executor="inline")
        lists.write_text("a.bmp\na.webp\nb.jpg\nb.webp\na.png\n../b.jpg\n")
    annotate([tmp_path / "n.zarr"], target=tmp_path / "out")
    written = {path.name: round(int(cv2.imread(str(path))[9, 9, 0]), -1) for path in (tmp_path / "out").iterdir()}
    expected = {"a.bmp.png": 0, "a.png": 40, "a.webp.png": 80, "b.jpg": 120, "b.png": 160, "b-2.jpg": 200}
    assert written == expected


@pytest.mark.parametrize("target", [".", "copies", "../album"])
def test_copies_never_go_to_the_pictures_themselves(store: Path, made: Path, target: str) -> None:
    with pytest.raises(UsageError, match="in the folder of the pictures themselves"):
        annotate([store], target=made / "album" / target, force=True)


def test_a_listed_picture_is_never_replaced(made: Path, tmp_path: Path) -> None:
    """Names of a list may lie anywhere: also where the copies go."""
    out = tmp_path / "out"
    out.mkdir()
    shutil.copy(made / "album" / "bush/1.jpg", out / "a.jpg")
    (tmp_path / "list.txt").write_text("out/a.jpg\n")
    pipeline.run("faces", tmp_path / "list.txt", tmp_path / "l.zarr", set=IMAGES, executor="inline")
    content = (out / "a.jpg").read_bytes()
    with pytest.raises(UsageError, match="one of the pictures themselves"):
        annotate([tmp_path / "l.zarr"], target=tmp_path, force=True)
    assert (out / "a.jpg").read_bytes() == content


def test_each_copy_has_a_file_of_its_own(tmp_path: Path) -> None:
    """A copy in another format may want the name of another picture; so do names that differ by a `..`."""
    grey = {"a.bmp": 10, "a.png": 60, "a.webp": 110, "b/a.jpg": 160, "../b/a.jpg": 210}
    for name, level in grey.items():
        (tmp_path / "album" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "album" / name), np.full((40, 40, 3), level, np.uint8))
    (tmp_path / "album" / "list.txt").write_text("\n".join(grey))
    pipeline.run("faces", tmp_path / "album" / "list.txt", tmp_path / "p.zarr", set=IMAGES, executor="inline")
    (result,) = annotate([tmp_path / "p.zarr"], target=tmp_path / "out")
    assert (result.frames, result.lost_frames) == (5, 0)
    written = {
        str(path.relative_to(tmp_path / "out")): round(float(cv2.imread(str(path)).mean()))
        for path in (tmp_path / "out").rglob("*.*")
    }
    assert written == {
        "a.png": 60, "a.bmp.png": 10, "a.webp.png": 110, "b/a.jpg": 160, "b/a-2.jpg": 210,
    }  # fmt: skip


def test_what_needs_a_film_says_so(store: Path, told: Told, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    told("people", store)
    said = refused(capsys, "export", store, "--to", tmp_path / "x.json", "--images", tmp_path / "frames")
    assert "has pictures already" in said
    assert not (tmp_path / "frames").exists()
    for ending in ("vtt", "srt", "ffmetadata", "edl", "fcpxml", "otio", "mot"):
        said = refused(capsys, "export", store, "--to", tmp_path / f"x.{ending}")
        assert f"'album' holds pictures, and format {ending} needs a film" in said
    assert "clips need a film" in refused(capsys, "clips", store, "--person", "1")
    assert "times of films" in refused(capsys, "annotate", store, "--start", "1")
    assert "pictures need a folder" in refused(capsys, "annotate", store, "--out", tmp_path / "x.mp4")


def test_forget_and_verify(store: Path, told: Told) -> None:
    people = told("people", store)["people"]
    bush = next(one["id"] for one in people if one["best"]["name"] in BUSHES)
    told("forget", store, "--person", bush, "--yes")
    item = pipeline.open(store).input("album")
    assert item.array("n_faces")[[NAMES.index(name) for name in BUSHES]].tolist() == [0, 0, 0]
    assert bush not in {one["id"] for one in told("people", store)["people"]}
    assert told("verify", store)["flaws"] == []
    assert told("status", store)["done_share"] == 1


def test_a_folder_that_grew(made: Path, faces_dir: Path, tmp_path: Path, told: Told) -> None:
    album, store = tmp_path / "album", tmp_path / "p.zarr"
    shutil.copytree(made / "album", album)
    pipeline.run("people", album, store, set=IMAGES, executor="inline")
    ids = {one["best"]["name"]: one["id"] for one in told("people", store)["people"]}
    shutil.copy(faces_dir / LFW.format("Colin_Powell", 4), album / "late.jpg")
    pipeline.run("people", album, store, set=IMAGES, executor="inline")
    powell = next(one for one in told("people", store)["people"] if one["pictures"] == 4)
    assert powell["id"] in {ids.get(name) for name in POWELLS}
    assert powell["inputs"] == ["album", "album-2"]
    made_of = annotate([store], target=tmp_path / "out")
    assert [Path(one.file) for one in made_of] == [tmp_path / "out"] * 2
    assert (tmp_path / "out" / "late.jpg").is_file()


def test_pictures_are_read_again_whole_whatever_size_the_run_saw(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.zarr"
    pipeline.run("faces", made / "album", out, set={**IMAGES, "source.longest": 100}, executor="inline")
    item = pipeline.open(out).input("album")
    again = reread(item)
    picture = again.one(NAMES.index("bush/1.jpg"))
    assert picture is not None
    assert picture.shape == (250, 250, 3)
    assert again.one(NAMES.index("broken.jpg")) is None
    row = int(np.flatnonzero(item.array("name")[item.array("face_frame")] == "bush/1.jpg")[0])
    x, _, width, _ = item.array("box")[row]
    assert 60 < x + width / 2 < 190, "boxes are in pixels of the whole picture"
    assert width > 50


def test_a_picture_that_was_replaced_is_not_shown(made: Path, tmp_path: Path) -> None:
    album, out = Path(shutil.copytree(made / "album", tmp_path / "album")), tmp_path / "p.zarr"
    pipeline.run("faces", album, out, set=IMAGES, executor="inline")
    shutil.copy(album / "powell/1.jpg", album / "bush/1.jpg")  # of the same width and height
    item = pipeline.open(out).input("album")
    assert reread(item).one(NAMES.index("bush/1.jpg")) is None
    assert Moments(item).names(np.array([1, 0])) == ["both.jpg", "biden.jpg"]


def test_the_flag_and_the_errors(made: Path, tmp_path: Path, told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "films").mkdir()
    for name in ("a.mp4", "b.mkv"):
        (tmp_path / "films" / name).touch()
    said = refused(capsys, "plan", "faces", made / "album", "--out", tmp_path / "x.zarr")
    assert "but 11 pictures: add --images" in said
    assert main(["plan", "faces", str(tmp_path / "films"), "--images", "--out", str(tmp_path / "x.zarr")]) == 2
    assert "but 2 videos: leave out --images" in capsys.readouterr().out
    assert told("plan", "faces", made / "album", "--images", "--out", tmp_path / "x.zarr")["inputs"][0]["frames"] == 11
    with pytest.raises(WorkflowError, match="needs the times of frames, and source 'images' has none"):
        pipeline.run("faces", made / "album", tmp_path / "x.zarr", set={**IMAGES, "embed.per": "track"})


@pytest.mark.slow
def test_the_page_is_followed(
    made: Path, gallery: Path, faces_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    shutil.copytree(made / "album", tmp_path / "photos")
    shutil.copy(faces_dir / "face_recognition/biden/biden2.jpg", tmp_path / "face.jpg")
    reader = Reader(tmp_path, monkeypatch)
    assert reader.follow(repository / "docs" / "pictures.md") == 10
    reader.leave()
    assert len(list((tmp_path / "shots").iterdir())) == 2
    assert {path.name for path in (tmp_path / "blurred").iterdir()} >= {"both.jpg", "bush", "powell"}


def test_only_faces_of_one_picture_are_of_one_scene() -> None:
    """One track shows the very picture of the gallery. The other is weak in that scene, and a fair match elsewhere."""
    known = evidence.UNIT
    person = evidence.Means(np.array([[1.0, 0.0]]), np.ones(1))
    limit = float(known.limit(1, 2.0))
    angle = np.arccos(1 - 0.6 * limit)
    tracks = evidence.Means(np.array([[1.0, 0.0], [np.cos(angle), np.sin(angle)]]), np.ones(2))
    scenes = None, np.array([0, 0]), np.array([0, 1])
    levels = [evidence.judge(tracks, person, known, scene=scene).level.tolist() for scene in scenes]
    sure, weak = evidence.Level.SURE, evidence.Level.WEAK
    assert levels == [[sure, weak], [sure, weak], [sure, sure]]

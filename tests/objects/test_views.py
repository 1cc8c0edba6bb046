"""Objects in exports, films and the report: a made-up film of a person who walks over a line, and of a car."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline
from pipeline.cli import main
from pipeline.errors import StoreError, UsageError
from pipeline.media.film.drawing import Mark, Shape, colour_of
from pipeline.media.video.source import VideoOptions, VideoSource
from pipeline.objects.classes import COCO_NAMES, OLDER_NAMES
from pipeline.objects.views import annotate
from pipeline.objects.views.columns import ObjectColumns
from pipeline.store.schema import Array
from pipeline.views.export import export
from tests.made_objects import make_objects
from tests.made_stores import faces_of, make_store
from tests.views.films import read_film, write_film
from tests.views.test_report import Page, page_of

SAMPLES, EVERY = 10, 5
PERSON, CAR = 0, 2
DOOR, YARD = "door <b>", "yard"
NAMES = ["person", "bicycle", "<img src=x>"]
CLASS = Array("class", ("object",), "int32", (), {"class_names": [*NAMES[:2], "car", *COCO_NAMES[3:]]})
FOUND = (
    Array("n_objects", ("frame",), "int32"),
    Array("box", ("object", "xywh"), "float32", (4,), place="xywh"),
    CLASS,
    Array("score", ("object",), "float32"),
)
COUNTED = (
    Array("track", ("object",), "int32"),
    Array("crossings", ("frame", "line", "direction"), "int32", (1, 2),
          {"line_names": [DOOR], "lines": [[[120, 20], [120, 220]]]}),
    Array("counts", ("frame", "zone"), "int32", (1,),
          {"zone_names": [YARD], "zones": [[[180, 140], [300, 140], [300, 230], [180, 230]]]}),
)  # fmt: skip


def truth() -> dict[str, np.ndarray]:
    """A person in each sample, 20 pixels further each time; a car in the first half of them; a crossing after 1 s."""
    rows = [(k, thing) for k in range(SAMPLES) for thing in (PERSON, CAR) if thing == PERSON or k < SAMPLES // 2]
    box = [(20 + 20 * k, 100, 40, 80) if thing == PERSON else (200, 150, 60, 40) for k, thing in rows]
    n = np.bincount([k for k, _ in rows])
    label = np.array([thing for _, thing in rows], np.int32)
    crossings = np.zeros((SAMPLES, 1, 2), np.int32)
    crossings[5, 0, 0] = 1
    return {
        "frame": np.arange(SAMPLES) * EVERY, "time_seconds": np.arange(SAMPLES) * EVERY / 25,
        "decoded": np.ones(SAMPLES, bool), "n_objects": n.astype(np.int32), "box": np.array(box, np.float32),
        "class": label, "score": np.linspace(0.9, 0.5, len(rows)).astype(np.float32), "track": label // CAR,
        "crossings": crossings, "counts": (np.arange(SAMPLES)[:, None] < 5).astype(np.int32),
    }  # fmt: skip


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("film") / "street.mp4", SAMPLES * EVERY)


def made_of(
    film: Path, out: Path, arrays: tuple[Array, ...] = FOUND + COUNTED, other: dict[str, np.ndarray] | None = None,
    chunks: int | None = None,
) -> Path:  # fmt: skip
    facts = VideoSource(film, VideoOptions.model_validate({"every": EVERY}), decoder="pyav").facts
    known = {**facts, "frames": SAMPLES, "chunk_frames": 16}
    make_objects(out, SAMPLES, arrays=arrays, made={**truth(), **(other or {})}, of_film=known, done_chunks=chunks)
    return out


@pytest.fixture(scope="module")
def store(film: Path) -> Path:
    return made_of(film, film.with_name("counted.zarr"))


@pytest.fixture(scope="module")
def plain(film: Path) -> Path:
    """Objects alone: no tracks, and nothing counted."""
    return made_of(film, film.with_name("plain.zarr"), FOUND)


# -- export --------------------------------------------------------------------------------------------------------


def test_coco_has_classes_scores_tracks_and_pictures(store: Path, plain: Path, tmp_path: Path) -> None:
    made = truth()
    exported = export(store, tmp_path / "o.json", images=tmp_path / "pictures")
    found = json.loads((tmp_path / "o.json").read_text())
    assert (exported.objects, exported.frames) == (15, SAMPLES)
    assert found["info"]["description"] == "objects found in videos"
    ids = {one["name"]: one["id"] for one in found["categories"]}
    assert (len(ids), ids["person"], ids["car"], ids["stop sign"], ids["toothbrush"]) == (80, 1, 3, 13, 90)
    images = {one["id"]: one for one in found["images"]}
    assert [one["frame"] for one in found["images"]] == made["frame"].tolist()
    assert found["images"][5][f"{DOOR}_in"] == 1
    assert all((tmp_path / "pictures" / one["file_name"]).is_file() for one in images.values())
    for k, one in enumerate(found["annotations"]):
        assert images[one["image_id"]]["frame"] == np.repeat(made["frame"], made["n_objects"])[k]
        assert one["bbox"] == made["box"][k].tolist()
        assert (one["id"], one["iscrowd"], one["area"]) == (k + 1, 0, made["box"][k, 2:].prod())
        assert one["category_id"] == {PERSON: 1, CAR: 3}[made["class"][k]]
        assert one["score"] == pytest.approx(float(made["score"][k]))
        assert one["track_id"] == made["track"][k] + 1
        assert not {"keypoints", "attributes"} & one.keys()
    export(plain, tmp_path / "plain.json")
    assert not any("track_id" in one for one in json.loads((tmp_path / "plain.json").read_text())["annotations"])


def test_only_cocos_own_classes_have_its_ids() -> None:
    older = [{new: old for old, new in OLDER_NAMES.items()}.get(name, name) for name in COCO_NAMES]
    categories = ObjectColumns().categories("object", older)
    assert [one["name"] for one in categories] == older
    assert [one["id"] for one in categories][10:13] == [11, 13, 14]
    assert [one["id"] for one in ObjectColumns().categories("object", ["dog", "person"])] == [1, 2]
    assert [one["name"] for one in ObjectColumns().categories("object", [])] == ["object"]


def test_mot_has_nine_columns(store: Path, tmp_path: Path) -> None:
    made = truth()
    export(store, tmp_path / "o.mot.txt")
    lines = np.loadtxt(tmp_path / "o.mot.txt", delimiter=",")
    assert lines.shape == (15, 9)
    np.testing.assert_array_equal(lines[:, 0], np.repeat(made["frame"], made["n_objects"]) + 1)
    np.testing.assert_array_equal(lines[:, 1], made["track"] + 1)
    np.testing.assert_allclose(lines[:, 2:6], made["box"])
    np.testing.assert_allclose(lines[:, 6], made["score"], atol=1e-4)
    assert lines[:, 7].tolist() == [{PERSON: 1, CAR: 3}[label] for label in made["class"]]
    assert set(lines[:, 8]) == {-1}


@pytest.mark.parametrize("name", ["o.json", "o.mot.txt"])
def test_a_class_without_a_name_is_an_error(film: Path, tmp_path: Path, name: str) -> None:
    out = made_of(film, tmp_path / "s.zarr", FOUND, {"class": np.full(15, 80, np.int32)})
    with pytest.raises(StoreError, match="array 'class' of 'street' holds 80, and its class_names are 80"):
        export(out, tmp_path / name)


# Text of the file as it was when COCO's format knew faces alone.
FACES = (
    '{"info": {"description": "faces found in videos", "version": "VERSION"}, "licenses": [], "categories": [{"id": 1, '
    '"name": "face", "supercategory": "person", "keypoints": ["right_eye", "left_eye", "nose", "mouth_right", '
    '"mouth_left"], "skeleton": []}], "videos": [{"id": 1, "name": "a", "store": "STORE", "path": "/films/a.mp4", '
    '"width": 1280, "height": 720, "fps": 25.0, "duration_seconds": 0.4, "every": 5}], "images": [\n'
    '{"id": 1, "video_id": 1, "file_name": "a/00000005.jpg", "width": 1280, "height": 720, "frame": 5, '
    '"time_seconds": 0.2}], "annotations": [\n'
    '{"id": 1, "image_id": 1, "category_id": 1, "bbox": [100, 80, 60, 80], "area": 4800, "iscrowd": 0, '
    '"score": 0.99, "keypoints": [118, 112, 2, 142, 112, 2, 130, 128, 2, 121, 144, 2, 139, 144, '
    '2], "num_keypoints": 5, "track_id": 8, "person": 2, "person_name": "Bo", '
    '"attributes": {"age": 30.5, "class": 4}}]}\n'
)


def test_files_of_faces_are_as_they_were(tmp_path: Path) -> None:
    extra = (
        Array("track", ("face",), "int32"), Array("age", ("face",), "float32"), Array("class", ("face",), "int32"),
        Array("person", ("face",), "int32", (), {"names": {"2": "Bo"}, "registry": "none.json"}),
    )  # fmt: skip
    values = {"track": np.array([7]), "age": np.array([30.5]), "class": np.array([4]), "person": np.array([2])}
    out = make_store(tmp_path / "s.zarr", {"a": faces_of(np.array([0, 1]), np.zeros((1, 8)), **values)}, extra=extra)
    export(out, tmp_path / "f.json")
    expected = FACES.replace("VERSION", f"reelgraph {pipeline.__version__}").replace("STORE", str(out))
    assert (tmp_path / "f.json").read_text() == expected
    export(out, tmp_path / "f.mot.txt")
    assert (tmp_path / "f.mot.txt").read_text() == "6,8,100.00,80.00,60.00,80.00,0.9900,-1,-1,-1\n"


def test_counts_of_each_second(store: Path, plain: Path, tmp_path: Path) -> None:
    exported = export(store, tmp_path / "o.counts.csv")
    assert (exported.format, exported.seconds, exported.frames) == ("counts", 2, SAMPLES)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "o.counts.csv").read_text())))
    wanted = ("input", "second", "frames", f"{DOOR}_in", f"{DOOR}_out", "yard_inside_mean", "yard_inside_most")
    assert [[row[name] for name in wanted] for row in rows] == [
        ["street", "0", "5", "0", "0", "1", "1"],
        ["street", "1", "5", "1", "0", "0", "0"],
    ]
    with pytest.raises(UsageError, match="hold no counts of lines or zones; add a stage `count`"):
        export(plain, tmp_path / "p.counts.csv")
    assert not (tmp_path / "p.counts.csv").exists()
    frames = pipeline.open(store).rows("frame")
    assert frames[f"{DOOR}_in"].tolist() == truth()["crossings"][:, 0, 0].tolist()
    assert frames["yard_inside"].sum() == 5
    objects = pipeline.open(store).rows("object")
    assert objects["class_name"].tolist()[:2] == ["person", "car"]
    assert {"track", "time_seconds", "score"} <= set(objects)


# -- films ---------------------------------------------------------------------------------------------------------


def drawn(store: Path, monkeypatch: pytest.MonkeyPatch, ranks: range, **options: Any) -> list[tuple[list[Mark], Any]]:
    """Return the marks and shapes of these frames of a film."""
    from pipeline.media.film.film import film_of

    found: list[tuple[list[Mark], Any]] = []
    monkeypatch.setattr(annotate, "draw", lambda pixels, marks, shapes: found.append((marks, shapes)))
    item = pipeline.open(store).input("street")
    painter = annotate.ObjectPainter(item, **options)
    painter.begin(film_of(item))
    for rank in ranks:
        painter.edit(rank, np.zeros((240, 320, 3), np.uint8))
    return found


def test_tracks_have_trails_and_lines_their_totals(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = drawn(store, monkeypatch, range(50), scores=True, trail_seconds=0.5)
    marks, shapes = frames[22]
    person = next(mark for mark in marks if "person" in mark.text)
    assert (person.text, person.colour, person.more) == ("person #0", colour_of(0), "0.67")
    assert person.box == pytest.approx((20 + 20 * 22 / 5, 100, 40, 80), abs=1e-3)
    assert {mark.text for mark in marks} == {"person #0", "car #1"}
    trail = next(shape for shape in shapes if shape.colour == colour_of(0))
    # The last half second has the samples 10, 15 and 20, and the frame itself.
    np.testing.assert_allclose(trail.points, [(40 + 4 * k, 180) for k in (10, 15, 20, 22)], atol=1e-3)
    texts = [[shape.text for shape in shapes if shape.text] for _, shapes in frames]
    assert texts[24] == [f"{DOOR}: in 0, out 0", "yard: 1 inside"]
    assert texts[25] == texts[49] == [f"{DOOR}: in 1, out 0", "yard: 0 inside"]
    arrow = next(shape for shape in shapes if not shape.text and len(shape.points) == 5)
    assert arrow.points[1, 0] < 120  # right of a way down is the left of the picture


def test_without_tracks_a_class_has_its_colour(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ((marks, shapes),) = drawn(plain, monkeypatch, range(7, 8))
    assert {(mark.text, mark.colour, mark.more) for mark in marks} == {
        ("person", colour_of(PERSON), ""), ("car", colour_of(CAR), ""),
    }  # fmt: skip
    # Boxes are linked by overlap, so they move between samples.
    assert next(mark for mark in marks if mark.text == "person").box[0] == pytest.approx(48)
    assert all(not len(shape.points) for shape in shapes if isinstance(shape, Shape))


def test_a_film_of_what_is_done(film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = made_of(film, tmp_path / "s.zarr", FOUND, chunks=0)
    assert main(["annotate", str(out), "--json"]) == 2
    assert "annotate draws faces, objects and matches" in capsys.readouterr().err
    long = {**truth(), **{name: np.tile(values, (2, *[1] * (values.ndim - 1))) for name, values in truth().items()}}
    long |= {"frame": np.arange(20) * 2, "time_seconds": np.arange(20) * 2 / 25}
    facts = VideoSource(film, VideoOptions.model_validate({"every": 2}), decoder="pyav").facts
    make_objects(
        out, 20, arrays=FOUND, made=long, of_film={**facts, "frames": 20, "chunk_frames": 16}, done_chunks=1,
        inputs=("half",),
    )  # fmt: skip
    assert main(["annotate", str(out), "--input", "half", "--json"]) == 0
    (made,) = json.loads(capsys.readouterr().out)["films"]
    assert (made["objects"], made["done_share"], made["frames"]) == (26, 0.8, 50)
    assert "80% of the sampled frames are done; the rest shows no boxes" in made["notes"]


def test_a_film_of_objects(film: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["annotate", str(store), "--out", str(tmp_path / "o.mp4"), "--json"]) == 0
    (made,) = json.loads(capsys.readouterr().out)["films"]
    assert (made["frames"], made["objects"], made["audio_streams"], made["unseen_frames"]) == (50, 15, 1, 0)
    before, after = read_film(film)[1].astype(int), read_film(tmp_path / "o.mp4")[1].astype(int)
    assert after.shape == before.shape
    changed = np.abs(after - before).sum(3) > 90
    assert changed[0, 105:170, 18:23].any(axis=1).mean() > 0.8  # the left side of the person's first box
    assert not changed[30, 105:170, 18:23].any()
    assert changed[0, 188:193, 205:255].any(axis=0).mean() > 0.8  # the lower side of the car
    assert changed[30, 60:90, 118:123].any(axis=1).mean() > 0.8  # the line
    assert not changed[30, 205:235, 20:100].any()
    with pytest.raises(SystemExit, match="2"):
        main(["annotate", str(store), "--trail", "-1"])
    assert "'-1' is not a number of seconds" in capsys.readouterr().err
    assert main(["annotate", str(store), "--blur", "all"]) == 2
    assert "--blur does not go with drawing objects" in capsys.readouterr().err
    assert main(["annotate", str(store), "--draw", "faces", "--out", str(tmp_path / "f.mp4")]) == 2
    assert "'street' holds objects, no faces; choose others by --input or --draw" in capsys.readouterr().err


# -- report --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(store: Path) -> Page:
    return page_of(store, store.with_name("page.html"))


def test_the_report_shows_classes_and_counts(page: Page) -> None:
    assert page.charts["lanes"][0]["names"] == ["person", "car"]
    person, car = page.charts["inputs"][0]["lanes"][0]["rows"]
    assert (person["of"], person["seconds"], car["of"], car["seconds"]) == (0, 2.0, 1, 1.0)
    assert (person["at"], car["at"]) == ([0, 20], [0, 10])
    assert "10 object s · 1 track · at most 1 in a frame" in page.text.replace("objects", "object s")
    assert f"{DOOR} line; crossings in 1 s, up: in, down: out in 1 out 0" in page.text
    assert "yard zone; objects inside, mean and most of 1 s mean inside 0.5 most 1" in page.text
    pictures = page.having("img", alt="person")
    assert len(pictures) == 1
    assert str(pictures[0]["src"]).startswith("data:image/jpeg;base64,")
    charts = [have for tag, have in page.tags if tag == "svg" and have.get("role") == "img"]
    assert {f"line {DOOR}: 1 in, 0 out, up to 1 in one bar", "person: up to 1 per frame"} <= {
        str(have["aria-label"]) for have in charts
    }
    addresses = [str(value) for _, have in page.tags for key, value in have.items() if key in ("src", "href")]
    assert all(address.startswith(("data:", "#")) for address in addresses)
    ids = [str(have["id"]) for _, have in page.tags if "id" in have]
    assert len(ids) == len(set(ids))
    assert {address[1:] for address in addresses if address.startswith("#")} <= set(ids)


def test_the_report_of_objects_alone_and_without_pictures(plain: Path, tmp_path: Path) -> None:
    page = page_of(plain, tmp_path / "p.html", pictures=False)
    assert "Lines and zones" not in page.text
    assert "track" not in page.text
    assert not page.having("img")
    assert page.charts["lanes"][0]["names"] == ["person", "car"]

"""Pairs shown: drawings of matches, the choice of pairs, and the report's panel."""

from __future__ import annotations

import html
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import pipeline
from pipeline.cli import main
from pipeline.errors import InputError, StoreError, UsageError
from pipeline.pairs.views.annotate import draw_matches
from pipeline.pairs.views.drawing import GROUND, INLIER, OTHER, UNVERIFIED, Side, side_by_side
from pipeline.pairs.views.ranked import RankedPairs
from pipeline.pairs.views.report.matrix import LEAST_INLIERS, LEAST_MATCHES, grouped_pictures, matrix_of
from pipeline.views.report import report
from tests.own import Own
from tests.pairs.stored_pairs import make_pairs
from tests.views.films import write_film

STAGES = '''
"""Four keypoints in each picture; the first picture of a pair says by its brightness how many of them match."""

import numpy as np

from pipeline import Array, Axis, Stage

POINTS = np.array([(10.5, 10.5), (50.5, 10.5), (10.5, 30.5), (50.5, 30.5)], np.float32)


class Points(Stage):
    needs = ("frames_rgb",)
    axes = (Axis("keypoint"),)
    outputs = (Array("n_keypoints", ("frame",), "int32"),
               Array("keypoint", ("keypoint", "xy"), "float32", (2,), place="xy"),
               Array("bright", ("frame",), "int32"))

    def run(self, chunk):
        n = np.where(chunk.decoded, 4, 0).astype(np.int32)
        bright = np.zeros(len(n), np.int32)
        for k in np.flatnonzero(chunk.decoded):
            bright[k] = chunk.frames_rgb[k][0, 0, 0] // 50
        return {"n_keypoints": n, "keypoint": np.tile(POINTS, (int(n.sum()) // 4, 1)), "bright": bright}


class Links(Stage):
    item = "pair"
    axes = (Axis("match", of="pair"),)
    needs = ("a_bright", "b_bright")
    outputs = (Array("n_matches", ("pair",), "int32"), Array("match", ("match", "side"), "int32", (2,)))

    def run(self, chunk):
        n = np.where(chunk.decoded, np.minimum(chunk["a_bright"], chunk["b_bright"]), 0).astype(np.int32)
        match = np.concatenate([np.empty((0, 2), np.int32), *(np.stack([np.arange(k)] * 2, axis=1) for k in n)])
        return {"n_matches": n, "match": match.astype(np.int32)}


class Checks(Stage):
    """All but the last match of a pair are inliers."""
    item = "pair"
    needs = ("n_matches",)
    outputs = (Array("n_inliers", ("pair",), "int32"), Array("inlier", ("match",), "bool"))

    def run(self, chunk):
        n = chunk["n_matches"]
        inlier = np.ones(int(n.sum()), bool)
        inlier[np.cumsum(n)[n > 0] - 1] = False
        return {"n_inliers": np.maximum(n - 1, 0).astype(np.int32), "inlier": inlier}
'''
GREY = {"a": 200, "b": 150, "c": 100, "d": 0}
"""Brightness of pictures: a and b have 3 matches, a and c 2, b and c 2, others none."""


@pytest.fixture
def pictures(own: Own, monkeypatch: pytest.MonkeyPatch) -> Own:
    """Four pictures of 60 x 40."""
    monkeypatch.chdir(own.folder)
    own.module("own_links", STAGES)
    (own.folder / "photos").mkdir()
    for name, grey in GREY.items():
        add(own, name, grey)
    return own


def add(own: Own, name: str, grey: int, ending: str = "png") -> None:
    Image.new("RGB", (60, 40), (grey,) * 3).save(own.folder / "photos" / f"{name}.{ending}")


def run(own: Own, verify: bool = True, **options: Any) -> Any:
    stages = {"points": {"use": "own_links:Points"}, "links": {"use": "own_links:Links"}}
    stages |= {"checks": {"use": "own_links:Checks"}} if verify else {}
    path = own.folder / "match.yaml"
    path.write_text(yaml.safe_dump({"source": {"kind": "images"}, "pairs": {}, "stages": stages}))
    return own.run(path, own.folder / "photos", **options)


def pixels_of(path: Path | str) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def tends_to(pixels: np.ndarray, ground: int, colour: tuple[int, int, int]) -> bool:
    """Tell whether pixels of a thin line differ from the ground towards a colour: a share of it is left in the file."""
    change, wanted = pixels.reshape(-1, 3).mean(axis=0) - ground, np.array(colour) - ground
    return float(change @ wanted / np.linalg.norm(change) / np.linalg.norm(wanted)) > 0.97 and np.abs(change).max() > 30


def told(capsys: pytest.CaptureFixture[str], *words: Any, code: int = 0) -> Any:
    assert main([str(word) for word in (*words, "--json")]) == code
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    assert main([str(word) for word in words]) == 2
    return capsys.readouterr().err


# -- drawing -------------------------------------------------------------------------------------------------------


def sides(n: int, grey: int = 90) -> tuple[Side, Side]:
    """Pictures of 100 x 100 and 100 x 50 with points 20 apart, from the upper left pixel's centre at 10.5 on."""
    points = np.stack([np.full(n, 30.5), 10.5 + 20 * np.arange(n)], axis=1)
    a, b = (np.full((100, width, 3), grey, np.uint8) for width in (100, 50))
    return Side(a, points), Side(b, points)


@pytest.mark.parametrize(
    ("inlier", "colours"),
    [([True, False], (INLIER, OTHER)), (None, (UNVERIFIED, UNVERIFIED))],
    ids=["verified", "not verified"],
)
def test_lines_have_the_colours_of_their_matches(inlier: Sequence[bool] | None, colours: Any) -> None:
    known = None if inlier is None else np.array(inlier)
    drawn = side_by_side(*sides(2), known, "a - b: 2 matches", 100)
    assert drawn.shape == (100 + len(drawn[100:]), 152, 3)
    for row, colour in zip((10, 30), colours, strict=True):
        line = drawn[row, 35:130].astype(int)  # from the point in a to that in b, 30 + 102 pixels from the left
        assert (np.abs(line - colour) < 40).all()
        assert (drawn[row + 6, :100] == 90).all(), "between the lines the picture stays as it is"
        assert (drawn[row, :25] == 90).all()
        assert (drawn[row, 138:] == 90).all()
    assert (drawn[50, 100:102] == GROUND).all(), "between the pictures"
    assert drawn[100:].max() > 200, "letters below"
    assert len(side_by_side(*sides(2), known, "a - b", 100, letters=0)) == 100


def test_points_are_scaled_with_their_pictures() -> None:
    """At twice the size the centre of pixel 10 lies between pixels 20 and 21."""
    a, b = sides(1)
    b = Side(np.full((200, 100, 3), 90, np.uint8), b.points * 2)
    drawn = side_by_side(a, b, None, "", 200, letters=0).astype(int)
    assert drawn.shape == (200, 302, 3)
    for start in (80, 150, 220):
        row = np.abs(drawn[:, start] - 90).sum(axis=1)
        assert np.average(np.arange(200), weights=row) == pytest.approx(20.5, abs=0.1)
    assert set(np.flatnonzero(np.abs(drawn[:, 150] - 90).sum(axis=1))) <= {19, 20, 21, 22}


def test_many_lines_shine_through() -> None:
    """A thousand lines would hide the pictures: between their ends these stay visible."""
    rng = np.random.default_rng(0)
    points = rng.uniform((0, 0), (20, 100), (1000, 2))
    a, b = (Side(np.full((100, 100, 3), 90, np.uint8), points) for _ in "ab")
    drawn = side_by_side(a, b, np.ones(1000, bool), "", 100, letters=0).astype(int)
    between = np.abs(drawn[:, 40:95] - 90).max(axis=2)
    assert 5 < between.mean() < 40
    assert (drawn[:, 5:15] == INLIER).all(axis=2).mean() > 0.3


@pytest.mark.parametrize("shape", [(1, 30_000), (30_000, 1), (1, 1)])
def test_pictures_of_any_shape_fit(shape: tuple[int, int]) -> None:
    side = Side(np.zeros((*shape, 3), np.uint8), np.array([[0.5, 0.5]]))
    drawn = side_by_side(side, side, None, "x" * 5000, 1080)
    assert drawn.shape[0] < 1200
    assert drawn.shape[1] < 20_000


# -- annotate ------------------------------------------------------------------------------------------------------


def test_pairs_are_drawn_best_first(pictures: Own, capsys: pytest.CaptureFixture[str]) -> None:
    run(pictures)
    made = told(capsys, "annotate", pictures.out, "--to", "drawn")
    shown = [(Path(one["file"]).name, one["matches"], one["inliers"]) for one in made["pictures"]]
    assert shown == [("a_b.jpg", 3, 2), ("a_c.jpg", 2, 1), ("b_c.jpg", 2, 1)]
    assert made["notes"] == ["3 pairs without a match left out"]
    drawn = pixels_of(pictures.folder / "drawn" / "a_b.jpg")
    scale, left = 480 / 40, 60 * 480 // 40 + 4  # of pictures of 40 lines, drawn at 480
    assert drawn.shape[1] == left + 720
    for y, colour in ((10.5, INLIER), (30.5, OTHER)):
        row = round(y * scale - 0.5)
        line = drawn[row - 1 : row + 1, left + 20 : left + 110]
        assert [one for one in (INLIER, OTHER, UNVERIFIED) if tends_to(line, 150, one)] == [colour]
    assert np.abs(drawn[round(20 * scale), 60:700] - 200).max() < 12, "nothing between the lines"


def test_the_best_n_and_what_is_left_out(pictures: Own, capsys: pytest.CaptureFixture[str]) -> None:
    run(pictures)
    assert main(["annotate", str(pictures.out), "--to", "drawn", "--most", "1"]) == 0
    said = capsys.readouterr()
    assert said.out == "drawn: 1 pair drawn\n"
    assert "2 pairs with 2 inliers or fewer left out; --most 3 draws all" in said.err
    assert [path.name for path in (pictures.folder / "drawn").iterdir()] == ["a_b.jpg"]


def test_a_pair_by_name_and_the_default_folder(pictures: Own, capsys: pytest.CaptureFixture[str]) -> None:
    run(pictures)
    made = told(capsys, "annotate", pictures.out, "--pair", "c.png", "b.png", "--pair", "a.png", "d.png")
    assert made["folder"] == str(pictures.folder / "photos_matches")
    shown = [(one["a"], one["b"], one["matches"]) for one in made["pictures"]]
    assert shown == [("b.png", "c.png", 2), ("a.png", "d.png", 0)]
    assert made["notes"] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pair", "a.png", "b.pgn"], "unknown picture 'b.pgn'; did you mean 'b.png'"),
        (["--pair", "a.png", "a.png"], "'a.png' and 'a.png' were not compared"),
        (["--pair", "a.png", "b.png", "--most", "3"], "leave one of them out"),
        (["--blur", "all"], "--blur does not go with drawing pairs"),
        (["--out", "x.mp4"], "the name of a film"),
        (["--to", "photos/inside"], "in the folder of the pictures themselves"),
        (["--input", "photos"], "unknown input 'photos'; did you mean 'photos-pairs'"),
        (["--draw", "faces", "--most", "3"], "--most does not go with drawing faces"),
    ],
)
def test_mistakes(pictures: Own, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    run(pictures)
    assert message in refused(capsys, "annotate", pictures.out, *words)


def test_a_folder_that_holds_something_is_kept(pictures: Own) -> None:
    run(pictures)
    draw_matches([pictures.out], target="drawn")
    with pytest.raises(UsageError, match="holds files already"):
        draw_matches([pictures.out], target="drawn")
    draw_matches([pictures.out], target="drawn", force=True)


def test_without_verify(pictures: Own) -> None:
    run(pictures, verify=False)
    drawn = draw_matches([pictures.out], target="drawn", most=1)
    assert drawn.pictures[0].inliers is None
    assert drawn.notes[0] == "2 pairs with 3 matches or fewer left out; --most 3 draws all"
    assert tends_to(pixels_of(drawn.pictures[0].file)[125:127, 744:834], 150, UNVERIFIED)


def test_missing_and_changed_pictures_lose_their_pairs_alone(pictures: Own, capsys: pytest.CaptureFixture[str]) -> None:
    run(pictures)
    (pictures.folder / "photos" / "c.png").unlink()
    made = told(capsys, "annotate", pictures.out, "--to", "drawn")
    assert [(one["a"], one["b"]) for one in made["pictures"]] == [("a.png", "b.png")]
    assert made["notes"].count("c.png: missing or changed; its pairs are left out") == 1
    Image.new("RGB", (30, 30)).save(pictures.folder / "photos" / "a.png")
    said = refused(capsys, "annotate", pictures.out, "--to", "other")
    assert "none of 3 pairs can be drawn: a.png: missing or changed" in said
    assert len(said.strip().splitlines()[-1]) < 200


def test_a_picture_that_is_broken_from_the_start(pictures: Own) -> None:
    (pictures.folder / "photos" / "b.png").write_bytes(b"not a picture")
    run(pictures)
    drawn = draw_matches([pictures.out], target="drawn")
    assert [(one.a, one.b) for one in drawn.pictures] == [("a.png", "c.png")]
    filled = page(pictures.out)
    assert "3 pairs have a picture that could not be read" in filled


def test_no_matches_at_all(pictures: Own) -> None:
    for name in GREY:
        add(pictures, name, 10)
    run(pictures)
    with pytest.raises(InputError, match="no pair has a match"):
        draw_matches([pictures.out], target="drawn")
    filled = page(pictures.out)
    assert "0 of 6 pairs match" in filled
    assert "No two pictures match" in filled
    assert "Best pairs" not in filled


def test_pictures_that_came_later(pictures: Own) -> None:
    run(pictures)
    add(pictures, "e", 220)
    made = run(pictures)
    assert made.inputs["photos-2-pairs"].attributes["of"] == ["photos", "photos-2"]
    drawn = draw_matches([pictures.out], target="drawn")
    assert [(one.a, one.b, one.inliers) for one in drawn.pictures[:3]] == [
        ("a.png", "e.png", 3), ("a.png", "b.png", 2), ("b.png", "e.png", 2),
    ]  # fmt: skip
    assert {one.input for one in drawn.pictures} == {"photos-pairs", "photos-2-pairs"}


def test_frames_of_a_film(own: Own, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(own.folder)
    own.module("own_links", STAGES)
    clip = write_film(tmp_path / "clip.mp4", 25)
    path = own.folder / "match.yaml"
    stages = {name: {"use": f"own_links:{name}"} for name in ("Points", "Links", "Checks")}
    source = {"kind": "video", "every": 8}
    path.write_text(yaml.safe_dump({"source": source, "pairs": {"window": 1}, "stages": stages}))
    made = own.run(path, clip)
    n = made.array("clip-pairs", "n_matches")
    assert n.max() > 0
    drawn = draw_matches([own.out], target="drawn")
    assert len(drawn.pictures) == (n > 0).sum()
    assert (drawn.pictures[0].a, drawn.pictures[0].b) in {
        ("frame 0", "frame 8"),
        ("frame 8", "frame 16"),
        ("frame 16", "frame 24"),
    }
    again = draw_matches([own.out], target="again", pairs=[("8", "0")])
    assert (again.pictures[0].a, again.pictures[0].b) == ("frame 0", "frame 8")
    assert pixels_of(drawn.pictures[0].file).std() > 20
    assert "sampled frames" in page(own.out)
    assert "pairs match" in page(own.out)


def test_stores_without_pairs_say_so(
    own: Own, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own.folder)
    own.module("own_plain", "from pipeline import Array, Stage\n\n\nclass One(Stage):\n    needs = ('number',)\n"
               "    outputs = (Array('one', ('frame',), 'float64'),)\n\n    def run(self, chunk):\n"
               "        return {'one': chunk['number']}\n")  # fmt: skip
    own.run(own.workflow({"one": "own_plain:One"}))
    assert "annotate draws faces, objects and matches" in refused(capsys, "annotate", own.out)
    assert "holds no pairs yet" in refused(capsys, "annotate", own.out, "--draw", "pairs")


# -- choice and matrix, against the arrays ---------------------------------------------------------------------------


def store_of(out: Path, n: int = 30, verified: bool = True, seed: int = 0, **more: Any) -> Path:
    """All pairs of n pictures; those of the same third match."""
    a, b = np.triu_indices(n, 1)
    rng = np.random.default_rng(seed)
    same = a // 10 == b // 10
    matches = np.where(same, rng.integers(40, 90, len(a)), rng.integers(0, 10, len(a)))
    inliers = np.where(same, rng.integers(16, 40, len(a)), 0)
    names = [f"{k // 10}/{k:04d}.jpg" for k in range(n)]
    return make_pairs(out, names, np.stack([a, b], axis=1), matches, inliers if verified else None, points=90, **more)


def page(out: Path) -> str:
    made = report(out, out.with_suffix(".html"))
    return re.sub(r"\s+", " ", Path(made.file).read_text(encoding="utf-8"))


def test_a_page_of_one_picture(tmp_path: Path) -> None:
    """It has no pair."""
    none = np.empty(0, np.int64)
    make_pairs(tmp_path / "a.zarr", ["1.jpg"], none.reshape(0, 2), none, none)
    assert "<b>0 of 0 pairs match</b>" in page(tmp_path / "a.zarr")


@pytest.mark.parametrize("verified", [True, False])
def test_the_panels_numbers_are_those_of_the_arrays(tmp_path: Path, verified: bool) -> None:
    out = store_of(tmp_path / "a.zarr", verified=verified)
    pairs = pipeline.open(out).inputs["photos-pairs"]
    count, limit = (("n_inliers", LEAST_INLIERS), ("n_matches", LEAST_MATCHES))[not verified]
    strength = pairs.array(count)
    good = int((strength >= limit).sum())
    assert good == 3 * 45
    made = report(out, tmp_path / "a.html")
    assert made.counts == {("matched", "matched"): good}
    assert (made.pictures, made.pairs, made.matches) == (30, 435, int(pairs.array("n_matches").sum()))
    filled = page(out)
    nouns = "inliers" if verified else "matches"
    assert f"<b>{good} of 435 pairs match</b>: they have {limit} {nouns} or more" in filled
    assert "30 of 30 pictures match at least one other, in 3 groups" in filled
    assert ("not verified" in filled) == (not verified)
    assert "frames" not in re.sub(r"<script.*", "", filled.partition("<main>")[2])
    matched = RankedPairs([pairs])
    groups = grouped_pictures(matched)
    assert [one.tolist() for one in groups.members] == [list(range(k, k + 10)) for k in (0, 10, 20)]
    values = matrix_of(matched, groups.order).most
    assert (np.diag(values) == -1).all()
    a, b = pairs.array("a"), pairs.array("b")
    assert (values[a, b] == strength).all()
    assert (values == values.T).all()
    assert matched.best(5) == np.lexsort((np.arange(435), -pairs.array("n_matches"), -strength))[:5].tolist()


def test_items_have_their_own_nouns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither the page nor the lines call pictures or pairs frames; a cell is empty if it has no meaning."""
    out = store_of(tmp_path / "a.zarr")
    assert main(["report", str(out)]) == 0
    said = capsys.readouterr()
    assert "135 matched" in said.out
    assert "photos: 30/30 pictures" in said.err
    assert "photos-pairs: 435/435 pairs" in said.err
    assert "frame" not in said.out + said.err
    table = page(out).partition('id="inputs"')[2].partition("</table>")[0]
    cells = [re.findall(r'<td class="n[^"]*">([^<]*)', row) for row in table.split("<tr>")[2:]]
    matches = f"{int(pipeline.open(out).array('photos-pairs', 'n_matches').sum()):,}".replace(",", " ")
    assert cells == [["30", "", "2 700", "", ""], ["", "435", "", matches, "135"]]


def test_a_wrong_name_among_thousands_is_a_short_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = store_of(tmp_path / "a.zarr", n=100)
    said = refused(capsys, "annotate", out, "--pair", "0/0001.jpeg", "0/0002.jpg")
    assert "unknown picture '0/0001.jpeg'; did you mean '0/0001.jpg'" in said
    assert said.rstrip().endswith("and 40 more")


def test_a_store_half_done(tmp_path: Path) -> None:
    out = store_of(tmp_path / "a.zarr", done_chunks=2, chunk=100)
    pairs = pipeline.open(out).inputs["photos-pairs"]
    assert pairs.done_share == pytest.approx(200 / 435)
    matched = RankedPairs([pairs])
    assert len(matched) == 200
    inlier = matched.links(150).inlier
    assert inlier is not None
    assert (len(inlier), inlier.sum()) == (pairs.array("n_matches")[150], pairs.array("n_inliers")[150])
    filled = page(out)
    assert "% of the pictures and pairs are done" in filled
    assert "of 200 pairs match" in filled


def test_no_pair_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = store_of(tmp_path / "a.zarr", done_chunks=0)
    assert "0 of 0" not in page(out)
    assert "holds none of them" in refused(capsys, "annotate", out)


def test_two_stores_in_one_report(tmp_path: Path) -> None:
    stores = [store_of(tmp_path / f"{name}.zarr", seed=k) for k, name in enumerate("ab")]
    items = [pipeline.open(store).inputs["photos-pairs"] for store in stores]
    matched = RankedPairs(items)
    assert matched.n_pictures == 60
    assert len(set(matched.names)) == 30, "names of one input in two stores stay alike"
    assert grouped_pictures(matched).members[3].tolist() == list(range(30, 40))
    assert matched.item(435) is items[1]
    made = report(stores, tmp_path / "both.html")
    assert made.counts[("matched", "matched")] == 270


@pytest.mark.parametrize("n", [3, 200, 201, 450])
def test_a_matrix_of_blocks_keeps_the_largest_value(tmp_path: Path, n: int) -> None:
    a, b = np.arange(n - 1), np.arange(1, n)
    count = np.arange(20, 20 + n - 1)
    names = [f"{k}.jpg" for k in range(n)]
    out = make_pairs(tmp_path / "a.zarr", names, np.stack([a, b], axis=1), count, count, points=1000)
    matched = RankedPairs([pipeline.open(out).inputs["photos-pairs"]])
    groups = grouped_pictures(matched)
    matrix = matrix_of(matched, groups.order)
    rows = min(n, 200)
    assert matrix.most.shape == (rows, rows)
    assert matrix.is_exact == (n <= 200)
    row = np.searchsorted(matrix.edges, np.arange(n), side="right") - 1
    expected = np.full((rows, rows), -1)
    for i, j, value in zip(row[a], row[b], count, strict=True):
        expected[i, j] = expected[j, i] = max(expected[i, j], expected[j, i], value)
    assert (matrix.most == expected).all()


def test_names_are_texts_and_never_markup(tmp_path: Path) -> None:
    evil = ["<script>alert(1)</script>.jpg", '"><img src=x onerror=alert(2)>.jpg', "\x1b[31m\u202e.jpg", "d.jpg"]
    pairs = np.array([(0, 1), (0, 2), (1, 2), (2, 3)])
    out = make_pairs(tmp_path / "a.zarr", evil, pairs, np.full(4, 50), np.array([40, 30, 20, 0]), points=50)
    made = report(out, tmp_path / "a.html")
    text = Path(made.file).read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert text.count("<script") == 2
    assert "&lt;script&gt;alert(1)&lt;/script&gt;.jpg" in text
    found = re.search(r'data-told="([^"]*)"', text)
    assert found is not None
    assert json.loads(html.unescape(found[1]))["rows"][0] == evil[0]


def test_names_of_files_are_safe_and_differ(pictures: Own) -> None:
    (pictures.folder / "photos" / "x").mkdir()
    for name in ("x/b", "x-b"):
        add(pictures, name, 200)
    run(pictures)
    drawn = draw_matches([pictures.out], target="drawn")
    files = [Path(one.file) for one in drawn.pictures]
    assert len(set(files)) == len(files) == 10
    assert all(file.parent == Path("drawn") and file.is_file() for file in files)
    assert sum(file.name.startswith("a_x-b") for file in files) == 2


@pytest.mark.slow
def test_five_thousand_pictures(tmp_path: Path) -> None:
    n = 5000
    rng = np.random.default_rng(0)
    a = np.repeat(np.arange(n - 20), 20)
    b = a + np.tile(np.arange(1, 21), n - 20)
    count = np.where(a // 500 == b // 500, rng.integers(15, 300, len(a)), 0)
    out = make_pairs(
        tmp_path / "a.zarr", [f"{k:05d}.jpg" for k in range(n)], np.stack([a, b], axis=1), count, count, points=300
    )
    start = time.monotonic()
    made = report(out, tmp_path / "a.html")
    assert time.monotonic() - start < 60
    assert made.bytes < 1_000_000
    filled = page(out)
    assert "5 000 of 5 000 pictures match at least one other, in 10 groups" in filled
    assert "each row and column about 25 pictures" in filled
    assert "and 2 smaller groups" in filled


def test_damaged_numbers_are_one_line(tmp_path: Path) -> None:
    out = make_pairs(tmp_path / "a.zarr", ["a", "b"], np.array([(0, 1)]), np.array([5]), np.array([5]), points=5)
    pairs = pipeline.open(out).inputs["photos-pairs"]
    bad = make_pairs(tmp_path / "b.zarr", ["a", "b"], np.array([(0, 7)]), np.array([5]), np.array([5]), points=5)
    assert RankedPairs([pairs]).links(0).a.shape == (5, 2)
    with pytest.raises(StoreError, match="pairs of pictures that are not there"):
        RankedPairs([pipeline.open(bad).inputs["photos-pairs"]])

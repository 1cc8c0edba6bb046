"""`reelgraph report`: the page holds what the store holds, escapes what is anybody's, and stays small."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.cli import main
from pipeline.errors import StoreError, UsageError
from pipeline.faces.people.appearances import appearances
from pipeline.faces.people.evidence import Level
from pipeline.faces.people.find import outputs
from pipeline.faces.views.report.panel import join_to
from pipeline.store.run import RunStore
from pipeline.store.schema import Array
from pipeline.views.report import default_place, report
from pipeline.views.report.content import licence_flag
from pipeline.views.report.series import Histogram
from tests.clips import write_clip
from tests.made_stores import EVERY, FPS, Film, add_shots, faces_of, fail, film, make_store

NASTY = "<script>alert(1)</script>"
QUOTED = '"><img src=x onerror=alert(2)>'
NAMES = {1: NASTY, 2: "Bo Li", 3: QUOTED}
VOID = {"meta", "link", "br", "img", "input", "rect", "circle", "path", "line"}


class Page(HTMLParser):
    """A page as a browser would take it: tags, texts, and the numbers of its charts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.inside: str | None = None
        self.feed(text)
        self.close()
        self.charts: dict[str, Any] = json.loads(self.scripts[0])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = None

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts[-1] += data
        elif self.inside != "style":
            self.texts.append(data)

    @property
    def people(self) -> list[str]:
        names: list[str] = self.charts["lanes"][0]["names"]
        return names

    def rows(self, place: int = 0) -> list[dict[str, Any]]:
        """Lanes of one input."""
        rows: list[dict[str, Any]] = self.charts["inputs"][place]["lanes"][0]["rows"]
        return rows

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))

    def having(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        wanted = {key.rstrip("_"): value for key, value in attributes.items()}
        return [have for name, have in self.tags if name == tag and wanted.items() <= have.items()]


def page_of(outs: Path | list[Path], to: Path, **options: Any) -> Page:
    report(outs, to, **options)
    return Page(to.read_text(encoding="utf-8"))


def decoded(coded: list[int], start_seconds: float) -> list[tuple[float, float]]:
    edges = start_seconds + np.cumsum(coded) / 10
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


@pytest.fixture(scope="module")
def made() -> Film:
    return film(900, 4, seed=7, names=NAMES)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, made: Film) -> Path:
    out = make_store(
        tmp_path_factory.mktemp("report") / "one.zarr", {"film": made.arrays}, extra=made.extra,
        facts={"path": f"/films/{NASTY}.mp4"},
    )  # fmt: skip
    rng = np.random.default_rng(0)
    add_shots(out, "film", {k: rng.integers(0, 255, (2, 96, 96, 3), dtype=np.uint8) for k in (1, 2)})
    return out


@pytest.fixture(scope="module")
def page(store: Path) -> Page:
    return page_of(store, store.with_name("page.html"))


def times(n: int) -> np.ndarray:
    return np.arange(n) * EVERY / FPS


# -- what it says ------------------------------------------------------------------------------------------------


def test_rows_are_people_by_screen_time(page: Page, made: Film) -> None:
    rows = page.rows()
    assert [row["seconds"] for row in rows] == sorted((row["seconds"] for row in rows), reverse=True)
    frames = np.repeat(np.arange(900), made.arrays["n_faces"])
    expected = {}
    for who in range(1, 5):
        rows_of_who = made.person == who
        found = appearances(frames[rows_of_who], times(900), made.arrays["track"][rows_of_who])
        expected[NAMES.get(who) or f"person {who}"] = found
    assert {page.people[row["of"]] for row in rows} == expected.keys()
    for row in rows:
        stretches = expected[page.people[row["of"]]]
        spans = [(one.start_seconds, one.stop_seconds) for one in stretches]
        np.testing.assert_allclose(decoded(row["at"], page.charts["inputs"][0]["start"]), spans, atol=0.051)
        assert row["seconds"] == pytest.approx(sum(one.screen_seconds for one in stretches), abs=0.051)


def test_faces_per_frame_and_attributes_are_means_of_their_bins(page: Page, made: Film) -> None:
    drawn = page.charts["inputs"][0]
    counts = drawn["counts"]["face"]
    n = len(counts["mean"])
    bins = np.minimum((times(900) * (n / (drawn["stop"] - drawn["start"]))).astype(int), n - 1)
    np.testing.assert_allclose(
        counts["mean"], np.bincount(bins, made.arrays["n_faces"]) / np.bincount(bins), atol=0.006
    )
    emotion = drawn["series"]["emotion"]
    n = len(emotion["shares"][0])
    frames = np.repeat(np.arange(900), made.arrays["n_faces"])
    at = np.minimum((frames / 900 * n).astype(int), n - 1)
    happy = made.arrays["emotion"][:, 3]
    for k, share in enumerate(emotion["shares"][3]):
        of_bin = happy[(at == k) & np.isfinite(happy)]
        assert share is None if len(of_bin) == 0 else share == pytest.approx(100 * of_bin.mean(), abs=0.51)
    assert emotion["classes"][3] == "happy"
    assert {one["of"] for one in emotion["followed"]} == set(range(4))


def test_attributes_of_one_person_are_of_that_person(page: Page, made: Film) -> None:
    age = page.charts["inputs"][0]["series"]["age"]
    for part in age["followed"]:
        who = next(k for k in range(1, 5) if (NAMES.get(k) or f"person {k}") == page.people[part["of"]])
        ages = made.arrays["age"][made.person == who]
        known = [value for value in part["mean"] if value is not None]
        assert min(known) >= ages.min() - 0.1
        assert max(known) <= ages.max() + 0.1
        assert np.mean(known) == pytest.approx(ages.mean(), abs=1.5)


def test_histograms_count_every_face(page: Page, made: Film) -> None:
    for name in ("size", "confidence"):
        assert sum(page.charts["histograms"][name]["counts"]) == len(made.person)
        assert len(page.charts["histograms"][name]["edges"]) == len(page.charts["histograms"][name]["counts"]) + 1


def test_scores_beyond_one_have_a_histogram_too() -> None:
    histogram = Histogram(np.linspace(0, 1, 5), grows=True)
    histogram.add(np.array([0.1, 0.3, 0.9, np.nan]))
    histogram.add(np.array([3.9, -1.0]))
    assert histogram.drawn() == {"edges": [0, 1, 2, 3, 4], "counts": [4, 0, 0, 1]}


def test_people_have_their_pictures_and_others_a_placeholder(page: Page) -> None:
    pictures = page.having("img")
    assert len(pictures) == 4
    assert all(str(picture["src"]).startswith("data:image/jpeg;base64,") for picture in pictures)
    assert len(page.having("span", class_="initials")) == 2
    assert "Bo Li" in page.text
    assert "person 4" in page.text


def test_summary(page: Page, made: Film) -> None:
    assert "3 min of video in 1 input" in page.text
    assert f"{len(made.person):,}".replace(",", "\u202f") in page.text.replace(" ", "\u202f")
    assert "100%" in page.text


# -- whom it trusts ----------------------------------------------------------------------------------------------


def test_names_and_paths_are_inert(store: Path, page: Page) -> None:
    text = store.with_name("page.html").read_text(encoding="utf-8")
    assert NASTY not in text
    assert QUOTED not in text
    assert len(page.scripts) == 2
    assert "alert(1)" not in page.scripts[1]
    assert NASTY in page.people
    assert NASTY in page.text
    assert QUOTED in page.text
    assert not page.having("img", src="x")
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)


def test_nothing_is_fetched(page: Page) -> None:
    addresses = [value or "" for _, have in page.tags for key, value in have.items() if key in ("src", "href")]
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    policy = page.having("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert str(policy).startswith("default-src 'none'")


def test_the_policy_lets_the_pages_own_script_run(page: Page) -> None:
    import base64
    import hashlib

    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    policy = str(page.having("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"])
    assert f"'sha256-{digest}'" in policy
    assert page.having("meta", name="viewport")


def test_tags_are_closed(store: Path, page: Page) -> None:
    text = store.with_name("page.html").read_text(encoding="utf-8")
    body = re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    for tag in ("div", "section", "details", "ol", "li", "span", "p", "dl", "main", "figure", "h3", "table"):
        assert len(re.findall(rf"<{tag}\b", body)) == body.count(f"</{tag}>"), tag
    ids = [str(have["id"]) for _, have in page.tags if "id" in have]
    assert len(ids) == len(set(ids))
    targets = {str(have["href"])[1:] for tag, have in page.tags if tag == "a"}
    assert targets <= set(ids)


# -- how large it gets -------------------------------------------------------------------------------------------


def test_three_hours_of_forty_people_fit_in_a_megabyte(tmp_path: Path) -> None:
    n = int(3 * 3600 * FPS / EVERY)
    long = film(n, 40, seed=1)
    out = make_store(tmp_path / "long.zarr", {"long": long.arrays}, extra=long.extra, chunk_frames=n)
    reported = report(out, tmp_path / "long.html")
    assert reported.people == 40
    assert reported.bytes == (tmp_path / "long.html").stat().st_size < 1_000_000
    assert len(Page((tmp_path / "long.html").read_text()).rows()) == 40


def test_a_hundred_inputs_fit_in_two_megabytes(tmp_path: Path) -> None:
    short = film(200, 12, seed=2)
    out = make_store(
        tmp_path / "many.zarr", {f"clip {k}": short.arrays for k in range(100)}, extra=short.extra,
        chunk_frames=200, done_chunks=1,  # all of it, but not compacted: that takes a while a hundred times
    )  # fmt: skip
    reported = report(out, tmp_path / "many.html")
    assert reported.inputs == 100
    assert reported.bytes < 2_000_000
    page = Page((tmp_path / "many.html").read_text())
    panels = page.having("details", class_="panel")
    assert len(panels) == 100
    assert sum("open" in panel for panel in panels) == 3


def test_stretches_are_joined_until_they_fit() -> None:
    n = 4000
    rows = [appearances(np.arange(0, n, 20 + k), times(n), longest_gap_seconds=0.0) for k in range(10)]
    joined = join_to(rows, 200)
    assert sum(map(len, joined)) <= 200 < sum(map(len, rows))
    for row, spans in zip(rows, joined, strict=True):
        assert spans[0][0] == row[0].start_seconds
        assert spans[-1][1] == row[-1].stop_seconds
        assert all(any(a <= one.start_seconds and one.stop_seconds <= b for a, b in spans) for one in row)
    assert [len(spans) for spans in join_to(rows, 10_000)] == [len(row) for row in rows]


# -- other stores ------------------------------------------------------------------------------------------------


def test_half_done_store_says_so(tmp_path: Path) -> None:
    part = film(640, 3, seed=3, people=False, attributes=())
    out = make_store(tmp_path / "half.zarr", {"film": part.arrays}, extra=part.extra, done_chunks=4)
    fail(out, "film", 4, f"decode: broken {NASTY}")
    fail(out, "film", 7, "detect: out of memory")
    with RunStore.open(out) as store:
        store.update(unusable=[{"path": "/films/bad.mp4", "error": "bad.mp4: no video stream"}])
    page = page_of(out, tmp_path / "half.html")
    assert "40.0% of the sampled frames are done" in page.text
    assert "bad.mp4: no video stream" in page.text
    assert f"decode: broken {NASTY}" in page.text
    assert "0:00:51 to 0:01:04" in page.text  # frames 256 to 320 of 5 a second
    assert "reelgraph people" in page.text
    assert "reelgraph find" in page.text
    kinds = [kind for *_, kind in page.charts["inputs"][0]["gaps"]]
    assert sorted(kinds) == ["failed", "failed", "todo"]
    failed = [gap for gap in page.charts["inputs"][0]["gaps"] if gap[2] == "failed"]
    np.testing.assert_allclose([gap[:2] for gap in failed], [[51.2, 64.0], [89.6, 102.4]], atol=0.2)
    assert page.charts["inputs"][0]["stop"] == pytest.approx(128.0)


def test_frames_that_could_not_be_read_are_hatched(tmp_path: Path) -> None:
    out = make_store(tmp_path / "s.zarr", {"film": faces_of(np.ones(100, int), np.zeros((100, 8)))})
    decoded_file = next((out / "film" / "decoded").rglob("c/*"))
    with RunStore.open(out) as store:
        item = store.input("film")
        readable = np.ones(100, bool)
        readable[40:50] = False
        from pipeline.store.compact import add_arrays

        add_arrays(store, "film", [Array("decoded", ("frame",), "bool")], {"decoded": readable}, replace_existing=True)
        item.update(unreadable=[{"chunk": 0, "frames": list(range(200, 250, 5)), "error": "packet is damaged"}])
    assert decoded_file.exists()
    page = page_of(out, tmp_path / "s.html")
    assert page.charts["inputs"][0]["gaps"] == [[8, 10, "unread"]]
    assert "packet is damaged" in page.text
    assert "10 sampled frames" in page.text


NOBODY = film(50, 0, names=NAMES)


@pytest.mark.parametrize("inputs", [{}, {"a": NOBODY.arrays}], ids=["empty", "no face"])
def test_nothing_found(tmp_path: Path, inputs: Mapping[str, Any]) -> None:
    page = page_of(make_store(tmp_path / "s.zarr", inputs, extra=NOBODY.extra), tmp_path / "s.html")
    assert ("The store is empty" in page.text) == (not inputs)
    assert ("No face was found" in page.text) == bool(inputs)
    assert len(page.charts["inputs"]) == len(inputs)


def test_not_one_chunk_done(tmp_path: Path, made: Film) -> None:
    out = make_store(tmp_path / "s.zarr", {"film": made.arrays}, extra=made.extra, done_chunks=0)
    page = page_of(out, tmp_path / "s.html")
    assert "0.0% of the sampled frames are done" in page.text
    assert page.charts["inputs"][0]["gaps"] == [[0, 180, "todo"]]


def test_one_person_in_several_stores_is_one_person(tmp_path: Path) -> None:
    outs = []
    for name, registry_id in (("a", "r"), ("b", "r"), ("c", "another")):
        about = {"registry": "../people.json", "registry_id": registry_id, "names": {"1": "Ann"}}
        arrays = faces_of(np.ones(60, int), np.zeros((60, 8)), person=np.ones(60, np.int32))
        extra = (Array("person", ("face",), "int32", (), about),)
        outs.append(make_store(tmp_path / f"{name}.zarr", {"film": arrays}, extra=extra))
    page = page_of(outs, tmp_path / "all.html")
    assert page.people == ["Ann", "Ann"]
    assert [row["of"] for k in range(3) for row in page.rows(k)] == [0, 0, 1]
    assert "b.zarr / film" in page.text
    assert "in 2 inputs" in page.text


def test_people_without_names_come_with_the_command_that_names_them(tmp_path: Path) -> None:
    unnamed = film(300, 3, seed=4, attributes=())
    page = page_of(make_store(tmp_path / "s.zarr", {"film": unnamed.arrays}, extra=unnamed.extra), tmp_path / "s.html")
    first = page.people[page.rows()[0]["of"]].removeprefix("person ")
    assert f"reelgraph people name {first} NAME --registry {tmp_path.resolve() / 'people.json'}" in page.text


def test_identities_name_people_where_nobody_grouped_them(tmp_path: Path) -> None:
    about = {"names": ["Ann", "Bo", "Bo"]}
    identity = np.array([0] * 30 + [1] * 10 + [2] * 10 + [-1] * 10, np.int32)
    arrays = faces_of(np.ones(60, int), np.zeros((60, 8)), identity=identity)
    out = make_store(tmp_path / "s.zarr", {"film": arrays}, extra=(Array("identity", ("face",), "int32", (), about),))
    page = page_of(out, tmp_path / "s.html")
    assert page.people == ["Ann", "Bo"]
    assert [row["seconds"] for row in page.rows()] == [6.0, 4.0]
    assert any(page.charts["inputs"][0]["lanes"][0]["rest"])


def test_weak_names_are_asked_for_with_a_picture(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", n_frames=60)
    from pipeline.files.fingerprint import fingerprint

    level = np.repeat([Level.SURE, Level.WEAK, Level.WEAK, Level.NONE], 3).astype(np.int8)
    matched = {
        "identity": np.repeat([0, -1, -1, -1], 3).astype(np.int32),
        "candidate": np.repeat([0, 0, 2, 1], 3).astype(np.int32),
        "distance": np.repeat([0.02, 0.07, 0.06, 0.2], 3).astype(np.float32),
        "identity_level": level, "identity_limit": np.full(12, 0.05, np.float32),
    }  # fmt: skip
    arrays = faces_of(np.ones(12, int), np.zeros((12, 8)), np.tile([10, 10, 20, 20], (12, 1)), **matched)
    extra = outputs({"names": ["Ann", "Bo", "Cy"], "per": "track", "metric": "cosine"})
    facts = {"path": str(clip), "fingerprint": fingerprint(clip)}
    out = make_store(tmp_path / "s.zarr", {"clip": arrays}, extra=extra, facts=facts)
    page = page_of(out, tmp_path / "s.html")
    assert page.people == ["Ann"]
    assert "1 appearance · sure" in page.text
    # The likelier first; a name that has a card leads there.
    asked = page.text[page.text.index("Who is this?") :]
    assert asked.index("Cy?") < asked.index("Ann ?")
    assert "cosine 0.060, likely up to 0.050" in asked
    assert page.having("a", href="#person-0")
    assert all(len(page.having("img", alt=f"Face that may be {name}")) == 1 for name in ("Ann", "Cy"))
    assert not page_of(out, tmp_path / "s.html", pictures=False).having("img")


def test_pictures_are_cut_from_the_video_where_it_is(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", n_frames=60)
    from pipeline.files.fingerprint import fingerprint

    about = {"registry": "../people.json", "registry_id": "r", "names": {}}
    arrays = faces_of(
        np.ones(12, int), np.zeros((12, 8)), np.tile([10, 10, 20, 20], (12, 1)), person=np.arange(12) // 6 + 1
    )
    extra = (Array("person", ("face",), "int32", (), about),)
    facts = {"path": str(clip), "fingerprint": fingerprint(clip)}
    out = make_store(tmp_path / "s.zarr", {"clip": arrays}, extra=extra, facts=facts)
    assert len(page_of(out, tmp_path / "s.html").having("img")) == 2
    assert not page_of(out, tmp_path / "s.html", pictures=False).having("img")
    write_clip(clip, n_frames=50)  # another film by now: no picture of it
    assert len(page_of(out, tmp_path / "s.html").having("span", class_="initials")) == 2


# -- speed and licences ------------------------------------------------------------------------------------------


def test_speed_names_the_bottleneck(tmp_path: Path, made: Film) -> None:
    out = make_store(tmp_path / "s.zarr", {"film": made.arrays}, extra=made.extra)
    with RunStore.open(out) as store:
        store.update(
            devices=["cuda"],
            speed={
                "seconds_per_frame": 0.01, "faces_per_frame": 1, "frames": 900, "model_share": 0.75,
                "step_seconds": {"decode": 2.0, "detect": 6.0}, "bottleneck": "detect",
            },
        )  # fmt: skip
    text = page_of(out, tmp_path / "s.html").text
    assert "The bottleneck was detect : models were busy 75% of the time" in text
    assert "100 sampled frames per second, 20× as fast as the video plays" in text
    assert re.search(r"detect 6\.0 s 75%.*decode 2\.0 s 25%", text)


def test_a_run_that_was_broken_off_says_what_its_chunks_took(tmp_path: Path, made: Film) -> None:
    out = make_store(tmp_path / "s.zarr", {"film": made.arrays}, extra=made.extra, done_chunks=2)
    for file in out.glob("film/chunks/*.zip"):
        with zipfile.ZipFile(file) as opened:
            entries = {name: opened.read(name) for name in opened.namelist()}
        node = json.loads(entries["zarr.json"])
        node["attributes"]["seconds"] = {"decode": 3.0, "detect": 1.0}
        with zipfile.ZipFile(file, "w") as opened:
            for name, content in (entries | {"zarr.json": json.dumps(node).encode()}).items():
                opened.writestr(name, content)
    text = page_of(out, tmp_path / "s.html").text
    assert "The bottleneck was decode" in text
    assert re.search(r"decode 6\.0 s 75%", text)


def test_licences_that_restrict_are_flagged(tmp_path: Path, made: Film) -> None:
    out = make_store(tmp_path / "s.zarr", {"film": made.arrays}, extra=made.extra)
    models = [("mtcnn", "MIT"), ("VGG-Face", "non-commercial research"), ("yolov8n", "AGPL-3.0"), ("own", "")]
    with RunStore.open(out) as store:
        store.update(
            models=[{"name": n, "licence": x, "weights_sha256": n * 4, "runtime": "onnxruntime 1"} for n, x in models]
        )
    page = page_of(out, tmp_path / "s.html")
    assert [have["class"] for have in page.having("span") if str(have.get("class", "")).startswith("chip")] == [
        "chip free", "chip caution", "chip restricted", "chip copyleft", "chip unknown",
    ]  # fmt: skip
    assert "Not for commercial use: VGG-Face" in page.text
    assert "VGG-FaceVGG-FaceVGG-FaceVGG-Face" in page.text
    assert "not stated" in page.text


@pytest.mark.parametrize(
    ("licence", "flag"),
    [
        ("CC BY-NC-ND 4.0", "restricted"), ("for research purposes", "restricted"), ("noncommercial", "restricted"),
        ("GPL-3.0", "copyleft"), ("LGPL-2.1", "free"), ("Apache-2.0", "free"), ("CC0-1.0", "free"),
        ("unknown", "unknown"),
    ],
)  # fmt: skip
def test_licence_flags(licence: str, flag: str) -> None:
    assert licence_flag(licence) == flag


# -- the file and the command ------------------------------------------------------------------------------------


def test_where_it_goes(tmp_path: Path, made: Film, capsys: pytest.CaptureFixture[str]) -> None:
    out = make_store(tmp_path / "one.zarr", {"film": made.arrays}, extra=made.extra)
    assert default_place(out) == tmp_path / "one.html"
    assert main(["report", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["file"] == str(tmp_path / "one.html")
    assert said["people"] == 4
    assert said["bytes"] == (tmp_path / "one.html").stat().st_size
    assert main(["report", str(out)]) == 0  # an older report is replaced
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.html", "one.zarr"]


def test_its_folder_is_made(tmp_path: Path, store: Path) -> None:
    report(store, tmp_path / "new" / "folder" / "r.html")
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["r.html"]


@pytest.mark.parametrize(
    ("to", "message"),
    [("mine.html", "is not a report"), ("folder", "is a folder"), ("mine.html/r.html", "cannot be written: ")],
)
def test_mistakes(tmp_path: Path, store: Path, to: str, message: str) -> None:
    (tmp_path / "mine.html").write_text("<title>my own page</title>")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match=message):
        report(store, tmp_path / to)
    assert (tmp_path / "mine.html").read_text() == "<title>my own page</title>"


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store"):
        report(tmp_path / "nothing.zarr", tmp_path / "r.html")
    assert list(tmp_path.iterdir()) == []

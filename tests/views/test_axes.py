"""Export, report and status of stores without a face: rows of any axis, or items alone; a user's own formats."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import pipeline
from pipeline.cli import main
from pipeline.engine import finding
from pipeline.errors import StoreError, UsageError
from pipeline.store.nodes import read_group, write_group
from pipeline.views.export import export, lines
from pipeline.views.report import report
from pipeline.views.status import describe
from pipeline.views.status import lines as status_lines
from tests.made_objects import CLASSES, FEATURES, LENGTH, OBJECTS, make_objects
from tests.made_stores import faces_of, make_store

N = 40
FOREIGN = re.compile(r"\bfaces?\b|people|person|nobody|somebody", re.IGNORECASE)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("axes") / "objects.zarr"
    make_objects(out, N, inputs=("street", "yard"))
    return out


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    return make_objects(tmp_path_factory.mktemp("truth") / "o.zarr", N)


# -- export ------------------------------------------------------------------------------------------------------


def test_every_object_is_a_row(tmp_path: Path, store: Path, truth: dict[str, np.ndarray]) -> None:
    exported = export(store, tmp_path / "t.parquet")
    table = pd.read_parquet(tmp_path / "t.parquet")
    n = len(truth["box"])
    assert (exported.axis, exported.objects, exported.frames, exported.inputs) == ("object", 2 * n, 2 * N, 2)
    assert list(table.columns) == exported.columns == [
        "store", "input", "path", "frame", "time_seconds", "object", "object_in_frame", "x", "y", "w", "h", "class",
        "class_name", "score", "track",
    ]  # fmt: skip
    street = table[table["input"] == "street"]
    at = np.repeat(np.arange(N), truth["n_objects"])
    assert street["frame"].tolist() == truth["frame"][at].tolist()
    assert street["object"].tolist() == list(range(n))
    assert street["object_in_frame"].tolist() == street.groupby("frame").cumcount().tolist()
    np.testing.assert_array_equal(street[["x", "y", "w", "h"]], truth["box"])
    np.testing.assert_array_equal(street["score"], truth["score"])
    assert street["class_name"].tolist() == [CLASSES[k] for k in truth["class"]]
    assert street["track"].fillna(-1).tolist() == truth["track"].tolist()
    assert street["track"].isna().any()


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_vectors_of_any_axis_are_left_out_unless_asked_for(
    tmp_path: Path, store: Path, truth: dict[str, np.ndarray], suffix: str
) -> None:
    assert not any("embedding" in name for name in export(store, tmp_path / f"short.{suffix}").columns)
    columns = export(store, tmp_path / f"long.{suffix}", embeddings=True).columns
    assert columns[-1] == ("embedding_39" if suffix == "csv" else "embedding")
    if suffix == "jsonl":
        first = json.loads((tmp_path / "long.jsonl").read_text().splitlines()[0])
        np.testing.assert_array_equal(np.float32(first["embedding"]), truth["embedding"][0])


def test_json_floats_are_what_is_stored(tmp_path: Path, store: Path, truth: dict[str, np.ndarray]) -> None:
    export(store, tmp_path / "t.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()][: len(truth["box"])]
    at = np.repeat(np.arange(N), truth["n_objects"])
    assert [row["time_seconds"] for row in rows] == truth["time_seconds"][at].tolist()
    assert np.float32([row["x"] for row in rows]).tolist() == truth["box"][:, 0].tolist()
    assert [row["score"] is None for row in rows] == np.isnan(truth["score"]).tolist()


def test_items_are_rows_if_asked_for(tmp_path: Path, store: Path, truth: dict[str, np.ndarray]) -> None:
    exported = export(store, tmp_path / "t.csv", axis="frame")
    table = pd.read_csv(tmp_path / "t.csv")
    assert list(table.columns) == ["store", "input", "path", "frame", "time_seconds", "decoded", "n_objects"]
    assert table["n_objects"].tolist() == 2 * truth["n_objects"].tolist()
    assert lines(exported) == [f"{tmp_path / 't.csv'}: {2 * N} frames, 2 inputs"]
    assert exported.as_dict()["frames"] == 2 * N
    assert "objects" not in exported.as_dict()


def test_items_are_rows_if_there_are_no_others(tmp_path: Path) -> None:
    truth = make_objects(tmp_path / "f.zarr", N, timed=False, arrays=FEATURES)
    exported = export(tmp_path / "f.zarr", tmp_path / "t.parquet", embeddings=True)
    table = pq.read_table(tmp_path / "t.parquet").to_pandas()
    assert exported.axis == "frame"
    expected = ["store", "input", "path", "name", "frame", "decoded", "brightness", "colour", "feature"]
    assert list(table.columns) == expected
    assert table["name"].tolist() == truth["name"].tolist()
    assert table["frame"].tolist() == list(range(N))
    np.testing.assert_array_equal(np.stack(table["colour"].tolist()), truth["colour"])
    np.testing.assert_array_equal(np.stack(table["feature"].tolist()), truth["feature"].astype(np.float32))


def test_rows_of_images_have_their_names(tmp_path: Path) -> None:
    truth = make_objects(tmp_path / "i.zarr", N, timed=False)
    exported = export(tmp_path / "i.zarr", tmp_path / "t.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["name"] for row in rows] == truth["name"][np.repeat(np.arange(N), truth["n_objects"])].tolist()
    assert "time_seconds" not in exported.columns


def test_half_done_store_gives_what_is_done(tmp_path: Path) -> None:
    truth = make_objects(tmp_path / "h.zarr", N, done_chunks=1)
    done = int(truth["n_objects"][:LENGTH].sum())
    assert export(tmp_path / "h.zarr", tmp_path / "t.csv").rows == done
    assert len(pipeline.open(tmp_path / "h.zarr").rows("object")) == done
    assert export(tmp_path / "h.zarr", tmp_path / "u.csv", axis="frame").rows == LENGTH


def test_one_row_and_one_input_are_singular(tmp_path: Path) -> None:
    make_store(tmp_path / "s.zarr", {"a": faces_of(np.array([1]), np.zeros((1, 8)))})
    exported = export(tmp_path / "s.zarr", tmp_path / "t.csv")
    assert lines(exported) == [f"{tmp_path / 't.csv'}: 1 face of 1 frame, 1 input"]


def test_rows_in_python(store: Path, truth: dict[str, np.ndarray]) -> None:
    run = pipeline.open(store)
    rows = run.rows("object", "street")
    np.testing.assert_array_equal(rows["track"], truth["track"], "as stored, not null")
    assert rows["score"].dtype == np.float32
    assert run.rows().equals(run.rows("object"))
    assert len(run.rows("frame")) == 2 * N
    assert rows["class_name"].tolist() == [CLASSES[k] for k in truth["class"]]
    with pytest.raises(UsageError, match="unknown axis 'objekt'; did you mean 'object'"):
        run.rows("objekt")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--axis", "objct"], "unknown axis 'objct'; did you mean 'object'? valid: frame, object"),
        (["--axis", "face"], "valid: frame, object"),
        (["--format", "coco", "--axis", "frame"], "format coco holds rows with 'box' only, not of 'frame'"),
        (["--format", "parket"], "unknown format 'parket'; did you mean 'parquet'?"),
        (["--format", "nowhere.at.all:Class"], "cannot import 'nowhere.at.all'"),
        (["--format", "json:JSONEncoder"], "JSONEncoder is not a subclass of pipeline.Export"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, store: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["export", str(store), "--to", str(tmp_path / "t.csv"), *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "t.csv").exists()


# -- formats of one's own ------------------------------------------------------------------------------------------

OWN = """
    import pipeline

    class Lines(pipeline.Export):
        suffixes = (".lines",)

        def write(self, file, stored):
            for one in stored.inputs:
                rows = sum(len(batch) for batch in one.batches())
                text = f"{one.name}\\n{rows} {stored.axis}\\n{one.item.frames_total} {stored.item}\\n"
                file.write(text.encode())

    class Broken(pipeline.Export):
        def write(self, file, stored):
            file.write(b"half")
            raise KeyError("no such column")
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module with formats in the working folder."""
    name = f"own_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(OWN))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield name
    sys.modules.pop(name, None)
    finding.claims.cache_clear()


def test_a_format_of_a_module_in_the_working_folder(store: Path, own: str, truth: dict[str, np.ndarray]) -> None:
    assert main(["export", str(store), "--to", "t.txt", "--format", f"{own}:Lines"]) == 0
    n = len(truth["box"])
    assert Path("t.txt").read_text() == f"street\n{n} object\n{N} frame\nyard\n{n} object\n{N} frame\n"
    exported = export(store, "u.txt", format=f"{own}:Lines", axis="frame")
    assert (exported.rows, exported.items) == (2 * N, 2 * N)


def test_a_format_of_an_installed_package(tmp_path: Path, store: Path, own: str) -> None:
    about = tmp_path / "own-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1\n")
    (about / "entry_points.txt").write_text(f"[reelgraph.exports]\nthree = {own}:Lines\n")
    sys.path.append(str(tmp_path))
    finding.claims.cache_clear()
    assert export(store, tmp_path / "by-suffix.lines").format == "three"
    assert export(store, tmp_path / "by-name.txt", format="three").objects > 0
    with pytest.raises(UsageError, match="format three does not support --embeddings"):
        export(store, tmp_path / "no.lines", embeddings=True)


def test_a_format_that_fails_says_where_and_leaves_no_file(tmp_path: Path, store: Path, own: str) -> None:
    with pytest.raises(UsageError, match=rf"ends in KeyError: 'no such column' \(.*{own}.py, line \d+\); fix it"):
        export(store, tmp_path / "t.txt", format=f"{own}:Broken")
    assert not (tmp_path / "t.txt").exists()


# -- report --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["objects", "images", "features", "half done", "not begun", "empty"])
def test_a_report_without_faces_speaks_of_none(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "s.zarr"
    make_objects(
        out, N, inputs=() if kind == "empty" else ("a", "b"), timed=kind not in ("images", "features"),
        done_chunks={"half done": 1, "not begun": 0}.get(kind), arrays=FEATURES if kind == "features" else OBJECTS,
    )  # fmt: skip
    reported = report(out)
    page = Path(reported.file).read_text(encoding="utf-8")
    assert not FOREIGN.search(page)
    assert not FOREIGN.search(" ".join(reported.as_dict()))
    has_objects = kind in ("objects", "images", "half done")
    assert ("Objects per frame" in page) == has_objects
    assert ("objects" in reported.as_dict()) == has_objects
    assert re.search(r'<section id="(\w+)"', page) is not None or kind == "empty"


def test_rows_over_time_and_counts(tmp_path: Path, store: Path, truth: dict[str, np.ndarray]) -> None:
    reported = report(store, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    charts = json.loads(page.split('type="application/json">')[1].split("</script>")[0])
    n = len(truth["box"])
    assert (reported.objects, reported.frames, reported.rows) == (2 * n, 2 * N, {"object": 2 * n})
    assert charts["inputs"][0]["counts"]["object"]["mean"] == truth["n_objects"].tolist()
    spread = charts["histograms"]["objects"]
    assert dict(zip(spread["edges"], spread["counts"], strict=False)) == {
        k: 2 * int((truth["n_objects"] == k).sum()) for k in range(4)
    }
    for k, name in enumerate(CLASSES):
        assert f"{name} <b>{2 * int((truth['class'] == k).sum())}</b>" in page
    assert f'<td class="n">{n}' in page


def test_what_is_missing_is_hatched_without_times_too(tmp_path: Path) -> None:
    make_objects(tmp_path / "s.zarr", N, timed=False, done_chunks=1)
    report(tmp_path / "s.zarr", tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    drawn = json.loads(page.split('type="application/json">')[1].split("</script>")[0])["inputs"][0]
    assert (drawn["start"], drawn["stop"], drawn["gaps"]) == (0, N, [[LENGTH, N, "todo"]])
    assert "40.0% of the frames are done" in page
    assert "of video" not in page


PANEL = """
    from pipeline.views.report.panel import Content, InputContent, Panel, Section, Tile

    class Widths(Panel):
        axis = "object"

        def __init__(self, about):
            super().__init__(about)
            self.widest = 0.0

        def start(self, one):
            return ["box", "no such array"]

        def add(self, one, block):
            self.widest = max(self.widest, float(block.arrays["box"][:, 2].max(initial=0)))

        def content(self, inputs):
            inputs = [InputContent(facts=["wide"], cells=["yes"]) for _ in inputs]
            return Content(inputs, tiles=[Tile("widest", f"{self.widest:.3f}")], columns=["is wide"],
                           sections=[Section("widths", "Widths", "<p>of boxes</p>")])
"""


def test_a_panel_of_an_installed_package(
    tmp_path: Path, store: Path, truth: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wide_panel.py").write_text(textwrap.dedent(PANEL))
    about = tmp_path / "wide-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: wide\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[reelgraph.panels]\nwide = wide_panel:Widths\n")
    monkeypatch.syspath_prepend(tmp_path)
    finding.claims.cache_clear()
    try:
        report(store, tmp_path / "r.html")
    finally:
        finding.claims.cache_clear()
        sys.modules.pop("wide_panel", None)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert f"{truth['box'][:, 2].max():.3f}" in page
    for text in ('<section id="widths"', "<p>of boxes</p>", "is wide", "wide · "):
        assert text in page


# -- status --------------------------------------------------------------------------------------------------------


def test_status_counts_rows_without_opening_chunks(tmp_path: Path, store: Path, truth: dict[str, np.ndarray]) -> None:
    status = describe(store)
    n = len(truth["box"])
    assert [one["rows"] for one in status["inputs"]] == [{"object": n}, {"object": n}]
    assert status_lines(status)[:2] == [
        f"{store}: 100.0% done, 2 inputs", f"  street: {N} of {N} frames, {n} objects, complete",
    ]  # fmt: skip
    assert not any("face" in key for one in status["inputs"] for key in one)
    make_objects(tmp_path / "h.zarr", N, done_chunks=1)
    half = describe(tmp_path / "h.zarr")
    assert half["inputs"][0]["rows"] == {}
    assert status_lines(half) == [
        f"{tmp_path / 'h.zarr'}: 40.0% done, 1 input", f"  street: {LENGTH} of {N} frames, 1 of 3 chunks done",
    ]  # fmt: skip


def test_status_of_faces_has_its_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_store(tmp_path / "s.zarr", {"a": faces_of(np.array([1, 2]), np.zeros((3, 8)))})
    assert main(["status", str(tmp_path / "s.zarr"), "--json"]) == 0
    one = json.loads(capsys.readouterr().out)["inputs"][0]
    assert {"name", "frames", "chunks", "frames_done", "complete", "forgotten_faces", "rows"} <= one.keys()
    assert one["rows"] == {"face": 3}
    assert one["chunks"] == {"total": 1, "done": 1, "failed": 0}


def test_a_damaged_array_is_an_error_of_any_view(tmp_path: Path) -> None:
    make_objects(tmp_path / "s.zarr", N)
    scores = (tmp_path / "s.zarr" / "street" / "score").rglob("*")
    shard = next(path for path in scores if path.is_file() and path.name != "zarr.json")
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(StoreError, match="damaged"):
        export(tmp_path / "s.zarr", tmp_path / "t.csv")
    assert not (tmp_path / "t.csv").exists()


@pytest.mark.parametrize("workflow", [{"source": {"kind": "M:Source"}, "stages": {"x": {"use": "M:Stage"}}}, ["odd"]])
def test_a_store_cannot_make_a_view_import_a_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workflow: dict[str, object]
) -> None:
    """Of a store that is not begun, the axes are those of its workflow; a stranger may have written that."""
    (tmp_path / "stranger.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    make_objects(tmp_path / "s.zarr", N, done_chunks=0)
    root = read_group(tmp_path / "s.zarr")
    assert root is not None
    root.attributes["workflow"] = json.loads(json.dumps(workflow).replace("M:", "stranger:"))
    write_group(tmp_path / "s.zarr", root)
    assert export(tmp_path / "s.zarr", "t.csv").rows == 0
    assert report(tmp_path / "s.zarr", "r.html").rows == {}
    assert describe(tmp_path / "s.zarr")["inputs"][0]["rows"] == {}
    assert "stranger" not in sys.modules


def test_a_store_that_is_not_begun_has_the_axes_of_its_workflow(tmp_path: Path) -> None:
    workflow = {"source": {"kind": "video"}, "stages": {"detect": {"use": "detect"}}}
    make_store(tmp_path / "s.zarr", {}, workflow=workflow)
    assert export(tmp_path / "s.zarr", tmp_path / "t.csv").as_dict()["faces"] == 0
    assert report(tmp_path / "s.zarr", tmp_path / "r.html").as_dict()["people"] == 0

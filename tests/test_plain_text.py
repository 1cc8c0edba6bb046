"""Names of files and people may hold control characters: they are shown as text, and spreadsheets compute no cell."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import pipeline
from pipeline.cli import main
from pipeline.engine.events import ChunkDone, InputStarted, Note, RunStarted
from pipeline.faces.commands import say
from pipeline.media.film import lettering
from pipeline.text import plain
from pipeline.views.export import export
from pipeline.views.progress import Bars, PlainLines
from pipeline.views.report import report
from pipeline.views.tables import cell, open_table
from tests.faults import one_stage
from tests.made_stores import film, make_store

NASTY = "a\x1b]0;owned\x07\x1b[2J\x9b31m\u202egpj.exe\u2066\nreelgraph: all is well\r\u2028\x7f\u061c\ufeff"


def controls(text: str) -> str:
    """What a terminal or a page would obey, line ends of our own left out."""
    return "".join(c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Cs") and c != "\n")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Zoë Ångström 李小龙 👩\u200d🚀 می\u200cخواهم\u00a0×", None),
        ("\x1b[31m", r"\x1b[31m"),
        ("one\ntwo\ttab\r", r"one\ntwo\ttab\r"),
        ("a\u202eb\u2066c\u200fd", r"a\u202eb\u2066c\u200fd"),
        ("\x9b1m\x00\x7f", r"\x9b1m\x00\x7f"),
        ("caf\udce9", r"caf\udce9"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_control_characters_are_shown_as_text(text: str, shown: str | None) -> None:
    assert plain(text) == (text if shown is None else shown)


def test_an_error_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / f"{NASTY}.mp4"
    bad.write_bytes(b"no video")
    grey = one_stage(tmp_path, "Faulty", fault="none")
    for words in (
        ["run", str(grey), str(bad), "--out", str(tmp_path / "o.zarr"), "--executor", "inline"],
        ["run", str(grey), str(bad), "--out", str(tmp_path / "o.zarr"), "--set", f"{NASTY}=1"],
        ["plan", str(grey), str(bad), "--out", str(tmp_path / "o.zarr")],
        ["run", NASTY, str(bad), "--out", str(tmp_path / "o.zarr")],
        ["status", str(tmp_path / NASTY)],
        ["report", str(tmp_path / NASTY)],
        ["models", NASTY],
    ):
        assert main(words) == 2
        printed = capfd.readouterr()
        assert controls(printed.out + printed.err) == ""
        assert r"\x1b" in printed.out + printed.err
        assert not re.search(r"^reelgraph: all is well", printed.out + printed.err, re.MULTILINE)


def test_a_wrong_flag(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", f"--{NASTY}"])
    with pytest.raises(SystemExit):
        main([NASTY])
    assert controls(capfd.readouterr().err) == ""


def test_workflow_text(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for number, document in enumerate((
        {"source": {"kind": NASTY}, "stages": {}},
        {"source": {}, "stages": {NASTY: {"use": "detect"}}},
        {"source": {}, "stages": {"detect": {"use": NASTY}}},
        {"source": {}, "stages": {"detect": {"use": "detect", NASTY: 1}}},
        {"source": {}, "stages": {"detect": {"use": "detect", "model": NASTY}}},
    )):
        path = tmp_path / f"{number}.yaml"
        path.write_text(json.dumps(document))
        main(["workflows", str(path)])
        printed = capfd.readouterr()
        assert controls(printed.out + printed.err) == ""


def test_progress(capfd: pytest.CaptureFixture[str]) -> None:
    events = [
        RunStarted("o.zarr", 1, "frame", ("face",)), Note(NASTY), InputStarted(NASTY, 10),
        ChunkDone(NASTY, 0, 10, {"face": 1}, {}, elapsed_seconds=1.0),
    ]  # fmt: skip
    with PlainLines(0.0) as lines:
        for event in events:
            lines.on(event)
    say(NASTY)
    assert controls(capfd.readouterr().err) == ""
    with Bars() as bars:
        bars.console.file = shown = io.StringIO()
        for event in events:
            bars.on(event)
        bars.bars.refresh()
    assert controls(shown.getvalue()) == ""
    assert r"\x1b" in shown.getvalue()


def test_on_a_terminal(tmp_path: Path) -> None:
    """Rich writes sequences of its own there; none of them comes from a name."""
    bad = tmp_path / f"{NASTY}.mp4"
    bad.write_bytes(b"no video")
    ours, theirs = pty.openpty()
    words = ["run", "faces", str(bad), "--out", str(tmp_path / "o.zarr"), "--executor", "inline"]
    process = subprocess.Popen([sys.executable, "-m", "pipeline", *words], stdout=theirs, stderr=theirs)
    os.close(theirs)
    read = b""
    try:
        while piece := os.read(ours, 1 << 16):
            read += piece
    except OSError:  # the end of a terminal
        pass
    os.close(ours)
    assert process.wait(60) == 2
    text = read.decode()
    assert r"\x1b]0;owned\x07\x1b[2J" in re.sub(r"\r\n", "", text)
    assert "\x1b]0;owned" not in text
    assert "\x1b[2J" not in text
    assert "\u202e" not in text


def test_people_and_the_report(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made = film(60, 2, seed=1, names={1: NASTY})
    out = make_store(tmp_path / "one.zarr", {"film": made.arrays}, extra=made.extra)
    report(out, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "owned" in page
    assert set(controls(page)) <= {"\t"}
    charts = re.search(r'<script id="charts" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert charts is not None
    names = json.loads(charts[1])["lanes"]
    assert r"\x1b" in str(names)
    assert controls(json.dumps(names, ensure_ascii=False)) == ""
    assert not re.search(r"(?<!\\)\\u(202e|001b)", charts[1])  # JSON's own escape gives the character back
    main(["status", str(out)])
    assert controls(capfd.readouterr().out) == ""


def test_names_in_a_film_are_drawn_as_text() -> None:
    assert lettering.drawable("Ann\x1b[31m\u202e", "person 1") == r"Ann\x1b[31m\u202e"


FORMULAS = ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "=cmd|' /C calc'!A0", '=HYPERLINK("http://x")', "-", "＝1+1"]
KEPT = ["Ann", "-1.5", "+49", "1e5", "-2E-3", "a=b", "O'Neil", "", "Ann, with a comma", '"quoted"']


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_text(text: str) -> None:
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize("text", KEPT)
def test_numbers_and_names_stay(text: str) -> None:
    assert cell(text) == text


@pytest.mark.parametrize("first", ["\t", "\r", "\n"])
def test_a_cell_that_begins_with_a_control_character(first: str) -> None:
    assert cell(f"{first}=1") == "'" + repr(first)[1:-1] + "=1"


def test_a_table_of_find(tmp_path: Path) -> None:
    names = [*FORMULAS, *KEPT]
    numbers = -np.arange(len(names)) - 0.5
    with open_table(tmp_path / "t.csv") as table:
        table.write({"=name": names, "value": numbers, "whole": np.arange(len(names)) - 3, "none": [None] * len(names)})
        table.write({"=name": ["=2"], "value": [-1.5], "whole": [-1], "none": [None]})
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0][0] == "'=name"
    assert [row[0] for row in rows[1:]] == [cell(name) for name in [*names, "=2"]]
    assert [float(row[1]) for row in rows[1:]] == [*numbers, -1.5]
    assert rows[1][2] == "-3"
    read = pd.read_csv(tmp_path / "t.csv")
    assert read["value"].dtype == float
    assert read["whole"].dtype == int


def test_an_export(tmp_path: Path) -> None:
    made = film(60, 2, seed=1, names={1: "=1+1", 2: "-1.5"})
    out = make_store(tmp_path / "one.zarr", {"film": made.arrays}, extra=made.extra)
    for suffix in ("csv", "jsonl", "parquet"):
        export(out, tmp_path / f"rows.{suffix}")
    names = set(pd.read_csv(tmp_path / "rows.csv", dtype=str)["person_name"].dropna())
    assert names <= {"'=1+1", "-1.5"}
    assert "'=1+1" in names
    assert "=1+1" in set(pd.read_parquet(tmp_path / "rows.parquet")["person_name"].dropna())
    faces = pipeline.open(out).faces()
    read = pd.read_csv(tmp_path / "rows.csv")
    np.testing.assert_allclose(read["x"], faces["x"], rtol=1e-6)

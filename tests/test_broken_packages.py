"""An installed package whose entry points cannot be loaded: what needs them says so, everything else works."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.engine import finding
from tests.own import PLAIN, Own

GROUPS = ("stages", "sources", "exports", "panels", "searches", "drawers", "commands", "models")


@pytest.fixture(autouse=True)
def _package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    info = tmp_path / "packages" / "absent-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: absent\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("".join(f"[reelgraph.{one}]\nlost = absent_module:X\n" for one in GROUPS))
    monkeypatch.setattr(sys, "path", [*sys.path, str(info.parent)])
    monkeypatch.setattr(finding, "_reported", set())
    finding.claims.cache_clear()
    yield
    finding.claims.cache_clear()


def test_the_others_work(own: Own, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own.module("plain", PLAIN)
    own.run(own.workflow({"mine": "plain:Square"}))
    out, table = str(own.out), str(tmp_path / "table.csv")
    for words, what in {
        ("export", out, "--to", table): "format 'lost': cannot import 'absent_module'",
        ("report", out, "--no-pictures"): "panel 'lost': cannot import 'absent_module'",
        ("workflows",): "stage 'lost': cannot import 'absent_module'",
    }.items():
        assert main(list(words)) == 0, words
        shown = capsys.readouterr().err
        assert shown.count(what) == 1
        assert "Traceback" not in shown
    for command, group in {"find": "searches", "annotate": "drawers"}.items():
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0
        assert f"'lost' of reelgraph.{group} cannot be loaded (absent_module:X)" in capsys.readouterr().err
    assert Path(table).is_file()


def test_what_needs_it_says_so(own: Own) -> None:
    with pytest.raises(finding.WorkflowError, match=r"stage 'lost': cannot import 'absent_module'"):
        own.run(own.workflow({"mine": "lost"}))


@pytest.fixture
def _two_packages(tmp_path: Path, own: Own) -> None:
    """Both name a stage `same` and a command `extra`, and claim names of ours."""
    own.module("plain", PLAIN)
    for package in ("first", "second"):
        info = tmp_path / "packages" / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        points = {"stages": f"detect = {package}:X\nsame = {package}:X\n"}
        points["commands"] = f"run = {package}:X\nextra = {package}:X\n"
        lines = "".join(f"[reelgraph.{group}]\n{text}" for group, text in points.items())
        (info / "entry_points.txt").write_text(lines)
    finding.claims.cache_clear()


@pytest.mark.usefixtures("_two_packages")
def test_a_name_that_several_packages_have(own: Own, capsys: pytest.CaptureFixture[str]) -> None:
    assert finding.find_stage("detect").__module__.startswith("pipeline."), "ours stays ours"
    with pytest.raises(finding.WorkflowError, match="stage 'same' is the name of first:X and of second:X; write"):
        own.run(own.workflow({"mine": "same"}))
    assert main(["workflows"]) == 0
    assert "stage 'same' is the name of first:X and of second:X" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["run", "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().err == ""
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().err.splitlines()
    assert shown == [
        "reelgraph: command 'lost' cannot be loaded (absent_module:X): No module named 'absent_module'",
        "reelgraph: command 'extra' is that of first:X, not of second:X; remove one",
        "reelgraph: command 'extra' cannot be loaded (first:X): No module named 'first'",
    ]

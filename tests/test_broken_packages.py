"""An installed package whose entry points cannot be loaded: what needs them says so, everything else works."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.engine import finding
from tests.own import PLAIN, Own

GROUPS = ("stages", "sources", "exports", "panels", "searches", "drawers", "commands")


@pytest.fixture(autouse=True)
def _package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    info = tmp_path / "packages" / "absent-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: absent\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("".join(f"[reelgraph.{one}]\nlost = absent_module:X\n" for one in GROUPS))
    monkeypatch.setattr(sys, "path", [*sys.path, str(info.parent)])
    monkeypatch.setattr(finding, "_reported", set())
    finding.names.cache_clear()
    yield
    finding.names.cache_clear()


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

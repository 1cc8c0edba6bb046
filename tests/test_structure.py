"""The package keeps its floors: imports go down only, nothing goes round, and the engine knows no faces."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

import pytest

from tests import structure

GENERAL = ("engine", "store", "cluster", "files", "machine")


def test_every_folder_has_a_floor() -> None:
    for module in structure.modules():
        structure.floor(module)
    assert len(structure.FLOORS) <= 9
    assert len(structure.loose_files()) <= 9


def test_imports_go_down() -> None:
    shown = [f"{one.source} -> {one.target}" for one in structure.upward()]
    assert shown == []


def test_no_circle() -> None:
    assert structure.circle() == []


@pytest.mark.parametrize(
    ("place", "line", "target"),
    [
        ("engine/run.py", "from pipeline.faces.people import registry", "faces/people/registry.py"),
        ("store/read.py", "import pipeline.engine.plan", "engine/plan.py"),
        ("views/plan.py", "def late():\n    from pipeline.commands import run", "commands/run.py"),
    ],
    ids=["faces in the engine", "the engine in the store", "late, in a function"],
)
def test_an_import_upward_is_found(
    place: str, line: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule must be able to fail."""
    for name, text in ((place, line), (target, "")):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    monkeypatch.setattr(structure, "PACKAGE", tmp_path)
    assert [one.source for one in structure.upward()] == [structure.module_name(tmp_path / place)]


@pytest.mark.parametrize("folder", GENERAL)
def test_the_general_rooms_know_no_faces_and_no_videos(folder: str) -> None:
    """In names and texts; comments and docstrings may give examples."""
    found = []
    for path in (structure.PACKAGE / folder).rglob("*.py"):
        found += [f"{path.name}:{line}: {text}" for line, text in _code(path) if _names_a_domain(text)]
    assert found == []


def _names_a_domain(text: str) -> bool:
    return bool(re.search(r"video|face", re.sub(r"interface|surface", "", text), re.IGNORECASE))


def _code(path: Path) -> list[tuple[int, str]]:
    """Return line and text of every token but comments and docstrings."""
    found, begins = [], True
    for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
        if token.type in (tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT):
            continue
        if token.type == tokenize.NEWLINE:
            begins = True
            continue
        if not (begins and token.type == tokenize.STRING):
            found.append((token.start[0], token.string))
        begins = False
    return found

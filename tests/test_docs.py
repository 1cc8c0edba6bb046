"""The guides of docs/: each example is written, run, and compared with what the page says that it prints."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pipeline
from tests.docs import Reader, blocks

DOCS = Path(__file__).parent.parent / "docs"
GUIDES = sorted(path.name for path in DOCS.glob("writing-*.md"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    pipeline.make_demo_clip(path, seconds=3, size=(640, 360))
    return path


@pytest.fixture
def reader(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    monkeypatch.setenv("COLUMNS", "200")
    shutil.copy2(clip, tmp_path / "clip.mp4")
    made = Reader(tmp_path, monkeypatch)
    yield made
    made.leave()


@pytest.mark.slow
@pytest.mark.parametrize("name", GUIDES)
def test_each_example_does_what_the_page_says(name: str, reader: Reader) -> None:
    assert reader.follow(DOCS / name) >= 2


def test_there_is_a_guide_for_each_thing_to_write() -> None:
    assert GUIDES == [
        "writing-a-panel-or-command.md",
        "writing-a-source.md",
        "writing-a-stage.md",
        "writing-an-export.md",
    ]
    assert all(any(block.language == "sh" for block in blocks(DOCS / name)) for name in GUIDES)


@pytest.mark.slow
def test_the_reference_is_made_without_a_warning(tmp_path: Path) -> None:
    """In a process of its own: it leaves pages in memory, and names in the package."""
    pytest.importorskip("pdoc")
    done = subprocess.run(
        [sys.executable, DOCS / "reference.py", tmp_path], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    package = (tmp_path / "pipeline.html").read_text(encoding="utf-8")
    for name in ("run", "open", "Stage", "Source", "Export"):
        assert f'id="{name}"' in package, name
    stage = (tmp_path / "pipeline" / "engine" / "stage.html").read_text(encoding="utf-8")
    assert "float64 (n,): presentation time of each frame" in stage, "docstrings of fields are in it"


def test_the_reference_has_every_module_that_the_package_names() -> None:
    """The list in the package's docstring is the one that docs/reference.py makes pages of."""
    named = set(re.findall(r"`(pipeline\.[\w.]+)`", (pipeline.__doc__ or "").partition("extend it:")[2]))
    made = set(re.findall(r'"(pipeline\.[\w.]+)"', (DOCS / "reference.py").read_text(encoding="utf-8")))
    assert named == made - {"pipeline.deepface"}

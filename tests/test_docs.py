"""The guides of docs/: each example is written, run, and compared with what the page says that it prints."""

from __future__ import annotations

import shutil
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

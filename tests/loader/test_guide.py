"""docs/loader.md: its programs are run, and its tables name all that there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.loader.augment import Augment
from tests.docs import Reader
from tests.loader.made_pictures import PICTURES, folder

PAGE = Path(__file__).parents[2] / "docs" / "loader.md"


@pytest.mark.slow
def test_the_page_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path / "photos", PICTURES[:24])
    reader = Reader(tmp_path, monkeypatch)
    assert reader.follow(PAGE) >= 7
    reader.leave()
    assert "is the knee" in PAGE.read_text()
    assert "images/s; the consumer waits" in (tmp_path / "loader.html").read_text()
    assert (tmp_path / "shard.tar").stat().st_size > 24 * 512


def test_the_page_lists_all_parameters() -> None:
    text = PAGE.read_text()
    table = text[text.index("## Augmentation") : text.index("Beside Keras' own")]
    named = {
        name for row in re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    assert named | {"mean", "std"} == set(Augment.model_fields)

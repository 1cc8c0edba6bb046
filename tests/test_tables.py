"""Tables that grow block by block, and appear whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest

from pipeline.errors import UsageError
from pipeline.views.tables import FORMATS, open_table

READERS: dict[str, Any] = {
    "parquet": lambda path: pyarrow.parquet.read_table(path).to_pandas(),
    "csv": lambda path: pd.read_csv(path, keep_default_na=False),
    "jsonl": lambda path: pd.read_json(path, lines=True),
}


def block(*names: str) -> dict[str, Any]:
    return {"name": np.array(names, object), "face": np.arange(len(names)), "known": np.ones(len(names), bool)}


@pytest.mark.parametrize("suffix", FORMATS)
def test_blocks_follow_each_other(tmp_path: Path, suffix: str) -> None:
    """The first one may have no row, and so no types."""
    path = tmp_path / f"t{suffix}"
    with open_table(path) as table:
        for names in ((), ("Ann", 'B"o, b'), (), ("Zoë",)):
            table.write(block(*names))
        assert not path.exists(), "before it is whole"
    found = READERS[FORMATS[suffix]](path)
    assert found["name"].tolist() == ["Ann", 'B"o, b', "Zoë"]
    assert found["face"].tolist() == [0, 1, 0]
    assert found["known"].all()


@pytest.mark.parametrize("suffix", FORMATS)
def test_no_row_at_all_is_a_file_too(tmp_path: Path, suffix: str) -> None:
    with open_table(tmp_path / f"t{suffix}") as table:
        table.write(block())
    assert (tmp_path / f"t{suffix}").is_file()
    assert len(list(tmp_path.iterdir())) == 1


def test_what_failed_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("old")

    def write_and_fail() -> None:
        with open_table(path) as table:
            table.write(block("Ann"))
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write_and_fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_unknown_suffix_is_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown suffix '\.xls'"), open_table(tmp_path / "t.xls"):
        pass
    assert not list(tmp_path.iterdir())

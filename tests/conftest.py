"""What tests of several areas share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of test clips and photographs; skips where it is absent."""
    default = Path(__file__).parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("REELGRAPH_DATA", default))
    if not (folder / "MANIFEST.md").is_file():
        pytest.skip(f"no test data in {folder}; set REELGRAPH_DATA")
    return folder

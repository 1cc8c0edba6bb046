"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def workflows() -> Path:
    return REPOSITORY / "workflows"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real clips, faces and weights; see REELGRAPH_DATA."""
    path = Path(os.environ.get("REELGRAPH_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (path / "videos").is_dir():
        pytest.skip(f"no test data at {path}; set REELGRAPH_DATA")
    return path


@pytest.fixture(scope="session", autouse=True)
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the session's own, for this process and those it starts."""
    path = tmp_path_factory.mktemp("cache")
    os.environ["REELGRAPH_CACHE"] = str(path)
    return path

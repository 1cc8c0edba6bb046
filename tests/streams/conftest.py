"""Films and cameras that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.streams.cameras import HttpCamera, write_film


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifty numbered frames, a second long, with a key frame every 10."""
    return write_film(tmp_path_factory.mktemp("camera") / "film.mp4", 50, fps=50)


@pytest.fixture
def camera(film: Path) -> Iterator[HttpCamera]:
    camera = HttpCamera(film)
    yield camera
    camera.close()

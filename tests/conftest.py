import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of test clips and faces; the test is skipped where there is none."""
    folder = Path(os.environ.get("REELGRAPH_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}; set REELGRAPH_DATA")
    return folder

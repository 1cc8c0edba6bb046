"""docs/match.md: its commands and programs are run, over the pictures that docs/match.py draws."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pipeline
from tests.docs import Reader

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.slow
def test_the_page_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("skimage.data")
    spec = importlib.util.spec_from_file_location("docs_match", DOCS / "match.py")
    assert spec is not None
    assert spec.loader is not None
    drawer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drawer)
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(3)
    for name in ("coffee", "astronaut"):
        picture = drawer.PHOTOGRAPHS[name]()
        for view in range(2):
            seen = picture if view == 0 else drawer.warped(picture, rng)
            Image.fromarray(seen).save(tmp_path / "photos" / f"{name}_{view}.png")
    reader = Reader(tmp_path, monkeypatch)
    assert reader.follow(DOCS / "match.md") >= 8
    reader.leave()
    run = pipeline.open(tmp_path / "runs" / "photos.zarr")
    names, pairs = run.array("photos", "name"), run.inputs["photos-pairs"]
    photograph = np.array([name.split("_")[0] for name in names])
    same = (photograph[pairs.array("a")] == photograph[pairs.array("b")]).tolist()
    assert (pairs.array("n_inliers") >= 15).tolist() == same
    assert {path.name for path in (tmp_path / "one").iterdir()} == {"coffee_0_coffee_1.jpg"}
    assert len(list((tmp_path / "matches").iterdir())) == min(10, int((pairs.array("n_matches") > 0).sum()))

"""A part of the picture: stages count pixels from its corner, the store from that of the upright frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import pipeline
from pipeline.errors import StoreError
from tests.clips import write_clip

MODULE = """
import numpy as np

from pipeline import Array, Stage


class Corner(Stage):
    needs = ("frames_rgb",)
    outputs = (Array("n_faces", ("frame",), "int32"), Array("box", ("face", "side"), "float32", (4,), place="xywh"),
               Array("landmarks", ("face", "landmark", "axis"), "float32", (5, 2), place="xy"))

    def run(self, chunk):
        n = len(chunk.frame)
        return {"n_faces": np.ones(n, "int32"), "box": np.tile([3, 4, 10, 12], (n, 1)),
                "landmarks": np.tile([5.0, 6.0], (n, 5, 1))}


class Seen(Stage):
    needs = ("frames_rgb", "n_faces", "box", "landmarks")
    outputs = (Array("seen", ("face", "value"), "float32", (6,)),)

    def run(self, chunk):
        return {"seen": np.concatenate([chunk["box"], chunk["landmarks"][:, 0]], axis=1)}
"""
CORNER = "source: {every: 5, roi: [40, 30, 80, 60]}\nstages:\n  corner: {use: 'roi_stages:Corner'}\n"
SEEN = "  seen: {use: 'roi_stages:Seen', after: corner}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "roi_stages.py").write_text(MODULE)
    (tmp_path / "corner.yaml").write_text(CORNER)
    (tmp_path / "both.yaml").write_text(CORNER + SEEN)
    write_clip(tmp_path / "clip.mp4", n_frames=20)
    return tmp_path


@pytest.mark.parametrize("workflows", [["both"], ["corner", "both"]], ids=["at once", "one after the other"])
def test_places_are_those_of_the_upright_frame(folder: Path, workflows: list[str]) -> None:
    for name in workflows:
        run = pipeline.run(folder / f"{name}.yaml", folder / "clip.mp4", folder / "out.zarr", executor="inline")
        assert run.summary.exit_code == 0
    item = run.input("clip")
    assert item.attributes["roi"] == [40, 30, 80, 60]
    np.testing.assert_array_equal(item.array("box"), np.tile([43, 34, 10, 12], (4, 1)))
    np.testing.assert_array_equal(item.array("landmarks")[:, 2], np.tile([45, 36], (4, 1)))
    np.testing.assert_array_equal(item.array("seen"), np.tile([3, 4, 10, 12, 5, 6], (4, 1)))


def test_another_part_is_refused(folder: Path) -> None:
    arguments = (folder / "corner.yaml", folder / "clip.mp4", folder / "out.zarr")
    pipeline.run(*arguments, executor="inline")
    with pytest.raises(StoreError, match=r"source\.roi: "):
        pipeline.run(*arguments, executor="inline", set={"source.roi": [40, 30, 80, 50]})


def test_faces_lie_where_they_are_in_the_whole_frame(data_dir: Path, workflows: Path, tmp_path: Path) -> None:
    clip = data_dir / "videos" / "asl_A_again.mkv"
    found = [
        pipeline.run(workflows / "faces.yaml", clip, tmp_path / f"{number}.zarr", executor="inline", set=chosen).input(
            clip.stem
        )
        for number, chosen in enumerate(({"source.every": 60}, {"source.every": 60, "source.roi": [200, 20, 300, 300]}))
    ]
    for name in ("box", "landmarks"):
        whole, part = (item.array(name)[item.array("face_frame").tolist().index(1)] for item in found)
        np.testing.assert_allclose(part, whole, atol=4)

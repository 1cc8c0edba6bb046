"""Stages of scope `input`: after the chunks, once, and again only when what they rest on changed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline
from pipeline.engine.workflow import load_workflow
from pipeline.errors import WorkflowError
from tests.clips import write_clip

MODULE = '''
import hashlib
from pathlib import Path

import numpy as np

from pipeline import Array, Stage, StageOptions
from pipeline.engine.stage import Described


class Grey(Stage):
    needs = ("frames_rgb",)
    outputs = (Array("grey", ("frame",), "float32"),)

    def run(self, chunk):
        return {"grey": chunk.frames_rgb.mean(axis=(1, 2, 3)).astype("float32")}


class OrderOptions(StageOptions):
    table: str = ""
    fault: bool = False


class Order(Stage):
    """Place of each frame by brightness, and the three brightest frames (a dim of its own)."""
    needs = ("grey",)
    outputs = (Array("order", ("frame",), "int32"), Array("bright", ("shot", "value"), "float32", (2,)))
    scope = "input"
    Options = OrderOptions

    def content(self):
        table = self.options.table
        return hashlib.sha256(Path(table).read_bytes()).hexdigest() if table else ""

    def run_input(self, item):
        with open(Path(__file__).parent / "calls.txt", "a") as file:
            file.write("order\\n")
        if self.options.fault:
            raise ValueError("made to fail")
        grey = item.array("grey")
        best = np.argsort(-grey, kind="stable")
        order = np.empty(len(grey), "int32")
        order[best] = np.arange(len(grey))
        words = Path(self.options.table).read_text() if self.options.table else "none"
        return {"order": Described(order, {"words": words}),
                "bright": np.stack([best[:3], grey[best[:3]]], axis=1)}


class Twice(Stage):
    needs = ("order",)
    outputs = (Array("twice", ("frame",), "int32"),)
    scope = "input"

    def run_input(self, item):
        with open(Path(__file__).parent / "calls.txt", "a") as file:
            file.write("twice\\n")
        return {"twice": item.array("order") * 2}


class Late(Stage):
    needs = ("order",)
    outputs = (Array("late", ("frame",), "int32"),)
'''
YAML = """
source: {{kind: video, every: 10}}
stages:
  grey: {{use: "derived_stages:Grey"}}
  order: {{use: "derived_stages:Order", table: "{table}", fault: {fault}}}
  twice: {{use: "derived_stages:Twice"}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("derive")
    (folder / "derived_stages.py").write_text(MODULE)
    (folder / "table.txt").write_text("one")
    write_clip(folder / "clip.mp4", n_frames=200)
    return folder


@pytest.fixture
def calls(folder: Path) -> Any:
    """The stages called since last asked."""
    log = folder / "calls.txt"
    log.write_text("")

    def asked() -> list[str]:
        lines = log.read_text().split()
        log.write_text("")
        return lines

    return asked


def workflow(folder: Path, table: str = "", fault: bool = False) -> Path:
    path = folder / "derive.yaml"
    path.write_text(YAML.format(table=table, fault=str(fault).lower()))
    return path


def run(folder: Path, out: Path, **options: Any) -> Any:
    return pipeline.run(workflow(folder, **options), folder / "clip.mp4", out, executor="inline")


def test_they_follow_the_chunks_once(folder: Path, tmp_path: Path, calls: Any) -> None:
    out = tmp_path / "out.zarr"
    done = run(folder, out)
    item = done.input("clip")
    assert calls() == ["order", "twice"]
    assert done.summary.exit_code == 0
    assert sorted(done.summary.derived) == ["order", "twice"]
    assert item.array("order").tolist() == list(range(19, -1, -1))  # the clip gets brighter
    assert item.array("twice").tolist() == list(range(38, -1, -2))
    assert item.array("bright").shape == (3, 2)
    assert item.array("bright")[:, 0].tolist() == [19, 18, 17]
    assert item.arrays["order"].attributes == {"words": "none"}
    assert {stage: facts["state"] for stage, facts in item.attributes["stages"].items()} == {
        "grey": "complete", "order": "complete", "twice": "complete",
    }  # fmt: skip
    again = run(folder, out)
    assert (calls(), again.summary.derived, again.summary.chunks) == ([], {}, 0)


def test_another_content_redoes_them_and_no_chunk(folder: Path, tmp_path: Path, calls: Any) -> None:
    out = tmp_path / "out.zarr"
    table = folder / "table.txt"
    run(folder, out, table=str(table))
    calls()
    before = (out / "clip" / "grey" / "zarr.json").stat().st_mtime_ns
    table.write_text("two")
    done = run(folder, out, table=str(table))
    assert calls() == ["order", "twice"]
    assert (done.summary.exit_code, done.summary.chunks) == (0, 0)
    assert done.input("clip").arrays["order"].attributes == {"words": "two"}
    assert (out / "clip" / "grey" / "zarr.json").stat().st_mtime_ns == before


def test_a_lost_array_is_made_again(folder: Path, tmp_path: Path, calls: Any) -> None:
    """As after a kill between taking an old array away and committing the new one."""
    from pipeline.store.nodes import Group, read_group, write_group

    out = tmp_path / "out.zarr"
    run(folder, out)
    calls()
    group = read_group(out / "clip")
    assert group is not None
    kept = {name: node for name, node in group.arrays.items() if name != "order"}
    write_group(out / "clip", Group(group.attributes, kept, group.consolidated))
    shutil.rmtree(out / "clip" / "order")
    done = run(folder, out)
    assert calls() == ["order"]
    assert done.input("clip").array("order").tolist() == list(range(19, -1, -1))


def test_one_that_fails_spares_the_rest(folder: Path, tmp_path: Path, calls: Any) -> None:
    out = tmp_path / "out.zarr"
    done = run(folder, out, fault=True)
    assert done.summary.exit_code == 1
    (underived,) = done.summary.underived
    assert (underived["input"], underived["step"]) == ("clip", "order")
    assert re.fullmatch(r"order: ValueError: made to fail \(.*derived_stages\.py, line \d+\)", underived["error"])
    assert "made to fail" in (tmp_path / "out.zarr.errors.log").read_text()
    assert len(done.input("clip").array("grey")) == 20
    mended = run(folder, out)
    assert (mended.summary.exit_code, mended.summary.chunks) == (0, 0)
    assert calls() == ["order", "order", "twice"]
    np.testing.assert_array_equal(mended.input("clip").array("twice"), np.arange(38, -1, -2))


def test_no_stage_of_chunks_comes_after_one(folder: Path, tmp_path: Path) -> None:
    path = folder / "late.yaml"
    path.write_text(YAML.format(table="", fault="false") + '  late: {use: "derived_stages:Late"}\n')
    with pytest.raises(WorkflowError, match=r"stages\.late: it runs on chunks and cannot come after 'order'"):
        load_workflow(path)

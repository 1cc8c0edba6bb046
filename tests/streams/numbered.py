"""A workflow whose stage reads the number that a frame of `tests.streams.cameras` shows."""

from __future__ import annotations

from pathlib import Path

import pipeline

STAGE = f'''
import sys

import numpy as np

from pipeline import Array, Stage

sys.path.insert(0, {str(Path(__file__).parents[2])!r})  # so that workers find the tests


class Number(Stage):
    needs = ("frames_rgb",)
    outputs = (Array("number", dims=("frame",), dtype="int32"),)

    def run(self, chunk):
        from tests.streams.cameras import number_in

        return {{"number": np.array([number_in(one) for one in chunk["frames_rgb"]], np.int32)}}


class Again(Number):
    outputs = (Array("again", dims=("frame",), dtype="int32"),)

    def run(self, chunk):
        return {{"again": super().run(chunk)["number"]}}
'''


def write_workflow(folder: Path) -> Path:
    """Write the workflow and its stage; return the path of the workflow."""
    (folder / "numbered_stage.py").write_text(STAGE)
    path = folder / "numbered.yaml"
    path.write_text('source: {every: 1}\nstages:\n  number: {use: "numbered_stage:Number"}\n')
    return path


def analysed(out: Path) -> dict[str, list[int]]:
    """Return the numbers that a store has of each input, in the order of the frames; all of them are decoded."""
    run = pipeline.open(out)
    found = {}
    for name, item in run.inputs.items():
        assert item.array("decoded").all(), name
        found[name] = item.array("number").tolist()
    return found

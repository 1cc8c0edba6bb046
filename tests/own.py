"""Stages and a source of a user's own, in modules beside the workflow. The source reads numbers; no film is needed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import pipeline
from pipeline.faces.table import FacesRun

SOURCE = '''
"""Items are the lines of a text file, each with one number."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline import Array
from pipeline.engine.source import InputRef, Job, Loaded, Source, SourceOptions
from pipeline.errors import InputError


class NumbersOptions(SourceOptions):
    skip: int = 0
    note: str = ""

    UNKEYED = ("note",)


@dataclass(frozen=True)
class NumbersJob(Job):
    path: str
    start: int
    stop: int

    def load(self, threads=1):
        words = Path(self.path).read_text().split()[self.start : self.stop]
        decoded = np.array([word != "?" for word in words])
        numbers = np.array([float(word) if good else 0 for word, good in zip(words, decoded)])
        return Loaded({"number": numbers}, decoded, None if decoded.all() else "a line is unreadable")


class Numbers(Source):
    kind = "numbers"
    Options = NumbersOptions
    arrays = (Array("line", ("frame",), "int32"), Array("word", ("frame",), "str"))
    loads = ("number",)
    most_items = 5
    item_bytes = 8

    def __init__(self, path, skip, note):
        self.path, self.skip = path, skip
        self.words = Path(path).read_text().split()[skip:]
        if not self.words:
            raise InputError(f"{path}: no number in it")
        self.facts = {"longest": max(map(len, self.words))}
        self.note = note or None

    @classmethod
    def find(cls, inputs, options):
        for path in inputs:
            if not Path(path).is_file():
                raise InputError(f"{path}: there is no such file")
            yield InputRef(str(Path(path).absolute()), Path(path).stem)

    @classmethod
    def open(cls, ref, options, stored):
        return cls(ref.path, options.skip, options.note)

    @classmethod
    def fingerprint(cls, ref):
        return hashlib.sha256(Path(ref.path).read_bytes()).hexdigest()

    def __len__(self):
        return len(self.words)

    def values(self, start, stop):
        line = np.arange(start, stop, dtype=np.int32) + self.skip + 1
        return {"line": line, "word": np.array(self.words[start:stop], object)}

    def job(self, start, stop):
        return NumbersJob(self.path, self.skip + start, self.skip + stop)

    def where(self, start, stop):
        return f"lines {self.skip + start + 1} to {self.skip + stop}"
'''

OBJECTS = '''
"""Two ragged axes by one stage: each number n has n objects, and each object two parts more than the one before."""

import numpy as np

from pipeline import Array, Axis, Stage

COUNTS = "objects"


class Objects(Stage):
    needs = ("number",)
    axes = (Axis("object"), Axis("keypoint", count="how_many"))
    outputs = (Array("n_objects", ("frame",), "int32"), Array("size", ("object",), "float32"),
               Array("how_many", ("frame",), "int32"), Array("at", ("keypoint", "side"), "int64", (2,)))

    def run(self, chunk):
        n = chunk["number"].astype("int32")
        rows = np.repeat(np.arange(len(chunk)), n)
        points = np.repeat(np.arange(len(chunk)), n + 1)
        return {"n_objects": n, "size": chunk["number"][rows] * 10,
                "how_many": n + 1, "at": np.stack([points, chunk.frame[points]], axis=1)}


class Doubled(Stage):
    """Reads objects, and makes one row for each."""
    needs = ("n_objects", "size", "line")
    outputs = (Array("doubled", ("object",), "float32"), Array("object_line", ("object",), "int32"))

    def run(self, chunk):
        item = chunk.rows("object")
        assert item.tolist() == chunk.object_frame.tolist()
        return {"doubled": chunk["size"] * 2, "object_line": chunk["line"][item]}


class Points(Stage):
    needs = ("how_many", "at")
    outputs = (Array("sum", ("keypoint",), "int64"),)

    def run(self, chunk):
        assert chunk.rows("keypoint").tolist() == chunk["at"][:, 0].tolist()
        return {"sum": chunk["at"].sum(axis=1)}
'''

PLAIN = '''
from pipeline import Array, Stage


class Square(Stage):
    needs = ("number",)
    outputs = (Array("square", ("frame",), "float64"),)

    def run(self, chunk):
        return {"square": chunk["number"] ** 2}
'''


@dataclass
class Own:
    """A folder with modules, a workflow and inputs."""

    folder: Path

    @property
    def out(self) -> Path:
        return self.folder / "out.zarr"

    def module(self, name: str, text: str) -> None:
        """Write a module, or another text of it; as a new process would, imports find what is written now."""
        (self.folder / f"{name}.py").write_text(text)
        sys.modules.pop(name, None)
        importlib.invalidate_caches()

    def numbers(self, *values: object, name: str = "numbers") -> Path:
        path = self.folder / f"{name}.txt"
        path.write_text("\n".join(map(str, values)))
        return path

    def workflow(self, stages: Mapping[str, Any], name: str = "own", **source: Any) -> Path:
        """Write a workflow; a stage is its `use`, or a section."""
        sections = {stage: {"use": use} if isinstance(use, str) else use for stage, use in stages.items()}
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"source": {"kind": "own_source:Numbers", **source}, "stages": sections}))
        return path

    def run(self, workflow: Path, *inputs: Path, **options: Any) -> FacesRun:
        given = {"executor": "inline", "out": self.out, **options}
        return pipeline.run(workflow, list(inputs or [self.folder / "numbers.txt"]), **given)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Own]:
    """A folder whose modules are forgotten afterwards; its source is `own_source:Numbers`, of chunks of five."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # it would hide a change within a second
    made = Own(tmp_path)
    made.module("own_source", SOURCE)
    made.numbers(*range(12))
    yield made
    for name in [path.stem for path in tmp_path.glob("*.py")]:
        sys.modules.pop(name, None)

"""Stages that fail on purpose, and one that counts; named in the tests' workflows as `faulty:...`."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Literal

import numpy as np

from pipeline import Array, Chunk, Stage, StageOptions


class FaultyOptions(StageOptions):
    chunk: int = 1
    input: str = ""
    """Input that it happens in; empty: in each."""
    fault: Literal["raise", "kill", "hang", "fill", "none"] = "raise"
    """fill: take memory until the worker is over its limit."""
    only_once: str = ""
    """A file that remembers that the fault has happened; empty: it happens each time."""
    times: int = 1
    """Times that it happens if `only_once` remembers it."""


class Faulty(Stage):
    """Mean grey level of each frame; fails on one chunk."""

    needs = ("frames_rgb",)
    Options = FaultyOptions
    outputs = (Array("grey", ("frame",), "float32"),)

    def run(self, chunk: Chunk) -> dict[str, np.ndarray]:
        if chunk.index == self.options.chunk and self.options.input in ("", chunk.input_name) and self._due():
            self._fail()
        return {"grey": chunk.frames_rgb.mean(axis=(1, 2, 3)).astype(np.float32)}

    def _due(self) -> bool:
        if not self.options.only_once:
            return True
        marker = Path(self.options.only_once)
        happened = len(marker.read_text()) if marker.exists() else 0
        marker.write_text("x" * (happened + 1))
        return happened < self.options.times

    def _fail(self) -> None:
        if self.options.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.options.fault == "hang":
            time.sleep(3600)
        elif self.options.fault == "fill":
            kept = []
            for _ in range(60):  # 3 GB: far beyond the limit, and no danger to the machine
                kept.append(np.ones(50 << 20, np.uint8))
                time.sleep(0.05)
        elif self.options.fault == "raise":
            raise ValueError("made to fail")


class CountedOptions(StageOptions):
    log: str
    seconds: float = 0.0
    until: str = ""
    """A file that every chunk waits for; empty: none does."""


class Counted(Stage):
    """Mean grey level of each frame; appends a line to a log for every chunk it computes."""

    needs = ("frames_rgb",)
    Options = CountedOptions
    outputs = (Array("grey", ("frame",), "float32"),)

    def run(self, chunk: Chunk) -> dict[str, np.ndarray]:
        time.sleep(self.options.seconds)
        while self.options.until and not Path(self.options.until).exists():
            time.sleep(0.1)
        grey = chunk.frames_rgb.mean(axis=(1, 2, 3)).astype(np.float32)
        with open(self.options.log, "a") as log:  # appends of one short line are atomic
            log.write(f"{chunk.input_name} {chunk.index}\n")
        return {"grey": grey}


class WrongRows(Stage):
    """Returns one row too many."""

    needs = ("frames_rgb",)
    outputs = (Array("grey", ("frame",), "float32"),)

    def run(self, chunk: Chunk) -> dict[str, np.ndarray]:
        return {"grey": np.zeros(len(chunk.frame) + 1, np.float32)}


class LeakingOptions(StageOptions):
    megabytes_per_chunk: int


class Leaking(Stage):
    """Mean grey level of each frame; keeps more memory with every chunk."""

    needs = ("frames_rgb",)
    Options = LeakingOptions
    outputs = (Array("grey", ("frame",), "float32"),)

    def load(self, device: object) -> None:
        self.kept: list[np.ndarray] = []

    def run(self, chunk: Chunk) -> dict[str, np.ndarray]:
        self.kept.append(np.ones(self.options.megabytes_per_chunk << 20, np.uint8))
        time.sleep(0.5)  # the scheduler hears of a worker's memory twice a second
        return {"grey": chunk.frames_rgb.mean(axis=(1, 2, 3)).astype(np.float32)}

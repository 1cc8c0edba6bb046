"""kill -9 of runs over pairs of pictures, half of the kills in each pass: of whole runs, and of single workers.

    python -m tests.pairs.kills --pictures 256 --kills 20

A store gets one kill of each kind, at a random moment of its pass, whose length is measured first. Each store is then
equal, array by array, to that of a run that nothing disturbed.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path

import cv2
import numpy as np

import pipeline
from pipeline.text import plural
from tests.faults.kills import spawned
from tests.processes import kill_group, start, wait_until

WORKERS = ("--workers", "2", "--dashboard-port", "0")
SETTINGS = ("--set", "keypoints.most=64")
PASSES = {"pictures": "photos", "pairs": "photos-pairs"}
"""Input that each pass makes."""
KINDS = [("pictures", "run"), ("pairs", "worker"), ("pictures", "worker"), ("pairs", "run")]
"""Pass, and what is killed in it: the whole run with its workers, or one worker."""


def make_pictures(folder: Path, pictures: int) -> None:
    """Make small pictures of blobs, each a moved copy of one of eight; one is broken."""
    chance = np.random.default_rng(3)
    places = [cv2.GaussianBlur(chance.integers(0, 256, (140, 180, 3), dtype=np.uint8), (0, 0), 3) for _ in range(8)]
    folder.mkdir()
    for number in range(pictures):
        x, y = chance.integers(0, 20, 2)
        blurred = places[number % 8][y : y + 120, x : x + 160].astype(np.int32)
        seen = np.clip((blurred - 128) * 4 + 128 + chance.integers(-4, 5, blurred.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number:05d}.png"), seen)
    (folder / f"{pictures // 2:05d}.png").write_bytes(b"not a picture")


@dataclass
class Campaign:
    """Kills of runs over one folder of pictures."""

    folder: Path
    chance: random.Random = field(default_factory=lambda: random.Random(7))
    killed: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Kills by pass, by what was killed, and by phase of the pass."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Length of each pass from its first commit to its end, undisturbed."""

    def run(self, pictures: int, kills: int) -> str:
        """Kill `kills` times, store after store; return a line on what was done. Raises AssertionError."""
        make_pictures(self.folder / "photos", pictures)
        whole = self.folder / "whole.zarr"
        self._measure(whole)
        missing = Counter(islice(cycle(KINDS), kills))
        stores, rows = 0, ""
        while missing.total() and stores < 4 * kills:
            out = self.folder / f"{stores}.zarr"
            self._kill_in(out, [kind for kind in sorted(KINDS, reverse=True) if missing[kind] > 0], missing)
            rows = compare(pipeline.open(whole), pipeline.open(out))
            shutil.rmtree(out)
            stores += 1
        assert not missing.total(), f"moments that did not come: {dict(missing)}"
        counts = ", ".join(f"{number} × {' / '.join(kind)}" for kind, number in sorted(self.killed.items()))
        return f"{self.killed.total()} kills in {plural(stores, 'store')}: {counts}; each time {rows} equal"

    def _measure(self, whole: Path) -> None:
        run = start(*self._words(whole), *WORKERS)
        for name, item in PASSES.items():
            _wait(run, lambda item=item: _phase(whole, item) != "begun")  # type: ignore[misc]
            began = time.monotonic()
            _wait(run, lambda item=item: _phase(whole, item) == "done")  # type: ignore[misc]
            self.seconds[name] = time.monotonic() - began
        _finish(run)

    def _kill_in(self, out: Path, kinds: list[tuple[str, str]], missing: Counter[tuple[str, str]]) -> None:
        """Make one store, with a kill of each kind whose moment comes before its pass is done."""
        run = self._start(out)
        for name, what in kinds:
            item = PASSES[name]
            before = len(_chunks(out, item))
            at_once = self.chance.random() < 0.2
            _wait(run, lambda: self._is_there(out, item, before, at_once))  # noqa: B023
            time.sleep(0 if at_once else self.chance.uniform(0, self.seconds[name] / 3))
            phase, workers = _phase(out, item), spawned(run.pid)
            if run.poll() is not None or phase == "done" or not (workers or what == "run"):
                continue
            committed = _done(out)
            self.chance.choice(workers).kill() if what == "worker" else kill_group(run)
            gone = committed - _done(out)
            assert not {one for one in gone if one.partition("/")[0] not in _done(out)}, f"committed, and gone: {gone}"
            self.killed[name, what, phase] += 1
            missing[name, what] -= 1
            run = run if what == "worker" else self._start(out)
        _finish(run)

    @staticmethod
    def _is_there(out: Path, item: str, before: int, at_once: bool) -> bool:
        """Return whether a pass has begun, and has more commits than `before` unless `at_once`."""
        if at_once or not (out / item).exists():
            return (out / item).exists()
        return len(_chunks(out, item)) > before or _phase(out, item) == "done"

    def _start(self, out: Path) -> subprocess.Popen[str]:
        return start(*self._words(out), *WORKERS)

    def _words(self, out: Path) -> list[str | Path]:
        return ["run", "match", self.folder / "photos", "--out", out, *SETTINGS]


def _finish(run: subprocess.Popen[str]) -> None:
    _, errors = run.communicate(timeout=600)
    assert run.returncode == 0, errors


def _wait(run: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    wait_until(lambda: run.poll() is not None or condition(), 300)


def _phase(out: Path, item: str) -> str:
    """Return how far a pass is: begun (nothing is committed), chunks, compaction, done."""
    if not (out / item / "zarr.json").exists():
        return "begun"
    stored = pipeline.open(out).inputs[item]
    if stored.complete:
        return "done"
    committed = len(_chunks(out, item))
    total = -(-int(stored.attributes["frames"]) // int(stored.attributes["chunk_frames"]))
    return "begun" if not committed else "compaction" if committed == total else "chunks"


def compare(one: pipeline.Run, other: pipeline.Run) -> str:
    """Compare two stores, array by array. Raises AssertionError."""
    assert list(one.inputs) == list(other.inputs) == ["photos", "photos-pairs"]
    for name, item in one.inputs.items():
        assert item.complete
        assert set(item.arrays) == set(other.inputs[name].arrays)
        for array in item.arrays:
            np.testing.assert_array_equal(other.array(name, array), item.array(array), err_msg=f"{name}/{array}")
    pairs = one.inputs["photos-pairs"]
    lost = int((~pairs.array("decoded")).sum())
    count = one.inputs["photos"].frames_total
    assert lost == count - 1, "a broken picture loses its pairs, and no others"
    return f"{count} pictures, {pairs.frames_total} pairs, {pairs.rows['match']} matches"


def _chunks(out: Path, item: str = "*") -> set[str]:
    return {f"{path.parts[-3]}/{path.name.split('.')[0]}" for path in out.glob(f"{item}/chunks/*.ok.*")}


def _done(out: Path) -> set[str]:
    """Return the committed chunks, and the inputs that are compacted."""
    chunks = _chunks(out)
    if not (out / "zarr.json").exists():
        return chunks
    return chunks | {name for name, item in pipeline.open(out).inputs.items() if item.complete}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pictures", type=int, default=256)
    options.add_argument("--kills", type=int, default=20)
    chosen = options.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        print(Campaign(folder).run(chosen.pictures, chosen.kills))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()

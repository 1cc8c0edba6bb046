"""kill -9 of a run over pairs of pictures at random moments, in both passes, with a broken picture among them.

    python -m tests.pairs.kills --pictures 256 --kills 20

The store is then equal, array by array, to that of a run that nothing disturbed.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

import pipeline
from tests.processes import kill_group, reelgraph, start, wait_until

WORKERS = ("--workers", "2", "--dashboard-port", "0")
SETTINGS = ("--set", "keypoints.most=64")


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


def campaign(folder: Path, pictures: int, kills: int) -> str:
    """Kill a run `kills` times and finish it; return a line on what was compared. Raises AssertionError."""
    chance = random.Random(7)
    photos, out = folder / "photos", folder / "out.zarr"
    make_pictures(photos, pictures)
    whole = folder / "whole.zarr"
    assert reelgraph("run", "match", photos, "--out", whole, *SETTINGS, *WORKERS, timeout=3600).returncode == 0
    words = ["run", "match", photos, "--out", out, *SETTINGS]
    killed: Counter[str] = Counter()
    committed: set[str] = set()
    for number in range(kills):
        process = start(*words, *(WORKERS if number % 3 == 0 else ("--executor", "inline")))
        if number % 2:
            wait_until(lambda before=committed, run=process: _done(out) > before or run.poll() is not None)  # type: ignore[misc]
            time.sleep(chance.uniform(0.0, 0.3))
        else:
            time.sleep(chance.uniform(1.0, 4.0 + number))  # later ones reach the second pass
        if process.poll() is not None:
            break  # nothing is left to kill
        kill_group(process)
        now = _done(out)
        gone = {one for one in committed - now if one.partition("/")[0] not in now}
        assert not gone, f"committed, and gone: {gone}"
        committed = now
        killed["pairs" if (out / "photos-pairs").exists() else "pictures"] += 1
    finished = reelgraph(*words, *WORKERS, timeout=3600)
    assert finished.returncode == 0, finished.stderr
    rows = compare(pipeline.open(whole), pipeline.open(out))
    return f"killed {killed['pictures']} times in the first pass, {killed['pairs']} in the second; {rows} equal"


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


def _done(out: Path) -> set[str]:
    """Return the committed chunks, and the inputs that are compacted."""
    chunks = {f"{path.parts[-3]}/{path.name.split('.')[0]}" for path in out.glob("*/chunks/*.ok.*")}
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
        print(campaign(folder, chosen.pictures, chosen.kills))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()

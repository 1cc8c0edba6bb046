"""kill -9 of a run over a folder of pictures at random moments, again and again, with broken pictures among them.

    python -m tests.images.kills --pictures 20000 --kills 20 --workflow features

Every picture is then in the store exactly once and in order, the broken ones with their reasons, and rows chosen at
random are equal to what is computed again.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

import pipeline
from pipeline.media.images.source import LEAST_PICTURES
from tests.images.test_reading import BOMB, picture, saved
from tests.processes import kill_group, reelgraph, start, wait_until

WORKERS = ("--workers", "2", "--dashboard-port", "0")


def break_some(folder: Path, count: int, chance: random.Random) -> dict[str, str]:
    """Add pictures that cannot be read, of ten kinds; return the beginning of each one's reason, by name."""
    reasons: dict[str, str] = {}
    jpeg = saved(picture(300, 200), "JPEG")
    contents = {
        "empty": (b"", "the file is empty"),
        "text": (b"hello\n" * 50, "not a picture"),
        "page": (b"<!DOCTYPE html><html></html>", "not a picture that can be read (it is text)"),
        "zeros": (bytes(5000), "not a picture that can be read (all its bytes are 0)"),
        "cut": (jpeg[: len(jpeg) // 2], "the file is cut off"),
        "bomb": (BOMB, "it has more than 134 million pixels"),
    }
    parents = sorted({path.parent for path in folder.rglob("*.jpg")})
    for number in range(count):
        kind = [*contents, "dangling", "pipe", "loop", "damaged"][number % 10]
        place = chance.choice(parents) / f"broken-{number:03d}.jpg"
        if kind in contents:
            content, reason = contents[kind]
            place.write_bytes(content)
        elif kind == "dangling":
            place.symlink_to("/nowhere/at/all.jpg")
            reason = "it is a link to /nowhere/at/all.jpg, which is not there"
        elif kind == "pipe":
            os.mkfifo(place)
            reason = "it is a pipe, a socket or a device"
        elif kind == "loop":
            place.symlink_to(place)
            reason = "too many levels of symbolic links"
        else:
            place.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
            reason = "not a picture that can be read"
        reasons[str(place.relative_to(folder))] = reason
    return reasons


def folder_of(folder: Path, pictures: int, found: list[Path]) -> None:
    """Link to the pictures at hand under that many names, or make small ones."""
    for number in range(pictures):
        place = folder / f"{number // 500:03d}" / f"{number:06d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        if found:
            place.symlink_to(found[number % len(found)].resolve())
        else:
            Image.new("RGB", (40, 30), (number % 256, number // 256 % 256, 99)).save(place)


def campaign(folder: Path, workflow: Path | str, array: str, pictures: int, kills: int, found: list[Path]) -> str:
    """Kill a run `kills` times and finish it; return a line on what was compared. Raises AssertionError."""
    chance = random.Random(5)
    photos, out = folder / "photos", folder / "out.zarr"
    folder_of(photos, pictures, found)
    reasons = break_some(photos, 50, chance)
    words = ["run", workflow, photos, "--out", out]
    committed: set[str] = set()
    for number in range(kills):
        process = start(*words, *(WORKERS if number % 3 == 0 else ("--executor", "inline")))
        if number % 2:
            wait_until(lambda before=committed, run=process: _done(out) > before or run.poll() is not None)  # type: ignore[misc]
            time.sleep(chance.uniform(0.0, 0.5))
        else:  # at any moment from its start on, but before the chunks of later kills are computed
            end = time.monotonic() + chance.uniform(0.5, 6.0)
            most = pictures // LEAST_PICTURES * (number + 1) / (kills + 1)
            wait_until(lambda end=end, most=most: time.monotonic() > end or len(_done(out)) >= most)  # type: ignore[misc]
        assert process.poll() is None, f"the run was over after {number} kills; give more pictures"
        kill_group(process)
        done = _done(out)
        assert done >= committed or _is_complete(out), f"committed, and gone: {committed - done}"
        committed |= done
    assert committed
    finished = reelgraph(*words, *WORKERS, timeout=3600)
    assert finished.returncode == 0, finished.stderr
    (item,) = pipeline.open(out).inputs.values()
    names = item.array("name").tolist()
    there = sorted(str(path.relative_to(photos)) for path in photos.rglob("*.jpg"))
    assert names == there, "not every picture once, in order"
    decoded, errors = item.array("decoded"), item.array("error").tolist()
    assert {names[row] for row in np.flatnonzero(~decoded).tolist()} == reasons.keys()
    for name, reason in reasons.items():
        assert errors[names.index(name)].startswith(reason), (name, errors[names.index(name)])
    made = item.array(array)
    some = sorted(chance.sample(np.flatnonzero(decoded).tolist(), min(100, pictures)))
    listing = folder / "some.txt"
    listing.write_text("\n".join(str(photos / names[row]) for row in some))
    again = pipeline.run(workflow, listing, folder / "again.zarr", executor="inline")
    np.testing.assert_array_equal(again.array("some", array), made[some])
    return (
        f"{kills} kills, {len(committed)} chunks committed before the last one; {len(names)} pictures, "
        f"{len(reasons)} of them broken; {len(some)} rows computed again"
    )


def _done(out: Path) -> set[str]:
    """Return the committed chunks that have not gone into arrays."""
    return {path.name.split(".")[0] for path in out.glob("*/chunks/*.ok.*")}


def _is_complete(out: Path) -> bool:
    """Return whether the arrays are committed: from then on a run removes its chunks."""
    inputs = pipeline.open(out).inputs.values()
    return len(inputs) > 0 and all(item.complete for item in inputs)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pictures", type=int, default=20 * LEAST_PICTURES)
    options.add_argument("--kills", type=int, default=20)
    options.add_argument("--workflow", default="features")
    options.add_argument("--array", default="feature")
    options.add_argument("--from", dest="data", type=Path, help="folder whose JPEGs are linked to")
    chosen = options.parse_args()
    found = sorted(chosen.data.rglob("*.jpg")) if chosen.data else []
    folder = Path(tempfile.mkdtemp())
    try:
        print(campaign(folder, chosen.workflow, chosen.array, chosen.pictures, chosen.kills, found))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()

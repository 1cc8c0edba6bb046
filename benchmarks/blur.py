"""What is left of faces in a blurred film: the models look at every frame of the source and of the film.

    make bench-blur ARGS="CLIP... --every 5 25"

For each sampling: faces found in the source at every frame, those of them found again at their place in the film, and
those that are still recognised there (the embedding within the model's threshold). What was never found in a sampled
frame is not blurred: with `--every 1` only what the detector misses is left.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from pipeline.api import run
from pipeline.faces.people.geometry import overlap
from pipeline.faces.views.annotate import Wanted, annotate
from pipeline.store.read import RunInput

WORKFLOW = Path(__file__).parent.parent / "workflows" / "faces.yaml"
SAME_PLACE = 0.3
"""Intersection over union from which a face in the film is at the place of one in the source."""


def looked_at(clip: Path, out: Path, every: int) -> RunInput:
    """The faces of a clip, as a run finds them."""
    found = run(WORKFLOW, [clip], out, executor="inline", set={"source.every": every})
    return next(iter(found.inputs.values()))


def left_over(source: RunInput, film: RunInput) -> tuple[int, int, int]:
    """Faces in the source, found again in the film, recognised there; both looked at on every frame."""
    names = ("face_frame", "box", "embedding")
    before, after = source.read(names), film.read(names)
    threshold = source.arrays["embedding"].attributes["thresholds"]["euclidean"]
    again = recognised = 0
    for row, frame in enumerate(before["face_frame"]):
        there = np.flatnonzero(after["face_frame"] == frame)
        near = there[overlap(before["box"][row : row + 1], after["box"][there])[0] > SAME_PLACE]
        apart = np.linalg.norm(after["embedding"][near] - before["embedding"][row], axis=1)
        again, recognised = again + bool(len(near)), recognised + bool((apart < threshold).any())
    return len(before["face_frame"]), again, recognised


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--every", type=int, nargs="+", default=[5, 25])
    options = parser.parse_args()
    print(f"{'clip':48} every  faces  found again  recognised  hidden")
    with tempfile.TemporaryDirectory() as folder:
        for number, clip in enumerate(options.clips):
            room = Path(folder) / str(number)
            truth = looked_at(clip, room / "truth.zarr", 1)
            for every in options.every:
                store = looked_at(clip, room / f"{every}.zarr", every).store_path
                (made,) = annotate([store], target=room / f"{every}.mp4", wanted=Wanted(blur=("all",)))
                film = looked_at(Path(made.file), room / f"film_{every}.zarr", 1)
                n, again, recognised = left_over(truth, film)
                share = 1 - recognised / n if n else 1.0
                print(f"{clip.stem[:48]:48} {every:5} {n:6} {again:12} {recognised:11} {share:7.2%}", flush=True)


if __name__ == "__main__":
    main()

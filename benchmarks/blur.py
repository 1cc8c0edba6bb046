"""Faces left in a blurred film: the models look at every frame of the source and of the film.

    make bench-blur ARGS="CLIP... --every 5 25"

For each sampling: faces found in the source at every frame, those of them found again at their place in the film, and
those that are still recognised there (the embedding within the model's threshold). A face that no sampled frame showed
is not blurred: with `--every 1` only faces that the detector misses are left.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from harness import WORKFLOW, parser, say, show

from pipeline.api import run
from pipeline.faces.views.annotate import Wanted, annotate
from pipeline.media.boxes import overlap
from pipeline.store.read import RunInput

SAME_PLACE = 0.3
"""Smallest intersection over union of a face in the film and one in the source at the same place."""
COLUMNS = ("clip", "every", "faces", "found again=again", "recognised", "hidden:.2%")


def looked_at(clip: Path, out: Path, every: int) -> RunInput:
    """Return the faces of a clip, as a run finds them."""
    found = run(WORKFLOW, [clip], out, executor="inline", set={"source.every": every})
    return next(iter(found.inputs.values()))


def main() -> None:
    options = parser(__doc__)
    options.add_argument("clips", type=Path, nargs="+", help="clips to blur")
    options.add_argument("--every", type=int, nargs="+", default=[5, 25], help="sample every Nth frame")
    chosen = options.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number, clip in enumerate(chosen.clips):
            place = Path(folder) / str(number)
            truth = looked_at(clip, place / "truth.zarr", 1)
            for every in chosen.every:
                say(f"{clip.stem}, every {every}")
                store = looked_at(clip, place / f"{every}.zarr", every).store_path
                (made,) = annotate([store], target=place / f"{every}.mp4", wanted=Wanted(blur=("all",)))
                film = looked_at(Path(made.file), place / f"film_{every}.zarr", 1)
                names = ("face_frame", "box", "embedding")
                before, after = truth.read(names), film.read(names)
                threshold = truth.arrays["embedding"].attributes["thresholds"]["euclidean"]
                again = recognised = 0
                for row, frame in enumerate(before["face_frame"]):
                    there = np.flatnonzero(after["face_frame"] == frame)
                    near = there[overlap(before["box"][row : row + 1], after["box"][there])[0] > SAME_PLACE]
                    apart = np.linalg.norm(after["embedding"][near] - before["embedding"][row], axis=1)
                    again, recognised = again + bool(len(near)), recognised + bool((apart < threshold).any())
                n = len(before["face_frame"])
                figures = {"faces": n, "again": again, "recognised": recognised}
                share = 1 - recognised / n if n else 1.0
                rows.append({"clip": clip.stem, "every": every, **figures, "hidden": share})
    show("Faces left in blurred films", COLUMNS, rows)


if __name__ == "__main__":
    main()

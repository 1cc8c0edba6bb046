"""Draws docs/picture.png, the picture of the README, from a run over the demo clip.

python docs/picture.py        needs: pip install -e ".[demo]"
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import av
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import pipeline

REPOSITORY = Path(__file__).parent.parent
SHOWN = (2.4, 4.6, 10.6)
"""Seconds of the frames drawn."""
NAMES = ("first person seen", "second person seen")
COLOURS = ("#0b6e99", "#c2571a")
SAME_PERSON = 0.6
"""Euclidean distance below which dlib calls two embeddings the same person (dlib.net, face recognition example)."""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "demo.mp4"
        pipeline.make_demo_clip(clip)
        run = pipeline.run(REPOSITORY / "workflows" / "faces.yaml", clip, Path(folder) / "demo.zarr", executor="inline")
        faces, frames = run.faces(), run.frames()
        faces["person"] = who(run.embeddings())
        draw(clip, faces, frames, REPOSITORY / "docs" / "picture.png")


def who(embeddings: np.ndarray) -> np.ndarray:
    """int (n,): index of the first face seen that is the same person, -1 beyond the first two people."""
    founders: list[np.ndarray] = []
    people = np.full(len(embeddings), -1)
    for row, vector in enumerate(embeddings):
        near = [k for k, founder in enumerate(founders) if np.linalg.norm(vector - founder) < SAME_PERSON]
        if near:
            people[row] = near[0]
        elif len(founders) < len(NAMES):
            people[row] = len(founders)
            founders.append(vector)
    return people


def draw(clip: Path, faces: object, frames: object, target: Path) -> None:
    """Three frames with their boxes above, the faces on screen along time below."""
    figure = plt.figure(figsize=(11, 5.2), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    times = frames["time_seconds"].to_numpy()  # type: ignore[index]
    for axis, wanted in zip(top.subplots(1, len(SHOWN)), SHOWN, strict=True):
        moment = times[np.argmin(np.abs(times - wanted))]
        axis.imshow(picture_at(clip, moment))
        for face in faces[faces["time_seconds"] == moment].itertuples():  # type: ignore[index]
            colour = COLOURS[face.person] if face.person >= 0 else "0.5"
            axis.add_patch(plt.Rectangle((face.x, face.y), face.w, face.h, fill=False, lw=2, color=colour))
            label = {"facecolor": colour, "edgecolor": "none", "pad": 1.5}
            axis.text(face.x, face.y - 8, f"{face.confidence:.2f}", color="white", fontsize=8, va="bottom", bbox=label)
        axis.set_title(f"{moment:.2f} s", fontsize=9)
        axis.axis("off")
    axis = bottom.subplots()
    for person, (name, colour) in enumerate(zip(NAMES, COLOURS, strict=True)):
        seen = faces[faces["person"] == person]  # type: ignore[index]
        axis.scatter(seen["time_seconds"], seen["w"], s=16, color=colour, label=name)
    axis.set(xlabel="time (s)", ylabel="face width (pixels)", xlim=(times[0], times[-1]), ylim=(0, None))
    axis.legend(frameon=False, fontsize=8, loc="upper right")
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(target, dpi=110)


def picture_at(clip: Path, seconds: float) -> np.ndarray:
    """The frame shown at this time, uint8 (height, width, 3)."""
    with av.open(str(clip)) as container:
        for frame in container.decode(video=0):
            if frame.time is not None and frame.time >= seconds - 1e-6:
                return frame.to_ndarray(format="rgb24")
    raise ValueError(f"{clip} has no frame at {seconds} s")


if __name__ == "__main__":
    main()

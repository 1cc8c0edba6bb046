"""`embed.align: two_views` beside `native`: what it costs, and what it gives.

    make bench-alignments                               both parts, about 10 minutes
    make bench-alignments ARGS="CLIP... --parts cost"   your own clips

Cost: CPU seconds of whole runs of faces.yaml, start and end included. Each run is a process of its own (`--executor
inline`), and both alignments take turns. Clips are the data folder's, and made-up ones with 1, 5 and 10 faces.

Pairs: true accepts of all pairs of the photographs of faces/lfw_many, as they are and changed, by detectors. Detectors
whose weights are missing are left out. Nothing was fitted on these pictures.
"""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from harness import WORKFLOW, data_folder, encode, explain, labels_in, parser, reelgraph_run, say, show, write_json
from strangers import read_people

from pipeline.errors import ModelError

ALIGNMENTS = ("native", "two_views")
WIDTH, HEIGHT, FPS = 1920, 1080, 25
FRAMES, SHOT = 500, 50
"""Frames of a made-up clip, and of each of its shots."""
MADE = {1: 500, 5: 360, 10: 320}
"""Side of each photograph in pixels, by the number of faces in a frame."""
REAL = ("asl_*.mkv", "fr_short_hamilton.mp4", "derived/intel_*.mp4", "skv_carphone.mp4")
PARTS = ("cost", "pairs")
DETECTORS = ("mtcnn", "dlib", "opencv", "yunet", "yunet-mtcnn")
ACCEPTED = (1e-2, 1e-3, 1e-4)
"""Shares of the pairs of two people that are accepted."""


def small(factor: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that shrinks a picture and enlarges it again."""

    def change(picture: np.ndarray) -> np.ndarray:
        less = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        return cv2.resize(less, picture.shape[1::-1], interpolation=cv2.INTER_CUBIC)

    return change


def noisy(picture: np.ndarray) -> np.ndarray:
    chance = np.random.default_rng(int(picture.sum()))
    return np.clip(picture + chance.normal(0, 35, picture.shape), 0, 255).astype(np.uint8)


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as they are": lambda picture: picture,
    "of 20 pixels": small(0.2),
    "of 35 pixels": small(0.35),
    "dark": lambda picture: (picture * 0.12).astype(np.uint8),
    "noisy": noisy,
    "out of focus": lambda picture: cv2.GaussianBlur(picture, (0, 0), 3.5),
}
"""Functions that change a photograph, by name. Faces of LFW are about 100 pixels high."""
HOW = {
    "native, two_views": "CPU seconds of a run, the least of the rounds",
    "times": "CPU seconds of two_views by those of native",
    "of 20, 35 pixels": "shrunk until the face is that high, and enlarged again",
    "dark, noisy, out of focus": "12% of the light; normal noise of 35 levels; a Gaussian blur of 3.5 pixels",
}
COLUMNS = ("clips", "frames", "faces", "native:.2f", "two_views:.2f", "times:.2f")
PAIR_COLUMNS = ("detector", "photographs", "=align", "faces", *(f"at {share:.2%}=at_{share}:.3f" for share in ACCEPTED))


def main() -> None:
    options = parser(__doc__, "bench-alignments.json", "bench")
    options.add_argument("clips", type=Path, nargs="*", metavar="CLIP")
    options.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--detectors", nargs="+", default=DETECTORS, help="for the part pairs")
    chosen = options.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"how": HOW}
    if "cost" in chosen.parts:
        groups = {path.name: [path] for path in chosen.clips} or standard(chosen.folder)
        found["cost"] = [measured(name, [str(path) for path in paths], chosen) for name, paths in groups.items()]
    if "pairs" in chosen.parts:
        photographs = data_folder() / "faces" / "lfw_many"
        found["pairs"] = [
            row for name, change in CHANGES.items()
            for row in accepted(name, changed(photographs, chosen.folder / name, change), chosen.detectors)
        ]  # fmt: skip
    write_json(chosen.json, found)
    if "cost" in found:
        show("Runs of faces.yaml", COLUMNS, found["cost"])
    if "pairs" in found:
        show("True accepts at shares of false accepts, cosine, Dlib", PAIR_COLUMNS, found["pairs"])
    explain(HOW)


def standard(folder: Path) -> dict[str, list[Path]]:
    """Return the data folder's clips by group, and made-up ones."""
    videos = data_folder() / "videos"
    pictures = sorted((data_folder() / "faces" / "lfw_many").rglob("*.jpg"))
    if not pictures:
        raise SystemExit(f"no photographs in {data_folder() / 'faces' / 'lfw_many'}; set REELGRAPH_DATA")
    found = {}
    for count, side in MADE.items():
        path = folder / f"faces-{count}.mp4"
        encode(path, frames(pictures, count, side), (WIDTH, HEIGHT), fps=FPS)
        found[f"made up, {count} in each frame"] = [path]
    return found | {name: paths for name in REAL if (paths := sorted(videos.glob(name)))}


def frames(pictures: list[Path], count: int, side: int) -> Iterator[Any]:
    """Yield frames of `count` photographs side by side, which move a little; other ones in each shot."""
    import av

    chance = np.random.default_rng(count)
    ground = cv2.GaussianBlur(chance.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8), (31, 31), 0)
    columns = min(count, 5)
    for number in range(FRAMES):
        if number % SHOT == 0:
            some = [cv2.imread(str(pictures[at])) for at in chance.integers(0, len(pictures), count)]
            shown = [cv2.resize(one, (side, side))[:, :, ::-1] for one in some]
        frame = ground.copy()
        for at, one in enumerate(shown):
            left, top = WIDTH // columns * (at % columns) + number % 10, 40 + HEIGHT // 2 * (at // columns) + number % 7
            frame[top : top + side, left : left + side] = one[: HEIGHT - top, : WIDTH - left]
        yield av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p")


def measured(name: str, clips: list[str], chosen: Any) -> dict[str, Any]:
    """Return a row: frames, faces, and the least CPU seconds of each alignment."""
    out, least = chosen.folder / "alignments.zarr", dict.fromkeys(ALIGNMENTS, float("inf"))
    for _ in range(chosen.rounds):
        for align in ALIGNMENTS:
            say(f"{name}, {align}")
            before = spent()
            override = [f"embed.align={align}"]
            summary, _ = reelgraph_run(WORKFLOW, clips, out, dict(os.environ), override, executor="inline")
            least[align] = min(least[align], spent() - before)
    counts = {"frames": summary["frames"], "faces": summary["faces"]}
    return {"clips": name, **counts, **least, "times": least["two_views"] / least["native"]}


def changed(photographs: Path, folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    """Write the photographs, changed, into a folder; return it."""
    for row in labels_in([photographs / "labels.csv"], {"identity", "path"}):
        path = (folder / row["path"]).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), change(cv2.imread(str(photographs / row["path"]))))
    labels = (photographs / "labels.csv").read_text()
    (folder / "labels.csv").write_text(re.sub(r"\.jpe?g\b", ".png", labels))
    return folder


def accepted(name: str, folder: Path, detectors: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield a row for each detector and alignment: the shares of pairs of one person within the limit."""
    for detector in detectors if name == "as they are" else detectors[:1]:
        for align in ALIGNMENTS:
            say(f"{name}, {detector}, {align}")
            overrides = f"detect.model={detector}", f"embed.align={align}"
            try:
                people, _ = read_people(folder, folder / "labels.csv", WORKFLOW, *overrides)
            except ModelError as error:
                say(f"left out: {error}")
                continue
            vectors = people.vectors / np.linalg.norm(people.vectors, axis=1, keepdims=True)
            who = np.repeat(np.arange(len(people.pictures)), [len(rows) for rows in people.pictures])
            left, right = np.triu_indices(len(who), 1)
            distance, same = 1 - (vectors @ vectors.T)[left, right], who[left] == who[right]
            limits = np.quantile(distance[~same], ACCEPTED)
            shares = {
                f"at_{share}": float((distance[same] <= limit).mean())
                for share, limit in zip(ACCEPTED, limits, strict=True)
            }
            yield {"detector": detector, "photographs": name, "align": align, "faces": len(who), **shares}


def spent() -> float:
    """Return the CPU seconds of ended child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()

"""The main job, raced: DeepFace's own loop against `reelgraph run`, on one clip, with the same weights, in one go.

    make bench                            about a quarter of an hour on two cores
    make bench ARGS=--quick               a first impression
    make bench ARGS="--clip my.mp4"       on a clip of your own, as it is

DeepFace needs no internet for this: its `Dlib` weights come with the package face_recognition_models and are put where
DeepFace looks for them (DEEPFACE_HOME, in runs/bench); `mtcnn` brings its own.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import clip as clips
from race import LIMIT, Race, Timing, benchmark_environment, faces_of, long_clip, machine, say
from weights_at_hand import REPOSITORY

WORKFLOW = REPOSITORY / "workflows" / "faces.yaml"
FRAMES = 984
"""Sampled frames for reelgraph: 24 full chunks at 1080p, so that two, three or four workers end together."""
HOW = {
    "DeepFace loop": "DeepFace.represent(frame, model_name='Dlib', detector_backend='mtcnn', enforce_detection=False)",
    "DeepFace, 2 threads": "the same in a ThreadPoolExecutor(2)",
    "DeepFace, 2 processes": "the same in a multiprocessing pool of 2, frames sent by pickle",
    "reelgraph run": "the command itself, its cluster already started, its models not yet loaded",
    "limit": LIMIT,
}


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    min_face: int | None
    """None: DeepFace gives no way to set it; the detector's default is 20."""
    timing: Timing
    same_faces: int | None = None
    """Faces in the frames that DeepFace did."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    environment = benchmark_environment(folder)
    clip = long_clip(folder, options.frames * options.every) if not options.clip else clips.clip_as_it_is(options.clip)
    bench = Bench(Race(clip, options.every, folder, environment), options)
    rows, limits = bench.deepface(), {}
    for min_face in options.min_face:
        row = bench.reelgraph(min_face)
        limits[min_face] = bench.limit(min_face)
        rows += [row, *limits[min_face]]
    _print(rows, limits, clip, options.deepface_frames)
    _write(options.json, rows, limits, clip)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, help="sampled frames for reelgraph (default: 984; 164 with --quick)")
    parser.add_argument("--deepface-frames", type=int, help="sampled frames for DeepFace (default: 60; 8 with --quick)")
    parser.add_argument("--every", type=int, default=5, help="sample every Nth frame (default: 5)")
    parser.add_argument("--min-face", type=int, nargs="+", default=[20, 40], help="for reelgraph (default: 20 40)")
    parser.add_argument("--quick", action="store_true", help="few frames")
    parser.add_argument("--clip", type=Path, help="a clip of your own, used as it is")
    parser.add_argument("--json", type=Path, default=REPOSITORY / "bench.json", help="result (default: bench.json)")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "runs" / "bench", help="for clips and stores")
    options = parser.parse_args(arguments)
    options.frames = options.frames or (164 if options.quick else FRAMES)
    options.deepface_frames = options.deepface_frames or (8 if options.quick else 60)
    return options


class Bench:
    """The rows of the table."""

    def __init__(self, race: Race, options: argparse.Namespace) -> None:
        self.race, self.options = race, options

    def deepface(self) -> list[Row]:
        names = {
            "DeepFace loop": "deepface_loop",
            "DeepFace, 2 threads": "deepface_threads",
            "DeepFace, 2 processes": "deepface_processes",
        }
        rows = []
        for label, name in names.items():
            say(label)
            timing = self.race.contest(name, self.options.deepface_frames)
            rows.append(Row(label, None, timing, timing.faces))
        return rows

    def reelgraph(self, min_face: int) -> Row:
        say(f"reelgraph run, min_face {min_face}")
        out = self.race.folder / f"min_face_{min_face}.zarr"
        timing = self.race.run(WORKFLOW, [self.race.clip.path], out, [f"detect.min_face={min_face}"])
        return Row("reelgraph run", min_face, timing, faces_of(out, self.options.deepface_frames))

    def limit(self, min_face: int) -> list[Row]:
        say(f"limit, min_face {min_face}")
        limit = self.race.limit(WORKFLOW, self.options.frames, [f"detect.min_face={min_face}"])
        named = {"  limit": limit.both, "  decoding alone": limit.decoding, "  models alone": limit.models}
        return [Row(name, min_face, timing) for name, timing in named.items()]


def _print(rows: list[Row], limits: dict[int, list[Row]], clip: clips.ClipFacts, first: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{clip.width}x{clip.height}, {clip.frames} frames, made from {clip.made_from}")
    same = f"in first {first}"
    for column in ("", "min_face", "frames", "frames/s", "faces/frame", same, "to DeepFace", "of the limit", "peak MB"):
        table.add_column(column, justify="left" if not column else "right", no_wrap=not column)
    for row in rows:
        if row.name == "reelgraph run":
            table.add_section()
        table.add_row(*_cells(row, rows[0], limits, first))
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    for name, how in HOW.items():
        console.print(f"[bold]{name}[/bold]: {how}.", highlight=False)
    console.print("DeepFace offers no smallest face: its rows hold for each min_face (mtcnn's default is 20).")
    console.print(machine()["words"], highlight=False)


def _cells(row: Row, deepface: Row, limits: dict[int, list[Row]], first: int) -> list[str]:
    timing = row.timing
    share = _share(row, limits)
    return [
        row.name,
        "" if row.min_face is None else str(row.min_face),
        str(timing.frames),
        f"{timing.rate:.2f}",
        "" if timing.faces is None else f"{timing.faces / timing.frames:.2f}",
        "" if row.same_faces is None else f"{row.same_faces / first:.2f}",
        f"{timing.rate / deepface.timing.rate:.1f}",
        "" if share is None else f"{share:.0%}",
        "" if timing.peak_mb is None else f"{timing.peak_mb:.0f}",
    ]


def _share(row: Row, limits: dict[int, list[Row]]) -> float | None:
    if row.name != "reelgraph run" or row.min_face is None:
        return None
    return row.timing.rate / limits[row.min_face][0].timing.rate


def _write(path: Path, rows: list[Row], limits: dict[int, list[Row]], clip: clips.ClipFacts) -> None:
    described = []
    for row in rows:
        values = {"name": row.name.strip(), "min_face": row.min_face, **asdict(row.timing)}
        values |= {"same_faces": row.same_faces, "frames_per_second": row.timing.rate}
        values["times_deepface_loop"] = row.timing.rate / rows[0].timing.rate
        if share := _share(row, limits):
            values["share_of_limit"] = share
        described.append(values)
    content = {"clip": clip.as_dict(), "machine": machine(), "how": HOW, "rows": described}
    path.write_text(json.dumps(content, indent=2) + "\n")
    print(f"written to {path}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

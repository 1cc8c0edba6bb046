"""`per: track`: what it saves and what it costs, and how near `analyze` per face is to the models' own speed.

    make bench-per-track                                 a few minutes on two cores
    make bench-per-track ARGS="--parts embed"            only the embeddings (parts: embed analyze limit)

Clips are those of the data folder ($REELGRAPH_DATA) whose people are known. Weights of the attributes that are not at
hand are stand-ins, for DeepFace and for us (stand_ins.py).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import clip as clips
import numpy as np
import stand_ins
import verification
from race import Race, benchmark_environment, machine, say
from weights_at_hand import REPOSITORY, data_folder

PARTS = ("embed", "analyze", "limit")
ATTRIBUTES = ("Age", "Gender", "Emotion", "Race")
EVERY = (1, 5)
PARADE = "derived/asl_parade_dev.mp4"
SHOTS = ((0, "A"), (58, "B"), (109, "D"), (177, "A"))
"""Of the parade: the first frame of each shot, and who is in it."""
COLUMNS, COLUMN_PIXELS = ("A", "B", "D"), 320
"""Of the grid: who is in each column."""
UNLABELLED = ("fr_short_hamilton.mp4", "skv_carphone.mp4", "clm_cap12.mp4")
WAYS = ("per face", "per track", "whole", "unchecked")
HOW = {
    "per face": "the network sees every face",
    "per track": "it sees the best 3 of each track within a chunk; where these disagree, each half is asked again",
    "whole": "the same, but where they disagree every face is seen at once",
    "unchecked": "the same, but nobody asks whether they agree",
    "seconds": "of the stage `embed` on decoded, detected chunks; those of one way after the other, chunk by chunk",
    "verification": "pairs of labelled faces from different shots (at most 400,000, the same for all ways), cosine",
    "analyze": "detection (mtcnn) and all four attributes, each way in one process on all cores, warmed up: "
    "DeepFace.analyze(frame, detector_backend='mtcnn', enforce_detection=False) on its onnx engine, and pipeline.run",
    "times (CPU)": "by the CPU seconds of the processes, which others at work on the machine do not lengthen",
    "limit": "ONNX Runtime's sessions called on ready inputs, in the batches of the stage; in turn with the stage, on "
    "one thread, in the process's own CPU seconds",
}
MOST_PAIRS = 400_000


@dataclass(frozen=True)
class Saving:
    """One way to embed the faces of some clips."""

    clips: str
    every: int
    way: str
    faces: int
    embedded: int
    """Seen by the network."""
    seconds: float
    auc: float | None = None
    true_accepts_1_percent: float | None = None
    moved: float | None = None
    """Largest cosine distance of a face's embedding to that which the network gives it."""


@dataclass(frozen=True)
class Labelled:
    """Faces of a clip."""

    shot: str
    """Pairs are made of faces from different ones."""
    person: str


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    videos = data_folder() / "videos"
    if not videos.is_dir():
        raise SystemExit(f"no clips at {videos}; set REELGRAPH_DATA")
    found: dict[str, Any] = {"machine": machine(), "how": HOW}
    if "embed" in options.parts:
        found["embed"] = [asdict(row) for row in savings(videos)]
    if {"analyze", "limit"} & {*options.parts}:
        found |= _with_attributes(options, videos)
    options.json.write_text(json.dumps(found, indent=2) + "\n")
    _print(found)
    print(f"written to {options.json}", file=sys.stderr)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    parser.add_argument(
        "--deepface-frames", type=int, default=4, help="frames for DeepFace.analyze, twice (default: 4)"
    )
    parser.add_argument("--clip", type=Path, help="for the part analyze (default: the parade, shots of 2 seconds)")
    parser.add_argument("--every", type=int, nargs="+", default=EVERY, help="for the part analyze (default: 1 5)")
    parser.add_argument("--best", type=int, nargs="+", default=(3,), help="faces of each track (default: 3)")
    parser.add_argument("--faces", type=int, default=16, help="faces for the limit (default: 16)")
    parser.add_argument("--rounds", type=int, default=3, help="of the limit (default: 3)")
    parser.add_argument("--json", type=Path, default=REPOSITORY / "bench-per-track.json", help="where figures go")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "runs" / "bench", help="for stores and stand-ins")
    return parser.parse_args(arguments)


# --- embeddings -------------------------------------------------------------------------------------------------------


def savings(videos: Path) -> Iterator[Saving]:
    """Per clip of many shots and for all labelled clips together."""
    for every in EVERY:
        labelled: dict[str, list[tuple[np.ndarray, list[Labelled]]]] = {way: [] for way in WAYS}
        rows: dict[tuple[str, str], list[Saving]] = {}
        for video in _videos(videos):
            say(f"{video.name}, every {every}")
            labels, ways = _embedded(video, every)
            group = (
                video.name
                if video.name in (Path(PARADE).name, "asl_grid_dev.mp4", *UNLABELLED)
                else ("asl_*.mkv" if labels is not None else "intel_*.mp4")
            )
            for way, (vectors, row) in ways.items():
                rows.setdefault((group, way), []).append(row)
                if labels is not None:
                    labelled[way].append((vectors, labels))
        for (group, way), parts in rows.items():
            yield _summed(group, every, way, parts)
        pairs = None
        for way, parts in labelled.items():
            vectors = np.concatenate([part[0] for part in parts])
            labels = [label for part in parts for label in part[1]]
            pairs = pairs if pairs is not None else _pairs(labels)
            summed = _summed("all labelled", every, way, [row for (g, w), many in rows.items() if w == way
                             and g not in (*UNLABELLED, "intel_*.mp4") for row in many])  # fmt: skip
            yield _verified(summed, vectors, labels, *pairs)


def _videos(folder: Path) -> list[Path]:
    """Those that are at hand."""
    names = [PARADE, "derived/asl_grid_dev.mp4", *UNLABELLED]
    listed = [folder / name for name in names] + sorted(folder.glob("asl_*.mkv"))
    return [path for path in (*listed, *sorted(folder.glob("derived/intel_*.mp4"))) if path.is_file()]


def _embedded(video: Path, every: int) -> tuple[list[Labelled] | None, dict[str, tuple[np.ndarray, Saving]]]:
    """Labels of a clip's faces, where they are known; for each way all embeddings, and what they took."""
    from pipeline.engine.plan import choose_chunk_items, cut
    from pipeline.engine.stage import Chunk
    from pipeline.engine.workflow import build_workflow
    from pipeline.faces.stages.detect import Detect, DetectOptions
    from pipeline.machine.device import Device
    from pipeline.media.video.source import VideoSource

    document = {"source": {"every": every}, "stages": {"detect": {}}}
    source = VideoSource(video, build_workflow("clip", document, Path()).source_options)
    device = Device(threads=len(os.sched_getaffinity(0)))
    detect = Detect(DetectOptions())
    detect.load(device)
    stages = _stages(device)
    made: dict[str, list[tuple[np.ndarray, int, float]]] = {way: [] for way in WAYS}
    labels: list[Labelled] = []
    for start, stop in cut(len(source.frame), choose_chunk_items(source)):
        decoded = source.job(start, stop).decode(device.threads)
        arrays: dict[str, np.ndarray] = {"frames_rgb": decoded.frames_rgb}
        chunk = Chunk("clip", 0, source.frame[start:stop], source.time_seconds[start:stop], decoded.decoded, arrays)
        chunk = replace(chunk, arrays=arrays | detect.run(chunk))
        labels += _labels(video, chunk.frame[chunk.face_frame], chunk["box"])
        for way, run in stages.items():
            began = time.perf_counter()
            result = run(chunk)
            seconds = time.perf_counter() - began
            seen = result.get("embedded", np.ones(len(result["embedding"]), bool))
            made[way].append((result["embedding"], int(seen.sum()), seconds))
    exact = np.concatenate([part[0] for part in made["per face"]])
    found = {}
    for way, parts in made.items():
        vectors = np.concatenate([part[0] for part in parts])
        moved = float(verification.distances(exact, vectors, "cosine").max()) if len(exact) else 0.0
        sums = (sum(part[1] for part in parts), sum(part[2] for part in parts))
        found[way] = vectors, Saving(video.name, every, way, len(vectors), *sums, moved=moved)
    return labels or None, found


def _stages(device: Any) -> dict[str, Callable[[Any], dict[str, np.ndarray]]]:
    """The stage `embed` each way, on one network that has warmed up."""
    from pipeline.faces.stages import per_track
    from pipeline.faces.stages.embed import Embed, EmbedOptions

    face, track = Embed(EmbedOptions()), Embed(EmbedOptions(per="track"))
    face.load(device)
    track.load(device)
    face.embedder.embed(np.zeros((4, 150, 150, 3), np.uint8))

    def whole(chunk: Any) -> dict[str, np.ndarray]:
        with patch.object(per_track, "halves", lambda rows: list(rows[:, None])):
            return track.run(chunk)

    def unchecked(chunk: Any) -> dict[str, np.ndarray]:
        with patch("pipeline.faces.stages.embed.vectors_agree", lambda *_: True):
            return track.run(chunk)

    return {"per face": face.run, "per track": track.run, "whole": whole, "unchecked": unchecked}


def _labels(video: Path, frame: np.ndarray, box: np.ndarray) -> list[Labelled]:
    """Who each face is, as far as the data folder says; empty where it does not."""
    if video.name == Path(PARADE).name:
        shot = np.searchsorted([first for first, _ in SHOTS], frame, side="right") - 1
        return [Labelled(f"parade {k}", SHOTS[k][1]) for k in shot]
    if video.name == "asl_grid_dev.mp4":
        columns = ((box[:, 0] + box[:, 2] / 2) // COLUMN_PIXELS).astype(int)
        return [Labelled(f"grid {k}", COLUMNS[k]) for k in columns]
    if video.name.startswith("asl_"):
        return [Labelled(video.stem, video.stem.split("_")[1])] * len(frame)
    return []


def _pairs(labels: list[Labelled]) -> tuple[np.ndarray, np.ndarray]:
    """Faces of different shots: int (n,), int (n,)."""
    shots = np.unique([label.shot for label in labels], return_inverse=True)[1]
    left, right = np.triu_indices(len(labels), 1)
    apart = shots[left] != shots[right]
    left, right = left[apart], right[apart]
    if len(left) > MOST_PAIRS:
        chosen = np.random.default_rng(0).choice(len(left), MOST_PAIRS, replace=False)
        left, right = left[chosen], right[chosen]
    return left, right


def _summed(group: str, every: int, way: str, rows: list[Saving]) -> Saving:
    sums = [sum(getattr(row, name) for row in rows) for name in ("faces", "embedded", "seconds")]
    return Saving(group, every, way, int(sums[0]), int(sums[1]), sums[2], moved=max(row.moved or 0 for row in rows))


def _verified(row: Saving, vectors: np.ndarray, labels: list[Labelled], left: np.ndarray, right: np.ndarray) -> Saving:
    person = np.unique([label.person for label in labels], return_inverse=True)[1]
    distance = verification.distances(vectors[left], vectors[right], "cosine")
    found = verification.verify(distance, person[left] == person[right], 0.08)
    return replace(row, auc=found.auc, true_accepts_1_percent=found.true_accepts_1_percent)


# --- attributes -------------------------------------------------------------------------------------------------------


def _with_attributes(options: argparse.Namespace, videos: Path) -> dict[str, Any]:
    folder = options.folder.resolve()
    weights, store = folder / ".deepface" / "weights", folder / "stand_ins"
    stand_ins.forget(weights, store)
    environment = benchmark_environment(folder) | {"DEEPFACE_BACKEND_ENGINE": "onnx"}
    say("stand-ins, where weights are missing")
    found: dict[str, Any] = {"stand_ins": sorted(stand_ins.provide({*ATTRIBUTES}, weights, store))}
    os.environ["DEEPFACE_HOME"] = str(folder)
    if "limit" in options.parts:
        found["limit"] = _limit(videos / PARADE, options.faces, options.rounds)
        say(f"{found['limit']['share_of_limit']:.1%} of the limit")
    if "analyze" in options.parts:
        found["analyze"] = _raced(options.clip or videos / PARADE, options, folder, environment)
    return found


def _raced(video: Path, options: argparse.Namespace, folder: Path, environment: dict[str, str]) -> list[dict[str, Any]]:
    """Runs of detection and analysis per track, and `DeepFace.analyze` frame by frame before and after them: others
    may be at work on the machine."""
    path = folder / "analyze.yaml"
    path.write_text("stages: {detect: {}, analyze: {per: track}}\n")
    ways = [(every, best) for every in options.every for best in options.best]
    warm_up = next(iter(sorted((data_folder() / "videos").glob("asl_D_*.mkv"))), video)
    clip = clips.clip_as_it_is(video)
    loops, rows = [], []
    for part in range(2):
        race = Race(clip, max(options.every), folder, environment)
        say("DeepFace.analyze")
        loops.append(race.contest("deepface_analyze", options.deepface_frames, detector="mtcnn"))
        for every, best in ways if part == 0 else ():
            say(f"analyze per track, every {every}, best {best}")
            race = Race(clip, every, folder, environment)
            more = {"workflow": str(path), "warm_up_clip": str(warm_up), "overrides": [f"analyze.best={best}"]}
            timing = race.contest("run_here", clip.frames, **more)
            rows.append({"way": f"best {best} of a track", "every": every, **asdict(timing), "rate": timing.rate})
    loop_frames, loop_seconds = sum(loop.frames for loop in loops), sum(loop.seconds for loop in loops)
    rate = loop_frames / loop_seconds
    faces = sum(loop.faces or 0 for loop in loops)
    cpu = sum(loop.cpu_seconds or 0 for loop in loops)
    loop_values = {"frames": loop_frames, "seconds": loop_seconds, "faces": faces, "rate": rate, "cpu_seconds": cpu}
    first = {"way": "DeepFace.analyze", "every": max(options.every), **loop_values}
    return [
        {**row, "ratio": row["rate"] / rate, "cpu_ratio": cpu / loop_frames / (row["cpu_seconds"] / row["frames"])}
        for row in (first, *rows)
    ]


def _limit(video: Path, n_faces: int, rounds: int) -> dict[str, Any]:
    """Seconds of the stage `analyze` per face, and of its sessions alone on the same faces; in turn. On a CPU these are
    the process's own on one thread: others may be at work on the machine."""
    from pipeline.engine.stage import Chunk
    from pipeline.engine.workflow import build_workflow
    from pipeline.faces.models.attributes.demography import _network_input
    from pipeline.faces.models.base import Faces
    from pipeline.faces.stages.analyze import Analyze, AnalyzeOptions
    from pipeline.faces.stages.detect import Detect, DetectOptions
    from pipeline.machine.device import Device
    from pipeline.machine.gpus import visible_gpus
    from pipeline.media.video.source import VideoSource

    say("analyze per face against its sessions alone")
    document = {"source": {"every": 5}, "stages": {"detect": {}}}
    source = VideoSource(video, build_workflow("clip", document, Path()).source_options)
    device, clock = Device(), time.process_time
    if visible_gpus():
        device, clock = Device("cuda"), time.perf_counter
    decoded = source.job(0, n_faces).decode(device.threads)  # one face a frame
    detect, analyze = Detect(DetectOptions()), Analyze(AnalyzeOptions())
    detect.load(device)
    analyze.load(device)
    arrays = {"frames_rgb": decoded.frames_rgb}
    chunk = Chunk("clip", 0, source.frame[:n_faces], source.time_seconds[:n_faces], decoded.decoded, arrays)
    chunk = replace(chunk, arrays=arrays | detect.run(chunk))
    faces = Faces(chunk.face_frame, chunk["box"], chunk["landmarks"], chunk["confidence"])
    chips = analyze.attributes["age"].chips(chunk.frames_rgb, faces)
    calls = []
    for name, attribute in analyze.attributes.items():
        inputs = _network_input(chips, name.title())
        most = attribute._most  # type: ignore[attr-defined]
        calls += [(attribute._run, inputs[k : k + most]) for k in range(0, len(inputs), most)]  # type: ignore[attr-defined]
    for run, inputs in calls:
        run(inputs[:1])
    took = []
    for _ in range(rounds):
        began = clock()
        for run, inputs in calls:
            run(inputs)
        alone = clock() - began
        analyze.run(chunk)
        took.append((alone, clock() - began - alone))
    shares = [alone / stage for alone, stage in took]
    return {"faces": len(chips), "rounds": took, "shares": shares, "share_of_limit": float(np.median(shares))}


# --- tables -----------------------------------------------------------------------------------------------------------


def _print(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 120)
    if "embed" in found:
        names = ("clips", "every", "", "faces", "seen", "seconds", "times", "AUC", "TAR at 1%", "moved")
        table = Table(*names, title="embed, Dlib, faces from mtcnn")
        first: dict[tuple[str, int], float] = {}
        for row in found["embed"]:
            exact = first.setdefault((row["clips"], row["every"]), row["seconds"])
            figures = [
                "" if row[key] is None else f"{row[key]:.4f}" for key in ("auc", "true_accepts_1_percent", "moved")
            ]
            seen = f"{row['embedded']} ({row['embedded'] / max(row['faces'], 1):.0%})"
            times = f"{exact / row['seconds']:.1f}" if row["seconds"] else ""
            table.add_row(row["clips"], str(row["every"]), row["way"], str(row["faces"]), seen, f"{row['seconds']:.2f}",
                          times, *figures)  # fmt: skip
        console.print(table)
    if "analyze" in found:
        table = Table(
            "", "every", "frames", "frames/s", "times", "times (CPU)", "faces seen", title="analyze, four attributes"
        )
        for row in found["analyze"]:
            figures = (f"{row['rate']:.3g}", f"{row['ratio']:.1f}", f"{row['cpu_ratio']:.1f}", str(row["faces"]))
            table.add_row(row["way"], str(row["every"]), str(row["frames"]), *figures)
        console.print(table)
    if "limit" in found:
        limit = found["limit"]
        shares = ", ".join(f"{share:.1%}" for share in limit["shares"])
        console.print(f"analyze per face: {limit['share_of_limit']:.1%} of the sessions' own speed ({shares})")
    if found.get("stand_ins"):
        console.print(f"stand-ins (true architecture, random weights): {', '.join(found['stand_ins'])}")
    for name, how in HOW.items():
        console.print(f"[bold]{name}[/bold]: {how}.", highlight=False)
    console.print(found["machine"]["words"], highlight=False)


if __name__ == "__main__":
    sys.exit(main())

"""`per: track`: what it saves and what it costs, and how near `analyze` per face is to the models' own speed.

    make bench-per-track                                 a few minutes on two cores
    make bench-per-track ARGS="--parts embed"            only the embeddings (parts: embed analyze limit)

Clips are those of the data folder ($REELGRAPH_DATA) whose people are known. If weights of the attributes are missing,
stand-ins take their place, for DeepFace and for us (stand_ins.py).
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import harness
import numpy as np
import stand_ins
import verification
from harness import Race, Rows, after, chunks_of, clip_for, data_folder, decoded_chunk, parser, say, show, timed
from parade import signer

PARTS = ("embed", "analyze", "limit")
ATTRIBUTES = {"Age", "Gender", "Emotion", "Race"}
EVERY = (1, 5)
PARADE = "derived/asl_parade_dev.mp4"
CLIPS = (PARADE, "derived/asl_grid_dev.mp4", "fr_short_hamilton.mp4", "skv_carphone.mp4", "clm_cap12.mp4")
"""Clips with rows of their own."""
GROUPS = ("asl_*.mkv", "derived/intel_*.mp4")
"""Clips that share their rows."""
WAYS = ("per face", "per track", "whole", "unchecked")
MOST_PAIRS = 400_000
HOW = {
    "per face": "the network sees every face",
    "per track": "it sees the best 3 of each track within a chunk; if these disagree, each half is asked again",
    "whole": "the same, but if they disagree every face is seen at once",
    "unchecked": "the same, without the question whether they agree",
    "seconds": "of the stage `embed` on decoded, detected chunks; those of one way after the other, chunk by chunk",
    "verification": "pairs of labelled faces from different shots (at most 400,000, the same for all ways), cosine",
    "moved": "largest cosine distance of a face's embedding to the one that the network gives it",
    "analyze": "detection (mtcnn) and all four attributes, each way in one process on all cores, warmed up: "
    "DeepFace.analyze(frame, detector_backend='mtcnn', enforce_detection=False) on its onnx engine, and pipeline.run",
    "times (CPU)": "by the CPU seconds of the processes, which other work on the machine does not lengthen",
    "limit": "ONNX Runtime's sessions called on ready inputs, in the batches of the stage; in turn with the stage, on "
    "one thread, in the process's own CPU seconds",
}
EMBED_COLUMNS = (
    "clips", "every", "=way", "faces", "seen=embedded", "of the faces=share_embedded:.0%", "seconds:.2f", "times:.1f",
    "AUC=auc:.4f", "TAR at 1%=true_accepts_1_percent:.4f", "moved:.4f",
)  # fmt: skip
ANALYZE_COLUMNS = (
    "=way", "every", "frames", "frames/s=rate:.3g", "times=ratio:.1f", "times (CPU)=cpu_ratio:.1f",
    "faces seen=faces",
)  # fmt: skip


def main() -> None:
    options = parser(__doc__, "bench-per-track.json", "bench")
    options.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="parts to run")
    options.add_argument("--deepface-frames", type=int, default=4, help="frames for DeepFace.analyze, twice")
    options.add_argument("--clip", type=Path, help="for the part analyze (default: the parade, shots of 2 seconds)")
    options.add_argument("--every", type=int, nargs="+", default=EVERY, help="for the part analyze")
    options.add_argument("--best", type=int, nargs="+", default=(3,), help="faces of each track")
    options.add_argument("--faces", type=int, default=16, help="faces for the limit")
    options.add_argument("--rounds", type=int, default=3, help="rounds of the limit")
    chosen = options.parse_args()
    videos = data_folder() / "videos"
    if not videos.is_dir():
        raise SystemExit(f"no clips at {videos}; set REELGRAPH_DATA")
    found: dict[str, Any] = {"how": HOW}
    if "embed" in chosen.parts:
        found["embed"] = [row for every in EVERY for row in savings(videos, every)]
    if {"analyze", "limit"} & {*chosen.parts}:
        environment, standing = stand_ins.environment_with(ATTRIBUTES, chosen.folder)
        os.environ["DEEPFACE_HOME"], found["stand_ins"] = str(chosen.folder), sorted(standing)
        if "limit" in chosen.parts:
            found["limit"] = limit(videos / PARADE, chosen.faces, chosen.rounds)
        if "analyze" in chosen.parts:
            found["analyze"] = raced(chosen.clip or videos / PARADE, chosen, environment)
    harness.write_json(chosen.json, found)
    if "embed" in found:
        show("embed, Dlib, faces from mtcnn", EMBED_COLUMNS, found["embed"])
    if "analyze" in found:
        show("analyze, four attributes", ANALYZE_COLUMNS, found["analyze"])
    if "limit" in found:
        shares = ", ".join(f"{share:.1%}" for share in found["limit"]["shares"])
        print(f"\nanalyze per face: {found['limit']['share_of_limit']:.1%} of the sessions' own speed ({shares})")
    if found.get("stand_ins"):
        print(f"stand-ins (true architecture, random weights): {', '.join(found['stand_ins'])}")
    harness.explain(HOW)


def savings(videos: Path, every: int) -> Rows:
    """Return the rows of each clip or group of clips, and of all labelled clips together; each way in turn."""
    groups = {Path(name).name: [videos / name] for name in CLIPS}
    groups |= {Path(name).name: sorted(videos.glob(name)) for name in GROUPS}
    parts = {name: [embedded(path, every) for path in paths if path.is_file()] for name, paths in groups.items()}
    labelled = parts["all labelled"] = [part for several in parts.values() for part in several if any(part["labels"])]
    rows = []
    for group, several in ((group, several) for group, several in parts.items() if several):
        for way in WAYS:
            mine, exact = [part[way] for part in several], sum(part[WAYS[0]]["seconds"] for part in several)
            faces, seen, seconds = (sum(part[name] for part in mine) for name in ("faces", "embedded", "seconds"))
            rows.append({
                "clips": group, "every": every, "way": way, "faces": faces, "embedded": seen,
                "share_embedded": seen / max(faces, 1), "seconds": seconds, "times": exact / max(seconds, 1e-9),
                "moved": max(part["moved"] for part in mine),
            })  # fmt: skip
    if not labelled:
        return rows
    from pipeline.faces.models.recognisers.thresholds import thresholds
    from pipeline.faces.stages.embed import EmbedOptions

    labels = [label for part in labelled for label in part["labels"]]
    shot, person = (np.unique([label[k] for label in labels], return_inverse=True)[1] for k in (0, 1))
    threshold = thresholds("Dlib", EmbedOptions().align)["cosine"]
    pairs = np.stack(np.triu_indices(len(labels), 1))
    pairs = pairs[:, shot[pairs[0]] != shot[pairs[1]]]
    if pairs.shape[1] > MOST_PAIRS:
        pairs = pairs[:, np.random.default_rng(0).choice(pairs.shape[1], MOST_PAIRS, replace=False)]
    for row in rows[-len(WAYS) :]:
        left, right = np.concatenate([part[row["way"]]["vectors"] for part in labelled])[pairs]
        distance = verification.distances(left, right, "cosine")
        row |= asdict(verification.verify(distance, person[pairs[0]] == person[pairs[1]], threshold))
    return rows


def embedded(video: Path, every: int) -> dict[str, Any]:
    """Embed the faces of a clip each way. Return the vectors and their cost by way, and as `labels` the shot and the
    person of each face, or None."""
    from pipeline.engine.workflow import build_workflow
    from pipeline.faces.stages import per_track
    from pipeline.faces.stages.detect import Detect, DetectOptions
    from pipeline.faces.stages.embed import Embed, EmbedOptions
    from pipeline.machine.device import Device

    say(f"{video.name}, every {every}")
    workflow = build_workflow("clip", {"source": {"every": every}, "stages": {"detect": {}}}, Path())
    source, chunks = chunks_of(video, workflow)
    device = Device(threads=len(os.sched_getaffinity(0)))
    detect = Detect(DetectOptions())
    detect.load(device)
    face, track = Embed(EmbedOptions()), Embed(EmbedOptions(per="track"))
    face.load(device)
    track.load(device)
    face.embedder.embed(np.zeros((4, 2, 150, 150, 3), np.uint8))  # two views of each face; warms it up

    def whole(chunk: Any) -> dict[str, np.ndarray]:
        with patch.object(per_track, "halves", lambda rows: list(rows[:, None])):
            return track.run(chunk)

    def unchecked(chunk: Any) -> dict[str, np.ndarray]:
        with patch("pipeline.faces.stages.embed.vectors_agree", lambda *_: True):
            return track.run(chunk)

    stages = dict(zip(WAYS, (face.run, track.run, whole, unchecked), strict=True))
    labels = []
    made: dict[str, list[tuple[np.ndarray, int, float]]] = {way: [] for way in WAYS}
    for start, stop in chunks:
        chunk = after(decoded_chunk(source, start, stop, device.threads), detect)
        for frame, box in zip(chunk.frame[chunk.face_frame].tolist(), chunk["box"], strict=True):
            labels.append(signer(video.stem, frame, float(box[0] + box[2] / 2)))
        for way, run in stages.items():
            result, seconds = timed(lambda run=run, chunk=chunk: run(chunk))
            seen = result.get("embedded", np.ones(len(result["embedding"]), bool))
            made[way].append((result["embedding"], int(seen.sum()), seconds))
    found: dict[str, Any] = {"labels": labels}
    for way, parts in made.items():
        vectors = np.concatenate([part[0] for part in parts])
        exact = found["per face"]["vectors"] if found.get("per face") else vectors
        moved = float(verification.distances(exact, vectors, "cosine").max(initial=0))
        seen, seconds = (sum(part[k] for part in parts) for k in (1, 2))
        found[way] = {"vectors": vectors, "faces": len(vectors), "embedded": seen, "seconds": seconds, "moved": moved}
    return found


def raced(video: Path, chosen: argparse.Namespace, environment: dict[str, str]) -> Rows:
    """Run detection and analysis per track, and `DeepFace.analyze` frame by frame before and after: other work may slow
    the machine."""
    path = chosen.folder / "analyze.yaml"
    path.write_text("stages: {detect: {}, analyze: {per: track}}\n")
    warm_up = next(iter(sorted((data_folder() / "videos").glob("asl_D_*.mkv"))), video)
    clip, slowest = clip_for(video, chosen.folder, 0), max(chosen.every)

    def loop() -> dict[str, Any]:
        say("DeepFace.analyze")
        race = Race(clip, slowest, chosen.folder, environment)
        return asdict(race.contest("deepface_analyze", chosen.deepface_frames))

    before, rows = loop(), []
    for every in chosen.every:
        race = Race(clip, every, chosen.folder, environment)
        for best in chosen.best:
            say(f"analyze per track, every {every}, best {best}")
            more = {"workflow": str(path), "warm_up_clip": str(warm_up), "overrides": [f"analyze.best={best}"]}
            measured = asdict(race.contest("run_here", clip.frames, **more))
            rows.append({"way": f"best {best} of a track", "every": every, **measured})
    again = loop()
    both = {name: before[name] + again[name] for name in ("frames", "seconds", "faces", "cpu_seconds")}
    rows = [{"way": "DeepFace.analyze", "every": slowest, **both}, *rows]
    for row in rows:
        row["rate"] = row["frames"] / row["seconds"]
        row["ratio"] = row["rate"] / rows[0]["rate"]
        row["cpu_ratio"] = both["cpu_seconds"] / both["frames"] / (row["cpu_seconds"] / row["frames"])
    return rows


def limit(video: Path, n_faces: int, rounds: int) -> dict[str, Any]:
    """Measure the stage `analyze` per face and its sessions alone on the same faces, in turn.

    On a CPU the seconds are the process's own on one thread: other work may slow the machine.
    """
    from pipeline.engine.workflow import build_workflow
    from pipeline.faces.models.attributes.demography import _network_input
    from pipeline.faces.models.base import Faces
    from pipeline.faces.stages.analyze import Analyze, AnalyzeOptions
    from pipeline.faces.stages.detect import Detect, DetectOptions
    from pipeline.machine.device import Device
    from pipeline.machine.gpus import visible_gpus

    say("analyze per face against its sessions alone")
    source, _ = chunks_of(video, build_workflow("clip", {"source": {"every": 5}, "stages": {"detect": {}}}, Path()))
    device, clock = (Device("cuda"), time.perf_counter) if visible_gpus() else (Device(), time.process_time)
    detect, analyze = Detect(DetectOptions()), Analyze(AnalyzeOptions())
    detect.load(device)
    analyze.load(device)
    chunk = after(decoded_chunk(source, 0, n_faces, device.threads), detect)  # one face a frame
    faces = Faces(chunk.face_frame, chunk["box"], chunk["landmarks"], chunk["confidence"])
    chips = analyze.attributes["age"].chips(chunk.frames_rgb, faces)
    calls = []
    for name, attribute in analyze.attributes.items():
        inputs, session = _network_input(chips, name.title()), vars(attribute)
        most = session["_most"]
        calls += [(session["_run"], inputs[k : k + most]) for k in range(0, len(inputs), most)]
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
    say(f"{np.median(shares):.1%} of the limit")
    return {"faces": len(chips), "rounds": took, "shares": shares, "share_of_limit": float(np.median(shares))}


if __name__ == "__main__":
    main()

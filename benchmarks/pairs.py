"""Four pairs of detector and network, raced: DeepFace's loop, `reelgraph run`, and the models' own limit.

    make bench-pairs                                an hour and a half on two cores
    make bench-pairs ARGS=--quick                   a first impression
    make bench-pairs ARGS="--pairs yunet+SFace --align native --frames 400"

Weights are those in DeepFace's folder, in $REELGRAPH_DATA/weights/deepface, or in packages. If there are none, the
table says "stand-in": the true architecture with random weights (stand_ins.py), for DeepFace and for us.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import stand_ins
import yaml
from harness import LIMIT, RACE_COLUMNS, Race, Rows, clip_for, parser, show, write_json

ALIGNS = ("native", "deepface")
PAIRS = {
    "mtcnn+Dlib": (12, 400),
    "retinaface+ArcFace": (4, 40),
    "yunet+SFace": (20, 1200),
    "opencv+VGG-Face": (20, 150),
}
"""Sampled frames of DeepFace and of each worker, for runs of two to four minutes: in shorter ones the loading of the
models weighs, which the limit leaves out."""
QUICK = 16
"""Divisor of these with --quick; at least two frames are left."""
HOW = {
    "DeepFace loop": "DeepFace.represent(frame, model_name=..., detector_backend=..., enforce_detection=False), "
    "DEEPFACE_BACKEND_ENGINE=onnx, warmed up",
    "native": "this package's own way to find and cut faces",
    "deepface": "DeepFace's results: its boxes, its crops, and a frame without faces embedded whole",
    "one worker": "reelgraph run --workers 1: one chunk at a time, each model on all cores",
    "all cores": "reelgraph run with a worker per core (or per GPU) and a copy of the clip for each; "
    "its cluster already started, its models not yet loaded",
    "in DeepFace's frames": "faces/frame in the frames that DeepFace did, the clip's first",
    "limit": LIMIT,
    "stand-in": "the true architecture with random weights, one face planted in what RetinaFace's finds",
}


def main() -> None:
    import av

    options = parser(__doc__, "bench-pairs.json", "bench", race=True)
    options.add_argument("--pairs", nargs="+", choices=PAIRS, default=[*PAIRS], metavar="PAIR", help=" ".join(PAIRS))
    options.add_argument("--align", nargs="+", choices=ALIGNS, default=ALIGNS, help="for reelgraph")
    chosen = options.parse_args()
    sizes = {}
    for pair in chosen.pairs:
        theirs, ours = (max(2, frames // (QUICK if chosen.quick else 1)) for frames in PAIRS[pair])
        theirs = chosen.deepface_frames or theirs
        sizes[pair] = theirs, max(theirs, chosen.frames or ours)  # DeepFace's frames are looked up among ours
    names = {name for pair in sizes for name in pair.split("+")}
    environment, standing = stand_ins.environment_with(names, chosen.folder)
    clip = clip_for(chosen.clip, chosen.folder, max(ours for _, ours in sizes.values()) * chosen.every)
    rows: Rows = []
    for pair, (theirs, ours) in sizes.items():
        models = " + ".join(f"{name} (stand-in)" if name in standing else name for name in pair.split("+"))
        race = Race(clip, chosen.every, chosen.folder, environment)
        detector, network = pair.split("+")
        race.deepface("DeepFace loop", "deepface_loop", theirs, detector=detector, network=network)
        # The clip under a name for each worker: some pairs are so slow that one chunk has to do for each.
        original = Path(clip.path).resolve()
        copies = [race.folder / f"copy_{number}{original.suffix}" for number in range(race.workers)]
        for copy in copies:
            copy.unlink(missing_ok=True)
            copy.symlink_to(original)
        inputs = [str(copy) for copy in copies]
        for align in chosen.align:
            with av.open(race.clip.path) as container:
                rate: Any = container.streams.video[0].average_rate
            # Half a sampled frame early: the one after the last lies at the end itself.
            stop = float((ours - 0.5) * race.every / rate)
            detect: dict[str, Any] = {"use": "detect", "model": detector, "align": align}
            if align == "deepface":
                detect["whole_frame"] = True
            stages = {"detect": detect, "embed": {"use": "embed", "model": network, "align": align, "after": "detect"}}
            source = {"kind": "video", "every": race.every, "stop": stop}
            workflow = race.folder / "pair.yaml"
            workflow.write_text(yaml.safe_dump({"source": source, "stages": stages}))
            if not race.gpus:
                race.reelgraph("one worker", workflow, inputs[:1], workers=1, align=align)
            race.reelgraph("all cores", workflow, inputs, align=align)
            race.limit(workflow, ours, copies=len(inputs), align=align)
        rows += [{"pair": pair, "models": models, **row} for row in race.rows]
        # After each pair, so that an end before the last loses one only.
        write_json(chosen.json, {"clip": vars(clip), "how": HOW, "stand_ins": sorted(standing), "rows": rows})
    show(clip.words, ("models", "=name", "align", *RACE_COLUMNS), rows, HOW)


if __name__ == "__main__":
    main()

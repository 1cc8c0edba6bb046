"""Pairs of pictures: scripts that people write, hloc's way, and this package; and the memory of shared features.

    make bench-match
    make bench-match ARGS="--parts memory --gigabytes 3"

The pictures are made of real ones: places of those in the data folder ($REELGRAPH_DATA; without it, of installed
packages), seen from ten sides by random homographies each. All contestants find SIFT with the same OpenCV, match with
the same tests and verify with the same estimator; their inliers are compared, pair by pair. The descriptors of the part
`memory` are random numbers.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from harness import (
    Rows,
    alone,
    contestant,
    cut_evenly,
    environment,
    explain,
    parser,
    pictures_at_hand,
    reelgraph_run,
    say,
    show,
    watched,
    write_json,
)  # fmt: skip

PARTS = ("race", "memory")
SIZE = (640, 480)
KEYPOINTS = 1024
VIEWS = 10
"""Pictures of each place."""
WORKERS = (1, 2, 4, 8)
MADE_KEYPOINTS, MADE_LENGTH = 2048, 256
"""Keypoints of each picture, and components of a descriptor, in the part `memory`: 2 MB, as SuperPoint has them."""
COLUMNS = (
    "=name", "pairs:,", "found in=extractions:,", "seconds:.1f", "ms a pair=ms_per_pair:.1f",
    "times the script=times_script:.1f", "times hloc's way=times_hloc:.2f",
)  # fmt: skip
HOW = {
    "the script": "for each pair: read both pictures, find SIFT in both, match, verify; timed over --script-pairs of "
    "the pairs, and scaled",
    "pool": "features found once by a pool of as many processes as cores; then a pool that loads the features of all "
    "pictures into each process, and does a part of the pairs",
    "manager.dict": "the same, but the features lie in a multiprocessing.Manager().dict(), and each pair asks for two",
    "hloc's way": "features found once by the pool and kept in HDF5 (float16, as hloc has them); one pair at a time: a "
    "thread reads the next pairs while all cores match this one (numpy, not torch), a thread writes; then all "
    "pairs are verified on all cores, as COLMAP does it",
    "reelgraph": "reelgraph run, with features and pairs committed and flushed; seconds are of the whole command, with "
    "its start",
    "limit": "descriptors in memory, as many processes as cores, one thread each: matching and verification alone",
    "found in": "pictures in which features were looked for",
    "memory": "descriptors that were made up, on disk: every contestant matches each picture with the next one. PSS: "
    "memory of all its processes, what they share counted once; read every half second",
}


def main() -> None:
    options = parser(__doc__, "bench-match.json", "bench-match")
    options.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="parts to run")
    options.add_argument("--pictures", type=int, default=101, help="pictures in the race: 101 make 5,050 pairs")
    options.add_argument("--script-pairs", type=int, default=300, help="pairs that the script does")
    options.add_argument("--gigabytes", type=float, default=3.0, help="made-up descriptors in the part memory")
    options.add_argument("--workers", type=int, nargs="+", default=WORKERS, help="workers of reelgraph")
    options.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4], help="processes in the part memory")
    chosen = contestant(options, CONTESTANTS)
    chosen.folder.mkdir(parents=True, exist_ok=True)
    os.environ |= environment(chosen.folder)
    result: dict[str, Any] = {"how": HOW}
    if "race" in chosen.parts:
        pictures = make_pictures(chosen.folder / "pictures", chosen.pictures)
        result["race"] = race(chosen.folder, pictures, chosen.script_pairs, chosen.workers)
        show(f"Pairs of {chosen.pictures} pictures, {cores()} cores", COLUMNS, result["race"])
    if "memory" in chosen.parts:
        result["memory"] = memory(chosen.folder, chosen.gigabytes, chosen.processes)
        columns = ("=name", "processes", "pairs:,", "seconds:.1f", "peak PSS, MB=peak_pss_mb:,.0f")
        show(f"Memory over {chosen.gigabytes:g} GB of descriptors", columns, result["memory"])
    explain(HOW)
    write_json(chosen.json, result)


def cores() -> int:
    from pipeline.machine.cores import available_cores

    return available_cores()


def make_pictures(folder: Path, pictures: int) -> Path:
    """Make pictures of places, each seen from several sides."""
    found = pictures_at_hand("pairs", "faces")
    large = [path for path in found if min(cv2.imread(str(path)).shape[:2]) >= SIZE[1]] or found
    chance = np.random.default_rng(1)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    corners = np.array([[0, 0], [SIZE[0], 0], [SIZE[0], SIZE[1]], [0, SIZE[1]]], np.float32)
    for number in range(pictures):
        source = cv2.imread(str(large[number // VIEWS % len(large)]))
        height, width = source.shape[:2]
        scale = max(SIZE[0] / width, SIZE[1] / height) * chance.uniform(1.1, 1.5)
        source = cv2.resize(source, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else 1)
        shift = [chance.uniform(0, max(1, side - part)) for side, part in zip(source.shape[1::-1], SIZE, strict=True)]
        seen = corners + np.array(shift, np.float32) + chance.uniform(-60, 60, (4, 2)).astype(np.float32)
        view = cv2.warpPerspective(source, cv2.getPerspectiveTransform(seen, corners), SIZE, flags=cv2.INTER_AREA)
        cv2.imwrite(str(folder / f"{number:04d}.png"), view)
    return folder


def race(folder: Path, pictures: Path, script_pairs: int, workers: Sequence[int]) -> Rows:
    """Run all contestants and compare their inliers."""
    count = len(list(pictures.iterdir()))
    pairs = count * (count - 1) // 2
    rows: Rows = []
    say("the script")
    values, _ = alone(folder, "the script", pictures=str(pictures), most=min(script_pairs, pairs))
    scaled = values["seconds"] * pairs / values["pairs"]
    rows.append({"name": "the script", "pairs": pairs, "extractions": 2 * pairs, "seconds": scaled})
    found: dict[str, np.ndarray] = {}
    for name in ("pool", "manager.dict", "hloc's way", "limit"):
        say(name)
        values, done = alone(folder, name, pictures=str(pictures))
        seconds = values.get("seconds", done.seconds)
        rows.append({"name": name, "pairs": pairs, "extractions": values["extractions"], "seconds": seconds})
        found[name] = np.load(values["out"])
    for number in workers:
        name = f"reelgraph, {number} worker{'s' * (number > 1)}"
        say(name)
        out = folder / "match.zarr"
        settings = [f"keypoints.most={KEYPOINTS}", "source.longest=null"]
        began = time.perf_counter()
        summary, _ = reelgraph_run(Path("match"), [str(pictures)], out, dict(os.environ), settings, workers=number)
        seconds = time.perf_counter() - began
        rows.append({"name": name, "pairs": summary["pairs"], "extractions": summary["pictures"], "seconds": seconds})
        rows[-1]["pairs_per_second"] = summary["pairs_per_second"]
        found[name] = inliers_of(out, count)
    first = found["pool"]
    for name, inliers in found.items():
        differ = int((inliers != first).sum())
        say(f"{name}: {int(inliers.sum())} inliers in {int((inliers > 0).sum())} pairs; {differ} pairs differ")
        assert differ == 0 or name == "hloc's way", name  # whose float16 descriptors are others
    by_name = {row["name"]: row["seconds"] for row in rows}
    for row in rows:
        row["ms_per_pair"] = 1000 * row["seconds"] / row["pairs"]
        row["times_script"] = by_name["the script"] / row["seconds"]
        row["times_hloc"] = by_name["hloc's way"] / row["seconds"]
    return rows


def inliers_of(out: Path, count: int) -> np.ndarray:
    """Return the inliers of each pair of a store, in the order of `combinations`."""
    import pipeline

    pairs = next(one for one in pipeline.open(out).inputs.values() if one.item == "pair")
    table = np.zeros((count, count), np.int32)
    table[pairs.array("a"), pairs.array("b")] = pairs.array("n_inliers")
    return np.array([table[a, b] for a, b in combinations(range(count), 2)])


# -- what the contestants share ---------------------------------------------------------------------------------

Features = Mapping[str, np.ndarray]


def features_of(path: str) -> Features:
    """Find SIFT in a picture, as the workflow does."""
    from pipeline.machine.device import Device
    from pipeline.pairs.models.extractor import strongest
    from pipeline.pairs.models.sift import Sift
    from pipeline.pairs.stages.keypoints import KeypointsOptions

    picture = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)
    (found,) = Sift(KeypointsOptions(most=KEYPOINTS), Device()).extract([picture])
    kept = strongest(found, KEYPOINTS)
    return {"points": kept.points, "descriptors": kept.descriptors}


def matched(a: np.ndarray, b: np.ndarray, ratio: float = 0.8) -> np.ndarray:
    """Match descriptors by one matrix product: mutual nearest, with the ratio test in both directions."""
    a, b = a.astype(np.float32), b.astype(np.float32)
    squared = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * (a @ b.T)
    keep = []
    for distances in (squared, squared.T):
        nearest = distances.argmin(1)
        best = distances[np.arange(len(distances)), nearest]
        others = distances.copy()
        others[np.arange(len(distances)), nearest] = np.inf
        keep.append((nearest, np.sqrt(best) < ratio * np.sqrt(others.min(1))))
    (to_b, good_a), (to_a, good_b) = keep
    rows = np.arange(len(a))
    fits = (to_a[to_b] == rows) & good_a & good_b[to_b]
    return np.stack([rows[fits], to_b[fits]], axis=1)


def verified(a: np.ndarray, b: np.ndarray) -> int:
    """Return the number of inliers of a fundamental matrix, with the estimator of the workflow."""
    from pipeline.pairs.stages.verify import Verify, VerifyOptions

    found = Verify(VerifyOptions()).verifier.verify(a, b)
    return 0 if found is None else int(found[1].sum())


def inliers(a: Features, b: Features) -> int:
    match = matched(a["descriptors"], b["descriptors"])
    return verified(a["points"][match[:, 0]], b["points"][match[:, 1]])


def paths_in(pictures: str) -> list[str]:
    return [str(path) for path in sorted(Path(pictures).iterdir())]


def together(work: Callable[..., Any], *lists: Sequence[Any], processes: int = 0) -> list[Any]:
    """Do work in a pool of processes with one thread each: the others have the other cores."""
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # which they see as they start
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes or cores(), context, cv2.setNumThreads, (1,)) as workers:
        return list(workers.map(work, *lists))


def kept(counts: Sequence[int], pictures: str, name: str) -> dict[str, Any]:
    out = Path(pictures).parent / f"{name}.npy"
    np.save(out, np.array(counts, np.int32))
    return {"out": str(out), "extractions": len(paths_in(pictures))}


# -- contestants, each in a process of its own ------------------------------------------------------------------


def script(pictures: str, most: int) -> dict[str, Any]:
    paths = paths_in(pictures)
    pairs = list(combinations(range(len(paths)), 2))
    some = pairs[:: max(1, len(pairs) // most)][:most]
    began = time.perf_counter()
    for a, b in some:
        inliers(features_of(paths[a]), features_of(paths[b]))
    return {"pairs": len(some), "seconds": time.perf_counter() - began}


def extract(pictures: str) -> Path:
    """Find the features of all pictures by a pool, and keep them in a file."""
    found = together(features_of, paths_in(pictures))
    path = Path(pictures).parent / "features.npz"
    np.savez(path, **{f"{kind}-{k}": one[kind] for k, one in enumerate(found) for kind in one})
    return path


def loaded(path: str) -> list[Features]:
    with np.load(path) as file:
        count = len(file.files) // 2
        return [{kind: file[f"{kind}-{k}"] for kind in ("points", "descriptors")} for k in range(count)]


def part_of_pool(path: str, pairs: list[tuple[int, int]]) -> list[int]:
    features = loaded(path)
    return [inliers(features[a], features[b]) for a, b in pairs]


def pool(pictures: str) -> dict[str, Any]:
    path = extract(pictures)
    cut = cut_evenly(list(combinations(range(len(paths_in(pictures))), 2)), cores())
    counts = together(part_of_pool, [str(path)] * len(cut), cut)
    return kept(list(chain.from_iterable(counts)), pictures, "pool")


def part_of_manager(features: Any, pairs: list[tuple[int, int]]) -> list[int]:
    return [inliers(features[a], features[b]) for a, b in pairs]


def manager(pictures: str) -> dict[str, Any]:
    found = loaded(str(extract(pictures)))
    cut = cut_evenly(list(combinations(range(len(found)), 2)), cores())
    with multiprocessing.get_context("spawn").Manager() as server:
        features = server.dict(enumerate(found))
        counts = together(part_of_manager, [features] * len(cut), cut)
    return kept(list(chain.from_iterable(counts)), pictures, "manager")


def hloc(pictures: str) -> dict[str, Any]:
    import h5py

    folder = Path(pictures).parent
    features, matches = folder / "hloc-features.h5", folder / "hloc-matches.h5"
    matches.unlink(missing_ok=True)
    with h5py.File(features, "w") as file:
        for k, one in enumerate(loaded(str(extract(pictures)))):
            group = file.create_group(str(k))
            group.create_dataset("keypoints", data=one["points"].astype(np.float16))
            group.create_dataset("descriptors", data=(one["descriptors"] / 512).T.astype(np.float16))
    pairs = list(combinations(range(len(paths_in(pictures))), 2))

    def read(pair: tuple[int, int]) -> list[Features]:
        with h5py.File(features) as file:
            return [{name: file[str(k)][name][()] for name in ("keypoints", "descriptors")} for k in pair]

    def write(pair: tuple[int, int], match: np.ndarray, count: int) -> None:
        with h5py.File(matches, "a") as file:
            found = np.full(count, -1, np.int16)
            found[match[:, 0]] = match[:, 1]
            file.create_group("/".join(map(str, pair))).create_dataset("matches0", data=found)

    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        ahead = [reader.submit(read, pair) for pair in pairs[:4]]
        writes = []
        for number, pair in enumerate(pairs):
            a, b = ahead.pop(0).result()
            ahead += [reader.submit(read, pairs[number + 4])] if number + 4 < len(pairs) else []
            match = matched(a["descriptors"].T, b["descriptors"].T)
            writes.append(writer.submit(write, pair, match, len(a["keypoints"])))
        _ = [one.result() for one in writes]
    counts: list[int] = []
    with h5py.File(features) as file, h5py.File(matches) as made, ThreadPoolExecutor(cores()) as verifiers:
        points = [file[str(k)]["keypoints"][()].astype(np.float32) for k in range(len(file))]

        def verify(pair: tuple[int, int], found: np.ndarray) -> int:
            (rows,) = np.nonzero(found >= 0)
            return verified(points[pair[0]][rows], points[pair[1]][found[rows]])

        work = [(pair, made["/".join(map(str, pair))]["matches0"][()]) for pair in pairs]
        counts += verifiers.map(verify, *zip(*work, strict=True))
    return kept(counts, pictures, "hloc")


def part_of_limit(path: str, pairs: list[tuple[int, int]]) -> tuple[list[int], float, float]:
    features = loaded(path)
    began = time.time()
    return [inliers(features[a], features[b]) for a, b in pairs], began, time.time()


def limit(pictures: str) -> dict[str, Any]:
    path = extract(pictures)
    cut = cut_evenly(list(combinations(range(len(paths_in(pictures))), 2)), cores())
    done = together(part_of_limit, [str(path)] * len(cut), cut)
    seconds = max(stop for _, _, stop in done) - min(start for _, start, _ in done)
    counts = list(chain.from_iterable(counts for counts, _, _ in done))
    return {**kept(counts, pictures, "limit"), "seconds": seconds}


# -- memory -----------------------------------------------------------------------------------------------------

MADE_UP = '''
"""Descriptors that are random numbers, of which each picture has its own."""

import numpy as np

from pipeline import Array, Axis, Stage


class MadeUp(Stage):
    needs = ("name",)
    axes = (Axis("keypoint"),)
    outputs = (Array("n_keypoints", ("frame",), "int32"),
               Array("descriptor", ("keypoint", "component"), "float32", ({length},), mapped=True))

    def run(self, chunk):
        made = [np.random.default_rng(int(name[:8])).standard_normal(({keypoints}, {length}), np.float32)
                for name in chunk["name"]]
        made = np.concatenate(made)
        return {{"n_keypoints": np.full(len(chunk), {keypoints}, np.int32),
                "descriptor": made / np.linalg.norm(made, axis=1, keepdims=True)}}
'''
WORKFLOW = """
source: {kind: images}
pairs: {window: 1}
stages:
  keypoints: {use: "made_up:MadeUp"}
  match: {use: match}
"""


def memory(folder: Path, gigabytes: float, processes_tried: list[int]) -> Rows:
    """Match made-up descriptors in different ways, and watch the memory of all processes."""
    count = max(2, round(gigabytes * 1e9 / (MADE_KEYPOINTS * MADE_LENGTH * 4)))
    place = folder / "memory"
    shutil.rmtree(place, ignore_errors=True)
    (place / "pictures").mkdir(parents=True)
    for number in range(count):
        cv2.imwrite(str(place / "pictures" / f"{number:08d}.png"), np.zeros((1, 1, 3), np.uint8))
    (place / "made_up.py").write_text(MADE_UP.format(length=MADE_LENGTH, keypoints=MADE_KEYPOINTS))
    (place / "match.yaml").write_text(WORKFLOW)
    first = (place / "match.yaml").read_text().replace("pairs: {window: 1}", "").partition("  match")[0]
    (place / "first.yaml").write_text(first)
    say(f"{count} pictures of made-up descriptors")
    out = place / "made.zarr"
    reelgraph_run(place / "first.yaml", [str(place / "pictures")], out, dict(os.environ))
    alone(folder, "as a file", out=str(out))
    rows: Rows = []
    for processes in processes_tried:
        say(f"reelgraph, {processes} workers")
        copy = place / "run.zarr"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(out, copy, copy_function=os.link)
        words = [str(place / "match.yaml"), str(place / "pictures"), "--out", str(copy), "--workers", str(processes)]
        done = watched([sys.executable, "-m", "pipeline", "run", *words], dict(os.environ), place, once=True)
        row = {"name": "reelgraph", "processes": processes, "pairs": count - 1}
        rows.append({**row, "seconds": done.seconds, "peak_pss_mb": done.peak_mb})
    for name in ("copies", "shared by a manager"):
        for processes in processes_tried:
            say(f"{name}, {processes} processes")
            _, done = alone(place, name, once=True, out=str(out), processes=processes)
            row = {"name": name, "processes": processes, "pairs": count - 1}
            rows.append({**row, "seconds": done.seconds, "peak_pss_mb": done.peak_mb})
    shutil.rmtree(place)
    return rows


def as_a_file(out: str) -> dict[str, Any]:
    """Write the descriptors of the store as one .npy file, as a script would have them."""
    import pipeline

    (item,) = pipeline.open(out).inputs.values()
    path = Path(out).with_name("descriptors.npy")
    shape = (item.rows["keypoint"], MADE_LENGTH)
    file = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    for piece in item.pieces("descriptor"):
        file[piece.start : piece.stop] = piece.load()
    file.flush()
    return {}


def made_pairs(count: int) -> Iterator[tuple[int, int]]:
    return ((k, k + 1) for k in range(count - 1))


def part_of_shared(descriptors: Any, pairs: list[tuple[int, int]]) -> int:
    return sum(len(matched(descriptors[a], descriptors[b])) for a, b in pairs)


def part_of_copies(path: str, pairs: list[tuple[int, int]]) -> int:
    return part_of_shared(np.load(path).reshape(-1, MADE_KEYPOINTS, MADE_LENGTH), pairs)


def copies(out: str, processes: int) -> dict[str, Any]:
    path = Path(out).with_name("descriptors.npy")
    count = len(np.load(path, mmap_mode="r")) // MADE_KEYPOINTS
    cut = cut_evenly(list(made_pairs(count)), processes)
    return {"matches": sum(together(part_of_copies, [str(path)] * processes, cut, processes=processes))}


def shared_by_manager(out: str, processes: int) -> dict[str, Any]:
    features = np.load(Path(out).with_name("descriptors.npy"), mmap_mode="r")
    features = features.reshape(-1, MADE_KEYPOINTS, MADE_LENGTH)
    cut = cut_evenly(list(made_pairs(len(features))), processes)
    with multiprocessing.get_context("spawn").Manager() as server:
        descriptors = server.dict()
        for k, one in enumerate(features):
            descriptors[k] = np.array(one)
        return {"matches": sum(together(part_of_shared, [descriptors] * processes, cut, processes=processes))}


CONTESTANTS: dict[str, Callable[..., dict[str, Any]]] = {
    "the script": script, "pool": pool, "manager.dict": manager, "hloc's way": hloc, "limit": limit,
    "as a file": as_a_file, "copies": copies, "shared by a manager": shared_by_manager,
}  # fmt: skip

if __name__ == "__main__":
    main()

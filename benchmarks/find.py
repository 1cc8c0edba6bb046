"""Finding people in stored faces: known ones beside `DeepFace.find`, and one never named in ten million faces.

    make bench-find                                     a gallery of 1,000 over 100,000 faces; a face in 1,000,000
    make bench-find ARGS="--faces 10_000_000"           about half an hour and 7 GB on two cores
    make bench-find ARGS="--parts gallery"

The faces are made up (made_up.py): vectors like Dlib's, 40 people in each film, each on screen for 20 s at a time.
Their distances are computed as those of real ones; the time of the models is in no figure but where it says so.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import made_up
import numpy as np
from race import machine, say
from watch import watched
from weights_at_hand import REPOSITORY, link_weights

import pipeline
from pipeline.faces.people.gallery import Gallery, save
from pipeline.faces.people.pictures import Recipe
from pipeline.faces.people.search import Query
from pipeline.store.pieces import for_each

HOW = {
    "DeepFace.find, all of it": "DeepFace.find(chip, db_path, model_name='Dlib', detector_backend='skip', "
    "refresh_database=False, silent=True): one face per call, its datastore read, its network run, its table made",
    "DeepFace.find, its search": "the same call, its network's answer at hand: what is left is the datastore "
    "and the search",
    "DeepFace.find, dicts": "the same with return_type='dict', its way for large galleries",
    "find_distance": "only deepface.modules.verification.find_distance, on a block of 1,000 faces: nothing is read, "
    "nothing kept",
    "reelgraph find": "faces.people.find.find: embeddings read from the store, identities and distances written to "
    "it, appearances of everybody computed",
    "plain read": "the files of the embeddings read to their ends by as many threads, their pages dropped before",
    "peak MB": "memory of its own, without the pages of files that it maps",
    "recall": "of the nearest 10 and 100 faces of an exact search, how many the index finds",
}
Rows = list[dict[str, Any]]


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    os.environ.setdefault("DEEPFACE_LOG_LEVEL", "40")  # else a line for every call
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"machine": machine(), "how": HOW}
    if "gallery" in options.parts:
        result["gallery"] = gallery_rows(folder, options.gallery_faces, options.gallery, options.deepface_faces)
        _print_gallery(result["gallery"], options)
    if "search" in options.parts:
        result["search"] = search_rows(folder, options)
        _print_search(result["search"])
    for name, words in HOW.items():
        print(f"{name}: {words}.")
    options.json.write_text(json.dumps(result, indent=2, default=str) + "\n")
    say(f"written to {options.json}")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=("gallery", "search"), default=("gallery", "search"))
    parser.add_argument(
        "--gallery-faces", type=int, default=100_000, help="stored faces to identify (default: 100_000)"
    )
    parser.add_argument("--gallery", type=int, default=1000, help="people of the gallery (default: 1000)")
    parser.add_argument("--deepface-faces", type=int, default=10, help="faces for DeepFace.find (default: 10)")
    parser.add_argument("--faces", type=int, default=1_000_000, help="stored faces to search (default: 1_000_000)")
    parser.add_argument("--faces-per-film", type=int, default=100_000, help="of each input (default: 100_000)")
    parser.add_argument("--people", type=int, default=2000, help="people in all films (default: 2000)")
    parser.add_argument("--queries", type=int, default=20, help="people asked for, for the recall (default: 20)")
    parser.add_argument("--json", type=Path, default=REPOSITORY / "bench-find.json", help="default: bench-find.json")
    parser.add_argument(
        "--folder", type=Path, default=REPOSITORY / "runs" / "bench-find", help="for stores and indexes"
    )
    return parser.parse_args(arguments)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    gc.collect()
    began = time.perf_counter()
    return work(), time.perf_counter() - began


# --- a gallery --------------------------------------------------------------------------------------------------------


def gallery_rows(folder: Path, n_faces: int, people: int, deepface_faces: int) -> Rows:
    """Microseconds per face of each way, and whether they agree."""
    out = folder / f"gallery-{n_faces}.zarr"
    say(f"a store of {n_faces} faces")
    made_up.make_archive(out, n_faces, made_up.FACES_PER_FRAME * 25_000, people)
    known = np.stack([made_up.centre(person) for person in range(people)])
    theirs, answers = deepface_rows(folder, known, out, deepface_faces)
    say("reelgraph find")
    gallery = made_gallery(folder, known, out)
    rows = []
    for metric in ("cosine", "euclidean_l2"):
        found, seconds = timed(lambda metric=metric: pipeline_find(out, gallery, metric))
        faces = sum(one.faces for one in found.inputs)
        rows.append({"name": f"reelgraph find, {metric}", "faces": faces, "us_per_face": 1e6 * seconds / faces})
    again, seconds = timed(lambda: pipeline_find(out, gallery, "euclidean_l2"))
    assert {one.written for one in again.inputs} == {"unchanged"}
    rows.append({"name": "reelgraph find, again", "faces": faces, "us_per_face": 1e6 * seconds / faces})
    pipeline_find(out, gallery, "cosine")
    item = next(iter(pipeline.open(out).inputs.values()))
    distance = item.array("distance")
    worst = max(abs(float(distance[face]) - theirs_distance) for face, theirs_distance in answers.items())
    say(f"distances agree to {worst:.1e}")
    assert worst < 1e-4, worst
    return theirs + [row | {"distances_agree_to": worst} for row in rows]


def pipeline_find(out: Path, gallery: Path, metric: str) -> Any:
    from pipeline.faces.people.find import find

    return find([out], gallery, metric=metric)


def made_gallery(folder: Path, known: np.ndarray, out: Path) -> Path:
    """A file of a gallery, one row per person."""
    recipe = Recipe.of_store(pipeline.open(out).attributes, str(out))
    names = tuple(f"person {k}" for k in range(len(known)))
    box = np.zeros((len(known), 4), np.float32)
    path = folder / "gallery.npz"
    save(Gallery("", names, names, box, known, recipe.model, recipe.align, recipe.keys, f"{len(known)}", False), path)
    return path


def deepface_rows(folder: Path, known: np.ndarray, out: Path, n: int) -> tuple[Rows, dict[int, float]]:
    """DeepFace.find on the first faces of the store; and the distance of the nearest to each, by row."""
    from deepface import DeepFace
    from deepface.modules import representation, verification

    say("DeepFace.find")
    os.environ["DEEPFACE_HOME"] = str(folder)
    link_weights(folder, Path("/nonexistent"))
    database, chip = folder / "db", np.full((150, 150, 3), 90, np.uint8)
    shutil.rmtree(database, ignore_errors=True)
    database.mkdir()
    for k in range(len(known)):
        cv2.imwrite(str(database / f"{k}.png"), np.full((8, 8, 3), k % 256, np.uint8))
    item = next(iter(pipeline.open(out).inputs.values()))
    faces = item.array("embedding")[: 1000 + n]
    represent, queue = representation.represent, iter(known.tolist())

    def answered(**_: Any) -> list[dict[str, Any]]:
        return [{"embedding": next(queue)}]

    common: dict[str, Any] = {
        "db_path": str(database), "model_name": "Dlib", "detector_backend": "skip", "silent": True,
        "enforce_detection": False,
    }  # fmt: skip
    representation.represent = answered
    try:
        queue = iter([*known.tolist(), faces[0].tolist()])
        DeepFace.find(chip, **common)  # makes the datastore
        rows, nearest = [], {}
        for name, options in (
            ("DeepFace.find, its search", {"return_type": "pandas"}),
            ("DeepFace.find, dicts", {"return_type": "dict"}),
        ):
            queue = iter(faces.tolist())
            DeepFace.find(chip, **common, **options, refresh_database=False)  # loads what it loads once
            queue = iter(faces.tolist())
            results, seconds = timed(
                lambda options=options: [
                    DeepFace.find(chip, **common, **options, refresh_database=False, similarity_search=True)
                    for _ in range(n)
                ]
            )
            rows.append({"name": name, "faces": n, "us_per_face": 1e6 * seconds / n})
            if options["return_type"] == "dict":
                nearest = {k: float(found[0][0]["distance"]) for k, found in enumerate(results)}
    finally:
        representation.represent = represent
    DeepFace.find(chip, **common, refresh_database=False, return_type="pandas")  # loads the network
    _, seconds = timed(
        lambda: [DeepFace.find(chip, **common, refresh_database=False, return_type="pandas") for _ in range(n)]
    )
    whole = {"name": "DeepFace.find, all of it", "faces": n, "us_per_face": 1e6 * seconds / n}
    block = faces[:1000].astype(np.float64)
    _, seconds = timed(lambda: verification.find_distance(known.astype(np.float64), block, "cosine").argmin(axis=1))
    return [
        whole,
        *rows,
        {"name": "find_distance", "faces": len(block), "us_per_face": 1e6 * seconds / len(block)},
    ], nearest


# --- one person -------------------------------------------------------------------------------------------------------


def search_rows(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    out = folder / f"archive-{options.faces}.zarr"
    say(f"an archive of {options.faces} faces")
    made = made_up.make_archive(out, options.faces, options.faces_per_film, options.people)
    say(f"made in {made:.0f} s")
    files = [path for path in out.glob("*/embedding/c/**/*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    photo = folder / "person.png"
    cv2.imwrite(str(photo), made_up.picture(int(made_up.cast_of(0, options.people)[0]))[:, :, ::-1])
    rows: dict[str, Any] = {"faces": options.faces, "embedding_bytes": size}
    dropped(files)
    _, seconds = timed(lambda: read_plainly(files))
    rows["plain read, cold"] = {"seconds": seconds, "mb_per_second": size / 1e6 / seconds}
    _, seconds = timed(lambda: read_plainly(files))
    rows["plain read, again"] = {"seconds": seconds, "mb_per_second": size / 1e6 / seconds}
    for name in ("exact, cold", "exact, again"):
        if name == "exact, cold":
            dropped(files)
        say(f"search, {name}")
        rows[name] = asked(folder, [str(out)], photo, size)
    say("index")
    index = folder / f"archive-{options.faces}.index"
    command = [sys.executable, "-m", "pipeline", "index", str(out), "--out", str(index), "--json"]
    text, peak, seconds, cpu = commanded(command, folder)
    facts = json.loads(text)
    stored = sum(path.stat().st_size for path in index.iterdir())
    rows["index"] = {
        "seconds": seconds, "cpu_seconds": cpu, "steps": facts["seconds"], "lists": facts["lists"], "bytes": stored,
        "peak_mb": peak,
    }  # fmt: skip
    index_files = list(index.iterdir())
    for name in ("by index, cold", "by index, again"):
        if name == "by index, cold":
            dropped([*files, *index_files])
        say(f"search, {name}")
        rows[name] = asked(folder, ["--index", str(index)], photo, size)
    say("recall")
    rows["recall"] = list(recalls(out, index, options.queries, options.people))
    return rows


def environment() -> dict[str, str]:
    path = [str(REPOSITORY), str(REPOSITORY / "benchmarks"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in path if part)}


def asked(folder: Path, words: list[str], photo: Path, size: int) -> dict[str, Any]:
    """The command itself, in a process of its own."""
    command = [sys.executable, "-m", "pipeline", "find", *words, "--face", str(photo), "--json"]
    text, peak, wall, cpu = commanded(command, folder)
    answer = json.loads(text)
    seconds = answer["seconds"]["search"]
    return {
        "seconds": seconds, "command_seconds": wall, "cpu_seconds": cpu, "mb_per_second": size / 1e6 / seconds,
        "peak_mb": peak,
        "faces_found": sum(one["faces"] for one in answer["sightings"]), "films": len(answer["sightings"]),
    }  # fmt: skip


def commanded(command: list[str], folder: Path) -> tuple[str, float, float, float]:
    """What it printed, its peak memory in MB, and its seconds by the clock and of all cores."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    (text, peak), wall = timed(lambda: watched(command, environment(), folder, mapped=False))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return text, peak, wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def dropped(files: Sequence[Path]) -> None:
    """Ask the kernel to forget the files' pages."""
    os.sync()
    for path in files:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_plainly(files: Sequence[Path]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def read(path: Path) -> int:
        return len(np.fromfile(path, np.uint8))

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        sum(pool.map(read, sorted(files)))


def recalls(out: Path, index: Path, queries: int, people: int) -> Iterator[dict[str, Any]]:
    """By how many lists are looked through: recall, and seconds for one question."""
    from pipeline.faces.people.index import FaceIndex

    items = list(pipeline.open(out).inputs.values())
    films = np.linspace(0, len(items) - 1, queries).astype(int)
    chosen = [made_up.cast_of(int(film), people)[k % made_up.CAST] for k, film in enumerate(films)]
    stage = made_up.EmbedPerson(made_up.EmbedOptions())
    pictures = [made_up.picture(int(person)) for person in chosen]
    index_of = np.arange(len(pictures))
    vectors = stage.run(
        pipeline.Chunk("", 0, index_of, index_of.astype(float), np.ones(len(pictures), bool), {"frames_rgb": pictures})
    )["embedding"]
    exact = nearest_faces(items, vectors, 100)
    for probes in (8, None, 128):
        opened = FaceIndex(index, probes)
        hit = {10: 0, 100: 0}
        seconds = []
        for k, vector in enumerate(vectors):
            query = Query(vector[None], "cosine", 0.08, 100)
            found, took = timed(lambda query=query, opened=opened: by_index(opened, items, query))
            seconds.append(took)
            for n in hit:
                hit[n] += len(set(exact[k][:n]) & set(found[:n]))
        yield {
            "probes": opened._index.nprobe, "queries": queries, "seconds": float(np.median(seconds)),
            **{f"recall_at_{n}": count / (n * queries) for n, count in hit.items()},
        }  # fmt: skip


def by_index(opened: Any, items: Sequence[Any], query: Query) -> list[tuple[str, int]]:
    """(input, row) of the nearest faces, nearest first."""
    found = []
    for item in items:
        hits, reason = opened.lookup(item, query)
        assert hits is not None, reason
        found += [(float(d), (item.name, int(row))) for row, d in zip(hits.rows, hits.distance, strict=True)]
    return [face for _, face in sorted(found)]


def nearest_faces(items: Sequence[Any], vectors: np.ndarray, n: int) -> list[list[tuple[str, int]]]:
    """The same by looking at every face, for all questions in one pass."""
    best: list[list[tuple[float, tuple[str, int]]]] = [[] for _ in vectors]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for item in items:
        for piece, found in for_each(item.pieces("embedding"), lambda _, faces: _top(faces, unit, n), 2):
            for k, (rows, distance) in enumerate(found):
                best[k] += [
                    (float(d), (item.name, piece.start + int(row))) for row, d in zip(rows, distance, strict=True)
                ]
                best[k] = sorted(best[k])[:n]
    return [[face for _, face in one] for one in best]


def _top(faces: np.ndarray, unit: np.ndarray, n: int) -> list[tuple[np.ndarray, np.ndarray]]:
    distance = 1 - (faces @ unit.T.astype(np.float32)) / np.linalg.norm(faces, axis=1)[:, None]
    rows = np.argpartition(distance, min(n, len(distance) - 1), axis=0)[:n]
    return [(rows[:, k], distance[rows[:, k], k]) for k in range(unit.shape[0])]


# --- tables -----------------------------------------------------------------------------------------------------------


def _print_gallery(rows: Rows, options: argparse.Namespace) -> None:
    print(f"\nA gallery of {options.gallery:,} over {options.gallery_faces:,} stored faces")
    ours = next(row["us_per_face"] for row in rows if row["name"] == "reelgraph find, cosine")
    print("| | faces | microseconds per face | to reelgraph find |\n|---|---:|---:|---:|")
    for row in rows:
        print(f"| {row['name']} | {row['faces']:,} | {row['us_per_face']:,.1f} | {row['us_per_face'] / ours:,.1f} |")


def _print_search(rows: dict[str, Any]) -> None:
    print(f"\nOne face in {rows['faces']:,} stored ones, {rows['embedding_bytes'] / 1e9:.2f} GB of embeddings on disk")
    print("| | seconds | MB/s | command, s | its CPU, s | peak MB | faces found |\n|---|---:|---:|---:|---:|---:|---:|")
    for name in (
        "plain read, cold",
        "plain read, again",
        "exact, cold",
        "exact, again",
        "by index, cold",
        "by index, again",
    ):
        row = rows[name]
        rate = "" if "index" in name else f"{row['mb_per_second']:,.0f}"
        rest = [f"{row[key]:,.1f}" if key in row else "" for key in ("command_seconds", "cpu_seconds", "peak_mb")]
        print(f"| {name} | {row['seconds']:.2f} | {rate} | {' | '.join(rest)} | {row.get('faces_found', '')} |")
    made = rows["index"]
    print(
        f"\nindex: {made['seconds']:.0f} s ({made['cpu_seconds']:.0f} s of CPU), "
        f"{made['bytes'] / 1e9:.2f} GB, {made['lists']} lists, "
        f"peak {made['peak_mb']:,.0f} MB"
    )
    print("| lists looked through | recall@10 | recall@100 | seconds |\n|---:|---:|---:|---:|")
    for row in rows["recall"]:
        print(f"| {row['probes']} | {row['recall_at_10']:.3f} | {row['recall_at_100']:.3f} | {row['seconds']:.3f} |")


if __name__ == "__main__":
    raise SystemExit(main())

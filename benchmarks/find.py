"""Finding people in stored faces: known ones beside `DeepFace.find`, and one never named in ten million faces.

    make bench-find                                     a gallery of 1,000 over 100,000 faces; a face in 1,000,000
    make bench-find ARGS="--faces 10_000_000"           about half an hour and 7 GB on two cores
    make bench-find ARGS="--parts gallery"

The faces are made up (made_up.py): vectors like Dlib's, 40 people in each film, each on screen for 20 s at a time.
Their distances are computed as those of real ones; no figure contains the time of the models, unless it says so.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import made_up
import numpy as np
from harness import Done, Rows, environment, explain, parser, say, show, timed, watched, write_json

import pipeline
from pipeline.faces.people.find import find
from pipeline.faces.people.gallery import Gallery, save
from pipeline.faces.people.pictures import Recipe
from pipeline.faces.people.search import Query

PARTS = ("gallery", "search")
HOW = {
    "DeepFace.find, all of it": "DeepFace.find(chip, db_path, model_name='Dlib', detector_backend='skip', "
    "refresh_database=False, silent=True): one face per call, its datastore read, its network run, its table made",
    "DeepFace.find, its search": "the same call with its network's answer prepared: datastore and search remain",
    "DeepFace.find, dicts": "the same with return_type='dict', its way for large galleries",
    "find_distance": "only deepface.modules.verification.find_distance, on a block of 1,000 faces: nothing is read, "
    "nothing kept",
    "reelgraph find": "faces.people.find.find: embeddings read from the store, identities and distances written to "
    "it, appearances of everyone computed",
    "plain read": "the files of the embeddings read to their ends by as many threads, their pages dropped before",
    "peak MB": "memory of its own, without the pages of files that it maps",
    "recall": "of the nearest 10 and 100 faces of an exact search, how many the index finds",
}
GALLERY_COLUMNS = ("=name", "faces:,", "microseconds per face=us_per_face:,.1f", "to reelgraph find=times_find:,.1f")
SEARCH_COLUMNS = (
    "=name", "seconds:.2f", "MB/s=mb_per_second:,.0f", "command, s=command_seconds:,.1f",
    "its CPU, s=cpu_seconds:,.1f", "peak MB=peak_mb:,.1f", "faces found=faces_found",
)  # fmt: skip
RECALL_COLUMNS = (
    "lists looked through=probes", "recall@10=recall_at_10:.3f", "recall@100=recall_at_100:.3f", "seconds:.3f",
)  # fmt: skip


def main() -> None:
    options = parser(__doc__, "bench-find.json", "bench-find")
    options.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="parts to run")
    options.add_argument("--gallery-faces", type=int, default=100_000, help="stored faces to identify")
    options.add_argument("--gallery", type=int, default=1000, help="people of the gallery")
    options.add_argument("--deepface-faces", type=int, default=10, help="faces for DeepFace.find")
    options.add_argument("--faces", type=int, default=1_000_000, help="stored faces to search")
    options.add_argument("--faces-per-film", type=int, default=100_000, help="stored faces of each input")
    options.add_argument("--people", type=int, default=2000, help="people in all films")
    options.add_argument("--queries", type=int, default=20, help="people asked for, for the recall")
    chosen = options.parse_args()
    os.environ.setdefault("DEEPFACE_LOG_LEVEL", "40")  # else a line for every call
    os.environ |= environment(chosen.folder)
    result: dict[str, Any] = {"how": HOW}
    if "gallery" in chosen.parts:
        result["gallery"] = gallery_rows(chosen.folder, chosen.gallery_faces, chosen.gallery, chosen.deepface_faces)
        title = f"A gallery of {chosen.gallery:,} over {chosen.gallery_faces:,} stored faces"
        show(title, GALLERY_COLUMNS, result["gallery"])
    if "search" in chosen.parts:
        found = result["search"] = search_rows(chosen.folder, chosen)
        size, made = found["embedding_bytes"] / 1e9, found["index"]
        title = f"One face in {chosen.faces:,} stored ones, {size:.2f} GB of embeddings on disk"
        show(title, SEARCH_COLUMNS, found["rows"])
        size, peak = made["bytes"] / 1e9, made["peak_mb"]
        cost = f"{made['seconds']:.0f} s ({made['cpu_seconds']:.0f} s of CPU), {size:.2f} GB"
        show(f"index: {cost}, {made['lists']} lists, peak {peak:,.0f} MB", RECALL_COLUMNS, found["recall"])
    explain(HOW)
    write_json(chosen.json, result)


def per_face(name: str, faces: int, seconds: float) -> dict[str, Any]:
    return {"name": name, "faces": faces, "us_per_face": 1e6 * seconds / faces}


def gallery_rows(folder: Path, n_faces: int, people: int, deepface_faces: int) -> Rows:
    """Measure microseconds per face of each way, and stop if their distances differ."""
    out = folder / f"gallery-{n_faces}.zarr"
    say(f"a store of {n_faces} faces")
    made_up.make_archive(out, n_faces, made_up.FACES_PER_FRAME * 25_000, people)
    known = np.stack([made_up.centre(person) for person in range(people)])
    rows, nearest = deepface_rows(folder, known, out, deepface_faces)
    say("reelgraph find")
    gallery = folder / "gallery.npz"
    recipe = Recipe.of_store(pipeline.open(out).attributes, str(out))
    names, box = tuple(f"person {k}" for k in range(people)), np.zeros((people, 4), np.float32)
    made = Gallery("", names, names, box, known, recipe.model, recipe.align, recipe.keys, f"{people}", False)
    save(made, gallery)
    for name, metric in (("cosine", "cosine"), ("euclidean_l2", "euclidean_l2"), ("again", "euclidean_l2")):
        found, seconds = timed(lambda metric=metric: find([out], gallery, metric=metric, per="face"))
        rows.append(per_face(f"reelgraph find, {name}", sum(one.faces for one in found.inputs), seconds))
    assert {one.written for one in found.inputs} == {"unchanged"}
    for name in ("by track", "by stored tracks"):
        found, seconds = timed(lambda: find([out], gallery, metric="cosine"))
        rows.append(per_face(f"reelgraph find, {name}", sum(one.faces for one in found.inputs), seconds))
        find([out], gallery, metric="cosine", per="face")
    distance = next(iter(pipeline.open(out).inputs.values())).array("distance")
    worst = max(abs(float(distance[face]) - theirs) for face, theirs in nearest.items())
    say(f"distances agree to {worst:.1e}")
    assert worst < 1e-4, worst
    ours = next(row["us_per_face"] for row in rows if row["name"] == "reelgraph find, cosine")
    return [row | {"times_find": row["us_per_face"] / ours, "distances_agree_to": worst} for row in rows]


def deepface_rows(folder: Path, known: np.ndarray, out: Path, n: int) -> tuple[Rows, dict[int, float]]:
    """Run DeepFace.find on the first faces of the store; return rows, and by face the distance of the nearest."""
    from deepface import DeepFace
    from deepface.modules import representation, verification

    say("DeepFace.find")
    database, chip = folder / "db", np.full((150, 150, 3), 90, np.uint8)
    shutil.rmtree(database, ignore_errors=True)
    database.mkdir()
    for k in range(len(known)):
        cv2.imwrite(str(database / f"{k}.png"), np.full((8, 8, 3), k % 256, np.uint8))
    faces = next(iter(pipeline.open(out).inputs.values())).array("embedding")[: 1000 + n]
    answers: Iterator[list[float]] = iter(())

    def ask(times: int, **more: Any) -> list[Any]:
        common = {"db_path": str(database), "model_name": "Dlib", "detector_backend": "skip", "silent": True}
        return [DeepFace.find(chip, **common, enforce_detection=False, **more) for _ in range(times)]

    rows, nearest = [], {}
    with patch.object(representation, "represent", lambda **_: [{"embedding": next(answers)}]):
        answers = iter([*known.tolist(), faces[0].tolist()])
        ask(1)  # makes the datastore
        for name, kind in (("its search", "pandas"), ("dicts", "dict")):
            more = {"return_type": kind, "refresh_database": False}
            answers = iter(faces.tolist())
            ask(1, **more)  # loads what it loads once
            answers = iter(faces.tolist())
            results, seconds = timed(lambda more=more: ask(n, **more, similarity_search=True))
            rows.append(per_face(f"DeepFace.find, {name}", n, seconds))
        nearest = {k: float(found[0][0]["distance"]) for k, found in enumerate(results)}
    more = {"return_type": "pandas", "refresh_database": False}
    ask(1, **more)  # loads the network
    _, seconds = timed(lambda: ask(n, **more))
    rows.insert(0, per_face("DeepFace.find, all of it", n, seconds))
    block = faces[:1000].astype(np.float64)
    _, seconds = timed(lambda: verification.find_distance(known.astype(np.float64), block, "cosine").argmin(axis=1))
    return [*rows, per_face("find_distance", len(block), seconds)], nearest


def search_rows(folder: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    out, index = folder / f"archive-{chosen.faces}.zarr", folder / f"archive-{chosen.faces}.index"
    say(f"an archive of {chosen.faces} faces")
    _, seconds = timed(lambda: made_up.make_archive(out, chosen.faces, chosen.faces_per_film, chosen.people))
    say(f"made in {seconds:.0f} s")
    files = [path for path in out.glob("*/embedding/c/**/*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    photo = folder / "person.png"
    cv2.imwrite(str(photo), made_up.picture(int(made_up.cast_of(0, chosen.people)[0]))[:, :, ::-1])

    def read_plainly() -> None:
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            sum(pool.map(lambda path: len(np.fromfile(path, np.uint8)), sorted(files)))

    rows = []
    for name in twice("plain read", files):
        _, seconds = timed(read_plainly)
        rows.append({"name": name, "seconds": seconds, "mb_per_second": size / 1e6 / seconds})
    for name in twice("exact", files):
        row = asked(name, folder, [str(out), "--per", "face"], photo)
        rows.append({**row, "mb_per_second": size / 1e6 / row["seconds"]})
    say("index")
    done = command(["index", str(out), "--out", str(index)], folder)
    facts, stored = json.loads(done.output), sum(path.stat().st_size for path in index.iterdir())
    made = asdict(done) | {"steps": facts["seconds"], "lists": facts["lists"], "bytes": stored, "output": ""}
    for name in twice("by index", [*files, *index.iterdir()]):
        rows.append(asked(name, folder, ["--index", str(index), "--per", "face"], photo))
    rows.append(asked("by index and track", folder, ["--index", str(index)], photo))
    say("recall")
    recall = list(recalls(out, index, chosen.queries, chosen.people))
    return {"faces": chosen.faces, "embedding_bytes": size, "rows": rows, "index": made, "recall": recall}


def twice(what: str, files: Sequence[Path]) -> Iterator[str]:
    """Yield the names of two measurements; ask the kernel to forget the files' pages before the first."""
    os.sync()
    for path in files:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    yield from (f"{what}, cold", f"{what}, again")


def command(words: Sequence[str], folder: Path) -> Done:
    """Run a command of reelgraph in a process of its own that imports made_up.py: a store's word alone cannot."""
    path = os.pathsep.join([os.environ["PYTHONPATH"], str(Path(__file__).parent)])
    start = "import sys, made_up, pipeline.cli; sys.exit(pipeline.cli.main(sys.argv[1:]))"
    line = [sys.executable, "-c", start, *words, "--json"]
    return watched(line, {**os.environ, "PYTHONPATH": path}, folder, mapped=False)


def asked(name: str, folder: Path, words: Sequence[str], photo: Path) -> dict[str, Any]:
    """Run `reelgraph find --face`."""
    say(f"search, {name}")
    done = command(["find", *words, "--face", str(photo)], folder)
    answer = json.loads(done.output)
    found = {"faces_found": sum(one["faces"] for one in answer["sightings"]), "films": len(answer["sightings"])}
    cost = {"command_seconds": done.seconds, "cpu_seconds": done.cpu_seconds, "peak_mb": done.peak_mb}
    return {"name": name, "seconds": answer["seconds"]["search"], **cost, **found}


def recalls(out: Path, index: Path, queries: int, people: int) -> Iterator[dict[str, Any]]:
    """Yield the recall, and the seconds of one question, by the number of lists that are looked through."""
    from pipeline.faces.people.index import FaceIndex

    items = list(pipeline.open(out).inputs.values())
    films = np.linspace(0, len(items) - 1, queries).astype(int)
    chosen = [int(made_up.cast_of(int(film), people)[k % made_up.CAST]) for k, film in enumerate(films)]
    vectors = np.array([made_up.photographed(person) for person in chosen], np.float32)
    exact = nearest_faces(items, vectors, 100)
    for probes in (8, None, 128):
        opened, seconds, hit = FaceIndex(index, probes), [], {10: 0, 100: 0}
        for k, vector in enumerate(vectors):
            query = Query(vector[None], "cosine", 0.08, 100)
            found, took = timed(lambda query=query, opened=opened: by_index(opened, items, query))
            seconds.append(took)
            for n in hit:
                hit[n] += len(set(exact[k][:n]) & set(found[:n]))
        shares = {f"recall_at_{n}": count / (n * queries) for n, count in hit.items()}
        yield {"probes": opened._index.nprobe, "queries": queries, "seconds": float(np.median(seconds)), **shares}


def by_index(opened: Any, items: Sequence[Any], query: Query) -> list[tuple[str, int]]:
    """Return (input, row) of the nearest faces, nearest first."""
    found = []
    for item in items:
        hits, reason = opened.lookup(item, query)
        assert hits is not None, reason
        found += [(float(d), (item.name, int(row))) for row, d in zip(hits.rows, hits.distance, strict=True)]
    return [face for _, face in sorted(found)]


def nearest_faces(items: Sequence[Any], vectors: np.ndarray, n: int) -> list[list[tuple[str, int]]]:
    """Return the same by looking at every face, for all questions in one pass."""

    def unit(faces: np.ndarray) -> np.ndarray:
        return faces / np.linalg.norm(faces, axis=1, keepdims=True)

    best: list[list[tuple[float, tuple[str, int]]]] = [[] for _ in vectors]
    for item in items:
        distance = 1 - unit(vectors) @ unit(item.array("embedding")).T
        for k, row in enumerate(distance):
            near = np.argpartition(row, min(n, len(row) - 1))[:n].tolist()
            best[k] = sorted([*best[k], *((float(row[face]), (item.name, face)) for face in near)])[:n]
    return [[face for _, face in one] for one in best]


if __name__ == "__main__":
    main()

"""Flip single bits in the files of stores, finished and half done, and see what is read and what a run makes of it.

    python -m tests.store.flips [--flips 2000] [--seed 0]

Each flip is one bit of one file, half of them in JSON and half in arrays and chunk files. Then the whole store is read,
and a run goes on with it. A flip may make no difference, or be refused in one line. Anything else is counted: rows or
arrays that are lost or changed in silence, metadata that changed in silence, and tracebacks.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import random
import shutil
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import pipeline
from pipeline.errors import ReelgraphError
from pipeline.faces.people.registry import Registry
from pipeline.store.chunks import Chunks, DamagedChunkError
from pipeline.store.run import RunStore
from pipeline.views.status import describe
from tests.made_stores import faces_of, make_store, people
from tests.store import storemaker

HARMLESS, REFUSED = "no difference", "refused in one line"
LOST, CHANGED, TRACEBACK = "lost in silence", "metadata changed in silence", "traceback"
BAD = (LOST, CHANGED, TRACEBACK)


@dataclass(frozen=True)
class Outcome:
    """The effect of one flip."""

    file: str
    bit: int
    reading: str
    going_on: str
    said: str

    @property
    def is_bad(self) -> bool:
        return self.reading in BAD or self.going_on in BAD


def make(folder: Path) -> dict[str, Path]:
    """Make the stores: two finished ones, one with a registry of people beside it, and a half-done one."""
    vectors = people(3, 10, dimension=8).reshape(-1, 8)
    film = faces_of(np.array([1, 0, 2, 3] * 5), vectors)
    make_store(folder / "films" / "films.zarr", {"a": film, "b": film})
    registry = Registry(folder / "films" / "people.json", "made-up", "Dlib", "native")
    registry.name(registry.new_person(), "Ann")
    registry.new_person()
    registry.save()
    with RunStore.open(folder / "clip" / "clip.zarr") as store:
        store.set_workflow({"source": {"kind": "video"}, "stages": {"detect": {"use": "detect"}}}, [])
        storemaker.write_all(store.path, storemaker.set_up(store))
        storemaker.compact(store)
    with RunStore.open(folder / "half" / "half.zarr") as store:
        store.set_workflow({"source": {"kind": "video"}, "stages": {"detect": {"use": "detect"}}}, [])
        storemaker.write_all(store.path, storemaker.set_up(store), n_chunks=3)
    return {"films": folder / "films", "clip": folder / "clip", "half": folder / "half"}


def content_of(folder: Path) -> dict[str, str]:
    """Return digests of all that readers of a store are given, by what it is. Keys of metadata begin with "facts"."""
    (out,) = folder.glob("*.zarr")
    run = pipeline.open(out)
    found = {"facts": _digest(run.attributes), "facts of status": _digest({**describe(out), "out": ""})}
    for name, item in run.inputs.items():
        found[f"facts of {name}"] = _digest(item.attributes)
        for array, declared in item.arrays.items():
            found[f"facts of {name}/{array}"] = _digest(vars(declared))
            found[f"{name}/{array}"] = hashlib.sha256(item.array(array).tobytes()).hexdigest()
    found["table"] = hashlib.sha256(run.faces().to_csv().encode()).hexdigest()
    for registry in folder.glob("people.json"):
        loaded = Registry.load(registry)
        known = [vars(one) for one in loaded.people.values()]
        found["facts of people"] = _digest({**vars(loaded), "path": "", "people": known})
    return found


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def go_on(folder: Path) -> dict[str, str]:
    """Do what a run does with a store: open it, set damage aside, make what is missing, compact; then read it."""
    (out,) = folder.glob("*.zarr")
    with RunStore.open(out) as store:
        for name in store.input_names():
            source = store.input(name)
            if source.is_complete:
                continue
            for _ in range(4):  # each damaged file is noticed by itself
                chunks = source.chunks()
                for damage in chunks.damage:
                    damage.set_aside()
                there = Chunks(out, name)
                for index in range(len(storemaker.BOUNDARIES)):
                    if index not in there.indices:
                        storemaker.write(out, name, index)
                try:
                    storemaker.compact(store)
                    break
                except DamagedChunkError as damage:
                    damage.set_aside()
    return content_of(folder)


def _judged(work: Any, wanted: dict[str, str]) -> tuple[str, str]:
    """Do a piece of work and compare what it gives with what it gave before the flip."""
    try:
        found = work()
    except ReelgraphError as err:
        return (REFUSED, str(err)) if "\n" not in str(err) else (TRACEBACK, str(err))
    except Exception:
        return TRACEBACK, traceback.format_exc()
    differing = sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key))
    if not differing:
        return HARMLESS, ""
    return (CHANGED if all(key.startswith("facts") for key in differing) else LOST), ", ".join(differing)


def flip(folder: Path, seed: int, n: int) -> Iterator[Outcome]:
    """Make the stores in a folder and yield what becomes of `n` flips, one after another."""
    rng = random.Random(seed)
    stores = make(folder)
    wanted = {name: content_of(place) for name, place in stores.items()}
    finished: dict[str, dict[str, str]] = {}
    for name, place in stores.items():
        with _copy(place) as copy:
            finished[name] = go_on(copy)
    for number in range(n):
        name = rng.choice([*stores])
        place = stores[name]
        files = sorted(path for path in place.rglob("*") if path.is_file())
        is_json = {path: path.suffix == ".json" for path in files}
        path = rng.choice([path for path in files if is_json[path] == bool(number % 2)])
        before = path.read_bytes()
        bit = rng.randrange(8 * len(before))
        after = bytearray(before)
        after[bit // 8] ^= 1 << bit % 8
        path.write_bytes(after)
        reading, said = _judged(lambda place=place: content_of(place), wanted[name])
        with _copy(place) as copy:
            going_on, told = _judged(lambda copy=copy: go_on(copy), finished[name])
        path.write_bytes(before)
        yield Outcome(str(path.relative_to(folder)), bit, reading, going_on, said or told)


@contextlib.contextmanager
def _copy(folder: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as place:
        yield Path(shutil.copytree(folder, Path(place) / folder.name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    counts: Counter[tuple[str, str, str]] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for outcome in flip(Path(folder), options.seed, options.flips):
            kind = "JSON" if outcome.file.endswith(".json") else "arrays and chunks"
            counts[kind, "read", outcome.reading] += 1
            counts[kind, "run", outcome.going_on] += 1
            if outcome.is_bad:
                print(f"{outcome.file} bit {outcome.bit}: {outcome.reading}; {outcome.going_on}: {outcome.said[-300:]}")
    for (kind, action, outcome_of), count in sorted(counts.items()):
        print(f"{kind:20} {action:5} {outcome_of:30} {count}")


if __name__ == "__main__":
    main()

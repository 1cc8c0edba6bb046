"""Stores of features of pictures that are made up, some of them unreadable."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.store.chunks import write_chunk
from pipeline.store.compact import compact
from pipeline.store.record import Record
from pipeline.store.run import RunStore
from pipeline.store.schema import DECODED, Array, Schema

LENGTH = 16
NAMED = (Array("name", ("frame",), "string"), Array("error", ("frame",), "string"))


def values(n: int, size: int, dtype: str, bad: Collection[int], seed: int) -> dict[str, np.ndarray]:
    """Every array of an input of `n` pictures."""
    feature = np.random.default_rng(seed).normal(size=(n, size)).astype(dtype)
    decoded = ~np.isin(np.arange(n), list(bad))
    feature[~decoded] = np.nan
    return {
        "name": np.array([f"köln/{k:07d}.jpg" for k in range(n)], object),
        "error": np.array(["" if good else "not a picture" for good in decoded], object),
        "decoded": decoded, "feature": feature,
    }  # fmt: skip


def make_features(
    out: Path, counts: Mapping[str, int], *, size: int = 8, dtype: str = "float16", bad: Collection[int] = (),
    done_chunks: int | None = None, more: tuple[Array, ...] = (), named: tuple[Array, ...] = NAMED,
    length: int = LENGTH, changed: Mapping[str, np.ndarray] | None = None, workflow: Mapping[str, Any] | None = None,
    inventory: bytes | None = None,
) -> dict[str, dict[str, np.ndarray]]:  # fmt: skip
    """Write a store; return its arrays by input. `bad` pictures are unreadable; `done_chunks` leaves it half done."""
    arrays = (Array("feature", ("frame", "component"), dtype, (size,)), *more)
    schema = Schema("frame", (*named, DECODED), (), arrays)
    made = {}
    with RunStore.open(out) as store:
        if workflow is not None:
            store.update(workflow=workflow)
        for seed, (stem, n) in enumerate(counts.items()):
            made[stem] = one = {**values(n, size, dtype, bad, seed), **(changed or {})}
            one |= {array.name: np.ones((n, *array.shape), array.dtype) for array in more}
            facts = {"path": f"/pictures/{stem}", "fingerprint": stem, "frames": n, "chunk_frames": length}
            name = store.add_input(stem, facts, inventory)
            stage = {"key": "key", "state": "partial", "arrays": [array.name for array in arrays]}
            store.input(name).update(stages={"features": stage})
            specs = (*schema.item_arrays, *arrays)
            for index, first in enumerate(range(0, n, length)[:done_chunks]):
                part = {spec.name: one[spec.name][first : first + length] for spec in specs}
                n_items = len(part["decoded"])
                numbers = one["frame"][first : first + length] if "frame" in one else np.arange(first, first + n_items)
                missing = tuple(numbers[~part["decoded"]].tolist())
                error = "a damaged packet" if missing else None
                record = Record("ok", {"features": "key"}, missing=missing, error=error)
                write_chunk(str(out), name, index, part, specs, record, schema, items=n_items, flush=False)
            if done_chunks is None:
                compact(
                    store, name, schema, n, length,
                    values=lambda a, b, one=one: {array.name: one[array.name][a:b] for array in named},
                )  # fmt: skip
    return made

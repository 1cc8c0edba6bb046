"""Stores of matched pictures that are made up: keypoints, descriptors, pairs and matches, verified or not."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.media.images.source import ERROR, HEIGHT, NAME, WIDTH
from pipeline.pairs.source import ERROR as PAIR_ERROR
from pipeline.pairs.source import A, B
from pipeline.store.run import RunStore
from pipeline.store.schema import DECODED, SCALE, Array, Axis, Schema, decoded_of
from tests.pairs.stored_pairs import write_input

LENGTH = 4
NAMES = ("a/köln 1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg", "c.jpg")
WORKFLOW = {"source": {"kind": "images"}, "pairs": {}}


def photos(
    names: Sequence[str], *, bad: Collection[int] = (), dtype: str = "uint8", length: int = 128, seed: int = 0,
    has_scale: bool = True, shrunk: float = 1.0,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Arrays of pictures: the k-th has 5 + k keypoints, and a size of its own."""
    rng, n = np.random.default_rng(seed), len(names)
    decoded = ~np.isin(np.arange(n), list(bad))
    counts = np.where(decoded, 5 + np.arange(n), 0).astype(np.int32)
    rows = int(counts.sum())
    descriptor = rng.integers(0, 200, (rows, length)) if dtype == "uint8" else rng.normal(size=(rows, length))
    return {
        "name": np.array(names, object), "decoded": decoded,
        "error": np.array(["" if good else "not a picture" for good in decoded], object),
        "width": np.where(decoded, 640 + np.arange(n), -1).astype(np.int32),
        "height": np.where(decoded, 480, -1).astype(np.int32),
        "scale": np.full((n, 2), shrunk, np.float32), "n_keypoints": counts,
        "keypoint": rng.uniform(0, 480, (rows, 2)).astype(np.float32),
        "keypoint_score": np.sort(rng.uniform(0, 1, rows).astype(np.float32))[::-1],
        "keypoint_scale": (rng.uniform(2, 9, rows) if has_scale else np.full(rows, np.nan)).astype(np.float32),
        "keypoint_angle": (rng.uniform(0, 360, rows) if has_scale else np.full(rows, np.nan)).astype(np.float32),
        "descriptor": descriptor.astype(dtype),
    }  # fmt: skip


def matched(
    counts: np.ndarray, pairs: np.ndarray, *, model: str | None = "fundamental", seed: int = 0
) -> dict[str, np.ndarray]:
    """Arrays of pairs of pictures with these numbers of keypoints: each pair has 3 matches, every third pair none."""
    rng = np.random.default_rng(seed)
    decoded = (counts[pairs] > 0).all(axis=1)
    n_matches = np.where(decoded & (np.arange(len(pairs)) % 3 != 2), 3, 0).astype(np.int32)
    match = [
        np.stack([np.sort(rng.choice(counts[a], n, replace=False)), rng.choice(counts[b], n, replace=False)], axis=1)
        for (a, b), n in zip(pairs.tolist(), n_matches.tolist(), strict=True)
        if n
    ]
    found = {
        "a": pairs[:, 0].astype(np.int32), "b": pairs[:, 1].astype(np.int32), "decoded": decoded,
        "error": np.array(["" if good else "a picture could not be read" for good in decoded], object),
        "n_matches": n_matches, "match": np.concatenate([np.empty((0, 2)), *match]).astype(np.int32),
        "match_score": rng.uniform(0, 1, int(n_matches.sum())).astype(np.float32),
    }  # fmt: skip
    if model is not None:
        some = (n_matches > 0) & (np.arange(len(pairs)) % 4 != 1)
        found["n_inliers"] = np.where(some, 2, 0).astype(np.int32)
        found["inlier"] = np.array([[ok, False, ok] for ok in some[n_matches > 0]], bool).reshape(-1)
        found["model"] = np.where(some[:, None, None], rng.normal(size=(len(pairs), 3, 3)), np.nan)
    return found


def make_matches(
    out: Path, names: Sequence[str] = NAMES, *, later: Sequence[str] = (), model: str | None = "fundamental",
    done_chunks: int | None = None, folder: str | None = "/pictures/photos", stem: str = "photos", **options: Any,
) -> dict[str, dict[str, np.ndarray]]:  # fmt: skip
    """Write a store of pictures, and of all their pairs; return its arrays by input.

    `later`: pictures that came after the first ones were matched. `done_chunks`: chunks of the last pairs that are
    done. `options` are those of `photos`.
    """
    made: dict[str, dict[str, np.ndarray]] = {}
    with RunStore.open(out) as store:
        store.update(workflow=WORKFLOW)
        for part, some in enumerate([names, later] if later else [names]):
            name = f"{stem}-2" if part else stem
            made[name] = photos(some, seed=part, **options)
            place = {"path": folder or f"/pictures/{stem}.tar", **({"folder": folder} if folder else {})}
            write_input(store, name, _pictures(made[name]), made[name], {**place, "fingerprint": name}, LENGTH)
            of = list(made) if not part else [stem, name]
            counts = np.concatenate([made[one]["n_keypoints"] for one in of])
            first_new = len(counts) - len(some)
            pairs = np.array([pair for pair in combinations(range(len(counts)), 2) if pair[1] >= first_new])
            made[f"{name}-pairs"] = matched(counts, pairs.reshape(-1, 2), model=model, seed=part)
            facts = {"path": f"{place['path']}#pairs", "fingerprint": f"{name}-pairs", "of": of, "item": "pair"}
            done = done_chunks if part == bool(later) else None
            write_input(store, f"{name}-pairs", _pairs(model), made[f"{name}-pairs"], facts, LENGTH, done)
    return made


def _pictures(made: Mapping[str, np.ndarray]) -> Schema:
    descriptor = made["descriptor"]
    arrays = (
        Array("n_keypoints", ("frame",), "int32"),
        Array("keypoint", ("keypoint", "xy"), "float32", (2,)),
        *(Array(f"keypoint_{name}", ("keypoint",), "float32") for name in ("score", "scale", "angle")),
        Array("descriptor", ("keypoint", "component"), str(descriptor.dtype), descriptor.shape[1:]),
    )
    return Schema("frame", (NAME, DECODED, ERROR, WIDTH, HEIGHT, SCALE), (Axis("keypoint"),), arrays)


def _pairs(model: str | None) -> Schema:
    arrays = [
        Array("n_matches", ("pair",), "int32"),
        Array("match", ("match", "side"), "int32", (2,)),
        Array("match_score", ("match",), "float32"),
    ]
    if model is not None:
        arrays += [
            Array("n_inliers", ("pair",), "int32"),
            Array("model", ("pair", "row", "column"), "float64", (3, 3), {"model": model}),
            Array("inlier", ("match",), "bool"),
        ]
    items = (A, B, decoded_of("pair"), PAIR_ERROR)
    return Schema("pair", items, (Axis("match", of="pair"),), tuple(arrays))

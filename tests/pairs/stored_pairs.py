"""Stores of pairs that are made up: complete or half done, without pictures or a model behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.media.images.source import ImagesSource
from pipeline.pairs.source import Pairs
from pipeline.store.chunks import write_chunk
from pipeline.store.compact import compact
from pipeline.store.record import Record
from pipeline.store.run import RunStore
from pipeline.store.schema import DECODED, Array, Axis, Schema

KEYPOINTS = (
    Array("n_keypoints", ("frame",), "int32"),
    Array("keypoint", ("keypoint", "xy"), "float32", (2,), place="xy"),
)
MATCHES = (Array("n_matches", ("pair",), "int32"), Array("match", ("match", "side"), "int32", (2,)))
INLIERS = (Array("n_inliers", ("pair",), "int32"), Array("inlier", ("match",), "bool"))


def make_pairs(
    out: Path,
    names: Sequence[str],
    pairs: np.ndarray,
    n_matches: np.ndarray,
    n_inliers: np.ndarray | None = None,
    *,
    points: int = 4,
    done_chunks: int | None = None,
    chunk: int = 1 << 16,
    name: str = "photos",
) -> Path:
    """A store of pictures of these names, with `points` keypoints each, and of pairs with the given numbers of matches.

    The first inliers of a pair are its first matches. With `done_chunks` only that number of chunks of pairs is there.
    """
    n, rng = len(names), np.random.default_rng(0)
    pictures = {
        "name": np.array(names, object), "width": np.full(n, 64, np.int32), "height": np.full(n, 48, np.int32),
        "file_bytes": np.full(n, 100, np.int64), "decoded": np.ones(n, bool),
        "n_keypoints": np.full(n, points, np.int32), "keypoint": rng.uniform(0, 48, (n * points, 2)).astype(np.float32),
    }  # fmt: skip
    ends = np.cumsum(n_matches)
    place = np.arange(int(n_matches.sum())) - np.repeat(ends - n_matches, n_matches)
    compared = {
        "a": pairs[:, 0].astype(np.int32), "b": pairs[:, 1].astype(np.int32), "decoded": np.ones(len(pairs), bool),
        "n_matches": n_matches.astype(np.int32), "match": np.stack([place % points] * 2, axis=1).astype(np.int32),
    }  # fmt: skip
    if n_inliers is not None:
        compared |= {"n_inliers": n_inliers.astype(np.int32), "inlier": place < np.repeat(n_inliers, n_matches)}
    known = {array.name: array for array in (*ImagesSource.arrays, *ImagesSource.found(ImagesSource.Options()))}
    item_arrays = tuple(known[key] for key in pictures if key in known)
    stages = (*MATCHES, *(INLIERS if n_inliers is not None else ()))
    with RunStore.open(out) as store:
        store.set_workflow({"source": {"kind": "images"}}, [])
        first = Schema("frame", (*item_arrays, DECODED), (Axis("keypoint"),), KEYPOINTS)
        facts = {"path": "/gone/photos", "folder": "/gone/photos", "container": "folder", "fingerprint": "x"}
        write_input(store, name, first, pictures, facts, chunk, None)
        counted = (*Pairs.arrays, Array("decoded", ("pair",), "bool"))
        second = Schema("pair", counted, (Axis("match", of="pair"),), stages)
        facts = {"path": f"/gone/photos#{name}", "fingerprint": "y", "of": [name], "item": "pair"}
        write_input(store, f"{name}-pairs", second, compared, facts, chunk, done_chunks)
    return out


def write_input(
    store: RunStore, stem: str, schema: Schema, arrays: Mapping[str, np.ndarray], facts: Mapping[str, object],
    length: int, done_chunks: int | None = None,
) -> None:  # fmt: skip
    """Write an input of a store, in chunks of `length` items; with `done_chunks` only that number of them."""
    n = len(arrays["decoded"])
    name = store.add_input(stem, {**facts, "frames": n, "chunk_frames": length})
    store.input(name).update(stages={"made": {"key": "k", "state": "partial"}})
    counts = arrays[schema.axes[0].count]
    ends = np.concatenate([[0], np.cumsum(counts)])
    declared = (*schema.item_arrays, *schema.arrays)
    for index, start in enumerate(range(0, max(n, 1), length)[:done_chunks]):
        stop = min(start + length, n)
        piece = {
            one.name: arrays[one.name][start:stop] if one.dims[0] == schema.item
            else arrays[one.name][ends[start] : ends[stop]]
            for one in declared
        }  # fmt: skip
        record = Record("ok", {"made": "k"}, worker="w", seconds={})
        write_chunk(str(store.path), name, index, piece, declared, record, schema, items=stop - start, flush=False)
    if done_chunks is None:
        counted = {array.name for array in schema.item_arrays}
        compact(store, name, schema, n, length, lambda a, b: {key: arrays[key][a:b] for key in counted})

"""Long arrays in pieces: the same rows as zarr reads, whoever wrote them, on any number of threads."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

import pipeline
from pipeline.errors import StoreError
from pipeline.store import compact
from pipeline.store import pieces as module
from pipeline.store.nodes import read_array_node, read_group, write_group
from pipeline.store.pieces import Piece, for_each, rows_of
from pipeline.store.read import RunInput
from tests.made_stores import faces_of, make_store


@pytest.fixture(params=[8, 64], ids=["packed", "as it is"])
def item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> RunInput:
    """1000 faces in shards of 256 rows, of chunks of 64: the last of each is short."""
    monkeypatch.setattr(compact, "CHUNK_ROWS", 64)
    vectors = np.random.default_rng(0).normal(size=(1000, request.param)).astype(np.float32)
    return pipeline.open(make_store(tmp_path / "a.zarr", {"x": faces_of(np.full(500, 2), vectors)})).input("x")


@pytest.mark.parametrize("name", ["embedding", "landmarks", "confidence", "face_frame", "decoded"])
@pytest.mark.parametrize("threads", [1, 3])
def test_pieces_are_the_array(item: RunInput, name: str, threads: int) -> None:
    whole = item.array(name)
    pieces = item.pieces(name)
    assert [piece.start for piece in pieces] == list(range(0, len(whole), 256))
    found = list(for_each(pieces, lambda piece, array: array, threads))
    assert [piece for piece, _ in found] == pieces
    np.testing.assert_array_equal(np.concatenate([array for _, array in found]), whole)
    np.testing.assert_array_equal(module.whole(pieces), whole)


@pytest.mark.parametrize("rows", [[], [0], [63, 64, 255, 256, 999], list(range(300, 700))], ids=len)
def test_rows_are_picked(item: RunInput, rows: list[int]) -> None:
    found = rows_of(item.pieces("embedding"), np.array(rows, np.int64), 2)
    if not rows:
        assert found is None
        return
    np.testing.assert_array_equal(found, item.array("embedding")[rows])


def test_arrays_of_another_make_are_read_by_zarr(item: RunInput) -> None:
    whole = item.array("embedding")
    folder = item.store_path / item.name
    zarr.create_array(
        folder,
        name="embedding",
        data=whole,
        chunks=(100, whole.shape[1]),
        overwrite=True,
        dimension_names=["face", "c"],
    )
    group = read_group(folder)
    assert group is not None
    write_group(folder, replace(group, arrays={**group.arrays, "embedding": read_array_node(folder, "embedding")}))
    consolidated = pipeline.open(item.store_path).input("x")
    pieces = consolidated.pieces("embedding")
    assert len(pieces) == 10
    np.testing.assert_array_equal(rows_of(pieces, np.arange(1000), 2), whole)


def test_chunks_of_an_input_that_is_not_complete(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32)
    out = make_store(tmp_path / "b.zarr", {"x": faces_of(np.full(200, 2), vectors)}, done_chunks=2)
    pieces = pipeline.open(out).input("x").pieces("embedding")
    assert [(piece.start, piece.stop) for piece in pieces] == [(0, 128), (128, 256)]
    np.testing.assert_array_equal(rows_of(pieces, np.array([3, 130]), 1), vectors[[3, 130]])
    with pytest.raises(StoreError, match="has no array 'age'"):
        pipeline.open(out).input("x").pieces("age")


@pytest.mark.parametrize("damage", ["flipped", "short", "gone", "empty"])
def test_damage_is_told(item: RunInput, damage: str) -> None:
    shard = item.store_path / "x" / "embedding" / "c" / "1" / "0"
    content = bytearray(shard.read_bytes())
    content[100] ^= 0xFF
    shard.write_bytes({"flipped": bytes(content), "short": bytes(content[:-20]), "empty": b""}.get(damage, b""))
    if damage == "gone":
        shard.unlink()
    pieces = item.pieces("embedding")
    assert len(pieces[0].load()) == 256
    for read in (pieces[1].load, lambda: rows_of(pieces, np.array([256]), 1)):
        with pytest.raises(StoreError, match=r"embedding/c/1/0 is damaged"):
            read()


def test_few_pieces_are_held_and_a_failure_ends_it() -> None:
    alive, most, lock = 0, 0, threading.Lock()

    def load(k: int) -> np.ndarray:
        nonlocal alive, most
        with lock:
            alive += 1
            most = max(most, alive)
        if k == 30:
            raise StoreError("piece 30 is damaged")
        return np.array([k])

    pieces = [Piece(k, k + 1, lambda k=k: load(k)) for k in range(40)]
    found = for_each(pieces, lambda _, array: int(array[0]), 3)
    seen = []
    for piece, value in itertools.islice(found, 30):
        with lock:
            alive -= 1
        seen.append((piece.start, value))
    with pytest.raises(StoreError, match="piece 30"):
        next(found)
    assert seen == [(k, k) for k in range(30)]
    assert most <= 4

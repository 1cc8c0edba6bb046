"""Rows of stored arrays by item: mapped where they are stored as they are, else unpacked in bounded memory."""

from __future__ import annotations

import pickle
import shutil
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest

from pipeline.errors import StoreError
from pipeline.store import mapped
from pipeline.store.chunks import write_chunk
from pipeline.store.compact import compact
from pipeline.store.mapped import MappedArray, RowsOfItems, StoredItems, opened
from pipeline.store.record import Record
from pipeline.store.run import InputStore, RunStore
from pipeline.store.schema import DECODED, Array, Axis, Schema

ITEMS, WIDTH = 400, 200
ARRAYS = (
    Array("n_marks", ("frame",), "int32"),
    Array("raw", ("mark", "part"), "uint8", (WIDTH,), mapped=True),
    Array("packed", ("mark", "part"), "int64", (WIDTH,)),
    Array("label", ("mark",), "string"),
)
SCHEMA = Schema("frame", (Array("name", ("frame",), "string"), DECODED), (Axis("mark"),), ARRAYS)


def counts(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 120, ITEMS).astype(np.int32)


def values(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, WIDTH), dtype=np.uint8)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two inputs of 400 items; rows of 200 bytes, so that there are several chunks and files."""
    out = tmp_path_factory.mktemp("mapped") / "out.zarr"
    with RunStore.open(out) as written:
        for seed, name in enumerate(("one", "two")):
            n = counts(seed)
            rows = values(int(n.sum()), seed)
            names = np.array([f"{name}-{k}" for k in range(ITEMS)], object)
            made = {
                "n_marks": n,
                "raw": rows,
                "packed": rows.astype(np.int64),
                "label": names[np.repeat(range(ITEMS), n)],
            }
            facts = {"path": name, "fingerprint": name, "chunk_frames": ITEMS, "frames": ITEMS}
            written.add_input(name, facts)
            everything = {"name": names, "decoded": np.ones(ITEMS, bool), **made}
            record = Record("ok", stages={"marks": "key"}, attempts=1, seconds={}, worker="here")
            write_chunk(str(out), name, 0, everything, (*SCHEMA.item_arrays, *ARRAYS), record, SCHEMA, items=ITEMS)
            compact(written, name, SCHEMA, ITEMS, ITEMS, lambda a, b, names=names: {"name": names[a:b]})
    return out


def expected(item: int) -> np.ndarray:
    seed, local = divmod(item, ITEMS)
    n = counts(seed)
    start = int(n[:local].sum())
    return values(int(n.sum()), seed)[start : start + n[local]]


@pytest.mark.parametrize("array", ["raw", "packed"])
def test_rows_of_each_item(store: Path, array: str) -> None:
    items = StoredItems(str(store), ["one", "two"])
    assert len(items) == 2 * ITEMS
    for item in (0, 1, 57, ITEMS - 1, ITEMS, ITEMS + 3, 2 * ITEMS - 1):
        found = items.rows(array, item)
        np.testing.assert_array_equal(found, expected(item))
        assert not found.flags.writeable


def test_strings_and_arrays_of_items(store: Path) -> None:
    items = StoredItems(str(store), ["one", "two"])
    assert set(items.rows("label", ITEMS + 7)) <= {"two-7"}
    assert items.values("name")[[0, ITEMS]].tolist() == ["one-0", "two-0"]
    assert "name" in items
    assert "nothing" not in items


def test_mapped_rows_are_views_of_the_file(store: Path) -> None:
    array = MappedArray(InputStore(str(store), "one"), "raw")
    assert np.shares_memory(array.rows(3, 10), array.rows(5, 6))
    packed = MappedArray(InputStore(str(store), "one"), "packed")
    assert array._maps
    packed.rows(0, 5)
    assert packed._maps == {0: None}


def test_pages_are_let_go_and_read_again(store: Path) -> None:
    """A worker's limit counts mapped pages that were touched: releasing them makes it smaller, and values stay."""
    array = MappedArray(InputStore(str(store), "one"), "raw")
    total = array.shape[0]
    held = array.rows(0, 100)
    before = held.copy()
    everything = np.concatenate([array.rows(k, k + 1) for k in range(0, total, 5)])
    touched = psutil.Process().memory_info().rss
    array.release()
    released = psutil.Process().memory_info().rss
    assert touched - released > 0.5 * total * WIDTH
    np.testing.assert_array_equal(held, before)
    np.testing.assert_array_equal(np.concatenate([array.rows(k, k + 1) for k in range(0, total, 5)]), everything)


def test_touched_bytes_are_bounded(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "TOUCHED_BYTES", 100_000)
    released: list[int] = []
    monkeypatch.setattr(
        MappedArray, "release", lambda self: released.append(self.touched) or setattr(self, "touched", 0)
    )
    items = StoredItems(str(store), ["one"])
    sizes = [items.rows("raw", item).nbytes for item in range(ITEMS)]
    assert len(released) == pytest.approx(sum(sizes) / 100_000, rel=0.3)
    assert max(released) < 100_000 + max(sizes)


def test_unpacked_chunks_are_bounded(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = MappedArray(InputStore(str(store), "one"), "packed")
    chunk = array.chunk_rows * WIDTH * 8
    held = mapped._Held(2 * chunk)
    monkeypatch.setattr(mapped, "_HELD", held)
    for k in range(0, array.shape[0], array.chunk_rows // 2):
        array.rows(k, k + 1)
        assert held.bytes <= 2 * chunk
    assert held.bytes == 2 * chunk


def test_several_threads(store: Path) -> None:
    items, wrong = StoredItems(str(store), ["one", "two"]), []
    sums = {item: int(expected(item).sum()) for item in range(0, 2 * ITEMS, 37)}

    def work(array: str) -> None:
        for item, total in sums.items():
            if int(items.rows(array, item).sum()) != total:
                wrong.append(item)

    threads = [threading.Thread(target=work, args=(array,)) for array in ("raw", "packed") * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_sequence_travels_as_names(store: Path) -> None:
    rows = RowsOfItems(str(store), ("one", "two"), "state", "raw", np.array([5, ITEMS, 5]))
    rows[0]
    sent = pickle.dumps(rows)
    assert len(sent) < 1000
    again = pickle.loads(sent)
    assert len(again) == 3
    for one, item in zip(again, (5, ITEMS, 5), strict=True):
        np.testing.assert_array_equal(one, expected(item))
    assert np.shares_memory(rows[0], rows[2])


@pytest.mark.parametrize("fault", ["flip", "cut", "gone"])
def test_damage_is_noticed(store: Path, tmp_path: Path, fault: str) -> None:
    copy = tmp_path / "copy.zarr"
    shutil.copytree(store, copy)
    file = copy / "one" / "raw" / "c" / "0" / "0"
    content = bytearray(file.read_bytes())
    if fault == "flip":
        content[1000] ^= 4
        file.write_bytes(content)
    elif fault == "cut":
        file.write_bytes(content[: len(content) // 2])
    else:
        file.unlink()
    items = StoredItems(str(copy), ["one"])
    with pytest.raises(StoreError, match=str(file)):
        items.rows("raw", next(k for k in range(ITEMS) if counts(0)[k]))


def test_opened_once(store: Path) -> None:
    assert opened(str(store), ("one",), "a") is opened(str(store), ("one",), "a")
    assert opened(str(store), ("one",), "a") is not opened(str(store), ("one",), "b")

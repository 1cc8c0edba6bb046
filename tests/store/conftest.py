from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import storemaker as made

from pipeline.store.run import RunStore


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.zarr"


@pytest.fixture
def store(out: Path) -> Iterator[RunStore]:
    """A store with one input, `clip`, of which nothing is done."""
    with RunStore.open(out) as store:
        made.set_up(store)
        yield store


@pytest.fixture
def complete(store: RunStore) -> RunStore:
    """The same, complete."""
    made.write_all(store.path, "clip")
    made.compact(store)
    return store

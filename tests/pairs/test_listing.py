"""Lists of pairs: each pair once, the smaller index first, and neighbours in the list share pictures."""

from __future__ import annotations

import tracemalloc
from itertools import combinations

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.pairs import listing
from pipeline.pairs.listing import TILE, all_pairs, in_tiles, named, similar, window


def tuples(pairs: np.ndarray) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for a, b in pairs]


@pytest.mark.parametrize("n", [0, 1, 2, TILE, TILE + 1, 100])
def test_all_pairs_once_each(n: int) -> None:
    found = tuples(in_tiles(all_pairs(np.arange(n))))
    assert sorted(found) == list(combinations(range(n), 2))


@pytest.mark.parametrize("first_new", [1, 50, 99])
def test_pairs_with_later_items_alone(first_new: int) -> None:
    found = tuples(in_tiles(all_pairs(np.arange(100), first_new)))
    assert sorted(found) == [(a, b) for a, b in combinations(range(100), 2) if b >= first_new]


def test_listing_takes_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "BLOCK_PAIRS", 10_000)
    tracemalloc.start()
    try:
        pairs = in_tiles(all_pairs(np.arange(1200)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(pairs) == 1200 * 1199 // 2
    assert peak < 28 * len(pairs)


def test_a_chunk_touches_few_pictures() -> None:
    """256 pairs in the order of `combinations` touch 235 of 500 pictures, in tiles a fifth of that."""
    pairs = in_tiles(all_pairs(np.arange(500)))
    touched = [len(np.unique(pairs[k : k + 256])) for k in range(0, len(pairs), 256)]
    assert max(touched) <= 5 * TILE
    assert np.mean(touched) <= 3 * TILE


def test_a_pair_that_is_named_twice_is_there_once() -> None:
    pairs = np.array([[3, 1], [1, 3], [1, 3], [0, 40]], np.int32)
    assert tuples(in_tiles(pairs)) == [(1, 3), (0, 40)]


def test_too_many_pairs_are_refused_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MOST_PAIRS", 100)
    assert len(all_pairs(np.arange(14))) == 91
    with pytest.raises(
        InputError, match="15 pictures make 105 pairs, and 100 is the most; choose some of them: window"
    ):
        all_pairs(np.arange(15))


@pytest.mark.parametrize("width", [1, 3, 50])
def test_window(width: int) -> None:
    found = tuples(in_tiles(window(np.arange(20), width)))
    assert sorted(found) == [(a, b) for a, b in combinations(range(20), 2) if b - a <= width]


def test_similar_is_what_a_plain_search_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "BLOCK_BYTES", 1000)  # several blocks
    chance = np.random.default_rng(4)
    vectors = chance.normal(size=(60, 8)).astype(np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = unit @ unit.T
    vectors[7], vectors[11] = np.nan, 0
    expected = set()
    for a in set(range(60)) - {7, 11}:
        others = [b for b in range(60) if b not in (a, 7, 11)]
        for b in sorted(others, key=lambda b, a=a: -cosine[a, b])[:3]:  # type: ignore[misc]
            expected.add((min(a, b), max(a, b)))
    assert set(tuples(in_tiles(similar(np.arange(60), vectors, 3)))) == expected
    assert len(similar(np.arange(1), vectors[:1], 3)) == 0


def test_names_with_spaces_and_tabs() -> None:
    names = ["a b.jpg", "c.jpg", "c.jpg d.jpg", "é.jpg"]
    lines = ["a b.jpg c.jpg", "c.jpg\té.jpg", "a b.jpg\tc.jpg d.jpg", "c.jpg c.jpg", "  ", "# é.jpg c.jpg"]
    assert tuples(named(lines, names, "pairs.txt")) == [(0, 1), (1, 3), (0, 2)]


def test_lines_that_can_be_read_in_two_ways() -> None:
    names = ["a", "a b", "c", "b c", "#1.jpg", "twice", "twice"]
    lines = ["a\tb c\t", "a b\tc", "a c\t", "#1.jpg a", "# a c", "#a c"]
    assert tuples(named(lines, names, "p.txt")) == [(0, 3), (1, 2), (0, 2), (4, 0)]
    with pytest.raises(InputError, match=r"p\.txt, line 2: 'a b c' has spaces in names; write a tab"):
        named(["a c", "a b c"], names, "p.txt")
    with pytest.raises(InputError, match=r"p\.txt, line 1: two pictures are called 'twice'"):
        named(["a twice"], names, "p.txt")


def test_a_line_that_names_nothing() -> None:
    with pytest.raises(InputError, match=r"pairs\.txt, line 2: unknown picture 'd\.jpg'"):
        named(["a.jpg b.jpg", "a.jpg d.jpg"], ["a.jpg", "b.jpg"], "pairs.txt")

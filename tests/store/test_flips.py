"""One flipped bit anywhere in a store loses nothing in silence, and is told in one line. flips.py does more of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.store import flips

N = 60


def test_flipped_bits(tmp_path: Path) -> None:
    outcomes = list(flips.flip(tmp_path, seed=1, n=N))
    assert len(outcomes) == N
    assert [outcome for outcome in outcomes if outcome.is_bad] == []
    refused = [outcome for outcome in outcomes if outcome.reading == flips.REFUSED]
    assert len(refused) > N / 2


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("films/films.zarr/a/zarr.json", b'"consolidated_metadata"', b'"consolidatee_metadata"'),
        ("films/films.zarr/a/zarr.json", b'"attributes"', b'"attribuues"'),
        ("films/films.zarr/a/zarr.json", b'"metadata_checksum"', b'"metadata_checksul"'),
        ("films/films.zarr/a/zarr.json", b'"group"', b'"gsoup"'),
        ("films/films.zarr/a/zarr.json", b'"stages"', b'"stageq"'),
        ("films/films.zarr/zarr.json", b'"group"', b'"gsoup"'),
        ("films/films.zarr/zarr.json", b'"models"', b'"modelr"'),
        ("films/people.json", b'"Ann"', b'"Anl"'),
        ("half/half.zarr/clip/zarr.json", b'"chunk_frames":8', b'"chunk_frames":9'),
    ],
)
def test_keys_that_decide_what_is_there(tmp_path: Path, file: str, old: bytes, new: bytes) -> None:
    flips.make(tmp_path)
    path = tmp_path / file
    before = path.read_bytes()
    assert old in before
    path.write_bytes(before.replace(old, new, 1))
    with pytest.raises(flips.ReelgraphError, match=r"damaged|its checksum does not fit") as caught:
        flips.content_of(tmp_path / file.split("/")[0])
    assert "\n" not in str(caught.value)

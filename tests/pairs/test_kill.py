"""A run over pairs is killed in both passes, and the same command finishes it; the full size is `tests.pairs.kills`."""

from __future__ import annotations

from pathlib import Path

from tests.pairs.kills import campaign


def test_kills_in_both_passes(tmp_path: Path) -> None:
    print(campaign(tmp_path, pictures=64, kills=3))

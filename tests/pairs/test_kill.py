"""Runs over pairs are killed in both passes, and finished by the same command; in full size: `tests.pairs.kills`."""

from __future__ import annotations

from pathlib import Path

from tests.pairs.kills import Campaign


def test_kills_in_both_passes(tmp_path: Path) -> None:
    print(Campaign(tmp_path).run(pictures=64, kills=4))

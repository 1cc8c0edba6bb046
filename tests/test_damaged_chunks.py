"""A chunk file that cannot be read is set aside and made again; it blocks no run."""

from __future__ import annotations

from pathlib import Path

import pytest

import pipeline
from tests import own as texts
from tests.own import Own


@pytest.fixture
def half_done(own: Own) -> Path:
    """A store of which the second of three chunks failed, so that the other chunk files are still there."""
    own.numbers(*range(12))
    fails = '        assert 6 not in chunk["number"]\n        return'
    own.module("plain", texts.PLAIN.replace("        return", fails))
    run = own.run(own.workflow({"square": "plain:Square"}))
    assert len(run.summary.failures) == 1
    own.module("plain", texts.PLAIN)
    return run.path


def files(out: Path, pattern: str) -> list[Path]:
    return sorted(out.glob(f"*/chunks/{pattern}"))


@pytest.mark.parametrize("kind", ["torn", "empty", "another content"])
def test_it_is_made_again(own: Own, half_done: Path, kind: str) -> None:
    (first, *_) = files(half_done, "*.ok.*.zip")
    content = first.read_bytes()
    torn = content[: len(content) // 2]
    first.write_bytes({"torn": torn, "empty": b"", "another content": b"x" * len(content)}[kind])
    for _ in range(3):
        run = own.run(own.workflow({"square": "plain:Square"}), retry_failed=True, keep_stale=["square"])
        if run.summary.exit_code == 0:
            break
    assert run.summary.exit_code == 0
    fresh = own.run(own.workflow({"square": "plain:Square"}), fresh=True)
    assert pipeline.open(run.path).frames().equals(fresh.frames())

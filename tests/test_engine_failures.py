"""A stage of one's own that fails: its place, its traceback, a debugger; and one that writes where it must not."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from pipeline.cli import main
from pipeline.errors import UsageError
from pipeline.views import summary as summary_view
from tests.own import PLAIN, Own

FAILING = '''from pipeline import Array, Stage


def divide(value):
    return 1 / value


class Failing(Stage):
    needs = ("number",)
    outputs = (Array("inverse", ("frame",), "float64"),)

    def run(self, chunk):
        return {"inverse": [divide(int(value)) for value in chunk["number"]]}
'''
LINE = 1 + FAILING.splitlines().index("    return 1 / value")


@pytest.fixture
def path(own: Own) -> Path:
    own.module("failing", FAILING)
    return own.workflow({"inverse": "failing:Failing"})


def words(own: Own, path: Path, *more: str) -> list[str]:
    return ["run", str(path), str(own.folder / "numbers.txt"), "--out", str(own.out), *more]


def test_the_place_in_ones_own_code_is_named(own: Own, path: Path) -> None:
    run = own.run(path)
    (failure,) = run.summary.failures
    assert failure["error"] == (
        f"inverse: ZeroDivisionError: division by zero ({own.folder / 'failing.py'}, line {LINE})"
    )
    assert (failure["chunk"], failure["time_range"], failure["step"]) == (0, "lines 1 to 5", "inverse")
    (stored,) = run.input("numbers").failures
    assert (stored["error"], stored["frames"], stored["time_seconds"]) == (failure["error"], [0, 5], None)


def test_the_traceback_is_beside_the_store(own: Own, path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(words(own, path, "--executor", "inline")) == 1
    log = own.folder / "out.zarr.errors.log"
    shown = capfd.readouterr()
    assert f"tracebacks: {log}" in shown.out + shown.err
    assert "Traceback" not in shown.out + shown.err
    text = log.read_text()
    assert re.match(r"\d{4}-\d\d-\d\dT\S+ numbers: chunk 0 \(lines 1 to 5\)\nTraceback \(most recent call last\)", text)
    assert f'failing.py", line {LINE}, in divide' in text
    assert text.count("ZeroDivisionError: division by zero") == 1  # of the last attempt
    own.run(path, retry_failed=True)
    assert log.read_text().startswith(text)
    assert log.read_text().count("Traceback") == 2
    assert own.run(path).summary.traceback_log is None  # this run tried nothing


def test_a_log_that_cannot_be_written_ends_no_run(own: Own, path: Path) -> None:
    (own.folder / "out.zarr.errors.log").mkdir()
    run = own.run(path)
    assert run.summary.exit_code == 1
    assert run.summary.traceback_log is None
    assert not any("traceback" in line for line in summary_view.lines(run.summary))


def test_debug_raises_what_the_stage_raises(own: Own, path: Path) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        main(words(own, path, "--executor", "inline", "--debug"))
    assert caught.traceback[-1].lineno + 1 == LINE
    assert not (own.out / ".lock").exists()
    own.numbers(*range(1, 6))
    assert own.run(path, fresh=True, debug=True).summary.exit_code == 0


@pytest.mark.parametrize("executor", [[], ["--executor", "dask"]], ids=["by default", "dask"])
def test_debug_needs_this_process(
    own: Own, path: Path, executor: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(words(own, path, "--debug", *executor)) == 2
    error = capfd.readouterr().err.strip()
    assert "--debug" in error
    assert "--executor inline" in error
    assert len(error.splitlines()) == 1
    assert not own.out.exists()
    with pytest.raises(UsageError, match="--executor inline"):
        own.run(path, debug=True, executor="dask")


SPOIL = '''
from pipeline import Array, Stage


class Spoil(Stage):
    needs = ("number", "square", "word", "line")
    outputs = (Array("spoilt", ("frame",), "float64"),)

    def run(self, chunk):
        {spoil}
        return {{"spoilt": chunk["square"] * 1}}
'''


@pytest.mark.parametrize(
    "spoil",
    [
        'chunk.arrays["square"][:] = -1', 'chunk["number"] += 1', 'chunk["word"][0] = "x"', 'chunk["line"].sort()',
        "chunk.decoded[:] = False", "chunk.frame[0] = 7",
    ],
)  # fmt: skip
def test_arrays_are_read_only(own: Own, spoil: str) -> None:
    own.module("plain", PLAIN)
    own.module("spoil", SPOIL.format(spoil=spoil))
    run = own.run(own.workflow({"square": "plain:Square", "spoil": "spoil:Spoil"}))
    assert [failure["chunk"] for failure in run.summary.failures] == [0, 1, 2]
    error = run.summary.failures[0]["error"]
    assert "read-only" in error
    assert f"{own.folder / 'spoil.py'}, line" in error
    alone = own.run(own.workflow({"square": "plain:Square"}), retry_failed=True)
    assert alone.summary.exit_code == 0
    np.testing.assert_array_equal(alone.array("numbers", "square"), np.arange(12.0) ** 2)
    np.testing.assert_array_equal(alone.array("numbers", "line"), np.arange(12) + 1)
    assert alone.array("numbers", "decoded").all()


def test_a_stage_may_hand_on_what_it_was_given(own: Own) -> None:
    own.module("plain", PLAIN)
    own.module("spoil", SPOIL.format(spoil="pass").replace('chunk["square"] * 1', 'chunk["square"]'))
    run = own.run(own.workflow({"square": "plain:Square", "spoil": "spoil:Spoil"}))
    assert run.summary.exit_code == 0
    np.testing.assert_array_equal(run.array("numbers", "spoilt"), np.arange(12.0) ** 2)

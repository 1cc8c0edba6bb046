"""The source text of a stage is part of its resume key: what other code made is not gone on with by accident."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.cli import main
from pipeline.engine import workflow as workflows_module
from pipeline.engine.workflow import load_workflow
from pipeline.errors import StoreError, UsageError, WorkflowError
from tests.own import PLAIN, Own

MINE = '''
"""A module of the user's own."""
import numpy as np

from pipeline import Array, Stage

FACTOR = 2
UNUSED = 1
TABLE = {}
TABLE["more"] = 0
TABLE.update(less=0)


def shifted(by):
    return lambda function: lambda values: function(values) + by


@shifted(0)
def times(values):
    return values * FACTOR + TABLE["more"] - TABLE["less"]  # as often as that


class Mine(Stage):
    needs = ("number",)
    outputs = (Array("mine", ("frame",), "float64"),)

    def run(self, chunk):
        return {"mine": times(chunk["number"])}


class Other(Stage):
    needs = ("mine",)
    outputs = (Array("other", ("frame",), "float64"),)

    def run(self, chunk):
        return {"other": chunk["mine"] + 1}
'''
STAGES = {"mine": "mystage:Mine", "other": "mystage:Other"}


@pytest.fixture
def path(own: Own) -> Path:
    own.module("mystage", MINE)
    return own.workflow(STAGES)


def keys(path: Path) -> dict[str, str]:
    return load_workflow(path).keys()


def edit(own: Own, old: str, new: str) -> None:
    assert old in MINE
    own.module("mystage", MINE.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ('times(chunk["number"])', 'times(chunk["number"]) + 1', {"mine", "other"}),
        ("FACTOR = 2", "FACTOR = 3", {"mine", "other"}),
        ("return values * FACTOR", "return values + FACTOR", {"mine", "other"}),
        ("@shifted(0)", "@shifted(1)", {"mine", "other"}),
        ('TABLE["more"] = 0', 'TABLE["more"] = 1', {"mine", "other"}),
        ("less=0", "less=1", {"mine", "other"}),
        ("  # as often as that", "\n    # a comment says why", set()),
        ('chunk["mine"] + 1', 'chunk["mine"] + 2', {"other"}),
        ("UNUSED = 1", "UNUSED = 2\n\n\ndef helper():\n    return UNUSED", set()),
        ('"""A module of the user\'s own."""', '"""Another text."""', set()),
        ("    def run", "\n\n    def run", set()),
    ],
    ids=[
        "run", "constant", "function", "decorator", "item of a constant", "method of a constant", "comment",
        "later stage", "unused code", "text of the module", "empty lines",
    ],
)
def test_what_enters_the_key(own: Own, path: Path, old: str, new: str, changed: set[str]) -> None:
    before = keys(path)
    edit(own, old, new)
    assert {stage for stage, key in keys(path).items() if key != before[stage]} == changed


def test_base_classes_of_ones_own_count(own: Own, path: Path) -> None:
    own.module("plain", PLAIN)
    own.module("mystage", "from plain import Square\n\n\nclass Mine(Square):\n    pass\n")
    path = own.workflow({"mine": "mystage:Mine"})
    before = keys(path)
    own.module("plain", PLAIN.replace("** 2", "** 3"))
    own.module("mystage", "from plain import Square\n\n\nclass Mine(Square):\n    pass\n")
    assert keys(path) != before


def test_an_edit_is_refused_kept_or_started_over(own: Own, path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    own.run(path)
    edit(own, "FACTOR = 2", "FACTOR = 3")
    with pytest.raises(StoreError, match=r"source text of stage 'mine' \(mystage:Mine\).*--fresh.*--keep-stale mine"):
        own.run(path)
    flags = ["--out", str(own.out), "--executor", "inline"]
    words = ["run", str(path), str(own.folder / "numbers.txt")]
    assert main([*words, *flags]) == 2
    error = capfd.readouterr().err.strip()
    assert "--keep-stale mine" in error
    assert len(error.splitlines()) == 1
    other = own.numbers(100, 200, name="more")
    assert main([*words, str(other), *flags, "--keep-stale", "mine"]) == 0
    kept = own.run(path, keep_stale=["mine"])
    np.testing.assert_array_equal(kept.array("numbers", "mine"), np.arange(12) * 2)
    np.testing.assert_array_equal(kept.array("more", "mine"), [300, 600])  # made by the code as it is now
    with pytest.raises(StoreError, match="--keep-stale mine"):  # the word holds for one run
        own.run(path)
    fresh = own.run(path, fresh=True)
    np.testing.assert_array_equal(fresh.array("numbers", "other"), np.arange(12) * 3 + 1)
    assert own.run(path).summary.chunks == 0


def test_an_added_stage_goes_on_from_what_is_kept(own: Own, path: Path) -> None:
    own.run(own.workflow({"mine": "mystage:Mine"}, name="one"))
    edit(own, "FACTOR = 2", "FACTOR = 3")
    run = own.run(path, keep_stale=["mine"])
    np.testing.assert_array_equal(run.array("numbers", "other"), np.arange(12) * 2 + 1)


def test_other_options_can_be_kept_too(own: Own, path: Path) -> None:
    own.run(path)
    workflow = own.workflow(STAGES, skip=0, note="another file")
    assert own.run(workflow).summary.chunks == 0  # an option that changes no result
    with pytest.raises(StoreError, match=r"source\.skip: 0 -> 1"):
        own.run(own.workflow(STAGES, skip=1))


def test_a_stage_that_is_not_there_cannot_be_kept(own: Own, path: Path) -> None:
    with pytest.raises(UsageError, match=r"--keep-stale: unknown stage 'mina'; did you mean 'mine'\?"):
        own.run(path, keep_stale=["mina"])


def test_a_store_of_an_earlier_version_goes_on_and_a_later_edit_is_noticed(
    own: Own, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(workflows_module, "source_text", lambda stage: "")
        own.run(path)
        old = keys(path)
    assert keys(path) != old
    stages = own.run(path).input("numbers").attributes["stages"]
    assert {stage: facts["key"] for stage, facts in stages.items()} == old
    assert own.run(path).summary.chunks == 0
    own.numbers(1, 2, name="more")
    added = own.run(path, own.folder / "more.txt")
    assert added.input("more").attributes["stages"]["mine"]["key"] == old["mine"]
    edit(own, "FACTOR = 2", "FACTOR = 3")
    with pytest.raises(StoreError, match=r"source text of stage 'mine'.*--keep-stale mine"):
        own.run(path)
    np.testing.assert_array_equal(
        own.run(path, keep_stale=["mine"]).array("numbers", "mine"), np.arange(12) * 2
    )


def test_stages_of_the_package_have_no_text_in_their_key(workflows: Path) -> None:
    workflow = load_workflow(workflows / "analyze.yaml")
    assert {node.name: node.code for node in workflow.stages} == dict.fromkeys(
        ("detect", "embed", "analyze", "antispoof"), ""
    )


def test_code_that_was_edited_in_the_same_process_is_run(own: Own, path: Path) -> None:
    """A notebook edits a module, and runs again: the values are the new text's, as their key says."""
    own.run(path)
    file = own.folder / "mystage.py"
    file.write_text(MINE.replace("values * FACTOR", "values - FACTOR"))
    run = own.run(path, fresh=True)
    np.testing.assert_array_equal(run.array("numbers", "mine"), np.arange(12) - 2)
    file.write_text("class Mine")
    with pytest.raises(WorkflowError, match="importing 'mystage' ends in SyntaxError"):
        own.run(path)
    file.write_text(MINE)
    np.testing.assert_array_equal(own.run(path, fresh=True).array("numbers", "mine"), np.arange(12) * 2)


def test_a_base_class_that_was_edited_in_the_same_process_is_run(own: Own) -> None:
    own.module("plain", PLAIN)
    own.module("mystage", "from plain import Square\n\n\nclass Mine(Square):\n    pass\n")
    path = own.workflow({"mine": "mystage:Mine"})
    np.testing.assert_array_equal(own.run(path).array("numbers", "square"), np.arange(12) ** 2)
    (own.folder / "plain.py").write_text(PLAIN.replace("** 2", "* 5"))
    np.testing.assert_array_equal(own.run(path, fresh=True).array("numbers", "square"), np.arange(12) * 5)


EDITING = """
from pathlib import Path

from pipeline import Array, Stage


class Editing(Stage):
    needs = ("number",)
    outputs = (Array("mine", ("frame",), "float64"),)

    def run(self, chunk):
        file = Path(__file__).with_name("own_source.py")
        file.write_text(file.read_text().replace("float(word) if good", "100 + float(word) if good"))
        return {"mine": chunk["number"]}
"""


def test_an_edit_during_a_run_is_for_the_next_one(own: Own) -> None:
    """The keys are those of the text that the run began with."""
    own.module("editing", EDITING)
    path = own.workflow({"mine": "editing:Editing"})
    np.testing.assert_array_equal(own.run(path).array("numbers", "mine"), np.arange(12))
    assert own.run(path, fresh=True).array("numbers", "mine")[0] == 300  # three chunks, three edits

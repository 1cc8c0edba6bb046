"""Mistakes of a stage's author: one line that names the stage, before anything is run, never a traceback."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from pipeline.cli import main
from pipeline.engine.workflow import load_workflow
from pipeline.errors import WorkflowError
from tests.own import OBJECTS, PLAIN, Own

SQUARE = '("square", ("frame",), "float64")'
"""Declaration of the one array that the stage in PLAIN makes."""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('("number",)', '("number")', r"stages\.mine: needs is 'number'; write a tuple of str"),
        (f"(Array{SQUARE},)", f"(Array{SQUARE})", r"stages\.mine: outputs is of type Array; write a tuple of Array"),
        ('("frame",)', '("frame")', r"array 'square': dims is 'frame'; write a tuple: \('frame',\)"),
        ('"float64"', '"float33"', r"stages\.mine: array 'square' has dtype 'float33'; a store holds bool, .*string"),
        ('"float64"', '"U5"', r"array 'square' has dtype 'U5'"),
        ('"float64"', '"complex64"', r"array 'square' has dtype 'complex64'"),
        (SQUARE, '("square", ("frame", "a"), "float64", (2.0,))', r"array 'square' has shape \(2\.0,\); give the size"),
        ('"float64"', '"float64", attributes={"a": {1}}', r"array 'square': attribute 'a' cannot be stored as JSON"),
        ("    needs", '    scope = "inputs"\n    needs', r"unknown scope 'inputs'; did you mean 'input'\?"),
        ("    needs", '    slot = "tpu"\n    needs', r"unknown slot 'tpu'; .*valid: cpu, gpu"),
        ("    needs", "    most_items = 2.5\n    needs", r"most_items is 2\.5; set a whole number above 0"),
        ("    needs", "    Options = dict\n    needs", r"Square\.Options is not a subclass of pipeline\.StageOptions"),
        ("def run(", "def rum(", r"stages\.mine: Square has scope 'chunk' and no method run; write it"),
        (
            "    needs",
            '    scope = "input"\n    needs',
            r"stage of scope 'input' reads the store, which has no 'number'",
        ),
        ("    needs", "    def __init__(self):\n        pass\n    needs", r"stages\.mine: Square raised TypeError: .*"),
        (
            "    needs",
            "    def check(self, arrays):\n        return arrays['x']\n    needs",
            r"stages\.mine: check: Square raised KeyError: 'x' \(.*plain\.py, line 7\)",
        ),
        ("class", "raise SystemExit(0)\nclass", r"importing 'plain' ends in SystemExit: 0 \(.*plain\.py, line 5\)"),
    ],
)
def test_a_wrong_declaration_is_refused_at_load(own: Own, old: str, new: str, message: str) -> None:
    assert old in PLAIN
    own.module("plain", PLAIN.replace(old, new, 1))
    with pytest.raises(WorkflowError, match=message) as caught:
        load_workflow(own.workflow({"mine": "plain:Square"}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"size", ("object',  '"object_frame", ("object', r"array 'object_frame': the store derives it for axis"),
        ('Axis("object")', 'Axis("object", of="keypoint")', r"axis 'object' is one of 'keypoint'; rows belong"),
        ("    axes", '    scope = "input"\n    axes', r"scope 'input' and declares the axis 'object'; leave it out"),
    ],
)  # fmt: skip
def test_a_wrong_axis_is_refused_at_load(own: Own, old: str, new: str, message: str) -> None:
    assert old in OBJECTS
    own.module("things", OBJECTS.replace(old, new, 1))
    with pytest.raises(WorkflowError, match=message):
        load_workflow(own.workflow({"mine": "things:Objects"}))


@pytest.mark.parametrize("name", ["decode", "read", "write"])
def test_no_stage_takes_the_name_of_a_step(own: Own, name: str) -> None:
    """A graph has each name once: on a cluster its chunks failed with a circle."""
    own.module("plain", PLAIN)
    with pytest.raises(WorkflowError, match=rf"stages\.{name}: '{name}' is a step of every chunk"):
        load_workflow(own.workflow({name: "plain:Square"}))


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("models(self):\n        return None", "Square raised TypeError: 'NoneType' object is not iterable"),
        ("content(self):\n        return b'x'", "Square raised TypeError: Object of type bytes is not JSON"),
        ("check_input(self, facts):\n        return facts['fps']", "Square raised KeyError: 'fps' ("),
    ],
)
def test_what_a_method_raises_before_the_run_is_one_line(
    own: Own, method: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own.module("plain", f"{PLAIN}\n    def {method}\n")
    path = own.workflow({"mine": "plain:Square"})
    assert main(["run", str(path), str(own.folder / "numbers.txt"), "--out", str(own.out), "--executor", "inline"]) == 2
    assert f"reelgraph: stages.mine: {message}" in capsys.readouterr().err


def test_a_stage_that_exits_is_a_failed_chunk(own: Own) -> None:
    """The run ended in the middle, with the exit code of the stage: 0, as if all were done."""
    own.module(
        "plain", PLAIN.replace("        return", "        if chunk.index == 1:\n            exit(0)\n        return")
    )
    run = own.run(own.workflow({"mine": "plain:Square"}))
    assert (run.summary.exit_code, run.summary.chunks) == (1, 2)
    assert [(one["chunk"], one["error"].split(" (")[0]) for one in run.summary.failures] == [(1, "mine: SystemExit: 0")]


def test_an_exception_without_a_text_is_a_failed_chunk(own: Own) -> None:
    wrong = "class Mute(Exception):\n    def __str__(self):\n        return 1 / 0\n\n\n"
    own.module("plain", wrong + PLAIN.replace("        return", "        raise Mute\n        return"))
    (failure, *_) = own.run(own.workflow({"mine": "plain:Square"})).summary.failures
    assert failure["error"].startswith("mine: Mute: <exception str() failed> (")


@pytest.mark.parametrize(
    ("given", "dtype", "message"),
    [
        ("list(range(len(chunk)))", "string", "array 'square' holds a value of type int; declared is string"),
        ("[None, b'a', 'b', 'c', 'd'][:len(chunk)]", "string", "array 'square' holds a value of type bytes"),
        ("np.ma.masked_less(chunk['number'], 3)", "float64", "array 'square' has masked values"),
    ],
)
def test_values_that_a_store_does_not_hold(own: Own, given: str, dtype: str, message: str) -> None:
    text = PLAIN.replace('chunk["number"] ** 2', given).replace("float64", dtype)
    own.module("plain", f"import numpy as np\n{text}")
    (failure, *_) = own.run(own.workflow({"mine": "plain:Square"})).summary.failures
    assert message in failure["error"]


def test_a_text_that_is_none_is_empty_for_every_stage(own: Own) -> None:
    """A stage of the same chunk got None, and one that was added later the empty text of the store."""
    text = PLAIN.replace('chunk["number"] ** 2', "[None] * len(chunk)").replace("float64", "string")
    own.module("plain", text)
    own.module("after", PLAIN.replace("square", "empty").replace('"number",', '"square",').replace(
        'chunk["number"] ** 2', 'chunk["square"] == ""').replace("float64", "bool"))  # fmt: skip
    run = own.run(own.workflow({"mine": "plain:Square", "after": "after:Square"}))
    assert run.array("numbers", "empty").all()


WHOLE = """
import numpy as np
from pipeline import Array, Described, Stage


class Whole(Stage):
    scope = "input"
    needs = ("line",)
    outputs = (Array("rank", ("frame",), "int32"),)

    def run_input(self, item):
        print("ranking")
        return {"rank": item.array("line") * 2}
"""


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ("{'rank': item.array('line') + 0.5}", "array 'rank' is float64; declared is int32"),
        ("{'rank': item.array('line').astype(np.int64) << 40}", "array 'rank' has values that do not fit the declared"),
        ("{'rank': item.array('line')[:3]}", "array 'rank' of 'numbers' in .* has 3 rows; there are 12 frames"),
        ("None", "it declares the arrays rank and returned NoneType"),
        ("{'rank': Described(item.array('line'), {'a': np.float32(1)})}", "array 'rank': attribute 'a' cannot be"),
        ("exit(0)", "SystemExit: 0"),
    ],
)
def test_a_stage_of_whole_inputs_returns_what_it_declares(own: Own, made: str, message: str) -> None:
    """Its values were cast by force: 2.5 became 2, and 2 to the power of 40 became 0."""
    own.module("whole", WHOLE.replace('{"rank": item.array("line") * 2}', made))
    run = own.run(own.workflow({"whole": "whole:Whole"}))
    assert run.summary.exit_code == 1
    (underived,) = run.summary.underived
    assert re.match(f"whole: {message}", underived["error"])
    assert "rank" not in run.input("numbers").arrays


def test_a_workflow_of_stages_of_whole_inputs_alone(own: Own) -> None:
    """Its chunks were called done before there were any."""
    own.module("whole", WHOLE)
    own.module("plain", PLAIN)
    path = own.workflow({"whole": "whole:Whole"})
    run = own.run(path)
    assert (run.summary.exit_code, run.summary.chunks) == (0, 3)
    np.testing.assert_array_equal(run.array("numbers", "rank"), np.arange(1, 13) * 2)
    assert own.run(path).summary.chunks == 0
    more = own.run(own.workflow({"whole": "whole:Whole", "square": "plain:Square"}, "more"))
    np.testing.assert_array_equal(more.array("numbers", "square"), np.arange(12.0) ** 2)


def test_debug_raises_what_a_stage_of_whole_inputs_raises(own: Own) -> None:
    own.module("whole", WHOLE.replace('{"rank"', '{1 / 0: 1, "rank"'))
    with pytest.raises(ZeroDivisionError):
        own.run(own.workflow({"whole": "whole:Whole"}), debug=True)


def test_with_json_the_object_is_alone_on_standard_output(own: Own, capfd: pytest.CaptureFixture[str]) -> None:
    own.module("whole", WHOLE.replace("        print", "        import os; os.write(1, b'raw')\n        print"))
    path: Path = own.workflow({"whole": "whole:Whole"})
    words = ["run", str(path), str(own.folder / "numbers.txt"), "--out", str(own.out), "--executor", "inline", "--json"]
    assert main(words) == 0
    shown = capfd.readouterr()
    assert json.loads(shown.out)["exit_code"] == 0
    assert "ranking" in shown.err
    assert "raw" in shown.err

"""A source of one's own, in a module beside the workflow: other items than frames of a film, other arrays of them."""

from __future__ import annotations

import re

import numpy as np
import pytest

import pipeline
from pipeline.engine.events import InputStarted
from pipeline.engine.workflow import load_workflow
from pipeline.errors import InputError, StoreError, WorkflowError
from pipeline.views import status as status_view
from tests.own import PLAIN, SOURCE, Own
from tests.test_engine_events import Heard

SQUARE = {"square": "plain:Square"}


@pytest.fixture(autouse=True)
def modules(own: Own) -> None:
    own.module("plain", PLAIN)


def test_it_runs_and_is_read(own: Own) -> None:
    run = own.run(own.workflow(SQUARE))
    assert run.summary.exit_code == 0
    item = run.input("numbers")
    assert item.complete
    assert item.array("word").tolist() == [str(k) for k in range(12)]
    assert item.array("line").tolist() == list(range(1, 13))
    assert item.array("square").tolist() == [k**2 for k in range(12)]
    assert sorted(item.arrays) == ["decoded", "line", "square", "word"]
    table = run.frames()
    assert list(table.columns) == ["input", "line", "word", "decoded", "square"]
    assert table["word"].tolist() == [str(k) for k in range(12)]
    assert len(run.faces()) == 0
    attributes = item.attributes
    assert attributes["path"] == str(own.folder / "numbers.txt")
    assert (attributes["longest"], attributes["chunk_frames"], attributes["frames"]) == (2, 5, 12)
    assert run.attributes["workflow"]["source"] == {"kind": "own_source:Numbers", "skip": 0, "note": ""}


def test_half_done_it_is_read_and_resumed(own: Own) -> None:
    path = own.workflow(SQUARE)
    with pytest.raises(KeyboardInterrupt):
        own.run(path, listener=Heard(2))
    half = pipeline.open(own.out)
    item = half.input("numbers")
    assert (item.frames_done, item.frames_total, item.done_share) == (10, 12, 10 / 12)
    assert item.array("square").tolist() == [k**2 for k in range(10)]
    assert half.frames()["word"].tolist() == [str(k) for k in range(10)]
    assert "10 of 12 frames" in "\n".join(status_view.lines(status_view.describe(own.out)))
    heard = Heard()
    done = own.run(path, listener=heard)
    assert heard.of(InputStarted) == [InputStarted("numbers", 12, 10)]
    assert (done.summary.chunks, done.summary.chunks_skipped) == (1, 2)
    assert done.array("numbers", "square").tolist() == [k**2 for k in range(12)]
    assert own.run(path).summary.chunks == 0


def test_a_stage_is_added_to_a_finished_store(own: Own) -> None:
    own.run(own.workflow(SQUARE))
    text = PLAIN.replace("Square", "Length").replace('"number"', '"word"').replace('"square"', '"length"')
    own.module("length", text.replace('chunk["word"] ** 2', 'list(map(len, chunk["word"]))'))
    run = own.run(own.workflow({**SQUARE, "length": "length:Length"}))
    assert run.array("numbers", "length").tolist() == [len(str(k)) for k in range(12)]


def test_items_that_cannot_be_read(own: Own) -> None:
    own.numbers(1, "?", 3)
    path = own.workflow(SQUARE)
    run = own.run(path)
    assert run.summary.exit_code == 1
    assert run.array("numbers", "decoded").tolist() == [True, False, True]
    (entry,) = run.summary.unreadable
    assert (entry["frames"], entry["time_range"], entry["error"]) == ([1], "lines 1 to 3", "a line is unreadable")
    assert own.run(path, accept_failed=True).summary.exit_code == 0


def test_nothing_of_a_chunk_can_be_read(own: Own) -> None:
    own.numbers(*range(5), "?", "?")
    path = own.workflow(SQUARE)
    (failure,) = own.run(path).summary.failures
    assert (failure["chunk"], failure["error"]) == (1, "decode: a line is unreadable")
    run = own.run(path, accept_failed=True)
    assert run.summary.exit_code == 0
    assert run.array("numbers", "word").tolist() == ["0", "1", "2", "3", "4", "?", "?"]
    assert run.array("numbers", "decoded").tolist() == [True] * 5 + [False] * 2
    assert np.isnan(run.array("numbers", "square")[5:]).all()
    (failure,) = run.input("numbers").failures
    assert (failure["frames"], failure["time_seconds"]) == ([5, 7], None)


def test_another_content_is_refused(own: Own) -> None:
    path = own.workflow(SQUARE)
    own.run(path)
    own.numbers(*range(13))
    run = own.run(path)
    assert run.summary.exit_code == 2
    assert "is not the input that was stored as 'numbers' (its content changed)" in run.summary.unusable[0]["error"]


def test_options_are_part_of_the_keys(own: Own) -> None:
    own.run(own.workflow(SQUARE))
    with pytest.raises(StoreError, match=r"source\.skip: 0 -> 3"):
        own.run(own.workflow(SQUARE, skip=3))
    run = own.run(own.workflow(SQUARE, skip=3), out=own.folder / "other.zarr")
    assert run.array("numbers", "line").tolist() == list(range(4, 13))
    assert run.array("numbers", "square")[0] == 9


def test_plan(own: Own) -> None:
    planned = pipeline.plan(own.workflow(SQUARE), [str(own.folder / "numbers.txt")], own.out)
    (line,) = planned.inputs
    assert (line.name, line.frames, line.chunk_frames, line.chunks) == ("numbers", 12, 5, 3)
    assert planned.estimated_disk_bytes > 0
    assert not own.out.exists()


def test_its_note_is_said_once(own: Own) -> None:
    from pipeline.engine.events import Note

    heard = Heard()
    other = own.numbers(1, name="other")
    own.run(own.workflow(SQUARE, note="read by hand"), own.folder / "numbers.txt", other, listener=heard)
    assert heard.of(Note) == [Note("read by hand")]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("own_source:Nambers", r"source 'own_source:Nambers': unknown class 'Nambers'; did you mean 'Numbers'\?"),
        ("own_source:InputError", r"InputError is not a subclass of pipeline\.Source"),
        ("nowhere_source:Be", r"source 'nowhere_source:Be': cannot import 'nowhere_source'"),
        ("numbers", r"unknown source 'numbers'.*or your own as 'package\.module:Class'"),
    ],
)
def test_mistakes_in_its_name(own: Own, kind: str, message: str) -> None:
    with pytest.raises(WorkflowError, match=message):
        load_workflow(own.workflow(SQUARE, kind=kind))


def test_mistakes_in_its_options(own: Own) -> None:
    with pytest.raises(WorkflowError, match=r"source: unknown option 'skp'; did you mean 'skip'\?"):
        load_workflow(own.workflow(SQUARE, skp=1))


def test_a_stage_that_needs_what_it_does_not_load(own: Own) -> None:
    own.module("plain", PLAIN.replace('"number"', '"frames_rgb"'))
    with pytest.raises(WorkflowError, match=r"stages\.square: it needs the array 'frames_rgb', which no stage"):
        load_workflow(own.workflow(SQUARE))


def test_an_input_that_it_does_not_find(own: Own) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        own.run(own.workflow(SQUARE), own.folder / "nowhere.txt")
    assert not own.out.exists()


def test_its_arrays_are_those_of_items(own: Own) -> None:
    own.module("own_source", SOURCE.replace('Array("line", ("frame",)', 'Array("line", ("face",)'))
    with pytest.raises(WorkflowError, match=r"source 'numbers': array 'line' lies along 'face'.* one row per 'frame'"):
        load_workflow(own.workflow(SQUARE))


def test_values_that_do_not_fit_their_declaration(own: Own) -> None:
    own.module("own_source", SOURCE.replace('{"line": line,', '{"line": line[1:],'))
    run = own.run(own.workflow(SQUARE))
    assert run.summary.exit_code == 1
    expected = "write: chunk 0 of 'numbers': array 'line' has 4 rows along 'frame' and this chunk has 5; return one row"
    assert run.summary.failures[0]["error"].startswith(expected)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('{"number": numbers}', '{"number": numbers[1:]}', "the source loaded 4 rows of 'number' for 5 items"),
        ("decoded, None if", "decoded[:2], None if", "the source loaded 2 rows of 'decoded' for 5 items"),
    ],
    ids=["array", "decoded"],
)
def test_a_job_loads_one_row_per_item(own: Own, old: str, new: str, message: str) -> None:
    assert old in SOURCE
    own.module("own_source", SOURCE.replace(old, new))
    run = own.run(own.workflow(SQUARE))
    assert run.summary.failures[0]["error"].startswith(f"decode: {message}; return one row per item")


def test_its_code_is_part_of_the_keys(own: Own) -> None:
    """What a source loads decides what stages see: a changed source must not go on in the same store."""
    own.numbers(*range(12))
    own.run(own.workflow(SQUARE))
    own.module("own_source", SOURCE.replace("float(word) if good", "2 * float(word) if good"))
    with pytest.raises(StoreError, match=r"stored with other settings for square \(.*source own_source"):
        own.run(own.workflow(SQUARE))
    assert own.run(own.workflow(SQUARE), fresh=True).summary.exit_code == 0


def test_the_advice_after_a_change_of_its_code_holds_for_all_stages(own: Own) -> None:
    """It named the first stage only, so that the next run was refused for the second."""
    own.module("more", PLAIN.replace("Square", "More").replace('"square"', '"more"'))
    path = own.workflow({**SQUARE, "more": "more:More"})
    own.run(path)
    own.module("own_source", SOURCE.replace("float(word) if good", "2 * float(word) if good"))
    with pytest.raises(StoreError) as caught:
        own.run(path)
    kept = re.findall(r"--keep-stale (\w+)", str(caught.value))
    assert sorted(kept) == ["more", "square"]
    assert own.run(path, keep_stale=kept).summary.exit_code == 0


def test_what_it_raises_is_of_one_input(own: Own) -> None:
    """Whatever `open` raises is the fault of that input, told in one line with the user's own line."""
    good = own.numbers(*range(3))
    bad = good.with_name("bad.txt")
    bad.write_text("1 2 3")
    fails = SOURCE.replace("        self.words = ", '        assert "bad" not in str(path)\n        self.words = ')
    own.module("own_source", fails)
    run = pipeline.run(own.workflow(SQUARE), [bad, good], own.out, executor="inline")
    (unusable,) = run.summary.unusable
    assert re.match(r".*bad.txt cannot be opened: AssertionError:.*own_source.py, line \d+\)$", unusable["error"])
    assert run.summary.items == 3


def test_one_text_is_one_word_and_not_its_letters(own: Own) -> None:
    """`plan` looked for a file by the name of each letter, and so did `set` and `keep_stale` for names."""
    own.module("plain", PLAIN)
    path, numbers = own.workflow(SQUARE), own.folder / "numbers.txt"
    assert pipeline.plan(path, numbers, own.out, overrides="source.skip=2").as_dict()["inputs"][0]["frames"] == 10
    assert pipeline.plan(path, str(numbers), own.out).as_dict()["inputs"][0]["frames"] == 12
    run = own.run(path, set="source.skip=2")
    assert run.summary.items == 10
    (stage,) = SQUARE
    assert own.run(path, set="source.skip=2", keep_stale=stage).summary.exit_code == 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"str")', '"object")', r"source 'own_source:Numbers': array 'word' has dtype 'object'; a store holds"),
        ('loads = ("number",)', 'loads = "number"', r"loads is 'number'; write a tuple of str"),
        ('Array("word"', 'Array("decoded"', r"array 'decoded' is one that jobs return"),
        ("        for path in inputs:", "        yield inputs[0]\n        for path in inputs:", r"find\(\) gave a str"),
        ("        for path in inputs:", "        for path in []:", r"finds no input in .*numbers\.txt; check"),
        ('        line = ', '        raise KeyError("k")\n        line = ', r"Numbers raised KeyError: 'k' \(.*, line"),
        ('return {"line"', 'return None and {"line"', r"line, word, and values\(\) returned NoneType"),
    ],
)
def test_a_mistake_of_the_source_is_one_line(own: Own, old: str, new: str, message: str) -> None:
    """They ended in tracebacks, or in a chunk that is never done; a source that found nothing, with exit code 0."""
    assert old in SOURCE
    own.module("plain", PLAIN)
    own.module("own_source", SOURCE.replace(old, new, 1))
    with pytest.raises((WorkflowError, InputError), match=message) as caught:
        own.run(own.workflow(SQUARE))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("return hashlib.sha256(Path(ref.path).read_bytes()).hexdigest()", "return None", "fingerprint() returned"),
        ("item_bytes = 8", "item_bytes = None", "item_bytes is None; set the bytes of one loaded item"),
        ('{"longest": max(map(len, self.words))}', '{"longest": {1}}', "{1} (set) cannot be stored as JSON"),
        ("return len(self.words)", "return int('x')", "ValueError: invalid literal"),
    ],
)
def test_a_mistake_over_one_input_spares_the_others(own: Own, old: str, new: str, message: str) -> None:
    """A fingerprint that is no text left a store that no run could open again."""
    assert old in SOURCE
    own.module("plain", PLAIN)
    own.module("own_source", SOURCE.replace(old, new, 1))
    run = own.run(own.workflow(SQUARE))
    assert message in run.summary.unusable[0]["error"]
    assert run.summary.exit_code == 2
    own.module("own_source", SOURCE)
    assert own.run(own.workflow(SQUARE)).summary.exit_code == 0


def test_what_is_decoded_may_be_said_in_whole_numbers(own: Own) -> None:
    """~1 is -2: each item counted as one that could not be read."""
    own.module("plain", PLAIN)
    own.module("own_source", SOURCE.replace('"number": numbers}, decoded,', '"number": numbers}, decoded.astype(int),'))
    run = own.run(own.workflow(SQUARE))
    assert (run.summary.exit_code, run.frames()["decoded"].all()) == (0, True)


LINES = PLAIN.replace("square", "twice").replace('"number"', '"line"').replace("float64", "int64")


@pytest.mark.parametrize("scope", ["chunk", "input"])
def test_what_can_be_read_is_known_from_the_first_run_on(own: Own, scope: str) -> None:
    """A first stage that needs no items left `decoded` true for all of them, and what the source finds empty.

    Later stages then placed boxes of shrunk pictures by a scale of NaN.
    """
    own.module("plain", PLAIN)
    whole = LINES.replace("    needs", '    scope = "input"\n    needs').replace("def run(", "def run_input(")
    own.module("lines", LINES if scope == "chunk" else whole.replace('chunk["line"]', 'chunk.array("line")'))
    numbers = own.numbers(1, "?", 3, 4, 5, 6, 7)
    first = own.run(own.workflow({"twice": "lines:Square"}), numbers)
    assert (first.summary.exit_code, first.summary.unreadable_items) == (1, 1)
    assert first.frames()["decoded"].tolist() == [True, False, *[True] * 5]
    path = own.workflow({"twice": "lines:Square", "square": "plain:Square"}, "both")
    both, at_once = own.run(path, numbers), own.run(path, numbers, out=own.folder / "other.zarr")
    for name in ("decoded", "twice", "square", "line", "word"):
        np.testing.assert_array_equal(both.array("numbers", name), at_once.array("numbers", name))


def test_a_source_may_have_no_facts(own: Own) -> None:
    own.module("plain", PLAIN)
    own.module("own_source", SOURCE.replace("        self.facts = {", "        self.others = {"))
    assert own.run(own.workflow(SQUARE)).summary.exit_code == 0


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (3, r"source 'own_source:Numbers', 'numbers': time_seconds of item 4 is 4, after 900; sort the items by time"),
        (4, r"time_seconds of item 5 is 5, after 900; sort"),
    ],
    ids=["within a chunk", "from one chunk to the next"],
)
def test_its_times_may_not_fall(own: Own, at: int, message: str) -> None:
    """A person was on screen for a negative time."""
    timed = SOURCE.replace('Array("word",', 'Array("time_seconds", ("frame",), "float64"), Array("word",')
    timed = timed.replace('{"line": line,', '{"time_seconds": np.where(line == %d, 900.0, line - 1), "line": line,')
    own.module("own_source", timed % (at + 1))
    with pytest.raises(WorkflowError, match=message):
        own.run(own.workflow(SQUARE))
    own.module("own_source", timed % 0)
    run = own.run(own.workflow(SQUARE), fresh=True)
    assert run.array("numbers", "time_seconds").tolist() == list(range(12))

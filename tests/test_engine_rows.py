"""Rows by axis: any stage may make rows of its own, and nothing speaks of faces where there are none."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import xarray

import pipeline
from pipeline.engine.workflow import load_workflow
from pipeline.errors import WorkflowError
from pipeline.views import plan as plan_view
from pipeline.views import status as status_view
from pipeline.views import summary as summary_view
from pipeline.views.progress import PlainLines
from tests import own as texts
from tests.own import Own

N_OBJECTS = sum(range(12))
N_POINTS = N_OBJECTS + 12


@pytest.fixture(autouse=True)
def modules(own: Own) -> None:
    own.module("things", texts.OBJECTS)
    own.module("plain", texts.PLAIN)


def check_objects(run: pipeline.faces.table.FacesRun) -> None:
    item = run.input("numbers")
    counts, frames = np.arange(12), np.repeat(np.arange(12), np.arange(12))
    np.testing.assert_array_equal(item.array("n_objects"), counts)
    np.testing.assert_array_equal(item.array("how_many"), counts + 1)
    np.testing.assert_array_equal(item.array("size"), frames * 10.0)
    np.testing.assert_array_equal(item.array("object_frame"), frames)
    points = np.repeat(np.arange(12), counts + 1)
    np.testing.assert_array_equal(item.array("keypoint_frame"), points)
    np.testing.assert_array_equal(item.array("at")[:, 1], points)
    assert {axis.name: axis.count for axis in item.axes} == {"object": "n_objects", "keypoint": "how_many"}


def test_two_axes_of_one_stage(own: Own) -> None:
    run = own.run(own.workflow({"objects": "things:Objects"}))
    assert run.summary.exit_code == 0
    check_objects(run)
    part = run.input("numbers").read_frames(["size", "at", "line"], 3, 7)
    assert (len(part["size"]), len(part["at"]), part["line"].tolist()) == (3 + 4 + 5 + 6, 22, [4, 5, 6, 7])
    data = xarray.open_zarr(str(own.out), group="numbers", chunks={}).load()
    assert (data["size"].dims, data["at"].dims) == (("object",), ("keypoint", "side"))
    assert data["how_many"].attrs["sample_dimension"] == "keypoint"
    table = run.frames()
    assert list(table.columns) == ["input", "line", "word", "decoded", "n_objects", "how_many"]


@pytest.mark.parametrize("together", [True, False], ids=["at once", "added to a finished store"])
def test_a_later_stage_gets_the_rows_of_an_axis(own: Own, together: bool) -> None:
    objects = {"objects": "things:Objects"}
    if not together:
        own.run(own.workflow(objects))
    before = {path: path.stat().st_mtime_ns for path in (own.out / "numbers").glob("*/c/**/*") if path.is_file()}
    run = own.run(own.workflow({**objects, "doubled": "things:Doubled", "points": "things:Points"}))
    assert run.summary.exit_code == 0, run.summary.failures
    check_objects(run)
    item = run.input("numbers")
    np.testing.assert_array_equal(item.array("doubled"), item.array("size") * 2)
    np.testing.assert_array_equal(item.array("object_line"), item.array("object_frame") + 1)
    np.testing.assert_array_equal(item.array("sum"), item.array("at").sum(axis=1))
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert (len(before) > 0) is not together
    # The rows of a chunk are counted also if the stage that makes them has no part in the run.
    assert run.summary.rows == {"object": N_OBJECTS, "keypoint": N_POINTS}


def shown(own: Own, run: pipeline.faces.table.FacesRun, path: Path, capfd: pytest.CaptureFixture[str]) -> str:
    """All that a person sees of a run, its plan and its store."""
    planned = pipeline.plan(path, [str(own.folder / "numbers.txt")], own.folder / "other.zarr")
    later = pipeline.plan(path, [str(own.folder / "numbers.txt")], own.out)
    lines = [
        capfd.readouterr().err,
        *summary_view.lines(run.summary),
        *plan_view.lines(planned),
        *plan_view.lines(later),
        *status_view.lines(status_view.describe(own.out)),
        repr(run),
    ]
    return "\n".join(lines)


def test_rows_are_counted_in_their_own_words(own: Own, capfd: pytest.CaptureFixture[str]) -> None:
    path = own.workflow({"objects": "things:Objects"})
    run = own.run(path, listener=PlainLines(0))
    text = shown(own, run, path, capfd)
    assert summary_view.lines(run.summary)[0].startswith(f"12 frames, {N_OBJECTS} objects, {N_POINTS} keypoints in ")
    assert "numbers: 5/12 frames, 10 objects, 15 keypoints" in text
    assert f"numbers: 12/12 frames, {N_OBJECTS} objects, {N_POINTS} keypoints" in text
    assert "face" not in text
    assert (run.summary.frames, run.summary.objects, run.summary.keypoints) == (12, N_OBJECTS, N_POINTS)
    as_json = run.summary.as_dict()
    assert (as_json["frames"], as_json["objects"], as_json["keypoints"]) == (12, N_OBJECTS, N_POINTS)
    with pytest.raises(AttributeError, match="faces"):
        _ = run.summary.faces


def test_without_rows_nothing_is_said_of_any(own: Own, capfd: pytest.CaptureFixture[str]) -> None:
    path = own.workflow({"square": "plain:Square"})
    run = own.run(path, listener=PlainLines(0))
    text = shown(own, run, path, capfd)
    assert re.match(r"12 frames in ", summary_view.lines(run.summary)[0])
    assert "numbers: 12/12 frames, " in text
    assert "face" not in text
    assert "object" not in text
    assert not {"faces", "objects"} & run.summary.as_dict().keys()


def test_rows_that_a_run_did_not_count_are_not_called_none(own: Own) -> None:
    """A stage of frames that is added later looks at no object."""
    objects = {"objects": "things:Objects"}
    own.run(own.workflow(objects))
    speed = own.run(own.workflow(objects)).attributes["speed"]["rows_per_frame"]
    run = own.run(own.workflow({**objects, "square": "plain:Square"}))
    assert re.match(r"12 frames in ", summary_view.lines(run.summary)[0])
    assert run.summary.as_dict()["objects"] == 0
    assert run.attributes["speed"]["rows_per_frame"] == speed == {"object": N_OBJECTS / 12, "keypoint": N_POINTS / 12}


def test_one_of_a_kind_is_singular(own: Own) -> None:
    own.numbers(1)
    run = own.run(own.workflow({"objects": "things:Objects"}))
    assert summary_view.lines(run.summary)[0].startswith("1 frame, 1 object, 2 keypoints in ")


WRONG_MODULE = """
import numpy as np
from things import Objects


class Wrong(Objects):
    def run(self, chunk):
        n = chunk["number"].astype("int32")
        return {{**super().run(chunk), {change}}}
"""
WRONG = {
    "rows": ('"size": np.zeros(3)', "array 'size' has 3 rows along 'object' and this chunk has 10; return one row per"),
    "shape": ('"size": np.zeros((10, 2))', r"array 'size' has shape \(10, 2\); declared is \(n\)"),
    "dtype": ('"size": np.array(["a"] * 10)', "array 'size' is <U1; declared is float32"),
    "items": ('"n_objects": n[1:]', r"array 'n_objects' has 4 rows along 'frame' and this chunk has 5; return one row"),
    "below 0": ('"n_objects": n - 1', "array 'n_objects' counts rows and has a value below 0"),
    "other names": ('"sizes": 1', "declares .* but returned .*sizes"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_wrong_rows_are_one_line_with_stage_and_array(own: Own, change: str, message: str) -> None:
    own.module("wrong", WRONG_MODULE.format(change=change))
    own.numbers(*range(5))
    run = own.run(own.workflow({"objects": "wrong:Wrong"}))
    (failure,) = run.summary.failures
    assert re.search(f"^objects: stage 'objects'.*{message}", failure["error"]), failure["error"]
    assert "\n" not in failure["error"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'axes = (Axis("object"), Axis("keypoint", count="how_many"))', "",
            r"stages\.objects: array 'at' has one row per 'keypoint', and no stage makes such rows; "
            r'declare axes = \(Axis\("keypoint"\),\) and return \'n_keypoints\'',
        ),
        (
            '("frame",), "int32"), Array("size"', '("object",), "int32"), Array("size"',
            r"stages\.objects: axis 'object' needs its count array 'n_objects', whole numbers along 'frame', among",
        ),
        ('needs = ("number",)', 'needs = ("number",)\n    item = "pair"', r"it runs on pairs and .* gives frames"),
        ('Array("size", ("object",)', 'Array("word", ("object",)', r"output array 'word' is a name of the store's own"),
        ('Array("size", ("object",)', 'Array("a/b", ("object",)', r"output array 'a/b' is a name of the store's own"),
    ],
    ids=["unknown axis", "count of another axis", "another item", "array of the source", "no name"],
)  # fmt: skip
def test_mistakes_are_refused_at_load(own: Own, old: str, new: str, message: str) -> None:
    assert old in texts.OBJECTS
    own.module("things", texts.OBJECTS.replace(old, new, 1))
    with pytest.raises(WorkflowError, match=message) as caught:
        load_workflow(own.workflow({"objects": "things:Objects"}))
    assert "\n" not in str(caught.value)


def test_an_axis_that_two_stages_declare_differently(own: Own) -> None:
    own.module(
        "other",
        "from pipeline import Array, Axis, Stage\n\n\nclass Other(Stage):\n"
        '    axes = (Axis("object", count="many"),)\n    outputs = (Array("many", ("frame",), "int32"),)\n',
    )
    with pytest.raises(WorkflowError, match=r"stages\.two: axis 'object' is declared in two ways: .*n_objects"):
        load_workflow(own.workflow({"one": "things:Objects", "two": "other:Other"}))


def test_the_usual_count_implies_its_axis(own: Own) -> None:
    """As stages of faces did before axes were declared."""
    text = texts.OBJECTS.replace("axes = (", "axes = () and (").replace("how_many", "n_keypoints")
    own.module("things", text)
    run = own.run(own.workflow({"objects": "things:Objects", "doubled": "things:Doubled"}))
    assert run.summary.rows == {"object": N_OBJECTS, "keypoint": N_POINTS}
    assert len(run.array("numbers", "doubled")) == N_OBJECTS

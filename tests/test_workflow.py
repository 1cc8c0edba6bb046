"""Workflow files: what is read from them, and one clear line for everything that is wrong with one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import pipeline
from pipeline.engine.workflow import as_override, changed_values, load_workflow
from pipeline.errors import WorkflowError
from pipeline.views.workflows import describe, lines

GOOD = """
source: {kind: video, every: 5}
stages:
  detect: {use: detect, model: mtcnn, min_face: 20}
  embed: {use: embed, model: Dlib, after: detect}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "workflow.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["faces.yaml", "find.yaml", "sharp_faces.yaml", "analyze.yaml"])
def test_shipped_workflows_are_valid(workflows: Path, name: str) -> None:
    workflow = load_workflow(workflows / name)
    assert workflow.stages[0].name == "detect"
    assert "box" in workflow.specs()


def test_defaults_are_filled_in(tmp_path: Path) -> None:
    resolved = load_workflow(written(tmp_path, "stages: {detect: {}}")).resolved()
    assert resolved["source"]["kind"] == "video"
    assert resolved["source"]["every"] == 5
    assert resolved["stages"]["detect"] == {
        "use": "detect",
        "after": [],
        "model": "mtcnn",
        "min_face": 20,
        "align": "native",
        "threshold": None,
        "max_faces": None,
        "rotate": True,
        "expand_percentage": 0,
        "whole_frame": False,
        "turned": False,
        "tiles": None,
        "size": None,
        "look_again": False,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("model: yunnet", r"stages\.detect: unknown detector 'yunnet'; did you mean 'yunet'\?"),
        ("whole_frame: true", r"stages\.detect: option whole_frame needs align: deepface"),
        ("min_face: 0", r"stages\.detect\.min_face: input should be greater than or equal to 10 \(got 0\)"),
        ("max_faces: 0", r"stages\.detect\.max_faces: input should be greater than or equal to 1 \(got 0\)"),
        ("align: deepfce", r"stages\.detect\.align: input should be 'native' or 'deepface'"),
    ],
)
def test_detectors_and_their_options_are_checked(tmp_path: Path, options: str, message: str) -> None:
    text = f"stages: {{detect: {{{options}}}}}"
    with pytest.raises(WorkflowError, match=message):
        load_workflow(written(tmp_path, text))


def test_rank_is_there_with_deepfaces_alignment(tmp_path: Path) -> None:
    for align, has in (("native", False), ("deepface", True)):
        assert ("rank" in load_workflow(written(tmp_path, f"stages: {{detect: {{align: {align}}}}}")).specs()) is has


def test_stages_come_after_those_they_need(tmp_path: Path) -> None:
    text = "stages:\n  embed: {use: embed}\n  detect: {use: detect}\n"
    workflow = load_workflow(written(tmp_path, text))
    assert [node.name for node in workflow.stages] == ["detect", "embed"]
    assert workflow.node("embed").after == ("detect",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages: {detcet: {}}", "unknown stage 'detcet'; did you mean 'detect'?"),
        ("stages: {detect: {use: Detect}}", "did you mean 'detect'?"),
        ("sorce: {}\nstages: {detect: {}}", "unknown section 'sorce'; did you mean 'source'?"),
        ("source: {evry: 3}\nstages: {detect: {}}", "source: unknown option 'evry'; did you mean 'every'?"),
        ("stages: {detect: {min_fase: 3}}", "stages.detect: unknown option 'min_fase'; did you mean 'min_face'?"),
        ("stages: {detect: {min_face: many}}", r"stages.detect.min_face: .*valid integer.*'many'"),
        ("stages: {detect: {min_face: 2}}", r"stages.detect.min_face: .*greater than or equal to 10.*2"),
        ("source: {every: 0}\nstages: {detect: {}}", r"source.every: .*0"),
        ("source: {kind: vidio}\nstages: {detect: {}}", "unknown source 'vidio'; did you mean 'video'?"),
        (
            "stages: {detect: {}, embed: {after: detekt}}",
            "stages.embed.after: unknown stage 'detekt'; did you mean 'detect'?",
        ),
        ("stages: {embed: {}}", "needs the array 'n_faces', which no stage of this workflow makes"),
        ("stages: {a: {use: detect}, b: {use: detect}}", "both make array 'n_faces'"),
        ("stages: {detect: {after: embed}, embed: {}}", "wait for each other in a circle"),
        ("stages: {x: {use: 'nowhere.to:Be'}}", "cannot import 'nowhere.to'"),
        ("stages: {x: {use: 'json:JSONEncoder'}}", "not a subclass of pipeline.Stage"),
        ("stages: {x: {use: 'pipeline.faces.stages.detect:Detcet'}}", "did you mean 'Detect'?"),
        ("stages: {detect: {}, detect: {}}", "workflow.yaml:1: not valid YAML: key 'detect' is written twice"),
        ("stages: [", "workflow.yaml:1: not valid YAML"),
        ("stages: {detect: {}}\n# \x1b", r"workflow.yaml:2: not valid YAML: character '\\x1b' is not allowed"),
        ("stages:\ndetect: {}", "stages: nothing is below it; indent the lines that belong to it"),
        ("source: video\nstages: {detect: {}}", "source: this needs names with values, .*got 'video'"),
        ("stages: {detect: {}, embed: {after: 5}}", r"stages.embed.after: this needs a list, as \[a, b\] \(got 5\)"),
        ("stages: {on: {use: detect}}", "stages: a name is text, not True, .*; put it in quotes"),
        ("just text", "has the sections 'source' and 'stages'"),
        ("stages: {}", "stages: there is no stage; add one"),
        ("source: {}", "stages: this is missing"),
        ("stages:\n  ? [a, b]\n  : {}", "workflow.yaml:2: not valid YAML: found unhashable key"),
        ("stages: {detect: {min_face: !!int many}}", "workflow.yaml:1: not valid YAML: 'many' is not of type int"),
        ("source: {start: 2026-13-45}\nstages: {detect: {}}", "'2026-13-45' is not of type timestamp"),
        ("stages: " + "[" * 2000, "not valid YAML: lists or mappings lie too deep"),
        ("source: {kind: [video]}\nstages: {detect: {}}", "unknown source .* did you mean 'video'?"),
        ("source: {kind: }\nstages: {detect: {}}", "unknown source 'None'"),
        ("source: {every: 1" + "0" * 30 + "}\nstages: {detect: {}}", "source.every: .*less than or equal to"),
        ("stages: {x: {use: ':'}}", "write a stage of your own as 'package.module:Class'"),
        ("stages: {x: {use: '..:Be'}}", "write a stage of your own as 'package.module:Class'"),
        ("stages: {detect: {min_face: 20, options: {min_face: 40}}}", "stages.detect: min_face is written twice"),
        ("stages: {detect: {model: [" + "[x, x], " * 999 + "]}}", r"stages.detect.model: .{0,200}\.\.\.\]\)$"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(WorkflowError, match=message) as caught:
        load_workflow(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_module_that_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [*sys.path])
    (tmp_path / "stage_with_a_mistake.py").write_text("\n1 / 0\n")
    path = written(tmp_path, "stages: {x: {use: 'stage_with_a_mistake:Mine'}}")
    with pytest.raises(WorkflowError, match=r"ends in ZeroDivisionError.*stage_with_a_mistake\.py, line 2\)"):
        load_workflow(path)


def test_parts_can_be_shared(tmp_path: Path) -> None:
    """Merge keys, as YAML has them; what is written beside one is no second writing of it."""
    text = "stages: {detect: {min_face: 40}, embed: {<<: {after: detect, per: face}, per: track}}"
    workflow = load_workflow(written(tmp_path, text))
    assert workflow.node("embed").after == ("detect",)
    assert workflow.node("embed").stage.options.per == "track"


def test_unknown_model_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(WorkflowError, match=r"stages\.embed: unknown embedder 'dlip'; did you mean 'Dlib'"):
        load_workflow(written(tmp_path, "stages: {detect: {}, embed: {model: dlip}}"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xd8\xff", "it is not text in UTF-8; save it as UTF-8, or put the workflow first"),
        (b"#" * 10_000_001, "it is larger than 10 MB; put the workflow first"),
    ],
)
def test_a_film_in_place_of_a_workflow_is_named_and_not_read_whole(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(WorkflowError, match=f"clip.mp4 is not a workflow: {message}"):
        load_workflow(path)


def test_values_of_options_are_shown_as_a_file_takes_them(tmp_path: Path) -> None:
    section = describe(str(written(tmp_path, "stages: {detect: {turned: true}, analyze: {}}")))["sections"]
    shown = lines({"sections": section})
    assert any(line.startswith("    turned: true (default false)  ") for line in shown)
    assert any(line.startswith("    max_faces: null  ") for line in shown)
    assert any(line.startswith("    attributes: [age, gender, emotion, race]  ") for line in shown)


def test_a_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    written(tmp_path, GOOD)
    with pytest.raises(WorkflowError, match=r"did you mean '.*workflow\.yaml'"):
        load_workflow(tmp_path / "workflw.yaml")


def test_overrides(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    workflow = load_workflow(path, ["detect.min_face=40", "source.every=3"])
    assert workflow.node("detect").stage.options.min_face == 40
    assert workflow.resolved()["source"]["every"] == 3


def test_an_override_takes_the_place_of_the_option_wherever_it_is_written(tmp_path: Path) -> None:
    for written_as in ("min_face: 20, options: {}", "min_face: 20", "options: {min_face: 20}"):
        path = written(tmp_path, f"stages: {{detect: {{{written_as}}}}}")
        assert load_workflow(path, ["detect.min_face=40"]).node("detect").stage.options.min_face == 40


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"source.decoder": "pyav # or not"}, r"source\.decoder: .*'pyav # or not'"),
        ({"source.decoder": Path("a: b/\U0001f600")}, r"source\.decoder: .*'a: b/\U0001f600'"),
        ({"source.start": None, "source.stop": "soon"}, r"source\.stop: 'soon' is not a time"),
    ],
)
def test_values_from_python_stay_what_they_are(tmp_path: Path, values: dict[str, object], message: str) -> None:
    with pytest.raises(WorkflowError, match=message):
        pipeline.run(written(tmp_path, GOOD), "clip.mp4", tmp_path / "out.zarr", set=values)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("detect.min_face", "write it as stage.option=value"),
        ("detekt.min_face=3", "unknown section 'detekt'; did you mean 'detect'?"),
        ("detect.min_fase=30", "did you mean 'min_face'?"),
        ("detect.min_face=[", "is not a YAML value"),
        ("detect.min_face=2026-13-45", "is not a YAML value"),
    ],
)
def test_wrong_overrides(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(WorkflowError, match=message):
        load_workflow(written(tmp_path, GOOD), [override])


def test_keys_change_with_options_and_upstream_only(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    base = load_workflow(path).keys()
    assert load_workflow(path).keys() == base
    other = load_workflow(path, ["detect.min_face=40"]).keys()
    assert other["detect"] != base["detect"]
    assert other["embed"] != base["embed"]
    sampled = load_workflow(path, ["source.every=3"]).keys()
    assert sampled["detect"] != base["detect"]
    assert load_workflow(path, ["source.decoder=pyav"]).keys() == base


def test_differences_have_their_path() -> None:
    old = {"source": {"every": 5}, "stages": {"detect": {"min_face": 20, "model": "mtcnn"}}}
    new = {"source": {"every": 3}, "stages": {"detect": {"min_face": 20, "model": "yunet"}}}
    assert list(changed_values(old, new)) == [("source.every", 5, 3), ("stages.detect.model", "mtcnn", "yunet")]


VALUES = ["mtcnn", "0.5", "true", "a: b", None, 3, 0.25, True, [1, 2], {"a": 1}, "", "[x", " x"]


@pytest.mark.parametrize("value", VALUES)
def test_a_value_comes_back_from_its_override(value: Any) -> None:
    text = as_override("detect.model", value)
    assert yaml.safe_load(text.partition("=")[2]) == value

"""Workflows that come with the package: run by name, listed, copied to be edited."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.engine.shipped import shipped_folder, shipped_names, shipped_workflows
from pipeline.engine.workflow import load_workflow
from pipeline.errors import WorkflowError
from tests.clips import write_clip


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder that is not the repository."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_workflow_of_the_repository_is_shipped_and_described(workflows: Path) -> None:
    assert shipped_names() == sorted(path.stem for path in workflows.glob("*.yaml"))
    assert len(shipped_names()) >= 5
    assert [shipped.name for shipped in shipped_workflows() if len(shipped.about) < 20] == []


@pytest.mark.parametrize("name", ["analyze", "faces", "find", "objects", "people", "sharp_faces"])
def test_a_name_is_the_same_workflow_as_its_file(elsewhere: Path, workflows: Path, name: str) -> None:
    by_name, by_path = load_workflow(name), load_workflow(workflows / f"{name}.yaml")
    assert by_name.name == by_path.name == name
    assert by_name.resolved() == by_path.resolved()
    if name not in ("analyze", "find"):  # their keys need weights that are downloaded, and a gallery
        assert by_name.keys() == by_path.keys()


def test_a_run_by_name_is_resumed_by_path(elsewhere: Path, workflows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_clip(elsewhere / "clip.mp4", n_frames=60)
    for workflow, frames in (("faces", 12), (str(workflows / "faces.yaml"), 0), ("faces", 0)):
        assert main(["run", workflow, "clip.mp4", "--out", "x.zarr", "--executor", "inline", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["frames"] == frames
    assert main(["plan", "faces", "clip.mp4", "--out", "x.zarr", "--json"]) == 0
    (planned,) = json.loads(capsys.readouterr().out)["inputs"]
    assert planned["chunks_done"] == planned["chunks"] > 0


def test_a_file_wins_over_a_name(elsewhere: Path) -> None:
    (elsewhere / "faces").write_text("stages: {detect: {min_face: 77}}")
    (elsewhere / "find.yaml").write_text("stages: {detect: {min_face: 78}}")
    assert load_workflow("faces").node("detect").stage.options.min_face == 77
    assert load_workflow("find.yaml").node("detect").stage.options.min_face == 78
    (elsewhere / "people").mkdir()  # a folder is not a workflow
    assert load_workflow("people").node("track").use == "track"


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("fases", r"unknown workflow 'fases'; did you mean 'faces'\? valid: analyze, augment, .*; or give the path"),
        ("qqq", r"unknown workflow 'qqq'; valid: analyze, augment, faces"),
        ("workflows/faces.yaml", "unknown workflow file 'workflows/faces.yaml'; .*goes by its name: faces"),
        ("fases.yaml", r"unknown workflow file 'fases.yaml'; valid: none$"),
    ],
)
def test_an_unknown_workflow_is_one_line(
    elsewhere: Path, named: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(WorkflowError, match=message):
        load_workflow(named)
    assert main(["run", named, "clip.mp4", "--out", "x.zarr"]) == 2
    shown = capfd.readouterr().err
    assert shown.startswith("reelgraph: ")
    assert len(shown.splitlines()) == 1


def test_workflows_lists_what_is_shipped(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["workflows", "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in described["workflows"]] == shipped_names()
    assert {"detect", "embed"} <= {section["name"] for section in described["sections"]}
    assert main(["workflows"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:1] == ["sharp_faces"] for line in lines)
    assert "detect (detect)" in lines
    assert main(["workflows", "faces"]) == 0
    assert "min_face: 20" in capsys.readouterr().out


def test_models_of_a_workflow_by_name(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "faces", "--json"]) == 0
    assert [model["name"] for model in json.loads(capsys.readouterr().out)["models"]] == ["mtcnn", "Dlib", "dlib"]


def test_init_copies_a_workflow_with_its_module(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "sharp_faces", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["files"] == ["sharp_faces.yaml", "sharpness.py"]
    assert said["command"].startswith("reelgraph run sharp_faces.yaml ")
    for name in said["files"]:
        assert (elsewhere / name).read_bytes() == (shipped_folder() / name).read_bytes()
    assert sorted(path.name for path in elsewhere.iterdir()) == said["files"]
    assert load_workflow("sharp_faces.yaml").folder == elsewhere.resolve()


def test_init_refuses_to_replace_a_file(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = elsewhere / "sharp_faces.yaml"
    mine.write_text("mine")
    assert main(["init", "sharp_faces"]) == 2
    shown = capsys.readouterr().err
    assert "sharp_faces.yaml exists already; use --force to replace it" in shown
    assert len(shown.splitlines()) == 1
    assert mine.read_text() == "mine"
    assert not (elsewhere / "sharpness.py").exists()  # nothing of it is written then
    assert main(["init", "sharp_faces", "--force"]) == 0
    assert mine.read_bytes() == (shipped_folder() / "sharp_faces.yaml").read_bytes()


def test_init_keeps_a_module_that_was_edited(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "sharp_faces"]) == 0
    assert main(["init", "sharp_faces", "--to", "again.yaml"]) == 0  # the same module serves both
    (elsewhere / "sharpness.py").write_text("edited = True\n")
    capsys.readouterr()
    assert main(["init", "sharp_faces", "--to", "third.yaml"]) == 2
    assert "sharpness.py exists already" in capsys.readouterr().err
    assert (elsewhere / "sharpness.py").read_text() == "edited = True\n"
    assert not (elsewhere / "third.yaml").exists()


def test_init_to_a_place_of_its_own(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "faces", "--to", "my flows/mine.yaml"]) == 0
    assert "reelgraph run 'my flows/mine.yaml' clip.mp4" in capsys.readouterr().out
    assert load_workflow("my flows/mine.yaml").keys() == load_workflow("faces").keys()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fces"], "unknown workflow 'fces'; did you mean 'faces'?"),
        (["../pyproject"], "unknown workflow '../pyproject'"),
        (["faces", "--to", "."], "--to . is a folder; name a file: --to faces.yaml"),
        (["faces", "--to", "mine"], "--to mine: end the name of a workflow file in .yaml: --to mine.yaml"),
        (["faces", "--to", "file/mine.yaml"], "the copy file/mine.yaml cannot be written"),
    ],
)
def test_init_says_what_is_wrong(
    elsewhere: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (elsewhere / "file").touch()
    assert main(["init", *words]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert len(shown.splitlines()) == 1

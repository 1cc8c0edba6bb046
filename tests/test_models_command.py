"""`reelgraph models`: what it lists, which words it takes, and its exit codes. Downloads: models/test_download.py."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from pipeline.faces.models import zoo
from pipeline.images.models import efficientnet_lite
from pipeline.models.catalogue import cards
from pipeline.models.weights import package_file, weights_files
from pipeline.pairs import models as pairs
from pipeline.views import models as view
from pipeline.views.doctor import examine

FACES = """
source: {kind: video}
stages:
  detect: {use: detect, model: mtcnn}
  embed: {use: embed, model: ArcFace, after: detect}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of weights."""
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path))
    path = tmp_path / ".deepface" / "weights"
    path.mkdir(parents=True)
    return path


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, dict[str, Any]]:
    assert main(["models", *words, "--json"]) == 0
    return {model["name"]: model for model in json.loads(capsys.readouterr().out)["models"]}


def test_every_model_is_listed_with_its_facts(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    models = listed(capsys)
    assert list(models) == [*zoo.CARDS, *efficientnet_lite.CARDS, *pairs.CARDS]
    arcface = models["ArcFace"]
    assert (arcface["dimension"], arcface["input_size"], arcface["batched"]) == (512, [112, 112], True)
    assert arcface["files"][0]["path"] == str(folder / "arcface_weights.onnx")
    assert not arcface["present"]
    assert arcface["files"][0]["remedy"] == "reelgraph models fetch ArcFace"
    assert models["Race"]["classes"] == list(zoo.RACES)
    assert models["mtcnn"]["present"]
    assert models["mtcnn"]["size_bytes"] > 1_000_000
    assert models["ssd"]["one_at_a_time"]
    assert not models["ssd"]["batched"]


def test_what_lies_in_the_folder_is_present(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "arcface_weights.onnx").write_bytes(b"x" * 1000)
    arcface = listed(capsys, "ArcFace")["ArcFace"]
    assert (arcface["present"], arcface["size_bytes"]) == (True, 1000)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["detectors"], zoo.names("detector")),
        (["recogniser"], zoo.names("recogniser")),
        (["Attributes", "spoofing"], (*zoo.names("attribute"), *zoo.names("spoofing"))),
        (["SFace", "Dlib", "SFace"], ("SFace", "Dlib")),
    ],
    ids=["kind", "one kind", "kinds", "names"],
)
def test_filters(capsys: pytest.CaptureFixture[str], words: list[str], names: tuple[str, ...]) -> None:
    assert tuple(listed(capsys, *words)) == names


def test_the_table_fits_and_names_every_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    first_words = {line.split()[0] for line in lines if line.split()}
    assert first_words >= {*zoo.CARDS, *(heading.split()[0] for heading in view.HEADINGS.values())}
    assert max(map(len, lines[:-3])) <= 120


@pytest.mark.parametrize("columns", [80, 100, 120])
def test_terminals_of_other_widths_show_licences_too(columns: int) -> None:
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm"}
    code = (
        "import sys; sys.stdout.isatty = lambda: True; from pipeline.cli import main; main(['models', 'recognisers'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    lines = re.sub("\x1b\\[[0-9;]*m", "", done.stdout).splitlines()
    assert max(map(len, lines[:-3])) <= columns
    for card in (zoo.card("VGG-Face"), zoo.card("SFace")):
        line = next(line for line in lines if line.startswith(card.name))
        assert card.licence.split()[0] in line


def test_bars_show_a_download_that_starts_over_in_one_row(capsys: pytest.CaptureFixture[str]) -> None:
    with view.Downloads(terminal=True) as downloads:
        downloads.started("net.onnx", "http://a", 0, 1000)
        downloads.advanced("net.onnx", 400)
        downloads.started("net.onnx", "http://b", 0, 2000)
        downloads.advanced("net.onnx", 2000)
        downloads.finished("net.onnx", Path("net.onnx"), 2000)
        (task,) = downloads.bars.tasks
    assert (task.completed, task.total) == (2000, 2000)
    assert "net.onnx: 2 kB" in capsys.readouterr().err


def test_downloads_are_lines_where_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with view.Downloads(terminal=False, interval_seconds=0.0) as downloads:
        downloads.started("net.onnx", "http://a", 500, 2000)
        downloads.advanced("net.onnx", 500)
        downloads.started("net.onnx", "http://b", 0, 0)  # a server that does not say how much there is
        downloads.advanced("net.onnx", 1500)
        downloads.interval = 10.0
        downloads.started("net.onnx", "http://c", 0, 2000)
        downloads.advanced("net.onnx", 500)
        downloads.finished("net.onnx", Path("net.onnx"), 2000)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "net.onnx: 2 kB from http://a, 0 kB are here",
        "net.onnx: 1 kB of 2 kB",
        "net.onnx: ? from http://b",
        "net.onnx: 2 kB from http://c",
        "net.onnx: 2 kB at net.onnx",
    ]


def test_one_model_in_full(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert main(["models", "yolov8n"]) == 0
    text = capsys.readouterr().out
    card = zoo.card("yolov8n")
    for fact in (card.licence, card.licence_source, card.one_at_a_time, card.weights[0].urls[0], str(folder)):
        assert fact in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["retinafce"], "did you mean 'retinaface'"),
        (["detectr"], "did you mean 'detector'"),
        (["fetch"], "name the models to fetch"),
        (["fetch", "SFace", "--all"], "name the models to fetch"),
        (["fetch", "arcface"], "did you mean 'ArcFace'"),
        (["verify", "facenett"], "did you mean 'Facenet'"),
        (["--all"], "are for `reelgraph models fetch`"),
        (["fetch", "absent.yaml"], "absent.yaml"),
    ],
)
def test_wrong_use_is_one_line(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert main(["models", *words]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_models_of_a_workflow_whose_weights_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "faces.yaml"
    path.write_text(FACES)
    assert view.workflow_models(str(path)) == ["mtcnn", "ArcFace"]


def test_fetching_what_packages_carry_needs_no_internet(workflows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "fetch", str(workflows / "faces.yaml"), "--json"]) == 0
    fetched = json.loads(capsys.readouterr().out)["models"]
    assert {model["name"]: model["paths"] for model in fetched} == {
        name: [str(path) for path in weights_files(zoo.card(name))] for name in ("mtcnn", "Dlib", "dlib")
    }


def test_verify_of_packaged_files_and_of_missing_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "verify", "mtcnn", "Dlib", "--json"]) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert {file["state"] for file in files} == {"ok"}
    assert {file["why"] for file in files} <= {"sha256 as published", "sha256 as its package records"}
    assert main(["models", "verify", "mtcnn", "ArcFace"]) == 1
    shown = capsys.readouterr().out
    assert "missing  ArcFace" in shown
    assert "run: reelgraph models fetch ArcFace" in shown
    assert main(["models", "verify"]) == 0  # without names only what is here


def test_verify_knows_the_published_hash(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    """The real file where the test data has it; half of it is damaged, whatever the content."""
    target = folder / "shape_predictor_5_face_landmarks.dat"
    source = package_file("face_recognition_models", f"models/{target.name}", "")
    card = zoo.card("dlib")
    shutil.copyfile(source, target)
    unpackaged = zoo.WeightsFile(target.name, card.weights[0].urls, None, card.weights[0].sha256)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(zoo.CARDS, "dlib", zoo.ModelCard("dlib", "detector", card.licence, (unpackaged,)))
        assert main(["models", "verify", "dlib"]) == 0
        target.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
        assert main(["models", "verify", "dlib"]) == 1
    assert "damaged  dlib: sha256" in capsys.readouterr().out


def test_doctor_counts_the_zoo(tmp_path: Path) -> None:
    finding = next(finding for finding in examine(tmp_path) if finding.what == "zoo")
    assert finding.ok
    assert not finding.needed
    assert f"of {len(cards())} models" in finding.found
    assert "`reelgraph models`" in finding.found


def test_help_of_models_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["models", "--help"])
    assert caught.value.code == 0
    assert "reelgraph models fetch (--all | NAME" in capsys.readouterr().out


def test_listing_starts_no_runtime() -> None:
    heavy = ("onnxruntime", "cv2", "dask", "zarr", "requests", "gdown", "deepface", "av")
    code = (
        f"import sys; from pipeline.cli import main; main(['models', '--json']); "
        f"print([m for m in {heavy!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"

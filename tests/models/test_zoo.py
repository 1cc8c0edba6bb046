"""The cards say what DeepFace's own modules say: names, sizes, files, addresses. Nothing is downloaded."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ModelError
from pipeline.faces.models import zoo

KINDS: dict[str, zoo.Kind] = {
    "face_detector": "detector",
    "facial_recognition": "recogniser",
    "facial_attribute": "attribute",
    "spoofing": "spoofing",
}

STOCK = """
import importlib, inspect, json, sys
from pathlib import Path
import onnxruntime
from deepface.commons import weight_utils
from deepface.modules import modeling
from pipeline.faces.models import zoo
from pipeline.models.weights import package_file, weights_folder

asked = []
def download(file_name, source_url, compress_type=None):
    # What a constructor asks for; the real file where a package has it, so that the constructor can go on.
    asked.append([file_name, [source_url] if isinstance(source_url, str) else list(source_url), compress_type or ""])
    packaged = file_name.endswith(".dat")
    return str(package_file("face_recognition_models", f"models/{file_name}", "")) if packaged else "none"

really_download, weight_utils.download_weights_if_necessary = weight_utils.download_weights_if_necessary, download
onnxruntime.InferenceSession = lambda *args, **options: None

stock = {}
for task, models in modeling.AVAILABLE_MODELS.items():
    for name, sources in models.items():
        asked.clear()
        facts = {"task": task, "source": Path(importlib.import_module(
            (sources.get("onnx") or sources.get("any")).rpartition(".")[0]).__file__).read_text()}
        try:
            if name in ("mtcnn", "fastmtcnn", "mediapipe", "retinaface", "opencv") or name.startswith("yolo"):
                raise LookupError("it asks for nothing by way of DeepFace, or says where in a constant")
            client = modeling.get_model_class(task, name)()
            if name == "centerface":
                client.build_model()
            facts["input"] = getattr(client, "input_shape", None)
            facts["dimension"] = getattr(client, "output_shape", None)
        except Exception as err:  # an optional package that is not here, or a file that is not
            facts["error"] = repr(err)
        stock[name] = {**facts, "asked": list(asked)}

from deepface.models.demography.onnx import Emotion, Gender, Race
from deepface.models.face_detection import OpenCv, Yolo
from deepface.models.spoofing.pytorch import FasNet
from retinaface.model import retinaface_onnx_model

found = {}
for card in zoo.CARDS.values():
    for file in card.weights:
        if file.urls:
            path = weights_folder() / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            found[str(path)] = really_download(file.name, list(file.urls), file.compression or None)

json.dump({
    "models": stock,
    "found": found,
    "yolo": {model.name: list(model.value) for model in Yolo.YoloModel},
    "cascades": [OpenCv.HAARCASCADE_URL.format(file_name=name) for name in OpenCv.HAARCASCADE_FILES.values()],
    "retinaface": retinaface_onnx_model.WEIGHTS_URLS,
    "fasnet": [FasNet.FIRST_WEIGHTS_URL, FasNet.SECOND_WEIGHTS_URL],
    "labels": {"Emotion": Emotion.labels, "Gender": Gender.labels, "Race": Race.labels},
}, open(sys.argv[1], "w"))
"""


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What DeepFace's modules hold, on its ONNX engine, which is chosen once per process."""
    folder = tmp_path_factory.mktemp("stock")
    environment = {**os.environ, "DEEPFACE_BACKEND_ENGINE": "onnx", "DEEPFACE_HOME": str(folder)}
    command = [sys.executable, "-W", "ignore", "-c", STOCK, str(folder / "stock.json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads((folder / "stock.json").read_text())
    return facts


def files(name: str) -> list[list[Any]]:
    return [[file.name, list(file.urls), file.compression] for file in zoo.card(name).weights]


def test_every_model_has_a_card_and_every_card_a_model(stock: dict[str, Any]) -> None:
    theirs = {(name, KINDS[facts["task"]]) for name, facts in stock["models"].items()}
    assert {(card.name, card.kind) for card in zoo.CARDS.values() if card.name not in zoo.OWN} == theirs
    assert not {name for name, _ in theirs}.intersection(zoo.OWN)


@pytest.mark.parametrize(
    "name",
    ["yunet", "centerface", *zoo.names("attribute"), *sorted({*zoo.names("recogniser")} - {"Dlib", "Buffalo_L"})],
)
def test_files_and_addresses_are_those_that_clients_ask_for(stock: dict[str, Any], name: str) -> None:
    assert stock["models"][name]["asked"] == files(name)


def test_ssd_asks_for_its_structure_first(stock: dict[str, Any]) -> None:
    asked = stock["models"]["ssd"]["asked"]
    assert asked == files("ssd")[: len(asked)]
    assert len(asked) == 2, stock["models"]["ssd"]


@pytest.mark.parametrize("name", ["dlib", "Dlib"])
def test_files_of_dlib(stock: dict[str, Any], name: str) -> None:
    if "No module named" in stock["models"][name].get("error", ""):
        pytest.skip("dlib is not installed")
    assert stock["models"][name]["asked"] == files(name)


def test_addresses_that_are_constants_of_modules(stock: dict[str, Any]) -> None:
    assert files("retinaface") == [["retinaface.onnx", stock["retinaface"], ""]]
    assert [url for _, urls, _ in files("opencv") for url in urls] == stock["cascades"]
    # Its ONNX export is DeepFace's own; ours reads what the authors published, as DeepFace's torch engine does.
    assert [url for _, urls, _ in files("Fasnet") for url in urls] == stock["fasnet"]
    ((name, urls, _),) = files("Buffalo_L")
    source = stock["models"]["Buffalo_L"]["source"]
    assert re.findall(r'source_url="([^"]+)"', source) == urls
    assert all(f'"{part}"' in source for part in name.split("/"))


def test_yolo_models(stock: dict[str, Any]) -> None:
    ours = {card.name.removeprefix("yolo").upper(): card for card in zoo.CARDS.values() if card.engine == "ultralytics"}
    assert {name: [card.weights[0].name, *card.weights[0].urls] for name, card in ours.items()} == stock["yolo"]


@pytest.mark.parametrize("name", [name for name in zoo.names("recogniser") if name != "Buffalo_L"])
def test_sizes_of_recognisers(stock: dict[str, Any], name: str) -> None:
    facts = stock["models"][name]
    if name == "Dlib" and "No module named" in facts.get("error", ""):
        pytest.skip("dlib is not installed")
    assert (facts["input"], facts["dimension"]) == (list(zoo.card(name).input_size or ()), zoo.card(name).dimension)


def test_sizes_of_buffalo_l(stock: dict[str, Any]) -> None:
    """Its package is not installed, so its source is read."""
    source = stock["models"]["Buffalo_L"]["source"]
    assert f"input_shape = {zoo.card('Buffalo_L').input_size}" in source
    assert f"output_shape = {zoo.card('Buffalo_L').dimension}" in source


@pytest.mark.parametrize("name", ["Emotion", "Gender", "Race"])
def test_classes_in_their_order(stock: dict[str, Any], name: str) -> None:
    assert stock["labels"][name] == list(zoo.card(name).classes)


def test_stock_deepface_finds_what_was_fetched(stock: dict[str, Any]) -> None:
    assert len(stock["found"]) >= 30
    assert all(Path(ours) == Path(theirs) for ours, theirs in stock["found"].items())


def test_every_card_names_a_licence_and_who_says_so() -> None:
    assert [card.name for card in zoo.CARDS.values() if not card.licence or not card.licence_source] == []


def test_hashes_are_hashes() -> None:
    hashes = [file.sha256 for card in zoo.CARDS.values() for file in card.weights if file.sha256]
    assert len(set(hashes)) == 10
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in hashes)
    assert all(file.size_bytes for card in zoo.CARDS.values() for file in card.weights if file.sha256)


@pytest.mark.parametrize(
    ("name", "kind", "near"), [("retinafce", None, "retinaface"), ("dlib", "recogniser", "Dlib"), ("age", None, "Age")]
)
def test_an_unknown_name_gets_the_nearest(name: str, kind: zoo.Kind | None, near: str) -> None:
    with pytest.raises(ModelError, match=f"did you mean '{near}'"):
        zoo.card(name, kind)

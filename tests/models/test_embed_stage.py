"""The stage `embed`: its options when a workflow loads, and what it writes."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from pipeline.engine.stage import Chunk
from pipeline.engine.workflow import load_workflow
from pipeline.errors import ReelgraphError
from pipeline.faces.models import zoo
from pipeline.faces.models.crops import NORMALISATIONS
from pipeline.faces.stages import embed
from pipeline.faces.stages.embed import Embed, EmbedOptions
from pipeline.machine.device import Device
from pipeline.store.schema import Array

from .stand_in_recognisers import stand_in_recogniser


def workflow(folder: Path, options: str) -> Path:
    path = folder / "faces.yaml"
    path.write_text(f"stages:\n  detect: {{}}\n  embed: {{{options}}}\n")
    return path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("model: arcface", r"unknown embedder 'arcface'; did you mean 'ArcFace'\? valid: "),
        ("align: deepfcae", r"unknown alignment 'deepfcae'; did you mean 'deepface'\? valid: auto, deepface"),
        ("model: ArcFace, engine: pytorch", r"unknown engine 'pytorch'; did you mean 'torch'\?"),
        ("align: deepface, normalization: facenet", r"unknown normalization 'facenet'; did you mean 'Facenet'\?"),
        ("normalization: raw", r"stages\.embed: option normalization needs align: deepface; leave it out, or"),
        ("rotate: false", r"stages\.embed: option rotate needs align: deepface"),
        ("engine: torch", r"stages\.embed: engine torch cannot run Dlib, which DeepFace has for onnx only; use"),
        ("align: two_views, rotate: false", r"stages\.embed: option rotate needs align: deepface"),
        ("model: ArcFace, align: two_views", r"stages\.embed: align: two_views needs model: Dlib, .* not ArcFace; "),
        ("flop: true", r"unknown option 'flop'; did you mean 'flip'\?"),
    ],
)
def test_wrong_options_are_named_when_the_workflow_loads(tmp_path: Path, options: str, message: str) -> None:
    with pytest.raises(ReelgraphError, match=message):
        load_workflow(workflow(tmp_path, options))


def test_right_options_load(tmp_path: Path) -> None:
    options = "model: Facenet512, align: deepface, flip: true, normalization: Facenet2018, rotate: false"
    (array,) = load_workflow(workflow(tmp_path, options)).node("embed").stage.outputs
    assert array.shape == (512,)


def test_normalizations_are_those_of_the_crops() -> None:
    assert get_args(embed.Normalization) == NORMALISATIONS


@pytest.mark.parametrize("name", zoo.names("recogniser"))
def test_the_array_keeps_what_matching_needs(name: str) -> None:
    (array,) = Embed(EmbedOptions(model=name, align="deepface")).outputs
    assert isinstance(array, Array)
    assert array.attributes["model"] == name
    assert array.attributes["align"] == "deepface"
    assert array.attributes["thresholds"] == array.attributes["deepface_thresholds"]
    assert set(array.attributes["thresholds"]) == {"cosine", "euclidean", "euclidean_l2", "angular"}


def test_thresholds_of_native_chips_where_they_were_measured() -> None:
    attributes = {
        name: Embed(EmbedOptions(model=name, align="native")).outputs[0].attributes for name in ("Dlib", "ArcFace")
    }
    assert attributes["Dlib"]["thresholds"]["cosine"] == 0.08
    assert attributes["Dlib"]["deepface_thresholds"]["cosine"] == 0.07
    assert attributes["ArcFace"]["thresholds"]["cosine"] == 0.68
    two = Embed(EmbedOptions(align="two_views")).outputs[0].attributes["thresholds"]
    assert two == {"cosine": 0.076, "euclidean": 0.583, "euclidean_l2": 0.39, "angular": 0.125}


@pytest.mark.parametrize("given", [{}, {"align": "auto"}], ids=["default", "auto"])
def test_auto_is_the_more_accurate_alignment_that_a_model_has(given: dict[str, str]) -> None:
    dlib, other = EmbedOptions(**given), EmbedOptions(model="ArcFace", **given)
    assert (dlib.align, other.align) == ("two_views", "native")
    assert dlib.keyed() == EmbedOptions(align="two_views").keyed()
    assert other.keyed() == EmbedOptions(model="ArcFace", align="native").keyed()


def test_many_faces_are_embedded_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path))
    stand_in_recogniser("OpenFace", tmp_path / ".deepface" / "weights")
    chance = np.random.default_rng(5)
    n_faces = np.array([3, 0, 4], np.int32)
    arrays = {
        "frames_rgb": chance.integers(0, 256, (3, 120, 160, 3), np.uint8),
        "n_faces": n_faces,
        "box": chance.uniform(10, 50, (7, 4)).astype(np.float32),
        "landmarks": np.full((7, 5, 2), np.nan, np.float32),
    }
    chunk = Chunk("clip", 0, np.arange(3), np.arange(3.0), np.ones(3, bool), arrays)
    stage = Embed(EmbedOptions(model="OpenFace"))
    stage.load(Device())
    at_once = stage.run(chunk)["embedding"]
    monkeypatch.setattr(embed, "FACES_AT_ONCE", 2)
    np.testing.assert_allclose(stage.run(chunk)["embedding"], at_once, rtol=1e-5, atol=1e-5)
    assert at_once.shape == (7, 128)
    assert len(np.unique(at_once[:, 0])) == 7


def test_a_chunk_without_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path))
    stand_in_recogniser("DeepID", tmp_path / ".deepface" / "weights")
    arrays = {
        "frames_rgb": np.zeros((2, 40, 40, 3), np.uint8),
        "n_faces": np.zeros(2, np.int32),
        "box": np.empty((0, 4), np.float32),
        "landmarks": np.empty((0, 5, 2), np.float32),
    }
    stage = Embed(EmbedOptions(model="DeepID", align="deepface"))
    stage.load(Device())
    found = stage.run(Chunk("clip", 0, np.arange(2), np.arange(2.0), np.ones(2, bool), arrays))
    assert found["embedding"].shape == (0, 160)

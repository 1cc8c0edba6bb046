"""The benchmarks' stand-ins: what they promise of the faces found, and of the files they stand for."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

from pipeline.faces.models import create_attribute, create_detector, create_embedder
from pipeline.machine.device import Device
from tests.models.stand_in_detectors import stand_in_retinaface


@pytest.fixture
def stand_ins(repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path))
    (tmp_path / ".deepface" / "weights").mkdir(parents=True)
    import stand_ins

    return stand_ins


@pytest.mark.parametrize("align", ["native", "deepface"])
def test_one_face_is_planted_amid_each_frame(stand_ins: ModuleType, tmp_path: Path, align: str) -> None:
    model = onnx.load_from_string(stand_in_retinaface())
    stand_ins.plant_face(model)
    onnx.checker.check_model(model)
    onnx.save(model, tmp_path / ".deepface" / "weights" / "retinaface.onnx")
    frames = np.random.default_rng(0).integers(0, 256, (3, 320, 480, 3), np.uint8)
    faces = create_detector("retinaface", Device(), align=align).detect(frames)
    np.testing.assert_array_equal(faces.frame, [0, 1, 2])
    middle = faces.box[:, :2] + faces.box[:, 2:] / 2
    # A cell of 16 pixels, at scales down to a half.
    np.testing.assert_allclose(middle, np.tile([240, 160], (3, 1)), atol=32)
    right, left, *_, right_mouth, left_mouth = (faces.landmarks[:, point] for point in range(5))
    assert (right[:, 0] < left[:, 0]).all()
    if align == "native":
        assert (right[:, 1] < right_mouth[:, 1]).all()
        assert (right_mouth[:, 0] < left_mouth[:, 0]).all()


def test_a_stand_in_gives_way_to_a_real_file(
    stand_ins: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stand_ins, "_build", lambda name, path: path.write_bytes(stand_ins.BUILDERS[name]()))
    weights, store = tmp_path / ".deepface" / "weights", tmp_path / "stand_ins"
    store.mkdir()
    assert stand_ins.provide({"SFace", "mtcnn"}, weights, store) == {"SFace"}
    embedder = create_embedder("SFace", Device())
    vectors = embedder.embed(np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), np.uint8))
    assert vectors.shape == (3, 128)
    assert np.isfinite(vectors).all()
    assert stand_ins.provide({"SFace"}, weights, store) == {"SFace"}, "a link into the store is no real file"
    stand_ins.forget(weights, store)
    (file,) = store.iterdir()
    (weights / file.name).write_bytes(b"real")
    assert stand_ins.provide({"SFace"}, weights, store) == set()
    stand_ins.forget(weights, store)
    assert (weights / file.name).read_bytes() == b"real"


def test_emotions_stand_in_is_what_the_attribute_takes(
    stand_ins: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stand_ins, "_build", lambda name, path: path.write_bytes(stand_ins.BUILDERS[name]()))
    (tmp_path / "stand_ins").mkdir()
    assert stand_ins.provide({"Emotion"}, tmp_path / ".deepface" / "weights", tmp_path / "stand_ins") == {"Emotion"}
    chips = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)
    probabilities = create_attribute("Emotion", Device()).predict(chips)
    assert probabilities.shape == (3, 7)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)

"""DeepFace's own clients on TensorFlow and torch, and the messages if they are not available."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ModelError
from pipeline.faces.models import clients, create_attribute, create_embedder, describe, zoo
from pipeline.faces.stages.analyze import Analyze, AnalyzeOptions
from pipeline.machine.device import Device

REAL_TENSORFLOW = """
import os, threading
import numpy as np
from pathlib import Path
from pipeline.errors import ModelError
from pipeline.faces.models import clients, create_embedder
from pipeline.machine.device import Device

# Stand-in weights: DeepFace's own DeepID, as random as Keras made it.
clients._choose("tensorflow")
clients._prepare_tensorflow(Device(threads=1))
from deepface.commons import weight_utils
from deepface.models.facial_recognition.tf import DeepID
download, load = weight_utils.download_weights_if_necessary, weight_utils.load_model_weights
weight_utils.download_weights_if_necessary = lambda **options: ""
weight_utils.load_model_weights = lambda model, weight_file: model
folder = Path(os.environ["DEEPFACE_HOME"], ".deepface", "weights")
folder.mkdir(parents=True)
DeepID.load_model().save_weights(folder / "deepid_keras_weights.h5")
weight_utils.download_weights_if_necessary, weight_utils.load_model_weights = download, load

embedder = create_embedder("DeepID", Device(threads=1), engine="tensorflow")
import tensorflow
assert tensorflow.config.get_visible_devices("GPU") == []
assert tensorflow.config.threading.get_intra_op_parallelism_threads() == 1
from deepface.modules import modeling
chips = np.random.default_rng(0).integers(0, 256, (5, 55, 47, 3), np.uint8)
stock = modeling.build_model("facial_recognition", "DeepID").forward(chips[..., ::-1] / np.float32(255))
assert np.ptp(stock) > 0.01
np.testing.assert_allclose(embedder.embed(chips), stock, rtol=1e-4, atol=1e-5)
np.testing.assert_allclose(embedder.embed(chips[:1])[0], stock[0], rtol=1e-4, atol=1e-5)
results = {}
threads = [threading.Thread(target=lambda n=n: results.update({n: embedder.embed(chips)})) for n in range(4)]
[thread.start() for thread in threads], [thread.join() for thread in threads]
assert all(np.allclose(results[n], stock, rtol=1e-4, atol=1e-5) for n in range(4))
# Attributes: DeepFace's own Emotion, as random as Keras made it; it makes its small grey pictures itself.
from deepface.models.demography.tf import Emotion
from pipeline.faces.models import create_attribute
weight_utils.download_weights_if_necessary = lambda **options: ""
weight_utils.load_model_weights = lambda model, weight_file: model
Emotion.load_model().save_weights(folder / "facial_expression_model_weights.h5")
weight_utils.download_weights_if_necessary, weight_utils.load_model_weights = download, load
emotion = create_attribute("Emotion", Device(threads=1), engine="tensorflow")
faces = np.random.default_rng(1).integers(0, 256, (3, 224, 224, 3), np.uint8)
faces[1] //= 3
faces[2] = 0
client = modeling.build_model("facial_attribute", "Emotion")
raw = np.stack([client.predict(face[..., ::-1] / np.float32(255)) for face in faces])
found = emotion.predict(faces)
assert np.ptp(raw[:2]) > 1e-4
np.testing.assert_allclose(found[:2], raw[:2] / raw[:2].sum(axis=1, keepdims=True), rtol=1e-3, atol=1e-5)
assert np.isnan(found[2]).all()
np.testing.assert_allclose(emotion.predict(faces[:1])[0], found[0], rtol=1e-3, atol=1e-5)
try:
    clients._choose("torch")
except ModelError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs TensorFlow")
def test_a_real_client_on_tensorflow(tmp_path: Path, repository: Path) -> None:
    environment = {**os.environ, "DEEPFACE_HOME": str(tmp_path), "PYTHONPATH": str(repository)}
    environment.pop("DEEPFACE_BACKEND_ENGINE", None)
    done = subprocess.run([sys.executable, "-c", REAL_TENSORFLOW], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "engine torch is not available: this process already runs DeepFace on tensorflow" in done.stdout


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(("name", "values"), [("Age", ()), ("Race", (6,))])
def test_predictions_of_one_face_and_of_many(
    monkeypatch: pytest.MonkeyPatch, name: str, values: tuple[int, ...], count: int
) -> None:
    """DeepFace's clients give a number or a row for a single face, and an array of them for more."""
    given: list[np.ndarray] = []

    def predict(batch: np.ndarray) -> Any:
        given.append(batch)
        each = (
            np.linspace(1, 2, len(batch)).reshape(-1, *[1] * len(values))
            * np.arange(1, 7)[: values[0] if values else 1]
        )
        each = each if values else each.reshape(-1)
        return each[0] if len(batch) == 1 else each

    def client(self: clients.Client, *_: Any) -> None:
        self._client = SimpleNamespace(predict=predict)

    monkeypatch.setattr(clients.Client, "__init__", client)
    attribute = create_attribute(name, Device(batch_memory_bytes=1 << 30), engine="tensorflow")
    found = attribute.predict(np.full((count, 224, 224, 3), 51, np.uint8))
    assert found.shape == (count, *values)
    assert found.dtype == np.float32
    np.testing.assert_allclose(given[0], 0.2, rtol=1e-6)
    assert given[0].shape == (count, 224, 224, 3)
    if name == "Age":
        np.testing.assert_allclose(found, np.linspace(1, 2, count))
    else:
        np.testing.assert_allclose(found, np.tile(np.arange(1, 7) / 21, (count, 1)), rtol=1e-6)


def test_engine_of_the_stage(weights: Path, installed: None) -> None:
    with pytest.raises(ValueError, match="unknown engine 'keras'"):
        AnalyzeOptions(engine="keras")  # type: ignore[arg-type]
    stage = Analyze(AnalyzeOptions(attributes=("emotion",), engine="tensorflow"))
    with pytest.raises(ModelError, match=r"weights of Emotion for engine tensorflow are missing: no file .*\.h5"):
        stage.models()[0].as_dict()
    (weights / "facial_expression_model_weights.h5").write_bytes(b"weights")
    assert stage.models()[0].runtime.startswith("tensorflow")


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path))
    folder = tmp_path / ".deepface" / "weights"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every engine looks installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name in clients.ENGINES else find(name))


def test_a_missing_package_is_named(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = r"engine torch needs the package torch, which is not installed; run: pip install 'reelgraph\[torch\]', or"
    with pytest.raises(ModelError, match=message):
        create_embedder("ArcFace", Device(), engine="torch")


@pytest.mark.parametrize(
    ("name", "engine", "file"),
    [
        ("ArcFace", "tensorflow", "arcface_weights.h5"),
        ("DeepID", "tensorflow", "deepid_keras_weights.h5"),
        ("DeepID", "torch", "deepid_weights.pth"),
        ("DeepFace", "torch", "VGGFace2_DeepFace_weights_val-0.9034.pth"),
        ("Age", "tensorflow", "age_model_weights.h5"),
    ],
)
def test_missing_weights_are_named(weights: Path, installed: None, name: str, engine: str, file: str) -> None:
    message = rf"weights of {name} for engine {engine} are missing: no file .*{file}; run DeepFace once with {name}"
    with pytest.raises(ModelError, match=message):
        assert describe(name, engine).weights_sha256
    (weights / file).write_bytes(b"weights")
    info = describe(name, engine)
    assert info.runtime.startswith(engine)
    assert len(info.weights_sha256) == 64


@pytest.mark.parametrize("engine", ["tensorflow", "torch"])
def test_file_names_are_deepface_s(engine: str) -> None:
    """The names of weights stand in the source of DeepFace's clients, which is read without importing it."""
    found = importlib.util.find_spec("deepface")
    assert found is not None
    assert found.origin is not None
    folder = {"tensorflow": "tf", "torch": "pytorch"}[engine]
    models = Path(found.origin).parent / "models"
    source = "".join(path.read_text() for path in models.glob(f"*/{folder}/*.py"))
    for card in (*zoo.RECOGNISERS, *zoo.ATTRIBUTES):
        if card.name not in clients.ONNX_ONLY:
            name = clients.weights_name(card, card.weights[0], engine)
            assert f'file_name="{name}"' in source, name


def test_another_engine_in_this_process_is_refused(
    weights: Path, installed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deepface.commons import backend_utils

    monkeypatch.setattr(backend_utils, "_backend_engine", "onnx")
    monkeypatch.delenv("DEEPFACE_BACKEND_ENGINE", raising=False)
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "1")  # so that it is as before for the tests that follow
    (weights / "arcface_weights.pth").write_bytes(b"weights")
    with pytest.raises(ModelError, match="engine torch is not available: this process already runs DeepFace on onnx"):
        create_embedder("ArcFace", Device(), engine="torch")
    assert "DEEPFACE_BACKEND_ENGINE" not in os.environ


class RecordedTensorFlow:
    """tensorflow.config of a machine with GPUs, which keeps what it is told."""

    def __init__(self, gpus: int) -> None:
        self.gpus = [f"gpu {index}" for index in range(gpus)]
        self.told: dict[str, Any] = {}
        self.config = SimpleNamespace(
            list_physical_devices=lambda kind: self.gpus,
            set_visible_devices=lambda devices, kind: self.told.update(visible=devices),
            LogicalDeviceConfiguration=lambda memory_limit: memory_limit,
            set_logical_device_configuration=lambda gpu, limits: self.told.update({gpu: limits}),
        )


class RecordedTorch:
    """torch.cuda of a machine with two GPUs of 80 GB, which keeps what it is told."""

    def __init__(self) -> None:
        self.told: dict[int, float] = {}
        self.cuda = SimpleNamespace(
            is_available=lambda: True,
            device_count=lambda: 2,
            get_device_properties=lambda index: SimpleNamespace(total_memory=80 << 30),
            set_per_process_memory_fraction=lambda fraction, index: self.told.update({index: fraction}),
        )


def test_tensorflow_gets_one_gpu_and_a_share_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = RecordedTensorFlow(2)
    monkeypatch.setitem(sys.modules, "tensorflow", recorded)  # type: ignore[arg-type]
    clients._prepare_tensorflow(Device("cuda", index=1, memory_bytes=3 << 30))
    assert recorded.told == {"visible": ["gpu 1"], "gpu 1": [3072]}
    with pytest.raises(ModelError, match="device 'cuda' number 2 is not available: tensorflow sees 2 GPUs"):
        clients._prepare_tensorflow(Device("cuda", index=2))


def test_torch_gets_a_share_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = RecordedTorch()
    monkeypatch.setitem(sys.modules, "torch", recorded)  # type: ignore[arg-type]
    clients._prepare_torch(Device("cuda", index=1, memory_bytes=20 << 30))
    assert recorded.told == {1: 0.25}

"""DeepFace's own clients, on TensorFlow or torch: `engine: tensorflow | torch` for models that it has there.

DeepFace chooses one engine per process, when it is first imported, and keeps it. Its clients are not thread-safe.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError
from pipeline.machine.device import Device
from pipeline.models.card import ModelCard, WeightsFile
from pipeline.models.weights import weights_folder
from pipeline.text import unknown

ENGINES = ("onnx", "tensorflow", "torch")
DEEPFACE_ENGINES = {"tensorflow": "tensorflow", "torch": "pytorch"}
"""DeepFace's names for them (commons/backend_utils.py)."""
SUFFIXES = {"tensorflow": ".h5", "torch": ".pth"}
OTHER_NAMES = {("DeepID", "tensorflow"): "deepid_keras_weights.h5"}
"""File names of weights that differ from the ONNX file's name with the engine's suffix."""
ONNX_ONLY = ("Dlib", "SFace", "Buffalo_L")
"""Models that DeepFace has in one form only, for every engine."""

_lock = threading.RLock()
"""Held while a client is built or runs."""
_prepared: set[str] = set()
"""Engines whose devices were set up in this process; they accept settings only before their first use."""


def check(card: ModelCard, engine: str) -> None:
    """Raise ModelError if a model does not run on an engine; import nothing."""
    if engine not in ENGINES:
        raise ModelError(unknown("engine", engine, ENGINES))
    if engine != "onnx" and card.name in ONNX_ONLY:
        raise ModelError(f"engine {engine} cannot run {card.name}, which DeepFace has for onnx only; use engine: onnx")


def weights_name(card: ModelCard, file: WeightsFile, engine: str) -> str:
    """Return DeepFace's name, for an engine, of the weights that are `file` for ONNX."""
    return OTHER_NAMES.get((card.name, engine), str(Path(file.name).with_suffix(SUFFIXES[engine])))


def weights_files(card: ModelCard, engine: str) -> list[Path]:
    """Return the paths of a model's weights for an engine. Raises ModelError that names the first missing file."""
    paths = []
    for file in card.weights:
        path = weights_folder() / weights_name(card, file, engine)
        if not path.is_file():
            raise ModelError(
                f"weights of {card.name} for engine {engine} are missing: no file {path}; "
                f"run DeepFace once with {card.name} and DEEPFACE_BACKEND_ENGINE={DEEPFACE_ENGINES[engine]}, "
                "which fetches them, or use engine: onnx"
            )
        paths.append(path)
    return paths


class Client:
    """One of DeepFace's clients. Thread-safe: it makes one call at a time in this process."""

    def __init__(self, task: str, card: ModelCard, engine: str, device: Device) -> None:
        """Load the client. `task`: a task of deepface.modules.modeling.build_model.

        Raises ModelError: the engine or the weights are missing, this process already has DeepFace on another engine,
        or the device cannot be used.
        """
        check(card, engine)
        if importlib.util.find_spec(engine) is None:
            raise ModelError(
                f"engine {engine} needs the package {engine}, which is not installed; "
                f"run: pip install 'reelgraph[{engine}]', or use engine: onnx"
            )
        weights_files(card, engine)
        with _lock:
            _choose(engine)
            if engine not in _prepared:
                (_prepare_tensorflow if engine == "tensorflow" else _prepare_torch)(device)
                _prepared.add(engine)
            client = self._client = _build(task, card.name)
            if engine == "torch":  # DeepFace's clients take the first GPU
                torch = importlib.import_module("torch")
                if isinstance(getattr(client, "device", None), torch.device):
                    client.device = torch.device("cpu" if device.kind == "cpu" else f"cuda:{device.index}")
                    client.model = client.model.to(client.device)

    def forward(self, batch: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return float32 (n, dimension) for float32 (n, height, width, 3) BGR from 0 to 1."""
        with _lock:
            vectors = self._client.forward(batch)
        return np.asarray(vectors, np.float32).reshape(len(batch), -1)

    def predict(self, batch: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return float32 (n, values) for float32 (n, 224, 224, 3) BGR from 0 to 1: years for Age, else raw outputs.

        For a single face DeepFace returns a row or a number without the batch dimension; this adds it.
        """
        with _lock:
            values = self._client.predict(batch)
        return np.asarray(values, np.float32).reshape(len(batch), -1)


def _choose(engine: str) -> None:
    """Make DeepFace use `engine`, before any call would make it choose for itself."""
    name = DEEPFACE_ENGINES[engine]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["TF_USE_LEGACY_KERAS"] = "1"  # as DeepFace does; read when TensorFlow is first imported
    from deepface.commons import backend_utils

    chosen = backend_utils._backend_engine
    if chosen is None:
        os.environ[backend_utils.BACKEND_ENGINE_ENV_VAR] = name
        chosen = backend_utils.get_backend_engine()
    if chosen != name:
        raise ModelError(
            f"engine {engine} is not available: this process already runs DeepFace on {chosen}, which takes only "
            f"one. Give all stages the same engine, or set DEEPFACE_BACKEND_ENGINE={name} before the start"
        )


def _build(task: str, name: str) -> Any:
    with warnings.catch_warnings():
        # Importing DeepFace switches all warnings of the process off, and Keras uses features that NumPy deprecates.
        warnings.simplefilter("ignore")
        importlib.import_module("deepface.DeepFace")
        from deepface.modules import modeling

        try:
            return modeling.build_model(task=task, model_name=name)
        except (ImportError, ValueError, OSError, RuntimeError) as error:
            raise ModelError(f"DeepFace cannot load {name}: {str(error).splitlines()[0]}") from error


def _prepare_tensorflow(device: Device) -> None:
    """Let TensorFlow see one GPU or none, and limit its memory to this process's share."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tensorflow = importlib.import_module("tensorflow")
    config = tensorflow.config
    try:
        if device.kind == "cpu":
            config.set_visible_devices([], "GPU")
            config.threading.set_intra_op_parallelism_threads(max(1, device.threads))
            config.threading.set_inter_op_parallelism_threads(1)
            return
        gpu = _gpu("tensorflow", config.list_physical_devices("GPU"), device)
        config.set_visible_devices([gpu], "GPU")
        if device.memory_bytes is not None:
            limit = config.LogicalDeviceConfiguration(memory_limit=device.memory_bytes >> 20)
            config.set_logical_device_configuration(gpu, [limit])
    except RuntimeError as error:  # "... cannot be modified after initialization"
        if device.kind != "cpu" and device.memory_bytes is not None:
            raise ModelError(
                f"TensorFlow already runs in this process, so its GPU memory cannot be limited ({error}); "
                "load the model before anything else uses TensorFlow"
            ) from error


def _prepare_torch(device: Device) -> None:
    torch = importlib.import_module("torch")
    if device.kind == "cpu":
        torch.set_num_threads(max(1, device.threads))
        return
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_available() else range(0)
    index = _gpu("torch", gpus, device)
    if device.memory_bytes is not None:
        total = torch.cuda.get_device_properties(index).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, device.memory_bytes / total), index)


def _gpu(engine: str, gpus: Any, device: Device) -> Any:
    if device.index >= len(gpus):
        raise ModelError(
            f"device {device.kind!r} number {device.index} is not available: {engine} sees {len(gpus)} GPUs; "
            f"install {engine} for CUDA, or use device cpu"
        )
    return gpus[device.index]

"""Photographs with faces, and the models at test."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.faces.models import create_detector
from pipeline.faces.models.base import Detector
from pipeline.machine.device import Device


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder of the tests' own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REELGRAPH_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """uint8 (512, 512, 3): one face, seen from the front."""
    data = pytest.importorskip("skimage.data")
    return np.ascontiguousarray(data.astronaut())


@pytest.fixture(scope="session")
def grace_hopper() -> np.ndarray:
    """uint8 (606, 512, 3): one face."""
    cbook = pytest.importorskip("matplotlib.cbook")
    with cbook.get_sample_data("grace_hopper.jpg") as file:
        return read_rgb(Path(file.name))


@pytest.fixture(scope="session")
def detector(device: Device) -> Detector:
    return create_detector("mtcnn", device)


@pytest.fixture(scope="session")
def stock_mtcnn() -> Callable[[np.ndarray], list[dict[str, Any]]]:
    """detect_faces of the mtcnn package."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    pytest.importorskip("tensorflow", exc_type=ImportError)
    with warnings.catch_warnings():
        # TensorFlow and Keras still use what NumPy and Python deprecate.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", ResourceWarning)  # joblib, on the package's weights
        from mtcnn import MTCNN

        model = MTCNN()

    def detect(frame: np.ndarray) -> list[dict[str, Any]]:
        faces: list[dict[str, Any]] = model.detect_faces(frame)
        return faces

    return detect


@pytest.fixture(scope="session")
def deepface_home(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DEEPFACE_HOME, for the rest of the session, with those of DeepFace's weights that are at hand."""
    home = tmp_path_factory.mktemp("deepface")
    weights = home / ".deepface" / "weights"
    weights.mkdir(parents=True)
    spec = importlib.util.find_spec("face_recognition_models")  # importing it needs pkg_resources
    folders = list(spec.submodule_search_locations or ()) if spec else []
    packaged = [path for folder in folders for path in (Path(folder) / "models").glob("*.dat")]
    for path in [*(data_dir / "weights" / "deepface").iterdir(), *packaged]:
        (weights / path.name).symlink_to(path)
    os.environ["DEEPFACE_HOME"] = str(home)
    return home


def read_rgb(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None, path
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

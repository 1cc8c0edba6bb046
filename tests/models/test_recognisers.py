"""Every recogniser beside stock DeepFace on the same file of weights: Dlib's own, stand-ins for the others."""

from __future__ import annotations

import sys
import types
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.errors import ModelError
from pipeline.faces.models import create_embedder, zoo
from pipeline.faces.models.base import Faces
from pipeline.faces.models.crops import NORMALISATIONS
from pipeline.faces.models.recognisers.thresholds import DEEPFACE_THRESHOLDS
from pipeline.faces.models.recognisers.traits import TRAITS
from pipeline.machine.device import Device

from .conftest import read_rgb
from .stand_in_recognisers import stand_in_recogniser, stand_in_whose_rows_mix

NETWORKS = zoo.names("recogniser")
GROUP = "ul_09"
"""Eight faces, of which YuNet finds five or more."""


class StandInInsightFace:
    """get_feat of insightface's ArcFaceONNX, as DeepFace calls it: insightface itself needs a compiler."""

    def __init__(self, path: str) -> None:
        import onnxruntime

        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def prepare(self, ctx_id: int, input_size: tuple[int, int]) -> None:
        self.size = input_size

    def get_feat(self, image: np.ndarray) -> np.ndarray:
        blob = cv2.dnn.blobFromImages([image], 1 / 127.5, self.size, (127.5, 127.5, 127.5), swapRB=True)
        features: np.ndarray = self.session.run(None, {"input": blob})[0]
        return features


@pytest.fixture(scope="module")
def home(deepface_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """DeepFace's folder with stand-ins for all that is missing."""
    folder = tmp_path_factory.mktemp("stand_ins")
    weights = folder / ".deepface" / "weights"
    weights.mkdir(parents=True)
    for path in (deepface_home / ".deepface" / "weights").iterdir():
        (weights / path.name).symlink_to(path.resolve())
    for name in NETWORKS:
        if name != "Dlib":
            stand_in_recogniser(name, weights)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPFACE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def stock(home: Path) -> Iterator[Any]:
    """DeepFace on its ONNX engine, whatever engine this process has it on, with no model loaded before."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        from deepface.commons import backend_utils

        patch.setattr(backend_utils, "_backend_engine", "onnx")  # before it chooses TensorFlow, and imports it
        from deepface import DeepFace
        from deepface.modules import modeling

        zoo_module = types.ModuleType("insightface.model_zoo")
        zoo_module.get_model = StandInInsightFace  # type: ignore[attr-defined]
        patch.setitem(sys.modules, "insightface", types.ModuleType("insightface"))
        patch.setitem(sys.modules, "insightface.model_zoo", zoo_module)
        patch.setattr(modeling, "cached_models", {task: {} for task in modeling.AVAILABLE_MODELS}, raising=False)
        yield DeepFace


@pytest.fixture(scope="module")
def group(data_dir: Path) -> np.ndarray:
    return read_rgb(data_dir / "faces" / "groups" / f"{GROUP}.jpg")


def represented(stock: Any, frame_rgb: np.ndarray, name: str, **options: Any) -> tuple[Faces, np.ndarray]:
    """What DeepFace found in a frame, as Faces, and its vectors."""
    found = stock.represent(
        np.ascontiguousarray(frame_rgb[:, :, ::-1]), model_name=name, detector_backend="yunet", **options
    )
    area = [face["facial_area"] for face in found]
    landmarks = np.full((len(found), 5, 2), np.nan, np.float32)
    for points, place in zip(landmarks, area, strict=True):
        points[:2] = place["right_eye"], place["left_eye"]
    faces = Faces(
        np.zeros(len(found), np.int64),
        np.array([[place[key] for key in "xywh"] for place in area], np.float32),
        landmarks,
        np.array([face["face_confidence"] for face in found], np.float32),
    )
    return faces, np.array([face["embedding"] for face in found])


def cosines(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    products = (ours * theirs).sum(axis=1)
    return np.asarray(products / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1))


@pytest.mark.parametrize("name", NETWORKS)
def test_vectors_of_a_batch_equal_deepface(device: Device, stock: Any, group: np.ndarray, name: str) -> None:
    faces, theirs = represented(stock, group, name)
    assert len(theirs) >= 4
    embedder = create_embedder(name, replace(device, threads=2), align="deepface")
    ours = embedder.embed(embedder.chips([group], faces))
    assert ours.shape == theirs.shape == (len(theirs), embedder.dimension)
    assert cosines(ours, theirs).min() > 0.9999
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), np.linalg.norm(theirs, axis=1), rtol=2e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_vector_alone_equals_deepface(device: Device, stock: Any, astronaut: np.ndarray, name: str) -> None:
    faces, theirs = represented(stock, astronaut, name, max_faces=1)
    embedder = create_embedder(name, device, align="deepface")
    ours = embedder.embed(embedder.chips([astronaut], faces))
    assert cosines(ours, theirs.reshape(1, -1)).min() > 0.9999


@pytest.mark.parametrize(
    ("name", "normalization"),
    [*(("ArcFace", name) for name in NORMALISATIONS if name != "base"), ("Dlib", "raw"), ("SFace", "Facenet2018")],
)
def test_normalisations_reach_the_network(stock: Any, group: np.ndarray, name: str, normalization: str) -> None:
    faces, theirs = represented(stock, group, name, normalization=normalization)
    embedder = create_embedder(name, Device(threads=2), align="deepface", normalization=normalization)
    assert cosines(embedder.embed(embedder.chips([group], faces)), theirs).min() > 0.999


def test_without_turning_the_eyes(stock: Any, group: np.ndarray) -> None:
    faces, theirs = represented(stock, group, "Dlib", align=False)
    embedder = create_embedder("Dlib", Device(threads=2), align="deepface", rotate=False)
    assert cosines(embedder.embed(embedder.chips([group], faces)), theirs).min() > 0.9999


# -- native chips ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "Dlib"])
def test_native_chips_reach_the_network_as_deepface_feeds_it(device: Device, home: Path, stock: Any, name: str) -> None:
    """Bytes RGB here, floats BGR there: one and the same to the network."""
    from deepface.modules import modeling

    width, height = zoo.card(name).input_size or (0, 0)
    chips = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), np.uint8)
    theirs = modeling.build_model("facial_recognition", name).forward(chips[..., ::-1] / np.float32(255))
    embedder = create_embedder(name, device)
    # 1 / 255 * 255 may lie below a whole number, which SFace's client then cuts off: one grey level of 255.
    np.testing.assert_allclose(embedder.embed(chips), theirs, rtol=2e-2, atol=np.abs(theirs).max() * 5e-3)
    assert cosines(embedder.embed(chips), np.array(theirs)).min() > 0.9999


@pytest.mark.parametrize("name", ["ArcFace", "DeepID"])
def test_flip_with_chips_of_either_kind(home: Path, name: str) -> None:
    width, height = zoo.card(name).input_size or (0, 0)
    chips = np.random.default_rng(1).integers(0, 256, (2, height, width, 3), np.uint8)
    for align, given in (("native", chips), ("deepface", (chips / 255).astype(np.float32))):
        plain, flipping = (create_embedder(name, Device(), align=align, flip=flip) for flip in (False, True))
        mean = (plain.embed(given) + plain.embed(np.ascontiguousarray(given[:, :, ::-1]))) / 2
        np.testing.assert_allclose(flipping.embed(given), mean, rtol=1e-4, atol=1e-4 * np.abs(mean).max())


# -- batches of graphs that were exported for one chip -----------------------------------------------------------------


def chips_112(count: int) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (count, 112, 112, 3), np.uint8)


@pytest.fixture
def lonely_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path))
    return tmp_path / ".deepface" / "weights"


def counted(embedder: Any) -> list[int]:
    """The sizes of the batches that a recogniser's network gets from now on."""
    sizes: list[int] = []
    network = embedder._network

    def run(batch: np.ndarray) -> np.ndarray:
        sizes.append(len(batch))
        result: np.ndarray = network.run(batch)
        return result

    embedder._network = replace(network, run=run)
    return sizes


@pytest.mark.parametrize(("make", "expected"), [(stand_in_recogniser, [5]), (stand_in_whose_rows_mix, [1] * 5)])
def test_a_batch_of_one_is_freed_where_rows_stay_the_same(
    device: Device, lonely_home: Path, make: Any, expected: list[int]
) -> None:
    make(*(("SFace",) if make is stand_in_recogniser else ()), lonely_home)
    embedder = create_embedder("SFace", device)
    alone = np.concatenate([embedder.embed(chip[None]) for chip in chips_112(5)])
    sizes = counted(embedder)
    np.testing.assert_allclose(embedder.embed(chips_112(5)), alone, rtol=1e-3, atol=1e-3)
    assert sizes == expected


def test_batches_stay_within_memory(lonely_home: Path) -> None:
    stand_in_recogniser("ArcFace", lonely_home)
    room = 4 * TRAITS["ArcFace"].activations * 2
    embedder = create_embedder("ArcFace", Device(batch_memory_bytes=room))
    sizes = counted(embedder)
    embedder.embed(chips_112(5))
    assert sizes == [2, 2, 1]


# -- errors and facts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "Dlib"])
def test_missing_weights_are_named(lonely_home: Path, name: str) -> None:
    with pytest.raises(ModelError, match=rf"weights of {name} are missing: no file .*\.onnx; run: reelgraph models"):
        create_embedder(name, Device())


def test_damaged_weights_are_named(lonely_home: Path) -> None:
    stand_in_recogniser("ArcFace", lonely_home).write_bytes(b"<html>not found</html>")
    with pytest.raises(ModelError, match=r"weights of ArcFace cannot be read: .*arcface_weights\.onnx"):
        create_embedder("ArcFace", Device())


@pytest.mark.parametrize(("other", "what"), [("DeepID", "takes"), ("Buffalo_L", "takes")])
def test_another_network_s_file_is_refused(lonely_home: Path, other: str, what: str) -> None:
    stand_in_recogniser(other, lonely_home).rename(lonely_home / "arcface_weights.onnx")
    with pytest.raises(ModelError, match=rf"arcface_weights\.onnx is not the network ArcFace: it {what} \("):
        create_embedder("ArcFace", Device())


def test_unknown_normalization_and_engine() -> None:
    with pytest.raises(ModelError, match="unknown normalization 'facenet'; did you mean 'Facenet'"):
        create_embedder("Dlib", Device(), normalization="facenet")
    with pytest.raises(ModelError, match="unknown engine 'tensorflw'; did you mean 'tensorflow'"):
        create_embedder("ArcFace", Device(), engine="tensorflw")


def test_thresholds_are_deepface_s() -> None:
    from deepface.config.threshold import thresholds

    assert thresholds == DEEPFACE_THRESHOLDS
    assert set(thresholds) == set(NETWORKS) == set(TRAITS)

"""`Fasnet` beside DeepFace's own, and the reader of PyTorch's files."""

from __future__ import annotations

import io
import os
import pickle
import sys
import types
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deepface.models.spoofing import FasNetUtils

from pipeline.errors import ModelError
from pipeline.faces.models import create_spoofing, describe, zoo
from pipeline.faces.models.attributes.fasnet import SCALES, Fasnet, build_graph, clipped
from pipeline.faces.models.base import Detector, Faces
from pipeline.machine.device import Device
from pipeline.models.torch_file import MAGIC_NUMBER, PROTOCOL, read_tensors
from pipeline.models.weights import weights_files
from tests.devices import tolerance
from tests.models.conftest import read_rgb

REAL = zoo.LIVENESS.index("real")


def faces_of(boxes: np.ndarray) -> Faces:
    n = len(boxes)
    nowhere = np.full((n, 5, 2), np.nan, np.float32)
    return Faces(np.zeros(n, np.int64), np.asarray(boxes, np.float32).reshape(n, 4), nowhere, np.ones(n, np.float32))


@pytest.fixture(scope="module")
def fasnet(device: Device, deepface_home: Path) -> Fasnet:
    return Fasnet(device)


def some_boxes(seed: int, n: int) -> np.ndarray:
    """Within and across the edges of a photograph of 512 x 512, large and small."""
    chance = np.random.default_rng(seed)
    return np.hstack([chance.uniform(-60, 480, (n, 2)), chance.uniform(12, 400, (n, 2))]).astype(np.float32)


# -- chips ------------------------------------------------------------------------------------------------------------


def test_chips_equal_deepface(fasnet: Fasnet, astronaut: np.ndarray) -> None:
    boxes = np.array([box for box in some_boxes(1, 300) if min(clipped(box, 512, 512)[2:]) > 0])
    assert len(boxes) > 250
    chips = fasnet.chips([astronaut], faces_of(boxes))
    for pair, (x, y, w, h) in zip(chips, boxes, strict=True):
        # as detection.extract_faces hands them to Fasnet
        left, top = max(0, int(x)), max(0, int(y))
        area = (left, top, min(512 - left - 1, int(w)), min(512 - top - 1, int(h)))
        for chip, scale in zip(pair, SCALES, strict=True):
            np.testing.assert_array_equal(chip, FasNetUtils.crop(astronaut, area, scale, 80, 80))


@pytest.mark.parametrize("box", [(600, 600, 50, 50), (511, 20, 50, 50), (20, 511, 50, 50), (20, 20, 0, 30)])
def test_a_face_outside_the_frame_has_no_value(fasnet: Fasnet, astronaut: np.ndarray, box: tuple[float, ...]) -> None:
    chips = fasnet.chips([astronaut], faces_of(np.array([box, (180, 70, 90, 100)])))
    assert np.isnan(fasnet.predict(chips)).all(axis=1).tolist() == [True, False]


# -- beside DeepFace --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stock(deepface_home: Path) -> Callable[..., tuple[bool, float]]:
    """`analyze` of DeepFace's Fasnet, on TensorFlow."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    pytest.importorskip("tensorflow", exc_type=ImportError)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow and Keras still use what NumPy and Python deprecate
        from deepface.models.spoofing.tf.FasNet import Fasnet as Stock

        analyze: Callable[..., tuple[bool, float]] = Stock().analyze
    return analyze


def test_labels_and_scores_are_those_of_deepface(
    device: Device,
    fasnet: Fasnet,
    stock: Callable[..., tuple[bool, float]],
    detector: Detector,
    data_dir: Path,
    astronaut: np.ndarray,
    grace_hopper: np.ndarray,
) -> None:
    spoof = data_dir / "faces" / "spoof"
    pictures = {path.stem: read_rgb(path) for path in sorted(spoof.glob("*.jpg"))}
    pictures |= {"astronaut": astronaut, "grace_hopper": grace_hopper}
    live = {}
    for name, picture in pictures.items():
        faces = detector.detect(picture[None])
        result = fasnet.predict(fasnet.chips(picture[None], faces))
        np.testing.assert_allclose(result.sum(axis=1), 1, atol=1e-5)
        live[name] = [bool(values.argmax() == REAL) for values in result]
        assert len(result), name
        for box, values in zip(faces.box, result, strict=True):
            height, width = picture.shape[:2]
            is_real, score = stock(picture[:, :, ::-1], clipped(box, width, height))
            assert bool(values.argmax() == REAL) is is_real
            assert values.max() == pytest.approx(score, abs=tolerance(device, 1e-4))
    assert live["image_T1"] == [True]
    assert live["image_F1"] == [False]


def test_batches_change_nothing(device: Device, fasnet: Fasnet, astronaut: np.ndarray, deepface_home: Path) -> None:
    chips = fasnet.chips([astronaut], faces_of(some_boxes(2, 19)))
    together = fasnet.predict(chips)
    assert together.shape == (19, 3)
    assert together.dtype == np.float32
    alone = Fasnet(replace(device, batch_memory_bytes=1)).predict(chips)
    np.testing.assert_allclose(together, alone, atol=tolerance(device, 1e-6))
    assert np.ptp(together[:, REAL]) > 0.1
    assert fasnet.predict(chips[:0]).shape == (0, 3)
    with pytest.raises(ValueError, match=r"\(n, 2, 80, 80, 3\), not uint8 \(19, 80, 80, 3\)"):
        fasnet.predict(chips[:, 0])


# -- files ------------------------------------------------------------------------------------------------------------


def test_weights_by_name(deepface_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert describe("Fasnet").licence == "Apache-2.0"
    with pytest.raises(ModelError, match="unknown anti-spoofing model 'fasnet'; did you mean 'Fasnet'"):
        create_spoofing("fasnet", Device())
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path))
    with pytest.raises(ModelError, match=r"no file .*2\.7_80x80_MiniFASNetV2\.pth; run: reelgraph models fetch Fasnet"):
        create_spoofing("Fasnet", Device())


class FloatStorage:
    """Stands for torch.FloatStorage in files that are written here."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values


def _rebuild_tensor_v2(*arguments: Any) -> None:
    """Stands for PyTorch's: only its name is written."""


class Tensor:
    """A tensor as PyTorch pickles it."""

    def __init__(self, storage: FloatStorage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> None:
        self.arguments = (storage, offset, shape, stride, False, OrderedDict())

    def __reduce__(self) -> tuple[Any, ...]:
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.arguments


class Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, FloatStorage):
            return "storage", FloatStorage, str(id(value)), "cpu", len(value.values), None
        return None


class ZipPickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, FloatStorage):
            return "storage", FloatStorage, str(id(value)), "cpu", len(value.values)
        return None


@pytest.fixture(params=["pickles", "zip"])
def save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Callable[..., Path]:
    """Write an object in one of PyTorch's formats; storages of the older one claim to have `claimed` elements."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch.FloatStorage, utils._rebuild_tensor_v2 = FloatStorage, _rebuild_tensor_v2  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    monkeypatch.setattr(FloatStorage, "__module__", "torch")
    monkeypatch.setattr(_rebuild_tensor_v2, "__module__", "torch._utils")

    def write_zip(value: Any, *storages: FloatStorage) -> Path:
        pickled = io.BytesIO()
        ZipPickler(pickled, protocol=2).dump(value)
        files = {"data.pkl": pickled.getvalue(), "byteorder": b"little"}
        files |= {f"data/{id(storage)}": storage.values.astype("<f4").tobytes() for storage in storages}
        return zipped(tmp_path / "weights.pth", files)

    def write(value: Any, *storages: FloatStorage, claimed: int | None = None) -> Path:
        path = tmp_path / "weights.pth"
        with path.open("wb") as file:
            for part in (MAGIC_NUMBER, PROTOCOL, {"little_endian": True}, value, [str(id(s)) for s in storages]):
                Pickler(file, protocol=2).dump(part)
            for storage in storages:
                count = len(storage.values) if claimed is None else claimed
                file.write(count.to_bytes(8, "little") + storage.values.astype("<f4").tobytes())
        return path

    return write_zip if request.param == "zip" else write


def zipped(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    """Write files into the folder of an archive, as PyTorch does."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(f"archive/{name}", content)
    return path


def test_tensors_are_read(save: Callable[..., Path]) -> None:
    shared, own = FloatStorage(np.arange(10)), FloatStorage(np.array([7.0]))
    named = OrderedDict(
        a=Tensor(shared, 0, (2, 3), (3, 1)),
        b=Tensor(shared, 6, (4,), (1,)),
        one=Tensor(own, 0, (1, 1), (5, 9)),  # a stride along a single element means nothing
        scalar=Tensor(own, 0, (), ()),
        turned=Tensor(shared, 1, (3, 2), (1, 3)),  # as transposing leaves them
        none=Tensor(shared, 10, (0, 3), (3, 1)),
    )
    tensors = read_tensors(save(named, shared, own))
    assert list(tensors) == list(named)
    np.testing.assert_array_equal(tensors["turned"], [[1, 4], [2, 5], [3, 6]])
    assert tensors["none"].shape == (0, 3)
    np.testing.assert_array_equal(tensors["a"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(tensors["b"], [6, 7, 8, 9])
    assert tensors["one"].tolist() == [[7]]
    assert tensors["scalar"] == 7
    assert tensors["a"].dtype == np.float32


class Hostile:
    """Makes a folder when it is unpickled as usual."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("where", ["object", "value", "first pickle"])
def test_nothing_in_a_file_is_run(save: Callable[..., Path], tmp_path: Path, where: str) -> None:
    harm = tmp_path / "harm"
    path = save({"a": Hostile(harm)} if where == "value" else Hostile(harm))
    if where == "first pickle":
        path.write_bytes(pickle.dumps(Hostile(harm)))
    with pytest.raises(ModelError, match=r"weights\.pth is not .*it names (posix|nt)\.mkdir.*fetch it again"):
        read_tensors(path)
    assert not harm.exists()
    if where == "first pickle":
        pickle.loads(path.read_bytes())
        assert harm.exists()  # so it would have been


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ((8, (4,), (1,)), r"a tensor \(4,\) with strides \(1,\) from element 8 of 10"),
        ((-2, (2,), (1,)), r"a tensor \(2,\) with strides \(1,\) from element -2 of 10"),
        ((3, (2, 3), (1, 3)), r"a tensor \(2, 3\) with strides \(1, 3\) from element 3 of 10"),
        ((9, (4,), (-1,)), r"a tensor \(4,\) with strides \(-1,\)"),
        ((0, (-1, -1), (1, 1)), r"a tensor \(-1, -1\)"),
        ((0, (1 << 40, 1 << 40), (0, 0)), r"with strides \(0, 0\)"),  # memory for no one
    ],
)
def test_tensors_that_cannot_be(save: Callable[..., Path], tensor: tuple[Any, ...], message: str) -> None:
    storage = FloatStorage(np.arange(10))
    with pytest.raises(ModelError, match=message):
        read_tensors(save({"a": Tensor(storage, *tensor)}, storage))


@pytest.mark.parametrize("save", ["pickles"], indirect=True)
def test_a_storage_that_claims_too_much(save: Callable[..., Path]) -> None:
    storage = FloatStorage(np.arange(10))
    with pytest.raises(ModelError, match=r"a storage of 1152921504606846976 elements ends early"):
        read_tensors(save({"a": Tensor(storage, 0, (4,), (1,))}, storage, claimed=1 << 60))


EMPTY = pickle.dumps({})


@pytest.mark.parametrize(
    ("files", "method", "message"),
    [
        ({"data.pkl": EMPTY, "data/0": bytes(1 << 20)}, zipfile.ZIP_DEFLATED, "members are larger than the file"),
        ({"data.pkl": EMPTY, "byteorder": b"big"}, zipfile.ZIP_STORED, "big-endian"),
        ({"data/0": bytes(8)}, zipfile.ZIP_STORED, "no item named 'archive/data.pkl'"),
        ({}, zipfile.ZIP_STORED, "it starts with|damaged"),
    ],
)
def test_zip_archives_that_cannot_be(tmp_path: Path, files: dict[str, bytes], method: int, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read_tensors(zipped(tmp_path / "weights.pth", files, method))


@pytest.mark.parametrize("save", ["zip"], indirect=True)
def test_a_damaged_byte_of_a_zip_archive(save: Callable[..., Path]) -> None:
    storage = FloatStorage(np.full(10, 7.0))
    path = save({"a": Tensor(storage, 0, (10,), (1,))}, storage)
    path.write_bytes(path.read_bytes().replace(np.full(10, 7, "<f4").tobytes(), np.full(10, 8, "<f4").tobytes()))
    with pytest.raises(ModelError, match="CRC-32"):
        read_tensors(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip", b"<html>not found</html>", pickle.dumps(3)])
def test_files_of_another_kind(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"weights\.pth is not a checkpoint of tensors, or is damaged"):
        read_tensors(path)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.99])
def test_a_file_that_ends_early(deepface_home: Path, tmp_path: Path, share: float) -> None:
    content = weights_files(zoo.card("Fasnet"))[0].read_bytes()
    path = tmp_path / "weights.pth"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError, match="damaged"):
        build_graph(path)


def test_tensors_of_another_network(save: Callable[..., Path]) -> None:
    storage = FloatStorage(np.arange(10))
    with pytest.raises(ModelError, match=r"weights\.pth is not a MiniFASNet \('conv1\.conv\.weight'\)"):
        build_graph(save({"module.a": Tensor(storage, 0, (10,), (1,))}, storage))

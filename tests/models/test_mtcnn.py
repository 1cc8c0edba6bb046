"""The detector by itself: batches, sizes, edges, memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.errors import ModelError
from pipeline.faces.models import create_detector, zoo
from pipeline.faces.models.base import Detector, Faces
from pipeline.faces.models.detectors.mtcnn import MtcnnDetector, Thresholds
from pipeline.faces.models.detectors.mtcnn_graph import build_graph
from pipeline.machine.device import Device
from pipeline.models.session import create_session
from pipeline.models.weights import weights_files
from tests.devices import assert_same_faces


def of_frame(faces: Faces, index: int) -> Faces:
    mine = faces.frame == index
    return Faces(faces.frame[mine], faces.box[mine], faces.landmarks[mine], faces.confidence[mine])


def assert_same(device: Device, faces: Faces, expected: Faces, index: int, expected_index: int = 0) -> None:
    assert_same_faces(of_frame(faces, index), of_frame(expected, expected_index), device)


@pytest.fixture(scope="module")
def frames(astronaut: np.ndarray) -> np.ndarray:
    """Five frames of one size: a face, its mirror image, none, two faces, a face that the edge cuts."""
    small = cv2.resize(astronaut, (256, 256), interpolation=cv2.INTER_AREA)
    two = np.concatenate([small, small[:, ::-1]], axis=1)
    return np.stack(
        [
            np.pad(small, ((0, 0), (0, 256), (0, 0))),
            np.pad(small[:, ::-1], ((0, 0), (256, 0), (0, 0))),
            np.full((256, 512, 3), 90, np.uint8),
            two,
            np.pad(small[:, 110:], ((0, 0), (0, 366), (0, 0)))[:, :512],
        ]
    )


@pytest.mark.parametrize("threads", [1, 2])
def test_results_do_not_depend_on_batch_or_threads(
    device: Device, detector: Detector, frames: np.ndarray, threads: int
) -> None:
    together = create_detector("mtcnn", dataclasses.replace(device, threads=threads)).detect(frames)
    assert np.bincount(together.frame, minlength=5).tolist()[:4] == [1, 1, 0, 2]
    for index, frame in enumerate(frames):
        assert_same(device, together, detector.detect(frame[None]), index)


@pytest.mark.parametrize("memory", [1 << 20, 4 << 20])
def test_results_do_not_depend_on_memory(device: Device, detector: Detector, frames: np.ndarray, memory: int) -> None:
    """Little memory cuts levels of the pyramid into strips, and candidates into small batches."""
    lean = create_detector("mtcnn", dataclasses.replace(device, batch_memory_bytes=memory)).detect(frames)
    plenty = detector.detect(frames)
    for index in range(len(frames)):
        assert_same(device, lean, plenty, index, index)


def test_frames_of_different_sizes(
    device: Device, detector: Detector, astronaut: np.ndarray, grace_hopper: np.ndarray
) -> None:
    tiny = astronaut[:9, :200]
    mixed = [astronaut, tiny, grace_hopper, astronaut[:, ::-1]]
    faces = detector.detect(mixed)
    assert sorted(set(faces.frame.tolist())) == [0, 2, 3]
    for index, frame in enumerate(mixed):
        assert_same(device, faces, detector.detect([frame]), index)


def test_order_within_a_frame(detector: Detector, frames: np.ndarray) -> None:
    faces = detector.detect(np.concatenate([frames, frames]))
    keys = [
        (frame, -confidence, *box[:2])
        for frame, confidence, box in zip(faces.frame, faces.confidence, faces.box, strict=True)
    ]
    assert keys == sorted(keys)


@pytest.mark.parametrize(
    "shape", [(0, 64, 64, 3), (2, 64, 64, 3), (1, 1, 1, 3), (1, 11, 400, 3), (1, 12, 12, 3), (3, 19, 30, 3)]
)
def test_no_face(detector: Detector, shape: tuple[int, ...]) -> None:
    faces = detector.detect(np.zeros(shape, np.uint8))
    assert faces.frame.shape == (0,)
    assert faces.frame.dtype == np.int64
    assert faces.box.shape == (0, 4)
    assert faces.landmarks.shape == (0, 5, 2)
    assert {array.dtype for array in (faces.box, faces.landmarks, faces.confidence)} == {np.dtype(np.float32)}


def test_no_frames(detector: Detector) -> None:
    assert len(detector.detect([]).frame) == 0


def test_a_larger_min_face_finds_larger_faces_only(device: Device, astronaut: np.ndarray) -> None:
    face = create_detector("mtcnn", device, min_face=40).detect(astronaut[None])
    assert len(face.frame) == 1
    assert len(create_detector("mtcnn", device, min_face=400).detect(astronaut[None]).frame) == 0


@pytest.mark.parametrize("frame", [np.zeros((40, 40), np.uint8), np.zeros((40, 40, 3), np.float32)])
def test_wrong_frames(detector: Detector, frame: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"a frame must be uint8 \(height, width, 3\) with pixels, not"):
        detector.detect([frame])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_face": 8}, "min_face is 8, but 12 pixels"),
        ({"scale_factor": 1.0}, "scale_factor is 1.0"),
        ({"thresholds": Thresholds(onet=1.5)}, "threshold_onet is 1.5"),
        ({"thresholds": Thresholds(pnet=0.0)}, "threshold_pnet is 0.0"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        MtcnnDetector(Device(), **options)


class Short:
    """A session that has memory for so many items only, and says so in ONNX Runtime's words."""

    def __init__(self, session: Any, most: int, message: str) -> None:
        self.session, self.most, self.message = session, most, message
        self.tried: list[int] = []

    def run(self, outputs: Any, inputs: dict[str, np.ndarray]) -> Any:
        (items,) = inputs.values()
        self.tried.append(len(items))
        if len(items) > self.most:
            raise RuntimeError(self.message)
        return self.session.run(outputs, inputs)


ARENA = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Conv node. "
    "bfc_arena.cc:376 Failed to allocate memory for requested buffer of size 7798784"
)


@pytest.mark.parametrize("message", [ARENA, "CUDA failure 2: out of memory", "CUDNN_STATUS_ALLOC_FAILED"])
def test_out_of_memory_halves_the_batch_and_remembers(
    frames: np.ndarray, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.faces.models.detectors import mtcnn
    from pipeline.models import session

    monkeypatch.setattr(session, "_fits", {})
    monkeypatch.setattr(mtcnn, "frames_at_once", lambda *_: 5)
    short = create_detector("mtcnn", Device(index=3))
    pnet = Short(short._sessions["pnet"], 2, message)
    rnet = Short(short._sessions["rnet"], 7, message)
    short._sessions.update(pnet=pnet, rnet=rnet)
    expected = create_detector("mtcnn", Device()).detect(frames)
    assert dataclasses.astuple(short.detect(frames))[1].tolist() == expected.box.tolist()
    assert pnet.tried[:2] == [5, 2]
    assert max(pnet.tried[2:]) == 2
    tried = len(rnet.tried)
    short.detect(frames)
    assert max(rnet.tried[tried:]) <= 7, "the size that fits was not remembered"


def test_not_even_one_item_fits(frames: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.models import session

    monkeypatch.setattr(session, "_fits", {})
    short = create_detector("mtcnn", Device())
    short._sessions["pnet"] = Short(short._sessions["pnet"], 0, ARENA)
    with pytest.raises(ModelError, match=r"'mtcnn pnet': not even one item of shape \(256, 512\) fits"):
        short.detect(frames)


def test_other_errors_of_a_session_are_not_taken_for_memory(frames: np.ndarray) -> None:
    broken = create_detector("mtcnn", Device())
    broken._sessions["pnet"] = Short(broken._sessions["pnet"], 0, "INVALID_ARGUMENT: unexpected rank")
    with pytest.raises(RuntimeError, match="unexpected rank"):
        broken.detect(frames)


@pytest.mark.parametrize(
    ("name", "index", "shape"),
    [
        ("pnet", 0, (2, 3, 41, 64)),
        ("pnet", 0, (1, 3, 32, 37)),
        ("rnet", 1, (3, 24, 24, 3)),
        ("onet", 2, (3, 48, 48, 3)),
    ],
)
def test_the_graph_for_a_gpu_computes_the_same(name: str, index: int, shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(5).uniform(0, 255, shape).astype(np.float32)
    path = weights_files(zoo.card("mtcnn"))[index]
    results = []
    for portable in (False, True):
        session = create_session(build_graph(name, path, portable), Device())
        results.append(session.run(None, {session.get_inputs()[0].name: pixels}))
    for ours, theirs in zip(*results, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda content: b"no weights"])
def test_a_damaged_file_is_named(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / "pnet.lz4"
    path.write_bytes(damage(weights_files(zoo.card("mtcnn"))[0].read_bytes()))
    with pytest.raises(ModelError, match=r"pnet\.lz4 does not hold the weights of mtcnn 1\.x .*; run: pip install"):
        build_graph("pnet", path, False)

"""yunet, retinaface and centerface: what DeepFace's clients find, and what holds for each of the three.

YuNet runs its real weights; the two whose weights are not at hand run stand-ins (stand_ins.py), as their clients do.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.errors import ModelError
from pipeline.faces.models.base import Faces
from pipeline.faces.models.detectors import retinaface, whole_frame
from pipeline.faces.models.detectors.base import taken
from pipeline.faces.models.detectors.centerface import CenterFaceDetector
from pipeline.faces.models.detectors.retinaface import RetinaFaceDetector
from pipeline.faces.models.detectors.yunet import YunetDetector
from pipeline.machine.device import Device
from pipeline.models import session

from .conftest import read_rgb
from .stand_in_detectors import stand_in_centerface, stand_in_retinaface

CLASSES = {"yunet": YunetDetector, "retinaface": RetinaFaceDetector, "centerface": CenterFaceDetector}
FILES = {
    "yunet": "face_detection_yunet_2023mar.onnx",
    "retinaface": "retinaface.onnx",
    "centerface": "centerface.onnx",
}
PICTURES = ("oar_test_image", "ul_02", "ul_09", "no-faces", "odd", "small", "wide", "black")
Detectors = dict[str, YunetDetector | RetinaFaceDetector | CenterFaceDetector]

# OpenCV's YuNet gives boxes of 1e21 pixels for a picture of 31 × 20 after larger ones: below 32 pixels there is
# nothing of DeepFace's to compare with.


@pytest.fixture(scope="module", autouse=True)
def weights(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """DeepFace's folder of weights, with YuNet's and two stand-ins."""
    home = tmp_path_factory.mktemp("home")
    folder = home / ".deepface" / "weights"
    folder.mkdir(parents=True)
    (folder / FILES["yunet"]).symlink_to(data_dir / "weights" / "deepface" / FILES["yunet"])
    (folder / FILES["retinaface"]).write_bytes(stand_in_retinaface())
    (folder / FILES["centerface"]).write_bytes(stand_in_centerface())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPFACE_HOME", str(home))
        yield folder


@pytest.fixture(scope="module")
def detectors() -> Detectors:
    return {name: make(Device()) for name, make in CLASSES.items()}


@pytest.fixture(scope="module")
def pictures(data_dir: Path) -> dict[str, np.ndarray]:
    """uint8 RGB of several sizes, none above 800 pixels, as retina-face's loops take long."""
    found = {}
    for name, side in (("oar_test_image", 480), ("ul_02", 480), ("ul_09", 800), ("no-faces", 320)):
        picture = read_rgb(data_dir / "faces" / "groups" / f"{name}.jpg")
        scale = min(1, side / max(picture.shape))
        found[name] = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    group = found["ul_02"]
    found["odd"] = np.ascontiguousarray(group[:201, :157])
    found["small"] = np.ascontiguousarray(group[40:85, 100:141])
    found["wide"] = cv2.resize(group, (700, 90))
    found["black"] = np.zeros((90, 160, 3), np.uint8)
    return found


@pytest.fixture(scope="module")
def stock(pictures: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What DeepFace's clients find: detector, picture, faces as stock_clients.py describes them."""
    pytest.importorskip("deepface")
    folder = tmp_path_factory.mktemp("stock")
    np.savez(folder / "pictures.npz", **{name: picture[..., ::-1] for name, picture in pictures.items()})
    program = Path(__file__).with_name("stock_clients.py")
    command = [sys.executable, "-W", "ignore", str(program), str(folder / "pictures.npz"), str(folder / "found.json")]
    subprocess.run(command, check=True, capture_output=True, timeout=240)
    found: dict[str, dict[str, Any]] = json.loads((folder / "found.json").read_text())
    return found


def equal(one: Faces, other: Faces) -> None:
    for field in ("frame", "box", "landmarks", "confidence"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field), err_msg=field)


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("name", CLASSES)
def test_areas_are_those_of_the_client(
    detectors: Detectors, pictures: dict[str, np.ndarray], stock: dict[str, dict[str, Any]], name: str, picture: str
) -> None:
    ours, theirs = detectors[name].areas([pictures[picture]]), stock[name][picture]
    assert len(ours.frame) == len(theirs)
    assert picture != "oar_test_image" or len(theirs) >= 3
    for at, (box, confidence, points) in enumerate(theirs):
        np.testing.assert_array_equal(ours.box[at], box)
        assert ours.confidence[at] == pytest.approx(confidence, abs=5e-6)
        for mine, point in zip(ours.landmarks[at], points, strict=True):
            np.testing.assert_array_equal(mine, [np.nan, np.nan] if point is None else point)


@pytest.mark.parametrize("method", ["detect", "areas"])
@pytest.mark.parametrize("name", CLASSES)
def test_a_batch_changes_nothing(
    detectors: Detectors,
    pictures: dict[str, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    method: str,
) -> None:
    monkeypatch.setattr(whole_frame, "CPU_BATCH_PIXELS", 2**26)
    one = pictures["ul_02"]
    frames = [one, pictures["odd"], np.ascontiguousarray(one[:, ::-1]), pictures["black"], pictures["odd"], one]
    find = getattr(detectors[name], method)
    together = find(frames)
    assert len(together.frame) > 3
    for at, frame in enumerate(frames):
        alone = find([frame])
        equal(taken(together, np.flatnonzero(together.frame == at)), Faces(alone.frame + at, *rest(alone)))


def rest(faces: Faces) -> tuple[Any, ...]:
    return faces.box, faces.landmarks, faces.confidence


@pytest.mark.parametrize("name", CLASSES)
def test_frames_amid_black(detectors: Detectors, pictures: dict[str, np.ndarray], name: str) -> None:
    frames = [pictures["odd"], pictures["ul_02"], pictures["odd"][::-1], pictures["black"], pictures["odd"]]
    padded = [np.pad(frame, [(frame.shape[0] // 2,) * 2, (frame.shape[1] // 2,) * 2, (0, 0)]) for frame in frames]
    expected = detectors[name].areas(padded)
    assert len(expected.frame) > 3
    equal(detectors[name].padded_areas(frames), expected)


@pytest.mark.parametrize("name", CLASSES)
def test_native_faces_are_sorted_and_in_pixels_of_the_frame(
    detectors: Detectors, pictures: dict[str, np.ndarray], name: str
) -> None:
    picture = pictures["ul_09"]
    faces = detectors[name].detect(np.stack([picture, picture[::-1]]))
    assert faces.box.dtype == faces.landmarks.dtype == faces.confidence.dtype == np.float32
    assert faces.frame.dtype == np.int64
    assert set(faces.frame) == {0, 1}
    assert not np.isnan(faces.landmarks).any()
    keys = [(f, -c, *b[:2]) for f, c, b in zip(faces.frame, faces.confidence, faces.box, strict=True)]
    assert keys == sorted(keys)
    centre = faces.box[:, :2] + faces.box[:, 2:] / 2
    assert (centre >= 0).all()
    assert (centre <= [picture.shape[1], picture.shape[0]]).all()


@pytest.mark.parametrize("method", ["detect", "areas"])
@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 70), (20, 31)])
def test_tiny_frames_and_none_at_all(detectors: Detectors, name: str, method: str, shape: tuple[int, int]) -> None:
    find = getattr(detectors[name], method)
    faces = find([np.zeros((*shape, 3), np.uint8)])
    if name == "retinaface" and shape[0] != shape[1]:  # its stand-in sees something at the edges of a stretched frame
        assert (faces.box[:, :2] + faces.box[:, 2:] <= np.array(shape[::-1])).all()
    else:
        assert len(faces.frame) == 0
    nothing = find([])
    assert nothing.box.shape == (0, 4)
    assert nothing.landmarks.shape == (0, 5, 2)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize(
    "frame", [np.zeros((9, 9, 3), np.float32), np.zeros((9, 9), np.uint8), np.zeros((0, 9, 3), np.uint8)]
)
def test_what_is_no_frame_is_refused(detectors: Detectors, name: str, frame: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"a frame must be uint8 \(height, width, 3\)"):
        detectors[name].detect([frame])


@pytest.mark.parametrize("name", CLASSES)
def test_out_of_memory_halves_the_batch(
    detectors: Detectors, pictures: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    detector = detectors[name]
    frames = np.stack([pictures["odd"]] * 5)
    expected = detector.detect(frames)
    monkeypatch.setattr(whole_frame, "CPU_BATCH_PIXELS", 2**26)
    monkeypatch.setattr(session, "_fits", {})
    small = _SmallSession(detector._session, most=2)
    monkeypatch.setattr(detector, "_session", small)
    equal(detector.detect(frames), expected)
    assert small.sizes[:2] == [5, 2]
    assert max(small.sizes[1:]) == 2


class _SmallSession:
    """A session that has memory for so many pictures."""

    def __init__(self, real: Any, most: int) -> None:
        self._real, self._most = real, most
        self.sizes: list[int] = []

    def run(self, names: Any, inputs: dict[str, np.ndarray]) -> Any:
        (batch,) = inputs.values()
        self.sizes.append(len(batch))
        if len(batch) > self._most:
            raise RuntimeError("Failed to allocate memory for requested buffer of size 1")
        return self._real.run(names, inputs)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_face": 0}, "min_face is 0, but must be a number of pixels above 0"),
        ({"threshold": 1.5}, "threshold is 1.5, but must be between 0 and 1"),
    ],
)
def test_options_out_of_range(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(ModelError, match=f"^{name}: {message}$"):
        CLASSES[name](Device(), **options)


@pytest.mark.parametrize("name", CLASSES)
def test_weights_that_are_something_else(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path))
    path = tmp_path / ".deepface" / "weights" / FILES[name]
    with pytest.raises(ModelError, match=f"weights of {name} are missing"):
        CLASSES[name](Device())
    path.parent.mkdir(parents=True)
    path.write_bytes(b"<html>404</html>")
    with pytest.raises(ModelError, match="are not an ONNX graph; remove the file and fetch it again"):
        CLASSES[name](Device())
    other = stand_in_centerface() if name == "retinaface" else stand_in_retinaface()
    path.write_bytes(other)
    with pytest.raises(ModelError, match="are of another network"):
        CLASSES[name](Device())


@pytest.mark.parametrize(
    ("name", "variable", "value"),
    [("yunet", "yunet_score_threshold", 0.94), ("centerface", "CENTERFACE_THRESHOLD", 0.6)],
)
def test_the_clients_threshold_is_read_when_it_runs(
    detectors: Detectors,
    pictures: dict[str, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    variable: str,
    value: float,
) -> None:
    usual = detectors[name].areas([pictures["ul_09"]])
    monkeypatch.setenv(variable, str(value))
    changed = detectors[name].areas([pictures["ul_09"]])
    assert 0 < len(changed.frame) < len(usual.frame)
    assert changed.confidence.min() > value
    equal(changed, CLASSES[name](Device(), threshold=value).areas([pictures["ul_09"]]))
    monkeypatch.setenv(variable, "high")
    with pytest.raises(ModelError, match=f"{variable} is 'high', but must be a number"):
        detectors[name].areas([pictures["ul_09"]])


@pytest.mark.parametrize(
    ("shape", "size"),
    [((1080, 1920, 3), (1024, 1820)), ((90, 700, 3), (255, 1980)), ((2000, 1000, 3), (1980, 990))],
)
def test_retinaface_sees_what_the_package_shows_it(shape: tuple[int, int, int], size: tuple[int, int]) -> None:
    view = retinaface.client_view(shape)
    assert (view.picture_height, view.picture_width) == size

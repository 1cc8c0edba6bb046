"""`align: deepface` against stock DeepFace, live, for the detectors that need no TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.errors import ModelError
from pipeline.faces.models import create_detector
from pipeline.faces.models.base import Faces
from pipeline.faces.models.detectors import DetectorOptions
from pipeline.faces.models.detectors.base import joined
from pipeline.faces.models.detectors.deepface_areas import DeepFaceAreas, clipped, expanded
from pipeline.machine.device import Device
from tests.devices import assert_same_faces

from .deepface_faces import our_faces, stock_faces

OPTIONS: list[dict[str, Any]] = [
    {},
    {"max_faces": 1},
    {"expand_percentage": 30},
    {"rotate": False},
    {"rotate": False, "expand_percentage": 90, "max_faces": 2},
]


def written(options: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in options.items()) or "defaults"


@pytest.fixture(scope="module")
def pictures(astronaut: np.ndarray, grace_hopper: np.ndarray) -> dict[str, np.ndarray]:
    """A landscape with two faces of unlike size, an upright one with one at the edge, and none."""
    astronaut = cv2.resize(astronaut[:280, 90:370], (220, 220), interpolation=cv2.INTER_AREA)
    hopper = cv2.resize(grace_hopper[:420, 80:430], (120, 144), interpolation=cv2.INTER_AREA)
    wide = np.full((221, 381, 3), 120, np.uint8)
    wide[:220, 151:371] = astronaut
    wide[40:184, 10:130] = hopper
    return {"wide": wide, "tall": astronaut[45:, 20:160], "none": np.full((90, 131, 3), 77, np.uint8)}


@pytest.mark.parametrize("options", OPTIONS, ids=written)
@pytest.mark.parametrize("name", ["opencv", "dlib"])
def test_boxes_eyes_and_order_as_deepface(
    deepface_home: Path, pictures: dict[str, np.ndarray], name: str, options: dict[str, Any]
) -> None:
    pytest.importorskip(name.replace("opencv", "cv2"))
    ours = create_detector(name, Device(), align="deepface", **options)
    counts = []
    for frame in pictures.values():
        theirs = {"align": options.get("rotate", True), **options}
        theirs.pop("rotate", None)
        expected, confidence = stock_faces(name, frame, **theirs)
        found, score = our_faces(ours, frame)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_allclose(score, confidence, atol=1e-6)
        counts.append(len(expected))
    assert counts[0] >= (1 if "max_faces" in options else 2) or options.get("max_faces") == 2
    assert counts[2] == 0


@pytest.mark.parametrize("name", ["opencv", "dlib", "mtcnn"])
def test_frames_together_as_each_alone(
    device: Device, deepface_home: Path, pictures: dict[str, np.ndarray], name: str
) -> None:
    detector = create_detector(name, device, align="deepface", expand_percentage=10)
    frames = [pictures[name] for name in ("tall", "none", "wide", "tall")]
    together = detector.detect(frames)
    assert len(together.frame) >= 4
    keys = list(zip(together.frame, -together.confidence, together.box[:, 0], together.box[:, 1], strict=True))
    assert keys == sorted(keys)
    for index, frame in enumerate(frames):
        alone, mine = detector.detect([frame]), together.frame == index
        part = Faces(together.frame[mine], together.box[mine], together.landmarks[mine], together.confidence[mine])
        assert_same_faces(part, alone, device)
        assert together.rank is not None
        assert alone.rank is not None
        assert sorted(together.rank[mine]) == sorted(alone.rank)
        if device.kind == "cpu":
            np.testing.assert_array_equal(together.rank[mine], alone.rank)


def test_groups_are_bounded_and_change_nothing(
    pictures: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.faces.models.detectors import deepface_areas

    detector = create_detector("opencv", Device(), align="deepface")
    frames = [pictures["wide"]] * 3
    expected = detector.detect(frames)
    seen: list[int] = []
    inner = detector._detector  # type: ignore[attr-defined]
    areas = inner.areas
    monkeypatch.setattr(inner, "areas", lambda group: seen.append(len(group)) or areas(group))
    monkeypatch.setattr(deepface_areas, "GROUP_BYTES", 2 * 4 * pictures["wide"].nbytes)
    np.testing.assert_array_equal(detector.detect(frames).box, expected.box)
    assert seen == [2, 1]


@pytest.mark.parametrize("name", ["opencv", "skip"])
def test_no_face_is_the_whole_frame_if_asked(pictures: dict[str, np.ndarray], name: str) -> None:
    from deepface.modules import detection

    frame = pictures["none"]
    faces = create_detector(name, Device(), align="deepface", whole_frame=name != "skip").detect([frame])
    (stock,) = detection.extract_faces(frame, detector_backend=name, enforce_detection=False)
    assert stock["face"].shape == frame.shape
    assert stock["confidence"] == faces.confidence[0] == 0
    assert faces.box.tolist() == [[0, 0, frame.shape[1], frame.shape[0]]]
    assert np.isnan(faces.landmarks).all()
    assert faces.rank is not None
    assert faces.rank.tolist() == [0]


def test_no_face_is_none_by_default(pictures: dict[str, np.ndarray]) -> None:
    faces = create_detector("opencv", Device(), align="deepface").detect([pictures["none"]] * 2)
    assert faces.box.shape == (0, 4)
    assert faces.rank is not None
    assert faces.rank.dtype == np.int32
    assert len(create_detector("opencv", Device(), align="deepface").detect([]).frame) == 0


class Given:
    """A detector that finds what it was given, in every frame."""

    def __init__(self, boxes: list[list[int]]) -> None:
        self.boxes = np.array(boxes, np.float32)

    def areas(self, frames: list[np.ndarray]) -> Faces:
        count = len(self.boxes)
        points = np.full((count, 5, 2), np.nan, np.float32)
        score = np.linspace(0.5, 0.9, count).astype(np.float32)
        return joined([Faces(np.full(count, i), self.boxes, points, score) for i in range(len(frames))])

    detect = areas


BOXES = [[-9, 12, 40, 33], [130, 80, 99, 99], [400, 10, 20, 20], [20, 20, 1, 40], [7, 7, 0, 9], [60, 5, 33, 40]]


@pytest.mark.parametrize("options", [*OPTIONS, {"max_faces": 4}, {"expand_percentage": 7}], ids=written)
def test_any_boxes_as_deepface(
    pictures: dict[str, np.ndarray], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Boxes across the edge, beyond it, without area and of equal size, without eyes: those are looked for."""
    from deepface.models.Detector import FacialAreaRegion
    from deepface.modules import modeling

    class Client:
        def detect_faces(self, img: np.ndarray) -> list[FacialAreaRegion]:
            return [FacialAreaRegion(*box, confidence=0.5) for box in BOXES]

    build = modeling.build_model
    monkeypatch.setattr(
        modeling, "build_model", lambda task, model_name: Client() if model_name == "given" else build(task, model_name)
    )
    theirs = {"align": options.get("rotate", True), **options}
    theirs.pop("rotate", None)
    frame = pictures["wide"]
    expected, _ = stock_faces("given", frame, **theirs)
    found, _ = our_faces(DeepFaceAreas(Given(BOXES), DetectorOptions(align="deepface", **options), True), frame)
    np.testing.assert_array_equal(found, expected)


def test_eyes_are_found_where_the_detector_gives_none(pictures: dict[str, np.ndarray]) -> None:
    frame = np.ascontiguousarray(pictures["wide"][:, 151:])
    box = create_detector("opencv", Device(), align="deepface", max_faces=1, rotate=False).detect([frame]).box[0]
    detector = Given([[int(value) for value in box]])
    faces = DeepFaceAreas(detector, DetectorOptions(align="deepface", rotate=False), True).detect([frame])
    right, left = faces.landmarks[0, :2]
    assert box[0] < right[0] < left[0] < box[0] + box[2]
    unsearched = DeepFaceAreas(detector, DetectorOptions(align="deepface", rotate=False), False).detect([frame])
    assert np.isnan(unsearched.landmarks).all()


@pytest.mark.parametrize("percentage", [1, 10, 33, 250])
def test_expansion_and_clip_as_deepface_without_pictures(percentage: int) -> None:
    from deepface.models.Detector import FacialAreaRegion
    from deepface.modules import detection

    chance = np.random.default_rng(percentage)
    boxes = np.concatenate([chance.integers(-60, 260, (80, 2)), chance.integers(0, 200, (80, 2))], axis=1)
    frame = np.zeros((150, 200, 3), np.uint8)
    ours = clipped(expanded(boxes, percentage, (150, 200)), (150, 200))
    for box, mine in zip(boxes, ours, strict=True):
        area = FacialAreaRegion(*(int(value) for value in box), left_eye=(1, 1), right_eye=(1, 1))
        region = detection.extract_face(area, frame, False, percentage, 0, 0, "opencv").facial_area
        assert mine.tolist() == [region.x, region.y, region.w, region.h]


def test_wrong_frames() -> None:
    """DeepFace takes other types than uint8, native detectors do not; neither takes another shape."""
    for align, shape, dtype in (
        ("deepface", (4, 4), "float64"),
        ("deepface", (4, 4, 4), "uint8"),
        ("native", (4, 4, 3), "float32"),
    ):
        name = "mtcnn" if align == "native" else "skip"
        with pytest.raises(ValueError, match=r"a frame must be uint8 \(height, width, 3\) with pixels, not"):
            create_detector(name, Device(), align=align).detect([np.zeros(shape, dtype)])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ssd", r"weights of ssd are missing: no file .*deploy\.prototxt; run: reelgraph models fetch ssd"),
        ("yolov8n", r"detector 'yolov8n' needs the package 'ultralytics', .* run: pip install ultralytics"),
        ("mediapipe", r"detector 'mediapipe' needs the package 'mediapipe', .* run: pip install mediapipe"),
    ],
)
@pytest.mark.parametrize("align", ["native", "deepface"])
def test_what_is_missing(name: str, message: str, align: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path))
    with pytest.raises(ModelError, match=message) as caught:
        create_detector(name, Device(), align=align)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / ".deepface" / "weights"
    folder.mkdir(parents=True)
    for name in ("deploy.prototxt", "res10_300x300_ssd_iter_140000.caffemodel"):
        (folder / name).write_text("<html>Not found</html>")
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path))
    with pytest.raises(ModelError, match="detector 'ssd' cannot start: Exception while calling opencv") as caught:
        create_detector("ssd", Device())
    assert "\n" not in str(caught.value)

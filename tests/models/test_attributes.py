"""Attributes: DeepFace's chips and reports with `align: deepface`, upright boxes with `align: native`.

The weights are stand-ins (tests.models.stand_in_attributes.py); DeepFace's own ONNX engine runs the very same files.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.engine.stage import Chunk
from pipeline.errors import ModelError
from pipeline.faces.models import create_attribute, zoo
from pipeline.faces.models.align import upright_box_transforms, warp_faces
from pipeline.faces.models.base import Attribute, Faces
from pipeline.faces.stages.analyze import Analyze, AnalyzeOptions
from pipeline.machine.device import Device
from pipeline.models.weights import weights_folder
from tests.devices import tolerance
from tests.models.stand_in_attributes import stand_in_attribute, write_stand_ins

NAMES = tuple(card.name for card in zoo.ATTRIBUTES)


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """DEEPFACE_HOME with stand-ins."""
    with pytest.MonkeyPatch.context() as patch:
        home = write_stand_ins(tmp_path_factory.mktemp("stand_ins"))
        patch.setenv("DEEPFACE_HOME", str(home))
        yield home


def faces_at(*boxes: tuple[float, ...], eyes: Any = None) -> Faces:
    landmarks = np.full((len(boxes), 5, 2), np.nan, np.float32)
    if eyes is not None:
        landmarks[:, :2] = eyes
    one = np.ones(len(boxes), np.float32)
    return Faces(np.zeros(len(boxes), np.int64), np.array(boxes, np.float32), landmarks, one)


@pytest.fixture(scope="module")
def crowd(astronaut: np.ndarray) -> Faces:
    """Boxes all over the photograph, some across its edge."""
    chance = np.random.default_rng(5)
    corners, sizes = chance.integers(-20, 420, (23, 2)), chance.integers(30, 200, (23, 2))
    eyes = corners[:, None] + chance.uniform(0.2, 0.8, (23, 2, 2)) * sizes[:, None]
    return faces_at(*np.hstack([corners, sizes]).tolist(), eyes=eyes.astype(np.float32))


# -- beside DeepFace --------------------------------------------------------------------------------------------------

STOCK = """
import json, sys
import cv2
from deepface import DeepFace
reports = {}
for path in sys.argv[1:]:
    reports[path] = DeepFace.analyze(cv2.imread(path), detector_backend="opencv", silent=True)
print(json.dumps(reports, default=float))
"""


@pytest.fixture(scope="module")
def analyzed(
    astronaut: np.ndarray, grace_hopper: np.ndarray, home: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[np.ndarray, dict[str, Any]]]:
    """Photographs, and what DeepFace.analyze says of each face, in a process of its own: it has one engine in each."""
    folder = tmp_path_factory.mktemp("photographs")
    turned = cv2.warpAffine(astronaut, cv2.getRotationMatrix2D((224, 128), 14, 1.0), (512, 512))
    pictures = {str(folder / f"{i}.png"): p for i, p in enumerate((astronaut, grace_hopper, turned))}
    for path, picture in pictures.items():
        cv2.imwrite(path, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    environment = {**os.environ, "DEEPFACE_HOME": str(home), "DEEPFACE_BACKEND_ENGINE": "onnx"}
    done = subprocess.run(
        [sys.executable, "-c", STOCK, *pictures], env=environment, capture_output=True, text=True, check=True
    )
    reports = json.loads(done.stdout.splitlines()[-1])
    return [(pictures[path], report) for path, found in reports.items() for report in found]


def region(report: dict[str, Any]) -> Faces:
    """DeepFace's own box and eyes."""
    at = report["region"]
    eyes = [at[eye] or (math.nan, math.nan) for eye in ("right_eye", "left_eye")]
    return faces_at(tuple(at[side] for side in "xywh"), eyes=np.array(eyes))


@pytest.mark.parametrize("name", NAMES)
def test_values_are_those_of_deepface(
    device: Device, name: str, analyzed: list[tuple[np.ndarray, dict[str, Any]]]
) -> None:
    attribute = create_attribute(name, device, align="deepface")
    assert len(analyzed) >= 3
    assert any(report["region"]["left_eye"] for _, report in analyzed)
    upside_down = []
    for picture, report in analyzed:
        chips = attribute.chips(picture[None], region(report))
        value = attribute.predict(chips)[0]
        theirs = report[name.lower()]
        if name == "Age":
            assert int(value) == theirs or (device.kind != "cpu" and abs(value - theirs - 0.5) < 0.51)
            continue
        classes = zoo.card(name).classes
        assert tuple(theirs) == classes
        np.testing.assert_allclose(value, [theirs[label] / 100 for label in classes], atol=1e-3)
        assert classes[value.argmax()] == report[f"dominant_{name.lower()}"]
        upside_down.append(np.abs(attribute.predict(chips[:, ::-1])[0] - value).max())
    assert name == "Age" or max(upside_down) > 0.01  # the stand-ins do mind what they see


@pytest.mark.parametrize("rotate", [True, False])
def test_rotate_is_deepfaces_align(rotate: bool, astronaut: np.ndarray) -> None:
    """Turned eyes change chips only where they are asked to."""
    attribute = create_attribute("Race", Device(), align="deepface", rotate=rotate)
    level = attribute.chips(astronaut[None], faces_at((180, 70, 90, 100), eyes=[[200, 110], [250, 110]]))
    leaning = attribute.chips(astronaut[None], faces_at((180, 70, 90, 100), eyes=[[200, 110], [250, 130]]))
    assert np.array_equal(level, leaning) is not rotate


# -- batches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("align", ["native", "deepface"])
@pytest.mark.parametrize("name", NAMES)
def test_batches_change_nothing(device: Device, name: str, align: str, astronaut: np.ndarray, crowd: Faces) -> None:
    attribute = create_attribute(name, device, align=align)
    chips = attribute.chips(astronaut[None], crowd)
    together = attribute.predict(chips)
    alone = np.concatenate([attribute.predict(chips[i : i + 1]) for i in range(len(chips))])
    assert together.dtype == np.float32
    assert together.shape == ((23,) if name == "Age" else (23, len(zoo.card(name).classes)))
    limit = tolerance(device, 1e-6) if name != "Age" else tolerance(device, 1e-4, scale=100)
    np.testing.assert_allclose(together, alone, atol=limit)
    if name != "Age":
        np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-5)
    assert attribute.predict(chips[:0]).shape[0] == 0


def test_batches_fit_the_memory_they_are_given(crowd: Faces, astronaut: np.ndarray) -> None:
    attribute = create_attribute("Gender", Device(batch_memory_bytes=80 << 20))
    sizes = watched(attribute)
    attribute.predict(attribute.chips(astronaut[None], crowd))
    assert max(sizes) == 3  # 26 MB each
    assert sum(sizes) == 23


def test_a_graph_of_one_face_is_run_so(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crowd: Faces, astronaut: np.ndarray
) -> None:
    card = zoo.card("Race")
    expected = predicted(create_attribute("Race", Device()), astronaut, crowd)
    weights = write_stand_ins(tmp_path / "home") / ".deepface" / "weights"
    (weights / card.weights[0].name).write_bytes(stand_in_attribute(card, seed=3, batch=1))
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path / "home"))
    attribute = create_attribute("Race", Device())
    sizes = watched(attribute)
    np.testing.assert_allclose(predicted(attribute, astronaut, crowd), expected, atol=1e-6)
    assert set(sizes) == {1}


def predicted(attribute: Attribute, picture: np.ndarray, faces: Faces) -> np.ndarray:
    return attribute.predict(attribute.chips(picture[None], faces))


def watched(attribute: Any) -> list[int]:
    """Sizes of the batches that its session is given from now on."""
    sizes: list[int] = []
    run = attribute._run

    def counted(inputs: np.ndarray) -> np.ndarray:
        sizes.append(len(inputs))
        result: np.ndarray = run(inputs)
        return result

    attribute._run = counted
    return sizes


# -- what cannot be ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("align", ["native", "deepface"])
@pytest.mark.parametrize("name", NAMES)
def test_a_face_outside_the_frame_has_no_value(name: str, align: str, astronaut: np.ndarray) -> None:
    attribute = create_attribute(name, Device(), align=align)
    values = predicted(attribute, astronaut, faces_at((180, 70, 90, 100), (900, 900, 50, 50)))
    assert np.isfinite(values[0]).all()
    assert np.isnan(values[1]).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_black_frame_has_the_value_that_deepface_gives_it(name: str) -> None:
    values = predicted(
        create_attribute(name, Device(), align="deepface"), np.zeros((60, 90, 3), np.uint8), faces_at((0, 0, 90, 60))
    )
    assert np.isfinite(values).all()


def test_weights_of_another_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = zoo.card("Gender")
    weights = write_stand_ins(tmp_path) / ".deepface" / "weights" / card.weights[0].name
    weights.write_bytes(stand_in_attribute(card, seed=0, outputs=7))
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path))
    with pytest.raises(ModelError, match=r"gender_model_weights\.onnx gives 7 values for a face, but Gender has 2"):
        create_attribute("Gender", Device())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("age", {}, "unknown attribute 'age'; did you mean 'Age'"),
        ("Age", {"align": "deep"}, "unknown alignment 'deep'; did you mean 'deepface'"),
    ],
)
def test_unknown_names(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        create_attribute(name, Device(), **options)


def test_chips_of_another_size() -> None:
    with pytest.raises(ValueError, match=r"\(n, 224, 224, 3\), not uint8 \(1, 150, 150, 3\)"):
        create_attribute("Age", Device()).predict(np.zeros((1, 150, 150, 3), np.uint8))


# -- align: native ----------------------------------------------------------------------------------------------------


def test_upright_boxes() -> None:
    """A box in the middle of its chip, as large as fits, the eyes level."""
    faces = faces_at((100, 50, 40, 80), (10, 20, 100, 50), eyes=[[110, 70], [130, 85]])
    faces.landmarks[1] = np.nan
    transforms = upright_box_transforms(faces, (224, 112))

    def onto(face: int, x: float, y: float) -> np.ndarray:
        return np.asarray(transforms[face] @ (x, y, 1))

    for face in range(2):
        x, y, w, h = faces.box[face]
        np.testing.assert_allclose(onto(face, x + (w - 1) / 2, y + (h - 1) / 2), (111.5, 55.5), atol=1e-9)
    eyes = onto(0, 110, 70), onto(0, 130, 85)
    assert abs(eyes[0][1] - eyes[1][1]) < 1e-9
    assert eyes[0][0] < eyes[1][0]
    assert math.dist(*eyes) == pytest.approx(25 * 112 / 80)
    # unknown eyes: not turned; the box reaches from edge to edge of the narrower side
    np.testing.assert_allclose(transforms[1][:, :2], np.eye(2) * 2.24)
    assert onto(1, 9.5, 0)[0] == pytest.approx(-0.5)


def test_native_chips_undo_a_turn(astronaut: np.ndarray) -> None:
    box, eyes = (174, 60, 100, 116), np.array([[202.0, 112.0], [246.0, 112.0]])
    upright = faces_at(box, eyes=eyes)
    turn = cv2.getRotationMatrix2D((box[0] + 49.5, box[1] + 57.5), 30, 1.0)
    leaning = replace(upright, landmarks=upright.landmarks.copy())
    leaning.landmarks[0, :2] = eyes @ turn[:, :2].T + turn[:, 2]
    turned = cv2.warpAffine(astronaut, turn, (512, 512), flags=cv2.INTER_CUBIC)
    expected = warp_faces(astronaut[None], upright, upright_box_transforms(upright, (224, 224)), 224)
    found = create_attribute("Emotion", Device()).chips(turned[None], leaning)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - expected).mean() < 3
    unturned = warp_faces(turned[None], upright, upright_box_transforms(upright, (224, 224)), 224)
    assert np.abs(unturned.astype(int) - expected).mean() > 20


# -- the stage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("race",), ("emotion", "age"), ("race", "gender", "emotion", "age")])
def test_any_of_the_attributes(
    names: tuple[str, ...], astronaut: np.ndarray, crowd: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.faces.stages.analyze.MOST_FACES", 10)
    stage = Analyze(AnalyzeOptions(attributes=names))  # type: ignore[arg-type]
    stage.load(Device())
    assert {info.name for info in stage.models()} == {name.title() for name in names}
    frames = np.stack([np.zeros_like(astronaut), astronaut])
    counts = np.array([0, len(crowd.frame)], np.int32)
    arrays = {"frames_rgb": frames, "n_faces": counts, "box": crowd.box, "landmarks": crowd.landmarks}
    made = stage.run(Chunk("a", 0, np.arange(2), np.arange(2.0), np.ones(2, bool), arrays))
    assert set(made) == {array.name for array in stage.outputs} == set(names)
    for array in stage.outputs:
        assert made[array.name].shape == (len(crowd.frame), *array.shape)
        expected = predicted(create_attribute(array.name.title(), Device()), astronaut, crowd)
        np.testing.assert_allclose(made[array.name], expected, atol=1e-4)


def test_options_of_the_stage() -> None:
    in_order = AnalyzeOptions(attributes=("race", "age", "age"))
    assert in_order == AnalyzeOptions(attributes=("age", "race"))
    with pytest.raises(ValueError, match="ages"):
        AnalyzeOptions(attributes=("ages",))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1"):
        AnalyzeOptions(attributes=())


def test_a_file_that_is_no_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path))
    path = weights_folder() / "gender_model_weights.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"<html>Not Found</html>")
    with pytest.raises(ModelError, match=r"weights of Gender cannot be read: .*; delete it and run: reelgraph models"):
        create_attribute("Gender", Device())

"""pipeline.deepface beside DeepFace itself: the same calls, on the same kinds of input, with the same results.

Modelled on the kinds of check that DeepFace's own tests of represent, analyze and find make.
"""

from __future__ import annotations

import base64
import inspect
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

import pipeline
from pipeline.errors import InputError, ModelError, StoreError, UsageError, WorkflowError
from pipeline.faces.models import zoo
from pipeline.models.weights import weights_files
from tests.models.stand_in_attributes import write_stand_ins

DLIB = {"model_name": "Dlib", "detector_backend": "opencv"}


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """DEEPFACE_HOME with the weights that packages carry."""
    folder = tmp_path_factory.mktemp("home")
    weights = folder / ".deepface" / "weights"
    weights.mkdir(parents=True)
    (packaged,) = weights_files(zoo.card("Dlib"))
    (weights / packaged.name).symlink_to(packaged)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPFACE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def deepface() -> Any:
    from deepface import DeepFace

    return DeepFace


@pytest.fixture(scope="module")
def portraits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery: two people, a picture twice under other names, and a picture without anybody."""
    import skimage.data
    from matplotlib.cbook import get_sample_data

    folder = tmp_path_factory.mktemp("portraits")
    astronaut = skimage.data.astronaut()[:, :, ::-1]
    with get_sample_data("grace_hopper.jpg") as file:
        hopper = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)
    hopper = cv2.resize(hopper, None, fx=0.8, fy=0.8)
    for name, picture in (("eileen", astronaut), ("grace", hopper), ("mirrored", astronaut[:, ::-1])):
        (folder / name).mkdir()
        cv2.imwrite(str(folder / name / "one.png"), picture)
    cv2.imwrite(str(folder / "nobody.png"), np.full((200, 200, 3), 90, np.uint8))
    return folder


@pytest.fixture(scope="module")
def astronaut(portraits: Path) -> np.ndarray:
    return cv2.imread(str(portraits / "eileen" / "one.png"))


@pytest.fixture(scope="module")
def couple(portraits: Path, astronaut: np.ndarray) -> np.ndarray:
    """Two faces in one picture."""
    other = cv2.imread(str(portraits / "grace" / "one.png"))[:512]
    padded = np.zeros((512, other.shape[1], 3), np.uint8)
    padded[: other.shape[0]] = other
    return np.hstack([astronaut, padded])


def only(results: Iterator[tuple[int, Any]]) -> Any:
    ((index, result),) = list(results)
    assert index == 0
    return result


def _place(face: dict[str, Any]) -> tuple[int, int]:
    return face["facial_area"]["x"], face["facial_area"]["y"]


def assert_equal_faces(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    """The same faces; in any order, for OpenCV's cascade, on several threads, lists them in any."""
    assert len(ours) == len(theirs)
    for one, other in zip(sorted(ours, key=_place), sorted(theirs, key=_place), strict=True):
        assert list(one) == list(other)
        assert one["facial_area"] == other["facial_area"]
        assert one["face_confidence"] == other["face_confidence"]
        assert type(one["face_confidence"]) is type(other["face_confidence"])
        assert isinstance(one["embedding"], list)
        a, b = np.array(one["embedding"]), np.array(other["embedding"])
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.9999
        np.testing.assert_allclose(np.linalg.norm(a), np.linalg.norm(b), rtol=1e-3)


@pytest.mark.parametrize("name", ["represent", "analyze", "find"])
def test_parameters_are_deepfaces_in_its_order(deepface: Any, name: str) -> None:
    theirs = list(inspect.signature(getattr(deepface, name)).parameters.values())
    ours = list(inspect.signature(getattr(pipeline.deepface, name)).parameters.values())
    assert [(one.name, one.default) for one in ours[1 : len(theirs)]] == [(one.name, one.default) for one in theirs[1:]]
    assert {one.kind for one in ours[: len(theirs)]} == {inspect.Parameter.POSITIONAL_OR_KEYWORD}


# -- represent --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"align": False},
        {"expand_percentage": 15, "max_faces": 1},
        {"enforce_detection": False, "l2_normalize": True},
        {"minmax_normalize": True, "normalization": "VGGFace2"},
        {"detector_backend": "skip"},
        {"detector_backend": "skip", "anti_spoofing": True},
    ],
    ids=str,
)
def test_represent_equals_deepface(deepface: Any, couple: np.ndarray, options: dict[str, Any]) -> None:
    wanted = {**DLIB, **options}
    ours = only(pipeline.deepface.represent(couple, **wanted))
    assert_equal_faces(ours, deepface.represent(couple, **wanted))
    assert len(ours) == (1 if {"max_faces", "detector_backend"} & set(options) else 2)


@pytest.mark.parametrize("detector", ["opencv", "skip"])
def test_return_face_is_what_the_network_was_fed(deepface: Any, astronaut: np.ndarray, detector: str) -> None:
    """With the detector skip DeepFace scales in 8 bits, a step of 1/255 from what it does otherwise."""
    wanted = {**DLIB, "detector_backend": detector, "return_face": True}
    ours = only(pipeline.deepface.represent(astronaut, **wanted))
    theirs = deepface.represent(astronaut, **wanted)
    np.testing.assert_allclose(ours[0]["face"], theirs[0]["face"], atol=1e-6)
    np.testing.assert_allclose(ours[0]["embedding"], theirs[0]["embedding"], atol=2e-5)


def test_every_kind_of_picture(deepface: Any, portraits: Path, astronaut: np.ndarray) -> None:
    path = portraits / "eileen" / "one.png"
    encoded = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    truth = deepface.represent(astronaut, **DLIB)
    for picture in (astronaut, str(path), path, encoded, io.BytesIO(path.read_bytes())):
        assert_equal_faces(only(pipeline.deepface.represent(picture, **DLIB)), truth)


def test_a_picture_without_a_suffix_is_no_video(deepface: Any, portraits: Path, tmp_path: Path) -> None:
    """FFmpeg would read it too, with other pixels."""
    picture = tmp_path / "upload"
    cv2.imwrite(f"{picture}.jpg", cv2.imread(str(portraits / "grace" / "one.png")))
    shutil.move(f"{picture}.jpg", picture)
    assert_equal_faces(only(pipeline.deepface.represent(picture, **DLIB)), deepface.represent(str(picture), **DLIB))


@pytest.mark.parametrize("picture", [None, 5, b"bytes", {"a": 1}], ids=str)
def test_what_is_no_picture_is_refused_as_deepface_does(deepface: Any, picture: Any) -> None:
    from deepface.modules.exceptions import DataTypeError

    with pytest.raises(DataTypeError) as theirs:
        deepface.represent(picture, **DLIB)
    with pytest.raises(DataTypeError) as ours:
        next(pipeline.deepface.represent(picture, **DLIB))
    assert str(ours.value) == str(theirs.value)


def test_a_picture_that_cannot_be_had_costs_no_other(astronaut: np.ndarray) -> None:
    from deepface.modules.exceptions import ImgNotFound

    frames = pipeline.deepface.represent([astronaut, "/nowhere.jpg", astronaut[:0], astronaut], **DLIB)
    index, first = next(frames)
    assert index == 0
    with pytest.raises(ImgNotFound, match=r"Confirm that /nowhere.jpg exists"):
        next(frames)
    with pytest.raises(ValueError, match=r"a frame must have pixels, not shape \(0, 512, 3\)"):
        next(frames)
    assert list(frames) == [(3, first)]


def test_batches_are_frames_in_order(deepface: Any, portraits: Path, astronaut: np.ndarray) -> None:
    paths = [str(portraits / name / "one.png") for name in ("eileen", "grace")]
    truth = deepface.represent(paths, **DLIB)
    listed = list(pipeline.deepface.represent(paths, **DLIB))
    assert [index for index, _ in listed] == [0, 1]
    for (_, ours), theirs in zip(listed, truth, strict=True):
        assert_equal_faces(ours, theirs)
    four = np.stack([astronaut, astronaut[::-1], astronaut])
    kept = list(pipeline.deepface.represent(four, every=2, **DLIB))
    assert [index for index, _ in kept] == [0, 2]
    assert kept[0][1] == kept[1][1]
    generated = pipeline.deepface.represent((astronaut for _ in range(3)), **DLIB)
    assert len(list(generated)) == 3


def test_no_face_raises_and_the_next_frame_follows(deepface: Any, astronaut: np.ndarray) -> None:
    from deepface.modules.exceptions import FaceNotDetected

    nobody = np.full((120, 160, 3), 80, np.uint8)
    frames = pipeline.deepface.represent([astronaut, nobody, astronaut], **DLIB)
    first = next(frames)
    with pytest.raises(FaceNotDetected, match="Face could not be detected in numpy array"):
        next(frames)
    assert next(frames) == (2, first[1])
    with pytest.raises(StopIteration):
        next(frames)
    ours = only(pipeline.deepface.represent(nobody, enforce_detection=False, **DLIB))
    assert_equal_faces(ours, deepface.represent(nobody, enforce_detection=False, **DLIB))
    assert ours[0]["face_confidence"] == 0


def test_wrong_words_are_told_before_anything_runs() -> None:
    from deepface.modules.exceptions import UnimplementedError

    with pytest.raises(WorkflowError, match="'opencv'"):
        pipeline.deepface.represent(np.zeros((8, 8, 3), np.uint8), detector_backend="opncv")
    with pytest.raises(WorkflowError, match="'Dlib'"):
        pipeline.deepface.represent(np.zeros((8, 8, 3), np.uint8), model_name="Dlb")
    with pytest.raises(ValueError, match="out is for video files"):
        pipeline.deepface.represent(np.zeros((8, 8, 3), np.uint8), out="o.zarr", **DLIB)
    for every in (0, 2.5, "5", None):
        with pytest.raises(ValueError, match=f"every must be a whole number, at least 1, not {every!r}"):
            pipeline.deepface.represent([np.zeros((8, 8, 3), np.uint8)], every=every, **DLIB)  # type: ignore[arg-type]
    with pytest.raises(WorkflowError, match=r"input should be a valid string \(got None\)"):
        pipeline.deepface.represent(np.zeros((8, 8, 3), np.uint8), model_name=None)  # type: ignore[arg-type]
    for function in (pipeline.deepface.represent, pipeline.deepface.analyze):
        with pytest.raises(TypeError, match=r"\(\): unknown parameter 'enforce'; did you mean 'enforce_detection'"):
            function("clip.mp4", enforce=True)
    with pytest.raises(ValueError, match=r"a frame must be \(height, width, 3\) in BGR, of .*, not float64 \(8, 8\)"):
        next(pipeline.deepface.represent(np.zeros((8, 8)), **DLIB))
    with pytest.raises(UnimplementedError, match="Invalid action passed"):
        pipeline.deepface.analyze(np.zeros((8, 8, 3), np.uint8), actions=["mood"])
    with pytest.raises(ValueError, match="`actions` must be a list of strings, not None"):
        pipeline.deepface.analyze(np.zeros((8, 8, 3), np.uint8), actions=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Threshold must be specified"):
        pipeline.deepface.find(np.zeros((8, 8, 3), np.uint8), ".", distance_metric=lambda a, b: 0.0)


@pytest.mark.parametrize("out", [None, "o.zarr"])
def test_what_is_no_video_is_told_at_once(out: str | None, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("clip.mp4\n")
    for path, message in (
        (tmp_path, "is a folder; name a video file"),
        (tmp_path / "text.txt", "text.txt is not a video that FFmpeg can read"),
        (tmp_path / "none.mp4", "no such file"),
        ("/9j/4AAQSkZJRg" + 5000 * "A", r"^/9j/4AAQSkZJRgA{86} cannot be reached: File name too long; name a file$"),
    ):
        with pytest.raises(InputError, match=message):
            pipeline.deepface.represent(path, out=out, **DLIB)


def test_missing_weights_say_how_to_get_them(astronaut: np.ndarray) -> None:
    with pytest.raises(ModelError, match="reelgraph models fetch VGG-Face"):
        next(pipeline.deepface.represent(astronaut))


# -- analyze ----------------------------------------------------------------------------------------------------------

STOCK_ANALYZE = """
import json, sys
import cv2
from deepface import DeepFace
actions = json.loads(sys.argv[2])
picture = cv2.imread(sys.argv[1])
options = {"actions": actions, "detector_backend": "opencv", "enforce_detection": False, "silent": True}
found = [DeepFace.analyze(frame, **options) for frame in (picture, 0 * picture)]
print(json.dumps(found, default=float))
"""


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = write_stand_ins(tmp_path / "stand_ins")
    monkeypatch.setenv("DEEPFACE_HOME", str(home))
    return home


def test_analyze_equals_deepface(couple: np.ndarray, stand_ins: Path, tmp_path: Path) -> None:
    """With stand-ins for the networks, in a process of its own: DeepFace has one engine in each. On a picture, and on a
    black frame, with which films begin."""
    picture, actions = tmp_path / "couple.png", ["race", "age", "emotion", "gender"]
    cv2.imwrite(str(picture), couple)
    words = [sys.executable, "-c", STOCK_ANALYZE, str(picture), json.dumps(actions)]
    environment = {**os.environ, "DEEPFACE_BACKEND_ENGINE": "onnx"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    theirs = json.loads(done.stdout.splitlines()[-1])
    options: dict[str, Any] = {"detector_backend": "opencv", "enforce_detection": False}
    ours = [faces for _, faces in pipeline.deepface.analyze([couple, 0 * couple], actions=actions, **options)]
    assert [len(faces) for faces in ours] == [len(faces) for faces in theirs] == [2, 1]
    for one, other in zip(
        sorted(itertools.chain(*ours), key=lambda face: face["region"]["x"]),
        sorted(itertools.chain(*theirs), key=lambda face: face["region"]["x"]),
        strict=True,
    ):
        assert list(one) == list(other)
        region = {name: list(at) if isinstance(at, tuple) else at for name, at in one["region"].items()}
        assert region == other["region"]
        # Of a black frame the stand-in says that every age is as likely: 50, less what the sum's rounding takes.
        assert abs(one["age"] - other["age"]) <= (one["face_confidence"] == 0)
        assert one["face_confidence"] == other["face_confidence"]
        for action in ("race", "emotion", "gender"):
            assert list(one[action]) == list(other[action])
            np.testing.assert_allclose(list(one[action].values()), list(other[action].values()), atol=0.1)
            assert one[f"dominant_{action}"] == other[f"dominant_{action}"]


def test_a_single_action(astronaut: np.ndarray, stand_ins: Path) -> None:
    ours = only(pipeline.deepface.analyze(astronaut, actions=("emotion"), detector_backend="opencv"))
    assert set(ours[0]) == {"emotion", "dominant_emotion", "region", "face_confidence"}


# -- anti-spoofing ----------------------------------------------------------------------------------------------------


def test_a_spoof_raises_as_deepface_does(data_dir: Path, home: Path) -> None:
    from deepface.modules.exceptions import SpoofDetected

    for file in zoo.card("Fasnet").weights:
        link = home / ".deepface" / "weights" / file.name
        link.symlink_to((data_dir / "weights" / "deepface" / file.name).resolve())
    pictures = [str(data_dir / "faces" / "spoof" / name) for name in ("image_F1.jpg", "image_T1.jpg")]
    frames = pipeline.deepface.represent(pictures, anti_spoofing=True, model_name="Dlib", detector_backend="mtcnn")
    with pytest.raises(SpoofDetected, match="Spoof detected in the given image"):
        next(frames)
    index, live = next(frames)
    assert index == 1
    assert live[0]["face_confidence"] > 0.9


# -- pictures that are not 8 bits -------------------------------------------------------------------------------------


PICTURES = {
    "0 to 1": lambda picture: picture / 255,
    "0 to 1, single": lambda picture: (picture / 255).astype(np.float32),
    "0 to 255": lambda picture: picture.astype(np.float32),
    "0 to 255, fractions": lambda picture: picture + 0.4,
    "above 255": lambda picture: picture * 1.3,
    "below 0": lambda picture: picture / 127.5 - 1,
    "not contiguous": lambda picture: (picture / 255)[::2, ::-2],
    "16 bits": lambda picture: picture.astype(np.uint16),
    "16 bits, scaled": lambda picture: picture.astype(np.uint16) * 257,
    "black": lambda picture: picture * 0.0,
}
"""Kinds of pictures, made of a uint8 one."""


@pytest.mark.parametrize("options", [{}, {"normalization": "Facenet2018"}], ids=str)
@pytest.mark.parametrize("kind", PICTURES)
def test_a_picture_of_another_type_is_represented_whole(
    deepface: Any, astronaut: np.ndarray, kind: str, options: dict[str, Any]
) -> None:
    """If nothing is detected in it, with skip or with enforce_detection=False, which scale its pixels differently."""
    picture = PICTURES[kind](astronaut)
    given = picture.copy()
    for how in ({"detector_backend": "skip"}, {"enforce_detection": False}):
        ours = only(pipeline.deepface.represent(picture, **{**DLIB, **how, **options, "return_face": True}))
        theirs = deepface.represent(picture, **{**DLIB, **how, **options, "return_face": True})
        np.testing.assert_allclose(ours[0].pop("face"), theirs[0].pop("face"), atol=1e-6)
        np.testing.assert_allclose(ours[0]["embedding"], theirs[0]["embedding"], atol=2e-5)
        assert_equal_faces(ours, theirs)
    np.testing.assert_array_equal(picture, given)


@pytest.mark.parametrize("kind", ["0 to 255", "16 bits", "0 to 1"])
def test_faces_are_found_in_a_picture_of_another_type(deepface: Any, couple: np.ndarray, kind: str) -> None:
    """mtcnn sees the scale that it is given, and finds nothing from 0 to 1; OpenCV's cascade finds nothing at all."""
    from deepface.modules.exceptions import FaceNotDetected

    picture = PICTURES[kind](couple)
    for detector in ("opencv", "mtcnn"):
        wanted = {**DLIB, "detector_backend": detector}
        if detector == "mtcnn" and kind != "0 to 1":
            assert_equal_faces(
                only(pipeline.deepface.represent(picture, **wanted)), deepface.represent(picture, **wanted)
            )
            continue
        with pytest.raises(FaceNotDetected):
            deepface.represent(picture, **wanted)
        with pytest.raises(FaceNotDetected, match=f"It is {picture.dtype}; detectors expect uint8, from 0 to 255"):
            next(pipeline.deepface.represent(picture, **wanted))


def test_a_face_that_deepface_gave_is_taken(deepface: Any, astronaut: np.ndarray) -> None:
    """extract_faces gives float64 from 0 to 1, represent float32; their embeddings are those of the whole picture."""
    (whole,) = deepface.represent(astronaut, **DLIB, return_face=True)
    (cut,) = deepface.extract_faces(astronaut, detector_backend="opencv", color_face="bgr")
    assert (cut["face"].dtype, whole["face"].dtype) == (np.float64, np.float32)
    for face in (cut["face"], whole["face"]):
        wanted = {**DLIB, "detector_backend": "skip"}
        ours = only(pipeline.deepface.represent(face, **wanted))
        assert_equal_faces(ours, deepface.represent(face, **wanted))
        np.testing.assert_allclose(ours[0]["embedding"], whole["embedding"], atol=2e-5)
    # red and blue exchanged is another picture, here as there
    swapped = only(pipeline.deepface.represent(cut["face"][:, :, ::-1], **wanted))
    assert np.abs(np.subtract(swapped[0]["embedding"], whole["embedding"])).max() > 0.01


def test_a_face_that_this_gave_is_taken_among_others(astronaut: np.ndarray) -> None:
    (whole,) = only(pipeline.deepface.represent(astronaut, **DLIB, return_face=True))
    pictures = [whole["face"], astronaut, whole["face"].astype(np.float64)]
    options = {**DLIB, "detector_backend": "skip"}
    first, second, third = (faces for _, faces in pipeline.deepface.represent(pictures, **options))
    np.testing.assert_allclose(first[0]["embedding"], whole["embedding"], atol=2e-5)
    np.testing.assert_allclose(third[0]["embedding"], whole["embedding"], atol=2e-5)
    assert np.abs(np.subtract(second[0]["embedding"], whole["embedding"])).max() > 0.01


def test_find_takes_an_extracted_face(deepface: Any, astronaut: np.ndarray, gallery: Path) -> None:
    (cut,) = deepface.extract_faces(astronaut, detector_backend="opencv", color_face="bgr")
    (known,) = [path for path in gallery.iterdir() if path.name == "eileen"]
    cv2.imwrite(str(known / "cut.png"), np.rint(cut["face"] * 255))
    options = {"detector_backend": "skip"}
    (ours,) = only(pipeline.deepface.find(cut["face"], str(gallery), silent=True, **{**DLIB, **options}))
    (theirs,) = deepface_find(deepface, cut["face"], gallery, **options)
    assert ours["identity"].tolist() == theirs["identity"].tolist() == [str(known / "cut.png")]
    np.testing.assert_allclose(ours["distance"], theirs["distance"], atol=1e-4)


def test_analyze_takes_an_extracted_face(deepface: Any, astronaut: np.ndarray, stand_ins: Path) -> None:
    """A face from 0 to 1 is the same face as from 0 to 255 in 8 bits."""
    (cut,) = deepface.extract_faces(astronaut, detector_backend="opencv", color_face="bgr")
    pictures = [cut["face"], np.rint(cut["face"] * 255).astype(np.uint8)]
    options: dict[str, Any] = {"detector_backend": "skip", "anti_spoofing": False}
    (one,), (other,) = (faces for _, faces in pipeline.deepface.analyze(pictures, **options))
    for action in ("race", "emotion", "gender"):
        np.testing.assert_allclose(list(one[action].values()), list(other[action].values()), atol=1e-3)
    assert (one["age"], one["region"]) == (other["age"], other["region"])


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((64, 64), np.uint8),
        np.zeros((64, 64, 1), np.uint8),
        np.zeros((64, 64, 4), np.uint8),
        np.zeros((64, 64, 4)),
        np.zeros((64, 64, 2), np.uint8),
        *(np.zeros((64, 64, 3), dtype) for dtype in (bool, np.float16, np.int8, np.int32, np.int64, complex, object)),
    ],
    ids=lambda picture: f"{picture.dtype} {picture.shape}",
)
def test_pictures_that_deepface_cannot_take_are_refused_in_one_line(deepface: Any, picture: np.ndarray) -> None:
    options = {**DLIB, "detector_backend": "skip"}
    with pytest.raises(Exception):  # noqa: B017, PT011  OpenCV's, numpy's and dlib's own
        deepface.represent(picture, **options)
    with pytest.raises(
        ValueError, match=r"^a frame must be \(height, width, 3\) in BGR, of uint8, .*: convert it first$"
    ):
        next(pipeline.deepface.represent(picture, **options))


# -- a video ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pipeline.faces.demo import make_demo_clip

    return make_demo_clip(tmp_path_factory.mktemp("demo") / "demo.mp4", seconds=3, size=(480, 270)).path


def decoded(clip: Path) -> list[np.ndarray]:
    import av

    with av.open(str(clip)) as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


def test_a_video_gives_what_a_loop_over_its_frames_gives(deepface: Any, clip: Path) -> None:
    frames = decoded(clip)
    seen = 0
    for index, ours in pipeline.deepface.represent(clip, every=25, enforce_detection=False, **DLIB):
        assert index == seen * 25
        assert_equal_faces(ours, deepface.represent(frames[index], enforce_detection=False, **DLIB))
        seen += 1
    assert seen == -(-len(frames) // 25)


def test_with_a_store_it_resumes(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    wanted = {"every": 15, "enforce_detection": False, **DLIB}
    here = list(pipeline.deepface.represent(clip, **wanted))
    link = tmp_path / clip.name  # a store knows its inputs by the paths that they were given
    link.symlink_to(clip)
    stored = list(pipeline.deepface.represent(link, out=out, executor="inline", **wanted))
    assert stored == here
    frames = (out / "demo" / "frame").stat().st_mtime_ns
    again = list(pipeline.deepface.represent(link, out=out, executor="inline", **wanted))
    assert again == here
    assert (out / "demo" / "frame").stat().st_mtime_ns == frames
    with pytest.raises(StoreError, match="expand_percentage: 0 -> 10"):
        next(pipeline.deepface.represent(clip, out=out, executor="inline", expand_percentage=10, **wanted))
    other = pipeline.deepface.represent(clip, out=out, executor="inline", fresh=True, expand_percentage=10, **wanted)
    assert [index for index, _ in other] == [index for index, _ in here]
    with pytest.raises(UsageError, match="unknown executor 'inlin'; did you mean 'inline'"):
        next(pipeline.deepface.represent(clip, out=out, executor="inlin", expand_percentage=10, **wanted))
    with pytest.raises(ValueError, match="return_face needs the pixels"):
        next(
            pipeline.deepface.represent(
                clip, out=out, executor="inline", return_face=True, expand_percentage=10, **wanted
            )
        )


def test_a_video_by_another_name(clip: Path, tmp_path: Path) -> None:
    """A store knows videos by their paths, and a link's is its own."""
    link = tmp_path / "@link.mp4"
    link.symlink_to(clip)
    wanted = {"every": 30, "enforce_detection": False, **DLIB}
    here = [index for index, _ in pipeline.deepface.represent(link, **wanted)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        stored = pipeline.deepface.represent(link.name, out="out.zarr", executor="inline", **wanted)
        assert [index for index, _ in stored] == here


def test_chunks_that_failed_are_left_out_and_tried_again(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.faces.stages.detect import Detect

    monkeypatch.setattr("pipeline.engine.source.MAX_CHUNK_FRAMES", 4)
    sound = Detect.run

    def fails_once(self: Detect, chunk: Any) -> dict[str, np.ndarray]:
        if chunk.index == 1:
            raise ValueError("made to fail")
        return sound(self, chunk)

    def call() -> list[Any]:
        out = tmp_path / "out.zarr"
        wanted = {"every": 15, "enforce_detection": False, "out": out, "executor": "inline", **DLIB}
        return list(pipeline.deepface.represent(clip, **wanted))

    monkeypatch.setattr(Detect, "run", fails_once)
    with pytest.warns(UserWarning, match=r"chunk 1 of .* failed \(detect: ValueError: made to fail .*\); its frames"):
        partly = call()
    monkeypatch.setattr(Detect, "run", sound)
    whole = call()
    ranks = [index for index, _ in whole]
    assert [index for index, _ in partly] == [*ranks[:4], *ranks[8:]]
    assert partly == [one for one in whole if one[0] in {index for index, _ in partly}]


def test_parts_of_a_video(clip: Path) -> None:
    found = pipeline.deepface.represent(clip, every=5, start="0:01", stop=2, enforce_detection=False, **DLIB)
    ranks = [index for index, _ in found]
    assert ranks == list(range(ranks[0], ranks[0] + 5 * len(ranks), 5))
    assert 20 <= ranks[0] <= 30
    assert ranks[-1] < 50


# -- find -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def gallery(portraits: Path, tmp_path: Path) -> Path:
    return shutil.copytree(portraits, tmp_path / "gallery")


def deepface_find(deepface: Any, picture: np.ndarray, gallery: Path, **options: Any) -> Any:
    return deepface.find(picture, str(gallery), silent=True, return_type="pandas", **{**DLIB, **options})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"distance_metric": "euclidean_l2", "threshold": 1.5, "align": False},
        {"distance_metric": "angular", "k": 1},
        {"distance_metric": "euclidean", "similarity_search": True},
    ],
    ids=str,
)
def test_find_equals_deepface(deepface: Any, couple: np.ndarray, gallery: Path, options: dict[str, Any]) -> None:
    ours = only(pipeline.deepface.find(couple, str(gallery), silent=True, **{**DLIB, **options}))
    theirs = deepface_find(deepface, couple, gallery, **options)
    assert len(ours) == len(theirs) == 2
    if ours[0]["source_x"].tolist() != theirs[0]["source_x"].tolist():  # the cascade lists faces in any order
        theirs = theirs[::-1]
    for one, other in zip(ours, theirs, strict=True):
        assert isinstance(one, pd.DataFrame)
        assert list(one.columns) == list(other.columns)
        assert list(one.dtypes) == list(other.dtypes)
        assert one["identity"].tolist() == other["identity"].tolist()
        assert one["hash"].tolist() == other["hash"].tolist()
        for column in ("target_x", "target_w", "source_x", "source_h", "threshold"):
            assert one[column].tolist() == other[column].tolist()
        np.testing.assert_allclose(one["distance"], other["distance"], atol=1e-4)
        np.testing.assert_allclose(one["confidence"], other["confidence"], atol=0.1)
    assert len(ours[0]) + len(ours[1]) > 1


def test_find_as_dicts(deepface: Any, astronaut: np.ndarray, gallery: Path) -> None:
    ours = only(pipeline.deepface.find(astronaut, str(gallery), return_type="dict", silent=True, **DLIB))
    theirs = deepface.find(astronaut, str(gallery), return_type="dict", silent=True, **DLIB)
    assert [set(one) for one in ours[0]] == [set(one) for one in theirs[0]]
    assert [one["identity"] for one in ours[0]] == [one["identity"] for one in theirs[0]]
    np.testing.assert_allclose([o["distance"] for o in ours[0]], [o["distance"] for o in theirs[0]], atol=1e-4)


def test_a_metric_of_ones_own(astronaut: np.ndarray, gallery: Path) -> None:
    def manhattan(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.abs(a - b).sum())

    found = only(
        pipeline.deepface.find(astronaut, str(gallery), distance_metric=manhattan, threshold=1.0, silent=True, **DLIB)
    )
    assert Path(found[0]["identity"][0]).parent.name == "eileen"


def test_the_gallery_is_embedded_once_and_followed(
    astronaut: np.ndarray, gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.faces.people import pictures as module

    embedded: list[str] = []
    embed = module.PictureCache._embed

    def noted(cache: Any, paths: dict[str, str]) -> Any:
        embedded.extend(paths.values())
        return embed(cache, paths)

    monkeypatch.setattr(module.PictureCache, "_embed", noted)
    wanted = {**DLIB, "silent": True, "expand_percentage": 7}
    only(pipeline.deepface.find(astronaut, str(gallery), **wanted))
    assert len(embedded) == 4
    only(pipeline.deepface.find(astronaut, str(gallery), **wanted))
    assert len(embedded) == 4
    cv2.imwrite(str(gallery / "new.png"), astronaut[:, ::-1].copy())
    cv2.imwrite(str(gallery / "newer.png"), astronaut[8:])
    only(pipeline.deepface.find(astronaut, str(gallery), refresh_database=False, **wanted))
    assert len(embedded) == 4
    found = only(pipeline.deepface.find(astronaut, str(gallery), **wanted))
    assert [Path(path).name for path in embedded[4:]] == ["newer.png"]  # new.png has the content of a known one
    assert str(gallery / "newer.png") in found[0]["identity"].tolist()


def test_a_broken_picture_matches_nobody(deepface: Any, astronaut: np.ndarray, gallery: Path) -> None:
    whole = (gallery / "eileen" / "one.png").read_bytes()
    (gallery / "cut.png").write_bytes(whole[:40])
    wanted: dict[str, Any] = {"similarity_search": True, "datastore_format": "npz"}
    with pytest.warns(UserWarning, match=r"cut.png is not a picture that OpenCV can read; no face can match it"):
        ours = only(pipeline.deepface.find(astronaut, str(gallery), silent=True, **wanted, **DLIB))
    (theirs,) = deepface_find(deepface, astronaut, gallery, **wanted)
    assert set(ours[0]["identity"][-2:]) == set(theirs["identity"][-2:])  # of the two without a face in any order
    assert ours[0]["distance"].tolist()[-2:] == theirs["distance"].tolist()[-2:] == [np.inf, np.inf]


def test_a_gallery_without_pictures(tmp_path: Path, astronaut: np.ndarray) -> None:
    from deepface.modules.exceptions import EmptyDatasource, PathNotFound

    with pytest.raises(EmptyDatasource, match="No item found in"):
        pipeline.deepface.find(astronaut, str(tmp_path), **DLIB)
    with pytest.raises(PathNotFound, match="is not a folder of pictures"):
        pipeline.deepface.find(astronaut, str(tmp_path / "nowhere"), **DLIB)

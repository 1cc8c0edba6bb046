"""The stage `objects`: what is kept, in which order, batches, options and what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save_model

from pipeline.engine.workflow import build_workflow
from pipeline.errors import ModelError, WorkflowError
from pipeline.machine.device import Device
from pipeline.objects.models.found import Candidates, Choice, chosen
from pipeline.objects.models.hog import Hog
from tests.objects.made_networks import found, names, picture, save, stage

RNG = np.random.default_rng(5)


def random_candidates(n: int, classes: int) -> Candidates:
    first = RNG.uniform(-50, 500, (n, 2))
    corners = np.concatenate([first, first + RNG.uniform(5, 200, (n, 2))], axis=1)
    return Candidates(corners, RNG.integers(0, classes, n), RNG.uniform(0, 1, n).astype(np.float32))


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    return float(shared / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - shared))


def slowly(given: Candidates, score: float, limit: float) -> list[int]:
    """Return the indices of the candidates to keep, by the definition."""
    kept: list[int] = []
    for index in np.argsort(-given.score, kind="stable"):
        same = [other for other in kept if given.label[other] == given.label[index]]
        if given.score[index] >= score and all(
            overlap(given.corners[index], given.corners[other]) <= limit for other in same
        ):
            kept.append(int(index))
    return kept


@pytest.mark.parametrize("limit", [0.0, 0.3, 0.45, 0.9])
@pytest.mark.parametrize("classes", [1, 3])
def test_suppression_per_class(limit: float, classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given = random_candidates(300, classes)
    given = Candidates(*(values[(given.corners[:, 2:] > 0).all(axis=1)] for values in given))
    kept = slowly(given, 0.25, limit)
    for first in (1000, 40):  # more of them are looked at if the best are too few
        monkeypatch.setattr("pipeline.objects.models.found.FIRST_CANDIDATES", first)
        for most in (300, 5):
            result = chosen(given, Choice(0.25, limit, most), (1000, 1000))
            assert result.score.tolist() == given.score[kept[:most]].tolist()
            assert result.label.tolist() == given.label[kept[:most]].tolist()
            corners = given.corners[kept[:most]].clip(0, 1000)
            np.testing.assert_allclose(result.box[:, :2] + result.box[:, 2:], corners[:, 2:], rtol=1e-5)
    assert 5 < len(kept) < 300


def test_one_box_of_absurd_size_leaves_the_others_alone() -> None:
    corners = np.array([[-1e30, -1e30, 1e30, 1e30], [10, 10, 50, 50], [200, 10, 240, 50], [12, 10, 52, 50]], float)
    given = Candidates(corners, np.array([0, 1, 1, 1]), np.array([0.9, 0.8, 0.7, 0.6], np.float32))
    result = chosen(given, Choice(0.25, 0.45, 300), (300, 300))
    assert result.box.tolist() == [[0, 0, 300, 300], [10, 10, 40, 40], [200, 10, 40, 40]]


def test_equal_scores_have_an_order() -> None:
    corners = np.array([[200, 0, 210, 10], [0, 50, 10, 60], [0, 20, 10, 30]], float)
    given = Candidates(corners, np.zeros(3, int), np.full(3, 0.5, np.float32))
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        shuffled = Candidates(*(values[order] for values in given))
        result = chosen(shuffled, Choice(0.25, 0.45, 300), (300, 300))
        assert result.box[:, :2].tolist() == [[0, 20], [0, 50], [200, 0]]


def test_what_is_kept() -> None:
    given = random_candidates(200, 4)
    everything = chosen(given, Choice(0, 1, 300), (1000, 1000))
    assert len(everything.score) == 200 - int((given.corners[:, 2:] <= 0).any(axis=1).sum())
    assert (np.diff(everything.score) <= 0).all()
    some = chosen(given, Choice(0.5, 1, 7, [1, 3]), (1000, 1000))
    good = np.isin(everything.label, [1, 3]) & (everything.score >= 0.5)
    np.testing.assert_array_equal(some.box, everything.box[good][:7])
    assert set(some.label.tolist()) <= {1, 3}
    assert len(chosen(given, Choice(1.5, 0.45, 300), (9, 9)).score) == 0


def brightness(path: Path, batch: int | str = "n") -> Path:
    """Write a YOLOv8 of one class with one box, whose score is the brightness of its picture."""
    rows = np.zeros((1, 4, 21), np.float32)
    rows[0, :, 3] = [16, 16, 8, 8]
    at = np.zeros((1, 1, 21), np.float32)
    at[0, 0, 3] = 1
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Squeeze", ["mean", "axis"], ["flat"]),
        helper.make_node("Mul", ["flat", "at"], ["score"]),
        helper.make_node("Mul", ["flat", "none"], ["zero"]),
        helper.make_node("Add", ["zero", "rows"], ["boxes"]),
        helper.make_node("Concat", ["boxes", "score"], ["output0"], axis=1),
    ]
    constants = {"at": at, "rows": rows, "none": np.zeros((1, 4, 21), np.float32), "axis": np.array([3])}
    graph = helper.make_graph(
        nodes, "brightness", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 32, 32])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [batch, 5, 21])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


BRIGHT = [80, 250, 10, 200, 120, 90, 255]


@pytest.mark.parametrize("batch", ["n", 1, 4])
@pytest.mark.parametrize("most", [1, 3, 32])
def test_each_picture_has_its_own_objects(tmp_path: Path, device: Device, batch: Any, most: int) -> None:
    made = stage(brightness(tmp_path / "net.onnx", batch), device, batch=most)
    pictures = [np.full((64, 64, 3), value, np.uint8) for value in BRIGHT]
    result = found(made, *pictures, decoded=[True] * 5 + [False, True])
    assert result["n_objects"].tolist() == [1, 1, 0, 1, 1, 0, 1]  # one is too dark, one was not decoded
    np.testing.assert_allclose(result["score"], np.array([80, 250, 200, 120, 255]) / 255, rtol=1e-5)
    np.testing.assert_allclose(result["box"], [[24, 24, 16, 16]] * 5)
    nothing = found(made, *pictures, decoded=[False] * 7)
    assert nothing["n_objects"].tolist() == [0] * 7
    assert nothing["box"].shape == (0, 4)


def test_batches_halve_when_memory_runs_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = stage(brightness(tmp_path / "net.onnx"), batch=4)
    run, sizes = made.detector._session.run, []  # type: ignore[union-attr]

    class Tight:
        def run(self, names: Any, given: dict[str, np.ndarray]) -> Any:
            sizes.append(len(given["x"]))
            if sizes[-1] > 2:
                raise RuntimeError("Failed to allocate memory for requested buffer of size 4096")
            return run(names, given)

    monkeypatch.setattr(made.detector, "_session", Tight())
    result = found(made, *[np.full((32, 32, 3), value, np.uint8) for value in BRIGHT])
    np.testing.assert_allclose(result["score"], np.array([80, 250, 200, 120, 90, 255]) / 255, rtol=1e-5)
    assert sizes == [4, 2, 2, 2, 1]


def test_a_file_that_gives_one_row_whatever_it_takes(tmp_path: Path) -> None:
    """The batch is free in its input and fixed in its output, as of many converters."""
    rows = np.zeros((5, 8400), np.float32)[None]
    path = save(tmp_path / "net.onnx", {"output0": rows}, bare=True)
    message = r"gives 'output0' of shape \(1, 5, 8400\) for 2 pictures; set batch: 1"
    with pytest.raises(ModelError, match=message):
        key(path)
    with pytest.raises(ModelError, match=message):
        found(stage(path), picture(9, 9), picture(9, 9))
    assert key(path, batch=1)
    assert found(stage(path, batch=1), picture(9, 9), picture(9, 9))["n_objects"].tolist() == [0, 0]


def key(path: Path | str, **options: Any) -> str:
    document = {"stages": {"objects": {"model": str(path), **options}}}
    return build_workflow("w", document, Path.cwd()).keys()["objects"]


def test_the_resume_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = brightness(tmp_path / "net.onnx")
    (tmp_path / "one.names").write_text("lamp\n")
    first = key(path, classes=str(tmp_path / "one.names"))
    (tmp_path / "moved").mkdir()
    path.rename(tmp_path / "moved" / "net.onnx")
    (tmp_path / "one.names").rename(tmp_path / "moved" / "names.txt")
    monkeypatch.chdir(tmp_path / "moved")
    assert key("net.onnx", classes="names.txt", batch=2) == first  # content counts, not the place
    assert key("net.onnx", classes=["lamp"]) == first
    assert key("net.onnx", classes=["sun"]) != first
    assert key("net.onnx", classes=["lamp"], score=0.3) != first
    brightness(Path("net.onnx"), 1)
    assert key("net.onnx", classes=["lamp"]) != first


def test_the_key_of_the_default_is_frozen() -> None:
    """Another value here would refuse every store of people that users have."""
    assert key("hog") == "a757c6dafd364d2bc8fc8ebdc2d20a9a"
    assert key("hog", batch=3) == key("hog")


def test_preparation_of_each_family(tmp_path: Path) -> None:
    colour = np.broadcast_to(np.array([10, 20, 30], np.uint8), (8, 8, 3))
    shapes: dict[str, Any] = {
        "yolov5": (3 * 84, 8), "yolov8": (7, 84), "yolox": (84, 8), "detr": (300, 7), "fastestdet": (8, 4, 4),
        "ssd": (1, 5, 7),
    }  # fmt: skip
    expected = {
        "yolov5": [10 / 255, 20 / 255, 30 / 255], "yolov8": [10 / 255, 20 / 255, 30 / 255], "yolox": [30, 20, 10],
        "detr": [10 / 255, 20 / 255, 30 / 255], "fastestdet": [30 / 255, 20 / 255, 10 / 255],
        "ssd": [-117.5 / 127.5, -107.5 / 127.5, -97.5 / 127.5],
    }  # fmt: skip
    for family, shape in shapes.items():
        output = {"out": np.zeros(shape if family != "ssd" else (1, *shape), np.float32)}
        path = save(tmp_path / "net.onnx", output, (64, 64), bare=family == "ssd", batch=1)
        made = stage(path, family=family, classes=["a", "b", "c"])
        assert made.network is not None
        seen = made.network.preparation.batch([colour], 1)
        np.testing.assert_allclose(seen[0, :, 32, 32], expected[family], rtol=1e-5)
        other = stage(path, family=family, classes=["a", "b", "c"], colour="BGR", scale=1, mean=[1, 2, 3], std=2)
        seen = other.network.preparation.batch([colour], 1)  # type: ignore[union-attr]
        np.testing.assert_allclose(seen[0, :, 32, 32], [14.5, 9, 3.5], rtol=1e-5)


def test_bytes_and_colours_last(tmp_path: Path) -> None:
    output = {"out": np.zeros((7, 84), np.float32)}
    path = save(tmp_path / "net.onnx", output, (64, 64), kind=TensorProto.UINT8, last=True)
    made = stage(path, classes=["a", "b", "c"])
    seen = made.network.preparation.batch([np.full((64, 64, 3), 77, np.uint8)], 1)  # type: ignore[union-attr]
    assert (seen.dtype, seen.shape, seen.max()) == (np.uint8, (1, 64, 64, 3), 77)


V5, V8 = {"output0": np.zeros((25200, 85), np.float32)}, {"output0": np.zeros((84, 8400), np.float32)}
LISTED = {"boxes": np.zeros((9, 4), np.float32), "scores": np.zeros(9, np.float32), "labels": np.zeros(9, np.int64)}


@pytest.mark.parametrize(
    ("outputs", "options", "message"),
    [
        (
            V8, {"family": "yolov5"}, r"family yolov5 does not fit model .*net\.onnx, which gives 'output0', float32 "
            r"\(\?, 84, 8400\): 8400 boxes of 84 numbers, boxes last; set family: yolov8",
        ),
        (V5, {"family": "yolov8"}, r"25200 boxes of 85 numbers, numbers last; set family: yolov5"),
        (V5, {"family": "fastestdet"}, r"family fastestdet does not fit .*; set family: yolov5"),
        ({"o": np.zeros((8400, 85), np.float32)}, {"family": "ssd"}, r"8400 boxes of 85 numbers.*set family: yolox"),
        ({"o": np.zeros((85, 22, 22), np.float32)}, {"family": "yolox"}, r"85 numbers for each cell; set family: fast"),
        ({"o": np.zeros((300, 6), np.float32)}, {"family": "ssd"}, r"one score and one class each; set family: yolov8"),
        (LISTED, {"family": "yolov8", "classes": "coco"}, r"boxes, scores and classes; set family: ssd"),
        ({"logits": np.zeros(1000, np.float32)}, {}, r"gives 'logits' \(1, 1000\), which is of no family known here "
         r"\(yolov5, yolov8, yolox, ssd, detr, fastestdet\); name the outputs"),
        (V8, {"outputs": ["output1"]}, r"has no output 'output1'; it has 'output0' \(1, 84, 8400\)"),
        (V8, {"outputs": list("abcd")}, r"has no output 'a'"),
        (V8, {"classes": ["car", "dog"]}, r"gives 8400 boxes of 84 numbers, boxes last, of which 80 are scores of "
         r"classes, and its classes have 2 names; correct classes"),
        (V5, {"classes": "coco", "objectness": False}, r"of which 81 are scores of classes, and its classes have 80"),
        (LISTED, {}, r"does not name its classes; set classes: a list or a file of names"),
        (V8, {"keep": "persn", "classes": "coco"}, r"keep: unknown class 'persn'; did you mean 'person'\?"),
        (V8, {"classes": "/nowhere/coco.names"}, r"classes /nowhere/coco\.names cannot be read: No such file"),
        (V8, {"size": 320}, r"size \[320, 320\] does not fit model"),
        (V5, {"cells": True}, r"cells does not fit model .*; leave it out"),
        (V8, {"model": "yolo"}, r"unknown model 'yolo'.*; valid: hog, or the path of an ONNX file"),
        (V8, {"model": "/nowhere/yolov8n.onnx"}, r"model /nowhere/yolov8n\.onnx cannot be read: No such file"),
        (V8, {"model": "hog", "family": "yolov8"}, r"model hog has no option family; set model to the path of an ONNX"),
        (V8, {"model": "hog", "keep": "dog"}, r"keep: unknown class 'dog'; valid: person"),
        (V8, {"score": "x"}, r"score: input should be a valid number"),
        (V8, {"score": float("nan")}, r"score: input should be a finite number"),
        (V8, {"scale": float("inf")}, r"scale: input should be a finite number"),
        (V8, {"overlap": 2}, r"overlap: input should be less than or equal to 1"),
        (V8, {"family": "yolov9"}, r"family: input should be 'yolov5', 'yolov8'"),
        (V8, {"threshold": 0.5}, r"unknown option 'threshold'"),
    ],
)  # fmt: skip
def test_what_does_not_fit(tmp_path: Path, outputs: Any, options: dict[str, Any], message: str) -> None:
    path = save(tmp_path / "net.onnx", outputs)
    document = {"stages": {"objects": {"model": str(path), **options}}}
    with pytest.raises(WorkflowError, match=message) as caught:
        build_workflow("w", document, tmp_path)
    assert "\n" not in str(caught.value)


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    turned = save(tmp_path / "obb.onnx", {"o": np.zeros((20, 8400), np.float32)}, metadata={"task": "obb"})
    with pytest.raises(ModelError, match="gives turned boxes"):
        stage(turned)
    words = [("text", TensorProto.INT64, ("n", 77))]
    with pytest.raises(ModelError, match=r"also takes 'text', int64 \(\?, 77\), which is neither a size nor a mask"):
        stage(save(tmp_path / "clip.onnx", V8, others=words))
    (tmp_path / "empty.names").write_text("\n \n")
    with pytest.raises(ModelError, match=r"empty\.names holds no name"):
        stage(save(tmp_path / "net.onnx", V8), classes=str(tmp_path / "empty.names"))
    (tmp_path / "net.names").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match=r"net\.names is not a text in UTF-8"):
        stage(tmp_path / "net.onnx", classes=str(tmp_path / "net.names"))
    for notes in ("{", "{0: 'a', 2: 'b'}", "[]", "{1: 2", "__import__('os')"):
        path = save(tmp_path / "noted.onnx", {"o": np.zeros((6, 8400), np.float32)}, metadata={"names": notes})
        assert names(stage(path)) == ["0", "1"]


def test_a_class_without_a_name(tmp_path: Path) -> None:
    labels = {**LISTED, "labels": np.full(9, 7, np.int64), "scores": np.full(9, 0.1, np.float32)}
    labels["boxes"] = np.tile(np.array([0, 0, 1, 1], np.float32), (9, 1))
    made = stage(save(tmp_path / "net.onnx", labels), classes=["a", "b"])
    assert found(made, picture(9, 9))["n_objects"].tolist() == [0]  # too low to be an object
    made = stage(save(tmp_path / "net.onnx", labels), classes=["a", "b"], score=0.05)
    with pytest.raises(ModelError, match=r"gives class 6, counted from 0, and its classes have 2 names; correct"):
        found(made, picture(9, 9))


def test_only_some_classes(tmp_path: Path) -> None:
    rows = np.zeros((7, 8400), np.float32)
    for place, label in enumerate((0, 1, 2, 1)):
        rows[:4, place] = [100 * place + 50, 100, 60, 60]
        rows[4 + label, place] = 0.9 - place / 10
    made = stage(save(tmp_path / "net.onnx", {"o": rows}), classes=["a", "b", "c"], keep=["c", "b"])
    result = found(made, picture(640, 640))
    assert result["class"].tolist() == [1, 2, 1]
    assert names(made) == ["a", "b", "c"]
    assert found(stage(tmp_path / "net.onnx", most=2), picture(640, 640))["class"].tolist() == [0, 1]


def drawn_person(height: int, width: int) -> np.ndarray:
    """Return a plain person on a plain ground: enough for the detector of people, at 100 to 240 pixels."""
    frame = np.full((height, width, 3), 170, np.uint8)
    x, top, scale = width // 2, height // 8, height / 160
    body = [(x - int(14 * scale), top + int(30 * scale)), (x + int(14 * scale), top + int(75 * scale))]
    cv2.circle(frame, (x, top + int(14 * scale)), int(10 * scale), (40, 40, 40), -1)
    cv2.rectangle(frame, *body, (40, 40, 40), -1)
    for side in (-1, 1):
        foot = x + side * int(12 * scale), top + int(120 * scale)
        cv2.line(frame, (x + side * int(6 * scale), body[1][1]), foot, (40, 40, 40), int(9 * scale))
    return frame


@pytest.mark.parametrize("height", [160, 300])
def test_people_without_a_file(height: int) -> None:
    made = stage("hog")
    assert (made.slot, names(made)) == ("cpu", ["person"])
    frame = drawn_person(height, height)
    result = found(made, frame, picture(200, 300), frame)
    assert result["n_objects"].tolist() == [1, 0, 1]
    x, _, width, tall = result["box"][0]
    assert abs(x + width / 2 - height / 2) < 0.06 * height
    assert 0.6 * height < tall < 1.0 * height
    assert 0.3 < width / tall < 0.6
    np.testing.assert_array_equal(result["box"][0], result["box"][1])  # again the same
    assert result["score"][0] > 0.25
    assert found(stage("hog", score=9), frame)["n_objects"].tolist() == [0]


def test_windows_are_those_of_opencv_on_one_thread() -> None:
    frame = np.repeat(np.repeat(RNG.integers(0, 256, (30, 50, 3), np.uint8), 11, axis=0), 11, axis=1)
    frame[:300, 100:400] = drawn_person(300, 300)
    detector = cv2.HOGDescriptor()
    detector.setSVMDetector(cv2.HOGDescriptor.getDefaultPeopleDetector())
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        boxes, scores = detector.detectMultiScale(frame, -2, (8, 8), (8, 8), 1.05, groupThreshold=0)
    finally:
        cv2.setNumThreads(threads)
    windows, found_scores = Hog(Choice(-2, 1, 300))._windows(frame)
    assert len(windows) > 10
    for window, box in zip(windows, np.asarray(boxes), strict=True):  # OpenCV cuts them at the border
        ends = np.minimum(window[:2] + window[2:], frame.shape[1::-1])
        first = np.maximum(window[:2], 0)
        assert [*first, *(ends - first)] == box.tolist()
    assert found_scores.tolist() == np.ravel(scores).tolist()


@pytest.mark.parametrize("shape", [(1, 1), (20, 400), (127, 63), (128, 64), (400, 20)])
def test_small_pictures_have_no_people(shape: tuple[int, int]) -> None:
    assert found(stage("hog"), picture(*shape))["n_objects"].tolist() == [0]

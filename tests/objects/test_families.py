"""Boxes that are planted in the outputs of a network, in the layout of each family, come out as they were planted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from pipeline.engine.stage import Stage
from pipeline.errors import ReelgraphError
from pipeline.objects.classes import COCO_NAMES
from tests.objects.made_networks import found, names, picture, save, stage

SIZE = 640
NAMES = ["car", "dog", "traffic light"]
TRUTH = [
    ((100, 200, 50, 80), 2, 0.9),
    ((400, 30, 120, 60), 0, 0.75),
    ((5, 500, 40, 40), 1, 0.5),
]
"""Boxes (x, y, width, height) in a picture of the network's size, class, score."""
CELLS = {8: 80, 16: 40, 32: 20}


def centres() -> np.ndarray:
    box = np.array([one[0] for one in TRUTH], np.float32)
    return np.concatenate([box[:, :2] + box[:, 2:] / 2, box[:, 2:]], axis=1)


def corners() -> np.ndarray:
    box = np.array([one[0] for one in TRUTH], np.float32)
    return np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], axis=1)


LABELS = np.array([one[1] for one in TRUTH])
SCORES = np.array([one[2] for one in TRUTH], np.float32)


def by_class(rows: int, places: list[int], columns: int = len(NAMES), first: int = 0) -> np.ndarray:
    """Return scores of classes (rows, columns), small but at the places of the planted boxes."""
    scores = np.full((rows, columns), 0.01, np.float32)
    scores[places, LABELS + first] = SCORES
    return scores


def check(made: Stage, *, exact: float = 1e-4) -> None:
    """Compare what the stage finds in two pictures of the network's size with the truth."""
    result = found(made, picture(SIZE, SIZE), picture(SIZE, SIZE))  # type: ignore[arg-type]
    assert result["n_objects"].tolist() == [len(TRUTH)] * 2
    for part in (slice(0, 3), slice(3, 6)):
        np.testing.assert_allclose(result["box"][part], [one[0] for one in TRUTH], atol=exact, rtol=1e-5)
        assert result["class"][part].tolist() == LABELS.tolist()
        np.testing.assert_allclose(result["score"][part], SCORES, rtol=1e-5)


def yolov5() -> dict[str, np.ndarray]:
    rows = np.full((3 * 8400, 5 + len(NAMES)), 0.01, np.float32)
    places = [7, 20_000, 25_199]
    rows[places, :4], rows[places, 4] = centres(), 0.95
    rows[:, 5:] = by_class(len(rows), places)
    rows[places, 5 + LABELS] = SCORES / np.float32(0.95)
    return {"output0": rows}


def yolov8() -> dict[str, np.ndarray]:
    rows = np.full((8400, 4 + len(NAMES)), 0.01, np.float32)
    places = [0, 4000, 8399]
    rows[places, :4] = centres()
    rows[:, 4:] = by_class(len(rows), places)
    return {"output0": np.ascontiguousarray(rows.T)}


def yolov10() -> dict[str, np.ndarray]:
    rows = np.zeros((300, 6), np.float32)
    rows[:3] = np.concatenate([corners(), SCORES[:, None], LABELS[:, None]], axis=1)
    return {"output0": rows}


def yolox() -> dict[str, np.ndarray]:
    """Return what the network gives before its boxes leave the cells: each in the cell of its centre, on a level."""
    rows = np.full((8400, 5 + len(NAMES)), 0.01, np.float32)
    places = []
    for level, (x, y, width, height) in zip((1, 2, 0), centres(), strict=True):
        stride, side = list(CELLS.items())[level]
        column, row = int(x // stride), int(y // stride)
        places.append(sum(one * one for one in list(CELLS.values())[:level]) + row * side + column)
        rows[places[-1], :4] = [x / stride - column, y / stride - row, np.log(width / stride), np.log(height / stride)]
    rows[places, 4] = 0.95
    rows[:, 5:] = by_class(8400, places)
    rows[places, 5 + LABELS] = SCORES / np.float32(0.95)
    return {"output": rows}


def fastestdet() -> dict[str, np.ndarray]:
    rows = np.full((5 + len(NAMES), 20, 20), 0.01, np.float32)
    for (x, y, width, height), label, score in zip(centres() / SIZE, LABELS, SCORES, strict=True):
        column, row = int(x * 20), int(y * 20)
        logit = [np.log(side / (1 - side)) for side in (width, height)]
        rows[:, row, column] = [0.95, np.arctanh(x * 20 - column), np.arctanh(y * 20 - row), *logit, 0, 0, 0]
        rows[5 + label, row, column] = score / 0.95
    return {"758": rows}


def ssd() -> dict[str, np.ndarray]:
    places = [2, 11, 2990]
    boxes = np.zeros((3000, 4), np.float32)
    boxes[places] = corners() / SIZE
    scores = by_class(3000, places, 4, 1)
    scores[:, 0] = 0.97  # the background
    return {"scores": scores, "boxes": boxes}


def ssd_labels() -> dict[str, np.ndarray]:
    """As of TensorFlow's zoo: y before x, classes from 1 as floats, and raw boxes beside."""
    boxes, labels, scores = np.zeros((100, 4), np.float32), np.ones(100, np.float32), np.zeros(100, np.float32)
    boxes[:3], labels[:3], scores[:3] = corners()[:, [1, 0, 3, 2]] / SIZE, LABELS + 1, SCORES
    return {
        "raw_detection_boxes": np.zeros((1917, 4), np.float32), "raw_detection_scores": np.ones((1917, 4), np.float32),
        "detection_boxes": boxes, "detection_classes": labels, "detection_scores": scores,
        "num_detections": np.array(3, np.float32),
    }  # fmt: skip


def detr_sigmoid() -> dict[str, np.ndarray]:
    places = [0, 150, 299]
    boxes = np.zeros((300, 4), np.float32)
    boxes[places] = centres() / SIZE
    scores = by_class(300, places)
    return {"logits": np.log(scores / (1 - scores)), "pred_boxes": boxes}


def detr_softmax() -> dict[str, np.ndarray]:
    """As of DETR: the last class is that there is none."""
    boxes = np.zeros((100, 4), np.float32)
    boxes[:3] = centres() / SIZE
    shares = np.tile(np.array([0.01, 0.01, 0.01, 0.97], np.float32), (100, 1))
    shares[:3] = ((1 - SCORES) / 3)[:, None]
    shares[[0, 1, 2], LABELS] = SCORES
    return {"logits": np.log(shares) + 5, "pred_boxes": boxes}


def detr_rows() -> dict[str, np.ndarray]:
    """As of Ultralytics' RT-DETR."""
    rows = np.full((300, 4 + len(NAMES)), 0.01, np.float32)
    rows[:3, :4] = centres() / SIZE
    rows[:, 4:] = by_class(300, [0, 1, 2])
    return {"output0": rows}


ALL: list[tuple[str, Callable[[], dict[str, np.ndarray]], str]] = [
    ("yolov5", yolov5, "rows"),
    ("yolov8", yolov8, "columns"),
    ("yolov8", yolov10, "finished"),
    ("yolox", yolox, "rows"),
    ("fastestdet", fastestdet, "map"),
    ("ssd", ssd, "scores"),
    ("ssd", ssd_labels, "labels"),
    ("detr", detr_sigmoid, "scores"),
    ("detr", detr_softmax, "scores"),
    ("detr", detr_rows, "rows"),
]
IDS = [one[1].__name__ for one in ALL]


@pytest.mark.parametrize("batch", ["n", 1, 3])
@pytest.mark.parametrize(("family", "make", "form"), ALL, ids=IDS)
def test_planted_boxes(tmp_path: Path, family: str, make: Any, form: str, batch: Any) -> None:
    """By the shape of the outputs alone, with the family said, and with outputs whose sizes the file does not state."""
    for stated in (True, False):
        path = save(tmp_path / "net.onnx", make(), batch=batch, stated=stated)
        made = stage(path, classes=NAMES)
        assert made.network is not None
        assert (made.network.family, made.network.decoding.outputs.form) == (family, form)
        check(made)
        assert len(made.models()[0].weights_sha256) == 64
    check(stage(path, classes=NAMES, family=family))


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("make", [yolov8, detr_sigmoid, yolov10])
def test_other_floats(tmp_path: Path, make: Any, dtype: str) -> None:
    outputs = {name: array.astype(dtype) for name, array in make().items()}
    made = stage(save(tmp_path / "net.onnx", outputs), classes=NAMES)
    result = found(made, picture(SIZE, SIZE))
    assert result["class"].tolist() == LABELS.tolist()
    np.testing.assert_allclose(result["box"], [one[0] for one in TRUTH], atol=1 if dtype == "float16" else 1e-3)


def test_rtdetr_that_gives_one_class_each(tmp_path: Path) -> None:
    """As of Ultralytics since 2026: centres in parts of the input, where YOLO's have corners in pixels."""
    rows = np.zeros((300, 6), np.float32)
    rows[:3] = np.concatenate([centres() / SIZE, SCORES[:, None], LABELS[:, None]], axis=1)
    path = save(tmp_path / "net.onnx", {"output0": rows}, metadata={"head": "RTDETRDecoder"})
    made = stage(path, classes=NAMES)
    assert made.network is not None
    assert (made.network.family, made.network.overlap) == ("detr", 1)
    check(made)
    path = save(tmp_path / "net.onnx", {"output0": rows})  # without its notes
    check(stage(path, classes=NAMES, box="cxcywh", normalised=True))
    check(stage(path, classes=NAMES, family="detr", box="cxcywh", normalised=True))


def test_boxes_of_pictures_in_one_list(tmp_path: Path) -> None:
    """Rows with the number of their picture: Caffe's SSD, and YOLOv7 with its own choice. Their batch is fixed."""
    one = np.zeros((3, 1), np.float32)
    rows = np.concatenate([one, LABELS[:, None] + 1, SCORES[:, None], corners() / SIZE], axis=1).astype(np.float32)
    path = save(tmp_path / "ssd.onnx", {"detection_out": rows[None, None]}, batch=1, bare=True)
    assert stage(path, classes=NAMES).network.family == "ssd"  # type: ignore[union-attr]
    check(stage(path, classes=NAMES))
    rows = np.concatenate([one, corners(), LABELS[:, None], SCORES[:, None]], axis=1).astype(np.float32)
    check(stage(save(tmp_path / "yolov7.onnx", {"output": rows}, batch=1, bare=True), classes=NAMES))
    second = rows.copy()
    second[:, 0] = 1
    path = save(tmp_path / "two.onnx", {"output": np.concatenate([second, rows])}, batch=2, bare=True)
    check(stage(path, classes=NAMES))


def test_outputs_of_one_picture(tmp_path: Path) -> None:
    """As of torchvision: no dimension for the pictures; class 0 is the background."""
    outputs = {"boxes": corners(), "scores": SCORES, "labels": (LABELS + 1).astype(np.int64)}
    path = save(tmp_path / "net.onnx", outputs, batch=1, bare=True)
    check(stage(path, classes=NAMES, normalised=False))
    check(stage(path, classes=["__background__", *NAMES], normalised=False))


def test_a_second_input_with_the_size(tmp_path: Path) -> None:
    """As of RT-DETR's own export: the network chooses its boxes, in pixels of the size that it is told."""
    outputs = {"labels": LABELS, "boxes": corners(), "scores": SCORES}
    others = [("orig_target_sizes", TensorProto.INT64, ("n", 2))]
    made = stage(save(tmp_path / "net.onnx", outputs, others=others), classes=NAMES)
    assert made.network is not None
    assert made.network.family == "detr"
    given = made.network.given(np.zeros((3, 3, SIZE, SIZE), np.float32))
    assert given["orig_target_sizes"].tolist() == [[SIZE, SIZE]] * 3
    check(made)


def test_a_mask_of_pixels(tmp_path: Path) -> None:
    """As of DETR from Hugging Face."""
    others = [("pixel_mask", TensorProto.INT64, ("n", "h", "w"))]
    check(stage(save(tmp_path / "net.onnx", detr_softmax(), others=others), classes=NAMES))


def test_yolox_that_decodes_itself(tmp_path: Path) -> None:
    rows = np.full((8400, 5 + len(NAMES)), 0.01, np.float32)
    rows[:3, :4], rows[:3, 4] = centres(), 1
    rows[:, 5:] = by_class(8400, [0, 1, 2])
    path = save(tmp_path / "net.onnx", {"output": rows})
    check(stage(path, classes=NAMES, cells=False))
    check(stage(path, classes=NAMES, family="yolov5"))


def test_levels_for_large_pictures(tmp_path: Path) -> None:
    cells = 160**2 + 80**2 + 40**2 + 20**2
    for numbers, family in ((np.zeros((7, cells)), "yolov8"), (np.zeros((3 * cells, 8)), "yolov5")):
        path = save(tmp_path / "net.onnx", {"output0": numbers.astype(np.float32)}, (1280, 1280))
        assert stage(path, classes=NAMES).network.family == family  # type: ignore[union-attr]


def test_levels_of_tiny_networks_and_of_those_for_small_objects(tmp_path: Path) -> None:
    """YOLOv3-tiny has two levels, YOLOv5-p2 four: their boxes are in pixels, not DETR's in parts of the input."""
    for cells in (40**2 + 20**2, 160**2 + 80**2 + 40**2 + 20**2):
        rows = np.zeros((3 * cells, 5 + len(NAMES)), np.float32)
        rows[:3, :4], rows[:3, 4] = centres(), 1
        rows[:3, 5:] = by_class(3, [0, 1, 2])
        made = stage(save(tmp_path / "net.onnx", {"output0": rows}), classes=NAMES)
        check(made)
        assert made.network.family == "yolov5"  # type: ignore[union-attr]


def test_masks_and_points_after_boxes_that_the_network_chose(tmp_path: Path) -> None:
    rows = yolov10()["output0"]
    for task, more in (("segment", 32), ("pose", 51)):
        notes = {"names": "{0: 'car', 1: 'dog', 2: 'traffic light'}", "task": task}
        outputs = {"output0": np.concatenate([rows, np.full((len(rows), more), 7, np.float32)], axis=1)}
        if task == "segment":
            outputs["output1"] = np.zeros((32, 160, 160), np.float32)
        made = stage(save(tmp_path / "net.onnx", outputs, metadata=notes))
        check(made)
        assert made.network.family == "yolov8"  # type: ignore[union-attr]


def test_a_small_input_has_fewer_boxes_than_numbers(tmp_path: Path) -> None:
    """64 × 64 pixels have 84 cells, as many as a box of COCO has numbers; 32 × 32 have 21."""
    for side, cells in ((64, 84), (32, 21)):
        path = save(tmp_path / "net.onnx", {"output0": np.zeros((84, cells), np.float32)}, (side, side))
        made = stage(path, family="yolov8")
        assert len(names(made)) == 80
        assert made.network.decoding.outputs.form == "columns"  # type: ignore[union-attr]


def test_masks_and_points_beside_are_left_out(tmp_path: Path) -> None:
    """Segmentation has 32 numbers more for each box, and a second output; poses have points."""
    rows = yolov8()["output0"]
    more = np.concatenate([rows, np.ones((32, 8400), np.float32)])
    masks = np.zeros((32, 160, 160), np.float32)
    for outputs in ({"output0": more, "output1": masks}, {"output1": masks, "output0": more}):
        path = save(tmp_path / "net.onnx", outputs)
        check(stage(path, classes=NAMES))
        assert names(stage(path)) == ["0", "1", "2"]
    notes = {"names": "{0: 'car', 1: 'dog', 2: 'traffic light'}", "task": "pose"}
    path = save(tmp_path / "net.onnx", {"output0": np.concatenate([rows, 51 * [rows[0]]])}, metadata=notes)
    check(stage(path))


def test_one_class(tmp_path: Path) -> None:
    """YOLOv8 of one class has 5 numbers; YOLOv5's own have 6, of which two are scores."""
    rows = np.zeros((8400, 5), np.float32)
    rows[:3, :4], rows[:3, 4] = centres(), SCORES
    result = found(stage(save(tmp_path / "net.onnx", {"output0": rows.T.copy()}), classes=["plate"]), picture(640, 640))
    np.testing.assert_allclose(result["box"], [one[0] for one in TRUTH], atol=1e-4)
    assert result["class"].tolist() == [0, 0, 0]
    rows = np.zeros((3 * 8400, 6), np.float32)
    rows[:3, :4], rows[:3, 4], rows[:3, 5] = centres(), SCORES, 1
    result = found(stage(save(tmp_path / "net.onnx", {"output0": rows})), picture(640, 640))
    np.testing.assert_allclose(result["score"], SCORES)


def test_numbers_that_are_no_boxes(tmp_path: Path) -> None:
    rows = yolov8()["output0"].copy()
    rows[0, 0], rows[4, 17], rows[:4, 18], rows[4, 18] = np.nan, np.nan, [-500, -500, 20, 20], 0.99
    result = found(stage(save(tmp_path / "net.onnx", {"output0": rows}), classes=NAMES), picture(SIZE, SIZE))
    np.testing.assert_allclose(result["score"], SCORES[1:])  # the first has no place, another lies outside


@pytest.mark.parametrize("box", ["cxcywh", "xywh", "xyxy", "yxyx"])
@pytest.mark.parametrize("normalised", [True, False])
def test_orders_of_a_box(tmp_path: Path, box: str, normalised: bool) -> None:
    first, size = corners()[:, :2], corners()[:, 2:] - corners()[:, :2]
    order = {
        "cxcywh": centres(), "xywh": np.concatenate([first, size], axis=1), "xyxy": corners(),
        "yxyx": corners()[:, [1, 0, 3, 2]],
    }  # fmt: skip
    rows = yolov8()["output0"].copy()
    rows[:4, [0, 4000, 8399]] = (order[box] / (SIZE if normalised else 1)).T
    check(stage(save(tmp_path / "net.onnx", {"output0": rows}), classes=NAMES, box=box, normalised=normalised))


def test_boxes_in_pixels_are_not_taken_for_parts(tmp_path: Path) -> None:
    """Exports of YOLO-NAS have the outputs of an SSD, in pixels and without a background: nothing was found."""
    places = [2, 11, 8390]
    boxes = np.random.default_rng(0).uniform(0, SIZE, (8400, 4)).astype(np.float32)
    boxes[places] = corners()
    path = save(tmp_path / "nas.onnx", {"boxes": boxes, "scores": by_class(8400, places)})
    with pytest.raises(ReelgraphError, match=r"gives 'boxes' of about \d+, which look like pixels; .* Set normal"):
        [one.weights_sha256 for one in stage(path, classes=NAMES).models()]
    right = stage(path, classes=NAMES, normalised=False, first=0)
    assert [one.weights_sha256 for one in right.models()]
    check(right)


def test_outputs_by_name(tmp_path: Path) -> None:
    """Names that say nothing, and two outputs that would do."""
    made = ssd()
    other = np.zeros_like(made["boxes"])
    path = save(tmp_path / "net.onnx", {"a": other, "b": made["boxes"], "c": made["scores"], "d": made["scores"] * 0})
    check(stage(path, classes=NAMES, outputs=["b", "c"], family="ssd"))
    made = yolov8()
    path = save(tmp_path / "net.onnx", {"a": np.zeros_like(made["output0"]), "b": made["output0"]})
    check(stage(path, classes=NAMES, outputs="b"))


def test_names_of_classes(tmp_path: Path) -> None:
    notes = {"names": "{0: 'car', 1: 'dog', 2: \"driver's seat\"}", "imgsz": "[640, 640]", "task": "detect"}
    path = save(tmp_path / "net.onnx", yolov8(), ("h", "w"), metadata=notes, stated=False)
    assert names(stage(path)) == ["car", "dog", "driver's seat"]  # the size is noted too
    check(stage(path))
    (tmp_path / "three.names").write_text("\ufeffcar\r\nköter\n\ntraffic light\n", encoding="utf-8")
    assert names(stage(path, classes=str(tmp_path / "three.names"))) == ["car", "köter", "traffic light"]
    assert names(stage(path, classes=NAMES)) == NAMES
    bare = save(tmp_path / "bare.onnx", yolov8())
    assert names(stage(bare)) == ["0", "1", "2"]
    large = save(tmp_path / "large.onnx", {"output0": np.zeros((84, 8400), np.float32)})
    assert names(stage(large, classes="coco")) == list(COCO_NAMES)
    assert len(set(COCO_NAMES)) == 80

"""Boxes on the network's input come back to the right place of the picture, exact to a pixel and better."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.objects.models.network import describe
from pipeline.objects.stages.objects import ObjectsOptions
from tests.objects.made_networks import found, picture, save, stage

SIZES = [(1080, 1920), (700, 300), (640, 640), (100, 37), (1, 4000), (719, 1279), (2160, 3840)]
"""Heights and widths of pictures."""


def planted(path: Path, box: Any, size: tuple[int, int] = (640, 640), **options: Any) -> Path:
    """Write a YOLOv8 of one class that gives one box: x, y, width, height on its input."""
    cells = sum((size[0] // stride) * (size[1] // stride) for stride in (8, 16, 32))
    rows = np.zeros((5, cells), np.float32)
    x, y, width, height = box
    rows[:, 5] = [x + width / 2, y + height / 2, width, height, 0.9]
    return save(path, {"output0": rows}, size, **options)


def letterbox(height: int, width: int, size: tuple[int, int]) -> tuple[float, float, int, int]:
    """Return the factors and the bars before a picture, written down from Ultralytics' LetterBox."""
    factor = min(size[0] / height, size[1] / width)
    inner = max(1, round(height * factor)), max(1, round(width * factor))
    half = (size[0] - inner[0]) / 2, (size[1] - inner[1]) / 2
    return inner[0] / height, inner[1] / width, round(half[0] - 0.1), round(half[1] - 0.1)


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("size", [(640, 640), (384, 640), (320, 192)], ids=str)
@pytest.mark.parametrize("resize", ["letterbox", "stretch", "after"])
def test_a_planted_box_is_where_it_was(tmp_path: Path, shape: Any, size: Any, resize: str) -> None:
    """A box of the picture, placed on the input by the rule of the family, comes back as it was."""
    height, width = shape
    y_factor, x_factor, top, left = letterbox(height, width, size)
    if resize == "after":
        top = left = 0
    elif resize == "stretch":
        y_factor, x_factor, top, left = size[0] / height, size[1] / width, 0, 0
    truth = np.array([width * 0.25, height * 0.125, width * 0.5, height * 0.375])
    on_input = truth * [x_factor, y_factor, x_factor, y_factor] + [left, top, 0, 0]
    options: dict[str, Any] = {"resize": "stretch"} if resize == "stretch" else {}
    path = planted(tmp_path / "net.onnx", on_input, size)
    made = stage(path, **options)
    if resize == "after":
        rows = np.zeros((sum((size[0] // one) * (size[1] // one) for one in (8, 16, 32)), 6), np.float32)
        rows[0] = [*(on_input[:2] + on_input[2:] / 2), *on_input[2:], 1, 0.9]
        made = stage(save(tmp_path / "x.onnx", {"output": rows}, size), family="yolox", cells=False)
    result = found(made, picture(height, width))
    assert result["n_objects"].tolist() == [1]
    np.testing.assert_allclose(result["box"][0], truth, atol=1e-3 * max(1, max(shape) / 640), rtol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(1080, 1920), (700, 300)])
@pytest.mark.parametrize("family", ["yolov8", "yolox", "fastestdet"])
def test_what_the_network_sees_lies_where_its_box_is_put(tmp_path: Path, height: int, width: int, family: str) -> None:
    """A white rectangle of a picture is found on the input, by its pixels; a box there comes back to the rectangle."""
    shape = {"yolov8": (5, 8400), "yolox": (8400, 6), "fastestdet": (6, 20, 20)}[family]
    path = save(tmp_path / "net.onnx", {"output": np.zeros(shape, np.float32)})
    preparation = describe(ObjectsOptions(model=str(path))).preparation
    frame = np.zeros((height, width, 3), np.uint8)
    top, left, bottom, right = height // 5, width // 4, height // 2, width * 3 // 4
    frame[top:bottom, left:right] = 255
    seen = preparation.resized(frame)[..., 0].astype(np.float64)
    bars = preparation.placed(frame.shape[:2])
    inside = seen[bars[0] : bars[0] + bars[2], bars[1] : bars[1] + bars[3]].copy()
    if family != "fastestdet":
        assert set(np.unique(seen)) >= {0, 114, 255}  # grey bars
        seen[:] = 0
        seen[bars[0] : bars[0] + bars[2], bars[1] : bars[1] + bars[3]] = inside
    # The edges by the share of white in their pixels: a row at mid height, a column at mid width.
    rows, columns = np.flatnonzero(seen.max(axis=1) > 127), np.flatnonzero(seen.max(axis=0) > 127)
    row, column = seen[rows[len(rows) // 2]] / 255, seen[:, columns[len(columns) // 2]] / 255
    x, y = columns[0] + 1 - row[: columns[0] + 1].sum(), rows[0] + 1 - column[: rows[0] + 1].sum()
    box = x, y, row.sum(), column.sum()
    options: dict[str, Any] = {} if family == "yolov8" else {"resize": "stretch"}
    made = stage(planted(tmp_path / "there.onnx", box), **options)
    if family == "yolox":
        planted_rows = np.zeros((8400, 6), np.float32)
        planted_rows[0] = [x + box[2] / 2, y + box[3] / 2, *box[2:], 1, 0.9]
        made = stage(save(tmp_path / "x.onnx", {"output": planted_rows}), cells=False)
    result = found(made, frame)
    np.testing.assert_allclose(result["box"][0], [left, top, right - left, bottom - top], atol=1)


def test_pictures_of_different_sizes_in_one_batch(tmp_path: Path) -> None:
    made = stage(planted(tmp_path / "net.onnx", (300, 300, 40, 40)))
    shapes = [(1080, 1920), (700, 300), (640, 640)]
    result = found(made, *(picture(*shape) for shape in shapes))
    assert result["n_objects"].tolist() == [1, 1, 1]
    for box, (height, width) in zip(result["box"], shapes, strict=True):
        y_factor, x_factor, top, left = letterbox(height, width, (640, 640))
        expected = [(300 - left) / x_factor, (300 - top) / y_factor, 40 / x_factor, 40 / y_factor]
        np.testing.assert_allclose(box, expected, rtol=1e-5)


def test_boxes_are_cut_at_the_border(tmp_path: Path) -> None:
    """One reaches into the bars and beyond; one lies in the bars alone and is no object."""
    made = stage(planted(tmp_path / "net.onnx", (-50, 100, 800, 300)))
    assert found(made, picture(320, 640))["box"].tolist() == [[0, 0, 640, 240]]  # bars of 160
    made = stage(planted(tmp_path / "bars.onnx", (100, 10, 50, 140)))
    assert found(made, picture(320, 640))["n_objects"].tolist() == [0]
    assert found(made, picture(640, 640))["n_objects"].tolist() == [1]

"""Families of detectors: how each wants its pictures, and how its outputs are recognised by their shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Literal, get_args

from pipeline.errors import ModelError
from pipeline.media.preparation import Colour, Size
from pipeline.models.onnx_file import Graph, Sizes

Family = Literal["yolov5", "yolov8", "yolox", "ssd", "detr", "fastestdet"]
Corners = Literal["cxcywh", "xywh", "xyxy", "yxyx"]
"""Order of a box's numbers: centre and size, corner and size, two corners, two corners with y first."""
Activation = Literal["none", "sigmoid", "softmax"]
"""The function that makes scores of the outputs of classes."""
Form = Literal["rows", "columns", "map", "finished", "numbered", "scores", "labels"]
"""Forms of output, with K boxes of a picture.

Numbers are the box, its score for being an object if there is one, and the scores of the classes.

rows: (N, K, numbers).

columns: (N, numbers, K).

map: (N, numbers, h, w), the numbers of each cell.

finished: (N, K, 6 or more), box, score, class; masks or points may follow.

numbered: (n, 7) or (1, 1, n, 7), the number of the picture and six numbers more.

scores: boxes (N, K, 4) and scores (N, K, classes).

labels: boxes (N, K, 4), scores (N, K), classes (N, K)."""

STRIDES = (8, 16, 32), (8, 16, 32, 64)
"""Pixels of a cell on the levels of YOLO's networks: of most, and of those for large pictures."""
MORE_STRIDES = (16, 32), (4, 8, 16, 32)
"""Levels of tiny networks, and of those for small objects. Only three boxes for each cell are recognised by them."""


@dataclass(frozen=True)
class Preset:
    """Values of a family, for options that are not set."""

    resize: Literal["letterbox", "stretch"]
    colour: Colour = "RGB"
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    bars_after: bool = False
    box: Corners = "cxcywh"
    normalised: bool = False
    objectness: bool = False
    cells: bool = False
    """True if boxes are in cells of the levels, and their sizes logarithms."""
    activation: Activation = "none"
    background: bool = False
    """True if class 0 is the background."""


PRESETS: Mapping[Family, Preset] = {
    "yolov5": Preset("letterbox", objectness=True),
    "yolov8": Preset("letterbox"),
    "yolox": Preset("letterbox", "BGR", 1, bars_after=True, objectness=True, cells=True),
    "ssd": Preset("stretch", "RGB", 1, (127.5,), (127.5,), box="xyxy", normalised=True, background=True),
    "detr": Preset("stretch", normalised=True, activation="sigmoid"),
    "fastestdet": Preset("stretch", "BGR", normalised=True, objectness=True),
}
BARS = 114
"""Grey of the bars of a letterbox, in all of YOLO's code."""


@dataclass(frozen=True)
class Outputs:
    """Outputs that are read, and what they look like."""

    form: Form
    names: tuple[str, ...]
    """One, or the boxes, the scores and the labels in this order."""
    families: tuple[Family, ...]
    """Families that they fit, best first."""
    classes: int = 0
    """Numbers of a box that are scores of classes; 0 if the form has none."""
    boxes: int = 0
    strides: tuple[int, ...] = ()
    """Levels whose cells are as many as there are boxes; empty if there are none."""
    batched: bool = True
    """False if they are of one picture, without a dimension for it."""

    @property
    def shown(self) -> str:
        """The form in words."""
        if self.form == "map":
            return f"{self.classes + 4} numbers for each cell"
        if self.form in ("rows", "columns"):
            order = "numbers last" if self.form == "rows" else "boxes last"
            return f"{self.boxes} boxes of {self.classes + 4} numbers, {order}"
        return {
            "finished": "boxes with one score and one class each",
            "numbered": "boxes with the number of their picture",
            "scores": "boxes, and a score for each class",
            "labels": "boxes, scores and classes",
        }[self.form]


def cells(size: Size, strides: Sequence[int]) -> int:
    """Return how many cells the levels of an input have."""
    return sum(ceil(size[0] / stride) * ceil(size[1] / stride) for stride in strides)


def recognise(path: str, graph: Graph, shapes: Mapping[str, Sizes], size: Size, named: Sequence[str]) -> Outputs:
    """Return what the outputs of a graph are, by shapes of which each size is known.

    `named`: outputs that the user names, in the order of Outputs.names; empty to find them. Raises ModelError.
    """
    listed = "; ".join(f"{name!r} {_text(shape)}" for name, shape in shapes.items())
    unknown = [name for name in named if name not in shapes]
    if unknown or len(named) > 3:
        raise ModelError(f"model {path} has no output {unknown[0]!r}; it has {listed}" if unknown else (
            f"outputs has {len(named)} names; give one, or those of boxes, scores and classes"))  # fmt: skip
    known = {name: tuple(value or 0 for value in shapes[name]) for name in named or shapes}
    found = None
    if len(named) != 1:
        found = _separate(graph, known, tuple(named))
    if found is None and len(named) < 2:
        flat_first = sorted(known.items(), key=lambda one: len(one[1]) != 3)  # a second output may hold masks
        beside = graph.metadata.get("task") in ("segment", "pose")
        found = next(filter(None, (_single(name, shape, size, beside) for name, shape in flat_first)), None)
    if found is not None and found.form == "finished" and "RTDETR" in graph.metadata.get("head", ""):
        found = replace(found, families=("detr",))  # Ultralytics'
    if found is None:
        raise ModelError(
            f"model {path} gives {listed}, which is of no family known here ({', '.join(get_args(Family))}); "
            "name the outputs that hold boxes, scores and classes with outputs"
        )
    return found


def _text(shape: Sizes) -> str:
    return f"({', '.join('?' if one is None else str(one) for one in shape)})"


def _single(name: str, shape: tuple[int, ...], size: Size, beside: bool) -> Outputs | None:
    """Return what one output is that holds all; None if it does not.

    `beside`: boxes have masks or points after their other numbers.
    """
    if shape[-1:] == (7,) and (len(shape) == 2 or (len(shape) == 4 and shape[:2] == (1, 1))):
        return Outputs("numbered", (name,), ("yolov5",) if len(shape) == 2 else ("ssd",), batched=False)
    if len(shape) == 4 and shape[1] >= 6 and shape[1] != 3:
        return Outputs("map", (name,), ("fastestdet",), shape[1] - 4, shape[2] * shape[3])
    if len(shape) != 3:
        return None
    levels: dict[int, tuple[tuple[int, ...], int]] = {
        cells(size, strides) * each: (strides, each) for each in (1, 3) for strides in STRIDES
    }
    last_are_boxes = shape[2] in levels or (shape[1] not in levels and shape[1] < shape[2])
    boxes, numbers = (shape[2], shape[1]) if last_are_boxes else (shape[1], shape[2])
    if numbers < 5:
        return None
    strides, each = levels.get(boxes, ((), 0))
    if not (each or last_are_boxes) and boxes in [3 * cells(size, more) for more in MORE_STRIDES]:
        each = 3
    if each == 3:
        families: tuple[Family, ...] = ("yolov5",)
    elif last_are_boxes:
        families = ("yolov8",)
    elif each == 1:
        families = ("yolox", "yolov5", "yolov8")
    elif numbers == 6 or (beside and numbers > 6):
        return Outputs("finished", (name,), ("yolov8", "yolov5", "detr"))
    else:
        families = ("detr", "yolov5", "yolov8")
    form: Form = "columns" if last_are_boxes else "rows"
    return Outputs(form, (name,), families, numbers - 4, boxes, strides if each == 1 else ())


def _separate(graph: Graph, shapes: Mapping[str, tuple[int, ...]], named: tuple[str, ...]) -> Outputs | None:
    """Return what outputs are that hold boxes and scores apart; None if they do not."""
    for boxes in sorted(named[:1] or shapes, key=lambda name: ("box" not in name, "raw" in name)):
        batched = len(shapes[boxes]) == 3
        if shapes[boxes][-1:] != (4,) or len(shapes[boxes]) not in (2, 3):
            continue
        others = [name for name in named[1:] or shapes if name != boxes]
        each = [name for name in others if shapes[name] == shapes[boxes][:-1]]
        labels = [name for name in each if _is_label(graph, name)]
        values = [name for name in each if name not in labels]
        if len(named) == 3:
            values, labels = [named[1]], [named[2]]
        if values and labels:
            order: tuple[Family, ...] = ("detr", "ssd") if graph.others else ("ssd", "detr")
            return Outputs("labels", (boxes, values[0], labels[0]), order, batched=batched)
        scores = [name for name in others if len(shapes[name]) == 3 and shapes[name][:2] == shapes[boxes][:2]]
        if batched and scores:
            best = min(scores, key=lambda name: not re.search("logit|score|prob|conf|class|cls", name))
            order = ("detr", "ssd") if re.search("logit|pred_", best + boxes) else ("ssd", "detr")
            return Outputs("scores", (boxes, best), order, shapes[best][2], shapes[boxes][1])
    return None


def _is_label(graph: Graph, name: str) -> bool:
    return graph.outputs[name].dtype.startswith(("int", "uint")) or bool(re.search("class|label|cls", name))

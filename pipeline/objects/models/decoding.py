"""From the outputs of a network to boxes on its input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.media.preparation import Size
from pipeline.objects.models.families import Activation, Corners, Outputs
from pipeline.objects.models.found import Candidates

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Decoding:
    """The way from outputs to boxes on an input of this height and width."""

    outputs: Outputs
    size: Size
    classes: int
    """Classes; more numbers of a box than these are left out."""
    box: Corners
    normalised: bool
    """True if coordinates are parts of the input's width and height, False if they are its pixels."""
    objectness: bool
    """True if the fifth number of a box is its score for being an object, by which those of the classes are
    multiplied."""
    cells: bool
    activation: Activation
    first: int
    """Number of the first class: 1 if 0 is the background."""

    def candidates(self, arrays: Sequence[npt.NDArray[Any]], pictures: int, least: float) -> list[Candidates]:
        """Return the boxes of each of `pictures` pictures, of arrays in the order of Outputs.names.

        Boxes whose score is below `least` may be left out.
        """
        form = self.outputs.form
        if form == "numbered":
            return self._numbered(arrays[0].reshape(-1, 7), pictures)
        if not self.outputs.batched:
            arrays = [array[None] for array in arrays]
        each = zip(*arrays, strict=True)
        if form == "labels":
            return [self._made(*parts) for parts in each]
        if form == "finished":
            return [self._made(rows[:, :4], rows[:, 4], rows[:, 5]) for (rows,) in each]
        return [self._best(parts, least) for parts in each]

    def _made(self, box: npt.NDArray[Any], score: npt.NDArray[Any], label: npt.NDArray[Any]) -> Candidates:
        if not np.issubdtype(label.dtype, np.integer):
            label = np.nan_to_num(label, nan=-1)
        label = label.astype(np.int64) - self.first
        real = label >= 0
        return Candidates(self._corners(box[real]), label[real], score[real].astype(np.float32))

    def _numbered(self, rows: npt.NDArray[Any], pictures: int) -> list[Candidates]:
        """Split rows by their first number, that of the picture."""
        if self.outputs.families[0] == "ssd":  # picture, class, score, corners
            box, score, label = rows[:, 3:], rows[:, 2], rows[:, 1]
        else:  # picture, corners, class, score
            box, score, label = rows[:, 1:5], rows[:, 6], rows[:, 5]
        return [self._made(*(values[rows[:, 0] == one] for values in (box, score, label))) for one in range(pictures)]

    def _best(self, parts: Sequence[npt.NDArray[Any]], least: float) -> Candidates:
        """Return the boxes of one picture, each with its best class."""
        numbers = _of_cells(parts[0]) if self.outputs.form == "map" else parts[0]
        if self.outputs.form == "columns":
            numbers = numbers.T
        box = self._in_pixels(numbers[:, :4].astype(np.float32)) if self.cells else numbers[:, :4]
        if self.objectness:  # no score exceeds it
            likely = numbers[:, 4] >= least
            box, numbers = box[likely], numbers[likely]
        scores = parts[1] if self.outputs.form == "scores" else numbers[:, 4 + self.objectness :]
        scores = scores.astype(np.float32)
        if self.activation == "softmax":
            scores = np.exp(scores - scores.max(axis=1, keepdims=True))
            scores /= scores.sum(axis=1, keepdims=True)
        scores = scores[:, self.first : self.first + self.classes]
        label = scores.argmax(axis=1)
        score = np.take_along_axis(scores, label[:, None], axis=1)[:, 0]
        if self.activation == "sigmoid":
            score = _sigmoid(score)
        if self.objectness:
            score = score * numbers[:, 4].astype(np.float32)
        return Candidates(self._corners(box), label, score)

    def _in_pixels(self, box: Floats) -> Floats:
        """Return centres and sizes in pixels of boxes in cells, one for each cell of each level."""
        places = []
        for level in self.outputs.strides:
            rows, columns = (-(-side // level) for side in self.size)
            row, column = np.divmod(np.arange(rows * columns), columns)
            places.append(np.stack([column, row, np.full(len(row), level)], axis=1))
        place = np.concatenate(places).astype(np.float32)
        stride = place[:, 2:]
        with np.errstate(over="ignore"):
            return np.concatenate([(box[:, :2] + place[:, :2]) * stride, np.exp(box[:, 2:]) * stride], axis=1)

    def _corners(self, box: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return left, top, right and bottom in pixels of the input."""
        given = box.astype(np.float64)
        if self.box == "yxyx":
            given = given[:, [1, 0, 3, 2]]
        if self.normalised:
            given = given * ([self.size[1], self.size[0]] * 2)
        first, second = given[:, :2], given[:, 2:]
        if self.box == "cxcywh":
            first, second = first - second / 2, first + second / 2
        elif self.box == "xywh":
            second = first + second
        return np.concatenate([first, second], axis=1)


def _sigmoid(value: Floats) -> Floats:
    with np.errstate(over="ignore"):
        result: Floats = np.reciprocal(1 + np.exp(-value))
    return result


def _of_cells(numbers: npt.NDArray[Any]) -> Floats:
    """Return FastestDet's map (numbers, h, w) as rows: box, score for being an object, scores of the classes.

    A centre is the hyperbolic tangent of two numbers, in cells from the corner of the cell. A size is the logistic
    function of two numbers, in parts of the input.
    """
    length, height, width = numbers.shape
    rows = numbers.reshape(length, -1).T.astype(np.float32)
    row, column = np.divmod(np.arange(height * width), width)
    place = np.stack([column, row], axis=1).astype(np.float32)
    centre = (np.tanh(rows[:, 1:3]) + place) / np.array([width, height])
    parts = [centre.astype(np.float32), _sigmoid(rows[:, 3:5]), rows[:, :1], rows[:, 5:]]
    return np.concatenate(parts, axis=1)

"""Each way of making a level against the area average done the long way."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.faces.models.detectors.pyramid import BANDS_BELOW, INTEGRAL_BELOW, Pyramid, level_sizes


def shares(cells: int, pixels: int) -> np.ndarray:
    """float64 (cells, pixels): how much of each cell is of each pixel."""
    edge = np.arange(cells + 1) * (pixels / cells)
    covered = np.minimum(edge[1:, None], np.arange(pixels) + 1) - np.maximum(edge[:-1, None], np.arange(pixels))
    return np.maximum(covered, 0) * (cells / pixels)


def level(frame: np.ndarray, rows: int, columns: int) -> np.ndarray:
    pyramid, planes = Pyramid(), np.full((3, rows, columns), np.nan, np.float32)
    pyramid.load(frame)
    pyramid.level(rows, columns, planes)
    return planes


@pytest.mark.parametrize(
    ("rows", "columns", "way"),
    [
        (150, 225, "opencv"),
        (200, 300, "opencv"),
        (100, 150, "bands"),
        (99, 147, "bands"),
        (50, 75, "bands"),
        (47, 71, "bands"),
        (28, 42, "integral"),
        (25, 30, "integral"),
        (1, 1, "integral"),
    ],
)
def test_a_level_is_the_area_average(rows: int, columns: int, way: str) -> None:
    frame = np.random.default_rng(rows).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    share = rows * columns / (200 * 300)
    taken = "integral" if share < INTEGRAL_BELOW else "bands" if rows <= BANDS_BELOW * 200 else "opencv"
    assert taken == way
    down = np.einsum("ry,yxc->rxc", shares(rows, 200), frame.astype(np.float64))
    expected = np.einsum("rxc,kx->crk", down, shares(columns, 300))
    np.testing.assert_allclose(level(frame, rows, columns), expected, atol=2e-4)


def test_every_level_of_a_white_frame_is_white() -> None:
    """No cell may lose a sliver of a pixel to rounding."""
    frame = np.full((487, 613, 3), 255, np.uint8)
    pyramid = Pyramid()
    pyramid.load(frame)
    for _, rows, columns in level_sizes(613, 487, 20, 0.709):
        planes = np.empty((3, rows, columns), np.float32)
        pyramid.level(rows, columns, planes)
        np.testing.assert_allclose(planes, 255, rtol=2e-6)


def test_frames_of_another_size_take_the_place_of_the_last() -> None:
    """Memory is used again from frame to frame."""
    random = np.random.default_rng(0)
    first, second = (random.integers(0, 256, shape, dtype=np.uint8) for shape in ((120, 90, 3), (80, 200, 3)))
    pyramid = Pyramid()
    for frame in (first, second, first):
        pyramid.load(frame)
        for rows, columns in ((40, 30), (12, 14)):
            planes = np.empty((3, rows, columns), np.float32)
            pyramid.level(rows, columns, planes)
            np.testing.assert_array_equal(planes, level(frame, rows, columns))

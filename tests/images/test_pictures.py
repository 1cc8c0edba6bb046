"""Pictures become the input of a network: the right part of each, at the right size, in the right numbers."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.media.preparation import Preparation

RNG = np.random.default_rng(3)


def noise(height: int, width: int) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), np.uint8)


def prepared(**given: object) -> Preparation:
    return Preparation(**{"size": (224, 224), "layout": "NHWC", "dtype": "uint8", **given})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "given", "part"),
    [
        ((256, 256), {"crop": 0.875}, np.s_[16:240, 16:240]),
        ((256, 300), {"crop": 0.875}, np.s_[16:240, 38:262]),
        ((301, 256), {"crop": 0.875}, np.s_[39:263, 16:240]),  # an odd rest: one more before than after, as Google's
        ((224, 500), {}, np.s_[:, 138:362]),
        ((300, 300), {"size": (150, 300)}, np.s_[75:225]),
        ((300, 100), {"size": (50, 100)}, np.s_[125:175]),
        ((448, 256), {"resize": "stretch", "crop": 0.5, "size": (224, 128)}, np.s_[112:336, 64:192]),
    ],
)
def test_the_part_that_is_seen(size: tuple[int, int], given: dict[str, object], part: tuple[slice, ...]) -> None:
    picture = noise(*size)
    np.testing.assert_array_equal(prepared(**given).resized(picture), picture[part])


def test_stretching_distorts() -> None:
    picture = np.repeat(np.repeat(noise(4, 4), 8, axis=0), 32, axis=1)
    small = prepared(size=(4, 4), resize="stretch").resized(picture)
    np.testing.assert_array_equal(small, picture[::8, ::32])


@pytest.mark.parametrize(
    ("size", "inside"),
    [
        ((40, 120), np.s_[33:66, :]),  # 33 rows: 100 / 120 of 40
        ((120, 40), np.s_[:, 33:66]),
        ((30, 30), np.s_[:, :]),
    ],
)
def test_bars_keep_the_shape(size: tuple[int, int], inside: tuple[slice, slice]) -> None:
    seen = prepared(size=(100, 100), resize="longest").resized(np.full((*size, 3), 200, np.uint8))
    expected = np.zeros((100, 100, 3), np.uint8)
    expected[inside] = 200
    np.testing.assert_array_equal(seen, expected)


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(500, 333), (100, 90)])
def test_pillows_filters(name: str, size: tuple[int, int]) -> None:
    picture = noise(*size)
    expected = Image.fromarray(picture).resize((224, 224), Image.Resampling[name.upper()])
    np.testing.assert_array_equal(prepared(filter=name, resize="stretch").resized(picture), np.asarray(expected))


@pytest.mark.parametrize("times", [2, 3, 4, 8, 12])
def test_area_is_the_mean_of_what_it_covers(times: int) -> None:
    picture = noise(20 * times, 30 * times)
    means = picture.reshape(20, times, 30, times, 3).mean(axis=(1, 3))
    seen = prepared(size=(20, 30)).resized(picture)
    assert np.abs(seen - means).max() <= (1.01 if times < 4 else 1.51)  # rounded once, or once in each step


def test_area_enlarges_smoothly() -> None:
    picture = noise(50, 70)
    expected = cv2.resize(picture, (224, 224), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_array_equal(prepared(resize="stretch").resized(picture), expected)
    reduced_one_way = np.repeat(noise(2000, 1), 10, axis=1)
    thin = prepared(resize="stretch").resized(reduced_one_way)
    assert thin.shape == (224, 224, 3)
    assert thin.std() < 60  # of noise itself: 74


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (2, 3), (223, 225)])
@pytest.mark.parametrize("resize", ["shortest", "stretch", "longest"])
@pytest.mark.parametrize("filter", ["area", "bilinear"])
def test_pictures_of_any_shape(size: tuple[int, int], resize: str, filter: str) -> None:
    picture = np.full((*size, 3), 77, np.uint8)
    seen = prepared(resize=resize, filter=filter, crop=0.875).resized(picture)
    assert seen.shape == (224, 224, 3)
    assert set(np.unique(seen).tolist()) <= ({0, 77} if resize == "longest" else {77})
    assert 77 in seen


def test_parts_of_larger_pictures_need_not_be_whole_in_memory() -> None:
    whole = noise(300, 400)
    np.testing.assert_array_equal(
        prepared().resized(whole[20:280, 30:330]), prepared().resized(whole[20:280, 30:330].copy())
    )


PICTURE = np.array([[[255, 0, 51], [1, 2, 3]]], np.uint8)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("colour", ["RGB", "BGR"])
def test_the_numbers_of_the_input(layout: str, dtype: str, colour: str) -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    chosen = prepared(
        size=(1, 2), layout=layout, dtype=dtype, colour=colour, scale=1 / 255, mean=mean, std=std, resize="stretch"
    )
    ordered = PICTURE[:, :, ::-1] if colour == "BGR" else PICTURE
    expected = (ordered / 255 - np.array(mean)) / np.array(std)
    batch = chosen.batch([PICTURE], 1)
    assert batch.dtype == dtype
    assert batch.flags.c_contiguous
    expected = expected if layout == "NHWC" else expected.transpose(2, 0, 1)
    np.testing.assert_allclose(batch[0], expected, rtol=2e-3 if dtype == "float16" else 1e-6)


def test_one_number_for_all_colours() -> None:
    batch = prepared(size=(1, 2), dtype="float32", mean=(127.0,), std=(128.0,), resize="stretch").batch([PICTURE], 1)
    np.testing.assert_allclose(batch[0], (PICTURE - 127.0) / 128, rtol=1e-6)


def test_pixels_as_they_are() -> None:
    batch = prepared(size=(1, 2), resize="stretch", colour="BGR").batch([PICTURE], 3)
    assert batch.dtype == np.uint8
    np.testing.assert_array_equal(batch[0], PICTURE[:, :, ::-1])
    assert not batch[1:].any()  # a batch may be fuller than there are pictures


def test_one_picture_at_a_time() -> None:
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0

    def pictures() -> Iterator[np.ndarray]:
        nonlocal most
        for index in range(6):
            picture = noise(300 + index, 280)
            alive.append(weakref.ref(picture))
            most = max(most, sum(one() is not None for one in alive))
            yield picture
            del picture

    prepared().batch(pictures(), 6)
    assert most <= 2  # the one in use, and the next

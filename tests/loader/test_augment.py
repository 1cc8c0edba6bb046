"""Augmentations beside Keras' own functions, given the same parameters."""

from __future__ import annotations

import numpy as np
import pytest
from keras.src.legacy.preprocessing import image as keras_image
from scipy import ndimage

from pipeline.errors import UsageError
from pipeline.loader.augment import Augment, Augmenter, Changes, matrix
from tests.loader.made_pictures import smooth

pytestmark = pytest.mark.filterwarnings("ignore:Please import `affine_transform`:DeprecationWarning")  # Keras does so

GEOMETRY = [
    Changes(theta=33.0),
    Changes(shift_x=4.3, shift_y=-2.6),
    Changes(shear=17.0),
    Changes(zoom_x=0.7, zoom_y=1.3),
    Changes(theta=-21.0, shift_x=-3.2, shift_y=5.1, shear=-9.0, zoom_x=1.2, zoom_y=0.9, flip_x=True, flip_y=True),
]


def keras_geometry(picture: np.ndarray, c: Changes, mode: str, order: int = 1) -> np.ndarray:
    """Apply Keras' transform, which calls a shift along x `tx`."""
    made = keras_image.apply_affine_transform(
        picture.astype(np.float32), c.theta, c.shift_x, c.shift_y, c.shear, c.zoom_x, c.zoom_y,
        row_axis=0, col_axis=1, channel_axis=2, fill_mode=mode, order=order,
    )  # fmt: skip
    made = made[:, ::-1] if c.flip_x else made
    return made[::-1] if c.flip_y else made


@pytest.mark.parametrize("mode", ["nearest", "reflect", "constant"])
@pytest.mark.parametrize("changes", GEOMETRY, ids=["rotation", "shift", "shear", "zoom", "all"])
def test_one_warp_is_keras_transform(changes: Changes, mode: str) -> None:
    picture = smooth(1, 64, 64)[0]
    augmenter = Augmenter(Augment(fill_mode=mode))
    ours = augmenter.geometry(picture, changes)
    difference = np.abs(ours - keras_geometry(picture, changes, mode))
    mask = (picture[..., 0] > 128).astype(np.uint8) * 7
    wanted = keras_geometry(mask[..., None], changes, mode, 0)[..., 0]
    beside = augmenter.geometry(mask, changes, nearest=True) != wanted
    assert beside.mean() <= (0.015 if mode == "constant" else 0.001)
    if mode == "constant":  # OpenCV blends the edge with the fill, SciPy cuts it: one line of pixels
        whole = Augmenter(Augment(fill_mode=mode)).geometry(np.full_like(picture, 255), changes)
        inside = ndimage.minimum_filter(whole, (3, 3, 1)) == 255
        assert inside.mean() > 0.4
        difference = difference[inside]
    assert difference.max() <= 1.5
    assert difference.mean() <= 0.4


def test_pictures_that_are_not_square_turn_about_their_middle() -> None:
    """Keras turns these about a point outside the middle; SciPy with the right matrix is the reference."""
    picture, changes = smooth(1, 40, 72)[0], Changes(theta=30.0, zoom_x=0.9)
    ours = Augmenter(Augment()).geometry(picture, changes)
    (xx, xy, x), (yx, yy, y) = matrix(changes, 40, 72)
    wanted = np.stack([
        ndimage.affine_transform(channel, [[yy, yx], [xy, xx]], [y, x], order=1, mode="nearest")
        for channel in np.moveaxis(picture.astype(np.float32), -1, 0)
    ], -1)  # fmt: skip
    assert np.abs(ours - wanted).max() <= 1.5
    assert matrix(changes, 40, 72) @ [35.5, 19.5, 1] == pytest.approx([35.5, 19.5])


def test_colours_are_keras_colours() -> None:
    picture = smooth(1, 32, 32)[0]
    out = np.empty(picture.shape, np.float32)
    changes = Changes(channel_shift=-37.0, brightness=1.4)
    Augmenter(Augment(rescale=1 / 255)).colours(picture, changes, out)
    wanted = keras_image.apply_channel_shift(picture.astype(np.float32), -37.0, 2)
    wanted = keras_image.apply_brightness_shift(wanted, 1.4, scale=False) / 255
    np.testing.assert_allclose(out, wanted, atol=1e-6)


def test_contrast_is_pillows() -> None:
    from PIL import Image, ImageEnhance

    picture = smooth(1, 32, 32)[0]
    out = np.empty(picture.shape, np.float32)
    Augmenter(Augment()).colours(picture, Changes(contrast=1.3), out)
    wanted = np.asarray(ImageEnhance.Contrast(Image.fromarray(picture)).enhance(1.3))
    assert np.abs(out - wanted).max() <= 1


@pytest.mark.parametrize(
    "options",
    [
        {"samplewise_center": True},
        {"samplewise_std_normalization": True, "rescale": 1 / 255},
        {"featurewise_std_normalization": True, "rescale": 1 / 255},
        {"preprocessing_function": lambda x: x[..., ::-1] * 2 - 7, "rescale": 0.5},
    ],
    ids=["sample mean", "sample deviation", "feature deviation", "function"],
)
def test_normalisation_is_keras_standardize(options: dict[str, object]) -> None:
    pictures = smooth(4, 32, 32)
    implied = {name.replace("std_normalization", "center"): True for name in options if name.endswith("normalization")}
    keras = keras_image.ImageDataGenerator(**options, **implied)
    augment = Augment(**options)
    if augment.featurewise_center:
        keras.fit(pictures)
        augment = augment.fit(pictures)
    for picture in (pictures[1], pictures[1].astype(np.float32)):  # by the table, and by arithmetic
        out = np.empty(picture.shape, np.float32)
        Augmenter(augment).colours(picture, Changes(), out)
        np.testing.assert_allclose(out, keras.standardize(pictures[1].astype(np.float32)), rtol=1e-4, atol=1e-4)


def test_drawn_parameters_have_the_range_of_keras() -> None:
    options = {
        "rotation_range": 30, "width_shift_range": 0.25, "height_shift_range": [3, 9], "shear_range": 5.0,
        "zoom_range": [0.5, 0.75], "horizontal_flip": True, "channel_shift_range": 8.0, "brightness_range": (0.5, 0.9),
    }  # fmt: skip
    augmenter = Augmenter(Augment(**options))
    rng = np.random.default_rng(1)
    drawn = [augmenter.changes(rng.random(16).tolist(), 40, 80) for _ in range(400)]
    found = {name: np.array([getattr(one, name) for one in drawn]) for name in vars(drawn[0])}
    for name, low, high in (
        ("theta", -30, 30), ("shift_x", -20, 20), ("shear", -5, 5), ("zoom_x", 0.5, 0.75), ("zoom_y", 0.5, 0.75),
        ("channel_shift", -8, 8), ("brightness", 0.5, 0.9),
    ):  # fmt: skip
        assert low <= found[name].min() < low + 0.05 * (high - low), name
        assert high >= found[name].max() > high - 0.05 * (high - low), name
    assert set(found["shift_y"]) == {-9, -3, 3, 9}
    assert 0.4 < found["flip_x"].mean() < 0.6
    assert not found["flip_y"].any()


def test_a_whole_number_of_numpy_is_one() -> None:
    augmenter = Augmenter(Augment(width_shift_range=np.int64(3)))
    u = np.random.default_rng(3).random((50, 16)).tolist()
    assert {augmenter.changes(one, 40, 80).shift_x for one in u} == {-2, -1, 0, 1, 2}


def test_masks_and_boxes_go_along() -> None:
    """A bright square, its mask and its box stay together, whatever is drawn."""
    picture, mask = np.zeros((60, 90, 3), np.uint8), np.zeros((60, 90), np.uint8)
    picture[20:35, 30:52], mask[20:35, 30:52] = 255, 7
    box = np.array([[30, 20, 22, 15, 3]], np.float32)
    augmenter = Augmenter(
        Augment(rotation_range=30, zoom_range=0.2, horizontal_flip=True, vertical_flip=True, crop=(50, 80))
    )
    rng = np.random.default_rng(2)
    for _ in range(20):
        changes = augmenter.changes(rng.random(16).tolist(), 60, 90)
        shown, marked = augmenter.geometry(picture, changes), augmenter.geometry(mask, changes, nearest=True)
        assert shown.shape == (50, 80, 3)
        assert set(np.unique(marked)) == {0, 7}
        assert np.mean((shown[..., 0] > 127) == (marked == 7)) > 0.985
        (x, y, w, h, label), *_ = augmenter.boxes(box, changes, 60, 90)
        rows, columns = np.nonzero(marked)
        assert label == 3
        assert [x, y, x + w, y + h] == pytest.approx(
            [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], abs=1.5
        )
    far = Augmenter(Augment()).boxes(box, Changes(shift_x=-80.0), 60, 90)
    assert far.shape == (0, 5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rotation": 20}, "unknown option 'rotation'; did you mean 'rotation_range'"),
        ({"rotation_range": -3}, "augment.rotation_range"),
        ({"zoom_range": 1.0}, "a zoom of 0 leaves nothing"),
        ({"fill_mode": "mirror"}, "augment.fill_mode"),
        ({"rotation_range": float("inf")}, "augment.rotation_range: input should be a finite number"),
        ({"zoom_range": float("nan")}, "augment.zoom_range"),
        ({"width_shift_range": float("nan")}, "augment.width_shift_range"),
        ({"height_shift_range": -3}, "augment.height_shift_range: a whole number of pixels must be 0 or more"),
        ({"brightness_range": (-1, 0.5)}, "a factor of brightness must be 0 or more"),
    ],
)
def test_wrong_parameters_are_one_line(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words) as err:
        Augment(**options)
    assert "\n" not in str(err.value)


def test_featurewise_needs_its_values() -> None:
    with pytest.raises(UsageError, match=r"needs mean; call augment = augment\.fit\(sample\)"):
        Augmenter(Augment(featurewise_center=True))
    with pytest.raises(UsageError, match=r"not an array of shape \(0, 8, 8, 3\)"):
        Augment(featurewise_center=True).fit(np.zeros((0, 8, 8, 3)))

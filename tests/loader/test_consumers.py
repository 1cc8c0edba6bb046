"""Loaders in training: Keras' fit, and in place of Keras' own generator; sources beside arrays."""

from __future__ import annotations

import io
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import cv2
import keras
import numpy as np
import pandas as pd
import pytest

import pipeline
from pipeline.errors import StoreError, UsageError
from pipeline.loader.export import _Keys
from pipeline.loader.flow import ImageDataGenerator
from pipeline.loader.items import StoreItems, in_one_numbering
from pipeline.views.export import export
from tests.clips import write_clip
from tests.loader.made_pictures import EVERYTHING, PICTURES, digest, everything, folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("pictures"), PICTURES[:24], classes=3)


def losses(workers: int) -> list[float]:
    """Train a small network for three epochs."""
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Conv2D(4, 3, strides=4, activation="relu"), keras.layers.Flatten(), keras.layers.Dense(2)]
    model = keras.Sequential([keras.layers.Input((32, 32, 3)), *layers])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    bright = (PICTURES.mean((1, 2, 3)) > np.median(PICTURES.mean((1, 2, 3)))).astype(int)
    with pipeline.Loader(PICTURES, 16, everything(), labels=bright, workers=workers) as loader:
        found: list[float] = model.fit(loader.keras(), epochs=3, verbose=0).history["loss"]
        assert loader.state()["epoch"] == 3
        assert loader.state()["position"] == 0
    return found


def test_training_takes_the_same_course_for_any_number_of_workers() -> None:
    alone = losses(0)
    assert losses(2) == alone
    assert len(set(alone)) == 3
    assert np.isfinite(alone).all()


def test_flow_from_directory_gives_what_keras_gives(pictures: Path) -> None:
    """Without random changes the batches are equal: pictures, labels, order."""
    wanted = keras.src.legacy.preprocessing.image.ImageDataGenerator(rescale=1 / 255).flow_from_directory(
        pictures, (32, 32), batch_size=10, shuffle=False
    )
    ours = ImageDataGenerator(rescale=1 / 255, data_format="channels_last").flow_from_directory(
        pictures, (32, 32), batch_size=10, shuffle=False, workers=0
    )
    assert len(ours) == len(wanted) == 3
    for number in range(3):
        (images, labels), (keras_images, keras_labels) = ours[number], wanted[number]
        np.testing.assert_allclose(images, keras_images, atol=1e-6)
        np.testing.assert_array_equal(labels, keras_labels)
    grey = ImageDataGenerator().flow_from_directory(pictures, (16, 20), "grayscale", class_mode=None, workers=0)
    assert grey[0].shape == (24, 16, 20, 1)


def test_flow_takes_the_place_of_keras_flow() -> None:
    ours = ImageDataGenerator(horizontal_flip=True).flow(PICTURES, np.arange(70), 32, seed=5, workers=0)
    images, labels = ours[0]
    for image, label in zip(images, labels, strict=True):
        assert (image == PICTURES[label]).all() or (image == PICTURES[label][:, ::-1]).all()
    assert all(len(next(ours)) == 2 for _ in range(4))  # a generator of Keras does not end
    assert ours.loader.epoch == 1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda one: ImageDataGenerator(zca_whitening=True), "zca_whitening is not supported; leave it out"),
        (lambda one: ImageDataGenerator(validation_split=1.5), "validation_split is 1.5; it must lie between 0 and 1"),
        (lambda one: one.flow(PICTURES, sample_weight=np.ones(70)), "sample_weight is for y; give y as well"),
        (lambda one: one.flow(PICTURES, np.ones(70), sample_weight=np.ones(9)), "70 pictures and sample_weight 9 rows"),
        (lambda one: one.flow(PICTURES, np.ones(70), sample_weight=["a"] * 70), "weights must be finite numbers"),
        (lambda one: one.flow(PICTURES, np.ones(70), sample_weight=np.full(70, np.nan)), "weights must be finite"),
        (lambda one: one.flow(PICTURES, save_to_dir="/nowhere"), "'/nowhere', which is not a folder; make it first"),
        (lambda one: one.flow(PICTURES, save_to_dir=".", save_format="mp3"), "save_format is 'mp3'; use png or jpeg"),
        (lambda one: one.flow(PICTURES, data_fromat=1), "unknown argument 'data_fromat'; did you mean 'data_format'"),
        (lambda one: one.flow(PICTURES, subset="test"), "subset is 'test'; choose training or validation"),
        (lambda one: one.flow(PICTURES, np.arange(70), subset="training"), "have different classes; shuffle x and y"),
        (lambda one: one.flow_from_dataframe({"filename": ["a"]}), "unknown column 'class'.*valid: filename"),
        (lambda one: one.flow_from_dataframe({"filename": [1], "class": ["a"]}), "'filename' holds values that are"),
        (lambda one: one.flow_from_dataframe({"filename": ["a"], "class": [1]}), r"holds 1; .*use \.astype\(str\)"),
        (lambda one: one.flow_from_dataframe(None), "the table is a NoneType; give a DataFrame or a mapping"),
        (lambda one: one.flow((PICTURES, np.zeros(7))), "70 pictures and a further input 7 rows"),
        (
            lambda one: one.flow([np.zeros((2, 2, 3)), np.zeros((3, 2, 3))]),
            "x must be pictures of one shape, or a pair",
        ),
        (
            lambda one: one.flow_from_directory(".", interpolation="cubic"),
            "unknown interpolation 'cubic'; did you mean",
        ),
        (lambda one: one.flow_from_directory(".", 8, interpolation="box"), "target_size is 8; it must be height and w"),
        (lambda one: setattr(one, "mean", "x"), "mean and std are numbers, one for each channel, not 'x'"),
        (lambda one: one.flow_from_directory(".", class_mode="raw"), "class_mode 'raw' is not supported; use categ"),
        (lambda one: one.flow_from_dataframe({"filename": []}, class_mode="multi_output"), "to be a list of columns"),
        (lambda one: one.flow_from_dataframe({"filename": ["a"], "w": ["x"]}, weight_col="w"), "column 'w': weights"),
        (lambda one: one.flow_from_dataframe({"filename": ["a"]}, weight_col="w"), "^unknown column 'w'"),
        (lambda one: ImageDataGenerator().flow(PICTURES, subset="validation"), "'validation' is empty; give Image"),
    ],
)
def test_what_keras_has_and_this_has_not_is_one_line(call: Callable[[Any], Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        call(ImageDataGenerator(validation_split=0.25))


KERAS = keras.src.legacy.preprocessing.image.ImageDataGenerator
READ: dict[str, Any] = {"target_size": (8, 8), "batch_size": 40, "shuffle": False}


@pytest.fixture(scope="module")
def odd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with all that decides which files Keras takes, and in which order."""
    place = tmp_path_factory.mktemp("odd")
    names = ["b/z/1.png", "b/z-a/2.png", "b/z/a/3.png", "b/B.png", "b/a.JPG", "b/c.gif", "a/1.png", "a/2.png", "a/d.c"]
    for number, name in enumerate([*names, "top.png", *(f"d/{k}.bmp" for k in range(7))]):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(place / name) + ".png", PICTURES[number, :8, :8])
        (place / (name + ".png")).rename(place / name)
    (place / "c").mkdir()
    return place


@pytest.mark.parametrize("subset", [None, "training", "validation"])
@pytest.mark.parametrize("classes", [None, ["d", "b"], ["."]])
def test_subsets_of_a_folder_are_those_of_keras(
    subset: str | None, classes: list[str] | None, odd_folder: Path
) -> None:
    wanted, ours = (
        one(validation_split=0.3).flow_from_directory(odd_folder, subset=subset, classes=classes, **READ)
        for one in (KERAS, ImageDataGenerator)
    )
    assert ours.filenames == [name.removeprefix("./") for name in wanted.filenames]
    assert ours.class_indices == wanted.class_indices
    assert (ours.n, ours.samples, ours.num_classes) == (wanted.n, wanted.samples, wanted.num_classes)
    np.testing.assert_array_equal(ours.classes, wanted.classes)
    for made, expected in zip(ours[0], wanted[0], strict=True):
        np.testing.assert_array_equal(made, expected)


def table(place: Path) -> pd.DataFrame:
    names = sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())
    rows = [*names, *names[:3], "gone.png"]
    return pd.DataFrame({
        "filename": rows, "class": [name[0] for name in rows], "x": range(len(rows)), "y": np.arange(len(rows)) / 2,
        "several": [[name[0], "t"] for name in rows],
    })  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"subset": "validation"},
        {"subset": "training", "class_mode": "sparse"},
        {"classes": ["d", "b"]},
        {"y_col": "several"},
        {"y_col": "several", "classes": ["t", "a"]},
        {"classes": ["a", "b"], "class_mode": "binary"},
        {"class_mode": "raw", "y_col": ["x", "y"]},
        {"class_mode": "raw", "y_col": "x", "subset": "training"},
        {"classes": ["a"]},
        {"class_mode": None, "color_mode": "grayscale"},
        {"weight_col": "x"},
        {"weight_col": "y", "class_mode": "sparse", "subset": "training"},
        {"weight_col": "y", "class_mode": "raw", "y_col": "x", "classes": None},
        {"class_mode": "input", "weight_col": "x"},
        {"class_mode": "multi_output", "y_col": ["x", "y"], "weight_col": "y", "subset": "validation"},
    ],
    ids=str,
)
def test_flow_from_dataframe_gives_what_keras_gives(options: dict[str, Any], odd_folder: Path) -> None:
    with pytest.warns(UserWarning, match="invalid image filename"):
        wanted = KERAS(validation_split=0.3).flow_from_dataframe(table(odd_folder), odd_folder, **READ, **options)
    ours = ImageDataGenerator(validation_split=0.3).flow_from_dataframe(
        table(odd_folder), odd_folder, **READ, **options, workers=0
    )
    assert ours.n == wanted.n
    assert (ours.filenames, ours.filepaths) == (wanted.filenames, wanted.filepaths)
    made, expected = ours[0], wanted[0]
    if "class_mode" in options and options["class_mode"] is None:
        assert np.abs(made - expected).max() <= 1  # grey by OpenCV and by Pillow
        return
    assert len(made) == len(expected)
    for one, other in zip(made, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    if isinstance(made[1], np.ndarray) and options.get("class_mode") != "raw":
        assert made[1].dtype == expected[1].dtype


@pytest.mark.parametrize("colours", ["rgb", "grayscale"])
@pytest.mark.parametrize("method", [None, "nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"])
def test_interpolation_is_keras(method: str | None, colours: str, tmp_path: Path) -> None:
    wide = np.tile(PICTURES[:4], (1, 1, 2, 1))[:, :, :51]
    place = folder(tmp_path, wide)
    ratio = {"keep_aspect_ratio": method != "box", "color_mode": colours}
    wanted = KERAS().flow_from_directory(
        place, **{**READ, "target_size": (20, 17)}, interpolation=method or "bilinear", **ratio
    )
    ours = ImageDataGenerator().flow_from_directory(
        place, **{**READ, "target_size": (20, 17)}, interpolation=method, workers=0, **ratio
    )
    np.testing.assert_array_equal(ours[0][0], wanted[0][0])


def test_flow_gives_weights_and_further_inputs_as_keras_does() -> None:
    y, weights, beside = np.arange(70) % 3, np.linspace(0, 1, 70), np.arange(140).reshape(70, 2)
    options: dict[str, Any] = {"batch_size": 20, "shuffle": False, "sample_weight": weights}
    for x in (PICTURES, (PICTURES, beside), [PICTURES, [beside, y]]):
        wanted, ours = KERAS().flow(x, y, **options), ImageDataGenerator().flow(x, y, **options, workers=0)
        for made, expected in zip(next(ours), next(wanted), strict=True):
            assert type(made) is (tuple if isinstance(expected, list) else type(expected))
            for one, other in zip(made, expected, strict=True):
                np.testing.assert_allclose(one, other)
    split = ImageDataGenerator(validation_split=0.5).flow(PICTURES, y, **options, subset="training", workers=0)
    np.testing.assert_allclose(next(split)[2], weights[35:55])  # Keras gives the first ones to both parts


def test_models_of_several_inputs_and_outputs_train(pictures: Path) -> None:
    given = keras.layers.Input((32, 32, 3)), keras.layers.Input((2,))
    flat = keras.layers.Concatenate()([keras.layers.GlobalAveragePooling2D()(given[0]), given[1]])
    model = keras.Model(given, keras.layers.Dense(1)(flat))
    model.compile("sgd", "mse")
    data = ImageDataGenerator(rescale=1 / 255).flow((PICTURES, np.ones((70, 2))), np.ones(70), 20, workers=0)
    assert np.isfinite(model.fit(data, verbose=0).history["loss"]).all()
    files = sorted(map(str, pictures.rglob("*.png")))
    model = keras.Model(given[0], [keras.layers.Dense(1)(keras.layers.Flatten()(given[0])) for _ in range(2)])
    model.compile("sgd", ["mse", "mse"])
    columns = {"filename": files, "a": np.ones(len(files)), "b": np.zeros(len(files))}
    data = ImageDataGenerator(rescale=1 / 255).flow_from_dataframe(
        columns, y_col=["a", "b"], class_mode="multi_output", target_size=(32, 32), workers=0
    )
    assert np.isfinite(model.fit(data, verbose=0).history["loss"]).all()


def test_keras_reads_ahead_between_two_epochs() -> None:
    """With steps_per_epoch it goes on in a thread; what it read then were other batches, by chance."""
    wanted = [digest(batch) for batch in pipeline.Loader(PICTURES, 8, labels=np.arange(70), workers=0)]
    data = pipeline.Loader(PICTURES, 8, labels=np.arange(70), workers=0).keras()
    adapter = keras.src.trainers.data_adapters.py_dataset_adapter.PyDatasetAdapter(data, shuffle=True)
    reader = adapter._get_iterator()
    assert digest(data[4]) == wanted[4]
    adapter.on_epoch_begin()
    found = [digest(next(reader)) for _ in range(2)]
    assert digest(data[4]) == wanted[4]  # the user looks at a batch
    adapter.on_epoch_end()
    found.append(digest(next(reader)))
    adapter.on_epoch_begin()
    assert [*found, *map(digest, reader)] == wanted


def test_a_batch_that_keras_built_a_model_with_is_not_lost() -> None:
    """With torch and JAX it reads one, and begins again: epochs were no whole passes any more."""
    loader = pipeline.Loader(PICTURES, 8, labels=np.arange(70), workers=0)
    wanted = [digest(loader.batch(epoch, number)) for epoch in range(2) for number in range(9)]
    data = loader.keras()
    adapter = keras.src.trainers.data_adapters.py_dataset_adapter.PyDatasetAdapter(data, shuffle=True)
    adapter.on_epoch_begin()
    next(adapter._get_iterator())
    adapter.on_epoch_end()
    found = []
    for _ in range(2):
        adapter.on_epoch_begin()
        found += map(digest, adapter._get_iterator())
        adapter.on_epoch_end()
    assert found == wanted
    assert (loader.epoch, loader.position) == (2, 0)
    one = pipeline.Loader(PICTURES, 70, workers=0)
    adapter = keras.src.trainers.data_adapters.py_dataset_adapter.PyDatasetAdapter(one.keras(), shuffle=True)
    adapter.on_epoch_begin()
    assert len({digest(batch[0]) for _ in range(3) for batch in adapter._get_iterator()}) == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_weights_go_with_their_pictures(workers: int, pictures: Path) -> None:
    """Also if another picture takes the place of one that cannot be read."""
    (pictures / "class0" / "00003.png").rename(pictures / "class0" / "00003.gone")
    (pictures / "class0" / "00003.png").write_bytes(b"broken")
    try:
        ids = np.arange(24)
        with pipeline.Loader(pictures, 5, labels=ids, weights=ids * 2, workers=workers) as loader:
            for _, labels, weights in loader:
                assert weights.dtype == np.float32
                np.testing.assert_array_equal(weights, labels * 2)
            assert loader.broken
            state = loader.state()
        pipeline.Loader(pictures, 5, labels=ids, weights=ids * 2).load_state(state)
        with pytest.raises(UsageError, match="other pictures"):
            pipeline.Loader(pictures, 5, labels=ids, weights=ids).load_state(state)
        with pytest.raises(UsageError, match="weights are of labels or masks"):
            pipeline.Loader(PICTURES, weights=np.ones(70))
    finally:
        (pictures / "class0" / "00003.gone").rename(pictures / "class0" / "00003.png")


def test_a_training_obeys_weights() -> None:
    """Pictures of weight 0 change nothing."""
    weights = (np.arange(40) % 2).astype(float)
    found = []
    for target in (5.0, -100.0):
        keras.utils.set_random_seed(2)
        given = keras.layers.Input((32, 32, 3))
        model = keras.Model(given, keras.layers.Dense(1)(keras.layers.GlobalAveragePooling2D()(given)))
        model.compile(keras.optimizers.SGD(1e-6), "mse")
        y = np.where(weights > 0, 1.0, target)
        data = ImageDataGenerator().flow(PICTURES[:40], y, 8, sample_weight=weights, seed=1, workers=0)
        found.append(model.fit(data, epochs=2, verbose=0).history["loss"])
    assert found[0] == found[1]


def test_batches_are_saved_as_they_are_given(tmp_path: Path) -> None:
    data = ImageDataGenerator(horizontal_flip=True).flow(
        PICTURES[:10], None, 4, seed=1, save_to_dir=tmp_path, save_prefix="shown", workers=1
    )
    with data.loader:
        images = [(next(data), data.loader.indices, data.loader.epoch) for _ in range(6)]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        f"shown_{number}_{epoch}.png" for epoch in range(2) for number in range(10)
    )
    batch, numbers, _ = images[3]
    saved = cv2.imread(str(tmp_path / f"shown_{numbers[2]}_1.png"))[..., ::-1]
    wanted = keras.utils.array_to_img(batch[2], scale=True)  # Keras stretches values to 0 to 255
    np.testing.assert_array_equal(saved, np.asarray(wanted))


def test_pictures_and_masks_of_two_generators_with_one_seed_stay_together(tmp_path: Path) -> None:
    """Keras' own way to augment masks."""
    grey = np.repeat(PICTURES[:12, :, :, :1], 3, -1)
    folder(tmp_path / "pictures", grey)
    folder(tmp_path / "masks", grey)
    options = {name: value for name, value in EVERYTHING.items() if "range" in name or "flip" in name}
    made = [
        ImageDataGenerator(**options).flow_from_directory(
            tmp_path / name, (32, 32), batch_size=5, class_mode=None, seed=7, workers=0
        )
        for name in ("pictures", "masks")
    ]
    for _ in range(4):
        np.testing.assert_array_equal(next(made[0]), next(made[1]))
    assert made[0].class_indices == {"class0": 0, "class1": 1}
    assert made[0].classes.tolist() == [0] * 6 + [1] * 6
    assert made[0].image_shape == (32, 32, 3)
    assert Path(made[0].filepaths[0]).is_file()


def test_methods_of_keras_generator() -> None:
    ours, wanted = (
        one(featurewise_std_normalization=True, featurewise_center=True, rescale=1 / 255)
        for one in (ImageDataGenerator, KERAS)
    )
    for one in (ours, wanted):
        one.fit(PICTURES)
    np.testing.assert_allclose(ours.mean, wanted.mean.ravel(), rtol=1e-4)
    given = PICTURES[:3].astype(np.float32)
    np.testing.assert_allclose(ours.standardize(given), wanted.standardize(given.copy()), atol=1e-3)
    assert given.max() == 255
    ours.mean, ours.std = np.full((1, 1, 3), 0.5), 2
    np.testing.assert_allclose(ours.standardize(given), (given / 255 - 0.5) / 2, atol=1e-5)
    turned = ImageDataGenerator(horizontal_flip=True, rescale=2)
    made = [turned.random_transform(PICTURES[0], seed) for seed in range(20)]
    assert {(one == PICTURES[0]).all() for one in made} == {True, False}
    np.testing.assert_array_equal(turned.random_transform(PICTURES[0], 3), made[3])
    dark = ImageDataGenerator(brightness_range=(0.5, 0.5), featurewise_center=True)
    dark.fit(PICTURES, augment=True, rounds=2, seed=1)
    np.testing.assert_allclose(dark.mean, (PICTURES // 2).mean((0, 1, 2)), atol=1e-3)


@pytest.mark.parametrize("workers", [0, 1])
def test_predictions_are_in_order_after_a_reading_that_ended_half_way(workers: int) -> None:
    pictures = np.tile(np.arange(40, dtype=np.uint8)[:, None, None, None], (1, 4, 4, 1))
    given = keras.layers.Input((4, 4, 1))
    model = keras.Model(given, keras.layers.GlobalAveragePooling2D()(given))
    with pipeline.Loader(pictures, 8, shuffle=False, workers=workers) as loader:
        data = loader.keras()
        loader.next()
        assert model.predict(data, verbose=0).ravel().tolist() == list(range(40))
        assert model.predict(data, steps=2, verbose=0).ravel().tolist() == list(range(16))
        assert model.predict(data, verbose=0).ravel().tolist() == list(range(40))


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_tar_shards_and_lists_give_the_pictures_of_the_folder(pictures: Path, tmp_path: Path) -> None:
    names = sorted(path.relative_to(pictures) for path in pictures.rglob("*.png"))
    for shard, some in enumerate((names[:10], names[10:])):
        write_tar(tmp_path / f"{shard}.tar", {str(name): (pictures / name).read_bytes() for name in some})
    (tmp_path / "all.txt").write_text("".join(f"{pictures / name}\n" for name in names))
    found = []
    for source in (pictures, [tmp_path / "0.tar", tmp_path / "1.tar"]):
        with pipeline.Loader(source, 7, everything(), image_size=(24, 24), workers=1) as loader:
            assert loader.class_names == ("class0", "class1", "class2")
            found.append([digest(batch) for batch in loader])
    assert found[0] == found[1]
    listed = pipeline.Loader(tmp_path / "all.txt", 7, image_size=(24, 24), workers=0, shuffle=False)
    folder_first = pipeline.Loader(pictures, 7, image_size=(24, 24), workers=0, shuffle=False).next()
    assert (listed.next() == folder_first[0]).all()


@pytest.mark.parametrize(
    ("members", "labels", "class_names"),
    [
        ({"x.cls": "7", "y.cls": " 2\n"}, [7, 2], ()),
        ({"x.cls": "dog", "y.cls": "cat"}, [1, 0], ("cat", "dog")),
        ({"x.cls": "3", "y.cls": "cat"}, [0, 1], ("3", "cat")),
        ({"x.cls": "1", "y.cls": "0", "__class_names__": '["a", "b", "c"]'}, [1, 0], ("a", "b", "c")),
        ({"x.cls": "1"}, None, ()),
    ],
    ids=["numbers", "names", "both", "numbers with names", "one has none"],
)
def test_labels_of_a_tar_file_are_its_cls_files(
    members: dict[str, str], labels: list[int] | None, class_names: tuple[str, ...], pictures: Path, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    content = next(pictures.rglob("*.png")).read_bytes()
    made: dict[str, bytes] = {"x.left.png": content, **{name: text.encode() for name, text in members.items()}}
    write_tar(tmp_path / "1.tar", {**made, "y.png": content})
    loader = pipeline.Loader(tmp_path / "1.tar", 2, workers=0)
    assert (None if loader.labels is None else loader.labels.tolist()) == labels
    assert loader.class_names == class_names
    assert ("1 of 2 pictures have no .cls; none is used" in caplog.text) == (labels is None)


def test_folders_name_the_numbers_of_cls_files_if_each_has_its_own(pictures: Path, tmp_path: Path) -> None:
    content = next(pictures.rglob("*.png")).read_bytes()
    both = {"dog/1.png": content, "dog/1.cls": b"0", "cat/2.png": content, "cat/2.cls": b"1"}
    write_tar(tmp_path / "own.tar", both)
    write_tar(tmp_path / "mixed.tar", {**both, "cat/3.png": content, "cat/3.cls": b"0"})
    assert pipeline.Loader(tmp_path / "own.tar").class_names == ("dog", "cat")
    mixed = pipeline.Loader(tmp_path / "mixed.tar")
    assert mixed.class_names == ()
    assert mixed.labels is not None
    assert mixed.labels.tolist() == [0, 1, 0]


def test_a_store_holds_what_the_loader_gives(pictures: Path, tmp_path: Path, workflows: Path) -> None:
    """The workflow's pictures and labels are the loader's; a tar file of them has the same."""
    options = {name: value for name, value in EVERYTHING.items() if name != "rescale"}
    settings = {"source.resize": [28, 26], "augment.size": [26, 28], "augment.seed": 9, "augment.epoch": 2}
    settings |= {f"augment.{name}": value for name, value in options.items()}
    out = tmp_path / "augmented.zarr"
    run = pipeline.run(workflows / "augment.yaml", [pictures], out, executor="inline", set=settings)
    (name,) = run.inputs
    loader = pipeline.Loader(
        pictures, 24, pipeline.Augment(**options), seed=9, image_size=(26, 28), shuffle=False, workers=0, dtype="uint8"
    )
    images, labels = loader.batch(2, 0)
    np.testing.assert_array_equal(run.array(name, "image"), images)
    np.testing.assert_array_equal(run.array(name, "label"), labels)
    assert tuple(run.input(name).arrays["label"].attributes["class_names"]) == loader.class_names
    export(out, tmp_path / "shard.tar", axis="frame")
    shard = pipeline.Loader(tmp_path / "shard.tar", 24, shuffle=False, workers=0, dtype="uint8")
    again = shard.next()
    np.testing.assert_array_equal(again[0], images)
    np.testing.assert_array_equal(again[1], labels)
    assert shard.class_names == loader.class_names


def test_labels_of_several_inputs_have_one_numbering(pictures: Path, tmp_path: Path, workflows: Path) -> None:
    """Each folder numbers its own sub-folders; the loader goes by their names."""
    one, other = tmp_path / "one", tmp_path / "other"
    files = sorted(path for path in pictures.rglob("*") if path.is_file())[:4]
    for place, classes in ((one, "ac"), (other, "bc")):
        for name, file in zip(classes, files, strict=False):
            (place / name).mkdir(parents=True)
            shutil.copy(file, place / name)
    out = tmp_path / "two.zarr"
    settings = {"source.resize": [28, 26], "augment.size": [26, 28]}
    pipeline.run(workflows / "augment.yaml", [one, other], out, executor="inline", set=settings)
    loader = pipeline.Loader(out, 4, label="label", image_size=(26, 28), shuffle=False, workers=0)
    assert [loader.class_names[label] for label in loader.next()[1].tolist()] == ["a", "c", "b", "c"]
    assert loader.class_names == ("a", "b", "c")
    export(out, tmp_path / "two.tar", axis="frame")
    shard = pipeline.Loader(tmp_path / "two.tar", 4, shuffle=False, workers=0)
    assert [shard.class_names[label] for label in shard.next()[1].tolist()] == ["a", "c", "b", "c"]
    assert shard.class_names == ("a", "b", "c")


def test_stores_of_one_name_keep_their_labels(pictures: Path, tmp_path: Path, workflows: Path) -> None:
    """Labels went by the name of the input, which two stores may share; nothing said what was written, or left out."""
    file = next(path for path in sorted(pictures.rglob("*")) if path.is_file())
    outs = []
    for place, classes in (("one", "ab"), ("other", "cba")):
        for name in classes:
            (tmp_path / place / "photos" / name).mkdir(parents=True)
            shutil.copy(file, tmp_path / place / "photos" / name)
        outs.append(tmp_path / place / "s.zarr")
        (tmp_path / place / "photos" / "c").mkdir(exist_ok=True)
        (tmp_path / place / "photos" / "c" / "broken.png").write_bytes(b"not a picture")
        settings = {"source.resize": [28, 26], "augment.size": [26, 28]}
        photos = tmp_path / place / "photos"
        pipeline.run(workflows / "augment.yaml", [photos], outs[-1], executor="inline", set=settings)
    exported = export(outs, tmp_path / "both.tar", axis="frame")
    assert (exported.rows, exported.items) == (5, 7)
    assert exported.notes == ["2 pictures left out: could not be read"]
    shard = pipeline.Loader(tmp_path / "both.tar", 5, shuffle=False, workers=0)
    assert [shard.class_names[label] for label in shard.next()[1].tolist()] == ["a", "b", "a", "b", "c"]


def test_ids_of_people_become_numbers_with_names() -> None:
    parts = [(np.array([7, 2]), {"7": "Ann"}), (np.array([2, 9]), {"7": "Ann", "9": "Bob"})]
    labels, names = in_one_numbering(parts)
    assert labels.tolist() == [1, 0, 0, 2]
    assert names == ("2", "Ann", "Bob")
    same = [(np.array([1]), ["x", "y"]), (np.array([0]), ["x", "y"])]
    assert in_one_numbering(same)[1] == ("x", "y")
    assert in_one_numbering([(np.array([5, 3]), None)])[0].tolist() == [5, 3]


def test_keys_of_a_tar_file_are_each_picture_its_own() -> None:
    """WebDataset groups by the name up to the first dot; nothing is unpacked outside of the folder."""
    keys = _Keys()
    names = ["a/x.jpg", "a/x.png", "a/x.v1.jpg", "a/x.jpg", "../../etc/y.jpg", "/abs/y.jpg", ".jpg"]
    made = [keys.of(name) for name in names]
    assert made == ["a/x", "a/x_png", "a/x_v1", "a/x_jpg", "etc/y", "abs/y", "jpg"]
    assert [keys.of("a/x.png") for _ in range(2)] == ["a/x_2", "a/x_3"]


def test_rows_of_a_store_are_crops_with_their_labels(pictures: Path, tmp_path: Path) -> None:
    workflow = tmp_path / "squares.yaml"
    workflow.write_text(
        "source: {kind: images}\nstages: {squares: {use: 'tests.loader.made_pictures:Squares'}}\n", encoding="utf-8"
    )
    pipeline.run(workflow, [pictures], tmp_path / "squares.zarr", executor="inline")
    whole = pipeline.Loader(pictures, 24, shuffle=False, workers=0, dtype="uint8").next()[0]
    crops = pipeline.Loader(
        tmp_path / "squares.zarr", 24, axis="square", label="kind", image_size=(12, 30), shuffle=False, workers=1
    )
    with crops as loader:
        images, labels = loader.next()
    assert loader.class_names == ("odd", "even")
    np.testing.assert_array_equal(labels, whole[:, 0, 0, 0] % 2)  # the first row of each picture is of nothing known
    # 20 × 8 at 10, 2, as a square with padding: 30 pixels from 5, -9; beyond the edge it is repeated.
    rows, columns = np.clip(np.arange(-9, 21), 0, 31), np.clip(np.arange(5, 35), 0, 31)
    expected = whole[:, rows][:, :, columns].astype(float)
    assert np.abs(images.mean((1, 2)) - expected.mean((1, 2))).max() < 1
    with pytest.raises(StoreError, match="unknown axis 'squares'; did you mean 'square'"):
        pipeline.Loader(tmp_path / "squares.zarr", axis="squares")
    with pytest.raises(UsageError, match="axis and label are for a run store"):
        pipeline.Loader(pictures, axis="square")


def test_workers_of_torch_do_not_give_each_batch_several_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would have a loader of its own, and give all batches of it."""
    for workers in (1, 2):
        worker = SimpleNamespace(num_workers=workers)
        data = SimpleNamespace(get_worker_info=lambda one=worker: one)
        monkeypatch.setitem(sys.modules, "torch.utils.data", data)
        loader = pipeline.Loader(PICTURES, 8, workers=0)
        if workers == 1:
            assert len(list(loader)) == 9
            continue
        with pytest.raises(UsageError, match="workers of its own; use it as it is, or with num_workers=0"):
            list(loader)


def test_boxes_need_the_parameters_of_albumentations() -> None:
    """Without them it turns the picture, and gives the boxes back as they were."""

    class Compose:
        processors: ClassVar[dict[str, Any]] = {"bboxes": SimpleNamespace(params=SimpleNamespace(format="pascal_voc"))}

        def set_random_seed(self, seed: int) -> None: ...

        def __call__(self, **given: Any) -> dict[str, Any]:
            return given

    transform = Compose()
    loader = pipeline.Loader(PICTURES, 8, transform, boxes=[[[1, 2, 3, 4]]] * 70, workers=0)
    for kept in (transform.processors, {}):
        transform.processors = kept  # type: ignore[misc]
        with pytest.raises(UsageError, match=r"x, y, width, height: give Compose bbox_params=BboxParams\('coco'\)"):
            loader.next()
    transform.processors = {"bboxes": SimpleNamespace(params=SimpleNamespace(format="coco"))}  # type: ignore[misc]
    assert loader.next()[1][0].tolist() == [[1, 2, 3, 4]]


def test_masks_beside_labels_are_no_weights() -> None:
    """Keras takes the third array of a batch for weights."""
    masks = PICTURES[..., 0]
    with pytest.raises(UsageError, match=r"would take masks for weights. Leave out one of labels and masks"):
        pipeline.Loader(PICTURES, 8, labels=np.arange(70), masks=masks, workers=0).keras()
    assert len(pipeline.Loader(PICTURES, 8, masks=masks, weights=np.ones(70), workers=0).keras()[0]) == 3


def test_threads_of_keras_are_refused() -> None:
    data = pipeline.Loader(PICTURES, 8, workers=0).keras()
    data.workers = 1
    with pytest.raises(UsageError, match=r"workers=4 is for the loader; give it to pipeline\.Loader"):
        data.workers = 4


def test_crops_of_a_film_are_those_of_its_frames_alone(tmp_path: Path) -> None:
    """The frames of a batch are decoded at once, forwards, and each only once."""
    film, workflow, out = tmp_path / "film.mp4", tmp_path / "squares.yaml", tmp_path / "film.zarr"
    write_clip(film, 60)
    workflow.write_text(
        "source: {kind: video}\nstages: {squares: {use: 'tests.loader.made_pictures:Squares'}}\n", encoding="utf-8"
    )
    pipeline.run(workflow, [film], out, executor="inline")
    loader = pipeline.Loader(out, 16, axis="square", image_size=(12, 12), workers=0)
    items = loader.recipe.items
    found = [loader.next() for _ in range(2)]
    alone = StoreItems.prepare
    try:
        StoreItems.prepare = lambda self, indices: None  # type: ignore[method-assign]
        items._ready = {}  # type: ignore[attr-defined]
        for number, batch in enumerate(found):
            np.testing.assert_array_equal(loader.batch(0, number), batch)
    finally:
        StoreItems.prepare = alone  # type: ignore[method-assign]
    assert len(np.unique(found[0], axis=0)) > 10

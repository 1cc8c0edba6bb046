"""Batches are the same bytes for any number of workers, after kills and after a resume."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import psutil
import pytest

import pipeline
from pipeline.errors import InputError, UsageError
from pipeline.loader.items import Items
from pipeline.loader.pool import Pool
from pipeline.loader.watch import Watch
from tests.loader import trial
from tests.loader.made_pictures import PICTURES, digest, everything, folder, loader_of


@pytest.fixture(scope="module")
def wanted() -> list[str]:
    """Hashes of the batches of two epochs, made in this process."""
    with loader_of(0) as loader:
        return [digest(batch) for _ in range(2) for batch in loader]


def test_two_epochs_differ_and_hold_every_picture() -> None:
    with pipeline.Loader(PICTURES, 8, labels=np.arange(70), workers=0) as loader:
        first, second = ([label for _, labels in loader for label in labels] for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(70))
    assert first != second


@pytest.mark.parametrize("workers", [1, 4])
def test_any_number_of_workers_gives_the_same_bytes(workers: int, wanted: list[str]) -> None:
    with loader_of(workers) as loader:
        assert [digest(batch) for _ in range(2) for batch in loader] == wanted
        assert not loader.broken


def test_a_map_of_a_file_is_shared_as_it_is(tmp_path: Path) -> None:
    np.save(tmp_path / "pictures.npy", PICTURES)
    mapped = np.load(tmp_path / "pictures.npy", mmap_mode="r")
    with pipeline.Loader(mapped, 70, shuffle=False, workers=1) as loader:
        assert (loader.next() == PICTURES).all()
        assert os.readlink(f"/proc/self/fd/{loader.recipe.items.descriptors()[0]}") == str(tmp_path / "pictures.npy")


def test_a_map_is_what_it_shows_and_not_what_its_file_holds_now(tmp_path: Path) -> None:
    """A private map that was written to; files that were replaced, are gone, became shorter or have no name."""
    for name in ("private", "replaced", "gone", "shorter"):
        np.save(tmp_path / f"{name}.npy", PICTURES)
    maps = {name: np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("replaced", "gone", "shorter")}
    maps["private"] = np.load(tmp_path / "private.npy", mmap_mode="c")
    maps["private"][33] = 255 - PICTURES[33]
    np.save(tmp_path / "new.npy", 255 - PICTURES)
    (tmp_path / "new.npy").replace(tmp_path / "replaced.npy")
    (tmp_path / "gone.npy").unlink()
    (tmp_path / "short.npy").write_bytes(b"")
    (tmp_path / "short.npy").replace(tmp_path / "shorter.npy")
    with TemporaryFile() as file:
        file.write(PICTURES.tobytes())
        maps["without a name"] = np.memmap(file, np.uint8, "r", 0, PICTURES.shape)
        for name, mapped in maps.items():
            before = len(os.listdir("/proc/self/fd"))
            with pipeline.Loader(mapped, 70, shuffle=False, workers=1) as loader:
                assert (loader.next() == mapped).all(), name
            del loader
            assert len(os.listdir("/proc/self/fd")) == before, name


def test_kept_batches_stay_as_they_are(wanted: list[str]) -> None:
    """The ring is short: what the consumer keeps must not be written again."""
    with loader_of(2, prefetch=2) as loader:
        kept = list(loader)
    assert [digest(batch) for batch in kept] == wanted[:9]


def test_a_killed_worker_costs_no_batch(wanted: list[str], caplog: pytest.LogCaptureFixture) -> None:
    with loader_of(2) as loader:
        found = [digest(loader.next()) for _ in range(3)]
        for worker in loader._pool.workers:  # type: ignore[union-attr]
            worker.process.kill()
        found += [digest(loader.next()) for _ in range(15)]
        assert loader._pool.deaths == 2  # type: ignore[union-attr]
    assert found == wanted
    assert caplog.text.count("by signal SIGKILL; it was started again, and") == 2


def test_a_batch_that_ends_its_workers_is_named() -> None:
    def deadly(picture: np.ndarray) -> np.ndarray:
        if os.getpid() != here:
            os._exit(9)
        return picture

    here = os.getpid()
    with (
        pipeline.Loader(PICTURES, 8, deadly, workers=1) as loader,
        pytest.raises(InputError, match=r"3 workers ended with exit code 9 in the same batch, of items"),
    ):
        loader.next()


CONSUMER = """
    import json, sys, time
    import numpy as np
    from tests.loader.made_pictures import digest, loader_of

    with loader_of(int(sys.argv[3])) as loader:
        if sys.argv[1] != "new":
            loader.load_state(json.loads(sys.argv[1]))
        for batch in loader:
            pids = [one.process.pid for one in loader._pool.workers] if loader._pool else []
            print(json.dumps([digest(batch), loader.state(), pids]), flush=True)
            time.sleep(float(sys.argv[2]))
"""


def consumer(state: str, step: float, workers: int) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", textwrap.dedent(CONSUMER), state, str(step), str(workers)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_a_stopped_consumer_resumes_in_mid_epoch_and_leaves_nothing(how: int, wanted: list[str]) -> None:
    before = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    with consumer("new", 0.2, 2) as first:
        assert first.stdout is not None
        lines = [json.loads(first.stdout.readline()) for _ in range(4)]
        os.killpg(first.pid, how) if how == signal.SIGINT else first.kill()
        first.wait(20)
    hashes, state, pids = [line[0] for line in lines], lines[-1][1], lines[-1][2]
    assert hashes == wanted[:4]
    deadline = time.monotonic() + 20
    while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(psutil.pid_exists(pid) for pid in pids)
    if os.path.isdir("/dev/shm"):
        assert {name for name in os.listdir("/dev/shm") if "reelgraph" in name} <= before
    with consumer(json.dumps(state), 0, 0) as second:
        output, errors = second.communicate(timeout=60)
    assert second.returncode == 0, errors
    assert [json.loads(line)[0] for line in output.splitlines()] == wanted[4:9]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_workers_end_also_in_the_middle_of_a_picture(how: int) -> None:
    """A function that hangs would keep its process for ever."""
    code = """
        import os, sys, time
        import numpy as np
        import pipeline

        def hanging(picture):
            if os.getpid() != here:
                os.write(1, b"%d\\n" % os.getpid())  # at once: two workers write to one pipe
                time.sleep(600)
            return picture

        here = os.getpid()
        pipeline.Loader(np.zeros((4, 8, 8, 3), np.uint8), 2, hanging, workers=2).next()
    """
    words = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    ) as one:
        assert one.stdout is not None
        pids = [int(one.stdout.readline()) for _ in range(2)]
        began = time.monotonic()
        os.killpg(one.pid, how) if how == signal.SIGINT else one.kill()
        one.wait(20)
        while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < began + 20:
            time.sleep(0.05)
        assert not any(psutil.pid_exists(pid) for pid in pids)


def test_what_cannot_be_sent_to_workers_is_one_line() -> None:
    lock = threading.Lock()

    def locked(picture: np.ndarray) -> np.ndarray:
        with lock:
            return picture

    with (
        pipeline.Loader(PICTURES, 8, locked, workers=1) as loader,
        pytest.raises(UsageError, match=r"cannot be sent to workers \(TypeError: cannot pickle .*; use workers=0"),
    ):
        loader.next()
    assert pipeline.Loader(PICTURES, 8, locked, workers=0).next().shape == (8, 32, 32, 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"workers": -1}, "workers is -1; it must be 0 or more"),
        ({"broken": "ignore"}, "choose next, skip, zeros or raise"),
        ({"dtype": "int8"}, "choose float32, float16 or uint8"),
        ({"labels": [1, 2]}, "2 labels for 70 pictures"),
        ({"augment": 3}, "augment is 3; give an Augment"),
        ({"augment": pipeline.Augment(rescale=2), "dtype": "uint8"}, "without rescale and normalisation only"),
        ({"augment": pipeline.Augment(crop=(33, 8))}, r"crop \(33, 8\) is larger than the picture"),
        ({"drop_last": True, "batch_size": 71}, "70 pictures are less than a batch of 71"),
        ({"batch_size": 2.0}, r"batch_size is 2\.0; it must be a whole number"),
        ({"batch_size": None}, "batch_size is None; it must be a whole number"),
        ({"workers": "2"}, "workers is '2'; it must be a whole number"),
        ({"prefetch": 1.5}, r"prefetch is 1\.5"),
        ({"seed": 0.5}, r"seed is 0\.5; it must be a whole number"),
        ({"seed": 1 << 70}, "it must have 64 bits or fewer"),
        ({"image_size": 8}, "image_size is 8; it must be height and width"),
        ({"image_size": (0, 8)}, r"image_size is \(0, 8\); it must be height and width"),
        ({"image_size": (1 << 20, 1 << 20)}, "the limit is 134 million"),
        ({"labels": 3}, "labels must be an array or a list with one entry for each picture, not 3"),
        ({"labels": [[1], [1, 2]] * 35}, "labels must be an array"),
        ({"labels": set(range(70))}, "labels must be an array"),
        ({"labels": np.arange(70) - 1, "one_hot": True}, "a whole number from 0"),
        ({"labels": np.zeros((70, 2), int), "one_hot": True}, "a whole number from 0"),
        ({"labels": np.full(70, 1 << 40), "one_hot": True}, "number the classes from 0"),
        ({"masks": np.zeros((70, 8, 8))}, r"the mask of \d+ has 8 × 8 pixels, its picture 32 × 32"),
        ({"masks": np.zeros((70, 8))}, r"masks are numbers \(n, height, width\), not float64 \(n, 8\)"),
        ({"masks": np.zeros((70, 32, 32, 0))}, "masks of float64 have 0 channels; from 1 to 256 are supported"),
        ({"masks": np.zeros((70, 32, 32, 513), bool)}, "masks of bool have 513 channels; from 1 to 512"),
        ({"boxes": 5}, "boxes must be a list with an array for each picture, not 5"),
        ({"boxes": [[[1, 2, 3, 4, 33554433]]] * 70}, "hold 33554433, which float32 cannot; number the ids from 0"),
        ({"axis": "face"}, "axis and label are for a run store; the source is not one"),
        ({"label": "person"}, "axis and label are for a run store"),
        ({"masks": np.zeros((70, 32, 32)), "augment": lambda x: x[:9]}, "must keep its size if there are masks"),
        ({"boxes": [[[1, 2, 3]]] * 70}, "boxes of picture 0 are .*; a box is x, y, width, height"),
        ({"boxes": [[[1, 2, 3, float("nan")]]] * 70}, "boxes of picture 0 are"),
        ({"boxes": [None] * 70}, "boxes of picture 0 are None"),
        ({"augment": pipeline.Augment(featurewise_center=True, mean=(1, 2))}, "2 values for pictures of 3 channels"),
        ({"augment": lambda x: None}, "it must return a picture"),
        ({"augment": lambda x: x / 255, "dtype": "uint8"}, "without rescale and normalisation only"),
        ({"augment": pipeline.Augment(preprocessing_function=lambda x: None)}, r"returned shape \(\) for a picture"),
    ],
)
def test_a_mistake_is_one_line(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as err:
        pipeline.Loader(PICTURES, **{"workers": 0, **options}).next()
    assert "\n" not in str(err.value)


@pytest.mark.parametrize("source", [None, 3, np.zeros((2, 3)), np.array(["a"]), np.zeros((2, 0, 3, 3)), PICTURES[None]])
def test_a_source_that_is_none_is_one_line(source: Any) -> None:
    with pytest.raises(UsageError, match=r"the source is|pictures are numbers"):
        pipeline.Loader(source)


def test_too_many_channels_are_one_line() -> None:
    with pytest.raises(UsageError, match="600 channels; at most 512"):
        pipeline.Loader(np.zeros((2, 3, 3, 600)))


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint64", "bool", "float16", ">f4", ">f8", ">u2", ">i8"])
def test_pixels_of_any_type_are_warped_by_their_values(dtype: str) -> None:
    """OpenCV refuses most of these, and takes the bytes of the others in the wrong order."""
    given = (PICTURES[:4] // 2 > 60).astype(dtype) if dtype == "bool" else (PICTURES[:4] // 2).astype(dtype)
    augment = pipeline.Augment(rotation_range=30, zoom_range=0.2)
    as_float, ours = (
        pipeline.Loader(pictures, 4, augment, workers=0).next() for pictures in (given.astype(np.float32), given)
    )
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, as_float, atol=0.51 if dtype == ">u2" else 1e-4)  # uint16 is rounded


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "uint16", "float16", "uint32", "int64", "float64", ">i4"])
def test_masks_of_any_type_keep_their_values(dtype: str) -> None:
    values = np.array([0, 1], bool) if dtype == "bool" else np.array([0, 100, 3, 117]).astype(dtype)
    if dtype in ("int64", "float64"):
        values = values + np.asarray((1 << 40) + 1, dtype) * (values > 0)
    numbers = PICTURES[:8, :, :, 0] % len(values)
    augment = pipeline.Augment(rotation_range=30, horizontal_flip=True, fill_mode="constant")
    plain = pipeline.Loader(PICTURES[:8], 8, augment, masks=numbers, workers=0).next()[1]
    for workers in (0, 1) if dtype == ">i4" else (0,):
        with pipeline.Loader(PICTURES[:8], 8, augment, masks=values[numbers], workers=workers) as loader:
            found = loader.next()[1]
        assert found.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(found, values[plain])


def test_arrays_have_the_size_that_was_asked_for_and_boxes_follow() -> None:
    boxes = [np.array([[4, 8, 10, 16, 7]])] * 70
    sized = pipeline.Loader(PICTURES, 70, image_size=(16, 64), boxes=boxes, workers=0, shuffle=False)
    images, found = sized.next()
    assert images.shape == (70, 16, 64, 3)
    assert np.abs(images.mean((1, 2)) - PICTURES.mean((1, 2))).max() < 1
    assert found[0].tolist() == [[8, 4, 20, 8, 7]]
    floats = pipeline.Loader(PICTURES / 255, 70, image_size=(16, 64), workers=0, shuffle=False, grey=True).next()
    assert floats.shape == (70, 16, 64, 1)
    assert np.abs(floats[..., 0] * 255 - images @ [0.299, 0.587, 0.114]).max() < 1.5


def test_boxes_and_masks_of_files(tmp_path: Path) -> None:
    """Boxes are in pixels of the file; masks are not sent to each worker, but shared."""
    folder(tmp_path / "photos", PICTURES[:2])
    np.save(tmp_path / "masks.npy", np.stack([np.zeros((8, 16), np.uint8), np.ones((8, 16), np.uint8)]))
    masks = np.load(tmp_path / "masks.npy", mmap_mode="r")
    boxes, size = [[[4, 8, 10, 16]]] * 2, (8, 16)
    with pipeline.Loader(tmp_path / "photos", 2, image_size=size, boxes=boxes, masks=masks, workers=1) as loader:
        _, labels, shown, found = loader.next()
        assert found[0].tolist() == [[2, 2, 5, 4]]
        assert (shown == masks[labels]).all()
        assert os.readlink(f"/proc/self/fd/{loader.recipe.items.descriptors()[0]}") == str(tmp_path / "masks.npy")


def test_a_function_may_write_into_what_it_gets() -> None:
    def dark(picture: np.ndarray) -> np.ndarray:
        picture *= 0
        return picture

    given, boxes = PICTURES[:4].copy(), [np.ones((1, 4), np.float32)] * 4
    for workers in (0, 1):
        with pipeline.Loader(given, 4, dark, masks=given[..., 0], boxes=boxes, workers=workers) as loader:
            images, masks, found = loader.next()
            found[0][:] = 9
            assert not images.any()
            assert masks.any()
    assert (given == PICTURES[:4]).all()
    assert (boxes[0] == 1).all()


def test_one_list_of_items_serves_several_loaders() -> None:
    first = pipeline.Loader(PICTURES, 8, labels=np.arange(70), workers=0)
    second = pipeline.Loader(first.recipe.items, 8, labels=np.arange(70) * 2, workers=0)
    assert (second.next()[1] == 2 * first.next()[1]).all()


@pytest.mark.parametrize(("place", "name"), [(Pool, "take"), (Watch, "add")])
def test_an_interrupted_call_loses_no_batch(
    place: Any, name: str, wanted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notebook goes on after Ctrl-C."""
    with loader_of(1) as loader:
        found = [digest(loader.next())]
        method = getattr(place, name)

        def interrupted(*given: Any) -> Any:
            method(*given)
            raise KeyboardInterrupt

        monkeypatch.setattr(place, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            loader.next()
        monkeypatch.setattr(place, name, method)
        assert [*found, *(digest(loader.next()) for _ in range(2))] == wanted[:3]


def test_a_full_dev_shm_does_not_matter(tmp_path: Path) -> None:
    trial.make(tmp_path, 140, 10)
    with trial.loader_of(tmp_path, 0) as loader:
        told = trial.full_shm(tmp_path, [digest(batch) for batch in loader])
    if told.startswith("not tried"):
        pytest.skip(f"this user cannot mount a small disk ({told})")
    assert told == "3 batches equal: it is not used"


class Mine(Items):
    """A source of the user's own."""

    def __len__(self) -> int:
        return 9

    def picture(self, index: int) -> np.ndarray:
        if index == 4:
            raise OSError("gone")
        if index == 7:
            raise ValueError("no such row")
        return np.full((6, 7), index, np.int64)


def test_a_source_of_ones_own_fails_alike_for_any_number_of_workers() -> None:
    for workers in (0, 1):
        with pipeline.Loader(Mine(), 3, workers=workers, shuffle=False) as loader:
            assert [loader.next()[:, 0, 0, 0].tolist() for _ in range(2)] == [[0, 1, 2], [3, 5, 5]]
            assert loader.broken == {4: "gone"}
            with pytest.raises(UsageError, match="the source failed on 7: ValueError: no such row"):
                loader.next()


def test_seeds_of_any_kind() -> None:
    drawn = [pipeline.Loader(PICTURES, 8, seed=None, workers=0) for _ in range(2)]
    assert drawn[0].recipe.seed != drawn[1].recipe.seed
    assert digest(drawn[0].next()) != digest(drawn[1].next())
    same = [digest(pipeline.Loader(PICTURES, 8, seed=seed, workers=0).next()) for seed in (3, np.int64(3), np.uint8(3))]
    assert len(set(same)) == 1
    json.dumps(pipeline.Loader(PICTURES, 8, seed=np.int64(-3), workers=0).state())  # type: ignore[arg-type]


def test_threads_may_share_a_loader(wanted: list[str]) -> None:
    with loader_of(2) as loader, ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: digest(loader.next()), range(18)))
    assert sorted(found) == sorted(wanted)


def test_a_loader_travels_before_its_workers_run_and_not_after(wanted: list[str]) -> None:
    with loader_of(1) as loader:
        assert digest(pickle.loads(pickle.dumps(loader)).batch(0, 0)) == wanted[0]
        loader.next()
        with pytest.raises(UsageError, match="stays in its process"):
            pickle.dumps(loader)


def test_a_batch_of_broken_pictures_alone_is_not_empty(tmp_path: Path) -> None:
    """A loss over no picture is NaN, and so are the weights after it."""
    folder(tmp_path, PICTURES[:3], classes=3, broken=(2,))
    with pipeline.Loader(tmp_path, 2, broken="skip", workers=0, shuffle=False) as loader:
        assert [labels.tolist() for _, labels in loader] == [[0, 1], [0]]


def test_an_empty_class_folder_keeps_its_number(tmp_path: Path) -> None:
    folder(tmp_path, PICTURES[:4])
    for name in ("class00", ".hidden"):
        (tmp_path / name).mkdir()
    loader = pipeline.Loader(tmp_path, 4, shuffle=False, one_hot=True, workers=0)
    assert loader.class_names == ("class0", "class00", "class1")
    assert loader.next()[1].tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 1], [0, 0, 1]]


def test_a_list_may_name_a_file_several_times(tmp_path: Path) -> None:
    paths = sorted(folder(tmp_path, PICTURES[:2]).rglob("*.png"))
    loader = pipeline.Loader([*paths, paths[0]], 3, labels=list("abc"), shuffle=False, workers=0)
    images, labels = loader.next()
    assert (images == PICTURES[[0, 1, 0]]).all()
    assert labels.tolist() == ["a", "b", "c"]
    assert loader.class_names == ()


def test_brightness_keeps_the_range_of_16_bits() -> None:
    bright = pipeline.Augment(brightness_range=(1.5, 1.5))
    given = np.full((1, 4, 4, 3), 40_000, np.uint16)
    assert (pipeline.Loader(given, 1, bright, workers=0).next() == 60_000).all()
    assert (pipeline.Loader(given + 10_000, 1, bright, workers=0).next() == 65_535).all()


def test_a_state_of_another_loader_is_refused() -> None:
    state = pipeline.Loader(PICTURES, 16, workers=0).state()
    with pytest.raises(UsageError, match=r"batch_size=16; this one has 8"):
        pipeline.Loader(PICTURES, 8, workers=0).load_state(state)
    loader = pipeline.Loader(PICTURES, 16, labels=np.arange(70), workers=0)
    with pytest.raises(UsageError, match="is of a loader with other pictures"):
        loader.load_state(state)
    state = loader.state()
    loader.load_state({name: value for name, value in state.items() if name != "data"})  # as earlier versions kept it
    for wrong, words in (
        ({"epoch": -1}, "epoch is -1"), ({"epoch": "1"}, "epoch is '1'"), ({"position": 1.0}, r"position is 1\.0"),
        ({"position": 5}, "position 5 of the state is not a batch"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=words):
            loader.load_state({**state, **wrong})
    with pytest.raises(UsageError, match="the state is None"):
        loader.load_state(None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="epoch is -1"):
        loader.batch(-1, 0)
    with pytest.raises(UsageError, match="workers is -1"):
        loader.tune(workers=[-1])


@pytest.mark.parametrize(
    ("rule", "labels"), [("next", [0, 2, 2, 3, 4, 0, 0]), ("skip", [0, 2, 3, 4, 0]), ("zeros", [0, 1, 2, 3, 4, 5, 6])]
)
def test_broken_pictures_follow_the_rule(
    rule: Any, labels: list[int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder(tmp_path, PICTURES[:7], classes=7, broken=(1, 5, 6))
    found = []
    for workers in (0, 1) if rule == "skip" else (0, 0):
        with pipeline.Loader(tmp_path, 3, shuffle=False, broken=rule, workers=workers) as loader:
            batches = list(loader)
            found.append([digest(batch) for batch in batches])
            assert [label for _, some in batches for label in some] == labels
            assert set(loader.broken) == {1, 5, 6}
    assert found[0] == found[1]
    assert caplog.text.count("class5/00005.png cannot be read (the file is cut off") == 2
    if rule == "zeros":
        assert not batches[0][0][1].any()


def test_a_broken_picture_may_be_an_error(tmp_path: Path) -> None:
    folder(tmp_path, PICTURES[:3], broken=(2,))
    loader = pipeline.Loader(tmp_path, 3, broken="raise", workers=0)
    with pytest.raises(InputError, match=r"class0/00002\.png: the file is cut off"):
        loader.next()


def test_a_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond it the system would kill the training, without a word."""
    monkeypatch.setattr("pipeline.machine.limits._GROUPS", tmp_path)
    monkeypatch.setattr("pipeline.machine.limits._OWN", tmp_path / "cgroup")
    (tmp_path / "memory.stat").write_text("anon 700000\nfile 900000\nshmem 200000\n")
    for limit, words in (("1000000", r"memory is short \(100 kB are free\)"), ("max", None)):
        (tmp_path / "memory.max").write_text(limit)
        with pipeline.Loader(PICTURES, 32, workers=1) as loader:
            if words is None:
                assert loader.next().shape == (32, 32, 32, 3)
                continue
            with pytest.raises(UsageError, match=words):
                loader.next()


def test_short_memory_is_one_line() -> None:
    resource = pytest.importorskip("resource")
    code = """
        import resource, numpy as np, pipeline
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        try:
            pipeline.Loader(np.zeros((64, 64, 64, 3), np.uint8), 64, workers=2).next()
        except pipeline.ReelgraphError as err:
            print(err)
    """
    assert resource
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert (
        "of shared memory, but memory is short (File too large); lower batch_size, prefetch or workers" in done.stdout
    )
    assert done.stdout.count("\n") == 1


def test_a_callable_of_the_user_is_seeded_by_item(wanted: list[str]) -> None:
    """Also one that draws from NumPy's global generator; the caller's own state stays."""

    def noisy(picture: np.ndarray) -> np.ndarray:
        return picture + np.random.normal(0, 5, picture.shape).astype(np.float32)

    def turned(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.rot90(picture, rng.integers(4))

    for function in (noisy, turned):
        found = []
        for workers in (0, 1):
            np.random.seed(1)
            with pipeline.Loader(PICTURES, 16, function, workers=workers) as loader:
                found.append([digest(batch) for batch in loader])
            assert np.random.randint(1 << 30) == np.random.RandomState(1).randint(1 << 30)
        assert found[0] == found[1]


def test_torch_is_seeded_also_if_the_callable_imports_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module in the place of torch, which is known by its name."""
    code = """
        import random as standard

        _drawn = standard.Random(7)
        rand, get_rng_state, set_rng_state = _drawn.random, _drawn.getstate, _drawn.setstate

        def is_tensor(value):
            return False

        class random:
            class default_generator:
                manual_seed = _drawn.seed
    """
    (tmp_path / "torch.py").write_text(textwrap.dedent(code))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "torch", None)  # what was there is put back
    del sys.modules["torch"]

    def noisy(picture: np.ndarray) -> np.ndarray:
        import torch

        return picture * np.float32(torch.rand())

    found = []
    for workers in (0, 1):
        sys.modules.pop("torch", None)
        with pipeline.Loader(PICTURES[:8], 4, noisy, workers=workers) as loader:
            found.append([digest(loader.next()) for _ in range(3)])
    assert found[0] == found[1]


def test_a_failing_callable_names_the_picture() -> None:
    def failing(picture: np.ndarray) -> np.ndarray:
        if picture[0, 0, 0] == 211:
            raise ValueError("no")
        return picture

    pictures = PICTURES.copy()
    pictures[:, 0, 0, 0] = 0
    pictures[12, 0, 0, 0] = 211
    for workers in (0, 1):
        with pipeline.Loader(pictures, 8, failing, workers=workers, shuffle=False) as loader:
            loader.next()
            for _ in range(2):  # the next call does not go on to another batch
                with pytest.raises(UsageError, match="augment failed on 12: ValueError: no"):
                    loader.next()
            assert loader.state()["position"] == 1


def test_workers_that_start_do_not_see_ctrl_c() -> None:
    """It is sent to all processes of a terminal, also before a worker could say that it ignores it."""
    code = """
        import os, signal, numpy as np, pipeline
        from pipeline.loader import pool
        pool._START = "import os, signal; os.kill(os.getpid(), signal.SIGINT); " + pool._START
        with pipeline.Loader(np.zeros((4, 8, 8, 3), np.uint8), 4, workers=1) as loader:
            print(loader.next().shape, loader._pool.deaths)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("(4, 8, 8, 3) 0\n", "")


def test_report_says_what_was_measured(tmp_path: Path) -> None:
    with pipeline.Loader(PICTURES, 8, everything(), workers=1, prefetch=5) as loader:
        speeds = loader.tune(0.3, workers=(0, 1))
        assert loader.prefetch == 5
        loader.watch._step = 0.01
        for _ in loader:
            time.sleep(0.01)
        page = loader.report(tmp_path / "loader.html").read_text()
    assert set(speeds) == {0, 1}
    knee = loader.watch.knee()
    assert speeds[knee] >= 0.95 * max(speeds.values())
    assert f"workers: {knee} is the knee on this machine" in page
    assert f"the consumer waits {loader.watch.waiting:.0%}" in page
    assert page.count("<polyline") >= 3

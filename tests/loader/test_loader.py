"""Batches are the same bytes for any number of workers, after kills and after a resume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import pipeline
from pipeline.errors import InputError, UsageError
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
    ],
)
def test_a_mistake_is_one_line(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as err:
        pipeline.Loader(PICTURES, **{"workers": 0, **options}).next()
    assert "\n" not in str(err.value)


def test_a_state_of_another_loader_is_refused() -> None:
    state = pipeline.Loader(PICTURES, 16, workers=0).state()
    with pytest.raises(UsageError, match=r"batch_size=16; this one has 8"):
        pipeline.Loader(PICTURES, 8, workers=0).load_state(state)


@pytest.mark.parametrize(
    ("rule", "labels"), [("next", [0, 2, 2, 3, 4, 0, 0]), ("skip", [0, 2, 3, 4]), ("zeros", [0, 1, 2, 3, 4, 5, 6])]
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
            with pytest.raises(UsageError, match="augment failed on 12: ValueError: no"):
                loader.next()


def test_report_says_what_was_measured(tmp_path: Path) -> None:
    with pipeline.Loader(PICTURES, 8, everything(), workers=1) as loader:
        speeds = loader.tune(0.3, workers=(0, 1))
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

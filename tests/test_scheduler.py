"""A scheduler that is already there: joined by address or by file, refused where it does not fit, lost on the way."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client

import pipeline
from pipeline.cli import main
from pipeline.engine.events import ChunkDone, Silent
from pipeline.errors import ClusterError
from tests.clips import write_clip
from tests.faults import one_stage
from tests.own import PLAIN, Own
from tests.processes import reelgraph, start, wait_until
from tests.test_engine_events import Heard

pytestmark = [pytest.mark.slow]
Cluster = Callable[..., Path]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", n_frames=400)


@pytest.fixture
def grey(tmp_path: Path) -> Path:
    return one_stage(tmp_path, "Counted", log=str(tmp_path / "log"), seconds=0.3)


GOOD = ["--resources", "GPU=1", "--nthreads", "2"]


def begin(folder: Path, processes: list[subprocess.Popen[bytes]], *workers: list[str]) -> Path:
    """Start `dask scheduler` and, each with the words given, `dask worker`; the scheduler file."""
    file = folder / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    words = ["--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"]
    with (folder / "cluster.log").open("wb") as log:

        def launch(command: list[str]) -> None:
            processes.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=folder))

        launch([*dask, "scheduler", "--scheduler-file", str(file), *words])
        for extra in workers:
            launch([*dask, "worker", "--scheduler-file", str(file), "--no-dashboard", *extra])
    wait_until(lambda: file.exists() and "address" in json.loads(file.read_text() or "{}"), 30)
    return file


@contextlib.contextmanager
def ended() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Takes processes, and ends them, the last first: workers that lose their scheduler take their time."""
    started: list[subprocess.Popen[bytes]] = []
    try:
        yield started
    finally:
        for process in reversed(started):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    with ended() as started:
        yield started


@pytest.fixture
def cluster(tmp_path: Path, processes: list[subprocess.Popen[bytes]]) -> Cluster:
    """A function that begins one of the test's own."""
    return partial(begin, tmp_path, processes)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The scheduler file of two good workers, for tests that leave them as they are."""
    with ended() as started:
        yield begin(tmp_path_factory.mktemp("pair"), started, GOOD, GOOD)


def run(workflow: Path, clip: Path, out: Path, scheduler: str | Path) -> int:
    return main(["run", str(workflow), str(clip), "--out", str(out), "--scheduler", str(scheduler)])


def test_a_source_of_ones_own_is_found_by_workers_elsewhere(own: Own, pair: Path) -> None:
    """Its module lies beside the workflow, where neither the scheduler nor the workers were started."""
    own.module("plain", PLAIN)
    heard = Heard()
    run = own.run(own.workflow({"square": "plain:Square"}), executor="dask", scheduler=str(pair), listener=heard)
    assert run.summary.exit_code == 0, run.summary.failures
    np.testing.assert_array_equal(run.array("numbers", "square"), np.arange(12.0) ** 2)
    assert sorted(event.chunk for event in heard.of(ChunkDone)) == [0, 1, 2]
    for chunk in range(3):  # what workers announced in time is passed on, in order, before the chunk is done
        events = [event for event in heard.events if getattr(event, "chunk", None) == chunk]
        assert isinstance(events[-1], ChunkDone)
        steps = [event.steps_done for event in events[:-1]]
        assert steps == sorted(steps)
        assert {event.step for event in events[:-1]} <= {"decode", "square", "write"}


@pytest.mark.parametrize("by", ["file", "address"])
def test_joins_and_frames_never_travel_between_workers(
    by: str, pair: Path, grey: Path, clip: Path, tmp_path: Path
) -> None:
    where = str(pair) if by == "file" else json.loads(pair.read_text())["address"]
    assert run(grey, clip, tmp_path / "out.zarr", where) == 0
    assert main(["run", str(grey), str(clip), "--out", str(tmp_path / "alone.zarr"), "--executor", "inline"]) == 0
    ours, alone = (pipeline.open(tmp_path / name).array("clip", "grey") for name in ("out.zarr", "alone.zarr"))
    np.testing.assert_array_equal(ours, alone)

    def received(dask_worker: Any) -> list[str]:
        return [str(key) for transfer in dask_worker.transfer_incoming_log for key in transfer["keys"]]

    with Client(scheduler_file=str(pair), set_as_default=False) as client:
        assert list(client.run(received).values()) == [[], []]


@pytest.mark.parametrize(
    ("workers", "message"),
    [
        ([["--nthreads", "2"]], "offers no GPU slot; start it with: dask worker --scheduler-file"),
        ([], "has no workers; start some with: dask worker --scheduler-file"),
    ],
    ids=["no slot", "no workers"],
)
def test_workers_that_do_not_fit(
    workers: list[list[str]],
    message: str,
    cluster: Cluster,
    grey: Path,
    clip: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    words = ["run", str(grey), str(clip), "--out", str(tmp_path / "out.zarr"), "--scheduler", str(cluster(*workers))]
    assert main([*words, "--wait-for-workers", "60s" if workers else "3s"]) == 2
    said = capfd.readouterr().err.strip().splitlines()
    assert message in said[-1]
    assert workers or any("Waiting 3.0 s for one (--wait-for-workers)" in line for line in said)


def test_workers_of_another_version(
    pair: Path, grey: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.cluster.existing.__version__", "9.9")
    with pytest.raises(ClusterError, match=r"has reelgraph 0\.\d+\.\d+, this is 9\.9; install the same version"):
        pipeline.run(grey, clip, out=tmp_path / "out.zarr", scheduler=str(pair))


def test_nobody_there(
    grey: Path, clip: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.cluster.existing.CONNECT_SECONDS", 2)
    old = tmp_path / "old.json"
    old.write_text(json.dumps({"address": "tcp://127.0.0.1:9"}))
    letter = tmp_path / "letter.json"
    letter.write_text("hello")
    for where, message in [
        ("tcp://127.0.0.1:9", "no scheduler answers at tcp://127.0.0.1:9 within 2 s"),
        (old, "which may be an old one"),
        (letter, "is not a scheduler file"),
        (tmp_path / "none.json", "does not exist; start one with: dask scheduler --scheduler-file"),
        ("http://127.0.0.1:9", "write the address as tcp://host:port"),
    ]:
        assert run(grey, clip, tmp_path / "out.zarr", where) == 2
        said = capfd.readouterr().err.strip().splitlines()
        assert message in said[-1]
        assert not any("Traceback" in line for line in said)


def test_a_cluster_with_certificates_of_its_own(
    cluster: Cluster, grey: Path, clip: Path, tmp_path: Path, certificate: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def variable(setting: str) -> str:
        return f"DASK_{setting.replace('.', '__').replace('-', '_').upper()}"

    for setting, value in (certificate | {"distributed.comm.default-scheme": "tls"}).items():
        monkeypatch.setenv(variable(setting), value)
    address = json.loads(cluster(GOOD).read_text())["address"]
    assert address.startswith("tls://")
    words = ("run", grey, clip, "--out", tmp_path / "out.zarr", "--fresh", "--scheduler", address)
    done = reelgraph(*words)
    assert done.returncode == 0, done.stderr
    assert pipeline.open(tmp_path / "out.zarr").done_share == 1
    for changed, message in [
        ({"distributed.comm.tls.client.key": "/nowhere/key.pem"}, "certificates cannot be used (No such file or dir"),
        ({"distributed.comm.tls.client.cert": ""}, "needs TLS certificates; set distributed.comm.tls.ca-file, client."),
    ]:
        with monkeypatch.context() as patch:
            for setting, value in changed.items():
                patch.setenv(variable(setting), value)
            refused = reelgraph(*words)
        assert refused.returncode == 2
        assert message in refused.stderr.strip().splitlines()[-1]
        assert "Traceback" not in refused.stderr


def test_two_runs_share_a_scheduler(pair: Path, clip: Path, tmp_path: Path) -> None:
    """Dask computes a key once, so that runs with inputs of the same name need keys of their own."""
    workflow = one_stage(tmp_path, "Counted", log=str(tmp_path / "log"), seconds=0.3, until=str(tmp_path / "both"))
    words = ["run", workflow, clip, "--scheduler", pair, "--every"]
    runs = {every: start(*words, every, "--out", tmp_path / f"{every}.zarr") for every in ("1", "2")}
    for run in runs.values():
        assert run.stderr is not None
        wait_until(lambda run=run: " of tcp://" in run.stderr.readline())  # type: ignore[misc]
    time.sleep(1)  # until both have submitted their first chunks
    (tmp_path / "both").touch()
    grey = {}
    for every, run in runs.items():
        _, errors = run.communicate(timeout=90)
        assert run.returncode == 0, errors
        grey[every] = pipeline.open(tmp_path / f"{every}.zarr").array("clip", "grey")
    assert len(grey["1"]) == 400
    np.testing.assert_array_equal(grey["1"][::2], grey["2"])


def test_a_scheduler_that_dies_costs_no_chunk_that_was_done(
    cluster: Cluster, processes: list[subprocess.Popen[bytes]], grey: Path, clip: Path, tmp_path: Path
) -> None:
    file, out, log = cluster(GOOD), tmp_path / "out.zarr", tmp_path / "log"
    running = start("run", grey, clip, "--out", out, "--scheduler", file)
    wait_until(lambda: log.exists() and len(log.read_text().splitlines()) >= 3)
    processes[0].send_signal(signal.SIGKILL)
    _, errors = running.communicate(timeout=90)
    assert running.returncode == 1
    assert "Traceback" not in errors, errors
    assert "scheduler" in errors.strip().splitlines()[-1]
    assert 0 < pipeline.open(out).done_share < 1
    assert reelgraph("run", grey, clip, "--out", out, "--executor", "inline").returncode == 0
    lines = log.read_text().splitlines()
    assert len(set(lines)) == 7
    assert len(lines) <= 7 + 2  # the chunks under way when it died


def test_a_worker_that_holds_work_of_others_is_not_restarted(
    cluster: Cluster, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = cluster(GOOD)
    monkeypatch.setattr("pipeline.cluster.connected.WORN_SHARE", 1e-4)  # every worker counts as worn
    grey = one_stage(tmp_path, "Counted", log=str(tmp_path / "log"), seconds=1.0)
    progress = Silent()
    with Client(scheduler_file=str(file), set_as_default=False) as client:
        held = client.submit(lambda: "precious", key="precious")
        assert held.result(30) == "precious"
        done = pipeline.run(grey, clip, tmp_path / "out.zarr", scheduler=str(file), listener=progress)
        assert done.summary.exit_code == 0
        assert any("holds work of others; it is not restarted" in text for text in progress.notes)
        assert client.who_has([held])[held.key]

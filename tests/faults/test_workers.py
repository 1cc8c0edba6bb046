"""Workers that die, start slowly, do not come back, hang or do not fit: the run goes on, or says so and ends."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client, Scheduler

import pipeline
from pipeline.cluster.executor import UNREAD, DaskExecutor, _Flight
from pipeline.cluster.existing import Newcomers
from pipeline.engine.events import Silent
from pipeline.engine.steps import Failure
from pipeline.errors import ClusterError, StoppedError, UsageError
from pipeline.version import versions
from tests.clips import write_clip
from tests.faults import kills, one_stage
from tests.processes import reelgraph, start, wait_until
from tests.test_scheduler import GOOD, begin, ended

pytestmark = [pytest.mark.slow]
ALONE = [*GOOD[:2], "--nthreads", "1", "--no-nanny"]
PACKAGE = Path(pipeline.__file__).parent


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", n_frames=400)


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    with ended() as started:
        yield started


# -- starting ------------------------------------------------------------------------------------------------


def test_a_worker_killed_while_it_starts_is_started_again(clip: Path, tmp_path: Path) -> None:
    workflow = one_stage(tmp_path, "Counted", log=str(tmp_path / "log"))
    run = start("run", workflow, clip, "--out", tmp_path / "out.zarr", "--workers", "1", "--dashboard-port", "0")
    killed: set[int] = set()
    for _ in range(2):  # the second kill hits the second start
        wait_until(lambda: any(child.pid not in killed for child in kills.spawned(run.pid)))
        for child in kills.spawned(run.pid):
            child.kill()
            killed.add(child.pid)
    _, errors = run.communicate(timeout=240)
    assert run.returncode == 0, errors
    assert len(killed) == 2


def test_a_worker_killed_at_every_start(clip: Path, tmp_path: Path) -> None:
    workflow = one_stage(tmp_path, "Counted", log=str(tmp_path / "log"))
    run = start("run", workflow, clip, "--out", tmp_path / "out.zarr", "--workers", "1", "--dashboard-port", "0")
    while run.poll() is None:
        for child in kills.spawned(run.pid):
            child.kill()
        time.sleep(0.02)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 2
    last = "reelgraph: a worker was killed 10 times while it started; if memory is short, give fewer --workers"
    assert errors.strip().splitlines()[-1] == last


def test_a_slow_start_loses_no_worker(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dask waits 15 s by default, then drops the nanny: the run had no worker left, and no end."""
    slow, log = tmp_path / "slow", tmp_path / "log"
    program = (
        f"import os, sys, time\nif os.path.exists({str(slow)!r}) and 'spawn_main' in str(sys.orig_argv): time.sleep(17)"
    )
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'path'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    workflow = one_stage(tmp_path, "Counted", log=str(log), seconds=0.5)
    run = start("run", workflow, clip, "--out", tmp_path / "out.zarr", "--workers", "1", "--dashboard-port", "0")
    wait_until(log.exists)
    slow.touch()
    for child in kills.spawned(run.pid):
        child.kill()
    _, errors = run.communicate(timeout=240)
    assert run.returncode == 0, errors
    assert "no worker is left: the run waits 5 min 00 s for one (--wait-for-workers)" in errors
    assert "1 worker back: the run continues" in errors


@pytest.mark.parametrize("moment", [0.0, 0.7])
def test_ctrl_c_during_the_start_leaves_no_warning(moment: float, clip: Path, tmp_path: Path) -> None:
    workflow = one_stage(tmp_path, "Counted", log=str(tmp_path / "log"))
    run = start("run", workflow, clip, "--out", tmp_path / "out.zarr", "--workers", "2", "--dashboard-port", "0")
    wait_until(lambda: len(kills.spawned(run.pid)) == 2)
    time.sleep(moment)
    os.killpg(run.pid, signal.SIGINT)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 130
    assert "leaked" not in errors
    assert "Traceback" not in errors
    assert "This continues:" in errors


@pytest.mark.parametrize("registration", [1, 3], ids=["at the start", "started again"])
def test_a_worker_that_dies_while_the_scheduler_registers_it(
    registration: int, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dask keeps it with its name, and refuses the next worker of that name; its nanny then gives up."""
    register, seen = Scheduler.add_worker, []

    async def dying(self: Scheduler, comm: Any, **facts: Any) -> None:
        seen.append(facts["pid"])
        if len(seen) == registration:
            os.kill(facts["pid"], signal.SIGKILL)
            comm.abort()
        await register(self, comm, **facts)

    monkeypatch.setattr(Scheduler, "add_worker", dying)
    listener = Silent()
    marker = str(tmp_path / "killed")
    workflow = one_stage(tmp_path, "Faulty", fault="kill", only_once=marker, times=registration - 1)
    run = pipeline.run(
        workflow,
        clip,
        tmp_path / "out.zarr",
        workers=1,
        wait_for_workers_seconds=60,
        dashboard_port=0,
        listener=listener,
    )
    assert run.summary.exit_code == 0, run.summary.failures
    assert len(set(seen)) == registration + 1


# -- none left -----------------------------------------------------------------------------------------------


def test_a_run_without_workers_ends_with_the_command_that_continues(
    processes: list[subprocess.Popen[bytes]], clip: Path, tmp_path: Path
) -> None:
    workflow = one_stage(tmp_path, "Faulty", fault="hang", only_once=str(tmp_path / "hung"), times=2)
    file = begin(tmp_path, processes, ALONE, ALONE)
    words = ["run", str(workflow), str(clip), "--out", str(tmp_path / "out.zarr")]
    words += ["--scheduler", str(file), "--chunk-timeout", "4", "--wait-for-workers", "3s"]
    done = reelgraph(*words)
    assert done.returncode == 1
    said = done.stderr.strip().splitlines()
    assert any(line == "no worker is left: the run waits 3.0 s for one (--wait-for-workers)" for line in said), said
    assert said[-1].startswith("reelgraph: no worker is left, and none came within 3.0 s (--wait-for-workers); what is")
    assert said[-1].endswith(f"run again to continue: {shlex.join(['reelgraph', *words])}")
    assert "Traceback" not in done.stderr
    (command,) = [said[-1].rpartition(": reelgraph ")[2]]
    with ended() as more:
        more.append(subprocess.Popen([sys.executable, "-m", "dask", "worker", "--scheduler-file", str(file), *ALONE]))
        assert reelgraph(*shlex.split(command)).returncode == 0
    assert pipeline.open(tmp_path / "out.zarr").done_share == 1.0


def without_its_worker(processes: list[subprocess.Popen[bytes]], clip: Path, folder: Path) -> subprocess.Popen[str]:
    """Start a run on one worker, and kill that worker after the first chunk."""
    log = folder / "log"
    workflow = one_stage(folder, "Counted", log=str(log), seconds=0.5)
    file = begin(folder, processes, ALONE)
    run = start("run", workflow, clip, "--out", folder / "out.zarr", "--scheduler", file)
    wait_until(log.exists)
    processes[1].kill()
    return run


def test_a_run_without_workers_continues_when_one_comes(
    processes: list[subprocess.Popen[bytes]], clip: Path, tmp_path: Path
) -> None:
    run, file = without_its_worker(processes, clip, tmp_path), tmp_path / "scheduler.json"
    time.sleep(3)
    processes.append(subprocess.Popen([sys.executable, "-m", "dask", "worker", "--scheduler-file", str(file), *ALONE]))
    _, errors = run.communicate(timeout=240)
    assert run.returncode == 0, errors
    assert "no worker is left" in errors


def test_a_run_without_workers_is_drained_at_once(
    processes: list[subprocess.Popen[bytes]], clip: Path, tmp_path: Path
) -> None:
    """A batch system that stops a job ends its workers first, or at the same time."""
    run = without_its_worker(processes, clip, tmp_path)
    run.send_signal(signal.SIGTERM)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 75, errors


def test_a_report_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """Fetching it again and again would never end."""

    class Unreadable:
        status = "finished"

        def result(self, timeout: float) -> None:
            raise TypeError("cannot be unpickled")

    task: Any = None
    flight = _Flight(task, 1, Unreadable(), False, ())
    cluster: Any = None
    answers = [DaskExecutor(cluster)._result(flight) for _ in range(UNREAD)]
    assert answers[:-1] == [None] * (UNREAD - 1)
    assert answers[-1] == Failure("run", "TypeError: cannot be unpickled")


def test_a_result_that_is_lost_with_the_last_worker(
    processes: list[subprocess.Popen[bytes]], clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker dies after it has reported a chunk, and before the run has fetched the report."""
    file = begin(tmp_path, processes, ALONE)
    fetch = DaskExecutor._result

    def too_late(self: DaskExecutor, flight: Any) -> Any:
        processes[1].kill()
        processes[1].wait()
        time.sleep(2)
        return fetch(self, flight)

    monkeypatch.setattr(DaskExecutor, "_result", too_late)
    workflow = one_stage(tmp_path, "Counted", log=str(tmp_path / "log"))
    with pytest.raises(StoppedError, match="no worker is left, and none came within"):
        pipeline.run(
            workflow, clip, tmp_path / "out.zarr", scheduler=str(file), wait_for_workers_seconds=2, listener=Silent()
        )


def test_a_scheduler_that_does_not_answer(
    processes: list[subprocess.Popen[bytes]], clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.cluster.connected.ANSWER_SECONDS", 20)
    log = tmp_path / "log"
    workflow = one_stage(tmp_path, "Counted", log=str(log), seconds=0.5)
    file = begin(tmp_path, processes, ALONE)

    def stop() -> None:
        wait_until(log.exists)
        processes[0].send_signal(signal.SIGSTOP)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(
        StoppedError, match="the scheduler was lost; what is committed is kept: start a scheduler and run"
    ):
        pipeline.run(workflow, clip, tmp_path / "out.zarr", scheduler=str(file), listener=Silent())
    thread.join()


# -- killed, hung, of another version ------------------------------------------------------------------------


@pytest.mark.parametrize(("deaths", "attempts", "failed"), [(3, None, 0), (4, None, 1), (4, 4, 0), (2, 1, 1)])
def test_a_chunk_whose_workers_are_killed(
    deaths: int, attempts: int | None, failed: int, clip: Path, tmp_path: Path
) -> None:
    """The first death is not counted: other chunks were under way."""
    marker = str(tmp_path / "killed")
    workflow = one_stage(tmp_path, "Faulty", fault="kill", only_once=marker, times=deaths)
    run = pipeline.run(workflow, clip, tmp_path / "out.zarr", workers=2, attempts=attempts, dashboard_port=0)
    assert [failure["chunk"] for failure in run.summary.failures] == [1] * failed
    assert run.summary.exit_code == failed
    assert run.summary.chunks == 7 - failed


def test_attempts_bound_errors_too(clip: Path, tmp_path: Path) -> None:
    workflow = one_stage(tmp_path, "Faulty", fault="raise", only_once=str(tmp_path / "raised"), times=3)
    once = pipeline.run(workflow, clip, tmp_path / "out.zarr", executor="inline", attempts=1)
    assert (once.summary.exit_code, (tmp_path / "raised").read_text()) == (1, "x")
    often = pipeline.run(workflow, clip, tmp_path / "out.zarr", executor="inline", attempts=3, retry_failed=True)
    assert often.summary.exit_code == 0
    with pytest.raises(UsageError, match="--attempts 0: a chunk is tried at least once"):
        pipeline.run(workflow, clip, tmp_path / "out.zarr", executor="inline", attempts=0)


def test_a_stall_is_reported(
    processes: list[subprocess.Popen[bytes]], clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.cluster.executor.STALL_SECONDS", 4)
    monkeypatch.setattr("pipeline.cluster.executor.HEARD_SECONDS", 3)
    log, listener = tmp_path / "log", Silent()
    workflow = one_stage(tmp_path, "Counted", log=str(log), seconds=0.5)
    file = begin(tmp_path, processes, ALONE)

    def stop_for_a_while() -> None:
        wait_until(log.exists)
        processes[1].send_signal(signal.SIGSTOP)
        try:
            wait_until(lambda: any("no progress" in note for note in listener.notes))
        finally:
            processes[1].send_signal(signal.SIGCONT)

    thread = threading.Thread(target=stop_for_a_while)
    thread.start()
    run = pipeline.run(workflow, clip, tmp_path / "out.zarr", scheduler=str(file), listener=listener)
    thread.join()
    assert run.summary.exit_code == 0
    (note, *_) = [note for note in listener.notes if "no progress" in note]
    assert "no task is running. Workers: tcp://127.0.0.1:" in note
    assert "(running, " in note
    assert " ago)" in note


@pytest.mark.parametrize("checked", [True, False], ids=["checked by the run", "by the worker itself"])
def test_a_worker_of_another_version_gets_no_work(
    checked: bool,
    processes: list[subprocess.Popen[bytes]],
    clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker checks itself too: it may get a task before the run has seen it."""
    if not checked:
        monkeypatch.setattr("pipeline.cluster.existing.Newcomers.fitting", lambda self, workers, note: workers)
    other, log, joined, listener = tmp_path / "other", tmp_path / "log", tmp_path / "joined", Silent()
    shutil.copytree(PACKAGE, other / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    version = other / "pipeline" / "version.py"
    version.write_text(version.read_text().replace('__version__ = "', '__version__ = "9.'))
    file = begin(tmp_path, processes, ALONE)
    workflow = one_stage(tmp_path, "Counted", log=str(log), seconds=0.5, until=str(joined))
    launch = [sys.executable, "-m", "dask", "worker", "--scheduler-file", str(file), *GOOD, "--no-nanny"]

    def join() -> None:
        with Client(scheduler_file=str(file), set_as_default=False) as client:
            wait_until(lambda: any(client.processing().values()))
            processes.append(subprocess.Popen(launch, env={**os.environ, "PYTHONPATH": str(other)}, cwd=other))
            wait_until(lambda: len(client.nthreads()) == 2)
            time.sleep(2)
        joined.touch()

    thread = threading.Thread(target=join)
    thread.start()
    run = pipeline.run(workflow, clip, tmp_path / "out.zarr", scheduler=str(file), listener=listener)
    thread.join()
    assert run.summary.exit_code == 0, run.summary.failures
    assert run.done_share == 1.0
    notes = [note for note in listener.notes if "gets no work" in note]
    assert len(notes) == checked
    found = f"it has reelgraph 9.{pipeline.__version__}, this is {pipeline.__version__}; install the same version"
    assert all(found in note for note in notes)
    computed = log.read_text().splitlines()
    assert len(computed) == len(set(computed)) == 7


def test_a_worker_that_does_not_answer_keeps_no_run_waiting(
    processes: list[subprocess.Popen[bytes]], clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others do the work; with no other the run ends, as it does without a worker."""
    monkeypatch.setattr("pipeline.cluster.existing.DESCRIBE_SECONDS", 3)
    workflow = one_stage(tmp_path, "Counted", log=str(tmp_path / "log"))
    file, listener = begin(tmp_path, processes, ALONE, ALONE), Silent()
    with Client(scheduler_file=str(file), set_as_default=False) as client:
        wait_until(lambda: len(client.nthreads()) == 2)
    stopped = processes[1:]
    try:
        stopped[0].send_signal(signal.SIGSTOP)
        run = pipeline.run(workflow, clip, tmp_path / "out.zarr", scheduler=str(file), listener=listener)
        assert run.summary.exit_code == 0
        assert len([note for note in listener.notes if "does not answer within 3 s; it gets no work" in note]) == 1
        stopped[1].send_signal(signal.SIGSTOP)
        with pytest.raises(ClusterError, match=r"no worker of the scheduler at .* answers, and none came within 1\.0"):
            pipeline.run(workflow, clip, tmp_path / "2.zarr", scheduler=str(file), wait_for_workers_seconds=1)
    finally:
        for worker in stopped:
            worker.send_signal(signal.SIGCONT)


def test_a_worker_at_the_address_of_another_is_asked_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with `dask worker --worker-port`: what was found at an address holds for that process only."""
    answers: dict[str, Any] = {"tcp://here:1": ImportError("no reelgraph")}
    monkeypatch.setattr("pipeline.cluster.existing._describe", lambda client, addresses: answers)
    notes: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        newcomers = Newcomers(None, "dask worker", pool, {})

        def fit(folder: str) -> bool:
            workers = {"tcp://here:1": {"resources": {"GPU": 1}, "local_directory": folder}}
            newcomers.fitting(workers, notes.append)
            wait_until(lambda: all(check.done() for check in newcomers.checks.values()))
            return bool(newcomers.fitting(workers, notes.append))

        assert not fit("worker-a")
        answers["tcp://here:1"] = {"versions": {**versions(), "reelgraph": pipeline.__version__}}
        assert not fit("worker-a")
        assert fit("worker-b")
        answers["tcp://here:1"] = ImportError("no reelgraph")
        assert not fit("worker-c")
    assert ["has no reelgraph" in note for note in notes] == [True, True]


# -- all of it -----------------------------------------------------------------------------------------------


@pytest.mark.timeout(900)
def test_kills_at_random_moments(tmp_path: Path) -> None:
    """The short form of `python -m tests.faults.kills`."""
    tally = kills.campaign(tmp_path, 6, seed=3)
    assert tally.kills.total() == 6
    assert tally.outcomes.total() == tally.runs.total()
    assert np.isfinite(tally.longest_silence)

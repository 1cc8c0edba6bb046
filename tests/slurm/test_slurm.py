"""The batch script on a real SLURM of two nodes: a run, a run that is stopped or killed midway, and its end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onebox import NODES, OneBox, missing_programs, onebox

import pipeline
from pipeline.errors import StoreError
from pipeline.faces.demo import make_demo_clip
from pipeline.views.status import describe

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),  # five jobs, each of which starts a cluster
    pytest.mark.skipif(
        bool(missing_programs()),
        reason=f"not installed: {', '.join(missing_programs())} (apt-get install slurm-wlm munge openssl)",
    ),
]

REPOSITORY = Path(__file__).parents[2]
SCRIPT = REPOSITORY / "workflows" / "slurm" / "run.sbatch"
CLIPS, FRAMES = 20, 25
"""Many short clips are one chunk each, so that a run of few frames can be caught midway."""


@pytest.fixture(scope="module")
def slurm() -> Iterator[OneBox]:
    with onebox() as box:
        yield box


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    first = make_demo_clip(folder / "00.mp4", seconds=FRAMES / 25, size=(320, 240)).path
    return [first, *(shutil.copy(first, folder / f"{number:02d}.mp4") for number in range(1, CLIPS))]


@pytest.fixture(scope="module")
def undisturbed(slurm: OneBox, clips: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a job that nothing happened to."""
    out = tmp_path_factory.mktemp("undisturbed") / "demo.zarr"
    number = submit(slurm, clips, out)
    await_state_folder(out, number)
    check_secrets(out, number)
    end = slurm.wait_for(number, "COMPLETED", "FAILED", seconds=180)
    log = log_of(out, number)
    assert end["ExitCode"] == "0:0", log
    for node in NODES:
        assert f"{node}: SLURM gave GPU 0, but NVML finds none" in log
    assert not state_folder(out, number).exists(), "keys are left behind"
    return out


def submit(slurm: OneBox, clips: list[Path], out: Path, **extra: str) -> str:
    return slurm.command(
        *("sbatch", "--parsable", "--nodes=2", "--gres=gpu:1", f"--output={out.parent}/%j.log"),
        *(str(SCRIPT), *map(str, clips), str(out)),
        cwd=REPOSITORY,
        VENV=sys.prefix,
        PYTHONPATH=os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])),
        ARGS="--every 1 --set detect.min_face=48",
        WORKERS="1",
        **extra,
    )


def state_folder(out: Path, number: str) -> Path:
    return out.parent / f".reelgraph-slurm-{number}"


def log_of(out: Path, number: str) -> str:
    return (out.parent / f"{number}.log").read_text()


def await_state_folder(out: Path, number: str) -> None:
    until = time.monotonic() + 60
    while not (state_folder(out, number) / "scheduler.json").exists():
        assert time.monotonic() < until, "no scheduler within 60 s"
        time.sleep(0.1)


def check_secrets(out: Path, number: str) -> None:
    folder = state_folder(out, number)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "key.pem").stat().st_mode) == 0o600
    address = json.loads((folder / "scheduler.json").read_text())["address"]
    assert address.startswith("tls://")
    knock = "import sys; from distributed import Client; Client(sys.argv[1], timeout=5)"
    for wrong in (address, address.replace("tls://", "tcp://")):
        done = subprocess.run([sys.executable, "-c", knock, wrong], capture_output=True, text=True, timeout=60)
        assert done.returncode != 0, f"{wrong} lets in whoever knocks"


def chunks(out: Path) -> dict[str, int]:
    """done and failed chunks of all clips; none before the store knows a clip."""
    try:
        counts = [one["chunks"] for one in describe(out)["inputs"]]
    except StoreError:
        counts = []
    return {key: sum(count[key] for count in counts) for key in ("done", "failed")}


def await_progress(out: Path, least: int) -> dict[str, int]:
    until = time.monotonic() + 90
    while (now := chunks(out))["done"] < least:
        assert time.monotonic() < until, f"{now} after 90 s"
        time.sleep(0.25)
    return now


def assert_same_results(out: Path, reference: Path) -> None:
    left, right = (pipeline.open(path).faces() for path in (out, reference))
    assert len(left) > CLIPS * FRAMES / 2
    assert list(left.columns) == list(right.columns)
    for column in left.columns:
        np.testing.assert_array_equal(np.stack(left[column].to_list()), np.stack(right[column].to_list()), column)


def test_two_nodes_do_all_of_it(slurm: OneBox, undisturbed: Path) -> None:
    assert chunks(undisturbed) == {"done": CLIPS, "failed": 0}
    assert pipeline.open(undisturbed).done_share == 1


def test_time_limit_drains_requeues_and_resumes(
    slurm: OneBox, clips: list[Path], undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "demo.zarr"
    number = submit(slurm, clips, out)
    await_progress(out, 2)
    slurm.command("scancel", "--batch", "--signal=USR1", number)
    slurm.wait_for(number, "PENDING", seconds=60)
    midway = chunks(out)
    assert 2 <= midway["done"] < CLIPS, log_of(out, number)
    assert not state_folder(out, number).exists()
    time.sleep(2)  # a start within the second of the requeue is refused: "Job credential revoked"
    slurm.command("scontrol", "update", f"JobId={number}", "StartTime=now")  # else two minutes later
    end = slurm.wait_for(number, "COMPLETED", "FAILED", seconds=180)
    assert (end["ExitCode"], end["Restarts"]) == ("0:0", "1"), log_of(out, number)
    assert_same_results(out, undisturbed)


def test_killed_job_is_resumed_by_the_next(slurm: OneBox, clips: list[Path], undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo.zarr"
    first = submit(slurm, clips, out)
    await_progress(out, 2)
    assert kill(slurm, SLURM_JOB_ID=first) >= 5  # script, scheduler, workers and client, as when a machine dies
    slurm.wait_for(first, "FAILED", seconds=60)
    midway = chunks(out)
    assert 2 <= midway["done"] < CLIPS, log_of(out, first)
    second = submit(slurm, clips, out)
    end = slurm.wait_for(second, "COMPLETED", "FAILED", seconds=180)
    assert end["ExitCode"] == "0:0", log_of(out, second)
    assert_same_results(out, undisturbed)


def test_a_lost_node_does_not_stop_the_others(
    slurm: OneBox, clips: list[Path], undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "demo.zarr"
    number = submit(slurm, clips, out)
    await_progress(out, 1)
    assert kill(slurm, SLURM_JOB_ID=number, SLURMD_NODENAME="n1") >= 2  # nanny and worker
    end = slurm.wait_for(number, "COMPLETED", "FAILED", seconds=180)
    assert end["ExitCode"] == "0:0", log_of(out, number)
    assert_same_results(out, undisturbed)


def kill(slurm: OneBox, **environment: str) -> int:
    """Kill -9 the processes of this SLURM with this environment, parents first, so that none starts another."""
    import psutil

    wanted = environment | {"SLURM_CONF": slurm.environment["SLURM_CONF"]}

    def is_wanted(process: psutil.Process) -> bool:
        try:
            found = process.environ()
        except psutil.Error:
            return False
        return process.name() != "slurmstepd" and all(found.get(key) == value for key, value in wanted.items())

    doomed = [process for process in psutil.process_iter() if process.pid != os.getpid() and is_wanted(process)]
    for process in sorted(doomed, key=lambda one: one.pid):
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended with one that was killed before it
            process.kill()
    return len(doomed)


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        ((), {}, "no input or no store"),
        (("clip.mp4",), {}, "no input or no store"),
        (("clip.mp4", "out.zarr"), {"VENV": "/nowhere"}, "no Python at /nowhere/bin/python"),
    ],
    ids=["nothing", "no store", "no environment"],
)
def test_mistakes_are_told_at_once(
    slurm: OneBox, arguments: tuple[str, ...], environment: dict[str, str], words: str, tmp_path: Path
) -> None:
    number = slurm.command("sbatch", "--parsable", str(SCRIPT), *arguments, cwd=tmp_path, **environment)
    end = slurm.wait_for(number, "FAILED", "COMPLETED", seconds=30)
    assert end["ExitCode"] == "2:0"
    assert words in (tmp_path / f"reelgraph-{number}.log").read_text()


def test_header_says_what_the_script_obeys() -> None:
    """The drain must end before SLURM kills, and the documented commands must name this file."""
    text = SCRIPT.read_text()
    signal_seconds = int(re.search(r"^#SBATCH --signal=B:USR1@(\d+)$", text, re.MULTILINE)[1])  # type: ignore[index]
    drain_seconds = int(re.search(r"DRAIN_SECONDS:-(\d+)}", text)[1])  # type: ignore[index]
    assert drain_seconds + 20 < signal_seconds
    assert text.count("sbatch --") >= 3


def test_a_signal_before_the_run_begins_requeues(tmp_path: Path) -> None:
    """The script alone, with programs in the place of SLURM's: its workers never come."""
    for name, text in [("srun", "exec sleep 40"), ("scontrol", f"echo $* >{tmp_path}/asked; kill -9 $PPID")]:
        program = tmp_path / name
        program.write_text(f"#!/bin/bash\n{text}\n")
        program.chmod(0o755)
    environment = {
        **os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "VENV": sys.prefix, "PYTHONPATH": str(REPOSITORY),
        "SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "1",
    }  # fmt: skip
    out = tmp_path / "o ut" / "demo.zarr"
    job = subprocess.Popen(["bash", str(SCRIPT), "clip.mp4", str(out)], env=environment, cwd=REPOSITORY)
    await_state_folder(out, "7")
    job.send_signal(signal.SIGUSR1)
    assert job.wait(60) == -signal.SIGKILL  # by the requeue
    assert (tmp_path / "asked").read_text() == "requeue 7\n"
    assert not out.exists()
    assert not state_folder(out, "7").exists()

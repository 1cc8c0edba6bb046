"""The batch script on a real SLURM of two nodes: a run, a run that is stopped or killed midway, and its end."""

from __future__ import annotations

import json
import os
import re
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
from pipeline.demo import make_demo_clip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(missing_programs()),
        reason=f"not installed: {', '.join(missing_programs())} (apt-get install slurm-wlm munge openssl)",
    ),
]

REPOSITORY = Path(__file__).parents[2]
SCRIPT = REPOSITORY / "workflows" / "slurm" / "run.sbatch"
SECONDS = 60
"""Length of the clip: 1500 frames, 30 groups of pictures, so that a run can be caught midway."""


@pytest.fixture(scope="module")
def slurm() -> Iterator[OneBox]:
    with onebox() as box:
        yield box


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_demo_clip(tmp_path_factory.mktemp("clip") / "demo.mp4", seconds=SECONDS, size=(320, 240)).path


@pytest.fixture(scope="module")
def undisturbed(slurm: OneBox, clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a job that nothing happened to."""
    out = tmp_path_factory.mktemp("undisturbed") / "demo.zarr"
    number = submit(slurm, clip, out)
    await_state_folder(out, number)
    check_secrets(out, number)
    end = slurm.wait_for(number, "COMPLETED", "FAILED", seconds=180)
    log = log_of(out, number)
    assert end["ExitCode"] == "0:0", log
    for node in NODES:
        assert f"{node}: SLURM gave GPU 0, but NVML finds none" in log
    assert not state_folder(out, number).exists(), "keys are left behind"
    return out


def submit(slurm: OneBox, clip: Path, out: Path, **extra: str) -> str:
    return slurm.command(
        *("sbatch", "--parsable", "--nodes=2", "--gres=gpu:1", f"--output={out.parent}/%j.log"),
        *(str(SCRIPT), str(clip), str(out)),
        cwd=REPOSITORY,
        VENV=sys.prefix,
        PYTHONPATH=str(REPOSITORY),
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


def chunks(slurm: OneBox, out: Path) -> dict[str, int]:
    """total, done, failed; done is -1 before the store knows its input."""
    command = [sys.executable, "-m", "pipeline", "status", str(out), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=REPOSITORY, env=slurm.environment)
    inputs = json.loads(done.stdout)["inputs"] if done.returncode == 0 else []
    return inputs[0]["chunks"] if inputs else {"total": 0, "done": -1, "failed": 0}


def await_progress(slurm: OneBox, out: Path, least: int) -> dict[str, int]:
    until = time.monotonic() + 90
    while (now := chunks(slurm, out))["done"] < least:
        assert time.monotonic() < until, f"{now} after 90 s"
    return now


def assert_same_results(out: Path, reference: Path) -> None:
    left, right = (pipeline.open(path).faces() for path in (out, reference))
    assert len(left) > SECONDS * 10
    assert list(left.columns) == list(right.columns)
    for column in left.columns:
        np.testing.assert_array_equal(np.stack(left[column].to_list()), np.stack(right[column].to_list()), column)


def test_two_nodes_do_all_of_it(slurm: OneBox, undisturbed: Path) -> None:
    counted = chunks(slurm, undisturbed)
    assert counted["total"] >= 20
    assert (counted["done"], counted["failed"]) == (counted["total"], 0)


def test_time_limit_drains_requeues_and_resumes(slurm: OneBox, clip: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo.zarr"
    number = submit(slurm, clip, out)
    await_progress(slurm, out, 2)
    slurm.command("scancel", "--batch", "--signal=USR1", number)
    slurm.wait_for(number, "PENDING", seconds=60)
    midway = chunks(slurm, out)
    assert 2 <= midway["done"] < midway["total"], log_of(out, number)
    assert not state_folder(out, number).exists()
    slurm.command("scontrol", "update", f"JobId={number}", "StartTime=now")  # else two minutes later
    end = slurm.wait_for(number, "COMPLETED", "FAILED", seconds=180)
    assert (end["ExitCode"], end["Restarts"]) == ("0:0", "1"), log_of(out, number)
    assert_same_results(out, undisturbed)


def test_killed_job_is_resumed_by_the_next(slurm: OneBox, clip: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo.zarr"
    first = submit(slurm, clip, out)
    await_progress(slurm, out, 2)
    assert kill(slurm, SLURM_JOB_ID=first) >= 5  # script, scheduler, workers and client, as when a machine dies
    slurm.wait_for(first, "FAILED", seconds=60)
    midway = chunks(slurm, out)
    assert 2 <= midway["done"] < midway["total"], log_of(out, first)
    second = submit(slurm, clip, out)
    end = slurm.wait_for(second, "COMPLETED", "FAILED", seconds=180)
    assert end["ExitCode"] == "0:0", log_of(out, second)
    assert_same_results(out, undisturbed)


def test_a_lost_node_does_not_stop_the_others(slurm: OneBox, clip: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo.zarr"
    number = submit(slurm, clip, out)
    await_progress(slurm, out, 1)
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

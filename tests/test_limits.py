"""Limits of control groups: of containers and of jobs of a batch system, one within another, in both versions."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.cluster.options import ClusterOptions
from pipeline.cluster.starting import WORKER_BYTES, connect
from pipeline.machine import limits
from pipeline.machine.cores import available_cores

JOB = "system.slice/slurmstepd.scope/job_7/step_0"
GB = 10**9
UNLIMITED = {
    "2": {"memory.max": "max\n", "cpu.max": "max 100000\n"},
    "1": {"memory.limit_in_bytes": f"{2**63 - 4096}\n", "cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"},
}


class Machine:
    total, available = 64 * GB, 50 * GB


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of /sys/fs/cgroup, on a machine with 64 GB."""
    monkeypatch.setattr(limits, "_GROUPS", tmp_path)
    monkeypatch.setattr(limits, "_OWN", tmp_path / "own")
    monkeypatch.setattr(psutil, "virtual_memory", Machine)
    return tmp_path


def write(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def test_a_job_of_a_batch_system(groups: Path) -> None:
    """The step has no limit of its own; the job that it is in has one."""
    (groups / "own").write_text(f"0::/{JOB}\n")
    write(groups / JOB, UNLIMITED["2"])
    stat = f"anon {5 * GB}\nfile {9 * GB}\nshmem {GB}\n"
    write((groups / JOB).parent, {"memory.max": f"{8 * GB}\n", "memory.stat": stat, "cpu.max": "150000 100000\n"})
    assert (limits.memory_bytes(), limits.free_bytes(), limits.quota_cores()) == (8 * GB, 2 * GB, 1.5)


def test_version_1_has_a_folder_for_each_controller(groups: Path) -> None:
    (groups / "own").write_text(f"4:memory:/{JOB}\n3:cpu,cpuacct:/{JOB}\n1:name=systemd:/\n0::/\n")
    for controller in ("memory", "cpu"):
        write(groups / controller, UNLIMITED["1"])
        write(groups / controller / JOB, UNLIMITED["1"])
    stat = f"cache {9 * GB}\nrss 1\ntotal_rss {GB}\ntotal_shmem {GB}\n"
    write((groups / "memory" / JOB).parent, {"memory.limit_in_bytes": f"{8 * GB}", "memory.stat": stat})
    write(groups / "cpu" / JOB, {"cpu.cfs_quota_us": "250000", "cpu.cfs_period_us": "100000"})
    assert (limits.memory_bytes(), limits.free_bytes(), limits.quota_cores()) == (8 * GB, 6 * GB, 2.5)


@pytest.mark.parametrize("own", ["0::/\n", "0::/../../docker/0a1b\n", None], ids=["root", "the host's path", "no path"])
def test_a_container_sees_its_group_as_the_outmost_one(groups: Path, own: str | None) -> None:
    if own is not None:
        (groups / "own").write_text(own)
    write(groups, {"memory.max": f"{4 * GB}", "memory.stat": f"anon {3 * GB}\nshmem 0\n", "cpu.max": "100000 100000"})
    assert (limits.memory_bytes(), limits.free_bytes(), limits.quota_cores()) == (4 * GB, GB, 1.0)
    assert available_cores() == 1


@pytest.mark.parametrize("version", UNLIMITED)
def test_without_a_limit_it_is_the_machine(groups: Path, version: str) -> None:
    (groups / "own").write_text({"2": "0::/\n", "1": "4:memory:/\n3:cpu:/\n"}[version])
    for folder in (groups, groups / "memory", groups / "cpu"):
        write(folder, UNLIMITED[version])
    assert (limits.memory_bytes(), limits.free_bytes()) == (Machine.total, Machine.available)
    assert limits.quota_cores() == float("inf")


def test_a_limit_decides_on_the_workers(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else as many would start as the whole machine has memory for, and the system would kill them one by one."""
    write(groups, {"memory.max": f"{5 * WORKER_BYTES}"})
    monkeypatch.setattr("pipeline.cluster.starting.available_cores", lambda: 16)
    asked: dict[str, Any] = {}

    def cluster(**options: Any) -> None:
        asked.update(options)
        raise RuntimeError("no worker is needed here")

    monkeypatch.setattr("distributed.LocalCluster", cluster)
    with pytest.raises(Exception, match="no worker is needed"), connect(ClusterOptions(dashboard_port=0)):
        pass
    assert asked["n_workers"] == 2
    assert asked["memory_limit"] == 5 * WORKER_BYTES // 2


@pytest.mark.parametrize(
    ("given", "workers"),
    [
        ({}, "16"),
        ({"SLURM_MEM_PER_NODE": "12000"}, "4"),
        ({"SLURM_MEM_PER_NODE": "2000"}, "1"),
        ({"SLURM_MEM_PER_NODE": "0"}, "16"),
        ({"SLURM_MEM_PER_NODE": "640000"}, "16"),
        ({"SLURM_MEM_PER_CPU": "1000"}, "5"),
        ({"SLURM_MEM_PER_CPU": "100"}, "1"),
        ({"SLURM_MEM_PER_CPU": "1000", "WORKERS": "3"}, "3"),
    ],
    ids=lambda value: ",".join("=".join(pair) for pair in value.items()) if isinstance(value, dict) else "",
)
def test_the_memory_of_a_batch_job_decides_on_the_workers(given: dict[str, str], workers: str) -> None:
    """The script's function `work` starts the workers of a node. `echo` stands for Python and shows the arguments."""
    script = (Path(__file__).parents[1] / "workflows" / "slurm" / "run.sbatch").read_text()
    work = script[script.index("work() {") : script.index("start_scheduler() {")]
    unset = {"THREADS": "", "WORKERS": "", "INTERFACE": "", "SCHEDULER_FILE": "file", "SLURMD_NODENAME": "n0"}
    environment = {"PATH": os.environ["PATH"], "PYTHON": "echo", "CUDA_VISIBLE_DEVICES": "", **unset, **given}
    command = ["bash", "-uc", f"{work}work"]
    ran = subprocess.run(command, env={**environment, "SLURM_CPUS_ON_NODE": "16"}, capture_output=True, text=True)
    assert ran.stdout.split()[-2:] == ["--nworkers", workers], ran.stderr

"""A real SLURM for tests: controller, two node daemons and munge on this machine, in one temporary folder."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from getpass import getuser
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue", "openssl")
NODES = ("n0", "n1")


def missing_programs() -> list[str]:
    """What is not installed; Debian and Ubuntu have all of it in slurm-wlm, munge and openssl."""
    path = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin"
    return [program for program in PROGRAMS if shutil.which(program, path=path) is None]


class OneBox:
    """A running SLURM of two nodes; its commands run in its environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": os.environ.get("PATH", "") + os.pathsep + "/usr/sbin",
        }

    def command(self, *arguments: str, cwd: Path | None = None, **extra: str) -> str:
        """Run a SLURM command; returns its output, raises AssertionError with its words where it fails."""
        done = subprocess.run(
            arguments, env=self.environment | extra, cwd=cwd, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def job(self, number: str) -> dict[str, str]:
        """What the controller knows of a job: JobState, ExitCode, Restarts, ..."""
        words = self.command("scontrol", "show", "job", number, "--oneliner").split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait_for(self, number: str, *states: str, seconds: float) -> dict[str, str]:
        """Wait until the job is in one of these states, and return what is known of it then."""
        until = time.monotonic() + seconds
        while (job := self.job(number))["JobState"] not in states:
            assert time.monotonic() < until, f"job {number} is {job['JobState']}, not {states}, after {seconds} s"
            time.sleep(0.25)
        return job


@contextmanager
def onebox() -> Iterator[OneBox]:
    """Start SLURM; everything that was started is ended and removed again."""
    with ExitStack() as stack:
        # Not pytest's folder: the path of a socket must stay below 108 bytes.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True)))
        box = OneBox(folder)
        _write_configuration(folder)
        _start_munge(box, stack)
        _start(box, stack, "slurmctld", "-D", "-f", str(folder / "slurm.conf"))
        for node in NODES:
            _start(box, stack, "slurmd", "-D", "-f", str(folder / "slurm.conf"), "-N", node)
        until = time.monotonic() + 30
        while box.command("sinfo", "--noheader", "--Node", "--format=%T").split() != ["idle"] * len(NODES):
            assert time.monotonic() < until, f"SLURM did not come up: {(folder / 'slurmctld.log').read_text()[-2000:]}"
            time.sleep(0.25)
        stack.callback(subprocess.run, ["scancel", f"--user={getuser()}"], env=box.environment, check=False)
        yield box


def _start_munge(box: OneBox, stack: ExitStack) -> None:
    key = box.folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    files = {name: box.folder / f"munged.{name}" for name in ("socket", "pid-file", "log-file", "seed-file")}
    options = [f"--{name}={path}" for name, path in files.items()]
    _start(box, stack, "munged", "--foreground", "--force", f"--key-file={key}", *options)
    until = time.monotonic() + 10
    while not files["socket"].exists():
        assert time.monotonic() < until, "munged did not start"
        time.sleep(0.05)


def _start(box: OneBox, stack: ExitStack, *arguments: str) -> None:
    with (box.folder / f"{arguments[0]}.out").open("ab") as out:
        process = subprocess.Popen(arguments, env=box.environment, stdout=out, stderr=out, start_new_session=True)
    stack.callback(_end, process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _write_configuration(folder: Path) -> None:
    host = socket.gethostname().split(".")[0]
    controller, *daemons = _free_ports(1 + len(NODES))
    cpus = os.cpu_count() or 1
    nodes = [
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} Gres=gpu:1 State=UNKNOWN"
        for node, port in zip(NODES, daemons, strict=True)
    ]
    for node in NODES:
        (folder / "spool" / node).mkdir(parents=True)
    (folder / "state").mkdir()
    # A GPU that is listed and cannot be used, so that the job must find that out.
    (folder / "gres.conf").write_text("Name=gpu File=/dev/null\n")
    settings = f"""
        ClusterName=onebox
        SlurmctldHost={host}(127.0.0.1)
        AuthType=auth/munge
        AuthInfo=socket={folder}/munged.socket
        CredType=cred/munge
        SlurmUser={getuser()}
        SlurmdUser={getuser()}
        SlurmctldPort={controller}
        StateSaveLocation={folder}/state
        SlurmdSpoolDir={folder}/spool/%n
        SlurmctldPidFile={folder}/slurmctld.pid
        SlurmdPidFile={folder}/slurmd-%n.pid
        SlurmctldLogFile={folder}/slurmctld.log
        SlurmdLogFile={folder}/slurmd-%n.log
        MpiDefault=none
        ProctrackType=proctrack/linuxproc
        TaskPlugin=task/none
        SelectType=select/cons_tres
        SelectTypeParameters=CR_Core
        ReturnToService=2
        KillWait=5
        MailProg=/bin/true
        GresTypes=gpu
        PartitionName=test Nodes={",".join(NODES)} Default=YES MaxTime=INFINITE State=UP"""
    lines = [line.strip() for line in settings.splitlines()]
    (folder / "slurm.conf").write_text("\n".join([*lines, *nodes, ""]))


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]

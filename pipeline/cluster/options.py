"""What the user may say about the cluster."""

from __future__ import annotations

import errno
import json
import socket
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ClusterError
from pipeline.machine.device import PRECISIONS
from pipeline.machine.gpus import visible_gpus
from pipeline.text import unknown

DEVICES = ("auto", "cpu", "cuda", "tensorrt")
"""What --device takes."""


@dataclass(frozen=True)
class ClusterOptions:
    """What the user may say about the cluster. None of it changes results."""

    workers: int | None = None
    """CPU workers; None: one per core, as far as memory goes."""
    workers_per_gpu: int = 1
    threads: int | None = None
    """Slots per worker: one GPU slot, the others decode and write. None: 1 on a CPU, where decoding beside the models
    would take their own core and twice the memory; 3 on a GPU."""
    gpus: tuple[str, ...] | None = None
    """Ordinals or UUIDs of the GPUs to use; None: all that are visible."""
    device: str = "auto"
    """One of DEVICES: what ONNX Runtime runs models on. auto: CUDA where there is a GPU, else the CPU; in this process
    (executor inline) always the CPU. The models are the same; values differ in the last digits, with TensorRT more."""
    worker_memory_bytes: int | None = None
    """Memory of one worker, beyond which it is restarted; None: an equal share of the machine's."""
    precision: str = "fp32"
    """"fp16": networks compute in half precision; results differ slightly."""
    gpu_memory_bytes: int | None = None
    """GPU memory of one worker's models; None: an equal share of the card, less head-room."""
    scheduler: str | None = None
    """Address (tcp://host:port, tls://host:port) or scheduler file of a running cluster."""
    host: str = "127.0.0.1"
    """Where scheduler and dashboard listen: whoever reaches them runs code as you."""
    dashboard_port: int = 8787
    chunk_timeout_seconds: float = 600.0


def check(options: ClusterOptions) -> None:
    """Raise ClusterError for what can be told at once to be a mistake, before a store is made or a process started."""
    if options.device not in DEVICES:
        raise ClusterError(unknown("device", options.device, DEVICES))
    if options.precision not in PRECISIONS:
        raise ClusterError(unknown("precision", options.precision, PRECISIONS))
    if options.scheduler is not None:
        _refuse_for_a_running_cluster(options)
        scheduler_address(options.scheduler)
        return
    chosen_gpus(options)
    if not 0 <= options.dashboard_port < 1 << 16:
        raise ClusterError(f"--dashboard-port {options.dashboard_port}: ports are 0 (any free one) to 65535")
    try:
        if ":" in options.host:  # Dask's dashboard takes none
            raise OSError(errno.EAFNOSUPPORT, "IPv6 is not supported")
        with socket.socket() as probe:
            probe.bind((options.host, 0))
    except OSError as err:
        raise ClusterError(
            f"cannot listen on --host {options.host}: {err.strerror}; give an address of this machine, for example "
            "127.0.0.1, or 0.0.0.0 for all of them"
        ) from err


def _refuse_for_a_running_cluster(options: ClusterOptions) -> None:
    """What would change nothing there."""
    ours = ClusterOptions()
    for name, flag in {
        "workers": "--workers",
        "workers_per_gpu": "--workers-per-gpu",
        "threads": "--threads",
        "gpus": "--gpus",
        "worker_memory_bytes": "--worker-memory",
    }.items():
        if getattr(options, name) != getattr(ours, name):
            raise ClusterError(
                f"{flag} is for workers started here; those of --scheduler are there already: leave it out"
            )


def chosen_gpus(options: ClusterOptions) -> list[str]:
    """The GPUs that were asked for, all that are visible by default. Raises ClusterError where one is not there."""
    if options.device == "cpu":
        if options.gpus:
            raise ClusterError(f"--gpus {','.join(options.gpus)} and --device cpu exclude each other; leave one out")
        return []
    visible = visible_gpus()
    if options.gpus is None:
        if options.device != "auto" and not visible:
            raise ClusterError(
                f"--device {options.device}: this machine shows no GPU; leave it out to run on the CPU, "
                "or see: reelgraph doctor"
            )
        return visible
    for gpu in options.gpus:
        if gpu not in visible and not (visible and gpu.startswith(("GPU-", "MIG-"))):
            there = f"this machine shows {', '.join(visible)}" if visible else "this machine shows no GPU"
            remedy = "name some of those" if visible else "leave it out to run on the CPU, or see: reelgraph doctor"
            raise ClusterError(f"--gpus {','.join(options.gpus)}: there is no GPU {gpu!r}; {there}: {remedy}")
    return list(options.gpus)


def scheduler_address(where: str) -> str:
    """The address in a scheduler file, or the address itself. Raises ClusterError for what can be neither."""
    if "://" in where:
        if where.partition("://")[0] not in ("tcp", "tls", "ucx", "ws", "wss"):
            raise ClusterError(f"--scheduler {where}: write the address as tcp://host:port or tls://host:port")
        return where
    start = f"start one with: dask scheduler --scheduler-file {where}"
    try:
        address = json.loads(Path(where).read_text())["address"]
    except FileNotFoundError as err:
        raise ClusterError(f"scheduler file {where} does not exist; {start}") from err
    except OSError as err:
        raise ClusterError(f"scheduler file {where} cannot be read: {err.strerror}; check its permissions") from err
    except (ValueError, KeyError, TypeError) as err:
        raise ClusterError(f"{where} is not a scheduler file: it names no address; {start}") from err
    return str(address)

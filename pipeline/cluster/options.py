"""Options of the cluster, said once: flags, `pipeline.run(...)` and help derive from them."""

from __future__ import annotations

import errno
import json
import socket
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from pipeline.errors import ClusterError
from pipeline.files.regular import read_file
from pipeline.machine.gpus import visible_gpus
from pipeline.text import says, unknown

Device = Literal["auto", "cpu", "cuda", "tensorrt"]
Precision = Literal["fp32", "fp16"]
SMALLEST_MEMORY_BYTES = 256_000_000
LONGEST_SECONDS = 1e6
"""Eleven days: timers of the C library overflow far beyond that."""


def _flag(default: Any, description: str, metavar: str = "", **limits: Any) -> Any:
    """Declare an option: its default, its help, and the placeholder of its value in `--help`."""
    return Field(default, description=description, json_schema_extra={"metavar": metavar}, **limits)


class ClusterOptions(BaseModel):
    """Options of the cluster that a run works on. None of them changes results.

    The flags of `reelgraph run`, the parameters of `pipeline.run(...)` and their help derive from this class.

        ClusterOptions(workers=4, worker_memory_bytes=8_000_000_000)   # run ... --workers 4 --worker-memory 8GB
        ClusterOptions(gpus=("0", "1"), workers_per_gpu=2)             # run ... --gpus 0,1 --workers-per-gpu 2
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    workers: int | None = _flag(None, "CPU workers (default: one per core, as memory allows)", "N", ge=1)
    workers_per_gpu: int = _flag(1, "workers on each GPU (default: 1)", "N", ge=1)
    threads: int | None = _flag(
        None, "slots per worker: one for models, the rest decode and write (default: 1, on a GPU 3)", "N", ge=1
    )
    worker_memory_bytes: int | None = _flag(
        None,
        "memory of a worker, for example 8GB. A worker that holds three quarters of it is restarted between chunks. "
        "Default: an equal share of the machine's",
        "SIZE",
        ge=SMALLEST_MEMORY_BYTES,
    )
    gpu_memory_bytes: int | None = _flag(
        None,
        "GPU memory of a worker's models, for example 6GB (default: an equal share of the card, less 2 GiB)",
        "SIZE",
        ge=SMALLEST_MEMORY_BYTES,
    )
    device: Device = _flag(
        "auto",
        "device that ONNX Runtime runs models on. The models are the same; values differ slightly between devices. "
        "tensorrt first builds engines for minutes; its differences were not measured. Default: auto, CUDA if there is "
        "a GPU (with executor inline the CPU)",
    )
    precision: Precision = _flag(
        "fp32",
        "fp16: networks compute in half precision, for GPUs. On a CPU it is no faster, and embeddings of Dlib moved by "
        "up to 0.0011, of a distance whose threshold is 0.6 (default: fp32)",
    )
    gpus: tuple[str, ...] | None = _flag(None, "GPUs to use, ordinals or UUIDs (default: all that are visible)", "0,1")
    scheduler: str | None = _flag(
        None, "a running Dask cluster: scheduler file, tcp://host:port or tls://host:port", "FILE|ADDRESS"
    )
    host: str = _flag(
        "127.0.0.1",
        "address that scheduler and dashboard listen on (default: 127.0.0.1). The dashboard has no password",
        "ADDRESS",
    )
    insecure: bool = _flag(
        False,
        "connect scheduler and workers without TLS: a process that reaches them can run code as you (default: no)",
    )
    dashboard_port: int = _flag(8787, "port of the dashboard (default: 8787, or a free one if that is taken)", "PORT")
    chunk_timeout_seconds: float = _flag(
        600.0, "a step that takes longer ends its worker (default: 600)", "SECONDS", gt=0, le=LONGEST_SECONDS
    )
    wait_for_workers_seconds: float = _flag(
        300.0,
        "how long a run without any worker waits for one, for example 90s or 5m (default: 5m)",
        "DURATION",
        ge=0,
        le=LONGEST_SECONDS,
    )
    flush: bool = _flag(True, "flush each committed chunk to the disk, so that it survives a power cut (default: yes)")

    @field_validator("device", "precision", mode="before")
    @classmethod
    def _known(cls, value: object, info: ValidationInfo) -> object:
        valid = get_args({"device": Device, "precision": Precision}[str(info.field_name)])
        if value not in valid:
            raise ValueError(unknown(str(info.field_name), str(value), valid))
        return value

    @field_validator("gpus", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(value.split(",")) if isinstance(value, str) else value

    @field_validator("worker_memory_bytes", "gpu_memory_bytes", mode="before")
    @classmethod
    def _size(cls, value: object) -> object:
        return parse_size(value) if isinstance(value, str) else value

    @field_validator("wait_for_workers_seconds", mode="before")
    @classmethod
    def _duration(cls, value: object) -> object:
        return parse_duration(value) if isinstance(value, str) else value

    @classmethod
    def of(cls, **values: Any) -> ClusterOptions:
        """Return the options, checked. Raises ClusterError, one line, if a name or a value is wrong."""
        try:
            return cls(**values)
        except ValidationError as err:
            problem = err.errors()[0]
            name = str(problem["loc"][0]) if problem["loc"] else ""
            if problem["type"] == "extra_forbidden":
                raise ClusterError(unknown("option", name, cls.model_fields)) from err
            message = problem["msg"].removeprefix("Value error, ")
            given = "" if says(message, repr(problem["input"])) else f" (got {problem['input']!r})"
            raise ClusterError(f"{flag_of(name)}: {message[0].lower()}{message[1:]}{given}") from err


def flag_of(field: str) -> str:
    """Return the flag of an option: "--worker-memory" for worker_memory_bytes."""
    return "--" + field.removesuffix("_bytes").removesuffix("_seconds").replace("_", "-")


def parse_size(text: str) -> int:
    """Return bytes of `8GB`, `512MiB`, `2e9`. Raises ValueError for a text that is not a size of at least 256 MB."""
    from dask.utils import parse_bytes

    try:
        size = int(parse_bytes(text))
    except (ValueError, OverflowError):
        size = 0
    if size < SMALLEST_MEMORY_BYTES:
        raise ValueError(f"{text!r} is not a size of at least 256MB, such as 8GB")
    return size


def parse_duration(text: str) -> float:
    """Return seconds of `300`, `90s`, `5m`, `1h`. Raises ValueError for a text that is not a duration."""
    from dask.utils import parse_timedelta

    try:
        seconds = float(parse_timedelta(text.strip().removesuffix("in") if text.strip().endswith("min") else text))
    except (ValueError, KeyError):
        seconds = -1.0
    if not 0 <= seconds <= LONGEST_SECONDS:
        raise ValueError(f"{text!r} is not a duration, such as 90s or 5m")
    return seconds


def check_in_process(options: ClusterOptions) -> None:
    """Raise ClusterError for an option that has no effect without a cluster."""
    used = {"device", "precision", "gpus", "gpu_memory_bytes", "flush"}
    name = next((one for one in sorted(changed(options)) if one not in used), None)
    if name is not None:
        raise ClusterError(f"{flag_of(name)} is for a cluster; with executor inline it has no effect: leave it out")


def changed(options: ClusterOptions) -> set[str]:
    """Return the names of the options that are not at their defaults."""
    ours = ClusterOptions()
    return {name for name in ClusterOptions.model_fields if getattr(options, name) != getattr(ours, name)}


def check(options: ClusterOptions) -> None:
    """Raise ClusterError for what can be told at once to be a mistake, before a store is made or a process started."""
    if options.scheduler is not None:
        given = changed(options)
        for name in ("workers", "workers_per_gpu", "threads", "gpus", "worker_memory_bytes", "insecure"):
            if name in given:
                raise ClusterError(
                    f"{flag_of(name)} is for workers started here; those of --scheduler are there already: leave it out"
                )
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


def chosen_gpus(options: ClusterOptions) -> list[str]:
    """The GPUs that were asked for, all that are visible by default. Raises ClusterError if one is not there."""
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
        address = json.loads(read_file(where))["address"]
    except FileNotFoundError as err:
        raise ClusterError(f"scheduler file {where} does not exist; {start}") from err
    except OSError as err:
        raise ClusterError(f"scheduler file {where} cannot be read: {err.strerror}; check its permissions") from err
    except (ValueError, KeyError, TypeError) as err:
        raise ClusterError(f"{where} is not a scheduler file: it names no address; {start}") from err
    return str(address)
